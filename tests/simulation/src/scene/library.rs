use std::time::Duration;

use landfall_transfer::Flavour;

use crate::platform::{Percent, Switches};
use crate::scene::{Act, Content, File, Scene};

/// Clocks that bring the end of every wait near, so that a scene is short.
const CLOCKS: &str = "[completeness]\nquiet_period = \"20m\"\n\
     [clocks]\nreconcile_interval = \"10m\"\nwaiting_report_interval = \"15m\"\nexport_silence = \"40m\"\n\
     work_stale_after = \"1h\"\n";

/// The same, with a deadline that comes before anything else.
const SHORT_DEADLINE: &str = "[completeness]\nquiet_period = \"20m\"\n\
     [clocks]\nreconcile_interval = \"10m\"\nwaiting_report_interval = \"15m\"\nexport_silence = \"28m\"\n\
     work_stale_after = \"28m\"\nhard_deadline = \"30m\"\n";

const TWO: &[(&str, u64)] = &[("a.ndjson", 8), ("b.ndjson", 8)];
const ONE: &[(&str, u64)] = &[("a.ndjson", 8)];

/// A migration that begins now.
const fn begin(id: &'static str) -> Act {
    Act::Begin {
        id,
        original: None,
        told: true,
    }
}

/// A re-run that begins now.
const fn again(id: &'static str, original: &'static str) -> Act {
    Act::Begin {
        id,
        original: Some(original),
        told: true,
    }
}

const fn file(transfer: &'static str, key: &'static str, label: &'static str) -> File {
    File {
        transfer,
        key,
        label,
        content: Content::Records(8, 0),
        told: true,
    }
}

/// A file two of whose records nobody has a mapping for.
const fn partly_mapped(transfer: &'static str, key: &'static str, label: &'static str) -> File {
    File {
        content: Content::Records(6, 2),
        ..file(transfer, key, label)
    }
}

/// A file whose records have changed since the attempt before.
const fn changed(transfer: &'static str, key: &'static str, label: &'static str) -> File {
    File {
        content: Content::Changed(8),
        ..file(transfer, key, label)
    }
}

/// A file whose event is never sent.
const fn untold(file: File) -> File {
    File {
        told: false,
        ..file
    }
}

const fn manifest(
    transfer: &'static str,
    key: &'static str,
    names: &'static [(&'static str, u64)],
) -> File {
    File {
        transfer,
        key,
        label: "export-manifest",
        content: Content::Manifest(names),
        told: true,
    }
}

fn scene(name: &'static str, acts: Vec<(u64, Act)>) -> Scene {
    Scene {
        name,
        flavour: Flavour::Connect,
        switches: Switches::default(),
        configuration: CLOCKS,
        acts,
        slow: &[],
        also: &[],
        short: false,
    }
}

/// All scenes.
pub fn scenes() -> Vec<Scene> {
    let mut all = exports();
    all.extend(broken_exports());
    all.extend(ended_from_outside());
    all.extend(reruns());
    all.extend(percent_forms());
    all.extend(on_forge());
    all
}

/// Exports that come to their end.
fn exports() -> Vec<Scene> {
    vec![
        Scene {
            short: true,
            ..scene(
                "one file and its manifest",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (2, Act::Upload(manifest("t", "fm", ONE))),
                ],
            )
        },
        scene(
            "two files and a manifest",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (1, Act::Upload(file("t", "f2", "b.ndjson"))),
                (2, Act::Upload(manifest("t", "fm", TWO))),
            ],
        ),
        scene(
            "some records without a mapping",
            vec![
                (0, begin("t")),
                (1, Act::Upload(partly_mapped("t", "f1", "a.ndjson"))),
                (2, Act::Upload(manifest("t", "fm", ONE))),
            ],
        ),
        scene(
            "one file and a quiet period",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
            ],
        ),
        scene(
            "rows that nobody can read are due",
            vec![
                (0, Act::StrangeRows(4)),
                (1, begin("t")),
                (2, Act::Upload(file("t", "f1", "a.ndjson"))),
            ],
        ),
        scene(
            "every event lost",
            vec![
                (
                    0,
                    Act::Begin {
                        id: "t",
                        original: None,
                        told: false,
                    },
                ),
                (1, Act::Upload(untold(file("t", "f1", "a.ndjson")))),
                (2, Act::Upload(untold(manifest("t", "fm", ONE)))),
            ],
        ),
    ]
}

