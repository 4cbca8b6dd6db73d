use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::item::{instant, key, number, text};
use crate::keys;
use crate::store::{DEDUPE_LIFE_SECONDS, Store};

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
    pub(crate) fn key(&self) -> (String, String) {
        let pk = match &self.transfer {
            Some(transfer) => keys::transfer(&self.tenant, transfer),
            None => keys::tenant(&self.tenant),
        };
        (pk, keys::event(&self.message_id))
    }
}

impl Store {
    /// Stores an event once. Until [`Store::event_handled`], the sweeper finds it when `grace` has passed, because its
    /// message may be missing.
    pub async fn record_event(&self, event: &EventRow, grace: Duration) -> Result<Recorded, Error> {
        let (pk, sk) = event.key();
        let mut item = key(&pk, &sk);
        let mut set = |name: &str, value| item.insert(name.to_owned(), value);
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
        set(
            "expires_at",
            number(event.received_at.as_seconds() + DEDUPE_LIFE_SECONDS),
        );
        set("due_shard", text(keys::due_shard(&pk, &sk)));
        set("due_at", instant(event.received_at + grace));
        self.put_once(item).await
    }

    /// The event's work is done: nothing is due for its row any more. The row is made when only the message had survived.
    pub async fn event_handled(&self, event: &EventRow, now: Timestamp) -> Result<(), Error> {
        let (pk, sk) = event.key();
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(&pk, &sk)))
            .update_expression(
                "SET handled_at = :now, kind = :kind, v = :v, tenant = :tenant, message_id = :message, event_type = :type, event = :event, received_at = :received, expires_at = :expires REMOVE due_shard, due_at",
            )
            .expression_attribute_values(":now", instant(now))
            .expression_attribute_values(":kind", text("event"))
            .expression_attribute_values(":v", number(1))
            .expression_attribute_values(":tenant", text(event.tenant.as_str()))
            .expression_attribute_values(":message", text(&event.message_id))
            .expression_attribute_values(":type", text(&event.event_type))
            .expression_attribute_values(":event", text(&event.body))
            .expression_attribute_values(":received", instant(event.received_at))
            .expression_attribute_values(":expires", number(event.received_at.as_seconds() + DEDUPE_LIFE_SECONDS))
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        Ok(())
    }

    pub(crate) async fn put_once(&self, item: crate::item::Item) -> Result<Recorded, Error> {
        let answer = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::None)
            .send()
            .await;
        match answer.map_err(|error| Error::of(&error)) {
            Ok(_) => Ok(Recorded::New),
            Err(Error::Conflict) => Ok(Recorded::Duplicate),
            Err(error) => Err(error),
        }
    }
}
