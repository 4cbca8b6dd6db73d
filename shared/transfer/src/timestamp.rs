use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// An instant, in milliseconds since the Unix epoch. It always comes from the caller: nothing in this crate reads a clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant as an admin reads it: `22 Nov 14:05 UTC`.
    pub fn for_admin(self) -> String {
        let Ok(instant) = OffsetDateTime::from_unix_timestamp(self.as_seconds()) else {
            return format!("{} s after 1970", self.as_seconds());
        };
        let month = instant.month().to_string();
        format!(
            "{} {} {:02}:{:02} UTC",
            instant.day(),
            month.get(..3).unwrap_or("?"),
            instant.hour(),
            instant.minute()
        )
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_reads_the_day_and_the_minute() {
        assert_eq!(
            Timestamp::from_millis(1_763_769_600_000).for_admin(),
            "22 Nov 00:00 UTC"
        );
    }

    #[test]
    fn a_time_in_the_future_is_no_time_ago() {
        let now = Timestamp::from_millis(5);
        assert_eq!(now.since(now + Duration::from_millis(1)), Duration::ZERO);
    }
}
