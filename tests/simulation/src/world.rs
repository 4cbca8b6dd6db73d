//! A run: the plan's migrations against Landfall's own functions, on models, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use landfall_clock::Clock;
use landfall_intake::Intake;
use landfall_models::Weather;
use landfall_tracking::{Installed, Key, Store, Which};
use landfall_transfer::{TenantId, Timestamp};
use secrecy::SecretString;
use serde_json::Value;

mod attempt;
mod evidence;
mod functions;
mod outside;

use attempt::{Attempt, tenant_name};
use functions::{Finished, WORKERS, Worker};

use crate::cloud::{Cloud, configuration};
use crate::executor::{Executor, MachineTime, VirtualTime};
use crate::faults::Chance;
use crate::forge;
use crate::machine::{Fortune, Luck, Machine};
use crate::plan::{Plan, is_on_forge};
use crate::platform::{Percent, PlatformModel, Switches};
use crate::random::Random;
use crate::trace::Trace;
use crate::watch::{Violations, watch, watch_answers};
use crate::webhook;

/// When every run begins.
pub const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

/// A run ends after this long at the latest: everything is decided by then.
const HORIZON: Duration = Duration::from_hours(17 * 24);

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
    ExportComplete(usize),
    Refresh(usize),
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
        crate::judge::judge(&world);
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
        let clocks = format!("[clocks]\nreconcile_interval = \"{}s\"\n", plan.reconcile);
        let on_forge = plan
            .migrations
            .iter()
            .any(|migration| is_on_forge(migration.tenant));
        let extra = clocks + if on_forge { forge::CONFIGURATION } else { "" };
        let cloud = Cloud::new(platform, &calm, &clock, configuration(&extra));
        cloud.table.limit_pages(7);
        let violations = Violations::default();
        watch(&cloud.table, &violations);
        watch_answers(&cloud, &violations);
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
        // Of an installation on Forge nobody is told.
        for tenant in tenants.into_iter().filter(|tenant| !is_on_forge(*tenant)) {
            let name = tenant_name(tenant);
            self.cloud.platform.install(&name, &webhook::secret(&name));
            let installed = Installed {
                tenant: TenantId::new(&name),
                base_url: "https://site.atlassian.net/wiki".to_owned(),
                product: None,
                secret: SecretString::from(webhook::secret(&name)),
            };
            let install = self
                .truth
                .install(&installed, Duration::from_mins(10), START);
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

    fn outcome(&self) -> Outcome {
        let transfers = self.cloud.platform.transfers();
        let stuck = transfers
            .iter()
            .filter(|(_, transfer)| {
                // On Forge the platform gives up what none of its own events told of.
                let waits = transfer.messages.is_none();
                transfer.ended.as_ref().map_or(waits, |ended| {
                    waits
                        && matches!(
                            ended.by,
                            crate::platform::EndedBy::TimedOut
                                | crate::platform::EndedBy::Cancelled
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
        ..Switches::default()
    }
}

/// Ends a future that calm weather never keeps waiting.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    use futures_util::FutureExt as _;
    future
        .now_or_never()
        .unwrap_or_else(|| panic!("calm weather kept somebody waiting"))
}
