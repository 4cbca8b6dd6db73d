use serde_json::{Value, json};

use crate::harness::{World, files};

#[tokio::test]
async fn lost_doubled_and_anonymous_events_are_just_that() {
    let world = World::installed().await;
    let uploads = "app-data-uploaded";
    world
        .fault(json!({ "target": "events", "kind": "drop", "event_type": uploads, "next": 1 }))
        .await;
    world.fault(json!({ "target": "events", "kind": "duplicate", "copies": 4, "event_type": "listener-triggered" })).await;
    world.fault(json!({ "target": "events", "kind": "no_message_id", "event_type": uploads, "skip": 1 })).await;
    let id = world.migrate(files(2)).await;
    let triggers = world
        .until(5, |one| one.event_type() == "listener-triggered")
        .await;
    assert!(triggers.iter().all(|one| one.body == triggers[0].body));
    let view = world.wait(&id, "delivered").await;
    assert_eq!(view["events"][1]["deliveries"][0]["state"], "dropped");
    let got = world.until(1, |one| one.event_type() == uploads).await;
    assert_eq!(got.len(), 1);
    assert!(got[0].body.get("messageId").is_none());
    // The file of the lost event is there all the same.
    let listed = world
        .call("GET", &format!("data/{id}/all"), Value::Null)
        .await
        .body;
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_event_whose_answer_is_lost_comes_again() {
    let world = World::installed().await;
    world
        .fault(json!({ "target": "events", "kind": "lose_answer", "next": 1 }))
        .await;
    world
        .fault(json!({ "target": "events", "kind": "cut", "skip": 1, "next": 1 }))
        .await;
    let id = world.migrate(json!({ "files": [] })).await;
    let view = world.wait(&id, "delivered").await;
    let attempts = view["events"][0]["deliveries"][0]["attempts"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(attempts.len(), 3);
    assert_eq!(attempts[0]["status"], 200);
    assert!(attempts[1]["status"].is_null());
    assert_eq!(world.app.events().len(), 2);
}

#[tokio::test]
async fn a_rest_operation_can_answer_any_status_with_and_without_retry_after() {
    let world = World::installed().await;
    world.fault(json!({ "target": "rest.transfer_recent", "kind": "status", "status": 429, "retry_after_s": 3, "next": 1 })).await;
    world
        .fault(json!({ "target": "rest", "kind": "status", "status": 503, "skip": 1, "next": 1 }))
        .await;
    let first = world.call("GET", "transfer/recent", Value::Null).await;
    assert_eq!(
        (first.status, first.headers["retry-after"].to_str().unwrap()),
        (429, "3")
    );
    let second = world.call("GET", "transfer/recent", Value::Null).await;
    assert_eq!(second.status, 503);
    assert!(!second.headers.contains_key("retry-after"));
    assert_eq!(
        world
            .call("GET", "transfer/recent", Value::Null)
            .await
            .status,
        200
    );
    let rules = world.done("GET", "faults", Value::Null).await;
    assert_eq!(
        (&rules[0]["hits"], &rules[1]["hits"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_settlement_can_be_processed_with_its_answer_lost() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    world
        .fault(json!({ "target": "rest.progress", "kind": "lose_answer", "next": 1 }))
        .await;
    let path = format!("progress/{id}");
    let token = world.mint("POST", &path).await;
    let sent = world
        .http
        .post(world.rest(&path))
        .header("Authorization", token["authorization"].as_str().unwrap())
        .json(&json!({ "status": "FAILED" }))
        .send()
        .await;
    assert!(sent.is_err(), "the connection closes without an answer");
    assert_eq!(world.state(&id).await, "FAILED");
}

#[tokio::test]
async fn a_download_can_be_cut_and_goes_on_by_range() {
    let world = World::installed().await;
    let id = world
        .migrate(json!({ "files": [{ "records": 2000 }] }))
        .await;
    let url = world.file_url(&id, 0).await;
    world
        .fault(json!({ "target": "store", "kind": "cut", "after_bytes": 200_000, "next": 1 }))
        .await;
    let mut response = world.http.get(&url).send().await.unwrap();
    let mut got = 0;
    let ended = loop {
        match response.chunk().await {
            Ok(Some(piece)) => got += piece.len(),
            Ok(None) => break "complete",
            Err(_) => break "cut",
        }
    };
    assert_eq!((got, ended), (200_000, "cut"));
    let rest = world
        .http
        .get(&url)
        .header("Range", "bytes=200000-")
        .send()
        .await
        .unwrap();
    assert_eq!(rest.bytes().await.unwrap().len(), 400_000);
    world
        .fault(json!({ "target": "store", "kind": "expired", "next": 1 }))
        .await;
    assert_eq!(world.http.get(&url).send().await.unwrap().status(), 403);
    let fetches = world.transfer(&id).await["file_list"][0]["fetches"].clone();
    assert_eq!(
        (&fetches[0]["ended"], &fetches[0]["bytes_sent"]),
        (&json!("cut"), &json!(200_000))
    );
}

#[tokio::test]
async fn the_key_server_can_fail() {
    let world = World::bare().await;
    world
        .fault(json!({ "target": "install_keys", "kind": "status", "status": 500, "next": 1 }))
        .await;
    let url = format!("{}/install-keys/any", world.twin.url());
    assert_eq!(world.http.get(&url).send().await.unwrap().status(), 500);
    assert_eq!(world.http.get(&url).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_control_api_names_what_is_wrong_with_a_request() {
    let world = World::installed().await;
    for (method, path, body, named) in [
        (
            "POST",
            "migrations",
            json!({ "site": "acme", "filez": [] }),
            "filez",
        ),
        (
            "POST",
            "migrations",
            json!({ "site": "acme", "files": [{ "record_bytes": 5 }] }),
            "record_bytes",
        ),
        ("POST", "migrations", json!({ "site": "other" }), "other"),
        (
            "POST",
            "faults",
            json!({ "target": "rest.nothing", "kind": "cut" }),
            "rest.nothing",
        ),
        ("PATCH", "switches", json!({ "nothing": 1 }), "nothing"),
        ("PUT", "clock", json!({ "now_ms": 5 }), "backwards"),
        ("POST", "transfers/none/rerun", json!({}), "transfer"),
        ("POST", "nothing", json!({}), "operation"),
    ] {
        let answer = world.control(method, path, body).await;
        assert!((400..500).contains(&answer.status), "{path}");
        let text = answer.body["error"].as_str().unwrap();
        assert!(text.contains(named), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_reset_forgets_everything_and_ids_go_on() {
    let world = World::installed().await;
    let before = world.migrate(files(1)).await;
    world.done("POST", "reset", Value::Null).await;
    assert_eq!(world.done("GET", "transfers", Value::Null).await, json!([]));
    world.install().await;
    assert_ne!(world.migrate(files(1)).await, before);
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let world = World::bare().await;
    let address = world
        .twin
        .url()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let options = landfall_twin::Options {
        listen: address,
        ..landfall_twin::Options::default()
    };
    let error = landfall_twin::Twin::start(options).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_site_with_a_quota_takes_so_many_calls_and_tells_what_it_was_asked() {
    let world = World::installed().await;
    // Set over the tenant's site only, and for longer than this test runs.
    let site = world.done("GET", "sites", Value::Null).await[0]["site"].clone();
    let quota = json!({ "site": site, "calls": 3, "window_ms": 86_400_000_000_000_i64 });
    world.done("PUT", "quotas", quota).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = world.call("GET", "transfer/recent", Value::Null).await;
        assert_eq!(
            answer.headers.contains_key("retry-after"),
            answer.status == 429
        );
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let site = site.as_str().unwrap();
    let figures = world.done("GET", "quotas", Value::Null).await[site].clone();
    assert_eq!(
        (&figures["taken"], &figures["refused"]),
        (&json!(3), &json!(2))
    );
    let calls = world
        .done("GET", &format!("quotas/{site}"), Value::Null)
        .await;
    assert_eq!(calls[4]["operation"], "rest.transfer_recent");
    assert_eq!(calls[4]["refused"], true);
    world.done("DELETE", "quotas", Value::Null).await;
    let answer = world.call("GET", "transfer/recent", Value::Null).await;
    assert_eq!(answer.status, 200);
}
