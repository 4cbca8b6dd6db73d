use super::*;

fn file(label: &str, read: u64) -> FileFacts {
    FileFacts {
        label: Some(label.to_owned()),
        ended: true,
        unreadable: false,
        read,
        measure: Measure::default(),
    }
}

fn manifest(files: &[(&str, Option<u64>)]) -> Manifest {
    Manifest::new(
        1,
        files
            .iter()
            .map(|(label, records)| ((*label).to_owned(), counted_as(*records))),
    )
    .unwrap()
}

fn counted_as(records: Option<u64>) -> Declared {
    Declared {
        records,
        ..Declared::default()
    }
}

/// A length, and a digest of one digit, repeated.
fn measure(bytes: u64, digit: char) -> Measure {
    let digits: String = std::iter::repeat_n(digit, 64).collect();
    Measure {
        bytes: Some(bytes),
        sha256: Digest::new(digits),
    }
}

fn measured(file: FileFacts, bytes: u64, digit: char) -> FileFacts {
    FileFacts {
        measure: measure(bytes, digit),
        ..file
    }
}

/// Three records in seven bytes of the digest `a…`.
fn manifest_of_a() -> Manifest {
    let declared = Declared {
        records: Some(3),
        measure: measure(7, 'a'),
    };
    Manifest::new(1, [("a".to_owned(), declared)]).unwrap()
}

const QUIET: Option<Evidence> = Some(Evidence::FileList);
const FAILED: Option<Evidence> = Some(Evidence::ListenerError);
const EXPORTED: Option<Evidence> = Some(Evidence::ExportComplete);

fn found(
    files: &[FileFacts],
    manifest: Option<&Manifest>,
    evidence: Option<Evidence>,
) -> Completeness {
    evaluate(&ExportFacts {
        files,
        manifest,
        counted_labels: true,
        evidence,
    })
}

fn complete(evidence: Evidence, missing: &[&str]) -> Completeness {
    Completeness::Complete {
        evidence,
        missing: missing.iter().map(|what| (*what).to_owned()).collect(),
    }
}

fn waiting(what: &str) -> Completeness {
    Completeness::Waiting(what.to_owned())
}

#[test]
fn a_manifest_whose_files_are_all_there_completes_at_once_whatever_else_is_known() {
    let manifest = manifest(&[("a", Some(3))]);
    for evidence in [None, QUIET, EXPORTED, FAILED] {
        assert_eq!(
            found(&[file("a", 3)], Some(&manifest), evidence),
            complete(Evidence::Manifest, &[])
        );
    }
}

#[test]
fn a_manifest_that_names_no_file_completes_an_export_without_files() {
    assert_eq!(
        found(&[], Some(&manifest(&[])), None),
        complete(Evidence::Manifest, &[])
    );
}

#[test]
fn a_file_that_the_manifest_names_is_waited_for_however_quiet_it_is() {
    let manifest = manifest(&[("a", None), ("b", None), ("c", None)]);
    for evidence in [None, QUIET] {
        assert_eq!(
            found(&[file("a", 3)], Some(&manifest), evidence),
            waiting("2 files that the manifest names: b, c")
        );
    }
}

#[test]
fn a_file_that_the_manifest_names_is_missing_once_the_exporter_is_done_or_broken() {
    let manifest = manifest(&[("a", Some(4)), ("b", None)]);
    for evidence in [Evidence::ExportComplete, Evidence::ListenerError] {
        assert_eq!(
            found(&[file("a", 3)], Some(&manifest), Some(evidence)),
            complete(evidence, &["b", "a: 3 records read, the manifest says 4"])
        );
    }
}

#[test]
fn a_record_count_that_differs_from_the_manifest_is_missing() {
    assert_eq!(
        found(&[file("a", 2)], Some(&manifest(&[("a", Some(3))])), None),
        complete(
            Evidence::Manifest,
            &["a: 2 records read, the manifest says 3"]
        )
    );
}

#[test]
fn an_unreadable_file_needs_no_second_mention_for_its_missing_records() {
    let unreadable = FileFacts {
        unreadable: true,
        ..file("a", 2)
    };
    assert_eq!(
        found(&[unreadable], Some(&manifest(&[("a", Some(3))])), None),
        complete(Evidence::Manifest, &[])
    );
}

