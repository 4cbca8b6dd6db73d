//! What intake's own code takes of a processor for one event, beside what nothing can do it without. `cargo bench -p landfall-bench --bench intake`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench says what went wrong by panicking, and its macro writes undocumented functions"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use landfall_bench::ProcessorTime;
use landfall_platform::event::{DecodeError, Event, Kind};
use landfall_platform::forge::keys::{PublicKey, read_set};
use landfall_platform::forge::token::{Expected, Invocation};
use landfall_platform::hosts::Hosts;
use landfall_platform::token::{Moment, unverified};
use landfall_platform::{connect, forge};
use secrecy::SecretString;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::Url;

const MOMENT: Moment = Moment {
    now_seconds: 1_800_000_000,
    leeway: Duration::from_mins(1),
};

const CLIENT_KEY: &str = "7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001";
/// As long as the platform's are.
const SHARED_SECRET: &str =
    "ATCOx7dQ3mV9sLkR2tYbN8wZpF5hJcGvXaEuKiMo1D6rTqSfB4nUyHlWzP0eCgIj7AvOxR3kQmNbT9wLsY5dZpFh8G";
const BASE_URL: &str = "https://landfall.example.com";
const PATH: &str = "/connect/events";

const APP: &str = "ari:cloud:ecosystem::app/0c8f1d3e-0000-4000-8000-000000000001";
const INSTALLATION: &str = "ari:cloud:ecosystem::installation/5d1f9a60-2c1f-4f0a-9a51-0d5d3a4b0001";
const SITE: &str = "3c9f1d52-8a4e-4f17-9b26-5e0d7a1c2001";
const KEY_ID: &str = "forge-invocation-token-7c1e6d1c-2c1f-4f0a-9a51-0d5d3a4b0001";

/// The `Authorization` of a webhook.
fn webhook_authorization() -> String {
    let claims = json!({
        "iss": CLIENT_KEY,
        "iat": MOMENT.now_seconds - 1,
        "exp": MOMENT.now_seconds + 179,
        "qsh": connect::qsh::hash(&connect::qsh::canonical("POST", PATH, "")),
    });
    let key = EncodingKey::from_secret(SHARED_SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    format!("JWT {token}")
}

/// All that intake does of the call's token: whom it names, with whose secret, and whether it is right now and for this request.
fn verify_webhook(
    authorization: &str,
    base_url: &Url,
    tenants: &HashMap<String, SecretString>,
) -> connect::token::Verified {
    let requests = connect::qsh::candidates("POST", PATH, "", base_url);
    let token = connect::token::find(Some(authorization), "").unwrap();
    let claimed = unverified::read(token).unwrap();
    assert_eq!(claimed.algorithm, "HS256");
    let tenant = claimed.issuer.unwrap();
    let secrets = [tenants.get(&tenant).unwrap()];
    connect::token::verify_webhook(token, &tenant, &secrets, &requests, MOMENT).unwrap()
}

/// What Forge signs with, and the token that it signs.
struct Signer {
    pair: KeyPair,
    key: EncodingKey,
}

impl Signer {
    fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { pair, key }
    }

    fn public(&self) -> PublicKey {
        let key = Jwk::from_encoding_key(&self.key, Algorithm::RS256).unwrap();
        let mut key = serde_json::to_value(key).unwrap();
        key["kid"] = json!(KEY_ID);
        key["use"] = json!("sig");
        let set = json!({ "keys": [key] }).to_string();
        read_set(set.as_bytes()).unwrap().remove(0)
    }

    /// The `Authorization` of an invocation.
    fn authorization(&self) -> String {
        let header = Header {
            kid: Some(KEY_ID.into()),
            ..Header::new(Algorithm::RS256)
        };
        let claims = json!({
            "iss": "forge/invocation-token",
            "aud": APP,
            "iat": MOMENT.now_seconds - 1,
            "nbf": MOMENT.now_seconds - 1,
            "exp": MOMENT.now_seconds + 59,
            "jti": "b1f6d2a8-90d7-4a50-9b2f-6e1c3d8a7001",
            "app": {
                "id": APP,
                "installationId": INSTALLATION,
                "version": "2.14.0",
                "apiBaseUrl": format!("https://api.atlassian.com/ex/jira/{SITE}"),
                "environment": {
                    "type": "PRODUCTION",
                    "id": "ari:cloud:ecosystem::environment/0c8f1d3e-0000-4000-8000-000000000001/9d1e",
                },
                "module": {"type": "core:trigger", "key": "migration-events"},
            },
            "context": {
                "cloudId": SITE,
                "siteUrl": "https://example-site.atlassian.net",
                "moduleKey": "migration-events",
            },
        });
        let token = jsonwebtoken::encode(&header, &claims, &self.key).unwrap();
        format!("Bearer {token}")
    }
}

