use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use landfall_clock::Clock;
use landfall_lifecycle::{Lifecycle, Platform};
use landfall_models::{Delivery, QueueModel, vault};
use landfall_processor::Processor;
use landfall_sweeper::Sweeper;
use landfall_tracking::{Key, Queue, Store, Which};

use crate::cloud::{Cloud, VISIBILITY};
use crate::scene::{Bench, Plot, Stage, StillTime, sqs};
use crate::search::gate::{Gate, Gated};
use crate::search::setups::{Prepared, Setup, TaskKind};

/// A task that lives longer than any of its steps: Lambda ends nobody while the search runs.
const LONG: Duration = Duration::from_hours(24);

/// A setup under way.
pub(super) struct World<'run> {
    stage: Stage<'run>,
    tasks: Vec<Task>,
    told: Vec<String>,
}

struct Task {
    name: String,
    gate: Gate,
    work: Work,
}

enum Work {
    /// A handler; none when it has returned.
    Handler(Option<Pin<Box<dyn Future<Output = ()> + Send>>>),
    /// Somebody who lets time pass, so many times.
    Time(Vec<Duration>),
}

impl<'run> World<'run> {
    pub(super) fn new(setup: &'run Setup, bench: &'run mut Bench) -> Self {
        let fortune = Arc::new(Plot::new(Vec::new(), &[]));
        let mut stage = Stage::new(&setup.scene, bench, fortune, None, false);
        for prepared in &setup.prepared {
            match prepared {
                Prepared::Act(act) => stage.perform(act),
                Prepared::WorkOff(queue) => stage.work_off(*queue),
                Prepared::EndsUntold(id) => {
                    let platform = &stage.cloud().platform;
                    platform.end(id, "FAILED");
                    platform.next_settled();
                }
                Prepared::LosesRow(file) => {
                    let (tenant, sort) = (setup.scene.tenant(), format!("FILE#{file}"));
                    let partition = format!("TRANSFER#{tenant}#t");
                    stage.cloud().table.lose(&Key::new(partition, sort));
                }
                Prepared::Sweep => stage.sweep_now(),
                Prepared::Wait(seconds) => {
                    let then = stage.time().now() + Duration::from_secs(*seconds);
                    stage.time().advance_to(then.as_millis());
                }
            }
        }
        let mut world = Self {
            tasks: Vec::new(),
            told: Vec::new(),
            stage,
        };
        let mut last = Vec::new();
        for kind in &setup.tasks {
            world.start(kind, &mut last);
        }
        for place in 0..world.tasks.len() {
            world.poll(place);
        }
        world
    }

    fn start(&mut self, kind: &TaskKind, last: &mut Vec<Delivery>) {
        let number = self.tasks.len();
        let gate = Gate::default();
        let wiring = Wiring {
            cloud: self.stage.cloud(),
            gate: gate.clone(),
            clock: Clock::of(Arc::new(StillTime(self.stage.time().clone()))),
        };
        let deadline = self.stage.time().now() + LONG;
        let (name, work) = match kind {
            TaskKind::Worker(queue) | TaskKind::SameMessage(queue) => {
                if matches!(kind, TaskKind::Worker(_)) {
                    *last = self.stage.queue(*queue).deliver(1, VISIBILITY);
                    assert!(!last.is_empty(), "there is no message for worker {number}");
                }
                let (processor, batch) = (wiring.processor(), last.clone());
                let queue = self.stage.queue(*queue).clone();
                let handler = async move {
                    let name = format!("invocation-{number}");
                    let failed = processor.handle(sqs(&batch), &name, deadline).await;
                    if failed.batch_item_failures.is_empty() {
                        queue.acknowledge(&batch[0].id);
                    }
                };
                (
                    format!("worker {number}"),
                    Work::Handler(Some(Box::pin(handler))),
                )
            }
            TaskKind::Sweeper => {
                let sweeper = wiring.sweeper();
                let handler = async move {
                    sweeper.sweep(deadline).await;
                };
                (
                    format!("sweeper {number}"),
                    Work::Handler(Some(Box::pin(handler))),
                )
            }
            TaskKind::Time(steps) => {
                let steps = steps.iter().rev().map(|step| Duration::from_secs(*step));
                ("time".to_owned(), Work::Time(steps.collect()))
            }
        };
        self.tasks.push(Task { name, gate, work });
    }

    /// The tasks that can go on.
    pub(super) fn ready(&self) -> Vec<usize> {
        (0..self.tasks.len())
            .filter(|task| self.may(*task))
            .collect()
    }

