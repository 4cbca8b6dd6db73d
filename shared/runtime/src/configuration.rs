use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use landfall_import::declaration::{OnRerun, Sink, SinkKind};
use landfall_import::{Declaration, Import, Limits};
use landfall_platform::event::is_identity;
use landfall_platform::forge;
use landfall_platform::hosts::{self, Hosts};
use landfall_tracking::SecretKey;
use landfall_transfer::{Clocks, IntakeClocks, WorkClocks};
use serde::Deserialize;
use url::Url;

use crate::environment::Environment;

/// Everything that the outside decides, checked.
#[derive(Debug)]
pub struct Configuration {
    /// The app as the platform knows it.
    pub app: App,
    /// The Connect flavour of the platform.
    pub connect: Connect,
    /// The Forge flavour of the platform; none when the app is not there.
    pub forge: Option<Forge>,
    /// Hosts that signed URLs may name.
    pub download_hosts: Hosts,
    /// How the end of an export is recognised.
    pub completeness: Completeness,
    /// The clocks of a transfer's life.
    pub clocks: Clocks,
    /// The clocks of intake.
    pub intake: IntakeClocks,
    /// The clocks of the processor.
    pub work: WorkClocks,
    /// How files become records.
    pub import: Declaration,
    /// What signs receipts, and seals tenants' secrets where there is no KMS key.
    pub secret_key: Arc<SecretKey>,
    /// What the template set.
    pub environment: Environment,
}

/// `[app]`.
#[derive(Clone, Debug)]
pub struct App {
    /// What the app is known by: the key of its Connect descriptor, `iss` of our own calls; of one that is on Forge alone, its ARI.
    pub key: String,
    /// Where the platform calls us: `aud` of lifecycle callbacks, and the base of query string hashes.
    pub base_url: Url,
}

/// `[connect]`.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Where the public keys of lifecycle callbacks are.
    pub install_key_server: Url,
    /// Hosts that a tenant's base URL may name.
    pub tenant_hosts: Hosts,
    /// What a body that names another tenant than the token means.
    pub foreign_client_keys: ForeignClientKeys,
}

/// `[forge]`.
#[derive(Clone, Debug)]
pub struct Forge {
    /// The app's ARI: `aud` of invocation tokens.
    pub app: String,
    /// Where the public keys of invocation tokens are.
    pub key_set: Url,
    /// Base of the migration API.
    pub api: Url,
    /// Hosts that the base of a product's API may name.
    pub api_hosts: Hosts,
    /// When the message of a file may be answered `SUCCESS`.
    pub acknowledge: Acknowledge,
}

/// `forge.acknowledge`: what a file's message, answered `SUCCESS`, says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// That its records are in the target.
    #[default]
    Applied,
    /// That its records, their ids replaced, are in a bucket of the partner's. A second phase, of which the platform knows nothing, brings them into the target.
    Staged,
}

/// `connect.foreign_client_keys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignClientKeys {
    /// Handle the event as the token's tenant's, and note it.
    #[default]
    Accept,
    /// Answer 403.
    Refuse,
}

/// `[completeness]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Completeness {
    /// Label of the manifest that an exporter may upload last.
    pub manifest_label: String,
    /// Whether labels such as `x-0003-of-0007` say how many files there are.
    pub counted_labels: bool,
    /// No new file for this long, and the platform lists none: complete.
    #[serde(with = "humantime_serde")]
    quiet_period: Duration,
    /// No file at all for this long, and the platform lists none: nothing was exported.
    #[serde(with = "humantime_serde")]
    no_file_period: Option<Duration>,
}

/// What the ARI of every Forge app begins with (PROTOCOL.md 7.5).
const FORGE_APP: &str = "ari:cloud:ecosystem::app/";

/// Why a function does not start: every problem, each with its key.
#[derive(Debug, thiserror::Error)]
pub struct Invalid(Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "start with this configuration: {}",
            self.0.join("; ")
        )
    }
}

