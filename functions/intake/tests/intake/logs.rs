//! What the log says, and what it never says.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use serde_json::json;

use crate::cloud::{Cloud, Mode};
use crate::platform::{
    INSTALLATION, KEY_ID, OTHER, SECRET, TENANT, bringing, claims, event, forge_event,
    forge_upload, hs256, install, invocation, invocation_claims, invoked, post, rs256,
    system_token, upload, webhook,
};

thread_local! {
    /// What was logged on this thread.
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps each thread's lines apart from now on. One subscriber for the whole process: whether a line is wanted at all is decided once
/// for everybody, and a test beside this one that has no subscriber would decide that it is not.
fn keep_lines() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(|| Lines)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        // A line that was met first between the two steps above is decided anew.
        tracing::callsite::rebuild_interest_cache();
    });
}

fn take() -> String {
    String::from_utf8(LINES.take()).unwrap()
}

#[tokio::test]
async fn the_log_names_the_failing_claim_and_the_canonical_requests_and_never_a_secret() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    keep_lines();
    let mut everything = String::new();

    install(&intake, TENANT, SECRET).await;
    install(&intake, TENANT, "rotated-secret").await;
    everything += &take();

    let token = hs256(&claims(TENANT, "/elsewhere"), SECRET);
    let request = post(
        "/connect/events",
        &token,
        event("listener-triggered", "m-1").to_string(),
    );
    intake.answer(&request).await;
    let line = take();
    let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(fields["auth.claim"], "qsh");
    assert_eq!(fields["tenant.claimed"], TENANT);
    assert_eq!(
        fields["qsh.theirs"],
        landfall_platform::connect::qsh::hash("POST&/elsewhere&")
    );
    assert!(
        fields["qsh.canonical"]
            .as_str()
            .unwrap()
            .contains("POST&/prod/landfall/connect/events&")
    );
    everything += &line;
    everything += &token;
    everything = everything.replace(&token, "");

    let mut in_query = post(
        "/connect/events",
        "",
        event("listener-triggered", "m-1").to_string(),
    );
    in_query.authorization = None;
    in_query.query = format!("jwt={token}");
    intake.answer(&in_query).await;
    let mut foreign = event("something-new", "m-2");
    foreign["migrationDetails"]["confluenceClientKey"] = json!(OTHER);
    for request in [
        webhook(&event("listener-triggered", "m-3")),
        webhook(&upload("key-1", "m-4")),
        webhook(&foreign),
    ] {
        assert_eq!(intake.answer(&request).await.status, 200);
    }
    let stored = take();
    assert!(
        stored.contains(r#""qsh.reading":"below-base""#)
            && stored.contains(r#""metric":"event_unknown_type""#)
    );
    everything += &stored;
    intake
        .answer(&post(
            "/connect/events",
            &hs256(&claims(TENANT, "/connect/events"), SECRET),
            "{\"private",
        ))
        .await;
    cloud.table.set(Mode::Fails);
    cloud.queues.set(Mode::Fails);
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "m-5")))
            .await
            .status,
        503
    );
    everything += &take();

    for secret in [
        SECRET,
        "rotated-secret",
        "Jane",
        "private",
        "eyJ",
        "attachments-0003",
        "JWT ",
    ] {
        assert!(
            !everything.contains(secret),
            "{secret} is in the log: {everything}"
        );
    }
}

#[tokio::test]
async fn neither_token_of_forge_is_in_the_log_the_rows_or_the_messages() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    keep_lines();
    let token = rs256(&invocation_claims(INSTALLATION), Some(KEY_ID));
    let other = rs256(&invocation_claims(INSTALLATION), Some("unknown"));
    let (known, newer) = (system_token(300), system_token(900));
    let unreadable = format!(
        "{}.canary.sung",
        system_token(1_200).split('.').next().unwrap()
    );
    let delivered = |token: &str, system_token: &str, body: String| {
        bringing(invoked("/forge/events", token, body), system_token)
    };
    let triggered = || forge_event("triggered:listener", "m-1").to_string();
    for (request, status) in [
        (delivered(&token, &known, triggered()), 200),
        (
            delivered(&token, &known, forge_upload("key-1", "m-2").to_string()),
            200,
        ),
        (delivered(&token, &unreadable, triggered()), 200),
        (delivered(&token, &newer, "{\"private".to_owned()), 400),
        (delivered(&other, &newer, triggered()), 401),
        (delivered(&format!("{token}x"), &newer, triggered()), 401),
        (bringing(invocation("/forge/token", ""), &newer), 200),
        (bringing(invocation("/forge/token", ""), &unreadable), 422),
        (invocation("/forge/token", ""), 422),
    ] {
        assert_eq!(intake.answer(&request).await.status, status);
    }
    cloud.table.set(Mode::Fails);
    cloud.queues.set(Mode::Fails);
    let last = system_token(3_600);
    for request in [
        delivered(&token, &last, triggered()),
        bringing(invocation("/forge/token", ""), &last),
    ] {
        assert_eq!(intake.answer(&request).await.status, 503);
    }
    let log = take();
    for metric in [
        "event_stored",
        "event_rejected",
        "event_not_stored",
        "call_unauthorized",
        "token_kept",
        "token_missing",
        "token_rejected",
        "token_not_kept",
    ] {
        assert!(log.contains(&format!(r#""metric":"{metric}""#)), "{metric}");
    }
    assert!(!log.contains("eyJ") && !log.contains("Bearer") && !log.contains("qsh"));
    let everything = format!("{log}{:?}{:?}", cloud.rows().await, cloud.sent());
    let tokens = [token, other, known, newer, unreadable, last];
    let parts = tokens.iter().flat_map(|token| token.split('.'));
    for secret in parts.chain(["Jane", "private"]) {
        assert!(!everything.contains(secret), "{secret} is in {everything}");
    }
}

#[tokio::test]
async fn a_flavour_that_the_app_is_not_on_is_told_of_once() {
    let cloud = Cloud::start().await;
    keep_lines();
    take();
    let (connect, forge) = (cloud.intake(), cloud.intake_on_forge_alone());
    let invoked = invocation("/forge/events", "{}");
    let called = webhook(&event("listener-triggered", "m-1"));
    for (intake, request, key) in [
        (&connect, &invoked, "forge.app"),
        (&forge, &called, "app.key"),
    ] {
        for _ in 0..2 {
            assert_eq!(intake.answer(request).await.status, 404);
        }
        let line = take();
        let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(fields["configuration.key"], key);
        assert_eq!(fields["metric"], "flavour_not_configured");
    }
}

#[tokio::test]
async fn warming_up_stores_and_logs_nothing() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    keep_lines();
    take();
    intake.warm_up().await;
    assert_eq!(take(), "");
    assert!(cloud.rows().await.is_empty());
}
