//! What the table model does in bad weather: each fate is what its description says, and the index lags as the real one does.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod weather;

use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use landfall_models::conformance::differential;
use landfall_models::{Fate, TableModel};
use landfall_tracking::{
    DueEntry, Error, Item, Key, Returning, Table, Value, Which, Write, WriteError,
};
use landfall_transfer::Timestamp;

use weather::Made;

const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);

fn key(sort: &str) -> Key {
    Key::new("P", sort)
}

fn number(of: i64) -> Item {
    Item::from([("n".into(), Value::Number(of))])
}

/// A table with one row, and the same table in weather of one fate.
async fn tables(fate: Fate) -> (TableModel, TableModel) {
    let good = TableModel::new(Clock::manual(NOW));
    good.write(Write::put(key("row"), number(1)), Returning::Nothing)
        .await
        .unwrap();
    let bad = good.seen_by(Made::new().always(fate));
    (good, bad)
}

fn stands(table: &TableModel, sort: &str) -> Option<Item> {
    table.row(&key(sort)).map(|row| Item::clone(&row))
}

/// Adds one under the condition that it is still the number that was read.
fn counted(from: i64) -> Write {
    Write::update(key("row"))
        .only_if("n", Value::Number(from))
        .add("n", 1)
}

fn failed<T>(outcome: Result<T, WriteError>) -> Error {
    match outcome {
        Err(WriteError::Failed(error)) => error,
        Err(WriteError::ConditionFailed(_)) => panic!("a condition failed"),
        Ok(_) => panic!("it worked"),
    }
}

#[tokio::test]
async fn a_throttled_call_did_nothing_and_says_so() {
    let (good, bad) = tables(Fate::Throttled).await;
    let error = failed(bad.write(counted(1), Returning::Row).await);
    assert!(matches!(error, Error::Unavailable(_)) && error.may_repeat());
    let error = bad.transact(vec![counted(1)]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)));
    assert!(bad.get(&key("row"), true).await.is_err());
    assert!(bad.query("P", "r", None, None).await.is_err());
    assert!(bad.due("D", 1, 1, None).await.is_err());
    let many = bad.get_many(Which::Tracking, vec![key("row")], &["n"]);
    assert!(many.await.is_err());
    assert_eq!(stands(&good, "row"), Some(number(1)));
}

#[tokio::test]
async fn a_contended_write_did_nothing_and_may_be_repeated_at_once() {
    let (good, bad) = tables(Fate::Contended).await;
    let error = bad.transact(vec![counted(1)]).await.unwrap_err();
    assert!(matches!(error, Error::Contended) && error.may_repeat());
    let error = failed(bad.write(counted(1), Returning::Row).await);
    assert!(matches!(error, Error::Contended));
    assert_eq!(stands(&good, "row"), Some(number(1)));
    bad.get(&key("row"), true).await.unwrap();
}

