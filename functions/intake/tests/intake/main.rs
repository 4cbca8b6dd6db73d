//! What intake promises, shown on an embedded table and a queue of the same wire, through the functions' own clients.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod cloud;
mod durability;
mod events;
mod forge;
mod lifecycle;
mod logs;
mod platform;
mod refusals;
