//! What happened, as a person reads it.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use landfall_models::{Call, Fate};
use landfall_transfer::Timestamp;

use crate::executor::VirtualTime;

/// Collects lines while it is on; costs nothing while it is off.
#[derive(Clone, Debug)]
pub struct Trace {
    time: VirtualTime,
    lines: Option<Arc<Mutex<Vec<Line>>>>,
}

#[derive(Clone, Debug)]
struct Line {
    at: Timestamp,
    who: String,
    what: String,
}

impl Trace {
    /// A trace that keeps nothing.
    pub const fn off(time: VirtualTime) -> Self {
        Self { time, lines: None }
    }

    /// A trace that keeps everything.
    pub fn on(time: VirtualTime) -> Self {
        Self {
            time,
            lines: Some(Arc::default()),
        }
    }

    /// Keeps a line.
    pub fn note(&self, who: &str, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let line = Line {
                at: self.time.now(),
                who: who.to_owned(),
                what: what(),
            };
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    }

    /// Keeps a call: reads only when they met something.
    pub fn call(&self, who: &str, call: &Call, fate: Fate) {
        if self.lines.is_none() || (fate == Fate::Works && !call.writes) {
            return;
        }
        self.note(who, || {
            let met = match fate {
                Fate::Works => "",
                Fate::Throttled => "  ** throttled: nothing happened",
                Fate::Contended => "  ** held by another: nothing happened",
                Fate::LostBefore => "  ** never arrived, and nobody knows",
                Fate::LostAfter => "  ** took effect, the answer was lost",
                Fate::Repeated => "  ** took effect, the answer was lost, repeated",
            };
            format!("{} {}{met}", call.operation, call.subject)
        });
    }

    /// The lines, with the time since the beginning in front.
    pub fn text(&self) -> String {
        let Some(lines) = &self.lines else {
            return String::new();
        };
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let start = lines.first().map_or(Timestamp::default(), |line| line.at);
        let mut text = String::new();
        for line in lines.iter() {
            let since = line.at.since(start);
            let (seconds, millis) = (since.as_secs(), since.subsec_millis());
            let _ = writeln!(
                text,
                "{:>3}d {:02}:{:02}:{:02}.{millis:03}  {:<14} {}",
                seconds / 86_400,
                seconds / 3_600 % 24,
                seconds / 60 % 60,
                seconds % 60,
                line.who,
                line.what
            );
        }
        text
    }
}
