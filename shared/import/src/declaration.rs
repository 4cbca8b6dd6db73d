//! What a partner declares in `landfall.toml`: the sections `[[imports]]`, `[sink]` and `[limits]`. The README documents them key by key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use url::{Host, Url};

use crate::csv::Columns;
use crate::format::without_compression_suffix;
use crate::mapping::{Rewriter, Uncompilable, key_problem, pattern, within_problem};
use crate::pointers::WILDCARD;
use crate::ports::{COMMIT_WRITES, MAPPING_KEYS};
use crate::sink::jira::{PROPERTY_KEY_CHARACTERS, Takes};
use crate::sink::s3::PREFIX_BYTES;

/// Default of `[sink] timeout`.
const SINK_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest `[sink] timeout`: a delivery must end well within a slice's lease.
const SINK_TIMEOUT_MAX: Duration = Duration::from_mins(1);

/// The largest `limits.batch_bytes`: with [`GROWTH_BYTES`](crate::mapping::GROWTH_BYTES) a record it stays below a commit's size.
pub(crate) const BATCH_BYTES_MAX: usize = 2_097_152;

/// Default of `limits.file_bytes`: ten times the platform's largest file (PROTOCOL.md 9), for what compression makes of it.
const FILE_BYTES: u64 = 250_000_000_000;

/// Share of failing records that ends a file early where none is declared: more than nine of ten fail only where something is declared wrongly.
pub(crate) const FAIL_ABOVE: Share = Share(9_000);

/// The most mappings one import may declare; each is a lookup for every record.
const MAPPINGS_MAX: usize = 32;

/// The longest placeholder, in bytes.
const PLACEHOLDER_BYTES: usize = 256;

/// How files become records: everything the engine takes from `landfall.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declaration {
    /// One entry per kind of file, the first that matches a label counts.
    pub imports: Vec<Import>,
    /// Where the records go.
    pub sink: Sink,
    /// Bounds of what is read, held and written at once.
    pub limits: Limits,
}

/// How the files with certain labels are imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Glob over the file's label, as it is and without a `.gz` or `.zst` at its end.
    pub label: String,
    /// JSON pointer to what identifies a record within its label; without it the content does.
    pub natural_key: Option<String>,
    /// What a re-run does with records that an earlier attempt has landed.
    #[serde(default)]
    pub on_rerun: OnRerun,
    /// What becomes of the digests that an export manifest gives of its files.
    #[serde(default)]
    pub digest: FileDigest,
    /// How records are told apart in the file.
    #[serde(default)]
    pub format: Format,
    /// How rows become records, with `format = "csv"`.
    #[serde(default)]
    pub csv: Csv,
    /// What records write, with the Jira sink.
    pub jira: Option<Jira>,
    /// Which ids are replaced.
    #[serde(default)]
    pub mappings: Vec<Mapping>,
    /// Share of rejected and held records above which a file ends with a problem, such as `5%`.
    pub fail_above: Option<String>,
    /// Whether its files are ones that the S3 sink wrote: each line holds a record, rewritten already, and its key. Never declared; [`Import::of_stage`] sets it.
    #[serde(skip)]
    pub staged: bool,
}

impl Import {
    /// The same import for its files once they were staged by [`S3Sink`](crate::sink::s3::S3Sink): nothing is looked up any more, and each record keeps
    /// the key that it had.
    #[must_use]
    pub fn of_stage(&self) -> Self {
        let is_raw = self.format == Format::Raw;
        Self {
            natural_key: None,
            // No manifest names a staged file.
            digest: FileDigest::Ignore,
            format: if is_raw { Format::Raw } else { Format::Ndjson },
            csv: Csv::default(),
            mappings: Vec::new(),
            staged: !is_raw,
            ..self.clone()
        }
    }
}

/// A share of a whole, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    /// Parts of the whole.
    pub(crate) const WHOLE: u32 = 10_000;

    /// Reads `5%` or `0.25%`, from 0 to 100.
    fn parse(text: &str) -> Option<Self> {
        let percent = text.strip_suffix('%')?;
        let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
        let is_number = |digits: &str, most: usize| {
            (1..=most).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
        };
        if !is_number(whole, 3) || !is_number(fraction, 2) {
            return None;
        }
        let parts =
            whole.parse::<u32>().ok()? * 100 + format!("{fraction:0<2}").parse::<u32>().ok()?;
        (parts <= Self::WHOLE).then_some(Self(parts))
    }

    pub(crate) const fn parts(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 100, self.0 % 100);
        match (fraction, fraction % 10) {
            (0, _) => write!(formatter, "{whole} %"),
            (_, 0) => write!(formatter, "{whole}.{} %", fraction / 10),
            _ => write!(formatter, "{whole}.{fraction:02} %"),
        }
    }
}

/// `on_rerun` of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRerun {
    /// Only what is missing, failed or changed is applied.
    #[default]
    Delta,
    /// Everything is applied again, as if nothing had been.
    Replace,
    /// A file of which an earlier attempt has landed any record ends with a problem.
    Refuse,
}

