//! What came of a run, as a table.

use std::fmt::{Display, Write as _};

/// Lines of what was wanted and what was seen.
#[derive(Default)]
pub(crate) struct Table(Vec<Line>);

struct Line {
    what: &'static str,
    wanted: String,
    seen: String,
    holds: Option<bool>,
}

impl Table {
    /// Something that must hold.
    pub(crate) fn check(
        &mut self,
        what: &'static str,
        wanted: &dyn Display,
        seen: &dyn Display,
        holds: bool,
    ) {
        self.add(what, wanted, seen, Some(holds));
    }

    /// Something to know.
    pub(crate) fn tell(&mut self, what: &'static str, seen: &dyn Display) {
        self.add(what, &"", seen, None);
    }

    fn add(
        &mut self,
        what: &'static str,
        wanted: &dyn Display,
        seen: &dyn Display,
        holds: Option<bool>,
    ) {
        self.0.push(Line {
            what,
            wanted: wanted.to_string(),
            seen: seen.to_string(),
            holds,
        });
    }

    /// Whether everything holds that must.
    pub(crate) fn holds(&self) -> bool {
        self.0.iter().all(|line| line.holds != Some(false))
    }

    /// The table, for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{:<44} {:<20} {:<20}\n", "", "wanted", "seen");
        for line in &self.0 {
            let holds = match line.holds {
                Some(true) => "holds",
                Some(false) => "DOES NOT HOLD",
                None => "",
            };
            let written = format!(
                "{:<44} {:<20} {:<20} {holds}",
                line.what, line.wanted, line.seen
            );
            // Writing to a string can't fail.
            let _ = writeln!(text, "{}", written.trim_end());
        }
        text
    }
}
