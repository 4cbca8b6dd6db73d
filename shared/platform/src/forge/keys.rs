//! The public keys that invocation tokens are signed with: one set, fetched whole (PROTOCOL 7.5).

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use landfall_clock::Clock;
use reqwest::StatusCode;
use serde_json::Value;
use url::Url;

use crate::call::{self, describe};
use crate::keys::{KEY_LIFE, KeyError, KeyId, STALE_LIFE, UNKNOWN_LIFE};

/// Where the platform publishes the set (PROTOCOL 7.5).
pub const PUBLISHED: &str = "https://forge.cdn.prod.atlassian-dev.net/.well-known/jwks.json";

/// Largest answer that can be the set, in bytes. A key with 4096 bits takes 900.
const SET_MAX: usize = 64 * 1024;

/// Most keys of a set that are looked at; the platform has a handful.
const KEYS_MAX: usize = 64;

/// Shortest modulus of a key that is taken, in bits (RFC 7518, 3.3).
const BITS_MIN: usize = 2_048;

/// Longest modulus of a key that is taken, in bits: what the library verifies with.
const BITS_MAX: usize = 8_192;

/// Most requests to the server in [`UNKNOWN_LIFE`] while there is no set at all. With one, there is one request in that time.
const FETCHES_MAX: usize = 30;

/// A key that verifies invocation tokens.
#[derive(Clone, Debug)]
pub struct PublicKey {
    id: KeyId,
    decoding: DecodingKey,
}

impl PublicKey {
    /// Its id, the token's `kid`.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// The keys of a set (RFC 7517) that are for signatures with RSA and long enough. Others are left out, whatever they are.
///
/// Nothing when the text is no set. Of two keys with the same id the first counts.
pub fn read_set(text: &[u8]) -> Option<Vec<PublicKey>> {
    let set: Value = serde_json::from_slice(text).ok()?;
    let entries = set.get("keys")?.as_array()?;
    let mut keys: Vec<PublicKey> = Vec::new();
    for key in entries.iter().take(KEYS_MAX).filter_map(public_key) {
        if keys.iter().all(|other| other.id != key.id) {
            keys.push(key);
        }
    }
    Some(keys)
}

fn public_key(entry: &Value) -> Option<PublicKey> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str);
    let absent_or = |field: &str, value: &str| {
        entry
            .get(field)
            .is_none_or(|given| given.as_str() == Some(value))
    };
    let operations = entry.get("key_ops").map(|given| {
        given
            .as_array()
            .is_some_and(|given| given.iter().any(|one| one == "verify"))
    });
    if text("kty") != Some("RSA")
        || !absent_or("use", "sig")
        || !absent_or("alg", "RS256")
        || operations == Some(false)
    {
        return None;
    }
    let id = KeyId::parse(text("kid")?)?;
    let modulus = number(text("n")?)?;
    let exponent = number(text("e")?)?;
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    let sound = (BITS_MIN..=BITS_MAX).contains(&bits)
        && modulus.last().is_some_and(|last| last % 2 == 1)
        && exponent.len() <= 4
        && exponent.last().is_some_and(|last| last % 2 == 1)
        && exponent != [1];
    sound.then(|| PublicKey {
        id,
        decoding: DecodingKey::from_rsa_raw_components(&modulus, &exponent),
    })
}

/// An unsigned number, its first byte first and not zero.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[start..].to_vec())
}

/// Where the set is fetched. A port, so that a platform in memory can have keys of its own.
pub trait KeySetServer: fmt::Debug + Send + Sync {
    /// The set's text as it is published, or why it can't be had; the reason holds no URL. May be dropped at any time.
    fn fetch(&self) -> Fetching<'_>;
}

/// A set that is being fetched.
pub type Fetching<'call> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'call>>;

/// The set at its URL.
#[derive(Debug)]
struct Published {
    /// Made when the set is fetched for the first time: its certificates take their time.
    http: OnceLock<reqwest::Client>,
    server: Url,
}

impl Published {
    fn http(&self) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        // The whole exchange has a time-out, so connecting needs none of its own.
        let http = call::http(Duration::from_mins(1))?;
        Ok(self.http.get_or_init(|| http))
    }
}

impl KeySetServer for Published {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async move {
            let http = self.http().map_err(describe)?;
            let response = http
                .get(self.server.clone())
                .send()
                .await
                .map_err(describe)?;
            if response.status() != StatusCode::OK {
                return Err(response.status().to_string());
            }
            call::body(response, SET_MAX)
                .await
                .map_err(|error| error.to_string())
        })
    }
}

