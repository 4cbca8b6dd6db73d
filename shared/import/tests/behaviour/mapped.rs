//! Server ids replaced by cloud ids.

use std::time::Duration;

use landfall_import::declaration::OnMiss;
use landfall_import::ports::MappingsError;
use landfall_import::{Counts, FileProblem};

use crate::world::{World, applied, interruption, numbered};

const TEXT: &str = "{\"id\":1, \"user\": 7, \"n\": 1.10}\n{\"id\":2,\"user\":\"8\"}\n{\"id\":3,\"user\":9}\n{\"id\":4,\"user\":null}\n{\"id\":5}\n";

fn world(on_miss: OnMiss) -> World {
    World::new("a.ndjson", TEXT)
        .maps_user(on_miss)
        .knows_user("7", "700")
        .knows_user("8", "800")
}

#[tokio::test]
async fn ids_are_replaced_and_the_rest_of_the_record_stays_as_it_was() {
    let world = world(OnMiss::Keep);
    assert_eq!(world.finish().await, (applied(5), None));
    assert_eq!(
        world.records(),
        [
            "{\"id\":1, \"user\": 700, \"n\": 1.10}",
            "{\"id\":2,\"user\":\"800\"}",
            "{\"id\":3,\"user\":9}",
            "{\"id\":4,\"user\":null}",
            "{\"id\":5}",
        ]
    );
}

#[tokio::test]
async fn an_unknown_id_rejects_holds_keeps_or_replaces_as_declared() {
    let reason = "identity:user has no mapping for \"9\", the id at \"/user\"";

    let rejecting = world(OnMiss::Reject);
    let counts = Counts {
        read: 5,
        applied: 4,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!(rejecting.finish().await, (counts, None));
    assert_eq!(rejecting.rejections(), [format!("3 3 rejected: {reason}")]);
    let namespace = rejecting.ledger.stored.lock().unwrap().rejections[0]
        .namespace
        .clone();
    assert_eq!(namespace.as_deref(), Some("identity:user"));

    let holding = world(OnMiss::Hold);
    let counts = Counts {
        read: 5,
        applied: 4,
        held: 1,
        ..Counts::default()
    };
    assert_eq!(holding.finish().await, (counts, None));
    assert_eq!(holding.rejections(), [format!("3 3 held: {reason}")]);

    let placing = world(OnMiss::Placeholder);
    assert_eq!(placing.finish().await, (applied(5), None));
    assert_eq!(placing.records()[2], "{\"id\":3,\"user\":\"nobody\"}");
}

#[tokio::test]
async fn ids_are_looked_up_a_hundred_at_a_time_and_never_twice() {
    let text = numbered(500, |id| format!("{{\"id\":{id},\"user\":{}}}\n", id % 250));
    let mut world = World::new("a.ndjson", text)
        .maps_user(OnMiss::Keep)
        .knows_user("7", "700");
    (world.limits.batch_records, world.limits.batch_bytes) = (99, 100_000);
    world.limits.record_bytes = 1000;
    assert_eq!(world.finish().await, (applied(500), None));
    let calls = world.mappings.calls.lock().unwrap();
    let sizes: Vec<usize> = calls.iter().map(|(_, keys)| keys.len()).collect();
    assert_eq!(sizes, [99, 99, 52], "misses are remembered too");
    let mut asked: Vec<&String> = calls.iter().flat_map(|(_, keys)| keys).collect();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 250);
}

#[tokio::test]
async fn several_ids_a_record_fill_calls_of_a_hundred() {
    let text = numbered(90, |id| {
        format!("{{\"id\":{id},\"user\":\"a{id}\",\"other\":\"b{id}\"}}\n")
    });
    let mut world = World::new("a.ndjson", text).maps_user(OnMiss::Keep);
    let other = landfall_import::declaration::Mapping {
        pointer: "/other".to_owned(),
        ..world.import.mappings[0].clone()
    };
    world.import.mappings.push(other);
    world.limits = landfall_import::Limits::default();
    assert_eq!(world.finish().await, (applied(90), None));
    let calls = world.mappings.calls.lock().unwrap();
    assert_eq!(
        calls.iter().map(|(_, keys)| keys.len()).collect::<Vec<_>>(),
        [100, 80]
    );
}

#[tokio::test]
async fn a_platform_that_asks_to_wait_ends_the_slice_and_nothing_is_lost() {
    let world = world(OnMiss::Keep);
    let retry_after = Some(Duration::from_secs(3));
    world.mappings.errors.lock().unwrap().extend([
        MappingsError::Throttled { retry_after },
        MappingsError::Unavailable {
            reason: "502".to_owned(),
        },
    ]);
    assert_eq!(
        interruption(world.slice().await),
        ("the platform asks to slow down".to_owned(), retry_after)
    );
    assert_eq!(
        interruption(world.slice().await),
        ("mappings can't be looked up: 502".to_owned(), None)
    );
    assert_eq!(world.finish().await, (applied(5), None));
    assert_eq!(world.landed(), ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_platform_that_refuses_ends_the_file_with_the_reason() {
    let world = world(OnMiss::Keep);
    world
        .mappings
        .errors
        .lock()
        .unwrap()
        .push_back(MappingsError::Refused {
            reason: "403".to_owned(),
        });
    let problem = FileProblem::MappingsRefused {
        reason: "403".to_owned(),
    };
    assert_eq!(world.finish().await, (applied(0), Some(problem)));
}

#[tokio::test]
async fn a_record_that_grows_without_measure_is_rejected() {
    let world = World::new("a.ndjson", TEXT)
        .maps_user(OnMiss::Keep)
        .knows_user("7", &"x".repeat(5000))
        .knows_user("8", "800");
    let counts = Counts {
        read: 5,
        applied: 4,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(
        world.rejections(),
        ["1 1 rejected: the record grows by more than 4096 bytes when its ids are replaced"]
    );
}
