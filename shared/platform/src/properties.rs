//! What holds of whatever arrives from outside, as functions that panic where it does not. The fuzz targets (`fuzz/` at the root) search for
//! bytes that break one; the tests here draw some, and replay what the search has kept.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a property says that it does not hold by panicking"
)]

use std::collections::HashSet;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use crate::connect::event::decode;
use crate::connect::lifecycle::Callback;
use crate::connect::qsh;
use crate::connect::token::{self, Moment, unverified};
use crate::event::{Event, Kind, LABEL_MAX, bounded_label, is_identity};
use crate::forge;
use crate::hosts::Hosts;

/// When tokens are looked at.
const NOW: Moment = Moment {
    now_seconds: 1_800_000_000,
    leeway: Duration::from_secs(30),
};

/// An event is refused, or has identities that are fit to be keys, holds no plan's name, and is the same event when what is kept of it is read again.
pub fn event(data: &[u8]) {
    let Ok(event) = decode(data) else {
        return;
    };
    is_fit(&event);
    assert_eq!(event.raw["migrationDetails"].get("name"), None);
    let again = decode(event.raw.to_string().as_bytes());
    assert_eq!(again.as_ref(), Ok(&event));
}

/// What holds of an event holds of one of Forge, wherever in the body it lies; and only a message that the platform named can be answered.
pub fn forge_event(data: &[u8]) {
    let Ok(event) = forge::event::decode(data) else {
        return;
    };
    is_fit(&event);
    assert!(event.client_keys.is_empty());
    let raw = &event.raw;
    for object in [raw, &raw["event"], &raw["payload"]] {
        assert_eq!(object.get("transferName"), None);
        assert_eq!(object["migrationDetails"].get("name"), None);
        assert_eq!(object["migrationDetails"].get("transferName"), None);
    }
    if let Some(id) = event.platform_message_id() {
        let named = |object: &Value| object["messageId"] == id;
        assert!(named(raw) || named(&raw["event"]) || named(&raw["payload"]));
    }
    if let Kind::ListenerErrored { error: Some(error) } = &event.kind {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        assert!(length(&error.exception_type) <= 512);
        assert!(length(&error.stack_trace) <= 16 * 1024);
    }
    let again = forge::event::decode(raw.to_string().as_bytes());
    assert_eq!(again.as_ref(), Ok(&event));
}

fn is_fit(event: &Event) {
    assert!(is_identity(&event.message_id), "{}", event.message_id);
    assert!(event.transfer_id.iter().all(|id| is_identity(id)));
    assert!(event.transfer_id.is_some() || !event.kind.is_known());
    if let Kind::AppDataUploaded { s3_key, label } = &event.kind {
        assert!(is_identity(s3_key));
        assert!(label.iter().all(|label| label.len() <= LABEL_MAX));
        assert!(label.iter().all(|label| bounded_label(label) == **label));
    }
}

/// The body of a lifecycle callback is refused, or names a tenant that is fit to be a key.
pub fn callback(data: &[u8]) {
    if let Ok(callback) = Callback::installed(data) {
        assert!(is_identity(&callback.client_key));
        assert!(callback.shared_secret.is_some() && callback.base_url.is_some());
    }
}

/// A token that somebody made up is refused; one with any claims that the tenant signed is accepted only for this tenant, this request and this time.
pub fn token(data: &[u8]) {
    let secret = SecretString::from("a secret that nobody else has");
    let requests = qsh::candidates(
        "POST",
        "/connect/events",
        "a=1",
        &Url::parse("https://app.example.com/connect").unwrap(),
    );
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(found) = token::find(Some(text), text) {
            assert!(!found.is_empty());
        }
        let read = unverified::read(text);
        let verified = token::verify_webhook(text, "tenant", &[&secret], &requests, NOW);
        assert!(verified.is_err(), "nobody knows the secret");
        assert!(read.is_ok() || verified == Err(token::Refusal::Malformed));
    }
    let Ok(claims) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    let Ok(signed) = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key) else {
        return;
    };
    if token::verify_webhook(&signed, "tenant", &[&secret], &requests, NOW).is_ok() {
        let audience = claims["aud"].get(0).unwrap_or(&claims["aud"]);
        assert!(claims["iss"] == "tenant" || audience == "tenant");
        assert!(
            requests
                .iter()
                .any(|request| claims["qsh"] == qsh::hash(&request.canonical))
        );
        let seconds = |claim: &str| claims[claim].as_f64();
        assert!(seconds("exp").unwrap() >= 1_799_999_970.0);
        assert!(seconds("iat").is_none_or(|issued| issued < 1_800_000_031.0));
    }
}

/// An invocation token that somebody made up is refused; one with any claims that the platform signed is accepted only for our app, this time, an
/// installation that is fit to be a key and an address that we call. The end of a system token is a time.
pub fn forge_token(data: &[u8]) {
    const APP: &str = "ari:cloud:ecosystem::app/a";
    let hosts = Hosts::parse(["api.atlassian.com"]).unwrap();
    let verify = |token: &str| {
        let expected = forge::token::Expected {
            app: APP,
            hosts: &hosts,
        };
        forge::token::verify(token, forge::signer::public_key(), expected, NOW)
    };
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(found) = forge::token::find(Some(text)) {
            assert!(!found.is_empty());
        }
        assert!(verify(text).is_err(), "nobody has the key");
        if let Ok(expires) = forge::token::system_token_expiry(&SecretString::from(text)) {
            assert!((1..100_000_000_000).contains(&expires));
        }
    }
    let Ok(claims) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let Ok(invocation) = verify(&forge::signer::signed(&claims)) else {
        return;
    };
    assert_eq!(claims["iss"], "forge/invocation-token");
    let audiences = claims["aud"].as_array();
    assert!(claims["aud"] == APP || audiences.is_some_and(|all| all.iter().any(|one| one == APP)));
    assert!(is_identity(invocation.installation.key()));
    let ari = invocation.installation.ari();
    let app = &claims["app"];
    assert!(app["installationId"] == ari || app["installation"]["id"] == ari);
    let seconds = |claim: &str| claims[claim].as_f64();
    assert!(seconds("exp").unwrap() >= 1_799_999_970.0);
    assert!(seconds("iat").is_none_or(|issued| issued < 1_800_000_031.0));
    let admitted =
        |url: &Url| url.scheme() == "https" && url.host_str() == Some("api.atlassian.com");
    assert!(invocation.api_base_url.iter().all(admitted));
    assert!(invocation.cloud_id.iter().all(|id| is_identity(id)));
}

