//! Interleavings by shuttle, at random and by priorities: two workers, a sweeper and intake on the same transfer, while the clock
//! jumps over the lease.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_models::{Call, Fate, Weather};
use landfall_simulation::cloud::VISIBILITY;
use landfall_simulation::harness;
use landfall_simulation::platform::Switches;
use landfall_simulation::scene::{Act, Bench, Content, File, Plot, Scene, Stage, StillTime, sqs};
use landfall_transfer::Flavour;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::{Config, FailurePersistence, Runner};

/// Schedules of each kind.
const SCHEDULES: usize = if cfg!(debug_assertions) { 2_000 } else { 5_000 };

/// Times that a task is put off behind all others (PCT): a lease that runs out in mid-file, a take-over, an end and a write between its halves
/// are four.
const DEPTH: usize = 5;

/// The stack of one task; the handlers' futures are large where nothing is optimised.
const STACK: usize = 4 * 1024 * 1024;

/// A day: Lambda ends nobody meanwhile.
const LONG: Duration = Duration::from_hours(24);

const FILE: File = File {
    transfer: "t",
    key: "f1",
    label: "a.ndjson",
    content: Content::Records(8, 0),
    told: true,
};

const MANIFEST: File = File {
    key: "fm",
    label: "export-manifest",
    content: Content::Manifest(&[("a.ndjson", 8)]),
    ..FILE
};

fn main() -> ExitCode {
    harness::run(&[
        ("two_workers_a_sweeper_and_intake_at_random", |report| {
            explore(RandomScheduler::new(SCHEDULES), "random", report)
        }),
        ("two_workers_a_sweeper_and_intake_by_priorities", |report| {
            explore(PctScheduler::new(DEPTH, SCHEDULES), "PCT", report)
        }),
    ])
}

fn explore(scheduler: impl Scheduler + 'static, kind: &str, report: &mut dyn FnMut(&str)) -> bool {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.failure_persistence = FailurePersistence::Print;
    let scene = scene();
    let bench = Mutex::new(Bench::default());
    let broken: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&broken);
    let ran = Runner::new(scheduler, config).run(move || {
        // Only the first task of a schedule takes it, and all the others are over before it lets go.
        let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
        let violations = schedule(&scene, &mut bench);
        if !violations.is_empty() {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.extend(violations);
        }
    });
    let broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
    report(&format!(
        "{ran} schedules ({kind}), {} broken promises",
        broken.len()
    ));
    for violation in broken.iter().take(5) {
        report(violation);
    }
    broken.is_empty()
}

/// The first broken promise, of schedules of one kind or of both.
#[cfg(feature = "seeded-bugs")]
#[allow(dead_code, reason = "asked by the test of seeded bugs")]
pub(crate) fn first_broken(
    _: &mut Bench,
    only: Option<&str>,
) -> Option<landfall_simulation::seeded_bugs::Caught> {
    use landfall_simulation::seeded_bugs::{Caught, said};
    let run = |kind: &str| {
        let mut config = Config::new();
        config.stack_size = STACK;
        config.failure_persistence = FailurePersistence::None;
        let (scene, bench) = (scene(), Mutex::new(Bench::default()));
        let one = move || {
            let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
            let violations = schedule(&scene, &mut bench);
            assert!(violations.is_empty(), "{}", violations[0]);
        };
        match kind {
            "random" => Runner::new(RandomScheduler::new_from_seed(0, SCHEDULES), config).run(one),
            _ => Runner::new(PctScheduler::new_from_seed(0, DEPTH, SCHEDULES), config).run(one),
        }
    };
    ["random", "PCT"]
        .into_iter()
        .filter(|kind| only.is_none_or(|only| only == *kind))
        .find_map(|kind| {
            let run = std::panic::AssertUnwindSafe(|| run(kind));
            let panic = std::panic::catch_unwind(run).err()?;
            Some(Caught::new(kind, said(&*panic)))
        })
}

fn scene() -> Scene {
    let begin = Act::Begin {
        id: "t",
        original: None,
        told: true,
    };
    Scene {
        name: "two workers, a sweeper and intake",
        flavour: Flavour::Connect,
        switches: Switches::default(),
        configuration: "",
        acts: vec![
            (0, begin),
            (0, Act::Upload(FILE)),
            (0, Act::Upload(MANIFEST)),
        ],
        slow: &[],
        also: &[],
        short: false,
    }
}

/// One schedule. Returns the broken promises.
fn schedule(scene: &Scene, bench: &mut Bench) -> Vec<String> {
    let calm = Arc::new(Plot::new(Vec::new(), &[]));
    let mut stage = Stage::new(scene, bench, calm, None, false);
    stage.perform(&scene.acts[0].1);
    stage.work_off(0);
    stage.perform(&scene.acts[1].1);
    let time = stage.time().clone();
    // The file's row is due, so that the sweeper has something to revive.
    time.advance_to((time.now() + Duration::from_secs(121)).as_millis());

    let weather: Arc<dyn Weather> = Arc::new(Interrupted::default());
    let clock = Clock::of(Arc::new(StillTime(time.clone())));
    let deadline = time.now() + LONG;
    let batch = stage.queue(1).deliver(1, VISIBILITY);
    let mut tasks = Vec::new();
    for worker in 0..2 {
        let processor = stage.cloud().processor(&weather, &clock);
        let (batch, queue) = (batch.clone(), stage.queue(1).clone());
        tasks.push(shuttle::future::spawn(async move {
            let name = format!("invocation-{worker}");
            let answer = processor.handle(sqs(&batch), &name, deadline).await;
            if answer.batch_item_failures.is_empty() {
                queue.acknowledge(&batch[0].id);
            }
        }));
    }
    let sweeper = stage.cloud().sweeper(&weather, &clock);
    tasks.push(shuttle::future::spawn(async move {
        sweeper.sweep(deadline).await;
    }));
    let told = stage.tell_under(&scene.acts[2].1, &weather);
    tasks.push(shuttle::future::spawn(async move {
        if let Some(told) = told {
            assert_eq!(told.await, 200, "intake took the manifest in");
        }
    }));
    let point = AtomicBool::new(false);
    tasks.push(shuttle::future::spawn(async move {
        for _ in 0..8 {
            point.load(Ordering::SeqCst);
        }
        // The lease runs out.
        time.advance_to((time.now() + Duration::from_secs(91)).as_millis());
    }));
    for task in tasks {
        shuttle::future::block_on(task).unwrap_or_else(|error| panic!("a task ended: {error:?}"));
    }
    stage.finish().violations
}

/// Everything works, and before and after each effect anybody else may go on. An atomic's access is where shuttle may switch; a
/// yield would tell its priorities that this task has nothing to do.
#[derive(Debug, Default)]
struct Interrupted(AtomicBool);

impl Weather for Interrupted {
    fn before<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Fate> {
        Box::pin(async {
            self.0.load(Ordering::SeqCst);
            Fate::Works
        })
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(async {
            self.0.load(Ordering::SeqCst);
        })
    }
}
