//! Exhaustive search over interleavings: explicit-state model checking of the real handlers, by replay.
//!
//! A few tasks work on one transfer: workers, sweepers, somebody who lets time pass. Each stops before every call; the search
//! decides whose call is carried out next, in every possible order. Two moments are the same state when the models hold the
//! same and every task has seen the same, for a handler's own state follows from what it has seen; a state is entered once.
//! Going back is replaying the path from the beginning. Every write is watched, and from every final state, and from wherever a
//! path comes to a known state and its tasks die there, the rest is done calmly: everything must be settled and right.

mod gate;
mod setups;
mod world;

pub use setups::{Prepared, Setup, TaskKind, setups};

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::scene::Bench;
use crate::search::world::World;

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps from one to another.
    pub transitions: usize,
    /// Steps of the longest path.
    pub depth: usize,
    /// States in which no task could go on.
    pub ends: usize,
    /// States from which the rest was done with every task dead.
    pub crashes: usize,
    /// The first broken promise, with the path to it.
    pub failure: Option<String>,
}

/// Searches these setups, on so many threads, and tells what each came to. Returns whether every promise held.
pub fn run(chosen: impl Fn(&Setup) -> bool, threads: usize, mut report: impl FnMut(&str)) -> bool {
    let setups: Vec<Setup> = setups().into_iter().filter(chosen).collect();
    let next = AtomicUsize::new(0);
    let (sender, results) = channel();
    let mut held = true;
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next, setups) = (sender.clone(), &next, &setups);
            scope.spawn(move || {
                let mut bench = Bench::default();
                while let Some(setup) = setups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = search(setup, &mut bench);
                    if sender.send((setup, found)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (setup, found) in results {
            held &= found.failure.is_none();
            report(&found.words(setup));
        }
    });
    held
}

impl Found {
    fn words(&self, setup: &Setup) -> String {
        let bound = setup.preemptions.map_or_else(
            || "every order".to_owned(),
            |bound| format!("at most {bound} interruptions"),
        );
        let mut words = format!(
            "{} ({bound}): {} states, {} transitions, depth {}, {} ends, {} crashes",
            setup.name, self.states, self.transitions, self.depth, self.ends, self.crashes
        );
        if let Some(failure) = &self.failure {
            let _ = write!(words, "\nFAILED:\n{failure}");
        }
        words
    }
}

/// Searches a setup. The first broken promise ends it.
pub fn search(setup: &Setup, bench: &mut Bench) -> Found {
    let mut found = Found::default();
    let mut known = HashSet::new();
    let mut crashed = HashSet::new();
    let mut paths: Vec<Vec<usize>> = vec![Vec::new()];
    while let Some(mut path) = paths.pop() {
        let mut world = World::new(setup, bench);
        for &task in &path {
            world.step(task);
        }
        found.transitions += usize::from(!path.is_empty());
        let ended = loop {
            let state = (
                world.fingerprint(),
                setup.left(&path, |task| world.may(task)),
            );
            let violations = world.violations();
            if !violations.is_empty() {
                found.failure = Some(world.told(&violations));
                return found;
            }
            let fresh = known.insert(state);
            let choices = setup.choices(&path, world.ready());
            if !fresh || choices.is_empty() {
                break fresh;
            }
            found.depth = found.depth.max(path.len() + 1);
            let (first, others) = (choices[0], &choices[1..]);
            for &other in others {
                let mut path = path.clone();
                path.push(other);
                paths.push(path);
            }
            path.push(first);
            world.step(first);
            found.transitions += 1;
        };
        if !ended && !crashed.insert(world.durable()) {
            continue;
        }
        found.ends += usize::from(ended);
        found.crashes += usize::from(!ended);
        let told = world.told(&[]);
        let violations = world.finish();
        if !violations.is_empty() {
            found.failure = Some(format!(
                "{told}  then calmly to the end\n  {}",
                violations.join("\n  ")
            ));
            return found;
        }
    }
    found.states = known.len();
    found
}
