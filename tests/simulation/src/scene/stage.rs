mod hands;
mod invocations;
mod outside;

pub use invocations::sqs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use landfall_clock::Clock;
use landfall_intake::Intake;
use landfall_models::{Calm, Delivery, Weather};
use landfall_runtime::Configuration;
use landfall_tracking::{Installed, Which};
use landfall_transfer::{Flavour, TenantId, Timestamp};
use secrecy::SecretString;
use serde_json::Value;

use crate::cloud::{Cloud, Processor, configuration};
use crate::executor::{Executor, MachineTime, VirtualTime};
use crate::forge;
use crate::machine::{Fortune, Machine};
use crate::platform::PlatformModel;
use crate::scene::Scene;
use crate::scene::verify::{End, verify};
use crate::trace::Trace;
use crate::watch::{Violations, watch, watch_answers};
use crate::webhook;
use crate::world::START;

/// A scene ends after this long at the latest.
const HORIZON: Duration = Duration::from_hours(6);

/// Messages of one batch of control events, and of files (infra/template.yaml).
const BATCHES: [usize; 2] = [10, 1];

/// Attempts of the platform to deliver an event.
const ATTEMPTS: u32 = 8;

/// What many stages share: what takes longer to read than a run takes.
#[derive(Debug, Default)]
pub struct Bench {
    configurations: HashMap<(Flavour, &'static str), Arc<Configuration>>,
}

/// Steps that are run twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubled {
    /// The number of the step, counted from 0 over all invocations; all steps when it is none.
    pub step: Option<u64>,
    /// How much later the second run begins, in milliseconds; a call takes two.
    pub later_ms: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<String>,
    /// How each transfer ended.
    pub ends: BTreeMap<String, End>,
    /// When the last transfer had been settled, after the start.
    pub settled_after: Duration,
    /// Invocations.
    pub steps: u64,
    /// What happened, when it was asked for.
    pub trace: String,
}

#[derive(Clone, Debug)]
struct Event {
    body: Value,
    attempts: u32,
    pause: u64,
}

struct Worker {
    machine: Arc<Machine>,
    processor: Arc<Processor>,
}

struct Door {
    machine: Arc<Machine>,
    intake: Arc<Intake>,
}

enum Finished {
    Worker {
        worker: Option<Worker>,
        queue: usize,
        done: Vec<String>,
    },
    Intake {
        door: Option<Door>,
        event: Event,
        status: Option<u16>,
    },
    Sweeper,
}

#[derive(Clone, Debug)]
enum Due {
    Act(usize),
    Event(Event),
    Start(Again),
}

/// The second run of a step.
#[derive(Clone, Debug)]
enum Again {
    Event(Event),
    Batch(usize, Vec<Delivery>),
    Sweep,
}

/// A scene under way.
pub struct Stage<'run> {
    scene: &'run Scene,
    doubled: Option<Doubled>,
    fortune: Arc<dyn Fortune>,
    time: VirtualTime,
    trace: Trace,
    executor: Executor,
    cloud: Cloud,
    idle: Vec<Worker>,
    doors: Vec<Door>,
    due: BTreeMap<(i64, u64), Due>,
    planned: u64,
    finished: Arc<Mutex<Vec<Finished>>>,
    started: BTreeMap<String, Timestamp>,
    violations: Violations,
    sweepers: u64,
    last_sweep: i64,
    steps: u64,
    settled_at: Timestamp,
    accepted: BTreeSet<(String, String)>,
    /// Events that are kept instead of being delivered.
    told: Option<Vec<Event>>,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Stage")
            .field("scene", &self.scene.name)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// An empty cloud of a scene's configuration.
    pub fn cloud(&mut self, scene: &Scene, weather: &Arc<dyn Weather>, clock: &Clock) -> Cloud {
        let platform = PlatformModel::new(scene.switches, Arc::clone(weather), clock.clone());
        let (flavour, extra) = (scene.flavour, scene.configuration);
        let read = self.configurations.entry((flavour, extra));
        let configuration = Arc::clone(read.or_insert_with(|| match flavour {
            Flavour::Connect => configuration(extra),
            Flavour::Forge => configuration(&[forge::CONFIGURATION, extra].concat()),
        }));
        Cloud::new(platform, weather, clock, configuration)
    }

    /// Runs a scene to its end.
    pub fn run(
        &mut self,
        scene: &Scene,
        fortune: Arc<dyn Fortune>,
        doubled: Option<Doubled>,
        traced: bool,
    ) -> Outcome {
        let mut stage = Stage::new(scene, self, fortune, doubled, traced);
        stage.plan_acts();
        stage.go();
        stage.outcome()
    }
}

