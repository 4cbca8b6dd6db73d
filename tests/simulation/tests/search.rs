//! Exhaustive search over interleavings, of the setups that are small enough where nothing is optimised.

use std::process::ExitCode;

use landfall_simulation::search::Setup;
use landfall_simulation::{harness, search};

fn main() -> ExitCode {
    harness::run(&[(
        "every_order_of_the_calls_of_two_workers_two_sweepers_and_a_cancellation_keeps_every_promise",
        |report| {
            let chosen = |setup: &Setup| setup.small || !cfg!(debug_assertions);
            search::run(chosen, 2, report)
        },
    )])
}
