#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod answers;
mod drive;
mod error;
mod events;
pub mod manifest;
mod platform;
mod reconcile;
mod stage;

pub use drive::Lifecycle;
pub use error::Error;
pub use events::Taken;
pub use platform::{Api, NoProductApi, Opened, Platform, Site, Tenant};
