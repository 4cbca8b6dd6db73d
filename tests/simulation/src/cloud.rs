//! Landfall's own functions on the models: the same code that is deployed, wired as `main.rs` wires it.

use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use landfall_import::declaration::SinkKind;
use landfall_intake::Intake;
use landfall_lifecycle::{Lifecycle, Platform};
use landfall_models::{QueueModel, TableModel, Weather, vault};
use landfall_runtime::{Clients, Configuration, Environment};
use landfall_sweeper::Sweeper;
use landfall_tracking::{Queue, Store};
use landfall_transfer::clocks::Deployment;
use landfall_transfer::timeline::Actor;

use crate::bucket::BucketModel;
use crate::forge::KeySet;
use crate::platform::PlatformModel;
use crate::target::TargetModel;

/// Key of the app, as its descriptor names it.
pub const APP_KEY: &str = "com.example.vault.cloud";

/// Deliveries of a message before it is a dead letter (infra/template.yaml).
pub const MAX_RECEIVES: u32 = Deployment::DEFAULT.max_receive_count;

/// How long a message that was handed out stays hidden (infra/template.yaml).
pub const VISIBILITY: Duration = Deployment::DEFAULT.imports_visibility;

/// Longest invocation of intake (infra/template.yaml).
pub const INTAKE_TIMEOUT: Duration = Deployment::DEFAULT.intake_timeout;

/// Longest invocation of the processor (infra/template.yaml).
pub const PROCESSOR_TIMEOUT: Duration = Deployment::DEFAULT.processor_timeout;

/// Longest invocation of the sweeper (infra/template.yaml).
pub const SWEEPER_TIMEOUT: Duration = Deployment::DEFAULT.sweeper_timeout;

/// Time between two sweeps (infra/template.yaml).
pub const SWEEP_INTERVAL: Duration = Deployment::DEFAULT.sweep_interval;

/// The processor on the models.
pub type Processor = landfall_processor::Processor<TargetModel, BucketModel>;

/// The table, the queues and the platform of one deployment, and what the partner has.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// The table.
    pub table: TableModel,
    /// Control events.
    pub events: QueueModel,
    /// Files.
    pub imports: QueueModel,
    /// Dead letters of the events.
    pub dead_events: QueueModel,
    /// Dead letters of the files.
    pub dead_imports: QueueModel,
    /// The platform.
    pub platform: PlatformModel,
    /// The partner's bucket, where the configuration needs one.
    pub bucket: BucketModel,
    /// The partner's own target, where the configuration has one.
    pub target: TargetModel,
    /// What `landfall.toml` says.
    pub configuration: Arc<Configuration>,
}

impl Cloud {
    /// An empty deployment; `clock` is the true one.
    pub fn new(
        platform: PlatformModel,
        weather: &Arc<dyn Weather>,
        clock: &Clock,
        configuration: Arc<Configuration>,
    ) -> Self {
        let queue = |name| QueueModel::new(name, clock.clone()).seen_by(Arc::clone(weather));
        let (dead_events, dead_imports) = (queue("dead-events"), queue("dead-imports"));
        Self {
            table: TableModel::under(Arc::clone(weather), clock.clone()),
            events: queue("events").with_dead_letters(dead_events.clone(), MAX_RECEIVES),
            imports: queue("imports").with_dead_letters(dead_imports.clone(), MAX_RECEIVES),
            dead_events,
            dead_imports,
            platform,
            bucket: BucketModel::new(Arc::clone(weather), clock.clone()),
            target: TargetModel::new(Arc::clone(weather)),
            configuration,
        }
    }

    /// The store as a machine sees it.
    pub fn store(&self, weather: &Arc<dyn Weather>, clock: &Clock) -> Store {
        // The index shows by true time, whatever the machine's clock says.
        let table = self.table.seen_by(Arc::clone(weather));
        Store::new(Arc::new(table), vault(), clock.clone())
    }

