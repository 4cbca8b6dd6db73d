//! The ports in memory, with the faults that a test asks for, and a world that ties them together.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use landfall_import::declaration::{ContainerType, Format, Mapping, OnMiss};
use landfall_import::ports::{
    Batch, COMMIT_BYTES, COMMIT_WRITES, CONTAINER_PAGE, CommitError, ContainerPage, Delivery,
    Finished, KeptMappings, Ledger, LedgerUnavailable, MAPPING_KEYS, MAPPING_PAGE, MappingPage,
    Mappings, MappingsError, Opened, Pass, Piece, PieceTaken, Rejection, RejectionKind,
    RestartPoint, Sink, SinkError, SinkOutcome, Source, SourceError,
};
use landfall_import::segments::{KeptSegment, Segment, SegmentPage, SegmentStart};
use landfall_import::{
    Checkpoint, ContentHash, Counts, File, FileProblem, Import, Limits, MappingCache, Measure,
    Ports, SliceOutcome, Target, import_slice,
};
use tokio::sync::Notify;

/// What one connection to the store does wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The opening fails.
    Open(SourceError),
    /// After so many bytes of this connection the stream fails.
    After(usize, SourceError),
    /// After so many bytes of this connection the stream ends as if the file did.
    EndsAfter(usize),
}

pub(crate) fn cut() -> SourceError {
    SourceError::Cut {
        reason: "a test cut it".to_owned(),
    }
}

/// A stored file.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) bytes: Bytes,
    pub(crate) ranges: bool,
    pub(crate) tells_length: bool,
    /// The length that it tells instead of the true one.
    pub(crate) shrunk_to: Option<u64>,
    pub(crate) chunk: usize,
    pub(crate) faults: Mutex<VecDeque<Fault>>,
    /// Bytes given away, over all connections.
    pub(crate) given: AtomicUsize,
    pub(crate) opened_at: Mutex<Vec<u64>>,
}

impl Store {
    /// What the file measures.
    pub(crate) fn measure(&self) -> Measure {
        Measure {
            bytes: Some(self.bytes.len() as u64),
            sha256: Some(ContentHash::of(&self.bytes).into()),
        }
    }
}

impl Source for Store {
    type Stream = BoxStream<'static, Result<Bytes, SourceError>>;

    async fn open(&self, from: u64) -> Result<Opened<Self::Stream>, SourceError> {
        assert!(
            from <= self.bytes.len() as u64,
            "byte {from} is beyond the end"
        );
        self.opened_at.lock().unwrap().push(from);
        let fault = self.faults.lock().unwrap().pop_front();
        let starts_at = if self.ranges { from } else { 0 };
        let mut rest = self.bytes.slice(usize::try_from(starts_at).unwrap()..);
        let mut last = None;
        match fault {
            Some(Fault::Open(error)) => return Err(error),
            Some(Fault::After(count, error)) => {
                rest.truncate(count);
                last = Some(Err(error));
            }
            Some(Fault::EndsAfter(count)) => rest.truncate(count),
            None => {}
        }
        self.given.fetch_add(rest.len(), Ordering::Relaxed);
        let chunk = self.chunk;
        let chunks = std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| Ok(rest.split_to(chunk.min(rest.len()))))
        });
        Ok(Opened {
            starts_at,
            total_bytes: self
                .tells_length
                .then_some(self.shrunk_to.unwrap_or(self.bytes.len() as u64)),
            stream: stream::iter(chunks.chain(last)).boxed(),
        })
    }
}

/// What goes wrong at one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitFault {
    /// The worker dies before anything is written.
    KillBefore,
    /// The worker dies after everything is written.
    KillAfter,
    /// Nothing is written, and nobody knows.
    UnknownNotWritten,
    /// Everything is written, and nobody knows.
    UnknownWritten,
    Unavailable,
    FenceLost,
}

impl CommitFault {
    /// Those after which another worker goes on with the file.
    pub(crate) const PASSING: [Self; 5] = [
        Self::KillBefore,
        Self::KillAfter,
        Self::UnknownNotWritten,
        Self::UnknownWritten,
        Self::Unavailable,
    ];
}