/// `digest` of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileDigest {
    /// They are compared with what was read. All bytes of a file are hashed for it, which takes a quarter of the CPU time of lines that are passed
    /// through: a manifest usually comes last, so what it will say isn't known by then.
    #[default]
    Verify,
    /// They are not compared: for an exporter that gives none. A raw file is hashed nevertheless, as its record.
    Ignore,
}

/// `format` of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By the label's suffix and the first character.
    #[default]
    Auto,
    /// One JSON value a line.
    Ndjson,
    /// One JSON array, its elements are the records.
    Json,
    /// Rows of comma separated values.
    Csv,
    /// No records: the file is passed through as it is, an attachment for example.
    Raw,
}

/// `[imports.csv]`: how rows become records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Csv {
    /// What stands between two fields; a comma where nothing is declared.
    pub delimiter: Option<char>,
    /// Names of the columns of files whose first row is a record; where none are declared, the first row names them.
    pub columns: Option<Vec<String>>,
    /// Types of columns, by name.
    pub types: BTreeMap<String, ColumnType>,
    /// A field that is exactly this text is `null`.
    pub null: Option<String>,
}

impl Csv {
    /// What stands between two fields.
    pub(crate) fn delimiter(&self) -> u8 {
        let declared = self
            .delimiter
            .and_then(|delimiter| u8::try_from(delimiter).ok());
        declared.unwrap_or(b',')
    }
}

/// `[imports.jira]`: what each record of an import writes in Jira. Pointers lead into the record after its ids were replaced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jira {
    /// Which kind of value.
    #[serde(rename = "type")]
    pub kind: JiraType,
    /// Pointer to the id of the issue or other entity.
    pub id: String,
    /// Pointer to the id of the custom field; for types of fields only.
    pub field: Option<String>,
    /// The property's key, or, where it begins with `/`, a pointer to it; for types of properties only.
    pub key: Option<String>,
    /// Pointer to the value.
    pub value: String,
}

/// The types of values that Jira takes from migrating apps, in its own words (PROTOCOL.md 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the platform's own names say what they are")]
pub enum JiraType {
    StringIssueField,
    NumberIssueField,
    RichTextIssueField,
    TextIssueField,
    SingleSelectIssueField,
    MultiSelectIssueField,
    IssueProperty,
    CommentProperty,
    DashboardItemProperty,
    IssueTypeProperty,
    ProjectProperty,
    UserProperty,
    WorklogProperty,
    BoardProperty,
    SprintProperty,
}

impl JiraType {
    /// The platform's name for it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether it is a value of a custom field; otherwise it is a property.
    pub fn is_field(self) -> bool {
        self.field().is_some()
    }

    /// Of a field: which member holds its value, and what that must be.
    pub(crate) fn field(self) -> Option<(&'static str, Takes)> {
        match self {
            Self::StringIssueField => Some(("string", Takes::Text)),
            Self::NumberIssueField => Some(("number", Takes::Number)),
            Self::RichTextIssueField => Some(("richText", Takes::Text)),
            Self::TextIssueField => Some(("text", Takes::Text)),
            Self::SingleSelectIssueField | Self::MultiSelectIssueField => {
                Some(("optionID", Takes::Option))
            }
            _ => None,
        }
    }
}

impl Jira {
    fn validate(&self, at: &str, problems: &mut Problems) {
        let mut pointer = |name: &str, pointer: &str| {
            let key = format!("{at}.{name}");
            if let Some(message) = pointer_problem(pointer) {
                problems.add(key, message);
            } else if has_wildcard(pointer) {
                problems.add(key, "must lead to one value; \"*\" leads to many");
            }
        };
        pointer("id", &self.id);
        pointer("value", &self.value);
        if let Some(field) = &self.field {
            pointer("field", field);
        }
        if let Some(key) = self.key.as_deref().filter(|key| key.starts_with('/')) {
            pointer("key", key);
        }
        let (needed, other) = if self.kind.is_field() {
            (("field", &self.field), ("key", &self.key))
        } else {
            (("key", &self.key), ("field", &self.field))
        };
        let kind = self.kind.name();
        problems.add_if(
            needed.1.is_none(),
            format!("{at}.{}", needed.0),
            format!("is needed with type = \"{kind}\""),
        );
        problems.add_if(
            other.1.is_some(),
            format!("{at}.{}", other.0),
            format!("has no meaning with type = \"{kind}\""),
        );
        problems.add_if(
            self.key
                .as_ref()
                .is_some_and(|key| !(1..=PROPERTY_KEY_CHARACTERS).contains(&key.chars().count())),
            format!("{at}.key"),
            format!("must have from 1 to {PROPERTY_KEY_CHARACTERS} characters"),
        );
    }
}

/// What the fields of a column are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// A string.
    #[default]
    Text,
    /// A number as JSON writes it, or nothing.
    Number,
    /// `true`, `false`, `1`, `0`, or nothing.
    Boolean,
    /// Any JSON value, or nothing.
    Json,
}

