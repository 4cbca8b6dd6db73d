//! A re-run applies only what is missing, failed or changed.

use landfall_import::declaration::OnMiss;
use landfall_import::{Counts, Limits};

use crate::world::{MemorySink, World, applied, lines};

/// The world of the next attempt: the chain's records are there, the file begins again.
fn next_attempt(mut world: World, text: &str) -> World {
    let mut next = World::new(&world.label, text.to_owned());
    next.import = world.import;
    next.mappings.known = world.mappings.known;
    next.sink = world.sink.map(|_| MemorySink::default());
    next.ledger.stored.get_mut().unwrap().target =
        std::mem::take(&mut world.ledger.stored.get_mut().unwrap().target);
    next.rerun = true;
    next
}

#[tokio::test]
async fn what_the_chain_has_already_is_unchanged_and_written_no_more() {
    for outside in [false, true] {
        let mut first = World::new("a.ndjson", lines(10));
        first.sink = outside.then(MemorySink::default);
        assert_eq!(first.finish().await, (applied(10), None));

        let changed = lines(12).replace("\"n\":3}", "\"n\":33}");
        let second = next_attempt(first, &changed);
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

    let second = next_attempt(first, text).knows_user("8", "800");
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
async fn the_ledger_is_asked_once_a_batch_and_only_in_a_re_run() {
    let first = World::new("a.ndjson", lines(200));
    first.finish().await;
    assert!(first.ledger.stored.lock().unwrap().known_asked.is_empty());
    let mut second = next_attempt(first, &lines(200));
    second.limits = Limits::default();
    second.finish().await;
    assert_eq!(
        second.ledger.stored.lock().unwrap().known_asked,
        [90, 90, 20]
    );
}
