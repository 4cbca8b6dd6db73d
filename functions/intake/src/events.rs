use std::time::Duration;

use landfall_platform::connect::qsh::Reading;
use landfall_platform::digest::sha256_hex;
use landfall_platform::event::{DecodeError, Event, Kind};
use landfall_platform::{connect, forge};
use landfall_runtime::ForeignClientKeys;
use landfall_tracking::{Error, EventRow, Message, NewFile, Recorded, Task};
use landfall_transfer::{Flavour, TenantId, TransferId};

use crate::answer::Answer;
use crate::authentication::Sender;
use crate::durable::{Writes, write_both};
use crate::intake::{Call, Intake};

impl Intake {
    /// A migration webhook.
    pub(crate) async fn webhook(&self, call: Call<'_>) -> Answer {
        match self.sender(call).await {
            Ok(sender) => self.event(call, &sender).await,
            Err(answer) => answer,
        }
    }

    /// An event of a proven sender, read as its flavour has it: 200 once it is durable.
    pub(crate) async fn event(&self, call: Call<'_>, sender: &Sender) -> Answer {
        let decode = match sender.tenant.flavour() {
            Flavour::Connect => connect::event::decode,
            Flavour::Forge => forge::event::decode,
        };
        let body = &call.request.body;
        if body.len() > self.body_bytes {
            let reason = format!("the body is larger than {} bytes", self.body_bytes);
            return self.reject(call, &sender.tenant, 413, "", &reason).await;
        }
        let event = match decode(body) {
            Ok(event) => event,
            Err(error) => {
                let (status, event_type) = match &error {
                    DecodeError::NotJson => (400, ""),
                    DecodeError::MissingField { event_type, .. }
                    | DecodeError::InvalidField { event_type, .. } => (422, event_type.as_str()),
                };
                return self
                    .reject(call, &sender.tenant, status, event_type, &error.to_string())
                    .await;
            }
        };
        let foreign = !event.client_keys.is_empty()
            && !event
                .client_keys
                .iter()
                .any(|key| key == sender.tenant.as_str());
        if foreign && self.foreign_client_keys == ForeignClientKeys::Refuse {
            self.note_foreign(call, &sender.tenant, &event).await;
            return Answer::of(403, "the body names another tenant than the token");
        }
        let note_foreign = async {
            if foreign {
                self.note_foreign(call, &sender.tenant, &event).await;
            }
        };
        let count_unknown = async {
            if !event.kind.is_known() {
                self.aside(
                    call,
                    "count an event of an unknown type",
                    Box::pin(self.store.count(&sender.tenant, "events_unknown")),
                )
                .await;
            }
        };
        // On the heap the futures of the calls don't add up in this one.
        let (writes, (), ()) = tokio::join!(
            Box::pin(self.store_event(call, &sender.tenant, &event)),
            Box::pin(note_foreign),
            Box::pin(count_unknown),
        );
        log_stored(sender, &event, &writes);
        if writes.is_durable() {
            Answer::ok()
        } else {
            Answer::unavailable()
        }
    }

    /// Puts the row and sends the message at the same time. Each carries the whole event.
    async fn store_event(
        &self,
        call: Call<'_>,
        tenant: &TenantId,
        event: &Event,
    ) -> Writes<Recorded> {
        let body = sendable(event.raw.to_string());
        let transfer = event.transfer_id.as_deref().map(TransferId::new);
        let put = async {
            if let (Kind::AppDataUploaded { s3_key, label }, Some(transfer)) =
                (&event.kind, &transfer)
            {
                let file = NewFile {
                    tenant: tenant.clone(),
                    transfer: transfer.clone(),
                    s3_key: s3_key.clone(),
                    label: label.clone(),
                    event: Some(body.clone()),
                    message_id: Some(event.message_id.clone()),
                    received_at: call.now,
                };
                self.store.announce(&file, self.file_grace).await
            } else {
                let row = EventRow {
                    tenant: tenant.clone(),
                    transfer: transfer.clone(),
                    message_id: event.message_id.clone(),
                    event_type: event.kind.event_type().to_owned(),
                    body: body.clone(),
                    received_at: call.now,
                };
                self.store.record_event(&row, self.message_grace).await
            }
        };
        // Files have a queue of their own, so that a cancellation doesn't wait behind them.
        let queue = if matches!(event.kind, Kind::AppDataUploaded { .. }) {
            &self.imports
        } else {
            &self.events
        };
        let task = Task::Event {
            body: body.clone(),
            received_at: call.now,
        };
        let message = Message::new(tenant.clone(), task);
        let send = queue.send(&message, Duration::ZERO);
        write_both(
            Box::pin(put),
            Box::pin(send),
            self.clocks.write_within,
            call.deadline,
        )
        .await
    }

