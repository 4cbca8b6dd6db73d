//! Replaces server ids by cloud ids, as declared: finds them in the records of a batch, looks them up a hundred at a time, remembers the
//! answers, and writes the records anew around them. Whatever is no id stays as it was written, byte by byte.

mod cache;
mod containers;
mod keys;
mod look_up;
mod used;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use regex::Regex;
use serde_json::{Number, Value};

use crate::declaration::{Import, Mapping, OnMiss};
use crate::json;
use crate::pointers::{Found, Pointers, TooManyCases};

pub use self::cache::MappingCache;
pub(crate) use self::keys::{problem as key_problem, within_problem};
pub use self::used::{UnreadableMappings, UsedMappings};

/// The longest id, in bytes; with its prefix it is a key of the platform's.
pub const ID_BYTES: usize = 1024;

/// By how many bytes replaced ids may lengthen a record. It bounds a commit: batch bytes + batch records × this ≤ commit bytes.
pub const GROWTH_BYTES: usize = 4096;

/// The most ids in one record: with a wildcard a record of a megabyte could hold hundreds of thousands, each of which takes memory and
/// a look-up.
const IDS_MAX: usize = 1000;

/// The most memory that a compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 1_048_576;

/// What the platform said of an id, or why it isn't asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    CloudId(CloudId),
    Missing,
    /// It is of no container of this migration. Never remembered: another mapping may ask for the same id.
    Outside {
        /// Whether the platform lists no container of the type at all.
        nothing_listed: bool,
    },
}

impl Answer {
    fn cloud_id(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::CloudId(cloud_id) => Some(cloud_id.text()),
            Self::Missing | Self::Outside { .. } => None,
        }
    }
}

/// A cloud id, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct CloudId {
    /// Ends with it as a JSON string. The cache has the key before it: tens of thousands are in use at once, and each is one look into memory.
    within: Arc<str>,
    starts_at: usize,
}

impl CloudId {
    fn new(text: &str) -> Self {
        Self {
            within: quoted(text).into(),
            starts_at: 0,
        }
    }

    fn quoted(&self) -> &str {
        &self.within[self.starts_at..]
    }

    fn text(&self) -> Cow<'_, str> {
        json::text(self.quoted()).expect("it was written as a JSON string")
    }

    /// A number stays a number where the new id can be one.
    fn json(&self, was_number: bool) -> &str {
        let quoted = self.quoted();
        let bare = &quoted[1..quoted.len() - 1];
        // Most ids that are none show it at once.
        let begins = bare.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if was_number && begins && bare.parse::<Number>().is_ok() {
            bare
        } else {
            quoted
        }
    }
}

impl PartialEq for CloudId {
    fn eq(&self, other: &Self) -> bool {
        self.quoted() == other.quoted()
    }
}

impl Eq for CloudId {}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Why a declared import can't be carried out. [`Declaration::validate`](crate::Declaration::validate) tells it with the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Uncompilable {
    #[error(transparent)]
    Pointers(#[from] TooManyCases),
    #[error(transparent)]
    Pattern(#[from] PatternProblem),
}

/// What keeps a pattern from being used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternProblem {
    #[error("is not a regular expression that can be used: {0}")]
    Syntax(#[from] regex::Error),
    #[error("must have one group in parentheses, which is the id; others are written (?:…)")]
    Groups,
}

/// What a declared import does to each of its records.
#[derive(Debug)]
pub(crate) struct Rewriter<'a> {
    import: &'a Import,
    pointers: Pointers,
    /// Patterns of the mappings, in their order.
    patterns: Vec<Option<Regex>>,
}

/// An id in a record, or several in one text.
#[derive(Debug)]
pub(crate) struct Id<'record> {
    /// Number of its mapping.
    mapping: usize,
    /// Where its JSON value stands in the record.
    at: Range<usize>,
    content: Content<'record>,
}

#[derive(Debug)]
enum Content<'record> {
    Text(Cow<'record, str>),
    Number(&'record str),
    /// Ids at these places of a text.
    Within(String, Vec<Range<usize>>),
}

impl Id<'_> {
    /// Where its JSON value stands in the record.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn place(&self) -> Range<usize> {
        self.at.clone()
    }

    pub(crate) fn count(&self) -> usize {
        match &self.content {
            Content::Text(_) | Content::Number(_) => 1,
            Content::Within(_, places) => places.len(),
        }
    }

    fn get(&self, number: usize) -> &str {
        match &self.content {
            Content::Text(id) => id,
            Content::Number(id) => id,
            Content::Within(text, places) => &text[places[number].clone()],
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        (0..self.count()).map(|number| self.get(number))
    }
}