#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) checkpoint: Option<String>,
    /// What the chain has: content hash and record.
    pub(crate) target: BTreeMap<String, (ContentHash, Bytes)>,
    /// Every landed key, in order.
    pub(crate) landed: Vec<String>,
    /// Those that count: of the first pass, until the second has ended.
    pub(crate) rejections: Vec<Rejection>,
    /// Those of the second pass, as long as it isn't over.
    pub(crate) rejections_again: Vec<Rejection>,
    /// Passes of the commits.
    pub(crate) passes: Vec<Pass>,
    /// Counts and offset of each commit.
    pub(crate) commits: Vec<(Counts, u64)>,
    pub(crate) known_asked: Vec<usize>,
    /// Segments of the chain's attempts, this one last, by the pass and the first record of each.
    pub(crate) attempts: Vec<BTreeMap<(bool, u64), Segment>>,
    /// Pages of segments that were read.
    pub(crate) pages_read: usize,
    /// The restart point that was kept last.
    pub(crate) restart: Option<RestartPoint>,
    /// The used mappings that were kept, by place.
    pub(crate) mappings: BTreeMap<(u64, usize), Bytes>,
}

/// Checkpoint, records and rejections of one file.
#[derive(Debug, Default)]
pub(crate) struct MemoryLedger {
    pub(crate) stored: Mutex<Stored>,
    /// Faults by the number of the commit, from 0, over all slices.
    pub(crate) faults: Mutex<HashMap<usize, CommitFault>>,
    pub(crate) attempted: AtomicUsize,
    pub(crate) overtaken: AtomicBool,
    pub(crate) killed: Notify,
    /// Whether segments can't be kept.
    pub(crate) keeps_no_segments: bool,
}

impl MemoryLedger {
    fn write(&self, batch: Batch) {
        let mut stored = self.stored.lock().unwrap();
        let before = stored
            .checkpoint
            .as_deref()
            .map_or_else(Checkpoint::start, |text| Checkpoint::decode(text).unwrap());
        assert_eq!(before.ended, None, "a finished file is not written to");
        let is_second = matches!(batch.pass, Pass::Second | Pass::SecondEnds);
        assert_eq!(before.second.is_some(), is_second);
        let after = &batch.checkpoint;
        match (batch.pass, &before.second, &after.second) {
            (Pass::First | Pass::FirstEnds, _, _) => {
                assert_eq!(after.counts, before.counts + batch.counts);
            }
            (_, Some(before_it), Some(after_it)) => {
                assert_eq!(after.counts, before.counts, "those of the first pass");
                assert_eq!(after_it.counts, before_it.counts + batch.counts);
            }
            (pass, ..) => {
                assert!(after.ended.is_some());
                assert!(pass == Pass::SecondEnds || after.counts == before.counts);
            }
        }
        assert!(after.counts.balances());
        if batch.pass == Pass::FirstEnds {
            let second = after.second.as_ref().unwrap();
            assert_eq!(second.counts, Counts::default());
            assert_eq!((after.offset, after.record_number), (0, 0));
            assert_eq!((&after.reading, &after.base), (&None, &None));
        } else {
            assert_eq!(
                after.record_number,
                before.record_number + batch.counts.read
            );
            assert!(after.offset >= before.offset);
        }
        assert!(batch.counts.balances());
        assert!(batch.landed.len() + batch.rejections.len().min(1) <= COMMIT_WRITES);
        let landed_bytes =
            |landed: &landfall_import::ports::Landed| landed.key.len() + landed.record.len();
        let bytes: usize = batch.landed.iter().map(landed_bytes).sum();
        assert!(bytes <= COMMIT_BYTES, "{bytes}");
        let keys: HashSet<&str> = batch.landed.iter().map(|landed| &*landed.key).collect();
        assert_eq!(keys.len(), batch.landed.len(), "each key once");
        for rejection in &batch.rejections {
            assert!(rejection.record_number > before.record_number);
            let read = before.record_number + batch.counts.read;
            assert!(rejection.record_number <= read);
        }
        stored.passes.push(batch.pass);
        stored.checkpoint = Some(batch.checkpoint.encode());
        stored.commits.push((batch.counts, batch.checkpoint.offset));
        if is_second {
            stored.rejections_again.extend(batch.rejections);
        } else {
            stored.rejections.extend(batch.rejections);
        }
        if batch.pass == Pass::SecondEnds {
            stored.rejections = std::mem::take(&mut stored.rejections_again);
        }
        for landed in batch.landed {
            stored.landed.push(landed.key.to_string());
            stored
                .target
                .insert(landed.key.into(), (landed.content_hash, landed.record));
        }
    }

