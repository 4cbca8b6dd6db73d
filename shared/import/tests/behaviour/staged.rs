//! Files that the S3 sink has staged, imported from there: what reaches the target is what a direct import brings.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use landfall_import::declaration::{Format, Import, OnMiss};
use landfall_import::ports::{
    Delivery, Finished, Piece, PieceTaken, Sink, SinkError, SinkOutcome, Source,
};
use landfall_import::sink::s3::S3Sink;
use landfall_import::{
    Checkpoint, Counts, File, FileProblem, MappingCache, Ports, SliceOutcome, Target, import_slice,
};

use crate::bucket::{Fault, MemoryBucket};
use crate::world::{World, applied, lines, must_be_send, numbered};

/// A sink that keeps what it takes, once per idempotency key.
#[derive(Debug, Default)]
struct Recorder {
    deliveries: Mutex<HashSet<String>>,
    /// Keys and records, in the order of their coming.
    taken: Mutex<Vec<(String, Bytes)>>,
    pieces: Mutex<BTreeMap<u64, Bytes>>,
    /// Whether each file ended complete, as it was said.
    finished: Mutex<Vec<bool>>,
}

impl Recorder {
    fn taken(&self) -> Vec<(String, Bytes)> {
        self.taken.lock().unwrap().clone()
    }

    fn file(&self) -> Vec<u8> {
        let pieces = self.pieces.lock().unwrap();
        pieces.values().flatten().copied().collect()
    }

    fn finished(&self) -> Vec<bool> {
        self.finished.lock().unwrap().clone()
    }
}

impl Sink for Recorder {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let identity = delivery.idempotency_key.clone();
        if self.deliveries.lock().unwrap().insert(identity) {
            let records = delivery.records.iter();
            let taken = records.map(|landed| (landed.key.to_string(), landed.record.clone()));
            self.taken.lock().unwrap().extend(taken);
        }
        Ok(vec![SinkOutcome::Applied; delivery.records.len()])
    }

    fn piece_bytes(&self) -> usize {
        1024 * 1024
    }

    async fn deliver_piece(&self, piece: &Piece<'_>) -> Result<PieceTaken, SinkError> {
        let mut pieces = self.pieces.lock().unwrap();
        pieces.insert(piece.offset, piece.bytes.clone());
        Ok(PieceTaken {
            outcome: SinkOutcome::Applied,
            upload: None,
        })
    }

    async fn finish(&self, finished: &Finished<'_>) -> Result<(), SinkError> {
        self.finished.lock().unwrap().push(finished.complete);
        Ok(())
    }
}

fn file<'a>(world: &'a World, transfer: &'a str, import: &'a Import) -> File<'a> {
    File {
        tenant: "tenant-1",
        transfer,
        chain: "transfer-1",
        label: &world.label,
        key: "file-1",
        import,
        rerun: false,
    }
}

/// Slices until the file is finished, whatever interrupts them.
async fn import<S: Source, K: Sink>(
    world: &World,
    file: &File<'_>,
    source: &S,
    sink: &K,
) -> (Counts, Option<FileProblem>) {
    let out_of_time = || world.hurried;
    for _ in 0..1000 {
        let cache = MappingCache::new(10);
        let ports = Ports {
            source,
            ledger: &world.ledger,
            mappings: &world.mappings,
            mapping_cache: &cache,
            target: Target::Sink(sink),
        };
        let stored = world.ledger.stored.lock().unwrap().checkpoint.clone();
        let checkpoint =
            stored.map_or_else(Checkpoint::start, |text| Checkpoint::decode(&text).unwrap());
        let slice = import_slice(file, checkpoint, &ports, &world.limits, &out_of_time);
        if let SliceOutcome::Finished {
            counts, problem, ..
        } = must_be_send(slice).await
        {
            return (counts, problem);
        }
    }
    panic!("the file doesn't end");
}

