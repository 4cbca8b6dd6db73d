use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_tracking::{
    Assignment, Change, Condition, DueEntries, DueEntry, Error, Item, Key, Many, Page, Returning,
    Table, Value, Which, Write, WriteError,
};

use crate::meter::{Effect, Line, Meter, entry_size, size};
use crate::weather::{Call, Calm, Fate, Weather};

/// Largest row, in bytes (AWS DynamoDB limits).
const ITEM_MAX: usize = 400 * 1_024;

/// Longest partition key, in bytes (AWS DynamoDB limits).
const PARTITION_MAX: usize = 2_048;

/// Longest sort key, in bytes (AWS DynamoDB limits).
const SORT_MAX: usize = 1_024;

/// Most writes of one transaction (AWS DynamoDB limits).
const TRANSACTION_MAX: usize = 100;

/// Most bytes of one transaction (AWS DynamoDB limits).
const TRANSACTION_BYTES: usize = 4 * 1_024 * 1_024;

/// Most rows of one `BatchGetItem` (AWS DynamoDB limits).
const BATCH_MAX: usize = 100;

/// Most bytes that one `BatchGetItem` reads; the rest is left unprocessed (AWS DynamoDB limits).
const BATCH_BYTES: usize = 16 * 1_024 * 1_024;

/// Largest page of a query, in bytes (AWS DynamoDB limits).
const PAGE_BYTES: usize = 1_024 * 1_024;

/// The two tables in memory. Clones share their rows.
#[derive(Clone)]
pub struct TableModel {
    rows: Arc<Mutex<Rows>>,
    weather: Arc<dyn Weather>,
    clock: Clock,
}

impl fmt::Debug for TableModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.lock();
        formatter
            .debug_struct("TableModel")
            .field("tracking", &rows.tracking.len())
            .field("records", &rows.records.len())
            .finish_non_exhaustive()
    }
}

/// A row that a write changed.
#[derive(Clone, Debug)]
pub struct Written {
    /// The table.
    pub which: Which,
    /// The row.
    pub key: Key,
    /// As it was; none when the write made it.
    pub before: Option<Arc<Item>>,
    /// As it is.
    pub after: Arc<Item>,
}

/// Told of every write that took effect, all rows of a transaction at once, with a look at the tracking table as it then is.
pub type Watcher = Arc<dyn Fn(&[Written], &BTreeMap<Key, Arc<Item>>) + Send + Sync>;

#[derive(Default)]
struct Rows {
    tracking: BTreeMap<Key, Arc<Item>>,
    records: BTreeMap<Key, Arc<Item>>,
    index: Index,
    meter: Meter,
    /// Every line of the meter, once somebody wants them.
    account: Option<Vec<Line>>,
    page_limit: Option<usize>,
    watcher: Option<Watcher>,
}

/// A shard of the index, and the instant by which it lists a row.
type Place = (String, i64);

/// The sparse index: what queries see, and what they will see when it has caught up.
#[derive(Default)]
struct Index {
    shown: BTreeMap<String, BTreeSet<DueEntry>>,
    places: HashMap<Key, Place>,
    /// Changes that don't show yet, by the instant at which they will.
    coming: BTreeMap<(i64, u64), (Key, Option<Place>)>,
    /// When the newest change of a row will show: changes of one row never overtake each other.
    newest: HashMap<Key, i64>,
    changes: u64,
    /// What the index would show if it were not behind.
    true_entries: BTreeSet<DueEntry>,
}

impl TableModel {
    /// Empty tables in calm weather.
    pub fn new(clock: Clock) -> Self {
        Self::under(Arc::new(Calm), clock)
    }

    /// Empty tables.
    pub fn under(weather: Arc<dyn Weather>, clock: Clock) -> Self {
        Self {
            rows: Arc::default(),
            weather,
            clock,
        }
    }

    /// The same rows under other weather, as another process sees them.
    #[must_use]
    pub fn seen_by(&self, weather: Arc<dyn Weather>) -> Self {
        Self {
            weather,
            ..self.clone()
        }
    }

    /// Pages of queries hold at most this many rows, and a read of many leaves the rest unprocessed, so that both are met with
    /// few rows.
    pub fn limit_pages(&self, rows: usize) {
        self.lock().page_limit = Some(rows);
    }

