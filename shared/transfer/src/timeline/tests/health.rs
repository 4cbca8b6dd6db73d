use super::*;

#[test]
fn a_timeline_without_entries_waits_for_its_first() {
    assert_eq!(
        told([], 5),
        "waiting for its first event since 22 Nov 00:05 UTC"
    );
}

#[test]
fn work_that_moves_is_healthy_and_slow_once_it_does_not() {
    let open = || [(0, first_seen()), (0, announced("a")), (5, moved("a"))];
    assert_eq!(told(open(), 14), "healthy");
    assert_eq!(
        told(open(), 15),
        "slow since 22 Nov 00:05 UTC, because 1 file did not move lately"
    );
    assert_eq!(
        told(open(), 5 + 3 * 60 - 1),
        "slow since 22 Nov 00:05 UTC, because 1 file did not move lately"
    );
    assert_eq!(
        told(open(), 5 + 3 * 60),
        "stuck since 22 Nov 00:05 UTC, because 1 file did not move although work was revived: nothing is known of its workers"
    );
}

#[test]
fn files_whose_held_records_are_asked_again_are_waited_for_until_that_is_overdue() {
    let waiting = "waiting for mappings of held records, which are asked again at 22 Nov 00:20 UTC, since 22 Nov 00:05 UTC";
    let one = || {
        vec![
            (0, first_seen()),
            (0, announced("a")),
            (5, asked_again_later("a", 20)),
        ]
    };
    assert_eq!(told(one(), 6), waiting);
    assert_eq!(told(one(), 29), waiting);
    assert_eq!(
        told(one(), 30),
        "slow since 22 Nov 00:05 UTC, because 1 file did not move lately"
    );
    let mut both = one();
    both.extend([(4, announced("b")), (4, moved("b"))]);
    assert_eq!(told(both.clone(), 14), "healthy", "another file is at work");
    both.push((5, asked_again_later("b", 25)));
    assert_eq!(told(both.clone(), 24), waiting, "the earlier is told");
    both.push((21, moved("a")));
    assert_eq!(told(both, 24), "healthy");
}

#[test]
fn work_that_was_revived_and_did_not_move_is_stuck() {
    let open = |trouble: What| {
        [
            (0, first_seen()),
            (0, announced("a")),
            (5, moved("a")),
            (6, trouble),
        ]
    };
    assert_eq!(told(open(interrupted()), 14), "healthy");
    for (trouble, because) in [
        (interrupted(), "the sink is not available"),
        (taken("a", Taken::TakenOver), "its worker died"),
        (taken("a", Taken::Revived), "its worker died"),
        (
            What::Revived {
                file: Some("a".to_owned()),
            },
            "nobody worked on it",
        ),
        (
            What::DeadLetter {
                file: None,
                reason: "five workers died".to_owned(),
            },
            "five workers died",
        ),
    ] {
        assert_eq!(
            told(open(trouble), 15),
            format!(
                "stuck since 22 Nov 00:05 UTC, because 1 file did not move although work was revived: {because}"
            )
        );
    }
    assert!(told(open(taken("a", Taken::NextSlice)), 15).starts_with("slow"));
}

#[test]
fn trouble_that_work_has_overcome_leaves_it_healthy() {
    let same_instant = [(0, announced("a")), (5, interrupted()), (5, moved("a"))];
    assert!(told(same_instant, 15).starts_with("slow"));
    let other_way = [(0, announced("a")), (5, moved("a")), (5, interrupted())];
    assert!(told(other_way, 15).starts_with("stuck"));
}

#[test]
fn work_that_is_interrupted_three_times_an_hour_is_slow() {
    let open = |times: u64| {
        let mut entries = vec![(0, announced("a"))];
        for time in 0..times {
            entries.push((time * 2 + 1, interrupted()));
            entries.push((time * 2 + 2, moved("a")));
        }
        entries
    };
    assert_eq!(told(open(2), 7), "healthy");
    assert_eq!(
        told(open(3), 7),
        "slow since 22 Nov 00:01 UTC, because 1 file moved but stopped again and again: the sink is not available"
    );
    let mut later = open(3);
    later.push((58, moved("a")));
    assert!(told(later.clone(), 60).starts_with("slow since"));
    assert_eq!(told(later, 61), "healthy");
}

