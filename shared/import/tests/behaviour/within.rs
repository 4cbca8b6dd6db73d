//! Mappings that are limited to the containers of this migration.

use std::collections::BTreeSet;
use std::time::Duration;

use landfall_import::declaration::{ContainerType, Mapping, OnMiss};
use landfall_import::ports::MappingsError;
use landfall_import::{Counts, FileProblem, MappingCache, SliceOutcome, UsedMappings};
use landfall_transfer::Timestamp;

use crate::world::{World, applied, interruption, numbered};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Ten records, of projects 0 to 9; each has a mapping, and the first six are this migration's.
fn world(on_miss: OnMiss) -> World {
    of_projects(10, 6, on_miss)
}

fn of_projects(mapped: usize, own: usize, on_miss: OnMiss) -> World {
    let record = |number| format!("{{\"id\":\"r{number:05}\",\"project\":{number}}}\n");
    let mut world = World::new("a.ndjson", numbered(mapped, record))
        .maps_project(on_miss)
        .knows_projects(0..mapped, own);
    world.limits = landfall_import::Limits::default();
    world.mapping_cache = Some(MappingCache::new(1_000));
    world.mapping_cache.as_ref().unwrap().now_is(START);
    world
}

const fn rejected(applied: u64, rejected: u64) -> Counts {
    Counts {
        read: applied + rejected,
        applied,
        unchanged: 0,
        held: 0,
        rejected,
    }
}

/// Every key that the platform was asked for.
fn asked(world: &World) -> BTreeSet<String> {
    let calls = world.mappings.calls.lock().unwrap();
    calls.iter().flat_map(|(_, keys)| keys).cloned().collect()
}

fn container_pages(world: &World) -> Vec<Option<String>> {
    let pages = world.mappings.container_pages.lock().unwrap();
    pages.iter().map(|(_, after)| after.clone()).collect()
}

fn own(projects: usize) -> BTreeSet<String> {
    (0..projects).map(|project| project.to_string()).collect()
}

