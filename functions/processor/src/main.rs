//! The processor's binary, without a sink of its own.

use landfall_processor::{NoSink, run};

// No function is ever made of code that a mistake could be planted in.
const _: () = assert!(!landfall_transfer::seeded_bugs::POSSIBLE);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(None::<NoSink>).await
}
