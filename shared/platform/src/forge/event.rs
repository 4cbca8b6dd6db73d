//! Decoding the body of a migration event that a remote is sent (PROTOCOL 7.2 and 7.3).

use serde_json::{Map, Value};

use crate::event::fields::{
    clipped, identity, lenient_identity, message_id, milliseconds, present, text,
};
use crate::event::{DecodeError, Event, Kind, ServerError, bounded_label};

/// What the type of every migration event begins with (PROTOCOL 7.2, OPEN-QUESTIONS D14).
const PREFIX: &str = "avi:ecosystem.migration:";

/// Where the event is when it is not the body itself (OPEN-QUESTIONS D1).
const ENVELOPES: [&str; 2] = ["event", "payload"];

/// Longest name of an exception's class that is kept, in bytes. The class comes from the server app.
const EXCEPTION_MAX: usize = 512;

/// Longest stack trace that is kept, in bytes. The first calls say where it happened.
const STACK_MAX: usize = 16 * 1024;

/// Decodes the body of an event, or what was kept of it. Unknown types, unknown fields and unknown shapes are kept, never refused.
pub fn decode(body: &[u8]) -> Result<Event, DecodeError> {
    let mut raw: Value = serde_json::from_slice(body).map_err(|_| DecodeError::NotJson)?;
    forget_names(&mut raw);
    for envelope in ENVELOPES {
        if let Some(inner) = raw.get_mut(envelope) {
            forget_names(inner);
        }
    }
    let empty = Map::new();
    let fields = event_of(&raw).unwrap_or(&empty);
    let event_type = text(fields, "eventType").unwrap_or_default();
    let kind = kind(event_type, fields)?;
    let transfer_id = if kind.is_known() {
        Some(identity(event_type, fields, "transferId")?)
    } else {
        lenient_identity(fields, "transferId")
    };
    // The schema lacks it, the page on re-runs promises it (OPEN-QUESTIONS D11).
    let original_transfer_id = if kind.is_known() && present(fields, "originalTransferId") {
        Some(identity(event_type, fields, "originalTransferId")?)
    } else {
        lenient_identity(fields, "originalTransferId")
    };
    let (message_id, message_id_is_digest) =
        message_id(&kind, transfer_id.as_deref(), fields, &raw);
    let details = fields
        .get("migrationDetails")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    Ok(Event {
        message_id,
        message_id_is_digest,
        created_at_ms: details.get("createdAt").and_then(milliseconds),
        // Forge's events name no client keys: whose they are, the token alone says.
        client_keys: Vec::new(),
        migration_id: lenient_identity(details, "migrationId"),
        migration_scope_id: lenient_identity(details, "migrationScopeId"),
        cloud_url: text(details, "cloudUrl")
            .filter(|url| url.len() <= 2_048)
            .map(str::to_owned),
        kind,
        transfer_id,
        original_transfer_id,
        raw,
    })
}

/// Takes the names of plan and transfer out of an object: people write other people's names into them.
fn forget_names(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    fields.shift_remove("transferName");
    if let Some(details) = fields
        .get_mut("migrationDetails")
        .and_then(Value::as_object_mut)
    {
        details.shift_remove("name");
        details.shift_remove("transferName");
    }
}

/// The event itself: the body, or an object one level down, whichever has the type of a migration event; else the first with any type.
fn event_of(raw: &Value) -> Option<&Map<String, Value>> {
    let candidates = || {
        [Some(raw)]
            .into_iter()
            .chain(ENVELOPES.map(|envelope| raw.get(envelope)))
            .flatten()
            .filter_map(Value::as_object)
    };
    let typed = |fields: &&Map<String, Value>| text(fields, "eventType").is_some();
    let migration = |fields: &&Map<String, Value>| {
        text(fields, "eventType").is_some_and(|name| name.starts_with(PREFIX))
    };
    candidates()
        .find(migration)
        .or_else(|| candidates().find(typed))
}

fn kind(event_type: &str, fields: &Map<String, Value>) -> Result<Kind, DecodeError> {
    let unknown = || Kind::Unknown(clipped(event_type).to_owned());
    let Some(name) = event_type.strip_prefix(PREFIX) else {
        return Ok(unknown());
    };
    Ok(match name {
        "triggered:listener" => Kind::ListenerTriggered,
        // A preloaded file is a file like others, and is answered like them (PROTOCOL 7.2).
        "uploaded:app_data" | "preloaded:app_data" => Kind::AppDataUploaded {
            s3_key: identity(event_type, fields, "key")?,
            label: text(fields, "label").map(|label| bounded_label(label).into_owned()),
        },
        "completed:export_phase" => Kind::ExportPhaseCompleted,
        "requested:transfer_cancellation" => Kind::CancellationRequested,
        "errored:listener" => Kind::ListenerErrored {
            error: server_error(fields),
        },
        "settled:transfer" => Kind::Settled {
            status: text(fields, "transferStatus")
                .or_else(|| text(fields, "status"))
                .map(|status| clipped(status).to_owned()),
        },
        _ => unknown(),
    })
}

