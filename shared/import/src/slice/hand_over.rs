//! Hands prepared records to their target, and counts what became of each record.

use landfall_transfer::Counts;

use super::gather::Gathered;
use super::prepare::{Prepared, PreparedRecord};
use super::{Job, Position, Stop, Target};
use crate::checkpoint::Ended;
use crate::declaration::Limits;
use crate::identity::{KEY_BYTES, PartsDigest, REASON_BYTES, bounded_reason};
use crate::ports::{
    COMMIT_REJECTION_BYTES, COMMIT_WRITES, Delivery, Landed, Ledger, Mappings, Rejection,
    RejectionKind, Sink, SinkError, SinkOutcome, Source,
};
use crate::segments::Fingerprint;

/// Records that are prepared and not handed over yet. In a first attempt that is one batch at most; in a re-run, whose batches have few
/// records that are not in the target already, it is what some of them have to hand over.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    records: Vec<PreparedRecord>,
    /// Of the records' keys and content.
    bytes: usize,
    /// Where the batch of the first of them begins.
    position: u64,
    rejections: Vec<Rejection>,
    rejection_bytes: usize,
    unchanged: u64,
    /// Where reading goes on behind it, once anything is in it.
    end: Option<(Position, Option<Ended>)>,
}

/// Records that have their outcome, and are not committed yet.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Those that the commit itself writes.
    pub(super) landed: Vec<Landed>,
    /// Those that are in the target and that no earlier segment shows.
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) rejections: Vec<Rejection>,
    rejection_bytes: usize,
    pub(super) counts: Counts,
    /// Where reading goes on behind it, once anything is in it.
    pub(super) end: Option<(Position, Option<Ended>)>,
}

impl Waiting {
    pub(super) const fn is_empty(&self) -> bool {
        self.end.is_none()
    }

    /// Whether one of these records is waiting already: what becomes of it must be known first.
    pub(super) fn has_any(&self, records: &[PreparedRecord]) -> bool {
        self.records.iter().any(|waiting| {
            let is_it = |record: &PreparedRecord| record.landed.key == waiting.landed.key;
            records.iter().any(is_it)
        })
    }

    /// Whether these can be handed over together with what is waiting.
    pub(super) fn has_room_for(
        &self,
        prepared: &Prepared,
        rejections: &[Rejection],
        limits: &Limits,
    ) -> bool {
        let records = self.records.len() + prepared.records.len();
        let rejected = !(self.rejections.is_empty() && rejections.is_empty());
        self.is_empty()
            || (records <= limits.batch_records
                && records + usize::from(rejected) <= COMMIT_WRITES
                && self.bytes + bytes(&prepared.records) <= limits.batch_bytes
                && self.rejection_bytes + rejection_bytes(rejections) <= COMMIT_REJECTION_BYTES)
    }

    pub(super) fn add(
        &mut self,
        gathered: &Gathered,
        prepared: Prepared,
        rejections: Vec<Rejection>,
    ) {
        if self.records.is_empty() {
            self.position = gathered.start;
        }
        self.bytes += bytes(&prepared.records);
        self.rejection_bytes += rejection_bytes(&rejections);
        if self.records.is_empty() {
            // Nearly always: nothing is moved then.
            self.records = prepared.records;
        } else {
            self.records.extend(prepared.records);
        }
        self.rejections.extend(rejections);
        self.unchanged += prepared.known;
        self.end = Some((gathered.position(), gathered.ended.clone()));
    }
}

fn bytes(records: &[PreparedRecord]) -> usize {
    let of = |record: &PreparedRecord| record.landed.key.len() + record.landed.record.len();
    records.iter().map(of).sum()
}

/// What a rejection takes where it is written, beside its texts, in bytes.
const REJECTION_BYTES: usize = 100;

const _: () = assert!(
    COMMIT_WRITES * (REJECTION_BYTES + KEY_BYTES + REASON_BYTES) <= COMMIT_REJECTION_BYTES,
    "whatever becomes of a batch fits into one commit"
);

