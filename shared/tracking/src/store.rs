use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use landfall_transfer::Timestamp;
use landfall_transfer::clocks::own;
use landfall_transfer::timeline::Actor;

use crate::error::Error;
use crate::item::{Item, Value, number};
use crate::table::{Key, Returning, Table, Write};
use crate::vault::Vault;

/// The tracking table, the vault in which its secrets are sealed, and the table that records land in when the sink is DynamoDB.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) vault: Arc<Vault>,
    clock: Clock,
    actor: Actor,
}

/// When a row that serves to recognise repeats expires, in seconds since the Unix epoch.
pub(crate) fn dedupe_expires(from: Timestamp) -> Value {
    number((from + own::DEDUPE_LIFE).as_seconds())
}

/// When a row that support reads expires, in seconds since the Unix epoch.
pub(crate) fn history_expires(from: Timestamp) -> Value {
    number((from + own::HISTORY_LIFE).as_seconds())
}

impl Store {
    /// Works on this table, and seals secrets with this vault; the clock is for pauses between races.
    pub fn new(table: Arc<dyn Table>, vault: Arc<Vault>, clock: Clock) -> Self {
        Self {
            table,
            vault,
            clock,
            actor: Actor::Unknown,
        }
    }

    /// The same store for one function, whose name the timelines then carry.
    #[must_use]
    pub fn acting_as(self, actor: Actor) -> Self {
        Self { actor, ..self }
    }

    /// Who writes the timelines.
    pub const fn actor(&self) -> Actor {
        self.actor
    }

    /// Opens a connection while nobody waits for it, so that the first event doesn't pay for the TLS handshake.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let nowhere = Key::new("WARM#UP", "WARM#UP");
        self.table.get(&nowhere, false).await.map(drop)
    }

    pub(crate) async fn write(&self, write: Write) -> Result<(), Error> {
        self.table.write(write, Returning::Nothing).await?;
        Ok(())
    }

    pub(crate) async fn transact(&self, writes: Vec<Write>) -> Result<(), Error> {
        self.table.transact(writes).await
    }

    /// All rows of a partition whose sort key begins with `prefix`, page by page.
    pub(crate) async fn rows(&self, partition: &str, prefix: &str) -> Result<Vec<Item>, Error> {
        let rows = self.rows_with_keys(partition, prefix).await?;
        Ok(rows.into_iter().map(|(_, item)| item).collect())
    }

    /// The same with their keys.
    pub(crate) async fn rows_with_keys(
        &self,
        partition: &str,
        prefix: &str,
    ) -> Result<Vec<(Key, Item)>, Error> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = self.table.query(partition, prefix, after, None).await?;
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Lets the faster writer finish: 32 ms, somewhat more than a transaction takes, doubling to a quarter of a second.
    pub(crate) async fn pause(&self, race: u32) {
        let pause = Duration::from_millis(32 << race.min(3));
        self.clock.sleep(pause).await;
    }
}
