//! What a queue of Landfall does on the queue model.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use landfall_models::QueueModel;
use landfall_tracking::{Message, Queue, Task};
use landfall_transfer::{TenantId, Timestamp, TransferId};

fn message(key: &str) -> Message {
    let task = Task::Import {
        transfer: TransferId::new("t"),
        s3_key: key.to_owned(),
    };
    Message::new(TenantId::new("tenant"), task)
}

#[tokio::test]
async fn what_is_sent_comes_back_as_a_letter_until_it_is_deleted() {
    let clock = Clock::manual(Timestamp::from_millis(0));
    let model = QueueModel::new("letters", clock.clone());
    let queue = Queue::new(Arc::new(model.clone()));
    queue.send(&message("k"), Duration::ZERO).await.unwrap();
    model.put("not a message");
    let hidden_for = Duration::from_secs(5);
    let letters = queue.dead_letters(hidden_for).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert!(queue.dead_letters(hidden_for).await.unwrap().is_empty());
    let readable = letters.iter().find(|letter| letter.message.is_ok());
    let readable = readable.unwrap();
    assert_eq!(readable.message.as_ref().unwrap(), &message("k"));
    queue.delete(readable).await.unwrap();
    clock.advance(hidden_for);
    let left = queue.dead_letters(hidden_for).await.unwrap();
    assert!(left[0].message.is_err());
    assert_eq!((left.len(), model.len()), (1, 1));
}
