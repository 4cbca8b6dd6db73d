//! From a source that may expire, break off or start too early, to records: opens and reopens, decompresses, and feeds the cutter.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use landfall_transfer::Measure;

use crate::checkpoint::{Checkpoint, Ended, Hashed, Reading};
use crate::csv::Columns;
use crate::declaration::{Csv, FileDigest, Format};
use crate::decoder::{Decoder, Step};
use crate::format::{Compression, Layout};
use crate::ports::{RestartPoint, Source, SourceError};
use crate::problem::FileProblem;
use crate::records::{Cut, Cutter, Place};

/// Stored bytes between two restart points that are kept: what a crash costs at most, beside the slice's own end.
const RESTART_EVERY: u64 = 64 * 1024 * 1024;

/// What the reader comes to next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A record, or one that is too large.
    Cut(Cut),
    /// Bytes were taken in, but no record is complete.
    Moved,
    /// There is nothing more to read.
    End(Ended),
}

/// Why the reader can't go on in this slice.
#[derive(Debug)]
pub(crate) enum ReadStop {
    /// Trying again later may help.
    Later {
        error: SourceError,
        retry_after: Option<Duration>,
    },
    /// The file will not come back.
    Gone { reason: String },
}

/// Settings of a [`Reader`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderOptions<'a> {
    pub(crate) label: &'a str,
    pub(crate) digest: FileDigest,
    pub(crate) format: Format,
    pub(crate) csv: &'a Csv,
    pub(crate) file_bytes: u64,
    pub(crate) record_bytes: usize,
    pub(crate) reopens_without_progress: u32,
}

/// Reads one file on from a checkpoint.
pub(crate) struct Reader<'a, S: Source, C> {
    stored: StoredBytes<'a, S, C>,
    options: ReaderOptions<'a>,
    resume: Option<(Reading, u64)>,
    /// Where a compressed file can be entered.
    restart: Option<RestartPoint>,
    /// Stored bytes before the restart point that was given away last.
    given_at: u64,
    /// Names of a file's columns, where an earlier slice has read them or the declaration has them.
    named: Option<Vec<String>>,
    open: Option<OpenFile>,
}

/// A file whose format is known.
struct OpenFile {
    compression: Compression,
    decoder: Decoder,
    cutter: Cutter,
    /// The columns of a file of rows, behind its header.
    columns: Option<Columns>,
    ended: Option<Ended>,
}

impl OpenFile {
    /// With the columns of these names, if the file is one of rows.
    fn with_columns(mut self, named: Option<&[String]>, csv: &Csv) -> Self {
        if self.cutter.place() == Place::Header && csv.columns.is_some() {
            self.cutter.pass_header();
        }
        if let (Place::Row | Place::SkippingRow { .. }, Some(names)) = (self.cutter.place(), named)
        {
            self.take_columns(Columns::new(names.to_vec(), csv));
        }
        self
    }

    fn take_columns(&mut self, columns: Result<Columns, String>) {
        match columns {
            Ok(columns) => self.columns = Some(columns),
            Err(reason) => self.ended = Some(Ended::because(FileProblem::BadHeader { reason })),
        }
    }

    /// A cut as the rest knows it: rows are records in JSON.
    fn understood(&self, cut: Cut, options: &ReaderOptions<'_>) -> Cut {
        let (Cut::Record { bytes, span }, Some(columns)) = (&cut, &self.columns) else {
            return cut;
        };
        let span = *span;
        match columns.record(bytes, options.csv) {
            Ok(json) if json.len() > options.record_bytes => Cut::Refused {
                reason: format!(
                    "the record, with the names of its columns, is larger than {} bytes",
                    options.record_bytes
                ),
                span,
            },
            Ok(json) => Cut::Record {
                bytes: json.into(),
                span,
            },
            Err(reason) => Cut::Refused { reason, span },
        }
    }
}

impl<'a, S: Source, C: Fn() -> bool + Sync> Reader<'a, S, C> {
    pub(crate) fn new(
        source: &'a S,
        checkpoint: &Checkpoint,
        restart: Option<RestartPoint>,
        options: ReaderOptions<'a>,
        out_of_time: C,
    ) -> Self {
        let stored = StoredBytes::at(0, source, options.reopens_without_progress, out_of_time);
        Self {
            stored: match options.digest {
                FileDigest::Verify => stored.hashing(checkpoint.hashed.clone()),
                FileDigest::Ignore => stored,
            },
            options,
            resume: checkpoint
                .reading
                .map(|reading| (reading, checkpoint.offset)),
            given_at: restart.as_ref().map_or(0, |point| point.stored),
            restart,
            named: if checkpoint.columns.is_empty() {
                options.csv.columns.clone()
            } else {
                Some(checkpoint.columns.clone())
            },
            open: None,
        }
    }

    /// Names of the columns of a file of rows, once they are known.
    pub(crate) fn columns(&self) -> &[String] {
        let columns = self.open.as_ref().and_then(|file| file.columns.as_ref());
        columns.map(Columns::names).unwrap_or_default()
    }

