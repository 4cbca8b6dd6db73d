//! What the log says, and what it never says.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::cloud::{Cloud, Mode};
use crate::platform::{
    OTHER, SECRET, TENANT, claims, event, hs256, install, post, upload, webhook,
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn the_log_names_the_failing_claim_and_the_canonical_requests_and_never_a_secret() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut everything = String::new();

    install(&intake, TENANT, SECRET).await;
    install(&intake, TENANT, "rotated-secret").await;
    everything += &lines.take();

    let token = hs256(&claims(TENANT, "/elsewhere"), SECRET);
    let request = post(
        "/connect/events",
        &token,
        event("listener-triggered", "m-1").to_string(),
    );
    intake.answer(&request).await;
    let line = lines.take();
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
    let stored = lines.take();
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
    everything += &lines.take();

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
