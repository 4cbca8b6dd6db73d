//! The platform's rules, seen from outside: a twin, a small app that listens, and HTTP between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed, which is the point"
)]

mod data;
mod delivery;
mod faults;
mod harness;
mod lifecycle;
mod rerun;
mod settlement;
