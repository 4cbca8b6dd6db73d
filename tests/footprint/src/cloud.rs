//! AWS for one process: DynamoDB, SQS and KMS at one address, over TLS.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use landfall_clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::answers::{answer, operation};
use crate::tenant::Tenant;
use crate::traffic::{Conversation, Counted, Layer, Meter, Traffic};

/// Largest request that is read; SQS and DynamoDB take no larger ones.
const REQUEST_MAX: usize = 16 << 20;

/// The server for one process. It ends, with its connections, when it is dropped.
pub(crate) struct Cloud {
    port: u16,
    meter: Meter,
    serving: JoinHandle<()>,
}

impl Cloud {
    /// Serves on a free port. Instants are this clock's.
    pub(crate) async fn open(
        acceptor: TlsAcceptor,
        tenant: Arc<Tenant>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let meter = Meter::new(clock);
        let counting = meter.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counting.accepted();
                let (acceptor, tenant) = (acceptor.clone(), Arc::clone(&tenant));
                let meter = counting.clone();
                connections.spawn(async move {
                    // A process may end its connections, or be ended, at any time.
                    let _ = serve(stream, acceptor, tenant, meter).await;
                });
            }
        });
        Ok(Self {
            port,
            meter,
            serving,
        })
    }

    /// The URL of everything.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// What was seen until now.
    pub(crate) fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    tenant: Arc<Tenant>,
    meter: Meter,
) -> anyhow::Result<()> {
    // Small answers must not wait for more to send.
    stream.set_nodelay(true)?;
    let wire = Counted::new(stream, Layer::Wire(meter.clone()));
    let stream = acceptor.accept(wire).await?;
    let conversation = Conversation::new(meter);
    let http = Counted::new(stream, Layer::Http(conversation.clone()));
    let service = service_fn(|request| respond(request, &tenant, &conversation));
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(http), service)
        .await?;
    Ok(())
}

async fn respond(
    request: Request<Incoming>,
    tenant: &Tenant,
    conversation: &Conversation,
) -> anyhow::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), REQUEST_MAX).await?;
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let operation = operation(header("x-amz-target").unwrap_or_default());
    conversation.requested(&operation, &body);
    let (status, said) = answer(&operation, &body, tenant).await;
    if status != 200 {
        conversation.refused(&operation, &said);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status)?;
    // The headers that the services send, so that answers are of their size.
    let headers = response.headers_mut();
    if let Some(kind) = head.headers.get("content-type") {
        headers.insert("content-type", kind.clone());
    }
    let id = HeaderValue::from_static("6Q2M3B6VJ5S0Q2T8F0KJ4E1H9RVV4KQNSO5AEMVJF66Q9ASUAAJG");
    headers.insert("x-amzn-requestid", id);
    let digest = crc32fast::hash(said.as_bytes());
    headers.insert("x-amz-crc32", digest.into());
    *response.body_mut() = Body::from(said);
    Ok(response)
}
