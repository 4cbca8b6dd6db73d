use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TransactWriteItem;

use crate::error::Error;
use crate::item::Item;

/// The tracking table, and the table that records land in when the sink is DynamoDB.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) client: Client,
    pub(crate) table: String,
    pub(crate) records_table: String,
}

/// Longest life of what serves to recognise repeats: longer than any transfer (14 days, PROTOCOL.md 2.4).
pub(crate) const DEDUPE_LIFE_SECONDS: i64 = 30 * 86_400;

/// How long support can look a transfer up after it was first seen.
pub(crate) const HISTORY_LIFE_SECONDS: i64 = 400 * 86_400;

const _: () = assert!(DEDUPE_LIFE_SECONDS > 14 * 86_400);

impl Store {
    /// Works on the given tables. The client brings time-outs and retries.
    pub fn new(client: Client, table: impl Into<String>, records_table: impl Into<String>) -> Self {
        Self {
            client,
            table: table.into(),
            records_table: records_table.into(),
        }
    }

    /// Opens a connection while nobody waits for it, so that the first event doesn't pay for the TLS handshake.
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.get("WARM#UP", "WARM#UP", false).await.map(|_| ())
    }

    pub(crate) async fn get(
        &self,
        pk: &str,
        sk: &str,
        consistent: bool,
    ) -> Result<Option<Item>, Error> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(crate::item::key(pk, sk)))
            .consistent_read(consistent)
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        Ok(answer.item)
    }

    pub(crate) async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<(), Error> {
        self.client
            .transact_write_items()
            .set_transact_items(Some(writes))
            .send()
            .await
            .map_err(|error| Error::of_transaction(&error))?;
        Ok(())
    }

    /// All rows of a partition whose sort key begins with `prefix`, page by page.
    pub(crate) async fn rows(&self, pk: &str, prefix: &str) -> Result<Vec<Item>, Error> {
        let mut rows = Vec::new();
        let mut from = None;
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":pk", crate::item::text(pk))
                .expression_attribute_values(":prefix", crate::item::text(prefix))
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| Error::of(&error))?;
            rows.extend(page.items.unwrap_or_default());
            match page.last_evaluated_key {
                Some(key) if !key.is_empty() => from = Some(key),
                _ => return Ok(rows),
            }
        }
    }
}
