//! The HTTP sink against a partner's service on loopback that checks what it gets by its own means.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_clock::Clock;
use landfall_import::declaration::{Format, Sink as Declared, SinkKind};
use landfall_import::ports::PIECE_BYTES;
use landfall_import::sink::http::HttpSink;
use landfall_import::{
    Checkpoint, Counts, File, FileProblem, MappingCache, Ports, SliceOutcome, Target, import_slice,
};
use landfall_transfer::Timestamp;
use serde_json::{Value, json};

use crate::world::{World, applied, interruption, lines, must_be_send};

const SECRET: &[u8] = b"a secret of at least 24 bytes";
const NOW: i64 = 1_800_000_000;

/// HMAC by its definition (RFC 2104), apart from the library that the sink uses.
fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(secret.len() <= 64);
    let mut block = [0_u8; 64];
    block[..secret.len()].copy_from_slice(secret);
    let inner = digest(
        &SHA256,
        &[&block.map(|byte| byte ^ 0x36)[..], message].concat(),
    );
    let outer = digest(
        &SHA256,
        &[&block.map(|byte| byte ^ 0x5c)[..], inner.as_ref()].concat(),
    );
    outer.as_ref().to_vec()
}

/// What the service does instead of its job, once.
#[derive(Debug)]
enum Instead {
    Status(u16, &'static str),
    Body(String),
    Hang,
    /// Applies the batch and then fails to say so.
    ApplyAndBreak,
}

#[derive(Debug, Default)]
struct Service {
    instead: Mutex<VecDeque<Instead>>,
    /// Answers by idempotency key: a known batch gets its old answer.
    answers: Mutex<BTreeMap<String, String>>,
    batches: Mutex<Vec<Value>>,
    applied: Mutex<BTreeMap<String, usize>>,
    /// The raw file.
    content: Mutex<Vec<u8>>,
}

impl Service {
    async fn receive(
        State(service): State<Arc<Self>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let identity = header("webhook-id");
        assert_eq!(header("webhook-timestamp"), NOW.to_string());
        let signed = [format!("{identity}.{NOW}.").as_bytes(), &body].concat();
        assert_eq!(
            header("webhook-signature"),
            format!("v1,{}", STANDARD.encode(hmac_sha256(SECRET, &signed)))
        );

        let instead = service.instead.lock().unwrap().pop_front();
        match instead {
            Some(Instead::Status(status, retry_after)) => {
                let status = StatusCode::from_u16(status).unwrap();
                return (
                    status,
                    [("retry-after", retry_after), ("location", "/elsewhere")],
                )
                    .into_response();
            }
            Some(Instead::Body(body)) => return body.into_response(),
            Some(Instead::Hang) => std::future::pending().await,
            Some(Instead::ApplyAndBreak) => {
                service.apply(&identity, &body);
                return StatusCode::BAD_GATEWAY.into_response();
            }
            None => {}
        }
        if header("content-type") == "application/octet-stream" {
            return service
                .take_piece(&identity, &header("landfall-piece"), &body)
                .into_response();
        }
        assert_eq!(header("content-type"), "application/json");
        service.apply(&identity, &body).into_response()
    }

    fn take_piece(&self, identity: &str, piece: &str, body: &[u8]) -> String {
        assert_eq!(identity, hex::encode(digest(&SHA256, piece.as_bytes())));
        let piece: Value = serde_json::from_str(piece).unwrap();
        assert_eq!(piece["content_hash"], hex::encode(digest(&SHA256, body)));
        assert_eq!(piece["length"], body.len());
        let answer = json!({"results": [{"key": piece["file"], "outcome": "applied"}]});
        let mut content = self.content.lock().unwrap();
        if self
            .answers
            .lock()
            .unwrap()
            .insert(identity.to_owned(), answer.to_string())
            .is_none()
        {
            assert_eq!(piece["offset"], content.len());
            content.extend_from_slice(body);
        }
        self.batches.lock().unwrap().push(piece);
        answer.to_string()
    }

