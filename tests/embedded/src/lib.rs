//! AWS inside a test's own process: DynamoDB (dynoxide) with Landfall's tables, and queues that a test looks into.
//!
//! Both are reached over loopback by what the functions reach AWS with; tables are made, and rows looked at, through the AWS SDK.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]
#![allow(clippy::missing_panics_doc, reason = "it is made for tests")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use dynoxide::Database;
use landfall_aws::{Access, DynamoDb, Sqs};
use landfall_clock::Clock;
use landfall_models::vault;
use landfall_runtime::{Aws, Patience};
use landfall_tracking::{Queue, Store};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Name of the tracking table.
pub const TABLE: &str = "landfall";

/// Name of the records table.
pub const RECORDS_TABLE: &str = "records";

/// Serves on a free loopback port until the test's runtime ends; returns the base URL.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Credentials that nobody checks.
fn credentials() -> Credentials {
    Credentials::new("test", "test", None, None, "test")
}

/// Starts a DynamoDB of the test's own and returns its URL.
pub async fn dynamodb() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(dynoxide::server::serve_with_shutdown(
        listener,
        Database::memory().unwrap(),
        std::future::pending::<()>(),
    ));
    url
}

/// A client of the DynamoDB at `url`.
pub fn dynamodb_client(url: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::from_conf(
        aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials())
            .endpoint_url(url)
            .build(),
    )
}

/// Makes Landfall's two tables, as the template describes them.
pub async fn create_tables(client: &aws_sdk_dynamodb::Client) {
    let attribute = |name: &str, kind: ScalarAttributeType| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(kind)
            .build()
            .unwrap()
    };
    let key = |name: &str, kind: KeyType| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(kind)
            .build()
            .unwrap()
    };
    let due = GlobalSecondaryIndex::builder()
        .index_name("due")
        .key_schema(key("due_shard", KeyType::Hash))
        .key_schema(key("due_at", KeyType::Range))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::KeysOnly)
                .build(),
        )
        .build()
        .unwrap();
    for (name, indexed) in [(TABLE, true), (RECORDS_TABLE, false)] {
        let create = client
            .create_table()
            .table_name(name)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("pk", ScalarAttributeType::S))
            .attribute_definitions(attribute("sk", ScalarAttributeType::S))
            .key_schema(key("pk", KeyType::Hash))
            .key_schema(key("sk", KeyType::Range));
        let create = if indexed {
            create
                .attribute_definitions(attribute("due_shard", ScalarAttributeType::S))
                .attribute_definitions(attribute("due_at", ScalarAttributeType::N))
                .global_secondary_indexes(due.clone())
        } else {
            create
        };
        create.send().await.unwrap();
    }
}

/// How the functions reach what is at `url`: without patience of their own, so that a test sees what happens and not what comes of repeating it.
pub fn access(url: &str) -> Access {
    access_with(url, PATIENCE)
}

/// The same with this much patience.
pub fn access_with(url: &str, patience: Patience) -> Access {
    let aws = Aws {
        region: "eu-central-1".to_owned(),
        access_key_id: "test".to_owned(),
        secret_access_key: SecretString::from("test"),
        session_token: None,
        endpoint: Some(url.to_owned()),
        dynamodb_endpoint: None,
        kms_endpoint: None,
        s3_endpoint: None,
        sqs_endpoint: None,
    };
    Access::new(aws, patience, Clock::system()).unwrap()
}

/// As the functions that work in the background have it, but for the number of attempts.
const PATIENCE: Patience = Patience {
    attempts: 1,
    ..Patience::BACKGROUND
};

/// A DynamoDB with Landfall's tables; returns its URL.
pub async fn tables() -> String {
    let url = dynamodb().await;
    create_tables(&dynamodb_client(&url)).await;
    url
}

/// The table at `url`, as the functions see it.
pub fn table(url: &str) -> Arc<DynamoDb> {
    Arc::new(DynamoDb::new(access(url), TABLE, RECORDS_TABLE))
}

/// The store at `url`.
pub fn store_on(url: &str) -> Store {
    store_reached(access(url))
}