#[test]
fn an_old_transfer_that_still_moves_is_slow() {
    let half = 5 * 24 * 60;
    let open = |minutes| [(0, first_seen()), (minutes, moved("a"))];
    assert_eq!(told(open(half - 1), half - 1), "healthy");
    assert_eq!(
        told(open(half), half),
        "slow since 22 Nov 00:00 UTC, because half of its time is over and 1 file not yet imported"
    );
}

#[test]
fn an_idle_transfer_waits_for_what_is_missing() {
    let idle = || {
        [
            (0, first_seen()),
            (1, announced("a")),
            (2, ended("a")),
            (
                3,
                What::ExportAwaited {
                    waiting_for: "the server app to upload 2 of 7 files of attachments".to_owned(),
                },
            ),
        ]
    };
    assert_eq!(told(idle(), 11), "healthy");
    assert_eq!(
        told(idle(), 12),
        "waiting for the server app to upload 2 of 7 files of attachments since 22 Nov 00:02 UTC"
    );
    assert_eq!(
        told([(0, first_seen())], 10),
        "waiting for the server app's first file since 22 Nov 00:00 UTC"
    );
    assert_eq!(
        told([(1, announced("a")), (2, ended("a"))], 12),
        "waiting for the server app to upload more, or to stay quiet since 22 Nov 00:02 UTC"
    );
    let announced_since = idle()
        .into_iter()
        .chain([(4, announced("b")), (5, ended("b"))]);
    assert!(told(announced_since, 15).contains("upload more"));
}

#[test]
fn every_sign_from_outside_keeps_an_idle_transfer_healthy() {
    for sign in [
        What::EventTaken {
            event: "listener-triggered".to_owned(),
        },
        What::ListenerTriggered,
        What::ListenerFailed { exception: None },
        What::ExportPhaseCompleted,
    ] {
        assert_eq!(told([(0, first_seen()), (9, sign)], 18), "healthy");
    }
}

#[test]
fn what_waited_for_too_long_is_stuck() {
    let silence = 72 * 60 + 10;
    assert!(told([(0, first_seen())], silence - 1).starts_with("waiting"));
    assert_eq!(
        told([(0, first_seen())], silence),
        "stuck since 22 Nov 00:00 UTC, because it waited for too long and nobody settled it; see whether the sweeper runs"
    );
    let deadline = 10 * 24 * 60;
    let late = |now| told([(0, first_seen()), (deadline, moved("a"))], now);
    assert!(late(deadline + 9).starts_with("slow"));
    assert_eq!(
        late(deadline + 10),
        "stuck since 2 Dec 00:00 UTC, because its deadline has passed and nobody settled it; see whether the sweeper runs"
    );
}

#[test]
fn a_site_that_can_not_be_called_for_long_makes_it_stuck() {
    let outage = || [(0, announced("a")), (1, unavailable()), (2, unavailable())];
    assert_eq!(told(outage(), 9), "healthy");
    assert_eq!(
        told(outage(), 11),
        "stuck since 22 Nov 00:01 UTC, because the site can't be called: 503"
    );
    assert_eq!(
        told([(1, What::PlatformUnavailable { reason: None })], 11),
        "stuck since 22 Nov 00:01 UTC, because the site can't be called"
    );
    for over in [
        What::PlatformAvailable,
        What::ProgressReported {
            percent: 5,
            taken: true,
        },
        What::ConfirmationLooked {
            listing: Listing::Active,
        },
        What::SettlementSent {
            attempt: 1,
            form: Form::Hundred,
            answer: Answer::Accepted,
        },
        moved("a"),
        ended("a"),
    ] {
        let entries = outage().into_iter().chain([(3, over.clone())]);
        assert!(!told(entries, 11).starts_with("stuck"), "{over:?}");
    }
    for still in [
        What::ProgressReported {
            percent: 5,
            taken: false,
        },
        What::SettlementSent {
            attempt: 1,
            form: Form::Hundred,
            answer: Answer::Unknown { retry_after: None },
        },
    ] {
        let entries = outage().into_iter().chain([(3, still.clone())]);
        assert!(told(entries, 11).starts_with("stuck"), "{still:?}");
    }
}

