//! Genuine events.

use serde_json::json;

use crate::cloud::{Cloud, event_of, text};
use crate::platform::{
    OTHER, SECRET, TENANT, claims, event, hs256, install, post, upload, webhook, webhook_of,
};

#[tokio::test]
async fn an_event_of_a_known_tenant_costs_one_put_and_one_send() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    cloud.forget();
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m-1")))
            .await
            .status,
        200
    );
    assert_eq!(
        cloud.table.calls(),
        ["GetItem", "PutItem"],
        "the first one reads the tenant"
    );
    assert_eq!(cloud.queues.calls(), ["SendMessage"]);
    for body in [
        event("listener-triggered", "m-2"),
        upload("key-1", "m-3"),
        event("transfer-settled", "m-4"),
    ] {
        assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
        assert_eq!(cloud.table.calls(), ["PutItem"]);
        assert_eq!(cloud.queues.calls(), ["SendMessage"]);
    }
}

#[tokio::test]
async fn all_five_types_are_stored_and_queued_whole_but_for_the_plans_name() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    for (number, event_type) in [
        "listener-triggered",
        "listener-errored",
        "transfer-cancellation-requested",
        "transfer-settled",
    ]
    .into_iter()
    .enumerate()
    {
        cloud.forget();
        let body = event(event_type, &format!("m-{number}"));
        assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
        let mut expected = body.clone();
        expected["migrationDetails"]
            .as_object_mut()
            .unwrap()
            .remove("name");
        let sent = cloud.sent();
        assert_eq!(
            (sent[0].queue.as_str(), sent[0].group.as_str()),
            ("events", TENANT)
        );
        assert_eq!(event_of(&sent[0]), expected);
        let row = cloud.rows_of(&format!("EVENT#m-{number}")).await.remove(0);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(text(&row, "event")).unwrap(),
            expected
        );
    }
    cloud.forget();
    assert_eq!(
        intake
            .answer(&webhook(&upload("key-1", "m-9")))
            .await
            .status,
        200
    );
    let sent = cloud.sent();
    assert_eq!(
        sent[0].queue, "imports",
        "files don't stand in the way of a cancellation"
    );
    assert_eq!(event_of(&sent[0])["label"], "attachments-0003-of-0007");
    let row = cloud.rows_of("FILE#").await.remove(0);
    assert_eq!(
        (text(&row, "sk"), text(&row, "label")),
        ("FILE#key-1", "attachments-0003-of-0007")
    );
    assert!(!format!("{:?}{sent:?}", cloud.rows().await).contains("Jane"));
}

#[tokio::test]
async fn an_event_that_comes_twice_is_one_row_and_200_both_times() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    let without_id = |mut body: serde_json::Value| {
        body.as_object_mut().unwrap().remove("messageId");
        body
    };
    for body in [
        event("listener-triggered", "m-1"),
        without_id(event("listener-errored", "")),
        upload("key-1", "m-2"),
        without_id(upload("key-2", "")),
    ] {
        for _ in 0..3 {
            assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
        }
    }
    // The same file, announced to two registered addresses with two ids.
    assert_eq!(
        intake
            .answer(&webhook(&upload("key-1", "m-3")))
            .await
            .status,
        200
    );
    assert_eq!(cloud.rows_of("EVENT#").await.len(), 2);
    assert_eq!(cloud.rows_of("FILE#").await.len(), 2);
}

#[tokio::test]
async fn unknown_types_and_shapes_are_stored_and_counted() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    cloud.forget();
    for body in [
        json!({"eventType": "app-data-preloaded", "messageId": "m-1", "new": {"field": 1}}),
        json!({"a": 1}),
        json!([1]),
    ] {
        assert_eq!(intake.answer(&webhook(&body)).await.status, 200, "{body}");
        assert_eq!(event_of(&cloud.sent()[0]), body);
    }
    assert_eq!(cloud.rows_of("EVENT#").await.len(), 3);
    let count = cloud.rows_of("COUNT#events_unknown").await.remove(0);
    assert_eq!(count["count"].as_n().unwrap(), "3");
}

#[tokio::test]
async fn the_token_may_be_in_the_query_and_name_the_tenant_by_its_audience() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    let mut claims = claims("the-platform", "/connect/events");
    claims["aud"] = json!([TENANT]);
    let token = hs256(&claims, SECRET);
    let mut request = post(
        "/connect/events",
        "",
        event("listener-triggered", "m-1").to_string(),
    );
    request.authorization = None;
    request.query = format!("jwt={token}");
    assert_eq!(intake.answer(&request).await.status, 200);
    assert_eq!(text(&cloud.rows_of("EVENT#").await[0], "tenant"), TENANT);
}

