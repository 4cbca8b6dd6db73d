//! Crash enumeration: every single fault, every doubled step, and pairs of faults; where nothing is optimised, less of it.

use std::process::ExitCode;

use landfall_simulation::crashes::{Suite, run};
use landfall_simulation::harness;

fn main() -> ExitCode {
    harness::run(&[
        (
            "whatever_goes_wrong_at_whichever_half_of_a_call_every_promise_is_kept",
            |report| {
                let suite = if cfg!(debug_assertions) {
                    Suite::Short
                } else {
                    Suite::Single
                };
                run(suite, "", 2, report).failed == 0
            },
        ),
        (
            "two_deaths_or_lost_calls_wherever_they_happen_break_no_promise",
            |report| {
                if cfg!(debug_assertions) {
                    report("left to the optimised build: there are too many");
                    return true;
                }
                run(Suite::Pairs, "", 2, report).failed == 0
            },
        ),
    ])
}
