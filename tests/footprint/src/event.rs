//! What the functions are invoked with.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use landfall_tracking::{Message, Task};
use landfall_transfer::{TenantId, Timestamp};
use serde_json::{Value, json};

use crate::tenant::{CLIENT_KEY, SHARED_SECRET};

/// The path of the app's webhook below its base URL.
const PATH: &str = "/connect/events";

/// Host of the function's URL, and of the app's base URL.
pub(crate) const HOST: &str = "footprintfootprintfootprint00000.lambda-url.us-east-1.on.aws";

/// A webhook of the platform, as a function URL delivers it: a file was uploaded. Each number is another event.
pub(crate) fn upload(number: u64, now: Timestamp) -> Bytes {
    let body = uploaded(number).to_string();
    let token = token(now);
    let request = format!("5d4a7f5e-8c36-4c39-8d57-{number:012x}");
    let event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": PATH,
        "rawQueryString": "",
        "headers": {
            "accept": "*/*",
            "accept-encoding": "gzip,deflate",
            "authorization": format!("JWT {token}"),
            "content-length": body.len().to_string(),
            "content-type": "application/json; charset=utf-8",
            "host": HOST,
            "user-agent": "Atlassian App Migration Platform",
            "x-amzn-tls-cipher-suite": "TLS_AES_128_GCM_SHA256",
            "x-amzn-tls-version": "TLSv1.3",
            "x-amzn-trace-id": format!("Root=1-5759e988-bd862e3fe1be46a9{number:08x}"),
            "x-forwarded-for": "192.0.2.17",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https"
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "footprintfootprintfootprint00000",
            "domainName": HOST,
            "domainPrefix": "footprintfootprintfootprint00000",
            "http": {
                "method": "POST",
                "path": PATH,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.17",
                "userAgent": "Atlassian App Migration Platform"
            },
            "requestId": request,
            "routeKey": "$default",
            "stage": "$default",
            "time": "22/Nov/2025:00:00:00 +0000",
            "timeEpoch": now.as_millis()
        },
        "body": body,
        "isBase64Encoded": false
    });
    event.to_string().into()
}

/// What the schedule sends the sweeper.
pub(crate) fn sweep() -> Bytes {
    Bytes::from_static(br#"{"kind":"sweep"}"#)
}

/// What SQS delivers to the processor: a message of an event whose type nobody knows yet. It costs a write and needs nothing to have been stored.
pub(crate) fn message(number: u64, now: Timestamp) -> Bytes {
    let mut body = uploaded(number);
    body["eventType"] = "not-yet-known".into();
    let task = Task::Event {
        body: body.to_string(),
        received_at: now,
    };
    let message = Message::new(TenantId::new(CLIENT_KEY), task);
    let event = json!({
        "Records": [{
            "messageId": format!("19dd0b57-b21e-4ac1-bd88-{number:012x}"),
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": json!(message).to_string(),
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": now.as_millis().to_string(),
                "SenderId": "AROAEXAMPLE:footprint",
                "ApproximateFirstReceiveTimestamp": now.as_millis().to_string()
            },
            "messageAttributes": {},
            "md5OfBody": "00000000000000000000000000000000",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:transfer-events",
            "awsRegion": "us-east-1"
        }]
    });
    event.to_string().into()
}

/// The body of an upload in a re-run, the platform's longest event (PROTOCOL 3.5).
fn uploaded(number: u64) -> Value {
    json!({
        "eventType": "app-data-uploaded",
        "cloudAppKey": "com.example.vault.cloud",
        "transferId": "3a1e7c2d-77b4-4c55-8f3c-21b90d5a1002",
        "originalTransferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
        "messageId": format!("e0a9a1f2-13e7-4b8c-9f7a-{number:012x}"),
        "s3Key": format!("b6a2f0c1-9c7e-4f62-8c1e-{number:012x}"),
        "label": "attachments-0003-of-0007",
        "migrationDetails": {
            "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
            "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
            "name": "Wave 1 spaces",
            "createdAt": 1_763_769_600_000_i64,
            "jiraClientKey": "unknown",
            "confluenceClientKey": CLIENT_KEY,
            "cloudUrl": "https://example-site.atlassian.net"
        }
    })
}

/// A token of the platform for the webhook (PROTOCOL 4.2).
fn token(now: Timestamp) -> String {
    let issued = now.as_seconds();
    let canonical = format!("POST&{PATH}&");
    let claims = json!({
        "iss": CLIENT_KEY,
        "iat": issued,
        "exp": issued + 180,
        "qsh": hex::encode(digest(&SHA256, canonical.as_bytes())),
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SHARED_SECRET.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_upload_is_another_event() {
        let now = Timestamp::from_millis(1_763_769_600_000);
        let body = |number| {
            let event: Value = serde_json::from_slice(&upload(number, now)).unwrap();
            let body = event["body"].as_str().unwrap();
            serde_json::from_str::<Value>(body).unwrap()
        };
        let (one, other) = (body(1), body(2));
        for field in ["messageId", "s3Key"] {
            assert_ne!(one[field], other[field]);
        }
        assert_eq!(one["transferId"], other["transferId"]);
    }

    #[test]
    fn a_message_is_one_that_the_processor_reads() {
        let now = Timestamp::from_millis(1_763_769_600_000);
        let event: Value = serde_json::from_slice(&message(1, now)).unwrap();
        let body = event["Records"][0]["body"].as_str().unwrap();
        assert_eq!(Message::decode(body).unwrap().tenant.as_str(), CLIENT_KEY);
    }
}
