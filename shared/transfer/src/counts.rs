use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// What became of the records of a file, or of a whole transfer. At every commit `read = applied + unchanged + held + rejected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records cut from the exported files.
    pub read: u64,
    /// Records that the sink took.
    pub applied: u64,
    /// Records that the chain had applied before with the same content; they were not applied again.
    pub unchanged: u64,
    /// Records that wait for a mapping which the platform doesn't know.
    pub held: u64,
    /// Records that could not be read, mapped or delivered; each with its reason.
    pub rejected: u64,
}

impl Counts {
    /// Whether every record that was read has exactly one outcome.
    pub const fn balances(&self) -> bool {
        self.without_outcome() == 0
    }

    /// By how many records the outcomes differ from what was read.
    pub const fn without_outcome(&self) -> u64 {
        self.read
            .abs_diff(self.applied + self.unchanged + self.held + self.rejected)
    }

    /// Records that are in the target: applied now or by an earlier attempt.
    pub const fn arrived(&self) -> u64 {
        self.applied + self.unchanged
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            applied: self.applied + other.applied,
            unchanged: self.unchanged + other.unchanged,
            held: self.held + other.held,
            rejected: self.rejected + other.rejected,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} records read: {} applied, {} unchanged, {} held, {} rejected",
            self.read, self.applied, self.unchanged, self.held, self.rejected
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_an_outcome_breaks_the_balance() {
        let mut counts = Counts {
            read: 3,
            applied: 1,
            unchanged: 1,
            held: 0,
            rejected: 1,
        };
        assert!(counts.balances());
        counts.read += 1;
        assert!(!counts.balances());
    }

    #[test]
    fn every_kind_of_outcome_is_summed_by_itself() {
        let one = Counts {
            read: 2,
            applied: 3,
            unchanged: 5,
            held: 7,
            rejected: 11,
        };
        let mut sum = Counts {
            read: 1,
            applied: 10,
            unchanged: 100,
            held: 1_000,
            rejected: 10_000,
        };
        sum += one;
        let expected = Counts {
            read: 3,
            applied: 13,
            unchanged: 105,
            held: 1_007,
            rejected: 10_011,
        };
        assert_eq!(sum, expected);
    }
}
