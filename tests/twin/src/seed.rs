//! Everything that looks random comes from here, so that one seed gives one run.

use aws_lc_rs::digest::{SHA256, digest};

/// The `SplitMix64` generator: tiny, seekable by its seed, the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    state: u64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `limit`; 0 when `limit` is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            items.swap(last, other);
        }
    }
}

/// Spreads one number over all 64 bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A seed that depends on another seed and on words.
pub(crate) fn derive(seed: u64, words: &[&str]) -> u64 {
    let bytes = hash(seed, words);
    u64::from_be_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

/// 32 bytes that depend on a seed and on words.
pub(crate) fn hash(seed: u64, words: &[&str]) -> [u8; 32] {
    let mut input = seed.to_be_bytes().to_vec();
    for word in words {
        input.extend_from_slice(&(word.len() as u64).to_be_bytes());
        input.extend_from_slice(word.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &input).as_ref());
    bytes
}

/// A version 4 UUID made from a seed and words.
pub(crate) fn uuid(seed: u64, words: &[&str]) -> String {
    let bytes = hash(seed, words);
    uuid_of(&bytes)
}

/// The first 16 bytes in the shape of a version 4 UUID.
pub(crate) fn uuid_of(bytes: &[u8; 32]) -> String {
    let mut id = [0_u8; 16];
    id.copy_from_slice(&bytes[..16]);
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    let text = hex::encode(id);
    format!(
        "{}-{}-{}-{}-{}",
        &text[0..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..32]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let mut first = Generator::new(1);
        let mut again = Generator::new(1);
        let mut other = Generator::new(2);
        let sequence: Vec<u64> = (0..4).map(|_| first.next()).collect();
        assert_eq!(sequence, (0..4).map(|_| again.next()).collect::<Vec<_>>());
        assert_ne!(sequence, (0..4).map(|_| other.next()).collect::<Vec<_>>());
    }

    #[test]
    fn a_uuid_is_of_version_4_and_depends_on_its_words() {
        let id = uuid(1, &["transfer", "0"]);
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert_ne!(id, uuid(1, &["transfer0"]));
    }
}
