use std::ops::Range;

use super::{Phase, Settled, SettledBy, Staging, Step, StopReason, Transfer};
use crate::acknowledgements::Needed;
use crate::clocks::{Clocks, own, platform};
use crate::completeness::Evidence;
use crate::seeded_bugs::{SeededBug, is_planted};
use crate::settlement::Moment;
use crate::timestamp::Timestamp;
use crate::verdict::Cause;

/// The platform's word for a transfer that it has ended because an admin cancelled it (PROTOCOL.md 2.2).
const CANCELLED: &str = "CANCELLED";

impl Transfer {
    /// What is owed now.
    pub fn next_step(&self, now: Timestamp, clocks: &Clocks) -> Step {
        let owed = self.obligations(clocks);
        match owed.into_iter().find(|(due, _)| *due <= now) {
            None => Step::Wait,
            // Files may have come, moved or ended since: then it isn't owed yet.
            Some((due, step))
                if rests_on_files(&step)
                    && self.work.counted_at < due
                    && !is_planted(SeededBug::OldCountBelieved) =>
            {
                Step::CountFiles
            }
            Some((_, step)) => step,
        }
    }

    /// When something is owed next; none once it is settled.
    pub fn due_at(&self, clocks: &Clocks) -> Option<Timestamp> {
        self.obligations(clocks)
            .into_iter()
            .map(|(due, _)| due)
            .min()
    }

    /// Whether the server app and our own work were quiet for so long that the platform's file list decides.
    pub fn is_quiet(&self, now: Timestamp, clocks: &Clocks) -> bool {
        now >= self.quiet_from(clocks)
    }

    /// Whether its settlement would come too late if it kept to a pause that the site asked for: then it is sent, and looked for, within the pause.
    pub fn is_pressing(&self, now: Timestamp, clocks: &Clocks) -> bool {
        self.pressing(clocks).contains(&now)
    }

    /// From the latest instant at which the settlement should be sent until the platform takes something away: it cancels the transfer by itself,
    /// or the admin can't re-run it any more. After that a pause costs nothing further, and is kept again.
    fn pressing(&self, clocks: &Clocks) -> Range<Timestamp> {
        if let Some(messages) = &self.messages {
            return messages.pressing(clocks).unwrap_or_default();
        }
        if let Some(cancelled) = self.cancelled_at {
            cancelled + clocks.cancel_settle_by..cancelled + platform::CANCELLATION_GRACE
        } else {
            let until = self.created_at + platform::RERUN_WINDOW;
            until - own::RERUN_LEFT..until
        }
    }

    /// By when the messages of a transfer that is being stopped are answered, lease or not: the platform doesn't wait for our workers.
    pub(super) fn answer_at_latest(&self, clocks: &Clocks) -> Option<Timestamp> {
        self.messages.as_ref()?.at_latest(clocks)
    }

    pub(super) fn moment(&self, now: Timestamp, clocks: &Clocks) -> Moment {
        Moment {
            now,
            age: now.since(self.created_at),
            pressing: self.pressing(clocks),
        }
    }

    /// The strongest sign, the manifest aside, that nothing more will come.
    pub fn evidence(&self, now: Timestamp, clocks: &Clocks) -> Option<Evidence> {
        if self.is_later_phase() {
            Some(Evidence::Stored)
        } else if self.exporter.errored_at.is_some() {
            Some(Evidence::ListenerError)
        } else if self.exporter.completed_at.is_some() {
            Some(Evidence::ExportComplete)
        } else {
            self.is_quiet(now, clocks).then_some(Evidence::FileList)
        }
    }

    /// Whether the platform's file list is to be read before completeness is decided. A manifest names every file itself; in
    /// every other case a lost event would be a lost file.
    pub const fn needs_file_list(&self) -> bool {
        let exporter = &self.exporter;
        !exporter.manifest || exporter.errored_at.is_some() || exporter.completed_at.is_some()
    }

    /// Whether a look at completeness that found this evidence still holds: what happened since may have made it void.
    pub(super) fn can_be_complete(
        &self,
        evidence: Evidence,
        now: Timestamp,
        clocks: &Clocks,
    ) -> bool {
        let known = match evidence {
            Evidence::Manifest => self.exporter.manifest,
            _ => self.evidence(now, clocks) == Some(evidence),
        };
        known && self.is_open() && self.work.files_open() == 0 && self.work.files_poisoned == 0
    }

