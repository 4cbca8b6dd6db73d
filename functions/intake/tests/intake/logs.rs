//! What the log says, and what it never says.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use serde_json::json;

use crate::cloud::{Cloud, Mode};
use crate::platform::{
    OTHER, SECRET, TENANT, claims, event, hs256, install, post, upload, webhook,
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
