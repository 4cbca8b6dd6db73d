use std::time::Duration;

use super::*;
use crate::verdict::{Cause, Status};

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

fn given(inputs: impl IntoIterator<Item = (u64, Input)>) -> Transfer {
    let mut transfer = transfer();
    for (minutes, input) in inputs {
        transfer.apply(input, at(minutes), &clocks());
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
    Input::FileEnded {
        file: String::new(),
        outcome: FileOutcome::Imported,
        counts: counts(read, rejected),
        manifest: false,
    }
}

fn moved() -> Input {
    Input::WorkMoved {
        file: "k".to_owned(),
        counts: Counts::default(),
    }
}

fn complete() -> Input {
    Input::ExportComplete {
        evidence: Evidence::Manifest,
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
fn a_clean_import_settles_success_and_is_over_when_the_platform_lists_it_no_more() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    assert_eq!(verdict(&transfer).status, Status::Success);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Settle);
    transfer.apply(Input::SettlementBegun, at(1), &clocks());
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Wait);
    transfer.apply(
        Input::SettlementAnswered(Answer::Accepted),
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Confirm);
    transfer.apply(Input::Listed(Listing::Absent), at(1), &clocks());
    assert!(transfer.is_settled());
    assert_eq!(transfer.due_at(&clocks()), None);
}

#[test]
fn one_rejected_record_makes_it_incomplete() {
    let transfer = given([(0, Input::FileSeen), (1, imported(10, 1)), (1, complete())]);
    assert_eq!(verdict(&transfer).status, Status::Incomplete);
    assert!(
        verdict(&transfer)
            .message
            .starts_with("9 of 10 records arrived. Re-run")
    );
}

#[test]
fn an_import_of_which_nothing_arrived_has_failed() {
    let transfer = given([(0, Input::FileSeen), (1, imported(3, 3)), (1, complete())]);
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
    let ended = Input::FileEnded {
        file: String::new(),
        outcome: FileOutcome::Imported,
        counts: lost,
        manifest: false,
    };
    let transfer = given([(0, Input::FileSeen), (1, ended), (1, complete())]);
    assert_eq!(verdict(&transfer).status, Status::Incomplete);
}

#[test]
fn an_export_can_not_be_complete_while_a_file_is_open() {
    let transfer = given([
        (0, Input::FileSeen),
        (0, Input::FileSeen),
        (1, imported(1, 0)),
        (1, complete()),
    ]);
    assert!(transfer.is_open());
}

#[test]
fn a_settlement_that_is_accepted_but_still_listed_takes_the_next_form_after_a_minute() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    let mut now = at(1);
    for form in [Form::Hundred, Form::Omitted, Form::LastReported] {
        let Phase::Settling(settlement) = &transfer.phase else {
            panic!("settled too early")
        };
        assert_eq!(settlement.form, form);
        transfer.apply(Input::SettlementBegun, now, &clocks());
        transfer.apply(Input::SettlementAnswered(Answer::Accepted), now, &clocks());
        transfer.apply(Input::Listed(Listing::Active), now, &clocks());
        assert_eq!(transfer.next_step(now, &clocks()), Step::Wait);
        now = now + clocks().settle_confirm_after;
        assert_eq!(transfer.next_step(now, &clocks()), Step::Confirm);
        transfer.apply(Input::Listed(Listing::Active), now, &clocks());
    }
    assert_eq!(verdict(&transfer).status, Status::Success);
}

#[test]
fn a_refused_form_is_given_up_at_once() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    transfer.apply(Input::SettlementBegun, at(1), &clocks());
    transfer.apply(
        Input::SettlementAnswered(Answer::FormRefused),
        at(1),
        &clocks(),
    );
    let Phase::Settling(settlement) = &transfer.phase else {
        panic!("settled too early")
    };
    assert_eq!(settlement.form, Form::Omitted);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Settle);
}

