//! A run: the plan's migrations against Landfall's own functions, on models, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use landfall_clock::Clock;
use landfall_intake::Intake;
use landfall_models::{Delivery, QueueModel, TableModel, Weather};
use landfall_processor::Processor;
use landfall_tracking::{Installed, Item, Key, Message, Store, Which};
use landfall_transfer::timeline::{Entry, Health, health};
use landfall_transfer::{TenantId, Timestamp, TransferId};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::cloud::{Cloud, PROCESSOR_TIMEOUT, SWEEP_INTERVAL, SWEEPER_TIMEOUT, VISIBILITY};
use crate::executor::{Executor, MachineTime, VirtualTime};
use crate::faults::Chance;
use crate::machine::{Ended, Fortune, Luck, Machine, invoke};
use crate::plan::{Exporter, Migration, Plan};
use crate::platform::{Percent, PlatformModel, Switches};
use crate::random::Random;
use crate::trace::Trace;
use crate::watch::{Violations, watch};
use crate::webhook;

/// When every run begins.
pub const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

/// A run ends after this long at the latest: everything is decided by then.
const HORIZON: Duration = Duration::from_hours(17 * 24);

/// Workers of each queue (infra/template.yaml allows more).
const WORKERS: usize = 4;

/// The answer of an intake that died or ran out of its time.
const NO_ANSWER: u16 = 0;

/// Longest invocation of intake (infra/template.yaml).
const INTAKE_TIMEOUT: Duration = Duration::from_secs(6);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Transfers that the platform knew.
    pub transfers: u64,
    /// Of these, transfers that were never settled.
    pub stuck: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Invocations of all functions.
    pub invocations: u64,
    /// How long after faults had stopped the last transfer was settled, of those that waited for nothing but Landfall.
    pub recovery: Duration,
    /// What happened, when it was asked for.
    pub trace: String,
}

/// Something that happens at its time.
#[derive(Clone, Debug)]
enum Action {
    Begin(usize),
    Upload(usize, usize),
    Manifest(usize),
    ListenerFails(usize),
    Cancel(usize),
    PlatformEnds(usize),
    AdminLooks(usize),
    Deliver(Box<Webhook>),
    Jump(usize, i64),
    DeployBegins,
    DeployEnds,
    Calm,
}

/// An event on its way to intake.
#[derive(Clone, Debug)]
struct Webhook {
    place: usize,
    tenant: String,
    body: Value,
    attempts_left: u64,
    pause: u64,
}

/// One attempt of a migration.
#[derive(Clone, Debug)]
struct Attempt {
    migration: Migration,
    id: String,
    original: Option<String>,
    /// Labels and contents of what was uploaded, by key.
    uploaded: BTreeMap<String, (String, String)>,
    reruns: u32,
    /// Whether its manifest was uploaded.
    manifested: bool,
    /// Events that are still on their way.
    travelling: u64,
    /// Whether an event of it was lost for good, so that only the platform's lists can tell.
    lost: bool,
    /// When Landfall had all that it needs for a verdict: the newest event was accepted, and the server app's part is over.
    ready_at: Option<i64>,
}

/// What an attempt uploaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Export {
    /// Whether it uploaded everything that it meant to.
    pub(crate) complete: bool,
    /// Labels and keys of records that must arrive.
    pub(crate) good: BTreeSet<(String, String)>,
    /// Records that can't.
    pub(crate) bad: u64,
}

impl Attempt {
    fn is_complete(&self) -> bool {
        !matches!(self.migration.exporter, Exporter::Fails(_))
            && self.uploaded.len() == self.migration.files.len()
    }
}

/// The key of a record that must arrive.
fn good(line: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    let mapped = !record["author"].as_str()?.starts_with("unmapped");
    Some(record["id"].as_str()?.to_owned()).filter(|_| mapped)
}

struct Worker {
    machine: Arc<Machine>,
    processor: Arc<Processor>,
    busy: bool,
    next_release: bool,
}

