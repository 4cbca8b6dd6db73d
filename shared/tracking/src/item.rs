use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use landfall_transfer::Timestamp;

use crate::error::Error;

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(format!("{value}"))
}

pub(crate) fn instant(value: Timestamp) -> AttributeValue {
    number(value.as_millis())
}

pub(crate) fn key(pk: &str, sk: &str) -> Item {
    Item::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

/// Reads attributes of one row; every error names the row by its sort key and the attribute, never its content.
pub(crate) struct Reader<'item> {
    item: &'item Item,
    what: &'static str,
}

impl<'item> Reader<'item> {
    pub(crate) const fn new(item: &'item Item, what: &'static str) -> Self {
        Self { item, what }
    }

    pub(crate) fn optional_text(&self, name: &str) -> Option<&'item str> {
        self.item
            .get(name)
            .and_then(|value| value.as_s().ok())
            .map(String::as_str)
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'item str, Error> {
        self.optional_text(name).ok_or_else(|| self.missing(name))
    }

    pub(crate) fn optional_number(&self, name: &str) -> Option<i64> {
        self.item
            .get(name)
            .and_then(|value| value.as_n().ok())
            .and_then(|digits| digits.parse().ok())
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, Error> {
        self.optional_number(name)
            .and_then(|value| u64::try_from(value).ok())
            .ok_or_else(|| self.missing(name))
    }

    pub(crate) fn optional_instant(&self, name: &str) -> Option<Timestamp> {
        self.optional_number(name).map(Timestamp::from_millis)
    }

    fn missing(&self, name: &str) -> Error {
        Error::unreadable(
            self.what,
            format!("attribute {name} is missing or of another type"),
        )
    }
}
