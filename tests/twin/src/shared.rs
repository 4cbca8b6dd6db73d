//! What all parts of the running twin hold in common.

use aws_lc_rs::hmac;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

use crate::clock::wall_ms;
use crate::plan::Compressed;
use crate::platform::Platform;
use crate::switches::TokenClock;
use crate::token::InstallKey;

/// Requests to apps that are on their way at once. The platform's own number is not known; here each of them may start a
/// function, and hundreds that start in the same second are more than a small machine answers within five.
const DELIVERIES_AT_ONCE: usize = 24;

pub(crate) struct Shared {
    pub(crate) app_key: String,
    pub(crate) forge_app: String,
    pub(crate) seed: u64,
    pub(crate) url: String,
    pub(crate) store_url: String,
    pub(crate) store_key: hmac::Key,
    /// Signs the system tokens of Forge installations; another twin's are refused.
    pub(crate) system_token_secret: String,
    pub(crate) http: reqwest::Client,
    pub(crate) compressed: Compressed,
    pub(crate) deliveries: Semaphore,
    platform: Mutex<Platform>,
    install_keys: Mutex<Vec<Arc<InstallKey>>>,
    forge_keys: Mutex<Vec<Arc<InstallKey>>>,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "called once, by the start")]
    pub(crate) fn new(
        app_key: String,
        forge_app: String,
        seed: u64,
        url: String,
        store_url: String,
        store_key: hmac::Key,
        system_token_secret: String,
        http: reqwest::Client,
        platform: Platform,
        install_key: Arc<InstallKey>,
        forge_key: Arc<InstallKey>,
    ) -> Self {
        Self {
            app_key,
            forge_app,
            seed,
            url,
            store_url,
            store_key,
            system_token_secret,
            http,
            compressed: Compressed::default(),
            deliveries: Semaphore::new(DELIVERIES_AT_ONCE),
            platform: Mutex::new(platform),
            install_keys: Mutex::new(vec![install_key]),
            forge_keys: Mutex::new(vec![forge_key]),
        }
    }

    /// The platform, with every timer that is due gone off.
    pub(crate) fn platform(&self) -> MutexGuard<'_, Platform> {
        // A panic in one handler must not stop the others: the state has no half-done invariants.
        let mut platform = self.platform.lock().unwrap_or_else(PoisonError::into_inner);
        platform.tick();
        platform
    }

    /// The key that signs now, and all that the key server knows.
    pub(crate) fn install_key(&self) -> Option<Arc<InstallKey>> {
        self.keys().last().cloned()
    }

    pub(crate) fn find_install_key(&self, id: &str) -> Option<Arc<InstallKey>> {
        self.keys().iter().find(|key| key.id == id).cloned()
    }

    pub(crate) fn add_install_key(&self, key: InstallKey) {
        self.keys().push(Arc::new(key));
    }

    /// The key that signs invocations now.
    pub(crate) fn forge_key(&self) -> Option<Arc<InstallKey>> {
        self.invocation_keys().last().cloned()
    }

    /// The key set of invocations, as it is published.
    pub(crate) fn forge_key_set(&self) -> Vec<Value> {
        self.invocation_keys()
            .iter()
            .filter_map(|key| key.jwk())
            .collect()
    }

    /// A new key signs from now on; the old ones stay published unless they retire.
    pub(crate) fn add_forge_key(&self, key: InstallKey, retire_old: bool) {
        let mut keys = self.invocation_keys();
        if retire_old {
            keys.clear();
        }
        keys.push(Arc::new(key));
    }

    fn invocation_keys(&self) -> MutexGuard<'_, Vec<Arc<InstallKey>>> {
        self.forge_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, Vec<Arc<InstallKey>>> {
        self.install_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platform {
    /// Epoch seconds on the clock that a token lives by.
    pub(crate) fn token_now_s(&self, clock: TokenClock) -> i64 {
        match clock {
            TokenClock::Wall => wall_ms() / 1000,
            TokenClock::Virtual => self.clock.now_ms() / 1000,
        }
    }
}
