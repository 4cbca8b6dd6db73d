//! Transfers on Forge whose records the product's own API takes.

use std::time::Duration;

use landfall_processor::NoSink;
use landfall_tracking::{Message, SystemToken, Task};
use landfall_transfer::{TenantId, TransferId};
use serde_json::{Value, json};

use crate::platform::PRODUCT_API;
use crate::world::{HOUR, MINUTE, World, records};

const TRANSFER: &str = "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001";

fn installation() -> TenantId {
    TenantId::new("ari:cloud:ecosystem::installation/one")
}

/// A world whose records write in Jira, for an app on Forge.
async fn world() -> World {
    let more = "[imports.jira]\ntype = \"IssueProperty\"\nkey = \"reviewer\"\nid = \"/id\"\nvalue = \"/author\"\n\
         [sink]\nkind = \"jira\"\n\
         [forge]\napp = \"ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001\"\n\
         api = \"{platform}/forge\"\napi_hosts = [\"127.0.0.1\"]\n";
    World::start_with(more, None::<NoSink>).await
}

/// The platform calls, with a token that ends so late and perhaps with the address of the product's API.
async fn calls(world: &World, life: Duration, product_api: Option<String>) {
    let now = world.clock.now();
    let token = SystemToken {
        token: "system-token".into(),
        good_until: now + life,
        heard_at: Some(now),
        product_api,
    };
    let kept = world.store.keep_token(&installation(), &token).await;
    assert!(kept.unwrap());
}

async fn event(world: &World, queue: &str, name: &str, more: Value) {
    let mut event = json!({
        "eventType": format!("avi:ecosystem.migration:{name}"), "transferId": TRANSFER,
        "messageId": format!("message-of-{name}"), "migrationDetails": {},
    });
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    let task = Task::Event {
        body: event.to_string(),
        received_at: world.clock.now(),
    };
    let message = Message::new(installation(), task);
    let queue = world.queues.queue(queue);
    queue.send(&message, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn values_wait_until_it_is_known_where_jira_is_called_and_then_reach_it() {
    let world = world().await;
    world.begin(TRANSFER, &[("k", "a.ndjson", &records(0..3))]);
    let uploaded = json!({"key": "k", "label": "a.ndjson"});
    calls(&world, 2 * HOUR, None).await;
    event(&world, "imports", "uploaded:app_data", uploaded).await;
    world.work().await;
    world.pass(MINUTE, MINUTE).await;
    // It was admitted when it came, and is not any more.
    let elsewhere = "https://elsewhere.example.com/ex/jira/site".to_owned();
    calls(&world, 3 * HOUR, Some(elsewhere)).await;
    world.pass(MINUTE, MINUTE).await;
    assert!(world.platform.knobs().writes.is_empty());
    let id = TransferId::new(TRANSFER);
    let stored = world.store.transfer(&installation(), &id).await;
    let transfer = stored.unwrap().unwrap().transfer;
    let totals = world.totals_of(&installation(), TRANSFER).await;
    assert!(transfer.is_open() && (totals.known, totals.ended) == (1, 0));

    let product_api = format!("{}{PRODUCT_API}", world.platform.url);
    calls(&world, 4 * HOUR, Some(product_api)).await;
    event(&world, "events", "completed:export_phase", json!({})).await;
    world.pass(2 * MINUTE, MINUTE).await;
    let writes = world.platform.knobs().writes.clone();
    let values: Vec<Value> = (0..3)
        .map(|id| json!({"entityId": id, "key": "reviewer", "value": format!("cloud-user-{id}")}))
        .collect();
    let operation = "properties/IssueProperty".to_owned();
    assert_eq!(writes, [(operation, TRANSFER.to_owned(), json!(values))]);
    let answered = json!({"status": "SUCCESS", "messageIds": ["message-of-uploaded:app_data"]});
    assert_eq!(world.platform.knobs().answers, [answered]);
}
