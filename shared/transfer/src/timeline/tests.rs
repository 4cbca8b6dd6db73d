use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clocks::{Clocks, platform};
use crate::identity::TenantId;
use crate::transfer::{FileOutcome, FileTotals, Input};

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

fn at(minutes: u64) -> Timestamp {
    START + Duration::from_secs(minutes * 60)
}

fn clocks() -> Clocks {
    Clocks::default()
}

fn counts(read: u64) -> Counts {
    Counts {
        read,
        applied: read,
        ..Counts::default()
    }
}

fn transfer() -> Transfer {
    Transfer::first_seen(
        TenantId::new("tenant"),
        TransferId::new("t-1"),
        None,
        None,
        START,
    )
}

fn first_seen() -> What {
    What::first_seen(&transfer(), false)
}

fn announced(file: &str) -> What {
    What::FileAnnounced {
        file: file.to_owned(),
        label: None,
    }
}

fn taken(file: &str, how: Taken) -> What {
    What::FileTaken {
        file: file.to_owned(),
        fence: 1,
        attempt: 1,
        how,
    }
}

fn moved(file: &str) -> What {
    What::SliceCommitted {
        file: file.to_owned(),
        counts: counts(5),
    }
}

fn ended(file: &str) -> What {
    What::FileEnded {
        file: file.to_owned(),
        how: Ended::Imported,
        problem: None,
        counts: counts(5),
        manifest: false,
    }
}

/// Five held records of a file are asked again so many minutes after the start.
fn asked_again_later(file: &str, minutes: u64) -> What {
    What::AskedAgainLater {
        file: file.to_owned(),
        held: 5,
        at: START + Duration::from_mins(minutes),
    }
}

fn interrupted() -> What {
    What::Interrupted {
        file: Some("a".to_owned()),
        reason: "the sink is not available".to_owned(),
        retry_after_ms: Some(10_000),
    }
}

fn verdict(status: Status) -> What {
    What::VerdictDecided {
        status,
        cause: Cause::Gaps,
        message: "9 of 10 records arrived (1 rejected). Re-run the app migration.".to_owned(),
    }
}

fn settled(status: &str) -> What {
    What::Settled {
        by: SettledBy::App,
        status: Some(status.to_owned()),
    }
}

fn unavailable() -> What {
    What::PlatformUnavailable {
        reason: Some("503".to_owned()),
    }
}

/// One of each kind.
fn every_kind() -> Vec<What> {
    vec![
        What::EventTaken {
            event: "app-data-uploaded".to_owned(),
        },
        first_seen(),
        What::ChainJoined {
            rerun_of: TransferId::new("t-0"),
        },
        What::ListenerTriggered,
        What::ListenerFailed {
            exception: Some("java.lang.Broken".to_owned()),
        },
        What::ExportPhaseCompleted,
        announced("a"),
        What::FileAdopted {
            file: "b".to_owned(),
            label: Some("pages".to_owned()),
        },
        taken("a", Taken::TakenOver),
        moved("a"),
        interrupted(),
        asked_again_later("a", 15),
        ended("a"),
        What::ProgressReported {
            percent: 50,
            taken: true,
        },
        What::ExportAwaited {
            waiting_for: "more".to_owned(),
        },
        What::ExportComplete {
            evidence: Evidence::Manifest,
            missing: 1,
        },
        What::MessagesAnswered {
            outcome: MessageOutcome::Failed,
            messages: 2,
        },
        What::WindowCloses { since: START },
        What::NotListed,
        What::Stopping {
            reason: StopReason::Cancelled,
        },
        What::Fenced {
            leased_until: Some(at(5)),
        },
        verdict(Status::Incomplete),
        What::SettlementSent {
            attempt: 1,
            form: Form::Hundred,
            answer: Answer::NotTaken {
                retry_after: Some(Duration::from_secs(7)),
            },
        },
        What::ConfirmationLooked {
            listing: Listing::Active,
        },
        settled("INCOMPLETE"),
        What::Superseded {
            by: TransferId::new("t-2"),
        },
        unavailable(),
        What::PlatformAvailable,
        What::Revived {
            file: Some("a".to_owned()),
        },
        What::DeadLetter {
            file: None,
            reason: "five workers died".to_owned(),
        },
        What::PersonNeeded {
            code: "LF-NO-SITE".to_owned(),
            problem: "the site is not listed".to_owned(),
        },
    ]
}

fn timeline(entries: impl IntoIterator<Item = (u64, What)>) -> Vec<Entry> {
    entries
        .into_iter()
        .map(|(minutes, what)| Entry::new(at(minutes), Actor::Processor, what))
        .collect()
}

/// The health after so many minutes, as support reads it.
fn told(entries: impl IntoIterator<Item = (u64, What)>, minutes: u64) -> String {
    health(&timeline(entries), at(minutes), &clocks()).to_string()
}

#[test]
fn an_actor_is_read_back_by_its_name_and_one_of_another_release_is_unknown() {
    for (actor, name) in [
        (Actor::Intake, "intake"),
        (Actor::Processor, "processor"),
        (Actor::Sweeper, "sweeper"),
    ] {
        assert_eq!(actor.as_str(), name);
        assert_eq!(Actor::named(name), actor);
    }
    assert_eq!(Actor::named("archivist"), Actor::Unknown);
}

#[test]
fn why_a_transfer_stops_is_said_in_words_that_no_other_reason_has() {
    let complete = StopReason::Complete {
        evidence: Evidence::FileList,
        missing: Vec::new(),
    };
    let words = |reason| What::Stopping { reason }.to_string();
    assert_eq!(words(complete.clone()), "stopping: everything is there");
    let all = [
        complete,
        StopReason::Cancelled,
        StopReason::ListenerError,
        StopReason::WorkStale,
        StopReason::ExporterSilent,
        StopReason::Deadline,
        StopReason::Poison,
        StopReason::Unanswered,
        StopReason::NoToken,
    ];
    let count = all.len();
    let different: BTreeSet<String> = all.into_iter().map(words).collect();
    assert_eq!(different.len(), count, "{different:?}");
}

mod health;
mod stored;
mod taken_in;
