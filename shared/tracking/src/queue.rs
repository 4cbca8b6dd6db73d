use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use landfall_transfer::clocks::aws::MESSAGE_DELAY_MAX;
use landfall_transfer::{TenantId, Timestamp, TransferId};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a message asks for. Messages carry ids and events, never secrets, tokens, signed URLs or records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Take in an event of the platform, which the message carries whole, the plan's name left out.
    Event {
        /// The event as JSON.
        body: String,
        /// When intake received it.
        received_at: Timestamp,
    },
    /// Import a file, or go on with it from its checkpoint.
    Import {
        /// Its transfer.
        transfer: TransferId,
        /// Its key.
        s3_key: String,
    },
}

/// A message on one of the queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Version of this shape.
    v: u32,
    /// Whose work it is, from the verified token.
    pub tenant: TenantId,
    /// What is asked for.
    pub task: Task,
}

const VERSION: u32 = 1;

impl Message {
    /// A message of today's version.
    pub const fn new(tenant: TenantId, task: Task) -> Self {
        Self {
            v: VERSION,
            tenant,
            task,
        }
    }

    /// Reads a message's body. A newer version than this release knows is an error, so that the message is kept.
    pub fn decode(body: &str) -> Result<Self, Error> {
        let message: Self = serde_json::from_str(body).map_err(|error| {
            // The error's text may quote the body; its position says enough.
            Error::unreadable(
                "a message",
                format!("{:?} error at column {}", error.classify(), error.column()),
            )
        })?;
        if message.v == 0 || message.v > VERSION {
            return Err(Error::unreadable(
                "a message",
                format!("version {} is newer than this release", message.v),
            ));
        }
        Ok(message)
    }

    fn encode(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|error| Error::unreadable("a message", error))
    }
}

/// A message that every worker failed on.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// What it asks for; an error when that can't be read.
    pub message: Result<Message, String>,
    /// Its id, for the log.
    pub id: String,
    receipt: String,
}

/// A message as a queue hands it out.
#[derive(Clone, Debug)]
pub struct Received {
    /// The queue's id for it.
    pub id: String,
    /// The right to delete it.
    pub receipt: String,
    /// What was sent.
    pub body: String,
}

/// The port to one queue: as much of SQS as the functions themselves call.
pub trait Messages: fmt::Debug + Send + Sync {
    /// Sends a body, to be seen after `delay`, within a fair queue's `group`. After [`Error::Unknown`] it may have been sent.
    fn send(
        &self,
        body: String,
        group: String,
        delay: Duration,
    ) -> BoxFuture<'_, Result<(), Error>>;

    /// Takes up to ten messages; each comes back after `hidden_for` unless it is deleted.
    fn receive(&self, hidden_for: Duration) -> BoxFuture<'_, Result<Vec<Received>, Error>>;

    /// Deletes a message that was received.
    fn delete<'a>(&'a self, receipt: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// Opens a connection while nobody waits for it. What has none need not do anything.
    fn warm_up(&self) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(())).boxed()
    }
}

/// One queue.
#[derive(Clone, Debug)]
pub struct Queue(Arc<dyn Messages>);

impl Queue {
    /// Works on these messages.
    pub fn new(messages: Arc<dyn Messages>) -> Self {
        Self(messages)
    }

    /// Opens a connection while nobody waits for it, so that the first message doesn't pay for the TLS handshake.
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.0.warm_up().await
    }

    /// Sends a message, to be seen after `delay` (at most 15 minutes; longer is cut, the table's due index covers the rest).
    ///
    /// After [`Error::Unknown`] it may have been sent; sending again makes at worst a duplicate, which every task bears.
    pub async fn send(&self, message: &Message, delay: Duration) -> Result<(), Error> {
        // Fair queues: one tenant's backlog doesn't delay the others.
        let group = group(&message.tenant);
        self.0
            .send(message.encode()?, group, delay.min(MESSAGE_DELAY_MAX))
            .await
    }

    /// Takes up to ten dead letters; each comes back after `hidden_for` (whole seconds, at least one) unless it is deleted.
    pub async fn dead_letters(&self, hidden_for: Duration) -> Result<Vec<DeadLetter>, Error> {
        let received = self.0.receive(hidden_for).await?;
        Ok(received
            .into_iter()
            .map(|letter| DeadLetter {
                message: Message::decode(&letter.body).map_err(|error| error.to_string()),
                id: letter.id,
                receipt: letter.receipt,
            })
            .collect())
    }

    /// Deletes a dead letter whose consequence is written.
    pub async fn delete(&self, letter: &DeadLetter) -> Result<(), Error> {
        self.0.delete(&letter.receipt).await
    }
}

/// The message group: at most 128 characters of a safe set (AWS SQS limits), so an odd tenant id is hashed.
fn group(tenant: &TenantId) -> String {
    let id = tenant.as_str();
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~".contains(&byte)
    };
    if !id.is_empty() && id.len() <= 128 && id.bytes().all(plain) {
        id.to_owned()
    } else {
        hex::encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            id.as_bytes(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_a_message_group_by_its_id_or_where_that_is_odd_by_its_hash() {
        let group = |id: &str| super::group(&TenantId::new(id));
        let longest = "x".repeat(128);
        for plain in ["unknown-7f0c:2f", "a", "!~", &longest] {
            assert_eq!(group(plain), plain);
        }
        for odd in ["", "with space", "ümlaut", "a\u{7f}", &"x".repeat(129)] {
            let hashed = group(odd);
            assert_eq!(hashed.len(), 64, "{odd:?}");
            assert!(hashed.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_ne!(hashed, group("another odd one"));
        }
    }

    const GOLDEN_V1: &str =
        r#"{"v":1,"tenant":"t","task":{"import":{"transfer":"x","s3_key":"k"}}}"#;

    #[test]
    fn a_message_of_version_1_is_read_and_written_as_it_always_was() {
        let message = Message::new(
            TenantId::new("t"),
            Task::Import {
                transfer: TransferId::new("x"),
                s3_key: "k".to_owned(),
            },
        );
        assert_eq!(message.encode().unwrap(), GOLDEN_V1);
        assert_eq!(Message::decode(GOLDEN_V1).unwrap(), message);
    }

    #[test]
    fn a_message_of_a_newer_version_is_kept_and_not_guessed_at() {
        let newer = GOLDEN_V1.replace("\"v\":1", "\"v\":2");
        assert!(
            Message::decode(&newer)
                .unwrap_err()
                .to_string()
                .contains("newer than this release")
        );
    }

    #[test]
    fn an_unreadable_message_is_not_quoted() {
        let error = Message::decode(r#"{"v":1,"tenant":"secret-name","task":{"nonsense":{}}}"#)
            .unwrap_err();
        assert!(!error.to_string().contains("secret-name"), "{error}");
        assert!(!error.to_string().contains("nonsense"), "{error}");
    }
}
