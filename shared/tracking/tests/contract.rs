//! What the store promises, on the table model. `shared/aws` shows the same on a DynamoDB in the process.

use std::sync::Arc;

use landfall_clock::Clock;
use landfall_models::TableModel;
use landfall_models::contract::{self, Subject};

landfall_models::store_contract!(on_the_model);

async fn on_the_model(check: &str) {
    let table = TableModel::new(Clock::system());
    contract::run(check, &Subject::on(Arc::new(table))).await;
}

/// Two rows a page, and two of many: what takes one call elsewhere takes several here.
#[tokio::test]
async fn every_promise_holds_page_by_page() {
    for check in contract::NAMES {
        let table = TableModel::new(Clock::system());
        table.limit_pages(2);
        contract::run(check, &Subject::on(Arc::new(table))).await;
    }
}
