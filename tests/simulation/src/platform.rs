//! The platform, as PROTOCOL.md tells it, in memory: a second reading beside the twin, made for speed and for faults at every call.

mod messages;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use landfall_clock::Clock;
use landfall_lifecycle::{Api, Opened, Tenant};
use landfall_models::{Call, Fate, Weather};
use landfall_platform::connect::client::{
    ActiveTransfer, CallError, ListedFile, Page, Progress, Recent, Refusal, ServerError, Status,
};
use landfall_platform::downloads::{DownloadError, SignedUrl};
use landfall_transfer::{MessageOutcome, Timestamp, TransferId};
use secrecy::ExposeSecret as _;

pub use messages::{Message, Messages, WINDOW};

use crate::forge;

/// The platform gives a transfer up after 14 days (PROTOCOL.md 2.4).
pub const LIFE: Duration = Duration::from_hours(14 * 24);

/// It settles a cancelled transfer itself after an hour (PROTOCOL.md 2.4).
pub const CANCELLATION: Duration = Duration::from_hours(1);

/// A re-run is possible for twelve days from the first attempt (PROTOCOL.md 2.4).
pub const RERUN: Duration = Duration::from_hours(12 * 24);

/// A signed URL lives for an hour (PROTOCOL.md 2.4).
const URL_LIFE: Duration = Duration::from_hours(1);

/// The list of active transfers holds the latest hundred (PROTOCOL.md 5).
const LISTED_MAX: usize = 100;

/// Bytes of a chunk of a download.
const CHUNK: usize = 96;

/// How the platform answers where the sources disagree (OPEN-QUESTIONS.md B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percent {
    /// Every form of a final status counts.
    Any,
    /// Only 100 counts; others are answered 200 and ignored.
    OnlyHundred,
    /// 100 is refused with 400.
    NotHundred,
    /// Only a form without percent counts; others are answered 200 and ignored.
    OnlyOmitted,
}

/// The switches of one platform.
#[derive(Clone, Copy, Debug)]
pub struct Switches {
    /// Which percent a final status counts with.
    pub percent: Percent,
    /// What a settle call for a transfer that is over is answered with: 403, 404, 409 or 400.
    pub over: u16,
    /// How long a settled transfer stays on the list of active ones.
    pub listed_for: Duration,
    /// Whether the object store answers range requests.
    pub ranges: bool,
    /// Whether the settled event names the status.
    pub names_status: bool,
    /// How long a system token is good that comes with a call (PROTOCOL.md 7.5).
    pub token_life: Duration,
    /// Whether one answer `FAILED` ends a transfer at once (OPEN-QUESTIONS.md D8).
    pub failed_ends_at_once: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            percent: Percent::Any,
            over: 403,
            listed_for: Duration::ZERO,
            ranges: true,
            names_status: true,
            token_life: Duration::from_hours(4),
            failed_ends_at_once: false,
        }
    }
}

/// Who ended a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Landfall's verdict was taken, or on Forge its answers.
    App,
    /// Nobody settled it within 14 days, or answered a message within a quarter of an hour.
    TimedOut,
    /// Nobody settled it within an hour of the cancellation.
    Cancelled,
    /// The platform ended it early, for reasons of its own.
    Itself,
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The final status.
    pub status: String,
    /// By whom.
    pub by: EndedBy,
    /// When.
    pub at: Timestamp,
}

/// A call that settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The status.
    pub status: String,
    /// What the admin reads.
    pub message: String,
    /// The percent.
    pub percent: Option<u8>,
    /// Whether it took effect.
    pub taken: bool,
    /// When it arrived.
    pub at: Timestamp,
}

/// A transfer as the platform has it.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Whose.
    pub tenant: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The first attempt, when it is a re-run.
    pub original: Option<String>,
    /// When the first attempt was made.
    pub chain_began_at: Timestamp,
    /// When the admin cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Every call that settles, in order.
    pub settlements: Vec<Settlement>,
    /// Highest percent so far.
    pub percent: u8,
    /// What the server's listener failed with.
    pub exception: Option<String>,
    /// Its messages, on Forge.
    pub messages: Option<Messages>,
    files: Vec<(String, String)>,
}

