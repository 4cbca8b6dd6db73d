use super::*;

/// What each of these inputs tells, one after another.
fn told_by(inputs: Vec<(u64, Input)>) -> Vec<What> {
    let mut transfer = transfer();
    let mut told = Vec::new();
    for (minutes, input) in inputs {
        let before = transfer.clone();
        transfer.apply(input.clone(), at(minutes), &clocks());
        told.extend(entries(Some(&before), &transfer, &input));
    }
    told
}

fn totals(ended: u64) -> FileTotals {
    FileTotals {
        known: 1,
        ended,
        counts: counts(5 * ended),
        ..FileTotals::default()
    }
}

fn counted(ended: u64) -> Input {
    Input::FilesCounted {
        totals: totals(ended),
        at: at(1),
    }
}

fn settling() -> Vec<(u64, Input)> {
    vec![
        (1, counted(1)),
        (2, Input::ExportPhaseCompleted),
        (
            2,
            Input::ExportComplete {
                evidence: Evidence::ExportComplete,
                missing: vec![],
            },
        ),
        (
            2,
            Input::FilesFenced {
                totals: totals(1),
                leased_until: None,
            },
        ),
    ]
}

const VERDICT: &str = "Migration complete: 5 records from 1 file arrived. 5 records read: 5 applied, 0 unchanged, 0 held, \
                       0 rejected; 1 file. Complete by the platform's word that the export is complete.";

#[test]
fn a_transfer_that_is_made_is_seen_for_the_first_time() {
    let mut after = transfer();
    let input = Input::ListenerTriggered;
    after.apply(input.clone(), START, &clocks());
    assert_eq!(
        entries(None, &after, &input),
        [first_seen(), What::ListenerTriggered]
    );
    let rerun = Transfer::first_seen(
        TenantId::new("tenant"),
        TransferId::new("t-2"),
        Some(TransferId::new("t-1")),
        None,
        START,
    );
    assert_eq!(
        entries(None, &rerun, &counted(0)),
        [What::FirstSeen {
            chain: ChainId::new("t-1"),
            rerun_of: Some(TransferId::new("t-1")),
            created_at: START,
            adopted: false,
            phase_of: None,
        }]
    );
}

#[test]
fn what_tells_nothing_new_adds_nothing() {
    for input in [
        Input::ListenerTriggered,
        Input::ListenerErrored { exception: None },
        Input::ExportPhaseCompleted,
        Input::WorkMoved {
            file: "a".to_owned(),
            counts: counts(5),
        },
        Input::AskedAgainLater {
            file: "a".to_owned(),
            counts: counts(5),
            at: at(15),
        },
        Input::WorkStalled {
            reason: "the same".to_owned(),
        },
        Input::ExportIncomplete {
            waiting_for: "more".to_owned(),
            files_ended: 0,
        },
        Input::Listed(Listing::Absent),
        Input::PlatformUnavailable { retry_after: None },
    ] {
        let first = told_by(vec![(3, input.clone())]);
        assert_eq!(first.len(), 1, "{input:?}: {first:?}");
        let both = told_by(vec![(3, input.clone()), (4, input.clone())]);
        assert_eq!(both.len(), 1, "{input:?}: {both:?}");
    }
    for input in [
        counted(0),
        Input::Listed(Listing::Active),
        Input::Listed(Listing::Full),
        Input::Reporting { percent: 5 },
        Input::SettlementBegun,
        Input::SettlementAnswered(Answer::Accepted),
    ] {
        assert_eq!(told_by(vec![(3, input.clone())]), [], "{input:?}");
    }
}

#[test]
fn an_import_tells_what_moved_and_what_stopped_it() {
    assert_eq!(
        told_by(vec![
            (0, counted(0)),
            (
                1,
                Input::WorkMoved {
                    file: "a".to_owned(),
                    counts: counts(5),
                },
            ),
            (
                2,
                Input::WorkStalled {
                    reason: "the sink is not available".to_owned(),
                },
            ),
            // The file's own row tells of it.
            (3, counted(1)),
        ]),
        [
            moved("a"),
            What::Interrupted {
                file: None,
                reason: "the sink is not available".to_owned(),
                retry_after_ms: None,
            },
        ]
    );
}

#[test]
fn every_way_to_end_reads_as_it_is() {
    let reason = || "five".to_owned();
    for (outcome, how, problem) in [
        (FileOutcome::Imported, Ended::Imported, None),
        (FileOutcome::Stopped, Ended::Stopped, None),
        (
            FileOutcome::Unreadable { reason: reason() },
            Ended::Unreadable,
            Some(reason()),
        ),
        (
            FileOutcome::Poisoned { reason: reason() },
            Ended::Poisoned,
            Some(reason()),
        ),
    ] {
        assert_eq!(
            What::file_ended("a".to_owned(), &outcome, counts(1), true),
            What::FileEnded {
                file: "a".to_owned(),
                how,
                problem,
                counts: counts(1),
                manifest: true,
            }
        );
    }
}

