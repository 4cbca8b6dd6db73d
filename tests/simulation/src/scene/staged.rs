//! What must hold of staged transfers when a scene is over: what is in the bucket is in the target, each record as the newest attempt had it.

use std::collections::BTreeMap;
use std::sync::Arc;

use landfall_tracking::{Item, Key};
use serde_json::Value;

use super::verify::{End, files, good};
use super::{File, Scene};
use crate::cloud::Cloud;
use crate::platform::{EndedBy, Transfer};
use crate::target::Place;
use crate::watch::{Violations, number, state, text};

/// The id of the phase that follows on a transfer.
fn later(id: &str) -> String {
    format!("{id}+2")
}

fn row(scene: &Scene, cloud: &Cloud, id: &str) -> Option<Arc<Item>> {
    let partition = format!("TRANSFER#{}#{id}", scene.tenant());
    cloud.table.row(&Key::new(partition, "STATE"))
}

/// Checks the second phase of each transfer. Returns how those ended that there were.
pub(super) fn verify(
    scene: &Scene,
    cloud: &Cloud,
    violations: &Violations,
) -> BTreeMap<String, End> {
    let mut ends = BTreeMap::new();
    let transfers = cloud.platform.transfers();
    for (id, transfer) in &transfers {
        let Some(first) = row(scene, cloud, id) else {
            continue;
        };
        counted_is_stored(scene, cloud, id, &first, violations);
        let newer = transfers.iter().any(|(other, attempt)| {
            attempt.original.as_ref() == Some(transfer.original.as_ref().unwrap_or(id))
                && other != id
                && attempt.created_at > transfer.created_at
        });
        let second = row(scene, cloud, &later(id));
        let cancelled = !state(&first)["cancelled_at"].is_null();
        if cancelled {
            violations.require(second.is_none(), || {
                format!("{id}: it was cancelled, and a second phase began")
            });
        } else if !newer {
            brought(scene, cloud, (id, transfer), second.is_some(), violations);
        }
        if let Some(second) = second {
            let id = later(id);
            violations.require(text(&second, "phase") == "SETTLED", || {
                format!("{id}: at the end it is {}", text(&second, "phase"))
            });
            let end = End {
                status: text(&second, "status").to_owned(),
                by: EndedBy::App,
                cause: text(&second, "verdict_cause").to_owned(),
            };
            ends.insert(id, end);
        }
    }
    nothing_foreign(scene, cloud, violations);
    newest_last(&transfers, cloud, violations);
    ends
}

/// Whatever files of records a scene has of a transfer, with what of them is in the bucket; only those that were stored whole.
fn stored<'scene>(
    scene: &'scene Scene,
    cloud: &Cloud,
    id: &'scene str,
) -> Vec<(&'scene File, BTreeMap<String, Value>)> {
    files(scene, Some(id))
        .filter_map(|file| {
            let staged = cloud.bucket.staged(id, file.label)?;
            staged.complete.then_some((file, staged.records))
        })
        .collect()
}

/// What the first phase counts as arrived is in the bucket; a file that was stopped on the way has some there without an index.
fn counted_is_stored(
    scene: &Scene,
    cloud: &Cloud,
    id: &str,
    first: &Item,
    violations: &Violations,
) {
    for (file, records) in stored(scene, cloud, id) {
        violations.require(records == good(file), || {
            format!(
                "{id}: in the bucket {} is not what was exported",
                file.label
            )
        });
    }
    let files_ended = |name: &str| number(first, name);
    let whole = files_ended("files_ended") == files_ended("files_known");
    let counted = number(first, "records_applied") + number(first, "records_unchanged");
    let found: usize = stored(scene, cloud, id)
        .iter()
        .map(|(_, records)| records.len())
        .sum();
    violations.require(!whole || counted.unsigned_abs() <= found as u64, || {
        format!("{id}: {counted} records are counted, {found} are in the bucket")
    });
}

/// Each record that was stored is in the target, and the second phase counts it.
fn brought(
    scene: &Scene,
    cloud: &Cloud,
    (id, transfer): (&str, &Transfer),
    has_second: bool,
    violations: &Violations,
) {
    let target = cloud.target.records();
    let chain = transfer.original.as_deref().unwrap_or(id);
    let mut wanted = 0;
    for (file, records) in stored(scene, cloud, id) {
        for (key, record) in records {
            wanted += 1;
            let place = Place {
                tenant: scene.tenant().to_owned(),
                chain: chain.to_owned(),
                label: file.label.to_owned(),
                key,
            };
            let found = target.get(&place);
            let found = found.and_then(|found| serde_json::from_slice::<Value>(found).ok());
            violations.require(found.as_ref() == Some(&record), || {
                format!(
                    "{id}: {} {} is stored, in the target is {found:?}",
                    file.label, place.key
                )
            });
        }
    }
    violations.require(has_second || wanted == 0, || {
        format!("{id}: {wanted} records are stored, and no second phase brings them on")
    });
    let second = row(scene, cloud, &later(id));
    if let Some(second) = second {
        let arrived = number(&second, "records_applied") + number(&second, "records_unchanged");
        violations.require(arrived.unsigned_abs() == wanted, || {
            format!("{id}: the second phase counts {arrived} of {wanted} records")
        });
    }
}

/// Whatever is in the target was exported, and is rewritten.
fn nothing_foreign(scene: &Scene, cloud: &Cloud, violations: &Violations) {
    for (place, record) in cloud.target.records() {
        let record: Option<Value> = serde_json::from_slice(&record).ok();
        let mut of_label = files(scene, None).filter(|file| file.label == place.label);
        let is_exported = of_label.any(|file| good(file).get(&place.key) == record.as_ref());
        violations.require(is_exported, || {
            format!("{place:?} is not what was exported")
        });
    }
}

/// Once a newer attempt has delivered, none that is older delivers any more, and no transfer but a later phase delivers.
fn newest_last(transfers: &[(String, Transfer)], cloud: &Cloud, violations: &Violations) {
    let begun = |delivery: &str| {
        let id = delivery.strip_suffix("+2");
        let attempt = transfers.iter().find(|(other, _)| Some(&**other) == id);
        attempt.map(|(_, attempt)| attempt.created_at)
    };
    let deliveries = cloud.target.deliveries();
    for pair in deliveries.windows(2) {
        violations.require(begun(&pair[0]) <= begun(&pair[1]), || {
            format!("{}: it delivered after {}", pair[1], pair[0])
        });
    }
    for delivery in deliveries {
        violations.require(begun(&delivery).is_some(), || {
            format!("{delivery}: it delivered, and is no second phase")
        });
    }
}