impl<'run> Stage<'run> {
    /// Sets a scene up. Nothing happens before it is told to go.
    pub fn new(
        scene: &'run Scene,
        bench: &mut Bench,
        fortune: Arc<dyn Fortune>,
        doubled: Option<Doubled>,
        traced: bool,
    ) -> Self {
        let time = VirtualTime::starting_at(START);
        let clock = Clock::of(Arc::new(MachineTime::new(time.clone())));
        let trace = if traced {
            Trace::on(time.clone())
        } else {
            Trace::off(time.clone())
        };
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let cloud = bench.cloud(scene, &calm, &clock);
        let violations = Violations::default();
        watch(&cloud.table, &violations);
        install(scene, &cloud, &clock);
        watch_answers(&cloud, &violations);
        Self {
            scene,
            doubled,
            fortune,
            trace,
            executor: Executor::default(),
            cloud,
            idle: Vec::new(),
            doors: Vec::new(),
            due: BTreeMap::new(),
            planned: 0,
            finished: Arc::default(),
            started: BTreeMap::new(),
            violations,
            sweepers: 0,
            last_sweep: START.as_millis(),
            steps: 0,
            settled_at: START,
            accepted: BTreeSet::new(),
            told: None,
            time,
        }
    }

    /// Plans everything that the outside does.
    fn plan_acts(&mut self) {
        for (place, (seconds, _)) in self.scene.acts.iter().enumerate() {
            let at = START + Duration::from_secs(*seconds);
            self.plan(at, Due::Act(place));
        }
    }

    fn plan(&mut self, at: Timestamp, due: Due) {
        self.planned += 1;
        self.due.insert((at.as_millis(), self.planned), due);
    }

    fn start(&self, kind: &str) -> Arc<Machine> {
        Machine::start(
            format!("{kind}-{}", self.steps),
            Arc::clone(&self.fortune),
            self.time.clone(),
            self.trace.clone(),
        )
    }

    fn go(&mut self) {
        let end = (START + HORIZON).as_millis();
        loop {
            self.executor.run_ready();
            if self.take_finished() | self.tell_settled() {
                continue;
            }
            let platform_acts = self.cloud.platform.enforce();
            if self.tell_settled() || self.hand_out() {
                continue;
            }
            if self.is_over() {
                return;
            }
            let next = [
                self.time.next_timer(),
                self.due.keys().next().map(|(at, _)| *at),
                platform_acts,
                self.cloud.events.next_visible(),
                self.cloud.imports.next_visible(),
                self.next_sweep(),
            ]
            .into_iter()
            .flatten()
            .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.violations.note("the scene never came to its end");
                return;
            };
            self.time.advance_to(next);
            self.act();
            self.sweep();
        }
    }

    /// Nothing is under way and nothing will come.
    fn is_over(&self) -> bool {
        let cloud = &self.cloud;
        self.executor.is_empty()
            && self.due.is_empty()
            && [
                &cloud.events,
                &cloud.imports,
                &cloud.dead_events,
                &cloud.dead_imports,
            ]
            .iter()
            .all(|queue| queue.is_empty())
            && cloud.table.rows(Which::Tracking).iter().all(|(key, row)| {
                key.partition.starts_with("TENANT#") || !row.contains_key("due_at")
            })
            && cloud
                .platform
                .transfers()
                .iter()
                .all(|(_, transfer)| transfer.ended.is_some())
    }

    fn act(&mut self) {
        let now = self.time.now().as_millis();
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                return;
            }
            match first.remove() {
                Due::Act(place) => self.take(&self.scene.acts[place].1.clone()),
                Due::Event(event) => self.deliver(event),
                Due::Start(Again::Event(event)) => self.answer(event),
                Due::Start(Again::Batch(queue, batch)) => self.work(queue, batch),
                Due::Start(Again::Sweep) => self.start_sweeper(),
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let ends = verify(self.scene, &self.cloud, &self.accepted, &self.violations);
        Outcome {
            violations: self.violations.all(),
            ends,
            settled_after: self.settled_at.since(START),
            steps: self.steps,
            trace: self.trace.text(),
        }
    }
}

/// Makes the scene's site known, without any call. Nobody tells of an installation on Forge.
fn install(scene: &Scene, cloud: &Cloud, clock: &Clock) {
    use futures_util::FutureExt as _;
    let site = scene.tenant();
    if scene.flavour == Flavour::Forge {
        return;
    }
    cloud.platform.install(site, &webhook::secret(site));
    let calm: Arc<dyn Weather> = Arc::new(Calm);
    let installed = Installed {
        tenant: TenantId::new(site),
        base_url: "https://site.atlassian.net/wiki".to_owned(),
        product: None,
        secret: SecretString::from(webhook::secret(site)),
    };
    cloud
        .store(&calm, clock)
        .install(&installed, Duration::from_mins(10), START)
        .now_or_never()
        .unwrap_or_else(|| panic!("calm weather kept somebody waiting"))
        .unwrap_or_else(|error| panic!("failed to {error}"));
}

fn push(finished: &Mutex<Vec<Finished>>, one: Finished) {
    finished
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(one);
}
