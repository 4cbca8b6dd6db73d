//! What the tests of all flavours share: servers that answer as they are told, and keys.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jsonwebtoken::EncodingKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use crate::forge::signer::{encoding_key, pem};

/// Serves a router on a free loopback port for as long as the test lives.
pub(crate) async fn serve(router: Router) -> Url {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
        .await
        .unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url.parse().unwrap()
}

/// A request that a stub was asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the stub answers, given the request.
type Answer = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

/// A platform that answers every request alike, and remembers it.
#[derive(Clone)]
pub(crate) struct Stub {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Answer,
}

impl Stub {
    pub(crate) async fn serve(
        answer: impl Fn(&Seen) -> Response + Send + Sync + 'static,
    ) -> (Self, Url) {
        let stub = Self {
            seen: Arc::default(),
            answer: Arc::new(answer),
        };
        let url = serve(Router::new().fallback(record).with_state(stub.clone())).await;
        (stub, url)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn record(
    State(stub): State<Stub>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let seen = Seen {
        method,
        uri,
        headers,
        body,
    };
    stub.seen.lock().unwrap().push(seen.clone());
    (stub.answer)(&seen)
}

pub(crate) fn status(status: u16, body: &'static str) -> Response {
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// A server that takes each request, writes what it is told and then closes the connection, or says nothing more.
pub(crate) async fn raw_server(answer: &'static [u8], hang: bool) -> Url {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
        .await
        .unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4_096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer).await;
            if hang {
                std::future::pending::<()>().await;
            }
        }
    });
    url.parse().unwrap()
}

/// A new RSA key: what signs, and the PEM of what verifies.
pub(crate) fn key_pair() -> (EncodingKey, Vec<u8>) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let public = pem("PUBLIC KEY", public.as_ref()).into_bytes();
    (encoding_key(&pair), public)
}
