use std::time::Duration;

use landfall_import::ports::Sink;
use landfall_import::sink::s3::{S3Sink, StagedFile};
use landfall_import::{
    Checkpoint, Import, Imports, Interruption, Ports, SliceOutcome, Target, import_slice,
};
use landfall_lifecycle::{Error, Site, manifest};
use landfall_tracking::{Claim, Claimed, Ending, Error as Tracking, Found};
use landfall_transfer::clocks::own::INVOCATION_MARGIN;
use landfall_transfer::timeline::What;
use landfall_transfer::{
    ChainId, Counts, FileOutcome, Input, TenantId, Timestamp, Transfer, TransferId,
};

use crate::Processor;
use crate::ports::{ExportedFile, FileLedger, FileSource, SiteMappings, SiteOperations, ending};
use crate::sink::{FileSink, Outside, StageBucket};

/// Largest manifest, in bytes. 10,000 files with labels of 300 characters fit.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;

impl<K: Sink, B: StageBucket> Processor<K, B> {
    /// Imports one slice of a file, whose row and transfer may have been `found` just now, and sees to what follows.
    pub(crate) async fn file(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
        found: Option<&Found>,
        owner: &str,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let configuration = self.lifecycle.configuration();
        let now = self.lifecycle.now();
        let lease = configuration.work.lease;
        let store = self.lifecycle.store();
        let claim = match found {
            Some(found) => store.claim_found(found, owner, lease, now).await?,
            None => {
                store
                    .claim(tenant, transfer, s3_key, owner, lease, now)
                    .await?
            }
        };
        match claim {
            Claim::Claimed(claimed) => self.claimed(&claimed, now, deadline).await,
            Claim::Held(until) => {
                // Whoever has it goes on with it; if that worker dies, the file becomes due and the sweeper queues it.
                tracing::info!(transfer.id = %transfer, file.key = s3_key, file.held_until_ms = until.as_millis(), "Another worker has this file.");
                Ok(())
            }
            Claim::Waits { until, counts } => {
                self.waits(tenant, transfer, s3_key, until, counts).await
            }
            Claim::Ended(file) => self.lifecycle.ended_before(&file).await,
            Claim::Over => {
                tracing::info!(transfer.id = %transfer, file.key = s3_key, "The transfer takes no work any more; the file is left alone.");
                Ok(store.drop_file(tenant, transfer, s3_key).await?)
            }
            Claim::Unknown => {
                tracing::warn!(transfer.id = %transfer, file.key = s3_key, "Nothing is known of this file; the message is let go.");
                Ok(())
            }
        }
    }

    async fn claimed(
        &self,
        claimed: &Claimed,
        start: Timestamp,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let configuration = self.lifecycle.configuration();
        let (file, lease) = (&claimed.file, &claimed.lease);
        let allowed = u64::from(configuration.import.limits.attempts_without_progress);
        if file.attempts > allowed {
            let reason = format!(
                "file {} stopped {allowed} workers in a row without any progress",
                file.label.as_deref().unwrap_or("without a label")
            );
            let poisoned = Ending::new(FileOutcome::Poisoned { reason }, file.counts);
            return self.end(claimed, &poisoned).await;
        }
        let end = (start + configuration.work.slice).min(deadline - INVOCATION_MARGIN);
        let work = end.since(start);
        if claimed.transfer.staging.is_some() && self.stage.is_none() {
            return self.without_stage(claimed).await;
        }
        let (site, source) =
            if let (true, Some(stage)) = (claimed.transfer.is_later_phase(), &self.stage) {
                // The platform knows nothing of it, and need not be called.
                (None, FileSource::staged(staged_file(stage, claimed)))
            } else {
                let site = match self.site(&claimed.transfer, work).await {
                    // Longer than the slice's own work: what it has read already it may still wait to look up, and commit.
                    Ok(site) => site.patient_until(
                        (end + self.retry_pause())
                            .min(start + configuration.work.lease)
                            .min(deadline - INVOCATION_MARGIN),
                    ),
                    Err(error) => return self.without_site(claimed, &error).await,
                };
                let exported = ExportedFile::new(
                    site.clone(),
                    self.lifecycle.clock().clone(),
                    file.transfer.clone(),
                    file.s3_key.clone(),
                );
                (Some(site), FileSource::Exported(Box::new(exported)))
            };
        let site = site.as_ref();
        let outcome = if file.label.as_deref() == Some(&configuration.completeness.manifest_label) {
            return self.manifest(claimed, &source).await;
        } else {
            self.slice(claimed, site, &source, end).await
        };
        match outcome {
            Sliced::Ended(ending) => self.end(claimed, &ending).await,
            Sliced::Closed(ending) => self.ended(claimed, &ending).await,
            Sliced::Continue(checkpoint) => self.go_on(claimed, &checkpoint, &source).await,
            Sliced::ReadAgain(counts) => self.read_again(claimed, counts).await,
            Sliced::Interrupted {
                reason,
                retry_after,
                checkpoint,
                moved,
            } => {
                if moved {
                    self.moved(claimed, &checkpoint, &source).await?;
                }
                self.interrupted(claimed, site, &source, &reason, retry_after)
                    .await
            }
            Sliced::FenceLost => {
                tracing::info!(transfer.id = %file.transfer, file.key = %file.s3_key, file.fence = lease.fence(), "The file belongs to somebody else now; this worker stops.");
                self.lifecycle
                    .worker_stopped(lease, &file.tenant, &file.transfer)
                    .await
            }
        }
    }

