//! The table and the queues behind switches: each can work, fail, hang or cut the connection, and each call is counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use landfall_aws::Sqs;
use landfall_embedded::{
    TABLE, access_with, dynamodb_client, serve, store_on, store_reached, tables,
};
use landfall_intake::{Intake, patience};
use landfall_runtime::{Clients, Clock, Configuration, Environment};
use landfall_tracking::{Message, Queue, Store};
use landfall_transfer::Timestamp;

use crate::platform::{FORGE_APP, KeyServer};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);
pub(crate) const BASE_URL: &str = "https://app.example.com/prod/landfall";
pub(crate) const APP_KEY: &str = "com.example.vault.cloud";
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(2_500);
pub(crate) const WRITE_WITHIN: Duration = Duration::from_millis(800);
const SECRET_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How a service behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Works,
    /// Answers 500.
    Fails,
    /// Takes the request and never answers.
    Hangs,
    /// Takes the request and closes the connection.
    Cuts,
}

#[derive(Debug, Default)]
pub(crate) struct Switch {
    mode: Mutex<Mode>,
    calls: Mutex<Vec<String>>,
}

impl Switch {
    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// The names of the calls since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Notes a call; an answer when the service doesn't work.
    async fn pass(&self, headers: &HeaderMap) -> Option<Response> {
        let target = headers["x-amz-target"].to_str().unwrap();
        self.calls
            .lock()
            .unwrap()
            .push(target.rsplit_once('.').unwrap().1.to_owned());
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Works => None,
            Mode::Fails => Some((StatusCode::INTERNAL_SERVER_ERROR, "{}").into_response()),
            Mode::Hangs => std::future::pending().await,
            Mode::Cuts => Some(cut()),
        }
    }
}

/// An answer whose body breaks off at once.
fn cut() -> Response {
    Response::builder()
        .header("content-length", "10")
        .body(axum::body::Body::from_stream(Broken))
        .unwrap()
}

struct Broken;

impl futures_util::Stream for Broken {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }
}

/// A message as the queue took it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) queue: String,
    pub(crate) group: String,
    pub(crate) body: String,
}

pub(crate) struct Cloud {
    pub(crate) table: Arc<Switch>,
    pub(crate) queues: Arc<Switch>,
    pub(crate) clock: Clock,
    pub(crate) keys: KeyServer,
    sent: Arc<Mutex<Vec<Sent>>>,
    direct: aws_sdk_dynamodb::Client,
    direct_url: String,
    table_url: String,
    queues_url: String,
}

#[derive(Clone)]
struct Table {
    switch: Arc<Switch>,
    http: reqwest::Client,
    url: String,
}

async fn table(State(table): State<Table>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(answer) = table.switch.pass(&headers).await {
        return answer;
    }
    let mut request = table.http.post(&table.url).body(body);
    for name in [
        "x-amz-target",
        "content-type",
        "authorization",
        "x-amz-date",
    ] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let kind = [("content-type", "application/x-amz-json-1.0")];
    (status, kind, answer.bytes().await.unwrap()).into_response()
}

