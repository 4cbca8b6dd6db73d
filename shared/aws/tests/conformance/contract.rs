use landfall_models::contract::{self, Subject};

landfall_models::store_contract!(on_dynamodb);

async fn on_dynamodb(check: &str) {
    let table = landfall_embedded::table(&landfall_embedded::tables().await);
    contract::run(check, &Subject::on(table)).await;
}
