use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use landfall_platform::connect::client::CallError;
use landfall_runtime::{Clock, Configuration};
use landfall_tracking::{
    Error as Tracking, File, FileState, Lease, Message, Queue, Store, Stored, Task, Told, totals,
};
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::timeline::{Actor, Entry, What, entries};
use landfall_transfer::{
    Answer, Completeness, Evidence, ExportFacts, FileFacts, FileOutcome, Input, Listing, Phase,
    Step, TenantId, Timestamp, Transfer, TransferId, evaluate,
};

use crate::error::Error;
use crate::platform::{Governor, Platform, Site, listing};

/// Times that a write is repeated when another was faster.
const RACES_MAX: u32 = 12;

/// Steps of one drive. A transfer needs no more than a handful; the rest waits for the next sweep.
const STEPS_MAX: u32 = 24;

/// Carries out what transfers are owed.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    pub(crate) store: Store,
    pub(crate) imports: Queue,
    pub(crate) platform: Platform,
    pub(crate) governor: Arc<Governor>,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) clock: Clock,
}

/// What came of a step.
pub(crate) enum Done {
    /// Take this in and go on.
    Input(Input),
    /// Take these in, one after the other in one write, and go on.
    Inputs(Vec<Input>),
    /// It is written already; go on.
    Stored(Box<Stored>),
    /// Nothing more can be done now.
    Stop,
}

impl Lifecycle {
    /// Works on these, as one function, whose name the timelines then carry.
    pub fn new(
        actor: Actor,
        store: Store,
        imports: Queue,
        platform: Platform,
        configuration: Arc<Configuration>,
        clock: Clock,
    ) -> Self {
        let store = store.acting_as(actor);
        // Work that has to wait for longer is given back, and comes again no sooner than after this.
        let patience = configuration.clocks.retry_pause;
        let outage_max = configuration.clocks.settle_retry_max;
        let governor = Governor::new(store.clone(), clock.clone(), patience, outage_max);
        let governor = Arc::new(governor);
        Self {
            store,
            imports,
            platform,
            governor,
            configuration,
            clock,
        }
    }

    /// The table.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The queue of files.
    pub const fn imports(&self) -> &Queue {
        &self.imports
    }

