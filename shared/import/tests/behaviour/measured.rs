//! Every stored byte of a file is counted and hashed once, whatever is read again.

use landfall_import::declaration::{FileDigest, Format};
use landfall_import::ports::{SinkOutcome, SourceError};
use landfall_import::{Measure, SliceOutcome};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::world::{
    CommitFault, Fault, MemorySink, PIECE, World, applied, array, cut, gzip, lines, numbered,
};

/// In frames of so many bytes.
fn zstd(text: &str, frame: usize) -> Vec<u8> {
    let frames = text.as_bytes().chunks(frame);
    frames
        .flat_map(|part| compress_to_vec(part, CompressionLevel::Fastest))
        .collect()
}

/// Files of 22 records, each with bytes behind the last of them.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"index"].concat();
    vec![
        ("a.ndjson", (lines(22) + "\n \r\n\n").into_bytes()),
        ("a.json", (array(22) + &" \n".repeat(100)).into_bytes()),
        ("a.json.gz", gzip(&(array(22) + " \n"), 2)),
        (
            "a.ndjson.gz",
            [gzip(&lines(22), 3), gzip("", 1), gzip("\n", 1)].concat(),
        ),
        ("a.ndjson.zst", [zstd(&lines(22), 100), skipped].concat()),
    ]
}

/// Only ends where it measures what it has to.
async fn assert_measured(world: &World, said: &str) {
    let measured = world.finish_measured().await;
    let expected = (applied(22), None, world.store.measure());
    assert_eq!(measured, expected, "{said}");
    // Whoever died after the last commit learns it from there.
    assert_eq!(world.finish_measured().await, expected, "{said}");
}

