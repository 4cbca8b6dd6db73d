//! What the kernel knows of a process. On Linux.

use std::time::Duration;

use anyhow::{Context as _, bail};

/// A tick of the kernel's accounting; Linux shows 100 of them a second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// What is resident now: `VmRSS`.
    pub(crate) resident: u64,
    /// As much of it as isn't a page of a file: `RssAnon`.
    pub(crate) anonymous: u64,
    /// The most that ever was resident: `VmHWM`.
    pub(crate) peak: u64,
}

impl Memory {
    /// Of this process.
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        Self::parse(&text(&format!("/proc/{process}/status"))?)
    }

    fn parse(status: &str) -> anyhow::Result<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
            let kilobytes: u64 = kilobytes
                .and_then(|number| number.trim().parse().ok())
                .with_context(|| format!("a process's status without {name}"))?;
            anyhow::Ok(kilobytes * 1_024)
        };
        Ok(Self {
            resident: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
            peak: bytes("VmHWM:")?,
        })
    }
}

/// The CPU time that a process has used.
///
/// The scheduler counts nanoseconds, but forgets those of a thread that has ended; the accounting remembers them, but counts whole ticks. The larger
/// of the two is the truth, but for a tick.
pub(crate) fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut scheduled = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.path().join("schedstat");
        // A thread may end while it is looked for.
        if let Ok(statistics) = text(&name.to_string_lossy()) {
            scheduled += on_cpu(&statistics)?;
        }
    }
    let accounted = accounted(&text(&format!("/proc/{process}/stat"))?)?;
    Ok(scheduled.max(accounted))
}

/// The first number of `schedstat`: nanoseconds on a CPU.
fn on_cpu(statistics: &str) -> anyhow::Result<Duration> {
    let nanoseconds = statistics.split_whitespace().next().unwrap_or_default();
    let nanoseconds = nanoseconds
        .parse()
        .with_context(|| format!("a schedstat of {statistics:?}"))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// `utime` and `stime` of `stat`, in whole ticks.
fn accounted(stat: &str) -> anyhow::Result<Duration> {
    // The name, in parentheses, may hold anything, parentheses included.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        bail!("a stat without a name");
    };
    let ticks: Vec<u32> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|number| number.parse().ok())
        .collect();
    let [user, system] = ticks[..] else {
        bail!("a stat without times");
    };
    Ok(TICK * (user + system))
}

fn text(path: &str) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("read {path}"))?;
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedstat_begins_with_the_nanoseconds_on_a_cpu() {
        let time = on_cpu("1749638089 189116 29\n").unwrap();
        assert_eq!(time, Duration::from_nanos(1_749_638_089));
        assert!(on_cpu("").is_err());
        assert!(on_cpu("much 1 2").is_err());
    }

    #[test]
    fn times_are_found_behind_whatever_name_a_program_gives_itself() {
        let stat = "37 (a) S 1 (x) R 3737 3737 31874 0 -1 4194304 99 0 0 0 12 34 0 0 20 0 1 0 1750157 3133440 385";
        assert_eq!(accounted(stat).unwrap(), Duration::from_millis(460));
        assert!(accounted("37 (cat) R 1").is_err());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    1696 kB\nVmRSS:\t    1600 kB\nRssAnon:\t     108 kB\nRssFile:\t    1588 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!(memory.peak, 1_696 * 1_024);
        assert_eq!(memory.resident, 1_600 * 1_024);
        assert_eq!(memory.anonymous, 108 * 1_024);
        assert!(Memory::parse("VmHWM: 3 kB").is_err());
    }

    #[test]
    fn this_process_has_used_some_of_both() {
        let process = std::process::id();
        assert!(Memory::of(process).unwrap().peak > 0);
        assert!(cpu(process).is_ok());
    }
}
