//! Finds what is owed and sees to it: settles what is stuck, finishes what was interrupted, revives what got lost.
//!
//! A sweep asks the sparse index for what is due, page by page, so that its cost follows what is due and not what exists. Two
//! sweeps may run at once: each row is moved on conditionally before anything is done for it. A row that can't be read, or
//! whose work fails, is skipped; it never keeps the rest waiting.

mod dead_letters;
mod explain;
mod receipt;

use std::time::Duration;

use futures_util::future::join_all;
use landfall_lifecycle::{Error, Lifecycle};
use landfall_tracking::{Due, DueItem, EventRow, File, Message, Queue, Store, Task};
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::timeline::What;
use landfall_transfer::{TenantId, Timestamp, TransferId};
use serde::{Deserialize, Serialize};

pub use explain::{Explanation, LaterPhase, Line};
pub use receipt::{ExceptionLines, Receipt, SignedReceipt};

/// What the schedule and operators send. Its input is explicit, so that nothing else starts a sweep by accident.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Request {
    /// Sweep now.
    Sweep {},
    /// Say how a transfer does and what happened to it; changes nothing.
    Explain {
        /// Whose it is: the site's client key.
        tenant: TenantId,
        /// Its id.
        transfer: TransferId,
    },
    /// Say, signed, what became of a transfer and its records; changes nothing.
    Receipt {
        /// Whose it is: the site's client key.
        tenant: TenantId,
        /// Its id.
        transfer: TransferId,
    },
    /// List the records of a transfer that did not arrive, some at a time; changes nothing.
    Exceptions {
        /// Whose it is: the site's client key.
        tenant: TenantId,
        /// Its id.
        transfer: TransferId,
        /// `next` of the answer before.
        #[serde(default)]
        after: Option<String>,
    },
    /// Import once more what a staged transfer has stored, so far as it isn't in the target.
    RepeatSecondPhase {
        /// Whose it is: the installation's ARI.
        tenant: TenantId,
        /// The staged transfer's id.
        transfer: TransferId,
    },
}

/// What the sweeper answers; each request has its own shape.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Sweep`].
    Swept(Summary),
    /// To [`Request::Explain`].
    Explained(Explanation),
    /// To [`Request::Receipt`]; none of a transfer that was never seen.
    Receipt(Option<SignedReceipt>),
    /// To [`Request::Exceptions`].
    Exceptions(ExceptionLines),
    /// To [`Request::RepeatSecondPhase`].
    Repeated(Repeated),
}

/// What came of the wish to import once more what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repeated {
    /// The phase that has begun; none where there is nothing to repeat, or the last one isn't over.
    pub begun: Option<TransferId>,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Transfers to which something was owed.
    pub transfers: u64,
    /// Files that were queued again.
    pub files_revived: u64,
    /// Events that were queued again.
    pub events_revived: u64,
    /// Tenants that were compared with the platform.
    pub tenants: u64,
    /// Transfers that the platform listed and nobody had announced.
    pub transfers_adopted: u64,
    /// Dead letters that were turned into a verdict.
    pub dead_letters: u64,
    /// Rows and letters that are tried again by the next sweep.
    pub failed: u64,
    /// Whether the time was up before everything due was seen.
    pub cut_short: bool,
}

/// Why the sweeper can't work as it was deployed.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The template didn't name the dead-letter queues.
    #[error(
        "find the dead-letter queues: LANDFALL_EVENTS_DEAD_LETTER_QUEUE_URL and LANDFALL_IMPORTS_DEAD_LETTER_QUEUE_URL must both be set"
    )]
    DeadLetterQueues,
}

/// Sweeps.
#[derive(Debug)]
pub struct Sweeper {
    lifecycle: Lifecycle,
    events: Queue,
    dead_letters: Vec<Queue>,
}

/// Rows of a partition that are worked on at once.
const AT_ONCE: usize = 4;

/// As many of a partition are revived in a sweep at the usual pace: what the workers take up within
/// [`landfall_transfer::WorkClocks::message_grace`] without effort.
const REVIVED_SOON: u64 = 20;

/// A row that can't be read is looked at again after this long; until then it costs nothing.
const UNREADABLE_FOR: Duration = Duration::from_hours(1);

impl Sweeper {
    /// Sweeps with these.
    pub fn new(
        lifecycle: Lifecycle,
        events: Queue,
        dead_letters: Vec<Queue>,
    ) -> Result<Self, Unfit> {
        if dead_letters.len() != 2 {
            return Err(Unfit::DeadLetterQueues);
        }
        Ok(Self {
            lifecycle,
            events,
            dead_letters,
        })
    }

