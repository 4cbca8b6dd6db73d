use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use landfall_twin::query_string_hash;
use serde_json::{Value, json};

use crate::harness::{APP_KEY, World, files, opened};

#[tokio::test]
async fn an_installation_is_signed_with_the_key_that_the_key_server_publishes() {
    let world = World::bare().await;
    let installed = world.install().await;
    assert_eq!(installed["accepted"], true);
    let callback = world.app.received().remove(0);
    assert_eq!(callback.path, "/vault/connect/installed");
    let body = &callback.body;
    assert_eq!(body["key"], APP_KEY);
    assert_eq!(body["eventType"], "installed");
    assert_eq!(body["productType"], "jira");
    assert_eq!(body["baseUrl"], format!("{}/sites/acme", world.twin.url()));
    assert_eq!(body["clientKey"], installed["installation"]["client_key"]);
    assert_eq!(
        body["sharedSecret"],
        installed["installation"]["shared_secret"]
    );

    let token = callback.token();
    let (header, claims) = opened(&token, None);
    assert_eq!(header["alg"], "RS256");
    assert_eq!(claims["iss"], body["clientKey"]);
    assert_eq!(claims["aud"], json!([world.app_url]));
    assert_eq!(claims["qsh"], query_string_hash("POST&/connect/installed&"));
    let key_url = format!(
        "{}/install-keys/{}",
        world.twin.url(),
        header["kid"].as_str().unwrap()
    );
    let pem = world
        .http
        .get(key_url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, STANDARD.decode(der).unwrap());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    key.verify(
        signed.as_bytes(),
        &URL_SAFE_NO_PAD.decode(signature).unwrap(),
    )
    .unwrap();

    let unknown = format!("{}/install-keys/unknown", world.twin.url());
    assert_eq!(world.http.get(unknown).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_secret_that_the_app_refused_is_not_used() {
    let world = World::bare().await;
    world.app.answer_next(&[401]);
    let refused = world.install().await;
    assert_eq!(refused["accepted"], false);
    assert_eq!(refused["status"], 401);
    assert_eq!(world.done("GET", "sites", Value::Null).await, json!([]));
}

#[tokio::test]
async fn rotation_keeps_the_tenant_and_changes_the_secret() {
    let world = World::installed().await;
    let before = world.mint("GET", "transfer/recent").await;
    let sites = world.done("GET", "sites", Value::Null).await;
    let rotated = world
        .done("POST", "rotate", json!({ "site": "acme" }))
        .await;
    assert_eq!(
        rotated["installation"]["client_key"],
        sites[0]["client_key"]
    );
    assert_ne!(
        rotated["installation"]["shared_secret"],
        sites[0]["shared_secret"]
    );
    let authorization = before["authorization"].as_str().unwrap();
    let old = world
        .call_with("GET", "transfer/recent", Value::Null, authorization)
        .await;
    assert_eq!(old.status, 401);
    assert!(world.recent().await.is_empty());
}

#[tokio::test]
async fn a_data_import_makes_a_new_tenant_with_the_same_base_url() {
    let world = World::installed().await;
    let id = world.migrate(files(1)).await;
    let sites = world.done("GET", "sites", Value::Null).await;
    let imported = world
        .done("POST", "data-import", json!({ "site": "acme" }))
        .await;
    assert_ne!(
        imported["installation"]["client_key"],
        sites[0]["client_key"]
    );
    assert_eq!(imported["installation"]["base_url"], sites[0]["base_url"]);
    // The transfer belongs to the tenant that is gone.
    assert!(world.recent().await.is_empty());
    assert_eq!(
        world
            .progress(&id, json!({ "status": "FAILED" }))
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn an_uninstalled_app_is_unauthorized_and_gets_no_events() {
    let world = World::installed().await;
    let token = world.mint("GET", "transfer/recent").await;
    world
        .done("POST", "uninstall", json!({ "site": "acme" }))
        .await;
    let callback = world.app.received().pop().unwrap();
    assert_eq!(callback.body["eventType"], "uninstalled");
    assert!(callback.body.get("sharedSecret").is_none());
    let authorization = token["authorization"].as_str().unwrap();
    let answer = world
        .call_with("GET", "transfer/recent", Value::Null, authorization)
        .await;
    assert_eq!(answer.status, 401);
    let refused = world
        .control("POST", "migrations", json!({ "site": "acme", "files": [] }))
        .await;
    assert_eq!(refused.status, 409);
}

#[tokio::test]
async fn requests_with_a_wrong_token_are_401_and_a_get_with_a_body_is_403() {
    let world = World::installed().await;
    let other = world.mint("GET", "webhook").await;
    let wrong = other["authorization"].as_str().unwrap();
    let answer = world
        .call_with("GET", "transfer/recent", Value::Null, wrong)
        .await;
    assert_eq!(answer.status, 401);
    assert!(answer.body["twinHint"].as_str().unwrap().contains("qsh"));
    let none = world
        .http
        .get(world.rest("transfer/recent"))
        .send()
        .await
        .unwrap();
    assert_eq!(none.status(), 401);
    let with_body = world.call("GET", "transfer/recent", json!([])).await;
    assert_eq!(with_body.status, 403);
    // A Confluence base URL has the context path /wiki, which is no part of the qsh.
    let world = World::bare().await.on("confluence");
    world.install().await;
    assert!(world.recent().await.is_empty());
}

#[tokio::test]
async fn webhooks_are_replaced_as_a_set_of_at_most_five_urls() {
    let world = World::installed().await;
    let url = |n: usize| format!("{}/registered/{n}/events", world.app_url);
    let put = |endpoints: Value| world.call("PUT", "webhook", json!({ "endpoints": endpoints }));
    for bad in [
        json!([]),
        json!(["nowhere"]),
        json!([1]),
        json!((0..6).map(url).collect::<Vec<_>>()),
    ] {
        assert_eq!(put(bad.clone()).await.status, 400, "{bad}");
    }
    assert_eq!(put(json!([url(1), url(2)])).await.status, 200);
    assert_eq!(put(json!([url(3)])).await.status, 200);
    let registered = world.call("GET", "webhook", Value::Null).await;
    assert_eq!(registered.body, json!({ "endpoints": [url(3)] }));
    world.migrate(json!({ "files": [] })).await;
    let both = world
        .until(2, |one| one.event_type() == "listener-triggered")
        .await;
    let paths: Vec<&str> = both.iter().map(|one| one.path.as_str()).collect();
    assert!(paths.contains(&"/vault/connect/events"));
    assert!(paths.contains(&"/vault/registered/3/events"));
    assert_eq!(both[0].body["messageId"], both[1].body["messageId"]);
}
