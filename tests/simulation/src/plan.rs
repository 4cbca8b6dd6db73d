//! What a seed means: the migrations, what the admins and the server apps do, and what goes wrong. A plan is data, so that a failing
//! one can be made smaller and kept.

use serde::{Deserialize, Serialize};

use crate::faults::{Faults, Outage, Service};
use crate::random::Random;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Everything that a run is made of. Times are seconds after the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides latencies, orders and when faults happen.
    pub seed: u64,
    /// The migrations.
    pub migrations: Vec<Migration>,
    /// What goes wrong until [`Plan::calm_at`].
    pub faults: Faults,
    /// Most faults that happen.
    pub faults_at_most: u64,
    /// Services that are away for a while.
    pub outages: Vec<Outage>,
    /// When faults stop.
    pub calm_at: u64,
    /// Clocks that jump.
    pub jumps: Vec<Jump>,
    /// A deploy: between these two, some workers already run the next release.
    pub deploy: Option<(u64, u64)>,
    /// Two sweepers run at once in so many of a hundred sweeps.
    pub double_sweeps: u64,
    /// Sweeps that don't happen, of a hundred.
    pub missed_sweeps: u64,
    /// How the platform reads the percent of a final status: 0 to 3.
    pub percent: u8,
    /// What it answers for a transfer that is over.
    pub over: u16,
    /// How long it lists a settled transfer.
    pub listed_for: u64,
    /// Whether its object store knows ranges.
    pub ranges: bool,
    /// Whether its settled event names the status.
    pub names_status: bool,
    /// Time between two comparisons with the platform's lists.
    pub reconcile: u64,
    /// Whether the sweeper is deployed.
    pub sweeper: bool,
}

/// One app migration of one site, re-runs included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// The site; see [`is_on_forge`].
    pub tenant: u64,
    /// When the admin starts it.
    pub starts: u64,
    /// Files that the server app uploads.
    pub files: Vec<File>,
    /// When, after the last file, the manifest is uploaded; none when there is none.
    pub manifest: Option<u64>,
    /// How the server app's part ends.
    pub exporter: Exporter,
    /// When the admin cancels.
    pub cancelled: Option<u64>,
    /// When the platform ends it by itself.
    pub ended: Option<u64>,
    /// How long after a failure the admin re-runs it; each re-run exports cleanly.
    pub rerun: Option<u64>,
    /// How its events travel.
    pub events: Delivery,
}

/// The first tenant on Forge.
const FORGE: u64 = 100;

/// Whether a site has the app on Forge. A site has one flavour for ever, so its number says it.
pub const fn is_on_forge(tenant: u64) -> bool {
    tenant >= FORGE
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Seconds after the start of its migration.
    pub at: u64,
    /// Good records.
    pub records: u64,
    /// Records whose user has no mapping.
    pub unmapped: u64,
    /// Records that are no JSON.
    pub broken: u64,
    /// Whether it kills every worker that fetches it.
    pub poison: bool,
}

/// How the server app's part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exporter {
    /// Everything is uploaded.
    Done,
    /// Its listener fails after so many files.
    Fails(u64),
    /// It dies silently after so many files; a manifest or counted labels tell that more should have come.
    Dies(u64),
}

/// How events travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Events that never leave, of a hundred.
    pub lost: u64,
    /// Events that are delivered again although they were acknowledged, of a hundred.
    pub repeated: u64,
    /// Longest delay.
    pub delay: u64,
    /// Attempts after which the platform gives up.
    pub attempts: u64,
}

/// A machine's clock is off from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// When.
    pub at: u64,
    /// Which worker.
    pub worker: u64,
    /// By how much, in milliseconds.
    pub off_by_ms: i64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Whole days pass in some runs, minutes in others: a sweep that finds nothing costs little, but not nothing.
        let long = random.percent(12);
        let tenants = random.between(1, 3);
        let number = if long {
            random.between(1, 2)
        } else {
            random.between(1, 5)
        };
        let mut migrations: Vec<Migration> = (0..number)
            .map(|_| Migration::draw(&mut random.fork(), tenants, long))
            .collect();
        let mut faults = random.fork();
        let mut rest = random.fork();
        let mut flavours = random.fork();
        // Some runs are on Forge alone, some on both.
        let from = *flavours.pick(&[0, 1, tenants, tenants]);
        for migration in &mut migrations {
            if migration.tenant >= from && !long {
                migration.move_to_forge(&mut flavours);
            }
        }
        let calm_at = if long {
            rest.between(2 * HOUR, 3 * DAY)
        } else {
            rest.between(20 * MINUTE, 4 * HOUR)
        };
        Self {
            seed,
            migrations,
            faults: draw_faults(&mut faults),
            faults_at_most: u64::MAX,
            outages: draw_outages(&mut faults, calm_at),
            calm_at,
            jumps: (0..rest.below(4))
                .map(|_| Jump {
                    at: rest.below(calm_at),
                    worker: rest.below(4),
                    off_by_ms: i64::try_from(rest.below(10 * MINUTE * 1_000)).unwrap_or(0)
                        - 300_000,
                })
                .collect(),
            deploy: rest.percent(30).then(|| {
                let from = rest.below(calm_at);
                (from, from + rest.between(MINUTE, 20 * MINUTE))
            }),
            double_sweeps: *rest.pick(&[0, 10, 50, 100]),
            missed_sweeps: *rest.pick(&[0, 0, 5, 30]),
            percent: u8::try_from(rest.below(4)).unwrap_or(0),
            over: *rest.pick(&[403, 404, 409, 400]),
            listed_for: *rest.pick(&[0, 0, 5, 45]),
            ranges: rest.percent(70),
            names_status: rest.percent(60),
            reconcile: if long {
                *rest.pick(&[10 * MINUTE, 14 * MINUTE])
            } else {
                *rest.pick(&[5 * MINUTE, 10 * MINUTE])
            },
            sweeper: true,
        }
    }
}

