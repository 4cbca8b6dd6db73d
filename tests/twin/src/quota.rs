//! The hidden quota of a site's REST API: no answer tells it, but a call beyond it is answered 429. And what the calls came to.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most calls of a site that are remembered; the counters go on.
const MOST_CALLS: usize = 1_000_000;

/// A call that arrives within this time of a refusal was on its way, or its sender could not know yet.
const ON_THE_WAY_MS: i64 = 250;

/// When a refusal carries `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Named {
    /// Always: the rest of the window, in whole seconds, rounded up.
    #[default]
    Always,
    /// All but every third.
    Sometimes,
    /// Never.
    Never,
}

/// What a site bears: so many calls in each window of the platform's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    site: String,
    calls: u64,
    window_ms: i64,
    #[serde(default)]
    retry_after: Named,
}

#[derive(Debug, Default)]
pub(crate) struct Quotas(BTreeMap<String, Site>);

#[derive(Debug)]
struct Site {
    rule: Rule,
    window: i64,
    taken: u64,
    refused: u64,
    calls: Vec<Call>,
}

#[derive(Debug, Clone, Serialize)]
struct Call {
    at_ms: i64,
    operation: &'static str,
    refused: bool,
    retry_after_s: Option<u64>,
}

/// A call beyond the quota, and the pause that its answer names, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beyond(pub(crate) Option<u64>);

impl Quotas {
    /// Sets a site's quota, and forgets what it was asked before; the error says what is wrong with it.
    pub(crate) fn set(&mut self, rule: Rule) -> Result<(), String> {
        if rule.calls == 0 || rule.window_ms < 1 {
            return Err("calls and window_ms must be at least 1".into());
        }
        let site = Site {
            rule: rule.clone(),
            window: 0,
            taken: 0,
            refused: 0,
            calls: Vec::new(),
        };
        self.0.insert(rule.site, site);
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a call that arrives now, or refuses it. A site without a quota takes everything.
    pub(crate) fn take(
        &mut self,
        site: &str,
        operation: &'static str,
        now_ms: i64,
    ) -> Result<(), Beyond> {
        self.0
            .get_mut(site)
            .map_or(Ok(()), |site| site.take(operation, now_ms))
    }

    /// What the sites were asked between two instants.
    pub(crate) fn figures(&self, from_ms: Option<i64>, until_ms: Option<i64>) -> Value {
        let sites = self.0.iter().map(|(name, site)| {
            let (from, until) = site.span(from_ms, until_ms);
            (name.clone(), site.figures(from, until))
        });
        Value::Object(sites.collect())
    }

    /// Every call that a site was asked, in order.
    pub(crate) fn calls(&self, site: &str) -> Option<Value> {
        self.0.get(site).map(|site| json!(site.calls))
    }
}

impl Site {
    fn take(&mut self, operation: &'static str, now_ms: i64) -> Result<(), Beyond> {
        let window = now_ms.div_euclid(self.rule.window_ms);
        if window != self.window {
            self.window = window;
            self.taken = 0;
        }
        let refused = self.taken >= self.rule.calls;
        if refused {
            self.refused += 1;
        } else {
            self.taken += 1;
        }
        let named = match self.rule.retry_after {
            Named::Always => true,
            Named::Sometimes => !self.refused.is_multiple_of(3),
            Named::Never => false,
        };
        let rest_ms = (window + 1) * self.rule.window_ms - now_ms;
        let retry_after_s =
            (refused && named).then(|| u64::try_from((rest_ms + 999) / 1_000).unwrap_or(0));
        if self.calls.len() < MOST_CALLS {
            self.calls.push(Call {
                at_ms: now_ms,
                operation,
                refused,
                retry_after_s,
            });
        }
        if refused {
            Err(Beyond(retry_after_s))
        } else {
            Ok(())
        }
    }

