//! A function's process between the Runtime API and AWS, as Lambda would start it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use landfall_clock::Clock;

use crate::cloud::Cloud;
use crate::event::HOST;
use crate::function::Function;
use crate::process::{self, Memory};
use crate::runtime_api::{Answer, RuntimeApi};
use crate::tenant::{KMS_KEY, SECRET_KEY, Sealed};
use crate::tls::Tls;
use crate::traffic::Traffic;

/// The longest that anything of a process is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether it still lives.
const LOOK: Duration = Duration::from_millis(200);

/// How much of its log is shown when it fails.
const LAST_WORDS: usize = 2_000;

/// The least that the functions start with. A tenant's row isn't read again within a run, so that each event makes the same calls.
const CONFIGURATION: &str = r#"version = 1
[app]
key = "com.example.vault.cloud"
[clocks]
tenant_cache = "10m"
[[imports]]
label = "*"
natural_key = "/id"
"#;

/// What all processes of a run share.
pub(crate) struct Stage {
    folder: PathBuf,
    configuration: PathBuf,
    pub(crate) tls: Tls,
    pub(crate) clock: Clock,
}

impl Stage {
    /// Puts everything into a folder of its own, which goes when the stage does.
    pub(crate) fn set(clock: Clock, roots: Option<&Path>) -> anyhow::Result<Self> {
        let name = format!("landfall-footprint-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        let configuration = folder.join("landfall.toml");
        std::fs::write(&configuration, CONFIGURATION)?;
        Ok(Self {
            tls: Tls::new(&folder, roots)?,
            folder,
            configuration,
            clock,
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A process, which ends when it is dropped.
pub(crate) struct Sandbox {
    process: Process,
    api: RuntimeApi,
    cloud: Cloud,
    spawned: Duration,
}

impl Sandbox {
    /// Starts the function.
    pub(crate) async fn start(stage: &Stage, function: &Function) -> anyhow::Result<Self> {
        let clock = stage.clock.clone();
        let api = RuntimeApi::open(function.work.timeout(), clock.clone()).await?;
        let acceptor = stage.tls.acceptor.clone();
        let tenant = Arc::clone(&function.tenant);
        let cloud = Cloud::open(acceptor, tenant, clock.clone()).await?;
        let log = stage.folder.join("log");
        let output = File::create(&log)?;
        let mut command = Command::new(&function.program);
        command
            .args(&function.arguments)
            .env_clear()
            .envs(environment(stage, function, &api, &cloud))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // To find an interpreter by its name.
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let spawned = clock.monotonic();
        let child = command
            .spawn()
            .with_context(|| format!("start {}", function.program.display()))?;
        Ok(Self {
            process: Process { child, log, clock },
            api,
            cloud,
            spawned,
        })
    }

    /// From the start until the function asked for its first event; waits for it.
    pub(crate) async fn first_poll(&mut self) -> anyhow::Result<Duration> {
        let polled = self.api.first_poll();
        let polled = self.process.wait("its first poll", polled).await?;
        Ok(polled.saturating_sub(self.spawned))
    }

    /// Has an event worked on, and waits until the function asks for another.
    pub(crate) async fn invoke(&mut self, event: Bytes) -> anyhow::Result<Answer> {
        let invocation = async {
            let answer = self.api.invoke(event).await?;
            self.api.idle().await?;
            Ok(answer)
        };
        self.process.wait("an answer", invocation).await
    }

    /// The CPU time that it has used. It is waited for what it still does after it has asked for an event.
    pub(crate) async fn cpu(&self) -> anyhow::Result<Duration> {
        self.process.clock.sleep(REST).await;
        process::cpu(self.process.child.id())
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.process.child.id())
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.cloud.traffic()
    }

    /// Bytes that it has logged.
    pub(crate) fn logged(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(&self.process.log)?.len())
    }
}

/// How long a process is left in peace before its CPU time is read, and so before its first event, too.
const REST: Duration = Duration::from_millis(20);

/// What Lambda, the template and a test's AWS set.
fn environment(
    stage: &Stage,
    function: &Function,
    api: &RuntimeApi,
    cloud: &Cloud,
) -> Vec<(&'static str, String)> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let url = cloud.url();
    let queue = |name: &str| format!("{url}/123456789012/{name}");
    let mut variables = vec![
        ("AWS_LAMBDA_RUNTIME_API", api.address()),
        ("AWS_LAMBDA_FUNCTION_NAME", "footprint".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/footprint".to_owned()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "footprint".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("LAMBDA_TASK_ROOT", path(&stage.folder)),
        // Without a profile in it, as on Lambda.
        ("HOME", path(&stage.folder)),
        ("TZ", ":UTC".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        // As long as those of a role.
        ("AWS_ACCESS_KEY_ID", "ASIAFOOTPRINTEXAMPLE".to_owned()),
        (
            "AWS_SECRET_ACCESS_KEY",
            "footprint/not/a/real/key/0123456789abcde".to_owned(),
        ),
        ("AWS_SESSION_TOKEN", "FootprintNotARealToken00".repeat(40)),
        ("AWS_ENDPOINT_URL_DYNAMODB", url.clone()),
        ("AWS_ENDPOINT_URL_SQS", url.clone()),
        ("AWS_ENDPOINT_URL_KMS", url.clone()),
        ("AWS_ENDPOINT_URL", url.clone()),
        ("SSL_CERT_FILE", path(&stage.tls.roots)),
        ("AWS_CA_BUNDLE", path(&stage.tls.roots)),
        ("NODE_EXTRA_CA_CERTS", path(&stage.tls.authority)),
        ("RUST_LOG", "info".to_owned()),
        ("LANDFALL_CONFIG", path(&stage.configuration)),
        ("LANDFALL_APP_BASE_URL", format!("https://{HOST}")),
        ("LANDFALL_TABLE", "landfall-tracking".to_owned()),
        ("LANDFALL_RECORDS_TABLE", "landfall-records".to_owned()),
        ("LANDFALL_EVENTS_QUEUE_URL", queue("transfer-events")),
        ("LANDFALL_IMPORTS_QUEUE_URL", queue("import-jobs")),
        (
            "LANDFALL_EVENTS_DEAD_LETTER_QUEUE_URL",
            queue("transfer-events-dead"),
        ),
        (
            "LANDFALL_IMPORTS_DEAD_LETTER_QUEUE_URL",
            queue("import-jobs-dead"),
        ),
        ("LANDFALL_SECRET_KEY", SECRET_KEY.to_owned()),
    ];
    if function.tenant.sealed == Sealed::ByKms {
        variables.push(("LANDFALL_KMS_KEY", KMS_KEY.to_owned()));
    }
    variables
}

/// A child that doesn't outlive its owner.
struct Process {
    child: Child,
    log: PathBuf,
    clock: Clock,
}

impl Process {
    /// Waits for something that the process does, while it lives, and no longer than patience lasts.
    async fn wait<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let mut work = pin!(work);
        let give_up = self.clock.monotonic() + PATIENCE;
        loop {
            if let Ok(done) = self.clock.timeout(LOOK, &mut work).await {
                return done.with_context(|| self.last_words());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "it ended with {status} before {what}; {}",
                    self.last_words()
                );
            }
            if self.clock.monotonic() > give_up {
                bail!("no sign of {what}; {}", self.last_words());
            }
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LAST_WORDS)..];
        format!("its log ends with:\n{}", String::from_utf8_lossy(tail))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
