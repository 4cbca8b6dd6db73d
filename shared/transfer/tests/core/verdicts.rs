//! Every combination of facts, against a second reading of the rules.

use std::time::Duration;

use landfall_transfer::timeline::{Health, health};
use landfall_transfer::{
    Cause, Clocks, Counts, Declared, Evidence, FileOutcome, Input, Manifest, Status,
};

use crate::world::{File, START, World};

const FILES_END: Duration = Duration::from_mins(1);
const LATE_CANCEL: Duration = Duration::from_secs(90);
const EXPORTER_ENDS: Duration = Duration::from_mins(2);
const EARLY_CANCEL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// No manifest.
    No,
    /// One that names what was uploaded.
    Uploaded,
    /// One that names a file which nobody uploads.
    Absent,
    /// One that counts other records than were read.
    OtherCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    None,
    AllArrived,
    SomeRejected,
    SomeHeld,
    NothingArrived,
    NoRecords,
    OneOfTwoCounted,
    Unreadable,
    UnreadableAndNothingArrived,
    Poisoned,
    Unbalanced,
    NeverEnds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    Early,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive {
    /// Nothing is heard any more.
    Silent,
    /// The server app sends signs of life for ever.
    Chatty,
    /// Open files move for ever.
    Moving,
}

#[derive(Clone, Copy, Debug)]
struct Facts {
    named: Named,
    files: Files,
    errored: bool,
    exported: bool,
    cancel: Cancel,
    alive: Alive,
    listable: bool,
}

fn all() -> Vec<Facts> {
    let mut all = Vec::new();
    for named in [
        Named::No,
        Named::Uploaded,
        Named::Absent,
        Named::OtherCounts,
    ] {
        for files in [
            Files::None,
            Files::AllArrived,
            Files::SomeRejected,
            Files::SomeHeld,
            Files::NothingArrived,
            Files::NoRecords,
            Files::OneOfTwoCounted,
            Files::Unreadable,
            Files::UnreadableAndNothingArrived,
            Files::Poisoned,
            Files::Unbalanced,
            Files::NeverEnds,
        ] {
            for cancel in [Cancel::No, Cancel::Early, Cancel::Late] {
                for alive in [Alive::Silent, Alive::Chatty, Alive::Moving] {
                    for bits in 0..8_u8 {
                        all.push(Facts {
                            named,
                            files,
                            errored: bits & 1 != 0,
                            exported: bits & 2 != 0,
                            cancel,
                            alive,
                            listable: bits & 4 != 0,
                        });
                    }
                }
            }
        }
    }
    all
}

/// Clocks whose looks and reports are rare, so that a run is short; all others are the defaults.
fn clocks() -> Clocks {
    Clocks {
        reconcile_interval: Duration::from_hours(500),
        waiting_report_interval: Duration::from_hours(500),
        retry_pause: Duration::from_hours(1),
        ..Clocks::default()
    }
}

fn counts(applied: u64, unchanged: u64, held: u64, rejected: u64) -> Counts {
    Counts {
        read: applied + unchanged + held + rejected,
        applied,
        unchanged,
        held,
        rejected,
    }
}

const PROBLEM: &str = "issues: the file ends in the middle of record 4711, after 123456789 bytes, although its length is known to be more";
const EXCEPTION: &str =
    "com.example.vault.migration.export.listener.internal.AttachmentsCouldNotBeSerializedException";

