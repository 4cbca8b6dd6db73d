use serde_json::{Value, json};

use crate::forge_harness::ForgeWorld;
use crate::harness::files;

/// Every operation with a call that succeeds for this transfer.
async fn operations(world: &ForgeWorld, id: &str) -> Vec<(&'static str, String, Value)> {
    let view = world.transfer(id).await;
    let key = view["file_list"][0]["s3_key"].as_str().unwrap().to_owned();
    let message = view["forge"]["messages"][0]["message_id"].clone();
    let project = "namespace=jira/classic:project";
    vec![
        ("GET", format!("data/{id}/page"), Value::Null),
        ("GET", format!("data/{id}/all"), Value::Null),
        ("GET", format!("data/{key}"), Value::Null),
        ("GET", format!("data/{key}/payload"), Value::Null),
        (
            "POST",
            format!("mapping/{id}/find?{project}"),
            json!(["10001"]),
        ),
        ("GET", format!("mapping/{id}/page?{project}"), Value::Null),
        (
            "GET",
            format!("container/{id}/page?containerType=Site"),
            Value::Null,
        ),
        (
            "POST",
            format!("log/{id}"),
            json!({ "message": "half way" }),
        ),
        (
            "POST",
            format!("message/{id}/status"),
            json!({ "status": "SUCCESS", "messageIds": [message] }),
        ),
    ]
}

#[tokio::test]
async fn all_nine_operations_take_a_system_token_and_nothing_else() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let good = world.mint(json!({})).await;
    let bad = [
        world
            .mint(json!({ "system_token": { "unknown": true } }))
            .await["system_token"]
            .clone(),
        world
            .mint(json!({ "system_token": { "expires_in_s": -1 } }))
            .await["system_token"]
            .clone(),
        good["token"].clone(),
        "no.token.atall".into(),
    ];
    let calls = operations(&world, &id).await;
    assert_eq!(calls.len(), 9);
    for (method, path, body) in calls {
        for token in &bad {
            let token = token.as_str().unwrap();
            let answer = world.call_with(method, &path, body.clone(), token).await;
            assert_eq!(answer.status, 401, "{path}");
        }
        let answer = world.call(method, &path, body).await;
        assert_eq!(answer.status, 200, "{path} {}", answer.body);
    }
    assert_eq!(world.state(&id).await, "SUCCESS");
}

#[tokio::test]
async fn a_system_token_ends_with_its_life_and_with_its_installation() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let minted = world.mint(json!({})).await;
    let token = minted["system_token"].as_str().unwrap();
    let list = format!("data/{id}/all");
    world.minutes(4 * 60 - 1).await;
    // The transfer has timed out meanwhile, the token has not.
    assert_eq!(
        world
            .call_with("GET", &list, Value::Null, token)
            .await
            .status,
        409
    );
    world.minutes(1).await;
    let late = world.call_with("GET", &list, Value::Null, token).await;
    assert_eq!(late.status, 401);
    assert!(late.body["twinHint"].as_str().unwrap().contains("expired"));

    let other = json!({ "site": "other", "remote_base_url": world.remote_url });
    world.done("POST", "forge/install", other).await;
    let minted = world
        .done("POST", "forge/token", json!({ "site": "other" }))
        .await;
    let foreign = minted["system_token"].as_str().unwrap();
    assert_eq!(
        world
            .call_with("GET", &list, Value::Null, foreign)
            .await
            .status,
        401
    );
    world
        .done("POST", "forge/uninstall", json!({ "site": "other" }))
        .await;
    let nowhere = "data/00000000-0000-4000-8000-000000000000/all";
    let gone = world.call_with("GET", nowhere, Value::Null, foreign).await;
    assert_eq!(gone.status, 401);
    assert_eq!(world.call("GET", nowhere, Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_settled_transfer_is_a_conflict_for_every_operation() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let calls = operations(&world, &id).await;
    let messages = world.messages(&id).await;
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[0]]).await, 200);
    for (method, path, body) in calls {
        let answer = world.call(method, &path, body).await;
        assert_eq!(answer.status, 409, "{path}");
        assert!(answer.body["message"].as_str().unwrap().contains("settled"));
    }
    world.switch(json!({ "forge_settled_answer": 403 })).await;
    let list = format!("data/{id}/all");
    assert_eq!(world.call("GET", &list, Value::Null).await.status, 403);
}

