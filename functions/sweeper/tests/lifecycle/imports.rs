use landfall_tracking::{Claim, Ending, NewFile};
use landfall_transfer::{Clocks, Counts, FileOutcome, TransferId};
use serde_json::json;

use crate::world::{HOUR, MINUTE, World, records, tenant};

#[tokio::test]
async fn a_migration_with_a_manifest_is_imported_and_settled_without_waiting() {
    let world = World::start().await;
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson","records":50},{"label":"b.json","records":2}]}"#;
    world.begin(
        "t",
        &[
            ("k-a", "a.ndjson", &records(0..50)),
            (
                "k-b",
                "b.json",
                r#"[{"id":"1","author":"x"},{"id":"2","author":7}]"#,
            ),
            ("k-m", "export-manifest", manifest),
        ],
    );
    world.event("listener-triggered", "t", json!({})).await;
    world.all_uploaded("t").await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(
        (verdict.status.as_str(), verdict.percent),
        ("SUCCESS", Some(100)),
        "{}",
        verdict.message
    );
    assert_eq!(world.target().await.len(), 52);
    assert!(world.target().await["t b.json 2"].contains("cloud-7"));
    assert!(world.transfer("t").await.is_settled());
}

#[tokio::test]
async fn a_file_of_another_length_or_digest_than_the_manifest_says_is_missing() {
    let content = r#"[{"id":"1","author":"x"},{"id":"2","author":7}]"#;
    let digest = "24566c4fb6301310c12f106c684ae7b0697bee37f1978f359c028d5f7db7dc3d";
    let other = digest.replace('2', "0");
    for (bytes, sha256, said) in [
        (47, digest, None),
        (48, digest, Some("b.json: 47 bytes, the manifest says 48")),
        (
            47,
            &*other,
            Some("b.json: SHA-256 24566c4fb6301310…, the manifest says 04566c4fb6301310…"),
        ),
    ] {
        let world = World::start().await;
        let manifest = format!(
            r#"{{"version":1,"files":[{{"label":"b.json","records":2,"bytes":{bytes},"sha256":"{sha256}"}}]}}"#
        );
        world.begin(
            "t",
            &[
                ("k-b", "b.json", content),
                ("k-m", "export-manifest", &manifest),
            ],
        );
        world.all_uploaded("t").await;
        world.work().await;
        let verdict = world.platform.verdict();
        let status = if said.is_some() {
            "INCOMPLETE"
        } else {
            "SUCCESS"
        };
        assert_eq!(verdict.status, status, "{}", verdict.message);
        let said = said.unwrap_or_default();
        assert!(verdict.message.contains(said), "{}", verdict.message);
    }
}

#[tokio::test]
async fn without_a_manifest_the_quiet_period_and_the_list_decide() {
    let world = World::start().await;
    world.begin("t", &[("k-a", "a.ndjson", &records(0..5))]);
    world.all_uploaded("t").await;
    world.work().await;
    world.pass(23 * HOUR, HOUR).await;
    assert!(
        world.platform.settlements().is_empty(),
        "a day of quiet is the default"
    );
    world.pass(2 * HOUR, HOUR / 4).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "SUCCESS");
    assert!(
        verdict.message.contains("file list after a quiet period"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn any_order_and_any_number_of_deliveries_end_in_the_same_target() {
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson"},{"label":"b.ndjson"}]}"#;
    let mut targets = Vec::new();
    for rotation in 0..5 {
        let world = World::start().await;
        world.begin(
            "t",
            &[
                ("k-a", "a.ndjson", &records(0..120)),
                ("k-b", "b.ndjson", &records(100..250)),
                ("k-m", "export-manifest", manifest),
            ],
        );
        for _ in 0..=rotation {
            world.all_uploaded("t").await;
            world.event("listener-triggered", "t", json!({})).await;
        }
        let mut messages = world.queues.take("imports");
        messages.extend(world.queues.take("events"));
        let number = messages.len();
        messages.rotate_left(rotation * 7 % number);
        world.handle(messages).await;
        world.pass(5 * MINUTE, MINUTE).await;
        assert_eq!(world.platform.verdict().status, "SUCCESS");
        targets.push(world.target().await);
    }
    assert!(targets.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(targets[0].len(), 270);
}

#[tokio::test]
async fn a_record_that_can_not_be_read_or_mapped_never_stops_the_file() {
    let world = World::start().await;
    let content = "{\"id\":\"1\",\"author\":\"a\"}\nnot json\n{\"author\":\"b\"}\n{\"id\":\"4\",\"author\":\"hole-1\"}\n{\"id\":\"5\"}\n";
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", content),
            (
                "m",
                "export-manifest",
                r#"{"version":1,"files":[{"label":"a.ndjson"}]}"#,
            ),
        ],
    );
    world.all_uploaded("t").await;
    world.work().await;
    // The held record is asked again.
    world.pass(16 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE");
    let counts = world.transfer("t").await.work.counts;
    assert_eq!(
        (counts.read, counts.applied, counts.held, counts.rejected),
        (5, 2, 1, 2)
    );
    assert!(counts.balances());
}

#[tokio::test]
async fn late_data_of_a_settled_transfer_is_left_alone() {
    let world = World::start().await;
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..3)),
            (
                "m",
                "export-manifest",
                r#"{"version":1,"files":[{"label":"a.ndjson"}]}"#,
            ),
        ],
    );
    world.all_uploaded("t").await;
    world.work().await;
    let before = world.target().await;
    world
        .platform
        .knobs()
        .contents
        .insert("late".to_owned(), records(50..60));
    world.uploaded("t", "late", "late.ndjson").await;
    world.event("listener-triggered", "t", json!({})).await;
    world.work().await;
    world.pass(HOUR, 10 * MINUTE).await;
    assert_eq!(world.target().await, before);
    assert_eq!(world.platform.settlements().len(), 1);
}

