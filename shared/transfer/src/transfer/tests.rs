use std::time::Duration;

use super::*;
use crate::completeness::Evidence;
use crate::settlement::{Answer, Form, Listing};
use crate::verdict::{Cause, Status, Verdict};

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

fn at(minutes: u64) -> Timestamp {
    START + Duration::from_secs(minutes * 60)
}

fn clocks() -> Clocks {
    Clocks::default()
}

fn transfer() -> Transfer {
    Transfer::first_seen(
        TenantId::new("tenant"),
        TransferId::new("t-1"),
        None,
        None,
        START,
    )
}

/// A transfer as its shells treat it.
trait Happens {
    /// Takes an input in. What a count has is *added* to the files that are known; and when everything is there, no file is open any more.
    fn happens(&mut self, input: Input, now: Timestamp, clocks: &Clocks) -> bool;
}

impl Happens for Transfer {
    fn happens(&mut self, input: Input, now: Timestamp, clocks: &Clocks) -> bool {
        let input = match input {
            Input::FilesCounted { totals: more, .. } => {
                let mut totals = totals_of(self);
                totals.known += more.known;
                totals.ended += more.ended;
                totals.failed += more.failed;
                totals.poisoned += more.poisoned;
                totals.counts += more.counts;
                totals.first_problem = totals.first_problem.or(more.first_problem);
                totals.manifest = more.manifest;
                if more.ended > 0 {
                    totals.in_flight.clear();
                }
                totals.last_received_at = (more.known > 0).then_some(now);
                totals.last_moved_at = (more.known + more.ended > 0).then_some(now);
                Input::FilesCounted { totals, at: now }
            }
            input => input,
        };
        let changed = self.apply(input, now, clocks);
        if let Phase::Stopping {
            reason: StopReason::Complete { .. },
            ..
        } = &self.phase
        {
            let totals = totals_of(self);
            self.apply(fenced(totals), now, clocks);
        }
        changed
    }
}

/// What the files of a transfer add up to that was counted just now.
fn totals_of(transfer: &Transfer) -> FileTotals {
    let work = &transfer.work;
    FileTotals {
        known: work.files_known,
        ended: work.files_ended,
        failed: work.files_failed,
        poisoned: work.files_poisoned,
        counts: work.counts,
        in_flight: work.in_flight.clone(),
        first_problem: work.first_problem.clone(),
        ..FileTotals::default()
    }
}

/// What is owed, once the files are counted where that is owed first.
fn owed(transfer: &Transfer, now: Timestamp) -> Step {
    let mut transfer = transfer.clone();
    match transfer.next_step(now, &clocks()) {
        Step::CountFiles => {
            transfer.happens(counted(), now, &clocks());
            transfer.next_step(now, &clocks())
        }
        step => step,
    }
}

/// Nothing has happened to any file.
fn counted() -> Input {
    let totals = FileTotals::default();
    Input::FilesCounted { totals, at: START }
}

/// One more file is taken up, and counted.
fn seen() -> Input {
    Input::FilesCounted {
        totals: FileTotals {
            known: 1,
            ..FileTotals::default()
        },
        at: START,
    }
}

/// An open file ends, and is counted.
fn ended(outcome: FileOutcome, counts: Counts, manifest: bool) -> Input {
    let poisoned = matches!(outcome, FileOutcome::Poisoned { .. });
    let first_problem = match outcome {
        FileOutcome::Imported | FileOutcome::Stopped => None,
        FileOutcome::Unreadable { reason } | FileOutcome::Poisoned { reason } => Some(reason),
    };
    let totals = FileTotals {
        ended: 1,
        failed: u64::from(first_problem.is_some()),
        poisoned: u64::from(poisoned),
        counts,
        first_problem,
        manifest,
        ..FileTotals::default()
    };
    Input::FilesCounted { totals, at: START }
}

fn given(inputs: impl IntoIterator<Item = (u64, Input)>) -> Transfer {
    let mut transfer = transfer();
    for (minutes, input) in inputs {
        if input == complete() {
            transfer.happens(Input::ExportPhaseCompleted, at(minutes), &clocks());
        }
        transfer.happens(input, at(minutes), &clocks());
    }
    transfer
}

fn counts(read: u64, rejected: u64) -> Counts {
    Counts {
        read,
        applied: read - rejected,
        rejected,
        ..Counts::default()
    }
}

fn imported(read: u64, rejected: u64) -> Input {
    ended(FileOutcome::Imported, counts(read, rejected), false)
}

fn moved() -> Input {
    Input::WorkMoved {
        file: "k".to_owned(),
        counts: Counts::default(),
    }
}

