use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clocks::{Clocks, own, platform};
use crate::seeded_bugs::{SeededBug, is_planted};
use crate::timestamp::Timestamp;
use crate::verdict::Verdict;

/// How the percent of a final status is written. The sources disagree, so the forms are tried in this order with one
/// verdict (PROTOCOL.md 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `percent` 100: never lower than before, in the validated range, and what a staff answer asks for.
    Hundred,
    /// Without `percent`: keeps the previous value.
    Omitted,
    /// The last reported percent, within 1..99.
    LastReported,
}

impl Form {
    /// The percent to send, given the highest one reported so far.
    pub fn percent(self, last_reported: u8) -> Option<u8> {
        match self {
            Self::Hundred => Some(100),
            Self::Omitted => None,
            Self::LastReported => Some(last_reported.clamp(1, 99)),
        }
    }

    const fn next(self) -> Option<Self> {
        match self {
            Self::Hundred => Some(Self::Omitted),
            Self::Omitted => Some(Self::LastReported),
            Self::LastReported => None,
        }
    }
}

/// What the platform answered to an attempt to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// 2xx. Believed once the transfer is no longer listed as active.
    Accepted,
    /// 400 that speaks of no time limit: this form is not taken.
    FormRefused,
    /// 403, 404 or 409: settled, unknown, or our credentials are wrong.
    SuspectGone,
    /// 400 whose text speaks of a time limit or a settlement: over, or this form is not taken.
    SuspectExpired,
    /// 429, 401 or a connection that never stood: nothing happened.
    NotTaken {
        /// What the platform asked us to wait.
        retry_after: Option<Duration>,
    },
    /// Sent, and no answer came, or a 5xx: it may have been taken.
    Unknown {
        /// What the platform asked us to wait.
        retry_after: Option<Duration>,
    },
}

/// Whether the platform lists the transfer as active (`GET /transfer/recent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listing {
    /// It does.
    Active,
    /// It does not, and the list was not full.
    Absent,
    /// The list was full (100 rows), so that nothing follows from absence (OPEN-QUESTIONS.md B15).
    Full,
}

/// A verdict on its way to the platform: written before it is sent, repeated until the platform has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// What is sent. Never changed.
    pub verdict: Verdict,
    /// The form that is tried now.
    pub form: Form,
    /// Attempts that were begun.
    pub attempts: u32,
    /// While this lies ahead, somebody is sending.
    pub sending_until: Option<Timestamp>,
    /// When the platform answered 200 to the form that is tried now.
    pub accepted_at: Option<Timestamp>,
    /// When the platform answered as if the transfer were gone, or when every form had been given up.
    pub suspect_at: Option<Timestamp>,
    /// Whether that answer may have been about the form.
    pub suspect_form: bool,
    /// Whether some attempt may have been taken: a 200, or an outcome that nobody knows.
    pub may_have_arrived: bool,
    /// When the next attempt, or the next look at the platform's list, is due.
    pub next_at: Timestamp,
}

/// What a look at the platform's list means for a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmed {
    /// The platform has our verdict.
    Settled,
    /// The platform ended the transfer without our verdict.
    Elsewhere,
    /// Not yet.
    Open,
}

/// The moment at which something happens to a settlement.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    /// The transfer's.
    pub(crate) age: Duration,
    /// While keeping to a pause that the site asked for would make the settlement come too late.
    pub(crate) pressing: Range<Timestamp>,
}

impl Settlement {
    pub(crate) const fn new(verdict: Verdict, now: Timestamp) -> Self {
        Self {
            verdict,
            form: Form::Hundred,
            attempts: 0,
            sending_until: None,
            accepted_at: None,
            suspect_at: None,
            suspect_form: false,
            may_have_arrived: false,
            next_at: now,
        }
    }

    /// Whether some attempt may have been taken, the one that is under way included.
    pub(crate) const fn may_have_arrived(&self) -> bool {
        self.may_have_arrived || self.sending_until.is_some()
    }

