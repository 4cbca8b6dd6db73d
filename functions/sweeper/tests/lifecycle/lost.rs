use std::time::Duration;

use landfall_tracking::{Claim, EventRow, NewFile};
use landfall_transfer::TransferId;
use serde_json::json;

use crate::world::{HOUR, MINUTE, World, records, tenant};

const MANIFEST_OF_A: &str = r#"{"version":1,"files":[{"label":"a.ndjson"}]}"#;

/// What intake wrote, without the message that it sent.
async fn announce(world: &World, key: &str, label: &str) {
    let event = json!({ "eventType": "app-data-uploaded", "transferId": "t", "s3Key": key, "label": label });
    let file = NewFile {
        tenant: tenant(),
        transfer: TransferId::new("t"),
        s3_key: key.to_owned(),
        label: Some(label.to_owned()),
        event: Some(event.to_string()),
        message_id: None,
        received_at: world.clock.now(),
    };
    world.store.announce(&file, 2 * MINUTE).await.unwrap();
}

#[tokio::test]
async fn a_file_whose_message_was_lost_is_queued_again() {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..9)),
            ("m", "export-manifest", MANIFEST_OF_A),
        ],
    );
    for (key, label) in [("k", "a.ndjson"), ("m", "export-manifest")] {
        announce(&world, key, label).await;
    }
    world.pass(4 * MINUTE, MINUTE).await;
    assert_eq!(world.platform.verdict().status, "SUCCESS");
}

/// Messages that an hour of sweeps adds for so many files that wait for their turn.
async fn added_in_an_hour(files: usize) -> usize {
    let world = World::start().await;
    for number in 0..files {
        announce(&world, &format!("k-{number}"), "a.ndjson").await;
    }
    let mut added = 0;
    for _ in 0..30 {
        world.clock.advance(2 * MINUTE);
        world.sweep().await;
        added += world.queues.take("imports").len();
    }
    added
}

#[tokio::test]
async fn what_may_be_lost_is_revived_at_its_usual_pace_and_a_long_line_is_hardly_made_longer() {
    let few = added_in_an_hour(20).await;
    assert!((20 * 25..=20 * 30).contains(&few), "{few}");
    let many = added_in_an_hour(240).await;
    assert!((240..=240 * 20).contains(&many), "{many}");
}

#[tokio::test]
async fn a_long_line_of_files_keeps_no_event_waiting_whose_message_was_lost() {
    let world = World::start().await;
    for number in 0..240 {
        announce(&world, &format!("k-{number}"), "a.ndjson").await;
    }
    world.clock.advance(MINUTE);
    // Behind the files, in each partition of the index.
    for number in 0..20 {
        let event = EventRow {
            tenant: tenant(),
            transfer: Some(TransferId::new("t")),
            message_id: format!("m-{number}"),
            event_type: "listener-triggered".to_owned(),
            body: json!({ "eventType": "listener-triggered", "transferId": "t" }).to_string(),
            received_at: world.clock.now(),
        };
        world.store.record_event(&event, 2 * MINUTE).await.unwrap();
    }
    for _ in 0..5 {
        world.clock.advance(2 * MINUTE);
        world.sweep().await;
        assert_eq!(world.queues.take("events").len(), 20);
    }
}

#[tokio::test]
async fn a_transfer_of_which_no_event_ever_came_is_adopted_with_its_files() {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..9)),
            ("m", "export-manifest", MANIFEST_OF_A),
        ],
    );
    world.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(world.platform.verdict().status, "SUCCESS");
    assert_eq!(world.target().await.len(), 9);
}

#[tokio::test]
async fn a_file_that_was_never_announced_is_adopted_before_the_verdict() {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k-a", "a.ndjson", &records(0..9)),
            ("k-b", "b.ndjson", &records(0..4)),
        ],
    );
    world.uploaded("t", "k-a", "a.ndjson").await;
    world.work().await;
    world.pass(26 * HOUR, HOUR).await;
    assert_eq!(world.platform.verdict().status, "SUCCESS");
    assert_eq!(world.target().await.len(), 13);
}

