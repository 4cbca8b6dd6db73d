use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use landfall_tracking::{DataKey, DataKeys, Error, SecretKey, Vault};
use secrecy::{SecretSlice, SecretString};

/// A vault with a key of the environment and no other, the same for every test.
pub fn vault() -> Arc<Vault> {
    Arc::new(Vault::local(Arc::new(secret_key())))
}

/// The key of [`vault`].
pub fn secret_key() -> SecretKey {
    let key = SecretString::from("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    SecretKey::from_base64(&key).expect("base64 of 32 bytes")
}

/// Why a [`DataKeysModel`] answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is throttled, or out of reach.
    Outage,
    /// The key is disabled, or may not be used.
    Forbidden,
}

/// A KMS key. Clones are the same one.
#[derive(Clone, Debug)]
pub struct DataKeysModel {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How often its material was rotated.
    rotated: u32,
    /// The data keys it has made, by their sealed forms.
    made: HashMap<Vec<u8>, [u8; 32]>,
    generated: usize,
    decrypted: usize,
    trouble: Option<Trouble>,
}

impl DataKeysModel {
    /// A key of this name, which makes other data keys than one of another name.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Arc::default(),
        }
    }

    /// How often a data key was asked for.
    pub fn generated(&self) -> usize {
        self.state().generated
    }

    /// How often one was to be opened.
    pub fn decrypted(&self) -> usize {
        self.state().decrypted
    }

    /// Gives the key new material, as KMS does once a year. What the old material has sealed still opens.
    pub fn rotate(&self) {
        self.state().rotated += 1;
    }

    /// Lets every call end so from now on, or well again.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn checked(&self) -> Result<(), Error> {
        match self.trouble {
            None => Ok(()),
            Some(Trouble::Outage) => Err(Error::Unavailable("an outage".to_owned())),
            Some(Trouble::Forbidden) => Err(Error::Vault("it may not be used".to_owned())),
        }
    }
}

impl DataKeys for DataKeysModel {
    fn generate(&self) -> BoxFuture<'_, Result<DataKey, Error>> {
        let mut state = self.state();
        state.generated += 1;
        let generated = state.checked().map(|()| {
            let sealed = format!("{}/{}/{}", self.name, state.rotated, state.generated);
            let mut plain = [0; 32];
            for (byte, named) in plain.iter_mut().zip(sealed.bytes()) {
                *byte = named;
            }
            state.made.insert(sealed.clone().into_bytes(), plain);
            DataKey {
                plain: SecretSlice::from(plain.to_vec()),
                sealed: sealed.into_bytes(),
            }
        });
        ready(generated).boxed()
    }

    fn decrypt<'a>(
        &'a self,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<Option<SecretSlice<u8>>, Error>> {
        let mut state = self.state();
        state.decrypted += 1;
        let made = state.made.get(sealed);
        let plain = made.map(|plain| SecretSlice::from(plain.to_vec()));
        ready(state.checked().map(|()| plain)).boxed()
    }
}
