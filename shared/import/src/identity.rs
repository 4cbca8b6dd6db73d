//! Who a record is (its key) and what it says (its content hash).

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::slice;

use crate::json::text;
use aws_lc_rs::digest::{Context, SHA256};
use landfall_transfer::Digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::block_api::compress256;
use sha2::digest::common::hazmat::SerializableState as _;

/// The longest record key, in bytes: a `DynamoDB` sort key holds 1024.
pub const KEY_BYTES: usize = 1024;

/// The longest reason of a rejection, in bytes.
pub const REASON_BYTES: usize = 512;

/// How many bytes of a key are kept in place: a hash in hexadecimal fits.
const KEPT_IN_PLACE: usize = 64;

/// A record's identity within chain and label: its natural key, or the hash of its source bytes in hexadecimal. It is used as a text.
///
/// There is one for each record, so a short one needs no memory of its own.
#[derive(Clone)]
pub struct Key(Kept);

#[derive(Clone)]
enum Kept {
    Here {
        length: u8,
        bytes: [u8; KEPT_IN_PLACE],
    },
    Elsewhere(Box<str>),
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        let mut bytes = [0; KEPT_IN_PLACE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(here), Ok(length)) => {
                here.copy_from_slice(text.as_bytes());
                Self(Kept::Here { length, bytes })
            }
            _ => Self(Kept::Elsewhere(text.into())),
        }
    }
}

impl From<ContentHash> for Key {
    fn from(hash: ContentHash) -> Self {
        let mut bytes = [0; KEPT_IN_PLACE];
        for (digits, byte) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(hash.0) {
            // Arithmetic in the place of a table: the compiler does all digits together.
            *digits = [byte >> 4, byte & 15].map(|digit| {
                let above_nine = u8::from(digit > 9);
                digit + b'0' + above_nine * (b'a' - b'9' - 1)
            });
        }
        Self(Kept::Here { length: 64, bytes })
    }
}

impl Key {
    /// Its bytes, without the look whether they are a text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::Here { length, bytes } => &bytes[..usize::from(*length)],
            Kept::Elsewhere(text) => text.as_bytes(),
        }
    }
}

impl Key {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.as_bytes().len()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        str::to_owned(&key)
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("it is a copy of a text")
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, formatter)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

/// SHA-256 of a rewritten record. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hashes the bytes of a record.
    pub fn of(record: &[u8]) -> Self {
        Self(sha2::Sha256::digest(record).into())
    }

    /// Hashes each of some records, in their order.
    pub(crate) fn of_each<'records>(records: impl Iterator<Item = &'records [u8]>) -> Vec<Self> {
        let mut hashes = Vec::with_capacity(records.size_hint().1.unwrap_or_default());
        let mut records = records.fuse();
        while let Some(one) = records.next() {
            match records.next() {
                Some(other) => hashes.extend(two_hashes(one, other)),
                None => hashes.push(Self::of(one)),
            }
        }
        hashes
    }

    /// Takes a stored hash; `None` unless it has 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Takes a stored hash in hexadecimal; `None` unless it has 64 digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<ContentHash> for Digest {
    fn from(hash: ContentHash) -> Self {
        Self::new(hash.to_string()).expect("a hash is shown as 64 lower-case digits")
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The SHA-256 of two records, block by block in turn. Each step of a hash waits for the one before it, which leaves a processor that hashes by itself idle half of
/// the time; what two hashes do doesn't wait for each other.
fn two_hashes(one: &[u8], other: &[u8]) -> [ContentHash; 2] {
    let [one, other] = [one, other].map(Padded::new);
    let [mut first, mut second] = [BEFORE_THE_FIRST_BLOCK; 2];
    let together = one.blocks.len().min(other.blocks.len());
    for (one, other) in one.blocks.iter().zip(other.blocks) {
        compress256(&mut first, slice::from_ref(one));
        compress256(&mut second, slice::from_ref(other));
    }
    compress256(&mut first, &one.blocks[together..]);
    compress256(&mut second, &other.blocks[together..]);
    compress256(&mut first, one.end());
    compress256(&mut second, other.end());
    [first, second].map(|state| {
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        ContentHash(hash)
    })
}

/// What SHA-256 starts from (FIPS 180-4, 5.3.3).
const BEFORE_THE_FIRST_BLOCK: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A record as SHA-256 reads it: its whole blocks, and one or two that end with its length in bits (FIPS 180-4, 5.1.1).
struct Padded<'record> {
    blocks: &'record [[u8; 64]],
    end: [[u8; 64]; 2],
    /// How many blocks of the end count.
    end_blocks: usize,
}

