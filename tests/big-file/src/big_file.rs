//! The file: computed from a seed by the twin's generator, and, for comparison, as it must be once its ids are replaced.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_lc_rs::digest::{Context, SHA256};
use landfall_twin::{AuthorKeys, Format, Generated, Product, Shape};
use serde_json::{Value, json};

/// The file's label.
pub(crate) const LABEL: &str = "records.ndjson";

/// Bytes of each record with its line end.
pub(crate) const RECORD_BYTES: u64 = 300;

/// Decides all records.
const SEED: u64 = 25;

/// The `id` of the first record.
const FIRST_ID: u64 = 10_000;

/// Records that are looked at to learn which ids there are: each of the few hundred comes many times in so many.
const SAMPLE: u64 = 100_000;

/// Records that are computed at once.
const PIECE_RECORDS: u64 = 1_000;

/// Ids and what replaces them.
type Ids = BTreeMap<String, String>;

/// The file.
pub(crate) struct BigFile {
    generated: Generated,
    records: u64,
    projects: Ids,
    authors: Ids,
}

impl BigFile {
    /// A file of at least so many bytes.
    pub(crate) fn new(bytes: u64) -> anyhow::Result<Self> {
        let records = bytes.div_ceil(RECORD_BYTES);
        let generated = Generated::new(Shape {
            format: Format::Ndjson,
            records,
            record_bytes: RECORD_BYTES,
            seed: SEED,
            first_id: FIRST_ID,
            bad_records: 0,
            missing_mappings: 0,
            author_keys: AuthorKeys::Prefixed,
            product: Product::Jira,
        })?;
        let mut file = Self {
            generated,
            records,
            projects: Ids::new(),
            authors: Ids::new(),
        };
        for start in (0..records.min(SAMPLE)).step_by(usize::try_from(PIECE_RECORDS)?) {
            for line in file.piece(start)?.lines() {
                let record: Value = serde_json::from_str(line)?;
                for (ids, member, replaced_by) in [
                    (&mut file.projects, "project", "cloud-project-"),
                    (&mut file.authors, "author", "account-"),
                ] {
                    let id = record[member].as_str().context("an id is a text")?;
                    let next = ids.len();
                    ids.entry(id.to_owned())
                        .or_insert_with(|| format!("{replaced_by}{next}"));
                }
            }
        }
        Ok(file)
    }

    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.records * RECORD_BYTES
    }

    /// The file, as the twin's control API describes one.
    pub(crate) fn wish(&self) -> Value {
        json!({
            "label": LABEL, "records": self.records, "record_bytes": RECORD_BYTES, "seed": SEED, "first_id": FIRST_ID,
        })
    }

    /// The mappings of its ids, as the twin's control API declares them.
    pub(crate) fn mappings(&self) -> [Value; 2] {
        [
            json!({ "namespace": "jira/classic:project", "values": self.projects, "holes": [] }),
            json!({ "namespace": "identity:user", "values": self.authors, "holes": [] }),
        ]
    }

    /// SHA-256 of what a sink must have: each record with its ids replaced and a line end. Computed without any of Landfall's code.
    pub(crate) async fn digest(&self) -> anyhow::Result<String> {
        let mut digest = Context::new(&SHA256);
        for start in (0..self.records).step_by(usize::try_from(PIECE_RECORDS)?) {
            for line in self.piece(start)?.lines() {
                digest.update(self.rewritten(line)?.as_bytes());
                digest.update(b"\n");
            }
            // It takes a while, and whoever waits may want to stop.
            tokio::task::yield_now().await;
        }
        Ok(hex::encode(digest.finish()))
    }

    fn piece(&self, start: u64) -> anyhow::Result<String> {
        let most = usize::try_from(PIECE_RECORDS * RECORD_BYTES)?;
        let bytes = self.generated.read(start * RECORD_BYTES, most);
        Ok(String::from_utf8(bytes)?)
    }

    fn rewritten(&self, line: &str) -> anyhow::Result<String> {
        let mut written = String::with_capacity(line.len());
        let mut rest = line;
        for (member, ids) in [
            (r#""project":""#, &self.projects),
            (r#""author":""#, &self.authors),
        ] {
            let start = rest.find(member).context("each record has its ids")? + member.len();
            let length = rest[start..].find('"').context("a text ends")?;
            let id = &rest[start..start + length];
            written.push_str(&rest[..start]);
            written.push_str(ids.get(id).with_context(|| format!("the id {id} is new"))?);
            rest = &rest[start + length..];
        }
        written.push_str(rest);
        Ok(written)
    }
}
