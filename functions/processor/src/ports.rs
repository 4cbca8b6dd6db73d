//! The import's ports, on the platform and on the tracking table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use landfall_import::declaration::{ContainerType, JiraType};
use landfall_import::ports::{
    Batch, CommitError, ContainerPage, KeptMappings, Ledger, LedgerUnavailable, MappingPage,
    Mappings, MappingsError, Opened, Pass, RejectionKind, RestartPoint, Source, SourceError,
};
use landfall_import::segments::{Fingerprint, KeptSegment, Segment, SegmentPage, SegmentStart};
use landfall_import::sink::jira::{JiraError, Operations};
use landfall_import::sink::s3::StagedFile;
use landfall_import::{ContentHash, FileProblem};
use landfall_lifecycle::{Lifecycle, Site};
use landfall_platform::connect::client::{CallError, Page, Refusal};
use landfall_platform::downloads::{DownloadError, SignedUrl};
use landfall_runtime::Clock;
use landfall_tracking::{
    Claimed, Commit, Ending, Error as Tracking, Exception, ExceptionOutcome, File, Landed, Lease,
    RecordKey,
};
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::{Counts, FileOutcome, Measure, TenantId, Timestamp, Transfer, TransferId};
use serde_json::{Value, json};

use crate::earlier::EarlierMappings;
use crate::sink::StageBucket;

/// Where a file's bytes come from.
pub(crate) enum FileSource<B> {
    /// The platform's store.
    Exported(Box<ExportedFile>),
    /// The partner's bucket, where the first phase of a staged transfer has put it.
    Staged {
        file: StagedFile<B>,
        /// Its bytes, once its index told them; 0 before.
        size: AtomicU64,
    },
}

impl<B: StageBucket> FileSource<B> {
    pub(crate) const fn staged(file: StagedFile<B>) -> Self {
        Self::Staged {
            file,
            size: AtomicU64::new(0),
        }
    }

    /// Whether the platform answered as if the transfer were over.
    pub(crate) fn was_refused(&self) -> bool {
        match self {
            Self::Exported(file) => file.refused.load(Ordering::Relaxed),
            Self::Staged { .. } => false,
        }
    }

    /// The share of the file before `offset`, in thousandths; of a compressed file it is a guess that stays below the whole.
    pub(crate) fn share_done(&self, offset: u64) -> u32 {
        let size = match self {
            Self::Exported(file) => &file.size,
            Self::Staged { size, .. } => size,
        };
        match size.load(Ordering::Relaxed) {
            0 => 0,
            size => u32::try_from((offset.saturating_mul(1_000) / size).min(999)).unwrap_or(999),
        }
    }

    /// The whole file, or none when it is larger than `limit`.
    pub(crate) async fn read_whole(&self, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let mut opened = self.open(0).await?;
        let mut whole = Vec::new();
        while let Some(chunk) = opened.stream.next().await {
            whole.extend_from_slice(&chunk?);
            if whole.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(whole))
    }

    fn note(&self, error: &CallError) {
        if let Self::Exported(file) = self {
            file.note(error);
        }
    }
}

impl<B: StageBucket> Source for FileSource<B> {
    type Stream = Chunks;

    async fn open(&self, from: u64) -> Result<Opened<Chunks>, SourceError> {
        match self {
            Self::Exported(file) => file.open(from).await,
            Self::Staged { file, size } => {
                let opened = file.open(from).boxed().await?;
                size.store(opened.total_bytes.unwrap_or(0), Ordering::Relaxed);
                Ok(opened)
            }
        }
    }
}

/// A file behind a signed URL that is asked for again when it dies.
pub(crate) struct ExportedFile {
    site: Site,
    clock: Clock,
    transfer: TransferId,
    s3_key: String,
    url: Mutex<Option<SignedUrl>>,
    /// Size of the stored file, once the object store told it; 0 before.
    size: AtomicU64,
    /// The platform answered as if the transfer were over.
    refused: AtomicBool,
    /// The object store knew nothing of the file under the last URL.
    missing: AtomicBool,
}

