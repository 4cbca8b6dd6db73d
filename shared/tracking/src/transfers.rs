use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::{ChainId, Clocks, Phase, TenantId, Timestamp, Transfer, TransferId};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::item::{Item, Reader, instant, number, text};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Write};
use crate::timeline::Told;

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

/// The newest version that this release knows.
const VERSION: u32 = 2;

/// The version that a transfer is written in. Of staged ones 1 knows nothing: a release that would take one for another leaves it alone.
const fn version_of(transfer: &Transfer) -> u32 {
    if transfer.staging.is_some() { 2 } else { 1 }
}

impl Store {
    /// Reads a transfer; none when it was never seen.
    pub async fn transfer(
        &self,
        tenant: &TenantId,
        id: &TransferId,
    ) -> Result<Option<Stored>, Error> {
        let item = self
            .table
            .get(&keys::transfer_state(tenant, id), true)
            .await?;
        item.as_ref().map(read).transpose()
    }

    /// Writes a transfer that was never seen, and lists it under its chain, both or neither.
    /// [`Error::Conflict`] when it exists.
    pub async fn create(
        &self,
        transfer: &Transfer,
        told: &Told,
        clocks: &Clocks,
    ) -> Result<Stored, Error> {
        let stored = Stored {
            transfer: transfer.clone(),
            version: 1,
        };
        let state = row(&stored, clocks)?.if_absent();
        let mut writes = vec![state, list_attempt(transfer)];
        writes.extend(told.writes(&stored, self.actor())?);
        self.transact(writes).await?;
        Ok(stored)
    }

    /// Writes a transfer's new state over the one that was read, and what is told of it, both or neither.
    /// [`Error::Conflict`] when somebody else was faster.
    pub async fn save(
        &self,
        read: &Stored,
        transfer: Transfer,
        told: &Told,
        clocks: &Clocks,
    ) -> Result<Stored, Error> {
        let (write, next) = Self::over(read, transfer, clocks)?;
        if told.what.is_empty() {
            self.write(write).await?;
        } else {
            let mut writes = vec![write];
            writes.extend(told.writes(&next, self.actor())?);
            self.transact(writes).await?;
        }
        Ok(next)
    }

    /// Writes that a transfer belongs to a chain that was not known before, and lists it there, both or neither.
    pub async fn join_chain(
        &self,
        read: &Stored,
        transfer: Transfer,
        told: &Told,
        clocks: &Clocks,
    ) -> Result<Stored, Error> {
        let listed = list_attempt(&transfer);
        let (state, next) = Self::over(read, transfer, clocks)?;
        let mut writes = vec![state, listed];
        writes.extend(told.writes(&next, self.actor())?);
        self.transact(writes).await?;
        Ok(next)
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

    /// The write of a transfer's new state over the one that was read, alone or in a transaction with others.
    pub(crate) fn over(
        read: &Stored,
        transfer: Transfer,
        clocks: &Clocks,
    ) -> Result<(Write, Stored), Error> {
        let next = read.next(transfer);
        let write = row(&next, clocks)?;
        if is_planted(SeededBug::VersionIgnored) {
            return Ok((write, next));
        }
        Ok((write.only_if("version", number(read.version)), next))
    }
}

/// The write that lists an attempt under its chain. Writing it again changes nothing.
fn list_attempt(transfer: &Transfer) -> Write {
    let chain = transfer.chain();
    let sort = format!(
        "{}{:015}#{}",
        keys::ATTEMPT,
        transfer.first_seen_at.as_millis(),
        keys::part(transfer.id.as_str())
    );
    let expires = history_expires(transfer.first_seen_at);
    let attempt = Item::from([
        ("transfer_id".into(), text(transfer.id.as_str())),
        ("original_transfer_id".into(), text(chain.as_str())),
        ("first_seen_at".into(), instant(transfer.first_seen_at)),
        ("expires_at".into(), expires),
    ]);
    Write::put(
        Key::new(keys::chain(&transfer.tenant, &chain), sort),
        attempt,
    )
}

impl Stored {
    /// The version that a write must find.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    const fn next(&self, transfer: Transfer) -> Self {
        Self {
            transfer,
            version: self.version + 1,
        }
    }
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
fn row(stored: &Stored, clocks: &Clocks) -> Result<Write, Error> {
    let transfer = &stored.transfer;
    let state = serde_json::to_string(&State {
        v: version_of(&stored.transfer),
        transfer: transfer.clone(),
    })
    .map_err(|error| Error::unreadable("a transfer's state", error))?;
    let key = keys::transfer_state(&transfer.tenant, &transfer.id);
    let mut item = Item::new();
    let mut set = |name: &'static str, value| item.insert(name.into(), value);
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
    set("expires_at", history_expires(transfer.first_seen_at));
    if let Some(due) = transfer.due_at(clocks) {
        set("due_shard", text(keys::due_shard(&key)));
        set("due_at", instant(due));
    }
    Ok(Write::put(key, item))
}
