//! JSON (RFC 8259) as it stands in a record: whether it is that, checked in one pass that builds nothing and allocates nothing.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// The deepest nesting of objects and arrays in a record: what the parsers of most receivers take.
pub(crate) const NESTING_MAX: usize = 127;

/// How many bytes of a short string are looked at together.
const WORD: usize = 8;

/// Why a text can't be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotARecord {
    /// It is not JSON.
    Malformed,
    /// It is nested deeper than [`NESTING_MAX`], and perhaps not JSON either.
    TooDeep,
}

impl NotARecord {
    /// For a person: what is wrong with this text.
    pub(crate) fn reason(self, text: &str) -> String {
        match self {
            Self::TooDeep => format!("the record is nested deeper than {NESTING_MAX}"),
            Self::Malformed => match serde_json::from_str::<IgnoredAny>(text) {
                Err(error) => format!("the record is not JSON: {error}"),
                Ok(_) => "the record is not JSON".to_owned(),
            },
        }
    }
}

/// A text that is read from its beginning to its end, token by token.
#[derive(Debug)]
pub(crate) struct Scan<'text> {
    pub(crate) text: &'text str,
    /// The next byte.
    pub(crate) at: usize,
    depth: usize,
}

impl<'text> Scan<'text> {
    /// Before the first value of a text.
    pub(crate) fn new(text: &'text str) -> Self {
        let mut scan = Self {
            text,
            at: 0,
            depth: 0,
        };
        scan.pass_white();
        scan
    }

    /// The next byte; none at the end.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn pass_white(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes behind an opening bracket, before what is in it.
    pub(crate) fn enter(&mut self) -> Result<(), NotARecord> {
        self.at += 1;
        self.depth += 1;
        self.pass_white();
        if self.depth > NESTING_MAX {
            return Err(NotARecord::TooDeep);
        }
        Ok(())
    }

    /// Goes behind this closing bracket, if it is what comes next.
    pub(crate) fn leave(&mut self, bracket: u8) -> bool {
        self.pass_white();
        let leaves = self.peek() == Some(bracket);
        if leaves {
            self.at += 1;
            self.depth -= 1;
        }
        leaves
    }

    /// Goes behind this character and the white space around it.
    pub(crate) fn expect(&mut self, character: u8) -> Result<(), NotARecord> {
        self.pass_white();
        if self.peek() != Some(character) {
            return Err(NotARecord::Malformed);
        }
        self.at += 1;
        self.pass_white();
        Ok(())
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(mut self) -> Result<(), NotARecord> {
        self.pass_white();
        self.peek().map_or(Ok(()), |_| Err(NotARecord::Malformed))
    }

    /// Goes behind a string, a number or a literal.
    pub(crate) fn scalar(&mut self) -> Result<(), NotARecord> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err(NotARecord::Malformed),
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), NotARecord> {
        if !self.text.as_bytes()[self.at..].starts_with(literal) {
            return Err(NotARecord::Malformed);
        }
        self.at += literal.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotARecord> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Goes behind one digit or more.
    fn digits(&mut self) -> Result<(), NotARecord> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 {
            return Err(NotARecord::Malformed);
        }
        Ok(())
    }

    /// Goes behind a string.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<(), NotARecord> {
        // Most strings, names and ids above all, end within two words.
        let rest = &self.text.as_bytes()[self.at..];
        if let Some([b'"', words @ ..]) = rest.first_chunk::<{ 1 + 2 * WORD }>() {
            for (number, word) in words.as_chunks::<WORD>().0.iter().enumerate() {
                let word = u64::from_le_bytes(*word);
                let special = special(word);
                if special != 0 {
                    let end = special.trailing_zeros() / 8;
                    if word >> (8 * end) & 0xff != u64::from(b'"') {
                        break;
                    }
                    self.at += number * WORD + end as usize + 2;
                    return Ok(());
                }
            }
        }
        self.any_string()
    }

    #[inline(never)]
    fn any_string(&mut self) -> Result<(), NotARecord> {
        if self.peek() != Some(b'"') {
            return Err(NotARecord::Malformed);
        }
        self.at += 1;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(NotARecord::Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotARecord> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
            [b'u', one, two, three, four, ..]
                if [one, two, three, four]
                    .iter()
                    .all(|digit| digit.is_ascii_hexdigit()) =>
            {
                self.at += 6;
            }
            _ => return Err(NotARecord::Malformed),
        }
        Ok(())
    }
}

/// How many bytes of a string come before the next one that ends it, escapes something, or has no place in it.
fn plain(bytes: &[u8]) -> usize {
    // Names and ids end within a word or two.
    let passed = match in_words(bytes, 2) {
        Ok(end) => return end,
        Err(passed) => passed,
    };
    let rest = &bytes[passed..];
    let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let text = &rest[..end];
    // All of them are looked at, whatever is found, so that the compiler looks at many together.
    let lowest = text.iter().fold(u8::MAX, |lowest, byte| lowest.min(*byte));
    let control = (lowest < b' ').then(|| text.iter().position(|byte| *byte < b' '));
    passed + control.flatten().unwrap_or(end)
}

/// Looks at no more than so many words: where the first special byte of them stands, or how many bytes there are without one.
fn in_words(bytes: &[u8], words_max: usize) -> Result<usize, usize> {
    let words = bytes.as_chunks::<WORD>().0;
    let words = &words[..words.len().min(words_max)];
    for (number, word) in words.iter().enumerate() {
        let special = special(u64::from_le_bytes(*word));
        if special != 0 {
            return Ok(number * WORD + special.trailing_zeros() as usize / 8);
        }
    }
    Err(words.len() * WORD)
}

/// The highest bit of each byte of a word that is no plain character of a string; only up to the first one it is exact.
const fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    // A byte that is less than what is taken from it borrows from the next, and its own highest bit is set then.
    let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & (ONES << 7)
}

/// What a JSON string says; none where it says nothing that UTF-8 can write.
pub(crate) fn text(json: &str) -> Option<Cow<'_, str>> {
    let plain = json.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_plain_up_to_what_ends_or_escapes_or_has_no_place_in_it() {
        for length in 0..128 {
            for special in [b'"', b'\\', b'\n', 0, 31] {
                for following in [1, 32] {
                    let mut bytes = vec![b'x'; length];
                    assert_eq!(plain(&bytes), length);
                    bytes.push(special);
                    bytes.extend(vec![b'y'; following]);
                    assert_eq!(plain(&bytes), length);
                }
            }
        }
        assert_eq!(plain(b"\x80\xff\xa2\xdc\x7f #[]!\"\\\n"), 10);
        assert_eq!(plain("é\u{7f}".repeat(40).as_bytes()), 120);
    }

    #[test]
    fn a_reason_is_what_the_parser_says() {
        assert_eq!(
            NotARecord::Malformed.reason("{"),
            "the record is not JSON: EOF while parsing an object at line 1 column 1"
        );
        assert_eq!(
            NotARecord::TooDeep.reason("["),
            "the record is nested deeper than 127"
        );
    }
}
