use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::acknowledgements::Acknowledgements;
use crate::clocks::{Clocks, platform};
use crate::counts::Counts;
use crate::identity::{ChainId, TenantId, TransferId};
use crate::message::{asked_again, clip};
use crate::seeded_bugs::{SeededBug, is_planted};
use crate::timestamp::Timestamp;
use crate::verdict::{MISSING_MAX, Verdict};

mod ending;
mod input;
mod obligations;
mod report;
mod state;

pub use input::{FileOutcome, FileTotals, Input, MessageOutcome, Report, Step};
pub use state::{Exporter, Phase, Settled, SettledBy, Staging, StopReason, Work};

/// One transfer, from the first sight of its id until the platform has a verdict.
///
/// It is the state of a pure machine: [`Transfer::apply`] takes what happened, [`Transfer::next_step`] says what is owed
/// now, [`Transfer::due_at`] when something will be owed next. Steps follow from the stored state alone, so that a crash
/// between a step and its result loses nothing: the step is owed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its own id.
    pub id: TransferId,
    /// The first transfer of its chain, when this is a re-run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<TransferId>,
    /// When the platform made it, or when we first saw it: the earlier of the two. Deadlines count from here.
    pub created_at: Timestamp,
    /// When we first saw it; orders the attempts of a chain.
    pub first_seen_at: Timestamp,
    /// Where it stands.
    pub phase: Phase,
    /// What is known of the server app.
    pub exporter: Exporter,
    /// What our own import did.
    pub work: Work,
    /// Highest percent that was reported; 0 when none was.
    pub last_percent: u8,
    /// When progress was last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reported_at: Option<Timestamp>,
    /// When it was last compared with the platform's lists.
    pub reconciled_at: Timestamp,
    /// Since when the platform doesn't list it as active although it is open here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Timestamp>,
    /// Nothing is asked of the platform before this, because it could not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back_until: Option<Timestamp>,
    /// When the admin's cancellation was first seen, whatever we were about to do: from then on the platform waits no longer than
    /// [`platform::CANCELLATION_GRACE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// How far the messages of its files are answered; none where the app settles the transfer itself, as on Connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Acknowledgements>,
    /// Which part of the way its records go; none where they go straight into the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<Staging>,
}

/// Files in flight whose records a transfer's row tells; a Lambda account works on fewer at once.
const IN_FLIGHT_MAX: usize = 200;

impl Transfer {
    /// A transfer that is seen for the first time, whichever event or list showed it.
    pub fn first_seen(
        tenant: TenantId,
        id: TransferId,
        original: Option<TransferId>,
        created_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        // Some re-run samples repeat the own id as the original: then it is no re-run.
        let original = original.filter(|original| *original != id);
        // A creation time that can't be one (long ago, or in the future) would settle at once, or never. Of a re-run it may
        // be the first attempt's, whose age must not end the new one.
        let created_at = created_at
            .filter(|created| {
                original.is_none() && *created <= now && now.since(*created) <= platform::LIFE
            })
            .unwrap_or(now);
        Self {
            tenant,
            id,
            original,
            created_at,
            first_seen_at: now,
            phase: Phase::Open,
            exporter: Exporter {
                triggered_at: None,
                last_heard_at: now,
                errored_at: None,
                exception: None,
                completed_at: None,
                manifest: false,
                waiting_for: None,
                checked_at: None,
                checked_files: 0,
            },
            work: Work {
                counted_at: now,
                files_known: 0,
                files_ended: 0,
                files_failed: 0,
                files_poisoned: 0,
                counts: Counts::default(),
                last_moved_at: now,
                first_problem: None,
                in_flight: BTreeMap::new(),
                stalled_by: None,
            },
            last_percent: 0,
            last_reported_at: None,
            reconciled_at: now,
            absent_since: None,
            held_back_until: None,
            cancelled_at: None,
            messages: None,
            staging: None,
        }
    }

    /// The same on Forge: the platform decides by the answers to the messages of its files.
    #[must_use]
    pub fn with_messages(mut self) -> Self {
        self.messages = Some(Acknowledgements::default());
        self
    }

    /// The same where its records are put into the partner's bucket first, and from there into the target once it is settled.
    #[must_use]
    pub fn staged(mut self) -> Self {
        self.staging = Some(Staging::First {
            second_begun: false,
        });
        self
    }

