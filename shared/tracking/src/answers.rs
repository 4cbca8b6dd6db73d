use futures_util::future::try_join_all;
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::timeline::entries;
use landfall_transfer::{
    Clocks, Counts, FileOutcome, Flavour, Input, MessageOutcome, TenantId, Timestamp, Transfer,
    TransferId,
};

use crate::error::Error;
use crate::files::{File, FileState, RACES_MAX};
use crate::item::{Reader, instant, text};
use crate::keys;
use crate::store::Store;
use crate::table::Write;
use crate::timeline::Told;
use crate::transfers::Stored;

/// The message with which the platform announced a file, and which wants an answer: on Forge alone (PROTOCOL.md 7.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMessage {
    /// The platform's id for it.
    pub id: String,
    /// The answer that was sent, or is about to be. It never changes, because the platform may have taken it (OPEN-QUESTIONS.md D9).
    pub answer: Option<MessageOutcome>,
    /// Whether the platform is known to have taken it.
    pub is_answered: bool,
}

impl FileMessage {
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Option<Self>, Error> {
        let Some(id) = reader.optional_text(MESSAGE) else {
            return Ok(None);
        };
        let answer = match reader.optional_text(ANSWER) {
            None => None,
            Some(SUCCESS) => Some(MessageOutcome::Success),
            Some(FAILED) => Some(MessageOutcome::Failed),
            Some(other) => {
                let problem = format!("answer {other} is not known to this release");
                return Err(Error::unreadable("a file's row", problem));
            }
        };
        Ok(Some(Self {
            id: id.to_owned(),
            answer,
            is_answered: reader.optional_instant(ANSWERED).is_some(),
        }))
    }
}

const MESSAGE: &str = "answer_to";
const ANSWER: &str = "answer";
const ANSWERED: &str = "answered_at";
const SUCCESS: &str = "SUCCESS";
const FAILED: &str = "FAILED";

impl File {
    /// Its message, unless the platform is known to have an answer, or never announced the file.
    pub fn open_message(&self) -> Option<&FileMessage> {
        self.message.as_ref().filter(|message| !message.is_answered)
    }

    /// Whether it was announced with a message that its transfer doesn't count yet ([`Store::register_message`]).
    pub fn has_uncounted_message(&self) -> bool {
        self.tenant.flavour() == Flavour::Forge && self.message.is_none() && self.event.is_some()
    }

    /// Whether every record of it is in the target: what an answer `SUCCESS` says.
    pub fn is_applied(&self) -> bool {
        self.state == FileState::Ended
            && self
                .outcome
                .as_ref()
                .is_some_and(|outcome| is_applied(outcome, self.counts))
    }
}

/// Whether a file that ended so is in the target with every record.
pub(crate) fn is_applied(outcome: &FileOutcome, counts: Counts) -> bool {
    *outcome == FileOutcome::Imported
        && (counts.arrived() == counts.read || is_planted(SeededBug::AnsweredBeforeApplied))
}