    async fn die(&self) -> ! {
        self.killed.notify_one();
        std::future::pending().await
    }
}

impl Ledger for MemoryLedger {
    async fn known(
        &self,
        keys: &[String],
    ) -> Result<HashMap<String, ContentHash>, LedgerUnavailable> {
        let mut stored = self.stored.lock().unwrap();
        stored.known_asked.push(keys.len());
        Ok(keys
            .iter()
            .filter_map(|key| Some((key.clone(), stored.target.get(key)?.0)))
            .collect())
    }

    async fn check_fence(&self) -> Result<(), CommitError> {
        if self.overtaken.load(Ordering::Relaxed) {
            Err(CommitError::FenceLost)
        } else {
            Ok(())
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let number = self.attempted.fetch_add(1, Ordering::Relaxed);
        let fault = self.faults.lock().unwrap().remove(&number);
        let reason = "a test wants it".to_owned();
        match fault {
            None => {
                self.write(batch);
                Ok(())
            }
            Some(CommitFault::KillBefore) => self.die().await,
            Some(CommitFault::KillAfter) => {
                self.write(batch);
                self.die().await
            }
            Some(CommitFault::UnknownNotWritten) => Err(CommitError::Unknown { reason }),
            Some(CommitFault::UnknownWritten) => {
                self.write(batch);
                Err(CommitError::Unknown { reason })
            }
            Some(CommitFault::Unavailable) => Err(CommitError::Unavailable { reason }),
            Some(CommitFault::FenceLost) => Err(CommitError::FenceLost),
        }
    }

    async fn keep_segment(&self, segment: Segment) -> Result<(), CommitError> {
        if self.keeps_no_segments {
            let reason = "a test wants it".to_owned();
            return Err(CommitError::Unavailable { reason });
        }
        assert!(segment.landed.len() as u64 <= segment.last_record + 1 - segment.first_record);
        assert!(!segment.landed.is_empty());
        let mut stored = self.stored.lock().unwrap();
        if stored.attempts.is_empty() {
            stored.attempts.push(BTreeMap::new());
        }
        let own = stored.attempts.last_mut().unwrap();
        own.insert((segment.second_pass, segment.first_record), segment);
        Ok(())
    }

    async fn attempts(&self) -> Result<Vec<String>, LedgerUnavailable> {
        let attempts = self.stored.lock().unwrap().attempts.len();
        Ok((0..attempts).map(|number| number.to_string()).collect())
    }

    async fn segments(
        &self,
        attempt: &str,
        after: Option<&str>,
    ) -> Result<SegmentPage, LedgerUnavailable> {
        let mut stored = self.stored.lock().unwrap();
        stored.pages_read += 1;
        let first = after.map_or((false, 0), |after| {
            let (pass, first) = after.split_once(' ').unwrap();
            (pass == "second", first.parse::<u64>().unwrap() + 1)
        });
        let attempt = attempt.parse::<usize>().unwrap();
        let is_own = attempt + 1 == stored.attempts.len();
        let mut segments = stored.attempts[attempt].range(first..);
        let page = segments
            .by_ref()
            .take(100)
            .map(|(&(second_pass, first_record), segment)| KeptSegment {
                place: if second_pass {
                    format!("second {first_record}")
                } else {
                    format!("first {first_record}")
                },
                own: is_own.then_some(SegmentStart {
                    second_pass,
                    first_record,
                }),
                landed: segment.landed.clone(),
            })
            .collect();
        Ok(SegmentPage {
            segments: page,
            more: segments.next().is_some(),
        })
    }

    async fn restart_point(&self) -> Result<Option<RestartPoint>, LedgerUnavailable> {
        Ok(self.stored.lock().unwrap().restart.clone())
    }

    async fn keep_restart_point(&self, point: RestartPoint) {
        self.stored.lock().unwrap().restart = Some(point);
    }

    async fn keep_mappings(&self, piece: KeptMappings) {
        let mut stored = self.stored.lock().unwrap();
        stored
            .mappings
            .insert((piece.offset, piece.number), piece.packed);
    }
}

/// The platform's mappings; namespace and key.
#[derive(Debug, Default)]
pub(crate) struct MemoryMappings {
    pub(crate) known: HashMap<(String, String), String>,
    pub(crate) calls: Mutex<Vec<(String, Vec<String>)>>,
    pub(crate) errors: Mutex<VecDeque<MappingsError>>,
    /// Namespaces of the pages that were fetched, and after which key.
    pub(crate) pages: Mutex<Vec<(String, Option<String>)>>,
    pub(crate) page_errors: Mutex<VecDeque<MappingsError>>,
    /// The platform's largest page, where a test wants a small one.
    pub(crate) page_size: Option<usize>,
    /// The server's ids of this migration's projects; there are no spaces.
    pub(crate) projects: Vec<String>,
    /// Types of the pages of containers that were fetched, and after which one.
    pub(crate) container_pages: Mutex<Vec<(ContainerType, Option<String>)>>,
    /// How the next of these calls fail; none is one that doesn't.
    pub(crate) container_errors: Mutex<VecDeque<Option<MappingsError>>>,
}

impl Mappings for MemoryMappings {
    async fn find(
        &self,
        namespace: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, MappingsError> {
        assert!((1..=MAPPING_KEYS).contains(&keys.len()));
        self.calls
            .lock()
            .unwrap()
            .push((namespace.to_owned(), keys.to_vec()));
        if let Some(error) = self.errors.lock().unwrap().pop_front() {
            return Err(error);
        }
        Ok(keys
            .iter()
            .filter_map(|key| {
                Some((
                    key.clone(),
                    self.known
                        .get(&(namespace.to_owned(), key.clone()))?
                        .clone(),
                ))
            })
            .collect())
    }

    async fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
    ) -> Result<MappingPage, MappingsError> {
        self.pages
            .lock()
            .unwrap()
            .push((namespace.to_owned(), after.map(str::to_owned)));
        if let Some(error) = self.page_errors.lock().unwrap().pop_front() {
            return Err(error);
        }
        let of_namespace = self.known.iter().filter(|((of, _), _)| of == namespace);
        let mut items: Vec<(String, String)> = of_namespace
            .map(|((_, key), cloud_id)| (key.clone(), cloud_id.clone()))
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after))
            .collect();
        items.sort_unstable();
        let size = self.page_size.unwrap_or(MAPPING_PAGE);
        let has_next = items.len() > size;
        items.truncate(size);
        let last = items.last().map(|(key, _)| key.clone());
        Ok(MappingPage {
            items,
            next: last.filter(|_| has_next),
        })
    }

    async fn containers(
        &self,
        container_type: ContainerType,
        after: Option<&str>,
    ) -> Result<ContainerPage, MappingsError> {
        self.container_pages
            .lock()
            .unwrap()
            .push((container_type, after.map(str::to_owned)));
        if let Some(Some(error)) = self.container_errors.lock().unwrap().pop_front() {
            return Err(error);
        }
        let projects = match container_type {
            ContainerType::JiraProject => &*self.projects,
            ContainerType::ConfluenceSpace => &[],
        };
        let after = after.map_or(0, |after| after.parse().unwrap());
        let rest = &projects[after..];
        let page = &rest[..rest.len().min(self.page_size.unwrap_or(CONTAINER_PAGE))];
        Ok(ContainerPage {
            source_ids: page.to_vec(),
            next: (page.len() < rest.len()).then(|| (after + page.len()).to_string()),
        })
    }
}

