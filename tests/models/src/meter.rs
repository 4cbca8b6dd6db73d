use landfall_tracking::{Item, Key, Value};

/// What the calls so far would have cost, by the published rules (AWS DynamoDB, "read and write capacity").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Calls.
    pub calls: u64,
    /// Read units, in halves: an eventually consistent read of 4 KB is one half.
    pub half_read_units: u64,
    /// Write units of the tables.
    pub write_units: u64,
    /// Write units of the sparse index.
    pub index_write_units: u64,
}

/// Bytes of one read unit.
const READ_UNIT: usize = 4_096;

/// Bytes of one write unit.
const WRITE_UNIT: usize = 1_024;

impl Meter {
    /// Read units, as AWS bills them.
    pub fn read_units(&self) -> f64 {
        f64::from(u32::try_from(self.half_read_units).unwrap_or(u32::MAX)) / 2.0
    }

    pub(crate) fn read(&mut self, bytes: usize, consistent: bool) {
        let units = bytes.div_ceil(READ_UNIT).max(1) as u64;
        self.half_read_units += units * if consistent { 2 } else { 1 };
    }

    pub(crate) fn write(&mut self, bytes: usize, transaction: bool) {
        let units = bytes.div_ceil(WRITE_UNIT).max(1) as u64;
        self.write_units += units * if transaction { 2 } else { 1 };
    }
}

/// Size of a row, its key included.
pub(crate) fn size(key: &Key, item: &Item) -> usize {
    key_size(key)
        + item
            .iter()
            .map(|(name, value)| name.len() + value_size(value))
            .sum::<usize>()
}

/// Size of an entry of the sparse index, which holds keys only.
pub(crate) fn entry_size(key: &Key, shard: &str, at: i64) -> usize {
    key_size(key) + "due_shard".len() + shard.len() + "due_at".len() + number_size(at)
}

fn key_size(key: &Key) -> usize {
    "pk".len() + key.partition.len() + "sk".len() + key.sort.len()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Number(number) => number_size(*number),
        Value::Flag(_) => 1,
        Value::Bytes(bytes) => bytes.len(),
    }
}

/// Two significant digits a byte, one byte more, and one for a minus; zeros at the end don't count.
fn number_size(number: i64) -> usize {
    let digits = number.unsigned_abs().to_string();
    let significant = digits.trim_end_matches('0').len();
    significant.div_ceil(2) + 1 + usize::from(number < 0)
}