#[tokio::test]
async fn a_listener_error_whose_event_was_lost_is_found_at_the_next_comparison() {
    let world = World::start().await;
    world.begin("t", &[("k", "a.ndjson", &records(0..9))]);
    world.all_uploaded("t").await;
    world.work().await;
    world.platform.knobs().exception = Some("com.example.ExportException".to_owned());
    world.pass(7 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    assert!(
        verdict.message.contains("com.example.ExportException"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn a_cancellation_whose_event_was_lost_is_found_in_the_platforms_list() {
    let world = World::start().await;
    world.begin("t", &[]);
    world.event("listener-triggered", "t", json!({})).await;
    world.work().await;
    world
        .platform
        .knobs()
        .active
        .insert("t".to_owned(), "CANCELLATION_REQUESTED".to_owned());
    world.pass(10 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    assert!(
        verdict.message.starts_with("Cancelled as requested."),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn a_file_whose_worker_died_is_taken_over_and_finished() {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..9)),
            ("m", "export-manifest", MANIFEST_OF_A),
        ],
    );
    world.uploaded("t", "m", "export-manifest").await;
    world.work().await;
    world.uploaded("t", "k", "a.ndjson").await;
    let messages = world.queues.take("imports");
    // A worker that takes the file up and is never heard of again, its message with it.
    let file = NewFile {
        tenant: tenant(),
        transfer: TransferId::new("t"),
        s3_key: "k".to_owned(),
        label: Some("a.ndjson".to_owned()),
        event: None,
        message_id: None,
        received_at: world.clock.now(),
    };
    world.store.announce(&file, 2 * MINUTE).await.unwrap();
    let claim = world
        .store
        .claim(
            &tenant(),
            &TransferId::new("t"),
            "k",
            "dead worker",
            Duration::from_secs(90),
            world.clock.now(),
        )
        .await
        .unwrap();
    assert!(matches!(claim, Claim::Claimed(_)));
    drop(messages);
    world.pass(5 * MINUTE, MINUTE).await;
    assert_eq!(world.platform.verdict().status, "SUCCESS");
    assert_eq!(world.target().await.len(), 9);
}

#[tokio::test]
async fn dead_lettered_work_becomes_a_verdict_with_a_reason() {
    let world = World::start().await;
    world.begin("t", &[("k", "a.ndjson", &records(0..9))]);
    world.uploaded("t", "k", "a.ndjson").await;
    for sent in world.queues.take("imports") {
        world.queues.put("dead-imports", &sent.body);
    }
    world.pass(2 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    assert!(verdict.message.contains("a.ndjson"), "{}", verdict.message);
    assert!(world.queues.is_empty("dead-imports"));
}

#[tokio::test]
async fn a_dead_letter_that_nobody_can_read_stays_and_holds_nothing_up() {
    let world = World::start().await;
    world.queues.put("dead-imports", "not a message");
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..9)),
            ("m", "export-manifest", MANIFEST_OF_A),
        ],
    );
    world.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(world.platform.verdict().status, "SUCCESS");
    assert_eq!(world.queues.len("dead-imports"), 1);
}

#[tokio::test]
async fn a_listed_transfer_that_names_another_tenant_is_not_adopted() {
    let world = World::start().await;
    world.begin("t", &[("k", "a.ndjson", &records(0..9))]);
    world.platform.knobs().listed_as = Some("another-tenant".to_owned());
    world.pass(30 * MINUTE, MINUTE).await;
    let known = world
        .store
        .transfer(&tenant(), &TransferId::new("t"))
        .await
        .unwrap();
    assert!(known.is_none());
    assert!(world.platform.knobs().calls.is_empty());
}

#[tokio::test]
async fn a_list_that_is_empty_by_mistake_ends_no_transfer() {
    let world = World::start().await;
    world.begin("t", &[]);
    world.event("listener-triggered", "t", json!({})).await;
    world.work().await;
    world.platform.knobs().lists_nothing = true;
    world.pass(30 * MINUTE, 5 * MINUTE).await;
    assert!(world.transfer("t").await.is_open());
}
