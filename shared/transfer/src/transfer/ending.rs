use std::time::Duration;

use super::{FileTotals, Input, MessageOutcome, Phase, Settled, SettledBy, StopReason, Transfer};
use crate::acknowledgements::Token;
use crate::clocks::{Clocks, own, platform};
use crate::message::count_of;
use crate::seeded_bugs::{SeededBug, is_planted};
use crate::settlement::{Confirmed, Listing, Settlement};
use crate::timestamp::Timestamp;
use crate::verdict::{Status, Verdict};

impl Transfer {
    pub(super) fn cancel(&mut self, now: Timestamp, clocks: &Clocks) {
        self.stop(StopReason::Cancelled, now);
        if self.cancelled_at.is_none() {
            self.cancelled_at = Some(now);
            let moment = self.moment(now, clocks);
            // A verdict that is on its way may be waiting for a pause that is now too long.
            if let Phase::Settling(settlement) = &mut self.phase {
                settlement.next_at = settlement.next_at.min(moment.pressing.start);
            }
        }
    }

    pub(super) fn stop(&mut self, reason: StopReason, now: Timestamp) {
        // A file has ended since it was looked: its message begins another window.
        if reason == StopReason::Unanswered
            && self
                .messages
                .as_ref()
                .is_some_and(|messages| messages.kept_back > 0)
        {
            return;
        }
        let stronger = matches!(
            reason,
            StopReason::SettledElsewhere { .. } | StopReason::Superseded { .. }
        );
        match &mut self.phase {
            Phase::Open => {
                self.phase = Phase::Stopping {
                    reason,
                    since: now,
                    leased_until: None,
                };
            }
            // No verdict is written yet: what the platform decided outweighs what we were about to.
            Phase::Stopping {
                reason: earlier, ..
            } if stronger => *earlier = reason,
            Phase::Settling(_)
                if reason == StopReason::Cancelled
                    && is_planted(SeededBug::CancelOutrunsVerdict) =>
            {
                self.phase = Phase::Stopping {
                    reason,
                    since: now,
                    leased_until: None,
                };
            }
            // A re-run exists only after the platform settled this one, so it has the verdict that is on its way.
            Phase::Settling(settlement) => {
                if let StopReason::Superseded { by } = reason {
                    let verdict = settlement.verdict.clone();
                    self.phase = Phase::Settled(Settled {
                        by: SettledBy::Rerun(by),
                        status: Some(verdict.status.as_str().to_owned()),
                        verdict: Some(verdict),
                        form: None,
                        at: now,
                    });
                }
            }
            Phase::Stopping { .. } | Phase::Settled(_) => {}
        }
    }

    pub(super) fn platform_settled(&mut self, status: Option<String>, now: Timestamp) {
        match &mut self.phase {
            Phase::Open | Phase::Stopping { .. } => {
                self.stop(StopReason::SettledElsewhere { status }, now);
            }
            Phase::Settling(settlement) => {
                let ours = settlement.verdict.status.as_str();
                // Where the platform says no word of its own, our verdict is what it has, if it can have it at all.
                let taken = match &status {
                    Some(status) => status == ours && settlement.attempts > 0,
                    None => settlement.may_have_arrived(),
                };
                self.phase = Phase::Settled(Settled {
                    by: if taken {
                        SettledBy::App
                    } else {
                        SettledBy::Platform
                    },
                    verdict: Some(settlement.verdict.clone()),
                    status: status.or_else(|| taken.then(|| ours.to_owned())),
                    form: taken.then_some(settlement.form),
                    at: now,
                });
            }
            // Who settled it was inferred from what was sent and listed; the platform's own word is the truth.
            Phase::Settled(settled) => {
                let Some(status) = status else { return };
                // What was inferred of answers may differ from the verdict: the platform knows no INCOMPLETE there.
                if settled.by == SettledBy::App && settled.status.as_ref() != Some(&status) {
                    settled.by = SettledBy::Platform;
                    settled.form = None;
                }
                settled.status = Some(status);
            }
        }
    }

