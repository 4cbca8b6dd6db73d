#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

pub mod call;
pub mod connect;
pub mod digest;
pub mod downloads;
pub mod event;
pub mod forge;
pub mod hosts;
pub mod keys;
#[cfg(any(test, fuzzing))]
pub mod properties;
#[cfg(test)]
mod stub;
pub mod token;
