//! What is known of the platform's mappings, and for how long it is believed.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use landfall_transfer::Timestamp;

use super::containers::Containers;
use super::used::{Collected, UsedMappings};
use super::{Answer, CloudId};
use crate::declaration::ContainerType;
use crate::ports::MAPPING_PAGE;

/// How long a cloud id is believed. It changes only when what it names is deleted and migrated again (PROTOCOL.md 8).
pub(super) const FOUND_BELIEVED_FOR: Duration = Duration::from_hours(1);

/// How long it is believed that there is none: the mapping may still come.
const MISSING_BELIEVED_FOR: Duration = Duration::from_mins(5);

const _: () = assert!(
    MISSING_BELIEVED_FOR.as_secs() < FOUND_BELIEVED_FOR.as_secs(),
    "what may still come is asked for sooner than what is there"
);

/// A namespace isn't listed before so many finds, however small it may be: a few ids are found faster one by one.
const FINDS_BEFORE_LISTING: usize = 4;

/// Remembers which ids have which cloud id, and which have none, and which containers are the migration's. One per transfer: server ids of two servers are
/// not the same ids.
///
/// Holds at most the given number of entries (and some 200 bytes for each); what was not asked for lately is forgotten first. A cloud id is
/// believed for an hour, and that there is none for five minutes, by the time that [`MappingCache::now_is`] was told.
#[derive(Debug)]
pub struct MappingCache {
    state: Mutex<State>,
}

/// Single answers are kept in two halves: what is asked for moves to the young one; when that is full, it becomes the old one, and the
/// old one is forgotten. Beside them stand the namespaces that are known as a whole, and the containers.
#[derive(Debug)]
pub(super) struct State {
    entries: usize,
    now: Timestamp,
    hash: RandomState,
    /// That an id has no cloud id is not believed if it was learnt before.
    missing_from: Timestamp,
    numbers: HashMap<String, usize>,
    young: Generation,
    old: Generation,
    namespaces: Vec<Namespace>,
    containers: HashMap<ContainerType, Containers>,
    used: Collected,
}

/// Answers by the number of their namespace, and by the hash of their key.
#[derive(Debug, Default)]
struct Generation {
    answers: Vec<Answers>,
    entries: usize,
}

/// Small beside what it leads to, so that a look for an id is one into far memory. Of two keys with one hash one is remembered.
type Answers = HashMap<u64, Believed, BuildHasherDefault<Hashed>>;

/// The hash of what is a hash.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        unreachable!("a hash is a number, and not {} bytes", bytes.len())
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// An answer, and until when it is believed.
#[derive(Clone, Debug)]
struct Believed {
    /// The key, and behind it the cloud id as a JSON string; nothing where there is none.
    text: Arc<str>,
    key_bytes: usize,
    until: Timestamp,
}

impl Believed {
    fn new(key: &str, answer: &Answer, until: Timestamp) -> Self {
        let quoted = match answer {
            Answer::CloudId(cloud_id) => cloud_id.quoted(),
            Answer::Missing | Answer::Outside { .. } => "",
        };
        Self {
            text: [key, quoted].concat().into(),
            key_bytes: key.len(),
            until,
        }
    }

    fn key(&self) -> &str {
        &self.text[..self.key_bytes]
    }

    fn is_missing(&self) -> bool {
        self.text.len() == self.key_bytes
    }

    fn answer(&self) -> Answer {
        if self.is_missing() {
            return Answer::Missing;
        }
        Answer::CloudId(CloudId {
            within: Arc::clone(&self.text),
            starts_at: self.key_bytes,
        })
    }
}

/// What is known of a namespace beside single answers.
#[derive(Debug, Default)]
struct Namespace {
    name: String,
    /// Calls that looked for some of its keys, since it was listed or given up.
    finds: usize,
    /// All of its mappings, as they were listed.
    listed: HashMap<String, CloudId>,
    /// Until when its mappings are as listed.
    found_until: Timestamp,
    /// Until when what is not listed has no mapping.
    missing_until: Timestamp,
    /// It is too large to be listed, or can't be, and isn't tried again before.
    not_before: Timestamp,
}

impl MappingCache {
    /// A cache of at most so many entries.
    pub fn new(entries: usize) -> Self {
        Self {
            state: Mutex::new(State {
                entries,
                now: Timestamp::default(),
                hash: RandomState::new(),
                missing_from: Timestamp::default(),
                numbers: HashMap::new(),
                young: Generation::default(),
                old: Generation::default(),
                namespaces: Vec::new(),
                containers: HashMap::new(),
                used: Collected::default(),
            }),
        }
    }

