use futures_util::FutureExt as _;
use landfall_tracking::{Error, Item, Key, Returning, Stored, Told, Value, Write};
use landfall_transfer::timeline::{Actor, Entry, What};
use landfall_transfer::{
    Cause, ChainId, Clocks, Counts, Input, Phase, Settled, SettledBy, Status, Transfer, TransferId,
    Verdict,
};

use super::{NOW, Subject, Timestamp, expires, id, instant, later, tenant, text};

fn rerun(id: &str, first_seen_at: Timestamp) -> Transfer {
    let original = TransferId::new("transfer-0");
    Transfer::first_seen(
        tenant(),
        TransferId::new(id),
        Some(original),
        None,
        first_seen_at,
    )
}

impl Subject {
    async fn create(&self, transfer: &Transfer) -> Result<Stored, Error> {
        self.store
            .create(transfer, &Told::nothing(), &Clocks::default())
            .await
    }

    async fn attempts(&self, chain: &str) -> Vec<(String, Timestamp)> {
        let attempts = self.store.attempts(&tenant(), &ChainId::new(chain)).await;
        attempts
            .unwrap()
            .into_iter()
            .map(|attempt| (attempt.transfer.as_str().to_owned(), attempt.first_seen_at))
            .collect()
    }

    async fn state_row(&self) -> Item {
        let row = self.row("TRANSFER#tenant#transfer-1", "STATE").await;
        row.unwrap()
    }
}

fn reported(transfer: &Transfer, percent: u8) -> Transfer {
    let mut transfer = transfer.clone();
    assert!(transfer.apply(Input::Reporting { percent }, later(1), &Clocks::default()));
    transfer
}

pub(super) async fn a_transfer_is_created_once_and_listed_under_its_chain(subject: &Subject) {
    let transfer = rerun("transfer-1", NOW);
    let stored = subject.create(&transfer).await.unwrap();
    let again = subject.create(&transfer).await;
    assert!(matches!(again, Err(Error::Conflict)), "{again:?}");
    let read = subject.store.transfer(&tenant(), &id()).await.unwrap();
    assert_eq!(read, Some(stored));
    let listed = vec![("transfer-1".to_owned(), NOW)];
    assert_eq!(subject.attempts("transfer-0").await, listed);
    let (_, attempt) = subject
        .rows("CHAIN#tenant#transfer-0", "ATTEMPT#")
        .await
        .remove(0);
    assert_eq!(attempt["original_transfer_id"], text("transfer-0"));
    assert_eq!(attempt["expires_at"], expires(NOW, 400));
    assert_eq!(subject.state_row().await["expires_at"], expires(NOW, 400));
}

pub(super) async fn a_transfer_that_exists_is_not_created_over(subject: &Subject) {
    let stored = subject.open_transfer().await;
    let saved = reported(&stored.transfer, 7);
    let next = subject
        .store
        .save(&stored, saved, &Told::nothing(), &Clocks::default())
        .await
        .unwrap();
    // Seen again later, by somebody who read before it was there.
    let again = subject.create(&rerun("transfer-1", later(9))).await;
    assert!(matches!(again, Err(Error::Conflict)), "{again:?}");
    let read = subject.store.transfer(&tenant(), &id()).await.unwrap();
    assert_eq!(read, Some(next));
    assert_eq!(subject.attempts("transfer-0").await, []);
}

pub(super) async fn of_two_writers_that_read_the_same_version_one_wins(subject: &Subject) {
    let stored = subject.open_transfer().await;
    let clocks = Clocks::default();
    let first = reported(&stored.transfer, 7);
    subject
        .store
        .save(&stored, first.clone(), &Told::nothing(), &clocks)
        .await
        .unwrap();
    let second = reported(&stored.transfer, 9);
    let outcome = subject
        .store
        .save(&stored, second, &Told::nothing(), &clocks)
        .await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert_eq!(subject.transfer().await, first);
}

pub(super) async fn every_save_is_over_the_one_before_it(subject: &Subject) {
    let first = subject.open_transfer().await;
    let clocks = Clocks::default();
    let second = subject
        .store
        .save(
            &first,
            reported(&first.transfer, 5),
            &Told::nothing(),
            &clocks,
        )
        .await
        .unwrap();
    let third = subject
        .store
        .save(
            &second,
            reported(&second.transfer, 6),
            &Told::nothing(),
            &clocks,
        )
        .await
        .unwrap();
    for stale in [&first, &second] {
        let outcome = subject
            .store
            .save(stale, stale.transfer.clone(), &Told::nothing(), &clocks)
            .await;
        assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    }
    let read = subject.store.transfer(&tenant(), &id()).await.unwrap();
    assert_eq!(read, Some(third));
    let row = subject.state_row().await;
    assert_eq!(row["version"], Value::Number(3));
}

