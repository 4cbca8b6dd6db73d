//! A table of its own for each test, in this process.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use dynoxide::Database;
use landfall_tracking::{Claim, Claimed, NewFile, Store};
use landfall_transfer::{Clocks, TenantId, Timestamp, Transfer, TransferId};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);
pub(crate) const LEASE: Duration = Duration::from_secs(90);

pub(crate) fn tenant() -> TenantId {
    TenantId::new("tenant")
}

pub(crate) fn id() -> TransferId {
    TransferId::new("transfer-1")
}

pub(crate) fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

pub(crate) async fn client() -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(dynoxide::server::serve_with_shutdown(
        listener,
        Database::memory().unwrap(),
        std::future::pending::<()>(),
    ));
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(format!("http://{address}"))
        .build();
    let client = Client::from_conf(config);
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
    for (name, indexed) in [("landfall", true), ("records", false)] {
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
    client
}

pub(crate) async fn store() -> Store {
    Store::new(client().await, "landfall", "records")
}

pub(crate) async fn open_transfer(store: &Store) -> landfall_tracking::Stored {
    let transfer = Transfer::first_seen(tenant(), id(), None, None, NOW);
    store.create(&transfer, &Clocks::default()).await.unwrap()
}

pub(crate) fn upload(s3_key: &str) -> NewFile {
    NewFile {
        tenant: tenant(),
        transfer: id(),
        s3_key: s3_key.to_owned(),
        label: Some("issues.ndjson".to_owned()),
        event: Some("{}".to_owned()),
        message_id: None,
        received_at: NOW,
    }
}

pub(crate) async fn claim(store: &Store, s3_key: &str, owner: &str, now: Timestamp) -> Claim {
    store
        .claim(
            &tenant(),
            &id(),
            s3_key,
            owner,
            LEASE,
            now,
            &Clocks::default(),
        )
        .await
        .unwrap()
}

pub(crate) async fn claimed(store: &Store, s3_key: &str, owner: &str, now: Timestamp) -> Claimed {
    match claim(store, s3_key, owner, now).await {
        Claim::Claimed(claimed) => *claimed,
        other => panic!("not claimed: {other:?}"),
    }
}
