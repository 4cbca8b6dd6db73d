use std::path::PathBuf;

use secrecy::SecretString;

/// What the template sets on each function. Everything else is in `landfall.toml`.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `LANDFALL_CONFIG`: path of `landfall.toml`; beside the binary when unset.
    pub configuration: PathBuf,
    /// `LANDFALL_APP_BASE_URL`: the app's base URL, when the template knows it.
    pub app_base_url: Option<String>,
    /// `LANDFALL_TABLE`: the tracking table.
    pub table: String,
    /// `LANDFALL_RECORDS_TABLE`: where records land when the sink is DynamoDB.
    pub records_table: String,
    /// `LANDFALL_EVENTS_QUEUE_URL`: control events.
    pub events_queue_url: String,
    /// `LANDFALL_IMPORTS_QUEUE_URL`: files.
    pub imports_queue_url: String,
    /// `LANDFALL_EVENTS_DEAD_LETTER_QUEUE_URL`: only the sweeper reads it.
    pub events_dead_letter_queue_url: Option<String>,
    /// `LANDFALL_IMPORTS_DEAD_LETTER_QUEUE_URL`: only the sweeper reads it.
    pub imports_dead_letter_queue_url: Option<String>,
    /// `LANDFALL_SECRET_KEY`: base64 of 32 bytes: receipts' signing key is derived from them, and without a KMS key they seal tenants' secrets.
    pub secret_key: SecretString,
    /// `LANDFALL_KMS_KEY`: the KMS key whose data keys seal tenants' secrets; without it the secret key does.
    pub kms_key: Option<String>,
    /// `LANDFALL_SINK_SECRET`: `whsec_…`, signs deliveries to a partner's service.
    pub sink_secret: Option<SecretString>,
    /// `LANDFALL_SINK_BUCKET`: where records land when the sink is S3.
    pub sink_bucket: Option<String>,
}

impl Environment {
    /// Reads the process's environment. Each problem names its variable.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn of_process() -> Result<Self, Vec<String>> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads from anything that knows variables by name; an empty one counts as unset.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let optional = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let mut problems = Vec::new();
        let mut required = |name: &str| {
            optional(name).unwrap_or_else(|| {
                problems.push(format!(
                    "{name}: is not set in the environment; the template sets it"
                ));
                String::new()
            })
        };
        let environment = Self {
            configuration: optional("LANDFALL_CONFIG").map_or_else(
                || {
                    PathBuf::from(optional("LAMBDA_TASK_ROOT").unwrap_or_else(|| ".".to_owned()))
                        .join("landfall.toml")
                },
                PathBuf::from,
            ),
            app_base_url: optional("LANDFALL_APP_BASE_URL"),
            table: required("LANDFALL_TABLE"),
            records_table: required("LANDFALL_RECORDS_TABLE"),
            events_queue_url: required("LANDFALL_EVENTS_QUEUE_URL"),
            imports_queue_url: required("LANDFALL_IMPORTS_QUEUE_URL"),
            events_dead_letter_queue_url: optional("LANDFALL_EVENTS_DEAD_LETTER_QUEUE_URL"),
            imports_dead_letter_queue_url: optional("LANDFALL_IMPORTS_DEAD_LETTER_QUEUE_URL"),
            secret_key: SecretString::from(required("LANDFALL_SECRET_KEY")),
            kms_key: optional("LANDFALL_KMS_KEY"),
            sink_secret: optional("LANDFALL_SINK_SECRET").map(SecretString::from),
            sink_bucket: optional("LANDFALL_SINK_BUCKET"),
        };
        if problems.is_empty() {
            Ok(environment)
        } else {
            Err(problems)
        }
    }
}
