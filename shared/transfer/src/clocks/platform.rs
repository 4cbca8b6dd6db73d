//! The platform's own timers. Nothing of ours can change them; what of ours depends on them says so here, and an
//! assertion or [`Clocks::problems`](super::Clocks::problems) holds it.

use std::time::Duration;

use super::{aws, below, own};

/// The platform waits this long for the answer to an event, then it sends the event again (PROTOCOL.md 2.4 and 7.4).
/// `clocks.answer_within` is shorter.
pub const EVENT_ANSWER: Duration = Duration::from_secs(5);

/// A Forge message that is not answered for this long ends its transfer (PROTOCOL.md 7.6). `clocks.forge_answer_by` is
/// shorter.
pub const FORGE_MESSAGE_WINDOW: Duration = Duration::from_mins(15);

/// Without `completeExport` the platform takes a Forge export for complete when nothing was uploaded for this long
/// (PROTOCOL.md 2.4). Ours waits longer by default, because Connect has no such event: shorter than
/// `completeness.no_file_period`.
pub const FORGE_EXPORT_QUIET: Duration = Duration::from_mins(15);

/// The platform settles a cancelled transfer itself this long after the request (PROTOCOL.md 2.4).
/// `clocks.cancel_settle_by` plus `clocks.reconcile_interval` is shorter, so that a cancellation whose event got lost is
/// settled in time, too.
pub const CANCELLATION_GRACE: Duration = Duration::from_hours(1);

/// The admin can cancel from this age on (PROTOCOL.md 2.4). Atlassian Support can cancel sooner, so nothing of ours counts
/// on it; shorter than [`CANCELLATION_GRACE`], so a transfer may well be over within its first two hours.
pub const CANCEL_BUTTON: Duration = Duration::from_mins(30);

/// A signed URL dies this long after it was given (PROTOCOL.md 2.4). Longer than the longest `clocks.slice` with its
/// margin, so that a URL asked for as a slice begins outlives the slice.
pub const SIGNED_URL_LIFE: Duration = Duration::from_hours(1);

/// Longest life of the token that comes with a call to a Forge remote (PROTOCOL.md 7.5). Longer than [`aws::INVOCATION_MAX`], so
/// that a token which is good when an invocation begins is good until it ends.
pub const FORGE_TOKEN_LIFE: Duration = Duration::from_hours(4);

/// The admin's re-run closes this long after the original attempt (PROTOCOL.md 2.4). `clocks.hard_deadline` leaves a day of
/// it.
pub const RERUN_WINDOW: Duration = Duration::from_hours(12 * 24);

/// The platform gives a Connect transfer up this long after its first notification (PROTOCOL.md 2.4). Longer than
/// [`RERUN_WINDOW`]: who leaves a transfer to time out has taken the re-run away.
pub const LIFE: Duration = Duration::from_hours(14 * 24);

/// `identity:*` mappings can't be looked up any more this long after they were made (PROTOCOL.md 2.4). Not shorter than
/// [`RERUN_WINDOW`], so that a re-run in time still finds them.
pub const IDENTITY_MAPPING_LIFE: Duration = Duration::from_hours(14 * 24);

/// Life of a token that either side signs on Connect (PROTOCOL.md 4.3). `clocks.secret_overlap` is at least this plus
/// `clocks.jwt_leeway`; shorter than [`own::DEDUPE_LIFE`], so that no token outlives the record of its event.
pub const CONNECT_TOKEN_LIFE: Duration = Duration::from_mins(3);

const _: () = {
    assert!(below(CANCEL_BUTTON, CANCELLATION_GRACE));
    assert!(below(
        own::SLICE_MAX.saturating_add(own::INVOCATION_MARGIN),
        SIGNED_URL_LIFE
    ));
    assert!(below(aws::INVOCATION_MAX, FORGE_TOKEN_LIFE));
    assert!(below(RERUN_WINDOW, LIFE));
    assert!(!below(IDENTITY_MAPPING_LIFE, RERUN_WINDOW));
    assert!(below(CONNECT_TOKEN_LIFE, own::DEDUPE_LIFE));
};
