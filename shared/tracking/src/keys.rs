use landfall_transfer::{ChainId, TenantId, TransferId};

use crate::table::Key;

/// Sort key of the one row that holds a transfer's or a tenant's state.
pub(crate) const STATE: &str = "STATE";
pub(crate) const FILE: &str = "FILE#";
pub(crate) const EVENT: &str = "EVENT#";
pub(crate) const ATTEMPT: &str = "ATTEMPT#";
pub(crate) const LOG: &str = "LOG#";
pub(crate) const EXCEPTION: &str = "EXCEPTION#";
/// One row for each file of which the exceptions of the second pass count.
pub(crate) const RECOUNTED: &str = "RECOUNTED#";
pub(crate) const MAPPINGS: &str = "MAPPINGS#";
const RESTART: &str = "RESTART#";

/// Number of partitions of the sparse index. A sweep asks each; what is due spreads over them.
pub(crate) const DUE_SHARDS: u64 = 4;

/// A part of a key, with the separator escaped: no tenant can write itself into another's partition.
pub(crate) fn part(text: &str) -> String {
    text.replace('%', "%25").replace('#', "%23")
}

/// What [`part`] made of a text, as it was.
fn whole(part: &str) -> String {
    part.replace("%23", "#").replace("%25", "%")
}

pub(crate) fn transfer(tenant: &TenantId, id: &TransferId) -> String {
    format!("TRANSFER#{}#{}", part(tenant.as_str()), part(id.as_str()))
}

pub(crate) fn tenant(tenant: &TenantId) -> String {
    format!("TENANT#{}", part(tenant.as_str()))
}

pub(crate) fn chain(tenant: &TenantId, chain: &ChainId) -> String {
    format!("CHAIN#{}#{}", part(tenant.as_str()), part(chain.as_str()))
}

/// The row of a transfer's state.
pub(crate) fn transfer_state(tenant: &TenantId, id: &TransferId) -> Key {
    Key::new(transfer(tenant, id), STATE)
}

/// The row of a tenant's state.
pub(crate) fn tenant_state(id: &TenantId) -> Key {
    Key::new(tenant(id), STATE)
}

/// The row of the pace at which a tenant's site is called. Not the tenant's own row: it is written often, and whoever writes it needs no secret.
pub(crate) fn pace(id: &TenantId) -> Key {
    Key::new(tenant(id), "PACE")
}

/// The row of an installation's newest token on Forge. Not the tenant's own row: it is written with many an event.
pub(crate) fn token(id: &TenantId) -> Key {
    Key::new(tenant(id), "TOKEN")
}

/// The row of a file.
pub(crate) fn file(tenant: &TenantId, id: &TransferId, s3_key: &str) -> Key {
    Key::new(transfer(tenant, id), format!("{FILE}{}", part(s3_key)))
}

/// Whose file a row is, its transfer and the platform's key for it. None for another kind of row.
pub(crate) fn read_file(key: &Key) -> Option<(TenantId, TransferId, String)> {
    let (tenant, id) = key.partition.strip_prefix("TRANSFER#")?.split_once('#')?;
    let s3_key = key.sort.strip_prefix(FILE)?;
    Some((
        TenantId::new(whole(tenant)),
        TransferId::new(whole(id)),
        whole(s3_key),
    ))
}

/// The row that says that a file's exceptions are those of its second pass.
pub(crate) fn recounted(tenant: &TenantId, id: &TransferId, s3_key: &str) -> Key {
    Key::new(transfer(tenant, id), format!("{RECOUNTED}{}", part(s3_key)))
}

/// The row of the place where a compressed file can be entered again.
pub(crate) fn restart_point(tenant: &TenantId, id: &TransferId, s3_key: &str) -> Key {
    Key::new(transfer(tenant, id), format!("{RESTART}{}", part(s3_key)))
}

/// The row of some of the mappings that a transfer used; `place` tells the pieces of one file apart.
pub(crate) fn mappings(tenant: &TenantId, id: &TransferId, s3_key: &str, place: &str) -> Key {
    let sort = format!("{MAPPINGS}{}#{place}", part(s3_key));
    Key::new(transfer(tenant, id), sort)
}

pub(crate) fn event(message_id: &str) -> String {
    format!("{EVENT}{}", part(message_id))
}

/// The partition of the sparse index in which a row is found, spread by its own key.
pub(crate) fn due_shard(key: &Key) -> String {
    let hash = key
        .partition
        .bytes()
        .chain(key.sort.bytes())
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
    format!("DUE#{}", (hash >> 32) % DUE_SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_always_found_in_the_same_partition_of_the_index() {
        // Another spreading would hide what is stored already: these may never change.
        let shard = |name: &str| due_shard(&Key::new(format!("TRANSFER#t#{name}"), STATE));
        let shards = ["a", "b", "c", "d", "e", "f", "g", "h"].map(shard);
        assert_eq!(shards, SHARDS_OF_A_TO_H);
    }

    const SHARDS_OF_A_TO_H: [&str; 8] = [
        "DUE#1", "DUE#2", "DUE#0", "DUE#2", "DUE#3", "DUE#3", "DUE#1", "DUE#2",
    ];

    #[test]
    fn a_files_key_says_whose_it_is_whatever_stands_in_it() {
        for odd in ["plain", "a#b", "%23", "#%", "%2523#", ""] {
            let (tenant, id) = (TenantId::new(odd), TransferId::new(odd));
            let key = file(&tenant, &id, odd);
            assert_eq!(
                read_file(&key),
                Some((tenant.clone(), id.clone(), odd.to_owned()))
            );
            assert_eq!(read_file(&transfer_state(&tenant, &id)), None);
        }
    }

    #[test]
    fn a_tenant_with_a_separator_in_its_name_stays_in_its_own_partition() {
        let sly = transfer(&TenantId::new("a#b"), &TransferId::new("c"));
        let honest = transfer(&TenantId::new("a"), &TransferId::new("b#c"));
        assert_ne!(sly, honest);
    }
}