impl<'record> Padded<'record> {
    fn new(record: &'record [u8]) -> Self {
        let (blocks, rest) = record.as_chunks();
        let mut end = [[0; 64]; 2];
        // Behind the rest come a bit that is set and the length.
        let end_blocks = (rest.len() + 1 + 8).div_ceil(64);
        let bytes = end.as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        bytes[64 * end_blocks - 8..64 * end_blocks]
            .copy_from_slice(&(8 * record.len() as u64).to_be_bytes());
        Self {
            blocks,
            end,
            end_blocks,
        }
    }

    fn end(&self) -> &[[u8; 64]] {
        &self.end[..self.end_blocks]
    }
}

/// A SHA-256 that a later slice goes on with: as text it is its state, in 210 hexadecimal digits.
#[derive(Clone, Debug, Default)]
pub struct RunningHash(sha2::Sha256);

impl RunningHash {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes that were taken.
    pub fn finish(self) -> ContentHash {
        ContentHash(self.0.finalize().into())
    }

    fn state(&self) -> String {
        hex::encode(self.0.serialize())
    }
}

impl PartialEq for RunningHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.serialize() == other.0.serialize()
    }
}

impl Eq for RunningHash {}

impl Serialize for RunningHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.state())
    }
}

impl<'de> Deserialize<'de> for RunningHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let state = hex::decode(text).ok();
        let state = state.and_then(|state| state.as_slice().try_into().ok());
        state
            .and_then(|state| sha2::Sha256::deserialize(&state).ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom("a hash's state is damaged"))
    }
}

/// The natural key of a record as text; `value` is the JSON that the declared pointer leads to. `Err` says why the record is rejected.
pub(crate) fn natural_key(pointer: &str, value: Option<&str>) -> Result<Key, String> {
    let json = value.unwrap_or("null");
    let key = match json.as_bytes().first() {
        Some(b'"') => text(json).ok_or_else(|| {
            format!("the natural key at {pointer:?} is no text: half of a surrogate pair stands alone in it")
        })?,
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(json),
        Some(b'n') => {
            return Err(format!("the record has no natural key at {pointer:?}"));
        }
        _ => {
            return Err(format!(
                "the natural key at {pointer:?} is neither a string nor a number"
            ));
        }
    };
    match key.len() {
        0 => Err(format!("the natural key at {pointer:?} is empty")),
        1..=KEY_BYTES => Ok(Key::from(&*key)),
        _ => Err(format!(
            "the natural key at {pointer:?} is longer than {KEY_BYTES} bytes"
        )),
    }
}

/// A hash over parts that stays apart whatever the parts hold: each is preceded by its length.
pub(crate) struct PartsDigest(Context);

