use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::message::{clip, count_of};

/// The signal that decided that the export is complete. Connect has no event for it (PROTOCOL.md 3.3), so the strongest available one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The exporter's own manifest file names every file.
    Manifest,
    /// The platform lists no further file and none was announced for the quiet period.
    FileList,
    /// The server's listener failed: nothing more will come.
    ListenerError,
}

impl Evidence {
    /// How the verdict's message words it.
    pub const fn as_words(self) -> &'static str {
        match self {
            Self::Manifest => "by the export's manifest",
            Self::FileList => "by the platform's file list after a quiet period",
            Self::ListenerError => "because the server's listener failed",
        }
    }
}

/// The small file that an exporter uploads last, naming what it exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Label of each exported file, with its number of records where the exporter counted them.
    files: BTreeMap<String, Option<u64>>,
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
        files: impl IntoIterator<Item = (String, Option<u64>)>,
    ) -> Result<Self, ManifestError> {
        if version != 1 {
            return Err(ManifestError::Version(version));
        }
        let mut named = BTreeMap::new();
        let mut number = 0_usize;
        for (label, records) in files {
            number += 1;
            if named.insert(label, records).is_some() {
                return Err(ManifestError::DuplicateLabel);
            }
        }
        if number > Self::FILES_MAX {
            return Err(ManifestError::TooMany(number));
        }
        Ok(Self { files: named })
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

/// Decides whether an export is complete, from the strongest signal there is.
///
/// `files` are all files of the transfer but the manifest. Without a manifest and without a listener error the caller asks
/// only after the quiet period, with files that agree with the platform's list.
pub fn evaluate(
    files: &[FileFacts],
    manifest: Option<&Manifest>,
    counted_labels: bool,
    listener_failed: bool,
    quiet: bool,
) -> Completeness {
    let open = files.iter().filter(|file| !file.ended).count();
    if open > 0 {
        return Completeness::Waiting(format!("the import of {}", count_of(open as u64, "file")));
    }
    let gaps = if counted_labels {
        label_gaps(files)
    } else {
        Vec::new()
    };
    if let Some(manifest) = manifest {
        let (absent, different) = compare(manifest, files);
        if absent.is_empty() {
            return Completeness::Complete {
                evidence: Evidence::Manifest,
                missing: different,
            };
        }
        if listener_failed {
            return Completeness::Complete {
                evidence: Evidence::ListenerError,
                missing: absent,
            };
        }
        return Completeness::Waiting(format!(
            "{} that the manifest names: {}",
            count_of(absent.len() as u64, "file"),
            clip(&absent.join(", "), 200)
        ));
    }
    if listener_failed {
        return Completeness::Complete {
            evidence: Evidence::ListenerError,
            missing: gaps,
        };
    }
    if !gaps.is_empty() {
        return Completeness::Waiting(format!("{UPLOADS_AWAITED}{}", clip(&gaps.join(", "), 200)));
    }
    if quiet {
        Completeness::Complete {
            evidence: Evidence::FileList,
            missing: Vec::new(),
        }
    } else {
        Completeness::Waiting("more files from the server app".to_owned())
    }
}

/// The labels that the manifest names and that nobody uploaded; and the files whose number of records differs.
fn compare(manifest: &Manifest, files: &[FileFacts]) -> (Vec<String>, Vec<String>) {
    let mut read: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for file in files {
        if let Some(label) = &file.label {
            // The same label twice is the same export sent twice; the better reading counts.
            let entry = read.entry(label).or_insert((0, true));
            if entry.1 || !file.unreadable {
                *entry = (entry.0.max(file.read), file.unreadable);
            }
        }
    }
    let mut absent = Vec::new();
    let mut different = Vec::new();
    for (label, expected) in &manifest.files {
        match (read.get(label.as_str()), expected) {
            (None, _) => absent.push(label.clone()),
            // An unreadable file is counted as such; its missing records need no second mention.
            (Some((read, false)), Some(expected)) if read != expected => {
                different.push(format!(
                    "{label}: {read} records read, the manifest says {expected}"
                ));
            }
            _ => {}
        }
    }
    (absent, different)
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
mod tests {
    use super::*;

    fn file(label: &str, read: u64) -> FileFacts {
        FileFacts {
            label: Some(label.to_owned()),
            ended: true,
            unreadable: false,
            read,
        }
    }

    fn manifest(files: &[(&str, Option<u64>)]) -> Manifest {
        Manifest::new(
            1,
            files
                .iter()
                .map(|(label, records)| ((*label).to_owned(), *records)),
        )
        .unwrap()
    }

    #[test]
    fn a_manifest_whose_files_are_all_there_completes_at_once() {
        let found = evaluate(
            &[file("a", 3)],
            Some(&manifest(&[("a", Some(3))])),
            true,
            false,
            false,
        );
        assert_eq!(
            found,
            Completeness::Complete {
                evidence: Evidence::Manifest,
                missing: vec![]
            }
        );
    }

    #[test]
    fn a_manifest_outweighs_the_quiet_period() {
        let found = evaluate(
            &[file("a", 3)],
            Some(&manifest(&[("a", None), ("b", None)])),
            true,
            false,
            true,
        );
        assert_eq!(
            found,
            Completeness::Waiting("1 file that the manifest names: b".to_owned())
        );
    }

    #[test]
    fn a_record_count_that_differs_from_the_manifest_is_missing() {
        let found = evaluate(
            &[file("a", 2)],
            Some(&manifest(&[("a", Some(3))])),
            true,
            false,
            false,
        );
        let Completeness::Complete { missing, .. } = found else {
            panic!("{found:?}")
        };
        assert_eq!(missing, ["a: 2 records read, the manifest says 3"]);
    }

    #[test]
    fn counted_labels_block_completion_until_all_are_there() {
        let some = [
            file("issues-0001-of-0003.ndjson.gz", 1),
            file("issues-0003-of-0003.ndjson.gz", 1),
        ];
        assert_eq!(
            evaluate(&some, None, true, false, true),
            Completeness::Waiting("the server app to upload 1 of 3 files of issues".to_owned())
        );
        assert!(matches!(
            evaluate(&some, None, false, false, true),
            Completeness::Complete { .. }
        ));
    }

    #[test]
    fn without_a_manifest_only_the_quiet_period_completes() {
        assert!(matches!(
            evaluate(&[file("a", 1)], None, true, false, false),
            Completeness::Waiting(_)
        ));
        assert_eq!(
            evaluate(&[file("a", 1)], None, true, false, true),
            Completeness::Complete {
                evidence: Evidence::FileList,
                missing: vec![]
            }
        );
    }

    #[test]
    fn a_listener_error_completes_what_came_and_names_the_gaps() {
        let found = evaluate(&[file("x-1-of-2", 1)], None, true, true, false);
        assert_eq!(
            found,
            Completeness::Complete {
                evidence: Evidence::ListenerError,
                missing: vec!["1 of 2 files of x".to_owned()]
            }
        );
    }

    #[test]
    fn an_open_file_is_waited_for_whatever_else_is_known() {
        let open = FileFacts {
            ended: false,
            ..file("a", 1)
        };
        assert!(matches!(
            evaluate(&[open], Some(&manifest(&[("a", None)])), true, true, true),
            Completeness::Waiting(_)
        ));
    }

    #[test]
    fn a_label_that_only_looks_counted_is_no_count() {
        assert_eq!(counted("best-of-breed"), None);
        assert_eq!(counted("a-9-of-3"), None);
        assert_eq!(counted("a-0-of-0"), None);
        assert_eq!(counted("page-of-4-of-7"), Some(("page-of", 4, 7)));
        assert_eq!(
            counted("v1.2-issues-1-of-7.ndjson.gz"),
            Some(("v1.2-issues", 1, 7))
        );
    }
}
