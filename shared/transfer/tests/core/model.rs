//! Every state that a transfer can reach from its first sight within some steps, by all inputs and across every clock's
//! boundary, and what must hold in each of them.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::hash::Hasher;
use std::time::Duration;

use landfall_transfer::timeline::entries;
use landfall_transfer::{
    Cause, Clocks, Counts, Evidence, FileOutcome, FileTotals, Input, Phase, SettledBy, Status,
    Step, StopReason, TenantId, Timestamp, Transfer, TransferId, Verdict, clocks,
};

use crate::world::START;

mod alphabet;

use alphabet::{Alphabet, LEASE, ended, inputs, seen};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A state and the instant at which it is looked at.
#[derive(Clone)]
struct Node {
    transfer: Transfer,
    now: Timestamp,
    /// How it came about, for whoever must understand a broken rule.
    path: Vec<String>,
}

fn first_seen() -> Transfer {
    Transfer::first_seen(
        TenantId::new("tenant"),
        TransferId::new("t-1"),
        None,
        None,
        START,
    )
}

/// The instants around the next clock that runs out, and around the last of all.
fn instants(node: &Node, clocks: &Clocks) -> Vec<Timestamp> {
    let mut instants = Vec::new();
    let deadline = node.transfer.created_at + clocks.hard_deadline;
    for boundary in [node.transfer.due_at(clocks), Some(deadline)]
        .into_iter()
        .flatten()
    {
        instants.extend([boundary - MILLISECOND, boundary, boundary + MILLISECOND]);
    }
    instants.retain(|instant| *instant > node.now);
    instants.dedup();
    instants
}

fn verdict(transfer: &Transfer) -> Option<&Verdict> {
    match &transfer.phase {
        Phase::Settling(settlement) => Some(&settlement.verdict),
        Phase::Settled(settled) => settled.verdict.as_ref(),
        _ => None,
    }
}

const fn rank(phase: &Phase) -> u8 {
    match phase {
        Phase::Open => 0,
        Phase::Stopping { .. } => 1,
        Phase::Settling(_) => 2,
        Phase::Settled(_) => 3,
    }
}

/// What holds in every state.
fn check_state(node: &Node, clocks: &Clocks) {
    let transfer = &node.transfer;
    let due = transfer.due_at(clocks);
    if transfer.is_settled() {
        assert_eq!(due, None, "nothing is owed to what is over");
    } else {
        let due = due.expect("something is always owed until it is over");
        assert_ne!(
            transfer.next_step(due, clocks),
            Step::Wait,
            "what is due can be done"
        );
        assert_eq!(
            transfer.next_step(due - MILLISECOND, clocks),
            Step::Wait,
            "nothing is owed before it is due"
        );
        assert_ne!(
            transfer.next_step(due + Duration::from_hours(1), clocks),
            Step::Wait,
            "what is due stays due"
        );
    }
    let deadline = transfer.created_at + clocks.hard_deadline;
    match &transfer.phase {
        Phase::Open => assert!(due.unwrap() <= deadline, "the deadline is the last word"),
        Phase::Stopping { reason, since, .. } => {
            let until = if *reason == StopReason::Cancelled {
                clocks.cancel_settle_by
            } else {
                Duration::MAX
            };
            assert!(due.unwrap() <= *since + until, "a cancellation is settled");
        }
        Phase::Settling(_) | Phase::Settled(_) => {}
    }
    if let Some(verdict) = verdict(transfer) {
        let work = &transfer.work;
        if verdict.status == Status::Success {
            assert!(
                work.files_open() == 0 && work.files_failed == 0 && work.counts.balances(),
                "only what is whole is a success"
            );
        } else {
            assert!(verdict.message.contains("Re-run the app migration"));
        }
        if verdict.cause == Cause::Deadline {
            let left = transfer.created_at + clocks::platform::RERUN_WINDOW;
            assert!(
                verdict.decided_at + clocks::own::RERUN_LEFT <= left,
                "a day is left for the re-run"
            );
        }
    }
    assert!(transfer.work.files_ended <= transfer.work.files_known);
    assert!(transfer.last_percent <= 99);
}

