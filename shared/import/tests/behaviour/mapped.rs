//! Server ids replaced by cloud ids.

use std::time::Duration;

use landfall_import::declaration::OnMiss;
use landfall_import::ports::MappingsError;
use landfall_import::{Counts, FileProblem, MappingCache, SliceOutcome, UsedMappings};
use landfall_transfer::Timestamp;

use crate::world::{MemorySink, World, applied, interruption, numbered};

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

const USERS: usize = 2_000;

/// A file in which each of [`USERS`] appears once; every tenth has no mapping.
fn many_users(cache: usize) -> World {
    let text = numbered(USERS, |id| format!("{{\"id\":{id},\"user\":{id}}}\n"));
    let mut world = World::new("a.ndjson", text).maps_user(OnMiss::Hold);
    for user in (1..=USERS).filter(|user| user % 10 > 0) {
        world = world.knows_user(&user.to_string(), &format!("cloud-{user}"));
    }
    world.limits = landfall_import::Limits::default();
    world.mapping_cache = Some(MappingCache::new(cache));
    world
}

fn all_but_a_tenth() -> Counts {
    Counts {
        read: USERS as u64,
        applied: (USERS - USERS / 10) as u64,
        held: (USERS / 10) as u64,
        ..Counts::default()
    }
}

#[tokio::test]
async fn a_namespace_of_which_many_ids_are_needed_is_listed_and_comes_to_the_same_with_fewer_calls()
{
    let by_finds = many_users(100);
    assert_eq!(by_finds.finish().await, (all_but_a_tenth(), None));
    let listed = many_users(50_000);
    assert_eq!(listed.finish().await, (all_but_a_tenth(), None));
    assert_eq!(listed.records(), by_finds.records());
    assert_eq!(listed.rejections(), by_finds.rejections());
    let calls = |world: &World| {
        (
            world.mappings.calls.lock().unwrap().len(),
            world.mappings.pages.lock().unwrap().len(),
        )
    };
    assert_eq!(calls(&listed), (5, 1), "and nothing is asked for after it");
    assert_eq!(
        calls(&by_finds),
        (46, 1),
        "one page shows that it is larger than the cache, and a second pass asks again"
    );
}