    /// Tells it the time, before a slice: what is too old is not believed from now on. It never goes back.
    pub fn now_is(&self, now: Timestamp) {
        let mut state = self.lock();
        state.now = state.now.max(now);
    }

    /// Tells it that a second pass began at this instant: that there is no cloud id isn't believed if it was learnt before. It never goes back.
    pub fn asks_again_from(&self, instant: Timestamp) {
        let mut state = self.lock();
        state.missing_from = state.missing_from.max(instant);
    }

    /// What was used of the platform's answers and not taken yet, in pieces that are worth to be kept; with `all`, whatever there is.
    pub(crate) fn take_used(&self, all: bool) -> Vec<UsedMappings> {
        self.lock().used.take(all)
    }

    /// How many entries are remembered.
    pub fn len(&self) -> usize {
        let state = self.lock();
        state.young.entries + state.old.entries + state.listed()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave the maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of a namespace.
    pub(super) fn number(&mut self, namespace: &str) -> usize {
        if let Some(&number) = self.numbers.get(namespace) {
            return number;
        }
        let number = self.namespaces.len();
        self.numbers.insert(namespace.to_owned(), number);
        self.namespaces.push(Namespace {
            name: namespace.to_owned(),
            ..Namespace::default()
        });
        self.young.answers.push(Answers::default());
        self.old.answers.push(Answers::default());
        number
    }

    /// The hash by which a key is remembered.
    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hash.hash_one(key)
    }

    /// Brings what is remembered of these keys near the processor, by their namespaces and hashes. Each lies at two places of far memory, and to find
    /// one after the other is mostly to wait for them; here nothing depends on what is there, so that they are waited for together.
    pub(super) fn bring_near(&self, keys: impl Iterator<Item = (usize, u64)>) {
        let ends = |believed: &Believed| match believed.text.as_bytes() {
            [first, .., last] => first ^ last,
            _ => 0,
        };
        let seen = keys.fold(0, |seen, (namespace, hash)| {
            let answers = self.young.answers.get(namespace);
            let believed = answers.and_then(|answers| answers.get(&hash));
            seen ^ believed.map_or(0, ends)
        });
        // Or the compiler sees that nobody looks at it.
        black_box(seen);
    }

    /// What is known of a key, and still believed.
    pub(super) fn find(&mut self, namespace: usize, key: &str) -> Option<Answer> {
        self.find_hashed(namespace, key, self.hash(key))
    }

    /// What is known of a key with this hash, and still believed.
    pub(super) fn find_hashed(&mut self, namespace: usize, key: &str, hash: u64) -> Option<Answer> {
        let (now, missing_from) = (self.now, self.missing_from);
        // What is missing is believed only if it was learnt since.
        let holds = |is_missing: bool, until: Timestamp| {
            until > now && (!is_missing || until >= missing_from + MISSING_BELIEVED_FOR)
        };
        let is_it = |believed: &Believed| {
            believed.key() == key && holds(believed.is_missing(), believed.until)
        };
        let young = self.young.answers.get(namespace)?.get(&hash);
        if let Some(believed) = young.filter(|believed| is_it(believed)) {
            return Some(believed.answer());
        }
        if let Some(believed) = self.old.take(namespace, hash).filter(is_it) {
            let answer = believed.answer();
            self.insert(namespace, hash, believed);
            return Some(answer);
        }
        let (answer, until) = self.namespaces.get(namespace)?.find(key);
        holds(answer == Answer::Missing, until)
            .then(|| self.use_first(namespace, key, &answer, until))
    }

    /// Remembers what the platform has just said of a key.
    pub(super) fn learn(&mut self, namespace: usize, key: &str, answer: &Answer) {
        let believed_for = match answer {
            Answer::CloudId(_) => FOUND_BELIEVED_FOR,
            Answer::Missing | Answer::Outside { .. } => MISSING_BELIEVED_FOR,
        };
        self.use_first(namespace, key, answer, self.now + believed_for);
    }

    /// An answer is used that was not remembered; returns it as it is remembered.
    fn use_first(
        &mut self,
        namespace: usize,
        key: &str,
        answer: &Answer,
        until: Timestamp,
    ) -> Answer {
        if let Some(Namespace { name, .. }) = self.namespaces.get(namespace) {
            self.used.add(name, key, answer.cloud_id().as_deref());
        }
        let believed = Believed::new(key, answer, until);
        let answer = believed.answer();
        self.insert(namespace, self.hash(key), believed);
        answer
    }

