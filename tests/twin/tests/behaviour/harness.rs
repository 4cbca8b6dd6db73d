//! A twin with an installed app that records what it gets.

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, StatusCode, Uri};
use landfall_twin::{Options, Twin};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const APP_KEY: &str = "com.example.vault.cloud";

#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn event_type(&self) -> &str {
        self.body["eventType"].as_str().unwrap_or("")
    }

    pub(crate) fn token(&self) -> String {
        if let Some(header) = &self.authorization {
            return header.strip_prefix("JWT ").unwrap().to_owned();
        }
        let (_, token) = self.query.split_once("jwt=").unwrap();
        token.split('&').next().unwrap().to_owned()
    }
}

#[derive(Default)]
pub(crate) struct AppState {
    received: Vec<Received>,
    answers: VecDeque<u16>,
    always: Option<u16>,
    delay: Duration,
}

/// The app under test, as the twin's own tests need it: it remembers and answers as told.
#[derive(Clone, Default)]
pub(crate) struct App(Arc<Mutex<AppState>>);

impl App {
    pub(crate) fn answer_next(&self, statuses: &[u16]) {
        self.0.lock().unwrap().answers.extend(statuses);
    }

    pub(crate) fn answer_always(&self, status: u16) {
        self.0.lock().unwrap().always = Some(status);
    }

    pub(crate) fn answer_after(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.0.lock().unwrap().received.clone()
    }

    pub(crate) fn events(&self) -> Vec<Received> {
        let mut received = self.received();
        received.retain(|received| received.path.ends_with("/events"));
        received
    }
}

async fn take(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    assert_eq!(method, Method::POST);
    let (status, delay) = {
        let mut state = app.0.lock().unwrap();
        state.received.push(Received {
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or("").to_owned(),
            authorization: headers
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned()),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        let status = state.answers.pop_front().or(state.always).unwrap_or(200);
        (status, state.delay)
    };
    tokio::time::sleep(delay).await;
    StatusCode::from_u16(status).unwrap()
}

pub(crate) struct World {
    pub(crate) twin: Twin,
    pub(crate) app: App,
    pub(crate) app_url: String,
    pub(crate) http: reqwest::Client,
    site: &'static str,
    product: &'static str,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: HeaderMap,
}

impl World {
    /// A twin and an app, nothing installed yet.
    pub(crate) async fn bare() -> Self {
        let app = App::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        // A base URL with a path, so that every qsh is checked relative to it.
        let app_url = format!("http://{}/vault", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(app.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let twin = Twin::start(Options::default()).await.unwrap();
        Self {
            twin,
            app,
            app_url,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            site: "acme",
            product: "jira",
        }
    }

    /// With the app installed in Jira of the site `acme`, and fast retries.
    pub(crate) async fn installed() -> Self {
        let world = Self::bare().await;
        world
            .switch(json!({ "retry_first_ms": 20, "retry_max_ms": 40 }))
            .await;
        world.install().await;
        world
    }

    pub(crate) fn on(mut self, product: &'static str) -> Self {
        self.product = product;
        self
    }

    pub(crate) async fn install(&self) -> Value {
        let answer = self
            .control(
                "POST",
                "install",
                json!({ "site": self.site, "product": self.product, "app_base_url": self.app_url }),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
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

    pub(crate) async fn advance(&self, by: Value) {
        self.done("POST", "clock/advance", by).await;
    }

    /// Starts a migration and returns the transfer's id once everything was delivered.
    pub(crate) async fn migrate(&self, mut plan: Value) -> String {
        plan["site"] = self.site.into();
        plan["product"] = self.product.into();
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

    /// A call of the app, signed with a token from the twin's mint.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let minted = self.mint(method, path).await;
        let authorization = minted["authorization"].as_str().unwrap().to_owned();
        self.call_with(method, path, body, &authorization).await
    }

    pub(crate) async fn mint(&self, method: &str, path: &str) -> Value {
        self.done(
            "POST",
            "token",
            json!({
                "site": self.site, "product": self.product, "method": method, "url": self.rest(path),
            }),
        )
        .await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Value,
        authorization: &str,
    ) -> Answer {
        let mut request = self
            .http
            .request(method.parse().unwrap(), self.rest(path))
            .header("Authorization", authorization);
        if !body.is_null() {
            request = request.json(&body);
        }
        answer_of(request.send().await.unwrap()).await
    }

    pub(crate) fn rest(&self, path: &str) -> String {
        let wiki = if self.product == "confluence" {
            "/wiki"
        } else {
            ""
        };
        format!(
            "{}/sites/{}{wiki}/rest/atlassian-connect/1/migration/{path}",
            self.twin.url(),
            self.site
        )
    }

    pub(crate) async fn progress(&self, id: &str, body: Value) -> Answer {
        self.call("POST", &format!("progress/{id}"), body).await
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        self.transfer(id).await["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn recent(&self) -> Vec<String> {
        let answer = self.call("GET", "transfer/recent", Value::Null).await;
        assert_eq!(answer.status, 200);
        answer
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(|transfer| transfer["transferId"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The signed URL of a transfer's file.
    pub(crate) async fn file_url(&self, id: &str, position: usize) -> String {
        let view = self.transfer(id).await;
        let key = view["file_list"][position]["s3_key"]
            .as_str()
            .unwrap()
            .to_owned();
        let answer = self.call("GET", &format!("data/{key}"), Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["url"].as_str().unwrap().to_owned()
    }

    /// Waits until the app has got `count` requests that fit.
    pub(crate) async fn until(
        &self,
        count: usize,
        fits: impl Fn(&Received) -> bool,
    ) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let found: Vec<Received> = self
                .app
                .received()
                .into_iter()
                .filter(|one| fits(one))
                .collect();
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < deadline, "only {found:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) async fn answer_of(response: reqwest::Response) -> Answer {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await.unwrap();
    Answer {
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

pub(crate) fn files(count: u64) -> Value {
    json!({ "files": [{ "copies": count, "records": 3, "label": "part-{n}-of-{of}.ndjson" }] })
}

/// Header and claims of a token, with its signature checked against `secret` if there is one.
pub(crate) fn opened(token: &str, secret: Option<&str>) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    if let Some(secret) = secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signed = format!("{}.{}", parts[0], parts[1]);
        hmac::verify(&key, signed.as_bytes(), &decode(parts[2])).expect("signature");
    }
    (
        serde_json::from_slice(&decode(parts[0])).unwrap(),
        serde_json::from_slice(&decode(parts[1])).unwrap(),
    )
}
