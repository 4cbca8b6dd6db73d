use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use landfall_tracking::{Key, Which};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::platform::{EndedBy, Transfer};
use crate::scene::{Act, Content, File, Scene, staged};
use crate::watch::{Violations, exceptions_match, text};

/// How long after its deadline a transfer is settled at the latest, whatever goes wrong once.
const DEADLINE_LATEST: Duration = Duration::from_mins(10);

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The final status, as the platform has it.
    pub status: String,
    /// Who gave it.
    pub by: EndedBy,
    /// Why, as Landfall decided it; empty when it did not.
    pub cause: String,
}

/// What must hold when a scene is over, whatever went wrong in it. Returns how each transfer ended.
pub(crate) fn verify(
    scene: &Scene,
    cloud: &Cloud,
    accepted: &BTreeSet<(String, String)>,
    violations: &Violations,
) -> BTreeMap<String, End> {
    let mut ends = BTreeMap::new();
    for (id, transfer) in cloud.platform.transfers() {
        let accepted = |key: &str| accepted.contains(&(id.clone(), key.to_owned()));
        if let Some(end) = ended(cloud, &id, &transfer, &accepted, violations) {
            arrived(scene, cloud, &id, &end, violations);
            ends.insert(id, end);
        }
    }
    for trespass in cloud.platform.trespasses() {
        violations.note(format!("one tenant's token reached another's: {trespass}"));
    }
    for wrong in cloud.platform.wrongs() {
        violations.note(wrong);
    }
    for (id, key) in accepted {
        let tenant = scene.tenant();
        let row = Key::new(format!("TRANSFER#{tenant}#{id}"), format!("FILE#{key}"));
        violations.require(cloud.table.row(&row).is_some(), || {
            format!("{id}: the accepted file {key} is unknown")
        });
    }
    if cloud.configuration.is_staged() {
        ends.extend(staged::verify(scene, cloud, violations));
    }
    nothing_foreign(scene, cloud, violations);
    exceptions_match(&cloud.table.rows(Which::Tracking), violations);
    nothing_left(cloud, violations);
    ends
}

/// S2 and promises 2 and 3: one verdict, in time, and the same on both sides.
fn ended(
    cloud: &Cloud,
    id: &str,
    transfer: &Transfer,
    accepted: &dyn Fn(&str) -> bool,
    violations: &Violations,
) -> Option<End> {
    let verdict = |at: usize| {
        let sent = &transfer.settlements[at];
        (sent.status.as_str(), sent.message.as_str())
    };
    for other in 1..transfer.settlements.len() {
        violations.require(verdict(other) == verdict(0), || {
            format!(
                "{id}: the verdict {:?} was followed by {:?}",
                verdict(0),
                verdict(other)
            )
        });
    }
    let taken = transfer
        .settlements
        .iter()
        .filter(|sent| sent.taken)
        .count();
    violations.require(taken <= 1, || {
        format!("{id}: {taken} settlements were taken")
    });
    let Some(ended) = &transfer.ended else {
        violations.note(format!("{id}: nobody settled it"));
        return None;
    };
    let messages = transfer
        .messages
        .iter()
        .flat_map(|messages| messages.all.values());
    let mut open = messages
        .filter(|message| message.answer.is_none())
        .peekable();
    // A message that nobody heard of can't be answered (OPEN-QUESTIONS.md D4); all others are, unless the platform ends the transfer before.
    let beyond_us = open.peek().is_some() && open.clone().all(|message| !accepted(&message.key));
    violations.require(
        beyond_us || !matches!(ended.by, EndedBy::TimedOut | EndedBy::Cancelled),
        || format!("{id}: the platform had to end it as {}", ended.status),
    );
    violations.require(
        ended.by == EndedBy::Itself || open.clone().all(|message| !accepted(&message.key)),
        || {
            format!(
                "{id}: a message was not answered before it ended as {}",
                ended.status
            )
        },
    );
    let hard_deadline = cloud.configuration.clocks.hard_deadline;
    violations.require(
        ended.at.since(transfer.created_at) <= hard_deadline + DEADLINE_LATEST,
        || format!("{id}: it was settled long after its deadline"),
    );
    let Some(row) = cloud.table.row(&Key::new(
        format!("TRANSFER#{}#{id}", transfer.tenant),
        "STATE",
    )) else {
        violations.note(format!("{id}: it has no row"));
        return None;
    };
    violations.require(text(&row, "phase") == "SETTLED", || {
        format!(
            "{id}: the platform has it as {}, here it is {}",
            ended.status,
            text(&row, "phase")
        )
    });
    // On Forge it is always the platform that settles; our answers are what it does so by.
    violations.require(
        transfer.messages.is_some()
            || text(&row, "settled_by") != "platform"
            || ended.by != EndedBy::App,
        || format!("{id}: the platform has it from us, here it is settled by the platform"),
    );
    let status = text(&row, "status");
    violations.require(
        status.is_empty() || status == ended.status || ended.by == EndedBy::Itself,
        || {
            format!(
                "{id}: the platform has it as {}, here it was {status}",
                ended.status
            )
        },
    );
    Some(End {
        status: ended.status.clone(),
        by: ended.by,
        cause: text(&row, "verdict_cause").to_owned(),
    })
}

