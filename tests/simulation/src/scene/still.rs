use std::pin::Pin;
use std::time::Duration;

use landfall_clock::Time;
use landfall_transfer::Timestamp;

use crate::executor::VirtualTime;

/// Virtual time that moves only when it is moved. The short pauses of a race end at once, for what follows them can be held up
/// as well; longer waits end when the time has passed.
#[derive(Clone, Debug)]
pub struct StillTime(pub VirtualTime);

/// The longest pause that ends at once.
const SHORT: Duration = Duration::from_secs(1);

impl Time for StillTime {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.now().as_millis()).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if duration <= SHORT {
            Box::pin(std::future::ready(()))
        } else {
            Box::pin(self.0.sleep(duration))
        }
    }
}