    /// The configuration.
    pub const fn configuration(&self) -> &Arc<Configuration> {
        &self.configuration
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock itself.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A tenant's site, to call it now.
    pub async fn site(&self, tenant: &TenantId) -> Result<Site, Error> {
        self.site_for(tenant, Duration::ZERO).await
    }

    /// Takes an input in and writes the state that follows, however many others write at the same time. None when the
    /// transfer is not known.
    pub async fn apply(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        input: &Input,
    ) -> Result<Option<Stored>, Error> {
        self.apply_each(tenant, id, std::slice::from_ref(input))
            .await
    }

    /// Takes inputs in, one after the other, and writes the state that follows, as [`Lifecycle::apply`] does.
    async fn apply_each(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        inputs: &[Input],
    ) -> Result<Option<Stored>, Error> {
        match self.store.transfer(tenant, id).await? {
            Some(stored) => self.apply_from(stored, inputs).await,
            None => Ok(None),
        }
    }

    /// The same from a state on that was just read, which is read again only if it has changed since.
    pub(crate) async fn apply_from(
        &self,
        stored: Stored,
        inputs: &[Input],
    ) -> Result<Option<Stored>, Error> {
        let (tenant, id) = &(stored.transfer.tenant.clone(), stored.transfer.id.clone());
        let (mut first_read, mut read) = (None, Some(stored));
        for _ in 0..RACES_MAX {
            let read = match read.take() {
                None => self.store.transfer(tenant, id).await?,
                read => read,
            };
            let Some(mut stored) = read else {
                return Ok(None);
            };
            if is_planted(SeededBug::StateFromBeforeTheRace) {
                let first_read = first_read.get_or_insert_with(|| stored.transfer.clone());
                stored.transfer.clone_from(first_read);
            }
            match self.apply_each_to(&stored, inputs).await {
                Err(Error::Tracking(Tracking::Conflict | Tracking::Contended)) => {}
                outcome => return outcome.map(Some),
            }
        }
        Err(Error::Raced)
    }

    /// Takes an input in over the version that was read; a conflict says that it was not the newest.
    pub(crate) async fn apply_to(&self, stored: &Stored, input: Input) -> Result<Stored, Error> {
        self.apply_each_to(stored, std::slice::from_ref(&input))
            .await
    }

    /// The same with several inputs, one after the other.
    async fn apply_each_to(&self, stored: &Stored, inputs: &[Input]) -> Result<Stored, Error> {
        let clocks = &self.configuration.clocks;
        let now = self.now();
        let mut transfer = stored.transfer.clone();
        let mut what = Vec::new();
        for input in inputs {
            let before = transfer.clone();
            transfer.apply(input.clone(), now, clocks);
            what.extend(entries(Some(&before), &transfer, input));
        }
        if transfer == stored.transfer {
            return Ok(stored.clone());
        }
        let told = Told { at: now, what };
        let saved = self.store.save(stored, transfer, &told, clocks).await?;
        if saved.transfer.phase.as_str() != stored.transfer.phase.as_str() {
            tracing::info!(
                transfer.id = %saved.transfer.id,
                tenant.id = %saved.transfer.tenant,
                transfer.phase = saved.transfer.phase.as_str(),
                "A transfer changed its phase."
            );
            self.say_later_phase_over(&saved.transfer).await;
        }
        Ok(saved)
    }

    /// Does everything that is owed to a transfer now. Returns its state, or none when it is not known.
    pub async fn drive(
        &self,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<Option<Transfer>, Error> {
        match self.store.transfer(tenant, id).await? {
            Some(stored) => self.drive_on(stored).await,
            None => Ok(None),
        }
    }

    /// The same from a state on that was just read, or written.
    pub(crate) async fn drive_on(&self, mut stored: Stored) -> Result<Option<Transfer>, Error> {
        let (tenant, id) = &(stored.transfer.tenant.clone(), stored.transfer.id.clone());
        for _ in 0..STEPS_MAX {
            let step = stored
                .transfer
                .next_step(self.now(), &self.configuration.clocks);
            if step == Step::Wait {
                break;
            }
            match self.step(&stored, step.clone()).await {
                Ok(Done::Input(input)) => {
                    // The state may have moved since it was read; what was found out is taken in all the same.
                    let Some(next) = self.apply(tenant, id, &input).await? else {
                        return Ok(None);
                    };
                    stored = next;
                }
                Ok(Done::Inputs(inputs)) => {
                    let Some(next) = self.apply_each(tenant, id, &inputs).await? else {
                        return Ok(None);
                    };
                    stored = next;
                }
                Ok(Done::Stored(next)) => stored = *next,
                Ok(Done::Stop) => break,
                Err(Error::Tracking(Tracking::Conflict | Tracking::Contended)) => {
                    let Some(next) = self.store.transfer(tenant, id).await? else {
                        return Ok(None);
                    };
                    stored = next;
                }
                // Nobody to ask, until a person has mended the configuration: the transfer's other clocks go on meanwhile.
                Err(error) => {
                    let Some(code) = error.code() else {
                        return Err(error);
                    };
                    tracing::error!(error.code = code, transfer.id = %id, tenant.id = %tenant, error = %error, "The transfer's site can't be called.");
                    if matches!(error, Error::NoToken) {
                        // Whoever looks at the transfer reads it; of several looks in vain the first is told.
                        let missing = Input::TokenLooked { good_until: None };
                        self.apply(tenant, id, &missing).await?;
                    } else if stored.transfer.held_back_until.is_none() {
                        let needed = What::PersonNeeded {
                            code: code.to_owned(),
                            problem: error.to_string(),
                        };
                        self.tell(tenant, id, needed, None).await;
                    }
                    let answers = matches!(step, Step::Answer | Step::Settle)
                        && stored.transfer.messages.is_some();
                    let held_back = if answers {
                        Input::AnswersNotTaken { retry_after: None }
                    } else {
                        Input::PlatformUnavailable { retry_after: None }
                    };
                    let Some(next) = self.apply(tenant, id, &held_back).await? else {
                        return Ok(None);
                    };
                    stored = next;
                }
            }
        }
        Ok(Some(stored.transfer))
    }

    async fn step(&self, stored: &Stored, step: Step) -> Result<Done, Error> {
        let transfer = &stored.transfer;
        match step {
            Step::Wait => Ok(Done::Stop),
            Step::Stop(reason) => Ok(Done::Input(Input::Stop(reason))),
            Step::CountFiles => {
                let (counted, _) = self.count_files(transfer).await?;
                Ok(Done::Input(counted))
            }
            Step::CheckCompleteness => self.check_completeness(transfer).await,
            Step::FenceFiles => {
                let (totals, leased_until) = self
                    .store
                    .fence_files(&transfer.tenant, &transfer.id, self.now())
                    .await?;
                Ok(Done::Input(Input::FilesFenced {
                    totals,
                    leased_until,
                }))
            }
            Step::Settle if transfer.messages.is_some() => self.answer_all(stored).await,
            Step::Settle => self.settle(stored).await,
            Step::Confirm => self.confirm(transfer).await,
            Step::Reconcile => self.reconcile(transfer).await,
            Step::Answer => self.answer_one(stored).await,
            Step::Warn => self.warn(transfer).await,
            Step::BeginSecondPhase => self.begin_second_phase(transfer).await,
            Step::LookForToken => self.look_for_token(transfer).await,
            Step::Report => {
                self.report(stored, 0).await?;
                Ok(Done::Stop)
            }
        }
    }

    /// Reads the rows of a transfer's files, and counts them.
    async fn count_files(&self, transfer: &Transfer) -> Result<(Input, Vec<File>), Error> {
        let at = self.now();
        let files = self.store.files(&transfer.tenant, &transfer.id).await?;
        let totals = totals(&files);
        Ok((Input::FilesCounted { totals, at }, files))
    }

    /// Counts the files of a transfer that is there, and writes the state that follows.
    async fn count(&self, stored: Stored) -> Result<Stored, Error> {
        let transfer = &stored.transfer;
        let (counted, _) = self.count_files(transfer).await?;
        let counted = self.apply(&transfer.tenant, &transfer.id, &counted).await?;
        Ok(counted.unwrap_or(stored))
    }

    /// A transfer as it is once this count is taken in.
    fn counted(&self, transfer: &Transfer, count: &Input) -> Transfer {
        let mut counted = transfer.clone();
        counted.apply(count.clone(), self.now(), &self.configuration.clocks);
        counted
    }

    /// A file has ended, which only its own row says: counts the files of its transfer where that may be over with it, and does what is owed then. Whoever
    /// ends the last open file sees all others ended. Doing it again changes nothing; where nobody does it, the sweeper counts them in time.
    pub async fn file_ended(&self, file: &File, outcome: &FileOutcome) -> Result<(), Error> {
        let (tenant, id) = (&file.tenant, &file.transfer);
        // Read after the file has ended: what is known of the transfer by now is not older than that.
        let Some(mut stored) = self.store.transfer(tenant, id).await? else {
            return Ok(());
        };
        if let Some(reported) = self.report(&stored, 0).await? {
            stored = reported;
        }
        let is_manifest =
            file.label.as_deref() == Some(&*self.configuration.completeness.manifest_label);
        let mut all_ended = false;
        if is_manifest || matches!(outcome, FileOutcome::Poisoned { .. }) {
            // Only from now on can others read that the transfer may be over with its files. Who has ended one before has not looked, so this one looks once more.
            stored = self.count(stored).await?;
            all_ended = stored.transfer.work.files_open() == 0;
        }
        let transfer = &stored.transfer;
        if !all_ended
            && transfer.is_open()
            && transfer.ends_with_its_files()
            && !self.store.has_open_file(tenant, id, &file.s3_key).await?
        {
            stored = self.count(stored).await?;
        }
        self.drive_on(stored).await.map(drop)
    }

    /// A message asks for a file that is done with: perhaps its worker has ended it and died before it did what that makes due.
    pub async fn ended_before(&self, file: &File) -> Result<(), Error> {
        match &file.outcome {
            Some(outcome) => self.file_ended(file, outcome).await,
            None => Ok(()),
        }
    }

    /// Tells the admin how far a transfer is, if a report is allowed now. `in_flight` is the share of the current file, in thousandths. Returns the transfer as it stands
    /// then, where it was written and nobody else is known to have.
    pub async fn report(&self, stored: &Stored, in_flight: u32) -> Result<Option<Stored>, Error> {
        if !stored
            .transfer
            .may_report(self.now(), &self.configuration.clocks)
        {
            return Ok(None);
        }
        let (count, _) = self.count_files(&stored.transfer).await?;
        let transfer = &self.counted(&stored.transfer, &count);
        let report = transfer.report(in_flight);
        let percent = report.percent;
        // Written first: of all workers and sweepers one sends, and the percent never falls whoever is next.
        let written = match self
            .apply_each_to(stored, &[count, Input::Reporting { percent }])
            .await
        {
            Ok(written) => written,
            Err(Error::Tracking(Tracking::Conflict | Tracking::Contended)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let site = self.site(&transfer.tenant).await?;
        let outcome = site.report(&transfer.id, &report).await;
        let reported = What::ProgressReported {
            percent: report.percent,
            taken: outcome.is_ok(),
        };
        self.tell(&transfer.tenant, &transfer.id, reported, None)
            .await;
        if let Err(error) = outcome {
            tracing::info!(transfer.id = %transfer.id, error = %error, "A progress update was not taken; the next one follows.");
            if error.may_be_over() {
                self.look_whether_over(transfer, &site).await?;
                return Ok(None);
            }
        }
        Ok(Some(written))
    }

    /// A call was answered as if the transfer were over: believed only when the platform lists it no more, or, where it has no list, says of its files that it is settled.
    pub async fn look_whether_over(&self, transfer: &Transfer, site: &Site) -> Result<bool, Error> {
        if transfer.messages.is_some() {
            let is_over = match site.files(&transfer.id).await {
                Err(error) => error.says_settled(),
                Ok(_) => false,
            };
            if is_over {
                let over = Input::PlatformSettled { status: None };
                self.apply(&transfer.tenant, &transfer.id, &over).await?;
            }
            return Ok(is_over);
        }
        match site.recent().await {
            Ok(recent) if listing(&recent, &transfer.id).0 == Listing::Absent => {
                let over = Input::PlatformSettled { status: None };
                self.apply(&transfer.tenant, &transfer.id, &over).await?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => {
                tracing::info!(transfer.id = %transfer.id, error = %error, "The list of active transfers could not be read.");
                Ok(false)
            }
        }
    }

    /// The site of a transfer that is being settled.
    pub(crate) async fn site_to_settle(&self, transfer: &Transfer) -> Result<Site, Error> {
        let pressing = transfer.is_pressing(self.now(), &self.configuration.clocks);
        Ok(self.site(&transfer.tenant).await?.pressing(pressing))
    }

    async fn settle(&self, stored: &Stored) -> Result<Done, Error> {
        let site = self.site_to_settle(&stored.transfer).await?;
        // The attempt is written before it is made. Whoever loses this race leaves the sending to the other.
        let begun = if is_planted(SeededBug::AttemptNotWritten) {
            stored.clone()
        } else {
            self.apply_to(stored, Input::SettlementBegun).await?
        };
        let Phase::Settling(settlement) = &begun.transfer.phase else {
            return Ok(Done::Stop);
        };
        let transfer = &begun.transfer;
        let percent = settlement.form.percent(transfer.last_percent);
        let mut verdict = Cow::Borrowed(&settlement.verdict);
        if is_planted(SeededBug::VerdictReworded) {
            verdict.to_mut().message += &settlement.attempts.to_string();
        }
        let answer = match site.settle(&transfer.id, &verdict, percent).await {
            Ok(answer) => answer,
            Err(error) => {
                let not_taken = Input::SettlementAnswered(Answer::NotTaken { retry_after: None });
                self.apply(&transfer.tenant, &transfer.id, &not_taken)
                    .await?;
                return Ok(Done::Input(unavailable(transfer, &site, &error)));
            }
        };
        tracing::info!(
            transfer.id = %transfer.id,
            transfer.verdict = settlement.verdict.status.as_str(),
            transfer.cause = settlement.verdict.cause.as_str(),
            settlement.attempt = settlement.attempts,
            settlement.form = ?settlement.form,
            settlement.answer = ?answer,
            "Sent the settlement."
        );
        Ok(Done::Input(Input::SettlementAnswered(answer)))
    }

    /// Looks whether the platform still has a transfer as active.
    async fn confirm(&self, transfer: &Transfer) -> Result<Done, Error> {
        let site = self.site_to_settle(transfer).await?;
        let listed = match site.recent().await {
            Ok(recent) => listing(&recent, &transfer.id).0,
            Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
        };
        if listed != Listing::Full {
            return Ok(Done::Input(Input::Listed(listed)));
        }
        // A full list proves nothing about what it lacks; but the files of a transfer that is over can't be listed.
        Ok(Done::Input(match site.files(&transfer.id).await {
            Ok(_) => Input::Listed(Listing::Active),
            Err(error) if error.may_be_over() => Input::Listed(Listing::Absent),
            Err(error) => unavailable(transfer, &site, &error),
        }))
    }

    async fn check_completeness(&self, transfer: &Transfer) -> Result<Done, Error> {
        // A manifest names every file itself; in every other case a lost event would be a lost file.
        if transfer.is_later_phase() {
            // However often: what is announced already stays as it is.
            self.announce_staged(transfer).await?;
        } else if transfer.needs_file_list() {
            let site = self.site(&transfer.tenant).await?;
            match site.files(&transfer.id).await {
                Ok(listed) => {
                    let adopted = self.adopt_files(transfer, &listed).await?;
                    self.say_unannounced(transfer, &site, adopted).await;
                }
                Err(error) if error.may_be_over() => {
                    if self.look_whether_over(transfer, &site).await? {
                        return Ok(Done::Stop);
                    }
                    return Ok(Done::Input(unavailable(transfer, &site, &error)));
                }
                Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
            }
        }
        let (count, files) = self.count_files(transfer).await?;
        // A file that has moved since the last count may have broken a silence.
        let counted = self.counted(transfer, &count);
        let evidence = counted.evidence(self.now(), &self.configuration.clocks);
        let found = self.completeness(transfer, &files, evidence);
        if matches!(
            found,
            Completeness::Complete {
                evidence: Evidence::FileList,
                ..
            }
        ) {
            // The weakest evidence: an exporter that failed is quiet, too.
            let site = self.site(&transfer.tenant).await?;
            match self.lost_listener_error(transfer, &site).await {
                Ok(Some(errored)) => return Ok(Done::Input(errored)),
                Ok(None) => {}
                Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
            }
        }
        let found = match found {
            Completeness::Complete { evidence, missing } => {
                Input::ExportComplete { evidence, missing }
            }
            Completeness::Waiting(waiting_for) => incomplete(waiting_for, &files),
        };
        Ok(Done::Inputs(vec![count, found]))
    }

    /// Whether the export is complete by this evidence, as its files, their labels and its manifest have it.
    pub(crate) fn completeness(
        &self,
        transfer: &Transfer,
        files: &[File],
        evidence: Option<Evidence>,
    ) -> Completeness {
        let known: Vec<FileFacts> = files
            .iter()
            .filter(|file| counts_for_completeness(file))
            .map(facts)
            .collect();
        // What a later phase is to import was decided by the first.
        let counted_labels =
            self.configuration.completeness.counted_labels && !transfer.is_later_phase();
        evaluate(&ExportFacts {
            files: &known,
            manifest: files.iter().find_map(|file| file.manifest.as_ref()),
            counted_labels,
            evidence,
        })
    }

    /// A worker that was fenced off has stopped. Whoever waited for its lease need not wait any longer.
    pub async fn worker_stopped(
        &self,
        lease: &Lease,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<(), Error> {
        self.store.stopped(lease).await?;
        let Some(stored) = self.store.transfer(tenant, id).await? else {
            return Ok(());
        };
        if matches!(stored.transfer.phase, Phase::Stopping { .. }) {
            let (totals, leased_until) = self.store.fence_files(tenant, id, self.now()).await?;
            self.apply(
                tenant,
                id,
                &Input::FilesFenced {
                    totals,
                    leased_until,
                },
            )
            .await?;
            self.drive(tenant, id).await?;
        }
        Ok(())
    }

    /// Asks for a file's import.
    pub async fn queue_import(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        s3_key: &str,
        delay: Duration,
    ) -> Result<(), Error> {
        let task = Task::Import {
            transfer: id.clone(),
            s3_key: s3_key.to_owned(),
        };
        Ok(self
            .imports
            .send(&Message::new(tenant.clone(), task), delay)
            .await?)
    }

    /// Appends what no new state tells. Losing such an entry is worth a log line, not the work it tells of.
    pub async fn tell(&self, tenant: &TenantId, id: &TransferId, what: What, cause: Option<&str>) {
        let entry = Entry::new(self.now(), self.store.actor(), what);
        let entry = match cause {
            Some(cause) => entry.caused_by(cause),
            None => entry,
        };
        if let Err(error) = self.store.append(tenant, id, &entry).await {
            tracing::warn!(transfer.id = %id, error = %error, "An entry of the timeline was lost.");
        }
    }
}

/// What an answer that says nothing about the transfer means for it: ask again later, or never, when the app is gone from the site.
pub(crate) fn unavailable(transfer: &Transfer, site: &Site, error: &CallError) -> Input {
    if error.says_settled() {
        return Input::PlatformSettled { status: None };
    }
    if site.is_lost(error) {
        tracing::warn!(transfer.id = %transfer.id, "The app was uninstalled and its token is not accepted; the transfer is closed.");
        return Input::PlatformSettled { status: None };
    }
    tracing::warn!(transfer.id = %transfer.id, error = %error, "The platform could not be asked; it is asked again later.");
    Input::PlatformUnavailable {
        retry_after: error.retry_after(),
    }
}

/// More must come, as a look at these files found.
pub(crate) fn incomplete(waiting_for: String, files: &[File]) -> Input {
    let ended = files.iter().filter(|file| file.state == FileState::Ended);
    Input::ExportIncomplete {
        waiting_for,
        files_ended: ended.count() as u64,
    }
}

/// The manifest itself, and files that nobody will import, say nothing about completeness.
fn counts_for_completeness(file: &File) -> bool {
    file.manifest.is_none() && file.state != FileState::Dropped
}

fn facts(file: &File) -> FileFacts {
    FileFacts {
        label: file.label.clone(),
        ended: file.state == FileState::Ended,
        unreadable: matches!(
            file.outcome,
            Some(FileOutcome::Unreadable { .. } | FileOutcome::Poisoned { .. })
        ),
        read: file.counts.read,
        measure: file.measure.clone(),
    }
}
