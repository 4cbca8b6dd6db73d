use landfall_lifecycle::Error;
use landfall_transfer::timeline::{Actor, Entry, Health, What, health};
use landfall_transfer::{TenantId, TransferId};
use serde::Serialize;

use crate::Sweeper;

/// How a transfer does and what happened to it, from its timeline alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// One sentence: healthy, slow, waiting for what, stuck why, or who must act until when.
    pub verdict: String,
    /// The same as data.
    pub health: Health,
    /// What happened, from the first sight on.
    pub timeline: Vec<Line>,
    /// How the import of what it has stored does, where it is a staged transfer whose second phase has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_phase: Option<LaterPhase>,
}

/// The newest phase behind a staged transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaterPhase {
    /// The transfer under which it can be asked for.
    pub transfer: TransferId,
    /// One sentence, as of any transfer.
    pub verdict: String,
    /// The same as data.
    pub health: Health,
}

/// One entry of a timeline in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Which function.
    pub by: Actor,
    /// What happened.
    pub what: String,
    /// The event or message that made it happen, by its id.
    pub cause: Option<String>,
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        Self {
            at_ms: entry.at.as_millis(),
            by: entry.by,
            what: entry.what.to_string(),
            cause: entry.cause.clone(),
        }
    }
}

impl Sweeper {
    /// Reads a transfer's timeline and says how it does. Changes nothing. A transfer that was never seen has an empty one.
    pub async fn explain(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Explanation, Error> {
        let (store, now) = (self.lifecycle.store(), self.lifecycle.now());
        let entries = store.timeline(tenant, transfer).await?;
        let clocks = &self.lifecycle.configuration().clocks;
        let begun = |entry: &Entry| matches!(entry.what, What::SecondPhaseBegun { .. });
        let last = if entries.iter().any(begun) {
            self.lifecycle.last_phase(tenant, transfer).await?
        } else {
            None
        };
        let second_phase = match last {
            Some(last) => {
                let transfer = last.transfer.id;
                let health = health(&store.timeline(tenant, &transfer).await?, now, clocks);
                Some(LaterPhase {
                    transfer,
                    verdict: health.to_string(),
                    health,
                })
            }
            None => None,
        };
        let health = health(&entries, now, clocks);
        Ok(Explanation {
            second_phase,
            verdict: health.to_string(),
            health,
            timeline: entries.iter().map(Line::from).collect(),
        })
    }
}