enum Finished {
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

/// A run under way.
pub struct World {
    plan: Plan,
    time: VirtualTime,
    trace: Trace,
    fortune: Arc<Chance>,
    executor: Executor,
    cloud: Cloud,
    truth: Store,
    workers: Vec<Worker>,
    intake: Arc<Intake>,
    intake_machine: Arc<Machine>,
    attempts: Vec<Attempt>,
    actions: BTreeMap<(i64, u64), Action>,
    planned: u64,
    finished: Arc<Mutex<Vec<Finished>>>,
    sweepers: u64,
    last_sweep: i64,
    random: Random,
    violations: Violations,
    accepted: BTreeSet<(String, String)>,
    invocations: u64,
    machines: u64,
    calm_since: Option<i64>,
    next_release: bool,
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("World")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Runs a plan to its end.
    pub fn run(plan: &Plan, traced: bool) -> Outcome {
        let mut world = Self::new(plan.clone(), traced);
        world.go();
        world.judge();
        world.outcome()
    }

    fn new(plan: Plan, traced: bool) -> Self {
        let time = VirtualTime::starting_at(START);
        let clock = Clock::of(Arc::new(MachineTime::new(time.clone())));
        let trace = if traced {
            Trace::on(time.clone())
        } else {
            Trace::off(time.clone())
        };
        let mut random = Random::new(plan.seed ^ 0x5EED_0F5E_ED0F_5EED);
        let fortune = Arc::new(Chance::new(
            time.clone(),
            random.fork(),
            plan.faults,
            plan.outages.clone(),
            plan.faults_at_most,
        ));
        let outside = Machine::start(
            "outside",
            Arc::clone(&fortune) as Arc<dyn Fortune>,
            time.clone(),
            trace.clone(),
        );
        let calm: Arc<dyn Weather> = outside;
        let platform = PlatformModel::new(switches(&plan), Arc::clone(&calm), clock.clone());
        let extra = format!("[clocks]\nreconcile_interval = \"{}s\"\n", plan.reconcile);
        let cloud = Cloud::new(platform, &calm, &clock, &extra);
        cloud.table.limit_pages(7);
        let violations = Violations::default();
        watch(&cloud.table, &violations);
        let quiet: Arc<dyn Weather> = Machine::start(
            "truth",
            Arc::new(Luck),
            time.clone(),
            Trace::off(time.clone()),
        );
        let truth = cloud.store(&quiet, &clock);
        let (intake_machine, intake) = {
            let machine = Machine::start(
                "intake",
                Arc::clone(&fortune) as Arc<dyn Fortune>,
                time.clone(),
                trace.clone(),
            );
            let weather: Arc<dyn Weather> = Arc::clone(&machine) as Arc<dyn Weather>;
            let intake = cloud.intake(&weather, &machine.clock());
            (machine, intake)
        };
        let mut world = Self {
            time,
            trace,
            fortune,
            executor: Executor::default(),
            cloud,
            truth,
            workers: Vec::new(),
            intake,
            intake_machine,
            attempts: Vec::new(),
            actions: BTreeMap::new(),
            planned: 0,
            finished: Arc::default(),
            sweepers: 0,
            last_sweep: START.as_millis(),
            random,
            violations,
            accepted: BTreeSet::new(),
            invocations: 0,
            machines: 0,
            calm_since: None,
            next_release: false,
            plan,
        };
        for _ in 0..2 * WORKERS {
            let worker = world.start_worker();
            world.workers.push(worker);
        }
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let tenants: BTreeSet<u64> = self
            .plan
            .migrations
            .iter()
            .map(|migration| migration.tenant)
            .collect();
        for tenant in tenants {
            let name = tenant_name(tenant);
            self.cloud.platform.install(&name, &webhook::secret(&name));
            let installed = Installed {
                tenant: TenantId::new(&name),
                base_url: "https://site.atlassian.net/wiki".to_owned(),
                product: None,
                secret: SecretString::from(webhook::secret(&name)),
            };
            let key = &self.cloud.configuration.secret_key;
            let install = self
                .truth
                .install(&installed, key, Duration::from_secs(600), START);
            if let Err(error) = now_or_never(install) {
                self.violations.note(format!("failed to {error}"));
            }
        }
        for place in 0..self.plan.migrations.len() {
            let migration = self.plan.migrations[place].clone();
            self.at(migration.starts, Action::Begin(place));
            self.attempts.push(Attempt {
                id: format!("m{place}-a0"),
                original: None,
                uploaded: BTreeMap::new(),
                reruns: 0,
                manifested: false,
                travelling: 0,
                lost: false,
                ready_at: None,
                migration,
            });
        }
        for jump in self.plan.jumps.clone() {
            let worker = usize::try_from(jump.worker).unwrap_or(0) % (2 * WORKERS);
            self.at(jump.at, Action::Jump(worker, jump.off_by_ms));
        }
        if let Some((from, until)) = self.plan.deploy {
            self.at(from, Action::DeployBegins);
            self.at(until, Action::DeployEnds);
        }
        self.at(self.plan.calm_at, Action::Calm);
    }

