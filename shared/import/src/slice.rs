//! One slice of an import: gather a batch, prepare it, hand it over, commit it, and again until the time is up or the file ends.

mod gather;
mod hand_over;
mod prepare;
mod raw;

use std::time::Duration;

use landfall_transfer::Counts;

use crate::checkpoint::{Checkpoint, Ended, Reading};
use crate::declaration::{Format, Import, Limits};
use crate::format::Compression;
use crate::identity::PartsDigest;
use crate::mapping::{MappingCache, Rewriter};
use crate::ports::{
    Batch, CommitError, FileIdentity, Finished, Ledger, LedgerUnavailable, Mappings, MappingsError,
    Sink, SinkError, Source, SourceError,
};
use crate::problem::FileProblem;
use crate::reader::{ReadStop, Reader, ReaderOptions};
use crate::records::Cut;

use gather::Gathered;
use hand_over::HandedOver;

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
    fn id(&self) -> String {
        [self.tenant, self.transfer, self.chain, self.label, self.key]
            .into_iter()
            .fold(PartsDigest::new(), |digest, part| {
                digest.part(part.as_bytes())
            })
            .finish()
    }

    /// What a sink is told of the file.
    const fn identity<'a>(&'a self, id: &'a str) -> FileIdentity<'a> {
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
    /// To a sink outside; the ledger then keeps keys and hashes only.
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
    },
    /// The time is up; this is the committed checkpoint to go on from.
    Continue(Checkpoint),
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
    if let Some(Ended { problem }) = checkpoint.ended {
        return SliceOutcome::Finished {
            counts: checkpoint.counts,
            problem,
        };
    }
    if file.import.format == Format::Raw {
        return raw::import_slice(file, checkpoint, ports, limits, out_of_time).await;
    }
    let options = ReaderOptions {
        label: file.label,
        format: file.import.format,
        csv: &file.import.csv,
        file_bytes: limits.file_bytes,
        record_bytes: limits.record_bytes,
        reopens_without_progress: limits.attempts_without_progress,
    };
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
        rewriter,
        file,
        ports,
        limits,
    };
    let mut slice = Slice {
        job,
        out_of_time,
        reader,
        checkpoint,
        carried: None,
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
    }
    stop.into_outcome(slice.checkpoint)
}

/// What stays the same for all batches of a slice.
struct Job<'a, S, L, M, K> {
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

struct Slice<'a, S: Source, L, M, K, C> {
    job: Job<'a, S, L, M, K>,
    out_of_time: &'a C,
    reader: Reader<'a, S, &'a C>,
    /// The last committed one.
    checkpoint: Checkpoint,
    /// A record that was cut, but found no room in its batch.
    carried: Option<Cut>,
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink, C: Fn() -> bool + Sync> Slice<'_, S, L, M, K, C> {
    async fn run(&mut self) -> Result<SliceOutcome, Stop> {
        loop {
            let gathered = self.gather().await?;
            let prepared = self.job.prepare(&gathered).await?;
            let handed_over = self.job.hand_over(&gathered, prepared).await?;
            if let Some(Ended { problem }) = &gathered.ended {
                let counts = self.checkpoint.counts + handed_over.counts;
                self.job.finish(counts, problem.is_none()).await?;
            }
            self.commit(gathered, handed_over).await?;
            if let Some(Ended { problem }) = &self.checkpoint.ended {
                return Ok(SliceOutcome::Finished {
                    counts: self.checkpoint.counts,
                    problem: problem.clone(),
                });
            }
            let last = (self.out_of_time)();
            self.keep_restart_point(last).await;
            if last {
                return Ok(SliceOutcome::Continue(self.checkpoint.clone()));
            }
        }
    }

    /// Keeps the place from which the next slice need not read the file again, where it is time to. `last` says that this slice ends.
    async fn keep_restart_point(&mut self, last: bool) {
        let point = self.reader.restart_point(self.checkpoint.offset, last);
        if let Some(point) = point {
            self.job.ports.ledger.keep_restart_point(point).await;
        }
    }

    async fn commit(&mut self, gathered: Gathered, handed_over: HandedOver) -> Result<(), Stop> {
        let HandedOver {
            landed,
            rejections,
            counts,
        } = handed_over;
        let read = gathered.cuts.len() as u64;
        assert!(
            counts.balances() && counts.read == read,
            "each of {read} records has one outcome: {counts}"
        );
        let checkpoint = Checkpoint {
            offset: gathered.offset,
            record_number: gathered.records_before + read,
            reading: gathered.reading,
            columns: self.reader.columns().to_vec(),
            raw: None,
            counts: self.checkpoint.counts + counts,
            ended: gathered.ended,
        };
        let batch = Batch {
            checkpoint: checkpoint.clone(),
            landed,
            rejections,
            counts,
        };
        self.job.ports.ledger.commit(batch).await?;
        self.checkpoint = checkpoint;
        Ok(())
    }

    /// Ends the file after the last committed batch. What was read since is not counted: nothing became of it.
    async fn end_with(&mut self, problem: FileProblem) -> Result<SliceOutcome, Stop> {
        let checkpoint = Checkpoint {
            ended: Some(Ended::because(problem.clone())),
            ..self.checkpoint.clone()
        };
        let counts = checkpoint.counts;
        match self.job.finish(counts, false).await {
            // One problem is enough to end a file, and this one was first.
            Ok(()) | Err(Stop::Problem(_)) => {}
            Err(stop) => return Err(stop),
        }
        let batch = Batch {
            checkpoint,
            landed: Vec::new(),
            rejections: Vec::new(),
            counts: Counts::default(),
        };
        self.job.ports.ledger.commit(batch).await?;
        Ok(SliceOutcome::Finished {
            counts,
            problem: Some(problem),
        })
    }
}