/// Exports that don't.
fn broken_exports() -> Vec<Scene> {
    vec![
        Scene {
            // When the platform's list can't be read at the very end, nobody can say that it names no file.
            also: &[("t", "FAILED", "exporter_silent")],
            ..scene("no file at all", vec![(0, begin("t"))])
        },
        scene(
            "the listener fails after one file",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a-1-of-2.ndjson"))),
                (3, Act::ListenerFails("t")),
            ],
        ),
        scene(
            "the exporter falls silent",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a-1-of-2.ndjson"))),
            ],
        ),
        Scene {
            configuration: SHORT_DEADLINE,
            ..scene(
                "the deadline passes",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a-1-of-3.ndjson"))),
                    (15 * 60, Act::Upload(file("t", "f2", "a-2-of-3.ndjson"))),
                ],
            )
        },
        scene(
            "a poison file",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (1, Act::Upload(file("t", "poison", "b.ndjson"))),
                (2, Act::Upload(manifest("t", "fm", TWO))),
            ],
        ),
        scene(
            "a dead letter",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "cursed", "b.ndjson"))),
            ],
        ),
    ]
}

/// Transfers that somebody else ends.
fn ended_from_outside() -> Vec<Scene> {
    vec![
        Scene {
            slow: &[("chunk", 3_000)],
            short: true,
            // Nothing had arrived yet when the cancellation was taken in later than its file was begun, or before.
            also: &[
                ("t", "FAILED", "cancelled"),
                ("t", "INCOMPLETE", "cancelled"),
            ],
            ..scene(
                "cancelled in the middle of a file",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (6, Act::Cancel("t")),
                ],
            )
        },
        Scene {
            // The calls that settle take so long that the cancellation arrives between them.
            slow: &[("progress", 2_000), ("recent", 2_000)],
            // An admin who cancels before the last file has ended is heard; whether that is so, one lost second decides.
            also: &[
                ("t", "INCOMPLETE", "cancelled"),
                ("t", "FAILED", "cancelled"),
                ("t", "SUCCESS", "complete"),
            ],
            ..scene(
                "cancelled while it is settled",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (2, Act::Upload(manifest("t", "fm", ONE))),
                    (6, Act::Cancel("t")),
                ],
            )
        },
        Scene {
            slow: &[("chunk", 3_000)],
            ..scene(
                "ended by the platform",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (6, Act::PlatformEnds("t")),
                ],
            )
        },
    ]
}

/// Attempts that follow each other.
fn reruns() -> Vec<Scene> {
    vec![
        Scene {
            // The old attempt's worker is slow, and still at its file when the new attempt begins.
            slow: &[("chunk", 8_000)],
            ..scene(
                "a re-run while an old worker is at it",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (6, Act::PlatformEnds("t")),
                    (8, again("u", "t")),
                    (9, Act::Upload(file("u", "g1", "a.ndjson"))),
                    (10, Act::Upload(manifest("u", "gm", ONE))),
                ],
            )
        },
        scene(
            "a re-run of an incomplete attempt",
            vec![
                (0, begin("t")),
                (1, Act::Upload(partly_mapped("t", "f1", "a.ndjson"))),
                (2, Act::Upload(manifest("t", "fm", ONE))),
                (45 * 60, again("u", "t")),
                (45 * 60 + 1, Act::Upload(file("u", "g1", "a.ndjson"))),
                (45 * 60 + 2, Act::Upload(manifest("u", "gm", ONE))),
            ],
        ),
    ]
}

