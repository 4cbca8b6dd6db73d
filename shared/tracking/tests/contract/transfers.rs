use std::time::Duration;

use landfall_tracking::{DueItem, Error, EventRow, Recorded, Store};
use landfall_transfer::{Clocks, Input, Transfer, TransferId};

use landfall_embedded::store;

use crate::table::{NOW, id, later, open_transfer, tenant, upload};

#[tokio::test]
async fn a_transfer_is_created_once_and_listed_under_its_chain() {
    let store = store().await;
    let original = TransferId::new("transfer-0");
    let transfer = Transfer::first_seen(tenant(), id(), Some(original), None, NOW);
    let stored = store.create(&transfer, &Clocks::default()).await.unwrap();
    assert!(matches!(
        store.create(&transfer, &Clocks::default()).await,
        Err(Error::Conflict)
    ));
    assert_eq!(
        store.transfer(&tenant(), &id()).await.unwrap().unwrap(),
        stored
    );
    let attempts = store.attempts(&tenant(), &transfer.chain()).await.unwrap();
    assert_eq!(
        attempts
            .iter()
            .map(|attempt| attempt.transfer.as_str())
            .collect::<Vec<_>>(),
        ["transfer-1"]
    );
}

#[tokio::test]
async fn of_two_writers_that_read_the_same_version_one_wins() {
    let store = store().await;
    let stored = open_transfer(&store).await;
    let mut changed = stored.transfer.clone();
    changed.apply(Input::ListenerTriggered, later(1), &Clocks::default());
    store
        .save(&stored, changed.clone(), &Clocks::default())
        .await
        .unwrap();
    assert!(matches!(
        store.save(&stored, changed, &Clocks::default()).await,
        Err(Error::Conflict)
    ));
}

#[tokio::test]
async fn an_event_is_stored_once_and_found_by_the_sweeper_until_it_is_handled() {
    let store = store().await;
    let event = EventRow {
        tenant: tenant(),
        transfer: Some(id()),
        message_id: "m-1".to_owned(),
        event_type: "listener-triggered".to_owned(),
        body: "{}".to_owned(),
        received_at: NOW,
    };
    let grace = Duration::from_mins(2);
    assert_eq!(
        store.record_event(&event, grace).await.unwrap(),
        Recorded::New
    );
    assert_eq!(
        store.record_event(&event, grace).await.unwrap(),
        Recorded::Duplicate
    );
    assert_eq!(due(&store, later(119)).await.len(), 0);
    assert!(matches!(
        due(&store, later(120)).await.as_slice(),
        [DueItem::Event(_)]
    ));
    store.event_handled(&event, later(5)).await.unwrap();
    assert_eq!(due(&store, later(120)).await.len(), 0);
}

#[tokio::test]
async fn a_due_row_is_moved_on_by_one_sweeper_only() {
    let store = store().await;
    store.announce(&upload("k"), Duration::ZERO).await.unwrap();
    let mut rows = Vec::new();
    for shard in Store::due_shards() {
        rows.extend(store.due(shard, NOW, None).await.unwrap().rows);
    }
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert!(store.postpone(row, later(60)).await.unwrap());
    assert!(!store.postpone(row, later(60)).await.unwrap());
    assert!(matches!(
        store.due_item(row, NOW).await.unwrap(),
        DueItem::Gone
    ));
}

#[tokio::test]
async fn every_due_row_is_reached_page_by_page() {
    let store = store().await;
    for number in 0..230 {
        store
            .announce(&upload(&format!("k-{number}")), Duration::ZERO)
            .await
            .unwrap();
    }
    let mut seen = 0;
    for shard in Store::due_shards() {
        let mut page = store.due(shard, NOW, None).await.unwrap();
        seen += page.rows.len();
        while page.has_next() {
            page = store.due(shard, NOW, Some(page)).await.unwrap();
            seen += page.rows.len();
        }
    }
    assert_eq!(seen, 230);
}

async fn due(store: &Store, now: landfall_transfer::Timestamp) -> Vec<DueItem> {
    let mut items = Vec::new();
    for shard in Store::due_shards() {
        for row in store.due(shard, now, None).await.unwrap().rows {
            items.push(store.due_item(&row, now).await.unwrap());
        }
    }
    items
}