#[test]
fn a_403_is_believed_only_when_the_platform_lists_the_transfer_no_more() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    transfer.apply(Input::SettlementBegun, at(1), &clocks());
    transfer.apply(
        Input::SettlementAnswered(Answer::SuspectGone),
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Confirm);
    let mut listed = transfer.clone();
    listed.apply(Input::Listed(Listing::Active), at(1), &clocks());
    assert_eq!(listed.phase.as_str(), "SETTLING");
    let mut full = transfer.clone();
    full.apply(Input::Listed(Listing::Full), at(1), &clocks());
    assert_eq!(full.phase.as_str(), "SETTLING");
    transfer.apply(Input::Listed(Listing::Absent), at(1), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("still settling")
    };
    assert_eq!(settled.by, SettledBy::Platform);
}

#[test]
fn a_403_after_an_attempt_with_an_unknown_outcome_means_that_ours_arrived() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    transfer.apply(Input::SettlementBegun, at(1), &clocks());
    transfer.apply(
        Input::SettlementAnswered(Answer::Unknown { retry_after: None }),
        at(1),
        &clocks(),
    );
    transfer.apply(Input::SettlementBegun, at(2), &clocks());
    transfer.apply(
        Input::SettlementAnswered(Answer::SuspectGone),
        at(2),
        &clocks(),
    );
    transfer.apply(Input::Listed(Listing::Absent), at(2), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("still settling")
    };
    assert_eq!(
        (&settled.by, settled.status.as_deref()),
        (&SettledBy::App, Some("SUCCESS"))
    );
}

#[test]
fn a_sender_that_died_is_followed_by_another_with_the_same_verdict() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    let first = verdict(&transfer).clone();
    transfer.apply(Input::SettlementBegun, at(1), &clocks());
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Wait);
    assert_eq!(transfer.next_step(at(2), &clocks()), Step::Settle);
    assert_eq!(*verdict(&transfer), first);
}

#[test]
fn retries_of_a_settlement_pause_longer_and_longer_and_obey_the_platform() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        transfer.apply(Input::SettlementBegun, at(1), &clocks());
        transfer.apply(
            Input::SettlementAnswered(Answer::NotTaken { retry_after: None }),
            at(1),
            &clocks(),
        );
        let pause = transfer.due_at(&clocks()).unwrap().since(at(1));
        assert!(pause <= clocks().settle_retry_max);
        longest = longest.max(pause);
    }
    assert!(longest >= clocks().settle_retry_max / 2);
    let asked = Duration::from_hours(1);
    transfer.apply(
        Input::SettlementAnswered(Answer::NotTaken {
            retry_after: Some(asked),
        }),
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.due_at(&clocks()), Some(at(61)));
}

#[test]
fn a_cancelled_transfer_is_fenced_before_it_is_settled() {
    let mut transfer = given([(0, Input::FileSeen), (1, Input::CancelRequested)]);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::FenceFiles);
    let totals = FileTotals {
        known: 1,
        ended: 0,
        counts: counts(5, 0),
    };
    transfer.apply(
        Input::FilesFenced {
            totals,
            leased_until: Some(at(2)),
        },
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.phase.as_str(), "STOPPING");
    assert_eq!(transfer.due_at(&clocks()), Some(at(2)));
    transfer.apply(fenced(totals), at(2), &clocks());
    assert_eq!(
        (verdict(&transfer).status, verdict(&transfer).cause),
        (Status::Incomplete, Cause::Cancelled)
    );
}

#[test]
fn a_cancelled_transfer_with_nothing_written_has_failed() {
    let transfer = given([
        (1, Input::CancelRequested),
        (1, fenced(FileTotals::default())),
    ]);
    assert_eq!(verdict(&transfer).status, Status::Failed);
}

#[test]
fn a_cancellation_is_settled_in_time_whatever_the_lease_says() {
    let mut transfer = given([(0, Input::FileSeen), (1, Input::CancelRequested)]);
    let held = Input::FilesFenced {
        totals: FileTotals::default(),
        leased_until: Some(at(500)),
    };
    transfer.apply(held.clone(), at(1), &clocks());
    assert_eq!(transfer.due_at(&clocks()), Some(at(46)));
    transfer.apply(held, at(46), &clocks());
    assert_eq!(transfer.phase.as_str(), "SETTLING");
}

