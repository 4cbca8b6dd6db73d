use aws_lc_rs::digest::{SHA256, digest};
use landfall_transfer::timeline::{Actor, Entry, What};
use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
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

    /// A transfer's timeline, from the first sight on.
    pub async fn timeline(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Vec<Entry>, Error> {
        let rows = self
            .rows(&keys::transfer(tenant, transfer), keys::LOG)
            .await?;
        Ok(rows.iter().map(read).collect())
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