fn complete() -> Input {
    Input::ExportComplete {
        evidence: Evidence::ExportComplete,
        missing: Vec::new(),
    }
}

fn verdict(transfer: &Transfer) -> &Verdict {
    match &transfer.phase {
        Phase::Settling(settlement) => &settlement.verdict,
        Phase::Settled(settled) => settled.verdict.as_ref().unwrap(),
        phase => panic!("no verdict in {phase:?}"),
    }
}

fn fenced(totals: FileTotals) -> Input {
    Input::FilesFenced {
        totals,
        leased_until: None,
    }
}

#[test]
fn one_rejected_record_makes_it_incomplete() {
    let transfer = given([(0, seen()), (1, imported(10, 1)), (1, complete())]);
    assert_eq!(verdict(&transfer).status, Status::Incomplete);
    assert!(
        verdict(&transfer)
            .message
            .starts_with("9 of 10 records arrived (1 rejected). Re-run")
    );
}

#[test]
fn an_import_of_which_nothing_arrived_has_failed() {
    let transfer = given([(0, seen()), (1, imported(3, 3)), (1, complete())]);
    assert_eq!(
        (verdict(&transfer).status, verdict(&transfer).cause),
        (Status::Failed, Cause::NothingUsable)
    );
}

#[test]
fn counts_that_do_not_balance_are_never_a_success() {
    let lost = Counts {
        read: 2,
        applied: 1,
        ..Counts::default()
    };
    let ended = ended(FileOutcome::Imported, lost, false);
    let transfer = given([(0, seen()), (1, ended), (1, complete())]);
    assert_eq!(verdict(&transfer).status, Status::Incomplete);
}

#[test]
fn an_export_can_not_be_complete_while_a_file_is_open() {
    let transfer = given([
        (0, seen()),
        (0, seen()),
        (1, imported(1, 0)),
        (1, complete()),
    ]);
    assert!(transfer.is_open());
}

#[test]
fn a_file_that_ended_during_a_look_makes_another_look_due() {
    let mut transfer = given([
        (0, seen()),
        (0, seen()),
        (1, imported(1, 0)),
        (2, imported(1, 0)),
    ]);
    transfer.exporter.manifest = true;
    let looked_at_one = Input::ExportIncomplete {
        waiting_for: "more".to_owned(),
        files_ended: 1,
    };
    transfer.happens(looked_at_one, at(2), &clocks());
    assert_eq!(
        transfer.next_step(at(2), &clocks()),
        Step::CheckCompleteness
    );
}

#[test]
fn records_in_flight_are_told_and_counted_once() {
    let mut transfer = given([(0, seen())]);
    let half = Input::WorkMoved {
        file: "k".to_owned(),
        counts: counts(5, 1),
    };
    transfer.happens(half.clone(), at(1), &clocks());
    transfer.happens(half, at(2), &clocks());
    assert!(
        transfer.report(0).message.contains("5 records read"),
        "{:?}",
        transfer.report(0)
    );
    let ended = ended(FileOutcome::Imported, counts(9, 1), false);
    transfer.happens(ended, at(3), &clocks());
    assert_eq!(transfer.work.counts_so_far(), counts(9, 1));
}

#[test]
fn work_that_can_not_go_on_says_what_it_waits_for_until_it_moves() {
    let mut transfer = given([(0, seen())]);
    let stalled = Input::WorkStalled {
        reason: "the sink is not available".to_owned(),
    };
    assert!(transfer.happens(stalled.clone(), at(1), &clocks()));
    assert!(
        !transfer.happens(stalled, at(2), &clocks()),
        "the same reason is not written again"
    );
    let told = transfer.report(0).message;
    assert!(
        told.starts_with("Waiting since") && told.contains("because the sink is not available"),
        "{told}"
    );
    transfer.happens(moved(), at(3), &clocks());
    assert!(transfer.report(0).message.starts_with("Importing:"));
}

