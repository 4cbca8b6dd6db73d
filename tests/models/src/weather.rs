use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

/// A call to a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The operation: `get`, `write`, `send` …
    pub operation: &'static str,
    /// What it is about: a row's sort key, a queue's name. For traces.
    pub subject: String,
    /// Whether it changes anything.
    pub writes: bool,
    /// Whether it is a transaction, which its client never repeats as another one.
    pub transaction: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It takes effect and is answered.
    #[default]
    Works,
    /// The service has no capacity: nothing happened, and the caller knows it.
    Throttled,
    /// Another transaction holds the row: nothing happened, and the caller knows it.
    Contended,
    /// It never arrived, and the caller doesn't know.
    LostBefore,
    /// It took effect, the answer was lost, and the caller doesn't know.
    LostAfter,
    /// The answer was lost and the client repeated the call: the caller sees the answer to the repeat.
    Repeated,
}

impl Fate {
    /// Every fate that a call can have.
    pub const ALL: [Self; 6] = [
        Self::Works,
        Self::Throttled,
        Self::Contended,
        Self::LostBefore,
        Self::LostAfter,
        Self::Repeated,
    ];

    /// Whether a call of this kind can meet it. A write on its own can meet a transaction just as another transaction can.
    pub fn can_meet(self, call: &Call) -> bool {
        match self {
            Self::Works | Self::Throttled | Self::LostBefore => true,
            Self::Contended => call.transaction || call.operation == "write",
            Self::LostAfter | Self::Repeated => call.writes,
        }
    }
}

/// Decides what happens around a call's effect. Each call of a model passes here twice: before and after its effect.
pub trait Weather: fmt::Debug + Send + Sync {
    /// Before the effect.
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate>;

    /// After it, before the caller learns of it.
    fn after<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()>;

    /// How far the sparse index is behind for a write that is made now.
    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// A number below `of`: which message is handed out next.
    fn choose(&self, of: usize) -> usize {
        let _ = of;
        0
    }

    /// Whether a message that is handed out is handed out a second time at once.
    fn twice(&self) -> bool {
        false
    }
}

/// Everything works at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Weather for Calm {
    fn before<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Fate> {
        Box::pin(std::future::ready(Fate::Works))
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
