//! What a suite does with a stage by hand.

use std::sync::Arc;

use landfall_clock::Clock;
use landfall_models::{QueueModel, Weather};

use super::{BATCHES, Outcome, Stage};
use crate::cloud::{Cloud, VISIBILITY};
use crate::executor::{MachineTime, VirtualTime};
use crate::scene::Act;
use crate::watch::Violations;

impl Stage<'_> {
    /// The cloud that it plays on.
    pub const fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// Its time.
    pub const fn time(&self) -> &VirtualTime {
        &self.time
    }

    /// The promises that were broken so far.
    pub const fn violations(&self) -> &Violations {
        &self.violations
    }

    /// Lets the outside do one thing now, and intake take in what that makes known.
    pub fn perform(&mut self, act: &Act) {
        self.take(act);
        self.executor.run_ready();
        while self.take_finished() | self.tell_settled() {
            self.executor.run_ready();
        }
    }

    /// The outside does one thing now, and what intake is told of it is answered under this weather: the event's name, and a
    /// future that ends with the answer's status.
    pub fn tell_under(
        &mut self,
        act: &Act,
        weather: &Arc<dyn Weather>,
    ) -> Option<impl Future<Output = u16> + Send + use<>> {
        self.told = Some(Vec::new());
        self.take(act);
        let event = self.told.take().unwrap_or_default().pop()?;
        let clock = Clock::of(Arc::new(MachineTime::new(self.time.clone())));
        let intake = self.cloud.intake(weather, &clock);
        let request = self.request(&event.body);
        Some(async move { intake.answer(&request).await.status })
    }

    /// Lets workers take in what one of the queues holds: 0 for events, 1 for files.
    pub fn work_off(&mut self, queue: usize) {
        loop {
            let batch = self.queue(queue).deliver(BATCHES[queue], VISIBILITY);
            if batch.is_empty() {
                return;
            }
            self.work(queue, batch);
            self.executor.run_ready();
            self.take_finished();
        }
    }

    /// A sweeper sweeps now.
    pub fn sweep_now(&mut self) {
        self.start_sweeper();
        self.executor.run_ready();
        self.take_finished();
    }

    /// Plays it to its end, calmly.
    pub fn finish(mut self) -> Outcome {
        self.go();
        self.outcome()
    }

    /// The queue of events, which is number 0, or that of files.
    pub const fn queue(&self, number: usize) -> &QueueModel {
        if number == 0 {
            &self.cloud.events
        } else {
            &self.cloud.imports
        }
    }
}
