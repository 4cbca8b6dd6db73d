use serde_json::{Value, json};

use crate::harness::{World, files};

async fn rerun(world: &World, id: &str) -> Result<Value, String> {
    let answer = world
        .control("POST", &format!("transfers/{id}/rerun"), Value::Null)
        .await;
    match answer.status {
        201 => Ok(answer.body),
        409 => Err(answer.body["error"].as_str().unwrap().to_owned()),
        other => panic!("{other}: {}", answer.body),
    }
}

#[tokio::test]
async fn a_chain_of_reruns_keeps_the_first_transfer_as_its_original() {
    let world = World::installed().await;
    let mut plan = files(2);
    plan["manifest"] = true.into();
    plan["stop_export_after"] = 1.into();
    let first = world.migrate(plan).await;
    let keys = |view: &Value| -> Vec<Value> {
        let files = view["file_list"].as_array().unwrap();
        files.iter().map(|file| file["s3_key"].clone()).collect()
    };
    let first_keys = keys(&world.transfer(&first).await);
    world.progress(&first, json!({ "status": "FAILED" })).await;
    let mut previous = first.clone();
    for attempt in 2..4 {
        let started = rerun(&world, &previous).await.unwrap();
        let id = started["transfer_id"].as_str().unwrap().to_owned();
        assert_ne!(id, previous);
        assert_eq!(started["original_transfer_id"], first);
        assert_eq!(started["attempt"], attempt);
        world.wait(&id, "exported").await;
        let view = world.wait(&id, "delivered").await;
        // The whole export comes again, manifest included, under new keys.
        assert_eq!(view["files_uploaded"], 3);
        assert!(keys(&view).iter().all(|key| !first_keys.contains(key)));
        for event in view["events"].as_array().unwrap() {
            assert_eq!(event["body"]["originalTransferId"], first);
        }
        world.progress(&id, json!({ "status": "INCOMPLETE" })).await;
        previous = id;
    }
}

#[tokio::test]
async fn the_same_bytes_come_again() {
    let world = World::installed().await;
    let first = world
        .migrate(json!({ "files": [{ "records": 50, "gzip": true }, { "records": 20 }] }))
        .await;
    let mut before = Vec::new();
    for position in 0..2 {
        let url = world.file_url(&first, position).await;
        before.push(
            world
                .http
                .get(url)
                .send()
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap(),
        );
    }
    world.progress(&first, json!({ "status": "FAILED" })).await;
    let started = rerun(&world, &first).await.unwrap();
    let id = started["transfer_id"].as_str().unwrap();
    world.wait(id, "exported").await;
    for (position, bytes) in before.iter().enumerate() {
        let url = world.file_url(id, position).await;
        assert_eq!(
            &world
                .http
                .get(url)
                .send()
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap(),
            bytes
        );
    }
}

#[tokio::test]
async fn only_failed_and_incomplete_transfers_can_be_rerun() {
    let world = World::installed().await;
    for (status, allowed) in [("SUCCESS", false), ("FAILED", true), ("INCOMPLETE", true)] {
        let id = world.migrate(files(1)).await;
        assert!(
            rerun(&world, &id)
                .await
                .unwrap_err()
                .contains("IN_PROGRESS")
        );
        world.progress(&id, json!({ "status": status })).await;
        assert_eq!(rerun(&world, &id).await.is_ok(), allowed, "{status}");
    }
    let cancelled = world.migrate(files(1)).await;
    world
        .done(
            "POST",
            &format!("transfers/{cancelled}/cancel"),
            json!({ "force": true }),
        )
        .await;
    world.advance(json!({ "hours": 1 })).await;
    assert!(
        rerun(&world, &cancelled)
            .await
            .unwrap_err()
            .contains("CANCELLED")
    );
    let timed_out = world.migrate(files(1)).await;
    world.advance(json!({ "days": 14 })).await;
    assert!(
        rerun(&world, &timed_out)
            .await
            .unwrap_err()
            .contains("TIMED_OUT")
    );
}

#[tokio::test]
async fn the_window_is_12_days_from_the_first_attempt() {
    let world = World::installed().await;
    let first = world.migrate(files(1)).await;
    world.progress(&first, json!({ "status": "FAILED" })).await;
    world.advance(json!({ "days": 11, "hours": 23 })).await;
    let second = rerun(&world, &first).await.unwrap();
    let second = second["transfer_id"].as_str().unwrap();
    world.wait(second, "exported").await;
    world.progress(second, json!({ "status": "FAILED" })).await;
    // The second attempt is an hour old, the chain is twelve days old.
    world.advance(json!({ "hours": 1 })).await;
    assert!(rerun(&world, second).await.unwrap_err().contains("12 days"));
}

#[tokio::test]
async fn an_attempt_that_has_a_successor_is_not_rerun_again() {
    let world = World::installed().await;
    let first = world.migrate(files(1)).await;
    world.progress(&first, json!({ "status": "FAILED" })).await;
    rerun(&world, &first).await.unwrap();
    assert!(
        rerun(&world, &first)
            .await
            .unwrap_err()
            .contains("later attempt")
    );
}

#[tokio::test]
async fn message_ids_can_be_absent_in_reruns_only() {
    let world = World::installed().await;
    world
        .switch(json!({ "message_id": "absent_in_reruns" }))
        .await;
    let first = world.migrate(files(1)).await;
    assert!(world.wait(&first, "delivered").await["events"][0]["message_id"].is_string());
    world.progress(&first, json!({ "status": "FAILED" })).await;
    let second = rerun(&world, &first).await.unwrap();
    let view = world
        .wait(second["transfer_id"].as_str().unwrap(), "delivered")
        .await;
    assert!(view["events"][0]["message_id"].is_null());
}
