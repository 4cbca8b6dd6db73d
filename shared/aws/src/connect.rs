use std::sync::Arc;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use landfall_clock::Clock;
use landfall_runtime::{Clients, Configuration, Patience};
use landfall_tracking::{Queue, Store, Vault};

use crate::dynamodb::DynamoDb;
use crate::kms::Kms;
use crate::sqs::Sqs;

/// Connects with the credentials and the endpoint of the process's environment.
pub async fn connect(configuration: &Configuration, patience: Patience, clock: Clock) -> Clients {
    let environment = &configuration.environment;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(patience.connect)
        .operation_attempt_timeout(patience.attempt)
        .operation_timeout(patience.operation)
        .build();
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(patience.attempts))
        .load()
        .await;
    let sqs = aws_sdk_sqs::Client::new(&shared);
    let queue = |url: &String| Queue::new(Arc::new(Sqs::new(sqs.clone(), url)));
    let table = DynamoDb::new(
        aws_sdk_dynamodb::Client::new(&shared),
        &environment.table,
        &environment.records_table,
    );
    let secret_key = Arc::clone(&configuration.secret_key);
    let vault = match &environment.kms_key {
        Some(key) => {
            let kms = Kms::new(aws_sdk_kms::Client::new(&shared), key);
            Vault::enveloping(secret_key, Arc::new(kms), clock.clone())
        }
        None => Vault::local(secret_key),
    };
    Clients {
        store: Store::new(Arc::new(table), Arc::new(vault), clock),
        events: queue(&environment.events_queue_url),
        imports: queue(&environment.imports_queue_url),
        dead_letters: [
            &environment.events_dead_letter_queue_url,
            &environment.imports_dead_letter_queue_url,
        ]
        .into_iter()
        .flatten()
        .map(queue)
        .collect(),
    }
}
