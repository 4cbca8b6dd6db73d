//! Staged transfers: what is imported goes into the partner's bucket, and from there into the target once the platform is done with them.

use super::*;
use crate::timeline::{What, entries};

fn staged() -> Transfer {
    transfer().with_messages().staged()
}

/// A transfer with one file whose records are stored, of which so many were rejected.
fn with_a_file(rejected: u64) -> Transfer {
    let mut transfer = staged();
    for input in [
        seen(),
        Input::MessageArrived { at: at(0) },
        imported(10, rejected),
        Input::MessageDecided {
            applied: rejected == 0,
        },
        Input::ExportPhaseCompleted,
    ] {
        transfer.happens(input, at(0), &clocks());
    }
    transfer
}

/// The same, with its verdict and its message answered.
fn answered(rejected: u64) -> Transfer {
    let mut transfer = with_a_file(rejected);
    let outcome = if rejected == 0 {
        MessageOutcome::Success
    } else {
        MessageOutcome::Failed
    };
    let taken = Input::AnswersTaken {
        outcome,
        messages: 1,
        begun_at: at(1),
    };
    for input in [complete(), Input::AnswerBegun, taken] {
        transfer.happens(input, at(1), &clocks());
    }
    assert!(transfer.is_settled());
    transfer
}

fn later() -> Transfer {
    let first = staged();
    Transfer::first_seen(
        first.tenant.clone(),
        first.id.phase(2),
        Some(first.id),
        None,
        START,
    )
    .from_stage()
}

#[test]
fn a_staged_transfer_owes_its_second_phase_once_it_is_settled_whatever_it_was_settled_as() {
    for rejected in [0, 1] {
        let mut transfer = answered(rejected);
        assert_eq!(transfer.due_at(&clocks()), Some(at(1)));
        let step = transfer.next_step(at(1), &clocks());
        assert_eq!(step, Step::BeginSecondPhase);
        let before = transfer.clone();
        assert!(transfer.happens(Input::SecondPhaseBegun, at(2), &clocks()));
        assert_eq!(transfer.due_at(&clocks()), None);
        assert_eq!(
            entries(Some(&before), &transfer, &Input::SecondPhaseBegun),
            [What::SecondPhaseBegun {
                transfer: TransferId::new("t-1+2")
            }]
        );
        assert!(!transfer.happens(Input::SecondPhaseBegun, at(3), &clocks()));
    }
}

#[test]
fn success_of_a_staged_transfer_says_that_it_is_stored_and_not_that_it_arrived() {
    let transfer = answered(0);
    let message = &verdict(&transfer).message;
    assert!(
        message.starts_with("Stored, not yet imported: 10 records from 1 file."),
        "{message}"
    );
    assert!(!message.contains("arrived"), "{message}");
}

#[test]
fn what_was_cancelled_superseded_or_never_stored_has_no_second_phase() {
    let mut cancelled = with_a_file(0);
    cancelled.happens(Input::CancelRequested, at(1), &clocks());
    let totals = FileTotals {
        known: 1,
        ended: 1,
        counts: counts(10, 0),
        ..FileTotals::default()
    };
    cancelled.happens(fenced(totals.clone()), at(1), &clocks());
    let refused = Input::AnswersTaken {
        outcome: MessageOutcome::Failed,
        messages: 1,
        begun_at: at(1),
    };
    cancelled.happens(refused, at(1), &clocks());

    let mut superseded = with_a_file(0);
    let by = TransferId::new("t-2");
    superseded.happens(Input::Superseded { by }, at(1), &clocks());
    superseded.happens(fenced(totals.clone()), at(1), &clocks());

    let mut unreadable = staged();
    unreadable.happens(seen(), at(0), &clocks());
    let ended = ended(
        FileOutcome::Unreadable {
            reason: "no JSON".to_owned(),
        },
        counts(0, 0),
        false,
    );
    unreadable.happens(ended, at(0), &clocks());
    unreadable.happens(Input::ExportPhaseCompleted, at(0), &clocks());
    unreadable.happens(Input::PlatformSettled { status: None }, at(1), &clocks());
    let of_it = totals_of(&unreadable);
    unreadable.happens(fenced(of_it), at(1), &clocks());

    let mut told_late = with_a_file(0);
    let status = Some("CANCELLED".to_owned());
    told_late.happens(Input::PlatformSettled { status }, at(1), &clocks());
    told_late.happens(fenced(totals.clone()), at(1), &clocks());

    for transfer in [cancelled, superseded, unreadable, told_late] {
        assert!(transfer.is_settled(), "{:?}", transfer.phase);
        assert_eq!(transfer.due_at(&clocks()), None, "{:?}", transfer.phase);
    }
}

