//! What was done, and what it comes to: calls, rows, units, messages and bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use landfall_models::{Effect, Line, Sent};
use landfall_tracking::{Key, Which};
use serde::Serialize;

/// Who was at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Function {
    /// Intake.
    Intake,
    /// The processor, with a batch of control events.
    Events,
    /// The processor, with a file.
    Imports,
    /// The sweeper.
    Sweeper,
}

/// The queues, by their names.
pub(crate) const QUEUES: [&str; 2] = ["events", "imports"];

/// One invocation.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Whose.
    pub(crate) function: Function,
    /// What it was about: an event's kind, or nothing.
    pub(crate) about: String,
    /// Its calls by their operation.
    pub(crate) calls: BTreeMap<String, u64>,
    /// What the tables' meter wrote down.
    pub(crate) lines: Vec<Line>,
    /// What it sent to each of [`QUEUES`].
    pub(crate) sent: [Sent; 2],
    /// The queue whose batch it was about, and how many messages that had.
    pub(crate) batch_of: Option<(&'static str, u64)>,
    /// What it logged.
    pub(crate) logged: Logged,
}

impl Step {
    /// Whether a row is touched whose sort key has this in it.
    pub(crate) fn touches(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.key.sort.contains(text))
    }
}

/// What rows of one kind cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rows {
    /// Writes that took effect.
    pub(crate) writes: u64,
    /// Conditions that did not hold, and demands of transactions: billed like writes.
    pub(crate) checks: u64,
    /// Write units of the table, for both.
    pub(crate) write_units: u64,
    /// Write units of the index.
    pub(crate) index_write_units: u64,
    /// Reads; a query is one.
    pub(crate) reads: u64,
    /// Read units, in halves.
    pub(crate) half_read_units: u64,
    /// Rows that were made and are there.
    pub(crate) stored: u64,
    /// Their bytes.
    pub(crate) stored_bytes: u64,
    /// The days after which the last of them expires; 0 for never.
    pub(crate) kept_days: u64,
}

/// What was logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Logged {
    /// Lines.
    pub(crate) lines: u64,
    /// Their bytes, the ends of lines not among them.
    pub(crate) bytes: u64,
}

/// What one function did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    /// Invocations.
    pub(crate) invocations: u64,
    /// What they were handed, all of an invocation's at once: a batch's messages, or one request.
    pub(crate) handed: u64,
    /// What they logged.
    pub(crate) logged: Logged,
    /// Calls by their operation.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// What one queue took, in requests as they are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Queue {
    /// Requests that sent a message.
    pub(crate) sends: u64,
    /// Requests of the event source that brought a batch.
    pub(crate) receives: u64,
    /// Requests of the event source that deleted one.
    pub(crate) deletes: u64,
    /// Bytes that were sent.
    pub(crate) bytes: u64,
}