fn uploads(facts: Facts) -> Vec<File> {
    let sound = || File::new("a", counts(3, 2, 0, 0));
    let unreadable = |counts| File {
        outcome: FileOutcome::Unreadable {
            reason: PROBLEM.to_owned(),
        },
        ..File::new("b", counts)
    };
    match facts.files {
        Files::None => vec![],
        Files::AllArrived | Files::NeverEnds => vec![sound()],
        Files::SomeRejected => vec![sound(), File::new("b", counts(1, 0, 0, 1))],
        Files::SomeHeld => vec![sound(), File::new("b", counts(0, 1, 1, 0))],
        Files::NothingArrived => vec![File::new("a", counts(0, 0, 2, 2))],
        Files::NoRecords => vec![File::new("a", Counts::default())],
        Files::OneOfTwoCounted => vec![File::new("a-1-of-2", counts(3, 0, 0, 0))],
        Files::Unreadable => vec![sound(), unreadable(counts(1, 0, 0, 0))],
        Files::UnreadableAndNothingArrived => vec![unreadable(Counts::default())],
        Files::Poisoned => vec![
            sound(),
            File {
                outcome: FileOutcome::Poisoned {
                    reason: PROBLEM.to_owned(),
                },
                ..File::new("b", Counts::default())
            },
        ],
        Files::Unbalanced => vec![File::new(
            "a",
            Counts {
                read: 5,
                applied: 4,
                ..Counts::default()
            },
        )],
    }
}

fn world(facts: Facts) -> World {
    let mut files = uploads(facts);
    let mut named: Vec<(String, Declared)> = files
        .iter()
        .map(|file| {
            let more = u64::from(facts.named == Named::OtherCounts);
            let declared = Declared {
                records: Some(file.counts.read + more),
                ..Declared::default()
            };
            (file.label.to_owned(), declared)
        })
        .collect();
    if facts.named == Named::Absent {
        named.push(("never-uploaded".to_owned(), Declared::default()));
    }
    let manifest = (facts.named != Named::No).then(|| Manifest::new(1, named).unwrap());
    if manifest.is_some() {
        files.push(File {
            manifest: true,
            ..File::new("export-manifest", Counts::default())
        });
    }
    let mut world = World::new(clocks(), files, manifest);
    world.listable = facts.listable;
    world.chatter = match facts.alive {
        Alive::Chatty => Some((Duration::from_hours(5), Input::ListenerTriggered)),
        Alive::Moving if facts.files == Files::NeverEnds => Some((
            Duration::from_hours(5),
            Input::WorkMoved {
                file: "a".to_owned(),
                counts: Counts::default(),
            },
        )),
        Alive::Silent | Alive::Moving => None,
    };
    world
}

/// What happens, one instant after another; whatever is owed is done in between.
fn play(facts: Facts) -> World {
    let mut world = world(facts);
    world.take(Input::ListenerTriggered);
    for index in 0..world.files.len() {
        world.announce(index);
    }
    world.run_until(START + EARLY_CANCEL);
    if facts.cancel == Cancel::Early {
        world.take(Input::CancelRequested);
    }
    world.run_until(START + FILES_END);
    for index in 0..world.files.len() {
        if facts.files != Files::NeverEnds || world.files[index].manifest {
            world.end(index);
        }
    }
    world.run_until(START + LATE_CANCEL);
    if facts.cancel == Cancel::Late {
        world.take(Input::CancelRequested);
    }
    world.run_until(START + EXPORTER_ENDS);
    if facts.errored {
        world.take(Input::ListenerErrored {
            exception: Some(EXCEPTION.to_owned()),
        });
    }
    if facts.exported {
        world.take(Input::ExportPhaseCompleted);
    }
    world.run();
    world
}

/// What must come of it.
#[derive(Debug)]
struct Expected {
    status: Status,
    cause: Cause,
    at: Duration,
    evidence: Option<Evidence>,
}

/// Whether any record is in the target once the files have ended.
fn arrived(facts: Facts) -> bool {
    use Files as F;
    matches!(
        facts.files,
        F::AllArrived
            | F::SomeRejected
            | F::SomeHeld
            | F::OneOfTwoCounted
            | F::Unreadable
            | F::Poisoned
            | F::Unbalanced
    )
}

