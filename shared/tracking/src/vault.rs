use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_transfer::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use crate::error::Error;
use crate::secrets::{Cipher, SealError, SecretKey};

/// A new data key, as KMS gives it.
#[derive(Debug)]
pub struct DataKey {
    /// 32 bytes. Never printed, never stored.
    pub plain: SecretSlice<u8>,
    /// The same key, sealed with the KMS key: what is stored beside the texts that it seals.
    pub sealed: Vec<u8>,
}

/// The port to the key that seals data keys: as much of KMS as the vault needs.
///
/// [`Error::Unavailable`] says that the key can't be asked now, and [`Error::Vault`] that a person has to mend something first. Neither says anything about what is
/// stored.
pub trait DataKeys: fmt::Debug + Send + Sync {
    /// Makes a data key.
    fn generate(&self) -> BoxFuture<'_, Result<DataKey, Error>>;

    /// Opens a sealed data key; none when it was sealed with another key, or was changed.
    fn decrypt<'a>(
        &'a self,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<Option<SecretSlice<u8>>, Error>>;
}

/// How long a data key is used after KMS gave it. So long does a process go on that may not use the KMS key any more, and so long does it not
/// notice an outage.
const HELD_FOR: Duration = Duration::from_hours(1);

/// Most texts that are sealed with one data key. Nonces are random, so it has to be far below 2³² (NIST SP 800-38D).
const SEALS_MAX: u32 = 1_000;

/// Most data keys that are held, each less than a kilobyte.
const HELD_MAX: usize = 1_000;

/// First characters of a text that was sealed with a data key. Behind it, divided by a full stop: the sealed data key, and nonce and ciphertext.
const PREFIX: &str = "v2.";

/// Where a tenant's secrets are before they are stored: what goes out is sealed for its owner, and opens for nobody else.
///
/// With a KMS key each text is sealed with a data key and carries it, sealed by KMS. Without one, as in the local cloud, the key of the environment seals. What that key
/// has sealed can be opened in either case.
#[derive(Debug)]
pub struct Vault {
    key: Arc<SecretKey>,
    ring: Option<KeyRing>,
}

impl Vault {
    /// Seals with the environment's key.
    pub const fn local(key: Arc<SecretKey>) -> Self {
        Self { key, ring: None }
    }

    /// Seals with data keys, and opens what the environment's key has sealed before.
    pub fn enveloping(key: Arc<SecretKey>, data_keys: Arc<dyn DataKeys>, clock: Clock) -> Self {
        let ring = KeyRing {
            data_keys,
            clock,
            held: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            failures: AtomicU64::default(),
        };
        Self {
            key,
            ring: Some(ring),
        }
    }

    /// Seals a secret for one owner.
    pub async fn seal(&self, owner: &str, secret: &SecretString) -> Result<String, Error> {
        let sealed = match &self.ring {
            None => self.key.seal(owner, secret),
            Some(ring) => {
                let (key, cipher) = ring.sealing().await?;
                let text = cipher.seal(owner, secret);
                text.map(|text| format!("{PREFIX}{key}.{text}"))
            }
        };
        sealed.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Opens what was sealed for the same owner. `what` is where it lies: [`Error::Unreadable`] names it when no key that is configured opens it.
    pub async fn open(
        &self,
        what: &'static str,
        owner: &str,
        sealed: &str,
    ) -> Result<SecretString, Error> {
        let opened = match (sealed.strip_prefix(PREFIX), &self.ring) {
            (None, _) => self.key.open(owner, sealed),
            (Some(_), None) => Err(SealError::NoKmsKey),
            (Some(envelope), Some(ring)) => match envelope.split_once('.') {
                None => Err(SealError::Opening),
                Some((key, text)) => match ring.opening(key).await? {
                    None => Err(SealError::Opening),
                    Some(cipher) => cipher.open(owner, text),
                },
            },
        };
        opened.map_err(|error| Error::unreadable(what, error))
    }
}

/// The data keys that KMS gave lately.
struct KeyRing {
    data_keys: Arc<dyn DataKeys>,
    clock: Clock,
    held: Mutex<Held>,
    /// Held by the one that asks KMS: whoever needs the same key finds it afterwards.
    asking: tokio::sync::Mutex<()>,
    /// How often KMS could not be asked.
    failures: AtomicU64,
}

#[derive(Default)]
struct Held {
    /// By their sealed form, as texts carry it.
    keys: HashMap<Arc<str>, HeldKey>,
    /// The one that seals.
    sealing: Option<Sealing>,
}

struct HeldKey {
    cipher: Arc<Cipher>,
    until: Timestamp,
}

struct Sealing {
    sealed: Arc<str>,
    cipher: Arc<Cipher>,
    until: Timestamp,
    left: u32,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyRing")
            .field("data_keys", &self.data_keys)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// A data key that may seal one more text, and its sealed form.
    async fn sealing(&self) -> Result<(Arc<str>, Arc<Cipher>), Error> {
        let ask = async {
            let DataKey { plain, sealed } = self.data_keys.generate().await?;
            let cipher = Cipher::new(plain.expose_secret())
                .map(Arc::new)
                .map_err(|_| Error::Vault("its data keys are not of 32 bytes".to_owned()))?;
            let sealed = Arc::<str>::from(STANDARD.encode(sealed));
            let until = self.hold(&sealed, &cipher);
            self.held().sealing = Some(Sealing {
                sealed: Arc::clone(&sealed),
                cipher: Arc::clone(&cipher),
                until,
                left: SEALS_MAX - 1,
            });
            Ok((sealed, cipher))
        };
        self.known_or_asked(|| self.take_seal(), ask).await
    }

