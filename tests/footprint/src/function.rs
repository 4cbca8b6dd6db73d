//! What is measured: a program, what it is invoked with, and what it has to do then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use landfall_transfer::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::event;
use crate::tenant::Tenant;

/// What a function is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Stores and queues an event of the platform.
    TakesEvents,
    /// The same, and looks at the tenant's row every ten seconds.
    TakesEventsBeside,
    /// Answers with what it was given.
    Echoes,
    /// Sweeps a table in which nothing is due.
    Sweeps,
    /// Notes an event of an unknown type.
    TakesMessages,
}

/// A function.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) work: Work,
    pub(crate) tenant: Arc<Tenant>,
}

impl Work {
    /// The event of an invocation, in words.
    pub(crate) const fn said(self) -> &'static str {
        match self {
            Self::TakesEvents | Self::TakesEventsBeside => {
                "a webhook that a file was uploaded, stored and queued"
            }
            Self::Echoes => "the same webhook, answered with itself",
            Self::Sweeps => "a sweep of a table in which nothing is due",
            Self::TakesMessages => "a message of an event of an unknown type, noted",
        }
    }

    /// How long an invocation may take, as the template has it.
    pub(crate) const fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::TakesEvents | Self::TakesEventsBeside | Self::Echoes => 6,
            Self::Sweeps => 60,
            Self::TakesMessages => 90,
        })
    }

    /// An event that has not been there before.
    pub(crate) fn event(self, number: u64, now: Timestamp) -> Bytes {
        match self {
            Self::TakesEvents | Self::TakesEventsBeside | Self::Echoes => {
                event::upload(number, now)
            }
            Self::Sweeps => event::sweep(),
            Self::TakesMessages => event::message(number, now),
        }
    }

    /// A figure of a function that fails is worth nothing.
    pub(crate) fn check_answer(self, answer: &[u8]) -> anyhow::Result<()> {
        let read: Value = serde_json::from_slice(answer)?;
        let good = match self {
            Self::TakesEvents | Self::TakesEventsBeside => read["statusCode"] == 200,
            Self::Echoes => read["version"] == "2.0",
            Self::Sweeps => read["failed"] == 0 && read["cut_short"] == false,
            Self::TakesMessages => read["batchItemFailures"]
                .as_array()
                .is_some_and(Vec::is_empty),
        };
        ensure!(good, "the answer {}", String::from_utf8_lossy(answer));
        Ok(())
    }

    /// Nor is one of a function that does less than its work, or more. The calls are those of so many warm invocations, which took so long.
    pub(crate) fn check_calls(
        self,
        invocations: u64,
        took: Duration,
        calls: &BTreeMap<&str, u64>,
    ) -> anyhow::Result<()> {
        let both = ["DynamoDB.PutItem", "SQS.SendMessage"];
        let both = BTreeMap::from(both.map(|call| (call, invocations)));
        let good = match self {
            Self::TakesEvents => *calls == both,
            Self::TakesEventsBeside => {
                let mut calls = calls.clone();
                let looks = calls.remove("DynamoDB.GetItem").unwrap_or(0);
                calls == both && looks <= took.as_secs() / 10 + 1
            }
            Self::Echoes => calls.is_empty(),
            Self::Sweeps => {
                let kinds: Vec<_> = calls.keys().copied().collect();
                kinds == ["DynamoDB.Query", "SQS.ReceiveMessage"]
                    && calls.values().all(|count| count % invocations == 0)
            }
            Self::TakesMessages => calls.values().copied().eq([invocations]),
        };
        ensure!(good, "{invocations} warm invocations made {calls:?}");
        Ok(())
    }
}

/// Which binary was measured, so that figures of two can be told apart.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Binary {
    command: String,
    bytes: usize,
    sha256: String,
}

/// A command to measure beside ours: `NAME=COMMAND`, the command's words divided by spaces.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    name: String,
    program: String,
    arguments: Vec<String>,
}

impl FromStr for Beside {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, command) = text.split_once('=').ok_or("NAME=COMMAND")?;
        let mut words = command.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or("a command after the name")?;
        Ok(Self {
            name: name.to_owned(),
            program,
            arguments: words.collect(),
        })
    }
}

impl Beside {
    /// It takes the same events as intake.
    pub(crate) fn function(self, tenant: &Arc<Tenant>) -> Function {
        Function {
            name: self.name,
            program: self.program.into(),
            arguments: self.arguments,
            work: Work::TakesEventsBeside,
            tenant: Arc::clone(tenant),
        }
    }
}

impl Function {
    /// What it consists of; of a command that is no path to a file, its words alone.
    pub(crate) fn binary(&self) -> Binary {
        let file = self.program.file_name().unwrap_or_default();
        let mut command = file.to_string_lossy().into_owned();
        for argument in &self.arguments {
            command = format!("{command} {argument}");
        }
        match std::fs::read(&self.program) {
            Ok(content) => Binary {
                command,
                bytes: content.len(),
                sha256: hex::encode(digest(&SHA256, &content)),
            },
            Err(_) => Binary {
                command,
                ..Binary::default()
            },
        }
    }

    /// One of the workspace's own binaries.
    pub(crate) fn own(name: &str, program: PathBuf, work: Work, tenant: &Arc<Tenant>) -> Self {
        Self {
            name: name.to_owned(),
            program,
            arguments: Vec::new(),
            work,
            tenant: Arc::clone(tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_beside_ours_is_a_name_and_words() {
        let beside: Beside = "node=node index.mjs  --flag=1".parse().unwrap();
        assert_eq!((&*beside.name, &*beside.program), ("node", "node"));
        assert_eq!(beside.arguments, ["index.mjs", "--flag=1"]);
        assert!("node".parse::<Beside>().is_err());
        assert!("node= ".parse::<Beside>().is_err());
    }

    #[test]
    fn an_event_is_taken_in_with_one_row_and_one_message_and_nothing_else() {
        let work = Work::TakesEvents;
        let both = BTreeMap::from([("DynamoDB.PutItem", 10), ("SQS.SendMessage", 10)]);
        let second = Duration::from_secs(1);
        assert!(work.check_calls(10, second, &both).is_ok());
        assert!(work.check_calls(11, second, &both).is_err());
        let mut more = both.clone();
        more.insert("DynamoDB.GetItem", 1);
        assert!(work.check_calls(10, second, &more).is_err());
        let beside = Work::TakesEventsBeside;
        assert!(beside.check_calls(10, second, &more).is_ok());
        more.insert("DynamoDB.GetItem", 2);
        assert!(beside.check_calls(10, second, &more).is_err());
        assert!(beside.check_calls(10, 11 * second, &more).is_ok());
    }

    #[test]
    fn an_answer_that_tells_of_a_failure_is_none() {
        let good = br#"{"statusCode":200,"body":"{}"}"#;
        assert!(Work::TakesEvents.check_answer(good).is_ok());
        let bad = br#"{"statusCode":503,"body":"{}"}"#;
        assert!(Work::TakesEvents.check_answer(bad).is_err());
        let failed = br#"{"batchItemFailures":[{"itemIdentifier":"m"}]}"#;
        assert!(Work::TakesMessages.check_answer(failed).is_err());
    }
}
