use std::path::PathBuf;

use secrecy::SecretString;

/// What Lambda and the template set for each function. Everything else is in `landfall.toml`.
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
    /// What Lambda sets.
    pub aws: Aws,
}

/// How AWS's services are reached: what Lambda sets for every function, and endpoints of a local cloud.
#[derive(Clone, Debug)]
pub struct Aws {
    /// `AWS_REGION`.
    pub region: String,
    /// `AWS_ACCESS_KEY_ID` of the function's role.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: SecretString,
    /// `AWS_SESSION_TOKEN`; a role's credentials have one.
    pub session_token: Option<SecretString>,
    /// `AWS_ENDPOINT_URL`: all services, in place of AWS's own addresses.
    pub endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_DYNAMODB`: this one only.
    pub dynamodb_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_KMS`.
    pub kms_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_S3`.
    pub s3_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_SQS`.
    pub sqs_endpoint: Option<String>,
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
                    "{name}: is not set in the environment; Lambda or the template sets it"
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
            aws: Aws {
                region: required("AWS_REGION"),
                access_key_id: required("AWS_ACCESS_KEY_ID"),
                secret_access_key: SecretString::from(required("AWS_SECRET_ACCESS_KEY")),
                session_token: optional("AWS_SESSION_TOKEN").map(SecretString::from),
                endpoint: optional("AWS_ENDPOINT_URL"),
                dynamodb_endpoint: optional("AWS_ENDPOINT_URL_DYNAMODB"),
                kms_endpoint: optional("AWS_ENDPOINT_URL_KMS"),
                s3_endpoint: optional("AWS_ENDPOINT_URL_S3"),
                sqs_endpoint: optional("AWS_ENDPOINT_URL_SQS"),
            },
        };
        if problems.is_empty() {
            Ok(environment)
        } else {
            Err(problems)
        }
    }
}
