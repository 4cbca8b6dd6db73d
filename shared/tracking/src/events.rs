use std::time::Duration;

use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::item::{Item, instant, number, text};
use crate::keys;
use crate::store::{Store, dedupe_expires};
use crate::table::{Key, Returning, Write, WriteError};

/// An event that is about to be stored. Uploads are stored as their file's row instead ([`crate::NewFile`]).
#[derive(Clone, Debug)]
pub struct EventRow {
    /// The verified tenant.
    pub tenant: TenantId,
    /// The transfer it belongs to; an unknown type may name none.
    pub transfer: Option<TransferId>,
    /// The platform's message id, or a digest in its place.
    pub message_id: String,
    /// The platform's name for it.
    pub event_type: String,
    /// The event as JSON, without the plan's name.
    pub body: String,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// What storing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was not there before.
    New,
    /// It was there: the platform, or a retry of ours, sent it twice.
    Duplicate,
}

impl EventRow {
    /// Key of the row under which the event is found again.
    fn key(&self) -> Key {
        let partition = match &self.transfer {
            Some(transfer) => keys::transfer(&self.tenant, transfer),
            None => keys::tenant(&self.tenant),
        };
        Key::new(partition, keys::event(&self.message_id))
    }
}

impl Store {
    /// Stores an event once. Until [`Store::event_handled`], the sweeper finds it when `grace` has passed, because its
    /// message may be missing.
    pub async fn record_event(&self, event: &EventRow, grace: Duration) -> Result<Recorded, Error> {
        let key = event.key();
        let mut item = Item::new();
        let mut set = |name: &'static str, value| item.insert(name.into(), value);
        set("kind", text("event"));
        set("v", number(1));
        set("tenant", text(event.tenant.as_str()));
        if let Some(transfer) = &event.transfer {
            set("transfer_id", text(transfer.as_str()));
        }
        set("message_id", text(&event.message_id));
        set("event_type", text(&event.event_type));
        set("event", text(&event.body));
        set("received_at", instant(event.received_at));
        set("expires_at", dedupe_expires(event.received_at));
        set("due_shard", text(keys::due_shard(&key)));
        set("due_at", instant(event.received_at + grace));
        self.put_once(key, item).await
    }

    /// The event's work is done: nothing is due for its row any more. The row is made when only the message had survived.
    pub async fn event_handled(&self, event: &EventRow, now: Timestamp) -> Result<(), Error> {
        let expires = dedupe_expires(event.received_at);
        let handled = Write::update(event.key())
            .set("handled_at", instant(now))
            .set("kind", text("event"))
            .set("v", number(1))
            .set("tenant", text(event.tenant.as_str()))
            .set("message_id", text(&event.message_id))
            .set("event_type", text(&event.event_type))
            .set("event", text(&event.body))
            .set("received_at", instant(event.received_at))
            .set("expires_at", expires)
            .remove("due_shard")
            .remove("due_at");
        self.write(handled).await
    }

    /// Puts a row that carries an event, unless it is there.
    pub(crate) async fn put_once(&self, key: Key, item: Item) -> Result<Recorded, Error> {
        let put = Write::put(key, item);
        let put = if is_planted(SeededBug::DuplicateOverwrites) {
            put
        } else {
            put.if_absent()
        };
        match self.table.write(put, Returning::Nothing).await {
            Ok(_) => Ok(Recorded::New),
            Err(WriteError::ConditionFailed(_)) => Ok(Recorded::Duplicate),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }
}
