//! Events as the platform sends them, of both flavours; Connect's are here (PROTOCOL.md 3 and 4), signed by hand: nothing of the product's own reading is used.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_intake::Request;
use landfall_tracking::Key;
use landfall_transfer::Timestamp;
use serde_json::{Value, json};

use crate::cloud::APP_KEY;
use crate::forge;

const PATH: &str = "/connect/events";

/// Life of a webhook's token, in seconds (PROTOCOL.md 4.3).
const TOKEN_LIFE: i64 = 180;

/// A site's shared secret.
pub fn secret(tenant: &str) -> String {
    format!("shared secret of {tenant}")
}

/// An event.
pub fn event(
    event_type: &str,
    tenant: &str,
    id: &str,
    original: Option<&str>,
    created_at: Timestamp,
    more: &Value,
) -> Value {
    if forge::is_installation(tenant) {
        return forge::event(event_type, id, original, created_at, more);
    }
    let mut event = json!({
        "eventType": event_type,
        "cloudAppKey": APP_KEY,
        "transferId": id,
        "migrationDetails": {
            "migrationId": "migration",
            "migrationScopeId": "scope",
            "name": "a plan",
            "createdAt": created_at.as_millis(),
            "jiraClientKey": "unknown",
            "confluenceClientKey": tenant,
            "cloudUrl": "https://site.atlassian.net"
        }
    });
    if let Some(original) = original {
        event["originalTransferId"] = json!(original);
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    let key = event["s3Key"].as_str().unwrap_or_default();
    event["messageId"] = json!(format!("msg-{id}-{event_type}-{key}-"));
    event
}

/// What tells one event from all others.
pub fn message_id(event: &Value) -> &str {
    event["messageId"].as_str().unwrap_or_default()
}

/// The file that an event tells of.
pub fn file_key(event: &Value) -> Option<&str> {
    let key = if event["s3Key"].is_null() {
        &event["key"]
    } else {
        &event["s3Key"]
    };
    key.as_str()
}

/// The event in a trace.
pub fn name(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let key = file_key(event).unwrap_or_default();
    format!("{} {} {key}", text("eventType"), text("transferId"))
}

/// The row in which intake keeps the event.
pub fn rows(tenant: &str, event: &Value) -> Key {
    let id = event["transferId"].as_str().unwrap_or_default();
    let sort = match file_key(event) {
        Some(key) => format!("FILE#{key}"),
        None => format!("EVENT#{}", message_id(event)),
    };
    Key::new(format!("TRANSFER#{tenant}#{id}"), sort)
}

/// The request, with a fresh token. On Forge a system token comes with it that is good for `token_life`, and without an event it brings nothing else.
pub fn request(tenant: &str, event: &Value, now: Timestamp, token_life: Duration) -> Request {
    if forge::is_installation(tenant) {
        let event = Some(event).filter(|event| !event.is_null());
        return forge::request(tenant, event, now, token_life);
    }
    let bound = hex::encode(digest(&SHA256, format!("POST&{PATH}&").as_bytes()));
    let issued = now.as_seconds();
    let claims = json!({"iss": tenant, "iat": issued, "exp": issued + TOKEN_LIFE, "qsh": bound});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(&claims)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret(tenant).as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    Request {
        method: "POST".to_owned(),
        path: PATH.to_owned(),
        authorization: Some(format!("JWT {signed}.{signature}")),
        body: event.to_string().into_bytes(),
        ..Request::default()
    }
}
