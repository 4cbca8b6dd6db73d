//! What the engine needs from outside, as small traits. The processor implements them on its stores; tests implement them in memory.
//!
//! Every error says what a retry can do. The engine never sleeps: whatever must wait ends the slice with the time to wait.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::checkpoint::Checkpoint;
use crate::declaration::ContainerType;
use crate::identity::{ContentHash, Key};
use crate::segments::{Segment, SegmentPage};
use landfall_transfer::Counts;

/// The most keys that one [`Mappings::find`] asks for (PROTOCOL 5: `mapping/find` takes 100).
pub const MAPPING_KEYS: usize = 100;

/// The most mappings of one [`Mappings::page`], and what is asked for (PROTOCOL 5: `mapping/page` takes 5,000).
pub const MAPPING_PAGE: usize = 5_000;

/// The most containers of one [`Mappings::containers`], and what is asked for (PROTOCOL 5: `container/page` takes 250).
pub const CONTAINER_PAGE: usize = 250;

/// The largest record, in bytes after rewriting, that can travel inside a ledger commit.
///
/// A `DynamoDB` item holds 400 KB with its attribute names; 16 KB are left for the key, the hash and the rest.
pub const LEDGER_RECORD_BYTES: usize = 400_000 - 16_384;

/// The most bytes of keys, records and reasons in one [`Batch`] (`DynamoDB`: 4 MB a transaction; the rest is room for attribute names).
pub const COMMIT_BYTES: usize = 3_000_000;

/// The most landed records in one [`Batch`], or one less beside rejections (`DynamoDB`: 100 items a transaction; one is the checkpoint's, and
/// rejections share one).
pub const COMMIT_WRITES: usize = 99;

/// Bytes of a piece of a raw file, unless a sink wants others: `limits.batch_bytes` at its largest, so that a piece is no larger than a batch,
/// and whoever takes the one as a body takes the other.
pub const PIECE_BYTES: usize = 2_097_152;

/// The largest piece. One is held in memory, and twice of it for a moment; an import stays below 96 MB.
pub const PIECE_BYTES_MAX: usize = 16_777_216;

/// The most bytes of rejections in one [`Batch`]: packed, they fit into one item of 400 KB whatever they say.
pub const COMMIT_REJECTION_BYTES: usize = 300_000;

/// One stored file of an export.
pub trait Source: Sync {
    /// The stored bytes, as they come. A stalled connection must end as [`SourceError::Cut`]: the engine has no clock to notice it.
    type Stream: Stream<Item = Result<Bytes, SourceError>> + Send + Unpin;

    /// Opens the file at a byte of the *stored* (perhaps compressed) bytes. `from` may be the file's end: that is an empty stream,
    /// not an error (HTTP says 416 there).
    ///
    /// After [`SourceError::Expired`] the engine calls this again; the implementation must ask for a new URL then.
    fn open(
        &self,
        from: u64,
    ) -> impl Future<Output = Result<Opened<Self::Stream>, SourceError>> + Send;
}

/// An opened [`Source`].
#[derive(Debug)]
pub struct Opened<S> {
    /// The byte at which the stream really starts: the one asked for, or an earlier one (0 from a store without ranges); the engine skips.
    pub starts_at: u64,
    /// Length of the whole stored file, where the store tells it. A stream that ends before it counts as cut.
    pub total_bytes: Option<u64>,
    /// The bytes.
    pub stream: S,
}

/// Why the file can't be read (on) just now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The signed URL has expired. The engine opens again at once, at the byte where it was.
    #[error("the signed URL has expired")]
    Expired,
    /// The connection broke or stalled. The engine opens again at once, at the byte where it was.
    #[error("the connection was cut: {reason}")]
    Cut {
        /// What happened, without the URL.
        reason: String,
    },
    /// The store or the platform asks to wait. The slice ends.
    #[error("the store asks to slow down")]
    Throttled {
        /// How long to wait, when it said so.
        retry_after: Option<Duration>,
    },
    /// The file isn't there any more and will not come back. It ends with [`crate::FileProblem::SourceGone`].
    #[error("the file is gone: {reason}")]
    Gone {
        /// What the store or the platform said, without the URL.
        reason: String,
    },
    /// Anything else that trying again later may heal. The slice ends.
    #[error("the file can't be opened: {reason}")]
    Failed {
        /// What happened, without the URL.
        reason: String,
    },
}