#[tokio::test]
async fn pages_are_fetched_one_after_the_other_until_there_is_no_next() {
    let mut world = many_users(50_000);
    world.mappings.page_size = Some(600);
    assert_eq!(world.finish().await, (all_but_a_tenth(), None));
    let pages = world.mappings.pages.lock().unwrap().clone();
    let after: Vec<Option<String>> = pages.into_iter().map(|(_, after)| after).collect();
    // As text, and sorted: the 600th and the 1200th of those that have a mapping.
    let mut keys: Vec<String> = world
        .mappings
        .known
        .keys()
        .map(|(_, key)| key.clone())
        .collect();
    keys.sort_unstable();
    let last = |place: usize| Some(keys[place - 1].clone());
    assert_eq!(after, [None, last(600), last(1200)]);
    assert_eq!(world.mappings.calls.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_namespace_that_can_t_be_listed_is_looked_up_one_by_one() {
    let world = many_users(50_000);
    let refused = MappingsError::Refused {
        reason: "400".to_owned(),
    };
    world
        .mappings
        .page_errors
        .lock()
        .unwrap()
        .push_back(refused);
    assert_eq!(world.finish().await, (all_but_a_tenth(), None));
    assert_eq!(world.mappings.calls.lock().unwrap().len(), 23);
    assert_eq!(world.mappings.pages.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_platform_that_asks_to_wait_instead_of_a_page_ends_the_slice() {
    let world = many_users(50_000);
    let retry_after = Some(Duration::from_secs(3));
    let throttled = MappingsError::Throttled { retry_after };
    world
        .mappings
        .page_errors
        .lock()
        .unwrap()
        .push_back(throttled);
    assert_eq!(
        interruption(world.slice().await),
        ("the platform asks to slow down".to_owned(), retry_after)
    );
    assert_eq!(world.finish().await, (all_but_a_tenth(), None));
}

#[tokio::test]
async fn a_mapping_that_comes_later_is_found_once_its_absence_is_not_believed_any_more() {
    let mut world = world(OnMiss::Keep);
    let cache = MappingCache::new(100);
    let start = Timestamp::from_millis(1_790_000_000_000);
    cache.now_is(start);
    world.mapping_cache = Some(cache);
    world.finish().await;
    let calls = |world: &World| world.mappings.calls.lock().unwrap().len();
    assert_eq!(calls(&world), 1);
    let mut world = world.knows_user("9", "900");
    world.ledger = crate::world::MemoryLedger::default();
    world.finish().await;
    assert_eq!(
        (calls(&world), world.records()[2].as_str()),
        (1, "{\"id\":3,\"user\":9}")
    );
    let later = start + Duration::from_mins(5);
    world.mapping_cache.as_ref().unwrap().now_is(later);
    world.ledger = crate::world::MemoryLedger::default();
    world.finish().await;
    assert_eq!(
        (calls(&world), world.records()[2].as_str()),
        (2, "{\"id\":3,\"user\":900}")
    );
}

#[tokio::test]
async fn what_was_used_is_kept_with_the_transfer_and_can_be_read_again() {
    let world = world(OnMiss::Keep);
    world.finish().await;
    let stored = world.ledger.stored.lock().unwrap();
    let [packed]: [_; 1] = stored
        .mappings
        .values()
        .cloned()
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let used = UsedMappings::unpack(&packed).unwrap();
    let users = &used.mappings["identity:user"];
    let of = |key: &str| users.get(key).map(Option::as_deref);
    assert_eq!(
        [of("u/7"), of("u/8"), of("u/9"), of("u/10")],
        [Some(Some("700")), Some(Some("800")), Some(None), None]
    );
}

#[tokio::test]
async fn each_slice_keeps_what_it_used_first_and_a_crash_loses_nothing_that_is_used_again() {
    let mut world = world(OnMiss::Keep);
    (world.hurried, world.limits.batch_records) = (true, 1);
    world.mapping_cache = Some(MappingCache::new(100));
    world.commit_fault(1, crate::world::CommitFault::KillBefore);
    world.finish().await;
    let kept = |world: &World| {
        let stored = world.ledger.stored.lock().unwrap();
        let unpack = |packed: &bytes::Bytes| UsedMappings::unpack(packed).unwrap();
        let keys = |used: UsedMappings| used.mappings["identity:user"].clone().into_keys();
        let pieces = stored.mappings.values().map(unpack).map(keys);
        pieces
            .map(Iterator::collect::<Vec<String>>)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&world), [["u/7"], ["u/8"], ["u/9"]]);
}

fn nobody_is_mapped(records: usize, fail_above: Option<&str>) -> World {
    let text = numbered(records, |id| format!("{{\"id\":{id},\"user\":{id}}}\n"));
    let mut world = World::new("a.ndjson", text).maps_user(OnMiss::Hold);
    world.import.fail_above = fail_above.map(str::to_owned);
    world.limits = landfall_import::Limits::default();
    world
}

#[tokio::test]
async fn a_declaration_that_would_hold_everything_ends_the_file_early_with_the_reason() {
    let world = nobody_is_mapped(50_000, None);
    let (counts, problem) = world.finish().await;
    // Twelve batches of 90 records are the first above 1,000.
    assert_eq!((counts.read, counts.held), (1_080, 1_080));
    assert_eq!(
        problem.unwrap().to_string(),
        "1080 of 1080 records were rejected or held, more than 90 % (fail_above); most often of late: identity:user has no mapping for an id"
    );
    let again = world.slice().await.unwrap();
    assert!(
        matches!(again, SliceOutcome::Finished { counts: again, problem: Some(_), .. } if again == counts)
    );
}

#[tokio::test]
async fn a_file_for_a_sink_of_which_everything_is_held_ends_as_early() {
    let mut world = nobody_is_mapped(50_000, None);
    world.sink = Some(MemorySink::default());
    let (counts, problem) = world.finish().await;
    assert_eq!((counts.read, counts.held), (1_080, 1_080));
    assert!(
        matches!(
            problem,
            Some(FileProblem::TooManyFailed { failed: 1_080, .. })
        ),
        "{problem:?}"
    );
}

#[tokio::test]
async fn a_small_file_is_read_to_its_end_and_then_judged_as_declared() {
    let all_held = |records: u64| Counts {
        read: records,
        held: records,
        ..Counts::default()
    };
    assert_eq!(
        nobody_is_mapped(900, None).finish().await,
        (all_held(900), None)
    );
    let (counts, problem) = nobody_is_mapped(900, Some("5%")).finish().await;
    assert_eq!(counts, all_held(900));
    assert!(
        matches!(
            problem,
            Some(FileProblem::TooManyFailed { failed: 900, .. })
        ),
        "{problem:?}"
    );
    let allowed = nobody_is_mapped(2_000, Some("100%")).finish().await;
    assert_eq!(allowed, (all_held(2_000), None));
}
