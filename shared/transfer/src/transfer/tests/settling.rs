use super::*;

#[test]
fn a_clean_import_settles_success_and_is_over_when_the_platform_lists_it_no_more() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    assert_eq!(verdict(&transfer).status, Status::Success);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Settle);
    transfer.happens(Input::SettlementBegun, at(1), &clocks());
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Wait);
    transfer.happens(
        Input::SettlementAnswered(Answer::Accepted),
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Confirm);
    transfer.happens(Input::Listed(Listing::Absent), at(1), &clocks());
    assert!(transfer.is_settled());
    assert_eq!(transfer.due_at(&clocks()), None);
}

#[test]
fn a_settlement_that_is_accepted_but_still_listed_takes_the_next_form_after_a_minute() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    let mut now = at(1);
    for form in [Form::Hundred, Form::Omitted, Form::LastReported] {
        let Phase::Settling(settlement) = &transfer.phase else {
            panic!("settled too early")
        };
        assert_eq!(settlement.form, form);
        transfer.happens(Input::SettlementBegun, now, &clocks());
        transfer.happens(Input::SettlementAnswered(Answer::Accepted), now, &clocks());
        transfer.happens(Input::Listed(Listing::Active), now, &clocks());
        assert_eq!(transfer.next_step(now, &clocks()), Step::Wait);
        now = now + clocks().settle_confirm_after;
        assert_eq!(transfer.next_step(now, &clocks()), Step::Confirm);
        transfer.happens(Input::Listed(Listing::Active), now, &clocks());
    }
    assert_eq!(verdict(&transfer).status, Status::Success);
}

#[test]
fn a_refused_form_is_given_up_at_once() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    transfer.happens(Input::SettlementBegun, at(1), &clocks());
    transfer.happens(
        Input::SettlementAnswered(Answer::FormRefused),
        at(1),
        &clocks(),
    );
    let Phase::Settling(settlement) = &transfer.phase else {
        panic!("settled too early")
    };
    assert_eq!(settlement.form, Form::Omitted);
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Settle);
}

#[test]
fn a_403_is_believed_only_when_the_platform_lists_the_transfer_no_more() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    transfer.happens(Input::SettlementBegun, at(1), &clocks());
    transfer.happens(
        Input::SettlementAnswered(Answer::SuspectGone),
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Confirm);
    let mut listed = transfer.clone();
    listed.happens(Input::Listed(Listing::Active), at(1), &clocks());
    assert_eq!(listed.phase.as_str(), "SETTLING");
    let mut full = transfer.clone();
    full.happens(Input::Listed(Listing::Full), at(1), &clocks());
    assert_eq!(full.phase.as_str(), "SETTLING");
    transfer.happens(Input::Listed(Listing::Absent), at(1), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("still settling")
    };
    assert_eq!(settled.by, SettledBy::Platform);
}

#[test]
fn a_403_after_an_attempt_with_an_unknown_outcome_means_that_ours_arrived() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    transfer.happens(Input::SettlementBegun, at(1), &clocks());
    transfer.happens(
        Input::SettlementAnswered(Answer::Unknown { retry_after: None }),
        at(1),
        &clocks(),
    );
    transfer.happens(Input::SettlementBegun, at(2), &clocks());
    transfer.happens(
        Input::SettlementAnswered(Answer::SuspectGone),
        at(2),
        &clocks(),
    );
    transfer.happens(Input::Listed(Listing::Absent), at(2), &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("still settling")
    };
    assert_eq!(
        (&settled.by, settled.status.as_deref()),
        (&SettledBy::App, Some("SUCCESS"))
    );
}

#[test]
fn a_sender_that_died_is_followed_by_another_with_the_same_verdict() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    let first = verdict(&transfer).clone();
    transfer.happens(Input::SettlementBegun, at(1), &clocks());
    assert_eq!(transfer.next_step(at(1), &clocks()), Step::Wait);
    assert_eq!(transfer.next_step(at(2), &clocks()), Step::Settle);
    assert_eq!(*verdict(&transfer), first);
}

#[test]
fn retries_of_a_settlement_pause_longer_and_longer_and_obey_the_platform() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        transfer.happens(Input::SettlementBegun, at(1), &clocks());
        transfer.happens(
            Input::SettlementAnswered(Answer::NotTaken { retry_after: None }),
            at(1),
            &clocks(),
        );
        let pause = transfer.due_at(&clocks()).unwrap().since(at(1));
        assert!(pause <= clocks().settle_retry_max);
        longest = longest.max(pause);
    }
    assert!(longest >= clocks().settle_retry_max / 2);
    let asked = Duration::from_hours(1);
    transfer.happens(
        Input::SettlementAnswered(Answer::NotTaken {
            retry_after: Some(asked),
        }),
        at(1),
        &clocks(),
    );
    assert_eq!(transfer.due_at(&clocks()), Some(at(61)));
}

