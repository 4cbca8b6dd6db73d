//! Zstandard (RFC 8878), one block at a time, so that a small file can't become a large piece of memory. It can be entered where a frame begins: what a
//! decoder needs in the middle of one, no library gives away.

use std::collections::VecDeque;
use std::io::Read as _;

use bytes::{Buf as _, Bytes, BytesMut};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use serde::{Deserialize, Serialize};

use super::Inflated;
use crate::ports::RestartPoint;

/// The largest window, in bytes: what the format asks every decoder to take (RFC 8878, 3.1.1.1.2), and what the encoder's ordinary
/// levels need. It is held in memory.
pub(super) const WINDOW_MAX: u64 = 8 * 1024 * 1024;

/// The longest header of a frame, in bytes (RFC 8878, 3.1.1).
const HEADER_MAX: usize = 18;

/// A block's own header.
const BLOCK_HEADER: usize = 3;

/// The longest block, in bytes (RFC 8878, 3.1.1.2.4).
const BLOCK_MAX: usize = 131_072;

/// The checksum behind a frame.
const CHECKSUM: usize = 4;

/// The most bytes that one step gives.
const OUTPUT_MAX: usize = 65_536;

/// Inflated bytes between two places that are remembered.
const SPACING: u64 = 4 * 1024 * 1024;

/// The version of a restart point's text.
const VERSION: u32 = 1;

/// A file of one or more frames while it is read.
pub(crate) struct Zstd {
    input: BytesMut,
    finished: bool,
    stage: Stage,
    decoder: FrameDecoder,
    /// Whether a checksum follows the frame.
    checksum: bool,
    /// Stored bytes before `input`.
    stored: u64,
    /// Inflated bytes so far.
    inflated: u64,
    /// Beginnings of frames, the oldest first.
    places: VecDeque<Place>,
    remembered: u64,
    /// Inflated bytes between two places that are remembered.
    pub(super) spacing: u64,
}

enum Stage {
    /// Before a frame's header, or at the end of the file.
    Header,
    /// In a frame that is to be skipped, with so many bytes left.
    Skipping(u64),
    /// Before a block.
    Block,
    /// A block is decoded; what it came to is given away.
    Output,
}

/// Where a frame begins.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    version: u32,
    stored: u64,
    inflated: u64,
}

