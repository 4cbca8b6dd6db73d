use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;

use crate::harness::{World, files};

#[tokio::test]
async fn files_are_listed_with_their_labels_and_served_whole_or_by_range() {
    let world = World::installed().await;
    let id = world
        .migrate(json!({ "files": [{ "records": 1000 }, { "unlabelled": true }] }))
        .await;
    let listed = world
        .call("GET", &format!("data/{id}/all"), Value::Null)
        .await
        .body;
    assert_eq!(listed[0]["label"], "records-0001.ndjson");
    assert!(listed[1].get("label").is_none() && listed[1]["s3Key"].is_string());
    let url = world.file_url(&id, 0).await;
    let whole = world.http.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-length"], "300000");
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole.len(), 300_000);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=123456-", 123_456, 300_000),
        ("bytes=-7", 299_993, 300_000),
    ] {
        let part = world
            .http
            .get(&url)
            .header("Range", range)
            .send()
            .await
            .unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(
            part.headers()["content-range"].to_str().unwrap(),
            format!("bytes {from}-{}/300000", to - 1)
        );
        assert_eq!(part.bytes().await.unwrap(), whole.slice(from..to));
    }
    let beyond = world
        .http
        .get(&url)
        .header("Range", "bytes=300000-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"], "bytes */300000");
    let fetches = &world.transfer(&id).await["file_list"][0]["fetches"];
    assert_eq!(fetches.as_array().unwrap().len(), 5);
    assert_eq!(fetches[1]["range"], json!([0, 0]));
}

#[tokio::test]
async fn a_huge_file_costs_only_what_is_read_of_it() {
    let world = World::installed().await;
    let id = world
        .migrate(json!({ "files": [{ "bytes": 25_000_000_000_u64 }] }))
        .await;
    let url = world.file_url(&id, 0).await;
    let part = world
        .http
        .get(&url)
        .header("Range", "bytes=24000000000-24000000299")
        .send()
        .await
        .unwrap();
    let record: Value = serde_json::from_slice(&part.bytes().await.unwrap()).unwrap();
    assert_eq!(record["id"], "80010000");
}

#[tokio::test]
async fn a_gzip_file_unpacks_to_the_same_records_as_the_plain_one() {
    let world = World::installed().await;
    let shape = json!({ "format": "json", "records": 40, "seed": 9, "first_id": 1 });
    let mut gzip = shape.clone();
    gzip["gzip"] = true.into();
    let id = world.migrate(json!({ "files": [shape, gzip] })).await;
    let (plain, packed) = (world.file_url(&id, 0).await, world.file_url(&id, 1).await);
    let plain = world
        .http
        .get(plain)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let packed = world
        .http
        .get(packed)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain);
}

#[tokio::test]
async fn given_bytes_are_served_as_they_are() {
    let world = World::installed().await;
    let id = world
        .migrate(json!({ "files": [{ "label": "odd", "content_base64": "H4sAAA==" }] }))
        .await;
    let url = world.file_url(&id, 0).await;
    let bytes = world
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(&bytes[..], [0x1f, 0x8b, 0, 0]);
}

#[tokio::test]
async fn a_signed_url_dies_after_an_hour_and_a_new_one_works() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let url = world.file_url(&id, 0).await;
    let get = |url: String| async { world.http.get(url).send().await.unwrap().status().as_u16() };
    world.advance(json!({ "minutes": 59 })).await;
    assert_eq!(get(url.clone()).await, 200);
    world.advance(json!({ "minutes": 1 })).await;
    assert_eq!(get(url.clone()).await, 403);
    assert_eq!(get(world.file_url(&id, 0).await).await, 200);
    // A longer life can't be had by editing the URL.
    let (start, rest) = url.split_once("expires=").unwrap();
    let (_, signature) = rest.split_once('&').unwrap();
    assert_eq!(
        get(format!("{start}expires=99999999999999&{signature}")).await,
        403
    );
}

#[tokio::test]
async fn the_store_refuses_an_authorization_header_and_other_methods() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let url = world.file_url(&id, 0).await;
    let answer = world
        .http
        .get(&url)
        .header("Authorization", "JWT x.y.z")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(world.http.head(&url).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn ranges_and_content_encoding_are_switches() {
    let world = World::installed().await;
    let id = world
        .migrate(json!({ "files": [{ "records": 10, "gzip": true }] }))
        .await;
    world
        .switch(json!({ "store_ranges": false, "store_content_encoding": true }))
        .await;
    let url = world.file_url(&id, 0).await;
    let answer = world
        .http
        .get(&url)
        .header("Range", "bytes=5-")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("accept-ranges"));
    assert_eq!(answer.headers()["content-encoding"], "gzip");
}