/// One place in the records that holds a server id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// JSON pointer (RFC 6901) to the id; `*` in place of a name or an index stands for all of them.
    pub pointer: String,
    /// Regular expression that finds ids inside the text that the pointer leads to; its one group is the id.
    pub pattern: Option<String>,
    /// The platform's namespace, such as `identity:user`. One that nobody documents is an opaque string.
    pub namespace: String,
    /// What to do with an id that the platform doesn't know.
    #[serde(default)]
    pub on_miss: OnMiss,
    /// What replaces an unknown id, with `on_miss = "placeholder"`.
    pub placeholder: Option<String>,
    /// Put before the id for the lookup only, such as `confluence.userkey/`. Where the keys of a namespace begin with documented forms, it is
    /// one of them, and an id that begins with one already is left as it is.
    pub key_prefix: Option<String>,
    /// The ids are those of containers of this type, and one that is none of this migration's is never looked up: it is a miss.
    pub within: Option<ContainerType>,
}

/// A type of containers, in the platform's own words (PROTOCOL 5). Those of a site have no id of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[expect(missing_docs, reason = "the platform's own names say what they are")]
pub enum ContainerType {
    JiraProject,
    ConfluenceSpace,
}

impl ContainerType {
    /// The platform's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::JiraProject => "JiraProject",
            Self::ConfluenceSpace => "ConfluenceSpace",
        }
    }
}

/// The policy for an id without a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// The record is rejected.
    #[default]
    Reject,
    /// The record is held: counted apart, and imported by a re-run once the mapping exists.
    Hold,
    /// The id stays as it is.
    Keep,
    /// The id is replaced by the placeholder.
    Placeholder,
}

/// `[sink]`: where the records go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sink {
    /// Which kind of sink.
    pub kind: SinkKind,
    /// The partner's endpoint, with `kind = "http"`.
    pub url: Option<String>,
    /// How long one delivery may take, with `kind = "http"`, or one call to the bucket, with `"s3"`.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
    /// What the names of all objects begin with, with `kind = "s3"`.
    pub prefix: Option<String>,
}

/// `kind` of the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The records table, written in the same transaction as the checkpoint.
    #[default]
    Dynamodb,
    /// The partner's own service.
    Http,
    /// A bucket.
    S3,
    /// Jira's own fields and properties.
    Jira,
    /// The one that the processor has compiled in.
    Custom,
}

impl Sink {
    /// How long one delivery may take; 20 s where nothing is declared.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(SINK_TIMEOUT)
    }
}

/// `[limits]`: what is read, held and written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest event body that intake takes, in bytes. Not the engine's, but a limit like the others.
    pub body_bytes: usize,
    /// The largest file, in decompressed bytes; a longer one ends there, with a problem.
    pub file_bytes: u64,
    /// The largest record, in bytes of the file; a larger one is rejected.
    pub record_bytes: usize,
    /// The most records in one batch.
    pub batch_records: usize,
    /// The most bytes of records in one batch.
    pub batch_bytes: usize,
    /// How many ids, found or missing, are remembered while a file is imported.
    pub mapping_cache_entries: usize,
    /// How often a file is tried again, and a cut download opened again, without getting further.
    pub attempts_without_progress: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 262_144,
            file_bytes: FILE_BYTES,
            record_bytes: 1_048_576,
            batch_records: 90,
            batch_bytes: 2_097_152,
            mapping_cache_entries: 50_000,
            attempts_without_progress: 5,
        }
    }
}

/// One thing that is wrong with the declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `imports[1].mappings[0].pointer`.
    pub key: String,
    /// What is wrong with its value.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.message)
    }
}

/// Collects problems under their keys.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem {
            key: key.into(),
            message: message.into(),
        });
    }

    fn add_if(&mut self, wrong: bool, key: impl Into<String>, message: impl Into<String>) {
        if wrong {
            self.add(key, message);
        }
    }
}

impl Declaration {
    /// Everything that is wrong, each with its key; nothing when the declaration can be used.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        problems.add_if(
            self.imports.is_empty(),
            "imports",
            "at least one is needed, or every file is refused",
        );
        for (index, import) in self.imports.iter().enumerate() {
            import.validate(&format!("imports[{index}]"), &mut problems);
            problems.add_if(
                import.format == Format::Raw
                    && matches!(self.sink.kind, SinkKind::Dynamodb | SinkKind::Jira),
                format!("imports[{index}].format"),
                "\"raw\" needs a sink that takes whole files, kind = \"http\" or \"s3\"; neither an item of the records table nor a field can hold one",
            );
            let at = format!("imports[{index}].jira");
            match &import.jira {
                Some(jira) => {
                    problems.add_if(
                        self.sink.kind != SinkKind::Jira,
                        &at,
                        "has a meaning only with sink.kind = \"jira\"",
                    );
                    jira.validate(&at, &mut problems);
                }
                None => problems.add_if(
                    self.sink.kind == SinkKind::Jira && import.format != Format::Raw,
                    &at,
                    "is needed with sink.kind = \"jira\": it says what a record writes",
                ),
            }
        }
        self.sink.validate(&mut problems);
        self.limits.validate(&mut problems);
        problems.0
    }
}

impl Import {
    /// The declared share of failing records above which a file ends.
    pub(crate) fn fail_above(&self) -> Option<Share> {
        self.fail_above.as_deref().and_then(Share::parse)
    }

