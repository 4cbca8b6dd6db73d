//! Plans that once broke a promise, each in a file that is named after what happened.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by panicking, and reads its own files"
)]

use landfall_simulation::plan::Plan;
use landfall_simulation::world::World;

#[test]
fn every_plan_that_once_failed_holds_now() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no plan was kept in {folder}");
    for path in names {
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let outcome = World::run(&plan, false);
        assert_eq!(
            outcome.violations,
            Vec::<String>::new(),
            "{}",
            path.display()
        );
    }
}
