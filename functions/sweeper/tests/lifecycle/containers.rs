//! Ids that are looked up only if they are of this migration's containers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use landfall_processor::NoSink;
use landfall_tracking::{Message, SystemToken, Task};
use landfall_transfer::{FileTotals, TenantId, TransferId};
use serde_json::{Value, json};

use crate::world::{HOUR, MINUTE, World};

const TRANSFER: &str = "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001";

fn installation() -> TenantId {
    TenantId::new("ari:cloud:ecosystem::installation/one")
}

/// A world in which each record's project is one of this migration's, 1 to 3, or the record is refused. The platform has a mapping for every project.
async fn world() -> World {
    of_namespace("jira/classic:project").await
}

async fn of_namespace(namespace: &str) -> World {
    let more = format!(
        "[[imports.mappings]]\npointer = \"/project\"\nnamespace = \"{namespace}\"\nwithin = \"JiraProject\"\n\
         [forge]\napp = \"ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001\"\n\
         api = \"{{platform}}/forge\"\napi_hosts = [\"127.0.0.1\"]\n"
    );
    let world = World::start_with(&more, None::<NoSink>).await;
    world.platform.knobs().projects = vec![1, 2, 3];
    world
}

/// A record of each of these projects.
fn records(projects: std::ops::RangeInclusive<u32>) -> String {
    projects.fold(String::new(), |mut lines, id| {
        writeln!(lines, "{{\"id\":\"r{id}\",\"project\":\"{id}\"}}").unwrap();
        lines
    })
}

/// The platform's calls that ask for containers, without what is the same in all of them.
fn container_calls(world: &World) -> Vec<String> {
    let calls = world.platform.knobs().container_calls.clone();
    let end = |call: String| call.split_once("&pageSize=250").unwrap().1.to_owned();
    calls.into_iter().map(end).collect()
}

/// An event of a file on Forge.
async fn uploaded_on_forge(world: &World) {
    let now = world.clock.now();
    let token = SystemToken {
        token: "system-token".into(),
        good_until: now + 2 * HOUR,
        heard_at: Some(now),
        product_api: None,
    };
    assert!(
        world
            .store
            .keep_token(&installation(), &token)
            .await
            .unwrap()
    );
    let event = json!({
        "eventType": "avi:ecosystem.migration:uploaded:app_data", "transferId": TRANSFER,
        "messageId": "message", "migrationDetails": {}, "key": "k-forge", "label": "b.ndjson",
    });
    let task = Task::Event {
        body: event.to_string(),
        received_at: now,
    };
    let queue = world.queues.queue("imports");
    let message = Message::new(installation(), task);
    queue
        .send(&message, std::time::Duration::ZERO)
        .await
        .unwrap();
    world.work().await;
}

async fn on_forge(world: &World) -> FileTotals {
    world.totals_of(&installation(), TRANSFER).await
}

#[tokio::test]
async fn records_of_this_migration_s_projects_arrive_and_those_of_an_earlier_one_s_are_rejected() {
    let world = world().await;
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson","records":5}]}"#;
    let files = [
        ("k", "a.ndjson", &*records(1..=5)),
        ("m", "export-manifest", manifest),
    ];
    world.begin("t", &files);
    world.all_uploaded("t").await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    let counts = world.totals("t").await.counts;
    assert_eq!((counts.applied, counts.rejected), (3, 2));
    let target = world.target().await;
    assert_eq!(target.len(), 3);
    assert_eq!(
        target["t a.ndjson r3"],
        r#"{"id":"r3","project":"cloud-3"}"#
    );
    assert_eq!(world.exceptions("t").await, [4, 5]);
    let (tenant, id) = (crate::world::tenant(), TransferId::new("t"));
    let page = world.sweeper.exceptions(&tenant, &id, None);
    let first: Value = serde_json::from_str(&page.await.unwrap().lines[0]).unwrap();
    assert_eq!(
        (&first["namespace"], &first["reason"]),
        (
            &json!("jira/classic:project"),
            &json!(
                "jira/classic:project is not asked for \"4\", the id at \"/project\": it is the sourceId of no JiraProject of this migration"
            )
        )
    );
    assert_eq!(container_calls(&world), ["", "&lastEntity=2"]);
}

