//! Ends a file early of which too much fails: a wrong declaration would reject all of it, and a person should know that soon.

use std::collections::BTreeMap;

use landfall_transfer::Counts;

use crate::declaration::{FAIL_ABOVE, Import, Share};
use crate::ports::Rejection;
use crate::problem::FileProblem;

/// A file is not judged by fewer records unless it has no more: the first ones may happen to be the bad ones.
const JUDGED_FROM: u64 = 1_000;

/// Why records failed before they reached the sink, since something was committed last, and what was found then.
#[derive(Debug, Default)]
pub(super) struct Causes {
    failed: usize,
    by_cause: BTreeMap<String, usize>,
    most_frequent: Option<String>,
}

impl Causes {
    pub(super) fn add(&mut self, rejections: &[Rejection]) {
        self.failed += rejections.len();
        for rejection in rejections {
            let cause = rejection.cause.as_ref().unwrap_or(&rejection.reason);
            *self.by_cause.entry(cause.clone()).or_default() += 1;
        }
    }

    /// So many records failed in all in what is committed now; the rest of them the sink didn't take. Where none failed, what was found before stays.
    pub(super) fn settle(&mut self, failed: usize) {
        let by_sink = failed.saturating_sub(self.failed);
        let own = std::mem::take(&mut self.by_cause);
        self.failed = 0;
        match own.into_iter().max_by_key(|(_, count)| *count) {
            Some((cause, count)) if count >= by_sink => self.most_frequent = Some(cause),
            _ if by_sink > 0 => {
                self.most_frequent = Some("the sink did not take the record".to_owned());
            }
            _ => {}
        }
    }

    /// Whether too many records failed. `so_far` are the file's counts, `is_over` says that there are no more.
    pub(super) fn too_many(
        &self,
        import: &Import,
        so_far: Counts,
        is_over: bool,
    ) -> Option<FileProblem> {
        let declared = import.fail_above();
        // What nobody declared spares work; it doesn't judge what is done.
        let is_judged = if is_over {
            declared.is_some()
        } else {
            so_far.read >= JUDGED_FROM
        };
        let share = declared.unwrap_or(FAIL_ABOVE);
        let failed = so_far.held + so_far.rejected;
        if !is_judged || !is_above(failed, so_far.read, share) {
            return None;
        }
        let unknown = || "the exceptions of the file say why".to_owned();
        Some(FileProblem::TooManyFailed {
            failed,
            read: so_far.read,
            fail_above: share.to_string(),
            most_frequent: self.most_frequent.clone().unwrap_or_else(unknown),
        })
    }
}

fn is_above(failed: u64, read: u64, share: Share) -> bool {
    u128::from(failed) * u128::from(Share::WHOLE) > u128::from(read) * u128::from(share.parts())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::RejectionKind;

    fn rejection(namespace: Option<&str>, reason: &str) -> Rejection {
        Rejection {
            record_number: 1,
            kind: RejectionKind::Rejected,
            key: None,
            namespace: namespace.map(str::to_owned),
            reason: reason.to_owned(),
            cause: namespace.map(|namespace| format!("{namespace} has no mapping for an id")),
        }
    }

    #[test]
    fn the_most_frequent_cause_is_named_without_an_id() {
        let own = [
            rejection(Some("identity:user"), "no mapping for \"ann\""),
            rejection(None, "the record is not JSON"),
            rejection(Some("identity:user"), "no mapping for \"bob\""),
        ];
        let of = |own: &[Rejection], failed| {
            let mut causes = Causes::default();
            causes.add(own);
            causes.settle(failed);
            causes.most_frequent
        };
        let by_sink = "the sink did not take the record";
        assert_eq!(
            of(&own, 3).as_deref(),
            Some("identity:user has no mapping for an id")
        );
        assert_eq!(of(&own, 6).as_deref(), Some(by_sink));
        assert_eq!(of(&own[1..2], 1).as_deref(), Some("the record is not JSON"));
        assert_eq!(of(&[], 1).as_deref(), Some(by_sink));
        assert_eq!(of(&[], 0), None);
    }

    fn ends(fail_above: Option<&str>, read: u64, failed: u64, is_over: bool) -> bool {
        let import = Import {
            fail_above: fail_above.map(str::to_owned),
            ..Import::default()
        };
        let so_far = Counts {
            read,
            applied: read - failed,
            rejected: failed / 2,
            held: failed - failed / 2,
            ..Counts::default()
        };
        Causes::default()
            .too_many(&import, so_far, is_over)
            .is_some()
    }

    #[test]
    fn more_than_the_declared_share_ends_a_file_and_exactly_the_share_does_not() {
        for (share, allowed) in [("5%", 50), ("0.25%", 2), ("0%", 0), ("100%", 1_000)] {
            assert!(!ends(Some(share), 1_000, allowed, false), "{share}");
            if allowed < 1_000 {
                assert!(ends(Some(share), 1_000, allowed + 1, false), "{share}");
            }
        }
    }

    #[test]
    fn the_first_records_decide_nothing_unless_there_are_no_others() {
        assert!(!ends(Some("5%"), 999, 999, false));
        assert!(ends(Some("5%"), 1, 1, true));
        assert!(!ends(Some("100%"), 1, 1, true));
    }

    #[test]
    fn without_a_declared_share_a_file_ends_when_nearly_all_of_it_fails_and_more_would_follow() {
        assert!(ends(None, 1_000, 1_000, false));
        assert!(ends(None, 1_000, 901, false));
        assert!(!ends(None, 1_000, 900, false));
        assert!(!ends(None, 999, 999, false));
        assert!(!ends(None, 5_000, 5_000, true));
    }

    #[test]
    fn what_was_found_before_stays_until_something_fails_again() {
        let mut causes = Causes::default();
        causes.add(&[rejection(None, "the record is not JSON")]);
        causes.settle(1);
        causes.settle(0);
        assert_eq!(
            causes.most_frequent.as_deref(),
            Some("the record is not JSON")
        );
    }
}
