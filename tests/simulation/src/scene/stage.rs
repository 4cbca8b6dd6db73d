use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use landfall_clock::Clock;
use landfall_models::{Calm, Delivery, QueueModel, Weather};
use landfall_processor::Processor;
use landfall_tracking::{Installed, Which};
use landfall_transfer::{TenantId, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::cloud::{Cloud, PROCESSOR_TIMEOUT, SWEEP_INTERVAL, SWEEPER_TIMEOUT, VISIBILITY};
use crate::executor::{Executor, MachineTime, VirtualTime};
use crate::machine::{Ended, Fortune, Machine, invoke};
use crate::platform::PlatformModel;
use crate::scene::shared_intake::SharedIntake;
use crate::scene::verify::{End, verify};
use crate::scene::{Act, Scene};
use crate::trace::Trace;
use crate::watch::{Violations, watch};
use crate::webhook;
use crate::world::START;

/// The one site of every scene.
pub const TENANT: &str = "tenant";

/// A scene ends after this long at the latest.
const HORIZON: Duration = Duration::from_hours(24);

/// Longest invocation of intake (infra/template.yaml).
const INTAKE_TIMEOUT: Duration = Duration::from_secs(6);

/// Messages of one batch of control events, and of files (infra/template.yaml).
const BATCHES: [usize; 2] = [10, 1];

/// Attempts of the platform to deliver an event.
const ATTEMPTS: u32 = 8;

/// What many stages share: whatever takes long to make and holds nothing of a run.
#[derive(Debug, Default)]
pub struct Bench {
    clouds: HashMap<&'static str, Cloud>,
    intakes: HashMap<&'static str, Vec<Arc<SharedIntake>>>,
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

enum Finished {
    Worker {
        worker: Option<Worker>,
        queue: usize,
        done: Vec<String>,
    },
    Intake {
        event: Event,
        intake: Arc<SharedIntake>,
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
    bench: &'run mut Bench,
    doubled: Option<Doubled>,
    fortune: Arc<dyn Fortune>,
    time: VirtualTime,
    trace: Trace,
    executor: Executor,
    cloud: Cloud,
    idle: Vec<Worker>,
    warm: Vec<Arc<SharedIntake>>,
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
        let made = self
            .clouds
            .entry(scene.configuration)
            .or_insert_with(|| Cloud::new(platform.clone(), weather, clock, scene.configuration));
        made.anew(platform, weather, clock)
    }

    fn intake(&mut self, scene: &Scene, cloud: &Cloud) -> Arc<SharedIntake> {
        let kept = self.intakes.entry(scene.configuration).or_default();
        let intake = kept.pop().unwrap_or_else(|| {
            let calm: Arc<dyn Weather> = Arc::new(Calm);
            let clock = Clock::of(Arc::new(MachineTime::new(VirtualTime::starting_at(START))));
            let platform = cloud.platform.seen_under(Arc::clone(&calm));
            Arc::new(SharedIntake::new(&cloud.anew(platform, &calm, &clock)))
        });
        intake.forget();
        intake
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
        bench: &'run mut Bench,
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
        install(&cloud, &clock);
        Self {
            scene,
            bench,
            doubled,
            fortune,
            trace,
            executor: Executor::default(),
            cloud,
            idle: Vec::new(),
            warm: Vec::new(),
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
        let intake = self.bench.intake(self.scene, &self.cloud);
        intake.serve(&self.cloud, weather, self.time.clone());
        self.warm.push(Arc::clone(&intake));
        let request = webhook::request(TENANT, &event.body, self.time.now());
        Some(async move { intake.answer(request).await.status })
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

    fn take(&mut self, act: &Act) {
        let platform = self.cloud.platform.clone();
        self.trace.note("outside", || format!("{act:?}"));
        match act {
            Act::Begin { id, original, told } => {
                platform.begin(TENANT, id, *original);
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
        }
    }

    fn tell(&mut self, event_type: &str, id: &str, more: &Value) {
        let original = self.scene.acts.iter().find_map(|(_, act)| match act {
            Act::Begin {
                id: begun,
                original,
                ..
            } if *begun == id => *original,
            _ => None,
        });
        let created = self.started.get(id).copied().unwrap_or(START);
        let body = webhook::event(event_type, TENANT, id, original, created, more);
        self.deliver(Event {
            body,
            attempts: ATTEMPTS,
            pause: 2,
        });
    }

    fn tell_settled(&mut self) -> bool {
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

    /// Begins a step, and plans its second run when it is doubled.
    fn step(&mut self, again: impl FnOnce() -> Again) {
        let this = self.steps;
        if let Some(doubled) = self.doubled
            && doubled.step.is_none_or(|step| step == this)
        {
            let at = self.time.now() + Duration::from_millis(doubled.later_ms);
            self.plan(at, Due::Start(again()));
        }
    }

    fn deliver(&mut self, event: Event) {
        if let Some(told) = &mut self.told {
            told.push(event);
            return;
        }
        self.step(|| Again::Event(event.clone()));
        self.answer(event);
    }

    fn answer(&mut self, event: Event) {
        self.steps += 1;
        let intake = match self.warm.pop() {
            Some(intake) => intake,
            None => self.bench.intake(self.scene, &self.cloud),
        };
        let machine = self.start("intake");
        let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
        intake.serve(&self.cloud, &weather, self.time.clone());
        let request = webhook::request(TENANT, &event.body, self.time.now());
        let finished = Arc::clone(&self.finished);
        self.executor.spawn(async move {
            let status = match invoke(&machine, INTAKE_TIMEOUT, intake.answer(request)).await {
                Ended::Returned(answer) => Some(answer.status),
                Ended::Died | Ended::OutOfTime => None,
            };
            push(
                &finished,
                Finished::Intake {
                    event,
                    intake,
                    status,
                },
            );
        });
    }

    fn take_finished(&mut self) -> bool {
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
                    event,
                    intake,
                    status,
                } => {
                    if status.is_some() {
                        self.warm.push(intake);
                    } else {
                        self.keep(intake);
                    }
                    self.answered(event, status);
                }
                Finished::Sweeper => self.sweepers -= 1,
            }
        }
        some
    }

    fn keep(&mut self, intake: Arc<SharedIntake>) {
        let kept = self.bench.intakes.entry(self.scene.configuration);
        kept.or_default().push(intake);
    }

    fn answered(&mut self, mut event: Event, status: Option<u16>) {
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
    fn check_durable(&mut self, event: &Event) {
        let row = webhook::rows(TENANT, &event.body);
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
        if let Some(key) = event.body["s3Key"].as_str() {
            let id = event.body["transferId"].as_str().unwrap_or_default();
            self.accepted.insert((id.to_owned(), key.to_owned()));
        }
    }

    /// The queue of events, which is number 0, or that of files.
    pub const fn queue(&self, number: usize) -> &QueueModel {
        if number == 0 {
            &self.cloud.events
        } else {
            &self.cloud.imports
        }
    }

    /// Hands out what can be seen. Returns whether there was anything.
    fn hand_out(&mut self) -> bool {
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

    fn work(&mut self, queue: usize, batch: Vec<Delivery>) {
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
    fn next_sweep(&self) -> Option<i64> {
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

    fn sweep(&mut self) {
        let now = self.time.now().as_millis();
        if self.next_sweep().is_none_or(|at| at > now) {
            return;
        }
        self.last_sweep = now;
        self.step(|| Again::Sweep);
        self.start_sweeper();
    }

    fn start_sweeper(&mut self) {
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

impl Drop for Stage<'_> {
    /// Gives back what the next run can use.
    fn drop(&mut self) {
        for intake in std::mem::take(&mut self.warm) {
            self.keep(intake);
        }
    }
}

/// Makes the scene's site known, without any call.
fn install(cloud: &Cloud, clock: &Clock) {
    use futures_util::FutureExt as _;
    cloud.platform.install(TENANT, &webhook::secret(TENANT));
    let calm: Arc<dyn Weather> = Arc::new(Calm);
    let installed = Installed {
        tenant: TenantId::new(TENANT),
        base_url: "https://site.atlassian.net/wiki".to_owned(),
        product: None,
        secret: SecretString::from(webhook::secret(TENANT)),
    };
    let key = &cloud.configuration.secret_key;
    cloud
        .store(&calm, clock)
        .install(&installed, key, Duration::from_secs(600), START)
        .now_or_never()
        .unwrap_or_else(|| panic!("calm weather kept somebody waiting"))
        .unwrap_or_else(|error| panic!("failed to {error}"));
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

fn push(finished: &Mutex<Vec<Finished>>, one: Finished) {
    finished
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(one);
}