#[tokio::test]
async fn on_forge_too() {
    let world = world().await;
    world.begin(TRANSFER, &[("k-forge", "b.ndjson", &records(1..=5))]);
    uploaded_on_forge(&world).await;
    let counts = on_forge(&world).await.counts;
    assert_eq!((counts.applied, counts.rejected), (3, 2));
    assert_eq!(container_calls(&world), ["", "&lastEntity=2"]);
}

#[tokio::test]
async fn a_platform_that_lists_no_containers_now_puts_the_file_off_and_nothing_is_lost() {
    let world = world().await;
    world.begin("t", &[("k", "a.ndjson", &records(1..=5))]);
    // As often as one slice asks.
    world.platform.knobs().next_containers.extend([503; 3]);
    world.uploaded("t", "k", "a.ndjson").await;
    let first = world.visible();
    assert_eq!(world.handle(first).await, 0, "the message is done with");
    let totals = world.totals("t").await;
    assert_eq!((totals.known, totals.ended), (1, 0));
    assert_eq!(totals.in_flight, BTreeMap::new(), "nothing is read");
    world.work().await;
    let counts = world.totals("t").await.counts;
    assert_eq!((counts.applied, counts.rejected), (3, 2));
    assert_eq!(container_calls(&world), ["", "", "", "", "&lastEntity=2"]);
}

#[tokio::test]
async fn a_transfer_that_is_over_at_the_platform_is_put_off_until_the_list_says_so() {
    let world = world().await;
    world.begin("t", &[("k", "a.ndjson", &records(1..=5))]);
    world.platform.knobs().active.clear();
    world.uploaded("t", "k", "a.ndjson").await;
    let first = world.visible();
    assert_eq!(world.handle(first).await, 0, "the message is done with");
    assert_eq!(container_calls(&world), [""], "a refusal isn't repeated");
    let totals = world.totals("t").await;
    assert_eq!((totals.known, totals.ended), (1, 0));
    assert_eq!(totals.in_flight, BTreeMap::new(), "nothing is read");
    for _ in 0..10 {
        world.clock.advance(MINUTE);
        world.sweep().await;
    }
    assert!(world.transfer("t").await.is_settled());
    assert!(world.target().await.is_empty());
}

#[tokio::test]
async fn what_earlier_attempts_used_is_no_answer_for_an_id_outside_of_this_migration() {
    // Of these alone earlier attempts are asked. No documented one has ids of containers.
    let world = of_namespace("identity:site-project").await;
    world.begin("t-1", &[("k", "a.ndjson", &records(1..=3))]);
    world.uploaded("t-1", "k", "a.ndjson").await;
    world.work().await;
    assert_eq!(world.totals("t-1").await.counts.applied, 3);
    // Now the platform has no mapping any more, and project 3 isn't part of the migration.
    world.platform.knobs().forgotten = ["1", "2", "3"].map(str::to_owned).into();
    world.platform.knobs().projects = vec![1, 2];
    world.begin("t-2", &[("r", "b.ndjson", &records(1..=3))]);
    let event = json!({ "s3Key": "r", "label": "b.ndjson", "originalTransferId": "t-1" });
    world.event("app-data-uploaded", "t-2", event).await;
    world.work().await;
    let counts = world.totals("t-2").await.counts;
    assert_eq!((counts.read, counts.applied, counts.rejected), (3, 2, 1));
    let target = world.target().await;
    assert!(target.contains_key("t-1 b.ndjson r2") && !target.contains_key("t-1 b.ndjson r3"));
}

#[tokio::test]
async fn two_tenants_whose_transfers_have_one_id_share_neither_containers_nor_mappings() {
    let world = world().await;
    world.begin(TRANSFER, &[("k", "a.ndjson", &records(1..=5))]);
    world.uploaded(TRANSFER, "k", "a.ndjson").await;
    world.work().await;
    assert_eq!(world.totals(TRANSFER).await.counts.applied, 3);
    world.platform.knobs().projects = vec![5];
    world.begin(TRANSFER, &[("k-forge", "b.ndjson", &records(1..=5))]);
    uploaded_on_forge(&world).await;
    let counts = on_forge(&world).await.counts;
    assert_eq!((counts.applied, counts.rejected), (1, 4));
    assert_eq!(container_calls(&world), ["", "&lastEntity=2", ""]);
}
