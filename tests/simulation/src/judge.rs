//! What must hold when a run is over.

use std::collections::BTreeMap;
use std::time::Duration;

use landfall_tracking::{Key, Which};
use landfall_transfer::SettledBy;
use landfall_transfer::timeline::{Health, What};
use serde_json::Value;

use crate::cloud::{SWEEP_INTERVAL, VISIBILITY};
use crate::platform::{Ended, EndedBy, Transfer, WINDOW};
use crate::watch::{exceptions_match, number, text};
use crate::world::World;

/// The re-run's day: a FAILED leaves at least one of the twelve (docs/verdicts.md).
const LATEST_FAILED: Duration = Duration::from_hours(11 * 24);

pub(crate) fn judge(world: &World) {
    for (id, transfer) in world.platform().transfers() {
        settled_once(world, &id, &transfer);
        settled_in_time(world, &id, &transfer);
        told_the_truth(world, &id, &transfer);
        timeline_tells(world, &id, &transfer);
    }
    recovered_in_time(world);
    for wrong in world.platform().wrongs() {
        world.violations().note(wrong);
    }
    for trespass in world.platform().trespasses() {
        world
            .violations()
            .note(format!("one tenant's token reached another's: {trespass}"));
    }
    everything_accepted_is_known(world);
    target_is_right(world);
    exceptions_match(&world.table().rows(Which::Tracking), world.violations());
    nothing_is_left(world);
}

/// S2 and promise 3: one verdict, whatever was sent and however often.
fn settled_once(world: &World, id: &str, transfer: &Transfer) {
    let violations = world.violations();
    let mut sent = transfer.settlements.iter();
    if let Some(first) = sent.next() {
        for other in sent {
            violations.require(
                (&other.status, &other.message) == (&first.status, &first.message),
                || {
                    format!(
                        "{id}: the verdict {} was followed by the verdict {}",
                        first.status, other.status
                    )
                },
            );
        }
    }
    let taken = transfer
        .settlements
        .iter()
        .filter(|sent| sent.taken)
        .count();
    violations.require(taken <= 1, || {
        format!("{id}: {taken} settlements were taken")
    });
    let (Some(ended), Some(row)) = (&transfer.ended, world.row(&transfer.tenant, id)) else {
        return;
    };
    violations.require(
        text(&row, "phase") == "SETTLED" || !world.is_swept(),
        || {
            format!(
                "{id}: the platform has it as {}, here it is {}",
                ended.status,
                text(&row, "phase")
            )
        },
    );
    // On Forge it is always the platform that settles; our answers are what it does so by.
    let on_forge = transfer.messages.is_some();
    violations.require(
        on_forge || text(&row, "settled_by") != "platform" || ended.by != EndedBy::App,
        || format!("{id}: the platform has it from us, here it is settled by the platform"),
    );
    let status = text(&row, "status");
    violations.require(
        // Where the platform acted by itself, only its event can tell; that may be lost, or name no status.
        text(&row, "phase") != "SETTLED"
            || status.is_empty()
            || status == ended.status
            || ended.by != EndedBy::App
            || (on_forge && ended.status == "CANCELLED"),
        || {
            format!(
                "{id}: the platform has it as {}, here it was {status}",
                ended.status
            )
        },
    );
}

/// No transfer is left to the platform's own clocks, and a failed one can still be re-run.
fn settled_in_time(world: &World, id: &str, transfer: &Transfer) {
    let violations = world.violations();
    if !world.is_swept() {
        return;
    }
    let Some(ended) = &transfer.ended else {
        violations.note(format!("{id}: nobody settled it"));
        return;
    };
    violations.require(
        !matches!(ended.by, EndedBy::TimedOut | EndedBy::Cancelled)
            || !could_be_answered(world, id, transfer, ended),
        || format!("{id}: the platform had to end it as {}", ended.status),
    );
    violations.require(
        ended.status != "FAILED"
            || transfer.original.is_some()
            || ended.at.since(transfer.created_at) <= LATEST_FAILED,
        || format!("{id}: it failed too late for a re-run"),
    );
}