#[tokio::test]
async fn a_call_that_never_arrived_did_nothing_and_nobody_knows() {
    let (good, bad) = tables(Fate::LostBefore).await;
    let error = failed(bad.write(counted(1), Returning::Row).await);
    assert!(matches!(error, Error::Unknown) && !error.may_repeat());
    let error = bad.transact(vec![counted(1)]).await.unwrap_err();
    assert!(matches!(error, Error::Unknown));
    assert!(bad.get(&key("row"), true).await.is_err());
    assert_eq!(stands(&good, "row"), Some(number(1)));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_happened_and_nobody_knows() {
    let (good, bad) = tables(Fate::LostAfter).await;
    let error = failed(bad.write(counted(1), Returning::Row).await);
    assert!(matches!(error, Error::Unknown));
    assert_eq!(stands(&good, "row"), Some(number(2)));
    let error = bad.transact(vec![counted(2)]).await.unwrap_err();
    assert!(matches!(error, Error::Unknown));
    assert_eq!(stands(&good, "row"), Some(number(3)));
    // Nobody learns that it failed, either.
    let error = failed(bad.write(counted(2), Returning::Row).await);
    assert!(matches!(error, Error::Unknown));
    assert_eq!(stands(&good, "row"), Some(number(3)));
    bad.get(&key("row"), true).await.unwrap();
}

#[tokio::test]
async fn a_conditional_write_that_is_repeated_meets_its_own_effect() {
    let (good, bad) = tables(Fate::Repeated).await;
    let outcome = bad.write(counted(1), Returning::Row).await;
    let Err(WriteError::ConditionFailed(Some(row))) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(row, number(2), "its own");
    assert_eq!(stands(&good, "row"), Some(number(2)));
    let put = Write::put(key("new"), number(7)).if_absent();
    let outcome = bad.write(put, Returning::Nothing).await;
    assert!(matches!(outcome, Err(WriteError::ConditionFailed(None))));
    assert_eq!(stands(&good, "new"), Some(number(7)));
}

#[tokio::test]
async fn an_unconditional_write_that_is_repeated_happens_twice() {
    let (good, bad) = tables(Fate::Repeated).await;
    let added = Write::update(key("row")).add("n", 5);
    let row = bad.write(added, Returning::Row).await.unwrap();
    assert_eq!((row, stands(&good, "row")), (number(11), Some(number(11))));
}

#[tokio::test]
async fn a_transaction_that_is_repeated_is_answered_as_the_first_time() {
    let (good, bad) = tables(Fate::Repeated).await;
    bad.transact(vec![counted(1)]).await.unwrap();
    assert_eq!(stands(&good, "row"), Some(number(2)));
    let error = bad.transact(vec![counted(1)]).await.unwrap_err();
    assert!(matches!(error, Error::Conflict));
    assert_eq!(stands(&good, "row"), Some(number(2)));
}

#[tokio::test]
async fn reads_meet_nothing_that_only_writes_can() {
    for fate in [Fate::LostAfter, Fate::Repeated, Fate::Contended] {
        let (_, bad) = tables(fate).await;
        bad.get(&key("row"), true).await.unwrap();
        bad.query("P", "r", None, None).await.unwrap();
        bad.due("D", 1, 1, None).await.unwrap();
        let many = bad.get_many(Which::Tracking, vec![key("row")], &["n"]);
        many.await.unwrap();
    }
}

#[tokio::test]
async fn every_call_passes_the_weather_before_and_after_its_effect() {
    let made = Made::new().always(Fate::Works);
    let table = TableModel::under(made.clone(), Clock::manual(NOW));
    let put = Write::put(key("row"), number(1));
    table.write(put, Returning::Nothing).await.unwrap();
    table.transact(vec![counted(1)]).await.unwrap();
    table.get(&key("row"), true).await.unwrap();
    let seen: Vec<_> = made
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(when, call)| (*when, call.operation, call.writes, call.transaction))
        .collect();
    assert_eq!(
        seen,
        [
            ("before", "write", true, false),
            ("after", "write", true, false),
            ("before", "transact", true, true),
            ("after", "transact", true, true),
            ("before", "get", false, false),
            ("after", "get", false, false),
        ]
    );
}

// The index.

fn due(at: i64) -> Item {
    Item::from([
        ("due_shard".into(), Value::Text("D".to_owned())),
        ("due_at".into(), Value::Number(at)),
    ])
}

/// A table whose index is behind by what the weather says.
fn lagging() -> (TableModel, Arc<Made>, Clock) {
    let (made, clock) = (Made::new().always(Fate::Works), Clock::manual(NOW));
    let table = TableModel::under(made.clone(), clock.clone());
    (table, made, clock)
}

async fn put(table: &TableModel, sort: &str, item: Item) {
    table
        .write(Write::put(key(sort), item), Returning::Nothing)
        .await
        .unwrap();
}

async fn shown(table: &TableModel) -> Vec<(i64, String)> {
    let found = table.due("D", i64::MAX, 100, None).await.unwrap();
    found
        .entries
        .into_iter()
        .map(|DueEntry { at, key }| (at, key.sort))
        .collect()
}