impl ExportedFile {
    pub(crate) const fn new(
        site: Site,
        clock: Clock,
        transfer: TransferId,
        s3_key: String,
    ) -> Self {
        Self {
            site,
            clock,
            transfer,
            s3_key,
            url: Mutex::new(None),
            size: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            missing: AtomicBool::new(false),
        }
    }

    async fn url(&self) -> Result<SignedUrl, SourceError> {
        let known = self
            .url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(url) = known {
            return Ok(url);
        }
        let patience = || self.site.patience();
        let url = patiently(&self.clock, patience, || self.site.signed_url(&self.s3_key))
            .await
            .map_err(|error| self.refusal(error))?;
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
        Ok(url)
    }

    fn forget_url(&self) {
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes that the platform answered as if the transfer were over. Whether it is, is not a single call's to say (PROTOCOL.md 2.5): the
    /// slice ends and the list is asked.
    fn note(&self, error: &CallError) {
        self.refused
            .fetch_or(error.may_be_over(), Ordering::Relaxed);
    }

    fn refusal(&self, error: CallError) -> SourceError {
        self.note(&error);
        match error {
            CallError::Throttled { retry_after } => SourceError::Throttled { retry_after },
            error => SourceError::Failed {
                reason: error.to_string(),
            },
        }
    }

    fn failure(&self, error: DownloadError) -> SourceError {
        if let DownloadError::Cut { reason, .. } = error {
            return SourceError::Cut { reason };
        }
        self.forget_url();
        match error {
            DownloadError::Expired { .. } => SourceError::Expired,
            // A new URL may find it; a second one that doesn't settles the matter.
            DownloadError::Gone if !self.missing.swap(true, Ordering::Relaxed) => {
                SourceError::Expired
            }
            error @ (DownloadError::Gone | DownloadError::BehindTheEnd { .. }) => {
                SourceError::Gone {
                    reason: error.to_string(),
                }
            }
            DownloadError::NotAdmitted(refused) => {
                tracing::error!(
                    error.code = "LF-DOWNLOAD-HOST",
                    transfer.id = %self.transfer,
                    error = %refused,
                    "A signed URL names a host that downloads.hosts doesn't allow."
                );
                SourceError::Failed {
                    reason: "the signed URL's host is not in downloads.hosts".to_owned(),
                }
            }
            error => SourceError::Failed {
                reason: error.to_string(),
            },
        }
    }
}

type Chunks = BoxStream<'static, Result<Bytes, SourceError>>;

impl ExportedFile {
    async fn open(&self, from: u64) -> Result<Opened<Chunks>, SourceError> {
        let url = self.url().await?;
        let opened = self
            .site
            .open(&url, from)
            .await
            .map_err(|error| self.failure(error))?;
        self.size.store(opened.size.unwrap_or(0), Ordering::Relaxed);
        // Whatever broke an open download, the next one may go on at the same byte.
        let cut = |error: DownloadError| SourceError::Cut {
            reason: error.to_string(),
        };
        Ok(Opened {
            starts_at: opened.starts_at,
            total_bytes: opened.size,
            stream: opened.content.map(move |chunk| chunk.map_err(cut)).boxed(),
        })
    }
}

/// Attempts of one call of the import before its slice is given up.
const ATTEMPTS: u32 = 3;

/// Pause after the first of them; doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Makes a call of the import again when the platform stumbles: a single 503 is not worth giving the file back. Each of
/// these calls only reads, so an unknown outcome may be repeated. A pause that is longer than `patience`, or a turn that is further away, ends
/// the slice.
async fn patiently<T, Call>(
    clock: &Clock,
    patience: impl Fn() -> Duration,
    call: impl Fn() -> Call,
) -> Result<T, CallError>
where
    Call: Future<Output = Result<T, CallError>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(error) if error.is_transient() => {
                let asked = error.retry_after().unwrap_or_default();
                if asked > patience() {
                    return Err(error);
                }
                clock.sleep(asked.max(pause)).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    call().await
}

/// A transfer's mappings: the platform's, and where it has forgotten those of users and groups, the ones that earlier attempts used. Also its containers, which
/// are the platform's alone.
pub(crate) struct SiteMappings<'site> {
    /// None in a later phase, whose ids were replaced in the first.
    site: Option<&'site Site>,
    lifecycle: &'site Lifecycle,
    transfer: &'site Transfer,
    earlier: &'site EarlierMappings,
}

