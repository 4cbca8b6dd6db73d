use std::collections::BTreeMap;
use std::fmt::Write as _;

use landfall_transfer::seeded_bugs::SeededBug;

use super::Caught;

/// `docs/seeded-bugs.md`: what stands before the table, and what each layer saw of each bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    introduction: String,
    /// A row for each bug that it names.
    pub rows: BTreeMap<String, Row>,
}

/// What it says of one bug: what each layer saw.
pub type Row = BTreeMap<String, Caught>;

/// What begins the part that is printed.
const TABLE: &str = "## The table\n";

/// The layers in the order of the table's columns, the fastest first.
pub(super) const LAYERS: [&str; 6] = [
    "core",
    "contract",
    "crashes",
    "search",
    "interleavings",
    "seeds",
];

impl Document {
    /// Reads it.
    pub fn read(text: &str) -> Self {
        let (introduction, printed) = text.split_once(TABLE).unwrap_or((text, ""));
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        let mut bug = String::new();
        for line in printed.lines() {
            if let Some(name) = line.strip_prefix("### ") {
                name.clone_into(&mut bug);
                rows.entry(bug.clone()).or_default();
            } else if let Some((layer, caught)) = caught(line) {
                rows.entry(bug.clone()).or_default().insert(layer, caught);
            }
        }
        Self {
            introduction: introduction.to_owned(),
            rows,
        }
    }

    /// Writes it.
    pub fn print(&self) -> String {
        let mut text = format!("{}{TABLE}\n| Bug | Breaks |", self.introduction);
        for layer in LAYERS {
            let _ = write!(text, " {layer} |");
        }
        text.push_str("\n|---|---|");
        text.push_str(&"---|".repeat(LAYERS.len()));
        let nothing = Row::new();
        for bug in SeededBug::ALL {
            let row = self.rows.get(bug.name()).unwrap_or(&nothing);
            let _ = write!(text, "\n| `{}` | {} |", bug.name(), bug.breaks());
            let mut first = true;
            for layer in LAYERS {
                let cell = match (row.contains_key(layer), first) {
                    (true, true) => "**yes**",
                    (true, false) => "yes",
                    (false, _) => "–",
                };
                first &= !row.contains_key(layer);
                let _ = write!(text, " {cell} |");
            }
        }
        text.push_str("\n\n## What each layer saw first\n");
        for bug in SeededBug::ALL {
            let row = self.rows.get(bug.name()).unwrap_or(&nothing);
            let _ = writeln!(text, "\n### {}\n\n{}\n", bug.name(), bug.mistake());
            for layer in LAYERS {
                if let Some(caught) = row.get(layer) {
                    let _ = writeln!(text, "* {layer}: `{}`: {}", caught.at, caught.violation);
                }
            }
        }
        text
    }
}

/// Reads ``* layer: `where`: what``.
fn caught(line: &str) -> Option<(String, Caught)> {
    let (layer, rest) = line.strip_prefix("* ")?.split_once(": `")?;
    let (at, violation) = rest.split_once("`: ")?;
    let caught = Caught {
        at: at.to_owned(),
        violation: violation.to_owned(),
    };
    Some((layer.to_owned(), caught))
}
