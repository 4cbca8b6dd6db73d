use serde_json::{Value, json};

use crate::harness::{World, files};

#[tokio::test]
async fn a_malformed_progress_call_is_400() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    for bad in [
        json!({}),
        json!({ "status": null }),
        json!({ "status": "CANCELLED" }),
        json!({ "status": "IN_PROGRESS", "percent": 101 }),
        json!({ "status": "IN_PROGRESS", "percent": -1 }),
        json!({ "status": "IN_PROGRESS", "percent": 1.5 }),
        json!({ "status": "IN_PROGRESS", "message": 7 }),
    ] {
        assert_eq!(world.progress(&id, bad.clone()).await.status, 400, "{bad}");
    }
    assert_eq!(world.transfer(&id).await["percent"], Value::Null);
}

#[tokio::test]
async fn progress_is_echoed_and_a_lower_percent_is_ignored_with_200() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let report = json!({ "status": "IN_PROGRESS", "percent": 60, "message": "sixty" });
    let answer = world.progress(&id, report.clone()).await;
    assert_eq!((answer.status, &answer.body), (200, &report));
    let lower = json!({ "status": "IN_PROGRESS", "percent": 59, "message": "less" });
    assert_eq!(world.progress(&id, lower).await.status, 200);
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["percent"], &view["message"]),
        (&json!(60), &json!("sixty"))
    );
    // Missing or 0 keeps the previous value, the message still counts.
    for keeps in [
        json!({ "status": "IN_PROGRESS", "percent": 0, "message": "a" }),
        json!({ "status": "IN_PROGRESS", "message": "b" }),
    ] {
        world.progress(&id, keeps.clone()).await;
        let view = world.transfer(&id).await;
        assert_eq!(
            (&view["percent"], &view["message"]),
            (&json!(60), &keeps["message"])
        );
    }
    let outcomes: Vec<Value> = world.transfer(&id).await["progress"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["accepted", "ignored", "accepted", "accepted"]);
}

#[tokio::test]
async fn a_long_message_is_cut_and_says_so() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let exact = "ä".repeat(65_536);
    world
        .progress(&id, json!({ "status": "IN_PROGRESS", "message": exact }))
        .await;
    assert_eq!(world.transfer(&id).await["message"], exact);
    let long = format!("{exact}ö");
    world
        .progress(&id, json!({ "status": "IN_PROGRESS", "message": long }))
        .await;
    let stored = world.transfer(&id).await["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(stored, format!("{exact}<truncated, message too large>"));
}

#[tokio::test]
async fn a_settled_transfer_answers_403_to_everything() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let url = world.file_url(&id, 0).await;
    let key = world.transfer(&id).await["file_list"][0]["s3_key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(world.recent().await, [id.as_str()]);
    let settle = json!({ "status": "SUCCESS", "percent": 100 });
    assert_eq!(world.progress(&id, settle.clone()).await.status, 200);
    assert_eq!(world.state(&id).await, "SUCCESS");
    assert_eq!(world.progress(&id, settle).await.status, 403);
    assert_eq!(
        world
            .progress(&id, json!({ "status": "FAILED" }))
            .await
            .status,
        403
    );
    for (method, path, body) in [
        ("POST", format!("mapping/{id}/find?namespace=a"), json!([])),
        ("GET", format!("mapping/{id}/page?namespace=a"), Value::Null),
        ("GET", format!("data/{id}/all"), Value::Null),
        ("GET", format!("data/{key}"), Value::Null),
        (
            "GET",
            format!("container/{id}/page?containerType=Site"),
            Value::Null,
        ),
        ("POST", format!("feedback/{id}"), json!({ "details": {} })),
        ("GET", format!("error/{id}"), Value::Null),
    ] {
        assert_eq!(world.call(method, &path, body).await.status, 403, "{path}");
    }
    assert_eq!(world.http.get(url).send().await.unwrap().status(), 403);
    assert!(world.recent().await.is_empty());
    assert_eq!(world.transfer(&id).await["accepted_settlements"], 1);
}