#[test]
fn a_settlement_is_told_from_its_verdict_to_its_end() {
    let mut inputs = settling();
    inputs.extend([
        (2, Input::SettlementBegun),
        (2, Input::SettlementAnswered(Answer::FormRefused)),
        (2, Input::SettlementBegun),
        (2, Input::SettlementAnswered(Answer::Accepted)),
        (2, Input::PlatformUnavailable { retry_after: None }),
        (3, Input::Listed(Listing::Absent)),
    ]);
    assert_eq!(
        told_by(inputs),
        [
            What::ExportPhaseCompleted,
            What::ExportComplete {
                evidence: Evidence::ExportComplete,
                missing: 0,
            },
            What::VerdictDecided {
                status: Status::Success,
                cause: Cause::Complete,
                message: VERDICT.to_owned(),
            },
            What::SettlementSent {
                attempt: 1,
                form: Form::Hundred,
                answer: Answer::FormRefused,
            },
            What::SettlementSent {
                attempt: 2,
                form: Form::Omitted,
                answer: Answer::Accepted,
            },
            What::PlatformUnavailable { reason: None },
            What::ConfirmationLooked {
                listing: Listing::Absent,
            },
            settled("SUCCESS"),
        ]
    );
}

#[test]
fn a_look_that_decides_nothing_tells_nothing() {
    let void = Input::ExportComplete {
        evidence: Evidence::FileList,
        missing: vec![],
    };
    assert_eq!(told_by(vec![(1, void)]), []);
}

#[test]
fn a_stop_is_told_with_its_reason_its_fencing_and_its_verdict() {
    let fenced = |leased_until| Input::FilesFenced {
        totals: FileTotals::default(),
        leased_until,
    };
    let told = told_by(vec![
        (1, Input::CancelRequested),
        (1, Input::CancelRequested),
        (1, fenced(Some(at(3)))),
        (3, fenced(None)),
    ]);
    assert_eq!(
        told[..3],
        [
            What::Stopping {
                reason: StopReason::Cancelled,
            },
            What::Fenced {
                leased_until: Some(at(3)),
            },
            What::Fenced { leased_until: None },
        ]
    );
    assert!(matches!(
        told[3..],
        [What::VerdictDecided {
            status: Status::Failed,
            cause: Cause::Cancelled,
            ..
        }]
    ));
}

#[test]
fn a_newer_attempt_is_told_by_its_id_whenever_it_takes_over() {
    let by = TransferId::new("t-2");
    let superseded = || Input::Superseded { by: by.clone() };
    assert_eq!(
        told_by(vec![(1, superseded())]),
        [What::Superseded { by: by.clone() }]
    );
    assert_eq!(
        told_by(vec![(1, Input::CancelRequested), (2, superseded())])[1..],
        [What::Superseded { by: by.clone() }]
    );
    let mut inputs = settling();
    inputs.push((3, superseded()));
    assert_eq!(
        told_by(inputs).last(),
        Some(&What::Settled {
            by: SettledBy::Rerun(by.clone()),
            status: Some("SUCCESS".to_owned()),
        })
    );
}

#[test]
fn the_end_of_an_outage_is_told() {
    assert_eq!(
        told_by(vec![
            (1, Input::PlatformUnavailable { retry_after: None }),
            (2, Input::Listed(Listing::Active)),
        ]),
        [
            What::PlatformUnavailable { reason: None },
            What::PlatformAvailable,
        ]
    );
}

#[test]
fn the_platforms_late_word_for_the_outcome_is_told() {
    let mut inputs = vec![
        (1, Input::PlatformSettled { status: None }),
        (
            1,
            Input::FilesFenced {
                totals: FileTotals::default(),
                leased_until: None,
            },
        ),
    ];
    inputs.push((
        2,
        Input::PlatformSettled {
            status: Some("CANCELLED".to_owned()),
        },
    ));
    assert_eq!(
        told_by(inputs).last(),
        Some(&What::Settled {
            by: SettledBy::Platform,
            status: Some("CANCELLED".to_owned()),
        })
    );
}

#[test]
fn a_rerun_that_was_not_known_as_one_is_told() {
    let before = transfer();
    let mut after = before.clone();
    after.join_chain(TransferId::new("t-0"));
    assert_eq!(
        entries(Some(&before), &after, &Input::ListenerTriggered),
        [What::ChainJoined {
            rerun_of: TransferId::new("t-0"),
        }]
    );
}

#[test]
fn answers_are_told_and_of_several_attempts_in_vain_the_first() {
    let clocks = Clocks::default();
    let mut transfer = Transfer::first_seen(
        TenantId::new("tenant"),
        TransferId::new("t-1"),
        None,
        None,
        START,
    )
    .with_messages();
    let not_taken = || Input::AnswersNotTaken { retry_after: None };
    let mut told = Vec::new();
    for input in [
        Input::MessageArrived { at: START },
        Input::WindowWarned,
        Input::MessageDecided { applied: true },
        Input::AnswerBegun,
        not_taken(),
        Input::AnswerBegun,
        not_taken(),
        Input::AnswersTaken {
            outcome: MessageOutcome::Success,
            messages: 1,
            begun_at: at(12),
        },
    ] {
        let before = transfer.clone();
        transfer.apply(input.clone(), at(12), &clocks);
        told.extend(entries(Some(&before), &transfer, &input));
    }
    assert_eq!(
        told,
        [
            What::WindowCloses { since: START },
            What::PlatformUnavailable { reason: None },
            What::MessagesAnswered {
                outcome: MessageOutcome::Success,
                messages: 1,
            },
        ]
    );
    assert_eq!(told[2].to_string(), "answered 1 message SUCCESS");
}
