//! What migrations cost in which everything works, counted in calls, units and messages by the services' own rules, and held to
//! `tests/budgets`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and what it counted"
)]

mod counts;
mod crowd;
mod happy;

use std::collections::BTreeMap;
use std::time::Duration;

use counts::{Counts, Function};
use happy::{Deployment, Migrated, Migration, SETTLED, Target};
use landfall_budgets::budget;
use landfall_models::Effect;
use serde::Serialize;

/// A file of a batch, and nothing to look up.
const HAPPY: Migration = Migration {
    files: 1,
    records: 10,
    target: Target::Outside,
};

/// The file that stands for all others of its transfer: the first ones are dearer.
const TYPICAL: usize = 5;

/// What is the ledger's, of the rows that a file writes.
const LEDGER: [&str; 2] = ["segment", "record"];

/// What is written by the calls to a site, however many files they are for.
const PACE: &str = "pace";

fn migrate(migration: Migration) -> Migrated {
    Deployment::start(&migration).migrate(migration)
}

fn typical_file() -> Counts {
    migrate(Migration { files: 10, ..HAPPY }).file(TYPICAL)
}

/// What intake did for an event of a site that it knew already.
fn warm_event(about: &str) -> Counts {
    let migrated = migrate(Migration { files: 10, ..HAPPY });
    let is_warm = |step: &&counts::Step| {
        step.function == Function::Intake
            && step.about == about
            && !step.calls.contains_key("table.get")
    };
    let step = migrated.steps.iter().rfind(is_warm).unwrap();
    migrated.counts_of([step])
}

#[test]
fn an_event_of_a_site_that_is_known_is_one_put_and_one_message_and_nothing_else() {
    for event in ["app-data-uploaded", SETTLED] {
        let counts = warm_event(event);
        let queues: u64 = counts.queues.values().map(|queue| queue.sends).sum();
        let all: u64 = counts
            .functions
            .values()
            .flat_map(|work| work.calls.values())
            .sum();
        let puts = counts.calls("table.write");
        budget("intake.event.table_calls").holds(puts);
        budget("intake.event.sends").holds(queues);
        budget("intake.event.other_calls").holds(all - puts - queues);
        budget("intake.event.index_units").holds(counts.without(&[]).index_write_units);
    }
}

