use landfall_tracking::{
    Claim, Commit, Error, FileState, Landed, LandedTarget, Lease, RecordKey, Recorded, Rejected,
    Store,
};
use landfall_transfer::{Clocks, Counts, FileOutcome, Input, StopReason};
use std::time::Duration;

use landfall_embedded::store;

use crate::table::{LEASE, NOW, claim, claimed, id, later, open_transfer, tenant, upload};

fn batch(applied: u64, keys: &[&str]) -> Commit {
    Commit {
        checkpoint: format!("{{\"records\":{applied}}}"),
        counts: Counts {
            read: applied,
            applied,
            ..Counts::default()
        },
        target: LandedTarget::Records,
        landed: keys
            .iter()
            .map(|key| Landed {
                key: RecordKey {
                    label: "issues".to_owned(),
                    key: (*key).to_owned(),
                },
                content_hash: format!("hash of {key}"),
                record: Some("{}".to_owned()),
            })
            .collect(),
        rejected: Vec::new(),
        leased_until: later(90),
    }
}

async fn prepared() -> Store {
    let store = store().await;
    open_transfer(&store).await;
    store
        .announce(&upload("k"), Duration::from_mins(2))
        .await
        .unwrap();
    store
}

async fn arrived(store: &Store, lease: &Lease, keys: &[&str]) -> usize {
    let keys: Vec<RecordKey> = keys
        .iter()
        .map(|key| RecordKey {
            label: "issues".to_owned(),
            key: (*key).to_owned(),
        })
        .collect();
    store
        .known_records(LandedTarget::Records, &tenant(), lease.chain(), &keys)
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn an_upload_that_is_announced_twice_is_one_file() {
    let store = prepared().await;
    assert_eq!(
        store.announce(&upload("k"), Duration::ZERO).await.unwrap(),
        Recorded::Duplicate
    );
}

#[tokio::test]
async fn of_two_workers_one_takes_the_file_and_it_is_counted_once() {
    let store = prepared().await;
    let (one, other) = tokio::join!(claim(&store, "k", "a", NOW), claim(&store, "k", "b", NOW));
    let won = [&one, &other]
        .iter()
        .filter(|claim| matches!(claim, Claim::Claimed(_)))
        .count();
    assert_eq!(won, 1, "{one:?} {other:?}");
    let transfer = store
        .transfer(&tenant(), &id())
        .await
        .unwrap()
        .unwrap()
        .transfer;
    assert_eq!(transfer.work.files_known, 1);
}

#[tokio::test]
async fn a_file_is_taken_over_only_when_its_lease_has_run_out() {
    let store = prepared().await;
    let first = claimed(&store, "k", "a", NOW).await;
    assert!(
        matches!(claim(&store, "k", "b", later(89)).await, Claim::Held(until) if until == NOW + LEASE)
    );
    let second = claimed(&store, "k", "b", later(90)).await;
    assert!(second.lease.fence() > first.lease.fence());
    assert_eq!(second.file.attempts, 2);
}

#[tokio::test]
async fn a_worker_that_was_taken_over_commits_nothing() {
    let store = prepared().await;
    let late = claimed(&store, "k", "a", NOW).await;
    let current = claimed(&store, "k", "b", later(90)).await;
    assert!(matches!(
        store.commit(&late.lease, &batch(1, &["x"]), NOW).await,
        Err(Error::Conflict)
    ));
    assert_eq!(arrived(&store, &late.lease, &["x"]).await, 0);
    store
        .commit(&current.lease, &batch(1, &["y"]), NOW)
        .await
        .unwrap();
    assert_eq!(arrived(&store, &current.lease, &["x", "y"]).await, 1);
}

#[tokio::test]
async fn a_batch_moves_records_exceptions_and_checkpoint_together() {
    let store = prepared().await;
    let taken = claimed(&store, "k", "a", NOW).await;
    let mut commit = batch(2, &["x", "y"]);
    commit.rejected.push(Rejected {
        record_number: 3,
        outcome: "rejected",
        key: None,
        namespace: Some("identity:user".to_owned()),
        reason: "no mapping".to_owned(),
    });
    store.commit(&taken.lease, &commit, NOW).await.unwrap();
    let file = store.file(&tenant(), &id(), "k").await.unwrap().unwrap();
    assert_eq!(
        (
            file.counts.applied,
            file.checkpoint.as_deref(),
            file.attempts
        ),
        (2, Some("{\"records\":2}"), 0)
    );
    assert_eq!(arrived(&store, &taken.lease, &["x", "y"]).await, 2);
}

#[tokio::test]
async fn a_file_ends_once_and_is_counted_once() {
    let store = prepared().await;
    let taken = claimed(&store, "k", "a", NOW).await;
    let counts = Counts {
        read: 2,
        applied: 2,
        ..Counts::default()
    };
    let clocks = Clocks::default();
    let end = || {
        store.end(
            &taken.lease,
            &FileOutcome::Imported,
            counts,
            None,
            NOW,
            &clocks,
        )
    };
    let (one, other) = tokio::join!(end(), end());
    assert_eq!([one.unwrap(), other.unwrap()].iter().flatten().count(), 1);
    let transfer = store
        .transfer(&tenant(), &id())
        .await
        .unwrap()
        .unwrap()
        .transfer;
    assert_eq!(
        (transfer.work.files_ended, transfer.work.counts),
        (1, counts)
    );
    assert!(matches!(
        claim(&store, "k", "b", later(500)).await,
        Claim::Ended
    ));
}

#[tokio::test]
async fn files_that_end_at_once_are_all_counted() {
    let store = store().await;
    open_transfer(&store).await;
    let mut taken = Vec::new();
    for number in 0..8 {
        let key = format!("k-{number}");
        store.announce(&upload(&key), Duration::ZERO).await.unwrap();
        taken.push(claimed(&store, &key, "a", NOW).await);
    }
    let clocks = Clocks::default();
    let counts = Counts {
        read: 1,
        applied: 1,
        ..Counts::default()
    };
    let ends = taken.iter().map(|taken| {
        store.end(
            &taken.lease,
            &FileOutcome::Imported,
            counts,
            None,
            NOW,
            &clocks,
        )
    });
    for ended in futures_util::future::join_all(ends).await {
        assert!(ended.unwrap().is_some());
    }
    let transfer = store
        .transfer(&tenant(), &id())
        .await
        .unwrap()
        .unwrap()
        .transfer;
    assert_eq!(
        (transfer.work.files_ended, transfer.work.counts.applied),
        (8, 8)
    );
}

#[tokio::test]
async fn after_a_transfer_is_stopped_and_fenced_nothing_is_written_for_it() {
    let store = prepared().await;
    let taken = claimed(&store, "k", "a", NOW).await;
    store
        .commit(&taken.lease, &batch(1, &["x"]), NOW)
        .await
        .unwrap();
    let clocks = Clocks::default();
    let stored = store.transfer(&tenant(), &id()).await.unwrap().unwrap();
    let mut stopped = stored.transfer.clone();
    stopped.apply(Input::Stop(StopReason::Cancelled), later(1), &clocks);
    store.save(&stored, stopped, &clocks).await.unwrap();
    let (totals, leased_until) = store.fence_files(&tenant(), &id(), later(1)).await.unwrap();
    assert_eq!(
        (totals.known, totals.ended, totals.counts.applied),
        (1, 0, 1)
    );
    assert_eq!(
        leased_until,
        Some(later(90)),
        "its worker may still deliver to a partner's service"
    );

    assert!(matches!(
        store.commit(&taken.lease, &batch(2, &["z"]), NOW).await,
        Err(Error::Conflict)
    ));
    assert!(
        store
            .end(
                &taken.lease,
                &FileOutcome::Imported,
                Counts::default(),
                None,
                NOW,
                &clocks
            )
            .await
            .unwrap()
            .is_none()
    );
    assert!(matches!(
        store.release(&taken.lease, NOW, true).await,
        Err(Error::Conflict)
    ));
    assert!(matches!(
        claim(&store, "k", "b", later(500)).await,
        Claim::Over
    ));
    assert_eq!(arrived(&store, &taken.lease, &["z"]).await, 0);

    store.stopped(&taken.lease).await.unwrap();
    let (again, leased_until) = store.fence_files(&tenant(), &id(), later(2)).await.unwrap();
    assert_eq!((again, leased_until), (totals, None));
    assert_eq!(
        store
            .file(&tenant(), &id(), "k")
            .await
            .unwrap()
            .unwrap()
            .state,
        FileState::Fenced
    );
}

#[tokio::test]
async fn a_file_given_back_in_order_is_taken_up_again_without_an_attempt_counted() {
    let store = prepared().await;
    let taken = claimed(&store, "k", "a", NOW).await;
    store.release(&taken.lease, later(10), true).await.unwrap();
    assert_eq!(claimed(&store, "k", "b", later(1)).await.file.attempts, 1);
}
