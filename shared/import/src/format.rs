//! How a file is read, decided once from its label and its first bytes.

use serde::{Deserialize, Serialize};

use crate::declaration::Format;

/// First bytes of every gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// First bytes of every zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// First bytes of a frame that is to be skipped, such as an index: the first is one of sixteen (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE_FIRST: u8 = 0x50;
const ZSTD_SKIPPABLE_REST: [u8; 3] = [0x2a, 0x4d, 0x18];

/// UTF-8's byte order mark.
pub(crate) const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// How much white space may come before the first character that tells an array from lines; beyond it, it is lines.
pub(crate) const LEADING_WHITE_BYTES: usize = 65_536;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

/// How records are laid out in the (decompressed) file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One JSON value a line.
    Lines,
    /// The elements of one JSON array.
    Array,
    /// Rows of comma separated values; the first names the columns.
    Rows,
}

impl Compression {
    /// Decides by the first four bytes of the stored file (fewer, if it has no more). They outrank the label: a suffix may lie, these
    /// headers are nothing that JSON or a row can begin with. `None` when `head` is too short to decide and more is to come.
    pub fn decide(head: &[u8], at_end: bool) -> Option<Self> {
        match head {
            [first, second, ..] if [*first, *second] == GZIP_MAGIC => Some(Self::Gzip),
            [first, rest @ ..] if rest.len() >= ZSTD_SKIPPABLE_REST.len() => {
                let is_frame = head.starts_with(&ZSTD_MAGIC);
                let is_skippable =
                    first & 0xf0 == ZSTD_SKIPPABLE_FIRST && rest.starts_with(&ZSTD_SKIPPABLE_REST);
                Some(if is_frame || is_skippable {
                    Self::Zstd
                } else {
                    Self::Plain
                })
            }
            _ => at_end.then_some(Self::Plain),
        }
    }
}

impl Layout {
    /// What declaration and label decide without a look at the file.
    pub fn declared(format: Format, label: &str) -> Option<Self> {
        match format {
            Format::Ndjson => Some(Self::Lines),
            Format::Json => Some(Self::Array),
            Format::Csv => Some(Self::Rows),
            Format::Raw => unreachable!("a raw file has no records to lay out"),
            Format::Auto => {
                let label = without_compression_suffix(label);
                // A line may well be an array itself, so here the first character says nothing.
                if has_suffix(label, ".csv") {
                    return Some(Self::Rows);
                }
                (has_suffix(label, ".ndjson") || has_suffix(label, ".jsonl")).then_some(Self::Lines)
            }
        }
    }

    /// Decides by the first character of the decompressed file that is not white: `[` begins an array, anything else lines.
    /// `None` when `head` doesn't hold it yet.
    pub fn decide(head: &[u8], at_end: bool) -> Option<Self> {
        if !at_end && head.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(head) {
            return None;
        }
        let text = head.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(head);
        match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => Some(Self::Array),
            Some(_) => Some(Self::Lines),
            None => (at_end || head.len() > LEADING_WHITE_BYTES).then_some(Self::Lines),
        }
    }
}

/// The label without a `.gz` or `.zst` at its end.
pub(crate) fn without_compression_suffix(label: &str) -> &str {
    let suffix = [".gz", ".zst"]
        .into_iter()
        .find(|suffix| has_suffix(label, suffix));
    &label[..label.len() - suffix.map_or(0, str::len)]
}

fn has_suffix(label: &str, suffix: &str) -> bool {
    label.len().checked_sub(suffix.len()).is_some_and(|start| {
        label.is_char_boundary(start) && label[start..].eq_ignore_ascii_case(suffix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_bytes_decide_the_compression() {
        let decide = |head: &[u8]| Compression::decide(head, false);
        assert_eq!(decide(&[0x1f, 0x8b]), Some(Compression::Gzip));
        assert_eq!(decide(&[0x28, 0xb5, 0x2f, 0xfd]), Some(Compression::Zstd));
        assert_eq!(decide(&[0x5f, 0x2a, 0x4d, 0x18]), Some(Compression::Zstd));
        assert_eq!(decide(b"{}\n{"), Some(Compression::Plain));
        assert_eq!(decide(b"P*M\n"), Some(Compression::Plain));
        for short in [&[0x1f][..], &[0x28, 0xb5, 0x2f], b"{}", b""] {
            assert_eq!(decide(short), None);
            assert_eq!(Compression::decide(short, true), Some(Compression::Plain));
        }
    }

    #[test]
    fn a_declared_format_or_a_suffix_for_lines_decides_without_a_look() {
        let auto = |label| Layout::declared(Format::Auto, label);
        assert_eq!(auto("a.ndjson"), Some(Layout::Lines));
        assert_eq!(auto("a.JSONL.GZ"), Some(Layout::Lines));
        assert_eq!(auto("a.csv.gz"), Some(Layout::Rows));
        assert_eq!(auto("a.ndjson.ZST"), Some(Layout::Lines));
        assert_eq!(auto("a.json"), None);
        assert_eq!(auto("é"), None);
        assert_eq!(
            Layout::declared(Format::Json, "a.ndjson"),
            Some(Layout::Array)
        );
        assert_eq!(
            Layout::declared(Format::Ndjson, "a.json"),
            Some(Layout::Lines)
        );
    }

    #[test]
    fn the_first_character_that_is_not_white_decides_the_layout() {
        assert_eq!(Layout::decide(b" \r\n [1]", false), Some(Layout::Array));
        assert_eq!(
            Layout::decide(b"\xef\xbb\xbf[1]", false),
            Some(Layout::Array)
        );
        assert_eq!(Layout::decide(b"{", false), Some(Layout::Lines));
        assert_eq!(Layout::decide(b" \n", false), None);
        assert_eq!(Layout::decide(b" \n", true), Some(Layout::Lines));
        assert_eq!(Layout::decide(b"\xef\xbb", false), None);
        assert_eq!(Layout::decide(b"", true), Some(Layout::Lines));
        assert_eq!(
            Layout::decide(&vec![b' '; LEADING_WHITE_BYTES + 1], false),
            Some(Layout::Lines)
        );
    }
}
