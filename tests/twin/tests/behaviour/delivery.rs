use landfall_twin::query_string_hash;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

use crate::harness::{APP_KEY, Received, World, files, opened};

#[tokio::test]
async fn an_event_has_the_documented_envelope_and_a_token_over_its_request() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let events = world.until(2, |one| one.path.ends_with("/events")).await;
    let uploaded = events
        .iter()
        .find(|one| one.event_type() == "app-data-uploaded")
        .unwrap();
    let body = &uploaded.body;
    assert_eq!(body["cloudAppKey"], APP_KEY);
    assert_eq!(body["transferId"], id);
    assert_eq!(body["label"], "part-0001-of-0001.ndjson");
    assert!(body["s3Key"].is_string() && body["messageId"].is_string());
    assert!(body.get("originalTransferId").is_none());
    let details = &body["migrationDetails"];
    assert_eq!(details["confluenceClientKey"], "unknown");
    assert_eq!(details["createdAt"].to_string().len(), 13);

    let site = &world.done("GET", "sites", Value::Null).await[0];
    let (header, claims) = opened(&uploaded.token(), site["shared_secret"].as_str());
    assert_eq!(header["alg"], "HS256");
    assert_eq!(claims["iss"], site["client_key"]);
    assert_eq!(claims["iss"], details["jiraClientKey"]);
    assert_eq!(claims["qsh"], query_string_hash("POST&/connect/events&"));
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        180
    );
}

