use super::What;
use crate::acknowledgements::Acknowledgements;
use crate::transfer::{Input, Phase, StopReason, Transfer};

/// What an input that was applied adds to the timeline; `before` is none when the transfer was made for it. Nothing for an
/// input that tells nothing new.
///
/// The shell adds what no input says: files adopted or taken over, progress that was sent, work revived, dead letters, and what needs a person. Nothing here tells of an
/// event that arrived, nor of a file that was announced, taken up or ended: their own rows do.
pub fn entries(before: Option<&Transfer>, after: &Transfer, input: &Input) -> Vec<What> {
    let mut told = Vec::new();
    let fresh;
    let before = if let Some(before) = before {
        before
    } else {
        told.push(What::first_seen(after, false));
        fresh = Transfer {
            created_at: after.created_at,
            original: after.original.clone(),
            messages: after.messages.as_ref().map(|_| Acknowledgements::default()),
            staging: after.staging,
            ..Transfer::first_seen(
                after.tenant.clone(),
                after.id.clone(),
                None,
                None,
                after.first_seen_at,
            )
        };
        &fresh
    };
    if before == after {
        return told;
    }
    if before.original.is_none()
        && let Some(rerun_of) = after.original.clone()
    {
        told.push(What::ChainJoined { rerun_of });
    }
    told.extend(of_input(before, after, input));
    told.extend(of_messages(before, after, input));
    told.extend(of_phase(&before.phase, &after.phase, input));
    if before.held_back_until.is_some() && after.held_back_until.is_none() {
        told.push(What::PlatformAvailable);
    }
    told
}

fn of_input(before: &Transfer, after: &Transfer, input: &Input) -> Option<What> {
    let (was, is) = (&before.exporter, &after.exporter);
    match input {
        Input::ListenerTriggered if was.triggered_at != is.triggered_at => {
            Some(What::ListenerTriggered)
        }
        Input::ListenerErrored { .. }
            if (was.errored_at, &was.exception) != (is.errored_at, &is.exception) =>
        {
            Some(What::ListenerFailed {
                exception: is.exception.clone(),
            })
        }
        Input::ExportPhaseCompleted if was.completed_at != is.completed_at => {
            Some(What::ExportPhaseCompleted)
        }
        Input::WorkMoved { file, counts } if before.work.in_flight.get(file) != Some(counts) => {
            Some(What::SliceCommitted {
                file: file.clone(),
                counts: *counts,
            })
        }
        Input::AskedAgainLater { file, counts, at }
            if before.work.stalled_by != after.work.stalled_by
                || before.work.in_flight.get(file) != Some(counts) =>
        {
            Some(What::AskedAgainLater {
                file: file.clone(),
                held: counts.held,
                at: *at,
            })
        }
        Input::WorkStalled { .. } if before.work.stalled_by != after.work.stalled_by => after
            .work
            .stalled_by
            .clone()
            .map(|reason| What::Interrupted {
                file: None,
                reason,
                retry_after_ms: None,
            }),
        Input::ExportIncomplete { .. } if was.waiting_for != is.waiting_for => is
            .waiting_for
            .clone()
            .map(|waiting_for| What::ExportAwaited { waiting_for }),
        Input::SecondPhaseBegun if before.staging != after.staging => {
            Some(What::SecondPhaseBegun {
                transfer: after.id.phase(2),
            })
        }
        Input::ExportComplete { evidence, missing } if after.phase != before.phase => {
            Some(What::ExportComplete {
                evidence: *evidence,
                missing: missing.len() as u64,
            })
        }
        Input::SettlementAnswered(answer) => match &before.phase {
            Phase::Settling(sent) => Some(What::SettlementSent {
                attempt: sent.attempts,
                form: sent.form,
                answer: *answer,
            }),
            _ => None,
        },
        Input::Listed(listing) => match &before.phase {
            Phase::Settling(_) => Some(What::ConfirmationLooked { listing: *listing }),
            _ if before.absent_since.is_none() && after.absent_since.is_some() => {
                Some(What::NotListed)
            }
            _ => None,
        },
        // Of an outage only the beginning is told, and each look at a settlement that it foils.
        Input::PlatformUnavailable { .. }
            if before.held_back_until.is_none() || matches!(before.phase, Phase::Settling(_)) =>
        {
            Some(What::PlatformUnavailable { reason: None })
        }
        _ => None,
    }
}

/// What of its messages is told.
fn of_messages(before: &Transfer, after: &Transfer, input: &Input) -> Option<What> {
    let (was, is) = (before.messages.as_ref()?, after.messages.as_ref()?);
    match input {
        Input::AnswersTaken {
            outcome, messages, ..
        } => Some(What::MessagesAnswered {
            outcome: *outcome,
            messages: *messages,
        }),
        Input::WindowWarned => is.window_since.map(|since| What::WindowCloses { since }),
        Input::TokenLooked { .. } => match (was.token_awaited, is.token_awaited) {
            (None, Some(_)) => Some(What::TokenAwaited),
            (Some(_), None) => Some(What::TokenCame),
            _ => None,
        },
        // Of several attempts in vain the first is told.
        Input::AnswersNotTaken { .. } if was.attempts == 1 => {
            Some(What::PlatformUnavailable { reason: None })
        }
        _ => None,
    }
}

/// Whether a transfer is stopped because everything is there.
const fn closes(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Stopping {
            reason: StopReason::Complete { .. },
            ..
        }
    )
}

/// What the step from one phase to another tells.
fn of_phase(before: &Phase, after: &Phase, input: &Input) -> Vec<What> {
    let mut told = Vec::new();
    if before == after {
        return told;
    }
    if matches!(
        (before, input),
        (Phase::Stopping { .. }, Input::FilesFenced { .. })
    ) {
        let leased_until = match after {
            Phase::Stopping { leased_until, .. } => *leased_until,
            _ => None,
        };
        if leased_until.is_some() || !closes(before) {
            told.push(What::Fenced { leased_until });
        }
    }
    match (before, after) {
        (Phase::Stopping { reason: was, .. }, Phase::Stopping { reason, .. }) if was == reason => {}
        (
            _,
            Phase::Stopping {
                reason: StopReason::Superseded { by },
                ..
            },
        ) => told.push(What::Superseded { by: by.clone() }),
        // It is told what decided that.
        (_, after @ Phase::Stopping { .. }) if closes(after) => {}
        (_, Phase::Stopping { reason, .. }) => told.push(What::Stopping {
            reason: reason.clone(),
        }),
        (Phase::Open | Phase::Stopping { .. }, Phase::Settling(settlement)) => {
            told.push(What::verdict_decided(&settlement.verdict));
        }
        (_, Phase::Settled(settled)) => {
            // Where nobody is told, there is nothing between the verdict and the end.
            if let (Phase::Open | Phase::Stopping { .. }, Some(verdict)) =
                (before, &settled.verdict)
            {
                told.push(What::verdict_decided(verdict));
            }
            told.push(What::Settled {
                by: settled.by.clone(),
                status: settled.status.clone(),
            });
        }
        (_, Phase::Open | Phase::Settling(_)) => {}
    }
    told
}
