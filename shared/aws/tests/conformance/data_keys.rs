//! What KMS is asked for data keys, and what its answers mean. It is a server of the test's own, which answers as AWS documents it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_aws::Kms;
use landfall_clock::Clock;
use landfall_models::secret_key;
use landfall_runtime::Patience;
use landfall_tracking::{DataKeys, Error, Vault};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

const KEY: &str = "arn:aws:kms:eu-central-1:000000000000:key/ours";

/// What the server answers to an operation and its input.
type Answer = Arc<dyn Fn(&str, &Value) -> Response + Send + Sync>;

#[derive(Clone)]
struct Server {
    answer: Answer,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// A server, and KMS as the functions have it, on it.
    async fn start(
        answer: impl Fn(&str, &Value) -> Response + Send + Sync + 'static,
    ) -> (Self, Kms) {
        let server = Self {
            answer: Arc::new(answer),
            asked: Arc::default(),
        };
        let router = Router::new().fallback(handle).with_state(server.clone());
        let kms = kms(&landfall_embedded::serve(router).await);
        (server, kms)
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn handle(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.strip_prefix("TrentService.").unwrap();
    let input: Value = serde_json::from_slice(&body).unwrap();
    let answer = (server.answer)(operation, &input);
    let mut asked = server.asked.lock().unwrap();
    asked.push((operation.to_owned(), input));
    answer
}

fn kms(endpoint: &str) -> Kms {
    let patience = Patience {
        operation: Duration::from_millis(500),
        attempts: 1,
        ..Patience::BACKGROUND
    };
    Kms::new(landfall_embedded::access_with(endpoint, patience), KEY)
}

fn output(output: &Value) -> Response {
    let json = [("content-type", "application/x-amz-json-1.1")];
    (json, output.to_string()).into_response()
}

fn error(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let json = [("content-type", "application/x-amz-json-1.1")];
    let body = json!({ "__type": code, "message": "a text of KMS's own" });
    (status, json, body.to_string()).into_response()
}

/// A KMS that seals a key by turning its bytes around, for the context that it is given.
fn well(operation: &str, input: &Value) -> Response {
    assert_eq!(input["KeyId"], KEY);
    assert_eq!(input["EncryptionContext"], json!({ "landfall": "vault" }));
    let plain: Vec<u8> = (0..32).collect();
    let sealed: Vec<u8> = plain.iter().rev().copied().collect();
    let (plain, sealed) = (STANDARD.encode(plain), STANDARD.encode(sealed));
    match operation {
        "GenerateDataKey" => {
            output(&json!({ "KeyId": KEY, "Plaintext": plain, "CiphertextBlob": sealed }))
        }
        "Decrypt" if input["CiphertextBlob"] == sealed => {
            output(&json!({ "KeyId": KEY, "Plaintext": plain }))
        }
        _ => error(400, "InvalidCiphertextException"),
    }
}

#[tokio::test]
async fn a_data_key_is_made_and_opened_with_the_configured_key_and_for_the_vault_alone() {
    let (server, kms) = Server::start(well).await;
    let made = kms.generate().await.unwrap();
    assert_eq!(made.plain.expose_secret(), (0..32).collect::<Vec<u8>>());
    let opened = kms.decrypt(&made.sealed).await.unwrap().unwrap();
    assert_eq!(opened.expose_secret(), made.plain.expose_secret());
    let context = json!({ "landfall": "vault" });
    let generate = json!({ "KeyId": KEY, "EncryptionContext": context, "KeySpec": "AES_256" });
    let sealed = STANDARD.encode(made.sealed);
    let decrypt = json!({ "KeyId": KEY, "EncryptionContext": context, "CiphertextBlob": sealed });
    let asked = server.asked();
    assert_eq!(asked[0], ("GenerateDataKey".to_owned(), generate));
    assert_eq!(asked[1], ("Decrypt".to_owned(), decrypt));
}

#[tokio::test]
async fn what_one_process_seals_another_opens() {
    let (_, kms) = Server::start(well).await;
    let vault = || {
        let key = Arc::new(secret_key());
        Vault::enveloping(key, Arc::new(kms.clone()), Clock::system())
    };
    let secret = SecretString::from("hush");
    let sealed = vault().seal("tenant", &secret).await.unwrap();
    let opened = vault().open("a row", "tenant", &sealed).await.unwrap();
    assert_eq!(opened.expose_secret(), "hush");
}

#[tokio::test]
async fn a_data_key_that_another_key_has_sealed_or_that_was_changed_does_not_open() {
    for code in ["InvalidCiphertextException", "IncorrectKeyException"] {
        let (_, kms) = Server::start(move |_, _| error(400, code)).await;
        assert!(kms.decrypt(b"sealed").await.unwrap().is_none());
    }
    // Of lengths that no sealed key has, so that nobody is asked.
    let (server, kms) = Server::start(well).await;
    for sealed in [Vec::new(), vec![0; 6_145]] {
        assert!(kms.decrypt(&sealed).await.unwrap().is_none());
    }
    assert!(server.asked().is_empty());
    assert!(kms.decrypt(&[0; 6_144]).await.unwrap().is_none());
}

#[tokio::test]
async fn what_only_a_person_can_mend_is_told_apart_and_named() {
    for code in [
        "AccessDeniedException",
        "DisabledException",
        "InvalidArnException",
        "InvalidKeyUsageException",
        "InvalidSignatureException",
        "KMSInvalidStateException",
        "NotFoundException",
        "UnrecognizedClientException",
        "UnsupportedOperationException",
        "ValidationException",
    ] {
        let (_, kms) = Server::start(move |_, _| error(400, code)).await;
        let generated = kms.generate().await.map(drop).unwrap_err();
        let decrypted = kms.decrypt(b"sealed").await.map(drop).unwrap_err();
        for error in [generated, decrypted] {
            assert!(matches!(error, Error::Vault(_)), "{error:?}");
            assert!(error.to_string().contains(code), "{error}");
            assert!(!error.to_string().contains("KMS's own"), "{error}");
        }
    }
}

#[tokio::test]
async fn everything_else_passes() {
    for (status, code) in [
        (400, "ThrottlingException"),
        (400, "LimitExceededException"),
        (400, "ExpiredTokenException"),
        (400, "ACodeOfNextYear"),
        (500, "DependencyTimeoutException"),
        (500, "KMSInternalException"),
        (500, "KeyUnavailableException"),
    ] {
        let (_, kms) = Server::start(move |_, _| error(status, code)).await;
        passes(&kms).await;
    }
    let gateway = |_: &str, _: &Value| (StatusCode::BAD_GATEWAY, "<html>").into_response();
    passes(&Server::start(gateway).await.1).await;
    let without_key = |_: &str, _: &Value| output(&json!({ "KeyId": KEY }));
    passes(&Server::start(without_key).await.1).await;
    passes(&kms("http://127.0.0.1:1")).await;
}

#[tokio::test]
async fn who_never_answers_is_not_waited_for_beyond_the_clients_patience() {
    // A listener that nobody accepts on: the connection stands and stays silent.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    passes(&kms(&format!("http://{address}"))).await;
}

async fn passes(kms: &Kms) {
    let generated = kms.generate().await.map(drop).unwrap_err();
    let decrypted = kms.decrypt(b"sealed").await.map(drop).unwrap_err();
    for error in [generated, decrypted] {
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
}
