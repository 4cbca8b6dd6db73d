#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that panics has failed, which is the point"
    )
)]

mod canonical;
mod clock;
mod content;
mod control;
mod delivery;
mod export;
mod faults;
mod forge;
mod mappings;
mod outbound;
mod plan;
mod platform;
mod quota;
mod rest;
mod seed;
mod server;
mod shared;
mod store;
mod switches;
mod token;

pub use canonical::{canonical_request, query_string_hash};
pub use clock::fresh_seed;
pub use content::{
    AuthorKeys, Format, Generated, MOST_ODD_RECORDS, Product, SMALLEST_RECORD, Shape, ShapeError,
    write_to,
};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use http::{StatusCode, header};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use faults::{Kind, Place};
use platform::Platform;
use shared::Shared;
use token::InstallKey;

/// The ARI of the example's Forge app.
pub const EXAMPLE_FORGE_APP: &str = "ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001";

/// How a twin is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where platform, key server and control API listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the object store listens.
    pub store_listen: SocketAddr,
    /// The app under test: `key` in its descriptor, `iss` of its tokens.
    pub app_key: String,
    /// The Forge app under test: its ARI, `aud` of its invocation tokens.
    pub forge_app: String,
    /// Same seed, same ids, contents and faults.
    pub seed: u64,
    /// The URL under which the app reaches `listen`, when it isn't `http://{listen}`.
    pub public_url: Option<String>,
    /// The URL under which the app reaches `store_listen`.
    pub public_store_url: Option<String>,
}

impl Default for Options {
    /// Free ports on loopback, the apps of the examples, seed 1.
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: loopback,
            store_listen: loopback,
            app_key: "com.example.vault.cloud".into(),
            forge_app: EXAMPLE_FORGE_APP.into(),
            seed: 1,
            public_url: None,
            public_store_url: None,
        }
    }
}

/// Why a twin didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another program listens there, or the address isn't this machine's.
    #[error(
        "listen on {address} (another program may use the port; choose another, or 0 for a free one)"
    )]
    Listen {
        /// The address that could not be had.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No HTTP client.
    #[error("build the HTTP client")]
    Client(#[source] reqwest::Error),
    /// No RSA key.
    #[error("generate the RSA key of the key server")]
    InstallKey,
}

/// A running platform. Dropping it stops it.
#[derive(Debug)]
pub struct Twin {
    url: String,
    store_url: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Twin {
    /// Binds both ports and serves in the background of the current Tokio runtime.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (listener, address) = bind(options.listen).await?;
        let (store_listener, store_address) = bind(options.store_listen).await?;
        let trimmed = |url: String| url.trim_end_matches('/').to_owned();
        let url = trimmed(
            options
                .public_url
                .unwrap_or_else(|| format!("http://{address}")),
        );
        let store_url = trimmed(
            options
                .public_store_url
                .unwrap_or_else(|| format!("http://{store_address}")),
        );
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(StartError::Client)?;
        let (install_key, forge_key) = tokio::task::spawn_blocking(first_keys)
            .await
            .ok()
            .flatten()
            .ok_or(StartError::InstallKey)?;
        let store_key = seed::hash(options.seed, &["store key", &install_key.id]);
        let system_token_secret = hex::encode(seed::hash(
            options.seed,
            &["system tokens", &url, &forge_key.id],
        ));
        let (outbox, work) = mpsc::unbounded_channel();
        let platform = Platform::new(options.seed, url.clone(), outbox);
        let shared = Arc::new(Shared::new(
            options.app_key,
            options.forge_app,
            options.seed,
            url.clone(),
            store_url.clone(),
            aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &store_key),
            system_token_secret,
            http,
            platform,
            install_key,
            forge_key,
        ));
        let platform_routes = control::router()
            .route("/install-keys/{kid}", get(install_key_of))
            .merge(forge::router())
            .route("/sites/{*rest}", any(rest::handle))
            .with_state(Arc::clone(&shared));
        let store_routes = Router::new()
            .route("/app-data/{key}", any(store::get))
            .with_state(Arc::clone(&shared));
        let tasks = vec![
            tokio::spawn(server::serve(listener, platform_routes)),
            tokio::spawn(server::serve(store_listener, store_routes)),
            tokio::spawn(delivery::run(Arc::clone(&shared), work)),
            tokio::spawn(watch_timers(shared)),
        ];
        Ok(Self {
            url,
            store_url,
            tasks,
        })
    }

    /// Root of platform, key server (`/install-keys/{kid}`) and control API (`/control/...`), no slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Root of the object store.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// The base URL that the app is told for an installation.
    pub fn base_url(&self, site: &str, product: Product) -> String {
        match product {
            Product::Jira => format!("{}/sites/{site}", self.url),
            Product::Confluence => format!("{}/sites/{site}/wiki", self.url),
        }
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One key for lifecycle callbacks and one for invocations serve all twins of a process: they take a noticeable time to make,
/// and their ids say which they are.
fn first_keys() -> Option<(Arc<InstallKey>, Arc<InstallKey>)> {
    static INSTALL: OnceLock<Option<Arc<InstallKey>>> = OnceLock::new();
    static FORGE: OnceLock<Option<Arc<InstallKey>>> = OnceLock::new();
    let made = |once: &OnceLock<Option<Arc<InstallKey>>>| {
        once.get_or_init(|| InstallKey::generate().map(Arc::new))
            .clone()
    };
    Some((made(&INSTALL)?, made(&FORGE)?))
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Timers go off also when nobody asks.
async fn watch_timers(shared: Arc<Shared>) {
    loop {
        drop(shared.platform());
        clock::sleep(Duration::from_millis(20)).await;
    }
}

/// PROTOCOL 4.1, step 2: the PEM of a key by its id.
async fn install_key_of(State(shared): State<Arc<Shared>>, Path(kid): Path<String>) -> Response {
    if let Some(struck) = key_server_fault(&shared, "install_keys").await {
        return struck;
    }
    match shared.find_install_key(&kid) {
        Some(key) => (
            [(header::CONTENT_TYPE, "application/x-pem-file")],
            key.public_pem.clone(),
        )
            .into_response(),
        None => (StatusCode::NOT_FOUND, "no such key").into_response(),
    }
}

/// Counts a request for keys, and says how it fails if a fault strikes it.
pub(crate) async fn key_server_fault(shared: &Shared, target: &'static str) -> Option<Response> {
    let place = Place {
        target,
        ..Place::default()
    };
    let struck = {
        let mut platform = shared.platform();
        platform.count(target);
        platform
            .faults
            .strike(&place, &[Kind::Status, Kind::Slow, Kind::Cut])
    };
    for slow in struck.iter().filter(|rule| rule.kind == Kind::Slow) {
        clock::sleep(Duration::from_millis(slow.delay_ms.unwrap_or(3_000))).await;
    }
    if struck.iter().any(|rule| rule.kind == Kind::Cut) {
        return Some(server::cut());
    }
    struck
        .iter()
        .find(|rule| rule.kind == Kind::Status)
        .map(rest::fault_response)
}
