#![doc = include_str!("../README.md")]

mod connect;
mod dynamodb;
mod error;
mod kms;
mod s3;
mod sqs;

pub use connect::connect;
pub use dynamodb::DynamoDb;
pub use kms::Kms;
pub use s3::S3;
pub use sqs::Sqs;
