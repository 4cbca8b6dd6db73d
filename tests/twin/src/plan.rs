//! A migration as the control API describes it, and the files that come of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::content::{
    AuthorKeys, Content, Format, Generated, Product, Shape, ShapeError, write_to,
};
use crate::seed::derive;

/// The most files of one migration.
const MOST_FILES: u64 = 100_000;
/// The most content of one gzip file: it is compressed as a whole and kept.
const MOST_GZIP_BYTES: u64 = 256 * 1024 * 1024;
const FIRST_RECORD_ID: u64 = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) site: String,
    /// Without one: Forge if only the Forge app is installed there.
    #[serde(default)]
    pub(crate) flavour: Option<Flavour>,
    #[serde(default)]
    pub(crate) product: Product,
    #[serde(default)]
    pub(crate) app_key: Option<String>,
    #[serde(default = "default_name")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) files: Vec<FileWish>,
    #[serde(default)]
    pub(crate) manifest: bool,
    #[serde(default = "default_manifest_label")]
    pub(crate) manifest_label: String,
    #[serde(default)]
    pub(crate) order: Order,
    #[serde(default = "one")]
    pub(crate) parallel: usize,
    #[serde(default)]
    pub(crate) interval_ms: u64,
    #[serde(default)]
    pub(crate) start_delay_ms: u64,
    #[serde(default)]
    pub(crate) wait_for_ack: bool,
    #[serde(default)]
    pub(crate) stop_export_after: Option<usize>,
    #[serde(default)]
    pub(crate) listener_error: Option<ListenerError>,
    #[serde(default)]
    pub(crate) stay_ready: bool,
    #[serde(default = "three")]
    pub(crate) containers: usize,
}

fn default_name() -> String {
    "Wave 1".into()
}

fn default_manifest_label() -> String {
    "export-manifest".into()
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

/// Which path a migration takes: on the platform the server app's listener decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flavour {
    Connect,
    Forge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the words of the control API")]
pub(crate) enum Order {
    #[default]
    InOrder,
    Shuffled,
    DataFirst,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerError {
    pub(crate) exception_type: String,
    #[serde(default)]
    pub(crate) stack_trace: Option<String>,
    #[serde(default)]
    pub(crate) after_files: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileWish {
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    copies: Option<u64>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    records: Option<u64>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    record_bytes: Option<u64>,
    #[serde(default)]
    gzip: bool,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    first_id: Option<u64>,
    #[serde(default)]
    bad_records: u64,
    #[serde(default)]
    missing_mappings: u64,
    #[serde(default)]
    author_keys: AuthorKeys,
    #[serde(default)]
    content_base64: Option<String>,
    #[serde(default)]
    unlabelled: bool,
    #[serde(default)]
    preloaded: bool,
}

/// A file that is ready to be uploaded.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) label: Option<String>,
    pub(crate) content: Content,
    pub(crate) records: Option<u64>,
    pub(crate) gzip: bool,
    pub(crate) manifest: bool,
    /// Announced by the event of a preload.
    pub(crate) preloaded: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("file {label:?}: {reason}")]
    Shape { label: String, reason: ShapeError },
    #[error("file {0:?}: content_base64 is not base64")]
    Base64(String),
    #[error("file {0:?}: give either records or bytes")]
    TwoSizes(String),
    #[error("file {0:?}: a gzip file is limited to 256 MiB of content")]
    GzipSize(String),
    #[error("a migration is limited to {MOST_FILES} files")]
    TooManyFiles,
    #[error("parallel must be at least 1")]
    Parallel,
}

/// Compressed files by their shape: a re-run sends the same bytes again without the work.
#[derive(Debug, Default)]
pub(crate) struct Compressed(Mutex<HashMap<Shape, Bytes>>);

impl Compressed {
    pub(crate) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn get(&self, generated: &Generated, shape: &Shape) -> Bytes {
        let known = |map: &HashMap<Shape, Bytes>| map.get(shape).cloned();
        if let Some(bytes) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return bytes;
        }
        let mut bytes = Vec::new();
        // Writing to memory can't fail.
        let _ = write_to(generated, true, &mut bytes);
        let bytes = Bytes::from(bytes);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(shape.clone(), bytes.clone());
        bytes
    }
}