/// What holds from one state to the next.
fn check_step(before: &Transfer, input: &Input, after: &Transfer, changed: bool) {
    assert_eq!(changed, before != after, "a change is told");
    let told = entries(Some(before), after, input);
    if !changed {
        assert_eq!(told, [], "nothing new, nothing told");
    }
    assert!(
        rank(&before.phase) <= rank(&after.phase),
        "phases only move down"
    );
    if before.phase.as_str() != after.phase.as_str() {
        assert!(!told.is_empty(), "a change of phase is told");
    }
    if let Some(decided) = verdict(before) {
        assert_eq!(verdict(after), Some(decided), "a verdict never changes");
    } else if verdict(after).is_some() {
        assert!(
            matches!(input, Input::FilesFenced { .. }),
            "a verdict is written when no file can be taken up any more"
        );
    }
    if before.is_settled() {
        let mut allowed = before.clone();
        // Only the platform's own word for the outcome replaces what was inferred, and with it who ended the transfer.
        if let (
            Phase::Settled(settled),
            Phase::Settled(after),
            Input::PlatformSettled { status: Some(_) },
        ) = (&mut allowed.phase, &after.phase, input)
        {
            settled.status.clone_from(&after.status);
            if settled.by == SettledBy::App && after.by == SettledBy::Platform {
                settled.by = SettledBy::Platform;
                settled.form = None;
            }
        }
        assert_eq!(&allowed, after, "nothing happens to what is over");
    }
    assert!(
        before.last_percent <= after.last_percent,
        "a percent never falls"
    );
    if after.is_open() {
        let (was, is) = (&before.work, &after.work);
        assert!(was.files_known <= is.files_known && was.files_ended <= is.files_ended);
        assert!(was.counts.read <= is.counts.read && was.counts.applied <= is.counts.applied);
    }
    if let (
        Phase::Stopping { reason, .. },
        Input::FilesFenced {
            leased_until: None, ..
        },
    ) = (&before.phase, input)
    {
        let ours = !matches!(
            reason,
            StopReason::SettledElsewhere { .. } | StopReason::Superseded { .. }
        );
        assert_eq!(
            (after.phase.as_str(), verdict(after).is_some()),
            (if ours { "SETTLING" } else { "SETTLED" }, ours),
            "fenced files are all that a verdict waits for"
        );
    }
    if let (
        Phase::Stopping { reason, .. },
        Input::FilesFenced {
            leased_until: Some(_),
            ..
        },
    ) = (&before.phase, input)
    {
        assert!(
            rank(&after.phase) == 1 || *reason == StopReason::Cancelled,
            "while a worker may have a delivery under way nothing is decided"
        );
    }
    if let (Phase::Settling(sent), Phase::Settled(settled)) = (&before.phase, &after.phase)
        && settled.by == SettledBy::App
    {
        assert!(sent.attempts > 0, "what was never sent was never taken");
    }
}

