//! The table model keeps the promises of its port.

use landfall_clock::Clock;
use landfall_models::TableModel;
use landfall_models::conformance::table;

landfall_models::table_conformance!(on_the_model);

async fn on_the_model(check: &str) {
    table::run(check, &TableModel::new(Clock::system())).await;
}
