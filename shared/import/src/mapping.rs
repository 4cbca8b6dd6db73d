//! Replaces server ids by cloud ids, as declared: finds them in the records of a batch, looks them up a hundred at a time, remembers the answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use serde_json::{Number, Value};

use crate::declaration::{Mapping, OnMiss};
use crate::ports::{MAPPING_KEYS, Mappings, MappingsError};

/// The longest id, in bytes; with its prefix it is a key of the platform's.
pub const ID_BYTES: usize = 1024;

/// By how many bytes replaced ids may lengthen a record. It bounds a commit: batch bytes + batch records × this ≤ commit bytes.
pub const GROWTH_BYTES: usize = 4096;

/// Remembers which ids have which cloud id, and which have none. One per transfer: server ids of two servers are not the same ids.
///
/// Holds at most the given number of entries (and some 300 bytes for each); what was not asked for lately is forgotten first.
#[derive(Debug)]
pub struct MappingCache {
    entries: Mutex<Generations>,
}

/// Two halves: what is asked for moves to the young one; when that is full, it becomes the old one, and the old one is forgotten.
#[derive(Debug)]
struct Generations {
    half: usize,
    young: HashMap<Key, Answer>,
    old: HashMap<Key, Answer>,
}

/// Namespace and key.
type Key = (String, String);

/// What the platform said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    CloudId(String),
    Missing,
}

impl MappingCache {
    /// A cache of at most so many entries.
    pub fn new(entries: usize) -> Self {
        let half = (entries / 2).max(1);
        Self {
            entries: Mutex::new(Generations {
                half,
                young: HashMap::new(),
                old: HashMap::new(),
            }),
        }
    }

    /// How many entries are remembered.
    pub fn len(&self) -> usize {
        let entries = self.lock();
        entries.young.len() + entries.old.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, key: &Key) -> Option<Answer> {
        let mut entries = self.lock();
        if let Some(known) = entries.young.get(key) {
            return Some(known.clone());
        }
        let (key, known) = entries.old.remove_entry(key)?;
        entries.insert(key, known.clone());
        Some(known)
    }

    fn insert(&self, key: Key, answer: Answer) {
        self.lock().insert(key, answer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // A panic elsewhere can't leave the maps half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: Key, answer: Answer) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, answer);
    }
}

/// What the platform knows of the ids of one batch.
#[derive(Debug, Default)]
pub(crate) struct CloudIds(HashMap<Key, Answer>);

/// Why a record can't be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unmapped {
    pub(crate) held: bool,
    pub(crate) namespace: String,
    pub(crate) reason: String,
}

/// Looks up all ids of the batch's records that the cache doesn't know.
pub(crate) async fn look_up<'a, M: Mappings>(
    mappings: &M,
    cache: &MappingCache,
    declared: &'a [Mapping],
    records: impl Iterator<Item = &'a Value>,
) -> Result<CloudIds, MappingsError> {
    let mut cloud_ids = CloudIds::default();
    for (namespace, keys) in wanted(declared, records) {
        let mut unknown = Vec::new();
        for key in keys {
            let entry = (namespace.to_owned(), key);
            match cache.get(&entry) {
                Some(known) => {
                    cloud_ids.0.insert(entry, known);
                }
                None => unknown.push(entry.1),
            }
        }
        for keys in unknown.chunks(MAPPING_KEYS) {
            let mut found = mappings.find(namespace, keys).await?;
            for key in keys {
                let entry = (namespace.to_owned(), key.clone());
                let answer = found.remove(key).map_or(Answer::Missing, Answer::CloudId);
                cache.insert(entry.clone(), answer.clone());
                cloud_ids.0.insert(entry, answer);
            }
        }
    }
    Ok(cloud_ids)
}

fn wanted<'a>(
    declared: &'a [Mapping],
    records: impl Iterator<Item = &'a Value>,
) -> BTreeMap<&'a str, BTreeSet<String>> {
    let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for record in records {
        for mapping in declared {
            if let Ok(Some(id)) = id_at(record, mapping)
                && !id.is_empty()
            {
                wanted
                    .entry(&mapping.namespace)
                    .or_default()
                    .insert(lookup_key(mapping, &id));
            }
        }
    }
    wanted
}

