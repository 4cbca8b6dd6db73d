//! The settlement core as a whole: driven to its end through every combination of facts, through every order of events, and
//! through every state that a small world can reach.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod model;
mod orders;
#[cfg(feature = "seeded-bugs")]
mod seeded_bugs;
mod verdicts;
mod world;
