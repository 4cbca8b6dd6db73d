//! The Lambda Runtime API for one process: hands it events and takes its answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use http::StatusCode;
use landfall_clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The name that the function is told it has.
const FUNCTION_ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:footprint";

/// What a function answered, and after how long.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    /// From the event's leaving until the answer's last byte was here.
    pub(crate) took: Duration,
}

/// The server for one process.
pub(crate) struct RuntimeApi {
    port: u16,
    events: mpsc::UnboundedSender<Bytes>,
    answers: mpsc::UnboundedReceiver<Result<Answer, String>>,
    polls: watch::Receiver<Polls>,
    invoked: u64,
    serving: JoinHandle<()>,
}

/// How often the process has asked for an event.
#[derive(Clone, Copy, Debug, Default)]
struct Polls {
    count: u64,
    /// When it did for the first time.
    first: Option<Duration>,
}

struct Shared {
    clock: Clock,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Bytes>>,
    answers: mpsc::UnboundedSender<Result<Answer, String>>,
    polls: watch::Sender<Polls>,
    /// How long the function may work on an event.
    timeout: Duration,
    /// When the event left that is being worked on.
    left: Mutex<Duration>,
}

impl RuntimeApi {
    /// Serves on a free port until it is dropped, with so much time for an event. Instants are this clock's.
    pub(crate) async fn open(timeout: Duration, clock: Clock) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // Small answers must not wait for more to send.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let (events, to_come) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let polls = watch::Sender::new(Polls::default());
        let seen = polls.subscribe();
        let shared = Arc::new(Shared {
            clock,
            events: to_come.into(),
            answers: answered,
            polls,
            timeout,
            left: Mutex::default(),
        });
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route(
                "/2018-06-01/runtime/invocation/{id}/response",
                post(response),
            )
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failure))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(shared);
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self {
            port,
            events,
            answers,
            polls: seen,
            invoked: 0,
            serving,
        })
    }

    /// What `AWS_LAMBDA_RUNTIME_API` says.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// When the process asked for its first event; waits for it.
    pub(crate) async fn first_poll(&mut self) -> anyhow::Result<Duration> {
        let polls = self.polls.wait_for(|polls| polls.first.is_some()).await?;
        polls.first.context("it has just been there")
    }

    /// Waits until the process asks for another event, so that nothing of the last one is left to do.
    pub(crate) async fn idle(&mut self) -> anyhow::Result<()> {
        let invoked = self.invoked;
        self.polls.wait_for(|polls| polls.count > invoked).await?;
        Ok(())
    }

    /// Hands an event to the process, which must be idle, and waits for its answer.
    pub(crate) async fn invoke(&mut self, event: Bytes) -> anyhow::Result<Answer> {
        self.invoked += 1;
        self.events.send(event)?;
        let answer = self.answers.recv().await.context("the server has ended")?;
        answer.map_err(|problem| anyhow::anyhow!("the function failed: {problem}"))
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> Result<Response, StatusCode> {
    let now = shared.clock.monotonic();
    let mut number = 0;
    shared.polls.send_modify(|polls| {
        polls.count += 1;
        polls.first.get_or_insert(now);
        number = polls.count;
    });
    let event = shared.events.lock().await.recv().await;
    let event = event.ok_or(StatusCode::GONE)?;
    let deadline = shared.clock.now() + shared.timeout;
    let trace =
        format!("Root=1-5759e988-bd862e3fe1be46a9{number:08x};Parent=53995c3f42cd8ad8;Sampled=0");
    let headers = [
        ("content-type", "application/json".to_owned()),
        (
            "lambda-runtime-aws-request-id",
            format!("8476a536-e9f4-11e8-9739-{number:012x}"),
        ),
        (
            "lambda-runtime-deadline-ms",
            deadline.as_millis().to_string(),
        ),
        (
            "lambda-runtime-invoked-function-arn",
            FUNCTION_ARN.to_owned(),
        ),
        ("lambda-runtime-trace-id", trace),
    ];
    let response = (headers, event).into_response();
    let left = shared.clock.monotonic();
    *shared.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    Ok(response)
}

async fn response(
    State(shared): State<Arc<Shared>>,
    Path(_): Path<String>,
    body: Bytes,
) -> StatusCode {
    let now = shared.clock.monotonic();
    let left = *shared.left.lock().unwrap_or_else(PoisonError::into_inner);
    let took = now.saturating_sub(left);
    shared.tell(Ok(Answer { body, took }))
}

async fn failure(
    State(shared): State<Arc<Shared>>,
    Path(_): Path<String>,
    body: Bytes,
) -> StatusCode {
    shared.tell(Err(String::from_utf8_lossy(&body).into_owned()))
}

async fn init_error(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    shared.tell(Err(String::from_utf8_lossy(&body).into_owned()))
}

impl Shared {
    fn tell(&self, answer: Result<Answer, String>) -> StatusCode {
        // Nobody listens to a process that is about to be ended.
        let _ = self.answers.send(answer);
        StatusCode::ACCEPTED
    }
}
