//! How the engine behaves between its ports: in-memory ones that fail on demand.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod any_file;
mod bucket;
mod crash;
mod files;
mod http_sink;
mod mapped;
mod measured;
mod raw;
mod rerun;
mod rows;
mod s3_sink;
mod second_pass;
mod sinks;
mod source;
mod staged;
mod within;
mod world;