pub(super) async fn a_transfer_that_was_never_created_can_not_be_saved(subject: &Subject) {
    let stored = subject.create(&rerun("transfer-1", NOW)).await.unwrap();
    // The read copy is good, its row is another's.
    let mut elsewhere = stored.transfer.clone();
    elsewhere.id = TransferId::new("transfer-2");
    let clocks = Clocks::default();
    let outcome = subject
        .store
        .save(&stored, elsewhere, &Told::nothing(), &clocks)
        .await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    let other = TransferId::new("transfer-2");
    let read = subject.store.transfer(&tenant(), &other).await.unwrap();
    assert_eq!(read, None);
}

pub(super) async fn a_chain_that_is_joined_lists_the_attempt_in_the_same_write(subject: &Subject) {
    let stored = subject.open_transfer().await;
    assert_eq!(subject.attempts("transfer-1").await.len(), 1);
    let mut joined = stored.transfer.clone();
    joined.original = Some(TransferId::new("transfer-0"));
    let next = subject
        .store
        .join_chain(&stored, joined, &Told::nothing(), &Clocks::default())
        .await
        .unwrap();
    let listed = vec![("transfer-1".to_owned(), NOW)];
    assert_eq!(subject.attempts("transfer-0").await, listed);
    let read = subject.store.transfer(&tenant(), &id()).await.unwrap();
    assert_eq!(read, Some(next));
}

pub(super) async fn a_chain_is_not_joined_over_a_newer_version(subject: &Subject) {
    let stored = subject.open_transfer().await;
    let slower = subject.meddled(|subject| {
        async move { subject.apply(Input::Reporting { percent: 7 }).await }.boxed()
    });
    let mut joined = stored.transfer.clone();
    joined.original = Some(TransferId::new("transfer-0"));
    let outcome = slower
        .join_chain(&stored, joined, &Told::nothing(), &Clocks::default())
        .await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert_eq!(subject.attempts("transfer-0").await, []);
    assert_eq!(subject.transfer().await.original, None);
}

pub(super) async fn attempts_are_listed_in_the_order_in_which_they_were_first_seen(
    subject: &Subject,
) {
    for (id, seconds) in [("b", 20), ("a", 30), ("z#%", 10)] {
        let attempt = rerun(id, later(seconds));
        subject.create(&attempt).await.unwrap();
    }
    let listed = subject.attempts("transfer-0").await;
    let ids: Vec<&str> = listed.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["z#%", "b", "a"]);
}

pub(super) async fn a_transfer_is_due_as_long_as_something_is_owed(subject: &Subject) {
    let clocks = Clocks::default();
    let stored = subject.open_transfer().await;
    let due = stored.transfer.due_at(&clocks).unwrap();
    assert_eq!(subject.state_row().await["due_at"], instant(due));
    assert_eq!(subject.due_rows(due).await.len(), 1);
    let mut settled = stored.transfer.clone();
    settled.phase = Phase::Settled(Settled {
        by: SettledBy::Platform,
        verdict: None,
        status: Some("CANCELLED".to_owned()),
        form: None,
        at: later(1),
    });
    assert_eq!(settled.due_at(&clocks), None, "nothing is owed any more");
    subject
        .store
        .save(&stored, settled, &Told::nothing(), &clocks)
        .await
        .unwrap();
    let row = subject.state_row().await;
    assert_eq!((row.get("due_at"), row.get("due_shard")), (None, None));
    assert_eq!(
        (&row["phase"], &row["status"]),
        (&text("SETTLED"), &text("CANCELLED"))
    );
    assert_eq!(row["settled_by"], text("platform"));
    assert!(subject.due_rows(later(1_000_000_000)).await.is_empty());
}

pub(super) async fn a_transfers_row_says_beside_its_state_what_support_looks_for(
    subject: &Subject,
) {
    let mut transfer = rerun("transfer-1", later(60));
    transfer.created_at = NOW;
    transfer.work.files_known = 9;
    transfer.work.files_ended = 8;
    transfer.work.counts = Counts {
        read: 15,
        applied: 1,
        unchanged: 2,
        held: 4,
        rejected: 8,
    };
    transfer.last_percent = 99;
    transfer.phase = Phase::Settled(Settled {
        by: SettledBy::App,
        verdict: Some(Verdict {
            status: Status::Incomplete,
            cause: Cause::Gaps,
            message: "re-run it".to_owned(),
            decided_at: later(70),
        }),
        status: Some("INCOMPLETE".to_owned()),
        form: None,
        at: later(80),
    });
    subject.create(&transfer).await.unwrap();
    let mut row = subject.state_row().await;
    assert!(
        matches!(row.remove("state"), Some(Value::Text(state)) if state.contains("transfer-1"))
    );
    let counts = [
        ("version", 1),
        ("files_known", 9),
        ("files_ended", 8),
        ("records_read", 15),
        ("records_applied", 1),
        ("records_unchanged", 2),
        ("records_held", 4),
        ("records_rejected", 8),
        ("last_percent", 99),
    ];
    let texts = [
        ("kind", "transfer"),
        ("tenant", "tenant"),
        ("transfer_id", "transfer-1"),
        ("chain", "transfer-0"),
        ("original_transfer_id", "transfer-0"),
        ("phase", "SETTLED"),
        ("verdict", "INCOMPLETE"),
        ("verdict_cause", Cause::Gaps.as_str()),
        ("verdict_message", "re-run it"),
        ("status", "INCOMPLETE"),
        ("settled_by", "app"),
    ];
    let expected: Item = counts
        .map(|(name, count)| (name.into(), Value::Number(count)))
        .into_iter()
        .chain(texts.map(|(name, said)| (name.into(), text(said))))
        .chain([
            ("verdict_decided_at".into(), instant(later(70))),
            ("created_at".into(), instant(NOW)),
            ("first_seen_at".into(), instant(later(60))),
            ("expires_at".into(), expires(later(60), 400)),
        ])
        .collect();
    assert_eq!(row, expected);
}

