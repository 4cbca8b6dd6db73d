//! One attempt of a migration, and what its server app exported.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::forge;
use crate::plan::{Exporter, File, Migration, is_on_forge};

/// One attempt of a migration.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) migration: Migration,
    pub(super) id: String,
    pub(super) original: Option<String>,
    /// Labels and contents of what was uploaded, by key.
    pub(super) uploaded: BTreeMap<String, (String, String)>,
    pub(super) reruns: u32,
    /// Whether its manifest was uploaded.
    pub(super) manifested: bool,
    /// Events that are still on their way.
    pub(super) travelling: u64,
    /// Whether an event of it was lost for good, so that only the platform's lists can tell.
    pub(super) lost: bool,
    /// When Landfall had all that it needs for a verdict: the newest event was accepted, and the server app's part is over.
    pub(super) ready_at: Option<i64>,
}

/// What an attempt uploaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Export {
    /// Whether it uploaded everything that it meant to.
    pub(crate) complete: bool,
    /// Labels and keys of records that must arrive.
    pub(crate) good: BTreeSet<(String, String)>,
    /// Records that can't.
    pub(crate) bad: u64,
}

impl Attempt {
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.migration.exporter, Exporter::Fails(_))
            && self.uploaded.len() == self.migration.files.len()
    }
}

/// The key of a record that must arrive.
pub(super) fn good(line: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    let mapped = !record["author"].as_str()?.starts_with("unmapped");
    Some(record["id"].as_str()?.to_owned()).filter(|_| mapped)
}

/// A site's client key, or an installation on Forge.
pub(super) fn tenant_name(tenant: u64) -> String {
    if is_on_forge(tenant) {
        forge::installation(&format!("tenant-{tenant}"))
    } else {
        format!("tenant-{tenant}")
    }
}

/// The migration's number in an attempt's id.
pub(super) fn root(id: &str) -> &str {
    id.trim_start_matches('m')
        .split_once('-')
        .map_or(id, |(root, _)| root)
}

/// A file's content: good records, records without a mapping, records that are no JSON. A re-run's is the same.
pub(super) fn content(number: usize, file: &File) -> String {
    let mut lines = String::new();
    let record =
        |id: String, author: String| format!("{{\"id\":\"{id}\",\"author\":\"{author}\"}}\n");
    for line in 0..file.records {
        lines.push_str(&record(
            format!("{number}-{line}"),
            format!("user-{}", line % 3),
        ));
    }
    for line in 0..file.unmapped {
        lines.push_str(&record(
            format!("{number}-u{line}"),
            format!("unmapped-{line}"),
        ));
    }
    for _ in 0..file.broken {
        lines.push_str("{broken\n");
    }
    lines
}
