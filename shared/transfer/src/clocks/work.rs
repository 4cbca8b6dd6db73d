use std::time::Duration;

use super::{Clocks, Inequality, IntakeClocks, above_zero, at_most, below, broken, hold, own};

/// The clocks of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkClocks {
    /// After this long a slice ends with its next batch. Above zero, at most [`own::SLICE_MAX`].
    pub slice: Duration,
    /// How long a worker holds a file without a sign of life. Above `slice`; with `message_grace` at most
    /// [`Clocks::work_stale_after`], so that a file whose worker died is revived before its transfer is given up.
    pub lease: Duration,
    /// How long a row's message may be on its way before the sweeper queues it again. At least
    /// [`IntakeClocks::write_within`], in which the message may still be sent.
    pub message_grace: Duration,
}

impl WorkClocks {
    pub(super) const DEFAULT: Self = Self {
        slice: Duration::from_mins(1),
        lease: Duration::from_secs(90),
        message_grace: Duration::from_mins(2),
    };

    /// The inequalities that must hold, each broken one as a sentence that begins with its key.
    pub fn problems(&self, clocks: &Clocks, intake: &IntakeClocks) -> Vec<String> {
        broken(&self.inequalities(clocks, intake))
    }

    pub(super) const fn inequalities(
        &self,
        clocks: &Clocks,
        intake: &IntakeClocks,
    ) -> [Inequality; 5] {
        [
            (
                above_zero(self.slice),
                "clocks.slice: must be longer than zero",
            ),
            (
                at_most(self.slice, own::SLICE_MAX),
                "clocks.slice: must be at most 10m; a function lives 15m and recovery waits for a slice",
            ),
            (
                below(self.slice, self.lease),
                "clocks.lease: must be longer than clocks.slice",
            ),
            (
                at_most(
                    self.lease.saturating_add(self.message_grace),
                    clocks.work_stale_after,
                ),
                "clocks.work_stale_after: must be at least clocks.lease plus clocks.message_grace, or work would be given up before it is revived",
            ),
            (
                at_most(intake.write_within, self.message_grace),
                "clocks.message_grace: must be at least clocks.write_within, in which the message may still be sent",
            ),
        ]
    }
}

impl Default for WorkClocks {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = assert!(hold(
    &WorkClocks::DEFAULT.inequalities(&Clocks::DEFAULT, &IntakeClocks::DEFAULT)
));
