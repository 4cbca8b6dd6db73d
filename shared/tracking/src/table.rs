//! The port to the table: as much of DynamoDB as Landfall uses, as data.
//!
//! Conditions and changes are values, so that an in-memory model can carry them out exactly as the service does, and a test
//! can look at what a write would have demanded. The adapter to AWS is `landfall-aws`.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::error::Error;
use crate::item::{Item, Name, Value};

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// Transfers, files, events, tenants, ledger.
    Tracking,
    /// Where records land when DynamoDB is the sink.
    Records,
}

/// A row's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Attribute `pk`.
    pub partition: String,
    /// Attribute `sk`.
    pub sort: String,
}

impl Key {
    /// The key of these two parts.
    pub fn new(partition: impl Into<String>, sort: impl Into<String>) -> Self {
        Self {
            partition: partition.into(),
            sort: sort.into(),
        }
    }
}

/// What must hold for a row, or nothing is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The row is not there.
    Absent,
    /// The row is there.
    Present,
    /// The attribute has this value; a row that is not there has none.
    Equals(Name, Value),
}

/// One change of an update.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Assignment {
    /// Gives the attribute this value.
    Set(Name, Value),
    /// Adds to the attribute, which counts as 0 when it is not there.
    Add(Name, i64),
    /// Takes the attribute away.
    Remove(Name),
}

/// What is done to a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Replaces the whole row, or makes it.
    Put(Item),
    /// Changes some attributes, and makes the row when it is not there.
    Update(Vec<Assignment>),
    /// Nothing; only the conditions count. In transactions only.
    Check,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// The table.
    pub which: Which,
    /// The row.
    pub key: Key,
    /// All of them must hold.
    pub only_if: Vec<Condition>,
    /// What is done.
    pub change: Change,
}

impl Write {
    /// Replaces or makes a row of the tracking table.
    pub const fn put(key: Key, item: Item) -> Self {
        Self::of(key, Change::Put(item))
    }

    /// Changes a row of the tracking table.
    pub const fn update(key: Key) -> Self {
        Self::of(key, Change::Update(Vec::new()))
    }

    /// Only demands something of a row of the tracking table.
    pub const fn check(key: Key) -> Self {
        Self::of(key, Change::Check)
    }

    const fn of(key: Key, change: Change) -> Self {
        Self {
            which: Which::Tracking,
            key,
            only_if: Vec::new(),
            change,
        }
    }

    /// The same in the other table.
    #[must_use]
    pub const fn within(mut self, which: Which) -> Self {
        self.which = which;
        self
    }

    /// Only if the row is not there.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.only_if.push(Condition::Absent);
        self
    }

    /// Only if the row is there.
    #[must_use]
    pub fn if_present(mut self) -> Self {
        self.only_if.push(Condition::Present);
        self
    }

    /// Only if the attribute has this value.
    #[must_use]
    pub fn only_if(mut self, name: &'static str, value: Value) -> Self {
        self.only_if.push(Condition::Equals(name.into(), value));
        self
    }

    /// Gives an attribute a value.
    #[must_use]
    pub fn set(self, name: &'static str, value: Value) -> Self {
        self.assign(Assignment::Set(name.into(), value))
    }

    /// Adds to an attribute.
    #[must_use]
    pub fn add(self, name: &'static str, by: i64) -> Self {
        self.assign(Assignment::Add(name.into(), by))
    }

    /// Takes an attribute away.
    #[must_use]
    pub fn remove(self, name: &'static str) -> Self {
        self.assign(Assignment::Remove(name.into()))
    }

    fn assign(mut self, assignment: Assignment) -> Self {
        match &mut self.change {
            Change::Update(assignments) => assignments.push(assignment),
            Change::Put(item) => match assignment {
                Assignment::Set(name, value) => drop(item.insert(name, value)),
                Assignment::Remove(name) => drop(item.remove(&name)),
                Assignment::Add(..) => debug_assert!(false, "a put replaces, it can't add"),
            },
            Change::Check => debug_assert!(false, "a check changes nothing"),
        }
        self
    }
}

/// What a single write gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Returning {
    /// Nothing; the cheapest on the wire.
    Nothing,
    /// The row.
    Row,
}

/// Why a single write did not happen, or perhaps did not.
#[derive(Debug)]
pub enum WriteError {
    /// A condition did not hold; the row as it stands, where it was asked for and is there.
    ConditionFailed(Option<Item>),
    /// Everything else.
    Failed(Error),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConditionFailed(_) => Self::Conflict,
            WriteError::Failed(error) => error,
        }
    }
}

/// Rows of one page, and the key after which the next one begins.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Keys and attributes, by sort key.
    pub rows: Vec<(Key, Item)>,
    /// None when this was the last page.
    pub next: Option<Key>,
}

/// Rows that were found among many, and the keys of those that the service had no capacity for.
pub type Many = (Vec<(Key, Item)>, Vec<Key>);

/// An entry of the sparse index `due`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueEntry {
    /// Attribute `due_at`, in milliseconds.
    pub at: i64,
    /// The row.
    pub key: Key,
}

/// Entries of one page, the longest due first, and the entry after which the next page begins.
#[derive(Clone, Debug, Default)]
pub struct DueEntries {
    /// The entries.
    pub entries: Vec<DueEntry>,
    /// None when this was the last page.
    pub next: Option<DueEntry>,
}

/// The two tables. Every write that a caller makes conditional is atomic with its conditions; a transaction is all or nothing.
///
/// For every call, [`Error::Unknown`] says that it may have taken effect, and a write that fails on its own condition may be
/// one whose answer got lost and that was repeated on the way: what stands must be read before anything is concluded.
pub trait Table: fmt::Debug + Send + Sync {
    /// Reads a row of the tracking table.
    fn get<'a>(
        &'a self,
        key: &'a Key,
        consistent: bool,
    ) -> BoxFuture<'a, Result<Option<Item>, Error>>;

    /// Reads these attributes of up to 100 different rows, consistently; rows that are not there are left out. Rows that the
    /// service had no capacity for come back as the second part.
    fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> BoxFuture<'_, Result<Many, Error>>;

    /// A page of the rows of a partition of the tracking table whose sort key begins with `prefix`, consistently; of so many rows at most, where a limit is given. What it
    /// begins after begins with `prefix`, too.
    fn query<'a>(
        &'a self,
        partition: &'a str,
        prefix: &'a str,
        after: Option<Key>,
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Page, Error>>;

    /// A page of the sparse index: the entries of a shard (attribute `due_shard`) up to an instant (attribute `due_at`, in
    /// milliseconds). The index lags behind the table.
    fn due<'a>(
        &'a self,
        shard: &'a str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> BoxFuture<'a, Result<DueEntries, Error>>;

    /// Makes one write. With [`Returning::Row`] an update gives the row as it now stands, and a condition that failed the row
    /// as it was; nothing else gives anything.
    fn write(&self, write: Write, returning: Returning) -> BoxFuture<'_, Result<Item, WriteError>>;

    /// Makes up to 100 writes of different rows, all or none.
    fn transact(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>>;
}
