//! Weather as a test makes it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_models::{Call, Fate, Weather};

/// The same fate for every call that can meet it, and everything else to order.
#[derive(Debug, Default)]
pub(crate) struct Made {
    fate: Fate,
    lag: Mutex<Duration>,
    last: bool,
    twice: bool,
    /// The calls, before and after their effects.
    pub(crate) seen: Mutex<Vec<(&'static str, Call)>>,
}

impl Made {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn always(self, fate: Fate) -> Arc<Self> {
        Arc::new(Self { fate, ..self })
    }

    pub(crate) fn choosing_the_last(self) -> Arc<Self> {
        Arc::new(Self { last: true, ..self })
    }

    pub(crate) fn handing_out_twice(self) -> Arc<Self> {
        Arc::new(Self {
            twice: true,
            ..self
        })
    }

    pub(crate) fn lags(&self, lag: Duration) {
        *self.lag.lock().unwrap() = lag;
    }
}

impl Weather for Made {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        self.seen.lock().unwrap().push(("before", call.clone()));
        let fate = if self.fate.can_meet(call) {
            self.fate
        } else {
            Fate::Works
        };
        Box::pin(std::future::ready(fate))
    }

    fn after<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        self.seen.lock().unwrap().push(("after", call.clone()));
        Box::pin(std::future::ready(()))
    }

    fn index_lag(&self) -> Duration {
        *self.lag.lock().unwrap()
    }

    fn choose(&self, of: usize) -> usize {
        if self.last { of - 1 } else { 0 }
    }

    fn twice(&self) -> bool {
        self.twice
    }
}
