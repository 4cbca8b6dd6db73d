//! The run: every function is started and invoked in turn, round by round, never two at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use landfall_clock::Clock;

use crate::function::{Beside, Function, Work};
use crate::process::Memory;
use crate::sandbox::{Sandbox, Stage};
use crate::statistics::exact;
use crate::tenant::{Sealed, Tenant};
use crate::traffic::Traffic;

/// Warm invocations in a round that come after a pause.
const RESTED: u64 = 20;

/// How much is measured.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Effort {
    /// Rounds. In each every function has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Starts of each function in a round; the last one's process goes on to warm invocations.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) starts: u64,
    /// Warm invocations in a round, of a process that has become all that it will be.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) invocations: u64,
    /// Invocations between the first and these: warm as well, but some languages still make their programs meanwhile.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) warm_up: u64,
}

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Subjects {
    /// Folder with the release binaries of the functions.
    #[arg(long, value_name = "DIR")]
    pub(crate) functions: PathBuf,
    /// The function that does nothing; beside this program unless it is given.
    #[arg(long, value_name = "PATH")]
    pub(crate) empty: Option<PathBuf>,
    /// A command that takes intake's events, in the same environment. Its words are divided by spaces.
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) beside: Vec<Beside>,
    /// Only the functions of these names: empty, intake, intake-kms (the tenant's secret sealed by KMS), processor, sweeper, and those beside.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
}

impl Subjects {
    /// Of those in a folder, only these.
    pub(crate) fn only<const N: usize>(functions: PathBuf, only: [&str; N]) -> Self {
        Self {
            functions,
            empty: None,
            beside: Vec::new(),
            only: only.map(str::to_owned).into(),
        }
    }

    /// The functions, in the order of their turns.
    pub(crate) async fn functions(self, clock: &Clock) -> anyhow::Result<Vec<Function>> {
        let local = Arc::new(Tenant::install(Sealed::BySecretKey, clock.clone()).await?);
        let empty = match self.empty {
            Some(empty) => empty,
            None => std::env::current_exe()?.with_file_name("landfall-empty"),
        };
        let kms = Arc::new(Tenant::install(Sealed::ByKms, clock.clone()).await?);
        let own = |name, function: &str, work, tenant| {
            let program = self.functions.join(format!("landfall-{function}"));
            Function::own(name, program, work, tenant)
        };
        let mut functions = vec![
            Function::own("empty", empty, Work::Echoes, &local),
            own("intake", "intake", Work::TakesEvents, &local),
        ];
        functions.extend(self.beside.into_iter().map(|one| one.function(&local)));
        functions.extend([
            own("intake-kms", "intake", Work::TakesEvents, &kms),
            own("processor", "processor", Work::TakesMessages, &local),
            own("sweeper", "sweeper", Work::Sweeps, &local),
        ]);
        functions.retain(|one| self.only.is_empty() || self.only.contains(&one.name));
        ensure!(!functions.is_empty(), "no function has a name of --only");
        Ok(functions)
    }
}

/// A start and a first invocation.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// From the spawning until the first poll.
    pub(crate) to_poll: Duration,
    /// The CPU time until then.
    pub(crate) cpu: Duration,
    pub(crate) memory: Memory,
    pub(crate) logged: u64,
    pub(crate) traffic: Traffic,
    /// How long the first invocation took.
    pub(crate) first: Duration,
    pub(crate) first_cpu: Duration,
    pub(crate) first_traffic: Traffic,
}

/// A round's warm invocations of one process.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    pub(crate) took: Vec<Duration>,
    /// How long others took of the same process, each of which came after the pause that the first one comes after.
    pub(crate) rested: Vec<Duration>,
    pub(crate) cpu: Duration,
    /// The CPU time of one of those between the first invocation and these.
    pub(crate) cpu_before: Duration,
    pub(crate) traffic: Traffic,
    pub(crate) logged: u64,
    pub(crate) answered: u64,
    /// Memory after the last.
    pub(crate) memory: Memory,
    /// Connections that the process has opened in all its life.
    pub(crate) connections: u64,
}

/// All that was measured of one function.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) starts: Vec<Start>,
    pub(crate) rounds: Vec<Warm>,
}

