//! The S3 sink against a bucket in memory, and a consumer that reads the bucket as the README says.

use std::collections::BTreeMap;

use bytes::Bytes;
use landfall_import::declaration::{Format, OnMiss};
use landfall_import::sink::s3::S3Sink;
use landfall_import::{
    Checkpoint, Counts, File, FileProblem, MappingCache, Ports, SliceOutcome, Target, import_slice,
};
use serde_json::Value;

use crate::bucket::{Fault, MemoryBucket};
use crate::world::{World, applied, lines, must_be_send};

async fn slice(world: &World, transfer: &str, bucket: &MemoryBucket) -> SliceOutcome {
    let file = File {
        tenant: "tenant-1",
        transfer,
        chain: "transfer-1",
        label: &world.label,
        key: "file-1",
        import: &world.import,
        rerun: world.rerun,
    };
    let sink = S3Sink::new(bucket.clone(), "in/");
    let cache = MappingCache::new(10);
    let ports = Ports {
        source: &world.store,
        ledger: &world.ledger,
        mappings: &world.mappings,
        mapping_cache: &cache,
        target: Target::Sink(&sink),
    };
    let stored = world.ledger.stored.lock().unwrap().checkpoint.clone();
    let checkpoint =
        stored.map_or_else(Checkpoint::start, |text| Checkpoint::decode(&text).unwrap());
    let out_of_time = || world.hurried;
    let slice = import_slice(&file, checkpoint, &ports, &world.limits, &out_of_time);
    must_be_send(slice).await
}

async fn finish(
    world: &World,
    transfer: &str,
    bucket: &MemoryBucket,
) -> (Counts, Option<FileProblem>) {
    for _ in 0..100 {
        if let SliceOutcome::Finished {
            counts, problem, ..
        } = slice(world, transfer, bucket).await
        {
            return (counts, problem);
        }
    }
    panic!("the file doesn't end");
}

/// The next attempt of the chain exports this.
fn export_again(world: &mut World, content: impl Into<Bytes>) {
    world.rerun = true;
    world.store.bytes = content.into();
    let stored = world.ledger.stored.get_mut().unwrap();
    stored.checkpoint = None;
    // The next attempt of the chain.
    stored.attempts.push(BTreeMap::new());
}