#[tokio::test]
async fn mappings_leave_out_what_they_do_not_know() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let declared =
        json!({ "namespace": "jira/classic:project", "values": { "X": "7" }, "holes": ["10002"] });
    world.done("PUT", "mappings", declared).await;
    let find = |namespace: &str, keys: Value| {
        let path = format!("mapping/{id}/find?namespace={namespace}");
        let world = &world;
        async move { world.call("POST", &path, keys).await }
    };
    let answer = find("jira%2Fclassic%3Aproject", json!(["10001", "10002", "X"])).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["X"], "7");
    assert!(answer.body["10001"].is_string() && answer.body.get("10002").is_none());
    // Unencoded is the same request, with the same hash.
    assert_eq!(
        find("jira/classic:project", json!(["10001"])).await.body["10001"],
        answer.body["10001"]
    );
    assert_eq!(
        find("identity:user", json!(["admin"])).await.body,
        json!({})
    );
    for bad in [json!([null]), json!([""]), json!([1]), json!({})] {
        assert_eq!(
            find("identity:user", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
    let without = world
        .call("POST", &format!("mapping/{id}/find"), json!(["a"]))
        .await;
    assert_eq!(without.status, 400);
    world.switch(json!({ "mapping_find_max_keys": 2 })).await;
    assert_eq!(find("a", json!(["1", "2", "3"])).await.status, 400);
    let missed = world
        .done("GET", &format!("transfers/{id}/mappings"), Value::Null)
        .await;
    assert_eq!(missed["not_found"]["identity:user admin"], 1);
}

#[tokio::test]
async fn mapping_pages_run_through_all_keys_once() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    for (form, last) in [("value", true), ("null", false), ("absent", false)] {
        world.switch(json!({ "last_entity": form })).await;
        let mut all = BTreeMap::new();
        let mut after = String::new();
        let pages = loop {
            let path = format!("mapping/{id}/page?namespace=identity:user&pageSize=75{after}");
            let page = world.call("GET", &path, Value::Null).await.body;
            for (key, value) in page["items"].as_object().unwrap() {
                assert!(all.insert(key.clone(), value.clone()).is_none());
            }
            let meta = &page["meta"];
            assert_eq!(meta["pageSize"], 75);
            if meta["hasNext"] == false {
                assert_eq!(meta["lastEntity"].is_string(), last, "{form}");
                assert_eq!(meta.get("lastEntity").is_none(), form == "absent");
                break all.len();
            }
            after = format!("&lastEntity={}", meta["lastEntity"].as_str().unwrap());
        };
        assert_eq!(pages, 200);
    }
    for size in ["0", "5001", "x"] {
        let path = format!("mapping/{id}/page?namespace=a&pageSize={size}");
        assert_eq!(world.call("GET", &path, Value::Null).await.status, 400);
    }
}

#[tokio::test]
async fn containers_are_a_map_in_pages() {
    let world = World::installed().await;
    let id = world.migrate(json!({ "files": [], "containers": 7 })).await;
    let page = |query: &str| {
        let path = format!("container/{id}/page?{query}");
        let world = &world;
        async move { world.call("GET", &path, Value::Null).await }
    };
    let first = page("containerType=JiraProject&pageSize=5").await.body;
    assert_eq!(first["containers"].as_object().unwrap().len(), 5);
    let after = first["meta"]["lastEntity"].as_str().unwrap();
    let rest = page(&format!(
        "containerType=JiraProject&pageSize=5&lastEntity={after}"
    ))
    .await
    .body;
    assert_eq!(rest["containers"].as_object().unwrap().len(), 2);
    assert_eq!(rest["meta"]["hasNext"], false);
    let site = page("containerType=Site").await.body;
    let entry = site["containers"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap();
    assert_eq!(entry["selectedUsers"], "ALL_USERS");
    assert_eq!(
        page("containerType=ConfluenceSpace").await.body["containers"],
        json!({})
    );
    for bad in ["", "containerType=Other", "containerType=Site&pageSize=251"] {
        assert_eq!(page(bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_file_can_be_listed_only_after_its_event() {
    let world = World::installed().await;
    world.switch(json!({ "data_listed": "after_event" })).await;
    world.app.answer_always(503);
    let id = world.migrate(files(1)).await;
    world
        .until(1, |one| one.event_type() == "app-data-uploaded")
        .await;
    let list = format!("data/{id}/all");
    assert_eq!(world.call("GET", &list, Value::Null).await.body, json!([]));
    world.app.answer_always(200);
    world.wait(&id, "delivered").await;
    assert_eq!(
        world
            .call("GET", &list, Value::Null)
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
