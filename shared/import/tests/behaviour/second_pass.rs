//! Records that are held are asked again in a second pass, before their file ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use landfall_import::declaration::{OnMiss, OnRerun};
use landfall_import::ports::{Pass, SinkError, SinkOutcome, SourceError};
use landfall_import::{Counts, FileProblem, Limits, SliceOutcome};

use crate::world::{CommitFault, Fault, MemorySink, World, applied, gzip, numbered};

/// Records of which each third names the user `late`, and the others `ann`, who is known.
fn text(count: usize) -> String {
    numbered(count, |number| {
        let user = if number % 3 == 1 { "late" } else { "ann" };
        format!("{{\"id\":\"r{number:04}\",\"user\":\"{user}\"}}\n")
    })
}

fn holding(label: &str, bytes: impl Into<bytes::Bytes>, outside: bool) -> World {
    let mut world = World::new(label, bytes)
        .maps_user(OnMiss::Hold)
        .knows_user("ann", "cloud-ann");
    world.sink = outside.then(MemorySink::default);
    world
}

/// Slices until the first pass has ended; these are its counts.
async fn first_pass(world: &World) -> Counts {
    for _ in 0..1_000 {
        if let Some(SliceOutcome::ReadAgain(checkpoint)) = world.slice().await {
            return checkpoint.counts;
        }
        let stored = world.ledger.stored.lock().unwrap();
        if stored.passes.last() == Some(&Pass::FirstEnds) {
            // Its answer got lost.
            let stored = stored.checkpoint.as_deref().unwrap();
            return landfall_import::Checkpoint::decode(stored).unwrap().counts;
        }
    }
    panic!("the first pass doesn't end");
}

const fn held(applied: u64, held: u64) -> Counts {
    Counts {
        read: applied + held,
        applied,
        unchanged: 0,
        held,
        rejected: 0,
    }
}