/// What a consumer must have of [`lines`].
fn expected(count: usize) -> BTreeMap<String, String> {
    lines(count)
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            (record["id"].as_str().unwrap().to_owned(), line.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn records_lie_by_chain_and_label_and_the_index_says_which_objects_and_in_which_order() {
    let bucket = MemoryBucket::default();
    let world = World::new("pages/1.ndjson", lines(10));
    assert_eq!(
        finish(&world, "transfer-1", &bucket).await,
        (applied(10), None)
    );
    assert_eq!(bucket.records("transfer-1"), expected(10));
    let folder = "in/tenant-1/transfer-1/pages%2F1.ndjson/transfer-1/";
    let objects = bucket.objects();
    assert!(objects.keys().all(|name| name.starts_with(folder)));
    let index = bucket.indexes("transfer-1").remove(0);
    assert_eq!(
        (
            &index["label"],
            &index["complete"],
            &index["counts"]["applied"]
        ),
        (&"pages/1.ndjson".into(), &true.into(), &10.into())
    );
    let listed: Vec<&str> = index["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| object["name"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    let at = |record: usize| format!("{:020}.ndjson", lines(record).len());
    assert_eq!(listed, [at(0), at(4), at(8)]);
    assert_eq!(objects.len(), 4, "three batches and the index");
}

#[tokio::test]
async fn a_crash_at_any_call_leaves_the_same_objects_as_a_clean_run() {
    let clean = MemoryBucket::default();
    finish(&World::new("a.ndjson", lines(10)), "transfer-1", &clean).await;
    let calls = clean.calls();
    for call in 0..calls {
        for fault in [Fault::NotDone, Fault::DoneUnheard] {
            let bucket = MemoryBucket::default();
            bucket.fails_at(call, fault);
            let world = World::new("a.ndjson", lines(10));
            let outcome = finish(&world, "transfer-1", &bucket).await;
            assert_eq!(outcome, (applied(10), None));
            assert_eq!(bucket.objects(), clean.objects(), "{call} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_rerun_counts_what_an_attempt_that_was_stopped_in_the_middle_left() {
    let bucket = MemoryBucket::default();
    let mut world = World::new("a.ndjson", lines(10));
    world.hurried = true;
    slice(&world, "transfer-1", &bucket).await;
    assert!(bucket.indexes("transfer-1").is_empty(), "no file has ended");

    world.hurried = false;
    let changed = lines(12).replace("\"n\":3}", "\"n\":33}");
    export_again(&mut world, changed);
    let counts = Counts {
        read: 12,
        applied: 9,
        unchanged: 3,
        ..Counts::default()
    };
    assert_eq!(finish(&world, "transfer-2", &bucket).await, (counts, None));
    let mut records = expected(12);
    records.insert("r0003".to_owned(), r#"{"id":"r0003","n":33}"#.to_owned());
    assert_eq!(bucket.records("transfer-2"), records);

    // A third attempt in which nothing changed delivers nothing, and its index still says all of it.
    export_again(&mut world, lines(12).replace("\"n\":3}", "\"n\":33}"));
    assert_eq!(finish(&world, "transfer-3", &bucket).await.0.unchanged, 12);
    assert_eq!(bucket.records("transfer-3"), records);
    assert_eq!(
        bucket.indexes("transfer-3")[0]["objects"],
        Value::Array(Vec::new())
    );
}

#[tokio::test]
async fn a_file_that_ends_early_says_so_in_its_index() {
    let bucket = MemoryBucket::default();
    let world = World::new("a.json", "[{\"id\":1},{\"id\":2}");
    assert!(finish(&world, "transfer-1", &bucket).await.1.is_some());
    assert_eq!(bucket.indexes("transfer-1")[0]["complete"], false);
    assert_eq!(bucket.records("transfer-1").len(), 2);
}

const PIECE: usize = 8_388_608;

fn raw(content: Bytes) -> World {
    let mut world = World::new("logo.png", content);
    world.import.format = Format::Raw;
    world.store.chunk = 1_000_000;
    world
}

fn content(length: usize) -> Bytes {
    let mut bytes = (0..251).collect::<Vec<u8>>().repeat(length / 251 + 1);
    bytes.truncate(length);
    bytes.into()
}

#[tokio::test]
async fn a_raw_file_is_one_object_whatever_crashes_on_the_way() {
    for length in [0, PIECE, PIECE + 1] {
        let content = content(length);
        let clean = MemoryBucket::default();
        let world = raw(content.clone());
        let outcome = finish(&world, "transfer-1", &clean).await;
        assert_eq!(outcome, (applied(1), None));
        let index = clean.indexes("transfer-1").remove(0);
        assert_eq!(
            clean.named(&index["objects"]),
            std::slice::from_ref(&content)
        );
        assert_eq!(clean.objects().len(), 2, "the file and its index");

        let calls = clean.calls();
        for call in 0..calls {
            for fault in [Fault::NotDone, Fault::DoneUnheard] {
                let bucket = MemoryBucket::default();
                bucket.fails_at(call, fault);
                let world = raw(content.clone());
                let outcome = finish(&world, "transfer-1", &bucket).await;
                assert_eq!(outcome, (applied(1), None), "{length} {call} {fault:?}");
                assert_eq!(bucket.objects(), clean.objects());
            }
        }
    }
}

#[tokio::test]
async fn the_index_of_a_raw_file_that_did_not_change_names_the_object_of_an_earlier_attempt() {
    let bucket = MemoryBucket::default();
    let mut world = raw(content(1000));
    finish(&world, "transfer-1", &bucket).await;
    export_again(&mut world, content(1000));
    assert_eq!(finish(&world, "transfer-2", &bucket).await.0.unchanged, 1);
    let object = |transfer: &str| bucket.indexes(transfer)[0]["objects"][0]["name"].clone();
    assert_eq!(object("transfer-2"), object("transfer-1"));

    export_again(&mut world, content(1001));
    assert_eq!(finish(&world, "transfer-3", &bucket).await.0.applied, 1);
    export_again(&mut world, content(1001));
    assert_eq!(finish(&world, "transfer-4", &bucket).await.0.unchanged, 1);
    assert_ne!(object("transfer-3"), object("transfer-1"));
    assert_eq!(object("transfer-4"), object("transfer-3"));
    assert_eq!(
        bucket.named(&bucket.indexes("transfer-4")[0]["objects"]),
        [content(1001)]
    );
}

#[tokio::test]
async fn an_upload_that_was_aborted_from_outside_ends_the_file_and_a_rerun_brings_it_again() {
    let bucket = MemoryBucket::default();
    let mut world = raw(content(PIECE + 1));
    world.hurried = true;
    slice(&world, "transfer-1", &bucket).await;
    bucket.abort_uploads();
    let reason = "the file's upload was aborted from outside".to_owned();
    assert_eq!(
        finish(&world, "transfer-1", &bucket).await,
        (Counts::default(), Some(FileProblem::SinkRefused { reason }))
    );
    export_again(&mut world, content(PIECE + 1));
    assert_eq!(
        finish(&world, "transfer-2", &bucket).await,
        (applied(1), None)
    );
}

#[tokio::test]
async fn what_a_second_pass_puts_lies_behind_the_first_and_replaces_none_of_its_objects() {
    let bucket = MemoryBucket::default();
    let text = lines(10)
        .replace("\"n\":1}", "\"n\":1,\"user\":\"late\"}")
        .replace("\"n\":7}", "\"n\":7,\"user\":\"late\"}");
    let mut world = World::new("pages.ndjson", text.clone()).maps_user(OnMiss::Hold);
    let first = loop {
        if let SliceOutcome::ReadAgain(checkpoint) = slice(&world, "transfer-1", &bucket).await {
            break checkpoint.counts;
        }
    };
    assert_eq!((first.applied, first.held), (8, 2));
    assert!(bucket.indexes("transfer-1").is_empty(), "more follows");
    let objects = bucket.objects();
    world = world.knows_user("late", "late");
    let ended = finish(&world, "transfer-1", &bucket).await;
    assert_eq!(ended, (applied(10), None));
    let after = bucket.objects();
    assert!(objects.iter().all(|(name, content)| after[name] == content));
    let found = bucket.records("transfer-1");
    assert_eq!(found.len(), 10);
    assert!(
        found
            .values()
            .zip(text.lines())
            .all(|(one, other)| one == other)
    );
    let index = &bucket.indexes("transfer-1")[0];
    assert_eq!(index["counts"]["applied"], 10);
}
