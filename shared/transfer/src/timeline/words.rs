use std::fmt;
use std::time::Duration;

use super::{Ended, Taken, What};
use crate::message::{asked_again, count_of};
use crate::transfer::{MessageOutcome, SettledBy, StopReason};

/// One sentence without its full stop, as support reads it.
impl fmt::Display for What {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventTaken { event } => write!(formatter, "took the event {event} in"),
            Self::FirstSeen {
                phase_of: Some(staged),
                ..
            } => write!(formatter, "began to import what {staged} has stored"),
            Self::FirstSeen {
                rerun_of, adopted, ..
            } => {
                formatter.write_str(if *adopted {
                    "adopted the transfer: the platform lists it, no event of it arrived"
                } else {
                    "saw the transfer for the first time"
                })?;
                match rerun_of {
                    Some(original) => write!(formatter, "; it re-runs {original}"),
                    None => Ok(()),
                }
            }
            Self::ChainJoined { rerun_of } => {
                write!(formatter, "learnt that the transfer re-runs {rerun_of}")
            }
            Self::ListenerTriggered => formatter.write_str("the server's listener was started"),
            Self::ListenerFailed { exception } => {
                formatter.write_str("the server's listener failed")?;
                in_brackets(formatter, exception.as_deref())
            }
            Self::ExportPhaseCompleted => {
                formatter.write_str("the platform said that the export phase is complete")
            }
            Self::FileAnnounced { file, label } => {
                write!(formatter, "file {file} was announced")?;
                in_brackets(formatter, label.as_deref())
            }
            Self::FileAdopted { file, label } => {
                write!(formatter, "adopted file {file}, which was never announced")?;
                in_brackets(formatter, label.as_deref())
            }
            Self::FileTaken {
                file,
                fence,
                attempt,
                how,
            } => {
                let how = match how {
                    Taken::First => "took up",
                    Taken::NextSlice => "went on with",
                    Taken::Revived => "took up again",
                    Taken::TakenOver => "took over, whose worker's lease had run out,",
                    Taken::Unknown => "took up in a way that this release doesn't know",
                };
                write!(
                    formatter,
                    "{how} file {file} (fencing token {fence}, attempt {attempt})"
                )
            }
            Self::SliceCommitted { file, counts } => {
                write!(formatter, "committed a slice of file {file}: {counts}")
            }
            Self::Interrupted {
                file,
                reason,
                retry_after_ms,
            } => {
                match file {
                    Some(file) => write!(formatter, "the import of file {file} was interrupted")?,
                    None => formatter.write_str("the import was interrupted")?,
                }
                write!(formatter, ": {reason}")?;
                match retry_after_ms {
                    Some(millis) => {
                        let pause = Duration::from_millis(*millis);
                        write!(formatter, "; it goes on in {} s", pause.as_secs())
                    }
                    None => Ok(()),
                }
            }
            Self::AskedAgainLater { file, held, at } => write!(
                formatter,
                "read file {file} to its end; {}",
                asked_again(*held, *at)
            ),
            Self::FileEnded {
                file,
                how,
                problem,
                counts,
                ..
            } => {
                let how = match how {
                    Ended::Imported => "was imported",
                    Ended::Unreadable => "could not be read to its end",
                    Ended::Poisoned => "stopped every worker that tried it",
                    Ended::Stopped => "was stopped with its transfer",
                    Ended::Unknown => "ended in a way that this release doesn't know",
                };
                write!(formatter, "file {file} {how}")?;
                in_brackets(formatter, problem.as_deref())?;
                write!(formatter, ": {counts}")
            }
            Self::ProgressReported { percent, taken } => {
                let taken = if *taken {
                    ""
                } else {
                    ", which it did not take"
                };
                write!(formatter, "reported {percent} % to the platform{taken}")
            }
            Self::ExportAwaited { waiting_for } => write!(formatter, "waits for {waiting_for}"),
            Self::ExportComplete { evidence, missing } => {
                write!(formatter, "the export is complete {}", evidence.as_words())?;
                match missing {
                    0 => Ok(()),
                    missing => write!(formatter, "; {missing} missing"),
                }
            }
            Self::NotListed => formatter.write_str("the platform lists the transfer no more"),
            Self::Stopping { reason } => write!(formatter, "stopping: {}", stop_words(reason)),
            Self::Fenced { leased_until } => match leased_until {
                Some(until) => write!(
                    formatter,
                    "fenced every worker off; the last lease runs out {}",
                    until.for_admin()
                ),
                None => formatter.write_str("fenced every worker off"),
            },
            Self::VerdictDecided {
                status,
                cause,
                message,
            } => write!(
                formatter,
                "decided {} because of {}: {message}",
                status.as_str(),
                cause.as_str()
            ),
            Self::SettlementSent {
                attempt,
                form,
                answer,
            } => write!(
                formatter,
                "sent the settlement (attempt {attempt}, form {form:?}); it was answered {answer:?}"
            ),
            Self::ConfirmationLooked { listing } => write!(
                formatter,
                "looked whether the settlement arrived: the platform's list says {listing:?}"
            ),
            Self::MessagesAnswered { outcome, messages } => {
                let outcome = match outcome {
                    MessageOutcome::Success => "SUCCESS",
                    MessageOutcome::Failed => "FAILED",
                };
                write!(
                    formatter,
                    "answered {} {outcome}",
                    count_of(*messages, "message")
                )
            }
            Self::TokenAwaited => formatter.write_str(
                "waits for a token: the last one has ended, and a newer one comes only with a call of the platform's",
            ),
            Self::TokenCame => formatter.write_str("a token came"),
            Self::WindowCloses { since } => write!(
                formatter,
                "no file has ended since {} whose message could be answered; unless one does in time, the transfer is stopped. Smaller files would help",
                since.for_admin()
            ),
            Self::Settled { by, status } => {
                let by = match by {
                    SettledBy::App => "by our verdict".to_owned(),
                    SettledBy::Platform => "by the platform".to_owned(),
                    SettledBy::Rerun(id) => format!("by its re-run {id}"),
                };
                let status = status
                    .as_deref()
                    .unwrap_or("with a status that nobody told");
                write!(formatter, "settled {by}: {status}")
            }
            Self::SecondPhaseBegun { transfer } => write!(
                formatter,
                "what is stored is imported now, as {transfer}"
            ),
            Self::Superseded { by } => write!(formatter, "the re-run {by} takes over"),
            Self::PlatformUnavailable { reason } => {
                formatter.write_str("the platform could not be asked")?;
                in_brackets(formatter, reason.as_deref())
            }
            Self::PlatformAvailable => formatter.write_str("the platform answers again"),
            Self::Revived { file } => match file {
                Some(file) => write!(formatter, "queued file {file} again: nobody worked on it"),
                None => formatter.write_str("queued an event again: nobody had handled it"),
            },
            Self::DeadLetter { file, reason } => {
                match file {
                    Some(file) => write!(formatter, "the message of file {file} is a dead letter")?,
                    None => formatter.write_str("an event's message is a dead letter")?,
                }
                write!(formatter, ": {reason}")
            }
            Self::PersonNeeded { code, problem } => {
                write!(formatter, "{code}, which only a person can mend: {problem}")
            }
            Self::Unknown => {
                formatter.write_str("something happened that this release has no words for")
            }
        }
    }
}

fn in_brackets(formatter: &mut fmt::Formatter<'_>, text: Option<&str>) -> fmt::Result {
    match text {
        Some(text) => write!(formatter, " ({text})"),
        None => Ok(()),
    }
}

const fn stop_words(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::Complete { .. } => "everything is there",
        StopReason::Cancelled => "it was cancelled",
        StopReason::ListenerError => "the server's listener failed and nothing moves any more",
        StopReason::WorkStale => "the import makes no progress",
        StopReason::ExporterSilent => "the server app is silent",
        StopReason::Deadline => "it is too old to leave time for a re-run",
        StopReason::Poison => "a file stopped every worker that tried it",
        StopReason::Unanswered => "no file ended in the time in which the platform wants an answer",
        StopReason::NoToken => "its token ends, and no newer one has come",
        StopReason::SettledElsewhere { .. } => "the platform ended it",
        StopReason::Superseded { .. } => "a re-run takes over",
    }
}
