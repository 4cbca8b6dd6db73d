use landfall_runtime::Clock;
use landfall_transfer::{ChainId, Phase, SettledBy, Timestamp, TransferId};
use serde_json::json;

use crate::world::{HOUR, MINUTE, World, records, tenant};

const MANIFEST: &str = r#"{"version":1,"files":[{"label":"a.ndjson"},{"label":"b.ndjson"}]}"#;

#[tokio::test]
async fn a_rerun_applies_only_what_is_missing_or_changed_and_is_listed_under_its_chain() {
    let world = World::start().await;
    world.begin("t-1", &[("k-a", "a.ndjson", &records(0..200))]);
    world.event("listener-triggered", "t-1", json!({})).await;
    world.all_uploaded("t-1").await;
    world.work().await;
    // The manifest never comes, the object store never has the second file, and the server is silent.
    world.uploaded("t-1", "nowhere", "b-1-of-2.ndjson").await;
    world.work().await;
    world.pass(80 * HOUR, HOUR).await;
    assert_eq!(world.platform.verdict().status, "FAILED");

    let changed = records(0..200).replacen("user-3", "user-4", 1);
    world.begin(
        "t-2",
        &[
            ("r-a", "a.ndjson", &changed),
            ("r-b", "b.ndjson", &records(0..40)),
            ("r-m", "export-manifest", MANIFEST),
        ],
    );
    for (key, label) in [
        ("r-b", "b.ndjson"),
        ("r-m", "export-manifest"),
        ("r-a", "a.ndjson"),
    ] {
        let more = json!({ "s3Key": key, "label": label, "originalTransferId": "t-1" });
        world.event("app-data-uploaded", "t-2", more).await;
    }
    world.work().await;

    let second = world.transfer("t-2").await;
    let counts = second.work.counts;
    assert_eq!(
        (counts.read, counts.applied, counts.unchanged),
        (240, 41, 199)
    );
    assert_eq!(second.original, Some(TransferId::new("t-1")));
    let attempts = world
        .store
        .attempts(&tenant(), &ChainId::new("t-1"))
        .await
        .unwrap();
    assert_eq!(
        attempts
            .iter()
            .map(|attempt| attempt.transfer.as_str())
            .collect::<Vec<_>>(),
        ["t-1", "t-2"]
    );
    assert!(
        world
            .target()
            .await
            .keys()
            .all(|key| key.starts_with("t-1 ")),
        "the original names the chain"
    );

    // The target is as after one clean run of the second export.
    let clean = World::start().await;
    clean.begin(
        "t-1",
        &[
            ("r-a", "a.ndjson", &changed),
            ("r-b", "b.ndjson", &records(0..40)),
            ("r-m", "export-manifest", MANIFEST),
        ],
    );
    clean.all_uploaded("t-1").await;
    clean.work().await;
    assert_eq!(world.target().await, clean.target().await);
}

#[tokio::test]
async fn a_rerun_knows_the_users_of_the_attempt_before_when_the_platform_has_forgotten_them() {
    let world = World::start().await;
    world.begin("t-1", &[("k-a", "a.ndjson", &records(0..20))]);
    world.event("listener-triggered", "t-1", json!({})).await;
    world.uploaded("t-1", "k-a", "a.ndjson").await;
    world.work().await;
    let forgotten = ["user-", "stranger"].map(str::to_owned);
    world.platform.knobs().forgotten.extend(forgotten);
    let stranger = "{\"id\":\"x\",\"author\":\"stranger\"}\n";
    let more = format!("{}{stranger}", records(20..40));
    world.begin("t-2", &[("r-b", "b.ndjson", &more)]);
    let event = json!({ "s3Key": "r-b", "label": "b.ndjson", "originalTransferId": "t-1" });
    world.event("app-data-uploaded", "t-2", event).await;
    world.work().await;
    world.pass(16 * MINUTE, MINUTE).await;
    let counts = world.transfer("t-2").await.work.counts;
    assert_eq!((counts.read, counts.applied, counts.held), (21, 20, 1));
    assert!(world.target().await["t-1 b.ndjson 21"].contains("cloud-user-0"));
}

