//! The sweeper's binary: reads the configuration, wires, runs.

use std::sync::Arc;

use anyhow::Context as _;
use lambda_runtime::{LambdaEvent, service_fn};
use landfall_aws::{Access, clients};
use landfall_lifecycle::{Lifecycle, Platform};
use landfall_runtime::{Clock, Configuration, Patience, telemetry};
use landfall_sweeper::{Request, Sweeper};
use landfall_transfer::Timestamp;
use landfall_transfer::timeline::Actor;

// No function is ever made of code that a mistake could be planted in.
const _: () = assert!(!landfall_transfer::seeded_bugs::POSSIBLE);

// What a sweep does is wait for AWS and the platform, at once, on one thread.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    telemetry::start();
    let sweeper = prepare().inspect_err(
        |error| tracing::error!(error = %format!("{error:#}"), "The sweeper can't start."),
    )?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Request>| {
        let sweeper = Arc::clone(&sweeper);
        async move {
            let deadline =
                Timestamp::from_millis(i64::try_from(event.context.deadline).unwrap_or(i64::MAX));
            sweeper
                .answer(event.payload, deadline)
                .await
                .map_err(lambda_runtime::Error::from)
        }
    }))
    .await
    .map_err(|error| anyhow::anyhow!(error))
    .context("serve the Lambda runtime")
}

fn prepare() -> anyhow::Result<Arc<Sweeper>> {
    let configuration = Arc::new(Configuration::load()?);
    let clock = Clock::system();
    let aws = configuration.environment.aws.clone();
    let access = Access::new(aws, Patience::BACKGROUND, clock.clone())?;
    let clients = clients(&configuration, &access, clock.clone());
    let platform = Platform::new(&configuration, clock.clone())?;
    let lifecycle = Lifecycle::new(
        Actor::Sweeper,
        clients.store,
        clients.imports,
        platform,
        configuration,
        clock,
    );
    Ok(Arc::new(Sweeper::new(
        lifecycle,
        clients.events,
        clients.dead_letters,
    )?))
}
