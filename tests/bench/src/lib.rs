//! What the benches share: how they measure.

use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// How long the code runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a path is measured, if that is enough for all samples: some thirty paths and floors take two minutes.
const MEASURED: Duration = Duration::from_millis(2_500);

/// The time that this thread had a processor: a neighbour that takes it away changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        // Not what the kernel counts in `/proc`: that is as old as its last tick, which is longer than a sample of a short path.
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(spent).expect("a thread has had no less than no time")
    }

    fn end(&self, started: Duration) -> Duration {
        self.start().saturating_sub(started)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// How every bench measures.
pub fn criterion() -> Criterion<ProcessorTime> {
    Criterion::default()
        .with_measurement(ProcessorTime)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURED)
}
