//! How far a file is imported, as it is stored.

use landfall_transfer::{Counts, Digest, Measure};
use serde::{Deserialize, Serialize};

use crate::format::Compression;
use crate::identity::RunningHash;
use crate::problem::FileProblem;
use crate::records::Place;
use crate::segments::Base;

/// The newest version that this code reads. It writes the oldest that holds what is to be said, so that a release that was taken back
/// can go on with as many files as possible.
const VERSION: u32 = 4;

/// Everything that a later slice needs to go on where an earlier one stopped. Stored as text: [`Checkpoint::encode`], [`Checkpoint::decode`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Decompressed bytes that are done with: up to the end of the last committed record.
    pub offset: u64,
    /// Records cut so far; the next one has this number plus 1.
    pub record_number: u64,
    /// How the file is read, once that is decided. Decided once: a later slice doesn't see the file's first bytes any more.
    pub reading: Option<Reading>,
    /// Names of the columns, once they are read from a file of rows; else empty.
    pub columns: Vec<String>,
    /// How far a raw file is, once it is begun.
    pub raw: Option<RawProgress>,
    /// The stored bytes that are hashed; of a raw file none, whose own hash serves. They reach to where bytes were read ahead, so at least to
    /// where a later slice begins to read.
    pub hashed: Hashed,
    /// What became of the records so far; while the file is read once more, what became of them the first time.
    pub counts: Counts,
    /// Where a re-run reads on in the segments of an earlier attempt, when these are too many to be held at once.
    pub base: Option<Base>,
    /// Set when the file was read to its end with records held: everything above but the counts tells how far it is read once more.
    pub second: Option<SecondPass>,
    /// Set when there is nothing more to read; the file is then finished, with a problem or without.
    pub ended: Option<Ended>,
}

/// The decided format of a file, and where in it the offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// How the file is compressed.
    pub compression: Compression,
    /// What the bytes at the offset belong to.
    pub place: Place,
}

/// How far a raw file is handed over, beside its offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawProgress {
    /// The hash of the bytes before the offset; while the file is compared, of those that are compared.
    pub hash: RunningHash,
    /// Bytes that are compared with what the chain has. Nothing is handed over meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<u64>,
    /// What the sink has to remember.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
}

/// A file that is read once more, because records of it were held and what they miss may have come since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondPass {
    /// What became of the records so far, this time. It counts once all of them have been read.
    pub counts: Counts,
    /// Decompressed bytes that were read the first time: what is delivered now comes behind them.
    pub behind: u64,
    /// What the file measured the first time.
    #[serde(default, skip_serializing_if = "Measure::is_unknown")]
    pub measure: Measure,
}

impl SecondPass {
    /// What became of the file's records, all in all. `first` is what became of them the first time, when records that an earlier attempt had
    /// left in the target were told from those that this one put there.
    pub(crate) fn conclude(&self, first: Counts) -> Counts {
        let Counts {
            read,
            applied,
            unchanged,
            held,
            rejected,
        } = self.counts;
        let arrived = applied + unchanged;
        let unchanged = first.unchanged.min(arrived);
        Counts {
            read,
            applied: arrived - unchanged,
            unchanged,
            held,
            rejected,
        }
    }
}

/// The SHA-256 of a file's first stored bytes, and how many they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    bytes: u64,
    hash: RunningHash,
}

impl Hashed {
    const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes bytes that begin at `position` of the stored file. Those that it has are passed over: a slice begins to read before the place up to
    /// which the one before had read. Behind a gap, as a checkpoint of an older release leaves it, nothing is taken.
    pub(crate) fn take(&mut self, position: u64, bytes: &[u8]) {
        let Some(known) = self.bytes.checked_sub(position) else {
            return;
        };
        let new = usize::try_from(known)
            .ok()
            .and_then(|known| bytes.get(known..));
        if let Some(new) = new {
            self.hash.update(new);
            self.bytes += new.len() as u64;
        }
    }