    /// Plans an action, in seconds after the start.
    fn at(&mut self, seconds: u64, action: Action) {
        let at = (START + Duration::from_secs(seconds)).as_millis();
        self.at_instant(at, action);
    }

    fn later(&mut self, seconds: u64, action: Action) {
        let at = (self.time.now() + Duration::from_secs(seconds)).as_millis();
        self.at_instant(at, action);
    }

    fn at_instant(&mut self, at: i64, action: Action) {
        self.planned += 1;
        self.actions.insert((at, self.planned), action);
    }

    fn start_machine(&mut self, kind: &str) -> Arc<Machine> {
        self.machines += 1;
        Machine::start(
            format!("{kind}-{}", self.machines),
            Arc::clone(&self.fortune) as Arc<dyn Fortune>,
            self.time.clone(),
            self.trace.clone(),
        )
    }

    fn start_worker(&mut self) -> Worker {
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

    fn go(&mut self) {
        let end = (START + HORIZON).as_millis();
        loop {
            self.executor.run_ready();
            if self.take_finished() || self.tell_settled() {
                continue;
            }
            let platform_acts = self.cloud.platform.enforce();
            if self.tell_settled() || self.hand_out() {
                continue;
            }
            if self.is_over() {
                return;
            }
            let now = self.time.now().as_millis();
            let next = [
                self.time.next_timer(),
                self.actions.keys().next().map(|(at, _)| *at),
                platform_acts,
                self.next_delivery(),
                self.next_sweep(),
            ]
            .into_iter()
            .flatten()
            .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                return;
            };
            self.time.advance_to(next.max(now));
            self.act();
            self.sweep();
        }
    }

    /// Nothing is under way and nothing will come.
    fn is_over(&self) -> bool {
        self.executor.is_empty()
            && self.actions.is_empty()
            && self.cloud.events.is_empty()
            && self.cloud.imports.is_empty()
            && self
                .cloud
                .platform
                .transfers()
                .iter()
                .all(|(id, transfer)| {
                    transfer.ended.is_some() && self.is_settled_here(&transfer.tenant, id)
                })
            && !(self.plan.sweeper && self.anything_is_due())
    }

    /// Whether anything is owed beyond the regular comparisons of sites, which never end.
    fn anything_is_due(&self) -> bool {
        let rows = self.cloud.table.rows(Which::Tracking);
        rows.iter()
            .any(|(key, item)| item.contains_key("due_at") && !key.partition.starts_with("TENANT#"))
    }

    fn is_settled_here(&self, tenant: &str, id: &str) -> bool {
        let key = Key::new(format!("TRANSFER#{tenant}#{id}"), "STATE");
        // What nobody ever heard of needs no settling.
        self.cloud
            .table
            .row(&key)
            .is_none_or(|row| crate::watch::text(&row, "phase") == "SETTLED")
    }