    fn validate(&self, at: &str, problems: &mut Problems) {
        if self.label.is_empty() {
            problems.add(
                format!("{at}.label"),
                "must not be empty; \"*\" matches every label",
            );
        } else if let Err(error) = Glob::new(&self.label) {
            problems.add(
                format!("{at}.label"),
                format!("is not a glob: {}", error.kind()),
            );
        }
        if let Some(message) = self.natural_key.as_deref().and_then(pointer_problem) {
            problems.add(format!("{at}.natural_key"), message);
        }
        problems.add_if(
            self.natural_key.as_deref().is_some_and(has_wildcard),
            format!("{at}.natural_key"),
            "must lead to one value; \"*\" leads to many",
        );
        problems.add_if(
            self.mappings.len() > MAPPINGS_MAX,
            format!("{at}.mappings"),
            format!("at most {MAPPINGS_MAX} are possible"),
        );
        for (index, mapping) in self.mappings.iter().enumerate() {
            let at = format!("{at}.mappings[{index}]");
            mapping.validate(&at, problems);
            problems.add_if(
                self.mappings[..index]
                    .iter()
                    .any(|earlier| earlier.pointer == mapping.pointer),
                format!("{at}.pointer"),
                "is declared twice in this import",
            );
        }
        self.csv
            .validate(self.format, &format!("{at}.csv"), problems);
        if self.format == Format::Raw {
            let nothing_to_read =
                "has no meaning with format = \"raw\": such a file is never looked into";
            problems.add_if(
                self.natural_key.is_some(),
                format!("{at}.natural_key"),
                nothing_to_read,
            );
            problems.add_if(
                self.fail_above.is_some(),
                format!("{at}.fail_above"),
                nothing_to_read,
            );
            problems.add_if(
                !self.mappings.is_empty(),
                format!("{at}.mappings"),
                nothing_to_read,
            );
        }
        problems.add_if(
            self.fail_above.is_some() && self.fail_above().is_none(),
            format!("{at}.fail_above"),
            "must be a percentage from \"0%\" to \"100%\", with at most two decimals",
        );
        if let Err(Uncompilable::Pointers(problem)) = Rewriter::new(self) {
            problems.add(format!("{at}.mappings"), problem.to_string());
        }
    }
}

impl Csv {
    fn validate(&self, format: Format, at: &str, problems: &mut Problems) {
        problems.add_if(
            *self != Self::default() && !matches!(format, Format::Csv | Format::Auto),
            at,
            "has a meaning only for rows, with format = \"csv\" or \"auto\"",
        );
        problems.add_if(
            self.delimiter
                .is_some_and(|delimiter| !delimiter.is_ascii() || "\"\r\n".contains(delimiter)),
            format!("{at}.delimiter"),
            "must be one ASCII character, and neither a quote nor a line end",
        );
        if let Some(names) = &self.columns
            && let Err(problem) = Columns::new(names.clone(), self)
        {
            problems.add(format!("{at}.columns"), problem);
        }
    }
}

impl Mapping {
    fn validate(&self, at: &str, problems: &mut Problems) {
        if let Some(message) = pointer_problem(&self.pointer) {
            problems.add(format!("{at}.pointer"), message);
        }
        if let Some(Err(problem)) = self.pattern.as_deref().map(pattern) {
            problems.add(format!("{at}.pattern"), problem.to_string());
        }
        problems.add_if(
            self.namespace.trim().is_empty(),
            format!("{at}.namespace"),
            "must not be empty",
        );
        let key = format!("{at}.placeholder");
        match (self.on_miss, &self.placeholder) {
            (OnMiss::Placeholder, None) => {
                problems.add(key, "is needed with on_miss = \"placeholder\"");
            }
            (OnMiss::Placeholder, Some(placeholder)) => problems.add_if(
                placeholder.len() > PLACEHOLDER_BYTES,
                key,
                format!("must not be longer than {PLACEHOLDER_BYTES} bytes"),
            ),
            (_, Some(_)) => problems.add(key, "has a meaning only with on_miss = \"placeholder\""),
            (_, None) => {}
        }
        problems.add_if(
            self.key_prefix
                .as_ref()
                .is_some_and(|prefix| prefix.is_empty() || prefix.len() > PLACEHOLDER_BYTES),
            format!("{at}.key_prefix"),
            format!("must have 1 to {PLACEHOLDER_BYTES} bytes, or be left out"),
        );
        if let Some(problem) = key_problem(self) {
            problems.add(format!("{at}.key_prefix"), problem);
        }
        if let Some(problem) = within_problem(self) {
            problems.add(format!("{at}.within"), problem);
        }
    }
}