    fn insert(&mut self, namespace: usize, hash: u64, believed: Believed) {
        if self.young.entries >= self.half() {
            let next = self.no_answers();
            self.old = std::mem::replace(&mut self.young, next);
        }
        if let Some(answers) = self.young.answers.get_mut(namespace) {
            let known = answers.insert(hash, believed);
            self.young.entries += usize::from(known.is_none());
        }
    }

    /// The most single answers in one half.
    fn half(&self) -> usize {
        (self.entries.saturating_sub(self.listed()) / 2).max(1)
    }

    fn no_answers(&self) -> Generation {
        Generation {
            answers: self.namespaces.iter().map(|_| Answers::default()).collect(),
            entries: 0,
        }
    }

    /// Entries of the namespaces that are known as a whole.
    fn listed(&self) -> usize {
        let listed = |namespace: &Namespace| namespace.listed.len();
        self.namespaces.iter().map(listed).sum()
    }

    /// The most mappings that a namespace may have to be kept as a whole: all such namespaces together take at most half of the cache.
    pub(super) fn room(&self, namespace: usize) -> usize {
        let own = self.namespaces.get(namespace);
        let others = self.listed() - own.map_or(0, |own| own.listed.len());
        (self.entries / 2).saturating_sub(others)
    }

    /// The migration's containers of a type, as far as they are known and still believed, and when they are learnt that are read now.
    pub(super) fn containers(
        &mut self,
        container_type: ContainerType,
    ) -> (&mut Containers, Timestamp) {
        let (now, missing_from) = (self.now, self.missing_from);
        let containers = self.containers.entry(container_type).or_default();
        containers.forget_unless_believed(now, missing_from);
        // A second pass that began by a clock ahead of this one believes them as well, or they would be read without an end.
        (containers, now.max(missing_from))
    }

    /// Counts a call that looked for some keys of the namespace.
    pub(super) fn found(&mut self, namespace: usize) {
        if let Some(namespace) = self.namespaces.get_mut(namespace) {
            namespace.finds += 1;
        }
    }

    /// Whether the namespace is to be listed now instead of looking for some more of its keys: as many calls have looked for keys as
    /// listing it takes at most. So what a namespace that turns out too large costs in vain is less than what was needed anyway.
    pub(super) fn is_to_be_listed(&self, number: usize) -> bool {
        let pages = self.room(number).div_ceil(MAPPING_PAGE);
        let worth = |namespace: &Namespace| {
            namespace.finds >= pages.max(FINDS_BEFORE_LISTING) && namespace.not_before <= self.now
        };
        pages > 0 && self.namespaces.get(number).is_some_and(worth)
    }

    /// Keeps all mappings of a namespace; what is not among them has none.
    pub(super) fn keep_listed(&mut self, number: usize, listed: HashMap<String, CloudId>) {
        let (found_until, missing_until) = (
            self.now + FOUND_BELIEVED_FOR,
            self.now + MISSING_BELIEVED_FOR,
        );
        let Some(namespace) = self.namespaces.get_mut(number) else {
            return;
        };
        *namespace = Namespace {
            name: std::mem::take(&mut namespace.name),
            listed,
            found_until,
            missing_until,
            ..Namespace::default()
        };
        // What the list says counts, and single answers have less room now.
        self.old = self.no_answers();
        if let Some(answers) = self.young.answers.get_mut(number) {
            self.young.entries -= std::mem::take(answers).len();
        }
        if self.young.entries > self.half() {
            self.young = self.no_answers();
        }
    }

    /// The namespace is too large, or can't be listed: not tried again for a while.
    pub(super) fn give_up_listing(&mut self, namespace: usize) {
        let not_before = self.now + FOUND_BELIEVED_FOR;
        if let Some(namespace) = self.namespaces.get_mut(namespace) {
            (namespace.finds, namespace.not_before) = (0, not_before);
        }
    }
}

impl Generation {
    fn take(&mut self, namespace: usize, hash: u64) -> Option<Believed> {
        let taken = self.answers.get_mut(namespace)?.remove(&hash)?;
        self.entries -= 1;
        Some(taken)
    }
}

