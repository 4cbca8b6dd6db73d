//! Migration events for a Forge remote: their names, their payload, their request.

use serde_json::{Map, Value, json};

use crate::clock::wall_ms;
use crate::forge::switches::Envelope;
use crate::forge::token::{Invocation, Module, invocation_request};
use crate::outbound::SignedRequest;
use crate::platform::{Delivered, Delivery, Event, Platform, Transfer};
use crate::shared::Shared;

const PREFIX: &str = "avi:ecosystem.migration:";
pub(crate) const SETTLED: &str = "avi:ecosystem.migration:settled:transfer";

/// PROTOCOL 7.2: what Forge calls an event that has another name on Connect.
pub(crate) fn name(connect: &str) -> String {
    let name = match connect {
        "listener-triggered" => "triggered:listener",
        "app-data-uploaded" => "uploaded:app_data",
        "listener-errored" => "errored:listener",
        "transfer-cancellation-requested" => "requested:transfer_cancellation",
        "transfer-settled" => "settled:transfer",
        "export-completed" => "completed:export_phase",
        _ => "changed:migration_phase",
    };
    format!("{PREFIX}{name}")
}

impl Platform {
    /// A file is uploaded: a message that the app has to answer, and the event that says so.
    pub(crate) fn announce_message(&mut self, id: &str, file: usize) {
        let message_id = self.new_id("message");
        let now = self.clock.now_ms();
        let preloaded = self.switches.forge_preloaded_event.clone();
        let Some(transfer) = self.transfer_mut(id) else {
            return;
        };
        let settled = transfer.state.settled();
        let Some(file) = transfer.files.get(file) else {
            return;
        };
        let mut extra = Map::new();
        extra.insert("key".into(), file.s3_key.clone().into());
        if let Some(label) = &file.label {
            extra.insert("label".into(), label.clone().into());
        }
        let event_type = if file.preloaded {
            preloaded
        } else {
            name("app-data-uploaded")
        };
        let key = file.s3_key.clone();
        if let Some(ledger) = transfer.forge.as_mut().filter(|_| !settled) {
            ledger.uploaded(&message_id, &key, now);
        }
        self.show_progress(id);
        self.emit_forge(id, event_type, Some(message_id), extra);
    }

    /// Makes an event and queues it for the remote.
    pub(crate) fn emit_forge(
        &mut self,
        id: &str,
        event_type: String,
        message_id: Option<String>,
        extra: Map<String, Value>,
    ) {
        let message_id = message_id.or_else(|| {
            let everywhere = self.switches.forge_message_id_everywhere;
            everywhere.then(|| self.new_id("message"))
        });
        let Some(transfer) = self.transfer(id) else {
            return;
        };
        let Some(tenant) = self.forge_tenant(&transfer.client_key) else {
            self.count("events.without_tenant");
            return;
        };
        let url = tenant.url(&tenant.events_path);
        let site = transfer.site.clone();
        let struck = self.strike_event(id, &event_type, &site);
        let message_id = message_id.filter(|_| !struck.anonymous);
        let Some(transfer) = self.transfer(id) else {
            return;
        };
        let body = self.payload(transfer, &event_type, message_id.as_deref(), extra);
        let event = Event {
            s3_key: body.get("key").and_then(Value::as_str).map(str::to_owned),
            event_type,
            body,
            at_ms: self.clock.now_ms(),
            delay_ms: struck.delay_ms,
            copies: struck.copies,
            deliveries: vec![Delivery {
                url,
                message_id,
                state: if struck.dropped {
                    Delivered::Dropped
                } else {
                    Delivered::Waiting
                },
                attempts: Vec::new(),
            }],
        };
        self.post(id, event, struck.dropped);
    }

    /// PROTOCOL 7.3.
    fn payload(
        &self,
        transfer: &Transfer,
        event_type: &str,
        message_id: Option<&str>,
        extra: Map<String, Value>,
    ) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("eventType".into(), event_type.into());
        body.insert("transferId".into(), transfer.id.clone().into());
        let original = transfer
            .original_id
            .clone()
            .filter(|_| self.switches.forge_original_transfer_id);
        if let Some(original) = original {
            body.insert("originalTransferId".into(), original.into());
        }
        if let Some(message_id) = message_id {
            body.insert("messageId".into(), message_id.into());
        }
        body.extend(extra);
        let mut details = self.details(transfer);
        if let Some(details) = details.as_object_mut() {
            for connect_only in ["jiraClientKey", "confluenceClientKey"] {
                details.remove(connect_only);
            }
        }
        body.insert("migrationDetails".into(), details);
        body
    }

    /// What is sent: the event, by one of the readings of its envelope (D1), and what other Forge events carry besides.
    fn enveloped(&self, event: &Map<String, Value>, transfer: &Transfer) -> Value {
        let mut body = Map::new();
        match self.switches.forge_envelope {
            Envelope::TopLevel => body.extend(event.clone()),
            Envelope::Event => {
                body.insert("event".into(), event.clone().into());
            }
            Envelope::Payload => {
                body.insert("payload".into(), event.clone().into());
            }
        }
        if self.switches.extra_fields
            && let Some(tenant) = self.forge_tenant(&transfer.client_key)
        {
            let product = tenant.product.name();
            let site = format!("ari:cloud:{product}::site/{}", tenant.cloud_id);
            body.insert("context".into(), site.into());
            body.insert("app".into(), json!({ "id": tenant.app }));
            let environment = json!({ "id": tenant.environment_id });
            body.insert("environment".into(), environment);
        }
        body.into()
    }
}

/// The request for one attempt at an event. `None` when the app was uninstalled.
pub(crate) fn request(
    shared: &Shared,
    platform: &Platform,
    transfer: &Transfer,
    event: usize,
) -> Option<(SignedRequest, Vec<u8>)> {
    let tenant = platform.forge_tenant(&transfer.client_key)?;
    let sent = transfer.events.get(event)?;
    let delivery = sent.deliveries.first()?;
    let attempt = delivery.attempts.len();
    let invocation = Invocation {
        installation: tenant,
        module: Module::Trigger,
        words: &[
            "event",
            &transfer.id,
            &event.to_string(),
            &attempt.to_string(),
            // A copy may leave before the attempt that it copies is recorded.
            &wall_ms().to_string(),
        ],
    };
    let with_system_token = platform.switches.forge_system_token_with_events;
    let request = invocation_request(
        shared,
        platform,
        &invocation,
        &delivery.url,
        with_system_token,
    )
    .ok()?;
    let body = serde_json::to_vec(&platform.enveloped(&sent.body, transfer)).ok()?;
    Some((request, body))
}