#[test]
fn an_event_is_put_and_sent_at_the_same_time() {
    // In a row each would wait for the other until intake's patience with it ends.
    let took = happy::time_of_two_writes_that_wait_for_each_other();
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn a_file_costs_no_more_writes_than_its_budgets_say() {
    let counts = typical_file();
    println!("a file:\n{counts}");
    let ledger = LEDGER.iter().filter_map(|kind| counts.rows.get(kind));
    budget("transfer.file.ledger_writes").holds(ledger.map(|rows| rows.writes).sum::<u64>());
    let rows = counts.without(&[LEDGER[0], LEDGER[1], PACE]);
    budget("transfer.file.writes").holds(rows.writes);
    budget("transfer.file.refused_writes").holds(rows.checks);
    budget("transfer.file.write_units").holds(rows.write_units);
    budget("transfer.file.index_writes").holds(rows.index_write_units);
    budget("transfer.file.reads").holds(rows.reads);
    let platform = counts.functions.values().flat_map(|work| &work.calls);
    let platform = platform.filter(|(name, _)| name.starts_with("platform."));
    budget("transfer.file.platform_calls").holds(platform.map(|(_, times)| times).sum::<u64>());
    let requests = counts
        .queues
        .values()
        .map(|queue| queue.sends + queue.receives + queue.deletes);
    budget("transfer.file.queue_requests").holds(requests.sum::<u64>());
}

#[test]
fn a_file_is_taken_up_on_a_read_of_its_transfer_that_comes_after_the_read_of_its_own_row() {
    let migrated = migrate(HAPPY);
    let file = |step: &&counts::Step| step.function == Function::Imports;
    let step = migrated.steps.iter().find(file).unwrap();
    let rows = step.lines.iter().map(|line| {
        let sort = line.key.sort.as_str();
        (
            line.effect,
            if sort.starts_with("FILE#") {
                "file"
            } else {
                sort
            },
        )
    });
    let until_taken_up: Vec<_> = rows.take(3).collect();
    // Whoever stops the transfer after the second of these finds the file that the first has found, and moves its token on.
    let order = [
        (Effect::Read, "file"),
        (Effect::Read, "STATE"),
        (Effect::Written, "file"),
    ];
    assert_eq!(until_taken_up, order);
}

#[test]
fn what_a_transfer_costs_beside_its_files_does_not_grow_with_them() {
    let beside = |files: usize| {
        let migrated = migrate(Migration { files, ..HAPPY });
        let counts = migrated.counts();
        println!("{files} files:\n{counts}");
        let (all, file) = (counts.without(&[PACE]), migrated.file(files / 2));
        let (file, files) = (file.without(&[PACE]), files as u64);
        (
            all.writes - files * file.writes,
            all.write_units - files * file.write_units,
        )
    };
    let (writes, units) = beside(10);
    println!("beside its files: {writes} writes of {units} units");
    budget("transfer.beside.writes").holds(writes);
    budget("transfer.beside.write_units").holds(units);
    // With a progress report each minute more, and a manifest that is longer.
    let (longer, _) = beside(size("LANDFALL_FILES", 100));
    println!("of many files: {longer} writes");
    budget("transfer.beside.writes_of_100_files").holds(longer);
}

#[test]
fn a_pace_is_written_for_several_files_at_once() {
    let counts = migrate(Migration {
        files: 100,
        ..HAPPY
    })
    .counts();
    budget("transfer.100_files.pace_writes").holds(counts.rows[PACE].writes);
}

#[test]
fn a_sweep_in_vain_reads_the_partitions_of_the_index_and_the_dead_letters_and_nothing_else() {
    let [_, counts] = sweeps();
    let calls: u64 = counts
        .functions
        .values()
        .flat_map(|work| work.calls.values())
        .sum();
    budget("sweep.idle.calls").holds(calls);
    budget("sweep.idle.half_read_units").holds(counts.without(&[]).half_read_units);
    assert_eq!(counts.without(&[]).writes, 0);
}

/// A sweep for which a site's regular comparison is due, and one for which nothing is.
fn sweeps() -> [Counts; 2] {
    let swept = Deployment::start(&HAPPY).sweep_twice();
    [0, 1].map(|sweep| swept.counts_of([&swept.steps[sweep]]))
}

/// Everything that the cost model is made of.
#[derive(Debug, Serialize)]
struct All {
    /// What intake does for an event whose site it knows, and what the processor does then.
    events: BTreeMap<&'static str, Counts>,
    /// As many of the last kind as a batch has, in a burst.
    burst: Counts,
    /// A file of a transfer of ten, by where its records go.
    files: BTreeMap<&'static str, Counts>,
    /// The only file of a transfer, so long that what it costs is its records.
    long_files: BTreeMap<&'static str, Counts>,
    /// A whole transfer, by its files.
    transfers: BTreeMap<usize, Counts>,
    /// A sweep for which one site's regular comparison is due, and one for which nothing is.
    sweeps: BTreeMap<&'static str, Counts>,
}

fn count_all() -> All {
    let targets = [Target::Outside, Target::Records, Target::Bucket];
    let of_each = |files: usize, records: usize, number: usize| {
        let count = |target: Target| {
            let migration = Migration {
                files,
                records,
                target,
            };
            (target.name(), migrate(migration).file(number))
        };
        targets.map(count).into()
    };
    let whole = |files| (files, migrate(Migration { files, ..HAPPY }).counts());
    let events = ["listener-triggered", SETTLED].map(|event| {
        let migrated = migrate(HAPPY);
        let begins = migrated.steps.iter().position(|step| step.about == event);
        let steps = &migrated.steps[begins.unwrap()..][..2];
        (event, migrated.counts_of(steps))
    });
    All {
        events: events.into(),
        burst: Deployment::burst(),
        files: of_each(10, HAPPY.records, TYPICAL),
        long_files: of_each(1, 20_000, 0),
        transfers: [1, 10, 100].map(whole).into(),
        sweeps: ["comparison", "idle"].into_iter().zip(sweeps()).collect(),
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "LANDFALL_BLESS=1 writes the counts into their file"
)]
fn the_counts_of_the_cost_model_are_those_that_are_measured() {
    let mut counted = serde_json::to_string_pretty(&count_all()).unwrap();
    counted.push('\n');
    if std::env::var("LANDFALL_BLESS").is_ok() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../budgets/counts.json");
        std::fs::write(path, counted).unwrap();
    } else {
        let kept = include_str!("../../../budgets/counts.json");
        let differs = kept
            .lines()
            .zip(counted.lines())
            .find(|(kept, counted)| kept != counted);
        assert!(
            kept == counted,
            "what it costs has changed, first in {differs:?} (kept, counted); \
             LANDFALL_BLESS=1 cargo test -p landfall-simulation --test budgets writes the counts"
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's size is a variable")]
fn size(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |size| size.parse().unwrap())
}

#[test]
fn twenty_workers_at_one_transfer_cost_each_file_no_more_than_its_budgets_say() {
    let (workers, files) = (size("LANDFALL_WORKERS", 20), size("LANDFALL_FILES", 400));
    let alone = crowd::crowd(1, 10);
    println!("a worker alone, of each file: {alone:?}");
    // Who wins a race hangs on single milliseconds, and what follows on who won: some crowds tell more than one.
    let crowds = [files - files / 10, files, files + files / 10];
    let together = crowd::mean(&crowds.map(|files| crowd::crowd(workers, files)));
    println!("{workers} workers: {together:?}");
    budget("crowd.alone.milliseconds_of_a_file").holds(alone.milliseconds);
    // What more workers or files come to is there to be looked at.
    if (workers, files) == (20, 400) {
        budget("crowd.20_workers.milliseconds_of_a_file").holds(together.milliseconds);
        budget("crowd.20_workers.transactions_of_a_file").holds(together.transactions);
    }
    budget("crowd.20_workers.failed_deliveries_of_a_file").holds(together.failed);
}

#[test]
fn a_sweep_compares_open_transfers_with_the_platforms_lists_in_the_time_that_its_budget_gives() {
    let each = crowd::sweep(320);
    println!("a sweep takes {each:.1} ms for each open transfer");
    budget("crowd.sweep.milliseconds_of_an_open_transfer").holds(each);
}
