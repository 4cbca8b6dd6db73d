//! What a transfer knows of its files comes from counts of their rows, and rests on none that is too old.

use super::*;
use crate::clocks::own;

const MILLISECOND: Duration = Duration::from_millis(1);

fn totals(known: u64, ended: u64) -> FileTotals {
    FileTotals {
        known,
        ended,
        ..FileTotals::default()
    }
}

fn complete_by_list() -> Input {
    Input::ExportComplete {
        evidence: Evidence::FileList,
        missing: Vec::new(),
    }
}

#[test]
fn of_two_counts_the_one_that_began_later_stays() {
    let mut transfer = transfer();
    let count = |known, minutes| Input::FilesCounted {
        totals: totals(known, known),
        at: at(minutes),
    };
    assert!(transfer.apply(count(2, 2), at(3), &clocks()));
    assert!(!transfer.apply(count(1, 1), at(3), &clocks()));
    let as_many_ended = Input::FilesCounted {
        totals: totals(5, 2),
        at: at(1),
    };
    assert!(!transfer.apply(as_many_ended, at(3), &clocks()));
    assert_eq!(
        (transfer.work.files_known, transfer.work.files_ended),
        (2, 2)
    );
    assert!(transfer.apply(count(3, 2), at(3), &clocks()));
    assert_eq!(transfer.work.files_ended, 3);
}

#[test]
fn a_count_in_which_more_files_have_ended_stays_whatever_its_clock_says() {
    let mut transfer = transfer();
    let count = |ended, minutes| Input::FilesCounted {
        totals: totals(2, ended),
        at: at(minutes),
    };
    transfer.apply(count(1, 5), at(5), &clocks());
    assert!(transfer.apply(count(2, 4), at(4), &clocks()));
    assert_eq!(
        (transfer.work.files_open(), transfer.work.counted_at),
        (0, at(5))
    );
}

#[test]
fn why_work_stands_still_is_forgotten_once_a_file_more_has_ended_and_no_sooner() {
    let mut transfer = transfer();
    let mut stalled_by_after = |ended, minutes| {
        let reason = "the target doesn't answer".to_owned();
        transfer.apply(Input::WorkStalled { reason }, at(minutes), &clocks());
        let count = Input::FilesCounted {
            totals: totals(2, ended),
            at: at(minutes),
        };
        transfer.apply(count, at(minutes), &clocks());
        transfer.work.stalled_by.is_some()
    };
    assert!(stalled_by_after(0, 1));
    assert!(!stalled_by_after(1, 2));
    assert!(stalled_by_after(1, 3));
    assert!(!stalled_by_after(2, 4));
}

#[test]
fn a_count_tells_when_files_came_and_moved_and_never_earlier_than_is_known() {
    let mut transfer = given([(5, Input::ListenerTriggered)]);
    let count = |received, moved, minutes| Input::FilesCounted {
        totals: FileTotals {
            last_received_at: Some(at(received)),
            last_moved_at: Some(at(moved)),
            ..totals(1, 0)
        },
        at: at(minutes),
    };
    transfer.apply(count(7, 8, 9), at(9), &clocks());
    let seen = |transfer: &Transfer| (transfer.exporter.last_heard_at, transfer.work.last_moved_at);
    assert_eq!(seen(&transfer), (at(7), at(8)));
    transfer.apply(count(3, 4, 10), at(10), &clocks());
    assert_eq!(seen(&transfer), (at(7), at(8)));
}

#[test]
fn nothing_is_stopped_for_its_files_before_they_are_counted_anew() {
    let stale = at(0) + clocks().work_stale_after;
    let open = given([(0, seen())]);
    assert_eq!(open.next_step(stale, &clocks()), Step::CountFiles);
    let mut moved = open.clone();
    let moved_since = Input::FilesCounted {
        totals: FileTotals {
            last_moved_at: Some(stale - MILLISECOND),
            ..totals(1, 0)
        },
        at: stale,
    };
    moved.apply(moved_since, stale, &clocks());
    moved.apply(Input::Listed(Listing::Active), stale, &clocks());
    moved.apply(Input::Reporting { percent: 1 }, stale, &clocks());
    assert_eq!(moved.next_step(stale, &clocks()), Step::Wait);
    assert_eq!(owed(&open, stale), Step::Stop(StopReason::WorkStale));

    let silent = at(1) + clocks().export_silence;
    let mut idle = given([
        (0, seen()),
        (1, ended(FileOutcome::Imported, counts(1, 0), false)),
    ]);
    let looked = Input::ExportIncomplete {
        waiting_for: "more".to_owned(),
        files_ended: 1,
    };
    idle.apply(looked, silent - MILLISECOND, &clocks());
    idle.apply(Input::Listed(Listing::Active), silent, &clocks());
    assert_eq!(idle.next_step(silent, &clocks()), Step::CountFiles);
    assert_eq!(owed(&idle, silent), Step::Stop(StopReason::ExporterSilent));
}