/// What a sink outside answers about a record.
pub(crate) type Answer = fn(&str) -> SinkOutcome;

/// A sink that takes a batch once per idempotency key.
#[derive(Debug, Default)]
pub(crate) struct MemorySink {
    pub(crate) errors: Mutex<VecDeque<SinkError>>,
    /// Idempotency key and record keys of every delivery.
    pub(crate) deliveries: Mutex<Vec<(String, Vec<String>)>>,
    /// Idempotency keys of the deliveries that it took.
    pub(crate) answered: Mutex<HashSet<String>>,
    /// How often each record was applied, deliveries with a known idempotency key left out.
    pub(crate) applied: Mutex<BTreeMap<String, usize>>,
    /// Keys of what it has, in the order of their coming.
    pub(crate) taken: Mutex<Vec<String>>,
    pub(crate) answer: Option<Answer>,
    pub(crate) drops_one_outcome: bool,
    /// Offset and bytes of every piece of a raw file that was delivered.
    pub(crate) pieces: Mutex<Vec<(u64, Bytes)>>,
    /// Raw files that are complete, by label.
    pub(crate) files: Mutex<BTreeMap<String, Bytes>>,
    /// Whether each file ended complete, as it was said.
    pub(crate) finished: Mutex<Vec<bool>>,
}

