//! Staged transfers: their records are in a bucket of the partner's when the platform is told so, and a second phase brings them into the target.
//!
//! It is a transfer of its own, of which the platform knows nothing: its files are those that the first phase has stored whole, and it has all that other
//! transfers have, from leases to the receipt.

use std::collections::HashSet;
use std::time::Duration;

use landfall_tracking::{Attempt, File, FileState, NewFile, Recorded, Stored};
use landfall_transfer::timeline::What;
use landfall_transfer::{FileOutcome, Input, Phase, Status, TenantId, Transfer, TransferId};

use crate::drive::{Done, Lifecycle};
use crate::error::Error;

/// The code of a later phase that left something out.
const SECOND_PHASE: &str = "LF-SECOND-PHASE";

impl Lifecycle {
    /// Makes the second phase of a staged transfer. Whatever a crash leaves out is done when it is made again.
    pub(crate) async fn begin_second_phase(&self, staged: &Transfer) -> Result<Done, Error> {
        let chain = TransferId::new(staged.chain().as_str());
        let attempts = self.attempts(&staged.tenant, &chain).await?;
        // Later phases of earlier attempts begin by themselves, perhaps after this attempt was made.
        self.supersede(staged, &attempts).await?;
        if self.may_be_delivering(staged, &attempts).await? {
            tracing::info!(transfer.id = %staged.id, tenant.id = %staged.tenant, "An earlier attempt was stopped, and its worker may still be delivering; the second phase waits until it can't.");
            return Ok(Done::Stop);
        }
        self.begin_phase(staged, 2).await?;
        Ok(Done::Input(Input::SecondPhaseBegun))
    }

