//! What the outside does, and how intake answers it.

use std::sync::Arc;
use std::time::Duration;

use landfall_intake::Request;
use landfall_models::Weather;
use serde_json::{Value, json};

use super::{ATTEMPTS, Again, Door, Due, Event, Finished, Stage, push};
use crate::cloud::INTAKE_TIMEOUT;
use crate::machine::{Ended, invoke};
use crate::scene::Act;
use crate::scene::strange::strange_rows;
use crate::webhook;
use crate::world::START;

impl Stage<'_> {
    pub(super) fn take(&mut self, act: &Act) {
        let platform = self.cloud.platform.clone();
        self.trace.note("outside", || format!("{act:?}"));
        match act {
            Act::Begin { id, original, told } => {
                platform.begin(self.scene.tenant(), id, *original);
                self.started.insert((*id).to_owned(), self.time.now());
                if *told {
                    self.tell("listener-triggered", id, &json!({}));
                }
            }
            Act::Upload(file) => {
                let (id, key, label) = (file.transfer, file.key, file.label);
                if platform.upload(id, key, label, file.text()) && file.told {
                    let more = json!({"s3Key": key, "label": label});
                    self.tell("app-data-uploaded", id, &more);
                }
            }
            Act::ExportComplete(id) => {
                if platform.complete_export(id) {
                    self.tell("export-phase-completed", id, &json!({}));
                }
            }
            Act::Refresh => self.deliver(Event {
                body: Value::Null,
                attempts: 1,
                pause: 0,
            }),
            Act::ListenerFails(id) => {
                if platform.fail_listener(id, "com.example.ExportException") {
                    self.tell("listener-errored", id, &json!({}));
                }
            }
            Act::Cancel(id) => {
                if platform.cancel(id) {
                    self.tell("transfer-cancellation-requested", id, &json!({}));
                }
            }
            Act::PlatformEnds(id) => {
                platform.end(id, "FAILED");
            }
            Act::StrangeRows(each) => {
                let rows = strange_rows(*each, self.time.now());
                self.cloud.table.load(rows);
            }
        }
    }

    pub(super) fn tell(&mut self, event_type: &str, id: &str, more: &Value) {
        let original = self.scene.acts.iter().find_map(|(_, act)| match act {
            Act::Begin {
                id: begun,
                original,
                ..
            } if *begun == id => *original,
            _ => None,
        });
        let created = self.started.get(id).copied().unwrap_or(START);
        let tenant = self.scene.tenant();
        let body = webhook::event(event_type, tenant, id, original, created, more);
        self.deliver(Event {
            body,
            attempts: ATTEMPTS,
            pause: 2,
        });
    }

    pub(super) fn tell_settled(&mut self) -> bool {
        let Some((_, id, status)) = self.cloud.platform.next_settled() else {
            return false;
        };
        self.trace
            .note("platform", || format!("{id} is settled: {status}"));
        self.settled_at = self.time.now();
        let more = if self.scene.switches.names_status {
            json!({"transferStatus": status})
        } else {
            json!({})
        };
        self.tell("transfer-settled", &id, &more);
        true
    }

    pub(super) fn deliver(&mut self, event: Event) {
        if let Some(told) = &mut self.told {
            told.push(event);
            return;
        }
        self.step(|| Again::Event(event.clone()));
        self.answer(event);
    }

    pub(super) fn answer(&mut self, event: Event) {
        self.steps += 1;
        let door = self.doors.pop().unwrap_or_else(|| {
            let machine = self.start("intake");
            let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
            let intake = self.cloud.intake(&weather, &machine.clock());
            Door { machine, intake }
        });
        let request = self.request(&event.body);
        let finished = Arc::clone(&self.finished);
        self.executor.spawn(async move {
            let answered = door.intake.answer(&request);
            let (door, status) = match invoke(&door.machine, INTAKE_TIMEOUT, answered).await {
                Ended::Returned(answer) => (Some(door), Some(answer.status)),
                Ended::Died | Ended::OutOfTime => (None, None),
            };
            push(
                &finished,
                Finished::Intake {
                    door,
                    event,
                    status,
                },
            );
        });
    }

    /// The call that brings an event now.
    pub(super) fn request(&self, event: &Value) -> Request {
        let life = self.scene.switches.token_life;
        webhook::request(self.scene.tenant(), event, self.time.now(), life)
    }

    pub(super) fn answered(&mut self, mut event: Event, status: Option<u16>) {
        let name = webhook::name(&event.body);
        if status == Some(200) {
            self.check_durable(&event);
            return;
        }
        self.trace
            .note("platform", || format!("{name} was answered {status:?}"));
        self.violations
            .require(matches!(status, Some(503) | None), || {
                format!("intake answered {status:?} to a good event: {name}")
            });
        event.attempts -= 1;
        if event.attempts > 0 {
            let at = self.time.now() + Duration::from_secs(event.pause);
            event.pause = (event.pause * 3).min(600);
            self.plan(at, Due::Event(event));
        }
    }

    /// S1: a 200 says that the event is stored, as a row or as a message.
    pub(super) fn check_durable(&mut self, event: &Event) {
        if event.body.is_null() {
            return;
        }
        let row = webhook::rows(self.scene.tenant(), &event.body);
        let needle = webhook::message_id(&event.body);
        let queued = [&self.cloud.events, &self.cloud.imports]
            .iter()
            .any(|queue| queue.bodies().iter().any(|body| body.contains(needle)));
        let durable = queued || self.cloud.table.row(&row).is_some();
        self.violations.require(durable, || {
            format!(
                "S1: {} was answered 200 and is nowhere",
                webhook::name(&event.body)
            )
        });
        if let Some(key) = webhook::file_key(&event.body) {
            let id = event.body["transferId"].as_str().unwrap_or_default();
            self.accepted.insert((id.to_owned(), key.to_owned()));
        }
    }
}
