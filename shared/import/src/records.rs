//! Cuts complete records out of a byte stream, before anything is parsed: a parser that pulls from a stream is several times slower, and
//! could not step over a record that is too large to hold.
//!
//! The cutter holds at most one incomplete record of the allowed size and what was pushed last. What it cuts does not depend on how the
//! bytes were divided into chunks.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};

use crate::csv::{HEADER_BYTES, Quoting};
use crate::format::{BYTE_ORDER_MARK, Layout};
use crate::problem::FileProblem;

/// What the next byte belongs to. Small and stored with the checkpoint, so that reading can go on anywhere between records, and even
/// in the middle of one that is being skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Place {
    /// The beginning of a line.
    Line,
    /// Inside a line that is too long.
    SkippingLine,
    /// The beginning of the row that names the columns.
    Header,
    /// The beginning of another row.
    Row,
    /// Inside a row that is too long.
    SkippingRow {
        /// Where inside it.
        quoting: Quoting,
    },
    /// Before the array's `[`.
    ArrayStart,
    /// After the array's `[`.
    FirstElement,
    /// After a `,`.
    Element,
    /// After an element.
    Separator,
    /// After the array's `]`.
    AfterArray,
    /// Inside an element that is too large.
    SkippingElement {
        /// Where inside it.
        nesting: Nesting,
    },
}

impl Place {
    /// Where a file of this layout begins.
    pub const fn first(layout: Layout) -> Self {
        match layout {
            Layout::Lines => Self::Line,
            Layout::Rows => Self::Header,
            Layout::Array => Self::ArrayStart,
        }
    }
}

/// Where inside a JSON value a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nesting {
    /// Objects and arrays that are open.
    pub depth: u64,
    /// Inside a string.
    pub in_string: bool,
    /// After a backslash in a string.
    pub escaped: bool,
    /// Inside a number, a literal, or garbage that looks like one.
    pub scalar: bool,
}

impl Nesting {
    /// Scans on. The value ends before the returned index; `None` when it goes on beyond `bytes`.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.escaped {
                self.escaped = false;
                at += 1;
            } else if self.in_string {
                at += memchr2(b'"', b'\\', &bytes[at..])?;
                if bytes[at] == b'\\' {
                    self.escaped = true;
                } else {
                    self.in_string = false;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                at += 1;
            } else if self.scalar {
                let ends = |byte: &u8| matches!(byte, b',' | b']') || byte.is_ascii_whitespace();
                return bytes[at..].iter().position(ends).map(|length| at + length);
            } else {
                match bytes[at] {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth > 0 => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ if self.depth == 0 => self.scalar = true,
                    _ => {}
                }
                at += 1;
            }
        }
        None
    }
}

/// One thing cut out of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A record, complete, without the white space around it. Not parsed: it need not be JSON.
    Record {
        /// Its bytes.
        bytes: Bytes,
        /// Where it lies.
        span: Span,
    },
    /// The row that names the columns; no record.
    Header {
        /// Its bytes.
        bytes: Bytes,
    },
    /// A record that can't be one: never from the cutter, which doesn't look into records.
    Refused {
        /// Why.
        reason: String,
        /// Where it lies.
        span: Span,
    },
    /// A record above the limit. Its bytes are dropped; if it is not complete yet, the cutter skips on to its end.
    TooLarge {
        /// Where the part lies that was seen.
        span: Span,
    },
    /// The file can't be cut any further.
    Problem(FileProblem),
}

/// Where a [`Cut`] lies in the decompressed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// The byte after it, line end included: reading can go on here …
    pub end: u64,
    /// … with the cutter in this place.
    pub after: Place,
}

/// How much of a chunk is put behind an incomplete record at first, in bytes: most records end there. Tests, whose chunks are small, take it little by little.
const PIECE: usize = if cfg!(any(test, fuzzing)) { 3 } else { 1024 };