impl Sink {
    fn validate(&self, problems: &mut Problems) {
        if let Some(prefix) = &self.prefix {
            problems.add_if(
                self.kind != SinkKind::S3,
                "sink.prefix",
                "has a meaning only with kind = \"s3\"",
            );
            let part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
            problems.add_if(
                prefix.len() > PREFIX_BYTES
                    || !prefix.bytes().all(part)
                    || prefix.starts_with('/')
                    || prefix.split('/').any(|part| matches!(part, "." | "..")),
                "sink.prefix",
                format!("must have at most {PREFIX_BYTES} letters, digits, \"-\", \"_\", \".\" and \"/\", not begin with \"/\", and have no part \".\" or \"..\""),
            );
        }
        match (self.kind, self.url.as_deref()) {
            (SinkKind::Http, None) => problems.add("sink.url", "is needed with kind = \"http\""),
            (SinkKind::Http, Some(url)) => {
                if let Some(message) = sink_url_problem(url) {
                    problems.add("sink.url", message);
                }
            }
            (_, url) => problems.add_if(
                url.is_some(),
                "sink.url",
                "has a meaning only with kind = \"http\"",
            ),
        }
        if matches!(self.kind, SinkKind::Http | SinkKind::S3) {
            problems.add_if(
                !(Duration::from_millis(1)..=SINK_TIMEOUT_MAX).contains(&self.timeout()),
                "sink.timeout",
                "must be from 1ms to 1m",
            );
        } else {
            problems.add_if(
                self.timeout.is_some(),
                "sink.timeout",
                "has a meaning only with kind = \"http\" or \"s3\"",
            );
        }
    }
}

impl Limits {
    fn validate(&self, problems: &mut Problems) {
        problems.add_if(
            self.file_bytes == 0,
            "limits.file_bytes",
            "must be at least 1",
        );
        let mut within = |key: &str, value: usize, low: usize, high: usize| {
            problems.add_if(
                !(low..=high).contains(&value),
                format!("limits.{key}"),
                format!("must be from {low} to {high}"),
            );
        };
        within("body_bytes", self.body_bytes, 1024, 262_144);
        within(
            "record_bytes",
            self.record_bytes,
            1,
            self.batch_bytes.min(BATCH_BYTES_MAX),
        );
        within("batch_records", self.batch_records, 1, COMMIT_WRITES);
        within("batch_bytes", self.batch_bytes, 1, BATCH_BYTES_MAX);
        within(
            "mapping_cache_entries",
            self.mapping_cache_entries,
            MAPPING_KEYS,
            1_000_000,
        );
        within(
            "attempts_without_progress",
            self.attempts_without_progress as usize,
            1,
            1000,
        );
    }
}

/// Whether a pointer has a `*` in place of a name or an index.
fn has_wildcard(pointer: &str) -> bool {
    pointer.split('/').skip(1).any(|token| token == WILDCARD)
}

/// What keeps `pointer` from being a JSON pointer (RFC 6901).
fn pointer_problem(pointer: &str) -> Option<&'static str> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Some("must be empty or start with \"/\"");
    }
    let stray_tilde = pointer
        .split('~')
        .skip(1)
        .any(|after| !after.starts_with('0') && !after.starts_with('1'));
    stray_tilde.then_some("a \"~\" must be written \"~0\", and a \"/\" inside a name \"~1\"")
}

fn sink_url_problem(url: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(url) else {
        return Some("is not a URL");
    };
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Some("names no host"),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Some("must be https; http is possible to a loopback host only"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not hold a user or a password; deliveries are signed");
    }
    url.fragment()
        .is_some()
        .then_some("must not have a fragment")
}

/// The declared imports, ready to be asked.
#[derive(Clone, Debug)]
pub struct Imports {
    entries: Vec<(GlobMatcher, Import)>,
}

/// A file whose label no import matches; it is refused, and its transfer can't be a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no import is declared for files labelled {label:?}; add an [[imports]] entry to landfall.toml and run the migration again"
)]
pub struct NoImport {
    /// The label, cut to 100 characters.
    pub label: String,
}

impl Imports {
    /// Compiles the globs of a declaration. Fails only with what [`Declaration::validate`] tells of.
    pub fn new(declared: &[Import]) -> Result<Self, globset::Error> {
        let entries = declared
            .iter()
            .map(|import| Ok((Glob::new(&import.label)?.compile_matcher(), import.clone())))
            .collect::<Result<_, globset::Error>>()?;
        Ok(Self { entries })
    }

    /// The same for files that were staged ([`Import::of_stage`]).
    #[must_use]
    pub fn of_stage(&self) -> Self {
        let staged = |(glob, import): &(GlobMatcher, Import)| (glob.clone(), import.of_stage());
        Self {
            entries: self.entries.iter().map(staged).collect(),
        }
    }