/// The platform's several readings of a final status.
fn percent_forms() -> Vec<Scene> {
    [
        ("only percent 100 counts", Percent::OnlyHundred, 403),
        ("percent 100 is refused", Percent::NotHundred, 400),
        ("only no percent counts", Percent::OnlyOmitted, 404),
    ]
    .into_iter()
    .map(|(name, percent, over)| Scene {
        switches: Switches {
            percent,
            over,
            names_status: false,
            ..Switches::default()
        },
        ..scene(
            name,
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (2, Act::Upload(manifest("t", "fm", ONE))),
            ],
        )
    })
    .collect()
}

/// Clocks of the scenes on Forge; those of answers are the defaults, in which everything has to happen within a quarter of an hour.
const FORGE: &str = "[completeness]\nquiet_period = \"20m\"\n\
     [clocks]\nreconcile_interval = \"5m\"\nwaiting_report_interval = \"15m\"\nexport_silence = \"40m\"\n\
     work_stale_after = \"1h\"\n";

/// The same where records are staged in a bucket first. It goes on in the section `[forge]`.
const STAGED: &str = "acknowledge = \"staged\"\n[sink]\nkind = \"custom\"\n\
     [completeness]\nquiet_period = \"20m\"\n\
     [clocks]\nreconcile_interval = \"5m\"\nwaiting_report_interval = \"15m\"\nexport_silence = \"40m\"\n\
     work_stale_after = \"1h\"\n";

/// Transfers on Forge, which are over once their messages are answered.
fn on_forge() -> Vec<Scene> {
    let mut all = answered();
    all.extend(hardly_answered());
    for scene in &mut all {
        scene.configuration = FORGE;
    }
    let mut staged = staged();
    for scene in &mut staged {
        scene.configuration = STAGED;
    }
    all.extend(staged);
    for scene in &mut all {
        scene.flavour = Flavour::Forge;
    }
    all
}

/// Transfers whose records are in a bucket when their messages are answered, and which a second phase brings into the target.
fn staged() -> Vec<Scene> {
    vec![
        scene(
            "on Forge, staged: one file",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (2, Act::ExportComplete("t")),
            ],
        ),
        scene(
            // What is stored is brought on also where the platform has the transfer as FAILED.
            "on Forge, staged: two files, and some records without a mapping",
            vec![
                (0, begin("t")),
                (1, Act::Upload(partly_mapped("t", "f1", "a.ndjson"))),
                (1, Act::Upload(file("t", "f2", "b.ndjson"))),
                (2, Act::ExportComplete("t")),
            ],
        ),
        Scene {
            slow: &[("chunk", 3_000)],
            ..scene(
                "on Forge, staged: cancelled in the middle of a file",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (6, Act::Cancel("t")),
                ],
            )
        },
        // Of what the cancelled attempt has stored nothing came into the target, so its re-run has to bring all of it.
        scene(
            "on Forge, staged: a re-run of one that was cancelled when its file was stored",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (60, Act::Cancel("t")),
                (900, again("u", "t")),
                (901, Act::Upload(file("u", "g1", "a.ndjson"))),
                (902, Act::ExportComplete("u")),
            ],
        ),
        Scene {
            // A delivery of the second phase is so slow that the re-run's own would be there before it.
            slow: &[("deliver t+2", 25_000)],
            ..scene(
                "on Forge, staged: a re-run while the second phase is under way",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (3, Act::PlatformEnds("t")),
                    (5, again("u", "t")),
                    (6, Act::Upload(changed("u", "g1", "a.ndjson"))),
                    (7, Act::ExportComplete("u")),
                ],
            )
        },
    ]
}

