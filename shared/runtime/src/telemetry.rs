//! Log lines: one JSON object an event on standard output, a sentence and its fields.

use std::io;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging. `RUST_LOG` chooses what is said; information and worse of our own code by default.
///
/// Fields are flattened so that CloudWatch can filter by them; spans are in no line.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start, as in a test, keeps the first.
    let _ = tracing::subscriber::set_global_default(lines(filter, io::stdout));
}

/// What writes the lines, each with one call to `writer`.
pub fn lines<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}