    /// The digest of a stored file of this length, if all of it was taken.
    pub(crate) fn digest(&self, length: u64) -> Option<Digest> {
        (self.bytes == length).then(|| self.hash.clone().finish().into())
    }
}

/// How a file ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why it ended early, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<FileProblem>,
    /// What it measures, where it was read to its last byte.
    #[serde(default, skip_serializing_if = "Measure::is_unknown")]
    pub measure: Measure,
}

impl Ended {
    /// Ended early.
    pub fn because(problem: FileProblem) -> Self {
        Self {
            problem: Some(problem),
            measure: Measure::default(),
        }
    }
}

/// A stored checkpoint that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A newer version of this software wrote it. Nothing may go on from it but that version; starting over would apply records again.
    #[error("the checkpoint has version {found}, this program knows versions up to {VERSION}")]
    NewerVersion {
        /// The stored version.
        found: u32,
    },
    /// It is damaged; a retry can't help.
    #[error("the checkpoint can't be read")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Version 1; version 2, which has rows and their columns, and zstd; version 3, which has raw files; and version 4, which has second passes.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    offset: u64,
    record_number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reading: Option<Reading>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<RawProgress>,
    // Of no version: a release that doesn't know it leaves it out, and then the digest is not known.
    #[serde(default, skip_serializing_if = "Hashed::is_empty")]
    hashed: Hashed,
    counts: Counts,
    // Of no version: a release that doesn't know it applies more than it need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Base>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<SecondPass>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
}

impl Checkpoint {
    /// The checkpoint of a file that nobody has begun.
    pub fn start() -> Self {
        Self::default()
    }

    /// What became of the records that were read so far in the pass that is under way.
    pub(crate) fn counts_of_pass(&self) -> Counts {
        self.second
            .as_ref()
            .map_or(self.counts, |second| second.counts)
    }

    /// The same file from its beginning, to be read once more. `first` is what became of its records.
    pub(crate) fn read_again(first: Counts, behind: u64, measure: Measure) -> Self {
        Self {
            counts: first,
            second: Some(SecondPass {
                counts: Counts::default(),
                behind,
                measure,
            }),
            ..Self::default()
        }
    }

    /// The text to store; a few hundred bytes.
    pub fn encode(&self) -> String {
        let rows_or_zstd = self.reading.is_some_and(|reading| {
            reading.compression == Compression::Zstd
                || matches!(
                    reading.place,
                    Place::Header | Place::Row | Place::SkippingRow { .. }
                )
        });
        let stored = Stored {
            version: match (&self.second, &self.raw) {
                (Some(_), _) => 4,
                (None, Some(_)) => 3,
                (None, None) if rows_or_zstd => 2,
                (None, None) => 1,
            },
            offset: self.offset,
            record_number: self.record_number,
            reading: self.reading,
            columns: self.columns.clone(),
            raw: self.raw.clone(),
            hashed: self.hashed.clone(),
            counts: self.counts,
            base: self.base.clone(),
            second: self.second.clone(),
            ended: self.ended.clone(),
        };
        serde_json::to_string(&stored).expect("numbers and strings always serialise")
    }

