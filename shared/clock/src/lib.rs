#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod source;

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{Either, select};
use landfall_transfer::Timestamp;

use crate::source::{Manual, Running};

/// A source of time.
pub trait Time: fmt::Debug + Send + Sync {
    /// What a clock on the wall shows.
    fn now(&self) -> Timestamp;

    /// The time since an origin of this source's own. It never runs backwards.
    fn monotonic(&self) -> Duration;

    /// Ends once `duration` has passed from this call on, however late it is polled for the first time.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Where the time comes from. Everything that needs it is given one of these; clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Running),
    Manual(Arc<Manual>),
    Other(Arc<dyn Time>),
}

/// A future didn't end in its time. What it did until then is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("no end in the time allowed")
    }
}

impl std::error::Error for Elapsed {}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System(Running::start()))
    }

    /// A clock whose wall time stands still until it is moved. Its monotonic time runs on and its sleep takes as long as it says,
    /// both by tokio's clock, which a test may pause.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual::at(start))))
    }

    /// Another source's time.
    pub fn of(time: Arc<dyn Time>) -> Self {
        Self(Source::Other(time))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.time().now()
    }

    /// Now, as the standard library has it.
    pub fn system_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now().as_millis()).unwrap_or(0))
    }

    /// The time since an origin of this clock's own, which is its making unless it is [`Clock::of`] another source, to measure
    /// durations with. It never runs backwards.
    pub fn monotonic(&self) -> Duration {
        self.time().monotonic()
    }

    /// Sleeps, from this call on.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + Unpin + use<> {
        self.time().sleep(duration)
    }

    /// Waits for a future's end, but no longer than `duration`. A future that has ended by then always counts, even if there was
    /// no time at all; one that hasn't is dropped.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        match select(pin!(future), self.sleep(duration)).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(((), _)) => Err(Elapsed),
        }
    }

    /// Moves a manual clock; no other can be moved.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.advance(by);
        }
    }

    fn time(&self) -> &dyn Time {
        match &self.0 {
            Source::System(running) => running,
            Source::Manual(manual) => &**manual,
            Source::Other(time) => &**time,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);
    const HOUR: Duration = Duration::from_hours(1);

    /// Time that passes by sleeping, as in a simulation.
    #[derive(Debug)]
    struct Slept(Mutex<Duration>);

    impl Time for Slept {
        fn now(&self) -> Timestamp {
            START + self.monotonic()
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            *self.0.lock().unwrap() += duration;
            Box::pin(ready(()))
        }
    }

    /// Polls a future once, without any runtime.
    fn at_once<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_machines_wall_time_is_this_centurys_and_its_monotonic_time_never_falls() {
        let clock = Clock::system();
        assert!(clock.now() > START);
        let before = clock.clone().monotonic();
        assert!(clock.monotonic() >= before);
    }

    #[test]
    fn a_manual_clock_and_its_clones_stand_still_until_one_of_them_is_moved() {
        let clock = Clock::manual(START);
        clock.clone().advance(HOUR);
        assert_eq!(clock.now(), START + HOUR);
        assert!(clock.monotonic() >= HOUR, "time has passed for everybody");
        let since = clock.system_time().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_763_769_600 + 3_600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_manual_clock_really_sleeps_and_its_wall_time_does_not_see_it() {
        let clock = Clock::manual(START);
        clock.sleep(HOUR).await;
        assert_eq!((clock.now(), clock.monotonic()), (START, HOUR));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_counts_from_its_call_and_not_from_its_first_poll() {
        let clock = Clock::system();
        let early = clock.sleep(HOUR);
        clock.sleep(HOUR).await;
        early.await;
        assert_eq!(clock.monotonic(), HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_ends_a_future_that_hangs() {
        let clock = Clock::system();
        assert_eq!(clock.timeout(HOUR, pending::<()>()).await, Err(Elapsed));
        assert_eq!(clock.monotonic(), HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_ends_in_its_time_is_not_waited_on() {
        let clock = Clock::system();
        let half = clock.sleep(HOUR / 2);
        assert_eq!(clock.timeout(HOUR, half).await, Ok(()));
        assert_eq!(clock.monotonic(), HOUR / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_already_counts_even_without_any_time() {
        let clock = Clock::system();
        assert_eq!(clock.timeout(Duration::ZERO, ready(7)).await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_never_rests_is_ended_all_the_same() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let restless = async {
            loop {
                sender.send(()).unwrap();
                receiver.recv().await;
            }
        };
        let ended: Result<(), _> = Clock::system()
            .timeout(Duration::from_millis(5), restless)
            .await;
        assert_eq!(ended, Err(Elapsed));
    }

    #[test]
    fn time_of_another_kind_passes_without_a_runtime() {
        let clock = Clock::of(Arc::new(Slept(Mutex::default())));
        assert_eq!(
            at_once(clock.timeout(HOUR, pending::<()>())),
            Poll::Ready(Err(Elapsed))
        );
        assert_eq!(at_once(clock.sleep(HOUR)), Poll::Ready(()));
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (START + 2 * HOUR, 2 * HOUR)
        );
        clock.advance(HOUR);
        assert_eq!(clock.now(), START + 2 * HOUR, "only its owner moves it");
    }
}
