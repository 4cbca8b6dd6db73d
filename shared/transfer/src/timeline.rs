//! What happened to a transfer, entry by entry, and what that says about its health: what support reads.
//!
//! [`entries`] says what an input adds, so that it is written together with the state that the input made; what only the
//! shell knows (that the sweeper revived a file) it says itself. What the row of an event or of a file shows by itself is not
//! written a second time: it is told from that row. [`health`] reads the whole back.

use serde::{Deserialize, Serialize};

use crate::completeness::Evidence;
use crate::counts::Counts;
use crate::identity::{ChainId, TransferId};
use crate::message::{MESSAGE_MAX, clip};
use crate::settlement::{Answer, Form, Listing};
use crate::timestamp::Timestamp;
use crate::transfer::{FileOutcome, MessageOutcome, SettledBy, StopReason, Transfer};
use crate::verdict::{Cause, Status, Verdict};

mod entries;
mod health;
mod words;

pub use entries::entries;
pub use health::{Health, health};

/// One line of a transfer's timeline.
///
/// It holds labels, keys of files, counts and reasons: never a token, a URL, a body or the name of a plan. Of entries with
/// one time the sequence in which they were written counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who saw or did it.
    pub by: Actor,
    /// What.
    pub what: What,
    /// The event or message that made it happen, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Who writes a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Takes events in.
    Intake,
    /// Works on events and files.
    Processor,
    /// Finds what is due, lost or overdue.
    Sweeper,
    /// One that this release doesn't know.
    #[serde(other)]
    Unknown,
}

impl Actor {
    /// Its name, as rows have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Processor => "processor",
            Self::Sweeper => "sweeper",
            Self::Unknown => "unknown",
        }
    }

    /// The one that rows name so.
    pub fn named(name: &str) -> Self {
        let known = [Self::Intake, Self::Processor, Self::Sweeper];
        let named = known.into_iter().find(|actor| actor.as_str() == name);
        named.unwrap_or(Self::Unknown)
    }
}

/// What an entry tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// An event was taken in.
    EventTaken {
        /// Its type, as the platform calls it.
        event: String,
    },
    /// The transfer was seen for the first time.
    FirstSeen {
        /// All attempts of this migration.
        chain: ChainId,
        /// The chain's first transfer, when this is a re-run.
        rerun_of: Option<TransferId>,
        /// From when its deadlines count.
        created_at: Timestamp,
        /// Whether only the platform's list showed it: no event of it had arrived.
        adopted: bool,
        /// The staged transfer whose later phase this is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phase_of: Option<TransferId>,
    },
    /// It turned out to be a re-run.
    ChainJoined {
        /// The chain's first transfer.
        rerun_of: TransferId,
    },
    /// The server's listener was started.
    ListenerTriggered,
    /// The server's listener failed.
    ListenerFailed {
        /// The exception's class, when the platform told it.
        exception: Option<String>,
    },
    /// The platform said that the export phase is complete.
    ExportPhaseCompleted,
    /// A file was announced.
    FileAnnounced {
        /// Its key.
        file: String,
        /// Its label.
        label: Option<String>,
    },
    /// A file was found in the platform's list that was never announced.
    FileAdopted {
        /// Its key.
        file: String,
        /// Its label.
        label: Option<String>,
    },
    /// A worker took a file up.
    FileTaken {
        /// Its key.
        file: String,
        /// The worker's fencing number.
        fence: u64,
        /// Workers that took it since it last moved, this one included.
        attempt: u64,
        /// In which way.
        how: Taken,
    },
    /// Records of a file were committed.
    SliceCommitted {
        /// The file's key.
        file: String,
        /// The file's records so far.
        counts: Counts,
    },
    /// The import of a file can't go on for now.
    Interrupted {
        /// The file's key, where it is known.
        file: Option<String>,
        /// Why.
        reason: String,
        /// Pause until it is tried again, in milliseconds, where it is known.
        retry_after_ms: Option<u64>,
    },
    /// A file was read to its end with records held; it is read once more, for their mappings may have come by then.
    AskedAgainLater {
        /// The file's key.
        file: String,
        /// How many of its records are held.
        held: u64,
        /// When.
        at: Timestamp,
    },
    /// The import of a file ended.
    FileEnded {
        /// Its key.
        file: String,
        /// How.
        how: Ended,
        /// What was wrong with it.
        problem: Option<String>,
        /// Its records.
        counts: Counts,
        /// Whether it was a manifest that could be used.
        manifest: bool,
    },
    /// A progress update was sent.
    ProgressReported {
        /// Its percent.
        percent: u8,
        /// Whether the platform took it.
        taken: bool,
    },
    /// Completeness was looked at: more must come.
    ExportAwaited {
        /// Reads after "waiting for".
        waiting_for: String,
    },
    /// Completeness was looked at: nothing more will come.
    ExportComplete {
        /// What decided it.
        evidence: Evidence,
        /// How many files or records are missing.
        missing: u64,
    },
    /// The platform doesn't list the transfer as active.
    NotListed,
    /// The transfer is stopped before its import is complete.
    Stopping {
        /// Why.
        reason: StopReason,
    },
    /// Every file's fencing token was moved on.
    Fenced {
        /// Until when a worker's lease is still in force.
        leased_until: Option<Timestamp>,
    },
    /// The verdict was written.
    VerdictDecided {
        /// What the platform is told.
        status: Status,
        /// Why.
        cause: Cause,
        /// What the admin reads.
        message: String,
    },
    /// An attempt to settle was sent and answered.
    SettlementSent {
        /// Its number, from 1.
        attempt: u32,
        /// Its form.
        form: Form,
        /// The answer.
        answer: Answer,
    },
    /// The platform's list was asked whether a settlement arrived.
    ConfirmationLooked {
        /// What it showed.
        listing: Listing,
    },
    /// Messages of files were answered, where the platform decides by that.
    MessagesAnswered {
        /// How.
        outcome: MessageOutcome,
        /// How many.
        messages: u64,
    },
    /// No file has ended whose message could be answered, and soon one must be.
    WindowCloses {
        /// Since when the platform has waited for an answer.
        since: Timestamp,
    },
    /// The platform can't be called until a token comes, which it sends with its own calls.
    TokenAwaited,
    /// A token came.
    TokenCame,
    /// It is over.
    Settled {
        /// Who ended it.
        by: SettledBy,
        /// The final status, where it is known.
        status: Option<String>,
    },
    /// What was staged is on its way into the target.
    SecondPhaseBegun {
        /// The transfer under which that is known to us, and to nobody else.
        transfer: TransferId,
    },
    /// A newer attempt of the chain took over.
    Superseded {
        /// That attempt.
        by: TransferId,
    },
    /// The platform can't be asked.
    PlatformUnavailable {
        /// Why, where it is known.
        reason: Option<String>,
    },
    /// The platform answers again.
    PlatformAvailable,
    /// The sweeper brought lost work back.
    Revived {
        /// The file's key; none when it was an event.
        file: Option<String>,
    },
    /// A message came to its dead-letter queue.
    DeadLetter {
        /// The file's key, where it was about one.
        file: Option<String>,
        /// What it was.
        reason: String,
    },
    /// Only a person can mend this.
    PersonNeeded {
        /// The error's code, such as `LF-NO-SITE`; `docs/errors` explains it.
        code: String,
        /// What is wrong.
        problem: String,
    },
    /// A kind that this release doesn't know.
    #[serde(other)]
    Unknown,
}

