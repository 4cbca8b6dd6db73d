use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(START.as_millis() + millis.cast_signed())
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const PATIENT: Duration = Duration::from_hours(1);

fn too_many(retry_after: Option<Duration>, called_at: Timestamp) -> Refusal {
    Refusal {
        too_many: true,
        retry_after,
        called_at,
    }
}

#[test]
fn a_lot_has_its_own_stretch_of_time_and_the_next_one_begins_behind_it() {
    let mut pace = Pace::new(START);
    // What was saved up goes first.
    for _ in 0..5 {
        let lot = pace.take(2, PATIENT, START).unwrap();
        assert!(lot.next_call(&pace, START) <= Some(START));
    }
    let mut lot = pace.take(2, PATIENT, START).unwrap();
    assert_eq!(lot.next_call(&pace, START), Some(at(0)));
    lot.use_one();
    let second = lot.next_call(&pace, START).unwrap();
    assert!(second > at(50) && second <= at(100), "{second:?}");
    lot.use_one();
    assert_eq!(lot.next_call(&pace, START), None, "it is used up");
    let behind = pace.take(1, PATIENT, START).unwrap();
    assert!(behind.next_call(&pace, START) > Some(second));
}

#[test]
fn whoever_can_not_wait_so_long_takes_nothing_and_learns_how_long_it_would_be() {
    let mut pace = Pace::new(START);
    while pace.take(10, seconds(2), START).is_ok() {}
    let before = pace.clone();
    let wait = pace.take(10, seconds(2), START).unwrap_err();
    assert!(wait > seconds(2) && wait < seconds(4), "{wait:?}");
    assert_eq!(pace, before);
}

#[test]
fn a_lot_that_nobody_uses_expires_and_nothing_else_happens() {
    let mut pace = Pace::new(START);
    let lot = pace.take(5, PATIENT, START).unwrap();
    assert_eq!(lot.next_call(&pace, at(10_000)), None);
    assert_eq!(lot.next_size(), 1);
    assert!(pace.take(5, Duration::ZERO, at(10_000)).is_ok());
}

#[test]
fn a_pause_makes_every_lot_void_that_was_taken_before_it() {
    let mut pace = Pace::new(START);
    let lot = pace.take(5, PATIENT, START).unwrap();
    pace.refused(too_many(Some(seconds(30)), START), at(40));
    assert_eq!(lot.next_call(&pace, at(50)), None);
    let until = pace.paused_until(at(50));
    assert_eq!(until, at(30_040 + 250));
    let after = pace.take(5, PATIENT, at(50)).unwrap();
    assert_eq!(after.next_call(&pace, at(50)), Some(until));
    assert_eq!(
        pace.take(1, seconds(2), at(50)).unwrap_err().as_secs(),
        31,
        "nobody waits for a long pause, and for those before"
    );
}

#[test]
fn the_pace_falls_once_for_each_window_and_not_for_each_refusal() {
    let mut pace = Pace::new(START);
    for _ in 0..5 {
        pace.take(2, PATIENT, START).unwrap();
    }
    pace.refused(too_many(Some(seconds(5)), at(100)), at(150));
    assert_eq!(pace.thousandths_per_second(), 5_000, "halved");
    for late in 151..170 {
        pace.refused(too_many(Some(seconds(5)), at(140)), at(late));
    }
    assert_eq!(pace.thousandths_per_second(), 5_000);
    let until = pace.paused_until(at(170));
    assert_eq!(until, at(5_169 + 250), "told later, so longer");
}

