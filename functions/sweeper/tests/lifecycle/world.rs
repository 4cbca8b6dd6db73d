//! Everything that Landfall is, in one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_embedded::{Queues, RECORDS_TABLE, Sent, dynamodb_client, table, tables};
use landfall_import::ports::Sink;
use landfall_lifecycle::Lifecycle;
use landfall_models::DataKeysModel;
use landfall_processor::{NoSink, Processor};
use landfall_runtime::{Clock, Configuration, Environment};
use landfall_sweeper::{Explanation, Summary, Sweeper};
use landfall_tracking::{Installed, Message, Store, Task, Vault, totals};
use landfall_transfer::timeline::Actor;
use landfall_transfer::{FileTotals, TenantId, Timestamp, Transfer, TransferId};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::platform::Platform;

pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

pub(crate) struct World<K = NoSink> {
    pub(crate) platform: Platform,
    pub(crate) queues: Queues,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// Seals the data keys of the one vault that all functions share here.
    pub(crate) kms: DataKeysModel,
    /// Messages that are hidden for minutes: until when, and what.
    hidden: Mutex<Vec<(Timestamp, Sent)>>,
    client: aws_sdk_dynamodb::Client,
    configuration: Arc<Configuration>,
    processor: Arc<Processor<K>>,
    pub(crate) sweeper: Arc<Sweeper>,
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("tenant")
}

pub(crate) fn records(ids: std::ops::Range<u32>) -> String {
    let lines: Vec<String> = ids
        .map(|id| format!("{{\"id\":\"{id}\",\"author\":\"user-{}\"}}\n", id % 7))
        .collect();
    lines.concat()
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with("", None).await
    }
}