/// Fetches and remembers the set.
#[derive(Debug)]
pub struct Keys {
    server: Arc<dyn KeySetServer>,
    clock: Clock,
    memory: Mutex<Memory>,
    /// Held by the one that asks the server; the others wait for what it learns.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Memory {
    keys: HashMap<KeyId, Arc<PublicKey>>,
    /// When [`Self::keys`] were fetched, in seconds since the Unix epoch.
    fetched: Option<i64>,
    /// When the server was last asked, in seconds since the Unix epoch.
    asked: Option<i64>,
    /// How often the server has answered, or failed to.
    rounds: u64,
    /// Why the last round failed, if it did.
    failure: Option<String>,
    window_began: i64,
    fetches: usize,
}

impl Keys {
    /// `server` is the set's configured URL, checked by [`crate::hosts::configured`]; [`PUBLISHED`] is the platform's. `clock` says when the
    /// server has been waited for long enough.
    pub fn new(server: Url, clock: Clock) -> Self {
        let http = OnceLock::new();
        Self::of(Arc::new(Published { http, server }), clock)
    }

    /// The keys that any other server has.
    pub fn of(server: Arc<dyn KeySetServer>, clock: Clock) -> Self {
        Self {
            server,
            clock,
            memory: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The key of that id, asking the server at most `timeout` long and only when it has to.
    ///
    /// While there is a set, the server is asked at most once a minute, whatever ids are asked for. Who asks at the same time as others shares
    /// what one of them learns.
    pub async fn key(
        &self,
        id: &KeyId,
        now_seconds: i64,
        timeout: Duration,
    ) -> Result<Arc<PublicKey>, KeyError> {
        let round = {
            let memory = self.memory();
            if let Some(answer) = memory.answer(id, now_seconds) {
                return answer;
            }
            memory.rounds
        };
        let asked = self.ask(id, now_seconds, timeout, round);
        let unavailable = match self.clock.timeout(timeout, asked).await {
            Ok(Ok(key)) => return Ok(key),
            Ok(Err(KeyError::NotFound)) => return Err(KeyError::NotFound),
            Ok(Err(unavailable)) => unavailable,
            Err(_) => KeyError::Unavailable {
                reason: "no answer in time".into(),
            },
        };
        let stale = self.memory().stale(id, now_seconds);
        stale.map_or(Err(unavailable), |key| {
            tracing::warn!(
                "used an invocation key past its hour, since the key server can't be asked"
            );
            Ok(key)
        })
    }

    /// Asks the server, or waits for whoever does. `round` is the last one that the caller knew of.
    async fn ask(
        &self,
        id: &KeyId,
        now_seconds: i64,
        timeout: Duration,
        round: u64,
    ) -> Result<Arc<PublicKey>, KeyError> {
        let _turn = self.turn.lock().await;
        {
            let mut memory = self.memory();
            if let Some(answer) = memory.answer(id, now_seconds) {
                return answer;
            }
            if let (true, Some(reason)) = (memory.rounds > round, &memory.failure) {
                return Err(KeyError::Unavailable {
                    reason: reason.clone(),
                });
            }
            if !memory.may_fetch(now_seconds) {
                return Err(KeyError::Unavailable {
                    reason: "asked too often within a minute".into(),
                });
            }
        }
        let fetched = self
            .clock
            .timeout(timeout, self.fetch())
            .await
            .unwrap_or_else(|_| Err("no answer in time".into()));
        let mut memory = self.memory();
        // Only now: who comes in between waits for this answer, for it may hold the key that the last one lacked.
        memory.asked = Some(now_seconds);
        memory.rounds += 1;
        match fetched {
            Ok(keys) => {
                memory.keys = keys
                    .into_iter()
                    .map(|key| (key.id.clone(), Arc::new(key)))
                    .collect();
                memory.fetched = Some(now_seconds);
                memory.failure = None;
                memory.keys.get(id).cloned().ok_or(KeyError::NotFound)
            }
            Err(reason) => {
                memory.failure = Some(reason.clone());
                Err(KeyError::Unavailable { reason })
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let text = self.server.fetch().await?;
        read_set(&text)
            .filter(|keys| !keys.is_empty())
            .ok_or_else(|| "the answer is no set of keys".to_owned())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // No write below leaves anything half done that a later one would not set right.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// What can be said without asking the server; nothing when it has to be asked.
    fn answer(&self, id: &KeyId, now_seconds: i64) -> Option<Result<Arc<PublicKey>, KeyError>> {
        let age = now_seconds.saturating_sub(self.fetched?);
        let key = self.keys.get(id);
        if let Some(key) = key.filter(|_| age < KEY_LIFE) {
            return Some(Ok(Arc::clone(key)));
        }
        let asked_lately = self
            .asked
            .is_some_and(|asked| now_seconds.saturating_sub(asked) < UNKNOWN_LIFE);
        if !asked_lately || age >= STALE_LIFE {
            return None;
        }
        Some(match (key, &self.failure) {
            (Some(key), _) => Ok(Arc::clone(key)),
            (None, None) => Err(KeyError::NotFound),
            // It may be a key that is newer than our set.
            (None, Some(reason)) => Err(KeyError::Unavailable {
                reason: reason.clone(),
            }),
        })
    }

    /// A key that may still be used when the server can't be asked.
    fn stale(&self, id: &KeyId, now_seconds: i64) -> Option<Arc<PublicKey>> {
        let age = now_seconds.saturating_sub(self.fetched?);
        self.keys.get(id).filter(|_| age < STALE_LIFE).cloned()
    }

    fn may_fetch(&mut self, now_seconds: i64) -> bool {
        if now_seconds.saturating_sub(self.window_began) >= UNKNOWN_LIFE {
            self.window_began = now_seconds;
            self.fetches = 0;
        }
        self.fetches += 1;
        self.fetches <= FETCHES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    use axum::body::Body;
    use axum::response::{IntoResponse, Response};
    use axum::{Router, routing::get};
    use serde_json::json;

    use super::*;
    use crate::forge::signer;
    use crate::stub::{serve, status};

    const SOON: Duration = Duration::from_secs(5);

    #[derive(Clone, Default)]
    struct Server {
        asked: Arc<AtomicUsize>,
        broken: Arc<AtomicU16>,
    }

    impl Server {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        fn breaks(&self, how: u16) {
            self.broken.store(how, Ordering::SeqCst);
        }

        async fn answer(&self) -> Response {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.broken.load(Ordering::SeqCst) {
                0 => axum::Json(signer::set()).into_response(),
                1 => std::future::pending().await,
                2 => "<html>".into_response(),
                3 => axum::Json(json!({"keys": []})).into_response(),
                5 => {
                    let set = signer::set().to_string().replace("key-1", "key-2");
                    set.into_response()
                }
                4 => Body::from(vec![b' '; SET_MAX + 1]).into_response(),
                code => status(code, ""),
            }
        }
    }

    async fn keys() -> (Keys, Server) {
        let server = Server::default();
        let answering = server.clone();
        let router = Router::new().route(
            "/jwks.json",
            get(move || {
                let server = answering.clone();
                async move { server.answer().await }
            }),
        );
        let url = serve(router).await.join("jwks.json").unwrap();
        (Keys::new(url, Clock::system()), server)
    }

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    #[test]
    fn only_long_keys_for_signatures_are_taken_and_others_break_nothing() {
        let good = signer::set()["keys"][0].clone();
        let changed = |field: &str, value: Value| {
            let mut key = good.clone();
            key["kid"] = json!("changed");
            key[field] = value;
            key
        };
        let short = URL_SAFE_NO_PAD.encode([0xff_u8; 128]);
        let padded = URL_SAFE_NO_PAD.encode([vec![0], vec![0x7f; 256]].concat());
        let huge = URL_SAFE_NO_PAD.encode([0xff_u8; 1_025]);
        for other in [
            changed("kty", json!("EC")),
            changed("use", json!("enc")),
            changed("alg", json!("RS512")),
            changed("key_ops", json!(["encrypt"])),
            changed("kid", json!("a/b")),
            changed("kid", json!(null)),
            changed("n", json!(short)),
            changed("n", json!(padded)),
            changed("n", json!(huge)),
            changed("n", json!("")),
            changed("n", json!("not base64!")),
            changed("e", json!("AQ")),
            changed("e", json!("AA")),
            changed("e", json!("Ag")),
            changed("e", json!("AAEAAQEAAQ")),
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}),
            json!(5),
            json!(null),
        ] {
            let set = json!({"keys": [other, good]}).to_string();
            let keys = read_set(set.as_bytes()).unwrap();
            let ids: Vec<String> = keys.iter().map(|key| key.id.to_string()).collect();
            assert_eq!(ids, ["key-1"], "{other}");
        }
        let plain =
            json!({"keys": [{"kty": "RSA", "kid": "plain", "n": good["n"], "e": good["e"]}]});
        assert_eq!(read_set(plain.to_string().as_bytes()).unwrap().len(), 1);
        for text in ["", "[]", "{}", r#"{"keys":5}"#] {
            assert!(read_set(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[tokio::test]
    async fn the_set_is_fetched_once_an_hour() {
        let (keys, server) = keys().await;
        for now in [1_000, 1_001, 1_000 + KEY_LIFE - 1] {
            let key = keys.key(&id("key-1"), now, SOON).await.unwrap();
            assert_eq!(*key.id(), id("key-1"));
        }
        assert_eq!(server.asked(), 1);
        keys.key(&id("key-1"), 1_000 + KEY_LIFE, SOON)
            .await
            .unwrap();
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn unknown_ids_refresh_the_set_at_most_once_a_minute() {
        let (keys, server) = keys().await;
        keys.key(&id("key-1"), 1_000, SOON).await.unwrap();
        for number in 0..100 {
            let unknown = keys
                .key(&id(&format!("made-up-{number}")), 1_059, SOON)
                .await;
            assert!(matches!(unknown, Err(KeyError::NotFound)));
        }
        assert_eq!(server.asked(), 1);
        for _ in 0..2 {
            let unknown = keys.key(&id("made-up"), 1_060, SOON).await;
            assert!(matches!(unknown, Err(KeyError::NotFound)));
        }
        assert_eq!(server.asked(), 2);
        assert!(keys.key(&id("key-1"), 1_061, SOON).await.is_ok());
    }

    #[tokio::test]
    async fn requests_at_the_same_time_ask_once_and_share_a_failure() {
        let (keys, server) = keys().await;
        let wanted = id("key-1");
        server.breaks(503);
        let ask = || keys.key(&wanted, 1_000, SOON);
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        assert!(one.is_err() && two.is_err() && three.is_err());
        assert_eq!(server.asked(), 1);
        server.breaks(0);
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn a_new_key_is_found_by_all_who_ask_for_it_while_the_set_is_fetched() {
        let (keys, server) = keys().await;
        keys.key(&id("key-1"), 1_000, SOON).await.unwrap();
        server.breaks(5);
        let wanted = id("key-2");
        let ask = || keys.key(&wanted, 1_060, SOON);
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert_eq!(server.asked(), 2);
        let replaced = keys.key(&id("key-1"), 1_061, SOON).await;
        assert!(matches!(replaced, Err(KeyError::NotFound)));
    }

    #[tokio::test]
    async fn a_server_that_fails_hangs_redirects_or_answers_no_set_is_unavailable() {
        let (keys, server) = keys().await;
        for broken in [500, 404, 429, 302, 1, 2, 3, 4] {
            server.breaks(broken);
            let refused = keys
                .key(&id("key-1"), 1_000, Duration::from_millis(300))
                .await;
            assert!(
                matches!(refused, Err(KeyError::Unavailable { .. })),
                "{broken}"
            );
        }
    }

    #[tokio::test]
    async fn without_a_set_the_server_is_asked_a_bounded_number_of_times() {
        let (keys, server) = keys().await;
        server.breaks(500);
        for _ in 0..FETCHES_MAX + 10 {
            keys.key(&id("key-1"), 1_000, SOON).await.unwrap_err();
        }
        assert_eq!(server.asked(), FETCHES_MAX);
        server.breaks(0);
        assert!(keys.key(&id("key-1"), 1_060, SOON).await.is_ok());
    }

    #[tokio::test]
    async fn an_old_key_is_used_for_a_day_while_the_server_is_down() {
        let (keys, server) = keys().await;
        keys.key(&id("key-1"), 1_000, SOON).await.unwrap();
        server.breaks(500);
        let later = 1_000 + KEY_LIFE;
        for now in [later, later + 1, later + UNKNOWN_LIFE - 1] {
            assert!(keys.key(&id("key-1"), now, SOON).await.is_ok());
        }
        assert_eq!(server.asked(), 2, "once a minute");
        let newer = keys.key(&id("key-2"), later + 2, SOON).await;
        assert!(matches!(newer, Err(KeyError::Unavailable { .. })));
        let end = 1_000 + STALE_LIFE;
        assert!(keys.key(&id("key-1"), end - 1, SOON).await.is_ok());
        assert!(keys.key(&id("key-1"), end, SOON).await.is_err());
    }
}
