#![expect(
    clippy::unchecked_time_subtraction,
    reason = "what is taken away is always the shorter time"
)]

use super::*;

/// The shortest time by which an inequality can be missed.
const BIT: Duration = Duration::from_nanos(1);

/// What is configured, and what the template sets.
#[derive(Clone, Default)]
struct All {
    clocks: Clocks,
    intake: IntakeClocks,
    work: WorkClocks,
    deployment: Deployment,
}

impl All {
    /// What start-up would tell of a key of the configuration, or what a deployment breaks.
    fn problems(&self, key: &str) -> Vec<String> {
        if !key.starts_with("clocks.") && !key.starts_with("completeness.") {
            return self.deployment.problems(&self.clocks, &self.work);
        }
        let mut problems = self.clocks.problems();
        problems.extend(self.intake.problems());
        problems.extend(self.work.problems(&self.clocks, &self.intake));
        problems
    }

    /// Which inequality of all is broken.
    fn broken_at(&self) -> Vec<usize> {
        let of_work = self.work.inequalities(&self.clocks, &self.intake);
        let of_deployment = self.deployment.inequalities(&self.clocks, &self.work);
        self.clocks
            .inequalities()
            .iter()
            .chain(&self.intake.inequalities())
            .chain(&of_work)
            .chain(&of_deployment)
            .enumerate()
            .filter(|(_, (holds, _))| !holds)
            .map(|(index, _)| index)
            .collect()
    }
}