/// The platform's mappings of server ids to cloud ids.
pub trait Mappings: Sync {
    /// Looks up at most [`MAPPING_KEYS`] keys of one namespace. A key without a mapping is simply absent from the result.
    fn find(
        &self,
        namespace: &str,
        keys: &[String],
    ) -> impl Future<Output = Result<HashMap<String, String>, MappingsError>> + Send;

    /// A page of all mappings of one namespace: the first, or the one that [`MappingPage::next`] of the page before it names.
    fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<MappingPage, MappingsError>> + Send;

    /// A page of this migration's containers of a type, whose mappings alone are meant where a declaration says `within`: the first, or the one that
    /// [`ContainerPage::next`] of the page before it names.
    fn containers(
        &self,
        container_type: ContainerType,
        after: Option<&str>,
    ) -> impl Future<Output = Result<ContainerPage, MappingsError>> + Send;
}

/// Some of a namespace's mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappingPage {
    /// Keys and their cloud ids; of a key that comes again, in this page or a later one, the first counts.
    pub items: Vec<(String, String)>,
    /// What names the next page; none on the last one.
    pub next: Option<String>,
}

/// Some of a migration's containers of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPage {
    /// By which ids the server knows them.
    pub source_ids: Vec<String>,
    /// What names the next page; none on the last one.
    pub next: Option<String>,
}

/// Why mappings can't be looked up just now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingsError {
    /// The platform asks to wait. The slice ends.
    #[error("the platform asks to slow down")]
    Throttled {
        /// How long to wait, when it said so.
        retry_after: Option<Duration>,
    },
    /// Trying again later may heal it. The slice ends.
    #[error("mappings can't be looked up: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// Asking again comes to the same. The file ends with [`crate::FileProblem::MappingsRefused`].
    #[error("mappings can't be looked up, now or later: {reason}")]
    Refused {
        /// What the platform said, or why it isn't asked.
        reason: String,
    },
}

/// Where a file's progress is kept: its checkpoint, and what the chain already has. One implementation is bound to one file and one fencing token.
pub trait Ledger: Sync {
    /// The content hashes under which the target has these records already. Asked only with [`crate::Target::Ledger`], for records of a re-run
    /// that no segment shows; at most `batch_records` keys.
    fn known(
        &self,
        keys: &[String],
    ) -> impl Future<Output = Result<HashMap<String, ContentHash>, LedgerUnavailable>> + Send;

    /// Whether the fencing token still holds. Asked before every delivery to a sink outside, so that a late worker stops before it, and not after.
    fn check_fence(&self) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Writes the batch and its checkpoint, all or nothing, under the fencing token. With a checkpoint that says that the file has ended the
    /// token may end as well: nothing follows but a segment with [`crate::Target::Ledger`].
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Keeps which records of a stretch are in the target, so that later attempts leave them alone.
    ///
    /// With a sink outside it is kept before the commit of its stretch, under the fencing token: what the sink has is then known to every
    /// later attempt. With [`crate::Target::Ledger`] it is kept after the commits, and one that is lost costs a look-up of its records.
    fn keep_segment(
        &self,
        segment: Segment,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// The attempts of the chain up to this one, the oldest first.
    fn attempts(&self) -> impl Future<Output = Result<Vec<String>, LedgerUnavailable>> + Send;

    /// The segments that an attempt has kept under the file's label, in their order, from the one behind the place `after` on.
    fn segments(
        &self,
        attempt: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<SegmentPage, LedgerUnavailable>> + Send;

    /// The restart point that was kept last. Asked for once by a slice that goes on in a compressed file.
    fn restart_point(
        &self,
    ) -> impl Future<Output = Result<Option<RestartPoint>, LedgerUnavailable>> + Send;

    /// Keeps a restart point in place of the one before. One that can't be kept costs time, and nothing else.
    fn keep_restart_point(&self, point: RestartPoint) -> impl Future<Output = ()> + Send;

    /// Keeps mappings that were used, packed: [`UsedMappings::unpack`](crate::UsedMappings::unpack) reads them. Called right after a commit or
    /// a check of the token, while the lease is fresh. A piece that can't be kept is missing later, and nothing else; one of the same place replaces it.
    fn keep_mappings(&self, piece: KeptMappings) -> impl Future<Output = ()> + Send;
}

/// The ledger can't be read just now; trying again may heal it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger can't be read: {reason}")]
pub struct LedgerUnavailable {
    /// What happened.
    pub reason: String,
}

/// Why a batch was not, or perhaps not, committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Somebody else has the file now, or the transfer takes no writes any more. Nothing was written; the slice stops at once.
    #[error("the fencing token doesn't hold any more")]
    FenceLost,
    /// The answer got lost: the batch is committed or not. The next slice must start from the *stored* checkpoint, which knows.
    #[error("nobody knows whether the batch is committed: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// Nothing was written; trying again may heal it.
    #[error("the batch can't be committed: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

/// Where a compressed file can be entered again, so that a later slice need not read it from its beginning.
///
/// It only saves time: without it, or with one that is out of date, everything comes to the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPoint {
    /// Stored bytes before it.
    pub stored: u64,
    /// What the decoder needs; text with a version, some 200 bytes.
    pub state: String,
    /// What the next bytes may refer to, packed: up to 32 KB of the file's content.
    pub window: Bytes,
}

/// Some of the mappings that a transfer used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMappings {
    /// Where the file stood. With the fencing token, which a ledger knows, and the number it names the piece within its file, so that
    /// none replaces another.
    pub offset: u64,
    /// Number among the pieces of a slice, from 0.
    pub number: usize,
    /// At most some 300 KB.
    pub packed: Bytes,
}

