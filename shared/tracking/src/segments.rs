//! The packed half of the ledger: which records of a stretch of a file are in the target, some bytes each.

use aws_lc_rs::digest::{SHA256, digest};
use landfall_transfer::{ChainId, TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::files::{Lease, RACES_MAX};
use crate::item::{Item, Reader, Value, number};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Returning, Write, WriteError};

/// Consecutive records of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whether they were read in the file's second pass. Its segments stand beside those of the first, and count as newer.
    pub second_pass: bool,
    /// Number of the first one in the file, from 1.
    pub first_record: u64,
    /// Number of the last one.
    pub last_record: u64,
    /// Which of them are in the target, as the import packs it.
    pub landed: Vec<u8>,
}

/// A segment, as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSegment {
    /// Its place among those of its attempt.
    pub place: String,
    /// Where it begins, when it is of the file that the lease is for.
    pub own: Option<SegmentStart>,
    /// Which of its records are in the target, as the import packs it.
    pub landed: Vec<u8>,
}

/// Where a segment begins in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStart {
    /// Whether it is of the file's second pass.
    pub second_pass: bool,
    /// The number of its first record.
    pub first_record: u64,
}

impl SegmentStart {
    /// Reads what stands behind the file in a segment's place.
    fn parse(place: &str) -> Option<Self> {
        let of_second_pass = place.strip_prefix(SECOND_PASS);
        Some(Self {
            second_pass: of_second_pass.is_some(),
            first_record: of_second_pass.unwrap_or(place).parse().ok()?,
        })
    }
}

/// Some of an attempt's segments, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentPage {
    /// The segments.
    pub segments: Vec<KeptSegment>,
    /// Whether others follow.
    pub more: bool,
}

/// The form of a segment's row. A newer one is refused, never passed over: it may say that what an earlier attempt landed is there no more.
const VERSION: u64 = 1;

/// What stands between the file and the record in the place of a segment of the second pass: behind all of the first, so that of a key what
/// was found last is read last.
const SECOND_PASS: &str = "second#";

/// The partition of all segments of a chain under one label.
fn partition(tenant: &TenantId, chain: &ChainId, label: &str) -> String {
    let label = digest(&SHA256, label.as_bytes());
    format!(
        "LEDGER#{}#{}#{}",
        keys::part(tenant.as_str()),
        keys::part(chain.as_str()),
        hex::encode(label.as_ref().get(..8).unwrap_or_default())
    )
}

fn of_attempt(transfer: &TransferId) -> String {
    format!("SEGMENT#{}#", keys::part(transfer.as_str()))
}

fn of_file(lease: &Lease) -> String {
    format!(
        "{}{}#",
        of_attempt(&lease.transfer),
        keys::part(&lease.s3_key)
    )
}

impl Store {
    /// Keeps a segment, over one of the same pass with the same first record that the same or an earlier worker kept.
    /// [`Error::Conflict`]: a later worker was here; nothing was written and nothing may be.
    pub async fn keep_segment(
        &self,
        lease: &Lease,
        label: &str,
        segment: &Segment,
        now: Timestamp,
    ) -> Result<(), Error> {
        let pass = if segment.second_pass { SECOND_PASS } else { "" };
        let sort = format!("{}{pass}{:012}", of_file(lease), segment.first_record);
        let key = Key::new(partition(&lease.tenant, &lease.chain, label), sort);
        let item = Item::from([
            ("v".into(), number(VERSION)),
            ("fence".into(), number(lease.fence)),
            ("last".into(), number(segment.last_record)),
            ("landed".into(), Value::Bytes(segment.landed.clone())),
            ("expires_at".into(), history_expires(now)),
        ]);
        let put = Write::put(key, item);
        let mut write = put.clone().if_absent();
        for race in 0..RACES_MAX {
            match self.table.write(write.clone(), Returning::Row).await {
                Ok(_) => return Ok(()),
                Err(WriteError::ConditionFailed(Some(row))) => {
                    let fence = Reader::new(&row, "a segment").number("fence")?;
                    if fence > lease.fence {
                        return Err(Error::Conflict);
                    }
                    write = put.clone().only_if("fence", number(fence));
                }
                Err(WriteError::ConditionFailed(None)) => write = put.clone().if_absent(),
                Err(WriteError::Failed(Error::Contended)) => self.pause(race).await,
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    /// The segments that an attempt of the lease's chain has kept under a label, some at a time: those behind the place `after`.
    pub async fn segments(
        &self,
        lease: &Lease,
        label: &str,
        attempt: &TransferId,
        after: Option<&str>,
    ) -> Result<SegmentPage, Error> {
        let partition = partition(&lease.tenant, &lease.chain, label);
        let own = of_file(lease);
        let after = after.map(|sort| Key::new(&partition, sort));
        let page = self
            .table
            .query(&partition, &of_attempt(attempt), after, None)
            .await?;
        let more = page.next.is_some();
        let mut segments = Vec::with_capacity(page.rows.len());
        for (key, item) in page.rows {
            let reader = Reader::new(&item, "a segment");
            let version = reader.number("v")?;
            if version > VERSION {
                let problem = format!("version {version} is newer than this release");
                return Err(Error::unreadable("a segment", problem));
            }
            let place = key.sort.strip_prefix(&own);
            segments.push(KeptSegment {
                own: place.and_then(SegmentStart::parse),
                landed: reader.bytes("landed").unwrap_or_default().to_vec(),
                place: key.sort,
            });
        }
        Ok(SegmentPage { segments, more })
    }
}
