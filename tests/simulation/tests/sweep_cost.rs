//! What a sweep costs follows what is due, not what exists: counted in read units, by the service's own rules.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and what it counted"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use landfall_budgets::budget;
use landfall_clock::Clock;
use landfall_models::{Calm, Meter, Weather};
use landfall_simulation::cloud::{Cloud, SWEEPER_TIMEOUT, configuration};
use landfall_simulation::executor::{MachineTime, VirtualTime};
use landfall_simulation::platform::{PlatformModel, Switches};
use landfall_simulation::webhook;
use landfall_tracking::{Installed, Item, Key, Told, Value};
use landfall_transfer::{Clocks, Input, TenantId, Timestamp, Transfer, TransferId};
use secrecy::SecretString;

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);
const TENANT: &str = "tenant-0";

/// Transfers that are due.
const DUE: usize = 100;

/// A store with so many settled transfers, and so many open ones of which the first hundred are due.
fn sweep(settled: usize, open: usize) -> Meter {
    let time = VirtualTime::starting_at(START);
    let clock = Clock::of(Arc::new(MachineTime::new(time.clone())));
    let calm: Arc<dyn Weather> = Arc::new(Calm);
    let platform = PlatformModel::new(Switches::default(), Arc::clone(&calm), clock.clone());
    platform.install(TENANT, &webhook::secret(TENANT));
    let cloud = Cloud::new(platform, &calm, &clock, configuration(""));
    let store = cloud.store(&calm, &clock);
    let installed = Installed {
        tenant: TenantId::new(TENANT),
        base_url: "https://site.atlassian.net/wiki".to_owned(),
        product: None,
        secret: SecretString::from(webhook::secret(TENANT)),
    };
    let overlap = Duration::from_mins(10);
    let install = store.install(&installed, overlap, START);
    install.now_or_never().unwrap().unwrap();
    for number in 0..DUE {
        let id = format!("due-{number}");
        cloud.platform.begin(TENANT, &id, None);
        create(&cloud, &calm, &clock, &id, START);
    }
    let later = START + Duration::from_hours(4);
    let template = |transfer: &str| {
        let key = Key::new(format!("TRANSFER#{TENANT}#{transfer}"), "STATE");
        Item::clone(&cloud.table.row(&key).unwrap())
    };
    let mut over = template("due-0");
    over.remove("due_shard");
    over.remove("due_at");
    let over = Arc::new(over);
    cloud.table.load(rows("settled", settled, &[over]));
    // Like any open transfer, only later: they spread over the index's partitions.
    let waiting: Vec<Arc<Item>> = (0..4)
        .map(|shard| {
            let mut row = template("due-0");
            let text = Value::Text(format!("DUE#{shard}"));
            row.insert("due_shard".into(), text);
            row.insert("due_at".into(), Value::Number(later.as_millis()));
            Arc::new(row)
        })
        .collect();
    cloud.table.load(rows("open", open - DUE, &waiting));

    let interval = Clocks::default().reconcile_interval;
    time.advance_to((START + interval).as_millis());
    let before = cloud.table.meter();
    let sweeper = cloud.sweeper(&calm, &clock);
    let deadline = clock.now() + SWEEPER_TIMEOUT;
    let swept = sweeper.sweep(deadline).now_or_never().unwrap();
    assert_eq!(swept.transfers, DUE as u64, "{swept:?}");
    assert_eq!((swept.failed, swept.cut_short), (0, false), "{swept:?}");
    cloud.table.meter().since(before)
}

fn create(cloud: &Cloud, calm: &Arc<dyn Weather>, clock: &Clock, id: &str, now: Timestamp) {
    let clocks = &cloud.configuration.clocks;
    let tenant = TenantId::new(TENANT);
    let mut transfer = Transfer::first_seen(tenant, TransferId::new(id), None, Some(now), now);
    transfer.apply(Input::ListenerTriggered, now, clocks);
    let store = cloud.store(calm, clock);
    let told = Told::nothing();
    let created = store.create(&transfer, &told, clocks);
    created.now_or_never().unwrap().unwrap();
}

fn rows<'row>(
    kind: &'row str,
    number: usize,
    like: &'row [Arc<Item>],
) -> impl Iterator<Item = (Key, Arc<Item>)> + 'row {
    (0..number).map(move |row| {
        let key = Key::new(format!("TRANSFER#{TENANT}#{kind}-{row}"), "STATE");
        (key, Arc::clone(&like[row % like.len()]))
    })
}

#[test]
fn a_sweep_reads_as_much_in_a_full_store_as_in_an_empty_one() {
    let small = sweep(0, DUE);
    let full = sweep(1_000_000, 100_000);
    assert!(small.half_read_units > 0);
    assert_eq!(full, small);
    budget("sweep.100_due_transfers.calls").holds(full.calls);
    budget("sweep.100_due_transfers.read_units").holds(full.read_units());
    budget("sweep.100_due_transfers.write_units").holds(full.write_units);
    budget("sweep.100_due_transfers.index_writes").holds(full.index_write_units);
    println!(
        "a sweep with 100 due transfers: {} calls, {} read units, whatever else is stored",
        full.calls,
        full.read_units()
    );
}
