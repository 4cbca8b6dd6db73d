use std::pin::pin;
use std::time::Duration;

use landfall_tracking::Error;
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};

use crate::deadline::{Deadline, Failure};

/// How two writes ended that say the same in two places.
#[derive(Debug)]
pub(crate) struct Writes<Row> {
    /// The row.
    pub(crate) row: Result<Row, Failure>,
    /// The message.
    pub(crate) message: Result<(), Failure>,
}

impl<Row> Writes<Row> {
    /// Whether at least one of them is known to be durable.
    pub(crate) fn is_durable(&self) -> bool {
        let unknown = matches!(self.row, Err(Failure::Ended(Error::Unknown)));
        self.row.is_ok()
            || self.message.is_ok()
            || unknown && is_planted(SeededBug::UnknownIsDurable)
    }
}

/// Carries out both writes at once. Once one is durable the other is waited for `write_within` from the beginning and no longer;
/// while none is, both have all the time there is.
pub(crate) async fn write_both<Row>(
    put: impl Future<Output = Result<Row, Error>>,
    send: impl Future<Output = Result<(), Error>>,
    write_within: Duration,
    deadline: Deadline<'_>,
) -> Writes<Row> {
    let (mut put, mut send) = (pin!(put), pin!(send));
    let (mut row, mut message) = (None, None);
    let patience = deadline.or_within(write_within);
    while row.is_none() || message.is_none() {
        let durable = matches!(row, Some(Ok(_))) || matches!(message, Some(Ok(())));
        let until = if durable { patience } else { deadline };
        tokio::select! {
            biased;
            ended = &mut put, if row.is_none() => row = Some(ended),
            ended = &mut send, if message.is_none() => message = Some(ended),
            () = until.sleep() => break,
        }
    }
    Writes {
        row: outcome(row),
        message: outcome(message),
    }
}

fn outcome<T>(ended: Option<Result<T, Error>>) -> Result<T, Failure> {
    ended.map_or(Err(Failure::OutOfTime), |ended| {
        ended.map_err(Failure::Ended)
    })
}

#[cfg(test)]
mod tests {
    use landfall_runtime::Clock;
    use landfall_transfer::Timestamp;

    use super::*;

    const WRITE_WITHIN: Duration = Duration::from_millis(1_500);
    const NEVER: u64 = 1_000_000;

    async fn write(clock: &Clock, millis: u64, succeeds: bool) -> Result<(), Error> {
        clock.sleep(Duration::from_millis(millis)).await;
        if succeeds {
            Ok(())
        } else {
            Err(Error::Unavailable("test".into()))
        }
    }

    /// How the writes ended (durable or not) and after how many milliseconds.
    async fn both(put: (u64, bool), send: (u64, bool)) -> (bool, bool, u128) {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let deadline = Deadline::new(&clock, None, clock.now(), Duration::from_millis(4_500));
        let writes = write_both(
            write(&clock, put.0, put.1),
            write(&clock, send.0, send.1),
            WRITE_WITHIN,
            deadline,
        )
        .await;
        assert_eq!(
            writes.is_durable(),
            writes.row.is_ok() || writes.message.is_ok()
        );
        (
            writes.row.is_ok(),
            writes.message.is_ok(),
            clock.monotonic().as_millis(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn both_writes_are_under_way_at_once() {
        assert_eq!(both((100, true), (120, true)).await, (true, true, 120));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_waited_for_no_longer_than_its_time_once_the_other_is_durable() {
        assert_eq!(both((10, true), (NEVER, true)).await, (true, false, 1_500));
        assert_eq!(both((NEVER, true), (10, true)).await, (false, true, 1_500));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_at_once_leaves_the_other_all_the_time_there_is() {
        assert_eq!(both((0, false), (3_000, true)).await, (false, true, 3_000));
        assert_eq!(both((3_000, true), (0, false)).await, (true, false, 3_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_be_durable_late_ends_the_waiting() {
        assert_eq!(
            both((2_000, true), (NEVER, true)).await,
            (true, false, 2_000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn with_neither_the_answer_still_leaves_in_time() {
        assert_eq!(
            both((NEVER, true), (NEVER, true)).await,
            (false, false, 4_500)
        );
        assert_eq!(both((0, false), (5, false)).await, (false, false, 5));
        assert_eq!(both((0, false), (NEVER, true)).await, (false, false, 4_500));
    }
}
