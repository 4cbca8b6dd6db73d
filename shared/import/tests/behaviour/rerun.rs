//! A re-run applies only what is missing, failed or changed.

use landfall_import::declaration::{OnMiss, OnRerun};
use landfall_import::{Counts, FileProblem, Limits};

use crate::world::{CommitFault, MemorySink, World, applied, lines};

#[tokio::test]
async fn what_the_chain_has_already_is_unchanged_and_written_no_more() {
    for outside in [false, true] {
        let mut first = World::new("a.ndjson", lines(10));
        first.sink = outside.then(MemorySink::default);
        assert_eq!(first.finish().await, (applied(10), None));

        let changed = lines(12).replace("\"n\":3}", "\"n\":33}");
        let second = first.next_attempt(changed);
        let counts = Counts {
            read: 12,
            applied: 3,
            unchanged: 9,
            ..Counts::default()
        };
        assert_eq!(second.finish().await, (counts, None));
        assert_eq!(second.landed(), ["r0003", "r0010", "r0011"]);
        if let Some(sink) = &second.sink {
            let delivered: Vec<String> = sink
                .deliveries
                .lock()
                .unwrap()
                .iter()
                .flat_map(|(_, keys)| keys.clone())
                .collect();
            assert_eq!(delivered, ["r0003", "r0010", "r0011"]);
        }
    }
}

#[tokio::test]
async fn what_an_earlier_attempt_held_is_applied_once_its_mapping_exists() {
    let text = "{\"id\":1,\"user\":7}\n{\"id\":2,\"user\":8}\n";
    let first = World::new("a.ndjson", text)
        .maps_user(OnMiss::Hold)
        .knows_user("7", "700");
    let counts = Counts {
        read: 2,
        applied: 1,
        held: 1,
        ..Counts::default()
    };
    assert_eq!(first.finish().await, (counts, None));

    let second = first.next_attempt(text).knows_user("8", "800");
    let counts = Counts {
        read: 2,
        applied: 1,
        unchanged: 1,
        ..Counts::default()
    };
    assert_eq!(second.finish().await, (counts, None));
    assert_eq!(
        second.records(),
        ["{\"id\":1,\"user\":700}", "{\"id\":2,\"user\":800}"]
    );
}

#[tokio::test]
async fn a_first_attempt_asks_nothing_of_the_past() {
    for outside in [false, true] {
        let mut first = World::new("a.ndjson", lines(200));
        first.sink = outside.then(MemorySink::default);
        first.finish().await;
        let stored = first.ledger.stored.lock().unwrap();
        assert!(stored.known_asked.is_empty());
        assert_eq!(stored.pages_read, 0);
    }
}

/// Records of the file, and its attempts under the default limits.
fn attempts(count: usize, outside: bool) -> World {
    let mut world = World::new("a.ndjson", lines(count));
    world.limits = Limits::default();
    world.store.chunk = 65_536;
    world.sink = outside.then(MemorySink::default);
    world
}

/// The text with so many records changed, evenly spread.
fn with_changes(text: &str, changes: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let every = lines.len() / changes;
    let texts = lines.iter().enumerate().map(|(number, line)| {
        if number % every == every / 2 {
            format!("{}\n", line.replace("\"n\":", "\"n\":9"))
        } else {
            format!("{line}\n")
        }
    });
    texts.collect()
}

#[tokio::test]
async fn a_re_run_delivers_what_changed_in_few_calls_and_writes_nothing_of_the_rest() {
    let first = attempts(20_000, true);
    assert_eq!(first.finish().await, (applied(20_000), None));
    let calls = first
        .sink
        .as_ref()
        .unwrap()
        .deliveries
        .lock()
        .unwrap()
        .len();
    assert_eq!(calls, 223, "90 records each");
    let segments: Vec<usize> = first.ledger.stored.lock().unwrap().attempts[0]
        .values()
        .map(|segment| segment.landed.len())
        .collect();
    assert_eq!(segments.len(), 18);
    assert!(segments[..17].iter().all(|records| *records == 1_170));

    let limits = first.limits;
    let mut second = first.next_attempt(with_changes(&lines(20_000), 20));
    (second.limits, second.store.chunk) = (limits, 65_536);
    let counts = Counts {
        read: 20_000,
        applied: 20,
        unchanged: 19_980,
        ..Counts::default()
    };
    assert_eq!(second.finish().await, (counts, None));
    let sink = second.sink.as_ref().unwrap();
    assert_eq!(sink.deliveries.lock().unwrap().len(), 1);
    assert_eq!(second.commits().len(), 1);
    let kept: usize = second.ledger.stored.lock().unwrap().attempts[1]
        .values()
        .map(|segment| segment.landed.len())
        .sum();
    assert_eq!(kept, 20);
}

#[tokio::test]
async fn a_third_attempt_knows_what_each_of_the_two_before_it_left_in_the_target() {
    for outside in [false, true] {
        let text = lines(3_000);
        let changed = with_changes(&text, 30);
        let first = attempts(3_000, outside);
        first.finish().await;
        let limits = first.limits;
        let mut second = first.next_attempt(changed);
        second.limits = limits;
        second.finish().await;
        // What the second attempt changed is now as it was at first, which only the first attempt has seen.
        let mut third = second.next_attempt(text.clone());
        third.limits = limits;
        let counts = Counts {
            read: 3_000,
            applied: 30,
            unchanged: 2_970,
            ..Counts::default()
        };
        assert_eq!(third.finish().await, (counts, None), "{outside}");
        let mut fourth = third.next_attempt(text);
        fourth.limits = limits;
        let counts = Counts {
            read: 3_000,
            unchanged: 3_000,
            ..Counts::default()
        };
        assert_eq!(fourth.finish().await, (counts, None), "{outside}");
    }
}