impl<'site> SiteMappings<'site> {
    pub(crate) const fn new(
        site: Option<&'site Site>,
        lifecycle: &'site Lifecycle,
        transfer: &'site Transfer,
        earlier: &'site EarlierMappings,
    ) -> Self {
        Self {
            site,
            lifecycle,
            transfer,
            earlier,
        }
    }

    fn site(&self) -> Result<&'site Site, MappingsError> {
        self.site.ok_or_else(|| MappingsError::Refused {
            reason: "in a second phase there are no mappings any more".to_owned(),
        })
    }

    /// What earlier attempts knew of a namespace that the platform forgets.
    async fn earlier(
        &self,
        namespace: &str,
    ) -> Result<Option<&HashMap<String, String>>, MappingsError> {
        if !EarlierMappings::is_of(namespace, self.transfer) {
            return Ok(None);
        }
        let earlier = self.earlier.of(namespace, self.lifecycle, self.transfer);
        earlier.await.map_err(|error| MappingsError::Unavailable {
            reason: format!("what earlier attempts used: {error}"),
        })
    }
}

impl Mappings for SiteMappings<'_> {
    async fn find(
        &self,
        namespace: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, MappingsError> {
        let site = self.site()?;
        let patience = || site.patience();
        let found = patiently(self.lifecycle.clock(), patience, || {
            site.find_mappings(&self.transfer.id, namespace, keys)
        })
        .await;
        let mut found = found.map_err(mappings_error)?;
        if keys.iter().all(|key| found.contains_key(key)) {
            return Ok(found);
        }
        if let Some(earlier) = self.earlier(namespace).await? {
            for key in keys {
                if let Some(cloud_id) = earlier.get(key) {
                    let found = found.entry(key.clone());
                    found.or_insert_with(|| cloud_id.clone());
                }
            }
        }
        Ok(found)
    }

    async fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
    ) -> Result<MappingPage, MappingsError> {
        let site = self.site()?;
        let patience = || site.patience();
        let page = patiently(self.lifecycle.clock(), patience, || {
            site.mapping_page(&self.transfer.id, namespace, after)
        })
        .await;
        let Page { mut items, next } = page.map_err(mappings_error)?;
        // Behind the platform's last one, as of a key the first counts.
        if next.is_none()
            && let Some(earlier) = self.earlier(namespace).await?
        {
            let owned = |(key, id): (&String, &String)| (key.clone(), id.clone());
            items.extend(earlier.iter().map(owned));
        }
        Ok(MappingPage { items, next })
    }

    async fn containers(
        &self,
        container_type: ContainerType,
        after: Option<&str>,
    ) -> Result<ContainerPage, MappingsError> {
        let site = self.site()?;
        let patience = || site.patience();
        let page = patiently(self.lifecycle.clock(), patience, || {
            site.container_page(&self.transfer.id, container_type.name(), after)
        })
        .await;
        let Page { items, next } = page.map_err(mappings_error)?;
        Ok(ContainerPage {
            source_ids: items,
            next,
        })
    }
}

fn mappings_error(error: CallError) -> MappingsError {
    match error {
        CallError::Throttled { retry_after } => MappingsError::Throttled { retry_after },
        CallError::Refused {
            kind: Refusal::BadRequest | Refusal::TooLarge,
            ..
        } => MappingsError::Refused {
            reason: error.to_string(),
        },
        error => MappingsError::Unavailable {
            reason: error.to_string(),
        },
    }
}

/// Jira's operations for the transfer of a file.
pub(crate) struct SiteOperations<'site, B> {
    /// None in a later phase, when the platform's transfer is over and Jira takes nothing for it.
    pub(crate) site: Option<&'site Site>,
    pub(crate) clock: &'site Clock,
    pub(crate) transfer: &'site TransferId,
    pub(crate) source: &'site FileSource<B>,
}

