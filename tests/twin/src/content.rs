//! What the files of an export contain. Records have one fixed size, so that any byte can be computed from the seed without
//! the bytes before it: a range of a 25 GB file costs as much as its length.

use bytes::Bytes;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use crate::seed::{Generator, derive, mix};

/// Server ids of projects in generated records: this many from [`FIRST_PROJECT`] on.
pub(crate) const PROJECTS: u64 = 20;
/// The first server id of a project.
pub(crate) const FIRST_PROJECT: u64 = 10_000;
/// Users that write generated records.
pub(crate) const USERS: u64 = 200;
/// A user key with this word in it never has a mapping.
pub(crate) const UNMIGRATED: &str = "unmigrated";
/// The smallest record: room for the longest ids.
pub const SMALLEST_RECORD: u64 = 200;
/// The most records of one file that may be made bad or unmapped: their places are kept in memory.
pub const MOST_ODD_RECORDS: u64 = 1_000_000;

/// How a file holds its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum, Default)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Ndjson,
    /// One JSON array of objects.
    Json,
}

/// How generated records name their author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum, Default)]
#[serde(rename_all = "snake_case")]
pub enum AuthorKeys {
    /// As the mapping API wants it: `jira.userkey/JIRAUSER10100`.
    #[default]
    Prefixed,
    /// As it stands in a server's table: `JIRAUSER10100`.
    Plain,
}

/// Whose ids generated records carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum, Default)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// Jira: user keys such as `JIRAUSER10100`.
    #[default]
    Jira,
    /// Confluence: user keys of 32 hexadecimal digits.
    Confluence,
}

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jira => "jira",
            Self::Confluence => "confluence",
        }
    }
}

/// Everything that decides a generated file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// NDJSON or one array.
    pub format: Format,
    /// Number of records, bad ones included.
    pub records: u64,
    /// Exact bytes per record, separators included; at least [`SMALLEST_RECORD`].
    pub record_bytes: u64,
    /// Same seed, same bytes.
    pub seed: u64,
    /// The `id` of the first record; the others follow.
    pub first_id: u64,
    /// Records that can't be read, at seeded places.
    pub bad_records: u64,
    /// Records whose author has no mapping, at seeded places.
    pub missing_mappings: u64,
    /// How authors are named.
    pub author_keys: AuthorKeys,
    /// Whose ids the records carry.
    pub product: Product,
}

/// Why no file can be generated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    /// Ids and punctuation alone need more room.
    #[error("record_bytes is {0}, the smallest is {SMALLEST_RECORD}")]
    RecordTooSmall(u64),
    /// More odd records than records.
    #[error("bad_records and missing_mappings are {odd} together, the file has {records} records")]
    TooManyOdd {
        /// Bad and unmapped records wanted.
        odd: u64,
        /// Records of the file.
        records: u64,
    },
    /// Their places are kept in memory.
    #[error("bad_records and missing_mappings are {0} together, the limit is {MOST_ODD_RECORDS}")]
    OddLimit(u64),
    /// Such a file has more bytes than can be counted.
    #[error("the file would be larger than 2^63 bytes")]
    TooLarge,
}

/// A generated file, readable at any offset.
#[derive(Debug, Clone)]
pub struct Generated {
    shape: Shape,
    bad: Vec<u64>,
    unmapped: Vec<u64>,
}

const JSON_HEAD: &[u8] = b"[\n";

impl Generated {
    /// Checks the shape and draws the places of the odd records.
    pub fn new(shape: Shape) -> Result<Self, ShapeError> {
        if shape.record_bytes < SMALLEST_RECORD {
            return Err(ShapeError::RecordTooSmall(shape.record_bytes));
        }
        let size = shape.records.checked_mul(shape.record_bytes);
        if size.is_none_or(|size| size > u64::MAX / 2) {
            return Err(ShapeError::TooLarge);
        }
        let odd = shape.bad_records.saturating_add(shape.missing_mappings);
        if odd > shape.records {
            return Err(ShapeError::TooManyOdd {
                odd,
                records: shape.records,
            });
        }
        if odd > MOST_ODD_RECORDS {
            return Err(ShapeError::OddLimit(odd));
        }
        let mut places = distinct(shape.seed, shape.records, odd);
        let split = usize::try_from(shape.bad_records).unwrap_or(0);
        let mut unmapped = places.split_off(split);
        let mut bad = places;
        bad.sort_unstable();
        unmapped.sort_unstable();
        Ok(Self {
            shape,
            bad,
            unmapped,
        })
    }

