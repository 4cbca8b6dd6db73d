use super::*;

/// Entries as the first release wrote them, one of each kind.
const VERSION_1: &str = include_str!("stored/version-1.jsonl");

#[test]
fn entries_of_version_1_are_read_and_written_as_they_were() {
    let lines: Vec<&str> = VERSION_1.lines().collect();
    assert_eq!(lines.len(), every_kind().len());
    for (line, what) in lines.into_iter().zip(every_kind()) {
        let entry = Entry::new(START, Actor::Sweeper, what).caused_by("message-1");
        assert_eq!(serde_json::to_string(&entry).unwrap(), line);
        assert_eq!(serde_json::from_str::<Entry>(line).unwrap(), entry);
    }
}

#[test]
fn what_a_later_release_writes_is_tolerated() {
    let line = r#"{"at":5,"by":"auditor","what":{"kind":"moon_landed","crew":3,"of":{"n":[1]}},"more":{}}"#;
    let entry: Entry = serde_json::from_str(line).unwrap();
    assert_eq!(
        entry,
        Entry::new(Timestamp::from_millis(5), Actor::Unknown, What::Unknown)
    );
    let line = r#"{"at":5,"by":"intake","what":{"kind":"file_taken","file":"a","fence":2,"attempt":1,"how":"teleported"}}"#;
    let entry: Entry = serde_json::from_str(line).unwrap();
    assert_eq!(entry.by, Actor::Intake);
    assert!(matches!(
        entry.what,
        What::FileTaken {
            how: Taken::Unknown,
            fence: 2,
            ..
        }
    ));
}

#[test]
fn no_entry_holds_a_url_or_a_token_and_every_text_is_clipped() {
    let secret =
        "see https://bucket.s3.amazonaws.com/x?X-Amz-Signature=abc or JWT eyJhbGciOi.J9.x now";
    let long = "x".repeat(2_000);
    for text in [secret, &long] {
        let text = || text.to_owned();
        for what in [
            What::EventTaken { event: text() },
            What::ListenerFailed {
                exception: Some(text()),
            },
            What::FileAnnounced {
                file: text(),
                label: Some(text()),
            },
            What::FileAdopted {
                file: text(),
                label: Some(text()),
            },
            taken(&text(), Taken::First),
            moved(&text()),
            What::Interrupted {
                file: Some(text()),
                reason: text(),
                retry_after_ms: None,
            },
            What::FileEnded {
                file: text(),
                how: Ended::Unreadable,
                problem: Some(text()),
                counts: counts(1),
                manifest: false,
            },
            asked_again_later(&text(), 1),
            What::ExportAwaited {
                waiting_for: text(),
            },
            What::Stopping {
                reason: StopReason::SettledElsewhere {
                    status: Some(text()),
                },
            },
            What::VerdictDecided {
                status: Status::Failed,
                cause: Cause::Poison,
                message: text(),
            },
            settled(&text()),
            What::PlatformUnavailable {
                reason: Some(text()),
            },
            What::Revived { file: Some(text()) },
            What::DeadLetter {
                file: Some(text()),
                reason: text(),
            },
            What::PersonNeeded {
                code: text(),
                problem: text(),
            },
        ] {
            let entry = Entry::new(START, Actor::Intake, what).caused_by(&text());
            let stored = serde_json::to_string(&entry).unwrap();
            assert!(!stored.contains("://"), "{stored}");
            assert!(!stored.contains("eyJ"), "{stored}");
            assert!(!stored.contains(&"x".repeat(1_025)), "{stored}");
        }
    }
    assert_eq!(told_text(secret), "see (left out) or JWT (left out) now");
}

fn told_text(text: &str) -> String {
    super::super::told(text, 300)
}