impl Zstd {
    /// A file from its beginning.
    pub(crate) fn new() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_MAX);
        Self {
            input: BytesMut::new(),
            finished: false,
            stage: Stage::Header,
            decoder,
            checksum: false,
            stored: 0,
            inflated: 0,
            places: VecDeque::new(),
            remembered: 0,
            spacing: SPACING,
        }
    }

    /// A file from a restart point on; `None` when that can't be used.
    pub(crate) fn at(point: &RestartPoint) -> Option<Self> {
        let place: Place = serde_json::from_str(&point.state).ok()?;
        (place.version == VERSION).then(|| Self {
            stored: place.stored,
            inflated: place.inflated,
            remembered: place.inflated,
            ..Self::new()
        })
    }

    /// Stored bytes that are read.
    pub(crate) const fn stored(&self) -> u64 {
        self.stored
    }

    /// Inflated bytes so far.
    pub(crate) const fn inflated(&self) -> u64 {
        self.inflated
    }

    /// Forgets all places but the last one at or before this inflated byte, and those behind it.
    pub(crate) fn forget_before(&mut self, inflated: u64) {
        while self
            .places
            .get(1)
            .is_some_and(|place| place.inflated <= inflated)
        {
            self.places.pop_front();
        }
    }

    /// The last place to go on from that lies at or before this inflated byte, once.
    pub(crate) fn restart_point(&mut self, before: u64) -> Option<RestartPoint> {
        self.forget_before(before);
        let place = self.places.pop_front_if(|place| place.inflated <= before)?;
        Some(RestartPoint {
            stored: place.stored,
            state: serde_json::to_string(&place).ok()?,
            window: Bytes::new(),
        })
    }

    /// Only after [`Inflated::Hungry`].
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        self.input.extend_from_slice(chunk);
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    pub(crate) fn step(&mut self) -> Inflated {
        loop {
            let next = match self.stage {
                Stage::Header => self.header(),
                Stage::Skipping(left) => self.skip(left),
                Stage::Block => self.block(),
                Stage::Output => self.output(),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn take(&mut self, count: usize) {
        self.input.advance(count);
        self.stored += count as u64;
    }

    /// More bytes are needed than there are.
    const fn wait(&self) -> Inflated {
        if self.finished {
            Inflated::CutShort
        } else {
            Inflated::Hungry
        }
    }

    fn header(&mut self) -> Option<Inflated> {
        if self.input.is_empty() && self.finished {
            return Some(Inflated::Done);
        }
        if self.input.len() < HEADER_MAX && !self.finished {
            return Some(Inflated::Hungry);
        }
        let mut rest = &self.input[..];
        let read = self.decoder.reset(&mut rest);
        let length = self.input.len() - rest.len();
        match read {
            Ok(()) => {
                // Bit 2 of the frame's descriptor, which follows four bytes of magic.
                self.checksum = self.input[4] & 4 != 0;
                self.take(length);
                self.stage = Stage::Block;
                None
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length: skipped,
                ..
            })) => {
                self.take(length);
                self.stage = Stage::Skipping(u64::from(skipped));
                None
            }
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => Some(Inflated::WindowTooLarge),
            // A header that is shorter than the longest may be all that there is.
            Err(_) if self.input.len() < HEADER_MAX && rest.is_empty() => Some(Inflated::CutShort),
            Err(_) => Some(Inflated::Corrupt),
        }
    }

    fn skip(&mut self, left: u64) -> Option<Inflated> {
        let count = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(self.input.len());
        self.take(count);
        let left = left - count as u64;
        self.stage = if left == 0 {
            Stage::Header
        } else {
            Stage::Skipping(left)
        };
        (left > 0).then(|| self.wait())
    }

    fn block(&mut self) -> Option<Inflated> {
        let Some(&[low, middle, high]) = self.input.first_chunk() else {
            return Some(self.wait());
        };
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let is_last = header & 1 == 1;
        let body = match header >> 1 & 3 {
            // One byte, repeated so often.
            1 => 1,
            0 | 2 => (header >> 3) as usize,
            _ => return Some(Inflated::Corrupt),
        };
        if body > BLOCK_MAX {
            return Some(Inflated::Corrupt);
        }
        let trailer = if is_last && self.checksum {
            CHECKSUM
        } else {
            0
        };
        let length = BLOCK_HEADER + body + trailer;
        if self.input.len() < length {
            return Some(self.wait());
        }
        let mut block = &self.input[..length];
        let one = BlockDecodingStrategy::UptoBlocks(1);
        let decoded = self.decoder.decode_blocks(&mut block, one);
        if decoded.is_err() || !block.is_empty() {
            return Some(Inflated::Corrupt);
        }
        self.take(length);
        self.stage = Stage::Output;
        None
    }

    fn output(&mut self) -> Option<Inflated> {
        let mut output = vec![0; OUTPUT_MAX.min(self.decoder.can_collect())];
        let Ok(count) = self.decoder.read(&mut output) else {
            return Some(Inflated::Corrupt);
        };
        if count > 0 {
            output.truncate(count);
            self.inflated += count as u64;
            return Some(Inflated::Output(output.into()));
        }
        self.stage = Stage::Block;
        if self.decoder.is_finished() {
            if self.checksum
                && self.decoder.get_checksum_from_data() != self.decoder.get_calculated_checksum()
            {
                return Some(Inflated::Corrupt);
            }
            self.stage = Stage::Header;
            self.remember();
        }
        None
    }

    fn remember(&mut self) {
        if self.inflated >= self.remembered + self.spacing {
            self.remembered = self.inflated;
            self.places.push_back(Place {
                version: VERSION,
                stored: self.stored,
                inflated: self.inflated,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        let lines =
            (0_u64..).flat_map(|id| format!("{{\"id\":{}}}\n", id * 7919 % 9973).into_bytes());
        lines.take(bytes).collect()
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    /// Reads on to the end, in chunks; what came, and how it ended.
    fn read(zstd: &mut Zstd, stored: &[u8], chunk: usize) -> (Vec<u8>, Inflated) {
        let mut chunks = stored[usize::try_from(zstd.stored()).unwrap()..].chunks(chunk);
        let mut inflated = Vec::new();
        loop {
            match zstd.step() {
                Inflated::Output(output) => inflated.extend_from_slice(&output),
                Inflated::Hungry => match chunks.next() {
                    Some(chunk) => zstd.feed(chunk),
                    None => zstd.finish(),
                },
                end => return (inflated, end),
            }
        }
    }

    /// What the reference encoder made of [`text`], with levels and checksums of its own.
    const GOLDEN: [&[u8]; 3] = [
        include_bytes!("zstd/level-1.zst"),
        include_bytes!("zstd/level-19-checked.zst"),
        include_bytes!("zstd/level-3-repeated.zst"),
    ];

    #[test]
    fn what_the_reference_encoder_writes_is_read_whatever_the_chunks() {
        for chunk in [1, 100, 65_536] {
            for golden in &GOLDEN[..2] {
                let (inflated, end) = read(&mut Zstd::new(), golden, chunk);
                assert_eq!(end, Inflated::Done);
                assert!(inflated == text(300_000));
            }
            // Blocks of one byte, repeated.
            let (inflated, end) = read(&mut Zstd::new(), GOLDEN[2], chunk);
            assert_eq!(end, Inflated::Done);
            assert!(inflated == vec![b'x'; 1_000_000]);
        }
    }

    #[test]
    fn frames_follow_each_other_and_those_to_skip_are_skipped() {
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"index"].concat();
        let stored = [
            &skipped[..],
            &frame(b"one "),
            &skipped,
            &frame(b""),
            &frame(b"two"),
        ]
        .concat();
        for chunk in [1, 5, 1000] {
            let (inflated, end) = read(&mut Zstd::new(), &stored, chunk);
            assert_eq!((inflated, end), (b"one two".to_vec(), Inflated::Done));
        }
    }

    #[test]
    fn reading_goes_on_where_a_frame_begins() {
        let whole = text(9_000_000);
        let parts: Vec<&[u8]> = whole.chunks(1_000_000).collect();
        let stored: Vec<u8> = parts.iter().flat_map(|part| frame(part)).collect();
        let mut reader = Zstd::new();
        assert_eq!(read(&mut reader, &stored, 50_000).1, Inflated::Done);
        assert_eq!(reader.restart_point(3_999_999), None);
        let point = reader.restart_point(8_500_000).unwrap();
        let mut restarted = Zstd::at(&point).unwrap();
        assert_eq!(restarted.inflated(), 5_000_000);
        assert_eq!(restarted.stored(), point.stored);
        let (rest, end) = read(&mut restarted, &stored, 10_000);
        assert_eq!(end, Inflated::Done);
        assert!(rest == whole[5_000_000..]);
    }

    #[test]
    fn what_is_cut_short_damaged_or_too_large_says_so() {
        let stored = GOLDEN[1];
        for end in [1, 7, 5000, stored.len() - 1] {
            let cut = read(&mut Zstd::new(), &stored[..end], 777).1;
            assert_eq!(cut, Inflated::CutShort, "{end}");
        }
        let mut damaged = stored.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(read(&mut Zstd::new(), &damaged, 777).1, Inflated::Corrupt);
        let followed = [stored, b"{\"id\":1}, and something else"].concat();
        assert_eq!(read(&mut Zstd::new(), &followed, 777).1, Inflated::Corrupt);
        // A window of 16 MB: exponent 14.
        let mut large = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3];
        large.extend([0; 20]);
        assert_eq!(
            read(&mut Zstd::new(), &large, 777).1,
            Inflated::WindowTooLarge
        );
    }

    proptest! {
        /// Whatever the bytes are: no panic, and an end.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..50) {
            let mut stored = vec![0x28, 0xb5, 0x2f, 0xfd];
            stored.extend(bytes);
            let (_, end) = read(&mut Zstd::new(), &stored, chunk);
            prop_assert!(!matches!(end, Inflated::Hungry | Inflated::Output(_)));
        }
    }
}
