//! probe
#![allow(clippy::print_stdout, reason = "it is its own harness")]
use landfall_clock::Clock;
use landfall_simulation::scene::Bench;
use landfall_simulation::search::{search, setups};
fn main() {
    let only: Option<usize> = std::env::args().nth(1).and_then(|a| a.parse().ok());
    for (n, setup) in setups().into_iter().enumerate() {
        if only.is_some_and(|o| o != n) { continue; }
        let clock = Clock::system();
        let found = search(&setup, &mut Bench::default());
        println!("{}: {} states {} transitions depth {} ends {} crashes {} in {:?}", setup.name, found.states, found.transitions, found.depth, found.ends, found.crashes, clock.monotonic());
        if let Some(f) = found.failure { println!("FAILED\n{f}"); }
    }
}
