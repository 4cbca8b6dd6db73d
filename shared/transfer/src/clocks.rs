//! Every clock of Landfall, in one place: [the platform's](platform), [AWS's](aws), [ours that are fixed](own), and ours
//! that are configuration. An inequality between them is written once, as a row of `inequalities`: an assertion holds it
//! for the defaults while compiling, `problems` for what was configured.

use std::time::Duration;

mod deployment;
mod intake;
mod work;

pub mod aws;
pub mod own;
pub mod platform;

pub use deployment::Deployment;
pub use intake::IntakeClocks;
pub use work::WorkClocks;

/// Every clock of a transfer's life. The defaults are those of OPEN-QUESTIONS.md F; all are configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Our own work makes no progress although it was revived: settle FAILED. Above zero, at most `hard_deadline`.
    pub work_stale_after: Duration,
    /// We wait for the server app and hear nothing: settle FAILED. At least `quiet_period`, at most `hard_deadline`.
    pub export_silence: Duration,
    /// Age at which a transfer is settled FAILED whatever happens. Leaves [`own::RERUN_LEFT`] of the admin's
    /// [`platform::RERUN_WINDOW`].
    pub hard_deadline: Duration,
    /// Time after a cancellation request by which the settlement must have been sent. Above zero; with `reconcile_interval`,
    /// after which a lost request is found, below [`platform::CANCELLATION_GRACE`].
    pub cancel_settle_by: Duration,
    /// After the server's listener failed, work that doesn't move for this long is given up. At most `hard_deadline`.
    pub listener_error_drain: Duration,
    /// A Forge message is answered by this age. Above zero, below [`platform::FORGE_MESSAGE_WINDOW`].
    pub forge_answer_by: Duration,
    /// Least time between two progress updates of one transfer. Above zero.
    pub progress_interval: Duration,
    /// Time between two reports that say what a quiet transfer waits for. Above zero; `progress_interval` counts if it is
    /// longer.
    pub waiting_report_interval: Duration,
    /// Time between two comparisons of an open transfer with the platform's own lists. Above zero.
    pub reconcile_interval: Duration,
    /// No new file for this long, and the platform lists none: the export counts as complete. At most
    /// `export_silence`.
    pub quiet_period: Duration,
    /// Not one file was announced or listed for this long: settle FAILED. Above zero, at most `export_silence`. By
    /// default longer than [`platform::FORGE_EXPORT_QUIET`].
    pub no_file_period: Duration,
    /// Time after which a 200 to a settlement is checked against the platform's list of active transfers. Above zero.
    pub settle_confirm_after: Duration,
    /// First pause before a settlement is repeated; doubles from there. Above zero, at most `settle_retry_max`.
    pub settle_retry_first: Duration,
    /// Longest pause before a settlement is repeated.
    pub settle_retry_max: Duration,
    /// Longest time for one call to the platform. Above zero, at most [`own::CALL_TIMEOUT_MAX`].
    pub call_timeout: Duration,
    /// Pause before something that was interrupted is tried again, when nobody named one. Above zero, at most
    /// [`aws::MESSAGE_DELAY_MAX`].
    pub retry_pause: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Clocks {
    const DEFAULT: Self = Self {
        work_stale_after: Duration::from_hours(6),
        export_silence: Duration::from_hours(72),
        hard_deadline: Duration::from_hours(10 * 24),
        cancel_settle_by: Duration::from_mins(45),
        listener_error_drain: Duration::from_mins(10),
        forge_answer_by: Duration::from_mins(12),
        progress_interval: Duration::from_mins(1),
        waiting_report_interval: Duration::from_mins(10),
        reconcile_interval: Duration::from_mins(5),
        quiet_period: Duration::from_hours(24),
        no_file_period: Duration::from_hours(1),
        settle_confirm_after: Duration::from_mins(1),
        settle_retry_first: Duration::from_secs(1),
        settle_retry_max: Duration::from_mins(5),
        call_timeout: Duration::from_secs(10),
        retry_pause: Duration::from_secs(10),
    };

    /// How long one attempt to settle may be under way before another may begin: three calls long, so that two attempts
    /// never overlap while their processes live.
    pub fn send_lease(&self) -> Duration {
        self.call_timeout * 3
    }

    /// The inequalities that must hold, each broken one as a sentence that begins with its key.
    pub fn problems(&self) -> Vec<String> {
        broken(&self.inequalities())
    }

    const fn inequalities(&self) -> [Inequality; 22] {
        [
            (
                at_most(
                    self.hard_deadline.saturating_add(own::RERUN_LEFT),
                    platform::RERUN_WINDOW,
                ),
                "clocks.hard_deadline: must leave a day of the 12 in which the admin can re-run, so at most 11d",
            ),
            (
                above_zero(self.work_stale_after),
                "clocks.work_stale_after: must be longer than zero",
            ),
            (
                at_most(self.work_stale_after, self.hard_deadline),
                "clocks.work_stale_after: must not be longer than clocks.hard_deadline",
            ),
            (
                at_most(self.export_silence, self.hard_deadline),
                "clocks.export_silence: must not be longer than clocks.hard_deadline",
            ),
            (
                at_most(self.quiet_period, self.export_silence),
                "completeness.quiet_period: must not be longer than clocks.export_silence, or a complete export would be settled as silent",
            ),
            (
                at_most(self.no_file_period, self.export_silence),
                "completeness.no_file_period: must not be longer than clocks.export_silence, or a transfer without a file would be settled as silent",
            ),
            (
                above_zero(self.no_file_period),
                "completeness.no_file_period: must be longer than zero",
            ),
            (
                above_zero(self.cancel_settle_by),
                "clocks.cancel_settle_by: must be longer than zero",
            ),
            (
                below(
                    self.cancel_settle_by
                        .saturating_add(self.reconcile_interval),
                    platform::CANCELLATION_GRACE,
                ),
                "clocks.cancel_settle_by: must with clocks.reconcile_interval be shorter than the 60m after which the platform settles a cancelled transfer itself",
            ),
            (
                at_most(self.listener_error_drain, self.hard_deadline),
                "clocks.listener_error_drain: must not be longer than clocks.hard_deadline",
            ),
            (
                above_zero(self.forge_answer_by),
                "clocks.forge_answer_by: must be longer than zero",
            ),
            (
                below(self.forge_answer_by, platform::FORGE_MESSAGE_WINDOW),
                "clocks.forge_answer_by: must be shorter than the 15m in which the platform wants each message answered",
            ),
            (
                above_zero(self.progress_interval),
                "clocks.progress_interval: must be longer than zero",
            ),
            (
                above_zero(self.waiting_report_interval),
                "clocks.waiting_report_interval: must be longer than zero",
            ),
            (
                above_zero(self.reconcile_interval),
                "clocks.reconcile_interval: must be longer than zero",
            ),
            (
                above_zero(self.settle_confirm_after),
                "clocks.settle_confirm_after: must be longer than zero",
            ),
            (
                above_zero(self.settle_retry_first),
                "clocks.settle_retry_first: must be longer than zero",
            ),
            (
                at_most(self.settle_retry_first, self.settle_retry_max),
                "clocks.settle_retry_first: must not be longer than clocks.settle_retry_max",
            ),
            (
                above_zero(self.call_timeout),
                "clocks.call_timeout: must be longer than zero",
            ),
            (
                at_most(self.call_timeout, own::CALL_TIMEOUT_MAX),
                "clocks.call_timeout: must be at most 20s; a sweep lives 55s and keeps two calls in reserve",
            ),
            (
                above_zero(self.retry_pause),
                "clocks.retry_pause: must be longer than zero",
            ),
            (
                at_most(self.retry_pause, aws::MESSAGE_DELAY_MAX),
                "clocks.retry_pause: must be at most the 15m that a message can be delayed",
            ),
        ]
    }
}

const _: () = {
    assert!(hold(&Clocks::DEFAULT.inequalities()));
    assert!(below(
        platform::FORGE_EXPORT_QUIET,
        Clocks::DEFAULT.no_file_period
    ));
};

/// Whether an inequality holds, and the sentence about it when it doesn't, which begins with its key.
type Inequality = (bool, &'static str);

const fn at_most(one: Duration, other: Duration) -> bool {
    one.as_nanos() <= other.as_nanos()
}

const fn below(one: Duration, other: Duration) -> bool {
    one.as_nanos() < other.as_nanos()
}

const fn above_zero(clock: Duration) -> bool {
    !clock.is_zero()
}

const fn hold(inequalities: &[Inequality]) -> bool {
    let mut all = true;
    let mut index = 0;
    while index < inequalities.len() {
        all &= inequalities[index].0;
        index += 1;
    }
    all
}

fn broken(inequalities: &[Inequality]) -> Vec<String> {
    inequalities
        .iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, sentence)| (*sentence).to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