/// A file as it was uploaded.
#[derive(Clone, Debug)]
struct Uploaded {
    transfer: String,
    label: String,
    content: Bytes,
}

/// Looks at a file whose message is answered `SUCCESS`: its transfer, its key, its label and its content.
type Look = Arc<dyn Fn(&str, &str, &str, &Bytes) + Send + Sync>;

#[derive(Default)]
struct State {
    transfers: BTreeMap<String, Transfer>,
    contents: HashMap<String, Uploaded>,
    secrets: HashMap<String, String>,
    /// What the platform wants to tell: the tenant and the event's type, transfer and status.
    told: VecDeque<(String, String, String)>,
    trespasses: Vec<String>,
    wrongs: Vec<String>,
    on_success: Option<Look>,
}

/// The platform in memory. Clones share its state.
#[derive(Clone)]
pub struct PlatformModel {
    state: Arc<Mutex<State>>,
    switches: Switches,
    weather: Arc<dyn Weather>,
    clock: Clock,
}

impl std::fmt::Debug for PlatformModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PlatformModel")
            .field("transfers", &self.lock().transfers.len())
            .finish_non_exhaustive()
    }
}

impl PlatformModel {
    /// A platform without sites. Its clock is the true one.
    pub fn new(switches: Switches, weather: Arc<dyn Weather>, clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            switches,
            weather,
            clock,
        }
    }

    /// The same platform as another machine reaches it.
    #[must_use]
    pub fn seen_under(&self, weather: Arc<dyn Weather>) -> Self {
        Self {
            weather,
            ..self.clone()
        }
    }

    /// A site has the app installed.
    pub fn install(&self, tenant: &str, secret: &str) {
        self.lock()
            .secrets
            .insert(tenant.to_owned(), secret.to_owned());
    }

    /// An admin starts a migration, or re-runs one.
    pub fn begin(&self, tenant: &str, id: &str, original: Option<&str>) {
        let now = self.clock.now();
        let mut state = self.lock();
        let chain_began_at = original
            .and_then(|original| state.transfers.get(original))
            .map_or(now, |first| first.created_at);
        state.transfers.insert(
            id.to_owned(),
            Transfer {
                tenant: tenant.to_owned(),
                created_at: now,
                original: original.map(str::to_owned),
                chain_began_at,
                cancelled_at: None,
                ended: None,
                settlements: Vec::new(),
                percent: 0,
                exception: None,
                messages: forge::is_installation(tenant).then(Messages::default),
                files: Vec::new(),
            },
        );
    }

    /// Looks at each file whose message is answered `SUCCESS`, at that very moment.
    pub fn watch_answers(&self, look: impl Fn(&str, &str, &str, &Bytes) + Send + Sync + 'static) {
        self.lock().on_success = Some(Arc::new(look));
    }

    /// The server app uploads a file. What comes after the end is refused.
    pub fn upload(&self, id: &str, key: &str, label: &str, content: impl Into<Bytes>) -> bool {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(transfer) = state
            .transfers
            .get_mut(id)
            .filter(|transfer| transfer.ended.is_none())
        else {
            return false;
        };
        transfer.files.push((key.to_owned(), label.to_owned()));
        if let Some(messages) = &mut transfer.messages {
            messages.open(id, key, now);
        }
        let uploaded = Uploaded {
            transfer: id.to_owned(),
            label: label.to_owned(),
            content: content.into(),
        };
        state.contents.insert(key.to_owned(), uploaded);
        true
    }

    /// The server's listener fails.
    pub fn fail_listener(&self, id: &str, exception: &str) -> bool {
        self.change(id, |transfer| {
            transfer.exception = Some(exception.to_owned());
        })
    }

    /// An admin cancels.
    pub fn cancel(&self, id: &str) -> bool {
        let now = self.clock.now();
        self.change(id, |transfer| {
            transfer.cancelled_at.get_or_insert(now);
        })
    }

    /// Whether an admin can re-run it now.
    pub fn can_rerun(&self, id: &str) -> bool {
        let now = self.clock.now();
        self.lock().transfers.get(id).is_some_and(|transfer| {
            let failed = transfer
                .ended
                .as_ref()
                .is_some_and(|ended| matches!(ended.status.as_str(), "FAILED" | "INCOMPLETE"));
            failed && now.since(transfer.chain_began_at) < RERUN
        })
    }

    /// Ends what nobody settled in time. Returns when that will happen next, in milliseconds.
    pub fn enforce(&self) -> Option<i64> {
        let now = self.clock.now();
        let mut state = self.lock();
        let mut next: Option<Timestamp> = None;
        let mut ended = Vec::new();
        for (id, transfer) in &mut state.transfers {
            if transfer.ended.is_some() {
                continue;
            }
            let failed_at_once = self.switches.failed_ends_at_once;
            let told = transfer
                .end_export(now)
                .then(|| transfer.conclude(id, failed_at_once, now));
            if let Some(told) = told.flatten() {
                ended.push(told);
                continue;
            }
            let (at, status, by) = transfer.given_up();
            if at <= now {
                transfer.ended = Some(Ended {
                    status: status.to_owned(),
                    by,
                    at: now,
                });
                ended.push((transfer.tenant.clone(), id.clone(), status.to_owned()));
            } else {
                let acts = transfer.export_ends().map_or(at, |end| end.min(at));
                next = Some(next.map_or(acts, |next| next.min(acts)));
            }
        }
        state.told.extend(ended);
        next.map(Timestamp::as_millis)
    }

    /// The platform ends a transfer for reasons of its own.
    pub fn end(&self, id: &str, status: &str) -> bool {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(transfer) = state
            .transfers
            .get_mut(id)
            .filter(|transfer| transfer.ended.is_none())
        else {
            return false;
        };
        transfer.ended = Some(Ended {
            status: status.to_owned(),
            by: EndedBy::Itself,
            at: now,
        });
        let tenant = transfer.tenant.clone();
        state
            .told
            .push_back((tenant, id.to_owned(), status.to_owned()));
        true
    }

    /// The next transfer whose settlement the platform wants to tell: tenant, transfer, status.
    pub fn next_settled(&self) -> Option<(String, String, String)> {
        self.lock().told.pop_front()
    }

    /// A transfer as it stands.
    pub fn transfer(&self, id: &str) -> Option<Transfer> {
        self.lock().transfers.get(id).cloned()
    }

    /// All transfers.
    pub fn transfers(&self) -> Vec<(String, Transfer)> {
        let state = self.lock();
        state
            .transfers
            .iter()
            .map(|(id, transfer)| (id.clone(), transfer.clone()))
            .collect()
    }

    /// Calls that the platform takes, but that must never be made.
    pub fn wrongs(&self) -> Vec<String> {
        self.lock().wrongs.clone()
    }

    /// Calls that one tenant's token made for what is another's.
    pub fn trespasses(&self) -> Vec<String> {
        self.lock().trespasses.clone()
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Transfer)) -> bool {
        let mut state = self.lock();
        let found = state
            .transfers
            .get_mut(id)
            .filter(|transfer| transfer.ended.is_none());
        let open = found.is_some();
        if let Some(transfer) = found {
            change(transfer);
        }
        open
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a call out between the two halves of the weather.
    async fn pass<T: Send>(
        &self,
        operation: &'static str,
        subject: &str,
        writes: bool,
        tenant: &Tenant,
        effect: impl FnOnce(&mut State) -> Result<T, CallError> + Send,
    ) -> Result<T, CallError> {
        let call = Call {
            operation,
            subject: subject.to_owned(),
            writes,
            transaction: false,
        };
        let fate = self.weather.before(&call).await;
        let effect = |state: &mut State| {
            let (id, credential) = (tenant.id.as_str(), tenant.credential.expose_secret());
            let admitted = if forge::is_installation(id) {
                forge::admits(credential, id, self.clock.now())
            } else {
                let secret = state.secrets.get(id);
                secret.is_some_and(|secret| secret == credential)
            };
            if !admitted {
                return Err(CallError::Unauthorized);
            }
            effect(state)
        };
        let outcome = match fate {
            Fate::Works => effect(&mut self.lock()),
            Fate::Throttled => Err(CallError::Throttled {
                retry_after: Some(Duration::from_secs(5)),
            }),
            Fate::Contended => Err(CallError::NotSent {
                reason: "connection refused".to_owned(),
            }),
            Fate::LostBefore => Err(CallError::Unknown {
                reason: "no answer".to_owned(),
            }),
            Fate::LostAfter => {
                drop(effect(&mut self.lock()));
                Err(CallError::Unknown {
                    reason: "no answer".to_owned(),
                })
            }
            // A gateway answers for what stands behind it, which may have done its work.
            Fate::Repeated => {
                drop(effect(&mut self.lock()));
                Err(CallError::Server {
                    status: 502,
                    retry_after: None,
                })
            }
        };
        self.weather.after(&call).await;
        outcome
    }

    fn progress(
        &self,
        state: &mut State,
        tenant: &str,
        id: &str,
        progress: &Progress,
    ) -> Result<(), CallError> {
        let now = self.clock.now();
        let Some(transfer) = owned(state, tenant, id) else {
            return Err(refused(404, Refusal::Gone));
        };
        let status = match progress.status {
            Status::InProgress => None,
            Status::Success => Some("SUCCESS"),
            Status::Incomplete => Some("INCOMPLETE"),
            Status::Failed => Some("FAILED"),
        };
        let over = transfer.ended.is_some();
        let refused_form = self.switches.percent == Percent::NotHundred
            && status.is_some()
            && progress.percent == Some(100);
        let counts = match self.switches.percent {
            Percent::Any | Percent::NotHundred => true,
            Percent::OnlyHundred => progress.percent == Some(100),
            Percent::OnlyOmitted => progress.percent.is_none(),
        };
        // A lower percent is answered 200 and ignored (PROTOCOL.md 2.6).
        let falls = progress
            .percent
            .is_some_and(|percent| percent < transfer.percent);
        let taken = !over && !refused_form && counts && !falls;
        if let Some(status) = status {
            transfer.settlements.push(Settlement {
                status: status.to_owned(),
                message: progress.message.clone().unwrap_or_default(),
                percent: progress.percent,
                taken,
                at: now,
            });
        }
        if over {
            return Err(match self.switches.over {
                400 => refused(400, Refusal::Expired),
                status => refused(status, Refusal::Gone),
            });
        }
        if refused_form {
            return Err(refused(400, Refusal::BadRequest));
        }
        if let Some(percent) = progress.percent.filter(|_| !falls) {
            transfer.percent = percent;
        }
        if let Some(status) = status.filter(|_| taken) {
            transfer.ended = Some(Ended {
                status: status.to_owned(),
                by: EndedBy::App,
                at: now,
            });
            let tenant = transfer.tenant.clone();
            state
                .told
                .push_back((tenant, id.to_owned(), status.to_owned()));
        }
        Ok(())
    }

    fn recent(&self, state: &State, tenant: &str) -> Recent {
        let now = self.clock.now();
        let mut listed: Vec<(&String, &Transfer)> = state
            .transfers
            .iter()
            .filter(|(_, transfer)| transfer.tenant == tenant)
            .filter(|(_, transfer)| {
                transfer
                    .ended
                    .as_ref()
                    .is_none_or(|ended| now.since(ended.at) < self.switches.listed_for)
            })
            .collect();
        listed.sort_by_key(|(_, transfer)| std::cmp::Reverse(transfer.created_at));
        listed.truncate(LISTED_MAX);
        Recent {
            conclusive: listed.len() < LISTED_MAX,
            transfers: listed
                .into_iter()
                .map(|(id, transfer)| ActiveTransfer {
                    transfer_id: id.clone(),
                    status: if transfer.cancelled_at.is_some() {
                        "CANCELLATION_REQUESTED".to_owned()
                    } else {
                        "IN_PROGRESS".to_owned()
                    },
                    original_transfer_id: None,
                    created_at_ms: Some(transfer.created_at.as_millis()),
                    migration_id: None,
                    client_keys: vec![tenant.to_owned()],
                })
                .collect(),
        }
    }

    fn download(&self, url: &str, from: u64) -> Result<(Bytes, u64), DownloadError> {
        let expired = DownloadError::Expired { status: 403 };
        let Some((key, until)) = url
            .rsplit_once("/store/")
            .and_then(|(_, rest)| rest.split_once("?until="))
        else {
            return Err(DownloadError::Gone);
        };
        let until = until.parse().map_or(0, |until: i64| until);
        if self.clock.now().as_millis() >= until {
            return Err(expired);
        }
        let state = self.lock();
        let Some(Uploaded {
            transfer: id,
            content,
            ..
        }) = state.contents.get(key)
        else {
            return Err(DownloadError::Gone);
        };
        // Files are gone with the settlement (OPEN-QUESTIONS.md C8).
        if state
            .transfers
            .get(id)
            .is_none_or(|transfer| transfer.ended.is_some())
        {
            return Err(expired);
        }
        let start = if self.switches.ranges { from } else { 0 };
        if start > content.len() as u64 {
            return Err(DownloadError::BehindTheEnd { offset: from });
        }
        Ok((content.clone(), start))
    }
}