/// Bytes of a piece, so that small files have several.
pub(crate) const PIECE: usize = 64;

impl Sink for MemorySink {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let keys: Vec<String> = delivery
            .records
            .iter()
            .map(|record| record.key.to_string())
            .collect();
        assert!(!keys.is_empty());
        let identity = delivery.idempotency_key.clone();
        let mut deliveries = self.deliveries.lock().unwrap();
        deliveries.push((identity.clone(), keys.clone()));
        if let Some(error) = self.errors.lock().unwrap().pop_front() {
            return Err(error);
        }
        let repeated = !self.answered.lock().unwrap().insert(identity);
        let mut outcomes: Vec<SinkOutcome> = keys
            .iter()
            .map(|key| {
                self.answer
                    .map_or(SinkOutcome::Applied, |answer| answer(key))
            })
            .collect();
        if !repeated {
            let mut applied = self.applied.lock().unwrap();
            for (key, outcome) in keys.iter().zip(&outcomes) {
                if *outcome == SinkOutcome::Applied {
                    *applied.entry(key.clone()).or_default() += 1;
                }
                if matches!(outcome, SinkOutcome::Applied | SinkOutcome::Unchanged) {
                    self.taken.lock().unwrap().push(key.clone());
                }
            }
        }
        if self.drops_one_outcome {
            outcomes.pop();
        }
        Ok(outcomes)
    }

    fn piece_bytes(&self) -> usize {
        PIECE
    }

    async fn deliver_piece(&self, piece: &Piece<'_>) -> Result<PieceTaken, SinkError> {
        let mut pieces = self.pieces.lock().unwrap();
        assert_eq!(piece.offset % PIECE as u64, 0);
        assert!(piece.last.is_some() || piece.bytes.len() == PIECE);
        // What it remembers is what it said last, also after a crash.
        let remembered = (piece.offset > 0).then(|| format!("up to {}", piece.offset));
        assert_eq!(piece.upload, remembered.as_deref());
        for (offset, bytes) in &*pieces {
            assert!(*offset != piece.offset || *bytes == piece.bytes);
        }
        pieces.push((piece.offset, piece.bytes.clone()));
        if let Some(error) = self.errors.lock().unwrap().pop_front() {
            return Err(error);
        }
        if let Some(hash) = piece.last {
            let whole: BTreeMap<u64, Bytes> = pieces.iter().cloned().collect();
            let whole = Bytes::from(whole.values().flatten().copied().collect::<Vec<u8>>());
            assert_eq!(ContentHash::of(&whole), hash);
            let label = piece.file.label.to_owned();
            self.files.lock().unwrap().insert(label, whole);
        }
        let number = (piece.offset / PIECE as u64).to_string();
        let outcome = self
            .answer
            .map_or(SinkOutcome::Applied, |answer| answer(&number));
        let has_it = matches!(outcome, SinkOutcome::Applied | SinkOutcome::Unchanged);
        let identity = piece.file.id.to_owned();
        if piece.last.is_some() && has_it && self.answered.lock().unwrap().insert(identity) {
            self.taken.lock().unwrap().push("file".to_owned());
        }
        Ok(PieceTaken {
            outcome,
            upload: Some(format!("up to {}", piece.offset + PIECE as u64)),
        })
    }

    async fn finish(&self, finished: &Finished<'_>) -> Result<(), SinkError> {
        assert!(finished.counts.balances());
        self.finished.lock().unwrap().push(finished.complete);
        Ok(())
    }
}

/// One file, its declaration and all ports.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) label: String,
    pub(crate) import: Import,
    pub(crate) rerun: bool,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) ledger: MemoryLedger,
    pub(crate) mappings: MemoryMappings,
    pub(crate) sink: Option<MemorySink>,
    /// Whether every slice is out of time from its beginning: then it commits one batch.
    pub(crate) hurried: bool,
    /// The cache of all slices, where a test has one; otherwise each begins with nothing.
    pub(crate) mapping_cache: Option<MappingCache>,
}

