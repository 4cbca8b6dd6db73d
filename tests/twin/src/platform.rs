//! The platform's state and rules: sites, transfers, timers. Synchronous; what has to be sent goes to the outbox.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::content::{Content, Product};
use crate::faults::{Faults, Kind, Place};
use crate::forge;
use crate::forge::ledger::Ledger;
use crate::mappings::Mappings;
use crate::plan::{Flavour, Plan, Prepared};
use crate::quota::{Beyond, Quotas};
use crate::seed::{Generator, derive, hash, uuid};
use crate::switches::{
    FinalPercent, LowerPercentOnSettle, MessageIds, Permission, RecentScope, SecondSettlement,
    SettledEvent, SettledStatusField, Switches, TimeUnit,
};

/// PROTOCOL 2.6: longer messages are cut.
pub(crate) const MESSAGE_LIMIT: usize = 65_536;
const TRUNCATED: &str = "<truncated, message too large>";
/// PROTOCOL 5: the list of active transfers has up to 100.
const MOST_RECENT: usize = 100;
/// Downloads and progress calls kept per file or transfer; older ones are only counted.
const MOST_KEPT: usize = 10_000;

/// The app's installation in one product of one site.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) site: String,
    pub(crate) product: Product,
    pub(crate) app_key: String,
    pub(crate) client_key: String,
    pub(crate) secret: String,
    pub(crate) pending_secret: Option<String>,
    pub(crate) previous_secret: Option<String>,
    pub(crate) active: bool,
    pub(crate) app_base_url: String,
    pub(crate) installed_path: String,
    pub(crate) uninstalled_path: String,
    pub(crate) webhook_path: String,
    pub(crate) descriptor_webhook: bool,
    pub(crate) webhooks: Vec<String>,
}

impl Installation {
    /// Where events go: the descriptor's webhook, then the registered ones.
    fn endpoints(&self) -> Vec<String> {
        let mut endpoints = Vec::new();
        if self.descriptor_webhook {
            let base = self.app_base_url.trim_end_matches('/');
            endpoints.push(format!("{base}{}", self.webhook_path));
        }
        for webhook in &self.webhooks {
            if !endpoints.contains(webhook) {
                endpoints.push(webhook.clone());
            }
        }
        endpoints
    }
}

/// PROTOCOL 2.2. `SKIPPED` is never set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Ready,
    InProgress,
    CancellationRequested,
    Success,
    Incomplete,
    Failed,
    TimedOut,
    Cancelled,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::InProgress => "IN_PROGRESS",
            Self::CancellationRequested => "CANCELLATION_REQUESTED",
            Self::Success => "SUCCESS",
            Self::Incomplete => "INCOMPLETE",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub(crate) fn settled(self) -> bool {
        !matches!(
            self,
            Self::Ready | Self::InProgress | Self::CancellationRequested
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SettledBy {
    App,
    Platform,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Export {
    Waiting,
    Running,
    Complete,
    Died,
    Stopped,
}

impl Export {
    pub(crate) fn ended(self) -> bool {
        matches!(self, Self::Complete | Self::Died | Self::Stopped)
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProgressCall {
    at_ms: i64,
    status: Option<String>,
    percent: Option<i64>,
    message: Option<String>,
    outcome: &'static str,
    answered: u16,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fetch {
    pub(crate) at_ms: i64,
    pub(crate) status: u16,
    /// First and last byte asked for; absent for a whole file.
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) bytes_sent: u64,
    pub(crate) ended: &'static str,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct File {
    pub(crate) s3_key: String,
    pub(crate) label: Option<String>,
    pub(crate) content: Content,
    pub(crate) records: Option<u64>,
    pub(crate) gzip: bool,
    pub(crate) manifest: bool,
    pub(crate) preloaded: bool,
    pub(crate) uploaded_at_ms: Option<i64>,
    pub(crate) listed: bool,
    pub(crate) urls_issued: u64,
    pub(crate) bytes_served: u64,
    pub(crate) fetches: Vec<Fetch>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Attempt {
    pub(crate) at_ms: i64,
    pub(crate) elapsed_ms: u64,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) duplicate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Delivered {
    Waiting,
    Acknowledged,
    /// A fault lost it for good.
    Dropped,
    /// The transfer was settled, the tenant uninstalled, or the attempts used up.
    Stopped,
    /// Forge: five attempts failed, and nobody sends it again.
    Lost,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Delivery {
    pub(crate) url: String,
    pub(crate) message_id: Option<String>,
    pub(crate) state: Delivered,
    pub(crate) attempts: Vec<Attempt>,
}

#[derive(Debug, Clone)]
#[expect(
    clippy::struct_field_names,
    reason = "`eventType` is the platform's word"
)]
pub(crate) struct Event {
    pub(crate) event_type: String,
    pub(crate) body: Map<String, Value>,
    pub(crate) s3_key: Option<String>,
    pub(crate) at_ms: i64,
    pub(crate) delay_ms: u64,
    pub(crate) copies: u32,
    pub(crate) deliveries: Vec<Delivery>,
}

impl Event {
    pub(crate) fn ended(&self) -> bool {
        self.deliveries
            .iter()
            .all(|delivery| delivery.state != Delivered::Waiting)
    }
}

#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) id: String,
    pub(crate) original_id: Option<String>,
    pub(crate) attempt: usize,
    pub(crate) first_started_ms: i64,
    pub(crate) site: String,
    pub(crate) product: Product,
    pub(crate) app_key: String,
    pub(crate) client_key: String,
    pub(crate) migration_id: String,
    pub(crate) scope_id: String,
    pub(crate) created_ms: i64,
    pub(crate) state: State,
    pub(crate) state_before_settlement: State,
    pub(crate) percent: Option<i64>,
    pub(crate) message: Option<String>,
    pub(crate) progress: Vec<ProgressCall>,
    pub(crate) progress_calls: u64,
    pub(crate) last_progress_ms: Option<i64>,
    pub(crate) accepted_settlements: u32,
    pub(crate) settled_ms: Option<i64>,
    pub(crate) settled_by: Option<SettledBy>,
    pub(crate) cancel_requested_ms: Option<i64>,
    pub(crate) error: Option<(String, String)>,
    pub(crate) feedback: Option<Value>,
    pub(crate) files: Vec<File>,
    pub(crate) events: Vec<Event>,
    pub(crate) export: Export,
    pub(crate) not_found: BTreeMap<String, u64>,
    pub(crate) mapping_calls: u64,
    pub(crate) plan: Plan,
    /// The messages, if this is a Forge transfer.
    pub(crate) forge: Option<Ledger>,
}

/// What the faults make of an event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Struck {
    pub(crate) dropped: bool,
    pub(crate) copies: u32,
    pub(crate) delay_ms: u64,
    pub(crate) anonymous: bool,
}

/// An event to one endpoint, to be sent by the deliverer.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) epoch: u64,
    pub(crate) transfer: String,
    pub(crate) event: usize,
    pub(crate) delivery: usize,
    pub(crate) extra_copies: Option<u32>,
}

/// What the background does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Deliver(Outgoing),
    Export {
        epoch: u64,
        transfer: String,
    },
    /// The scheduled trigger of a Forge installation.
    Refresh {
        epoch: u64,
        installation: String,
    },
}

/// A refusal of a REST call: what the app reads, and the true reason for whoever debugs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) reason: String,
    pub(crate) retry_after_s: Option<u64>,
}