    /// What is owed and when, the more urgent first. This is the only place that turns clocks into instants.
    fn obligations(&self, clocks: &Clocks) -> Vec<(Timestamp, Step)> {
        match &self.phase {
            Phase::Open => self.open_obligations(clocks),
            Phase::Stopping {
                reason,
                since,
                leased_until,
            } => {
                let mut due = leased_until.unwrap_or(*since);
                if *reason == StopReason::Cancelled {
                    // The platform settles it by itself after 60 minutes, lease or not.
                    due = due.min(*since + clocks.cancel_settle_by);
                }
                if let Some(latest) = self.answer_at_latest(clocks) {
                    due = due.min(latest.max(*since));
                }
                vec![(due, Step::FenceFiles)]
            }
            Phase::Settling(settlement) if let Some(messages) = &self.messages => {
                let due = messages.free_from().unwrap_or(settlement.next_at);
                vec![(due, Step::Settle)]
            }
            Phase::Settling(settlement) => {
                let (due, look) = settlement.due();
                vec![(due, if look { Step::Confirm } else { Step::Settle })]
            }
            Phase::Settled(settled) if self.owes_second_phase(settled) => {
                vec![(settled.at, Step::BeginSecondPhase)]
            }
            Phase::Settled(_) => Vec::new(),
        }
    }

    /// Whether what was staged has to be brought into the target now that the platform is done with the transfer, whatever it says. Not what an admin cancelled, which
    /// may be known from the platform's word alone; and a re-run stages everything itself.
    fn owes_second_phase(&self, settled: &Settled) -> bool {
        let was_cancelled = match &settled.verdict {
            Some(verdict) => verdict.cause == Cause::Cancelled,
            None => self.cancelled_at.is_some(),
        };
        self.staging
            == Some(Staging::First {
                second_begun: false,
            })
            && !was_cancelled
            && settled.status.as_deref() != Some(CANCELLED)
            && !matches!(settled.by, SettledBy::Rerun(_))
            && self.files_stored_whole() > 0
    }

    fn open_obligations(&self, clocks: &Clocks) -> Vec<(Timestamp, Step)> {
        let mut owed = Vec::with_capacity(8);
        if let Some(due) = self
            .messages
            .as_ref()
            .and_then(|messages| messages.token_due(clocks))
        {
            owed.push((due, Step::LookForToken));
        }
        if let Some((due, needed)) = self
            .messages
            .as_ref()
            .and_then(|messages| messages.needed(clocks))
        {
            let step = match needed {
                Needed::Answer => Step::Answer,
                Needed::Warning => Step::Warn,
                Needed::End => Step::Stop(StopReason::Unanswered),
            };
            owed.push((due, step));
        }
        let exporter = &self.exporter;
        let idle = self.work.files_open() == 0;
        let not_before = |due: Timestamp| self.held_back_until.map_or(due, |until| until.max(due));

        if idle && self.work.files_poisoned > 0 {
            owed.push((self.work.last_moved_at, Step::Stop(StopReason::Poison)));
        }
        if let Some(due) = self.completeness_due(clocks) {
            owed.push((not_before(due), Step::CheckCompleteness));
        }
        let begun = if is_planted(SeededBug::DeadlineMovesOn) {
            self.work.last_moved_at
        } else {
            self.created_at
        };
        owed.push((
            begun + clocks.hard_deadline,
            Step::Stop(StopReason::Deadline),
        ));
        if let Some(errored) = exporter.errored_at.filter(|_| idle) {
            // The platform's list can't be had, or nothing would be owed any more: what came is what there is.
            let since = errored.max(self.work.last_moved_at);
            owed.push((
                since + clocks.listener_error_drain,
                Step::Stop(StopReason::ListenerError),
            ));
        }
        if !idle {
            owed.push((self.recount_at(clocks), Step::CountFiles));
        }
        if idle {
            owed.push((
                self.quiet_since() + clocks.export_silence,
                Step::Stop(StopReason::ExporterSilent),
            ));
        } else if let Some(errored) = exporter.errored_at {
            let since = errored.max(self.work.last_moved_at);
            let drain = clocks.listener_error_drain.min(clocks.work_stale_after);
            owed.push((since + drain, Step::Stop(StopReason::ListenerError)));
        } else {
            owed.push((
                self.work.last_moved_at + clocks.work_stale_after,
                Step::Stop(StopReason::WorkStale),
            ));
        }
        // Of what follows the platform knows nothing.
        if self.is_later_phase() {
            return owed;
        }
        owed.push((
            not_before(self.reconciled_at + clocks.reconcile_interval),
            Step::Reconcile,
        ));
        // Of a transfer whose messages are answered the platform says itself how far it is (PROTOCOL.md 7.6).
        if self.messages.is_none() {
            let reported = self.last_reported_at.unwrap_or(self.first_seen_at);
            let pause = clocks.waiting_report_interval.max(clocks.progress_interval);
            owed.push((not_before(reported + pause), Step::Report));
        }
        owed
    }

