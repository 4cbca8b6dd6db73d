use landfall_twin::EXAMPLE_FORGE_APP;
use serde_json::{Value, json};

use crate::forge_harness::{ForgeWorld, opened};

#[tokio::test]
async fn an_installation_has_its_aris_and_a_base_url_on_the_twin() {
    let world = ForgeWorld::bare().await;
    let installation = world.install().await;
    let cloud_id = installation["cloud_id"].as_str().unwrap();
    assert_eq!(installation["app"], EXAMPLE_FORGE_APP);
    assert!(
        installation["installation_id"]
            .as_str()
            .unwrap()
            .starts_with("ari:cloud:ecosystem::installation/")
    );
    let base_url = format!("{}/ex/jira/{cloud_id}", world.twin.url());
    assert_eq!(installation["api_base_url"], base_url);
    assert_eq!(
        installation["events_url"],
        format!("{}/forge/events", world.remote_url)
    );
    let sites = world.done("GET", "sites", Value::Null).await;
    assert_eq!(sites, json!([installation]));
    // Installed again it is the same tenant; after an uninstallation it is another.
    assert_eq!(world.install().await, installation);
    let gone = world
        .done("POST", "forge/uninstall", json!({ "site": "acme" }))
        .await;
    assert_eq!(gone["installation"]["state"], "uninstalled");
    let again = world.install().await;
    assert_ne!(again["installation_id"], installation["installation_id"]);
}

#[tokio::test]
async fn an_installation_that_makes_no_sense_is_refused() {
    let world = ForgeWorld::bare().await;
    for wish in [
        json!({ "site": "acme", "remote_base_url": "nowhere" }),
        json!({ "site": "a/b", "remote_base_url": world.remote_url }),
        json!({ "site": "acme", "remote_base_url": world.remote_url, "app": "vault" }),
        json!({ "site": "acme", "remote_base_url": world.remote_url, "client_key": "x" }),
    ] {
        let answer = world.control("POST", "forge/install", wish.clone()).await;
        assert!(matches!(answer.status, 400 | 422), "{wish}");
    }
    let nobody = world
        .control("POST", "forge/token", json!({ "site": "acme" }))
        .await;
    assert_eq!(nobody.status, 404);
}

#[tokio::test]
async fn an_invocation_token_has_the_documented_claims_and_a_published_key() {
    let world = ForgeWorld::installed().await;
    let installation = world.done("GET", "sites", Value::Null).await[0].clone();
    let minted = world.mint(json!({})).await;
    let keys = world.key_set().await;
    let (header, claims, good) = opened(minted["token"].as_str().unwrap(), &keys);
    assert!(good);
    assert_eq!((&header["alg"], keys.len()), (&json!("RS256"), 1));
    assert_eq!(claims, minted["claims"]);
    assert_eq!(claims["iss"], "forge/invocation-token");
    assert_eq!(claims["aud"], EXAMPLE_FORGE_APP);
    let app = &claims["app"];
    assert_eq!(app["id"], EXAMPLE_FORGE_APP);
    assert_eq!(app["installationId"], installation["installation_id"]);
    assert_eq!(app["apiBaseUrl"], installation["api_base_url"]);
    assert_eq!(app["environment"]["type"], "PRODUCTION");
    assert!(app["version"].is_string() && app["module"]["key"].is_string());
    assert!(app.get("installation").is_none() && claims.get("principal").is_none());
    assert_eq!(claims["context"]["cloudId"], installation["cloud_id"]);
    assert_eq!(claims["nbf"], claims["iat"]);
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, 300);
    assert_ne!(world.mint(json!({})).await["claims"]["jti"], claims["jti"]);
}

#[tokio::test]
async fn the_form_for_several_products_is_a_switch() {
    let world = ForgeWorld::installed().await;
    let installation = world.done("GET", "sites", Value::Null).await[0].clone();
    for (form, old) in [("both", true), ("contexts", false)] {
        world.switch(json!({ "forge_fit_claims": form })).await;
        let app = world.mint(json!({})).await["claims"]["app"].clone();
        assert_eq!(app.get("installationId").is_some(), old, "{form}");
        assert_eq!(app.get("apiBaseUrl").is_some(), old, "{form}");
        let expected = json!({
            "id": installation["installation_id"],
            "contexts": [{
                "name": "jira",
                "apiBaseUrl": installation["api_base_url"],
                "cloudId": installation["cloud_id"],
            }],
        });
        assert_eq!(app["installation"], expected, "{form}");
    }
}

#[tokio::test]
async fn keys_rotate_and_the_old_ones_stay_published_until_they_retire() {
    let world = ForgeWorld::installed().await;
    let before = world.mint(json!({})).await;
    let rotated = world.done("POST", "forge/keys/rotate", Value::Null).await;
    let after = world.mint(json!({})).await;
    let keys = world.key_set().await;
    assert_eq!(keys.len(), 2);
    for (minted, current) in [(&before, false), (&after, true)] {
        let (header, _, good) = opened(minted["token"].as_str().unwrap(), &keys);
        assert!(good);
        assert_eq!(header["kid"] == rotated["kid"], current);
    }
    let retire = json!({ "retire_old": true });
    world.done("POST", "forge/keys/rotate", retire).await;
    let keys = world.key_set().await;
    assert_eq!(keys.len(), 1);
    assert!(!opened(after["token"].as_str().unwrap(), &keys).2);
    world
        .fault(json!({ "target": "forge_keys", "kind": "status", "status": 503, "next": 1 }))
        .await;
    let url = format!("{}/.well-known/jwks.json", world.twin.url());
    assert_eq!(world.http.get(url).send().await.unwrap().status(), 503);
}