    fn span(&self, from_ms: Option<i64>, until_ms: Option<i64>) -> (i64, i64) {
        let first = self.calls.first().map_or(0, |call| call.at_ms);
        let last = self.calls.last().map_or(0, |call| call.at_ms);
        (from_ms.unwrap_or(first), until_ms.unwrap_or(last))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and milliseconds of a test run, far below 2^53"
    )]
    fn figures(&self, from: i64, until: i64) -> Value {
        let mut operations: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut taken, mut refused) = (0_u64, 0_u64);
        let (mut on_the_way, mut inside, mut latest_ms) = (0_u64, Vec::new(), 0);
        // The pause that reaches furthest: when it was told, and until when.
        let mut pause: Option<(i64, i64)> = None;
        for call in &self.calls {
            let counts = (from..=until).contains(&call.at_ms);
            let (begun, over) = pause.unwrap_or((0, 0));
            if call.at_ms < over && counts {
                let after_ms = call.at_ms - begun;
                if after_ms <= ON_THE_WAY_MS {
                    on_the_way += 1;
                } else {
                    latest_ms = latest_ms.max(after_ms);
                    inside.push(json!({
                        "at_ms": call.at_ms, "operation": call.operation, "after_ms": after_ms,
                    }));
                }
            }
            if let Some(seconds) = call.retry_after_s {
                let end = call.at_ms + i64::try_from(seconds).unwrap_or(0) * 1_000;
                let begun = if call.at_ms < over { begun } else { call.at_ms };
                pause = Some((begun, end.max(over)));
            }
            if counts {
                *operations.entry(call.operation).or_default() += 1;
                refused += u64::from(call.refused);
                taken += u64::from(!call.refused);
            }
        }
        let could = self.rule.calls as f64 * (until - from) as f64 / self.rule.window_ms as f64;
        let share = |part: u64, whole: f64| {
            if whole > 0.0 {
                part as f64 / whole
            } else {
                0.0
            }
        };
        let inside_pauses = inside.len();
        inside.truncate(20);
        json!({
            "quota": self.rule,
            "from_ms": from,
            "until_ms": until,
            "taken": taken,
            "refused": refused,
            "operations": operations,
            "share_used": share(taken, could),
            "share_refused": share(refused, (taken + refused) as f64),
            "on_the_way": on_the_way,
            "inside_pauses": inside_pauses,
            "inside": inside,
            "latest_ms": latest_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(retry_after: &str) -> Quotas {
        let rule = json!({
            "site": "acme", "calls": 2, "window_ms": 10_000, "retry_after": retry_after,
        });
        let mut quotas = Quotas::default();
        quotas
            .set(serde_json::from_value(rule).expect("a rule"))
            .expect("sound");
        quotas
    }

    #[test]
    fn a_window_takes_so_many_calls_and_refuses_the_rest_until_it_is_over() {
        let mut quotas = quotas("always");
        let took: Vec<_> = [0, 100, 3_500, 9_999, 10_000]
            .map(|at| quotas.take("acme", "rest.progress", at))
            .into();
        let beyond = |seconds| Err(Beyond(Some(seconds)));
        assert_eq!(took, [Ok(()), Ok(()), beyond(7), beyond(1), Ok(())]);
        assert_eq!(quotas.take("another", "rest.progress", 3_500), Ok(()));
    }

    #[test]
    fn a_refusal_may_keep_its_pause_to_itself() {
        let named = |retry_after| {
            let mut quotas = quotas(retry_after);
            let refused = (0..8).filter_map(|at| quotas.take("acme", "rest.progress", at).err());
            refused
                .map(|Beyond(seconds)| seconds.is_some())
                .collect::<Vec<bool>>()
        };
        assert_eq!(named("never"), [false; 6]);
        assert_eq!(named("sometimes"), [true, true, false, true, true, false]);
    }

    #[test]
    fn a_call_within_a_pause_is_told_from_one_that_was_on_its_way() {
        let mut quotas = quotas("always");
        for at in [0, 1_000, 2_000, 2_000, 5_000, 10_000] {
            quotas.take("acme", "rest.mapping_find", at).ok();
        }
        let figures = &quotas.figures(None, None)["acme"];
        assert_eq!(
            (&figures["taken"], &figures["refused"]),
            (&json!(3), &json!(3))
        );
        assert_eq!(
            (&figures["on_the_way"], &figures["inside_pauses"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(figures["inside"][0]["after_ms"], 3_000);
        assert_eq!(figures["share_used"], 1.5);
        assert_eq!(figures["operations"]["rest.mapping_find"], 6);
        let later = &quotas.figures(Some(9_000), Some(19_000))["acme"];
        assert_eq!(
            (&later["share_used"], &later["inside_pauses"]),
            (&json!(0.5), &json!(0))
        );
    }

    #[test]
    fn a_quota_of_nothing_is_refused() {
        let rule = |calls, window_ms| Rule {
            site: "acme".into(),
            calls,
            window_ms,
            retry_after: Named::Always,
        };
        assert!(Quotas::default().set(rule(0, 1)).is_err());
        assert!(Quotas::default().set(rule(1, 0)).is_err());
    }
}
