//! Where in a record the declared pointers lead, found in one pass over its text: nothing is built of what no pointer leads to.

use std::collections::{BTreeSet, HashMap};

use crate::json::{NotARecord, Scan, text};

/// Stands for every member of an object and every element of an array, in place of a name or an index.
pub(crate) const WILDCARD: &str = "*";

/// The most states that pointers may compile to; wildcards beside names multiply them.
const STATES_MAX: usize = 4096;

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

    /// Appends what the pointers lead to, in the record's order. An error says why the record can't be one.
    pub(crate) fn find<'record>(
        &self,
        record: &'record str,
        found: &mut Vec<Found<'record>>,
    ) -> Result<(), NotARecord> {
        let mut walk = Walk {
            states: &self.states,
            scan: Scan::new(record),
            found,
        };
        walk.value(Some(0))?;
        walk.scan.end()
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

    /// Where a member leads whose name is this JSON string.
    fn named(&self, json: &str) -> Option<usize> {
        if self.steps.is_empty() {
            return self.others;
        }
        // A name that UTF-8 can't write is none that a pointer has.
        let name = text(json);
        let step = self
            .steps
            .iter()
            .find(|step| Some(&*step.name) == name.as_deref());
        step.map(|step| step.to).or(self.others)
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

/// Follows the pointers through one record.
struct Walk<'walk, 'record> {
    states: &'walk [State],
    scan: Scan<'record>,
    found: &'walk mut Vec<Found<'record>>,
}

impl Walk<'_, '_> {
    /// Walks through one value, from its first byte to behind its last.
    fn value(&mut self, state: Option<usize>) -> Result<(), NotARecord> {
        let state = state.map(|state| &self.states[state]);
        let (start, place) = (self.scan.at, self.found.len());
        let ends = state.map_or(&[][..], |state| &state.ends);
        for &pointer in ends {
            self.found.push(Found { pointer, text: "" });
        }
        match self.scan.peek() {
            Some(b'{') => self.members(state)?,
            Some(b'[') => self.elements(state)?,
            _ => self.scan.scalar()?,
        }
        for found in &mut self.found[place..place + ends.len()] {
            found.text = &self.scan.text[start..self.scan.at];
        }
        Ok(())
    }

    fn members(&mut self, state: Option<&State>) -> Result<(), NotARecord> {
        self.scan.enter()?;
        if self.scan.leave(b'}') {
            return Ok(());
        }
        loop {
            let start = self.scan.at;
            self.scan.string()?;
            let name = &self.scan.text[start..self.scan.at];
            self.scan.expect(b':')?;
            self.value(state.and_then(|state| state.named(name)))?;
            if self.scan.leave(b'}') {
                return Ok(());
            }
            self.scan.expect(b',')?;
        }
    }

    fn elements(&mut self, state: Option<&State>) -> Result<(), NotARecord> {
        self.scan.enter()?;
        if self.scan.leave(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.value(state.and_then(|state| state.element(index)))?;
            if self.scan.leave(b']') {
                break;
            }
            self.scan.expect(b',')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::NESTING_MAX;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
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
    fn a_value_far_down_is_found_and_one_further_down_is_refused() {
        let record = |depth| format!("{}7{}", "[".repeat(depth), "]".repeat(depth));
        let pointer = "/0".repeat(NESTING_MAX);
        assert_eq!(texts(&pointer, &record(NESTING_MAX)), ["7"]);
        let pointers = Pointers::new([&*pointer]).unwrap();
        let refused = pointers.find(&record(100_000), &mut Vec::new());
        assert_eq!(refused, Err(NotARecord::TooDeep));
    }

    #[test]
    fn a_name_that_no_text_can_be_is_no_pointers() {
        let record = r#"{"\ud800": 1, "": 2}"#;
        assert_eq!(texts("/*", record), ["1", "2"]);
        assert_eq!(texts("/x", record), [""; 0]);
        assert_eq!(texts("/", record), ["2"]);
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
