//! Writes values of custom fields, or entity properties, by Jira's operations for migrating apps (PROTOCOL.md 6). The README says how a
//! record is declared.
//!
//! Both operations set a value, so doing one again has no second effect: an unknown outcome is simply tried again.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};

use crate::declaration::{Jira, JiraType};
use crate::ports::{Delivery, Landed, Sink, SinkError, SinkOutcome};

/// The most field values of one call (PROTOCOL.md 6).
const FIELD_VALUES: usize = 200;

/// The most properties of one call (PROTOCOL.md 6).
const PROPERTIES: usize = 50;

/// Records that Jira may refuse one by one in a delivery before the others of a refused call are held: a wrong declaration would else
/// cost two calls for each record.
const REFUSED_MAX: usize = 8;

/// The longest key of a property. PROTOCOL.md is silent; Jira's other operations on properties take 255.
pub(crate) const PROPERTY_KEY_CHARACTERS: usize = 255;

/// The two operations, for one transfer of one tenant.
pub trait Operations: Sync {
    /// Sets values of a type: at most 200 of fields, at most 50 of properties, each as the operation takes it.
    fn set(
        &self,
        kind: JiraType,
        values: &[Value],
    ) -> impl Future<Output = Result<(), JiraError>> + Send;
}

/// Why Jira did nothing, or perhaps nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JiraError {
    /// Not reached, throttled or broken; or it doesn't accept the transfer or our token, which the platform's list explains.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// How long to wait, when it said so.
        retry_after: Option<Duration>,
    },
    /// It finds something wrong with the values, or with one of them. It doesn't say with which.
    #[error("{reason}")]
    Refused {
        /// What it answered.
        reason: String,
    },
}

/// Jira as a target, for the files of one import.
#[derive(Debug)]
pub struct JiraSink<'a, O> {
    declared: &'a Jira,
    operations: O,
}

impl<'a, O: Operations> JiraSink<'a, O> {
    /// Writes as declared, by these operations.
    pub const fn new(declared: &'a Jira, operations: O) -> Self {
        Self {
            declared,
            operations,
        }
    }

    /// Sets values, and tells of each what became of it: all of a call that is taken. A call that is refused is halved, down to a value
    /// that is refused alone.
    async fn set(&self, values: &[Value]) -> Result<Vec<SinkOutcome>, SinkError> {
        let kind = self.declared.kind;
        let most = if kind.is_field() {
            FIELD_VALUES
        } else {
            PROPERTIES
        };
        let mut outcomes = Vec::with_capacity(values.len());
        let mut refused = 0;
        let mut parts: Vec<&[Value]> = values.chunks(most).rev().collect();
        while let Some(part) = parts.pop() {
            match self.operations.set(kind, part).await {
                Ok(()) => outcomes.extend(part.iter().map(|_| SinkOutcome::Applied)),
                Err(JiraError::Refused { reason }) if part.len() == 1 => {
                    refused += 1;
                    outcomes.push(SinkOutcome::Rejected { reason });
                }
                Err(JiraError::Refused { reason }) if refused >= REFUSED_MAX => {
                    let reason = format!("{reason}, to this value or to another one of its call");
                    let held = SinkOutcome::Held { reason };
                    outcomes.extend(part.iter().map(|_| held.clone()));
                }
                Err(JiraError::Refused { .. }) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(JiraError::Unavailable {
                    reason,
                    retry_after,
                }) => {
                    return Err(SinkError::Unavailable {
                        reason,
                        retry_after,
                    });
                }
            }
        }
        Ok(outcomes)
    }
}

impl<O: Operations> Sink for JiraSink<'_, O> {
    fn hears_the_end(&self) -> bool {
        false
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let mut values = Vec::with_capacity(delivery.records.len());
        let mut reasons = Vec::with_capacity(delivery.records.len());
        for record in delivery.records {
            match value_of(self.declared, record) {
                Ok(value) => {
                    values.push(value);
                    reasons.push(None);
                }
                Err(reason) => reasons.push(Some(reason)),
            }
        }
        let mut outcomes = self.set(&values).await?.into_iter();
        let taken = |reason: Option<String>| match reason {
            Some(reason) => Some(SinkOutcome::Rejected { reason }),
            None => outcomes.next(),
        };
        Ok(reasons.into_iter().filter_map(taken).collect())
    }
}

