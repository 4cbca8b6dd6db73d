//! What both ports promise, as checks that know nothing but the port: the models and the real protocols are held to the same.

#![allow(
    clippy::unwrap_used,
    reason = "a check says what went wrong by panicking"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "an outcome is handed over to be judged"
)]

pub mod differential;
pub mod queue;
pub mod table;
