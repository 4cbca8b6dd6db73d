//! What becomes of files, good and bad.

use landfall_import::declaration::Format;
use landfall_import::{Counts, FileProblem, SliceOutcome};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::world::{World, applied, array, gzip, keys, lines, numbered};

#[tokio::test]
async fn the_same_records_land_from_every_format() {
    for (label, bytes) in [
        ("a.ndjson", lines(10).into_bytes()),
        ("a.json", array(10).into_bytes()),
        ("a", lines(10).into_bytes()),
        ("a", array(10).into_bytes()),
        ("a.json", lines(10).into_bytes()),
        ("a.ndjson.gz", gzip(&lines(10), 1)),
        ("a.json.gz", gzip(&array(10), 3)),
        ("gzip-without-its-suffix", gzip(&lines(10), 2)),
        ("plain-with-the-suffix.ndjson.gz", lines(10).into_bytes()),
        ("a.ndjson", lines(10).replace('\n', "\r\n\r\n").into_bytes()),
        (
            "a.ndjson",
            format!("\u{feff}{}", lines(10).trim_end()).into_bytes(),
        ),
        ("a.json", format!("\u{feff} {}", array(10)).into_bytes()),
    ] {
        let world = World::new(label, bytes);
        assert_eq!(world.finish().await, (applied(10), None), "{label}");
        assert_eq!(world.landed(), keys(10), "{label}");
        assert_eq!(world.records().join("\n") + "\n", lines(10), "{label}");
    }
}

#[tokio::test]
async fn an_empty_file_has_no_records_and_no_problem_unless_it_should_be_an_array() {
    for bytes in [String::new(), "\n\n".to_owned(), "\u{feff}".to_owned()] {
        assert_eq!(
            World::new("a", bytes).finish().await,
            (Counts::default(), None)
        );
    }
    let mut world = World::new("a", "");
    world.import.format = Format::Json;
    assert_eq!(
        world.finish().await,
        (
            Counts::default(),
            Some(FileProblem::ArrayCutShort { offset: 0 })
        )
    );
}

#[tokio::test]
async fn a_file_that_is_not_the_declared_array_ends_at_once() {
    let mut world = World::new("a.json", lines(3));
    world.import.format = Format::Json;
    assert_eq!(
        world.finish().await,
        (
            Counts::default(),
            Some(FileProblem::NotAnArray { offset: 0 })
        )
    );
    assert_eq!(world.commits().len(), 1, "the end is committed");
}

