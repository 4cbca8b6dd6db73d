use std::time::Duration;

use landfall_transfer::{TenantId, Timestamp, TransferId};
use secrecy::{ExposeSecret, SecretString};

use crate::error::Error;
use crate::events::Recorded;
use crate::item::{Item, Reader, Value, instant, number, text};
use crate::keys;
use crate::store::{Store, dedupe_expires};
use crate::table::{Key, Write};
use crate::vault::Vault;

/// A tenant: one installation of the app.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its `clientKey`.
    pub id: TenantId,
    /// Prefix of the product's REST endpoints.
    pub base_url: String,
    /// `jira` or `confluence`, where the platform said so.
    pub product: Option<String>,
    /// Whether the app is installed there now.
    pub installed: bool,
    /// The shared secret. Never printed.
    pub secret: SecretString,
    /// The secret before the last re-install, until when it still counts.
    pub previous_secret: Option<(SecretString, Timestamp)>,
}

/// What a verified `installed` callback tells.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The verified `clientKey`.
    pub tenant: TenantId,
    /// Prefix of the product's REST endpoints, its host already allowed.
    pub base_url: String,
    /// `jira` or `confluence`.
    pub product: Option<String>,
    /// The new shared secret.
    pub secret: SecretString,
}

impl Tenant {
    /// The secrets that a token may be signed with now, the newest first.
    pub fn secrets(&self, now: Timestamp) -> Vec<&SecretString> {
        let previous = self
            .previous_secret
            .iter()
            .filter(|(_, until)| now < *until)
            .map(|(secret, _)| secret);
        std::iter::once(&self.secret).chain(previous).collect()
    }
}

