use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_tracking::{Error, Messages, Received};

use crate::weather::{Call, Calm, Fate, Weather};

/// Largest message, in bytes (AWS SQS limits).
const BODY_MAX: usize = 1_024 * 1_024;

/// Most messages of one receive (AWS SQS limits).
const RECEIVE_MAX: usize = 10;

/// Longest delay (AWS SQS limits).
const DELAY_MAX: Duration = Duration::from_mins(15);

/// Longest visibility timeout (AWS SQS limits).
const HIDDEN_MAX: Duration = Duration::from_hours(12);

/// Longest message group (AWS SQS limits).
const GROUP_MAX: usize = 128;

/// One queue in memory, with the queue that its dead letters go to. Clones share their messages.
#[derive(Clone)]
pub struct QueueModel {
    name: &'static str,
    inner: Arc<Mutex<Inner>>,
    dead_letters: Option<(Box<Self>, u32)>,
    weather: Arc<dyn Weather>,
    clock: Clock,
}

impl fmt::Debug for QueueModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QueueModel")
            .field("name", &self.name)
            .field("messages", &self.lock().messages.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    messages: Vec<Message>,
    sent: u64,
    received: u64,
    sends: Sent,
}

/// What was sent by calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Calls that sent a message.
    pub calls: u64,
    /// What they are billed as: each 64 KB is a request (AWS SQS pricing).
    pub requests: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
}

impl Sent {
    /// What was sent since an earlier reading.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            requests: self.requests - earlier.requests,
            bytes: self.bytes - earlier.bytes,
        }
    }

    const fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.requests += bytes.div_ceil(REQUEST_BYTES) as u64;
        self.bytes += bytes as u64;
    }
}

/// Bytes of a message that are billed as one request (AWS SQS pricing).
const REQUEST_BYTES: usize = 64 * 1_024;

#[derive(Clone, Debug)]
struct Message {
    id: String,
    body: String,
    group: String,
    sent_at: i64,
    visible_at: i64,
    receives: u32,
    /// The newest receipt, which is the one that deletes.
    receipt: Option<String>,
}

/// A message as the event source hands it to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The queue's id for it.
    pub id: String,
    /// The right to delete it.
    pub receipt: String,
    /// What was sent.
    pub body: String,
    /// The fair queue's group.
    pub group: String,
    /// How often it has been handed out, this time included.
    pub receives: u32,
}

impl QueueModel {
    /// An empty queue in calm weather, without dead letters.
    pub fn new(name: &'static str, clock: Clock) -> Self {
        Self {
            name,
            inner: Arc::default(),
            dead_letters: None,
            weather: Arc::new(Calm),
            clock,
        }
    }

    /// What is received `max_receives` times and not deleted goes to that queue with the next receive.
    #[must_use]
    pub fn with_dead_letters(mut self, queue: Self, max_receives: u32) -> Self {
        self.dead_letters = Some((Box::new(queue), max_receives));
        self
    }

    /// The same messages under other weather, as another process sees them.
    #[must_use]
    pub fn seen_by(&self, weather: Arc<dyn Weather>) -> Self {
        Self {
            weather,
            ..self.clone()
        }
    }

    /// Messages that the queue holds, hidden ones included.
    pub fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the next message can be received, in milliseconds.
    pub fn next_visible(&self) -> Option<i64> {
        let inner = self.lock();
        inner
            .messages
            .iter()
            .map(|message| message.visible_at)
            .min()
    }

    /// When the oldest message was sent, in milliseconds.
    pub fn oldest(&self) -> Option<i64> {
        let inner = self.lock();
        inner.messages.iter().map(|message| message.sent_at).min()
    }

    /// The bodies of all messages, in the order in which they were sent.
    pub fn bodies(&self) -> Vec<String> {
        let inner = self.lock();
        inner
            .messages
            .iter()
            .map(|message| message.body.clone())
            .collect()
    }

    /// Rewrites bodies where they lie, as if another release had sent them.
    pub fn rewrite(&self, with: impl Fn(&str) -> Option<String>) {
        for message in &mut self.lock().messages {
            if let Some(body) = with(&message.body) {
                message.body = body;
            }
        }
    }

    /// What was sent by calls so far.
    pub fn sent(&self) -> Sent {
        self.lock().sends
    }

    /// Puts a body in without a call, to be seen at once.
    pub fn put(&self, body: impl Into<String>) {
        self.add(body.into(), String::new(), Duration::ZERO);
    }