/// Bytes that were pushed and are not cut yet. Records are cut out of the chunks themselves; only one that begins in a chunk and ends in another is put together.
#[derive(Debug, Default)]
struct Unread {
    /// An incomplete record of earlier chunks, and the first bytes of `chunk` behind it. Shown, if there is anything in it.
    joined: BytesMut,
    /// How many bytes of the chunk stand in `joined`, too.
    shared: usize,
    /// What was pushed last, without what is cut.
    chunk: Bytes,
}

impl Unread {
    /// The first unread bytes.
    fn shown(&self) -> &[u8] {
        if self.joined.is_empty() {
            &self.chunk
        } else {
            &self.joined
        }
    }

    /// Whether what is shown is all there is.
    fn is_shown_whole(&self) -> bool {
        self.joined.is_empty() || self.shared == self.chunk.len()
    }

    /// Shows more of what is there; `false` where all of it is shown.
    fn show_more(&mut self) -> bool {
        if self.is_shown_whole() {
            return false;
        }
        let hidden = &self.chunk[self.shared..];
        let more = hidden.len().min(self.joined.len().max(PIECE));
        self.joined.extend_from_slice(&hidden[..more]);
        self.shared += more;
        true
    }

    fn push(&mut self, chunk: Bytes) {
        let begun = &self.chunk[self.shared..];
        if !begun.is_empty() {
            self.joined.reserve(begun.len() + PIECE);
            self.joined.extend_from_slice(begun);
        }
        (self.chunk, self.shared) = (chunk, 0);
        self.show_more();
    }

    /// Takes `count` of the shown bytes.
    fn take(&mut self, count: usize) -> Bytes {
        if self.joined.is_empty() {
            return self.chunk.split_to(count);
        }
        let taken = self.joined.split_to(count).freeze();
        // What is left of it stands in the chunk, too: from there on nothing is put together.
        if self.joined.len() <= self.shared {
            self.chunk.advance(self.shared - self.joined.len());
            (self.joined, self.shared) = (BytesMut::new(), 0);
        }
        taken
    }
}

/// Cuts records out of chunks: [`push`](Self::push) a chunk, take with [`cut`](Self::cut) until there is none, and at the end of the
/// file [`finish`](Self::finish) and take what is left.
#[derive(Debug)]
pub struct Cutter {
    place: Place,
    unread: Unread,
    /// Offset of the first unread byte in the decompressed file.
    position: u64,
    /// How much of what is shown of the unread bytes was searched for the end of their first record.
    scanned: usize,
    /// How the scan of their first element stands at `scanned`.
    nesting: Nesting,
    /// How the scan of their first row stands at `scanned`.
    quoting: Quoting,
    delimiter: u8,
    limit: usize,
    at_end: bool,
}

impl Cutter {
    /// A cutter for bytes from `position` on, where `place` is; records above `limit` bytes are too large.
    pub fn new(place: Place, position: u64, limit: usize) -> Self {
        Self {
            place,
            unread: Unread::default(),
            position,
            scanned: 0,
            nesting: Nesting::default(),
            quoting: Quoting::default(),
            delimiter: b',',
            limit,
            at_end: false,
        }
    }

    /// With another character between the fields of a row.
    #[must_use]
    pub const fn delimited_by(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Says that the columns are known, so that the first row is a record.
    pub fn pass_header(&mut self) {
        self.place = Place::Row;
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, chunk: Bytes) {
        self.unread.push(chunk);
    }

    /// Says that no byte follows: a last line without its end is a record then.
    pub fn finish(&mut self) {
        self.at_end = true;
    }

    /// Whether [`finish`](Self::finish) was called.
    pub const fn is_finished(&self) -> bool {
        self.at_end
    }

    /// Where the next record begins, or what was skipped so far: with [`place`](Self::place) a point to go on from.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that wait to be cut.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        self.unread.joined.len() + self.unread.chunk.len() - self.unread.shared
    }

    /// What the byte at [`position`](Self::position) belongs to.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The next record; `None` when more bytes are needed, or, after [`finish`](Self::finish), when there are no more records.
    pub fn cut(&mut self) -> Option<Cut> {
        loop {
            let cut = self.cut_shown();
            if cut.is_some() || !self.unread.show_more() {
                return cut;
            }
        }
    }