    fn act(&mut self) {
        let now = self.time.now().as_millis();
        while let Some(((at, number), _)) = self.actions.first_key_value() {
            if *at > now {
                return;
            }
            let first = (*at, *number);
            if let Some(action) = self.actions.remove(&first) {
                self.take(action);
            }
        }
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::Begin(place) => self.begin(place),
            Action::Upload(place, file) => self.upload(place, file),
            Action::Manifest(place) => self.upload_manifest(place),
            Action::ListenerFails(place) => {
                let id = self.attempts[place].id.clone();
                if self
                    .cloud
                    .platform
                    .fail_listener(&id, "com.example.ExportException")
                {
                    self.trace
                        .note("server app", || format!("{id}: its listener fails"));
                    self.emit(place, "listener-errored", &json!({}));
                }
            }
            Action::Cancel(place) => {
                let id = self.attempts[place].id.clone();
                if self.cloud.platform.cancel(&id) {
                    self.trace.note("admin", || format!("cancels {id}"));
                    self.emit(place, "transfer-cancellation-requested", &json!({}));
                }
            }
            Action::PlatformEnds(place) => {
                let id = self.attempts[place].id.clone();
                if self.cloud.platform.end(&id, "FAILED") {
                    self.trace
                        .note("platform", || format!("ends {id} by itself"));
                }
            }
            Action::AdminLooks(place) => self.look(place),
            Action::Deliver(webhook) => self.deliver(*webhook),
            Action::Jump(worker, off_by_ms) => {
                let machine = &self.workers[worker].machine;
                machine.clock_jumps_to(off_by_ms);
                self.trace.note(machine.name(), || {
                    format!("its clock is {off_by_ms} ms off from now on")
                });
            }
            Action::DeployBegins => {
                for place in (0..self.workers.len()).step_by(2) {
                    self.workers[place].next_release = true;
                }
                self.trace.note("deploy", || {
                    "half of the workers run the next release".to_owned()
                });
            }
            Action::DeployEnds => {
                for worker in &mut self.workers {
                    worker.next_release = true;
                }
                self.next_release = true;
                self.trace
                    .note("deploy", || "all workers run the next release".to_owned());
            }
            Action::Calm => {
                self.fortune.stop();
                self.calm_since = Some(self.time.now().as_millis());
                for worker in &self.workers {
                    worker.machine.clock_jumps_to(0);
                }
                self.trace.note("faults", || "stop".to_owned());
            }
        }
    }

    fn begin(&mut self, place: usize) {
        let attempt = self.attempts[place].clone();
        let tenant = tenant_name(attempt.migration.tenant);
        self.cloud
            .platform
            .begin(&tenant, &attempt.id, attempt.original.as_deref());
        self.trace.note("admin", || match &attempt.original {
            Some(original) => format!("re-runs {original} as {}", attempt.id),
            None => format!("starts {} on site {tenant}", attempt.id),
        });
        self.emit(place, "listener-triggered", &json!({}));
        let migration = attempt.migration;
        let files = migration.files.len() as u64;
        let stops = match migration.exporter {
            Exporter::Done => files,
            Exporter::Fails(after) | Exporter::Dies(after) => after.min(files),
        };
        let mut last = 0;
        for file in 0..usize::try_from(stops).unwrap_or(0) {
            last = migration.files[file].at;
            self.later(last, Action::Upload(place, file));
        }
        match (migration.exporter, migration.manifest) {
            (Exporter::Fails(_), _) => self.later(last + 5, Action::ListenerFails(place)),
            (Exporter::Done, Some(after)) => self.later(last + after, Action::Manifest(place)),
            _ => {}
        }
        if let Some(after) = migration.cancelled {
            self.later(after, Action::Cancel(place));
        }
        if let Some(after) = migration.ended {
            self.later(after, Action::PlatformEnds(place));
        }
        if migration.rerun.is_some() {
            self.later(5 * 60, Action::AdminLooks(place));
        }
    }

    fn upload(&mut self, place: usize, number: usize) {
        let attempt = &self.attempts[place];
        let file = attempt.migration.files[number].clone();
        let of = attempt.migration.files.len();
        let key = format!(
            "{}{}-f{number}",
            if file.poison { "poison-" } else { "" },
            attempt.id
        );
        let label = format!("data-{:04}-of-{of:04}.ndjson", number + 1);
        let content = content(place, number, &file);
        self.upload_as(place, &key, &label, content);
    }

    fn upload_manifest(&mut self, place: usize) {
        let attempt = &self.attempts[place];
        let files: Vec<Value> = attempt
            .uploaded
            .values()
            .map(|(label, content)| json!({"label": label, "records": content.lines().count()}))
            .collect();
        let manifest = json!({"version": 1, "files": files}).to_string();
        let key = format!("{}-manifest", attempt.id);
        self.attempts[place].manifested = true;
        self.upload_as(place, &key, "export-manifest", manifest);
    }