impl Refused {
    pub(crate) fn new(status: u16, message: &str, reason: &str) -> Self {
        Self {
            status,
            message: message.into(),
            reason: reason.into(),
            retry_after_s: None,
        }
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(400, message, message)
    }
}

/// Who calls: found by the URL's site and product and the token's issuer.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) flavour: Flavour,
    pub(crate) site: String,
    pub(crate) product: Product,
    pub(crate) app_key: String,
    pub(crate) client_key: String,
}

/// The app's progress request, checked.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) status: State,
    pub(crate) percent: Option<i64>,
    pub(crate) message: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) epoch: u64,
    pub(crate) seed: u64,
    serial: u64,
    site_root: String,
    pub(crate) clock: Clock,
    pub(crate) switches: Switches,
    pub(crate) faults: Faults,
    pub(crate) quotas: Quotas,
    pub(crate) mappings: Mappings,
    pub(crate) installations: Vec<Installation>,
    pub(crate) forge_installations: Vec<forge::Installation>,
    pub(crate) transfers: Vec<Transfer>,
    by_id: HashMap<String, usize>,
    by_key: HashMap<String, (usize, usize)>,
    pub(crate) stats: BTreeMap<String, u64>,
    outbox: UnboundedSender<Work>,
}

impl Platform {
    pub(crate) fn new(seed: u64, site_root: String, outbox: UnboundedSender<Work>) -> Self {
        Self {
            epoch: 0,
            seed,
            serial: 0,
            site_root,
            clock: Clock::new(),
            switches: Switches::default(),
            faults: Faults::new(seed),
            quotas: Quotas::default(),
            mappings: Mappings::new(seed),
            installations: Vec::new(),
            forge_installations: Vec::new(),
            transfers: Vec::new(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            stats: BTreeMap::new(),
            outbox,
        }
    }

    /// Everything back to the start. Ids go on, so that an app that was not reset meets no id twice.
    pub(crate) fn reset(&mut self) {
        let fresh = Self::new(self.seed, self.site_root.clone(), self.outbox.clone());
        *self = Self {
            epoch: self.epoch + 1,
            serial: self.serial,
            ..fresh
        };
    }

    pub(crate) fn count(&mut self, name: impl Into<String>) {
        *self.stats.entry(name.into()).or_default() += 1;
    }

    /// A call of the REST API arrives: within the site's quota, or not.
    pub(crate) fn call(&mut self, site: &str, operation: &'static str) -> Result<(), Beyond> {
        let taken = self.quotas.take(site, operation, self.clock.now_ms());
        if taken.is_err() {
            self.count(format!("{operation}.429"));
        }
        taken
    }

    pub(crate) fn new_id(&mut self, kind: &str) -> String {
        self.serial += 1;
        uuid(self.seed, &[kind, &self.serial.to_string()])
    }

    pub(crate) fn new_secret(&mut self) -> String {
        self.serial += 1;
        hex::encode(hash(self.seed, &["secret", &self.serial.to_string()]))
    }

    pub(crate) fn base_url(&self, site: &str, product: Product) -> String {
        let root = format!("{}/sites/{site}", self.site_root);
        match product {
            Product::Jira => root,
            Product::Confluence => format!("{root}/wiki"),
        }
    }

    pub(crate) fn installation(
        &self,
        site: &str,
        product: Product,
        app_key: &str,
    ) -> Option<&Installation> {
        self.installations.iter().find(|found| {
            found.site == site && found.product == product && found.app_key == app_key
        })
    }

    pub(crate) fn installation_mut(
        &mut self,
        site: &str,
        product: Product,
        app_key: &str,
    ) -> Option<&mut Installation> {
        self.installations.iter_mut().find(|found| {
            found.site == site && found.product == product && found.app_key == app_key
        })
    }

    /// Whether the tenant that a transfer began with is still there.
    pub(crate) fn has_tenant(&self, transfer: &Transfer) -> bool {
        if transfer.forge.is_some() {
            return self.forge_tenant(&transfer.client_key).is_some();
        }
        self.installation(&transfer.site, transfer.product, &transfer.app_key)
            .is_some_and(|found| found.active && found.client_key == transfer.client_key)
    }

    pub(crate) fn transfer(&self, id: &str) -> Option<&Transfer> {
        self.by_id.get(id).map(|index| &self.transfers[*index])
    }

    pub(crate) fn transfer_mut(&mut self, id: &str) -> Option<&mut Transfer> {
        let index = *self.by_id.get(id)?;
        Some(&mut self.transfers[index])
    }

    pub(crate) fn file(&self, s3_key: &str) -> Option<(&Transfer, &File)> {
        let (transfer, file) = *self.by_key.get(s3_key)?;
        let transfer = &self.transfers[transfer];
        Some((transfer, &transfer.files[file]))
    }

    pub(crate) fn file_mut(&mut self, s3_key: &str) -> Option<&mut File> {
        let (transfer, file) = *self.by_key.get(s3_key)?;
        Some(&mut self.transfers[transfer].files[file])
    }

    // --- the transfer's life ---

    /// A plan is run: a new transfer, READY.
    pub(crate) fn create(
        &mut self,
        plan: Plan,
        app_key: &str,
        files: Vec<Prepared>,
        after: Option<&str>,
    ) -> Result<String, String> {
        let tenant = if plan.flavour == Some(Flavour::Forge) {
            self.forge_installation(&plan.site, plan.product, app_key)
                .map(|tenant| (tenant.active, &tenant.id))
        } else {
            self.installation(&plan.site, plan.product, app_key)
                .map(|tenant| (tenant.active, &tenant.client_key))
        };
        let Some((active, client_key)) = tenant else {
            return Err(format!(
                "the app {app_key:?} is not installed in {} of site {:?}",
                plan.product.name(),
                plan.site
            ));
        };
        if !active {
            return Err(format!("the app was uninstalled from site {:?}", plan.site));
        }
        let preloads = files.iter().any(|file| file.preloaded);
        if preloads && plan.flavour != Some(Flavour::Forge) {
            return Err("preloaded files need the Forge app".into());
        }
        let client_key = client_key.clone();
        let now = self.clock.now_ms();
        let chain = after.and_then(|id| self.transfer(id)).map(|previous| {
            let original = previous
                .original_id
                .clone()
                .unwrap_or_else(|| previous.id.clone());
            (
                original,
                previous.attempt + 1,
                previous.first_started_ms,
                previous.migration_id.clone(),
            )
        });
        let (original_id, attempt, first_started_ms, migration_id) = match chain {
            Some((original, attempt, started, migration)) => {
                (Some(original), attempt, started, migration)
            }
            None => (None, 1, now, self.new_id("migration")),
        };
        let id = self.new_id("transfer");
        let scope_id = uuid(self.seed, &["scope", &plan.site, &client_key]);
        let index = self.transfers.len();
        let mut kept = Vec::new();
        for prepared in files {
            kept.push(self.new_file(index, kept.len(), prepared));
        }
        self.by_id.insert(id.clone(), index);
        self.transfers.push(Transfer {
            id: id.clone(),
            original_id,
            attempt,
            first_started_ms,
            site: plan.site.clone(),
            product: plan.product,
            app_key: app_key.to_owned(),
            client_key,
            migration_id,
            scope_id,
            created_ms: now,
            state: State::Ready,
            state_before_settlement: State::Ready,
            percent: None,
            message: None,
            progress: Vec::new(),
            progress_calls: 0,
            last_progress_ms: None,
            accepted_settlements: 0,
            settled_ms: None,
            settled_by: None,
            cancel_requested_ms: None,
            error: None,
            feedback: None,
            files: kept,
            events: Vec::new(),
            export: Export::Waiting,
            not_found: BTreeMap::new(),
            mapping_calls: 0,
            forge: (plan.flavour == Some(Flavour::Forge)).then(Ledger::default),
            plan,
        });
        self.count("transfers.created");
        Ok(id)
    }

    fn new_file(&mut self, transfer: usize, position: usize, prepared: Prepared) -> File {
        let s3_key = self.new_id("file");
        self.by_key.insert(s3_key.clone(), (transfer, position));
        File {
            s3_key,
            label: prepared.label,
            content: prepared.content,
            records: prepared.records,
            gzip: prepared.gzip,
            manifest: prepared.manifest,
            preloaded: prepared.preloaded,
            uploaded_at_ms: None,
            listed: false,
            urls_issued: 0,
            bytes_served: 0,
            fetches: Vec::new(),
        }
    }

    /// One more file for a running transfer.
    pub(crate) fn add_file(&mut self, id: &str, prepared: Prepared) -> Option<usize> {
        let index = *self.by_id.get(id)?;
        let position = self.transfers[index].files.len();
        let file = self.new_file(index, position, prepared);
        self.transfers[index].files.push(file);
        Some(position)
    }

    /// The platform calls the listener.
    pub(crate) fn start(&mut self, id: &str) {
        if let Some(transfer) = self.transfer_mut(id)
            && transfer.state == State::Ready
        {
            transfer.state = State::InProgress;
        }
    }

    /// The object is complete in the store. Whether it is listed already is a switch.
    pub(crate) fn upload(&mut self, id: &str, file: usize) {
        let now = self.clock.now_ms();
        let listed = self.switches.data_listed == crate::switches::DataListed::BeforeEvent;
        if let Some(transfer) = self.transfer_mut(id)
            && let Some(file) = transfer.files.get_mut(file)
        {
            file.uploaded_at_ms = Some(now);
            file.listed = listed;
        }
    }

    /// Makes an event and queues it for every endpoint.
    pub(crate) fn emit(&mut self, id: &str, event_type: &str, extra: Map<String, Value>) {
        let Some(index) = self.by_id.get(id).copied() else {
            return;
        };
        if self.transfers[index].forge.is_some() {
            self.emit_forge(id, forge::events::name(event_type), None, extra);
            return;
        }
        let message_id = self.new_id("message");
        let transfer = &self.transfers[index];
        let Some(installation) =
            self.installation(&transfer.site, transfer.product, &transfer.app_key)
        else {
            return;
        };
        let endpoints = installation.endpoints();
        let (client_key, site) = (transfer.client_key.clone(), transfer.site.clone());
        if installation.client_key != client_key || !installation.active {
            self.count("events.without_tenant");
            return;
        }
        let Struck {
            dropped,
            copies,
            delay_ms,
            anonymous,
        } = self.strike_event(id, event_type, &site);
        let transfer = &self.transfers[index];
        let message_id =
            (!anonymous && self.has_message_id(transfer, &message_id)).then_some(message_id);
        let body = self.envelope(transfer, event_type, message_id.as_deref(), extra);
        let different =
            self.switches.endpoint_message_ids == crate::switches::EndpointMessageIds::Different;
        let deliveries: Vec<Delivery> = endpoints
            .into_iter()
            .enumerate()
            .map(|(nth, url)| Delivery {
                message_id: match &message_id {
                    Some(first) if different && nth > 0 => {
                        Some(uuid(self.seed, &[first, &nth.to_string()]))
                    }
                    other => other.clone(),
                },
                url,
                state: if dropped {
                    Delivered::Dropped
                } else {
                    Delivered::Waiting
                },
                attempts: Vec::new(),
            })
            .collect();
        let event = Event {
            event_type: event_type.to_owned(),
            s3_key: body.get("s3Key").and_then(Value::as_str).map(str::to_owned),
            body,
            at_ms: self.clock.now_ms(),
            delay_ms,
            copies,
            deliveries,
        };
        self.post(id, event, dropped);
    }

    /// Draws what the faults make of an event.
    pub(crate) fn strike_event(&mut self, id: &str, event_type: &str, site: &str) -> Struck {
        let place = Place {
            target: "events",
            event_type: Some(event_type),
            transfer_id: Some(id),
            site: Some(site),
        };
        let kinds = [
            Kind::Drop,
            Kind::Duplicate,
            Kind::Reorder,
            Kind::Delay,
            Kind::NoMessageId,
        ];
        let mut struck = Struck::default();
        for rule in self.faults.strike(&place, &kinds) {
            match rule.kind {
                Kind::Drop => struck.dropped = true,
                Kind::Duplicate => struck.copies += rule.copies.unwrap_or(1),
                Kind::Delay => struck.delay_ms += rule.delay_ms.unwrap_or(1_000),
                Kind::Reorder => {
                    struck.delay_ms += self.faults.number(&rule, rule.delay_ms.unwrap_or(500) + 1);
                }
                _ => struck.anonymous = true,
            }
        }
        struck
    }

    /// Keeps an event, and sends it to every endpoint unless it is lost.
    pub(crate) fn post(&mut self, id: &str, event: Event, dropped: bool) {
        let Some(index) = self.by_id.get(id).copied() else {
            return;
        };
        self.count(format!("events.emitted.{}", event.event_type));
        let count = event.deliveries.len();
        let s3_key = event.s3_key.clone();
        let position = self.transfers[index].events.len();
        self.transfers[index].events.push(event);
        if dropped {
            self.count("events.dropped");
            self.list_file(s3_key.as_deref());
            return;
        }
        for delivery in 0..count {
            self.send(id, position, delivery, None);
        }
    }

    pub(crate) fn send(&self, id: &str, event: usize, delivery: usize, extra_copies: Option<u32>) {
        self.queue(Work::Deliver(Outgoing {
            epoch: self.epoch,
            transfer: id.to_owned(),
            event,
            delivery,
            extra_copies,
        }));
    }

    pub(crate) fn queue(&self, work: Work) {
        // A closed outbox means that the twin shuts down.
        let _ = self.outbox.send(work);
    }

    /// Lets the server app begin its export.
    pub(crate) fn begin_export(&self, id: &str) {
        self.queue(Work::Export {
            epoch: self.epoch,
            transfer: id.to_owned(),
        });
    }

    /// The data list shows a file at the latest when nothing more is done for its event.
    pub(crate) fn list_file(&mut self, s3_key: Option<&str>) {
        if let Some(file) = s3_key.and_then(|s3_key| self.file_mut(s3_key)) {
            file.listed = true;
        }
    }

    fn has_message_id(&self, transfer: &Transfer, message_id: &str) -> bool {
        match self.switches.message_id {
            MessageIds::Always => true,
            MessageIds::Never => false,
            MessageIds::Sometimes => derive(self.seed, &["present", message_id]).is_multiple_of(2),
            MessageIds::AbsentInReruns => transfer.original_id.is_none(),
        }
    }

    fn envelope(
        &self,
        transfer: &Transfer,
        event_type: &str,
        message_id: Option<&str>,
        extra: Map<String, Value>,
    ) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("eventType".into(), event_type.into());
        body.insert("cloudAppKey".into(), transfer.app_key.clone().into());
        body.insert("transferId".into(), transfer.id.clone().into());
        if let Some(original) = &transfer.original_id {
            body.insert("originalTransferId".into(), original.clone().into());
        }
        if let Some(message_id) = message_id {
            body.insert("messageId".into(), message_id.into());
        }
        body.extend(extra);
        body.insert("migrationDetails".into(), self.details(transfer));
        if self.switches.extra_fields {
            body.insert("schemaRevision".into(), json!(7));
            body.insert(
                "traceContext".into(),
                json!({ "spans": [1, 2], "sampled": null }),
            );
        }
        body
    }

