use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clocks::{Clocks, own, platform};
use crate::settlement::backoff;
use crate::timestamp::Timestamp;

/// How far the messages of a Forge transfer are answered: one for each uploaded file, and each is answered once (PROTOCOL.md 7.6).
///
/// While a message is open, the platform wants an answer `SUCCESS` every 15 minutes, whatever takes so long. So an answer is worth a window, and is not given away: of files
/// that are applied it is kept back until the window needs it, one at a time, and so short files carry a long one. Which of several ready messages is
/// answered doesn't matter, and nothing is gained by an answer that is earlier than it must be.
///
/// Of the readings that the rule has the strictest counts: a window begins with the message that is open when none was, and with an answer `SUCCESS`; neither a further
/// upload nor an answer `FAILED`, a log line or a download begins another (OPEN-QUESTIONS.md D6, D7).
///
/// A sum over the files, so that a transfer's row stays small however many there are. The first answer to a message is final (D9), hence nothing is counted as answered before the
/// platform has said so, and an attempt whose outcome nobody knows is repeated with the same message and the same answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgements {
    /// Open messages whose files have not ended.
    pub working: u64,
    /// Open messages whose files are applied: they can be answered `SUCCESS` at any time.
    pub kept_back: u64,
    /// Open messages whose files ended otherwise. They are answered `FAILED` with the last ones, because that may end the transfer at once (D8).
    pub failed: u64,
    /// Messages that were answered `SUCCESS`.
    pub succeeded: u64,
    /// Messages that were answered `FAILED`.
    pub refused: u64,
    /// When the window began that runs; none while no message is open.
    pub window_since: Option<Timestamp>,
    /// Whether it was said that nothing could be answered when this window needs it.
    pub warned: bool,
    /// While this lies ahead, somebody is sending an answer.
    pub sending_until: Option<Timestamp>,
    /// Attempts since an answer was last taken.
    pub attempts: u32,
    /// No further attempt is begun before this.
    pub not_before: Option<Timestamp>,
    /// Until when the installation's token is good, so far as was looked: without one nothing can be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_until: Option<Timestamp>,
    /// When a token is looked for again; none unless the last look found none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_awaited: Option<Timestamp>,
}

/// How often a refused answer can be sent again in what [`Clocks::forge_answer_by`] leaves of a window: however long the pause that was asked for, it is no longer than
/// this part of it, for what comes later is no answer any more.
const TRIES_LEFT: u32 = 6;

/// What an installation's token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// For whatever the next window needs.
    Good,
    /// To answer what is open, if that is done now.
    Ending,
    /// For nothing, or there is none.
    Missing,
}

/// What an open transfer's messages need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    /// One message of a file that is applied is answered `SUCCESS`: it carries the others for another window.
    Answer,
    /// The admin and whoever is on call are told that no file will have ended when the window needs an answer.
    Warning,
    /// No file can be answered in time. The transfer is stopped and every open message answered `FAILED`, while that is still possible: what the
    /// platform times out can perhaps not be re-run (D12).
    End,
}

impl Acknowledgements {
    /// Messages without an answer.
    pub const fn open(&self) -> u64 {
        self.working + self.kept_back + self.failed
    }

    /// A file's message arrived.
    pub(crate) fn announced(&mut self, now: Timestamp) {
        self.working += 1;
        self.window_since.get_or_insert(now);
    }

    /// A file ended; `applied` says that all of it is in the target.
    pub(crate) fn file_ended(&mut self, applied: bool) {
        self.working = self.working.saturating_sub(1);
        if applied {
            self.kept_back += 1;
        } else {
            self.failed += 1;
        }
    }

    /// An attempt to answer is about to be sent.
    pub(crate) fn begin(&mut self, now: Timestamp, clocks: &Clocks) {
        self.attempts += 1;
        self.sending_until = Some(now + clocks.send_lease());
    }

    /// The platform took `SUCCESS` for so many messages, in an attempt that was begun at this instant: how long the answer was on its way is
    /// not known, so the new window counts from there.
    pub(crate) fn answered_success(&mut self, messages: u64, begun_at: Timestamp) {
        self.kept_back = self.kept_back.saturating_sub(messages);
        self.succeeded += messages;
        self.taken();
        if self.open() > 0 {
            self.window_since = self.window_since.max(Some(begun_at));
            self.warned = false;
        }
    }

    /// The platform took `FAILED` for so many messages. Until the transfer is stopped only those of files that ended otherwise are answered so; then
    /// all that are open may be.
    pub(crate) fn answered_failed(&mut self, messages: u64) {
        self.refused += messages;
        let mut left = messages;
        for open in [&mut self.failed, &mut self.working, &mut self.kept_back] {
            let these = left.min(*open);
            *open -= these;
            left -= these;
        }
        self.taken();
    }

    fn taken(&mut self) {
        self.sending_until = None;
        self.attempts = 0;
        self.not_before = None;
        self.token_awaited = None;
        if self.open() == 0 {
            self.window_since = None;
            self.warned = false;
        }
    }

