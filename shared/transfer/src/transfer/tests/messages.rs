//! Transfers on Forge: nobody settles them, the messages of their files are answered.

use super::*;
use crate::clocks::platform;
use crate::timeline::{What, entries};

fn forge() -> Transfer {
    transfer().with_messages()
}

/// A transfer that is told things by whoever works on it, minute by minute, and does what is owed.
struct Run {
    transfer: Transfer,
    /// In which minute so many messages were answered, and how.
    answers: Vec<(u64, MessageOutcome, u64)>,
    warned: Vec<u64>,
    /// In which minute a token came, and in which it ends.
    tokens: Vec<(u64, u64)>,
}

impl Run {
    fn new() -> Self {
        Self {
            transfer: forge(),
            answers: Vec::new(),
            warned: Vec::new(),
            tokens: vec![(0, 24 * 60)],
        }
    }

    fn tell(&mut self, minute: u64, input: Input) {
        self.transfer.happens(input, at(minute), &clocks());
    }

    fn announce(&mut self, minute: u64) {
        self.tell(minute, seen());
        self.tell(minute, Input::MessageArrived { at: at(minute) });
    }

    fn end(&mut self, minute: u64, rejected: u64) {
        self.tell(minute, imported(10, rejected));
        let applied = rejected == 0;
        self.tell(minute, Input::MessageDecided { applied });
    }

    fn answer(&mut self, minute: u64, outcome: MessageOutcome, messages: u64) {
        self.tell(minute, Input::AnswerBegun);
        let begun_at = at(minute);
        self.tell(
            minute,
            Input::AnswersTaken {
                outcome,
                messages,
                begun_at,
            },
        );
        self.answers.push((minute, outcome, messages));
    }

    /// Does what is owed in this minute, answers in calls of at most 50 messages.
    fn drive(&mut self, minute: u64) {
        for _ in 0..20 {
            match self.transfer.next_step(at(minute), &clocks()) {
                Step::Wait => return,
                Step::Answer => self.answer(minute, MessageOutcome::Success, 1),
                Step::Warn => {
                    self.tell(minute, Input::WindowWarned);
                    self.warned.push(minute);
                }
                Step::LookForToken => {
                    let come = self.tokens.iter().filter(|(came, _)| *came <= minute);
                    let good_until = come.map(|(_, ends)| at(*ends)).max();
                    self.tell(minute, Input::TokenLooked { good_until });
                }
                Step::Stop(reason) => self.tell(minute, Input::Stop(reason)),
                Step::FenceFiles => {
                    let work = &self.transfer.work;
                    let totals = FileTotals {
                        known: work.files_known,
                        ended: work.files_ended,
                        counts: work.counts,
                        ..FileTotals::default()
                    };
                    self.tell(minute, fenced(totals.clone()));
                }
                Step::CountFiles => self.tell(minute, counted()),
                Step::CheckCompleteness => self.tell(minute, complete()),
                Step::Reconcile => self.tell(minute, Input::Listed(Listing::Active)),
                Step::Settle => {
                    let outcome = match verdict(&self.transfer).status {
                        Status::Success => MessageOutcome::Success,
                        _ => MessageOutcome::Failed,
                    };
                    let open = self.transfer.messages.as_ref().unwrap().open();
                    self.answer(minute, outcome, open.min(50));
                }
                step @ (Step::Confirm | Step::Report | Step::BeginSecondPhase) => {
                    panic!("{step:?} on Forge")
                }
            }
        }
        panic!("never done in minute {minute}: {:?}", self.transfer);
    }

    fn drive_until(&mut self, from: u64, until: u64) {
        for minute in from..=until {
            if !self.transfer.is_settled() && minute % 5 == 0 && self.transfer.is_open() {
                self.tell(minute, moved());
            }
            self.drive(minute);
        }
    }

    fn settled(&self) -> (SettledBy, Option<&str>, Cause) {
        let Phase::Settled(settled) = &self.transfer.phase else {
            panic!("{:?}", self.transfer.phase)
        };
        let cause = verdict(&self.transfer).cause;
        (settled.by.clone(), settled.status.as_deref(), cause)
    }
}

#[test]
fn short_files_carry_a_long_one_and_all_others_are_answered_with_the_verdict() {
    let mut run = Run::new();
    for _ in 0..11 {
        run.announce(0);
    }
    run.tell(1, Input::ExportPhaseCompleted);
    for minute in 1..=10 {
        run.drive(minute);
        run.end(minute, 0);
    }
    run.drive_until(11, 39);
    assert_eq!(
        run.answers,
        [12, 24, 36].map(|minute| (minute, MessageOutcome::Success, 1))
    );
    run.end(40, 0);
    run.drive(40);
    assert_eq!(run.answers[3..], [(40, MessageOutcome::Success, 8)]);
    assert_eq!(
        run.settled(),
        (SettledBy::App, Some("SUCCESS"), Cause::Complete)
    );
    assert!(run.warned.is_empty());
}