/// What rejections take where they are written, in bytes.
fn rejection_bytes(rejections: &[Rejection]) -> usize {
    let of = |rejection: &Rejection| {
        let texts = [&rejection.key, &rejection.namespace];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        REJECTION_BYTES + texts + rejection.reason.len()
    };
    rejections.iter().map(of).sum()
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink> Job<'_, S, L, M, K> {
    /// Delivers records to a sink outside, and tells what became of each; with the ledger as the target they are written by the commit.
    pub(super) async fn hand_over(
        &self,
        waiting: &Waiting,
    ) -> Result<Option<Vec<SinkOutcome>>, Stop> {
        let Target::Sink(sink) = &self.ports.target else {
            return Ok(None);
        };
        if waiting.records.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // A worker that was overtaken must not reach the sink either; the commit's own fence would come too late for that.
        self.ports.ledger.check_fence().await?;
        let records: Vec<Landed> = waiting
            .records
            .iter()
            .map(|record| record.landed.clone())
            .collect();
        let id = self.file.id();
        let delivery = Delivery {
            idempotency_key: self.idempotency_key(&waiting.records),
            file: self.file.identity(&id),
            position: self.behind.unwrap_or_default() + waiting.position,
            records: &records,
        };
        let outcomes = sink.deliver(&delivery).await?;
        if outcomes.len() != records.len() {
            let reason = format!(
                "{} outcomes came for {} records",
                outcomes.len(),
                records.len()
            );
            return Err(SinkError::MalformedAnswer { reason }.into());
        }
        Ok(Some(outcomes))
    }

    /// Equal for the same records at the same place of the same file, whoever delivers them.
    fn idempotency_key(&self, records: &[PreparedRecord]) -> String {
        let file = self.file;
        let mut digest = PartsDigest::new();
        for part in [file.tenant, file.transfer, file.chain, file.label, file.key] {
            digest = digest.part(part.as_bytes());
        }
        if self.behind.is_some() {
            // What a sink held in the first pass is asked again, and not answered out of its memory.
            digest = digest.part(b"second pass");
        }
        for record in records {
            digest = digest
                .part(&record.number.to_be_bytes())
                .part(record.landed.key.as_bytes())
                .part(record.landed.content_hash.as_bytes());
        }
        digest.finish()
    }
}

impl Done {
    /// Whether there is room for what a sink may reject of these records.
    pub(super) fn has_room_for(&self, waiting: &Waiting) -> bool {
        let perhaps = waiting.records.len() * (REJECTION_BYTES + KEY_BYTES + REASON_BYTES);
        self.rejection_bytes + waiting.rejection_bytes + perhaps <= COMMIT_REJECTION_BYTES
    }

    /// Takes in what became of records that were handed over. `outcomes` are those of a sink outside, in the records' order.
    pub(super) fn add(&mut self, waiting: Waiting, outcomes: Option<Vec<SinkOutcome>>) {
        let by_commit = outcomes.is_none();
        let mut outcomes = outcomes.unwrap_or_default().into_iter();
        let mut rejections = waiting.rejections;
        self.counts.unchanged += waiting.unchanged;
        self.fingerprints.reserve(waiting.records.len());
        if by_commit {
            self.landed.reserve(waiting.records.len());
        }
        for record in waiting.records {
            let outcome = outcomes.next().unwrap_or(SinkOutcome::Applied);
            let (kind, reason) = match outcome {
                outcome @ (SinkOutcome::Applied | SinkOutcome::Unchanged) => {
                    self.land(&record, outcome == SinkOutcome::Applied);
                    if by_commit {
                        self.landed.push(record.landed);
                    }
                    continue;
                }
                SinkOutcome::Held { reason } => (RejectionKind::Held, reason),
                SinkOutcome::Rejected { reason } => (RejectionKind::Rejected, reason),
            };
            let numbers = record
                .followers
                .iter()
                .map(|follower| follower.number)
                .chain([record.number]);
            for record_number in numbers {
                rejections.push(Rejection {
                    record_number,
                    kind,
                    key: Some(record.landed.key.to_string()),
                    namespace: None,
                    reason: bounded_reason(reason.clone()),
                    cause: None,
                });
            }
        }
        rejections.sort_by_key(|rejection| rejection.record_number);
        for rejection in &rejections {
            match rejection.kind {
                RejectionKind::Held => self.counts.held += 1,
                RejectionKind::Rejected => self.counts.rejected += 1,
            }
        }
        self.rejection_bytes += rejection_bytes(&rejections);
        self.rejections.extend(rejections);
        self.end = waiting.end;
        let Counts {
            applied,
            unchanged,
            held,
            rejected,
            ..
        } = self.counts;
        self.counts.read = applied + unchanged + held + rejected;
    }

    /// Counts a record that is in the target, and those that follow it.
    fn land(&mut self, record: &PreparedRecord, applied: bool) {
        for changes in record
            .followers
            .iter()
            .map(|follower| !follower.identical)
            .chain([true])
        {
            if applied && changes {
                self.counts.applied += 1;
            } else {
                self.counts.unchanged += 1;
            }
        }
        self.fingerprints.push(record.fingerprint);
    }
}
