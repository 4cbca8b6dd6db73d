#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

pub mod checkpoint;
mod csv;
pub mod declaration;
mod decoder;
pub mod format;
pub mod identity;
mod json;
pub mod mapping;
mod pointers;
pub mod ports;
mod problem;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod reader;
pub mod records;
pub mod segments;
pub mod sink;
mod slice;

pub use checkpoint::{Checkpoint, CheckpointError, SecondPass};
pub use declaration::{Declaration, Import, Imports, Limits};
pub use identity::{ContentHash, Key};
pub use landfall_transfer::{Counts, Measure};
pub use mapping::{MappingCache, UnreadableMappings, UsedMappings};
pub use problem::FileProblem;
pub use slice::{File, Interruption, Ports, SliceOutcome, Target, import_slice};
