//! Installations, rotations, uninstallations.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud::{Cloud, Mode, text};
use crate::platform::{
    INSTALLATION, KEY_ID, SECRET, TENANT, claims, event, hs256, install, installation, lifecycle,
    lifecycle_claims, post, rs256, uninstall, webhook, webhook_of,
};

#[tokio::test]
async fn an_installation_is_stored_sealed_and_its_events_are_taken() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        401
    );
    assert_eq!(install(&intake, TENANT, SECRET).await.status, 200);
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        200
    );
    let row = cloud.rows_of("STATE").await.remove(0);
    assert_eq!(
        text(&row, "base_url"),
        "https://example-site.atlassian.net/wiki"
    );
    assert!(!format!("{row:?}").contains(SECRET));
}

#[tokio::test]
async fn an_installation_again_rotates_the_secret_and_drops_no_call_in_flight() {
    let cloud = Cloud::start().await;
    let (one, another) = (cloud.intake(), cloud.intake());
    install(&one, TENANT, SECRET).await;
    let status = async |intake, secret| {
        let request = webhook_of(TENANT, secret, &event("listener-triggered", "m"));
        landfall_intake::Intake::answer(intake, &request)
            .await
            .status
    };
    // The other instance knows the tenant with its first secret.
    assert_eq!(status(&another, SECRET).await, 200);
    install(&one, TENANT, "second-secret").await;
    // Delivered twice: the first secret stays the one before.
    install(&one, TENANT, "second-secret").await;
    for intake in [&one, &another] {
        assert_eq!(status(intake, "second-secret").await, 200);
        assert_eq!(status(intake, SECRET).await, 200);
        assert_eq!(status(intake, "third-secret").await, 401);
    }
    // The overlap is ten minutes; the tokens are made fresh for the moment.
    cloud.clock.advance(Duration::from_secs(601));
    let now = cloud.clock.now().as_seconds();
    let mut claims = claims(TENANT, "/connect/events");
    claims["iat"] = json!(now);
    claims["exp"] = json!(now + 180);
    for (secret, expected) in [(SECRET, 401), ("second-secret", 200)] {
        let request = post(
            "/connect/events",
            &hs256(&claims, secret),
            event("listener-triggered", "m").to_string(),
        );
        for intake in [&one, &another] {
            assert_eq!(intake.answer(&request).await.status, expected);
        }
    }
}

#[tokio::test]
async fn an_uninstalled_tenants_events_are_refused_until_it_installs_again() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        200
    );
    assert_eq!(uninstall(&intake, TENANT).await.status, 200);
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        401
    );
    install(&intake, TENANT, "secret-after").await;
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        401,
        "the old secret is dead"
    );
    let request = webhook_of(TENANT, "secret-after", &event("listener-triggered", "m"));
    assert_eq!(intake.answer(&request).await.status, 200);
}

#[tokio::test]
async fn an_uninstallation_that_another_instance_saw_is_known_here_after_the_caches_time() {
    let cloud = Cloud::start().await;
    let (one, another) = (cloud.intake(), cloud.intake());
    install(&one, TENANT, SECRET).await;
    assert_eq!(
        another
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        200
    );
    uninstall(&one, TENANT).await;
    cloud.clock.advance(Duration::from_secs(10));
    assert_eq!(
        another
            .answer(&webhook(&event("listener-triggered", "m")))
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn a_callback_whose_token_does_not_hold_is_401_and_stores_nothing() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    let path = "/connect/installed";
    let good = lifecycle_claims(TENANT, path);
    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        rs256(&claims, Some(KEY_ID))
    };
    let now = cloud.clock.now().as_seconds();
    for (name, token) in [
        ("HS256 with a secret of one's own", hs256(&good, SECRET)),
        ("no key id", rs256(&good, None)),
        ("a key id that is a path", rs256(&good, Some("../secret"))),
        (
            "a key id that is a URL",
            rs256(&good, Some("https://evil.example.com/key")),
        ),
        ("an unknown key id", rs256(&good, Some("unknown"))),
        ("another tenant's", with("iss", json!("another"))),
        ("no audience", rs256(&claims(TENANT, path), Some(KEY_ID))),
        (
            "for another app",
            with("aud", json!(["https://other.example.com"])),
        ),
        (
            "for another path",
            rs256(
                &lifecycle_claims(TENANT, "/connect/uninstalled"),
                Some(KEY_ID),
            ),
        ),
        ("expired", with("exp", json!(now - 61))),
        ("issued in the future", with("iat", json!(now + 61))),
        ("no token", "x".to_owned()),
    ] {
        let answer = intake
            .answer(&post(
                path,
                &token,
                installation(TENANT, SECRET).to_string(),
            ))
            .await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (401, "unauthorized"),
            "{name}"
        );
    }
    // Neither is a body looked at for somebody unknown.
    assert_eq!(
        intake
            .answer(&post(path, &hs256(&good, SECRET), "no JSON"))
            .await
            .status,
        401
    );
    assert!(cloud.rows().await.is_empty());
}

#[tokio::test]
async fn a_callback_that_can_not_be_used_says_why_to_the_platform() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    let with = |field: &str, value: Value| {
        let mut body = installation(TENANT, SECRET);
        body[field] = value;
        body
    };
    for (body, status) in [
        (with("sharedSecret", json!(null)), 422),
        (with("baseUrl", json!("https://evil.example.com/wiki")), 422),
        (
            with("baseUrl", json!("http://example-site.atlassian.net/wiki")),
            422,
        ),
        (with("baseUrl", json!("https://169.254.169.254/")), 422),
        (
            with("baseUrl", json!("https://evil.com#.atlassian.net")),
            422,
        ),
        (with("key", json!("com.example.another-app")), 422),
        (with("padding", json!("x".repeat(262_144))), 413),
        (json!("no object"), 400),
    ] {
        let answer = intake
            .answer(&lifecycle(TENANT, "/connect/installed", &body))
            .await;
        assert_eq!(answer.status, status, "{}", answer.reason);
    }
    assert!(cloud.rows().await.is_empty());
}

#[tokio::test]
async fn a_callback_that_can_not_be_checked_or_stored_now_is_503() {
    let cloud = Cloud::start().await;
    cloud.keys.set(500);
    let intake = cloud.intake();
    assert_eq!(install(&intake, TENANT, SECRET).await.status, 503);
    cloud.keys.set(200);
    for mode in [Mode::Fails, Mode::Hangs, Mode::Cuts] {
        cloud.table.set(mode);
        assert_eq!(
            install(&intake, TENANT, SECRET).await.status,
            503,
            "{mode:?}"
        );
    }
    cloud.table.set(Mode::Works);
    assert_eq!(install(&intake, TENANT, SECRET).await.status, 200);
}

#[tokio::test]
async fn an_uninstallation_of_an_unknown_tenant_is_acknowledged_and_makes_no_row() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    assert_eq!(uninstall(&intake, TENANT).await.status, 200);
    assert!(cloud.rows().await.is_empty());
}

#[tokio::test]
async fn no_client_key_looks_like_an_installation_on_forge() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    let installed = "/connect/installed";
    assert_eq!(install(&intake, INSTALLATION, SECRET).await.status, 401);
    assert_eq!(uninstall(&intake, INSTALLATION).await.status, 401);
    // By the token it is another tenant.
    let body = installation(INSTALLATION, SECRET);
    let token = rs256(&lifecycle_claims(TENANT, installed), Some(KEY_ID));
    let answer = intake
        .answer(&post(installed, &token, body.to_string()))
        .await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (422, "the callback has no usable clientKey")
    );
    assert!(cloud.rows().await.is_empty());
}