#[tokio::test]
async fn a_broken_file_keeps_what_was_good_and_ends_with_its_problem() {
    let whole = array(10);
    let packed = gzip(&lines(10), 1);
    let two_members = gzip(&lines(10), 2);
    let damaged = {
        let mut damaged = two_members.clone();
        let at = damaged.len() - 6;
        damaged[at] ^= 0xff;
        damaged
    };
    let followed = [packed.as_slice(), b"this is not gzip any more"].concat();
    let all = lines(10).len() as u64;

    let cut = whole.len() - 5;
    let world = World::new("a.json", whole[..cut].to_owned());
    let (counts, problem) = world.finish().await;
    assert_eq!((counts, world.landed()), (applied(9), keys(9)));
    assert!(
        matches!(problem, Some(FileProblem::ArrayCutShort { .. })),
        "{problem:?}"
    );

    let broken = whole.replacen("},\n", "}\n", 3).replacen("}\n", "},\n", 2);
    let world = World::new("a.json", broken);
    let (counts, problem) = world.finish().await;
    assert_eq!((counts, world.landed()), (applied(3), keys(3)));
    assert!(
        matches!(problem, Some(FileProblem::ArrayBroken { .. })),
        "{problem:?}"
    );

    let world = World::new("a.json", format!("{whole}[]"));
    let (counts, problem) = world.finish().await;
    assert_eq!((counts, world.landed()), (applied(10), keys(10)));
    assert!(
        matches!(problem, Some(FileProblem::AfterArray { .. })),
        "{problem:?}"
    );

    let world = World::new("a.gz", followed);
    assert_eq!(
        world.finish().await,
        (applied(10), Some(FileProblem::GzipCorrupt { offset: all }))
    );

    let world = World::new("a.gz", damaged);
    assert_eq!(
        world.finish().await,
        (applied(10), Some(FileProblem::GzipCorrupt { offset: all }))
    );

    let world = World::new("a.gz", packed[..packed.len() - 4].to_vec());
    assert_eq!(
        world.finish().await,
        (applied(10), Some(FileProblem::GzipCutShort { offset: all }))
    );

    let world = World::new("a.gz", [packed.as_slice(), &[0; 512]].concat());
    assert_eq!(
        world.finish().await,
        (applied(10), Some(FileProblem::GzipCorrupt { offset: all }))
    );

    let world = World::new("a.gz", packed[..12].to_vec());
    assert_eq!(
        world.finish().await,
        (
            Counts::default(),
            Some(FileProblem::GzipCutShort { offset: 0 })
        )
    );
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_rejected_and_the_file_goes_on() {
    let text = [
        r#"{"id":1}"#,
        r#"{"id":2"#,
        r#"{"x":3}"#,
        r#"{"id":{}}"#,
        &format!(r#"{{"id":5,"x":"{}"}}"#, "x".repeat(300)),
        "oops",
        r#"{"id":7}"#,
    ]
    .join("\n");
    let world = World::new("a.ndjson", text.clone());
    let counts = Counts {
        read: 7,
        applied: 2,
        rejected: 5,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    let expected = [
        "2 - rejected: the record is not JSON: EOF while parsing an object at line 1 column 7",
        "3 - rejected: the record has no natural key at \"/id\"",
        "4 - rejected: the natural key at \"/id\" is neither a string nor a number",
        "5 - rejected: the record is larger than 200 bytes",
        "6 - rejected: the record is not JSON: expected value at line 1 column 1",
    ];
    assert_eq!(world.rejections(), expected);

    let elements = format!(
        "[{}]",
        text.replace("{\"id\":2\n", "{2}\n").replace('\n', ",")
    );
    let world = World::new("a.json", elements);
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(world.rejections()[1..], expected[1..]);
    assert_eq!(world.landed(), ["1", "7"]);
}

#[tokio::test]
async fn invalid_utf_8_and_endless_nesting_reject_their_record_only() {
    let mut text = b"{\"id\":1}\n{\"id\":\"\xff\"}\n".to_vec();
    text.extend(format!("{}\n{{\"id\":4}}\n", "[".repeat(150)).bytes());
    let world = World::new("a.ndjson", text);
    let (counts, problem) = world.finish().await;
    assert_eq!(
        (counts, problem),
        (
            Counts {
                read: 4,
                applied: 2,
                rejected: 2,
                ..Counts::default()
            },
            None
        )
    );
    assert!(
        world.rejections()[1].contains("nested deeper than 127"),
        "{:?}",
        world.rejections()
    );
}

#[tokio::test]
async fn without_a_natural_key_the_content_is_the_identity_and_the_record_passes_byte_by_byte() {
    let text = "{\"b\": 1.10, \"a\":1, \"a\":2}\n{\"b\": 1.10, \"a\":1, \"a\":2}\n{\"b\":1.10}\n";
    let mut world = World::new("a.ndjson", text);
    world.import.natural_key = None;
    let counts = Counts {
        read: 3,
        applied: 2,
        unchanged: 1,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    let mut records = world.records();
    records.sort();
    assert_eq!(records, ["{\"b\": 1.10, \"a\":1, \"a\":2}", "{\"b\":1.10}"]);
}

#[tokio::test]
async fn of_equal_keys_in_a_batch_the_last_record_lands_and_the_counts_balance() {
    let text = "{\"id\":1,\"x\":1}\n{\"id\":1,\"x\":2}\n{\"id\":1,\"x\":2}\n{\"id\":2}\n";
    let world = World::new("a.ndjson", text);
    let counts = Counts {
        read: 4,
        applied: 3,
        unchanged: 1,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(world.records(), ["{\"id\":1,\"x\":2}", "{\"id\":2}"]);
}

#[tokio::test]
async fn batches_are_bounded_by_count_and_bytes_and_do_not_depend_on_chunks_or_slices() {
    let long = |id: usize| format!("{{\"id\":{id},\"x\":\"{}\"}}\n", "x".repeat(150));
    let huge = format!("{{\"id\":99,\"x\":\"{}\"}}\n", "x".repeat(5000));
    let text: String = lines(9) + &(0..5).map(long).collect::<String>() + &huge + &lines(3);
    let mut expected = None;
    for bytes in [text.clone().into_bytes(), gzip(&text, 3)] {
        for chunk in [1, 7, 100, 100_000] {
            for hurried in [false, true] {
                let mut world = World::new("a.ndjson", bytes.clone());
                (world.store.chunk, world.hurried) = (chunk, hurried);
                world.finish().await;
                let commits = world.commits();
                assert_eq!(
                    expected.get_or_insert_with(|| commits.clone()),
                    &commits,
                    "{chunk} {hurried}"
                );
            }
        }
    }
    let sizes: Vec<u64> = expected
        .unwrap()
        .iter()
        .map(|(counts, _)| counts.read)
        .collect();
    assert_eq!(sizes, [4, 4, 3, 2, 2, 3]);
}

#[tokio::test]
async fn a_slice_out_of_time_commits_one_batch_and_continues() {
    let mut world = World::new("a.ndjson", lines(10));
    world.hurried = true;
    let Some(SliceOutcome::Continue(checkpoint)) = world.slice().await else {
        panic!("it goes on")
    };
    assert_eq!(checkpoint.counts, applied(4));
    assert_eq!(checkpoint.record_number, 4);
    assert_eq!(world.commits().len(), 1);
    assert_eq!(world.finish().await, (applied(10), None));
    assert_eq!(world.landed(), keys(10));
}

#[tokio::test]
async fn a_finished_file_stays_finished_without_being_opened_again() {
    let world = World::new("a.json", &b"[{\"id\":1},"[..]);
    let first = world.finish().await;
    let opened = world.store.opened_at.lock().unwrap().len();
    assert_eq!(world.finish().await, first);
    assert_eq!(world.store.opened_at.lock().unwrap().len(), opened);
    assert_eq!(world.commits().len(), 1);
}

#[tokio::test]
async fn an_endless_record_is_skipped_over_several_slices_with_a_checkpoint_in_its_middle() {
    let endless = format!("{{\"id\":9,\"x\":[\"{}\"]}}", "]\\\"".repeat(10_000_000));
    for text in [
        format!("{}{endless}\n{}", lines(2), lines(4)),
        format!("[{{\"id\":0}},{{\"id\":1}},{endless}, {{\"id\":2}}, {{\"id\":3}}]"),
    ] {
        let mut world = World::new("a", text);
        (world.hurried, world.store.chunk) = (true, 65_536);
        let (counts, problem) = world.finish().await;
        assert_eq!(problem, None);
        assert_eq!(counts.rejected, 1);
        assert_eq!(
            world.rejections(),
            ["3 - rejected: the record is larger than 200 bytes"]
        );
        assert_eq!(world.ledger.stored.lock().unwrap().target.len(), 4);
        let empty = world
            .commits()
            .iter()
            .filter(|(counts, _)| counts.read == 0)
            .count();
        assert!(empty >= 3, "checkpoints inside the record: {empty}");
    }
}

#[tokio::test]
async fn a_record_that_a_table_item_can_not_hold_is_rejected_with_the_reason() {
    let text = format!(
        "{{\"id\":1,\"x\":\"{}\"}}\n{{\"id\":2}}\n",
        "x".repeat(400_000)
    );
    let mut world = World::new("a.ndjson", text);
    world.limits = landfall_import::Limits::default();
    world.store.chunk = 16_384;
    let counts = Counts {
        read: 2,
        applied: 1,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(
        world.rejections(),
        [
            "1 1 rejected: the record is larger than 383616 bytes, the most that the records table holds"
        ]
    );
}

#[tokio::test]
async fn a_zstd_file_is_read_like_any_other_and_entered_where_a_frame_begins() {
    let text = numbered(60, |id| {
        let filling = numbered(20_000, |n| format!("{:x} ", (n * 7919 + id * 31) % 9973));
        format!("{{\"id\":{id},\"text\":\"{filling}\"}}\n")
    });
    let frames = text.as_bytes().chunks(1_000_000);
    let stored: Vec<u8> = frames
        .flat_map(|part| compress_to_vec(part, CompressionLevel::Fastest))
        .collect();
    let mut world = World::new("a.ndjson.zst", stored);
    world.limits.record_bytes = 200_000;
    world.limits.batch_records = 10;
    world.limits.batch_bytes = 2_000_000;
    world.store.chunk = 65_536;
    world.hurried = true;
    assert_eq!(world.finish().await, (applied(60), None));
    let opened_at = world.store.opened_at.lock().unwrap().clone();
    assert!(
        opened_at.is_sorted() && *opened_at.last().unwrap() > 0,
        "{opened_at:?}"
    );
}

#[tokio::test]
async fn a_zstd_file_that_is_cut_short_keeps_what_was_good() {
    let stored = [
        compress_to_vec(&b"{\"id\":1}\n"[..], CompressionLevel::Fastest),
        compress_to_vec(&b"{\"id\":2}\n"[..], CompressionLevel::Fastest)[..12].to_vec(),
    ]
    .concat();
    let world = World::new("a.ndjson.zst", stored);
    assert_eq!(
        world.finish().await,
        (applied(1), Some(FileProblem::ZstdCutShort { offset: 9 }))
    );
}

#[tokio::test]
async fn more_than_is_taken_of_one_file_ends_it_and_what_came_before_is_kept() {
    // Some 10 KB that become 10 MB.
    let bomb = numbered(10, |id| {
        format!("{{\"id\":{id}}}{}\n", " ".repeat(1_000_000))
    });
    for bytes in [gzip(&bomb, 1), bomb.clone().into_bytes()] {
        let mut world = World::new("a.ndjson", bytes);
        world.limits.record_bytes = 1_100_000;
        world.limits.batch_bytes = 2_000_000;
        world.limits.file_bytes = 5_500_000;
        world.store.chunk = 4096;
        let (counts, problem) = world.finish().await;
        assert_eq!(counts, applied(5));
        assert_eq!(problem, Some(FileProblem::TooLarge { max: 5_500_000 }));
    }
}