impl Transfer {
    /// When the platform gives it up, how it ends then, and for what reason.
    fn given_up(&self) -> (Timestamp, &'static str, EndedBy) {
        let end = (self.created_at + LIFE, "TIMED_OUT", EndedBy::TimedOut);
        let answered = self
            .messages
            .as_ref()
            .is_some_and(|messages| !messages.are_open());
        let cancelled = self.cancelled_at.map(|at| {
            // On Forge nobody but the platform can say so (OPEN-QUESTIONS.md D13).
            let by = if answered {
                EndedBy::App
            } else {
                EndedBy::Cancelled
            };
            (at + CANCELLATION, "CANCELLED", by)
        });
        let unanswered = self
            .messages
            .as_ref()
            .filter(|_| self.cancelled_at.is_none())
            .and_then(Messages::expires)
            .map(|at| (at, "TIMED_OUT", EndedBy::TimedOut));
        let mut first = end;
        for other in [cancelled, unanswered].into_iter().flatten() {
            if other.0 < first.0 {
                first = other;
            }
        }
        first
    }

    /// When its export has ended because nothing more was uploaded.
    fn export_ends(&self) -> Option<Timestamp> {
        let messages = self.messages.as_ref();
        messages
            .filter(|_| self.cancelled_at.is_none())
            .and_then(Messages::falls_quiet)
    }

