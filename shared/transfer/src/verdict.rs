use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::completeness::{Evidence, UPLOADS_AWAITED};
use crate::counts::Counts;
use crate::message::{MESSAGE_MAX, clip, count_of};
use crate::timestamp::Timestamp;
use crate::transfer::{StopReason, Transfer};

/// A final status that the app may send (PROTOCOL.md 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Every record is balanced and none was rejected.
    Success,
    /// Finished, but something is missing. The admin can re-run.
    Incomplete,
    /// Did not finish, or nothing arrived. The admin can re-run.
    Failed,
}

impl Status {
    /// The platform's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Incomplete => "INCOMPLETE",
            Self::Failed => "FAILED",
        }
    }
}

/// Why the verdict is what it is; each has a paragraph in `docs/verdicts.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Everything arrived.
    Complete,
    /// The import finished with records or files missing.
    Gaps,
    /// The import finished and nothing usable arrived.
    NothingUsable,
    /// The server app's listener failed.
    ListenerError,
    /// The admin or Atlassian Support cancelled.
    Cancelled,
    /// Our own work made no progress although it was revived.
    WorkStale,
    /// The server app went silent.
    ExporterSilent,
    /// Too old to leave the admin time for a re-run.
    Deadline,
    /// A file killed every worker that tried it.
    Poison,
}

impl Cause {
    /// The name under which rows, logs and `docs/verdicts.md` know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Gaps => "gaps",
            Self::NothingUsable => "nothing_usable",
            Self::ListenerError => "listener_error",
            Self::Cancelled => "cancelled",
            Self::WorkStale => "work_stale",
            Self::ExporterSilent => "exporter_silent",
            Self::Deadline => "deadline",
            Self::Poison => "poison",
        }
    }
}

/// The decision about a transfer. It is made once, written before it is sent, and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the platform is told.
    pub status: Status,
    /// Why.
    pub cause: Cause,
    /// What the admin reads: the reason and the next step within the first 200 characters.
    pub message: String,
    /// When it was decided.
    pub decided_at: Timestamp,
}

const RERUN: &str = "Re-run the app migration from the migration assistant";
/// What a re-run costs, so that nobody is afraid of it.
const RERUN_KEEPS: &str = "what has arrived is not applied again";

impl Verdict {
    /// The verdict on an export that is complete and whose files have all ended.
    pub(crate) fn of_import(
        transfer: &Transfer,
        evidence: Evidence,
        missing: &[String],
        now: Timestamp,
    ) -> Self {
        let work = &transfer.work;
        let counts = work.counts;
        let clean = work.files_failed == 0
            && work.files_poisoned == 0
            && missing.is_empty()
            && counts.rejected == 0
            && counts.held == 0
            && counts.balances();
        let (status, cause) = if evidence == Evidence::ListenerError {
            // Whatever arrived is not all: the exporter itself says that it broke off.
            (incomplete_or_failed(counts), Cause::ListenerError)
        } else if clean {
            (Status::Success, Cause::Complete)
        } else if counts.arrived() == 0 {
            (Status::Failed, Cause::NothingUsable)
        } else {
            (Status::Incomplete, Cause::Gaps)
        };
        // The manifest is a file for us, not for the admin.
        let exported = work
            .files_known
            .saturating_sub(u64::from(transfer.exporter.manifest));
        let files = count_of(exported, "file");
        let reason = match cause {
            Cause::Complete => format!(
                "Migration complete: {} from {files} arrived.",
                count_of(counts.arrived(), "record")
            ),
            Cause::ListenerError => format!(
                "The export failed on the server{}. {RERUN} once that is fixed; {RERUN_KEEPS}.",
                exception_of(transfer)
            ),
            Cause::NothingUsable => format!(
                "Nothing could be imported from {files}{}. {RERUN} once the cause is fixed.",
                problem_of(transfer)
            ),
            _ => format!(
                "{} of {} arrived{}. {RERUN} once the cause is fixed; {RERUN_KEEPS}.",
                counts.arrived(),
                count_of(counts.read, "record"),
                problem_of(transfer)
            ),
        };
        let unreadable = match work.files_failed {
            0 => String::new(),
            failed => format!(", {failed} unreadable"),
        };
        let missing = match missing {
            [] => String::new(),
            some => format!(". Missing: {}", clip(&some.join("; "), 300)),
        };
        let by = evidence.as_words();
        let message = format!("{reason} {counts}; {files}{unreadable}{missing}. Complete {by}.");
        Self {
            status,
            cause,
            message: clip(&message, MESSAGE_MAX),
            decided_at: now,
        }
    }