/// Measures the functions, in turns.
pub(crate) async fn measure(
    stage: &Stage,
    functions: &[Function],
    effort: Effort,
) -> anyhow::Result<Vec<Measured>> {
    let mut measured: Vec<_> = functions.iter().map(|_| Measured::default()).collect();
    let turns = effort.rounds * effort.starts * functions.len() as u64;
    let bar = ProgressBar::new(turns).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} starts, {eta} to go, {msg}",
    )?);
    let mut turn = Turn {
        stage,
        effort,
        events: 0,
    };
    for round in 1..=effort.rounds {
        for start in 1..=effort.starts {
            for (function, measured) in functions.iter().zip(&mut measured) {
                bar.set_message(function.name.clone());
                let goes_on = start == effort.starts;
                turn.take(function, goes_on, measured)
                    .await
                    .with_context(|| format!("measure {} in round {round}", function.name))?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(measured)
}

struct Turn<'stage> {
    stage: &'stage Stage,
    effort: Effort,
    /// How many events there were: none comes twice.
    events: u64,
}

impl Turn<'_> {
    /// Starts a process, invokes it once, and goes on if it is to be measured warm. Then the process ends.
    async fn take(
        &mut self,
        function: &Function,
        goes_on: bool,
        measured: &mut Measured,
    ) -> anyhow::Result<()> {
        let mut sandbox = Sandbox::start(self.stage, function).await?;
        let start = self.start(&mut sandbox, function.work).await?;
        measured.starts.push(start);
        if goes_on {
            let warm = self.warm(&mut sandbox, function.work).await?;
            measured.rounds.push(warm);
        }
        Ok(())
    }

    async fn start(&mut self, sandbox: &mut Sandbox, work: Work) -> anyhow::Result<Start> {
        let to_poll = sandbox.first_poll().await?;
        // By then the last bytes have been counted, too.
        let cpu = sandbox.cpu().await?;
        let traffic = sandbox.traffic();
        let (memory, logged) = (sandbox.memory()?, sandbox.logged()?);
        let (first, _) = self.invoke(sandbox, work).await?;
        let first_cpu = sandbox.cpu().await?.saturating_sub(cpu);
        let now = sandbox.traffic();
        ensure!(now.refused.is_empty(), "AWS refused {:?}", now.refused);
        Ok(Start {
            to_poll,
            cpu,
            memory,
            logged,
            first,
            first_cpu,
            first_traffic: now.since(&traffic),
            traffic,
        })
    }

    async fn warm(&mut self, sandbox: &mut Sandbox, work: Work) -> anyhow::Result<Warm> {
        let cpu = sandbox.cpu().await?;
        for _ in 0..self.effort.warm_up {
            self.invoke(sandbox, work).await?;
        }
        let before = (sandbox.cpu().await?, sandbox.traffic(), sandbox.logged()?);
        let cpu_before = before
            .0
            .saturating_sub(cpu)
            .div_f64(exact(self.effort.warm_up));
        let begun = self.stage.clock.monotonic();
        let mut took = Vec::new();
        let mut answered = 0;
        for _ in 0..self.effort.invocations {
            let (one, bytes) = self.invoke(sandbox, work).await?;
            took.push(one);
            answered += bytes;
        }
        let cpu = sandbox.cpu().await?.saturating_sub(before.0);
        let now = sandbox.traffic();
        let traffic = now.since(&before.1);
        let elapsed = self.stage.clock.monotonic().saturating_sub(begun);
        work.check_calls(self.effort.invocations, elapsed, &traffic.counts())?;
        let (logged, memory) = (sandbox.logged()? - before.2, sandbox.memory()?);
        let mut rested = Vec::new();
        for _ in 0..RESTED {
            sandbox.cpu().await?;
            rested.push(self.invoke(sandbox, work).await?.0);
        }
        Ok(Warm {
            took,
            rested,
            cpu,
            cpu_before,
            traffic,
            logged,
            answered,
            memory,
            connections: now.connections,
        })
    }

    /// How long an invocation took, and how many bytes its answer has.
    async fn invoke(
        &mut self,
        sandbox: &mut Sandbox,
        work: Work,
    ) -> anyhow::Result<(Duration, u64)> {
        self.events += 1;
        let event = work.event(self.events, self.stage.clock.now());
        let answer = sandbox.invoke(event).await?;
        work.check_answer(&answer.body)?;
        Ok((answer.took, answer.body.len() as u64))
    }
}
