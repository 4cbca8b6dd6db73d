//! Turns the cut records of a batch into what can be handed over: parsed, identified, mapped, hashed; or rejected with a reason.

use std::collections::HashMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::gather::Gathered;
use super::staged::{self, Staged};
use super::{Job, Stop, Target};
use crate::declaration::BATCH_BYTES_MAX;
use crate::identity::{self, ContentHash, KEY_BYTES, Key, REASON_BYTES, bounded_reason};
use crate::mapping::{GROWTH_BYTES, Id, Unmapped};
use crate::pointers::Found;
use crate::ports::{
    COMMIT_BYTES, COMMIT_WRITES, LEDGER_RECORD_BYTES, Landed, Ledger, Mappings, Rejection,
    RejectionKind, Sink, Source,
};
use crate::segments::{Fingerprint, Known};

const _: () = assert!(
    BATCH_BYTES_MAX + COMMIT_WRITES * (GROWTH_BYTES + KEY_BYTES + REASON_BYTES) <= COMMIT_BYTES,
    "the largest batch, grown as far as records may, fits into one commit"
);

/// A batch whose ids are replaced.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// Each record that is one, none with followers yet.
    pub(super) records: Vec<PreparedRecord>,
    /// What is none, or misses a mapping.
    pub(super) rejections: Vec<Rejection>,
}

/// A batch's records that are to be handed over.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// What must reach the target, each key once.
    pub(super) records: Vec<PreparedRecord>,
    /// How many records the target has already.
    pub(super) known: u64,
}

/// A record to hand over.
#[derive(Debug)]
pub(super) struct PreparedRecord {
    pub(super) number: u64,
    pub(super) landed: Landed,
    /// What segments say of it.
    pub(super) fingerprint: Fingerprint,
    /// Earlier or equal records of the batch with the same key: what becomes of this one becomes of them.
    pub(super) followers: Vec<Follower>,
}

/// A record that shares its key with one that is handed over.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) number: u64,
    /// Whether it says the same; otherwise it was replaced.
    pub(super) identical: bool,
}

/// A record that is JSON and has its natural key, where one is declared.
struct Parsed<'batch> {
    number: u64,
    /// Without one, the hash of its source is its key.
    natural_key: Option<Key>,
    source: &'batch Bytes,
    /// Its ids, among those of the batch.
    ids: Range<usize>,
}

/// A record whose ids are replaced.
struct Written {
    number: u64,
    key: Key,
    record: Bytes,
    /// Its hash, where it is known: a record in which nothing is replaced is its source.
    hash: Option<ContentHash>,
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink> Job<'_, S, L, M, K> {
    pub(super) async fn rewritten(&self, gathered: &Gathered) -> Result<Rewritten, Stop> {
        let mut rejections = Vec::new();
        let opened;
        let staged = if self.file.import.staged {
            opened = staged::open(&gathered.cuts);
            Some(&*opened)
        } else {
            None
        };
        let (parsed, ids) = self.parse(gathered, staged, &mut rejections);
        let records = if ids.is_empty() {
            self.as_they_are(parsed, &mut rejections)
        } else {
            self.rewrite(parsed, &ids, &mut rejections).await?
        };
        Ok(Rewritten {
            records,
            rejections,
        })
    }

    /// Leaves out what the target has already, as far as segments tell, or the target's own rows where it is the ledger's.
    pub(super) async fn prepare(
        &self,
        records: Vec<PreparedRecord>,
        known: Option<&mut Known>,
    ) -> Result<Prepared, Stop> {
        let Some(known) = known else {
            let there = vec![false; records.len()];
            return Ok(without_repetitions(records, &there));
        };
        let fingerprints = records.iter().map(|record| record.fingerprint);
        let mut there: Vec<bool> = fingerprints.map(|record| known.has(record)).collect();
        if matches!(self.ports.target, Target::Ledger) && there.contains(&false) {
            let unknown = records.iter().zip(&there).filter(|(_, there)| !**there);
            let mut keys: Vec<String> = unknown
                .map(|(record, _)| record.landed.key.to_string())
                .collect();
            keys.sort_unstable();
            keys.dedup();
            let rows = self.ports.ledger.known(&keys).await?;
            for (record, there) in records.iter().zip(&mut there) {
                let row = rows.get(&*record.landed.key);
                *there |= row == Some(&record.landed.content_hash);
            }
        }
        Ok(without_repetitions(records, &there))
    }