    /// When something is due, and whether that is a look at the list rather than an attempt.
    pub(crate) fn due(&self) -> (Timestamp, bool) {
        match self.sending_until {
            // The sender died, or will answer before that: either way the next one starts no earlier.
            Some(until) => (until, false),
            None => (
                self.next_at,
                self.accepted_at.is_some() || self.suspect_at.is_some(),
            ),
        }
    }

    pub(crate) fn begin(&mut self, now: Timestamp, clocks: &Clocks) {
        // A lease that ran out without an answer is an attempt whose outcome nobody knows.
        self.may_have_arrived |= self.sending_until.is_some();
        self.attempts += 1;
        self.sending_until = Some(now + clocks.send_lease());
    }

    pub(crate) fn answered(&mut self, answer: Answer, moment: &Moment, clocks: &Clocks, seed: u64) {
        let now = moment.now;
        self.sending_until = None;
        match answer {
            Answer::Accepted => {
                self.may_have_arrived = true;
                self.accepted_at = Some(now);
                self.suspect_at = None;
                self.next_at = now;
            }
            Answer::FormRefused => self.take_next_form(now, clocks),
            Answer::SuspectGone | Answer::SuspectExpired => {
                self.suspect_at = Some(now);
                self.suspect_form = answer == Answer::SuspectExpired;
                self.next_at = now;
            }
            Answer::NotTaken { retry_after } | Answer::Unknown { retry_after } => {
                self.may_have_arrived |= matches!(answer, Answer::Unknown { .. });
                self.next_at = self.again_at(retry_after, moment, clocks, seed);
            }
        }
    }

    pub(crate) fn looked(
        &mut self,
        listing: Listing,
        moment: &Moment,
        clocks: &Clocks,
        seed: u64,
    ) -> Confirmed {
        let now = moment.now;
        match (listing, self.accepted_at, self.suspect_at) {
            (Listing::Absent, Some(_), _) => Confirmed::Settled,
            (_, Some(_), _) if is_planted(SeededBug::AcceptedIsBelieved) => Confirmed::Settled,
            // Nobody can tell: the 200 is neither confirmed nor contradicted.
            (Listing::Full, Some(_), _) => self.look_failed(None, moment, clocks, seed),
            (Listing::Active, Some(accepted), _) => {
                let deadline = accepted + clocks.settle_confirm_after;
                if now < deadline {
                    // The list may lag behind (OPEN-QUESTIONS.md B16).
                    self.next_at = deadline;
                } else {
                    self.take_next_form(now, clocks);
                }
                Confirmed::Open
            }
            (Listing::Absent, None, _) if self.may_have_arrived() => Confirmed::Settled,
            (Listing::Absent, None, _) => Confirmed::Elsewhere,
            (Listing::Active, None, Some(_)) if self.suspect_form => {
                self.take_next_form(now, clocks);
                Confirmed::Open
            }
            // Still active, or nobody can tell: then the 403 was about our credentials, and the same verdict is repeated.
            (Listing::Active | Listing::Full, None, _) => {
                self.suspect_at = None;
                self.next_at = now + self.backoff(clocks, moment.age, seed);
                Confirmed::Open
            }
        }
    }

    /// The list could not be read: look again later.
    pub(crate) fn look_failed(
        &mut self,
        retry_after: Option<Duration>,
        moment: &Moment,
        clocks: &Clocks,
        seed: u64,
    ) -> Confirmed {
        let now = moment.now;
        // A sender whose lease ran out will not answer any more; one that is at it is left alone.
        if self.sending_until.is_some_and(|until| until <= now) {
            self.may_have_arrived = true;
            self.sending_until = None;
        }
        // The platform ignores some percents although it answers 200 (PROTOCOL.md 2.6), so a 200 alone proves nothing; only when the
        // platform has given the transfer up by itself there is nothing left to prove.
        if self.accepted_at.is_some() && moment.age > platform::LIFE {
            return Confirmed::Settled;
        }
        self.next_at = self.again_at(retry_after, moment, clocks, seed);
        Confirmed::Open
    }