#[test]
fn a_file_whose_held_records_are_asked_again_says_when_and_has_moved() {
    let mut transfer = given([(0, seen())]);
    let counts = Counts {
        held: 2,
        ..counts(9, 0)
    };
    let later = Input::AskedAgainLater {
        file: "k".to_owned(),
        counts,
        at: at(20),
    };
    assert!(transfer.happens(later.clone(), at(5), &clocks()));
    assert_eq!(transfer.work.last_moved_at, at(5));
    assert_eq!(transfer.work.counts_so_far(), counts);
    assert!(
        !transfer.happens(later.clone(), at(6), &clocks()),
        "whoever takes the file up too early changes nothing"
    );
    let other = |at| Input::AskedAgainLater {
        file: "l".to_owned(),
        counts,
        at,
    };
    for (minute, again) in [(7, other(at(25))), (8, later.clone()), (9, other(at(25)))] {
        transfer.happens(again, at(minute), &clocks());
        assert_eq!(
            transfer.work.last_moved_at,
            at(7),
            "two files that wait are no progress, however often they are taken up"
        );
    }
    transfer.happens(later, at(10), &clocks());
    let told = transfer.report(0).message;
    assert!(
        told.contains("because 2 held records are asked again at 22 Nov 00:20 UTC"),
        "{told}"
    );
    transfer.happens(moved(), at(20), &clocks());
    assert!(transfer.report(0).message.starts_with("Importing:"));
}

#[test]
fn a_share_of_a_file_counts_only_while_a_file_is_open() {
    assert_eq!(given([]).report(500).percent, 1);
    let open = given([(0, seen())]);
    assert_eq!(open.report(500).percent, 50);
    assert_eq!(open.report(9_000).percent, 99);
}

#[test]
fn a_report_never_falls_and_never_leaves_1_to_99() {
    let mut transfer = given([(0, seen()), (0, seen())]);
    assert_eq!(transfer.report(0).percent, 1);
    transfer.happens(imported(1, 0), at(1), &clocks());
    let half = transfer.report(500).percent;
    assert_eq!(half, 74);
    transfer.happens(Input::Reporting { percent: half }, at(1), &clocks());
    transfer.happens(seen(), at(2), &clocks());
    assert_eq!(transfer.report(0).percent, half);
    assert!(!transfer.may_report(at(1), &clocks()));
    assert!(transfer.may_report(at(2), &clocks()));
}

#[test]
fn a_creation_time_that_can_not_be_one_is_not_believed() {
    let seen = |created: i64| {
        Transfer::first_seen(
            TenantId::new("t"),
            TransferId::new("x"),
            None,
            Some(Timestamp::from_millis(created)),
            START,
        )
        .created_at
    };
    assert_eq!(
        seen(START.as_millis() - 1_000),
        Timestamp::from_millis(START.as_millis() - 1_000)
    );
    assert_eq!(seen(START.as_millis() + 1_000), START);
    assert_eq!(seen(0), START);
}

#[test]
fn the_age_of_the_first_attempt_does_not_end_a_rerun() {
    let created = Timestamp::from_millis(START.as_millis() - 11 * 86_400_000);
    let rerun = Transfer::first_seen(
        TenantId::new("t"),
        TransferId::new("x"),
        Some(TransferId::new("o")),
        Some(created),
        START,
    );
    assert_eq!(rerun.next_step(START, &clocks()), Step::Wait);
}

#[test]
fn what_is_due_is_never_a_wait_and_nothing_is_owed_before() {
    let states = [
        given([]),
        given([(0, seen())]),
        given([(0, seen()), (1, imported(1, 0))]),
        given([(0, seen()), (1, imported(1, 0)), (2, complete())]),
        given([(0, seen()), (1, Input::CancelRequested)]),
        given([(0, Input::ListenerErrored { exception: None })]),
        given([(0, Input::PlatformUnavailable { retry_after: None })]),
    ];
    for transfer in states {
        let due = transfer.due_at(&clocks()).unwrap();
        assert_ne!(
            transfer.next_step(due, &clocks()),
            Step::Wait,
            "{transfer:?}"
        );
        assert_eq!(
            transfer.next_step(due - Duration::from_millis(1), &clocks()),
            Step::Wait,
            "{transfer:?}"
        );
    }
}

#[test]
fn a_creation_time_is_believed_from_a_transfers_whole_life_ago_until_now() {
    let seen = |created: Timestamp| {
        let (tenant, id) = (TenantId::new("t"), TransferId::new("x"));
        Transfer::first_seen(tenant, id, None, Some(created), START).created_at
    };
    let bit = Duration::from_millis(1);
    let oldest = START - platform::LIFE;
    assert_eq!(seen(oldest), oldest);
    assert_eq!(seen(oldest - bit), START);
    assert_eq!(seen(START + bit), START);
}

#[test]
fn a_rerun_may_be_learnt_late_and_only_once() {
    let mut transfer = transfer();
    assert!(!transfer.is_rerun());
    transfer.created_at = START - Duration::from_hours(1);
    assert!(!transfer.join_chain(TransferId::new("t-1")), "its own id");
    assert_eq!(transfer.chain(), ChainId::new("t-1"));
    assert!(transfer.join_chain(TransferId::new("t-0")));
    assert!(transfer.is_rerun());
    assert_eq!(transfer.chain(), ChainId::new("t-0"));
    assert_eq!(transfer.created_at, START);
    assert!(!transfer.join_chain(TransferId::new("t-9")));
    assert_eq!(transfer.chain(), ChainId::new("t-0"));
}

