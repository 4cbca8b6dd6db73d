//! Where in a record the declared pointers lead, found in one pass over its text: nothing is built of what no pointer leads to.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Deserialize as _;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// Stands for every member of an object and every element of an array, in place of a name or an index.
pub(crate) const WILDCARD: &str = "*";

/// The most states that pointers may compile to; wildcards beside names multiply them.
const STATES_MAX: usize = 4096;

/// What `serde_json` calls the only member of a number that keeps its digits. It is no member of a record.
const NUMBER: &str = "$serde_json::private::Number";

/// JSON pointers (RFC 6901), ready to be followed all at once.
#[derive(Clone, Debug)]
pub(crate) struct Pointers {
    states: Vec<State>,
}

/// A place in a record, as far as pointers tell it from others.
#[derive(Clone, Debug, Default)]
struct State {
    /// The pointers that end here.
    ends: Vec<usize>,
    /// Where a member of this name, or the element of this index, leads.
    steps: Vec<Step>,
    /// Where every other member or element leads.
    others: Option<usize>,
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    /// The name as an index, where it is one.
    index: Option<usize>,
    to: usize,
}

/// A value that a pointer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'record> {
    /// Which pointer, counted from 0 as they were given.
    pub(crate) pointer: usize,
    /// The value as it stands in the record, quotes included.
    pub(crate) text: &'record str,
}

/// The pointers can't be followed at once: their wildcards multiply to too many cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wildcards beside names: they multiply to more than {STATES_MAX} cases")]
pub(crate) struct TooManyCases;

/// Which pointers lead to a place, and how far each of them has come.
type Places = BTreeSet<(usize, usize)>;

impl Pointers {
    /// Compiles pointers that are known to be well formed.
    pub(crate) fn new<'p>(
        pointers: impl IntoIterator<Item = &'p str>,
    ) -> Result<Self, TooManyCases> {
        let tokens: Vec<Vec<String>> = pointers.into_iter().map(tokens).collect();
        let start: Places = (0..tokens.len()).map(|pointer| (pointer, 0)).collect();
        let mut known = HashMap::from([(start.clone(), 0)]);
        let mut queue = vec![start];
        let mut states = Vec::new();
        while let Some(places) = queue.get(states.len()).cloned() {
            let mut state_of = |next: Places| {
                *known.entry(next.clone()).or_insert_with(|| {
                    queue.push(next);
                    queue.len() - 1
                })
            };
            let state = State::compile(&places, &tokens, &mut state_of);
            states.push(state);
            if queue.len() > STATES_MAX {
                return Err(TooManyCases);
            }
        }
        Ok(Self { states })
    }

    /// Appends what the pointers lead to, in the record's order. An error says why the record is not JSON.
    pub(crate) fn find<'record>(
        &self,
        record: &'record str,
        found: &mut Vec<Found<'record>>,
    ) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(record);
        let walk = Walk {
            pointers: self,
            state: 0,
            found,
        };
        walk.deserialize(&mut deserializer)?;
        deserializer.end()
    }
}

/// The parts of a pointer, unescaped.
fn tokens(pointer: &str) -> Vec<String> {
    let parts = pointer.split('/').skip(1);
    parts
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect()
}

impl State {
    fn compile(
        places: &Places,
        tokens: &[Vec<String>],
        state_of: &mut impl FnMut(Places) -> usize,
    ) -> Self {
        let mut state = Self::default();
        let mut names = BTreeSet::new();
        for &(pointer, position) in places {
            match tokens[pointer].get(position) {
                None => state.ends.push(pointer),
                Some(token) if token == WILDCARD => {}
                Some(name) => {
                    names.insert(name);
                }
            }
        }
        // Where those pointers stand after one step to a member of this name, or of a name that none of them has.
        let after = |name: Option<&String>| -> Places {
            let leads = |pointer: usize, position: usize| {
                let token = tokens[pointer].get(position)?;
                (token == WILDCARD || Some(token) == name).then_some((pointer, position + 1))
            };
            places
                .iter()
                .filter_map(|&(pointer, position)| leads(pointer, position))
                .collect()
        };
        for name in names {
            state.steps.push(Step {
                name: name.clone(),
                index: index(name),
                to: state_of(after(Some(name))),
            });
        }
        let others = after(None);
        if !others.is_empty() {
            state.others = Some(state_of(others));
        }
        state
    }

