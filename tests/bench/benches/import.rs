//! What the engine does in a second of CPU, beside the floors that it stands on: over the same records in memory, on one thread, whose time on
//! a processor is what is measured. `cargo bench -p landfall-bench --bench import`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench says what went wrong by panicking, and its macro writes undocumented functions"
)]

use std::collections::HashMap;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use futures_util::stream::{self, Iter};
use landfall_bench::ProcessorTime;
use landfall_import::declaration::{ContainerType, FileDigest, Format, Mapping, OnMiss};
use landfall_import::format::Layout;
use landfall_import::ports::{
    Batch, CommitError, ContainerPage, Delivery, KeptMappings, Ledger, LedgerUnavailable,
    MappingPage, Mappings, MappingsError, Opened, Piece, PieceTaken, RestartPoint, Sink, SinkError,
    SinkOutcome, Source, SourceError,
};
use landfall_import::records::{Cut, Cutter, Place};
use landfall_import::segments::{Fingerprint, KeptSegment, Segment, SegmentPage};
use landfall_import::{
    Checkpoint, ContentHash, Counts, File, Import, Limits, MappingCache, Ports, SliceOutcome,
    Target, import_slice,
};
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Bytes of a record with its line end.
const LINE: usize = 308;

/// Records of the corpus, some 30 MB: more than any cache holds.
const RECORDS: usize = 100_000;

/// What a read from a socket brings.
const CHUNK: usize = 65_536;

/// Ids that are in use: mapped once, then known.
const PEOPLE: usize = 20_000;

/// Records of a segment, as the engine has them.
const SEGMENT: usize = 1_100;

/// Segments of a page, as the processor reads them.
const PAGE: usize = 100;

fn corpus() -> Bytes {
    let mut text = String::with_capacity(RECORDS * LINE);
    for number in 0..RECORDS {
        let (author, space) = (number * 7919 % PEOPLE, 100_000 + number % 500);
        let head = format!(
            r#"{{"id":"{number:012}","author":"user-{author:06}","space":{space},"title":"\"{number}\"","text":""#
        );
        text.push_str(&head);
        let filling = "lorem ipsum dolor sit amet ".chars().cycle();
        text.extend(filling.take(LINE - head.len() - 3));
        text.push_str("\"}\n");
    }
    text.into()
}

/// The corpus as a file in a store that never stumbles.
struct Stored(Bytes);

impl Source for Stored {
    type Stream = Iter<std::vec::IntoIter<Result<Bytes, SourceError>>>;

    async fn open(&self, from: u64) -> Result<Opened<Self::Stream>, SourceError> {
        let mut rest = self.0.slice(usize::try_from(from).unwrap()..);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            chunks.push(Ok(rest.split_to(CHUNK.min(rest.len()))));
        }
        Ok(Opened {
            starts_at: from,
            total_bytes: Some(self.0.len() as u64),
            stream: stream::iter(chunks),
        })
    }
}

/// Takes everything, keeps nothing; but an earlier attempt may have left segments.
#[derive(Default)]
struct Nowhere {
    /// Packed, as the table has them.
    earlier: Vec<Vec<u8>>,
}

impl Ledger for Nowhere {
    async fn known(&self, _: &[String]) -> Result<HashMap<String, ContentHash>, LedgerUnavailable> {
        Ok(HashMap::new())
    }

    async fn check_fence(&self) -> Result<(), CommitError> {
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        black_box(batch);
        Ok(())
    }

    async fn keep_segment(&self, segment: Segment) -> Result<(), CommitError> {
        black_box(segment);
        Ok(())
    }

    async fn attempts(&self) -> Result<Vec<String>, LedgerUnavailable> {
        Ok(vec!["earlier".to_owned(), "transfer".to_owned()])
    }

    async fn segments(
        &self,
        attempt: &str,
        after: Option<&str>,
    ) -> Result<SegmentPage, LedgerUnavailable> {
        if attempt != "earlier" {
            return Ok(SegmentPage::default());
        }
        let first = after.map_or(0, |after| after.parse::<usize>().unwrap() + 1);
        let of_page = self.earlier.iter().enumerate().skip(first).take(PAGE);
        let segments = of_page.map(|(place, packed)| KeptSegment {
            place: place.to_string(),
            own: None,
            landed: Fingerprint::unpack(packed).unwrap(),
        });
        Ok(SegmentPage {
            segments: segments.collect(),
            more: first + PAGE < self.earlier.len(),
        })
    }

    async fn restart_point(&self) -> Result<Option<RestartPoint>, LedgerUnavailable> {
        Ok(None)
    }

    async fn keep_restart_point(&self, _: RestartPoint) {}

    async fn keep_mappings(&self, _: KeptMappings) {}
}

