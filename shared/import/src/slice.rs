//! One slice of an import: gather a batch, prepare it, hand it over, commit it, and again until the time is up or the file ends.
//!
//! With the ledger as the target each batch is committed by itself: its records are part of the transaction. With a sink outside a commit
//! follows on a thousand records, because there it only says how far the file is.

mod budget;
mod gather;
mod hand_over;
mod prepare;
mod raw;
mod staged;

use std::time::Duration;

use landfall_transfer::{Counts, Measure};

use crate::checkpoint::{Checkpoint, Ended, Reading, SecondPass};
use crate::declaration::{Format, Import, Limits, OnRerun};
use crate::format::Compression;
use crate::identity::PartsDigest;
use crate::mapping::{MappingCache, Rewriter, UsedMappings};
use crate::ports::{
    Batch, CommitError, FileIdentity, Finished, KeptMappings, Ledger, LedgerUnavailable, Mappings,
    MappingsError, Pass, Sink, SinkError, Source, SourceError,
};
use crate::problem::FileProblem;
use crate::reader::{ReadStop, Reader, ReaderOptions};
use crate::records::Cut;
use crate::segments::{Known, SEGMENT_RECORDS, Segment};

use budget::Causes;
use gather::Gathered;
use hand_over::{Done, Waiting};
use prepare::Rewritten;

/// The file that is imported, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Tenant of the transfer.
    pub tenant: &'a str,
    /// The transfer.
    pub transfer: &'a str,
    /// The chain: the id of the first attempt.
    pub chain: &'a str,
    /// The file's label; `""` where it has none.
    pub label: &'a str,
    /// The platform's key of the file.
    pub key: &'a str,
    /// How its label is declared.
    pub import: &'a Import,
    /// Whether the transfer is a re-run: then the ledger is asked what the chain has already.
    pub rerun: bool,
}

impl File<'_> {
    /// Names the file apart from all others.
    pub(crate) fn id(&self) -> String {
        [self.tenant, self.transfer, self.chain, self.label, self.key]
            .into_iter()
            .fold(PartsDigest::new(), |digest, part| {
                digest.part(part.as_bytes())
            })
            .finish()
    }

    /// What a sink is told of the file.
    pub(crate) const fn identity<'a>(&'a self, id: &'a str) -> FileIdentity<'a> {
        FileIdentity {
            tenant: self.tenant,
            transfer: self.transfer,
            chain: self.chain,
            label: self.label,
            id,
        }
    }
}

/// Where records go.
#[derive(Debug)]
pub enum Target<'a, K> {
    /// Into the ledger's own transaction, together with the checkpoint.
    Ledger,
    /// To a sink outside; the ledger then keeps fingerprints only.
    Sink(&'a K),
}

/// What a slice works with.
#[derive(Debug)]
pub struct Ports<'a, S, L, M, K> {
    /// The file's bytes.
    pub source: &'a S,
    /// The file's progress; bound to its fencing token.
    pub ledger: &'a L,
    /// The platform's mappings.
    pub mappings: &'a M,
    /// What is known of them; of this transfer only, across slices where the caller keeps it.
    pub mapping_cache: &'a MappingCache,
    /// The target.
    pub target: Target<'a, K>,
}

/// How a slice ended.
#[derive(Debug)]
pub enum SliceOutcome {
    /// The file is done with, and that is committed.
    Finished {
        /// What became of its records.
        counts: Counts,
        /// Why it ended early, if it did.
        problem: Option<FileProblem>,
        /// What the stored file measures, where it was read to its last byte.
        measure: Measure,
    },
    /// The time is up; this is the committed checkpoint to go on from.
    Continue(Checkpoint),
    /// The file was read to its end with records held. This committed checkpoint begins its second pass, in which they are asked again: it is to
    /// be gone on from after a pause, in which what they miss may come.
    ReadAgain(Checkpoint),
    /// Something failed that trying again may heal.
    Interrupted {
        /// What failed.
        reason: Interruption,
        /// How long to wait, when somebody said so.
        retry_after: Option<Duration>,
        /// The last checkpoint that is known to be committed. After [`CommitError::Unknown`] the stored one may be one batch further.
        checkpoint: Checkpoint,
    },
    /// The file belongs to somebody else now; nothing more was written.
    FenceLost,
}

/// What interrupted a slice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// The file can't be read on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Ids can't be looked up.
    #[error(transparent)]
    Mappings(#[from] MappingsError),
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerUnavailable),
    /// The batch is not, or perhaps not, committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The sink takes nothing.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Why a slice can't go on.