/// What some invocations come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Files and records of an import, where it is about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) imported: Option<Imported>,
    /// What each function did.
    pub(crate) functions: BTreeMap<Function, Work>,
    /// What each queue took.
    pub(crate) queues: BTreeMap<&'static str, Queue>,
    /// What each kind of row cost.
    pub(crate) rows: BTreeMap<&'static str, Rows>,
}

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Imported {
    /// Files, the manifest not among them.
    pub(crate) files: usize,
    /// Their records.
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

/// The row that a line has made, as it lies in its table at the end: its bytes, and the days after which it expires. None where the row was there before.
pub(crate) type Stored<'a> = &'a dyn Fn(&Line) -> Option<(u64, u64)>;

impl Counts {
    /// Of so many invocations, and of what is stored then.
    pub(crate) fn of<'step>(
        steps: impl IntoIterator<Item = &'step Step>,
        stored: Stored<'_>,
    ) -> Self {
        let mut counts = Self::default();
        for step in steps {
            counts.add(step);
            for line in &step.lines {
                if let Some((bytes, days)) = stored(line) {
                    let row = counts.rows.entry(kind(line)).or_default();
                    row.stored += 1;
                    row.stored_bytes += bytes;
                    row.kept_days = row.kept_days.max(days);
                }
            }
        }
        counts
    }

    fn add(&mut self, step: &Step) {
        let work = self.functions.entry(step.function).or_default();
        work.invocations += 1;
        work.handed += step.batch_of.map_or(1, |(_, messages)| messages);
        work.logged.lines += step.logged.lines;
        work.logged.bytes += step.logged.bytes;
        for (call, times) in &step.calls {
            *work.calls.entry(call.clone()).or_default() += times;
        }
        for (name, sent) in QUEUES.into_iter().zip(step.sent) {
            if sent.calls > 0 {
                let queue = self.queues.entry(name).or_default();
                queue.sends += sent.requests;
                queue.bytes += sent.bytes;
            }
        }
        if let Some((name, _)) = step.batch_of {
            // The event source receives a batch with one request, and deletes it with one.
            let queue = self.queues.entry(name).or_default();
            queue.receives += 1;
            queue.deletes += 1;
        }
        for line in &step.lines {
            let row = self.rows.entry(kind(line)).or_default();
            match line.effect {
                Effect::Read => row.reads += 1,
                Effect::Written => row.writes += 1,
                Effect::Checked | Effect::Refused => row.checks += 1,
            }
            row.write_units += line.write_units;
            row.index_write_units += line.index_write_units;
            row.half_read_units += line.half_read_units;
        }
    }

    /// All rows but those of some kinds.
    pub(crate) fn without(&self, kinds: &[&str]) -> Rows {
        let mut sum = Rows::default();
        for (kind, rows) in &self.rows {
            if !kinds.contains(kind) {
                sum += *rows;
            }
        }
        sum
    }

    /// Calls of the functions that are named so.
    pub(crate) fn calls(&self, name: &str) -> u64 {
        let works = self.functions.values();
        works.filter_map(|work| work.calls.get(name)).sum()
    }
}

impl AddAssign for Rows {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.checks += other.checks;
        self.write_units += other.write_units;
        self.index_write_units += other.index_write_units;
        self.reads += other.reads;
        self.half_read_units += other.half_read_units;
        self.stored += other.stored;
        self.stored_bytes += other.stored_bytes;
        self.kept_days = self.kept_days.max(other.kept_days);
    }
}

/// Of which kind a row is (shared/tracking/README.md).
fn kind(line: &Line) -> &'static str {
    let Key { partition, sort } = &line.key;
    if line.which == Which::Records {
        return "record";
    }
    let of = |kinds: &[(&str, &'static str)]| {
        let found = kinds.iter().find(|(begin, _)| sort.starts_with(begin));
        found.map(|(_, kind)| *kind)
    };
    match partition.split('#').next().unwrap_or_default() {
        "TRANSFER" => of(&[
            ("STATE", "transfer"),
            ("FILE#", "file"),
            ("EVENT#", "event"),
            ("LOG#", "timeline"),
            ("EXCEPTION#", "exceptions"),
            ("MAPPINGS#", "used mappings"),
            ("RESTART#", "restart point"),
            ("RECOUNTED#", "recounted"),
        ]),
        "CHAIN" => Some("attempt"),
        "TENANT" => of(&[("STATE", "tenant"), ("PACE", "pace"), ("TOKEN", "token")]),
        "LEDGER" => Some("segment"),
        "DUE" => Some("index"),
        _ => None,
    }
    .unwrap_or("other")
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (function, work) in &self.functions {
            let (invocations, calls) = (work.invocations, &work.calls);
            writeln!(
                formatter,
                "  {function:?}: {invocations} invocations, {calls:?}"
            )?;
        }
        for (queue, row) in &self.queues {
            writeln!(formatter, "  queue {queue}: {row:?}")?;
        }
        writeln!(
            formatter,
            "  {:15} {:>6} {:>6} {:>11} {:>11} {:>6} {:>10} {:>6} {:>8}",
            "row",
            "writes",
            "checks",
            "write units",
            "index units",
            "reads",
            "read units",
            "rows",
            "bytes"
        )?;
        let total = [("total", self.without(&[]))];
        let kinds = self.rows.iter().map(|(kind, rows)| (*kind, *rows));
        for (kind, rows) in kinds.chain(total) {
            let halves = rows.half_read_units;
            writeln!(
                formatter,
                "  {kind:15} {:>6} {:>6} {:>11} {:>11} {:>6} {:>8}.{} {:>6} {:>8}",
                rows.writes,
                rows.checks,
                rows.write_units,
                rows.index_write_units,
                rows.reads,
                halves / 2,
                halves % 2 * 5,
                rows.stored,
                rows.stored_bytes,
            )?;
        }
        Ok(())
    }
}
