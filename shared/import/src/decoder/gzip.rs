//! gzip (RFC 1952) that can be entered in its middle: at the boundaries of its blocks, and of its members, it tells what a later reader needs to
//! go on there. Libraries that read gzip keep that to themselves; the inflating itself is one's.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};

use bytes::{Buf, Bytes};
use crc32fast::Hasher;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress_with_limit};
use serde::{Deserialize, Serialize};

use super::Inflated;
use crate::ports::RestartPoint;

/// How far back a block can refer (RFC 1951).
const WINDOW: usize = 32_768;

/// What is inflated into, in turns. A power of two, and more than a window by what one step inflates.
const RING: usize = 2 * WINDOW;

/// The longest header of a member, in bytes: its fields have no limit of their own.
const HEADER_MAX: usize = 131_072;

/// Bytes behind a member: its checksum and its length.
const TRAILER: usize = 8;

/// Inflated bytes between two places that are remembered. Each costs a copy of the window.
const SPACING: u64 = 4 * 1024 * 1024;

/// The version of a restart point's text.
const VERSION: u32 = 1;

/// A gzip file of one or more members while it is read.
pub(crate) struct Gzip {
    input: Bytes,
    finished: bool,
    stage: Stage,
    inflate: Box<DecompressorOxide>,
    ring: Box<[u8]>,
    /// Where in the ring the next byte goes.
    at: usize,
    member: Member,
    /// Stored bytes before `input`.
    stored: u64,
    /// Inflated bytes so far.
    inflated: u64,
    /// Places to go on from, the oldest first.
    places: VecDeque<Place>,
    /// Inflated bytes before the newest place that was remembered.
    remembered: u64,
    /// Inflated bytes between two places that are remembered.
    pub(super) spacing: u64,
}

/// What the next stored byte belongs to.
enum Stage {
    /// A member's header, or, when none of it is there yet, the end of the file.
    Header(Vec<u8>),
    Body,
    Trailer(Vec<u8>),
    /// Nothing that makes sense; what came before it is given away.
    Damage,
}

/// What a member's trailer is compared with.
#[derive(Default)]
struct Member {
    checksum: Hasher,
    bytes: u64,
}

/// Where reading can go on.
struct Place {
    state: State,
    window: Vec<u8>,
}

/// A place without its window, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    /// Stored bytes before it.
    stored: u64,
    /// Inflated bytes before it.
    inflated: u64,
    /// None between two members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<Within>,
}

/// In the middle of a member, between two blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Within {
    /// Bits of the last stored byte that belong to the next block, and how many they are.
    bits: u8,
    bit_count: u8,
    /// Checksum and length of the member so far.
    checksum: u32,
    bytes: u64,
}

impl Gzip {
    /// A file from its beginning.
    pub(crate) fn new() -> Self {
        Self {
            input: Bytes::new(),
            finished: false,
            stage: Stage::Header(Vec::new()),
            inflate: Box::default(),
            ring: vec![0; RING].into(),
            at: 0,
            member: Member::default(),
            stored: 0,
            inflated: 0,
            places: VecDeque::new(),
            remembered: 0,
            spacing: SPACING,
        }
    }

    /// A file from a restart point on; `None` when that can't be used. What follows then begins at [`inflated`](Self::inflated), and is
    /// to be fed from [`stored`](Self::stored).
    pub(crate) fn at(point: &RestartPoint) -> Option<Self> {
        let state: State = serde_json::from_str(&point.state).ok()?;
        if state.version != VERSION {
            return None;
        }
        let mut gzip = Self::new();
        (gzip.stored, gzip.inflated) = (state.stored, state.inflated);
        gzip.remembered = state.inflated;
        if let Some(within) = state.within {
            let mut window = Vec::new();
            let packed = DeflateDecoder::new(&*point.window);
            packed
                .take(WINDOW as u64 + 1)
                .read_to_end(&mut window)
                .ok()?;
            if window.len() > WINDOW {
                return None;
            }
            gzip.ring[..window.len()].copy_from_slice(&window);
            gzip.at = window.len();
            gzip.inflate = Box::new(DecompressorOxide::from_block_boundary_state(
                &BlockBoundaryState {
                    num_bits: within.bit_count,
                    bit_buf: within.bits,
                    ..BlockBoundaryState::default()
                },
            ));
            gzip.member = Member {
                checksum: Hasher::new_with_initial_len(within.checksum, within.bytes),
                bytes: within.bytes,
            };
            gzip.stage = Stage::Body;
        }
        Some(gzip)
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
        let later = |place: &Place| place.state.inflated > inflated;
        while self.places.get(1).is_some_and(|place| !later(place)) {
            self.places.pop_front();
        }
    }