/// What a record says of itself.
#[derive(Debug)]
pub(crate) struct Read<'record> {
    /// The JSON text of its natural key, where one is declared and there.
    pub(crate) natural_key: Option<&'record str>,
    /// Its ids, among those of its batch.
    pub(crate) ids: Range<usize>,
}

/// Why a record can't be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unmapped {
    pub(crate) held: bool,
    pub(crate) namespace: String,
    pub(crate) reason: String,
    /// The reason without the id.
    pub(crate) cause: String,
}

/// Compiles a pattern.
pub(crate) fn pattern(text: &str) -> Result<Regex, PatternProblem> {
    let pattern = regex::RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES)
        .build()?;
    if pattern.captures_len() == 2 {
        Ok(pattern)
    } else {
        Err(PatternProblem::Groups)
    }
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(import: &'a Import) -> Result<Self, Uncompilable> {
        let mapped = import.mappings.iter().map(|mapping| &*mapping.pointer);
        // The natural key's pointer comes after those of the mappings, so that theirs have the mappings' numbers.
        let pointers = Pointers::new(mapped.chain(import.natural_key.as_deref()))?;
        let patterns = import
            .mappings
            .iter()
            .map(|mapping| mapping.pattern.as_deref().map(pattern).transpose())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            import,
            pointers,
            patterns,
        })
    }

    /// Reads a record: appends its ids to those of its batch. `found` is room to work in. An error says why the record is no record.
    pub(crate) fn read<'record>(
        &self,
        record: &'record [u8],
        found: &mut Vec<Found<'record>>,
        ids: &mut Vec<Id<'record>>,
    ) -> Result<Read<'record>, String> {
        let text = std::str::from_utf8(record).map_err(|error| {
            format!(
                "the record is not UTF-8 from its byte {} on",
                error.valid_up_to() + 1
            )
        })?;
        found.clear();
        self.pointers
            .find(text, found)
            .map_err(|problem| problem.reason(text))?;
        let first = ids.len();
        let mut natural_key = None;
        for &Found {
            pointer,
            text: value,
        } in found.iter()
        {
            let Some(mapping) = self.import.mappings.get(pointer) else {
                // Of a name that is repeated the last value counts, as for every other reader.
                natural_key = Some(value);
                continue;
            };
            let start = value.as_ptr().addr() - text.as_ptr().addr();
            // Where two pointers lead to one place, the one that is declared first counts.
            if ids[first..].last().is_some_and(|id| id.at.start == start) {
                continue;
            }
            let content = content(value, self.patterns[pointer].as_ref())
                .map_err(|problem| format!("the id at {:?} {problem}", mapping.pointer))?;
            ids.extend(content.map(|content| Id {
                mapping: pointer,
                at: start..start + value.len(),
                content,
            }));
        }
        if ids[first..].iter().map(Id::count).sum::<usize>() > IDS_MAX {
            return Err(format!("the record has more than {IDS_MAX} ids"));
        }
        Ok(Read {
            natural_key,
            ids: first..ids.len(),
        })
    }

    /// The record with all its ids replaced; `answers` are those to its ids. Appends to `written`, which the records of a batch share,
    /// and leaves it empty. A missing mapping that rejects the record outranks one that holds it.
    pub(crate) fn write(
        &self,
        record: &Bytes,
        ids: &[Id<'_>],
        answers: &[Answer],
        written: &mut BytesMut,
    ) -> Result<Bytes, Unmapped> {
        let mut rewrite = Rewrite {
            record,
            written,
            copied: 0,
            held: None,
        };
        let mut answers = answers.iter();
        for id in ids {
            let mapping = &self.import.mappings[id.mapping];
            if let Err(unmapped) = rewrite.replace(mapping, id, &mut answers) {
                written.clear();
                return Err(unmapped);
            }
        }
        rewrite.finish()
    }
}

/// A record while it is written anew.
struct Rewrite<'b> {
    record: &'b Bytes,
    written: &'b mut BytesMut,
    /// How much of the record is written, or replaced.
    copied: usize,
    /// The first missing mapping that holds the record.
    held: Option<Unmapped>,
}