    /// The same as a later phase of a staged transfer: from the bucket into the target. The platform knows nothing of it.
    #[must_use]
    pub fn from_stage(mut self) -> Self {
        self.staging = Some(Staging::Later);
        self.messages = None;
        // Nothing is exported any more.
        self.exporter.completed_at = Some(self.first_seen_at);
        self
    }

    /// Whether it is a later phase of a staged transfer: nobody but us imports, waits or is told.
    pub const fn is_later_phase(&self) -> bool {
        matches!(self.staging, Some(Staging::Later))
    }

    /// Whether its records go into the partner's bucket, and not yet into the target.
    pub const fn is_staged(&self) -> bool {
        matches!(self.staging, Some(Staging::First { .. }))
    }

    /// How many files were read to their end, the manifest aside: those that a second phase imports.
    pub fn files_stored_whole(&self) -> u64 {
        let work = &self.work;
        let ended = work.files_ended.saturating_sub(work.files_failed);
        ended.saturating_sub(u64::from(self.exporter.manifest))
    }

    /// The chain that this attempt belongs to.
    pub fn chain(&self) -> ChainId {
        ChainId::new(self.original.as_ref().unwrap_or(&self.id).as_str())
    }

    /// Whether records of an earlier attempt may already be in the target.
    pub const fn is_rerun(&self) -> bool {
        self.original.is_some()
    }

    /// Whether files may be taken up and batches committed.
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Files that the server app exported. The manifest is a file for us, not for the admin.
    pub(crate) fn files_exported(&self) -> u64 {
        self.work
            .files_known
            .saturating_sub(u64::from(self.exporter.manifest))
    }

    /// Whether nothing of ours is open, and the server app has not said that it failed.
    pub const fn waits_for_exporter(&self) -> bool {
        self.is_open() && self.work.files_open() == 0 && self.exporter.errored_at.is_none()
    }

