use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The platform gives a Connect transfer up 14 days after its first notification (PROTOCOL.md 2.4).
pub const PLATFORM_LIFE: Duration = Duration::from_secs(14 * DAY);

/// The admin's re-run closes 12 days after the original attempt (PROTOCOL.md 2.4).
pub const PLATFORM_RERUN_WINDOW: Duration = Duration::from_secs(12 * DAY);

/// The platform settles a cancelled transfer itself 60 minutes after the request (PROTOCOL.md 2.4).
pub const PLATFORM_CANCELLATION_GRACE: Duration = Duration::from_secs(HOUR);

/// Every clock of a transfer's life. The defaults are those of OPEN-QUESTIONS.md F; all are configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Our own work makes no progress although it was revived: settle FAILED.
    pub work_stale_after: Duration,
    /// We wait for the server app and hear nothing: settle FAILED.
    pub export_silence: Duration,
    /// Age at which a transfer is settled FAILED whatever happens.
    pub hard_deadline: Duration,
    /// Time after a cancellation request by which the settlement must have been sent.
    pub cancel_settle_by: Duration,
    /// After the server's listener failed, work that doesn't move for this long is given up.
    pub listener_error_drain: Duration,
    /// Least time between two progress updates of one transfer.
    pub progress_interval: Duration,
    /// Time between two reports that say what a quiet transfer waits for.
    pub waiting_report_interval: Duration,
    /// Time between two comparisons of an open transfer with the platform's own lists.
    pub reconcile_interval: Duration,
    /// No new file for this long, and the platform lists none: the export counts as complete.
    pub quiet_period: Duration,
    /// Time after which a 200 to a settlement is checked against the platform's list of active transfers.
    pub settle_confirm_after: Duration,
    /// First pause before a settlement is repeated; doubles from there.
    pub settle_retry_first: Duration,
    /// Longest pause before a settlement is repeated.
    pub settle_retry_max: Duration,
    /// Longest time for one call to the platform.
    pub call_timeout: Duration,
    /// Pause before something that was interrupted is tried again, when nobody named one.
    pub retry_pause: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            work_stale_after: Duration::from_secs(6 * HOUR),
            export_silence: Duration::from_secs(72 * HOUR),
            hard_deadline: Duration::from_secs(10 * DAY),
            cancel_settle_by: Duration::from_secs(45 * MINUTE),
            listener_error_drain: Duration::from_secs(10 * MINUTE),
            progress_interval: Duration::from_secs(MINUTE),
            waiting_report_interval: Duration::from_secs(10 * MINUTE),
            reconcile_interval: Duration::from_secs(5 * MINUTE),
            quiet_period: Duration::from_secs(DAY),
            settle_confirm_after: Duration::from_secs(MINUTE),
            settle_retry_first: Duration::from_secs(1),
            settle_retry_max: Duration::from_secs(5 * MINUTE),
            call_timeout: Duration::from_secs(10),
            retry_pause: Duration::from_secs(10),
        }
    }
}

impl Clocks {
    /// How long one attempt to settle may be under way before another may begin: three calls long, so that two attempts
    /// never overlap while their processes live.
    pub fn send_lease(&self) -> Duration {
        self.call_timeout * 3
    }

    /// The inequalities that must hold between the clocks, each broken one as a sentence that names its keys.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, sentence: &str| {
            if !holds {
                problems.push(sentence.to_owned());
            }
        };
        require(
            self.hard_deadline + Duration::from_secs(DAY) <= PLATFORM_RERUN_WINDOW,
            "clocks.hard_deadline: must leave a day of the 12 in which the admin can re-run, so at most 11d",
        );
        require(
            self.cancel_settle_by < PLATFORM_CANCELLATION_GRACE,
            "clocks.cancel_settle_by: must be shorter than the 60m after which the platform settles a cancelled transfer itself",
        );
        require(
            self.work_stale_after <= self.hard_deadline,
            "clocks.work_stale_after: must not be longer than clocks.hard_deadline",
        );
        require(
            self.export_silence <= self.hard_deadline,
            "clocks.export_silence: must not be longer than clocks.hard_deadline",
        );
        require(
            self.quiet_period <= self.export_silence,
            "completeness.quiet_period: must not be longer than clocks.export_silence, or a complete export would be settled as silent",
        );
        require(
            self.settle_retry_first <= self.settle_retry_max,
            "clocks.settle_retry_first: must not be longer than clocks.settle_retry_max",
        );
        for (clock, name) in [
            (self.work_stale_after, "clocks.work_stale_after"),
            (self.export_silence, "clocks.export_silence"),
            (self.hard_deadline, "clocks.hard_deadline"),
            (self.cancel_settle_by, "clocks.cancel_settle_by"),
            (self.progress_interval, "clocks.progress_interval"),
            (
                self.waiting_report_interval,
                "clocks.waiting_report_interval",
            ),
            (self.reconcile_interval, "clocks.reconcile_interval"),
            (self.settle_confirm_after, "clocks.settle_confirm_after"),
            (self.settle_retry_first, "clocks.settle_retry_first"),
            (self.call_timeout, "clocks.call_timeout"),
            (self.retry_pause, "clocks.retry_pause"),
        ] {
            require(
                !clock.is_zero(),
                &format!("{name}: must be longer than zero"),
            );
        }
        problems
    }
}

const _: () = {
    // Settled at day 10, a transfer can be re-run until day 12 and has not timed out on day 14.
    assert!(10 * DAY < PLATFORM_RERUN_WINDOW.as_secs());
    assert!(PLATFORM_RERUN_WINDOW.as_secs() < PLATFORM_LIFE.as_secs());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_every_inequality() {
        assert_eq!(Clocks::default().problems(), Vec::<String>::new());
    }

    #[test]
    fn a_deadline_that_takes_the_rerun_away_is_refused_by_name() {
        let clocks = Clocks {
            hard_deadline: PLATFORM_LIFE,
            ..Clocks::default()
        };
        assert!(clocks.problems()[0].starts_with("clocks.hard_deadline:"));
    }
}