impl Sink for Nowhere {
    async fn deliver(&self, _: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        unreachable!("the ledger is the target of records")
    }

    async fn deliver_piece(&self, piece: &Piece<'_>) -> Result<PieceTaken, SinkError> {
        black_box(&piece.bytes);
        Ok(PieceTaken {
            outcome: SinkOutcome::Applied,
            upload: None,
        })
    }
}

impl Mappings for Nowhere {
    async fn find(
        &self,
        _: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, MappingsError> {
        let cloud_id = |key: &String| (key.clone(), format!("cloud-{key}"));
        Ok(keys.iter().map(cloud_id).collect())
    }

    async fn page(&self, _: &str, _: Option<&str>) -> Result<MappingPage, MappingsError> {
        Err(MappingsError::Refused {
            reason: "every id has a mapping here".to_owned(),
        })
    }

    async fn containers(
        &self,
        _: ContainerType,
        _: Option<&str>,
    ) -> Result<ContainerPage, MappingsError> {
        unreachable!("no mapping is limited to containers")
    }
}

/// How the file ended: with every record read.
fn import(source: &Stored, import: &Import, cache: &MappingCache, ledger: &Nowhere) -> Counts {
    let limits = Limits::default();
    let ports = Ports {
        source,
        ledger,
        mappings: ledger,
        mapping_cache: cache,
        target: match import.format {
            Format::Raw => Target::Sink(ledger),
            _ => Target::Ledger,
        },
    };
    let file = File {
        tenant: "tenant",
        transfer: "transfer",
        chain: "earlier",
        label: "pages.ndjson",
        key: "file",
        import,
        rerun: !ledger.earlier.is_empty(),
    };
    let outcome = import_slice(&file, Checkpoint::start(), &ports, &limits, &|| false)
        .now_or_never()
        .unwrap();
    match outcome {
        SliceOutcome::Finished { counts, .. } => counts,
        other => panic!("the file did not end: {other:?}"),
    }
}

fn declared(natural_key: Option<&str>, mapped: &[(&str, &str, Option<&str>)]) -> Import {
    let mapping = |(pointer, namespace, prefix): &(&str, &str, Option<&str>)| Mapping {
        pointer: (*pointer).to_owned(),
        pattern: None,
        namespace: (*namespace).to_owned(),
        on_miss: OnMiss::Reject,
        placeholder: None,
        key_prefix: prefix.map(str::to_owned),
        within: None,
    };
    Import {
        label: "*".to_owned(),
        natural_key: natural_key.map(str::to_owned),
        mappings: mapped.iter().map(mapping).collect(),
        ..Import::default()
    }
}

fn lines(text: &Bytes) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', text).map(move |end| {
        let line = &text[start..end];
        start = end + 1;
        line
    })
}

/// The corpus as the elements of one array.
fn array(lines: &[&[u8]]) -> Bytes {
    let mut text = b"[".to_vec();
    text.extend(lines.join(&b",\n"[..]));
    text.extend(b"]\n");
    text.into()
}

/// The corpus as rows, of whose fields one is quoted and holds quotes, and another quoted for its comma.
fn rows() -> Bytes {
    let mut text = String::from("id,author,space,title,text\n");
    for number in 0..RECORDS {
        let (author, space) = (number * 7919 % PEOPLE, 100_000 + number % 500);
        let head =
            format!(r#"{number:012},user-{author:06},{space},"Page ""{number}""","lorem, ipsum "#);
        text.push_str(&head);
        let filling = "dolor sit amet ".chars().cycle();
        text.extend(filling.take(LINE - head.len() - 2));
        text.push_str("\"\n");
    }
    text.into()
}

/// Cuts all records out of chunks, and counts them.
fn cut(text: &Bytes, layout: Layout) -> usize {
    let mut cutter = Cutter::new(Place::first(layout), 0, Limits::default().record_bytes);
    let mut records = 0;
    let mut take = |cutter: &mut Cutter| {
        while let Some(cut) = cutter.cut() {
            records += usize::from(matches!(black_box(cut), Cut::Record { .. }));
        }
    };
    for start in (0..text.len()).step_by(CHUNK) {
        cutter.push(text.slice(start..text.len().min(start + CHUNK)));
        take(&mut cutter);
    }
    cutter.finish();
    take(&mut cutter);
    records
}

fn splitting(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = corpus();
    let lines: Vec<&[u8]> = lines(&corpus).collect();
    let array = array(&lines);
    let rows = rows();
    let mut group = criterion.benchmark_group("splitting");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(corpus.len() as u64));
    group.bench_function("floor: newlines (memchr)", |bencher| {
        bencher.iter(|| memchr::memchr_iter(b'\n', black_box(&corpus)).count());
    });
    // What tells elements apart has to know where texts begin and end; so does what skips a value.
    group.throughput(Throughput::Bytes(array.len() as u64));
    group.bench_function("floor: an array skipped (serde_json)", |bencher| {
        bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(&array)).unwrap());
    });
    for (name, text, layout) in [
        ("lines", &corpus, Layout::Lines),
        ("array", &array, Layout::Array),
        ("rows", &rows, Layout::Rows),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(cut(text, layout), RECORDS));
        });
    }
    group.finish();
}

