//! Where and when was measured.

use std::process::Command;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use landfall_transfer::Timestamp;

/// Without it no figure means anything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    date: String,
    processor: String,
    cores: usize,
    kernel: String,
    rustc: String,
    /// The load average of the last minute: whatever else was computed here.
    load_before: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here(now: Timestamp) -> Self {
        let date = OffsetDateTime::from_unix_timestamp(now.as_seconds());
        let date = date.ok().and_then(|date| date.format(&Rfc3339).ok());
        let cpuinfo = file("/proc/cpuinfo");
        let processor = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let processor = processor.and_then(|line| line.split_once(": "));
        Self {
            date: date.unwrap_or_default(),
            processor: processor.map_or("", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: rustc().unwrap_or_default(),
            load_before: load(),
        }
    }

    /// In a line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} ({} cores), Linux {}, {}; load before {}, after {}",
            self.date,
            self.processor,
            self.cores,
            self.kernel,
            self.rustc,
            self.load_before,
            load()
        )
    }
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let loads = file("/proc/loadavg");
    loads
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The compiler that is found here; the functions were probably built with it.
fn rustc() -> Option<String> {
    let version = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8(version.stdout).ok()?.trim().to_owned())
}

fn file(path: &str) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
