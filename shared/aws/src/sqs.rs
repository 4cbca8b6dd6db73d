use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{Error, Messages, Received};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::error::sort;
use crate::json::JsonService;

/// Most messages that one call brings (AWS SQS, `ReceiveMessage`).
const RECEIVED_MAX: u32 = 10;

/// One SQS queue.
#[derive(Clone, Debug)]
pub struct Sqs {
    service: JsonService,
    url: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Send<'a> {
    queue_url: &'a str,
    message_body: &'a str,
    message_group_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Receive<'a> {
    queue_url: &'a str,
    max_number_of_messages: u32,
    visibility_timeout: u64,
    wait_time_seconds: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveAnswer {
    messages: Option<Vec<Arrived>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Arrived {
    #[serde(default)]
    message_id: String,
    receipt_handle: Option<String>,
    #[serde(default)]
    body: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Delete<'a> {
    queue_url: &'a str,
    receipt_handle: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetAttributes<'a> {
    queue_url: &'a str,
    attribute_names: [&'static str; 1],
}

impl Sqs {
    /// Works on the queue at `url`.
    pub fn new(access: Access, url: impl Into<String>) -> Self {
        Self {
            service: JsonService::sqs(access),
            url: url.into(),
        }
    }

    /// The cheapest question there is about a queue.
    async fn warm_up(&self) -> Result<(), Error> {
        let input = GetAttributes {
            queue_url: &self.url,
            attribute_names: ["QueueArn"],
        };
        let asked = self
            .service
            .call::<IgnoredAny>("GetQueueAttributes", &input);
        asked.await.map(drop).map_err(sort)
    }

    async fn send(&self, body: String, group: String, delay: Duration) -> Result<(), Error> {
        let input = Send {
            queue_url: &self.url,
            message_body: &body,
            message_group_id: &group,
            delay_seconds: Some(delay.as_secs()).filter(|delay| *delay > 0),
        };
        let sent = self.service.call::<IgnoredAny>("SendMessage", &input);
        sent.await.map_err(sort)?;
        Ok(())
    }

    async fn receive(&self, hidden_for: Duration) -> Result<Vec<Received>, Error> {
        let input = Receive {
            queue_url: &self.url,
            max_number_of_messages: RECEIVED_MAX,
            // SQS counts in whole seconds.
            visibility_timeout: hidden_for.as_secs().max(1),
            wait_time_seconds: 0,
        };
        let answer: ReceiveAnswer = self
            .service
            .call("ReceiveMessage", &input)
            .await
            .map_err(sort)?;
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .filter_map(|message| {
                Some(Received {
                    id: message.message_id,
                    receipt: message.receipt_handle?,
                    body: message.body,
                })
            })
            .collect())
    }

    async fn delete(&self, receipt: &str) -> Result<(), Error> {
        let input = Delete {
            queue_url: &self.url,
            receipt_handle: receipt,
        };
        // It answers with nothing.
        self.service
            .call_for_nothing("DeleteMessage", &input)
            .await
            .map_err(sort)
    }
}

impl Messages for Sqs {
    fn warm_up(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.warm_up().boxed()
    }

    fn send(
        &self,
        body: String,
        group: String,
        delay: Duration,
    ) -> BoxFuture<'_, Result<(), Error>> {
        self.send(body, group, delay).boxed()
    }

    fn receive(&self, hidden_for: Duration) -> BoxFuture<'_, Result<Vec<Received>, Error>> {
        self.receive(hidden_for).boxed()
    }

    fn delete<'a>(&'a self, receipt: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        self.delete(receipt).boxed()
    }
}
