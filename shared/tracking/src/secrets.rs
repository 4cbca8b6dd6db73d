use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
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

/// The key under which tenants' shared secrets are stored (AES-256-GCM), and from which the key that signs receipts is derived (Ed25519).
/// It never prints.
pub struct SecretKey {
    sealing: RandomizedNonceKey,
    signing: Ed25519KeyPair,
}

/// What the signing key is derived for (HKDF, RFC 5869); another text would make another key of the same secret.
const RECEIPTS: &[u8] = b"landfall receipts v1";

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
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::Key)?;
        let mut seed = [0; 32];
        Salt::new(HKDF_SHA256, &[])
            .extract(&bytes)
            .expand(&[RECEIPTS], HKDF_SHA256)
            .and_then(|derived| derived.fill(&mut seed))
            .map_err(|_| SealError::Key)?;
        let signing = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| SealError::Key)?;
        Ok(Self { sealing, signing })
    }

    /// Signs a receipt (Ed25519, RFC 8032).
    pub fn sign_receipt(&self, receipt: &[u8]) -> Vec<u8> {
        self.signing.sign(receipt).as_ref().to_vec()
    }

    /// The public key under which [`SecretKey::sign_receipt`]'s signatures hold: 32 bytes.
    pub fn receipt_key(&self) -> &[u8] {
        self.signing.public_key().as_ref()
    }

    /// Seals a secret for one owner; only the same owner's row can be opened with it.
    pub(crate) fn seal(&self, owner: &str, secret: &SecretString) -> Result<String, SealError> {
        let mut sealed = secret.expose_secret().as_bytes().to_vec();
        let nonce = self
            .sealing
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
            .sealing
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Opening)?;
        String::from_utf8(plain.to_vec())
            .map(SecretString::from)
            .map_err(|_| SealError::Opening)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

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
    fn a_receipts_signature_holds_under_the_key_that_a_secret_always_gives() {
        // Another derivation would make the receipts of an earlier release worthless.
        let public = "ae65aa63491baf89092efa69b20e345f9292e10c1af0173ecdb26285d9d0cf49";
        assert_eq!(hex::encode(key(1).receipt_key()), public);
        assert_ne!(key(1).receipt_key(), key(2).receipt_key());
        let signature = key(1).sign_receipt(b"receipt");
        let holds = |receipt: &[u8]| {
            UnparsedPublicKey::new(&ED25519, key(1).receipt_key())
                .verify(receipt, &signature)
                .is_ok()
        };
        assert!(holds(b"receipt") && !holds(b"Receipt"));
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert_eq!(
            SecretKey::from_base64(&SecretString::from("c2hvcnQ=")).unwrap_err(),
            SealError::Key
        );
    }
}
