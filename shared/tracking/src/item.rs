use std::borrow::Cow;
use std::collections::BTreeMap;

use landfall_transfer::Timestamp;

use crate::error::Error;

/// An attribute's name.
pub type Name = Cow<'static, str>;

/// A row's attributes, its key left out.
pub type Item = BTreeMap<Name, Value>;

/// An attribute's value: the four kinds that Landfall stores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
    /// True or false.
    Flag(bool),
    /// Bytes.
    Bytes(Vec<u8>),
}

pub(crate) fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

/// A count or a version. What lies beyond 2^63 is none that anybody can have reached.
pub(crate) fn number(value: impl TryInto<i64>) -> Value {
    Value::Number(value.try_into().unwrap_or(i64::MAX))
}

pub(crate) const fn instant(value: Timestamp) -> Value {
    Value::Number(value.as_millis())
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
        match self.item.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'item str, Error> {
        self.optional_text(name).ok_or_else(|| self.missing(name))
    }

    pub(crate) fn optional_number(&self, name: &str) -> Option<i64> {
        match self.item.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, Error> {
        self.optional_number(name)
            .and_then(|value| u64::try_from(value).ok())
            .ok_or_else(|| self.missing(name))
    }

    pub(crate) fn optional_instant(&self, name: &str) -> Option<Timestamp> {
        self.optional_number(name).map(Timestamp::from_millis)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.item.get(name), Some(Value::Flag(true)))
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<&'item [u8]> {
        match self.item.get(name) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn missing(&self, name: &str) -> Error {
        Error::unreadable(
            self.what,
            format!("attribute {name} is missing or of another type"),
        )
    }
}
