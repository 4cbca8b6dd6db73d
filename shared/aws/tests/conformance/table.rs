use std::sync::Arc;

use landfall_aws::DynamoDb;
use landfall_clock::Clock;
use landfall_models::TableModel;
use landfall_models::conformance::{differential, table};

landfall_models::table_conformance!(on_dynamodb);

async fn dynamodb() -> Arc<DynamoDb> {
    landfall_embedded::table(&landfall_embedded::tables().await)
}

async fn on_dynamodb(check: &str) {
    table::run(check, &*dynamodb().await).await;
}

/// Sequences of random calls, and tasks that they are shared out to.
const SEEDS: u64 = 40;
const TASKS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_model_and_dynamodb_answer_every_random_call_alike() {
    let tasks: Vec<_> = (0..TASKS)
        .map(|first| {
            tokio::spawn(async move {
                let (model, dynamodb) = (TableModel::new(Clock::system()), dynamodb().await);
                for seed in (first..SEEDS).step_by(TASKS.try_into().unwrap()) {
                    differential::compare(seed, &model, &*dynamodb).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
