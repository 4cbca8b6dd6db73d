//! What the tests have in common: one tenant, one transfer, and how a file of it is taken up.

use std::time::Duration;

use landfall_tracking::{Claim, Claimed, NewFile, Store};
use landfall_transfer::{Clocks, TenantId, Timestamp, Transfer, TransferId};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);
pub(crate) const LEASE: Duration = Duration::from_secs(90);

pub(crate) fn tenant() -> TenantId {
    TenantId::new("tenant")
}

pub(crate) fn id() -> TransferId {
    TransferId::new("transfer-1")
}

pub(crate) fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

pub(crate) async fn open_transfer(store: &Store) -> landfall_tracking::Stored {
    let transfer = Transfer::first_seen(tenant(), id(), None, None, NOW);
    store.create(&transfer, &Clocks::default()).await.unwrap()
}

pub(crate) fn upload(s3_key: &str) -> NewFile {
    NewFile {
        tenant: tenant(),
        transfer: id(),
        s3_key: s3_key.to_owned(),
        label: Some("issues.ndjson".to_owned()),
        event: Some("{}".to_owned()),
        message_id: None,
        received_at: NOW,
    }
}

pub(crate) async fn claim(store: &Store, s3_key: &str, owner: &str, now: Timestamp) -> Claim {
    store
        .claim(
            &tenant(),
            &id(),
            s3_key,
            owner,
            LEASE,
            now,
            &Clocks::default(),
        )
        .await
        .unwrap()
}

pub(crate) async fn claimed(store: &Store, s3_key: &str, owner: &str, now: Timestamp) -> Claimed {
    match claim(store, s3_key, owner, now).await {
        Claim::Claimed(claimed) => *claimed,
        other => panic!("not claimed: {other:?}"),
    }
}
