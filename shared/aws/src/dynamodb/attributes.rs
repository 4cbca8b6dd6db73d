//! Rows as DynamoDB writes them in JSON.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_tracking::{DueEntry, Error, Item, Key, Value};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A row, or as much of it as is there: its key, where it stands in the index, its other attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) key: Option<&'a Key>,
    pub(super) due: Option<(&'a str, i64)>,
    pub(super) item: Option<&'a Item>,
}

impl<'a> Attributes<'a> {
    pub(super) fn key(key: &'a Key) -> Self {
        Self {
            key: Some(key),
            ..Self::default()
        }
    }
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(item) = self.item {
            for (name, value) in item {
                map.serialize_entry(name, &Attribute::of(value))?;
            }
        }
        if let Some((shard, at)) = self.due {
            map.serialize_entry("due_shard", &Attribute::Text(shard))?;
            map.serialize_entry("due_at", &Attribute::Number(at))?;
        }
        if let Some(key) = self.key {
            map.serialize_entry("pk", &Attribute::Text(&key.partition))?;
            map.serialize_entry("sk", &Attribute::Text(&key.sort))?;
        }
        map.end()
    }
}

/// A value with its kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
    Bytes(&'a [u8]),
}

impl<'a> Attribute<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Number(number) => Self::Number(*number),
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

impl Serialize for Attribute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Text(text) => map.serialize_entry("S", text)?,
            Self::Number(number) => map.serialize_entry("N", &number.to_string())?,
            Self::Flag(flag) => map.serialize_entry("BOOL", flag)?,
            Self::Bytes(bytes) => map.serialize_entry("B", &STANDARD.encode(bytes))?,
        }
        map.end()
    }
}

/// A row as it comes.
#[derive(Debug, Default)]
pub(super) struct Row(Vec<(String, Option<Value>)>);

impl Row {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The attributes without the key.
    pub(super) fn item(self) -> Result<Item, Error> {
        self.0
            .into_iter()
            .filter(|(name, _)| name != "pk" && name != "sk")
            .map(|(name, value)| match value {
                Some(value) => Ok((name.into(), value)),
                None => Err(Error::Unreadable {
                    what: "a row".to_owned(),
                    problem: format!("attribute {name} has a type that this release never writes"),
                }),
            })
            .collect()
    }

    pub(super) fn take_key(&mut self) -> Result<Key, Error> {
        let mut part = |name: &str| match self.take(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(unreadable("a row", name)),
        };
        Ok(Key {
            partition: part("pk")?,
            sort: part("sk")?,
        })
    }

    pub(super) fn with_key(mut self) -> Result<(Key, Item), Error> {
        Ok((self.take_key()?, self.item()?))
    }

    pub(super) fn due_entry(mut self) -> Result<DueEntry, Error> {
        let Some(Value::Number(at)) = self.take("due_at") else {
            return Err(unreadable("a row of the due index", "due_at"));
        };
        Ok(DueEntry {
            at,
            key: self.take_key()?,
        })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let (_, value) = self.0.iter_mut().find(|(found, _)| found == name)?;
        value.take()
    }
}

fn unreadable(what: &str, name: &str) -> Error {
    Error::Unreadable {
        what: what.to_owned(),
        problem: format!("attribute {name} is missing or of another type"),
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;

        impl<'de> Visitor<'de> for Rows {
            type Value = Row;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a row")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Row, M::Error> {
                let mut row = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some((name, Kind(value))) = map.next_entry()? {
                    row.push((name, value));
                }
                Ok(Row(row))
            }
        }

        deserializer.deserialize_map(Rows)
    }
}

/// A value of one of the kinds that Landfall writes; nothing for any other.
struct Kind(Option<Value>);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;

        impl<'de> Visitor<'de> for Kinds {
            type Value = Kind;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an attribute's value with its type")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Kind, M::Error> {
                let mut value = None;
                while let Some(kind) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                    value = match &*kind {
                        "S" => Some(Value::Text(map.next_value()?)),
                        "N" => map.next_value::<String>()?.parse().ok().map(Value::Number),
                        "BOOL" => Some(Value::Flag(map.next_value()?)),
                        "B" => STANDARD
                            .decode(map.next_value::<String>()?)
                            .ok()
                            .map(Value::Bytes),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            None
                        }
                    };
                }
                Ok(Kind(value))
            }
        }

        deserializer.deserialize_map(Kinds)
    }
}