    /// `migrationDetails`, in events and in `transfer/recent`.
    pub(crate) fn details(&self, transfer: &Transfer) -> Value {
        let created = match self.switches.created_at_unit {
            TimeUnit::Milliseconds => transfer.created_ms,
            TimeUnit::Seconds => transfer.created_ms / 1000,
        };
        let key_of = |product| {
            if transfer.product == product {
                transfer.client_key.as_str()
            } else {
                "unknown"
            }
        };
        let mut details = json!({
            "migrationId": transfer.migration_id,
            "migrationScopeId": transfer.scope_id,
            "name": transfer.plan.name,
            "createdAt": created,
            "jiraClientKey": key_of(Product::Jira),
            "confluenceClientKey": key_of(Product::Confluence),
            "cloudUrl": format!("{}/sites/{}", self.site_root, transfer.site),
        });
        if self.switches.extra_fields {
            details["enabledFeatures"] = json!(["app-data-preload"]);
            details["product"] = match transfer.product {
                Product::Jira => "JIRA".into(),
                Product::Confluence => "CONFLUENCE".into(),
            };
        }
        details
    }

    /// The listener ended with an exception: stored for `GET /error`, announced by an event.
    pub(crate) fn listener_failed(&mut self, id: &str, exception: &str, trace: Option<&str>) {
        let trace = trace.map_or_else(
            || format!("{exception}\n\tat com.example.vault.Listener.onStartAppMigration(Unknown Source)"),
            str::to_owned,
        );
        let Some(transfer) = self.transfer_mut(id) else {
            return;
        };
        transfer.error = Some((exception.to_owned(), trace.clone()));
        let forge = transfer.forge.is_some();
        let mut extra = Map::new();
        if forge {
            // PROTOCOL 7.2: there is no operation to fetch them by.
            let error = json!({ "exceptionType": exception, "safeStackTrace": trace });
            extra.insert("transferError".into(), error);
        } else if self.switches.listener_errored_details {
            extra.insert("exceptionType".into(), exception.into());
            extra.insert("safeStackTrace".into(), trace.into());
        }
        self.emit(id, "listener-errored", extra);
    }

