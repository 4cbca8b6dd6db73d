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
    /// The stored secret was sealed with a data key of KMS, and none is to be had here.
    #[error("open a stored secret: it was sealed with a KMS key, and LANDFALL_KMS_KEY is not set")]
    NoKmsKey,
    /// The system gave no randomness.
    #[error("seal a secret")]
    Sealing,
}

/// AES-256-GCM under one key, each text bound to its owner. It never prints, and its memory is wiped when it is dropped: AWS-LC wipes whatever it frees.
pub(crate) struct Cipher(RandomizedNonceKey);

impl Cipher {
    /// From 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Result<Self, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Key)?;
        Ok(Self(key))
    }

    /// Base64 of nonce and ciphertext; only for the same owner can it be opened.
    pub(crate) fn seal(&self, owner: &str, secret: &SecretString) -> Result<String, SealError> {
        let plain = secret.expose_secret().as_bytes();
        // Room for the tag as well: a buffer that grows would leave the secret behind.
        let mut sealed = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(plain);
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Sealing)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut sealed);
        Ok(STANDARD.encode(whole))
    }

    /// Opens what [`Cipher::seal`] made for the same owner.
    pub(crate) fn open(&self, owner: &str, sealed: &str) -> Result<SecretString, SealError> {
        let mut bytes = STANDARD.decode(sealed).map_err(|_| SealError::Opening)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::Opening);
        }
        let mut sealed = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::Opening)?;
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Opening)?
            .len();
        sealed.truncate(plain);
        String::from_utf8(sealed)
            .map(SecretString::from)
            .map_err(|_| SealError::Opening)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Cipher(…)")
    }
}

/// The key that the template passes: it seals secrets where there is no KMS key ([`Vault`](crate::Vault)), and the key that signs receipts is derived from it
/// (Ed25519). It never prints.
pub struct SecretKey {
    sealing: Cipher,
    signing: Ed25519KeyPair,
}

/// What the signing key is derived for (HKDF, RFC 5869); another text would make another key of the same secret.
const RECEIPTS: &[u8] = b"landfall receipts v1";

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(…)")
    }
}

/// First characters of a secret that was sealed with this key.
const PREFIX: &str = "v1.";

impl SecretKey {
    /// From base64 of 32 bytes.
    pub fn from_base64(encoded: &SecretString) -> Result<Self, SealError> {
        let bytes = STANDARD
            .decode(encoded.expose_secret().trim())
            .map_err(|_| SealError::Key)?;
        let sealing = Cipher::new(&bytes)?;
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
        Ok(format!("{PREFIX}{}", self.sealing.seal(owner, secret)?))
    }

    /// Opens what [`SecretKey::seal`] made for the same owner.
    pub(crate) fn open(&self, owner: &str, sealed: &str) -> Result<SecretString, SealError> {
        let sealed = sealed.strip_prefix(PREFIX).ok_or(SealError::Opening)?;
        self.sealing.open(owner, sealed)
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