pub(super) async fn a_transfer_of_a_newer_release_is_not_read_and_not_touched(subject: &Subject) {
    subject.open_transfer().await;
    let mut newer = subject.state_row().await;
    let Some(Value::Text(state)) = newer.get("state") else {
        panic!("{newer:?}")
    };
    let state = state.replacen("\"v\":1", "\"v\":3", 1);
    newer.insert("state".into(), text(&state));
    let key = Key::new("TRANSFER#tenant#transfer-1", "STATE");
    let put = Write::put(key, newer.clone());
    subject.table.write(put, Returning::Nothing).await.unwrap();
    let read = subject.store.transfer(&tenant(), &id()).await;
    assert!(matches!(read, Err(Error::Unreadable { .. })), "{read:?}");
    assert_eq!(subject.state_row().await, newer);
}

pub(super) async fn the_timeline_keeps_entries_of_one_millisecond_apart_and_writes_none_twice(
    subject: &Subject,
) {
    let event = |at, name: &str| {
        let what = What::EventTaken {
            event: name.to_owned(),
        };
        Entry::new(at, Actor::Processor, what)
    };
    let earlier = Timestamp::from_millis(NOW.as_millis() - 1);
    for entry in [
        event(NOW, "one"),
        event(NOW, "another"),
        event(NOW, "one"),
        event(earlier, "before"),
    ] {
        let appended = subject.store.append(&tenant(), &id(), &entry).await;
        appended.unwrap();
    }
    let mut told = subject.store.timeline(&tenant(), &id()).await.unwrap();
    assert_eq!(told.remove(0), event(earlier, "before"));
    told.sort_by_key(|entry| entry.what.to_string());
    assert_eq!(told, [event(NOW, "another"), event(NOW, "one")]);
    let rows = subject.rows("TRANSFER#tenant#transfer-1", "LOG#").await;
    let (_, row) = &rows[0];
    assert_eq!(
        (&row["kind"], &row["what"], &row["detail"]),
        (
            &text("log"),
            &text("event_taken"),
            &text("took the event before in")
        )
    );
    assert_eq!(row["at"], instant(earlier));
    assert_eq!(row["expires_at"], expires(earlier, 400));
}

pub(super) async fn a_state_and_what_is_told_of_it_are_written_together(subject: &Subject) {
    let clocks = Clocks::default();
    let transfer = rerun("transfer-1", NOW);
    let seen = Told {
        at: NOW,
        what: vec![What::first_seen(&transfer, false), What::NotListed],
    };
    let stored = subject
        .store
        .create(&transfer, &seen, &clocks)
        .await
        .unwrap();
    let told = Told {
        at: NOW,
        what: vec![What::PlatformAvailable],
    };
    let saved = subject
        .store
        .save(&stored, transfer.clone(), &told, &clocks)
        .await;
    saved.unwrap();
    let late = subject.store.save(&stored, transfer, &told, &clocks).await;
    assert!(matches!(late, Err(Error::Conflict)), "{late:?}");
    let told: Vec<_> = subject
        .store
        .timeline(&tenant(), &id())
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.what.kind())
        .collect();
    assert_eq!(told, ["first_seen", "not_listed", "platform_available"]);
}

pub(super) async fn an_entry_that_this_release_can_not_read_is_told_as_unknown(subject: &Subject) {
    let key = Key::new("TRANSFER#tenant#transfer-1", "LOG#000000000000007#x");
    let row = Item::from([("at".into(), instant(Timestamp::from_millis(7)))]);
    let put = Write::put(key, row);
    subject.table.write(put, Returning::Nothing).await.unwrap();
    let told = subject.store.timeline(&tenant(), &id()).await.unwrap();
    let at = Timestamp::from_millis(7);
    assert_eq!(told, [Entry::new(at, Actor::Unknown, What::Unknown)]);
}
