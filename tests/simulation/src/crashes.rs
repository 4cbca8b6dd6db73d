//! Crash enumeration: in every scene everything that can go wrong goes wrong at every half of every call, once alone, in the short
//! scenes in pairs; and every step runs twice. Afterwards the machines come back, the rest is done, and every promise is checked.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use landfall_models::Fate;

use crate::machine::Turn;
use crate::scene::{Bench, Doubled, End, Half, Outcome, Plot, Scene, scenes};

/// How much later than undisturbed a transfer may be settled when something went wrong once or twice: a message that is hidden
/// for three minutes as often as it is handed out, an event that the platform sends again, and two sweeps.
const LATEST: Duration = Duration::from_mins(45);

/// The largest shift between the two runs of a doubled step, in milliseconds; a call takes two.
const SHIFTS: u64 = 40;

/// A shift after which the first run is over.
const IN_A_ROW: u64 = 3_000;

/// Failing combinations of a scene that are told in full.
const TOLD_MAX: usize = 3;

/// Failing combinations after which a scene has said enough.
const FAILED_MAX: usize = 20;

/// Which combinations to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Every single fault, and every step twice, in the scenes that are short.
    Short,
    /// Every single fault, and every step twice, in all scenes.
    Single,
    /// Every pair of deaths, lost writes and lost answers, in the scenes that are short.
    Pairs,
}

/// What a suite came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Scenes.
    pub scenes: usize,
    /// Combinations that were run.
    pub combinations: usize,
    /// Combinations that broke a promise.
    pub failed: usize,
    /// How much later than undisturbed a transfer was settled at worst.
    pub slowest: Duration,
}

/// One combination.
#[derive(Clone, Debug, Default)]
struct Combination {
    wrong: Vec<(usize, Turn)>,
    doubled: Option<Doubled>,
}

/// The undisturbed run, which every other is compared with.
struct Baseline {
    halves: Vec<Half>,
    outcome: Outcome,
}

/// A combination that broke a promise.
struct Failure {
    combination: Combination,
    violations: Vec<String>,
}

/// What some combinations of one scene came to.
#[derive(Default)]
struct Tally {
    combinations: usize,
    slowest: Duration,
    failures: Vec<Failure>,
}

/// Runs a suite on so many threads, in the scenes whose names contain `only`; one that is asked for need not be short. Tells each scene's numbers, and each failure in
/// full.
pub fn run(suite: Suite, only: &str, threads: usize, mut report: impl FnMut(&str)) -> Summary {
    let mut benches: Vec<Bench> = (0..threads.max(1)).map(|_| Bench::default()).collect();
    let mut summary = Summary::default();
    for scene in scenes() {
        let left_out = suite != Suite::Single && !scene.short && only.is_empty();
        if left_out || !scene.name.contains(only) {
            continue;
        }
        let tally = run_scene(suite, &scene, &mut benches, &mut report);
        summary.scenes += 1;
        summary.combinations += tally.combinations;
        summary.failed += tally.failures.len();
        summary.slowest = summary.slowest.max(tally.slowest);
    }
    report(&format!(
        "{} scenes, {} combinations, {} failed; the slowest settlement came {} min late",
        summary.scenes,
        summary.combinations,
        summary.failed,
        summary.slowest.as_secs().div_ceil(60)
    ));
    summary
}