/// The store that is reached like this.
pub fn store_reached(access: Access) -> Store {
    let table = DynamoDb::new(access, TABLE, RECORDS_TABLE);
    Store::new(Arc::new(table), vault(), Clock::system())
}

/// A store on tables of the test's own.
pub async fn store() -> Store {
    store_on(&tables().await)
}

/// A message as a queue took it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Name of the queue.
    pub queue: String,
    /// The message group.
    pub group: String,
    /// The body.
    pub body: String,
    /// How long it was to be hidden.
    pub delay: Duration,
}

/// Queues in memory: what is sent waits until the test takes it, delays are not waited for.
#[derive(Clone, Debug)]
pub struct Queues {
    waiting: Arc<Mutex<VecDeque<Sent>>>,
    url: String,
}

impl Queues {
    /// Starts them.
    pub async fn start() -> Self {
        let waiting = Arc::<Mutex<VecDeque<Sent>>>::default();
        let url = serve(
            Router::new()
                .fallback(answer)
                .with_state(Arc::clone(&waiting)),
        )
        .await;
        Self { waiting, url }
    }

    /// The queue of that name; it needs no creating.
    pub fn queue(&self, name: &str) -> Queue {
        let url = format!("{}/000000000000/{name}", self.url);
        Queue::new(Arc::new(Sqs::new(access(&self.url), url)))
    }

    /// Takes the messages of a queue.
    pub fn take(&self, name: &str) -> Vec<Sent> {
        let mut waiting = lock(&self.waiting);
        let (taken, left) = waiting
            .drain(..)
            .partition(|sent: &Sent| sent.queue == name);
        *waiting = VecDeque::from(left);
        taken
    }

    /// Puts a message into a queue.
    pub fn put(&self, name: &str, body: &str) {
        lock(&self.waiting).push_back(Sent {
            queue: name.to_owned(),
            group: String::new(),
            body: body.to_owned(),
            delay: Duration::ZERO,
        });
    }

    /// How many messages a queue holds.
    pub fn len(&self, name: &str) -> usize {
        lock(&self.waiting)
            .iter()
            .filter(|sent| sent.queue == name)
            .count()
    }

    /// Whether a queue is empty.
    pub fn is_empty(&self, name: &str) -> bool {
        self.len(name) == 0
    }
}

fn lock(waiting: &Mutex<VecDeque<Sent>>) -> MutexGuard<'_, VecDeque<Sent>> {
    waiting.lock().unwrap()
}

/// Speaks as much of the queues' protocol as Landfall uses. A message that is received stays until it is deleted; its
/// receipt is its body, which is unique enough here.
async fn answer(
    State(waiting): State<Arc<Mutex<VecDeque<Sent>>>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    let queue = text("QueueUrl").rsplit_once('/').unwrap().1.to_owned();
    let operation = headers["x-amz-target"]
        .to_str()
        .unwrap()
        .rsplit_once('.')
        .unwrap()
        .1
        .to_owned();
    let answer = match operation.as_str() {
        "SendMessage" => {
            let sent = Sent {
                queue,
                group: text("MessageGroupId"),
                body: text("MessageBody"),
                delay: Duration::from_secs(request["DelaySeconds"].as_u64().unwrap_or(0)),
            };
            lock(&waiting).push_back(sent);
            json!({ "MessageId": "sent", "MD5OfMessageBody": "" })
        }
        "ReceiveMessage" => {
            let waiting = lock(&waiting);
            let messages: Vec<Value> = waiting
                .iter()
                .filter(|sent| sent.queue == queue)
                .take(10)
                .map(|sent| json!({ "MessageId": "received", "ReceiptHandle": sent.body, "Body": sent.body }))
                .collect();
            json!({ "Messages": messages })
        }
        "DeleteMessage" => {
            let receipt = text("ReceiptHandle");
            lock(&waiting).retain(|sent| sent.queue != queue || sent.body != receipt);
            json!({})
        }
        "GetQueueAttributes" => json!({}),
        other => panic!("{other} is not spoken here"),
    };
    (
        [("content-type", "application/x-amz-json-1.0")],
        answer.to_string(),
    )
        .into_response()
}
