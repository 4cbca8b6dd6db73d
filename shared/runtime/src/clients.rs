use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use landfall_tracking::{Queue, Store};

use crate::environment::Environment;

/// How long a function waits for AWS, and how often it tries.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For one attempt.
    pub attempt: Duration,
    /// For all attempts of a call together.
    pub operation: Duration,
    /// Attempts of a call.
    pub attempts: u32,
}

impl Patience {
    /// For work in the background: nobody waits, so a throttled call may take its time.
    pub const BACKGROUND: Self = Self {
        connect: Duration::from_secs(2),
        attempt: Duration::from_secs(5),
        operation: Duration::from_secs(15),
        attempts: 4,
    };
}

/// The table and the queues.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The tracking table and the records table.
    pub store: Store,
    /// Control events.
    pub events: Queue,
    /// Files.
    pub imports: Queue,
    /// Dead letters of both queues, where the function may read them.
    pub dead_letters: Vec<Queue>,
}

impl Clients {
    /// Connects with the credentials and the endpoint of the process's environment.
    pub async fn connect(environment: &Environment, patience: Patience) -> Self {
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
        let queue = |url: &String| Queue::new(sqs.clone(), url);
        Self {
            store: Store::new(
                aws_sdk_dynamodb::Client::new(&shared),
                &environment.table,
                &environment.records_table,
            ),
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
}