impl Store {
    /// Reads a tenant, installed or not; none when it was never installed. Eventually consistent: a re-install that was
    /// written a moment ago may not show yet, so a caller whose check fails asks again with `consistent`.
    pub async fn tenant(&self, id: &TenantId, consistent: bool) -> Result<Option<Tenant>, Error> {
        let item = self.table.get(&keys::tenant_state(id), consistent).await?;
        match item {
            Some(item) => read(&item, id, &self.vault).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores a verified installation. The secret before it stays valid for `overlap`, so that calls in flight are not dropped.
    ///
    /// Repeating it changes nothing: the same secret again leaves the previous one as it is.
    pub async fn install(
        &self,
        installed: &Installed,
        overlap: Duration,
        now: Timestamp,
    ) -> Result<(), Error> {
        let row = keys::tenant_state(&installed.tenant);
        let owner = installed.tenant.as_str();
        let known = match self.tenant(&installed.tenant, true).await {
            // Sealed with another key: nobody can open it again, and this installation replaces it.
            Err(Error::Unreadable { .. }) => None,
            known => known?,
        };
        let version = self
            .table
            .get(&row, true)
            .await?
            .and_then(|item| Reader::new(&item, WHAT).optional_number("version"));
        let mut previous = None;
        if let Some(known) = &known {
            let same = known.secret.expose_secret() == installed.secret.expose_secret();
            previous = if same {
                known.previous_secret.clone()
            } else if known.installed {
                Some((known.secret.clone(), now + overlap))
            } else {
                // What was valid before the app was uninstalled must not come back to life.
                None
            };
        }
        let secret = self.vault.seal(owner, &installed.secret).await?;
        let mut item = Item::new();
        let mut set = |name: &'static str, value| item.insert(name.into(), value);
        set("kind", text("tenant"));
        set("tenant", text(owner));
        set("v", number(1));
        set("version", number(version.unwrap_or(0) + 1));
        set("base_url", text(&installed.base_url));
        if let Some(product) = &installed.product {
            set("product", text(product));
        }
        set("installed", Value::Flag(true));
        set("installed_at", instant(now));
        set("secret", text(secret));
        if let Some((secret, until)) = &previous {
            let secret = self.vault.seal(owner, secret).await?;
            set("previous_secret", text(secret));
            set("previous_secret_until", instant(*until));
        }
        // Due at once: the sweeper looks for transfers whose events were lost, and then regularly.
        set("due_shard", text(keys::due_shard(&row)));
        set("due_at", instant(now));
        let put = Write::put(row, item);
        let put = match version {
            Some(version) => put.only_if("version", number(version)),
            None => put.if_absent(),
        };
        self.write(put).await
    }

    /// Marks a tenant as uninstalled; its secrets verify nothing any more. Unknown tenants are left unknown.
    pub async fn uninstall(&self, id: &TenantId, now: Timestamp) -> Result<(), Error> {
        let uninstalled = Write::update(keys::tenant_state(id))
            .if_present()
            .set("installed", Value::Flag(false))
            .set("uninstalled_at", instant(now))
            .add("version", 1)
            .remove("previous_secret")
            .remove("previous_secret_until")
            .remove("due_shard")
            .remove("due_at");
        match self.write(uninstalled).await {
            Ok(()) | Err(Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps what support needs of an event that was refused: its type, size and reason, not its content.
    pub async fn record_rejected(
        &self,
        tenant: &TenantId,
        event_type: &str,
        bytes: usize,
        reason: &str,
        digest: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let noted = note(tenant, "REJECTED", digest, now)
            .set("event_type", text(event_type))
            .set("size_bytes", number(bytes))
            .set("reason", text(reason));
        self.write(noted).await
    }

    /// Keeps that a verified token came with a body that names another tenant. The other tenant's row is not touched.
    pub async fn record_security(
        &self,
        tenant: &TenantId,
        what: &str,
        transfer: Option<&str>,
        digest: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut noted = note(tenant, "SECURITY", digest, now).set("what", text(what));
        if let Some(transfer) = transfer {
            noted = noted.set("transfer_id", text(transfer));
        }
        self.write(noted).await
    }

    /// Since when the platform lists a transfer that nobody announced. The first call notes it.
    pub async fn listed_unannounced_since(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        now: Timestamp,
    ) -> Result<Timestamp, Error> {
        let key = Key::new(
            keys::tenant(tenant),
            format!("UNANNOUNCED#{}", keys::part(transfer.as_str())),
        );
        let expires = dedupe_expires(now);
        let item = Item::from([
            ("kind".into(), text("unannounced")),
            ("at".into(), instant(now)),
            ("expires_at".into(), expires),
        ]);
        if self.put_once(key.clone(), item).await? == Recorded::New {
            return Ok(now);
        }
        let noted = self.table.get(&key, true).await?;
        let since = noted.and_then(|item| Reader::new(&item, "a note").optional_instant("at"));
        Ok(since.unwrap_or(now))
    }

    /// Adds one to a counter of the tenant.
    pub async fn count(&self, tenant: &TenantId, name: &str) -> Result<(), Error> {
        let key = Key::new(keys::tenant(tenant), format!("COUNT#{}", keys::part(name)));
        self.write(Write::update(key).add("count", 1)).await
    }
}

/// A row beside a tenant's state: what happened, under when it happened.
fn note(tenant: &TenantId, kind: &str, digest: &str, now: Timestamp) -> Write {
    let sort = format!("{kind}#{:015}#{}", now.as_millis(), keys::part(digest));
    let expires = dedupe_expires(now);
    let item = Item::from([
        ("kind".into(), text(kind.to_ascii_lowercase())),
        ("at".into(), instant(now)),
        ("expires_at".into(), expires),
    ]);
    Write::put(Key::new(keys::tenant(tenant), sort), item)
}

async fn read(item: &Item, id: &TenantId, vault: &Vault) -> Result<Tenant, Error> {
    let reader = Reader::new(item, WHAT);
    let open = |sealed| vault.open(WHAT, id.as_str(), sealed);
    let previous_secret = match (
        reader.optional_text("previous_secret"),
        reader.optional_instant("previous_secret_until"),
    ) {
        (Some(sealed), Some(until)) => Some((open(sealed).await?, until)),
        _ => None,
    };
    Ok(Tenant {
        id: id.clone(),
        base_url: reader.text("base_url")?.to_owned(),
        product: reader.optional_text("product").map(str::to_owned),
        installed: reader.flag("installed"),
        secret: open(reader.text("secret")?).await?,
        previous_secret,
    })
}

const WHAT: &str = "a tenant's row";
