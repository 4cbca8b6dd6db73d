//! The promises of [`Messages`], one by one, on a queue of the check's own.
//!
//! Left open, because the service leaves it open: in which order messages come, whether one comes twice, how many of those
//! that wait an answer holds, and what a receipt that deletes nothing is answered with.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_tracking::{Error, Messages, Received};

use crate::checks::checks;

checks! {
    $ queue_conformance(&Subject):
    what_was_sent_is_received_as_it_was,
    an_empty_queue_gives_nothing,
    what_is_sent_twice_is_two_messages,
    a_message_that_was_received_is_hidden_and_comes_back,
    a_message_is_hidden_for_a_second_at_least,
    a_message_that_comes_back_has_its_id_and_another_receipt,
    a_message_that_was_deleted_does_not_come_back,
    a_message_can_be_deleted_when_its_hiding_is_over,
    an_old_receipt_deletes_nothing,
    deleting_one_message_leaves_the_others,
    a_message_that_was_delayed_shows_after_its_delay,
    a_delay_counts_in_whole_seconds,
    ten_messages_are_received_at_most_and_the_others_are_not_lost,
    a_message_that_was_received_too_often_is_a_dead_letter,
    a_message_that_was_deleted_in_time_is_no_dead_letter,
    a_body_has_a_megabyte_at_most_and_a_character_at_least,
    a_body_has_no_control_characters,
    a_delay_of_more_than_fifteen_minutes_is_refused,
    a_message_group_is_of_letters_digits_and_punctuation,
}

/// A queue, the queue of its dead letters, and the time that they live in.
pub struct Subject {
    /// The queue, empty.
    pub messages: Arc<dyn Messages>,
    /// Where its messages go when they are received for the third time.
    pub dead_letters: Arc<dyn Messages>,
    /// Lets time pass.
    pub pass: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

/// Times that a message of a [`Subject`] is received before it is a dead letter.
pub const MAX_RECEIVES: u32 = 2;

impl fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Subject")
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}

/// What a receive hides for where it doesn't matter.
const HIDDEN: Duration = Duration::from_mins(5);

/// The shortest hiding and the shortest delay that there are.
const SECOND: Duration = Duration::from_secs(1);

impl Subject {
    async fn try_to_send(&self, body: &str, delay: Duration) -> Result<(), Error> {
        let group = "tenant".to_owned();
        self.messages.send(body.to_owned(), group, delay).await
    }

    async fn send(&self, body: &str) {
        self.try_to_send(body, Duration::ZERO).await.unwrap();
    }

    /// All that can be seen.
    async fn receive(&self, hidden_for: Duration) -> Vec<Received> {
        all_of(&*self.messages, hidden_for).await
    }

    async fn receive_one(&self, hidden_for: Duration) -> Received {
        let mut received = self.receive(hidden_for).await;
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }

    /// Lets so many seconds pass, and a little more.
    async fn pass(&self, seconds: u32) {
        (self.pass)(SECOND * seconds + SECOND / 5).await;
    }

    async fn delete(&self, received: &Received) {
        self.messages.delete(&received.receipt).await.unwrap();
    }
}