/// What is written together with a checkpoint: at most [`COMMIT_WRITES`] records, [`COMMIT_REJECTION_BYTES`] of rejections and
/// [`COMMIT_BYTES`] bytes in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where the file stands once this batch is written. Its counts include this batch, unless it is of a second pass that goes on.
    pub checkpoint: Checkpoint,
    /// Which reading of the file it is of.
    pub pass: Pass,
    /// Records that this commit writes to the target, each key once; none where a sink outside has them.
    pub landed: Vec<Landed>,
    /// Records that are not, in the order of the file.
    pub rejections: Vec<Rejection>,
    /// What became of the records of this batch.
    pub counts: Counts,
}

/// Which reading of a file a batch is of. A file that was read to its end with records held is read once more, in a second pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// The first, and for most files the only one.
    #[default]
    First,
    /// The first, whose last batch this is: the file is to be read once more, after a pause.
    FirstEnds,
    /// The second. As long as it isn't over, the counts and rejections of the first are the file's.
    Second,
    /// The second, whose last batch this is: its counts and rejections are the file's now, and those of the first no more.
    SecondEnds,
}

/// A record on its way into the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// The record's identity within chain and label: its natural key, or the hash of its source bytes. At most [`crate::identity::KEY_BYTES`].
    pub key: Key,
    /// Hash of the rewritten record.
    pub content_hash: ContentHash,
    /// The rewritten record.
    pub record: Bytes,
}

/// A record that doesn't reach the target, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Number of the record in its file, from 1.
    pub record_number: u64,
    /// Rejected for good, or held for a mapping that may still come.
    pub kind: RejectionKind,
    /// The record's key, when it could be told.
    pub key: Option<String>,
    /// The namespace whose mapping is missing, when that is the reason.
    pub namespace: Option<String>,
    /// For a person; at most [`crate::identity::REASON_BYTES`].
    pub reason: String,
    /// The reason without the record's id, by which records that fail alike are counted; none where the reason names no id.
    pub cause: Option<String>,
}

/// How final a [`Rejection`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// The record can't be applied.
    Rejected,
    /// The record waits; it may be applied later.
    Held,
}

/// A target outside the ledger: the HTTP sink, or one of your own.
///
/// Only [`deliver`](Self::deliver) must be written. The rest is for sinks that take files as they are, or that keep something for each file.
pub trait Sink: Sync {
    /// Delivers a batch; the answer has exactly one outcome per record, in the records' order. The same batch may be delivered again
    /// after a crash, under the same idempotency key.
    fn deliver(
        &self,
        delivery: &Delivery<'_>,
    ) -> impl Future<Output = Result<Vec<SinkOutcome>, SinkError>> + Send;

    /// How many bytes a piece of a raw file has, the last one excepted; a multiple of 64 up to [`PIECE_BYTES_MAX`], and always the same: a
    /// file that is half imported goes on at a multiple of it.
    fn piece_bytes(&self) -> usize {
        PIECE_BYTES
    }