    /// From now on this one is told of every write.
    pub fn watch(&self, watcher: Watcher) {
        self.lock().watcher = Some(watcher);
    }

    /// What the calls so far would have cost.
    pub fn meter(&self) -> Meter {
        self.lock().meter
    }

    /// From now on every row of every call is written down, for [`Self::take_account`].
    pub fn keep_account(&self) {
        self.lock().account = Some(Vec::new());
    }

    /// What was written down since the last time, in order.
    pub fn take_account(&self) -> Vec<Line> {
        let mut rows = self.lock();
        rows.account
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// All rows of a table, by key.
    pub fn rows(&self, which: Which) -> Vec<(Key, Arc<Item>)> {
        let rows = self.lock();
        rows.table(which)
            .iter()
            .map(|(key, item)| (key.clone(), Arc::clone(item)))
            .collect()
    }

    /// What a row is stored and billed as, in bytes, its key included; none where there is no such row.
    pub fn row_bytes(&self, which: Which, key: &Key) -> Option<usize> {
        self.lock().table(which).get(key).map(|row| size(key, row))
    }

    /// A row of the tracking table as it stands.
    pub fn row(&self, key: &Key) -> Option<Arc<Item>> {
        self.lock().tracking.get(key).cloned()
    }

    /// The earliest instant at which anything is or will be due, in milliseconds, whether the index shows it yet or not.
    pub fn next_due(&self) -> Option<i64> {
        let rows = self.lock();
        rows.index.true_entries.first().map(|entry| entry.at)
    }

    /// When the index will have caught up with everything written so far, in milliseconds.
    pub fn index_settles_at(&self) -> Option<i64> {
        let rows = self.lock();
        rows.index.coming.keys().next_back().map(|(at, _)| *at)
    }

    /// Puts rows into the tracking table without a call, for tests about size.
    pub fn load(&self, loaded: impl IntoIterator<Item = (Key, Arc<Item>)>) {
        let mut rows = self.lock();
        for (key, item) in loaded {
            let place = place(&item);
            let was_at = rows.tracking.get(&key).and_then(|row| self::place(row));
            rows.index.note(&key, was_at.as_ref(), place.as_ref());
            rows.index.show(&key, place);
            rows.tracking.insert(key, item);
        }
    }

    /// Takes a row of the tracking table away without a call, as if it had never been put: nobody in Landfall does.
    pub fn lose(&self, key: &Key) {
        let mut rows = self.lock();
        if let Some(row) = rows.tracking.remove(key) {
            rows.index.note(key, place(&row).as_ref(), None);
            rows.index.show(key, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a call out between the two halves of the weather.
    async fn pass<T, E>(
        &self,
        call: Call,
        mut effect: impl FnMut(&mut Rows) -> Result<T, E> + Send,
        failed: impl Fn(Error) -> E + Send,
    ) -> Result<T, E>
    where
        T: Send,
        E: Send,
    {
        let fate = self.weather.before(&call).await;
        self.lock().meter.calls += 1;
        let outcome = match fate {
            Fate::Works => effect(&mut self.lock()),
            Fate::Throttled => Err(failed(Error::Unavailable(
                "ProvisionedThroughputExceededException".to_owned(),
            ))),
            Fate::Contended => Err(failed(Error::Contended)),
            Fate::LostBefore => Err(failed(Error::Unknown)),
            Fate::LostAfter => {
                // Whatever it came to, nobody learns it.
                drop(effect(&mut self.lock()));
                Err(failed(Error::Unknown))
            }
            Fate::Repeated => {
                let mut rows = self.lock();
                let first = effect(&mut rows);
                // A transaction's repeat carries the same token, and is answered as the first one was.
                if call.transaction {
                    first
                } else {
                    effect(&mut rows)
                }
            }
        };
        self.weather.after(&call).await;
        outcome
    }
}

impl Rows {
    const fn table(&self, which: Which) -> &BTreeMap<Key, Arc<Item>> {
        match which {
            Which::Tracking => &self.tracking,
            Which::Records => &self.records,
        }
    }

    fn holds(&self, write: &Write) -> bool {
        let row = self.table(write.which).get(&write.key);
        write.only_if.iter().all(|condition| match condition {
            Condition::Absent => row.is_none(),
            Condition::Present => row.is_some(),
            Condition::Equals(name, value) => row.is_some_and(|row| match (name.as_ref(), value) {
                ("pk", Value::Text(text)) => write.key.partition == *text,
                ("sk", Value::Text(text)) => write.key.sort == *text,
                (name, value) => row.get(name) == Some(value),
            }),
        })
    }

    /// The row as the write leaves it, or why it is not made; of a put the row is judged before its conditions.
    fn outcome(&self, write: &Write) -> Result<Option<Item>, Error> {
        if let Change::Put(item) = &write.change {
            fits(write, &without_key(item))?;
        }
        if self.holds(write) {
            self.result(write)
        } else {
            Err(Error::Conflict)
        }
    }

    /// The row as the write would leave it; none for a check.
    fn result(&self, write: &Write) -> Result<Option<Item>, Error> {
        let item = match &write.change {
            Change::Check => return Ok(None),
            Change::Put(item) => without_key(item),
            Change::Update(assignments) => {
                let mut item = self
                    .table(write.which)
                    .get(&write.key)
                    .map(|row| Item::clone(row))
                    .unwrap_or_default();
                for assignment in assignments {
                    assign(&mut item, assignment)?;
                }
                item
            }
        };
        fits(write, &item)?;
        Ok(Some(item))
    }

    fn enter(&mut self, line: Line) {
        self.meter.add(&line);
        if let Some(account) = &mut self.account {
            account.push(line);
        }
    }

    /// Write units of the index that leaving a row so would cost.
    fn index_units(&self, write: &Write, after: &Item) -> u64 {
        if write.which != Which::Tracking {
            return 0;
        }
        let before = self.tracking.get(&write.key);
        let was_at = before.and_then(|row| place(row));
        let is_at = place(after);
        if was_at == is_at {
            return 0;
        }
        // A moved entry is taken out and put in.
        u64::from(was_at.is_some()) + u64::from(is_at.is_some())
    }

    /// Enters a write, before it is stored: what it costs, the index included.
    fn enter_write(&mut self, operation: &'static str, write: &Write, after: Option<&Item>) {
        let effect = match (&write.change, after) {
            (Change::Check, _) => Effect::Checked,
            (_, Some(_)) => Effect::Written,
            (_, None) => Effect::Refused,
        };
        let bytes = self.bytes_written(write, after);
        let row = (write.which, write.key.clone());
        let call = (self.meter.calls, operation);
        let line = Line {
            index_write_units: after.map_or(0, |after| self.index_units(write, after)),
            ..Line::write(&call, row, effect, bytes, operation == "transact")
        };
        self.enter(line);
    }

    fn store(&mut self, which: Which, key: Key, item: Item, now: i64, lag: i64) -> Written {
        let before = self.table(which).get(&key).map(Arc::clone);
        let after = Arc::new(item);
        let item = &*after;
        if which == Which::Tracking {
            let place = place(item);
            let was_at = before.as_deref().and_then(self::place);
            if was_at != place {
                self.index.note(&key, was_at.as_ref(), place.as_ref());
                self.index.change(key.clone(), place, now, lag);
            }
            self.tracking.insert(key.clone(), Arc::clone(&after));
        } else {
            self.records.insert(key.clone(), Arc::clone(&after));
        }
        Written {
            which,
            key,
            before,
            after,
        }
    }

    fn tell(&self, written: &[Written]) {
        if let Some(watcher) = &self.watcher {
            watcher(written, &self.tracking);
        }
    }

    fn bytes_written(&self, write: &Write, after: Option<&Item>) -> usize {
        let before = self
            .table(write.which)
            .get(&write.key)
            .map_or(0, |row| size(&write.key, row));
        after.map_or(before, |row| before.max(size(&write.key, row)))
    }
}

impl Index {
    fn change(&mut self, key: Key, place: Option<Place>, now: i64, lag: i64) {
        let newest = self.newest.entry(key.clone()).or_insert(i64::MIN);
        *newest = (now + lag).max(*newest);
        self.changes += 1;
        self.coming.insert((*newest, self.changes), (key, place));
    }

    fn note(&mut self, key: &Key, was: Option<&Place>, is: Option<&Place>) {
        let entry = |place: &Place| DueEntry {
            at: place.1,
            key: key.clone(),
        };
        if let Some(was) = was {
            self.true_entries.remove(&entry(was));
        }
        if let Some(is) = is {
            self.true_entries.insert(entry(is));
        }
    }

    fn catch_up(&mut self, now: i64) {
        while let Some(((at, number), _)) = self.coming.first_key_value() {
            if *at > now {
                return;
            }
            let first = (*at, *number);
            if let Some((key, place)) = self.coming.remove(&first) {
                self.show(&key, place);
            }
        }
    }

    fn show(&mut self, key: &Key, place: Option<Place>) {
        if let Some((shard, at)) = self.places.remove(key)
            && let Some(entries) = self.shown.get_mut(&shard)
        {
            entries.remove(&DueEntry {
                at,
                key: key.clone(),
            });
        }
        if let Some((shard, at)) = place {
            self.shown
                .entry(shard.clone())
                .or_default()
                .insert(DueEntry {
                    at,
                    key: key.clone(),
                });
            self.places.insert(key.clone(), (shard, at));
        }
    }
}

/// Where the sparse index lists a row: only rows with both attributes are in it.
fn place(item: &Item) -> Option<Place> {
    match (item.get("due_shard"), item.get("due_at")) {
        (Some(Value::Text(shard)), Some(Value::Number(at))) => Some((shard.clone(), *at)),
        _ => None,
    }
}

fn invalid() -> Error {
    Error::Refused("ValidationException".to_owned())
}

fn check_key(key: &Key) -> Result<(), Error> {
    let fits = |text: &str, most| (1..=most).contains(&text.len());
    if fits(&key.partition, PARTITION_MAX) && fits(&key.sort, SORT_MAX) {
        Ok(())
    } else {
        Err(invalid())
    }
}

/// What the service sees to before it looks at any row.
fn check_write(write: &Write) -> Result<(), Error> {
    check_key(&write.key)?;
    match &write.change {
        Change::Check if write.only_if.is_empty() => Err(invalid()),
        Change::Check | Change::Put(_) => Ok(()),
        Change::Update(assignments) => {
            let names: HashSet<&str> = assignments
                .iter()
                .map(|assignment| match assignment {
                    Assignment::Set(name, _)
                    | Assignment::Add(name, _)
                    | Assignment::Remove(name) => name.as_ref(),
                })
                .collect();
            // One attribute changes once, and a row's key never.
            if names.is_empty()
                || names.len() < assignments.len()
                || names.contains("pk")
                || names.contains("sk")
            {
                return Err(invalid());
            }
            Ok(())
        }
    }
}

/// A row has a largest size, and what an index is keyed by has a type.
fn fits(write: &Write, item: &Item) -> Result<(), Error> {
    let indexed = write.which == Which::Tracking;
    let shard_fits = match item.get("due_shard").filter(|_| indexed) {
        None => true,
        Some(Value::Text(shard)) => (1..=PARTITION_MAX).contains(&shard.len()),
        Some(_) => false,
    };
    let instant = item.get("due_at").filter(|_| indexed);
    let instant_fits = instant.is_none_or(|at| matches!(at, Value::Number(_)));
    if shard_fits && instant_fits && size(&write.key, item) <= ITEM_MAX {
        Ok(())
    } else {
        Err(invalid())
    }
}

/// A row's key is its key, whatever the attributes say.
fn without_key(item: &Item) -> Item {
    let mut item = item.clone();
    item.remove("pk");
    item.remove("sk");
    item
}

/// Roughly what a write is counted as towards the largest transaction.
fn bytes_sent(write: &Write) -> usize {
    let values: Item = match &write.change {
        Change::Put(item) => without_key(item),
        Change::Check => Item::new(),
        Change::Update(assignments) => assignments
            .iter()
            .filter_map(|assignment| match assignment {
                Assignment::Set(name, value) => Some((name.clone(), value.clone())),
                Assignment::Add(..) | Assignment::Remove(_) => None,
            })
            .collect(),
    };
    size(&write.key, &values)
}

fn assign(item: &mut Item, assignment: &Assignment) -> Result<(), Error> {
    match assignment {
        Assignment::Set(name, value) => {
            item.insert(name.clone(), value.clone());
        }
        Assignment::Add(name, by) => {
            match item.entry(name.clone()).or_insert_with(|| Value::Number(0)) {
                // The service would store it; no row of ours could be read again.
                Value::Number(number) => {
                    *number = number
                        .checked_add(*by)
                        .expect("a sum that no row of Landfall's can hold");
                }
                _ => return Err(invalid()),
            }
        }
        Assignment::Remove(name) => {
            item.remove(name);
        }
    }
    Ok(())
}

fn call(operation: &'static str, subject: &str, writes: bool) -> Call {
    Call {
        operation,
        subject: subject.to_owned(),
        writes,
        transaction: false,
    }
}

impl Table for TableModel {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        consistent: bool,
    ) -> BoxFuture<'a, Result<Option<Item>, Error>> {
        let effect = move |rows: &mut Rows| {
            check_key(key)?;
            let found = rows.tracking.get(key).map(|row| Item::clone(row));
            let bytes = found.as_ref().map_or(0, |row| size(key, row));
            let call = (rows.meter.calls, "get");
            let row = (Which::Tracking, key.clone());
            rows.enter(Line::read(&call, row, bytes, consistent));
            Ok(found)
        };
        self.pass(call("get", &key.sort, false), effect, |error| error)
            .boxed()
    }

    fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> BoxFuture<'_, Result<Many, Error>> {
        let effect = move |rows: &mut Rows| {
            let unique: HashSet<&Key> = keys.iter().collect();
            let named: HashSet<&str> = attributes.iter().copied().collect();
            let fits = (1..=BATCH_MAX).contains(&keys.len()) && unique.len() == keys.len();
            if !fits || named.is_empty() || named.len() < attributes.len() {
                return Err(invalid());
            }
            keys.iter().try_for_each(check_key)?;
            let most = rows.page_limit.unwrap_or(usize::MAX);
            let (mut found, mut read) = (Vec::new(), 0);
            for (place, key) in keys.iter().enumerate() {
                let row = rows.table(which).get(key).map(Arc::clone);
                let bytes = row.as_ref().map_or(0, |row| size(key, row));
                if place >= most || read + bytes > BATCH_BYTES {
                    return Ok((found, keys[place..].to_vec()));
                }
                read += bytes;
                let call = (rows.meter.calls, "get_many");
                rows.enter(Line::read(&call, (which, key.clone()), bytes, true));
                if let Some(row) = row {
                    let some = attributes
                        .iter()
                        .filter_map(|name| Some(((*name).into(), row.get(*name)?.clone())));
                    found.push((key.clone(), some.collect()));
                }
            }
            Ok((found, Vec::new()))
        };
        self.pass(call("get_many", "records", false), effect, |error| error)
            .boxed()
    }

    fn query<'a>(
        &'a self,
        partition: &'a str,
        prefix: &'a str,
        after: Option<Key>,
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let effect = move |rows: &mut Rows| {
            let first = Key::new(partition, prefix);
            let limits = rows.page_limit.into_iter().chain(limit);
            let limit = limits.min().unwrap_or(usize::MAX);
            let (mut page, mut bytes) = (Page::default(), 0);
            for (key, row) in rows.tracking.range(first..) {
                if key.partition != partition || !key.sort.starts_with(prefix) {
                    break;
                }
                if after.as_ref().is_some_and(|after| key <= after) {
                    continue;
                }
                let more = size(key, row);
                let full = page.rows.len() >= limit || bytes + more > PAGE_BYTES;
                if full && !page.rows.is_empty() {
                    page.next = page.rows.last().map(|(key, _)| key.clone());
                    break;
                }
                bytes += more;
                page.rows.push((key.clone(), Item::clone(row)));
            }
            let call = (rows.meter.calls, "query");
            let row = (Which::Tracking, Key::new(partition, prefix));
            rows.enter(Line::read(&call, row, bytes, true));
            Ok(page)
        };
        self.pass(call("query", prefix, false), effect, |error| error)
            .boxed()
    }

