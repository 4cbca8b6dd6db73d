//! Rows of comma separated values as records: each row becomes a JSON object with the header's names, so that everything behind the
//! reader knows JSON only.

use std::collections::HashSet;

use csv_core::{ReadRecordResult, Terminator};
use memchr::{memchr, memchr_iter, memchr2};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::declaration::{ColumnType, Csv};

/// The longest header, in bytes as its names are stored: it is stored with every checkpoint.
pub(crate) const HEADER_BYTES: usize = 65_536;

/// Where inside a row a scan is. RFC 4180, and what is usual beyond it: a quote counts only at the beginning of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quoting {
    /// At the beginning of a field.
    #[default]
    FieldStart,
    /// In a field without quotes, or behind its closing quote.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote between quotes: the closing one, or the first of two.
    QuoteSeen,
}

impl Quoting {
    /// Whether the file can't end here.
    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Self::Quoted)
    }

    /// Scans on. The row ends before the returned index, its line end included; `None` when it goes on beyond `bytes`.
    pub(crate) fn scan(&mut self, bytes: &[u8], delimiter: u8) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match (*self, bytes[at]) {
                (Self::FieldStart | Self::QuoteSeen, b'"') => {
                    *self = Self::Quoted;
                    at += 1;
                }
                (Self::FieldStart | Self::QuoteSeen, _) => *self = Self::Plain,
                (Self::Plain, _) => {
                    at += memchr2(delimiter, b'\n', &bytes[at..])? + 1;
                    *self = Self::FieldStart;
                    if bytes[at - 1] == b'\n' {
                        return Some(at);
                    }
                }
                (Self::Quoted, _) => {
                    at += memchr(b'"', &bytes[at..])? + 1;
                    *self = Self::QuoteSeen;
                }
            }
        }
        None
    }
}

/// The columns of a file, as its header or the declaration names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    names: Vec<String>,
    /// Of each column: its name as JSON with the colon, and its type.
    written: Vec<(String, ColumnType)>,
}

impl Columns {
    /// Columns of these names. An error says what is wrong with them.
    pub(crate) fn new(names: Vec<String>, declared: &Csv) -> Result<Self, String> {
        let bytes: usize = names.iter().map(String::len).sum();
        if bytes > HEADER_BYTES {
            return Err(format!("its names have more than {HEADER_BYTES} bytes"));
        }
        let mut seen = HashSet::with_capacity(names.len());
        for (place, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(format!("column {} has no name", place + 1));
            }
            if !seen.insert(name) {
                return Err(format!("two columns are named {name:?}"));
            }
        }
        if let Some(absent) = declared.types.keys().find(|name| !names.contains(name)) {
            return Err(format!(
                "there is no column {absent:?}, for which a type is declared"
            ));
        }
        let written = names.iter().map(|name| {
            let kind = declared.types.get(name).copied().unwrap_or_default();
            (format!("{}:", Value::from(&**name)), kind)
        });
        Ok(Self {
            written: written.collect(),
            names,
        })
    }

    /// Columns as a header names them.
    pub(crate) fn of_header(header: &[u8], declared: &Csv) -> Result<Self, String> {
        let names = fields(header, declared.delimiter())
            .iter()
            .map(|name| std::str::from_utf8(name).map(str::to_owned))
            .collect::<Result<_, _>>()
            .map_err(|_| "it is not UTF-8".to_owned())?;
        Self::new(names, declared)
    }

    /// The names, as they are stored.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// A row as a JSON object. An error says why the record is rejected.
    pub(crate) fn record(&self, row: &[u8], declared: &Csv) -> Result<String, String> {
        let fields = fields(row, declared.delimiter());
        if fields.len() != self.names.len() {
            return Err(format!(
                "the row has {} fields, the header {}",
                fields.len(),
                self.names.len()
            ));
        }
        let mut record = String::with_capacity(2 * row.len());
        record.push('{');
        for ((name, kind), field) in self.written.iter().zip(&fields) {
            if record.len() > 1 {
                record.push(',');
            }
            record.push_str(name);
            let field = std::str::from_utf8(field)
                .map_err(|_| format!("the column {name} is not UTF-8"))?;
            let null = declared.null.as_deref() == Some(field)
                || (field.is_empty() && *kind != ColumnType::Text);
            if null {
                record.push_str("null");
            } else {
                kind.write(field, &mut record)
                    .ok_or_else(|| format!("the column {name} holds no {}", kind.as_str()))?;
            }
        }
        record.push('}');
        Ok(record)
    }
}