/// What the listener failed with: in `transferError` by the schema, else beside the other fields (PROTOCOL 7.2).
fn server_error(fields: &Map<String, Value>) -> Option<ServerError> {
    let fields = fields
        .get("transferError")
        .and_then(Value::as_object)
        .unwrap_or(fields);
    let cut = |field: &str, longest: usize| {
        text(fields, field)
            .filter(|text| !text.is_empty())
            .map(|text| text[..text.floor_char_boundary(longest)].to_owned())
    };
    let error = ServerError {
        exception_type: cut("exceptionType", EXCEPTION_MAX),
        stack_trace: cut("safeStackTrace", STACK_MAX),
    };
    (error.exception_type.is_some() || error.stack_trace.is_some()).then_some(error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::is_identity;

    fn decoded(body: &Value) -> Event {
        decode(body.to_string().as_bytes()).unwrap()
    }

    fn named(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    fn upload() -> Value {
        json!({
            "eventType": "avi:ecosystem.migration:uploaded:app_data",
            "transferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
            "messageId": "e0a9a1f2-13e7-4b8c-9f7a-77d2ab9b0002",
            "key": "b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001",
            "label": "signatures",
            "transferName": "Signatures of Jane Doe",
            "migrationDetails": {
                "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
                "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
                "createdAt": 1_763_769_600_000_i64,
                "cloudUrl": "https://example-site.atlassian.net",
                "name": "Wave 1 of Jane Doe"
            },
            "context": "ari:cloud:jira::site/1"
        })
    }

    #[test]
    fn an_upload_is_read_whole() {
        let event = decoded(&upload());
        assert_eq!(
            event.kind,
            Kind::AppDataUploaded {
                s3_key: "b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001".into(),
                label: Some("signatures".into()),
            }
        );
        assert_eq!(
            event.transfer_id.as_deref(),
            Some("0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001")
        );
        assert_eq!(event.original_transfer_id, None);
        assert_eq!(
            event.platform_message_id(),
            Some("e0a9a1f2-13e7-4b8c-9f7a-77d2ab9b0002")
        );
        assert_eq!(event.created_at_ms, Some(1_763_769_600_000));
        assert!(event.client_keys.is_empty());
        assert_eq!(event.raw["context"], "ari:cloud:jira::site/1");
    }

    #[test]
    fn an_event_is_the_body_or_lies_in_either_envelope() {
        let plain = decoded(&upload());
        for envelope in ENVELOPES {
            let event = decoded(&json!({ envelope: upload(), "context": {"cloudId": "c"} }));
            assert_eq!(event.kind, plain.kind);
            assert_eq!(event.transfer_id, plain.transfer_id);
            assert_eq!(event.message_id, plain.message_id);
            assert_eq!(event.raw["context"]["cloudId"], "c");
        }
        let wrapped = json!({"eventType": "something", "payload": upload()});
        assert_eq!(decoded(&wrapped).kind, plain.kind);
        let mut outside = upload();
        outside["event"] = json!({"eventType": named("settled:transfer"), "transferId": "other"});
        assert_eq!(decoded(&outside).kind, plain.kind);
    }

    #[test]
    fn names_of_plan_and_transfer_are_nowhere_in_what_is_kept() {
        for body in [
            upload(),
            json!({ "event": upload() }),
            json!({ "payload": upload(), "transferName": "of Jane" }),
        ] {
            assert!(!format!("{:?}", decoded(&body)).contains("Jane"));
        }
    }

    #[test]
    fn all_types_are_known_and_a_preloaded_file_is_a_file() {
        for (name, ours) in [
            ("triggered:listener", "listener-triggered"),
            ("uploaded:app_data", "app-data-uploaded"),
            ("preloaded:app_data", "app-data-uploaded"),
            ("completed:export_phase", "export-phase-completed"),
            (
                "requested:transfer_cancellation",
                "transfer-cancellation-requested",
            ),
            ("errored:listener", "listener-errored"),
            ("settled:transfer", "transfer-settled"),
        ] {
            let event = decoded(&json!({"eventType": named(name), "transferId": "t", "key": "k"}));
            assert!(event.kind.is_known());
            assert_eq!(event.kind.event_type(), ours);
        }
    }

    #[test]
    fn an_unknown_type_or_shape_is_kept() {
        for name in [
            &*named("created:mutation"),
            "avi:jira:updated:issue",
            "app-data-uploaded",
        ] {
            let event = decoded(&json!({"eventType": name, "transferId": "t", "x": 1}));
            assert_eq!(event.kind, Kind::Unknown(name.into()));
            assert_eq!(event.transfer_id.as_deref(), Some("t"));
            assert_eq!(event.raw["x"], 1);
        }
        for body in [
            json!([1]),
            json!({"x": 1}),
            json!({"event": 5, "payload": []}),
            json!({"eventType": 5}),
        ] {
            assert_eq!(decoded(&body).kind, Kind::Unknown(String::new()));
        }
        assert_eq!(decode(b"{"), Err(DecodeError::NotJson));
    }

    #[test]
    fn a_known_type_without_its_required_fields_names_the_field() {
        let error = |body: Value| decode(body.to_string().as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error(json!({"eventType": named("triggered:listener")})),
            "avi:ecosystem.migration:triggered:listener without transferId"
        );
        assert_eq!(
            error(json!({"eventType": named("uploaded:app_data"), "transferId": "t"})),
            "avi:ecosystem.migration:uploaded:app_data without key"
        );
        assert_eq!(
            error(
                json!({"event": {"eventType": named("uploaded:app_data"), "transferId": "t", "key": "../t"}})
            ),
            "avi:ecosystem.migration:uploaded:app_data with an unusable key"
        );
    }

    #[test]
    fn a_failed_listener_says_with_what_and_a_long_stack_is_cut() {
        let event = decoded(&json!({
            "eventType": named("errored:listener"), "transferId": "t",
            "transferError": {"exceptionType": "java.lang.IllegalStateException", "safeStackTrace": "ä".repeat(STACK_MAX)}
        }));
        let Kind::ListenerErrored { error: Some(error) } = event.kind else {
            panic!("the error is in the event");
        };
        assert_eq!(
            error.exception_type.as_deref(),
            Some("java.lang.IllegalStateException")
        );
        assert_eq!(error.stack_trace.unwrap().len(), STACK_MAX);
        let beside = decoded(&json!({
            "eventType": named("errored:listener"), "transferId": "t", "exceptionType": "E"
        }));
        assert_eq!(
            beside.kind,
            Kind::ListenerErrored {
                error: Some(ServerError {
                    exception_type: Some("E".into()),
                    stack_trace: None
                })
            }
        );
        let bare = decoded(&json!({"eventType": named("errored:listener"), "transferId": "t"}));
        assert_eq!(bare.kind, Kind::ListenerErrored { error: None });
    }

    #[test]
    fn a_settled_transfer_says_how() {
        let event = decoded(
            &json!({"eventType": named("settled:transfer"), "transferId": "t", "transferStatus": "TIMED_OUT"}),
        );
        assert_eq!(
            event.kind,
            Kind::Settled {
                status: Some("TIMED_OUT".into())
            }
        );
    }

    #[test]
    fn a_rerun_may_name_its_first_transfer() {
        let mut body = upload();
        body["originalTransferId"] = json!("first");
        assert_eq!(
            decoded(&body).original_transfer_id.as_deref(),
            Some("first")
        );
        body["originalTransferId"] = json!("a b");
        assert!(decode(body.to_string().as_bytes()).is_err());
    }

    #[test]
    fn a_digest_stands_in_for_a_missing_message_id_and_can_not_be_answered() {
        let mut first = upload();
        first.as_object_mut().unwrap().remove("messageId");
        let mut again = first.clone();
        again["context"] = json!("another");
        let mut other = first.clone();
        other["key"] = json!("another");
        let (first, again, other) = (
            decoded(&first),
            decoded(&json!({ "event": again })),
            decoded(&other),
        );
        assert!(first.message_id_is_digest && is_identity(&first.message_id));
        assert_eq!(first.platform_message_id(), None);
        assert_eq!(first.message_id, again.message_id);
        assert_ne!(first.message_id, other.message_id);
    }

    #[test]
    fn what_is_kept_of_an_event_decodes_to_the_same_event() {
        for body in [
            upload(),
            json!({ "payload": upload(), "transferName": "n" }),
            json!({"event": {"eventType": "new", "x": 1.10}, "messageId": "outside"}),
            json!([1]),
        ] {
            let event = decoded(&body);
            assert_eq!(decode(event.raw.to_string().as_bytes()).unwrap(), event);
        }
    }
}