/// What the file brings without a stage.
async fn directly(world: &World) -> Recorder {
    let recorder = Recorder::default();
    let file = file(world, "transfer-1", &world.import);
    let (_, problem) = import(world, &file, &world.store, &recorder).await;
    assert_eq!(problem, None);
    recorder
}

/// Stages the file of a world.
async fn stage(world: &World, bucket: &MemoryBucket) -> Counts {
    let sink = S3Sink::new(bucket.clone(), "staged/");
    let file = file(world, "transfer-1", &world.import);
    let (counts, problem) = import(world, &file, &world.store, &sink).await;
    assert_eq!(problem, None);
    counts
}

/// Imports what is staged, in another world of the same limits. `hurried` has each slice commit one batch.
async fn from_stage(
    world: &World,
    bucket: &MemoryBucket,
    hurried: bool,
) -> (Recorder, (Counts, Option<FileProblem>)) {
    let mut second = World::new(&world.label, "");
    second.limits = world.limits;
    second.hurried = hurried;
    let sink = S3Sink::new(bucket.clone(), "staged/");
    let source = sink.staged(&file(world, "transfer-1", &world.import));
    let recorder = Recorder::default();
    let staged = world.import.of_stage();
    let file = file(world, "transfer-1+2", &staged);
    let ended = import(&second, &file, &source, &recorder).await;
    assert!(second.mappings.calls.lock().unwrap().is_empty());
    assert!(second.mappings.pages.lock().unwrap().is_empty());
    assert!(second.mappings.container_pages.lock().unwrap().is_empty());
    (recorder, ended)
}

/// Records with ids of which all but one are known, escapes in their keys, and white space that stays.
fn exported() -> World {
    let text = numbered(10, |number| {
        let user = if number == 6 { "stranger" } else { "known" };
        format!("{{ \"id\":\"r\\u0000\\\"{number}\", \"user\":\"{user}\", \"n\":1.{number}0}}\n")
    });
    World::new("a.ndjson", text)
        .maps_user(OnMiss::Hold)
        .knows_user("known", "in-the-cloud")
}

/// The same without natural keys: each record's key is the hash of what was exported.
fn exported_without_key() -> World {
    let mut world = exported();
    world.import.natural_key = None;
    world
}

#[tokio::test]
async fn what_comes_from_the_stage_is_what_a_direct_import_brings_and_no_mapping_is_asked() {
    for (make, direct) in [
        (exported as fn() -> World, exported()),
        (exported_without_key, exported_without_key()),
    ] {
        let (direct, world, bucket) = (directly(&direct).await, make(), MemoryBucket::default());
        let counts = stage(&world, &bucket).await;
        assert_eq!((counts.applied, counts.held), (9, 1));
        let (staged, ended) = from_stage(&world, &bucket, false).await;
        assert_eq!(ended, (applied(9), None));
        assert_eq!(staged.taken(), direct.taken());
        assert_eq!(staged.finished(), [true]);
    }
}

#[tokio::test]
async fn what_is_not_of_this_migration_never_comes_into_the_stage() {
    let text = numbered(5, |number| {
        format!("{{\"id\":\"r{number}\",\"project\":{number}}}\n")
    });
    let world = World::new("a.ndjson", text)
        .maps_project(OnMiss::Hold)
        .knows_projects(0..5, 3);
    let bucket = MemoryBucket::default();
    let counts = stage(&world, &bucket).await;
    assert_eq!((counts.applied, counts.rejected), (3, 2));
    let (staged, ended) = from_stage(&world, &bucket, false).await;
    assert_eq!(ended, (applied(3), None));
    let keys: Vec<String> = staged.taken().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["r0", "r1", "r2"]);
}

