//! A large file passes through in bounded memory, in slices that resume in mid-file. A binary of its own: its peak is this import's peak.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use landfall_budgets::budget;
use landfall_clock::Clock;
use landfall_import::declaration::{ContainerType, Mapping, OnMiss};
use landfall_import::ports::{
    Batch, CommitError, ContainerPage, Delivery, KeptMappings, Ledger, LedgerUnavailable,
    MAPPING_PAGE, MappingPage, Mappings, MappingsError, Opened, RestartPoint, Sink, SinkError,
    SinkOutcome, Source, SourceError,
};
use landfall_import::segments::{Segment, SegmentPage};
use landfall_import::{
    Checkpoint, ContentHash, Counts, File, Import, Limits, MappingCache, Ports, SliceOutcome,
    Target, import_slice,
};

/// Length of every record with its line end.
const LINE: u64 = 308;

/// A file that is made while it is read, the same at every offset whenever it is read.
struct Generated {
    records: u64,
}

fn line(number: u64) -> Vec<u8> {
    let author = number.wrapping_mul(7919) % 20_000;
    let space = 100_000 + number % 500;
    let tail = b"\"}\n";
    let mut line = format!(
        "{{\"id\":\"{number:012}\",\"author\":\"user-{author:06}\",\"space\":{space},\"title\":\"\\\"{number}\\\"\",\"text\":\""
    )
    .into_bytes();
    line.extend(
        b"lorem ipsum dolor sit amet "
            .iter()
            .cycle()
            .take(usize::try_from(LINE).unwrap() - line.len() - tail.len()),
    );
    line.extend(tail);
    line
}

impl Source for Generated {
    type Stream = BoxStream<'static, Result<Bytes, SourceError>>;

    async fn open(&self, from: u64) -> Result<Opened<Self::Stream>, SourceError> {
        let (mut number, mut within) = (from / LINE, usize::try_from(from % LINE).unwrap());
        let records = self.records;
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(20_000);
            while number < records && chunk.len() < 16_384 {
                chunk.extend_from_slice(&line(number)[within..]);
                (number, within) = (number + 1, 0);
            }
            (!chunk.is_empty()).then(|| Ok(Bytes::from(chunk)))
        });
        Ok(Opened {
            starts_at: from,
            total_bytes: Some(records * LINE),
            stream: stream::iter(chunks).boxed(),
        })
    }
}

/// Keeps the checkpoint, and of the records their number and a digest that doesn't depend on batches.
#[derive(Default)]
struct CountingLedger {
    checkpoint: Mutex<Option<String>>,
    commits: AtomicU64,
    landed: AtomicU64,
    last_key: Mutex<String>,
}

impl Ledger for CountingLedger {
    async fn known(&self, _: &[String]) -> Result<HashMap<String, ContentHash>, LedgerUnavailable> {
        Ok(HashMap::new())
    }

    async fn check_fence(&self) -> Result<(), CommitError> {
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let mut last = self.last_key.lock().unwrap();
        for landed in &batch.landed {
            assert!(*landed.key > **last, "keys rise, so none lands twice");
            assert_eq!(ContentHash::of(&landed.record), landed.content_hash);
            *last = landed.key.to_string();
        }
        self.landed
            .fetch_add(batch.landed.len() as u64, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        *self.checkpoint.lock().unwrap() = Some(batch.checkpoint.encode());
        Ok(())
    }

    async fn keep_segment(&self, segment: Segment) -> Result<(), CommitError> {
        drop(segment);
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

/// Knows every id but some.
struct MostMappings;

impl Mappings for MostMappings {
    async fn find(
        &self,
        _: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, MappingsError> {
        Ok(keys
            .iter()
            .filter(|key| !key.ends_with('7'))
            .map(|key| (key.clone(), format!("cloud-{key}")))
            .collect())
    }

    /// Endless, as far as a cache can tell.
    async fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
    ) -> Result<MappingPage, MappingsError> {
        let page = after.map_or(0, |after| after.parse::<usize>().unwrap() + 1);
        let item = |number| {
            let key = format!("{namespace} {page} {number}");
            (key.clone(), format!("cloud-{key}"))
        };
        Ok(MappingPage {
            items: (0..MAPPING_PAGE).map(item).collect(),
            next: Some(page.to_string()),
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

struct NoSink;

impl Sink for NoSink {
    async fn deliver(&self, _: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        unreachable!("the ledger is the target")
    }
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = String::from_utf8(std::fs::read("/proc/self/status").unwrap()).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

fn mapping(pointer: &str, namespace: &str) -> Mapping {
    Mapping {
        pointer: pointer.to_owned(),
        namespace: namespace.to_owned(),
        on_miss: OnMiss::Keep,
        placeholder: None,
        key_prefix: (namespace == "identity:user").then(|| "confluence.userkey/".to_owned()),
        within: None,
        pattern: None,
    }
}

async fn import(megabytes: u64) {
    let source = Generated {
        records: megabytes * 1_000_000 / LINE,
    };
    let import = Import {
        label: "*".to_owned(),
        natural_key: Some("/id".to_owned()),
        mappings: vec![
            mapping("/author", "identity:user"),
            mapping("/space", "confluence:space"),
        ],
        ..Import::default()
    };
    let file = File {
        tenant: "tenant",
        transfer: "transfer",
        chain: "transfer",
        label: "pages.ndjson",
        key: "file",
        import: &import,
        rerun: false,
    };
    let ledger = CountingLedger::default();
    let limits = Limits::default();
    let cache = MappingCache::new(limits.mapping_cache_entries);
    let ports = Ports {
        source: &source,
        ledger: &ledger,
        mappings: &MostMappings,
        mapping_cache: &cache,
        target: Target::<NoSink>::Ledger,
    };
    let clock = Clock::system();
    let mut slices = 0;
    let counts = loop {
        let until = ledger.commits.load(Ordering::Relaxed) + 1000;
        let stored = ledger.checkpoint.lock().unwrap().clone();
        let checkpoint =
            stored.map_or_else(Checkpoint::start, |text| Checkpoint::decode(&text).unwrap());
        let out_of_time = || ledger.commits.load(Ordering::Relaxed) >= until;
        slices += 1;
        match import_slice(&file, checkpoint, &ports, &limits, &out_of_time).await {
            SliceOutcome::Finished {
                counts,
                problem: None,
                measure,
            } => {
                assert!(measure.sha256.is_some(), "over all of its slices");
                break counts;
            }
            SliceOutcome::Continue(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let seconds = clock.monotonic().as_secs_f64();
    let all = Counts {
        read: source.records,
        applied: source.records,
        ..Counts::default()
    };
    assert_eq!(counts, all);
    assert_eq!(ledger.landed.load(Ordering::Relaxed), source.records);
    let peak = peak_memory();
    let bytes = u32::try_from(megabytes).unwrap();
    eprintln!(
        "{megabytes} MB in {slices} slices: {seconds:.1} s, {:.0} MB/s, peak {} MiB",
        f64::from(bytes) / seconds,
        peak / 1_048_576
    );
    budget("import.peak").holds(peak.div_ceil(1_048_576));
}

/// 40 MB, or as many as `MEGABYTES` said when the test was compiled.
#[tokio::test]
async fn a_file_passes_through_in_bounded_memory() {
    let megabytes = option_env!("MEGABYTES").and_then(|text| text.parse().ok());
    import(megabytes.unwrap_or(40)).await;
}