#[tokio::test]
async fn a_token_is_made_wrong_in_whatever_way_a_test_asks_for() {
    let world = ForgeWorld::installed().await;
    let keys = world.key_set().await;
    let made = async |token: Value| {
        let minted = world.mint(json!({ "token": token })).await;
        opened(minted["token"].as_str().unwrap(), &keys)
    };
    let (_, good, _) = made(json!({})).await;
    for (name, wish) in [("aud", "audience"), ("iss", "issuer")] {
        let (_, claims, signed) = made(json!({ wish: "another" })).await;
        assert!(signed && claims[name] == "another");
        assert!(made(json!({ wish: "" })).await.1.get(name).is_none());
    }
    for algorithm in ["HS256", "HS256_with_public_key", "none"] {
        let (header, _, signed) = made(json!({ "algorithm": algorithm })).await;
        let plain = algorithm.split('_').next().unwrap();
        assert!(!signed && header["alg"] == plain, "{algorithm}");
    }
    let (header, _, signed) = made(json!({ "algorithm": "RS256_with_secret" })).await;
    assert!(!signed && header["alg"] == "RS256");
    let (header, _, signed) = made(json!({ "signed_by": "unpublished" })).await;
    assert!(!signed && header["kid"] == keys[0]["kid"]);
    assert_eq!(made(json!({ "key_id": "other" })).await.0["kid"], "other");
    assert!(made(json!({ "key_id": "" })).await.0.get("kid").is_none());
    let times = json!({ "issued_in_s": -900, "expires_in_s": -600, "not_before_in_s": 60 });
    let (_, claims, signed) = made(times).await;
    let second = |claims: &Value, name: &str| claims[name].as_i64().unwrap();
    assert!(signed);
    assert_eq!(second(&claims, "exp") - second(&claims, "iat"), 300);
    assert_eq!(second(&claims, "nbf") - second(&claims, "exp"), 660);
    let over = json!({ "claims": { "app": { "installationId": "x", "version": null }, "principal": "p" } });
    let (_, claims, _) = made(over).await;
    assert_eq!(claims["app"]["installationId"], "x");
    assert_eq!(claims["app"]["id"], good["app"]["id"]);
    assert!(claims["app"].get("version").is_none());
    assert_eq!(claims["principal"], "p");
}

#[tokio::test]
async fn tokens_follow_the_platforms_clock_unless_told_otherwise() {
    let world = ForgeWorld::installed().await;
    let issued = async || {
        world.mint(json!({})).await["claims"]["iat"]
            .as_i64()
            .unwrap()
    };
    let before = issued().await;
    world.minutes(60).await;
    assert!((3_600..3_610).contains(&(issued().await - before)));
    world.switch(json!({ "forge_token_clock": "wall" })).await;
    assert!((0..10).contains(&(issued().await - before)));
}

#[tokio::test]
async fn the_scheduled_trigger_brings_a_system_token_that_says_when_it_expires() {
    let world = ForgeWorld::installed().await;
    let site = json!({ "site": "acme" });
    let fired = world.done("POST", "forge/refresh", site.clone()).await;
    assert_eq!(
        (&fired["dropped"], &fired["status"]),
        (&json!(false), &json!(200))
    );
    let invocation = world.until(1, |_| true).await.remove(0);
    assert_eq!(invocation.path, "/vault/forge/refresh");
    assert_eq!(invocation.header("content-type"), "application/json");
    let (_, claims, good) = opened(invocation.fit(), &world.key_set().await);
    assert!(good);
    assert_eq!(claims["app"]["module"]["type"], "scheduledTrigger");
    let (_, system, _) = opened(invocation.header("x-forge-oauth-system"), &[]);
    let life = system["exp"].as_i64().unwrap() - system["iat"].as_i64().unwrap();
    assert_eq!(life, 4 * 3_600);
    assert_eq!(invocation.header("x-b3-traceid").len(), 32);
    world
        .switch(json!({ "forge_system_token_life_s": 60 }))
        .await;
    world.remote.answer_next(&[(200, "text/plain")]);
    world.done("POST", "forge/refresh", site.clone()).await;
    let invocation = world.until(2, |_| true).await.remove(1);
    let (_, system, _) = opened(invocation.header("x-forge-oauth-system"), &[]);
    let life = system["exp"].as_i64().unwrap() - system["iat"].as_i64().unwrap();
    assert_eq!(life, 60);
    world
        .fault(json!({ "target": "forge_refresh", "kind": "drop", "next": 1 }))
        .await;
    let dropped = world.done("POST", "forge/refresh", site).await;
    assert_eq!(dropped["dropped"], true);
    assert_eq!(world.remote.received().len(), 2);
    let refreshes = world.done("GET", "sites", Value::Null).await[0]["refreshes"].clone();
    assert_eq!(refreshes[0]["error"], Value::Null);
    assert_eq!(
        refreshes[1]["error"],
        "the content type is not application/json"
    );
    assert_eq!(refreshes[2]["dropped"], true);
}

#[tokio::test]
async fn the_scheduled_trigger_fires_by_itself_when_the_clock_says_so() {
    let world = ForgeWorld::installed().await;
    world.minutes(30).await;
    assert!(world.remote.received().is_empty());
    world
        .switch(json!({ "forge_refresh_interval_ms": 600_000 }))
        .await;
    // The half hour that has passed counts, once.
    world.until(1, |_| true).await;
    world.minutes(9).await;
    world.minutes(2).await;
    let fired = world.until(2, |_| true).await;
    assert_eq!(fired.len(), 2);
    assert!(fired.iter().all(|one| one.path.ends_with("/refresh")));
}