#[tokio::test]
async fn what_was_an_array_rows_or_compressed_is_read_back_as_the_lines_that_were_staged() {
    let rows = numbered(10, |number| format!("r{number:04},{number}\n"));
    let csv = format!("id,n\n{rows}");
    let files = [
        ("a.json", Format::Auto, crate::world::array(10).into_bytes()),
        ("a.csv", Format::Csv, csv.into_bytes()),
        (
            "a.ndjson.gz",
            Format::Auto,
            crate::world::gzip(&lines(10), 2),
        ),
    ];
    for (label, format, bytes) in files {
        let make = || {
            let mut world = World::new(label, bytes.clone());
            world.import.format = format;
            world
        };
        let (world, bucket) = (make(), MemoryBucket::default());
        stage(&world, &bucket).await;
        let (staged, ended) = from_stage(&world, &bucket, false).await;
        assert_eq!(ended, (applied(10), None), "{label}");
        assert_eq!(staged.taken(), directly(&make()).await.taken(), "{label}");
    }
}

#[tokio::test]
async fn a_file_without_records_is_staged_and_imported_without_records() {
    let (world, bucket) = (World::new("a.ndjson", ""), MemoryBucket::default());
    stage(&world, &bucket).await;
    let (staged, ended) = from_stage(&world, &bucket, false).await;
    assert_eq!(ended, (applied(0), None));
    assert_eq!(staged.finished(), [true]);
}

#[tokio::test]
async fn a_crash_at_any_call_of_the_second_import_changes_nothing_nor_do_slices_of_one_batch() {
    let (world, bucket) = (exported(), MemoryBucket::default());
    stage(&world, &bucket).await;
    for hurried in [false, true] {
        let before = bucket.calls();
        let (clean, ended) = from_stage(&world, &bucket, hurried).await;
        assert_eq!(ended, (applied(9), None));
        assert_eq!(clean.taken(), directly(&exported()).await.taken());
        let calls = bucket.calls() - before;
        assert!(calls >= 4, "the index and three batches");
        for call in 0..calls {
            for fault in [Fault::NotDone, Fault::DoneUnheard] {
                bucket.fails_at(call, fault);
                let (staged, ended) = from_stage(&world, &bucket, hurried).await;
                assert_eq!(ended, (applied(9), None), "{call} {fault:?}");
                assert_eq!(staged.taken(), clean.taken(), "{call} {fault:?}");
                assert_eq!(staged.finished(), [true]);
            }
        }
    }
}

#[tokio::test]
async fn a_file_whose_index_or_an_object_of_it_is_gone_or_cut_short_never_ends_as_complete() {
    let (world, bucket) = (World::new("a.ndjson", lines(10)), MemoryBucket::default());
    stage(&world, &bucket).await;
    let objects = bucket.objects();
    assert_eq!(objects.len(), 4, "three batches and the index");
    for (name, content) in objects {
        for is_cut in [false, true] {
            if is_cut {
                bucket.tamper(&name, content.slice(..content.len() - 1));
            } else {
                bucket.delete(&name);
            }
            let (staged, (counts, problem)) = from_stage(&world, &bucket, false).await;
            assert!(
                matches!(problem, Some(FileProblem::SourceGone { .. })),
                "{name} {problem:?}"
            );
            assert_eq!(staged.finished(), [false]);
            assert_eq!(staged.taken().len() as u64, counts.applied);
            assert!(counts.applied < 10);
            bucket.tamper(&name, content.clone());
        }
    }
    let (_, ended) = from_stage(&world, &bucket, false).await;
    assert_eq!(ended, (applied(10), None), "all of it is there again");
}

#[tokio::test]
async fn a_line_that_somebody_else_wrote_is_rejected_and_the_others_are_imported() {
    let (world, bucket) = (World::new("a.ndjson", lines(4)), MemoryBucket::default());
    stage(&world, &bucket).await;
    let objects = bucket.objects();
    let (name, content) = objects
        .iter()
        .find(|(name, _)| name.ends_with(".ndjson"))
        .unwrap();
    let text = std::str::from_utf8(content).unwrap();
    bucket.tamper(name, text.replacen("\"key\"", "\"kay\"", 1));
    let (staged, (counts, problem)) = from_stage(&world, &bucket, false).await;
    assert_eq!((counts.applied, counts.rejected, problem), (3, 1, None));
    assert_eq!(staged.taken().len(), 3);
}

