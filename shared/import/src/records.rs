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

/// Cuts records out of chunks: [`push`](Self::push) a chunk, take with [`cut`](Self::cut) until there is none, and at the end of the
/// file [`finish`](Self::finish) and take what is left.
#[derive(Debug)]
pub struct Cutter {
    place: Place,
    buffer: BytesMut,
    /// Offset of the buffer's first byte in the decompressed file.
    position: u64,
    /// How much of the buffer was searched for the end of its first record.
    scanned: usize,
    /// How the scan of the buffer's first element stands at `scanned`.
    nesting: Nesting,
    /// How the scan of the buffer's first row stands at `scanned`.
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
            buffer: BytesMut::new(),
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
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
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
        self.buffer.len()
    }

    /// What the byte at [`position`](Self::position) belongs to.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The next record; `None` when more bytes are needed, or, after [`finish`](Self::finish), when there are no more records.
    pub fn cut(&mut self) -> Option<Cut> {
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
        if self.buffer.starts_with(&BYTE_ORDER_MARK) {
            self.advance(BYTE_ORDER_MARK.len());
        }
        self.at_end
            || self.buffer.len() >= BYTE_ORDER_MARK.len()
            || !BYTE_ORDER_MARK.starts_with(&self.buffer)
            || self.position > 0
    }

    fn advance(&mut self, count: usize) {
        self.buffer.advance(count);
        self.position += count as u64;
        self.scanned = 0;
    }

    /// Takes `count` bytes off the buffer.
    fn take(&mut self, count: usize) -> Bytes {
        self.position += count as u64;
        self.scanned = 0;
        self.buffer.split_to(count).freeze()
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
            if self.place == Place::SkippingLine {
                let Some(end) = memchr(b'\n', &self.buffer) else {
                    self.advance(self.buffer.len());
                    return None;
                };
                self.advance(end + 1);
                self.place = Place::Line;
            }
            // The longest line that can hold an allowed record is followed by "\r\n".
            let window = self.buffer.len().min(self.limit + 2);
            let length = match memchr(b'\n', &self.buffer[self.scanned..window]) {
                Some(found) => self.scanned + found + 1,
                None if window == self.limit + 2 => {
                    return Some(self.skip_rest(window, Place::SkippingLine));
                }
                None if self.at_end && window > 0 => window,
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
        if let Place::SkippingRow { mut quoting } = self.place {
            let Some(end) = quoting.scan(&self.buffer, self.delimiter) else {
                self.advance(self.buffer.len());
                self.place = Place::SkippingRow { quoting };
                return None;
            };
            self.advance(end);
            self.place = Place::Row;
        }
        loop {
            if self.scanned == 0 {
                self.quoting = Quoting::default();
            }
            let is_header = self.place == Place::Header;
            let limit = if is_header { HEADER_BYTES } else { self.limit };
            // The longest row that can be allowed is followed by "\r\n".
            let window = self.buffer.len().min(limit + 2);
            let unread = &self.buffer[self.scanned..window];
            let length = match self.quoting.scan(unread, self.delimiter) {
                Some(found) => self.scanned + found,
                None if window == limit + 2 && is_header => {
                    let reason = format!("it is longer than {HEADER_BYTES} bytes");
                    return Some(Cut::Problem(FileProblem::BadHeader { reason }));
                }
                None if window == limit + 2 => {
                    let quoting = self.quoting;
                    return Some(self.skip_rest(window, Place::SkippingRow { quoting }));
                }
                None if self.at_end && self.quoting.is_open() => {
                    let offset = self.position;
                    return Some(Cut::Problem(FileProblem::QuoteNotClosed { offset }));
                }
                None if self.at_end && window > 0 => window,
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
        if let Place::SkippingElement { mut nesting } = self.place {
            let Some(end) = nesting.scan(&self.buffer) else {
                self.advance(self.buffer.len());
                self.place = Place::SkippingElement { nesting };
                return None;
            };
            self.advance(end);
            self.place = Place::Separator;
        }
        loop {
            if self.scanned == 0 {
                let white = self
                    .buffer
                    .iter()
                    .take_while(|byte| byte.is_ascii_whitespace())
                    .count();
                self.advance(white);
            }
            let offset = self.position;
            let next = match (self.place, *self.buffer.first()?) {
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

    /// Cuts the value that the buffer begins with.
    fn cut_value(&mut self) -> Option<Cut> {
        if self.scanned == 0 {
            self.nesting = Nesting::default();
        }
        let window = self.buffer.len().min(self.limit + 1);
        let Some(end) = self.nesting.scan(&self.buffer[self.scanned..window]) else {
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
            cutter.push(chunk);
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
            cutter.push(&text);
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
                resumed.push(&text[usize::try_from(span.end).unwrap()..]);
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
            cutter.push(array.as_bytes());
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
