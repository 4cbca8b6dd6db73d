//! Which containers are this migration's. The platform has the mappings of a site's earlier migrations as well, and says of none whose it is; but it lists
//! the containers of each.

use std::collections::HashSet;
use std::sync::Arc;

use landfall_transfer::Timestamp;

use super::ID_BYTES;
use super::cache::{FOUND_BELIEVED_FOR, MappingCache};
use crate::declaration::ContainerType;
use crate::ports::{CONTAINER_PAGE, ContainerPage, Mappings, MappingsError};

/// The most containers of one type that are remembered; some 60 bytes each.
const CONTAINERS_MAX: usize = 50_000;

/// The most pages of them, so that reading ends whatever the platform answers.
const PAGES_MAX: usize = CONTAINERS_MAX / CONTAINER_PAGE;

/// By which ids the server knows the containers of one type.
pub(super) type SourceIds = HashSet<Box<str>>;

/// What is known of the migration's containers of one type.
#[derive(Debug)]
pub(super) enum Containers {
    /// So many pages are read, up to what `after` names. Whoever was interrupted, or reads at the same time, goes on from here.
    Reading {
        source_ids: SourceIds,
        pages: usize,
        after: Option<String>,
    },
    /// These are all.
    Read {
        source_ids: Arc<SourceIds>,
        until: Timestamp,
    },
}

impl Default for Containers {
    fn default() -> Self {
        Self::Reading {
            source_ids: SourceIds::new(),
            pages: 0,
            after: None,
        }
    }
}

impl Containers {
    /// A migration's containers stay what they are as far as anybody knows, so they are believed as long as cloud ids. In a second pass they are asked for
    /// again like whatever was missing: `missing_from` is when that began.
    pub(super) fn forget_unless_believed(&mut self, now: Timestamp, missing_from: Timestamp) {
        if let Self::Read { until, .. } = self
            && (*until <= now || *until < missing_from + FOUND_BELIEVED_FOR)
        {
            *self = Self::default();
        }
    }

    /// Takes in the page after `after`, unless somebody else was faster.
    fn add(
        &mut self,
        container_type: ContainerType,
        after: Option<&str>,
        page: ContainerPage,
        learnt_at: Timestamp,
    ) -> Result<(), MappingsError> {
        let Self::Reading {
            source_ids,
            pages,
            after: reached,
        } = self
        else {
            return Ok(());
        };
        if reached.as_deref() != after {
            return Ok(());
        }
        // No record has a longer id.
        let usable = page.source_ids.into_iter();
        let usable = usable.filter(|source_id| source_id.len() <= ID_BYTES);
        source_ids.extend(usable.map(String::into_boxed_str));
        *pages += 1;
        let is_last = page.next.is_none();
        if source_ids.len() > CONTAINERS_MAX || (!is_last && *pages >= PAGES_MAX) {
            *self = Self::default();
            let of = container_type.name();
            return Err(MappingsError::Refused {
                reason: format!(
                    "of type {of} this migration has more than {CONTAINERS_MAX} containers, or more than {PAGES_MAX} pages of them; a mapping with within = \"{of}\" is compared with no more"
                ),
            });
        }
        if is_last {
            *self = Self::Read {
                source_ids: Arc::new(std::mem::take(source_ids)),
                until: learnt_at + FOUND_BELIEVED_FOR,
            };
        } else {
            *reached = page.next;
        }
        Ok(())
    }
}

/// The migration's containers of a type: those that the cache knows, or as they are read now, page by page.
pub(super) async fn read<M: Mappings>(
    mappings: &M,
    cache: &MappingCache,
    container_type: ContainerType,
) -> Result<Arc<SourceIds>, MappingsError> {
    loop {
        let after = match cache.lock().containers(container_type).0 {
            Containers::Read { source_ids, .. } => return Ok(Arc::clone(source_ids)),
            Containers::Reading { after, .. } => after.clone(),
        };
        let page = mappings
            .containers(container_type, after.as_deref())
            .await?;
        let mut cache = cache.lock();
        let (containers, learnt_at) = cache.containers(container_type);
        containers.add(container_type, after.as_deref(), page, learnt_at)?;
    }
}
