//! A site with a hidden quota, and a deployment that imports as fast as it bears: the processors' and the sweeper's own code, each worker a
//! process of its own, with nothing in common but the table. In virtual time, so every instant is exact.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and what it counted"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_lifecycle::{Api, Lifecycle, Opened, Platform, Tenant};
use landfall_models::{Call, Calm, Fate, Weather};
use landfall_platform::connect::client::{
    CallError, ListedFile, Page, Progress, Recent, ServerError,
};
use landfall_platform::downloads::{DownloadError, SignedUrl};
use landfall_processor::Processor;
use landfall_simulation::cloud::{
    Cloud, PROCESSOR_TIMEOUT, SWEEP_INTERVAL, SWEEPER_TIMEOUT, VISIBILITY, configuration,
};
use landfall_simulation::executor::{Executor, MachineTime, VirtualTime};
use landfall_simulation::machine::{Ended, Fortune, Machine, Turn, invoke};
use landfall_simulation::platform::{EndedBy, PlatformModel, Switches};
use landfall_simulation::scene::sqs;
use landfall_simulation::trace::Trace;
use landfall_simulation::webhook;
use landfall_sweeper::Sweeper;
use landfall_tracking::{File, FileState, Installed, Queue};
use landfall_transfer::timeline::Actor;
use landfall_transfer::{FileOutcome, TenantId, Timestamp, TransferId};
use secrecy::SecretString;
use serde_json::json;

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);
const TENANT: &str = "tenant";
const TRANSFER: &str = "t";
const QUICK: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_mins(1);

/// What the site bears, and what it was asked.
#[derive(Debug)]
struct Quota {
    calls: u64,
    window: Duration,
    /// Every so manieth refusal names no pause; 0 is none.
    silent_every: usize,
    /// Refuses everything until then, and asks for pauses that are at most so long.
    closed_until: Timestamp,
    longest: Duration,
    /// Whether progress and the list of active transfers are part of it.
    spares_settling: bool,
    current: (i64, u64),
    asked: Vec<Asked>,
}

/// A call.
#[derive(Clone, Copy, Debug)]
struct Asked {
    worker: usize,
    /// When its worker sent it, when the site took or refused it, and when the worker knew.
    sent: Timestamp,
    arrived: Timestamp,
    told: Timestamp,
    refused: bool,
    retry_after: Option<Duration>,
}

/// What the site answers instead of taking a call.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    retry_after: Option<Duration>,
}

impl Quota {
    fn new(calls: u64, window: Duration, silent_every: usize) -> Self {
        Self {
            calls,
            window,
            silent_every,
            closed_until: START,
            longest: MINUTE,
            spares_settling: false,
            current: (0, 0),
            asked: Vec::new(),
        }
    }

    /// Takes a call that arrives now, or refuses it.
    fn take(&mut self, now: Timestamp) -> Result<(), Refusal> {
        if now < self.closed_until {
            return Err(Refusal {
                retry_after: Some(self.closed_until.since(now).min(self.longest)),
            });
        }
        let length = i64::try_from(self.window.as_millis()).unwrap();
        let window = now.as_millis() / length;
        if self.current.0 != window {
            self.current = (window, 0);
        }
        if self.current.1 < self.calls {
            self.current.1 += 1;
            return Ok(());
        }
        let refused = self.asked.iter().filter(|asked| asked.refused).count() + 1;
        if self.silent_every > 0 && refused.is_multiple_of(self.silent_every) {
            return Err(Refusal { retry_after: None });
        }
        let end = Timestamp::from_millis((window + 1) * length);
        // In whole seconds, as the header has it.
        let seconds = end.since(now).as_millis().div_ceil(1_000);
        Err(Refusal {
            retry_after: Some(Duration::from_secs(u64::try_from(seconds).unwrap())),
        })
    }
}

/// The platform as one worker reaches it: each call of its REST API counts.
#[derive(Debug)]
struct Site {
    model: PlatformModel,
    quota: Arc<Mutex<Quota>>,
    time: VirtualTime,
    /// Half of it there, half of it back.
    latency: Duration,
    worker: usize,
}