    /// Whether a task can go on.
    pub(super) fn may(&self, task: usize) -> bool {
        let task = &self.tasks[task];
        match &task.work {
            Work::Handler(handler) => handler.is_some() && task.gate.next().is_some(),
            Work::Time(steps) => !steps.is_empty(),
        }
    }

    /// Carries a task's next call out, and lets it run to the one after it.
    pub(super) fn step(&mut self, place: usize) {
        let task = &mut self.tasks[place];
        match &mut task.work {
            Work::Time(steps) => {
                let step = steps.pop().unwrap_or_default();
                self.told.push(format!("{} s pass", step.as_secs()));
                let then = self.stage.time().now() + step;
                self.stage.time().advance_to(then.as_millis());
            }
            Work::Handler(_) => {
                let call = task.gate.next().unwrap_or_default();
                self.told.push(format!("{}: {call}", task.name));
                task.gate.open();
                self.poll(place);
            }
        }
    }

    fn poll(&mut self, place: usize) {
        let Work::Handler(handler) = &mut self.tasks[place].work else {
            return;
        };
        // Wakes are noted, for a future of many parts asks to be polled again when one of them could go on.
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        while woken.0.swap(false, Ordering::Relaxed) {
            let Some(future) = handler else { return };
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                *handler = None;
            }
        }
    }

    /// What the models hold: all that is left when every task dies.
    pub(super) fn durable(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let cloud = self.stage.cloud();
        self.stage.time().now().as_millis().hash(&mut hasher);
        for which in [Which::Tracking, Which::Records] {
            for (key, row) in cloud.table.rows(which) {
                let aside = key.sort.starts_with("LOG#") || key.partition.starts_with("TENANT#");
                if !aside {
                    (key, row).hash(&mut hasher);
                }
            }
        }
        for queue in [&cloud.events, &cloud.imports] {
            let mut bodies = queue.bodies();
            bodies.sort();
            bodies.hash(&mut hasher);
        }
        format!("{:?}", cloud.platform.transfers()).hash(&mut hasher);
        hasher.finish()
    }

    /// The models and the tasks.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.durable().hash(&mut hasher);
        for task in &self.tasks {
            match &task.work {
                Work::Handler(None) => 0_u8.hash(&mut hasher),
                Work::Handler(Some(_)) => task.gate.fingerprint(&mut hasher),
                Work::Time(steps) => steps.len().hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        let broken = self.tasks.iter().filter_map(|task| {
            let row = task.gate.broken()?;
            Some(format!("{} changed its tenant's row {row}", task.name))
        });
        let mut all = self.stage.violations().all();
        all.extend(broken);
        all
    }

    /// The path so far.
    pub(super) fn told(&self, violations: &[String]) -> String {
        let mut text = String::new();
        for line in self.told.iter().chain(violations) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    /// Whatever is still at it dies, and the rest is done calmly.
    pub(super) fn finish(self) -> Vec<String> {
        drop(self.tasks);
        self.stage.finish().violations
    }
}

struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The functions on gated models.
struct Wiring<'cloud> {
    cloud: &'cloud Cloud,
    gate: Gate,
    clock: Clock,
}

impl Wiring<'_> {
    fn behind<Model: Clone>(&self, model: &Model) -> Arc<Gated<Model>> {
        Arc::new(Gated {
            model: model.clone(),
            gate: self.gate.clone(),
        })
    }

    fn queue(&self, queue: &QueueModel) -> Queue {
        Queue::new(self.behind(queue))
    }

    fn lifecycle(&self) -> Lifecycle {
        let configuration = &self.cloud.configuration;
        Lifecycle::new(
            landfall_transfer::timeline::Actor::Processor,
            Store::new(self.behind(&self.cloud.table), vault(), self.clock.clone()),
            self.queue(&self.cloud.imports),
            Platform::over(self.behind(&self.cloud.platform), configuration),
            Arc::clone(configuration),
            self.clock.clone(),
        )
    }

    fn processor(&self) -> Processor {
        Processor::new(self.lifecycle(), self.queue(&self.cloud.events))
            .unwrap_or_else(|unfit| panic!("wire the processor: {unfit}"))
    }

    fn sweeper(&self) -> Sweeper {
        let dead = [&self.cloud.dead_events, &self.cloud.dead_imports];
        let dead = dead.map(|queue| self.queue(queue)).into();
        Sweeper::new(self.lifecycle(), self.queue(&self.cloud.events), dead)
            .unwrap_or_else(|unfit| panic!("wire the sweeper: {unfit}"))
    }
}
