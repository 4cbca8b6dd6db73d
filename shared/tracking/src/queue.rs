use std::time::Duration;

use aws_sdk_sqs::Client;
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

/// One queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
}

/// Longest delay that SQS takes (AWS SQS limits).
const DELAY_MAX: Duration = Duration::from_mins(15);

impl Queue {
    /// Works on the queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self {
            client,
            url: url.into(),
        }
    }

    /// Sends a message, to be seen after `delay` (at most 15 minutes; longer is cut, the table's due index covers the rest).
    ///
    /// After [`Error::Unknown`] it may have been sent; sending again makes at worst a duplicate, which every task bears.
    pub async fn send(&self, message: &Message, delay: Duration) -> Result<(), Error> {
        let delay = i32::try_from(delay.min(DELAY_MAX).as_secs()).unwrap_or(900);
        let request = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(message.encode()?)
            // Fair queues: one tenant's backlog doesn't delay the others.
            .message_group_id(group(&message.tenant));
        let request = if delay > 0 {
            request.delay_seconds(delay)
        } else {
            request
        };
        request.send().await.map_err(|error| Error::of(&error))?;
        Ok(())
    }

    /// Takes up to ten dead letters; each comes back after `hidden_for` (whole seconds, at least one) unless it is deleted.
    pub async fn dead_letters(&self, hidden_for: Duration) -> Result<Vec<DeadLetter>, Error> {
        let hidden_for = i32::try_from(hidden_for.as_secs().max(1)).unwrap_or(60);
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .visibility_timeout(hidden_for)
            .wait_time_seconds(0)
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .filter_map(|message| {
                Some(DeadLetter {
                    message: Message::decode(message.body.as_deref().unwrap_or_default())
                        .map_err(|error| error.to_string()),
                    id: message.message_id.unwrap_or_default(),
                    receipt: message.receipt_handle?,
                })
            })
            .collect())
    }

    /// Deletes a dead letter whose consequence is written.
    pub async fn delete(&self, letter: &DeadLetter) -> Result<(), Error> {
        self.client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(&letter.receipt)
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        Ok(())
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
