use std::fmt::Write as _;

use super::*;
use crate::counts::Counts;
use crate::identity::{TenantId, TransferId};

const ARRIVED: [Arrived; 4] = [
    Arrived::NoFile,
    Arrived::All,
    Arrived::Some,
    Arrived::Nothing,
];

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

/// Every way to end, as the published table words it.
fn ends() -> Vec<(End<'static>, &'static str)> {
    vec![
        (
            End::Complete(Evidence::Manifest),
            "complete by the manifest",
        ),
        (
            End::Complete(Evidence::ExportComplete),
            "complete by the platform's word",
        ),
        (
            End::Complete(Evidence::FileList),
            "complete by the platform's file list",
        ),
        (
            End::Complete(Evidence::ListenerError),
            "over, because the server's listener failed",
        ),
        (
            End::Stopped(&StopReason::ListenerError),
            "stopped `clocks.listener_error_drain` after the listener failed",
        ),
        (End::Stopped(&StopReason::Cancelled), "cancelled"),
        (
            End::Stopped(&StopReason::Poison),
            "stopped, because a file killed every worker that tried it",
        ),
        (
            End::Stopped(&StopReason::WorkStale),
            "stopped, because nothing moved for `clocks.work_stale_after`",
        ),
        (
            End::Stopped(&StopReason::ExporterSilent),
            "stopped, because nothing came for `clocks.export_silence`",
        ),
        (
            End::Stopped(&StopReason::Deadline),
            "stopped at `clocks.hard_deadline`",
        ),
        (
            End::Stopped(&StopReason::Unanswered),
            "stopped on Forge `clocks.forge_answer_by` after the last answer, because no message can be answered",
        ),
        (
            End::Stopped(&StopReason::NoToken),
            "stopped on Forge shortly before the installation's token ends, because no newer one has come",
        ),
        (
            End::Stopped(&StopReason::SettledElsewhere { status: None }),
            "settled by the platform",
        ),
    ]
}

const fn arrived_as_words(arrived: Arrived) -> &'static str {
    match arrived {
        Arrived::NoFile => "no file was exported",
        Arrived::All => "everything",
        Arrived::Some => "something",
        Arrived::Nothing => "nothing",
    }
}

/// Whether an end can go with what arrived: only evidence that everything came can find that everything arrived.
fn can_be(end: End<'_>, arrived: Arrived) -> bool {
    arrived != Arrived::All
        || matches!(end, End::Complete(evidence) if evidence != Evidence::ListenerError)
}

/// The table of `docs/verdicts.md`, from the function that decides.
fn published() -> String {
    let mut rows: Vec<(Vec<&str>, Vec<&str>, Option<Ruling>)> = Vec::new();
    for (end, end_words) in ends() {
        let mut of_end: Vec<(Vec<&str>, Option<Ruling>)> = Vec::new();
        for arrived in ARRIVED.into_iter().filter(|arrived| can_be(end, *arrived)) {
            let ruling = table::ruling(end, arrived);
            let words = arrived_as_words(arrived);
            match of_end.iter_mut().find(|(_, known)| *known == ruling) {
                Some((arrivals, _)) => arrivals.push(words),
                None => of_end.push((vec![words], ruling)),
            }
        }
        for (arrivals, ruling) in of_end {
            match rows
                .iter_mut()
                .find(|(_, known, same)| *known == arrivals && *same == ruling)
            {
                Some((ends, ..)) => ends.push(end_words),
                None => rows.push((vec![end_words], arrivals, ruling)),
            }
        }
    }
    let mut table = String::from(
        "| How it ended | What arrived | Status | Cause | The message begins with | What to do |\n|---|---|---|---|---|---|\n",
    );
    for (ends, arrivals, ruling) in rows {
        let arrived = match arrivals.len() {
            1 => arrivals[0].to_owned(),
            _ if arrivals.contains(&"something") && arrivals.contains(&"nothing") => {
                "whatever".to_owned()
            }
            _ => arrivals.join(", or "),
        };
        let ends = ends.join("; or ");
        match ruling {
            Some(ruling) => writeln!(
                table,
                "| {ends} | {arrived} | {} | `{}` | {} | {} |",
                ruling.status.as_str(),
                ruling.cause.as_str(),
                format!("{} {}", ruling.says, ruling.next)
                    .trim_end()
                    .replace('[', "⟨")
                    .replace(']', "⟩"),
                ruling.mend
            ),
            None => writeln!(
                table,
                "| {ends} | {arrived} | its word | – | – | nothing: there is nobody left to tell |"
            ),
        }
        .unwrap();
    }
    table
}