    fn upload_as(&mut self, place: usize, key: &str, label: &str, content: String) {
        let attempt = &mut self.attempts[place];
        if !self
            .cloud
            .platform
            .upload(&attempt.id, key, label, content.clone())
        {
            return;
        }
        if label != "export-manifest" {
            attempt
                .uploaded
                .insert(key.to_owned(), (label.to_owned(), content));
        }
        self.trace.note("server app", || format!("uploads {key}"));
        self.emit(
            place,
            "app-data-uploaded",
            &json!({"s3Key": key, "label": label}),
        );
    }

    /// The admin re-runs what failed, as often as the plan's patience goes.
    fn look(&mut self, place: usize) {
        let attempt = self.attempts[place].clone();
        let Some(transfer) = self.cloud.platform.transfer(&attempt.id) else {
            return;
        };
        if transfer.ended.is_none() {
            self.later(10 * 60, Action::AdminLooks(place));
        } else if self.cloud.platform.can_rerun(&attempt.id) && attempt.reruns < 2 {
            let mut next = attempt.clone();
            let wait = attempt.migration.rerun.unwrap_or(0);
            next.reruns += 1;
            next.original = Some(attempt.original.unwrap_or_else(|| attempt.id.clone()));
            next.id = format!("m{}-a{}", root(&attempt.id), next.reruns);
            next.uploaded.clear();
            next.manifested = false;
            next.travelling = 0;
            next.lost = false;
            next.ready_at = None;
            next.migration.cancelled = None;
            next.migration.ended = None;
            next.migration.exporter = Exporter::Done;
            next.migration.manifest = Some(30);
            for file in &mut next.migration.files {
                file.poison = false;
            }
            self.attempts.push(next);
            let place = self.attempts.len() - 1;
            self.later(wait, Action::Begin(place));
        }
    }

    /// An event leaves the platform, by its plan's ways.
    fn emit(&mut self, place: usize, event_type: &str, more: &Value) {
        let attempt = &self.attempts[place];
        let tenant = tenant_name(attempt.migration.tenant);
        let body = webhook::event(
            event_type,
            &tenant,
            &attempt.id,
            attempt.original.as_deref(),
            self.time.now(),
            more,
        );
        self.send(place, tenant, &body);
    }

    fn send(&mut self, place: usize, tenant: String, body: &Value) {
        let ways = self.attempts[place].migration.events;
        let lossy = self.calm_since.is_none();
        if lossy && self.random.percent(ways.lost) {
            self.trace
                .note("platform", || format!("loses {}", webhook::name(body)));
            self.attempts[place].lost = true;
            return;
        }
        let mut copies = 1;
        while lossy && copies < 5 && self.random.percent(ways.repeated) {
            copies += 1;
        }
        for _ in 0..copies {
            let delay = self.random.below(ways.delay + 1);
            self.attempts[place].travelling += 1;
            let webhook = Webhook {
                place,
                tenant: tenant.clone(),
                body: body.clone(),
                attempts_left: ways.attempts,
                pause: 2,
            };
            self.later(delay, Action::Deliver(Box::new(webhook)));
        }
    }

    fn tell_settled(&mut self) -> bool {
        let Some((tenant, id, status)) = self.cloud.platform.next_settled() else {
            return false;
        };
        self.trace
            .note("platform", || format!("{id} is settled: {status}"));
        if let Some(place) = self.attempts.iter().position(|attempt| attempt.id == id) {
            let attempt = &self.attempts[place];
            let more = if self.plan.names_status {
                json!({"transferStatus": status})
            } else {
                json!({})
            };
            let body = webhook::event(
                "transfer-settled",
                &tenant,
                &id,
                attempt.original.as_deref(),
                self.time.now(),
                &more,
            );
            self.send(place, tenant, &body);
        }
        true
    }