    /// The file's site, as the import needs it: for so long, and with the product's own API where the sink writes there.
    async fn site(&self, transfer: &Transfer, work: Duration) -> Result<Site, Error> {
        let site = self.lifecycle.site_for(&transfer.tenant, work).await?;
        if matches!(self.sink, Some(Outside::Jira)) && !transfer.is_staged() {
            site.has_product_api()?;
        }
        Ok(site)
    }

    /// Not the file's fault, so no delivery of its message is used up, and nothing of it is lost.
    async fn without_site(&self, claimed: &Claimed, error: &Error) -> Result<(), Error> {
        let file = &claimed.file;
        let reason = match error {
            Error::NoToken => "the app waits for a token of the platform's",
            Error::NoProductApi(_) => "the product's API can't be called",
            _ => "the site can't be called",
        };
        if let Error::NoProductApi(_) = error {
            tracing::error!(error.code = error.code(), transfer.id = %file.transfer, tenant.id = %file.tenant, file.key = %file.s3_key, error = %error, "The product's API can't be called, and the sink writes there; it is tried again later.");
        } else {
            tracing::warn!(transfer.id = %file.transfer, file.key = %file.s3_key, error = %error, "The file's site can't be called; it is tried again later.");
        }
        self.stalled(claimed, reason.to_owned()).await?;
        self.give_back(claimed, self.retry_pause()).await
    }

    /// The transfer is a staged one, and this deployment has no bucket any more: its files wait for one.
    async fn without_stage(&self, claimed: &Claimed) -> Result<(), Error> {
        let file = &claimed.file;
        tracing::error!(error.code = "LF-NO-STAGE", transfer.id = %file.transfer, tenant.id = %file.tenant, file.key = %file.s3_key, "The transfer is staged in a bucket, and LANDFALL_SINK_BUCKET names none; it is tried again later.");
        self.stalled(claimed, "the app's own store can't be reached".to_owned())
            .await?;
        self.give_back(claimed, self.retry_pause()).await
    }

    const fn imports_of(&self, transfer: &Transfer) -> &Imports {
        if transfer.is_later_phase() {
            &self.staged_imports
        } else {
            &self.imports
        }
    }

