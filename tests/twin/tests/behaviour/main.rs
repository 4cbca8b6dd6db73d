//! The platform's rules, seen from outside: a twin, a small app that listens, and HTTP between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed, which is the point"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the app that listens is no part of the product and waits by the machine's time"
)]

mod data;
mod delivery;
mod faults;
mod forge_events;
mod forge_harness;
mod forge_rest;
mod forge_tokens;
mod forge_window;
mod harness;
mod lifecycle;
mod rerun;
mod settlement;
