//! A small world around one transfer, and a shell that plays what the functions do: it looks, asks, fences and sends,
//! without losing a call. Time jumps from one instant at which anything is due to the next.

use std::time::Duration;

use landfall_transfer::timeline::{Actor, Entry, entries};
use landfall_transfer::{
    Answer, Cause, Clocks, Completeness, Counts, ExportFacts, FileFacts, FileOutcome, FileTotals,
    Input, Listing, Manifest, Phase, Status, Step, TenantId, Timestamp, Transfer, TransferId,
    Verdict, evaluate,
};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

/// A file of the server app.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) label: &'static str,
    pub(crate) outcome: FileOutcome,
    pub(crate) counts: Counts,
    pub(crate) manifest: bool,
    /// Whether somebody has taken it up.
    pub(crate) announced: bool,
    pub(crate) ended: bool,
    /// When it was taken up, or ended.
    pub(crate) moved_at: Timestamp,
}

impl File {
    pub(crate) fn new(label: &'static str, counts: Counts) -> Self {
        Self {
            label,
            outcome: FileOutcome::Imported,
            counts,
            manifest: false,
            announced: false,
            ended: false,
            moved_at: START,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clocks: Clocks,
    pub(crate) now: Timestamp,
    pub(crate) transfer: Transfer,
    /// What the platform's list shows.
    pub(crate) files: Vec<File>,
    pub(crate) manifest: Option<Manifest>,
    /// Whether the platform's file list can be had.
    pub(crate) listable: bool,
    /// The server app gives a sign of life, or work moves, this often, for ever.
    pub(crate) chatter: Option<(Duration, Input)>,
    chatted_at: Timestamp,
    pub(crate) timeline: Vec<Entry>,
}

impl World {
    pub(crate) fn new(clocks: Clocks, files: Vec<File>, manifest: Option<Manifest>) -> Self {
        Self {
            clocks,
            now: START,
            transfer: Transfer::first_seen(
                TenantId::new("tenant"),
                TransferId::new("t-1"),
                None,
                None,
                START,
            ),
            files,
            manifest,
            listable: true,
            chatter: None,
            chatted_at: START,
            timeline: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, input: Input) {
        let (before, taken) = (self.transfer.clone(), input.clone());
        self.transfer.apply(input, self.now, &self.clocks);
        let told = entries(Some(&before), &self.transfer, &taken);
        let entry = |what| Entry::new(self.now, Actor::Processor, what);
        self.timeline.extend(told.into_iter().map(entry));
    }

    /// A file is taken up, of which nobody tells the core.
    pub(crate) fn announce(&mut self, index: usize) {
        let file = &mut self.files[index];
        if !file.announced && self.transfer.is_open() {
            file.announced = true;
            file.moved_at = self.now;
        }
    }

    pub(crate) fn end(&mut self, index: usize) {
        let file = &mut self.files[index];
        if file.ended || !file.announced || !self.transfer.is_open() {
            return;
        }
        file.ended = true;
        file.moved_at = self.now;
        let matters = file.manifest || matches!(file.outcome, FileOutcome::Poisoned { .. });
        let is_last = self.files.iter().all(|file| file.ended || !file.announced);
        if matters || is_last && self.transfer.ends_with_its_files() {
            self.count();
        }
    }

    fn count(&mut self) {
        let counted = Input::FilesCounted {
            totals: self.totals(),
            at: self.now,
        };
        self.take(counted);
    }

    /// The verdict, once it is written.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        match &self.transfer.phase {
            Phase::Settling(settlement) => Some(&settlement.verdict),
            Phase::Settled(settled) => settled.verdict.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn decided(&self) -> (Status, Cause, Duration) {
        let verdict = self.verdict().expect("a verdict");
        (
            verdict.status,
            verdict.cause,
            verdict.decided_at.since(START),
        )
    }

    /// Does what is owed now. Returns the files that were adopted.
    pub(crate) fn work(&mut self) -> Vec<usize> {
        let mut adopted = Vec::new();
        for _ in 0..64 {
            let input = match self.transfer.next_step(self.now, &self.clocks) {
                Step::Wait => return adopted,
                Step::CountFiles => {
                    self.count();
                    continue;
                }
                Step::CheckCompleteness => self.look(&mut adopted),
                Step::Stop(reason) => Input::Stop(reason),
                Step::FenceFiles => Input::FilesFenced {
                    totals: self.totals(),
                    leased_until: None,
                },
                Step::Settle => {
                    self.take(Input::SettlementBegun);
                    Input::SettlementAnswered(Answer::Accepted)
                }
                Step::Confirm => Input::Listed(Listing::Absent),
                Step::Reconcile => Input::Listed(Listing::Active),
                Step::Report => Input::Reporting { percent: 1 },
                step
                @ (Step::Answer | Step::LookForToken | Step::Warn | Step::BeginSecondPhase) => {
                    unreachable!("{step:?} on Connect")
                }
            };
            self.take(input);
        }
        panic!("owed more than 64 steps at once: {:?}", self.transfer);
    }

    fn look(&mut self, adopted: &mut Vec<usize>) -> Input {
        if self.transfer.needs_file_list() {
            if !self.listable {
                return Input::PlatformUnavailable { retry_after: None };
            }
            for index in 0..self.files.len() {
                if !self.files[index].announced {
                    adopted.push(index);
                    self.announce(index);
                }
            }
        }
        self.count();
        let known = || self.files.iter().filter(|file| file.announced);
        let facts: Vec<FileFacts> = known()
            .filter(|file| !file.manifest)
            .map(|file| FileFacts {
                label: Some(file.label.to_owned()),
                ended: file.ended,
                unreadable: matches!(file.outcome, FileOutcome::Unreadable { .. }),
                read: file.counts.read,
                ..FileFacts::default()
            })
            .collect();
        let found = evaluate(&ExportFacts {
            files: &facts,
            manifest: self
                .manifest
                .as_ref()
                .filter(|_| self.transfer.exporter.manifest),
            counted_labels: true,
            evidence: self.transfer.evidence(self.now, &self.clocks),
        });
        match found {
            Completeness::Complete { evidence, missing } => {
                Input::ExportComplete { evidence, missing }
            }
            Completeness::Waiting(waiting_for) => Input::ExportIncomplete {
                waiting_for,
                files_ended: known().filter(|file| file.ended).count() as u64,
            },
        }
    }

    fn totals(&self) -> FileTotals {
        let known = || self.files.iter().filter(|file| file.announced);
        let ended = || known().filter(|file| file.ended);
        let count = |files: usize| files as u64;
        let mut failed: Vec<(Timestamp, &String)> = ended()
            .filter_map(|file| match &file.outcome {
                FileOutcome::Imported | FileOutcome::Stopped => None,
                FileOutcome::Unreadable { reason } | FileOutcome::Poisoned { reason } => {
                    Some((file.moved_at, reason))
                }
            })
            .collect();
        failed.sort();
        let poisoned = |file: &&File| matches!(file.outcome, FileOutcome::Poisoned { .. });
        let last_moved_at = known().map(|file| file.moved_at).max();
        FileTotals {
            known: count(known().count()),
            ended: count(ended().count()),
            failed: count(failed.len()),
            poisoned: count(ended().filter(poisoned).count()),
            counts: ended().fold(Counts::default(), |sum, file| sum + file.counts),
            first_problem: failed.first().map(|(_, reason)| (*reason).clone()),
            manifest: ended().any(|file| file.manifest),
            last_received_at: last_moved_at,
            last_moved_at,
            ..FileTotals::default()
        }
    }

    /// Lets time pass until then, or until the verdict is written.
    pub(crate) fn run_until(&mut self, end: Timestamp) {
        self.work();
        while self.verdict().is_none() {
            let Some(mut next) = self.transfer.due_at(&self.clocks) else {
                return;
            };
            if let Some((pause, _)) = &self.chatter {
                next = next.min(self.chatted_at + *pause);
            }
            if next >= end {
                break;
            }
            assert!(next > self.now, "time stands still: {:?}", self.transfer);
            self.now = next;
            if let Some((pause, input)) = self.chatter.clone()
                && self.now >= self.chatted_at + pause
            {
                self.chatted_at = self.now;
                self.take(input);
            }
            self.work();
        }
        self.now = self.now.max(end);
    }

    /// Lets time pass until the verdict is written.
    pub(crate) fn run(&mut self) {
        let end = START + Duration::from_hours(20 * 24);
        self.run_until(end);
        assert!(self.verdict().is_some(), "no verdict: {:?}", self.transfer);
    }
}