/// What the target has of each key, as a sink's deliveries or the ledger's rows tell.
fn arrived(world: &World) -> BTreeMap<String, usize> {
    if let Some(sink) = &world.sink {
        return sink.applied.lock().unwrap().clone();
    }
    let mut times = BTreeMap::new();
    for key in world.landed() {
        *times.entry(key).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn a_record_whose_mapping_appears_between_the_passes_is_applied_and_the_others_stay() {
    let (lines, packed) = (text(22), gzip(&text(22), 2));
    let array = format!("[{}]", lines.trim_end().replace('\n', ","));
    let rows = lines
        .replace("{\"id\":", "")
        .replace(",\"user\":", ",")
        .replace('}', "");
    for (label, bytes) in [
        ("a.ndjson", lines.clone().into_bytes()),
        ("a.json", array.into_bytes()),
        ("a.ndjson.gz", packed),
        ("a.csv", format!("id,user\n{rows}").into_bytes()),
    ] {
        for (outside, hurried) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut world = holding(label, bytes.clone(), outside);
            world.hurried = hurried;
            assert_eq!(first_pass(&world).await, held(15, 7), "{label}");
            assert_eq!(world.rejections().len(), 7);
            let world = world.knows_user("late", "cloud-late");
            assert_eq!(world.finish().await, (applied(22), None), "{label}");
            assert_eq!(world.rejections(), [""; 0]);
            let arrived = arrived(&world);
            assert_eq!(arrived.len(), 22);
            assert!(arrived.values().all(|times| *times == 1), "{arrived:?}");
        }
    }
}

#[tokio::test]
async fn a_record_whose_mapping_never_appears_is_held_once() {
    for outside in [false, true] {
        let world = holding("a.ndjson", text(10), outside);
        assert_eq!(world.finish().await, (held(7, 3), None));
        let reason = "identity:user has no mapping for \"late\", the id at \"/user\"";
        assert_eq!(
            world.rejections(),
            [2, 5, 8].map(|number| format!("{number} r{:04} held: {reason}", number - 1))
        );
        assert_eq!(arrived(&world).len(), 7);
        // And that is the end of it.
        assert!(matches!(
            world.slice().await,
            Some(SliceOutcome::Finished { .. })
        ));
    }
}

#[tokio::test]
async fn more_landed_records_than_a_worker_remembers_are_passed_over_all_the_same() {
    // A worker remembers half a million of them at a time, and reads the others along with the file.
    let (records, late) = (520_000, [3, 260_000, 519_990]);
    let text = numbered(records, |number| {
        let user = if late.contains(&number) {
            "late"
        } else {
            "ann"
        };
        format!("{{\"id\":\"{number}\",\"user\":\"{user}\"}}\n")
    });
    let mut world = holding("a.ndjson", text, true);
    world.limits = Limits::default();
    world.store.chunk = 65_536;
    assert_eq!(first_pass(&world).await, held(519_997, 3));
    let mut world = world.knows_user("late", "cloud-late");
    // The next slices have time for a batch each, and a worker dies with all that it has read.
    world.hurried = true;
    for _ in 0..3 {
        world.slice().await;
        let checkpoint = world.ledger.stored.lock().unwrap().checkpoint.clone();
        assert!(checkpoint.unwrap().contains("\"base\""));
    }
    world.hurried = false;
    let next = world.ledger.attempted.load(Ordering::Relaxed);
    let fault = (next, CommitFault::KillBefore);
    world.ledger.faults.lock().unwrap().extend([fault]);
    assert_eq!(world.finish().await, (applied(520_000), None));
    assert_eq!(world.rejections(), [""; 0]);
    let arrived = arrived(&world);
    assert_eq!(arrived.len(), records);
    assert!(arrived.values().all(|times| *times == 1));
    // What the second pass delivered are the three alone.
    let deliveries = world.sink.as_ref().unwrap().deliveries.lock().unwrap();
    let first = records.div_ceil(world.limits.batch_records);
    let again: BTreeSet<&str> = deliveries[first..]
        .iter()
        .flat_map(|(_, keys)| keys.iter().map(String::as_str))
        .collect();
    assert_eq!(again, BTreeSet::from(["260000", "3", "519990"]));
}

#[tokio::test]
async fn a_file_without_held_records_is_read_once() {
    for outside in [false, true] {
        let world = holding("a.ndjson", text(10), outside).knows_user("late", "cloud-late");
        assert_eq!(world.finish().await, (applied(10), None));
        let stored = world.ledger.stored.lock().unwrap();
        assert!(stored.passes.iter().all(|pass| *pass == Pass::First));
        assert_eq!(stored.pages_read, 0);
        assert!(
            stored
                .checkpoint
                .as_ref()
                .unwrap()
                .contains("\"version\":1")
        );
        assert_eq!(*world.store.opened_at.lock().unwrap(), [0]);
    }
}

#[tokio::test]
async fn while_the_second_pass_runs_the_counts_and_exceptions_are_those_of_the_first() {
    for outside in [false, true] {
        let mut world = holding("a.ndjson", text(40), outside);
        world.hurried = true;
        let first = first_pass(&world).await;
        let world = world.knows_user("late", "cloud-late");
        for _ in 0..5 {
            let Some(SliceOutcome::Continue(checkpoint)) = world.slice().await else {
                panic!("the second pass is as long as the first")
            };
            assert_eq!(checkpoint.counts, first);
            assert!(
                checkpoint
                    .second
                    .is_some_and(|second| second.counts.read > 0)
            );
            assert_eq!(world.rejections().len(), 13);
        }
        assert_eq!(world.finish().await, (applied(40), None));
        assert_eq!(world.rejections(), [""; 0]);
    }
}

#[tokio::test]
async fn a_crash_at_any_commit_of_either_pass_loses_nothing_and_applies_nothing_twice() {
    for fault in CommitFault::PASSING {
        for (outside, hurried) in [(false, false), (true, false), (false, true), (true, true)] {
            for commit in 0..12 {
                let mut world = holding("a.ndjson", text(22), outside);
                world.hurried = hurried;
                world.commit_fault(commit, fault);
                let case = format!("{fault:?} {outside} {hurried} {commit}");
                assert_eq!(first_pass(&world).await, held(15, 7), "{case}");
                let world = world.knows_user("late", "cloud-late");
                assert_eq!(world.finish().await, (applied(22), None), "{case}");
                assert_eq!(world.rejections(), [""; 0], "{case}");
                let arrived = arrived(&world);
                assert_eq!(arrived.len(), 22, "{case}");
                assert!(arrived.values().all(|times| *times == 1), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn the_last_record_of_a_key_wins_although_an_earlier_one_was_held() {
    let (early, last) = (
        "{\"id\":\"k\",\"user\":\"late\",\"n\":1}\n",
        "{\"id\":\"k\",\"user\":\"ann\",\"n\":2}\n",
    );
    // In one batch, and far apart.
    for between in [String::new(), text(30).replace("late", "ann")] {
        for first_is_held in [true, false] {
            for outside in [false, true] {
                let (one, other) = if first_is_held {
                    (early, last)
                } else {
                    (last, early)
                };
                let bytes = format!("{one}{between}{other}");
                let world = holding("a.ndjson", bytes, outside);
                first_pass(&world).await;
                let world = world.knows_user("late", "cloud-late");
                let (counts, problem) = world.finish().await;
                assert_eq!((counts.held, counts.rejected, problem), (0, 0, None));
                if !outside {
                    let expected = if first_is_held {
                        "\"n\":2}"
                    } else {
                        "\"n\":1}"
                    };
                    let stored = world.ledger.stored.lock().unwrap();
                    let target = stored.target["k"].1.clone();
                    assert!(target.ends_with(expected.as_bytes()), "{target:?}");
                }
            }
        }
    }
}

/// The world of a re-run of the same file.
fn rerun(world: World) -> World {
    let bytes = world.store.bytes.clone();
    world.next_attempt(bytes)
}

#[tokio::test]
async fn a_later_re_run_leaves_alone_what_both_passes_landed() {
    for outside in [false, true] {
        let world = holding("a.ndjson", text(22), outside);
        first_pass(&world).await;
        let world = world.knows_user("late", "cloud-late");
        world.finish().await;
        let counts = Counts {
            read: 22,
            unchanged: 22,
            ..Counts::default()
        };
        let second = rerun(world);
        assert_eq!(second.finish().await, (counts, None));
        assert_eq!(second.landed(), [""; 0]);
    }
}

#[tokio::test]
async fn after_a_stop_in_the_second_pass_a_re_run_applies_the_rest_and_the_newest_content() {
    // The second pass is stopped when it has put the first content of `k` over the second one.
    let bytes = format!(
        "{}{}{}",
        "{\"id\":\"k\",\"user\":\"late\",\"n\":1}\n",
        text(30),
        "{\"id\":\"k\",\"user\":\"ann\",\"n\":2}\n"
    );
    for outside in [false, true] {
        let mut world = holding("a.ndjson", bytes.clone(), outside);
        world.hurried = true;
        first_pass(&world).await;
        let world = world.knows_user("late", "cloud-late");
        world.slice().await;
        let next = rerun(world);
        let (counts, problem) = next.finish().await;
        assert_eq!(problem, None);
        assert_eq!((counts.read, counts.arrived()), (32, 32));
        let landed = next.landed();
        assert_eq!(landed.last().map(String::as_str), Some("k"), "{landed:?}");
        if !outside {
            let stored = next.ledger.stored.lock().unwrap();
            assert!(stored.target["k"].1.ends_with(b"\"n\":2}"));
        }
    }
}

#[tokio::test]
async fn a_re_run_with_held_records_keeps_what_it_found_unchanged_whatever_its_policy() {
    for outside in [false, true] {
        for policy in [OnRerun::Delta, OnRerun::Replace] {
            let mut first = holding("a.ndjson", text(9), outside);
            first.import.on_rerun = policy;
            first.finish().await;
            let second = rerun(first);
            let unchanged = if policy == OnRerun::Delta { 6 } else { 0 };
            let counts = |applied: u64, held| Counts {
                read: 9,
                applied: applied + 6 - unchanged,
                unchanged,
                held,
                rejected: 0,
            };
            assert_eq!(first_pass(&second).await, counts(0, 3), "{policy:?}");
            let second = second.knows_user("late", "cloud-late");
            assert_eq!(second.finish().await, (counts(3, 0), None), "{policy:?}");
        }
    }
}

#[tokio::test]
async fn what_a_sink_holds_is_asked_again_under_another_idempotency_key() {
    let mut world = World::new("a.ndjson", "{\"id\":1}\n{\"id\":2}\n");
    let hold: fn(&str) -> SinkOutcome = |_| SinkOutcome::Held {
        reason: "no space yet".to_owned(),
    };
    world.sink = Some(MemorySink {
        answer: Some(hold),
        ..MemorySink::default()
    });
    assert_eq!(first_pass(&world).await, held(0, 2));
    world.sink.as_mut().unwrap().answer = None;
    assert_eq!(world.finish().await, (applied(2), None));
    let sink = world.sink.as_ref().unwrap();
    let deliveries = sink.deliveries.lock().unwrap();
    assert_eq!(deliveries.len(), 2);
    assert_eq!(deliveries[0].1, deliveries[1].1);
    assert_ne!(deliveries[0].0, deliveries[1].0);
    assert_eq!(*sink.finished.lock().unwrap(), [true], "said once");
}

#[tokio::test]
async fn a_second_pass_that_can_not_be_read_to_its_end_leaves_the_file_as_the_first_found_it() {
    for outside in [false, true] {
        let world = holding("a.ndjson", text(22), outside);
        let first = first_pass(&world).await;
        let world = world.knows_user("late", "cloud-late");
        let gone = SourceError::Gone {
            reason: "it was deleted".to_owned(),
        };
        world.store_faults([Fault::After(400, gone)]);
        assert_eq!(world.finish().await, (first, None));
        assert_eq!(world.rejections().len(), 7);
        if let Some(sink) = &world.sink {
            assert_eq!(*sink.finished.lock().unwrap(), [true]);
        }
    }
}

#[tokio::test]
async fn a_sink_that_refuses_in_the_second_pass_and_takes_the_files_end_spoils_nothing() {
    let world = holding("a.ndjson", text(22), true);
    let first = first_pass(&world).await;
    let world = world.knows_user("late", "cloud-late");
    let refused = SinkError::Refused {
        reason: "it answered 401".to_owned(),
    };
    let sink = world.sink.as_ref().unwrap();
    sink.errors.lock().unwrap().push_back(refused);
    assert_eq!(world.finish().await, (first, None));
    assert_eq!(*sink.finished.lock().unwrap(), [true]);
}

#[tokio::test]
async fn a_file_of_which_too_much_fails_ends_without_a_second_pass() {
    let mut world = holding("a.ndjson", text(22), false);
    world.import.fail_above = Some("5%".to_owned());
    let (counts, problem) = world.finish().await;
    assert!(
        matches!(problem, Some(FileProblem::TooManyFailed { .. })),
        "{problem:?}"
    );
    assert_eq!(counts, held(15, 7));
    assert_eq!(world.ledger.stored.lock().unwrap().pages_read, 0);
    let tolerant = holding("a.ndjson", text(22), false);
    assert_eq!(tolerant.finish().await, (held(15, 7), None));
    assert!(tolerant.store.given.load(Ordering::Relaxed) >= 2 * tolerant.store.bytes.len());
}
