//! How fast one site's REST API is called: the policy of the governor, pure.
//!
//! Nobody publishes how many calls a site bears (PROTOCOL 11), so it is found out, together by everybody who calls it. Workers take
//! [`Lot`]s, a few calls at a time, from one [`Pace`] that they all share; each lot has its own stretch of time, so that the calls
//! of all workers together come at the pace. It grows while calls have to wait for it and none is refused, and falls when one is:
//! once, however many calls the same window refuses.
//!
//! A pause that the site asks for is everybody's, and makes every lot void that was taken before it. A lot that nobody uses, because
//! its worker died or had nothing more to ask, expires by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// The pace of a site that nobody has called yet: 10 calls a second, more than one file's import makes.
const FIRST: u64 = per_second(10);

/// The slowest pace. Below one call in two seconds the pauses that the site asks for do the rest, and work must not come to a standstill.
const LEAST: u64 = per_second(1) / 2;

/// The fastest pace, so that a site which never refuses is still not flooded by a hundred workers.
const MOST: u64 = per_second(1_000);

/// What the pace gains with a call that had to wait, while the site has never refused one: a fifth of a call a second, so that the pace doubles in
/// about four seconds.
const SEARCHING: u64 = per_second(1) / 5;

/// Near the ceiling the pace gains a ten-thousandth of it with a call, but at most a thousandth in a second. From nine tenths of the ceiling to
/// the next refusal are then at least 1,000 calls and 100 seconds: of some calls that are refused together, that leaves far less than one in a hundred.
const GENTLY: u64 = 10_000;

/// How much faster it gains where it is nowhere near the ceiling: below eight tenths, or above eleven, when the ceiling is no longer true.
const BRISKLY: u64 = 10;

/// Calls from which on the rate at which a site took calls says what it bears.
const MEASURED_FROM: u64 = 20;

/// A refusal after fewer calls than these says that the window was not over yet, and not that the pace is too fast.
const TOO_EARLY: u64 = 5;

/// A site that nobody calls for so long had a rest.
const REST: Duration = Duration::from_secs(10);

/// Time that a site which is called less than it bears has saved up: so much of the pace may be called at once.
const SAVED_UP: Duration = Duration::from_secs(1);

/// Most time of the pace in one lot. The longer, the fewer writes; but the longer waits who comes next.
const LOT_SPAN: Duration = Duration::from_secs(2);

/// Most calls in one lot: what a worker uses up in `LOT_SPAN` and `LATE` with three calls a second. Larger ones make the pace uneven and save little:
/// at this size it is a write for 16 calls.
const LOT_MAX: u32 = 16;

/// Calls in a worker's first lot.
pub const LOT_FIRST: u32 = 2;

/// How long after its stretch of time a lot may still be used: answers take time, and so does what is done with them. Longer than
/// `LOT_SPAN`, so that several slow workers share a fast pace.
const LATE: Duration = Duration::from_secs(3);

/// Added to every pause that a site asks for: what workers' clocks differ by.
const MARGIN: Duration = Duration::from_millis(250);

/// What workers' clocks can honestly differ by. A pause that begins later than this from now, and calls that were taken later than this from now, were
/// written by a clock that was wrong, and count for nothing: one worker's clock must not stop a site's work.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// The longest wait in [`Pace::take`] that anybody may have.
pub const PATIENCE_MAX: Duration = Duration::from_mins(1);

/// The longest pause that counts, however long the site asked for.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// The pause after a refusal that names none. Doubles while refusals go on, up to `UNNAMED_MAX`.
const UNNAMED_FIRST: Duration = Duration::from_secs(1);

/// The longest pause that the site didn't ask for.
const UNNAMED_MAX: Duration = Duration::from_mins(1);

/// Between two calls of a worker that can't reach the shared pace. Twenty of them call a site 20 times a second then, which a site that
/// serves people bears; and without the table little of an import goes on anyway.
pub const ALONE: Duration = Duration::from_secs(1);

const MICROS: u64 = 1_000_000;

const _: () = {
    assert!(LEAST < FIRST && FIRST < MOST);
    assert!(LOT_SPAN.as_millis() < LATE.as_millis());
    assert!(LEAST / GENTLY > 0, "the slowest pace grows, too");
};

/// A pace in calls per million seconds.
const fn per_second(calls: u64) -> u64 {
    calls * MICROS
}

