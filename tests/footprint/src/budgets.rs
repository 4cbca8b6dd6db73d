//! What may be used at most.

use std::path::Path;

use anyhow::Context as _;
use toml::Table;

/// The budgets, by names such as `zip.intake`.
pub(crate) struct Budgets(Table);

impl Budgets {
    /// Reads a file in which each budget is a table with `at_most`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self(toml::from_str(std::str::from_utf8(&text)?)?))
    }

    /// The budget of that name.
    pub(crate) fn budget(&self, name: &str) -> anyhow::Result<f64> {
        let mut table = &self.0;
        for part in name.split('.') {
            let found = table.get(part).and_then(toml::Value::as_table);
            table = found.with_context(|| format!("there is no budget of the name {name}"))?;
        }
        let at_most = table.get("at_most").cloned();
        let at_most = at_most.and_then(|number| number.try_into().ok());
        at_most.with_context(|| format!("the budget {name} has no number at_most"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_found_by_its_name_or_missed() {
        let text = "[zip.intake]\nat_most = 3\n[rss.intake]\nat_most = 2.5\n[zip.sweeper]\nunit = \"MB\"\n";
        let budgets = Budgets(toml::from_str(text).unwrap());
        assert!((budgets.budget("zip.intake").unwrap() - 3.0).abs() < 1e-9);
        assert!((budgets.budget("rss.intake").unwrap() - 2.5).abs() < 1e-9);
        for missing in ["zip.processor", "zip", "zip.sweeper", "zip.intake.more"] {
            assert!(budgets.budget(missing).is_err(), "{missing}");
        }
    }
}