impl Site {
    async fn ask<T>(&self, call: BoxFuture<'_, Result<T, CallError>>) -> Result<T, CallError> {
        self.ask_for(call, false).await
    }

    async fn ask_for<T>(
        &self,
        call: BoxFuture<'_, Result<T, CallError>>,
        settling: bool,
    ) -> Result<T, CallError> {
        let sent = self.time.now();
        self.time.sleep(self.latency / 2).await;
        let arrived = self.time.now();
        let taken = {
            let mut quota = lock(&self.quota);
            if settling && quota.spares_settling {
                Ok(())
            } else {
                quota.take(arrived)
            }
        };
        let answer = match taken {
            Ok(()) => call.await,
            Err(Refusal { retry_after }) => Err(CallError::Throttled { retry_after }),
        };
        lock(&self.quota).asked.push(Asked {
            worker: self.worker,
            sent,
            arrived,
            told: arrived + self.latency / 2,
            refused: taken.is_err(),
            retry_after: taken.err().and_then(|refusal| refusal.retry_after),
        });
        self.time.sleep(self.latency / 2).await;
        answer
    }
}

impl Api for Site {
    fn send_progress<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let sent = self.model.send_progress(tenant, transfer, progress);
        self.ask_for(sent, true).boxed()
    }

    fn recent<'call>(
        &'call self,
        tenant: &'call Tenant,
    ) -> BoxFuture<'call, Result<Recent, CallError>> {
        self.ask_for(self.model.recent(tenant), true).boxed()
    }

    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        self.ask(self.model.file_list(tenant, transfer)).boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        self.ask(self.model.signed_url(tenant, s3_key)).boxed()
    }

    fn find_mappings<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        keys: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>> {
        let found = self.model.find_mappings(tenant, transfer, namespace, keys);
        self.ask(found).boxed()
    }

    fn mapping_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<(String, String)>, CallError>> {
        let page = self.model.mapping_page(tenant, transfer, namespace, after);
        self.ask(page).boxed()
    }

    fn container_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        container_type: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<String>, CallError>> {
        let page = self
            .model
            .container_page(tenant, transfer, container_type, after);
        self.ask(page).boxed()
    }

    fn server_error<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        self.ask(self.model.server_error(tenant, transfer)).boxed()
    }

    fn open<'call>(
        &'call self,
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        // The object store is another host, and no part of the quota.
        self.model.open(url, from)
    }
}

/// Each half of a call to the table or a queue takes so long; and so many workers die before so manieth transaction of their lives.
#[derive(Debug)]
struct Steady {
    half: Duration,
    deaths: AtomicU64,
    dies_before: u64,
    transactions: Mutex<HashMap<String, u64>>,
}

impl Steady {
    fn new(half: Duration, deaths: u64, dies_before: u64) -> Self {
        Self {
            half,
            deaths: AtomicU64::new(deaths),
            dies_before,
            transactions: Mutex::default(),
        }
    }
}

impl Fortune for Steady {
    fn before(&self, machine: &str, call: &Call) -> (Duration, Turn) {
        if call.operation == "transact" && machine.starts_with("worker") {
            let mut transactions = lock(&self.transactions);
            let made = transactions.entry(machine.to_owned()).or_default();
            *made += 1;
            let left = self.deaths.load(Ordering::Relaxed);
            if *made == self.dies_before && left > 0 {
                self.deaths.store(left - 1, Ordering::Relaxed);
                return (self.half, Turn::Die);
            }
        }
        (self.half, Turn::Go(Fate::Works))
    }

    fn after(&self, _: &str, _: &Call) -> (Duration, Turn) {
        (self.half, Turn::Go(Fate::Works))
    }

    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn choose(&self, _: usize) -> usize {
        0
    }