/// The rules for a complete export, read a second time.
fn complete(facts: Facts, evidence: Evidence, at: Duration) -> Expected {
    use Files as F;
    let nothing_exported = facts.files == F::None;
    let whole = matches!(facts.files, F::AllArrived | F::NoRecords)
        || (facts.files == F::OneOfTwoCounted && evidence == Evidence::Manifest);
    let missing = match facts.named {
        Named::Absent => true,
        Named::OtherCounts => !nothing_exported,
        Named::No | Named::Uploaded => false,
    };
    let (status, cause) = if evidence == Evidence::ListenerError {
        let status = if arrived(facts) {
            Status::Incomplete
        } else {
            Status::Failed
        };
        (status, Cause::ListenerError)
    } else if nothing_exported && evidence == Evidence::FileList {
        (Status::Failed, Cause::NoFile)
    } else if !missing && (nothing_exported || whole) {
        (Status::Success, Cause::Complete)
    } else if arrived(facts) {
        (Status::Incomplete, Cause::Gaps)
    } else {
        (Status::Failed, Cause::NothingUsable)
    };
    Expected {
        status,
        cause,
        at,
        evidence: Some(evidence),
    }
}

/// The rules, read a second time: the first that speaks decides.
fn expected(facts: Facts) -> Expected {
    use Files as F;
    let clocks = clocks();
    let if_arrived = if arrived(facts) {
        Status::Incomplete
    } else {
        Status::Failed
    };
    let expected = |status, cause, at| Expected {
        status,
        cause,
        at,
        evidence: None,
    };
    let complete = |evidence, at| complete(facts, evidence, at);
    // Whoever cancels before anything arrived gets FAILED, at once.
    if facts.cancel == Cancel::Early {
        return expected(Status::Failed, Cause::Cancelled, EARLY_CANCEL);
    }
    if facts.files == F::Poisoned {
        return expected(Status::Failed, Cause::Poison, FILES_END);
    }
    let ends = facts.files != F::NeverEnds;
    if ends && matches!(facts.named, Named::Uploaded | Named::OtherCounts) {
        return complete(Evidence::Manifest, FILES_END);
    }
    if facts.cancel == Cancel::Late {
        return expected(if_arrived, Cause::Cancelled, LATE_CANCEL);
    }
    let drained = EXPORTER_ENDS + clocks.listener_error_drain;
    if !ends {
        let last_moved = if facts.named == Named::No {
            Duration::ZERO
        } else {
            // The manifest's end was the last sign of work.
            FILES_END
        };
        return if facts.errored {
            expected(Status::Failed, Cause::ListenerError, drained)
        } else if facts.alive == Alive::Moving {
            expected(Status::Failed, Cause::Deadline, clocks.hard_deadline)
        } else {
            expected(
                Status::Failed,
                Cause::WorkStale,
                last_moved + clocks.work_stale_after,
            )
        };
    }
    if facts.errored && facts.listable {
        return complete(Evidence::ListenerError, EXPORTER_ENDS);
    }
    if facts.errored {
        return expected(if_arrived, Cause::ListenerError, drained);
    }
    if facts.exported && facts.listable {
        return complete(Evidence::ExportComplete, EXPORTER_ENDS);
    }
    let nothing_known = facts.files == F::None && facts.named == Named::No;
    if nothing_known && facts.listable {
        return complete(Evidence::FileList, clocks.no_file_period);
    }
    if facts.alive == Alive::Chatty {
        return expected(Status::Failed, Cause::Deadline, clocks.hard_deadline);
    }
    let last_sign = if facts.exported {
        EXPORTER_ENDS
    } else if nothing_known {
        Duration::ZERO
    } else {
        FILES_END
    };
    let waits = facts.named == Named::Absent || facts.files == F::OneOfTwoCounted;
    if waits || !facts.listable {
        return expected(
            Status::Failed,
            Cause::ExporterSilent,
            last_sign + clocks.export_silence,
        );
    }
    complete(Evidence::FileList, last_sign + clocks.quiet_period)
}

