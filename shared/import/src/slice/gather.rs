//! Gathers the records of one batch. Where a batch ends depends on the file's bytes and the limits alone, never on time or on how the
//! bytes came: so a batch that is repeated after a crash is the same batch.

use bytes::Bytes;

use super::{Position, Slice, Stop};
use crate::checkpoint::{Ended, Reading};
use crate::declaration::Limits;
use crate::ports::{Ledger, Mappings, Sink, Source};
use crate::problem::FileProblem;
use crate::reader::{Next, ReadStop};
use crate::records::{Cut, Span};

/// How much of a file one batch may span, in bytes. A longer stretch without records (empty lines, a huge record that is skipped) ends
/// the batch, and gets checkpoints of its own when the time is up.
const STRETCH_BYTES: u64 = 8 * 1024 * 1024;

/// The records of a batch, as they were cut.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Each record's bytes, or why it is none.
    pub(super) cuts: Vec<Result<Bytes, String>>,
    /// How many records of the file come before this batch.
    pub(super) records_before: u64,
    /// Where the first record begins.
    pub(super) start: u64,
    /// Where reading goes on after this batch.
    pub(super) offset: u64,
    /// How reading goes on there.
    pub(super) reading: Option<Reading>,
    /// Set when nothing follows.
    pub(super) ended: Option<Ended>,
    bytes: usize,
}

impl Gathered {
    /// Where reading goes on after this batch.
    pub(super) fn position(&self) -> Position {
        Position {
            offset: self.offset,
            record_number: self.records_before + self.cuts.len() as u64,
            reading: self.reading,
        }
    }

    fn has_room_for(&self, cut: &Cut, limits: &Limits) -> bool {
        let (length, span) = match cut {
            Cut::Record { bytes, span } => (bytes.len(), span),
            Cut::TooLarge { span } | Cut::Refused { span, .. } => (0, span),
            Cut::Header { .. } | Cut::Problem(_) => return true,
        };
        self.cuts.is_empty()
            || (self.bytes + length <= limits.batch_bytes
                && span.start - self.start <= STRETCH_BYTES)
    }

    fn add(&mut self, bytes: Result<Bytes, String>, span: Span) {
        if self.cuts.is_empty() {
            self.start = span.start;
        }
        self.bytes += bytes.as_ref().map_or(0, Bytes::len);
        self.offset = span.end;
        self.cuts.push(bytes);
    }
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink, C: Fn() -> bool + Sync> Slice<'_, S, L, M, K, C> {
    pub(super) async fn gather(&mut self) -> Result<Gathered, Stop> {
        let mut gathered = Gathered {
            records_before: self.position.record_number,
            offset: self.position.offset,
            reading: self.position.reading,
            cuts: Vec::with_capacity(self.job.limits.batch_records),
            ..Gathered::default()
        };
        loop {
            let next = match self.at_once() {
                Some(next) => next,
                None => self.next().await?,
            };
            match next {
                Next::Cut(cut) if !gathered.has_room_for(&cut, self.job.limits) => {
                    self.carried = Some(cut);
                    return Ok(gathered);
                }
                Next::Cut(cut) => {
                    if self.add(&mut gathered, cut) {
                        return Ok(gathered);
                    }
                }
                Next::Moved => {
                    if self.rests(&mut gathered) {
                        return Ok(gathered);
                    }
                }
                Next::End(ended) => {
                    gathered.ended = Some(ended);
                    if let Some((reading, offset)) = self.reader.resting_point() {
                        (gathered.reading, gathered.offset) = (Some(reading), offset);
                    }
                    return Ok(gathered);
                }
            }
        }
    }

    fn at_once(&mut self) -> Option<Next> {
        let carried = self.carried.take().map(Next::Cut);
        carried.or_else(|| self.reader.at_once())
    }

    async fn next(&mut self) -> Result<Next, Stop> {
        match self.reader.next().await {
            Ok(next) => Ok(next),
            // What was read before is still good.
            Err(ReadStop::Gone { reason }) => {
                let problem = FileProblem::SourceGone { reason };
                Ok(Next::End(Ended::because(problem)))
            }
            Err(stop) => Err(stop.into()),
        }
    }

    /// Adds a cut; `true` when the batch is complete with it.
    fn add(&self, gathered: &mut Gathered, cut: Cut) -> bool {
        let limit = self.job.limits.record_bytes;
        let skips = matches!(cut, Cut::TooLarge { .. });
        let (bytes, span) = match cut {
            Cut::Record { bytes, span } => (Ok(bytes), span),
            Cut::Refused { reason, span } => (Err(reason), span),
            Cut::TooLarge { span } => (
                Err(format!("the record is larger than {limit} bytes")),
                span,
            ),
            Cut::Header { .. } | Cut::Problem(_) => {
                unreachable!("the reader takes headers, and ends the file with a problem")
            }
        };
        gathered.reading = self.reader.compression().map(|compression| Reading {
            compression,
            place: span.after,
        });
        gathered.add(bytes, span);
        // The rest of a record that is too large may be long: it is skipped between batches, where checkpoints are possible.
        skips || gathered.cuts.len() >= self.job.limits.batch_records
    }

    /// Whether the reader is so far beyond the last record that the batch ends here.
    fn rests(&self, gathered: &mut Gathered) -> bool {
        let Some((reading, offset)) = self.reader.resting_point() else {
            return false;
        };
        if !gathered.cuts.is_empty() {
            return offset - gathered.start > STRETCH_BYTES;
        }
        let rests = offset - self.position.offset > STRETCH_BYTES && (self.out_of_time)();
        if rests {
            (gathered.reading, gathered.offset) = (Some(reading), offset);
        }
        rests
    }
}
