use landfall_transfer::pace::Pace;
use landfall_transfer::{TenantId, Timestamp};

use crate::error::Error;
use crate::item::{Item, Reader, number, text};
use crate::keys;
use crate::store::{Store, dedupe_expires};
use crate::table::Write;

/// Version of what is stored. A row of a newer one is not read.
const VERSION: u64 = 1;

/// The pace at which a site is called, as it was read or written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPace {
    /// The pace.
    pub pace: Pace,
    /// Of the row; 0 when there is none.
    version: u64,
}

impl Store {
    /// The pace at which a tenant's site is called; that of a site which nobody has called yet when there is none.
    pub async fn pace(&self, tenant: &TenantId, now: Timestamp) -> Result<KeptPace, Error> {
        let item = self.table.get(&keys::pace(tenant), true).await?;
        let Some(item) = item else {
            return Ok(KeptPace {
                pace: Pace::new(now),
                version: 0,
            });
        };
        let reader = Reader::new(&item, WHAT);
        let written = reader.number("v")?;
        if written > VERSION {
            let problem = format!("version {written} is newer than this release");
            return Err(Error::unreadable(WHAT, problem));
        }
        Ok(KeptPace {
            pace: serde_json::from_str(reader.text("pace")?)
                .map_err(|error| Error::unreadable(WHAT, error))?,
            version: reader.number("version")?,
        })
    }

    /// Writes a pace over the one that was read. [`Error::Conflict`] says that another was faster: read again, decide again.
    pub async fn keep_pace(
        &self,
        tenant: &TenantId,
        read: &KeptPace,
        pace: Pace,
        now: Timestamp,
    ) -> Result<KeptPace, Error> {
        let version = read.version + 1;
        let json = serde_json::to_string(&pace).map_err(|error| Error::unreadable(WHAT, error))?;
        let item = Item::from([
            ("kind".into(), text("pace")),
            ("v".into(), number(VERSION)),
            ("version".into(), number(version)),
            ("pace".into(), text(json)),
            // A site that nobody calls for so long is got to know anew.
            ("expires_at".into(), dedupe_expires(now)),
        ]);
        let put = Write::put(keys::pace(tenant), item);
        let put = if read.version == 0 {
            put.if_absent()
        } else {
            put.only_if("version", number(read.version))
        };
        self.write(put).await?;
        Ok(KeptPace { pace, version })
    }
}

const WHAT: &str = "a site's pace";
