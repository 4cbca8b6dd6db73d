//! What may happen to a transfer.

use std::collections::BTreeMap;
use std::time::Duration;

use landfall_transfer::{
    Answer, Clocks, Counts, Evidence, FileOutcome, FileTotals, Input, Listing, Phase, Step,
    StopReason, Timestamp, Transfer, TransferId,
};

/// Longest lease of a worker that is fenced off.
pub(super) const LEASE: Duration = Duration::from_secs(90);

/// Which inputs a search tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// All of them in every state, as shells that race with each other may apply them.
    Everything,
    /// What the outside may do at any time, and what a shell does when it is owed.
    Owed,
}

/// What the files of a transfer add up to that was counted just now.
fn totals(transfer: &Transfer) -> FileTotals {
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

/// The files are counted, after nothing has happened to them.
pub(super) fn counted(transfer: &Transfer, now: Timestamp) -> Input {
    Input::FilesCounted {
        totals: totals(transfer),
        at: now,
    }
}

/// They are counted after one was taken up.
pub(super) fn seen(transfer: &Transfer, now: Timestamp) -> Input {
    let before = totals(transfer);
    Input::FilesCounted {
        totals: FileTotals {
            known: before.known + 1,
            last_received_at: Some(now),
            last_moved_at: Some(now),
            ..before
        },
        at: now,
    }
}

/// They are counted after one has ended.
pub(super) fn ended(
    transfer: &Transfer,
    now: Timestamp,
    outcome: &FileOutcome,
    counts: Counts,
    manifest: bool,
) -> Input {
    let before = totals(transfer);
    let poisoned = matches!(outcome, FileOutcome::Poisoned { .. });
    let problem = match outcome {
        FileOutcome::Imported | FileOutcome::Stopped => None,
        FileOutcome::Unreadable { reason } | FileOutcome::Poisoned { reason } => {
            Some(reason.clone())
        }
    };
    Input::FilesCounted {
        totals: FileTotals {
            ended: before.ended + 1,
            failed: before.failed + u64::from(problem.is_some()),
            poisoned: before.poisoned + u64::from(poisoned),
            counts: before.counts + counts,
            first_problem: before.first_problem.or(problem),
            in_flight: BTreeMap::new(),
            manifest,
            last_moved_at: Some(now),
            ..before
        },
        at: now,
    }
}

/// What the outside and the workers may do to a transfer whenever they like.
fn from_outside(transfer: &Transfer, now: Timestamp) -> Vec<Input> {
    let one = Counts {
        read: 1,
        applied: 1,
        ..Counts::default()
    };
    let rejected = Counts {
        read: 1,
        rejected: 1,
        ..Counts::default()
    };
    let held = Counts {
        read: 1,
        held: 1,
        ..Counts::default()
    };
    let mut inputs = vec![
        Input::ListenerTriggered,
        Input::ListenerErrored { exception: None },
        Input::ExportPhaseCompleted,
        Input::CancelRequested,
        Input::PlatformSettled { status: None },
        Input::PlatformSettled {
            status: Some("FAILED".to_owned()),
        },
        Input::Superseded {
            by: TransferId::new("t-2"),
        },
        Input::Reporting {
            percent: transfer.report(500).percent,
        },
    ];
    if transfer.work.files_known < 2 {
        inputs.push(seen(transfer, now));
    }
    if transfer.work.files_open() > 0 {
        let poisoned = FileOutcome::Poisoned {
            reason: "five".to_owned(),
        };
        inputs.extend([
            ended(transfer, now, &FileOutcome::Imported, one, false),
            ended(transfer, now, &FileOutcome::Imported, rejected, false),
            ended(
                transfer,
                now,
                &FileOutcome::Imported,
                Counts::default(),
                true,
            ),
            ended(transfer, now, &poisoned, Counts::default(), false),
            Input::WorkMoved {
                file: "a".to_owned(),
                counts: one,
            },
            Input::WorkStalled {
                reason: "the sink".to_owned(),
            },
            Input::AskedAgainLater {
                file: "a".to_owned(),
                counts: held,
                at: transfer.created_at + Duration::from_mins(15),
            },
        ]);
    }
    inputs
}

fn looks(transfer: &Transfer) -> Vec<Input> {
    let mut inputs = vec![Input::ExportIncomplete {
        waiting_for: "more".to_owned(),
        files_ended: transfer.work.files_ended,
    }];
    for evidence in [
        Evidence::Manifest,
        Evidence::ExportComplete,
        Evidence::FileList,
        Evidence::ListenerError,
    ] {
        for missing in [vec![], vec!["b".to_owned()]] {
            inputs.push(Input::ExportComplete { evidence, missing });
        }
    }
    inputs.extend(unavailable());
    inputs
}

fn unavailable() -> [Input; 2] {
    [None, Some(Duration::from_hours(1))]
        .map(|retry_after| Input::PlatformUnavailable { retry_after })
}

fn lists() -> Vec<Input> {
    [Listing::Active, Listing::Absent, Listing::Full]
        .map(Input::Listed)
        .into_iter()
        .chain(unavailable())
        .collect()
}

fn fenced(transfer: &Transfer, now: Timestamp) -> Vec<Input> {
    let before = totals(transfer);
    let late = FileTotals {
        late: 1,
        ..before.clone()
    };
    let mut fenced = Vec::with_capacity(4);
    for leased_until in [None, Some(now + LEASE)] {
        for totals in [before.clone(), late.clone()] {
            fenced.push(Input::FilesFenced {
                totals,
                leased_until,
            });
        }
    }
    fenced
}

fn answers() -> Vec<Input> {
    let retry_after = Some(Duration::from_hours(1));
    [
        Answer::Accepted,
        Answer::FormRefused,
        Answer::SuspectGone,
        Answer::SuspectExpired,
        Answer::NotTaken { retry_after: None },
        Answer::Unknown { retry_after },
    ]
    .map(Input::SettlementAnswered)
    .into()
}

/// What may happen to a transfer at this instant.
pub(super) fn inputs(
    transfer: &Transfer,
    now: Timestamp,
    clocks: &Clocks,
    alphabet: Alphabet,
) -> Vec<Input> {
    let mut inputs = from_outside(transfer, now);
    if alphabet == Alphabet::Everything {
        inputs.extend(looks(transfer));
        inputs.extend(lists());
        inputs.extend(fenced(transfer, now));
        inputs.push(counted(transfer, now));
        inputs.push(Input::SettlementBegun);
        // However late it comes: an answer is to something that was sent.
        if matches!(&transfer.phase, Phase::Settling(settlement) if settlement.attempts > 0) {
            inputs.extend(answers());
        }
        for reason in [
            StopReason::Deadline,
            StopReason::WorkStale,
            StopReason::ExporterSilent,
            StopReason::Poison,
            StopReason::ListenerError,
        ] {
            inputs.push(Input::Stop(reason));
        }
        return inputs;
    }
    let sending = matches!(&transfer.phase, Phase::Settling(settlement) if settlement.sending_until.is_some());
    if sending {
        inputs.extend(answers());
    }
    match transfer.next_step(now, clocks) {
        Step::Wait | Step::Report => {}
        Step::CountFiles => inputs.push(counted(transfer, now)),
        Step::CheckCompleteness => inputs.extend(looks(transfer)),
        Step::Stop(reason) => inputs.push(Input::Stop(reason)),
        Step::FenceFiles => inputs.extend(fenced(transfer, now)),
        Step::Settle => inputs.push(Input::SettlementBegun),
        Step::Confirm | Step::Reconcile => inputs.extend(lists()),
        step @ (Step::Answer | Step::LookForToken | Step::Warn | Step::BeginSecondPhase) => {
            unreachable!("{step:?} on Connect")
        }
    }
    inputs
}