#[test]
fn a_silent_exporter_is_settled_failed_after_72_hours_and_not_before() {
    let mut transfer = given([(0, Input::ListenerTriggered)]);
    let silent = at(72 * 60);
    transfer.apply(Input::Listed(Listing::Active), at(72 * 60 - 1), &clocks());
    transfer.apply(Input::Reporting { percent: 1 }, at(72 * 60 - 1), &clocks());
    assert_eq!(transfer.next_step(at(72 * 60 - 1), &clocks()), Step::Wait);
    assert_eq!(
        transfer.next_step(silent, &clocks()),
        Step::Stop(StopReason::ExporterSilent)
    );
    transfer.apply(Input::Stop(StopReason::ExporterSilent), silent, &clocks());
    transfer.apply(fenced(FileTotals::default()), silent, &clocks());
    assert_eq!(
        (verdict(&transfer).status, verdict(&transfer).cause),
        (Status::Failed, Cause::ExporterSilent)
    );
}

#[test]
fn work_that_does_not_move_is_settled_failed_after_6_hours() {
    let transfer = given([(0, Input::FileSeen), (30, moved())]);
    let steps = |minutes| transfer.next_step(at(minutes), &clocks());
    assert_ne!(steps(30 + 6 * 60 - 1), Step::Stop(StopReason::WorkStale));
    assert_eq!(steps(30 + 6 * 60), Step::Stop(StopReason::WorkStale));
}

#[test]
fn an_old_transfer_is_stopped_at_10_days_however_lively_it_is() {
    let age = 10 * 24 * 60;
    let transfer = given([(0, Input::FileSeen), (age, moved())]);
    assert_eq!(
        transfer.next_step(at(age), &clocks()),
        Step::Stop(StopReason::Deadline)
    );
}

#[test]
fn a_quiet_export_is_looked_at_before_it_is_called_silent() {
    let quiet = 1 + 24 * 60;
    let mut transfer = given([(0, Input::FileSeen), (1, imported(1, 0))]);
    assert_eq!(
        transfer.next_step(at(quiet), &clocks()),
        Step::CheckCompleteness
    );
    let incomplete = Input::ExportIncomplete {
        waiting_for: "more".to_owned(),
        files_ended: 1,
    };
    transfer.apply(incomplete, at(quiet), &clocks());
    assert_ne!(
        transfer.next_step(at(quiet), &clocks()),
        Step::CheckCompleteness
    );
    assert_eq!(
        transfer.next_step(at(1 + 72 * 60), &clocks()),
        Step::Stop(StopReason::ExporterSilent)
    );
}

#[test]
fn a_file_that_ended_during_a_look_makes_another_look_due() {
    let mut transfer = given([
        (0, Input::FileSeen),
        (0, Input::FileSeen),
        (1, imported(1, 0)),
        (2, imported(1, 0)),
    ]);
    transfer.exporter.manifest = true;
    let looked_at_one = Input::ExportIncomplete {
        waiting_for: "more".to_owned(),
        files_ended: 1,
    };
    transfer.apply(looked_at_one, at(2), &clocks());
    assert_eq!(
        transfer.next_step(at(2), &clocks()),
        Step::CheckCompleteness
    );
}

#[test]
fn records_in_flight_are_told_and_counted_once() {
    let mut transfer = given([(0, Input::FileSeen)]);
    let half = Input::WorkMoved {
        file: "k".to_owned(),
        counts: counts(5, 1),
    };
    transfer.apply(half.clone(), at(1), &clocks());
    transfer.apply(half, at(2), &clocks());
    assert!(
        transfer.report(0).message.contains("5 records read"),
        "{:?}",
        transfer.report(0)
    );
    let ended = Input::FileEnded {
        file: "k".to_owned(),
        outcome: FileOutcome::Imported,
        counts: counts(9, 1),
        manifest: false,
    };
    transfer.apply(ended, at(3), &clocks());
    assert_eq!(transfer.work.counts_so_far(), counts(9, 1));
}

