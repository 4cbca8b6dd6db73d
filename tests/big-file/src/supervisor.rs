//! Sets the platform, the receiver and the worker up, kills the worker again and again, and judges what came of it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use landfall_clock::Clock;
use landfall_twin::{Options, Twin};
use serde_json::{Value, json};

use crate::big_file::{BigFile, RECORD_BYTES};
use crate::receiver::Receiver;
use crate::table::Table;
use crate::worker::{Ended, Task, peak_memory};

/// The most memory that a worker may use, in bytes: what the processor promises.
const PEAK_MAX: u64 = 96 * MEBIBYTE;

const MEBIBYTE: u64 = 1024 * 1024;

/// What must stay below this may be read again, in hundredths of a percent of the file.
const AGAIN_MAX: u64 = 300;

/// How long a signed URL is good, in milliseconds of the platform's clock.
const URL_LIFE_MS: u64 = 120_000;

/// How many times faster than the workers' clock the platform's runs: a worker begins with a new URL, and must see it expire before it is
/// killed.
const PLATFORM_AHEAD: u32 = 4;

/// How long a worker lives, by its own clock.
const WORKER_LIFE: Duration = Duration::from_mins(1);

/// After how many bytes each connection to the store is cut.
const CUT_AFTER: u64 = 50_000_000;

/// How often it is looked how far the worker is.
const LOOK: Duration = Duration::from_millis(100);

/// What a shell answers for a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// A secret as Standard Webhooks wants it; nobody listens but the receiver of the same process.
const SINK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How much, and how rough.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The file's size in bytes, such as 500M, 2G or 25G.
    #[arg(long, default_value = "2G", value_parser = size)]
    size: u64,
    /// How many times faster than the machine's the clock runs by which workers are killed; the platform's, by which URLs expire, runs four
    /// times as fast as that. Where it isn't given, as fast as needed for both to happen several times.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    rate: Option<u32>,
}

fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['M', 'G']) {
        Some(number) if text.ends_with('M') => (number, 1_000_000),
        Some(number) => (number, 1_000_000_000),
        None => (text, 1),
    };
    let bytes: Option<u64> = number.parse().ok();
    bytes
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| (1..=1_000_000_000_000).contains(bytes))
        .ok_or_else(|| "a number of bytes up to 1000G, such as 500M or 2G".to_owned())
}

/// A folder that goes when its owner does.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Run {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let path = std::env::temp_dir().join(format!("landfall-big-file-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let folder = Folder(path);
        let table = tokio::select! {
            table = self.table(&folder.0) => table?,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        std::io::stdout().write_all(table.text().as_bytes())?;
        Ok(if table.holds() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Imports the file, and compares what came of it.
    async fn table(&self, folder: &Path) -> anyhow::Result<Table> {
        let file = BigFile::new(self.size)?;
        let receiver = Receiver::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let service = format!("http://{}", listener.local_addr()?);
        let routes = receiver.routes();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let platform = Platform::start().await?;
        let task = platform
            .export(&file, self.rate(), &service, folder)
            .await?;
        let bar = ProgressBar::new(file.bytes()).with_style(ProgressStyle::with_template(
            "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} to go, {msg}",
        )?);
        let clock = Clock::system();
        let mut import = Import::default();
        while import.applied.is_none() {
            bar.set_message(format!("worker {}", import.kills + 1));
            import
                .work(&task, WORKER_LIFE / self.rate(), &receiver, &bar)
                .await?;
        }
        let took = clock.monotonic();
        bar.set_message("comparing");
        let expected = file.digest().await?;
        bar.finish_and_clear();
        let seen = platform.seen(&task.transfer).await?;
        let mut table = Table::default();
        judge_content(&mut table, &file, &receiver, &expected, &import);
        judge_reading(&mut table, &file, &seen, &import);
        let megabytes = file.bytes() / 1_000_000;
        let seconds = took.as_secs().max(1);
        table.tell(
            "time of the import",
            &format!("{seconds} s, {} MB/s", megabytes / seconds),
        );
        Ok(table)
    }

    /// The fastest clock that doesn't have too much read again: each kill costs what lies in sockets, some 5 MB. A file of 25 GB takes long enough for URLs to expire and workers to be killed by the machine's own clock.
    fn rate(&self) -> u32 {
        let fits = (10_000_000_000 / self.size).clamp(1, 5);
        self.rate
            .unwrap_or_else(|| u32::try_from(fits).unwrap_or(1))
    }
}

fn judge_content(
    table: &mut Table,
    file: &BigFile,
    receiver: &Receiver,
    expected: &str,
    import: &Import,
) {
    let content = receiver.content();
    let begins = |digest: &str| format!("{}…", &digest[..16]);
    table.check(
        "content of the sink, SHA-256",
        &begins(expected),
        &begins(&content.sha256),
        content.sha256 == expected,
    );
    let records = file.records();
    table.check(
        "records in the sink",
        &records,
        &content.records,
        content.records == records,
    );
    let applied = import.applied.unwrap_or_default();
    table.check(
        "records that the worker counted",
        &records,
        &applied,
        applied == records,
    );
    table.check(
        "batches again, with another content",
        &0,
        &content.different,
        content.different == 0,
    );
    table.tell("batches again", &content.repeated);
}

fn judge_reading(table: &mut Table, file: &BigFile, seen: &Seen, import: &Import) {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(MEBIBYTE));
    table.check(
        "peak memory of a worker",
        &format!("<= {}", mebibytes(PEAK_MAX)),
        &mebibytes(import.peak),
        import.peak <= PEAK_MAX,
    );
    let again = seen.sent.saturating_sub(file.bytes()) * 10_000 / file.bytes();
    table.check(
        "sent again by the store",
        &format!("< {} %", AGAIN_MAX / 100),
        &format!("{}.{:02} %", again / 100, again % 100),
        again < AGAIN_MAX,
    );
    for (what, times) in [
        ("workers killed", import.kills),
        ("connections cut", seen.cuts),
        ("URLs that expired in use", seen.expired),
    ] {
        table.check(what, &">= 1", &times, times >= 1);
    }
}