    const fn is_last(&self) -> bool {
        self.steps.is_empty() && self.others.is_none()
    }

    fn member(&self, name: &str) -> Option<usize> {
        let step = self.steps.iter().find(|step| step.name == name);
        step.map(|step| step.to)
            .or_else(|| self.others.filter(|_| name != NUMBER))
    }

    fn element(&self, index: usize) -> Option<usize> {
        let step = self.steps.iter().find(|step| step.index == Some(index));
        step.map(|step| step.to).or(self.others)
    }
}

/// An array's index as RFC 6901 writes it: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let index: usize = token.parse().ok()?;
    (index.to_string() == token).then_some(index)
}

/// Follows the pointers through one value.
struct Walk<'walk, 'record> {
    pointers: &'walk Pointers,
    state: usize,
    found: &'walk mut Vec<Found<'record>>,
}

impl<'record> Walk<'_, 'record> {
    fn state(&self) -> &State {
        &self.pointers.states[self.state]
    }

    fn at(&mut self, state: usize) -> Walk<'_, 'record> {
        Walk {
            pointers: self.pointers,
            state,
            found: self.found,
        }
    }
}

impl<'record> DeserializeSeed<'record> for Walk<'_, 'record> {
    type Value = ();

    fn deserialize<D: Deserializer<'record>>(self, deserializer: D) -> Result<(), D::Error> {
        let pointers = self.pointers;
        let state = &pointers.states[self.state];
        if state.ends.is_empty() {
            if state.is_last() {
                return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
            }
            return deserializer.deserialize_any(self);
        }
        let value = <&RawValue>::deserialize(deserializer)?.get();
        for &pointer in &state.ends {
            self.found.push(Found {
                pointer,
                text: value,
            });
        }
        if state.is_last() {
            return Ok(());
        }
        let mut within = serde_json::Deserializer::from_str(value);
        within.deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'record> Visitor<'record> for Walk<'_, 'record> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'record>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(next) = map.next_key_seed(Name(self.state()))? {
            match next {
                Some(state) => map.next_value_seed(self.at(state))?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'record>>(mut self, mut elements: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.state().element(index) {
                Some(state) => elements.next_element_seed(self.at(state))?.is_some(),
                None => elements.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name: where it leads, if anywhere.
struct Name<'state>(&'state State);

impl<'record> DeserializeSeed<'record> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'record>>(
        self,
        deserializer: D,
    ) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.member(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn found(pointers: &[&str], record: &str) -> Vec<(usize, String)> {
        let pointers = Pointers::new(pointers.iter().copied()).unwrap();
        let mut found = Vec::new();
        pointers.find(record, &mut found).unwrap();
        found
            .into_iter()
            .map(|found| (found.pointer, found.text.to_owned()))
            .collect()
    }

    fn texts(pointer: &str, record: &str) -> Vec<String> {
        found(&[pointer], record)
            .into_iter()
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn a_pointer_leads_to_the_value_as_it_is_written() {
        let record = r#"{"a": {"b c": [1.10, "x\u0041", null]}, "a/b": true, "m~n": 2, "": 3}"#;
        assert_eq!(texts("/a/b c/0", record), ["1.10"]);
        assert_eq!(texts("/a/b c/1", record), [r#""x\u0041""#]);
        assert_eq!(texts("/a~1b", record), ["true"]);
        assert_eq!(texts("/m~0n", record), ["2"]);
        assert_eq!(texts("/", record), ["3"]);
        assert_eq!(texts("", " [1] "), ["[1]"]);
        assert_eq!(texts("/a/b c/00", record), [""; 0]);
        assert_eq!(texts("/a/x/y", record), [""; 0]);
    }

    #[test]
    fn a_name_is_compared_unescaped() {
        assert_eq!(texts("/aé", r#"{"a\u00e9": 1}"#), ["1"]);
    }

    #[test]
    fn a_wildcard_leads_to_every_member_and_every_element() {
        let record = r#"{"a": [{"id": 1}, {"id": 2}, 3], "b": {"x": {"id": 4}}}"#;
        assert_eq!(texts("/a/*/id", record), ["1", "2"]);
        assert_eq!(texts("/*/*/id", record), ["1", "2", "4"]);
        assert_eq!(
            found(&["/a/*/id", "/a/0/id", "/*/x", "/a/1"], record),
            [
                (0, "1".to_owned()),
                (1, "1".to_owned()),
                (3, r#"{"id": 2}"#.to_owned()),
                (0, "2".to_owned()),
                (2, r#"{"id": 4}"#.to_owned()),
            ]
        );
    }

    #[test]
    fn a_number_has_no_members() {
        assert_eq!(texts("/a/*", r#"{"a": 1.5}"#), [""; 0]);
        assert_eq!(texts("/*", "12"), [""; 0]);
    }

    #[test]
    fn every_occurrence_of_a_repeated_name_is_found() {
        assert_eq!(texts("/a", r#"{"a": 1, "a": 2}"#), ["1", "2"]);
    }

    #[test]
    fn a_value_far_down_is_found_and_one_further_down_is_stepped_over() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(texts("/a", &format!(r#"{{"b": {deep}, "a": 7}}"#)), ["7"]);
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let pointers = Pointers::new(["/a"]).unwrap();
        for record in [
            "",
            "{",
            r#"{"a": 1} x"#,
            r#"{"a": 01}"#,
            r#"{"b": "\x"}"#,
            r#"{"b": tru}"#,
            "{'a': 1}",
        ] {
            assert!(pointers.find(record, &mut Vec::new()).is_err(), "{record}");
        }
    }

    #[test]
    fn pointers_that_multiply_beyond_measure_are_refused() {
        let pointers: Vec<String> = (0..16)
            .map(|one| {
                let parts = (0..16).map(|part| {
                    if part == one {
                        format!("/n{part}")
                    } else {
                        "/*".to_owned()
                    }
                });
                parts.collect()
            })
            .collect();
        assert!(Pointers::new(pointers.iter().map(String::as_str)).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[abc/~*0-2]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Without wildcards a pointer leads where `serde_json` says, whatever the record.
        #[test]
        fn pointers_lead_where_the_standard_says(record in json(), pointers in prop::collection::vec("(/[abc0-2]{0,2}|/~1|/~0){0,4}", 1..6)) {
            let text = record.to_string();
            let mut expected: Vec<(usize, Value)> = Vec::new();
            for (number, pointer) in pointers.iter().enumerate() {
                expected.extend(record.pointer(pointer).map(|value| (number, value.clone())));
            }
            let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
            let mut got: Vec<(usize, Value)> = found(&pointers, &text)
                .into_iter()
                .map(|(number, text)| (number, serde_json::from_str(&text).unwrap()))
                .collect();
            got.sort_by_key(|(number, _)| *number);
            prop_assert_eq!(got, expected);
        }

        /// What is JSON for `serde_json` is JSON here, and nothing else.
        #[test]
        fn a_record_is_json_exactly_when_the_parser_says_so(record in r#"[\{\}\[\]",:0-9a\\u\-\.e tfn]{0,24}"#) {
            let pointers = Pointers::new(["/a", "/*/a"]).unwrap();
            let here = pointers.find(&record, &mut Vec::new()).is_ok();
            prop_assert_eq!(here, serde_json::from_str::<IgnoredAny>(&record).is_ok());
        }
    }
}
