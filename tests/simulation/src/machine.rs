//! A function's instance: its clock, the weather that it meets, and the moment at which it dies.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_models::{Call, Fate, Weather};

use crate::executor::{MachineTime, VirtualTime};
use crate::trace::Trace;

/// What happens at one of the two halves of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The call goes on; before its effect this is its fate.
    Go(Fate),
    /// The power goes.
    Die,
}

/// Decides what calls meet.
pub trait Fortune: fmt::Debug + Send + Sync {
    /// Before the effect: how long it takes until then, and what happens.
    fn before(&self, machine: &str, call: &Call) -> (Duration, Turn);

    /// After the effect, before the caller learns of it.
    fn after(&self, machine: &str, call: &Call) -> (Duration, Turn);

    /// How far the sparse index is behind.
    fn index_lag(&self) -> Duration;

    /// Which of so many messages is handed out.
    fn choose(&self, of: usize) -> usize;

    /// Whether a message is handed out twice.
    fn twice(&self) -> bool;
}

/// One instance of a function.
#[derive(Debug)]
pub struct Machine {
    name: String,
    fortune: Arc<dyn Fortune>,
    time: VirtualTime,
    local: MachineTime,
    trace: Trace,
    dead: AtomicBool,
}

impl Machine {
    /// An instance that was just started.
    pub fn start(
        name: impl Into<String>,
        fortune: Arc<dyn Fortune>,
        time: VirtualTime,
        trace: Trace,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            fortune,
            local: MachineTime::new(time.clone()),
            time,
            trace,
            dead: AtomicBool::new(false),
        })
    }

    /// Its name in traces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own clock, which may be wrong.
    pub fn clock(&self) -> Clock {
        Clock::of(Arc::new(self.local.clone()))
    }

    /// Its clock is so many milliseconds off from now on.
    pub fn clock_jumps_to(&self, off_by: i64) {
        self.local.jump_to(off_by);
    }

    /// Whether the power has gone.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    async fn turn(&self, pause: Duration) {
        if pause > Duration::ZERO {
            self.time.sleep(pause).await;
        }
    }

    /// Never returns: whoever runs this machine drops it.
    async fn die(&self) -> Fate {
        self.dead.store(true, Ordering::Relaxed);
        std::future::pending().await
    }
}

impl Weather for Machine {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        Box::pin(async move {
            let (pause, turn) = self.fortune.before(&self.name, call);
            self.turn(pause).await;
            match turn {
                Turn::Die => {
                    self.trace.note(&self.name, || {
                        format!("dies before {} {}", call.operation, call.subject)
                    });
                    self.die().await
                }
                Turn::Go(fate) => {
                    self.trace.call(&self.name, call, fate);
                    fate
                }
            }
        })
    }

    fn after<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (pause, turn) = self.fortune.after(&self.name, call);
            self.turn(pause).await;
            if turn == Turn::Die {
                self.trace.note(&self.name, || {
                    format!("dies after {} {}", call.operation, call.subject)
                });
                self.die().await;
            }
        })
    }

    fn index_lag(&self) -> Duration {
        self.fortune.index_lag()
    }

    fn choose(&self, of: usize) -> usize {
        self.fortune.choose(of)
    }

    fn twice(&self) -> bool {
        self.fortune.twice()
    }
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// It returned.
    Returned(T),
    /// Its machine died, and everything in it with it.
    Died,
    /// Lambda ended it because its time was up.
    OutOfTime,
}

/// Runs an invocation until it returns, dies or runs out of its time.
pub async fn invoke<T>(
    machine: &Arc<Machine>,
    longest: Duration,
    invocation: impl Future<Output = T> + Send,
) -> Ended<T> {
    let mut invocation: Pin<Box<dyn Future<Output = T> + Send + '_>> = Box::pin(invocation);
    let mut end = machine.time.sleep(longest);
    std::future::poll_fn(|context: &mut Context<'_>| {
        if let Poll::Ready(returned) = invocation.as_mut().poll(context) {
            return Poll::Ready(Ended::Returned(returned));
        }
        if machine.is_dead() {
            return Poll::Ready(Ended::Died);
        }
        match Pin::new(&mut end).poll(context) {
            Poll::Ready(()) => Poll::Ready(Ended::OutOfTime),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Everything works at once and in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Luck;

impl Fortune for Luck {
    fn before(&self, _: &str, _: &Call) -> (Duration, Turn) {
        (Duration::ZERO, Turn::Go(Fate::Works))
    }

    fn after(&self, _: &str, _: &Call) -> (Duration, Turn) {
        (Duration::ZERO, Turn::Go(Fate::Works))
    }

    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn choose(&self, _: usize) -> usize {
        0
    }

    fn twice(&self) -> bool {
        false
    }
}

/// One thing goes wrong at the n-th half of all calls, counted over every machine. The halves before an effect have even
/// numbers, those after it odd ones.
#[derive(Debug)]
pub struct Script {
    halves: Mutex<u64>,
    wrong: Vec<(u64, Turn)>,
}

impl Script {
    /// So many things go wrong, each at its half.
    pub fn new(wrong: Vec<(u64, Turn)>) -> Arc<Self> {
        Arc::new(Self {
            halves: Mutex::new(0),
            wrong,
        })
    }

    /// Halves so far.
    pub fn halves(&self) -> u64 {
        *self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, call: &Call, before: bool) -> Turn {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let this = *halves;
        *halves += 1;
        let wrong = self.wrong.iter().find(|(half, _)| *half == this);
        match wrong {
            Some((_, Turn::Die)) => Turn::Die,
            Some((_, Turn::Go(fate))) if before && fate.can_meet(call) => Turn::Go(*fate),
            _ => Turn::Go(Fate::Works),
        }
    }
}

impl Fortune for Script {
    fn before(&self, _: &str, call: &Call) -> (Duration, Turn) {
        (Duration::ZERO, self.turn(call, true))
    }

    fn after(&self, _: &str, call: &Call) -> (Duration, Turn) {
        (Duration::ZERO, self.turn(call, false))
    }

    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn choose(&self, _: usize) -> usize {
        0
    }

    fn twice(&self) -> bool {
        false
    }
}
