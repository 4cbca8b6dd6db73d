//! Puts records and raw files into a bucket, by chain and label, with an index for each file. The README holds what a consumer needs.
//!
//! Names depend on the file and on the place in it alone. So what comes again after a crash replaces itself, and nothing is doubled.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::future::Future;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use landfall_transfer::Counts;
use serde::{Deserialize, Serialize};

use crate::identity::ContentHash;
use crate::ports::{
    Delivery, FileIdentity, Finished, Landed, Opened, PIECE_BYTES_MAX, Piece, PieceTaken, Sink,
    SinkError, SinkOutcome, Source, SourceError,
};
use crate::slice::File;

/// The longest `sink.prefix`, in bytes. With it the longest name stays below the 1024 bytes that S3 allows.
pub const PREFIX_BYTES: usize = 64;

/// Bytes of a piece of a raw file. A part of an S3 upload has at least 5 MiB, and an upload at most 10,000 parts: 84 GB, where the
/// platform's largest file has 25 (PROTOCOL.md 9).
const PIECE_BYTES: usize = 8_388_608;

/// The most parts of an upload.
const PARTS_MAX: u64 = 10_000;

/// The longest part of a name that stands for a label; a longer label is cut and told apart by its hash.
const LABEL_BYTES: usize = 400;

/// How the names of objects with records end.
const RECORDS: &str = ".ndjson";

/// What a line has beside key and record, with room for escapes in the key.
const LINE_BYTES: usize = 160;

/// The longest tenant, transfer or chain (`landfall_platform::event::is_identity`), and the length of a file's id.
const IDENTITY_BYTES: usize = 128;
const ID_BYTES: usize = 64;

const _: () = assert!(
    PREFIX_BYTES + 3 * (IDENTITY_BYTES + 1) + LABEL_BYTES + 1 + ID_BYTES + 1 + 20 + RECORDS.len()
        <= 1024,
    "the longest name is one that S3 takes"
);

const _: () = assert!(
    PIECE_BYTES >= 5 * 1024 * 1024 && PIECE_BYTES <= PIECE_BYTES_MAX,
    "a piece is a part that S3 takes, and one that the engine cuts"
);

/// The version of the index.
const VERSION: u32 = 1;

/// An object store, as far as the sink needs one.
pub trait Bucket: Sync {
    /// Writes a whole object, in place of one that has the name already.
    fn put(
        &self,
        name: &str,
        content: Bytes,
        content_type: &'static str,
    ) -> impl Future<Output = Result<(), BucketError>> + Send;

    /// Reads so many bytes of an object from byte `from` on, fewer where it ends before; none if there is no object of this name, or it ends before `from`.
    fn read(
        &self,
        name: &str,
        from: u64,
        bytes: u64,
    ) -> impl Future<Output = Result<Option<Bytes>, BucketError>> + Send;

    /// Reads a small object; none if there is none of this name.
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<Bytes>, BucketError>> + Send;

    /// All objects whose names begin so, in the order of their names.
    fn list(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<StoredObject>, BucketError>> + Send;

    /// Begins to upload an object in parts, and returns the upload's id. Until it is completed there is no object.
    fn begin_upload(&self, name: &str) -> impl Future<Output = Result<String, BucketError>> + Send;

    /// Uploads a part, from 1 on, in place of one that has the number already.
    fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: u64,
        content: Bytes,
    ) -> impl Future<Output = Result<(), BucketError>> + Send;

    /// Makes the object of the first `parts` parts.
    fn complete_upload(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
    ) -> impl Future<Output = Result<(), BucketError>> + Send;
}

/// An object of a [`Bucket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, by the bucket's clock, in milliseconds since the Unix epoch.
    pub written_at_ms: i64,
}

/// Why a bucket did nothing, or perhaps nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// Unreachable, throttled, forbidden or broken. Whether it was done is not known, and doing it again is safe; what is forbidden may be
    /// allowed meanwhile.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The upload is completed or aborted; trying again can't help.
    #[error("the upload is not there any more")]
    UploadGone,
}

