//! Records that did not arrive: all those of a commit in one packed row.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use landfall_transfer::{TenantId, Timestamp, TransferId};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::Lease;
use crate::item::{Item, Reader, Value, instant, number, text};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Write};

/// A record that did not arrive. Its content is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its number within the file, from 1.
    pub record: u64,
    /// How final that is.
    pub outcome: ExceptionOutcome,
    /// Its key, when it was read as far as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The namespace of the mapping that missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Why.
    pub reason: String,
}

/// How final an [`Exception`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExceptionOutcome {
    /// The record can't be applied.
    Rejected,
    /// The record waits for a mapping that may still come.
    Held,
}

/// The exceptions of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceptionRow {
    /// Its place among the rows of its transfer: by file, and in the order of the file.
    pub place: String,
    /// The platform's key of the file.
    pub s3_key: String,
    /// The file's label; empty when the server app gave none.
    pub label: String,
    /// The exceptions, in the order of the file.
    pub exceptions: Vec<Exception>,
}

/// Some of the rows of a transfer's exceptions, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionPage {
    /// The rows.
    pub rows: Vec<ExceptionRow>,
    /// The place behind which others follow, if any do.
    pub next: Option<String>,
}

/// The newest form of a row of exceptions: 2 is of a file's second pass, which an older release would list beside those of the first.
const VERSION: u64 = 2;

/// What stands between the file and the record in the place of a row of the second pass: behind all rows of the first.
const SECOND_PASS: &str = "second#";

/// Largest packed row, in bytes; an item holds 400 KB (AWS DynamoDB limits).
const PACKED_MAX: usize = 350_000;

/// Largest content that is unpacked of one row, in bytes: what [`PACKED_MAX`] could hold at most of text.
const UNPACKED_MAX: u64 = 64 * 1024 * 1024;

/// The rows of a commit's exceptions: one, unless they are too many for an item.
pub(crate) fn put_exceptions(
    lease: &Lease,
    label: &str,
    exceptions: &[Exception],
    second_pass: bool,
    now: Timestamp,
) -> Result<Vec<Write>, Error> {
    let Some(first) = exceptions.first() else {
        return Ok(Vec::new());
    };
    let packed = pack(exceptions)?;
    if packed.len() > PACKED_MAX && exceptions.len() > 1 {
        let (front, back) = exceptions.split_at(exceptions.len() / 2);
        let mut writes = put_exceptions(lease, label, front, second_pass, now)?;
        writes.extend(put_exceptions(lease, label, back, second_pass, now)?);
        return Ok(writes);
    }
    let sort = format!(
        "{}{}{:012}",
        of_file(&lease.s3_key),
        if second_pass { SECOND_PASS } else { "" },
        first.record
    );
    let item = Item::from([
        ("kind".into(), text("exceptions")),
        ("v".into(), number(if second_pass { VERSION } else { 1 })),
        ("s3_key".into(), text(&lease.s3_key)),
        ("label".into(), text(label)),
        ("first_record".into(), number(first.record)),
        ("count".into(), number(exceptions.len())),
        ("packed".into(), Value::Bytes(packed)),
        ("at".into(), instant(now)),
        ("expires_at".into(), history_expires(now)),
    ]);
    let key = Key::new(keys::transfer(&lease.tenant, &lease.transfer), sort);
    Ok(vec![Write::put(key, item)])
}

/// What the places of a file's rows begin with.
fn of_file(s3_key: &str) -> String {
    format!("{}{}#", keys::EXCEPTION, keys::part(s3_key))
}

/// The row that says that from now on the exceptions of the second pass count, and those of the first no more. It lives as long as they do,
/// which is longer than the file's own row.
pub(crate) fn put_recounted(lease: &Lease, now: Timestamp) -> Write {
    let item = Item::from([
        ("kind".into(), text("recounted")),
        ("v".into(), number(1)),
        ("s3_key".into(), text(&lease.s3_key)),
        ("at".into(), instant(now)),
        ("expires_at".into(), history_expires(now)),
    ]);
    let key = keys::recounted(&lease.tenant, &lease.transfer, &lease.s3_key);
    Write::put(key, item)
}

/// gzip over a JSON object a line, so that whoever reads the table needs nothing of ours.
fn pack(exceptions: &[Exception]) -> Result<Vec<u8>, Error> {
    let unpackable = |error: &dyn std::fmt::Display| Error::unreadable("an exception", error);
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    for exception in exceptions {
        let mut line = serde_json::to_vec(exception).map_err(|error| unpackable(&error))?;
        line.push(b'\n');
        packer
            .write_all(&line)
            .map_err(|error| unpackable(&error))?;
    }
    packer.finish().map_err(|error| unpackable(&error))
}

fn unpack(packed: &[u8]) -> Result<Vec<Exception>, Error> {
    let unreadable = || Error::unreadable("a row of exceptions", "it is not what was stored");
    let mut lines = String::new();
    GzDecoder::new(packed)
        .take(UNPACKED_MAX)
        .read_to_string(&mut lines)
        .map_err(|_| unreadable())?;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|_| unreadable()))
        .collect()
}

impl Store {
    /// Records of a transfer that did not arrive, some at a time: those behind the place `after`. Of a file that was read twice they are
    /// those of the pass whose counts are the file's.
    pub async fn exceptions(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        after: Option<&str>,
    ) -> Result<ExceptionPage, Error> {
        let partition = keys::transfer(tenant, transfer);
        let after = after.map(|place| Key::new(&partition, place));
        let recounted = self.recounted(&partition).await?;
        let page = self
            .table
            .query(&partition, keys::EXCEPTION, after, None)
            .await?;
        let more = page.next.is_some();
        let last = page.rows.last().map(|(key, _)| key.sort.clone());
        let mut rows = Vec::with_capacity(page.rows.len());
        for (key, item) in page.rows {
            let reader = Reader::new(&item, "a row of exceptions");
            let version = reader.number("v")?;
            if version > VERSION {
                let problem = format!("version {version} is newer than this release");
                return Err(Error::unreadable("a row of exceptions", problem));
            }
            let s3_key = reader.text("s3_key")?;
            let place = key.sort.strip_prefix(&of_file(s3_key));
            let of_second_pass = place.is_some_and(|place| place.starts_with(SECOND_PASS));
            if of_second_pass != recounted.contains(s3_key) {
                continue;
            }
            rows.push(ExceptionRow {
                s3_key: s3_key.to_owned(),
                label: reader.text("label")?.to_owned(),
                exceptions: unpack(reader.bytes("packed").unwrap_or_default())?,
                place: key.sort,
            });
        }
        Ok(ExceptionPage {
            rows,
            next: last.filter(|_| more),
        })
    }

    /// The files of a transfer of which the second pass counts.
    async fn recounted(&self, partition: &str) -> Result<HashSet<String>, Error> {
        let rows = self.rows(partition, keys::RECOUNTED).await?;
        let file = |item: &Item| {
            let reader = Reader::new(item, "a row of recounted exceptions");
            Ok(reader.text("s3_key")?.to_owned())
        };
        rows.iter().map(file).collect()
    }
}