#[test]
fn what_only_a_person_can_mend_needs_action_until_it_is_mended() {
    let person = || {
        (
            1,
            What::PersonNeeded {
                code: "LF-NO-SITE".to_owned(),
                problem: "the site's host is not in connect.tenant_hosts".to_owned(),
            },
        )
    };
    assert_eq!(
        told([(0, announced("a")), person()], 2),
        "needs action: the operator mends LF-NO-SITE, because the site's host is not in connect.tenant_hosts"
    );
    assert_eq!(
        told([(0, announced("a")), person(), (2, moved("a"))], 3),
        "healthy"
    );
}

#[test]
fn a_settlement_that_is_not_taken_is_stuck() {
    let sent = |answer| {
        [
            (1, verdict(Status::Success)),
            (
                2,
                What::SettlementSent {
                    attempt: 1,
                    form: Form::Hundred,
                    answer,
                },
            ),
        ]
    };
    let not_taken = Answer::NotTaken { retry_after: None };
    assert_eq!(told(sent(not_taken), 15), "healthy");
    for (answer, words) in [
        (Answer::Accepted, "accepted, but still listed as active"),
        (Answer::FormRefused, "it refused the form"),
        (
            Answer::SuspectGone,
            "it answered as if the transfer were over",
        ),
        (
            Answer::SuspectExpired,
            "it answered as if the transfer were over",
        ),
        (not_taken, "it did not take it"),
        (Answer::Unknown { retry_after: None }, "it did not answer"),
    ] {
        assert_eq!(
            told(sent(answer), 16),
            format!(
                "stuck since 22 Nov 00:01 UTC, because the platform has not taken the settlement ({words})"
            )
        );
    }
    assert_eq!(
        told([(1, verdict(Status::Failed))], 16),
        "stuck since 22 Nov 00:01 UTC, because the platform has not taken the settlement"
    );
}

#[test]
fn a_stop_is_healthy_until_it_takes_too_long() {
    for stop in [
        What::Stopping {
            reason: StopReason::Cancelled,
        },
        What::Superseded {
            by: TransferId::new("t-2"),
        },
    ] {
        let stopped = || [(0, announced("a")), (1, stop.clone())];
        assert_eq!(told(stopped(), 45), "healthy");
        assert_eq!(
            told(stopped(), 46),
            "stuck since 22 Nov 00:01 UTC, because it was stopped and not settled"
        );
    }
}

#[test]
fn what_is_settled_and_can_be_rerun_needs_the_admin_until_day_12() {
    let over = || {
        [
            (0, first_seen()),
            (60, verdict(Status::Incomplete)),
            (60, settled("INCOMPLETE")),
        ]
    };
    let closes = 12 * 24 * 60;
    assert_eq!(
        told(over(), closes - 1),
        "needs action: the admin re-runs the app migration by 4 Dec 00:00 UTC, because it is INCOMPLETE: 9 of 10 records arrived (1 rejected)"
    );
    assert_eq!(
        told(over(), closes),
        "needs action: the admin makes a new plan, for this one can't be re-run any more, because it is INCOMPLETE: 9 of 10 records arrived (1 rejected)"
    );
    assert_eq!(
        told([(0, first_seen()), (1, settled("FAILED"))], 2),
        "needs action: the admin re-runs the app migration by 4 Dec 00:00 UTC, because the platform says FAILED"
    );
    assert!(told([(0, first_seen()), (1, settled("TIMED_OUT"))], 2).contains("makes a new plan"));
    let other = told(
        [
            (0, first_seen()),
            (1, verdict(Status::Success)),
            (2, settled("FAILED")),
        ],
        3,
    );
    assert!(
        other.ends_with("because the platform says FAILED"),
        "{other}"
    );
}

#[test]
fn the_window_counts_from_when_the_platform_made_the_transfer() {
    let created = What::FirstSeen {
        chain: ChainId::new("t-1"),
        rerun_of: None,
        created_at: START - Duration::from_hours(24),
        adopted: true,
        phase_of: None,
    };
    assert!(told([(0, created), (1, settled("FAILED"))], 2).contains("by 3 Dec 00:00 UTC"));
}