/// What an operation takes for a record, or why there is nothing of the kind in it.
fn value_of(declared: &Jira, landed: &Landed) -> Result<Value, String> {
    let record: Value = serde_json::from_slice(&landed.record)
        .map_err(|_| "the record can't be read as JSON".to_owned())?;
    let id = number_at(&record, &declared.id)?;
    let value = record
        .pointer(&declared.value)
        .ok_or_else(|| format!("the record has no value at {:?}", declared.value))?;
    let Some((member, takes)) = declared.kind.field() else {
        let key = match declared.key.as_deref().unwrap_or_default() {
            pointer if pointer.starts_with('/') => record
                .pointer(pointer)
                .and_then(Value::as_str)
                .ok_or_else(|| format!("the record has no text at {pointer:?}"))?,
            key => key,
        };
        if !(1..=PROPERTY_KEY_CHARACTERS).contains(&key.chars().count()) {
            return Err(format!(
                "the property's key has not from 1 to {PROPERTY_KEY_CHARACTERS} characters"
            ));
        }
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        return Ok(json!({"entityId": id, "key": key, "value": value}));
    };
    let field = number_at(&record, declared.field.as_deref().unwrap_or_default())?;
    let value = match (takes, value) {
        (Takes::Text, Value::String(_)) | (Takes::Number, Value::Number(_)) => value.clone(),
        (Takes::Option, Value::String(option)) => json!(option),
        (Takes::Option, Value::Number(option)) => json!(option.to_string()),
        _ => {
            return Err(format!("the value at {:?} is not {takes}", declared.value));
        }
    };
    let kind = declared.kind.name();
    Ok(json!({"_type": kind, "issueID": id, "fieldID": field, member: value}))
}

/// What the values of a field must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Text,
    Number,
    Option,
}

impl std::fmt::Display for Takes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Option => "an option's id",
        })
    }
}