    /// Does what was asked. `deadline` is when Lambda ends the invocation.
    pub async fn answer(&self, request: Request, deadline: Timestamp) -> Result<Answer, Error> {
        match request {
            Request::Sweep {} => Ok(Answer::Swept(self.sweep(deadline).await)),
            Request::Explain { tenant, transfer } => self
                .explain(&tenant, &transfer)
                .await
                .map(Answer::Explained),
            Request::Receipt { tenant, transfer } => {
                self.receipt(&tenant, &transfer).await.map(Answer::Receipt)
            }
            Request::Exceptions {
                tenant,
                transfer,
                after,
            } => self
                .exceptions(&tenant, &transfer, after.as_deref())
                .await
                .map(Answer::Exceptions),
            Request::RepeatSecondPhase { tenant, transfer } => {
                let begun = self
                    .lifecycle
                    .repeat_second_phase(&tenant, &transfer)
                    .await?;
                Ok(Answer::Repeated(Repeated { begun }))
            }
        }
    }

    /// Sees to everything that is due, or to as much as the invocation's time allows. What is left is the longest due at the
    /// next sweep, so it comes first then.
    pub async fn sweep(&self, deadline: Timestamp) -> Summary {
        let end = deadline - self.margin();
        let mut summary = Summary::default();
        let (letters, shards) = tokio::join!(
            self.sweep_dead_letters(end),
            join_all(Store::due_shards().map(|shard| self.sweep_shard(shard, end)))
        );
        summary.merge(&letters);
        for shard in &shards {
            summary.merge(shard);
        }
        if summary.cut_short {
            tracing::warn!(
                "The sweep's time is up before everything due was seen; the next one goes on."
            );
        }
        tracing::info!(
            sweep.transfers = summary.transfers,
            sweep.files_revived = summary.files_revived,
            sweep.events_revived = summary.events_revived,
            sweep.tenants = summary.tenants,
            sweep.transfers_adopted = summary.transfers_adopted,
            sweep.dead_letters = summary.dead_letters,
            sweep.failed = summary.failed,
            "Swept."
        );
        summary
    }

