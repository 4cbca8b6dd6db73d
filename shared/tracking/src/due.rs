use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::events::EventRow;
use crate::files::{File, read_file};
use crate::item::{Item, Reader, instant, key, text};
use crate::keys;
use crate::store::Store;

/// A row of the sparse index: something may be owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pk: String,
    sk: String,
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
    next: Option<Item>,
}

impl DuePage {
    /// Whether another page follows.
    pub const fn has_next(&self) -> bool {
        self.next.is_some()
    }
}

/// Rows of one page of the index. A page that must be skipped costs no more than this.
const PAGE: i32 = 50;

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
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :now")
            .expression_attribute_values(":shard", text(format!("DUE#{shard}")))
            .expression_attribute_values(":now", instant(now))
            .limit(PAGE)
            .set_exclusive_start_key(after.and_then(|page| page.next))
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        let rows = answer
            .items
            .unwrap_or_default()
            .iter()
            .map(|item| {
                let reader = Reader::new(item, "a row of the due index");
                Ok(Due {
                    pk: reader.text("pk")?.to_owned(),
                    sk: reader.text("sk")?.to_owned(),
                    at: reader.optional_instant("due_at").unwrap_or_default(),
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(DuePage {
            rows,
            next: answer.last_evaluated_key.filter(|key| !key.is_empty()),
        })
    }

    /// Reads what a due row is now.
    pub async fn due_item(&self, due: &Due, now: Timestamp) -> Result<DueItem, Error> {
        let Some(item) = self.get(&due.pk, &due.sk, true).await? else {
            return Ok(DueItem::Gone);
        };
        let reader = Reader::new(&item, "a due row");
        match reader.optional_instant("due_at") {
            Some(at) if at <= now => {}
            _ => return Ok(DueItem::Gone),
        }
        let tenant = TenantId::new(reader.text("tenant")?);
        match reader.text("kind")? {
            "transfer" => Ok(DueItem::Transfer(
                tenant,
                TransferId::new(reader.text("transfer_id")?),
            )),
            "tenant" => Ok(DueItem::Tenant(tenant)),
            "file" => Ok(DueItem::File(Box::new(read_file(&item)?))),
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
        self.move_due(&due.pk, &due.sk, due.at, Some(next)).await
    }

    pub(crate) async fn move_due(
        &self,
        pk: &str,
        sk: &str,
        due: Timestamp,
        next: Option<Timestamp>,
    ) -> Result<bool, Error> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(pk, sk)))
            .condition_expression("due_at = :due")
            .expression_attribute_values(":due", instant(due));
        let update = match next {
            Some(next) => update
                .update_expression("SET due_at = :next")
                .expression_attribute_values(":next", instant(next)),
            None => update.update_expression("REMOVE due_shard, due_at"),
        };
        match update.send().await.map_err(|error| Error::of(&error)) {
            Ok(_) => Ok(true),
            Err(Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