impl Namespace {
    /// What the list says of a key, and until when that is believed.
    fn find(&self, key: &str) -> (Answer, Timestamp) {
        match self.listed.get(key) {
            Some(cloud_id) => (Answer::CloudId(cloud_id.clone()), self.found_until),
            None => (Answer::Missing, self.missing_until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn cache(entries: usize) -> (MappingCache, usize) {
        let cache = MappingCache::new(entries);
        cache.now_is(START);
        let number = cache.lock().number("identity:user");
        (cache, number)
    }

    fn cloud_id(text: &str) -> CloudId {
        CloudId::new(text)
    }

    fn found(text: &str) -> Answer {
        Answer::CloudId(cloud_id(text))
    }

    #[test]
    fn the_cache_stays_within_its_bound_and_keeps_what_is_asked_for() {
        let (cache, number) = cache(10);
        for key in 0..100 {
            let mut state = cache.lock();
            state.learn(number, &key.to_string(), &Answer::Missing);
            assert!(
                state.find(number, "0").is_some(),
                "asked for all the time, forgotten at {key}"
            );
            drop(state);
            assert!(cache.len() <= 10);
        }
        assert_eq!(cache.lock().find(number, "50"), None);
        assert_eq!(cache.lock().find(number, "99"), Some(Answer::Missing));
    }

    #[test]
    fn a_miss_that_was_learnt_before_a_second_pass_is_not_believed_in_it() {
        let (cache, number) = cache(10);
        cache.lock().learn(number, "1", &found("10"));
        cache.lock().learn(number, "2", &Answer::Missing);
        let again = START + Duration::from_mins(1);
        cache.now_is(again);
        assert_eq!(cache.lock().find(number, "2"), Some(Answer::Missing));
        cache.asks_again_from(again);
        assert_eq!(cache.lock().find(number, "1"), Some(found("10")));
        assert_eq!(cache.lock().find(number, "2"), None);
        cache.lock().learn(number, "2", &Answer::Missing);
        cache.asks_again_from(START);
        assert_eq!(cache.lock().find(number, "2"), Some(Answer::Missing));
    }

    #[test]
    fn a_listed_namespace_is_asked_again_in_a_second_pass_for_what_it_did_not_list() {
        let (cache, number) = cache(10);
        let listed = HashMap::from([("1".to_owned(), cloud_id("10"))]);
        cache.lock().keep_listed(number, listed);
        cache.asks_again_from(START + Duration::from_mins(1));
        cache.now_is(START + Duration::from_mins(2));
        assert_eq!(cache.lock().find(number, "1"), Some(found("10")));
        assert_eq!(cache.lock().find(number, "2"), None);
    }

    #[test]
    fn a_miss_is_believed_for_less_long_than_a_cloud_id() {
        let (cache, number) = cache(10);
        cache.lock().learn(number, "1", &found("10"));
        cache.lock().learn(number, "2", &Answer::Missing);
        let at = |after: Duration| {
            cache.now_is(START + after);
            let mut state = cache.lock();
            (state.find(number, "1"), state.find(number, "2"))
        };
        assert_eq!(
            at(MISSING_BELIEVED_FOR.saturating_sub(Duration::from_millis(1))),
            (Some(found("10")), Some(Answer::Missing))
        );
        assert_eq!(at(MISSING_BELIEVED_FOR), (Some(found("10")), None));
        assert_eq!(
            at(Duration::ZERO),
            (Some(found("10")), None),
            "time never goes back"
        );
        assert_eq!(at(FOUND_BELIEVED_FOR), (None, None));
    }

    #[test]
    fn a_new_answer_replaces_one_that_is_not_believed_any_more_and_counts_once() {
        let (cache, number) = cache(10);
        cache.lock().learn(number, "1", &Answer::Missing);
        cache.now_is(START + MISSING_BELIEVED_FOR);
        assert_eq!(cache.lock().find(number, "1"), None);
        cache.lock().learn(number, "1", &found("10"));
        assert_eq!(cache.lock().find(number, "1"), Some(found("10")));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn an_answer_is_taken_as_used_when_it_is_first_used_wherever_it_came_from() {
        let (cache, number) = cache(20);
        let listed = HashMap::from([
            ("1".to_owned(), cloud_id("10")),
            ("unused".to_owned(), cloud_id("20")),
        ]);
        cache.lock().keep_listed(number, listed);
        let issues = cache.lock().number("jira:issue");
        cache.lock().learn(issues, "7", &found("70"));
        for key in ["1", "2", "1"] {
            cache.lock().find(number, key);
        }
        let [used] = cache.take_used(true).try_into().unwrap();
        assert_eq!(
            serde_json::to_value(&used.mappings).unwrap(),
            serde_json::json!({ "identity:user": { "1": "10", "2": null }, "jira:issue": { "7": "70" } })
        );
        cache.lock().find(number, "1");
        assert!(cache.take_used(true).is_empty());
    }

    #[test]
    fn a_key_whose_hash_another_one_has_is_not_taken_for_it() {
        let (cache, number) = cache(2);
        let mut state = cache.lock();
        let hash = state.hash.hash_one("1");
        let believed = |key| Believed::new(key, &found("10"), START + FOUND_BELIEVED_FOR);
        state.insert(number, hash, believed("2"));
        assert_eq!(state.find(number, "1"), None, "in the young half");
        state.learn(number, "3", &Answer::Missing);
        assert_eq!(state.find(number, "1"), None, "in the old half");
        state.insert(number, hash, believed("1"));
        assert_eq!(state.find(number, "1"), Some(found("10")));
    }

    #[test]
    fn a_key_is_another_one_in_another_namespace() {
        let (cache, users) = cache(10);
        let groups = cache.lock().number("identity:group");
        assert_ne!(users, groups);
        assert_eq!(cache.lock().number("identity:user"), users);
        cache.lock().learn(users, "1", &found("10"));
        assert_eq!(cache.lock().find(groups, "1"), None);
    }

    #[test]
    fn what_a_listed_namespace_lacks_is_missing_until_that_may_have_changed() {
        let (cache, number) = cache(10);
        let listed = HashMap::from([("1".to_owned(), cloud_id("10"))]);
        cache.lock().learn(number, "1", &Answer::Missing);
        cache.lock().keep_listed(number, listed);
        assert_eq!(cache.lock().find(number, "1"), Some(found("10")));
        assert_eq!(cache.lock().find(number, "2"), Some(Answer::Missing));
        cache.now_is(START + MISSING_BELIEVED_FOR);
        assert_eq!(cache.lock().find(number, "2"), None);
        assert_eq!(cache.lock().find(number, "1"), Some(found("10")));
        cache.now_is(START + FOUND_BELIEVED_FOR);
        assert_eq!(cache.lock().find(number, "1"), None);
    }

    #[test]
    fn what_is_listed_is_never_forgotten_for_single_answers() {
        let (cache, number) = cache(20);
        let other = cache.lock().number("jira:issue");
        let listed = (0..10).map(|id| (id.to_string(), cloud_id("x"))).collect();
        cache.lock().keep_listed(number, listed);
        for key in 0..100 {
            cache
                .lock()
                .learn(other, &key.to_string(), &Answer::Missing);
            assert!(cache.len() <= 20, "{}", cache.len());
        }
        for id in 0..10 {
            assert_eq!(cache.lock().find(number, &id.to_string()), Some(found("x")));
        }
    }

    #[test]
    fn a_namespace_is_listed_once_listing_it_can_cost_no_more_than_was_spent() {
        let finds_until_listed = |entries: usize| {
            let (cache, number) = cache(entries);
            let mut finds = 0;
            while !cache.lock().is_to_be_listed(number) {
                cache.lock().found(number);
                finds += 1;
                assert!(finds < 1_000);
            }
            finds
        };
        assert_eq!(finds_until_listed(100), FINDS_BEFORE_LISTING);
        assert_eq!(finds_until_listed(50_000), 5);
        assert_eq!(finds_until_listed(1_000_000), 100);
    }

    #[test]
    fn a_namespace_that_can_t_be_listed_is_not_tried_again_for_an_hour() {
        let (cache, number) = cache(100);
        let find = || {
            for _ in 0..FINDS_BEFORE_LISTING {
                cache.lock().found(number);
            }
        };
        find();
        cache.lock().give_up_listing(number);
        find();
        assert!(!cache.lock().is_to_be_listed(number));
        cache.now_is(START + FOUND_BELIEVED_FOR);
        assert!(cache.lock().is_to_be_listed(number));
    }

    #[test]
    fn what_is_listed_leaves_half_of_the_cache_to_single_answers() {
        let (cache, users) = cache(100);
        let issues = cache.lock().number("jira:issue");
        assert_eq!(cache.lock().room(users), 50);
        let listed = (0..30).map(|id| (id.to_string(), cloud_id("x"))).collect();
        cache.lock().keep_listed(users, listed);
        assert_eq!(cache.lock().room(users), 50, "its own list is replaced");
        assert_eq!(cache.lock().room(issues), 20);
    }
}