#[tokio::test]
async fn files_are_listed_in_pages_unless_the_gate_is_closed() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(5)).await;
    let (mut found, mut last) = (Vec::new(), String::new());
    loop {
        let path = format!("data/{id}/page?pageSize=2&lastEvaluatedKey={last}");
        let page = world.call("GET", &path, Value::Null).await.body;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2 && items.iter().all(|item| item["fileSize"] == 900));
        found.extend(items.iter().map(|item| item["key"].clone()));
        match page["lastEvaluatedKey"].as_str() {
            Some(key) => last = key.to_owned(),
            None => break,
        }
    }
    let all = world
        .call("GET", &format!("data/{id}/all"), Value::Null)
        .await
        .body;
    let keys: Vec<Value> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["key"].clone())
        .collect();
    assert_eq!((found.len(), &found), (5, &keys));
    assert_eq!(all[0]["label"], "part-0001-of-0005.ndjson");
    for bad in ["pageSize=0", "pageSize=1001", "lastEvaluatedKey=x"] {
        let path = format!("data/{id}/page?{bad}");
        assert_eq!(
            world.call("GET", &path, Value::Null).await.status,
            400,
            "{bad}"
        );
    }
    world.switch(json!({ "forge_data_page": false })).await;
    let path = format!("data/{id}/page");
    assert_eq!(world.call("GET", &path, Value::Null).await.status, 404);
    assert_eq!(
        world
            .call("GET", &format!("data/{id}/all"), Value::Null)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_file_comes_by_its_signed_url_or_as_the_payload() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let view = world.transfer(&id).await;
    let key = view["file_list"][0]["s3_key"].as_str().unwrap().to_owned();
    let signed = world
        .call("GET", &format!("data/{key}"), Value::Null)
        .await
        .body;
    let url = signed["url"].as_str().unwrap();
    let by_url = world
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let payload = world
        .call("GET", &format!("data/{key}/payload"), Value::Null)
        .await;
    assert_eq!(payload.headers["content-type"], "application/octet-stream");
    assert_eq!(payload.headers["content-length"], "900");
    assert_eq!((by_url.len(), payload.body), (900, Value::String(by_url)));
    let nothing = "data/00000000-0000-4000-8000-000000000000";
    assert_eq!(world.call("GET", nothing, Value::Null).await.status, 404);
    assert_eq!(world.transfer(&id).await["file_list"][0]["urls_issued"], 1);
}

#[tokio::test]
async fn mappings_keep_forges_limits() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let find = async |query: &str, body: Value| {
        let path = format!("mapping/{id}/find?{query}");
        world.call("POST", &path, body).await
    };
    let project = "namespace=jira/classic:project";
    let found = find(project, json!(["10001", "unmigrated1"])).await;
    assert_eq!(found.body.as_object().unwrap().len(), 1);
    assert_eq!(world.transfer(&id).await["mapping_calls"], 1);
    for (query, body) in [
        ("", json!(["10001"])),
        (project, json!(["10001", "10001"])),
        (project, json!(["10001", null])),
        (project, json!({ "keys": [] })),
    ] {
        assert_eq!(
            find(query, body.clone()).await.status,
            400,
            "{query} {body}"
        );
    }
    let page = async |query: &str| {
        let path = format!("mapping/{id}/page?namespace=identity:user{query}");
        world.call("GET", &path, Value::Null).await
    };
    let whole = page("").await.body;
    assert_eq!(whole["meta"]["pageSize"], 1_200);
    assert_eq!(whole["items"].as_object().unwrap().len(), 200);
    assert_eq!(page("&pageSize=1200").await.status, 200);
    assert_eq!(page("&pageSize=1201").await.status, 400);
    let first = page("&pageSize=150").await.body;
    let last = first["meta"]["lastEntity"].as_str().unwrap();
    let second = page(&format!("&pageSize=150&lastEntity={last}")).await.body;
    assert_eq!(first["meta"]["hasNext"], true);
    assert_eq!(second["items"].as_object().unwrap().len(), 50);
}

#[tokio::test]
async fn containers_are_an_array() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let page = async |query: &str| {
        let path = format!("container/{id}/page?{query}");
        world.call("GET", &path, Value::Null).await
    };
    let projects = page("containerType=JiraProject").await.body;
    let containers = projects["containers"].as_array().unwrap();
    assert_eq!(
        (containers.len(), &projects["meta"]["pageSize"]),
        (3, &json!(250))
    );
    assert!(containers.iter().all(|one| one["type"] == "JiraProject"));
    assert_eq!(page("containerType=Board").await.status, 400);
}

