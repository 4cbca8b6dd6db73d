//! A migration in which everything works, on the code of the functions themselves.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_intake::Intake;
use landfall_models::{Call, Delivery, Effect, Fate, Line, Sent, Weather};
use landfall_runtime::{Configuration, Environment, telemetry};
use landfall_simulation::cloud::{
    APP_KEY, Cloud, PROCESSOR_TIMEOUT, Processor, SWEEP_INTERVAL, SWEEPER_TIMEOUT, VISIBILITY,
};
use landfall_simulation::executor::{MachineTime, VirtualTime};
use landfall_simulation::platform::{EndedBy, PlatformModel, Switches};
use landfall_simulation::webhook;
use landfall_sweeper::Sweeper;
use landfall_tracking::{Installed, Key, Value as LandfallValue, Which};
use landfall_transfer::{Clocks, TenantId, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;

use crate::HAPPY;
use crate::counts::{Counts, Function, Imported, Logged, QUEUES, Step};

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

/// A site's client key, as long as the real ones.
pub(crate) const TENANT: &str = "6f2a1c9e-53b7-3d0c-9f14-2b8e7a60c1d5";

/// A transfer's id, as long as the real ones.
pub(crate) const TRANSFER: &str = "b4c8f7d2-1e6a-4f3b-8d90-7a5c2e91f046";

/// The event that the platform sends when a transfer is settled.
pub(crate) const SETTLED: &str = "transfer-settled";

/// Messages of one batch of control events (infra/template.yaml).
const EVENTS_BATCH: usize = 10;

/// Messages of one batch of files (infra/template.yaml).
const IMPORTS_BATCH: usize = 1;

/// Time between two uploads.
const UPLOAD_EVERY: Duration = Duration::from_secs(1);

/// Life of a system token; none is used on Connect.
const TOKEN_LIFE: Duration = Duration::from_hours(4);

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A sink that is compiled in. What it costs in the tables an HTTP sink costs, too, and it needs no network here.
    Outside,
    /// The records table.
    Records,
    /// A bucket.
    Bucket,
}

impl Target {
    /// Its name in `counts.json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Outside => "http",
            Self::Records => "dynamodb",
            Self::Bucket => "s3",
        }
    }

    const fn declared(self) -> &'static str {
        match self {
            Self::Outside => "[sink]\nkind = \"custom\"\n",
            Self::Records => "[sink]\nkind = \"dynamodb\"\n",
            Self::Bucket => "[sink]\nkind = \"s3\"\n",
        }
    }
}

/// A migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// Files, the manifest not among them.
    pub(crate) files: usize,
    /// Records of each.
    pub(crate) records: usize,
    /// Where they go.
    pub(crate) target: Target,
}

/// The sort key of the row of a site's pace.
const PACE: &str = "PACE";

/// Counts the lines that are logged, and their bytes.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Logged>>);

