use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use landfall_transfer::{ChainId, Clocks, Phase, TenantId, Timestamp, Transfer, TransferId};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::item::{Item, Reader, instant, key, number, text};
use crate::keys;
use crate::store::{HISTORY_LIFE_SECONDS, Store};

/// A transfer as it was read, with the version that a write must still find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its state.
    pub transfer: Transfer,
    version: u64,
}

/// One attempt of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The attempt's transfer.
    pub transfer: TransferId,
    /// When we first saw it; attempts are listed in this order.
    pub first_seen_at: Timestamp,
}

/// How a transfer's state is written. A newer version than this release knows is refused, never rewritten.
#[derive(Serialize, Deserialize)]
struct State {
    v: u32,
    transfer: Transfer,
}

const VERSION: u32 = 1;

impl Store {
    /// Reads a transfer; none when it was never seen.
    pub async fn transfer(
        &self,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<Option<Stored>, Error> {
        let item = self
            .get(&keys::transfer(tenant, id), keys::STATE, true)
            .await?;
        item.as_ref().map(read).transpose()
    }

    /// Writes a transfer that was never seen, and lists it under its chain, both or neither.
    /// [`Error::Conflict`] when it exists.
    pub async fn create(&self, transfer: &Transfer, clocks: &Clocks) -> Result<Stored, Error> {
        let stored = Stored {
            transfer: transfer.clone(),
            version: 1,
        };
        let state = Put::builder()
            .table_name(&self.table)
            .set_item(Some(row(&stored, clocks)?))
            .condition_expression("attribute_not_exists(pk)");
        self.transact(vec![put(state)?, self.list_attempt(transfer)?])
            .await?;
        Ok(stored)
    }

    /// Writes a transfer's new state over the one that was read. [`Error::Conflict`] when somebody else was faster.
    pub async fn save(
        &self,
        read: &Stored,
        transfer: Transfer,
        clocks: &Clocks,
    ) -> Result<Stored, Error> {
        let next = read.next(transfer);
        self.client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(row(&next, clocks)?))
            .condition_expression("version = :read")
            .expression_attribute_values(":read", number(read.version))
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        Ok(next)
    }

    /// Writes that a transfer belongs to a chain that was not known before, and lists it there, both or neither.
    pub async fn join_chain(
        &self,
        read: &Stored,
        transfer: Transfer,
        clocks: &Clocks,
    ) -> Result<Stored, Error> {
        let listed = self.list_attempt(&transfer)?;
        let (state, next) = self.save_in_transaction(read, transfer, clocks)?;
        self.transact(vec![state, listed]).await?;
        Ok(next)
    }

    fn list_attempt(&self, transfer: &Transfer) -> Result<TransactWriteItem, Error> {
        let mut attempt = key(
            &keys::chain(&transfer.tenant, &transfer.chain()),
            &format!(
                "{}{:015}#{}",
                keys::ATTEMPT,
                transfer.first_seen_at.as_millis(),
                keys::part(transfer.id.as_str())
            ),
        );
        attempt.insert("transfer_id".to_owned(), text(transfer.id.as_str()));
        attempt.insert(
            "original_transfer_id".to_owned(),
            text(transfer.chain().as_str()),
        );
        attempt.insert("first_seen_at".to_owned(), instant(transfer.first_seen_at));
        attempt.insert(
            "expires_at".to_owned(),
            number(transfer.first_seen_at.as_seconds() + HISTORY_LIFE_SECONDS),
        );
        put(Put::builder()
            .table_name(&self.table)
            .set_item(Some(attempt)))
    }

    /// The attempts of a chain, the first seen first.
    pub async fn attempts(
        &self,
        tenant: &TenantId,
        chain: &ChainId,
    ) -> Result<Vec<Attempt>, Error> {
        let rows = self
            .rows(&keys::chain(tenant, chain), keys::ATTEMPT)
            .await?;
        rows.iter()
            .map(|item| {
                let reader = Reader::new(item, "an attempt's row");
                Ok(Attempt {
                    transfer: TransferId::new(reader.text("transfer_id")?),
                    first_seen_at: reader.optional_instant("first_seen_at").unwrap_or_default(),
                })
            })
            .collect()
    }

