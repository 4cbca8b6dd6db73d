use std::sync::Arc;

use anyhow::Context as _;
use lambda_runtime::{LambdaEvent, service_fn};
use landfall_aws::{Access, S3, clients};
use landfall_import::ports::Sink;
use landfall_lifecycle::{Lifecycle, Platform};
use landfall_runtime::{Clock, Configuration, Patience, telemetry};
use landfall_transfer::Timestamp;
use landfall_transfer::timeline::Actor;

use crate::Processor;

/// Reads the configuration, wires and serves Lambda until it ends the process: the whole of a processor's `main`. `sink` is where records
/// go with `sink.kind = "custom"`; with every other kind there must be none.
pub async fn run<K: Sink + Send + 'static>(sink: Option<K>) -> anyhow::Result<()> {
    telemetry::start();
    let processor = prepare(sink).inspect_err(
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

fn prepare<K: Sink>(sink: Option<K>) -> anyhow::Result<Arc<Processor<K>>> {
    let configuration = Arc::new(Configuration::load()?);
    let clock = Clock::system();
    let aws = configuration.environment.aws.clone();
    let access = Access::new(aws, Patience::BACKGROUND, clock.clone())?;
    let clients = clients(&configuration, &access, clock.clone());
    // Whatever the sink: records may be staged there, or lie there still.
    let bucket = configuration.environment.sink_bucket.as_ref();
    let bucket = bucket.map(|name| S3::new(&access, name, configuration.import.sink.timeout()));
    let platform = Platform::new(&configuration, clock.clone())?;
    let lifecycle = Lifecycle::new(
        Actor::Processor,
        clients.store,
        clients.imports,
        platform,
        configuration,
        clock,
    );
    Ok(Arc::new(Processor::with(
        lifecycle,
        clients.events,
        bucket,
        sink,
    )?))
}