    fn parse<'batch>(
        &self,
        gathered: &'batch Gathered,
        staged: Option<&'batch [Result<Staged, String>]>,
        rejections: &mut Vec<Rejection>,
    ) -> (Vec<Parsed<'batch>>, Vec<Id<'batch>>) {
        let mut parsed = Vec::with_capacity(gathered.cuts.len());
        let (mut found, mut ids) = (Vec::new(), Vec::new());
        if let Some(staged) = staged {
            for (number, record) in (gathered.records_before + 1..).zip(staged) {
                match record {
                    Ok(Staged { key, record }) => parsed.push(Parsed {
                        number,
                        natural_key: Some(key.clone()),
                        source: record,
                        ids: 0..0,
                    }),
                    Err(reason) => rejections.push(rejected(number, None, reason.clone())),
                }
            }
            return (parsed, ids);
        }
        for (number, cut) in (gathered.records_before + 1..).zip(&gathered.cuts) {
            let before = ids.len();
            let record = match cut {
                Ok(source) => self.read(number, source, &mut found, &mut ids),
                Err(reason) => Err(reason.clone()),
            };
            match record {
                Ok(record) => parsed.push(record),
                Err(reason) => {
                    ids.truncate(before);
                    rejections.push(rejected(number, None, reason));
                }
            }
        }
        (parsed, ids)
    }

    fn read<'batch>(
        &self,
        number: u64,
        source: &'batch Bytes,
        found: &mut Vec<Found<'batch>>,
        ids: &mut Vec<Id<'batch>>,
    ) -> Result<Parsed<'batch>, String> {
        let read = self.rewriter.read(source, found, ids)?;
        let pointer = self.file.import.natural_key.as_deref();
        let natural_key = pointer.map(|pointer| identity::natural_key(pointer, read.natural_key));
        Ok(Parsed {
            number,
            natural_key: natural_key.transpose()?,
            source,
            ids: read.ids,
        })
    }

    /// Records in which there is nothing to replace: each is its source.
    fn as_they_are(
        &self,
        parsed: Vec<Parsed<'_>>,
        rejections: &mut Vec<Rejection>,
    ) -> Vec<PreparedRecord> {
        let hashes = ContentHash::of_each(parsed.iter().map(|record| &**record.source));
        let mut prepared = Vec::with_capacity(parsed.len());
        for (record, content_hash) in parsed.into_iter().zip(hashes) {
            let key = record.natural_key.unwrap_or_else(|| content_hash.into());
            if let Err(reason) = self.check_size(record.source, record.source) {
                rejections.push(rejected(record.number, Some(key), reason));
                continue;
            }
            let landed = Landed {
                key,
                content_hash,
                record: record.source.clone(),
            };
            prepared.push(PreparedRecord::new(record.number, landed));
        }
        prepared
    }

    async fn rewrite(
        &self,
        parsed: Vec<Parsed<'_>>,
        ids: &[Id<'_>],
        rejections: &mut Vec<Rejection>,
    ) -> Result<Vec<PreparedRecord>, Stop> {
        let (rewriter, ports) = (&self.rewriter, self.ports);
        let answers = rewriter
            .look_up(ports.mappings, ports.mapping_cache, ids)
            .await?;
        let mut answers = &*answers;
        let without_key = parsed.iter().filter(|record| record.natural_key.is_none());
        let hashes = ContentHash::of_each(without_key.map(|record| &**record.source));
        let mut hashes = hashes.into_iter();
        // The records share one piece of memory, which most replaced ids don't make longer.
        let bytes = parsed.iter().map(|record| record.source.len()).sum();
        let mut room = BytesMut::with_capacity(bytes);
        let mut written = Vec::with_capacity(parsed.len());
        for Parsed {
            number,
            natural_key,
            source,
            ids: own,
        } in parsed
        {
            let hash = natural_key.is_none().then(|| hashes.next()).flatten();
            let key = natural_key.or(hash.map(Key::from));
            let key = key.expect("a record without a natural key has its source hashed");
            let own = &ids[own];
            let known = answers.split_off(..own.iter().map(Id::count).sum());
            let known = known.unwrap_or_default();
            let record = match rewriter.write(source, own, known, &mut room) {
                Ok(record) => record,
                Err(unmapped) => {
                    rejections.push(unmapped.into_rejection(number, key));
                    continue;
                }
            };
            if let Err(reason) = self.check_size(source, &record) {
                rejections.push(rejected(number, Some(key), reason));
                continue;
            }
            written.push(Written {
                number,
                key,
                hash: hash.filter(|_| record.as_ptr() == source.as_ptr()),
                record,
            });
        }
        Ok(hashed(written))
    }

    fn check_size(&self, source: &Bytes, record: &Bytes) -> Result<(), String> {
        if record.len() > source.len() + GROWTH_BYTES {
            return Err(format!(
                "the record grows by more than {GROWTH_BYTES} bytes when its ids are replaced"
            ));
        }
        if matches!(self.ports.target, Target::Ledger) && record.len() > LEDGER_RECORD_BYTES {
            return Err(format!(
                "the record is larger than {LEDGER_RECORD_BYTES} bytes, the most that the records table holds"
            ));
        }
        Ok(())
    }
}

