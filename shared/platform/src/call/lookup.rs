use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;

use super::{CallError, Refusal, malformed, scalar};

/// Most keys of one mapping call: the only number ever published (PROTOCOL 5.1).
pub(crate) const MAPPING_KEYS_MAX: usize = 100;

/// Keys that the platform may refuse one by one before a lookup is given up as wrong altogether.
const REFUSED_KEYS_MAX: usize = 8;

/// The lookup of any number of mapping keys, call by call.
///
/// A call that the platform finds wrong or too large is halved (OPEN-QUESTIONS C1), down to single keys: one that is refused alone counts
/// as unmapped, so that a strange key in the customer's data doesn't stop a file. More than a few of these are an error.
pub(crate) struct Lookup<'keys> {
    keys: Vec<&'keys str>,
    /// What is still to be asked for, the next part last.
    parts: Vec<Range<usize>>,
    found: HashMap<String, String>,
    refused: usize,
}

impl<'keys> Lookup<'keys> {
    pub(crate) fn of(keys: &'keys [String]) -> Self {
        // An empty key is refused for sure, and has no mapping.
        let keys: Vec<&str> = keys
            .iter()
            .map(String::as_str)
            .filter(|key| !key.is_empty())
            .collect();
        let parts = (0..keys.len())
            .step_by(MAPPING_KEYS_MAX)
            .map(|start| start..keys.len().min(start + MAPPING_KEYS_MAX))
            .rev()
            .collect();
        Self {
            found: HashMap::with_capacity(keys.len()),
            keys,
            parts,
            refused: 0,
        }
    }

    /// The part to ask for next.
    pub(crate) fn next_part(&mut self) -> Option<Range<usize>> {
        self.parts.pop()
    }

    pub(crate) fn keys(&self, part: &Range<usize>) -> &[&'keys str] {
        &self.keys[part.clone()]
    }

    /// Takes what the platform answered to a part.
    pub(crate) fn take(
        &mut self,
        part: Range<usize>,
        answer: Result<Value, CallError>,
    ) -> Result<(), CallError> {
        match answer {
            Ok(Value::Object(entries)) => {
                self.found.extend(
                    entries
                        .into_iter()
                        .filter_map(|(key, value)| Some((key, scalar(value)?))),
                );
            }
            Ok(_) => return Err(malformed("no object of mappings")),
            Err(CallError::Refused {
                kind: Refusal::BadRequest | Refusal::TooLarge,
                ..
            }) if part.len() > 1 => {
                let middle = part.start + part.len() / 2;
                self.parts.extend([middle..part.end, part.start..middle]);
            }
            Err(CallError::Refused {
                kind: Refusal::BadRequest | Refusal::TooLarge,
                ..
            }) if self.refused < REFUSED_KEYS_MAX && self.keys.len() > 1 => {
                self.refused += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What was found, once there is no part left.
    pub(crate) fn finish(
        self,
        transfer_id: &str,
        namespace: &str,
    ) -> Result<HashMap<String, String>, CallError> {
        if self.refused == self.keys.len() && self.refused > 0 {
            return Err(CallError::Refused {
                status: 400,
                kind: Refusal::BadRequest,
                says_settled: false,
            });
        }
        if self.refused > 0 {
            tracing::warn!(
                transfer.id = transfer_id,
                mapping.namespace = namespace,
                keys = self.refused,
                "the platform refused mapping keys"
            );
        }
        Ok(self.found)
    }
}