#[derive(Debug)]
enum Stop {
    Later {
        reason: Interruption,
        retry_after: Option<Duration>,
    },
    Problem(FileProblem),
    FenceLost,
}

impl Stop {
    /// What the slice ends with; `checkpoint` is the last committed one.
    fn into_outcome(self, checkpoint: Checkpoint) -> SliceOutcome {
        match self {
            Self::Later {
                reason,
                retry_after,
            } => SliceOutcome::Interrupted {
                reason,
                retry_after,
                checkpoint,
            },
            Self::FenceLost => SliceOutcome::FenceLost,
            Self::Problem(problem) => unreachable!("a commit doesn't end a file: {problem}"),
        }
    }
}

impl From<ReadStop> for Stop {
    fn from(stop: ReadStop) -> Self {
        match stop {
            ReadStop::Later { error, retry_after } => Self::Later {
                reason: error.into(),
                retry_after,
            },
            ReadStop::Gone { reason } => Self::Problem(FileProblem::SourceGone { reason }),
        }
    }
}

impl From<MappingsError> for Stop {
    fn from(error: MappingsError) -> Self {
        match error {
            MappingsError::Refused { reason } => {
                Self::Problem(FileProblem::MappingsRefused { reason })
            }
            MappingsError::Throttled { retry_after } => Self::Later {
                reason: error.into(),
                retry_after,
            },
            MappingsError::Unavailable { .. } => Self::Later {
                reason: error.into(),
                retry_after: None,
            },
        }
    }
}

impl From<LedgerUnavailable> for Stop {
    fn from(error: LedgerUnavailable) -> Self {
        Self::Later {
            reason: error.into(),
            retry_after: None,
        }
    }
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::FenceLost => Self::FenceLost,
            CommitError::Unknown { .. } | CommitError::Unavailable { .. } => Self::Later {
                reason: error.into(),
                retry_after: None,
            },
        }
    }
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Refused { reason } => Self::Problem(FileProblem::SinkRefused { reason }),
            SinkError::Unavailable { retry_after, .. } => Self::Later {
                reason: error.into(),
                retry_after,
            },
            SinkError::MalformedAnswer { .. } => Self::Later {
                reason: error.into(),
                retry_after: None,
            },
        }
    }
}