    /// When to try again, after a pause of our own and after the one that was asked for, but not too late. While it presses, a pause that was
    /// asked for is no longer than our own may be.
    fn again_at(
        &self,
        asked: Option<Duration>,
        moment: &Moment,
        clocks: &Clocks,
        seed: u64,
    ) -> Timestamp {
        let Moment { now, age, pressing } = moment;
        let pause = self.backoff(clocks, *age, seed);
        let asked = asked.unwrap_or_default();
        if pressing.contains(now) {
            return *now + asked.min(clocks.settle_retry_max).max(pause);
        }
        let again = *now + asked.max(pause);
        if *now < pressing.start {
            again.min(pressing.start)
        } else {
            again
        }
    }

    fn take_next_form(&mut self, now: Timestamp, clocks: &Clocks) {
        self.accepted_at = None;
        self.suspect_at = None;
        self.suspect_form = false;
        if let Some(form) = self.form.next() {
            self.form = form;
            self.next_at = now;
        } else {
            // Every form was given up. The verdict stands, so the ladder starts again, slowly; first the list is asked
            // whether there is anything left to settle.
            self.form = Form::Hundred;
            self.suspect_at = Some(now);
            self.next_at = now + clocks.settle_retry_max;
        }
    }

    /// [`backoff`], and [`own::SETTLE_RETRY_LATE`] when the platform has probably given the transfer up.
    fn backoff(&self, clocks: &Clocks, age: Duration, seed: u64) -> Duration {
        if age > platform::LIFE {
            return own::SETTLE_RETRY_LATE;
        }
        backoff(self.attempts, clocks, seed)
    }
}

/// The pause after so many attempts: doubles from the first to the longest, with full jitter (PROTOCOL.md 11).
pub(crate) fn backoff(attempts: u32, clocks: &Clocks, seed: u64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let ceiling = clocks
        .settle_retry_first
        .saturating_mul(1 << doublings)
        .min(clocks.settle_retry_max);
    let ceiling_ms = u64::try_from(ceiling.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    // At least half, so that a row of unlucky draws can't hammer the platform.
    Duration::from_millis(
        ceiling_ms / 2 + scatter(seed, u64::from(attempts)) % (ceiling_ms / 2 + 1),
    )
}

/// Spreads equal retries of different transfers; a fixed mixing (`SplitMix64`), so that a replay is exact.
fn scatter(seed: u64, step: u64) -> u64 {
    let mut mixed = seed.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_sends_its_own_percent() {
        let percents = |last| {
            [Form::Hundred, Form::Omitted, Form::LastReported].map(|form| form.percent(last))
        };
        assert_eq!(percents(0), [Some(100), None, Some(1)]);
        assert_eq!(percents(42), [Some(100), None, Some(42)]);
        assert_eq!(percents(100), [Some(100), None, Some(99)]);
    }

    #[test]
    fn retries_are_scattered_by_a_mixing_that_never_changes() {
        // The reference values of SplitMix64 from the seed 0: a replay of any seed depends on them.
        assert_eq!(scatter(0, 1), 0xE220_A839_7B1D_CDAF);
        assert_eq!(scatter(0, 2), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(scatter(0, 3), 0x06C4_5D18_8009_454F);
    }

    #[test]
    fn a_retry_waits_between_half_and_all_of_what_it_may() {
        let clocks = Clocks::default();
        let verdict = Verdict {
            status: crate::verdict::Status::Failed,
            cause: crate::verdict::Cause::Deadline,
            message: String::new(),
            decided_at: Timestamp::default(),
        };
        let mut settlement = Settlement::new(verdict, Timestamp::default());
        let mut longest = Duration::ZERO;
        for attempts in 1..40_u32 {
            settlement.attempts = attempts;
            let doubled = clocks.settle_retry_first * (1 << (attempts - 1).min(16));
            let ceiling = doubled.min(clocks.settle_retry_max);
            for seed in 0..50 {
                let pause = settlement.backoff(&clocks, Duration::ZERO, seed);
                assert!(
                    pause >= ceiling / 2 && pause <= ceiling,
                    "{pause:?} of {ceiling:?}"
                );
                longest = longest.max(pause);
            }
        }
        assert!(longest > clocks.settle_retry_max * 9 / 10, "{longest:?}");
    }
}
