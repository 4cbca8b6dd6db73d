//! Messages of a transfer on Forge (PROTOCOL.md 7.6), read as strictly as its texts allow: only an answer `SUCCESS` begins a new window,
//! and no upload does while a message is open.

use std::collections::BTreeMap;
use std::time::Duration;

use landfall_lifecycle::Tenant;
use landfall_platform::connect::client::{CallError, Refusal};
use landfall_transfer::{MessageOutcome, Timestamp, TransferId};

use super::{Ended, EndedBy, PlatformModel, State, Transfer, owned, refused};
use crate::forge;

/// The transfer ends when no message was answered for this long (PROTOCOL.md 7.6).
pub const WINDOW: Duration = Duration::from_mins(15);

/// An export that nobody ends has ended after this long without an upload (PROTOCOL.md 7.6).
const QUIET: Duration = Duration::from_mins(15);

/// Most messages of one call (OPEN-QUESTIONS.md D10).
const MESSAGES_MAX: usize = 50;

/// The messages of a transfer.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// Each of them, by its id.
    pub all: BTreeMap<String, Message>,
    /// Lines of the admin's log.
    pub lines: Vec<String>,
    /// When the export was complete.
    complete_at: Option<Timestamp>,
    /// Since when an answer is wanted.
    since: Option<Timestamp>,
    uploaded_at: Option<Timestamp>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its file.
    pub key: String,
    /// The first answer, which counts.
    pub answer: Option<MessageOutcome>,
}

impl Messages {
    /// A file was uploaded.
    pub(super) fn open(&mut self, id: &str, key: &str, now: Timestamp) {
        self.uploaded_at = Some(now);
        self.since.get_or_insert(now);
        let message = Message {
            key: key.to_owned(),
            answer: None,
        };
        self.all
            .insert(forge::message("app-data-uploaded", id, key), message);
    }

    /// The server app says that its export is complete.
    pub(super) fn complete(&mut self, at: Timestamp) {
        self.complete_at.get_or_insert(at);
    }

    /// Whether one of them is still to be answered.
    pub fn are_open(&self) -> bool {
        self.all.values().any(|message| message.answer.is_none())
    }

    /// When it ends the transfer if nobody answers.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.since.map(|since| since + WINDOW)
    }

    /// When an export ends that nobody ends.
    pub(super) fn falls_quiet(&self) -> Option<Timestamp> {
        let last = self.uploaded_at.filter(|_| self.complete_at.is_none());
        last.map(|at| at + QUIET)
    }

    /// How the transfer ends now that all is answered, if it is.
    pub(super) fn verdict(&self, failed_at_once: bool) -> Option<&'static str> {
        let failed = self
            .all
            .values()
            .any(|message| message.answer == Some(MessageOutcome::Failed));
        let over = self.complete_at.is_some() && !self.all.is_empty() && !self.are_open();
        if failed && (over || failed_at_once) {
            Some("FAILED")
        } else {
            over.then_some("SUCCESS")
        }
    }
}

/// What any call for a transfer that is over is answered with.
pub(super) const SETTLED: CallError = CallError::Refused {
    status: 409,
    kind: Refusal::Settled,
    says_settled: true,
};

impl PlatformModel {
    /// The server app says that its export is complete.
    pub fn complete_export(&self, id: &str) -> bool {
        let now = self.clock.now();
        let failed_at_once = self.switches.failed_ends_at_once;
        let mut state = self.lock();
        let State {
            transfers, told, ..
        } = &mut *state;
        let open = transfers
            .get_mut(id)
            .filter(|transfer| transfer.ended.is_none());
        let Some(transfer) = open else { return false };
        if let Some(messages) = &mut transfer.messages {
            messages.complete(now);
        }
        told.extend(transfer.conclude(id, failed_at_once, now));
        true
    }

    pub(super) fn answer(
        &self,
        state: &mut State,
        tenant: &Tenant,
        id: &TransferId,
        outcome: MessageOutcome,
        ids: &[String],
    ) -> Result<(), CallError> {
        let now = self.clock.now();
        let id = id.as_str();
        let transfer = owned(state, tenant.id.as_str(), id).ok_or(refused(404, Refusal::Gone))?;
        if transfer.ended.is_some() {
            return Err(SETTLED);
        }
        let unknown = || refused(400, Refusal::BadRequest);
        let cancelled = transfer.cancelled_at.is_some();
        let messages = transfer.messages.as_mut().ok_or_else(unknown)?;
        if ids.len() > MESSAGES_MAX || ids.iter().any(|id| !messages.all.contains_key(id)) {
            return Err(unknown());
        }
        let mut wrongs = Vec::new();
        let mut answered = Vec::new();
        for message in ids {
            let Some(known) = messages.all.get_mut(message) else {
                continue;
            };
            match known.answer {
                Some(first) if first != outcome => wrongs.push(format!(
                    "{id}: {message} was answered {first:?} and then {outcome:?}"
                )),
                Some(_) => {}
                None => {
                    known.answer = Some(outcome);
                    answered.push(known.key.clone());
                }
            }
        }
        if !messages.are_open() {
            messages.since = None;
        } else if outcome == MessageOutcome::Success && !answered.is_empty() {
            messages.since = Some(now);
        }
        // Who cancelled waits for the platform, whatever is answered (OPEN-QUESTIONS.md D13).
        let concluded = (!cancelled)
            .then(|| transfer.conclude(id, self.switches.failed_ends_at_once, now))
            .flatten();
        state.told.extend(concluded);
        state.wrongs.extend(wrongs);
        if let (MessageOutcome::Success, Some(look)) = (outcome, &state.on_success) {
            for key in &answered {
                if let Some((label, content)) = state
                    .contents
                    .get(key)
                    .map(|file| (&file.label, &file.content))
                {
                    look(id, key, label, content);
                }
            }
        }
        Ok(())
    }
}

impl Transfer {
    /// Ends it when its messages say so. Returns what the platform tells then.
    pub(super) fn conclude(
        &mut self,
        id: &str,
        failed_at_once: bool,
        now: Timestamp,
    ) -> Option<(String, String, String)> {
        let status = self.messages.as_ref()?.verdict(failed_at_once)?;
        self.ended = Some(Ended {
            status: status.to_owned(),
            by: EndedBy::App,
            at: now,
        });
        Some((self.tenant.clone(), id.to_owned(), status.to_owned()))
    }
}
