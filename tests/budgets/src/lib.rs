#![doc = include_str!("../README.md")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

/// Where the budgets are, as a failure names it.
const FILE: &str = "tests/budgets/budgets.toml";

static BUDGETS: LazyLock<BTreeMap<String, Budget>> = LazyLock::new(|| {
    read(include_str!("../budgets.toml")).unwrap_or_else(|problem| panic!("{FILE}: {problem}"))
});

/// What may be used at most.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    #[serde(skip)]
    name: String,
    at_most: f64,
    unit: String,
    reason: String,
}

/// The budget of that name.
///
/// # Panics
///
/// When there is none.
pub fn budget(name: &str) -> &'static Budget {
    let found = BUDGETS.get(name);
    found.unwrap_or_else(|| panic!("{FILE} has no budget of the name {name}"))
}

/// All budgets, by their names.
pub fn budgets() -> impl Iterator<Item = &'static Budget> {
    BUDGETS.values()
}

impl Budget {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most that may be used, in its unit.
    pub const fn at_most(&self) -> f64 {
        self.at_most
    }

    /// What it is counted in.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Why it is what it is.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Demands that no more was measured.
    ///
    /// # Panics
    ///
    /// When more was, or what was measured is no number.
    pub fn holds(&self, measured: impl Measured) {
        if let Err(exceeded) = self.check(measured) {
            panic!("{exceeded}");
        }
    }

    /// Whether no more was measured, and if more was, in words.
    pub fn check(&self, measured: impl Measured) -> Result<(), Exceeded<'_>> {
        let measured = measured.in_units();
        if measured <= self.at_most {
            return Ok(());
        }
        Err(Exceeded {
            budget: self,
            measured,
        })
    }
}

/// More was measured than a budget allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exceeded<'budget> {
    budget: &'budget Budget,
    measured: f64,
}

impl fmt::Display for Exceeded<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget {
            name,
            at_most,
            unit,
            reason,
        } = self.budget;
        write!(
            formatter,
            "{name}: {} {unit} were measured, and at most {at_most} are allowed ({reason}). \
             Mend what uses more, or change the budget in {FILE}, with the reason for the new one",
            self.measured
        )
    }
}

impl std::error::Error for Exceeded<'_> {}

/// What can be held against a budget.
pub trait Measured {
    /// The number, in the budget's unit.
    fn in_units(self) -> f64;
}

impl Measured for f64 {
    fn in_units(self) -> f64 {
        self
    }
}

impl Measured for u32 {
    fn in_units(self) -> f64 {
        f64::from(self)
    }
}

impl Measured for u64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a budget is far below 2^53, and what is above stays above"
    )]
    fn in_units(self) -> f64 {
        self as f64
    }
}

impl Measured for usize {
    fn in_units(self) -> f64 {
        (self as u64).in_units()
    }
}

/// Reads budgets: tables within tables, whose names are joined by dots.
fn read(text: &str) -> Result<BTreeMap<String, Budget>, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut budgets = BTreeMap::new();
    gather("", &table, &mut budgets)?;
    Ok(budgets)
}

fn gather(
    prefix: &str,
    table: &toml::Table,
    budgets: &mut BTreeMap<String, Budget>,
) -> Result<(), String> {
    for (word, value) in table {
        let name = if prefix.is_empty() {
            word.clone()
        } else {
            format!("{prefix}.{word}")
        };
        let toml::Value::Table(inner) = value else {
            return Err(format!("{name} is no budget"));
        };
        if inner.contains_key("at_most") {
            let budget: Budget = inner
                .clone()
                .try_into()
                .map_err(|error| format!("{name}: {error}"))?;
            let stands = budget.at_most.is_finite() && budget.at_most >= 0.0;
            if !stands || budget.unit.is_empty() || budget.reason.is_empty() {
                return Err(format!(
                    "{name}: a number, its unit and its reason are needed"
                ));
            }
            budgets.insert(name.clone(), Budget { name, ..budget });
        } else {
            gather(&name, inner, budgets)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten() -> Budget {
        let text = "[a.b]\nat_most = 10\nunit = \"calls\"\nreason = \"ten fingers\"\n";
        read(text)
            .unwrap_or_default()
            .remove("a.b")
            .unwrap_or_else(|| panic!("it is there"))
    }

    #[test]
    fn what_is_measured_may_be_as_much_as_the_budget_and_no_more() {
        assert_eq!(ten().check(10_u64), Ok(()));
        assert_eq!(ten().check(9.9), Ok(()));
        assert!(ten().check(11_usize).is_err());
        assert!(ten().check(10.01).is_err());
        assert!(ten().check(f64::NAN).is_err());
    }

    #[test]
    fn a_failure_says_what_was_measured_what_is_allowed_why_and_where_that_is_changed() {
        let budget = ten();
        let said = budget
            .check(11_u32)
            .map_err(|exceeded| exceeded.to_string());
        assert_eq!(
            said,
            Err(
                "a.b: 11 calls were measured, and at most 10 are allowed (ten fingers). Mend what uses more, or change the budget in \
                 tests/budgets/budgets.toml, with the reason for the new one"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_budget_without_a_reason_is_refused() {
        for text in [
            "[a]\nat_most = 10\nunit = \"calls\"\n",
            "[a]\nat_most = 10\nunit = \"calls\"\nreason = \"\"\n",
            "[a]\nat_most = nan\nunit = \"calls\"\nreason = \"why\"\n",
            "[a]\nat_most = 10\nunit = \"calls\"\nreason = \"why\"\nsince = \"then\"\n",
            "a = 10\n",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_budget_of_the_file_can_be_read_and_is_found_by_its_name() {
        assert!(budgets().count() > 0);
        for one in budgets() {
            assert_eq!(budget(one.name()), one);
        }
    }
}
