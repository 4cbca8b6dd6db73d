//! One thread, virtual time, and tasks that can be dropped at any await.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use landfall_clock::Time;
use landfall_transfer::Timestamp;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names a task of an executor.
pub type TaskId = u64;

/// Time that passes only when nothing else can happen.
#[derive(Clone, Debug)]
pub struct VirtualTime(Arc<Mutex<Timers>>);

#[derive(Debug)]
struct Timers {
    now: i64,
    waiting: BTreeMap<(i64, u64), Waker>,
    registered: u64,
}

impl VirtualTime {
    /// Begins at this instant.
    pub fn starting_at(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Timers {
            now: start.as_millis(),
            waiting: BTreeMap::new(),
            registered: 0,
        })))
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.lock().now)
    }

    /// Ends after this long.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let mut timers = self.lock();
        timers.registered += 1;
        let at = timers.now.saturating_add(millis(duration));
        Sleep {
            time: self.clone(),
            key: (at, timers.registered),
        }
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<i64> {
        self.lock().waiting.keys().next().map(|(at, _)| *at)
    }

    /// Moves on to an instant, and wakes what waits for it.
    pub fn advance_to(&self, instant: i64) {
        let woken = {
            let mut timers = self.lock();
            timers.now = timers.now.max(instant);
            let after = (timers.now + 1, 0);
            let later = timers.waiting.split_off(&after);
            std::mem::replace(&mut timers.waiting, later)
        };
        for waker in woken.into_values() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Timers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for virtual time.
#[derive(Debug)]
pub struct Sleep {
    time: VirtualTime,
    key: (i64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timers = self.time.lock();
        if timers.now >= self.key.0 {
            timers.waiting.remove(&self.key);
            return Poll::Ready(());
        }
        timers.waiting.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.lock().waiting.remove(&self.key);
    }
}

/// The clock of one machine: virtual time, and how far it is off.
#[derive(Clone, Debug)]
pub struct MachineTime {
    time: VirtualTime,
    off_by: Arc<std::sync::atomic::AtomicI64>,
}

impl MachineTime {
    /// A machine's clock that is right.
    pub fn new(time: VirtualTime) -> Self {
        Self {
            time,
            off_by: Arc::default(),
        }
    }

    /// The clock jumps: from now on it is this many milliseconds off.
    pub fn jump_to(&self, off_by: i64) {
        self.off_by
            .store(off_by, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Time for MachineTime {
    fn now(&self) -> Timestamp {
        let off_by = self.off_by.load(std::sync::atomic::Ordering::Relaxed);
        Timestamp::from_millis(self.time.now().as_millis() + off_by)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.time.now().as_millis()).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.time.sleep(duration))
    }
}

/// Polls tasks, one at a time, in the order in which they woke up.
#[derive(Default)]
pub struct Executor {
    tasks: HashMap<TaskId, Task>,
    ready: Arc<Mutex<VecDeque<TaskId>>>,
    spawned: TaskId,
}

struct Alarm {
    task: TaskId,
    ready: Arc<Mutex<VecDeque<TaskId>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.task) {
            ready.push_back(self.task);
        }
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Executor")
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// Takes a task in; it begins with the next turn.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) -> TaskId {
        self.spawned += 1;
        self.tasks.insert(self.spawned, Box::pin(future));
        self.lock().push_back(self.spawned);
        self.spawned
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Polls what can go on until nothing can.
    pub fn run_ready(&mut self) {
        loop {
            let Some(task) = self.lock().pop_front() else {
                return;
            };
            let Some(future) = self.tasks.get_mut(&task) else {
                continue;
            };
            let waker = Waker::from(Arc::new(Alarm {
                task,
                ready: Arc::clone(&self.ready),
            }));
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                self.tasks.remove(&task);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<TaskId>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
