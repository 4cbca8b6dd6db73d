//! The only place that reads a clock and sleeps.

#![expect(
    clippy::disallowed_methods,
    reason = "everything else takes its time from here"
)]

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use landfall_transfer::Timestamp;
use tokio::time::Instant;

use crate::Time;

/// The machine's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// Tokio's instant and not the standard library's: a test may pause it.
    since: Instant,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self {
            since: Instant::now(),
        }
    }
}

impl Time for Running {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.since.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // A time-out is due even when the work beside it uses up all that the runtime grants their task.
        Box::pin(tokio::task::unconstrained(tokio::time::sleep(duration)))
    }
}

/// A wall clock that stands still until it is moved; the rest runs, and is moved with it.
#[derive(Debug)]
pub(crate) struct Manual {
    start: Timestamp,
    millis: AtomicI64,
    running: Running,
}

impl Manual {
    pub(crate) fn at(start: Timestamp) -> Self {
        Self {
            start,
            millis: AtomicI64::new(start.as_millis()),
            running: Running::start(),
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.millis.fetch_add(
            i64::try_from(by.as_millis()).unwrap_or(i64::MAX),
            Ordering::SeqCst,
        );
    }
}

impl Time for Manual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.running.monotonic() + self.now().since(self.start)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.running.sleep(duration)
    }
}
