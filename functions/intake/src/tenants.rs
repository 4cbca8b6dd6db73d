use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use landfall_tracking::{Store, Tenant};
use landfall_transfer::{TenantId, Timestamp};

use crate::deadline::{Deadline, Failure};

/// How long a tenant that was read is believed while the table can't be read. An outage must not cost events; after this long an
/// uninstallation that could not be seen counts for more.
const BELIEVED: Duration = Duration::from_hours(6);

/// Most tenants that are remembered, each a few hundred bytes.
const REMEMBERED_MAX: usize = 1_000;

/// Tenants as they were read last.
#[derive(Debug)]
pub(crate) struct Tenants {
    store: Store,
    /// How long a row is taken without looking again.
    fresh: Duration,
    /// How long one read may take.
    read_within: Duration,
    known: Mutex<HashMap<TenantId, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    tenant: Arc<Tenant>,
    read_at: Timestamp,
    /// From when on the row is read again.
    look_at: Timestamp,
}

/// A tenant, and whether its row was read just now.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) just_read: bool,
}

impl Tenants {
    pub(crate) fn new(store: Store, fresh: Duration, read_within: Duration) -> Self {
        Self {
            store,
            fresh,
            read_within,
            known: Mutex::default(),
        }
    }

    /// The tenant, from memory while it is fresh or the table can't be read; none when the app was never installed there.
    pub(crate) async fn find(
        &self,
        id: &TenantId,
        now: Timestamp,
        deadline: Deadline<'_>,
    ) -> Result<Option<Found>, Failure> {
        let known = self.known().get(id).cloned();
        let remembered = |known: &Known| Found {
            tenant: Arc::clone(&known.tenant),
            just_read: false,
        };
        if let Some(known) = &known
            && now < known.look_at
        {
            return Ok(Some(remembered(known)));
        }
        match (self.read(id, now, deadline).await, known) {
            (Ok(found), _) => Ok(found),
            (Err(failure), Some(known)) if now.since(known.read_at) < BELIEVED => {
                tracing::warn!(tenant.id = %id, error = %failure, metric = "tenant_believed", "took a tenant from memory, since its row can't be read");
                // Don't spend the time of the next events on the same outage.
                let next_look = Known {
                    look_at: now + self.fresh,
                    ..known.clone()
                };
                self.known().insert(id.clone(), next_look);
                Ok(Some(remembered(&known)))
            }
            (Err(failure), _) => Err(failure),
        }
    }

    /// The tenant as the table has it now.
    pub(crate) async fn read(
        &self,
        id: &TenantId,
        now: Timestamp,
        deadline: Deadline<'_>,
    ) -> Result<Option<Found>, Failure> {
        // Consistent: an event may follow its installation at once.
        let tenant = deadline
            .within(self.read_within, self.store.tenant(id, true))
            .await?;
        let mut known = self.known();
        let Some(tenant) = tenant.map(Arc::new) else {
            known.remove(id);
            return Ok(None);
        };
        if known.len() >= REMEMBERED_MAX && !known.contains_key(id) {
            let oldest = known
                .iter()
                .min_by_key(|(_, known)| known.read_at)
                .map(|(id, _)| id.clone());
            oldest.map(|oldest| known.remove(&oldest));
        }
        known.insert(
            id.clone(),
            Known {
                tenant: Arc::clone(&tenant),
                read_at: now,
                look_at: now + self.fresh,
            },
        );
        Ok(Some(Found {
            tenant,
            just_read: true,
        }))
    }

    /// Drops what is remembered of a tenant whose row was changed.
    pub(crate) fn forget(&self, id: &TenantId) {
        self.known().remove(id);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TenantId, Known>> {
        // Every change is one call on the map, so that a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