impl From<BucketError> for SinkError {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Unavailable { reason } => Self::Unavailable {
                reason,
                retry_after: None,
            },
            BucketError::UploadGone => Self::Refused {
                reason: "the file's upload was aborted from outside".to_owned(),
            },
        }
    }
}

/// A bucket as a target.
#[derive(Debug)]
pub struct S3Sink<B> {
    bucket: B,
    /// What every name begins with.
    prefix: String,
    /// Whether a file is all by itself: nothing of earlier attempts belongs to it.
    is_stage: bool,
}

impl<B: Bucket> S3Sink<B> {
    /// Puts everything below `prefix`, which is empty or ends as the names shall go on, such as `landfall/`.
    pub fn new(bucket: B, prefix: &str) -> Self {
        Self {
            bucket,
            prefix: prefix.to_owned(),
            is_stage: false,
        }
    }

    /// The same as a stage, from which records are read back: a file's index names its own objects, and no others are looked at.
    pub fn stage(bucket: B, prefix: &str) -> Self {
        Self {
            is_stage: true,
            ..Self::new(bucket, prefix)
        }
    }

    /// What the names of all objects of a chain and label begin with.
    fn label_folder(&self, file: &FileIdentity<'_>) -> String {
        let label = label_in_names(file.label);
        format!("{}{}/{}/{label}/", self.prefix, file.tenant, file.chain)
    }

    /// What the names of a file's own objects begin with.
    fn folder(&self, file: &FileIdentity<'_>) -> String {
        format!("{}{}/{}/", self.label_folder(file), file.transfer, file.id)
    }

    /// Completes an upload; after a crash it may have been completed already.
    async fn complete(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
        bytes: u64,
    ) -> Result<(), BucketError> {
        match self.bucket.complete_upload(name, upload, parts).await {
            Err(BucketError::UploadGone) => self.was_completed(name, bytes).await,
            outcome => outcome,
        }
    }

    async fn was_completed(&self, name: &str, bytes: u64) -> Result<(), BucketError> {
        let stored = self.bucket.list(name).await?;
        let is_it = |object: &StoredObject| object.name == name && object.bytes == bytes;
        if stored.iter().any(is_it) {
            Ok(())
        } else {
            Err(BucketError::UploadGone)
        }
    }

    /// The objects of an earlier attempt that hold a raw file of this content.
    async fn earlier_copy(
        &self,
        folders: &[Folder],
        hash: &str,
    ) -> Result<Vec<IndexedObject>, SinkError> {
        for folder in folders.iter().rev() {
            let stored = self
                .bucket
                .get(&format!("{}index.json", folder.name))
                .await?;
            let index: Option<StoredIndex> =
                stored.and_then(|stored| serde_json::from_slice(&stored).ok());
            if let Some(index) = index
                && index.content_hash.as_deref() == Some(hash)
            {
                return Ok(index.objects);
            }
        }
        Err(SinkError::Refused {
            reason: "the bucket lacks a raw file that an earlier attempt has put there".to_owned(),
        })
    }
}

impl<B: Bucket + Clone> S3Sink<B> {
    /// A file that this sink has taken whole, to be read back. `file` is as it was when the sink took it.
    pub fn staged(&self, file: &File<'_>) -> StagedFile<B> {
        let id = file.id();
        StagedFile {
            bucket: self.bucket.clone(),
            folder: self.folder(&file.identity(&id)),
        }
    }
}

/// A file in a bucket, as [`S3Sink`] has put it there: the objects that its index names, one after the other.
#[derive(Clone, Debug)]
pub struct StagedFile<B> {
    bucket: B,
    folder: String,
}

/// The most that is read of an object at once.
const READ_BYTES: u64 = PIECE_BYTES as u64;

