//! What holds of any bytes whatever, as functions that panic where it does not. The fuzz targets (`fuzz/` at the root) search for bytes that break
//! one; the tests here draw some, and replay what the search has kept.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a property says that it does not hold by panicking"
)]

use std::collections::HashMap;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use futures_util::FutureExt as _;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::csv::{Columns, HEADER_BYTES};
use crate::declaration::{ColumnType, ContainerType, Csv, Import, Mapping, OnMiss};
use crate::decoder::{Decoder, Step};
use crate::format::{Compression, Layout};
use crate::mapping::{MappingCache, Rewriter};
use crate::ports::{ContainerPage, MappingPage, Mappings, MappingsError, RestartPoint};
use crate::problem::FileProblem;
use crate::records::{Cut, Cutter, Place};
use crate::sink::http;

/// The most decompressed bytes that are looked at: a few bytes may stand for gigabytes.
const INFLATED_MAX: usize = 262_144;

/// From how many places of one file it is read again.
const PLACES_MAX: usize = 16;

/// However a file's bytes come, the same records are cut out of them, holding no more than one record of the allowed size; and so they
/// are from the end of each record on.
///
/// The first three bytes choose layout and delimiter, limit, and length of the chunks.
pub fn splitter(data: &[u8]) {
    let Some((&[layout, limit, chunk], text)) = data.split_first_chunk() else {
        return;
    };
    let delimiter = if layout & 0x80 == 0 { b',' } else { b';' };
    let layout = [Layout::Lines, Layout::Array, Layout::Rows][usize::from(layout & 0x7f) % 3];
    let limit = usize::from(limit) + 1;
    let chunk = usize::from(chunk).max(1);
    let cut = |place, from: usize, chunk| {
        let cutter = Cutter::new(place, from as u64, limit).delimited_by(delimiter);
        cut_all(cutter, &text[from..], chunk, limit.max(HEADER_BYTES) + 2)
    };
    let whole = cut(Place::first(layout), 0, text.len().max(1));
    for chunk in [1, chunk] {
        assert_eq!(cut(Place::first(layout), 0, chunk), whole);
    }
    for (number, seen) in whole.iter().enumerate().take(PLACES_MAX) {
        if let Cut::Record { span, .. } | Cut::TooLarge { span } = seen {
            let end = usize::try_from(span.end).unwrap();
            assert_eq!(cut(span.after, end, chunk), whole[number + 1..]);
        }
    }
}

/// All that is cut, the problem at the end included; never holding more than `held` bytes once nothing more can be cut.
fn cut_all(mut cutter: Cutter, text: &[u8], chunk: usize, held: usize) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut chunks = text.chunks(chunk);
    loop {
        while let Some(cut) = cutter.cut() {
            let ends = matches!(cut, Cut::Problem(_));
            cuts.push(cut);
            if ends {
                return cuts;
            }
        }
        assert!(cutter.held() <= held, "{} bytes are held", cutter.held());
        match chunks.next() {
            Some(chunk) => cutter.push(Bytes::copy_from_slice(chunk)),
            None if cutter.is_finished() => break,
            None => cutter.finish(),
        }
    }
    cuts.extend(cutter.problem_at_end().map(Cut::Problem));
    cuts
}

/// A row is rejected or becomes an object with exactly the header's names, whatever types are declared; text stays what it was.
///
/// The first line is the header, the rest the row.
pub fn rows(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).map_or(data.len(), |end| end + 1);
    let (header, row) = data.split_at(end);
    let Ok(columns) = Columns::of_header(header, &Csv::default()) else {
        return;
    };
    let names = columns.names().to_vec();
    let kind = |name: &String| {
        [
            ColumnType::Text,
            ColumnType::Number,
            ColumnType::Boolean,
            ColumnType::Json,
        ][name.len() % 4]
    };
    let csv = Csv {
        types: names
            .iter()
            .map(|name| (name.clone(), kind(name)))
            .collect(),
        null: Some("\\N".to_owned()),
        ..Csv::default()
    };
    let typed = Columns::new(names.clone(), &csv).expect("the same names with types of their own");
    let plain = columns.record(row, &Csv::default());
    if let Ok(record) = &plain {
        let record: Map<String, Value> = serde_json::from_str(record).expect("a row is an object");
        assert!(record.keys().eq(&names));
        assert!(record.values().all(Value::is_string));
    }
    if let Ok(record) = typed.record(row, &csv) {
        let plain = plain.expect("what is well typed is well formed");
        let plain: Map<String, Value> = serde_json::from_str(&plain).unwrap();
        let record: HashMap<String, &RawValue> =
            serde_json::from_str(&record).expect("a row is an object");
        assert_eq!(record.len(), names.len());
        for name in names.iter().filter(|name| kind(name) == ColumnType::Text) {
            let text: Option<String> = serde_json::from_str(record[&**name].get()).unwrap();
            let is_null = plain[name] == "\\N";
            assert_eq!(text.as_deref(), plain[name].as_str().filter(|_| !is_null));
        }
    }
}

