//! Reading the fields of an event's body, alike for all flavours.

use serde_json::{Map, Value};

use super::{DecodeError, IDENTITY_MAX, Kind, is_identity};
use crate::digest::sha256_hex;

/// Below this a `createdAt` is in seconds, from it on in milliseconds (PROTOCOL 3.4).
const FIRST_MILLISECONDS: i64 = 100_000_000_000;

/// The platform's id when it can be a key; else a digest that every repetition of the same event shares, and that comes out the same when
/// [`Event::raw`] is decoded again.
pub(crate) fn message_id(
    kind: &Kind,
    transfer_id: Option<&str>,
    fields: &Map<String, Value>,
    raw: &Value,
) -> (String, bool) {
    match text(fields, "messageId") {
        Some(given) if is_identity(given) => return (given.to_owned(), false),
        Some(given) if !given.is_empty() => return (digest_id(given.as_bytes()), true),
        _ => {}
    }
    let (Some(transfer_id), true) = (transfer_id, kind.is_known()) else {
        return (digest_id(raw.to_string().as_bytes()), true);
    };
    let s3_key = match kind {
        Kind::AppDataUploaded { s3_key, .. } => s3_key.as_str(),
        _ => "",
    };
    // No identity holds a line break, so the three parts can't run into one another.
    let whole = format!("{transfer_id}\n{}\n{s3_key}", kind.event_type());
    (digest_id(whole.as_bytes()), true)
}

fn digest_id(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

/// `createdAt` in milliseconds: a number or a text of digits, in seconds or milliseconds.
pub(crate) fn milliseconds(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?))?,
        Value::String(digits) => digits.trim().parse().ok()?,
        _ => return None,
    };
    match number {
        ..=0 => None,
        1..FIRST_MILLISECONDS => number.checked_mul(1_000),
        FIRST_MILLISECONDS.. => Some(number),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked: it fits an i64 exactly enough for a date"
)]
fn whole(number: f64) -> Option<i64> {
    (0.0..1e16).contains(&number).then_some(number as i64)
}

pub(crate) fn text<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    fields.get(field).and_then(Value::as_str)
}

pub(crate) fn present(fields: &Map<String, Value>, field: &str) -> bool {
    fields
        .get(field)
        .is_some_and(|value| !value.is_null() && value.as_str() != Some(""))
}

pub(crate) fn identity(
    event_type: &str,
    fields: &Map<String, Value>,
    field: &'static str,
) -> Result<String, DecodeError> {
    if !present(fields, field) {
        return Err(DecodeError::MissingField {
            event_type: event_type.to_owned(),
            field,
        });
    }
    lenient_identity(fields, field).ok_or_else(|| DecodeError::InvalidField {
        event_type: event_type.to_owned(),
        field,
    })
}

pub(crate) fn lenient_identity(fields: &Map<String, Value>, field: &str) -> Option<String> {
    text(fields, field)
        .filter(|value| is_identity(value))
        .map(str::to_owned)
}

pub(crate) fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(IDENTITY_MAX)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_creation_time_is_read_in_seconds_and_in_milliseconds() {
        for (given, expected) in [
            (json!(1_763_769_600), Some(1_763_769_600_000)),
            (json!(1_763_769_600_000_i64), Some(1_763_769_600_000)),
            (json!("1763769600"), Some(1_763_769_600_000)),
            (json!(99_999_999_999_i64), Some(99_999_999_999_000)),
            (json!(100_000_000_000_i64), Some(100_000_000_000)),
            (json!(0), None),
            (json!(-5), None),
            (json!("soon"), None),
            (json!(null), None),
        ] {
            assert_eq!(milliseconds(&given), expected, "{given}");
        }
    }
}