fn entry(at: i64, sort: &str) -> (i64, String) {
    (at, sort.to_owned())
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_index_shows_a_change_when_its_lag_is_over_and_not_before() {
    let (table, made, clock) = lagging();
    made.lags(SECOND);
    put(&table, "a", due(5)).await;
    assert_eq!(table.get(&key("a"), true).await.unwrap(), Some(due(5)));
    assert_eq!(shown(&table).await, []);
    clock.advance(Duration::from_millis(999));
    assert_eq!(shown(&table).await, []);
    clock.advance(Duration::from_millis(1));
    assert_eq!(shown(&table).await, [entry(5, "a")]);
    // What is gone is still shown for a while.
    put(&table, "a", Item::new()).await;
    assert_eq!(shown(&table).await, [entry(5, "a")]);
    clock.advance(SECOND);
    assert_eq!(shown(&table).await, []);
}

#[tokio::test]
async fn changes_of_one_row_never_overtake_each_other_in_the_index() {
    let (table, made, clock) = lagging();
    made.lags(3 * SECOND);
    put(&table, "a", due(5)).await;
    made.lags(SECOND);
    put(&table, "a", due(6)).await;
    put(&table, "b", due(7)).await;
    clock.advance(SECOND);
    assert_eq!(shown(&table).await, [entry(7, "b")], "another row may");
    clock.advance(2 * SECOND);
    assert_eq!(shown(&table).await, [entry(6, "a"), entry(7, "b")]);
}

#[tokio::test]
async fn a_row_is_never_in_two_places_of_the_index() {
    let (table, made, clock) = lagging();
    put(&table, "a", due(5)).await;
    made.lags(SECOND);
    put(&table, "a", due(9)).await;
    assert_eq!(shown(&table).await, [entry(5, "a")]);
    clock.advance(SECOND);
    assert_eq!(shown(&table).await, [entry(9, "a")]);
}

#[tokio::test]
async fn a_change_that_does_not_move_a_row_is_nothing_to_the_index() {
    let (table, made, _) = lagging();
    put(&table, "a", due(5)).await;
    let settles = table.index_settles_at();
    made.lags(10 * SECOND);
    let touched = Write::update(key("a")).set("n", Value::Number(1));
    table.write(touched, Returning::Nothing).await.unwrap();
    assert_eq!(table.index_settles_at(), settles);
}

#[tokio::test]
async fn the_model_knows_what_is_coming_before_its_index_shows_it() {
    let (table, made, clock) = lagging();
    assert_eq!((table.next_due(), table.index_settles_at()), (None, None));
    made.lags(2 * SECOND);
    put(&table, "a", due(50)).await;
    put(&table, "b", due(20)).await;
    assert_eq!(shown(&table).await, []);
    assert_eq!(table.next_due(), Some(20));
    let settles = NOW.as_millis() + 2_000;
    assert_eq!(table.index_settles_at(), Some(settles));
    put(&table, "b", due(70)).await;
    assert_eq!(table.next_due(), Some(50));
    put(&table, "a", Item::new()).await;
    assert_eq!(table.next_due(), Some(70));
    clock.advance(2 * SECOND);
    assert_eq!(shown(&table).await, [entry(70, "b")]);
}

#[tokio::test]
async fn rows_that_are_loaded_are_in_the_index_once() {
    let (table, _, _) = lagging();
    table.load([(key("a"), Arc::new(due(5)))]);
    table.load([(key("a"), Arc::new(due(9)))]);
    assert_eq!(shown(&table).await, [entry(9, "a")]);
    assert_eq!(table.next_due(), Some(9));
}

// Pages.

#[tokio::test]
async fn short_pages_change_no_answer() {
    for seed in 0..20 {
        let (whole, paged) = (
            TableModel::new(Clock::manual(NOW)),
            TableModel::new(Clock::manual(NOW)),
        );
        paged.limit_pages(1);
        differential::compare(seed, &whole, &paged).await;
    }
}

#[tokio::test]
async fn short_pages_leave_many_rows_to_be_asked_again() {
    let table = TableModel::new(Clock::manual(NOW));
    table.limit_pages(2);
    let keys = ["a", "b", "c"].map(key).to_vec();
    for key in &keys {
        put(&table, &key.sort, number(1)).await;
    }
    let asked = table.get_many(Which::Tracking, keys, &["n"]);
    let (found, unprocessed) = asked.await.unwrap();
    assert_eq!((found.len(), unprocessed), (2, vec![key("c")]));
}