impl ColumnType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "JSON",
        }
    }

    /// Appends a field as JSON; `None` where it is no such value.
    fn write(self, field: &str, record: &mut String) -> Option<()> {
        match self {
            Self::Text => record.push_str(&Value::from(field).to_string()),
            Self::Number => record.push_str(&field.trim().parse::<Number>().ok()?.to_string()),
            Self::Boolean => record.push_str(match field.trim() {
                "true" | "TRUE" | "True" | "1" => "true",
                "false" | "FALSE" | "False" | "0" => "false",
                _ => return None,
            }),
            Self::Json => record.push_str(serde_json::from_str::<&RawValue>(field).ok()?.get()),
        }
        Some(())
    }
}

/// The fields of one row, unquoted.
fn fields(row: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    let row = row.strip_suffix(b"\r").unwrap_or(row);
    let mut reader = csv_core::ReaderBuilder::new()
        .delimiter(delimiter)
        .terminator(Terminator::Any(b'\n'))
        .build();
    let mut text = vec![0; row.len()];
    // A row has a field more than it has delimiters at most.
    let mut ends = vec![0; memchr_iter(delimiter, row).count() + 1];
    let (mut read, mut written, mut ended) = (0, 0, 0);
    loop {
        let (result, input, output, fields) =
            reader.read_record(&row[read..], &mut text[written..], &mut ends[ended..]);
        read += input;
        written += output;
        ended += fields;
        match result {
            // All of it is read; once more, without input, ends the last field.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record | ReadRecordResult::End => break,
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                unreachable!("a row's fields are no longer than the row")
            }
        }
    }
    let mut start = 0;
    ends[..ended]
        .iter()
        .map(|&end| text[std::mem::replace(&mut start, end)..end].to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn declared(types: &[(&str, ColumnType)]) -> Csv {
        let owned = |(name, kind): &(&str, ColumnType)| ((*name).to_owned(), *kind);
        Csv {
            types: types.iter().map(owned).collect::<BTreeMap<_, _>>(),
            ..Csv::default()
        }
    }

    fn record(header: &str, row: &str, declared: &Csv) -> Result<String, String> {
        Columns::of_header(header.as_bytes(), declared)
            .unwrap()
            .record(row.as_bytes(), declared)
    }

    #[test]
    fn a_row_is_an_object_with_the_headers_names() {
        let plain = declared(&[]);
        assert_eq!(
            record("id,na\"me\r\n", "1,Ann\r\n", &plain).unwrap(),
            r#"{"id":"1","na\"me":"Ann"}"#
        );
        assert_eq!(
            record("a,b,c", "\"x, \"\"y\"\"\nz\",,\"\"", &plain).unwrap(),
            r#"{"a":"x, \"y\"\nz","b":"","c":""}"#
        );
        assert_eq!(
            record("a,b", "5\" pipe,\"x\"y", &plain).unwrap(),
            r#"{"a":"5\" pipe","b":"xy"}"#
        );
    }

    #[test]
    fn a_declared_type_decides_how_a_field_is_written() {
        let typed = declared(&[
            ("n", ColumnType::Number),
            ("b", ColumnType::Boolean),
            ("j", ColumnType::Json),
        ]);
        let of = |row| record("n,b,j,t", row, &typed);
        assert_eq!(
            of(" 1.10,TRUE,\"[1, \"\"x\"\"]\",1.10").unwrap(),
            r#"{"n":1.10,"b":true,"j":[1, "x"],"t":"1.10"}"#
        );
        assert_eq!(of(",,,").unwrap(), r#"{"n":null,"b":null,"j":null,"t":""}"#);
        assert_eq!(of("x,,,").unwrap_err(), "the column \"n\": holds no number");
        assert!(of("01,,,").is_err());
        assert!(of(",maybe,,").is_err());
        assert!(of(",,{,").is_err());
    }

    #[test]
    fn what_is_declared_to_be_null_is_null_in_every_column() {
        let csv = Csv {
            null: Some("NULL".to_owned()),
            ..declared(&[("n", ColumnType::Number)])
        };
        assert_eq!(
            record("n,t", "NULL,NULL", &csv).unwrap(),
            r#"{"n":null,"t":null}"#
        );
        assert_eq!(
            record("n,t", ",null", &csv).unwrap(),
            r#"{"n":null,"t":"null"}"#
        );
    }

    #[test]
    fn a_row_of_another_length_or_encoding_is_rejected_with_the_reason() {
        let plain = declared(&[]);
        assert_eq!(
            record("a,b", "1", &plain).unwrap_err(),
            "the row has 1 fields, the header 2"
        );
        let columns = Columns::of_header(b"a,b", &plain).unwrap();
        assert!(columns.record(b"1,\xff", &plain).is_err());
    }

    #[test]
    fn a_header_that_names_no_columns_is_refused() {
        let of = |header: &[u8], declared: &Csv| Columns::of_header(header, declared).unwrap_err();
        let plain = declared(&[]);
        assert_eq!(of(b"a,", &plain), "column 2 has no name");
        assert_eq!(of(b"a,b,a", &plain), "two columns are named \"a\"");
        assert_eq!(of(b"\xff", &plain), "it is not UTF-8");
        assert_eq!(
            of(b"a", &declared(&[("b", ColumnType::Number)])),
            "there is no column \"b\", for which a type is declared"
        );
        let long = vec![b'x'; HEADER_BYTES + 1];
        assert!(of(&long, &plain).contains("65536"));
    }

    /// The rows of a text, cut in one piece.
    fn rows(text: &[u8]) -> Vec<&[u8]> {
        let (mut rows, mut rest, mut quoting) = (Vec::new(), text, Quoting::default());
        while let Some(end) = quoting.scan(rest, b',') {
            rows.push(&rest[..end]);
            rest = &rest[end..];
            quoting = Quoting::default();
        }
        if !rest.is_empty() {
            rows.push(rest);
        }
        rows
    }

    proptest! {
        /// Rows are cut where a reader of the whole text ends them, and its fields are those of each row by itself.
        #[test]
        fn rows_are_those_of_a_reader_that_sees_the_whole(text in "[ab,\"\n]{0,40}") {
            // The cutter refuses a last row that is open, so nobody reads its fields.
            let mut open = Quoting::default();
            let mut rest = text.as_bytes();
            while let Some(end) = open.scan(rest, b',') {
                rest = &rest[end..];
                open = Quoting::default();
            }
            prop_assume!(!open.is_open());
            let mut whole = csv_core::ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
            let (mut input, mut expected) = (text.as_bytes(), Vec::new());
            loop {
                let (mut fields, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 2]);
                let (mut written, mut ended) = (0, 0);
                let last = loop {
                    let (result, read, output, count) =
                        whole.read_record(input, &mut fields[written..], &mut ends[ended..]);
                    input = &input[read..];
                    written += output;
                    ended += count;
                    match result {
                        ReadRecordResult::Record => break false,
                        ReadRecordResult::End => break true,
                        _ => {}
                    }
                };
                if last {
                    break;
                }
                let mut start = 0;
                expected.push(
                    ends[..ended].iter().map(|&end| fields[std::mem::replace(&mut start, end)..end].to_vec()).collect::<Vec<_>>(),
                );
            }
            let cut: Vec<Vec<Vec<u8>>> = rows(text.as_bytes())
                .into_iter()
                .filter(|row| !row.trim_ascii().is_empty())
                .map(|row| fields(row, b','))
                .collect();
            prop_assert_eq!(cut, expected);
        }

        /// A row ends at the same byte however the bytes come.
        #[test]
        fn a_row_ends_at_the_same_byte_however_it_comes(text in "[ab,\"\n]{0,40}", at in 0_usize..40) {
            let text = text.as_bytes();
            let at = at.min(text.len());
            let whole = Quoting::default().scan(text, b',');
            let mut quoting = Quoting::default();
            let split = quoting
                .scan(&text[..at], b',')
                .or_else(|| quoting.scan(&text[at..], b',').map(|end| at + end));
            prop_assert_eq!(split, whole);
        }
    }
}