    /// Ends an export that nobody ended. Returns whether it did.
    fn end_export(&mut self, now: Timestamp) -> bool {
        let ends = self.export_ends().filter(|at| *at <= now);
        if let (Some(at), Some(messages)) = (ends, &mut self.messages) {
            messages.complete(at);
        }
        ends.is_some()
    }
}

/// A transfer, if it is the tenant's.
fn owned<'state>(state: &'state mut State, tenant: &str, id: &str) -> Option<&'state mut Transfer> {
    if id.contains('+') {
        let wrong = format!("{id}: the platform was called for a later phase");
        state.wrongs.push(wrong);
    }
    let transfer = state.transfers.get_mut(id)?;
    if transfer.tenant == tenant {
        return Some(transfer);
    }
    state
        .trespasses
        .push(format!("{tenant} called for transfer {id}"));
    None
}

/// What a call for a transfer that is over is answered with.
fn closed(tenant: &Tenant) -> CallError {
    if forge::is_installation(tenant.id.as_str()) {
        messages::SETTLED
    } else {
        refused(403, Refusal::Gone)
    }
}

/// What an operation of the other flavour is answered with.
fn foreign<T>(state: &mut State, operation: &str, tenant: &Tenant) -> Result<T, CallError> {
    state
        .wrongs
        .push(format!("{} was asked for {operation}", tenant.id.as_str()));
    Err(refused(404, Refusal::Gone))
}

