//! The platform's side: tokens, callbacks, events, and the key server.

use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use landfall_intake::{Answer, Intake, Request};
use landfall_platform::connect::qsh;
use serde_json::{Value, json};

use landfall_embedded::serve;

use crate::cloud::{BASE_URL, NOW};

pub(crate) const TENANT: &str = "7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001";
pub(crate) const OTHER: &str = "another-tenant-0002";
pub(crate) const SECRET: &str = "first-secret-of-the-tenant";
pub(crate) const KEY_ID: &str = "0e50fccb-239d-4991-a5db-dc850ba3f236";

/// Serves the platform's public key, or a status.
#[derive(Clone)]
pub(crate) struct KeyServer {
    pub(crate) url: String,
    status: Arc<Mutex<u16>>,
}

impl KeyServer {
    pub(crate) async fn start() -> Self {
        let status = Arc::new(Mutex::new(200));
        let router = Router::new()
            .route(
                "/keys/{id}",
                get(
                    async |State(status): State<Arc<Mutex<u16>>>, Path(id): Path<String>| {
                        let status = *status.lock().unwrap();
                        if status != 200 {
                            return Err(StatusCode::from_u16(status).unwrap());
                        }
                        if id == KEY_ID {
                            Ok(keys().1.clone())
                        } else {
                            Err(StatusCode::NOT_FOUND)
                        }
                    },
                ),
            )
            .with_state(Arc::clone(&status));
        Self {
            url: format!("{}/keys", serve(router).await),
            status,
        }
    }

    pub(crate) fn set(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }
}

/// The platform's key pair: to sign with, and its public half as PEM. Made once, since making one takes long.
fn keys() -> &'static (EncodingKey, String) {
    static KEYS: OnceLock<(EncodingKey, String)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = |tag: &str, der: &[u8]| {
            format!(
                "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
                STANDARD.encode(der)
            )
        };
        let private = pem("PRIVATE KEY", private.as_ref());
        (
            EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
            pem("PUBLIC KEY", public.as_ref()),
        )
    })
}

/// The claims of a genuine token for a `POST` to `path` below the base URL.
pub(crate) fn claims(tenant: &str, path: &str) -> Value {
    let now = NOW.as_seconds();
    json!({"iss": tenant, "iat": now, "exp": now + 180, "qsh": qsh::hash(&format!("POST&{path}&"))})
}

pub(crate) fn hs256(claims: &Value, secret: &str) -> String {
    signed(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
}

pub(crate) fn rs256(claims: &Value, key_id: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::RS256);
    header.kid = key_id.map(str::to_owned);
    signed(&header, claims, &keys().0)
}

pub(crate) fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

pub(crate) fn post(path: &str, token: &str, body: impl Into<Vec<u8>>) -> Request {
    Request {
        method: "POST".to_owned(),
        path: path.to_owned(),
        authorization: Some(format!("JWT {token}")),
        body: body.into(),
        ..Request::default()
    }
}

/// A webhook of [`TENANT`] as the platform sends it.
pub(crate) fn webhook(body: &Value) -> Request {
    webhook_of(TENANT, SECRET, body)
}

pub(crate) fn webhook_of(tenant: &str, secret: &str, body: &Value) -> Request {
    let token = hs256(&claims(tenant, "/connect/events"), secret);
    post("/connect/events", &token, body.to_string())
}

pub(crate) fn lifecycle_claims(tenant: &str, path: &str) -> Value {
    let mut claims = claims(tenant, path);
    claims["aud"] = json!([BASE_URL]);
    claims
}

pub(crate) fn installation(tenant: &str, secret: &str) -> Value {
    json!({
        "key": "com.example.vault.cloud", "clientKey": tenant, "sharedSecret": secret,
        "baseUrl": "https://example-site.atlassian.net/wiki", "productType": "confluence", "eventType": "installed"
    })
}

pub(crate) fn lifecycle(tenant: &str, path: &str, body: &Value) -> Request {
    post(
        path,
        &rs256(&lifecycle_claims(tenant, path), Some(KEY_ID)),
        body.to_string(),
    )
}

pub(crate) async fn install(intake: &Intake, tenant: &str, secret: &str) -> Answer {
    intake
        .answer(&lifecycle(
            tenant,
            "/connect/installed",
            &installation(tenant, secret),
        ))
        .await
}

pub(crate) async fn uninstall(intake: &Intake, tenant: &str) -> Answer {
    intake
        .answer(&lifecycle(
            tenant,
            "/connect/uninstalled",
            &json!({"clientKey": tenant}),
        ))
        .await
}

/// An event with the envelope of PROTOCOL 3.5.
pub(crate) fn event(event_type: &str, message_id: &str) -> Value {
    json!({
        "eventType": event_type,
        "cloudAppKey": "com.example.vault.cloud",
        "transferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
        "messageId": message_id,
        "migrationDetails": {
            "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
            "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
            "name": "Wave 1 of Jane Doe",
            "createdAt": 1_763_769_600_000_i64,
            "jiraClientKey": "unknown",
            "confluenceClientKey": TENANT,
            "cloudUrl": "https://example-site.atlassian.net"
        }
    })
}

pub(crate) fn upload(s3_key: &str, message_id: &str) -> Value {
    let mut event = event("app-data-uploaded", message_id);
    event["s3Key"] = json!(s3_key);
    event["label"] = json!("attachments-0003-of-0007");
    event
}