    /// Everything that is due in one partition of the index.
    async fn sweep_shard(&self, shard: u64, end: Timestamp) -> Summary {
        let mut summary = Summary::default();
        let now = self.lifecycle.now();
        let mut page = None;
        loop {
            let found = match self.lifecycle.store().due(shard, now, page).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(error = %error, "What is due could not be read; the next sweep reads it again.");
                    summary.failed += 1;
                    return summary;
                }
            };
            for some in found.rows.chunks(AT_ONCE) {
                if self.lifecycle.now() >= end {
                    summary.cut_short = true;
                    return summary;
                }
                let rows = some.iter().map(|due| self.row(due, now, &summary));
                for outcome in join_all(rows).await {
                    summary.add(outcome);
                }
                if summary.failed > 0 && is_planted(SeededBug::FailedRowEndsTheSweep) {
                    return summary;
                }
            }
            if !found.has_next() {
                return summary;
            }
            page = Some(found);
        }
    }

    /// How long a row whose message is sent again is left alone, when so many of its kind and its partition were before it in this sweep: files and
    /// events have a queue each, and one's length says nothing about the other.
    ///
    /// Where many have to be revived, hardly any message was lost: they wait for workers, and each one more makes them wait
    /// longer. So the more there are, the later they are looked at again, and a backlog of days doesn't grow by itself. Half of
    /// [`landfall_transfer::Clocks::work_stale_after`] is the most: what is lost all the same is revived before its transfer is
    /// given up.
    fn patience(&self, revived: u64) -> Duration {
        let configuration = self.lifecycle.configuration();
        let grace = configuration.work.message_grace;
        let longer = u32::try_from(revived / REVIVED_SOON).unwrap_or(u32::MAX);
        grace
            .saturating_mul(longer.saturating_add(1))
            .min(configuration.clocks.work_stale_after / 2)
            .max(grace)
    }

    /// How long a row or letter is hidden from other sweepers while one works on it: six retries' pauses, a minute by default.
    fn claimed_for(&self) -> Duration {
        self.lifecycle.configuration().clocks.retry_pause * 6
    }

    /// Time that is left of an invocation when no new row is begun: what a row may take, which is two calls to the platform
    /// and their writes.
    fn margin(&self) -> Duration {
        self.lifecycle.configuration().clocks.call_timeout * 2
    }

    /// Does what is owed for one row, `before` which so much was done. Failing is told and counted here: the next rows don't suffer from it.
    async fn row(&self, due: &Due, now: Timestamp, before: &Summary) -> Swept {
        let mut due = due.clone();
        match self.try_row(&mut due, now, before).await {
            Ok(swept) => swept,
            Err(Error::Tracking(landfall_tracking::Error::Unreadable { what, problem }))
                if !is_planted(SeededBug::FailedRowEndsTheSweep) =>
            {
                tracing::error!(error.code = "LF-UNREADABLE-ROW", row.what = %what, error = %problem, "A due row can't be read by this release; it is left as it is.");
                let _ = self
                    .lifecycle
                    .store()
                    .postpone(&due, now + UNREADABLE_FOR)
                    .await;
                Swept::Failed
            }
            Err(error) => {
                tracing::warn!(error = %error, "What is owed to a row could not be done; the next sweep tries again.");
                Swept::Failed
            }
        }
    }

    async fn try_row(
        &self,
        due: &mut Due,
        now: Timestamp,
        before: &Summary,
    ) -> Result<Swept, Error> {
        let store = self.lifecycle.store();
        let item = store.due_item(due, now).await?;
        let hidden_until = match &item {
            DueItem::Gone => return Ok(Swept::Nothing),
            DueItem::Transfer(..) => now + self.claimed_for(),
            DueItem::Event(_) => now + self.patience(before.events_revived),
            DueItem::File(file) => file
                .leased_until
                .filter(|until| *until > now)
                .unwrap_or_else(|| now + self.patience(before.files_revived)),
            DueItem::Tenant(_) => now + self.lifecycle.configuration().clocks.reconcile_interval,
        };
        let moved = match &item {
            DueItem::File(file) => store.postpone_file(due, file, hidden_until).await?,
            _ => store.postpone(due, hidden_until).await?,
        };
        if !moved {
            return Ok(Swept::Nothing);
        }
        due.at = hidden_until;
        match item {
            DueItem::Gone => Ok(Swept::Nothing),
            DueItem::Transfer(tenant, id) => {
                self.lifecycle.drive(&tenant, &id).await?;
                Ok(Swept::Transfer)
            }
            DueItem::File(file) => self.revive_file(&file, now).await,
            DueItem::Event(event) => self.revive_event(*event).await,
            DueItem::Tenant(tenant) => {
                let adopted = self.lifecycle.reconcile_tenant(&tenant).await?;
                Ok(Swept::Tenant {
                    adopted: adopted.len() as u64,
                })
            }
        }
    }

    /// A file that nobody works on although it isn't finished: its message got lost, or its worker died.
    async fn revive_file(&self, file: &File, now: Timestamp) -> Result<Swept, Error> {
        if file.leased_until.is_some_and(|until| until > now) {
            return Ok(Swept::Nothing);
        }
        self.lifecycle.note_announced(file).await?;
        tracing::info!(transfer.id = %file.transfer, file.key = %file.s3_key, file.attempts = file.attempts, "Revived a file that nobody worked on.");
        let revived = What::Revived {
            file: Some(file.s3_key.clone()),
        };
        self.lifecycle
            .tell(&file.tenant, &file.transfer, revived, None)
            .await;
        match &file.event {
            // Its transfer may not even be known yet: the event makes it.
            Some(body) => {
                let task = Task::Event {
                    body: body.clone(),
                    received_at: file.received_at,
                };
                self.lifecycle
                    .imports()
                    .send(&Message::new(file.tenant.clone(), task), Duration::ZERO)
                    .await?;
            }
            None => {
                self.lifecycle
                    .queue_import(&file.tenant, &file.transfer, &file.s3_key, Duration::ZERO)
                    .await?;
            }
        }
        Ok(Swept::File)
    }

    async fn revive_event(&self, event: EventRow) -> Result<Swept, Error> {
        tracing::info!(event.type = %event.event_type, event.message_id = %event.message_id, "Revived an event that nobody handled.");
        if let Some(transfer) = &event.transfer {
            let revived = What::Revived { file: None };
            self.lifecycle
                .tell(&event.tenant, transfer, revived, Some(&event.message_id))
                .await;
        }
        let task = Task::Event {
            body: event.body,
            received_at: event.received_at,
        };
        self.events
            .send(&Message::new(event.tenant, task), Duration::ZERO)
            .await?;
        Ok(Swept::Event)
    }
}

/// What was done for one row.
#[derive(Clone, Copy, Debug)]
enum Swept {
    Nothing,
    Transfer,
    File,
    Event,
    Tenant { adopted: u64 },
    Failed,
}

impl Summary {
    const fn merge(&mut self, other: &Self) {
        self.transfers += other.transfers;
        self.files_revived += other.files_revived;
        self.events_revived += other.events_revived;
        self.tenants += other.tenants;
        self.transfers_adopted += other.transfers_adopted;
        self.dead_letters += other.dead_letters;
        self.failed += other.failed;
        self.cut_short |= other.cut_short;
    }

    fn add(&mut self, swept: Swept) {
        match swept {
            Swept::Nothing => {}
            Swept::Transfer => self.transfers += 1,
            Swept::File => self.files_revived += 1,
            Swept::Event => self.events_revived += 1,
            Swept::Tenant { adopted } => {
                self.tenants += 1;
                self.transfers_adopted += adopted;
            }
            Swept::Failed => self.failed += 1,
        }
    }
}