    /// When completeness must be looked at; none while files are open or as long as nothing has changed since the last look.
    fn completeness_due(&self, clocks: &Clocks) -> Option<Timestamp> {
        if self.work.files_open() > 0 {
            return None;
        }
        let exporter = &self.exporter;
        let looked_after = |instant: Timestamp| {
            exporter.checked_files == self.work.files_ended
                && exporter
                    .checked_at
                    .is_some_and(|checked| checked >= instant)
        };
        if let Some(done) = exporter.errored_at.max(exporter.completed_at) {
            // The list of files is asked at once; whatever it shows beyond ours opens work again.
            let due = done.max(self.work.last_moved_at);
            if !looked_after(due) {
                return Some(due);
            }
        }
        if exporter.manifest && !looked_after(self.work.last_moved_at) {
            return Some(self.work.last_moved_at);
        }
        let quiet = self.quiet_from(clocks);
        (!looked_after(quiet)).then_some(quiet)
    }

    /// Whether it may be over as soon as its open files have ended.
    pub const fn ends_with_its_files(&self) -> bool {
        let exporter = &self.exporter;
        exporter.manifest
            || exporter.completed_at.is_some()
            || exporter.errored_at.is_some()
            || self.work.files_poisoned > 0
    }

    /// When its files are counted again while some are open, should nobody do it who has ended one: at once when the exporter is done or broken. No quiet period is noticed
    /// later for it, whose end is as far from the last sign of work as a count is at most from the one before.
    fn recount_at(&self, clocks: &Clocks) -> Timestamp {
        let (exporter, counted_at) = (&self.exporter, self.work.counted_at);
        let done = exporter.errored_at.max(exporter.completed_at);
        if let Some(done) = done.filter(|done| counted_at < *done) {
            return done;
        }
        let pause = if self.ends_with_its_files() {
            own::RECOUNT.min(clocks.quiet_period)
        } else {
            clocks.quiet_period
        };
        counted_at + pause
    }

    /// When it will have been quiet for long enough. A transfer without any file isn't waited for as long as one whose
    /// exporter has shown that it works.
    fn quiet_from(&self, clocks: &Clocks) -> Timestamp {
        if self.work.files_known == 0 {
            self.begun_at() + clocks.no_file_period
        } else {
            self.quiet_since() + clocks.quiet_period
        }
    }

    /// When the server app began to export, as far as is known.
    pub(crate) fn begun_at(&self) -> Timestamp {
        self.exporter.triggered_at.unwrap_or(self.first_seen_at)
    }

    /// Since when neither the exporter nor our own work gave a sign.
    pub(super) fn quiet_since(&self) -> Timestamp {
        self.exporter.last_heard_at.max(self.work.last_moved_at)
    }
}

/// Whether a step is owed because of what files did, or did not.
const fn rests_on_files(step: &Step) -> bool {
    matches!(
        step,
        Step::CheckCompleteness
            | Step::Stop(
                StopReason::Poison
                    | StopReason::ListenerError
                    | StopReason::WorkStale
                    | StopReason::ExporterSilent
            )
    )
}
