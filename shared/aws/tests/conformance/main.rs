//! The adapters and the reference models keep the same promises: DynamoDB is dynoxide, reached as the functions reach AWS.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod attempts;
mod bucket;
mod contract;
mod data_keys;
mod meter;
mod queue;
mod table;