impl<B: StageBucket> Operations for SiteOperations<'_, B> {
    async fn set(&self, kind: JiraType, values: &[Value]) -> Result<(), JiraError> {
        let site = self.site.ok_or_else(|| JiraError::Unavailable {
            reason: "Jira takes nothing for a second phase".to_owned(),
            retry_after: None,
        })?;
        let name = kind.name();
        let (operation, body): (&[&str], _) = if kind.is_field() {
            (&["field"], json!({ "updateValueList": values }))
        } else {
            (&["properties", &name], json!(values))
        };
        let patience = || site.patience();
        let set = patiently(self.clock, patience, || {
            site.write_to_jira(self.transfer, operation, &body)
        })
        .await;
        set.map_err(|error| match error {
            CallError::Refused {
                kind: Refusal::BadRequest | Refusal::TooLarge,
                ..
            } => JiraError::Refused {
                reason: error.to_string(),
            },
            error => {
                self.source.note(&error);
                JiraError::Unavailable {
                    reason: error.to_string(),
                    retry_after: error.retry_after(),
                }
            }
        })
    }
}

/// A file's progress under one fencing token.
pub(crate) struct FileLedger<'claim> {
    lifecycle: &'claim Lifecycle,
    lease: &'claim Lease,
    file: &'claim File,
    tenant: &'claim TenantId,
    transfer: &'claim TransferId,
    label: &'claim str,
    /// The label under which segments are kept. What a staged transfer has landed is in its bucket, and whoever looks for what is in the target must not find it.
    segments_of: Cow<'claim, str>,
    is_staged: bool,
    /// Until when the lease holds, as it was written last; in milliseconds.
    leased_until: AtomicI64,
    /// Whether a commit has ended the file.
    has_ended: AtomicBool,
}

