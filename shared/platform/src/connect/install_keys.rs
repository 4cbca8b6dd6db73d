//! The public keys that lifecycle callbacks are signed with (PROTOCOL 4.1).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use landfall_clock::Clock;
use reqwest::{StatusCode, redirect};
use url::Url;

use crate::call::describe;
use crate::keys::{KEY_LIFE, STALE_LIFE, UNKNOWN_LIFE};

pub use crate::keys::{KeyError, KeyId};

/// Most requests to the server in [`UNKNOWN_LIFE`]: made-up key ids can't turn us against it.
const FETCHES_MAX: usize = 30;

/// Most keys that are remembered; the platform has a handful.
const ENTRIES_MAX: usize = 256;

/// Largest answer that can be a key, in bytes. RSA with 4096 bits takes 800.
const KEY_MAX: usize = 16 * 1024;

/// Fetches and remembers the keys.
#[derive(Debug)]
pub struct InstallKeys {
    /// Made when the first key is fetched: few cold starts need one, and its certificates take their time.
    http: OnceLock<reqwest::Client>,
    server: Url,
    clock: Clock,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    keys: HashMap<KeyId, Remembered>,
    window_began: i64,
    fetches: usize,
}

#[derive(Clone, Debug)]
struct Remembered {
    /// Absent: the server said that it doesn't know the id.
    pem: Option<Arc<[u8]>>,
    fetched: i64,
}

impl InstallKeys {
    /// `server` is the configured base, checked by [`crate::hosts::configured`]; the key's id is appended to its path. `clock` says when the
    /// server has been waited for long enough.
    pub fn new(server: Url, clock: Clock) -> Self {
        Self {
            http: OnceLock::new(),
            server,
            clock,
            memory: Mutex::default(),
        }
    }

