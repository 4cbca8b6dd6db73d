//! Imports a file with `format = "raw"`: never parsed, handed over as it is stored, in pieces of one size.
//!
//! Where a piece ends depends on the file and on the sink's size of pieces alone. The whole file is one record: its key is always the same, so
//! chain and label identify it, and its content is the SHA-256 of its bytes. A re-run reads a file that the chain has once through to compare
//! it, and hands it over only where it differs.

use bytes::{Buf as _, Bytes, BytesMut};
use landfall_transfer::{Counts, Measure};

use super::{File, Ports, SliceOutcome, Stop, Target, look_back};
use crate::checkpoint::{Checkpoint, Ended, RawProgress};
use crate::declaration::Limits;
use crate::identity::{ContentHash, RunningHash, bounded_reason};
use crate::ports::{
    Batch, Finished, Ledger, Mappings, PIECE_BYTES, PIECE_BYTES_MAX, Pass, Piece, Rejection,
    RejectionKind, Sink, SinkError, SinkOutcome, Source,
};
use crate::problem::FileProblem;
use crate::reader::StoredBytes;
use crate::segments::{Fingerprint, Known, Segment};

/// The key of a raw file's one record. The empty text would say the same, but no store takes it for a key.
const KEY: &str = "file";

/// Bytes that are compared between two checkpoints: what a crash costs at most, for one write.
const COMPARED_EVERY: u64 = 64 * 1024 * 1024;

