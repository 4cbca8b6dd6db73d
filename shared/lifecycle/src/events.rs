use std::time::Duration;

use landfall_platform::event::{DecodeError, Event, Kind};
use landfall_platform::{connect, forge};
use landfall_tracking::{
    Attempt, Error as Tracking, EventRow, File, Found, Message, NewFile, Stored, Task, Told,
};
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::timeline::What;
use landfall_transfer::{
    ChainId, Flavour, Input, Phase, TenantId, Timestamp, Transfer, TransferId,
};

use crate::drive::Lifecycle;
use crate::error::Error;

/// What is left to do for an event that was taken in.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Nothing.
    Done,
    /// Its file is to be imported.
    Import {
        /// The file's transfer.
        transfer: TransferId,
        /// The file's key.
        s3_key: String,
        /// Its row and its transfer's, where they were read just now.
        found: Option<Box<Found>>,
    },
}

/// Times that the creation of a transfer is repeated when another was faster.
const RACES_MAX: u32 = 6;

impl Lifecycle {
    /// Takes in an event, whichever order it comes in and however often. Afterwards nothing is due for its row.
    pub async fn take_event(
        &self,
        tenant: &TenantId,
        body: &str,
        received_at: Timestamp,
    ) -> Result<Taken, Error> {
        let event = decode(tenant, body)?;
        let row = EventRow {
            tenant: tenant.clone(),
            transfer: event.transfer_id.as_ref().map(TransferId::new),
            message_id: event.message_id.clone(),
            event_type: event.kind.event_type().to_owned(),
            body: body.to_owned(),
            received_at,
        };
        let (Some(id), true) = (row.transfer.clone(), event.kind.is_known()) else {
            // Kept for whoever learns what it means; nothing else depends on it.
            self.store.event_handled(&row, self.now()).await?;
            return Ok(Taken::Done);
        };
        if let Kind::AppDataUploaded { s3_key, label } = &event.kind {
            let file = NewFile {
                tenant: tenant.clone(),
                transfer: id,
                s3_key: s3_key.clone(),
                label: label.clone(),
                event: Some(body.to_owned()),
                message_id: Some(event.message_id.clone()),
                received_at,
            };
            return Box::pin(self.take_upload(&event, file)).await;
        }
        let stored = self.observe_event(tenant, &id, &event).await?;
        let input = self.input(&stored, &event).await?;
        let Some(stored) = self.apply_from(stored, &[input]).await? else {
            // No row of a transfer is ever taken away.
            return Err(Error::Raced);
        };
        if let Err(error) = self.drive_on(stored).await {
            // The event is taken in; what the transfer is owed stays due in its own row.
            tracing::warn!(transfer.id = %id, error = %error, "What an event made due could not be done; the sweeper does it.");
        }
        self.store.event_handled(&row, self.now()).await?;
        Ok(Taken::Done)
    }

    /// Whether a message belongs on the queue of control events, where no backlog of files delays it.
    pub fn is_control(&self, message: &Message) -> bool {
        match &message.task {
            Task::Import { .. } => false,
            Task::Event { body, .. } => !decode(&message.tenant, body)
                .is_ok_and(|event| matches!(event.kind, Kind::AppDataUploaded { .. })),
        }
    }

    async fn take_upload(&self, event: &Event, file: NewFile) -> Result<Taken, Error> {
        // The row is there unless only the message survived. It is looked for before the transfer is read, so that the file can be taken up on that read.
        let found = self
            .store
            .find_or_announce(&file, self.configuration.work.file_grace())
            .await?;
        let NewFile {
            tenant,
            transfer: id,
            s3_key,
            received_at,
            ..
        } = file;
        let transfer = self.observe_event(&tenant, &id, event).await?.transfer;
        let registered = self
            .register_message(&transfer, event, &s3_key, received_at)
            .await?;
        // On Forge its row changes when its message is counted, and one that isn't counted is not fenced: there both rows are read again.
        let found = found.filter(|_| transfer.messages.is_none());
        let is_counted_now = registered.is_some();
        let transfer = registered.unwrap_or(transfer);
        if !transfer.is_open() {
            // Late data of a transfer that is over: acknowledged, kept, and left alone (OPEN-QUESTIONS.md A14). Until its message is answered its row stays due.
            if let (Phase::Settled(settled), Some(_)) = (&transfer.phase, &transfer.messages)
                && !is_planted(SeededBug::LateMessageForgotten)
            {
                self.answer_late(&transfer, settled, event, &s3_key, received_at)
                    .await?;
            }
            self.store.drop_file(&tenant, &id, &s3_key).await?;
            if is_counted_now {
                // Its message is answered with the others.
                self.drive(&tenant, &id).await?;
            }
            return Ok(Taken::Done);
        }
        Ok(Taken::Import {
            transfer: id,
            s3_key,
            found: found.map(|file| Box::new(Found { file, transfer })),
        })
    }

