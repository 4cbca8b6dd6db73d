//! Turns stored bytes into the file's bytes, a bounded step at a time, and tells where a later reader can enter the file.

mod gzip;
mod zstd;

use bytes::{Buf as _, Bytes};

use crate::format::Compression;
use crate::ports::RestartPoint;
use crate::problem::FileProblem;

use gzip::Gzip;
use zstd::{WINDOW_MAX, Zstd};

/// A file while it is decompressed.
pub(crate) struct Decoder {
    codec: Codec,
    /// Decompressed bytes that are still to be dropped.
    dropping: u64,
    broken: Option<FileProblem>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each file that is read"
)]
enum Codec {
    Plain(Plain),
    Gzip(Gzip),
    Zstd(Zstd),
}

/// What a step came to.
pub(crate) enum Step {
    Output(Bytes),
    /// Needs [`Decoder::feed`] or [`Decoder::finish`].
    Hungry,
    Done,
    Broken(FileProblem),
}

/// What a step of one of the formats came to.
#[derive(Debug, PartialEq, Eq)]
enum Inflated {
    Output(Bytes),
    Hungry,
    Done,
    CutShort,
    Corrupt,
    /// More memory would be needed than is granted.
    WindowTooLarge,
}

impl Decoder {
    /// A file from its beginning.
    pub(crate) fn new(compression: Compression) -> Self {
        let codec = match compression {
            Compression::Plain => Codec::Plain(Plain::at(0)),
            Compression::Gzip => Codec::Gzip(Gzip::new()),
            Compression::Zstd => Codec::Zstd(Zstd::new()),
        };
        Self {
            codec,
            dropping: 0,
            broken: None,
        }
    }

    /// A file from a decompressed byte on, entered at the restart point where that helps. It is to be fed from [`stored`](Self::stored) on.
    pub(crate) fn at(
        compression: Compression,
        offset: u64,
        restart: Option<&RestartPoint>,
    ) -> Self {
        let codec = match compression {
            Compression::Plain => Some(Codec::Plain(Plain::at(offset))),
            Compression::Gzip => restart.and_then(Gzip::at).map(Codec::Gzip),
            Compression::Zstd => restart.and_then(Zstd::at).map(Codec::Zstd),
        };
        let mut decoder = Self::new(compression);
        if let Some(codec) = codec.filter(|codec| codec.position() <= offset) {
            decoder.codec = codec;
        }
        decoder.dropping = offset - decoder.codec.position();
        decoder
    }

    /// With a place to enter the file at behind each block or frame that comes so many decompressed bytes after the one before.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn remembering_every(mut self, bytes: u64) -> Self {
        match &mut self.codec {
            Codec::Plain(_) => {}
            Codec::Gzip(gzip) => gzip.spacing = bytes,
            Codec::Zstd(zstd) => zstd.spacing = bytes,
        }
        self
    }

    /// Stored bytes that are taken in.
    pub(crate) const fn stored(&self) -> u64 {
        match &self.codec {
            Codec::Plain(plain) => plain.position,
            Codec::Gzip(gzip) => gzip.stored(),
            Codec::Zstd(zstd) => zstd.stored(),
        }
    }

    /// Decompressed bytes so far.
    pub(crate) const fn position(&self) -> u64 {
        self.codec.position()
    }

    /// Forgets all places to enter the file at but the last one at or before this decompressed byte, and those behind it.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        match &mut self.codec {
            Codec::Plain(_) => {}
            Codec::Gzip(gzip) => gzip.forget_before(offset),
            Codec::Zstd(zstd) => zstd.forget_before(offset),
        }
    }

    /// The last place to enter the file at, at or before this decompressed byte, once.
    pub(crate) fn restart_point(&mut self, offset: u64) -> Option<RestartPoint> {
        match &mut self.codec {
            Codec::Plain(_) => None,
            Codec::Gzip(gzip) => gzip.restart_point(offset),
            Codec::Zstd(zstd) => zstd.restart_point(offset),
        }
    }

    /// Only after [`Step::Hungry`], when the last chunk is used up.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        match &mut self.codec {
            Codec::Plain(plain) => plain.chunk = chunk,
            Codec::Gzip(gzip) => gzip.feed(chunk),
            Codec::Zstd(zstd) => zstd.feed(&chunk),
        }
    }

    /// Says that nothing follows.
    pub(crate) fn finish(&mut self) {
        match &mut self.codec {
            Codec::Plain(plain) => plain.finished = true,
            Codec::Gzip(gzip) => gzip.finish(),
            Codec::Zstd(zstd) => zstd.finish(),
        }
    }

    pub(crate) fn step(&mut self) -> Step {
        if let Some(problem) = &self.broken {
            return Step::Broken(problem.clone());
        }
        let offset = self.codec.position();
        let (inflated, is_gzip) = match &mut self.codec {
            Codec::Plain(plain) => (plain.step(), false),
            Codec::Gzip(gzip) => (gzip.step(), true),
            Codec::Zstd(zstd) => (zstd.step(), false),
        };
        let problem = match inflated {
            Inflated::Output(mut bytes) => {
                let dropped = usize::try_from(self.dropping)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                bytes.advance(dropped);
                self.dropping -= dropped as u64;
                return Step::Output(bytes);
            }
            Inflated::Hungry => return Step::Hungry,
            Inflated::Done if self.dropping == 0 => return Step::Done,
            Inflated::Done => FileProblem::Shrunk {
                offset: offset + self.dropping,
            },
            Inflated::CutShort if is_gzip => FileProblem::GzipCutShort { offset },
            Inflated::CutShort => FileProblem::ZstdCutShort { offset },
            Inflated::Corrupt if is_gzip => FileProblem::GzipCorrupt { offset },
            Inflated::Corrupt => FileProblem::ZstdCorrupt { offset },
            Inflated::WindowTooLarge => FileProblem::ZstdWindow { max: WINDOW_MAX },
        };
        self.broken = Some(problem.clone());
        Step::Broken(problem)
    }
}

impl Codec {
    /// Decompressed bytes so far.
    const fn position(&self) -> u64 {
        match self {
            Self::Plain(plain) => plain.position,
            Self::Gzip(gzip) => gzip.inflated(),
            Self::Zstd(zstd) => zstd.inflated(),
        }
    }
}

/// A file that is stored as it is.
struct Plain {
    chunk: Bytes,
    finished: bool,
    position: u64,
}

impl Plain {
    const fn at(position: u64) -> Self {
        Self {
            chunk: Bytes::new(),
            finished: false,
            position,
        }
    }

    fn step(&mut self) -> Inflated {
        if self.chunk.is_empty() {
            return if self.finished {
                Inflated::Done
            } else {
                Inflated::Hungry
            };
        }
        self.position += self.chunk.len() as u64;
        Inflated::Output(std::mem::take(&mut self.chunk))
    }
}