impl Migration {
    fn draw(random: &mut Random, tenants: u64, long: bool) -> Self {
        let files = random.below(if long { 4 } else { 6 });
        let pace = if long { 20 * HOUR } else { 20 * MINUTE };
        let exporter = match random.below(10) {
            0 | 1 => Exporter::Fails(random.below(files + 1)),
            2 if long => Exporter::Dies(random.below(files + 1)),
            _ => Exporter::Done,
        };
        let mut at = 0;
        let troubled = random.percent(30);
        let files = (0..files)
            .map(|_| {
                at += random.below(pace / 4 + 1);
                File {
                    at,
                    records: random.below(14),
                    unmapped: if troubled { random.below(3) } else { 0 },
                    broken: if troubled { random.below(3) } else { 0 },
                    poison: random.percent(3),
                }
            })
            .collect();
        Self {
            tenant: random.below(tenants),
            starts: random.below(if long { HOUR } else { 30 * MINUTE }),
            files,
            // Without a manifest nothing is complete before a day of silence.
            manifest: (!long || random.percent(50)).then(|| random.below(5 * MINUTE)),
            exporter,
            cancelled: random.percent(15).then(|| random.below(2 * pace)),
            ended: random.percent(4).then(|| random.below(2 * pace)),
            rerun: random.percent(60).then(|| random.below(20 * MINUTE)),
            events: Delivery {
                lost: *random.pick(&[0, 0, 0, 5, 30]),
                repeated: *random.pick(&[0, 10, 60]),
                delay: *random.pick(&[0, 5, MINUTE, 10 * MINUTE]),
                attempts: random.between(3, 12),
            },
        }
    }
}

impl Migration {
    /// The same migration on Forge, where a quarter of an hour decides: what is uploaded, and lost, is so within minutes.
    fn move_to_forge(&mut self, random: &mut Random) {
        self.tenant += FORGE;
        self.events.delay = self.events.delay.min(5);
        self.events.attempts = self.events.attempts.max(5);
        if random.percent(50) {
            for file in &mut self.files {
                file.at /= 8;
            }
        }
    }
}

fn draw_faults(random: &mut Random) -> Faults {
    // Some runs see one kind of fault only, and often; most see a little of everything.
    let mut rate = |most: u64| -> u32 {
        let most = if random.percent(35) { 0 } else { most };
        u32::try_from(random.below(most + 1)).unwrap_or(0)
    };
    Faults {
        throttled: rate(20_000),
        contended: rate(20_000),
        lost_before: rate(15_000),
        lost_after: rate(20_000),
        repeated: rate(20_000),
        die_before: rate(8_000),
        die_after: rate(8_000),
        twice: rate(100_000),
        latency_ms: u64::from(rate(400)),
        hang_ms: u64::from(rate(100_000)),
        index_lag_ms: u64::from(rate(60_000)),
    }
}

fn draw_outages(random: &mut Random, calm_at: u64) -> Vec<Outage> {
    let services = [Service::Table, Service::Queues, Service::Platform];
    let mut outages: Vec<Outage> = (0..random.below(4))
        .map(|_| Outage {
            service: *random.pick(&services),
            from_s: random.below(calm_at),
            for_s: random.below(8 * MINUTE),
            silent: false,
        })
        .collect();
    // Now and then a whole region is away, and nobody knows what became of his calls.
    if random.percent(8) {
        let (from_s, for_s) = (random.below(calm_at), random.below(8 * MINUTE));
        let away = [Service::Table, Service::Queues].map(|service| Outage {
            service,
            from_s,
            for_s,
            silent: true,
        });
        outages.extend(away);
    }
    outages
}