/// Whether the platform had no reason to end a transfer itself. On Forge a quarter of an hour with faults enough, or an event that was lost, is one.
fn could_be_answered(world: &World, id: &str, transfer: &Transfer, ended: &Ended) -> bool {
    let Some(messages) = &transfer.messages else {
        return true;
    };
    let open = messages
        .all
        .values()
        .filter(|message| message.answer.is_none());
    let known = |key: &str| world.accepted().contains(&(id.to_owned(), key.to_owned()));
    let all_known = open.clone().all(|message| known(&message.key));
    let calm = world.calm_for(ended.at);
    open.count() > 0 && all_known && calm > WINDOW + REVIVED + world.clocks_were_off_by()
}

/// What is interrupted when faults stop goes on once its message is visible again and two sweeps have been (L1).
const REVIVED: Duration = VISIBILITY
    .saturating_add(SWEEP_INTERVAL)
    .saturating_add(SWEEP_INTERVAL);

/// Pauses that were chosen before faults stopped are kept: the longest between two attempts to settle, and two forms that the
/// platform answered 200 and ignored, each of which is contradicted by its list a minute later.
const PAUSES: Duration = Duration::from_mins(5 + 2 + 2);

/// L1: once faults stop, what waits for nothing but Landfall is settled in time.
fn recovered_in_time(world: &World) {
    if !world.is_swept() {
        return;
    }
    let once = REVIVED + PAUSES + world.clocks_were_off_by();
    // A poison file's worker dies each time, also when nothing else goes wrong any more: each of its attempts is revived.
    let attempts = world.attempts_at_a_poison_file();
    let transfers: BTreeMap<String, Transfer> = world.platform().transfers().into_iter().collect();
    for (id, took) in world.recoveries() {
        let deaths = if world.has_poison(&id) { attempts } else { 0 };
        let transfer = transfers.get(&id);
        let pause = transfer.map_or(Duration::ZERO, |transfer| pause(world, &id, transfer));
        let longest = once + REVIVED * deaths + pause;
        world.violations().require(took <= longest, || {
            format!(
                "{id}: L1: settled {} s after it could have been",
                took.as_secs()
            )
        });
    }
}

/// Where records are held, their files wait and are read once more.
fn pause(world: &World, id: &str, transfer: &Transfer) -> Duration {
    let asks_again = |what: &What| matches!(what, What::AskedAgainLater { .. });
    let entries = world.timeline(&transfer.tenant, id);
    if entries.iter().any(|entry| asks_again(&entry.what)) {
        world.hold_again_after() + REVIVED
    } else {
        Duration::ZERO
    }
}

/// What support reads is what happened: one verdict, the settlement, and the health that follows.
fn timeline_tells(world: &World, id: &str, transfer: &Transfer) {
    let Some(ended) = &transfer.ended else { return };
    if ended.by != EndedBy::App || !world.is_swept() {
        return;
    }
    let violations = world.violations();
    let entries = world.timeline(&transfer.tenant, id);
    let verdicts: Vec<&str> = entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::VerdictDecided { status, .. } => Some(status.as_str()),
            _ => None,
        })
        .collect();
    // On Forge there is no INCOMPLETE, and what the platform makes of the last answers may come before a verdict.
    let on_forge = transfer.messages.is_some();
    let told = if on_forge {
        verdicts.len() <= 1
    } else {
        verdicts == [ended.status.as_str()]
    };
    violations.require(told, || {
        format!(
            "{id}: it ended {}, its timeline tells {verdicts:?}",
            ended.status
        )
    });
    let seen = entries
        .iter()
        .filter(|entry| matches!(entry.what, What::FirstSeen { .. }))
        .count();
    violations.require(seen == 1, || {
        format!("{id}: its timeline tells {seen} first sights")
    });
    if on_forge {
        return;
    }
    let superseded = entries.iter().any(|entry| {
        matches!(
            entry.what,
            What::Superseded { .. }
                | What::Settled {
                    by: SettledBy::Rerun(_),
                    ..
                }
        )
    });
    let cancelled = transfer.cancelled_at.is_some();
    let health = world.health(&entries);
    let fits = match health {
        Health::Healthy => ended.status == "SUCCESS" || cancelled || superseded,
        Health::NeedsAction { .. } => ended.status != "SUCCESS",
        _ => false,
    };
    violations.require(fits, || {
        format!(
            "{id}: it ended {}, its timeline says {health}",
            ended.status
        )
    });
}