impl Unmapped {
    fn into_rejection(self, record_number: u64, key: Key) -> Rejection {
        Rejection {
            record_number,
            kind: if self.held {
                RejectionKind::Held
            } else {
                RejectionKind::Rejected
            },
            key: Some(key.into()),
            namespace: Some(self.namespace),
            reason: bounded_reason(self.reason),
            cause: Some(self.cause),
        }
    }
}

/// Hashes what isn't hashed yet.
fn hashed(written: Vec<Written>) -> Vec<PreparedRecord> {
    let without_hash = written.iter().filter(|written| written.hash.is_none());
    let hashes = ContentHash::of_each(without_hash.map(|written| &*written.record));
    let mut hashes = hashes.into_iter();
    let prepared = written.into_iter().map(|written| {
        let content_hash = written.hash.or_else(|| hashes.next());
        let landed = Landed {
            key: written.key,
            content_hash: content_hash.expect("what had no hash is hashed"),
            record: written.record,
        };
        PreparedRecord::new(written.number, landed)
    });
    prepared.collect()
}

fn rejected(record_number: u64, key: Option<Key>, reason: String) -> Rejection {
    Rejection {
        record_number,
        kind: RejectionKind::Rejected,
        key: key.map(String::from),
        namespace: None,
        reason: bounded_reason(reason),
        cause: None,
    }
}

/// Leaves each key once, with its last content, as if the records had been applied one after the other. `there` says of each whether the target has it already.
fn without_repetitions(mut records: Vec<PreparedRecord>, there: &[bool]) -> Prepared {
    let read = records.len();
    if have_different_keys(&records) {
        let mut there = there.iter();
        records.retain(|_| there.next() == Some(&false));
        return Prepared {
            known: (read - records.len()) as u64,
            records,
        };
    }
    let mut prepared = Prepared::default();
    let mut places: HashMap<Key, usize> = HashMap::with_capacity(read);
    for (record, there) in records.into_iter().zip(there) {
        match places.get(&record.landed.key) {
            Some(&place) => prepared.records[place].take_over(record),
            None if *there => prepared.known += 1,
            None => {
                places.insert(record.landed.key.clone(), prepared.records.len());
                prepared.records.push(record);
            }
        }
    }
    prepared
}

