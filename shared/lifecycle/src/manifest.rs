//! The exporter's manifest, as `contracts/manifest` specifies it.

use landfall_platform::event::bounded_label;
use landfall_tracking::pack_manifest;
use landfall_transfer::Manifest;
use serde::Deserialize;

/// The manifest as the exporter writes it; further fields are the exporter's own.
#[derive(Deserialize)]
struct WrittenManifest {
    version: u64,
    files: Vec<WrittenFile>,
}

#[derive(Deserialize)]
struct WrittenFile {
    label: String,
    records: Option<u64>,
}

/// Reads a manifest. An error says, for the timeline, why it can't be used; reading it again can't help.
pub fn read(bytes: &[u8]) -> Result<Manifest, String> {
    // A struct would be read from an array, too.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err("the manifest is not a JSON object".to_owned());
    }
    let written: WrittenManifest = serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "the manifest is not of the documented form (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    // Bounded as the labels of events and lists are, so that a very long one is still the same.
    let files = written
        .files
        .into_iter()
        .map(|file| (bounded_label(&file.label).into_owned(), file.records));
    let manifest =
        Manifest::new(written.version, files).map_err(|error| format!("failed to {error}"))?;
    pack_manifest(&manifest)
        .map_err(|_| "the manifest's labels are too long to be kept".to_owned())?;
    Ok(manifest)
}

/// What holds of any bytes: they are refused, or can be kept and compared. Panics where that does not hold; the fuzz target `manifest` searches for such.
#[cfg(any(test, fuzzing))]
pub fn holds_of(bytes: &[u8]) {
    if let Ok(manifest) = read(bytes) {
        assert!(manifest.len() <= Manifest::FILES_MAX);
        assert!(pack_manifest(&manifest).is_ok(), "it can be kept");
        assert!(read(&[bytes, b" \n"].concat()).is_ok_and(|again| again == manifest));
        assert!(read(&[bytes, b"}"].concat()).is_err());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manifest_names_files_and_their_records() {
        let manifest = read(
            br#"{"version":1,"exporter":"2.1","files":[{"label":"a","records":3},{"label":"b"}]}"#,
        );
        assert_eq!(manifest.map(|manifest| manifest.len()), Ok(2));
    }

    /// Those of the examples of `contracts/manifest` that this release takes.
    fn taken(kind: &str) -> Vec<String> {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../contracts/manifest/examples/"
        );
        let mut taken: Vec<String> = std::fs::read_dir(format!("{folder}{kind}"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| read(&std::fs::read(path).unwrap()).is_ok())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        taken.sort();
        taken
    }

    #[test]
    fn a_manifest_is_read_as_its_specification_says() {
        assert_eq!(taken("good").len(), 9);
        // Only of use to whoever validates: neither is waited for, and lengths and digests are passed over.
        let of_no_harm = |name: &str| {
            ["bytes-", "sha256-"]
                .iter()
                .any(|field| name.starts_with(field))
                || ["label-empty", "names-itself"].contains(&name)
        };
        let wrongly: Vec<String> = taken("bad")
            .into_iter()
            .filter(|name| !of_no_harm(name))
            .collect();
        assert_eq!(wrongly, [""; 0]);
    }

    #[test]
    fn what_the_search_has_kept_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/manifest");
        for entry in std::fs::read_dir(folder).unwrap() {
            holds_of(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }

    proptest! {
        #[test]
        fn a_manifest_is_refused_or_can_be_kept(text in r#"(\{|\}|\[|\]|,|:| |"version":1|"files":\[|"label":"[a-c]"|"records":|"bytes":|"sha256":|[0-9]{1,21}|null|"x"){0,24}"#) {
            holds_of(text.as_bytes());
            holds_of(format!(r#"{{"version":1,"files":[{text}]}}"#).as_bytes());
        }
    }

    #[test]
    fn a_manifest_of_another_form_is_refused_without_quoting_it() {
        assert!(read(b"{\"secret\":1}").is_err_and(|reason| !reason.contains("secret")));
        assert!(
            read(br#"{"version":2,"files":[]}"#).is_err_and(|reason| reason.contains("version 2"))
        );
    }
}
