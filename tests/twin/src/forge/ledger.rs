//! What the platform knows of a Forge transfer's messages: their answers, the window in which the next one has to come, the end.
//! Pure; the times are the caller's.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;

use crate::forge::switches::{ExpiredState, FailedMessage, Window};
use crate::platform::State;
use crate::switches::Switches;

/// Log lines kept per transfer; older ones are only counted.
const MOST_KEPT: usize = 10_000;

/// The app's answer to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Reply {
    Success,
    Failed,
}

/// One uploaded file, as a message that the app has to answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Message {
    #[serde(rename = "message_id")]
    id: String,
    key: String,
    uploaded_ms: i64,
    /// The first answer: it counts.
    answer: Option<Reply>,
    answered_ms: Option<i64>,
    /// How often it was answered, the first time included.
    answers: u64,
    /// How many of the later answers said something else.
    contradictions: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogLine {
    pub(crate) at_ms: i64,
    pub(crate) message: String,
}

/// The readings that decide when a transfer ends, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) window: Window,
    pub(crate) window_ms: i64,
    pub(crate) failed_resets: bool,
    pub(crate) failed_message: FailedMessage,
    pub(crate) implicit_end_ms: i64,
    pub(crate) expired: State,
}

impl Terms {
    pub(crate) fn of(switches: &Switches) -> Self {
        Self {
            window: switches.forge_window,
            window_ms: switches.forge_window_ms,
            failed_resets: switches.forge_failed_resets_window,
            failed_message: switches.forge_failed_message,
            implicit_end_ms: switches.forge_implicit_export_end_ms,
            expired: match switches.forge_expired_state {
                ExpiredState::TimedOut => State::TimedOut,
                ExpiredState::Failed => State::Failed,
            },
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    messages: Vec<Message>,
    by_id: HashMap<String, usize>,
    open: usize,
    failed: usize,
    last_upload_ms: Option<i64>,
    /// The last upload, or the last answer that resets the window.
    last_reset_ms: i64,
    export_completed_ms: Option<i64>,
    /// The server said so; otherwise the platform assumed it.
    export_explicit: bool,
    /// Since when a message is open and nothing has reset the window.
    silent_since_ms: Option<i64>,
    longest_silence_ms: i64,
    logs: Vec<LogLine>,
    log_count: u64,
}

impl Ledger {
    /// A file is complete in the store: one more message to answer.
    pub(crate) fn uploaded(&mut self, message_id: &str, key: &str, now_ms: i64) {
        self.by_id
            .insert(message_id.to_owned(), self.messages.len());
        self.messages.push(Message {
            id: message_id.to_owned(),
            key: key.to_owned(),
            uploaded_ms: now_ms,
            answer: None,
            answered_ms: None,
            answers: 0,
            contradictions: 0,
        });
        self.open += 1;
        self.last_upload_ms = Some(now_ms);
        self.reset(now_ms);
    }

    pub(crate) fn knows(&self, message_id: &str) -> bool {
        self.by_id.contains_key(message_id)
    }

    /// The app answers a message. The first answer wins (D9); a later one changes nothing and is counted.
    pub(crate) fn answer(&mut self, message_id: &str, reply: Reply, now_ms: i64, terms: &Terms) {
        let Some(message) = self
            .by_id
            .get(message_id)
            .and_then(|index| self.messages.get_mut(*index))
        else {
            return;
        };
        message.answers += 1;
        if let Some(first) = message.answer {
            message.contradictions += u64::from(first != reply);
            return;
        }
        message.answer = Some(reply);
        message.answered_ms = Some(now_ms);
        self.open -= 1;
        self.failed += usize::from(reply == Reply::Failed);
        if reply == Reply::Success || terms.failed_resets {
            self.reset(now_ms);
        } else if self.open == 0 {
            self.end_silence(now_ms);
        }
    }

    fn reset(&mut self, now_ms: i64) {
        self.end_silence(now_ms);
        self.last_reset_ms = now_ms;
        self.silent_since_ms = (self.open > 0).then_some(now_ms);
    }

    /// Also at settlement: nothing is waited for any more.
    pub(crate) fn end_silence(&mut self, now_ms: i64) {
        self.longest_silence_ms = self.longest_silence(now_ms);
        self.silent_since_ms = None;
    }

    /// The longest span in which a message was open and nothing reset the window, the present one included.
    fn longest_silence(&self, now_ms: i64) -> i64 {
        let present = self.silent_since_ms.map_or(0, |since| now_ms - since);
        self.longest_silence_ms.max(present)
    }

    pub(crate) fn complete_export(&mut self, at_ms: i64, explicit: bool) {
        if self.export_completed_ms.is_none() {
            self.export_completed_ms = Some(at_ms);
            self.export_explicit = explicit;
        }
    }

    /// When the platform assumes that the export is complete, if nobody says so before.
    pub(crate) fn implicit_end(&self, terms: &Terms) -> Option<i64> {
        let last = self
            .last_upload_ms
            .filter(|_| self.export_completed_ms.is_none());
        last.map(|last| last + terms.implicit_end_ms)
    }

    /// Since when the present window runs (D7); none does while no message is open.
    fn window_start(&self, terms: &Terms) -> Option<i64> {
        if self.open == 0 {
            return None;
        }
        match terms.window {
            Window::PerTransfer => Some(self.last_reset_ms),
            Window::PerMessage => self
                .messages
                .iter()
                .find(|message| message.answer.is_none())
                .map(|message| message.uploaded_ms),
            Window::AfterExport => self
                .export_completed_ms
                .map(|completed| completed.max(self.last_reset_ms)),
        }
    }

    /// When the transfer times out unless the app answers.
    pub(crate) fn deadline(&self, terms: &Terms) -> Option<i64> {
        self.window_start(terms)
            .map(|start| start + terms.window_ms)
    }

    /// What the answers amount to, once nothing more is waited for. A transfer without files never gets there.
    pub(crate) fn verdict(&self, terms: &Terms) -> Option<State> {
        if self.failed > 0 && terms.failed_message == FailedMessage::AtOnce {
            return Some(State::Failed);
        }
        if self.messages.is_empty() || self.open > 0 || self.export_completed_ms.is_none() {
            return None;
        }
        let mixed = self.failed < self.messages.len();
        Some(match (self.failed, terms.failed_message) {
            (0, _) => State::Success,
            (_, FailedMessage::IncompleteAtEnd) if mixed => State::Incomplete,
            _ => State::Failed,
        })
    }

    /// What the admin sees meanwhile.
    pub(crate) fn percent(&self) -> Option<i64> {
        let answered = self.messages.len() - self.open;
        let share = (answered * 100).checked_div(self.messages.len())?;
        i64::try_from(share).ok().map(|share| share.clamp(1, 99))
    }

    pub(crate) fn progress_message(&self) -> String {
        let answered = self.messages.len() - self.open;
        format!("{answered} of {} files are processed", self.messages.len())
    }

    pub(crate) fn log(&mut self, line: LogLine) {
        self.log_count += 1;
        if self.logs.len() < MOST_KEPT {
            self.logs.push(line);
        }
    }

    /// What the control API shows.
    pub(crate) fn shown(&self, terms: &Terms, now_ms: i64) -> Value {
        let open_ms = self
            .messages
            .iter()
            .map(|message| message.answered_ms.unwrap_or(now_ms) - message.uploaded_ms)
            .max();
        json!({
            "messages": self.messages,
            "open": self.open,
            "export_completed_ms": self.export_completed_ms,
            "export_completed": match (self.export_completed_ms, self.export_explicit) {
                (None, _) => Value::Null,
                (_, true) => "explicit".into(),
                (_, false) => "implicit".into(),
            },
            "window_start_ms": self.window_start(terms),
            "deadline_ms": self.deadline(terms),
            "longest_silence_ms": self.longest_silence(now_ms),
            "longest_open_ms": open_ms,
            "logs": self.logs,
            "log_count": self.log_count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn terms(window: Window) -> Terms {
        Terms {
            window,
            ..Terms::of(&Switches::default())
        }
    }

    /// PROTOCOL 7.6, the worked timeline.
    #[test]
    fn uploads_and_success_answers_push_the_transfers_window_out() {
        let terms = terms(Window::PerTransfer);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.deadline(&terms), None);
        ledger.uploaded("a", "a", 3 * MINUTE);
        assert_eq!(ledger.deadline(&terms), Some(18 * MINUTE));
        ledger.uploaded("b", "b", 10 * MINUTE);
        assert_eq!(ledger.deadline(&terms), Some(25 * MINUTE));
        ledger.answer("b", Reply::Success, 24 * MINUTE, &terms);
        assert_eq!(ledger.deadline(&terms), Some(39 * MINUTE));
        assert_eq!(ledger.longest_silence(39 * MINUTE), 15 * MINUTE);
        ledger.answer("a", Reply::Success, 30 * MINUTE, &terms);
        assert_eq!(ledger.deadline(&terms), None);
        assert_eq!(ledger.longest_silence(99 * MINUTE), 14 * MINUTE);
    }

    #[test]
    fn a_failed_answer_resets_nothing_unless_told_so() {
        let terms = terms(Window::PerTransfer);
        let mut ledger = Ledger::default();
        ledger.uploaded("a", "a", 0);
        ledger.uploaded("b", "b", 0);
        ledger.answer("a", Reply::Failed, MINUTE, &terms);
        assert_eq!(ledger.deadline(&terms), Some(15 * MINUTE));
        let resetting = Terms {
            failed_resets: true,
            ..terms
        };
        let mut ledger = Ledger::default();
        ledger.uploaded("a", "a", 0);
        ledger.uploaded("b", "b", 0);
        ledger.answer("a", Reply::Failed, MINUTE, &resetting);
        assert_eq!(ledger.deadline(&resetting), Some(16 * MINUTE));
    }

    #[test]
    fn the_other_readings_count_from_each_upload_or_from_the_end_of_the_export() {
        let mut ledger = Ledger::default();
        ledger.uploaded("a", "a", 0);
        ledger.uploaded("b", "b", 10 * MINUTE);
        ledger.answer("b", Reply::Success, 12 * MINUTE, &terms(Window::PerMessage));
        let deadline = |ledger: &Ledger, window| ledger.deadline(&terms(window));
        assert_eq!(deadline(&ledger, Window::PerMessage), Some(15 * MINUTE));
        assert_eq!(deadline(&ledger, Window::PerTransfer), Some(27 * MINUTE));
        assert_eq!(deadline(&ledger, Window::AfterExport), None);
        ledger.complete_export(20 * MINUTE, true);
        assert_eq!(deadline(&ledger, Window::AfterExport), Some(35 * MINUTE));
    }

    #[test]
    fn the_first_answer_wins() {
        let terms = terms(Window::PerTransfer);
        let mut ledger = Ledger::default();
        ledger.uploaded("a", "a", 0);
        ledger.complete_export(0, true);
        for reply in [Reply::Success, Reply::Success, Reply::Failed] {
            ledger.answer("a", reply, MINUTE, &terms);
        }
        assert_eq!(ledger.verdict(&terms), Some(State::Success));
        assert_eq!(
            (
                ledger.messages[0].answers,
                ledger.messages[0].contradictions
            ),
            (3, 1)
        );
    }

    #[test]
    fn the_percent_stays_between_1_and_99() {
        let terms = terms(Window::PerTransfer);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.percent(), None);
        ledger.uploaded("a", "a", 0);
        ledger.uploaded("b", "b", 0);
        assert_eq!(ledger.percent(), Some(1));
        ledger.answer("a", Reply::Success, 0, &terms);
        assert_eq!(ledger.percent(), Some(50));
        ledger.answer("b", Reply::Success, 0, &terms);
        assert_eq!(ledger.percent(), Some(99));
    }
}
