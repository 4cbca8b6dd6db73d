use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::completeness::{Evidence, UPLOADS_AWAITED};
use crate::message::{MESSAGE_MAX, clip, count_of};
use crate::timestamp::Timestamp;
use crate::transfer::{Exporter, Staging, StopReason, Transfer, Work};

mod table;

use table::{Arrived, End, Ruling};

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
    /// The server app uploaded no file, and nothing says that this was meant.
    NoFile,
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
    /// No file ended within the time in which Forge wants an answer.
    Unanswered,
    /// The installation's token on Forge ended, and no newer one came.
    NoToken,
}

impl Cause {
    /// The name under which rows, logs and `docs/verdicts.md` know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Gaps => "gaps",
            Self::NothingUsable => "nothing_usable",
            Self::NoFile => "no_file",
            Self::ListenerError => "listener_error",
            Self::Cancelled => "cancelled",
            Self::WorkStale => "work_stale",
            Self::ExporterSilent => "exporter_silent",
            Self::Deadline => "deadline",
            Self::Poison => "poison",
            Self::Unanswered => "unanswered",
            Self::NoToken => "no_token",
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

impl Verdict {
    /// The verdict on an export that is complete and whose files have all ended.
    pub(crate) fn of_import(
        transfer: &Transfer,
        evidence: Evidence,
        missing: &[String],
        now: Timestamp,
    ) -> Option<Self> {
        let end = End::Complete(evidence);
        let ruling = table::ruling(end, Arrived::of(end, transfer, missing))?;
        let work = &transfer.work;
        let files = count_of(transfer.files_exported(), "file");
        let unreadable = match work.files_failed {
            0 => String::new(),
            failed => format!(", {failed} unreadable"),
        };
        let absent = match missing {
            [] => String::new(),
            some => format!(". Missing: {}", clip(&some.join("; "), MISSING_MAX)),
        };
        let decided = match ruling.cause {
            Cause::NoFile => "Decided",
            _ => "Complete",
        };
        let details = format!(
            "{}; {files}{unreadable}{absent}. {decided} {}.",
            work.counts,
            evidence.as_words()
        );
        let ruling = ruling.in_phase(transfer);
        Some(ruling.verdict(&Words::new(transfer, missing, now), &details, now))
    }

    /// The verdict on a transfer that is stopped before its export was complete. None when the platform or a re-run has
    /// already decided, so that there is nothing left to tell.
    pub(crate) fn of_stop(
        transfer: &Transfer,
        reason: &StopReason,
        work_stale_after: Duration,
        now: Timestamp,
    ) -> Option<Self> {
        let end = End::Stopped(reason);
        let ruling = table::ruling(end, Arrived::of(end, transfer, &[]))?.in_phase(transfer);
        let details = format!(
            "{}; {} of {} ended.",
            transfer.work.counts,
            transfer.work.files_ended,
            count_of(transfer.work.files_known, "file")
        );
        let words = Words {
            stale: duration_of(work_stale_after),
            ..Words::new(transfer, &[], now)
        };
        Some(ruling.verdict(&words, &details, now))
    }
}

impl Ruling {
    /// The same as it is said of a staged transfer, or of a later phase. Neither says that something was migrated which was only stored, nor that the
    /// admin can do what only the operator can.
    fn in_phase(self, transfer: &Transfer) -> Self {
        let arrived = transfer.work.counts.arrived() > 0;
        match transfer.staging {
            Some(Staging::First { .. }) if self.cause == Cause::Complete && arrived => Self {
                says: "Stored, not yet imported: {records} from {files}. The app imports them from its own store now.",
                ..self
            },
            Some(Staging::First { .. }) if self.cause == Cause::Gaps => Self {
                says: "{arrived} of {records} are stored[ ({problem})].",
                ..self
            },
            None | Some(Staging::First { .. }) => self,
            Some(Staging::Later) if self.next.is_empty() => Self {
                says: "Second phase complete: {records} from {files} arrived.",
                ..self
            },
            Some(Staging::Later) => Self {
                next: "The app's operator can repeat this phase once the cause is fixed; what has arrived is not applied again.",
                ..self
            },
        }
    }

