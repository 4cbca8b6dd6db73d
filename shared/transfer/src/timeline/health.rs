use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{Entry, Taken, What};
use crate::clocks::{Clocks, own, platform};
use crate::completeness::FIRST_FILE;
use crate::message::{clip, count_of};
use crate::settlement::Answer;
use crate::timestamp::Timestamp;
use crate::transfer::SettledBy;
use crate::verdict::Status;

/// How a transfer does, in one sentence for support.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Something moved or was heard within [`Clocks::waiting_report_interval`], a verdict is on its way, or nothing is left
    /// to do: SUCCESS, cancelled, or a re-run took over.
    Healthy,
    /// Work is open and moved not long ago, but it was interrupted, revived or taken over three times within a sixth of
    /// [`Clocks::work_stale_after`]; or it hasn't moved for [`Clocks::waiting_report_interval`] and nobody knows why; or the
    /// transfer is older than half of [`Clocks::hard_deadline`].
    Slow {
        /// Why it is slow.
        because: String,
        /// Since when.
        since: Timestamp,
    },
    /// Nothing of ours is open, or only files whose held records are asked again at a later time: the server app or the platform must act.
    WaitingFor {
        /// What must happen; reads after "waiting for".
        what: String,
        /// Last sign of anything.
        since: Timestamp,
    },
    /// Work is open and hasn't moved for [`Clocks::waiting_report_interval`] although it was revived, or for half of
    /// [`Clocks::work_stale_after`] whatever happened; or the platform couldn't be asked for twice
    /// [`Clocks::reconcile_interval`]; or it doesn't take the settlement; or a clock ran out and nobody settled.
    Stuck {
        /// Why.
        because: String,
        /// Since when.
        since: Timestamp,
    },
    /// A person must act: settled FAILED or INCOMPLETE, or something that only a person can mend.
    NeedsAction {
        /// Who does what.
        what: String,
        /// Until when, where there is a limit.
        by: Option<Timestamp>,
        /// Why.
        because: String,
    },
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => formatter.write_str("healthy"),
            Self::Slow { because, since } => {
                write!(
                    formatter,
                    "slow since {}, because {because}",
                    since.for_admin()
                )
            }
            Self::WaitingFor { what, since } => {
                write!(formatter, "waiting for {what} since {}", since.for_admin())
            }
            Self::Stuck { because, since } => {
                write!(
                    formatter,
                    "stuck since {}, because {because}",
                    since.for_admin()
                )
            }
            Self::NeedsAction { what, by, because } => {
                write!(formatter, "needs action: {what}")?;
                if let Some(by) = by {
                    write!(formatter, " by {}", by.for_admin())?;
                }
                write!(formatter, ", because {because}")
            }
        }
    }
}

/// Interruptions within the window that make work slow.
const TROUBLES: usize = 3;

/// Reads a transfer's health off its timeline. Entries may come in any order; of those with one time their sequence counts.
pub fn health(entries: &[Entry], now: Timestamp, clocks: &Clocks) -> Health {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.at);
    let Some(first) = sorted.first() else {
        return Health::WaitingFor {
            what: "its first event".to_owned(),
            since: now,
        };
    };
    let mut seen = Seen::new(first.at);
    for entry in sorted {
        seen.take(entry);
    }
    seen.health(now, clocks)
}

/// What a timeline shows, so far as it was read.
#[derive(Debug)]
struct Seen {
    created_at: Timestamp,
    /// Whether it is a later phase of a staged transfer, of which the platform knows nothing.
    is_later_phase: bool,
    open: BTreeSet<String>,
    ended: BTreeSet<String>,
    any_file: bool,
    /// Last sign of progress of open work, or its announcement.
    moved_at: Timestamp,
    /// Last sign of anything from outside.
    heard_at: Timestamp,
    /// What kept work from moving: when, and in which words.
    troubles: Vec<(Timestamp, String)>,
    /// How many of these came before the last sign of progress.
    overcome: usize,
    waiting_for: Option<String>,
    /// Files that are read once more, and when.
    asked_again: BTreeMap<String, Timestamp>,
    unavailable: Option<(Timestamp, Option<String>)>,
    person: Option<(String, String)>,
    stopping_since: Option<Timestamp>,
    verdict: Option<(Timestamp, Status, String)>,
    answer: Option<Answer>,
    settled: Option<(SettledBy, Option<String>)>,
}