#[tokio::test]
async fn the_answers_of_settled_expired_and_unknown_transfers_are_switches() {
    let world = World::installed().await;
    let settle = json!({ "status": "FAILED" });
    let id = world.migrate(files(1)).await;
    world.progress(&id, settle.clone()).await;
    let expired = world.migrate(files(1)).await;
    world.advance(json!({ "days": 14 })).await;
    assert_eq!(world.state(&expired).await, "TIMED_OUT");
    assert_eq!(world.progress(&expired, settle.clone()).await.status, 403);
    world
        .switch(json!({
            "settled_answer": 409, "expired_answer": 400, "unknown_transfer_answer": 404, "error_bodies": "text",
        }))
        .await;
    let answer = world.progress(&id, settle.clone()).await;
    assert_eq!(answer.status, 409);
    assert!(answer.body.as_str().unwrap().contains("settled"));
    let answer = world.progress(&expired, settle.clone()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.as_str().unwrap().contains("time limit"));
    assert_eq!(world.progress("nobody", settle.clone()).await.status, 404);
    world
        .switch(json!({ "second_identical_settlement": "ok" }))
        .await;
    assert_eq!(world.progress(&id, settle).await.status, 200);
    assert_eq!(
        world
            .progress(&id, json!({ "status": "SUCCESS" }))
            .await
            .status,
        409
    );
    assert_eq!(world.transfer(&id).await["accepted_settlements"], 1);
}

#[tokio::test]
async fn each_reading_of_the_final_percent_takes_exactly_its_own_form() {
    let world = World::installed().await;
    let forms = [json!(100), Value::Null, json!(60)];
    for (mode, settled, refused) in [
        ("any", [true, true, true], None),
        ("only_100", [true, false, false], None),
        ("refuse_100", [false, true, true], Some(0)),
        ("only_omitted", [false, true, false], None),
        ("only_1_to_99", [false, false, true], None),
    ] {
        world.switch(json!({ "final_percent": mode })).await;
        for (nth, percent) in forms.iter().enumerate() {
            let id = world.migrate(json!({ "files": [] })).await;
            world
                .progress(&id, json!({ "status": "IN_PROGRESS", "percent": 60 }))
                .await;
            let answer = world
                .progress(&id, json!({ "status": "FAILED", "percent": percent }))
                .await;
            let expected = if refused == Some(nth) { 400 } else { 200 };
            assert_eq!(answer.status, expected, "{mode} {percent}");
            let state = if settled[nth] {
                "FAILED"
            } else {
                "IN_PROGRESS"
            };
            assert_eq!(world.state(&id).await, state, "{mode} {percent}");
            assert_eq!(world.recent().await.contains(&id), !settled[nth]);
        }
    }
}

#[tokio::test]
async fn a_ladder_of_forms_reaches_the_settlement_in_every_reading() {
    let world = World::installed().await;
    for mode in [
        "any",
        "only_100",
        "refuse_100",
        "only_omitted",
        "only_1_to_99",
    ] {
        world.switch(json!({ "final_percent": mode })).await;
        let id = world.migrate(json!({ "files": [] })).await;
        world
            .progress(&id, json!({ "status": "IN_PROGRESS", "percent": 60 }))
            .await;
        for percent in [json!(100), Value::Null, json!(60)] {
            if world.recent().await.contains(&id) {
                world
                    .progress(&id, json!({ "status": "INCOMPLETE", "percent": percent }))
                    .await;
            }
        }
        let view = world.transfer(&id).await;
        assert_eq!(
            (&view["state"], &view["accepted_settlements"]),
            (&json!("INCOMPLETE"), &json!(1))
        );
    }
}

#[tokio::test]
async fn a_lower_percent_also_swallows_a_settlement_unless_switched_off() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    world
        .progress(&id, json!({ "status": "IN_PROGRESS", "percent": 60 }))
        .await;
    let lower = json!({ "status": "FAILED", "percent": 10 });
    assert_eq!(world.progress(&id, lower.clone()).await.status, 200);
    assert_eq!(world.state(&id).await, "IN_PROGRESS");
    world
        .switch(json!({ "lower_percent_on_settle": "accepted" }))
        .await;
    assert_eq!(world.progress(&id, lower).await.status, 200);
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["state"], &view["percent"]),
        (&json!("FAILED"), &json!(60))
    );
}

#[tokio::test]
async fn a_transfer_left_alone_times_out_after_14_days() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    world
        .advance(json!({ "days": 13, "hours": 23, "minutes": 59 }))
        .await;
    assert_eq!(world.state(&id).await, "IN_PROGRESS");
    world.advance(json!({ "minutes": 1 })).await;
    let view = world.transfer(&id).await;
    assert_eq!(
        (&view["state"], &view["settled_by"]),
        (&json!("TIMED_OUT"), &json!("platform"))
    );
    let told = world
        .until(1, |one| one.event_type() == "transfer-settled")
        .await;
    assert_eq!(told[0].body["transferStatus"], "TIMED_OUT");
}

