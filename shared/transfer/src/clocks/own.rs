//! Our own times that nobody needs to configure.

use std::time::Duration;

use super::{at_most, below, platform};

/// Time that is left of the processor's invocation after a slice, for what ends the slice. With `clocks.slice` at most the
/// template's `ProcessorTimeout`.
pub const INVOCATION_MARGIN: Duration = Duration::from_secs(8);

/// Longest `clocks.slice`: a crash costs up to a slice of work.
pub const SLICE_MAX: Duration = Duration::from_mins(10);

/// Longest `clocks.call_timeout`: the sweeper begins nothing that two calls would not let it end, and lives
/// [`Deployment::sweeper_timeout`](super::Deployment::sweeper_timeout).
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(20);

/// Longest `clocks.jwt_leeway`: more than this is no difference of clocks.
pub const JWT_LEEWAY_MAX: Duration = Duration::from_mins(5);

/// Least time that `clocks.hard_deadline` leaves of the admin's [`platform::RERUN_WINDOW`].
pub const RERUN_LEFT: Duration = Duration::from_hours(24);

/// A transfer that is not listed for this long is over. Twice the lag of the platform's list that we assume
/// (OPEN-QUESTIONS.md B16), so longer than [`LISTED_AFTER`].
pub const ABSENT_FOR: Duration = Duration::from_mins(2);

/// A transfer that was only just made may not be listed yet for this long: the lag itself.
pub const LISTED_AFTER: Duration = Duration::from_mins(1);

/// A settlement that was answered 200 and that the platform's list doesn't confirm for this many times
/// `clocks.settle_confirm_after` counts as stuck. It is not believed for that: a 200 alone proves nothing (PROTOCOL.md 2.6).
pub const UNCONFIRMED: u32 = 10;

/// Life of what serves to recognise repeats. Longer than any transfer's [`platform::LIFE`].
pub const DEDUPE_LIFE: Duration = Duration::from_hours(30 * 24);

/// How long support can look a transfer up after it was first seen. Longer than [`DEDUPE_LIFE`], so that whatever is still
/// recognised can be explained.
pub const HISTORY_LIFE: Duration = Duration::from_hours(400 * 24);

/// Pause between two attempts to settle a transfer that is older than [`platform::LIFE`]: it has most probably timed out
/// (OPEN-QUESTIONS.md B14). Shorter than what is left of the row's [`HISTORY_LIFE`] then.
pub const SETTLE_RETRY_LATE: Duration = Duration::from_hours(24);

const _: () = {
    assert!(at_most(RERUN_LEFT, platform::RERUN_WINDOW));
    assert!(below(LISTED_AFTER, ABSENT_FOR));
    assert!(below(platform::LIFE, DEDUPE_LIFE));
    assert!(below(DEDUPE_LIFE, HISTORY_LIFE));
    assert!(below(
        platform::LIFE.saturating_add(SETTLE_RETRY_LATE),
        HISTORY_LIFE
    ));
};
