//! A target outside the tables: a sink that somebody has compiled in, in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use landfall_import::ports::{Delivery, Sink, SinkError, SinkOutcome};
use landfall_models::{Call, Fate, Weather};

/// Where a record lies in the target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose it is.
    pub tenant: String,
    /// The chain that it came with.
    pub chain: String,
    /// The label of its file.
    pub label: String,
    /// Its key.
    pub key: String,
}

/// A target in memory, which keeps the last content of each record. Clones share it.
#[derive(Clone)]
pub struct TargetModel {
    taken: Arc<Mutex<Taken>>,
    weather: Arc<dyn Weather>,
}

impl fmt::Debug for TargetModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TargetModel")
            .field("records", &self.lock().records.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Taken {
    records: BTreeMap<Place, Bytes>,
    deliveries: Vec<String>,
}

impl TargetModel {
    /// An empty target.
    pub fn new(weather: Arc<dyn Weather>) -> Self {
        Self {
            taken: Arc::default(),
            weather,
        }
    }

    /// The same records under other weather, as another machine reaches them.
    #[must_use]
    pub fn seen_by(&self, weather: Arc<dyn Weather>) -> Self {
        Self {
            weather,
            ..self.clone()
        }
    }

    /// Every record, as it was written last.
    pub fn records(&self) -> BTreeMap<Place, Bytes> {
        self.lock().records.clone()
    }

    /// The transfer of each delivery that took effect, in their order.
    pub fn deliveries(&self) -> Vec<String> {
        self.lock().deliveries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, delivery: &Delivery<'_>) -> Vec<SinkOutcome> {
        let file = &delivery.file;
        let mut taken = self.lock();
        taken.deliveries.push(file.transfer.to_owned());
        let records = delivery.records.iter();
        records
            .map(|landed| {
                let place = Place {
                    tenant: file.tenant.to_owned(),
                    chain: file.chain.to_owned(),
                    label: file.label.to_owned(),
                    key: landed.key.to_string(),
                };
                let before = taken.records.insert(place, landed.record.clone());
                if before.is_some_and(|before| before == landed.record) {
                    SinkOutcome::Unchanged
                } else {
                    SinkOutcome::Applied
                }
            })
            .collect()
    }
}

impl Sink for TargetModel {
    fn hears_the_end(&self) -> bool {
        false
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let call = Call {
            operation: "deliver",
            subject: format!(
                "{} {} {}",
                delivery.file.transfer, delivery.file.label, delivery.position
            ),
            writes: true,
            transaction: false,
        };
        let failed = |reason: &str| {
            Err(SinkError::Unavailable {
                reason: reason.to_owned(),
                retry_after: None,
            })
        };
        let outcome = match self.weather.before(&call).await {
            Fate::Works | Fate::Contended => Ok(self.take(delivery)),
            Fate::Throttled => failed("it answered 429"),
            Fate::LostBefore => failed("no answer"),
            Fate::LostAfter => {
                self.take(delivery);
                failed("no answer")
            }
            Fate::Repeated => {
                self.take(delivery);
                Ok(self.take(delivery))
            }
        };
        self.weather.after(&call).await;
        outcome
    }
}
