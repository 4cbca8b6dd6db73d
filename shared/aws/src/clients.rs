use std::sync::Arc;

use landfall_clock::Clock;
use landfall_runtime::{Clients, Configuration};
use landfall_tracking::{Queue, Store, Vault};

use crate::access::Access;
use crate::dynamodb::DynamoDb;
use crate::kms::Kms;
use crate::sqs::Sqs;

/// The table, the queues and the vault behind them, as `access` reaches them. Nothing is opened yet.
pub fn clients(configuration: &Configuration, access: &Access, clock: Clock) -> Clients {
    let environment = &configuration.environment;
    let queue = |url: &String| Queue::new(Arc::new(Sqs::new(access.clone(), url)));
    let table = DynamoDb::new(
        access.clone(),
        &environment.table,
        &environment.records_table,
    );
    let secret_key = Arc::clone(&configuration.secret_key);
    let vault = match &environment.kms_key {
        Some(key) => {
            let kms = Kms::new(access.clone(), key);
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
