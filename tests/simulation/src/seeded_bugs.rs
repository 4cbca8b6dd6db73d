//! Which layer of the tests notices which mistake: each bug of [`landfall_transfer::seeded_bugs`] is planted, and each layer is
//! asked for the first broken promise that it sees. What came of it is `docs/seeded-bugs.md`.

mod document;
mod layers;

pub use document::{Document, Row};
pub use layers::{Caught, Layer, contract, crashes, search, seeds};

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use landfall_transfer::seeded_bugs::{SeededBug, plant};

use crate::scene::Bench;

/// What each layer came to for each bug; without a bug it must come to nothing.
pub type Table = BTreeMap<(Option<SeededBug>, &'static str), Option<Caught>>;

/// A layer to be asked about a bug, with what the document says that it saw.
#[derive(Clone, Debug)]
pub struct Question {
    /// The bug; none to see that the layer then sees nothing.
    pub bug: Option<SeededBug>,
    /// The layer.
    pub layer: Layer,
    /// Where to look first.
    pub guess: Option<String>,
    /// Whether to look nowhere else.
    pub only_there: bool,
}

/// Asks them all, on so many threads. `report` is told each answer as it comes.
pub fn ask(
    questions: &[Question],
    threads: usize,
    report: &(impl Fn(&Question, Option<&Caught>) + Sync),
) -> Table {
    let next = AtomicUsize::new(0);
    let table = Mutex::new(Table::new());
    let work = || {
        let mut bench = Bench::default();
        while let Some(question) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
            let caught = answer(question, &mut bench);
            report(question, caught.as_ref());
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.insert((question.bug, question.layer.name), caught);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    table.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn answer(question: &Question, bench: &mut Bench) -> Option<Caught> {
    let _planted = plant(question.bug);
    let look = question.layer.look;
    let guess = question.guess.as_deref();
    if let Some(guess) = guess
        && let Some(caught) = carefully(guess, || look(bench, Some(guess)))
    {
        return Some(caught);
    }
    if question.only_there {
        return None;
    }
    carefully("a panic", || look(bench, None))
}

/// A mistake may well end in a panic, which is a way of being noticed.
fn carefully(at: &str, look: impl FnOnce() -> Option<Caught>) -> Option<Caught> {
    catch_unwind(AssertUnwindSafe(look))
        .unwrap_or_else(|panic| Some(Caught::new(at, said(&*panic))))
}

/// What a panic said, in one line.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
