use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

use crate::forge_harness::{
    COMPLETED, ForgeWorld, Invocation, SETTLED, TRIGGERED, UPLOADED, opened,
};
use crate::harness::files;

fn no_files() -> Value {
    json!({ "files": [] })
}

fn event<'a>(events: &'a [Invocation], event_type: &str) -> &'a Invocation {
    events.iter().find(|one| one.is(event_type)).unwrap()
}

#[tokio::test]
async fn a_migration_sends_the_documented_events_with_tokens_of_the_installation() {
    let world = ForgeWorld::installed().await;
    let installation = world.done("GET", "sites", Value::Null).await[0].clone();
    let id = world.migrate(files(2)).await;
    world.wait(&id, "delivered").await;
    let events = world.until(4, |_| true).await;
    let types: HashSet<&str> = events
        .iter()
        .map(|one| one.body["eventType"].as_str().unwrap())
        .collect();
    assert_eq!(types, HashSet::from([TRIGGERED, UPLOADED, COMPLETED]));
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["flavour"], &view["state"]),
        (&json!("forge"), &json!("IN_PROGRESS"))
    );

    let uploaded = event(&events, UPLOADED);
    let body = &uploaded.body;
    assert_eq!(uploaded.path, "/vault/forge/events");
    assert_eq!(body["transferId"], id);
    assert!(body["key"].is_string() && body["messageId"].is_string());
    assert!(body["label"].as_str().unwrap().starts_with("part-000"));
    for connect_only in ["cloudAppKey", "s3Key", "originalTransferId"] {
        assert!(body.get(connect_only).is_none(), "{connect_only}");
    }
    let details = &body["migrationDetails"];
    let names: Vec<&str> = details
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        [
            "migrationId",
            "migrationScopeId",
            "name",
            "createdAt",
            "cloudUrl"
        ]
    );
    assert!(event(&events, TRIGGERED).body.get("messageId").is_none());

    let (_, claims, good) = opened(uploaded.fit(), &world.key_set().await);
    assert!(good);
    assert_eq!(
        claims["app"]["installationId"],
        installation["installation_id"]
    );
    let (_, system, _) = opened(uploaded.header("x-forge-oauth-system"), &[]);
    assert!(system["exp"].as_i64().unwrap() > claims["exp"].as_i64().unwrap());
    assert_eq!(uploaded.header("x-b3-spanid").len(), 16);
}

#[tokio::test]
async fn the_envelope_has_three_variants() {
    let world = ForgeWorld::installed().await;
    for (nth, (variant, field)) in [
        ("top_level", None),
        ("event", Some("event")),
        ("payload", Some("payload")),
    ]
    .into_iter()
    .enumerate()
    {
        world
            .switch(json!({ "forge_envelope": variant, "extra_fields": variant == "payload" }))
            .await;
        let id = world.migrate(no_files()).await;
        world.wait(&id, "delivered").await;
        let body = world.until(2 * (nth + 1), |_| true).await[2 * nth]
            .body
            .clone();
        let inner = field.map_or(&body, |field| &body[field]);
        assert_eq!(inner["transferId"], id, "{variant}");
        assert_eq!(body.get("context").is_some(), variant == "payload");
    }
}

#[tokio::test]
async fn an_event_is_sent_five_times_and_then_lost() {
    let world = ForgeWorld::installed().await;
    world.remote.answer_always(503);
    let id = world.migrate(files(1)).await;
    let view = world.wait(&id, "delivered").await;
    for event in view["events"].as_array().unwrap() {
        let delivery = &event["deliveries"][0];
        assert_eq!(delivery["state"], "lost");
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 5);
    }
    let sent = world.until(15, |_| true).await;
    let uploads: Vec<&Invocation> = sent.iter().filter(|one| one.is(UPLOADED)).collect();
    assert!(uploads.iter().all(|one| one.body == uploads[0].body));
    let tokens: HashSet<&str> = uploads.iter().map(|one| one.fit()).collect();
    assert_eq!((uploads.len(), tokens.len()), (5, 5));
    // The file of the lost event is there, and its message waits.
    let listed = world
        .call("GET", &format!("data/{id}/page"), Value::Null)
        .await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(world.transfer(&id).await["forge"]["open"], 1);
}

