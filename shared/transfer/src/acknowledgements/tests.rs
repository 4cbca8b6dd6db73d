use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::clocks::platform;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

fn clocks() -> Clocks {
    Clocks::default()
}

/// A file: the minute in which its message arrives, and the one in which it is applied.
#[derive(Clone, Copy, Debug)]
struct File {
    announced: u64,
    applied: u64,
}

/// How a transfer went that did what was needed, when it was needed.
#[derive(Debug, Default)]
struct Run {
    /// The longest span without an answer while a message was open.
    longest: Duration,
    answers: Vec<u64>,
    warnings: Vec<u64>,
    /// The minute in which nothing could be answered.
    ended: Option<u64>,
}

/// Minute by minute; an answer is begun and taken at once. When all files are applied, the rest is answered.
fn run(files: &[File]) -> Run {
    let clocks = clocks();
    let mut run = Run::default();
    let mut state = Acknowledgements::default();
    let last = files.iter().map(|file| file.applied).max().unwrap();
    let mut since = None;
    for minute in 0..=last {
        let now = START + minutes(minute);
        for file in files {
            if file.announced == minute {
                state.announced(now);
                since.get_or_insert(minute);
            }
        }
        for file in files {
            if file.applied == minute {
                state.file_ended(true);
            }
        }
        let mut answered = 0;
        while let Some((due, needed)) = state.needed(&clocks).filter(|(due, _)| *due <= now) {
            assert_eq!(due, now, "nothing is needed late that was needed earlier");
            match needed {
                Needed::Answer => {
                    state.begin(now, &clocks);
                    state.answered_success(1, now);
                    answered += 1;
                    run.answers.push(minute);
                }
                Needed::Warning => {
                    state.said();
                    run.warnings.push(minute);
                }
                Needed::End => {
                    run.ended = Some(minute);
                    return run;
                }
            }
        }
        if minute == last {
            state.answered_success(state.kept_back, now);
            answered += 1;
        }
        if answered > 0 {
            run.longest = run.longest.max(minutes(minute - since.unwrap()));
            since = (state.open() > 0).then_some(minute);
        }
    }
    assert_eq!((state.open(), state.window_since), (0, None));
    run
}

#[test]
fn ten_short_files_carry_one_of_forty_minutes() {
    let mut files = vec![File {
        announced: 0,
        applied: 40,
    }];
    files.extend((1..=10).map(|applied| File {
        announced: 0,
        applied,
    }));
    let run = run(&files);
    assert_eq!(run.answers, [12, 24, 36]);
    assert_eq!(run.longest, minutes(12));
    assert_eq!((run.ended, run.warnings.len()), (None, 0));
}

#[test]
fn a_file_alone_that_takes_longer_than_the_window_is_warned_of_and_then_ended_in_time() {
    let run = run(&[File {
        announced: 3,
        applied: 60,
    }]);
    assert_eq!(run.warnings, [11]);
    assert_eq!(run.ended, Some(15));
    assert!(minutes(15 - 3) < platform::FORGE_MESSAGE_WINDOW);
}

#[test]
fn a_file_that_ends_after_the_warning_carries_the_others_after_all() {
    let files = [
        File {
            announced: 0,
            applied: 20,
        },
        File {
            announced: 0,
            applied: 11,
        },
    ];
    let run = run(&files);
    assert_eq!(
        (run.warnings, run.answers, run.ended),
        (vec![8], vec![12], None)
    );
}

#[test]
fn further_uploads_and_failed_files_begin_no_new_window() {
    let clocks = clocks();
    let mut state = Acknowledgements::default();
    state.announced(START);
    state.announced(START + minutes(6));
    state.file_ended(false);
    assert_eq!(
        state.needed(&clocks),
        Some((START + minutes(8), Needed::Warning))
    );
    state.said();
    assert_eq!(
        state.needed(&clocks),
        Some((START + minutes(12), Needed::End))
    );
    state.answered_failed(1);
    assert_eq!(
        state.needed(&clocks),
        Some((START + minutes(12), Needed::End))
    );
}

#[test]
fn nothing_is_needed_while_no_message_is_open() {
    let clocks = clocks();
    let mut state = Acknowledgements::default();
    assert_eq!(state.needed(&clocks), None);
    state.announced(START);
    state.file_ended(true);
    state.answered_success(1, START + minutes(12));
    assert_eq!((state.needed(&clocks), state.succeeded), (None, 1));
    let later = START + minutes(500);
    state.announced(later);
    assert_eq!(
        state.needed(&clocks),
        Some((later + minutes(8), Needed::Warning))
    );
}

#[test]
fn an_answer_counts_from_when_it_was_begun_and_never_shortens_a_window() {
    let mut state = Acknowledgements::default();
    for _ in 0..3 {
        state.announced(START + minutes(5));
    }
    state.file_ended(true);
    state.file_ended(true);
    state.answered_success(1, START + minutes(17));
    assert_eq!(state.window_since, Some(START + minutes(17)));
    state.answered_success(1, START + minutes(16));
    assert_eq!(state.window_since, Some(START + minutes(17)));
}