impl<B: Bucket> StagedFile<B> {
    async fn objects(&self) -> Result<Vec<IndexedObject>, SourceError> {
        let name = format!("{}index.json", self.folder);
        let stored = self.bucket.get(&name).await;
        let stored = stored.map_err(|error| SourceError::Failed {
            reason: format!("the bucket: {error}"),
        })?;
        let gone = |reason: &str| SourceError::Gone {
            reason: format!("the bucket has {reason}"),
        };
        let stored = stored.ok_or_else(|| gone("no index of it any more"))?;
        let index: StoredIndex =
            serde_json::from_slice(&stored).map_err(|_| gone("another index of it"))?;
        Ok(index.objects)
    }
}

impl<B: Bucket + Clone + Send + 'static> Source for StagedFile<B> {
    type Stream = BoxStream<'static, Result<Bytes, SourceError>>;

    async fn open(&self, from: u64) -> Result<Opened<Self::Stream>, SourceError> {
        let objects = self.objects().await?;
        let total = objects.iter().map(|object| object.bytes).sum();
        let mut before = from;
        let mut left = VecDeque::from(objects);
        while left.front().is_some_and(|object| object.bytes <= before) {
            before -= left.pop_front().map_or(0, |object| object.bytes);
        }
        let rest = Rest {
            bucket: self.bucket.clone(),
            left,
            before,
        };
        Ok(Opened {
            starts_at: from,
            total_bytes: Some(total),
            stream: stream::unfold(Some(rest), async |rest| rest?.next().await).boxed(),
        })
    }
}

/// What is still to be read of a staged file.
struct Rest<B> {
    bucket: B,
    left: VecDeque<IndexedObject>,
    /// Bytes of the first of these that are not asked for.
    before: u64,
}

impl<B: Bucket> Rest<B> {
    async fn next(mut self) -> Option<(Result<Bytes, SourceError>, Option<Self>)> {
        let object = self.left.front()?;
        let wanted = READ_BYTES.min(object.bytes - self.before);
        match self.bucket.read(&object.name, self.before, wanted).await {
            Ok(Some(bytes)) if bytes.len() as u64 == wanted => {
                self.before += wanted;
                if self.before == object.bytes {
                    self.left.pop_front();
                    self.before = 0;
                }
                Some((Ok(bytes), Some(self)))
            }
            Ok(_) => {
                let reason = "an object that its index names is not in the bucket".to_owned();
                Some((Err(SourceError::Gone { reason }), None))
            }
            Err(error) => {
                let reason = format!("the bucket: {error}");
                Some((Err(SourceError::Cut { reason }), None))
            }
        }
    }
}

