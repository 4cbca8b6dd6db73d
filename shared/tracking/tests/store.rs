//! What a store does besides keeping its promises to others.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::sync::Arc;

use landfall_clock::Clock;
use landfall_models::{TableModel, vault};
use landfall_tracking::{Key, Store, Told, Value, Which};
use landfall_transfer::timeline::{Actor, What};
use landfall_transfer::{Clocks, FileTotals, Input, TenantId, Timestamp, Transfer, TransferId};

const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);

fn table() -> TableModel {
    TableModel::new(Clock::manual(NOW))
}

fn store(table: &TableModel) -> Store {
    Store::new(Arc::new(table.clone()), vault(), Clock::manual(NOW)).acting_as(Actor::Sweeper)
}

fn transfer() -> Transfer {
    let (tenant, id) = (TenantId::new("tenant"), TransferId::new("t"));
    Transfer::first_seen(tenant, id, None, None, NOW)
}

#[tokio::test]
async fn a_timeline_says_which_function_wrote_it() {
    let table = table();
    let transfer = transfer();
    let told = Told {
        at: NOW,
        what: vec![What::first_seen(&transfer, false)],
    };
    let store = store(&table);
    store
        .create(&transfer, &told, &Clocks::default())
        .await
        .unwrap();
    let timeline = store.timeline(&transfer.tenant, &transfer.id).await;
    assert_eq!(timeline.unwrap()[0].by, Actor::Sweeper);
}

#[tokio::test]
async fn warming_up_makes_one_call_and_changes_nothing() {
    let table = table();
    store(&table).warm_up().await.unwrap();
    assert_eq!(table.meter().calls, 1);
    assert!(table.rows(Which::Tracking).is_empty());
}

#[tokio::test]
async fn a_transfers_row_shows_the_verdict_before_anybody_has_it() {
    let (table, clocks) = (table(), Clocks::default());
    let mut transfer = transfer();
    transfer.apply(Input::CancelRequested, NOW, &clocks);
    let fenced = Input::FilesFenced {
        totals: FileTotals::default(),
        leased_until: None,
    };
    transfer.apply(fenced, NOW, &clocks);
    store(&table)
        .create(&transfer, &Told::nothing(), &clocks)
        .await
        .unwrap();
    let row = table.row(&Key::new("TRANSFER#tenant#t", "STATE")).unwrap();
    let shown = |name: &str| row.get(name).cloned();
    assert_eq!(shown("phase"), Some(Value::Text("SETTLING".to_owned())));
    assert_eq!(shown("verdict"), Some(Value::Text("FAILED".to_owned())));
    assert!(shown("verdict_message").is_some());
    assert_eq!((shown("status"), shown("settled_by")), (None, None));
}