    /// The same write as [`Store::save`], to go into a transaction with others.
    pub(crate) fn save_in_transaction(
        &self,
        read: &Stored,
        transfer: Transfer,
        clocks: &Clocks,
    ) -> Result<(TransactWriteItem, Stored), Error> {
        let next = read.next(transfer);
        let write = Put::builder()
            .table_name(&self.table)
            .set_item(Some(row(&next, clocks)?))
            .condition_expression("version = :read")
            .expression_attribute_values(":read", number(read.version));
        Ok((put(write)?, next))
    }
}

impl Stored {
    const fn next(&self, transfer: Transfer) -> Self {
        Self {
            transfer,
            version: self.version + 1,
        }
    }
}

pub(crate) fn put(
    put: aws_sdk_dynamodb::types::builders::PutBuilder,
) -> Result<TransactWriteItem, Error> {
    let put = put
        .build()
        .map_err(|error| Error::Refused(error.to_string()))?;
    Ok(TransactWriteItem::builder().put(put).build())
}

fn read(item: &Item) -> Result<Stored, Error> {
    let reader = Reader::new(item, "a transfer's row");
    let state: State = serde_json::from_str(reader.text("state")?)
        .map_err(|error| Error::unreadable("a transfer's row", error))?;
    if state.v > VERSION {
        return Err(Error::unreadable(
            "a transfer's row",
            format!("version {} is newer than this release", state.v),
        ));
    }
    Ok(Stored {
        transfer: state.transfer,
        version: reader.number("version")?,
    })
}

/// The whole row: the state for us, and beside it what support and tests look for.
fn row(stored: &Stored, clocks: &Clocks) -> Result<Item, Error> {
    let transfer = &stored.transfer;
    let state = serde_json::to_string(&State {
        v: VERSION,
        transfer: transfer.clone(),
    })
    .map_err(|error| Error::unreadable("a transfer's state", error))?;
    let pk = keys::transfer(&transfer.tenant, &transfer.id);
    let mut item = key(&pk, keys::STATE);
    let mut set = |name: &str, value| item.insert(name.to_owned(), value);
    set("kind", text("transfer"));
    set("state", text(state));
    set("version", number(stored.version));
    set("tenant", text(transfer.tenant.as_str()));
    set("transfer_id", text(transfer.id.as_str()));
    set("chain", text(transfer.chain().as_str()));
    if let Some(original) = &transfer.original {
        set("original_transfer_id", text(original.as_str()));
    }
    set("phase", text(transfer.phase.as_str()));
    let (verdict, status, settled_by) = match &transfer.phase {
        Phase::Settling(settlement) => (Some(&settlement.verdict), None, None),
        Phase::Settled(settled) => (
            settled.verdict.as_ref(),
            settled.status.as_deref(),
            Some(&settled.by),
        ),
        _ => (None, None, None),
    };
    if let Some(verdict) = verdict {
        set("verdict", text(verdict.status.as_str()));
        set("verdict_cause", text(verdict.cause.as_str()));
        set("verdict_message", text(&verdict.message));
        set("verdict_decided_at", instant(verdict.decided_at));
    }
    if let Some(status) = status {
        set("status", text(status));
    }
    if let Some(by) = settled_by {
        set(
            "settled_by",
            text(match by {
                landfall_transfer::SettledBy::App => "app",
                landfall_transfer::SettledBy::Platform => "platform",
                landfall_transfer::SettledBy::Rerun(_) => "re-run",
            }),
        );
    }
    let counts = transfer.work.counts;
    for (name, value) in [
        ("files_known", transfer.work.files_known),
        ("files_ended", transfer.work.files_ended),
        ("records_read", counts.read),
        ("records_applied", counts.applied),
        ("records_unchanged", counts.unchanged),
        ("records_held", counts.held),
        ("records_rejected", counts.rejected),
        ("last_percent", u64::from(transfer.last_percent)),
    ] {
        set(name, number(value));
    }
    set("created_at", instant(transfer.created_at));
    set("first_seen_at", instant(transfer.first_seen_at));
    set(
        "expires_at",
        number(transfer.first_seen_at.as_seconds() + HISTORY_LIFE_SECONDS),
    );
    if let Some(due) = transfer.due_at(clocks) {
        set("due_shard", text(keys::due_shard(&pk, keys::STATE)));
        set("due_at", instant(due));
    }
    Ok(item)
}