    /// Where a compressed file can be entered by a slice that goes on from this committed offset: when this slice is its last, or where
    /// so much is read since the last one that reading it again would cost more than keeping this one.
    pub(crate) fn restart_point(&mut self, offset: u64, last: bool) -> Option<RestartPoint> {
        let decoder = &mut self.open.as_mut()?.decoder;
        decoder.forget_before(offset);
        if !last && decoder.stored() < self.given_at + RESTART_EVERY {
            return None;
        }
        let point = decoder.restart_point(offset)?;
        self.given_at = point.stored;
        Some(point)
    }

    /// Where reading can go on, once the format is known: the format with the place, and the offset.
    pub(crate) fn resting_point(&self) -> Option<(Reading, u64)> {
        self.open.as_ref().map(|file| {
            let reading = Reading {
                compression: file.compression,
                place: file.cutter.place(),
            };
            (reading, file.cutter.position())
        })
    }

    /// The stored bytes that are hashed so far.
    pub(crate) fn hashed(&self) -> Hashed {
        self.stored.hashed.clone().unwrap_or_default()
    }

    pub(crate) fn compression(&self) -> Option<Compression> {
        self.open.as_ref().map(|file| file.compression)
    }

    /// What comes next, where no more bytes are needed for it. So nearly every record is had without a future.
    pub(crate) fn at_once(&mut self) -> Option<Next> {
        let file = self.open.as_mut()?;
        if let Some(ended) = &file.ended {
            return Some(Next::End(ended.clone()));
        }
        Some(match file.cutter.cut()? {
            Cut::Problem(problem) => {
                let ended = Ended::because(problem);
                file.ended = Some(ended.clone());
                Next::End(ended)
            }
            Cut::Header { bytes } => {
                file.take_columns(Columns::of_header(&bytes, self.options.csv));
                Next::Moved
            }
            cut => Next::Cut(file.understood(cut, &self.options)),
        })
    }

    pub(crate) async fn next(&mut self) -> Result<Next, ReadStop> {
        if self.open.is_none() {
            self.open = Some(match self.resume {
                Some((reading, offset)) => self.open_at(reading, offset),
                None => self.open_unknown().await?,
            });
        }
        if let Some(next) = self.at_once() {
            return Ok(next);
        }
        let file = self.open.as_mut().expect("it was opened just now");
        match file.decoder.step() {
            Step::Output(_) if file.decoder.position() > self.options.file_bytes => {
                let max = self.options.file_bytes;
                file.ended = Some(Ended::because(FileProblem::TooLarge { max }));
            }
            Step::Output(bytes) => file.cutter.push(bytes),
            Step::Hungry => match self.stored.next().await? {
                Some(chunk) => file.decoder.feed(chunk),
                None => file.decoder.finish(),
            },
            Step::Done if !file.cutter.is_finished() => file.cutter.finish(),
            Step::Done => {
                file.ended = Some(Ended {
                    problem: file.cutter.problem_at_end(),
                    measure: self.stored.measure(),
                });
            }
            Step::Broken(problem) => file.ended = Some(Ended::because(problem)),
        }
        Ok(Next::Moved)
    }

    fn open_at(&mut self, reading: Reading, offset: u64) -> OpenFile {
        let decoder = Decoder::at(reading.compression, offset, self.restart.as_ref());
        self.stored.position = decoder.stored();
        OpenFile {
            compression: reading.compression,
            decoder,
            cutter: self.cutter(reading.place, offset),
            columns: None,
            ended: None,
        }
        .with_columns(self.named.as_deref(), self.options.csv)
    }

    fn cutter(&self, place: Place, offset: u64) -> Cutter {
        Cutter::new(place, offset, self.options.record_bytes)
            .delimited_by(self.options.csv.delimiter())
    }

    /// Looks at the file's first bytes to decide how it is read.
    async fn open_unknown(&mut self) -> Result<OpenFile, ReadStop> {
        let mut head = BytesMut::new();
        let mut at_end = false;
        let compression = loop {
            if let Some(compression) = Compression::decide(&head, at_end) {
                break compression;
            }
            match self.stored.next().await? {
                Some(chunk) => head.extend_from_slice(&chunk),
                None => at_end = true,
            }
        };
        let mut decoder = Decoder::new(compression);
        decoder.feed(head.freeze());
        if at_end {
            decoder.finish();
        }
        let mut text = BytesMut::new();
        let mut at_end = false;
        let layout = loop {
            let declared = Layout::declared(self.options.format, self.options.label);
            if let Some(layout) = declared.or_else(|| Layout::decide(&text, at_end)) {
                break layout;
            }
            match decoder.step() {
                Step::Output(bytes) => text.extend_from_slice(&bytes),
                Step::Hungry => match self.stored.next().await? {
                    Some(chunk) => decoder.feed(chunk),
                    None => decoder.finish(),
                },
                // The decoder says it again when the file is read on.
                Step::Done | Step::Broken(_) => at_end = true,
            }
        };
        let mut cutter = self.cutter(Place::first(layout), 0);
        cutter.push(text.freeze());
        Ok(OpenFile {
            compression,
            decoder,
            cutter,
            columns: None,
            ended: None,
        }
        .with_columns(self.named.as_deref(), self.options.csv))
    }
}