    fn deliver(&mut self, webhook: Webhook) {
        self.invocations += 1;
        if self.intake_machine.is_dead() {
            self.intake_machine = self.start_machine("intake");
            let weather: Arc<dyn Weather> = Arc::clone(&self.intake_machine) as Arc<dyn Weather>;
            self.intake = self.cloud.intake(&weather, &self.intake_machine.clock());
        }
        let (machine, intake) = (Arc::clone(&self.intake_machine), Arc::clone(&self.intake));
        let request = webhook::request(&webhook.tenant, &webhook.body, self.time.now());
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

    fn take_finished(&mut self) -> bool {
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

    fn worker_finished(
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

    fn intake_finished(&mut self, mut webhook: Webhook, status: u16) {
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

    /// An event's travel is over. Landfall has what it needs once the server app's part is over and nothing travels any more.
    fn arrived(&mut self, place: usize) {
        let now = self.time.now().as_millis();
        let attempt = &mut self.attempts[place];
        attempt.travelling = attempt.travelling.saturating_sub(1);
        let transfer = self.cloud.platform.transfer(&attempt.id);
        let told = transfer.is_some_and(|transfer| {
            transfer.cancelled_at.is_some() || transfer.exception.is_some() || attempt.manifested
        });
        if told && attempt.travelling == 0 && attempt.ready_at.is_none() {
            attempt.ready_at = Some(now);
        }
    }

    /// S1: a 200 says that the event is stored, as a row or as a message.
    fn check_durable(&mut self, webhook: &Webhook) {
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
        if webhook.body["eventType"] == "app-data-uploaded" {
            let id = webhook.body["transferId"].as_str().unwrap_or_default();
            let key = webhook.body["s3Key"].as_str().unwrap_or_default();
            self.accepted.insert((id.to_owned(), key.to_owned()));
        }
    }

    const fn queue(&self, number: usize) -> &QueueModel {
        if number == 0 {
            &self.cloud.events
        } else {
            &self.cloud.imports
        }
    }

    /// Hands messages to workers that are free. Returns whether there was anything to hand out.
    fn hand_out(&mut self) -> bool {
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

    fn work(&mut self, place: usize, queue: usize, deliveries: Vec<Delivery>) {
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

    fn next_delivery(&self) -> Option<i64> {
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
    fn next_sweep(&self) -> Option<i64> {
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

    fn sweep(&mut self) {
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

    fn judge(&mut self) {
        crate::judge::judge(self);
    }

    pub(crate) const fn violations(&self) -> &Violations {
        &self.violations
    }

    pub(crate) const fn platform(&self) -> &PlatformModel {
        &self.cloud.platform
    }

    pub(crate) const fn table(&self) -> &TableModel {
        &self.cloud.table
    }

    pub(crate) const fn accepted(&self) -> &BTreeSet<(String, String)> {
        &self.accepted
    }

    pub(crate) const fn is_swept(&self) -> bool {
        self.plan.sweeper
    }

    /// For each transfer that waited for nothing but Landfall, and was settled after faults had stopped: how long that took.
    pub(crate) fn recoveries(&self) -> Vec<(String, Duration)> {
        let Some(calm) = self.calm_since else {
            return Vec::new();
        };
        let took = |attempt: &Attempt| {
            let ready = attempt.ready_at.filter(|_| !attempt.lost)?.max(calm);
            let ended = self.cloud.platform.transfer(&attempt.id)?.ended?;
            let took = ended.at.as_millis() - ready;
            let took = u64::try_from(took).ok().filter(|took| *took > 0)?;
            Some((attempt.id.clone(), Duration::from_millis(took)))
        };
        self.attempts.iter().filter_map(took).collect()
    }

    /// A transfer's timeline, as support reads it.
    pub(crate) fn timeline(&self, tenant: &str, id: &str) -> Vec<Entry> {
        let (tenant, id) = (TenantId::new(tenant), TransferId::new(id));
        now_or_never(self.truth.timeline(&tenant, &id)).unwrap_or_default()
    }

    /// How a transfer does by its timeline.
    pub(crate) fn health(&self, entries: &[Entry]) -> Health {
        health(entries, self.time.now(), &self.cloud.configuration.clocks)
    }

    /// By how much the fastest clock ran ahead: what it wrote lies that far in the future.
    pub(crate) fn clocks_were_off_by(&self) -> Duration {
        let ahead = self.plan.jumps.iter().map(|jump| jump.off_by_ms).max();
        Duration::from_millis(u64::try_from(ahead.unwrap_or(0)).unwrap_or(0))
    }

    /// The row of a transfer.
    pub(crate) fn row(&self, tenant: &str, id: &str) -> Option<Arc<Item>> {
        self.cloud
            .table
            .row(&Key::new(format!("TRANSFER#{tenant}#{id}"), "STATE"))
    }

    /// What an attempt exported.
    pub(crate) fn export(&self, id: &str) -> Option<Export> {
        let attempt = self.attempts.iter().find(|attempt| attempt.id == id)?;
        let mut export = Export {
            complete: attempt.is_complete(),
            ..Export::default()
        };
        for (label, content) in attempt.uploaded.values() {
            for line in content.lines() {
                match good(line) {
                    Some(key) => drop(export.good.insert((label.clone(), key))),
                    None => export.bad += 1,
                }
            }
        }
        Some(export)
    }

    /// A record as it must be in the target, if any attempt of the chain exported it.
    pub(crate) fn exported(&self, chain: &str, label: &str, key: &str) -> Option<String> {
        self.attempts
            .iter()
            // A re-run whose every event got lost is known from the platform's list, which doesn't name its chain.
            .filter(|attempt| attempt.original.as_deref() == Some(chain) || attempt.id == chain)
            .flat_map(|attempt| attempt.uploaded.values())
            .filter(|(uploaded, _)| uploaded == label)
            .flat_map(|(_, content)| content.lines())
            .find(|line| good(line).as_deref() == Some(key))
            .map(|line| line.replace("\"author\":\"", "\"author\":\"cloud-"))
    }

    fn outcome(&self) -> Outcome {
        let transfers = self.cloud.platform.transfers();
        let stuck = transfers
            .iter()
            .filter(|(_, transfer)| {
                transfer.ended.as_ref().is_none_or(|ended| {
                    matches!(
                        ended.by,
                        crate::platform::EndedBy::TimedOut | crate::platform::EndedBy::Cancelled
                    )
                })
            })
            .count();
        Outcome {
            violations: self.violations.all(),
            transfers: transfers.len() as u64,
            stuck: stuck as u64,
            faults: self.fortune.met(),
            invocations: self.invocations,
            recovery: self
                .recoveries()
                .into_iter()
                .map(|(_, took)| took)
                .max()
                .unwrap_or_default(),
            trace: self.trace.text(),
        }
    }
}

fn switches(plan: &Plan) -> Switches {
    Switches {
        percent: match plan.percent {
            1 => Percent::OnlyHundred,
            2 => Percent::NotHundred,
            3 => Percent::OnlyOmitted,
            _ => Percent::Any,
        },
        over: plan.over,
        listed_for: Duration::from_secs(plan.listed_for),
        ranges: plan.ranges,
        names_status: plan.names_status,
    }
}

fn push(finished: &Mutex<Vec<Finished>>, one: Finished) {
    finished
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(one);
}

/// Ends a future that calm weather never keeps waiting.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    use futures_util::FutureExt as _;
    future
        .now_or_never()
        .unwrap_or_else(|| panic!("calm weather kept somebody waiting"))
}

pub(crate) fn tenant_name(tenant: u64) -> String {
    format!("tenant-{tenant}")
}

/// The migration's number in an attempt's id.
fn root(id: &str) -> &str {
    id.trim_start_matches('m')
        .split_once('-')
        .map_or(id, |(root, _)| root)
}

/// A file's content: good records, records without a mapping, records that are no JSON.
fn content(place: usize, number: usize, file: &crate::plan::File) -> String {
    let mut lines = String::new();
    let record =
        |id: String, author: String| format!("{{\"id\":\"{id}\",\"author\":\"{author}\"}}\n");
    // Re-runs export the same records, whichever attempt's place they have.
    let _ = place;
    for line in 0..file.records {
        lines.push_str(&record(
            format!("{number}-{line}"),
            format!("user-{}", line % 3),
        ));
    }
    for line in 0..file.unmapped {
        lines.push_str(&record(
            format!("{number}-u{line}"),
            format!("unmapped-{line}"),
        ));
    }
    for _ in 0..file.broken {
        lines.push_str("{broken\n");
    }
    lines
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
