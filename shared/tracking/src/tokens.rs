use landfall_transfer::{TenantId, Timestamp};
use secrecy::SecretString;

use crate::error::Error;
use crate::item::{Item, Reader, Value, instant, number, text};
use crate::keys;
use crate::store::Store;
use crate::table::Write;

/// Version of what is stored. A row of a newer one is not read.
const VERSION: u64 = 1;

/// How often a token is written over one that another has just written. Each time the other one's ends earlier, so it is somebody who keeps
/// many tokens at once.
const ATTEMPTS: usize = 5;

/// A token with which the platform's REST API can be called for an installation of the app on Forge. It comes only with a call of the platform's, and nobody can ask for one
/// (PROTOCOL.md 7.5).
#[derive(Clone, Debug)]
pub struct SystemToken {
    /// Never printed.
    pub token: SecretString,
    /// Its own `exp`; from then on it is refused.
    pub good_until: Timestamp,
}

impl Store {
    /// Keeps a token that came with a verified call, sealed, unless there is one that is good for as long: of two that come at once, in whatever order, the one that ends later stays. Says whether
    /// it is the newest now.
    ///
    /// After [`Error::Conflict`], or an outcome that nobody knows, keeping it again is safe.
    pub async fn keep_token(&self, tenant: &TenantId, token: &SystemToken) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let row = keys::token(tenant);
            let known = self.table.get(&row, true).await?;
            let known = known.map(|item| read_until(&item)).transpose()?;
            if known.is_some_and(|known| known >= token.good_until) {
                return Ok(false);
            }
            let sealed = self.vault.seal(&owner(tenant), &token.token).await?;
            let item = Item::from([
                ("kind".into(), text("token")),
                ("v".into(), number(VERSION)),
                ("token".into(), text(sealed)),
                ("good_until".into(), instant(token.good_until)),
                // Nothing can be done with it then, so it need not lie about.
                (
                    "expires_at".into(),
                    Value::Number(token.good_until.as_seconds()),
                ),
            ]);
            let put = Write::put(row, item);
            let put = match known {
                Some(known) => put.only_if("good_until", instant(known)),
                None => put.if_absent(),
            };
            match self.write(put).await {
                Ok(()) => return Ok(true),
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict)
    }

    /// The token of an installation that is good for longest; none when none has come, or the last one's end is long past. Whether it is good for long
    /// enough is the caller's to say.
    pub async fn token(&self, tenant: &TenantId) -> Result<Option<SystemToken>, Error> {
        let item = self.table.get(&keys::token(tenant), true).await?;
        let Some(item) = item else { return Ok(None) };
        let good_until = read_until(&item)?;
        let sealed = Reader::new(&item, WHAT).text("token")?;
        let token = self.vault.open(WHAT, &owner(tenant), sealed).await?;
        Ok(Some(SystemToken { token, good_until }))
    }
}

fn read_until(item: &Item) -> Result<Timestamp, Error> {
    let reader = Reader::new(item, WHAT);
    let written = reader.number("v")?;
    if written > VERSION {
        let problem = format!("version {written} is newer than this release");
        return Err(Error::unreadable(WHAT, problem));
    }
    reader
        .optional_instant("good_until")
        .ok_or_else(|| Error::unreadable(WHAT, "it has no end"))
}

/// Whom it is sealed for: the installation, and as a token, so that no other sealed text of the tenant's can stand in its place.
fn owner(tenant: &TenantId) -> String {
    format!("{tenant}#TOKEN")
}

const WHAT: &str = "an installation's token";
