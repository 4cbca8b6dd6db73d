//! The simulation itself: that it is exact, and that the sweeper is both necessary and sufficient.

use landfall_simulation::plan::Plan;
use landfall_simulation::world::{Outcome, World};

const SEEDS: std::ops::Range<u64> = 0..40;

fn run(seed: u64, sweeper: bool) -> Outcome {
    let plan = Plan {
        sweeper,
        ..Plan::of(seed)
    };
    World::run(&plan, false)
}

#[test]
fn a_seed_replays_exactly() {
    for seed in SEEDS.step_by(10) {
        let plan = Plan::of(seed);
        let (first, again) = (World::run(&plan, true), World::run(&plan, true));
        assert!(!first.trace.is_empty());
        assert_eq!(first.trace, again.trace, "seed {seed}");
    }
}

#[test]
fn with_the_sweeper_off_transfers_are_stuck() {
    let stuck: u64 = SEEDS.map(|seed| run(seed, false).stuck).sum();
    assert!(stuck > 0, "without a sweeper nothing was stuck");
}

#[test]
fn with_the_sweeper_on_none_is_stuck_and_every_promise_holds() {
    for seed in SEEDS {
        let outcome = run(seed, true);
        assert_eq!(outcome.stuck, 0, "seed {seed}");
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
    }
}