    /// Reads a stored text. The version is looked at before anything else.
    pub fn decode(text: &str) -> Result<Self, CheckpointError> {
        let Version { version } = serde_json::from_str(text)?;
        if version > VERSION {
            return Err(CheckpointError::NewerVersion { found: version });
        }
        let stored: Stored = serde_json::from_str(text)?;
        Ok(Self {
            offset: stored.offset,
            record_number: stored.record_number,
            reading: stored.reading,
            columns: stored.columns,
            raw: stored.raw,
            hashed: stored.hashed,
            counts: stored.counts,
            base: stored.base,
            second: stored.second,
            ended: stored.ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::Quoting;
    use crate::identity::ContentHash;
    use crate::records::Nesting;

    fn in_mid_file() -> Checkpoint {
        Checkpoint {
            offset: 1_048_577,
            record_number: 4211,
            reading: Some(Reading {
                compression: Compression::Gzip,
                place: Place::SkippingElement {
                    nesting: Nesting {
                        depth: 2,
                        in_string: true,
                        escaped: false,
                        scalar: false,
                    },
                },
            }),
            counts: Counts {
                read: 4211,
                applied: 4200,
                unchanged: 3,
                held: 2,
                rejected: 6,
            },
            ..Checkpoint::default()
        }
    }

    fn in_a_row() -> Checkpoint {
        Checkpoint {
            offset: 99,
            record_number: 3,
            reading: Some(Reading {
                compression: Compression::Plain,
                place: Place::SkippingRow {
                    quoting: Quoting::QuoteSeen,
                },
            }),
            columns: vec!["id".to_owned(), "na\"me".to_owned()],
            ..Checkpoint::default()
        }
    }

    fn in_a_raw_file() -> Checkpoint {
        let mut hash = RunningHash::default();
        hash.update(b"abc");
        Checkpoint {
            offset: 2_097_152,
            raw: Some(RawProgress {
                hash,
                compared: None,
                upload: Some("an upload".to_owned()),
            }),
            ..Checkpoint::default()
        }
    }

    fn ended_early() -> Checkpoint {
        Checkpoint {
            offset: 77,
            record_number: 2,
            reading: Some(Reading {
                compression: Compression::Plain,
                place: Place::Separator,
            }),
            counts: Counts {
                read: 2,
                applied: 2,
                ..Counts::default()
            },
            ended: Some(Ended {
                problem: Some(FileProblem::ArrayCutShort { offset: 77 }),
                ..Ended::default()
            }),
            ..Checkpoint::default()
        }
    }

    fn read_again() -> Checkpoint {
        let first = in_mid_file().counts;
        Checkpoint::read_again(
            first,
            1_048_577,
            ended_and_measured().ended.unwrap().measure,
        )
    }

    fn in_the_second_pass() -> Checkpoint {
        let counts = Counts {
            read: 2,
            applied: 1,
            unchanged: 1,
            ..Counts::default()
        };
        let again = read_again();
        Checkpoint {
            offset: 77,
            record_number: 2,
            reading: ended_early().reading,
            second: again.second.map(|second| SecondPass { counts, ..second }),
            ..again
        }
    }

    fn hashed() -> Hashed {
        let mut hashed = Hashed::default();
        hashed.take(0, b"abc");
        hashed
    }

    fn in_a_hashed_file() -> Checkpoint {
        Checkpoint {
            hashed: hashed(),
            ..ended_early()
        }
    }

    fn ended_and_measured() -> Checkpoint {
        Checkpoint {
            ended: Some(Ended {
                problem: None,
                measure: Measure {
                    bytes: Some(3),
                    sha256: hashed().digest(3),
                },
            }),
            ..ended_early()
        }
    }

    #[test]
    fn versions_are_written_as_the_golden_files_say() {
        assert_eq!(
            in_a_row().encode(),
            include_str!("checkpoint/v2-row.json").trim_end()
        );
        assert_eq!(
            in_a_raw_file().encode(),
            include_str!("checkpoint/v3-raw.json").trim_end()
        );
        assert_eq!(
            in_mid_file().encode(),
            include_str!("checkpoint/v1-mid-file.json").trim_end()
        );
        assert_eq!(
            ended_early().encode(),
            include_str!("checkpoint/v1-ended-early.json").trim_end()
        );
        assert_eq!(
            in_a_hashed_file().encode(),
            include_str!("checkpoint/v1-hashed.json").trim_end()
        );
        assert_eq!(
            ended_and_measured().encode(),
            include_str!("checkpoint/v1-measured.json").trim_end()
        );
        assert_eq!(
            read_again().encode(),
            include_str!("checkpoint/v4-read-again.json").trim_end()
        );
        assert_eq!(
            in_the_second_pass().encode(),
            include_str!("checkpoint/v4-second-pass.json").trim_end()
        );
        assert_eq!(
            Checkpoint::start().encode(),
            include_str!("checkpoint/v1-start.json").trim_end()
        );
    }

    #[test]
    fn versions_are_read_back_from_the_golden_files() {
        for (golden, expected) in [
            (include_str!("checkpoint/v2-row.json"), in_a_row()),
            (include_str!("checkpoint/v3-raw.json"), in_a_raw_file()),
            (include_str!("checkpoint/v1-mid-file.json"), in_mid_file()),
            (include_str!("checkpoint/v4-read-again.json"), read_again()),
            (
                include_str!("checkpoint/v4-second-pass.json"),
                in_the_second_pass(),
            ),
            (
                include_str!("checkpoint/v1-ended-early.json"),
                ended_early(),
            ),
            (
                include_str!("checkpoint/v1-hashed.json"),
                in_a_hashed_file(),
            ),
            (
                include_str!("checkpoint/v1-measured.json"),
                ended_and_measured(),
            ),
            (
                include_str!("checkpoint/v1-start.json"),
                Checkpoint::start(),
            ),
        ] {
            assert_eq!(Checkpoint::decode(golden).unwrap(), expected);
        }
    }

    #[test]
    fn a_newer_version_is_refused_whatever_else_it_holds() {
        let error = Checkpoint::decode(r#"{"version":5,"segments":[]}"#).unwrap_err();
        assert!(
            matches!(error, CheckpointError::NewerVersion { found: 5 }),
            "{error}"
        );
    }

    #[test]
    fn what_a_second_pass_comes_to_balances_and_keeps_what_the_first_one_found_unchanged() {
        let counts = |applied, unchanged, held, rejected| Counts {
            read: applied + unchanged + held + rejected,
            applied,
            unchanged,
            held,
            rejected,
        };
        for (first, second, whole) in [
            // What the first pass applied is there when the second looks.
            (counts(7, 0, 3, 0), counts(2, 7, 1, 0), counts(9, 0, 1, 0)),
            (counts(3, 4, 3, 0), counts(2, 7, 1, 0), counts(5, 4, 1, 0)),
            (counts(0, 8, 1, 1), counts(0, 6, 2, 2), counts(0, 6, 2, 2)),
            // The store gave another file.
            (counts(0, 8, 2, 0), counts(1, 2, 0, 0), counts(0, 3, 0, 0)),
        ] {
            let again = SecondPass {
                counts: second,
                ..SecondPass::default()
            };
            assert_eq!(again.conclude(first), whole);
            assert!(whole.balances());
        }
    }

    #[test]
    fn each_byte_is_hashed_once_whatever_is_read_again() {
        let content: Vec<u8> = (0..=255).collect();
        let whole = Some(ContentHash::of(&content).into());
        for (first, again) in [
            (0, 0),
            (100, 0),
            (100, 40),
            (100, 100),
            (256, 10),
            (256, 256),
        ] {
            for chunk in [1, 50, 64, 300] {
                let mut hashed = Hashed::default();
                hashed.take(0, &content[..first]);
                let mut position = again;
                for chunk in content[again..].chunks(chunk) {
                    hashed.take(position as u64, chunk);
                    position += chunk.len();
                }
                assert_eq!(hashed.digest(256), whole, "{first} {again} {chunk}");
                assert_eq!(hashed.digest(255), None);
                assert_eq!(hashed.digest(257), None);
            }
        }
    }

    #[test]
    fn behind_a_gap_no_digest_is_known_until_the_file_is_read_from_its_beginning() {
        let mut hashed = Hashed::default();
        hashed.take(2, b"cd");
        assert!(hashed.is_empty() && hashed.digest(4).is_none());
        hashed.take(0, b"abcd");
        assert_eq!(hashed.digest(4), Some(ContentHash::of(b"abcd").into()));
        hashed.take(6, b"gh");
        assert_eq!(hashed.digest(8), None);
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_and_not_a_fresh_start() {
        for text in [
            "",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":1,"offset":-1,"record_number":0,"counts":{}}"#,
        ] {
            assert!(
                matches!(Checkpoint::decode(text), Err(CheckpointError::Malformed(_))),
                "{text}"
            );
        }
    }
}
