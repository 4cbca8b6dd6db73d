//! What a store does besides keeping its promises to others.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_models::{Call, Fate, TableModel, Weather, vault};
use landfall_tracking::{
    Claim, Commit, Ending, Error, FileState, Key, NewFile, Pass, Store, Told, Value, Which,
};
use landfall_transfer::timeline::{Actor, What};
use landfall_transfer::{
    Clocks, Counts, FileOutcome, FileTotals, Input, TenantId, Timestamp, Transfer, TransferId,
};

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

/// Writes whose answers are lost, after they took effect or before.
#[derive(Debug)]
struct Lost(Fate);

impl Weather for Lost {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        let fate = if call.writes { self.0 } else { Fate::Works };
        Box::pin(ready(fate))
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }
}

#[tokio::test]
async fn a_worker_that_gets_no_answer_looks_whether_its_last_batch_has_ended_the_file() {
    for (fate, has_ended) in [(Fate::LostAfter, true), (Fate::LostBefore, false)] {
        let (table, clocks, transfer) = (table(), Clocks::default(), transfer());
        let calm = store(&table);
        let told = Told::nothing();
        calm.create(&transfer, &told, &clocks).await.unwrap();
        let file = NewFile {
            tenant: transfer.tenant.clone(),
            transfer: transfer.id.clone(),
            s3_key: "k".to_owned(),
            label: None,
            event: None,
            message_id: None,
            received_at: NOW,
        };
        let minute = Duration::from_mins(1);
        calm.announce(&file, minute).await.unwrap();
        let (tenant, id) = (&transfer.tenant, &transfer.id);
        let claim = calm.claim(tenant, id, "k", "worker", minute, NOW);
        let Claim::Claimed(claimed) = claim.await.unwrap() else {
            panic!("it is not claimed")
        };
        let counts = Counts {
            read: 1,
            applied: 1,
            ..Counts::default()
        };
        let last = Commit {
            checkpoint: "{}".to_owned(),
            counts,
            pass: Pass::First,
            landed: Vec::new(),
            label: String::new(),
            exceptions: Vec::new(),
            leased_until: NOW + minute,
        };
        let ending = Ending::new(FileOutcome::Imported, counts);
        let stormy = store(&table.seen_by(Arc::new(Lost(fate))));
        let ended = stormy.commit_end(&claimed.lease, &last, &ending, NOW, &clocks);
        match ended.await {
            Ok(ended) => assert!(ended && has_ended),
            Err(Error::Unknown) => assert!(!has_ended),
            Err(other) => panic!("{other:?}"),
        }
        let file = calm.file(tenant, id, "k").await.unwrap().unwrap();
        assert_eq!(file.state == FileState::Ended, has_ended);
    }
}