    /// Counts the message of an announced file that nobody has taken up yet: the platform has waited for its answer since it was received, however long the file waits for a worker.
    pub async fn note_announced(&self, file: &File) -> Result<(), Error> {
        let Some(body) = file.event.as_ref().filter(|_| file.has_uncounted_message()) else {
            return Ok(());
        };
        let event = decode(&file.tenant, body)?;
        let stored = self
            .observe_event(&file.tenant, &file.transfer, &event)
            .await?;
        self.register_message(&stored.transfer, &event, &file.s3_key, file.received_at)
            .await?;
        Ok(())
    }

    /// Counts the message of a file that was announced, where messages are answered: from now on it is answered in time, whether anybody takes the file up or not.
    async fn register_message(
        &self,
        transfer: &Transfer,
        event: &Event,
        s3_key: &str,
        received_at: Timestamp,
    ) -> Result<Option<Transfer>, Error> {
        if transfer.messages.is_none() {
            return Ok(None);
        }
        let Some(message) = event.platform_message_id() else {
            tracing::error!(error.code = "LF-UNANNOUNCED", transfer.id = %transfer.id, file.key = s3_key, "An uploaded file came without a message; nothing can answer it.");
            return Ok(None);
        };
        let clocks = &self.configuration.clocks;
        let (tenant, id) = (&transfer.tenant, &transfer.id);
        let stored = self
            .store
            .register_message(tenant, id, s3_key, message, received_at, self.now(), clocks)
            .await?;
        Ok(stored.map(|stored| stored.transfer))
    }

    async fn input(&self, stored: &Stored, event: &Event) -> Result<Input, Error> {
        Ok(match &event.kind {
            Kind::ListenerErrored { error } => {
                let told = error
                    .as_ref()
                    .and_then(|error| error.exception_type.clone());
                let exception = match told {
                    None if stored.transfer.is_open() => {
                        match self.site(&stored.transfer.tenant).await {
                            Ok(site) => site.listener_exception(&stored.transfer.id).await,
                            Err(error) if error.code().is_some() => None,
                            Err(error) => return Err(error),
                        }
                    }
                    told => told,
                };
                Input::ListenerErrored { exception }
            }
            Kind::ExportPhaseCompleted => Input::ExportPhaseCompleted,
            Kind::CancellationRequested => Input::CancelRequested,
            Kind::Settled { status } => Input::PlatformSettled {
                status: status.clone(),
            },
            Kind::ListenerTriggered | Kind::AppDataUploaded { .. } | Kind::Unknown(_) => {
                Input::ListenerTriggered
            }
        })
    }

    /// The transfer of an event, made when it is seen for the first time.
    async fn observe_event(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        event: &Event,
    ) -> Result<Stored, Error> {
        let original = event.original_transfer_id.as_ref().map(TransferId::new);
        let created = event.created_at_ms.map(Timestamp::from_millis);
        self.observe(tenant, id, original, created, false).await
    }

