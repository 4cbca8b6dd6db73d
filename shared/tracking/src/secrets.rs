use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

/// Why a secret could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The configured key is not base64 of 32 bytes.
    #[error("use the secret key: it must be base64 of 32 bytes")]
    Key,
    /// The stored secret was sealed with another key, for another tenant, or was changed.
    #[error(
        "open a stored secret: it was sealed with another key, for another tenant, or was changed"
    )]
    Opening,
    /// The system gave no randomness.
    #[error("seal a secret")]
    Sealing,
}

/// The key under which tenants' shared secrets are stored (AES-256-GCM). It never prints.
pub struct SecretKey(RandomizedNonceKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(…)")
    }
}

/// First characters of a sealed secret: how it was sealed, so that another way can follow.
const PREFIX: &str = "v1.";

impl SecretKey {
    /// From base64 of 32 bytes.
    pub fn from_base64(encoded: &SecretString) -> Result<Self, SealError> {
        let bytes = STANDARD
            .decode(encoded.expose_secret().trim())
            .map_err(|_| SealError::Key)?;
        RandomizedNonceKey::new(&AES_256_GCM, &bytes)
            .map(Self)
            .map_err(|_| SealError::Key)
    }

    /// Seals a secret for one owner; only the same owner's row can be opened with it.
    pub(crate) fn seal(&self, owner: &str, secret: &SecretString) -> Result<String, SealError> {
        let mut sealed = secret.expose_secret().as_bytes().to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Sealing)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut sealed);
        Ok(format!("{PREFIX}{}", STANDARD.encode(whole)))
    }

    /// Opens what [`SecretKey::seal`] made for the same owner.
    pub(crate) fn open(&self, owner: &str, sealed: &str) -> Result<SecretString, SealError> {
        let encoded = sealed.strip_prefix(PREFIX).ok_or(SealError::Opening)?;
        let mut bytes = STANDARD.decode(encoded).map_err(|_| SealError::Opening)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::Opening);
        }
        let mut sealed = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::Opening)?;
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Opening)?;
        String::from_utf8(plain.to_vec())
            .map(SecretString::from)
            .map_err(|_| SealError::Opening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_base64(&SecretString::from(STANDARD.encode([byte; 32]))).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_for_its_owner_only() {
        let sealed = key(1)
            .seal("tenant-a", &SecretString::from("hush"))
            .unwrap();
        assert!(!sealed.contains("hush"));
        assert_eq!(
            key(1).open("tenant-a", &sealed).unwrap().expose_secret(),
            "hush"
        );
        assert_eq!(
            key(1).open("tenant-b", &sealed).unwrap_err(),
            SealError::Opening
        );
        assert_eq!(
            key(2).open("tenant-a", &sealed).unwrap_err(),
            SealError::Opening
        );
        assert_eq!(
            key(1).open("tenant-a", "v1.AAAA").unwrap_err(),
            SealError::Opening
        );
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert_eq!(
            SecretKey::from_base64(&SecretString::from("c2hvcnQ=")).unwrap_err(),
            SealError::Key
        );
    }
}
