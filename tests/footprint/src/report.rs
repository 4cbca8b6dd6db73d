//! What came of a run: a table to read and JSON to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::function::{Binary, Function};
use crate::machine::Machine;
use crate::measure::{Effort, Measured, Start, Warm};
use crate::sandbox::Stage;
use crate::statistics::{Summary, exact, mebibytes, milliseconds};
use crate::traffic::Traffic;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: u64,
    starts_per_round: u64,
    warm_up: u64,
    invocations_per_round: u64,
    /// Certificates that a client loads.
    roots: usize,
    pub(crate) functions: Vec<Figures>,
}

/// The figures of one function.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) name: String,
    /// What an invocation does.
    event: &'static str,
    /// What was run.
    binary: Binary,
    /// By name; what they mean is in [`FIGURES`].
    #[serde(rename = "figures")]
    pub(crate) by_name: BTreeMap<&'static str, Summary>,
    /// The calls of the first invocation, by operation.
    first_calls: BTreeMap<String, PerInvocation>,
    /// The calls of a warm invocation, by operation.
    pub(crate) calls: BTreeMap<String, PerInvocation>,
}

/// Calls of an operation by one invocation; bytes are of HTTP, heads included, without TLS.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PerInvocation {
    pub(crate) calls: f64,
    pub(crate) request_bytes: f64,
    /// As many of them as are bodies.
    pub(crate) body_bytes: f64,
    pub(crate) response_bytes: f64,
}

/// Where a figure comes from.
enum Source {
    /// Each start has one.
    Start(fn(&Start) -> f64),
    /// Each round's warm invocations have one.
    Warm(fn(&Warm) -> f64),
    /// The median first invocation over a median of each round's.
    FirstTo(fn(&Warm) -> f64),
}

/// A figure: its name in JSON, what a reader calls it, and how many digits of it mean something.
struct Figure(&'static str, &'static str, usize, Source);

const FIGURES: [Figure; 23] = [
    Figure(
        "spawn_to_poll_ms",
        "spawn to first poll, ms",
        1,
        Source::Start(|start| milliseconds(start.to_poll)),
    ),
    Figure(
        "spawn_to_poll_own_ms",
        "  without AWS's turns, ms",
        1,
        Source::Start(|start| milliseconds(start.to_poll.saturating_sub(start.traffic.served))),
    ),
    Figure(
        "spawn_to_poll_apart_ms",
        "  without the connection, ms",
        1,
        Source::Start(|start| milliseconds(start.to_poll.saturating_sub(start.traffic.span()))),
    ),
    Figure(
        "cpu_to_poll_ms",
        "  CPU of it, ms",
        1,
        Source::Start(|start| milliseconds(start.cpu)),
    ),
    Figure(
        "rss_at_poll_mib",
        "  RSS then, MiB",
        1,
        Source::Start(|start| mebibytes(start.memory.resident)),
    ),
    Figure(
        "log_bytes_at_poll",
        "  logged until then, bytes",
        0,
        Source::Start(|start| exact(start.logged)),
    ),
    Figure(
        "connections_at_poll",
        "  connections until then",
        0,
        Source::Start(|start| exact(start.traffic.connections)),
    ),
    Figure(
        "first_ms",
        "first invocation, ms",
        2,
        Source::Start(|start| milliseconds(start.first)),
    ),
    Figure(
        "first_cpu_ms",
        "  CPU of it, ms",
        2,
        Source::Start(|start| milliseconds(start.first_cpu)),
    ),
    Figure(
        "warm_p50_ms",
        "warm invocation, p50, ms",
        3,
        Source::Warm(|warm| median(&warm.took)),
    ),
    Figure(
        "warm_p99_ms",
        "  p99, ms",
        3,
        Source::Warm(|warm| took(&warm.took, |summary| summary.p99)),
    ),
    Figure(
        "warm_rested_ms",
        "  after a pause like the first's, ms",
        3,
        Source::Warm(|warm| median(&warm.rested)),
    ),
    Figure(
        "first_to_warm",
        "  first / warm",
        1,
        Source::FirstTo(|warm| median(&warm.took)),
    ),
    Figure(
        "first_to_rested",
        "  first / warm after a pause",
        1,
        Source::FirstTo(|warm| median(&warm.rested)),
    ),
    Figure(
        "cpu_per_1000_ms",
        "CPU per 1,000 warm, ms",
        0,
        Source::Warm(|warm| per(warm, milliseconds(warm.cpu) * 1_000.0)),
    ),
    Figure(
        "cpu_per_1000_before_ms",
        "  of those before them, ms",
        0,
        Source::Warm(|warm| milliseconds(warm.cpu_before) * 1_000.0),
    ),
    Figure(
        "rss_mib",
        "RSS after them, MiB",
        1,
        Source::Warm(|warm| mebibytes(warm.memory.resident)),
    ),
    Figure(
        "rss_anonymous_mib",
        "  not of files, MiB",
        1,
        Source::Warm(|warm| mebibytes(warm.memory.anonymous)),
    ),
    Figure(
        "peak_mib",
        "  at its peak, MiB",
        1,
        Source::Warm(|warm| mebibytes(warm.memory.peak)),
    ),
    Figure(
        "connections",
        "connections in all",
        0,
        Source::Warm(|warm| exact(warm.connections)),
    ),
    Figure(
        "calls",
        "calls to AWS per warm",
        2,
        Source::Warm(|warm| per(warm, exact(warm.traffic.count()))),
    ),
    Figure(
        "answer_bytes",
        "answer, bytes",
        0,
        Source::Warm(|warm| per(warm, exact(warm.answered))),
    ),
    Figure(
        "log_bytes",
        "logged per warm, bytes",
        0,
        Source::Warm(|warm| per(warm, exact(warm.logged))),
    ),
];

