//! What the platform sends to an app on Forge (PROTOCOL.md 7.2 to 7.5), signed by hand: nothing of the product's own reading is used.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_intake::Request;
use landfall_models::{Call, Fate, Weather};
use landfall_platform::forge::keys::{Fetching, KeySetServer};
use landfall_transfer::Timestamp;
use serde_json::{Value, json};

/// The app, as its manifest names it.
const APP: &str = "ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001";

/// What a `landfall.toml` says of it; what follows may go on in this section.
pub const CONFIGURATION: &str =
    "[forge]\napp = \"ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001\"\n";

/// What the id of every installation begins with.
const INSTALLATION: &str = "ari:cloud:ecosystem::installation/";

const KEY_ID: &str = "simulated";

/// Life of an invocation token, in seconds.
const INVOCATION_LIFE: i64 = 300;

/// Most signed tokens that are kept: the runs of one scene ask for the same ones.
const KEPT_MAX: usize = 4_096;

/// An installation.
pub fn installation(name: &str) -> String {
    format!("{INSTALLATION}{name}")
}

/// Whether a tenant is an installation on Forge.
pub fn is_installation(tenant: &str) -> bool {
    tenant.starts_with(INSTALLATION)
}

/// What an event is called on Forge that Connect calls this.
fn event_type(connect: &str) -> &str {
    match connect {
        "listener-triggered" => "avi:ecosystem.migration:triggered:listener",
        "app-data-uploaded" => "avi:ecosystem.migration:uploaded:app_data",
        "export-phase-completed" => "avi:ecosystem.migration:completed:export_phase",
        "transfer-cancellation-requested" => {
            "avi:ecosystem.migration:requested:transfer_cancellation"
        }
        "listener-errored" => "avi:ecosystem.migration:errored:listener",
        "transfer-settled" => "avi:ecosystem.migration:settled:transfer",
        other => panic!("Forge has no event {other}"),
    }
}

/// An event; `more` are its own fields, as Connect names them.
pub(crate) fn event(
    name: &str,
    id: &str,
    original: Option<&str>,
    created_at: Timestamp,
    more: &Value,
) -> Value {
    let mut event = json!({
        "eventType": event_type(name),
        "transferId": id,
        "migrationDetails": {
            "migrationId": "migration",
            "migrationScopeId": "scope",
            "createdAt": created_at.as_millis(),
            "cloudUrl": "https://site.atlassian.net",
            "name": "a plan"
        }
    });
    if let Some(original) = original {
        event["originalTransferId"] = json!(original);
    }
    for (field, value) in more.as_object().into_iter().flatten() {
        let field = if field == "s3Key" { "key" } else { field };
        event[field] = value.clone();
    }
    let key = event["key"].as_str().unwrap_or_default();
    event["messageId"] = json!(message(name, id, key));
    event
}

/// The message of an event.
pub(crate) fn message(name: &str, id: &str, key: &str) -> String {
    format!("msg-{id}-{name}-{key}-")
}

/// The request that brings an event, or nothing but a token: the schedule's. Its system token is good for so long.
pub(crate) fn request(
    installation: &str,
    event: Option<&Value>,
    now: Timestamp,
    token_life: Duration,
) -> Request {
    let path = event.map_or("/forge/token", |_| "/forge/events");
    Request {
        method: "POST".to_owned(),
        path: path.to_owned(),
        authorization: Some(format!("Bearer {}", invocation(installation, now))),
        system_token: Some(system_token(installation, now + token_life).into()),
        body: event.map_or_else(|| b"{}".to_vec(), |event| event.to_string().into_bytes()),
        ..Request::default()
    }
}

/// What says who invokes.
fn invocation(installation: &str, now: Timestamp) -> String {
    static SIGNED: OnceLock<Mutex<HashMap<(String, i64), String>>> = OnceLock::new();
    let signed = || {
        let signed = SIGNED.get_or_init(Mutex::default);
        signed.lock().unwrap_or_else(PoisonError::into_inner)
    };
    let issued = now.as_seconds();
    let place = (installation.to_owned(), issued);
    if let Some(token) = signed().get(&place) {
        return token.clone();
    }
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID});
    let claims = json!({
        "iss": "forge/invocation-token",
        "aud": APP,
        "app": {"id": APP, "installationId": installation},
        "iat": issued,
        "nbf": issued,
        "exp": issued + INVOCATION_LIFE
    });
    let text = format!("{}.{}", part(&header), part(&claims));
    let mut signature = vec![0; key().public_modulus_len()];
    key()
        .sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            text.as_bytes(),
            &mut signature,
        )
        .unwrap_or_else(|error| panic!("sign a token: {error}"));
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    let mut signed = signed();
    if signed.len() >= KEPT_MAX {
        signed.clear();
    }
    signed.insert(place, token.clone());
    token
}

/// What the platform is called back with.
fn system_token(installation: &str, good_until: Timestamp) -> String {
    let header = part(&json!({"alg": "none"}));
    let claims = part(&json!({"sub": installation, "exp": good_until.as_seconds()}));
    format!("{header}.{claims}.unsigned")
}

/// Whether a call may be made with this now.
pub(crate) fn admits(token: &str, installation: &str, now: Timestamp) -> bool {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Value> = claims.and_then(|text| serde_json::from_slice(&text).ok());
    claims.is_some_and(|claims| {
        claims["sub"] == installation
            && claims["exp"]
                .as_i64()
                .is_some_and(|exp| now.as_seconds() < exp)
    })
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| {
        RsaKeyPair::generate(KeySize::Rsa2048).unwrap_or_else(|error| panic!("make a key: {error}"))
    })
}

/// The platform's key set as a machine reaches it.
pub(crate) struct KeySet(pub(crate) Arc<dyn Weather>);

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeySet")
    }
}

impl KeySetServer for KeySet {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async move {
            let call = Call {
                operation: "key_set",
                subject: String::new(),
                writes: false,
                transaction: false,
            };
            let fate = self.0.before(&call).await;
            self.0.after(&call).await;
            if fate != Fate::Works {
                return Err("no answer".to_owned());
            }
            let public = key().public_key();
            let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let set = json!({"keys": [{
                "kty": "RSA",
                "kid": KEY_ID,
                "use": "sig",
                "alg": "RS256",
                "n": number(public.modulus().big_endian_without_leading_zero()),
                "e": number(public.exponent().big_endian_without_leading_zero())
            }]});
            Ok(set.to_string().into_bytes())
        })
    }
}