/// In which way a worker took a file up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// Nobody had worked on it.
    First,
    /// Another slice of it was due.
    NextSlice,
    /// The sweeper had found that nobody worked on it.
    Revived,
    /// Its worker died: the lease had run out.
    TakenOver,
    /// A way that this release doesn't know.
    #[serde(other)]
    Unknown,
}

/// How the import of a file ended, without the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Read to its end.
    Imported,
    /// Could not be read to its end.
    Unreadable,
    /// Killed every worker that tried it.
    Poisoned,
    /// Fenced off because the transfer was stopped.
    Stopped,
    /// A way that this release doesn't know.
    #[serde(other)]
    Unknown,
}

impl Entry {
    /// An entry whose texts are short and harmless.
    pub fn new(at: Timestamp, by: Actor, what: What) -> Self {
        Self {
            at,
            by,
            what: what.told(),
            cause: None,
        }
    }

    /// The same with the id of the event or message that made it happen.
    #[must_use]
    pub fn caused_by(self, cause: &str) -> Self {
        Self {
            cause: Some(told(cause, NAME_MAX)),
            ..self
        }
    }
}

/// Longest label, key or name in an entry, in characters. Labels are bounded at 1024 bytes when they are taken in.
const NAME_MAX: usize = 1024;

/// Longest reason in an entry, in characters.
const REASON_MAX: usize = 300;

