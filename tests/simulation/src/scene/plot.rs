use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use landfall_models::{Call, Fate};

use crate::machine::{Fortune, Turn};

/// One half of a call: the moment before its effect, or the moment after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// The machine that made the call.
    pub machine: String,
    /// The call.
    pub call: Call,
    /// Whether it is the half before the effect.
    pub before: bool,
}

impl Half {
    /// Everything that can go wrong at this half.
    pub fn wrongs(&self) -> Vec<Turn> {
        let mut all = vec![Turn::Die];
        if self.before {
            let fates = Fate::ALL.into_iter().skip(1);
            all.extend(fates.filter(|fate| fate.can_meet(&self.call)).map(Turn::Go));
        }
        all
    }

    /// The half as a sentence about a fault says it.
    pub fn words(&self, turn: Turn) -> String {
        let Call {
            operation, subject, ..
        } = &self.call;
        let what = match turn {
            Turn::Die if self.before => "dies before".to_owned(),
            Turn::Die => "dies after".to_owned(),
            Turn::Go(fate) => format!("meets {fate:?} at"),
        };
        format!("{} {what} {operation} {subject}", self.machine)
    }
}

/// Decides every call by a script: some halves, counted over all machines, go wrong, and all others work.
#[derive(Debug)]
pub struct Plot {
    wrong: Vec<(usize, Turn)>,
    slow: &'static [(&'static str, u64)],
    tick: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    next: usize,
    halves: Option<Vec<Half>>,
    met: usize,
}

impl Plot {
    /// So many things go wrong, each at its half. `slow` operations take their milliseconds, of all subjects or of those that begin as it says.
    pub fn new(wrong: Vec<(usize, Turn)>, slow: &'static [(&'static str, u64)]) -> Self {
        Self {
            wrong,
            slow,
            tick: Duration::ZERO,
            kept: Mutex::default(),
        }
    }

    /// Every half takes a millisecond, so that what runs at once takes turns.
    #[must_use]
    pub const fn ticking(mut self) -> Self {
        self.tick = Duration::from_millis(1);
        self
    }

    /// Keeps every half, to be enumerated.
    #[must_use]
    pub fn recording(self) -> Self {
        self.lock().halves = Some(Vec::new());
        self
    }

    /// The halves, when they were recorded.
    pub fn halves(&self) -> Vec<Half> {
        self.lock().halves.take().unwrap_or_default()
    }

    /// How many halves there were.
    pub fn count(&self) -> usize {
        self.lock().next
    }

    /// How many of the wrongs were met.
    pub fn met(&self) -> usize {
        self.lock().met
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, machine: &str, call: &Call, before: bool) -> Turn {
        let mut kept = self.lock();
        let this = kept.next;
        kept.next += 1;
        if let Some(halves) = &mut kept.halves {
            halves.push(Half {
                machine: machine.to_owned(),
                call: call.clone(),
                before,
            });
        }
        if before && kills(machine, call) {
            return Turn::Die;
        }
        match self.wrong.iter().find(|(half, _)| *half == this) {
            Some((_, turn)) => {
                kept.met += 1;
                *turn
            }
            None => Turn::Go(Fate::Works),
        }
    }
}

/// Whether a call is of this operation, and about this where something follows the operation's name.
fn is_named(call: &Call, name: &str) -> bool {
    let (operation, subject) = name.split_once(' ').unwrap_or((name, ""));
    operation == call.operation && call.subject.starts_with(subject)
}

/// A poison file kills whoever fetches it, and a cursed one every worker that so much as looks at it.
fn kills(machine: &str, call: &Call) -> bool {
    match call.operation {
        "signed_url" => call.subject.contains("poison"),
        "get" => call.subject.contains("cursed") && machine.starts_with("worker"),
        _ => false,
    }
}

impl Fortune for Plot {
    fn before(&self, machine: &str, call: &Call) -> (Duration, Turn) {
        let slow = self.slow.iter().find(|(name, _)| is_named(call, name));
        let pause = slow.map_or(self.tick, |(_, millis)| Duration::from_millis(*millis));
        (pause, self.turn(machine, call, true))
    }

    fn after(&self, machine: &str, call: &Call) -> (Duration, Turn) {
        (self.tick, self.turn(machine, call, false))
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