#[tokio::test]
async fn an_event_is_sent_again_with_a_new_token_until_it_is_answered_200() {
    let world = World::installed().await;
    world.app.answer_next(&[503, 204, 401]);
    let id = world.migrate(json!({ "files": [] })).await;
    let view = world.wait(&id, "delivered").await;
    let attempts = view["events"][0]["deliveries"][0]["attempts"]
        .as_array()
        .unwrap()
        .clone();
    let statuses: Vec<u64> = attempts
        .iter()
        .map(|attempt| attempt["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [503, 204, 401, 200]);
    let sent = world.app.events();
    let ids: HashSet<String> = sent
        .iter()
        .map(|one| one.body["messageId"].to_string())
        .collect();
    assert_eq!((sent.len(), ids.len()), (4, 1));
}

#[tokio::test]
async fn retries_stop_when_the_transfer_is_settled_and_then_say_so() {
    let world = World::installed().await;
    world.app.answer_always(503);
    let id = world.migrate(files(1)).await;
    world
        .until(3, |one| one.event_type() == "app-data-uploaded")
        .await;
    assert_eq!(
        world
            .progress(&id, json!({ "status": "FAILED", "percent": 100 }))
            .await
            .status,
        200
    );
    world.app.answer_always(200);
    let view = world.wait(&id, "delivered").await;
    let events = view["events"].as_array().unwrap();
    assert_eq!(events[1]["deliveries"][0]["state"], "stopped");
    let settled = events.last().unwrap();
    assert_eq!(settled["event_type"], "transfer-settled");
    assert_eq!(settled["body"]["transferStatus"], "FAILED");
    assert_eq!(settled["deliveries"][0]["state"], "acknowledged");
}

#[tokio::test]
async fn retries_end_after_a_number_or_a_client_error_when_switched_so() {
    let world = World::installed().await;
    world.app.answer_always(503);
    world.switch(json!({ "retry_max_attempts": 2 })).await;
    let id = world.migrate(json!({ "files": [] })).await;
    let view = world.wait(&id, "delivered").await;
    assert_eq!(
        view["events"][0]["deliveries"][0]["attempts"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    world.app.answer_always(401);
    world
        .switch(json!({ "retry_max_attempts": null, "client_errors_final": true }))
        .await;
    let id = world.migrate(json!({ "files": [] })).await;
    let view = world.wait(&id, "delivered").await;
    assert_eq!(
        view["events"][0]["deliveries"][0]["attempts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn the_trigger_can_come_last_and_the_manifest_lists_every_file() {
    let world = World::installed().await;
    let mut plan = files(2);
    plan["order"] = "data_first".into();
    plan["manifest"] = true.into();
    plan["wait_for_ack"] = true.into();
    let id = world.migrate(plan).await;
    let events = world.app.events();
    let types: Vec<&str> = events.iter().map(Received::event_type).collect();
    let upload = "app-data-uploaded";
    assert_eq!(types, [upload, upload, upload, "listener-triggered"]);
    assert_eq!(events[2].body["label"], "export-manifest");
    let url = world.file_url(&id, 2).await;
    let manifest: Value = world
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        manifest,
        json!({ "version": 1, "files": [
            { "label": "part-0001-of-0002.ndjson", "records": 3 },
            { "label": "part-0002-of-0002.ndjson", "records": 3 },
        ] })
    );
}

#[tokio::test]
async fn an_export_that_dies_sends_nothing_more() {
    let world = World::installed().await;
    let mut plan = files(3);
    plan["manifest"] = true.into();
    plan["stop_export_after"] = 2.into();
    let id = world.migrate(plan).await;
    let view = world.wait(&id, "delivered").await;
    assert_eq!(view["export"], "died");
    assert_eq!(view["files_uploaded"], 2);
    assert_eq!(view["state"], "IN_PROGRESS");
    let listed = world
        .call("GET", &format!("data/{id}/all"), Value::Null)
        .await;
    assert_eq!(listed.body.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_listener_error_is_announced_and_can_be_fetched() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let error = format!("error/{id}");
    assert_eq!(world.call("GET", &error, Value::Null).await.status, 404);
    let mut plan = files(2);
    plan["listener_error"] =
        json!({ "exception_type": "java.lang.IllegalStateException", "after_files": 1 });
    let id = world.migrate(plan).await;
    world
        .until(1, |one| one.event_type() == "listener-errored")
        .await;
    let answer = world.call("GET", &format!("error/{id}"), Value::Null).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body["exceptionType"],
        "java.lang.IllegalStateException"
    );
    assert!(answer.body["safeStackTrace"].is_string());
}

#[tokio::test]
async fn the_switches_of_the_envelope_change_the_envelope() {
    let world = World::installed().await;
    world
        .switch(json!({
            "message_id": "never", "created_at_unit": "seconds", "token_in": "query", "version_parameter": true,
            "token_audience": "client_key", "extra_fields": true, "unknown_event_types": true,
        }))
        .await;
    world.migrate(json!({ "files": [] })).await;
    let events = world.until(2, |one| one.path.ends_with("/events")).await;
    let trigger = events
        .iter()
        .find(|one| one.event_type() == "listener-triggered")
        .unwrap();
    assert!(trigger.body.get("messageId").is_none());
    assert_eq!(
        trigger.body["migrationDetails"]["createdAt"]
            .to_string()
            .len(),
        10
    );
    assert!(trigger.body.get("schemaRevision").is_some());
    assert!(trigger.query.starts_with("version=1&jwt="));
    let (_, claims) = opened(&trigger.token(), None);
    assert_eq!(
        claims["qsh"],
        query_string_hash("POST&/connect/events&version=1")
    );
    assert_eq!(claims["aud"], json!([claims["iss"]]));
    assert!(
        events
            .iter()
            .any(|one| one.event_type() == "migration-phase-changed")
    );
}

#[tokio::test]
async fn tokens_stay_in_wall_time_when_the_platforms_clock_is_moved() {
    let world = World::installed().await;
    world.advance(json!({ "days": 3 })).await;
    world.migrate(json!({ "files": [] })).await;
    let (_, wall) = opened(
        &world.until(1, |one| one.path.ends_with("/events")).await[0].token(),
        None,
    );
    world.switch(json!({ "token_clock": "virtual" })).await;
    world.migrate(json!({ "files": [] })).await;
    let events = world.until(2, |one| one.path.ends_with("/events")).await;
    let (_, shifted) = opened(&events[1].token(), None);
    let ahead = shifted["iat"].as_i64().unwrap() - wall["iat"].as_i64().unwrap();
    assert!((259_200..259_210).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn raw_events_carry_whatever_token_a_test_asks_for() {
    let world = World::installed().await;
    let site = world.done("GET", "sites", Value::Null).await[0].clone();
    let send = |token: Value| {
        world.done(
            "POST",
            "events",
            json!({ "site": "acme", "path": "/connect/events?version=1", "body": { "eventType": "x" }, "token": token }),
        )
    };
    world.app.answer_next(&[401]);
    let answer = send(json!({})).await;
    assert_eq!(answer["status"], 401);
    assert!(answer["elapsed_ms"].is_number());
    for token in [
        json!({ "algorithm": "none" }),
        json!({ "algorithm": "RS256_with_secret" }),
        json!({ "algorithm": "RS256" }),
        json!({ "secret": "literal:other" }),
        json!({ "qsh": "wrong", "issuer": "nobody" }),
        json!({ "expires_in_s": -600, "issued_in_s": -800 }),
        json!({ "place": "absent" }),
        json!({ "place": "query" }),
    ] {
        send(token).await;
    }
    let got = world.app.events();
    let open = |nth: usize| opened(&got[nth].token(), None);
    let secret = site["shared_secret"].as_str();
    let (_, good) = opened(&got[0].token(), secret);
    assert_eq!(
        good["qsh"],
        query_string_hash("POST&/connect/events&version=1")
    );
    assert_eq!(open(1).0["alg"], "none");
    assert!(got[1].token().ends_with('.'));
    assert_eq!(opened(&got[2].token(), secret).0["alg"], "RS256");
    assert!(open(3).0["kid"].is_string());
    opened(&got[4].token(), Some("other"));
    assert_eq!(open(5).1["iss"], "nobody");
    assert_ne!(open(5).1["qsh"], good["qsh"]);
    assert_eq!(
        open(6).1["exp"].as_i64().unwrap() - open(6).1["iat"].as_i64().unwrap(),
        200
    );
    assert_eq!(got[7].authorization, None);
    assert_eq!(got[7].query, "version=1");
    assert!(got[8].query.contains("&jwt="));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_no_acknowledgement() {
    let world = World::installed().await;
    world.switch(json!({ "acknowledge_timeout_ms": 40 })).await;
    world.app.answer_after(Duration::from_millis(200));
    let id = world.migrate(json!({ "files": [] })).await;
    world
        .until(2, |one| one.event_type() == "listener-triggered")
        .await;
    world.app.answer_after(Duration::ZERO);
    let view = world.wait(&id, "delivered").await;
    let attempts = &view["events"][0]["deliveries"][0]["attempts"];
    assert_eq!(attempts[0]["status"], Value::Null);
    assert_eq!(attempts[0]["error"], "timed out");
    assert_eq!(attempts.as_array().unwrap().last().unwrap()["status"], 200);
}

#[tokio::test]
async fn a_shuffled_export_sends_every_event_in_an_order_of_its_own() {
    let world = World::installed().await;
    let mut plan = files(20);
    plan["order"] = "shuffled".into();
    let id = world.migrate(plan).await;
    let view = world.wait(&id, "delivered").await;
    let events = view["events"].as_array().unwrap();
    let labels: Vec<&str> = events
        .iter()
        .map(|event| event["body"]["label"].as_str().unwrap_or("trigger"))
        .collect();
    let mut sorted = labels.clone();
    sorted.sort_unstable();
    assert_eq!(labels.len(), 21);
    assert_ne!(labels, sorted);
    sorted.dedup();
    assert_eq!(sorted.len(), 21);
}

#[tokio::test]
async fn events_of_a_confluence_site_name_its_client_key_there() {
    let world = World::bare().await.on("confluence");
    let installed = world.install().await;
    let tenant = &installed["installation"];
    assert!(
        tenant["base_url"]
            .as_str()
            .unwrap()
            .ends_with("/sites/acme/wiki")
    );
    world.migrate(files(1)).await;
    let event = world
        .until(1, |one| one.event_type() == "app-data-uploaded")
        .await
        .remove(0);
    let details = &event.body["migrationDetails"];
    assert_eq!(details["confluenceClientKey"], tenant["client_key"]);
    assert_eq!(details["jiraClientKey"], "unknown");
    assert_eq!(
        details["cloudUrl"],
        format!("{}/sites/acme", world.twin.url())
    );
}

#[tokio::test]
async fn late_uploads_and_resent_events_reach_the_app() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    world
        .done(
            "POST",
            &format!("transfers/{id}/upload"),
            json!({ "label": "late", "records": 1 }),
        )
        .await;
    let resend = json!({ "event": "listener-triggered", "copies": 3 });
    world
        .done("POST", &format!("transfers/{id}/resend"), resend)
        .await;
    let triggers = world
        .until(4, |one| one.event_type() == "listener-triggered")
        .await;
    assert!(
        triggers
            .iter()
            .all(|one| one.body["messageId"] == triggers[0].body["messageId"])
    );
    world.until(1, |one| one.body["label"] == "late").await;
    let url = world.file_url(&id, 1).await;
    assert_eq!(world.http.get(url).send().await.unwrap().status(), 200);
}
