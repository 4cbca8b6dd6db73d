//! What the store promises, shown on an embedded DynamoDB through the real AWS SDK.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod files;
mod table;
mod tenants;
mod transfers;