#[test]
fn of_two_files_with_one_label_the_better_reading_counts() {
    let manifest = manifest(&[("a", Some(3))]);
    let unreadable = FileFacts {
        unreadable: true,
        ..file("a", 1)
    };
    for files in [
        [unreadable.clone(), file("a", 3)],
        [file("a", 3), unreadable.clone()],
        [file("a", 1), file("a", 3)],
        [file("a", 3), file("a", 1)],
    ] {
        assert_eq!(
            found(&files, Some(&manifest), None),
            complete(Evidence::Manifest, &[]),
            "{files:?}"
        );
    }
    assert_eq!(
        found(&[unreadable, file("a", 2)], Some(&manifest), None),
        complete(
            Evidence::Manifest,
            &["a: 2 records read, the manifest says 3"]
        )
    );
}

#[test]
fn a_length_or_a_digest_that_differs_from_the_manifest_is_missing() {
    for (file, said) in [
        (
            measured(file("a", 3), 6, 'b'),
            "a: 6 bytes, the manifest says 7",
        ),
        (
            measured(file("a", 3), 7, 'b'),
            "a: SHA-256 bbbbbbbbbbbbbbbb…, the manifest says aaaaaaaaaaaaaaaa…",
        ),
        (
            measured(file("a", 2), 6, 'b'),
            "a: 2 records read, the manifest says 3, and 6 bytes, the manifest says 7",
        ),
    ] {
        assert_eq!(
            found(&[file], Some(&manifest_of_a()), None),
            complete(Evidence::Manifest, &[said])
        );
    }
    assert_eq!(
        found(
            &[measured(file("a", 3), 7, 'a')],
            Some(&manifest_of_a()),
            None
        ),
        complete(Evidence::Manifest, &[])
    );
}

#[test]
fn a_length_and_a_digest_that_nobody_knows_are_no_difference() {
    let length_alone = FileFacts {
        measure: Measure {
            bytes: Some(7),
            sha256: None,
        },
        ..file("a", 3)
    };
    for file in [file("a", 3), length_alone] {
        assert_eq!(
            found(&[file], Some(&manifest_of_a()), None),
            complete(Evidence::Manifest, &[])
        );
    }
    assert_eq!(
        found(
            &[measured(file("a", 3), 6, 'b')],
            Some(&manifest(&[("a", Some(3))])),
            None
        ),
        complete(Evidence::Manifest, &[])
    );
}

#[test]
fn of_two_files_with_one_label_one_of_the_right_bytes_is_enough() {
    let (good, bad) = (
        measured(file("a", 3), 7, 'a'),
        measured(file("a", 3), 7, 'b'),
    );
    let unreadable = FileFacts {
        unreadable: true,
        ..good.clone()
    };
    for files in [[good.clone(), bad.clone()], [bad.clone(), good]] {
        assert_eq!(
            found(&files, Some(&manifest_of_a()), None),
            complete(Evidence::Manifest, &[])
        );
    }
    for files in [[bad.clone(), bad.clone()], [unreadable, bad]] {
        assert_eq!(
            found(&files, Some(&manifest_of_a()), None),
            complete(
                Evidence::Manifest,
                &["a: SHA-256 bbbbbbbbbbbbbbbb…, the manifest says aaaaaaaaaaaaaaaa…"]
            )
        );
    }
}

