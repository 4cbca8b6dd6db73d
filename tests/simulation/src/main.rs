//! Runs the simulation from the command line: `make simulate`.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool that says what it found"
)]

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use landfall_simulation::crashes;
use landfall_simulation::plan::Plan;
use landfall_simulation::search;
use landfall_simulation::shrink::shrink;
use landfall_simulation::world::{Outcome, World};

/// Landfall's own functions against models of the platform, the table and the queues, in virtual time, with everything going wrong.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; a failing one is made small, shown, and kept as a regression test.
    Seeds {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Without the sweeper, to see what it is for: stuck transfers are counted and no failure.
        #[arg(long)]
        without_sweeper: bool,
        /// Where a failing plan is kept.
        #[arg(long, default_value = "tests/simulation/regressions")]
        keep_in: PathBuf,
    },
    /// Lets everything that can go wrong go wrong at every half of every call, in small fixed scenes.
    Crashes {
        /// Only in the scenes whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// Pairs of faults instead of single ones, in the scenes that are short or that `--only` names; those of a long scene take hours.
        #[arg(long)]
        pairs: bool,
    },
    /// Searches every order of the calls of a few tasks; the largest setups with a bound on interruptions.
    Search {
        /// Only the setups whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Runs one seed and prints what happened.
    Show {
        /// The seed.
        seed: u64,
    },
    /// Runs a plan that was kept, and prints what happened.
    Replay {
        /// Its file.
        plan: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Seeds {
            seeds,
            from,
            without_sweeper,
            keep_in,
        } => run_seeds(from, seeds, without_sweeper, &keep_in),
        Command::Crashes { only, pairs } => {
            let suite = if pairs {
                crashes::Suite::Pairs
            } else {
                crashes::Suite::Single
            };
            let summary = crashes::run(suite, &only, threads(), |line| println!("{line}"));
            Ok(summary.scenes > 0 && summary.failed == 0)
        }
        Command::Search { only } => {
            let chosen = |setup: &search::Setup| setup.name.contains(&only);
            Ok(search::run(chosen, threads(), |line| println!("{line}")))
        }
        Command::Show { seed } => show(&Plan::of(seed)),
        Command::Replay { plan } => read(&plan).and_then(|plan| show(&plan)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a plan is an argument of this tool"
)]
fn read(path: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the plan {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("understand the plan {}", path.display()))
}

fn show(plan: &Plan) -> anyhow::Result<bool> {
    let outcome = World::run(plan, true);
    let text = serde_json::to_string_pretty(plan).context("write the plan down")?;
    println!("{text}\n\n{}", outcome.trace);
    tell(&outcome);
    Ok(outcome.violations.is_empty())
}

fn tell(outcome: &Outcome) {
    for violation in &outcome.violations {
        println!("BROKEN: {violation}");
    }
    println!(
        "{} transfers, {} invocations, {} faults, {} stuck",
        outcome.transfers, outcome.invocations, outcome.faults, outcome.stuck
    );
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    transfers: u64,
    invocations: u64,
    faults: u64,
    stuck: u64,
    runs_with_stuck: u64,
    longest_recovery: Duration,
    failing: BTreeMap<u64, Vec<String>>,
}

/// Failing seeds after which the rest is not run.
const FAILING_MAX: usize = 3;

fn run_seeds(from: u64, seeds: u64, without_sweeper: bool, keep_in: &Path) -> anyhow::Result<bool> {
    let bar = ProgressBar::new(seeds).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left {msg}")
            .context("set up the progress bar")?,
    );
    let plan_of = |seed| Plan {
        sweeper: !without_sweeper,
        ..Plan::of(seed)
    };
    let (next, enough, sum) = (
        AtomicU64::new(from),
        AtomicBool::new(false),
        Mutex::new(Sum::default()),
    );
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = World::run(&plan_of(seed), false);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(seed, outcome);
                    if sum.failing.len() >= FAILING_MAX {
                        enough.store(true, Ordering::Relaxed);
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{seeds} seeds from {from}: {} violations; {} transfers, {} invocations, {} faults; {} stuck in {} runs; slowest recovery {} s",
        sum.failing.len(),
        sum.transfers,
        sum.invocations,
        sum.faults,
        sum.stuck,
        sum.runs_with_stuck,
        sum.longest_recovery.as_secs()
    );
    for (seed, violations) in &sum.failing {
        println!("\nseed {seed} breaks a promise: {}", violations.join("; "));
    }
    if let Some((seed, _)) = sum.failing.first_key_value() {
        keep(*seed, &plan_of(*seed), keep_in)?;
    }
    Ok(sum.failing.is_empty())
}

/// Makes a failing plan small, prints its timeline, and keeps it where the regression test finds it.
fn keep(seed: u64, plan: &Plan, keep_in: &Path) -> anyhow::Result<()> {
    println!("\nmaking seed {seed} smaller …");
    let Some((smallest, outcome)) = shrink(plan) else {
        return Ok(());
    };
    println!("{}", outcome.trace);
    tell(&outcome);
    let path = keep_in.join(format!("seed-{seed}.json"));
    let text = serde_json::to_string_pretty(&smallest).context("write the plan down")?;
    std::fs::create_dir_all(keep_in).context("make the folder for failing plans")?;
    std::fs::write(&path, text + "\n").context("keep the plan")?;
    println!(
        "kept as {}: give it a name that says what happened; `cargo test -p landfall-simulation` runs it from now on",
        path.display()
    );
    Ok(())
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.transfers += outcome.transfers;
        self.invocations += outcome.invocations;
        self.faults += outcome.faults;
        self.stuck += outcome.stuck;
        self.runs_with_stuck += u64::from(outcome.stuck > 0);
        self.longest_recovery = self.longest_recovery.max(outcome.recovery);
        if !outcome.violations.is_empty() {
            self.failing.insert(seed, outcome.violations);
        }
    }
}