    /// The last place to go on from that lies at or before this inflated byte, once.
    pub(crate) fn restart_point(&mut self, before: u64) -> Option<RestartPoint> {
        self.forget_before(before);
        let place = self
            .places
            .pop_front_if(|place| place.state.inflated <= before)?;
        let mut window = DeflateEncoder::new(Vec::new(), Compression::fast());
        let packed = window
            .write_all(&place.window)
            .and_then(|()| window.finish());
        Some(RestartPoint {
            stored: place.state.stored,
            state: serde_json::to_string(&place.state).ok()?,
            window: packed.ok()?.into(),
        })
    }

    /// Only after [`Inflated::Hungry`].
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(
            self.input.is_empty(),
            "a chunk is used up before the next one"
        );
        self.input = chunk;
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    pub(crate) fn step(&mut self) -> Inflated {
        loop {
            let next = match &mut self.stage {
                Stage::Header(_) => self.header(),
                Stage::Body => self.body(),
                Stage::Trailer(_) => self.trailer(),
                Stage::Damage => Some(Inflated::Corrupt),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.stored += count as u64;
        self.input.split_to(count)
    }

    fn header(&mut self) -> Option<Inflated> {
        let Stage::Header(seen) = &mut self.stage else {
            return None;
        };
        if self.input.is_empty() {
            return Some(match (self.finished, seen.is_empty()) {
                (false, _) => Inflated::Hungry,
                (true, true) => Inflated::Done,
                (true, false) => Inflated::CutShort,
            });
        }
        let before = seen.len();
        seen.extend_from_slice(&self.input);
        match header_length(seen) {
            Header::Complete(length) => {
                self.take(length - before);
                *self.inflate = DecompressorOxide::new();
                (self.at, self.member, self.stage) = (0, Member::default(), Stage::Body);
                None
            }
            Header::Incomplete if seen.len() <= HEADER_MAX => {
                self.take(self.input.len());
                None
            }
            Header::Incomplete | Header::Wrong => Some(Inflated::Corrupt),
        }
    }

    fn body(&mut self) -> Option<Inflated> {
        if self.input.is_empty() && !self.finished {
            return Some(Inflated::Hungry);
        }
        let more = if self.finished {
            0
        } else {
            TINFL_FLAG_HAS_MORE_INPUT
        };
        let (status, read, written) = decompress_with_limit(
            &mut self.inflate,
            &self.input,
            &mut self.ring,
            self.at,
            WINDOW,
            more | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
        );
        self.stored += read as u64;
        self.input.advance(read);
        let output = Bytes::copy_from_slice(&self.ring[self.at..self.at + written]);
        self.at = (self.at + written) % RING;
        self.inflated += written as u64;
        self.member.checksum.update(&output);
        self.member.bytes += written as u64;
        match status {
            TINFLStatus::Done => self.stage = Stage::Trailer(Vec::with_capacity(TRAILER)),
            TINFLStatus::BlockBoundary => self.remember_block(),
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
            TINFLStatus::FailedCannotMakeProgress => return Some(Inflated::CutShort),
            _ => self.stage = Stage::Damage,
        }
        (!output.is_empty()).then_some(Inflated::Output(output))
    }

    fn trailer(&mut self) -> Option<Inflated> {
        let Stage::Trailer(seen) = &mut self.stage else {
            return None;
        };
        let count = (TRAILER - seen.len()).min(self.input.len());
        seen.extend_from_slice(&self.input[..count]);
        let complete = seen.first_chunk().zip(seen.last_chunk());
        let complete = complete.filter(|_| seen.len() == TRAILER);
        let told =
            complete.map(|(sum, length)| (u32::from_le_bytes(*sum), u32::from_le_bytes(*length)));
        self.take(count);
        let Some((checksum, length)) = told else {
            return Some(if self.finished {
                Inflated::CutShort
            } else {
                Inflated::Hungry
            });
        };
        let read = std::mem::take(&mut self.member);
        if checksum != read.checksum.finalize() || u64::from(length) != read.bytes & 0xFFFF_FFFF {
            return Some(Inflated::Corrupt);
        }
        self.stage = Stage::Header(Vec::new());
        self.remember(None);
        None
    }

    fn remember_block(&mut self) {
        let Some(state) = self.inflate.block_boundary_state() else {
            return;
        };
        self.remember(Some(Within {
            bits: state.bit_buf,
            bit_count: state.num_bits,
            checksum: self.member.checksum.clone().finalize(),
            bytes: self.member.bytes,
        }));
    }

    fn remember(&mut self, within: Option<Within>) {
        if self.inflated < self.remembered + self.spacing {
            return;
        }
        self.remembered = self.inflated;
        let window = if within.is_some() {
            self.window()
        } else {
            Vec::new()
        };
        self.places.push_back(Place {
            state: State {
                version: VERSION,
                stored: self.stored,
                inflated: self.inflated,
                within,
            },
            window,
        });
    }

    /// What the next block can refer to, in order.
    fn window(&self) -> Vec<u8> {
        let count = usize::try_from(self.member.bytes)
            .unwrap_or(WINDOW)
            .min(WINDOW);
        let start = (self.at + RING - count) % RING;
        let first = &self.ring[start..(start + count).min(RING)];
        [first, &self.ring[..count - first.len()]].concat()
    }
}

/// What is there of a member's header.
enum Header {
    /// It has so many bytes.
    Complete(usize),
    Incomplete,
    Wrong,
}

/// Steps over a header (RFC 1952, 2.3).
fn header_length(bytes: &[u8]) -> Header {
    const FIXED: usize = 10;
    const CHECKSUM: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let magic = [0x1f, 0x8b, 8];
    let seen = bytes.len().min(magic.len());
    if bytes[..seen] != magic[..seen] {
        return Header::Wrong;
    }
    let Some(flags) = bytes.get(3).filter(|_| bytes.len() >= FIXED) else {
        return Header::Incomplete;
    };
    if flags & 0b1110_0000 != 0 {
        return Header::Wrong;
    }
    let mut length = FIXED;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = bytes.get(length..length + 2) else {
            return Header::Incomplete;
        };
        length += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(length..).unwrap_or_default();
            let Some(end) = memchr::memchr(0, rest) else {
                return Header::Incomplete;
            };
            length += end + 1;
        }
    }
    if flags & CHECKSUM != 0 {
        length += 2;
    }
    if bytes.len() < length {
        return Header::Incomplete;
    }
    Header::Complete(length)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::GzBuilder;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    /// Text that compresses, but not to nothing: many blocks.
    fn text(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut text = Vec::with_capacity(bytes + 20);
        while text.len() < bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(format!("{{\"id\":{}}}\n", state >> 40).as_bytes());
        }
        text.truncate(bytes);
        text
    }

    fn gzip(text: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads on to the end, in chunks; what came, and how it ended.
    fn read(gzip: &mut Gzip, stored: &[u8], chunk: usize) -> (Vec<u8>, Inflated) {
        let mut chunks = stored[usize::try_from(gzip.stored()).unwrap()..].chunks(chunk);
        let mut inflated = Vec::new();
        loop {
            match gzip.step() {
                Inflated::Output(output) => inflated.extend_from_slice(&output),
                Inflated::Hungry => match chunks.next() {
                    Some(chunk) => gzip.feed(Bytes::copy_from_slice(chunk)),
                    None => gzip.finish(),
                },
                end => return (inflated, end),
            }
        }
    }

    #[test]
    fn a_file_is_read_whatever_its_chunks_members_and_levels() {
        for level in [0, 1, 6, 9] {
            let (one, other) = (text(300_000), text(7));
            let stored = [gzip(&one, level), gzip(&other, level), gzip(b"", level)].concat();
            for chunk in [1, 7, 65_536, stored.len()] {
                let (inflated, end) = read(&mut Gzip::new(), &stored, chunk);
                assert_eq!(end, Inflated::Done);
                assert!(
                    inflated == [&*one, &*other].concat(),
                    "level {level}, chunks of {chunk}"
                );
            }
        }
    }

    #[test]
    fn every_field_of_a_header_is_stepped_over() {
        let mut encoder = GzBuilder::new()
            .extra(vec![0; 300])
            .filename("a.ndjson")
            .comment("an export")
            .mtime(1)
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"x").unwrap();
        let stored = encoder.finish().unwrap();
        assert_eq!(
            read(&mut Gzip::new(), &stored, 1),
            (b"x".to_vec(), Inflated::Done)
        );
        let mut endless = stored[..12].to_vec();
        endless.extend(vec![b'x'; 2 * HEADER_MAX]);
        endless[3] = 8;
        assert_eq!(read(&mut Gzip::new(), &endless, 4096).1, Inflated::Corrupt);
    }

    #[test]
    fn reading_goes_on_at_a_restart_point_as_if_it_had_never_stopped() {
        let whole = text(14_000_000);
        let members = [
            &whole[..6_000_000],
            &whole[6_000_000..6_000_010],
            &whole[6_000_010..],
        ];
        let stored: Vec<u8> = members.iter().flat_map(|text| gzip(text, 6)).collect();
        let mut reader = Gzip::new();
        assert_eq!(read(&mut reader, &stored, 50_000).1, Inflated::Done);
        let mut entered = Vec::new();
        for before in [5_000_000, 9_000_000, 14_000_000_u64] {
            let point = reader.restart_point(before).unwrap();
            let mut restarted = Gzip::at(&point).unwrap();
            assert_eq!(restarted.stored(), point.stored);
            let from = restarted.inflated();
            assert!(before - from <= SPACING + 1_000_000, "{before}: {from}");
            let (rest, end) = read(&mut restarted, &stored, 10_000);
            assert_eq!(end, Inflated::Done);
            assert!(
                rest == whole[usize::try_from(from).unwrap()..],
                "from {from}"
            );
            entered.push(from);
        }
        entered.dedup();
        assert_eq!(entered.len(), 3);
        assert_eq!(reader.restart_point(14_000_000), None);
    }

    #[test]
    fn nothing_is_a_restart_point_before_its_place_is_read() {
        let stored = gzip(&text(5_000_000), 6);
        let mut reader = Gzip::new();
        read(&mut reader, &stored, 50_000);
        assert_eq!(reader.restart_point(1_000_000), None);
        let kept = reader.restart_point(5_000_000).unwrap();
        let newer = RestartPoint {
            state: kept.state.replace("\"version\":1", "\"version\":2"),
            ..kept.clone()
        };
        let damaged = RestartPoint {
            window: Bytes::from_static(b"\xff"),
            ..kept
        };
        assert!(Gzip::at(&newer).is_none());
        assert!(Gzip::at(&damaged).is_none());
    }

    #[test]
    fn a_member_that_ends_early_is_cut_short_and_damage_is_noticed() {
        let text = text(100_000);
        let stored = gzip(&text, 6);
        for end in [1, 5, 12, 1000, stored.len() - 9, stored.len() - 1] {
            let cut = read(&mut Gzip::new(), &stored[..end], 777).1;
            assert_eq!(cut, Inflated::CutShort, "{end}");
        }
        for damaged in [stored.len() - 1, stored.len() - 5, 0] {
            let mut stored = stored.clone();
            stored[damaged] ^= 1;
            assert_eq!(
                read(&mut Gzip::new(), &stored, 777).1,
                Inflated::Corrupt,
                "{damaged}"
            );
        }
        let followed = [&*stored, b"x"].concat();
        assert_eq!(
            read(&mut Gzip::new(), &followed, 777),
            (text, Inflated::Corrupt)
        );
    }

    proptest! {
        /// Whatever the bytes are: no panic, and nothing that isn't gzip is read to its end.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..50) {
            let mut stored = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            stored.extend(bytes);
            let (_, end) = read(&mut Gzip::new(), &stored, chunk);
            prop_assert!(matches!(end, Inflated::Done | Inflated::CutShort | Inflated::Corrupt));
        }
    }
}
