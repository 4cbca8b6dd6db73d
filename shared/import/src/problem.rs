use serde::{Deserialize, Serialize};

/// Why a file ended before its regular end. What was good up to there is kept and committed; trying the same file again can't help.
///
/// It is stored with the checkpoint, so that a file ends once and with one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum FileProblem {
    /// The file is read as a JSON array, but its first character is another one than `[`.
    #[error("the file is not a JSON array: no \"[\" at byte {offset}")]
    NotAnArray {
        /// Byte of the decompressed file.
        offset: u64,
    },
    /// The file ended inside the array.
    #[error("the JSON array is cut short: the file ends at byte {offset} without a \"]\"")]
    ArrayCutShort {
        /// Byte of the decompressed file up to which elements were complete.
        offset: u64,
    },
    /// Something else than `,` or `]` follows an element, or no element follows a `,`.
    #[error("the JSON array is broken at byte {offset}: an element, \",\" or \"]\" was expected")]
    ArrayBroken {
        /// Byte of the decompressed file.
        offset: u64,
    },
    /// The array is complete, but something follows it.
    #[error("the JSON array ends, and something follows it at byte {offset}")]
    AfterArray {
        /// Byte of the decompressed file.
        offset: u64,
    },
    /// The row that must name the columns doesn't, or not as declared.
    #[error("the columns can't be told from the file's header: {reason}")]
    BadHeader {
        /// What is wrong with it.
        reason: String,
    },
    /// The file ended between the quotes of a field.
    #[error("the file ends between quotes, in the row that begins at byte {offset}")]
    QuoteNotClosed {
        /// Byte of the decompressed file.
        offset: u64,
    },
    /// The compressed file ends before its last member does: the upload was cut.
    #[error("the gzip file is cut short after {offset} decompressed bytes")]
    GzipCutShort {
        /// Decompressed bytes up to there.
        offset: u64,
    },
    /// The compressed data are damaged, or something that is not gzip follows them.
    #[error("the gzip file is corrupt after {offset} decompressed bytes")]
    GzipCorrupt {
        /// Decompressed bytes up to there.
        offset: u64,
    },
    /// The compressed file ends before its last frame does: the upload was cut.
    #[error("the zstd file is cut short after {offset} decompressed bytes")]
    ZstdCutShort {
        /// Decompressed bytes up to there.
        offset: u64,
    },
    /// The compressed data are damaged, or something that is not zstd follows them.
    #[error("the zstd file is corrupt after {offset} decompressed bytes")]
    ZstdCorrupt {
        /// Decompressed bytes up to there.
        offset: u64,
    },
    /// Decompressing it takes more memory than is granted: it was compressed with `--long` or `--ultra`.
    #[error(
        "the zstd file needs a window above {max} bytes; compress it without --long and --ultra"
    )]
    ZstdWindow {
        /// The largest window that is supported.
        max: u64,
    },
    /// More comes out of the file than is taken of one: a decompression bomb, or `limits.file_bytes` is too small for this app.
    #[error("the file is larger than {max} decompressed bytes")]
    TooLarge {
        /// `limits.file_bytes`.
        max: u64,
    },
    /// The stored file is shorter than the place where an earlier slice stopped, so it is not the same file any more.
    #[error("the file ends before byte {offset}, up to which it was read before")]
    Shrunk {
        /// Byte up to which an earlier slice had read.
        offset: u64,
    },
    /// The platform doesn't give the file any more.
    #[error("the file can't be read any more: {reason}")]
    SourceGone {
        /// What the source said.
        reason: String,
    },
    /// More of it fails than may; the rest is not read. Most of all a wrong declaration makes a file fail as a whole.
    #[error(
        "{failed} of {read} records were rejected or held, more than {fail_above} (fail_above); most often of late: {most_frequent}"
    )]
    TooManyFailed {
        /// Records that were rejected or held.
        failed: u64,
        /// Records that were read.
        read: u64,
        /// The share that was allowed.
        fail_above: String,
        /// Why most records of the last batch with failures failed; no id and no content of a record.
        most_frequent: String,
    },
    /// Ids can't be looked up, now or later.
    #[error("mappings can't be looked up: {reason}")]
    MappingsRefused {
        /// What the platform said, or why it isn't asked.
        reason: String,
    },
    /// An earlier attempt has landed records of this label, and `on_rerun = "refuse"` is declared.
    #[error(
        "an earlier attempt has imported records of this label already, and on_rerun = \"refuse\" is declared: remove them and declare another policy, or settle it by hand"
    )]
    RerunRefused,
    /// The sink refuses the batches of this file for good.
    #[error("the sink refuses the file's records: {reason}")]
    SinkRefused {
        /// What the sink said; never the body of its answer.
        reason: String,
    },
}
