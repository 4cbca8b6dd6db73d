use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use landfall_transfer::timeline::{Actor, Entry, Taken, What};
use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::files::{ENDED, TAKEN, read_file};
use crate::item::{Item, Reader, instant, text};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Write};
use crate::transfers::Stored;

impl Store {
    /// Appends an entry to a transfer's timeline. Appending the same entry again, after an unknown outcome, changes nothing.
    pub async fn append(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        entry: &Entry,
    ) -> Result<(), Error> {
        self.write(alone(tenant, transfer, entry)?).await
    }

    /// A transfer's timeline, from the first sign of it on: what was told, and what the rows of its events and files show.
    pub async fn timeline(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Vec<Entry>, Error> {
        let partition = keys::transfer(tenant, transfer);
        let (told, events, files) = tokio::try_join!(
            self.rows(&partition, keys::LOG),
            self.rows(&partition, keys::EVENT),
            self.rows_with_keys(&partition, keys::FILE),
        )?;
        let told: Vec<Entry> = told.iter().map(read).collect();
        let events = events.iter().filter_map(shown_by_event);
        let shown: Vec<Entry> = events
            .chain(files.iter().flat_map(|(key, row)| shown_by_file(key, row)))
            .collect();
        // An earlier release has told them as well.
        let twice: HashSet<_> = told.iter().filter_map(shown_as).collect();
        let is_new = |entry: &&Entry| shown_as(entry).is_none_or(|shown| !twice.contains(&shown));
        let shown = shown.iter().filter(is_new).cloned();
        let mut entries: Vec<Entry> = shown.chain(told.iter().cloned()).collect();
        entries.sort_by_key(|entry| entry.at);
        Ok(entries)
    }
}

/// What a new state is told with, in the same transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// When it happened.
    pub at: Timestamp,
    /// What happened, in order.
    pub what: Vec<What>,
}

impl Told {
    /// Nothing new happened.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The writes, to go into one transaction with the state.
    pub(crate) fn writes(&self, state: &Stored, by: Actor) -> Result<Vec<Write>, Error> {
        let transfer = &state.transfer;
        let write = |(number, what): (usize, &What)| {
            let entry = Entry::new(self.at, by, what.clone());
            let entry_text = encode(&entry)?;
            // Two states of one instant differ in their version.
            let sequence = format!("{:08}.{number}", state.version());
            Ok(row(
                &transfer.tenant,
                &transfer.id,
                &entry,
                entry_text,
                &sequence,
            ))
        };
        self.what.iter().enumerate().map(write).collect()
    }
}

/// The write of an entry that came with no new state. It stands behind what was told with a state of the same instant.
pub(crate) fn alone(
    tenant: &TenantId,
    transfer: &TransferId,
    entry: &Entry,
) -> Result<Write, Error> {
    let entry_text = encode(entry)?;
    let hash = digest(&SHA256, entry_text.as_bytes());
    let hash = hex::encode(hash.as_ref().get(..8).unwrap_or_default());
    let sequence = format!("~{hash}");
    Ok(row(tenant, transfer, entry, entry_text, &sequence))
}

fn row(
    tenant: &TenantId,
    transfer: &TransferId,
    entry: &Entry,
    entry_text: String,
    sequence: &str,
) -> Write {
    let key = Key::new(
        keys::transfer(tenant, transfer),
        format!("{}{:015}#{sequence}", keys::LOG, entry.at.as_millis()),
    );
    let item = Item::from([
        ("kind".into(), text("log")),
        ("what".into(), text(entry.what.kind())),
        ("detail".into(), text(entry.what.to_string())),
        ("entry".into(), text(entry_text)),
        ("at".into(), instant(entry.at)),
        ("expires_at".into(), history_expires(entry.at)),
    ]);
    Write::put(key, item)
}

/// What the row of an event tells.
fn shown_by_event(row: &Item) -> Option<Entry> {
    let reader = Reader::new(row, "an event's row");
    let taken = What::EventTaken {
        event: reader.optional_text("event_type")?.to_owned(),
    };
    let at = reader.optional_instant("received_at")?;
    let cause = reader.optional_text("message_id")?;
    Some(Entry::new(at, Actor::Intake, taken).caused_by(cause))
}

/// What the row of a file tells: that it was announced, unless it was only found in a list; that it was taken up, and how it ended.
/// Everything else that became of it was told.
fn shown_by_file(key: &Key, row: &Item) -> Vec<Entry> {
    let reader = Reader::new(row, "a file's row");
    let Ok(file) = read_file(key, row) else {
        return Vec::new();
    };
    let when = |[at, by]: [&str; 2]| {
        let by = reader.optional_text(by).map(Actor::named);
        Some((reader.optional_instant(at)?, by.unwrap_or(Actor::Processor)))
    };
    let mut entries = Vec::with_capacity(3);
    if let Some(cause) = reader.optional_text("message_id") {
        let announced = What::FileAnnounced {
            file: file.s3_key.clone(),
            label: file.label.clone(),
        };
        let entry = Entry::new(file.received_at, Actor::Intake, announced);
        entries.push(entry.caused_by(cause));
    }
    if let Some((at, by)) = when(TAKEN) {
        let taken = What::FileTaken {
            file: file.s3_key.clone(),
            fence: 1,
            attempt: 1,
            how: Taken::First,
        };
        entries.push(Entry::new(at, by, taken));
    }
    if let (Some((at, by)), Some(outcome)) = (when(ENDED), &file.outcome) {
        let ended = What::file_ended(file.s3_key, outcome, file.counts, file.manifest.is_some());
        entries.push(Entry::new(at, by, ended));
    }
    entries
}

/// What tells an entry that a row shows from every other: its kind, and the file or the event's message.
fn shown_as(entry: &Entry) -> Option<(&'static str, &str)> {
    let of = match &entry.what {
        What::EventTaken { .. } => entry.cause.as_deref()?,
        What::FileAnnounced { file, .. } | What::FileEnded { file, .. } => file,
        What::FileTaken { file, how, .. } if *how == Taken::First => file,
        _ => return None,
    };
    Some((entry.what.kind(), of))
}

fn encode(entry: &Entry) -> Result<String, Error> {
    serde_json::to_string(entry).map_err(|error| Error::unreadable("an entry of a timeline", error))
}

/// An entry that this release can't read is one of an unknown kind: support still sees that something happened.
fn read(item: &Item) -> Entry {
    let reader = Reader::new(item, "an entry of a timeline");
    reader
        .optional_text("entry")
        .and_then(|entry| serde_json::from_str(entry).ok())
        .unwrap_or_else(|| {
            let at = reader.optional_instant("at").unwrap_or_default();
            Entry::new(at, Actor::Unknown, What::Unknown)
        })
}
