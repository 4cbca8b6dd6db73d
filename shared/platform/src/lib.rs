#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

pub mod connect;
pub mod digest;
pub mod downloads;
pub mod event;
pub mod hosts;
#[cfg(any(test, fuzzing))]
pub mod properties;