#[tokio::test]
async fn every_reading_of_the_path_that_the_platform_may_hash_is_accepted() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    for seen in [
        "/connect/events",
        "/prod/landfall/connect/events",
        "/connect/events/",
    ] {
        for hashed in [
            "/connect/events",
            "/landfall/connect/events",
            "/prod/landfall/connect/events",
        ] {
            let token = hs256(&claims(TENANT, hashed), SECRET);
            let request = post(seen, &token, event("listener-triggered", "m-1").to_string());
            assert_eq!(intake.answer(&request).await.status, 200, "{seen} {hashed}");
        }
    }
    let token = hs256(&claims(TENANT, "/prod/connect/events"), SECRET);
    let request = post(
        "/connect/events",
        &token,
        event("listener-triggered", "m-1").to_string(),
    );
    assert_eq!(intake.answer(&request).await.status, 401);
}

#[tokio::test]
async fn query_parameters_matter_to_the_hash_only() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    let mut request = webhook(&event("listener-triggered", "m-1"));
    request.query = "version=1".to_owned();
    assert_eq!(intake.answer(&request).await.status, 401);
    let mut claims = claims(TENANT, "/connect/events");
    claims["qsh"] = json!(landfall_platform::connect::qsh::hash(
        "POST&/connect/events&version=1"
    ));
    request.authorization = Some(format!("JWT {}", hs256(&claims, SECRET)));
    assert_eq!(intake.answer(&request).await.status, 200);
}

#[tokio::test]
async fn a_body_that_names_another_tenant_is_handled_as_the_tokens_own() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    install(&intake, OTHER, "secret-of-the-other").await;
    let other_before = cloud
        .rows()
        .await
        .into_iter()
        .find(|row| text(row, "pk").ends_with(OTHER))
        .unwrap();
    cloud.forget();
    let mut body = event("listener-triggered", "m-1");
    body["migrationDetails"]["confluenceClientKey"] = json!(OTHER);
    assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
    assert_eq!(text(&cloud.rows_of("EVENT#").await[0], "tenant"), TENANT);
    assert_eq!(cloud.sent()[0].group, TENANT);
    let entry = cloud.rows_of("SECURITY#").await.remove(0);
    assert_eq!(text(&entry, "pk"), format!("TENANT#{TENANT}"));
    assert_eq!(text(&entry, "what"), "FOREIGN_CLIENT_KEY");
    assert_eq!(
        cloud.rows_of("COUNT#events_foreign_client_key").await.len(),
        1
    );
    let others: Vec<_> = cloud
        .rows()
        .await
        .into_iter()
        .filter(|row| text(row, "pk").ends_with(OTHER))
        .collect();
    assert_eq!(
        others,
        [other_before],
        "nothing of the other tenant is changed"
    );
}

#[tokio::test]
async fn a_setting_refuses_a_body_that_names_another_tenant() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_with("foreign_client_keys = \"refuse\"");
    install(&intake, TENANT, SECRET).await;
    cloud.forget();
    let mut body = event("listener-triggered", "m-1");
    body["migrationDetails"]["confluenceClientKey"] = json!(OTHER);
    assert_eq!(intake.answer(&webhook(&body)).await.status, 403);
    assert!(cloud.sent().is_empty() && cloud.rows_of("EVENT#").await.is_empty());
    assert_eq!(cloud.rows_of("SECURITY#").await.len(), 1);
    // One of two keys, or none, is no contradiction.
    body["migrationDetails"]["jiraClientKey"] = json!(TENANT);
    assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
    body["migrationDetails"] = json!({"jiraClientKey": "unknown"});
    assert_eq!(intake.answer(&webhook(&body)).await.status, 200);
}

#[tokio::test]
async fn two_tenants_on_one_site_are_two() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    // A data import makes a new client key with the same base URL.
    install(&intake, TENANT, SECRET).await;
    install(&intake, OTHER, "secret-of-the-other").await;
    for (tenant, secret) in [(TENANT, SECRET), (OTHER, "secret-of-the-other")] {
        let mut body = event("listener-triggered", tenant);
        body["migrationDetails"]["confluenceClientKey"] = json!(tenant);
        assert_eq!(
            intake
                .answer(&webhook_of(tenant, secret, &body))
                .await
                .status,
            200
        );
    }
    assert_eq!(
        intake
            .answer(&webhook_of(OTHER, SECRET, &json!({})))
            .await
            .status,
        401
    );
}