/// At what pace a site is called, by everybody together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Calls in a million seconds.
    rate: u64,
    /// The rate at which a call was last refused.
    ceiling: Option<u64>,
    /// Until then every call that may be made is taken, in microseconds since the Unix epoch.
    taken_until_us: i64,
    /// Nobody calls before.
    paused_until: Timestamp,
    /// When somebody last heard that.
    paused_at: Timestamp,
    /// How often a refusal began a pause: a lot of an earlier number is void.
    refusals: u64,
    /// When it last did.
    refused_at: Timestamp,
    /// Pauses in a row for which the site named no length.
    unnamed: u32,
    /// When calls were last taken.
    taken_at: Timestamp,
    /// Calls taken since `counted_since`, which is when the last pause ended, or when the site was called again after a rest.
    counted: u64,
    counted_since: Timestamp,
}

/// Some calls that one worker may make, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    from_us: i64,
    interval_us: i64,
    until: Timestamp,
    refusals: u64,
    calls: u32,
    used: u32,
}

/// That a site refused a call for now, or asked for a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it was for too many calls (429), and not for a trouble of its own.
    pub too_many: bool,
    /// The pause that it asked for.
    pub retry_after: Option<Duration>,
    /// When the refused call was made.
    pub called_at: Timestamp,
}

impl Pace {
    /// The pace of a site that nobody has called yet.
    pub const fn new(now: Timestamp) -> Self {
        let never = Timestamp::from_millis(0);
        Self {
            rate: FIRST,
            ceiling: None,
            taken_until_us: 0,
            paused_until: never,
            paused_at: never,
            refusals: 0,
            refused_at: never,
            unnamed: 0,
            taken_at: never,
            counted: 0,
            counted_since: now,
        }
    }

    /// Until when nobody calls the site, whatever the call. Mostly in the past.
    pub fn paused_until(&self, now: Timestamp) -> Timestamp {
        if self.paused_at > now + SKEW_MAX {
            return Timestamp::default();
        }
        self.paused_until
    }

    /// Calls a second, in thousandths.
    pub const fn thousandths_per_second(&self) -> u64 {
        self.rate / (MICROS / 1_000)
    }

    /// Takes up to `wanted` calls, at least one, for whoever can wait for `patience`. Otherwise nothing is taken, and the error is how long the
    /// wait would be.
    pub fn take(
        &mut self,
        wanted: u32,
        patience: Duration,
        now: Timestamp,
    ) -> Result<Lot, Duration> {
        self.forget_what_a_wrong_clock_took(now);
        let now_us = micros(now);
        let paused_until = self.paused_until(now);
        let saved_since = now_us.saturating_sub(span(SAVED_UP));
        let from_us = self
            .taken_until_us
            .max(saved_since)
            .max(micros(paused_until));
        let wait = Duration::from_micros(u64::try_from(from_us - now_us).unwrap_or(0));
        if wait > patience {
            return Err(wait);
        }
        if now.since(self.taken_at.max(paused_until)) > REST {
            // What came before it says nothing about what the site bears.
            self.counted = 0;
            self.counted_since = now;
        }
        self.taken_at = now;
        let most = self.rate.saturating_mul(LOT_SPAN.as_secs()) / MICROS;
        let most = u32::try_from(most).unwrap_or(LOT_MAX).clamp(1, LOT_MAX);
        let calls = wanted.clamp(1, most);
        if self.taken_until_us > now_us && paused_until <= now {
            // Only a pace that somebody has to wait for may be too slow.
            self.grow(calls);
        }
        let interval_us = self.interval_us();
        let end_us = from_us.saturating_add(interval_us.saturating_mul(i64::from(calls)));
        self.taken_until_us = end_us;
        self.counted += u64::from(calls);
        Ok(Lot {
            from_us,
            interval_us,
            until: Timestamp::from_millis(end_us / 1_000) + LATE,
            refusals: self.refusals,
            calls,
            used: 0,
        })
    }

    /// Whoever took calls last, or made them void, says when that was by its own clock. One that is ahead takes them so far in the future that the others
    /// would find no turn that they could wait for.
    fn forget_what_a_wrong_clock_took(&mut self, now: Timestamp) {
        let honest_until = now + SKEW_MAX;
        if self.taken_at.max(self.refused_at) <= honest_until {
            return;
        }
        self.taken_until_us = micros(now);
        self.taken_at = self.taken_at.min(now);
        if self.refused_at > honest_until {
            self.refused_at = Timestamp::default();
        }
    }