    /// An attempt was not taken, or nobody knows: the same is sent again after a pause, which grows and is no shorter than the one that was asked for. But no pause leads
    /// beyond the instant from which on it presses ([`Self::pressing`]), and while it presses a pause is short enough for some more attempts (decision 21).
    pub(crate) fn not_taken(
        &mut self,
        asked: Option<Duration>,
        now: Timestamp,
        clocks: &Clocks,
        seed: u64,
    ) {
        let pause = backoff(self.attempts, clocks, seed).max(asked.unwrap_or_default());
        let again = match self.pressing(clocks) {
            Some(pressing) if now < pressing.start => (now + pause).min(pressing.start),
            Some(pressing) if now < pressing.end => {
                now + pause.min(left_of_window(clocks) / TRIES_LEFT)
            }
            _ => now + pause,
        };
        self.sending_until = None;
        self.not_before = Some(again);
    }

    /// While a pause that the site asked for would outlast what is left of the window, and until when that can still be helped.
    pub(crate) fn pressing(&self, clocks: &Clocks) -> Option<Range<Timestamp>> {
        let since = self.window_since?;
        Some(since + clocks.forge_answer_by..since + platform::FORGE_MESSAGE_WINDOW)
    }

    /// By when a transfer that is being stopped has to answer, whoever may still be at work: a third of what [`Clocks::forge_answer_by`] leaves of the window.
    /// Sooner when the token ends before: two thirds of what is kept of it are for the answers.
    pub(crate) fn at_latest(&self, clocks: &Clocks) -> Option<Timestamp> {
        let window = self.window_since? + clocks.forge_answer_by + left_of_window(clocks) / 3;
        let token = self
            .token_until
            .map(|until| until - token_left(clocks) * 2 / 3);
        Some(token.map_or(window, |token| token.min(window)))
    }

    /// A token was looked for. It comes only with the platform's calls (PROTOCOL.md 7.5), so nothing can be done for one but to look again.
    pub(crate) fn token_looked(
        &mut self,
        good_until: Option<Timestamp>,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Token {
        let good_until = good_until.filter(|until| now < *until);
        self.token_until = good_until;
        self.token_awaited = None;
        match good_until {
            Some(until) if now < until - token_left(clocks) => Token::Good,
            Some(_) => Token::Ending,
            None => {
                self.token_awaited = Some(now + clocks.retry_pause);
                Token::Missing
            }
        }
    }

    /// When a token is to be looked for while the transfer is open; none while no message is. The one that is known is replaced by a newer one every hour or
    /// so; if it was not when it is about to end, it may be the last with which anything can be answered.
    pub(crate) fn token_due(&self, clocks: &Clocks) -> Option<Timestamp> {
        let since = self.window_since?;
        let known = self.token_until.map(|until| until - token_left(clocks));
        Some(self.token_awaited.or(known).unwrap_or(since))
    }

    /// From when on another attempt may be begun, if somebody or something has to be waited for.
    pub(crate) fn free_from(&self) -> Option<Timestamp> {
        self.sending_until.max(self.not_before)
    }

    /// It was said that this window will find nothing to answer.
    pub(crate) fn said(&mut self) {
        self.warned = true;
    }

    /// What is needed next while the transfer is open, and when; nothing while no message is.
    ///
    /// An answer is needed [`Clocks::forge_answer_by`] after its window began. If nothing can be answered by then, that is said when two thirds of that time have passed, which leaves a
    /// file a third to end after all.
    pub(crate) fn needed(&self, clocks: &Clocks) -> Option<(Timestamp, Needed)> {
        let since = self.window_since?;
        let by = since + clocks.forge_answer_by;
        if self.kept_back > 0 {
            let free = self.free_from().unwrap_or(by);
            return Some((by.max(free), Needed::Answer));
        }
        if self.warned {
            Some((by, Needed::End))
        } else {
            Some((since + clocks.forge_answer_by * 2 / 3, Needed::Warning))
        }
    }
}

/// From when on an installation on Forge is silent: it should have called twice since it was heard, or the newest token that it brought is about to end, whichever is sooner. When it was heard
/// isn't known of a token that an older release kept, which then counts as fresh when it came.
pub fn silent_from(heard_at: Option<Timestamp>, good_until: Timestamp) -> Timestamp {
    let heard_at = heard_at.unwrap_or(good_until - platform::FORGE_TOKEN_LIFE);
    (heard_at + own::FORGE_SILENT_AFTER).min(good_until - own::FORGE_TOKEN_LOW)
}

/// What [`Clocks::forge_answer_by`] leaves of a window.
const fn left_of_window(clocks: &Clocks) -> Duration {
    platform::FORGE_MESSAGE_WINDOW.saturating_sub(clocks.forge_answer_by)
}

/// What is kept of a token, so that every open message can be answered with it before it ends: a quarter of [`Clocks::forge_answer_by`].
fn token_left(clocks: &Clocks) -> Duration {
    clocks.forge_answer_by / 4
}

#[cfg(test)]
mod tests;