    fn queue(model: &QueueModel, weather: &Arc<dyn Weather>) -> Queue {
        Queue::new(Arc::new(model.seen_by(Arc::clone(weather))))
    }

    /// The shell around the core, as the processor and the sweeper have it.
    pub fn lifecycle(&self, actor: Actor, weather: &Arc<dyn Weather>, clock: &Clock) -> Lifecycle {
        let platform = self.platform.seen_under(Arc::clone(weather));
        Lifecycle::new(
            actor,
            self.store(weather, clock),
            Self::queue(&self.imports, weather),
            Platform::over(Arc::new(platform), &self.configuration),
            Arc::clone(&self.configuration),
            clock.clone(),
        )
    }

    /// A processor on a machine.
    pub fn processor(&self, weather: &Arc<dyn Weather>, clock: &Clock) -> Arc<Processor> {
        let events = Self::queue(&self.events, weather);
        let has_bucket = self.configuration.environment.sink_bucket.is_some();
        let bucket = has_bucket.then(|| self.bucket.seen_by(Arc::clone(weather)));
        let has_target = self.configuration.import.sink.kind == SinkKind::Custom;
        let target = has_target.then(|| self.target.seen_by(Arc::clone(weather)));
        let lifecycle = self.lifecycle(Actor::Processor, weather, clock);
        let processor = Processor::with(lifecycle, events, bucket, target);
        Arc::new(processor.unwrap_or_else(|unfit| panic!("wire the processor: {unfit}")))
    }

    /// A sweeper on a machine.
    pub fn sweeper(&self, weather: &Arc<dyn Weather>, clock: &Clock) -> Arc<Sweeper> {
        let dead = [&self.dead_events, &self.dead_imports];
        let sweeper = Sweeper::new(
            self.lifecycle(Actor::Sweeper, weather, clock),
            Self::queue(&self.events, weather),
            dead.map(|queue| Self::queue(queue, weather)).into(),
        );
        Arc::new(sweeper.unwrap_or_else(|unfit| panic!("wire the sweeper: {unfit}")))
    }

    /// An intake on a machine.
    pub fn intake(&self, weather: &Arc<dyn Weather>, clock: &Clock) -> Arc<Intake> {
        let clients = Clients {
            store: self.store(weather, clock),
            events: Self::queue(&self.events, weather),
            imports: Self::queue(&self.imports, weather),
            dead_letters: Vec::new(),
        };
        let intake = Intake::new(&self.configuration, clients, clock.clone());
        Arc::new(intake.trusting(Arc::new(KeySet(Arc::clone(weather)))))
    }
}

/// What a `landfall.toml` says to which `extra` is appended.
pub fn configuration(extra: &str) -> Arc<Configuration> {
    let text = configuration_text(extra);
    let environment = Environment::read(|name| match name {
        "LANDFALL_SECRET_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        "LANDFALL_SINK_BUCKET" => extra.contains("\"staged\"").then(|| "bucket".to_owned()),
        "LANDFALL_CONFIG"
        | "LANDFALL_APP_BASE_URL"
        | "LANDFALL_SINK_SECRET"
        | "LAMBDA_TASK_ROOT" => None,
        _ => Some("set".to_owned()),
    })
    .unwrap_or_else(|problems| panic!("read the environment: {problems:?}"));
    let parsed = Configuration::parse(&text, environment);
    Arc::new(parsed.unwrap_or_else(|invalid| panic!("failed to {invalid}")))
}

fn configuration_text(extra: &str) -> String {
    format!(
        "version = 1\n\
         [app]\nkey = \"{APP_KEY}\"\nbase_url = \"https://app.example.com\"\n\
         [limits]\nbatch_records = 4\n\
         [[imports]]\nlabel = \"*\"\nnatural_key = \"/id\"\n\
         [[imports.mappings]]\npointer = \"/author\"\nnamespace = \"identity:user\"\nkey_prefix = \"jira.userkey/\"\non_miss = \"hold\"\n\
         {extra}"
    )
}
