use landfall_transfer::{TenantId, Timestamp, TransferId};

use crate::error::Error;
use crate::item::{Item, instant, text};
use crate::keys;
use crate::store::{Store, history_expires};
use crate::table::{Key, Write};

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
        let key = Key::new(
            keys::transfer(tenant, transfer),
            format!("LOG#{:015}#{}", at.as_millis(), keys::part(what)),
        );
        let expires = history_expires(at);
        let item = Item::from([
            ("kind".into(), text("log")),
            ("what".into(), text(what)),
            ("detail".into(), text(detail)),
            ("at".into(), instant(at)),
            ("expires_at".into(), expires),
        ]);
        self.write(Write::put(key, item)).await
    }
}