    /// The file's exact size in bytes.
    pub fn size(&self) -> u64 {
        let records = self.shape.records * self.shape.record_bytes;
        match self.shape.format {
            Format::Ndjson => records,
            Format::Json if self.shape.records == 0 => 2,
            Format::Json => records + JSON_HEAD.len() as u64,
        }
    }

    /// The bytes from `offset` on, at most `most` of them; empty only at the end.
    pub fn read(&self, offset: u64, most: usize) -> Vec<u8> {
        let end = self.size().min(offset.saturating_add(most as u64));
        let mut bytes =
            Vec::with_capacity(usize::try_from(end.saturating_sub(offset)).unwrap_or(0));
        let mut at = offset;
        let head: &[u8] = match self.shape.format {
            Format::Ndjson => b"",
            Format::Json if self.shape.records == 0 => b"[]",
            Format::Json => JSON_HEAD,
        };
        while at < end {
            let head_bytes = head.len() as u64;
            if at < head_bytes {
                let from = usize::try_from(at).unwrap_or(0);
                let to = usize::try_from(end.min(head_bytes)).unwrap_or(0);
                bytes.extend_from_slice(&head[from..to]);
                at = to as u64;
                continue;
            }
            let index = (at - head_bytes) / self.shape.record_bytes;
            let start = head_bytes + index * self.shape.record_bytes;
            let record = self.record(index);
            let from = usize::try_from(at - start).unwrap_or(0);
            let to = usize::try_from((end - start).min(self.shape.record_bytes)).unwrap_or(0);
            bytes.extend_from_slice(&record[from..to]);
            at = start + to as u64;
        }
        bytes
    }

    /// One record with its separator, exactly `record_bytes` long.
    fn record(&self, index: u64) -> Vec<u8> {
        let shape = &self.shape;
        let last = index + 1 == shape.records;
        let separator: &[u8] = match (shape.format, last) {
            (Format::Ndjson, _) => b"\n",
            (Format::Json, false) => b",\n",
            (Format::Json, true) => b"\n]",
        };
        let room = usize::try_from(shape.record_bytes).unwrap_or(0) - separator.len();
        let mut record = if let Ok(nth) = self.bad.binary_search(&index) {
            self.broken(index, nth, room)
        } else {
            self.sound(index, room)
        };
        record.extend_from_slice(separator);
        record
    }