/// Replaces all declared ids in the record. A missing mapping that rejects the record outranks one that holds it.
pub(crate) fn rewrite(
    record: &mut Value,
    declared: &[Mapping],
    cloud_ids: &CloudIds,
) -> Result<(), Unmapped> {
    let mut held = None;
    for mapping in declared {
        let Some(id) = id_at(record, mapping).map_err(|reason| Unmapped {
            held: false,
            namespace: mapping.namespace.clone(),
            reason,
        })?
        else {
            continue;
        };
        let replacement = match cloud_ids.of(mapping, &id) {
            Some(cloud_id) => cloud_id,
            None => match (mapping.on_miss, &mapping.placeholder) {
                (OnMiss::Keep, _) => continue,
                (OnMiss::Placeholder, Some(placeholder)) => placeholder,
                (OnMiss::Hold, _) => {
                    held.get_or_insert_with(|| miss(mapping, &id, true));
                    continue;
                }
                // A placeholder policy without a placeholder doesn't pass validation; rejecting invents nothing.
                (OnMiss::Reject | OnMiss::Placeholder, _) => return Err(miss(mapping, &id, false)),
            },
        };
        if let Some(value) = record.pointer_mut(&mapping.pointer) {
            replace(value, replacement);
        }
    }
    held.map_or(Ok(()), Err)
}

impl CloudIds {
    fn of(&self, mapping: &Mapping, id: &str) -> Option<&String> {
        let key = (mapping.namespace.clone(), lookup_key(mapping, id));
        match self.0.get(&key)? {
            Answer::CloudId(cloud_id) => Some(cloud_id),
            Answer::Missing => None,
        }
    }
}

/// The id that a mapping points to; none where there is nothing to replace.
fn id_at(record: &Value, mapping: &Mapping) -> Result<Option<String>, String> {
    let pointer = &mapping.pointer;
    let id = match record.pointer(pointer) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(_) => {
            return Err(format!(
                "the id at {pointer:?} is neither a string nor a number"
            ));
        }
    };
    if id.len() > ID_BYTES {
        return Err(format!(
            "the id at {pointer:?} is longer than {ID_BYTES} bytes"
        ));
    }
    Ok(Some(id))
}

fn lookup_key(mapping: &Mapping, id: &str) -> String {
    match &mapping.key_prefix {
        Some(prefix) => format!("{prefix}{id}"),
        None => id.to_owned(),
    }
}

fn miss(mapping: &Mapping, id: &str, held: bool) -> Unmapped {
    let Mapping {
        pointer, namespace, ..
    } = mapping;
    Unmapped {
        held,
        namespace: namespace.clone(),
        reason: format!("{namespace} has no mapping for {id:?}, the id at {pointer:?}"),
    }
}

