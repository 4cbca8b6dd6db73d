//! Crash enumeration: every single fault and every doubled step, where nothing is optimised in the short scenes only.

use std::process::ExitCode;

use landfall_simulation::crashes::{Suite, run};
use landfall_simulation::harness;

fn main() -> ExitCode {
    harness::run(&[(
        "whatever_goes_wrong_at_whichever_half_of_a_call_every_promise_is_kept",
        |report| {
            let suite = if cfg!(debug_assertions) {
                Suite::Short
            } else {
                Suite::Single
            };
            run(suite, "", 2, report).failed == 0
        },
    )])
}
