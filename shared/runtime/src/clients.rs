use std::time::Duration;

use landfall_tracking::{Queue, Store};

/// How long a function waits for AWS, and how often it tries.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For one attempt.
    pub attempt: Duration,
    /// For all attempts of a call together.
    pub operation: Duration,
    /// Attempts of a call.
    pub attempts: u32,
    /// The longest pause after the first attempt; after each further one it is twice as long. How long one is, is drawn at random.
    pub pause: Duration,
}

impl Patience {
    /// For work in the background: nobody waits, so a throttled call may take its time.
    pub const BACKGROUND: Self = Self {
        connect: Duration::from_secs(2),
        attempt: Duration::from_secs(5),
        operation: Duration::from_secs(15),
        attempts: 4,
        pause: Duration::from_millis(500),
    };
}

/// The table and the queues.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The tracking table and the records table.
    pub store: Store,
    /// Control events.
    pub events: Queue,
    /// Files.
    pub imports: Queue,
    /// Dead letters of both queues, where the function may read them.
    pub dead_letters: Vec<Queue>,
}
