//! The control API's part for Forge.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

use crate::content::Product;
use crate::control::{Answer, Body, Failure, check_site, check_url, merge, optional};
use crate::forge::refresh::{Fired, fire};
use crate::forge::token::{FitWish, Invocation, Module, SystemWish, fit, system_token};
use crate::forge::{Environment, Installation, shown};
use crate::platform::Platform;
use crate::seed::uuid;
use crate::shared::Shared;
use crate::token::InstallKey;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/control/forge/install", post(install))
        .route("/control/forge/uninstall", post(uninstall))
        .route("/control/forge/token", post(mint))
        .route("/control/forge/refresh", post(refresh))
        .route("/control/forge/keys/rotate", post(rotate_key))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    site: String,
    #[serde(default)]
    product: Product,
    remote_base_url: String,
    #[serde(default = "events_path")]
    events_path: String,
    #[serde(default = "refresh_path")]
    refresh_path: String,
    #[serde(default)]
    app: Option<String>,
    #[serde(default)]
    installation_id: Option<String>,
    #[serde(default)]
    environment: Environment,
}

fn events_path() -> String {
    "/forge/events".into()
}

fn refresh_path() -> String {
    "/forge/refresh".into()
}

/// Installs, or updates what is installed. No request is sent: the app learns of its tenant with the first invocation.
async fn install(State(shared): State<Arc<Shared>>, body: Body<Install>) -> Answer {
    let Json(wish) = body?;
    check_site(&wish.site)?;
    check_url("remote_base_url", &wish.remote_base_url)?;
    let app = wish.app.unwrap_or_else(|| shared.forge_app.clone());
    if !app.starts_with("ari:cloud:ecosystem::app/") {
        return Err(Failure::BadRequest(
            "app must be an ARI, ari:cloud:ecosystem::app/...".into(),
        ));
    }
    let mut platform = shared.platform();
    let seed = platform.seed;
    let known = platform.forge_installations.iter().position(|found| {
        found.site == wish.site && found.product == wish.product && found.app == app
    });
    let active = known
        .map(|index| &platform.forge_installations[index])
        .filter(|known| known.active)
        .map(|known| known.id.clone());
    let id = wish.installation_id.or(active).unwrap_or_else(|| {
        let product = wish.product.name();
        let id = if known.is_none() {
            uuid(seed, &["installation", &wish.site, product, &app])
        } else {
            // Who comes back is another installation.
            platform.new_id("installation")
        };
        format!("ari:cloud:ecosystem::installation/{id}")
    });
    let before = known.map(|index| &platform.forge_installations[index]);
    let cloud_id = uuid(seed, &["cloud", &wish.site]);
    let installation = Installation {
        product: wish.product,
        id,
        environment: wish.environment,
        environment_id: uuid(
            seed,
            &["environment", &app, &format!("{:?}", wish.environment)],
        ),
        api_base_url: format!("{}/ex/{}/{cloud_id}", shared.url, wish.product.name()),
        site_url: format!("{}/sites/{}", shared.url, wish.site),
        cloud_id,
        remote_base_url: wish.remote_base_url.trim_end_matches('/').to_owned(),
        events_path: wish.events_path,
        refresh_path: wish.refresh_path,
        active: true,
        refreshed_ms: platform.clock.now_ms(),
        refreshes: before.map_or_else(Vec::new, |known| known.refreshes.clone()),
        refresh_count: before.map_or(0, |known| known.refresh_count),
        site: wish.site,
        app,
    };
    let view = shown(&installation);
    match known {
        Some(index) => platform.forge_installations[index] = installation,
        None => platform.forge_installations.push(installation),
    }
    platform.count("forge.installed");
    Ok(Json(json!({ "installation": view })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenant {
    site: String,
    #[serde(default)]
    product: Product,
    #[serde(default)]
    app: Option<String>,
}

fn known<'a>(
    shared: &Shared,
    platform: &'a Platform,
    tenant: &Tenant,
) -> Result<&'a Installation, Failure> {
    let app = tenant.app.as_deref().unwrap_or(&shared.forge_app);
    platform
        .forge_installation(&tenant.site, tenant.product, app)
        .ok_or_else(|| Failure::NotFound("installation".into()))
}

async fn uninstall(State(shared): State<Arc<Shared>>, body: Body<Tenant>) -> Answer {
    let Json(tenant) = body?;
    let mut platform = shared.platform();
    let id = known(&shared, &platform, &tenant)?.id.clone();
    platform.count("forge.uninstalled");
    for installation in &mut platform.forge_installations {
        if installation.id == id {
            installation.active = false;
        }
    }
    let view = shown(known(&shared, &platform, &tenant)?);
    Ok(Json(json!({ "installation": view })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mint {
    site: String,
    #[serde(default)]
    product: Product,
    #[serde(default)]
    app: Option<String>,
    #[serde(default)]
    token: FitWish,
    #[serde(default)]
    system_token: SystemWish,
}

/// An invocation token and a system token for a request of one's own.
async fn mint(State(shared): State<Arc<Shared>>, body: Body<Mint>) -> Answer {
    let Json(wish) = body?;
    let tenant = Tenant {
        site: wish.site,
        product: wish.product,
        app: wish.app,
    };
    let mut platform = shared.platform();
    let nth = platform.new_id("invocation");
    let installation = known(&shared, &platform, &tenant)?;
    let invocation = Invocation {
        installation,
        module: Module::Trigger,
        words: &[&nth],
    };
    let (token, claims) =
        fit(&shared, &platform, &invocation, &wish.token).map_err(Failure::BadRequest)?;
    let (system, expires_s) = system_token(&shared, &platform, installation, &wish.system_token);
    Ok(Json(json!({
        "authorization": format!("Bearer {token}"),
        "token": token,
        "claims": claims,
        "system_token": system,
        "system_token_expires_s": expires_s,
    })))
}

async fn refresh(State(shared): State<Arc<Shared>>, body: Body<Tenant>) -> Answer {
    let Json(tenant) = body?;
    let id = known(&shared, &shared.platform(), &tenant)?.id.clone();
    match fire(&shared, &id).await {
        Fired::Answered(answer) => {
            let mut view = json!({ "dropped": false });
            merge(&mut view, &answer);
            Ok(Json(view))
        }
        Fired::Dropped => Ok(Json(json!({ "dropped": true }))),
        Fired::Gone => Err(Failure::Conflict("the app was uninstalled".into())),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    retire_old: bool,
}

async fn rotate_key(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let wish: Rotation = optional(&body)?;
    let key = tokio::task::spawn_blocking(InstallKey::generate)
        .await
        .ok()
        .flatten()
        .ok_or_else(|| Failure::Conflict("no RSA key could be made".into()))?;
    let id = key.id.clone();
    shared.add_forge_key(key, wish.retire_old);
    Ok(Json(json!({ "kid": id })))
}
