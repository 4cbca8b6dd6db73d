//! Takes in events and imports files, message by message.
//!
//! A ladder of functions, one level each: [`Processor::handle`] (a batch) → a message → an event or a file → a slice. A
//! message fails only when trying it again can help; then SQS delivers it again, and after its last delivery the sweeper
//! finds it among the dead letters.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod batch;
mod earlier;
mod file;
mod ports;
mod run;
mod sink;

use std::sync::{Arc, Mutex};

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use landfall_aws::S3;
use landfall_import::ports::Sink;
use landfall_import::sink::s3::S3Sink;
use landfall_import::{Imports, MappingCache};
use landfall_lifecycle::{Error, Lifecycle, Taken};
use landfall_tracking::{Message, Queue, Task};
use landfall_transfer::{TenantId, Timestamp, Transfer, TransferId};

use earlier::EarlierMappings;
pub use run::run;
use sink::Outside;
pub use sink::{NoSink, StageBucket};

/// Imports files and takes in events. `K` is the sink that is compiled in, `B` the bucket.
#[derive(Debug)]
pub struct Processor<K = NoSink, B = S3> {
    lifecycle: Lifecycle,
    events: Queue,
    imports: Imports,
    /// The same, of files that were staged.
    staged_imports: Imports,
    /// Where records go; none for the records table.
    sink: Option<Outside<K, B>>,
    /// Where the records of staged transfers go first, and come from then.
    stage: Option<S3Sink<B>>,
    /// The mappings and containers of the transfer that was worked on last, so that its next file need not ask again.
    mappings: Mutex<Option<KnownMappings>>,
}

#[derive(Debug)]
struct KnownMappings {
    tenant: TenantId,
    transfer: TransferId,
    cache: Arc<MappingCache>,
    earlier: Arc<EarlierMappings>,
}

/// What the names of staged objects begin with.
const STAGE: &str = "landfall-staged/";

/// Why the processor can't work with its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A label's pattern.
    #[error("understand imports[].label: {0}")]
    Label(String),
    /// The partner's service.
    #[error("set up the sink: {0}")]
    Sink(#[from] landfall_import::sink::http::HttpSinkError),
    /// The configuration is checked for it, too.
    #[error("sign deliveries without LANDFALL_SINK_SECRET")]
    NoSecret,
    /// The configuration is checked for it, too.
    #[error("put records into a bucket without LANDFALL_SINK_BUCKET")]
    NoBucket,
    /// The binary is not the one that the configuration is for.
    #[error("deliver with sink.kind = \"custom\": this processor has no sink compiled in")]
    NoSink,
    /// Likewise.
    #[error("use the sink that is compiled in: sink.kind must be \"custom\"")]
    AnotherSink,
}

impl Processor {
    /// Works with this configuration, whose sink is neither a bucket nor compiled in.
    pub fn new(lifecycle: Lifecycle, events: Queue) -> Result<Self, Unfit> {
        Self::with(lifecycle, events, None, None)
    }
}

impl<K: Sink, B: StageBucket> Processor<K, B> {
    /// Works with this configuration. `bucket` is for `sink.kind = "s3"` and for `forge.acknowledge = "staged"`, and `sink` for `"custom"`.
    pub fn with(
        lifecycle: Lifecycle,
        events: Queue,
        bucket: Option<B>,
        sink: Option<K>,
    ) -> Result<Self, Unfit> {
        let configuration = lifecycle.configuration();
        let declared = &configuration.import;
        let imports =
            Imports::new(&declared.imports).map_err(|error| Unfit::Label(error.to_string()))?;
        // Also where transfers are staged no more: those that were may still be on their way.
        let stage = bucket.clone().map(|bucket| S3Sink::stage(bucket, STAGE));
        let sink = Outside::configured(&lifecycle, bucket, sink)?;
        Ok(Self {
            lifecycle,
            events,
            staged_imports: imports.of_stage(),
            imports,
            sink,
            stage,
            mappings: Mutex::new(None),
        })
    }

    /// Works on a batch; the answer names the messages that must come again. `deadline` is when Lambda ends the invocation.
    pub async fn handle(
        &self,
        batch: SqsEvent,
        invocation: &str,
        deadline: Timestamp,
    ) -> SqsBatchResponse {
        let work = batch.records.into_iter().map(|record| {
            let id = record.message_id.clone().unwrap_or_default();
            let owner = format!("{invocation}/{id}");
            // A batch has at most ten of them, and each is some 16 KB.
            let work = async move { Box::pin(self.message(&record, &owner, deadline)).await };
            (id, work)
        });
        batch::all_at_once(work).await
    }

    /// Works on one message. An error says that trying again can help.
    async fn message(
        &self,
        record: &SqsMessage,
        owner: &str,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let message = Message::decode(record.body.as_deref().unwrap_or_default())?;
        match Box::pin(self.task(&message, owner, deadline)).await {
            Err(error) if error.is_passing() => {
                // Nobody's fault but the weather's: a fresh message, so that an outage turns no work into dead letters.
                tracing::warn!(error = %error, "A message could not be worked on now; it is queued anew.");
                self.queue_anew(&message).await
            }
            outcome => outcome,
        }
    }

    async fn task(&self, message: &Message, owner: &str, deadline: Timestamp) -> Result<(), Error> {
        let tenant = &message.tenant;
        match &message.task {
            Task::Import { transfer, s3_key } => {
                self.file(tenant, transfer, s3_key, None, owner, deadline)
                    .await
            }
            Task::Event { body, received_at } => match self
                .lifecycle
                .take_event(tenant, body, *received_at)
                .await?
            {
                Taken::Done => Ok(()),
                Taken::Import {
                    transfer,
                    s3_key,
                    found,
                } => {
                    let found = found.as_deref();
                    self.file(tenant, &transfer, &s3_key, found, owner, deadline)
                        .await
                }
            },
        }
    }

    async fn queue_anew(&self, message: &Message) -> Result<(), Error> {
        let queue = if self.lifecycle.is_control(message) {
            &self.events
        } else {
            self.lifecycle.imports()
        };
        let pause = self.lifecycle.configuration().clocks.retry_pause;
        Ok(queue.send(message, pause).await?)
    }

    /// The mappings that are known of a transfer, and believed now; what was missing before a file's second pass, if that is what `again_at`
    /// says, is asked again.
    fn known_mappings(
        &self,
        transfer: &Transfer,
        again_at: Option<Timestamp>,
    ) -> (Arc<MappingCache>, Arc<EarlierMappings>) {
        let mut known = self
            .mappings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (cache, earlier) = match &*known {
            // One tenant's transfer may have the id of another's: whoever sends events chooses it.
            Some(known) if known.tenant == transfer.tenant && known.transfer == transfer.id => {
                (Arc::clone(&known.cache), Arc::clone(&known.earlier))
            }
            _ => {
                let limits = &self.lifecycle.configuration().import.limits;
                let cache = Arc::new(MappingCache::new(limits.mapping_cache_entries));
                let earlier = Arc::<EarlierMappings>::default();
                *known = Some(KnownMappings {
                    tenant: transfer.tenant.clone(),
                    transfer: transfer.id.clone(),
                    cache: Arc::clone(&cache),
                    earlier: Arc::clone(&earlier),
                });
                (cache, earlier)
            }
        };
        cache.now_is(self.lifecycle.now());
        if let Some(again_at) = again_at {
            cache.asks_again_from(again_at);
        }
        (cache, earlier)
    }
}