    /// Takes in that the site refused a call. One that was made before the last pause began belongs to the window which began it.
    pub fn refused(&mut self, refusal: Refusal, now: Timestamp) {
        let Refusal {
            too_many,
            retry_after,
            called_at,
        } = refusal;
        let known = called_at <= self.refused_at && self.refused_at <= now + SKEW_MAX;
        let pause = match retry_after {
            Some(asked) => asked.min(PAUSE_MAX) + MARGIN,
            None if too_many && !known => self.unnamed_pause(),
            None => return,
        };
        self.paused_until = self.paused_until(now).max(now + pause);
        self.paused_at = now;
        if too_many && !known {
            if retry_after.is_some() {
                self.unnamed = 0;
            }
            if self.counted >= TOO_EARLY {
                self.slow_down();
            }
            self.refusals += 1;
            self.refused_at = now;
            self.counted = 0;
            self.counted_since = self.paused_until;
            // What was taken is void, and nothing is saved up.
            self.taken_until_us = micros(self.paused_until);
        }
    }

    fn unnamed_pause(&mut self) -> Duration {
        if self.counted >= MEASURED_FROM {
            self.unnamed = 0;
        }
        let doubled = UNNAMED_FIRST.saturating_mul(1 << self.unnamed.min(16));
        self.unnamed += 1;
        doubled.min(UNNAMED_MAX)
    }

    fn slow_down(&mut self) {
        let before = self.rate;
        let mut rate = before / 2;
        self.ceiling = Some(before);
        if self.counted >= MEASURED_FROM {
            // What the site took since the last pause, over the time until it takes calls again, is what it bears.
            let cycle_us = micros(self.paused_until) - micros(self.counted_since);
            let cycle_us = u128::try_from(cycle_us).unwrap_or(0).max(1);
            let bears = u128::from(self.counted) * u128::from(MICROS * MICROS) / cycle_us;
            let bears = u64::try_from(bears).unwrap_or(MOST).min(MOST);
            rate = (before / 10 * 9).min(bears / 20 * 19);
            self.ceiling = Some(before.min(bears / 20 * 21).max(LEAST));
        }
        self.rate = rate.clamp(LEAST, MOST);
    }

    fn grow(&mut self, calls: u32) {
        let step = match self.ceiling {
            None => SEARCHING,
            Some(ceiling) => {
                let gently = ceiling / GENTLY.max(self.rate / 1_000);
                let near = ceiling / 10 * 8..=ceiling / 10 * 11;
                if near.contains(&self.rate) {
                    gently
                } else {
                    gently * BRISKLY
                }
            }
        };
        self.rate = (self.rate + step * u64::from(calls)).min(MOST);
    }

    fn interval_us(&self) -> i64 {
        i64::try_from(MICROS * MICROS / self.rate.clamp(LEAST, MOST)).unwrap_or(i64::MAX)
    }
}

impl Lot {
    /// When the next call of the lot may be made, perhaps at once. None when the lot is used up, has expired, or is void because the site refused a
    /// call since.
    pub fn next_call(&self, pace: &Pace, now: Timestamp) -> Option<Timestamp> {
        if self.used >= self.calls || now > self.until || self.refusals != pace.refusals {
            return None;
        }
        let at_us = self
            .from_us
            .saturating_add(self.interval_us.saturating_mul(i64::from(self.used)));
        // Rounded up: never a call too early.
        let at = Timestamp::from_millis(at_us.saturating_add(999) / 1_000);
        Some(at.max(pace.paused_until(now)))
    }

    /// The next call is made now.
    pub const fn use_one(&mut self) {
        self.used += 1;
    }

    /// How many calls its worker's next lot should have: twice as many when this one was used up, so many as were used when it was not.
    pub fn next_size(&self) -> u32 {
        if self.used >= self.calls {
            self.calls.saturating_mul(2).min(LOT_MAX)
        } else {
            self.used.max(1)
        }
    }
}

fn micros(instant: Timestamp) -> i64 {
    instant.as_millis().saturating_mul(1_000)
}

fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
