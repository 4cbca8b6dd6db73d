//! Every row of the table of bad input.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use landfall_intake::{Answer, Request};
use serde_json::{Value, json};

use crate::cloud::{Cloud, NOW, text};
use crate::platform::{
    INSTALLATION, OTHER, SECRET, TENANT, claims, event, hs256, install, post, signed, uninstall,
    upload, webhook, webhook_of,
};

fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims(TENANT, "/connect/events");
    claims[claim] = value;
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = claims(TENANT, "/connect/events");
    claims.as_object_mut().unwrap().remove(claim);
    claims
}

#[tokio::test]
async fn a_call_whose_token_does_not_hold_is_401_whatever_the_reason_and_stores_nothing() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    install(&intake, "uninstalled-tenant", SECRET).await;
    uninstall(&intake, "uninstalled-tenant").await;
    cloud.forget();
    let rows = cloud.rows().await.len();
    let good = claims(TENANT, "/connect/events");
    let now = NOW.as_seconds();
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let unsigned = {
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
        format!("{header}.{}.", URL_SAFE_NO_PAD.encode(good.to_string()))
    };
    // The header says RS256, the signature is the HMAC with the secret.
    let confused = {
        let genuine = hs256(&good, SECRET);
        let header = URL_SAFE_NO_PAD
            .encode(r#"{"typ":"JWT","alg":"RS256","kid":"0e50fccb-239d-4991-a5db-dc850ba3f236"}"#);
        format!("{header}.{}", genuine.split_once('.').unwrap().1)
    };
    let tokens = [
        ("bad signature", hs256(&good, "another secret")),
        ("alg none", unsigned),
        ("RS256 with the secret as key", confused),
        ("HS512", signed(&Header::new(Algorithm::HS512), &good, &key)),
        (
            "wrong qsh",
            hs256(&claims(TENANT, "/connect/installed"), SECRET),
        ),
        ("no qsh", hs256(&without("qsh"), SECRET)),
        ("expired", hs256(&with("exp", json!(now - 61)), SECRET)),
        ("no exp", hs256(&without("exp"), SECRET)),
        (
            "issued in the future",
            hs256(&with("iat", json!(now + 61)), SECRET),
        ),
        ("no iss", hs256(&without("iss"), SECRET)),
        (
            "unknown tenant",
            hs256(&claims("unknown", "/connect/events"), SECRET),
        ),
        (
            "impossible tenant",
            hs256(&claims("a#b", "/connect/events"), SECRET),
        ),
        (
            "an installation on Forge",
            hs256(&claims(INSTALLATION, "/connect/events"), SECRET),
        ),
        (
            "an installation on Forge as the audience",
            hs256(
                &{
                    let mut claims = claims("the-platform", "/connect/events");
                    claims["aud"] = json!([INSTALLATION]);
                    claims
                },
                SECRET,
            ),
        ),
        (
            "uninstalled tenant",
            hs256(&claims("uninstalled-tenant", "/connect/events"), SECRET),
        ),
        ("no token in the scheme", String::new()),
        ("no token at all", "x".to_owned()),
    ];
    let body = event("listener-triggered", "m-1").to_string();
    for (name, token) in tokens {
        let answer = intake
            .answer(&post("/connect/events", &token, body.clone()))
            .await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (401, "unauthorized"),
            "{name}"
        );
    }
    let bare = Request {
        authorization: None,
        ..post("/connect/events", "", body)
    };
    assert_eq!(intake.answer(&bare).await.reason, "unauthorized");
    // What is said of a body is said to the proven sender only.
    let too_large = post("/connect/events", "x", vec![b' '; 300_000]);
    assert_eq!(intake.answer(&too_large).await.status, 401);
    assert!(cloud.sent().is_empty());
    assert!(cloud.table.calls().iter().all(|call| call == "GetItem"));
    assert_eq!(cloud.rows().await.len(), rows);
}

#[tokio::test]
async fn a_token_is_good_within_the_leeway_of_sixty_seconds() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    let now = NOW.as_seconds();
    for claims in [with("exp", json!(now - 59)), with("iat", json!(now + 59))] {
        let request = post(
            "/connect/events",
            &hs256(&claims, SECRET),
            event("listener-triggered", "m").to_string(),
        );
        assert_eq!(intake.answer(&request).await.status, 200);
    }
}