#[test]
fn a_row_tells_the_records_of_so_many_files_in_flight_that_it_stays_small() {
    let mut transfer = given([]);
    let moved = |transfer: &mut Transfer, file: u64, read: u64| {
        let file = format!("k-{file}");
        let counts = counts(read, 0);
        transfer.happens(Input::WorkMoved { file, counts }, at(1), &clocks());
    };
    for file in 0..=IN_FLIGHT_MAX as u64 {
        moved(&mut transfer, file, 1);
    }
    assert_eq!(transfer.work.in_flight.len(), IN_FLIGHT_MAX);
    moved(&mut transfer, 0, 5);
    assert_eq!(transfer.work.in_flight["k-0"].read, 5);
}

#[test]
fn files_that_failed_are_counted_and_the_first_problem_is_kept() {
    let failed = |reason: &str, poisoned: bool| {
        let reason = reason.to_owned();
        ended(
            if poisoned {
                FileOutcome::Poisoned { reason }
            } else {
                FileOutcome::Unreadable { reason }
            },
            Counts::default(),
            false,
        )
    };
    let manifest = ended(FileOutcome::Imported, Counts::default(), true);
    let mut inputs = vec![(0, seen()); 5];
    inputs.extend([
        (1, manifest),
        (1, failed("first", false)),
        (2, failed("second", false)),
        (3, failed("third", true)),
        (4, failed("fourth", true)),
    ]);
    let transfer = given(inputs);
    let work = &transfer.work;
    assert_eq!((work.files_failed, work.files_poisoned), (4, 2));
    assert_eq!(work.first_problem.as_deref(), Some("first"));
    assert!(transfer.exporter.manifest, "kept");
    assert_eq!(transfer.files_exported(), 4);
}

mod completeness;
mod counting;
mod messages;
mod settling;
mod staging;
mod stopping;
mod stored;

#[test]
fn only_an_open_transfer_without_an_open_file_or_a_listener_error_waits_for_its_exporter() {
    assert!(transfer().waits_for_exporter());
    assert!(transfer().is_open());
    let at_work = given([(0, seen())]);
    assert!(!at_work.waits_for_exporter());
    let worked = given([(0, seen()), (1, imported(1, 0))]);
    assert!(worked.waits_for_exporter());
    let errored = given([(0, Input::ListenerErrored { exception: None })]);
    assert!(!errored.waits_for_exporter());
    let stopped = given([(0, Input::CancelRequested)]);
    assert!(!stopped.waits_for_exporter());
    assert!(!stopped.is_open());
}

#[test]
fn what_the_platform_decided_outweighs_why_we_were_stopping_and_nothing_else_does() {
    let reason = |transfer: &Transfer| match &transfer.phase {
        Phase::Stopping { reason, .. } => reason.clone(),
        other => panic!("{other:?}"),
    };
    let cancelled_first = given([
        (0, Input::CancelRequested),
        (1, Input::Stop(StopReason::Deadline)),
    ]);
    assert_eq!(reason(&cancelled_first), StopReason::Cancelled);
    let by = TransferId::new("t-2");
    let superseded = given([
        (0, Input::CancelRequested),
        (1, Input::Superseded { by: by.clone() }),
    ]);
    assert_eq!(reason(&superseded), StopReason::Superseded { by });
}

#[test]
fn the_platforms_word_for_the_outcome_is_kept_when_it_ended_the_transfer_itself() {
    let transfer = given([
        (
            0,
            Input::PlatformSettled {
                status: Some("TIMED_OUT".to_owned()),
            },
        ),
        (0, fenced(FileTotals::default())),
    ]);
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("{:?}", transfer.phase)
    };
    assert_eq!(settled.by, SettledBy::Platform);
    assert_eq!(settled.status.as_deref(), Some("TIMED_OUT"));
}

#[test]
fn transfers_are_told_apart_by_their_whole_id() {
    let seed = |id: &str| {
        let tenant = TenantId::new("tenant");
        Transfer::first_seen(tenant, TransferId::new(id), None, None, START).seed()
    };
    // FNV-1a's reference values: retries are scattered by them, so a replay depends on them.
    assert_eq!(seed(""), 0xCBF2_9CE4_8422_2325);
    assert_eq!(seed("a"), 0xAF63_DC4C_8601_EC8C);
    assert_eq!(seed("foobar"), 0x8594_4171_F739_67E8);
}