impl Invalid {
    /// The problems, each beginning with its key.
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Option<u32>,
    #[serde(default)]
    app: AppSection,
    #[serde(default)]
    connect: ConnectSection,
    forge: Option<ForgeSection>,
    #[serde(default)]
    downloads: DownloadsSection,
    #[serde(default)]
    completeness: Completeness,
    #[serde(default)]
    clocks: ClocksSection,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    imports: Vec<Import>,
    #[serde(default)]
    sink: Sink,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AppSection {
    key: Option<String>,
    base_url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConnectSection {
    install_key_server: String,
    tenant_hosts: Vec<String>,
    foreign_client_keys: ForeignClientKeys,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ForgeSection {
    app: String,
    key_set: String,
    api: String,
    api_hosts: Vec<String>,
    acknowledge: Acknowledge,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DownloadsSection {
    hosts: Vec<String>,
}

macro_rules! clocks {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct ClocksSection {
            $(#[serde(with = "humantime_serde")] $name: Option<Duration>,)*
        }
    };
}

clocks!(
    answer_within,
    write_within,
    tenant_cache,
    secret_overlap,
    jwt_leeway,
    slice,
    lease,
    message_grace,
    hold_again_after,
    work_stale_after,
    export_silence,
    hard_deadline,
    cancel_settle_by,
    listener_error_drain,
    forge_answer_by,
    progress_interval,
    waiting_report_interval,
    reconcile_interval,
    settle_confirm_after,
    settle_retry_first,
    settle_retry_max,
    call_timeout,
    retry_pause,
);

impl Default for Completeness {
    fn default() -> Self {
        Self {
            manifest_label: "export-manifest".to_owned(),
            counted_labels: true,
            quiet_period: Clocks::default().quiet_period,
            no_file_period: None,
        }
    }
}

impl Default for ConnectSection {
    fn default() -> Self {
        Self {
            // PROTOCOL.md 4.1.
            install_key_server: "https://connect-install-keys.atlassian.com".to_owned(),
            tenant_hosts: vec!["*.atlassian.net".to_owned(), "*.jira.com".to_owned()],
            foreign_client_keys: ForeignClientKeys::default(),
        }
    }
}

impl Default for ForgeSection {
    fn default() -> Self {
        Self {
            app: String::new(),
            key_set: forge::keys::PUBLISHED.to_owned(),
            api: forge::client::BASE_URL.to_owned(),
            // PROTOCOL.md 7.5.
            api_hosts: vec!["api.atlassian.com".to_owned()],
            acknowledge: Acknowledge::default(),
        }
    }
}

impl Default for DownloadsSection {
    fn default() -> Self {
        Self {
            hosts: ["*.amazonaws.com", "*.atlassian.com", "*.atlassian.net"]
                .map(str::to_owned)
                .into(),
        }
    }
}

impl Configuration {
    /// Reads the file that the environment names and checks everything.
    pub fn load() -> Result<Self, Invalid> {
        let environment = Environment::of_process().map_err(Invalid)?;
        let text = read(&environment.configuration)?;
        Self::parse(&text, environment)
    }

    /// Checks a file's text against the environment.
    pub fn parse(text: &str, environment: Environment) -> Result<Self, Invalid> {
        let file: File = toml::from_str(text).map_err(|error| {
            Invalid(vec![format!(
                "landfall.toml: {}",
                error.to_string().trim().replace('\n', " ")
            )])
        })?;
        let mut problems = Vec::new();
        if file.version != Some(1) {
            problems.push("version: must be 1, the version of this file's keys".to_owned());
        }
        let forge_app = file.forge.as_ref().map(|forge| forge.app.clone());
        let key = file
            .app
            .key
            .filter(|key| !key.trim().is_empty())
            .or(forge_app);
        if key.is_none() {
            problems.push(
                "app.key: is missing; it is the `key` of the app's Connect descriptor. An app on Forge alone has forge.app instead".to_owned(),
            );
        }
        let base_url = base_url(
            file.app.base_url.as_deref(),
            environment.app_base_url.as_deref(),
            &mut problems,
        );
        let install_key_server = url(
            "connect.install_key_server",
            &file.connect.install_key_server,
            &mut problems,
        );
        let tenant_hosts = host_list(
            "connect.tenant_hosts",
            &file.connect.tenant_hosts,
            &mut problems,
        );
        let forge = file.forge.and_then(|section| forge(section, &mut problems));
        let download_hosts = host_list("downloads.hosts", &file.downloads.hosts, &mut problems);
        let on_forge = forge.is_some();
        let (clocks, intake, work) = clocks(&file.clocks, &file.completeness, on_forge);
        problems.extend(clocks.problems());
        problems.extend(intake.problems());
        problems.extend(work.problems(&clocks, &intake));
        if file.completeness.manifest_label.is_empty() {
            problems.push("completeness.manifest_label: must not be empty; files without a label have no manifest among them".to_owned());
        }
        let import = Declaration {
            imports: file.imports,
            sink: file.sink,
            limits: file.limits,
        };
        problems.extend(import.validate().iter().map(ToString::to_string));
        problems.extend(sink_problems(&import.sink, &environment, &work));
        if acknowledges(forge.as_ref()) == Acknowledge::Staged {
            problems.extend(stage_problems(&import, &environment, &work));
        }
        let secret_key = SecretKey::from_base64(&environment.secret_key)
            .map(Arc::new)
            .map_err(|error| problems.push(format!("LANDFALL_SECRET_KEY: failed to {error}")))
            .ok();
        match (
            key,
            base_url,
            install_key_server,
            tenant_hosts,
            download_hosts,
            secret_key,
        ) {
            (
                Some(key),
                Some(base_url),
                Some(install_key_server),
                Some(tenant_hosts),
                Some(download_hosts),
                Some(secret_key),
            ) if problems.is_empty() => Ok(Self {
                app: App { key, base_url },
                connect: Connect {
                    install_key_server,
                    tenant_hosts,
                    foreign_client_keys: file.connect.foreign_client_keys,
                },
                forge,
                download_hosts,
                completeness: file.completeness,
                clocks,
                intake,
                work,
                import,
                secret_key,
                environment,
            }),
            _ => Err(Invalid(problems)),
        }
    }

    /// Whether the records of a transfer on Forge are put into a bucket first.
    pub fn is_staged(&self) -> bool {
        acknowledges(self.forge.as_ref()) == Acknowledge::Staged
    }

    /// Whether the app has a Connect descriptor. One that is on Forge alone has none, and no tenants there.
    pub fn is_on_connect(&self) -> bool {
        self.forge
            .as_ref()
            .is_none_or(|forge| forge.app != self.app.key)
    }
}

/// What is said of the app on Forge, checked; the problems tell what is wrong when there is nothing.
fn forge(section: ForgeSection, problems: &mut Vec<String>) -> Option<Forge> {
    let is_app = section.app.strip_prefix(FORGE_APP).is_some_and(is_identity);
    if !is_app {
        problems.push(format!(
            "forge.app: must be the ARI of the app, `app.id` of its manifest: {FORGE_APP} and an id"
        ));
    }
    let key_set = url("forge.key_set", &section.key_set, problems);
    let api = url("forge.api", &section.api, problems);
    let api_hosts = host_list("forge.api_hosts", &section.api_hosts, problems);
    Some(Forge {
        app: section.app,
        key_set: key_set?,
        api: api?,
        api_hosts: api_hosts?,
        acknowledge: section.acknowledge,
    })
}

fn acknowledges(forge: Option<&Forge>) -> Acknowledge {
    forge.map_or_else(Acknowledge::default, |forge| forge.acknowledge)
}

/// What a stage needs of the sink behind it, of the environment and of the clocks.
fn stage_problems(
    import: &Declaration,
    environment: &Environment,
    work: &WorkClocks,
) -> Vec<String> {
    let (sink, mut problems) = (&import.sink, Vec::new());
    if import
        .imports
        .iter()
        .any(|import| import.on_rerun == OnRerun::Refuse)
    {
        problems.push("imports[].on_rerun: must not be \"refuse\" when forge.acknowledge is \"staged\"; only the second phase of a re-run could refuse, when the platform shows it as SUCCESS".to_owned());
    }
    let why_not = match sink.kind {
        SinkKind::Http | SinkKind::Custom => None,
        SinkKind::Jira => {
            Some("Jira takes what is migrated only while the platform has the transfer as active")
        }
        SinkKind::Dynamodb | SinkKind::S3 => Some(
            "what it takes is in your own account already, as quickly as it could be staged there",
        ),
    };
    if let Some(why_not) = why_not {
        problems.push(format!("forge.acknowledge: must be \"applied\" unless sink.kind is \"http\" or \"custom\"; of this sink, {why_not}"));
    } else if environment.sink_bucket.is_none() {
        problems.push("LANDFALL_SINK_BUCKET: must be set when forge.acknowledge is \"staged\"; the template's parameter SinkBucket sets it".to_owned());
    }
    if work.lease < work.slice + sink.timeout() && sink.kind == SinkKind::Custom {
        problems.push("clocks.lease: must be at least clocks.slice plus sink.timeout, or a worker would be taken over while it stores records".to_owned());
    }
    problems
}

/// What the declared sink needs of the environment and of the clocks.
fn sink_problems(sink: &Sink, environment: &Environment, work: &WorkClocks) -> Vec<String> {
    let mut problems = Vec::new();
    match sink.kind {
        SinkKind::Http if environment.sink_secret.is_none() => {
            problems.push("LANDFALL_SINK_SECRET: must be set when sink.kind is \"http\"; the template's parameter SinkSecret sets it".to_owned());
        }
        SinkKind::S3 if environment.sink_bucket.is_none() => {
            problems.push("LANDFALL_SINK_BUCKET: must be set when sink.kind is \"s3\"; the template's parameter SinkBucket sets it".to_owned());
        }
        _ => {}
    }
    let calls_outside = matches!(sink.kind, SinkKind::Http | SinkKind::S3);
    if calls_outside && work.lease < work.slice + sink.timeout() {
        problems.push("clocks.lease: must be at least clocks.slice plus sink.timeout, or a worker would be taken over while it delivers".to_owned());
    }
    problems
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one file that is read at start-up"
)]
fn read(path: &Path) -> Result<String, Invalid> {
    std::fs::read_to_string(path).map_err(|error| {
        Invalid(vec![format!(
            "LANDFALL_CONFIG: failed to read {}: {error}",
            path.display()
        )])
    })
}

/// The base URL stands in one place. In two places it must be the same, or nobody knows which is meant.
fn base_url(
    in_file: Option<&str>,
    in_environment: Option<&str>,
    problems: &mut Vec<String>,
) -> Option<Url> {
    let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
    let url = match (in_file.map(trimmed), in_environment.map(trimmed)) {
        (Some(file), Some(environment)) if file != environment => {
            problems.push("app.base_url: differs from LANDFALL_APP_BASE_URL; state it once, in landfall.toml or as the template's parameter AppBaseUrl".to_owned());
            return None;
        }
        (Some(url), _) | (None, Some(url)) => url,
        (None, None) => {
            problems.push("app.base_url: is missing; state it in landfall.toml or as the template's parameter AppBaseUrl (LANDFALL_APP_BASE_URL)".to_owned());
            return None;
        }
    };
    self::url("app.base_url", &url, problems)
}

fn url(key: &str, given: &str, problems: &mut Vec<String>) -> Option<Url> {
    hosts::configured(given)
        .map_err(|error| problems.push(format!("{key}: {error}")))
        .ok()
}

fn host_list(key: &str, entries: &[String], problems: &mut Vec<String>) -> Option<Hosts> {
    if entries.is_empty() {
        problems.push(format!("{key}: must name at least one host"));
    }
    Hosts::parse(entries)
        .map_err(|error| problems.push(format!("{key}: {error}")))
        .ok()
}

fn clocks(
    given: &ClocksSection,
    completeness: &Completeness,
    on_forge: bool,
) -> (Clocks, IntakeClocks, WorkClocks) {
    let default = Clocks::default();
    let clocks = Clocks {
        work_stale_after: given.work_stale_after.unwrap_or(default.work_stale_after),
        export_silence: given.export_silence.unwrap_or(default.export_silence),
        hard_deadline: given.hard_deadline.unwrap_or(default.hard_deadline),
        cancel_settle_by: given.cancel_settle_by.unwrap_or(default.cancel_settle_by),
        listener_error_drain: given
            .listener_error_drain
            .unwrap_or(default.listener_error_drain),
        forge_answer_by: given.forge_answer_by.unwrap_or(default.forge_answer_by),
        progress_interval: given.progress_interval.unwrap_or(default.progress_interval),
        waiting_report_interval: given
            .waiting_report_interval
            .unwrap_or(default.waiting_report_interval),
        reconcile_interval: given
            .reconcile_interval
            .unwrap_or(default.reconcile_interval),
        quiet_period: completeness.quiet_period,
        // Whoever shortens the silence means this one, too.
        no_file_period: completeness.no_file_period.unwrap_or_else(|| {
            let silence = given.export_silence.unwrap_or(default.export_silence);
            default.no_file_period.min(silence)
        }),
        settle_confirm_after: given
            .settle_confirm_after
            .unwrap_or(default.settle_confirm_after),
        settle_retry_first: given
            .settle_retry_first
            .unwrap_or(default.settle_retry_first),
        settle_retry_max: given.settle_retry_max.unwrap_or(default.settle_retry_max),
        call_timeout: given.call_timeout.unwrap_or(default.call_timeout),
        retry_pause: given.retry_pause.unwrap_or(default.retry_pause),
    };
    let default = IntakeClocks::default();
    let intake = IntakeClocks {
        answer_within: given.answer_within.unwrap_or(default.answer_within),
        write_within: given.write_within.unwrap_or(default.write_within),
        tenant_cache: given.tenant_cache.unwrap_or(default.tenant_cache),
        secret_overlap: given.secret_overlap.unwrap_or(default.secret_overlap),
        jwt_leeway: given.jwt_leeway.unwrap_or(default.jwt_leeway),
    };
    let default = WorkClocks::default();
    let message_grace = given.message_grace.unwrap_or(default.message_grace);
    let work = WorkClocks {
        slice: given.slice.unwrap_or(default.slice),
        lease: given.lease.unwrap_or(default.lease),
        message_grace,
        // Whoever gives work up sooner means this one, too.
        hold_again_after: given.hold_again_after.unwrap_or_else(|| {
            let room = clocks.work_stale_after.saturating_sub(message_grace);
            let longest = default.hold_again_after.min(room / 2);
            if on_forge {
                // A file that waits for its second pass can't be answered, and the window doesn't wait for it.
                longest.min(clocks.forge_answer_by / 4)
            } else {
                longest
            }
        }),
    };
    (clocks, intake, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "version = 1\n[app]\nkey = \"com.example.app\"\nbase_url = \"https://app.example.com/x\"\n[[imports]]\nlabel = \"*\"\n";

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            let given = pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value);
            given
                .or(match name {
                    "LANDFALL_SECRET_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
                    "LANDFALL_CONFIG"
                    | "LANDFALL_APP_BASE_URL"
                    | "LANDFALL_SINK_SECRET"
                    | "LANDFALL_SINK_BUCKET"
                    | "LAMBDA_TASK_ROOT" => None,
                    _ => Some("something"),
                })
                .map(str::to_owned)
        })
        .unwrap()
    }