fn rewrite(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = corpus();
    let mut group = criterion.benchmark_group("rewrite");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(corpus.len() as u64));
    group.bench_function("floor: newlines (memchr)", |bencher| {
        bencher.iter(|| memchr::memchr_iter(b'\n', black_box(&corpus)).count());
    });
    group.bench_function("floor: slice to RawValue (serde_json)", |bencher| {
        bencher.iter(|| {
            for line in lines(&corpus) {
                black_box(serde_json::from_slice::<&RawValue>(line).unwrap());
            }
        });
    });
    group.bench_function("floor: slice to Value (serde_json)", |bencher| {
        bencher.iter(|| {
            for line in lines(&corpus) {
                black_box(serde_json::from_slice::<Value>(line).unwrap());
            }
        });
    });
    // What the engine says of each file and each record; nothing that says it can be faster.
    group.bench_function("floor: SHA-256 of the file and of each record", |bencher| {
        bencher.iter(|| {
            black_box(ContentHash::of(&corpus));
            for line in lines(&corpus) {
                black_box(ContentHash::of(line));
            }
        });
    });
    let (source, nowhere) = (Stored(corpus.clone()), Nowhere::default());
    let raw = Import {
        format: Format::Raw,
        ..declared(None, &[])
    };
    let no_ids = MappingCache::new(1);
    group.bench_function("a raw file, passed through", |bencher| {
        bencher.iter(|| assert_eq!(import(&source, &raw, &no_ids, &nowhere).applied, 1));
    });
    let (verify, ignore) = (FileDigest::Verify, FileDigest::Ignore);
    for (name, digest, natural_key, mapped) in [
        ("lines, passed through", ignore, None, &[][..]),
        (
            "lines, passed through, the file's digest",
            verify,
            None,
            &[],
        ),
        ("lines, a natural key", verify, Some("/id"), &[]),
        (
            "lines, a natural key, two mapped ids",
            verify,
            Some("/id"),
            &[
                ("/author", "identity:user", Some("confluence.userkey/")),
                ("/space", "confluence:space", None),
            ],
        ),
    ] {
        let declared = Import {
            digest,
            ..declared(natural_key, mapped)
        };
        let cache = MappingCache::new(2 * (PEOPLE + 500));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let counts = import(&source, &declared, &cache, &nowhere);
                assert_eq!(counts.applied, RECORDS as u64);
            });
        });
    }
    group.finish();
}

fn ledger(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = corpus();
    // Each record's natural key, and the hash that the engine has of it by then.
    let landed: Vec<(String, ContentHash)> = lines(&corpus)
        .enumerate()
        .map(|(number, line)| (format!("{number:012}"), ContentHash::of(line)))
        .collect();
    let pack = || -> Vec<Vec<u8>> {
        let packed = black_box(&landed).chunks(SEGMENT).map(|records| {
            let fingerprints = records.iter().map(|(key, hash)| Fingerprint::of(key, hash));
            Fingerprint::pack(&fingerprints.collect::<Vec<_>>())
        });
        packed.collect()
    };
    let packed = pack();
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("floor: nine bytes a record, copied", |bencher| {
        bencher.iter(|| black_box(&packed).clone());
    });
    group.bench_function("records packed into segments", |bencher| bencher.iter(pack));
    group.sample_size(10);
    group.throughput(Throughput::Bytes(corpus.len() as u64));
    group.bench_function("floor: SHA-256 of each record (sha2)", |bencher| {
        bencher.iter(|| {
            for line in lines(&corpus) {
                black_box(Sha256::digest(line));
            }
        });
    });
    let source = Stored(corpus.clone());
    let declared = declared(Some("/id"), &[]);
    let no_ids = MappingCache::new(1);
    // Whole: the earlier attempt's segments are read, and each record is found in them.
    let rerun = Nowhere { earlier: packed };
    group.bench_function("a re-run in which nothing has changed", |bencher| {
        bencher.iter(|| {
            let counts = import(&source, &declared, &no_ids, &rerun);
            assert_eq!(counts.unchanged, RECORDS as u64);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = landfall_bench::criterion();
    targets = splitting, rewrite, ledger
}
criterion_main!(benches);
