use std::sync::Arc;

use landfall_tracking::{Item, Key, Store, Value};
use landfall_transfer::Timestamp;

/// Rows of a kind that this release doesn't know, due now, so many in each partition of the index.
pub(super) fn strange_rows(each: u64, now: Timestamp) -> impl Iterator<Item = (Key, Arc<Item>)> {
    let places = Store::due_shards().flat_map(move |shard| (0..each).map(move |row| (shard, row)));
    places.map(move |(shard, row)| {
        let item = Item::from([
            ("kind".into(), Value::Text("strange".to_owned())),
            ("tenant".into(), Value::Text("strange".to_owned())),
            ("due_shard".into(), Value::Text(format!("DUE#{shard}"))),
            ("due_at".into(), Value::Number(now.as_millis())),
        ]);
        // Whatever is left of a tenant's rows is no transfer's.
        let key = Key::new("TENANT#strange", format!("{shard}-{row}"));
        (key, Arc::new(item))
    })
}