impl World {
    pub(crate) fn new(label: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            label: label.to_owned(),
            import: Import {
                label: "*".to_owned(),
                natural_key: Some("/id".to_owned()),
                mappings: Vec::new(),
                ..Import::default()
            },
            rerun: false,
            limits: Limits {
                record_bytes: 200,
                batch_records: 4,
                batch_bytes: 400,
                ..Limits::default()
            },
            store: Store {
                bytes: bytes.into(),
                ranges: true,
                tells_length: true,
                shrunk_to: None,
                chunk: 16,
                faults: Mutex::default(),
                given: AtomicUsize::new(0),
                opened_at: Mutex::default(),
            },
            ledger: MemoryLedger::default(),
            mappings: MemoryMappings::default(),
            sink: None,
            hurried: false,
            mapping_cache: None,
        }
    }

    /// The world of the next attempt: the chain's records are there, and the file, whose content this is, begins again.
    pub(crate) fn next_attempt(mut self, bytes: impl Into<Bytes>) -> Self {
        let mut next = Self::new(&self.label, bytes);
        next.import = self.import;
        next.mappings.known = self.mappings.known;
        next.mappings.projects = self.mappings.projects;
        next.sink = self.sink.map(|_| MemorySink::default());
        let before = std::mem::take(self.ledger.stored.get_mut().unwrap());
        let stored = next.ledger.stored.get_mut().unwrap();
        stored.target = before.target;
        stored.attempts = before.attempts;
        stored.attempts.push(BTreeMap::new());
        next.rerun = true;
        next
    }

    /// Declares `/user` as an id of `identity:user`.
    pub(crate) fn maps_user(mut self, on_miss: OnMiss) -> Self {
        self.import.mappings.push(Mapping {
            pointer: "/user".to_owned(),
            namespace: "identity:user".to_owned(),
            on_miss,
            placeholder: (on_miss == OnMiss::Placeholder).then(|| "nobody".to_owned()),
            key_prefix: Some("u/".to_owned()),
            within: None,
            pattern: None,
        });
        self
    }

    pub(crate) fn knows_user(mut self, id: &str, cloud_id: &str) -> Self {
        self.mappings.known.insert(
            ("identity:user".to_owned(), format!("u/{id}")),
            cloud_id.to_owned(),
        );
        self
    }

    /// Declares `/project` as an id of a project of this migration.
    pub(crate) fn maps_project(mut self, on_miss: OnMiss) -> Self {
        self.import.mappings.push(Mapping {
            pointer: "/project".to_owned(),
            namespace: "jira/classic:project".to_owned(),
            on_miss,
            placeholder: (on_miss == OnMiss::Placeholder).then(|| "nowhere".to_owned()),
            key_prefix: None,
            within: Some(ContainerType::JiraProject),
            pattern: None,
        });
        self
    }

    /// The platform has a mapping for these projects, and this migration is of some of them.
    pub(crate) fn knows_projects(mut self, mapped: std::ops::Range<usize>, own: usize) -> Self {
        for project in mapped.clone() {
            let key = ("jira/classic:project".to_owned(), project.to_string());
            self.mappings.known.insert(key, format!("cloud-{project}"));
        }
        self.mappings.projects = mapped.take(own).map(|id| id.to_string()).collect();
        self
    }

    pub(crate) fn store_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.store.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn commit_fault(&self, commit: usize, fault: CommitFault) {
        self.ledger.faults.lock().unwrap().insert(commit, fault);
    }

    /// One slice from the stored checkpoint; `None` when the worker was killed in it.
    pub(crate) async fn slice(&self) -> Option<SliceOutcome> {
        let file = File {
            tenant: "tenant-1",
            transfer: "transfer-2",
            chain: "transfer-1",
            label: &self.label,
            key: "file-1",
            import: &self.import,
            rerun: self.rerun,
        };
        let own = MappingCache::new(1000);
        let ports = Ports {
            source: &self.store,
            ledger: &self.ledger,
            mappings: &self.mappings,
            mapping_cache: self.mapping_cache.as_ref().unwrap_or(&own),
            target: self.sink.as_ref().map_or(Target::Ledger, Target::Sink),
        };
        let stored = self.ledger.stored.lock().unwrap().checkpoint.clone();
        let checkpoint =
            stored.map_or_else(Checkpoint::start, |text| Checkpoint::decode(&text).unwrap());
        let out_of_time = || self.hurried;
        let slice = import_slice(&file, checkpoint, &ports, &self.limits, &out_of_time);
        tokio::select! {
            biased;
            outcome = must_be_send(slice) => Some(outcome),
            () = self.ledger.killed.notified() => None,
        }
    }

    /// Slices until the file is finished, whatever happens in between. One that was read to its end is measured as it is.
    pub(crate) async fn finish(&self) -> (Counts, Option<FileProblem>) {
        let (counts, problem, measure) = self.finish_measured().await;
        let is_given_up = !self.ledger.stored.lock().unwrap().rejections.is_empty()
            && self.import.format == Format::Raw;
        if problem.is_none() && !is_given_up {
            assert_eq!(measure, self.store.measure());
        }
        (counts, problem)
    }

    /// The same, with what the file measures, as far as that is known.
    pub(crate) async fn finish_measured(&self) -> (Counts, Option<FileProblem>, Measure) {
        for _ in 0..10_000 {
            if let Some(SliceOutcome::Finished {
                counts,
                problem,
                measure,
            }) = self.slice().await
            {
                assert!(counts.balances());
                return (counts, problem, measure);
            }
        }
        panic!("the file doesn't end");
    }

    /// The stored records, as text, by key.
    pub(crate) fn records(&self) -> Vec<String> {
        let stored = self.ledger.stored.lock().unwrap();
        stored
            .target
            .values()
            .map(|(hash, record)| {
                assert_eq!(*hash, ContentHash::of(record));
                String::from_utf8(record.to_vec()).unwrap()
            })
            .collect()
    }

    /// Keys of what landed, in the order of their landing.
    pub(crate) fn landed(&self) -> Vec<String> {
        if let Some(sink) = &self.sink {
            return sink.taken.lock().unwrap().clone();
        }
        self.ledger.stored.lock().unwrap().landed.clone()
    }

    /// The rejections, as text: number, key, reason.
    pub(crate) fn rejections(&self) -> Vec<String> {
        let stored = self.ledger.stored.lock().unwrap();
        stored
            .rejections
            .iter()
            .map(|rejection| {
                let kind = match rejection.kind {
                    RejectionKind::Rejected => "rejected",
                    RejectionKind::Held => "held",
                };
                let key = rejection.key.as_deref().unwrap_or("-");
                format!(
                    "{} {key} {kind}: {}",
                    rejection.record_number, rejection.reason
                )
            })
            .collect()
    }

    pub(crate) fn commits(&self) -> Vec<(Counts, u64)> {
        self.ledger.stored.lock().unwrap().commits.clone()
    }
}

