#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod clients;
mod configuration;
mod environment;
pub mod telemetry;

pub use clients::{Clients, Patience};
pub use configuration::{
    App, Completeness, Configuration, Connect, ForeignClientKeys, Forge, Invalid,
};
pub use environment::{Aws, Environment};
pub use landfall_clock::Clock;
