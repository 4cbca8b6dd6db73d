use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clocks::{Clocks, PLATFORM_LIFE};
use crate::completeness::Evidence;
use crate::counts::Counts;
use crate::identity::{ChainId, TenantId, TransferId};
use crate::message::{MESSAGE_MAX, clip, count_of};
use crate::settlement::{Answer, Confirmed, Form, Listing, Settlement};
use crate::timestamp::Timestamp;
use crate::verdict::Verdict;

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
    pub last_reported_at: Option<Timestamp>,
    /// When it was last compared with the platform's lists.
    pub reconciled_at: Timestamp,
    /// Since when the platform doesn't list it as active although it is open here.
    pub absent_since: Option<Timestamp>,
    /// Nothing is asked of the platform before this, because it could not answer.
    pub held_back_until: Option<Timestamp>,
}

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

/// Why a transfer is stopped before its import is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The admin or Atlassian Support asked for it.
    Cancelled,
    /// The server's listener failed and nothing more moves.
    ListenerError,
    /// [`Clocks::work_stale_after`].
    WorkStale,
    /// [`Clocks::export_silence`].
    ExporterSilent,
    /// [`Clocks::hard_deadline`].
    Deadline,
    /// A file killed every worker that tried it.
    Poison,
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
    pub triggered_at: Option<Timestamp>,
    /// Last sign of life: the newest event or newly found file.
    pub last_heard_at: Timestamp,
    /// When its listener failed.
    pub errored_at: Option<Timestamp>,
    /// The exception's class, when the platform told it.
    pub exception: Option<String>,
    /// Whether its manifest has been read.
    pub manifest: bool,
    /// What completeness waits for, as of the last look.
    pub waiting_for: Option<String>,
    /// When completeness was last looked at.
    pub checked_at: Option<Timestamp>,
    /// Number of ended files at that look.
    pub checked_files: u64,
}

/// What our own import did. The manifest file counts as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
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
    pub first_problem: Option<String>,
    /// Records of files that are being imported, by file; of so many at once that their row stays small.
    #[serde(default)]
    pub in_flight: BTreeMap<String, Counts>,
    /// Why nothing moves although a file is open, as the admin may read it.
    #[serde(default)]
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

/// Sums over the files of a transfer, taken while no file can change any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Files there are.
    pub known: u64,
    /// Files that ended before the transfer was stopped.
    pub ended: u64,
    /// Records of all files, those of half-imported ones included.
    pub counts: Counts,
}

/// Something that happened to a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The server's listener was started.
    ListenerTriggered,
    /// A file was announced, or found in the platform's list, for the first time.
    FileSeen,
    /// The import of a file ended. Given once a file.
    FileEnded {
        /// Its key.
        file: String,
        /// How.
        outcome: FileOutcome,
        /// Its records.
        counts: Counts,
        /// Whether it was a manifest that could be used.
        manifest: bool,
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
    /// Completeness was looked at: nothing more will come.
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
}

/// What is owed to a transfer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the transfer's next due instant.
    Wait,
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
}

/// A progress update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 1..99, never lower than before (PROTOCOL.md 2.6).
    pub percent: u8,
    /// What the admin reads.
    pub message: String,
}

/// A transfer that is not listed for this long is gone. Twice the platform's own lag that we assume (OPEN-QUESTIONS.md B16).
const ABSENT_FOR: Duration = Duration::from_mins(2);