impl<B: Bucket> Sink for S3Sink<B> {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let folder = self.folder(&delivery.file);
        let name = format!("{folder}{:020}{RECORDS}", delivery.position);
        let content = lines(delivery)?;
        self.bucket
            .put(&name, content, "application/x-ndjson")
            .await?;
        Ok(vec![SinkOutcome::Applied; delivery.records.len()])
    }

    fn piece_bytes(&self) -> usize {
        PIECE_BYTES
    }

    async fn deliver_piece(&self, piece: &Piece<'_>) -> Result<PieceTaken, SinkError> {
        let name = format!("{}content", self.folder(&piece.file));
        let taken = |upload| PieceTaken {
            outcome: SinkOutcome::Applied,
            upload,
        };
        if piece.offset == 0 && piece.last.is_some() {
            let content = piece.bytes.clone();
            self.bucket
                .put(&name, content, "application/octet-stream")
                .await?;
            return Ok(taken(None));
        }
        let number = piece.offset / PIECE_BYTES as u64 + 1;
        if number > PARTS_MAX {
            let reason = format!("the file has more than {PARTS_MAX} parts of {PIECE_BYTES} bytes");
            return Ok(PieceTaken {
                outcome: SinkOutcome::Rejected { reason },
                upload: None,
            });
        }
        let upload = match piece.upload {
            Some(upload) => upload.to_owned(),
            // Should this be the last line before a crash, the next attempt begins another one. The bucket's lifecycle ends this one.
            None if piece.offset == 0 => self.bucket.begin_upload(&name).await?,
            None => return Err(BucketError::UploadGone.into()),
        };
        let content = piece.bytes.clone();
        let put = self.bucket.put_part(&name, &upload, number, content).await;
        if piece.last.is_none() {
            put?;
            return Ok(taken(Some(upload)));
        }
        let bytes = piece.offset + piece.bytes.len() as u64;
        match put {
            Err(BucketError::UploadGone) => self.was_completed(&name, bytes).await?,
            put => {
                put?;
                self.complete(&name, &upload, number, bytes).await?;
            }
        }
        Ok(taken(None))
    }

    /// Writes the file's index: its own objects, and those of earlier attempts, whose records a re-run doesn't deliver again.
    async fn finish(&self, finished: &Finished<'_>) -> Result<(), SinkError> {
        let file = &finished.file;
        let (own, folder) = (self.folder(file), self.label_folder(file));
        let looked_at = if self.is_stage { &own } else { &folder };
        let stored = self.bucket.list(looked_at).await?;
        let (mine, others): (Vec<StoredObject>, Vec<StoredObject>) = stored
            .into_iter()
            .partition(|object| object.name.starts_with(&own));
        let of_this_attempt = format!("{folder}{}/", file.transfer);
        let earlier = folders(
            others
                .into_iter()
                .filter(|object| !object.name.starts_with(&of_this_attempt)),
        );
        let content_hash = finished
            .content_hash
            .map(|hash: ContentHash| hash.to_string());
        let is_content = |object: &StoredObject| object.name == format!("{own}content");
        let objects = match &content_hash {
            Some(hash) => match mine.iter().find(|object| is_content(object)) {
                Some(object) => vec![IndexedObject::of(object)],
                None => self.earlier_copy(&earlier, hash).await?,
            },
            None => records(&mine),
        };
        let earlier = match &content_hash {
            Some(_) => Vec::new(),
            None => earlier
                .into_iter()
                .flat_map(|folder| folder.records)
                .collect(),
        };
        let index = Index {
            version: VERSION,
            tenant: file.tenant,
            transfer: file.transfer,
            chain: file.chain,
            label: file.label,
            complete: finished.complete,
            counts: finished.counts,
            content_hash,
            earlier,
            objects,
        };
        let json = serde_json::to_vec(&index).map_err(|error| SinkError::Refused {
            reason: format!("the index can't be written as JSON: {error}"),
        })?;
        let name = format!("{own}index.json");
        Ok(self
            .bucket
            .put(&name, json.into(), "application/json")
            .await?)
    }
}

/// What is written beside a file's objects once it has ended.
#[derive(Serialize)]
struct Index<'a> {
    version: u32,
    tenant: &'a str,
    transfer: &'a str,
    chain: &'a str,
    label: &'a str,
    complete: bool,
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hash: Option<String>,
    earlier: Vec<IndexedObject>,
    objects: Vec<IndexedObject>,
}

