//! Landfall's functions at work: event sources, schedules, and what becomes of their invocations.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use landfall_models::{Delivery, QueueModel, Weather};
use landfall_tracking::Message;
use serde_json::{Value, json};

use super::{Action, START, Webhook, World};
use crate::cloud::{
    INTAKE_TIMEOUT, PROCESSOR_TIMEOUT, Processor, SWEEP_INTERVAL, SWEEPER_TIMEOUT, VISIBILITY,
};
use crate::machine::{Ended, Fortune, Machine, invoke};
use crate::webhook;

/// Workers of each queue (infra/template.yaml allows more).
pub(super) const WORKERS: usize = 4;

/// The answer of an intake that died or ran out of its time.
const NO_ANSWER: u16 = 0;

/// Life of a system token (PROTOCOL.md 7.5).
const TOKEN_LIFE: Duration = Duration::from_hours(4);

/// An instance of the processor.
pub(super) struct Worker {
    pub(super) machine: Arc<Machine>,
    pub(super) processor: Arc<Processor>,
    pub(super) busy: bool,
    pub(super) next_release: bool,
}

/// An invocation that is over.
pub(super) enum Finished {
    Worker {
        place: usize,
        queue: usize,
        deliveries: Vec<Delivery>,
        failed: Option<Vec<String>>,
    },
    Intake {
        webhook: Box<Webhook>,
        status: u16,
    },
    Sweeper,
}

impl World {
    pub(super) fn start_machine(&mut self, kind: &str) -> Arc<Machine> {
        self.machines += 1;
        Machine::start(
            format!("{kind}-{}", self.machines),
            Arc::clone(&self.fortune) as Arc<dyn Fortune>,
            self.time.clone(),
            self.trace.clone(),
        )
    }

    pub(super) fn start_worker(&mut self) -> Worker {
        let machine = self.start_machine("worker");
        let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
        let processor = self.cloud.processor(&weather, &machine.clock());
        Worker {
            machine,
            processor,
            busy: false,
            next_release: false,
        }
    }

    pub(super) fn deliver(&mut self, webhook: Webhook) {
        self.invocations += 1;
        if self.intake_machine.is_dead() {
            self.intake_machine = self.start_machine("intake");
            let weather: Arc<dyn Weather> = Arc::clone(&self.intake_machine) as Arc<dyn Weather>;
            self.intake = self.cloud.intake(&weather, &self.intake_machine.clock());
        }
        let (machine, intake) = (Arc::clone(&self.intake_machine), Arc::clone(&self.intake));
        let request = webhook::request(&webhook.tenant, &webhook.body, self.time.now(), TOKEN_LIFE);
        let finished = Arc::clone(&self.finished);
        self.executor.spawn(async move {
            let ended = invoke(&machine, INTAKE_TIMEOUT, intake.answer(&request)).await;
            let status = match ended {
                Ended::Returned(answer) => answer.status,
                Ended::Died | Ended::OutOfTime => NO_ANSWER,
            };
            push(
                &finished,
                Finished::Intake {
                    webhook: Box::new(webhook),
                    status,
                },
            );
        });
    }

    pub(super) fn take_finished(&mut self) -> bool {
        let all =
            std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        let some = !all.is_empty();
        for finished in all {
            match finished {
                Finished::Worker {
                    place,
                    queue,
                    deliveries,
                    failed,
                } => self.worker_finished(place, queue, &deliveries, failed.as_deref()),
                Finished::Intake { webhook, status } => self.intake_finished(*webhook, status),
                Finished::Sweeper => self.sweepers -= 1,
            }
        }
        some
    }

    pub(super) fn worker_finished(
        &mut self,
        place: usize,
        queue: usize,
        deliveries: &[Delivery],
        failed: Option<&[String]>,
    ) {
        if let Some(failed) = failed {
            for delivery in deliveries {
                if !failed.contains(&delivery.id) {
                    self.queue(queue).acknowledge(&delivery.id);
                }
            }
            self.workers[place].busy = false;
        } else {
            let next_release = self.workers[place].next_release;
            self.workers[place] = self.start_worker();
            self.workers[place].next_release = next_release;
        }
    }

    pub(super) fn intake_finished(&mut self, mut webhook: Webhook, status: u16) {
        if webhook.body.is_null() {
            return;
        }
        let name = webhook::name(&webhook.body);
        if status == 200 {
            self.check_durable(&webhook);
            self.arrived(webhook.place);
            return;
        }
        self.trace
            .note("platform", || format!("{name} was answered {status}"));
        self.violations
            .require(matches!(status, 503 | NO_ANSWER), || {
                format!("intake answered {status} to a good event: {name}")
            });
        webhook.attempts_left = webhook.attempts_left.saturating_sub(1);
        if webhook.attempts_left == 0 {
            self.attempts[webhook.place].lost = true;
            self.arrived(webhook.place);
            return;
        }
        let pause = webhook.pause;
        webhook.pause = (pause * 3).min(600);
        self.later(pause, Action::Deliver(Box::new(webhook)));
    }

    /// S1: a 200 says that the event is stored, as a row or as a message.
    pub(super) fn check_durable(&mut self, webhook: &Webhook) {
        let rows = webhook::rows(&webhook.tenant, &webhook.body);
        let row = self.cloud.table.row(&rows).is_some();
        let needle = webhook::message_id(&webhook.body);
        let queued = || {
            [
                &self.cloud.events,
                &self.cloud.imports,
                &self.cloud.dead_events,
                &self.cloud.dead_imports,
            ]
            .iter()
            .any(|queue| queue.bodies().iter().any(|body| body.contains(needle)))
        };
        let durable = row || queued();
        self.violations.require(durable, || {
            format!(
                "S1: {} was answered 200 and is nowhere",
                webhook::name(&webhook.body)
            )
        });
        if let Some(key) = webhook::file_key(&webhook.body) {
            let id = webhook.body["transferId"].as_str().unwrap_or_default();
            self.accepted.insert((id.to_owned(), key.to_owned()));
        }
    }

