//! Many workers on the files of one transfer at once: how fast they are, and what their getting into each other's way costs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_models::{Call, Fate, Weather};
use landfall_simulation::cloud::{PROCESSOR_TIMEOUT, Processor, SWEEPER_TIMEOUT, VISIBILITY};
use landfall_simulation::executor::{Executor, VirtualTime};

use landfall_budgets::Measured as _;

use crate::HAPPY;
use crate::happy::{Deployment, Migration, batch_of};

/// How long a call takes on AWS, roughly: `tests/budgets/prices.toml` says where that is from.
fn takes(call: &Call) -> Duration {
    Duration::from_micros(match call.operation {
        "get" => 5_000,
        "write" => 7_600,
        "transact" => 25_300,
        "send" => 6_000,
        "progress" | "signed_url" | "recent" => 80_000,
        "open" => 60_000,
        "deliver" => 50_000,
        "chunk" => 0,
        _ => 8_000,
    })
}

/// Every call takes its time: half of it before its effect and half of it behind.
#[derive(Debug)]
struct Slow {
    time: VirtualTime,
    calls: Mutex<BTreeMap<&'static str, u64>>,
}

impl Slow {
    fn new(time: &VirtualTime) -> Arc<Self> {
        Arc::new(Self {
            time: time.clone(),
            calls: Mutex::default(),
        })
    }
}

impl Weather for Slow {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        *self
            .calls
            .lock()
            .unwrap()
            .entry(call.operation)
            .or_default() += 1;
        Box::pin(async {
            self.time.sleep(takes(call) / 2).await;
            Fate::Works
        })
    }

    fn after<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(self.time.sleep(takes(call) / 2))
    }
}

/// What came of it, of each file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// From the first message's delivery to the last one's end.
    pub(crate) milliseconds: f64,
    /// Transactions; those that another made fail are among them.
    pub(crate) transactions: f64,
    /// Deliveries that failed, and came again after their visibility timeout.
    pub(crate) failed: f64,
}

/// What some of them come to on average.
pub(crate) fn mean(crowds: &[Crowd]) -> Crowd {
    let of =
        |value: fn(&Crowd) -> f64| crowds.iter().map(value).sum::<f64>() / crowds.len().in_units();
    Crowd {
        milliseconds: of(|crowd| crowd.milliseconds),
        transactions: of(|crowd| crowd.transactions),
        failed: of(|crowd| crowd.failed),
    }
}

/// So many workers, and so many small files that are all announced before the first begins.
pub(crate) fn crowd(workers: usize, files: usize) -> Crowd {
    let migration = Migration { files, ..HAPPY };
    let deployment = Deployment::announced(&migration);
    let (time, cloud, clock) = deployment.parts();
    let slow = Slow::new(&time);
    let began = clock.now();
    let failed = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(Mutex::new(began));
    let mut executor = Executor::default();
    for worker in 0..workers {
        let weather: Arc<dyn Weather> = Arc::clone(&slow) as Arc<dyn Weather>;
        let processor: Arc<Processor> = cloud.processor(&weather, &clock);
        let (imports, clock) = (cloud.imports.clone(), clock.clone());
        let (failed, ended) = (Arc::clone(&failed), Arc::clone(&ended));
        executor.spawn(async move {
            let owner = format!("worker-{worker}");
            while let Some(visible) = imports.next_visible() {
                let batch = imports.deliver(1, VISIBILITY);
                let Some(delivery) = batch.first() else {
                    // Another has it; should that one fail, it comes again.
                    let pause = (visible - clock.now().as_millis()).max(1);
                    clock
                        .sleep(Duration::from_millis(pause.unsigned_abs()))
                        .await;
                    continue;
                };
                let deadline = clock.now() + PROCESSOR_TIMEOUT;
                let answer = processor.handle(batch_of(&batch), &owner, deadline).await;
                *ended.lock().unwrap() = clock.now();
                if answer.batch_item_failures.is_empty() {
                    imports.acknowledge(&delivery.id);
                } else {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    finish(&mut executor, &time);
    let took = ended.lock().unwrap().since(began).as_secs_f64() * 1_000.0;
    let transactions = slow.calls.lock().unwrap().get("transact").copied();
    let each = |all: f64| all / files.in_units();
    Crowd {
        milliseconds: each(took),
        transactions: each(transactions.unwrap_or(0).in_units()),
        failed: each(failed.load(Ordering::Relaxed).in_units()),
    }
}

/// Lets time pass until everybody is done.
fn finish(executor: &mut Executor, time: &VirtualTime) {
    loop {
        executor.run_ready();
        if executor.is_empty() {
            return;
        }
        let next = time.next_timer().expect("somebody waits for time");
        time.advance_to(next);
    }
}

/// How long a sweep takes for each of so many open transfers that it compares with the platform's lists, in milliseconds.
pub(crate) fn sweep(open: usize) -> f64 {
    let deployment = Deployment::open(open);
    let (time, cloud, clock) = deployment.parts();
    let weather: Arc<dyn Weather> = Slow::new(&time);
    let sweeper = cloud.sweeper(&weather, &clock);
    let began = clock.now();
    let mut executor = Executor::default();
    executor.spawn(async move {
        let summary = sweeper.sweep(began + SWEEPER_TIMEOUT).await;
        assert_eq!(
            (summary.failed, summary.cut_short),
            (0, false),
            "{summary:?}"
        );
        assert_eq!(summary.transfers, open as u64);
    });
    finish(&mut executor, &time);
    clock.now().since(began).as_secs_f64() * 1_000.0 / open.in_units()
}