#[test]
fn a_400_that_may_be_about_the_form_or_the_time_limit_is_settled_by_the_list() {
    let settling = given([
        (0, seen()),
        (1, imported(10, 0)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    let mut still_active = settling.clone();
    still_active.happens(
        Input::SettlementAnswered(Answer::SuspectExpired),
        at(1),
        &clocks(),
    );
    still_active.happens(Input::Listed(Listing::Active), at(1), &clocks());
    let Phase::Settling(settlement) = &still_active.phase else {
        panic!("settled too early")
    };
    assert_eq!(settlement.form, Form::Omitted);
    let mut over = settling;
    over.happens(
        Input::SettlementAnswered(Answer::SuspectExpired),
        at(1),
        &clocks(),
    );
    over.happens(Input::Listed(Listing::Absent), at(1), &clocks());
    assert!(over.is_settled());
}

#[test]
fn when_every_form_is_refused_the_list_is_asked_whether_anything_is_left_to_settle() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    for _ in 0..3 {
        transfer.happens(Input::SettlementBegun, at(1), &clocks());
        transfer.happens(
            Input::SettlementAnswered(Answer::FormRefused),
            at(1),
            &clocks(),
        );
    }
    assert_eq!(transfer.due_at(&clocks()), Some(at(6)));
    assert_eq!(transfer.next_step(at(6), &clocks()), Step::Confirm);
}

#[test]
fn a_200_that_nothing_confirms_is_not_believed_while_the_platform_still_waits() {
    let mut transfer = given([
        (0, seen()),
        (1, imported(10, 0)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    transfer.happens(
        Input::SettlementAnswered(Answer::Accepted),
        at(1),
        &clocks(),
    );
    for nothing_said in [
        Input::PlatformUnavailable { retry_after: None },
        Input::Listed(Listing::Full),
    ] {
        let mut unconfirmed = transfer.clone();
        unconfirmed.happens(nothing_said.clone(), START + platform::LIFE, &clocks());
        assert!(!unconfirmed.is_settled());
        assert!(unconfirmed.due_at(&clocks()).is_some());
        let given_up = START + platform::LIFE + Duration::from_millis(1);
        unconfirmed.happens(nothing_said, given_up, &clocks());
        assert!(unconfirmed.is_settled());
    }
}

#[test]
fn the_platforms_own_word_for_the_outcome_replaces_what_was_inferred() {
    let mut transfer = given([
        (0, seen()),
        (1, imported(10, 0)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    let accepted = Input::SettlementAnswered(Answer::Accepted);
    transfer.happens(accepted, at(1), &clocks());
    transfer.happens(Input::Listed(Listing::Absent), at(1), &clocks());
    let told = |status: &str| Input::PlatformSettled {
        status: Some(status.to_owned()),
    };
    assert!(!transfer.happens(told("SUCCESS"), at(2), &clocks()));
    assert!(transfer.happens(told("FAILED"), at(2), &clocks()));
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("not settled")
    };
    assert_eq!(settled.by, SettledBy::Platform);
    assert_eq!(settled.status.as_deref(), Some("FAILED"));
    assert_eq!(settled.form, None);
}

#[test]
fn a_settled_transfer_takes_nothing_in_any_more() {
    let mut transfer = given([
        (
            0,
            Input::PlatformSettled {
                status: Some("CANCELLED".to_owned()),
            },
        ),
        (0, fenced(FileTotals::default())),
    ]);
    let over = transfer.clone();
    for late in [
        seen(),
        imported(1, 0),
        Input::CancelRequested,
        complete(),
        moved(),
        Input::ListenerTriggered,
        Input::Reporting { percent: 50 },
        Input::Stop(StopReason::Deadline),
    ] {
        assert!(!transfer.happens(late, at(9), &clocks()));
    }
    assert_eq!(transfer, over);
}

#[test]
fn a_transfer_that_is_listed_no_more_is_given_up_after_two_looks() {
    let mut transfer = given([(0, seen()), (5, Input::Listed(Listing::Absent))]);
    assert!(transfer.is_open());
    transfer.happens(Input::Listed(Listing::Absent), at(10), &clocks());
    assert_eq!(transfer.phase.as_str(), "STOPPING");
}

#[test]
fn absence_from_a_full_list_means_nothing() {
    let transfer = given([
        (5, Input::Listed(Listing::Full)),
        (10, Input::Listed(Listing::Full)),
        (20, Input::Listed(Listing::Full)),
    ]);
    assert!(transfer.is_open());
}

fn settled(transfer: &Transfer) -> &Settled {
    match &transfer.phase {
        Phase::Settled(settled) => settled,
        phase => panic!("not settled: {phase:?}"),
    }
}

#[test]
fn the_platforms_word_for_the_outcome_says_whose_verdict_it_took() {
    let decided = || given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    let sent = || {
        let mut transfer = decided();
        transfer.happens(Input::SettlementBegun, at(1), &clocks());
        transfer
    };
    let word = |mut transfer: Transfer, status: Option<&str>| {
        let status = status.map(str::to_owned);
        transfer.happens(Input::PlatformSettled { status }, at(2), &clocks());
        let Settled {
            by, status, form, ..
        } = settled(&transfer).clone();
        (by, status, form)
    };
    let ours = (
        SettledBy::App,
        Some("SUCCESS".to_owned()),
        Some(Form::Hundred),
    );
    let theirs = |status: Option<&str>| (SettledBy::Platform, status.map(str::to_owned), None);
    assert_eq!(word(sent(), Some("SUCCESS")), ours);
    assert_eq!(word(sent(), None), ours);
    assert_eq!(word(sent(), Some("FAILED")), theirs(Some("FAILED")));
    assert_eq!(word(decided(), Some("SUCCESS")), theirs(Some("SUCCESS")));
    assert_eq!(word(decided(), None), theirs(None));
}

#[test]
fn a_transfer_that_was_only_just_made_may_not_be_listed_for_a_minute() {
    let absent = |after: Duration| {
        let mut transfer = given([]);
        transfer.happens(Input::Listed(Listing::Absent), START + after, &clocks());
        transfer.absent_since
    };
    let minute = Duration::from_mins(1);
    assert_eq!(absent(Duration::from_millis(59_999)), None);
    assert_eq!(absent(minute), Some(START + minute));
}

#[test]
fn two_looks_that_do_not_find_it_lie_two_minutes_apart() {
    let stopped = |clocks: &Clocks, after: Duration| {
        let mut transfer = given([(5, Input::Listed(Listing::Absent))]);
        transfer.happens(Input::Listed(Listing::Absent), at(5) + after, clocks);
        transfer.phase.as_str() == "STOPPING"
    };
    assert!(!stopped(&clocks(), Duration::from_millis(119_999)));
    assert!(stopped(&clocks(), Duration::from_mins(2)));
    let quick = Clocks {
        reconcile_interval: Duration::from_secs(1),
        ..clocks()
    };
    assert!(!stopped(&quick, Duration::from_millis(999)));
    assert!(stopped(&quick, Duration::from_secs(1)));
    let at_once = Clocks {
        reconcile_interval: Duration::ZERO,
        ..clocks()
    };
    assert!(!stopped(&at_once, Duration::ZERO), "one look is not two");
}

#[test]
fn being_listed_again_takes_absence_back() {
    let mut transfer = given([
        (5, Input::Listed(Listing::Absent)),
        (6, Input::Listed(Listing::Active)),
        (8, Input::Listed(Listing::Absent)),
    ]);
    assert_eq!(transfer.absent_since, Some(at(8)));
    transfer.happens(Input::Listed(Listing::Full), at(12), &clocks());
    assert_eq!(transfer.absent_since, Some(at(8)));
}

#[test]
fn an_outage_holds_questions_back_for_as_long_as_the_platform_asks_and_no_shorter_than_the_pause() {
    let held = |asked: Option<u64>| {
        let retry_after = asked.map(Duration::from_secs);
        given([(1, Input::PlatformUnavailable { retry_after })]).held_back_until
    };
    assert_eq!(held(None), Some(at(1) + Duration::from_secs(10)));
    assert_eq!(held(Some(5)), Some(at(1) + Duration::from_secs(10)));
    assert_eq!(held(Some(11)), Some(at(1) + Duration::from_secs(11)));
}

#[test]
fn a_transfer_past_its_life_is_settled_once_a_day() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    let pause = |transfer: &mut Transfer, now| {
        transfer.happens(Input::SettlementBegun, now, &clocks());
        let not_taken = Answer::NotTaken { retry_after: None };
        transfer.happens(Input::SettlementAnswered(not_taken), now, &clocks());
        transfer.due_at(&clocks()).unwrap().since(now)
    };
    let life = START + platform::LIFE;
    assert!(pause(&mut transfer, life) <= clocks().settle_retry_max);
    assert_eq!(
        pause(&mut transfer, life + Duration::from_millis(1)),
        Duration::from_hours(24)
    );
}

#[test]
fn the_form_is_told_only_where_the_platform_said_that_it_took_it() {
    let form = |answer| {
        let mut transfer = given([
            (0, seen()),
            (1, imported(10, 0)),
            (1, complete()),
            (1, Input::SettlementBegun),
        ]);
        transfer.happens(Input::SettlementAnswered(answer), at(1), &clocks());
        transfer.happens(Input::Listed(Listing::Absent), at(2), &clocks());
        let settled = settled(&transfer);
        (settled.by.clone(), settled.form)
    };
    let unknown = Answer::Unknown { retry_after: None };
    let not_taken = Answer::NotTaken { retry_after: None };
    assert_eq!(
        form(Answer::Accepted),
        (SettledBy::App, Some(Form::Hundred))
    );
    assert_eq!(form(unknown), (SettledBy::App, None));
    assert_eq!(form(not_taken), (SettledBy::Platform, None));
}

/// A transfer whose verdict was sent once, and answered so.
fn answered(clocks: &Clocks, answers: &[Answer]) -> Transfer {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    for answer in answers {
        transfer.happens(Input::SettlementBegun, at(1), clocks);
        transfer.happens(Input::SettlementAnswered(*answer), at(1), clocks);
    }
    transfer
}

const NOT_TAKEN: Answer = Answer::NotTaken { retry_after: None };

#[test]
fn an_attempt_that_may_have_arrived_is_remembered_whatever_came_after_it() {
    let unknown = Answer::Unknown { retry_after: None };
    let mut transfer = answered(&clocks(), &[unknown, NOT_TAKEN, Answer::SuspectGone]);
    transfer.happens(Input::Listed(Listing::Absent), at(2), &clocks());
    assert_eq!(settled(&transfer).by, SettledBy::App);
}

#[test]
fn the_first_pause_lies_within_the_shortest_and_the_pauses_double() {
    let pause = |times| {
        let transfer = answered(&clocks(), &vec![NOT_TAKEN; times]);
        transfer.due_at(&clocks()).unwrap().since(at(1))
    };
    for (times, ceiling) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (40, 300)] {
        let ceiling = Duration::from_secs(ceiling);
        let pause = pause(times);
        assert!(
            pause >= ceiling / 2 && pause <= ceiling,
            "{times}: {pause:?}"
        );
    }
}

#[test]
fn pauses_of_a_millisecond_or_two_are_pauses_too() {
    for millis in [1, 2] {
        let quick = Clocks {
            settle_retry_first: Duration::from_millis(millis),
            settle_retry_max: Duration::from_millis(millis),
            ..clocks()
        };
        let pause = answered(&quick, &[NOT_TAKEN])
            .due_at(&quick)
            .unwrap()
            .since(at(1));
        assert!(pause <= Duration::from_millis(millis), "{pause:?}");
    }
}

#[test]
fn a_settlement_that_is_still_listed_after_a_refusal_is_repeated_later() {
    for listing in [Listing::Active, Listing::Full] {
        let mut transfer = answered(&clocks(), &[Answer::SuspectGone]);
        transfer.happens(Input::Listed(listing), at(2), &clocks());
        let due = transfer.due_at(&clocks()).unwrap();
        assert!(
            due > at(2) && due <= at(2) + Duration::from_secs(1),
            "{due:?}"
        );
        assert_eq!(transfer.next_step(due, &clocks()), Step::Settle);
    }
}

#[test]
fn a_list_that_can_not_be_read_is_asked_again_when_the_platform_allows_it() {
    let asked_again = |retry_after: Option<u64>| {
        let mut transfer = answered(&clocks(), &[Answer::SuspectGone]);
        let retry_after = retry_after.map(Duration::from_secs);
        transfer.happens(Input::PlatformUnavailable { retry_after }, at(2), &clocks());
        transfer.due_at(&clocks()).unwrap().since(at(2))
    };
    assert_eq!(asked_again(Some(3_600)), Duration::from_hours(1));
    assert!(asked_again(Some(0)) >= Duration::from_millis(500));
    assert!(asked_again(None) <= Duration::from_secs(1));
}

#[test]
fn a_sender_that_is_at_it_is_left_alone_while_its_lease_lasts() {
    let mut transfer = given([
        (0, seen()),
        (1, imported(10, 0)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    let lease_ends = at(1) + clocks().send_lease();
    let unavailable = Input::PlatformUnavailable { retry_after: None };
    let before = lease_ends - Duration::from_millis(1);
    transfer.happens(unavailable.clone(), before, &clocks());
    assert_eq!(transfer.due_at(&clocks()), Some(lease_ends));
    transfer.happens(unavailable, lease_ends, &clocks());
    let Phase::Settling(settlement) = &transfer.phase else {
        panic!("settled too early")
    };
    assert_eq!(
        (settlement.sending_until, settlement.may_have_arrived),
        (None, true)
    );
}

/// A settlement that is sent at every instant at which it is due, and is told to wait for an hour each time. When each attempt was made.
fn told_to_wait_an_hour(
    transfer: &mut Transfer,
    unless: fn(&Transfer, Timestamp) -> bool,
) -> Vec<Timestamp> {
    let mut attempts = Vec::new();
    while let Some(now) = transfer.due_at(&clocks())
        && !unless(transfer, now)
    {
        transfer.happens(Input::SettlementBegun, now, &clocks());
        let retry_after = Some(Duration::from_hours(1));
        let answer = Answer::NotTaken { retry_after };
        transfer.happens(Input::SettlementAnswered(answer), now, &clocks());
        attempts.push(now);
    }
    attempts
}

#[test]
fn a_pause_of_an_hour_makes_no_cancelled_transfer_miss_its_hour() {
    let grace = platform::CANCELLATION_GRACE;
    let cancelled = [(0, seen()), (1, Input::CancelRequested)];
    let mut transfer = given(
        cancelled
            .into_iter()
            .chain([(1, fenced(FileTotals::default()))]),
    );
    let over = |_: &Transfer, now| now >= at(1) + platform::CANCELLATION_GRACE;
    let attempts = told_to_wait_an_hour(&mut transfer, over);
    assert_eq!(attempts[..2], [at(1), at(46)], "within its 60 minutes");
    assert!((4..=7).contains(&attempts.len()), "{attempts:?}");
    assert!(attempts.iter().all(|attempt| *attempt < at(1) + grace));
    for (minute, presses) in [(45, false), (46, true), (60, true), (61, false)] {
        assert_eq!(transfer.is_pressing(at(minute), &clocks()), presses);
    }
    // Nothing is left to be missed, so the pause is kept again.
    let late = transfer.due_at(&clocks()).unwrap();
    transfer.happens(Input::SettlementBegun, late, &clocks());
    let retry_after = Some(Duration::from_hours(1));
    let answer = Input::SettlementAnswered(Answer::NotTaken { retry_after });
    transfer.happens(answer, late, &clocks());
    assert_eq!(
        transfer.due_at(&clocks()),
        Some(late + Duration::from_hours(1))
    );
}

#[test]
fn a_verdict_that_waits_for_a_pause_when_the_admin_cancels_waits_no_longer_than_that_allows() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    transfer.happens(Input::SettlementBegun, at(1), &clocks());
    let retry_after = Some(Duration::from_hours(1));
    let answer = Input::SettlementAnswered(Answer::NotTaken { retry_after });
    transfer.happens(answer, at(1), &clocks());
    assert_eq!(transfer.due_at(&clocks()), Some(at(61)));
    transfer.happens(Input::CancelRequested, at(2), &clocks());
    assert_eq!(transfer.due_at(&clocks()), Some(at(47)));
    assert_eq!(transfer.next_step(at(47), &clocks()), Step::Settle);
    assert!(transfer.is_pressing(at(47), &clocks()));
}

#[test]
fn a_look_for_a_cancelled_transfers_settlement_waits_no_longer_than_that_allows() {
    let cancelled = [(0, seen()), (1, Input::CancelRequested)];
    let mut transfer = given(cancelled.into_iter().chain([
        (1, fenced(FileTotals::default())),
        (1, Input::SettlementBegun),
        (1, Input::SettlementAnswered(Answer::Accepted)),
    ]));
    let retry_after = Some(Duration::from_hours(1));
    let unavailable = Input::PlatformUnavailable { retry_after };
    transfer.happens(unavailable, at(2), &clocks());
    assert_eq!(transfer.due_at(&clocks()), Some(at(46)));
    assert_eq!(transfer.next_step(at(46), &clocks()), Step::Confirm);
}

#[test]
fn pauses_without_end_leave_the_admin_a_day_to_run_it_again() {
    let mut transfer = given([(0, seen()), (1, imported(10, 0)), (1, complete())]);
    let left = START + platform::RERUN_WINDOW - Duration::from_hours(24);
    let before = told_to_wait_an_hour(&mut transfer, |transfer, now| {
        transfer.is_pressing(now, &clocks())
    });
    let hours = 11 * 24;
    assert!((hours..=hours + 1).contains(&before.len()), "once an hour");
    assert_eq!(transfer.due_at(&clocks()), Some(left));
}
