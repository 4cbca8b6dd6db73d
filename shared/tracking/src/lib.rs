#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod answers;
mod due;
mod error;
mod events;
mod exceptions;
mod files;
mod item;
mod keys;
mod mappings;
mod pace;
mod queue;
mod records;
mod secrets;
mod segments;
mod store;
mod table;
mod tenants;
mod timeline;
mod tokens;
mod transfers;
mod vault;

pub use answers::FileMessage;
pub use due::{Due, DueItem, DuePage};
pub use error::Error;
pub use events::{EventRow, Recorded};
pub use exceptions::{Exception, ExceptionOutcome, ExceptionPage, ExceptionRow};
pub use files::{
    Claim, Claimed, Commit, Ending, File, FileState, Found, Lease, NewFile, PACKED_MANIFEST_MAX,
    Pass, RestartPoint, pack_manifest, totals,
};
pub use item::{Item, Name, Value};
pub use mappings::KeptMappings;
pub use pace::KeptPace;
pub use queue::{DeadLetter, Message, Messages, Queue, Received, Task};
pub use records::{Landed, RecordKey};
pub use secrets::{SealError, SecretKey};
pub use segments::{KeptSegment, Segment, SegmentPage, SegmentStart};
pub use store::Store;
pub use table::{
    Assignment, Change, Condition, DueEntries, DueEntry, Key, Many, Page, Returning, Table, Which,
    Write, WriteError,
};
pub use tenants::{Installed, Tenant};
pub use timeline::Told;
pub use tokens::SystemToken;
pub use transfers::{Attempt, Stored};
pub use vault::{DataKey, DataKeys, Vault};