type Case = (&'static str, fn(&mut All, Duration));
type Zero = (&'static str, fn(&mut All));

/// Each case sets clocks to where its inequality just holds, and moves them on by what it is given.
const CASES: &[Case] = &[
    ("clocks.hard_deadline: must leave a day", |all, more| {
        all.clocks.hard_deadline = Duration::from_hours(11 * 24) + more;
    }),
    (
        "clocks.work_stale_after: must not be longer",
        |all, more| {
            all.clocks.work_stale_after = all.clocks.hard_deadline + more;
        },
    ),
    ("clocks.export_silence: must not be longer", |all, more| {
        all.clocks.export_silence = all.clocks.hard_deadline + more;
    }),
    (
        "completeness.quiet_period: must not be longer",
        |all, more| {
            all.clocks.quiet_period = all.clocks.export_silence + more;
        },
    ),
    (
        "completeness.no_file_period: must not be longer",
        |all, more| {
            all.clocks.no_file_period = all.clocks.export_silence + more;
        },
    ),
    ("clocks.cancel_settle_by: must with", |all, more| {
        all.clocks.cancel_settle_by = Duration::from_mins(55) - BIT + more;
    }),
    (
        "clocks.listener_error_drain: must not be longer",
        |all, more| {
            all.clocks.listener_error_drain = all.clocks.hard_deadline + more;
        },
    ),
    ("clocks.forge_answer_by: must be shorter", |all, more| {
        all.clocks.forge_answer_by = platform::FORGE_MESSAGE_WINDOW - BIT + more;
    }),
    (
        "clocks.settle_retry_first: must not be longer",
        |all, more| {
            all.clocks.settle_retry_first = all.clocks.settle_retry_max + more;
        },
    ),
    ("clocks.call_timeout: must be at most 20s", |all, more| {
        all.clocks.call_timeout = Duration::from_secs(20) + more;
    }),
    ("clocks.retry_pause: must be at most", |all, more| {
        all.clocks.retry_pause = aws::MESSAGE_DELAY_MAX + more;
    }),
    ("clocks.answer_within: must be below the 5s", |all, more| {
        all.intake.answer_within = Duration::from_secs(5) - BIT + more;
    }),
    ("clocks.write_within: must be shorter", |all, more| {
        all.intake.write_within = all.intake.answer_within - BIT + more;
    }),
    ("clocks.tenant_cache: must not be longer", |all, more| {
        all.intake.tenant_cache = all.intake.secret_overlap + more;
    }),
    ("clocks.secret_overlap: must be at least 3m", |all, more| {
        all.intake.secret_overlap = platform::CONNECT_TOKEN_LIFE + all.intake.jwt_leeway - more;
    }),
    ("clocks.jwt_leeway: must be at most 5m", |all, more| {
        all.intake.jwt_leeway = Duration::from_mins(5) + more;
    }),
    ("clocks.slice: must be at most 10m", |all, more| {
        all.work.slice = own::SLICE_MAX + more;
        all.work.lease = Duration::from_mins(11);
    }),
    ("clocks.lease: must be longer than", |all, more| {
        all.work.lease = all.work.slice + BIT - more;
    }),
    (
        "clocks.work_stale_after: must be at least clocks.lease",
        |all, more| {
            all.work.hold_again_after = BIT;
            all.clocks.work_stale_after = all.work.lease + all.work.message_grace - more;
        },
    ),
    (
        "clocks.message_grace: must be at least clocks.write_within",
        |all, more| {
            all.work.message_grace = all.intake.write_within - more;
        },
    ),
    ("clocks.hold_again_after: must with", |all, more| {
        all.work.hold_again_after = all.clocks.work_stale_after - all.work.message_grace + more;
    }),
    ("IntakeTimeout: must be above", |all, more| {
        all.deployment.intake_timeout = platform::EVENT_ANSWER + BIT - more;
    }),
    (
        "ProcessorTimeout: must be at least clocks.slice plus 8s",
        |all, more| {
            all.deployment.processor_timeout = Duration::from_secs(68) - more;
        },
    ),
    ("ProcessorTimeout: must be at most 15m", |all, more| {
        all.deployment.processor_timeout = aws::INVOCATION_MAX + more;
        all.deployment.events_visibility = Duration::from_mins(16);
        all.deployment.imports_visibility = Duration::from_mins(16);
    }),
    (
        "EventsVisibilityTimeout: must be at least ProcessorTimeout",
        |all, more| {
            all.deployment.events_visibility = all.deployment.processor_timeout - more;
        },
    ),
    (
        "ImportsVisibilityTimeout: must be at least ProcessorTimeout",
        |all, more| {
            all.work.lease = all.work.slice + BIT;
            all.deployment.imports_visibility = all.deployment.processor_timeout - more;
        },
    ),
    (
        "ImportsVisibilityTimeout: must be above clocks.lease",
        |all, more| {
            all.work.lease = all.deployment.imports_visibility - BIT + more;
        },
    ),
    ("SweepSchedule: must bring lost work back", |all, more| {
        let revived = all.work.lease + all.work.message_grace;
        all.deployment.sweep_interval = all.clocks.work_stale_after - revived - BIT + more;
    }),
    ("SweeperTimeout: must be below", |all, more| {
        all.deployment.sweeper_timeout = all.deployment.sweep_interval - BIT + more;
    }),
    ("SweeperTimeout: must be above two calls", |all, more| {
        all.deployment.sweeper_timeout = Duration::from_secs(40) + BIT - more;
    }),
    (
        "maxReceiveCount: times ImportsVisibilityTimeout",
        |all, more| {
            all.deployment.max_receive_count = 2;
            all.deployment.imports_visibility = (all.clocks.work_stale_after - BIT * 2) / 2 + more;
        },
    ),
];

/// What must not be zero, each with the clock that has to give way.
const ZEROS: &[Zero] = &[
    ("clocks.work_stale_after: must be longer than zero", |all| {
        all.work.lease = Duration::ZERO;
        all.work.message_grace = Duration::ZERO;
        all.clocks.work_stale_after = Duration::ZERO;
    }),
    (
        "completeness.no_file_period: must be longer than zero",
        |all| all.clocks.no_file_period = Duration::ZERO,
    ),
    ("clocks.cancel_settle_by: must be longer than zero", |all| {
        all.clocks.cancel_settle_by = Duration::ZERO;
    }),
    ("clocks.forge_answer_by: must be longer than zero", |all| {
        all.clocks.forge_answer_by = Duration::ZERO;
    }),
    (
        "clocks.progress_interval: must be longer than zero",
        |all| {
            all.clocks.progress_interval = Duration::ZERO;
        },
    ),
    (
        "clocks.waiting_report_interval: must be longer than zero",
        |all| all.clocks.waiting_report_interval = Duration::ZERO,
    ),
    (
        "clocks.reconcile_interval: must be longer than zero",
        |all| {
            all.clocks.reconcile_interval = Duration::ZERO;
        },
    ),
    (
        "clocks.settle_confirm_after: must be longer than zero",
        |all| all.clocks.settle_confirm_after = Duration::ZERO,
    ),
    (
        "clocks.settle_retry_first: must be longer than zero",
        |all| {
            all.clocks.settle_retry_first = Duration::ZERO;
        },
    ),
    ("clocks.call_timeout: must be longer than zero", |all| {
        all.clocks.call_timeout = Duration::ZERO;
    }),
    ("clocks.retry_pause: must be longer than zero", |all| {
        all.clocks.retry_pause = Duration::ZERO;
    }),
    ("clocks.hold_again_after: must be longer than zero", |all| {
        all.work.hold_again_after = Duration::ZERO;
    }),
    ("clocks.slice: must be longer than zero", |all| {
        all.work.slice = Duration::ZERO;
    }),
];

#[test]
fn the_defaults_keep_every_inequality() {
    for key in ["clocks.slice", "ProcessorTimeout"] {
        assert_eq!(All::default().problems(key), Vec::<String>::new());
    }
}

#[test]
fn an_inequality_that_is_missed_by_a_nanosecond_is_told_by_its_key_and_no_other_is() {
    for (sentence, set) in CASES {
        let mut edge = All::default();
        set(&mut edge, Duration::ZERO);
        assert_eq!(
            edge.problems(sentence),
            Vec::<String>::new(),
            "{sentence} holds"
        );
        let mut beyond = All::default();
        set(&mut beyond, BIT);
        let problems = beyond.problems(sentence);
        assert!(
            problems.len() == 1 && problems[0].starts_with(sentence),
            "{sentence}: {problems:?}"
        );
    }
}

#[test]
fn a_clock_of_zero_is_told_by_its_key() {
    for (sentence, set) in ZEROS {
        let mut all = All::default();
        set(&mut all);
        let problems = all.problems(sentence);
        assert!(
            problems.iter().any(|problem| problem == sentence),
            "{sentence}: {problems:?}"
        );
    }
}

#[test]
fn every_inequality_has_its_case() {
    let mut tried: Vec<usize> = Vec::new();
    for (_, set) in CASES {
        let mut all = All::default();
        set(&mut all, BIT);
        tried.extend(all.broken_at());
    }
    for (_, set) in ZEROS {
        let mut all = All::default();
        set(&mut all);
        tried.extend(all.broken_at());
    }
    tried.sort_unstable();
    tried.dedup();
    let all = All::default();
    let inequalities = all.clocks.inequalities().len()
        + all.intake.inequalities().len()
        + all.work.inequalities(&all.clocks, &all.intake).len()
        + all.deployment.inequalities(&all.clocks, &all.work).len();
    assert_eq!(tried, (0..inequalities).collect::<Vec<_>>());
}

#[test]
fn one_broken_inequality_among_many_is_enough_to_stop_the_build() {
    assert!(hold(&[(true, ""), (true, "")]));
    assert!(!hold(&[(true, ""), (false, ""), (true, "")]));
}

#[test]
fn an_attempt_to_settle_may_take_three_calls() {
    assert_eq!(Clocks::default().send_lease(), Duration::from_secs(30));
}

#[test]
fn the_template_has_the_defaults_that_are_asserted_here() {
    let template = include_str!("../../../../infra/template.yaml");
    let default = Deployment::default();
    let seconds = |duration: Duration| duration.as_secs().to_string();
    for (parameter, value) in [
        ("ProcessorTimeout", default.processor_timeout),
        ("EventsVisibilityTimeout", default.events_visibility),
        ("ImportsVisibilityTimeout", default.imports_visibility),
    ] {
        let (_, section) = template
            .split_once(&format!("\n  {parameter}:\n"))
            .unwrap_or_else(|| panic!("{parameter}"));
        let (_, value_of) = section.split_once("Default: ").unwrap();
        assert_eq!(
            value_of.lines().next(),
            Some(&*seconds(value)),
            "{parameter}"
        );
    }
    for line in [
        format!("Timeout: {}", seconds(default.intake_timeout)),
        format!("Timeout: {}", seconds(default.sweeper_timeout)),
        format!(
            "Default: rate({} minute)",
            default.sweep_interval.as_secs() / 60
        ),
    ] {
        assert!(template.lines().any(|found| found.trim() == line), "{line}");
    }
    let deliveries = format!("maxReceiveCount: {}", default.max_receive_count);
    assert_eq!(template.matches(&deliveries).count(), 2);
}

#[test]
fn an_announced_file_is_due_before_the_lease_of_whoever_takes_it_up_ends() {
    let work = WorkClocks::default();
    assert_eq!(work.file_grace(), work.lease);
    let patient = WorkClocks {
        lease: work.message_grace * 2,
        ..work
    };
    assert_eq!(patient.file_grace(), patient.message_grace);
}