/// The platform, with a file to import.
struct Platform {
    twin: Twin,
    http: reqwest::Client,
    app_key: String,
}

/// What the store has seen.
struct Seen {
    /// Bytes that it sent.
    sent: u64,
    cuts: u64,
    expired: u64,
}

impl Platform {
    async fn start() -> anyhow::Result<Self> {
        let options = Options::default();
        Ok(Self {
            app_key: options.app_key.clone(),
            twin: Twin::start(options).await?,
            http: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("{}/control/{path}", self.twin.url());
        let mut request = self.http.request(method.parse()?, url);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Has the file exported, behind URLs that expire and connections that break; the answer is what a worker needs to import it.
    async fn export(
        &self,
        file: &BigFile,
        rate: u32,
        service: &str,
        folder: &Path,
    ) -> anyhow::Result<Task> {
        let site = json!({ "site": "acme", "app_base_url": service });
        let installed = self.call("POST", "install", site).await?;
        let installation = &installed["installation"];
        for mappings in file.mappings() {
            self.call("PUT", "mappings", mappings).await?;
        }
        let switches = json!({ "url_life_ms": URL_LIFE_MS, "store_cut_at_expiry": true });
        self.call("PATCH", "switches", switches).await?;
        self.call("PUT", "clock", json!({ "rate": rate * PLATFORM_AHEAD }))
            .await?;
        let cut = json!({ "target": "store", "kind": "cut", "after_bytes": CUT_AFTER });
        self.call("POST", "faults", cut).await?;
        let plan = json!({ "site": "acme", "files": [file.wish()] });
        let started = self.call("POST", "migrations", plan).await?;
        let transfer = text(&started["transfer_id"])?;
        let wait = format!("transfers/{transfer}?wait_for=exported&timeout_ms=30000");
        self.call("GET", &wait, Value::Null).await?;
        ensure!(
            started["files"][0]["bytes"] == file.bytes(),
            "the twin has made another file: {started}"
        );
        Ok(Task {
            folder: folder.to_owned(),
            app_key: self.app_key.clone(),
            client_key: text(&installation["client_key"])?,
            base_url: text(&installation["base_url"])?,
            shared_secret: text(&installation["shared_secret"])?,
            s3_key: text(&started["files"][0]["s3_key"])?,
            sink_url: format!("{service}/batches"),
            sink_secret: SINK_SECRET.to_owned(),
            transfer,
        })
    }

    async fn seen(&self, transfer: &str) -> anyhow::Result<Seen> {
        let transfer = self
            .call("GET", &format!("transfers/{transfer}"), Value::Null)
            .await?;
        let file = &transfer["file_list"][0];
        let fetches = file["fetches"].as_array().context("fetches")?;
        let count = |test: &dyn Fn(&Value) -> bool| {
            fetches.iter().filter(|fetch| test(fetch)).count() as u64
        };
        Ok(Seen {
            sent: file["bytes_served"].as_u64().context("bytes_served")?,
            cuts: count(&|fetch| fetch["ended"] == "cut"),
            expired: count(&|fetch| fetch["ended"] == "cut at expiry" || fetch["status"] == 403),
        })
    }
}

/// A worker that doesn't outlive its owner.
struct Worker(Child);

impl Worker {
    fn start(task: &Task) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut worker = Self(child);
        let mut input = worker.0.stdin.take().context("it has an input")?;
        input.write_all(&serde_json::to_vec(task)?)?;
        Ok(worker)
    }

    fn peak(&self) -> u64 {
        peak_memory(&self.0.id().to_string()).unwrap_or(0)
    }

    /// What it said, if it has ended.
    fn ended(&mut self) -> anyhow::Result<Option<Ended>> {
        let Some(status) = self.0.try_wait()? else {
            return Ok(None);
        };
        ensure!(status.success(), "a worker ended with {status}");
        let mut said = Vec::new();
        let mut output = self.0.stdout.take().context("it has an output")?;
        output.read_to_end(&mut said)?;
        Ok(Some(serde_json::from_slice(&said)?))
    }
}

impl Drop for Worker {
    /// SIGKILL; one that has ended doesn't mind.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One import, over as many workers as it takes.
#[derive(Default)]
struct Import {
    kills: u64,
    /// The most memory that any worker used, in bytes.
    peak: u64,
    /// What the last worker counted, once the file has ended.
    applied: Option<u64>,
}

impl Import {
    /// Lets a worker work until it is done, or its time is up and it is killed.
    async fn work(
        &mut self,
        task: &Task,
        life: Duration,
        receiver: &Receiver,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut worker = Worker::start(task)?;
        let clock = Clock::system();
        while clock.monotonic() < life {
            bar.set_position(receiver.records() * RECORD_BYTES);
            if let Some(ended) = worker.ended()? {
                self.peak = self.peak.max(ended.peak);
                self.applied = Some(ended.applied);
                return Ok(());
            }
            clock.sleep(LOOK).await;
        }
        self.peak = self.peak.max(worker.peak());
        drop(worker);
        self.kills += 1;
        Ok(())
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("a text was expected")?.to_owned())
}
