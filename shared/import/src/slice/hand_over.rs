//! Hands a prepared batch to its target, and counts what became of each record.

use landfall_transfer::Counts;

use super::gather::Gathered;
use super::prepare::{Prepared, PreparedRecord};
use super::{Job, Stop, Target};
use crate::identity::{PartsDigest, bounded_reason};
use crate::ports::{
    Delivery, Landed, Ledger, Mappings, Rejection, RejectionKind, Sink, SinkError, SinkOutcome,
    Source,
};

/// A batch whose records all have their outcome.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    pub(super) landed: Vec<Landed>,
    pub(super) rejections: Vec<Rejection>,
    pub(super) counts: Counts,
}

impl<S: Source, L: Ledger, M: Mappings, K: Sink> Job<'_, S, L, M, K> {
    pub(super) async fn hand_over(
        &self,
        gathered: &Gathered,
        prepared: Prepared,
    ) -> Result<HandedOver, Stop> {
        let Prepared {
            mut records,
            rejections,
            known,
        } = prepared;
        let outcomes = match &self.ports.target {
            // The commit writes them.
            Target::Ledger => vec![SinkOutcome::Applied; records.len()],
            Target::Sink(sink) => self.deliver(*sink, gathered, &mut records).await?,
        };
        let mut handed_over = HandedOver {
            rejections,
            ..HandedOver::default()
        };
        handed_over.counts.unchanged = known;
        for (record, outcome) in records.into_iter().zip(outcomes) {
            handed_over.add(record, outcome);
        }
        handed_over.finish();
        Ok(handed_over)
    }

    /// Delivers the records, and takes their bytes away: the ledger keeps keys and hashes only.
    async fn deliver(
        &self,
        sink: &K,
        gathered: &Gathered,
        records: &mut [PreparedRecord],
    ) -> Result<Vec<SinkOutcome>, Stop> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // A worker that was overtaken must not reach the sink either; the commit's own fence would come too late for that.
        self.ports.ledger.check_fence().await?;
        let delivered: Vec<Landed> = records.iter().map(|record| record.landed.clone()).collect();
        let id = self.file.id();
        let delivery = Delivery {
            idempotency_key: self.idempotency_key(gathered, &delivered),
            file: self.file.identity(&id),
            position: gathered.start,
            records: &delivered,
        };
        let outcomes = sink.deliver(&delivery).await?;
        if outcomes.len() != delivered.len() {
            let reason = format!(
                "{} outcomes came for {} records",
                outcomes.len(),
                delivered.len()
            );
            return Err(SinkError::MalformedAnswer { reason }.into());
        }
        for record in records {
            record.landed.record = None;
        }
        Ok(outcomes)
    }

    /// Equal for an equal batch at the same place of the same file, whoever delivers it.
    fn idempotency_key(&self, gathered: &Gathered, records: &[Landed]) -> String {
        let file = self.file;
        let mut digest = PartsDigest::new();
        for part in [file.tenant, file.transfer, file.chain, file.label, file.key] {
            digest = digest.part(part.as_bytes());
        }
        digest = digest
            .part(&gathered.start.to_be_bytes())
            .part(&gathered.offset.to_be_bytes());
        for record in records {
            digest = digest
                .part(record.key.as_bytes())
                .part(record.content_hash.as_bytes());
        }
        digest.finish()
    }
}

impl HandedOver {
    /// Counts a record and those that follow it.
    fn add(&mut self, record: PreparedRecord, outcome: SinkOutcome) {
        let (kind, reason) = match outcome {
            SinkOutcome::Applied => return self.land(record, true),
            SinkOutcome::Unchanged => return self.land(record, false),
            SinkOutcome::Held { reason } => (RejectionKind::Held, reason),
            SinkOutcome::Rejected { reason } => (RejectionKind::Rejected, reason),
        };
        let numbers = record
            .followers
            .iter()
            .map(|follower| follower.number)
            .chain([record.number]);
        for record_number in numbers {
            self.rejections.push(Rejection {
                record_number,
                kind,
                key: Some(record.landed.key.clone()),
                namespace: None,
                reason: bounded_reason(reason.clone()),
            });
        }
    }

    fn land(&mut self, record: PreparedRecord, applied: bool) {
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
        self.landed.push(record.landed);
    }

    /// Completes the counts from the rejections, which say themselves what they are.
    fn finish(&mut self) {
        self.rejections
            .sort_by_key(|rejection| rejection.record_number);
        for rejection in &self.rejections {
            match rejection.kind {
                RejectionKind::Held => self.counts.held += 1,
                RejectionKind::Rejected => self.counts.rejected += 1,
            }
        }
        let Counts {
            applied,
            unchanged,
            held,
            rejected,
            ..
        } = self.counts;
        self.counts.read = applied + unchanged + held + rejected;
    }
}