impl Seen {
    const fn new(at: Timestamp) -> Self {
        Self {
            created_at: at,
            is_later_phase: false,
            open: BTreeSet::new(),
            ended: BTreeSet::new(),
            any_file: false,
            moved_at: at,
            heard_at: at,
            troubles: Vec::new(),
            overcome: 0,
            waiting_for: None,
            asked_again: BTreeMap::new(),
            unavailable: None,
            person: None,
            stopping_since: None,
            verdict: None,
            answer: None,
            settled: None,
        }
    }

    fn take(&mut self, entry: &Entry) {
        let at = entry.at;
        match &entry.what {
            What::FirstSeen {
                created_at,
                phase_of,
                ..
            } => {
                self.created_at = *created_at;
                self.is_later_phase = phase_of.is_some();
            }
            What::EventTaken { .. }
            | What::ListenerTriggered
            | What::ListenerFailed { .. }
            | What::ExportPhaseCompleted => self.heard_at = at,
            What::FileAnnounced { file, .. } | What::FileAdopted { file, .. } => {
                self.heard_at = at;
                self.any_file = true;
                self.waiting_for = None;
                self.opened(file, at);
            }
            What::FileTaken { file, how, .. } => {
                if !self.open.contains(file) {
                    self.opened(file, at);
                }
                if matches!(how, Taken::TakenOver | Taken::Revived) {
                    self.trouble(at, "its worker died");
                }
            }
            What::SliceCommitted { file, .. } => {
                self.asked_again.remove(file);
                self.opened(file, at);
                self.reached();
            }
            What::AskedAgainLater {
                file, at: again, ..
            } => {
                self.asked_again.insert(file.clone(), *again);
                self.opened(file, at);
                self.reached();
            }
            What::FileEnded { file, .. } => {
                self.asked_again.remove(file);
                self.open.remove(file);
                self.ended.insert(file.clone());
                self.moved(at);
                self.reached();
            }
            What::Interrupted { reason, .. } | What::DeadLetter { reason, .. } => {
                self.trouble(at, reason);
            }
            What::Revived { .. } => self.trouble(at, "nobody worked on it"),
            What::ExportAwaited { waiting_for } => self.waiting_for = Some(waiting_for.clone()),
            What::PlatformUnavailable { reason } => {
                self.unavailable.get_or_insert((at, reason.clone()));
            }
            What::TokenAwaited => {
                let reason = Some("its token has ended".to_owned());
                self.unavailable.get_or_insert((at, reason));
            }
            What::WindowCloses { .. } => {
                self.trouble(
                    at,
                    "no file ends in the time in which the platform wants an answer",
                );
            }
            What::PlatformAvailable
            | What::TokenCame
            | What::MessagesAnswered { .. }
            | What::ConfirmationLooked { .. }
            | What::ProgressReported { taken: true, .. } => self.reached(),
            What::PersonNeeded { code, problem } => {
                self.person = Some((code.clone(), problem.clone()));
            }
            What::Stopping { .. } | What::Superseded { .. } => self.stopping_since = Some(at),
            What::VerdictDecided {
                status, message, ..
            } => self.verdict = Some((at, *status, message.clone())),
            What::SettlementSent { answer, .. } => {
                self.answer = Some(*answer);
                if !matches!(answer, Answer::NotTaken { .. } | Answer::Unknown { .. }) {
                    self.reached();
                }
            }
            What::Settled { by, status } => self.settled = Some((by.clone(), status.clone())),
            What::ChainJoined { .. }
            | What::ProgressReported { .. }
            | What::ExportComplete { .. }
            | What::NotListed
            | What::Fenced { .. }
            | What::SecondPhaseBegun { .. }
            | What::Unknown => {}
        }
    }

