use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::measure::{Digest, Measure};
use crate::message::{clip, count_of};

/// The signal that decided that the export is complete; the strongest that there is counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The exporter's own manifest file names every file.
    Manifest,
    /// The platform says that the export phase is complete. Forge does; Connect has no such event (PROTOCOL.md 7.2).
    ExportComplete,
    /// The platform lists no further file and none was announced for the quiet period.
    FileList,
    /// The server's listener failed: nothing more will come.
    ListenerError,
    /// It is a later phase of a staged transfer: what the first has stored whole is all.
    Stored,
}

impl Evidence {
    /// How the verdict's message words it.
    pub const fn as_words(self) -> &'static str {
        match self {
            Self::Manifest => "by the export's manifest",
            Self::ExportComplete => "by the platform's word that the export is complete",
            Self::FileList => "by the platform's file list after a quiet period",
            Self::ListenerError => "because the server's listener failed",
            Self::Stored => "by what the first phase has stored",
        }
    }
}

/// The small file that an exporter uploads last, naming what it exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredManifest", into = "StoredManifest")]
pub struct Manifest {
    /// What is said of each exported file, by its label.
    files: BTreeMap<String, Declared>,
}

/// What a manifest says of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// How many records it has, where the exporter counted them.
    pub records: Option<u64>,
    /// Its length and its digest, where the exporter measured them.
    pub measure: Measure,
}

/// A manifest as it is stored. Labels stand in it once, because they may be most of it.
#[derive(Serialize, Deserialize)]
struct StoredManifest {
    files: BTreeMap<String, Option<u64>>,
    /// In the order of the labels; none where nothing was measured. A release that doesn't know them compares the records alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    measures: Vec<Measure>,
}

impl From<StoredManifest> for Manifest {
    fn from(stored: StoredManifest) -> Self {
        let measures = stored.measures.into_iter();
        let measures = measures.chain(std::iter::repeat(Measure::default()));
        let files = stored.files.into_iter().zip(measures);
        Self {
            files: files
                .map(|((label, records), measure)| (label, Declared { records, measure }))
                .collect(),
        }
    }
}

impl From<Manifest> for StoredManifest {
    fn from(manifest: Manifest) -> Self {
        let mut stored = Self {
            files: BTreeMap::new(),
            measures: Vec::new(),
        };
        for (label, Declared { records, measure }) in manifest.files {
            stored.files.insert(label, records);
            stored.measures.push(measure);
        }
        if stored.measures.iter().all(Measure::is_unknown) {
            stored.measures.clear();
        }
        stored
    }
}

/// Why a manifest can't be used. The transfer then goes on without it, by the weaker signals.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// A version this release doesn't know.
    #[error("read the manifest: version {0} is not known, only 1")]
    Version(u64),
    /// More files than a transfer may have.
    #[error("read the manifest: it names {0} files, at most {max} are supported", max = Manifest::FILES_MAX)]
    TooMany(usize),
    /// The same label twice: nobody could tell which file is meant.
    #[error("read the manifest: it names one label twice")]
    DuplicateLabel,
}

impl Manifest {
    /// Most files that a manifest may name. Their labels must fit into one stored item of 400 KB.
    pub const FILES_MAX: usize = 10_000;

    /// Checks what the exporter declared.
    pub fn new(
        version: u64,
        files: impl IntoIterator<Item = (String, Declared)>,
    ) -> Result<Self, ManifestError> {
        if version != 1 {
            return Err(ManifestError::Version(version));
        }
        let mut named = BTreeMap::new();
        let mut number = 0_usize;
        for (label, mut declared) in files {
            number += 1;
            let sha256 = &mut declared.measure.sha256;
            *sha256 = sha256.as_ref().map(Digest::shortened);
            if named.insert(label, declared).is_some() {
                return Err(ManifestError::DuplicateLabel);
            }
        }
        if number > Self::FILES_MAX {
            return Err(ManifestError::TooMany(number));
        }
        Ok(Self { files: named })
    }

    /// The same without digests, which take most of the room.
    #[must_use]
    pub fn without_digests(mut self) -> Self {
        for declared in self.files.values_mut() {
            declared.measure.sha256 = None;
        }
        self
    }

    /// Number of files that the exporter says it uploaded, the manifest itself left out.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether the exporter says that there was nothing to export.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// What waiting for files begins with when their labels say which are not there.
pub(crate) const UPLOADS_AWAITED: &str = "the server app to upload ";

/// What is waited for as long as nothing was uploaded.
pub(crate) const FIRST_FILE: &str = "the server app's first file";

/// What completeness needs to know of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// The label that the server app gave, if any.
    pub label: Option<String>,
    /// Whether its import has ended, one way or the other.
    pub ended: bool,
    /// Whether it could not be read to its end.
    pub unreadable: bool,
    /// Records read from it.
    pub read: u64,
    /// What it measures, as far as that is known.
    pub measure: Measure,
}

/// Whether everything that the exporter meant to send is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Nothing more will come.
    Complete {
        /// The signal that decided it.
        evidence: Evidence,
        /// What the evidence says is not there, one phrase each.
        missing: Vec<String>,
    },
    /// More must come; the phrase reads after "waiting for".
    Waiting(String),
}