    /// Whether a stopped attempt of the chain may still have a delivery to the target under way. Nobody can call that back, and what it brings would take the place of newer records.
    async fn may_be_delivering(
        &self,
        staged: &Transfer,
        attempts: &[Attempt],
    ) -> Result<bool, Error> {
        for attempt in attempts {
            let other = self
                .store
                .transfer(&staged.tenant, &attempt.transfer)
                .await?;
            let delivers = other.is_some_and(|Stored { transfer, .. }| {
                !transfer.is_staged() && matches!(transfer.phase, Phase::Stopping { .. })
            });
            if delivers {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins another phase behind those that a settled staged transfer has had, or the first where none was owed, which applies what is not in the target. None while one is under way or
    /// about to be, once a re-run has taken over, if nothing was stored whole, or once it isn't known any more which files were.
    pub async fn repeat_second_phase(
        &self,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<Option<TransferId>, Error> {
        let Some(Stored {
            transfer: staged, ..
        }) = self.store.transfer(tenant, &id.first_phase()).await?
        else {
            return Ok(None);
        };
        let last = self.last_phase(tenant, id).await?;
        let is_over = last.as_ref().is_none_or(|last| last.transfer.is_settled());
        let is_owed = staged.due_at(&self.configuration.clocks).is_some();
        if !staged.is_staged() || !staged.is_settled() || is_owed || !is_over {
            return Ok(None);
        }
        let files = self.store.files(tenant, &staged.id).await?;
        let imported = files.iter().filter(|file| is_imported(file)).count() as u64;
        let work = &staged.work;
        let expired = imported < work.files_ended.saturating_sub(work.files_failed);
        if expired || !files.iter().any(is_stored_whole) {
            tracing::warn!(transfer.id = %id, "Nothing was stored whole, or the rows that say what was have expired; there is no second phase to repeat.");
            return Ok(None);
        }
        let number = last.map_or(2, |last| last.transfer.id.phase_number() + 1);
        let begun = self.begin_phase(&staged, number).await?;
        Ok(begun.transfer.is_open().then_some(begun.transfer.id))
    }

    /// The newest of the phases behind a staged transfer.
    pub async fn last_phase(
        &self,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<Option<Stored>, Error> {
        let first = id.first_phase();
        let Some(staged) = self.store.transfer(tenant, &first).await? else {
            return Ok(None);
        };
        let attempts = self
            .store
            .attempts(tenant, &staged.transfer.chain())
            .await?;
        let phases = attempts.into_iter().map(|attempt| attempt.transfer);
        let last = phases
            .filter(|other| other.is_later_phase() && other.first_phase() == first)
            .max_by_key(TransferId::phase_number);
        match last {
            Some(last) => Ok(self.store.transfer(tenant, &last).await?),
            None => Ok(None),
        }
    }

    async fn begin_phase(&self, staged: &Transfer, number: u32) -> Result<Stored, Error> {
        let tenant = &staged.tenant;
        let id = staged.id.phase(number);
        let chain = TransferId::new(staged.chain().as_str());
        let stored = Box::pin(self.observe(tenant, &id, Some(chain), None, false)).await?;
        // Once more for one that was made before: whoever made it may have died before it was superseded.
        let attempts = self
            .attempts(tenant, &TransferId::new(stored.transfer.chain().as_str()))
            .await?;
        if let Some(by) = self.supersede(&stored.transfer, &attempts).await? {
            self.apply(tenant, &id, &Input::Superseded { by }).await?;
        }
        let stored = Box::pin(self.store.transfer(tenant, &id))
            .await?
            .unwrap_or(stored);
        // A look at what it has comes first, and announces its files.
        if let Err(error) = Box::pin(self.drive(tenant, &id)).await {
            tracing::warn!(transfer.id = %id, error = %error, "What a second phase is owed could not be done; the sweeper does it.");
        }
        Ok(stored)
    }

    /// Announces the files that a later phase imports, and asks for their import.
    pub(crate) async fn announce_staged(&self, transfer: &Transfer) -> Result<(), Error> {
        let (tenant, id) = (&transfer.tenant, &transfer.id);
        let files = self.store.files(tenant, &id.first_phase()).await?;
        let announced = self.store.files(tenant, id).await?;
        let announced: HashSet<String> = announced.into_iter().map(|file| file.s3_key).collect();
        let is_new = |file: &File| is_stored_whole(file) && !announced.contains(&file.s3_key);
        for file in files.into_iter().filter(is_new) {
            let new = NewFile {
                tenant: tenant.clone(),
                transfer: id.clone(),
                s3_key: file.s3_key.clone(),
                label: file.label.clone(),
                event: None,
                message_id: None,
                received_at: self.now(),
            };
            let grace = self.configuration.work.file_grace();
            if self.store.announce(&new, grace).await? == Recorded::New {
                self.queue_import(tenant, id, &file.s3_key, Duration::ZERO)
                    .await?;
                let announced = What::FileAnnounced {
                    file: file.s3_key,
                    label: file.label,
                };
                self.tell(tenant, id, announced, None).await;
            }
        }
        Ok(())
    }

    /// Says how a later phase ended: the admin reads nothing of it, and can do nothing about it.
    pub(crate) async fn say_later_phase_over(&self, transfer: &Transfer) {
        let Phase::Settled(settled) = &transfer.phase else {
            return;
        };
        let (Some(verdict), true) = (&settled.verdict, transfer.is_later_phase()) else {
            return;
        };
        if verdict.status == Status::Success {
            tracing::info!(transfer.id = %transfer.id, tenant.id = %transfer.tenant, "What was staged is imported.");
            return;
        }
        tracing::error!(error.code = SECOND_PHASE, transfer.id = %transfer.id, tenant.id = %transfer.tenant, transfer.cause = verdict.cause.as_str(), "Not all that was staged is imported, and nobody but you will see it.");
        let needed = What::PersonNeeded {
            code: SECOND_PHASE.to_owned(),
            problem: verdict.message.clone(),
        };
        self.tell(&transfer.tenant, &transfer.id, needed, None)
            .await;
    }
}

/// Of a file that could not be read to its end what was stored stays where it is. The manifest is none of the export's data.
fn is_stored_whole(file: &File) -> bool {
    is_imported(file) && file.manifest.is_none()
}

fn is_imported(file: &File) -> bool {
    file.state == FileState::Ended && file.outcome == Some(FileOutcome::Imported)
}