fn raw(content: Bytes) -> World {
    let mut world = World::new("logo.png", content);
    world.import.format = Format::Raw;
    world.store.chunk = 1_000_000;
    world
}

/// Bytes of a part of an upload.
const PART: usize = 8_388_608;

fn content(length: usize) -> Bytes {
    (0..251).cycle().take(length).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn a_raw_file_goes_through_byte_by_byte_and_can_be_opened_anywhere() {
    for length in [0, 1, 1000, PART, 2 * PART + 5] {
        let (world, bucket) = (raw(content(length)), MemoryBucket::default());
        assert_eq!(stage(&world, &bucket).await, applied(1));
        for hurried in [false, true] {
            let (staged, ended) = from_stage(&world, &bucket, hurried).await;
            assert_eq!(ended, (applied(1), None), "{length}");
            assert!(staged.file() == content(length), "{length}");
        }
        let source =
            S3Sink::new(bucket, "staged/").staged(&file(&world, "transfer-1", &world.import));
        for from in [0, 1, length / 2, PART, length.saturating_sub(1), length] {
            if from > length {
                continue;
            }
            let opened = source.open(from as u64).await.unwrap();
            assert_eq!(opened.starts_at, from as u64);
            assert_eq!(opened.total_bytes, Some(length as u64));
            let chunks: Vec<Bytes> = opened.stream.try_collect().await.unwrap();
            assert!(
                chunks.concat() == content(length)[from..],
                "{length} {from}"
            );
        }
    }
}

#[tokio::test]
async fn the_largest_record_is_staged_and_read_back_however_its_key_is_escaped() {
    // The limit of the world's records, and the longest key, each byte of which takes six in a line.
    for (key, limit) in [("k".to_owned(), 200), ("\\u0001".repeat(1024), 8000)] {
        let make = |more: usize| {
            let begin = format!("{{\"id\":\"{key}\",\"text\":\"");
            let rest = limit - begin.len() - 2 + more;
            let mut world = World::new("a.ndjson", format!("{begin}{}\"}}\n", "x".repeat(rest)));
            world.limits.record_bytes = limit;
            world.limits.batch_bytes = limit;
            world
        };
        let (world, bucket) = (make(0), MemoryBucket::default());
        assert_eq!(stage(&world, &bucket).await, applied(1));
        let (staged, ended) = from_stage(&world, &bucket, false).await;
        assert_eq!(ended, (applied(1), None));
        assert_eq!(staged.taken()[0].1.len(), limit);
        assert_eq!(staged.taken(), directly(&make(0)).await.taken());
        let counts = stage(&make(1), &MemoryBucket::default()).await;
        assert_eq!(counts.rejected, 1, "a longer one isn't staged at all");
    }
}

#[tokio::test]
async fn the_largest_record_is_read_back_also_when_its_ids_have_made_it_longer() {
    let cloud_id = "x".repeat(4_000);
    let make = || {
        let key = "\\u0001".repeat(1024);
        let begin = format!("{{\"id\":\"{key}\",\"user\":\"known\",\"text\":\"");
        let text = "x".repeat(8_000 - begin.len() - 2);
        let mut world = World::new("a.ndjson", format!("{begin}{text}\"}}\n"))
            .maps_user(OnMiss::Reject)
            .knows_user("known", &cloud_id);
        world.limits.record_bytes = 8_000;
        world.limits.batch_bytes = 8_000;
        world
    };
    let (world, bucket) = (make(), MemoryBucket::default());
    assert_eq!(stage(&world, &bucket).await, applied(1));
    let (staged, ended) = from_stage(&world, &bucket, false).await;
    assert_eq!(ended, (applied(1), None));
    assert_eq!(staged.taken(), directly(&make()).await.taken());
}