/// A task that is spawned must be able to run a slice.
pub(crate) fn must_be_send<T>(
    future: impl Future<Output = T> + Send,
) -> impl Future<Output = T> + Send {
    future
}

/// `{"id":"r0000","n":0}` and so on, one a line.
pub(crate) fn lines(count: usize) -> String {
    numbered(count, |number| {
        format!("{{\"id\":\"r{number:04}\",\"n\":{number}}}\n")
    })
}

/// One text after the other.
pub(crate) fn numbered(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect::<Vec<_>>().concat()
}

/// The same records as an array.
pub(crate) fn array(count: usize) -> String {
    format!("[\n{}\n]\n", lines(count).trim_end().replace('\n', ",\n"))
}

pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("r{number:04}")).collect()
}

/// Compressed in so many members.
pub(crate) fn gzip(text: &str, members: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in text.as_bytes().chunks(text.len().div_ceil(members).max(1)) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(part).unwrap();
        packed.extend(encoder.finish().unwrap());
    }
    packed
}

pub(crate) fn applied(count: u64) -> Counts {
    Counts {
        read: count,
        applied: count,
        ..Counts::default()
    }
}

/// What an interrupted slice says: the reason and how long to wait.
pub(crate) fn interruption(outcome: Option<SliceOutcome>) -> (String, Option<Duration>) {
    match outcome {
        Some(SliceOutcome::Interrupted {
            reason,
            retry_after,
            ..
        }) => (reason.to_string(), retry_after),
        other => panic!("{other:?}"),
    }
}