    /// The verdict on a transfer that is stopped before its export was complete. None when the platform or a re-run has
    /// already decided, so that there is nothing left to tell.
    pub(crate) fn of_stop(
        transfer: &Transfer,
        reason: &StopReason,
        work_stale_after: Duration,
        now: Timestamp,
    ) -> Option<Self> {
        let counts = transfer.work.counts;
        let (status, cause, reason) = match reason {
            StopReason::SettledElsewhere { .. } | StopReason::Superseded { .. } => return None,
            StopReason::Cancelled => (
                // OpenAPI: INCOMPLETE also for cancelled (OPEN-QUESTIONS.md B5).
                incomplete_or_failed(counts),
                Cause::Cancelled,
                format!("Cancelled as requested. {RERUN} to finish it; {RERUN_KEEPS}."),
            ),
            StopReason::ListenerError => (
                incomplete_or_failed(counts),
                Cause::ListenerError,
                format!(
                    "The export failed on the server{}{}. {RERUN} once that is fixed.",
                    if transfer.work.files_known == 0 {
                        " before it uploaded any file"
                    } else {
                        ""
                    },
                    exception_of(transfer)
                ),
            ),
            StopReason::WorkStale => (
                Status::Failed,
                Cause::WorkStale,
                format!(
                    "The import made no progress for {} although it was restarted{}. {RERUN}; {RERUN_KEEPS}. If it stops again, contact the app's support with this transfer's id.",
                    duration_of(work_stale_after),
                    problem_of(transfer)
                ),
            ),
            StopReason::ExporterSilent => (
                Status::Failed,
                Cause::ExporterSilent,
                format!(
                    "The server app sent nothing since {} and its export is not complete{}. Check that the server runs, then re-run the app migration from the migration assistant; {RERUN_KEEPS}.",
                    transfer.exporter.last_heard_at.for_admin(),
                    waiting_of(transfer)
                ),
            ),
            StopReason::Deadline => (
                Status::Failed,
                Cause::Deadline,
                format!(
                    "Stopped after {} so that a re-run stays possible: the assistant allows it for 12 days. {RERUN} now; {RERUN_KEEPS}.",
                    duration_of(now.since(transfer.created_at))
                ),
            ),
            StopReason::Poison => (
                Status::Failed,
                Cause::Poison,
                format!(
                    "A file stopped the import each time it was tried{}. {RERUN}; if it stops again, contact the app's support with this transfer's id.",
                    problem_of(transfer)
                ),
            ),
        };
        let files = count_of(transfer.work.files_known, "file");
        let message = format!(
            "{reason} {counts}; {} of {files} ended.",
            transfer.work.files_ended
        );
        Some(Self {
            status,
            cause,
            message: clip(&message, MESSAGE_MAX),
            decided_at: now,
        })
    }
}

const fn incomplete_or_failed(counts: Counts) -> Status {
    if counts.arrived() > 0 {
        Status::Incomplete
    } else {
        Status::Failed
    }
}

fn exception_of(transfer: &Transfer) -> String {
    transfer
        .exporter
        .exception
        .as_ref()
        .map_or_else(String::new, |class| format!(" ({})", clip(class, 80)))
}

fn problem_of(transfer: &Transfer) -> String {
    transfer
        .work
        .stalled_by
        .as_ref()
        .or(transfer.work.first_problem.as_ref())
        .map_or_else(String::new, |problem| format!(" ({})", clip(problem, 80)))
}

fn waiting_of(transfer: &Transfer) -> String {
    let Some(what) = &transfer.exporter.waiting_for else {
        return String::new();
    };
    match what.strip_prefix(UPLOADS_AWAITED) {
        Some(missing) => format!(" (missing: {})", clip(missing, 40)),
        None => format!(" (waiting for {})", clip(what, 40)),
    }
}

/// `6 hours`, `10 days`; the largest unit that says enough.
fn duration_of(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => count_of(seconds, "second"),
        120..7_200 => count_of(seconds / 60, "minute"),
        7_200..172_800 => count_of(seconds / 3_600, "hour"),
        _ => count_of(seconds / 86_400, "day"),
    }
}