#[test]
pub(crate) fn every_combination_of_facts_ends_as_the_rules_say_and_when_they_say_it() {
    let all = all();
    assert_eq!(all.len(), 4 * 12 * 3 * 3 * 8);
    for facts in all {
        let world = play(facts);
        let expected = expected(facts);
        assert_eq!(
            world.decided(),
            (expected.status, expected.cause, expected.at),
            "{facts:?}: {:?}",
            world.verdict()
        );
        let message = &world.verdict().unwrap().message;
        let first: String = message.chars().take(200).collect();
        let reason = match expected.cause {
            Cause::Complete if facts.files == Files::None => "server app exported no file",
            Cause::Complete => "Migration complete",
            Cause::Gaps => " arrived (",
            Cause::NothingUsable => "Nothing could be imported from",
            Cause::NoFile => "The server app uploaded no file since 22 Nov 00:00 UTC",
            Cause::ListenerError => "(com.example.vault.migration.export.listener.internal.",
            Cause::Cancelled => "Cancelled as requested",
            Cause::WorkStale => "The import made no progress for 6 hours",
            Cause::ExporterSilent => "The server app sent nothing since 22 Nov",
            Cause::Deadline => "Stopped after 10 days",
            Cause::Poison => "(issues: the file ends in the middle",
            Cause::Unanswered | Cause::NoToken => unreachable!("Connect wants no answers"),
        };
        assert!(first.contains(reason), "{facts:?}: {first}");
        // SUCCESS leaves nothing to do; everybody else is told to re-run.
        assert_eq!(
            expected.status != Status::Success,
            first.contains("Re-run the app migration from the migration assistant"),
            "{facts:?}: {first}"
        );
        let unreadable = matches!(
            facts.files,
            Files::Unreadable | Files::UnreadableAndNothingArrived
        );
        if unreadable && matches!(expected.cause, Cause::Gaps | Cause::NothingUsable) {
            assert!(first.contains("issues: the file ends"), "{first}");
        }
        for evidence in [
            Evidence::Manifest,
            Evidence::ExportComplete,
            Evidence::FileList,
            Evidence::ListenerError,
        ] {
            assert_eq!(
                expected.evidence == Some(evidence),
                message.contains(evidence.as_words()),
                "{facts:?}: {message}"
            );
        }
        if facts.named == Named::Absent && expected.cause == Cause::Gaps {
            assert!(message.contains("never-uploaded"), "{message}");
        }
    }
}

#[test]
fn success_is_given_only_when_everything_balances_and_nothing_is_missing() {
    let mut successes = 0;
    for facts in all() {
        let world = play(facts);
        let verdict = world.verdict().unwrap();
        let counts = world.transfer.work.counts;
        let spotless = world.transfer.work.files_open() == 0
            && world.transfer.work.files_failed == 0
            && counts.balances()
            && counts.rejected + counts.held == 0
            && !verdict.message.contains("issing");
        if verdict.status == Status::Success {
            assert!(spotless, "{facts:?}: {verdict:?}");
            successes += 1;
        } else if matches!(verdict.cause, Cause::Gaps | Cause::NothingUsable) {
            assert!(!spotless, "{facts:?}: {verdict:?}");
        }
    }
    assert!(successes > 100, "{successes}");
}

#[test]
fn the_timeline_of_what_is_settled_tells_whether_anybody_must_act() {
    for facts in all() {
        let world = play(facts);
        let verdict = world.verdict().unwrap();
        assert!(world.transfer.is_settled(), "{facts:?}");
        let found = health(&world.timeline, verdict.decided_at, &world.clocks);
        if verdict.status == Status::Success {
            assert_eq!(found, Health::Healthy, "{facts:?}");
        } else {
            assert!(
                matches!(&found, Health::NeedsAction { by: Some(_), because, .. }
                    if because.starts_with(&format!("it is {}: ", verdict.status.as_str()))),
                "{facts:?}: {found}"
            );
        }
    }
}