#[tokio::test]
async fn a_record_of_a_project_that_only_an_earlier_migration_had_is_rejected_with_the_reason() {
    for on_miss in [OnMiss::Reject, OnMiss::Hold] {
        let world = world(on_miss);
        assert_eq!(world.finish().await, (rejected(6, 4), None));
        assert_eq!(world.records()[5], r#"{"id":"r00005","project":"cloud-5"}"#);
        let reason = |project: usize| {
            format!(
                "{} r{project:05} rejected: jira/classic:project is not asked for \"{project}\", the id at \"/project\": it is the sourceId of no JiraProject of this migration",
                project + 1
            )
        };
        let reasons: Vec<String> = (6..10).map(reason).collect();
        assert_eq!(world.rejections(), reasons);
        let stored = world.ledger.stored.lock().unwrap();
        let namespace = stored.rejections[0].namespace.as_deref();
        assert_eq!(namespace, Some("jira/classic:project"));
        assert_eq!(asked(&world), own(6));
        assert_eq!(container_pages(&world), [None], "and nothing is read twice");
    }
}

#[tokio::test]
async fn what_is_not_this_migration_s_is_kept_or_replaced_as_declared() {
    let keeping = world(OnMiss::Keep);
    assert_eq!(keeping.finish().await, (applied(10), None));
    assert_eq!(keeping.records()[6], r#"{"id":"r00006","project":6}"#);
    let placing = world(OnMiss::Placeholder);
    assert_eq!(placing.finish().await, (applied(10), None));
    assert_eq!(
        placing.records()[6],
        r#"{"id":"r00006","project":"nowhere"}"#
    );
}

#[tokio::test]
async fn a_mapping_that_is_not_limited_asks_for_no_containers() {
    let mut world = world(OnMiss::Reject);
    world.import.mappings[0].within = None;
    assert_eq!(world.finish().await, (applied(10), None));
    assert_eq!(container_pages(&world), []);
}

#[tokio::test]
async fn records_without_ids_ask_for_no_containers() {
    let world = World::new("a.ndjson", numbered(10, |id| format!("{{\"id\":{id}}}\n")))
        .maps_project(OnMiss::Reject);
    assert_eq!(world.finish().await, (applied(10), None));
    assert_eq!(container_pages(&world), []);
}

#[tokio::test]
async fn containers_are_read_page_by_page_and_whoever_is_interrupted_goes_on_there() {
    let mut world = world(OnMiss::Reject);
    world.mappings.page_size = Some(2);
    let retry_after = Some(Duration::from_secs(3));
    world.mappings.container_errors.lock().unwrap().extend([
        None,
        Some(MappingsError::Throttled { retry_after }),
        Some(MappingsError::Unavailable {
            reason: "502".to_owned(),
        }),
    ]);
    let throttled = ("the platform asks to slow down".to_owned(), retry_after);
    assert_eq!(interruption(world.slice().await), throttled);
    let stumbled = ("mappings can't be looked up: 502".to_owned(), None);
    assert_eq!(interruption(world.slice().await), stumbled);
    assert_eq!(
        asked(&world),
        own(0),
        "nothing is decided by half of a list"
    );
    assert_eq!(world.finish().await, (rejected(6, 4), None));
    let at = |after: &str| Some(after.to_owned());
    assert_eq!(
        container_pages(&world),
        [None, at("2"), at("2"), at("2"), at("4")]
    );
    assert_eq!(asked(&world), own(6));
}

#[tokio::test]
async fn a_platform_that_refuses_to_list_containers_ends_the_file_with_the_reason() {
    let world = world(OnMiss::Reject);
    let reason = "the platform answered 400: bad request".to_owned();
    let refused = MappingsError::Refused {
        reason: reason.clone(),
    };
    world
        .mappings
        .container_errors
        .lock()
        .unwrap()
        .push_back(Some(refused));
    let problem = FileProblem::MappingsRefused { reason };
    assert_eq!(world.finish().await, (applied(0), Some(problem)));
}

#[tokio::test]
async fn more_containers_than_are_remembered_end_the_file_with_the_reason() {
    let mut world = world(OnMiss::Reject);
    world.mappings.projects = (0..50_000).map(|project| project.to_string()).collect();
    assert_eq!(world.finish().await, (applied(10), None));
    assert_eq!(container_pages(&world).len(), 200);
    let mut world = self::world(OnMiss::Reject);
    world.mappings.projects = (0..50_001).map(|project| project.to_string()).collect();
    let (counts, problem) = world.finish().await;
    assert_eq!(counts, applied(0));
    assert_eq!(
        problem.unwrap().to_string(),
        "mappings can't be looked up: of type JiraProject this migration has more than 50000 containers, or more than 200 pages of them; a mapping with within = \"JiraProject\" is compared with no more"
    );
    assert_eq!(
        container_pages(&world).len(),
        200,
        "and that is all that was read"
    );
}

#[tokio::test]
async fn where_the_platform_lists_no_container_of_the_type_the_file_ends_early_and_says_so() {
    let mut world = of_projects(5_000, 5_000, OnMiss::Hold);
    world.import.mappings[0].within = Some(ContainerType::ConfluenceSpace);
    world.import.mappings[0].namespace = "confluence:space".to_owned();
    let (counts, problem) = world.finish().await;
    assert_eq!(counts, rejected(0, 1_080));
    assert_eq!(
        problem.unwrap().to_string(),
        "1080 of 1080 records were rejected or held, more than 90 % (fail_above); most often of late: confluence:space is not asked for an id: the platform lists no ConfluenceSpace with a sourceId for this migration"
    );
    assert_eq!(asked(&world), own(0));
}

#[tokio::test]
async fn a_namespace_that_is_listed_as_a_whole_answers_for_no_project_of_an_earlier_migration() {
    let mut world = of_projects(2_000, 1_000, OnMiss::Reject);
    world.mapping_cache = Some(MappingCache::new(50_000));
    world.import.fail_above = Some("100%".to_owned());
    assert_eq!(world.finish().await, (rejected(1_000, 1_000), None));
    let calls = world.mappings.calls.lock().unwrap().len();
    let pages = world.mappings.pages.lock().unwrap().len();
    assert_eq!((calls, pages), (5, 1), "it was listed, with all mappings");
}

#[tokio::test]
async fn what_another_mapping_has_learnt_of_an_id_is_no_answer_where_it_is_not_this_migration_s() {
    let mut world = world(OnMiss::Reject);
    world.import.mappings.insert(
        0,
        Mapping {
            pointer: "/origin".to_owned(),
            within: None,
            ..world.import.mappings[0].clone()
        },
    );
    let bytes = "{\"id\":1,\"origin\":9}\n{\"id\":2,\"project\":9}\n{\"id\":3,\"origin\":9,\"project\":1}\n";
    world.store.bytes = bytes.into();
    assert_eq!(world.finish().await, (rejected(2, 1), None));
    assert_eq!(
        world.records(),
        [
            r#"{"id":1,"origin":"cloud-9"}"#,
            r#"{"id":3,"origin":"cloud-9","project":"cloud-1"}"#
        ]
    );
}

#[tokio::test]
async fn only_what_the_platform_was_asked_is_kept_as_used() {
    let world = world(OnMiss::Keep);
    world.finish().await;
    let stored = world.ledger.stored.lock().unwrap();
    let used = stored
        .mappings
        .values()
        .map(|packed| UsedMappings::unpack(packed).unwrap());
    let used: Vec<UsedMappings> = used.collect();
    let keys: BTreeSet<String> = used[0].mappings["jira/classic:project"]
        .keys()
        .cloned()
        .collect();
    assert_eq!((used.len(), keys), (1, own(6)));
}

#[tokio::test]
async fn a_re_run_asks_for_its_own_containers_and_applies_what_they_have_now() {
    let world = world(OnMiss::Reject);
    assert_eq!(world.finish().await, (rejected(6, 4), None));
    let bytes = world.store.bytes.clone();
    let mut again = world.next_attempt(bytes);
    again.mappings.projects = (1..8).map(|project| project.to_string()).collect();
    let counts = Counts {
        read: 10,
        applied: 2,
        unchanged: 5,
        held: 0,
        rejected: 3,
    };
    assert_eq!(again.finish().await, (counts, None));
    assert_eq!(
        asked(&again),
        (1..8).map(|project| project.to_string()).collect()
    );
}

/// A world that holds record 3, whose project is this migration's and has no mapping yet.
fn holding() -> World {
    let mut world = world(OnMiss::Hold);
    let late = ("jira/classic:project".to_owned(), "2".to_owned());
    world.mappings.known.remove(&late);
    world
}

#[tokio::test]
async fn a_second_pass_asks_for_the_containers_again_and_holds_only_what_a_mapping_can_help() {
    let mut world = holding();
    let Some(SliceOutcome::ReadAgain(checkpoint)) = world.slice().await else {
        panic!("a record is held");
    };
    assert_eq!((checkpoint.counts.held, checkpoint.counts.rejected), (1, 4));
    let late = ("jira/classic:project".to_owned(), "2".to_owned());
    world.mappings.known.insert(late, "cloud-2".to_owned());
    let cache = world.mapping_cache.as_ref().unwrap();
    let again = START + Duration::from_mins(15);
    cache.now_is(again);
    cache.asks_again_from(again);
    assert_eq!(world.finish().await, (rejected(6, 4), None));
    assert_eq!(container_pages(&world), [None, None]);
    assert_eq!(asked(&world), own(6));
}

#[tokio::test]
async fn a_second_pass_that_began_by_a_clock_ahead_of_this_one_reads_the_containers_once() {
    let world = holding();
    let cache = world.mapping_cache.as_ref().unwrap();
    cache.asks_again_from(START + Duration::from_mins(5));
    world.finish().await;
    assert_eq!(container_pages(&world), [None]);
}

#[tokio::test]
async fn containers_are_believed_for_an_hour() {
    let mut world = world(OnMiss::Reject);
    world.finish().await;
    for (minutes, pages) in [(59, 1), (60, 2)] {
        let cache = world.mapping_cache.as_ref().unwrap();
        cache.now_is(START + Duration::from_mins(minutes));
        world.ledger = crate::world::MemoryLedger::default();
        assert_eq!(world.finish().await, (rejected(6, 4), None));
        assert_eq!(container_pages(&world).len(), pages, "{minutes}");
    }
}
