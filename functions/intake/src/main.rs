//! The function `intake`: wiring only.

use std::sync::Arc;

use aws_lambda_events::lambda_function_urls::{
    LambdaFunctionUrlRequest, LambdaFunctionUrlResponse,
};
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use landfall_aws::{Access, clients};
use landfall_intake::{Intake, Request, patience};
use landfall_runtime::{Clock, Configuration, telemetry};
use mimalloc::MiMalloc;

// Of an event's profile malloc was the largest part (decision 34).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

// No function is ever made of code that a mistake could be planted in.
const _: () = assert!(!landfall_transfer::seeded_bugs::POSSIBLE);

// One event at a time, which waits for AWS: a second thread would only be woken for it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    telemetry::start();
    let configuration = Configuration::load()
        .inspect_err(|error| tracing::error!(error = %error, "failed to {error}"))?;
    let clock = Clock::system();
    let patience = patience(configuration.intake);
    let aws = configuration.environment.aws.clone();
    let access = Access::new(aws, patience, clock.clone())
        .inspect_err(|error| tracing::error!(error = %error, "failed to {error}"))?;
    let clients = clients(&configuration, &access, clock.clone());
    let intake = Arc::new(Intake::new(&configuration, clients, clock));
    intake.warm_up().await;
    let answer = service_fn(move |event: LambdaEvent<LambdaFunctionUrlRequest>| {
        let intake = Arc::clone(&intake);
        async move {
            let answer = intake.answer(&Request::from(event.payload)).await;
            Ok::<LambdaFunctionUrlResponse, Error>(answer.into())
        }
    });
    // Without the layer that `run` adds: it makes a span for each invocation, which no line of ours names.
    Runtime::new(answer)
        .run()
        .await
        .map_err(|error| anyhow::anyhow!(error))
}
