//! A processor with a sink of its own compiled in. The map stands for your database; `docs/importers.md` says what a sink promises.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use landfall_import::ports::{Delivery, Landed, Sink, SinkError, SinkOutcome};

/// Where pages are stored, by label and key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages(pub(crate) Arc<Mutex<BTreeMap<(String, String), String>>>);

impl Sink for Pages {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut put = |page: &Landed| {
            let text = String::from_utf8_lossy(&page.record);
            if text.contains("\"draft\":true") {
                let reason = "drafts stay on the server".to_owned();
                return SinkOutcome::Rejected { reason };
            }
            let place = (delivery.file.label.to_owned(), page.key.to_string());
            match stored.insert(place, text.to_string()) {
                Some(before) if before == text => SinkOutcome::Unchanged,
                _ => SinkOutcome::Applied,
            }
        };
        Ok(delivery.records.iter().map(&mut put).collect())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    landfall_processor::run(Some(Pages::default())).await
}