/// Imports a file from its checkpoint on, batch by batch, until it ends, something fails, or `out_of_time` says so after a commit.
///
/// At least one batch is committed per slice when that is possible at all, however late it is. Dropping the future is a crash like any
/// other: the stored checkpoint tells where to go on.
pub async fn import_slice<S: Source, L: Ledger, M: Mappings, K: Sink>(
    file: &File<'_>,
    checkpoint: Checkpoint,
    ports: &Ports<'_, S, L, M, K>,
    limits: &Limits,
    out_of_time: &(impl Fn() -> bool + Sync),
) -> SliceOutcome {
    if let Some(Ended { problem, measure }) = checkpoint.ended {
        return SliceOutcome::Finished {
            counts: checkpoint.counts,
            problem,
            measure,
        };
    }
    if file.import.format == Format::Raw {
        return raw::import_slice(file, checkpoint, ports, limits, out_of_time).await;
    }
    let mut options = ReaderOptions {
        label: file.label,
        digest: file.import.digest,
        format: file.import.format,
        csv: &file.import.csv,
        file_bytes: limits.file_bytes,
        record_bytes: limits.record_bytes,
        reopens_without_progress: limits.attempts_without_progress,
    };
    if file.import.staged {
        // What the export held to its limits has grown on the way here.
        options.file_bytes = u64::MAX;
        options.record_bytes = limits.record_bytes.saturating_add(staged::LINE_BYTES);
    }
    let compressed = |reading: Reading| reading.compression != Compression::Plain;
    let restart = if checkpoint.offset > 0 && checkpoint.reading.is_some_and(compressed) {
        match ports.ledger.restart_point().await {
            Ok(point) => point,
            Err(error) => {
                return SliceOutcome::Interrupted {
                    reason: error.into(),
                    retry_after: None,
                    checkpoint,
                };
            }
        }
    } else {
        None
    };
    let reader = Reader::new(ports.source, &checkpoint, restart, options, out_of_time);
    let rewriter = Rewriter::new(file.import)
        .unwrap_or_else(|problem| panic!("a declaration that was validated compiles: {problem}"));
    let job = Job {
        behind: checkpoint.second.as_ref().map(|second| second.behind),
        rewriter,
        file,
        ports,
        limits,
    };
    let mut slice = Slice {
        job,
        out_of_time,
        reader,
        position: Position::of(&checkpoint),
        checkpoint,
        carried: None,
        known: None,
        waiting: Waiting::default(),
        done: Done::default(),
        causes: Causes::default(),
        pieces: 0,
        segment: Segment::default(),
    };
    let stop = match slice.run().await {
        Ok(outcome) => return outcome,
        Err(Stop::Problem(problem)) => match slice.end_with(problem).await {
            Ok(outcome) => return outcome,
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    if matches!(stop, Stop::Later { .. }) {
        slice.keep_restart_point(true).await;
        if slice.job.ports.ledger.check_fence().await.is_ok() {
            slice.keep_used_mappings(true).await;
        }
        if slice.keep_segment().await.is_err() {
            return SliceOutcome::FenceLost;
        }
    }
    stop.into_outcome(slice.checkpoint)
}

/// Learns what earlier attempts have landed, where the file is one of a re-run and that matters; in a second pass, what this one has.
async fn look_back<L: Ledger>(
    file: &File<'_>,
    ledger: &L,
    checkpoint: &Checkpoint,
) -> Result<Option<Known>, Stop> {
    if checkpoint.second.is_some() {
        let replaces = file.rerun && file.import.on_rerun == OnRerun::Replace;
        let known = if replaces {
            Known::load_own(ledger, checkpoint).await?
        } else {
            Known::load(ledger, checkpoint).await?
        };
        return Ok(Some(known));
    }
    if !file.rerun {
        return Ok(None);
    }
    match file.import.on_rerun {
        OnRerun::Delta => Ok(Some(Known::load(ledger, checkpoint).await?)),
        OnRerun::Replace => Ok(None),
        OnRerun::Refuse => {
            let attempts = ledger.attempts().await?;
            let earlier = attempts.iter().filter(|attempt| *attempt != file.transfer);
            for attempt in earlier {
                let page = ledger.segments(attempt, None).await?;
                if page.segments.iter().any(|kept| !kept.landed.is_empty()) {
                    return Err(Stop::Problem(FileProblem::RerunRefused));
                }
            }
            Ok(None)
        }
    }
}

/// What stays the same for all batches of a slice.
struct Job<'a, S, L, M, K> {
    /// Decompressed bytes that the first pass read, in a second one.
    behind: Option<u64>,
    rewriter: Rewriter<'a>,
    file: &'a File<'a>,
    ports: &'a Ports<'a, S, L, M, K>,
    limits: &'a Limits,
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink> Job<'_, S, L, M, K> {
    /// Tells a sink outside that nothing follows of the file.
    async fn finish(&self, counts: Counts, complete: bool) -> Result<(), Stop> {
        let Target::Sink(sink) = &self.ports.target else {
            return Ok(());
        };
        if !sink.hears_the_end() {
            return Ok(());
        }
        self.ports.ledger.check_fence().await?;
        let id = self.file.id();
        let finished = Finished {
            file: self.file.identity(&id),
            counts,
            complete,
            content_hash: None,
        };
        Ok(sink.finish(&finished).await?)
    }
}

/// What it comes to that there is nothing more to read.
enum Conclusion {
    /// Records are held: the file, which measures this, is read once more.
    ReadAgain(Measure),
    /// The file has ended, by a batch of this pass, and these are its counts.
    Ended {
        pass: Pass,
        counts: Counts,
        ended: Ended,
    },
}

/// How far a file is read.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    offset: u64,
    record_number: u64,
    reading: Option<Reading>,
}

impl Position {
    const fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            offset: checkpoint.offset,
            record_number: checkpoint.record_number,
            reading: checkpoint.reading,
        }
    }
}

/// How much of a file is read at most without a commit, in bytes: some seconds of a re-run in which nothing has changed, so that a worker
/// that dies repeats no more.
const UNCOMMITTED_BYTES: u64 = 64 * 1024 * 1024;