/// The files of a scene, of one transfer or of all.
pub(super) fn files<'scene>(
    scene: &'scene Scene,
    transfer: Option<&'scene str>,
) -> impl Iterator<Item = &'scene File> {
    scene.acts.iter().filter_map(move |(_, act)| match act {
        Act::Upload(file) if transfer.is_none_or(|id| id == file.transfer) => Some(file),
        _ => None,
    })
}

/// The good records of a file, by key, as they must be in the target.
pub(super) fn good(file: &File) -> BTreeMap<String, Value> {
    if matches!(file.content, Content::Manifest(_)) {
        return BTreeMap::new();
    }
    let text = file.text();
    let lines = text.lines().filter(|line| !line.contains("unmapped-"));
    lines
        .filter_map(|line| {
            let rewritten = line.replace("\"author\":\"", "\"author\":\"cloud-");
            let record: Value = serde_json::from_str(&rewritten).ok()?;
            Some((record["id"].as_str()?.to_owned(), record))
        })
        .collect()
}

/// Records of a file that nobody has a mapping for.
const fn unmapped(file: &File) -> u64 {
    match file.content {
        Content::Records(_, unmapped) => unmapped,
        Content::Changed(_) | Content::Manifest(_) => 0,
    }
}

/// S7 and promise 6: SUCCESS is said only when everything is there.
fn arrived(scene: &Scene, cloud: &Cloud, id: &str, end: &End, violations: &Violations) {
    if end.by != EndedBy::App {
        return;
    }
    let there = arrived_keys(scene, cloud, id);
    let wanted: Vec<String> = files(scene, Some(id))
        .flat_map(|file| good(file).into_keys())
        .collect();
    let missing = wanted.iter().filter(|key| !there.contains(*key)).count();
    match end.status.as_str() {
        "SUCCESS" => {
            violations.require(missing == 0, || {
                format!(
                    "{id}: SUCCESS, but {missing} of {} records are missing",
                    wanted.len()
                )
            });
            let unmapped = files(scene, Some(id)).map(unmapped).sum::<u64>();
            violations.require(unmapped == 0, || {
                format!("{id}: SUCCESS, but {unmapped} records have no mapping")
            });
        }
        "INCOMPLETE" => violations.require(missing < wanted.len(), || {
            format!("{id}: INCOMPLETE, but nothing arrived")
        }),
        _ => {}
    }
}

/// Keys of what is in the target, or in the bucket where records are staged.
fn arrived_keys(scene: &Scene, cloud: &Cloud, id: &str) -> BTreeSet<String> {
    if cloud.configuration.is_staged() {
        return files(scene, Some(id))
            .filter_map(|file| cloud.bucket.staged(id, file.label))
            .flat_map(|staged| staged.records.into_keys())
            .collect();
    }
    let rows = cloud.table.rows(Which::Records);
    let keys = rows.iter().map(|(_, item)| text(item, "key").to_owned());
    keys.collect()
}

/// S7: whatever is in the target was exported, and is rewritten.
fn nothing_foreign(scene: &Scene, cloud: &Cloud, violations: &Violations) {
    let exported: BTreeMap<(String, String), Value> = files(scene, None)
        .flat_map(|file| {
            good(file)
                .into_iter()
                .map(|(key, record)| ((file.label.to_owned(), key), record))
        })
        .collect();
    for (_, item) in cloud.table.rows(Which::Records) {
        let place = (
            text(&item, "label").to_owned(),
            text(&item, "key").to_owned(),
        );
        let record: Option<Value> = serde_json::from_str(text(&item, "record")).ok();
        violations.require(record.as_ref() == exported.get(&place), || {
            format!("record {} {} is not what was exported", place.0, place.1)
        });
    }
}

/// When everything is over, nobody has anything left to do.
fn nothing_left(cloud: &Cloud, violations: &Violations) {
    for (key, item) in cloud.table.rows(Which::Tracking) {
        let tenant = key.partition.starts_with("TENANT#");
        violations.require(tenant || !item.contains_key("due_at"), || {
            format!("{} {} is still due", key.partition, key.sort)
        });
    }
    for queue in [
        &cloud.events,
        &cloud.imports,
        &cloud.dead_events,
        &cloud.dead_imports,
    ] {
        violations.require(queue.is_empty(), || format!("{queue:?} is not empty"));
    }
}