    fn twice(&self) -> bool {
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A deployment and its surroundings.
#[derive(Clone)]
struct World {
    time: VirtualTime,
    cloud: Cloud,
    quota: Arc<Mutex<Quota>>,
    fortune: Arc<Steady>,
    latency: Duration,
}

impl World {
    fn new(quota: Quota, latency: Duration, fortune: Steady) -> Self {
        let time = VirtualTime::starting_at(START);
        let clock = Clock::of(Arc::new(MachineTime::new(time.clone())));
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let platform = PlatformModel::new(Switches::default(), Arc::clone(&calm), clock.clone());
        platform.install(TENANT, &webhook::secret(TENANT));
        let cloud = Cloud::new(platform, &calm, &clock, configuration(""));
        let installed = Installed {
            tenant: TenantId::new(TENANT),
            base_url: "https://site.atlassian.net/wiki".to_owned(),
            product: None,
            secret: SecretString::from(webhook::secret(TENANT)),
        };
        let store = cloud.store(&calm, &clock);
        let install = store.install(&installed, MINUTE, START);
        install.now_or_never().unwrap().unwrap();
        cloud.platform.begin(TENANT, TRANSFER, None);
        Self {
            time,
            cloud,
            quota: Arc::new(Mutex::new(quota)),
            fortune: Arc::new(fortune),
            latency,
        }
    }

    /// The server app uploads a file, and its event is queued. No two records have an author in common, so each batch is a look-up.
    fn upload(&self, key: &str, records: usize) {
        self.upload_of(TRANSFER, key, records);
    }

    fn upload_of(&self, transfer: &str, key: &str, records: usize) {
        let mut content = String::new();
        for number in 0..records {
            writeln!(
                content,
                r#"{{"id":"{key}-{number}","author":"{key}-{number}"}}"#
            )
            .unwrap();
        }
        let label = format!("{key}.ndjson");
        self.cloud.platform.upload(transfer, key, &label, content);
        let uploaded = json!({"s3Key": key, "label": label});
        self.tell("app-data-uploaded", transfer, &uploaded);
    }

    fn tell(&self, kind: &str, transfer: &str, more: &serde_json::Value) {
        let event = webhook::event(kind, TENANT, transfer, None, self.time.now(), more);
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let clock = Clock::of(Arc::new(MachineTime::new(self.time.clone())));
        let intake = self.cloud.intake(&calm, &clock);
        let request = webhook::request(TENANT, &event, self.time.now(), Duration::ZERO);
        let answer = intake.answer(&request).now_or_never().unwrap();
        assert_eq!(answer.status, 200);
    }

    fn machine(&self, name: String) -> Arc<Machine> {
        Machine::start(
            name,
            Arc::clone(&self.fortune) as Arc<dyn Fortune>,
            self.time.clone(),
            Trace::off(self.time.clone()),
        )
    }

    fn lifecycle(&self, actor: Actor, machine: &Arc<Machine>, worker: usize) -> Lifecycle {
        let weather: Arc<dyn Weather> = Arc::clone(machine) as Arc<dyn Weather>;
        let site = Site {
            model: self.cloud.platform.clone(),
            quota: Arc::clone(&self.quota),
            time: self.time.clone(),
            latency: self.latency,
            worker,
        };
        let imports = Queue::new(Arc::new(self.cloud.imports.seen_by(Arc::clone(&weather))));
        Lifecycle::new(
            actor,
            self.cloud.store(&weather, &machine.clock()),
            imports,
            Platform::over(Arc::new(site), &self.cloud.configuration),
            Arc::clone(&self.cloud.configuration),
            machine.clock(),
        )
    }

    fn events(&self, machine: &Arc<Machine>) -> Queue {
        let weather: Arc<dyn Weather> = Arc::clone(machine) as Arc<dyn Weather>;
        Queue::new(Arc::new(self.cloud.events.seen_by(weather)))
    }

    /// A worker takes messages, one at a time; when it dies, another takes its place.
    async fn work(self, worker: usize) {
        let mut lives = 0;
        loop {
            lives += 1;
            let machine = self.machine(format!("worker-{worker}-{lives}"));
            let lifecycle = self.lifecycle(Actor::Processor, &machine, worker);
            let processor = Processor::new(lifecycle, self.events(&machine)).unwrap();
            loop {
                let queue = [&self.cloud.events, &self.cloud.imports]
                    .into_iter()
                    .find_map(|queue| Some((queue, queue.deliver(1, VISIBILITY).pop()?)));
                let Some((queue, delivery)) = queue else {
                    self.time.sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let batch = sqs(std::slice::from_ref(&delivery));
                let deadline = machine.clock().now() + PROCESSOR_TIMEOUT;
                let handled = processor.handle(batch, "invocation", deadline);
                match invoke(&machine, PROCESSOR_TIMEOUT, handled).await {
                    Ended::Returned(response) => {
                        if response.batch_item_failures.is_empty() {
                            queue.acknowledge(&delivery.id);
                        }
                    }
                    Ended::Died | Ended::OutOfTime => break,
                }
            }
        }
    }

    async fn sweep(self) {
        let mut sweeps = 0;
        loop {
            self.time.sleep(SWEEP_INTERVAL).await;
            sweeps += 1;
            let machine = self.machine(format!("sweeper-{sweeps}"));
            let dead = [&self.cloud.dead_events, &self.cloud.dead_imports].map(|queue| {
                Queue::new(Arc::new(
                    queue.seen_by(Arc::clone(&machine) as Arc<dyn Weather>),
                ))
            });
            let lifecycle = self.lifecycle(Actor::Sweeper, &machine, usize::MAX);
            let sweeper = Sweeper::new(lifecycle, self.events(&machine), dead.into()).unwrap();
            let deadline = machine.clock().now() + SWEEPER_TIMEOUT;
            invoke(&machine, SWEEPER_TIMEOUT, sweeper.sweep(deadline)).await;
        }
    }

    /// Works with so many workers until that long has passed, or `done` says so.
    fn run(&self, workers: usize, longest: Duration, mut done: impl FnMut(&Self) -> bool) {
        let mut executor = Executor::default();
        for worker in 0..workers {
            executor.spawn(self.clone().work(worker));
        }
        executor.spawn(self.clone().sweep());
        loop {
            executor.run_ready();
            if self.time.now() >= START + longest || done(self) {
                return;
            }
            self.time.advance_to(self.time.next_timer().unwrap());
        }
    }

    fn file(&self, key: &str) -> File {
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let clock = Clock::of(Arc::new(MachineTime::new(self.time.clone())));
        let store = self.cloud.store(&calm, &clock);
        let (tenant, transfer) = (TenantId::new(TENANT), TransferId::new(TRANSFER));
        let file = store.file(&tenant, &transfer, key);
        file.now_or_never().unwrap().unwrap().unwrap()
    }
}

/// What a run came to, from `warm` on.
#[derive(Debug)]
struct Figures {
    used: f64,
    refused: f64,
    /// Calls within a pause that some worker had been told before they were sent.
    inside: usize,
    /// How long after it was told the last of them was sent.
    latest: Duration,
    /// Calls that were on their way when the first worker was told.
    crossed: usize,
    workers: usize,
    calls: usize,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a test run, far below 2^53"
)]
fn figures(world: &World, warm: Timestamp, end: Timestamp) -> Figures {
    let quota = lock(&world.quota);
    let (mut inside, mut crossed, mut latest) = (0, 0, Duration::ZERO);
    let told: Vec<&Asked> = quota
        .asked
        .iter()
        .filter(|a| a.retry_after.is_some())
        .collect();
    for asked in &quota.asked {
        let within = |by: &&&Asked| {
            let until = by.told + by.retry_after.unwrap_or_default();
            asked.arrived > by.arrived && asked.sent < until
        };
        let pauses: Vec<&&Asked> = told.iter().filter(within).collect();
        // The first worker that was told of any of these.
        if let Some(first) = pauses.iter().map(|by| by.told).min() {
            if asked.sent > first {
                inside += 1;
                latest = latest.max(asked.sent.since(first));
            } else {
                crossed += 1;
            }
        }
    }
    let after: Vec<&Asked> = quota
        .asked
        .iter()
        .filter(|asked| asked.arrived >= warm && asked.arrived < end)
        .collect();
    let refused = after.iter().filter(|asked| asked.refused).count();
    let taken = after.len() - refused;
    let could = quota.calls as f64 * end.since(warm).as_secs_f64() / quota.window.as_secs_f64();
    let mut workers: Vec<usize> = after.iter().map(|asked| asked.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    Figures {
        used: taken as f64 / could,
        refused: refused as f64 / after.len() as f64,
        inside,
        latest,
        crossed,
        workers: workers.len(),
        calls: quota.asked.len(),
    }
}

/// Many files at once, on a site that bears so much; workers that could ask for twice that.
fn import(what: &str, quota: Quota, workers: usize, half: Duration) -> Figures {
    let warm = START + 5 * MINUTE;
    let end = START + 15 * MINUTE;
    // More than anybody could import until then.
    let calls = quota.calls * 15 * 60_000 / u64::try_from(quota.window.as_millis()).unwrap();
    let records = usize::try_from(calls).unwrap() * 4 / workers * 11 / 10;
    let world = World::new(quota, Duration::from_millis(100), Steady::new(half, 0, 0));
    for file in 0..workers {
        world.upload(&format!("f{file}"), records);
    }
    world.run(workers, 15 * MINUTE, |_| false);
    let figures = figures(&world, warm, end);
    println!(
        "{what}: {:.1} % of the quota used, {:.2} % of the answers 429 after five minutes, {} calls in all, by {} workers and sweepers; \
         {} within a pause that somebody had been told ({:?} after it), {} on their way when the first was told",
        figures.used * 100.0,
        figures.refused * 100.0,
        figures.calls,
        figures.workers,
        figures.inside,
        figures.latest,
        figures.crossed,
    );
    figures
}

fn assert_good(figures: &Figures) {
    assert!(figures.used >= 0.85, "{figures:?}");
    assert!(figures.refused < 0.01, "{figures:?}");
}

#[test]
fn many_workers_use_most_of_a_hidden_quota_and_none_calls_within_a_pause() {
    let quota = Quota::new(100, Duration::from_secs(10), 0);
    let figures = import("10 a second, in windows of 10 s", quota, 8, Duration::ZERO);
    assert_good(&figures);
    assert_eq!(figures.inside, 0, "{figures:?}");
    assert!(figures.workers >= 6, "{figures:?}");
}

#[test]
fn a_quota_by_the_minute_whose_refusals_name_no_pause_at_times_is_used_as_well() {
    let quota = Quota::new(1_200, MINUTE, 3);
    let figures = import(
        "20 a second, by the minute, every third refusal silent",
        quota,
        8,
        Duration::ZERO,
    );
    assert_good(&figures);
    assert_eq!(figures.inside, 0, "{figures:?}");
}

#[test]
fn with_a_table_that_takes_its_time_a_pause_is_known_to_everybody_within_some_calls_of_it() {
    let half = Duration::from_millis(4);
    let quota = Quota::new(100, Duration::from_secs(10), 0);
    let figures = import(
        "the same with 8 ms for each call of the table",
        quota,
        8,
        half,
    );
    assert_good(&figures);
    // Told, read and written there; read here.
    assert!(figures.latest <= 6 * 2 * half, "{figures:?}");
}

#[test]
fn a_file_that_is_stopped_once_in_each_of_fifty_slices_is_finished() {
    // The first worker makes the transfer, takes the file up and dies; each other commits one batch and dies before the next.
    let quota = Quota::new(1_000, MINUTE, 0);
    let world = World::new(quota, QUICK, Steady::new(Duration::ZERO, 51, 3));
    world.upload("f", 4 * 60);
    let ended = |world: &World| world.file("f").state == FileState::Ended;
    world.run(1, Duration::from_hours(24), ended);
    let file = world.file("f");
    assert_eq!(file.outcome, Some(FileOutcome::Imported), "{file:?}");
    assert_eq!(file.counts.read, 240);
    assert_eq!(
        world.fortune.deaths.load(Ordering::Relaxed),
        0,
        "all of them died"
    );
}

#[test]
fn a_file_that_never_gets_any_further_is_poison_after_five_attempts() {
    // The first worker makes the transfer and dies. Five take the file up and die before they commit anything. The next could do it, and doesn't try.
    let quota = Quota::new(1_000, MINUTE, 0);
    let world = World::new(quota, QUICK, Steady::new(Duration::ZERO, 6, 2));
    world.upload("f", 4 * 50);
    let ended = |world: &World| world.file("f").state == FileState::Ended;
    world.run(1, Duration::from_hours(24), ended);
    let file = world.file("f");
    assert!(
        matches!(file.outcome, Some(FileOutcome::Poisoned { .. })),
        "{file:?}"
    );
    assert_eq!(file.counts.read, 0, "{file:?}");
}

#[test]
fn waiting_for_a_site_is_no_attempt_however_often_it_is_waited_for() {
    let mut quota = Quota::new(1_000, MINUTE, 0);
    quota.closed_until = START + 40 * MINUTE;
    let world = World::new(quota, QUICK, Steady::new(Duration::ZERO, 0, 0));
    world.upload("f", 4 * 50);
    let ended = |world: &World| world.file("f").state == FileState::Ended;
    world.run(2, Duration::from_hours(24), ended);
    let file = world.file("f");
    assert_eq!(file.outcome, Some(FileOutcome::Imported), "{file:?}");
    assert_eq!(file.counts.read, 200);
    let quota = lock(&world.quota);
    let refused = quota.asked.iter().filter(|asked| asked.refused).count();
    assert!((30..60).contains(&refused), "once a minute: {refused}");
}

#[test]
fn a_cancelled_transfer_is_settled_in_time_on_a_site_that_asks_for_an_hour_again_and_again() {
    let mut quota = Quota::new(1_000, MINUTE, 0);
    quota.closed_until = START + Duration::from_hours(6);
    quota.longest = Duration::from_hours(1);
    quota.spares_settling = true;
    let world = World::new(quota, QUICK, Steady::new(Duration::ZERO, 0, 0));
    let platform = &world.cloud.platform;
    platform.begin(TENANT, "other", None);
    world.upload("f", 40);
    for file in 0..4 {
        world.upload_of("other", &format!("o{file}"), 40);
    }
    let cancelled_at = START + 30 * MINUTE;
    let mut cancelled = false;
    world.run(4, Duration::from_hours(3), |world| {
        platform.enforce();
        if !cancelled && world.time.now() >= cancelled_at {
            cancelled = true;
            platform.cancel(TRANSFER);
            world.tell("transfer-cancellation-requested", TRANSFER, &json!({}));
        }
        false
    });
    let ended = platform.transfer(TRANSFER).unwrap().ended.unwrap();
    assert_eq!(ended.by, EndedBy::App, "{ended:?}");
    let settle_by = cancelled_at + 45 * MINUTE;
    assert!(ended.at >= settle_by, "it kept to the pause: {ended:?}");
    // Within a pause that somebody was told nobody called, but for what settled and looked.
    let quota = lock(&world.quota);
    let within = |call: &&Asked| {
        let mut told = quota.asked.iter().filter(|by| by.told < call.sent);
        told.any(|by| call.sent < by.told + by.retry_after.unwrap_or_default())
    };
    let within: Vec<Timestamp> = quota.asked.iter().filter(within).map(|a| a.sent).collect();
    assert!((1..=4).contains(&within.len()), "{within:?}");
    assert!(within.iter().all(|sent| *sent >= settle_by), "{within:?}");
}
