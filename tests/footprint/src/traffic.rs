//! What goes over a process's connections to AWS, counted.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use landfall_clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Calls of one operation and their bytes: heads and bodies of HTTP, not what TLS adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) count: u64,
    /// Bytes of requests.
    pub(crate) request_bytes: u64,
    /// As many of them as are bodies.
    pub(crate) body_bytes: u64,
    /// Bytes of responses.
    pub(crate) response_bytes: u64,
}

/// What was seen until now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// By operation, such as `DynamoDB.PutItem`.
    pub(crate) calls: BTreeMap<String, Calls>,
    /// What was refused, and why.
    pub(crate) refused: Vec<String>,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Bytes that the process sent, handshakes and records of TLS included.
    pub(crate) wire_sent: u64,
    /// Bytes that it was sent.
    pub(crate) wire_received: u64,
    /// How long the process waited for what is in our hands: from each byte of it that we read until our last one of an answer, be it of TLS or of HTTP.
    pub(crate) served: Duration,
    /// When the first connection was there.
    first_accept: Option<Duration>,
    /// When the last answer's last byte left.
    last_answer: Option<Duration>,
    /// Since when it has been our turn.
    turn: Option<Duration>,
}

impl Traffic {
    /// What has come since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        for (operation, before) in &earlier.calls {
            if let Some(calls) = later.calls.get_mut(operation) {
                calls.count -= before.count;
                calls.request_bytes -= before.request_bytes;
                calls.body_bytes -= before.body_bytes;
                calls.response_bytes -= before.response_bytes;
            }
        }
        later.calls.retain(|_, calls| *calls != Calls::default());
        later.connections -= earlier.connections;
        later.wire_sent -= earlier.wire_sent;
        later.wire_received -= earlier.wire_received;
        later
    }

    /// How often each operation was called.
    pub(crate) fn counts(&self) -> BTreeMap<&str, u64> {
        let counts = self.calls.iter();
        counts
            .map(|(operation, calls)| (operation.as_str(), calls.count))
            .collect()
    }

    /// How many calls there were.
    pub(crate) fn count(&self) -> u64 {
        self.calls.values().map(|calls| calls.count).sum()
    }

    /// From the first connection until the last answer, whoever's turn it was.
    pub(crate) fn span(&self) -> Duration {
        match (self.first_accept, self.last_answer) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => Duration::ZERO,
        }
    }
}

/// Counts the traffic of one process.
#[derive(Clone)]
pub(crate) struct Meter {
    traffic: Arc<Mutex<Traffic>>,
    clock: Clock,
}

impl Meter {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            traffic: Arc::default(),
            clock,
        }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.lock().clone()
    }

    pub(crate) fn accepted(&self) {
        let now = self.clock.monotonic();
        let mut traffic = self.lock();
        traffic.connections += 1;
        traffic.first_accept.get_or_insert(now);
    }

    fn called(&self, operation: &str, request_bytes: u64, body_bytes: u64) {
        let mut traffic = self.lock();
        let calls = traffic.calls.entry(operation.to_owned()).or_default();
        calls.count += 1;
        calls.request_bytes += request_bytes;
        calls.body_bytes += body_bytes;
    }

    fn refused(&self, why: String) {
        self.lock().refused.push(why);
    }

    fn answered(&self, operation: Option<&str>, bytes: u64) {
        let now = self.clock.monotonic();
        let mut traffic = self.lock();
        traffic.last_answer = Some(now);
        if let Some(calls) = operation.and_then(|name| traffic.calls.get_mut(name)) {
            calls.response_bytes += bytes;
        }
    }

    fn read(&self, bytes: u64) {
        let now = self.clock.monotonic();
        let mut traffic = self.lock();
        traffic.wire_sent += bytes;
        traffic.turn = Some(now);
    }

    fn written(&self, bytes: u64) {
        let now = self.clock.monotonic();
        let mut traffic = self.lock();
        traffic.wire_received += bytes;
        let since = traffic.turn.replace(now).unwrap_or(now);
        traffic.served += now.saturating_sub(since);
    }

    fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's calls, one after the other: HTTP/1.1 clients don't pipeline.