struct Slice<'a, S: Source, L, M, K, C> {
    job: Job<'a, S, L, M, K>,
    out_of_time: &'a C,
    reader: Reader<'a, S, &'a C>,
    /// The last committed one.
    checkpoint: Checkpoint,
    /// How far batches are gathered.
    position: Position,
    /// A record that was cut, but found no room in its batch.
    carried: Option<Cut>,
    /// What earlier attempts landed, where that matters.
    known: Option<Known>,
    waiting: Waiting,
    done: Done,
    /// What records failed for of late.
    causes: Causes,
    /// Pieces of used mappings that were kept.
    pieces: usize,
    /// What is committed and no segment shows yet, with the ledger as the target.
    segment: Segment,
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink, C: Fn() -> bool + Sync> Slice<'_, S, L, M, K, C> {
    async fn run(&mut self) -> Result<SliceOutcome, Stop> {
        let (file, ledger) = (self.job.file, self.job.ports.ledger);
        self.known = look_back(file, ledger, &self.checkpoint).await?;
        let mut kept_up_to = self.checkpoint.record_number;
        loop {
            let (gathered, rewritten) = match self.next_batch().await {
                Ok(batch) => batch,
                Err(stop) => {
                    // What was read before is still good.
                    self.hand_over().await?;
                    self.commit().await?;
                    return Err(stop);
                }
            };
            if self.waiting.has_any(&rewritten.records) {
                self.hand_over().await?;
            }
            let known = self.known.as_mut();
            let prepared = self.job.prepare(rewritten.records, known).await?;
            let limits = self.job.limits;
            if !self
                .waiting
                .has_room_for(&prepared, &rewritten.rejections, limits)
            {
                self.hand_over().await?;
            }
            self.causes.add(&rewritten.rejections);
            self.waiting.add(&gathered, prepared, rewritten.rejections);
            let ended = gathered.ended.is_some();
            // The batches of a first attempt are full.
            if ended || self.known.is_none() {
                self.hand_over().await?;
            }
            // Asked only now: handing over takes its time.
            let last = (self.out_of_time)();
            let ends = last || ended;
            if ends {
                self.hand_over().await?;
            }
            let uncommitted = self.position.offset - self.checkpoint.offset;
            if ends || self.done.fingerprints.len() >= SEGMENT_RECORDS {
                self.commit().await?;
            } else if uncommitted > UNCOMMITTED_BYTES {
                self.hand_over().await?;
                self.commit().await?;
            }
            if ends {
                self.keep_segment().await?;
            }
            if ends || self.checkpoint.record_number > kept_up_to {
                // A commit has just proved the fencing token and renewed the lease.
                kept_up_to = self.checkpoint.record_number;
                self.keep_used_mappings(ends).await;
            }
            if let Some(Ended { problem, measure }) = &self.checkpoint.ended {
                return Ok(SliceOutcome::Finished {
                    counts: self.checkpoint.counts,
                    problem: problem.clone(),
                    measure: measure.clone(),
                });
            }
            if self.job.behind.is_none() && self.checkpoint.second.is_some() {
                return Ok(SliceOutcome::ReadAgain(self.checkpoint.clone()));
            }
            let so_far = self.checkpoint.counts + self.done.counts;
            // A file whose first pass bore its failures isn't judged again.
            let is_judged = self.job.behind.is_none();
            if is_judged && self.causes.too_many(file.import, so_far, false).is_some() {
                // What the file ends with is what is committed.
                self.hand_over().await?;
                self.commit().await?;
                let so_far = self.checkpoint.counts;
                if let Some(problem) = self.causes.too_many(file.import, so_far, false) {
                    return Err(Stop::Problem(problem));
                }
            }
            if let Some(known) = &mut self.known {
                known.move_on(self.job.ports.ledger).await?;
            }
            self.keep_restart_point(last).await;
            if last {
                return Ok(SliceOutcome::Continue(self.checkpoint.clone()));
            }
        }
    }

    async fn next_batch(&mut self) -> Result<(Gathered, Rewritten), Stop> {
        let gathered = self.gather().await?;
        let rewritten = self.job.rewritten(&gathered).await?;
        self.position = gathered.position();
        Ok((gathered, rewritten))
    }

    /// Hands over what is waiting. When that fails, what was handed over before is committed.
    async fn hand_over(&mut self) -> Result<(), Stop> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if !self.done.has_room_for(&self.waiting) {
            self.commit().await?;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let outcomes = match self.job.hand_over(&waiting).await {
            Ok(outcomes) => outcomes,
            Err(Stop::FenceLost) => return Err(Stop::FenceLost),
            Err(stop) => {
                self.commit().await?;
                return Err(stop);
            }
        };
        let by_commit = outcomes.is_none();
        let before = self.done.fingerprints.len();
        self.done.add(waiting, outcomes);
        if let Some(known) = &mut self.known {
            for fingerprint in &self.done.fingerprints[before..] {
                known.landed(*fingerprint);
            }
        }
        if by_commit {
            // A transaction holds no more.
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits what has its outcome, if anything has.
    async fn commit(&mut self) -> Result<(), Stop> {
        let mut finished = Ok(());
        if self.done.end.is_some() {
            self.causes.settle(self.done.rejections.len());
        }
        let mut conclusion = None;
        if let Some((_, Some(ended))) = &self.done.end {
            let concluded = self.conclude(ended.clone());
            if let Conclusion::Ended { counts, ended, .. } = &concluded {
                finished = self.job.finish(*counts, ended.problem.is_none()).await;
            }
            // The records have their outcome nevertheless; that the file ends is said another time.
            conclusion = finished.is_ok().then_some(concluded);
        }
        if matches!(finished, Err(Stop::FenceLost)) {
            return finished;
        }
        if let Some(Conclusion::Ended { .. }) = conclusion {
            self.keep_last_mappings().await;
        }
        self.commit_done(conclusion).await?;
        finished
    }

    /// What the end of the file comes to, with what is about to be committed.
    fn conclude(&self, mut ended: Ended) -> Conclusion {
        let of_pass = self.checkpoint.counts_of_pass() + self.done.counts;
        let first = self.checkpoint.counts;
        match &self.checkpoint.second {
            None => {
                if ended.problem.is_none() {
                    let import = self.job.file.import;
                    ended.problem = self.causes.too_many(import, of_pass, true);
                }
                if ended.problem.is_none() && of_pass.held > 0 {
                    return Conclusion::ReadAgain(ended.measure);
                }
                Conclusion::Ended {
                    pass: Pass::First,
                    counts: of_pass,
                    ended,
                }
            }
            Some(second) => match ended.problem {
                None => {
                    let second = SecondPass {
                        counts: of_pass,
                        ..second.clone()
                    };
                    Conclusion::Ended {
                        pass: Pass::SecondEnds,
                        counts: second.conclude(first),
                        ended,
                    }
                }
                Some(problem) => Conclusion::Ended {
                    pass: Pass::Second,
                    counts: first,
                    ended: as_the_first_pass(second, &problem),
                },
            },
        }
    }

    async fn commit_done(&mut self, conclusion: Option<Conclusion>) -> Result<(), Stop> {
        let mut done = std::mem::take(&mut self.done);
        let Some((position, _)) = done.end else {
            return Ok(());
        };
        let read = position.record_number - self.checkpoint.record_number;
        assert!(
            done.counts.balances() && done.counts.read == read,
            "each of {read} records has one outcome: {}",
            done.counts
        );
        let ledger = self.job.ports.ledger;
        let of_pass = self.checkpoint.counts_of_pass() + done.counts;
        let (pass, checkpoint) = match conclusion {
            Some(Conclusion::ReadAgain(measure)) => (
                Pass::FirstEnds,
                Checkpoint::read_again(of_pass, position.offset, measure),
            ),
            Some(Conclusion::Ended {
                pass,
                counts,
                ended,
            }) => (
                pass,
                Checkpoint {
                    counts,
                    ended: Some(ended),
                    ..self.read_up_to(position)
                },
            ),
            None => match &self.checkpoint.second {
                None => (
                    Pass::First,
                    Checkpoint {
                        counts: of_pass,
                        ..self.read_up_to(position)
                    },
                ),
                Some(second) => (
                    Pass::Second,
                    Checkpoint {
                        counts: self.checkpoint.counts,
                        second: Some(SecondPass {
                            counts: of_pass,
                            ..second.clone()
                        }),
                        ..self.read_up_to(position)
                    },
                ),
            },
        };
        let second_pass = self.job.behind.is_some();
        let first_record = self.checkpoint.record_number + 1;
        let by_commit = matches!(self.job.ports.target, Target::Ledger);
        if !by_commit && !done.fingerprints.is_empty() {
            // First what the sink has, then that it is done with: a crash in between delivers the same again.
            let segment = Segment {
                second_pass,
                first_record,
                last_record: position.record_number,
                landed: std::mem::take(&mut done.fingerprints),
            };
            ledger.keep_segment(segment).await?;
        }
        let batch = Batch {
            pass,
            checkpoint: checkpoint.clone(),
            landed: done.landed,
            rejections: done.rejections,
            counts: done.counts,
        };
        ledger.commit(batch).await?;
        self.checkpoint = checkpoint;
        if by_commit {
            // Only now: a segment never says more than what is committed.
            if self.segment.landed.is_empty() {
                self.segment.first_record = first_record;
                self.segment.second_pass = second_pass;
            }
            self.segment.last_record = position.record_number;
            self.segment.landed.extend(done.fingerprints);
        }
        if self.segment.landed.len() >= SEGMENT_RECORDS {
            self.keep_segment().await?;
        }
        Ok(())
    }

    /// The file read up to there, without what became of its records.
    fn read_up_to(&self, position: Position) -> Checkpoint {
        Checkpoint {
            offset: position.offset,
            record_number: position.record_number,
            reading: position.reading,
            columns: self.reader.columns().to_vec(),
            hashed: self.reader.hashed(),
            base: self.known.as_ref().and_then(Known::base),
            ..Checkpoint::default()
        }
    }

    /// Keeps what the ledger's commits have landed since the last segment. What can't be kept is looked up by a later attempt.
    async fn keep_segment(&mut self) -> Result<(), Stop> {
        let segment = std::mem::take(&mut self.segment);
        if segment.landed.is_empty() {
            return Ok(());
        }
        match self.job.ports.ledger.keep_segment(segment).await {
            Err(CommitError::FenceLost) if self.checkpoint.ended.is_none() => Err(Stop::FenceLost),
            _ => Ok(()),
        }
    }

    /// Keeps the place from which the next slice need not read the file again, where it is time to. `last` says that this slice ends.
    async fn keep_restart_point(&mut self, last: bool) {
        let point = self.reader.restart_point(self.checkpoint.offset, last);
        if let Some(point) = point {
            self.job.ports.ledger.keep_restart_point(point).await;
        }
    }

    /// Keeps which mappings were used, where there are many or this slice ends.
    async fn keep_used_mappings(&mut self, last: bool) {
        let pieces = self.job.ports.mapping_cache.take_used(last);
        self.keep_pieces(pieces).await;
    }

    /// Keeps the rest of them before the commit that ends the file: afterwards nobody holds it.
    async fn keep_last_mappings(&mut self) {
        let ports = self.job.ports;
        let pieces = ports.mapping_cache.take_used(true);
        if !pieces.is_empty() && ports.ledger.check_fence().await.is_ok() {
            self.keep_pieces(pieces).await;
        }
    }

    async fn keep_pieces(&mut self, pieces: Vec<UsedMappings>) {
        let ports = self.job.ports;
        for piece in pieces {
            let number = self.pieces;
            self.pieces += 1;
            match piece.pack() {
                Ok(packed) => {
                    let piece = KeptMappings {
                        offset: self.checkpoint.offset,
                        number,
                        packed: packed.into(),
                    };
                    ports.ledger.keep_mappings(piece).await;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "Used mappings could not be packed; they are not kept.");
                }
            }
        }
    }

    /// Ends the file after the last committed batch. What was read since is not counted: nothing became of it.
    async fn end_with(&mut self, problem: FileProblem) -> Result<SliceOutcome, Stop> {
        let counts = self.checkpoint.counts;
        let (pass, mut ended) = match &self.checkpoint.second {
            None => (Pass::First, Ended::because(problem)),
            Some(second) => (Pass::Second, as_the_first_pass(second, &problem)),
        };
        match self.job.finish(counts, ended.problem.is_none()).await {
            Ok(()) => {}
            // One problem is enough to end a file, and the other was first.
            Err(Stop::Problem(_)) if ended.problem.is_some() => {}
            Err(Stop::Problem(problem)) => ended = Ended::because(problem),
            Err(stop) => return Err(stop),
        }
        let checkpoint = Checkpoint {
            second: None,
            ended: Some(ended.clone()),
            ..self.checkpoint.clone()
        };
        let batch = Batch {
            pass,
            checkpoint,
            landed: Vec::new(),
            rejections: Vec::new(),
            counts: Counts::default(),
        };
        self.keep_last_mappings().await;
        self.job.ports.ledger.commit(batch).await?;
        self.keep_segment().await?;
        Ok(SliceOutcome::Finished {
            counts,
            problem: ended.problem,
            measure: ended.measure,
        })
    }
}

/// How a file ends whose second pass came to nothing: as its first pass had ended, which had read all of it.
fn as_the_first_pass(second: &SecondPass, problem: &FileProblem) -> Ended {
    tracing::warn!(error = %problem, "A file could not be read to its end for the second time; what became of its records the first time counts.");
    Ended {
        problem: None,
        measure: second.measure.clone(),
    }
}
