//! Looks the ids of a batch up: a hundred keys a call, or the whole namespace where that takes fewer calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::cache::MappingCache;
use super::containers::{self, SourceIds};
use super::{Answer, CloudId, Id, Rewriter, keys};
use crate::ports::{MAPPING_KEYS, MAPPING_PAGE, Mappings, MappingsError};

/// Keys that the cache doesn't know, and which of a batch's answers wait for each.
type Unknown = BTreeMap<String, Vec<usize>>;

impl Rewriter<'_> {
    /// What the platform knows of these ids, in their order: asks for what the cache doesn't know.
    pub(crate) async fn look_up<M: Mappings>(
        &self,
        mappings: &M,
        cache: &MappingCache,
        ids: &[Id<'_>],
    ) -> Result<Vec<Answer>, MappingsError> {
        let within = self.within(mappings, cache, ids).await?;
        let (mut answers, unknown) = self.known(cache, ids, &within);
        for (number, (namespace, unknown)) in unknown {
            let mut unknown: Vec<(String, Vec<usize>)> = unknown.into_iter().collect();
            while !unknown.is_empty() {
                let is_to_be_listed = cache.lock().is_to_be_listed(number);
                if is_to_be_listed {
                    list(mappings, cache, number, namespace).await?;
                    let mut cache = cache.lock();
                    unknown.retain(|(key, waiting)| match cache.find(number, key) {
                        Some(answer) => {
                            fill(&mut answers, waiting, &answer);
                            false
                        }
                        None => true,
                    });
                    continue;
                }
                let rest = unknown.split_off(unknown.len().min(MAPPING_KEYS));
                let asked = std::mem::replace(&mut unknown, rest);
                let keys: Vec<String> = asked.iter().map(|(key, _)| key.clone()).collect();
                let mut found = mappings.find(namespace, &keys).await?;
                let mut cache = cache.lock();
                cache.found(number);
                for (key, waiting) in asked {
                    let answer = found.remove(&key).map_or(Answer::Missing, |cloud_id| {
                        Answer::CloudId(CloudId::new(&cloud_id))
                    });
                    fill(&mut answers, &waiting, &answer);
                    cache.learn(number, &key, &answer);
                }
            }
        }
        Ok(answers)
    }

    /// For each mapping the containers that its ids must be of, where it is limited to those of the migration. They are read for whoever has ids.
    async fn within<M: Mappings>(
        &self,
        mappings: &M,
        cache: &MappingCache,
        ids: &[Id<'_>],
    ) -> Result<Vec<Option<Arc<SourceIds>>>, MappingsError> {
        let declared = &self.import.mappings;
        let mut within = Vec::with_capacity(declared.len());
        for mapping in declared {
            within.push(match mapping.within {
                Some(container_type) if !ids.is_empty() => {
                    Some(containers::read(mappings, cache, container_type).await?)
                }
                _ => None,
            });
        }
        Ok(within)
    }

    /// What the cache knows of these ids, and what it doesn't, by the number of the namespace.
    fn known(
        &self,
        cache: &MappingCache,
        ids: &[Id<'_>],
        within: &[Option<Arc<SourceIds>>],
    ) -> (Vec<Answer>, BTreeMap<usize, (&str, Unknown)>) {
        let mut cache = cache.lock();
        let declared: Vec<(usize, &[&str])> = self
            .import
            .mappings
            .iter()
            .map(|mapping| {
                let namespace = &mapping.namespace;
                (cache.number(namespace), keys::forms(namespace))
            })
            .collect();
        let mut room = String::new();
        let mut keys = String::new();
        let mut asked = Vec::with_capacity(ids.len());
        for id in ids {
            let prefix = self.import.mappings[id.mapping].key_prefix.as_deref();
            let (number, forms) = declared[id.mapping];
            let within = within[id.mapping].as_deref();
            for text in id.texts() {
                let start = keys.len();
                // An empty id is a miss that nobody needs to be asked for, and so is one of no container of this migration.
                if !text.is_empty() && within.is_none_or(|within| within.contains(text)) {
                    keys.push_str(keys::key_of(prefix, forms, text, &mut room));
                }
                let hash = cache.hash(&keys[start..]);
                asked.push((id.mapping, number, hash, start..keys.len()));
            }
        }
        cache.bring_near(asked.iter().map(|(_, number, hash, _)| (*number, *hash)));
        let mut answers = Vec::with_capacity(asked.len());
        let mut unknown: BTreeMap<usize, (&str, Unknown)> = BTreeMap::new();
        for (mapping, number, hash, key) in asked {
            let key = &keys[key];
            if key.is_empty() {
                answers.push(match &within[mapping] {
                    Some(source_ids) => Answer::Outside {
                        nothing_listed: source_ids.is_empty(),
                    },
                    None => Answer::Missing,
                });
                continue;
            }
            let known = cache.find_hashed(number, key, hash);
            if known.is_none() {
                let (_, unknown) = unknown
                    .entry(number)
                    .or_insert_with(|| (&self.import.mappings[mapping].namespace, Unknown::new()));
                unknown
                    .entry(key.to_owned())
                    .or_default()
                    .push(answers.len());
            }
            answers.push(known.unwrap_or(Answer::Missing));
        }
        (answers, unknown)
    }
}

fn fill(answers: &mut [Answer], waiting: &[usize], answer: &Answer) {
    for &waiting in waiting {
        answers[waiting] = answer.clone();
    }
}

/// Fetches all mappings of a namespace into the cache, unless there are more than it has room for. Whatever else goes wrong with it, its keys
/// can still be looked for.
async fn list<M: Mappings>(
    mappings: &M,
    cache: &MappingCache,
    number: usize,
    namespace: &str,
) -> Result<(), MappingsError> {
    let room = cache.lock().room(number);
    let mut listed = HashMap::new();
    let mut after = None;
    for _ in 0..room.div_ceil(MAPPING_PAGE) {
        let page = match mappings.page(namespace, after.as_deref()).await {
            Ok(page) => page,
            Err(error @ MappingsError::Throttled { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(mapping.namespace = namespace, error = %error, "A namespace's mappings can't be listed; they are looked up one by one.");
                break;
            }
        };
        for (key, cloud_id) in page.items {
            listed.entry(key).or_insert_with(|| CloudId::new(&cloud_id));
        }
        if listed.len() > room {
            break;
        }
        after = page.next;
        if after.is_none() {
            cache.lock().keep_listed(number, listed);
            return Ok(());
        }
    }
    cache.lock().give_up_listing(number);
    Ok(())
}
