//! A key of our own in place of the platform's, for tests and properties.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::keys::{PublicKey, read_set};

/// The id of [`public_key`].
pub(crate) const KEY_ID: &str = "key-1";

/// What signs; made once.
pub(crate) fn private_key() -> &'static EncodingKey {
    static KEY: OnceLock<EncodingKey> = OnceLock::new();
    KEY.get_or_init(|| encoding_key(&KeyPair::generate(KeySize::Rsa2048).unwrap()))
}

/// What verifies.
pub(crate) fn public_key() -> &'static PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    KEY.get_or_init(|| read_set(set().to_string().as_bytes()).unwrap().remove(0))
}

/// The set that holds it, as the platform publishes one.
pub(crate) fn set() -> Value {
    let key = Jwk::from_encoding_key(private_key(), Algorithm::RS256).unwrap();
    let mut key = serde_json::to_value(key).unwrap();
    key["kid"] = json!(KEY_ID);
    key["use"] = json!("sig");
    json!({ "keys": [key] })
}

/// A token with these claims.
pub(crate) fn signed(claims: &Value) -> String {
    let header = Header {
        kid: Some(KEY_ID.into()),
        ..Header::new(Algorithm::RS256)
    };
    jsonwebtoken::encode(&header, claims, private_key()).unwrap()
}

pub(crate) fn encoding_key(pair: &KeyPair) -> EncodingKey {
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    EncodingKey::from_rsa_pem(pem("PRIVATE KEY", der.as_ref()).as_bytes()).unwrap()
}

pub(crate) fn pem(tag: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        STANDARD.encode(der)
    )
}