#[derive(Clone)]
pub(crate) struct Conversation {
    meter: Meter,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Bytes that were read and belong to no request yet.
    read: u64,
    /// The operation whose response is written now.
    operation: Option<String>,
}

impl Conversation {
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            meter,
            state: Arc::default(),
        }
    }

    /// A request has been read to its end; what was read since the last one is this one.
    pub(crate) fn requested(&self, operation: &str, body: &[u8]) {
        let mut state = self.lock();
        self.meter.called(
            operation,
            std::mem::take(&mut state.read),
            body.len() as u64,
        );
        state.operation = Some(operation.to_owned());
    }

    /// Its answer is a refusal.
    pub(crate) fn refused(&self, operation: &str, answer: &str) {
        self.meter.refused(format!("{operation}: {answer}"));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which bytes a stream carries.
pub(crate) enum Layer {
    /// Those of TCP.
    Wire(Meter),
    /// Those of HTTP, within TLS.
    Http(Conversation),
}

impl Layer {
    fn read(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match self {
            Self::Wire(meter) => meter.read(bytes),
            Self::Http(conversation) => conversation.lock().read += bytes,
        }
    }

    fn written(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match self {
            Self::Wire(meter) => meter.written(bytes),
            Self::Http(conversation) => {
                let state = conversation.lock();
                conversation
                    .meter
                    .answered(state.operation.as_deref(), bytes);
            }
        }
    }
}

/// A stream that counts what passes through it.
pub(crate) struct Counted<S> {
    inner: S,
    layer: Layer,
}

impl<S> Counted<S> {
    pub(crate) const fn new(inner: S, layer: Layer) -> Self {
        Self { inner, layer }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.layer.read(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.layer.written(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn each_call_has_the_bytes_that_went_over_its_connection_for_it() {
        let meter = Meter::new(Clock::system());
        let conversation = Conversation::new(meter.clone());
        let (mut client, server) = duplex(64);
        let mut server = Counted::new(server, Layer::Http(conversation.clone()));
        let mut between = Traffic::default();
        for (operation, request, answer) in [("a", "head body", "one"), ("b", "head", "three")] {
            between = meter.traffic();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = vec![0; request.len()];
            server.read_exact(&mut bytes).await.unwrap();
            conversation.requested(operation, &bytes[4..]);
            server.write_all(answer.as_bytes()).await.unwrap();
        }
        let traffic = meter.traffic();
        let calls = |request_bytes, body_bytes, response_bytes| Calls {
            count: 1,
            request_bytes,
            body_bytes,
            response_bytes,
        };
        assert_eq!(traffic.calls["a"], calls(9, 5, 3));
        assert_eq!(traffic.calls["b"], calls(4, 0, 5));
        assert_eq!(traffic.count(), 2);
        let later = traffic.since(&between);
        assert_eq!(later.counts(), BTreeMap::from([("b", 1)]));
    }

    #[tokio::test]
    async fn a_process_waits_for_what_is_in_our_hands_and_not_for_what_is_in_its_own() {
        let clock = Clock::manual(landfall_transfer::Timestamp::from_millis(0));
        let second = Duration::from_secs(1);
        let meter = Meter::new(clock.clone());
        meter.accepted();
        clock.advance(10 * second);
        meter.read(5);
        clock.advance(second);
        meter.written(5);
        clock.advance(10 * second);
        meter.read(5);
        clock.advance(2 * second);
        meter.written(5);
        meter.answered(None, 5);
        let traffic = meter.traffic();
        assert_eq!(traffic.served.as_secs(), 3);
        assert_eq!(traffic.span().as_secs(), 23);
        assert_eq!((traffic.wire_sent, traffic.wire_received), (10, 10));
    }
}