#[tokio::test]
async fn once_a_rerun_has_begun_nothing_is_written_for_the_attempt_before() {
    let world = World::start().await;
    world.begin("t-1", &[("k-a", "a.ndjson", &records(0..20))]);
    world.event("listener-triggered", "t-1", json!({})).await;
    world.work().await;
    world.uploaded("t-1", "k-a", "a.ndjson").await;
    let late = world.queues.take("imports");
    world.begin("t-2", &[]);
    world
        .event(
            "listener-triggered",
            "t-2",
            json!({ "originalTransferId": "t-1" }),
        )
        .await;
    world.work().await;
    world.handle(late).await;
    assert!(world.target().await.is_empty());
    let Phase::Settled(settled) = world.transfer("t-1").await.phase else {
        panic!("not over")
    };
    assert_eq!(settled.by, SettledBy::Rerun(TransferId::new("t-2")));
}

#[tokio::test]
async fn an_event_of_the_first_attempt_that_comes_after_the_reruns_revives_nothing() {
    let world = World::start().await;
    world.begin("t-2", &[]);
    world
        .event(
            "listener-triggered",
            "t-2",
            json!({ "originalTransferId": "t-1" }),
        )
        .await;
    world.work().await;
    world
        .platform
        .knobs()
        .contents
        .insert("k".to_owned(), records(0..5));
    world.uploaded("t-1", "k", "a.ndjson").await;
    world.work().await;
    assert!(world.target().await.is_empty());
    assert!(!world.transfer("t-1").await.is_open());
    assert!(world.transfer("t-2").await.is_open());
}

#[tokio::test]
async fn a_late_event_of_an_older_rerun_does_not_stop_the_newest() {
    let world = World::start().await;
    world.begin("t-1", &[]);
    world.event("listener-triggered", "t-1", json!({})).await;
    world.work().await;
    // Adopted from the list, which doesn't say what it is a re-run of.
    world.begin("t-2", &[]);
    world.pass(HOUR, HOUR / 12).await;
    world.platform.knobs().active.clear();
    world.clock.advance(HOUR / 60);
    world.begin("t-3", &[]);
    world
        .event(
            "listener-triggered",
            "t-3",
            json!({ "originalTransferId": "t-1" }),
        )
        .await;
    world.work().await;
    world
        .event(
            "listener-triggered",
            "t-2",
            json!({ "originalTransferId": "t-1" }),
        )
        .await;
    world.work().await;
    assert!(world.transfer("t-3").await.is_open());
    assert!(!world.transfer("t-2").await.is_open());
}

#[tokio::test]
async fn a_rerun_that_a_machine_with_a_slow_clock_sees_first_is_still_the_newest_attempt() {
    let world = World::start().await;
    let [first, second, third] = ["t-1", "t-2", "t-3"].map(TransferId::new);
    let slow = Clock::manual(Timestamp::from_millis(
        world.clock.now().as_millis() - 300_000,
    ));
    let sees = async |clock: &Clock, id: &TransferId| {
        let original = (*id != first).then(|| first.clone());
        let machine = world.machine_with(clock);
        machine
            .observe(&tenant(), id, original, None, false)
            .await
            .unwrap()
    };
    sees(&world.clock, &first).await;
    sees(&world.clock, &second).await;
    let newest = sees(&slow, &third).await;
    assert!(newest.transfer.is_open(), "{:?}", newest.transfer.phase);
    assert!(!world.transfer("t-2").await.is_open());
    let attempts = world.store.attempts(&tenant(), &ChainId::new("t-1")).await;
    let order: Vec<_> = attempts
        .unwrap()
        .into_iter()
        .map(|one| one.transfer)
        .collect();
    assert_eq!(order, [first, second, third]);
}