    /// Lets every timer go off that is due. Called before anything looks at a transfer.
    pub(crate) fn tick(&mut self) {
        self.tick_refreshes();
        let now = self.clock.now_ms();
        let mut due = Vec::new();
        for transfer in &mut self.transfers {
            if transfer.state.settled() {
                continue;
            }
            if transfer.forge.is_some() {
                if let Some(settled) = forge::rules::due(transfer, &self.switches, now) {
                    due.push((transfer.id.clone(), settled));
                }
                continue;
            }
            let cancel_at = transfer
                .cancel_requested_ms
                .map(|requested| requested + self.switches.cancel_grace_ms);
            let expires_at = transfer.created_ms + self.switches.transfer_life_ms;
            // Whichever came first: a clock that jumps must not change the order.
            let settled = match cancel_at {
                Some(cancel_at) if cancel_at <= expires_at => (cancel_at, State::Cancelled),
                _ => (expires_at, State::TimedOut),
            };
            if settled.0 <= now {
                due.push((transfer.id.clone(), settled));
            }
        }
        for (id, (at_ms, state)) in due {
            self.settle(&id, state, SettledBy::Platform, at_ms);
        }
    }

    pub(crate) fn settle(&mut self, id: &str, state: State, by: SettledBy, at_ms: i64) {
        let Some(transfer) = self.transfer_mut(id) else {
            return;
        };
        transfer.state_before_settlement = transfer.state;
        transfer.state = state;
        transfer.settled_ms = Some(at_ms);
        transfer.settled_by = Some(by);
        if by == SettledBy::App {
            transfer.accepted_settlements += 1;
        }
        if let Some(ledger) = &mut transfer.forge {
            ledger.end_silence(at_ms);
            if state == State::Success {
                transfer.percent = Some(100);
            }
        }
        self.count(format!("transfers.settled.{}", state.name()));
        let announced = match self.switches.settled_event {
            SettledEvent::Always => true,
            SettledEvent::PlatformOnly => by == SettledBy::Platform,
            SettledEvent::Never => false,
        };
        if announced {
            let mut extra = Map::new();
            match self.switches.settled_status_field {
                SettledStatusField::TransferStatus => {
                    extra.insert("transferStatus".into(), state.name().into());
                }
                SettledStatusField::Status => {
                    extra.insert("status".into(), state.name().into());
                }
                SettledStatusField::None => {}
            }
            self.emit(id, "transfer-settled", extra);
        }
    }

