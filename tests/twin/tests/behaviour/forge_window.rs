use serde_json::{Value, json};

use crate::forge_harness::{ForgeWorld, SETTLED};
use crate::harness::files;

const MINUTE: i64 = 60_000;

/// One more file, late.
async fn upload(world: &ForgeWorld, id: &str) {
    let file = json!({ "records": 1 });
    world
        .done("POST", &format!("transfers/{id}/upload"), file)
        .await;
}

#[tokio::test]
async fn a_transfer_times_out_after_15_minutes_in_which_nothing_reset_the_window() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(2)).await;
    let forge = world.transfer(&id).await["forge"].clone();
    let number = |name: &str| forge[name].as_i64().unwrap();
    assert_eq!(
        number("deadline_ms") - number("window_start_ms"),
        15 * MINUTE
    );
    assert_eq!(forge["export_completed"], "explicit");
    world.minutes(14).await;
    let messages = world.messages(&id).await;
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[1]]).await, 200);
    world.minutes(14).await;
    assert_eq!(world.state(&id).await, "IN_PROGRESS");
    world.minutes(1).await;
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["state"], &view["settled_by"]),
        (&json!("TIMED_OUT"), &json!("platform"))
    );
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[0]]).await, 409);
    let settled = world.until(1, |one| one.is(SETTLED)).await.remove(0);
    assert_eq!(settled.body["transferStatus"], "TIMED_OUT");
    assert_eq!(view["forge"]["longest_silence_ms"], 15 * MINUTE);
    assert!(view["rerun_refused_because"].is_string());
}

#[tokio::test]
async fn an_upload_pushes_the_window_out_and_a_failed_answer_only_if_told_so() {
    for (resets, state) in [(false, "TIMED_OUT"), (true, "IN_PROGRESS")] {
        let world = ForgeWorld::installed().await;
        world
            .switch(json!({ "forge_failed_resets_window": resets }))
            .await;
        let id = world.migrate(files(1)).await;
        world.minutes(10).await;
        upload(&world, &id).await;
        world.minutes(10).await;
        let messages = world.messages(&id).await;
        assert_eq!(world.answer(&id, "FAILED", &[&messages[1]]).await, 200);
        world.minutes(10).await;
        assert_eq!(world.state(&id).await, state);
    }
}

#[tokio::test]
async fn by_another_reading_each_message_has_a_window_of_its_own() {
    let world = ForgeWorld::installed().await;
    world.switch(json!({ "forge_window": "per_message" })).await;
    let id = world.migrate(files(1)).await;
    world.minutes(10).await;
    upload(&world, &id).await;
    let messages = world.messages(&id).await;
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[1]]).await, 200);
    world.minutes(5).await;
    let view = world.transfer(&id).await;
    assert_eq!(view["state"], "TIMED_OUT");
    assert_eq!(view["forge"]["longest_open_ms"], 15 * MINUTE);
}

#[tokio::test]
async fn by_a_third_reading_the_window_waits_for_the_end_of_the_export() {
    let world = ForgeWorld::installed().await;
    world
        .switch(json!({
            "forge_window": "after_export", "forge_export_completed": "implicit",
        }))
        .await;
    let id = world.migrate(files(1)).await;
    world.minutes(14).await;
    assert_eq!(
        world.transfer(&id).await["forge"]["deadline_ms"],
        Value::Null
    );
    // At 15 the export is taken as complete, at 30 the window is over.
    world.minutes(15).await;
    let view = world.transfer(&id).await;
    assert_eq!(view["state"], "IN_PROGRESS");
    assert_eq!(view["forge"]["export_completed"], "implicit");
    world.minutes(1).await;
    assert_eq!(world.state(&id).await, "TIMED_OUT");
}

#[tokio::test]
async fn the_state_after_the_window_is_a_switch_and_failed_can_be_run_again() {
    let world = ForgeWorld::installed().await;
    world
        .switch(json!({ "forge_expired_state": "failed" }))
        .await;
    let id = world.migrate(files(1)).await;
    world.minutes(15).await;
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["state"], &view["rerun_refused_because"]),
        (&json!("FAILED"), &Value::Null)
    );
}

#[tokio::test]
async fn progress_is_computed_from_the_answers_and_ends_with_them() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(4)).await;
    let messages = world.messages(&id).await;
    let mut seen = vec![world.transfer(&id).await["percent"].clone()];
    for message in &messages {
        assert_eq!(world.answer(&id, "SUCCESS", &[message]).await, 200);
        seen.push(world.transfer(&id).await["percent"].clone());
    }
    assert_eq!(seen, [1, 25, 50, 75, 100]);
    let view = world.wait(&id, "settled").await;
    assert_eq!(
        (&view["state"], &view["settled_by"]),
        (&json!("SUCCESS"), &json!("platform"))
    );
    assert_eq!(view["message"], "4 of 4 files are processed");
}

#[tokio::test]
async fn without_a_word_the_export_is_complete_15_minutes_after_the_last_upload() {
    let world = ForgeWorld::installed().await;
    world
        .switch(json!({ "forge_export_completed": "implicit" }))
        .await;
    let id = world.migrate(files(1)).await;
    let messages = world.messages(&id).await;
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[0]]).await, 200);
    world.minutes(14).await;
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["state"], &view["percent"]),
        (&json!("IN_PROGRESS"), &json!(99))
    );
    world.minutes(1).await;
    assert_eq!(world.state(&id).await, "SUCCESS");
}

#[tokio::test]
async fn a_failed_message_fails_its_transfer_at_the_end_or_at_once() {
    for (reading, meanwhile, end) in [
        ("at_end", "IN_PROGRESS", "FAILED"),
        ("incomplete_at_end", "IN_PROGRESS", "INCOMPLETE"),
        ("at_once", "FAILED", "FAILED"),
    ] {
        let world = ForgeWorld::installed().await;
        world
            .switch(json!({ "forge_failed_message": reading }))
            .await;
        let id = world.migrate(files(2)).await;
        let messages = world.messages(&id).await;
        assert_eq!(world.answer(&id, "FAILED", &[&messages[0]]).await, 200);
        assert_eq!(world.state(&id).await, meanwhile, "{reading}");
        world.answer(&id, "SUCCESS", &[&messages[1]]).await;
        assert_eq!(world.state(&id).await, end, "{reading}");
    }
}

#[tokio::test]
async fn a_cancelled_transfer_is_settled_by_the_platform_after_an_hour() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let messages = world.messages(&id).await;
    let force = json!({ "force": true });
    world
        .done("POST", &format!("transfers/{id}/cancel"), force)
        .await;
    let requested = "avi:ecosystem.migration:requested:transfer_cancellation";
    world.until(1, |one| one.is(requested)).await;
    assert_eq!(world.answer(&id, "FAILED", &[&messages[0]]).await, 200);
    world.minutes(59).await;
    assert_eq!(world.state(&id).await, "CANCELLATION_REQUESTED");
    world.minutes(1).await;
    assert_eq!(world.state(&id).await, "CANCELLED");
    assert_eq!(world.answer(&id, "FAILED", &[&messages[0]]).await, 409);
}

#[tokio::test]
async fn a_transfer_without_files_lives_until_its_time_is_up() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(json!({ "files": [] })).await;
    world.minutes(14 * 24 * 60 - 1).await;
    assert_eq!(world.state(&id).await, "IN_PROGRESS");
    world.minutes(1).await;
    assert_eq!(world.state(&id).await, "TIMED_OUT");
}
