//! The queue's promises on SQS, wherever `LANDFALL_SQS_ENDPOINT` points to: the local cloud's tests point it to MiniStack.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::types::QueueAttributeName;
use landfall_aws::Sqs;
use landfall_clock::Clock;
use landfall_models::conformance::queue::{self, MAX_RECEIVES, Subject};

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
    let client = client(&endpoint);
    let (dead_url, dead_arn) = create(&client, None).await;
    let redrive =
        format!(r#"{{"deadLetterTargetArn":"{dead_arn}","maxReceiveCount":"{MAX_RECEIVES}"}}"#);
    let (url, _) = create(&client, Some(redrive)).await;
    let subject = Subject {
        messages: Arc::new(Sqs::new(client.clone(), &url)),
        dead_letters: Arc::new(Sqs::new(client.clone(), &dead_url)),
        pass: Box::new(|duration| Box::pin(Clock::system().sleep(duration))),
    };
    queue::run(check, &subject).await;
    for url in [url, dead_url] {
        client.delete_queue().queue_url(url).send().await.unwrap();
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

fn client(endpoint: &str) -> Client {
    Client::from_conf(
        aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(landfall_embedded::credentials())
            .endpoint_url(endpoint)
            .build(),
    )
}

/// Makes a queue of this process's own; returns its URL and its ARN.
async fn create(client: &Client, redrive: Option<String>) -> (String, String) {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let request = client
        .create_queue()
        .queue_name(format!("conformance-{}-{number}", std::process::id()));
    let request = match redrive {
        Some(policy) => request.attributes(QueueAttributeName::RedrivePolicy, policy),
        None => request,
    };
    let url = request.send().await.unwrap().queue_url.unwrap();
    let attributes = client
        .get_queue_attributes()
        .queue_url(&url)
        .attribute_names(QueueAttributeName::QueueArn)
        .send()
        .await
        .unwrap();
    let arn = attributes.attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
    (url, arn)
}
