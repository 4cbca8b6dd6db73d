//! What a run left behind, for whoever judges it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use landfall_models::TableModel;
use landfall_tracking::{Item, Key};
use landfall_transfer::timeline::{Entry, Health, health};
use landfall_transfer::{TenantId, Timestamp, TransferId};

use super::attempt::{Attempt, Export, good};
use super::{World, now_or_never};
use crate::platform::PlatformModel;
use crate::watch::Violations;

impl World {
    pub(crate) const fn violations(&self) -> &Violations {
        &self.violations
    }

    pub(crate) const fn platform(&self) -> &PlatformModel {
        &self.cloud.platform
    }

    pub(crate) const fn table(&self) -> &TableModel {
        &self.cloud.table
    }

    pub(crate) const fn accepted(&self) -> &BTreeSet<(String, String)> {
        &self.accepted
    }

    pub(crate) const fn is_swept(&self) -> bool {
        self.plan.sweeper
    }

    /// What an attempt exported.
    pub(crate) fn export(&self, id: &str) -> Option<Export> {
        let attempt = self.attempts.iter().find(|attempt| attempt.id == id)?;
        let mut export = Export {
            complete: attempt.is_complete(),
            ..Export::default()
        };
        for (label, content) in attempt.uploaded.values() {
            for line in content.lines() {
                match good(line) {
                    Some(key) => drop(export.good.insert((label.clone(), key))),
                    None => export.bad += 1,
                }
            }
        }
        Some(export)
    }

    /// A record as it must be in the target, if any attempt of the chain exported it.
    pub(crate) fn exported(&self, chain: &str, label: &str, key: &str) -> Option<String> {
        self.attempts
            .iter()
            // A re-run whose every event got lost is known from the platform's list, which doesn't name its chain.
            .filter(|attempt| attempt.original.as_deref() == Some(chain) || attempt.id == chain)
            .flat_map(|attempt| attempt.uploaded.values())
            .filter(|(uploaded, _)| uploaded == label)
            .flat_map(|(_, content)| content.lines())
            .find(|line| good(line).as_deref() == Some(key))
            .map(|line| line.replace("\"author\":\"", "\"author\":\"cloud-"))
    }

    /// For each transfer that waited for nothing but Landfall, and was settled after faults had stopped: how long that took. On Forge it is the platform that settles, in
    /// its own time.
    pub(crate) fn recoveries(&self) -> Vec<(String, Duration)> {
        let Some(calm) = self.calm_since else {
            return Vec::new();
        };
        let took = |attempt: &Attempt| {
            let ready = attempt.ready_at.filter(|_| !attempt.lost)?.max(calm);
            let transfer = self.cloud.platform.transfer(&attempt.id)?;
            let ended = transfer.ended.filter(|_| transfer.messages.is_none())?;
            let took = ended.at.as_millis() - ready;
            let took = u64::try_from(took).ok().filter(|took| *took > 0)?;
            Some((attempt.id.clone(), Duration::from_millis(took)))
        };
        self.attempts.iter().filter_map(took).collect()
    }

    /// For how long faults had stopped by then.
    pub(crate) fn calm_for(&self, then: Timestamp) -> Duration {
        self.calm_since.map_or(Duration::ZERO, |calm| {
            then.since(Timestamp::from_millis(calm))
        })
    }

    /// Whether one of a transfer's files kills whoever imports it.
    pub(crate) fn has_poison(&self, id: &str) -> bool {
        let mut files = self.attempts.iter().filter(|attempt| attempt.id == id);
        files.any(|attempt| attempt.migration.files.iter().any(|file| file.poison))
    }

    /// Attempts after which a file counts as poison.
    pub(crate) fn attempts_at_a_poison_file(&self) -> u32 {
        let limits = &self.cloud.configuration.import.limits;
        limits.attempts_without_progress
    }

    /// A transfer's timeline, as support reads it.
    pub(crate) fn timeline(&self, tenant: &str, id: &str) -> Vec<Entry> {
        let (tenant, id) = (TenantId::new(tenant), TransferId::new(id));
        now_or_never(self.truth.timeline(&tenant, &id)).unwrap_or_default()
    }

    /// How a transfer does by its timeline.
    pub(crate) fn health(&self, entries: &[Entry]) -> Health {
        health(entries, self.time.now(), &self.cloud.configuration.clocks)
    }

    /// After which pause held records are asked again.
    pub(crate) fn hold_again_after(&self) -> Duration {
        self.cloud.configuration.work.hold_again_after
    }

    /// By how much the fastest clock ran ahead: what it wrote lies that far in the future.
    pub(crate) fn clocks_were_off_by(&self) -> Duration {
        let ahead = self.plan.jumps.iter().map(|jump| jump.off_by_ms).max();
        Duration::from_millis(u64::try_from(ahead.unwrap_or(0)).unwrap_or(0))
    }

    /// The row of a transfer.
    pub(crate) fn row(&self, tenant: &str, id: &str) -> Option<Arc<Item>> {
        self.cloud
            .table
            .row(&Key::new(format!("TRANSFER#{tenant}#{id}"), "STATE"))
    }
}