impl What {
    /// Its kind, as it is stored.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::EventTaken { .. } => "event_taken",
            Self::FirstSeen { .. } => "first_seen",
            Self::ChainJoined { .. } => "chain_joined",
            Self::ListenerTriggered => "listener_triggered",
            Self::ListenerFailed { .. } => "listener_failed",
            Self::ExportPhaseCompleted => "export_phase_completed",
            Self::FileAnnounced { .. } => "file_announced",
            Self::FileAdopted { .. } => "file_adopted",
            Self::FileTaken { .. } => "file_taken",
            Self::SliceCommitted { .. } => "slice_committed",
            Self::Interrupted { .. } => "interrupted",
            Self::AskedAgainLater { .. } => "asked_again_later",
            Self::FileEnded { .. } => "file_ended",
            Self::ProgressReported { .. } => "progress_reported",
            Self::ExportAwaited { .. } => "export_awaited",
            Self::ExportComplete { .. } => "export_complete",
            Self::NotListed => "not_listed",
            Self::Stopping { .. } => "stopping",
            Self::Fenced { .. } => "fenced",
            Self::VerdictDecided { .. } => "verdict_decided",
            Self::SettlementSent { .. } => "settlement_sent",
            Self::ConfirmationLooked { .. } => "confirmation_looked",
            Self::MessagesAnswered { .. } => "messages_answered",
            Self::WindowCloses { .. } => "window_closes",
            Self::TokenAwaited => "token_awaited",
            Self::TokenCame => "token_came",
            Self::Settled { .. } => "settled",
            Self::SecondPhaseBegun { .. } => "second_phase_begun",
            Self::Superseded { .. } => "superseded",
            Self::PlatformUnavailable { .. } => "platform_unavailable",
            Self::PlatformAvailable => "platform_available",
            Self::Revived { .. } => "revived",
            Self::DeadLetter { .. } => "dead_letter",
            Self::PersonNeeded { .. } => "person_needed",
            Self::Unknown => "unknown",
        }
    }

    /// The first sight of a transfer.
    pub fn first_seen(transfer: &Transfer, adopted: bool) -> Self {
        Self::FirstSeen {
            chain: transfer.chain(),
            rerun_of: transfer.original.clone(),
            created_at: transfer.created_at,
            adopted,
            phase_of: transfer.is_later_phase().then(|| transfer.id.first_phase()),
        }
    }

    /// The end of a file's import.
    pub fn file_ended(file: String, outcome: &FileOutcome, counts: Counts, manifest: bool) -> Self {
        let (how, problem) = match outcome {
            FileOutcome::Imported => (Ended::Imported, None),
            FileOutcome::Unreadable { reason } => (Ended::Unreadable, Some(reason.clone())),
            FileOutcome::Poisoned { reason } => (Ended::Poisoned, Some(reason.clone())),
            FileOutcome::Stopped => (Ended::Stopped, None),
        };
        Self::FileEnded {
            file,
            how,
            problem,
            counts,
            manifest,
        }
    }

    pub(crate) fn verdict_decided(verdict: &Verdict) -> Self {
        Self::VerdictDecided {
            status: verdict.status,
            cause: verdict.cause,
            message: verdict.message.clone(),
        }
    }

    /// The same with every text clipped, and without what must not be told.
    fn told(mut self) -> Self {
        match &mut self {
            Self::EventTaken { event: name } | Self::SliceCommitted { file: name, .. } => {
                *name = told(name, NAME_MAX);
            }
            Self::FileTaken { file, .. } | Self::AskedAgainLater { file, .. } => {
                *file = told(file, NAME_MAX);
            }
            Self::FileAnnounced { file, label } | Self::FileAdopted { file, label } => {
                *file = told(file, NAME_MAX);
                tell(label, NAME_MAX);
            }
            Self::Interrupted { file, reason, .. } | Self::DeadLetter { file, reason } => {
                tell(file, NAME_MAX);
                *reason = told(reason, REASON_MAX);
            }
            Self::FileEnded { file, problem, .. } => {
                *file = told(file, NAME_MAX);
                tell(problem, REASON_MAX);
            }
            Self::ListenerFailed { exception: text }
            | Self::PlatformUnavailable { reason: text } => tell(text, REASON_MAX),
            Self::Settled { status: text, .. }
            | Self::Stopping {
                reason: StopReason::SettledElsewhere { status: text },
            } => tell(text, NAME_MAX),
            Self::Revived { file } => tell(file, NAME_MAX),
            Self::ExportAwaited { waiting_for: text } => *text = told(text, REASON_MAX),
            Self::VerdictDecided { message, .. } => *message = told(message, MESSAGE_MAX),
            Self::PersonNeeded { code, problem } => {
                *code = told(code, NAME_MAX);
                *problem = told(problem, REASON_MAX);
            }
            Self::FirstSeen { .. }
            | Self::ChainJoined { .. }
            | Self::ListenerTriggered
            | Self::ExportPhaseCompleted
            | Self::ProgressReported { .. }
            | Self::ExportComplete { .. }
            | Self::NotListed
            | Self::Stopping { .. }
            | Self::Fenced { .. }
            | Self::SettlementSent { .. }
            | Self::ConfirmationLooked { .. }
            | Self::MessagesAnswered { .. }
            | Self::WindowCloses { .. }
            | Self::TokenAwaited
            | Self::TokenCame
            | Self::SecondPhaseBegun { .. }
            | Self::Superseded { .. }
            | Self::PlatformAvailable
            | Self::Unknown => {}
        }
        self
    }
}

fn tell(text: &mut Option<String>, limit: usize) {
    if let Some(text) = text {
        *text = told(text, limit);
    }
}

/// Takes out what looks like a URL or a token, should a reason ever quote one, and clips the rest.
fn told(text: &str, limit: usize) -> String {
    let harmful = |word: &str| word.contains("://") || word.contains("eyJ");
    if !harmful(text) {
        return clip(text, limit);
    }
    let words: Vec<&str> = text
        .split(' ')
        .map(|word| if harmful(word) { "(left out)" } else { word })
        .collect();
    clip(&words.join(" "), limit)
}

#[cfg(test)]
mod tests;
