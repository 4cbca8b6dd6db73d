#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod answer;
mod authentication;
mod deadline;
mod durable;
mod events;
mod forge;
mod intake;
mod lifecycle;
mod rehearsal;
mod request;
mod tenants;

pub use answer::Answer;
pub use intake::{Intake, patience};
pub use request::Request;