#[tokio::test]
async fn a_file_is_measured_over_all_its_slices_and_connections() {
    for (label, bytes) in files() {
        for ranges in [true, false] {
            for chunk in [1, 7, 64, 10_000] {
                for hurried in [true, false] {
                    let mut world = World::new(label, bytes.clone());
                    (world.store.ranges, world.store.chunk, world.hurried) =
                        (ranges, chunk, hurried);
                    world.store_faults([
                        Fault::Open(SourceError::Expired),
                        Fault::After(33, cut()),
                        Fault::EndsAfter(90),
                        Fault::After(1, SourceError::Expired),
                    ]);
                    let said = format!("{label} {ranges} {chunk} {hurried}");
                    assert_measured(&world, &said).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_commit_leaves_no_byte_out_and_hashes_none_twice() {
    for (label, bytes) in files() {
        for fault in [
            CommitFault::KillBefore,
            CommitFault::KillAfter,
            CommitFault::UnknownNotWritten,
            CommitFault::UnknownWritten,
        ] {
            for commit in 0..8 {
                for hurried in [true, false] {
                    let mut world = World::new(label, bytes.clone());
                    world.hurried = hurried;
                    world.commit_fault(commit, fault);
                    world.commit_fault(commit + 2, fault);
                    assert_measured(&world, &format!("{label} {fault:?} {commit} {hurried}")).await;
                }
            }
        }
    }
}

/// Some 6 MB of text, so that a slice enters the file in its middle.
fn large(label: &str, pack: impl Fn(&str) -> Vec<u8>) -> World {
    let text = numbered(22, |id| {
        let filling = numbered(60_000, |n| format!("{:x} ", (n * 7919 + id * 31) % 9973));
        format!("{{\"id\":{id},\"text\":\"{filling}\"}}\n")
    });
    let mut world = World::new(label, pack(&text));
    world.limits.record_bytes = 400_000;
    world.limits.batch_records = 2;
    world.limits.batch_bytes = 1_000_000;
    world.store.chunk = 65_536;
    world.hurried = true;
    world.sink = Some(MemorySink::default());
    world
}

fn large_files() -> [World; 2] {
    [
        large("a.ndjson.gz", |text| gzip(text, 1)),
        large("a.ndjson.zst", |text| zstd(text, 500_000)),
    ]
}

fn opened_last(world: &World) -> u64 {
    *world.store.opened_at.lock().unwrap().last().unwrap()
}

#[tokio::test]
async fn a_slice_that_enters_a_compressed_file_before_what_is_hashed_hashes_on_behind_it() {
    for world in large_files() {
        world.commit_fault(4, CommitFault::KillAfter);
        world.commit_fault(8, CommitFault::KillBefore);
        assert_measured(&world, &world.label).await;
        assert!(opened_last(&world) > 0, "it was entered in its middle");
    }
}

#[tokio::test]
async fn a_restart_point_that_is_gone_is_no_matter() {
    for world in large_files() {
        while world.ledger.stored.lock().unwrap().restart.is_none() {
            world.slice().await;
        }
        world.ledger.stored.lock().unwrap().restart = None;
        assert_measured(&world, &world.label).await;
    }
}

/// The checkpoint as an older release writes it.
fn forget_the_hash(world: &World) {
    let mut stored = world.ledger.stored.lock().unwrap();
    let checkpoint = stored.checkpoint.as_mut().unwrap();
    let mut fields: serde_json::Value = serde_json::from_str(checkpoint).unwrap();
    let hashed = fields.as_object_mut().unwrap().shift_remove("hashed");
    assert!(hashed.is_some());
    *checkpoint = fields.to_string();
}

#[tokio::test]
async fn what_an_older_release_has_begun_ends_with_a_length_and_without_a_digest() {
    let mut plain = World::new("a.ndjson", lines(22));
    plain.hurried = true;
    let mut worlds = vec![plain];
    worlds.extend(large_files());
    for world in worlds {
        while world.ledger.stored.lock().unwrap().commits.len() < 5 || opened_last(&world) == 0 {
            assert!(matches!(
                world.slice().await,
                Some(SliceOutcome::Continue(_))
            ));
        }
        forget_the_hash(&world);
        let length_alone = Measure {
            sha256: None,
            ..world.store.measure()
        };
        let ended = world.finish_measured().await;
        assert_eq!(ended, (applied(22), None, length_alone), "{}", world.label);
    }
}

#[tokio::test]
async fn a_file_whose_digest_nobody_wants_ends_with_its_length_alone() {
    for (label, bytes) in files() {
        let mut world = World::new(label, bytes);
        world.hurried = true;
        // A release between two slices may ask for another thing; what was not hashed can't be made up for.
        world.slice().await;
        world.import.digest = FileDigest::Ignore;
        world.slice().await;
        let stored = world.ledger.stored.lock().unwrap().checkpoint.clone();
        assert!(!stored.unwrap().contains("hashed"), "{label}");
        let length_alone = Measure {
            sha256: None,
            ..world.store.measure()
        };
        let ended = world.finish_measured().await;
        assert_eq!(ended, (applied(22), None, length_alone), "{label}");
    }
}

#[tokio::test]
async fn what_is_read_from_its_beginning_again_needs_no_older_hash() {
    let mut world = World::new("a.ndjson.gz", gzip(&lines(22), 2));
    world.hurried = true;
    world.slice().await;
    forget_the_hash(&world);
    assert_measured(&world, "a.ndjson.gz").await;
}

#[tokio::test]
async fn a_file_that_is_not_read_to_its_last_byte_measures_nothing() {
    let corrupt = {
        let mut bytes = gzip(&lines(22), 1);
        let end = bytes.len() - 6;
        bytes[end] ^= 1;
        World::new("a.ndjson.gz", bytes)
    };
    let broken = World::new("a.json", "[{\"id\":1} {\"id\":2}]");
    let gone = World::new("a.ndjson", lines(22));
    gone.store_faults([
        Fault::After(200, cut()),
        Fault::Open(SourceError::Gone {
            reason: "404".to_owned(),
        }),
    ]);
    let mut too_large = World::new("a.ndjson", lines(22));
    too_large.limits.file_bytes = 100;
    for world in [corrupt, broken, gone, too_large] {
        let (_, problem, measure) = world.finish_measured().await;
        assert!(problem.is_some());
        assert_eq!(measure, Measure::default(), "{problem:?}");
    }
}

fn raw(length: usize) -> World {
    let content: Vec<u8> = (0..251).cycle().take(length).collect();
    let mut world = World::new("logo.png", content);
    world.import.format = Format::Raw;
    world.import.natural_key = None;
    world.sink = Some(MemorySink::default());
    world
}

#[tokio::test]
async fn a_raw_file_measures_what_it_is_however_often_its_worker_dies() {
    for length in [0, 1, PIECE, 3 * PIECE + 5] {
        for hurried in [true, false] {
            for commit in 0..4 {
                let mut world = raw(length);
                world.hurried = hurried;
                world.commit_fault(commit, CommitFault::KillAfter);
                world.store_faults([Fault::After(70, cut())]);
                let expected = (applied(1), None, world.store.measure());
                assert_eq!(world.finish_measured().await, expected);
                assert_eq!(world.finish_measured().await, expected);
            }
        }
    }
}

#[tokio::test]
async fn a_raw_file_that_is_given_up_measures_nothing_unless_it_was_its_last_piece() {
    fn judge(number: &str) -> SinkOutcome {
        match number {
            "1" => SinkOutcome::Rejected {
                reason: "too large for us".to_owned(),
            },
            _ => SinkOutcome::Applied,
        }
    }
    for (length, is_last) in [(3 * PIECE, false), (2 * PIECE, true)] {
        let mut world = raw(length);
        world.sink.as_mut().unwrap().answer = Some(judge);
        let (counts, problem, measure) = world.finish_measured().await;
        assert_eq!((counts.rejected, problem), (1, None));
        let expected = is_last.then(|| world.store.measure());
        assert_eq!(measure, expected.unwrap_or_default());
    }
}
