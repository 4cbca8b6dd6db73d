//! Transfers from their first event to their settlement, with the processor and the sweeper on an embedded table and
//! queues, the platform's REST API beside them, and a clock that only the test moves. The clocks are the defaults: three
//! days pass in milliseconds.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod containers;
mod forge;
mod holds;
mod imports;
mod lost;
mod platform;
mod races;
mod reruns;
mod settling;
mod sinks;
mod vault;
mod world;