#[test]
fn open_files_are_counted_again_each_quiet_period_and_each_minute_once_nothing_else_is_waited_for()
{
    let open = given([(0, seen())]);
    let lively = Clocks {
        quiet_period: Duration::from_mins(4),
        ..clocks()
    };
    assert_eq!(open.next_step(at(4) - MILLISECOND, &lively), Step::Wait);
    assert_eq!(open.next_step(at(4), &lively), Step::CountFiles);

    let manifest = ended(FileOutcome::Imported, Counts::default(), true);
    for (last, since) in [
        (manifest, 3),
        (
            ended(
                FileOutcome::Poisoned {
                    reason: "five".to_owned(),
                },
                Counts::default(),
                false,
            ),
            3,
        ),
    ] {
        let transfer = given([(0, seen()), (0, seen()), (since, last)]);
        let due = at(since) + own::RECOUNT;
        assert_eq!(transfer.next_step(due - MILLISECOND, &clocks()), Step::Wait);
        assert_eq!(transfer.next_step(due, &clocks()), Step::CountFiles);
    }
}

#[test]
fn an_exporter_that_is_done_or_broken_has_open_files_counted_at_once_and_each_minute() {
    for done in [
        Input::ExportPhaseCompleted,
        Input::ListenerErrored { exception: None },
    ] {
        let mut transfer = given([(0, seen()), (3, done)]);
        assert_eq!(transfer.next_step(at(3), &clocks()), Step::CountFiles);
        transfer.happens(counted(), at(3), &clocks());
        let due = at(3) + own::RECOUNT;
        assert_eq!(transfer.next_step(due - MILLISECOND, &clocks()), Step::Wait);
        assert_eq!(transfer.next_step(due, &clocks()), Step::CountFiles);
    }
}

#[test]
fn the_verdict_on_a_complete_export_waits_until_no_file_can_be_taken_up() {
    let mut transfer = given([
        (0, seen()),
        (1, ended(FileOutcome::Imported, counts(9, 0), false)),
    ]);
    let quiet = at(1) + clocks().quiet_period;
    assert!(transfer.apply(complete_by_list(), quiet, &clocks()));
    assert_eq!(transfer.phase.as_str(), "STOPPING");
    assert_eq!(transfer.next_step(quiet, &clocks()), Step::FenceFiles);
    let whole = totals_of(&transfer);
    let mut sound = transfer.clone();
    sound.apply(fenced(whole.clone()), quiet, &clocks());
    assert_eq!(verdict(&sound).status, Status::Success);

    let taken_up = FileTotals {
        known: 2,
        ..whole.clone()
    };
    let announced = FileTotals { late: 1, ..whole };
    for late in [taken_up, announced] {
        let mut transfer = transfer.clone();
        transfer.apply(fenced(late), quiet, &clocks());
        let verdict = verdict(&transfer);
        assert_eq!(
            (verdict.status, verdict.cause),
            (Status::Incomplete, Cause::Gaps)
        );
        assert!(
            verdict.message.contains("1 file that came too late"),
            "{}",
            verdict.message
        );
    }
}

#[test]
fn what_the_platform_decides_outweighs_that_everything_is_there() {
    let mut transfer = given([]);
    let quiet = at(0) + clocks().no_file_period;
    transfer.apply(complete_by_list(), quiet, &clocks());
    assert_eq!(transfer.phase.as_str(), "STOPPING");
    let status = Some("TIMED_OUT".to_owned());
    transfer.apply(Input::PlatformSettled { status }, quiet, &clocks());
    transfer.apply(fenced(FileTotals::default()), quiet, &clocks());
    let Phase::Settled(settled) = &transfer.phase else {
        panic!("{:?}", transfer.phase)
    };
    assert_eq!(settled.status.as_deref(), Some("TIMED_OUT"));
}
