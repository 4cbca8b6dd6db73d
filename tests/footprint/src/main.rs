#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test says what went wrong by panicking"
    )
)]

mod answers;
mod check;
mod cloud;
mod event;
mod function;
mod machine;
mod measure;
mod process;
mod report;
mod runtime_api;
mod sandbox;
mod statistics;
mod tenant;
mod tls;
mod traffic;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use landfall_clock::Clock;
use tokio::signal::unix::{SignalKind, signal};

use crate::check::Check;
use crate::machine::Machine;
use crate::measure::{Effort, Subjects};
use crate::report::Report;
use crate::sandbox::Stage;

/// What a shell answers for a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// Measures what the functions cost: how fast they start and answer, CPU, memory, calls and bytes.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and print a table.
    Measure(Measure),
    /// Hold sizes, memory, calls and bytes against their budgets; ends with 1 where one does not hold.
    Check(Check),
}

#[derive(Debug, Args)]
struct Measure {
    #[command(flatten)]
    subjects: Subjects,
    #[command(flatten)]
    effort: Effort,
    /// The roots that the functions trust, as PEM, beside the run's own authority; those of the system unless they are given.
    #[arg(long, value_name = "PATH")]
    roots: Option<PathBuf>,
    /// Where all figures go, as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut end = signal(SignalKind::terminate())?;
    // What is dropped here ends its processes.
    tokio::select! {
        done = run(arguments.command) => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(ExitCode::from(INTERRUPTED))
        }
        _ = end.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Measure(measure) => measure.run().await,
        Command::Check(check) => {
            let (table, holds) = check.table(Clock::system()).await?;
            std::io::stdout().write_all(table.as_bytes())?;
            Ok(if holds {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

impl Measure {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let clock = Clock::system();
        let machine = Machine::here(clock.now());
        let functions = self.subjects.functions(&clock).await?;
        let stage = Stage::set(clock, self.roots.as_deref())?;
        let measured = measure::measure(&stage, &functions, self.effort).await?;
        let report = Report::new(machine, self.effort, &stage, &functions, &measured);
        std::io::stdout().write_all(report.text().as_bytes())?;
        if let Some(path) = self.json {
            std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
