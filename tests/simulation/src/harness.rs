//! A harness for suites whose numbers are to be seen: the one that comes with cargo shows nothing of a test that passes.

use std::process::ExitCode;

use landfall_clock::Clock;

/// A test: it tells its numbers, and whether every promise held.
pub type Test = fn(&mut dyn FnMut(&str)) -> bool;

/// Runs the tests whose names contain the first argument, and ends with the line that cargo's harness ends with.
#[expect(clippy::print_stdout, reason = "it is a harness")]
pub fn run(tests: &[(&str, Test)]) -> ExitCode {
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let chosen = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter));
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    println!("\nrunning {} tests", tests.len());
    let all = Clock::system();
    for (name, test) in tests {
        if !chosen(name) {
            left_out += 1;
            continue;
        }
        let clock = Clock::system();
        let held = test(&mut |line| println!("  {line}"));
        *(if held { &mut passed } else { &mut failed }) += 1;
        let word = if held { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({:.1} s)",
            clock.monotonic().as_secs_f64()
        );
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
        all.monotonic().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}
