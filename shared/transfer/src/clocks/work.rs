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
    /// How long a row's message may be on its way before the sweeper queues it again; a file's: [`Self::file_grace`]. At least
    /// [`IntakeClocks::write_within`], in which the message may still be sent.
    pub message_grace: Duration,
    /// Pause after which a file is read once more that was read to its end with records held, because their mappings may have come. Above
    /// zero; with `message_grace` at most [`Clocks::work_stale_after`] (and so below [`Clocks::hard_deadline`]), so that the second reading
    /// begins, also where its message got lost, before the transfer is given up.
    pub hold_again_after: Duration,
}

impl WorkClocks {
    /// How long a file's message may be on its way: no longer than a lease. So the row of a file that is taken up is due before
    /// that lease ends already, and need not be moved in the index of what is due.
    pub fn file_grace(&self) -> Duration {
        self.message_grace.min(self.lease)
    }

    pub(super) const DEFAULT: Self = Self {
        slice: Duration::from_mins(1),
        lease: Duration::from_secs(90),
        message_grace: Duration::from_mins(2),
        hold_again_after: Duration::from_mins(15),
    };

    /// The inequalities that must hold, each broken one as a sentence that begins with its key.
    pub fn problems(&self, clocks: &Clocks, intake: &IntakeClocks) -> Vec<String> {
        broken(&self.inequalities(clocks, intake))
    }

    pub(super) const fn inequalities(
        &self,
        clocks: &Clocks,
        intake: &IntakeClocks,
    ) -> [Inequality; 7] {
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
            (
                above_zero(self.hold_again_after),
                "clocks.hold_again_after: must be longer than zero",
            ),
            (
                at_most(
                    self.hold_again_after.saturating_add(self.message_grace),
                    clocks.work_stale_after,
                ),
                "clocks.hold_again_after: must with clocks.message_grace be at most clocks.work_stale_after, or a transfer would be given up before its held records are asked again",
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
