use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::completeness::Evidence;
use crate::counts::Counts;
use crate::identity::TransferId;
use crate::settlement::{Form, Settlement};
use crate::timestamp::Timestamp;
use crate::verdict::Verdict;

/// Where a transfer stands. It only ever moves downwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Files may come and are imported.
    Open,
    /// No batch may begin any more; workers under way are being fenced off.
    Stopping {
        /// Why.
        reason: StopReason,
        /// Since when.
        since: Timestamp,
        /// Until when a worker's lease may still be in force.
        leased_until: Option<Timestamp>,
    },
    /// The verdict is written and on its way.
    Settling(Settlement),
    /// Over. Nothing is ever written for it again.
    Settled(Settled),
}

impl Phase {
    /// The name under which rows and logs know it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Stopping { .. } => "STOPPING",
            Self::Settling(_) => "SETTLING",
            Self::Settled(_) => "SETTLED",
        }
    }
}

/// Why a transfer is stopped: why it takes no more files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Everything is there. The verdict waits until no file can be taken up any more: one may have come since the files were looked at.
    Complete {
        /// What decided it.
        evidence: Evidence,
        /// What is not there, as the verdict words it.
        missing: Vec<String>,
    },
    /// The admin or Atlassian Support asked for it.
    Cancelled,
    /// The server's listener failed and nothing more moves.
    ListenerError,
    /// [`Clocks::work_stale_after`](crate::Clocks::work_stale_after).
    WorkStale,
    /// [`Clocks::export_silence`](crate::Clocks::export_silence).
    ExporterSilent,
    /// [`Clocks::hard_deadline`](crate::Clocks::hard_deadline).
    Deadline,
    /// A file killed every worker that tried it.
    Poison,
    /// [`Clocks::forge_answer_by`](crate::Clocks::forge_answer_by), and no message can be answered.
    Unanswered,
    /// The installation's token is about to end, no newer one has come, and after that nothing could be answered.
    NoToken,
    /// The platform ended it: a `transfer-settled` event, or it is listed no more.
    SettledElsewhere {
        /// The platform's word for the outcome, where it said one.
        status: Option<String>,
    },
    /// A newer attempt of its chain has begun.
    Superseded {
        /// That attempt.
        by: TransferId,
    },
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Who ended it.
    pub by: SettledBy,
    /// Our verdict, when we had one.
    pub verdict: Option<Verdict>,
    /// The final status: the platform's word where it said one, else ours.
    pub status: Option<String>,
    /// The form that the platform took.
    pub form: Option<Form>,
    /// When.
    pub at: Timestamp,
}

/// Which part of the way the records of a staged transfer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Staging {
    /// Into the partner's bucket. The way on is the second phase's, which begins when this transfer is settled.
    First {
        /// Whether the second phase exists.
        second_begun: bool,
    },
    /// From the bucket into the target: the second phase, or one that repeats it.
    Later,
}

/// Who ended a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledBy {
    /// The platform took our verdict.
    App,
    /// The platform ended it without one.
    Platform,
    /// A newer attempt of the chain took over.
    Rerun(TransferId),
}

/// What is known of the server app's export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exporter {
    /// When `listener-triggered` arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered_at: Option<Timestamp>,
    /// Last sign of life: the newest event or newly found file.
    pub last_heard_at: Timestamp,
    /// When its listener failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errored_at: Option<Timestamp>,
    /// The exception's class, when the platform told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// When the platform said that the export phase is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// Whether its manifest has been read.
    pub manifest: bool,
    /// What completeness waits for, as of the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// When completeness was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
    /// Number of ended files at that look.
    pub checked_files: u64,
}

/// What our own import did, as of the last count of its files. The manifest file counts as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// When the files were counted. A release that counted each file as it came and went left none.
    #[serde(default)]
    pub counted_at: Timestamp,
    /// Files that are known.
    pub files_known: u64,
    /// Files whose import has ended, one way or the other.
    pub files_ended: u64,
    /// Of these, files that could not be read to their end.
    pub files_failed: u64,
    /// Of these, files that killed every worker that tried them.
    pub files_poisoned: u64,
    /// Records of the ended files.
    pub counts: Counts,
    /// Last sign of progress of our own.
    pub last_moved_at: Timestamp,
    /// The first problem of a file, as the admin may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_problem: Option<String>,
    /// Records of files that are being imported, by file; of so many at once that their row stays small.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub in_flight: BTreeMap<String, Counts>,
    /// Why nothing moves although a file is open, as the admin may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_by: Option<String>,
}

impl Work {
    /// Files whose import has not ended.
    pub const fn files_open(&self) -> u64 {
        self.files_known.saturating_sub(self.files_ended)
    }

    /// Records of ended files and of those in flight.
    pub fn counts_so_far(&self) -> Counts {
        self.in_flight
            .values()
            .fold(self.counts, |sum, counts| sum + *counts)
    }
}