    /// The next record, as far as unread bytes are shown.
    fn cut_shown(&mut self) -> Option<Cut> {
        if self.position == 0 && !self.pass_byte_order_mark() {
            return None;
        }
        match self.place {
            Place::Line | Place::SkippingLine => self.cut_line(),
            Place::Header | Place::Row | Place::SkippingRow { .. } => self.cut_row(),
            _ => self.cut_element(),
        }
    }

    /// Why a file that ends here ends too early, if it does.
    pub const fn problem_at_end(&self) -> Option<FileProblem> {
        match self.place {
            Place::SkippingRow { quoting } if quoting.is_open() => {
                Some(FileProblem::QuoteNotClosed {
                    offset: self.position,
                })
            }
            Place::Line
            | Place::SkippingLine
            | Place::Header
            | Place::Row
            | Place::SkippingRow { .. }
            | Place::AfterArray => None,
            _ => Some(FileProblem::ArrayCutShort {
                offset: self.position,
            }),
        }
    }

    /// `false` while the first bytes may still become the mark.
    fn pass_byte_order_mark(&mut self) -> bool {
        let shown = self.unread.shown();
        if shown.starts_with(&BYTE_ORDER_MARK) {
            self.advance(BYTE_ORDER_MARK.len());
            return true;
        }
        self.shows_the_end()
            || shown.len() >= BYTE_ORDER_MARK.len()
            || !BYTE_ORDER_MARK.starts_with(shown)
    }

    /// Whether the file ends where the shown bytes do.
    fn shows_the_end(&self) -> bool {
        self.at_end && self.unread.is_shown_whole()
    }

    fn advance(&mut self, count: usize) {
        drop(self.take(count));
    }

    /// Passes over all that is shown; `false` where nothing else was pushed.
    fn advance_to_more(&mut self) -> bool {
        self.advance(self.unread.shown().len());
        !self.unread.shown().is_empty()
    }

    /// Takes `count` of the shown bytes.
    fn take(&mut self, count: usize) -> Bytes {
        self.position += count as u64;
        self.scanned = 0;
        self.unread.take(count)
    }

    fn span_from(&self, start: u64) -> Span {
        Span {
            start,
            end: self.position,
            after: self.place,
        }
    }

    fn cut_line(&mut self) -> Option<Cut> {
        loop {
            while self.place == Place::SkippingLine {
                match memchr(b'\n', self.unread.shown()) {
                    Some(end) => {
                        self.advance(end + 1);
                        self.place = Place::Line;
                    }
                    None if self.advance_to_more() => {}
                    None => return None,
                }
            }
            // The longest line that can hold an allowed record is followed by "\r\n".
            let shown = self.unread.shown();
            let window = shown.len().min(self.limit + 2);
            let length = match memchr(b'\n', &shown[self.scanned..window]) {
                Some(found) => self.scanned + found + 1,
                None if window == self.limit + 2 => {
                    return Some(self.skip_rest(window, Place::SkippingLine));
                }
                None if window > 0 && self.shows_the_end() => window,
                None => {
                    self.scanned = window;
                    return None;
                }
            };
            let start = self.position;
            let mut line = self.take(length);
            line.truncate(line.trim_ascii_end().len());
            line.advance(line.len() - line.trim_ascii_start().len());
            match line.len() {
                0 => {}
                length if length > self.limit => {
                    return Some(Cut::TooLarge {
                        span: self.span_from(start),
                    });
                }
                _ => {
                    return Some(Cut::Record {
                        bytes: line,
                        span: self.span_from(start),
                    });
                }
            }
        }
    }