/// Whether no two records have the same key, where their fingerprints tell: two that are taken for one cost a closer look.
fn have_different_keys(records: &[PreparedRecord]) -> bool {
    let key = |record: &PreparedRecord| record.fingerprint.key();
    // Their first bits nearly always tell, and no two need be compared for it.
    let mut seen = [0_u64; 1 << (SEEN_BITS - 6)];
    let is_first = |record: &PreparedRecord| {
        let bits = key(record) >> (u32::BITS - SEEN_BITS);
        let (word, bit) = (&mut seen[bits as usize / 64], 1 << (bits % 64));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    };
    records.iter().all(is_first)
        || records.iter().enumerate().all(|(number, record)| {
            let earlier = &records[..number];
            earlier.iter().all(|earlier| key(earlier) != key(record))
        })
}

/// How many bits of a key are looked at first: of a batch of ninety records all differ in them in eight of nine cases.
const SEEN_BITS: u32 = 15;

impl PreparedRecord {
    #[inline]
    fn new(number: u64, landed: Landed) -> Self {
        Self {
            number,
            fingerprint: Fingerprint::of(&landed.key, &landed.content_hash),
            landed,
            followers: Vec::new(),
        }
    }

    /// A later record with the same key.
    fn take_over(&mut self, later: Self) {
        let identical = self.landed.content_hash == later.landed.content_hash;
        if identical {
            self.followers.push(Follower {
                number: later.number,
                identical,
            });
            return;
        }
        for follower in &mut self.followers {
            follower.identical = false;
        }
        self.followers.push(Follower {
            number: self.number,
            identical,
        });
        (self.number, self.fingerprint, self.landed) =
            (later.number, later.fingerprint, later.landed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn record(number: u64, key: &str, content: &'static str) -> PreparedRecord {
        let record = Bytes::from_static(content.as_bytes());
        let landed = Landed {
            key: key.into(),
            content_hash: ContentHash::of(&record),
            record,
        };
        PreparedRecord::new(number, landed)
    }

    fn shown(prepared: &Prepared) -> Vec<String> {
        prepared
            .records
            .iter()
            .map(|record| {
                let followers: Vec<_> = record
                    .followers
                    .iter()
                    .map(|follower| {
                        format!(
                            "{}{}",
                            follower.number,
                            if follower.identical { "=" } else { "<" }
                        )
                    })
                    .collect();
                let content = String::from_utf8_lossy(&record.landed.record).into_owned();
                format!(
                    "{}#{}:{content} {}",
                    record.landed.key,
                    record.number,
                    followers.join(" ")
                )
                .trim_end()
                .to_owned()
            })
            .collect()
    }

    #[test]
    fn of_one_key_the_last_record_wins_and_the_others_follow_it() {
        let records = vec![
            record(1, "a", "x"),
            record(2, "b", "x"),
            record(3, "a", "x"),
            record(4, "a", "y"),
            record(5, "b", "x"),
        ];
        let prepared = without_repetitions(records, &[false; 5]);
        assert_eq!(shown(&prepared), ["a#4:y 3< 1<", "b#2:x 5="]);
    }

    #[test]
    fn keys_that_share_their_first_bits_are_told_apart_and_equal_ones_are_not() {
        let first_bits =
            |record: &PreparedRecord| record.fingerprint.key() >> (u32::BITS - SEEN_BITS);
        let mut records = Vec::new();
        let mut seen = HashSet::new();
        for number in 0.. {
            records.push(record(number, &format!("key-{number}"), "x"));
            if !seen.insert(first_bits(&records[records.len() - 1])) {
                break;
            }
        }
        assert!(have_different_keys(&records));
        records.push(record(0, "key-17", "y"));
        assert!(!have_different_keys(&records));
    }

    #[test]
    fn a_record_that_the_chain_has_is_not_handed_over_unless_it_changes() {
        let records = vec![
            record(1, "a", "x"),
            record(2, "b", "x"),
            record(3, "a", "y"),
            record(4, "a", "x"),
        ];
        let prepared = without_repetitions(records, &[true, false, false, true]);
        assert_eq!(prepared.known, 1);
        assert_eq!(shown(&prepared), ["b#2:x", "a#4:x 3<"]);
    }
}