#[test]
fn a_manifest_is_stored_as_its_versions_say() {
    let counted_only = manifest(&[("a", Some(3)), ("b", None)]);
    let with_measures = Manifest::new(
        1,
        [
            ("b".to_owned(), counted_as(None)),
            (
                "a".to_owned(),
                Declared {
                    records: Some(3),
                    measure: measure(7, 'a'),
                },
            ),
        ],
    )
    .unwrap();
    for (manifest, text) in [
        (counted_only, r#"{"files":{"a":3,"b":null}}"#),
        (
            with_measures.clone(),
            r#"{"files":{"a":3,"b":null},"measures":[{"bytes":7,"sha256":"aaaaaaaaaaaaaaaa"},{}]}"#,
        ),
        (
            with_measures.without_digests(),
            r#"{"files":{"a":3,"b":null},"measures":[{"bytes":7},{}]}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
        assert_eq!(serde_json::from_str::<Manifest>(text).unwrap(), manifest);
    }
}

#[test]
fn counted_labels_block_completion_until_all_are_there() {
    let some = [
        file("issues-0001-of-0003.ndjson.gz", 1),
        file("issues-0003-of-0003.ndjson.gz", 1),
    ];
    for evidence in [None, QUIET] {
        assert_eq!(
            found(&some, None, evidence),
            waiting("the server app to upload 1 of 3 files of issues")
        );
    }
    let all = [
        file("issues-1-of-2", 1),
        file("issues-2-of-2", 1),
        file("issues-2-of-2", 1),
    ];
    assert_eq!(found(&all, None, QUIET), complete(Evidence::FileList, &[]));
}

#[test]
fn counted_labels_say_nothing_when_that_is_turned_off() {
    let facts = ExportFacts {
        files: &[file("x-1-of-2", 1)],
        manifest: None,
        counted_labels: false,
        evidence: QUIET,
    };
    assert_eq!(evaluate(&facts), complete(Evidence::FileList, &[]));
}

#[test]
fn a_manifest_outweighs_counted_labels() {
    assert_eq!(
        found(
            &[file("x-1-of-2", 1)],
            Some(&manifest(&[("x-1-of-2", None)])),
            None
        ),
        complete(Evidence::Manifest, &[])
    );
}

#[test]
fn without_a_manifest_only_the_quiet_period_completes() {
    assert_eq!(
        found(&[file("a", 1)], None, None),
        waiting("more files from the server app")
    );
    assert_eq!(
        found(&[], None, None),
        waiting("the server app's first file")
    );
    assert_eq!(
        found(&[file("a", 1)], None, QUIET),
        complete(Evidence::FileList, &[])
    );
    assert_eq!(found(&[], None, QUIET), complete(Evidence::FileList, &[]));
}

#[test]
fn an_exporter_that_is_done_or_broken_completes_what_came_and_the_gaps_are_named() {
    for evidence in [Evidence::ExportComplete, Evidence::ListenerError] {
        assert_eq!(
            found(&[file("x-1-of-2", 1)], None, Some(evidence)),
            complete(evidence, &["1 of 2 files of x"])
        );
        assert_eq!(found(&[], None, Some(evidence)), complete(evidence, &[]));
    }
}

#[test]
fn an_open_file_is_waited_for_whatever_else_is_known() {
    let open = FileFacts {
        ended: false,
        ..file("a", 1)
    };
    let manifest = manifest(&[("a", None)]);
    for evidence in [None, QUIET, EXPORTED, FAILED] {
        assert_eq!(
            found(&[open.clone(), file("b", 1)], Some(&manifest), evidence),
            waiting("the import of 1 file")
        );
    }
}

#[test]
fn a_manifest_that_can_not_be_meant_is_refused() {
    let named = |labels: &[&str], version| {
        Manifest::new(
            version,
            labels
                .iter()
                .map(|label| ((*label).to_owned(), Declared::default())),
        )
    };
    assert_eq!(named(&["a"], 2), Err(ManifestError::Version(2)));
    assert_eq!(named(&["a", "a"], 1), Err(ManifestError::DuplicateLabel));
    let many = |number: usize| {
        let files = (0..number).map(|file| (file.to_string(), Declared::default()));
        Manifest::new(1, files)
    };
    assert_eq!(many(10_001), Err(ManifestError::TooMany(10_001)));
    assert_eq!(many(10_000).unwrap().len(), 10_000);
    assert!(!many(1).unwrap().is_empty());
    assert!(many(0).unwrap().is_empty());
}

#[test]
fn a_label_that_only_looks_counted_is_no_count() {
    assert_eq!(counted("best-of-breed"), None);
    assert_eq!(counted("a-9-of-3"), None);
    assert_eq!(counted("a-3-of-3"), Some(("a", 3, 3)));
    assert_eq!(counted("a-1-of-1"), Some(("a", 1, 1)));
    assert_eq!(counted("a-1-of-10001"), None);
    assert_eq!(counted("a-1-of-10000"), Some(("a", 1, 10_000)));
    assert_eq!(counted("a-0-of-0"), None);
    assert_eq!(counted("page-of-4-of-7"), Some(("page-of", 4, 7)));
    assert_eq!(
        counted("v1.2-issues-1-of-7.ndjson.gz"),
        Some(("v1.2-issues", 1, 7))
    );
}
