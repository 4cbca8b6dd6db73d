//! What the ledger and a re-run cost: counted in write units, by the service's own rules, and in calls of the partner's service.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and what it counted"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use landfall_budgets::{Measured as _, budget};
use landfall_clock::Clock;
use landfall_models::{Calm, Weather, Written};
use landfall_runtime::{Configuration, Environment};
use landfall_simulation::cloud::{Cloud, PROCESSOR_TIMEOUT, VISIBILITY};
use landfall_simulation::executor::{MachineTime, VirtualTime};
use landfall_simulation::platform::{PlatformModel, Switches};
use landfall_simulation::webhook;
use landfall_tracking::{Installed, Item, Key, NewFile, Told};
use landfall_transfer::timeline::Actor;
use landfall_transfer::{Counts, TenantId, Timestamp, Transfer, TransferId};
use secrecy::SecretString;
use serde_json::{Value, json};

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);
const TENANT: &str = "tenant-0";

/// The partner's service: takes everything and counts.
#[derive(Debug, Default)]
struct Service {
    calls: AtomicU64,
    records: AtomicU64,
}

async fn take(State(service): State<Arc<Service>>, Json(batch): Json<Value>) -> Json<Value> {
    let results: Vec<Value> = batch["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| json!({"key": record["key"], "outcome": "applied"}))
        .collect();
    service.calls.fetch_add(1, Ordering::Relaxed);
    let records = results.len() as u64;
    service.records.fetch_add(records, Ordering::Relaxed);
    Json(json!({ "results": results }))
}

fn configuration(port: u16) -> Arc<Configuration> {
    let text = format!(
        "version = 1\n[app]\nkey = \"app\"\nbase_url = \"https://app.example.com\"\n\
         [[imports]]\nlabel = \"*\"\nnatural_key = \"/id\"\n\
         [sink]\nkind = \"http\"\nurl = \"http://127.0.0.1:{port}/\"\n"
    );
    let environment = Environment::read(|name| match name {
        "LANDFALL_SECRET_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        "LANDFALL_SINK_SECRET" => {
            Some("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned())
        }
        "LANDFALL_CONFIG" | "LANDFALL_APP_BASE_URL" | "LAMBDA_TASK_ROOT" => None,
        _ => Some("set".to_owned()),
    });
    Arc::new(Configuration::parse(&text, environment.unwrap()).unwrap())
}

/// So many records of some 100 bytes, every `nth` of which says something else than before.
fn export(records: usize, nth: Option<usize>) -> String {
    let mut text = String::with_capacity(records * 110);
    for number in 0..records {
        let changed = nth.is_some_and(|nth| number % nth == nth / 2);
        let title = if changed { "renamed" } else { "as it was" };
        writeln!(
            text,
            r#"{{"id":{number},"title":"{title}","text":"lorem ipsum dolor sit amet consetetur sadipscing elitr"}}"#
        )
        .unwrap();
    }
    text
}

/// What an attempt costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    calls: u64,
    records: u64,
    write_units: u64,
}

struct World {
    cloud: Cloud,
    clock: Clock,
    calm: Arc<dyn Weather>,
    service: Arc<Service>,
}

