//! One intake for many runs: making one sets up TLS, which takes longer than a whole run.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_clock::{Clock, Time};
use landfall_intake::{Answer, Intake, Request};
use landfall_models::{Calm, Weather};
use landfall_tracking::{
    DueEntries, DueEntry, Error, Item, Key, Messages, Page, Received, Returning, Table, Which,
    Write, WriteError,
};
use landfall_transfer::Timestamp;

use crate::cloud::Cloud;
use crate::executor::{MachineTime, VirtualTime};
use crate::scene::TENANT;
use crate::webhook;
use crate::world::START;

/// Longer than anything that intake remembers.
const LONG_AFTER: Duration = Duration::from_hours(1_000);

/// An intake whose table, queues and clock are those of whichever run it serves.
#[derive(Debug)]
pub(crate) struct SharedIntake {
    intake: Arc<Intake>,
    relay: Relay,
    empty: Cloud,
}

#[derive(Clone, Debug)]
struct Relay(Arc<Mutex<Target>>);

#[derive(Clone, Debug)]
struct Target {
    table: Arc<dyn Table>,
    events: Arc<dyn Messages>,
    imports: Arc<dyn Messages>,
    time: MachineTime,
}

impl SharedIntake {
    /// `empty` is a cloud on which nothing ever happens.
    pub(crate) fn new(empty: &Cloud) -> Self {
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let time = VirtualTime::starting_at(START);
        let target = Target::of(empty, &calm, time);
        let relay = Relay(Arc::new(Mutex::new(target)));
        let clock = Clock::of(Arc::new(relay.clone()));
        let queue = |lane| landfall_tracking::Queue::new(Arc::new(Lane(relay.clone(), lane)));
        let clients = landfall_runtime::Clients {
            store: landfall_tracking::Store::new(Arc::new(relay.clone()), clock.clone()),
            events: queue(Which::Tracking),
            imports: queue(Which::Records),
            dead_letters: Vec::new(),
        };
        let intake = Intake::new(&empty.configuration, clients, clock);
        Self {
            intake: Arc::new(intake),
            relay,
            empty: empty.clone(),
        }
    }

    /// From now on it serves this cloud.
    pub(crate) fn serve(&self, cloud: &Cloud, weather: &Arc<dyn Weather>, time: VirtualTime) {
        *self.relay.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Target::of(cloud, weather, time);
    }

    /// As if it were just started: long after whatever it remembers, it finds that there is no such tenant any more.
    pub(crate) fn forget(&self) {
        let calm: Arc<dyn Weather> = Arc::new(Calm);
        let then = START + LONG_AFTER;
        self.serve(&self.empty, &calm, VirtualTime::starting_at(then));
        let nothing = serde_json::json!({});
        let request = webhook::request(TENANT, &nothing, then);
        let answer = self.intake.answer(&request).now_or_never();
        assert_eq!(answer.map(|answer| answer.status), Some(401));
    }

    /// Answers a call.
    pub(crate) fn answer(&self, request: Request) -> impl Future<Output = Answer> + Send + use<> {
        let intake = Arc::clone(&self.intake);
        async move { intake.answer(&request).await }
    }
}

impl Target {
    fn of(cloud: &Cloud, weather: &Arc<dyn Weather>, time: VirtualTime) -> Self {
        Self {
            table: Arc::new(cloud.table.seen_by(Arc::clone(weather))),
            events: Arc::new(cloud.events.seen_by(Arc::clone(weather))),
            imports: Arc::new(cloud.imports.seen_by(Arc::clone(weather))),
            time: MachineTime::new(time),
        }
    }
}

impl Relay {
    fn target(&self) -> Target {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Time for Relay {
    fn now(&self) -> Timestamp {
        self.target().time.now()
    }

    fn monotonic(&self) -> Duration {
        self.target().time.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.target().time.sleep(duration)
    }
}

impl Table for Relay {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        consistent: bool,
    ) -> BoxFuture<'a, Result<Option<Item>, Error>> {
        async move { self.target().table.get(key, consistent).await }.boxed()
    }

    fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> BoxFuture<'_, Result<(Vec<(Key, Item)>, Vec<Key>), Error>> {
        async move { self.target().table.get_many(which, keys, attributes).await }.boxed()
    }

    fn query<'a>(
        &'a self,
        partition: &'a str,
        prefix: &'a str,
        after: Option<Key>,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        async move { self.target().table.query(partition, prefix, after).await }.boxed()
    }

    fn due<'a>(
        &'a self,
        shard: &'a str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> BoxFuture<'a, Result<DueEntries, Error>> {
        async move { self.target().table.due(shard, until, limit, after).await }.boxed()
    }

    fn write(&self, write: Write, returning: Returning) -> BoxFuture<'_, Result<Item, WriteError>> {
        async move { self.target().table.write(write, returning).await }.boxed()
    }

    fn transact(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.target().table.transact(writes).await }.boxed()
    }
}

/// One of the two queues, named by the table that its work ends in.
#[derive(Debug)]
struct Lane(Relay, Which);

impl Lane {
    fn queue(&self) -> Arc<dyn Messages> {
        let target = self.0.target();
        match self.1 {
            Which::Tracking => target.events,
            Which::Records => target.imports,
        }
    }
}

impl Messages for Lane {
    fn send(
        &self,
        body: String,
        group: String,
        delay: Duration,
    ) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.queue().send(body, group, delay).await }.boxed()
    }

    fn receive(&self, hidden_for: Duration) -> BoxFuture<'_, Result<Vec<Received>, Error>> {
        async move { self.queue().receive(hidden_for).await }.boxed()
    }

    fn delete<'a>(&'a self, receipt: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        async move { self.queue().delete(receipt).await }.boxed()
    }
}
