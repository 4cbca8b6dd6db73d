use super::{Cause, Status};
use crate::completeness::Evidence;
use crate::seeded_bugs::{SeededBug, is_planted};
use crate::transfer::{StopReason, Transfer};

/// How a transfer came to its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    /// Every file has ended, and this says that no more will come.
    Complete(Evidence),
    /// It was stopped before that.
    Stopped(&'a StopReason),
}

/// What of the export arrived in the target, by this attempt or an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// The server app exported no file, and nothing says that one is missing.
    NoFile,
    /// Every file was read to its end, every record is there, the counts balance and nothing is missing.
    All,
    /// Some records are there.
    Some,
    /// No record is there.
    Nothing,
}

impl Arrived {
    pub(super) fn of(end: End<'_>, transfer: &Transfer, missing: &[String]) -> Self {
        let counts = transfer.work.counts;
        let nothing_lost = transfer.work.files_failed == 0
            && missing.is_empty()
            && counts.rejected == 0
            && (counts.held == 0 || is_planted(SeededBug::HeldCountsAsArrived))
            && counts.balances();
        // Who is stopped, or whose exporter broke off, has not been given everything.
        let given_all = match end {
            End::Complete(evidence) => evidence != Evidence::ListenerError,
            End::Stopped(_) => false,
        };
        if nothing_lost && transfer.files_exported() == 0 {
            Self::NoFile
        } else if nothing_lost && given_all {
            Self::All
        } else if counts.arrived() > 0 {
            Self::Some
        } else {
            Self::Nothing
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    /// What the platform is told.
    pub(super) status: Status,
    /// Why.
    pub(super) cause: Cause,
    /// The reason, as the admin reads it. `{name}` is filled in; what stands in brackets is left out when it has nothing to say.
    pub(super) says: &'static str,
    /// The admin's next step, if there is one.
    pub(super) next: &'static str,
    /// What whoever operates Landfall or the server app does about it.
    pub(super) mend: &'static str,
}

/// The next step of nearly everybody.
macro_rules! rerun {
    ($rest:literal) => {
        concat!(
            "Re-run the app migration from the migration assistant",
            $rest
        )
    };
}

/// The verdict on a transfer: the one place that decides it. `docs/verdicts.md` prints this table. None when the platform or a
/// re-run has decided already.
#[expect(clippy::too_many_lines, reason = "a table is read as a whole")]
pub(super) fn ruling(end: End<'_>, arrived: Arrived) -> Option<Ruling> {
    use Arrived as A;
    use Evidence as E;
    use StopReason as S;
    let (status, cause, says, next, mend) = match (end, arrived) {
        (End::Complete(E::Manifest | E::ExportComplete | E::Stored), A::NoFile) => (
            Status::Success,
            Cause::Complete,
            "Nothing to migrate: the server app exported no file.",
            "",
            "nothing",
        ),
        (End::Complete(E::FileList), A::NoFile) => (
            Status::Failed,
            Cause::NoFile,
            "The server app uploaded no file since {begun}.",
            rerun!(
                " once the server app's log shows why. If there was nothing to migrate, nothing is lost."
            ),
            "look into the server app's log for why nothing was uploaded; raise `completeness.no_file_period` if its first file takes longer; let it upload a manifest if there may be nothing to export",
        ),
        (End::Complete(E::Manifest | E::ExportComplete | E::FileList | E::Stored), A::All) => (
            Status::Success,
            Cause::Complete,
            "Migration complete: {records} from {files} arrived.",
            "",
            "nothing",
        ),
        (End::Complete(E::Manifest | E::ExportComplete | E::FileList | E::Stored), A::Some) => (
            Status::Incomplete,
            Cause::Gaps,
            "{arrived} of {records} arrived[ ({problem})].",
            rerun!(" once the cause is fixed; what has arrived is not applied again."),
            "see the problem and the exceptions, mend, re-run",
        ),
        (End::Complete(E::Manifest | E::ExportComplete | E::FileList | E::Stored), A::Nothing) => (
            Status::Failed,
            Cause::NothingUsable,
            "Nothing could be imported from {files}[ ({problem})].",
            rerun!(" once the cause is fixed."),
            "see the problem and the exceptions, mend, re-run",
        ),
        (End::Complete(E::ListenerError), A::NoFile) => (
            Status::Failed,
            Cause::ListenerError,
            "The export failed on the server before it uploaded any file[ ({exception})].",
            rerun!(" once that is fixed."),
            "mend the server app, re-run",
        ),
        (End::Complete(E::ListenerError) | End::Stopped(S::ListenerError), A::All | A::Some) => (
            Status::Incomplete,
            Cause::ListenerError,
            "The export failed on the server[ ({exception})].",
            rerun!(" once that is fixed; what has arrived is not applied again."),
            "mend the server app, re-run",
        ),
        // Where the platform's list could not be had, nobody knows whether a file was uploaded.
        (End::Complete(E::ListenerError), A::Nothing)
        | (End::Stopped(S::ListenerError), A::NoFile | A::Nothing) => (
            Status::Failed,
            Cause::ListenerError,
            "The export failed on the server[ ({exception})], and nothing arrived.",
            rerun!(" once that is fixed."),
            "mend the server app, re-run",
        ),
        // INCOMPLETE also for cancelled (OPEN-QUESTIONS.md B5).
        (End::Stopped(S::Cancelled), A::All | A::Some) => (
            Status::Incomplete,
            Cause::Cancelled,
            "Cancelled as requested.",
            rerun!(" to finish it; what has arrived is not applied again."),
            "nothing, or re-run",
        ),
        (End::Stopped(S::Cancelled), A::NoFile | A::Nothing) => (
            Status::Failed,
            Cause::Cancelled,
            "Cancelled as requested. Nothing had arrived.",
            rerun!(" to begin anew."),
            "nothing, or re-run",
        ),
        (End::Stopped(S::Poison), _) => (
            Status::Failed,
            Cause::Poison,
            "A file stopped the import each time it was tried[ ({problem})].",
            rerun!(
                "; what has arrived is not applied again. If it stops again, contact the app's support with this transfer's id."
            ),
            "[LF-POISON](errors/LF-POISON.md)",
        ),
        (End::Stopped(S::WorkStale), _) => (
            Status::Failed,
            Cause::WorkStale,
            "The import made no progress for {stale} despite restarts[ ({problem})].",
            rerun!(
                "; what has arrived is not applied again. If it stops again, contact the app's support with this transfer's id."
            ),
            "see what interrupted the files in the timeline, mend, re-run",
        ),
        (End::Stopped(S::ExporterSilent), _) => (
            Status::Failed,
            Cause::ExporterSilent,
            "The server app sent nothing since {since}, and its export is not known to be complete[ ({waiting})].",
            rerun!(" once the server app runs again; what has arrived is not applied again."),
            "see whether the server app still runs, re-run",
        ),
        (End::Stopped(S::Deadline), _) => (
            Status::Failed,
            Cause::Deadline,
            "Stopped after {age} so that a re-run stays possible: the assistant allows it for 12 days.",
            rerun!(" now; what has arrived is not applied again."),
            "re-run at once",
        ),
        (End::Stopped(S::Unanswered), _) => (
            Status::Failed,
            Cause::Unanswered,
            "No file was imported in the time in which the platform wants an answer.",
            rerun!(" with smaller files; what has arrived is not applied again."),
            "let the exporter write files of which each is imported within a few minutes, re-run",
        ),
        (End::Stopped(S::NoToken), _) => (
            Status::Failed,
            Cause::NoToken,
            "The app's access to the platform ended, and the platform has not renewed it.",
            rerun!(" once the app's support says so; what has arrived is not applied again."),
            "see why the scheduled trigger no longer reaches the app, re-run",
        ),
        // Whoever is complete has a verdict of another kind, and in the other cases somebody else has decided.
        (
            End::Stopped(S::Complete { .. } | S::SettledElsewhere { .. } | S::Superseded { .. }),
            _,
        ) => return None,
    };
    Some(Ruling {
        status,
        cause,
        says,
        next,
        mend,
    })
}
