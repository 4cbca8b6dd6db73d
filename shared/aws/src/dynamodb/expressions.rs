use std::collections::BTreeMap;

use landfall_tracking::{Assignment, Condition};

use super::attributes::Attribute;

pub(super) type Names<'a> = BTreeMap<String, &'a str>;
pub(super) type Values<'a> = BTreeMap<String, Attribute<'a>>;

/// Conditions and changes in DynamoDB's words. Every name and value goes in by placeholder: `state` and `count` are among its
/// reserved words.
#[derive(Debug, Default)]
pub(super) struct Expressions<'a> {
    condition: Vec<String>,
    pub(super) names: Names<'a>,
    pub(super) values: Values<'a>,
}

impl<'a> Expressions<'a> {
    pub(super) fn of(conditions: &'a [Condition]) -> Self {
        let mut all = Self::default();
        for condition in conditions {
            let words = match condition {
                Condition::Absent => "attribute_not_exists(pk)".to_owned(),
                Condition::Present => "attribute_exists(pk)".to_owned(),
                Condition::Equals(name, value) => {
                    format!("{} = {}", all.name(name), all.value(Attribute::of(value)))
                }
            };
            all.condition.push(words);
        }
        all
    }

    /// The update's expression.
    pub(super) fn update(&mut self, assignments: &'a [Assignment]) -> String {
        let (mut set, mut add, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for assignment in assignments {
            match assignment {
                Assignment::Set(name, value) => {
                    set.push(format!(
                        "{} = {}",
                        self.name(name),
                        self.value(Attribute::of(value))
                    ));
                }
                Assignment::Add(name, by) => {
                    add.push(format!(
                        "{} {}",
                        self.name(name),
                        self.value(Attribute::Number(*by))
                    ));
                }
                Assignment::Remove(name) => remove.push(self.name(name)),
            }
        }
        [("SET", set), ("ADD", add), ("REMOVE", remove)]
            .into_iter()
            .filter(|(_, words)| !words.is_empty())
            .map(|(verb, words)| format!("{verb} {}", words.join(", ")))
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(super) fn condition(&self) -> Option<String> {
        (!self.condition.is_empty()).then(|| self.condition.join(" AND "))
    }

    fn name(&mut self, name: &'a str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name);
        placeholder
    }

    fn value(&mut self, value: Attribute<'a>) -> String {
        let placeholder = format!(":{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}