impl Log {
    fn take(&self) -> Logged {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = bytes.strip_suffix(b"\n").unwrap();
        let mut logged = self.0.lock().unwrap();
        logged.lines += 1;
        logged.bytes += line.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what one function calls outside of the tables and queues, and everything else by its operation.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Weather for Tally {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        let name = match call.operation {
            // A site's pace is read and written for calls to it, and not for an event.
            "get" | "write" if call.subject == PACE => format!("pace.{}", call.operation),
            "get" | "get_many" | "query" | "due" | "write" | "transact" => {
                format!("table.{}", call.operation)
            }
            "send" | "receive" | "delete" => format!("{}.{}", call.subject, call.operation),
            "deliver" => "sink.deliver".to_owned(),
            "put_object" | "get_object" | "read_object" | "list_objects" | "begin_upload"
            | "put_part" | "complete_upload" => format!("bucket.{}", call.operation),
            // Pieces of a download that is open; the model's are of its own size.
            "chunk" => return Box::pin(std::future::ready(Fate::Works)),
            other => format!("platform.{other}"),
        };
        *self.0.lock().unwrap().entry(name).or_default() += 1;
        Box::pin(std::future::ready(Fate::Works))
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One deployment with a single instance of each function, warm from its first call on.
pub(crate) struct Deployment {
    time: VirtualTime,
    clock: Clock,
    cloud: Cloud,
    intake: (Arc<Intake>, Arc<Tally>),
    processor: (Arc<Processor>, Arc<Tally>),
    sweeper: (Arc<Sweeper>, Arc<Tally>),
    next_sweep: Timestamp,
    log: Log,
    lines: Dispatch,
    sent: [Sent; 2],
    steps: Vec<Step>,
}

/// A migration that is over.
pub(crate) struct Migrated {
    migration: Migration,
    cloud: Cloud,
    bytes: usize,
    /// Every invocation, in order.
    pub(crate) steps: Vec<Step>,
}

impl Migrated {
    /// What the whole of it comes to.
    pub(crate) fn counts(&self) -> Counts {
        let Migration { files, records, .. } = self.migration;
        Counts {
            imported: Some(Imported {
                files,
                records: files * records,
                bytes: self.bytes,
            }),
            ..self.counts_of(&self.steps)
        }
    }

    /// What one of its files comes to, from its event to its end.
    pub(crate) fn file(&self, number: usize) -> Counts {
        let key = file_key(number);
        let Migration { files, records, .. } = self.migration;
        Counts {
            imported: Some(Imported {
                files: 1,
                records,
                bytes: self.bytes / files,
            }),
            ..self.counts_of(self.steps.iter().filter(|step| step.touches(&key)))
        }
    }

    /// What some invocations come to.
    pub(crate) fn counts_of<'step>(&self, steps: impl IntoIterator<Item = &'step Step>) -> Counts {
        let mut made_by = HashMap::new();
        let lines = self.steps.iter().flat_map(|step| &step.lines);
        for line in lines.filter(|line| line.effect == Effect::Written) {
            made_by.entry(place(line)).or_insert(line.call);
        }
        Counts::of(steps, &|line| {
            if made_by.get(&place(line)) != Some(&line.call) {
                return None;
            }
            let bytes = self.cloud.table.row_bytes(line.which, &line.key)? as u64;
            let row = self.cloud.table.row(&line.key);
            let expires = row.as_ref().and_then(|row| row.get("expires_at"));
            let days = match expires {
                Some(LandfallValue::Number(at)) => (at - START.as_seconds()) / (24 * 3_600),
                _ => 0,
            };
            Some((bytes, u64::try_from(days).unwrap()))
        })
    }
}

fn place(line: &Line) -> (bool, &Key) {
    (line.which == Which::Records, &line.key)
}

fn configuration(migration: &Migration) -> Arc<Configuration> {
    let sink = migration.target.declared();
    let text = format!(
        "version = 1\n[app]\nkey = \"{APP_KEY}\"\nbase_url = \"https://app.example.com\"\n\
         [[imports]]\nlabel = \"*\"\nnatural_key = \"/id\"\n{sink}"
    );
    let environment = Environment::read(|name| match name {
        "LANDFALL_SECRET_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        "LANDFALL_SINK_BUCKET" => (migration.target == Target::Bucket).then(|| "bucket".to_owned()),
        "LANDFALL_CONFIG"
        | "LANDFALL_APP_BASE_URL"
        | "LANDFALL_SINK_SECRET"
        | "LAMBDA_TASK_ROOT" => None,
        _ => Some("set".to_owned()),
    });
    Arc::new(Configuration::parse(&text, environment.unwrap()).unwrap())
}

impl Deployment {
    /// With an app that is installed on one site.
    pub(crate) fn start(migration: &Migration) -> Self {
        let time = VirtualTime::starting_at(START);
        let clock = Clock::of(Arc::new(MachineTime::new(time.clone())));
        let [outside, intake, processor, sweeper] = [(); 4].map(|()| Arc::<Tally>::default());
        let weather = |tally: &Arc<Tally>| Arc::clone(tally) as Arc<dyn Weather>;
        let platform = PlatformModel::new(Switches::default(), weather(&outside), clock.clone());
        platform.install(TENANT, &webhook::secret(TENANT));
        let cloud = Cloud::new(
            platform,
            &weather(&outside),
            &clock,
            configuration(migration),
        );
        let installed = Installed {
            tenant: TenantId::new(TENANT),
            base_url: "https://site.atlassian.net/wiki".to_owned(),
            product: None,
            secret: SecretString::from(webhook::secret(TENANT)),
        };
        let store = cloud.store(&weather(&outside), &clock);
        let install = store.install(&installed, Duration::from_mins(10), START);
        wait_for(&time, install).unwrap();
        cloud.table.keep_account();
        let log = Log::default();
        let writer = log.clone();
        // As much as the template's default of LogLevel makes a function say.
        let lines = telemetry::lines(EnvFilter::new("info"), move || writer.clone());
        Self {
            log,
            lines: Dispatch::new(lines),
            intake: (cloud.intake(&weather(&intake), &clock), intake),
            processor: (cloud.processor(&weather(&processor), &clock), processor),
            sweeper: (cloud.sweeper(&weather(&sweeper), &clock), sweeper),
            next_sweep: START + SWEEP_INTERVAL,
            sent: [Sent::default(); 2],
            steps: Vec::new(),
            time,
            clock,
            cloud,
        }
    }

    /// The whole migration, from its first event to the platform's word that it is settled.
    pub(crate) fn migrate(mut self, migration: Migration) -> Migrated {
        let bytes = self.run(migration);
        self.over(migration, bytes)
    }

    /// The same; its bytes come back.
    fn run(&mut self, migration: Migration) -> usize {
        self.cloud.platform.begin(TENANT, TRANSFER, None);
        self.tell("listener-triggered", &json!({}));
        self.work();
        let mut bytes = 0;
        for number in 0..migration.files {
            self.wait(UPLOAD_EVERY);
            let content = export(number, migration.records);
            bytes += content.len();
            self.upload(&file_key(number), &label(number), content);
            self.work();
        }
        self.wait(UPLOAD_EVERY);
        let file = |number| json!({"label": label(number), "records": migration.records});
        let files: Vec<Value> = (0..migration.files).map(file).collect();
        let manifest = json!({"version": 1, "files": files}).to_string();
        self.upload(&file_key(migration.files), "export-manifest", manifest);
        self.work();
        while !self.is_told_settled() {
            self.wait(SWEEP_INTERVAL);
            self.work();
        }
        self.check_settled();
        bytes
    }

    fn over(self, migration: Migration, bytes: usize) -> Migrated {
        Migrated {
            migration,
            bytes,
            cloud: self.cloud,
            steps: self.steps,
        }
    }

    /// A migration that is over, and as many control events of it as one batch has, which are there at the same time. What comes back is
    /// the work that they make.
    pub(crate) fn burst() -> Counts {
        let mut over = Self::start(&HAPPY);
        over.run(HAPPY);
        let begins = over.steps.len();
        for number in 0..EVENTS_BATCH {
            let more = json!({"status": "SUCCESS"});
            let mut event = webhook::event(SETTLED, TENANT, TRANSFER, None, START, &more);
            event["messageId"] = json!(format!("{number:03}{}", webhook::message_id(&event)));
            over.send(&event, SETTLED);
        }
        over.work();
        let over = over.over(HAPPY, 0);
        assert_eq!(over.steps.len(), begins + EVENTS_BATCH + 1);
        over.counts_of(&over.steps[begins..])
    }

    /// A transfer whose files are all announced, and none of which is taken up.
    pub(crate) fn announced(migration: &Migration) -> Self {
        let mut deployment = Self::start(migration);
        deployment.cloud.platform.begin(TENANT, TRANSFER, None);
        deployment.tell("listener-triggered", &json!({}));
        deployment.work();
        for number in 0..migration.files {
            let content = export(number, migration.records);
            deployment.upload(&file_key(number), &label(number), content);
        }
        deployment
    }

    /// So many transfers that have begun and wait for their first file, each of which is due to be compared with the platform's lists.
    pub(crate) fn open(transfers: usize) -> Self {
        let mut deployment = Self::start(&HAPPY);
        for number in 0..transfers {
            let id = format!("{number:08}-1e6a-4f3b-8d90-7a5c2e91f046");
            deployment.cloud.platform.begin(TENANT, &id, None);
            deployment.tell_of(&id, "listener-triggered", &json!({}));
            deployment.work();
        }
        let due = START + Clocks::default().reconcile_interval + SWEEP_INTERVAL;
        deployment.time.advance_to(due.as_millis());
        deployment
    }

    /// Its time, its services and its clock.
    pub(crate) fn parts(&self) -> (VirtualTime, Cloud, Clock) {
        (self.time.clone(), self.cloud.clone(), self.clock.clone())
    }

    /// The first sweep after the installation, which compares the site with the platform's lists, and the next one, for which nothing is due.
    pub(crate) fn sweep_twice(mut self) -> Migrated {
        self.wait(SWEEP_INTERVAL * 2);
        self.over(HAPPY, 0)
    }

    fn is_told_settled(&mut self) -> bool {
        let Some((_, _, status)) = self.cloud.platform.next_settled() else {
            return false;
        };
        self.tell(SETTLED, &json!({ "status": status }));
        self.work();
        true
    }

    fn check_settled(&self) {
        let transfer = self.cloud.platform.transfer(TRANSFER).unwrap();
        let ended = transfer.ended.unwrap();
        assert_eq!((ended.status.as_str(), ended.by), ("SUCCESS", EndedBy::App));
        let key = Key::new(format!("TRANSFER#{TENANT}#{TRANSFER}"), "STATE");
        let row = self.cloud.table.row(&key).unwrap();
        let settled = LandfallValue::Text("SETTLED".to_owned());
        assert_eq!(row.get("phase"), Some(&settled));
        assert!(self.cloud.events.is_empty() && self.cloud.imports.is_empty());
    }

    fn upload(&mut self, key: &str, label: &str, content: String) {
        assert!(self.cloud.platform.upload(TRANSFER, key, label, content));
        self.tell("app-data-uploaded", &json!({"s3Key": key, "label": label}));
    }

    /// An event of the transfer reaches intake.
    fn tell(&mut self, kind: &str, more: &Value) {
        self.tell_of(TRANSFER, kind, more);
    }

    fn tell_of(&mut self, id: &str, kind: &str, more: &Value) {
        self.send(&webhook::event(kind, TENANT, id, None, START, more), kind);
    }

    fn send(&mut self, event: &Value, kind: &str) {
        let request = webhook::request(TENANT, event, self.clock.now(), TOKEN_LIFE);
        let answer = self.invoke(self.intake.0.answer(&request));
        assert_eq!(answer.status, 200, "{kind}");
        let calls = self.intake.1.take();
        self.note(Function::Intake, kind, calls, None);
    }

    /// The event sources hand out what there is, until there is nothing left.
    fn work(&mut self) {
        loop {
            let events = self.cloud.events.deliver(EVENTS_BATCH, VISIBILITY);
            let imports = self.cloud.imports.deliver(IMPORTS_BATCH, VISIBILITY);
            if events.is_empty() && imports.is_empty() {
                return;
            }
            for (queue, batch) in QUEUES.into_iter().zip([events, imports]) {
                if !batch.is_empty() {
                    self.process(queue, &batch);
                }
            }
        }
    }

    fn process(&mut self, name: &'static str, batch: &[Delivery]) {
        let deadline = self.clock.now() + PROCESSOR_TIMEOUT;
        let handled = self
            .processor
            .0
            .handle(batch_of(batch), "invocation", deadline);
        let answer = self.invoke(handled);
        assert!(answer.batch_item_failures.is_empty());
        let (queue, function) = if name == "events" {
            (&self.cloud.events, Function::Events)
        } else {
            (&self.cloud.imports, Function::Imports)
        };
        for delivery in batch {
            queue.acknowledge(&delivery.id);
        }
        let calls = self.processor.1.take();
        let batch = (name, batch.len() as u64);
        self.note(function, "", calls, Some(batch));
    }

    /// Polls an invocation's work to its end; what it logs is counted.
    fn invoke<T>(&self, work: impl Future<Output = T>) -> T {
        tracing::dispatcher::with_default(&self.lines, || wait_for(&self.time, work))
    }

    /// Time passes, and the sweeper runs every minute of it.
    fn wait(&mut self, duration: Duration) {
        let until = self.clock.now() + duration;
        while self.next_sweep <= until {
            self.time.advance_to(self.next_sweep.as_millis());
            self.next_sweep = self.next_sweep + SWEEP_INTERVAL;
            let deadline = self.clock.now() + SWEEPER_TIMEOUT;
            let swept = self.invoke(self.sweeper.0.sweep(deadline));
            assert_eq!((swept.failed, swept.cut_short), (0, false), "{swept:?}");
            let calls = self.sweeper.1.take();
            self.note(Function::Sweeper, "", calls, None);
        }
        self.time.advance_to(until.as_millis());
    }

    fn note(
        &mut self,
        function: Function,
        about: &str,
        calls: BTreeMap<String, u64>,
        batch_of: Option<(&'static str, u64)>,
    ) {
        let sent = [self.cloud.events.sent(), self.cloud.imports.sent()];
        let before = std::mem::replace(&mut self.sent, sent);
        self.steps.push(Step {
            function,
            about: about.to_owned(),
            calls,
            lines: self.cloud.table.take_account(),
            sent: [sent[0].since(before[0]), sent[1].since(before[1])],
            batch_of,
            logged: self.log.take(),
        });
    }
}

/// Two writes, each of which waits until the other is under way.
#[derive(Debug, Default)]
struct Together(Mutex<u32>);

impl Weather for Together {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        if !matches!(call.operation, "write" | "send") {
            return Box::pin(std::future::ready(Fate::Works));
        }
        *self.0.lock().unwrap() += 1;
        Box::pin(std::future::poll_fn(move |context| {
            if *self.0.lock().unwrap() >= 2 {
                return Poll::Ready(Fate::Works);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// How much time it takes intake to take an event in, if its two writes wait for each other and nothing else takes any.
pub(crate) fn time_of_two_writes_that_wait_for_each_other() -> Duration {
    let deployment = Deployment::start(&HAPPY);
    let weather: Arc<dyn Weather> = Arc::new(Together::default());
    let intake = deployment.cloud.intake(&weather, &deployment.clock);
    let event = webhook::event(
        "listener-triggered",
        TENANT,
        TRANSFER,
        None,
        START,
        &json!({}),
    );
    let request = webhook::request(TENANT, &event, START, TOKEN_LIFE);
    let answer = wait_for(&deployment.time, intake.answer(&request));
    assert_eq!(answer.status, 200);
    deployment.clock.now().since(START)
}

/// A batch as the event source hands it to the processor.
pub(crate) fn batch_of(deliveries: &[Delivery]) -> SqsEvent {
    let record = |one: &Delivery| json!({"messageId": one.id, "body": one.body});
    let records: Vec<Value> = deliveries.iter().map(record).collect();
    serde_json::from_value(json!({ "Records": records })).unwrap()
}

/// The platform's key of a file.
fn file_key(number: usize) -> String {
    format!("{number:08}-5d1e-4c0a-9b7f-3e2d1c0b9a88")
}

fn label(number: usize) -> String {
    format!("pages-{number:05}.ndjson")
}

/// A file's records, of some 300 bytes each.
fn export(file: usize, records: usize) -> String {
    let mut text = String::with_capacity(records * 320);
    for number in 0..records {
        writeln!(
            text,
            r#"{{"id":"{file}-{number:07}","author":"user-{}","title":"as it was","text":"{}"}}"#,
            number % 3,
            "lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam nonumy eirmod "
                .repeat(3)
        )
        .unwrap();
    }
    text
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls a future to its end. Time passes only when it waits for nothing else.
fn wait_for<T>(time: &VirtualTime, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut polls = 0_u32;
    loop {
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return outcome;
        }
        polls += 1;
        // Who wakes itself again and again waits for time, too.
        if !woken.0.swap(false, Ordering::Relaxed) || polls.is_multiple_of(100) {
            let next = time.next_timer();
            time.advance_to(next.expect("it waits for something but time"));
        }
    }
}