    /// The admin, or Support, cancels. The error is what the assistant would say.
    pub(crate) fn cancel(&mut self, id: &str, force: bool) -> Result<State, String> {
        let now = self.clock.now_ms();
        let allowed_after = self.switches.cancel_allowed_after_ms;
        let transfer = self.transfer_mut(id).ok_or("there is no such transfer")?;
        if transfer.state.settled() {
            return Err(format!("the transfer is already {}", transfer.state.name()));
        }
        if transfer.state == State::CancellationRequested {
            return Err("the cancellation was requested before".into());
        }
        let age = now - transfer.created_ms;
        if age < allowed_after && !force {
            return Err(format!(
                "an admin can cancel {} minutes after the start at the earliest; use force to act as Support",
                allowed_after / 60_000
            ));
        }
        transfer.state = State::CancellationRequested;
        transfer.cancel_requested_ms = Some(now);
        self.emit(id, "transfer-cancellation-requested", Map::new());
        Ok(State::CancellationRequested)
    }

    /// Whether the admin may re-run: `Err` is the reason why the option is disabled.
    pub(crate) fn may_rerun(&self, id: &str) -> Result<(), String> {
        let transfer = self.transfer(id).ok_or("there is no such transfer")?;
        let original = transfer.original_id.as_deref().unwrap_or(&transfer.id);
        let later = self.transfers.iter().find(|other| {
            other.original_id.as_deref() == Some(original) && other.attempt > transfer.attempt
        });
        if let Some(later) = later {
            return Err(format!(
                "a later attempt exists: {} is {}",
                later.id,
                later.state.name()
            ));
        }
        if !matches!(transfer.state, State::Failed | State::Incomplete) {
            return Err(format!(
                "only a FAILED or INCOMPLETE transfer can be re-run, this one is {}",
                transfer.state.name()
            ));
        }
        let age = self.clock.now_ms() - transfer.first_started_ms;
        if age >= self.switches.rerun_window_ms {
            return Err(format!(
                "the re-run window of {} days since the original attempt is over",
                self.switches.rerun_window_ms / 86_400_000
            ));
        }
        Ok(())
    }

