use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::files::File;
use crate::item::{Item, Reader, Value};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Write};

/// A page of the used mappings that were kept with a transfer.
#[derive(Clone, Debug)]
pub struct KeptMappings {
    /// The pieces, packed as they were given.
    pub pieces: Vec<Vec<u8>>,
    /// What the next page is asked for with; none on the last one.
    pub next: Option<Key>,
}

impl Store {
    /// Keeps some of the mappings that a transfer used, packed; a piece of the same place of the file replaces it. It costs a write unit for each
    /// KB, and so is no transaction with the fencing token: only a worker whose lease is fresh may call this, and a settlement waits for leases.
    pub async fn keep_mappings(
        &self,
        file: &File,
        place: &str,
        packed: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let item = Item::from([
            ("packed".into(), Value::Bytes(packed)),
            ("expires_at".into(), history_expires(now)),
        ]);
        let key = keys::mappings(&file.tenant, &file.transfer, &file.s3_key, place);
        self.write(Write::put(key, item)).await
    }

    /// A page of the mappings that were kept with a transfer, file by file and in the order of their places.
    pub async fn kept_mappings(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        after: Option<Key>,
    ) -> Result<KeptMappings, Error> {
        let partition = keys::transfer(tenant, transfer);
        let page = self
            .table
            .query(&partition, keys::MAPPINGS, after, None)
            .await?;
        let packed = |(_, item): &(Key, Item)| {
            let reader = Reader::new(item, "used mappings");
            reader.bytes("packed").map(<[u8]>::to_vec)
        };
        Ok(KeptMappings {
            pieces: page.rows.iter().filter_map(packed).collect(),
            next: page.next,
        })
    }
}