    fn http(&self) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(self.http.get_or_init(|| http))
    }

    /// The PEM of a key, asking the server at most `timeout` long and only when it has to.
    pub async fn key(
        &self,
        id: &KeyId,
        now_seconds: i64,
        timeout: Duration,
    ) -> Result<Arc<[u8]>, KeyError> {
        let remembered = self.memory().keys.get(id).cloned();
        if let Some(Remembered { pem, fetched }) = &remembered {
            let age = now_seconds.saturating_sub(*fetched);
            match pem {
                Some(pem) if age < KEY_LIFE => return Ok(Arc::clone(pem)),
                None if age < UNKNOWN_LIFE => return Err(KeyError::NotFound),
                _ => {}
            }
        }
        if !self.memory().may_fetch(now_seconds) {
            return Err(KeyError::Unavailable {
                reason: "asked too often within a minute".into(),
            });
        }
        let fetched = self
            .clock
            .timeout(timeout, self.fetch(id))
            .await
            .unwrap_or_else(|_| {
                Err(KeyError::Unavailable {
                    reason: "no answer in time".into(),
                })
            });
        match (fetched, remembered) {
            (Ok(pem), _) => {
                let pem: Arc<[u8]> = pem.into();
                self.memory()
                    .remember(id, Some(Arc::clone(&pem)), now_seconds);
                Ok(pem)
            }
            (Err(KeyError::NotFound), _) => {
                self.memory().remember(id, None, now_seconds);
                Err(KeyError::NotFound)
            }
            (
                Err(unavailable),
                Some(Remembered {
                    pem: Some(pem),
                    fetched,
                }),
            ) if now_seconds.saturating_sub(fetched) < STALE_LIFE => {
                tracing::warn!(error = %unavailable, "used an install key past its hour, since the key server can't be asked");
                Ok(pem)
            }
            (Err(unavailable), _) => Err(unavailable),
        }
    }

    async fn fetch(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| KeyError::Unavailable {
                reason: "the server's URL can't have a path".into(),
            })?
            .pop_if_empty()
            .push(id.as_str());
        let unavailable = |error: reqwest::Error| KeyError::Unavailable {
            reason: describe(error),
        };
        let http = self.http().map_err(unavailable)?;
        let mut response = http.get(url).send().await.map_err(unavailable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(KeyError::Unavailable {
                    reason: response.status().to_string(),
                });
            }
            status if status.is_client_error() => return Err(KeyError::NotFound),
            status => {
                return Err(KeyError::Unavailable {
                    reason: status.to_string(),
                });
            }
        }
        let mut pem = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if pem.len() + chunk.len() > KEY_MAX {
                return Err(KeyError::Unavailable {
                    reason: "the answer is no key".into(),
                });
            }
            pem.extend_from_slice(&chunk);
        }
        Ok(pem)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every write below is one assignment, so that a panic elsewhere leaves nothing half done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn may_fetch(&mut self, now_seconds: i64) -> bool {
        if now_seconds.saturating_sub(self.window_began) >= UNKNOWN_LIFE {
            self.window_began = now_seconds;
            self.fetches = 0;
        }
        self.fetches += 1;
        self.fetches <= FETCHES_MAX
    }

    fn remember(&mut self, id: &KeyId, pem: Option<Arc<[u8]>>, now_seconds: i64) {
        if self.keys.len() >= ENTRIES_MAX {
            self.keys.retain(|_, entry| {
                entry.pem.is_some() && now_seconds.saturating_sub(entry.fetched) < STALE_LIFE
            });
        }
        if self.keys.len() < ENTRIES_MAX || self.keys.contains_key(id) {
            self.keys.insert(
                id.clone(),
                Remembered {
                    pem,
                    fetched: now_seconds,
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;
    use crate::stub::serve;

    const SOON: Duration = Duration::from_secs(5);

    #[derive(Clone, Default)]
    struct Server {
        asked: Arc<AtomicUsize>,
        broken: Arc<AtomicU16>,
    }

    async fn keys() -> (InstallKeys, Server) {
        let server = Server::default();
        let router = Router::new()
            .route(
                "/keys/{id}",
                get(
                    async |State(server): State<Server>, Path(id): Path<String>| {
                        server.asked.fetch_add(1, Ordering::SeqCst);
                        let broken = server.broken.load(Ordering::SeqCst);
                        if broken == 1 {
                            std::future::pending::<()>().await;
                        }
                        if broken > 1 {
                            return Err(StatusCode::from_u16(broken).unwrap());
                        }
                        if id == "known" {
                            Ok("PEM")
                        } else {
                            Err(StatusCode::NOT_FOUND)
                        }
                    },
                ),
            )
            .with_state(server.clone());
        let base = serve(router).await.join("keys").unwrap();
        (InstallKeys::new(base, Clock::system()), server)
    }

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_key_is_fetched_once_an_hour() {
        let (keys, server) = keys().await;
        for now in [1_000, 1_001, 1_000 + KEY_LIFE - 1] {
            assert_eq!(&*keys.key(&id("known"), now, SOON).await.unwrap(), b"PEM");
        }
        assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        keys.key(&id("known"), 1_000 + KEY_LIFE, SOON)
            .await
            .unwrap();
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_unknown_id_is_asked_for_once_a_minute_and_all_of_them_have_one_bound() {
        let (keys, server) = keys().await;
        for now in [1_000, 1_059] {
            assert!(matches!(
                keys.key(&id("unknown"), now, SOON).await,
                Err(KeyError::NotFound)
            ));
        }
        assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        assert!(matches!(
            keys.key(&id("unknown"), 1_060, SOON).await,
            Err(KeyError::NotFound)
        ));
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
        for number in 0..100 {
            keys.key(&id(&format!("made-up-{number}")), 1_061, SOON)
                .await
                .unwrap_err();
        }
        assert_eq!(server.asked.load(Ordering::SeqCst), 1 + FETCHES_MAX);
        assert!(matches!(
            keys.key(&id("known"), 1_062, SOON).await,
            Err(KeyError::Unavailable { .. })
        ));
        assert!(keys.key(&id("known"), 1_200, SOON).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_fails_hangs_or_redirects_is_unavailable_and_an_old_key_is_used_meanwhile()
     {
        let (keys, server) = keys().await;
        for broken in [500, 503, 429, 302, 1] {
            server.broken.store(broken, Ordering::SeqCst);
            let refused = keys
                .key(&id("known"), 1_000, Duration::from_millis(200))
                .await;
            assert!(
                matches!(refused, Err(KeyError::Unavailable { .. })),
                "{broken}"
            );
        }
        server.broken.store(0, Ordering::SeqCst);
        keys.key(&id("known"), 1_000, SOON).await.unwrap();
        server.broken.store(500, Ordering::SeqCst);
        assert!(
            keys.key(&id("known"), 1_000 + 2 * KEY_LIFE, SOON)
                .await
                .is_ok()
        );
        assert!(
            keys.key(&id("known"), 1_000 + STALE_LIFE, SOON)
                .await
                .is_err()
        );
    }
}
