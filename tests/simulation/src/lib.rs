#![doc = include_str!("../README.md")]
#![allow(
    clippy::missing_panics_doc,
    reason = "it is made for tests: a broken promise panics"
)]

pub mod bucket;
pub mod cloud;
pub mod crashes;
pub mod executor;
pub mod faults;
pub mod forge;
pub mod harness;
mod judge;
pub mod machine;
pub mod plan;
pub mod platform;
pub mod random;
pub mod scene;
pub mod search;
#[cfg(feature = "seeded-bugs")]
pub mod seeded_bugs;
pub mod shrink;
pub mod target;
pub mod trace;
pub mod watch;
pub mod webhook;
pub mod world;
