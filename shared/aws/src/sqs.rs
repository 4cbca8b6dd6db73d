use std::time::Duration;

use aws_sdk_sqs::Client;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{Error, Messages, Received};

use crate::error::sort;

/// One SQS queue.
#[derive(Clone, Debug)]
pub struct Sqs {
    client: Client,
    url: String,
}

impl Sqs {
    /// Works on the queue at `url`. The client brings time-outs and retries.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self {
            client,
            url: url.into(),
        }
    }

    async fn send(&self, body: String, group: String, delay: Duration) -> Result<(), Error> {
        let request = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .message_group_id(group);
        let request = match seconds(delay) {
            0 => request,
            delay => request.delay_seconds(delay),
        };
        request.send().await.map_err(|error| sort(&error))?;
        Ok(())
    }

    async fn receive(&self, hidden_for: Duration) -> Result<Vec<Received>, Error> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .visibility_timeout(seconds(hidden_for).max(1))
            .wait_time_seconds(0)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .filter_map(|message| {
                Some(Received {
                    id: message.message_id.unwrap_or_default(),
                    receipt: message.receipt_handle?,
                    body: message.body.unwrap_or_default(),
                })
            })
            .collect())
    }

    async fn delete(&self, receipt: &str) -> Result<(), Error> {
        self.client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(receipt)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(())
    }
}

impl Messages for Sqs {
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

/// SQS counts in whole seconds.
fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
