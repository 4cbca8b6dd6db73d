//! The same random calls on two tables: every answer and every row must be the same.
//!
//! What the service leaves open is put into one order, or one form, before it is compared: entries of the index that are due at
//! the same instant, the order of many rows, where pages end, and the words of an error. Which of two errors a transaction
//! ends with when one write is malformed and another's condition fails is open, too: such transactions are not made.

use std::collections::BTreeMap;
use std::fmt;

use landfall_tracking::{
    Change, DueEntry, Error, Item, Key, Name, Returning, Table, Value, Which, Write, WriteError,
};

/// Calls of one sequence.
const STEPS: usize = 150;

/// Everything that is asked of rows, so that the records table can be compared as well.
const ATTRIBUTES: &[&str] = &["a", "count", "n", "edge", "state", "due_shard", "due_at"];

/// Carries out the sequence that a seed decides on both tables. It panics with the seed and the call when they differ.
///
/// The rows have keys of the seed's own, so that many sequences fit into the same tables.
pub async fn compare(seed: u64, one: &dyn Table, other: &dyn Table) {
    let mut script = Script::new(seed);
    for step in 0..STEPS {
        let call = script.call();
        let (here, there) = (carry_out(&call, one).await, carry_out(&call, other).await);
        assert!(
            here == there,
            "seed {seed}, step {step}:\n  {call:?}\n  one:   {here:?}\n  other: {there:?}"
        );
    }
    let (here, there) = (script.rows(one).await, script.rows(other).await);
    assert!(
        here == there,
        "seed {seed}: in the end\n  one:   {here:#?}\n  other: {there:#?}"
    );
}

/// Randomness that a seed decides (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, of: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % (of as u64)).unwrap()
    }

    fn percent(&mut self, times: usize) -> bool {
        self.below(100) < times
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

#[derive(Debug)]
enum Call {
    Get(Key, bool),
    GetMany(Which, Vec<Key>, &'static [&'static str]),
    Query(String, &'static str),
    Due(String, i64, usize),
    Write(Write, Returning),
    Transact(Vec<Write>),
}

/// What came of a call, in one form.
#[derive(PartialEq)]
enum Answer {
    Row(Option<Item>),
    Rows(Vec<(Key, Item)>),
    Entries(Vec<DueEntry>),
    ConditionFailed(Option<Item>),
    Failed(&'static str),
    Done,
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(row) => write!(formatter, "row {row:?}"),
            Self::Rows(rows) => write!(formatter, "rows {rows:?}"),
            Self::Entries(entries) => write!(formatter, "entries {entries:?}"),
            Self::ConditionFailed(row) => write!(formatter, "a condition failed on {row:?}"),
            Self::Failed(error) => write!(formatter, "{error}"),
            Self::Done => write!(formatter, "done"),
        }
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self::Failed(match error {
            Error::Conflict => "conflict",
            Error::Contended => "contended",
            Error::Unknown => "unknown",
            Error::Unavailable(_) => "unavailable",
            Error::Refused(_) => "refused",
            Error::Vault(_) => "vault",
            Error::Unreadable { .. } => "unreadable",
        })
    }
}

async fn carry_out(call: &Call, table: &dyn Table) -> Answer {
    match attempt(call, table).await {
        Ok(answer) => answer,
        Err(error) => error.into(),
    }
}

async fn attempt(call: &Call, table: &dyn Table) -> Result<Answer, Error> {
    Ok(match call {
        Call::Get(key, consistent) => Answer::Row(table.get(key, *consistent).await?),
        Call::GetMany(which, keys, attributes) => {
            let (mut rows, mut left) = table.get_many(*which, keys.clone(), attributes).await?;
            while !left.is_empty() {
                let (found, unprocessed) = table.get_many(*which, left, attributes).await?;
                rows.extend(found);
                left = unprocessed;
            }
            rows.sort();
            Answer::Rows(rows)
        }
        Call::Query(partition, prefix) => Answer::Rows(query(table, partition, prefix).await?),
        Call::Due(shard, until, limit) => Answer::Entries(due(table, shard, *until, *limit).await?),
        Call::Write(write, returning) => match table.write(write.clone(), *returning).await {
            Ok(row) => Answer::Row(Some(row)),
            Err(WriteError::ConditionFailed(row)) => Answer::ConditionFailed(row),
            Err(WriteError::Failed(error)) => return Err(error),
        },
        Call::Transact(writes) => {
            table.transact(writes.clone()).await?;
            Answer::Done
        }
    })
}

async fn query(
    table: &dyn Table,
    partition: &str,
    prefix: &str,
) -> Result<Vec<(Key, Item)>, Error> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = table.query(partition, prefix, after, None).await?;
        rows.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

async fn due(
    table: &dyn Table,
    shard: &str,
    until: i64,
    limit: usize,
) -> Result<Vec<DueEntry>, Error> {
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let page = table.due(shard, until, limit, after).await?;
        entries.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(
        entries.is_sorted_by_key(|entry: &DueEntry| entry.at),
        "{entries:?}"
    );
    entries.sort_unstable();
    Ok(entries)
}

/// The calls that a seed decides: few rows, so that calls meet, and few values, so that conditions hold as often as not.
struct Script {
    random: Random,
    partitions: [String; 2],
    shards: [String; 2],
    keys: Vec<Key>,
    /// Whether writes may have what the index must not be keyed by.
    malformed: bool,
}

const SORTS: [&str; 4] = ["S#1", "S#%23", "S#ä\u{1F600}", "T"];

