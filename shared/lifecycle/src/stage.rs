//! Staged transfers: their records are in a bucket of the partner's when the platform is told so, and a second phase brings them into the target.
//!
//! It is a transfer of its own, of which the platform knows nothing: its files are those that the first phase has stored whole, and it has all that other
//! transfers have, from leases to the receipt.

use std::time::Duration;

use landfall_tracking::{File, FileState, NewFile, Recorded, Stored};
use landfall_transfer::timeline::What;
use landfall_transfer::{FileOutcome, Input, Phase, Status, TenantId, Transfer, TransferId};

use crate::drive::{Done, Lifecycle};
use crate::error::Error;

/// The code of a later phase that left something out.
const SECOND_PHASE: &str = "LF-SECOND-PHASE";

impl Lifecycle {
    /// Makes the second phase of a staged transfer. Whatever a crash leaves out is done when it is made again.
    pub(crate) async fn begin_second_phase(&self, staged: &Transfer) -> Result<Done, Error> {
        if self.may_be_delivering(staged).await? {
            tracing::info!(transfer.id = %staged.id, tenant.id = %staged.tenant, "An earlier attempt was stopped, and its worker may still be delivering; the second phase waits until it can't.");
            return Ok(Done::Stop);
        }
        self.begin_phase(staged, 2).await?;
        Ok(Done::Input(Input::SecondPhaseBegun))
    }

    /// Whether a stopped attempt of the chain may still have a delivery to the target under way. Nobody can call that back, and what it brings would take the place of newer records.
    async fn may_be_delivering(&self, staged: &Transfer) -> Result<bool, Error> {
        let tenant = &staged.tenant;
        for attempt in self.store.attempts(tenant, &staged.chain()).await? {
            let other = self.store.transfer(tenant, &attempt.transfer).await?;
            let delivers = other.is_some_and(|Stored { transfer, .. }| {
                !transfer.is_staged() && matches!(transfer.phase, Phase::Stopping { .. })
            });
            if delivers {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins another phase behind those that a staged transfer has had, which applies what they left out. None while one is under way, if there was none, or once
    /// it isn't known any more which files were stored: then there is nothing to repeat.
    pub async fn repeat_second_phase(
        &self,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<Option<TransferId>, Error> {
        let Some(last) = self.last_phase(tenant, id).await? else {
            return Ok(None);
        };
        let staged = self.store.transfer(tenant, &id.first_phase()).await?;
        let (Some(staged), true) = (staged, last.transfer.is_settled()) else {
            return Ok(None);
        };
        let files = self.store.files(tenant, &staged.transfer.id).await?;
        let stored_whole = files.iter().filter(|file| is_stored_whole(file)).count() as u64;
        if stored_whole == 0 || stored_whole < staged.transfer.files_stored_whole() {
            tracing::warn!(transfer.id = %id, "The rows of the files that a staged transfer has stored have expired; its second phase can't be repeated.");
            return Ok(None);
        }
        let number = last.transfer.id.phase_number() + 1;
        let begun = self.begin_phase(&staged.transfer, number).await?;
        Ok(Some(begun.transfer.id))
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
        if !stored.transfer.is_open() {
            // A re-run has taken over, which stages and imports everything itself; or it was made before, and is over.
            return Ok(stored);
        }
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
        for file in files.into_iter().filter(is_stored_whole) {
            let new = NewFile {
                tenant: tenant.clone(),
                transfer: id.clone(),
                s3_key: file.s3_key.clone(),
                label: file.label.clone(),
                event: None,
                message_id: None,
                received_at: self.now(),
            };
            let grace = self.configuration.work.message_grace;
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
    file.state == FileState::Ended
        && file.outcome == Some(FileOutcome::Imported)
        && file.manifest.is_none()
}