/// All that intake does of the invocation's token, once it has the key.
fn verify_invocation(authorization: &str, key: &PublicKey, hosts: &Hosts) -> Invocation {
    let token = forge::token::find(Some(authorization)).unwrap();
    assert_eq!(forge::token::key_id(token).unwrap(), *key.id());
    let expected = Expected { app: APP, hosts };
    forge::token::verify(token, key, expected, MOMENT).unwrap()
}

fn verification(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("verification");

    let authorization = webhook_authorization();
    let (signed, _) = authorization[4..].rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SHARED_SECRET.as_bytes());
    group.bench_function("floor: one HMAC-SHA256 (aws-lc-rs)", |bencher| {
        bencher.iter(|| hmac::sign(&key, black_box(signed).as_bytes()));
    });
    let base_url = Url::parse(BASE_URL).unwrap();
    let tenants = HashMap::from([(CLIENT_KEY.to_owned(), SHARED_SECRET.into())]);
    group.bench_function("a Connect webhook's token, HS256", |bencher| {
        bencher.iter(|| verify_webhook(black_box(&authorization), &base_url, &tenants));
    });

    let platform = Signer::new();
    let authorization = platform.authorization();
    let token = forge::token::find(Some(&authorization)).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let key = ParsedPublicKey::new(
        &RSA_PKCS1_2048_8192_SHA256,
        platform.pair.public_key().as_ref(),
    )
    .unwrap();
    group.bench_function("floor: one RSA-2048 verification (aws-lc-rs)", |bencher| {
        bencher.iter(|| {
            key.verify_sig(black_box(signed).as_bytes(), &signature)
                .unwrap();
        });
    });
    let key = platform.public();
    let hosts = Hosts::parse(["api.atlassian.com"]).unwrap();
    group.bench_function("a Forge invocation's token, RS256", |bencher| {
        bencher.iter(|| verify_invocation(black_box(&authorization), &key, &hosts));
    });
    group.finish();
}

fn connect_upload() -> Value {
    json!({
        "eventType": "app-data-uploaded",
        "cloudAppKey": "com.example.vault.cloud",
        "transferId": "3a1e7c2d-77b4-4c55-8f3c-21b90d5a1002",
        "originalTransferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
        "messageId": "e0a9a1f2-13e7-4b8c-9f7a-77d2ab9b0002",
        "s3Key": "b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001",
        "label": "attachments-0003-of-0007.ndjson.gz",
        "migrationDetails": {
            "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
            "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
            "name": "Wave 1: spaces of the harbour office",
            "createdAt": 1_799_999_000_000_i64,
            "jiraClientKey": "unknown",
            "confluenceClientKey": CLIENT_KEY,
            "cloudUrl": "https://example-site.atlassian.net",
        },
    })
}

fn forge_upload() -> Value {
    json!({
        "eventType": "avi:ecosystem.migration:uploaded:app_data",
        "transferId": "3a1e7c2d-77b4-4c55-8f3c-21b90d5a1002",
        "originalTransferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
        "messageId": "e0a9a1f2-13e7-4b8c-9f7a-77d2ab9b0002",
        "key": "b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001",
        "label": "attachments-0003-of-0007.ndjson.gz",
        "transferName": "Attachments of the harbour office",
        "migrationDetails": {
            "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
            "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
            "name": "Wave 1: spaces of the harbour office",
            "createdAt": 1_799_999_000_000_i64,
            "cloudUrl": "https://example-site.atlassian.net",
        },
        "context": {"cloudId": SITE, "moduleKey": "migration-events"},
    })
}

/// Decodes the body of an event.
type Decode = fn(&[u8]) -> Result<Event, DecodeError>;

fn event(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("event");
    let flavours: [(&str, Value, Decode); 2] = [
        ("Connect", connect_upload(), connect::event::decode),
        ("Forge", forge_upload(), forge::event::decode),
    ];
    for (flavour, body, decode) in flavours {
        let body = body.to_string().into_bytes();
        assert!(matches!(
            decode(&body).unwrap().kind,
            Kind::AppDataUploaded { .. }
        ));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(
            format!("floor: {flavour}, slice to IgnoredAny (serde_json)"),
            |bencher| {
                bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(&body)).unwrap());
            },
        );
        group.bench_function(
            format!("floor: {flavour}, slice to RawValue (serde_json)"),
            |bencher| {
                bencher.iter(|| {
                    let value: &RawValue = serde_json::from_slice(black_box(&body)).unwrap();
                    value.get().len()
                });
            },
        );
        group.bench_function(format!("{flavour}, an upload decoded"), |bencher| {
            bencher.iter(|| decode(black_box(&body)).unwrap());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = landfall_bench::criterion();
    targets = verification, event
}
criterion_main!(benches);
