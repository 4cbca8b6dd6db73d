//! The packed half of the ledger: which records are in the target, nine bytes each, a thousand to a row; and what an attempt knows from
//! them of those before it.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::identity::ContentHash;
use crate::ports::{Ledger, LedgerUnavailable};

/// Records of one segment. At nine bytes each they fill, with their row's key, ten of `DynamoDB`'s write units: less than one for each
/// hundred records.
pub(crate) const SEGMENT_RECORDS: usize = 1_100;

/// The most fingerprints that are held in memory at once for each half of [`Known`]; some 20 MB.
const HELD_MAX: usize = 500_000;

/// What a record says, in nine bytes: who it is, and what its content is.
///
/// A record that changed is taken for its earlier self once in 2⁴⁰. Two keys that are taken for one cost a delivery, no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// CRC-32 of the key.
    key: u32,
    /// The first five bytes of the content hash.
    content: u64,
}

/// Bytes of a packed fingerprint.
const PACKED: usize = 9;

impl Fingerprint {
    /// The fingerprint of a record.
    pub fn of(key: impl AsRef<[u8]>, content: &ContentHash) -> Self {
        let mut first = [0; 8];
        first[3..].copy_from_slice(&content.as_bytes()[..5]);
        Self {
            key: crc32fast::hash(key.as_ref()),
            content: u64::from_be_bytes(first),
        }
    }

    /// Differs only for keys that differ.
    pub(crate) const fn key(&self) -> u32 {
        self.key
    }

    /// Fingerprints as they are stored.
    pub fn pack(fingerprints: &[Self]) -> Vec<u8> {
        let mut packed = Vec::with_capacity(fingerprints.len() * PACKED);
        for fingerprint in fingerprints {
            packed.extend(fingerprint.key.to_be_bytes());
            packed.extend(&fingerprint.content.to_be_bytes()[3..]);
        }
        packed
    }

    /// Stored fingerprints; none when these bytes can't be any.
    pub fn unpack(packed: &[u8]) -> Option<Vec<Self>> {
        let (each, rest) = packed.as_chunks::<PACKED>();
        rest.is_empty().then(|| {
            each.iter()
                .map(|&[a, b, c, d, e, f, g, h, i]| Self {
                    key: u32::from_be_bytes([a, b, c, d]),
                    content: u64::from_be_bytes([0, 0, 0, e, f, g, h, i]),
                })
                .collect()
        })
    }
}

/// A stretch of consecutive records of a file, and which of them are in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Whether it was read in the file's second pass. Its segments stand beside those of the first, and are given back behind them.
    pub second_pass: bool,
    /// Number of its first record, from 1. A segment replaces an earlier one of the same attempt, file and pass with the same first record.
    pub first_record: u64,
    /// Number of its last record.
    pub last_record: u64,
    /// Those that this attempt applied or found there, in the order of the file. Records that an earlier attempt's segments show are
    /// left out: nothing is written of what stays as it was.
    pub landed: Vec<Fingerprint>,
}

/// Some of the segments of an attempt, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentPage {
    /// The segments.
    pub segments: Vec<KeptSegment>,
    /// Whether others follow.
    pub more: bool,
}

/// A segment, as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSegment {
    /// Its place among those of its attempt.
    pub place: String,
    /// Where it begins, when it is of the very file that is imported: one behind the checkpoint says what a worker delivered that died before
    /// it could commit it.
    pub own: Option<SegmentStart>,
    /// Which records it shows.
    pub landed: Vec<Fingerprint>,
}

/// Where a segment begins in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStart {
    /// Whether it is of the file's second pass.
    pub second_pass: bool,
    /// The number of its first record.
    pub first_record: u64,
}

impl SegmentStart {
    /// Whether what it shows is committed, as the checkpoint tells. Before a second pass begins the whole first one is.
    fn is_committed(self, checkpoint: &Checkpoint) -> bool {
        let in_second_pass = checkpoint.second.is_some();
        if self.second_pass == in_second_pass {
            self.first_record <= checkpoint.record_number
        } else {
            in_second_pass
        }
    }
}

/// Where the segments of an attempt are read on that are too many to be held at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The attempt.
    pub attempt: String,
    /// The place after which to read; none is the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What the chain has already, as far as its segments tell and memory allows. Whatever it doesn't know is applied again, which is safe.