    fn cut_row(&mut self) -> Option<Cut> {
        while let Place::SkippingRow { mut quoting } = self.place {
            let end = quoting.scan(self.unread.shown(), self.delimiter);
            if let Some(end) = end {
                self.advance(end);
                self.place = Place::Row;
                break;
            }
            self.place = Place::SkippingRow { quoting };
            if !self.advance_to_more() {
                return None;
            }
        }
        loop {
            if self.scanned == 0 {
                self.quoting = Quoting::default();
            }
            let is_header = self.place == Place::Header;
            let limit = if is_header { HEADER_BYTES } else { self.limit };
            // The longest row that can be allowed is followed by "\r\n".
            let shown = self.unread.shown();
            let window = shown.len().min(limit + 2);
            let unscanned = &shown[self.scanned..window];
            let length = match self.quoting.scan(unscanned, self.delimiter) {
                Some(found) => self.scanned + found,
                None if window == limit + 2 && is_header => {
                    let reason = format!("it is longer than {HEADER_BYTES} bytes");
                    return Some(Cut::Problem(FileProblem::BadHeader { reason }));
                }
                None if window == limit + 2 => {
                    let quoting = self.quoting;
                    return Some(self.skip_rest(window, Place::SkippingRow { quoting }));
                }
                None if self.quoting.is_open() && self.shows_the_end() => {
                    let offset = self.position;
                    return Some(Cut::Problem(FileProblem::QuoteNotClosed { offset }));
                }
                None if window > 0 && self.shows_the_end() => window,
                None => {
                    self.scanned = window;
                    return None;
                }
            };
            let start = self.position;
            let bytes = self.take(length);
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            self.place = Place::Row;
            let span = self.span_from(start);
            return Some(if is_header {
                Cut::Header { bytes }
            } else if bytes.trim_ascii_end().len() > self.limit {
                Cut::TooLarge { span }
            } else {
                Cut::Record { bytes, span }
            });
        }
    }

    fn cut_element(&mut self) -> Option<Cut> {
        while let Place::SkippingElement { mut nesting } = self.place {
            if let Some(end) = nesting.scan(self.unread.shown()) {
                self.advance(end);
                self.place = Place::Separator;
                break;
            }
            self.place = Place::SkippingElement { nesting };
            if !self.advance_to_more() {
                return None;
            }
        }
        loop {
            while self.scanned == 0 && self.unread.shown().first()?.is_ascii_whitespace() {
                let is_white = |byte: &&u8| byte.is_ascii_whitespace();
                let white = self.unread.shown().iter().take_while(is_white).count();
                self.advance(white);
            }
            let offset = self.position;
            let next = match (self.place, *self.unread.shown().first()?) {
                (Place::ArrayStart, b'[') => Place::FirstElement,
                (Place::ArrayStart, _) => {
                    return Some(Cut::Problem(FileProblem::NotAnArray { offset }));
                }
                (Place::FirstElement | Place::Separator, b']') => Place::AfterArray,
                (Place::Separator, b',') => Place::Element,
                (Place::AfterArray, _) => {
                    return Some(Cut::Problem(FileProblem::AfterArray { offset }));
                }
                (Place::Separator, _) | (Place::FirstElement | Place::Element, b',' | b']') => {
                    return Some(Cut::Problem(FileProblem::ArrayBroken { offset }));
                }
                _ => return self.cut_value(),
            };
            self.advance(1);
            self.place = next;
        }
    }

    /// Cuts the value that the unread bytes begin with.
    fn cut_value(&mut self) -> Option<Cut> {
        if self.scanned == 0 {
            self.nesting = Nesting::default();
        }
        let shown = self.unread.shown();
        let window = shown.len().min(self.limit + 1);
        let Some(end) = self.nesting.scan(&shown[self.scanned..window]) else {
            if window > self.limit {
                let nesting = self.nesting;
                return Some(self.skip_rest(window, Place::SkippingElement { nesting }));
            }
            self.scanned = window;
            return None;
        };
        let length = self.scanned + end;
        let start = self.position;
        let bytes = self.take(length);
        self.place = Place::Separator;
        let span = self.span_from(start);
        Some(if length > self.limit {
            Cut::TooLarge { span }
        } else {
            Cut::Record { bytes, span }
        })
    }