    /// Where the records of a file go; none for the records table.
    fn sink_of<'a>(
        &'a self,
        transfer: &Transfer,
        import: &'a Import,
        operations: SiteOperations<'a, B>,
    ) -> Option<FileSink<'a, K, B>> {
        match &self.stage {
            Some(stage) if transfer.is_staged() => Some(FileSink::S3(stage)),
            _ => self
                .sink
                .as_ref()
                .map(|outside| outside.of(import, operations)),
        }
    }

    /// Imports until the slice's time is up, which is at `end`.
    async fn slice(
        &self,
        claimed: &Claimed,
        site: Option<&Site>,
        source: &FileSource<B>,
        end: Timestamp,
    ) -> Sliced {
        let configuration = self.lifecycle.configuration();
        let file = &claimed.file;
        let label = file.label.as_deref().unwrap_or_default();
        let transfer = &claimed.transfer;
        let import = match self.imports_of(transfer).of(label) {
            Ok(import) => import,
            Err(error) => return Sliced::unreadable(&error, file.counts),
        };
        let checkpoint = match file
            .checkpoint
            .as_deref()
            .map_or_else(|| Ok(Checkpoint::start()), Checkpoint::decode)
        {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Sliced::unreadable(&error, file.counts),
        };
        let ledger = FileLedger::new(&self.lifecycle, claimed, label);
        let (cache, earlier) = self.known_mappings(transfer, file.again_at);
        let mappings = SiteMappings::new(site, &self.lifecycle, transfer, &earlier);
        let operations = SiteOperations {
            site,
            clock: self.lifecycle.clock(),
            transfer: &file.transfer,
            source,
        };
        let sink = self.sink_of(transfer, import, operations);
        let ports = Ports {
            source,
            ledger: &ledger,
            mappings: &mappings,
            mapping_cache: &cache,
            target: sink.as_ref().map_or(Target::Ledger, Target::Sink),
        };
        let chain = chain_of(transfer);
        let described = landfall_import::File {
            tenant: file.tenant.as_str(),
            transfer: file.transfer.as_str(),
            chain: chain.as_str(),
            label,
            key: &file.s3_key,
            import,
            // What earlier attempts have landed is not in the stage of this one.
            rerun: transfer.is_rerun() && !transfer.is_staged(),
        };
        let out_of_time = || self.lifecycle.now() >= end;
        let read_before = match &checkpoint.second {
            Some(second) => second.counts.read,
            None => file.counts.read,
        };
        match import_slice(
            &described,
            checkpoint,
            &ports,
            &configuration.import.limits,
            &out_of_time,
        )
        .await
        {
            SliceOutcome::Finished {
                counts,
                problem,
                measure,
            } => {
                let ending = ending(label, counts, problem, measure);
                if ledger.has_ended() {
                    Sliced::Closed(ending)
                } else {
                    Sliced::Ended(ending)
                }
            }
            SliceOutcome::Continue(checkpoint) => Sliced::Continue(checkpoint),
            SliceOutcome::ReadAgain(checkpoint) => Sliced::ReadAgain(checkpoint.counts),
            SliceOutcome::Interrupted {
                reason,
                retry_after,
                checkpoint,
            } => {
                let read = match &checkpoint.second {
                    Some(second) => second.counts.read,
                    None => checkpoint.counts.read,
                };
                Sliced::Interrupted {
                    reason,
                    retry_after,
                    checkpoint,
                    moved: read > read_before,
                }
            }
            SliceOutcome::FenceLost => Sliced::FenceLost,
        }
    }

    /// The slice's time is up: reports, gives the file back and asks for its next slice.
    async fn go_on(
        &self,
        claimed: &Claimed,
        checkpoint: &Checkpoint,
        source: &FileSource<B>,
    ) -> Result<(), Error> {
        let file = &claimed.file;
        tracing::info!(
            transfer.id = %file.transfer,
            file.key = %file.s3_key,
            file.offset_bytes = checkpoint.offset,
            records.read = checkpoint.counts.read,
            "A slice of a file is imported."
        );
        self.moved(claimed, checkpoint, source).await?;
        self.give_back(claimed, Duration::ZERO).await
    }

    /// The file was read to its end with records held: gives it back until they are asked again. When that is was committed with it.
    async fn read_again(&self, claimed: &Claimed, counts: Counts) -> Result<(), Error> {
        let file = &claimed.file;
        let stored = self.lifecycle.store();
        let Some(until) = stored
            .file(&file.tenant, &file.transfer, &file.s3_key)
            .await?
            .and_then(|file| file.again_at)
        else {
            return self.give_back(claimed, self.retry_pause()).await;
        };
        tracing::info!(
            transfer.id = %file.transfer,
            file.key = %file.s3_key,
            records.held = counts.held,
            file.again_at_ms = until.as_millis(),
            "A file was read to its end; its held records are asked again later."
        );
        self.asked_again_later(&file.tenant, &file.transfer, &file.s3_key, until, counts)
            .await?;
        self.give_back(claimed, self.pause_until(until)).await
    }

    /// Somebody took the file up before its held records are asked again: the message comes again then.
    async fn waits(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
        until: Timestamp,
        counts: Counts,
    ) -> Result<(), Error> {
        let (store, work) = (self.lifecycle.store(), &self.lifecycle.configuration().work);
        // The worker that ended the first pass may have died before it said so, or given the file back for too short a time.
        self.asked_again_later(tenant, transfer, s3_key, until, counts)
            .await?;
        store
            .put_off(tenant, transfer, s3_key, until, until + work.message_grace)
            .await?;
        self.lifecycle
            .queue_import(tenant, transfer, s3_key, self.pause_until(until))
            .await
    }

    async fn asked_again_later(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
        at: Timestamp,
        counts: Counts,
    ) -> Result<(), Error> {
        let later = Input::AskedAgainLater {
            file: s3_key.to_owned(),
            counts,
            at,
        };
        let told = self.lifecycle.apply(tenant, transfer, &later).await?;
        if let Some(stored) = told {
            self.lifecycle.report(&stored, 0).await?;
        }
        Ok(())
    }

    /// The pause until an instant, in whole seconds as queues count them, and never too short.
    fn pause_until(&self, instant: Timestamp) -> Duration {
        let pause = instant.since(self.lifecycle.now());
        Duration::from_secs(
            pause
                .as_millis()
                .div_ceil(1_000)
                .try_into()
                .unwrap_or(u64::MAX),
        )
    }

    async fn interrupted(
        &self,
        claimed: &Claimed,
        site: Option<&Site>,
        source: &FileSource<B>,
        reason: &Interruption,
        retry_after: Option<Duration>,
    ) -> Result<(), Error> {
        let file = &claimed.file;
        tracing::warn!(transfer.id = %file.transfer, file.key = %file.s3_key, error = %reason, "The import of a file was interrupted; it goes on later.");
        self.stalled(claimed, reason.to_string()).await?;
        let pause = retry_after.unwrap_or_default().max(self.retry_pause());
        self.give_back(claimed, pause).await?;
        if let (true, Some(site)) = (source.was_refused(), site) {
            self.lifecycle
                .look_whether_over(&claimed.transfer, site)
                .await?;
            self.lifecycle.drive(&file.tenant, &file.transfer).await?;
        }
        Ok(())
    }

    /// Work has moved: the transfer is not stuck, and the admin may be told.
    async fn moved(
        &self,
        claimed: &Claimed,
        checkpoint: &Checkpoint,
        source: &FileSource<B>,
    ) -> Result<(), Error> {
        let (file, counts) = (&claimed.file, checkpoint.counts);
        let moved = Input::WorkMoved {
            file: file.s3_key.clone(),
            counts,
        };
        if checkpoint.second.is_some() {
            // The counts stay as they were, so the new state wouldn't tell it.
            let committed = What::SliceCommitted {
                file: file.s3_key.clone(),
                counts,
            };
            self.lifecycle
                .tell(&file.tenant, &file.transfer, committed, None)
                .await;
        }
        let moved = self
            .lifecycle
            .apply(&file.tenant, &file.transfer, &moved)
            .await?;
        if let Some(stored) = moved {
            let in_flight = source.share_done(checkpoint.offset);
            self.lifecycle.report(&stored, in_flight).await?;
        }
        Ok(())
    }

    /// Work can't go on for now: the admin is told why, and so is the verdict if it never does.
    async fn stalled(&self, claimed: &Claimed, reason: String) -> Result<(), Error> {
        let file = &claimed.file;
        let stalled = Input::WorkStalled { reason };
        self.lifecycle
            .apply(&file.tenant, &file.transfer, &stalled)
            .await
            .map(drop)
    }

    fn retry_pause(&self) -> Duration {
        self.lifecycle.configuration().clocks.retry_pause
    }

    /// Gives the file back and queues it again, with a pause. Whichever of the two a crash leaves out, the due index makes good.
    async fn give_back(&self, claimed: &Claimed, pause: Duration) -> Result<(), Error> {
        let (file, lease) = (&claimed.file, &claimed.lease);
        let due = self.lifecycle.now() + pause + self.lifecycle.configuration().work.message_grace;
        match self.lifecycle.store().release(lease, due, true).await {
            Ok(()) => {}
            Err(Tracking::Conflict) => {
                return self
                    .lifecycle
                    .worker_stopped(lease, &file.tenant, &file.transfer)
                    .await;
            }
            Err(error) => return Err(error.into()),
        }
        self.lifecycle
            .queue_import(&file.tenant, &file.transfer, &file.s3_key, pause)
            .await
    }

    /// The file has ended: writes that, and does what it makes due.
    async fn end(&self, claimed: &Claimed, ending: &Ending) -> Result<(), Error> {
        let (file, lease) = (&claimed.file, &claimed.lease);
        let now = self.lifecycle.now();
        let clocks = &self.lifecycle.configuration().clocks;
        let ended = self
            .lifecycle
            .store()
            .end(lease, ending, now, clocks)
            .await?;
        if !ended {
            return self
                .lifecycle
                .worker_stopped(lease, &file.tenant, &file.transfer)
                .await;
        }
        self.ended(claimed, ending).await
    }

    /// The file has ended, and that is written: says so, and does what it makes due.
    async fn ended(&self, claimed: &Claimed, ending: &Ending) -> Result<(), Error> {
        let (file, counts) = (&claimed.file, ending.counts);
        tracing::info!(
            transfer.id = %file.transfer,
            file.key = %file.s3_key,
            records.read = counts.read,
            records.applied = counts.applied,
            records.unchanged = counts.unchanged,
            records.held = counts.held,
            records.rejected = counts.rejected,
            "A file has ended."
        );
        self.lifecycle.file_ended(file, &ending.outcome).await
    }

    /// Reads the exporter's manifest; one that can't be used is a file that could not be read.
    async fn manifest(&self, claimed: &Claimed, source: &FileSource<B>) -> Result<(), Error> {
        let file = &claimed.file;
        let unreadable =
            |reason| Ending::new(FileOutcome::Unreadable { reason }, Counts::default());
        let bytes = match source.read_whole(MANIFEST_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let reason = format!("the manifest is larger than {MANIFEST_BYTES} bytes");
                return self.end(claimed, &unreadable(reason)).await;
            }
            Err(error) => {
                tracing::warn!(transfer.id = %file.transfer, error = %error, "The manifest could not be fetched; it is fetched again later.");
                self.stalled(claimed, format!("the manifest can't be fetched: {error}"))
                    .await?;
                return self.give_back(claimed, self.retry_pause()).await;
            }
        };
        match manifest::read(&bytes) {
            Ok(manifest) => {
                let imported = Ending {
                    manifest: Some(manifest),
                    ..Ending::new(FileOutcome::Imported, Counts::default())
                };
                self.end(claimed, &imported).await
            }
            Err(reason) => self.end(claimed, &unreadable(reason)).await,
        }
    }
}