///
/// The newest attempt that says something of a key is right. So attempts are read from the newest on, until one is found that is too
/// large to be held: that one is read along with the file, through a window that moves on with the records that are found in it, and older
/// ones are left aside.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By key, what the newer attempts and this one left in the target.
    newer: HashMap<u32, u64>,
    window: Option<Window>,
    /// Too much was applied to remember it: nothing counts as known any more.
    overflowed: bool,
}

/// The part of a large attempt that is held.
#[derive(Debug)]
struct Window {
    attempt: String,
    /// The place before the first segment that is held.
    before: Option<String>,
    segments: VecDeque<(String, Vec<Fingerprint>)>,
    /// The number of the first of them, counted over all that were held.
    first: u64,
    /// By key: the content, and the number of the segment that says so.
    contents: HashMap<u32, (u64, u64)>,
    held: usize,
    more: bool,
    /// The furthest segment in which a record was found.
    reached: u64,
}

impl Known {
    /// Reads what the attempts of the chain have landed, this one as far as the file's checkpoint.
    pub(crate) async fn load<L: Ledger>(
        ledger: &L,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LedgerUnavailable> {
        Self::of(ledger.attempts().await?, ledger, checkpoint).await
    }

    /// The same of this attempt alone.
    pub(crate) async fn load_own<L: Ledger>(
        ledger: &L,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LedgerUnavailable> {
        let own = ledger.attempts().await?.pop();
        Self::of(own.into_iter().collect(), ledger, checkpoint).await
    }

    async fn of<L: Ledger>(
        attempts: Vec<String>,
        ledger: &L,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LedgerUnavailable> {
        let base = checkpoint.base.as_ref();
        let mut known = Self::default();
        for attempt in attempts.into_iter().rev() {
            let mut after = None;
            let mut loaded = HashMap::new();
            let mut is_large = false;
            if let Some(base) = base.filter(|base| base.attempt == attempt) {
                (after, is_large) = (base.after.clone(), true);
            }
            let mut place = after.clone();
            while !is_large {
                let page = ledger.segments(&attempt, place.as_deref()).await?;
                place = page.segments.last().map(|kept| kept.place.clone());
                let committed =
                    |kept: &&KeptSegment| kept.own.is_none_or(|own| own.is_committed(checkpoint));
                let committed = page.segments.iter().filter(committed);
                for fingerprint in committed.flat_map(|kept| &kept.landed) {
                    loaded.insert(fingerprint.key, fingerprint.content);
                }
                is_large = known.newer.len() + loaded.len() > HELD_MAX;
                if !page.more {
                    break;
                }
            }
            if is_large {
                let mut window = Window::new(attempt, after);
                window.fill(ledger).await?;
                known.window = Some(window);
                break;
            }
            for (key, content) in loaded {
                known.newer.entry(key).or_insert(content);
            }
        }
        Ok(known)
    }

    /// Whether the target has this record with this content.
    pub(crate) fn has(&mut self, fingerprint: Fingerprint) -> bool {
        if self.overflowed {
            return false;
        }
        match (self.newer.get(&fingerprint.key), &mut self.window) {
            (Some(content), _) => *content == fingerprint.content,
            (None, Some(window)) => window.has(fingerprint),
            (None, None) => false,
        }
    }

    /// Whether the target may have a record of this key.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        let key = crc32fast::hash(key.as_bytes());
        let in_window = |window: &Window| window.contents.contains_key(&key);
        self.newer.contains_key(&key) || self.window.as_ref().is_some_and(in_window)
    }

    /// Remembers what this attempt left in the target in the place of what an earlier one did.
    pub(crate) fn landed(&mut self, fingerprint: Fingerprint) {
        // Without a window every key that anybody landed before is here: a new one need not be remembered.
        if self.window.is_some() || self.newer.contains_key(&fingerprint.key) {
            self.newer.insert(fingerprint.key, fingerprint.content);
            self.overflowed |= self.newer.len() > 2 * HELD_MAX;
        }
    }

    /// Moves the window on when most of it lies behind.
    pub(crate) async fn move_on<L: Ledger>(&mut self, ledger: &L) -> Result<(), LedgerUnavailable> {
        match &mut self.window {
            Some(window) => window.move_on(ledger).await,
            None => Ok(()),
        }
    }

    /// Where a later slice reads on, to be kept with the checkpoint.
    pub(crate) fn base(&self) -> Option<Base> {
        self.window.as_ref().map(|window| Base {
            attempt: window.attempt.clone(),
            after: window.before.clone(),
        })
    }
}

impl Window {
    fn new(attempt: String, before: Option<String>) -> Self {
        Self {
            attempt,
            before,
            segments: VecDeque::new(),
            first: 0,
            contents: HashMap::new(),
            held: 0,
            more: true,
            reached: 0,
        }
    }

    fn has(&mut self, fingerprint: Fingerprint) -> bool {
        match self.contents.get(&fingerprint.key) {
            Some(&(content, segment)) if content == fingerprint.content => {
                self.reached = self.reached.max(segment);
                true
            }
            _ => false,
        }
    }

    async fn fill<L: Ledger>(&mut self, ledger: &L) -> Result<(), LedgerUnavailable> {
        while self.more && self.held < HELD_MAX {
            let after = self.segments.back().map(|(place, _)| place).cloned();
            let after = after.or_else(|| self.before.clone());
            let page = ledger.segments(&self.attempt, after.as_deref()).await?;
            self.more = page.more && !page.segments.is_empty();
            for KeptSegment { place, landed, .. } in page.segments {
                let number = self.first + self.segments.len() as u64;
                for fingerprint in &landed {
                    self.contents
                        .insert(fingerprint.key, (fingerprint.content, number));
                }
                self.held += landed.len();
                self.segments.push_back((place, landed));
            }
        }
        Ok(())
    }

    /// Keeps a quarter of the window behind what was reached, for records that moved back.
    async fn move_on<L: Ledger>(&mut self, ledger: &L) -> Result<(), LedgerUnavailable> {
        let behind = |window: &Self| -> usize {
            let segments = window.reached.saturating_sub(window.first);
            let segments = usize::try_from(segments).unwrap_or(usize::MAX);
            let of = |(_, landed): &(String, Vec<Fingerprint>)| landed.len();
            window.segments.iter().take(segments).map(of).sum()
        };
        if !self.more || behind(self) < HELD_MAX / 2 {
            return Ok(());
        }
        while behind(self) > HELD_MAX / 4 {
            let Some((place, landed)) = self.segments.pop_front() else {
                break;
            };
            for fingerprint in &landed {
                // A later segment may have said something newer of the key.
                if let Some((_, number)) = self.contents.get(&fingerprint.key)
                    && *number == self.first
                {
                    self.contents.remove(&fingerprint.key);
                }
            }
            self.held -= landed.len();
            self.before = Some(place);
            self.first += 1;
        }
        self.fill(ledger).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::ports::{Batch, CommitError, KeptMappings, RestartPoint};

    /// Attempts of which each has kept some segments.
    #[derive(Default)]
    struct Kept {
        attempts: Vec<Vec<Vec<Fingerprint>>>,
    }

    impl Ledger for Kept {
        async fn known(
            &self,
            _: &[String],
        ) -> Result<HashMap<String, ContentHash>, LedgerUnavailable> {
            unreachable!("segments are all that is asked for")
        }

        async fn check_fence(&self) -> Result<(), CommitError> {
            Ok(())
        }

        async fn commit(&self, _: Batch) -> Result<(), CommitError> {
            Ok(())
        }

        async fn keep_segment(&self, _: Segment) -> Result<(), CommitError> {
            Ok(())
        }

        async fn attempts(&self) -> Result<Vec<String>, LedgerUnavailable> {
            let numbers = 0..self.attempts.len();
            Ok(numbers.map(|number| number.to_string()).collect())
        }

        async fn segments(
            &self,
            attempt: &str,
            after: Option<&str>,
        ) -> Result<SegmentPage, LedgerUnavailable> {
            let of_attempt = &self.attempts[attempt.parse::<usize>().unwrap()];
            let first = after.map_or(0, |after| after.parse::<usize>().unwrap() + 1);
            let segments = of_attempt.iter().enumerate().skip(first).take(100);
            Ok(SegmentPage {
                segments: segments
                    .map(|(place, landed)| KeptSegment {
                        place: place.to_string(),
                        own: None,
                        landed: landed.clone(),
                    })
                    .collect(),
                more: first + 100 < of_attempt.len(),
            })
        }

        async fn restart_point(&self) -> Result<Option<RestartPoint>, LedgerUnavailable> {
            Ok(None)
        }

        async fn keep_restart_point(&self, _: RestartPoint) {}

        async fn keep_mappings(&self, _: KeptMappings) {}
    }

    fn fingerprint(number: u32, content: u64) -> Fingerprint {
        Fingerprint {
            key: number,
            content,
        }
    }

    /// A thousand records a segment, all with this content.
    fn attempt(numbers: std::ops::Range<u32>, content: u64) -> Vec<Vec<Fingerprint>> {
        let all: Vec<_> = numbers.map(|number| fingerprint(number, content)).collect();
        all.chunks(1_000).map(<[_]>::to_vec).collect()
    }

    fn load(kept: &Kept, base: Option<Base>) -> Known {
        let checkpoint = Checkpoint {
            base,
            ..Checkpoint::default()
        };
        let loaded = Known::load(kept, &checkpoint);
        loaded.now_or_never().unwrap().unwrap()
    }

    #[test]
    fn a_fingerprint_is_nine_bytes_of_key_and_content_and_read_back() {
        let content = ContentHash::of(b"abc");
        let packed = Fingerprint::pack(&[Fingerprint::of("a", &content)]);
        // CRC-32 of "a", and the beginning of SHA-256 of "abc": what is stored already must stay readable.
        assert_eq!(hex::encode(&packed), "e8b7be43ba7816bf8f");
        let two = [Fingerprint::of("a", &content), fingerprint(7, 9)];
        let packed = Fingerprint::pack(&two);
        assert_eq!(Fingerprint::unpack(&packed).unwrap(), two);
        assert_eq!(Fingerprint::unpack(&packed[1..]), None);
        assert_eq!(Fingerprint::unpack(b""), Some(Vec::new()));
    }

    #[test]
    fn the_newest_attempt_that_says_something_of_a_key_is_right() {
        let kept = Kept {
            attempts: vec![
                attempt(0..10, 1),
                attempt(0..5, 2),
                Vec::new(),
                attempt(0..2, 3),
            ],
        };
        let mut known = load(&kept, None);
        for (number, content) in [(0, 3), (1, 3), (2, 2), (4, 2), (5, 1), (9, 1)] {
            for other in 1..4 {
                let found = known.has(fingerprint(number, other));
                assert_eq!(found, other == content, "{number} {other}");
            }
        }
        assert!(!known.has(fingerprint(10, 1)));
        known.landed(fingerprint(5, 7));
        assert!(known.has(fingerprint(5, 7)) && !known.has(fingerprint(5, 1)));
        assert_eq!(known.base(), None);
    }

    #[test]
    fn an_attempt_too_large_to_be_held_is_read_along_with_the_file() {
        let records = 1_500_000;
        let kept = Kept {
            attempts: vec![attempt(0..10, 9), attempt(0..records, 1), attempt(7..9, 2)],
        };
        let mut known = load(&kept, None);
        let mut bases = Vec::new();
        for number in 0..records {
            let content = if (7..9).contains(&number) { 2 } else { 1 };
            assert!(known.has(fingerprint(number, content)), "{number}");
            if number % 1_000 == 0 {
                known.move_on(&kept).now_or_never().unwrap().unwrap();
                let held = known.window.as_ref().unwrap();
                // A page is read at once.
                assert!(held.held <= HELD_MAX + 100_000 && held.contents.len() <= held.held);
                bases.push((number, known.base()));
            }
        }
        // A later slice goes on anywhere.
        for (number, base) in bases.into_iter().step_by(400) {
            assert!(base.as_ref().is_some_and(|base| base.attempt == "1"));
            let mut known = load(&kept, base);
            for number in number + 10..(number + 1_000).min(records) {
                assert!(known.has(fingerprint(number, 1)), "{number}");
            }
        }
    }

    #[test]
    fn what_was_applied_in_place_of_a_large_attempts_records_is_known_until_it_is_too_much() {
        let kept = Kept {
            attempts: vec![attempt(0..700_000, 1)],
        };
        let mut known = load(&kept, None);
        known.landed(fingerprint(3, 2));
        assert!(!known.has(fingerprint(3, 1)) && known.has(fingerprint(3, 2)));
        assert!(known.has(fingerprint(4, 1)));
        for number in 0..=2 * u32::try_from(HELD_MAX).unwrap() {
            known.landed(fingerprint(number, 2));
        }
        assert!(
            !known.has(fingerprint(4, 1)),
            "nothing is believed any more"
        );
        assert!(!known.has(fingerprint(4, 2)));
    }
}