/// Messages of which each has its answer.
fn answered() -> Vec<Scene> {
    vec![
        Scene {
            short: true,
            ..scene(
                "on Forge: one file",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (2, Act::ExportComplete("t")),
                ],
            )
        },
        scene(
            "on Forge: two files and a manifest, and nobody says that the export is complete",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (1, Act::Upload(file("t", "f2", "b.ndjson"))),
                (2, Act::Upload(manifest("t", "fm", TWO))),
            ],
        ),
        scene(
            // Only answers begin a window, and each of these three files is worth one.
            "on Forge: an export of half an hour",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (2, Act::Upload(file("t", "f2", "b.ndjson"))),
                (20 * 60, Act::Upload(file("t", "f3", "c.ndjson"))),
                (32 * 60, Act::Upload(file("t", "f4", "d.ndjson"))),
                (33 * 60, Act::ExportComplete("t")),
            ],
        ),
        Scene {
            switches: Switches {
                failed_ends_at_once: true,
                ..Switches::default()
            },
            ..scene(
                "on Forge: some records without a mapping, and one FAILED ends everything",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(partly_mapped("t", "f1", "a.ndjson"))),
                    (1, Act::Upload(file("t", "f2", "b.ndjson"))),
                    (2, Act::ExportComplete("t")),
                ],
            )
        },
        Scene {
            switches: Switches {
                token_life: Duration::from_mins(6),
                ..Switches::default()
            },
            ..scene(
                "on Forge: tokens of six minutes, and a new one every minute",
                (1..9)
                    .map(|minute| (minute * 60 + 30, Act::Refresh))
                    .chain([
                        (0, begin("t")),
                        (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                        (7 * 60, Act::ExportComplete("t")),
                    ])
                    .collect(),
            )
        },
        scene(
            "on Forge: a re-run of an attempt that failed",
            vec![
                (0, begin("t")),
                (1, Act::Upload(partly_mapped("t", "f1", "a.ndjson"))),
                (2, Act::ExportComplete("t")),
                (30 * 60, again("u", "t")),
                (30 * 60 + 1, Act::Upload(file("u", "g1", "a.ndjson"))),
                (30 * 60 + 2, Act::ExportComplete("u")),
            ],
        ),
    ]
}

/// Messages that can't be answered, or only with `FAILED`.
fn hardly_answered() -> Vec<Scene> {
    vec![
        scene(
            "on Forge: a poison file",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (1, Act::Upload(file("t", "poison", "b.ndjson"))),
                (2, Act::ExportComplete("t")),
            ],
        ),
        Scene {
            // Its workers die for so long that the window asks for an answer first.
            also: &[("t", "FAILED", "unanswered")],
            ..scene(
                "on Forge: a poison file alone",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "poison", "b.ndjson"))),
                    (2, Act::ExportComplete("t")),
                ],
            )
        },
        Scene {
            slow: &[("chunk", 3_000)],
            ..scene(
                "on Forge: cancelled in the middle of a file",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                    (6, Act::Cancel("t")),
                ],
            )
        },
        scene(
            // Whatever became of the answer, it is not followed by another.
            "on Forge: cancelled a second after an answer",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (13 * 60 + 1, Act::Cancel("t")),
            ],
        ),
        scene(
            "on Forge: the listener fails after one file",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (3, Act::ListenerFails("t")),
            ],
        ),
        scene(
            "on Forge: a file is uploaded when all others are answered and the transfer is over",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (3, Act::ListenerFails("t")),
                (4 * 60, Act::Upload(file("t", "f2", "b.ndjson"))),
            ],
        ),
        scene(
            "on Forge: the event of one file is lost",
            vec![
                (0, begin("t")),
                (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                (1, Act::Upload(untold(file("t", "f2", "b.ndjson")))),
                (2, Act::ExportComplete("t")),
            ],
        ),
        Scene {
            switches: Switches {
                token_life: Duration::from_mins(10),
                ..Switches::default()
            },
            ..scene(
                "on Forge: the only token ends",
                vec![
                    (0, begin("t")),
                    (1, Act::Upload(file("t", "f1", "a.ndjson"))),
                ],
            )
        },
    ]
}
