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

/// While a transfer may end with its open files, the sweeper counts these this often, should whoever ended the last one have died before it counted them; `clocks.quiet_period`
/// where that is shorter. The rows of 10,000 files that have ended are 1,300 read units.
pub const RECOUNT: Duration = Duration::from_mins(1);

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

/// Pause of the scheduled trigger that brings each installation's token on Forge: `interval: hour` of the manifest that we ask for
/// (contracts/forge/manifest.yml).
pub const FORGE_REFRESH: Duration = Duration::from_hours(1);

/// An installation on Forge whose calls bring no newer token is written down as heard at most once in this time. Shorter than [`FORGE_REFRESH`], so that no call of
/// the schedule goes unnoticed.
pub const FORGE_HEARD_EVERY: Duration = Duration::from_mins(30);

/// An installation on Forge that was not heard for this long although a transfer of it is active is called silent: two calls of the schedule ([`FORGE_REFRESH`]) have failed, and
/// each may have been late. With [`FORGE_HEARD_EVERY`] and [`FORGE_TOKEN_LOW`] below [`platform::FORGE_TOKEN_LIFE`], so that it is said long before its last token ends.
pub const FORGE_SILENT_AFTER: Duration = Duration::from_mins(150);

/// However late it was heard, an installation is called silent when so much is left of its newest token (OPEN-QUESTIONS.md D5): tokens may live shorter than
/// [`platform::FORGE_TOKEN_LIFE`]. Longer than the most that [`Clocks::forge_answer_by`](super::Clocks::forge_answer_by) keeps of a token, a quarter of [`platform::FORGE_MESSAGE_WINDOW`].
pub const FORGE_TOKEN_LOW: Duration = Duration::from_mins(10);

const _: () = {
    assert!(below(FORGE_HEARD_EVERY, FORGE_REFRESH));
    assert!(below(
        FORGE_REFRESH.saturating_add(FORGE_REFRESH),
        FORGE_SILENT_AFTER
    ));
    assert!(below(
        FORGE_SILENT_AFTER
            .saturating_add(FORGE_HEARD_EVERY)
            .saturating_add(FORGE_TOKEN_LOW),
        platform::FORGE_TOKEN_LIFE
    ));
    assert!(below(
        platform::FORGE_MESSAGE_WINDOW,
        FORGE_TOKEN_LOW.saturating_mul(4)
    ));
    assert!(at_most(RERUN_LEFT, platform::RERUN_WINDOW));
    assert!(below(LISTED_AFTER, ABSENT_FOR));
    assert!(below(platform::LIFE, DEDUPE_LIFE));
    assert!(below(DEDUPE_LIFE, HISTORY_LIFE));
    assert!(below(
        platform::LIFE.saturating_add(SETTLE_RETRY_LATE),
        HISTORY_LIFE
    ));
};
