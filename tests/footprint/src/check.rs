//! Holds what is the same on every run against its budget: sizes, memory, calls, bytes. No times.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use landfall_budgets::budget;
use landfall_clock::Clock;

use crate::machine::Machine;
use crate::measure::{Effort, Subjects, measure};
use crate::report::{Figures, Report};
use crate::sandbox::Stage;
use crate::statistics::exact;

/// How much is measured for it: memory is that after a thousand events.
const EFFORT: Effort = Effort {
    rounds: 1,
    starts: 1,
    invocations: 900,
    warm_up: 100,
};

/// What is held against its budgets.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Folder with the release binaries of the functions.
    #[arg(long, value_name = "DIR")]
    functions: PathBuf,
    /// Folder with the zips as they are deployed.
    #[arg(long, value_name = "DIR")]
    zips: PathBuf,
}

/// What was measured, by the names of its budgets.
type Measured = Vec<(&'static str, f64)>;

impl Check {
    /// The budgets and what was measured, as a table, and whether all of them hold.
    pub(crate) async fn table(self, clock: Clock) -> anyhow::Result<(String, bool)> {
        let mut measured = zips(&self.zips)?;
        measured.extend(figures(self.functions, clock).await?);
        let mut text = format!("{:<24} {:>12} {:>12}\n", "", "at most", "measured");
        let mut all = true;
        for (name, measured) in measured {
            let budget = budget(name);
            let outcome = budget.check(measured);
            all &= outcome.is_ok();
            writeln!(text, "{name:<24} {:>12} {measured:>12.2}", budget.at_most())?;
            if let Err(exceeded) = outcome {
                writeln!(text, "  {exceeded}")?;
            }
        }
        Ok((text, all))
    }
}

fn zips(folder: &Path) -> anyhow::Result<Measured> {
    let size = |function: &str| {
        let path = folder.join(format!("{function}.zip"));
        let zip = std::fs::metadata(&path).with_context(|| format!("find {}", path.display()))?;
        anyhow::Ok(megabytes(exact(zip.len())))
    };
    Ok(vec![
        ("zip.intake", size("intake")?),
        ("zip.processor", size("processor")?),
        ("zip.sweeper", size("sweeper")?),
    ])
}

async fn figures(functions: PathBuf, clock: Clock) -> anyhow::Result<Measured> {
    let subjects = Subjects::only(functions, ["intake", "processor"]);
    let machine = Machine::here(clock.now());
    let functions = subjects.functions(&clock).await?;
    let stage = Stage::set(clock, None)?;
    let measured = measure(&stage, &functions, EFFORT).await?;
    let report = Report::new(machine, EFFORT, &stage, &functions, &measured);
    let function = |name: &str| {
        let mut functions = report.functions.iter();
        let found = functions.find(|function| function.name == name);
        found.with_context(|| format!("{name} was not measured"))
    };
    let (intake, processor) = (function("intake")?, function("processor")?);
    let body = |operation: &str| {
        let calls = intake.calls.get(operation);
        let calls = calls.with_context(|| format!("intake made no {operation}"))?;
        anyhow::Ok(calls.body_bytes)
    };
    let mebibyte = 1_024.0 * 1_024.0;
    Ok(vec![
        (
            "rss.intake",
            megabytes(median(intake, "rss_mib")? * mebibyte),
        ),
        (
            "rss.processor",
            megabytes(median(processor, "rss_mib")? * mebibyte),
        ),
        ("intake.event.put_bytes", body("DynamoDB.PutItem")?),
        ("intake.event.send_bytes", body("SQS.SendMessage")?),
        ("intake.event.calls", median(intake, "calls")?),
        ("intake.connections", median(intake, "connections")?),
    ])
}

fn median(function: &Figures, name: &str) -> anyhow::Result<f64> {
    let summary = function.by_name.get(name);
    let summary = summary.with_context(|| format!("{name} was not measured"))?;
    Ok(summary.median)
}

fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}