    /// Whether it is over.
    pub const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled(_))
    }

    /// Takes in what happened. Returns whether anything changed; an input that comes too late changes nothing.
    pub fn apply(&mut self, input: Input, now: Timestamp, clocks: &Clocks) -> bool {
        if self.comes_too_late(&input) {
            return false;
        }
        let before = self.clone();
        match input {
            Input::SecondPhaseBegun => self.second_phase_begun(),
            Input::ListenerTriggered => {
                self.exporter.triggered_at.get_or_insert(now);
                self.heard(now);
            }
            Input::FilesCounted { totals, at } => {
                // A file that has ended stays so: more of them are newer, whatever the clock says of the machine that counted.
                let is_newer = at >= self.work.counted_at || totals.ended > self.work.files_ended;
                if self.is_open() && is_newer {
                    self.files_counted(totals, at);
                }
            }
            Input::WorkMoved { file, counts } => self.work_moved(file, counts, now),
            Input::AskedAgainLater { file, counts, at } => {
                // Said again by whoever takes the file up too early; only the first time something has moved.
                let is_known = self.work.in_flight.get(&file) == Some(&counts);
                if self.work.stalled_by.is_none() || !is_known {
                    self.work_moved(file, counts, now);
                }
                self.work.stalled_by = Some(asked_again(counts.held, at));
            }
            Input::WorkStalled { reason } => self.work.stalled_by = Some(clip(&reason, 120)),
            Input::Reporting { percent } => {
                self.last_percent = self.last_percent.max(percent);
                self.last_reported_at = Some(now);
            }
            Input::ListenerErrored { exception } => {
                self.exporter.errored_at.get_or_insert(now);
                if self.exporter.exception.is_none() {
                    self.exporter.exception = exception;
                }
                self.heard(now);
            }
            Input::ExportPhaseCompleted => self.export_phase_completed(now),
            Input::CancelRequested => self.cancel(now, clocks),
            Input::Superseded { by } => self.stop(StopReason::Superseded { by }, now),
            Input::Stop(reason) => self.stop(reason, now),
            Input::PlatformSettled { status } => self.platform_settled(status, now),
            Input::Listed(listing) => self.listed(listing, now, clocks),
            Input::ExportComplete { evidence, missing } => {
                if self.can_be_complete(evidence, now, clocks) {
                    let missing = match missing.as_slice() {
                        [] => Vec::new(),
                        // Its row stays small, whatever a manifest names.
                        some => vec![clip(&some.join("; "), MISSING_MAX)],
                    };
                    if is_planted(SeededBug::VerdictBeforeFence) {
                        let verdict = Verdict::of_import(self, evidence, &missing, now);
                        self.settle(verdict.expect("an import has one"), now);
                    } else {
                        self.stop(StopReason::Complete { evidence, missing }, now);
                    }
                }
            }
            Input::ExportIncomplete {
                waiting_for,
                files_ended,
            } => {
                self.exporter.checked_at = Some(now);
                self.exporter.checked_files = files_ended;
                self.exporter.waiting_for = Some(clip(&waiting_for, 300));
            }
            Input::FilesFenced {
                totals,
                leased_until,
            } => {
                self.files_fenced(totals, leased_until, now, clocks);
            }
            Input::SettlementBegun => {
                if let Phase::Settling(settlement) = &mut self.phase {
                    settlement.begin(now, clocks);
                }
            }
            Input::SettlementAnswered(answer) => {
                let (moment, seed) = (self.moment(now, clocks), self.seed());
                if let Phase::Settling(settlement) = &mut self.phase {
                    settlement.answered(answer, &moment, clocks, seed);
                }
            }
            Input::PlatformUnavailable { retry_after } => {
                self.platform_unavailable(retry_after, now, clocks);
            }
            Input::TokenLooked { good_until } => self.token_looked(good_until, now, clocks),
            of_messages @ (Input::MessageArrived { .. }
            | Input::MessageDecided { .. }
            | Input::WindowWarned
            | Input::AnswerBegun
            | Input::AnswersTaken { .. }
            | Input::AnswersNotTaken { .. }) => self.messages_changed(&of_messages, now, clocks),
        }
        *self != before
    }

    /// Takes in that this is a re-run, learnt only after it was first seen (the platform's list doesn't say so).
    pub fn join_chain(&mut self, original: TransferId) -> bool {
        let joins = self.original.is_none() && original != self.id;
        if joins {
            self.original = Some(original);
            // The platform's list may have told the first attempt's age.
            self.created_at = self.first_seen_at;
        }
        joins
    }

    /// What happens to a settled transfer changes nothing any more, but for the platform's own word and what follows on it.
    const fn comes_too_late(&self, input: &Input) -> bool {
        self.is_settled()
            && !matches!(
                input,
                Input::PlatformSettled { .. } | Input::SecondPhaseBegun
            )
    }

    fn export_phase_completed(&mut self, now: Timestamp) {
        self.exporter.completed_at.get_or_insert(now);
        self.heard(now);
    }

    const fn second_phase_begun(&mut self) {
        if let Some(Staging::First { second_begun }) = &mut self.staging {
            *second_begun = true;
        }
    }

    fn heard(&mut self, now: Timestamp) {
        self.exporter.last_heard_at = self.exporter.last_heard_at.max(now);
    }

    fn work_moved(&mut self, file: String, counts: Counts, now: Timestamp) {
        let work = &mut self.work;
        work.last_moved_at = now;
        work.stalled_by = None;
        if work.in_flight.len() < IN_FLIGHT_MAX || work.in_flight.contains_key(&file) {
            work.in_flight.insert(file, counts);
        }
    }

    fn files_counted(&mut self, totals: FileTotals, at: Timestamp) {
        let received = totals.last_received_at;
        self.heard(received.unwrap_or(self.exporter.last_heard_at));
        let work = &mut self.work;
        if totals.ended > work.files_ended {
            work.stalled_by = None;
        }
        let moved = totals.last_moved_at;
        work.last_moved_at = work.last_moved_at.max(moved.unwrap_or_default());
        work.counted_at = work.counted_at.max(at);
        self.take_totals(totals);
    }

    fn take_totals(&mut self, totals: FileTotals) {
        self.exporter.manifest |= totals.manifest;
        let work = &mut self.work;
        work.files_known = totals.known;
        work.files_ended = totals.ended;
        work.files_failed = totals.failed;
        work.files_poisoned = totals.poisoned;
        work.counts = totals.counts;
        work.in_flight = totals.in_flight.into_iter().take(IN_FLIGHT_MAX).collect();
        work.first_problem = totals.first_problem.map(|problem| clip(&problem, 200));
    }
}

#[cfg(test)]
mod tests;