impl Store {
    /// Counts a file's message for its transfer, once, in one write with the file's row. Whoever announced the file, and however far it is: its row is there, for the platform may have
    /// listed it first. Returns the transfer as it now stands, or none when it or the file is not known.
    ///
    /// A transfer that is over, or whose messages nobody answers, is left as it is.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact of the message; a struct would be made for this call alone"
    )]
    pub async fn register_message(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        s3_key: &str,
        message: &str,
        received_at: Timestamp,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Result<Option<Stored>, Error> {
        for race in 0..RACES_MAX {
            // The transfer first: whatever moves the file's message on writes both, so the file is at least as new.
            let Some(stored) = self.transfer(tenant, id).await? else {
                return Ok(None);
            };
            let Some(file) = self.file(tenant, id, s3_key).await? else {
                return Ok(None);
            };
            if file.message.is_some()
                || stored.transfer.messages.is_none()
                || stored.transfer.is_settled()
            {
                return Ok(Some(stored));
            }
            let arrived = Input::MessageArrived { at: received_at };
            let mut inputs = vec![arrived];
            if file.state == FileState::Ended {
                let applied = file.is_applied();
                inputs.push(Input::MessageDecided { applied });
            }
            let (transfer, told) = apply_all(&stored.transfer, inputs, now, clocks);
            let (transfer_write, next) = Self::over(&stored, transfer, clocks)?;
            let registered = Write::update(keys::file(tenant, id, s3_key))
                .if_present()
                .set(MESSAGE, text(message));
            let mut writes = vec![registered, transfer_write];
            writes.extend(told.writes(&next, self.actor())?);
            match self.transact(writes).await {
                Ok(()) => return Ok(Some(next)),
                Err(Error::Conflict | Error::Contended) => self.pause(race).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    /// Writes, before it is sent, how the messages of these files are answered, and that somebody is sending. At most 50 files, read after `read` was.
    /// [`Error::Conflict`] when somebody else was faster: nothing may be sent then.
    pub async fn begin_answers(
        &self,
        read: &Stored,
        files: &[File],
        outcome: MessageOutcome,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Result<Stored, Error> {
        let (transfer, told) = apply_all(&read.transfer, vec![Input::AnswerBegun], now, clocks);
        let (transfer_write, next) = Self::over(read, transfer, clocks)?;
        let mut writes = vec![transfer_write];
        writes.extend(files.iter().map(|file| {
            let answer = match outcome {
                MessageOutcome::Success => SUCCESS,
                MessageOutcome::Failed => FAILED,
            };
            row(file).set(ANSWER, text(answer))
        }));
        writes.extend(told.writes(&next, self.actor())?);
        self.transact(writes).await?;
        Ok(next)
    }

    /// Writes that the platform took the answers to these files' messages, in an attempt that [`Store::begin_answers`] began and returned. Each is counted once, also when
    /// another attempt had the same. Returns the transfer as it now stands, or none when it is not known.
    pub async fn answers_taken(
        &self,
        begun: &Stored,
        files: &[File],
        outcome: MessageOutcome,
        begun_at: Timestamp,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Result<Option<Stored>, Error> {
        let (tenant, id) = (&begun.transfer.tenant, &begun.transfer.id);
        let mut stored = begun.clone();
        let mut files = files.to_vec();
        for race in 0..RACES_MAX {
            files.retain(|file| file.open_message().is_some());
            if files.is_empty() || stored.transfer.is_settled() {
                return Ok(Some(stored));
            }
            let taken = Input::AnswersTaken {
                outcome,
                messages: files.len() as u64,
                begun_at,
            };
            let (transfer, told) = apply_all(&stored.transfer, vec![taken], now, clocks);
            let (transfer_write, next) = Self::over(&stored, transfer, clocks)?;
            let mut writes = vec![transfer_write];
            writes.extend(
                files
                    .iter()
                    .map(|file| row(file).set(ANSWERED, instant(now))),
            );
            writes.extend(told.writes(&next, self.actor())?);
            match self.transact(writes).await {
                Ok(()) => return Ok(Some(next)),
                Err(Error::Conflict | Error::Contended) => self.pause(race).await,
                Err(error) => return Err(error),
            }
            let Some(newer) = self.transfer(tenant, id).await? else {
                return Ok(None);
            };
            stored = newer;
            let read = files.iter().map(|file| self.file(tenant, id, &file.s3_key));
            files = try_join_all(read).await?.into_iter().flatten().collect();
        }
        Err(Error::Contended)
    }
}

fn row(file: &File) -> Write {
    Write::update(keys::file(&file.tenant, &file.transfer, &file.s3_key)).if_present()
}

/// What these inputs, one after the other, make of a transfer, and what is told of it.
pub(crate) fn apply_all(
    transfer: &Transfer,
    inputs: Vec<Input>,
    now: Timestamp,
    clocks: &Clocks,
) -> (Transfer, Told) {
    let mut after = transfer.clone();
    let mut what = Vec::new();
    for input in inputs {
        let before = after.clone();
        after.apply(input.clone(), now, clocks);
        what.extend(entries(Some(&before), &after, &input));
    }
    (after, Told { at: now, what })
}