    /// Keeps what support needs of an event that can't be taken, and answers why.
    async fn reject(
        &self,
        call: Call<'_>,
        tenant: &TenantId,
        status: u16,
        event_type: &str,
        reason: &str,
    ) -> Answer {
        let bytes = call.request.body.len();
        tracing::warn!(
            tenant.id = %tenant,
            event.r#type = event_type,
            event.size_bytes = bytes,
            answer.status = status,
            error = reason,
            metric = "event_rejected",
            "rejected an event"
        );
        let digest = sha256_hex(&call.request.body);
        let record = self
            .store
            .record_rejected(tenant, event_type, bytes, reason, &digest, call.now);
        tokio::join!(
            self.aside(call, "keep a rejected event's metadata", Box::pin(record)),
            self.aside(
                call,
                "count a rejected event",
                Box::pin(self.store.count(tenant, "events_rejected"))
            ),
        );
        Answer::of(status, reason)
    }

    /// Keeps that a body named another tenant than its token. The other tenant is neither read nor written.
    async fn note_foreign(&self, call: Call<'_>, tenant: &TenantId, event: &Event) {
        tracing::warn!(
            tenant.id = %tenant,
            transfer.id = event.transfer_id,
            message.id = event.message_id,
            metric = "event_foreign_client_key",
            "the body of an event names another tenant than its token"
        );
        let transfer = event.transfer_id.as_deref();
        let record = self.store.record_security(
            tenant,
            "FOREIGN_CLIENT_KEY",
            transfer,
            &event.message_id,
            call.now,
        );
        tokio::join!(
            self.aside(call, "keep a security entry", Box::pin(record)),
            self.aside(
                call,
                "count a foreign client key",
                Box::pin(self.store.count(tenant, "events_foreign_client_key"))
            ),
        );
    }

    /// A write that the answer doesn't depend on.
    async fn aside(
        &self,
        call: Call<'_>,
        what: &str,
        write: impl Future<Output = Result<(), Error>>,
    ) {
        if let Err(failure) = call.deadline.within(self.clocks.write_within, write).await {
            tracing::error!(error = %failure, "could not {what}");
        }
    }
}

/// SQS takes the characters of XML 1.0. JSON has already escaped the control characters; these two it leaves as they are.
fn sendable(json: String) -> String {
    if json.contains(['\u{fffe}', '\u{ffff}']) {
        json.replace('\u{fffe}', "\\ufffe")
            .replace('\u{ffff}', "\\uffff")
    } else {
        json
    }
}

fn log_stored(sender: &Sender, event: &Event, writes: &Writes<Recorded>) {
    let words = |durable: bool| if durable { "durable" } else { "failed" };
    let metric = match (writes.is_durable(), &writes.row) {
        (false, _) => "event_not_stored",
        (true, Ok(Recorded::Duplicate)) => "event_duplicate",
        _ if !event.kind.is_known() => "event_unknown_type",
        _ => "event_stored",
    };
    let failures = [writes.row.as_ref().err(), writes.message.as_ref().err()];
    for (place, failure) in ["row", "message"].into_iter().zip(failures) {
        if let Some(failure) = failure {
            tracing::error!(
                tenant.id = %sender.tenant,
                transfer.id = event.transfer_id,
                message.id = event.message_id,
                error = %failure,
                metric = "event_write_failed",
                "could not write an event's {place}"
            );
        }
    }
    tracing::info!(
        tenant.id = %sender.tenant,
        transfer.id = event.transfer_id,
        transfer.original_id = event.original_transfer_id,
        message.id = event.message_id,
        message.id_is_digest = event.message_id_is_digest,
        event.r#type = event.kind.event_type(),
        event.row = words(writes.row.is_ok()),
        event.message = words(writes.message.is_ok()),
        qsh.reading = sender.reading.map(Reading::as_str),
        metric,
        "took an event in"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sqs_refuses_is_escaped_and_means_the_same() {
        let json = serde_json::json!({ "label": "a\u{ffff}b\u{fffe}\u{1}" });
        let sent = sendable(json.to_string());
        assert!(
            sent.chars()
                .all(|character| !matches!(character, '\u{fffe}' | '\u{ffff}' | '\0'..' '))
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&sent).unwrap(),
            json
        );
    }
}
