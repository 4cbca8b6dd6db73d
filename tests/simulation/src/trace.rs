//! What happened, as a person reads it.

use std::collections::{BTreeSet, HashMap};
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

    /// The lines, with the time since the beginning in front. Sweeps that do just what the sweep before them did are counted.
    pub fn text(&self) -> String {
        let Some(lines) = &self.lines else {
            return String::new();
        };
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let start = lines.first().map_or(Timestamp::default(), |line| line.at);
        let repeats = repeated_sweeps(&lines);
        let mut text = String::new();
        let mut left_out: Vec<&Line> = Vec::new();
        for line in lines.iter() {
            if repeats.contains(&*line.who) {
                left_out.push(line);
                continue;
            }
            tell_left_out(&mut text, &mut left_out, start);
            let _ = writeln!(
                text,
                "{}  {:<14} {}",
                clock(line.at, start),
                line.who,
                line.what
            );
        }
        tell_left_out(&mut text, &mut left_out, start);
        text
    }
}

/// The sweepers that did just what the one before them did; each sweeps once.
fn repeated_sweeps(lines: &[Line]) -> BTreeSet<&str> {
    let mut sweeps: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for line in lines.iter().filter(|line| line.who.starts_with("sweeper")) {
        let place = *places.entry(&line.who).or_insert_with(|| {
            sweeps.push((&line.who, BTreeSet::new()));
            sweeps.len() - 1
        });
        sweeps[place].1.insert(&line.what);
    }
    let same = sweeps.windows(2).filter(|pair| pair[0].1 == pair[1].1);
    same.map(|pair| pair[1].0).collect()
}

fn tell_left_out(text: &mut String, left_out: &mut Vec<&Line>, start: Timestamp) {
    let Some(last) = left_out.last() else { return };
    let sweeps: BTreeSet<&str> = left_out.iter().map(|line| &*line.who).collect();
    let until = clock(last.at, start);
    let count = sweeps.len();
    let sweeps = if count == 1 { "sweep" } else { "sweeps" };
    let _ = writeln!(text, "{until}  … {count} {sweeps} like the one before");
    left_out.clear();
}

fn clock(at: Timestamp, start: Timestamp) -> String {
    let since = at.since(start);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    format!(
        "{:>3}d {:02}:{:02}:{:02}.{millis:03}",
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_that_do_what_the_one_before_did_are_counted_and_everything_else_is_told() {
        let time = VirtualTime::starting_at(Timestamp::from_millis(0));
        let trace = Trace::on(time.clone());
        let told = [
            ("sweeper-1", "write STATE"),
            ("sweeper-2", "write STATE"),
            ("sweeper-3", "write STATE"),
            ("worker-1", "write FILE#f"),
            ("sweeper-4", "write STATE"),
            ("sweeper-5", "write FILE#f"),
        ];
        for (minute, (who, what)) in (0..).zip(told) {
            time.advance_to(minute * 60_000);
            trace.note(who, || what.to_owned());
        }
        assert_eq!(
            trace.text(),
            "  0d 00:00:00.000  sweeper-1      write STATE\n\
             \x20 0d 00:02:00.000  … 2 sweeps like the one before\n\
             \x20 0d 00:03:00.000  worker-1       write FILE#f\n\
             \x20 0d 00:04:00.000  … 1 sweep like the one before\n\
             \x20 0d 00:05:00.000  sweeper-5      write FILE#f\n"
        );
    }
}