#[tokio::test]
async fn an_answer_of_the_wrong_form_or_too_late_is_none() {
    let world = ForgeWorld::installed().await;
    world.remote.answer_next(&[
        (200, "text/html"),
        (302, "application/json"),
        (202, "application/json"),
    ]);
    let attempts = async |id: &str| {
        let view = world.wait(id, "delivered").await;
        view["events"][0]["deliveries"][0]["attempts"].clone()
    };
    let mut plan = no_files();
    plan["wait_for_ack"] = true.into();
    let id = world.migrate(plan.clone()).await;
    let answers = attempts(&id).await;
    assert_eq!(
        answers[0]["error"],
        "the content type is not application/json"
    );
    assert_eq!(answers[1]["status"], 302);
    assert_eq!(
        (&answers[2]["status"], answers.as_array().unwrap().len()),
        (&json!(202), 3)
    );
    // By the other reading the form does not matter.
    world
        .switch(json!({ "forge_answer_type_checked": false }))
        .await;
    world.remote.answer_next(&[(200, "text/html")]);
    let id = world.migrate(plan.clone()).await;
    assert_eq!(attempts(&id).await.as_array().unwrap().len(), 1);
    world.switch(json!({ "acknowledge_timeout_ms": 40 })).await;
    world.remote.answer_after(Duration::from_millis(300));
    let id = world.migrate(plan).await;
    assert_eq!(attempts(&id).await[0]["error"], "timed out");
}

#[tokio::test]
async fn faults_lose_double_and_anonymize_forge_events() {
    let world = ForgeWorld::installed().await;
    for rule in [
        json!({ "target": "events", "kind": "drop", "event_type": UPLOADED, "next": 1 }),
        json!({ "target": "events", "kind": "no_message_id", "event_type": UPLOADED, "skip": 1 }),
        json!({ "target": "events", "kind": "duplicate", "copies": 2, "event_type": TRIGGERED }),
    ] {
        world.fault(rule).await;
    }
    let id = world.migrate(files(2)).await;
    let view = world.wait(&id, "delivered").await;
    assert_eq!(view["events"][1]["deliveries"][0]["state"], "dropped");
    let uploads = world.until(1, |one| one.is(UPLOADED)).await;
    assert_eq!(uploads.len(), 1);
    assert!(uploads[0].body.get("messageId").is_none());
    let triggers = world.until(3, |one| one.is(TRIGGERED)).await;
    assert!(triggers.iter().all(|one| one.body == triggers[0].body));
    assert_eq!(world.messages(&id).await.len(), 2);
}

#[tokio::test]
async fn a_listener_error_comes_with_its_trace_and_without_an_end_of_the_export() {
    let world = ForgeWorld::installed().await;
    let mut plan = files(2);
    plan["listener_error"] =
        json!({ "exception_type": "java.lang.IllegalStateException", "after_files": 1 });
    let id = world.migrate(plan).await;
    world.wait(&id, "delivered").await;
    let errored = "avi:ecosystem.migration:errored:listener";
    let body = world.until(1, |one| one.is(errored)).await[0].body.clone();
    let error = &body["transferError"];
    assert_eq!(error["exceptionType"], "java.lang.IllegalStateException");
    assert!(error["safeStackTrace"].is_string());
    assert!(!world.remote.received().iter().any(|one| one.is(COMPLETED)));
    assert_eq!(world.messages(&id).await.len(), 1);
}