impl<K: Sink> World<K> {
    /// With more in its `landfall.toml`, where `{platform}` stands for the platform's URL, and a sink that is compiled in.
    pub(crate) async fn start_with(more: &str, sink: Option<K>) -> Self {
        let platform = Platform::start().await;
        let text = "version = 1\n[app]\nkey = \"app\"\nbase_url = \"https://app.example.com\"\n\
             [connect]\ntenant_hosts = [\"127.0.0.1\"]\n[downloads]\nhosts = [\"127.0.0.1\"]\n\
             [[imports]]\nlabel = \"*\"\nnatural_key = \"/id\"\n\
             [[imports.mappings]]\npointer = \"/author\"\nnamespace = \"identity:user\"\nkey_prefix = \"jira.userkey/\"\non_miss = \"hold\"\n";
        let environment = Environment::read(|name| match name {
            "LANDFALL_SECRET_KEY" => {
                Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned())
            }
            "LANDFALL_CONFIG"
            | "LANDFALL_APP_BASE_URL"
            | "LANDFALL_SINK_SECRET"
            | "LANDFALL_SINK_BUCKET"
            | "LAMBDA_TASK_ROOT" => None,
            _ => Some("set".to_owned()),
        })
        .unwrap();
        let text = format!("{text}{more}").replace("{platform}", &platform.url);
        let configuration = Arc::new(Configuration::parse(&text, environment).unwrap());
        let url = tables().await;
        let client = dynamodb_client(&url);
        let queues = Queues::start().await;
        let clock = Clock::manual(START);
        let kms = DataKeysModel::new("kms");
        let secret_key = Arc::clone(&configuration.secret_key);
        let vault = Vault::enveloping(secret_key, Arc::new(kms.clone()), clock.clone());
        let store = Store::new(table(&url), Arc::new(vault), Clock::system());
        let installed = Installed {
            tenant: tenant(),
            base_url: format!("{}/site", platform.url),
            product: None,
            secret: SecretString::from("shared secret"),
        };
        store.install(&installed, HOUR, START).await.unwrap();
        let lifecycle = lifecycle(Actor::Processor, &configuration, &store, &queues, &clock);
        let processor = Processor::with(lifecycle, queues.queue("events"), None, sink).unwrap();
        let processor = Arc::new(processor);
        let sweeper = sweeper(
            self::lifecycle(Actor::Sweeper, &configuration, &store, &queues, &clock),
            &queues,
        );
        Self {
            platform,
            queues,
            store,
            clock,
            kms,
            hidden: Mutex::default(),
            client,
            configuration,
            processor,
            sweeper,
        }
    }

    /// Another sweeper on the same table, as when two invocations overlap.
    pub(crate) fn another_sweeper(&self) -> Arc<Sweeper> {
        sweeper(
            lifecycle(
                Actor::Sweeper,
                &self.configuration,
                &self.store,
                &self.queues,
                &self.clock,
            ),
            &self.queues,
        )
    }

    /// The processor's shell on a machine with a clock of its own.
    pub(crate) fn machine_with(&self, clock: &Clock) -> Lifecycle {
        lifecycle(
            Actor::Processor,
            &self.configuration,
            &self.store,
            &self.queues,
            clock,
        )
    }

    /// The platform starts a transfer with these files; nobody is told yet.
    pub(crate) fn begin(&self, id: &str, files: &[(&str, &str, &str)]) {
        let mut knobs = self.platform.knobs();
        knobs.active.insert(id.to_owned(), "IN_PROGRESS".to_owned());
        for (key, label, content) in files {
            knobs
                .files
                .entry(id.to_owned())
                .or_default()
                .push(((*key).to_owned(), (*label).to_owned()));
            knobs
                .contents
                .insert((*key).to_owned(), (*content).to_owned());
        }
    }

    /// An event arrives, as intake would queue it.
    pub(crate) async fn event(&self, event_type: &str, id: &str, more: Value) {
        let mut event = json!({ "eventType": event_type, "cloudAppKey": "app", "transferId": id, "migrationDetails": {} });
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        let queue = if event_type == "app-data-uploaded" {
            "imports"
        } else {
            "events"
        };
        let task = Task::Event {
            body: event.to_string(),
            received_at: self.clock.now(),
        };
        self.queues
            .queue(queue)
            .send(&Message::new(tenant(), task), Duration::ZERO)
            .await
            .unwrap();
    }

    pub(crate) async fn uploaded(&self, id: &str, key: &str, label: &str) {
        self.event(
            "app-data-uploaded",
            id,
            json!({ "s3Key": key, "label": label }),
        )
        .await;
    }

    /// Announces every file that the platform has of a transfer.
    pub(crate) async fn all_uploaded(&self, id: &str) {
        let files = self
            .platform
            .knobs()
            .files
            .get(id)
            .cloned()
            .unwrap_or_default();
        for (key, label) in files {
            self.uploaded(id, &key, &label).await;
        }
    }

    /// The processor works until both queues are empty, or until it has had its chances. Pauses of seconds are over at once.
    pub(crate) async fn work(&self) {
        for _ in 0..40 {
            let messages = self.visible();
            if messages.is_empty() {
                return;
            }
            self.handle(messages).await;
        }
    }

    /// The messages that are hidden get lost.
    pub(crate) fn lose_hidden(&self) {
        self.hidden.lock().unwrap().clear();
    }

    /// Takes the messages of both queues that can be seen now.
    pub(crate) fn visible(&self) -> Vec<Sent> {
        let now = self.clock.now();
        let mut hidden = self.hidden.lock().unwrap();
        let sent = self.queues.take("events").into_iter();
        for sent in sent.chain(self.queues.take("imports")) {
            let pause = if sent.delay < MINUTE {
                Duration::ZERO
            } else {
                sent.delay
            };
            hidden.push((now + pause, sent));
        }
        let all = std::mem::take(&mut *hidden).into_iter();
        let (seen, later) = all.partition(|(from, _)| *from <= now);
        *hidden = later;
        let seen: Vec<(Timestamp, Sent)> = seen;
        seen.into_iter().map(|(_, sent)| sent).collect()
    }

    /// The processor has one go at these messages; what fails is gone, as if its worker had died.
    pub(crate) async fn handle(&self, messages: Vec<Sent>) -> usize {
        self.handle_within(5 * MINUTE, messages).await
    }

    /// The same in an invocation that ends so soon.
    pub(crate) async fn handle_within(&self, time: Duration, messages: Vec<Sent>) -> usize {
        let records: Vec<Value> = messages
            .iter()
            .enumerate()
            .map(|(number, sent)| json!({ "messageId": number.to_string(), "body": sent.body }))
            .collect();
        let batch: SqsEvent = serde_json::from_value(json!({ "Records": records })).unwrap();
        let deadline = self.clock.now() + time;
        self.processor
            .handle(batch, "invocation", deadline)
            .await
            .batch_item_failures
            .len()
    }

    /// What support is told of a transfer.
    pub(crate) async fn explain(&self, id: &str) -> Explanation {
        let transfer = TransferId::new(id);
        self.sweeper.explain(&tenant(), &transfer).await.unwrap()
    }

    /// What became of a transfer, as its receipt says it.
    pub(crate) async fn receipt(&self, id: &str) -> Value {
        let (tenant, id) = (tenant(), TransferId::new(id));
        let receipt = self.sweeper.receipt(&tenant, &id).await;
        let signed = serde_json::to_value(receipt.unwrap()).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap());
        serde_json::from_slice(&payload.unwrap()).unwrap()
    }

    /// The numbers of a transfer's records that did not arrive, as they are listed.
    pub(crate) async fn exceptions(&self, id: &str) -> Vec<u64> {
        let (tenant, id) = (tenant(), TransferId::new(id));
        let (mut records, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.sweeper.exceptions(&tenant, &id, after.as_deref());
            let page = page.await.unwrap();
            for line in &page.lines {
                let line: Value = serde_json::from_str(line).unwrap();
                records.push(line["record"].as_u64().unwrap());
            }
            after = page.next;
            if after.is_none() {
                return records;
            }
        }
    }

    pub(crate) async fn sweep(&self) -> Summary {
        self.sweeper.sweep(self.clock.now() + 5 * MINUTE).await
    }

    /// Time passes as it does in production: a sweep a minute, and the processor at work in between.
    pub(crate) async fn pass(&self, time: Duration, step: Duration) {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            self.clock.advance(step);
            self.sweep().await;
            self.work().await;
        }
    }

    pub(crate) async fn transfer(&self, id: &str) -> Transfer {
        self.store
            .transfer(&tenant(), &TransferId::new(id))
            .await
            .unwrap()
            .unwrap()
            .transfer
    }

    /// What the rows of a transfer's files add up to.
    pub(crate) async fn totals(&self, id: &str) -> FileTotals {
        self.totals_of(&tenant(), id).await
    }

    /// The same of any tenant's.
    pub(crate) async fn totals_of(&self, tenant: &TenantId, id: &str) -> FileTotals {
        let files = self.store.files(tenant, &TransferId::new(id)).await;
        totals(&files.unwrap())
    }

    /// The target: every record by its key.
    pub(crate) async fn target(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut pages = self
            .client
            .scan()
            .table_name(RECORDS_TABLE)
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.unwrap();
            let text = |name: &str| item[name].as_s().unwrap().clone();
            found.insert(
                format!("{} {} {}", text("chain"), text("label"), text("key")),
                text("record"),
            );
        }
        found
    }
}

fn lifecycle(
    actor: Actor,
    configuration: &Arc<Configuration>,
    store: &Store,
    queues: &Queues,
    clock: &Clock,
) -> Lifecycle {
    let platform = landfall_lifecycle::Platform::new(configuration, clock.clone()).unwrap();
    Lifecycle::new(
        actor,
        store.clone(),
        queues.queue("imports"),
        platform,
        Arc::clone(configuration),
        clock.clone(),
    )
}

fn sweeper(lifecycle: Lifecycle, queues: &Queues) -> Arc<Sweeper> {
    let dead = vec![queues.queue("dead-events"), queues.queue("dead-imports")];
    Arc::new(Sweeper::new(lifecycle, queues.queue("events"), dead).unwrap())
}
