use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::StopReason;
use crate::completeness::Evidence;
use crate::counts::Counts;
use crate::identity::TransferId;
use crate::settlement::{Answer, Listing};
use crate::timestamp::Timestamp;

/// How the import of a file ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOutcome {
    /// Read to its end. Single records may have been rejected.
    Imported,
    /// Could not be read to its end.
    Unreadable {
        /// As the admin may read it.
        reason: String,
    },
    /// Killed every worker that tried it.
    Poisoned {
        /// As the admin may read it.
        reason: String,
    },
    /// Fenced off because the transfer was stopped.
    Stopped,
}

/// What the rows of a transfer's files add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Files that were taken up.
    pub known: u64,
    /// Of these, files whose import has ended, one way or the other.
    pub ended: u64,
    /// Of these, files that could not be read to their end.
    pub failed: u64,
    /// Of these, files that killed every worker that tried them.
    pub poisoned: u64,
    /// Files that nobody has taken up: once their transfer takes no work any more, they came too late.
    pub late: u64,
    /// Records of the files that have ended or were fenced off.
    pub counts: Counts,
    /// Records so far of those that are being imported, by file.
    pub in_flight: BTreeMap<String, Counts>,
    /// The problem of the file that failed first.
    pub first_problem: Option<String>,
    /// Whether one of them is a manifest that could be used.
    pub manifest: bool,
    /// When the newest of them was announced or found.
    pub last_received_at: Option<Timestamp>,
    /// When one was last taken up, or ended.
    pub last_moved_at: Option<Timestamp>,
}

/// Something that happened to a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The server's listener was started.
    ListenerTriggered,
    /// Its files were counted. Nobody writes the transfer when a file is taken up or ends: what became of them stands in their own rows.
    FilesCounted {
        /// What their rows add up to.
        totals: FileTotals,
        /// When the look at the rows began. What happened later may be missing; of two counts the later one stays, unless more files have ended by the other.
        at: Timestamp,
    },
    /// The import moved: a slice committed something.
    WorkMoved {
        /// The file's key.
        file: String,
        /// The file's records so far.
        counts: Counts,
    },
    /// The import of a file can't go on for now.
    WorkStalled {
        /// Why, as the admin may read it.
        reason: String,
    },
    /// A file was read to its end with records held; it is read once more, for their mappings may have come by then.
    AskedAgainLater {
        /// The file's key.
        file: String,
        /// The file's records, as they count until then.
        counts: Counts,
        /// When.
        at: Timestamp,
    },
    /// A progress report is about to be sent.
    Reporting {
        /// Its percent.
        percent: u8,
    },
    /// The server's listener failed.
    ListenerErrored {
        /// The exception's class, when the platform told it.
        exception: Option<String>,
    },
    /// The platform says that the export phase is complete: Forge's `completed:export_phase` (PROTOCOL.md 7.2). Connect has no
    /// such event.
    ExportPhaseCompleted,
    /// The admin or Atlassian Support cancelled.
    CancelRequested,
    /// The platform says that the transfer is settled.
    PlatformSettled {
        /// Its word for the outcome, where it said one.
        status: Option<String>,
    },
    /// A newer attempt of the chain was seen.
    Superseded {
        /// That attempt.
        by: TransferId,
    },
    /// The platform's list of active transfers was read.
    Listed(Listing),
    /// Completeness was looked at: nothing more will come. Given right behind the count of the files that were looked at.
    ExportComplete {
        /// What decided it.
        evidence: Evidence,
        /// What is not there.
        missing: Vec<String>,
    },
    /// Completeness was looked at: more must come.
    ExportIncomplete {
        /// Reads after "waiting for".
        waiting_for: String,
        /// Number of ended files that were looked at.
        files_ended: u64,
    },
    /// What [`Step::Stop`] asked for.
    Stop(StopReason),
    /// Every file's fencing token was moved on, so that no worker can commit any more.
    FilesFenced {
        /// Sums over all files.
        totals: FileTotals,
        /// Until when a worker may still have a delivery under way.
        leased_until: Option<Timestamp>,
    },
    /// An attempt to settle is about to be sent.
    SettlementBegun,
    /// The platform answered it.
    SettlementAnswered(Answer),
    /// The platform could not be asked; nothing is known.
    PlatformUnavailable {
        /// What the platform asked us to wait.
        retry_after: Option<Duration>,
    },
    /// A file was announced with a message that wants an answer: Forge's (PROTOCOL.md 7.6). Given once a message.
    MessageArrived {
        /// When it was received.
        at: Timestamp,
    },
    /// The file of a message has ended. Given once a message that arrived.
    MessageDecided {
        /// Whether every record of it is in the target.
        applied: bool,
    },
    /// A token with which messages can be answered was looked for.
    TokenLooked {
        /// Until when the newest one is good; none when there is none.
        good_until: Option<Timestamp>,
    },
    /// The admin and whoever is on call were told that no message can be answered when the window needs it.
    WindowWarned,
    /// An attempt to answer messages is about to be sent.
    AnswerBegun,
    /// The platform took it. Given once for each message, in one write with the rows of the files that say so: two attempts may have had the same message.
    AnswersTaken {
        /// The answer.
        outcome: MessageOutcome,
        /// How many messages.
        messages: u64,
        /// When the attempt was begun.
        begun_at: Timestamp,
    },
    /// The second phase of this staged transfer exists, with all that it needs.
    SecondPhaseBegun,
    /// The platform did not take it, or nobody knows.
    AnswersNotTaken {
        /// What the platform asked us to wait.
        retry_after: Option<Duration>,
    },
}

/// The answer to a message (PROTOCOL.md 7.6). The first one is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageOutcome {
    /// Its file is applied.
    Success,
    /// Its file is not, or the transfer has ended otherwise.
    Failed,
}

/// What is owed to a transfer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the transfer's next due instant.
    Wait,
    /// Count the files, as [`Input::FilesCounted`] has them.
    CountFiles,
    /// Look whether the export is complete: files, manifest, and (without a manifest) the platform's list.
    CheckCompleteness,
    /// Apply [`Input::Stop`].
    Stop(StopReason),
    /// Move every unfinished file's fencing token on.
    FenceFiles,
    /// Begin and send an attempt to settle.
    Settle,
    /// Read the platform's list of active transfers to learn whether a settlement arrived.
    Confirm,
    /// Compare with the platform's lists: still active? files that were never announced?
    Reconcile,
    /// Tell the admin what the transfer waits for.
    Report,
    /// Answer one message of a file that is applied: it carries the others for another window.
    Answer,
    /// Look for a newer token, because the known one is about to end.
    LookForToken,
    /// Tell the admin and whoever is on call that no file will have ended when the window needs an answer.
    Warn,
    /// Make the second phase of this staged transfer, which is over for the platform.
    BeginSecondPhase,
}

/// A progress update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 1..99, never lower than before (PROTOCOL.md 2.6).
    pub percent: u8,
    /// What the admin reads.
    pub message: String,
}
