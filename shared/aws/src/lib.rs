#![doc = include_str!("../README.md")]

mod access;
mod clients;
mod dynamodb;
mod error;
mod json;
mod kms;
mod s3;
mod sqs;

pub use access::{Access, AccessError};
pub use clients::clients;
pub use dynamodb::DynamoDb;
pub use kms::Kms;
pub use s3::S3;
pub use sqs::Sqs;
