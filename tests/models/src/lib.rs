#![doc = include_str!("../README.md")]
#![allow(
    clippy::missing_panics_doc,
    reason = "it is made for tests: a broken rule panics"
)]

mod checks;
pub mod conformance;
pub mod contract;
mod data_keys;
mod meter;
mod queue;
mod table;
mod weather;

pub use data_keys::{DataKeysModel, Trouble, secret_key, vault};
pub use meter::{Effect, Line, Meter};
pub use queue::{Delivery, QueueModel, Sent};
pub use table::{TableModel, Watcher, Written};
pub use weather::{Call, Calm, Fate, Weather};