    // --- what the app may do with a transfer ---

    /// Finds a transfer for a call of the app; settled, expired, foreign and unknown ones are refused.
    pub(crate) fn open(&self, id: &str, caller: &Caller) -> Result<&Transfer, Refused> {
        const FORBIDDEN: &str =
            "The transfer does not exist, is settled, or its time limit has expired.";
        if caller.flavour == Flavour::Forge {
            return self.open_forge(id, caller);
        }
        let unknown = |reason: &str| {
            let status = self.switches.unknown_transfer_answer;
            let message = if status == 404 {
                "Not found."
            } else {
                FORBIDDEN
            };
            Refused::new(status, message, reason)
        };
        let Some(transfer) = self.transfer(id) else {
            return Err(unknown("no transfer has this id"));
        };
        if transfer.client_key != caller.client_key || transfer.app_key != caller.app_key {
            return Err(unknown("the transfer belongs to another tenant"));
        }
        if transfer.state == State::TimedOut {
            let status = self.switches.expired_answer;
            let message = if status == 400 {
                "The time limit for this transfer has expired."
            } else {
                FORBIDDEN
            };
            return Err(Refused::new(status, message, "the transfer is TIMED_OUT"));
        }
        if transfer.state.settled() {
            let status = self.switches.settled_answer;
            let message = if status == 403 {
                FORBIDDEN
            } else {
                "The transfer is already in a settled state, no further actions are allowed."
            };
            let reason = format!("the transfer is settled as {}", transfer.state.name());
            return Err(Refused::new(status, message, &reason));
        }
        Ok(transfer)
    }