    /// Hands out up to `most` visible messages without a call: the event source of a function. Whatever is received too often
    /// goes to the dead letters instead. A message is in a batch once; the weather may leave it to be in the next one, too.
    pub fn deliver(&self, most: usize, visibility: Duration) -> Vec<Delivery> {
        let now = self.clock.now().as_millis();
        let hidden_until = now.saturating_add(millis(visibility));
        let mut inner = self.lock();
        let mut delivered: Vec<Delivery> = Vec::new();
        while delivered.len() < most {
            let visible: Vec<usize> = inner
                .messages
                .iter()
                .enumerate()
                .filter(|(_, message)| {
                    message.visible_at <= now
                        && delivered.iter().all(|other| other.id != message.id)
                })
                .map(|(place, _)| place)
                .collect();
            if visible.is_empty() {
                break;
            }
            let place = visible[self.weather.choose(visible.len()) % visible.len()];
            if let Some((dead, max)) = &self.dead_letters
                && inner.messages[place].receives >= *max
            {
                let message = inner.messages.remove(place);
                dead.bury(message, now);
                continue;
            }
            inner.received += 1;
            let receipt = format!("receipt-{}", inner.received);
            let message = &mut inner.messages[place];
            message.receives += 1;
            if !self.weather.twice() {
                message.visible_at = hidden_until;
            }
            message.receipt = Some(receipt.clone());
            delivered.push(Delivery {
                id: message.id.clone(),
                receipt,
                body: message.body.clone(),
                group: message.group.clone(),
                receives: message.receives,
            });
        }
        delivered
    }

    /// Deletes a message without a call, whatever receipt it was last handed out with: the event source of a function.
    pub fn acknowledge(&self, id: &str) {
        self.lock().messages.retain(|message| message.id != id);
    }

    fn bury(&self, mut message: Message, now: i64) {
        message.receives = 0;
        message.receipt = None;
        message.visible_at = now;
        self.lock().messages.push(message);
    }

    fn add(&self, body: String, group: String, delay: Duration) {
        let now = self.clock.now().as_millis();
        let mut inner = self.lock();
        inner.sent += 1;
        let id = format!("{}-{}", self.name, inner.sent);
        inner.messages.push(Message {
            id,
            body,
            group,
            sent_at: now,
            visible_at: now.saturating_add(millis(delay)),
            receives: 0,
            receipt: None,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass<T: Send>(
        &self,
        operation: &'static str,
        writes: bool,
        mut effect: impl FnMut() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let call = Call {
            operation,
            subject: self.name.to_owned(),
            writes,
            transaction: false,
        };
        let outcome = match self.weather.before(&call).await {
            Fate::Works | Fate::Contended => effect(),
            Fate::Throttled => Err(Error::Unavailable("ThrottlingException".to_owned())),
            Fate::LostBefore => Err(Error::Unknown),
            Fate::LostAfter => {
                drop(effect());
                Err(Error::Unknown)
            }
            Fate::Repeated => {
                drop(effect());
                effect()
            }
        };
        self.weather.after(&call).await;
        outcome
    }
}

impl Messages for QueueModel {
    fn send(
        &self,
        body: String,
        group: String,
        delay: Duration,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let effect = move || {
            let fits = (1..=BODY_MAX).contains(&body.len()) && body.chars().all(may_be_sent);
            if !fits || !is_group(&group) || delay > DELAY_MAX {
                return Err(Error::Refused("InvalidParameterValue".to_owned()));
            }
            self.lock().sends.add(body.len());
            self.add(body.clone(), group.clone(), whole_seconds(delay));
            Ok(())
        };
        self.pass("send", true, effect).boxed()
    }

    fn receive(&self, hidden_for: Duration) -> BoxFuture<'_, Result<Vec<Received>, Error>> {
        let effect = move || {
            let hidden_for = whole_seconds(hidden_for).max(Duration::from_secs(1));
            if hidden_for > HIDDEN_MAX {
                return Err(Error::Refused("InvalidParameterValue".to_owned()));
            }
            Ok(self
                .deliver(RECEIVE_MAX, hidden_for)
                .into_iter()
                .map(|delivery| Received {
                    id: delivery.id,
                    receipt: delivery.receipt,
                    body: delivery.body,
                })
                .collect())
        };
        self.pass("receive", true, effect).boxed()
    }

    fn delete<'a>(&'a self, receipt: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let effect = move || {
            // An older receipt deletes nothing, and nobody is told.
            self.lock()
                .messages
                .retain(|message| message.receipt.as_deref() != Some(receipt));
            Ok(())
        };
        self.pass("delete", true, effect).boxed()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The service counts in whole seconds.
const fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// The characters that a body may have (AWS SQS, `SendMessage`).
const fn may_be_sent(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// A message group has up to 128 letters, digits and punctuation marks (AWS SQS limits).
fn is_group(group: &str) -> bool {
    (1..=GROUP_MAX).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_graphic())
}
