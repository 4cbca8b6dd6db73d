use std::time::Duration;

use landfall_tracking::{
    Due, DueItem, Error, EventRow, Installed, Item, Key, Recorded, Returning, Store, Value, Write,
};
use secrecy::SecretString;

use super::files::upload;
use super::{GRACE, NOW, Subject, expires, id, instant, later, tenant, text};

fn event() -> EventRow {
    EventRow {
        tenant: tenant(),
        transfer: Some(id()),
        message_id: "m-1".to_owned(),
        event_type: "listener-triggered".to_owned(),
        body: "{\"first\":true}".to_owned(),
        received_at: NOW,
    }
}

const PARTITION: &str = "TRANSFER#tenant#transfer-1";

impl Subject {
    async fn record(&self, event: &EventRow) -> Recorded {
        self.store.record_event(event, GRACE).await.unwrap()
    }

    async fn event_row(&self) -> Item {
        self.row(PARTITION, "EVENT#m-1").await.unwrap()
    }

    async fn only_due(&self) -> Due {
        let mut rows = self.due_rows(later(10_000)).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }
}

pub(super) async fn an_event_is_stored_once_and_found_by_the_sweeper_until_it_is_handled(
    subject: &Subject,
) {
    assert_eq!(subject.record(&event()).await, Recorded::New);
    assert_eq!(subject.record(&event()).await, Recorded::Duplicate);
    assert!(subject.due(later(119)).await.is_empty());
    let due = subject.due(later(120)).await;
    let [DueItem::Event(found)] = due.as_slice() else {
        panic!("{due:?}")
    };
    assert_eq!(format!("{found:?}"), format!("{:?}", event()));
    subject
        .store
        .event_handled(&event(), later(5))
        .await
        .unwrap();
    assert!(subject.due(later(10_000)).await.is_empty());
    let row = subject.event_row().await;
    assert_eq!(row["handled_at"], instant(later(5)));
    assert_eq!((row.get("due_at"), row.get("due_shard")), (None, None));
    assert_eq!(row["event"], text("{\"first\":true}"));
    assert_eq!(row["expires_at"], expires(NOW, 30));
}

pub(super) async fn an_event_that_comes_twice_stays_as_it_came_first(subject: &Subject) {
    subject.record(&event()).await;
    let before = subject.event_row().await;
    assert_eq!(
        (&before["expires_at"], &before["v"]),
        (&expires(NOW, 30), &Value::Number(1))
    );
    let second = EventRow {
        body: "{\"first\":false}".to_owned(),
        received_at: later(60),
        ..event()
    };
    assert_eq!(subject.record(&second).await, Recorded::Duplicate);
    assert_eq!(subject.event_row().await, before);
}

pub(super) async fn an_event_that_was_handled_is_a_duplicate_when_it_comes_again(
    subject: &Subject,
) {
    subject.record(&event()).await;
    let handled = subject.store.event_handled(&event(), later(5)).await;
    handled.unwrap();
    let before = subject.event_row().await;
    assert_eq!(subject.record(&event()).await, Recorded::Duplicate);
    assert_eq!(subject.event_row().await, before);
    assert!(subject.due(later(10_000)).await.is_empty());
}

pub(super) async fn an_event_whose_row_was_lost_is_stored_when_it_is_handled(subject: &Subject) {
    let handled = subject.store.event_handled(&event(), later(5)).await;
    handled.unwrap();
    assert_eq!(
        subject.event_row().await,
        Item::from([
            ("kind".into(), text("event")),
            ("v".into(), Value::Number(1)),
            ("tenant".into(), text("tenant")),
            ("message_id".into(), text("m-1")),
            ("event_type".into(), text("listener-triggered")),
            ("event".into(), text("{\"first\":true}")),
            ("received_at".into(), instant(NOW)),
            ("handled_at".into(), instant(later(5))),
            ("expires_at".into(), expires(NOW, 30)),
        ])
    );
    assert_eq!(subject.record(&event()).await, Recorded::Duplicate);
}

pub(super) async fn an_event_without_a_transfer_lies_with_its_tenant(subject: &Subject) {
    let event = EventRow {
        transfer: None,
        message_id: "a#b".to_owned(),
        ..event()
    };
    assert_eq!(subject.record(&event).await, Recorded::New);
    let row = subject.row("TENANT#tenant", "EVENT#a%23b").await.unwrap();
    assert_eq!(row.get("transfer_id"), None);
    let due = subject.due(later(120)).await;
    let [DueItem::Event(found)] = due.as_slice() else {
        panic!("{due:?}")
    };
    assert_eq!(
        (found.transfer.as_ref(), found.message_id.as_str()),
        (None, "a#b")
    );
}

