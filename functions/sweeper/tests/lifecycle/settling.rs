use std::time::Duration;

use serde_json::json;

use crate::platform::Counting;
use crate::world::{HOUR, MINUTE, World, records};

const DAY: Duration = Duration::from_hours(24);
const MANIFEST_OF_A: &str = r#"{"version":1,"files":[{"label":"a.ndjson"}]}"#;

async fn importable() -> World {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..3)),
            ("m", "export-manifest", MANIFEST_OF_A),
        ],
    );
    world.all_uploaded("t").await;
    world
}

#[tokio::test]
async fn an_exporter_that_died_half_way_is_settled_failed_with_the_reason_and_the_next_step() {
    let world = World::start().await;
    world.begin("t", &[("k", "issues-0001-of-0002.ndjson", &records(0..9))]);
    world.event("listener-triggered", "t", json!({})).await;
    world.all_uploaded("t").await;
    world.work().await;
    world.pass(71 * HOUR, HOUR).await;
    assert!(world.platform.settlements().is_empty());
    let told = world.platform.knobs().calls.last().cloned().unwrap();
    assert!(
        told.message
            .starts_with("Waiting for the server app to upload 1 of 2 files of issues"),
        "{}",
        told.message
    );
    world.pass(2 * HOUR, HOUR).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    let first: String = verdict.message.chars().take(200).collect();
    assert!(
        first.contains("sent nothing since") && first.contains("Re-run"),
        "{first}"
    );
    let explained = world.explain("t").await;
    assert!(
        explained.verdict.starts_with("needs action: the admin"),
        "{}",
        explained.verdict
    );
    let told = explained.timeline.iter().map(|line| line.what.as_str());
    assert!(
        told.clone().any(|what| what.starts_with("decided FAILED")),
        "{:?}",
        told.collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn work_that_never_moves_is_revived_and_then_settled_failed() {
    let world = World::start().await;
    world.platform.knobs().store_down = true;
    world.begin("t", &[("k", "a.ndjson", &records(0..9))]);
    world.all_uploaded("t").await;
    // One attempt a round: the interruptions' own messages are let fall, so that the sweeper has to revive.
    for _ in 0..(5 * 12) {
        world.clock.advance(5 * MINUTE);
        world.sweep().await;
        let messages = world.queues.take("imports");
        world.handle(messages).await;
    }
    assert!(world.platform.settlements().is_empty());
    world.pass(2 * HOUR, 30 * MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    assert!(
        verdict
            .message
            .starts_with("The import made no progress for 6 hours"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn ten_days_are_the_end_however_lively_the_export_is() {
    let world = World::start().await;
    world.begin("t", &[]);
    world.event("listener-triggered", "t", json!({})).await;
    for day in 0..10 {
        let key = format!("k-{day}");
        world.begin(
            "t",
            &[(
                &key,
                &format!("part-{:04}-of-0099.ndjson", day + 1),
                &records(0..2),
            )],
        );
        world.all_uploaded("t").await;
        world.work().await;
        world.pass(DAY, 12 * HOUR).await;
    }
    world.pass(HOUR, MINUTE * 10).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    assert!(
        verdict.message.starts_with("Stopped after 10 days"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn a_settlement_whose_answer_was_lost_is_repeated_and_never_changed() {
    let world = importable().await;
    world
        .platform
        .knobs()
        .next_answers
        .extend([200, 500, 500, 429]);
    world.work().await;
    world.pass(20 * MINUTE, MINUTE).await;
    let settlements = world.platform.settlements();
    assert!(
        settlements
            .iter()
            .all(|call| call.status == "SUCCESS" && call.message == settlements[0].message)
    );
    assert_eq!(world.platform.verdict().status, "SUCCESS");
    assert!(world.transfer("t").await.is_settled());
}

#[tokio::test]
async fn a_platform_that_counts_only_another_percent_gets_the_next_form_of_the_same_verdict() {
    for counting in [Counting::Only(100), Counting::Omitted, Counting::Below100] {
        let world = importable().await;
        world.platform.knobs().counting = counting;
        world.work().await;
        world.pass(10 * MINUTE, MINUTE).await;
        let settlements = world.platform.settlements();
        assert!(
            settlements.iter().all(|call| call.status == "SUCCESS"),
            "{settlements:#?}"
        );
        assert!(
            world.platform.knobs().active.is_empty(),
            "the platform took one of the forms"
        );
        assert!(world.transfer("t").await.is_settled());
    }
}

#[tokio::test]
async fn a_form_that_is_refused_is_followed_by_the_next() {
    let world = importable().await;
    // The report of the first file, then the settlement.
    world.platform.knobs().next_answers.extend([200, 400]);
    world.work().await;
    world.pass(5 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(
        (verdict.status.as_str(), verdict.percent),
        ("SUCCESS", None)
    );
}

#[tokio::test]
async fn a_403_while_the_platform_lists_the_transfer_is_no_settlement() {
    let world = importable().await;
    world.platform.knobs().next_answers.extend([200, 403, 403]);
    world.work().await;
    assert!(!world.transfer("t").await.is_settled());
    world.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(world.platform.verdict().status, "SUCCESS");
}

#[tokio::test]
async fn a_transfer_that_the_platform_settled_by_itself_is_closed_without_a_word() {
    let world = World::start().await;
    world.begin("t", &[]);
    world.event("listener-triggered", "t", json!({})).await;
    world.work().await;
    world.platform.knobs().active.clear();
    world
        .event(
            "transfer-settled",
            "t",
            json!({ "transferStatus": "TIMED_OUT" }),
        )
        .await;
    world.work().await;
    assert!(world.transfer("t").await.is_settled());
    assert!(world.platform.settlements().is_empty());
}

#[tokio::test]
async fn a_listener_error_before_any_file_is_settled_at_once_and_names_the_exception() {
    let world = World::start().await;
    world.begin("t", &[]);
    world.platform.knobs().exception = Some("java.lang.IllegalStateException".to_owned());
    world.event("listener-errored", "t", json!({})).await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    assert!(
        verdict.message.contains("java.lang.IllegalStateException"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn a_listener_error_after_files_imports_what_came_and_is_incomplete() {
    let world = World::start().await;
    world.begin("t", &[("k", "a.ndjson", &records(0..9))]);
    world.platform.knobs().exception = Some("java.lang.IllegalStateException".to_owned());
    world.event("listener-errored", "t", json!({})).await;
    // The event of the file is lost; the platform's list shows it.
    world.work().await;
    world.pass(2 * MINUTE, MINUTE).await;
    assert_eq!(world.platform.verdict().status, "INCOMPLETE");
    assert_eq!(world.target().await.len(), 9);
}

#[tokio::test]
async fn a_cancelled_transfer_is_settled_within_the_hour_and_nothing_is_written_afterwards() {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k-a", "a.ndjson", &records(0..9)),
            ("k-b", "b.ndjson", &records(0..9)),
        ],
    );
    world.uploaded("t", "k-a", "a.ndjson").await;
    world.work().await;
    world.uploaded("t", "k-b", "b.ndjson").await;
    let waiting = world.queues.take("imports");
    world
        .event("transfer-cancellation-requested", "t", json!({}))
        .await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    world.handle(waiting).await;
    assert_eq!(world.target().await.len(), 9);
}

#[tokio::test]
async fn an_uninstalled_tenant_whose_token_is_refused_leaves_nothing_open() {
    let world = World::start().await;
    world.begin("t", &[]);
    world.event("listener-triggered", "t", json!({})).await;
    world.work().await;
    world
        .store
        .uninstall(&crate::world::tenant(), world.clock.now())
        .await
        .unwrap();
    world.platform.knobs().refuses_tokens = true;
    world.pass(HOUR, 5 * MINUTE).await;
    assert!(world.transfer("t").await.is_settled());
}

#[tokio::test]
async fn a_file_that_can_not_be_fetched_tells_the_admin_what_it_waits_for() {
    let world = World::start().await;
    world.platform.knobs().store_down = true;
    world.begin("t", &[("k", "a.ndjson", &records(0..9))]);
    world.all_uploaded("t").await;
    let messages = world.queues.take("imports");
    world.handle(messages).await;
    world.clock.advance(11 * MINUTE);
    world.sweep().await;
    let told = world.platform.knobs().calls.last().cloned().unwrap();
    assert!(
        told.message.starts_with("Waiting since"),
        "{}",
        told.message
    );
    assert!(told.message.contains("because"), "{}", told.message);
}
