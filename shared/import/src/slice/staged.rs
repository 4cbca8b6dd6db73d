//! The lines that the S3 sink wrote, read back: a record each, and its key.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::identity::{KEY_BYTES, Key};
use crate::mapping::GROWTH_BYTES;

/// By how much a line may be longer than its record was before it was staged: names, the hash, the longest key, every byte of it escaped (`\u0000`), and
/// what replaced ids have added.
pub(super) const LINE_BYTES: usize = 160 + 6 * KEY_BYTES + GROWTH_BYTES;

/// A record that was staged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) key: Key,
    /// The record, its ids replaced.
    pub(super) record: Bytes,
}

#[derive(Deserialize)]
struct Line<'line> {
    #[serde(borrow)]
    key: Cow<'line, str>,
    #[serde(borrow)]
    record: &'line RawValue,
}

/// Each line's record, or why it has none.
pub(super) fn open(cuts: &[Result<Bytes, String>]) -> Vec<Result<Staged, String>> {
    cuts.iter()
        .map(|cut| match cut {
            Ok(line) => read(line),
            Err(reason) => Err(reason.clone()),
        })
        .collect()
}

fn read(line: &Bytes) -> Result<Staged, String> {
    let text = std::str::from_utf8(line).ok();
    let read = text.and_then(|text| serde_json::from_str::<Line<'_>>(text).ok());
    match read {
        Some(Line { key, record }) => Ok(Staged {
            key: Key::from(&*key),
            record: line.slice_ref(record.get().as_bytes()),
        }),
        // Somebody else has written into the folder.
        None => Err("the line is not one that was staged".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_line_gives_its_key_and_its_record_as_it_was_written() {
        let line = Bytes::from_static(
            br#"{"key":"a\n\u00fc","content_hash":"00","record":{"n": 1.10,"deep":[{}]}}"#,
        );
        let read = read(&line).unwrap();
        assert_eq!(&*read.key, "a\n\u{fc}");
        assert_eq!(&*read.record, br#"{"n": 1.10,"deep":[{}]}"#);
    }

    #[test]
    fn what_was_not_staged_is_told_apart_and_costs_nothing_but_itself() {
        let lines = [&b"{}"[..], b"[1]", b"\xff", b"", br#"{"key":1,"record":2}"#];
        let mut cuts: Vec<_> = lines.map(|line| Ok(Bytes::from_static(line))).into();
        cuts.push(Err("too large".to_owned()));
        cuts.push(Ok(Bytes::from_static(br#"{"record":null,"key":"k"}"#)));
        let opened = open(&cuts);
        assert!(opened[..6].iter().all(Result::is_err));
        assert_eq!(opened[5], Err("too large".to_owned()));
        assert_eq!(&*opened[6].as_ref().unwrap().record, b"null");
    }
}