    fn problems(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        match Configuration::parse(text, environment(pairs)) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.problems().to_vec(),
        }
    }

    #[test]
    fn the_smallest_file_starts_with_the_documented_defaults() {
        let configuration = Configuration::parse(MINIMAL, environment(&[])).unwrap();
        assert_eq!(configuration.clocks, Clocks::default());
        assert_eq!(configuration.work.slice, Duration::from_mins(1));
        assert_eq!(configuration.completeness.manifest_label, "export-manifest");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let found = problems("", &[]);
        for key in ["version:", "app.key:", "app.base_url:"] {
            assert!(
                found.iter().any(|problem| problem.starts_with(key)),
                "{key} in {found:?}"
            );
        }
    }

    const FORGE: &str =
        "[forge]\napp = \"ari:cloud:ecosystem::app/0c8f1d3e-0000-4000-8000-000000000001\"\n";

    #[test]
    fn an_app_on_forge_too_names_its_ari_and_has_the_documented_defaults() {
        assert!(
            Configuration::parse(MINIMAL, environment(&[]))
                .unwrap()
                .forge
                .is_none()
        );
        let configuration =
            Configuration::parse(&format!("{MINIMAL}{FORGE}"), environment(&[])).unwrap();
        assert!(configuration.is_on_connect());
        assert_eq!(configuration.app.key, "com.example.app");
        let forge = configuration.forge.unwrap();
        assert_eq!(
            forge.app,
            "ari:cloud:ecosystem::app/0c8f1d3e-0000-4000-8000-000000000001"
        );
        assert_eq!(forge.key_set.as_str(), forge::keys::PUBLISHED);
        assert_eq!(forge.api.as_str(), forge::client::BASE_URL);
        assert_eq!(
            forge.api_hosts,
            Hosts::parse(["api.atlassian.com"]).unwrap()
        );
    }

    #[test]
    fn an_app_on_forge_alone_needs_no_key_of_a_descriptor() {
        let text = MINIMAL.replace("key = \"com.example.app\"\n", "");
        assert!(problems(&text, &[])[0].starts_with("app.key:"));
        let configuration =
            Configuration::parse(&format!("{text}{FORGE}"), environment(&[])).unwrap();
        assert!(!configuration.is_on_connect());
        assert_eq!(configuration.app.key, configuration.forge.unwrap().app);
    }

    #[test]
    fn what_is_wrong_with_the_app_on_forge_is_named_at_once() {
        let wrong = "[forge]\napp = \"0c8f1d3e\"\nkey_set = \"http://keys.example.com\"\napi = \"x\"\napi_hosts = []\n";
        let found = problems(&format!("{MINIMAL}{wrong}"), &[]);
        let keys: Vec<_> = found
            .iter()
            .filter_map(|problem| problem.split(": ").next())
            .collect();
        assert_eq!(
            keys,
            ["forge.app", "forge.key_set", "forge.api", "forge.api_hosts"]
        );
        assert!(
            problems(&format!("{MINIMAL}[forge]\n"), &[])[0].starts_with("forge.app:"),
            "a section without the app says nothing"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let found = problems(&format!("{MINIMAL}[clocks]\nslcie = \"1s\"\n"), &[]);
        assert!(found[0].contains("slcie"), "{found:?}");
    }

    #[test]
    fn a_base_url_in_two_places_must_be_the_same() {
        let elsewhere = [("LANDFALL_APP_BASE_URL", "https://other.example.com")];
        assert!(problems(MINIMAL, &elsewhere)[0].starts_with("app.base_url: differs"));
        let same = [("LANDFALL_APP_BASE_URL", "https://app.example.com/x/")];
        assert_eq!(problems(MINIMAL, &same), Vec::<String>::new());
    }

    #[test]
    fn plain_http_is_refused_except_to_a_named_loopback_host() {
        let http = MINIMAL.replace("https", "http");
        assert!(problems(&http, &[])[0].starts_with("app.base_url:"));
        let local = MINIMAL.replace("https://app.example.com/x", "http://127.0.0.1:4566/x");
        assert_eq!(problems(&local, &[]), Vec::<String>::new());
    }

    #[test]
    fn clocks_reach_down_to_milliseconds_and_contradictions_are_named() {
        let scaled = format!("{MINIMAL}[clocks]\nslice = \"250ms\"\nlease = \"400ms\"\n");
        let configuration = Configuration::parse(&scaled, environment(&[])).unwrap();
        assert_eq!(configuration.work.slice, Duration::from_millis(250));
        let upside_down = format!("{MINIMAL}[clocks]\nslice = \"2m\"\n");
        assert!(problems(&upside_down, &[])[0].starts_with("clocks.lease:"));
    }

    #[test]
    fn held_records_are_asked_again_in_time_also_where_work_is_given_up_sooner() {
        let pause = |clocks: &str| {
            let text = format!("{MINIMAL}[clocks]\n{clocks}");
            let configuration = Configuration::parse(&text, environment(&[])).unwrap();
            configuration.work.hold_again_after
        };
        assert_eq!(pause(""), Duration::from_mins(15));
        let forge =
            "[forge]\napp = \"ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001\"\n";
        assert_eq!(pause(forge), Duration::from_mins(3));
        let scaled = "work_stale_after = \"10m\"\n";
        assert_eq!(pause(scaled), Duration::from_mins(4));
        let said = format!("{scaled}hold_again_after = \"8m\"\n");
        assert_eq!(pause(&said), Duration::from_mins(8));
        let later = format!("{MINIMAL}[clocks]\n{scaled}hold_again_after = \"481s\"\n");
        assert!(problems(&later, &[])[0].starts_with("clocks.hold_again_after:"));
    }

    #[test]
    fn an_http_sink_needs_its_secret() {
        let http = format!(
            "{MINIMAL}[clocks]\nlease = \"2m\"\n[sink]\nkind = \"http\"\nurl = \"https://sink.example.com/batches\"\n"
        );
        assert!(problems(&http, &[])[0].starts_with("LANDFALL_SINK_SECRET:"));
        assert_eq!(
            problems(
                &http,
                &[("LANDFALL_SINK_SECRET", "whsec_c2VjcmV0c2VjcmV0c2VjcmV0")]
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_s3_sink_needs_its_bucket_and_a_lease_that_outlasts_a_call() {
        let s3 = format!("{MINIMAL}[sink]\nkind = \"s3\"\n");
        assert!(problems(&s3, &[])[0].starts_with("LANDFALL_SINK_BUCKET:"));
        let bucket = [("LANDFALL_SINK_BUCKET", "the-bucket")];
        assert_eq!(problems(&s3, &bucket), Vec::<String>::new());
        let short = format!("{s3}[clocks]\nlease = \"79s\"\n");
        assert!(problems(&short, &bucket)[0].starts_with("clocks.lease:"));
    }

    #[test]
    fn a_stage_needs_a_bucket_and_a_sink_that_it_helps() {
        let staged = |kind: &str| {
            format!(
                "{MINIMAL}{FORGE}acknowledge = \"staged\"\n[sink]\nkind = \"{kind}\"\n{}",
                if kind == "http" {
                    "url = \"https://sink.example.com/batches\"\n"
                } else {
                    ""
                }
            )
        };
        let set = [
            ("LANDFALL_SINK_SECRET", "whsec_c2VjcmV0c2VjcmV0c2VjcmV0"),
            ("LANDFALL_SINK_BUCKET", "the-bucket"),
        ];
        for kind in ["http", "custom"] {
            let configuration = Configuration::parse(&staged(kind), environment(&set)).unwrap();
            assert!(configuration.is_staged());
            let without = problems(&staged(kind), &set[..1]);
            assert!(
                without[0].starts_with("LANDFALL_SINK_BUCKET:"),
                "{without:?}"
            );
        }
        for kind in ["dynamodb", "s3"] {
            let refused = problems(&staged(kind), &set);
            assert!(
                refused[0].starts_with("forge.acknowledge:"),
                "{kind}: {refused:?}"
            );
        }
        let jira = problems(&staged("jira"), &set);
        assert!(
            jira.iter()
                .any(|problem| problem.starts_with("forge.acknowledge:")),
            "{jira:?}"
        );
        let refuse = "label = \"*\"\non_rerun = \"refuse\"\n";
        let refuse = staged("http").replace("label = \"*\"\n", refuse);
        assert!(problems(&refuse, &set)[0].starts_with("imports[].on_rerun:"));
        let short = format!("{}[clocks]\nlease = \"79s\"\n", staged("custom"));
        assert!(problems(&short, &set)[0].starts_with("clocks.lease:"));
        let applied = format!("{MINIMAL}{FORGE}");
        let applied = Configuration::parse(&applied, environment(&[])).unwrap();
        assert!(!applied.is_staged());
    }

    #[test]
    fn a_variable_that_the_template_forgot_is_named() {
        let missing = Environment::read(|_| None).unwrap_err();
        assert!(
            missing
                .iter()
                .any(|problem| problem.starts_with("LANDFALL_TABLE:"))
        );
    }
}
