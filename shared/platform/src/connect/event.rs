//! Decoding the body of a migration webhook (PROTOCOL 3.3 and 3.4).

use serde_json::{Map, Value};

use crate::event::fields::{
    clipped, identity, lenient_identity, message_id, milliseconds, present, text,
};
use crate::event::{Event, Kind, bounded_label};

pub use crate::event::DecodeError;

/// Decodes a webhook's body. Unknown types, unknown fields and unknown shapes are kept, never refused (OPEN-QUESTIONS A3).
pub fn decode(body: &[u8]) -> Result<Event, DecodeError> {
    let mut raw: Value = serde_json::from_slice(body).map_err(|_| DecodeError::NotJson)?;
    if let Some(details) = raw
        .get_mut("migrationDetails")
        .and_then(Value::as_object_mut)
    {
        details.shift_remove("name");
    }
    let empty = Map::new();
    let fields = raw.as_object().unwrap_or(&empty);
    let event_type = text(fields, "eventType").unwrap_or_default();
    let kind = kind(event_type, fields)?;
    let transfer_id = if kind.is_known() {
        Some(identity(event_type, fields, "transferId")?)
    } else {
        lenient_identity(fields, "transferId")
    };
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
        client_keys: client_keys(details),
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

fn kind(event_type: &str, fields: &Map<String, Value>) -> Result<Kind, DecodeError> {
    Ok(match event_type {
        "listener-triggered" => Kind::ListenerTriggered,
        "app-data-uploaded" => Kind::AppDataUploaded {
            s3_key: identity(event_type, fields, "s3Key")?,
            label: text(fields, "label").map(|label| bounded_label(label).into_owned()),
        },
        "listener-errored" => Kind::ListenerErrored { error: None },
        "transfer-cancellation-requested" => Kind::CancellationRequested,
        "transfer-settled" => Kind::Settled {
            status: text(fields, "transferStatus")
                .or_else(|| text(fields, "status"))
                .map(|status| clipped(status).to_owned()),
        },
        other => Kind::Unknown(clipped(other).to_owned()),
    })
}

pub(crate) fn client_keys(details: &Map<String, Value>) -> Vec<String> {
    ["jiraClientKey", "confluenceClientKey"]
        .into_iter()
        .filter_map(|field| text(details, field))
        .filter(|key| !key.is_empty() && *key != "unknown")
        .map(|key| clipped(key).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::is_identity;

    fn decoded(body: &Value) -> Event {
        decode(body.to_string().as_bytes()).unwrap()
    }

    fn upload() -> Value {
        json!({
            "eventType": "app-data-uploaded",
            "cloudAppKey": "com.example.vault.cloud",
            "transferId": "3a1e7c2d-77b4-4c55-8f3c-21b90d5a1002",
            "originalTransferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
            "messageId": "e0a9a1f2-13e7-4b8c-9f7a-77d2ab9b0002",
            "s3Key": "b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001",
            "label": "attachments-0003-of-0007",
            "migrationDetails": {
                "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
                "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
                "name": "Wave 1 spaces of Jane Doe",
                "createdAt": 1_763_769_600_000_i64,
                "jiraClientKey": "unknown",
                "confluenceClientKey": "7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001",
                "cloudUrl": "https://example-site.atlassian.net",
                "enabledFeatures": ["x"]
            }
        })
    }

    #[test]
    fn an_upload_in_a_rerun_is_read_whole() {
        let event = decoded(&upload());
        assert_eq!(
            event.kind,
            Kind::AppDataUploaded {
                s3_key: "b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001".into(),
                label: Some("attachments-0003-of-0007".into()),
            }
        );
        assert_eq!(
            event.transfer_id.as_deref(),
            Some("3a1e7c2d-77b4-4c55-8f3c-21b90d5a1002")
        );
        assert_eq!(
            event.original_transfer_id.as_deref(),
            Some("0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001")
        );
        assert_eq!(event.message_id, "e0a9a1f2-13e7-4b8c-9f7a-77d2ab9b0002");
        assert!(!event.message_id_is_digest);
        assert_eq!(event.created_at_ms, Some(1_763_769_600_000));
        assert_eq!(event.client_keys, ["7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001"]);
        assert_eq!(event.raw["migrationDetails"]["enabledFeatures"][0], "x");
    }

    #[test]
    fn the_plans_name_is_nowhere_in_what_is_kept() {
        assert!(!format!("{:?}", decoded(&upload())).contains("Jane"));
    }

    #[test]
    fn all_five_types_are_known() {
        for name in [
            "listener-triggered",
            "listener-errored",
            "transfer-cancellation-requested",
            "transfer-settled",
            "app-data-uploaded",
        ] {
            let event = decoded(&json!({"eventType": name, "transferId": "t", "s3Key": "k"}));
            assert!(event.kind.is_known());
            assert_eq!(event.kind.event_type(), name);
        }
    }

    #[test]
    fn a_known_type_without_its_required_fields_names_the_field() {
        let error = decode(br#"{"eventType":"listener-triggered"}"#).unwrap_err();
        assert_eq!(error.to_string(), "listener-triggered without transferId");
        let error = decode(br#"{"eventType":"app-data-uploaded","transferId":"t"}"#).unwrap_err();
        assert_eq!(error.to_string(), "app-data-uploaded without s3Key");
        let error = decode(br#"{"eventType":"app-data-uploaded","transferId":"t","s3Key":"../t"}"#)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "app-data-uploaded with an unusable s3Key"
        );
        let error = decode(br#"{"eventType":"listener-triggered","transferId":7}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "listener-triggered with an unusable transferId"
        );
    }

    #[test]
    fn an_unknown_type_or_shape_is_kept() {
        let event = decoded(
            &json!({"eventType": "app-data-preloaded", "messageId": "m", "more": {"x": 1.10}}),
        );
        assert_eq!(event.kind, Kind::Unknown("app-data-preloaded".into()));
        assert_eq!(event.transfer_id, None);
        assert_eq!(event.raw["more"]["x"].to_string(), "1.1");
        assert_eq!(decoded(&json!({"x": 1})).kind, Kind::Unknown(String::new()));
        assert_eq!(decoded(&json!([1, 2])).kind, Kind::Unknown(String::new()));
        assert_eq!(
            decoded(&json!({"eventType": 5})).kind,
            Kind::Unknown(String::new())
        );
    }

    #[test]
    fn no_json_is_refused() {
        for body in [&b""[..], b"{", b"a=b", b"{\"a\":\"\xff\"}"] {
            assert_eq!(decode(body), Err(DecodeError::NotJson));
        }
        let deep = "[".repeat(100_000);
        assert_eq!(decode(deep.as_bytes()), Err(DecodeError::NotJson));
    }

    #[test]
    fn without_a_message_id_the_same_event_has_the_same_digest_and_another_file_another() {
        let mut first = upload();
        first.as_object_mut().unwrap().remove("messageId");
        let mut again = first.clone();
        again["migrationDetails"]["createdAt"] = json!(1);
        let mut other = first.clone();
        other["s3Key"] = json!("another");
        let (first, again, other) = (decoded(&first), decoded(&again), decoded(&other));
        assert!(first.message_id_is_digest && is_identity(&first.message_id));
        assert_eq!(first.message_id, again.message_id);
        assert_ne!(first.message_id, other.message_id);
    }

    #[test]
    fn a_message_id_that_can_be_no_key_becomes_its_digest() {
        let event = decoded(&json!({"eventType": "x", "messageId": "a#b"}));
        assert!(event.message_id_is_digest && is_identity(&event.message_id));
        let other = decoded(&json!({"eventType": "x", "messageId": "a#c"}));
        assert_ne!(event.message_id, other.message_id);
    }

    #[test]
    fn what_is_kept_of_an_event_decodes_to_the_same_event() {
        for body in [
            r#"{"eventType":"new","x":1.10,"x":2,"migrationDetails":{"name":"n","createdAt":5e9}} "#,
            r#"{"eventType":"listener-triggered","transferId":"t"}"#,
            r#"[1, "\u0000\uffff"]"#,
            &upload().to_string(),
        ] {
            let event = decode(body.as_bytes()).unwrap();
            assert_eq!(decode(event.raw.to_string().as_bytes()).unwrap(), event);
        }
    }

    #[test]
    fn unknown_events_without_a_message_id_differ_by_their_body() {
        assert_ne!(
            decoded(&json!({"a": 1})).message_id,
            decoded(&json!({"a": 2})).message_id
        );
    }

    #[test]
    fn the_status_of_a_settled_transfer_has_three_readings() {
        let settled = |body: Value| decoded(&body).kind;
        let base = json!({"eventType": "transfer-settled", "transferId": "t"});
        assert_eq!(settled(base.clone()), Kind::Settled { status: None });
        let mut with_status = base.clone();
        with_status["status"] = json!("FAILED");
        assert_eq!(
            settled(with_status.clone()),
            Kind::Settled {
                status: Some("FAILED".into())
            }
        );
        with_status["transferStatus"] = json!("CANCELLED");
        assert_eq!(
            settled(with_status),
            Kind::Settled {
                status: Some("CANCELLED".into())
            }
        );
    }

    #[test]
    fn null_fields_are_absent_fields() {
        let event = decoded(&json!({
            "eventType": "app-data-uploaded", "transferId": "t", "s3Key": "k",
            "originalTransferId": null, "messageId": null, "label": null, "migrationDetails": null
        }));
        assert_eq!(event.original_transfer_id, None);
        assert_eq!(
            event.kind,
            Kind::AppDataUploaded {
                s3_key: "k".into(),
                label: None
            }
        );
    }
}