    fn opened(&mut self, file: &str, at: Timestamp) {
        // A late word of a worker that was fenced off doesn't open a file again.
        if !self.ended.contains(file) {
            self.open.insert(file.to_owned());
            self.moved(at);
        }
    }

    fn moved(&mut self, at: Timestamp) {
        self.moved_at = at;
        self.overcome = self.troubles.len();
    }

    /// The platform could be asked, or work moved: whatever kept us from it, a person's errand included, is over.
    fn reached(&mut self) {
        self.unavailable = None;
        self.person = None;
    }

    fn trouble(&mut self, at: Timestamp, what: &str) {
        self.troubles.push((at, what.to_owned()));
    }

    fn health(&self, now: Timestamp, clocks: &Clocks) -> Health {
        if let Some((by, status)) = &self.settled {
            return self.after_settlement(by, status.as_deref(), now);
        }
        if let Some((code, problem)) = &self.person {
            return Health::NeedsAction {
                what: format!("the operator mends {code}"),
                by: None,
                because: clip(problem, 200),
            };
        }
        let settled_by_now =
            clocks.settle_confirm_after * own::UNCONFIRMED + clocks.settle_retry_max;
        if let Some((since, ..)) = self.verdict {
            return if now.since(since) < settled_by_now {
                Health::Healthy
            } else {
                Health::Stuck {
                    because: format!(
                        "the platform has not taken the settlement{}",
                        match self.answer {
                            Some(answer) => format!(" ({})", words_of(answer)),
                            None => String::new(),
                        }
                    ),
                    since,
                }
            };
        }
        if let Some(since) = self.stopping_since {
            return if now.since(since) < clocks.cancel_settle_by {
                Health::Healthy
            } else {
                Health::Stuck {
                    because: "it was stopped and not settled".to_owned(),
                    since,
                }
            };
        }
        self.overdue(now, clocks)
            .or_else(|| self.unreachable(now, clocks))
            .unwrap_or_else(|| {
                if self.open.is_empty() {
                    self.while_idle(now, clocks)
                } else {
                    self.while_open(now, clocks)
                }
            })
    }

    fn after_settlement(&self, by: &SettledBy, status: Option<&str>, now: Timestamp) -> Health {
        if matches!(by, SettledBy::Rerun(_)) {
            return Health::Healthy;
        }
        let closes = self.created_at + platform::RERUN_WINDOW;
        let because = match (status, &self.verdict) {
            (Some(status), Some((_, ours, message))) if status == ours.as_str() => {
                format!("it is {status}: {}", first_sentence(message))
            }
            (Some(status), _) => format!("the platform says {status}"),
            (None, _) => "the platform ended it without a word".to_owned(),
        };
        match status {
            Some("SUCCESS" | "CANCELLED") => Health::Healthy,
            _ if self.is_later_phase => Health::NeedsAction {
                what: "the operator mends what kept records from the target, and repeats the second phase"
                    .to_owned(),
                by: None,
                because,
            },
            Some("FAILED" | "INCOMPLETE") if now < closes => Health::NeedsAction {
                what: "the admin re-runs the app migration".to_owned(),
                by: Some(closes),
                because,
            },
            Some("FAILED" | "INCOMPLETE" | "TIMED_OUT") => Health::NeedsAction {
                what: "the admin makes a new plan, for this one can't be re-run any more"
                    .to_owned(),
                by: None,
                because,
            },
            _ => Health::NeedsAction {
                what: "the admin looks in the migration assistant how it ended".to_owned(),
                by: None,
                because,
            },
        }
    }

    /// A clock that ran out so long ago that the sweeper must have missed it.
    fn overdue(&self, now: Timestamp, clocks: &Clocks) -> Option<Health> {
        let deadline = self.created_at + clocks.hard_deadline;
        (now >= deadline + clocks.reconcile_interval * 2).then(|| Health::Stuck {
            because: "its deadline has passed and nobody settled it; see whether the sweeper runs"
                .to_owned(),
            since: deadline,
        })
    }

