use super::*;

#[test]
fn a_cancelled_transfer_is_fenced_before_it_is_settled() {
    let mut transfer = given([(0, seen()), (1, Input::CancelRequested)]);
    assert_eq!(owed(&transfer, at(1)), Step::FenceFiles);
    let totals = FileTotals {
        known: 1,
        ended: 0,
        counts: counts(5, 0),
        ..FileTotals::default()
    };
    transfer.happens(
        Input::FilesFenced {
            totals: totals.clone(),
            leased_until: Some(at(2)),
        },
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.phase.as_str(), "STOPPING");
    assert_eq!(transfer.due_at(&clocks()), Some(at(2)));
    transfer.happens(fenced(totals.clone()), at(2), &clocks());
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
    let mut transfer = given([(0, seen()), (1, Input::CancelRequested)]);
    let held = Input::FilesFenced {
        totals: FileTotals::default(),
        leased_until: Some(at(500)),
    };
    transfer.happens(held.clone(), at(1), &clocks());
    assert_eq!(transfer.due_at(&clocks()), Some(at(46)));
    transfer.happens(held, at(46), &clocks());
    assert_eq!(transfer.phase.as_str(), "SETTLING");
}

#[test]
fn a_silent_exporter_is_settled_failed_after_72_hours_and_not_before() {
    let mut transfer = given([
        (0, Input::ListenerTriggered),
        (0, seen()),
        (0, imported(1, 0)),
    ]);
    let silent = at(72 * 60);
    let looked = Input::ExportIncomplete {
        waiting_for: "the server app to upload 1 of 2 files of a".to_owned(),
        files_ended: 1,
    };
    transfer.happens(looked, at(72 * 60 - 1), &clocks());
    transfer.happens(Input::Listed(Listing::Active), at(72 * 60 - 1), &clocks());
    transfer.happens(Input::Reporting { percent: 1 }, at(72 * 60 - 1), &clocks());
    assert_eq!(
        owed(&transfer, silent - Duration::from_millis(1)),
        Step::Wait
    );
    assert_eq!(
        owed(&transfer, silent),
        Step::Stop(StopReason::ExporterSilent)
    );
    transfer.happens(Input::Stop(StopReason::ExporterSilent), silent, &clocks());
    let totals = FileTotals {
        known: 1,
        ended: 1,
        counts: counts(1, 0),
        ..FileTotals::default()
    };
    transfer.happens(fenced(totals.clone()), silent, &clocks());
    assert_eq!(
        (verdict(&transfer).status, verdict(&transfer).cause),
        (Status::Failed, Cause::ExporterSilent)
    );
    assert!(
        verdict(&transfer)
            .message
            .contains("(missing: 1 of 2 files of a)")
    );
}

#[test]
fn work_that_does_not_move_is_settled_failed_after_6_hours() {
    let transfer = given([(0, seen()), (30, moved())]);
    let steps = |minutes| owed(&transfer, at(minutes));
    assert_ne!(steps(30 + 6 * 60 - 1), Step::Stop(StopReason::WorkStale));
    assert_eq!(steps(30 + 6 * 60), Step::Stop(StopReason::WorkStale));
}

#[test]
fn an_old_transfer_is_stopped_at_10_days_however_lively_it_is() {
    let age = 10 * 24 * 60;
    let transfer = given([(0, seen()), (age, moved())]);
    assert_eq!(owed(&transfer, at(age)), Step::Stop(StopReason::Deadline));
}

#[test]
fn a_quiet_export_is_looked_at_before_it_is_called_silent() {
    let quiet = 1 + 24 * 60;
    let mut transfer = given([(0, seen()), (1, imported(1, 0))]);
    assert_eq!(owed(&transfer, at(quiet)), Step::CheckCompleteness);
    let incomplete = Input::ExportIncomplete {
        waiting_for: "more".to_owned(),
        files_ended: 1,
    };
    transfer.happens(incomplete, at(quiet), &clocks());
    assert_ne!(owed(&transfer, at(quiet)), Step::CheckCompleteness);
    assert_eq!(
        owed(&transfer, at(1 + 72 * 60)),
        Step::Stop(StopReason::ExporterSilent)
    );
}

#[test]
fn a_listener_error_whose_files_can_not_be_listed_is_settled_after_the_drain() {
    let mut transfer = given([(1, Input::ListenerErrored { exception: None })]);
    let unavailable = Input::PlatformUnavailable { retry_after: None };
    for minute in 1..11 {
        transfer.happens(unavailable.clone(), at(minute), &clocks());
    }
    transfer.happens(unavailable, at(11), &clocks());
    assert_eq!(
        owed(&transfer, at(11)),
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
    assert_eq!(owed(&transfer, at(1)), Step::CheckCompleteness);
    transfer.happens(
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
    let mut transfer = given([(0, seen()), (1, Input::ListenerErrored { exception: None })]);
    assert_eq!(owed(&transfer, at(1)), Step::Wait);
    transfer.happens(imported(4, 0), at(3), &clocks());
    assert_eq!(owed(&transfer, at(3)), Step::CheckCompleteness);
    transfer.happens(
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
    let poisoned = ended(
        FileOutcome::Poisoned {
            reason: "tried 5 times".to_owned(),
        },
        Counts::default(),
        false,
    );
    let mut transfer = given([(0, seen()), (0, seen()), (1, poisoned)]);
    assert_eq!(owed(&transfer, at(1)), Step::Wait);
    transfer.happens(imported(1, 0), at(2), &clocks());
    assert_eq!(owed(&transfer, at(2)), Step::Stop(StopReason::Poison));
}

#[test]
fn a_rerun_supersedes_what_is_left_of_the_attempt_before() {
    let by = TransferId::new("t-2");
    let mut transfer = given([(0, seen()), (5, Input::Superseded { by: by.clone() })]);
    assert_eq!(owed(&transfer, at(5)), Step::FenceFiles);
    transfer.happens(fenced(FileTotals::default()), at(5), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("{:?}", transfer.phase)
    };
    assert_eq!(settled.by, SettledBy::Rerun(by));
}

#[test]
fn a_lease_that_runs_out_this_very_instant_is_waited_for_no_longer() {
    let fenced_until = |leased_until| {
        let mut transfer = given([(0, seen()), (1, Input::CancelRequested)]);
        let totals = FileTotals::default();
        transfer.happens(
            Input::FilesFenced {
                totals,
                leased_until: Some(leased_until),
            },
            at(1),
            &clocks(),
        );
        transfer.phase.as_str()
    };
    assert_eq!(fenced_until(at(1)), "SETTLING");
    assert_eq!(fenced_until(at(1) + Duration::from_millis(1)), "STOPPING");
}

#[test]
fn a_cancellation_that_comes_after_the_verdict_changes_nothing_but_when_it_presses() {
    let settling = given([(0, seen()), (1, imported(1, 0)), (1, complete())]);
    assert_eq!(settling.phase.as_str(), "SETTLING");
    let mut cancelled = settling.clone();
    assert!(cancelled.happens(Input::CancelRequested, at(2), &clocks()));
    assert!(!cancelled.happens(Input::CancelRequested, at(3), &clocks()));
    assert!(!cancelled.happens(Input::Stop(StopReason::Deadline), at(3), &clocks()));
    assert_eq!(cancelled.phase, settling.phase);
    assert_eq!(cancelled.cancelled_at, Some(at(2)));
    cancelled.cancelled_at = None;
    assert_eq!(cancelled, settling);
}