/// However a gzip file's bytes come, and wherever it is entered again, the same bytes come out of it, and it ends in the same way.
///
/// The first three bytes choose what the others are (the file, or a text to compress, and with what damage), and the length of chunks.
pub fn gzip(data: &[u8]) {
    decompressed(Compression::Gzip, data, |text, level| {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level % 10));
        for part in text.chunks(text.len() / 2 + 1) {
            encoder.write_all(part).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    });
}

/// The same of a zstd file.
pub fn zstd(data: &[u8]) {
    decompressed(Compression::Zstd, data, |text, _| {
        compress_to_vec(text, CompressionLevel::Fastest)
    });
}

fn decompressed(compression: Compression, data: &[u8], pack: impl Fn(&[u8], u32) -> Vec<u8>) {
    let Some((&[shape, damage, chunk], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut stored = if shape & 1 == 0 {
        rest.to_vec()
    } else {
        let parts = rest.chunks(rest.len() / usize::from(shape / 64 + 1) + 1);
        parts
            .flat_map(|part| pack(part, u32::from(shape >> 2 & 15)))
            .collect()
    };
    if shape & 2 != 0 && !stored.is_empty() {
        let at = usize::from(damage) * stored.len() / 256;
        stored[at] ^= damage | 1;
    }
    let decoder = || Decoder::new(compression).remembering_every(1);
    let whole = read(decoder(), &stored, stored.len().max(1));
    for chunk in [1, usize::from(chunk) + 1] {
        let again = read(decoder(), &stored, chunk);
        assert!(
            again.bytes == whole.bytes,
            "{} and {} bytes in chunks of {chunk}",
            again.bytes.len(),
            whole.bytes.len()
        );
        assert_eq!(again.end, whole.end, "in chunks of {chunk}");
    }
    for (offset, point) in whole.places.iter().take(PLACES_MAX) {
        let entered = Decoder::at(compression, *offset, Some(point));
        assert_eq!(
            entered.stored(),
            point.stored,
            "a place that was kept is used"
        );
        let again = read(entered, &stored, usize::from(chunk) + 1);
        let rest = &whole.bytes[usize::try_from(*offset).unwrap()..];
        assert!(
            again.bytes.starts_with(rest) || whole.end.is_none() && rest.starts_with(&again.bytes)
        );
        if whole.end.is_some() {
            assert!(again.bytes == rest, "the bytes from {offset} on");
            assert_eq!(again.end, whole.end, "from {offset} on");
        }
    }
}

/// Whatever a stored restart point says, it is used or not, and reading on does not panic.
///
/// The first byte chooses the compression; then come, each behind a zero, its text, its window packed, and the file.
pub fn restart_point(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let compression = [Compression::Gzip, Compression::Zstd][usize::from(kind % 2)];
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let point = RestartPoint {
        stored: 0,
        state: String::from_utf8_lossy(part()).into_owned(),
        window: Bytes::copy_from_slice(part()),
    };
    let mut decoder = Decoder::at(compression, 1 << 40, Some(&point));
    let mut chunks = part().chunks(7);
    let mut given = 0;
    loop {
        match decoder.step() {
            Step::Output(output) => given += output.len() + 1,
            Step::Hungry => match chunks.next() {
                Some(chunk) => decoder.feed(Bytes::copy_from_slice(chunk)),
                None => decoder.finish(),
            },
            Step::Done | Step::Broken(_) => break,
        }
        if given > INFLATED_MAX {
            break;
        }
    }
}

/// What came out of a file.
struct Inflated {
    bytes: Vec<u8>,
    /// How it ended; none where there was too much to go on.
    end: Option<Result<(), FileProblem>>,
    /// Places to enter it again, each with the decompressed byte at which it became known.
    places: Vec<(u64, RestartPoint)>,
}

fn read(mut decoder: Decoder, stored: &[u8], chunk: usize) -> Inflated {
    let from = usize::try_from(decoder.stored()).unwrap();
    let mut chunks = stored[from..].chunks(chunk);
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    let end = loop {
        match decoder.step() {
            Step::Output(output) => bytes.extend_from_slice(&output),
            Step::Hungry => match chunks.next() {
                Some(chunk) => decoder.feed(Bytes::copy_from_slice(chunk)),
                None => decoder.finish(),
            },
            Step::Done => break Some(Ok(())),
            Step::Broken(problem) => break Some(Err(problem)),
        }
        let offset = decoder.position();
        places.extend(decoder.restart_point(offset).map(|point| (offset, point)));
        if bytes.len() >= INFLATED_MAX {
            bytes.truncate(INFLATED_MAX);
            places.retain(|(offset, _)| *offset <= INFLATED_MAX as u64);
            break None;
        }
    };
    Inflated { bytes, end, places }
}

/// A record that is taken is JSON; where no id is known it stays as it is, and where all are, it is JSON in which nothing but the ids has changed.
pub fn rewrite(data: &[u8]) {
    let mapping = |pointer: &str, pattern: Option<&str>| Mapping {
        pointer: pointer.to_owned(),
        pattern: pattern.map(str::to_owned),
        namespace: "identity:user".to_owned(),
        on_miss: OnMiss::Keep,
        placeholder: None,
        key_prefix: None,
        within: None,
    };
    let import = Import {
        label: "*".to_owned(),
        natural_key: Some("/key".to_owned()),
        mappings: vec![
            mapping("/a", None),
            mapping("/b/*", None),
            mapping("/*/id", None),
            mapping("/c/0", None),
            mapping("/text", Some(r"\[~([^\]]*)\]")),
        ],
        ..Import::default()
    };
    let rewriter = Rewriter::new(&import).unwrap();
    let record = Bytes::copy_from_slice(data);
    let mut ids = Vec::new();
    let Ok(read) = rewriter.read(&record, &mut Vec::new(), &mut ids) else {
        return;
    };
    assert!(is_json(&record), "a record that is taken is JSON");
    assert_eq!(read.ids, 0..ids.len());
    let written = |known: &Everybody| {
        let cache = MappingCache::new(10);
        let answers = rewriter.look_up(known, &cache, &ids).now_or_never();
        let answers = answers.unwrap().unwrap();
        rewriter.write(&record, &ids, &answers, &mut BytesMut::new())
    };
    assert_eq!(written(&Everybody { known: false }).unwrap(), record);
    let new = written(&Everybody { known: true }).unwrap();
    assert!(is_json(&new), "a record that is rewritten is JSON");
    let (mut rest, mut copied) = (&new[..], 0);
    for id in &ids {
        let before = &record[copied..id.place().start];
        rest = rest.strip_prefix(before).expect("what is no id stays");
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        values.next().unwrap().expect("a value stands for the id");
        rest = &rest[values.byte_offset()..];
        copied = id.place().end;
    }
    assert_eq!(rest, &record[copied..], "what is no id stays");
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Knows a cloud id that needs escapes for every id, or none.
struct Everybody {
    known: bool,
}

impl Mappings for Everybody {
    async fn find(
        &self,
        _: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, MappingsError> {
        let cloud_id = |key: &String| (key.clone(), format!("\"{key}\\"));
        Ok(keys.iter().filter(|_| self.known).map(cloud_id).collect())
    }

    async fn page(&self, _: &str, _: Option<&str>) -> Result<MappingPage, MappingsError> {
        unreachable!("few ids are looked up one by one")
    }

    async fn containers(
        &self,
        _: ContainerType,
        _: Option<&str>,
    ) -> Result<ContainerPage, MappingsError> {
        unreachable!("no mapping is limited to containers")
    }
}

/// A stored checkpoint is refused, or means the same when it is stored again.
pub fn checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(checkpoint) = Checkpoint::decode(text) {
        let again = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&again).unwrap(), checkpoint);
    }
}

/// A sink's answer is refused, or has one outcome for each record.
pub fn sink_answer(data: &[u8]) {
    if let Ok(outcomes) = http::outcomes(["a", "b"].into_iter(), data) {
        assert_eq!(outcomes.len(), 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Property = fn(&[u8]);

    /// Every property, by the name of its fuzz target.
    const PROPERTIES: &[(&str, Property)] = &[
        ("splitter", splitter),
        ("rows", rows),
        ("gzip", gzip),
        ("zstd", zstd),
        ("restart_point", restart_point),
        ("rewrite", rewrite),
        ("checkpoint", checkpoint),
        ("sink_answer", sink_answer),
    ];

    #[test]
    fn what_the_search_has_kept_holds() {
        for (name, property) in PROPERTIES {
            let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut replayed = 0;
            for entry in std::fs::read_dir(folder).unwrap() {
                property(&std::fs::read(entry.unwrap().path()).unwrap());
                replayed += 1;
            }
            assert!(replayed > 0, "{name} has kept inputs");
        }
    }

    /// Pieces of what the parsers know, so that some of them fit together, and bytes of any kind.
    fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\n",
            " ",
            "null",
            "1.5",
            "\"a\":",
            "\"b\":[1,\"x\"]",
            "\"id\":7",
            "\"text\":\"[~u]\"",
            "{\"key\":\"k\"}",
            "a,bb\n1,2",
            "\"\"",
            "é",
            "\"version\":1",
            "\"offset\":0",
            "\"results\":",
            "\"outcome\":\"applied\"",
            "\u{1f}\u{0}",
        ]);
        let piece = prop_oneof![
            6 => word.prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..8),
            1 => (0_usize..400).prop_map(|length| vec![b'x'; length]),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The head chooses how a property reads the rest.
        #[test]
        fn properties_hold_of_any_bytes(head in any::<[u8; 3]>(), rest in nearly_right()) {
            let whole = [&head[..], &rest].concat();
            for (_, property) in PROPERTIES {
                property(&whole);
                property(&rest);
            }
        }
    }
}
