//! Workers and sweepers, and steps that run twice.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use landfall_models::{Delivery, Weather};
use serde_json::{Value, json};

use super::{Again, BATCHES, Due, Finished, Stage, Worker, push};
use crate::cloud::{PROCESSOR_TIMEOUT, SWEEP_INTERVAL, SWEEPER_TIMEOUT, VISIBILITY};
use crate::machine::{Ended, invoke};
use crate::world::START;

impl Stage<'_> {
    /// Begins a step, and plans its second run when it is doubled.
    pub(super) fn step(&mut self, again: impl FnOnce() -> Again) {
        let this = self.steps;
        if let Some(doubled) = self.doubled
            && doubled.step.is_none_or(|step| step == this)
        {
            let at = self.time.now() + Duration::from_millis(doubled.later_ms);
            self.plan(at, Due::Start(again()));
        }
    }

    pub(super) fn take_finished(&mut self) -> bool {
        let all =
            std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        let some = !all.is_empty();
        for finished in all {
            match finished {
                Finished::Worker {
                    worker,
                    queue,
                    done,
                } => {
                    self.idle.extend(worker);
                    for id in done {
                        self.queue(queue).acknowledge(&id);
                    }
                }
                Finished::Intake {
                    door,
                    event,
                    status,
                } => {
                    self.doors.extend(door);
                    self.answered(event, status);
                }
                Finished::Sweeper => self.sweepers -= 1,
            }
        }
        some
    }

    /// Hands out what can be seen. Returns whether there was anything.
    pub(super) fn hand_out(&mut self) -> bool {
        for (queue, most) in BATCHES.into_iter().enumerate() {
            let batch = self.queue(queue).deliver(most, VISIBILITY);
            if !batch.is_empty() {
                self.step(|| Again::Batch(queue, batch.clone()));
                self.work(queue, batch);
                return true;
            }
        }
        false
    }

    pub(super) fn work(&mut self, queue: usize, batch: Vec<Delivery>) {
        self.steps += 1;
        let worker = self.idle.pop().unwrap_or_else(|| {
            let machine = self.start("worker");
            let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
            let processor = self.cloud.processor(&weather, &machine.clock());
            Worker { machine, processor }
        });
        let invocation = format!("invocation-{}", self.steps);
        let deadline = self.time.now() + PROCESSOR_TIMEOUT;
        let finished = Arc::clone(&self.finished);
        self.executor.spawn(async move {
            let handled = worker.processor.handle(sqs(&batch), &invocation, deadline);
            let ended = invoke(&worker.machine, PROCESSOR_TIMEOUT, handled).await;
            let (worker, done) = match ended {
                Ended::Returned(response) => {
                    let failed: Vec<String> = response
                        .batch_item_failures
                        .into_iter()
                        .map(|failure| failure.item_identifier)
                        .collect();
                    let ids = batch.into_iter().map(|delivery| delivery.id);
                    (
                        Some(worker),
                        ids.filter(|id| !failed.contains(id)).collect(),
                    )
                }
                Ended::Died | Ended::OutOfTime => (None, Vec::new()),
            };
            push(
                &finished,
                Finished::Worker {
                    worker,
                    queue,
                    done,
                },
            );
        });
    }

    /// The next sweep that finds something; those in between would change nothing.
    pub(super) fn next_sweep(&self) -> Option<i64> {
        if self.sweepers > 0 {
            return None;
        }
        let due = [
            self.cloud.table.next_due(),
            self.cloud.dead_events.next_visible(),
            self.cloud.dead_imports.next_visible(),
        ];
        let due = due.into_iter().flatten().min()?;
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
        self.step(|| Again::Sweep);
        self.start_sweeper();
    }

    pub(super) fn start_sweeper(&mut self) {
        self.steps += 1;
        self.sweepers += 1;
        let machine = self.start("sweeper");
        let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
        let sweeper = self.cloud.sweeper(&weather, &machine.clock());
        let deadline = self.time.now() + SWEEPER_TIMEOUT;
        let finished = Arc::clone(&self.finished);
        self.executor.spawn(async move {
            let _ = invoke(&machine, SWEEPER_TIMEOUT, sweeper.sweep(deadline)).await;
            push(&finished, Finished::Sweeper);
        });
    }
}

/// A batch as SQS hands it to a function.
pub fn sqs(batch: &[Delivery]) -> SqsEvent {
    let records: Vec<Value> = batch
        .iter()
        .map(|delivery| json!({"messageId": delivery.id, "body": delivery.body}))
        .collect();
    serde_json::from_value(json!({"Records": records}))
        .unwrap_or_else(|error| panic!("make a batch: {error}"))
}