impl<'claim> FileLedger<'claim> {
    pub(crate) fn new(
        lifecycle: &'claim Lifecycle,
        claimed: &'claim Claimed,
        label: &'claim str,
    ) -> Self {
        let leased_until = claimed.file.leased_until.unwrap_or_default();
        Self {
            lifecycle,
            lease: &claimed.lease,
            file: &claimed.file,
            tenant: &claimed.file.tenant,
            transfer: &claimed.file.transfer,
            label,
            is_staged: claimed.transfer.is_staged(),
            segments_of: if claimed.transfer.is_staged() {
                // No exporter begins a label so.
                format!("\0staged\0{label}").into()
            } else {
                label.into()
            },
            leased_until: AtomicI64::new(leased_until.as_millis()),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Whether a commit has ended the file.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    fn leased(&self, until: Timestamp) {
        self.leased_until
            .store(until.as_millis(), Ordering::Relaxed);
    }

    fn key(&self, key: &str) -> RecordKey {
        RecordKey {
            label: self.label.to_owned(),
            key: key.to_owned(),
        }
    }

    fn held_until(&self) -> Timestamp {
        self.lifecycle.now() + self.lifecycle.configuration().work.lease
    }
}

impl Ledger for FileLedger<'_> {
    async fn known(
        &self,
        keys: &[String],
    ) -> Result<HashMap<String, ContentHash>, LedgerUnavailable> {
        let wanted: Vec<RecordKey> = keys.iter().map(|key| self.key(key)).collect();
        let known = self
            .lifecycle
            .store()
            .known_records(self.tenant, self.lease.chain(), &wanted)
            .await
            .map_err(unavailable)?;
        // A hash that can't be read is one that doesn't match: the record is applied again, which is safe.
        Ok(known
            .into_iter()
            .filter_map(|(record, hash)| Some((record.key, ContentHash::from_hex(&hash)?)))
            .collect())
    }

    async fn check_fence(&self) -> Result<(), CommitError> {
        let (store, now) = (self.lifecycle.store(), self.lifecycle.now());
        let leased_until = Timestamp::from_millis(self.leased_until.load(Ordering::Relaxed));
        let configuration = self.lifecycle.configuration();
        let enough = configuration.import.sink.timeout();
        // A read costs a fifth of a write; the lease is written anew when half of it is over, or a delivery might outlive it.
        if leased_until.since(now) > enough.max(configuration.work.lease / 2) {
            return store.holds(self.lease).await.map_err(commit_error);
        }
        let until = self.held_until();
        store.renew(self.lease, until).await.map_err(commit_error)?;
        self.leased(until);
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let mut landed = Vec::with_capacity(batch.landed.len());
        for record in batch.landed {
            let json =
                String::from_utf8(record.record.into()).map_err(|_| CommitError::Unavailable {
                    reason: "a rewritten record is not UTF-8".to_owned(),
                })?;
            landed.push(Landed {
                key: self.key(&record.key),
                content_hash: record.content_hash.to_string(),
                record: json,
            });
        }
        let exceptions = batch
            .rejections
            .into_iter()
            .map(|rejection| Exception {
                record: rejection.record_number,
                outcome: match rejection.kind {
                    RejectionKind::Rejected => ExceptionOutcome::Rejected,
                    RejectionKind::Held => ExceptionOutcome::Held,
                },
                key: rejection.key,
                namespace: rejection.namespace,
                reason: rejection.reason,
            })
            .collect();
        let (now, work) = (self.lifecycle.now(), &self.lifecycle.configuration().work);
        let again_at = now + work.hold_again_after;
        let pass = match batch.pass {
            Pass::First => landfall_tracking::Pass::First,
            Pass::FirstEnds => landfall_tracking::Pass::FirstEnds {
                again_at,
                due: again_at + work.message_grace,
            },
            Pass::Second => landfall_tracking::Pass::Second,
            Pass::SecondEnds => landfall_tracking::Pass::SecondEnds,
        };
        let commit = Commit {
            pass,
            checkpoint: batch.checkpoint.encode(),
            counts: batch.checkpoint.counts,
            landed,
            label: self.label.to_owned(),
            exceptions,
            leased_until: self.held_until(),
        };
        let store = self.lifecycle.store();
        let committed = if let Some(ended) = batch.checkpoint.ended {
            let ending = ending(self.label, commit.counts, ended.problem, ended.measure);
            let clocks = &self.lifecycle.configuration().clocks;
            store
                .commit_end(self.lease, &commit, &ending, now, clocks)
                .await
        } else {
            store.commit(self.lease, &commit, now).await.map(|()| false)
        };
        let committed = committed.or_else(|error| match error {
            Tracking::Unknown if is_planted(SeededBug::UnknownCommitBelieved) => Ok(false),
            error => Err(error),
        });
        if committed.map_err(commit_error)? {
            self.has_ended.store(true, Ordering::Relaxed);
        } else {
            self.leased(commit.leased_until);
        }
        Ok(())
    }

    async fn keep_segment(&self, segment: Segment) -> Result<(), CommitError> {
        let kept = landfall_tracking::Segment {
            second_pass: segment.second_pass,
            first_record: segment.first_record,
            last_record: segment.last_record,
            landed: Fingerprint::pack(&segment.landed),
        };
        let (store, now) = (self.lifecycle.store(), self.lifecycle.now());
        store
            .keep_segment(self.lease, &self.segments_of, &kept, now)
            .await
            .map_err(commit_error)
    }

    async fn attempts(&self) -> Result<Vec<String>, LedgerUnavailable> {
        if self.is_staged {
            // What an earlier attempt has stored is nothing of this one's, and may never have come into the target.
            return Ok(vec![self.transfer.as_str().to_owned()]);
        }
        let store = self.lifecycle.store();
        let known = store
            .attempts(self.tenant, self.lease.chain())
            .await
            .map_err(unavailable)?;
        let mut attempts: Vec<String> = known
            .into_iter()
            .map(|attempt| attempt.transfer.as_str().to_owned())
            .take_while(|attempt| attempt != self.transfer.as_str())
            .collect();
        attempts.push(self.transfer.as_str().to_owned());
        Ok(attempts)
    }

    async fn segments(
        &self,
        attempt: &str,
        after: Option<&str>,
    ) -> Result<SegmentPage, LedgerUnavailable> {
        let attempt = TransferId::new(attempt);
        let store = self.lifecycle.store();
        let page = store
            .segments(self.lease, &self.segments_of, &attempt, after)
            .await
            .map_err(unavailable)?;
        let mut segments = Vec::with_capacity(page.segments.len());
        for kept in page.segments {
            // Never passed over: it may say that what an earlier attempt landed is there no more.
            let landed = Fingerprint::unpack(&kept.landed).ok_or_else(|| LedgerUnavailable {
                reason: "a segment is not of this release's form".to_owned(),
            })?;
            segments.push(KeptSegment {
                place: kept.place,
                own: kept.own.map(|own| SegmentStart {
                    second_pass: own.second_pass,
                    first_record: own.first_record,
                }),
                landed,
            });
        }
        Ok(SegmentPage {
            segments,
            more: page.more,
        })
    }

    async fn restart_point(&self) -> Result<Option<RestartPoint>, LedgerUnavailable> {
        let kept = self.lifecycle.store().restart_point(self.lease).await;
        match kept {
            Ok(kept) => Ok(kept.map(|kept| RestartPoint {
                stored: kept.stored,
                state: kept.state,
                window: kept.window.into(),
            })),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn keep_restart_point(&self, point: RestartPoint) {
        let kept = landfall_tracking::RestartPoint {
            stored: point.stored,
            state: point.state,
            window: point.window.into(),
        };
        let (store, now) = (self.lifecycle.store(), self.lifecycle.now());
        let outcome = store.keep_restart_point(self.lease, &kept, self.held_until(), now);
        if let Err(error) = outcome.await {
            tracing::info!(error = %error, "A restart point was not kept; the next slice reads more of the file.");
        }
    }

    async fn keep_mappings(&self, piece: KeptMappings) {
        let fence = self.lease.fence();
        let place = format!("{:020}.{fence:010}.{:06}", piece.offset, piece.number);
        let (store, now) = (self.lifecycle.store(), self.lifecycle.now());
        let outcome = store.keep_mappings(self.file, &place, piece.packed.into(), now);
        if let Err(error) = outcome.await {
            tracing::info!(transfer.id = %self.file.transfer, error = %error, "Used mappings were not kept; only a re-run after 14 days could miss them.");
        }
    }
}

/// How a file ends of which this came.
pub(crate) fn ending(
    label: &str,
    counts: Counts,
    problem: Option<FileProblem>,
    measure: Measure,
) -> Ending {
    let outcome = match problem {
        None => FileOutcome::Imported,
        Some(problem) if label.is_empty() => FileOutcome::Unreadable {
            reason: problem.to_string(),
        },
        Some(problem) => FileOutcome::Unreadable {
            reason: format!("{label}: {problem}"),
        },
    };
    Ending {
        measure,
        ..Ending::new(outcome, counts)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "an error that is mapped is given away"
)]
fn unavailable(error: Tracking) -> LedgerUnavailable {
    LedgerUnavailable {
        reason: error.to_string(),
    }
}

fn commit_error(error: Tracking) -> CommitError {
    match error {
        Tracking::Conflict => CommitError::FenceLost,
        Tracking::Unknown => CommitError::Unknown {
            reason: error.to_string(),
        },
        error => CommitError::Unavailable {
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn calls_until(clock: &Clock, succeeds_at: u32, error: CallError) -> (u32, bool) {
        let calls = Cell::new(0);
        let outcome = patiently(
            clock,
            || Duration::from_secs(2),
            || {
                calls.set(calls.get() + 1);
                let answer = if calls.get() >= succeeds_at {
                    Ok(())
                } else {
                    Err(error.clone())
                };
                async move { answer }
            },
        )
        .await;
        (calls.get(), outcome.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_platform_that_stumbles_is_asked_again_and_one_that_refuses_is_not() {
        let clock = Clock::system();
        let stumbles = CallError::Server {
            status: 503,
            retry_after: None,
        };
        assert_eq!(calls_until(&clock, 3, stumbles.clone()).await, (3, true));
        assert_eq!(clock.monotonic(), Duration::from_millis(600));
        assert_eq!(calls_until(&clock, 4, stumbles).await, (3, false));
        let before = clock.monotonic();
        assert_eq!(
            calls_until(&clock, 2, CallError::Unauthorized).await,
            (1, false)
        );
        let asks_for_long = CallError::Throttled {
            retry_after: Some(Duration::from_mins(1)),
        };
        assert_eq!(calls_until(&clock, 2, asks_for_long).await, (1, false));
        assert_eq!(clock.monotonic(), before, "nobody waited");
    }
}