#[tokio::test]
async fn preloaded_files_have_an_event_of_their_own_and_a_message() {
    let world = ForgeWorld::installed().await;
    let plan = json!({ "files": [{ "label": "early", "preloaded": true }, { "label": "late" }] });
    let id = world.migrate(plan.clone()).await;
    world.wait(&id, "delivered").await;
    let preloaded = "avi:ecosystem.migration:preloaded:app_data";
    let event = world.until(1, |one| one.is(preloaded)).await.remove(0);
    assert_eq!(event.body["label"], "early");
    assert_eq!(event.body["messageId"], world.messages(&id).await[0]);
    world
        .switch(json!({ "forge_preloaded_event": "avi:ecosystem.migration:preloaded:file" }))
        .await;
    world.migrate(plan).await;
    let renamed = "avi:ecosystem.migration:preloaded:file";
    world.until(1, |one| one.is(renamed)).await;
}

#[tokio::test]
async fn a_rerun_names_the_first_transfer_or_does_not() {
    let world = ForgeWorld::installed().await;
    world
        .switch(json!({ "forge_failed_message": "at_once" }))
        .await;
    let fail = async |id: &str| {
        let messages = world.messages(id).await;
        assert_eq!(world.answer(id, "FAILED", &[&messages[0]]).await, 200);
        assert_eq!(world.state(id).await, "FAILED");
    };
    let rerun = async |id: &str| {
        let path = format!("transfers/{id}/rerun");
        let id = world.done("POST", &path, Value::Null).await["transfer_id"]
            .as_str()
            .unwrap()
            .to_owned();
        world.wait(&id, "exported").await;
        world.wait(&id, "delivered").await;
        id
    };
    let first = world.migrate(files(1)).await;
    fail(&first).await;
    let second = rerun(&first).await;
    let named = world
        .until(3, |one| one.body["transferId"] == second.as_str())
        .await;
    assert!(
        named
            .iter()
            .all(|one| one.body["originalTransferId"] == first.as_str())
    );
    fail(&second).await;
    world
        .switch(json!({ "forge_original_transfer_id": false, "forge_message_id_everywhere": true }))
        .await;
    let third = rerun(&second).await;
    let unnamed = world
        .until(3, |one| one.body["transferId"] == third.as_str())
        .await;
    assert!(unnamed.iter().all(
        |one| one.body.get("originalTransferId").is_none() && one.body["messageId"].is_string()
    ));
}

#[tokio::test]
async fn the_settled_event_carries_the_status_or_does_not_come() {
    let world = ForgeWorld::installed().await;
    let succeed = async || {
        let id = world.migrate(files(1)).await;
        let messages = world.messages(&id).await;
        assert_eq!(world.answer(&id, "SUCCESS", &[&messages[0]]).await, 200);
        let view = world.wait(&id, "delivered").await;
        assert_eq!(view["state"], "SUCCESS");
        id
    };
    let id = succeed().await;
    let settled = world.until(1, |one| one.is(SETTLED)).await.remove(0);
    assert_eq!(settled.body["transferId"], id);
    assert_eq!(settled.body["transferStatus"], "SUCCESS");
    world.switch(json!({ "settled_event": "never" })).await;
    let id = succeed().await;
    let received = world.remote.received();
    assert!(
        !received
            .iter()
            .any(|one| one.is(SETTLED) && one.body["transferId"] == id.as_str())
    );
}

#[tokio::test]
async fn a_site_with_both_apps_takes_the_flavour_that_the_plan_names() {
    let world = ForgeWorld::installed().await;
    let connect = json!({ "site": "acme", "app_base_url": world.remote_url });
    world.done("POST", "install", connect).await;
    for (plan, flavour) in [
        (json!({ "site": "acme" }), "connect"),
        (json!({ "site": "acme", "flavour": "forge" }), "forge"),
    ] {
        let started = world.done("POST", "migrations", plan).await;
        let id = started["transfer_id"].as_str().unwrap();
        assert_eq!(world.transfer(id).await["flavour"], flavour);
    }
    let preloaded = json!({ "site": "acme", "files": [{ "preloaded": true }] });
    let refused = world.control("POST", "migrations", preloaded).await;
    assert_eq!(refused.status, 409);
    world
        .done("POST", "forge/uninstall", json!({ "site": "acme" }))
        .await;
    let gone = json!({ "site": "acme", "flavour": "forge" });
    assert_eq!(world.control("POST", "migrations", gone).await.status, 409);
}