/// A set of keys is none, or holds a bounded number of keys with ids of their own.
pub fn forge_keys(data: &[u8]) {
    if let Some(keys) = forge::keys::read_set(data) {
        assert!(keys.len() <= 64);
        let ids: HashSet<_> = keys.iter().map(forge::keys::PublicKey::id).collect();
        assert_eq!(ids.len(), keys.len());
    }
}

/// Whatever a request's path and query are, the request as it was seen is among those that a hash is compared with, or none is.
///
/// The first line is the path, the rest the query.
pub fn request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (path, query) = text.split_once('\n').unwrap_or((text, ""));
    let base = Url::parse("https://app.example.com/stage/connect").unwrap();
    let candidates = qsh::candidates("post", path, query, &base);
    let seen = qsh::canonical("post", path, query);
    assert!(
        candidates.is_empty()
            || candidates
                .iter()
                .any(|candidate| candidate.canonical == seen)
    );
    assert!(seen.starts_with("POST&/"));
    assert!(!qsh::below_base(path, "/stage/connect").starts_with("/stage/connect/stage/connect/x"));
}

/// A URL that is admitted leads to a host of the list and nowhere else: over TLS to its own port, or to this machine where the list says so.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let hosts = Hosts::parse(["*.atlassian.net", "store.example.com", "127.0.0.1"]).unwrap();
    if let Ok(url) = hosts.admit(text) {
        let host = url.host_str().unwrap();
        let listed = host == "store.example.com"
            || host
                .strip_suffix(".atlassian.net")
                .is_some_and(|name| !name.is_empty());
        let is_remote = listed && url.scheme() == "https" && url.port().is_none();
        assert!(is_remote || host == "127.0.0.1", "{host}");
        assert!(url.username().is_empty() && url.password().is_none());
        // What a client makes of it is the same again.
        assert_eq!(hosts.admit(url.as_str()).as_ref(), Ok(&url));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Property = fn(&[u8]);

    /// Every property, by the name of its fuzz target.
    const PROPERTIES: &[(&str, Property)] = &[
        ("event", event),
        ("callback", callback),
        ("token", token),
        ("request", request),
        ("url", url),
        ("forge_event", forge_event),
        ("forge_token", forge_token),
        ("forge_keys", forge_keys),
    ];

    #[test]
    fn what_the_search_has_kept_holds() {
        for (name, property) in PROPERTIES {
            let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut replayed = 0;
            for entry in std::fs::read_dir(folder).unwrap() {
                property(&std::fs::read(entry.unwrap().path()).unwrap());
                replayed += 1;
            }
            assert!(replayed > 0, "{name} has kept inputs");
        }
    }

    fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\n",
            " ",
            "null",
            "1.5e9",
            "1800000100",
            "\"eventType\":",
            "\"app-data-uploaded\"",
            "\"transferId\":",
            "\"messageId\":",
            "\"s3Key\":",
            "\"label\":",
            "\"migrationDetails\":{",
            "\"name\":\"x\"",
            "\"createdAt\":",
            "\"clientKey\":",
            "\"sharedSecret\":",
            "\"baseUrl\":",
            "\"t-1\"",
            "\"iss\":\"tenant\"",
            "\"aud\":[\"tenant\"]",
            "\"exp\":",
            "\"iat\":",
            "\"nbf\":",
            "\"qsh\":",
            "\"avi:ecosystem.migration:uploaded:app_data\"",
            "\"avi:ecosystem.migration:errored:listener\"",
            "\"event\":{",
            "\"payload\":{",
            "\"key\":\"k\"",
            "\"transferName\":\"x\"",
            "\"transferError\":{",
            "\"exceptionType\":\"x\"",
            "\"keys\":[{",
            "\"kty\":\"RSA\"",
            "\"kid\":\"k\"",
            "\"n\":",
            "\"e\":\"AQAB\"",
            "\"iss\":\"forge/invocation-token\"",
            "\"aud\":\"ari:cloud:ecosystem::app/a\"",
            "\"app\":{",
            "\"installationId\":\"ari:cloud:ecosystem::installation/i\"",
            "\"apiBaseUrl\":\"https://api.atlassian.com/ex\"",
            "\"context\":",
            "Bearer ",
            "JWT ",
            "jwt=",
            ".",
            "e30",
            "https://",
            "http://",
            "127.0.0.1",
            "a.atlassian.net",
            "store.example.com",
            ":443",
            ":80",
            "@",
            "/",
            "?",
            "#",
            "%",
            "&",
            "=",
            "/stage",
            "/connect",
            "%2f",
            "+",
            "é",
        ]);
        let piece = prop_oneof![
            8 => word.prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..8),
            1 => (0_usize..2000).prop_map(|length| vec![b'x'; length]),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn properties_hold_of_any_bytes(data in nearly_right()) {
            for (_, property) in PROPERTIES {
                property(&data);
            }
        }
    }
}