impl PartsDigest {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn part(mut self, part: &[u8]) -> Self {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn finish(self) -> String {
        hex::encode(self.0.finish())
    }
}

/// Cuts a reason to [`REASON_BYTES`] at a character's end.
pub(crate) fn bounded_reason(mut reason: String) -> String {
    if reason.len() > REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES - "…".len()));
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_or_a_number_is_a_natural_key_and_everything_else_a_reason() {
        fn of(value: Option<&str>) -> Result<String, String> {
            natural_key("/id", value).map(String::from)
        }
        assert_eq!(of(Some(r#""a b""#)).unwrap(), "a b");
        assert_eq!(of(Some(r#""a\u0020b""#)).unwrap(), "a b");
        assert_eq!(of(Some("12")).unwrap(), "12");
        assert_eq!(of(Some("1.10")).unwrap(), "1.10");
        for absent in [None, Some("null")] {
            assert_eq!(
                of(absent).unwrap_err(),
                "the record has no natural key at \"/id\""
            );
        }
        assert_eq!(
            of(Some(r#""""#)).unwrap_err(),
            "the natural key at \"/id\" is empty"
        );
        for other in ["[1]", "{}", "true"] {
            assert_eq!(
                of(Some(other)).unwrap_err(),
                "the natural key at \"/id\" is neither a string nor a number"
            );
        }
        assert!(of(Some(r#""\ud800""#)).is_err());
        let long = |length| format!("\"{}\"", "x".repeat(length));
        assert!(of(Some(&long(KEY_BYTES))).is_ok());
        assert_eq!(
            of(Some(&long(KEY_BYTES + 1))).unwrap_err(),
            "the natural key at \"/id\" is longer than 1024 bytes"
        );
    }

    #[test]
    fn a_key_is_its_text_however_long_it_is() {
        for length in [
            0,
            1,
            KEPT_IN_PLACE - 1,
            KEPT_IN_PLACE,
            KEPT_IN_PLACE + 1,
            KEY_BYTES,
        ] {
            let text = "k".repeat(length);
            let key = Key::from(&*text);
            assert_eq!((&*key, key.to_string()), (&*text, text.clone()));
            assert_eq!(key, key.clone());
            assert!(length == 0 || key < Key::from("l") && key > Key::from(&text[1..]));
        }
        let hash = ContentHash::of(b"abc");
        assert_eq!(Key::from(hash).to_string(), hash.to_string());
    }

    #[test]
    fn hashes_that_are_made_two_at_a_time_are_those_of_each_record() {
        let bytes: Vec<u8> = (0..=255).cycle().take(400).collect();
        let lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 307, 400];
        for one in lengths {
            for other in lengths {
                let records = [&bytes[..one], &bytes[400 - other..], &bytes[..other]];
                for count in 0..=records.len() {
                    let records = &records[..count];
                    let each: Vec<ContentHash> = records
                        .iter()
                        .map(|record| ContentHash::of(record))
                        .collect();
                    assert_eq!(
                        ContentHash::of_each(records.iter().copied()),
                        each,
                        "{one} {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_hash_is_read_back_from_each_of_its_forms() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(
            hash.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(ContentHash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(ContentHash::from_bytes(hash.as_bytes()), Some(hash));
    }

    #[test]
    fn a_hash_goes_on_where_its_text_stands_whatever_was_taken_in_before() {
        let content: Vec<u8> = (0..=255_u8).collect();
        for cut in [0, 1, 63, 64, 65, 256] {
            let mut hash = RunningHash::default();
            hash.update(&content[..cut]);
            let text = serde_json::to_string(&hash).unwrap();
            let mut resumed: RunningHash = serde_json::from_str(&text).unwrap();
            assert_eq!(resumed, hash);
            resumed.update(&content[cut..]);
            assert_eq!(resumed.finish(), ContentHash::of(&content));
        }
        for text in ["\"\"", "\"00\"", "\"zz\"", "1"] {
            assert!(serde_json::from_str::<RunningHash>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_a_digest_do_not_run_together() {
        let digest = |parts: &[&[u8]]| {
            parts
                .iter()
                .fold(PartsDigest::new(), |digest, part| digest.part(part))
                .finish()
        };
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"ab", b"c"]), digest(&[b"ab", b"c"]));
    }

    #[test]
    fn a_reason_is_cut_at_a_characters_end() {
        let reason = bounded_reason("é".repeat(400));
        assert!(reason.len() <= REASON_BYTES);
        assert!(reason.ends_with("é…"));
        assert_eq!(bounded_reason("short".to_owned()), "short");
    }
}