    fn due<'a>(
        &'a self,
        shard: &'a str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> BoxFuture<'a, Result<DueEntries, Error>> {
        let effect = move |rows: &mut Rows| {
            if limit == 0 {
                return Err(invalid());
            }
            rows.index.catch_up(self.clock.now().as_millis());
            let limit = rows.page_limit.unwrap_or(usize::MAX).min(limit);
            let (mut found, mut bytes) = (DueEntries::default(), 0);
            let entries = rows.index.shown.get(shard);
            for entry in entries.into_iter().flatten() {
                if entry.at > until {
                    break;
                }
                if after.as_ref().is_some_and(|after| entry <= after) {
                    continue;
                }
                bytes += entry_size(&entry.key, shard, entry.at);
                found.entries.push(entry.clone());
                // A full page names the next one, whether anything follows or not.
                if found.entries.len() >= limit {
                    found.next = Some(entry.clone());
                    break;
                }
            }
            let call = (rows.meter.calls, "due");
            let row = (Which::Tracking, Key::new(shard, ""));
            rows.enter(Line::read(&call, row, bytes, false));
            Ok(found)
        };
        self.pass(call("due", shard, false), effect, |error| error)
            .boxed()
    }

    fn write(&self, write: Write, returning: Returning) -> BoxFuture<'_, Result<Item, WriteError>> {
        let about = call("write", &write.key.sort, true);
        let effect = move |rows: &mut Rows| {
            if write.change == Change::Check {
                return Err(WriteError::Failed(Error::Refused(
                    "a check is no write of its own".to_owned(),
                )));
            }
            check_write(&write).map_err(WriteError::Failed)?;
            let returned = returning == Returning::Row;
            let item = match rows.outcome(&write) {
                Ok(item) => item.unwrap_or_default(),
                Err(Error::Conflict) => {
                    rows.enter_write("write", &write, None);
                    let old = rows.table(write.which).get(&write.key);
                    return Err(WriteError::ConditionFailed(
                        old.filter(|_| returned).map(|row| Item::clone(row)),
                    ));
                }
                Err(error) => return Err(WriteError::Failed(error)),
            };
            rows.enter_write("write", &write, Some(&item));
            let (now, lag) = (self.clock.now().as_millis(), self.lag());
            let written = rows.store(write.which, write.key.clone(), item.clone(), now, lag);
            rows.tell(&[written]);
            let updated = matches!(write.change, Change::Update(_));
            Ok(if returned && updated {
                item
            } else {
                Item::new()
            })
        };
        self.pass(about, effect, WriteError::Failed).boxed()
    }

    fn transact(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        let subjects: Vec<&str> = writes
            .iter()
            .take(3)
            .map(|write| write.key.sort.as_str())
            .collect();
        let about = Call {
            transaction: true,
            ..call("transact", &subjects.join(" + "), true)
        };
        let effect = move |rows: &mut Rows| {
            let unique: HashSet<_> = writes
                .iter()
                .map(|write| (write.which, &write.key))
                .collect();
            let bytes: usize = writes.iter().map(bytes_sent).sum();
            if !(1..=TRANSACTION_MAX).contains(&writes.len())
                || unique.len() < writes.len()
                || bytes > TRANSACTION_BYTES
            {
                return Err(invalid());
            }
            writes.iter().try_for_each(check_write)?;
            let outcomes: Vec<_> = writes.iter().map(|write| rows.outcome(write)).collect();
            // One condition that does not hold outweighs whatever else is wrong.
            if outcomes
                .iter()
                .any(|one| matches!(one, Err(Error::Conflict)))
            {
                return Err(Error::Conflict);
            }
            let results: Vec<Option<Item>> = outcomes.into_iter().collect::<Result<_, _>>()?;
            let (now, lag) = (self.clock.now().as_millis(), self.lag());
            let mut written = Vec::with_capacity(writes.len());
            for (write, item) in writes.iter().zip(results) {
                rows.enter_write("transact", write, item.as_ref());
                if let Some(item) = item {
                    written.push(rows.store(write.which, write.key.clone(), item, now, lag));
                }
            }
            rows.tell(&written);
            Ok(())
        };
        self.pass(about, effect, |error| error).boxed()
    }
}

impl TableModel {
    fn lag(&self) -> i64 {
        i64::try_from(self.weather.index_lag().as_millis()).unwrap_or(i64::MAX)
    }
}
