//! What AWS limits, from the quotas of SQS and Lambda.

use std::time::Duration;

use super::{below, own};

/// The longest delay of an SQS message. `clocks.retry_pause` is at most this.
pub const MESSAGE_DELAY_MAX: Duration = Duration::from_mins(15);

/// The longest that a Lambda function may run. `ProcessorTimeout` is at most this, and [`own::SLICE_MAX`] with
/// [`own::INVOCATION_MARGIN`] is shorter.
pub const INVOCATION_MAX: Duration = Duration::from_mins(15);

const _: () = assert!(below(
    own::SLICE_MAX.saturating_add(own::INVOCATION_MARGIN),
    INVOCATION_MAX
));
