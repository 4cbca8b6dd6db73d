use std::time::Duration;

use landfall_runtime::Clock;
use landfall_tracking::Error;
use landfall_transfer::Timestamp;
use landfall_transfer::clocks::Deployment;

/// The oldest arrival that is believed. Older than the function's own time-out, it is another clock's.
const OLDEST_ARRIVAL: Duration = Deployment::DEFAULT.intake_timeout;

/// Time that is left even to a request that arrived late: the platform may be gone, but its event may still be saved.
const LEAST: Duration = Duration::from_millis(250);

/// By when the answer has to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline<'clock> {
    clock: &'clock Clock,
    /// In the clock's monotonic time.
    at: Duration,
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not end in its time: it may or may not have taken effect.
    OutOfTime,
    /// It ended with an error.
    Ended(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfTime => formatter.write_str("no answer in the time left"),
            Self::Ended(error) => write!(formatter, "failed to {error}"),
        }
    }
}

impl<'clock> Deadline<'clock> {
    /// `answer_within` after the request's arrival, which is now unless AWS plausibly says that it was before.
    pub(crate) fn new(
        clock: &'clock Clock,
        arrived: Option<Timestamp>,
        now: Timestamp,
        answer_within: Duration,
    ) -> Self {
        let age = arrived
            .map(|arrived| now.since(arrived))
            .filter(|age| *age <= OLDEST_ARRIVAL)
            .unwrap_or_default();
        Self {
            clock,
            at: clock.monotonic() + answer_within.saturating_sub(age).max(LEAST),
        }
    }

    /// The earlier of this deadline and of `patience` from now on.
    pub(crate) fn or_within(self, patience: Duration) -> Self {
        let at = self.at.min(self.clock.monotonic() + patience);
        Self { at, ..self }
    }

    /// Ends when the deadline has come.
    pub(crate) fn sleep(self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        self.clock.sleep(self.left(Duration::MAX))
    }

    /// The time left, at most `longest`.
    pub(crate) fn left(self, longest: Duration) -> Duration {
        self.at.saturating_sub(self.clock.monotonic()).min(longest)
    }

    /// Runs a call for at most `longest`, and not beyond the deadline.
    pub(crate) async fn within<T>(
        self,
        longest: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let left = self.left(longest);
        match self.clock.timeout(left, Box::pin(call)).await {
            Ok(ended) => ended.map_err(Failure::Ended),
            Err(_) => Err(Failure::OutOfTime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(arrived_ms: Option<i64>) -> u128 {
        let now = Timestamp::from_millis(1_000_000);
        let clock = Clock::manual(now);
        let deadline = Deadline::new(
            &clock,
            arrived_ms.map(Timestamp::from_millis),
            now,
            Duration::from_millis(4_500),
        );
        deadline.left(Duration::MAX).as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_arrival_when_that_is_plausible() {
        assert_eq!(left(None), 4_500);
        assert_eq!(left(Some(1_000_000 - 1_200)), 3_300);
        assert_eq!(
            left(Some(1_000_000 - 5_000)),
            250,
            "late, but an attempt is left"
        );
        assert_eq!(left(Some(1_000_000 - 60_000)), 4_500, "another clock's");
        assert_eq!(left(Some(1_000_000 + 60_000)), 4_500, "in the future");
        assert_eq!(left(Some(1_000)), 4_500, "in seconds");
    }
}
