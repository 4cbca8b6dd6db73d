use landfall_tracking::{Item, Key, Value, Which};

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

/// What one row of one call would have cost; of a query, what all its rows together would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The call's number, from 1: the rows of a transaction share it.
    pub call: u64,
    /// The call: `get`, `query`, `write`, `transact` …
    pub operation: &'static str,
    /// The table.
    pub which: Which,
    /// The row; of a query its partition, and what its rows' sort keys begin with.
    pub key: Key,
    /// What became of the row.
    pub effect: Effect,
    /// Bytes that count: of a write the larger of the row before and after.
    pub bytes: usize,
    /// Read units, in halves.
    pub half_read_units: u64,
    /// Write units of the table.
    pub write_units: u64,
    /// Write units of the sparse index.
    pub index_write_units: u64,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It was read, or looked for.
    Read,
    /// It was written.
    Written,
    /// A transaction demanded something of it. It costs what writing it would.
    Checked,
    /// A condition did not hold. It costs what writing it would.
    Refused,
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

    /// What has come to it since an earlier reading.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            half_read_units: self.half_read_units - earlier.half_read_units,
            write_units: self.write_units - earlier.write_units,
            index_write_units: self.index_write_units - earlier.index_write_units,
        }
    }

    pub(crate) const fn add(&mut self, line: &Line) {
        self.half_read_units += line.half_read_units;
        self.write_units += line.write_units;
        self.index_write_units += line.index_write_units;
    }
}

impl Line {
    /// A read of so many bytes.
    pub(crate) fn read(
        call: &(u64, &'static str),
        row: (Which, Key),
        bytes: usize,
        consistent: bool,
    ) -> Self {
        let units = bytes.div_ceil(READ_UNIT).max(1) as u64;
        Self {
            half_read_units: units * if consistent { 2 } else { 1 },
            ..Self::of(call, row, Effect::Read, bytes)
        }
    }

    /// A write of so many bytes, or what costs as much.
    pub(crate) fn write(
        call: &(u64, &'static str),
        row: (Which, Key),
        effect: Effect,
        bytes: usize,
        transaction: bool,
    ) -> Self {
        let units = bytes.div_ceil(WRITE_UNIT).max(1) as u64;
        Self {
            write_units: units * if transaction { 2 } else { 1 },
            ..Self::of(call, row, effect, bytes)
        }
    }

    fn of(
        call: &(u64, &'static str),
        (which, key): (Which, Key),
        effect: Effect,
        bytes: usize,
    ) -> Self {
        Self {
            call: call.0,
            operation: call.1,
            which,
            key,
            effect,
            bytes,
            half_read_units: 0,
            write_units: 0,
            index_write_units: 0,
        }
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
