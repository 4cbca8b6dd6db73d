use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::events::EventRow;
use crate::files::{File, read_file};
use crate::item::{Reader, instant, number};
use crate::keys;
use crate::store::Store;
use crate::table::{DueEntry, Key, Returning, Write, WriteError};

/// A row of the sparse index: something may be owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    key: Key,
    /// Since when it is owed.
    pub at: Timestamp,
}

/// What a due row is, read from the table itself.
#[derive(Clone, Debug)]
pub enum DueItem {
    /// A transfer that isn't settled.
    Transfer(TenantId, TransferId),
    /// A file whose message, or whose worker, may be missing.
    File(Box<File>),
    /// An event whose message may be missing.
    Event(Box<EventRow>),
    /// A tenant whose regular comparison with the platform is due.
    Tenant(TenantId),
    /// The index was behind: it is no longer due.
    Gone,
}

/// One page of due rows.
#[derive(Clone, Debug, Default)]
pub struct DuePage {
    /// The rows, the longest due first.
    pub rows: Vec<Due>,
    next: Option<DueEntry>,
}

impl DuePage {
    /// Whether another page follows.
    pub const fn has_next(&self) -> bool {
        self.next.is_some()
    }
}

/// Rows of one page of the index. A page that must be skipped costs no more than this.
const PAGE: usize = 50;

impl Store {
    /// Partitions of the sparse index; a sweep asks each of them.
    pub fn due_shards() -> impl Iterator<Item = u64> {
        0..keys::DUE_SHARDS
    }

    /// What is due in one partition of the index up to `now`, page by page. The index lags behind the table, so what a
    /// row says is only a hint: [`Store::due_item`] reads the truth.
    pub async fn due(
        &self,
        shard: u64,
        now: Timestamp,
        after: Option<DuePage>,
    ) -> Result<DuePage, Error> {
        let shard = format!("DUE#{shard}");
        let after = after.and_then(|page| page.next);
        let found = self.table.due(&shard, now.as_millis(), PAGE, after).await?;
        Ok(DuePage {
            rows: found
                .entries
                .into_iter()
                .map(|entry| Due {
                    key: entry.key,
                    at: Timestamp::from_millis(entry.at),
                })
                .collect(),
            next: found.next,
        })
    }

    /// Reads what a due row is now.
    pub async fn due_item(&self, due: &Due, now: Timestamp) -> Result<DueItem, Error> {
        let Some(item) = self.table.get(&due.key, true).await? else {
            return Ok(DueItem::Gone);
        };
        let reader = Reader::new(&item, "a due row");
        match reader.optional_instant("due_at") {
            Some(at) if at <= now => {}
            _ => return Ok(DueItem::Gone),
        }
        let kind = reader.text("kind")?;
        if kind == "file" {
            return Ok(DueItem::File(Box::new(read_file(&due.key, &item)?)));
        }
        let tenant = TenantId::new(reader.text("tenant")?);
        match kind {
            "transfer" => Ok(DueItem::Transfer(
                tenant,
                TransferId::new(reader.text("transfer_id")?),
            )),
            "tenant" => Ok(DueItem::Tenant(tenant)),
            "event" => Ok(DueItem::Event(Box::new(EventRow {
                tenant,
                transfer: reader.optional_text("transfer_id").map(TransferId::new),
                message_id: reader.text("message_id")?.to_owned(),
                event_type: reader.text("event_type")?.to_owned(),
                body: reader.text("event")?.to_owned(),
                received_at: reader.optional_instant("received_at").unwrap_or_default(),
            }))),
            kind => Err(Error::unreadable(
                "a due row",
                format!("kind {kind} is not known to this release"),
            )),
        }
    }

    /// Moves a due row on, unless somebody else has. Whoever gets `true` does what was owed; a crash before it is done
    /// leaves the row due again at `next`.
    pub async fn postpone(&self, due: &Due, next: Timestamp) -> Result<bool, Error> {
        self.move_on(moved_on(due, next)).await
    }

    /// Likewise a file's row, unless somebody has taken the file up since it was read: its lease may end before `next`.
    pub async fn postpone_file(
        &self,
        due: &Due,
        read: &File,
        next: Timestamp,
    ) -> Result<bool, Error> {
        let moved = moved_on(due, next).only_if("fence", number(read.fence));
        self.move_on(moved).await
    }

    async fn move_on(&self, moved: Write) -> Result<bool, Error> {
        match self.table.write(moved, Returning::Nothing).await {
            Ok(_) => Ok(true),
            Err(WriteError::ConditionFailed(_)) => Ok(false),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }
}

fn moved_on(due: &Due, next: Timestamp) -> Write {
    Write::update(due.key.clone())
        .only_if("due_at", instant(due.at))
        .set("due_at", instant(next))
}
