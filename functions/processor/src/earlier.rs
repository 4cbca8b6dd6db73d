//! What earlier attempts of a migration knew of users and groups, once the platform doesn't know it any more.

use std::collections::HashMap;

use landfall_import::UsedMappings;
use landfall_lifecycle::Lifecycle;
use landfall_tracking::Error as Tracking;
use landfall_transfer::Transfer;
use tokio::sync::OnceCell;

/// Namespaces whose mappings the platform forgets after 14 days begin so (PROTOCOL.md 2.4); a migration and its re-runs may take longer.
const FORGOTTEN: &str = "identity:";

/// The mappings of users and groups that earlier attempts of the chain used. Read when one is needed for the first time.
#[derive(Debug, Default)]
pub(crate) struct EarlierMappings(OnceCell<HashMap<String, HashMap<String, String>>>);

impl EarlierMappings {
    /// Whether earlier attempts are asked about a namespace at all.
    pub(crate) fn is_of(namespace: &str, transfer: &Transfer) -> bool {
        transfer.is_rerun() && namespace.starts_with(FORGOTTEN)
    }

    /// The cloud ids of a namespace's keys. An error says that they can't be read now, so that nothing is called missing that isn't.
    pub(crate) async fn of(
        &self,
        namespace: &str,
        lifecycle: &Lifecycle,
        transfer: &Transfer,
    ) -> Result<Option<&HashMap<String, String>>, Tracking> {
        let all = self.0.get_or_try_init(|| read(lifecycle, transfer)).await?;
        Ok(all.get(namespace))
    }
}

/// Reads what the attempts before this one used, the newest last; at most as many entries as the cache of mappings holds.
async fn read(
    lifecycle: &Lifecycle,
    transfer: &Transfer,
) -> Result<HashMap<String, HashMap<String, String>>, Tracking> {
    let (store, tenant) = (lifecycle.store(), &transfer.tenant);
    let mut room = lifecycle
        .configuration()
        .import
        .limits
        .mapping_cache_entries;
    let mut all: HashMap<String, HashMap<String, String>> = HashMap::new();
    for attempt in store.attempts(tenant, &transfer.chain()).await? {
        if attempt.transfer == transfer.id {
            continue;
        }
        let mut after = None;
        loop {
            let page = store
                .kept_mappings(tenant, &attempt.transfer, after)
                .await?;
            for packed in page.pieces {
                match UsedMappings::unpack(&packed) {
                    Ok(used) => add(&mut all, used, &mut room),
                    Err(error) => {
                        tracing::warn!(transfer.id = %attempt.transfer, error = %error, "Some mappings of an earlier attempt can't be used.");
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    if room == 0 {
        tracing::warn!(transfer.id = %transfer.id, "Earlier attempts used more mappings of users and groups than limits.mapping_cache_entries; the rest is not looked at.");
    }
    Ok(all)
}

fn add(all: &mut HashMap<String, HashMap<String, String>>, used: UsedMappings, room: &mut usize) {
    for (namespace, mappings) in used.mappings {
        if !namespace.starts_with(FORGOTTEN) {
            continue;
        }
        let known = all.entry(namespace).or_default();
        for (key, cloud_id) in mappings {
            let Some(cloud_id) = cloud_id else { continue };
            if let Some(known) = known.get_mut(&key) {
                *known = cloud_id;
            } else if *room > 0 {
                *room -= 1;
                known.insert(key, cloud_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn used(namespace: &str, mappings: &[(&str, Option<&str>)]) -> UsedMappings {
        let owned = |(key, id): &(&str, Option<&str>)| ((*key).to_owned(), id.map(str::to_owned));
        let mut used = UsedMappings::default();
        let mappings: BTreeMap<_, _> = mappings.iter().map(owned).collect();
        used.mappings.insert(namespace.to_owned(), mappings);
        used
    }

    #[test]
    fn of_users_and_groups_the_newest_cloud_id_counts_and_a_miss_hides_none() {
        let (mut all, mut room) = (HashMap::new(), 10);
        add(
            &mut all,
            used(
                "identity:user",
                &[("a", Some("1")), ("b", Some("2")), ("c", None)],
            ),
            &mut room,
        );
        add(
            &mut all,
            used("jira:issue", &[("7", Some("70"))]),
            &mut room,
        );
        add(
            &mut all,
            used("identity:user", &[("a", None), ("b", Some("3"))]),
            &mut room,
        );
        let users = HashMap::from(
            [("a", "1"), ("b", "3")].map(|(key, id)| (key.to_owned(), id.to_owned())),
        );
        assert_eq!(all, HashMap::from([("identity:user".to_owned(), users)]));
        assert_eq!(room, 8);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (mut all, mut room) = (HashMap::new(), 1);
        add(
            &mut all,
            used("identity:user", &[("a", Some("1")), ("b", Some("2"))]),
            &mut room,
        );
        assert_eq!((all["identity:user"].len(), room), (1, 0));
    }
}