/// The chain, as the sink is told. A stage must find a file again whenever a transfer learns of its chain, so there each transfer has one of its own.
fn chain_of(transfer: &Transfer) -> ChainId {
    if transfer.is_staged() {
        ChainId::new(transfer.id.as_str())
    } else {
        transfer.chain()
    }
}

/// The file of a later phase, as the first phase has stored it.
fn staged_file<B: StageBucket>(stage: &S3Sink<B>, claimed: &Claimed) -> StagedFile<B> {
    let file = &claimed.file;
    let first = file.transfer.first_phase();
    let import = Import::default();
    stage.staged(&landfall_import::File {
        tenant: file.tenant.as_str(),
        transfer: first.as_str(),
        chain: first.as_str(),
        label: file.label.as_deref().unwrap_or_default(),
        key: &file.s3_key,
        import: &import,
        rerun: false,
    })
}

/// What became of a slice, in the processor's terms.
enum Sliced {
    /// The file is to be ended so.
    Ended(Ending),
    /// The last commit has ended it so.
    Closed(Ending),
    Continue(Checkpoint),
    /// These are the file's counts until its second pass has ended.
    ReadAgain(Counts),
    Interrupted {
        reason: Interruption,
        retry_after: Option<Duration>,
        checkpoint: Checkpoint,
        /// Whether records were committed before.
        moved: bool,
    },
    FenceLost,
}

impl Sliced {
    fn unreadable(error: &impl ToString, counts: Counts) -> Self {
        let reason = error.to_string();
        Self::Ended(Ending::new(FileOutcome::Unreadable { reason }, counts))
    }
}
