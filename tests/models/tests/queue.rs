//! The queue model keeps the promises of its port, and some more of the service that it stands for.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod weather;

use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use landfall_models::conformance::queue::{self, MAX_RECEIVES, Subject};
use landfall_models::{Delivery, Fate, QueueModel};
use landfall_tracking::{Error, Messages};
use landfall_transfer::Timestamp;

use weather::Made;

landfall_models::queue_conformance!(on_the_model);

const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);
const HIDDEN: Duration = Duration::from_secs(30);

/// A queue, its dead letters, and their clock.
fn queues() -> (QueueModel, QueueModel, Clock) {
    let clock = Clock::manual(NOW);
    let dead = QueueModel::new("dead", clock.clone());
    let queue = QueueModel::new("queue", clock.clone());
    let queue = queue.with_dead_letters(dead.clone(), MAX_RECEIVES);
    (queue, dead, clock)
}

async fn on_the_model(check: &str) {
    let (queue, dead, clock) = queues();
    let subject = Subject {
        messages: Arc::new(queue),
        dead_letters: Arc::new(dead),
        pass: Box::new(move |duration| {
            clock.advance(duration);
            Box::pin(std::future::ready(()))
        }),
    };
    queue::run(check, &subject).await;
}

async fn send(queue: &QueueModel, body: &str, delay: Duration) -> Result<(), Error> {
    queue
        .send(body.to_owned(), "tenant".to_owned(), delay)
        .await
}

fn bodies(delivered: &[Delivery]) -> Vec<&str> {
    delivered
        .iter()
        .map(|delivery| delivery.body.as_str())
        .collect()
}

#[tokio::test]
async fn a_delay_and_a_hiding_end_in_their_very_millisecond() {
    let (queue, _, clock) = queues();
    send(&queue, "a", Duration::from_mins(15)).await.unwrap();
    assert_eq!(queue.next_visible(), Some(NOW.as_millis() + 900_000));
    clock.advance(Duration::from_millis(899_999));
    assert!(queue.deliver(10, HIDDEN).is_empty());
    clock.advance(Duration::from_millis(1));
    assert_eq!(queue.deliver(10, HIDDEN).len(), 1);
    clock.advance(Duration::from_millis(29_999));
    assert!(queue.deliver(10, HIDDEN).is_empty());
    clock.advance(Duration::from_millis(1));
    assert_eq!(queue.deliver(10, HIDDEN).len(), 1);
}

#[tokio::test]
async fn a_hiding_has_twelve_hours_at_most() {
    let (queue, _, _) = queues();
    queue.receive(Duration::from_hours(12)).await.unwrap();
    let longer = Duration::from_hours(12) + Duration::from_secs(1);
    assert!(matches!(
        queue.receive(longer).await,
        Err(Error::Refused(_))
    ));
}

#[test]
fn a_delivery_says_how_often_the_message_was_handed_out() {
    let (queue, dead, clock) = queues();
    queue.put("a");
    for receives in 1..=MAX_RECEIVES {
        let delivered = queue.deliver(10, HIDDEN);
        assert_eq!(delivered[0].receives, receives);
        clock.advance(HIDDEN);
    }
    assert!(dead.is_empty(), "only the next receive moves it");
    assert!(queue.deliver(10, HIDDEN).is_empty());
    assert_eq!((queue.len(), dead.bodies()), (0, vec!["a".to_owned()]));
}

#[test]
fn a_poisonous_message_does_not_keep_the_others_from_being_delivered() {
    let (queue, dead, clock) = queues();
    queue.put("poison");
    for _ in 0..MAX_RECEIVES {
        queue.deliver(1, HIDDEN);
        clock.advance(HIDDEN);
    }
    queue.put("a");
    assert_eq!(bodies(&queue.deliver(1, HIDDEN)), ["a"]);
    assert_eq!(dead.bodies(), ["poison"]);
}

#[test]
fn the_event_source_deletes_by_id_and_nothing_else_goes() {
    let (queue, _, clock) = queues();
    queue.put("a");
    queue.put("b");
    let delivered = queue.deliver(10, HIDDEN);
    queue.acknowledge(&delivered[0].id);
    clock.advance(HIDDEN);
    assert_eq!(bodies(&queue.deliver(10, HIDDEN)), ["b"]);
}