    fn apply(&self, identity: &str, body: &[u8]) -> String {
        if let Some(answer) = self.answers.lock().unwrap().get(identity) {
            return answer.clone();
        }
        let batch: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(batch["batch"], identity);
        let records = batch["records"].as_array().unwrap();
        let results: Vec<Value> = records
            .iter()
            .map(|record| {
                let key = record["key"].as_str().unwrap();
                *self
                    .applied
                    .lock()
                    .unwrap()
                    .entry(key.to_owned())
                    .or_default() += 1;
                match key {
                    "r0003" => json!({"key": key, "outcome": "rejected", "reason": "odd"}),
                    _ => json!({"key": key, "outcome": "applied"}),
                }
            })
            .collect();
        self.batches.lock().unwrap().push(batch);
        let answer = json!({ "results": results }).to_string();
        self.answers
            .lock()
            .unwrap()
            .insert(identity.to_owned(), answer.clone());
        answer
    }
}

/// A running service and a sink for it.
async fn start(instead: Vec<Instead>) -> (Arc<Service>, HttpSink) {
    let service = Arc::new(Service {
        instead: Mutex::new(instead.into()),
        ..Service::default()
    });
    let router = Router::new()
        .route("/batches", post(Service::receive))
        .with_state(Arc::clone(&service));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let declared = Declared {
        kind: SinkKind::Http,
        url: Some(format!("http://{address}/batches")),
        timeout: Some(Duration::from_millis(300)),
        prefix: None,
    };
    let secret = format!("whsec_{}", STANDARD.encode(SECRET)).into();
    let clock = Clock::manual(Timestamp::from_millis(NOW * 1_000));
    (service, HttpSink::new(&declared, &secret, clock).unwrap())
}

async fn slice(world: &World, sink: &HttpSink) -> SliceOutcome {
    let file = File {
        tenant: "tenant-1",
        transfer: "transfer-2",
        chain: "transfer-1",
        label: &world.label,
        key: "file-1",
        import: &world.import,
        rerun: false,
    };
    let cache = MappingCache::new(10);
    let ports = Ports {
        source: &world.store,
        ledger: &world.ledger,
        mappings: &world.mappings,
        mapping_cache: &cache,
        target: Target::Sink(sink),
    };
    let stored = world.ledger.stored.lock().unwrap().checkpoint.clone();
    let checkpoint =
        stored.map_or_else(Checkpoint::start, |text| Checkpoint::decode(&text).unwrap());
    must_be_send(import_slice(
        &file,
        checkpoint,
        &ports,
        &world.limits,
        &|| false,
    ))
    .await
}

async fn finish(world: &World, sink: &HttpSink) -> (Counts, Option<FileProblem>) {
    for _ in 0..20 {
        if let SliceOutcome::Finished {
            counts, problem, ..
        } = slice(world, sink).await
        {
            return (counts, problem);
        }
    }
    panic!("the file doesn't end");
}

#[tokio::test]
async fn batches_arrive_signed_and_complete_and_their_outcomes_count() {
    let (service, sink) = start(Vec::new()).await;
    let world = World::new("a.ndjson", lines(6).replace("\"n\":0", "\"n\":0.10"));
    let counts = Counts {
        read: 6,
        applied: 5,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!(finish(&world, &sink).await, (counts, None));
    assert_eq!(world.rejections(), ["4 r0003 rejected: odd"]);
    let batches = service.batches.lock().unwrap();
    assert_eq!(batches.len(), 2);
    let hash = batches[0]["records"][0]["content_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        hash,
        hex::encode(digest(&SHA256, b"{\"id\":\"r0000\",\"n\":0.10}"))
    );
    assert_eq!(
        batches[1].to_string(),
        json!({
            "version": 1, "batch": batches[1]["batch"], "tenant": "tenant-1", "transfer": "transfer-2",
            "chain": "transfer-1", "label": "a.ndjson",
            "records": [
                {"key": "r0004", "content_hash": batches[1]["records"][0]["content_hash"], "record": {"id": "r0004", "n": 4}},
                {"key": "r0005", "content_hash": batches[1]["records"][1]["content_hash"], "record": {"id": "r0005", "n": 5}},
            ],
        })
        .to_string()
    );
    assert!(
        batches[0].to_string().contains("0.10"),
        "numbers travel as they were written"
    );
}

#[tokio::test]
async fn the_pieces_of_a_raw_file_arrive_signed_and_in_order() {
    let content: Vec<u8> = (0..251).cycle().take(PIECE_BYTES * 2 + 3).collect();
    let (service, sink) = start(vec![Instead::Status(503, "0")]).await;
    let mut world = World::new("für alle.png", content.clone());
    world.import.format = Format::Raw;
    world.store.chunk = 100_000;
    assert_eq!(finish(&world, &sink).await, (applied(1), None));
    assert_eq!(*service.content.lock().unwrap(), content);
    let pieces = service.batches.lock().unwrap();
    let file = pieces[0]["file"].as_str().unwrap();
    assert_eq!(file.len(), 64);
    let last = &content[PIECE_BYTES * 2..];
    assert_eq!(
        pieces[2],
        json!({
            "version": 1, "file": file, "tenant": "tenant-1", "transfer": "transfer-2",
            "chain": "transfer-1", "label": "für alle.png",
            "offset": PIECE_BYTES * 2, "length": 3, "content_hash": hex::encode(digest(&SHA256, last)),
            "last": true, "file_hash": hex::encode(digest(&SHA256, &content)),
        })
    );
    let more: Vec<bool> = pieces.iter().map(|piece| piece["last"] == true).collect();
    assert_eq!(more, [false, false, true]);
    assert!(pieces[0].get("file_hash").is_none());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_no_record_is_applied_twice() {
    for instead in [
        Instead::ApplyAndBreak,
        Instead::Hang,
        Instead::Status(503, "1"),
        Instead::Body("{".to_owned()),
    ] {
        let (service, sink) = start(vec![instead]).await;
        let world = World::new("a.ndjson", lines(3));
        assert_eq!(finish(&world, &sink).await, (applied(3), None));
        assert!(
            service
                .applied
                .lock()
                .unwrap()
                .values()
                .all(|times| *times == 1)
        );
    }
}

#[tokio::test]
async fn transient_answers_interrupt_and_permanent_ones_end_the_file() {
    for (instead, expected, wait) in [
        (
            Instead::Status(429, "7"),
            "the sink is not available: it answered 429",
            Some(7),
        ),
        (
            Instead::Status(500, "x"),
            "the sink is not available: it answered 500",
            None,
        ),
        (
            Instead::Hang,
            "the sink is not available: no answer in time",
            None,
        ),
        (
            Instead::Body(r#"{"results":[]}"#.to_owned()),
            "the sink's answer is malformed: 0 results came for 3 records",
            None,
        ),
        (
            Instead::Body("x".repeat(1_100_000)),
            "the sink's answer is malformed: it is larger than 1048576 bytes",
            None,
        ),
    ] {
        let (_, sink) = start(vec![instead]).await;
        let world = World::new("a.ndjson", lines(3));
        let expected = (expected.to_owned(), wait.map(Duration::from_secs));
        assert_eq!(interruption(Some(slice(&world, &sink).await)), expected);
        assert!(world.commits().is_empty());
    }
    for (status, reason) in [
        (401, "it answered 401"),
        (413, "it answered 413"),
        (302, "it answered 302, and redirects are not followed"),
    ] {
        let (_, sink) = start(vec![Instead::Status(status, "")]).await;
        let world = World::new("a.ndjson", lines(3));
        let problem = FileProblem::SinkRefused {
            reason: reason.to_owned(),
        };
        assert_eq!(
            finish(&world, &sink).await,
            (Counts::default(), Some(problem))
        );
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_interrupts() {
    let declared = Declared {
        kind: SinkKind::Http,
        url: Some("http://127.0.0.1:9/".to_owned()),
        timeout: Some(Duration::from_secs(2)),
        prefix: None,
    };
    let secret = format!("whsec_{}", STANDARD.encode(SECRET)).into();
    let sink = HttpSink::new(&declared, &secret, Clock::system()).unwrap();
    let world = World::new("a.ndjson", lines(3));
    assert_eq!(
        interruption(Some(slice(&world, &sink).await)),
        ("the sink is not available: no connection".to_owned(), None)
    );
}
