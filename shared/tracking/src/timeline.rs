use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::item::{instant, key, number, text};
use crate::keys;
use crate::store::{HISTORY_LIFE_SECONDS, Store};

impl Store {
    /// Appends a sentence to the transfer's timeline, which is what support reads. Two sentences of one millisecond are
    /// kept apart by what they say.
    pub async fn log(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        at: Timestamp,
        what: &str,
        detail: &str,
    ) -> Result<(), Error> {
        let mut item = key(
            &keys::transfer(tenant, transfer),
            &format!("LOG#{:015}#{}", at.as_millis(), keys::part(what)),
        );
        item.insert("kind".to_owned(), text("log"));
        item.insert("what".to_owned(), text(what));
        item.insert("detail".to_owned(), text(detail));
        item.insert("at".to_owned(), instant(at));
        item.insert(
            "expires_at".to_owned(),
            number(at.as_seconds() + HISTORY_LIFE_SECONDS),
        );
        self.client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .send()
            .await
            .map_err(|error| Error::of(&error))?;
        Ok(())
    }
}