impl Report {
    pub(crate) fn new(
        machine: Machine,
        effort: Effort,
        stage: &Stage,
        functions: &[Function],
        measured: &[Measured],
    ) -> Self {
        Self {
            machine,
            rounds: effort.rounds,
            starts_per_round: effort.starts,
            warm_up: effort.warm_up,
            invocations_per_round: effort.invocations,
            roots: stage.tls.root_count,
            functions: functions.iter().zip(measured).map(Figures::of).collect(),
        }
    }

    /// The table, for a terminal.
    pub(crate) fn text(&self) -> String {
        let names = self.functions.iter().map(|function| function.name.clone());
        let mut rows = vec![std::iter::once(String::new()).chain(names).collect()];
        for Figure(name, label, digits, _) in FIGURES {
            rows.push(self.row(label, |function| {
                Some(cell(function.by_name.get(name)?, digits))
            }));
        }
        let operations: BTreeSet<_> = self
            .functions
            .iter()
            .flat_map(|function| function.calls.keys())
            .collect();
        for operation in operations {
            rows.push(self.row(operation, |function| {
                let calls = function.calls.get(operation)?;
                Some(format!(
                    "{} x {:.0} B, {:.0} B",
                    calls.calls,
                    calls.request_bytes / calls.calls,
                    calls.response_bytes / calls.calls
                ))
            }));
        }
        format!(
            "{}\nMedians and [quartiles] of {} starts and of {} rounds of {} warm invocations after {}. Calls: number x request, response.\n\
             AWS's turns are how long the process waited for its answers. The connection, from the first one's opening until the last answer, also holds \
             what the process itself computes meanwhile.\n{}; {} roots\n",
            columns(&rows),
            self.rounds * self.starts_per_round,
            self.rounds,
            self.invocations_per_round,
            self.warm_up + 1,
            self.machine.line(),
            self.roots
        )
    }

    fn row(&self, label: &str, cell: impl Fn(&Figures) -> Option<String>) -> Vec<String> {
        let cells = self.functions.iter().map(cell);
        std::iter::once(label.to_owned())
            .chain(cells.map(Option::unwrap_or_default))
            .collect()
    }
}

/// Each column as wide as its widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..count)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// The median, and the quartiles where they differ.
fn cell(summary: &Summary, digits: usize) -> String {
    let median = format!("{:.digits$}", summary.median);
    let low = format!("{:.digits$}", summary.p25);
    let high = format!("{:.digits$}", summary.p75);
    if low == high {
        median
    } else {
        format!("{median} [{low}-{high}]")
    }
}

impl Figures {
    fn of((function, measured): (&Function, &Measured)) -> Self {
        let starts = &measured.starts;
        let rounds = &measured.rounds;
        let summary = |source: &Source| match source {
            Source::Start(figure) => Summary::of(starts.iter().map(figure)),
            Source::Warm(figure) => Summary::of(rounds.iter().map(figure)),
            Source::FirstTo(figure) => {
                let first = Summary::of(starts.iter().map(|start| milliseconds(start.first)))?;
                let warm = Summary::of(rounds.iter().map(figure))?;
                Summary::of([first.median / warm.median])
            }
        };
        Self {
            name: function.name.clone(),
            event: function.work.said(),
            binary: function.binary(),
            by_name: FIGURES
                .iter()
                .filter_map(|Figure(name, _, _, source)| Some((*name, summary(source)?)))
                .collect(),
            first_calls: per_invocation(
                starts.iter().map(|start| &start.first_traffic),
                starts.len(),
            ),
            calls: per_invocation(
                rounds.iter().map(|warm| &warm.traffic),
                rounds.iter().map(|warm| warm.took.len()).sum(),
            ),
        }
    }
}

/// Something about how long invocations took, in milliseconds.
fn took(invocations: &[Duration], what: fn(Summary) -> f64) -> f64 {
    let took = invocations.iter().copied().map(milliseconds);
    Summary::of(took).map_or(0.0, what)
}

fn median(invocations: &[Duration]) -> f64 {
    took(invocations, |summary| summary.median)
}

fn per(warm: &Warm, sum: f64) -> f64 {
    sum / exact(warm.took.len())
}

fn per_invocation<'traffic>(
    traffic: impl Iterator<Item = &'traffic Traffic>,
    invocations: usize,
) -> BTreeMap<String, PerInvocation> {
    let mut sums = BTreeMap::<_, [u64; 4]>::new();
    for (operation, calls) in traffic.flat_map(|traffic| &traffic.calls) {
        let sum = sums.entry(operation.clone()).or_default();
        sum[0] += calls.count;
        sum[1] += calls.request_bytes;
        sum[2] += calls.body_bytes;
        sum[3] += calls.response_bytes;
    }
    let invocations = exact(invocations);
    sums.into_iter()
        .map(|(operation, sum)| {
            let [calls, request_bytes, body_bytes, response_bytes] =
                sum.map(|sum| exact(sum) / invocations);
            let per = PerInvocation {
                calls,
                request_bytes,
                body_bytes,
                response_bytes,
            };
            (operation, per)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_quartiles_only_where_they_can_be_seen() {
        let summary = Summary::of([1.0, 2.0, 3.0]).unwrap();
        assert_eq!(cell(&summary, 1), "2.0 [1.5-2.5]");
        let same = Summary::of([2.01, 2.02, 2.03]).unwrap();
        assert_eq!(cell(&same, 1), "2.0");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cells() {
        let rows = [["", "a"], ["bcd", "e"], ["f", ""]].map(|row| row.map(str::to_owned).into());
        assert_eq!(columns(&rows), "     a\nbcd  e\nf\n");
    }
}