    /// Takes the next piece of a raw file. Pieces come in order, each after the one before was taken; the same one may come again after a
    /// crash. Held or rejected means the whole file, and no further piece of it comes.
    fn deliver_piece(
        &self,
        _piece: &Piece<'_>,
    ) -> impl Future<Output = Result<PieceTaken, SinkError>> + Send {
        async {
            let reason = "it takes records, and no raw files".to_owned();
            Err(SinkError::Refused { reason })
        }
    }

    /// Whether [`Sink::finish`] does anything. Where it doesn't, nobody looks before it whether the file is still this worker's.
    fn hears_the_end(&self) -> bool {
        true
    }

    /// Says that nothing follows of a file, just before that is committed. After a crash it is said again.
    fn finish(
        &self,
        _finished: &Finished<'_>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send {
        async { Ok(()) }
    }
}

/// Which file a delivery belongs to.
#[derive(Clone, Copy, Debug)]
pub struct FileIdentity<'a> {
    /// Tenant of the transfer.
    pub tenant: &'a str,
    /// The transfer.
    pub transfer: &'a str,
    /// The chain: name of the first attempt.
    pub chain: &'a str,
    /// Label of the file.
    pub label: &'a str,
    /// Names the file apart from all others, also from its own copy in a re-run: 64 hexadecimal digits.
    pub id: &'a str,
}

/// A piece of a raw file on its way to a [`Sink`].
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Which file it is of.
    pub file: FileIdentity<'a>,
    /// Bytes of the file before it: a multiple of [`Sink::piece_bytes`].
    pub offset: u64,
    /// Its bytes, as they are stored; none only where the whole file is empty.
    pub bytes: Bytes,
    /// The SHA-256 of the whole file, with its last piece.
    pub last: Option<ContentHash>,
    /// What the sink has to remember of this file: [`PieceTaken::upload`] of the piece before.
    pub upload: Option<&'a str>,
}

/// What a sink did with a [`Piece`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceTaken {
    /// What became of the piece; after the last one, of the file.
    pub outcome: SinkOutcome,
    /// What the sink wants to be told with the next piece, such as the name of an upload; at most 1024 bytes. It is stored with the checkpoint.
    pub upload: Option<String>,
}

/// A file of which nothing follows.
#[derive(Clone, Debug)]
pub struct Finished<'a> {
    /// Which file.
    pub file: FileIdentity<'a>,
    /// What became of its records, all together.
    pub counts: Counts,
    /// Whether it was read to its regular end.
    pub complete: bool,
    /// The SHA-256 of a raw file that has reached the target, now or in an earlier attempt.
    pub content_hash: Option<ContentHash>,
}

/// A batch on its way to a [`Sink`].
#[derive(Clone, Debug)]
pub struct Delivery<'a> {
    /// Equal for equal batches, also of another attempt after a crash.
    pub idempotency_key: String,
    /// Which file it is of.
    pub file: FileIdentity<'a>,
    /// Bytes of the decompressed file before the first record that was read for it; in a second pass, all bytes of the first are before it, too.
    /// It tells the deliveries of a file apart, and their order.
    pub position: u64,
    /// The records, each key once.
    pub records: &'a [Landed],
}

/// What a sink did with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkOutcome {
    /// It is in the target now.
    Applied,
    /// It was there already.
    Unchanged,
    /// The sink can't take it yet.
    Held {
        /// The sink's reason.
        reason: String,
    },
    /// The sink will not take it.
    Rejected {
        /// The sink's reason.
        reason: String,
    },
}

/// Why a sink took nothing, or perhaps nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Unreachable, too slow, overloaded or broken; whether the batch was applied is not known, and delivering it again is safe. The slice ends.
    #[error("the sink is not available: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// How long to wait, when it said so.
        retry_after: Option<Duration>,
    },
    /// The answer doesn't account for every record exactly once. Delivered again later, in case that heals.
    #[error("the sink's answer is malformed: {reason}")]
    MalformedAnswer {
        /// What is wrong with it.
        reason: String,
    },
    /// The sink will say the same again. The file ends with [`crate::FileProblem::SinkRefused`].
    #[error("the sink refuses the batch: {reason}")]
    Refused {
        /// What the sink said.
        reason: String,
    },
}
