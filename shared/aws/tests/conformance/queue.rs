//! The queue's promises on SQS, wherever `LANDFALL_SQS_ENDPOINT` points to: the local cloud's tests point it to MiniStack.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use landfall_aws::Sqs;
use landfall_clock::Clock;
use landfall_models::conformance::queue::{self, MAX_RECEIVES, Subject};
use serde_json::{Value, json};

landfall_models::queue_conformance!(on_sqs);

/// Where MiniStack deviates from what AWS documents; the model follows AWS.
const DEVIATIONS: [(&str, &str); 2] = [
    (
        "a_delay_of_more_than_fifteen_minutes_is_refused",
        "takes any delay of a message (AWS: DelaySeconds from 0 to 900)",
    ),
    (
        "a_message_group_is_of_letters_digits_and_punctuation",
        "takes any message group on a standard queue (AWS: 1 to 128 letters, digits and punctuation marks)",
    ),
];

async fn on_sqs(check: &str) {
    let Some(endpoint) = endpoint() else {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            say("LANDFALL_SQS_ENDPOINT is not set: the queue's promises were not tried on SQS");
        });
        return;
    };
    if let Some((_, deviation)) = DEVIATIONS.iter().find(|(name, _)| *name == check) {
        say(&format!("not tried on MiniStack: {check}: it {deviation}"));
        return;
    }
    let access = landfall_embedded::access(&endpoint);
    let (dead_url, dead_arn) = create(&endpoint, None).await;
    let redrive =
        format!(r#"{{"deadLetterTargetArn":"{dead_arn}","maxReceiveCount":"{MAX_RECEIVES}"}}"#);
    let (url, _) = create(&endpoint, Some(redrive)).await;
    let subject = Subject {
        messages: Arc::new(Sqs::new(access.clone(), &url)),
        dead_letters: Arc::new(Sqs::new(access, &dead_url)),
        pass: Box::new(|duration| Box::pin(Clock::system().sleep(duration))),
    };
    queue::run(check, &subject).await;
    for url in [url, dead_url] {
        call(&endpoint, "DeleteQueue", &json!({ "QueueUrl": url })).await;
    }
}

#[test]
fn every_deviation_is_of_a_check_that_exists() {
    for (name, _) in DEVIATIONS {
        assert!(queue::NAMES.contains(&name), "{name}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing but the environment can tell a test where SQS is"
)]
fn endpoint() -> Option<String> {
    std::env::var("LANDFALL_SQS_ENDPOINT").ok()
}

/// Past the harness, which shows a test's own output only when it fails.
fn say(what: &str) {
    std::io::stderr()
        .write_all(format!("{what}\n").as_bytes())
        .unwrap();
}

/// Makes a call that Landfall itself never makes.
async fn call(endpoint: &str, operation: &str, input: &Value) -> Value {
    let answer = reqwest::Client::new()
        .post(endpoint)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", format!("AmazonSQS.{operation}"))
        // Only so that the emulator knows the service and the region; it checks nothing.
        .header("authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/sqs/aws4_request, SignedHeaders=host, Signature=none")
        .body(input.to_string())
        .send()
        .await
        .unwrap();
    assert!(
        answer.status().is_success(),
        "{operation}: {}",
        answer.status()
    );
    let body = answer.bytes().await.unwrap();
    serde_json::from_slice(&body).unwrap_or_default()
}

/// Makes a queue of this process's own; returns its URL and its ARN.
async fn create(endpoint: &str, redrive: Option<String>) -> (String, String) {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("conformance-{}-{number}", std::process::id());
    let attributes = match redrive {
        Some(policy) => json!({ "RedrivePolicy": policy }),
        None => json!({}),
    };
    let input = json!({ "QueueName": name, "Attributes": attributes });
    let made = call(endpoint, "CreateQueue", &input).await;
    let url = made["QueueUrl"].as_str().unwrap().to_owned();
    let input = json!({ "QueueUrl": url, "AttributeNames": ["QueueArn"] });
    let found = call(endpoint, "GetQueueAttributes", &input).await;
    let arn = found["Attributes"]["QueueArn"].as_str().unwrap().to_owned();
    (url, arn)
}
