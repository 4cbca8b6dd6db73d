//! The exporter's manifest, as `contracts/manifest` specifies it.

use landfall_platform::event::bounded_label;
use landfall_tracking::pack_manifest;
use landfall_transfer::{Declared, Digest, Manifest, Measure};
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
    bytes: Option<u64>,
    sha256: Option<String>,
}

impl WrittenFile {
    fn declared(self) -> Result<(String, Declared), String> {
        let digest = |text| {
            Digest::new(text).ok_or(
                "the manifest gives a file a sha256 that is not 64 lower-case hexadecimal digits",
            )
        };
        let declared = Declared {
            records: self.records,
            measure: Measure {
                bytes: self.bytes,
                sha256: self.sha256.map(digest).transpose()?,
            },
        };
        // Bounded as the labels of events and lists are, so that a very long one is still the same.
        Ok((bounded_label(&self.label).into_owned(), declared))
    }
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
    let files = written.files.into_iter().map(WrittenFile::declared);
    let files: Vec<_> = files.collect::<Result<_, _>>()?;
    let manifest =
        Manifest::new(written.version, files).map_err(|error| format!("failed to {error}"))?;
    if pack_manifest(&manifest).is_ok() {
        return Ok(manifest);
    }
    // Lengths and numbers of records are compared at least.
    let manifest = manifest.without_digests();
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
        // Only of use to whoever validates: no file is ever found by them.
        let of_no_harm = |name: &str| ["label-empty", "names-itself"].contains(&name);
        let wrongly: Vec<String> = taken("bad")
            .into_iter()
            .filter(|name| !of_no_harm(name))
            .collect();
        assert_eq!(wrongly, [""; 0]);
    }

    /// Hexadecimal digits that don't repeat.
    fn digits(number: u64, count: usize) -> String {
        let mixed = |salt: u64| {
            let mixed = (number * 8 + salt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            format!("{:016x}", mixed ^ (mixed >> 27))
        };
        let mut digits: String = (0..4).map(mixed).collect();
        digits.truncate(count);
        digits
    }

    /// With 10,000 files, each with a length and a digest.
    fn large(label: impl Fn(u64) -> String) -> Manifest {
        let files: Vec<String> = (0..10_000)
            .map(|number| {
                let (label, bytes) = (label(number), number * 7919 % 1_000_003);
                let sha256 = digits(number + 10_000, 64);
                format!(
                    r#"{{"label":"{label}","records":2500,"bytes":{bytes},"sha256":"{sha256}"}}"#
                )
            })
            .collect();
        let text = format!(r#"{{"version":1,"files":[{}]}}"#, files.join(","));
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn digests_are_kept_where_there_is_room_for_them() {
        let counted = large(|number| format!("issues-{number:05}-of-10000.ndjson.gz"));
        assert_ne!(counted.clone().without_digests(), counted);
        let random = large(|number| digits(number, 40));
        assert_eq!(random.clone().without_digests(), random);
        assert_eq!(random.len(), 10_000);
    }

    #[test]
    fn a_digest_of_another_form_is_refused_by_its_name() {
        let reason = read(br#"{"version":1,"files":[{"label":"a","sha256":"9F"}]}"#).unwrap_err();
        assert!(reason.contains("sha256"), "{reason}");
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
