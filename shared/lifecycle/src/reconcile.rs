use std::collections::HashSet;
use std::time::Duration;

use landfall_platform::connect::client::{CallError, ListedFile};
use landfall_tracking::{NewFile, Recorded};
use landfall_transfer::timeline::What;
use landfall_transfer::{Input, Listing, Step, TenantId, Timestamp, Transfer, TransferId};

use crate::drive::{Done, Lifecycle, unavailable};
use crate::error::Error;
use crate::platform::{Site, listing};

/// The platform's word for a transfer that the admin cancelled (PROTOCOL.md 2.2).
const CANCELLATION_REQUESTED: &str = "CANCELLATION_REQUESTED";

impl Lifecycle {
    /// Compares an open transfer with the platform's lists: is it still active, was it cancelled, are there files that
    /// nobody announced?
    pub(crate) async fn reconcile(&self, transfer: &Transfer) -> Result<Done, Error> {
        if transfer.messages.is_some() {
            self.say_silent(transfer).await?;
        }
        let site = self.site(&transfer.tenant).await?;
        if transfer.messages.is_some() {
            // The list of files is all that the platform has here, and what tells that a transfer is settled.
            return Ok(Done::Input(match site.files(&transfer.id).await {
                Ok(files) => {
                    let adopted = self.adopt_files(transfer, &files).await?;
                    self.say_unannounced(transfer, &site, adopted).await;
                    Input::Listed(Listing::Active)
                }
                Err(error) => unavailable(transfer, &site, &error),
            }));
        }
        let recent = match site.recent().await {
            Ok(recent) => recent,
            Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
        };
        let (listed, active) = listing(&recent, &transfer.id);
        if let Some(active) = active {
            if active.status == CANCELLATION_REQUESTED {
                return Ok(Done::Input(Input::CancelRequested));
            }
            match site.files(&transfer.id).await {
                Ok(files) => {
                    self.adopt_files(transfer, &files).await?;
                }
                Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
            }
            if transfer.waits_for_exporter() {
                match self.lost_listener_error(transfer, &site).await {
                    Ok(Some(errored)) => return Ok(Done::Input(errored)),
                    Ok(None) => {}
                    Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
                }
            }
        }
        if listed == Listing::Absent {
            // A list that is empty by mistake must not end a transfer: the files of one that is over can't be listed.
            match site.files(&transfer.id).await {
                Ok(_) => return Ok(Done::Input(Input::Listed(Listing::Full))),
                Err(error) if error.may_be_over() => {}
                Err(error) => return Ok(Done::Input(unavailable(transfer, &site, &error))),
            }
        }
        Ok(Done::Input(Input::Listed(listed)))
    }

    /// Whether the server's listener has failed although no event told it: the event may have got lost, and without it a
    /// transfer would wait for an exporter that has given up.
    pub(crate) async fn lost_listener_error(
        &self,
        transfer: &Transfer,
        site: &Site,
    ) -> Result<Option<Input>, CallError> {
        let error = site.listener_error(&transfer.id).await?;
        Ok(error.map(|error| {
            tracing::warn!(transfer.id = %transfer.id, "The server's listener failed, and its event was never seen.");
            Input::ListenerErrored {
                exception: error.exception_type,
            }
        }))
    }

    /// Stores and queues the files that the platform lists and nobody announced. Returns how many there were.
    pub(crate) async fn adopt_files(
        &self,
        transfer: &Transfer,
        listed: &[ListedFile],
    ) -> Result<usize, Error> {
        let known: HashSet<String> = self
            .store
            .files(&transfer.tenant, &transfer.id)
            .await?
            .into_iter()
            .map(|file| file.s3_key)
            .collect();
        let mut adopted = 0;
        for file in listed.iter().filter(|file| !known.contains(&file.s3_key)) {
            let new = NewFile {
                tenant: transfer.tenant.clone(),
                transfer: transfer.id.clone(),
                s3_key: file.s3_key.clone(),
                label: file.label.clone(),
                event: None,
                message_id: None,
                received_at: self.now(),
            };
            if self
                .store
                .announce(&new, self.configuration.work.file_grace())
                .await?
                == Recorded::New
            {
                self.queue_import(&transfer.tenant, &transfer.id, &file.s3_key, Duration::ZERO)
                    .await?;
                let found = What::FileAdopted {
                    file: file.s3_key.clone(),
                    label: file.label.clone(),
                };
                self.tell(&transfer.tenant, &transfer.id, found, None).await;
                adopted += 1;
            }
        }
        if adopted > 0 {
            tracing::warn!(transfer.id = %transfer.id, files = adopted, "Adopted files that were never announced.");
        }
        Ok(adopted)
    }

    /// Compares a tenant with the platform's list of active transfers: those that were never announced are adopted with
    /// their files, cancellations that got lost are taken in. Returns the transfers that were adopted.
    pub async fn reconcile_tenant(&self, tenant: &TenantId) -> Result<Vec<TransferId>, Error> {
        let site = self.site(tenant).await?;
        let recent = match site.recent().await {
            Ok(recent) => recent,
            Err(error) => {
                tracing::warn!(tenant.id = %tenant, error = %error, "A tenant's active transfers could not be listed.");
                return Ok(Vec::new());
            }
        };
        let mut adopted = Vec::new();
        // One list may cover all products of a site, each a tenant of its own (OPEN-QUESTIONS.md B15).
        let ours = recent.transfers.iter().filter(|active| {
            active.client_keys.is_empty()
                || active.client_keys.iter().any(|key| key == tenant.as_str())
        });
        for active in ours {
            let id = TransferId::new(&active.transfer_id);
            let cancelled = active.status == CANCELLATION_REQUESTED;
            if self.store.transfer(tenant, &id).await?.is_some() {
                if cancelled {
                    self.apply(tenant, &id, &Input::CancelRequested).await?;
                    self.drive(tenant, &id).await?;
                }
                continue;
            }
            let now = self.now();
            let since = self
                .store
                .listed_unannounced_since(tenant, &id, now)
                .await?;
            if now.since(since) < self.configuration.work.message_grace {
                // Its events are probably on their way, and only they tell which chain it belongs to.
                continue;
            }
            let original = active.original_transfer_id.as_ref().map(TransferId::new);
            let created = active.created_at_ms.map(Timestamp::from_millis);
            let stored = self.observe(tenant, &id, original, created, true).await?;
            tracing::warn!(tenant.id = %tenant, transfer.id = %id, "Adopted a transfer that was never announced.");
            let input = if cancelled {
                Input::CancelRequested
            } else {
                match site.files(&id).await {
                    Ok(files) => {
                        self.adopt_files(&stored.transfer, &files).await?;
                        Input::Listed(Listing::Active)
                    }
                    Err(error) => unavailable(&stored.transfer, &site, &error),
                }
            };
            self.apply(tenant, &id, &input).await?;
            self.drive(tenant, &id).await?;
            adopted.push(id);
        }
        Ok(adopted)
    }

    /// Whether a transfer's next step is to be looked at now rather than by the next sweep.
    pub fn is_due(&self, transfer: &Transfer) -> bool {
        transfer.next_step(self.now(), &self.configuration.clocks) != Step::Wait
    }
}
