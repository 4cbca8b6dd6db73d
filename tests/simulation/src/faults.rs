//! What goes wrong, how often, and when it stops.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use landfall_models::{Call, Fate};
use serde::{Deserialize, Serialize};

use crate::executor::VirtualTime;
use crate::machine::{Fortune, Turn};
use crate::random::Random;

/// How often what goes wrong, in a million calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// The service has no capacity.
    pub throttled: u32,
    /// Another transaction, or a refused connection.
    pub contended: u32,
    /// Calls that never arrive.
    pub lost_before: u32,
    /// Answers that never arrive.
    pub lost_after: u32,
    /// Answers that are lost and whose call is repeated on the way.
    pub repeated: u32,
    /// Machines that die before an effect.
    pub die_before: u32,
    /// Machines that die after an effect.
    pub die_after: u32,
    /// Messages that are handed out twice.
    pub twice: u32,
    /// Longest half of a call, in milliseconds.
    pub latency_ms: u64,
    /// Calls that hang for this long instead, in milliseconds; one in a thousand does.
    pub hang_ms: u64,
    /// How far the index is behind at most, in milliseconds.
    pub index_lag_ms: u64,
}

/// A time in which one service answers nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// The service.
    pub service: Service,
    /// Its beginning, in seconds after the start.
    pub from_s: u64,
    /// How long it lasts, in seconds.
    pub for_s: u64,
    /// Whether calls get lost instead of being refused, so that nobody knows what became of them.
    #[serde(default)]
    pub silent: bool,
}

/// Something outside that can be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// DynamoDB.
    Table,
    /// SQS.
    Queues,
    /// The platform and its object store.
    Platform,
}

impl Service {
    fn of(operation: &str) -> Self {
        match operation {
            "get" | "get_many" | "query" | "due" | "write" | "transact" => Self::Table,
            "send" | "receive" | "delete" => Self::Queues,
            _ => Self::Platform,
        }
    }
}

/// Faults by chance, until they stop.
#[derive(Debug)]
pub struct Chance {
    time: VirtualTime,
    start: i64,
    outages: Vec<Outage>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    faults: Faults,
    left: u64,
    met: u64,
}

impl Chance {
    /// Faults from now on, at most `most` of them.
    pub fn new(
        time: VirtualTime,
        random: Random,
        faults: Faults,
        outages: Vec<Outage>,
        most: u64,
    ) -> Self {
        Self {
            start: time.now().as_millis(),
            time,
            outages,
            inner: Mutex::new(Inner {
                random,
                faults,
                left: most,
                met: 0,
            }),
        }
    }

    /// From now on everything works, if not at once.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.faults = Faults {
            latency_ms: inner.faults.latency_ms.min(200),
            index_lag_ms: inner.faults.index_lag_ms.min(1_000),
            ..Faults::default()
        };
        inner.left = 0;
    }

    /// Faults so far.
    pub fn met(&self) -> u64 {
        self.lock().met
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outage that this call meets.
    fn outage(&self, call: &Call) -> Option<&Outage> {
        let since = self.time.now().as_millis() - self.start;
        let service = Service::of(call.operation);
        self.outages.iter().find(|outage| {
            let from = i64::try_from(outage.from_s * 1_000).unwrap_or(i64::MAX);
            let until = from + i64::try_from(outage.for_s * 1_000).unwrap_or(0);
            outage.service == service && (from..until).contains(&since)
        })
    }
}

impl Inner {
    /// Whether one of so many in a million happens, as long as faults are left.
    fn happens(&mut self, times: u32) -> bool {
        let happens = times > 0 && self.left > 0 && self.random.one_in_a_million(times);
        if happens {
            self.left -= 1;
            self.met += 1;
        }
        happens
    }

    fn pause(&mut self) -> Duration {
        let faults = self.faults;
        if faults.hang_ms > 0 && self.happens(1_000) {
            return Duration::from_millis(faults.hang_ms);
        }
        Duration::from_millis(self.random.below(faults.latency_ms + 1))
    }
}

impl Fortune for Chance {
    fn before(&self, _: &str, call: &Call) -> (Duration, Turn) {
        let outage = self.outage(call);
        let mut inner = self.lock();
        let pause = inner.pause();
        let faults = inner.faults;
        // A poison file kills whoever fetches it.
        if call.operation == "signed_url" && call.subject.contains("poison") {
            return (pause, Turn::Die);
        }
        if inner.happens(faults.die_before) {
            return (pause, Turn::Die);
        }
        if let Some(outage) = outage {
            let lost = outage.silent && Fate::LostBefore.can_meet(call);
            let fate = if lost {
                Fate::LostBefore
            } else {
                Fate::Throttled
            };
            return (pause, Turn::Go(fate));
        }
        let rates = [
            (Fate::Throttled, faults.throttled),
            (Fate::Contended, faults.contended),
            (Fate::LostBefore, faults.lost_before),
            (Fate::LostAfter, faults.lost_after),
            (Fate::Repeated, faults.repeated),
        ];
        for (fate, times) in rates {
            if fate.can_meet(call) && inner.happens(times) {
                return (pause, Turn::Go(fate));
            }
        }
        (pause, Turn::Go(Fate::Works))
    }

    fn after(&self, _: &str, _: &Call) -> (Duration, Turn) {
        let mut inner = self.lock();
        let times = inner.faults.die_after;
        if inner.happens(times) {
            return (Duration::ZERO, Turn::Die);
        }
        let longest = inner.faults.latency_ms / 4;
        let pause = inner.random.below(longest + 1);
        (Duration::from_millis(pause), Turn::Go(Fate::Works))
    }

    fn index_lag(&self) -> Duration {
        let mut inner = self.lock();
        let most = inner.faults.index_lag_ms;
        // Most changes show at once; now and then one is far behind.
        let lag = if inner.random.percent(80) {
            inner.random.below(most / 20 + 1)
        } else {
            inner.random.below(most + 1)
        };
        Duration::from_millis(lag)
    }

    fn choose(&self, of: usize) -> usize {
        let mut inner = self.lock();
        usize::try_from(inner.random.below(of as u64)).unwrap_or(0)
    }

    fn twice(&self) -> bool {
        let mut inner = self.lock();
        let times = inner.faults.twice;
        inner.happens(times)
    }
}
