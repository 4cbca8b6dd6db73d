//! The platform's rules for a Forge transfer: it computes the progress, and it settles.

use serde_json::Map;

use crate::forge::ledger::{Ledger, Terms};
use crate::platform::{Caller, Platform, Refused, SettledBy, State, Transfer};
use crate::switches::Switches;

/// Lets an export end that nobody ended, and says how the transfer is settled if it is due.
pub(crate) fn due(
    transfer: &mut Transfer,
    switches: &Switches,
    now_ms: i64,
) -> Option<(i64, State)> {
    let life = (
        transfer.created_ms + switches.transfer_life_ms,
        State::TimedOut,
    );
    // Whichever came first: a clock that jumps must not change the order.
    let earlier =
        |other: Option<(i64, State)>| other.filter(|other| other.0 <= life.0).unwrap_or(life);
    let by_now = |due: (i64, State)| (due.0 <= now_ms).then_some(due);
    if let Some(requested) = transfer.cancel_requested_ms {
        // Nobody waits for answers any more (D13).
        let cancelled = (requested + switches.cancel_grace_ms, State::Cancelled);
        return by_now(earlier(Some(cancelled)));
    }
    let ledger = transfer.forge.as_mut()?;
    let terms = Terms::of(switches);
    let expiry = |ledger: &Ledger| earlier(ledger.deadline(&terms).map(|at| (at, terms.expired)));
    let end = ledger
        .implicit_end(&terms)
        .filter(|end| *end <= now_ms && *end <= expiry(ledger).0);
    if let Some(end) = end {
        ledger.complete_export(end, false);
        if let Some(state) = ledger.verdict(&terms) {
            return Some((end, state));
        }
    }
    by_now(expiry(ledger))
}

impl Platform {
    /// Finds a transfer for a call of the app: another tenant's is unauthorized, a settled one a conflict.
    pub(crate) fn open_forge(&self, id: &str, caller: &Caller) -> Result<&Transfer, Refused> {
        let Some(transfer) = self.transfer(id).filter(|found| found.forge.is_some()) else {
            let status = self.switches.forge_unknown_transfer_answer;
            return Err(Refused::new(
                status,
                "Not found.",
                "no Forge transfer has this id",
            ));
        };
        if transfer.client_key != caller.client_key {
            let reason = "the transfer belongs to another installation than the token";
            return Err(Refused::new(401, "Unauthorized.", reason));
        }
        if transfer.state.settled() {
            let reason = format!("the transfer is settled as {}", transfer.state.name());
            return Err(Refused::new(
                self.switches.forge_settled_answer,
                "The transfer is already in a settled state, no further actions are allowed.",
                &reason,
            ));
        }
        Ok(transfer)
    }

    /// The server app says that its export is complete.
    pub(crate) fn complete_export(&mut self, id: &str) {
        let now = self.clock.now_ms();
        if let Some(ledger) = self.transfer_mut(id).and_then(|found| found.forge.as_mut()) {
            ledger.complete_export(now, true);
        }
        self.emit(id, "export-completed", Map::new());
        self.conclude(id);
    }

    /// Percent and message as the admin sees them; a percent never falls.
    pub(crate) fn show_progress(&mut self, id: &str) {
        let Some(transfer) = self.transfer_mut(id).filter(|found| !found.state.settled()) else {
            return;
        };
        let Some(ledger) = &transfer.forge else {
            return;
        };
        transfer.percent = transfer.percent.max(ledger.percent());
        transfer.message = Some(ledger.progress_message());
    }

    /// Settles a transfer whose messages are all answered.
    pub(crate) fn conclude(&mut self, id: &str) {
        let now = self.clock.now_ms();
        let terms = Terms::of(&self.switches);
        let verdict = self
            .transfer(id)
            .filter(|found| !found.state.settled() && found.cancel_requested_ms.is_none())
            .and_then(|found| found.forge.as_ref()?.verdict(&terms));
        if let Some(state) = verdict {
            self.settle(id, state, SettledBy::Platform, now);
        }
    }
}