#[test]
fn an_attempt_of_unknown_outcome_is_repeated_after_its_lease_or_its_pause() {
    let clocks = clocks();
    let mut state = Acknowledgements::default();
    state.announced(START);
    state.announced(START);
    state.file_ended(true);
    let due = START + minutes(12);
    assert_eq!(state.needed(&clocks), Some((due, Needed::Answer)));
    state.begin(due, &clocks);
    assert_eq!(
        state.needed(&clocks),
        Some((due + clocks.send_lease(), Needed::Answer))
    );
    state.not_taken(Some(Duration::from_secs(5)), due, &clocks, 1);
    assert_eq!(
        state.needed(&clocks),
        Some((due + Duration::from_secs(5), Needed::Answer))
    );
    assert_eq!((state.kept_back, state.succeeded), (1, 0));
}

#[test]
fn when_a_transfer_ends_all_open_messages_are_answered_failed() {
    let mut state = Acknowledgements::default();
    for _ in 0..120 {
        state.announced(START);
    }
    for applied in [true, false] {
        state.file_ended(applied);
    }
    for _ in 0..2 {
        state.answered_failed(50);
    }
    assert_eq!((state.open(), state.refused), (20, 100));
    state.answered_failed(20);
    assert_eq!(
        (state.open(), state.refused, state.window_since),
        (0, 120, None)
    );
}

/// Whether any choice of answers, minute by minute, keeps all windows within the time that we take for ourselves.
fn can_be_carried(files: &[File]) -> bool {
    fn from(
        minute: u64,
        answered: usize,
        since: Option<u64>,
        files: &[File],
        known: &mut HashMap<(u64, usize, Option<u64>), bool>,
    ) -> bool {
        let last = files.iter().map(|file| file.applied).max().unwrap();
        if minute == last {
            return since.is_none_or(|since| minute - since <= 12);
        }
        if let Some(&known) = known.get(&(minute, answered, since)) {
            return known;
        }
        let announced = files.iter().filter(|file| file.announced <= minute).count();
        let applied = files.iter().filter(|file| file.applied <= minute).count();
        let since_now = (announced > answered).then(|| since.unwrap_or(minute));
        let alive = |since: Option<u64>| since.is_none_or(|since| minute - since < 12);
        // Keep what is ready, or give some of it away.
        let can = (alive(since_now) && from(minute + 1, answered, since_now, files, known))
            || (since_now.is_some_and(|since| minute - since <= 12)
                && (answered + 1..=applied).any(|answered| {
                    let since = (announced > answered).then_some(minute);
                    from(minute + 1, answered, since, files, known)
                }));
        known.insert((minute, answered, since), can);
        can
    }
    from(0, 0, None, files, &mut HashMap::new())
}

proptest! {
    #[test]
    fn whatever_can_be_carried_is_carried_and_no_window_reaches_the_platforms(
        files in proptest::collection::vec((0_u64..30, 1_u64..50), 1..7)
    ) {
        let files: Vec<File> = files
            .into_iter()
            .map(|(announced, takes)| File { announced, applied: announced + takes })
            .collect();
        let run = run(&files);
        prop_assert_eq!(run.ended.is_none(), can_be_carried(&files));
        prop_assert!(run.longest < platform::FORGE_MESSAGE_WINDOW);
    }
}

#[test]
fn a_pause_that_would_outlast_the_window_leaves_some_more_attempts_in_it() {
    let clocks = clocks();
    let mut state = Acknowledgements::default();
    state.announced(START);
    state.file_ended(true);
    let ends = START + platform::FORGE_MESSAGE_WINDOW;
    let (mut now, mut attempts) = (START + minutes(12), 0);
    while now < ends {
        state.begin(now, &clocks);
        state.not_taken(Some(minutes(60)), now, &clocks, 1);
        now = state.free_from().unwrap();
        attempts += 1;
    }
    assert_eq!(attempts, TRIES_LEFT);
    state.begin(now, &clocks);
    state.not_taken(Some(minutes(60)), now, &clocks, 1);
    assert_eq!(
        state.free_from(),
        Some(now + minutes(60)),
        "nothing is left to be saved"
    );
}

#[test]
fn a_pause_is_kept_until_it_would_cost_the_window() {
    let clocks = clocks();
    let mut state = Acknowledgements::default();
    state.announced(START);
    let mut tried_again = |minute, asked| {
        let now = START + minutes(minute);
        state.begin(now, &clocks);
        state.not_taken(Some(minutes(asked)), now, &clocks, 1);
        state.free_from().unwrap()
    };
    assert_eq!(tried_again(2, 5), START + minutes(7));
    assert_eq!(tried_again(7, 60), START + minutes(12));
    assert!(tried_again(12, 60) < START + minutes(13));
}

#[test]
fn an_installation_is_silent_when_two_of_its_hourly_calls_have_failed_and_before_its_token_ends() {
    let of_four_hours = START + platform::FORGE_TOKEN_LIFE;
    let silent = silent_from(Some(START), of_four_hours);
    assert_eq!(silent, START + minutes(150));
    // A token that came again and again, and one that an older release kept.
    let later = silent_from(Some(START + minutes(60)), of_four_hours);
    assert_eq!(later, START + minutes(210));
    assert_eq!(silent_from(None, of_four_hours), START + minutes(150));
    // Heard a moment ago, and yet nothing can be called soon.
    let ending = silent_from(Some(START + minutes(239)), of_four_hours);
    assert_eq!(ending, START + minutes(230));
    // A token that lives shorter.
    let short = silent_from(Some(START), START + minutes(60));
    assert_eq!(short, START + minutes(50));
}
