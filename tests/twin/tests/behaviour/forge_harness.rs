//! A twin with an installed Forge app that records what it gets.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, StatusCode, Uri};
use landfall_twin::{Options, Twin};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Answer, answer_of};

pub(crate) const UPLOADED: &str = "avi:ecosystem.migration:uploaded:app_data";
pub(crate) const TRIGGERED: &str = "avi:ecosystem.migration:triggered:listener";
pub(crate) const COMPLETED: &str = "avi:ecosystem.migration:completed:export_phase";
pub(crate) const SETTLED: &str = "avi:ecosystem.migration:settled:transfer";

#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Invocation {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn fit(&self) -> &str {
        self.header("authorization")
            .strip_prefix("Bearer ")
            .unwrap()
    }

    pub(crate) fn is(&self, event_type: &str) -> bool {
        self.body["eventType"] == event_type
    }
}

#[derive(Default)]
struct RemoteState {
    received: Vec<Invocation>,
    answers: VecDeque<(u16, &'static str)>,
    always: Option<(u16, &'static str)>,
    delay: Duration,
}

/// The app's remote: it remembers and answers as told, with `{}` if nothing is told.
#[derive(Clone, Default)]
pub(crate) struct Remote(Arc<Mutex<RemoteState>>);

impl Remote {
    pub(crate) fn answer_next(&self, answers: &[(u16, &'static str)]) {
        self.0.lock().unwrap().answers.extend(answers);
    }

    pub(crate) fn answer_always(&self, status: u16) {
        self.0.lock().unwrap().always = Some((status, "application/json"));
    }

    pub(crate) fn answer_after(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(crate) fn received(&self) -> Vec<Invocation> {
        self.0.lock().unwrap().received.clone()
    }
}

async fn take(
    State(remote): State<Remote>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(method, Method::POST);
    let ((status, content_type), delay) = {
        let mut state = remote.0.lock().unwrap();
        state.received.push(Invocation {
            path: uri.path().to_owned(),
            headers,
            body: serde_json::from_slice(&body).unwrap(),
        });
        let answer = state.answers.pop_front().or(state.always);
        (
            answer.unwrap_or((200, "application/json; charset=utf-8")),
            state.delay,
        )
    };
    tokio::time::sleep(delay).await;
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", content_type)], "{}").into_response()
}

pub(crate) struct ForgeWorld {
    pub(crate) twin: Twin,
    pub(crate) remote: Remote,
    pub(crate) remote_url: String,
    pub(crate) http: reqwest::Client,
}

impl ForgeWorld {
    /// A twin and a remote, nothing installed yet.
    pub(crate) async fn bare() -> Self {
        let remote = Remote::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote_url = format!("http://{}/vault", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(remote.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            twin: Twin::start(Options::default()).await.unwrap(),
            remote,
            remote_url,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// With the app installed in Jira of the site `acme`, and fast retries.
    pub(crate) async fn installed() -> Self {
        let world = Self::bare().await;
        world.switch(json!({ "retry_scale": 0.01 })).await;
        world.install().await;
        world
    }

    /// Installs the app and returns the installation.
    pub(crate) async fn install(&self) -> Value {
        let wish = json!({ "site": "acme", "remote_base_url": self.remote_url });
        self.done("POST", "forge/install", wish).await["installation"].clone()
    }

    pub(crate) async fn control(&self, method: &str, path: &str, body: Value) -> Answer {
        let mut request = self.http.request(
            method.parse().unwrap(),
            format!("{}/control/{path}", self.twin.url()),
        );
        if !body.is_null() {
            request = request.json(&body);
        }
        answer_of(request.send().await.unwrap()).await
    }

    /// As [`Self::control`], for what has to succeed.
    pub(crate) async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.control(method, path, body).await;
        assert!(
            answer.status < 300,
            "{path}: {} {}",
            answer.status,
            answer.body
        );
        answer.body
    }

    pub(crate) async fn switch(&self, changes: Value) {
        self.done("PATCH", "switches", changes).await;
    }

    pub(crate) async fn fault(&self, rule: Value) {
        self.done("POST", "faults", rule).await;
    }

    pub(crate) async fn minutes(&self, minutes: u32) {
        self.done("POST", "clock/advance", json!({ "minutes": minutes }))
            .await;
    }

    /// Tokens with what the wish says.
    pub(crate) async fn mint(&self, mut wish: Value) -> Value {
        wish["site"] = "acme".into();
        self.done("POST", "forge/token", wish).await
    }

    /// Starts a migration and returns the transfer's id once the export has ended.
    pub(crate) async fn migrate(&self, mut plan: Value) -> String {
        plan["site"] = "acme".into();
        let started = self.done("POST", "migrations", plan).await;
        let id = started["transfer_id"].as_str().unwrap().to_owned();
        self.wait(&id, "exported").await;
        id
    }

    pub(crate) async fn wait(&self, id: &str, what: &str) -> Value {
        let path = format!("transfers/{id}?wait_for={what}&timeout_ms=5000");
        let view = self.done("GET", &path, Value::Null).await;
        assert_eq!(view["waited_in_vain"], false, "waited for {what}: {view}");
        view
    }

    pub(crate) async fn transfer(&self, id: &str) -> Value {
        self.done("GET", &format!("transfers/{id}"), Value::Null)
            .await
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        let view = self.transfer(id).await;
        view["state"].as_str().unwrap().to_owned()
    }

    /// The ids of the transfer's messages, in the order of the uploads.
    pub(crate) async fn messages(&self, id: &str) -> Vec<String> {
        let view = self.transfer(id).await;
        let messages = view["forge"]["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|message| message["message_id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A call of the app with a good system token.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let minted = self.mint(json!({})).await;
        let token = minted["system_token"].as_str().unwrap();
        self.call_with(method, path, body, token).await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Value,
        token: &str,
    ) -> Answer {
        let url = format!("{}/app/migration/forge/v1/{path}", self.twin.url());
        let request = self.http.request(method.parse().unwrap(), url);
        let mut request = request.header("Authorization", format!("Bearer {token}"));
        if !body.is_null() {
            request = request.json(&body);
        }
        answer_of(request.send().await.unwrap()).await
    }

    /// Answers messages and returns the status of the call.
    pub(crate) async fn answer(&self, id: &str, status: &str, message_ids: &[&String]) -> u16 {
        let body = json!({ "status": status, "messageIds": message_ids });
        self.call("POST", &format!("message/{id}/status"), body)
            .await
            .status
    }

    pub(crate) async fn key_set(&self) -> Vec<Value> {
        let url = format!("{}/.well-known/jwks.json", self.twin.url());
        let answer = answer_of(self.http.get(url).send().await.unwrap()).await;
        assert_eq!(answer.status, 200);
        answer.body["keys"].as_array().unwrap().clone()
    }

    /// Waits until the remote has got `count` invocations that fit.
    pub(crate) async fn until(
        &self,
        count: usize,
        fits: impl Fn(&Invocation) -> bool,
    ) -> Vec<Invocation> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut found = self.remote.received();
            found.retain(|one| fits(one));
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < deadline, "only {found:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Header and claims of an invocation token, and whether a key of the set made its signature.
pub(crate) fn opened(token: &str, keys: &[Value]) -> (Value, Value, bool) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
    let claims: Value = serde_json::from_slice(&decode(parts[1])).unwrap();
    let number = |key: &Value, name: &str| decode(key[name].as_str().unwrap());
    let signed = format!("{}.{}", parts[0], parts[1]);
    let good = keys
        .iter()
        .filter(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"])
        .any(|key| {
            let public = aws_lc_rs::signature::RsaPublicKeyComponents {
                n: number(key, "n"),
                e: number(key, "e"),
            };
            let algorithm = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
            public
                .verify(algorithm, signed.as_bytes(), &decode(parts[2]))
                .is_ok()
        });
    (header, claims, good)
}