#[test]
fn what_can_not_be_answered_in_time_is_warned_of_and_failed_while_it_can_be() {
    let mut run = Run::new();
    for _ in 0..120 {
        run.announce(0);
    }
    run.drive_until(0, 12);
    assert_eq!(run.warned, [8]);
    assert_eq!(
        run.answers,
        [50, 50, 20].map(|messages| (12, MessageOutcome::Failed, messages))
    );
    assert_eq!(
        run.settled(),
        (SettledBy::App, Some("FAILED"), Cause::Unanswered)
    );
    assert!(at(12).since(START) < platform::FORGE_MESSAGE_WINDOW);
}

#[test]
fn a_cancelled_transfer_answers_every_open_message_failed() {
    let mut run = Run::new();
    run.announce(0);
    run.announce(0);
    run.end(1, 0);
    run.tell(2, Input::CancelRequested);
    run.drive(2);
    assert_eq!(run.answers, [(2, MessageOutcome::Failed, 2)]);
    assert_eq!(
        run.settled(),
        (SettledBy::App, Some("FAILED"), Cause::Cancelled)
    );
}

#[test]
fn a_rejected_record_makes_its_file_no_answer_that_carries_and_the_end_failed() {
    let mut run = Run::new();
    run.announce(0);
    run.announce(0);
    run.end(1, 1);
    run.drive_until(1, 8);
    assert_eq!(run.warned, [8], "the file that ended can't carry the other");
    run.end(9, 0);
    run.tell(9, Input::ExportPhaseCompleted);
    run.drive(9);
    assert_eq!(run.answers, [(9, MessageOutcome::Failed, 2)]);
    assert_eq!(run.settled(), (SettledBy::App, Some("FAILED"), Cause::Gaps));
}

#[test]
fn a_transfer_without_an_open_message_is_left_to_the_platform() {
    let mut nothing = Run::new();
    nothing.tell(0, Input::ExportPhaseCompleted);
    nothing.drive(1);
    assert_eq!(
        nothing.settled(),
        (SettledBy::Platform, None, Cause::Complete)
    );

    // Answered SUCCESS already, when more turned out to be missing: the first answer is final.
    let mut missing = Run::new();
    missing.announce(0);
    missing.end(1, 0);
    missing.drive(12);
    missing.tell(13, Input::ExportPhaseCompleted);
    let incomplete = Input::ExportComplete {
        evidence: Evidence::ExportComplete,
        missing: vec!["b.ndjson".to_owned()],
    };
    missing.tell(13, incomplete);
    assert_eq!(missing.answers, [(12, MessageOutcome::Success, 1)]);
    assert_eq!(missing.settled(), (SettledBy::Platform, None, Cause::Gaps));
    let settled = Input::PlatformSettled {
        status: Some("SUCCESS".to_owned()),
    };
    missing.tell(14, settled);
    assert_eq!(missing.settled().1, Some("SUCCESS"));
}

#[test]
fn the_platforms_word_changes_who_settled_only_where_it_is_another_than_our_answers_make() {
    let ended = || {
        let mut run = Run::new();
        run.announce(0);
        run.announce(0);
        run.end(1, 0);
        run.end(1, 3);
        run.tell(2, Input::ExportPhaseCompleted);
        run.drive(2);
        assert_eq!(verdict(&run.transfer).status, Status::Incomplete);
        assert_eq!(run.settled().0, SettledBy::App);
        assert_eq!(run.settled().1, Some("FAILED"));
        run
    };
    for (word, by) in [
        ("FAILED", SettledBy::App),
        ("TIMED_OUT", SettledBy::Platform),
    ] {
        let mut run = ended();
        let status = Some(word.to_owned());
        run.tell(3, Input::PlatformSettled { status });
        let (settled_by, status, _) = run.settled();
        assert_eq!((settled_by, status), (by, Some(word)));
    }
}

#[test]
fn an_answer_that_was_not_taken_is_tried_again_within_the_window() {
    let mut run = Run::new();
    run.announce(0);
    run.announce(0);
    run.end(1, 0);
    run.drive_until(1, 11);
    assert_eq!(run.transfer.next_step(at(12), &clocks()), Step::Answer);
    run.tell(12, Input::AnswerBegun);
    assert_eq!(run.transfer.next_step(at(12), &clocks()), Step::Wait);
    let retry_after = Some(Duration::from_mins(30));
    run.tell(12, Input::AnswersNotTaken { retry_after });
    let due = run.transfer.due_at(&clocks()).unwrap();
    assert!(due > at(12) && due <= at(13), "{due:?}");
    run.drive(13);
    assert_eq!(run.answers, [(13, MessageOutcome::Success, 1)]);
}

#[test]
fn connect_has_no_messages_whatever_is_said_of_them() {
    let mut connect = transfer();
    for input in [
        Input::MessageArrived { at: START },
        Input::MessageDecided { applied: true },
        Input::WindowWarned,
        Input::AnswerBegun,
        Input::AnswersNotTaken { retry_after: None },
    ] {
        assert!(!connect.happens(input, at(1), &clocks()));
    }
    assert_eq!(connect, transfer());
}

