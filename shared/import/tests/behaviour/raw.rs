//! Files that are passed through as they are.

use std::collections::BTreeMap;

use std::time::Duration;

use bytes::Bytes;
use landfall_import::declaration::Format;
use landfall_import::ports::{SinkError, SinkOutcome, SourceError};
use landfall_import::{Counts, FileProblem, SliceOutcome};

use crate::world::{
    CommitFault, Fault, MemorySink, PIECE, World, applied, cut, gzip, interruption,
};

fn raw(bytes: impl Into<Bytes>) -> World {
    let mut world = World::new("logo.png", bytes);
    world.import.format = Format::Raw;
    world.import.natural_key = None;
    world.sink = Some(MemorySink::default());
    world
}

/// No two bytes in a row, and no two pieces, are the same.
fn content(length: usize) -> Bytes {
    (0..251).cycle().take(length).collect::<Vec<u8>>().into()
}

fn sink(world: &World) -> &MemorySink {
    world.sink.as_ref().unwrap()
}

fn arrived(world: &World) -> Option<Bytes> {
    sink(world).files.lock().unwrap().get("logo.png").cloned()
}

fn offsets(world: &World) -> Vec<u64> {
    let pieces = sink(world).pieces.lock().unwrap();
    pieces.iter().map(|(offset, _)| *offset).collect()
}