    fn unreachable(&self, now: Timestamp, clocks: &Clocks) -> Option<Health> {
        let (since, reason) = self.unavailable.as_ref()?;
        (now.since(*since) >= clocks.reconcile_interval * 2).then(|| Health::Stuck {
            because: match reason {
                Some(reason) => format!("the site can't be called: {}", clip(reason, 200)),
                None => "the site can't be called".to_owned(),
            },
            since: *since,
        })
    }

    /// When held records are asked again, while nothing else is open.
    fn asked_again_at(&self, now: Timestamp, clocks: &Clocks) -> Option<Timestamp> {
        let of = |file: &String| {
            let at = self.asked_again.get(file)?;
            // Once it should be under way, its silence is that of any other file.
            (now < *at + clocks.waiting_report_interval).then_some(*at)
        };
        let all: Option<Vec<Timestamp>> = self.open.iter().map(of).collect();
        all?.into_iter().min()
    }

    fn while_open(&self, now: Timestamp, clocks: &Clocks) -> Health {
        if let Some(at) = self.asked_again_at(now, clocks) {
            let held = "mappings of held records, which are asked again at";
            return Health::WaitingFor {
                what: format!("{held} {},", at.for_admin()),
                since: self.moved_at,
            };
        }
        let files = count_of(self.open.len() as u64, "file");
        let still = now.since(self.moved_at);
        let since_moved = self.troubles[self.overcome..].last();
        if still >= clocks.work_stale_after / 2
            || (still >= clocks.waiting_report_interval && since_moved.is_some())
        {
            let why = since_moved.map_or("nothing is known of its workers", |(_, what)| what);
            return Health::Stuck {
                because: format!(
                    "{files} did not move although work was revived: {}",
                    clip(why, 200)
                ),
                since: self.moved_at,
            };
        }
        let window = clocks.work_stale_after / 6;
        let recent = || {
            self.troubles
                .iter()
                .filter(|(at, _)| now.since(*at) < window)
        };
        if let Some((_, last)) = recent().next_back()
            && recent().count() >= TROUBLES
        {
            return Health::Slow {
                because: format!(
                    "{files} moved but stopped again and again: {}",
                    clip(last, 200)
                ),
                since: recent().next().map_or(now, |(at, _)| *at),
            };
        }
        if still >= clocks.waiting_report_interval {
            return Health::Slow {
                because: format!("{files} did not move lately"),
                since: self.moved_at,
            };
        }
        if now.since(self.created_at) >= clocks.hard_deadline / 2 {
            return Health::Slow {
                because: format!("half of its time is over and {files} not yet imported"),
                since: self.created_at,
            };
        }
        Health::Healthy
    }

    fn while_idle(&self, now: Timestamp, clocks: &Clocks) -> Health {
        let since = self.heard_at.max(self.moved_at);
        let quiet = now.since(since);
        // Whatever is waited for, it would have been settled by now.
        if quiet >= clocks.export_silence + clocks.reconcile_interval * 2 {
            return Health::Stuck {
                because:
                    "it waited for too long and nobody settled it; see whether the sweeper runs"
                        .to_owned(),
                since,
            };
        }
        if quiet < clocks.waiting_report_interval {
            return Health::Healthy;
        }
        let what = match &self.waiting_for {
            Some(what) => what.clone(),
            None if !self.any_file => FIRST_FILE.to_owned(),
            None => "the server app to upload more, or to stay quiet".to_owned(),
        };
        Health::WaitingFor { what, since }
    }
}

const fn words_of(answer: Answer) -> &'static str {
    match answer {
        Answer::Accepted => "accepted, but still listed as active",
        Answer::FormRefused => "it refused the form",
        Answer::SuspectGone | Answer::SuspectExpired => "it answered as if the transfer were over",
        Answer::NotTaken { .. } => "it did not take it",
        Answer::Unknown { .. } => "it did not answer",
    }
}

/// A verdict's reason, without the next step and the counts.
fn first_sentence(message: &str) -> &str {
    message
        .split_once(". ")
        .map_or(message, |(sentence, _)| sentence)
}