/// The stored bytes of the file, over as many connections as it takes.
pub(crate) struct StoredBytes<'a, S: Source, C> {
    source: &'a S,
    out_of_time: C,
    stream: Option<S::Stream>,
    /// The next byte that is wanted.
    position: u64,
    /// Bytes that the open stream gives before it.
    dropping: u64,
    total_bytes: Option<u64>,
    /// What is hashed of it, where that is asked for.
    hashed: Option<Hashed>,
    /// How often the file was opened.
    opened: u32,
    reopens_left: u32,
    reopens_without_progress: u32,
}

impl<'a, S: Source, C: Fn() -> bool + Sync> StoredBytes<'a, S, C> {
    /// The bytes from `position` on. An expired URL or a cut connection is opened again up to `reopens_without_progress` times in a row.
    pub(crate) const fn at(
        position: u64,
        source: &'a S,
        reopens_without_progress: u32,
        out_of_time: C,
    ) -> Self {
        Self {
            source,
            out_of_time,
            stream: None,
            position,
            dropping: 0,
            total_bytes: None,
            hashed: None,
            opened: 0,
            reopens_left: reopens_without_progress,
            reopens_without_progress,
        }
    }

    /// Hashes what comes, after what is hashed already.
    fn hashing(mut self, hashed: Hashed) -> Self {
        self.hashed = Some(hashed);
        self
    }

    /// What the file measures, when its end is reached.
    fn measure(&self) -> Measure {
        let length = self.position;
        let hashed = self.hashed.as_ref();
        Measure {
            bytes: Some(length),
            sha256: hashed.and_then(|hashed| hashed.digest(length)),
        }
    }

    /// The next bytes; `None` at the end of the file.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadStop> {
        loop {
            match self.take().await {
                Ok(chunk) => {
                    if chunk.is_some() {
                        self.reopens_left = self.reopens_without_progress;
                    }
                    return Ok(chunk);
                }
                Err(error) => self.recover(error)?,
            }
        }
    }

    async fn take(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.stream.is_none() {
            self.open().await?;
        }
        let stream = self.stream.as_mut().expect("it was opened just now");
        loop {
            let Some(chunk) = stream.next().await else {
                return self.end_of_stream();
            };
            let mut chunk = chunk?;
            let dropped = usize::try_from(self.dropping)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            chunk.advance(dropped);
            self.dropping -= dropped as u64;
            if !chunk.is_empty() {
                if let Some(hashed) = &mut self.hashed {
                    hashed.take(self.position, &chunk);
                }
                self.position += chunk.len() as u64;
                return Ok(Some(chunk));
            }
        }
    }

    async fn open(&mut self) -> Result<(), SourceError> {
        let opened = self.source.open(self.position).await?;
        self.opened += 1;
        let Some(dropping) = self.position.checked_sub(opened.starts_at) else {
            return Err(SourceError::Failed {
                reason: format!(
                    "asked for byte {}, the store began at {}",
                    self.position, opened.starts_at
                ),
            });
        };
        if dropping > 0 {
            tracing::debug!(
                bytes = dropping,
                "the store has no ranges: bytes are read again"
            );
        }
        if opened
            .total_bytes
            .is_some_and(|total| total < self.position)
        {
            let reason = format!(
                "it is shorter than the {} bytes that were read before",
                self.position
            );
            return Err(SourceError::Gone { reason });
        }
        self.dropping = dropping;
        self.total_bytes = opened.total_bytes.or(self.total_bytes);
        self.stream = Some(opened.stream);
        Ok(())
    }

    fn end_of_stream(&self) -> Result<Option<Bytes>, SourceError> {
        let missing = self.total_bytes.is_some_and(|total| self.position < total);
        if missing || self.dropping > 0 {
            return Err(SourceError::Cut {
                reason: "the stream ended before the file".to_owned(),
            });
        }
        Ok(None)
    }

    /// Decides whether to open again at once. An expired URL or a cut is normal in a long file; without progress it is not.
    fn recover(&mut self, error: SourceError) -> Result<(), ReadStop> {
        self.stream = None;
        match error {
            SourceError::Gone { reason } => Err(ReadStop::Gone { reason }),
            SourceError::Throttled { retry_after } => Err(ReadStop::Later { error, retry_after }),
            SourceError::Failed { .. } => Err(ReadStop::Later {
                error,
                retry_after: None,
            }),
            SourceError::Expired | SourceError::Cut { .. } => {
                if self.reopens_left == 0 || (self.out_of_time)() {
                    return Err(ReadStop::Later {
                        error,
                        retry_after: None,
                    });
                }
                self.reopens_left -= 1;
                tracing::debug!(offset = self.position, opened = self.opened, %error, "opening the file again");
                Ok(())
            }
        }
    }
}