#[tokio::test]
async fn a_raw_file_arrives_byte_by_byte_and_is_one_record_whatever_it_looks_like() {
    let mut files: Vec<Bytes> = vec![
        gzip("a text that is compressed, and stays so", 1).into(),
        Bytes::from_static(b"\xef\xbb\xbf[1,2"),
        Bytes::from_static(b"{\"id\":1}\n\n{"),
    ];
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5] {
        files.push(content(length));
    }
    for bytes in files {
        for chunk in [1, 16, PIECE, 1000] {
            let mut world = raw(bytes.clone());
            world.store.chunk = chunk;
            assert_eq!(world.finish().await, (applied(1), None));
            assert_eq!(arrived(&world).unwrap(), bytes);
            let pieces = bytes.len().div_ceil(PIECE).max(1);
            assert_eq!(offsets(&world).len(), pieces, "cut by the file alone");
            assert_eq!(world.landed(), ["file"]);
            assert_eq!(*sink(&world).finished.lock().unwrap(), [true]);
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_commit_changes_nothing_and_costs_one_piece() {
    let bytes = content(4 * PIECE + 3);
    for fault in CommitFault::PASSING {
        for commit in 0..5 {
            let world = raw(bytes.clone());
            world.commit_fault(commit, fault);
            assert_eq!(
                world.finish().await,
                (applied(1), None),
                "{fault:?} {commit}"
            );
            assert_eq!(arrived(&world).unwrap(), bytes);
            assert!(offsets(&world).len() <= 6, "{fault:?} {commit}");
            assert_eq!(world.landed(), ["file"]);
        }
    }
}

#[tokio::test]
async fn every_slice_goes_on_at_the_byte_where_the_last_one_stopped() {
    let bytes = content(3 * PIECE + 1);
    let mut world = raw(bytes.clone());
    world.hurried = true;
    assert_eq!(world.finish().await, (applied(1), None));
    let piece = PIECE as u64;
    assert_eq!(
        *world.store.opened_at.lock().unwrap(),
        [0, piece, 2 * piece, 3 * piece]
    );
    assert_eq!(arrived(&world).unwrap(), bytes);
}

#[tokio::test]
async fn a_cut_connection_an_expired_url_and_a_store_without_ranges_are_no_matter() {
    let bytes = content(3 * PIECE + 1);
    for ranges in [true, false] {
        let mut world = raw(bytes.clone());
        world.store.ranges = ranges;
        world.store_faults([
            Fault::Open(SourceError::Expired),
            Fault::After(PIECE + 10, cut()),
            Fault::EndsAfter(PIECE * 2),
        ]);
        assert_eq!(world.finish().await, (applied(1), None));
        assert_eq!(arrived(&world).unwrap(), bytes);
    }
}

/// The file begins again, in the next attempt of its chain.
fn begin_next_attempt(world: &World) {
    let mut stored = world.ledger.stored.lock().unwrap();
    stored.checkpoint = None;
    stored.attempts.push(BTreeMap::new());
}

#[tokio::test]
async fn a_rerun_hands_over_only_what_the_chain_does_not_have_so() {
    let mut world = raw(content(3 * PIECE + 1));
    assert_eq!(world.finish().await, (applied(1), None));
    let unchanged = Counts {
        read: 1,
        unchanged: 1,
        ..Counts::default()
    };
    world.rerun = true;
    for hurried in [false, true] {
        world.hurried = hurried;
        begin_next_attempt(&world);
        sink(&world).pieces.lock().unwrap().clear();
        assert_eq!(world.finish().await, (unchanged, None));
        assert_eq!(offsets(&world), [0; 0], "nothing is handed over");
    }
    let mut changed = content(3 * PIECE + 1).to_vec();
    *changed.last_mut().unwrap() ^= 1;
    world.store.bytes = changed.clone().into();
    begin_next_attempt(&world);
    assert_eq!(world.finish().await, (applied(1), None));
    assert_eq!(arrived(&world).unwrap(), changed);
}

#[tokio::test]
async fn a_comparison_goes_on_where_a_crash_left_it() {
    let bytes = content(5 * PIECE);
    let mut world = raw(bytes.clone());
    world.finish().await;
    (world.rerun, world.hurried) = (true, true);
    begin_next_attempt(&world);
    sink(&world).pieces.lock().unwrap().clear();
    world.commit_fault(7, CommitFault::KillAfter);
    world.commit_fault(8, CommitFault::UnknownNotWritten);
    world.store.opened_at.lock().unwrap().clear();
    let (counts, problem) = world.finish().await;
    assert_eq!((counts.unchanged, problem), (1, None));
    let piece = PIECE as u64;
    let opened = world.store.opened_at.lock().unwrap().clone();
    assert_eq!(
        opened,
        [0, piece, 2 * piece, 3 * piece, 3 * piece, 4 * piece]
    );
    assert_eq!(offsets(&world), [0; 0]);
}

#[tokio::test]
async fn what_the_chain_knew_may_be_gone_in_the_middle_of_a_comparison() {
    let bytes = content(3 * PIECE);
    let mut world = raw(bytes.clone());
    world.finish().await;
    (world.rerun, world.hurried) = (true, true);
    begin_next_attempt(&world);
    assert!(matches!(
        world.slice().await,
        Some(SliceOutcome::Continue(_))
    ));
    world.ledger.stored.lock().unwrap().attempts[0].clear();
    assert_eq!(world.finish().await, (applied(1), None));
    assert_eq!(arrived(&world).unwrap(), bytes);
}

#[tokio::test]
async fn a_piece_that_is_not_taken_is_the_end_of_the_whole_file() {
    fn judge(number: &str) -> SinkOutcome {
        match number {
            "1" => SinkOutcome::Rejected {
                reason: "too large for us".to_owned(),
            },
            _ => SinkOutcome::Applied,
        }
    }
    let mut world = raw(content(3 * PIECE));
    world.sink.as_mut().unwrap().answer = Some(judge);
    let rejected = Counts {
        read: 1,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (rejected, None));
    assert_eq!(world.rejections(), ["1 file rejected: too large for us"]);
    assert_eq!(offsets(&world).len(), 2);
    assert_eq!(world.landed(), [""; 0]);
}

#[tokio::test]
async fn a_file_that_ends_early_counts_for_nothing() {
    let mut too_large = raw(content(3 * PIECE));
    too_large.limits.file_bytes = 2 * PIECE as u64;
    let max = too_large.limits.file_bytes;
    assert_eq!(
        too_large.finish().await,
        (Counts::default(), Some(FileProblem::TooLarge { max }))
    );
    assert_eq!(*sink(&too_large).finished.lock().unwrap(), [false]);

    let mut shrunk = raw(content(3 * PIECE));
    shrunk.hurried = true;
    shrunk.store.tells_length = false;
    shrunk.slice().await;
    shrunk.store.bytes = content(PIECE);
    let offset = PIECE as u64;
    assert_eq!(
        shrunk.finish().await,
        (Counts::default(), Some(FileProblem::Shrunk { offset }))
    );

    let refused = raw(content(3 * PIECE));
    let reason = "no".to_owned();
    let error = SinkError::Refused {
        reason: reason.clone(),
    };
    sink(&refused).errors.lock().unwrap().push_back(error);
    assert_eq!(
        refused.finish().await,
        (Counts::default(), Some(FileProblem::SinkRefused { reason }))
    );
}

#[tokio::test]
async fn a_sink_that_is_away_interrupts_and_a_lost_fence_stops_before_it() {
    let world = raw(content(2 * PIECE));
    let error = SinkError::Unavailable {
        reason: "down".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
    };
    sink(&world).errors.lock().unwrap().push_back(error);
    assert_eq!(
        interruption(world.slice().await),
        (
            "the sink is not available: down".to_owned(),
            Some(Duration::from_secs(7))
        )
    );
    let delivered = offsets(&world).len();
    world
        .ledger
        .overtaken
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(world.slice().await, Some(SliceOutcome::FenceLost)));
    assert_eq!(offsets(&world).len(), delivered);
}

#[tokio::test]
async fn the_records_table_takes_no_raw_file() {
    let mut world = raw(content(3));
    world.sink = None;
    let reason = "the records table takes no raw files".to_owned();
    assert_eq!(
        world.finish().await,
        (Counts::default(), Some(FileProblem::SinkRefused { reason }))
    );
}