#[tokio::test]
async fn log_lines_are_kept_up_to_their_limit() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let log = async |body: Value| world.call("POST", &format!("log/{id}"), body).await.status;
    let longest = "ä".repeat(65_536);
    assert_eq!(log(json!({ "message": "first" })).await, 200);
    assert_eq!(log(json!({ "message": longest })).await, 200);
    assert_eq!(log(json!({ "message": format!("{longest}ö") })).await, 400);
    assert_eq!(log(json!({})).await, 400);
    let forge = world.transfer(&id).await["forge"].clone();
    assert_eq!(
        (&forge["logs"][0]["message"], &forge["log_count"]),
        (&json!("first"), &json!(2))
    );
}

#[tokio::test]
async fn answers_are_checked_as_a_whole() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(2)).await;
    let messages = world.messages(&id).await;
    let path = format!("message/{id}/status");
    let other = "00000000-0000-4000-8000-000000000000";
    let many: Vec<String> = (0..51)
        .map(|n| format!("00000000-0000-4000-8000-{n:012}"))
        .collect();
    for (body, status) in [
        (json!({ "messageIds": messages }), 400),
        (
            json!({ "status": "INCOMPLETE", "messageIds": messages }),
            400,
        ),
        (json!({ "status": "SUCCESS" }), 400),
        (json!({ "status": "SUCCESS", "messageIds": [] }), 400),
        (json!({ "status": "SUCCESS", "messageIds": ["x"] }), 400),
        (
            json!({ "status": "SUCCESS", "messageIds": [messages[0], messages[0]] }),
            400,
        ),
        (json!({ "status": "SUCCESS", "messageIds": many }), 400),
        (
            json!({ "status": "SUCCESS", "messageIds": [messages[0], other] }),
            404,
        ),
    ] {
        let answer = world.call("POST", &path, body.clone()).await;
        assert_eq!(answer.status, status, "{body}");
    }
    assert_eq!(world.transfer(&id).await["forge"]["open"], 2);
    let good = json!({ "status": "SUCCESS", "messageIds": [messages[0]] });
    let answer = world.call("POST", &path, good).await;
    assert_eq!((answer.status, answer.body), (200, "".into()));
}

#[tokio::test]
async fn the_first_answer_to_a_message_wins() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(2)).await;
    let messages = world.messages(&id).await;
    for status in ["SUCCESS", "SUCCESS", "FAILED"] {
        assert_eq!(world.answer(&id, status, &[&messages[0]]).await, 200);
    }
    let message = world.transfer(&id).await["forge"]["messages"][0].clone();
    assert_eq!(message["answer"], "SUCCESS");
    assert_eq!(
        (&message["answers"], &message["contradictions"]),
        (&json!(3), &json!(1))
    );
    assert!(message["answered_ms"].is_number());
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[1]]).await, 200);
    assert_eq!(world.state(&id).await, "SUCCESS");
}

#[tokio::test]
async fn faults_and_quotas_strike_forges_operations() {
    let world = ForgeWorld::installed().await;
    let id = world.migrate(files(1)).await;
    let messages = world.messages(&id).await;
    world
        .fault(json!({ "target": "forge.message_status", "kind": "status", "status": 429, "retry_after_s": 2, "next": 1, "site": "acme" }))
        .await;
    world
        .fault(json!({ "target": "forge", "kind": "status", "status": 503, "skip": 1, "next": 1 }))
        .await;
    let list = format!("data/{id}/all");
    assert_eq!(world.answer(&id, "SUCCESS", &[&messages[0]]).await, 429);
    assert_eq!(world.call("GET", &list, Value::Null).await.status, 503);
    let quota = json!({ "site": "acme", "calls": 1, "window_ms": 3_600_000_000_u64 });
    world.done("PUT", "quotas", quota).await;
    assert_eq!(world.call("GET", &list, Value::Null).await.status, 200);
    let beyond = world.call("GET", &list, Value::Null).await;
    assert_eq!(beyond.status, 429);
    assert!(beyond.headers.contains_key("retry-after"));
    let quotas = world.done("GET", "quotas", Value::Null).await;
    assert_eq!(quotas["acme"]["operations"]["forge.data_all"], 2);
    let wrong = json!({ "target": "forge.progress", "kind": "cut" });
    assert_eq!(world.control("POST", "faults", wrong).await.status, 400);
}