#[test]
fn nothing_is_left_to_do_after_a_success_a_cancellation_or_a_rerun() {
    for status in ["SUCCESS", "CANCELLED"] {
        assert_eq!(
            told([(0, first_seen()), (1, settled(status))], 99),
            "healthy"
        );
    }
    let rerun = What::Settled {
        by: SettledBy::Rerun(TransferId::new("t-2")),
        status: Some("FAILED".to_owned()),
    };
    assert_eq!(told([(0, first_seen()), (1, rerun)], 99), "healthy");
    let wordless = What::Settled {
        by: SettledBy::Platform,
        status: None,
    };
    assert_eq!(
        told([(0, first_seen()), (1, wordless)], 99),
        "needs action: the admin looks in the migration assistant how it ended, because the platform ended it without a word"
    );
}

#[test]
fn a_late_word_of_a_worker_that_was_fenced_off_opens_no_file_again() {
    let late = [(1, announced("a")), (2, ended("a")), (3, moved("a"))];
    assert!(told(late, 200).starts_with("waiting"));
}

#[test]
fn a_file_that_was_only_seen_in_work_counts_as_open() {
    assert!(told([(0, taken("a", Taken::First))], 11).starts_with("slow"));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kinds = every_kind();
    (0..kinds.len(), 0_i64..1_500_000, any::<bool>()).prop_map(move |(kind, seconds, sweeper)| {
        let at = Timestamp::from_millis(START.as_millis() + seconds * 1_000);
        let by = if sweeper {
            Actor::Sweeper
        } else {
            Actor::Processor
        };
        Entry::new(at, by, kinds[kind].clone())
    })
}

proptest! {
    #[test]
    fn any_timeline_has_a_health_that_is_one_sentence(
        entries in prop::collection::vec(any_entry(), 0..40),
        minutes in 0_u64..40_000,
    ) {
        let sentence = health(&entries, at(minutes), &clocks()).to_string();
        prop_assert!(!sentence.is_empty());
        prop_assert!(sentence.chars().count() < 700, "{}", sentence);
        prop_assert!(!sentence.contains('\n'));
    }

    #[test]
    fn a_success_is_healthy_whatever_came_before(
        mut entries in prop::collection::vec(any_entry(), 0..40),
        minutes in 0_u64..40_000,
    ) {
        let end = START + platform::LIFE * 2;
        entries.push(Entry::new(end, Actor::Processor, settled("SUCCESS")));
        prop_assert_eq!(health(&entries, at(minutes), &clocks()), Health::Healthy);
    }

    #[test]
    fn entries_of_different_times_may_come_in_any_order(
        mut entries in prop::collection::vec(any_entry(), 0..40),
        minutes in 0_u64..40_000,
    ) {
        entries.sort_by_key(|entry| entry.at);
        entries.dedup_by_key(|entry| entry.at);
        let sorted = health(&entries, at(minutes), &clocks());
        entries.reverse();
        prop_assert_eq!(health(&entries, at(minutes), &clocks()), sorted);
    }

    #[test]
    fn kinds_that_are_not_known_change_nothing(
        mut entries in prop::collection::vec(any_entry(), 1..40),
        minutes in 0_u64..40_000,
    ) {
        let without = health(&entries, at(minutes), &clocks());
        let last = entries.iter().map(|entry| entry.at).max().unwrap();
        entries.push(Entry::new(last, Actor::Unknown, What::Unknown));
        prop_assert_eq!(health(&entries, at(minutes), &clocks()), without);
    }

    #[test]
    fn a_failure_needs_the_admin_as_long_as_a_rerun_is_open(
        mut entries in prop::collection::vec(any_entry(), 0..40),
    ) {
        let end = START + Duration::from_hours(9 * 24);
        entries.retain(|entry| entry.at < end);
        entries.insert(0, Entry::new(START, Actor::Intake, first_seen()));
        entries.push(Entry::new(end, Actor::Processor, settled("FAILED")));
        let found = health(&entries, end, &clocks());
        prop_assert!(
            matches!(found, Health::NeedsAction { by: Some(_), .. }),
            "{:?}", found
        );
    }
}