#[test]
fn a_lease_that_outlasts_the_window_is_not_waited_for() {
    let mut run = Run::new();
    run.announce(0);
    run.drive_until(0, 11);
    let leased_until = Some(at(25));
    run.tell(12, Input::Stop(StopReason::Unanswered));
    let totals = FileTotals {
        known: 1,
        ..FileTotals::default()
    };
    let fenced = Input::FilesFenced {
        totals,
        leased_until,
    };
    run.tell(12, fenced.clone());
    assert_eq!(run.transfer.due_at(&clocks()), Some(at(13)));
    run.tell(13, fenced);
    run.drive(13);
    assert_eq!(run.answers, [(13, MessageOutcome::Failed, 1)]);
}

#[test]
fn an_answer_presses_from_when_it_is_needed_until_it_is_too_late() {
    let mut run = Run::new();
    assert!(
        !run.transfer.is_pressing(at(12), &clocks()),
        "nothing to answer"
    );
    run.announce(0);
    let pressing = |minute| run.transfer.is_pressing(at(minute), &clocks());
    assert_eq!([11, 12, 14, 15].map(pressing), [false, true, true, false]);
}

/// The minutes in which a refresh of every hour comes with a token of four hours.
fn hourly(missing: &[u64]) -> Vec<(u64, u64)> {
    (0..12)
        .filter(|hour| !missing.contains(hour))
        .map(|hour| (hour * 60, (hour + 4) * 60))
        .collect()
}

/// One file of ten hours, and one that ends every ten minutes.
fn ten_hours(tokens: Vec<(u64, u64)>) -> Run {
    let mut run = Run::new();
    run.tokens = tokens;
    run.announce(0);
    for minute in 0..600 {
        if minute % 10 == 5 && run.transfer.is_open() {
            run.announce(minute);
            run.end(minute, 0);
        }
        run.drive_until(minute, minute);
    }
    if run.transfer.is_open() {
        run.tell(600, Input::ExportPhaseCompleted);
        run.end(600, 0);
        run.drive(600);
    }
    run
}

#[test]
fn ten_hours_with_tokens_of_four_are_finished_whichever_two_refreshes_in_a_row_fail() {
    for failing in 1..9 {
        let run = ten_hours(hourly(&[failing, failing + 1]));
        assert_eq!(
            run.settled(),
            (SettledBy::App, Some("SUCCESS"), Cause::Complete),
            "{failing}"
        );
    }
}

#[test]
fn when_no_token_has_come_for_so_long_that_the_last_one_ends_everything_is_answered_failed_with_it()
{
    let run = ten_hours(hourly(&[2, 3, 4, 5, 6, 7]));
    assert_eq!(
        run.settled(),
        (SettledBy::App, Some("FAILED"), Cause::NoToken)
    );
    // The token of the first hour ends after five.
    let (minute, outcome, _) = *run.answers.last().unwrap();
    assert_eq!(outcome, MessageOutcome::Failed);
    assert!((295..300).contains(&minute), "{minute}");
}

#[test]
fn without_any_token_it_is_looked_for_until_one_comes_and_that_is_told_once() {
    let mut run = Run::new();
    run.tokens = vec![(7, 240)];
    run.announce(0);
    for minute in 0..7 {
        run.drive(minute);
    }
    let before = run.transfer.clone();
    let missing = Input::TokenLooked { good_until: None };
    let mut again = before.clone();
    assert!(again.happens(missing.clone(), at(7), &clocks()));
    assert_eq!(entries(Some(&before), &again, &missing), []);
    assert_eq!(
        entries(Some(&forge()), &again, &missing),
        [What::TokenAwaited]
    );
    let came = Input::TokenLooked {
        good_until: Some(at(240)),
    };
    let mut good = before.clone();
    good.happens(came.clone(), at(7), &clocks());
    assert_eq!(entries(Some(&before), &good, &came), [What::TokenCame]);
    run.drive(7);
    assert!(run.transfer.is_open());
    let messages = run.transfer.messages.as_ref().unwrap();
    assert_eq!(messages.token_until, Some(at(240)));
}

#[test]
fn a_file_that_ends_while_somebody_is_about_to_give_up_carries_the_others_after_all() {
    let mut run = Run::new();
    run.announce(0);
    run.announce(0);
    run.drive_until(0, 11);
    let step = run.transfer.next_step(at(12), &clocks());
    assert_eq!(step, Step::Stop(StopReason::Unanswered));
    run.end(12, 0);
    run.tell(12, Input::Stop(StopReason::Unanswered));
    assert!(run.transfer.is_open());
    run.drive(12);
    assert_eq!(run.answers, [(12, MessageOutcome::Success, 1)]);
}

#[test]
fn answers_that_are_never_taken_are_given_up_when_the_platform_has_given_the_transfer_up() {
    let mut run = Run::new();
    run.announce(0);
    run.tell(1, Input::CancelRequested);
    run.tell(1, fenced(FileTotals::default()));
    let not_taken = Input::AnswersNotTaken { retry_after: None };
    let life = platform::LIFE.as_secs() / 60;
    run.tell(life - 1, not_taken.clone());
    assert!(matches!(run.transfer.phase, Phase::Settling(_)));
    run.tell(life, not_taken);
    assert_eq!(run.settled(), (SettledBy::Platform, None, Cause::Cancelled));
}