#[test]
fn a_window_that_was_not_over_yet_makes_the_pause_longer_and_the_pace_no_slower() {
    let mut pace = Pace::new(START);
    for _ in 0..5 {
        pace.take(2, PATIENT, START).unwrap();
    }
    pace.refused(too_many(None, START), at(1));
    let slowed = pace.thousandths_per_second();
    let mut now = pace.paused_until(at(1));
    let mut pauses = vec![];
    for _ in 0..8 {
        pace.take(1, PATIENT, now).unwrap();
        let refused_at = now + Duration::from_millis(10);
        pace.refused(too_many(None, now), refused_at);
        let until = pace.paused_until(refused_at);
        pauses.push(until.since(refused_at).as_secs());
        now = until;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(pace.thousandths_per_second(), slowed);
}

#[test]
fn after_a_full_window_the_pace_is_what_the_site_bears_however_much_too_fast_it_was() {
    let mut pace = Pace::new(START);
    // 200 calls in two seconds, then nothing for eight: 20 a second.
    let mut taken = 0;
    while taken < 200 {
        let lot = pace.take(50, PATIENT, START).unwrap();
        taken += u64::from(lot.calls);
    }
    pace.refused(too_many(Some(seconds(8)), at(1_900)), at(2_000));
    let bears = pace.thousandths_per_second();
    assert!((18_000..20_000).contains(&bears), "{bears}");
}

#[test]
fn a_trouble_of_its_own_pauses_a_site_only_when_it_says_for_how_long_and_slows_nothing() {
    let mut pace = Pace::new(START);
    let trouble = |retry_after| Refusal {
        too_many: false,
        retry_after,
        called_at: START,
    };
    let before = pace.clone();
    pace.refused(trouble(None), START);
    assert_eq!(pace, before);
    pace.refused(trouble(Some(seconds(7))), START);
    assert_eq!(pace.paused_until(at(1)), at(7_250));
    assert_eq!(pace.rate, before.rate);
}

#[test]
fn a_worker_whose_clock_is_an_hour_ahead_stops_nobody() {
    let ahead = at(3_600_000);
    let mut pace = Pace::new(START);
    pace.take(2, PATIENT, ahead).unwrap();
    pace.refused(too_many(Some(seconds(5)), ahead), ahead);
    assert!(pace.paused_until(ahead) > ahead);
    assert!(pace.paused_until(START) < START);
    let lot = pace.take(2, seconds(10), START).unwrap();
    assert!(lot.next_call(&pace, START) <= Some(START));
    pace.refused(too_many(Some(seconds(5)), at(100)), at(200));
    assert_eq!(pace.paused_until(at(200)), at(5_450));
}

/// Two workers that have something to ask all the time for a minute, the other's clock so far ahead. How many calls each of them made, and how
/// often the first one was told that its turn is further away than it can wait.
fn beside_a_clock_ahead(ahead: u64) -> ([u64; 2], u64) {
    let mut pace = Pace::new(START);
    let mut lots: [Option<Lot>; 2] = [None, None];
    let (mut calls, mut turned_away) = ([0; 2], 0);
    for now in (0..60_000).step_by(10) {
        for (worker, clock) in [at(now), at(now + ahead)].into_iter().enumerate() {
            let lot = &mut lots[worker];
            if lot
                .as_ref()
                .and_then(|lot| lot.next_call(&pace, clock))
                .is_none()
            {
                let taken = pace.take(LOT_MAX, seconds(10), clock);
                turned_away += u64::from(worker == 0 && taken.is_err());
                *lot = taken.ok();
            }
            if let Some(lot) = lot
                && lot.next_call(&pace, clock).is_some_and(|at| at <= clock)
            {
                lot.use_one();
                calls[worker] += 1;
            }
        }
    }
    (calls, turned_away)
}

#[test]
fn a_worker_whose_clock_is_ahead_keeps_none_from_their_turn_however_far_it_is() {
    for ahead in [
        0, 2_000, 5_000, 6_000, 9_000, 14_000, 30_000, 67_000, 600_000,
    ] {
        let ([calls, _], turned_away) = beside_a_clock_ahead(ahead);
        assert_eq!(turned_away, 0, "{ahead} ms ahead");
        assert!(calls >= 150, "{calls} calls beside {ahead} ms ahead");
    }
}

#[test]
fn calls_that_a_clock_far_ahead_took_count_for_nothing_and_later_ones_keep_their_distance() {
    let mut pace = Pace::new(START);
    let ahead = at(20_000);
    pace.take(4, PATIENT, ahead).unwrap();
    pace.refused(too_many(Some(seconds(5)), ahead), ahead);
    let first = pace.take(4, Duration::ZERO, START).unwrap();
    assert_eq!(first.next_call(&pace, START), Some(START));
    let second = pace.take(4, PATIENT, START).unwrap();
    let behind = second.next_call(&pace, START).unwrap();
    assert!(behind > at(300) && behind <= at(400), "{behind:?}");
}

#[test]
fn a_pace_that_nobody_waits_for_does_not_grow() {
    let mut pace = Pace::new(START);
    for second in 0..100 {
        pace.take(3, PATIENT, at(second * 1_000)).unwrap();
    }
    assert_eq!(pace.rate, FIRST);
    for _ in 0..100 {
        pace.take(3, PATIENT, at(100_000)).unwrap();
    }
    assert!(pace.rate > FIRST);
}

#[test]
fn a_worker_that_uses_its_lots_up_gets_larger_ones_and_another_gets_what_it_uses() {
    let mut pace = Pace::new(START);
    let mut lot = pace.take(4, PATIENT, START).unwrap();
    lot.use_one();
    assert_eq!(lot.next_size(), 1);
    for _ in 1..4 {
        lot.use_one();
    }
    assert_eq!(lot.next_size(), 8);
}

const GOLDEN: &str = r#"{"rate":10000000,"ceiling":12000000,"taken_until_us":7,"paused_until":8,"paused_at":12,"refusals":3,"refused_at":9,"unnamed":1,"taken_at":11,"counted":40,"counted_since":10}"#;

#[test]
fn a_stored_pace_is_read_and_written_as_it_always_was() {
    let pace: Pace = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(serde_json::to_string(&pace).unwrap(), GOLDEN);
}

/// What a site does that bears `calls` in every window of `window_ms`, and never more.
struct Quota {
    calls: u64,
    window_ms: u64,
    /// Every so manieth refusal names no pause; 0 is none.
    silent_every: u64,
    window: u64,
    used: u64,
    taken: Vec<u64>,
    refused: Vec<u64>,
    told: u64,
}

impl Quota {
    fn arrives(&mut self, now: u64) -> Result<(), Option<Duration>> {
        if now / self.window_ms != self.window {
            self.window = now / self.window_ms;
            self.used = 0;
        }
        if self.used < self.calls {
            self.used += 1;
            self.taken.push(now);
            return Ok(());
        }
        self.refused.push(now);
        self.told += 1;
        if self.silent_every > 0 && self.told.is_multiple_of(self.silent_every) {
            return Err(None);
        }
        let rest = (self.window + 1) * self.window_ms - now;
        Err(Some(Duration::from_secs(rest.div_ceil(1_000))))
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    /// A worker wants to make its next call.
    Wants,
    /// Its call reaches the site.
    Arrives { called: u64 },
    /// It hears the answer.
    Hears {
        called: u64,
        refused: bool,
        retry_after: Option<Duration>,
    },
}

/// Workers that have something to ask all the time, each call after the answer to the one before, sharing one pace.
fn run(quota: &mut Quota, workers: usize, latency: u64, until: u64) -> (u64, u64) {
    let mut pace = Pace::new(START);
    let mut lots: Vec<(Option<Lot>, u32)> = vec![(None, LOT_FIRST); workers];
    let mut queue = BinaryHeap::new();
    let (mut called_in_a_pause, mut writes) = (0, 0);
    for worker in 0..workers {
        queue.push(Reverse((worker as u64, worker, Happens::Wants)));
    }
    while let Some(Reverse((now, worker, happens))) = queue.pop() {
        if now > until {
            break;
        }
        match happens {
            Happens::Wants => {
                let (lot, size) = &mut lots[worker];
                let next = lot.as_ref().and_then(|lot| lot.next_call(&pace, at(now)));
                match next {
                    Some(when) if when <= at(now) => {
                        called_in_a_pause += u64::from(pace.paused_until(at(now)) > at(now));
                        lot.as_mut().unwrap().use_one();
                        let arrives = Happens::Arrives { called: now };
                        queue.push(Reverse((now + latency / 2, worker, arrives)));
                    }
                    Some(when) => {
                        let wait = u64::try_from(when.since(at(now)).as_millis()).unwrap();
                        queue.push(Reverse((now + wait, worker, Happens::Wants)));
                    }
                    None => {
                        if let Some(lot) = lot.take() {
                            *size = lot.next_size();
                        }
                        let wait = match pace.take(*size, seconds(10), at(now)) {
                            Ok(taken) => {
                                writes += 1;
                                *lot = Some(taken);
                                0
                            }
                            Err(_) => 10_000,
                        };
                        queue.push(Reverse((now + wait, worker, Happens::Wants)));
                    }
                }
            }
            Happens::Arrives { called } => {
                let answer = quota.arrives(now);
                let hears = Happens::Hears {
                    called,
                    refused: answer.is_err(),
                    retry_after: answer.err().flatten(),
                };
                queue.push(Reverse((now + latency / 2, worker, hears)));
            }
            Happens::Hears {
                called,
                refused,
                retry_after,
            } => {
                if refused {
                    pace.refused(too_many(retry_after, at(called)), at(now));
                }
                queue.push(Reverse((now, worker, Happens::Wants)));
            }
        }
    }
    (called_in_a_pause, writes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn workers_find_a_hidden_quota_use_most_of_it_and_are_hardly_ever_refused(
        per_second in 2_u64..60,
        window_s in prop::sample::select(vec![5_u64, 10, 30, 60]),
        workers in 1_usize..24,
        latency in 20_u64..300,
        silent_every in prop::sample::select(vec![0_u64, 0, 3]),
    ) {
        // Less than they could ask for, so that it is the quota which holds them back.
        let able = workers as u64 * 1_000 / latency;
        let per_second = per_second.min(able * 2 / 3).max(2);
        prop_assume!(able * 2 / 3 >= per_second);
        let mut quota = Quota {
            calls: per_second * window_s, window_ms: window_s * 1_000, silent_every,
            window: 0, used: 0, taken: vec![], refused: vec![], told: 0,
        };
        let (warm, end) = (600_000, 2_400_000);
        let (called_in_a_pause, writes) = run(&mut quota, workers, latency, end);
        prop_assert_eq!(called_in_a_pause, 0);
        let after = |times: &[u64]| times.iter().filter(|time| **time >= warm).count() as u64;
        let (taken, refused) = (after(&quota.taken), after(&quota.refused));
        let could = per_second * (end - warm) / 1_000;
        // Where a refusal names no pause, the one that is guessed may be longer than it had to be.
        let least = if silent_every == 0 { 85 } else { 50 };
        prop_assert!(taken * 100 >= could * least, "{}% of the quota used", taken * 100 / could);
        prop_assert!(refused * 100 < (taken + refused), "{refused} of {taken} refused");
        prop_assert!(writes <= quota.taken.len() as u64 + 3_600, "{writes} lots");
    }

    #[test]
    fn whatever_happens_the_pace_stays_within_its_bounds_and_a_pause_is_never_shortened(
        events in prop::collection::vec((0_u64..5_000, 0_u8..4, prop::option::of(0_u64..4_000), 0_u64..9_000), 1..400),
    ) {
        let mut pace = Pace::new(START);
        let mut now = 0;
        for (passes, what, retry_after, ago) in events {
            now += passes;
            let paused = pace.paused_until(at(now));
            if what < 2 {
                let wanted = u32::try_from(ago % 100).unwrap();
                if let Ok(lot) = pace.take(wanted, seconds(ago), at(now)) {
                    let call = lot.next_call(&pace, at(now));
                    prop_assert!(call.is_some_and(|call| call >= pace.paused_until(at(now))));
                }
            } else {
                let called_at = at(now.saturating_sub(ago));
                let retry_after = retry_after.map(Duration::from_secs);
                pace.refused(Refusal { too_many: what == 2, retry_after, called_at }, at(now));
                if let Some(asked) = retry_after {
                    prop_assert!(pace.paused_until(at(now)) >= at(now) + asked.min(PAUSE_MAX));
                }
            }
            prop_assert!(pace.paused_until(at(now)) >= paused);
            prop_assert!((LEAST..=MOST).contains(&pace.rate), "{}", pace.rate);
        }
    }

    #[test]
    fn all_lots_together_never_exceed_the_pace_and_what_was_saved_up(
        takes in prop::collection::vec((0_u64..400, 1_u32..100), 1..300),
    ) {
        let mut pace = Pace::new(START);
        let (mut now, mut calls) = (0, 0);
        let mut fastest = pace.rate;
        for (passes, wanted) in takes {
            now += passes;
            if let Ok(lot) = pace.take(wanted, Duration::ZERO, at(now)) {
                fastest = fastest.max(pace.rate);
                calls += u64::from(lot.calls);
            }
            // What was saved up, and the lot that has just begun.
            let span_ms = now + 1_000 + 2_000;
            prop_assert!(calls <= fastest * span_ms / 1_000 / MICROS + 1, "{calls} calls in {span_ms} ms");
        }
    }
}
