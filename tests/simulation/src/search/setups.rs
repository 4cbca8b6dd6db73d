use landfall_transfer::Flavour;

use crate::platform::Switches;
use crate::scene::{Act, Content, File, Scene};

/// Where a search begins, and who takes part.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What it is about.
    pub name: &'static str,
    /// Site, clocks and what is exported.
    pub(crate) scene: Scene,
    /// What has happened before, calmly.
    pub prepared: Vec<Prepared>,
    /// Who takes part.
    pub tasks: Vec<TaskKind>,
    /// How often a task that could go on is interrupted at most; none: as often as can be.
    pub preemptions: Option<usize>,
    /// Whether it is small enough for a test that is not optimised.
    pub small: bool,
}

/// Something that has happened before the search begins.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// The outside did something, and intake took it in.
    Act(Act),
    /// Workers took in what this queue held: 0 for events, 1 for files.
    WorkOff(usize),
    /// The platform ended a transfer, and its event for that got lost.
    EndsUntold(&'static str),
    /// The row of a file of transfer `t` was lost, so that only its message survives.
    LosesRow(&'static str),
    /// A sweeper ran.
    Sweep,
    /// So many seconds went by.
    Wait(u64),
}

/// Who takes part.
#[derive(Clone, Debug)]
pub enum TaskKind {
    /// A worker with the next message of a queue: 0 for events, 1 for files.
    Worker(usize),
    /// A worker that was handed the message of the task before it, too.
    SameMessage(usize),
    /// A sweeper.
    Sweeper,
    /// Somebody who lets so many seconds pass, one after the other, whenever the search likes.
    Time(Vec<u64>),
}

impl Setup {
    /// The tasks that may go on after a path, of those that can.
    pub(crate) fn choices(&self, path: &[usize], ready: Vec<usize>) -> Vec<usize> {
        let left = self.left(path, |task| ready.contains(&task));
        match (left, path.last()) {
            (Some((0, _)), Some(last)) if ready.contains(last) => vec![*last],
            _ => ready,
        }
    }

    /// Interruptions that are left after a path, and who was at it; none when there is no bound.
    pub(crate) fn left(
        &self,
        path: &[usize],
        may: impl Fn(usize) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let bound = self.preemptions?;
        // Whoever stopped because it had ended was not interrupted.
        let mut made = 0;
        for (place, pair) in path.windows(2).enumerate() {
            let goes_on = path[place + 1..].contains(&pair[0]) || may(pair[0]);
            made += usize::from(pair[0] != pair[1] && goes_on);
        }
        Some((bound.saturating_sub(made), path.last().copied()))
    }
}

const CLOCKS: &str = "[completeness]\nquiet_period = \"8m\"\n\
     [clocks]\nreconcile_interval = \"10m\"\nwaiting_report_interval = \"15m\"\nexport_silence = \"40m\"\n\
     work_stale_after = \"1h\"\n";

/// A message is answered twelve minutes after it was received (`clocks.forge_answer_by`).
const ANSWER_DUE: u64 = 12 * 60 + 1;

const BEGIN: Act = Act::Begin {
    id: "t",
    original: None,
    told: true,
};

const AGAIN: Act = Act::Begin {
    id: "u",
    original: Some("t"),
    told: true,
};

const FILE: Act = Act::Upload(File {
    transfer: "t",
    key: "f1",
    label: "a.ndjson",
    content: Content::Records(2, 0),
    told: true,
});

/// A file of two batches, after which it is found to end: a late worker could put its progress back.
const LONGER: Act = Act::Upload(File {
    transfer: "t",
    key: "f1",
    label: "a.ndjson",
    content: Content::Records(8, 0),
    told: true,
});

const MANIFEST: Act = Act::Upload(File {
    transfer: "t",
    key: "fm",
    label: "export-manifest",
    content: Content::Manifest(&[("a.ndjson", 2)]),
    told: true,
});

/// A file that no manifest names, so that nobody waits for it; without a record, for none would be missed.
const FURTHER: Act = Act::Upload(File {
    transfer: "t",
    key: "f2",
    label: "b.ndjson",
    content: Content::Records(0, 0),
    told: true,
});

const LEASE: u64 = 91;
/// The quiet period, and a second.
const QUIET: u64 = 8 * 60 + 1;

fn setup(name: &'static str, prepared: Vec<Prepared>, tasks: Vec<TaskKind>) -> Setup {
    let acts = prepared.iter().filter_map(|prepared| match prepared {
        Prepared::Act(act) => Some((0, act.clone())),
        _ => None,
    });
    Setup {
        name,
        scene: Scene {
            name,
            flavour: Flavour::Connect,
            switches: Switches::default(),
            configuration: CLOCKS,
            acts: acts.collect(),
            slow: &[],
            also: &[],
            short: false,
        },
        prepared,
        tasks,
        preemptions: None,
        small: false,
    }
}

/// All setups.
pub fn setups() -> Vec<Setup> {
    use Prepared::{Act, EndsUntold, Sweep, Wait, WorkOff};
    use TaskKind::{SameMessage, Sweeper, Time, Worker};
    let cancel = || Act(crate::scene::Act::Cancel("t"));
    let ended = || Act(crate::scene::Act::PlatformEnds("t"));
    let announced = |file| vec![Sweep, Act(BEGIN), WorkOff(0), Act(file)];
    let imported = || {
        vec![
            Sweep,
            Act(BEGIN),
            WorkOff(0),
            Act(FILE),
            WorkOff(1),
            Act(MANIFEST),
        ]
    };
    let with = |mut prepared: Vec<Prepared>, more: Vec<Prepared>| {
        prepared.extend(more);
        prepared
    };
    let quiet = || {
        let prepared = vec![Sweep, Act(BEGIN), WorkOff(0), Act(FILE), WorkOff(1)];
        with(prepared, vec![Wait(QUIET)])
    };
    let all = vec![
        setup(
            "claim, commit, end: two workers with one message, and the lease runs out",
            announced(LONGER),
            vec![Worker(1), SameMessage(1), Time(vec![LEASE])],
        ),
        setup(
            "sweep: two sweepers and a worker at a file that is due",
            with(announced(FILE), vec![Wait(121)]),
            vec![Worker(1), Sweeper, Sweeper],
        ),
        setup(
            "settle: two workers end the last file at once",
            imported(),
            vec![Worker(1), SameMessage(1)],
        ),
        setup(
            "settle: two sweepers after a quiet period",
            quiet(),
            vec![Sweeper, Sweeper],
        ),
        setup(
            "cancel: a worker and the cancellation",
            with(announced(FILE), vec![cancel()]),
            vec![Worker(1), Worker(0)],
        ),
        setup(
            "cancel: a sweeper that settles, and the cancellation",
            with(quiet(), vec![cancel()]),
            vec![Sweeper, Worker(0)],
        ),
        setup(
            "settled elsewhere: a worker and the platform's word",
            with(announced(FILE), vec![ended()]),
            vec![Worker(1), Worker(0)],
        ),
        setup(
            "re-run: an old worker and the new attempt's first event",
            with(announced(FILE), vec![EndsUntold("t"), Act(AGAIN)]),
            vec![Worker(1), Worker(0)],
        ),
    ];
    let all = all.into_iter().chain(on_forge());
    let small = |setup: Setup| Setup {
        small: SMALL.iter().any(|name| setup.name.starts_with(name)),
        ..setup
    };
    all.chain(crowds()).map(small).collect()
}

/// Messages that several could answer at once.
fn on_forge() -> Vec<Setup> {
    use Prepared::{Act, Sweep, Wait, WorkOff};
    use TaskKind::{Sweeper, Worker};
    let announced = [Sweep, Act(BEGIN), WorkOff(0), Act(FILE)];
    let imported = || announced.iter().cloned().chain([WorkOff(1)]);
    let complete = Act(crate::scene::Act::ExportComplete("t"));
    let cancel = || Act(crate::scene::Act::Cancel("t"));
    let all = [
        setup(
            "on Forge, answer: two sweepers when an answer is due",
            imported().chain([Wait(ANSWER_DUE)]).collect(),
            vec![Sweeper, Sweeper],
        ),
        setup(
            "on Forge, answer: the end of the export and a sweeper, when an answer is due",
            imported()
                .chain([Wait(ANSWER_DUE), complete.clone()])
                .collect(),
            vec![Worker(0), Sweeper],
        ),
        setup(
            "on Forge, cancel: the end of the export and the cancellation",
            imported().chain([complete, cancel()]).collect(),
            vec![Worker(0), Worker(0)],
        ),
        setup(
            "on Forge, cancel: the cancellation and a file that nobody has taken up",
            announced.iter().cloned().chain([cancel()]).collect(),
            vec![Worker(1), Worker(0)],
        ),
    ];
    let forge = |mut setup: Setup| {
        setup.scene.flavour = Flavour::Forge;
        setup
    };
    all.map(forge).into()
}

/// Too many for every order, or with too much to do.
fn crowds() -> Vec<Setup> {
    use Prepared::{Act, EndsUntold, LosesRow, Sweep, Wait, WorkOff};
    use TaskKind::{SameMessage, Sweeper, Time, Worker};
    let prepared = |more: Vec<Prepared>| {
        let announced = vec![Sweep, Act(BEGIN), WorkOff(0), Act(FILE), Wait(121)];
        announced.into_iter().chain(more).collect()
    };
    let cancel = Act(crate::scene::Act::Cancel("t"));
    vec![
        bounded(
            2,
            setup(
                "settle: a worker with the manifest, and one with a file that becomes known meanwhile",
                vec![
                    Sweep,
                    Act(BEGIN),
                    WorkOff(0),
                    Act(FILE),
                    WorkOff(1),
                    Act(MANIFEST),
                    Act(FURTHER),
                    LosesRow("f2"),
                ],
                vec![Worker(1), Worker(1)],
            ),
        ),
        bounded(
            1,
            setup(
                "two workers, two sweepers and the cancellation, and the lease runs out",
                prepared(vec![cancel.clone()]),
                vec![
                    Worker(1),
                    SameMessage(1),
                    Sweeper,
                    Sweeper,
                    Worker(0),
                    Time(vec![LEASE]),
                ],
            ),
        ),
        bounded(
            0,
            setup(
                "two workers, two sweepers, the cancellation, a re-run's first event, and the lease runs out",
                prepared(vec![cancel, EndsUntold("t"), Act(AGAIN)]),
                vec![
                    Worker(1),
                    SameMessage(1),
                    Sweeper,
                    Sweeper,
                    Worker(0),
                    Worker(0),
                    Time(vec![LEASE]),
                ],
            ),
        ),
    ]
}

/// Setups that are searched within seconds where nothing is optimised.
const SMALL: &[&str] = &["claim", "sweep", "settle: two"];

/// At most so many interruptions: in every order there would be too many to finish.
fn bounded(preemptions: usize, setup: Setup) -> Setup {
    Setup {
        preemptions: Some(preemptions),
        ..setup
    }
}