    /// The first import whose glob matches the label as it is or without a `.gz` or `.zst` at its end. A file without a label has the label `""`.
    pub fn of(&self, label: &str) -> Result<&Import, NoImport> {
        self.entries
            .iter()
            .find(|(glob, _)| {
                glob.is_match(label) || glob.is_match(without_compression_suffix(label))
            })
            .map(|(_, import)| import)
            .ok_or_else(|| NoImport {
                label: label.chars().take(100).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Declaration {
        toml::from_str(text).unwrap()
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text)
            .validate()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const FULL: &str = r#"
        [[imports]]
        label = "users-*.ndjson"
        natural_key = "/id"
        format = "ndjson"

        [[imports.mappings]]
        pointer = "/author"
        namespace = "identity:user"
        key_prefix = "confluence.userkey/"
        on_miss = "placeholder"
        placeholder = "unknown"

        [[imports]]
        label = "*"
        digest = "ignore"

        [sink]
        kind = "http"
        url = "https://import.example.com/batches"
        timeout = "5s"

        [limits]
        record_bytes = 1000
        batch_records = 10
        batch_bytes = 10000
        mapping_cache_entries = 100
    "#;

    #[test]
    fn a_full_declaration_is_read_and_has_no_problem() {
        let declaration = parse(FULL);
        assert_eq!(declaration.validate(), []);
        assert_eq!(declaration.sink.timeout(), Duration::from_secs(5));
        assert_eq!(
            declaration.imports[0].mappings[0].on_miss,
            OnMiss::Placeholder
        );
        assert_eq!(declaration.imports[0].digest, FileDigest::Verify);
        assert_eq!(declaration.imports[1].digest, FileDigest::Ignore);
        assert_eq!(declaration.imports[1].format, Format::Auto);
        assert_eq!(declaration.limits.attempts_without_progress, 5);
    }

    #[test]
    fn the_example_of_the_readme_is_read_and_has_no_problem() {
        let (_, after) = include_str!("../README.md")
            .split_once("```toml\n")
            .unwrap();
        let (example, _) = after.split_once("```").unwrap();
        let declaration = parse(example);
        assert_eq!(declaration.validate(), []);
        assert_eq!(
            declaration.limits,
            Limits::default(),
            "the example shows the defaults"
        );
    }

    #[test]
    fn all_problems_are_told_at_once_each_with_its_key() {
        let text = r#"
            [[imports]]
            label = "a[.json"
            natural_key = "id"

            [[imports]]
            label = ""

            [[imports.mappings]]
            pointer = "author"
            namespace = " "
            on_miss = "placeholder"

            [[imports.mappings]]
            pointer = "/a~2"
            namespace = "com.example:user"
            placeholder = "x"
            key_prefix = ""

            [[imports.mappings]]
            pointer = "/a~2"
            namespace = "identity:user"

            [sink]
            kind = "http"
            url = "http://import.example.com/"
            timeout = "5m"

            [limits]
            body_bytes = 1
            record_bytes = 3000000
            batch_records = 100
            mapping_cache_entries = 1
            attempts_without_progress = 0
        "#;
        assert_eq!(
            problems(text),
            [
                "imports[0].label: is not a glob: unclosed character class; missing ']'",
                "imports[0].natural_key: must be empty or start with \"/\"",
                "imports[1].label: must not be empty; \"*\" matches every label",
                "imports[1].mappings[0].pointer: must be empty or start with \"/\"",
                "imports[1].mappings[0].namespace: must not be empty",
                "imports[1].mappings[0].placeholder: is needed with on_miss = \"placeholder\"",
                "imports[1].mappings[1].pointer: a \"~\" must be written \"~0\", and a \"/\" inside a name \"~1\"",
                "imports[1].mappings[1].placeholder: has a meaning only with on_miss = \"placeholder\"",
                "imports[1].mappings[1].key_prefix: must have 1 to 256 bytes, or be left out",
                "imports[1].mappings[2].pointer: a \"~\" must be written \"~0\", and a \"/\" inside a name \"~1\"",
                "imports[1].mappings[2].key_prefix: is needed, or no id is ever found: in identity:user write \"email/\", \"jira.userkey/\", \"jira.username/\", \"confluence.userkey/\"; Confluence's user names have no mapping, so export the user's key",
                "imports[1].mappings[2].pointer: is declared twice in this import",
                "sink.url: must be https; http is possible to a loopback host only",
                "sink.timeout: must be from 1ms to 1m",
                "limits.body_bytes: must be from 1024 to 262144",
                "limits.record_bytes: must be from 1 to 2097152",
                "limits.batch_records: must be from 1 to 99",
                "limits.mapping_cache_entries: must be from 100 to 1000000",
                "limits.attempts_without_progress: must be from 1 to 1000",
            ]
        );
    }

    #[test]
    fn an_http_key_beside_the_dynamodb_sink_is_a_problem() {
        let text =
            "[[imports]]\nlabel = \"*\"\n[sink]\nurl = \"https://a.example\"\ntimeout = \"1s\"";
        assert_eq!(
            problems(text),
            [
                "sink.url: has a meaning only with kind = \"http\"",
                "sink.timeout: has a meaning only with kind = \"http\" or \"s3\"",
            ]
        );
    }

    #[test]
    fn with_the_jira_sink_every_import_says_what_a_record_writes() {
        let of = |jira: &str| {
            problems(&format!(
                "[[imports]]\nlabel = \"*\"\n{jira}\n[sink]\nkind = \"jira\"\n"
            ))
        };
        let at = "[imports.jira]\nid = \"/issue\"\nvalue = \"/value\"\n";
        for rest in [
            "type = \"NumberIssueField\"\nfield = \"/field\"",
            "type = \"SprintProperty\"\nkey = \"color\"",
            "type = \"IssueProperty\"\nkey = \"/key\"",
        ] {
            assert_eq!(of(&format!("{at}{rest}")), [""; 0]);
        }
        assert_eq!(
            of(""),
            ["imports[0].jira: is needed with sink.kind = \"jira\": it says what a record writes"]
        );
        assert_eq!(
            of(&format!("{at}type = \"TextIssueField\"\nkey = \"/a/*\"")),
            [
                "imports[0].jira.key: must lead to one value; \"*\" leads to many",
                "imports[0].jira.field: is needed with type = \"TextIssueField\"",
                "imports[0].jira.key: has no meaning with type = \"TextIssueField\"",
            ]
        );
        assert_eq!(
            problems(&format!(
                "[[imports]]\nlabel = \"*\"\n{at}type = \"IssueProperty\"\nkey = \"k\""
            )),
            ["imports[0].jira: has a meaning only with sink.kind = \"jira\""]
        );
        let unknown = toml::from_str::<Jira>("type = \"VersionProperty\"\nid = \"\"\nvalue = \"\"");
        assert!(unknown.is_err_and(|error| error.to_string().contains("VersionProperty")));
    }

    #[test]
    fn a_prefix_is_for_a_bucket_and_goes_into_names_as_it_is() {
        let of = |rest: &str| problems(&format!("[[imports]]\nlabel = \"*\"\n[sink]\n{rest}"));
        assert_eq!(of("kind = \"s3\""), [""; 0]);
        assert_eq!(of("kind = \"s3\"\nprefix = \"landfall/eu-1/\""), [""; 0]);
        assert_eq!(
            of("prefix = \"a/\""),
            ["sink.prefix: has a meaning only with kind = \"s3\""]
        );
        for prefix in ["/a", "a b", "ü", "a/../b", "./a", &"x".repeat(65)] {
            let found = of(&format!("kind = \"s3\"\nprefix = \"{prefix}\""));
            assert!(
                found[0].starts_with("sink.prefix: must have at most 64"),
                "{found:?}"
            );
        }
        assert_eq!(
            of("kind = \"s3\"\nurl = \"https://a.example\""),
            ["sink.url: has a meaning only with kind = \"http\""]
        );
    }

    #[test]
    fn an_http_sink_needs_a_url_that_a_signed_delivery_can_go_to() {
        for (url, expected) in [
            ("http://127.0.0.1:8080/x", None),
            ("http://localhost/x", None),
            ("http://[::1]:1/x", None),
            ("https://import.example.com/x", None),
            (
                "http://import.example.com/x",
                Some("must be https; http is possible to a loopback host only"),
            ),
            (
                "ftp://localhost/x",
                Some("must be https; http is possible to a loopback host only"),
            ),
            (
                "https://me:you@import.example.com/x",
                Some("must not hold a user or a password; deliveries are signed"),
            ),
            (
                "https://import.example.com/x#y",
                Some("must not have a fragment"),
            ),
            ("import.example.com", Some("is not a URL")),
        ] {
            assert_eq!(sink_url_problem(url), expected, "{url}");
        }
        assert_eq!(
            problems("[[imports]]\nlabel = \"*\"\n[sink]\nkind = \"http\""),
            ["sink.url: is needed with kind = \"http\""]
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for (text, name) in [
            ("[[imports]]\nlabel = \"*\"\nlabell = \"x\"", "labell"),
            (
                "[[imports]]\nlabel = \"*\"\n[[imports.mappings]]\npointer = \"\"\nnamespace = \"x\"\non_mis = \"keep\"",
                "on_mis",
            ),
            ("[sink]\nuri = \"x\"", "uri"),
            ("[limits]\nrecords = 1", "records"),
            ("[[imports]]\nlabel = \"*\"\nformat = \"xml\"", "csv"),
        ] {
            let error = toml::from_str::<Declaration>(text).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_declared_of_rows_must_fit_together() {
        let of = |rest: &str| problems(&format!("[[imports]]\nlabel = \"*\"\n{rest}"));
        assert_eq!(
            of(
                "format = \"csv\"\n[imports.csv]\ndelimiter = \";\"\ntypes = { a = \"number\" }\nnull = \"\""
            ),
            [""; 0]
        );
        assert_eq!(
            of("format = \"json\"\n[imports.csv]\ndelimiter = \";\""),
            ["imports[0].csv: has a meaning only for rows, with format = \"csv\" or \"auto\""]
        );
        for delimiter in ["\\\"", "\\n", "é"] {
            assert_eq!(
                of(&format!("[imports.csv]\ndelimiter = \"{delimiter}\"")).len(),
                1
            );
        }
        assert_eq!(
            of("[imports.csv]\ncolumns = [\"a\", \"a\"]"),
            ["imports[0].csv.columns: two columns are named \"a\""]
        );
    }

    #[test]
    fn a_raw_file_is_never_looked_into_and_needs_a_sink_that_takes_it() {
        let http = "[sink]\nkind = \"http\"\nurl = \"https://a.example\"";
        let raw = "[[imports]]\nlabel = \"*\"\nformat = \"raw\"\n";
        assert_eq!(problems(&format!("{raw}{http}")), [""; 0]);
        assert_eq!(
            problems(raw),
            [
                "imports[0].format: \"raw\" needs a sink that takes whole files, kind = \"http\" or \"s3\"; neither an item of the records table nor a field can hold one"
            ]
        );
        let parsed = "natural_key = \"/id\"\n[imports.csv]\nnull = \"\"\n[[imports.mappings]]\npointer = \"/a\"\nnamespace = \"n\"\n";
        assert_eq!(
            problems(&format!("{raw}{parsed}{http}")),
            [
                "imports[0].csv: has a meaning only for rows, with format = \"csv\" or \"auto\"",
                "imports[0].natural_key: has no meaning with format = \"raw\": such a file is never looked into",
                "imports[0].mappings: has no meaning with format = \"raw\": such a file is never looked into",
            ]
        );
    }

    #[test]
    fn only_ids_of_containers_can_be_limited_to_those_of_the_migration() {
        let of = |namespace: &str, within: &str| {
            problems(&format!(
                "[[imports]]\nlabel = \"*\"\n[[imports.mappings]]\npointer = \"/a\"\nnamespace = \"{namespace}\"\nwithin = \"{within}\"\non_miss = \"hold\""
            ))
        };
        for (namespace, within) in [
            ("jira/classic:project", "JiraProject"),
            ("confluence:space", "ConfluenceSpace"),
            ("com.example:board", "JiraProject"),
        ] {
            assert_eq!(of(namespace, within), [""; 0], "{namespace}");
        }
        assert_eq!(
            of("jira:issue", "JiraProject"),
            [
                "imports[0].mappings[0].within: has no meaning in jira:issue: its ids are those of no JiraProject"
            ]
        );
        assert_eq!(
            of("jira/classic:project", "ConfluenceSpace"),
            [
                "imports[0].mappings[0].within: has no meaning in jira/classic:project: its ids are those of no ConfluenceSpace"
            ]
        );
        assert_eq!(
            of("identity:user", "JiraProject").last().unwrap(),
            "imports[0].mappings[0].within: has no meaning in identity:user: its ids are those of no JiraProject"
        );
        let unknown =
            toml::from_str::<Mapping>("pointer = \"/a\"\nnamespace = \"n\"\nwithin = \"Site\"");
        let error = unknown.unwrap_err().to_string();
        assert!(
            error.contains("expected `JiraProject` or `ConfluenceSpace`"),
            "{error}"
        );
    }

    #[test]
    fn a_pattern_and_a_wildcard_are_checked_where_they_stand() {
        let of = |rest: &str| problems(&format!("[[imports]]\nlabel = \"*\"\n{rest}"));
        let mapping = "[[imports.mappings]]\nnamespace = \"n\"\n";
        assert_eq!(
            of(&format!("{mapping}pointer = \"/a/*\"\npattern = \"x(y)\"")),
            [""; 0]
        );
        assert_eq!(
            of(&format!("{mapping}pointer = \"/a\"\npattern = \"x\"")),
            [
                "imports[0].mappings[0].pattern: must have one group in parentheses, which is the id; others are written (?:…)"
            ]
        );
        assert_eq!(
            of("natural_key = \"/a/*\""),
            ["imports[0].natural_key: must lead to one value; \"*\" leads to many"]
        );
    }

    #[test]
    fn a_share_is_a_percentage_of_at_most_two_decimals() {
        for (text, shown) in [
            ("5%", "5 %"),
            ("0.25%", "0.25 %"),
            ("0.5%", "0.5 %"),
            ("0.05%", "0.05 %"),
            ("100.00%", "100 %"),
            ("0%", "0 %"),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!(share.to_string(), shown);
        }
        for wrong in [
            "5", "", "%", "100.01%", "101%", "-1%", "0.001%", "5 %", ".5%", "5.%",
        ] {
            let text = format!("[[imports]]\nlabel = \"*\"\nfail_above = \"{wrong}\"");
            assert_eq!(
                problems(&text),
                [
                    "imports[0].fail_above: must be a percentage from \"0%\" to \"100%\", with at most two decimals"
                ],
                "{wrong}"
            );
        }
        assert_eq!(
            problems("[[imports]]\nlabel = \"*\"\nfail_above = \"5%\""),
            [""; 0]
        );
    }

    #[test]
    fn an_empty_declaration_needs_an_import() {
        assert_eq!(
            problems(""),
            ["imports: at least one is needed, or every file is refused"]
        );
    }

    #[test]
    fn the_first_glob_that_matches_the_label_wins_with_or_without_gz() {
        let imports = [
            ("users-*.ndjson", "/a"),
            ("users-1.ndjson", "/b"),
            ("*.gz", "/c"),
            ("pages/*", "/d"),
        ]
        .map(|(label, key)| Import {
            label: label.to_owned(),
            natural_key: Some(key.to_owned()),
            mappings: Vec::new(),
            ..Import::default()
        });
        let imports = Imports::new(&imports).unwrap();
        let key = |label: &str| {
            imports
                .of(label)
                .map(|import| import.natural_key.clone().unwrap())
        };
        assert_eq!(key("users-1.ndjson").unwrap(), "/a");
        assert_eq!(key("users-1.ndjson.gz").unwrap(), "/a");
        assert_eq!(key("other.gz").unwrap(), "/c");
        assert_eq!(key("pages/a/b.json").unwrap(), "/d");
        let refused = key("spaces.ndjson").unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("no import is declared for files labelled \"spaces.ndjson\"")
        );
        assert!(key("").is_err());
    }
}
