//! Log lines: one JSON object an event on standard output, a sentence and its fields.

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` chooses what is said; information and worse of our own code by default.
///
/// Lambda adds its request id to every invocation's span; fields are flattened so that CloudWatch can filter by them.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_env_filter(filter)
        .finish();
    // A second start, as in a test, keeps the first.
    let _ = tracing::subscriber::set_global_default(lines);
}
