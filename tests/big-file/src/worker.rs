//! What a deployed worker does with a file: goes on at the stored checkpoint, slice by slice, until the file ends or somebody kills it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use landfall_clock::Clock;
use landfall_import::declaration::{
    ContainerType, Mapping, OnMiss, Sink as DeclaredSink, SinkKind,
};
use landfall_import::ports::{
    Batch, CommitError, ContainerPage, KeptMappings, Ledger, LedgerUnavailable, MAPPING_PAGE,
    MappingPage, Mappings, MappingsError, Opened, RestartPoint, Source, SourceError,
};
use landfall_import::segments::{Segment, SegmentPage};
use landfall_import::sink::http::HttpSink;
use landfall_import::{
    Checkpoint, ContentHash, Counts, File, Import, Limits, MappingCache, Ports, SliceOutcome,
    Target, import_slice,
};
use landfall_platform::connect::client::{CallError, Client, Settings, Tenant};
use landfall_platform::downloads::{Download, DownloadError, Downloads, SignedUrl};
use landfall_platform::hosts::Hosts;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::big_file::LABEL;

/// How long a slice takes, as deployed.
const SLICE: Duration = Duration::from_mins(1);

/// What is waited for after an interruption.
const PAUSE: Duration = Duration::from_millis(100);

/// Interruptions in a row, without getting further, after which a worker gives up: nobody is there any more.
const INTERRUPTIONS_MAX: u32 = 20;

/// The name of the checkpoint in the worker's folder.
const CHECKPOINT: &str = "checkpoint.json";

/// What a worker is to do. It comes by standard input, because it holds secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Where the checkpoint is kept.
    pub(crate) folder: PathBuf,
    pub(crate) app_key: String,
    pub(crate) client_key: String,
    pub(crate) base_url: String,
    pub(crate) shared_secret: String,
    pub(crate) transfer: String,
    pub(crate) s3_key: String,
    pub(crate) sink_url: String,
    pub(crate) sink_secret: String,
}

/// How a worker ended that was not killed; it says so on standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) applied: u64,
    /// The most memory it ever had, in bytes.
    pub(crate) peak: u64,
}

/// The most memory that a process ever had, in bytes; `"self"` is this one. None when it is gone.
pub(crate) fn peak_memory(process: &str) -> Option<u64> {
    let status = std::fs::read(format!("/proc/{process}/status")).ok()?;
    let status = String::from_utf8(status).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Works until the file has ended well; everything else is an error.
pub(crate) async fn work() -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let task: Task = serde_json::from_slice(&text)?;
    let counts = import(&task).await?;
    anyhow::ensure!(counts.applied == counts.read, "{counts}");
    let ended = Ended {
        applied: counts.applied,
        peak: peak_memory("self").context("a process knows its own memory")?,
    };
    Ok(std::io::stdout().write_all(&serde_json::to_vec(&ended)?)?)
}

async fn import(task: &Task) -> anyhow::Result<Counts> {
    let clock = Clock::system();
    let site = Site::new(task, &clock)?;
    let sink = DeclaredSink {
        kind: SinkKind::Http,
        url: Some(task.sink_url.clone()),
        ..DeclaredSink::default()
    };
    let secret = SecretString::from(&*task.sink_secret);
    let sink = HttpSink::new(&sink, &secret, clock.clone())?;
    let progress = Progress(&task.folder);
    let limits = Limits::default();
    let cache = MappingCache::new(limits.mapping_cache_entries);
    let ports = Ports {
        source: &site,
        ledger: &progress,
        mappings: &site,
        mapping_cache: &cache,
        target: Target::Sink(&sink),
    };
    let import = Import {
        label: "*".to_owned(),
        natural_key: Some("/id".to_owned()),
        mappings: vec![
            mapping("/project", "jira/classic:project"),
            mapping("/author", "identity:user"),
        ],
        ..Import::default()
    };
    let file = File {
        tenant: &task.client_key,
        transfer: &task.transfer,
        chain: &task.transfer,
        label: LABEL,
        key: &task.s3_key,
        import: &import,
        rerun: false,
    };
    let (mut reached, mut interruptions) = (0, 0);
    loop {
        let end = clock.monotonic() + SLICE;
        let out_of_time = || clock.monotonic() >= end;
        match import_slice(&file, progress.stored()?, &ports, &limits, &out_of_time).await {
            SliceOutcome::Finished {
                counts,
                problem: None,
                ..
            } => return Ok(counts),
            SliceOutcome::Finished {
                problem: Some(problem),
                ..
            } => anyhow::bail!("the file ended early: {problem}"),
            SliceOutcome::Continue(_) | SliceOutcome::ReadAgain(_) => interruptions = 0,
            SliceOutcome::Interrupted {
                reason,
                retry_after,
                checkpoint,
            } => {
                if checkpoint.offset > reached {
                    (reached, interruptions) = (checkpoint.offset, 0);
                }
                interruptions += 1;
                anyhow::ensure!(interruptions < INTERRUPTIONS_MAX, "interrupted: {reason}");
                clock.sleep(retry_after.unwrap_or(PAUSE)).await;
            }
            SliceOutcome::FenceLost => anyhow::bail!("there is no fence that could be lost"),
        }
    }
}

fn mapping(pointer: &str, namespace: &str) -> Mapping {
    Mapping {
        pointer: pointer.to_owned(),
        pattern: None,
        namespace: namespace.to_owned(),
        on_miss: OnMiss::Reject,
        placeholder: None,
        key_prefix: None,
        within: None,
    }
}

