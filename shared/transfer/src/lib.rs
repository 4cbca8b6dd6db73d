#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

pub mod clocks;
pub mod pace;
pub mod seeded_bugs;
pub mod timeline;

mod acknowledgements;
mod completeness;
mod counts;
mod identity;
mod measure;
mod message;
mod settlement;
mod timestamp;
mod transfer;
mod verdict;

pub use acknowledgements::{Acknowledgements, silent_from};
pub use clocks::{Clocks, IntakeClocks, WorkClocks};
pub use completeness::{
    Completeness, Declared, Evidence, ExportFacts, FileFacts, Manifest, ManifestError, evaluate,
};
pub use counts::Counts;
pub use identity::{ChainId, Flavour, TenantId, TransferId};
pub use measure::{Digest, Measure};
pub use message::{MESSAGE_MAX, clip};
pub use settlement::{Answer, Form, Listing, Settlement};
pub use timestamp::Timestamp;
pub use transfer::{
    Exporter, FileOutcome, FileTotals, Input, MessageOutcome, Phase, Report, Settled, SettledBy,
    Staging, Step, StopReason, Transfer, Work,
};
pub use verdict::{Cause, Status, Verdict};
