//! Which mappings a transfer used, packed to be kept with it: the platform forgets those of users and groups after 14 days (PROTOCOL.md 8).

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The most text in one piece before it is packed, in bytes; text that can't be packed at all stays below an item's 400 KB (AWS `DynamoDB` limits).
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// Quotes, colon and comma around a key and its cloud id.
const AROUND: usize = 6;

/// The largest piece that is unpacked, in bytes. Escapes can make six bytes of one.
const UNPACKED_BYTES: u64 = 8 * 1024 * 1024;

/// Mappings that were used: what the platform said of each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedMappings {
    version: u32,
    /// By namespace and key: the cloud id, or none where there was no mapping.
    pub mappings: BTreeMap<String, BTreeMap<String, Option<String>>>,
}

/// A piece of used mappings can't be read: it is damaged, or of a newer release.
#[derive(Debug, thiserror::Error)]
#[error("used mappings can't be read: {0}")]
pub struct UnreadableMappings(String);

impl Default for UsedMappings {
    fn default() -> Self {
        Self {
            version: VERSION,
            mappings: BTreeMap::new(),
        }
    }
}

impl UsedMappings {
    /// Packed, to be stored.
    pub(crate) fn pack(&self) -> io::Result<Vec<u8>> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(&serde_json::to_vec(self)?)?;
        packer.finish()
    }

    /// Reads what was stored.
    pub fn unpack(packed: &[u8]) -> Result<Self, UnreadableMappings> {
        let mut json = Vec::new();
        GzDecoder::new(packed)
            .take(UNPACKED_BYTES)
            .read_to_end(&mut json)
            .map_err(|error| UnreadableMappings(error.to_string()))?;
        // An error of the parser could quote a key.
        let used: Self = serde_json::from_slice(&json)
            .map_err(|_| UnreadableMappings("not what was stored".to_owned()))?;
        if used.version == VERSION {
            Ok(used)
        } else {
            Err(UnreadableMappings(format!("version {}", used.version)))
        }
    }
}

/// Collects what is used until it is taken to be kept.
#[derive(Debug, Default)]
pub(super) struct Collected {
    used: UsedMappings,
    bytes: usize,
    full: Vec<UsedMappings>,
}

impl Collected {
    pub(super) fn add(&mut self, namespace: &str, key: &str, cloud_id: Option<&str>) {
        let bytes = key.len() + cloud_id.map_or(0, str::len) + AROUND;
        if self.bytes + bytes > PIECE_BYTES {
            self.full.push(std::mem::take(&mut self.used));
            self.bytes = 0;
        }
        self.bytes += bytes;
        let mappings = &mut self.used.mappings;
        if !mappings.contains_key(namespace) {
            mappings.insert(namespace.to_owned(), BTreeMap::new());
        }
        if let Some(keys) = mappings.get_mut(namespace) {
            keys.insert(key.to_owned(), cloud_id.map(str::to_owned));
        }
    }

    /// Pieces that are full; with `all` also the one that isn't.
    pub(super) fn take(&mut self, all: bool) -> Vec<UsedMappings> {
        let mut taken = std::mem::take(&mut self.full);
        if all && !self.used.mappings.is_empty() {
            taken.push(std::mem::take(&mut self.used));
            self.bytes = 0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_comes_back_as_it_was() {
        let mut collected = Collected::default();
        collected.add("identity:user", "email/é\"@example.com", Some("5b10"));
        collected.add("identity:user", "email/nobody", None);
        collected.add("jira:issue", "1", Some("2"));
        let [used] = collected.take(true).try_into().unwrap();
        assert_eq!(used.mappings["identity:user"]["email/nobody"], None);
        assert_eq!(used.mappings["jira:issue"]["1"].as_deref(), Some("2"));
        assert_eq!(UsedMappings::unpack(&used.pack().unwrap()).unwrap(), used);
        assert!(collected.take(true).is_empty(), "each is taken once");
    }

    #[test]
    fn the_form_of_a_piece_is_what_later_releases_read() {
        let json =
            r#"{"version":1,"mappings":{"identity:user":{"email/a":"5b10","email/b":null}}}"#;
        let used: UsedMappings = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&used).unwrap(), json);
        let newer = UsedMappings { version: 2, ..used };
        let refused = UsedMappings::unpack(&newer.pack().unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "used mappings can't be read: version 2"
        );
        assert!(UsedMappings::unpack(b"no gzip").is_err());
    }

    #[test]
    fn no_piece_is_larger_than_an_item_may_be_and_none_is_lost() {
        let mut collected = Collected::default();
        // Digests don't repeat, so they are hardly packed.
        let text = |number: u32| crate::ContentHash::of(&number.to_be_bytes()).to_string();
        for number in 0..10_000 {
            collected.add("identity:user", &text(number), Some(&text(number + 10_000)));
        }
        let full = collected.take(false);
        let rest = collected.take(true);
        assert_eq!((full.len(), rest.len()), (5, 1));
        let mut keys = 0;
        for used in full.iter().chain(&rest) {
            assert!(used.pack().unwrap().len() < 300_000);
            keys += used.mappings["identity:user"].len();
        }
        assert_eq!(keys, 10_000);
    }
}