/// A transfer that was only just made may not be listed yet.
const LISTED_AFTER: Duration = Duration::from_mins(1);

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
                original.is_none() && *created <= now && now.since(*created) <= PLATFORM_LIFE
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
                manifest: false,
                waiting_for: None,
                checked_at: None,
                checked_files: 0,
            },
            work: Work {
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
        }
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

    /// Whether it is over.
    pub const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled(_))
    }

    /// Takes in what happened. Returns whether anything changed; an input that comes too late changes nothing.
    pub fn apply(&mut self, input: Input, now: Timestamp, clocks: &Clocks) -> bool {
        if self.is_settled() && !matches!(input, Input::PlatformSettled { .. }) {
            return false;
        }
        let before = self.clone();
        match input {
            Input::ListenerTriggered => {
                self.exporter.triggered_at.get_or_insert(now);
                self.heard(now);
            }
            Input::FileSeen => {
                if self.is_open() {
                    self.work.files_known += 1;
                    self.work.last_moved_at = now;
                    self.heard(now);
                }
            }
            Input::FileEnded {
                file,
                outcome,
                counts,
                manifest,
            } => {
                if self.is_open() {
                    self.work.in_flight.remove(&file);
                    self.file_ended(outcome, counts, manifest, now);
                }
            }
            Input::WorkMoved { file, counts } => {
                let work = &mut self.work;
                work.last_moved_at = now;
                work.stalled_by = None;
                if work.in_flight.len() < IN_FLIGHT_MAX || work.in_flight.contains_key(&file) {
                    work.in_flight.insert(file, counts);
                }
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
            Input::CancelRequested => self.stop(StopReason::Cancelled, now),
            Input::Superseded { by } => self.stop(StopReason::Superseded { by }, now),
            Input::Stop(reason) => self.stop(reason, now),
            Input::PlatformSettled { status } => self.platform_settled(status, now),
            Input::Listed(listing) => self.listed(listing, now, clocks),
            Input::ExportComplete { evidence, missing } => {
                if self.is_open() && self.work.files_open() == 0 {
                    let verdict = Verdict::of_import(self, evidence, &missing, now);
                    self.settle(verdict, now);
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
                let (age, seed) = (now.since(self.created_at), self.seed());
                if let Phase::Settling(settlement) = &mut self.phase {
                    settlement.answered(answer, now, clocks, age, seed);
                }
            }
            Input::PlatformUnavailable { retry_after } => {
                self.platform_unavailable(retry_after, now, clocks);
            }
        }
        *self != before
    }

    /// What is owed now.
    pub fn next_step(&self, now: Timestamp, clocks: &Clocks) -> Step {
        self.obligations(clocks)
            .into_iter()
            .find(|(due, _)| *due <= now)
            .map_or(Step::Wait, |(_, step)| step)
    }

    /// When something is owed next; none once it is settled.
    pub fn due_at(&self, clocks: &Clocks) -> Option<Timestamp> {
        self.obligations(clocks)
            .into_iter()
            .map(|(due, _)| due)
            .min()
    }

    /// The percent and message of a progress update, `in_flight` being the share of the current file that is done, in thousandths.
    pub fn report(&self, in_flight: u32) -> Report {
        let known = self.work.files_known.max(1);
        let done = self.work.files_ended * 1_000
            + u64::from(in_flight.min(1_000)) * u64::from(self.work.files_open() > 0);
        // The export isn't known to be complete, so the last hundredth is never reported.
        let percent = (done * 98 / (known * 1_000)).min(98) + 1;
        let percent = u8::try_from(percent)
            .unwrap_or(99)
            .max(self.last_percent)
            .min(99);
        let files = format!(
            "{} of {} done, {}",
            self.work.files_ended,
            count_of(self.work.files_known, "file"),
            self.work.counts_so_far()
        );
        let message = match (&self.work.stalled_by, self.work.files_open()) {
            (Some(reason), 1..) => {
                let since = self.work.last_moved_at.for_admin();
                format!("Waiting since {since}, because {reason}: {files}.")
            }
            (None, 1..) => format!("Importing: {files}."),
            (_, 0) => format!(
                "Waiting for {} since {}: {files}.",
                self.exporter
                    .waiting_for
                    .as_deref()
                    .unwrap_or("the server app"),
                self.quiet_since().for_admin()
            ),
        };
        Report {
            percent,
            message: clip(&message, MESSAGE_MAX),
        }
    }

    /// Whether a progress update may be sent.
    pub fn may_report(&self, now: Timestamp, clocks: &Clocks) -> bool {
        self.is_open()
            && self
                .last_reported_at
                .is_none_or(|last| now >= last + clocks.progress_interval)
    }

    /// Whether nothing came and nothing of ours moved for the quiet period.
    pub fn is_quiet(&self, now: Timestamp, clocks: &Clocks) -> bool {
        now >= self.quiet_since() + clocks.quiet_period
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
                vec![(due, Step::FenceFiles)]
            }
            Phase::Settling(settlement) => {
                let (due, look) = settlement.due();
                vec![(due, if look { Step::Confirm } else { Step::Settle })]
            }
            Phase::Settled(_) => Vec::new(),
        }
    }

    fn open_obligations(&self, clocks: &Clocks) -> Vec<(Timestamp, Step)> {
        let mut owed = Vec::with_capacity(8);
        let exporter = &self.exporter;
        let idle = self.work.files_open() == 0;
        let not_before = |due: Timestamp| self.held_back_until.map_or(due, |until| until.max(due));

        if idle && self.work.files_poisoned > 0 {
            owed.push((self.work.last_moved_at, Step::Stop(StopReason::Poison)));
        }
        if let Some(due) = self.completeness_due(clocks) {
            owed.push((not_before(due), Step::CheckCompleteness));
        }
        owed.push((
            self.created_at + clocks.hard_deadline,
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
        owed.push((
            not_before(self.reconciled_at + clocks.reconcile_interval),
            Step::Reconcile,
        ));
        let reported = self.last_reported_at.unwrap_or(self.first_seen_at);
        let pause = clocks.waiting_report_interval.max(clocks.progress_interval);
        owed.push((not_before(reported + pause), Step::Report));
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
        if let Some(errored) = exporter.errored_at {
            // The list of files is asked at once; whatever it shows beyond ours opens work again.
            let due = errored.max(self.work.last_moved_at);
            if !looked_after(due) {
                return Some(due);
            }
        }
        if self.work.files_known == 0 {
            return None;
        }
        if exporter.manifest && !looked_after(self.work.last_moved_at) {
            return Some(self.work.last_moved_at);
        }
        let quiet = self.quiet_since() + clocks.quiet_period;
        (!looked_after(quiet)).then_some(quiet)
    }

    /// Since when neither the exporter nor our own work gave a sign.
    fn quiet_since(&self) -> Timestamp {
        self.exporter.last_heard_at.max(self.work.last_moved_at)
    }

    fn heard(&mut self, now: Timestamp) {
        self.exporter.last_heard_at = self.exporter.last_heard_at.max(now);
    }

    fn file_ended(&mut self, outcome: FileOutcome, counts: Counts, manifest: bool, now: Timestamp) {
        let work = &mut self.work;
        work.files_ended += 1;
        work.counts += counts;
        work.last_moved_at = now;
        work.stalled_by = None;
        self.exporter.manifest |= manifest;
        let problem = match outcome {
            FileOutcome::Imported | FileOutcome::Stopped => return,
            FileOutcome::Unreadable { reason } => {
                work.files_failed += 1;
                reason
            }
            FileOutcome::Poisoned { reason } => {
                work.files_failed += 1;
                work.files_poisoned += 1;
                reason
            }
        };
        work.first_problem.get_or_insert(clip(&problem, 200));
    }

    fn stop(&mut self, reason: StopReason, now: Timestamp) {
        let stronger = matches!(
            reason,
            StopReason::SettledElsewhere { .. } | StopReason::Superseded { .. }
        );
        match &mut self.phase {
            Phase::Open => {
                self.phase = Phase::Stopping {
                    reason,
                    since: now,
                    leased_until: None,
                };
            }
            // No verdict is written yet: what the platform decided outweighs what we were about to.
            Phase::Stopping {
                reason: earlier, ..
            } if stronger => *earlier = reason,
            // A re-run exists only after the platform settled this one, so it has the verdict that is on its way.
            Phase::Settling(settlement) => {
                if let StopReason::Superseded { by } = reason {
                    let verdict = settlement.verdict.clone();
                    self.phase = Phase::Settled(Settled {
                        by: SettledBy::Rerun(by),
                        status: Some(verdict.status.as_str().to_owned()),
                        verdict: Some(verdict),
                        form: None,
                        at: now,
                    });
                }
            }
            Phase::Stopping { .. } | Phase::Settled(_) => {}
        }
    }

    fn platform_settled(&mut self, status: Option<String>, now: Timestamp) {
        match &mut self.phase {
            Phase::Open | Phase::Stopping { .. } => {
                self.stop(StopReason::SettledElsewhere { status }, now);
            }
            Phase::Settling(settlement) => {
                let ours = settlement.verdict.status.as_str();
                // Where the platform says no word of its own, our verdict is what it has, if it can have it at all.
                let taken = match &status {
                    Some(status) => status == ours && settlement.attempts > 0,
                    None => settlement.may_have_arrived(),
                };
                self.phase = Phase::Settled(Settled {
                    by: if taken {
                        SettledBy::App
                    } else {
                        SettledBy::Platform
                    },
                    verdict: Some(settlement.verdict.clone()),
                    status: status.or_else(|| taken.then(|| ours.to_owned())),
                    form: taken.then_some(settlement.form),
                    at: now,
                });
            }
            Phase::Settled(settled) => {
                if settled.status.is_none() {
                    settled.status = status;
                }
            }
        }
    }

    fn listed(&mut self, listing: Listing, now: Timestamp, clocks: &Clocks) {
        let (age, seed) = (now.since(self.created_at), self.seed());
        match &mut self.phase {
            Phase::Open => {
                self.reconciled_at = now;
                self.held_back_until = None;
                match listing {
                    Listing::Active => self.absent_since = None,
                    Listing::Full => {}
                    Listing::Absent => {
                        if now.since(self.first_seen_at)
                            < LISTED_AFTER.min(clocks.reconcile_interval)
                        {
                            return;
                        }
                        let since = *self.absent_since.get_or_insert(now);
                        if now.since(since) >= ABSENT_FOR.min(clocks.reconcile_interval)
                            && now > since
                        {
                            self.stop(StopReason::SettledElsewhere { status: None }, now);
                        }
                    }
                }
            }
            Phase::Settling(settlement) => {
                let looked = settlement.looked(listing, now, clocks, age, seed);
                self.confirmed(looked, now);
            }
            Phase::Stopping { .. } | Phase::Settled(_) => {}
        }
    }

    fn platform_unavailable(
        &mut self,
        retry_after: Option<Duration>,
        now: Timestamp,
        clocks: &Clocks,
    ) {
        let (age, seed) = (now.since(self.created_at), self.seed());
        if let Phase::Settling(settlement) = &mut self.phase {
            let looked = settlement.look_failed(retry_after, now, clocks, age, seed);
            self.confirmed(looked, now);
        } else {
            let pause = retry_after.unwrap_or_default().max(clocks.retry_pause);
            self.held_back_until = Some(now + pause);
        }
    }

    /// A settlement's fate, once it is known.
    fn confirmed(&mut self, looked: Confirmed, now: Timestamp) {
        let Phase::Settling(settlement) = &self.phase else {
            return;
        };
        let taken = match looked {
            Confirmed::Open => return,
            Confirmed::Settled => true,
            Confirmed::Elsewhere => false,
        };
        self.phase = Phase::Settled(Settled {
            by: if taken {
                SettledBy::App
            } else {
                SettledBy::Platform
            },
            verdict: Some(settlement.verdict.clone()),
            status: taken.then(|| settlement.verdict.status.as_str().to_owned()),
            form: (taken && settlement.accepted_at.is_some()).then_some(settlement.form),
            at: now,
        });
    }

    fn files_fenced(
        &mut self,
        totals: FileTotals,
        leased_until: Option<Timestamp>,
        now: Timestamp,
        clocks: &Clocks,
    ) {
        let Phase::Stopping {
            reason,
            since,
            leased_until: waiting,
        } = &mut self.phase
        else {
            return;
        };
        self.work.files_known = totals.known;
        self.work.files_ended = totals.ended;
        self.work.counts = totals.counts;
        self.work.in_flight.clear();
        let overdue = *reason == StopReason::Cancelled && now >= *since + clocks.cancel_settle_by;
        if let Some(until) = leased_until.filter(|until| *until > now && !overdue) {
            *waiting = Some(until);
            return;
        }
        let reason = reason.clone();
        if let Some(verdict) = Verdict::of_stop(self, &reason, clocks.work_stale_after, now) {
            self.settle(verdict, now);
        } else {
            let (by, status) = match reason {
                StopReason::Superseded { by } => (SettledBy::Rerun(by), None),
                StopReason::SettledElsewhere { status } => (SettledBy::Platform, status),
                _ => (SettledBy::Platform, None),
            };
            self.phase = Phase::Settled(Settled {
                by,
                verdict: None,
                status,
                form: None,
                at: now,
            });
        }
    }

    fn settle(&mut self, verdict: Verdict, now: Timestamp) {
        self.phase = Phase::Settling(Settlement::new(verdict, now));
    }

    /// Spreads the retries of different transfers.
    fn seed(&self) -> u64 {
        self.id
            .as_str()
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
            })
    }
}

#[cfg(test)]
mod tests;