    pub(super) fn listed(&mut self, listing: Listing, now: Timestamp, clocks: &Clocks) {
        let (moment, seed) = (self.moment(now, clocks), self.seed());
        match &mut self.phase {
            Phase::Open => {
                self.reconciled_at = now;
                self.held_back_until = None;
                match listing {
                    Listing::Active => self.absent_since = None,
                    Listing::Full => {}
                    Listing::Absent => {
                        if now.since(self.first_seen_at)
                            < own::LISTED_AFTER.min(clocks.reconcile_interval)
                        {
                            return;
                        }
                        let since = *self.absent_since.get_or_insert(now);
                        if now.since(since) >= own::ABSENT_FOR.min(clocks.reconcile_interval)
                            && now > since
                        {
                            self.stop(StopReason::SettledElsewhere { status: None }, now);
                        }
                    }
                }
            }
            Phase::Settling(settlement) => {
                let looked = settlement.looked(listing, &moment, clocks, seed);
                self.confirmed(looked, now);
            }
            Phase::Stopping { .. } | Phase::Settled(_) => {}
        }
    }

    pub(super) fn platform_unavailable(
        &mut self,
        retry_after: Option<Duration>,
        now: Timestamp,
        clocks: &Clocks,
    ) {
        let (moment, seed) = (self.moment(now, clocks), self.seed());
        if let Phase::Settling(settlement) = &mut self.phase {
            let looked = settlement.look_failed(retry_after, &moment, clocks, seed);
            self.confirmed(looked, now);
        } else {
            let pause = retry_after.unwrap_or_default().max(clocks.retry_pause);
            self.held_back_until = Some(now + pause);
        }
    }

    /// A settlement's fate, once it is known.
    fn confirmed(&mut self, looked: Confirmed, now: Timestamp) {
        let Phase::Settling(settlement) = &self.phase else {
            return;
        };
        let taken = match looked {
            Confirmed::Open => return,
            Confirmed::Settled => true,
            Confirmed::Elsewhere => false,
        };
        self.phase = Phase::Settled(Settled {
            by: if taken {
                SettledBy::App
            } else {
                SettledBy::Platform
            },
            verdict: Some(settlement.verdict.clone()),
            status: taken.then(|| settlement.verdict.status.as_str().to_owned()),
            form: (taken && settlement.accepted_at.is_some()).then_some(settlement.form),
            at: now,
        });
    }

    pub(super) fn files_fenced(
        &mut self,
        totals: FileTotals,
        leased_until: Option<Timestamp>,
        now: Timestamp,
        clocks: &Clocks,
    ) {
        let unanswered = self
            .answer_at_latest(clocks)
            .is_some_and(|latest| now >= latest);
        let late = (totals.known - totals.ended) + totals.late;
        if matches!(self.phase, Phase::Stopping { .. }) {
            self.take_totals(totals);
        }
        let Phase::Stopping {
            reason,
            since,
            leased_until: waiting,
        } = &mut self.phase
        else {
            return;
        };
        let overdue = unanswered
            || *reason == StopReason::Cancelled && now >= *since + clocks.cancel_settle_by
            || is_planted(SeededBug::LeaseNotWaitedFor);
        if let Some(until) = leased_until.filter(|until| *until > now && !overdue) {
            *waiting = Some(until);
            return;
        }
        let reason = reason.clone();
        let verdict = if let StopReason::Complete { evidence, missing } = &reason {
            let mut missing = missing.clone();
            if late > 0 {
                let files = count_of(late, "file");
                missing.push(format!("{files} that came too late"));
            }
            Verdict::of_import(self, *evidence, &missing, now)
        } else {
            Verdict::of_stop(self, &reason, clocks.work_stale_after, now)
        };
        if let Some(verdict) = verdict {
            self.settle(verdict, now);
        } else {
            let (by, status) = match reason {
                StopReason::Superseded { by } => (SettledBy::Rerun(by), None),
                StopReason::SettledElsewhere { status } => (SettledBy::Platform, status),
                _ => (SettledBy::Platform, None),
            };
            self.phase = Phase::Settled(Settled {
                by,
                verdict: None,
                status,
                form: None,
                at: now,
            });
        }
    }

