//! What the engine does in a second of CPU, beside the floors that it stands on: all over the same records in memory, on one thread, whose time on
//! a processor is what is measured. `cargo bench -p landfall-import`; on Linux.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench says what went wrong by panicking, and its macro writes undocumented functions"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use futures_util::stream::{self, Iter};
use landfall_import::declaration::{Format, Mapping, OnMiss};
use landfall_import::ports::{
    Batch, CommitError, Delivery, KeptMappings, Ledger, LedgerUnavailable, MappingPage, Mappings,
    MappingsError, Opened, Piece, PieceTaken, RestartPoint, Sink, SinkError, SinkOutcome, Source,
    SourceError,
};
use landfall_import::segments::{Segment, SegmentPage};
use landfall_import::{
    Checkpoint, ContentHash, File, Import, Limits, MappingCache, Ports, SliceOutcome, Target,
    import_slice,
};
use serde_json::Value;
use serde_json::value::RawValue;

/// Bytes of a record with its line end.
const LINE: usize = 308;

/// Records of the corpus, some 30 MB: more than any cache holds.
const RECORDS: usize = 100_000;

/// What a read from a socket brings.
const CHUNK: usize = 65_536;

/// Ids that are in use: mapped once, then known.
const PEOPLE: usize = 20_000;

/// The time that this thread had a processor: a neighbour that takes it away changes nothing.
struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let statistics = std::fs::read("/proc/thread-self/schedstat").unwrap();
        let statistics = std::str::from_utf8(&statistics).unwrap();
        let spent = statistics.split_whitespace().next().unwrap();
        Duration::from_nanos(spent.parse().unwrap())
    }

    fn end(&self, started: Duration) -> Duration {
        self.start().saturating_sub(started)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

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

/// Takes everything, keeps nothing.
struct Nowhere;

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
        Ok(Vec::new())
    }

    async fn segments(&self, _: &str, _: Option<&str>) -> Result<SegmentPage, LedgerUnavailable> {
        Ok(SegmentPage::default())
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
}

fn import(source: &Stored, import: &Import, cache: &MappingCache) -> SliceOutcome {
    let limits = Limits::default();
    let ports = Ports {
        source,
        ledger: &Nowhere,
        mappings: &Nowhere,
        mapping_cache: cache,
        target: match import.format {
            Format::Raw => Target::Sink(&Nowhere),
            _ => Target::Ledger,
        },
    };
    let file = File {
        tenant: "tenant",
        transfer: "transfer",
        chain: "transfer",
        label: "pages.ndjson",
        key: "file",
        import,
        rerun: false,
    };
    import_slice(&file, Checkpoint::start(), &ports, &limits, &|| false)
        .now_or_never()
        .unwrap()
}

fn declared(natural_key: Option<&str>, mapped: &[(&str, &str, Option<&str>)]) -> Import {
    let mapping = |(pointer, namespace, prefix): &(&str, &str, Option<&str>)| Mapping {
        pointer: (*pointer).to_owned(),
        pattern: None,
        namespace: (*namespace).to_owned(),
        on_miss: OnMiss::Reject,
        placeholder: None,
        key_prefix: prefix.map(str::to_owned),
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

fn throughput(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = corpus();
    let mut group = criterion.benchmark_group("throughput");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(corpus.len() as u64));
    group.bench_function("floor: newlines (memchr)", |bencher| {
        bencher.iter(|| memchr::memchr_iter(b'\n', black_box(&corpus)).count());
    });
    group.bench_function("floor: serde_json, slice to RawValue", |bencher| {
        bencher.iter(|| {
            for line in lines(&corpus) {
                black_box(serde_json::from_slice::<&RawValue>(line).unwrap());
            }
        });
    });
    group.bench_function("floor: serde_json, slice to Value", |bencher| {
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
    let source = Stored(corpus.clone());
    let raw = Import {
        format: Format::Raw,
        ..declared(None, &[])
    };
    let no_ids = MappingCache::new(1);
    group.bench_function("import: a raw file, passed through", |bencher| {
        bencher.iter(|| {
            let outcome = import(&source, &raw, &no_ids);
            assert!(
                matches!(outcome, SliceOutcome::Finished { counts, .. } if counts.applied == 1)
            );
        });
    });
    for (name, natural_key, mapped) in [
        ("import: lines, passed through", None, &[][..]),
        ("import: lines, a natural key", Some("/id"), &[]),
        (
            "import: lines, a natural key, two mapped ids",
            Some("/id"),
            &[
                ("/author", "identity:user", Some("confluence.userkey/")),
                ("/space", "confluence:space", None),
            ],
        ),
    ] {
        let declared = declared(natural_key, mapped);
        let cache = MappingCache::new(2 * (PEOPLE + 500));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let outcome = import(&source, &declared, &cache);
                assert!(
                    matches!(outcome, SliceOutcome::Finished { counts, .. } if counts.applied == RECORDS as u64)
                );
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = throughput
}
criterion_main!(benches);
