//! The program from outside: what it prints of a function that works, and that it ends with one that doesn't.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::process::{Command, Output};

use serde_json::Value;

fn measure(arguments: &[&str]) -> Output {
    let few = "--rounds=2 --starts=2 --invocations=3 --warm-up=1";
    Command::new(env!("CARGO_BIN_EXE_landfall-footprint"))
        .arg("measure")
        .args(["--empty", env!("CARGO_BIN_EXE_landfall-empty")])
        .args(["--functions", "nowhere"])
        .args(few.split(' '))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_empty_function_starts_answers_and_calls_nobody() {
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/footprint.json");
    let output = measure(&["--only", "empty", "--json", file]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("spawn to first poll, ms"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let function = &report["functions"][0];
    assert_eq!(function["name"], "empty");
    let figure = |name: &str, part: &str| function["figures"][name][part].as_f64().unwrap();
    for (name, count) in [
        ("spawn_to_poll_ms", 4.0),
        ("first_ms", 4.0),
        ("rss_mib", 2.0),
    ] {
        assert!((figure(name, "count") - count).abs() < 1e-9, "{name}");
        assert!(figure(name, "min") > 0.0, "{name}");
    }
    for name in [
        "cpu_per_1000_before_ms",
        "cpu_per_1000_ms",
        "warm_rested_ms",
    ] {
        assert!(figure(name, "median") > 0.0, "{name}");
    }
    let to_rested = figure("first_ms", "median") / figure("warm_rested_ms", "median");
    assert!((figure("first_to_rested", "median") - to_rested).abs() < 1e-9);
    assert!(figure("connections", "max") < 1e-9);
    assert_eq!(function["calls"], serde_json::json!({}));
}

#[test]
fn a_command_that_ends_too_soon_ends_the_run_with_what_it_said() {
    let output = measure(&["--only=broken", "--beside=broken=ls /nowhere"]);
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("measure broken in round 1"), "{errors}");
    assert!(errors.contains("before its first poll"), "{errors}");
    assert!(errors.contains("/nowhere"), "{errors}");
}

#[test]
fn a_name_that_no_function_has_is_refused() {
    let output = measure(&["--only=nothing"]);
    assert!(!output.status.success());
}