/// Imports a raw file from its checkpoint on, piece by piece. What holds for [`super::import_slice`] holds for it.
pub(super) async fn import_slice<S: Source, L: Ledger, M: Mappings, K: Sink>(
    file: &File<'_>,
    checkpoint: Checkpoint,
    ports: &Ports<'_, S, L, M, K>,
    limits: &Limits,
    out_of_time: &(impl Fn() -> bool + Sync),
) -> SliceOutcome {
    let mut slice = match RawSlice::start(file, checkpoint, ports, limits, out_of_time).await {
        Ok(slice) => slice,
        Err(interrupted) => return interrupted,
    };
    let stop = match slice.run().await {
        Ok(outcome) => return outcome,
        Err(Stop::Problem(problem)) => match slice.end_with(problem).await {
            Ok(outcome) => return outcome,
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    stop.into_outcome(slice.checkpoint)
}

struct RawSlice<'a, S: Source, L, K, C> {
    file: &'a File<'a>,
    /// The file's id.
    id: String,
    ledger: &'a L,
    sink: Option<&'a K>,
    source: &'a S,
    limits: &'a Limits,
    out_of_time: &'a C,
    pieces: Pieces<'a, S, &'a C>,
    /// What the chain has under this label, if anything.
    known: Option<Known>,
    /// Why nothing of the file is taken.
    refused: Option<FileProblem>,
    /// The last committed one.
    checkpoint: Checkpoint,
    /// How far this slice is.
    progress: RawProgress,
}

impl RawProgress {
    fn start(compares: bool) -> Self {
        Self {
            hash: RunningHash::default(),
            compared: compares.then_some(0),
            upload: None,
        }
    }
}

impl<'a, S: Source, L: Ledger, K: Sink, C: Fn() -> bool + Sync> RawSlice<'a, S, L, K, C> {
    async fn start<M: Mappings>(
        file: &'a File<'a>,
        checkpoint: Checkpoint,
        ports: &Ports<'a, S, L, M, K>,
        limits: &'a Limits,
        out_of_time: &'a C,
    ) -> Result<Self, SliceOutcome> {
        let sink = match &ports.target {
            Target::Sink(sink) => Some(*sink),
            // Refused at start-up, so the configuration is another one than when the file was begun.
            Target::Ledger => None,
        };
        let (known, refused) = match look_back(file, ports.ledger, &checkpoint).await {
            Ok(known) => (known.filter(|known| known.has_key(KEY)), None),
            Err(Stop::Problem(problem)) => (None, Some(problem)),
            Err(stop) => return Err(stop.into_outcome(checkpoint)),
        };
        let progress = match &checkpoint.raw {
            // What it was compared with is not there any more.
            Some(progress) if progress.compared.is_some() && known.is_none() => {
                RawProgress::start(false)
            }
            Some(progress) => progress.clone(),
            None => RawProgress::start(known.is_some()),
        };
        let size = sink.map_or(PIECE_BYTES, Sink::piece_bytes);
        assert!(
            (1..=PIECE_BYTES_MAX).contains(&size) && size.is_multiple_of(64),
            "a sink's pieces are of a possible size: {size}"
        );
        let from = progress.compared.unwrap_or(checkpoint.offset);
        Ok(Self {
            file,
            id: file.id(),
            ledger: ports.ledger,
            sink,
            source: ports.source,
            limits,
            out_of_time,
            pieces: Pieces::at(from, size, ports.source, limits, out_of_time),
            known,
            refused,
            checkpoint,
            progress,
        })
    }

    async fn run(&mut self) -> Result<SliceOutcome, Stop> {
        if let Some(problem) = self.refused.take() {
            return Err(Stop::Problem(problem));
        }
        loop {
            let (bytes, last) = self.next().await?;
            self.progress.hash.update(&bytes);
            let has_ended = if self.progress.compared.is_some() {
                self.compare(bytes.len() as u64, last).await?
            } else {
                self.hand_over(bytes, last).await?
            };
            if has_ended {
                let ended = self.checkpoint.ended.clone().unwrap_or_default();
                return Ok(SliceOutcome::Finished {
                    counts: self.checkpoint.counts,
                    problem: None,
                    measure: ended.measure,
                });
            }
            if (self.out_of_time)() {
                self.keep_compared(1).await?;
                return Ok(SliceOutcome::Continue(self.checkpoint.clone()));
            }
        }
    }

    /// The next piece, and whether it is the last one.
    async fn next(&mut self) -> Result<(Bytes, bool), Stop> {
        let piece = self.pieces.next().await?;
        let max = self.limits.file_bytes;
        if self.pieces.position > max {
            return Err(Stop::Problem(FileProblem::TooLarge { max }));
        }
        Ok(piece)
    }

    /// Compares a piece. `true` when the file has ended, the same as the chain has it.
    async fn compare(&mut self, length: u64, last: bool) -> Result<bool, Stop> {
        let compared = self.progress.compared.unwrap_or(0) + length;
        self.progress.compared = Some(compared);
        if !last {
            self.keep_compared(COMPARED_EVERY).await?;
            return Ok(false);
        }
        let hash = self.progress.hash.clone().finish();
        let same = Fingerprint::of(KEY, &hash);
        if self.known.as_mut().is_some_and(|known| known.has(same)) {
            let counts = Counts {
                read: 1,
                unchanged: 1,
                ..Counts::default()
            };
            return self.end(compared, counts, Vec::new(), Some(hash)).await;
        }
        // It differs: from its beginning again, and this time it is handed over.
        self.progress = RawProgress::start(false);
        let size = self.pieces.size;
        self.pieces = Pieces::at(0, size, self.source, self.limits, self.out_of_time);
        self.commit(0).await?;
        Ok(false)
    }

    /// Commits how far the file is compared, if that is so many bytes further than what is stored.
    async fn keep_compared(&mut self, further: u64) -> Result<(), Stop> {
        let stored = self.checkpoint.raw.as_ref().and_then(|raw| raw.compared);
        match self.progress.compared {
            Some(compared) if compared >= stored.unwrap_or(0) + further => self.commit(0).await,
            _ => Ok(()),
        }
    }

    /// Hands a piece over. `true` when the file has ended with it.
    async fn hand_over(&mut self, bytes: Bytes, last: bool) -> Result<bool, Stop> {
        let Some(sink) = self.sink else {
            let reason = "the records table takes no raw files".to_owned();
            return Err(SinkError::Refused { reason }.into());
        };
        let offset = self.checkpoint.offset;
        let end = offset + bytes.len() as u64;
        let hash = last.then(|| self.progress.hash.clone().finish());
        self.ledger.check_fence().await?;
        let piece = Piece {
            file: self.file.identity(&self.id),
            offset,
            bytes,
            last: hash,
            upload: self.progress.upload.as_deref(),
        };
        let taken = sink.deliver_piece(&piece).await?;
        drop(piece);
        self.progress.upload = taken.upload;
        let mut counts = Counts {
            read: 1,
            ..Counts::default()
        };
        let (kind, reason) = match (taken.outcome, hash) {
            (SinkOutcome::Applied | SinkOutcome::Unchanged, None) => {
                self.commit(end).await?;
                return Ok(false);
            }
            (SinkOutcome::Applied, Some(_)) => {
                counts.applied = 1;
                return self.end(end, counts, Vec::new(), hash).await;
            }
            (SinkOutcome::Unchanged, Some(_)) => {
                counts.unchanged = 1;
                return self.end(end, counts, Vec::new(), hash).await;
            }
            (SinkOutcome::Held { reason }, _) => {
                counts.held = 1;
                (RejectionKind::Held, reason)
            }
            (SinkOutcome::Rejected { reason }, _) => {
                counts.rejected = 1;
                (RejectionKind::Rejected, reason)
            }
        };
        let rejection = Rejection {
            record_number: 1,
            kind,
            key: Some(KEY.to_owned()),
            namespace: None,
            reason: bounded_reason(reason),
            cause: None,
        };
        self.end(end, counts, vec![rejection], hash).await
    }

    /// The file has ended, regularly, at this byte. `hash` is that of the whole file, where it was read to its last byte.
    async fn end(
        &mut self,
        offset: u64,
        counts: Counts,
        rejections: Vec<Rejection>,
        hash: Option<ContentHash>,
    ) -> Result<bool, Stop> {
        // What the target has now.
        let content_hash = hash.filter(|_| rejections.is_empty());
        self.finish(counts, true, content_hash).await?;
        if let Some(hash) = content_hash {
            let landed = Fingerprint::of(KEY, &hash);
            let is_shown = |known: &mut Known| known.has(landed);
            if !self.known.as_mut().is_some_and(is_shown) {
                // First what the sink has, then that it is done with.
                let segment = Segment {
                    second_pass: false,
                    first_record: 1,
                    last_record: 1,
                    landed: vec![landed],
                };
                self.ledger.keep_segment(segment).await?;
            }
        }
        let checkpoint = Checkpoint {
            offset,
            record_number: 1,
            counts,
            ended: Some(Ended {
                problem: None,
                measure: Measure {
                    bytes: hash.map(|_| offset),
                    sha256: hash.map(Into::into),
                },
            }),
            ..Checkpoint::default()
        };
        self.write(Batch {
            pass: Pass::First,
            checkpoint,
            landed: Vec::new(),
            rejections,
            counts,
        })
        .await?;
        Ok(true)
    }

    /// The file has ended early: nothing of it counts, because half of it is nothing.
    async fn end_with(&mut self, problem: FileProblem) -> Result<SliceOutcome, Stop> {
        match self.finish(Counts::default(), false, None).await {
            // One problem is enough to end a file, and this one was first.
            Ok(()) | Err(Stop::Problem(_)) => {}
            Err(stop) => return Err(stop),
        }
        let checkpoint = Checkpoint {
            offset: self.checkpoint.offset,
            ended: Some(Ended::because(problem.clone())),
            ..Checkpoint::default()
        };
        self.write(Batch {
            pass: Pass::First,
            checkpoint,
            landed: Vec::new(),
            rejections: Vec::new(),
            counts: Counts::default(),
        })
        .await?;
        Ok(SliceOutcome::Finished {
            counts: Counts::default(),
            problem: Some(problem),
            measure: Measure::default(),
        })
    }

    async fn finish(
        &mut self,
        counts: Counts,
        complete: bool,
        content_hash: Option<ContentHash>,
    ) -> Result<(), Stop> {
        let Some(sink) = self.sink.filter(|sink| sink.hears_the_end()) else {
            return Ok(());
        };
        self.ledger.check_fence().await?;
        let finished = Finished {
            file: self.file.identity(&self.id),
            counts,
            complete,
            content_hash,
        };
        Ok(sink.finish(&finished).await?)
    }

    /// Commits that the file is handed over up to this byte.
    async fn commit(&mut self, offset: u64) -> Result<(), Stop> {
        let checkpoint = Checkpoint {
            offset,
            raw: Some(self.progress.clone()),
            ..Checkpoint::default()
        };
        self.write(Batch {
            pass: Pass::First,
            checkpoint,
            landed: Vec::new(),
            rejections: Vec::new(),
            counts: Counts::default(),
        })
        .await
    }

    async fn write(&mut self, batch: Batch) -> Result<(), Stop> {
        let checkpoint = batch.checkpoint.clone();
        self.ledger.commit(batch).await?;
        self.checkpoint = checkpoint;
        Ok(())
    }
}

/// The stored bytes of a file, in pieces.
struct Pieces<'a, S: Source, C> {
    stored: StoredBytes<'a, S, C>,
    size: usize,
    /// Bytes before the next piece.
    position: u64,
    /// What came with the last piece, but belongs to the next.
    ahead: Bytes,
}

impl<'a, S: Source, C: Fn() -> bool + Sync> Pieces<'a, S, C> {
    fn at(position: u64, size: usize, source: &'a S, limits: &Limits, out_of_time: C) -> Self {
        let reopens = limits.attempts_without_progress;
        Self {
            stored: StoredBytes::at(position, source, reopens, out_of_time),
            size,
            position,
            ahead: Bytes::new(),
        }
    }

    /// The next piece, and whether the file ends with it.
    async fn next(&mut self) -> Result<(Bytes, bool), Stop> {
        let mut piece = BytesMut::with_capacity(self.size);
        let last = loop {
            if self.ahead.is_empty() {
                match self.stored.next().await? {
                    Some(chunk) => self.ahead = chunk,
                    None => break true,
                }
            }
            // Only the byte after a piece tells that it is not the last one.
            if piece.len() == self.size {
                break false;
            }
            let taken = self.ahead.len().min(self.size - piece.len());
            piece.extend_from_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
        };
        if piece.is_empty() && self.position > 0 {
            let offset = self.position;
            return Err(Stop::Problem(FileProblem::Shrunk { offset }));
        }
        self.position += piece.len() as u64;
        Ok((piece.freeze(), last))
    }
}