/// What is read of an index that an earlier attempt wrote.
#[derive(Deserialize)]
struct StoredIndex {
    #[serde(default)]
    content_hash: Option<String>,
    objects: Vec<IndexedObject>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct IndexedObject {
    name: String,
    bytes: u64,
}

impl IndexedObject {
    fn of(object: &StoredObject) -> Self {
        Self {
            name: object.name.clone(),
            bytes: object.bytes,
        }
    }
}

/// The objects of one file of an earlier attempt.
struct Folder {
    name: String,
    /// When its newest object was written.
    newest_ms: i64,
    records: Vec<IndexedObject>,
}

/// The files of earlier attempts, in the order of time: only the newest attempt of a chain writes, so one had ended when the next began.
fn folders(objects: impl Iterator<Item = StoredObject>) -> Vec<Folder> {
    let mut by_name: BTreeMap<String, Vec<StoredObject>> = BTreeMap::new();
    for object in objects {
        if let Some((folder, _)) = object.name.rsplit_once('/') {
            by_name
                .entry(format!("{folder}/"))
                .or_default()
                .push(object);
        }
    }
    let mut folders: Vec<Folder> = by_name
        .into_iter()
        .map(|(name, objects)| Folder {
            name,
            newest_ms: objects
                .iter()
                .map(|object| object.written_at_ms)
                .max()
                .unwrap_or_default(),
            records: records(&objects),
        })
        .collect();
    folders.sort_by_key(|folder| folder.newest_ms);
    folders
}

/// Those that hold records. Their names end in their place in the file, so they are in its order.
fn records(objects: &[StoredObject]) -> Vec<IndexedObject> {
    objects
        .iter()
        .filter(|object| object.name.ends_with(RECORDS))
        .map(IndexedObject::of)
        .collect()
}

/// A label as a part of names: what is neither a letter, a digit nor `-`, `_` or `.` is written `%XX`. A long one is cut, and its hash follows.
fn label_in_names(label: &str) -> String {
    let mut written = String::with_capacity(label.len());
    for (at, &byte) in label.as_bytes().iter().enumerate() {
        // Tools take a part of dots for a way up.
        let stays =
            byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && at > 0);
        if stays {
            written.push(char::from(byte));
        } else {
            let _ = write!(written, "%{byte:02X}");
        }
    }
    if written.is_empty() || written.len() > LABEL_BYTES {
        written.truncate(LABEL_BYTES - 65);
        let _ = write!(written, "~{}", ContentHash::of(label.as_bytes()));
    }
    written
}

/// A line for each record. A line break inside a record is white space of its JSON, and another white space says the same.
fn lines(delivery: &Delivery<'_>) -> Result<Bytes, SinkError> {
    let room = |record: &Landed| record.record.len() + record.key.len() + LINE_BYTES;
    let mut lines = Vec::with_capacity(delivery.records.iter().map(room).sum());
    for landed in delivery.records {
        let record = &landed.record;
        lines.extend_from_slice(b"{\"key\":");
        serde_json::to_writer(&mut lines, &*landed.key).map_err(|error| SinkError::Refused {
            reason: format!("a key can't be written as JSON: {error}"),
        })?;
        let hash = landed.content_hash;
        lines.extend_from_slice(format!(",\"content_hash\":\"{hash}\",\"record\":").as_bytes());
        lines.extend(record.iter().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            byte => *byte,
        }));
        lines.extend_from_slice(b"}\n");
    }
    Ok(lines.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_becomes_one_part_of_a_name_and_two_labels_never_the_same() {
        assert_eq!(label_in_names("pages-0001.ndjson"), "pages-0001.ndjson");
        assert_eq!(label_in_names("a/b c~ü"), "a%2Fb%20c%7E%C3%BC");
        assert_eq!(label_in_names(".."), "%2E.");
        let hash = ContentHash::of(b"").to_string();
        assert_eq!(label_in_names(""), format!("~{hash}"));
        let long = |end: &str| label_in_names(&format!("{}{end}", "x".repeat(1020)));
        assert_eq!(long("a").len(), LABEL_BYTES);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn each_record_is_a_line_whatever_white_space_it_has() {
        let record = Bytes::from_static(b"{\n \"a\":\r\n 1.10}");
        let landed = Landed {
            key: "k\n\"1\"".into(),
            content_hash: ContentHash::of(&record),
            record,
        };
        let hash = landed.content_hash;
        let delivery = Delivery {
            idempotency_key: String::new(),
            file: FileIdentity {
                tenant: "t",
                transfer: "u",
                chain: "c",
                label: "l",
                id: "f",
            },
            position: 0,
            records: &[landed.clone(), landed],
        };
        let line = format!(
            "{{\"key\":\"k\\n\\\"1\\\"\",\"content_hash\":\"{hash}\",\"record\":{{  \"a\":   1.10}}}}\n"
        );
        assert_eq!(lines(&delivery).unwrap(), format!("{line}{line}"));
    }
}
