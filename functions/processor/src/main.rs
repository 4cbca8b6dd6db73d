//! The processor's binary: reads the configuration, wires, runs.

use std::sync::Arc;

use anyhow::Context as _;
use lambda_runtime::{LambdaEvent, service_fn};
use landfall_aws::connect;
use landfall_lifecycle::{Lifecycle, Platform};
use landfall_processor::Processor;
use landfall_runtime::{Clock, Configuration, Patience, telemetry};
use landfall_transfer::Timestamp;
use landfall_transfer::timeline::Actor;

// No function is ever made of code that a mistake could be planted in.
const _: () = assert!(!landfall_transfer::seeded_bugs::POSSIBLE);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    telemetry::start();
    let processor = prepare().await.inspect_err(
        |error| tracing::error!(error = %format!("{error:#}"), "The processor can't start."),
    )?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<_>| {
        let processor = Arc::clone(&processor);
        async move {
            let deadline =
                Timestamp::from_millis(i64::try_from(event.context.deadline).unwrap_or(i64::MAX));
            Ok::<_, lambda_runtime::Error>(
                processor
                    .handle(event.payload, &event.context.request_id, deadline)
                    .await,
            )
        }
    }))
    .await
    .map_err(|error| anyhow::anyhow!(error))
    .context("serve the Lambda runtime")
}

async fn prepare() -> anyhow::Result<Arc<Processor>> {
    let configuration = Arc::new(Configuration::load()?);
    let clock = Clock::system();
    let clients = connect(
        &configuration.environment,
        Patience::BACKGROUND,
        clock.clone(),
    )
    .await;
    let platform = Platform::new(&configuration, clock.clone())?;
    let lifecycle = Lifecycle::new(
        Actor::Processor,
        clients.store,
        clients.imports,
        platform,
        configuration,
        clock,
    );
    Ok(Arc::new(Processor::new(lifecycle, clients.events)?))
}