    /// The transfer of that id, made when it is seen for the first time; `adopted` says that only the platform's list shows it. A newer attempt of a chain takes over from those before it.
    pub async fn observe(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        original: Option<TransferId>,
        created_at: Option<Timestamp>,
        adopted: bool,
    ) -> Result<Stored, Error> {
        let clocks = &self.configuration.clocks;
        for _ in 0..RACES_MAX {
            let stored = self.store.transfer(tenant, id).await?;
            let (transfer, attempts) = match (&stored, &original) {
                (None, _) => {
                    let chain = original.as_ref().unwrap_or(id);
                    let attempts = self.attempts(tenant, chain).await?;
                    // Somebody was faster, and a later attempt may have followed since: what was read is out of date.
                    if attempts.iter().any(|attempt| attempt.transfer == *id) {
                        continue;
                    }
                    let transfer = Transfer::first_seen(
                        tenant.clone(),
                        id.clone(),
                        original.clone(),
                        created_at,
                        after(&attempts, self.now()),
                    );
                    let transfer = match tenant.flavour() {
                        _ if id.is_later_phase() => transfer.from_stage(),
                        Flavour::Connect => transfer,
                        Flavour::Forge if self.configuration.is_staged() => {
                            transfer.with_messages().staged()
                        }
                        Flavour::Forge => transfer.with_messages(),
                    };
                    (transfer, attempts)
                }
                (Some(stored), Some(original)) => {
                    let mut transfer = stored.transfer.clone();
                    if !transfer.join_chain(original.clone()) {
                        return Ok(stored.clone());
                    }
                    let attempts = self.attempts(tenant, original).await?;
                    (transfer, attempts)
                }
                (Some(stored), None) => return Ok(stored.clone()),
            };
            // Before this attempt exists the earlier ones are stopped: a crash in between repeats it, it never skips it.
            let newer = self.supersede(&transfer, &attempts).await?;
            let written = match &stored {
                None => {
                    let told = Told {
                        at: self.now(),
                        what: vec![What::first_seen(&transfer, adopted)],
                    };
                    self.store.create(&transfer, &told, clocks).await
                }
                Some(stored) => {
                    let told = Told {
                        at: self.now(),
                        what: original.clone().map(joined).into_iter().collect(),
                    };
                    self.store.join_chain(stored, transfer, &told, clocks).await
                }
            };
            match written {
                Ok(stored) => {
                    tracing::info!(tenant.id = %tenant, transfer.id = %id, transfer.chain = %stored.transfer.chain(), "First sight of a transfer.");
                    let newer = match newer {
                        // Later phases begin by themselves, perhaps while this one was being made: whoever is made later sees the other.
                        None if tenant.flavour() == Flavour::Forge && original.is_some() => {
                            let chain = TransferId::new(stored.transfer.chain().as_str());
                            let attempts = self.attempts(tenant, &chain).await?;
                            self.supersede(&stored.transfer, &attempts).await?
                        }
                        newer => newer,
                    };
                    let Some(by) = newer else { return Ok(stored) };
                    self.apply(tenant, id, &Input::Superseded { by }).await?;
                    return Ok(Box::pin(self.store.transfer(tenant, id))
                        .await?
                        .unwrap_or(stored));
                }
                Err(Tracking::Conflict | Tracking::Contended) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Raced)
    }

    /// The attempts of a chain, the first seen first.
    pub(crate) async fn attempts(
        &self,
        tenant: &TenantId,
        chain: &TransferId,
    ) -> Result<Vec<Attempt>, Error> {
        let chain = ChainId::new(chain.as_str());
        Ok(self.store.attempts(tenant, &chain).await?)
    }

    /// Of the attempts of a chain only the newest may write: stops those before this one. The chain's first attempt is older
    /// than every other, whenever it was seen; for it the newest attempt comes back.
    pub(crate) async fn supersede(
        &self,
        transfer: &Transfer,
        attempts: &[Attempt],
    ) -> Result<Option<TransferId>, Error> {
        let chain = transfer.chain();
        let others = || {
            attempts
                .iter()
                .filter(|attempt| attempt.transfer != transfer.id)
        };
        let own = Attempt {
            transfer: transfer.id.clone(),
            first_seen_at: transfer.first_seen_at,
        };
        let place = place_in(&chain, &own, attempts);
        let newer = others().rfind(|other| place_in(&chain, other, attempts) > place);
        if let Some(newer) = newer {
            return Ok(Some(newer.transfer.clone()));
        }
        for older in others() {
            let by = Input::Superseded {
                by: transfer.id.clone(),
            };
            let known = self.apply(&transfer.tenant, &older.transfer, &by).await?;
            if known.is_some_and(|older| !older.transfer.is_settled()) {
                Box::pin(self.drive(&transfer.tenant, &older.transfer)).await?;
            }
        }
        Ok(None)
    }
}

/// Where an attempt stands in its chain. The first is older than every other, whenever it was seen; a later phase of an attempt comes right behind it, however late it begins.
fn place_in<'attempt>(
    chain: &ChainId,
    attempt: &'attempt Attempt,
    attempts: &'attempt [Attempt],
) -> (bool, Timestamp, TransferId, u32) {
    let id = attempt.transfer.first_phase();
    let first = attempts.iter().find(|other| other.transfer == id);
    let seen_at = first.unwrap_or(attempt).first_seen_at;
    let is_rerun = id.as_str() != chain.as_str();
    // Of the chain's first attempt nothing but its phases is told apart.
    let seen_at = if is_rerun {
        seen_at
    } else {
        Timestamp::default()
    };
    (is_rerun, seen_at, id, attempt.transfer.phase_number())
}

/// When an attempt that was not known until now was first seen: after those that are. The platform begins one only when the one
/// before it is over, so of two attempts the later known is the newer, whatever the clocks of the machines say that saw them.
fn after(attempts: &[Attempt], now: Timestamp) -> Timestamp {
    let last = attempts.iter().map(|attempt| attempt.first_seen_at).max();
    last.map_or(now, |last| now.max(last + Duration::from_millis(1)))
}

/// Reads an event as the tenant's flavour has it. The body doesn't decide which.
fn decode(tenant: &TenantId, body: &str) -> Result<Event, DecodeError> {
    match tenant.flavour() {
        Flavour::Connect => connect::event::decode(body.as_bytes()),
        Flavour::Forge => forge::event::decode(body.as_bytes()),
    }
}

const fn joined(rerun_of: TransferId) -> What {
    What::ChainJoined { rerun_of }
}