#[tokio::test]
async fn no_receipt_deletes_what_was_never_received() {
    let (queue, _, _) = queues();
    queue.put("a");
    for receipt in ["", "receipt-1", "receipt-0"] {
        queue.delete(receipt).await.unwrap();
    }
    assert_eq!(queue.len(), 1);
}

#[test]
fn the_weather_decides_which_message_is_next() {
    let (queue, _, _) = queues();
    for body in ["a", "b", "c"] {
        queue.put(body);
    }
    let last_first = queue.seen_by(Made::new().choosing_the_last());
    assert_eq!(bodies(&last_first.deliver(10, HIDDEN)), ["c", "b", "a"]);
}

#[test]
fn in_bad_weather_a_message_comes_twice_and_the_newest_receipt_counts() {
    let (queue, dead, clock) = queues();
    queue.put("a");
    let twice = queue.seen_by(Made::new().handing_out_twice());
    let first = twice.deliver(10, HIDDEN);
    assert_eq!(first.len(), 1, "a batch has a message once");
    let second = queue.deliver(10, HIDDEN);
    assert_eq!(first[0].id, second[0].id);
    assert_ne!(first[0].receipt, second[0].receipt);
    assert_eq!((first[0].receives, second[0].receives), (1, 2));
    clock.advance(HIDDEN);
    assert!(queue.deliver(10, HIDDEN).is_empty());
    assert_eq!(dead.len(), 1, "both deliveries counted");
}

#[tokio::test]
async fn what_is_throttled_or_never_arrives_does_nothing() {
    for fate in [Fate::Throttled, Fate::LostBefore] {
        let (queue, _, clock) = queues();
        queue.put("a");
        let bad = queue.seen_by(Made::new().always(fate));
        let outcome = send(&bad, "b", Duration::ZERO).await;
        match fate {
            Fate::Throttled => assert!(matches!(outcome, Err(Error::Unavailable(_)))),
            _ => assert!(matches!(outcome, Err(Error::Unknown))),
        }
        assert!(bad.receive(HIDDEN).await.is_err());
        let delivered = queue.deliver(10, HIDDEN);
        assert_eq!((bodies(&delivered), delivered[0].receives), (vec!["a"], 1));
        assert!(bad.delete(&delivered[0].receipt).await.is_err());
        clock.advance(HIDDEN);
        assert_eq!(queue.deliver(10, HIDDEN).len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_its_effect_and_nobody_knows() {
    let (queue, _, clock) = queues();
    let bad = queue.seen_by(Made::new().always(Fate::LostAfter));
    let sent = send(&bad, "a", Duration::ZERO).await;
    assert!(matches!(sent, Err(Error::Unknown)));
    assert_eq!(queue.bodies(), ["a"]);
    assert!(matches!(bad.receive(HIDDEN).await, Err(Error::Unknown)));
    assert!(
        queue.deliver(10, HIDDEN).is_empty(),
        "it is hidden, and nobody has it"
    );
    clock.advance(HIDDEN);
    let delivered = queue.deliver(10, HIDDEN);
    assert_eq!(delivered[0].receives, 2);
    assert!(matches!(
        bad.delete(&delivered[0].receipt).await,
        Err(Error::Unknown)
    ));
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_call_that_the_client_repeats_takes_effect_twice() {
    let (queue, _, _) = queues();
    let bad = queue.seen_by(Made::new().always(Fate::Repeated));
    send(&bad, "a", Duration::ZERO).await.unwrap();
    assert_eq!(queue.bodies(), ["a", "a"]);
    for _ in 0..15 {
        queue.put("b");
    }
    // The first answer's ten are hidden, and nobody has them.
    assert_eq!(bad.receive(HIDDEN).await.unwrap().len(), 7);
    let (queue, _, _) = queues();
    queue.put("a");
    let delivered = queue.deliver(10, HIDDEN);
    let bad = queue.seen_by(Made::new().always(Fate::Repeated));
    bad.delete(&delivered[0].receipt).await.unwrap();
    assert!(queue.is_empty());
}
