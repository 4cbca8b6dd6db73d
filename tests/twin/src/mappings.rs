//! Server ids to cloud ids: a function of the seed, with holes that tests declare.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{
    FIRST_PROJECT, PROJECTS, Product, UNMIGRATED, USERS, user_key, user_key_prefix,
};
use crate::seed::{Generator, derive};

const USER_NAMESPACE: &str = "identity:user";
const USER_PREFIXES: [&str; 4] = [
    "email/",
    "jira.userkey/",
    "jira.username/",
    "confluence.userkey/",
];
const GROUP_PREFIX: &str = "identity:group:name/";

#[derive(Debug, Default)]
pub(crate) struct Mappings {
    seed: u64,
    explicit: BTreeMap<String, BTreeMap<String, String>>,
    holes: BTreeMap<String, BTreeSet<String>>,
}

impl Mappings {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    pub(crate) fn declare(
        &mut self,
        namespace: &str,
        values: BTreeMap<String, String>,
        holes: BTreeSet<String>,
    ) {
        let declared = self.holes.entry(namespace.to_owned()).or_default();
        for key in values.keys() {
            declared.remove(key);
        }
        declared.extend(holes);
        self.explicit
            .entry(namespace.to_owned())
            .or_default()
            .extend(values);
    }

    pub(crate) fn declared(&self) -> serde_json::Value {
        serde_json::json!({ "values": self.explicit, "holes": self.holes })
    }

    /// The cloud value of a key. `None` when the entity was not migrated or was never known in this namespace.
    pub(crate) fn find(&self, namespace: &str, key: &str, hole_share: f64) -> Option<String> {
        let declared_hole = self
            .holes
            .get(namespace)
            .is_some_and(|holes| holes.contains(key));
        if declared_hole {
            return None;
        }
        if let Some(value) = self
            .explicit
            .get(namespace)
            .and_then(|values| values.get(key))
        {
            return Some(value.clone());
        }
        if key.is_empty() || key.contains(UNMIGRATED) || !fits(namespace, key) {
            return None;
        }
        let draw = derive(self.seed, &["mapping", namespace, key]);
        #[expect(clippy::cast_precision_loss, reason = "below a million")]
        if ((draw >> 20) % 1_000_000) as f64 + 0.5 < hole_share * 1_000_000.0 {
            return None;
        }
        Some(self.value(namespace, key, draw))
    }

    fn value(&self, namespace: &str, key: &str, draw: u64) -> String {
        if namespace == USER_NAMESPACE {
            let more = Generator::new(draw).next();
            return format!("5b{:06x}{more:016x}", draw & 0xff_ffff);
        }
        match key.parse::<u64>() {
            // Numbers keep their order and stay apart from each other, as ids of a new site do.
            Ok(id) if id < 1 << 52 => {
                let shift = 100_000 + derive(self.seed, &["shift", namespace]) % 900_000;
                (id + shift).to_string()
            }
            _ => format!("{draw:016x}"),
        }
    }

    /// All keys that the paged list has, sorted: those of generated records, and the declared ones.
    pub(crate) fn listed(
        &self,
        namespace: &str,
        product: Product,
        hole_share: f64,
    ) -> Vec<(String, String)> {
        let mut keys: BTreeSet<String> = self
            .explicit
            .get(namespace)
            .map(|values| values.keys().cloned().collect())
            .unwrap_or_default();
        if namespace == USER_NAMESPACE {
            let prefix = user_key_prefix(product);
            keys.extend((0..USERS).map(|user| format!("{prefix}{}", user_key(product, user))));
        } else if namespace == "jira/classic:project" {
            keys.extend((FIRST_PROJECT..FIRST_PROJECT + PROJECTS).map(|id| id.to_string()));
        }
        keys.into_iter()
            .filter_map(|key| {
                let value = self.find(namespace, &key, hole_share)?;
                Some((key, value))
            })
            .collect()
    }
}

/// An id asked for in a namespace of another kind finds nothing: the usual mistake when one declares mappings.
fn fits(namespace: &str, key: &str) -> bool {
    let user = USER_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    if namespace == USER_NAMESPACE {
        // PROTOCOL 8: a Confluence user's name finds nothing, the 32 digits of the internal key do.
        let internal =
            |key: &str| key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        user && key.strip_prefix("confluence.userkey/").is_none_or(internal)
    } else if namespace == "identity:group" {
        key.starts_with(GROUP_PREFIX)
    } else {
        !user && !key.starts_with(GROUP_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "jira/classic:project";

    #[test]
    fn a_mapping_is_a_function_of_seed_namespace_and_key() {
        let mappings = Mappings::new(1);
        let value = mappings.find(PROJECT, "10001", 0.0);
        assert_eq!(value, Mappings::new(1).find(PROJECT, "10001", 0.0));
        assert_ne!(value, mappings.find(PROJECT, "10002", 0.0));
        assert_ne!(value, Mappings::new(2).find(PROJECT, "10001", 0.0));
        assert_ne!(value, mappings.find("jira:issue", "10001", 0.0));
    }

    #[test]
    fn holes_and_keys_of_the_wrong_kind_are_not_found() {
        let mut mappings = Mappings::new(1);
        mappings.declare(PROJECT, BTreeMap::new(), ["10001".to_owned()].into());
        assert_eq!(mappings.find(PROJECT, "10001", 0.0), None);
        assert_eq!(mappings.find(USER_NAMESPACE, "JIRAUSER10100", 0.0), None);
        assert_eq!(
            mappings.find(USER_NAMESPACE, "jira.userkey/unmigrated3", 0.0),
            None
        );
        assert!(
            mappings
                .find(USER_NAMESPACE, "jira.userkey/JIRAUSER10100", 0.0)
                .is_some()
        );
        assert_eq!(
            mappings.find(USER_NAMESPACE, "confluence.userkey/admin", 0.0),
            None
        );
        let internal = format!("confluence.userkey/{}", user_key(Product::Confluence, 3));
        assert!(mappings.find(USER_NAMESPACE, &internal, 0.0).is_some());
        assert_eq!(mappings.find(PROJECT, "10002", 1.0), None);
        mappings.declare(
            PROJECT,
            [("10001".to_owned(), "7".to_owned())].into(),
            BTreeSet::new(),
        );
        assert_eq!(mappings.find(PROJECT, "10001", 0.0).as_deref(), Some("7"));
    }

    #[test]
    fn the_list_agrees_with_the_single_answers() {
        let mappings = Mappings::new(1);
        let listed = mappings.listed(PROJECT, Product::Jira, 0.5);
        assert!(listed.len() < 20 && !listed.is_empty());
        for (key, value) in listed {
            assert_eq!(mappings.find(PROJECT, &key, 0.5), Some(value));
        }
        assert_eq!(
            mappings.listed(USER_NAMESPACE, Product::Jira, 0.0).len(),
            200
        );
    }
}
