use super::{Report, Transfer};
use crate::clocks::Clocks;
use crate::completeness::FIRST_FILE;
use crate::message::{MESSAGE_MAX, clip, count_of};
use crate::timestamp::Timestamp;

impl Transfer {
    /// The percent and message of a progress update, `in_flight` being the share of the current file that is done, in thousandths.
    pub fn report(&self, in_flight: u32) -> Report {
        let known = self.work.files_known.max(1);
        let done = self.work.files_ended * 1_000
            + u64::from(in_flight.min(1_000)) * u64::from(self.work.files_open() > 0);
        // The export isn't known to be complete, so the last hundredth is never reported.
        let percent = (done * 98 / (known * 1_000)).min(98) + 1;
        let percent = u8::try_from(percent)
            .unwrap_or(99)
            .max(self.last_percent)
            .min(99);
        let files = format!(
            "{} of {} done, {}",
            self.work.files_ended,
            count_of(self.work.files_known, "file"),
            self.work.counts_so_far()
        );
        let message = match (&self.work.stalled_by, self.work.files_open()) {
            (Some(reason), 1..) => {
                let since = self.work.last_moved_at.for_admin();
                format!("Waiting since {since}, because {reason}: {files}.")
            }
            (None, 1..) => format!("Importing: {files}."),
            (_, 0) => format!(
                "Waiting for {} since {}: {files}.",
                self.waiting_for(),
                self.quiet_since().for_admin()
            ),
        };
        Report {
            percent,
            message: clip(&message, MESSAGE_MAX),
        }
    }

    /// What is waited for while no file is open; reads after "waiting for".
    pub(crate) fn waiting_for(&self) -> &str {
        match &self.exporter.waiting_for {
            Some(what) => what,
            None if self.work.files_known == 0 => FIRST_FILE,
            None => "the server app",
        }
    }

    /// Whether a progress update may be sent. Where messages are answered the platform says itself how far a transfer is (PROTOCOL.md 7.6).
    pub fn may_report(&self, now: Timestamp, clocks: &Clocks) -> bool {
        self.is_open()
            && self.messages.is_none()
            && !self.is_later_phase()
            && self
                .last_reported_at
                .is_none_or(|last| now >= last + clocks.progress_interval)
    }
}
