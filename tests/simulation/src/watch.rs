//! What must hold at every write, whatever happens around it (invariants S2, S3 and S7, and promises 3, 4 and 6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use landfall_models::{TableModel, Written};
use landfall_tracking::{Item, Key, Value, Which};
use serde_json::Value as Json;

use crate::cloud::Cloud;

/// Broken promises, in words.
#[derive(Clone, Debug, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    /// Notes a broken promise.
    pub fn note(&self, what: impl Into<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The first few say it all; one that repeats must not fill the memory.
        if all.len() < 20 {
            all.push(what.into());
        }
    }

    /// Notes it if it doesn't hold.
    pub fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.note(what());
        }
    }

    /// All so far.
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Looks at every write of a table from now on.
pub fn watch(table: &TableModel, violations: &Violations) {
    let violations = violations.clone();
    table.watch(Arc::new(move |written, tracking| {
        for row in written {
            match (row.which, row.key.sort.as_str()) {
                (Which::Tracking, "STATE") if row.key.partition.starts_with("TRANSFER#") => {
                    transfer(row, &violations);
                }
                (Which::Tracking, sort) if sort.starts_with("FILE#") => {
                    file(row, tracking, &violations);
                }
                (Which::Records, _) => record(row, written, tracking, &violations),
                _ => {}
            }
        }
    }));
}

/// Looks at every answer `SUCCESS` of a platform from now on: its file's records are in the target by then, all of them, or in the bucket where they are staged.
pub fn watch_answers(cloud: &Cloud, violations: &Violations) {
    let (table, violations) = (cloud.table.clone(), violations.clone());
    let bucket = cloud
        .configuration
        .is_staged()
        .then(|| cloud.bucket.clone());
    cloud
        .platform
        .watch_answers(move |id, key, label, content| {
            if label == MANIFEST {
                return;
            }
            let staged = bucket.as_ref().map(|bucket| bucket.staged(id, label));
            let rows = table.rows(Which::Records);
            let there: BTreeSet<(&str, &str)> = match &staged {
                Some(staged) => {
                    let staged = staged.iter().filter(|staged| staged.complete);
                    let keys = staged.flat_map(|staged| staged.records.keys());
                    keys.map(|key| (label, &**key)).collect()
                }
                None => rows
                    .iter()
                    .map(|(_, item)| (text(item, "label"), text(item, "key")))
                    .collect(),
            };
            for line in String::from_utf8_lossy(content).lines() {
                let record: Option<Json> = serde_json::from_str(line).ok();
                let id = record.as_ref().and_then(|record| record["id"].as_str());
                violations.require(id.is_some_and(|id| there.contains(&(label, id))), || {
                    format!("file {key} was answered SUCCESS before this arrived: {line}")
                });
            }
        });
}

/// The label of an export manifest.
const MANIFEST: &str = "export-manifest";

/// A transfer's row: phases only go down, a verdict stays, a settled row stays.
fn transfer(row: &Written, violations: &Violations) {
    let after = &row.after;
    let Some(before) = &row.before else { return };
    let id = text(after, "transfer_id");
    let (was, is) = (rank(before), rank(after));
    violations.require(is >= was, || {
        format!(
            "transfer {id}: phase {} came after {}",
            text(after, "phase"),
            text(before, "phase")
        )
    });
    for name in ["verdict", "verdict_cause", "verdict_message"] {
        violations.require(
            before.get(name).is_none() || before.get(name) == after.get(name),
            || format!("transfer {id}: {name} was changed after it was written"),
        );
    }
    // A sweeper that takes the row moves its due instant alone.
    let moved_on = i64::from(before.get("state") != after.get("state"));
    violations.require(
        number(after, "version") >= number(before, "version") + moved_on,
        || {
            format!(
                "transfer {id}: version {} was written over {}",
                number(after, "version"),
                number(before, "version")
            )
        },
    );
    violations.require(
        number(after, "last_percent") >= number(before, "last_percent"),
        || format!("transfer {id}: the reported percent fell"),
    );
    violations.require(
        // What was inferred gives way to the platform's own word.
        was < SETTLED
            || before.get("settled_by") == after.get("settled_by")
            || text(after, "settled_by") == "platform",
        || format!("transfer {id}: who settled it was changed"),
    );
    // A staged transfer may owe its second phase when it is settled, until that has begun.
    let may_owe = || state(after)["staging"]["first"]["second_begun"] == false;
    let is_due = after.contains_key("due_at");
    violations.require(is_due == (is < SETTLED) || (is_due && may_owe()), || {
        format!(
            "transfer {id}: in phase {} it is {}due",
            text(after, "phase"),
            if is_due { "" } else { "not " }
        )
    });
    let balance = ["applied", "unchanged", "held", "rejected"]
        .map(|name| number(after, &format!("records_{name}")))
        .iter()
        .sum::<i64>();
    violations.require(number(after, "records_read") == balance, || {
        format!("transfer {id}: its records don't balance")
    });
}

const SETTLED: u8 = 3;

fn rank(item: &Item) -> u8 {
    match text(item, "phase") {
        "OPEN" => 0,
        "STOPPING" => 1,
        "SETTLING" => 2,
        _ => SETTLED,
    }
}

