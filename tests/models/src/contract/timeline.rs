//! What a timeline tells of what nobody wrote into it, because a row shows it already.

use landfall_tracking::{EventRow, NewFile};
use landfall_transfer::timeline::{Actor, Ended, Entry, Taken, What};
use landfall_transfer::{Counts, FileOutcome};

use super::files::upload;
use super::{GRACE, NOW, Subject, Timestamp, expires, id, later, tenant};

fn announced() -> Entry {
    let what = What::FileAnnounced {
        file: "k".to_owned(),
        label: Some("issues.ndjson".to_owned()),
    };
    Entry::new(NOW, Actor::Intake, what).caused_by("m-1")
}

fn taken(at: Timestamp, by: Actor) -> Entry {
    let what = What::FileTaken {
        file: "k".to_owned(),
        fence: 1,
        attempt: 1,
        how: Taken::First,
    };
    Entry::new(at, by, what)
}

fn ended(at: Timestamp, by: Actor, read: u64) -> Entry {
    let what = What::FileEnded {
        file: "k".to_owned(),
        how: Ended::Unreadable,
        problem: Some("cut short".to_owned()),
        counts: Counts {
            read,
            applied: read,
            ..Counts::default()
        },
        manifest: false,
    };
    Entry::new(at, by, what)
}

fn event() -> (EventRow, Entry) {
    let row = EventRow {
        tenant: tenant(),
        transfer: Some(id()),
        message_id: "m-0".to_owned(),
        event_type: "listener-triggered".to_owned(),
        body: "{}".to_owned(),
        received_at: NOW,
    };
    let what = What::EventTaken {
        event: "listener-triggered".to_owned(),
    };
    let entry = Entry::new(NOW, Actor::Intake, what);
    (row, entry.caused_by("m-0"))
}

impl Subject {
    async fn timeline(&self) -> Vec<Entry> {
        self.store.timeline(&tenant(), &id()).await.unwrap()
    }

    /// A file that is announced, taken up by the processor, and ended by the sweeper, three records into it.
    async fn a_file_that_is_cut_short(&self) {
        self.open_transfer().await;
        self.store.announce(&upload("k"), GRACE).await.unwrap();
        let by_processor = Self {
            store: self.store.clone().acting_as(Actor::Processor),
            ..self.clone()
        };
        let lease = by_processor.claimed("k", "a", later(1)).await.lease;
        let outcome = FileOutcome::Unreadable {
            reason: "cut short".to_owned(),
        };
        let counts = Counts {
            read: 3,
            applied: 3,
            ..Counts::default()
        };
        let ending = landfall_tracking::Ending::new(outcome, counts);
        let by_sweeper = self.store.clone().acting_as(Actor::Sweeper);
        let clocks = landfall_transfer::Clocks::default();
        let ended = by_sweeper.end(&lease, &ending, later(2), &clocks).await;
        assert!(ended.unwrap());
    }
}

pub(super) async fn the_timeline_tells_what_the_rows_of_events_and_files_show(subject: &Subject) {
    let (row, event) = event();
    subject.store.record_event(&row, GRACE).await.unwrap();
    subject.a_file_that_is_cut_short().await;
    assert_eq!(
        subject.timeline().await,
        [
            event,
            announced(),
            taken(later(1), Actor::Processor),
            ended(later(2), Actor::Sweeper, 3),
        ]
    );
    let told = subject.rows("TRANSFER#tenant#transfer-1", "LOG#").await;
    assert_eq!(told, []);
}

pub(super) async fn a_file_that_has_ended_is_kept_as_history_without_what_its_work_needed(
    subject: &Subject,
) {
    subject.a_file_that_is_cut_short().await;
    let row = subject.file_row("k").await;
    assert_eq!(row["expires_at"], expires(later(2), 400));
    assert_eq!((row.get("event"), row.get("checkpoint")), (None, None));
}

pub(super) async fn what_an_earlier_release_has_told_besides_is_told_once(subject: &Subject) {
    let (row, event) = event();
    subject.store.record_event(&row, GRACE).await.unwrap();
    subject.a_file_that_is_cut_short().await;
    // It told of an event and of an announcement when it worked on them.
    let told = [
        Entry {
            at: later(3),
            by: Actor::Processor,
            ..event
        },
        Entry {
            at: later(3),
            by: Actor::Processor,
            ..announced()
        },
        ended(later(3), Actor::Processor, 3),
        taken(later(3), Actor::Processor),
    ];
    for entry in &told {
        let appended = subject.store.append(&tenant(), &id(), entry).await;
        appended.unwrap();
    }
    let mut timeline = subject.timeline().await;
    timeline.sort_by_key(|entry| entry.what.kind());
    assert_eq!(timeline, told);
}

pub(super) async fn a_file_that_only_a_list_showed_is_not_told_as_announced(subject: &Subject) {
    subject.open_transfer().await;
    let listed = NewFile {
        event: None,
        message_id: None,
        ..upload("k")
    };
    subject.store.announce(&listed, GRACE).await.unwrap();
    assert_eq!(subject.timeline().await, []);
}