#[tokio::test]
async fn a_cancellation_waits_30_minutes_to_be_asked_and_60_to_be_answered() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let cancel = format!("transfers/{id}/cancel");
    assert_eq!(
        world.control("POST", &cancel, Value::Null).await.status,
        409
    );
    world.advance(json!({ "minutes": 30 })).await;
    let answer = world.control("POST", &cancel, Value::Null).await;
    assert_eq!(answer.body, json!({ "state": "CANCELLATION_REQUESTED" }));
    world
        .until(1, |one| {
            one.event_type() == "transfer-cancellation-requested"
        })
        .await;
    assert_eq!(world.recent().await, [id.as_str()]);
    // Progress is taken, the state stays.
    let report = json!({ "status": "IN_PROGRESS", "percent": 10 });
    assert_eq!(world.progress(&id, report).await.status, 200);
    world.advance(json!({ "minutes": 59 })).await;
    assert_eq!(world.state(&id).await, "CANCELLATION_REQUESTED");
    world.advance(json!({ "minutes": 1 })).await;
    assert_eq!(world.state(&id).await, "CANCELLED");
    assert_eq!(
        world
            .progress(&id, json!({ "status": "INCOMPLETE" }))
            .await
            .status,
        403
    );
    assert_eq!(
        world.control("POST", &cancel, Value::Null).await.status,
        409
    );
}

#[tokio::test]
async fn a_cancelled_transfer_takes_the_apps_verdict_within_the_hour() {
    let world = World::installed().await;
    for status in ["INCOMPLETE", "FAILED", "SUCCESS"] {
        let id = world.migrate(files(1)).await;
        world
            .done(
                "POST",
                &format!("transfers/{id}/cancel"),
                json!({ "force": true }),
            )
            .await;
        assert_eq!(
            world
                .progress(&id, json!({ "status": status }))
                .await
                .status,
            200
        );
        assert_eq!(world.state(&id).await, status);
    }
    world
        .switch(json!({ "in_progress_while_cancelling": "refuse", "success_while_cancelling": "refuse" }))
        .await;
    let id = world.migrate(files(1)).await;
    world
        .done(
            "POST",
            &format!("transfers/{id}/cancel"),
            json!({ "force": true }),
        )
        .await;
    for refused in ["IN_PROGRESS", "SUCCESS"] {
        assert_eq!(
            world
                .progress(&id, json!({ "status": refused }))
                .await
                .status,
            400
        );
    }
}

#[tokio::test]
async fn progress_faster_than_the_threshold_is_429() {
    let world = World::installed().await;
    world
        .switch(json!({ "progress_min_interval_ms": 60_000, "progress_retry_after_s": 7 }))
        .await;
    let id = world.migrate(files(1)).await;
    let report = |percent: u8| json!({ "status": "IN_PROGRESS", "percent": percent });
    assert_eq!(world.progress(&id, report(1)).await.status, 200);
    let answer = world.progress(&id, report(2)).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "7");
    world.advance(json!({ "minutes": 1 })).await;
    assert_eq!(world.progress(&id, report(2)).await.status, 200);
}

#[tokio::test]
async fn recent_lists_the_newest_hundred_and_lags_when_switched_so() {
    let world = World::installed().await;
    world.switch(json!({ "recent_delay_ms": 60_000 })).await;
    let id = world.migrate(json!({ "files": [] })).await;
    world.progress(&id, json!({ "status": "FAILED" })).await;
    assert_eq!(world.recent().await, [id.as_str()]);
    world.advance(json!({ "minutes": 1 })).await;
    assert!(world.recent().await.is_empty());
    let mut last = String::new();
    for _ in 0..103 {
        last = world.migrate(json!({ "files": [] })).await;
    }
    let recent = world.recent().await;
    assert_eq!(recent.len(), 100);
    assert_eq!(recent[0], last);
}

#[tokio::test]
async fn a_transfer_can_stay_ready_and_is_then_not_listed() {
    let world = World::installed().await;
    let plan = json!({ "site": "acme", "stay_ready": true, "files": [{}] });
    let started = world.done("POST", "migrations", plan).await;
    let id = started["transfer_id"].as_str().unwrap();
    assert_eq!(world.state(id).await, "READY");
    assert!(world.recent().await.is_empty());
    assert!(world.app.events().is_empty());
}

#[tokio::test]
async fn feedback_is_kept_until_it_is_replaced() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let path = format!("feedback/{id}");
    assert_eq!(
        world
            .call("POST", &path, json!({ "details": "text" }))
            .await
            .status,
        400
    );
    world
        .call("POST", &path, json!({ "details": { "a": 1 } }))
        .await;
    world
        .call("POST", &path, json!({ "details": { "b": 2 } }))
        .await;
    assert_eq!(world.transfer(&id).await["feedback"], json!({ "b": 2 }));
}