impl Plan {
    /// Makes the files. May compress: keep it off the async threads.
    pub(crate) fn prepare(
        &self,
        seed: u64,
        compressed: &Compressed,
    ) -> Result<Vec<Prepared>, PlanError> {
        if self.parallel == 0 {
            return Err(PlanError::Parallel);
        }
        let mut total = 0_u64;
        for wish in &self.files {
            total = total.saturating_add(wish.copies.unwrap_or(1));
        }
        if total > MOST_FILES {
            return Err(PlanError::TooManyFiles);
        }
        let mut prepared = Vec::new();
        let mut first_id = FIRST_RECORD_ID;
        for wish in &self.files {
            let copies = wish.copies.unwrap_or(1);
            for copy in 1..=copies {
                let number = prepared.len() as u64 + 1;
                let label = wish.label_of(number, copy, copies);
                let file = wish.prepare(&label, copy, first_id, self.product, seed, compressed)?;
                first_id = first_id.saturating_add(file.records.unwrap_or(0));
                prepared.push(file);
            }
        }
        if self.manifest {
            prepared.push(self.manifest_file(&prepared));
        }
        Ok(prepared)
    }

    fn manifest_file(&self, files: &[Prepared]) -> Prepared {
        let listed: Vec<_> = files
            .iter()
            .filter_map(|file| {
                let label = file.label.as_ref()?;
                Some(match file.records {
                    Some(records) => json!({ "label": label, "records": records }),
                    None => json!({ "label": label }),
                })
            })
            .collect();
        let text = json!({ "version": 1, "files": listed }).to_string();
        Prepared {
            label: Some(self.manifest_label.clone()),
            content: Content::Bytes(Bytes::from(text)),
            records: None,
            gzip: false,
            manifest: true,
            preloaded: false,
        }
    }
}

impl FileWish {
    fn label_of(&self, number: u64, copy: u64, copies: u64) -> String {
        if let Some(label) = &self.label {
            return label
                .replace("{n}", &format!("{copy:04}"))
                .replace("{of}", &format!("{copies:04}"));
        }
        let extension = match self.format {
            Format::Ndjson => "ndjson",
            Format::Json => "json",
        };
        let suffix = if self.gzip { ".gz" } else { "" };
        format!("records-{number:04}.{extension}{suffix}")
    }

    fn prepare(
        &self,
        label: &str,
        copy: u64,
        first_id: u64,
        product: Product,
        seed: u64,
        compressed: &Compressed,
    ) -> Result<Prepared, PlanError> {
        use base64::Engine as _;

        let name = || label.to_owned();
        let shown = (!self.unlabelled).then(name);
        if let Some(encoded) = &self.content_base64 {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map_err(|_| PlanError::Base64(name()))?;
            return Ok(Prepared {
                label: shown,
                content: Content::Bytes(Bytes::from(bytes)),
                records: self.records,
                gzip: self.gzip,
                manifest: false,
                preloaded: self.preloaded,
            });
        }
        let record_bytes = self.record_bytes.unwrap_or(300);
        let records = match (self.records, self.bytes) {
            (Some(_), Some(_)) => return Err(PlanError::TwoSizes(name())),
            (Some(records), None) => records,
            (None, Some(bytes)) => bytes.div_ceil(record_bytes.max(1)),
            (None, None) => 100,
        };
        let shape = Shape {
            format: self.format,
            records,
            record_bytes,
            seed: match self.seed {
                Some(seed) => seed.wrapping_add(copy - 1),
                None => derive(seed, &["file", label]),
            },
            first_id: self.first_id.unwrap_or(first_id),
            bad_records: self.bad_records,
            missing_mappings: self.missing_mappings,
            author_keys: self.author_keys,
            product,
        };
        let generated = Generated::new(shape.clone()).map_err(|reason| PlanError::Shape {
            label: name(),
            reason,
        })?;
        let content = if self.gzip {
            if generated.size() > MOST_GZIP_BYTES {
                return Err(PlanError::GzipSize(name()));
            }
            Content::Bytes(compressed.get(&generated, &shape))
        } else {
            Content::Generated(Arc::new(generated))
        };
        Ok(Prepared {
            label: shown,
            content,
            records: Some(records),
            gzip: self.gzip,
            manifest: false,
            preloaded: self.preloaded,
        })
    }
}
