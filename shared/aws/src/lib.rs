#![doc = include_str!("../README.md")]

mod connect;
mod dynamodb;
mod error;
mod sqs;

pub use connect::connect;
pub use dynamodb::DynamoDb;
pub use sqs::Sqs;