impl Script {
    fn new(seed: u64) -> Self {
        let partitions = ["P#a%", "P#"].map(|name| format!("{name}{seed}"));
        let keys = partitions
            .iter()
            .flat_map(|partition| SORTS.map(|sort| Key::new(partition, sort)))
            .collect();
        Self {
            random: Random(seed),
            partitions,
            shards: ["D#0", "D#1"].map(|name| format!("{name}#{seed}")),
            keys,
            malformed: true,
        }
    }

    fn call(&mut self) -> Call {
        match self.random.below(100) {
            0..10 => Call::Get(self.key(), self.random.percent(50)),
            10..18 => {
                let asked = self.random.below(6);
                let keys = (0..asked).map(|_| self.key()).collect();
                let attributes: &[&'static [&'static str]] =
                    &[&["a"], &["n", "a"], ATTRIBUTES, &["nothing"]];
                Call::GetMany(self.which(), keys, self.random.pick(attributes))
            }
            18..26 => {
                let prefix = self.random.pick(&["S", "S#", "S#%", "S#1", "T", "U"]);
                Call::Query(self.random.pick(&self.partitions), prefix)
            }
            26..38 => {
                let shard = self.random.pick(&self.shards);
                let until = self.instant();
                Call::Due(shard, until, self.random.pick(&[1, 2, 3, 50]))
            }
            38..80 => {
                let returning = self.random.pick(&[Returning::Nothing, Returning::Row]);
                Call::Write(self.write(), returning)
            }
            _ => {
                let writes = self.random.below(5);
                self.malformed = writes < 2;
                let writes = (0..writes).map(|_| self.part()).collect();
                self.malformed = true;
                Call::Transact(writes)
            }
        }
    }

    /// A write of its own.
    fn write(&mut self) -> Write {
        let write = if self.random.percent(35) {
            Write::put(self.key(), self.item())
        } else {
            self.update()
        };
        let write = self.demanding(write);
        write.within(self.which())
    }

    /// A write of a transaction.
    fn part(&mut self) -> Write {
        if self.random.percent(20) {
            let check = Write::check(self.key());
            self.demanding(check).within(self.which())
        } else {
            self.write()
        }
    }

    fn update(&mut self) -> Write {
        let mut update = Write::update(self.key());
        for _ in 0..self.random.below(5) {
            let (name, value) = self.attribute();
            update = match self.random.below(10) {
                0..5 => update.set(name, value),
                5..7 => update.remove(name),
                // Mostly to what is a number, and now and then to what is a text.
                7..9 => update.add(
                    self.random.pick(&["n", "count"]),
                    self.random.pick(&[-3, 0, 1]),
                ),
                _ => update.add("a", 1),
            };
        }
        update
    }

    fn demanding(&mut self, mut write: Write) -> Write {
        // What puts mostly makes rows, what updates mostly finds them.
        let absent = if matches!(write.change, Change::Put(_)) {
            2
        } else {
            1
        };
        for _ in 0..self.random.pick(&[0, 0, 1, 1, 1, 2]) {
            write = match self.random.below(10) {
                one if one < absent => write.if_absent(),
                0..4 => write.if_present(),
                _ => {
                    let (name, value) = self.attribute();
                    write.only_if(name, value)
                }
            };
        }
        write
    }

    fn item(&mut self) -> Item {
        let attributes = self.random.below(6);
        (0..attributes)
            .map(|_| self.attribute())
            .map(|(name, value)| (Name::from(name), value))
            .collect()
    }

    fn attribute(&mut self) -> (&'static str, Value) {
        match self.random.below(14) {
            0..3 => (
                "a",
                Value::Text(self.random.pick(&["", "x", "ä"]).to_owned()),
            ),
            3..5 => ("n", Value::Number(self.random.pick(&[-1, 0, 1, 2]))),
            5 => ("count", Value::Number(self.random.pick(&[0, 1]))),
            6 => ("state", Value::Flag(self.random.percent(50))),
            7 => (
                "state",
                Value::Bytes(self.random.pick(&[b"".to_vec(), b"\0\xFF".to_vec()])),
            ),
            8 => (
                "edge",
                Value::Number(self.random.pick(&[i64::MIN, i64::MAX])),
            ),
            9..11 => ("due_shard", Value::Text(self.random.pick(&self.shards))),
            11..13 => ("due_at", Value::Number(self.instant())),
            _ => match self.random.below(if self.malformed { 4 } else { 1 }) {
                0 => ("n", Value::Text("no number".to_owned())),
                1 => ("due_shard", Value::Text(String::new())),
                2 => ("due_at", Value::Text("soon".to_owned())),
                _ => ("due_at", Value::Flag(true)),
            },
        }
    }

    fn instant(&mut self) -> i64 {
        self.random.pick(&[-5, 0, 9, 10, 10, 10, 100])
    }

    fn key(&mut self) -> Key {
        self.random.pick(&self.keys)
    }

    fn which(&mut self) -> Which {
        if self.random.percent(85) {
            Which::Tracking
        } else {
            Which::Records
        }
    }

    /// All rows and all entries of the index.
    async fn rows(&self, table: &dyn Table) -> BTreeMap<String, Answer> {
        let mut all = BTreeMap::new();
        for partition in &self.partitions {
            for prefix in ["S", "T"] {
                let rows = query(table, partition, prefix).await.unwrap();
                all.insert(format!("{partition} {prefix}"), Answer::Rows(rows));
            }
        }
        let records = Call::GetMany(Which::Records, self.keys.clone(), ATTRIBUTES);
        all.insert("records".to_owned(), carry_out(&records, table).await);
        for shard in &self.shards {
            let entries = due(table, shard, i64::MAX, 100).await.unwrap();
            all.insert(shard.clone(), Answer::Entries(entries));
        }
        all
    }
}
