//! The Forge flavour: installations by ARI, invocations of a remote with tokens of their own, and messages that the app answers
//! in place of progress that it reports.

pub(crate) mod control;
pub(crate) mod events;
pub(crate) mod ledger;
pub(crate) mod refresh;
pub(crate) mod rest;
pub(crate) mod rules;
pub(crate) mod switches;
pub(crate) mod token;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::content::Product;
use crate::outbound::AppAnswer;
use crate::platform::Platform;
use crate::shared::Shared;

/// Scheduled triggers kept per installation; older ones are only counted.
const MOST_KEPT: usize = 10_000;

/// Where the app runs: part of the invocation token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Environment {
    #[default]
    Production,
    Staging,
    Development,
}

/// The Forge app's installation in one product of one site.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) site: String,
    pub(crate) product: Product,
    /// The app's ARI.
    pub(crate) app: String,
    /// The installation's ARI.
    pub(crate) id: String,
    pub(crate) cloud_id: String,
    pub(crate) environment: Environment,
    pub(crate) environment_id: String,
    pub(crate) api_base_url: String,
    pub(crate) site_url: String,
    pub(crate) remote_base_url: String,
    pub(crate) events_path: String,
    pub(crate) refresh_path: String,
    pub(crate) active: bool,
    /// When the scheduled trigger fired last by itself, or the app was installed.
    pub(crate) refreshed_ms: i64,
    pub(crate) refreshes: Vec<Refresh>,
    pub(crate) refresh_count: u64,
}

/// One firing of the scheduled trigger.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Refresh {
    pub(crate) at_ms: i64,
    pub(crate) dropped: bool,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
}

impl Installation {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.remote_base_url)
    }
}

impl Platform {
    pub(crate) fn forge_installation(
        &self,
        site: &str,
        product: Product,
        app: &str,
    ) -> Option<&Installation> {
        self.forge_installations
            .iter()
            .find(|found| found.site == site && found.product == product && found.app == app)
    }

    /// The installation with this ARI, unless the app was uninstalled.
    pub(crate) fn forge_tenant(&self, id: &str) -> Option<&Installation> {
        self.forge_installations
            .iter()
            .find(|found| found.id == id && found.active)
    }
}

/// PROTOCOL 7.4: why an answer does not count, by the reading that its form matters (D2) or does not.
pub(crate) fn invalid(answer: &AppAnswer, type_checked: bool) -> Option<String> {
    if answer.error.is_some() {
        return answer.error.clone();
    }
    let status = answer.status.unwrap_or(0);
    if !(200..300).contains(&status) {
        return Some(format!("the status {status} is none of success"));
    }
    let json = answer.content_type.as_deref().is_some_and(|found| {
        let essence = found.split(';').next().unwrap_or("").trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    (type_checked && !json).then(|| "the content type is not application/json".into())
}

/// What the control API shows of an installation.
pub(crate) fn shown(installation: &Installation) -> Value {
    json!({
        "flavour": "forge",
        "site": installation.site,
        "product": installation.product.name(),
        "app": installation.app,
        "installation_id": installation.id,
        "cloud_id": installation.cloud_id,
        "environment": installation.environment,
        "api_base_url": installation.api_base_url,
        "site_url": installation.site_url,
        "remote_base_url": installation.remote_base_url,
        "events_url": installation.url(&installation.events_path),
        "refresh_url": installation.url(&installation.refresh_path),
        "state": if installation.active { "installed" } else { "uninstalled" },
        "refreshes": installation.refreshes,
        "refresh_count": installation.refresh_count,
    })
}

/// What the app may call besides the control API.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/.well-known/jwks.json", get(key_set))
        .route(&format!("{}/{{*rest}}", rest::BASE_PATH), any(rest::handle))
}

/// PROTOCOL 7.5: the keys of invocation tokens.
async fn key_set(State(shared): State<Arc<Shared>>) -> Response {
    match crate::key_server_fault(&shared, "forge_keys").await {
        Some(struck) => struck,
        None => Json(json!({ "keys": shared.forge_key_set() })).into_response(),
    }
}
