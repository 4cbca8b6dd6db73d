//! Held records are asked again before the verdict.

use landfall_processor::NoSink;
use landfall_transfer::clocks::own::INVOCATION_MARGIN;
use landfall_transfer::{Counts, TransferId};
use serde_json::json;

use crate::world::{HOUR, MINUTE, World, tenant};

const MANIFEST: &str = r#"{"version":1,"files":[{"label":"a.ndjson"}]}"#;

/// Records of which each third is of somebody whose mapping is late.
fn content(count: u32) -> String {
    let lines: Vec<String> = (1..=count)
        .map(|id| {
            let author = if id % 3 == 0 { "late" } else { "ann" };
            format!("{{\"id\":\"{id}\",\"author\":\"{author}\"}}\n")
        })
        .collect();
    lines.concat()
}

/// A transfer whose first pass has ended, with each third record held.
async fn held(more: &str, count: u32) -> World {
    let world = World::start_with(more, None::<NoSink>).await;
    let content = content(count);
    let files = [
        ("k", "a.ndjson", &*content),
        ("m", "export-manifest", MANIFEST),
    ];
    world.begin("t", &files);
    world.platform.knobs().forgotten.push("late".to_owned());
    world.all_uploaded("t").await;
    world.work().await;
    world
}

impl World {
    /// The mapping has come.
    fn late_is_mapped(&self) {
        self.platform.knobs().forgotten.clear();
    }

    async fn counts(&self) -> Counts {
        let file = self.store.file(&tenant(), &TransferId::new("t"), "k").await;
        file.unwrap().unwrap().counts
    }

    /// That the receipt has no differences, and the list these records.
    async fn lists(&self, records: &[u64]) {
        assert_eq!(self.exceptions("t").await, records);
        let receipt = self.receipt("t").await;
        assert_eq!(receipt["differences"], json!([]), "{receipt}");
        assert_eq!(receipt["exceptions"]["held"], json!(records.len()));
    }
}

const fn counts(applied: u64, held: u64) -> Counts {
    Counts {
        read: applied + held,
        applied,
        unchanged: 0,
        held,
        rejected: 0,
    }
}

#[tokio::test]
async fn a_transfer_whose_mapping_comes_while_it_waits_is_a_success() {
    let world = held("", 9).await;
    world.pass(14 * MINUTE, MINUTE).await;
    assert_eq!(world.counts().await, counts(6, 3));
    world.lists(&[3, 6, 9]).await;
    assert!(world.platform.settlements().is_empty());
    let told = world.explain("t").await.verdict;
    assert_eq!(
        told,
        "waiting for mappings of held records, which are asked again at 22 Nov 00:15 UTC, since 22 Nov 00:00 UTC"
    );
    let report = world.platform.knobs().calls.last().unwrap().message.clone();
    let because = "because 3 held records are asked again at 22 Nov 00:15 UTC";
    assert!(report.contains(because), "{report}");
    world.late_is_mapped();
    world.pass(2 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "SUCCESS", "{}", verdict.message);
    assert_eq!(world.counts().await, counts(9, 0));
    assert_eq!(world.target().await.len(), 9);
    world.lists(&[]).await;
    let timeline = world.explain("t").await.timeline;
    let revived = |line: &&landfall_sweeper::Line| line.what.contains("evived");
    assert_eq!(timeline.iter().filter(revived).count(), 0, "{timeline:#?}");
}

#[tokio::test]
async fn a_transfer_whose_mapping_never_comes_is_incomplete_with_each_record_listed_once() {
    let world = held("", 9).await;
    world.pass(17 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    assert_eq!(world.counts().await, counts(6, 3));
    world.lists(&[3, 6, 9]).await;
}

#[tokio::test]
async fn a_pause_of_hours_is_neither_stale_nor_ended_by_messages_that_come_early() {
    let world = held("[clocks]\nhold_again_after = \"5h 50m\"\n", 9).await;
    world.late_is_mapped();
    for _ in 0..5 {
        world.pass(HOUR, 5 * MINUTE).await;
        world.all_uploaded("t").await;
        world.work().await;
    }
    assert_eq!(world.counts().await, counts(6, 3));
    world.pass(49 * MINUTE, 7 * MINUTE).await;
    assert_eq!(world.counts().await, counts(6, 3));
    world.pass(2 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "SUCCESS", "{}", verdict.message);
}

#[tokio::test]
async fn a_file_whose_message_was_lost_while_it_waits_is_woken_by_the_sweeper() {
    let world = held("", 9).await;
    world.late_is_mapped();
    // Taken, and never worked on.
    world.lose_hidden();
    world.pass(16 * MINUTE, MINUTE).await;
    assert!(world.platform.settlements().is_empty());
    world.pass(3 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "SUCCESS", "{}", verdict.message);
}

#[tokio::test]
async fn a_transfer_that_is_cancelled_while_it_waits_lists_what_its_first_pass_held() {
    let world = held("", 9).await;
    world.pass(5 * MINUTE, MINUTE).await;
    let cancelled = "transfer-cancellation-requested";
    world.event(cancelled, "t", json!({})).await;
    world.work().await;
    world.late_is_mapped();
    world.pass(30 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    assert_eq!(world.counts().await, counts(6, 3));
    assert_eq!(world.target().await.len(), 6);
    world.lists(&[3, 6, 9]).await;
}

#[tokio::test]
async fn a_transfer_that_is_cancelled_in_its_second_pass_lists_what_its_first_pass_held() {
    let world = held("", 600).await;
    let listed: Vec<u64> = (1..=200).map(|number| number * 3).collect();
    world.pass(14 * MINUTE, MINUTE).await;
    world.late_is_mapped();
    world.clock.advance(MINUTE);
    for _ in 0..3 {
        let messages = world.visible();
        assert_eq!(messages.len(), 1);
        // It ends after its first batch.
        world.handle_within(INVOCATION_MARGIN, messages).await;
        assert_eq!(world.counts().await, counts(400, 200));
    }
    assert!(
        world.target().await.len() > 400,
        "the second pass is under way"
    );
    world.platform.knobs().forgotten.push("late".to_owned());
    let cancelled = "transfer-cancellation-requested";
    world.event(cancelled, "t", json!({})).await;
    world.work().await;
    world.pass(30 * MINUTE, MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    assert_eq!(world.counts().await, counts(400, 200));
    world.lists(&listed).await;
}