    fn sound(&self, index: u64, room: usize) -> Vec<u8> {
        let shape = &self.shape;
        let draw = mix(shape.seed ^ mix(index.wrapping_add(1)));
        let unmapped = self.unmapped.binary_search(&index).is_ok();
        let author = self.author(draw, unmapped);
        let id = shape.first_id.saturating_add(index);
        let project = FIRST_PROJECT + (draw >> 8) % PROJECTS;
        let (whole, cents) = ((draw >> 16) % 40, (draw >> 24) % 100);
        let mut text = String::with_capacity(room);
        // Writing to a string can't fail.
        let _ = write!(
            text,
            r#"{{"id":"{id}","project":"{project}","author":"{author}","estimate":{whole}.{cents:02}"#
        );
        if room >= 290 {
            let status = ["Open", "In Progress", "In Review", "Done"][slot(draw >> 32, 4)];
            let (month, day) = (1 + (draw >> 36) % 12, 1 + (draw >> 40) % 28);
            let (hour, minute) = ((draw >> 44) % 24, (draw >> 48) % 60);
            let _ = write!(
                text,
                r#","status":"{status}","created":"2025-{month:02}-{day:02}T{hour:02}:{minute:02}:00.000+0000""#
            );
        }
        let spare = room.saturating_sub(text.len() + r#","summary":"","description":""}"#.len());
        if spare > 40 {
            let summary = SUMMARIES[slot(draw >> 52, SUMMARIES.len())];
            let _ = write!(text, r#","summary":"{summary}","description":""#);
        } else {
            text.push_str(r#","summary":""#);
        }
        let padding = room.saturating_sub(text.len() + 2);
        let mut start = slot(draw >> 4, PROSE.len());
        let mut missing = padding;
        while missing > 0 {
            let piece = &PROSE[start..PROSE.len().min(start + missing)];
            text.push_str(piece);
            missing -= piece.len();
            start = 0;
        }
        text.push_str("\"}");
        text.into_bytes()
    }

    fn author(&self, draw: u64, unmapped: bool) -> String {
        let number = draw % USERS;
        let prefixed = self.shape.author_keys == AuthorKeys::Prefixed;
        let prefix = if prefixed {
            user_key_prefix(self.shape.product)
        } else {
            ""
        };
        if unmapped {
            format!("{prefix}{UNMIGRATED}{number}")
        } else {
            format!("{prefix}{}", user_key(self.shape.product, number))
        }
    }

    /// Same length as a sound record, but nothing that an import can use.
    fn broken(&self, index: u64, nth: usize, room: usize) -> Vec<u8> {
        let kind = match self.shape.format {
            // In an array a syntax error would end the whole file; there the record is just no object.
            Format::Json => 1,
            Format::Ndjson => nth % 3,
        };
        let mut bytes = self.sound(index, room);
        match kind {
            // The end is missing: an export that was cut while it wrote.
            0 => {
                let end = bytes.len();
                bytes[end - 2..].fill(b' ');
            }
            // A string where an object is expected.
            1 => {
                for byte in &mut bytes {
                    if !byte.is_ascii_alphanumeric() {
                        *byte = b' ';
                    }
                }
                let end = bytes.len();
                bytes[0] = b'"';
                bytes[end - 1] = b'"';
            }
            // Not UTF-8.
            _ => {
                let end = bytes.len();
                bytes[end - 10] = 0xff;
            }
        }
        bytes
    }
}

/// What the bodies of a file are, whoever made them.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Generated(Arc<Generated>),
    Bytes(Bytes),
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Generated(generated) => generated.size(),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// At most `most` bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, most: usize) -> Bytes {
        match self {
            Self::Generated(generated) => Bytes::from(generated.read(offset, most)),
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let to = from.saturating_add(most).min(bytes.len());
                bytes.slice(from..to)
            }
        }
    }
}

const PIECE: usize = 256 * 1024;

/// Writes a generated file, compressed or not, in constant memory.
pub fn write_to(generated: &Generated, gzip: bool, target: &mut impl Write) -> std::io::Result<()> {
    if gzip {
        let mut encoder = GzEncoder::new(target, Compression::fast());
        copy(generated, &mut encoder)?;
        encoder.finish()?.flush()
    } else {
        copy(generated, target)?;
        target.flush()
    }
}