impl Rewrite<'_> {
    fn replace<'c>(
        &mut self,
        mapping: &Mapping,
        id: &Id<'_>,
        answers: &mut impl Iterator<Item = &'c Answer>,
    ) -> Result<(), Unmapped> {
        let Content::Within(text, places) = &id.content else {
            let was_number = matches!(id.content, Content::Number(_));
            let new = self.decide(mapping, id.get(0), answers.next())?;
            match new {
                New::Kept => {}
                New::CloudId(cloud_id) => self.put(id, cloud_id.json(was_number)),
                New::Placeholder(placeholder) => self.put(id, &quoted(placeholder)),
            }
            return Ok(());
        };
        let (mut new, mut copied) = (String::new(), 0);
        for place in places {
            let replaced = match self.decide(mapping, &text[place.clone()], answers.next())? {
                New::Kept => continue,
                New::CloudId(cloud_id) => cloud_id.text(),
                New::Placeholder(placeholder) => Cow::Borrowed(placeholder),
            };
            new.push_str(&text[copied..place.start]);
            new.push_str(&replaced);
            copied = place.end;
        }
        if copied > 0 {
            new.push_str(&text[copied..]);
            self.put(id, &quoted(&new));
        }
        Ok(())
    }

    /// What replaces an id. An error rejects the record; that it is held is remembered.
    fn decide<'c>(
        &mut self,
        mapping: &'c Mapping,
        id: &str,
        answer: Option<&'c Answer>,
    ) -> Result<New<'c>, Unmapped> {
        if let Some(Answer::CloudId(cloud_id)) = answer {
            return Ok(New::CloudId(cloud_id));
        }
        match (mapping.on_miss, &mapping.placeholder) {
            (OnMiss::Keep, _) => Ok(New::Kept),
            (OnMiss::Placeholder, Some(placeholder)) => Ok(New::Placeholder(placeholder)),
            // A mapping may still come; a container that isn't in the migration won't.
            (OnMiss::Hold, _) if !matches!(answer, Some(Answer::Outside { .. })) => {
                self.held
                    .get_or_insert_with(|| miss(mapping, id, answer, true));
                Ok(New::Kept)
            }
            // A placeholder policy without a placeholder doesn't pass validation; rejecting invents nothing.
            (OnMiss::Hold | OnMiss::Reject | OnMiss::Placeholder, _) => {
                Err(miss(mapping, id, answer, false))
            }
        }
    }

    fn put(&mut self, id: &Id<'_>, json: &str) {
        let before = &self.record[self.copied..id.at.start];
        self.written.extend_from_slice(before);
        self.written.extend_from_slice(json.as_bytes());
        self.copied = id.at.end;
    }

    fn finish(self) -> Result<Bytes, Unmapped> {
        if let Some(held) = self.held {
            self.written.clear();
            return Err(held);
        }
        if self.copied == 0 {
            return Ok(self.record.clone());
        }
        self.written.extend_from_slice(&self.record[self.copied..]);
        Ok(self.written.split().freeze())
    }
}

/// What becomes of an id.
enum New<'c> {
    Kept,
    CloudId(&'c CloudId),
    Placeholder(&'c str),
}

/// The ids in a value that a mapping points to; none where there is nothing to replace. An error completes "the id at …".
fn content<'record>(
    value: &'record str,
    pattern: Option<&Regex>,
) -> Result<Option<Content<'record>>, String> {
    let content = match value.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b'"') => {
            let text = json::text(value)
                .ok_or("is no text: half of a surrogate pair stands alone in it")?;
            match pattern {
                None => Content::Text(text),
                Some(pattern) => {
                    let groups = pattern
                        .captures_iter(&text)
                        .filter_map(|found| found.get(1));
                    let places = groups.map(|id| id.range()).collect();
                    Content::Within(text.into_owned(), places)
                }
            }
        }
        Some(b'-' | b'0'..=b'9') if pattern.is_none() => Content::Number(value),
        _ if pattern.is_some() => {
            return Err("is in no string, where alone a pattern can find one".to_owned());
        }
        _ => return Err("is neither a string nor a number".to_owned()),
    };
    let longest = match &content {
        Content::Text(id) => id.len(),
        Content::Number(id) => id.len(),
        Content::Within(_, places) => places.iter().map(ExactSizeIterator::len).max().unwrap_or(0),
    };
    if longest > ID_BYTES {
        return Err(format!("is longer than {ID_BYTES} bytes"));
    }
    Ok(Some(content))
}