#[test]
fn a_cancellation_that_comes_after_the_verdict_leaves_the_second_phase_to_it() {
    let mut transfer = with_a_file(0);
    transfer.happens(complete(), at(1), &clocks());
    transfer.happens(Input::CancelRequested, at(1), &clocks());
    let taken = Input::AnswersTaken {
        outcome: MessageOutcome::Success,
        messages: 1,
        begun_at: at(1),
    };
    transfer.happens(taken, at(2), &clocks());
    assert_eq!(transfer.next_step(at(2), &clocks()), Step::BeginSecondPhase);
}

#[test]
fn a_transfer_that_is_not_staged_owes_nothing_once_it_is_settled() {
    let mut transfer = answered(0);
    transfer.staging = None;
    assert_eq!(transfer.due_at(&clocks()), None);
    transfer.happens(Input::SecondPhaseBegun, at(2), &clocks());
    assert_eq!(transfer.staging, None);
}

#[test]
fn a_later_phase_is_looked_at_at_once_and_over_with_its_verdict_and_tells_the_platform_nothing() {
    let mut transfer = later();
    assert_eq!(
        transfer.next_step(START, &clocks()),
        Step::CheckCompleteness
    );
    assert!(!transfer.may_report(at(60), &clocks()));
    for input in [seen(), imported(10, 0)] {
        transfer.happens(input, at(1), &clocks());
    }
    assert_eq!(
        transfer.next_step(at(1), &clocks()),
        Step::CheckCompleteness
    );
    let before = transfer.clone();
    let complete = || Input::ExportComplete {
        evidence: Evidence::Stored,
        missing: Vec::new(),
    };
    transfer.happens(complete(), at(2), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("{:?}", transfer.phase)
    };
    assert_eq!(settled.status.as_deref(), Some("SUCCESS"));
    let message = &verdict(&transfer).message;
    assert!(
        message.starts_with("Second phase complete: 10 records"),
        "{message}"
    );
    assert!(
        message.ends_with("Complete by what the first phase has stored."),
        "{message}"
    );
    assert_eq!(transfer.due_at(&clocks()), None);
    let told = entries(Some(&before), &transfer, &complete());
    assert!(matches!(
        told[..],
        [
            What::ExportComplete { .. },
            What::VerdictDecided { .. },
            What::Settled { .. }
        ]
    ));
}

#[test]
fn a_later_phase_is_never_compared_with_the_platform_and_ends_by_its_own_clocks() {
    let mut transfer = later();
    transfer.happens(seen(), at(0), &clocks());
    let due = START + clocks().work_stale_after;
    let before = due - Duration::from_millis(1);
    assert_eq!(owed(&transfer, before), Step::Wait);
    let step = owed(&transfer, due);
    assert_eq!(step, Step::Stop(StopReason::WorkStale));
    transfer.happens(Input::Stop(StopReason::WorkStale), due, &clocks());
    transfer.happens(fenced(FileTotals::default()), due, &clocks());
    let message = &verdict(&transfer).message;
    assert!(transfer.is_settled());
    assert!(
        message.contains("The app's operator can repeat this phase"),
        "{message}"
    );
    assert!(!message.contains("migration assistant"), "{message}");
}
