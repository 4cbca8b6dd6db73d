//! The server app's side: it exports file after file, and may die on the way.

use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::sleep;
use crate::forge::switches::ExportCompleted;
use crate::plan::{Order, Plan};
use crate::platform::{Export, State};
use crate::shared::Shared;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Trigger,
    Upload(usize),
    Fail,
    /// Forge only: the server app says that nothing more will come.
    Complete,
}

/// Runs one export to its end, or to where the plan lets it die.
pub(crate) async fn run(shared: Arc<Shared>, epoch: u64, id: String) {
    let Some((plan, files, mut generator, tells_end)) = ({
        let platform = shared.platform();
        platform
            .transfer(&id)
            .filter(|_| platform.epoch == epoch)
            .map(|transfer| {
                let files: Vec<bool> = transfer.files.iter().map(|file| file.manifest).collect();
                (
                    transfer.plan.clone(),
                    files,
                    platform.generator(&["order", &id]),
                    transfer.forge.is_some()
                        && platform.switches.forge_export_completed == ExportCompleted::Explicit,
                )
            })
    }) else {
        return;
    };
    if plan.stay_ready {
        return;
    }
    sleep(Duration::from_millis(plan.start_delay_ms)).await;
    {
        let mut platform = shared.platform();
        if platform.epoch != epoch {
            return;
        }
        platform.start(&id);
        if let Some(transfer) = platform.transfer_mut(&id) {
            transfer.export = Export::Running;
        }
    }
    let (mut steps, dies) = steps(&plan, &files);
    match plan.order {
        Order::InOrder => {}
        Order::DataFirst => steps.rotate_left(1),
        Order::Shuffled => generator.shuffle(&mut steps),
    }
    if tells_end && !dies {
        steps.push(Step::Complete);
    }
    for (nth, together) in steps.chunks(plan.parallel.max(1)).enumerate() {
        if nth > 0 {
            sleep(Duration::from_millis(plan.interval_ms)).await;
        }
        let mut events = Vec::new();
        for step in together {
            match take(&shared, epoch, &id, &plan, *step) {
                Some(event) => events.push(event),
                None => return,
            }
        }
        if plan.wait_for_ack {
            while !all_ended(&shared, epoch, &id, &events) {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
    let mut platform = shared.platform();
    if platform.epoch == epoch
        && let Some(transfer) = platform.transfer_mut(&id)
    {
        transfer.export = if dies { Export::Died } else { Export::Complete };
    }
}

/// The steps in their natural order, and whether the export dies before its end.
fn steps(plan: &Plan, files: &[bool]) -> (Vec<Step>, bool) {
    let data = files.iter().filter(|manifest| !**manifest).count();
    let failing = plan.listener_error.as_ref().map(|error| error.after_files);
    let limit = [plan.stop_export_after, failing]
        .into_iter()
        .flatten()
        .min();
    let mut steps = vec![Step::Trigger];
    steps.extend((0..limit.unwrap_or(files.len()).min(data)).map(Step::Upload));
    match (limit, failing) {
        (None, _) => steps.extend((data..files.len()).map(Step::Upload)),
        (Some(limit), Some(failing)) if failing <= limit => steps.push(Step::Fail),
        _ => {}
    }
    (steps, limit.is_some())
}

/// Does one step and returns its event's position; `None` when the export has to stop.
fn take(shared: &Shared, epoch: u64, id: &str, plan: &Plan, step: Step) -> Option<usize> {
    let mut platform = shared.platform();
    if platform.epoch != epoch {
        return None;
    }
    let after_settlement = platform.switches.events_after_settlement;
    let transfer = platform.transfer_mut(id)?;
    let over = transfer.state.settled() || transfer.state == State::CancellationRequested;
    if over && !after_settlement {
        transfer.export = Export::Stopped;
        return None;
    }
    let position = transfer.events.len();
    match step {
        Step::Trigger => {
            let unknown = platform.switches.unknown_event_types;
            platform.emit(id, "listener-triggered", Map::new());
            if unknown {
                let mut extra = Map::new();
                extra.insert("phase".into(), json!("app-data-export"));
                platform.emit(id, "migration-phase-changed", extra);
            }
        }
        Step::Upload(file) => {
            platform.upload(id, file);
            announce(&mut platform, id, file);
        }
        Step::Fail => {
            if let Some(error) = &plan.listener_error {
                let trace = error.stack_trace.as_deref();
                platform.listener_failed(id, &error.exception_type, trace);
            }
        }
        Step::Complete => platform.complete_export(id),
    }
    Some(position)
}

/// Sends `app-data-uploaded` for one file, or what Forge calls it.
pub(crate) fn announce(platform: &mut crate::platform::Platform, id: &str, file: usize) {
    let Some(transfer) = platform.transfer(id) else {
        return;
    };
    if transfer.forge.is_some() {
        platform.announce_message(id, file);
        return;
    }
    let Some(file) = transfer.files.get(file) else {
        return;
    };
    let mut extra = Map::new();
    extra.insert("s3Key".into(), file.s3_key.clone().into());
    if let Some(label) = &file.label {
        extra.insert("label".into(), label.clone().into());
    }
    platform.emit(id, "app-data-uploaded", extra);
}

fn all_ended(shared: &Shared, epoch: u64, id: &str, events: &[usize]) -> bool {
    let platform = shared.platform();
    platform.epoch != epoch
        || platform.transfer(id).is_none_or(|transfer| {
            events.iter().all(|event| {
                transfer
                    .events
                    .get(*event)
                    .is_none_or(crate::platform::Event::ended)
            })
        })
}