    /// PROTOCOL 2.6: a progress or settling call. The answer echoes the request.
    pub(crate) fn report(
        &mut self,
        id: &str,
        caller: &Caller,
        request: &Value,
    ) -> Result<Value, Refused> {
        let checked = self.checked_report(id, caller, request);
        let outcome = checked.and_then(|report| self.apply_report(id, &report));
        let call = ProgressCall {
            at_ms: self.clock.now_ms(),
            status: request
                .get("status")
                .and_then(Value::as_str)
                .map(str::to_owned),
            percent: request.get("percent").and_then(Value::as_i64),
            message: request
                .get("message")
                .and_then(Value::as_str)
                .map(|message| message.chars().take(1_000).collect()),
            outcome: match &outcome {
                Ok(outcome) => outcome,
                Err(_) => "refused",
            },
            answered: outcome
                .as_ref()
                .map_or_else(|refused| refused.status, |_| 200),
        };
        self.count(format!("progress.{}", call.outcome));
        let own = self
            .transfer_mut(id)
            .filter(|transfer| transfer.client_key == caller.client_key);
        if let Some(transfer) = own {
            transfer.progress_calls += 1;
            if transfer.progress.len() < MOST_KEPT {
                transfer.progress.push(call);
            }
        }
        outcome.map(|_| echo(request))
    }

    fn checked_report(
        &self,
        id: &str,
        caller: &Caller,
        request: &Value,
    ) -> Result<Report, Refused> {
        let report = parse_report(request);
        if let Err(refused) = self.open(id, caller) {
            let same = matches!((&report, self.transfer(id)), (Ok(report), Some(transfer))
                if transfer.state == report.status && transfer.client_key == caller.client_key);
            let again = self.switches.second_identical_settlement == SecondSettlement::Ok;
            if !(same && again) {
                return Err(refused);
            }
        }
        report
    }