const BEGIN: &str = "<!-- The table begins. -->\n";
const END: &str = "<!-- The table ends. -->\n";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "LANDFALL_BLESS=1 writes the table into the document"
)]
fn the_published_table_is_the_one_that_decides() {
    let document = include_str!("../../../../docs/verdicts.md");
    let (before, rest) = document.split_once(BEGIN).expect("the table's beginning");
    let (found, after) = rest.split_once(END).expect("the table's end");
    let wanted = published();
    if std::env::var("LANDFALL_BLESS").is_ok() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verdicts.md");
        std::fs::write(path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            found, wanted,
            "LANDFALL_BLESS=1 cargo test -p landfall-transfer writes the table"
        );
    }
}

/// A transfer about which everything is as long as it can be.
fn verbose(arrived: Arrived) -> Transfer {
    let mut transfer = Transfer::first_seen(
        TenantId::new("tenant"),
        TransferId::new("t"),
        None,
        None,
        START,
    );
    let billion = 1_000_000_000;
    transfer.exporter.exception = Some("x".repeat(300));
    transfer.exporter.waiting_for = Some(format!("{UPLOADS_AWAITED}{}", "w".repeat(300)));
    transfer.work.first_problem = Some("p".repeat(300));
    transfer.work.counts = match arrived {
        Arrived::NoFile => Counts::default(),
        Arrived::All => Counts {
            read: billion,
            applied: billion,
            ..Counts::default()
        },
        Arrived::Some => Counts {
            read: 2 * billion,
            applied: billion,
            rejected: billion,
            ..Counts::default()
        },
        Arrived::Nothing => Counts {
            read: 2 * billion,
            held: billion,
            rejected: billion,
            ..Counts::default()
        },
    };
    transfer.work.files_known = if arrived == Arrived::NoFile { 0 } else { 9_999 };
    transfer.work.files_ended = transfer.work.files_known;
    transfer
}

#[test]
fn the_first_200_characters_hold_the_reason_and_the_next_step_however_long_the_problem_is() {
    for (end, words) in ends() {
        for arrived in ARRIVED.into_iter().filter(|arrived| can_be(end, *arrived)) {
            let transfer = verbose(arrived);
            assert_eq!(Arrived::of(end, &transfer, &[]), arrived, "{words}");
            // A stale transfer was given 47 hours, an old one 11 days: the longest that can be written.
            let now = START + Duration::from_hours(11 * 24);
            let verdict = match end {
                End::Complete(evidence) => Verdict::of_import(&transfer, evidence, &[], now),
                End::Stopped(reason) => {
                    Verdict::of_stop(&transfer, reason, Duration::from_hours(47), now)
                }
            };
            let Some(verdict) = verdict else { continue };
            let ruling = table::ruling(end, arrived).unwrap();
            let first: String = verdict.message.chars().take(200).collect();
            let reason = fill(
                ruling.says,
                &Words {
                    stale: "47 hours".to_owned(),
                    ..Words::new(&transfer, &[], now)
                },
            );
            assert!(first.starts_with(&reason), "{words}: {first}");
            if verdict.status == Status::Success {
                assert_eq!(ruling.next, "");
            } else {
                let step = "Re-run the app migration from the migration assistant";
                assert!(first.contains(step), "{words}: {first}");
            }
            assert!(verdict.message.chars().count() <= MESSAGE_MAX);
            assert!(
                !verdict.message.contains(['{', '}', '[', ']']),
                "{verdict:?}"
            );
            if let End::Complete(evidence) = end {
                assert!(verdict.message.contains(evidence.as_words()), "{verdict:?}");
            }
        }
    }
}