/// What is known of an export when its completeness is looked at.
#[derive(Clone, Copy, Debug)]
pub struct ExportFacts<'a> {
    /// All files of the transfer but the manifest.
    pub files: &'a [FileFacts],
    /// The manifest, when one was uploaded that can be used.
    pub manifest: Option<&'a Manifest>,
    /// Whether labels such as `pages-3-of-7` say how many files there are (`completeness.counted_labels`).
    pub counted_labels: bool,
    /// [`Transfer::evidence`](crate::Transfer::evidence). The files must agree with the platform's list where
    /// [`Transfer::needs_file_list`](crate::Transfer::needs_file_list) says so.
    pub evidence: Option<Evidence>,
}

/// Decides whether an export is complete, from the strongest signal there is.
pub fn evaluate(facts: &ExportFacts<'_>) -> Completeness {
    let open = facts.files.iter().filter(|file| !file.ended).count();
    if open > 0 {
        return Completeness::Waiting(format!("the import of {}", count_of(open as u64, "file")));
    }
    // The exporter is done or broken: what is not there will not come any more.
    let over = facts
        .evidence
        .filter(|evidence| *evidence != Evidence::FileList);
    if let Some(manifest) = facts.manifest {
        let (absent, different) = compare(manifest, facts.files);
        return if absent.is_empty() {
            Completeness::Complete {
                evidence: Evidence::Manifest,
                missing: different,
            }
        } else if let Some(evidence) = over {
            Completeness::Complete {
                evidence,
                missing: absent.into_iter().chain(different).collect(),
            }
        } else {
            Completeness::Waiting(format!(
                "{} that the manifest names: {}",
                count_of(absent.len() as u64, "file"),
                clip(&absent.join(", "), 200)
            ))
        };
    }
    let gaps = if facts.counted_labels {
        label_gaps(facts.files)
    } else {
        Vec::new()
    };
    match facts.evidence {
        Some(evidence) if over.is_some() || gaps.is_empty() => Completeness::Complete {
            evidence,
            missing: gaps,
        },
        _ if !gaps.is_empty() => {
            Completeness::Waiting(format!("{UPLOADS_AWAITED}{}", clip(&gaps.join(", "), 200)))
        }
        _ if facts.files.is_empty() => Completeness::Waiting(FIRST_FILE.to_owned()),
        _ => Completeness::Waiting("more files from the server app".to_owned()),
    }
}

/// The labels that the manifest names and that nobody uploaded; and the files that are not what it says.
fn compare(manifest: &Manifest, files: &[FileFacts]) -> (Vec<String>, Vec<String>) {
    let mut uploaded: BTreeMap<&str, Vec<&FileFacts>> = BTreeMap::new();
    for file in files {
        if let Some(label) = &file.label {
            uploaded.entry(label).or_default().push(file);
        }
    }
    let mut absent = Vec::new();
    let mut different = Vec::new();
    for (label, declared) in &manifest.files {
        let Some(copies) = uploaded.get(label.as_str()) else {
            absent.push(label.clone());
            continue;
        };
        let differences = differences(declared, copies);
        if !differences.is_empty() {
            different.push(format!("{label}: {}", differences.join(", and ")));
        }
    }
    (absent, different)
}

/// In what the files of one label differ from what the manifest says.
fn differences(declared: &Declared, copies: &[&FileFacts]) -> Vec<String> {
    // An unreadable file is counted as such; what it lacks needs no second mention.
    let readable = || copies.iter().filter(|file| !file.unreadable);
    // The same label twice is the same export sent twice: the better reading counts …
    let read = readable().map(|file| file.read).max();
    let records = match (read, declared.records) {
        (Some(read), Some(expected)) if read != expected => {
            Some(format!("{read} records read, the manifest says {expected}"))
        }
        _ => None,
    };
    // … and one copy of the right bytes is enough.
    let measures: Option<Vec<String>> = readable()
        .map(|file| file.measure.difference(&declared.measure))
        .collect();
    let measure = measures.and_then(|each| each.into_iter().next());
    records.into_iter().chain(measure).collect()
}

/// For labels such as `attachments-0003-of-0007`: the members of each group that are not there.
fn label_gaps(files: &[FileFacts]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, u64), BTreeSet<u64>> = BTreeMap::new();
    for label in files.iter().filter_map(|file| file.label.as_deref()) {
        if let Some((group, number, of)) = counted(label) {
            groups.entry((group, of)).or_default().insert(number);
        }
    }
    groups
        .into_iter()
        .filter(|((_, of), present)| (present.len() as u64) < *of)
        .map(|((group, of), present)| {
            format!("{} of {of} files of {group}", of - present.len() as u64)
        })
        .collect()
}

/// Reads `group-3-of-7` with any extension; numbers that make no sense are no count.
fn counted(label: &str) -> Option<(&str, u64, u64)> {
    let (front, back) = label.rsplit_once("-of-")?;
    let of = back.split_once('.').map_or(back, |(of, _extension)| of);
    let (group, number) = front.rsplit_once('-')?;
    let (number, of) = (number.parse::<u64>().ok()?, of.parse::<u64>().ok()?);
    let sensible = of >= 1 && of <= Manifest::FILES_MAX as u64 && number <= of;
    sensible.then_some((group, number, of))
}

#[cfg(test)]
mod tests;
