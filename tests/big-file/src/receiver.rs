//! The partner's service: takes each batch once, as its contract says, and keeps a digest of what it took.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The largest body, in bytes: twice what a batch has at most.
const BODY_MAX: usize = 8 * 1024 * 1024;

/// What was taken so far.
#[derive(Clone)]
pub(crate) struct Receiver(Arc<Mutex<Taken>>);

struct Taken {
    digest: Context,
    records: u64,
    repeated: u64,
    different: u64,
    /// By the first half of a batch's id, the beginning of its content's digest.
    batches: HashMap<[u8; 16], [u8; 8]>,
}

/// What was taken in all.
pub(crate) struct Content {
    pub(crate) records: u64,
    /// SHA-256 of the records in the order in which they came, each with a line end.
    pub(crate) sha256: String,
    /// Batches that came again.
    pub(crate) repeated: u64,
    /// Those of them that said something else than before.
    pub(crate) different: u64,
}

#[derive(Deserialize)]
struct Batch<'body> {
    #[serde(borrow)]
    records: Vec<Record<'body>>,
}

#[derive(Deserialize)]
struct Record<'body> {
    key: &'body str,
    #[serde(borrow)]
    record: &'body RawValue,
}

#[derive(Serialize)]
struct Answer<'body> {
    results: Vec<Outcome<'body>>,
}

#[derive(Serialize)]
struct Outcome<'body> {
    key: &'body str,
    outcome: &'static str,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Taken {
            digest: Context::new(&SHA256),
            records: 0,
            repeated: 0,
            different: 0,
            batches: HashMap::new(),
        })))
    }

    /// The service: the sink, and an app that says yes to whatever the platform tells it.
    pub(crate) fn routes(&self) -> Router {
        Router::new()
            .route("/batches", post(take))
            .fallback(async || StatusCode::OK)
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .with_state(self.clone())
    }

    /// How many records were taken so far.
    pub(crate) fn records(&self) -> u64 {
        self.taken().records
    }

    pub(crate) fn content(&self) -> Content {
        let taken = self.taken();
        Content {
            records: taken.records,
            sha256: hex::encode(taken.digest.clone().finish()),
            repeated: taken.repeated,
            different: taken.different,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn take(&mut self, id: [u8; 16], batch: &Batch<'_>) {
        let mut own = Context::new(&SHA256);
        for record in &batch.records {
            own.update(record.record.get().as_bytes());
            own.update(b"\n");
        }
        let own = own.finish();
        let own = *own
            .as_ref()
            .first_chunk()
            .expect("a SHA-256 is longer than that");
        if let Some(before) = self.batches.insert(id, own) {
            self.repeated += 1;
            self.different += u64::from(before != own);
            return;
        }
        for record in &batch.records {
            self.digest.update(record.record.get().as_bytes());
            self.digest.update(b"\n");
            self.records += 1;
        }
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let id = headers
        .get("webhook-id")
        .and_then(|id| hex::decode(id).ok());
    let id = id.and_then(|id| id.first_chunk().copied());
    let (Some(id), Ok(batch)) = (id, serde_json::from_slice::<Batch<'_>>(&body)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    receiver.taken().take(id, &batch);
    let results = batch.records.iter().map(|record| Outcome {
        key: record.key,
        outcome: "applied",
    });
    let answer = Answer {
        results: results.collect(),
    };
    axum::Json(answer).into_response()
}