/// A number stays a number where the new id can be one.
fn replace(value: &mut Value, replacement: &str) {
    let number = if value.is_number() {
        replacement.parse::<Number>().ok()
    } else {
        None
    };
    *value = number.map_or_else(|| Value::String(replacement.to_owned()), Value::Number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mapping(pointer: &str, on_miss: OnMiss) -> Mapping {
        Mapping {
            pointer: pointer.to_owned(),
            namespace: "identity:user".to_owned(),
            on_miss,
            placeholder: (on_miss == OnMiss::Placeholder).then(|| "nobody".to_owned()),
            key_prefix: Some("u/".to_owned()),
        }
    }

    fn known(pairs: &[(&str, &str)]) -> CloudIds {
        CloudIds(
            pairs
                .iter()
                .map(|(key, id)| {
                    (
                        ("identity:user".to_owned(), (*key).to_owned()),
                        Answer::CloudId((*id).to_owned()),
                    )
                })
                .collect(),
        )
    }

    fn rewritten(
        mut record: Value,
        declared: &[Mapping],
        cloud_ids: &CloudIds,
    ) -> Result<Value, Unmapped> {
        rewrite(&mut record, declared, cloud_ids).map(|()| record)
    }

    #[test]
    fn a_number_stays_a_number_where_the_cloud_id_is_one() {
        let cloud_ids = known(&[("u/1", "10"), ("u/2", "abc"), ("u/3", "007")]);
        let map = |id| {
            rewritten(
                json!({ "a": id }),
                &[mapping("/a", OnMiss::Reject)],
                &cloud_ids,
            )
            .unwrap()
        };
        assert_eq!(map(json!(1)), json!({"a": 10}));
        assert_eq!(map(json!("1")), json!({"a": "10"}));
        assert_eq!(map(json!(2)), json!({"a": "abc"}));
        assert_eq!(map(json!(3)), json!({"a": "007"}));
    }

    #[test]
    fn an_absent_or_null_id_is_nothing_to_do() {
        for record in [json!({}), json!({"a": null}), json!([1])] {
            assert_eq!(
                rewritten(
                    record.clone(),
                    &[mapping("/a", OnMiss::Reject)],
                    &known(&[])
                ),
                Ok(record)
            );
        }
    }

    #[test]
    fn something_else_than_a_string_or_number_is_rejected_whatever_the_policy() {
        for id in [
            json!({}),
            json!([1]),
            json!(true),
            json!("x".repeat(ID_BYTES + 1)),
        ] {
            let unmapped = rewritten(
                json!({ "a": id }),
                &[mapping("/a", OnMiss::Keep)],
                &known(&[]),
            )
            .unwrap_err();
            assert!(!unmapped.held);
            assert!(
                unmapped.reason.starts_with("the id at \"/a\" is "),
                "{}",
                unmapped.reason
            );
        }
    }

    #[test]
    fn each_policy_treats_a_miss_in_its_way() {
        let miss = |on_miss| rewritten(json!({"a": 9}), &[mapping("/a", on_miss)], &known(&[]));
        assert_eq!(miss(OnMiss::Keep), Ok(json!({"a": 9})));
        assert_eq!(miss(OnMiss::Placeholder), Ok(json!({"a": "nobody"})));
        let reason = "identity:user has no mapping for \"9\", the id at \"/a\"";
        for (on_miss, held) in [(OnMiss::Hold, true), (OnMiss::Reject, false)] {
            let unmapped = Unmapped {
                held,
                namespace: "identity:user".to_owned(),
                reason: reason.to_owned(),
            };
            assert_eq!(miss(on_miss), Err(unmapped));
        }
    }

    #[test]
    fn a_miss_that_rejects_outranks_one_that_holds() {
        let declared = [mapping("/a", OnMiss::Hold), mapping("/b", OnMiss::Reject)];
        assert!(
            !rewritten(json!({"a": 1, "b": 2}), &declared, &known(&[]))
                .unwrap_err()
                .held
        );
        assert!(
            rewritten(json!({"a": 1, "b": 2}), &declared, &known(&[("u/2", "x")]))
                .unwrap_err()
                .held
        );
    }

    #[test]
    fn an_empty_id_is_a_miss_that_is_never_asked_for() {
        let declared = [mapping("/a", OnMiss::Hold)];
        let record = json!({"a": ""});
        assert!(wanted(&declared, std::iter::once(&record)).is_empty());
        assert!(rewritten(record, &declared, &known(&[])).unwrap_err().held);
    }

    #[test]
    fn all_other_numbers_of_a_rewritten_record_keep_their_digits() {
        let text = r#"{"z":1.10,"id":5,"a":1e+400,"b":-0.0,"big":123456789012345678901234567890}"#;
        let record: Value = serde_json::from_str(text).unwrap();
        let record = rewritten(
            record,
            &[mapping("/id", OnMiss::Reject)],
            &known(&[("u/5", "6")]),
        )
        .unwrap();
        assert_eq!(record.to_string(), text.replace(":5,", ":6,"));
    }

    #[test]
    fn the_cache_stays_within_its_bound_and_keeps_what_is_asked_for() {
        let cache = MappingCache::new(10);
        let key = |number: usize| ("n".to_owned(), number.to_string());
        for number in 0..100 {
            cache.insert(key(number), Answer::Missing);
            assert!(
                cache.get(&key(0)).is_some(),
                "asked for all the time, forgotten at {number}"
            );
            assert!(cache.len() <= 10);
        }
        assert_eq!(cache.get(&key(50)), None);
        assert_eq!(cache.get(&key(99)), Some(Answer::Missing));
    }
}