/// A file's row: the fencing token only rises, an ended file stays ended, progress is never lost.
fn file(row: &Written, tracking: &BTreeMap<Key, Arc<Item>>, violations: &Violations) {
    let Some(before) = &row.before else { return };
    let after = &row.after;
    let key = &row.key.sort;
    let (was, is) = (text(before, "state"), text(after, "state"));
    let allowed = match was {
        "ANNOUNCED" => matches!(is, "ANNOUNCED" | "OPEN" | "DROPPED"),
        "OPEN" => matches!(is, "OPEN" | "ENDED" | "FENCED"),
        ended => is == ended,
    };
    violations.require(allowed, || format!("file {key}: {is} came after {was}"));
    let now = phase(&row.key, tracking);
    let ends_late = is == "ENDED" && was != "ENDED" && !matches!(now, "OPEN" | "STOPPING");
    violations.require(!ends_late, || {
        format!("file {key}: it ended although its transfer is {now}")
    });
    let fenced_off = was == "OPEN" && is == "FENCED";
    violations.require(!fenced_off || phase(&row.key, tracking) != "OPEN", || {
        format!("file {key}: it was fenced off although its transfer is open")
    });
    violations.require(number(after, "fence") >= number(before, "fence"), || {
        format!("file {key}: its fencing token fell")
    });
    let moved = before.get("checkpoint") != after.get("checkpoint")
        || before.get("counts") != after.get("counts");
    violations.require(!moved || was == "OPEN", || {
        format!("file {key}: progress was written in state {was}")
    });
    violations.require(read(after) >= read(before), || {
        format!(
            "file {key}: {} records were read before, {} now",
            read(before),
            read(after)
        )
    });
    let unfinished = matches!(is, "ANNOUNCED" | "OPEN");
    violations.require(after.contains_key("due_at") == unfinished, || {
        let not = if unfinished { "not " } else { "" };
        format!("file {key}: in state {is} it is {not}due")
    });
    let taken_up = is == "OPEN" && number(after, "fence") > number(before, "fence");
    let is_late = number(after, "due_at") > number(after, "leased_until");
    violations.require(!taken_up || !is_late, || {
        format!("file {key}: it was taken up and is due after its lease")
    });
}

fn read(item: &Item) -> i64 {
    let counts: Option<Json> = serde_json::from_str(text(item, "counts")).ok();
    counts
        .and_then(|counts| counts["read"].as_i64())
        .unwrap_or(0)
}

/// A record lands together with the progress of its file, and only while its transfer has no verdict.
fn record(
    row: &Written,
    written: &[Written],
    tracking: &BTreeMap<Key, Arc<Item>>,
    violations: &Violations,
) {
    let progress = written
        .iter()
        .find(|other| other.key.sort.starts_with("FILE#"));
    let Some(progress) = progress else {
        violations.note(format!(
            "record {}: it landed without its file's progress",
            row.key.sort
        ));
        return;
    };
    let phase = phase(&progress.key, tracking);
    violations.require(matches!(phase, "OPEN" | "STOPPING"), || {
        format!(
            "record {}: it landed although its transfer is {phase}",
            row.key.sort
        )
    });
}

/// The phase of a row's transfer.
fn phase<'table>(row: &Key, tracking: &'table BTreeMap<Key, Arc<Item>>) -> &'table str {
    let state = Key::new(row.partition.clone(), "STATE");
    tracking
        .get(&state)
        .map_or("none", |state| text(state, "phase"))
}

/// The records that are listed as not arrived are as many as their files count, whichever pass over a file counts.
pub(crate) fn exceptions_match(tracking: &[(Key, Arc<Item>)], violations: &Violations) {
    let sorts = |prefix: &str, file: &Key| format!("{prefix}{}", &file.sort["FILE#".len()..]);
    for (key, file) in tracking {
        if !key.sort.starts_with("FILE#") {
            continue;
        }
        let of_transfer = || {
            let same = |other: &&(Key, Arc<Item>)| other.0.partition == key.partition;
            tracking.iter().filter(same)
        };
        let recounted = sorts("RECOUNTED#", key);
        let of_second_pass = of_transfer().any(|(other, _)| other.sort == recounted);
        let prefix = sorts("EXCEPTION#", key) + "#";
        let listed: i64 = of_transfer()
            .filter_map(|(other, row)| Some((other.sort.strip_prefix(&prefix)?, row)))
            .filter(|(place, _)| place.starts_with("second#") == of_second_pass)
            .map(|(_, row)| number(row, "count"))
            .sum();
        let counts: Option<Json> = serde_json::from_str(text(file, "counts")).ok();
        let of = |name: &str| counts.as_ref().and_then(|counts| counts[name].as_i64());
        let counted = of("held").unwrap_or(0) + of("rejected").unwrap_or(0);
        violations.require(listed == counted, || {
            format!(
                "file {}: {listed} records are listed as not arrived, {counted} are counted",
                key.sort
            )
        });
    }
}

/// A transfer's state, as its row holds it.
pub(crate) fn state(item: &Item) -> Json {
    let mut row: Json = serde_json::from_str(text(item, "state")).unwrap_or_default();
    row["transfer"].take()
}

pub(crate) fn text<'item>(item: &'item Item, name: &str) -> &'item str {
    match item.get(name) {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

pub(crate) fn number(item: &Item, name: &str) -> i64 {
    match item.get(name) {
        Some(Value::Number(number)) => *number,
        _ => 0,
    }
}