pub(super) async fn a_due_row_is_moved_on_by_one_sweeper_only(subject: &Subject) {
    let announced = subject.store.announce(&upload("k"), Duration::ZERO).await;
    announced.unwrap();
    let row = subject.only_due().await;
    assert_eq!(row.at, NOW);
    assert!(subject.store.postpone(&row, later(60)).await.unwrap());
    assert!(!subject.store.postpone(&row, later(70)).await.unwrap());
    let read = subject.store.due_item(&row, NOW).await.unwrap();
    assert!(matches!(read, DueItem::Gone), "{read:?}");
    assert!(subject.due_rows(later(59)).await.is_empty());
    assert_eq!(subject.only_due().await.at, later(60));
}

pub(super) async fn a_due_row_that_was_dealt_with_is_not_moved_on(subject: &Subject) {
    subject.record(&event()).await;
    let row = subject.only_due().await;
    let handled = subject.store.event_handled(&event(), later(5)).await;
    handled.unwrap();
    let before = subject.event_row().await;
    assert!(!subject.store.postpone(&row, later(60)).await.unwrap());
    assert_eq!(subject.event_row().await, before);
    let read = subject.store.due_item(&row, later(10_000)).await.unwrap();
    assert!(matches!(read, DueItem::Gone), "{read:?}");
}

pub(super) async fn every_kind_of_due_row_is_read_as_what_it_is(subject: &Subject) {
    subject.open_transfer().await;
    subject.store.announce(&upload("k"), GRACE).await.unwrap();
    subject.record(&event()).await;
    let installed = Installed {
        tenant: tenant(),
        base_url: "https://example.atlassian.net/wiki".to_owned(),
        product: None,
        secret: SecretString::from("secret"),
    };
    subject.store.install(&installed, GRACE, NOW).await.unwrap();
    let mut kinds: Vec<String> = subject
        .due(later(1_000_000))
        .await
        .into_iter()
        .map(|item| match item {
            DueItem::Transfer(tenant, id) => format!("transfer {tenant} {id}"),
            DueItem::File(file) => format!("file {}", file.s3_key),
            DueItem::Event(event) => format!("event {}", event.message_id),
            DueItem::Tenant(tenant) => format!("tenant {tenant}"),
            DueItem::Gone => "gone".to_owned(),
        })
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "event m-1",
            "file k",
            "tenant tenant",
            "transfer tenant transfer-1"
        ]
    );
}

pub(super) async fn a_row_is_due_from_its_instant_on(subject: &Subject) {
    subject.record(&event()).await;
    let row = subject.only_due().await;
    for (seconds, due) in [(119, false), (120, true), (121, true)] {
        let read = subject.store.due_item(&row, later(seconds)).await.unwrap();
        assert_eq!(matches!(read, DueItem::Event(_)), due, "{seconds} {read:?}");
        assert_eq!(matches!(read, DueItem::Gone), !due, "{seconds} {read:?}");
    }
}

pub(super) async fn a_due_row_of_an_unknown_kind_is_not_guessed_at(subject: &Subject) {
    subject.record(&event()).await;
    let row = subject.only_due().await;
    let newer = Write::update(Key::new(PARTITION, "EVENT#m-1")).set("kind", text("novelty"));
    subject
        .table
        .write(newer, Returning::Nothing)
        .await
        .unwrap();
    let read = subject.store.due_item(&row, later(10_000)).await;
    assert!(matches!(read, Err(Error::Unreadable { .. })), "{read:?}");
}

pub(super) async fn every_due_row_is_reached_page_by_page(subject: &Subject) {
    for number in 0..230 {
        let upload = upload(&format!("k-{number}"));
        let announced = subject.store.announce(&upload, Duration::ZERO).await;
        announced.unwrap();
    }
    let (mut seen, mut pages) = (Vec::new(), 0);
    for shard in Store::due_shards() {
        let mut page = subject.store.due(shard, NOW, None).await.unwrap();
        loop {
            assert!(page.rows.len() <= 50, "a page costs a bound");
            pages += 1;
            seen.extend(page.rows.iter().map(|row| format!("{row:?}")));
            if !page.has_next() {
                break;
            }
            page = subject.store.due(shard, NOW, Some(page)).await.unwrap();
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 230);
    assert!(pages > 4, "{pages}");
}

pub(super) async fn warming_up_needs_nothing_to_be_there(subject: &Subject) {
    subject.store.warm_up().await.unwrap();
    assert_eq!(subject.row("WARM#UP", "WARM#UP").await, None);
}