async fn rejected(
    body: Vec<u8>,
) -> (
    Answer,
    Vec<std::collections::HashMap<String, AttributeValue>>,
) {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    cloud.forget();
    let token = hs256(&claims(TENANT, "/connect/events"), SECRET);
    let answer = intake.answer(&post("/connect/events", &token, body)).await;
    assert!(cloud.sent().is_empty());
    assert!(cloud.rows_of("EVENT#").await.is_empty() && cloud.rows_of("FILE#").await.is_empty());
    assert_eq!(cloud.rows_of("COUNT#events_rejected").await.len(), 1);
    (answer, cloud.rows_of("REJECTED#").await)
}

#[tokio::test]
async fn a_body_that_can_not_be_taken_is_refused_with_its_reason_and_its_metadata_kept() {
    let mut no_transfer = event("listener-triggered", "m-1");
    no_transfer.as_object_mut().unwrap().remove("transferId");
    let mut no_key = upload("", "m-1");
    no_key.as_object_mut().unwrap().remove("s3Key");
    let mut large = event("listener-triggered", "m-1");
    large["padding"] = json!("x".repeat(262_144));
    for (body, status, event_type, reason) in [
        (
            large.to_string().into_bytes(),
            413,
            "",
            "the body is larger than 262144 bytes",
        ),
        (b"{\"private\":".to_vec(), 400, "", "the body is not JSON"),
        (vec![0xff, 0xfe], 400, "", "the body is not JSON"),
        (
            no_transfer.to_string().into_bytes(),
            422,
            "listener-triggered",
            "listener-triggered without transferId",
        ),
        (
            no_key.to_string().into_bytes(),
            422,
            "app-data-uploaded",
            "app-data-uploaded without s3Key",
        ),
    ] {
        let size = body.len();
        let (answer, kept) = rejected(body).await;
        assert_eq!((answer.status, answer.reason.as_str()), (status, reason));
        assert_eq!(text(&kept[0], "event_type"), event_type);
        assert_eq!(text(&kept[0], "reason"), reason);
        assert_eq!(kept[0]["size_bytes"].as_n().unwrap(), &size.to_string());
        assert!(!format!("{kept:?}").contains("private") && !format!("{kept:?}").contains("Jane"));
    }
}

#[tokio::test]
async fn a_body_of_just_256_kilobytes_is_taken() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    let mut body = upload("key-1", "m-1");
    let room = 262_144 - body.to_string().len() - r#","padding":"""#.len();
    // Quotes double in the row and double again in the message, and both still fit.
    body["padding"] = json!("\"".repeat(room / 2));
    assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
    assert_eq!(cloud.rows_of("FILE#").await.len(), 1);
    assert!(cloud.sent()[0].body.len() < 1_048_576);
}

#[tokio::test]
async fn another_method_or_path_is_refused_before_anything_is_read() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    for (method, path, status) in [
        ("GET", "/connect/events", 405),
        ("PUT", "/connect/installed", 405),
        ("DELETE", "/prod/landfall/connect/uninstalled", 405),
        ("", "/connect/events", 405),
        ("POST", "/health", 405),
        ("GET", "/health", 200),
        ("POST", "/", 404),
        ("POST", "", 404),
        ("POST", "/connect/event", 404),
        ("POST", "/connect/events/x", 404),
        ("POST", "/x/connect/events", 404),
        ("POST", "/connect/enabled", 404),
        ("GET", "/nothing", 404),
    ] {
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            ..Request::default()
        };
        assert_eq!(
            intake.answer(&request).await.status,
            status,
            "{method} {path}"
        );
    }
    assert!(cloud.table.calls().is_empty() && cloud.queues.calls().is_empty());
}

#[tokio::test]
async fn one_tenants_secret_opens_nothing_of_another() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    install(&intake, OTHER, "secret-of-the-other").await;
    let answer = intake
        .answer(&webhook_of(
            TENANT,
            "secret-of-the-other",
            &event("listener-triggered", "m"),
        ))
        .await;
    assert_eq!(answer.status, 401);
}
