//! Makes a failing plan small, so that a person can read what happened.

use crate::plan::{Delivery, Plan};
use crate::world::{Outcome, World};

/// Runs that shrinking may take.
const RUNS_MAX: u32 = 3_000;

/// Seeds that the smallest plan is tried with for a shorter trace.
const SEEDS_TRIED: u64 = 60;

/// The smallest plan found that still breaks the same promise, and its outcome with a trace. None when the plan breaks none.
pub fn shrink(plan: &Plan) -> Option<(Plan, Outcome)> {
    let mut search = Search {
        kind: kind(&World::run(plan, false))?,
        runs: 0,
    };
    let mut smallest = plan.clone();
    // What happened may depend on chance alone; as long as something gets smaller it is worth another round.
    while let Some(smaller) = candidates(&smallest)
        .into_iter()
        .find(|candidate| search.still_fails(candidate))
    {
        smallest = smaller;
    }
    let shortest = (0..SEEDS_TRIED)
        .map(|seed| Plan {
            seed,
            ..smallest.clone()
        })
        .chain([smallest.clone()])
        .filter(|candidate| search.still_fails(candidate))
        .map(|candidate| {
            let outcome = World::run(&candidate, true);
            (candidate, outcome)
        })
        .min_by_key(|(_, outcome)| outcome.trace.lines().count());
    shortest.or_else(|| {
        let outcome = World::run(&smallest, true);
        Some((smallest, outcome))
    })
}

struct Search {
    kind: String,
    runs: u32,
}

impl Search {
    fn still_fails(&mut self, plan: &Plan) -> bool {
        self.runs += 1;
        self.runs <= RUNS_MAX && kind(&World::run(plan, false)).as_ref() == Some(&self.kind)
    }
}

/// What is broken, without the names of those it happened to.
fn kind(outcome: &Outcome) -> Option<String> {
    let first = outcome.violations.first()?;
    let words = first
        .split_once(": ")
        .map_or(first.as_str(), |(_, words)| words);
    Some(
        words
            .split_whitespace()
            .take(4)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Plans that are a little smaller, the boldest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut candidate = plan.clone();
        change(&mut candidate);
        if candidate != *plan {
            all.push(candidate);
        }
    };
    for place in 0..plan.migrations.len() {
        with(&|plan| {
            plan.migrations.remove(place);
        });
    }
    with(&|plan| plan.outages.clear());
    with(&|plan| plan.jumps.clear());
    with(&|plan| plan.deploy = None);
    with(&|plan| plan.double_sweeps = 0);
    with(&|plan| plan.missed_sweeps = 0);
    with(&|plan| plan.percent = 0);
    with(&|plan| plan.listed_for = 0);
    with(&|plan| plan.ranges = true);
    let rates: [&dyn Fn(&mut Plan); 11] = [
        &|plan| plan.faults.throttled = 0,
        &|plan| plan.faults.contended = 0,
        &|plan| plan.faults.lost_before = 0,
        &|plan| plan.faults.lost_after = 0,
        &|plan| plan.faults.repeated = 0,
        &|plan| plan.faults.die_before = 0,
        &|plan| plan.faults.die_after = 0,
        &|plan| plan.faults.twice = 0,
        &|plan| plan.faults.hang_ms = 0,
        &|plan| plan.faults.index_lag_ms = 0,
        &|plan| plan.faults.latency_ms = 0,
    ];
    for rate in rates {
        with(rate);
    }
    for most in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
        if most < plan.faults_at_most {
            with(&|plan| plan.faults_at_most = most);
        }
    }
    for place in 0..plan.migrations.len() {
        let migration = &plan.migrations[place];
        with(&|plan| plan.migrations[place].cancelled = None);
        with(&|plan| plan.migrations[place].ended = None);
        with(&|plan| plan.migrations[place].rerun = None);
        with(&|plan| plan.migrations[place].starts = 0);
        with(&|plan| {
            plan.migrations[place].events = Delivery {
                lost: 0,
                repeated: 0,
                delay: 0,
                attempts: 12,
            };
        });
        for file in 0..migration.files.len() {
            with(&|plan| {
                plan.migrations[place].files.remove(file);
            });
            with(&|plan| plan.migrations[place].files[file].records /= 2);
            with(&|plan| plan.migrations[place].files[file].unmapped = 0);
            with(&|plan| plan.migrations[place].files[file].broken = 0);
            with(&|plan| plan.migrations[place].files[file].poison = false);
        }
    }
    with(&|plan| plan.calm_at /= 2);
    all
}