async fn all_of(messages: &dyn Messages, hidden_for: Duration) -> Vec<Received> {
    let mut all = Vec::new();
    loop {
        let some = messages.receive(hidden_for).await.unwrap();
        assert!(some.len() <= 10, "{some:?}");
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn bodies(received: &[Received]) -> Vec<&str> {
    let mut bodies: Vec<&str> = received
        .iter()
        .map(|message| message.body.as_str())
        .collect();
    bodies.sort_unstable();
    bodies
}

#[track_caller]
fn assert_refused(outcome: Result<(), Error>) {
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
}

async fn what_was_sent_is_received_as_it_was(subject: &Subject) {
    let body = "{\"ü\":\"\u{1F600} <&>\\n\"}\t\r\n \u{FFFD}";
    subject.send(body).await;
    let received = subject.receive_one(HIDDEN).await;
    assert_eq!(received.body, body);
    assert!(!received.id.is_empty() && !received.receipt.is_empty());
}

async fn an_empty_queue_gives_nothing(subject: &Subject) {
    assert!(subject.receive(HIDDEN).await.is_empty());
    subject.send("a").await;
    assert!(all_of(&*subject.dead_letters, HIDDEN).await.is_empty());
}

async fn what_is_sent_twice_is_two_messages(subject: &Subject) {
    subject.send("a").await;
    subject.send("a").await;
    let received = subject.receive(HIDDEN).await;
    assert_eq!(bodies(&received), ["a", "a"]);
    assert_ne!(received[0].id, received[1].id);
    assert_ne!(received[0].receipt, received[1].receipt);
}

async fn a_message_that_was_received_is_hidden_and_comes_back(subject: &Subject) {
    subject.send("a").await;
    subject.receive_one(2 * SECOND).await;
    assert!(subject.receive(HIDDEN).await.is_empty());
    subject.pass(2).await;
    assert_eq!(subject.receive_one(HIDDEN).await.body, "a");
}

async fn a_message_is_hidden_for_a_second_at_least(subject: &Subject) {
    subject.send("a").await;
    assert_eq!(
        subject
            .messages
            .receive(Duration::ZERO)
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(subject.receive(HIDDEN).await.is_empty());
    subject.pass(1).await;
    subject.receive_one(HIDDEN).await;
}

async fn a_message_that_comes_back_has_its_id_and_another_receipt(subject: &Subject) {
    subject.send("a").await;
    let first = subject.receive_one(SECOND).await;
    subject.pass(1).await;
    let second = subject.receive_one(HIDDEN).await;
    assert_eq!(first.id, second.id);
    assert_ne!(first.receipt, second.receipt);
}

async fn a_message_that_was_deleted_does_not_come_back(subject: &Subject) {
    subject.send("a").await;
    let received = subject.receive_one(SECOND).await;
    subject.delete(&received).await;
    subject.pass(1).await;
    assert!(subject.receive(HIDDEN).await.is_empty());
}

async fn a_message_can_be_deleted_when_its_hiding_is_over(subject: &Subject) {
    subject.send("a").await;
    let received = subject.receive_one(SECOND).await;
    subject.pass(1).await;
    subject.delete(&received).await;
    assert!(subject.receive(HIDDEN).await.is_empty());
}

async fn an_old_receipt_deletes_nothing(subject: &Subject) {
    subject.send("a").await;
    let old = subject.receive_one(SECOND).await;
    subject.pass(1).await;
    let new = subject.receive_one(SECOND).await;
    // The service may say that it can't, or nothing at all.
    drop(subject.messages.delete(&old.receipt).await);
    subject.pass(1).await;
    assert!(
        all_of(&*subject.dead_letters, HIDDEN).await.is_empty(),
        "only a receive moves it"
    );
    assert!(subject.receive(HIDDEN).await.is_empty());
    let dead = all_of(&*subject.dead_letters, HIDDEN).await;
    assert_eq!(bodies(&dead), ["a"], "it was still there");
    assert_eq!(new.id, old.id);
}

async fn deleting_one_message_leaves_the_others(subject: &Subject) {
    for body in ["a", "b", "c"] {
        subject.send(body).await;
    }
    let received = subject.receive(SECOND).await;
    let deleted = received.iter().find(|message| message.body == "b");
    subject.delete(deleted.unwrap()).await;
    subject.pass(1).await;
    assert_eq!(bodies(&subject.receive(HIDDEN).await), ["a", "c"]);
}

async fn a_message_that_was_delayed_shows_after_its_delay(subject: &Subject) {
    subject.try_to_send("late", 2 * SECOND).await.unwrap();
    subject.send("at once").await;
    assert_eq!(bodies(&subject.receive(HIDDEN).await), ["at once"]);
    subject.pass(2).await;
    assert_eq!(bodies(&subject.receive(HIDDEN).await), ["late"]);
}

async fn a_delay_counts_in_whole_seconds(subject: &Subject) {
    subject.try_to_send("a", SECOND * 9 / 10).await.unwrap();
    subject.receive_one(HIDDEN).await;
}

async fn ten_messages_are_received_at_most_and_the_others_are_not_lost(subject: &Subject) {
    let sent: BTreeSet<String> = (0..23).map(|number| format!("m-{number}")).collect();
    for body in &sent {
        subject.send(body).await;
    }
    let received = subject.receive(HIDDEN).await;
    assert_eq!(received.len(), 23);
    let received: BTreeSet<String> = received.into_iter().map(|message| message.body).collect();
    assert_eq!(received, sent);
}

async fn a_message_that_was_received_too_often_is_a_dead_letter(subject: &Subject) {
    subject.send("poison").await;
    let first = subject.receive_one(SECOND).await;
    for _ in 1..MAX_RECEIVES {
        subject.pass(1).await;
        subject.receive_one(SECOND).await;
    }
    subject.pass(1).await;
    assert!(subject.receive(HIDDEN).await.is_empty());
    let dead = all_of(&*subject.dead_letters, SECOND).await;
    assert_eq!(bodies(&dead), ["poison"]);
    assert_eq!(dead[0].id, first.id);
    // There it is a message like any other.
    subject.pass(1).await;
    let dead = all_of(&*subject.dead_letters, SECOND).await;
    let deleted = subject.dead_letters.delete(&dead[0].receipt).await;
    deleted.unwrap();
    subject.pass(1).await;
    assert!(all_of(&*subject.dead_letters, HIDDEN).await.is_empty());
    assert!(subject.receive(HIDDEN).await.is_empty());
}

async fn a_message_that_was_deleted_in_time_is_no_dead_letter(subject: &Subject) {
    subject.send("a").await;
    for _ in 1..MAX_RECEIVES {
        subject.receive_one(SECOND).await;
        subject.pass(1).await;
    }
    let last = subject.receive_one(SECOND).await;
    subject.delete(&last).await;
    subject.pass(1).await;
    assert!(subject.receive(HIDDEN).await.is_empty());
    assert!(all_of(&*subject.dead_letters, HIDDEN).await.is_empty());
}

async fn a_body_has_a_megabyte_at_most_and_a_character_at_least(subject: &Subject) {
    let most = "ä".repeat(512 * 1_024);
    subject.send(&most).await;
    for refused in [String::new(), format!("{most}x")] {
        assert_refused(subject.try_to_send(&refused, Duration::ZERO).await);
    }
    assert_eq!(subject.receive_one(HIDDEN).await.body, most);
}

async fn a_body_has_no_control_characters(subject: &Subject) {
    for body in ["\u{0}", "a\u{8}", "\u{B}", "\u{1F}", "\u{FFFE}", "\u{FFFF}"] {
        assert_refused(subject.try_to_send(body, Duration::ZERO).await);
    }
    assert!(subject.receive(HIDDEN).await.is_empty());
}

async fn a_delay_of_more_than_fifteen_minutes_is_refused(subject: &Subject) {
    subject.try_to_send("a", 900 * SECOND).await.unwrap();
    assert_refused(subject.try_to_send("b", 901 * SECOND).await);
    assert!(subject.receive(HIDDEN).await.is_empty());
}

async fn a_message_group_is_of_letters_digits_and_punctuation(subject: &Subject) {
    let send = |group: &str| {
        let (body, group) = ("a".to_owned(), group.to_owned());
        subject.messages.send(body, group, Duration::ZERO)
    };
    for group in ["!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~aZ09", &"g".repeat(128)] {
        send(group).await.unwrap();
    }
    for group in ["", "a b", "ä", &"g".repeat(129)] {
        assert_refused(send(group).await);
    }
    assert_eq!(subject.receive(HIDDEN).await.len(), 2);
}