#[test]
fn work_that_can_not_go_on_says_what_it_waits_for_until_it_moves() {
    let mut transfer = given([(0, Input::FileSeen)]);
    let stalled = Input::WorkStalled {
        reason: "the sink is not available".to_owned(),
    };
    assert!(transfer.apply(stalled.clone(), at(1), &clocks()));
    assert!(
        !transfer.apply(stalled, at(2), &clocks()),
        "the same reason is not written again"
    );
    let told = transfer.report(0).message;
    assert!(
        told.starts_with("Waiting since") && told.contains("because the sink is not available"),
        "{told}"
    );
    transfer.apply(moved(), at(3), &clocks());
    assert!(transfer.report(0).message.starts_with("Importing:"));
}

#[test]
fn a_400_that_may_be_about_the_form_or_the_time_limit_is_settled_by_the_list() {
    let settling = given([
        (0, Input::FileSeen),
        (1, imported(10, 0)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    let mut still_active = settling.clone();
    still_active.apply(
        Input::SettlementAnswered(Answer::SuspectExpired),
        at(1),
        &clocks(),
    );
    still_active.apply(Input::Listed(Listing::Active), at(1), &clocks());
    let Phase::Settling(settlement) = &still_active.phase else {
        panic!("settled too early")
    };
    assert_eq!(settlement.form, Form::Omitted);
    let mut over = settling;
    over.apply(
        Input::SettlementAnswered(Answer::SuspectExpired),
        at(1),
        &clocks(),
    );
    over.apply(Input::Listed(Listing::Absent), at(1), &clocks());
    assert!(over.is_settled());
}

#[test]
fn when_every_form_is_refused_the_list_is_asked_whether_anything_is_left_to_settle() {
    let mut transfer = given([(0, Input::FileSeen), (1, imported(10, 0)), (1, complete())]);
    for _ in 0..3 {
        transfer.apply(Input::SettlementBegun, at(1), &clocks());
        transfer.apply(
            Input::SettlementAnswered(Answer::FormRefused),
            at(1),
            &clocks(),
        );
    }
    assert_eq!(transfer.due_at(&clocks()), Some(at(6)));
    assert_eq!(transfer.next_step(at(6), &clocks()), Step::Confirm);
}

#[test]
fn a_200_stands_when_nothing_contradicts_it_for_ten_minutes() {
    let mut transfer = given([
        (0, Input::FileSeen),
        (1, imported(10, 0)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    transfer.apply(
        Input::SettlementAnswered(Answer::Accepted),
        at(1),
        &clocks(),
    );
    let silent = Input::PlatformUnavailable { retry_after: None };
    transfer.apply(silent.clone(), at(5), &clocks());
    assert!(!transfer.is_settled());
    transfer.apply(silent, at(11), &clocks());
    assert!(transfer.is_settled());
}

#[test]
fn a_listener_error_whose_files_can_not_be_listed_is_settled_after_the_drain() {
    let mut transfer = given([(1, Input::ListenerErrored { exception: None })]);
    let unavailable = Input::PlatformUnavailable { retry_after: None };
    for minute in 1..11 {
        transfer.apply(unavailable.clone(), at(minute), &clocks());
    }
    transfer.apply(unavailable, at(11), &clocks());
    assert_eq!(
        transfer.next_step(at(11), &clocks()),
        Step::Stop(StopReason::ListenerError)
    );
}

#[test]
fn a_listener_error_before_any_file_is_looked_at_at_once() {
    let mut transfer = given([(
        1,
        Input::ListenerErrored {
            exception: Some("java.lang.Broken".to_owned()),
        },
    )]);
    assert_eq!(
        transfer.next_step(at(1), &clocks()),
        Step::CheckCompleteness
    );
    transfer.apply(
        Input::ExportComplete {
            evidence: Evidence::ListenerError,
            missing: vec![],
        },
        at(1),
        &clocks(),
    );
    assert_eq!(
        (verdict(&transfer).status, verdict(&transfer).cause),
        (Status::Failed, Cause::ListenerError)
    );
    assert!(verdict(&transfer).message.contains("java.lang.Broken"));
}

#[test]
fn a_listener_error_after_files_finishes_them_and_is_incomplete() {
    let mut transfer = given([
        (0, Input::FileSeen),
        (1, Input::ListenerErrored { exception: None }),
    ]);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Wait);
    transfer.apply(imported(4, 0), at(3), &clocks());
    assert_eq!(
        transfer.next_step(at(3), &clocks()),
        Step::CheckCompleteness
    );
    transfer.apply(
        Input::ExportComplete {
            evidence: Evidence::ListenerError,
            missing: vec![],
        },
        at(3),
        &clocks(),
    );
    assert_eq!(verdict(&transfer).status, Status::Incomplete);
}

#[test]
fn a_poisoned_file_fails_the_transfer_once_nothing_else_is_open() {
    let poisoned = Input::FileEnded {
        file: String::new(),
        outcome: FileOutcome::Poisoned {
            reason: "tried 5 times".to_owned(),
        },
        counts: Counts::default(),
        manifest: false,
    };
    let mut transfer = given([(0, Input::FileSeen), (0, Input::FileSeen), (1, poisoned)]);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Wait);
    transfer.apply(imported(1, 0), at(2), &clocks());
    assert_eq!(
        transfer.next_step(at(2), &clocks()),
        Step::Stop(StopReason::Poison)
    );
}

#[test]
fn a_rerun_supersedes_what_is_left_of_the_attempt_before() {
    let by = TransferId::new("t-2");
    let mut transfer = given([
        (0, Input::FileSeen),
        (5, Input::Superseded { by: by.clone() }),
    ]);
    assert_eq!(transfer.next_step(at(5), &clocks()), Step::FenceFiles);
    transfer.apply(fenced(FileTotals::default()), at(5), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("{:?}", transfer.phase)
    };
    assert_eq!(settled.by, SettledBy::Rerun(by));
}

#[test]
fn a_settled_transfer_takes_nothing_in_any_more() {
    let mut transfer = given([
        (
            0,
            Input::PlatformSettled {
                status: Some("CANCELLED".to_owned()),
            },
        ),
        (0, fenced(FileTotals::default())),
    ]);
    let over = transfer.clone();
    for late in [
        Input::FileSeen,
        imported(1, 0),
        Input::CancelRequested,
        complete(),
        moved(),
        Input::ListenerTriggered,
        Input::Reporting { percent: 50 },
        Input::Stop(StopReason::Deadline),
    ] {
        assert!(!transfer.apply(late, at(9), &clocks()));
    }
    assert_eq!(transfer, over);
}

#[test]
fn a_transfer_that_is_listed_no_more_is_given_up_after_two_looks() {
    let mut transfer = given([(0, Input::FileSeen), (5, Input::Listed(Listing::Absent))]);
    assert!(transfer.is_open());
    transfer.apply(Input::Listed(Listing::Absent), at(10), &clocks());
    assert_eq!(transfer.phase.as_str(), "STOPPING");
}

#[test]
fn absence_from_a_full_list_means_nothing() {
    let transfer = given([
        (5, Input::Listed(Listing::Full)),
        (10, Input::Listed(Listing::Full)),
        (20, Input::Listed(Listing::Full)),
    ]);
    assert!(transfer.is_open());
}

#[test]
fn a_report_never_falls_and_never_leaves_1_to_99() {
    let mut transfer = given([(0, Input::FileSeen), (0, Input::FileSeen)]);
    assert_eq!(transfer.report(0).percent, 1);
    transfer.apply(imported(1, 0), at(1), &clocks());
    let half = transfer.report(500).percent;
    assert_eq!(half, 74);
    transfer.apply(Input::Reporting { percent: half }, at(1), &clocks());
    transfer.apply(Input::FileSeen, at(2), &clocks());
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
        given([(0, Input::FileSeen)]),
        given([(0, Input::FileSeen), (1, imported(1, 0))]),
        given([(0, Input::FileSeen), (1, imported(1, 0)), (2, complete())]),
        given([(0, Input::FileSeen), (1, Input::CancelRequested)]),
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
fn a_stored_state_reads_back_as_it_was() {
    let transfer = given([
        (0, Input::FileSeen),
        (1, imported(10, 1)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    let stored = serde_json::to_string(&transfer).unwrap();
    assert_eq!(serde_json::from_str::<Transfer>(&stored).unwrap(), transfer);
}
