//! Small fixed scenes: what the outside does, to the second and without any chance, so that whatever goes wrong in a run is what a
//! suite made go wrong.

mod library;
mod plot;
mod stage;
mod staged;
mod still;
mod strange;
mod verify;

pub use library::scenes;
pub use plot::{Half, Plot};
pub use stage::{Bench, Doubled, Outcome, Stage, sqs};
pub use still::StillTime;
pub use verify::End;

use landfall_transfer::Flavour;

use crate::platform::Switches;

/// The one site of every scene on Connect.
const SITE: &str = "tenant";

/// The one installation of every scene on Forge.
const INSTALLATION: &str = "ari:cloud:ecosystem::installation/one";

/// What the outside does, and what may come of it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What it is about.
    pub name: &'static str,
    /// Which flavour of the platform it plays on.
    pub flavour: Flavour,
    /// How the platform answers where the sources disagree.
    pub switches: Switches,
    /// Appended to `landfall.toml`, which names the app of the flavour; on Forge it begins in the section `[forge]`.
    pub configuration: &'static str,
    /// What happens, in seconds after the start.
    pub acts: Vec<(u64, Act)>,
    /// Operations that take so many milliseconds instead of none, so that something can happen meanwhile; the beginning of a subject may follow, as in
    /// `deliver t+2`.
    pub slow: &'static [(&'static str, u64)],
    /// Ends that the rules allow beside the undisturbed one: transfer, status, and why.
    pub also: &'static [(&'static str, &'static str, &'static str)],
    /// Whether it is short enough for pairs of faults, and for a test that is not optimised.
    pub short: bool,
}

impl Scene {
    /// Its one tenant.
    pub const fn tenant(&self) -> &'static str {
        match self.flavour {
            Flavour::Connect => SITE,
            Flavour::Forge => INSTALLATION,
        }
    }
}

/// One thing that the outside does.
#[derive(Clone, Debug)]
pub enum Act {
    /// An admin starts a migration, or re-runs one.
    Begin {
        /// Its id.
        id: &'static str,
        /// The first attempt.
        original: Option<&'static str>,
        /// Whether the event for it is ever sent.
        told: bool,
    },
    /// The server app uploads a file.
    Upload(File),
    /// The server app says that its export is complete; Forge tells it.
    ExportComplete(&'static str),
    /// The schedule brings a token; Forge only.
    Refresh,
    /// The server app's listener fails.
    ListenerFails(&'static str),
    /// An admin cancels.
    Cancel(&'static str),
    /// The platform ends a transfer for reasons of its own.
    PlatformEnds(&'static str),
    /// So many rows that this release can't read are due, in each partition of the index.
    StrangeRows(u64),
}

/// A file that is uploaded.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its transfer.
    pub transfer: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Its label.
    pub label: &'static str,
    /// What is in it.
    pub content: Content,
    /// Whether the event for it is ever sent.
    pub told: bool,
}

/// What is in a file.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// So many good records, and so many that nobody has a mapping for.
    Records(u64, u64),
    /// So many good records, which have changed since [`Content::Records`] was exported.
    Changed(u64),
    /// A manifest that names these labels, with their numbers of records.
    Manifest(&'static [(&'static str, u64)]),
}

impl File {
    /// The content as it is uploaded. Files of the same label hold the same records, whichever attempt uploads them.
    pub fn text(&self) -> String {
        let label = self.label;
        match self.content {
            Content::Records(good, unmapped) => {
                let line = |id: String, user: String| {
                    format!("{{\"id\":\"{label}-{id}\",\"author\":\"{user}\"}}\n")
                };
                let good = (0..good).map(|n| line(format!("{n}"), format!("user-{}", n % 3)));
                let unmapped =
                    (0..unmapped).map(|n| line(format!("u{n}"), format!("unmapped-{n}")));
                good.chain(unmapped).collect()
            }
            Content::Changed(good) => {
                let line =
                    |n| format!("{{\"id\":\"{label}-{n}\",\"author\":\"user-0\",\"edition\":2}}\n");
                (0..good).map(line).collect()
            }
            Content::Manifest(files) => {
                let files: Vec<_> = files
                    .iter()
                    .map(|(label, records)| serde_json::json!({"label": label, "records": records}))
                    .collect();
                serde_json::json!({"version": 1, "files": files}).to_string()
            }
        }
    }
}
