//! Faults on request: rules that say where, what, and how often. Draws come from the seed.

use serde::{Deserialize, Serialize};

use crate::forge::rest as forge;
use crate::seed::{Generator, derive};

/// The eleven operations, as fault targets and in the statistics.
pub(crate) const OPERATIONS: [&str; 11] = [
    "rest.webhook_get",
    "rest.webhook_put",
    "rest.progress",
    "rest.mapping_find",
    "rest.mapping_page",
    "rest.data_all",
    "rest.data_url",
    "rest.transfer_recent",
    "rest.container_page",
    "rest.feedback",
    "rest.error",
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Drop,
    Duplicate,
    Reorder,
    Delay,
    NoMessageId,
    Status,
    Slow,
    Cut,
    LoseAnswer,
    Expired,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) hits: u64,
    pub(crate) target: String,
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) probability: Option<f64>,
    #[serde(default)]
    pub(crate) next: Option<u64>,
    #[serde(default)]
    pub(crate) skip: u64,
    #[serde(default)]
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) retry_after_s: Option<u64>,
    #[serde(default)]
    pub(crate) delay_ms: Option<u64>,
    #[serde(default)]
    pub(crate) copies: Option<u32>,
    #[serde(default)]
    pub(crate) after_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) event_type: Option<String>,
    #[serde(default)]
    pub(crate) transfer_id: Option<String>,
    #[serde(default)]
    pub(crate) site: Option<String>,
    #[serde(skip)]
    draws: u64,
}

/// What a rule is compared with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    pub(crate) target: &'a str,
    pub(crate) event_type: Option<&'a str>,
    pub(crate) transfer_id: Option<&'a str>,
    pub(crate) site: Option<&'a str>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
    last_id: u64,
    seed: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: derive(seed, &["faults"]),
            ..Self::default()
        }
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.id != id);
        self.rules.len() < before
    }

    /// Checks a rule and takes it up; the error says what is wrong with it.
    pub(crate) fn add(&mut self, mut rule: Rule) -> Result<&Rule, String> {
        check(&rule)?;
        self.last_id += 1;
        rule.id = self.last_id;
        rule.hits = 0;
        self.rules.push(rule);
        self.rules.last().ok_or_else(|| "no rule".into())
    }

    /// The rules of the given kinds that strike here and now; each is counted.
    pub(crate) fn strike(&mut self, place: &Place<'_>, kinds: &[Kind]) -> Vec<Rule> {
        let seed = self.seed;
        self.rules
            .iter_mut()
            .filter(|rule| kinds.contains(&rule.kind) && rule.covers(place))
            .filter_map(|rule| rule.draw(seed).then(|| rule.clone()))
            .collect()
    }

    /// A seeded number below `limit` for a rule that struck.
    pub(crate) fn number(&self, rule: &Rule, limit: u64) -> u64 {
        Generator::new(derive(
            self.seed,
            &["number", &format!("{}/{}", rule.id, rule.hits)],
        ))
        .below(limit)
    }
}

impl Rule {
    fn covers(&self, place: &Place<'_>) -> bool {
        let target = self.target == place.target
            || (self.target == "rest" && place.target.starts_with("rest."))
            || (self.target == "forge" && place.target.starts_with("forge."));
        target
            && matches(self.event_type.as_deref(), place.event_type)
            && matches(self.transfer_id.as_deref(), place.transfer_id)
            && matches(self.site.as_deref(), place.site)
    }

    fn draw(&mut self, seed: u64) -> bool {
        if self.next.is_some_and(|next| self.hits >= next) {
            return false;
        }
        self.draws += 1;
        if self.draws <= self.skip {
            return false;
        }
        if let Some(probability) = self.probability {
            let words = ["draw", &self.id.to_string(), &self.draws.to_string()];
            let drawn = Generator::new(derive(seed, &words)).below(1_000_000);
            #[expect(clippy::cast_precision_loss, reason = "below a million")]
            if drawn as f64 >= probability * 1_000_000.0 {
                return false;
            }
        }
        self.hits += 1;
        true
    }
}

fn matches(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| found == Some(wanted))
}

fn check(rule: &Rule) -> Result<(), String> {
    let kinds: &[Kind] = match rule.target.as_str() {
        "events" => &[
            Kind::Drop,
            Kind::Duplicate,
            Kind::Reorder,
            Kind::Delay,
            Kind::NoMessageId,
            Kind::Cut,
            Kind::LoseAnswer,
        ],
        "store" => &[Kind::Status, Kind::Slow, Kind::Cut, Kind::Expired],
        "forge_refresh" => &[Kind::Drop, Kind::Delay],
        "install_keys" | "forge_keys" => &[Kind::Status, Kind::Slow, Kind::Cut],
        target
            if ["rest", "forge"].contains(&target)
                || OPERATIONS.contains(&target)
                || forge::OPERATIONS.contains(&target) =>
        {
            &[Kind::Status, Kind::Slow, Kind::Cut, Kind::LoseAnswer]
        }
        target => {
            return Err(format!(
                "there is no target {target:?}; take events, store, install_keys, forge_keys, forge_refresh, rest, forge or one of {}, {}",
                OPERATIONS.join(", "),
                forge::OPERATIONS.join(", ")
            ));
        }
    };
    if !kinds.contains(&rule.kind) {
        return Err(format!(
            "the target {:?} has no fault {:?}, only {kinds:?}",
            rule.target, rule.kind
        ));
    }
    if rule
        .probability
        .is_some_and(|probability| !(0.0..=1.0).contains(&probability))
    {
        return Err("probability must be between 0 and 1".into());
    }
    if rule.kind == Kind::Status
        && !rule
            .status
            .is_some_and(|status| (400..600).contains(&status))
    {
        return Err("kind \"status\" needs a status between 400 and 599".into());
    }
    if rule.event_type.is_some() && rule.target != "events" {
        return Err("event_type fits the target \"events\" only".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: serde_json::Value) -> Rule {
        serde_json::from_value(value).expect("a rule")
    }

    const PROGRESS: Place<'_> = Place {
        target: "rest.progress",
        event_type: None,
        transfer_id: None,
        site: None,
    };

    #[test]
    fn a_rule_with_next_strikes_that_often_after_what_it_skips() {
        let mut faults = Faults::new(1);
        faults
            .add(rule(
                json!({ "target": "rest", "kind": "status", "status": 503, "next": 2, "skip": 1 }),
            ))
            .expect("sound");
        let struck: Vec<usize> = (0..5)
            .map(|_| faults.strike(&PROGRESS, &[Kind::Status]).len())
            .collect();
        assert_eq!(struck, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn a_probability_strikes_about_that_often_and_the_same_way_for_one_seed() {
        let run = |seed| {
            let mut faults = Faults::new(seed);
            faults
                .add(rule(
                    json!({ "target": "rest.progress", "kind": "cut", "probability": 0.3 }),
                ))
                .expect("sound");
            (0..1000)
                .map(|_| !faults.strike(&PROGRESS, &[Kind::Cut]).is_empty())
                .collect::<Vec<_>>()
        };
        let struck = run(5).iter().filter(|struck| **struck).count();
        assert!((230..370).contains(&struck), "{struck}");
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn a_rule_that_can_never_strike_is_refused() {
        let mut faults = Faults::new(1);
        for value in [
            json!({ "target": "restt", "kind": "cut" }),
            json!({ "target": "store", "kind": "drop" }),
            json!({ "target": "store", "kind": "status" }),
            json!({ "target": "rest", "kind": "cut", "probability": 2.0 }),
        ] {
            assert!(faults.add(rule(value)).is_err());
        }
    }
}
