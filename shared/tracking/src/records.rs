use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use landfall_transfer::{ChainId, TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::item::{Item, Reader, instant, number, text};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Which, Write};

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

fn record_row(target: LandedTarget, tenant: &TenantId, chain: &ChainId, record: &RecordKey) -> Key {
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
    Key::new(partition, sort)
}

impl LandedTarget {
    const fn table(self) -> Which {
        match self {
            Self::Records => Which::Records,
            Self::Ledger => Which::Tracking,
        }
    }
}

impl Store {
    /// The content hashes under which the chain has already applied these records; what it doesn't know is left out.
    pub async fn known_records(
        &self,
        target: LandedTarget,
        tenant: &TenantId,
        chain: &ChainId,
        records: &[RecordKey],
    ) -> Result<HashMap<RecordKey, String>, Error> {
        let mut known = HashMap::with_capacity(records.len());
        for some in records.chunks(BATCH_GET_MAX) {
            let by_key: HashMap<Key, &RecordKey> = some
                .iter()
                .map(|record| (record_row(target, tenant, chain, record), record))
                .collect();
            let mut wanted: Vec<Key> = by_key.keys().cloned().collect();
            wanted.sort_unstable();
            while !wanted.is_empty() {
                let (found, unprocessed) = self
                    .table
                    .get_many(target.table(), wanted, &["content_hash"])
                    .await?;
                for (key, item) in found {
                    let hash = Reader::new(&item, "a record's row").text("content_hash")?;
                    if let Some(record) = by_key.get(&key) {
                        known.insert((*record).clone(), hash.to_owned());
                    }
                }
                // What there was no capacity for comes back; the service's own retries pace the calls.
                wanted = unprocessed;
            }
        }
        Ok(known)
    }
}

/// The write of a record that arrived.
pub(crate) fn put_landed(
    target: LandedTarget,
    tenant: &TenantId,
    chain: &ChainId,
    landed: &Landed,
    now: Timestamp,
) -> Write {
    let mut item = Item::new();
    let mut set = |name: &'static str, value| item.insert(name.into(), value);
    set("content_hash", text(&landed.content_hash));
    if let Some(record) = &landed.record {
        // Nothing of the attempt goes in: after any number of re-runs the target is as after one clean run.
        set("tenant", text(tenant.as_str()));
        set("chain", text(chain.as_str()));
        set("label", text(&landed.key.label));
        set("key", text(&landed.key.key));
        set("record", text(record));
    } else {
        set("expires_at", history_expires(now));
    }
    Write::put(record_row(target, tenant, chain, &landed.key), item).within(target.table())
}

/// The write of a record that did not arrive.
pub(crate) fn put_rejected(
    tenant: &TenantId,
    transfer: &TransferId,
    s3_key: &str,
    rejected: &Rejected,
    now: Timestamp,
) -> Write {
    let sort = format!(
        "EXCEPTION#{}#{:012}",
        keys::part(s3_key),
        rejected.record_number
    );
    let mut item = Item::new();
    let mut set = |name: &'static str, value| item.insert(name.into(), value);
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
    set("expires_at", history_expires(now));
    Write::put(Key::new(keys::transfer(tenant, transfer), sort), item)
}