#[tokio::test]
async fn progress_is_reported_at_most_once_a_minute_and_never_falls() {
    let world = World::start().await;
    let files: Vec<(String, String)> = (0..12)
        .map(|n| (format!("k-{n}"), format!("f-{n}.ndjson")))
        .collect();
    let content = records(0..3);
    let described: Vec<(&str, &str, &str)> = files
        .iter()
        .map(|(key, label)| (key.as_str(), label.as_str(), content.as_str()))
        .collect();
    world.begin("t", &described);
    let mut reports_by_minute = Vec::new();
    for (key, label) in &files {
        world.uploaded("t", key, label).await;
        world.work().await;
        reports_by_minute.push(world.platform.knobs().calls.len());
        world.clock.advance(MINUTE / 2);
    }
    assert!(
        reports_by_minute
            .windows(3)
            .all(|three| three[2] - three[0] <= 1),
        "{reports_by_minute:?}"
    );
    let percents: Vec<u64> = world
        .platform
        .knobs()
        .calls
        .iter()
        .filter_map(|call| call.percent)
        .collect();
    assert!(!percents.is_empty() && percents.is_sorted(), "{percents:?}");
    assert!(percents.iter().all(|percent| (1..=99).contains(percent)));
}

/// Keys and labels of two files: the manifest, and all that it names.
const MANIFEST: (&str, &str) = ("k-m", "export-manifest");
const NAMED: (&str, &str) = ("k-a", "a.ndjson");

/// A world in which the first of them is imported and the last not yet taken up.
async fn with_one_imported(first: (&str, &str), last: (&str, &str)) -> World {
    let world = World::start().await;
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson","records":5}]}"#;
    let content = records(0..5);
    let files = [
        (MANIFEST.0, MANIFEST.1, manifest),
        (NAMED.0, NAMED.1, &*content),
    ];
    world.begin("t", &files);
    world.uploaded("t", first.0, first.1).await;
    world.work().await;
    assert!(world.transfer("t").await.is_open());
    world.uploaded("t", last.0, last.1).await;
    world
}

#[tokio::test]
async fn whoever_ends_the_last_file_settles_its_transfer_without_a_sweep() {
    for (first, last) in [(MANIFEST, NAMED), (NAMED, MANIFEST)] {
        let world = with_one_imported(first, last).await;
        world.work().await;
        assert_eq!(world.platform.verdict().status, "SUCCESS", "{last:?}");
    }
}

#[tokio::test]
async fn a_message_that_comes_again_for_a_file_that_has_ended_settles_its_transfer_without_a_sweep()
{
    let world = with_one_imported(MANIFEST, NAMED).await;
    let last = world.visible();
    // Its worker ends it, and dies before it has looked for others.
    let (tenant, id) = (tenant(), TransferId::new("t"));
    let file = NewFile {
        tenant: tenant.clone(),
        transfer: id.clone(),
        s3_key: "k-a".to_owned(),
        label: Some("a.ndjson".to_owned()),
        event: None,
        message_id: None,
        received_at: world.clock.now(),
    };
    world.store.announce(&file, MINUTE).await.unwrap();
    let now = world.clock.now();
    let claim = world
        .store
        .claim(&tenant, &id, "k-a", "dead worker", MINUTE, now);
    let Claim::Claimed(claimed) = claim.await.unwrap() else {
        panic!("it is not claimed")
    };
    let counts = Counts {
        read: 5,
        applied: 5,
        ..Counts::default()
    };
    let ending = Ending::new(FileOutcome::Imported, counts);
    let clocks = Clocks::default();
    let ended = world.store.end(&claimed.lease, &ending, now, &clocks);
    assert!(ended.await.unwrap());
    assert!(world.transfer("t").await.is_open());
    assert_eq!(world.handle(last).await, 0);
    assert_eq!(world.platform.verdict().status, "SUCCESS");
}
