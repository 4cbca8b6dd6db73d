use std::time::Duration;

use super::{Clocks, Inequality, WorkClocks, at_most, aws, below, broken, hold, own, platform};

/// The clocks that the template sets, and one count: the defaults are those of `infra/template.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Time-out of intake. Above [`platform::EVENT_ANSWER`], and so above every `clocks.answer_within`.
    pub intake_timeout: Duration,
    /// `ProcessorTimeout`. At least [`WorkClocks::slice`] plus [`own::INVOCATION_MARGIN`], at most [`aws::INVOCATION_MAX`].
    pub processor_timeout: Duration,
    /// `EventsVisibilityTimeout`. At least `processor_timeout`, or two workers get one message.
    pub events_visibility: Duration,
    /// `ImportsVisibilityTimeout`. Likewise; and above [`WorkClocks::lease`], so that the lease of a crashed worker has run
    /// out when its message comes again.
    pub imports_visibility: Duration,
    /// `SweepSchedule`. With [`WorkClocks::lease`] and [`WorkClocks::message_grace`] below [`Clocks::work_stale_after`].
    pub sweep_interval: Duration,
    /// Time-out of the sweeper. Below `sweep_interval`, so that sweeps don't overlap; above twice [`own::CALL_TIMEOUT_MAX`].
    pub sweeper_timeout: Duration,
    /// Deliveries after which a message goes to its dead-letter queue. All of them end before [`Clocks::work_stale_after`],
    /// so that a transfer is settled with its message's problem and not as stale.
    pub max_receive_count: u32,
}

impl Deployment {
    /// What `infra/template.yaml` sets by default.
    pub const DEFAULT: Self = Self {
        intake_timeout: Duration::from_secs(6),
        processor_timeout: Duration::from_secs(90),
        events_visibility: Duration::from_mins(3),
        imports_visibility: Duration::from_mins(3),
        sweep_interval: Duration::from_mins(1),
        sweeper_timeout: Duration::from_secs(55),
        max_receive_count: 5,
    };

    /// The inequalities that must hold, each broken one as a sentence that begins with its key.
    pub fn problems(&self, clocks: &Clocks, work: &WorkClocks) -> Vec<String> {
        broken(&self.inequalities(clocks, work))
    }

    pub(super) const fn inequalities(
        &self,
        clocks: &Clocks,
        work: &WorkClocks,
    ) -> [Inequality; 10] {
        let revived = work
            .lease
            .saturating_add(work.message_grace)
            .saturating_add(self.sweep_interval);
        [
            (
                below(platform::EVENT_ANSWER, self.intake_timeout),
                "IntakeTimeout: must be above the 5s that the platform waits",
            ),
            (
                at_most(
                    work.slice.saturating_add(own::INVOCATION_MARGIN),
                    self.processor_timeout,
                ),
                "ProcessorTimeout: must be at least clocks.slice plus 8s",
            ),
            (
                at_most(self.processor_timeout, aws::INVOCATION_MAX),
                "ProcessorTimeout: must be at most 15m, the longest that a function may run",
            ),
            (
                at_most(self.processor_timeout, self.events_visibility),
                "EventsVisibilityTimeout: must be at least ProcessorTimeout",
            ),
            (
                at_most(self.processor_timeout, self.imports_visibility),
                "ImportsVisibilityTimeout: must be at least ProcessorTimeout",
            ),
            (
                below(work.lease, self.imports_visibility),
                "ImportsVisibilityTimeout: must be above clocks.lease, or a crashed worker's file is found held when its message comes again",
            ),
            (
                below(revived, clocks.work_stale_after),
                "SweepSchedule: must bring lost work back before clocks.work_stale_after",
            ),
            (
                below(self.sweeper_timeout, self.sweep_interval),
                "SweeperTimeout: must be below SweepSchedule's interval",
            ),
            (
                below(
                    own::CALL_TIMEOUT_MAX.saturating_mul(2),
                    self.sweeper_timeout,
                ),
                "SweeperTimeout: must be above two calls to the platform, 40s",
            ),
            (
                below(
                    self.imports_visibility
                        .saturating_mul(self.max_receive_count),
                    clocks.work_stale_after,
                ),
                "maxReceiveCount: times ImportsVisibilityTimeout must be below clocks.work_stale_after",
            ),
        ]
    }
}

impl Default for Deployment {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = assert!(hold(
    &Deployment::DEFAULT.inequalities(&Clocks::DEFAULT, &WorkClocks::DEFAULT)
));
