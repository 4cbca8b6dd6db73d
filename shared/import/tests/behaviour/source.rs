//! Stores that expire, break off, start too early or go away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_import::FileProblem;
use landfall_import::ports::SourceError;

use crate::world::{Fault, World, applied, array, cut, gzip, interruption, keys, lines};

fn inputs() -> [(&'static str, Vec<u8>); 3] {
    [
        ("a.ndjson", lines(50).into_bytes()),
        ("a.json", array(50).into_bytes()),
        ("a.ndjson.gz", gzip(&lines(50), 2)),
    ]
}

#[tokio::test]
async fn expiry_and_cuts_in_mid_file_are_resumed_at_the_byte() {
    for (label, bytes) in inputs() {
        let world = World::new(label, bytes.clone());
        world.store_faults([
            Fault::Open(SourceError::Expired),
            Fault::After(33, SourceError::Expired),
            Fault::After(1, cut()),
            Fault::EndsAfter(40),
            Fault::After(0, cut()),
            Fault::After(57, cut()),
        ]);
        assert_eq!(world.finish().await, (applied(50), None), "{label}");
        assert_eq!(world.landed(), keys(50), "{label}");
        assert_eq!(
            world.store.given.load(Ordering::Relaxed),
            bytes.len(),
            "{label}: no byte is read twice"
        );
        assert_eq!(
            *world.store.opened_at.lock().unwrap(),
            [0, 0, 33, 34, 74, 74, 131],
            "{label}"
        );
    }
}

#[tokio::test]
async fn a_store_without_ranges_is_read_from_its_start_and_skipped() {
    for (label, bytes) in inputs() {
        let mut world = World::new(label, bytes);
        (world.store.ranges, world.store.tells_length) = (false, false);
        world.hurried = true;
        world.store_faults([Fault::After(90, cut())]);
        assert_eq!(world.finish().await, (applied(50), None), "{label}");
        assert_eq!(world.landed(), keys(50), "{label}");
    }
}

#[tokio::test]
async fn a_plain_file_is_resumed_by_range_and_a_compressed_one_from_its_start() {
    for (label, bytes) in inputs() {
        let plain = label != "a.ndjson.gz";
        let mut world = World::new(label, bytes.clone());
        (world.hurried, world.store.chunk) = (true, bytes.len());
        assert_eq!(world.finish().await, (applied(50), None), "{label}");
        assert_eq!(world.landed(), keys(50), "{label}");
        let opened_at = world.store.opened_at.lock().unwrap().clone();
        assert!(opened_at.len() > 10);
        assert!(
            opened_at[1..].iter().all(|at| (*at > 0) == plain),
            "{label} {opened_at:?}"
        );
    }
}

#[tokio::test]
async fn without_progress_the_slice_ends_and_a_later_one_goes_on() {
    let world = World::new("a.ndjson", lines(50));
    world.store_faults([Fault::After(300, cut())]);
    world.store_faults(std::iter::repeat_n(Fault::After(0, cut()), 4));
    world.store_faults([Fault::Open(SourceError::Expired)]);
    let (reason, retry_after) = interruption(world.slice().await);
    assert_eq!(
        (reason.as_str(), retry_after),
        ("the signed URL has expired", None)
    );
    assert!(world.landed().len() < 50);
    assert_eq!(world.finish().await, (applied(50), None));
    assert_eq!(world.landed(), keys(50));
}

#[tokio::test]
async fn a_store_that_asks_to_wait_ends_the_slice_with_the_time_to_wait() {
    let world = World::new("a.ndjson", lines(5));
    let retry_after = Some(Duration::from_secs(9));
    world.store_faults([
        Fault::Open(SourceError::Throttled { retry_after }),
        Fault::Open(SourceError::Failed {
            reason: "503".to_owned(),
        }),
    ]);
    assert_eq!(
        interruption(world.slice().await),
        ("the store asks to slow down".to_owned(), retry_after)
    );
    assert_eq!(
        interruption(world.slice().await),
        ("the file can't be opened: 503".to_owned(), None)
    );
    assert_eq!(world.finish().await, (applied(5), None));
}

#[tokio::test]
async fn a_file_that_goes_away_keeps_what_was_read_and_ends() {
    let gone = SourceError::Gone {
        reason: "404".to_owned(),
    };
    let problem = Some(FileProblem::SourceGone {
        reason: "404".to_owned(),
    });
    let world = World::new("a.ndjson", lines(50));
    world.store_faults([
        Fault::After(lines(6).len(), cut()),
        Fault::Open(gone.clone()),
    ]);
    assert_eq!(world.finish().await, (applied(6), problem.clone()));
    assert_eq!(world.landed(), keys(6));

    let world = World::new("a.ndjson", lines(50));
    world.store_faults([Fault::Open(gone)]);
    assert_eq!(world.finish().await, (applied(0), problem));
}

#[tokio::test]
async fn a_compressed_file_that_shrank_between_slices_is_told() {
    let mut world = World::new("a.ndjson.gz", gzip(&lines(50), 1));
    world.hurried = true;
    world.slice().await;
    world.slice().await;
    world.store.bytes = gzip(&lines(3), 1).into();
    let (counts, problem) = world.finish().await;
    assert_eq!(counts, applied(8));
    assert_eq!(
        problem,
        Some(FileProblem::Shrunk {
            offset: lines(8).len() as u64
        })
    );
}

#[tokio::test]
async fn a_plain_file_that_shrank_between_slices_is_told() {
    let mut world = World::new("a.ndjson", lines(50));
    world.hurried = true;
    world.slice().await;
    world.store.shrunk_to = Some(10);
    let reason = format!(
        "it is shorter than the {} bytes that were read before",
        lines(4).len()
    );
    let problem = FileProblem::SourceGone { reason };
    assert_eq!(world.finish().await, (applied(4), Some(problem)));
}
