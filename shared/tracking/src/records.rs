use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use landfall_transfer::{ChainId, TenantId};

use crate::error::Error;
use crate::item::{Item, Reader, text};
use crate::keys;
use crate::store::Store;
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
    /// The rewritten record as JSON.
    pub record: String,
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

fn record_row(tenant: &TenantId, chain: &ChainId, record: &RecordKey) -> Key {
    let sort = record.sort_key();
    let first = digest(&SHA256, sort.as_bytes())
        .as_ref()
        .first()
        .copied()
        .unwrap_or_default();
    let partition = format!(
        "RECORD#{}#{}#{:02}",
        keys::part(tenant.as_str()),
        keys::part(chain.as_str()),
        first % RECORD_SHARDS
    );
    Key::new(partition, sort)
}

impl Store {
    /// The content hashes under which the records table has these records of the chain; those that aren't there are left out.
    pub async fn known_records(
        &self,
        tenant: &TenantId,
        chain: &ChainId,
        records: &[RecordKey],
    ) -> Result<HashMap<RecordKey, String>, Error> {
        let mut known = HashMap::with_capacity(records.len());
        for some in records.chunks(BATCH_GET_MAX) {
            let by_key: HashMap<Key, &RecordKey> = some
                .iter()
                .map(|record| (record_row(tenant, chain, record), record))
                .collect();
            let mut wanted: Vec<Key> = by_key.keys().cloned().collect();
            wanted.sort_unstable();
            while !wanted.is_empty() {
                let (found, unprocessed) = self
                    .table
                    .get_many(Which::Records, wanted, &["content_hash"])
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
pub(crate) fn put_landed(tenant: &TenantId, chain: &ChainId, landed: &Landed) -> Write {
    // Nothing of the attempt goes in: after any number of re-runs the target is as after one clean run.
    let item = Item::from([
        ("content_hash".into(), text(&landed.content_hash)),
        ("tenant".into(), text(tenant.as_str())),
        ("chain".into(), text(chain.as_str())),
        ("label".into(), text(&landed.key.label)),
        ("key".into(), text(&landed.key.key)),
        ("record".into(), text(&landed.record)),
    ]);
    Write::put(record_row(tenant, chain, &landed.key), item).within(Which::Records)
}