#[derive(Clone)]
struct Queues {
    switch: Arc<Switch>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

async fn queues(State(queues): State<Queues>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(answer) = queues.switch.pass(&headers).await {
        return answer;
    }
    let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    queues.sent.lock().unwrap().push(Sent {
        queue: text("QueueUrl").rsplit_once('/').unwrap().1.to_owned(),
        group: text("MessageGroupId"),
        body: text("MessageBody"),
    });
    let kind = [("content-type", "application/x-amz-json-1.0")];
    (kind, r#"{"MessageId":"message-1","MD5OfMessageBody":""}"#).into_response()
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let url = tables().await;
        let direct = dynamodb_client(&url);
        let (table_switch, queues_switch) = (Arc::<Switch>::default(), Arc::<Switch>::default());
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let table_state = Table {
            switch: Arc::clone(&table_switch),
            http: reqwest::Client::new(),
            url: url.clone(),
        };
        let queues_state = Queues {
            switch: Arc::clone(&queues_switch),
            sent: Arc::clone(&sent),
        };
        Self {
            table: table_switch,
            queues: queues_switch,
            clock: Clock::manual(NOW),
            keys: KeyServer::start().await,
            sent,
            direct,
            direct_url: url,
            table_url: serve(Router::new().fallback(table).with_state(table_state)).await,
            queues_url: serve(Router::new().fallback(queues).with_state(queues_state)).await,
        }
    }

    /// A function instance of its own on the same table and queues; `more` goes into the section `[connect]`.
    pub(crate) fn intake_with(&self, more: &str) -> Intake {
        self.intake_of(&format!("key = \"{APP_KEY}\"\n"), more)
    }

    /// An instance of an app that is on Forge too.
    pub(crate) fn intake_on_forge(&self) -> Intake {
        self.intake_with(&self.forge())
    }

    /// An instance of an app that is on Forge alone.
    pub(crate) fn intake_on_forge_alone(&self) -> Intake {
        self.intake_of("", &self.forge())
    }

    fn forge(&self) -> String {
        format!(
            "[forge]\napp = \"{FORGE_APP}\"\nkey_set = \"{}\"\n",
            self.keys.set_url
        )
    }

    fn intake_of(&self, key: &str, more: &str) -> Intake {
        let text = format!(
            "version = 1\n[app]\n{key}base_url = \"{BASE_URL}\"\n\
             [clocks]\nanswer_within = \"{}ms\"\nwrite_within = \"{}ms\"\n\
             [connect]\ninstall_key_server = \"{}\"\n{more}\n\
             [[imports]]\nlabel = \"*\"\n",
            ANSWER_WITHIN.as_millis(),
            WRITE_WITHIN.as_millis(),
            self.keys.url,
        );
        let environment = Environment::read(|name| {
            let value = match name {
                "LANDFALL_SECRET_KEY" => SECRET_KEY,
                "LANDFALL_CONFIG"
                | "LANDFALL_APP_BASE_URL"
                | "LANDFALL_SINK_SECRET"
                | "LANDFALL_SINK_BUCKET" => {
                    return None;
                }
                _ => "set",
            };
            Some(value.to_owned())
        })
        .unwrap();
        let configuration = Configuration::parse(&text, environment).unwrap();
        let patience = patience(configuration.intake);
        let queues = access_with(&self.queues_url, patience);
        let queue = |name: &str| {
            let url = format!("{}/000000000000/{name}", self.queues_url);
            Queue::new(Arc::new(Sqs::new(queues.clone(), url)))
        };
        let table = access_with(&self.table_url, patience);
        let clients = Clients {
            store: store_reached(table),
            events: queue("events"),
            imports: queue("imports"),
            dead_letters: Vec::new(),
        };
        Intake::new(&configuration, clients, self.clock.clone())
    }

    pub(crate) fn intake(&self) -> Intake {
        self.intake_with("")
    }

    /// The table, whatever the switches say.
    pub(crate) fn store(&self) -> Store {
        store_on(&self.direct_url)
    }

    /// Messages since the last look.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }

    /// All rows, whatever the switches say, by partition and sort key.
    pub(crate) async fn rows(&self) -> Vec<HashMap<String, AttributeValue>> {
        let answer = self
            .direct
            .scan()
            .table_name(TABLE)
            .consistent_read(true)
            .send()
            .await
            .unwrap();
        answer.items.unwrap_or_default()
    }

    /// The rows whose sort key begins with `prefix`.
    pub(crate) async fn rows_of(&self, prefix: &str) -> Vec<HashMap<String, AttributeValue>> {
        let rows = self.rows().await;
        rows.into_iter()
            .filter(|row| text(row, "sk").starts_with(prefix))
            .collect()
    }

    /// Forgets the calls and messages so far.
    pub(crate) fn forget(&self) {
        self.table.calls();
        self.queues.calls();
        self.sent();
    }
}

pub(crate) fn text<'a>(row: &'a HashMap<String, AttributeValue>, name: &str) -> &'a str {
    row.get(name)
        .and_then(|value| value.as_s().ok())
        .map_or("", String::as_str)
}

/// The event that a message carries.
pub(crate) fn event_of(sent: &Sent) -> serde_json::Value {
    Message::decode(&sent.body).unwrap();
    let message: serde_json::Value = serde_json::from_str(&sent.body).unwrap();
    serde_json::from_str(message["task"]["event"]["body"].as_str().unwrap()).unwrap()
}
