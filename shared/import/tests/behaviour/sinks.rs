//! A target outside the ledger, and what it may answer.

use std::time::Duration;

use landfall_import::ports::{SinkError, SinkOutcome};
use landfall_import::segments::Fingerprint;
use landfall_import::{Counts, FileProblem};

use crate::world::{MemorySink, World, applied, interruption, keys, lines};

fn world(sink: MemorySink) -> World {
    let mut world = World::new("a.ndjson", lines(10));
    world.sink = Some(sink);
    world
}

#[tokio::test]
async fn the_ledger_keeps_nine_bytes_of_what_a_sink_took_and_no_record() {
    let world = world(MemorySink::default());
    assert_eq!(world.finish().await, (applied(10), None));
    let stored = world.ledger.stored.lock().unwrap();
    assert!(stored.target.is_empty());
    let segments: Vec<_> = stored.attempts[0].values().collect();
    assert_eq!(segments.len(), 1);
    assert_eq!((segments[0].first_record, segments[0].last_record), (1, 10));
    assert_eq!(Fingerprint::pack(&segments[0].landed).len(), 90);
}

#[tokio::test]
async fn what_a_sink_holds_or_rejects_is_counted_with_its_reason_and_not_landed() {
    let answer = |key: &str| match key {
        "r0001" => SinkOutcome::Unchanged,
        "r0002" => SinkOutcome::Held {
            reason: "no space yet".to_owned(),
        },
        "r0003" => SinkOutcome::Rejected {
            reason: "too blue".to_owned(),
        },
        _ => SinkOutcome::Applied,
    };
    let world = world(MemorySink {
        answer: Some(answer),
        ..MemorySink::default()
    });
    let counts = Counts {
        read: 10,
        applied: 7,
        unchanged: 1,
        held: 1,
        rejected: 1,
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(
        world.rejections(),
        ["3 r0002 held: no space yet", "4 r0003 rejected: too blue"]
    );
    assert!(world.landed().contains(&"r0001".to_owned()));
    assert!(!world.landed().contains(&"r0002".to_owned()));
}

#[tokio::test]
async fn what_becomes_of_a_record_becomes_of_those_it_replaced() {
    let text = "{\"id\":1,\"x\":1}\n{\"id\":1,\"x\":2}\n{\"id\":1,\"x\":2}\n{\"id\":2}\n";
    let reject = |key: &str| match key {
        "1" => SinkOutcome::Rejected {
            reason: "no".to_owned(),
        },
        _ => SinkOutcome::Applied,
    };
    let mut world = World::new("a.ndjson", text);
    world.sink = Some(MemorySink {
        answer: Some(reject),
        ..MemorySink::default()
    });
    let counts = Counts {
        read: 4,
        applied: 1,
        rejected: 3,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(
        world.rejections(),
        ["1 1 rejected: no", "2 1 rejected: no", "3 1 rejected: no"]
    );
}

#[tokio::test]
async fn a_sink_that_is_down_ends_the_slice_and_gets_the_same_batch_again() {
    let retry_after = Some(Duration::from_secs(5));
    let error = SinkError::Unavailable {
        reason: "it answered 503".to_owned(),
        retry_after,
    };
    let world = world(MemorySink {
        errors: [error]
            .into_iter()
            .collect::<std::collections::VecDeque<_>>()
            .into(),
        ..MemorySink::default()
    });
    assert_eq!(
        interruption(world.slice().await),
        (
            "the sink is not available: it answered 503".to_owned(),
            retry_after
        )
    );
    assert_eq!(world.finish().await, (applied(10), None));
    assert_eq!(world.landed(), keys(10));
    let deliveries = world.sink.as_ref().unwrap().deliveries.lock().unwrap();
    assert_eq!(deliveries.len(), 4);
    assert_eq!(
        deliveries[0], deliveries[1],
        "same records, same idempotency key"
    );
    assert_ne!(deliveries[1].0, deliveries[2].0);
}

#[tokio::test]
async fn an_answer_without_an_outcome_for_each_record_commits_nothing() {
    let world = world(MemorySink {
        drops_one_outcome: true,
        ..MemorySink::default()
    });
    let (reason, _) = interruption(world.slice().await);
    assert_eq!(
        reason,
        "the sink's answer is malformed: 3 outcomes came for 4 records"
    );
    assert!(world.commits().is_empty());
}

#[tokio::test]
async fn a_sink_that_refuses_ends_the_file_and_the_batch_is_not_counted() {
    let mut errors = std::collections::VecDeque::new();
    errors.push_back(SinkError::Refused {
        reason: "it answered 401".to_owned(),
    });
    let world = world(MemorySink {
        errors: errors.into(),
        ..MemorySink::default()
    });
    let problem = Some(FileProblem::SinkRefused {
        reason: "it answered 401".to_owned(),
    });
    assert_eq!(world.finish().await, (Counts::default(), problem.clone()));
    assert_eq!(world.finish().await, (Counts::default(), problem));
    assert_eq!(world.commits().len(), 1);
}
