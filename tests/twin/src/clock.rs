//! The platform's clock: wall time plus an offset, running at a chosen rate. And the machine's, for what no rate changes: how
//! long a caller waits, how long a connection takes.

#![expect(
    clippy::disallowed_methods,
    reason = "the twin stands for the platform and has a clock of its own, which is this one"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Sleeps by the machine's time.
pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Measures by the machine's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A seed that no earlier start had: an app that keeps its state must not meet old ids again.
pub fn fresh_seed() -> u64 {
    u64::try_from(wall_ms()).unwrap_or(1)
}

/// Epoch milliseconds of the machine. Tokens that go to the app use this one.
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Virtual time: never runs backwards, can be advanced, and can run faster than the wall's.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    base_ms: i64,
    since: Instant,
    rate: f64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            base_ms: wall_ms(),
            since: Instant::now(),
            rate: 1.0,
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "milliseconds of a test run, far below 2^53"
        )]
        let elapsed = (self.since.elapsed().as_secs_f64() * 1000.0 * self.rate) as i64;
        self.base_ms.saturating_add(elapsed)
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// How far virtual time is ahead of the wall's.
    pub(crate) fn offset_ms(&self) -> i64 {
        self.now_ms() - wall_ms()
    }

    pub(crate) fn advance(&mut self, by_ms: i64) {
        self.restart(self.now_ms().saturating_add(by_ms));
    }

    /// False when `to_ms` lies in the past: timers that went off can't be taken back.
    pub(crate) fn set(&mut self, to_ms: i64) -> bool {
        if to_ms < self.now_ms() {
            return false;
        }
        self.restart(to_ms);
        true
    }

    pub(crate) fn set_rate(&mut self, rate: f64) {
        self.restart(self.now_ms());
        self.rate = rate;
    }

    fn restart(&mut self, at_ms: i64) {
        self.base_ms = at_ms;
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_jumps_forward_and_refuses_to_go_back() {
        let mut clock = Clock::new();
        let before = clock.now_ms();
        clock.advance(86_400_000);
        assert!(clock.now_ms() >= before + 86_400_000);
        assert!(!clock.set(before));
        assert!(clock.set(before + 200_000_000));
        assert!(clock.offset_ms() >= 199_000_000);
    }
}