    pub(super) const fn queue(&self, number: usize) -> &QueueModel {
        if number == 0 {
            &self.cloud.events
        } else {
            &self.cloud.imports
        }
    }

    /// Hands messages to workers that are free. Returns whether there was anything to hand out.
    pub(super) fn hand_out(&mut self) -> bool {
        let mut some = false;
        for queue in 0..2 {
            for place in queue * WORKERS..(queue + 1) * WORKERS {
                if self.workers[place].busy {
                    continue;
                }
                let most = if queue == 0 { 10 } else { 1 };
                let deliveries = self.queue(queue).deliver(most, VISIBILITY);
                if deliveries.is_empty() {
                    break;
                }
                self.work(place, queue, deliveries);
                some = true;
            }
        }
        some
    }

    pub(super) fn work(&mut self, place: usize, queue: usize, deliveries: Vec<Delivery>) {
        self.invocations += 1;
        let invocation = format!("invocation-{}", self.invocations);
        let worker = &mut self.workers[place];
        worker.busy = true;
        let next_release = worker.next_release;
        let (machine, processor) = (Arc::clone(&worker.machine), Arc::clone(&worker.processor));
        let records: Vec<Value> = deliveries
            .iter()
            .map(|delivery| {
                let body = read_as(&delivery.body, next_release);
                json!({"messageId": delivery.id, "body": body})
            })
            .collect();
        let batch: SqsEvent = serde_json::from_value(json!({"Records": records}))
            .unwrap_or_else(|error| panic!("make a batch: {error}"));
        // Lambda tells the end of an invocation by its own clock, which is the machine's.
        let deadline = machine.clock().now() + PROCESSOR_TIMEOUT;
        let finished = Arc::clone(&self.finished);
        self.executor.spawn(async move {
            let handled = async { processor.handle(batch, &invocation, deadline).await };
            let failed = match invoke(&machine, PROCESSOR_TIMEOUT, handled).await {
                Ended::Returned(response) => Some(
                    response
                        .batch_item_failures
                        .into_iter()
                        .map(|failure| failure.item_identifier)
                        .collect(),
                ),
                Ended::Died | Ended::OutOfTime => None,
            };
            push(
                &finished,
                Finished::Worker {
                    place,
                    queue,
                    deliveries,
                    failed,
                },
            );
        });
        if next_release {
            self.queue(0).rewrite(written_by_next_release);
            self.queue(1).rewrite(written_by_next_release);
        }
    }

    pub(super) fn next_delivery(&self) -> Option<i64> {
        (0..2)
            .filter(|queue| {
                self.workers[queue * WORKERS..(queue + 1) * WORKERS]
                    .iter()
                    .any(|worker| !worker.busy)
            })
            .filter_map(|queue| self.queue(queue).next_visible())
            .min()
    }

    /// The next sweep that finds something; those in between would change nothing.
    pub(super) fn next_sweep(&self) -> Option<i64> {
        if !self.plan.sweeper || self.sweepers > 0 {
            return None;
        }
        let dead = [&self.cloud.dead_events, &self.cloud.dead_imports];
        let due = [
            self.cloud.table.next_due(),
            dead[0].next_visible(),
            dead[1].next_visible(),
        ]
        .into_iter()
        .flatten()
        .min()?;
        let interval = i64::try_from(SWEEP_INTERVAL.as_millis()).unwrap_or(60_000);
        let since_start = due.max(self.last_sweep + 1) - START.as_millis();
        Some(START.as_millis() + (since_start + interval - 1) / interval * interval)
    }

    pub(super) fn sweep(&mut self) {
        let now = self.time.now().as_millis();
        if self.next_sweep().is_none_or(|at| at > now) {
            return;
        }
        self.last_sweep = now;
        let faulty = self.calm_since.is_none();
        if faulty && self.random.percent(self.plan.missed_sweeps) {
            return;
        }
        let at_once = 1 + u64::from(faulty && self.random.percent(self.plan.double_sweeps));
        if self.next_release {
            for queue in [&self.cloud.dead_events, &self.cloud.dead_imports] {
                queue.rewrite(|body| Some(read_as(body, true)));
            }
        }
        for _ in 0..at_once {
            self.sweepers += 1;
            self.invocations += 1;
            let machine = self.start_machine("sweeper");
            let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
            let sweeper = self.cloud.sweeper(&weather, &machine.clock());
            let deadline = machine.clock().now() + SWEEPER_TIMEOUT;
            let finished = Arc::clone(&self.finished);
            self.executor.spawn(async move {
                let _ = invoke(&machine, SWEEPER_TIMEOUT, sweeper.sweep(deadline)).await;
                push(&finished, Finished::Sweeper);
            });
        }
    }
}

fn push(finished: &Mutex<Vec<Finished>>, one: Finished) {
    finished
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(one);
}

/// What the next release's workers write is of a version that this release doesn't know.
fn written_by_next_release(body: &str) -> Option<String> {
    Message::decode(body).ok()?;
    Some(body.replacen("\"v\":1", "\"v\":2", 1))
}

/// The next release reads both versions; this one leaves what it doesn't know alone.
fn read_as(body: &str, next_release: bool) -> String {
    if next_release {
        body.replacen("\"v\":2", "\"v\":1", 1)
    } else {
        body.to_owned()
    }
}