    fn verdict(&self, words: &Words, details: &str, now: Timestamp) -> Verdict {
        let sentence = fill(self.says, words);
        let message = match self.next {
            "" => format!("{sentence} {details}"),
            next => format!("{sentence} {next} {details}"),
        };
        Verdict {
            status: self.status,
            cause: self.cause,
            message: clip(&message, MESSAGE_MAX),
            decided_at: now,
        }
    }
}

/// Longest list of what is missing in a message, in characters.
pub(crate) const MISSING_MAX: usize = 300;

/// Longest problem, reason or exception's class in a message: the next step must begin within the first 200 characters.
const REASON_MAX: usize = 80;

/// Longest mention of what the transfer waits for; its sentence is longer.
const WAITING_MAX: usize = 30;

/// What a ruling's sentence can name.
struct Words {
    arrived: u64,
    records: String,
    files: String,
    problem: String,
    exception: String,
    begun: String,
    since: String,
    waiting: String,
    stale: String,
    age: String,
}

impl Words {
    fn new(transfer: &Transfer, missing: &[String], now: Timestamp) -> Self {
        let (work, exporter) = (&transfer.work, &transfer.exporter);
        let exception = exporter.exception.as_deref().unwrap_or_default();
        Self {
            arrived: work.counts.arrived(),
            records: count_of(work.counts.read, "record"),
            files: count_of(transfer.files_exported(), "file"),
            problem: clip(&problem(work, missing), REASON_MAX),
            exception: clip(exception, REASON_MAX),
            begun: transfer.begun_at().for_admin(),
            since: exporter.last_heard_at.for_admin(),
            waiting: waiting(exporter),
            stale: String::new(),
            age: duration_of(now.since(transfer.created_at)),
        }
    }

    fn of(&self, name: &str) -> String {
        match name {
            "arrived" => self.arrived.to_string(),
            "records" => self.records.clone(),
            "files" => self.files.clone(),
            "problem" => self.problem.clone(),
            "exception" => self.exception.clone(),
            "begun" => self.begun.clone(),
            "since" => self.since.clone(),
            "waiting" => self.waiting.clone(),
            "stale" => self.stale.clone(),
            "age" => self.age.clone(),
            other => unreachable!("a ruling names {other}, which nobody knows"),
        }
    }
}

/// Fills `{name}` in; of a part in square brackets nothing is left when its name has nothing to say.
fn fill(template: &str, words: &Words) -> String {
    let mut text = String::new();
    for (index, part) in template.split(['[', ']']).enumerate() {
        let mut filled = String::new();
        let mut said = true;
        for (index, piece) in part.split(['{', '}']).enumerate() {
            // Every second piece stands in braces, as every second part stands in brackets.
            if index % 2 == 1 {
                let word = words.of(piece);
                said = !word.is_empty();
                filled.push_str(&word);
            } else {
                filled.push_str(piece);
            }
        }
        if said || index % 2 == 0 {
            text.push_str(&filled);
        }
    }
    text
}

/// What went wrong, most telling first.
fn problem(work: &Work, missing: &[String]) -> String {
    if let Some(problem) = work.stalled_by.as_ref().or(work.first_problem.as_ref()) {
        return problem.clone();
    }
    if !missing.is_empty() {
        return format!("missing: {}", missing.join("; "));
    }
    let counts = work.counts;
    let lost = counts.without_outcome();
    [
        (counts.rejected, "rejected"),
        (counts.held, "held"),
        (lost, "without an outcome"),
    ]
    .iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{number} {what}"))
    .collect::<Vec<_>>()
    .join(", ")
}

fn waiting(exporter: &Exporter) -> String {
    let Some(what) = &exporter.waiting_for else {
        return String::new();
    };
    match what.strip_prefix(UPLOADS_AWAITED) {
        Some(missing) => format!("missing: {}", clip(missing, WAITING_MAX)),
        None => format!("waiting for {}", clip(what, WAITING_MAX)),
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

#[cfg(test)]
mod tests;