#[tokio::test]
async fn records_in_another_order_or_with_others_between_them_are_still_known() {
    let text = lines(2_000);
    let mut shuffled: Vec<&str> = text.lines().collect();
    shuffled.reverse();
    let new = "{\"id\":\"new\",\"n\":1}";
    shuffled.insert(777, new);
    let first = attempts(2_000, true);
    first.finish().await;
    let second = first.next_attempt(shuffled.join("\n") + "\n");
    let counts = Counts {
        read: 2_001,
        applied: 1,
        unchanged: 2_000,
        ..Counts::default()
    };
    assert_eq!(second.finish().await, (counts, None));
    assert_eq!(second.landed(), ["new"]);
}

#[tokio::test]
async fn of_a_key_that_stands_twice_the_last_content_is_the_targets_whatever_an_earlier_attempt_had()
 {
    let (a, b) = ("{\"id\":\"k\",\"n\":1}\n", "{\"id\":\"k\",\"n\":2}\n");
    // Far enough apart to be in different batches.
    let between = lines(50);
    for (before, now, applied) in [
        (format!("{a}{between}{b}"), format!("{b}{between}{a}"), 1),
        (format!("{a}{between}{b}"), format!("{a}{between}"), 1),
        (format!("{a}{between}{b}"), format!("{a}{between}{b}"), 2),
        (
            format!("{a}{between}"),
            format!("{a}{between}{b}{between}{a}"),
            2,
        ),
    ] {
        for outside in [false, true] {
            let mut first = World::new("a.ndjson", before.clone());
            first.sink = outside.then(MemorySink::default);
            first.finish().await;
            let second = first.next_attempt(now.clone());
            let (counts, _) = second.finish().await;
            assert_eq!(counts.applied, applied, "{outside} {now}");
            if !outside {
                let last = if now.ends_with(b) { b } else { a };
                let target = second.ledger.stored.lock().unwrap().target["k"].1.clone();
                assert_eq!(target, last.trim_end());
            }
        }
    }
}

#[tokio::test]
async fn records_that_no_segment_shows_are_looked_up_in_the_target() {
    let mut first = attempts(300, false);
    first.ledger.keeps_no_segments = true;
    first.finish().await;
    let limits = first.limits;
    let mut second = first.next_attempt(with_changes(&lines(300), 3));
    second.limits = limits;
    let counts = Counts {
        read: 300,
        applied: 3,
        unchanged: 297,
        ..Counts::default()
    };
    assert_eq!(second.finish().await, (counts, None));
    assert_eq!(
        second.ledger.stored.lock().unwrap().known_asked,
        [90, 90, 90, 30]
    );
}

#[tokio::test]
async fn records_that_segments_show_are_looked_up_nowhere() {
    let first = attempts(300, false);
    first.finish().await;
    let second = first.next_attempt(with_changes(&lines(300), 3));
    second.finish().await;
    let asked: usize = second
        .ledger
        .stored
        .lock()
        .unwrap()
        .known_asked
        .iter()
        .sum();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn replace_applies_everything_again_and_refuse_nothing() {
    for outside in [false, true] {
        let mut first = World::new("a.ndjson", lines(10));
        first.sink = outside.then(MemorySink::default);
        first.finish().await;
        let mut second = first.next_attempt(lines(10));
        second.import.on_rerun = OnRerun::Replace;
        assert_eq!(second.finish().await, (applied(10), None));
        let mut third = second.next_attempt(lines(10));
        third.import.on_rerun = OnRerun::Refuse;
        let problem = Some(FileProblem::RerunRefused);
        assert_eq!(third.finish().await, (Counts::default(), problem));
        assert_eq!(third.landed(), [""; 0]);
    }
}

#[tokio::test]
async fn refuse_takes_a_file_of_which_no_earlier_attempt_has_landed_anything() {
    let mut first = World::new("a.ndjson", "garbage\n");
    first.import.on_rerun = OnRerun::Refuse;
    first.finish().await;
    let second = first.next_attempt(lines(10));
    assert_eq!(second.finish().await, (applied(10), None));
}

#[tokio::test]
async fn a_crash_at_any_commit_of_a_re_run_applies_nothing_twice_and_leaves_nothing_out() {
    for fault in [
        CommitFault::KillBefore,
        CommitFault::KillAfter,
        CommitFault::UnknownWritten,
    ] {
        for outside in [false, true] {
            for commit in 0..3 {
                let first = attempts(2_000, outside);
                first.finish().await;
                let limits = first.limits;
                let mut second = first.next_attempt(with_changes(&lines(2_000), 200));
                second.limits = limits;
                second.commit_fault(commit, fault);
                let counts = Counts {
                    read: 2_000,
                    applied: 200,
                    unchanged: 1_800,
                    ..Counts::default()
                };
                assert_eq!(second.finish().await, (counts, None), "{fault:?} {outside}");
                assert_eq!(second.landed().len(), 200, "{fault:?} {outside}");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_not_committed_is_in_no_segment() {
    for fault in [CommitFault::Unavailable, CommitFault::UnknownNotWritten] {
        let first = World::new("a.ndjson", lines(8));
        first.commit_fault(1, fault);
        first.slice().await;
        let second = first.next_attempt(lines(8));
        let counts = Counts {
            read: 8,
            applied: 4,
            unchanged: 4,
            ..Counts::default()
        };
        assert_eq!(second.finish().await, (counts, None), "{fault:?}");
    }
}