impl World {
    async fn start() -> Self {
        let service = Arc::new(Service::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new()
            .route("/", post(take))
            .with_state(Arc::clone(&service));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let time = VirtualTime::starting_at(START);
        let clock = Clock::of(Arc::new(MachineTime::new(time)));
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let platform = PlatformModel::new(Switches::default(), Arc::clone(&calm), clock.clone());
        platform.install(TENANT, &webhook::secret(TENANT));
        let cloud = Cloud::new(platform, &calm, &clock, configuration(port));
        let installed = Installed {
            tenant: TenantId::new(TENANT),
            base_url: "https://site.atlassian.net/wiki".to_owned(),
            product: None,
            secret: SecretString::from(webhook::secret(TENANT)),
        };
        let store = cloud.store(&calm, &clock);
        let overlap = std::time::Duration::from_mins(10);
        store.install(&installed, overlap, START).await.unwrap();
        Self {
            cloud,
            clock,
            calm,
            service,
        }
    }

    /// Imports one file as an attempt of the chain `first`.
    async fn attempt(&self, id: &str, content: String) -> (Counts, Cost) {
        let original = (id != "first").then_some("first");
        self.cloud.platform.begin(TENANT, id, original);
        let key = format!("{id}-file");
        let label = "issues.ndjson";
        assert!(self.cloud.platform.upload(id, &key, label, content));
        let (tenant, transfer) = (TenantId::new(TENANT), TransferId::new(id));
        let store = self.cloud.store(&self.calm, &self.clock);
        let clocks = &self.cloud.configuration.clocks;
        let original = original.map(TransferId::new);
        // A later attempt is seen later.
        let seen = START + std::time::Duration::from_secs(id.len() as u64);
        let first_seen =
            Transfer::first_seen(tenant.clone(), transfer.clone(), original, None, seen);
        store
            .create(&first_seen, &Told::nothing(), clocks)
            .await
            .unwrap();
        let file = NewFile {
            tenant: tenant.clone(),
            transfer: transfer.clone(),
            s3_key: key.clone(),
            label: Some(label.to_owned()),
            event: None,
            message_id: None,
            received_at: START,
        };
        let grace = std::time::Duration::from_mins(2);
        store.announce(&file, grace).await.unwrap();
        let before = (
            self.service.calls.load(Ordering::Relaxed),
            self.service.records.load(Ordering::Relaxed),
            self.cloud.table.meter().write_units,
        );
        let lifecycle = self
            .cloud
            .lifecycle(Actor::Processor, &self.calm, &self.clock);
        let now = std::time::Duration::ZERO;
        let queued = lifecycle.queue_import(&tenant, &transfer, &key, now).await;
        queued.unwrap();
        let delivered = self.cloud.imports.deliver(1, VISIBILITY);
        let batch = json!({ "Records": [{ "messageId": "m", "body": delivered[0].body }] });
        let batch = serde_json::from_value(batch).unwrap();
        let deadline = self.clock.now() + PROCESSOR_TIMEOUT;
        let processor = self.cloud.processor(&self.calm, &self.clock);
        let answer = processor.handle(batch, "invocation", deadline).await;
        assert!(answer.batch_item_failures.is_empty());
        let file = store.file(&tenant, &transfer, &key).await.unwrap().unwrap();
        assert_eq!(file.outcome, Some(landfall_transfer::FileOutcome::Imported));
        let cost = Cost {
            calls: self.service.calls.load(Ordering::Relaxed) - before.0,
            records: self.service.records.load(Ordering::Relaxed) - before.1,
            write_units: self.cloud.table.meter().write_units - before.2,
        };
        (file.counts, cost)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's size is a variable")]
fn how_many() -> usize {
    std::env::var("RECORDS").map_or(100_000, |records| records.parse().unwrap())
}

#[tokio::test]
async fn a_hundred_records_cost_a_write_unit_and_a_re_run_of_a_million_two_percent_of_the_first() {
    let records = how_many();
    let world = World::start().await;
    let (counts, first) = world.attempt("first", export(records, None)).await;
    println!("first attempt, {records} records: {first:?}");
    assert_eq!(counts.applied, records as u64);
    assert_eq!(first.records, records as u64);
    // The ledger, the checkpoints, and what a file costs that has no record at all.
    let (_, empty) = world.attempt("nothing", String::new()).await;
    let ledger = first.write_units - empty.write_units;
    println!(
        "a file without records: {empty:?}; a hundred records: {:.3} write units",
        {
            #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
            let each = ledger as f64 / records as f64 * 100.0;
            each
        }
    );
    let commits = (records as u64).div_ceil(1_100);
    let checkpoints = (commits.in_units() * budget("rerun.checkpoint_units").at_most()).floor();
    let hundreds = (records as u64 / 100).in_units();
    budget("rerun.ledger_units_of_100_records").holds((ledger.in_units() - checkpoints) / hundreds);

    let nth = records / 100;
    let (counts, again) = world.attempt("another", export(records, Some(nth))).await;
    println!("re-run, 100 of them changed: {again:?}");
    assert_eq!(
        (counts.applied, counts.unchanged),
        (100, records as u64 - 100)
    );
    assert_eq!(again.records, 100);
    assert!(
        again.calls * 50 < first.calls || again.calls <= 2,
        "{again:?} {first:?}"
    );
    let rewritten = (again.write_units - empty.write_units).in_units() / ledger.in_units();
    budget("rerun.of_unchanged_in_percent").holds(rewritten * 100.0);
    let (counts, third) = world
        .attempt("and another", export(records, Some(nth)))
        .await;
    println!("another re-run, nothing changed: {third:?}");
    assert_eq!((counts.applied, counts.unchanged), (0, records as u64));
    assert_eq!(third.calls, 0);
}

#[tokio::test]
async fn a_files_row_is_written_when_it_is_announced_when_it_is_taken_up_and_when_it_ends() {
    let world = World::start().await;
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let count = move |rows: &[Written], _: &BTreeMap<Key, Arc<Item>>| {
        let of_files = rows.iter().filter(|row| row.key.sort.starts_with("FILE#"));
        counter.fetch_add(of_files.count() as u64, Ordering::Relaxed);
    };
    world.cloud.table.watch(Arc::new(count));
    let (counts, _) = world.attempt("first", export(10, None)).await;
    assert_eq!(counts.applied, 10);
    assert_eq!(written.load(Ordering::Relaxed), 3);
}