/// An id of Jira's: a whole number, or a text of its digits.
fn number_at(record: &Value, pointer: &str) -> Result<u64, String> {
    let id = match record.pointer(pointer) {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok()
        }
        _ => None,
    };
    id.ok_or_else(|| format!("the record has no id of Jira's at {pointer:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;
    use crate::identity::ContentHash;
    use crate::ports::FileIdentity;

    /// Jira, as far as it may be wrong about values: how many each call had, and which issues it refuses.
    #[derive(Debug, Default)]
    struct Stub {
        calls: Mutex<Vec<usize>>,
        bad: BTreeSet<u64>,
        down: bool,
    }

    impl Operations for &Stub {
        async fn set(&self, kind: JiraType, values: &[Value]) -> Result<(), JiraError> {
            assert!(!values.is_empty() && values.len() <= if kind.is_field() { 200 } else { 50 });
            self.calls.lock().unwrap().push(values.len());
            if self.down {
                return Err(JiraError::Unavailable {
                    reason: "throttled".to_owned(),
                    retry_after: Some(Duration::from_secs(7)),
                });
            }
            let id = |value: &Value| value["entityId"].as_u64().unwrap();
            if values.iter().any(|value| self.bad.contains(&id(value))) {
                return Err(JiraError::Refused {
                    reason: "it answered 400".to_owned(),
                });
            }
            Ok(())
        }
    }

    fn declared(kind: JiraType) -> Jira {
        Jira {
            kind,
            id: "/issue".to_owned(),
            field: Some("/field".to_owned()),
            key: Some("/key".to_owned()),
            value: "/value".to_owned(),
        }
    }

    fn landed(record: String) -> Landed {
        Landed {
            key: record.as_str().into(),
            content_hash: ContentHash::of(record.as_bytes()),
            record: record.into(),
        }
    }

    fn written(kind: JiraType, record: &str) -> Result<String, String> {
        let value = value_of(&declared(kind), &landed(record.to_owned()));
        value.map(|value| value.to_string())
    }

    #[test]
    fn a_record_becomes_what_the_operation_takes_and_numbers_keep_their_digits() {
        let number = r#"{"issue":10002,"field":"10077","value":54.10}"#;
        assert_eq!(
            written(JiraType::NumberIssueField, number).unwrap(),
            r#"{"_type":"NumberIssueField","issueID":10002,"fieldID":10077,"number":54.10}"#
        );
        let option = r#"{"issue":"10003","field":10078,"value":1}"#;
        assert_eq!(
            written(JiraType::SingleSelectIssueField, option).unwrap(),
            r#"{"_type":"SingleSelectIssueField","issueID":10003,"fieldID":10078,"optionID":"1"}"#
        );
        let property = r#"{"issue":123,"key":"mykey","value":{"a":1.0}}"#;
        assert_eq!(
            written(JiraType::IssueProperty, property).unwrap(),
            r#"{"entityId":123,"key":"mykey","value":"{\"a\":1.0}"}"#
        );
        let literal = Jira {
            key: Some("color".to_owned()),
            ..declared(JiraType::BoardProperty)
        };
        let value = value_of(
            &literal,
            &landed(r#"{"issue":1,"value":"blue"}"#.to_owned()),
        );
        assert_eq!(
            value.unwrap(),
            json!({"entityId": 1, "key": "color", "value": "blue"})
        );
    }

    #[test]
    fn a_record_without_what_is_declared_is_rejected_with_what_it_lacks() {
        for (kind, record, reason) in [
            (
                JiraType::TextIssueField,
                r#"{"field":1,"value":"x"}"#,
                "the record has no id of Jira's at \"/issue\"",
            ),
            (
                JiraType::TextIssueField,
                r#"{"issue":"PRJ-1","field":1,"value":"x"}"#,
                "the record has no id of Jira's at \"/issue\"",
            ),
            (
                JiraType::TextIssueField,
                r#"{"issue":1,"value":"x"}"#,
                "the record has no id of Jira's at \"/field\"",
            ),
            (
                JiraType::TextIssueField,
                r#"{"issue":1,"field":1}"#,
                "the record has no value at \"/value\"",
            ),
            (
                JiraType::TextIssueField,
                r#"{"issue":1,"field":1,"value":5}"#,
                "the value at \"/value\" is not a text",
            ),
            (
                JiraType::NumberIssueField,
                r#"{"issue":1,"field":1,"value":"5"}"#,
                "the value at \"/value\" is not a number",
            ),
            (
                JiraType::MultiSelectIssueField,
                r#"{"issue":1,"field":1,"value":[]}"#,
                "the value at \"/value\" is not an option's id",
            ),
            (
                JiraType::IssueProperty,
                r#"{"issue":1,"value":1}"#,
                "the record has no text at \"/key\"",
            ),
            (
                JiraType::IssueProperty,
                r#"{"issue":1,"key":"","value":1}"#,
                "the property's key has not from 1 to 255 characters",
            ),
        ] {
            assert_eq!(written(kind, record).unwrap_err(), reason, "{record}");
        }
    }

    async fn deliver(
        stub: &Stub,
        ids: std::ops::Range<u64>,
    ) -> Result<Vec<SinkOutcome>, SinkError> {
        let declared = declared(JiraType::IssueProperty);
        let records: Vec<Landed> = ids
            .map(|id| landed(format!(r#"{{"issue":{id},"key":"k","value":{id}}}"#)))
            .chain([landed(r#"{"issue":null}"#.to_owned())])
            .collect();
        let delivery = Delivery {
            idempotency_key: String::new(),
            file: FileIdentity {
                tenant: "t",
                transfer: "u",
                chain: "c",
                label: "l",
                id: "f",
            },
            position: 0,
            records: &records,
        };
        JiraSink::new(&declared, stub).deliver(&delivery).await
    }

    #[tokio::test]
    async fn properties_travel_fifty_a_call_and_what_lacks_something_doesn_t_travel() {
        let stub = Stub::default();
        let outcomes = deliver(&stub, 0..98).await.unwrap();
        assert_eq!(*stub.calls.lock().unwrap(), [50, 48]);
        assert_eq!(outcomes.len(), 99);
        assert_eq!(outcomes[..98], vec![SinkOutcome::Applied; 98]);
        assert!(matches!(&outcomes[98], SinkOutcome::Rejected { .. }));
    }

    #[tokio::test]
    async fn a_refused_call_is_halved_until_it_is_known_whose_value_is_wrong() {
        let stub = Stub {
            bad: [3, 60].into(),
            ..Stub::default()
        };
        let outcomes = deliver(&stub, 0..98).await.unwrap();
        let rejected: Vec<usize> = (0..98)
            .filter(|&at| outcomes[at] != SinkOutcome::Applied)
            .collect();
        assert_eq!(rejected, [3, 60]);
        assert_eq!(
            outcomes[60],
            SinkOutcome::Rejected {
                reason: "it answered 400".to_owned()
            }
        );
    }

    #[tokio::test]
    async fn a_wrong_declaration_costs_a_bounded_number_of_calls_and_rejects_nothing_untried() {
        let stub = Stub {
            bad: (0..98).collect(),
            ..Stub::default()
        };
        let outcomes = deliver(&stub, 0..98).await.unwrap();
        let held = |outcome: &&SinkOutcome| matches!(outcome, SinkOutcome::Held { .. });
        assert_eq!(outcomes.len(), 99);
        let held = outcomes.iter().filter(held).count();
        assert!(
            (REFUSED_MAX..2 * REFUSED_MAX).contains(&(98 - held)),
            "{held}"
        );
        assert!(!outcomes.contains(&SinkOutcome::Applied));
        assert!(stub.calls.lock().unwrap().len() < 4 * REFUSED_MAX);
    }

    #[tokio::test]
    async fn what_may_heal_interrupts_and_the_wait_is_passed_on() {
        let stub = Stub {
            down: true,
            ..Stub::default()
        };
        assert_eq!(
            deliver(&stub, 0..2).await.unwrap_err(),
            SinkError::Unavailable {
                reason: "throttled".to_owned(),
                retry_after: Some(Duration::from_secs(7)),
            }
        );
    }
}