const fn refused(status: u16, kind: Refusal) -> CallError {
    CallError::Refused {
        status,
        kind,
        says_settled: matches!(kind, Refusal::Expired),
    }
}

impl Api for PlatformModel {
    fn send_progress<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let id = transfer.as_str();
        let subject = format!("{id} {:?}", progress.status);
        async move {
            self.pass("progress", &subject, true, tenant, |state| {
                if forge::is_installation(tenant.id.as_str()) {
                    return foreign(state, "progress", tenant);
                }
                self.progress(state, tenant.id.as_str(), id, progress)
            })
            .await
        }
        .boxed()
    }

    fn recent<'call>(
        &'call self,
        tenant: &'call Tenant,
    ) -> BoxFuture<'call, Result<Recent, CallError>> {
        async move {
            let name = tenant.id.as_str();
            self.pass("recent", name, false, tenant, |state| {
                if forge::is_installation(name) {
                    return foreign(state, "its active transfers", tenant);
                }
                Ok(self.recent(state, name))
            })
            .await
        }
        .boxed()
    }

    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        async move {
            let id = transfer.as_str();
            self.pass("file_list", id, false, tenant, |state| {
                let found = owned(state, tenant.id.as_str(), id)
                    .filter(|transfer| transfer.ended.is_none())
                    .ok_or(closed(tenant))?;
                Ok(found
                    .files
                    .iter()
                    .map(|(key, label)| ListedFile {
                        s3_key: key.clone(),
                        label: Some(label.clone()),
                    })
                    .collect())
            })
            .await
        }
        .boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        async move {
            self.pass("signed_url", s3_key, false, tenant, |state| {
                let id = state
                    .contents
                    .get(s3_key)
                    .map(|file| file.transfer.clone())
                    .ok_or(refused(404, Refusal::Gone))?;
                owned(state, tenant.id.as_str(), &id)
                    .filter(|transfer| transfer.ended.is_none())
                    .ok_or(closed(tenant))?;
                let until = (self.clock.now() + URL_LIFE).as_millis();
                Ok(SignedUrl::new(&format!(
                    "https://objects/store/{s3_key}?until={until}"
                )))
            })
            .await
        }
        .boxed()
    }

    fn find_mappings<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        keys: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>> {
        async move {
            self.pass("mappings", namespace, false, tenant, |state| {
                owned(state, tenant.id.as_str(), transfer.as_str())
                    .filter(|transfer| transfer.ended.is_none())
                    .ok_or(closed(tenant))?;
                // A user whom the core migration left out has no mapping.
                let cloud_id = |key: &String| {
                    let user = key.strip_prefix("jira.userkey/")?;
                    let cloud_id =
                        (!user.starts_with("unmapped")).then(|| format!("cloud-{user}"))?;
                    Some((key.clone(), cloud_id))
                };
                Ok(keys.iter().filter_map(cloud_id).collect())
            })
            .await
        }
        .boxed()
    }

    fn mapping_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        _: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<(String, String)>, CallError>> {
        async move {
            // Its users are whoever is asked for, so there is no list of them.
            self.pass("mapping_page", namespace, false, tenant, |state| {
                owned(state, tenant.id.as_str(), transfer.as_str())
                    .filter(|transfer| transfer.ended.is_none())
                    .ok_or(closed(tenant))?;
                Err(refused(400, Refusal::BadRequest))
            })
            .await
        }
        .boxed()
    }

    fn container_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        container_type: &'call str,
        _: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<String>, CallError>> {
        async move {
            self.pass("container_page", container_type, false, tenant, |state| {
                owned(state, tenant.id.as_str(), transfer.as_str())
                    .filter(|transfer| transfer.ended.is_none())
                    .ok_or(closed(tenant))?;
                // Each migration is of the same two projects, and of no space.
                let projects = ["10000", "10001"].map(str::to_owned);
                Ok(Page {
                    items: match container_type {
                        "JiraProject" => projects.to_vec(),
                        _ => Vec::new(),
                    },
                    next: None,
                })
            })
            .await
        }
        .boxed()
    }

    fn answer_messages<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        outcome: MessageOutcome,
        messages: &'call [String],
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let subject = format!("{} {outcome:?}", transfer.as_str());
        async move {
            self.pass("answer", &subject, true, tenant, |state| {
                if !forge::is_installation(tenant.id.as_str()) {
                    return foreign(state, "messages", tenant);
                }
                self.answer(state, tenant, transfer, outcome, messages)
            })
            .await
        }
        .boxed()
    }

    fn add_log<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        line: &'call str,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let id = transfer.as_str();
        async move {
            self.pass("log", id, true, tenant, |state| {
                let found = owned(state, tenant.id.as_str(), id)
                    .filter(|transfer| transfer.ended.is_none())
                    .and_then(|transfer| transfer.messages.as_mut());
                let messages = found.ok_or(closed(tenant))?;
                messages.lines.push(line.to_owned());
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn server_error<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        async move {
            let id = transfer.as_str();
            self.pass("server_error", id, false, tenant, |state| {
                let found = owned(state, tenant.id.as_str(), id);
                Ok(found
                    .and_then(|transfer| transfer.exception.clone())
                    .map(|class| ServerError {
                        exception_type: Some(class),
                        stack_trace: None,
                    }))
            })
            .await
        }
        .boxed()
    }

    fn open<'call>(
        &'call self,
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        async move {
            let call = Call {
                operation: "open",
                subject: format!("from byte {from}"),
                writes: false,
                transaction: false,
            };
            let fate = self.weather.before(&call).await;
            let found = match fate {
                Fate::Works => self.download(url.expose(), from),
                _ => Err(DownloadError::Unavailable {
                    reason: "503".to_owned(),
                }),
            };
            self.weather.after(&call).await;
            let (content, starts_at) = found?;
            let size = content.len() as u64;
            let at = usize::try_from(starts_at).unwrap_or(usize::MAX);
            let weather = Arc::clone(&self.weather);
            Ok(Opened {
                starts_at,
                size: Some(size),
                content: chunks(content.slice(at.min(content.len())..), weather).boxed(),
            })
        }
        .boxed()
    }
}

/// The content in chunks, each of which the weather may cut off.
fn chunks(
    content: Bytes,
    weather: Arc<dyn Weather>,
) -> impl futures_util::Stream<Item = Result<Bytes, DownloadError>> + Send {
    stream::unfold(Some(content), move |content| {
        let weather = Arc::clone(&weather);
        async move {
            let mut content = content.filter(|content| !content.is_empty())?;
            let call = Call {
                operation: "chunk",
                subject: String::new(),
                writes: false,
                transaction: false,
            };
            let fate = weather.before(&call).await;
            weather.after(&call).await;
            if fate != Fate::Works {
                let cut = DownloadError::Cut {
                    offset: 0,
                    reason: "connection reset".to_owned(),
                };
                return Some((Err(cut), None));
            }
            let chunk = content.split_to(CHUNK.min(content.len()));
            Some((Ok(chunk), Some(content)))
        }
    })
}
