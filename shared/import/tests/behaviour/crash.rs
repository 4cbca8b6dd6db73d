//! A worker killed, or left without an answer, at every commit: each record lands exactly once.

use bytes::Bytes;
use landfall_import::ports::RestartPoint;
use proptest::prelude::*;

use crate::world::{
    CommitFault, Fault, MemorySink, World, applied, array, cut, gzip, keys, lines, numbered,
};

#[tokio::test]
async fn a_crash_at_any_commit_loses_no_record_and_lands_none_twice() {
    for (label, bytes) in [
        ("a.ndjson", lines(22).into_bytes()),
        ("a.json", array(22).into_bytes()),
        ("a.json.gz", gzip(&array(22), 2)),
    ] {
        for commit in 0..7 {
            for fault in CommitFault::PASSING {
                let world = World::new(label, bytes.clone());
                world.commit_fault(commit, fault);
                assert_eq!(
                    world.finish().await,
                    (applied(22), None),
                    "{label} {commit} {fault:?}"
                );
                assert_eq!(world.landed(), keys(22), "{label} {commit} {fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_crash_between_delivery_and_commit_repeats_the_batch_under_its_idempotency_key() {
    for commit in 0..6 {
        for fault in CommitFault::PASSING {
            let mut world = World::new("a.ndjson", lines(22));
            world.sink = Some(MemorySink::default());
            world.commit_fault(commit, fault);
            assert_eq!(
                world.finish().await,
                (applied(22), None),
                "{commit} {fault:?}"
            );
            assert_eq!(world.landed(), keys(22), "{commit} {fault:?}");
            let sink = world.sink.as_ref().unwrap();
            let applied = sink.applied.lock().unwrap();
            assert!(
                applied.len() == 22 && applied.values().all(|times| *times == 1),
                "{commit} {fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_fence_writes_nothing_more() {
    let world = World::new("a.ndjson", lines(22));
    world.commit_fault(2, CommitFault::FenceLost);
    assert!(matches!(
        world.slice().await,
        Some(landfall_import::SliceOutcome::FenceLost)
    ));
    assert_eq!(world.landed(), keys(8));
    assert_eq!(
        world
            .ledger
            .attempted
            .load(std::sync::atomic::Ordering::Relaxed),
        3,
        "nothing after the loss"
    );
}

#[tokio::test]
async fn a_worker_that_was_overtaken_does_not_reach_the_sink_either() {
    let mut world = World::new("a.ndjson", lines(22));
    world.sink = Some(MemorySink::default());
    world
        .ledger
        .overtaken
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(
        world.slice().await,
        Some(landfall_import::SliceOutcome::FenceLost)
    ));
    assert!(world.sink.unwrap().deliveries.lock().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_run_of_crashes_and_cuts_ends_as_one_clean_run(
        count in 0_usize..60,
        is_array in any::<bool>(),
        packed in any::<bool>(),
        ranges in any::<bool>(),
        hurried in any::<bool>(),
        outside in any::<bool>(),
        chunk in 1_usize..200,
        commits in prop::collection::vec((0_usize..30, 0_usize..CommitFault::PASSING.len()), 0..8),
        cuts in prop::collection::vec(0_usize..900, 0..8),
    ) {
        let text = if is_array { array(count) } else { lines(count) };
        // An array without elements is no array of empty records.
        let text = if count == 0 && is_array { "[]".to_owned() } else { text };
        let bytes = if packed { gzip(&text, 2) } else { text.into_bytes() };
        let mut world = World::new("a", bytes);
        (world.store.ranges, world.store.chunk, world.hurried) = (ranges, chunk, hurried);
        world.sink = outside.then(MemorySink::default);
        for (commit, fault) in commits {
            world.commit_fault(commit, CommitFault::PASSING[fault]);
        }
        world.store_faults(cuts.into_iter().map(|after| Fault::After(after, cut())));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = runtime.block_on(world.finish());
        prop_assert_eq!(ended, (applied(count as u64), None));
        prop_assert_eq!(world.landed(), keys(count));
        if let Some(sink) = &world.sink {
            prop_assert!(sink.applied.lock().unwrap().values().all(|times| *times == 1));
        }
    }
}

/// Some 10 MB of records, so that there are several places to enter the file at.
fn large() -> World {
    let text = numbered(100, |id| {
        let filling = numbered(20_000, |n| format!("{:x} ", (n * 7919 + id * 31) % 9973));
        format!("{{\"id\":{id},\"text\":\"{filling}\"}}\n")
    });
    let mut world = World::new("a.ndjson.gz", gzip(&text, 1));
    world.limits.record_bytes = 200_000;
    world.limits.batch_records = 10;
    world.limits.batch_bytes = 2_000_000;
    world.store.chunk = 65_536;
    world.hurried = true;
    world
}

#[tokio::test]
async fn a_slice_enters_a_gzip_file_near_where_the_one_before_stopped() {
    let world = large();
    assert_eq!(world.finish().await, (applied(100), None));
    let opened_at = world.store.opened_at.lock().unwrap().clone();
    assert!(opened_at.is_sorted(), "{opened_at:?}");
    let bytes = world.store.bytes.len() as u64;
    assert!(
        opened_at.last().unwrap() * 2 > bytes,
        "{opened_at:?} of {bytes}"
    );
}

#[tokio::test]
async fn without_a_restart_point_or_with_one_that_is_of_no_use_it_comes_to_the_same() {
    for spoil in [
        (|_| None) as fn(RestartPoint) -> Option<RestartPoint>,
        |point| {
            Some(RestartPoint {
                state: "{}".to_owned(),
                ..point
            })
        },
        |point| {
            Some(RestartPoint {
                window: Bytes::from_static(b"?"),
                ..point
            })
        },
    ] {
        let world = large();
        while world.ledger.stored.lock().unwrap().restart.is_none() {
            world.slice().await;
        }
        {
            let mut stored = world.ledger.stored.lock().unwrap();
            stored.restart = stored.restart.take().and_then(spoil);
        }
        assert_eq!(world.finish().await, (applied(100), None));
    }
}