/// The platform, as far as this file goes.
struct Site {
    client: Client,
    downloads: Downloads,
    tenant: Tenant,
    transfer: String,
    s3_key: String,
    /// The URL that was given last, as long as it is good.
    url: Mutex<Option<SignedUrl>>,
}

impl Site {
    fn new(task: &Task, clock: &Clock) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(Settings::new(&task.app_key), clock.clone())?,
            downloads: Downloads::new(
                Hosts::parse(["127.0.0.1"])?,
                Duration::from_secs(5),
                Duration::from_secs(15),
                clock.clone(),
            )?,
            tenant: Tenant {
                client_key: task.client_key.clone(),
                base_url: task.base_url.parse()?,
                secret: SecretString::from(&*task.shared_secret),
            },
            transfer: task.transfer.clone(),
            s3_key: task.s3_key.clone(),
            url: Mutex::default(),
        })
    }

    fn url(&self) -> MutexGuard<'_, Option<SignedUrl>> {
        self.url.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Site {
    type Stream = BoxStream<'static, Result<Bytes, SourceError>>;

    async fn open(&self, from: u64) -> Result<Opened<Self::Stream>, SourceError> {
        let failed = |reason: String| SourceError::Failed { reason };
        let known = self.url().clone();
        let url = if let Some(url) = known {
            url
        } else {
            let url = self.client.signed_url(&self.tenant, &self.s3_key).await;
            let url = url.map_err(|error| failed(error.to_string()))?;
            self.url().insert(url).clone()
        };
        let download = match self.downloads.open(&url, from).await {
            Ok(download) => download,
            Err(DownloadError::Expired { .. }) => {
                *self.url() = None;
                return Err(SourceError::Expired);
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        Ok(Opened {
            starts_at: download.starts_at(),
            total_bytes: download.size(),
            stream: stream::unfold(Some(download), next).boxed(),
        })
    }
}

async fn next(
    download: Option<Download>,
) -> Option<(Result<Bytes, SourceError>, Option<Download>)> {
    let mut download = download?;
    match download.chunk().await {
        Ok(Some(bytes)) => Some((Ok(bytes), Some(download))),
        Ok(None) => None,
        Err(error) => {
            let reason = error.to_string();
            Some((Err(SourceError::Cut { reason }), None))
        }
    }
}

impl Mappings for Site {
    async fn find(
        &self,
        namespace: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, MappingsError> {
        let found = self
            .client
            .find_mappings(&self.tenant, &self.transfer, namespace, keys)
            .await;
        found.map_err(unavailable)
    }

    async fn page(
        &self,
        namespace: &str,
        after: Option<&str>,
    ) -> Result<MappingPage, MappingsError> {
        let size = u16::try_from(MAPPING_PAGE).expect("the platform takes no larger pages");
        let page = self
            .client
            .mapping_page(&self.tenant, &self.transfer, namespace, after, size)
            .await
            .map_err(unavailable)?;
        Ok(MappingPage {
            items: page.items,
            next: page.next,
        })
    }

    async fn containers(
        &self,
        container_type: ContainerType,
        after: Option<&str>,
    ) -> Result<ContainerPage, MappingsError> {
        let container_type = container_type.name();
        let page = self
            .client
            .container_page(&self.tenant, &self.transfer, container_type, after)
            .await
            .map_err(unavailable)?;
        Ok(ContainerPage {
            source_ids: page.items,
            next: page.next,
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn unavailable(error: CallError) -> MappingsError {
    MappingsError::Unavailable {
        reason: error.to_string(),
    }
}

/// The checkpoint, in a file that is replaced as a whole: a kill leaves the one before or the one after. Nothing else is kept; no other
/// attempt will ask for it, and nobody else has the file.
struct Progress<'a>(&'a Path);

impl Progress<'_> {
    fn stored(&self) -> anyhow::Result<Checkpoint> {
        let path = self.0.join(CHECKPOINT);
        if !path.exists() {
            return Ok(Checkpoint::start());
        }
        let text = String::from_utf8(std::fs::read(path)?)?;
        Checkpoint::decode(&text).context("the checkpoint that was written can't be read")
    }
}

impl Ledger for Progress<'_> {
    async fn known(&self, _: &[String]) -> Result<HashMap<String, ContentHash>, LedgerUnavailable> {
        Ok(HashMap::new())
    }

    async fn check_fence(&self) -> Result<(), CommitError> {
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let (new, path) = (self.0.join("checkpoint.new"), self.0.join(CHECKPOINT));
        std::fs::write(&new, batch.checkpoint.encode())
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|error| CommitError::Unavailable {
                reason: error.to_string(),
            })
    }

    async fn keep_segment(&self, _: Segment) -> Result<(), CommitError> {
        Ok(())
    }

    async fn attempts(&self) -> Result<Vec<String>, LedgerUnavailable> {
        Ok(Vec::new())
    }

    async fn segments(&self, _: &str, _: Option<&str>) -> Result<SegmentPage, LedgerUnavailable> {
        Ok(SegmentPage::default())
    }

    async fn restart_point(&self) -> Result<Option<RestartPoint>, LedgerUnavailable> {
        Ok(None)
    }

    async fn keep_restart_point(&self, _: RestartPoint) {}

    async fn keep_mappings(&self, _: KeptMappings) {}
}