fn copy(generated: &Generated, target: &mut impl Write) -> std::io::Result<()> {
    let mut offset = 0;
    while offset < generated.size() {
        let piece = generated.read(offset, PIECE);
        target.write_all(&piece)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// The prefix of user keys in the namespace `identity:user`.
pub(crate) fn user_key_prefix(product: Product) -> &'static str {
    match product {
        Product::Jira => "jira.userkey/",
        Product::Confluence => "confluence.userkey/",
    }
}

/// The server's key of one of the [`USERS`].
pub(crate) fn user_key(product: Product, number: u64) -> String {
    match product {
        Product::Jira => format!("JIRAUSER{}", 10_100 + number),
        Product::Confluence => {
            format!("{:016x}{:016x}", mix(number + 1), mix(number + 1_000_003))
        }
    }
}

/// The `count` first of `records` places in a seeded order (Floyd's sampling), in the order of drawing.
fn distinct(seed: u64, records: u64, count: u64) -> Vec<u64> {
    let mut generator = Generator::new(derive(seed, &["odd records"]));
    let mut taken = HashSet::new();
    let mut places = Vec::new();
    for last in records - count..records {
        let drawn = generator.below(last + 1);
        let place = if taken.insert(drawn) { drawn } else { last };
        taken.insert(place);
        places.push(place);
    }
    generator.shuffle(&mut places);
    places
}

fn slot(draw: u64, length: usize) -> usize {
    usize::try_from(draw % length as u64).unwrap_or(0)
}

const SUMMARIES: [&str; 8] = [
    "Nightly backup is slow",
    "Übergabe an Team Süd",
    "Can't open \\\"Vault\\\"",
    "Line one\\nline two",
    "Rate limit on import",
    "資料庫移轉",
    "caf\\u00e9 menu export",
    "C:\\\\temp\\\\old share",
];

const PROSE: &str = "The customer reports that the page takes long to open after the last update and that the attached file is shown with \
an older date than expected. Steps to repeat: open the project, choose the report of last month, press export and wait for the mail. \
Expected is a file with all rows, found is a file without the rows of the last day. A second try after an hour gives the right result. \
We looked into the log and saw a warning about the time zone of the node; the other node does not show it. As a way around, run the \
export on the first node. Please add a test for the change of the month and tell the support team when it is done. ";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn shape(format: Format, records: u64) -> Shape {
        Shape {
            format,
            records,
            record_bytes: 300,
            seed: 7,
            first_id: 10_000,
            bad_records: 0,
            missing_mappings: 0,
            author_keys: AuthorKeys::Prefixed,
            product: Product::Jira,
        }
    }

    fn whole(generated: &Generated) -> Vec<u8> {
        generated.read(0, usize::try_from(generated.size()).expect("small"))
    }

    #[test]
    fn every_line_is_a_record_of_the_exact_size_with_its_own_id() {
        for record_bytes in [200, 201, 290, 291, 292, 300, 5000] {
            let generated = Generated::new(Shape {
                record_bytes,
                product: Product::Confluence,
                ..shape(Format::Ndjson, 500)
            })
            .expect("sound");
            let bytes = whole(&generated);
            assert_eq!(bytes.len() as u64, generated.size());
            let mut ids = HashSet::new();
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                assert_eq!(line.len() as u64, record_bytes);
                let record: Value = serde_json::from_slice(line).expect("JSON");
                assert!(ids.insert(record["id"].as_str().expect("id").to_owned()));
                assert!(record["project"].is_string() && record["author"].is_string());
            }
            assert_eq!(ids.len(), 500);
        }
    }

    #[test]
    fn an_array_parses_and_has_all_records() {
        for records in [0, 1, 2, 50] {
            let generated = Generated::new(shape(Format::Json, records)).expect("sound");
            let parsed: Vec<Value> = serde_json::from_slice(&whole(&generated)).expect("JSON");
            assert_eq!(parsed.len() as u64, records);
        }
    }

    #[test]
    fn any_range_equals_the_same_part_of_the_whole() {
        for format in [Format::Ndjson, Format::Json] {
            let generated = Generated::new(Shape {
                bad_records: 3,
                missing_mappings: 3,
                ..shape(format, 40)
            })
            .expect("sound");
            let bytes = whole(&generated);
            let mut generator = Generator::new(3);
            for _ in 0..300 {
                let from = slot(generator.next(), bytes.len() + 10);
                let most = slot(generator.next(), 900);
                let expected = &bytes[from.min(bytes.len())..(from + most).min(bytes.len())];
                assert_eq!(generated.read(from as u64, most), expected);
            }
        }
    }

    #[test]
    fn exactly_as_many_records_are_bad_or_unmapped_as_declared() {
        let generated = Generated::new(Shape {
            bad_records: 9,
            missing_mappings: 11,
            ..shape(Format::Ndjson, 300)
        })
        .expect("sound");
        let (mut bad, mut unmapped) = (0, 0);
        for line in whole(&generated)
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice::<Value>(line) {
                Ok(Value::Object(record)) => {
                    unmapped += u32::from(
                        record["author"]
                            .as_str()
                            .expect("author")
                            .contains(UNMIGRATED),
                    );
                }
                _ => bad += 1,
            }
        }
        assert_eq!((bad, unmapped), (9, 11));
    }

    #[test]
    fn a_bad_record_of_an_array_is_a_value_that_is_no_object() {
        let generated = Generated::new(Shape {
            bad_records: 4,
            ..shape(Format::Json, 30)
        })
        .expect("sound");
        let parsed: Vec<Value> = serde_json::from_slice(&whole(&generated)).expect("JSON");
        assert_eq!(parsed.iter().filter(|value| !value.is_object()).count(), 4);
    }

    #[test]
    fn an_impossible_shape_is_refused() {
        let small = Shape {
            record_bytes: 10,
            ..shape(Format::Json, 1)
        };
        assert_eq!(
            Generated::new(small).err(),
            Some(ShapeError::RecordTooSmall(10))
        );
        let odd = Shape {
            bad_records: 2,
            ..shape(Format::Json, 1)
        };
        assert!(matches!(
            Generated::new(odd),
            Err(ShapeError::TooManyOdd { .. })
        ));
    }
}
