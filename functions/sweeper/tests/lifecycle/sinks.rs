//! Sinks outside the tables, from a transfer's first event to its settlement.

use landfall_processor::NoSink;
use serde_json::{Value, json};

use crate::world::{MINUTE, World, records};

#[allow(dead_code, reason = "its `main` serves Lambda")]
#[path = "../../../processor/examples/custom_sink.rs"]
mod custom_sink;

use custom_sink::Pages;

#[tokio::test]
async fn the_worked_example_of_a_sink_of_ones_own_imports_a_transfer() {
    let pages = Pages::default();
    let world = World::start_with("[sink]\nkind = \"custom\"\n", Some(pages.clone())).await;
    let content = "{\"id\":1,\"title\":\"a\"}\n{\"id\":2,\"draft\":true}\n{\"id\":3}\n";
    let manifest = r#"{"version":1,"files":[{"label":"pages","records":3}]}"#;
    world.begin(
        "t",
        &[("k", "pages", content), ("m", "export-manifest", manifest)],
    );
    world.all_uploaded("t").await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    assert!(
        verdict.message.contains("1 rejected"),
        "{}",
        verdict.message
    );
    let stored = pages.0.lock().unwrap().clone();
    let stored: Vec<(&str, &str)> = stored
        .iter()
        .map(|((_, key), page)| (key.as_str(), page.as_str()))
        .collect();
    assert_eq!(
        stored,
        [("1", "{\"id\":1,\"title\":\"a\"}"), ("3", "{\"id\":3}")]
    );
    assert!(
        world.target().await.is_empty(),
        "nothing is in the records table"
    );
}

/// A world whose records write in Jira.
async fn jira(declared: &str) -> World {
    let more = format!(
        "[imports.jira]\nid = \"/id\"\nvalue = \"/author\"\n{declared}\n[sink]\nkind = \"jira\"\n"
    );
    World::start_with(&more, None::<NoSink>).await
}

#[tokio::test]
async fn properties_reach_jira_fifty_a_call_for_their_transfer_with_their_ids_replaced() {
    let world = jira("type = \"IssueProperty\"\nkey = \"reviewer\"").await;
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson","records":120}]}"#;
    let files = [
        ("k", "a.ndjson", &*records(0..120)),
        ("m", "export-manifest", manifest),
    ];
    world.begin("t", &files);
    // Neither a stumble nor a throttled call is more than a pause.
    world.platform.knobs().next_writes.extend([503, 429]);
    world.all_uploaded("t").await;
    world.work().await;
    world.pass(2 * MINUTE, MINUTE).await;
    assert!(world.platform.knobs().next_writes.is_empty());
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "SUCCESS", "{}", verdict.message);
    let writes = world.platform.knobs().writes.clone();
    let mut written = Vec::new();
    for (operation, transfer, values) in &writes {
        assert_eq!(
            (operation.as_str(), transfer.as_str()),
            ("properties/IssueProperty", "t")
        );
        let values = values.as_array().unwrap();
        assert!(values.len() <= 50);
        written.extend(values.clone());
    }
    assert_eq!(written.len(), 120);
    let first = json!({"entityId": 0, "key": "reviewer", "value": "cloud-user-0"});
    assert_eq!(written[0], first);
}

#[tokio::test]
async fn a_field_value_that_jira_refuses_is_a_rejected_record_and_the_others_arrive() {
    let world = jira("type = \"StringIssueField\"\nfield = \"/id\"").await;
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson","records":2}]}"#;
    let files = [
        ("k", "a.ndjson", &*records(1..3)),
        ("m", "export-manifest", manifest),
    ];
    world.begin("t", &files);
    world.platform.knobs().next_writes.extend([400, 400]);
    world.all_uploaded("t").await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    let writes = world.platform.knobs().writes.clone();
    let second = json!({
        "_type": "StringIssueField", "issueID": 2, "fieldID": 2, "string": "cloud-user-2",
    });
    let body: Value = json!({ "updateValueList": [second] });
    assert_eq!(writes, [("field".to_owned(), "t".to_owned(), body)]);
}
