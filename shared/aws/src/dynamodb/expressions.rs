use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use landfall_tracking::{Assignment, Condition, Value};

use super::attribute;

/// Conditions and changes in DynamoDB's words. Every name and value goes in by placeholder: `state` and `count` are among its
/// reserved words.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    condition: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expressions {
    pub(super) fn of(conditions: &[Condition]) -> Self {
        let mut all = Self::default();
        for condition in conditions {
            let words = match condition {
                Condition::Absent => "attribute_not_exists(pk)".to_owned(),
                Condition::Present => "attribute_exists(pk)".to_owned(),
                Condition::Equals(name, value) => {
                    format!("{} = {}", all.name(name), all.value(value))
                }
            };
            all.condition.push(words);
        }
        all
    }

    /// The update's expression.
    pub(super) fn update(&mut self, assignments: &[Assignment]) -> String {
        let (mut set, mut add, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for assignment in assignments {
            match assignment {
                Assignment::Set(name, value) => {
                    set.push(format!("{} = {}", self.name(name), self.value(value)));
                }
                Assignment::Add(name, by) => {
                    add.push(format!(
                        "{} {}",
                        self.name(name),
                        self.value(&Value::Number(*by))
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

    pub(super) fn names(&mut self) -> Option<HashMap<String, String>> {
        Some(std::mem::take(&mut self.names)).filter(|names| !names.is_empty())
    }

    pub(super) fn values(&mut self) -> Option<HashMap<String, AttributeValue>> {
        Some(std::mem::take(&mut self.values)).filter(|values| !values.is_empty())
    }

    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn value(&mut self, value: &Value) -> String {
        let placeholder = format!(":{}", self.values.len());
        self.values
            .insert(placeholder.clone(), attribute(value.clone()));
        placeholder
    }
}