/// A state's name, for telling it from others.
fn name(transfer: &Transfer, now: Timestamp) -> u64 {
    struct Into(DefaultHasher);
    impl Write for Into {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hasher = Into(DefaultHasher::new());
    write!(hasher, "{transfer:?}{}", now.as_millis()).unwrap();
    hasher.0.finish()
}

/// What a search has seen.
#[derive(Default)]
struct Seen {
    states: HashSet<u64>,
    steps: usize,
    causes: BTreeSet<&'static str>,
    settled_by: BTreeSet<String>,
}

impl Seen {
    /// Whether the state is a new one.
    fn take(&mut self, node: &Node) -> bool {
        let new = self.states.insert(name(&node.transfer, node.now));
        if let Some(verdict) = verdict(&node.transfer) {
            self.causes.insert(verdict.cause.as_str());
        }
        if let Phase::Settled(settled) = &node.transfer.phase {
            self.settled_by.insert(format!("{:?}", settled.by));
        }
        new
    }

    /// Searches breadth first for every state within so many steps.
    fn search(&mut self, start: Transfer, now: Timestamp, alphabet: Alphabet, depth: usize) {
        let clocks = Clocks::default();
        let start = Node {
            transfer: start,
            now,
            path: Vec::new(),
        };
        self.take(&start);
        let mut frontier = vec![start];
        for _ in 0..depth {
            let mut next = Vec::new();
            for node in &frontier {
                for input in inputs(&node.transfer, node.now, &clocks, alphabet) {
                    self.steps += 1;
                    let mut reached = node.clone();
                    let changed = reached.transfer.apply(input.clone(), node.now, &clocks);
                    let after = node.now.since(START).as_millis();
                    reached.path.push(format!("{after} ms: {input:?}"));
                    explain(&reached, || {
                        check_step(&node.transfer, &input, &reached.transfer, changed);
                    });
                    if changed && self.take(&reached) {
                        explain(&reached, || check_state(&reached, &clocks));
                        next.push(reached);
                    }
                }
                for now in instants(node, &clocks) {
                    self.steps += 1;
                    let reached = Node {
                        now,
                        ..node.clone()
                    };
                    if self.take(&reached) {
                        next.push(reached);
                    }
                }
            }
            frontier = next;
        }
    }
}

/// An input that follows from the transfer that it is given to.
type Then = Box<dyn Fn(&Transfer) -> Input>;

/// Transfers in mid-life, so that few steps lead far: with files, with a manifest, stopping, settling, and on their last day.
fn mid_lives() -> Vec<(Transfer, Timestamp)> {
    let clocks = Clocks::default();
    let after = |inputs: Vec<Then>| {
        let mut transfer = first_seen();
        for input in inputs {
            let input = input(&transfer);
            transfer.apply(input, START, &clocks);
        }
        transfer
    };
    let then = |input: Input| -> Then { Box::new(move |_| input.clone()) };
    let one = Counts {
        read: 1,
        applied: 1,
        ..Counts::default()
    };
    let seen = || -> Then { Box::new(|transfer| seen(transfer, START)) };
    let ends = |counts: Counts, manifest: bool| -> Then {
        Box::new(move |transfer| ended(transfer, START, &FileOutcome::Imported, counts, manifest))
    };
    let imported = || ends(one, false);
    let complete = Input::ExportComplete {
        evidence: Evidence::ExportComplete,
        missing: vec![],
    };
    let settling = after(vec![
        seen(),
        imported(),
        then(Input::ExportPhaseCompleted),
        then(complete),
        then(Input::FilesFenced {
            totals: FileTotals {
                known: 1,
                ended: 1,
                counts: one,
                ..FileTotals::default()
            },
            leased_until: None,
        }),
        then(Input::SettlementBegun),
    ]);
    let stopping = after(vec![
        seen(),
        then(Input::CancelRequested),
        then(Input::FilesFenced {
            totals: FileTotals {
                known: 1,
                counts: one,
                ..FileTotals::default()
            },
            leased_until: Some(START + LEASE),
        }),
    ]);
    let last_day = START + clocks.hard_deadline - Duration::from_mins(1);
    vec![
        (after(vec![seen(), seen()]), START),
        (after(vec![seen(), imported()]), START),
        (after(vec![seen(), ends(Counts::default(), true)]), START),
        (after(vec![seen()]), last_day),
        (after(vec![seen(), imported()]), last_day),
        (stopping, START),
        (settling, START),
    ]
}

/// Says how a state came about before a broken rule ends the test.
fn explain(node: &Node, check: impl FnOnce() + std::panic::UnwindSafe) {
    if let Err(panic) = std::panic::catch_unwind(check) {
        eprintln!("{:#?}\n{:#?}", node.path, node.transfer);
        std::panic::resume_unwind(panic);
    }
}

/// Every cause that a verdict can have.
const CAUSES: [&str; 10] = [
    "cancelled",
    "complete",
    "deadline",
    "exporter_silent",
    "gaps",
    "listener_error",
    "no_file",
    "nothing_usable",
    "poison",
    "work_stale",
];

fn explored(alphabet: Alphabet, deep: usize, shallow: usize) {
    let mut seen = Seen::default();
    seen.search(first_seen(), START, alphabet, deep);
    for (transfer, now) in mid_lives() {
        seen.search(transfer, now, alphabet, shallow);
    }
    eprintln!(
        "{} states by {} steps, {alphabet:?}",
        seen.states.len(),
        seen.steps
    );
    assert_eq!(seen.causes.into_iter().collect::<Vec<_>>(), CAUSES);
    assert_eq!(seen.settled_by.len(), 3, "{:?}", seen.settled_by);
}

#[test]
pub(crate) fn every_state_within_reach_keeps_every_promise_whoever_races() {
    explored(Alphabet::Everything, 4, 3);
}

#[test]
pub(crate) fn every_state_within_reach_of_shells_that_do_what_is_owed_keeps_every_promise() {
    explored(Alphabet::Owed, 5, 4);
}