#[test]
fn nothing_is_left_of_brackets_that_have_nothing_to_say() {
    let mut transfer = verbose(Arrived::Some);
    transfer.work.first_problem = None;
    transfer.work.counts.rejected = 0;
    transfer.work.counts.read = transfer.work.counts.applied;
    transfer.exporter.exception = None;
    let words = Words::new(&transfer, &[], START);
    assert_eq!(
        fill("a[ ({exception})] b[ ({files})].", &words),
        "a b (9999 files)."
    );
    assert_eq!(
        fill("outside{exception} stays", &words),
        "outside stays",
        "only what stands in brackets is dropped"
    );
    assert_eq!(
        fill("{arrived} [of] {records}", &words),
        "1000000000 of 1000000000 records"
    );
}

#[test]
fn the_most_telling_problem_is_named() {
    let mut work = verbose(Arrived::Some).work;
    let named = |work: &Work, missing: &[&str]| {
        let missing: Vec<String> = missing.iter().map(|what| (*what).to_owned()).collect();
        problem(work, &missing)
    };
    work.first_problem = Some("first".to_owned());
    work.stalled_by = Some("stalled".to_owned());
    assert_eq!(named(&work, &["b"]), "stalled");
    work.stalled_by = None;
    assert_eq!(named(&work, &["b"]), "first");
    work.first_problem = None;
    assert_eq!(named(&work, &["b", "c"]), "missing: b; c");
    work.counts = Counts {
        read: 9,
        applied: 1,
        rejected: 3,
        held: 2,
        ..Counts::default()
    };
    assert_eq!(
        named(&work, &[]),
        "3 rejected, 2 held, 3 without an outcome"
    );
    work.counts.read = 6;
    assert_eq!(named(&work, &[]), "3 rejected, 2 held");
    work.counts = Counts::default();
    assert_eq!(named(&work, &[]), "");
}

#[test]
fn every_kind_of_loss_keeps_everything_from_having_arrived() {
    let end = End::Complete(Evidence::Manifest);
    let clean = verbose(Arrived::All);
    assert_eq!(Arrived::of(end, &clean, &[]), Arrived::All);
    assert_eq!(Arrived::of(end, &clean, &["b".to_owned()]), Arrived::Some);
    for lose in [
        |transfer: &mut Transfer| transfer.work.files_failed = 1,
        |transfer: &mut Transfer| {
            transfer.work.counts.rejected = 1;
            transfer.work.counts.read += 1;
        },
        |transfer: &mut Transfer| {
            transfer.work.counts.held = 1;
            transfer.work.counts.read += 1;
        },
        |transfer: &mut Transfer| transfer.work.counts.read += 1,
        |transfer: &mut Transfer| transfer.work.counts.unchanged += 1,
    ] {
        let mut lossy = clean.clone();
        lose(&mut lossy);
        assert_eq!(Arrived::of(end, &lossy, &[]), Arrived::Some);
    }
}

#[test]
fn what_is_waited_for_is_said_in_two_ways() {
    let mut exporter = verbose(Arrived::Some).exporter;
    exporter.waiting_for = Some(format!("{UPLOADS_AWAITED}1 of 7 files of a"));
    assert_eq!(waiting(&exporter), "missing: 1 of 7 files of a");
    exporter.waiting_for = Some("more".to_owned());
    assert_eq!(waiting(&exporter), "waiting for more");
    exporter.waiting_for = None;
    assert_eq!(waiting(&exporter), "");
}

#[test]
fn a_duration_is_told_in_the_largest_unit_that_says_enough() {
    for (seconds, told) in [
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "119 minutes"),
        (7_200, "2 hours"),
        (172_799, "47 hours"),
        (172_800, "2 days"),
    ] {
        assert_eq!(duration_of(Duration::from_secs(seconds)), told);
    }
}
