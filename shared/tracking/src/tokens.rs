use landfall_transfer::clocks::own::FORGE_HEARD_EVERY;
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
    /// When the last call came that brought it; none in a row that an older release wrote.
    pub heard_at: Option<Timestamp>,
    /// Where the product's own REST API is called for the installation, as the last call said that named it. None as long as no call did.
    pub product_api: Option<String>,
}

/// What the row says beside the token, which need not be opened for that.
struct Known {
    item: Item,
    good_until: Timestamp,
    heard_at: Option<Timestamp>,
    product_api: Option<String>,
}

impl Store {
    /// Keeps a token that came with a verified call, sealed, unless there is one that is good for as long: of two that come at once, in whatever order, the one that ends later stays. Says whether
    /// it is the newest now.
    ///
    /// Where the product's API is called stays known whatever token comes: a call that doesn't name it takes nothing away, and of two that name different ones the one with the newer token counts. A
    /// call whose token is no newer still says that the installation is heard, and where the product's API is if nobody knew.
    ///
    /// After [`Error::Conflict`], or an outcome that nobody knows, keeping it again is safe.
    pub async fn keep_token(&self, tenant: &TenantId, token: &SystemToken) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let row = keys::token(tenant);
            let known = self.table.get(&row, true).await?;
            let known = known.map(Known::read).transpose()?;
            let is_newest = known
                .as_ref()
                .is_none_or(|known| known.good_until < token.good_until);
            let mut write = match &known {
                // What it doesn't name stays as it is, also what another call adds at the same time.
                Some(known) => Write::update(row).only_if("good_until", instant(known.good_until)),
                None => Write::put(row, Item::from([("kind".into(), text("token"))])).if_absent(),
            };
            if is_newest {
                let sealed = self.vault.seal(&owner(tenant), &token.token).await?;
                write = write
                    .set("v", number(VERSION))
                    .set("token", text(sealed))
                    .set("good_until", instant(token.good_until))
                    // Nothing can be done with it then, so it need not lie about.
                    .set("expires_at", Value::Number(token.good_until.as_seconds()));
            } else if !known
                .as_ref()
                .is_some_and(|known| known.is_told_more(token))
            {
                return Ok(false);
            }
            if let Some(heard_at) = token.heard_at {
                write = write.set("heard_at", instant(heard_at));
            }
            let names = |known: &Known| !is_newest && known.product_api.is_some();
            if let Some(product_api) = &token.product_api
                && !known.as_ref().is_some_and(names)
            {
                write = write.set("product_api", text(product_api));
            }
            match self.write(write).await {
                Ok(()) => return Ok(is_newest),
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
        let known = Known::read(item)?;
        let sealed = Reader::new(&known.item, WHAT).text("token")?;
        let token = self.vault.open(WHAT, &owner(tenant), sealed).await?;
        Ok(Some(SystemToken {
            token,
            good_until: known.good_until,
            heard_at: known.heard_at,
            product_api: known.product_api,
        }))
    }
}

impl Known {
    fn read(item: Item) -> Result<Self, Error> {
        let reader = Reader::new(&item, WHAT);
        let written = reader.number("v")?;
        if written > VERSION {
            let problem = format!("version {written} is newer than this release");
            return Err(Error::unreadable(WHAT, problem));
        }
        let good_until = reader
            .optional_instant("good_until")
            .ok_or_else(|| Error::unreadable(WHAT, "it has no end"))?;
        Ok(Self {
            good_until,
            heard_at: reader.optional_instant("heard_at"),
            product_api: reader.optional_text("product_api").map(str::to_owned),
            item,
        })
    }

    /// Whether a call that brought no newer token tells what is worth a write.
    fn is_told_more(&self, call: &SystemToken) -> bool {
        let again = self.heard_at.map(|heard_at| heard_at + FORGE_HEARD_EVERY);
        let is_heard = call.heard_at.is_some() && call.heard_at >= again;
        is_heard || (self.product_api.is_none() && call.product_api.is_some())
    }
}

/// Whom it is sealed for: the installation, and as a token, so that no other sealed text of the tenant's can stand in its place.
fn owner(tenant: &TenantId) -> String {
    format!("{tenant}#TOKEN")
}

const WHAT: &str = "an installation's token";