    fn apply_report(&mut self, id: &str, report: &Report) -> Result<&'static str, Refused> {
        let now = self.clock.now_ms();
        let switches = self.switches.clone();
        let Some(transfer) = self.transfer_mut(id) else {
            return Err(Refused::new(404, "Not found.", "the transfer is gone"));
        };
        if transfer.state.settled() {
            return Ok("repeated");
        }
        let settling = report.status.settled();
        let minimum = i64::try_from(switches.progress_min_interval_ms).unwrap_or(i64::MAX);
        let too_early = transfer
            .last_progress_ms
            .is_some_and(|last| now - last < minimum);
        if too_early {
            return Err(Refused {
                retry_after_s: switches.progress_retry_after_s,
                ..Refused::new(
                    429,
                    "Too many requests.",
                    "progress_min_interval_ms has not passed since the last progress call",
                )
            });
        }
        if transfer.cancel_requested_ms.is_some() {
            let permission = match report.status {
                State::InProgress => switches.in_progress_while_cancelling,
                State::Success => switches.success_while_cancelling,
                _ => Permission::Accept,
            };
            if permission == Permission::Refuse {
                return Err(Refused::bad_request(
                    "This status is not allowed while a cancellation is requested.",
                ));
            }
        }
        let partial = matches!(report.status, State::Failed | State::Incomplete);
        if partial
            && report.percent == Some(100)
            && switches.final_percent == FinalPercent::Refuse100
        {
            return Err(Refused::bad_request(
                "The percent of an unsuccessful transfer must be between 1 and 99.",
            ));
        }
        transfer.last_progress_ms = Some(now);
        // PROTOCOL 2.6: missing or 0 keeps the previous value.
        let given = report.percent.filter(|percent| *percent != 0);
        let lower = matches!((given, transfer.percent), (Some(given), Some(last)) if given < last);
        let accepted_anyway =
            settling && switches.lower_percent_on_settle == LowerPercentOnSettle::Accepted;
        if lower && !accepted_anyway {
            return Ok("ignored");
        }
        let counts = match switches.final_percent {
            _ if !settling => true,
            FinalPercent::Any | FinalPercent::Refuse100 => true,
            FinalPercent::Only100 => given == Some(100),
            FinalPercent::OnlyOmitted => !partial || given.is_none(),
            FinalPercent::Only1To99 => {
                !partial || given.is_some_and(|given| (1..=99).contains(&given))
            }
        };
        if !counts && switches.uncounted_final_keeps_percent {
            return Ok("uncounted");
        }
        if !lower && given.is_some() {
            transfer.percent = given;
        }
        if report.message.is_some() {
            transfer.message.clone_from(&report.message);
        }
        if !counts {
            return Ok("uncounted");
        }
        if settling {
            self.settle(id, report.status, SettledBy::App, now);
            return Ok("settled");
        }
        if transfer.state == State::Ready {
            transfer.state = State::InProgress;
        }
        Ok("accepted")
    }

    /// PROTOCOL 5, operation 8: the newest active transfers of the app on the site.
    pub(crate) fn recent(&self, caller: &Caller) -> Value {
        let now = self.clock.now_ms();
        let mut active: Vec<(&Transfer, State)> = self
            .transfers
            .iter()
            .filter(|transfer| transfer.app_key == caller.app_key)
            .filter(|transfer| match self.switches.recent_scope {
                RecentScope::Installation => transfer.client_key == caller.client_key,
                RecentScope::Site => transfer.site == caller.site,
            })
            .filter_map(|transfer| {
                let lingering = transfer
                    .settled_ms
                    .is_some_and(|settled| now < settled + self.switches.recent_delay_ms);
                let state = if transfer.state.settled() && lingering {
                    transfer.state_before_settlement
                } else {
                    transfer.state
                };
                let active = matches!(state, State::InProgress | State::CancellationRequested);
                active.then_some((transfer, state))
            })
            .collect();
        active.reverse();
        active.sort_by_key(|(transfer, _)| std::cmp::Reverse(transfer.created_ms));
        active
            .iter()
            .take(MOST_RECENT)
            .map(|(transfer, state)| {
                json!({
                    "transferId": transfer.id,
                    "status": state.name(),
                    "migrationDetails": self.details(transfer),
                })
            })
            .collect()
    }

    pub(crate) fn record_fetch(&mut self, s3_key: &str, fetch: Fetch) {
        self.count(format!("store.{}", fetch.status));
        *self.stats.entry("store.bytes_sent".into()).or_default() += fetch.bytes_sent;
        if let Some(file) = self.file_mut(s3_key) {
            file.bytes_served += fetch.bytes_sent;
            if file.fetches.len() < MOST_KEPT {
                file.fetches.push(fetch);
            }
        }
    }

    /// A generator whose draws belong to one transfer.
    pub(crate) fn generator(&self, words: &[&str]) -> Generator {
        Generator::new(derive(self.seed, words))
    }
}

fn parse_report(request: &Value) -> Result<Report, Refused> {
    let status = match request.get("status") {
        None | Some(Value::Null) => {
            return Err(Refused::bad_request("The status must not be null."));
        }
        Some(status) => match status.as_str() {
            Some("IN_PROGRESS") => State::InProgress,
            Some("SUCCESS") => State::Success,
            Some("INCOMPLETE") => State::Incomplete,
            Some("FAILED") => State::Failed,
            _ => {
                return Err(Refused::bad_request(
                    "The status must be IN_PROGRESS, SUCCESS, INCOMPLETE or FAILED.",
                ));
            }
        },
    };
    let percent = match request.get("percent") {
        None | Some(Value::Null) => None,
        Some(percent) => match percent.as_i64() {
            Some(percent) if (0..=100).contains(&percent) => Some(percent),
            _ => {
                return Err(Refused::bad_request(
                    "The percent must be an integer between 0 and 100.",
                ));
            }
        },
    };
    let message = match request.get("message") {
        None | Some(Value::Null) => None,
        Some(Value::String(message)) => Some(truncated(message)),
        Some(_) => return Err(Refused::bad_request("The message must be a string.")),
    };
    Ok(Report {
        status,
        percent,
        message,
    })
}

/// The request as it was understood, known fields only.
fn echo(request: &Value) -> Value {
    let mut answer = Map::new();
    for field in ["status", "percent", "message"] {
        match request.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                answer.insert(field.into(), truncated(text).into());
            }
            Some(value) => {
                answer.insert(field.into(), value.clone());
            }
        }
    }
    Value::Object(answer)
}

fn truncated(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_LIMIT) {
        None => message.to_owned(),
        Some((end, _)) => format!("{}{TRUNCATED}", &message[..end]),
    }
}