    pub(super) fn settle(&mut self, verdict: Verdict, now: Timestamp) {
        if self.is_later_phase() {
            // There is nobody to tell.
            self.phase = Phase::Settled(Settled {
                by: SettledBy::App,
                status: Some(verdict.status.as_str().to_owned()),
                verdict: Some(verdict),
                form: None,
                at: now,
            });
            return;
        }
        self.phase = Phase::Settling(Settlement::new(verdict, now));
        self.end_if_answered(now);
    }

    /// Takes in what happened to its messages; on Connect it has none.
    pub(super) fn messages_changed(&mut self, input: &Input, now: Timestamp, clocks: &Clocks) {
        let seed = self.seed();
        let Some(messages) = &mut self.messages else {
            return;
        };
        match *input {
            Input::MessageArrived { at } => messages.announced(at),
            Input::MessageDecided { applied } => messages.file_ended(applied),
            Input::WindowWarned => messages.said(),
            Input::AnswerBegun => messages.begin(now, clocks),
            Input::AnswersTaken {
                outcome: MessageOutcome::Success,
                messages: these,
                begun_at,
            } => messages.answered_success(these, begun_at),
            Input::AnswersTaken {
                messages: these, ..
            } => messages.answered_failed(these),
            Input::AnswersNotTaken { retry_after } => {
                messages.not_taken(retry_after, now, clocks, seed);
                self.end_if_too_late(now);
            }
            _ => {}
        }
        self.end_if_answered(now);
    }

    /// Takes in what a look for a token found. With the last minutes of one the open messages are answered `FAILED`, because without one they can't be answered at
    /// all, and what the platform times out can perhaps not be re-run (OPEN-QUESTIONS.md D12).
    pub(super) fn token_looked(
        &mut self,
        good_until: Option<Timestamp>,
        now: Timestamp,
        clocks: &Clocks,
    ) {
        let Some(messages) = &mut self.messages else {
            return;
        };
        let token = messages.token_looked(good_until, now, clocks);
        if token == Token::Ending && messages.open() > 0 && self.is_open() {
            self.stop(StopReason::NoToken, now);
        }
    }

    /// Nobody waits for answers any more when the platform has given the transfer up, whoever couldn't say so: without a token (the app may be gone) no call tells.
    fn end_if_too_late(&mut self, now: Timestamp) {
        let Phase::Settling(settlement) = &self.phase else {
            return;
        };
        if now.since(self.created_at) < platform::LIFE {
            return;
        }
        self.phase = Phase::Settled(Settled {
            by: SettledBy::Platform,
            verdict: Some(settlement.verdict.clone()),
            status: None,
            form: None,
            at: now,
        });
    }

    /// Where messages are answered there is nothing more to do for a verdict once all are. What the platform makes of the answers it says itself
    /// (OPEN-QUESTIONS.md D8); until then a transfer with a message that was answered `FAILED` counts as that, and one that has none as our verdict only if that is SUCCESS.
    pub(super) fn end_if_answered(&mut self, now: Timestamp) {
        let (Some(messages), Phase::Settling(settlement)) = (&self.messages, &self.phase) else {
            return;
        };
        if messages.open() > 0 {
            return;
        }
        let verdict = settlement.verdict.clone();
        let status = if messages.refused > 0 {
            Some(Status::Failed)
        } else {
            (messages.succeeded > 0 && verdict.status == Status::Success).then_some(Status::Success)
        };
        self.phase = Phase::Settled(Settled {
            by: if status.is_some() {
                SettledBy::App
            } else {
                SettledBy::Platform
            },
            verdict: Some(verdict),
            status: status.map(|status| status.as_str().to_owned()),
            form: None,
            at: now,
        });
    }

    /// Spreads the retries of different transfers.
    pub(super) fn seed(&self) -> u64 {
        self.id
            .as_str()
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
            })
    }
}