    /// The data key that was sealed so; none when KMS has never sealed such a one with our key.
    async fn opening(&self, sealed: &str) -> Result<Option<Arc<Cipher>>, Error> {
        let known = || {
            let now = self.clock.now();
            let held = self.held();
            let known = held.keys.get(sealed).filter(|key| now < key.until)?;
            Some(Some(Arc::clone(&known.cipher)))
        };
        let ask = async {
            let Ok(bytes) = STANDARD.decode(sealed) else {
                return Ok(None);
            };
            let Some(plain) = self.data_keys.decrypt(&bytes).await? else {
                return Ok(None);
            };
            let Ok(cipher) = Cipher::new(plain.expose_secret()).map(Arc::new) else {
                return Ok(None);
            };
            self.hold(&Arc::from(sealed), &cipher);
            Ok(Some(cipher))
        };
        self.known_or_asked(known, ask).await
    }

    /// What is known, or else what KMS is asked for, by one at a time. Who has waited while another could not ask it doesn't try as well: in an
    /// outage all of them would wait for one after another.
    async fn known_or_asked<T>(
        &self,
        known: impl Fn() -> Option<T>,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if let Some(known) = known() {
            return Ok(known);
        }
        let failures = self.failures.load(Ordering::Relaxed);
        let _turn = self.asking.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        if self.failures.load(Ordering::Relaxed) != failures {
            return Err(Error::Unavailable(
                "KMS could not be asked a moment ago".to_owned(),
            ));
        }
        let asked = ask.await;
        if matches!(asked, Err(Error::Unavailable(_))) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        asked
    }

    /// Uses the sealing key up by one text, if it may still seal one.
    fn take_seal(&self) -> Option<(Arc<str>, Arc<Cipher>)> {
        let now = self.clock.now();
        let mut held = self.held();
        let sealing = held.sealing.as_mut().filter(|key| now < key.until)?;
        sealing.left = sealing.left.checked_sub(1)?;
        Some((Arc::clone(&sealing.sealed), Arc::clone(&sealing.cipher)))
    }

    /// Holds a key that KMS has just given, and drops those whose time is over; of too many the oldest. Says until when.
    fn hold(&self, sealed: &Arc<str>, cipher: &Arc<Cipher>) -> Timestamp {
        let now = self.clock.now();
        let until = now + HELD_FOR;
        let mut held = self.held();
        held.keys.retain(|_, key| now < key.until);
        if held.keys.len() >= HELD_MAX {
            let oldest = held.keys.iter().min_by_key(|(_, key)| key.until);
            let oldest = oldest.map(|(sealed, _)| Arc::clone(sealed));
            oldest.map(|oldest| held.keys.remove(&oldest));
        }
        let cipher = Arc::clone(cipher);
        held.keys
            .insert(Arc::clone(sealed), HeldKey { cipher, until });
        until
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Each change leaves it whole, so that a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