    /// Drops what was seen of a record that is too large. Always the same number of bytes, so that the file is cut the same way however it comes.
    fn skip_rest(&mut self, seen: usize, skipping: Place) -> Cut {
        let start = self.position;
        self.advance(seen);
        self.place = skipping;
        Cut::TooLarge {
            span: self.span_from(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 24;

    /// Everything that is cut, as short lines.
    fn cut_all(layout: Layout, chunks: &[&[u8]], limit: usize) -> Vec<String> {
        fn take(cutter: &mut Cutter, cuts: &mut Vec<String>) -> bool {
            while let Some(cut) = cutter.cut() {
                match cut {
                    Cut::Record { bytes, span } => {
                        cuts.push(format!(
                            "{}..{} {}",
                            span.start,
                            span.end,
                            String::from_utf8_lossy(&bytes)
                        ));
                    }
                    Cut::Header { bytes } => {
                        cuts.push(format!("header {}", String::from_utf8_lossy(&bytes)));
                    }
                    Cut::Refused { .. } => unreachable!("the cutter doesn't look into records"),
                    Cut::TooLarge { span } => {
                        cuts.push(format!("{}..{} too large", span.start, span.end));
                    }
                    Cut::Problem(problem) => {
                        cuts.push(problem.to_string());
                        return false;
                    }
                }
            }
            true
        }
        let mut cutter = Cutter::new(Place::first(layout), 0, limit);
        let mut cuts = Vec::new();
        for chunk in chunks {
            cutter.push(Bytes::copy_from_slice(chunk));
            if !take(&mut cutter, &mut cuts) {
                return cuts;
            }
        }
        cutter.finish();
        if take(&mut cutter, &mut cuts) {
            cuts.extend(cutter.problem_at_end().map(|problem| problem.to_string()));
        }
        cuts
    }

    fn lines(text: &str) -> Vec<String> {
        cut_all(Layout::Lines, &[text.as_bytes()], LIMIT)
    }

    fn elements(text: &str) -> Vec<String> {
        cut_all(Layout::Array, &[text.as_bytes()], LIMIT)
    }

    #[test]
    fn lines_are_records_whatever_their_ends_and_empty_ones_are_not() {
        assert_eq!(
            lines("{}\r\n\n  \r\n [1] \n2"),
            ["0..4 {}", "9..15 [1]", "15..16 2"]
        );
        assert_eq!(lines(""), [""; 0]);
        assert_eq!(lines("\n\n"), [""; 0]);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_at_the_beginning_only() {
        assert_eq!(
            lines("\u{feff}1\n\u{feff}2\n"),
            ["3..5 1", "5..10 \u{feff}2"]
        );
        assert_eq!(elements("\u{feff}[1]"), ["4..5 1"]);
        assert_eq!(lines("\u{feff}"), [""; 0]);
        assert_eq!(
            cut_all(Layout::Lines, &[b"\xef\xbb"], LIMIT),
            ["0..2 \u{fffd}"]
        );
    }

    #[test]
    fn a_line_above_the_limit_is_skipped_and_the_next_one_is_read() {
        let fits = "x".repeat(LIMIT);
        let just_above = "x".repeat(LIMIT + 1);
        let far_above = "x".repeat(4 * LIMIT);
        assert_eq!(
            lines(&format!("{fits}\r\n1")),
            [format!("0..26 {fits}"), "26..27 1".to_owned()]
        );
        assert_eq!(
            lines(&format!("{just_above}\n1")),
            ["0..26 too large", "26..27 1"]
        );
        assert_eq!(
            lines(&format!("{far_above}\n1")),
            ["0..26 too large", "97..98 1"]
        );
        assert_eq!(lines(&far_above), ["0..26 too large"]);
    }

    #[test]
    fn elements_of_an_array_are_records() {
        assert_eq!(
            elements("[ {\"a\":\"]}\\\"\"} ,[1,[2]],\n\"x,y\", 1.10,true ]\n"),
            [
                "2..14 {\"a\":\"]}\\\"\"}",
                "16..23 [1,[2]]",
                "25..30 \"x,y\"",
                "32..36 1.10",
                "37..41 true"
            ]
        );
        assert_eq!(elements("[]"), [""; 0]);
        assert_eq!(elements(" [ ] "), [""; 0]);
    }

    #[test]
    fn an_element_above_the_limit_is_skipped_and_the_next_one_is_read() {
        let fits = format!("\"{}\"", "x".repeat(LIMIT - 2));
        let just_above = format!("\"{}\"", "x".repeat(LIMIT - 1));
        let far_above = format!("{{\"a\":\"{}\\\"]\"}}", "x".repeat(4 * LIMIT));
        let number = "1".repeat(LIMIT);
        let long_number = "1".repeat(LIMIT + 1);
        assert_eq!(
            elements(&format!("[{fits},1]")),
            [format!("1..25 {fits}"), "26..27 1".to_owned()]
        );
        assert_eq!(
            elements(&format!("[{just_above},1]")),
            ["1..26 too large", "27..28 1"]
        );
        assert_eq!(
            elements(&format!("[{far_above},1]")),
            ["1..26 too large", "109..110 1"]
        );
        assert_eq!(
            elements(&format!("[{number},1]")),
            [format!("1..25 {number}"), "26..27 1".to_owned()]
        );
        assert_eq!(
            elements(&format!("[{long_number} ,1]")),
            ["1..26 too large", "28..29 1"]
        );
    }

    #[test]
    fn an_array_that_breaks_keeps_what_was_good_and_names_the_byte() {
        for (text, expected) in [
            (
                "",
                "the JSON array is cut short: the file ends at byte 0 without a \"]\"",
            ),
            (
                "[",
                "the JSON array is cut short: the file ends at byte 1 without a \"]\"",
            ),
            ("{}", "the file is not a JSON array: no \"[\" at byte 0"),
            (
                "[,1]",
                "the JSON array is broken at byte 1: an element, \",\" or \"]\" was expected",
            ),
        ] {
            assert_eq!(elements(text), [expected], "{text}");
        }
        for (text, expected) in [
            (
                "[1 ",
                "the JSON array is cut short: the file ends at byte 3 without a \"]\"",
            ),
            (
                "[1,",
                "the JSON array is cut short: the file ends at byte 3 without a \"]\"",
            ),
            (
                "[1,{\"a\":",
                "the JSON array is cut short: the file ends at byte 3 without a \"]\"",
            ),
            (
                "[1,]",
                "the JSON array is broken at byte 3: an element, \",\" or \"]\" was expected",
            ),
            (
                "[1 2]",
                "the JSON array is broken at byte 3: an element, \",\" or \"]\" was expected",
            ),
            (
                "[1] x",
                "the JSON array ends, and something follows it at byte 4",
            ),
        ] {
            assert_eq!(elements(text), ["1..2 1", expected], "{text}");
        }
    }

    #[test]
    fn garbage_in_an_elements_place_is_cut_as_a_record_and_the_array_goes_on() {
        assert_eq!(
            elements("[oops, {]], 1]"),
            [
                "1..5 oops",
                "7..9 {]",
                "the JSON array ends, and something follows it at byte 10"
            ]
        );
        assert_eq!(elements("[oops}, 1]"), ["1..6 oops}", "8..9 1"]);
    }

    /// Text that is likely to be nearly right.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec!["{", "}", "[", "]", ",", "\"", "\\", "\n", "\r\n", " ", ":", "\u{feff}"])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            3 => prop::sample::select(vec!["1", "null", "\"a\"", "{\"a\":1}", "[1,2]", "\"x\\\"y\"", "é"])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..12),
            1 => (0_usize..60).prop_map(|length| vec![b'x'; length]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    fn divide<'a>(text: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let mut rest = text;
        let mut chunks = Vec::new();
        for length in lengths {
            let (chunk, remaining) = rest.split_at((*length).min(rest.len()));
            chunks.push(chunk);
            rest = remaining;
        }
        chunks.push(rest);
        chunks
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        prop_oneof![Just(Layout::Lines), Just(Layout::Array), Just(Layout::Rows)]
    }

    #[test]
    fn rows_end_outside_of_quotes_and_the_first_is_the_header() {
        let rows = |text: &str| cut_all(Layout::Rows, &[text.as_bytes()], LIMIT);
        assert_eq!(
            rows("\u{feff}a,b\r\n1,\"x\ny\"\n\n2,\"\"\"\"\r\n3,5\" \n"),
            [
                "header a,b\r\n",
                "8..16 1,\"x\ny\"\n",
                "17..25 2,\"\"\"\"\r\n",
                "25..31 3,5\" \n"
            ]
        );
        assert_eq!(rows(""), [""; 0]);
        assert_eq!(rows("a"), ["header a"]);
        assert_eq!(
            rows("a\n1\n\"2"),
            [
                "header a\n",
                "2..4 1\n",
                "the file ends between quotes, in the row that begins at byte 4"
            ]
        );
    }

    #[test]
    fn a_row_above_the_limit_is_skipped_line_ends_between_quotes_and_all() {
        let long = format!("\"{}\n\"\n", "x".repeat(LIMIT));
        assert_eq!(
            cut_all(Layout::Rows, &[format!("a\n{long}2\n").as_bytes()], LIMIT),
            ["header a\n", "2..28 too large", "30..32 2\n"]
        );
        let open = format!("a\n\"{}\n", "x".repeat(2 * LIMIT));
        assert_eq!(
            cut_all(Layout::Rows, &[open.as_bytes()], LIMIT),
            [
                "header a\n",
                "2..28 too large",
                "the file ends between quotes, in the row that begins at byte 52"
            ]
        );
        let fits = "x".repeat(LIMIT);
        assert_eq!(
            cut_all(Layout::Rows, &[format!("a\n{fits}\r\n").as_bytes()], LIMIT).len(),
            2
        );
        let endless = vec![b'x'; 100_000];
        assert!(cut_all(Layout::Rows, &[&endless], LIMIT)[0].contains("longer than 65536 bytes"));
    }

    proptest! {
        #[test]
        fn any_chunking_of_the_same_bytes_gives_the_same_records(
            text in nearly_json(),
            layout in layouts(),
            lengths in prop::collection::vec(0_usize..9, 0..80),
        ) {
            let text = if layout == Layout::Array { [b"[".as_slice(), &text].concat() } else { text };
            let whole = cut_all(layout, &[&text], LIMIT);
            prop_assert_eq!(&whole, &cut_all(layout, &divide(&text, &lengths), LIMIT));
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(&whole, &cut_all(layout, &bytes, LIMIT));
        }

        #[test]
        fn cutting_on_from_the_end_of_any_record_gives_the_rest(text in nearly_json(), layout in layouts()) {
            let text = if layout == Layout::Array { [b"[".as_slice(), &text].concat() } else { text };
            let mut cutter = Cutter::new(Place::first(layout), 0, LIMIT);
            cutter.push(text.clone().into());
            cutter.finish();
            let mut cuts = Vec::new();
            while let Some(cut) = cutter.cut() {
                let problem = matches!(cut, Cut::Problem(_));
                cuts.push(cut);
                if problem { break; }
            }
            for (index, cut) in cuts.iter().enumerate() {
                let (Cut::Record { span, .. } | Cut::TooLarge { span }) = cut else { continue };
                let mut resumed = Cutter::new(span.after, span.end, LIMIT);
                let from = usize::try_from(span.end).unwrap();
                resumed.push(Bytes::copy_from_slice(&text[from..]));
                resumed.finish();
                for expected in &cuts[index + 1..] {
                    let cut = resumed.cut();
                    prop_assert_eq!(Some(expected), cut.as_ref());
                }
            }
        }

        #[test]
        fn the_elements_of_a_written_array_come_back_byte_by_byte(
            elements in prop::collection::vec("[a-z\"\\\\,\\]}{ \n]{0,8}", 0..20),
        ) {
            let written: Vec<String> = elements.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
            let array = format!("[{}]", written.join(","));
            let mut cutter = Cutter::new(Place::ArrayStart, 0, 1000);
            cutter.push(array.into());
            cutter.finish();
            let mut cut = Vec::new();
            while let Some(Cut::Record { bytes, .. }) = cutter.cut() {
                cut.push(String::from_utf8(bytes.to_vec()).unwrap());
            }
            prop_assert_eq!(cut, written);
            prop_assert_eq!(cutter.problem_at_end(), None);
        }
    }
}
