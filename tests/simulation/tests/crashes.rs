//! Crash enumeration, with its numbers: no harness, so that they are seen.

#![allow(clippy::print_stdout, reason = "it is its own harness")]

use landfall_clock::Clock;
use landfall_simulation::crashes::{Suite, run};

fn main() {
    let clock = Clock::system();
    let pairs = std::env::args().any(|a| a == "pairs");
    let suite = if pairs { Suite::Pairs } else { Suite::Single };
    let summary = run(suite, 2, |line| println!("{line}"));
    println!("in {:?}", clock.monotonic());
    let passed = u32::from(summary.failed == 0);
    println!(
        "test result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        if passed == 1 { "ok" } else { "FAILED" },
        1 - passed
    );
    assert_eq!(summary.failed, 0, "a promise was broken");
}
