//! What these tests notice of the planted bugs: the column `core` of `docs/seeded-bugs.md`.

use std::panic::catch_unwind;

use landfall_transfer::clip;
use landfall_transfer::seeded_bugs::{SeededBug, plant};

use crate::{model, orders, verdicts};

/// The tests, the fastest first.
const TESTS: [(&str, fn()); 4] = [
    (
        "every_combination_of_facts_ends_as_the_rules_say_and_when_they_say_it",
        verdicts::every_combination_of_facts_ends_as_the_rules_say_and_when_they_say_it,
    ),
    (
        "every_order_of_up_to_six_events_ends_as_the_rules_say",
        orders::every_order_of_up_to_six_events_ends_as_the_rules_say,
    ),
    (
        "every_state_within_reach_keeps_every_promise_whoever_races",
        model::every_state_within_reach_keeps_every_promise_whoever_races,
    ),
    (
        "every_state_within_reach_of_shells_that_do_what_is_owed_keeps_every_promise",
        model::every_state_within_reach_of_shells_that_do_what_is_owed_keeps_every_promise,
    ),
];

/// Longest violation that the document quotes.
const VIOLATION_MAX: usize = 130;

const DOCUMENT: &str = include_str!("../../../../docs/seeded-bugs.md");

/// The line about this bug that stands in the document, if one does.
fn written(bug: SeededBug) -> Option<&'static str> {
    let (_, rest) = DOCUMENT.split_once(&format!("\n### {}\n", bug.name()))?;
    let section = rest.split("\n### ").next()?;
    section.lines().find(|line| line.starts_with("* core: "))
}

/// The first test that fails with this bug, as the document says it.
fn noticed(bug: SeededBug, first: Option<&str>) -> Option<String> {
    let _planted = plant(Some(bug));
    let is_first = |name: &str| first.is_some_and(|line| line.contains(name));
    let (likely, others): (Vec<_>, Vec<_>) = TESTS.iter().partition(|(name, _)| is_first(name));
    likely.into_iter().chain(others).find_map(|(name, test)| {
        let panic = catch_unwind(test).err()?;
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = said.trim_start_matches("assertion `left == right` failed: ");
        Some(format!("* core: `{name}`: {}", clip(said, VIOLATION_MAX)))
    })
}

#[test]
fn the_core_notices_the_bugs_that_the_document_says_it_does() {
    let mut wrong = Vec::new();
    for bug in SeededBug::ALL {
        let written = written(*bug);
        // Whoever isn't noticed is looked for everywhere, which takes its time where nothing is optimised.
        if written.is_none() && cfg!(debug_assertions) {
            continue;
        }
        let noticed = noticed(*bug, written);
        // The place counts; what is said there may change with the code.
        let place =
            |line: Option<&str>| line.and_then(|line| line.split('`').nth(1).map(str::to_owned));
        if place(noticed.as_deref()) != place(written) {
            wrong.push(format!(
                "{}: {noticed:?} instead of {written:?}",
                bug.name()
            ));
        }
    }
    assert_eq!(
        wrong,
        Vec::<String>::new(),
        "docs/seeded-bugs.md is to be changed"
    );
}
