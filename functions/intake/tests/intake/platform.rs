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
use jsonwebtoken::jwk::Jwk;
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

pub(crate) const FORGE_APP: &str = "ari:cloud:ecosystem::app/0c8f1d3e-0000-4000-8000-000000000001";
pub(crate) const INSTALLATION: &str =
    "ari:cloud:ecosystem::installation/5d1f9a60-2c1f-4f0a-9a51-0d5d3a4b0001";

/// Serves the platform's public key, or a status.
#[derive(Clone)]
pub(crate) struct KeyServer {
    pub(crate) url: String,
    /// Where the keys of invocation tokens are.
    pub(crate) set_url: String,
    status: Arc<Mutex<u16>>,
    set: Arc<Mutex<KeySet>>,
}

/// The keys of invocation tokens: the one that there is, under each of these ids.
#[derive(Default)]
struct KeySet {
    ids: Vec<String>,
    asked: usize,
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
        let set = Arc::new(Mutex::new(KeySet {
            ids: vec![KEY_ID.to_owned()],
            asked: 0,
        }));
        let published = Router::new()
            .route("/jwks.json", get(publish))
            .with_state((Arc::clone(&status), Arc::clone(&set)));
        Self {
            url: format!("{}/keys", serve(router).await),
            set_url: format!("{}/jwks.json", serve(published).await),
            status,
            set,
        }
    }

    /// Publishes the key of invocation tokens under one more id.
    pub(crate) fn publish(&self, id: &str) {
        self.set.lock().unwrap().ids.push(id.to_owned());
    }

    /// How often the set was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.set.lock().unwrap().asked
    }

    pub(crate) fn set(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }
}

/// The status to answer with, and the keys.
type Published = (Arc<Mutex<u16>>, Arc<Mutex<KeySet>>);

async fn publish(State((status, set)): State<Published>) -> Result<String, StatusCode> {
    let mut set = set.lock().unwrap();
    set.asked += 1;
    let status = *status.lock().unwrap();
    if status != 200 {
        return Err(StatusCode::from_u16(status).unwrap());
    }
    let key = Jwk::from_encoding_key(&keys().0, Algorithm::RS256).unwrap();
    let keys = set.ids.iter().map(|id| {
        let mut key = serde_json::to_value(&key).unwrap();
        key["kid"] = json!(id);
        key
    });
    Ok(json!({ "keys": keys.collect::<Vec<_>>() }).to_string())
}

/// The platform's key pair: to sign with, and its public half as PEM. Made once, since making one takes long.
fn keys() -> &'static (EncodingKey, String) {
    static KEYS: OnceLock<(EncodingKey, String)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        (private_key(&pair), pem("PUBLIC KEY", public.as_ref()))
    })
}

pub(crate) fn private_key(pair: &KeyPair) -> EncodingKey {
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap()
}

fn pem(tag: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        STANDARD.encode(der)
    )
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

/// The claims of a genuine invocation token.
pub(crate) fn invocation_claims(installation: &str) -> Value {
    let now = NOW.as_seconds();
    json!({
        "iss": "forge/invocation-token", "aud": FORGE_APP, "iat": now, "nbf": now, "exp": now + 300,
        "app": {
            "id": FORGE_APP, "installationId": installation, "version": "3.1.0",
            "apiBaseUrl": "https://api.atlassian.com/ex/confluence/site-1"
        },
        "context": {"cloudId": "site-1", "siteUrl": "https://example-site.atlassian.net"}
    })
}

/// A token for calls back that is good for so many seconds. Whoever sees the first name of its owner saw what it holds.
pub(crate) fn system_token(good_for: i64) -> String {
    let claims = json!({"sub": "Jane", "exp": NOW.as_seconds() + good_for});
    hs256(&claims, "nobody knows it")
}

/// An invocation of [`INSTALLATION`] as the platform sends it, without a token for calls back.
pub(crate) fn invocation(path: &str, body: impl Into<Vec<u8>>) -> Request {
    invoked(
        path,
        &rs256(&invocation_claims(INSTALLATION), Some(KEY_ID)),
        body,
    )
}

pub(crate) fn invoked(path: &str, token: &str, body: impl Into<Vec<u8>>) -> Request {
    Request {
        authorization: Some(format!("Bearer {token}")),
        ..post(path, "", body)
    }
}

/// The same with a token for calls back.
pub(crate) fn bringing(request: Request, system_token: &str) -> Request {
    Request {
        system_token: Some(system_token.into()),
        ..request
    }
}

/// An event of Forge as PROTOCOL 7.3 has it.
pub(crate) fn forge_event(name: &str, message_id: &str) -> Value {
    json!({
        "eventType": format!("avi:ecosystem.migration:{name}"),
        "transferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
        "messageId": message_id,
        "transferName": "Signatures of Jane Doe",
        "migrationDetails": {
            "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
            "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
            "name": "Wave 1 of Jane Doe",
            "createdAt": 1_763_769_600_000_i64,
            "cloudUrl": "https://example-site.atlassian.net"
        },
        "context": "ari:cloud:confluence::site/site-1"
    })
}

pub(crate) fn forge_upload(key: &str, message_id: &str) -> Value {
    let mut event = forge_event("uploaded:app_data", message_id);
    event["key"] = json!(key);
    event["label"] = json!("attachments-0003-of-0007");
    event
}

/// What is kept of an event: all but the names of plan and transfer.
pub(crate) fn without_names(event: &Value) -> Value {
    let mut event = event.clone();
    event.as_object_mut().unwrap().remove("transferName");
    let details = event["migrationDetails"].as_object_mut().unwrap();
    details.remove("name");
    event
}
