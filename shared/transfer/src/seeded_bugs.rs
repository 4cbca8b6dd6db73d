//! Mistakes that could be made here, planted one at a time to see that the tests notice: `docs/seeded-bugs.md` says which did.
//!
//! Each stands in the code where it would be made, as a condition that asks [`is_planted`]. Without the feature `seeded-bugs`
//! the answer is a constant, so that nothing of it is left in a function; every function's `main.rs` refuses to be compiled with
//! the feature ([`POSSIBLE`]).

macro_rules! seeded_bugs {
    ($($bug:ident, $name:literal, $mistake:literal, $breaks:literal;)+) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SeededBug {
            $(#[doc = concat!($mistake, " It breaks: ", $breaks, ".")] $bug,)+
        }

        impl SeededBug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its name in the table.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What was done wrong, as a sentence.
            pub const fn mistake(self) -> &'static str {
                match self {
                    $(Self::$bug => $mistake,)+
                }
            }

            /// The promise or invariant that it breaks.
            pub const fn breaks(self) -> &'static str {
                match self {
                    $(Self::$bug => $breaks,)+
                }
            }
        }
    };
}

seeded_bugs! {
    DeadlineMovesOn, "deadline-moves-on",
        "The hard deadline counts from the last sign of work instead of from the transfer's creation.",
        "promise 2: settled early enough for the re-run";
    HeldCountsAsArrived, "held-counts-as-arrived",
        "Records that are held back don't keep a verdict from being SUCCESS.",
        "promise 6: records balance";
    CancelOutrunsVerdict, "cancel-outruns-verdict",
        "A cancellation stops a transfer whose verdict is already written.",
        "promise 3: the verdict is decided once";
    LeaseNotWaitedFor, "lease-not-waited-for",
        "A stopped transfer gets its verdict while a worker may still have a delivery under way.",
        "promise 4: nothing is written for what is over";
    FenceIgnored, "fence-ignored",
        "A file's writes demand that it is open, and not that the fencing token is the newest.",
        "S3: only the holder of the newest token writes";
    VersionIgnored, "version-ignored",
        "A transfer's new state is written whatever version stands there.",
        "S2: what another has written is not lost";
    StoppedTransferTakenUp, "stopped-transfer-taken-up",
        "A file is taken up without a look whether its transfer still takes work.",
        "promise 4: nothing is written for what is over";
    DuplicateOverwrites, "duplicate-overwrites",
        "A row that intake has stored already is put again when its event is delivered again.",
        "S4 and promise 5: effects happen once";
    VerdictBeforeFence, "verdict-before-fence",
        "The verdict on a complete export is written without moving the fencing tokens of its files on first.",
        "promise 4: nothing is written for what is over";
    OldCountBelieved, "old-count-believed",
        "A transfer is stopped for files that don't move, or that don't come, on a count from before that was due.",
        "promise 2: settled by what really happened";
    EndedInTwoWrites, "ended-in-two-writes",
        "A file is ended in one write and its message decided in a second one.",
        "promise 2: the platform waits for nobody in vain";
    CheckpointBeforeRecords, "checkpoint-before-records",
        "A batch's checkpoint is written before its records instead of with them.",
        "S7: no gap in the target";
    UnknownCommitBelieved, "unknown-commit-believed",
        "A commit whose answer got lost is taken for one that worked.",
        "S7: no gap in the target";
    AttemptNotWritten, "attempt-not-written",
        "A settlement is sent before it is written that it will be.",
        "promises 2 and 3: it is known whose verdict the platform has";
    LostAnswerIsFailure, "lost-answer-is-failure",
        "A settlement whose answer got lost is taken for one that never arrived.",
        "promises 2 and 3: it is known whose verdict the platform has";
    VerdictReworded, "verdict-reworded",
        "The message of a settlement says which attempt it is.",
        "promise 3: after a crash the same verdict is sent again";
    AcceptedIsBelieved, "accepted-is-believed",
        "A settlement that was answered 200 counts as taken although the platform still lists the transfer.",
        "promise 2: every transfer is settled";
    FailedRowEndsTheSweep, "failed-row-ends-the-sweep",
        "A due row that can't be read is not put off, and ends the sweep of its partition.",
        "promise 8 and L2: one row does not starve the rest";
    StateFromBeforeTheRace, "state-from-before-the-race",
        "Whoever lost a race reads the new version and writes the state that was worked out from the old one.",
        "S2: terminal states never change";
    UnknownIsDurable, "unknown-is-durable",
        "Intake answers 200 when a write's outcome is unknown.",
        "promise 1 and S1: nothing accepted is lost";
    AnsweredBeforeApplied, "answered-before-applied",
        "A file's message is answered SUCCESS once the file has ended, whatever became of its records.",
        "promise 6: SUCCESS is said only when everything is there";
    AnswerNotWritten, "answer-not-written",
        "How a message is answered is not written before it is sent.",
        "promise 3: what was answered is never answered otherwise";
    LateMessageForgotten, "late-message-forgotten",
        "A file whose event is taken in when its transfer is over is left alone, and its message with it.",
        "promise 2: the platform waits for nobody in vain";
}

/// Whether this build can have a bug planted.
pub const POSSIBLE: bool = cfg!(feature = "seeded-bugs");

/// Whether this one is planted now. This build has none.
#[cfg(not(feature = "seeded-bugs"))]
#[inline]
pub const fn is_planted(_: SeededBug) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub use planting::{Planted, is_planted, plant};

#[cfg(feature = "seeded-bugs")]
mod planting {
    use std::cell::Cell;
    use std::marker::PhantomData;

    use super::SeededBug;

    thread_local! {
        static PLANTED: Cell<Option<SeededBug>> = const { Cell::new(None) };
    }

    /// A bug is planted in this thread as long as this lives.
    #[derive(Debug)]
    #[must_use = "the bug is gone when this is dropped"]
    pub struct Planted {
        before: Option<SeededBug>,
        /// It ends in the thread that it began in.
        _here: PhantomData<*const ()>,
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(bug: Option<SeededBug>) -> Planted {
        Planted {
            before: PLANTED.replace(bug),
            _here: PhantomData,
        }
    }

    /// Whether this bug is planted in this thread now.
    pub fn is_planted(bug: SeededBug) -> bool {
        PLANTED.get() == Some(bug)
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(self.before);
        }
    }
}
