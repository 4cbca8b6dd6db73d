use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_dynamodb::types::{KeysAndAttributes, Put, TransactWriteItem};
use landfall_transfer::{ChainId, TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::item::{Item, Reader, instant, key, number, text};
use crate::keys;
use crate::store::{HISTORY_LIFE_SECONDS, Store};
use crate::transfers::put;

/// A record's identity within its chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The file's label; empty when the server app gave none.
    pub label: String,
    /// The natural key, or the content's hash where none is declared.
    pub key: String,
}

/// A record that arrived.
#[derive(Clone, Debug)]
pub struct Landed {
    /// Its identity.
    pub key: RecordKey,
    /// Hash of the rewritten record, in hexadecimal.
    pub content_hash: String,
    /// The rewritten record as JSON, when DynamoDB is where it lands.
    pub record: Option<String>,
}

/// A record that did not arrive. Its content is not kept.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Its number within the file, from 1.
    pub record_number: u64,
    /// `rejected` or `held`.
    pub outcome: &'static str,
    /// Its natural key, when it was read as far as that.
    pub key: Option<String>,
    /// The namespace of the mapping that missed.
    pub namespace: Option<String>,
    /// Why.
    pub reason: String,
}

/// Which table a chain's records land in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandedTarget {
    /// The records table: DynamoDB is the sink, and the record is its own ledger entry.
    Records,
    /// The tracking table: the partner's service has the record, and only its hash is kept.
    Ledger,
}

/// A chain's records are spread over this many partitions, so that one large chain is not bound to the throughput of one
/// partition (1,000 write units a second, AWS DynamoDB limits).
const RECORD_SHARDS: u8 = 16;

/// Longest record key that is stored as it is; DynamoDB allows 1,024 bytes for a whole sort key.
const PLAIN_KEY_MAX: usize = 900;

/// Most keys that one `BatchGetItem` takes (AWS DynamoDB limits).
const BATCH_GET_MAX: usize = 100;

impl RecordKey {
    fn sort_key(&self) -> String {
        let label = digest(&SHA256, self.label.as_bytes());
        let label = hex::encode(label.as_ref().get(..8).unwrap_or_default());
        if self.key.len() <= PLAIN_KEY_MAX {
            format!("{label}#{}", self.key)
        } else {
            format!(
                "{label}##{}",
                hex::encode(digest(&SHA256, self.key.as_bytes()))
            )
        }
    }
}

fn record_item_key(
    target: LandedTarget,
    tenant: &TenantId,
    chain: &ChainId,
    record: &RecordKey,
) -> Item {
    let sort = record.sort_key();
    let first = digest(&SHA256, sort.as_bytes())
        .as_ref()
        .first()
        .copied()
        .unwrap_or_default();
    let kind = match target {
        LandedTarget::Records => "RECORD",
        LandedTarget::Ledger => "LEDGER",
    };
    let partition = format!(
        "{kind}#{}#{}#{:02}",
        keys::part(tenant.as_str()),
        keys::part(chain.as_str()),
        first % RECORD_SHARDS
    );
    key(&partition, &sort)
}

impl Store {
    fn record_table(&self, target: LandedTarget) -> &str {
        match target {
            LandedTarget::Records => &self.records_table,
            LandedTarget::Ledger => &self.table,
        }
    }

    /// The content hashes under which the chain has already applied these records; what it doesn't know is left out.
    pub async fn known_records(
        &self,
        target: LandedTarget,
        tenant: &TenantId,
        chain: &ChainId,
        records: &[RecordKey],
    ) -> Result<HashMap<RecordKey, String>, Error> {
        let mut known = HashMap::with_capacity(records.len());
        let table = self.record_table(target);
        for some in records.chunks(BATCH_GET_MAX) {
            let by_sort: HashMap<String, &RecordKey> = some
                .iter()
                .map(|record| (record.sort_key(), record))
                .collect();
            let unique: HashSet<&RecordKey> = some.iter().collect();
            let mut wanted: Vec<Item> = unique
                .into_iter()
                .map(|record| record_item_key(target, tenant, chain, record))
                .collect();
            while !wanted.is_empty() {
                let request = KeysAndAttributes::builder()
                    .set_keys(Some(wanted))
                    .consistent_read(true)
                    .projection_expression("sk, content_hash")
                    .build()
                    .map_err(|error| Error::Refused(error.to_string()))?;
                let answer = self
                    .client
                    .batch_get_item()
                    .request_items(table, request)
                    .send()
                    .await
                    .map_err(|error| Error::of(&error))?;
                for item in answer
                    .responses
                    .unwrap_or_default()
                    .remove(table)
                    .unwrap_or_default()
                {
                    let reader = Reader::new(&item, "a record's row");
                    if let Some(record) = by_sort.get(reader.text("sk")?) {
                        known.insert((*record).clone(), reader.text("content_hash")?.to_owned());
                    }
                }
                // Throttled keys come back; the SDK's own retries pace the calls.
                wanted = answer
                    .unprocessed_keys
                    .unwrap_or_default()
                    .remove(table)
                    .map(|rest| rest.keys)
                    .unwrap_or_default();
            }
        }
        Ok(known)
    }

    pub(crate) fn put_landed(
        &self,
        target: LandedTarget,
        tenant: &TenantId,
        chain: &ChainId,
        landed: &Landed,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        let mut item = record_item_key(target, tenant, chain, &landed.key);
        item.insert("content_hash".to_owned(), text(&landed.content_hash));
        if let Some(record) = &landed.record {
            // Nothing of the attempt goes in: after any number of re-runs the target is as after one clean run.
            item.insert("tenant".to_owned(), text(tenant.as_str()));
            item.insert("chain".to_owned(), text(chain.as_str()));
            item.insert("label".to_owned(), text(&landed.key.label));
            item.insert("key".to_owned(), text(&landed.key.key));
            item.insert("record".to_owned(), text(record));
        } else {
            item.insert(
                "expires_at".to_owned(),
                number(now.as_seconds() + HISTORY_LIFE_SECONDS),
            );
        }
        put(Put::builder()
            .table_name(self.record_table(target))
            .set_item(Some(item)))
    }

    pub(crate) fn put_rejected(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
        rejected: &Rejected,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        let sort = format!(
            "EXCEPTION#{}#{:012}",
            keys::part(s3_key),
            rejected.record_number
        );
        let mut item = key(&keys::transfer(tenant, transfer), &sort);
        let mut set = |name: &str, value| item.insert(name.to_owned(), value);
        set("kind", text("exception"));
        set("outcome", text(rejected.outcome));
        set("record_number", number(rejected.record_number));
        if let Some(key) = &rejected.key {
            set("key", text(key));
        }
        if let Some(namespace) = &rejected.namespace {
            set("namespace", text(namespace));
        }
        set("reason", text(&rejected.reason));
        set("at", instant(now));
        set(
            "expires_at",
            number(now.as_seconds() + HISTORY_LIFE_SECONDS),
        );
        put(Put::builder().table_name(&self.table).set_item(Some(item)))
    }
}