fn run_scene(
    suite: Suite,
    scene: &Scene,
    benches: &mut [Bench],
    report: &mut impl FnMut(&str),
) -> Tally {
    let baseline = undisturbed(scene, &mut benches[0]);
    let mut tally = Tally::default();
    tally.take(scene, &baseline, Combination::default(), &baseline.outcome);
    let combinations = match suite {
        Suite::Short | Suite::Single => singles(&baseline),
        Suite::Pairs => deaths(&baseline.halves, 0)
            .map(|wrong| Combination {
                wrong: vec![wrong],
                doubled: None,
            })
            .collect(),
    };
    // Whoever is free takes the next one: their lengths differ.
    let next = AtomicUsize::new(0);
    let next_combination = || combinations.get(next.fetch_add(1, Ordering::Relaxed));
    let work = |bench: &mut Bench| {
        let mut tally = Tally::default();
        while tally.failures.len() < FAILED_MAX
            && let Some(combination) = next_combination()
        {
            match suite {
                Suite::Pairs => tally.pairs(scene, &baseline, bench, combination),
                _ => tally.one(scene, &baseline, bench, combination.clone()),
            }
        }
        tally
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = benches
            .iter_mut()
            .map(|bench| scope.spawn(|| work(bench)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(some) => tally.add(some),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    report(&format!(
        "{}: {} halves of calls, {} combinations, {} failed, at worst {} min late",
        scene.name,
        baseline.halves.len(),
        tally.combinations,
        tally.failures.len(),
        tally.slowest.as_secs().div_ceil(60)
    ));
    for failure in tally.failures.iter().take(TOLD_MAX) {
        report(&in_full(scene, &mut benches[0], failure));
    }
    tally
}

fn undisturbed(scene: &Scene, bench: &mut Bench) -> Baseline {
    let plot = Arc::new(Plot::new(Vec::new(), scene.slow).recording());
    let outcome = bench.run(scene, Arc::clone(&plot) as _, None, false);
    Baseline {
        halves: plot.halves(),
        outcome,
    }
}

/// A combination that broke a promise, for whoever wants no more than one.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its number; 0 is the undisturbed run.
    pub combination: usize,
    /// What went wrong, and what that broke.
    pub words: String,
}

/// The first broken promise of some combinations of a scene. Everything happens in the calling thread.
pub fn first_broken(
    scene: &Scene,
    bench: &mut Bench,
    some: RangeInclusive<usize>,
) -> Option<Broken> {
    let baseline = undisturbed(scene, bench);
    let undisturbed = std::iter::once(Combination::default());
    for (number, combination) in undisturbed.chain(singles(&baseline)).enumerate() {
        if !some.contains(&number) {
            continue;
        }
        let mut tally = Tally::default();
        tally.one(scene, &baseline, bench, combination);
        if let Some(failure) = tally.failures.first() {
            let wrong = failure.combination.words(&baseline.halves);
            let violation = failure.violations.first().map_or("", String::as_str);
            return Some(Broken {
                combination: number,
                words: format!("{wrong}{violation}"),
            });
        }
    }
    None
}

/// Every single fault, and every step twice.
fn singles(baseline: &Baseline) -> Vec<Combination> {
    let faults = baseline
        .halves
        .iter()
        .enumerate()
        .flat_map(|(place, half)| {
            let wrongs = half.wrongs().into_iter();
            wrongs.map(move |turn| Combination {
                wrong: vec![(place, turn)],
                doubled: None,
            })
        });
    let steps = (0..baseline.outcome.steps).map(Some).chain([None]);
    let doubled = steps.flat_map(|step| {
        (0..=SHIFTS)
            .chain([IN_A_ROW])
            .map(move |later_ms| Combination {
                wrong: Vec::new(),
                doubled: Some(Doubled { step, later_ms }),
            })
    });
    faults.chain(doubled).collect()
}

/// Deaths, lost writes and lost answers from a half on.
fn deaths(halves: &[Half], from: usize) -> impl Iterator<Item = (usize, Turn)> {
    let some = halves.iter().enumerate().skip(from);
    some.flat_map(|(place, half)| {
        let wrongs = half.wrongs().into_iter();
        wrongs
            .filter(|turn| match turn {
                Turn::Die | Turn::Go(Fate::LostAfter) => true,
                Turn::Go(fate) => *fate == Fate::LostBefore && half.call.writes,
            })
            .map(move |turn| (place, turn))
    })
}

impl Combination {
    /// What goes wrong in it, as the beginning of a sentence about what that breaks.
    fn words(&self, halves: &[Half]) -> String {
        let faults = self.wrong.iter().filter_map(|(place, turn)| {
            let half = halves.get(*place)?;
            Some(half.words(*turn))
        });
        let doubled = self.doubled.map(|doubled| match doubled.step {
            Some(step) => format!("step {step} runs twice, {} ms apart", doubled.later_ms),
            None => format!("every step runs twice, {} ms apart", doubled.later_ms),
        });
        let mut words: Vec<String> = faults.chain(doubled).collect();
        words.push(String::new());
        words.join(": ")
    }

    /// What decides its run. Steps that run at once take turns.
    fn plot(&self, scene: &Scene) -> Plot {
        let plot = Plot::new(self.wrong.clone(), scene.slow);
        if self.doubled.is_some() {
            plot.ticking()
        } else {
            plot
        }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.combinations += other.combinations;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
    }

    fn one(
        &mut self,
        scene: &Scene,
        baseline: &Baseline,
        bench: &mut Bench,
        combination: Combination,
    ) {
        let plot = Arc::new(combination.plot(scene));
        let outcome = bench.run(scene, plot, combination.doubled, false);
        self.take(scene, baseline, combination, &outcome);
    }

    /// A first fault, and after it every second one. The second is counted in the run that the first has disturbed.
    fn pairs(
        &mut self,
        scene: &Scene,
        baseline: &Baseline,
        bench: &mut Bench,
        first: &Combination,
    ) {
        let plot = Arc::new(first.plot(scene).recording());
        let outcome = bench.run(scene, Arc::clone(&plot) as _, None, false);
        self.take(scene, baseline, first.clone(), &outcome);
        let after = first.wrong.first().map_or(0, |(place, _)| place + 1);
        for second in deaths(&plot.halves(), after) {
            let mut both = first.clone();
            both.wrong.push(second);
            self.one(scene, baseline, bench, both);
        }
    }

    /// Counts a run, and keeps it when it broke a promise.
    fn take(
        &mut self,
        scene: &Scene,
        baseline: &Baseline,
        combination: Combination,
        outcome: &Outcome,
    ) {
        self.combinations += 1;
        let late = outcome
            .settled_after
            .saturating_sub(baseline.outcome.settled_after);
        self.slowest = self.slowest.max(late);
        let mut violations = outcome.violations.clone();
        if late > LATEST {
            let minutes = late.as_secs() / 60;
            violations.push(format!("a transfer was settled {minutes} min late"));
        }
        for (id, end) in &outcome.ends {
            let wanted = baseline.outcome.ends.get(id);
            if wanted != Some(end) && !may_end(scene, id, end) {
                violations.push(format!(
                    "{id} ended as {end:?} and undisturbed as {wanted:?}"
                ));
            }
        }
        if !violations.is_empty() {
            self.failures.push(Failure {
                combination,
                violations,
            });
        }
    }
}

/// Whether the rules allow an end beside the undisturbed one.
fn may_end(scene: &Scene, id: &str, end: &End) -> bool {
    let also = scene.also.iter();
    also.into_iter()
        .any(|(of, status, cause)| *of == id && *status == end.status && *cause == end.cause)
}

/// A failure with its faults in words, what it broke, and what happened.
fn in_full(scene: &Scene, bench: &mut Bench, failure: &Failure) -> String {
    let combination = &failure.combination;
    let plot = Arc::new(combination.plot(scene).recording());
    let outcome = bench.run(scene, Arc::clone(&plot) as _, combination.doubled, true);
    let halves = plot.halves();
    let mut text = format!("\nFAILED: {}\n", scene.name);
    for (place, turn) in &combination.wrong {
        let words = halves
            .get(*place)
            .map_or_else(String::new, |half| half.words(*turn));
        let _ = writeln!(text, "  fault at half {place}: {words}");
    }
    if let Some(Doubled { step, later_ms }) = combination.doubled {
        let step = step.map_or_else(|| "every step".to_owned(), |step| format!("step {step}"));
        let _ = writeln!(text, "  {step} runs twice, {later_ms} ms apart");
    }
    for violation in &failure.violations {
        let _ = writeln!(text, "  {violation}");
    }
    text + &outcome.trace
}
