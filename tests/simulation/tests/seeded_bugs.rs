//! Every bug of `landfall_transfer::seeded_bugs` is noticed, by the layers that `docs/seeded-bugs.md` names.
//!
//! With the argument `measure` every layer is asked about every bug, and the document is written anew.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it is its own harness, and reads and writes its document"
)]

#[path = "interleavings.rs"]
#[allow(dead_code, reason = "its own tests are run elsewhere")]
mod interleavings;

use std::process::ExitCode;

use landfall_clock::Clock;
use landfall_simulation::harness;
use landfall_simulation::seeded_bugs::{
    Caught, Document, Layer, Question, Row, ask, contract, crashes, search, seeds,
};
use landfall_transfer::seeded_bugs::SeededBug;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/seeded-bugs.md");

/// What measures: `core` is measured where it is, by `cargo test -p landfall-transfer --features seeded-bugs`.
const CORE: &str = "core";

fn layers() -> [Layer; 5] {
    let interleavings = Layer {
        name: "interleavings",
        look: |bench, guess| interleavings::first_broken(bench, guess),
    };
    [contract(), crashes(), search(), interleavings, seeds()]
}

fn main() -> ExitCode {
    // Panics are how some layers notice; each is told in one line.
    std::panic::set_hook(Box::new(|_| {}));
    if std::env::args().any(|word| word == "measure") {
        return measure();
    }
    harness::run(&[
        ("every_bug_is_noticed_by_some_layer", |report| {
            let document = document();
            let missed: Vec<_> = SeededBug::ALL
                .iter()
                .filter(|bug| document.rows.get(bug.name()).is_none_or(Row::is_empty))
                .collect();
            report(&format!(
                "{} bugs; noticed by no layer: {missed:?}",
                SeededBug::ALL.len()
            ));
            missed.is_empty() && document.rows.len() == SeededBug::ALL.len()
        }),
        (
            "the_layers_that_the_document_names_notice_the_bug",
            |report| {
                let questions = questions(Some);
                let missed = unanswered(&questions);
                for question in &missed {
                    report(&format!("not noticed: {question}"));
                }
                report(&format!(
                    "{} of {} noticed",
                    questions.len() - missed.len(),
                    questions.len()
                ));
                missed.is_empty()
            },
        ),
        ("without_a_bug_nobody_complains_there", |report| {
            let mut questions = questions(|_| None);
            let place = |question: &Question| (question.layer.name, question.guess.clone());
            questions.sort_by_key(place);
            questions.dedup_by_key(|question| place(question));
            let quiet = unanswered(&questions);
            report(&format!("{} of {} quiet", quiet.len(), questions.len()));
            quiet.len() == questions.len()
        }),
        ("the_documents_table_is_what_it_says_in_words", |_| {
            document().print() == text()
        }),
    ])
}

fn text() -> String {
    std::fs::read_to_string(DOCUMENT).unwrap_or_else(|error| panic!("read {DOCUMENT}: {error}"))
}

fn document() -> Document {
    Document::read(&text())
}

/// Every place where the document says that a layer notices a bug.
fn questions(planted: impl Fn(SeededBug) -> Option<SeededBug>) -> Vec<Question> {
    let document = document();
    let mut questions = Vec::new();
    for bug in SeededBug::ALL {
        for layer in layers() {
            let row = document.rows.get(bug.name());
            if let Some(caught) = row.and_then(|row| row.get(layer.name)) {
                questions.push(Question {
                    bug: planted(*bug),
                    layer,
                    guess: Some(caught.at.clone()),
                    // What moved is looked for elsewhere, which takes longer.
                    only_there: planted(*bug).is_none(),
                });
            }
        }
    }
    questions
}

/// Those of them to which nothing was noticed.
fn unanswered(questions: &[Question]) -> Vec<String> {
    let missed = std::sync::Mutex::new(Vec::new());
    ask(
        questions,
        2,
        &|question: &Question, caught: Option<&Caught>| {
            if caught.is_none() {
                let words = format!(
                    "{:?} by {} at {:?}",
                    question.bug, question.layer.name, question.guess
                );
                missed
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(words);
            }
        },
    );
    missed
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Asks every layer about every bug, and about none, and writes the document.
fn measure() -> ExitCode {
    let only: Vec<String> = std::env::args()
        .skip_while(|word| word != "measure")
        .skip(1)
        .collect();
    let clock = Clock::system();
    let mut document = document();
    let chosen = |bug: Option<SeededBug>, layer: Layer| {
        let bug = bug.map_or("none", SeededBug::name);
        only.is_empty()
            || only.iter().any(|word| {
                word == bug || word == layer.name || *word == format!("{bug}/{}", layer.name)
            })
    };
    let mut questions = Vec::new();
    for layer in layers() {
        let bugs = SeededBug::ALL.iter().copied().map(Some).chain([None]);
        for bug in bugs.filter(|bug| chosen(*bug, layer)) {
            let row = bug.and_then(|bug| document.rows.get(bug.name()));
            let guess = row.and_then(|row| row.get(layer.name));
            questions.push(Question {
                bug,
                layer,
                guess: guess.map(|caught| caught.at.clone()),
                only_there: false,
            });
        }
    }
    let table = ask(
        &questions,
        2,
        &|question: &Question, caught: Option<&Caught>| {
            println!(
                "{:7.1} s  {} {}: {caught:?}",
                clock.monotonic().as_secs_f64(),
                question.bug.map_or("nothing planted", SeededBug::name),
                question.layer.name,
            );
        },
    );
    let mut right = true;
    for ((bug, layer), caught) in table {
        match (bug, caught) {
            (Some(bug), caught) => {
                let row = document.rows.entry(bug.name().to_owned()).or_default();
                row.remove(layer);
                row.extend(caught.map(|caught| (layer.to_owned(), caught)));
            }
            (None, caught) => right &= caught.is_none(),
        }
    }
    document
        .rows
        .retain(|name, _| SeededBug::ALL.iter().any(|bug| bug.name() == name));
    for bug in SeededBug::ALL {
        let row = document.rows.entry(bug.name().to_owned()).or_default();
        if row.is_empty() {
            println!("{} is noticed by no layer, unless by {CORE}", bug.name());
        }
    }
    std::fs::write(DOCUMENT, document.print())
        .unwrap_or_else(|error| panic!("write {DOCUMENT}: {error}"));
    println!("measured in {:.0} s", clock.monotonic().as_secs_f64());
    ExitCode::from(u8::from(!right))
}