/// SUCCESS is said only when everything is there.
fn told_the_truth(world: &World, id: &str, transfer: &Transfer) {
    let Some(ended) = &transfer.ended else { return };
    if ended.by != EndedBy::App {
        return;
    }
    let violations = world.violations();
    let Some(export) = world.export(id) else {
        return;
    };
    let Some(row) = world.row(&transfer.tenant, id) else {
        violations.note(format!("{id}: it was settled and has no row"));
        return;
    };
    let good = export.good.len() as u64;
    let arrived = number(&row, "records_applied") + number(&row, "records_unchanged");
    match ended.status.as_str() {
        "SUCCESS" => {
            // An export that nobody ended is complete on Forge once nothing more comes.
            violations.require(export.complete || transfer.messages.is_some(), || {
                format!("{id}: SUCCESS, but the export was not complete")
            });
            violations.require(export.bad == 0, || {
                format!("{id}: SUCCESS, but {} records are no good", export.bad)
            });
            violations.require(arrived.unsigned_abs() == good, || {
                format!("{id}: SUCCESS with {arrived} of {good} records")
            });
        }
        "INCOMPLETE" => {
            violations.require(arrived > 0, || {
                format!("{id}: INCOMPLETE, but nothing arrived")
            });
        }
        _ => {}
    }
    if transfer.messages.is_some() {
        return;
    }
    let message = transfer
        .settlements
        .iter()
        .find(|sent| sent.taken)
        .map_or("", |sent| sent.message.as_str());
    violations.require(
        ended.status == "SUCCESS" || message.to_lowercase().contains("re-run"),
        || format!("{id}: {} without a next step: {message}", ended.status),
    );
}

/// Promise 1: whatever was answered 200 has left its trace.
fn everything_accepted_is_known(world: &World) {
    for (id, key) in world.accepted() {
        // What came after the end is acknowledged and left alone (OPEN-QUESTIONS.md A14).
        let in_time = |transfer: &Transfer| {
            let status = transfer.ended.as_ref().map(|ended| ended.status.as_str());
            status == Some("SUCCESS")
        };
        let Some(transfer) = world.platform().transfer(id).filter(in_time) else {
            continue;
        };
        let row = Key::new(
            format!("TRANSFER#{}#{id}", transfer.tenant),
            format!("FILE#{key}"),
        );
        world
            .violations()
            .require(world.table().row(&row).is_some(), || {
                format!("{id}: the announced file {key} is unknown")
            });
    }
}

/// S7 and promise 5: the target holds what the exports held, each record once and rewritten.
fn target_is_right(world: &World) {
    let violations = world.violations();
    let mut found: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (_, item) in world.table().rows(Which::Records) {
        let place = (
            text(&item, "chain").to_owned(),
            text(&item, "label").to_owned(),
            text(&item, "key").to_owned(),
        );
        found.insert(place, text(&item, "record").to_owned());
    }
    for ((chain, label, key), record) in &found {
        let wanted = world.exported(chain, label, key);
        let same = wanted
            .as_deref()
            .is_some_and(|wanted| json(wanted) == json(record));
        violations.require(same, || {
            format!("{chain}: record {label} {key} is not what was exported")
        });
    }
    for (id, transfer) in world.platform().transfers() {
        let success = transfer
            .ended
            .as_ref()
            .is_some_and(|ended| ended.by == EndedBy::App && ended.status == "SUCCESS");
        let Some(export) = world.export(&id).filter(|_| success) else {
            continue;
        };
        let chains = [transfer.original.as_ref().unwrap_or(&id), &id];
        for (label, key) in &export.good {
            let is_there = chains
                .iter()
                .any(|chain| found.contains_key(&((*chain).clone(), label.clone(), key.clone())));
            violations.require(is_there, || {
                format!("{id}: SUCCESS, but record {label} {key} is missing")
            });
        }
    }
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// When everything is over, nobody has anything left to do.
fn nothing_is_left(world: &World) {
    if !world.is_swept() {
        return;
    }
    let violations = world.violations();
    for (key, item) in world.table().rows(Which::Tracking) {
        let tenant = key.partition.starts_with("TENANT#");
        violations.require(tenant || !item.contains_key("due_at"), || {
            format!("{} {} is still due", key.partition, key.sort)
        });
    }
}
