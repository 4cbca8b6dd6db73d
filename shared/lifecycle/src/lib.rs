#![doc = include_str!("../README.md")]

mod drive;
mod error;
mod events;
mod platform;
mod reconcile;

pub use drive::Lifecycle;
pub use error::Error;
pub use events::Taken;
pub use platform::{Platform, Site};