fn miss(mapping: &Mapping, id: &str, answer: Option<&Answer>, held: bool) -> Unmapped {
    let Mapping {
        pointer, namespace, ..
    } = mapping;
    let reason = |id: &str| match (answer, mapping.within) {
        (Some(Answer::Outside { nothing_listed }), Some(container_type)) => {
            let of = container_type.name();
            let why = if *nothing_listed {
                format!("the platform lists no {of} with a sourceId for this migration")
            } else {
                format!("it is the sourceId of no {of} of this migration")
            };
            format!("{namespace} is not asked for {id}: {why}")
        }
        _ => format!("{namespace} has no mapping for {id}"),
    };
    Unmapped {
        held,
        namespace: namespace.clone(),
        reason: format!(
            "{}{}",
            reason(&format!("{id:?}, the id at {pointer:?}")),
            keys::hint(mapping, id)
        ),
        cause: reason("an id"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::declaration::ContainerType;
    use crate::json::NESTING_MAX;
    use crate::ports::{ContainerPage, MappingPage, Mappings, MappingsError};

    /// Knows some keys of every namespace, and writes down what it is asked for.
    #[derive(Default)]
    struct Known {
        cloud_ids: HashMap<String, String>,
        /// The migration's projects; there are no spaces.
        projects: Vec<String>,
        asked: Mutex<Vec<String>>,
    }

    impl Known {
        fn of(pairs: &[(&str, &str)]) -> Self {
            let owned = |(key, id): &(&str, &str)| ((*key).to_owned(), (*id).to_owned());
            Self {
                cloud_ids: pairs.iter().map(owned).collect(),
                ..Self::default()
            }
        }

        fn with_projects(mut self, projects: &[&str]) -> Self {
            self.projects = projects.iter().copied().map(str::to_owned).collect();
            self
        }
    }

    impl Mappings for Known {
        async fn find(
            &self,
            _: &str,
            keys: &[String],
        ) -> Result<HashMap<String, String>, MappingsError> {
            self.asked.lock().unwrap().extend_from_slice(keys);
            let found = |key: &String| Some((key.clone(), self.cloud_ids.get(key)?.clone()));
            Ok(keys.iter().filter_map(found).collect())
        }

        async fn page(&self, _: &str, _: Option<&str>) -> Result<MappingPage, MappingsError> {
            unreachable!("so few ids are looked up one by one")
        }

        async fn containers(
            &self,
            container_type: ContainerType,
            _: Option<&str>,
        ) -> Result<ContainerPage, MappingsError> {
            Ok(ContainerPage {
                source_ids: match container_type {
                    ContainerType::JiraProject => self.projects.clone(),
                    ContainerType::ConfluenceSpace => Vec::new(),
                },
                next: None,
            })
        }
    }

    fn mapping(pointer: &str, on_miss: OnMiss) -> Mapping {
        Mapping {
            pointer: pointer.to_owned(),
            pattern: None,
            namespace: "com.example:user".to_owned(),
            on_miss,
            placeholder: (on_miss == OnMiss::Placeholder).then(|| "nobody".to_owned()),
            key_prefix: Some("u/".to_owned()),
            within: None,
        }
    }

    fn within(pointer: &str, pattern: &str, on_miss: OnMiss) -> Mapping {
        Mapping {
            pattern: Some(pattern.to_owned()),
            ..mapping(pointer, on_miss)
        }
    }

    fn import(declared: &[Mapping]) -> Import {
        Import {
            label: "*".to_owned(),
            natural_key: Some("/key".to_owned()),
            mappings: declared.to_vec(),
            ..Import::default()
        }
    }

    /// What becomes of a record; a record that is none is rejected like one without a mapping.
    fn rewritten(record: &str, declared: &[Mapping], known: &Known) -> Result<String, Unmapped> {
        let import = import(declared);
        let rewriter = Rewriter::new(&import).unwrap();
        let record = Bytes::copy_from_slice(record.as_bytes());
        let mut ids = Vec::new();
        rewriter
            .read(&record, &mut Vec::new(), &mut ids)
            .map_err(|reason| Unmapped {
                held: false,
                namespace: String::new(),
                cause: reason.clone(),
                reason,
            })?;
        let cache = MappingCache::new(10);
        let answers = rewriter.look_up(known, &cache, &ids).now_or_never();
        let answers = answers.unwrap().unwrap();
        let mut written = BytesMut::from(&b""[..]);
        let written = rewriter.write(&record, &ids, &answers, &mut written)?;
        Ok(String::from_utf8(written.into()).unwrap())
    }

    #[test]
    fn a_number_stays_a_number_where_the_cloud_id_is_one() {
        let known = Known::of(&[("u/1", "10"), ("u/2", "abc"), ("u/3", "007")]);
        let declared = [mapping("/a", OnMiss::Reject)];
        for (before, after) in [
            (r#"{"a": 1 }"#, r#"{"a": 10 }"#),
            (r#"{"a":"1"}"#, r#"{"a":"10"}"#),
            (r#"{"a":2}"#, r#"{"a":"abc"}"#),
            (r#"{"a":3}"#, r#"{"a":"007"}"#),
        ] {
            assert_eq!(rewritten(before, &declared, &known), Ok(after.to_owned()));
        }
    }

    #[test]
    fn an_absent_or_null_id_is_nothing_to_do() {
        for record in ["{}", r#"{"a": null}"#, "[1]", "7"] {
            let declared = [mapping("/a", OnMiss::Reject)];
            assert_eq!(
                rewritten(record, &declared, &Known::default()),
                Ok(record.to_owned())
            );
        }
    }

    #[test]
    fn something_else_than_a_string_or_number_is_rejected_whatever_the_policy() {
        let long = format!("\"{}\"", "x".repeat(ID_BYTES + 1));
        for id in ["{}", "[1]", "true", r#""\ud800""#, &long] {
            let record = format!(r#"{{"a":{id}}}"#);
            let declared = [mapping("/a", OnMiss::Keep)];
            let unmapped = rewritten(&record, &declared, &Known::default()).unwrap_err();
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
        let miss = |on_miss| rewritten(r#"{"a":9}"#, &[mapping("/a", on_miss)], &Known::default());
        assert_eq!(miss(OnMiss::Keep).unwrap(), r#"{"a":9}"#);
        assert_eq!(miss(OnMiss::Placeholder).unwrap(), r#"{"a":"nobody"}"#);
        let reason = "com.example:user has no mapping for \"9\", the id at \"/a\"";
        for (on_miss, held) in [(OnMiss::Hold, true), (OnMiss::Reject, false)] {
            let unmapped = Unmapped {
                held,
                namespace: "com.example:user".to_owned(),
                reason: reason.to_owned(),
                cause: "com.example:user has no mapping for an id".to_owned(),
            };
            assert_eq!(miss(on_miss), Err(unmapped));
        }
    }

    #[test]
    fn a_miss_that_rejects_outranks_one_that_holds() {
        let declared = [mapping("/a", OnMiss::Hold), mapping("/b", OnMiss::Reject)];
        let of = |known: &Known| rewritten(r#"{"a":1,"b":2}"#, &declared, known).unwrap_err();
        assert!(!of(&Known::default()).held);
        assert!(of(&Known::of(&[("u/2", "x")])).held);
    }

    #[test]
    fn an_empty_id_is_a_miss_that_is_never_asked_for() {
        let known = Known::default();
        let unmapped = rewritten(r#"{"a":""}"#, &[mapping("/a", OnMiss::Hold)], &known);
        assert!(unmapped.unwrap_err().held);
        assert!(known.asked.lock().unwrap().is_empty());
    }

    fn of_projects(mapping: Mapping) -> Mapping {
        Mapping {
            within: Some(ContainerType::JiraProject),
            ..mapping
        }
    }

    #[test]
    fn an_id_of_no_container_of_this_migration_is_never_asked_for_although_it_has_a_mapping() {
        let known = Known::of(&[("u/1", "10"), ("u/9", "90")]).with_projects(&["1"]);
        let of =
            |record, on_miss| rewritten(record, &[of_projects(mapping("/a", on_miss))], &known);
        assert_eq!(of(r#"{"a":1}"#, OnMiss::Reject).unwrap(), r#"{"a":10}"#);
        assert_eq!(of(r#"{"a":"1"}"#, OnMiss::Reject).unwrap(), r#"{"a":"10"}"#);
        assert_eq!(of(r#"{"a":9}"#, OnMiss::Keep).unwrap(), r#"{"a":9}"#);
        assert_eq!(
            of(r#"{"a":9}"#, OnMiss::Placeholder).unwrap(),
            r#"{"a":"nobody"}"#
        );
        let reason = "com.example:user is not asked for \"9\", the id at \"/a\": it is the sourceId of no JiraProject of this migration";
        for on_miss in [OnMiss::Reject, OnMiss::Hold] {
            let unmapped = Unmapped {
                held: false,
                namespace: "com.example:user".to_owned(),
                reason: reason.to_owned(),
                cause: reason.replace("\"9\", the id at \"/a\"", "an id"),
            };
            assert_eq!(of(r#"{"a":9}"#, on_miss), Err(unmapped));
        }
        assert_eq!(*known.asked.lock().unwrap(), ["u/1", "u/1"]);
    }

    #[test]
    fn an_id_of_this_migration_that_has_no_mapping_misses_like_any_other() {
        let known = Known::default().with_projects(&["1"]);
        let declared = [of_projects(mapping("/a", OnMiss::Hold))];
        let unmapped = rewritten(r#"{"a":1}"#, &declared, &known).unwrap_err();
        assert!(unmapped.held);
        assert_eq!(
            unmapped.reason,
            "com.example:user has no mapping for \"1\", the id at \"/a\""
        );
    }

    #[test]
    fn where_the_platform_lists_no_container_every_id_misses_and_the_reason_says_so() {
        let known = Known::of(&[("u/1", "10")]).with_projects(&["1"]);
        let declared = [Mapping {
            within: Some(ContainerType::ConfluenceSpace),
            ..mapping("/a", OnMiss::Hold)
        }];
        for record in [r#"{"a":1}"#, r#"{"a":""}"#] {
            let unmapped = rewritten(record, &declared, &known).unwrap_err();
            assert_eq!(
                (unmapped.held, &*unmapped.cause),
                (
                    false,
                    "com.example:user is not asked for an id: the platform lists no ConfluenceSpace with a sourceId for this migration"
                )
            );
        }
        assert!(known.asked.lock().unwrap().is_empty());
    }

    #[test]
    fn of_two_mappings_of_a_namespace_only_the_one_that_is_limited_is() {
        let known = Known::of(&[("u/1", "10"), ("u/9", "90")]).with_projects(&["1"]);
        let declared = [
            mapping("/free", OnMiss::Reject),
            of_projects(mapping("/a", OnMiss::Keep)),
        ];
        assert_eq!(
            rewritten(r#"{"free":9,"a":9}"#, &declared, &known).unwrap(),
            r#"{"free":90,"a":9}"#,
            "and what the cache knows by the one is no answer for the other"
        );
    }

    #[test]
    fn ids_inside_a_text_are_compared_one_by_one_and_as_they_stand_there() {
        let known = Known::of(&[("u/1", "10"), ("u/01", "x"), ("u/9", "90")]).with_projects(&["1"]);
        let declared = [of_projects(within("/text", "p([0-9]+)", OnMiss::Keep))];
        assert_eq!(
            rewritten(r#"{"text":"p1 p9 p01 p1"}"#, &declared, &known).unwrap(),
            r#"{"text":"p10 p9 p01 p10"}"#
        );
    }

    #[test]
    fn everything_but_the_ids_stays_as_it_was_written() {
        let text = r#"{ "z":1.10,"id":5,  "a":1e+400,"b":-0.0,"\u0061":"\/\ud83d", "id":5,"big":123456789012345678901234567890}"#;
        let known = Known::of(&[("u/5", "6")]);
        assert_eq!(
            rewritten(text, &[mapping("/id", OnMiss::Reject)], &known).unwrap(),
            text.replace(":5,", ":6,")
        );
    }

    #[test]
    fn a_wildcard_replaces_the_ids_of_all_elements() {
        let known = Known::of(&[("u/1", "10"), ("u/b", "20")]);
        let declared = [
            mapping("/people/*/id", OnMiss::Keep),
            mapping("/watchers/*", OnMiss::Keep),
        ];
        assert_eq!(
            rewritten(
                r#"{"people":[{"id":1},{"id":"b"},{"id":"c"},{}],"watchers":["b",1]}"#,
                &declared,
                &known
            )
            .unwrap(),
            r#"{"people":[{"id":10},{"id":"20"},{"id":"c"},{}],"watchers":["20",10]}"#
        );
    }

    #[test]
    fn where_two_pointers_lead_to_one_place_the_first_counts() {
        let known = Known::of(&[("u/1", "10")]);
        let (any, first) = (
            mapping("/a/*", OnMiss::Keep),
            mapping("/a/0", OnMiss::Reject),
        );
        let record = r#"{"a":[2,1]}"#;
        let both = |declared: &[Mapping]| rewritten(record, declared, &known);
        assert_eq!(
            both(&[any.clone(), first.clone()]).unwrap(),
            r#"{"a":[2,10]}"#
        );
        assert!(both(&[first, any]).is_err());
    }

    #[test]
    fn ids_inside_a_text_are_found_by_their_pattern() {
        let known = Known::of(&[("u/7", "seven"), ("u/é", "\"")]);
        let declared = [within("/text", r"\[~user:([^\]]*)\]", OnMiss::Keep)];
        assert_eq!(
            rewritten(
                r#"{"text": "\u00fcber [~user:7], [~user:8]\n[~user:\u00e9][~user:7]!"}"#,
                &declared,
                &known
            )
            .unwrap(),
            r#"{"text": "über [~user:seven], [~user:8]\n[~user:\"][~user:seven]!"}"#
        );
        let untouched = r#"{"text": "\u00fcber [~user:8]"}"#;
        assert_eq!(rewritten(untouched, &declared, &known).unwrap(), untouched);
        let rejecting = [within("/text", r"\[~user:([^\]]*)\]", OnMiss::Reject)];
        assert!(rewritten(untouched, &rejecting, &known).is_err());
        assert!(rewritten(r#"{"text": 7}"#, &declared, &known).is_err());
    }

    #[test]
    fn a_record_with_ids_without_measure_is_rejected() {
        let of = |count: usize| {
            let record = format!("[{}7]", "7,".repeat(count - 1));
            rewritten(&record, &[mapping("/*", OnMiss::Keep)], &Known::default())
        };
        assert!(of(IDS_MAX).is_ok());
        assert_eq!(
            of(IDS_MAX + 1).unwrap_err().reason,
            "the record has more than 1000 ids"
        );
    }

    #[test]
    fn nesting_is_counted_outside_of_strings_only() {
        let of = |record: &str| rewritten(record, &[], &Known::default());
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(of(&nested(NESTING_MAX)).is_ok());
        assert_eq!(
            of(&nested(NESTING_MAX + 1)).unwrap_err().reason,
            "the record is nested deeper than 127"
        );
        let flat = format!("[{}{{}}]", "{},".repeat(NESTING_MAX + 1));
        assert!(of(&flat).is_ok());
        let text = format!(r#"["\"{}"]"#, "[".repeat(NESTING_MAX + 1));
        assert!(of(&text).is_ok());
    }

    #[test]
    fn a_pattern_has_exactly_one_group() {
        assert!(pattern("a(b)(?:c)").is_ok());
        for wrong in ["ab", "(a)(b)", "(", r"(a)\1"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_a_repeated_natural_key_the_last_counts() {
        let import = import(&[]);
        let rewriter = Rewriter::new(&import).unwrap();
        let record = br#"{"key":1,"key":2}"#;
        let read = rewriter.read(record, &mut Vec::new(), &mut Vec::new());
        assert_eq!(read.unwrap().natural_key, Some("2"));
    }

    proptest! {
        /// Whatever stands around an id: it is replaced, and the rest says the same.
        #[test]
        fn a_rewritten_record_is_json_with_the_new_id(before in ".{0,8}", id in ".{1,8}", cloud_id in ".{0,8}") {
            let record = serde_json::json!({ "x": before, "a": [id, before], "y": before });
            let known = Known::of(&[(&format!("u/{id}"), &cloud_id)]);
            let written = rewritten(&record.to_string(), &[mapping("/a/0", OnMiss::Reject)], &known).unwrap();
            let expected = serde_json::json!({ "x": before, "a": [cloud_id, before], "y": before });
            prop_assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), expected);
        }
    }
}
