//! A record that is only passed through takes no memory of its own. A binary of its own: what it counts is every allocation of its thread.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{self, Iter};
use landfall_budgets::budget;
use landfall_import::declaration::ContainerType;
use landfall_import::ports::{
    Batch, CommitError, ContainerPage, Delivery, KeptMappings, Ledger, LedgerUnavailable,
    MappingPage, Mappings, MappingsError, Opened, RestartPoint, Sink, SinkError, SinkOutcome,
    Source, SourceError,
};
use landfall_import::segments::{Segment, SegmentPage};
use landfall_import::{
    Checkpoint, ContentHash, File, Import, Limits, MappingCache, Ports, SliceOutcome, Target,
    import_slice,
};

/// Batches of each file.
const BATCHES: usize = 222;

/// A file in a store that never stumbles.
struct Stored(Vec<Bytes>);

impl Source for Stored {
    type Stream = Iter<std::vec::IntoIter<Result<Bytes, SourceError>>>;

    async fn open(&self, from: u64) -> Result<Opened<Self::Stream>, SourceError> {
        let total: usize = self.0.iter().map(Bytes::len).sum();
        let chunks: Vec<_> = self.0.iter().cloned().map(Ok).collect();
        Ok(Opened {
            starts_at: from,
            total_bytes: Some(total as u64),
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

    async fn commit(&self, _: Batch) -> Result<(), CommitError> {
        Ok(())
    }

    async fn keep_segment(&self, _: Segment) -> Result<(), CommitError> {
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
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        Ok(vec![SinkOutcome::Applied; delivery.records.len()])
    }
}

impl Mappings for Nowhere {
    async fn find(&self, _: &str, _: &[String]) -> Result<HashMap<String, String>, MappingsError> {
        unreachable!("nothing is mapped")
    }

    async fn page(&self, _: &str, _: Option<&str>) -> Result<MappingPage, MappingsError> {
        unreachable!("nothing is mapped")
    }

    async fn containers(
        &self,
        _: ContainerType,
        _: Option<&str>,
    ) -> Result<ContainerPage, MappingsError> {
        unreachable!("no mapping is limited to containers")
    }
}

/// Allocations of an import in batches of so many records.
fn allocations(
    batch_records: usize,
    natural_key: Option<&str>,
    target: Target<'_, Nowhere>,
) -> u64 {
    let count = BATCHES * batch_records;
    let line = |number| {
        format!(
            "{{\"id\":\"id-{number}\",\"text\":\"{}\"}}\n",
            "x".repeat(270)
        )
    };
    let mut rest = Bytes::from((0..count).map(line).collect::<String>());
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        chunks.push(rest.split_to(65_536.min(rest.len())));
    }
    let source = Stored(chunks);
    let import = Import {
        label: "*".to_owned(),
        natural_key: natural_key.map(str::to_owned),
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
    let limits = Limits {
        batch_records,
        ..Limits::default()
    };
    let cache = MappingCache::new(1);
    let ports = Ports {
        source: &source,
        ledger: &Nowhere,
        mappings: &Nowhere,
        mapping_cache: &cache,
        target,
    };
    let measured = allocation_counter::measure(|| {
        let outcome = import_slice(&file, Checkpoint::start(), &ports, &limits, &|| false);
        let outcome = outcome.now_or_never().unwrap();
        assert!(
            matches!(outcome, SliceOutcome::Finished { counts, .. } if counts.applied == count as u64)
        );
    });
    measured.count_total
}

type Targets = [(&'static str, fn() -> Target<'static, Nowhere>); 2];

const TARGETS: Targets = [
    ("into the ledger", || Target::Ledger),
    ("to a sink", || Target::Sink(&Nowhere)),
];

#[test]
fn ten_thousand_more_records_that_are_passed_through_take_no_more_memory_than_their_chunks() {
    for (name, target) in TARGETS {
        for natural_key in [None, Some("/id")] {
            let few = allocations(45, natural_key, target());
            let many = allocations(90, natural_key, target());
            eprintln!(
                "{name}, natural key {natural_key:?}: {few} allocations for {} records, {many} for {}",
                45 * BATCHES,
                90 * BATCHES
            );
            budget("import.allocations_of_10_000_records").holds(many.saturating_sub(few));
        }
    }
}
