use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use landfall_clock::Clock;
use landfall_models::TableModel;
use landfall_models::contract::{self as checks, Subject};
use landfall_transfer::clip;

use super::said;
use crate::crashes::first_broken;
use crate::plan::Plan;
use crate::scene::{Bench, Scene, scenes};
use crate::search::{search as search_setup, setups};
use crate::world::World;

/// A broken promise that a layer saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// The check, scene, setup or seed.
    pub at: String,
    /// What was broken, in one line.
    pub violation: String,
}

/// Longest violation that the document quotes.
const VIOLATION_MAX: usize = 130;

impl Caught {
    /// Seen there.
    pub fn new(at: impl Into<String>, violation: impl AsRef<str>) -> Self {
        let line: Vec<&str> = violation.as_ref().split_whitespace().collect();
        let line = line.join(" ");
        let said = line.strip_prefix("assertion `left == right` failed");
        let said = said.map_or(&*line, |said| said.trim_start_matches([':', ' ']));
        Self {
            at: at.into(),
            violation: clip(said, VIOLATION_MAX),
        }
    }
}

/// One layer of the tests.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Its name in the table.
    pub name: &'static str,
    /// Looks for a broken promise: where the guess says, or everywhere when there is none.
    pub look: fn(&mut Bench, Option<&str>) -> Option<Caught>,
}

/// The store's contract, on the table model.
pub const fn contract() -> Layer {
    Layer {
        name: "contract",
        look: look_at_contract,
    }
}

/// Every single fault at every half of every call, and every step twice.
pub const fn crashes() -> Layer {
    Layer {
        name: "crashes",
        look: look_at_scenes,
    }
}

/// Every order of the calls of a few tasks, in the setups that have no bound.
pub const fn search() -> Layer {
    Layer {
        name: "search",
        look: look_at_setups,
    }
}

/// Whole runs by chance.
pub const fn seeds() -> Layer {
    Layer {
        name: "seeds",
        look: look_at_seeds,
    }
}

fn look_at_contract(_: &mut Bench, guess: Option<&str>) -> Option<Caught> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap_or_else(|error| panic!("start a runtime: {error}"));
    let names = checks::NAMES.iter();
    names
        .filter(|name| guess.is_none_or(|guess| guess == **name))
        .find_map(|name| {
            let subject = Subject::on(Arc::new(TableModel::new(Clock::system())));
            let check = AssertUnwindSafe(|| runtime.block_on(checks::run(name, &subject)));
            let panic = catch_unwind(check).err()?;
            Some(Caught::new(*name, said(&*panic)))
        })
}

fn look_at_scenes(bench: &mut Bench, guess: Option<&str>) -> Option<Caught> {
    let mut look = |scene: &Scene, combinations: RangeInclusive<usize>| {
        let broken = first_broken(scene, bench, combinations)?;
        let at = format!("{}, combination {}", scene.name, broken.combination);
        Some(Caught::new(at, broken.words))
    };
    if let Some(guess) = guess {
        let (name, number) = guess.rsplit_once(", combination ")?;
        let number = number.parse().ok()?;
        let scene = scenes().into_iter().find(|scene| scene.name == name)?;
        return look(&scene, number..=number);
    }
    // What is wrong without any fault is seen at once.
    let undisturbed = scenes().iter().find_map(|scene| look(scene, 0..=0));
    undisturbed.or_else(|| {
        scenes()
            .iter()
            .find_map(|scene| look(scene, 1..=usize::MAX))
    })
}

fn look_at_setups(bench: &mut Bench, guess: Option<&str>) -> Option<Caught> {
    setups()
        .iter()
        // The crowds take too long to be asked about every bug.
        .filter(|setup| setup.preemptions.is_none_or(|most| most > 1))
        .filter(|setup| guess.is_none_or(|guess| guess == setup.name))
        .find_map(|setup| {
            let failure = search_setup(setup, bench).failure?;
            let last = failure.lines().last().unwrap_or_default().trim();
            Some(Caught::new(setup.name, last))
        })
}

/// Seeds that are run for a bug before it counts as not noticed.
const SEEDS: u64 = 1_000;

fn look_at_seeds(_: &mut Bench, guess: Option<&str>) -> Option<Caught> {
    let seeds = match guess {
        Some(seed) => {
            let seed = seed.trim_start_matches("seed ").parse().ok()?;
            seed..=seed
        }
        None => 0..=SEEDS - 1,
    };
    seeds.into_iter().find_map(|seed| {
        let outcome = World::run(&Plan::of(seed), false);
        let violation = outcome.violations.first()?;
        Some(Caught::new(format!("seed {seed}"), violation))
    })
}
