//! Every order of up to six events.

use std::time::Duration;

use landfall_transfer::{Cause, Clocks, Counts, Input, Status};

use crate::world::{File, START, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Triggered,
    UploadA,
    UploadB,
    EndA,
    EndB,
    Errored,
    Cancelled,
    ExportComplete,
}

const EVENTS: [Event; 8] = [
    Event::Triggered,
    Event::UploadA,
    Event::UploadB,
    Event::EndA,
    Event::EndB,
    Event::Errored,
    Event::Cancelled,
    Event::ExportComplete,
];

const MINUTE: Duration = Duration::from_mins(1);

fn clocks() -> Clocks {
    Clocks {
        reconcile_interval: Duration::from_hours(500),
        waiting_report_interval: Duration::from_hours(500),
        ..Clocks::default()
    }
}

/// A day in which these events arrive, one a minute. What was uploaded is on the platform's list from the beginning, however
/// late its event; an import can end no sooner than its file is known.
struct Day {
    world: World,
    may_end: Vec<&'static str>,
}

impl Day {
    fn of(events: &[Event]) -> World {
        let mut files = Vec::new();
        for (event, label) in [(Event::UploadA, "a"), (Event::UploadB, "b")] {
            if events.contains(&event) {
                let counts = Counts {
                    read: 2,
                    applied: 2,
                    ..Counts::default()
                };
                files.push(File::new(label, counts));
            }
        }
        let mut day = Self {
            world: World::new(clocks(), files, None),
            may_end: Vec::new(),
        };
        for (minute, event) in (1..).zip(events) {
            day.world.run_until(START + MINUTE * minute);
            day.take(*event);
            day.settle_down();
        }
        day.world.run();
        day.world
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Triggered => self.world.take(Input::ListenerTriggered),
            Event::UploadA => self.announce("a"),
            Event::UploadB => self.announce("b"),
            Event::EndA => self.may_end.push("a"),
            Event::EndB => self.may_end.push("b"),
            Event::Errored => self.world.take(Input::ListenerErrored { exception: None }),
            Event::Cancelled => self.world.take(Input::CancelRequested),
            Event::ExportComplete => self.world.take(Input::ExportPhaseCompleted),
        }
    }

    fn announce(&mut self, label: &str) {
        let index = self.world.files.iter().position(|file| file.label == label);
        self.world.announce(index.unwrap());
    }

    /// Imports end, and what they make due is done.
    fn settle_down(&mut self) {
        for _ in 0..2 {
            for index in 0..self.world.files.len() {
                if self.may_end.contains(&self.world.files[index].label) {
                    self.world.end(index);
                }
            }
            self.world.work();
        }
    }
}

/// Every choice of at most `most` events, in every order.
fn orders(most: usize) -> Vec<Vec<Event>> {
    let mut all = vec![Vec::new()];
    let mut longest: Vec<Vec<Event>> = all.clone();
    for _ in 0..most {
        longest = longest
            .iter()
            .flat_map(|events| {
                let others = EVENTS.into_iter().filter(|event| !events.contains(event));
                others.map(|event| [events.as_slice(), &[event]].concat())
            })
            .collect();
        all.extend(longest.iter().cloned());
    }
    all
}

/// What must come of events in this order, read off the rules.
fn expected(events: &[Event]) -> (Status, Cause) {
    let at = |event| events.iter().position(|known| *known == event);
    let uploaded = [(Event::UploadA, Event::EndA), (Event::UploadB, Event::EndB)];
    let files = || uploaded.iter().filter(|(upload, _)| at(*upload).is_some());
    // When nothing is open any more: a file ends when it may, and nothing that was uploaded is overlooked.
    let all_end = files().all(|(_, end)| at(*end).is_some());
    let last_end = files().filter_map(|(_, end)| at(*end)).max();
    // An exporter that is done or broken is believed once the files have ended: those on the list are imported, too. A file
    // that ends before anybody knows of it ends as soon as it is known.
    let decided_by = |signal: Event| {
        let signalled = at(signal).filter(|_| all_end)?;
        Some(signalled.max(last_end.unwrap_or(0)))
    };
    let exported = decided_by(Event::ExportComplete);
    let errored = decided_by(Event::Errored);
    let cancelled = at(Event::Cancelled);
    let complete = match (exported, errored) {
        // The failure outweighs what it is known together with.
        (Some(exported), Some(errored)) if errored <= exported => Some((errored, false)),
        (Some(exported), _) => Some((exported, true)),
        (None, Some(errored)) => Some((errored, false)),
        (None, None) => None,
    };
    // The list is read once the exporter is done or broken, as soon as no file is open that is known by its event.
    let signalled = at(Event::ExportComplete)
        .into_iter()
        .chain(at(Event::Errored))
        .min();
    let listed = signalled.and_then(|from| {
        (from..events.len()).find(|moment| {
            files().all(|(upload, end)| {
                at(*upload) > Some(*moment) || at(*end).is_some_and(|end| end <= *moment)
            })
        })
    });
    let arrived_by = |moment: usize| {
        files().any(|(upload, end)| {
            let known = at(*upload).into_iter().chain(listed).min();
            let known = known.unwrap_or(usize::MAX);
            at(*end).is_some_and(|end| end.max(known) <= moment)
        })
    };
    let by_arrival = |moment| {
        if arrived_by(moment) {
            Status::Incomplete
        } else {
            Status::Failed
        }
    };
    if let Some(cancelled) = cancelled
        && complete.is_none_or(|(moment, _)| cancelled < moment)
    {
        return (by_arrival(cancelled), Cause::Cancelled);
    }
    match complete {
        Some((_, true)) => (Status::Success, Cause::Complete),
        Some((moment, false)) => (by_arrival(moment), Cause::ListenerError),
        None if at(Event::Errored).is_some() => (by_arrival(usize::MAX), Cause::ListenerError),
        None if files().next().is_none() => (Status::Failed, Cause::NoFile),
        None if all_end => (Status::Success, Cause::Complete),
        None => (Status::Failed, Cause::WorkStale),
    }
}

#[test]
pub(crate) fn every_order_of_up_to_six_events_ends_as_the_rules_say() {
    let orders = orders(6);
    assert_eq!(orders.len(), 28_961);
    let mut by_set: std::collections::BTreeMap<u8, (Status, Cause)> =
        std::collections::BTreeMap::new();
    for events in orders {
        let world = Day::of(&events);
        let (status, cause, _) = world.decided();
        assert_eq!(
            (status, cause),
            expected(&events),
            "{events:?}: {:?}",
            world.verdict()
        );
        // Without a cancellation, and unless an exporter is both done and broken, only the set counts.
        let ends_twice =
            events.contains(&Event::Errored) && events.contains(&Event::ExportComplete);
        if !events.contains(&Event::Cancelled) && !ends_twice {
            let set = events
                .iter()
                .fold(0, |set, event| set | 1_u8 << *event as u8);
            let first = *by_set.entry(set).or_insert((status, cause));
            assert_eq!((status, cause), first, "{events:?}");
        }
    }
}
