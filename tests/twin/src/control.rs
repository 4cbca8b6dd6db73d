//! The control API: what a test, a demo or a curious person does to the platform.

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::canonical::{canonical_request, query_string_hash};
use crate::clock::{Stopwatch, sleep};
use crate::content::Product;
use crate::export::announce;
use crate::faults::Rule;
use crate::forge::{self, ledger::Terms};
use crate::outbound::{
    Algorithm, AppAnswer, Signatory, SignedRequest, TokenWish, lifecycle_body, send, signed,
};
use crate::plan::{FileWish, Flavour, Plan, Prepared};
use crate::platform::{Installation, Platform, Transfer};
use crate::quota::Rule as Quota;
use crate::seed::uuid;
use crate::shared::Shared;
use crate::token::{InstallKey, Signer, claims, sign};

/// Files given as bytes make large requests.
const MOST_BODY_BYTES: usize = 64 * 1024 * 1024;
/// How long one request may wait for a transfer.
const MOST_WAIT: Duration = Duration::from_mins(1);
/// How long the app may take for a lifecycle callback or a raw event.
const APP_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/control/health", get(health))
        .route("/control/install", post(install))
        .route("/control/rotate", post(rotate))
        .route("/control/data-import", post(data_import))
        .route("/control/uninstall", post(uninstall))
        .route("/control/install-keys/rotate", post(rotate_install_key))
        .route("/control/sites", get(sites))
        .merge(forge::control::router())
        .route("/control/migrations", post(start_migration))
        .route("/control/transfers", get(transfers))
        .route("/control/transfers/{id}", get(transfer))
        .route("/control/transfers/{id}/mappings", get(missed_mappings))
        .route("/control/transfers/{id}/rerun", post(rerun))
        .route("/control/transfers/{id}/cancel", post(cancel))
        .route("/control/transfers/{id}/error", post(fail_listener))
        .route("/control/transfers/{id}/upload", post(upload))
        .route("/control/transfers/{id}/resend", post(resend))
        .route("/control/events", post(raw_event))
        .route("/control/token", post(mint))
        .route("/control/clock", get(clock).put(set_clock))
        .route("/control/clock/advance", post(advance_clock))
        .route(
            "/control/switches",
            get(switches).patch(patch_switches).delete(default_switches),
        )
        .route(
            "/control/faults",
            get(faults).post(add_fault).delete(clear_faults),
        )
        .route("/control/faults/{id}", delete(remove_fault))
        .route(
            "/control/quotas",
            get(quotas).put(set_quota).delete(clear_quotas),
        )
        .route("/control/quotas/{site}", get(quota_calls))
        .route("/control/mappings", get(mappings).put(declare_mappings))
        .route("/control/stats", get(stats))
        .route("/control/reset", post(reset))
        .route(
            "/control/{*rest}",
            axum::routing::any(|| async { Failure::NotFound("control operation".into()) }),
        )
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
}

/// What a caller of the control API did wrong, or what the platform's rules refuse.
#[derive(Debug)]
pub(crate) enum Failure {
    BadRequest(String),
    NotFound(String),
    Conflict(String),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, text),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, format!("there is no such {what}")),
            Self::Conflict(text) => (StatusCode::CONFLICT, text),
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::BadRequest(rejection.body_text())
    }
}

pub(crate) type Answer = Result<Json<Value>, Failure>;
pub(crate) type Body<T> = Result<Json<T>, JsonRejection>;

/// A body that may be left out, whatever the content type says.
pub(crate) fn optional<T: Default + DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Failure::BadRequest(format!("the body can't be read: {error}")))
}

async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "url": shared.url,
        "store_url": shared.store_url,
        "install_key_server": format!("{}/install-keys", shared.url),
        "forge_key_set": format!("{}/.well-known/jwks.json", shared.url),
        "forge_api": format!("{}/app/migration/forge/v1", shared.url),
        "app_key": shared.app_key,
        "forge_app": shared.forge_app,
        "seed": shared.seed,
    }))
}

// --- installations ---

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    site: String,
    #[serde(default)]
    product: Product,
    app_base_url: String,
    #[serde(default)]
    app_key: Option<String>,
    #[serde(default = "installed_path")]
    installed_path: String,
    #[serde(default = "uninstalled_path")]
    uninstalled_path: String,
    #[serde(default = "webhook_path")]
    webhook_path: String,
    #[serde(default = "yes")]
    descriptor_webhook: bool,
    #[serde(default)]
    client_key: Option<String>,
    #[serde(default)]
    shared_secret: Option<String>,
    #[serde(default)]
    token: TokenWish,
}

fn installed_path() -> String {
    "/connect/installed".into()
}

fn uninstalled_path() -> String {
    "/connect/uninstalled".into()
}

fn webhook_path() -> String {
    "/connect/events".into()
}

fn yes() -> bool {
    true
}

async fn install(State(shared): State<Arc<Shared>>, body: Body<Install>) -> Answer {
    let Json(wish) = body?;
    check_site(&wish.site)?;
    check_url("app_base_url", &wish.app_base_url)?;
    let app_key = wish
        .app_key
        .clone()
        .unwrap_or_else(|| shared.app_key.clone());
    let installation = {
        let mut platform = shared.platform();
        let secret = wish
            .shared_secret
            .clone()
            .unwrap_or_else(|| platform.new_secret());
        let known = platform
            .installation(&wish.site, wish.product, &app_key)
            .cloned();
        let client_key = wish
            .client_key
            .clone()
            .or_else(|| known.as_ref().map(|known| known.client_key.clone()))
            .unwrap_or_else(|| {
                let words = ["client", &wish.site, wish.product.name(), &app_key];
                uuid(platform.seed, &words)
            });
        Installation {
            site: wish.site,
            product: wish.product,
            app_key,
            client_key,
            pending_secret: Some(secret),
            secret: known
                .as_ref()
                .map(|known| known.secret.clone())
                .unwrap_or_default(),
            previous_secret: known
                .as_ref()
                .and_then(|known| known.previous_secret.clone()),
            active: known.as_ref().is_some_and(|known| known.active),
            app_base_url: wish.app_base_url.trim_end_matches('/').to_owned(),
            installed_path: wish.installed_path,
            uninstalled_path: wish.uninstalled_path,
            webhook_path: wish.webhook_path,
            descriptor_webhook: wish.descriptor_webhook,
            webhooks: known.map(|known| known.webhooks).unwrap_or_default(),
        }
    };
    call_installed(&shared, installation, &wish.token).await
}

pub(crate) fn check_site(site: &str) -> Result<(), Failure> {
    let simple = !site.is_empty()
        && site
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if simple {
        Ok(())
    } else {
        Err(Failure::BadRequest(
            "site must consist of letters, digits, '-', '_' and '.'".into(),
        ))
    }
}

pub(crate) fn check_url(name: &str, text: &str) -> Result<(), Failure> {
    let url = url::Url::parse(text)
        .map_err(|error| Failure::BadRequest(format!("{name} is no URL: {error}")))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(())
    } else {
        Err(Failure::BadRequest(format!("{name} must be http or https")))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenant {
    site: String,
    #[serde(default)]
    product: Product,
    #[serde(default)]
    app_key: Option<String>,
    #[serde(default)]
    token: TokenWish,
}

fn known(shared: &Shared, tenant: &Tenant) -> Result<Installation, Failure> {
    let app_key = tenant.app_key.as_deref().unwrap_or(&shared.app_key);
    shared
        .platform()
        .installation(&tenant.site, tenant.product, app_key)
        .cloned()
        .ok_or_else(|| Failure::NotFound("installation".into()))
}

async fn rotate(State(shared): State<Arc<Shared>>, body: Body<Tenant>) -> Answer {
    let Json(tenant) = body?;
    let mut installation = known(&shared, &tenant)?;
    installation.pending_secret = Some(shared.platform().new_secret());
    call_installed(&shared, installation, &tenant.token).await
}

async fn data_import(State(shared): State<Arc<Shared>>, body: Body<Tenant>) -> Answer {
    let Json(tenant) = body?;
    let mut installation = known(&shared, &tenant)?;
    {
        let mut platform = shared.platform();
        installation.client_key = platform.new_id("client");
        installation.pending_secret = Some(platform.new_secret());
    }
    installation.previous_secret = None;
    call_installed(&shared, installation, &tenant.token).await
}

/// Sends `installed`; only when the app takes it does the new secret count.
async fn call_installed(shared: &Shared, installation: Installation, token: &TokenWish) -> Answer {
    let find = |platform: &Platform| {
        platform.installations.iter().position(|found| {
            found.site == installation.site
                && found.product == installation.product
                && found.app_key == installation.app_key
        })
    };
    {
        // The app may use the new secret before its answer is here.
        let mut platform = shared.platform();
        let known = find(&platform);
        match known.map(|index| &mut platform.installations[index]) {
            Some(known) => known
                .pending_secret
                .clone_from(&installation.pending_secret),
            None => platform.installations.push(installation.clone()),
        }
    }
    let secret = installation.pending_secret.clone().unwrap_or_default();
    let answer = lifecycle(shared, &installation, "installed", Some(&secret), token).await;
    let accepted = matches!(
        &answer,
        Ok(AppAnswer {
            status: Some(200..300),
            ..
        })
    );
    let mut platform = shared.platform();
    let Some(index) = find(&platform) else {
        return Err(Failure::Conflict("the twin was reset meanwhile".into()));
    };
    if accepted {
        let old = platform.installations[index].secret.clone();
        let mut installation = installation.clone();
        installation
            .webhooks
            .clone_from(&platform.installations[index].webhooks);
        if !old.is_empty() {
            installation.previous_secret = Some(old);
        }
        installation.secret = secret;
        installation.pending_secret = None;
        installation.active = true;
        platform.installations[index] = installation;
        platform.count("lifecycle.installed");
    } else {
        let known = &mut platform.installations[index];
        known.pending_secret = None;
        if known.secret.is_empty() {
            platform.installations.remove(index);
        }
        platform.count("lifecycle.refused");
    }
    let shown =
        find(&platform).map(|index| installation_view(&platform, &platform.installations[index]));
    lifecycle_answer(answer, accepted, shown)
}

fn lifecycle_answer(
    answer: Result<AppAnswer, String>,
    accepted: bool,
    installation: Option<Value>,
) -> Answer {
    let answer = answer.map_err(Failure::BadRequest)?;
    let mut view = json!({ "accepted": accepted });
    merge(&mut view, &answer);
    view["installation"] = installation.unwrap_or_default();
    Ok(Json(view))
}

async fn uninstall(State(shared): State<Arc<Shared>>, body: Body<Tenant>) -> Answer {
    let Json(tenant) = body?;
    let installation = known(&shared, &tenant)?;
    // The site's admin removes the app whatever the app answers.
    let gone = {
        let mut platform = shared.platform();
        platform.count("lifecycle.uninstalled");
        platform
            .installation_mut(
                &installation.site,
                installation.product,
                &installation.app_key,
            )
            .map(|known| {
                known.active = false;
                known.clone()
            })
    };
    let answer = lifecycle(&shared, &installation, "uninstalled", None, &tenant.token).await;
    let accepted = matches!(
        &answer,
        Ok(AppAnswer {
            status: Some(200..300),
            ..
        })
    );
    let view = gone.map(|gone| installation_view(&shared.platform(), &gone));
    lifecycle_answer(answer, accepted, view)
}

async fn lifecycle(
    shared: &Shared,
    installation: &Installation,
    event_type: &str,
    secret: Option<&str>,
    token: &TokenWish,
) -> Result<AppAnswer, String> {
    let path = if event_type == "installed" {
        &installation.installed_path
    } else {
        &installation.uninstalled_path
    };
    let url = format!("{}{path}", installation.app_base_url);
    let (base_url, now_s) = {
        let platform = shared.platform();
        (
            platform.base_url(&installation.site, installation.product),
            platform.token_now_s(platform.switches.token_clock),
        )
    };
    let signatory = Signatory {
        installation,
        install_key: shared.install_key(),
        now_s,
    };
    let request = signed(&signatory, "POST", &url, Algorithm::Rs256, token)?;
    let body = lifecycle_body(event_type, installation, &base_url, secret).to_string();
    Ok(send(
        &shared.http,
        "POST",
        &request,
        body.into_bytes(),
        APP_TIMEOUT,
    )
    .await)
}

async fn rotate_install_key(State(shared): State<Arc<Shared>>) -> Answer {
    let key = tokio::task::spawn_blocking(InstallKey::generate)
        .await
        .ok()
        .flatten()
        .ok_or_else(|| Failure::Conflict("no RSA key could be made".into()))?;
    let id = key.id.clone();
    shared.add_install_key(key);
    Ok(Json(json!({ "kid": id })))
}

async fn sites(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let platform = shared.platform();
    Json(
        platform
            .installations
            .iter()
            .map(|installation| installation_view(&platform, installation))
            .chain(platform.forge_installations.iter().map(forge::shown))
            .collect(),
    )
}

fn installation_view(platform: &Platform, installation: &Installation) -> Value {
    json!({
        "flavour": "connect",
        "site": installation.site,
        "product": installation.product.name(),
        "base_url": platform.base_url(&installation.site, installation.product),
        "client_key": installation.client_key,
        "shared_secret": installation.secret,
        "app_key": installation.app_key,
        "app_base_url": installation.app_base_url,
        "state": if installation.active { "installed" } else { "uninstalled" },
        "webhooks": installation.webhooks,
    })
}

// --- migrations ---

async fn start_migration(
    State(shared): State<Arc<Shared>>,
    body: Body<Plan>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let Json(plan) = body?;
    let files = prepare(&shared, &plan).await?;
    begin(&shared, plan, files, None)
}

async fn prepare(shared: &Arc<Shared>, plan: &Plan) -> Result<Vec<Prepared>, Failure> {
    let (holder, plan) = (Arc::clone(shared), plan.clone());
    tokio::task::spawn_blocking(move || plan.prepare(holder.seed, &holder.compressed))
        .await
        .map_err(|_| Failure::BadRequest("the files could not be made".into()))?
        .map_err(|error| Failure::BadRequest(error.to_string()))
}

fn begin(
    shared: &Shared,
    mut plan: Plan,
    files: Vec<Prepared>,
    after: Option<&str>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let mut platform = shared.platform();
    let app_of = |default: &str| plan.app_key.clone().unwrap_or_else(|| default.to_owned());
    let (connect, forge) = (app_of(&shared.app_key), app_of(&shared.forge_app));
    let only_forge = platform
        .installation(&plan.site, plan.product, &connect)
        .is_none()
        && platform
            .forge_installation(&plan.site, plan.product, &forge)
            .is_some();
    let (flavour, app_key) = match plan.flavour {
        Some(Flavour::Forge) => (Flavour::Forge, forge),
        None if only_forge => (Flavour::Forge, forge),
        _ => (Flavour::Connect, connect),
    };
    plan.flavour = Some(flavour);
    if let Some(previous) = after {
        // Again, under the lock: files took their time to be made.
        platform.may_rerun(previous).map_err(Failure::Conflict)?;
    }
    let id = platform
        .create(plan, &app_key, files, after)
        .map_err(Failure::Conflict)?;
    platform.begin_export(&id);
    let Some(transfer) = platform.transfer(&id) else {
        return Err(Failure::NotFound("transfer".into()));
    };
    let files: Vec<Value> = transfer
        .files
        .iter()
        .map(|file| {
            json!({
                "label": file.label,
                "s3_key": file.s3_key,
                "bytes": file.content.size(),
                "records": file.records,
                "manifest": file.manifest,
            })
        })
        .collect();
    let view = json!({
        "transfer_id": id,
        "original_transfer_id": transfer.original_id,
        "migration_id": transfer.migration_id,
        "attempt": transfer.attempt,
        "files": files,
    });
    Ok((StatusCode::CREATED, Json(view)))
}

async fn rerun(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let overrides: Map<String, Value> = optional(&body)?;
    let (plan, contents) = {
        let platform = shared.platform();
        let transfer = find(&platform, &id)?;
        platform.may_rerun(&id).map_err(Failure::Conflict)?;
        let contents: Vec<Prepared> = transfer
            .files
            .iter()
            .map(|file| Prepared {
                label: file.label.clone(),
                content: file.content.clone(),
                records: file.records,
                gzip: file.gzip,
                manifest: file.manifest,
                preloaded: file.preloaded,
            })
            .collect();
        (transfer.plan.clone(), contents)
    };
    // By default the export that died doesn't die again.
    let plan = Plan {
        stop_export_after: None,
        listener_error: None,
        ..plan
    };
    let mut merged = serde_json::to_value(&plan).unwrap_or_default();
    for (name, value) in &overrides {
        merged[name.as_str()] = value.clone();
    }
    let plan: Plan =
        serde_json::from_value(merged).map_err(|error| Failure::BadRequest(error.to_string()))?;
    let new_files = ["files", "manifest", "manifest_label"]
        .iter()
        .any(|name| overrides.contains_key(*name));
    let files = if new_files {
        prepare(&shared, &plan).await?
    } else {
        contents
    };
    begin(&shared, plan, files, Some(&id))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Cancel {
    force: bool,
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let wish: Cancel = optional(&body)?;
    let mut platform = shared.platform();
    find(&platform, &id)?;
    let state = platform
        .cancel(&id, wish.force)
        .map_err(Failure::Conflict)?;
    Ok(Json(json!({ "state": state })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerFailure {
    exception_type: String,
    #[serde(default)]
    stack_trace: Option<String>,
}

async fn fail_listener(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Body<ListenerFailure>,
) -> Answer {
    let Json(failure) = body?;
    let mut platform = shared.platform();
    find(&platform, &id)?;
    platform.listener_failed(&id, &failure.exception_type, failure.stack_trace.as_deref());
    Ok(Json(json!({})))
}

async fn upload(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Body<FileWish>,
) -> Answer {
    let Json(wish) = body?;
    let mut plan = {
        let platform = shared.platform();
        find(&platform, &id)?.plan.clone()
    };
    plan.files = vec![wish];
    plan.manifest = false;
    let files = prepare(&shared, &plan).await?;
    let mut platform = shared.platform();
    let mut keys = Vec::new();
    for prepared in files {
        let Some(position) = platform.add_file(&id, prepared) else {
            return Err(Failure::NotFound("transfer".into()));
        };
        platform.upload(&id, position);
        announce(&mut platform, &id, position);
        keys.push(find(&platform, &id)?.files[position].s3_key.clone());
    }
    Ok(Json(json!({ "s3_keys": keys })))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Resend {
    event: Option<String>,
    copies: Option<u32>,
}

async fn resend(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let wish: Resend = optional(&body)?;
    let platform = shared.platform();
    let transfer = find(&platform, &id)?;
    let mut sent = 0;
    for (position, event) in transfer.events.iter().enumerate() {
        if wish
            .event
            .as_ref()
            .is_none_or(|wanted| *wanted == event.event_type)
        {
            for delivery in 0..event.deliveries.len() {
                platform.send(&id, position, delivery, Some(wish.copies.unwrap_or(1)));
                sent += 1;
            }
        }
    }
    Ok(Json(json!({ "events": sent })))
}

#[derive(Deserialize)]
struct Filter {
    site: Option<String>,
}

async fn transfers(State(shared): State<Arc<Shared>>, Query(filter): Query<Filter>) -> Json<Value> {
    let platform = shared.platform();
    Json(
        platform
            .transfers
            .iter()
            .filter(|transfer| {
                filter
                    .site
                    .as_ref()
                    .is_none_or(|site| *site == transfer.site)
            })
            .map(|transfer| summary(&platform, transfer))
            .collect(),
    )
}

#[derive(Deserialize)]
struct Wait {
    wait_for: Option<String>,
    timeout_ms: Option<u64>,
}

async fn transfer(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Answer {
    let limit = wait
        .timeout_ms
        .map_or(MOST_WAIT, Duration::from_millis)
        .min(MOST_WAIT);
    let waited = Stopwatch::start();
    loop {
        {
            let platform = shared.platform();
            let transfer = find(&platform, &id)?;
            let ready = match wait.wait_for.as_deref() {
                None => true,
                Some("settled") => transfer.state.settled(),
                Some("exported") => transfer.export.ended(),
                Some("delivered") => {
                    transfer.export.ended()
                        && transfer.events.iter().all(crate::platform::Event::ended)
                }
                Some(_) => {
                    return Err(Failure::BadRequest(
                        "wait_for must be settled, exported or delivered".into(),
                    ));
                }
            };
            if ready || waited.elapsed() >= limit {
                let mut view = detail(&platform, transfer);
                view["waited_in_vain"] = (!ready).into();
                return Ok(Json(view));
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn missed_mappings(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let platform = shared.platform();
    let transfer = find(&platform, &id)?;
    Ok(Json(
        json!({ "calls": transfer.mapping_calls, "not_found": transfer.not_found }),
    ))
}

fn find<'a>(platform: &'a Platform, id: &str) -> Result<&'a Transfer, Failure> {
    platform
        .transfer(id)
        .ok_or_else(|| Failure::NotFound("transfer".into()))
}

fn summary(platform: &Platform, transfer: &Transfer) -> Value {
    let uploaded = transfer
        .files
        .iter()
        .filter(|file| file.uploaded_at_ms.is_some())
        .count();
    json!({
        "transfer_id": transfer.id,
        "flavour": if transfer.forge.is_some() { Flavour::Forge } else { Flavour::Connect },
        "original_transfer_id": transfer.original_id,
        "attempt": transfer.attempt,
        "site": transfer.site,
        "product": transfer.product.name(),
        "name": transfer.plan.name,
        "state": transfer.state,
        "percent": transfer.percent,
        "message": transfer.message,
        "settled_by": transfer.settled_by,
        "accepted_settlements": transfer.accepted_settlements,
        "export": transfer.export,
        "files": transfer.files.len(),
        "files_uploaded": uploaded,
        "created_ms": transfer.created_ms,
        "age_ms": platform.clock.now_ms() - transfer.created_ms,
        "settled_ms": transfer.settled_ms,
    })
}

fn detail(platform: &Platform, transfer: &Transfer) -> Value {
    let mut view = summary(platform, transfer);
    view["migration_details"] = platform.details(transfer);
    view["client_key"] = transfer.client_key.clone().into();
    view["app_key"] = transfer.app_key.clone().into();
    view["cancel_requested_ms"] = transfer.cancel_requested_ms.into();
    view["rerun_refused_because"] = platform.may_rerun(&transfer.id).err().into();
    view["error"] = transfer
        .error
        .as_ref()
        .map(|(exception, trace)| json!({ "exception_type": exception, "stack_trace": trace }))
        .into();
    view["feedback"] = transfer.feedback.clone().into();
    view["progress_calls"] = transfer.progress_calls.into();
    view["progress"] = serde_json::to_value(&transfer.progress).unwrap_or_default();
    view["mapping_calls"] = transfer.mapping_calls.into();
    if let Some(ledger) = &transfer.forge {
        let until = transfer
            .settled_ms
            .unwrap_or_else(|| platform.clock.now_ms());
        view["forge"] = ledger.shown(&Terms::of(&platform.switches), until);
    }
    view["file_list"] = transfer
        .files
        .iter()
        .map(|file| {
            json!({
                "s3_key": file.s3_key,
                "label": file.label,
                "bytes": file.content.size(),
                "records": file.records,
                "manifest": file.manifest,
                "uploaded_at_ms": file.uploaded_at_ms,
                "listed": file.listed,
                "urls_issued": file.urls_issued,
                "bytes_served": file.bytes_served,
                "fetches": file.fetches,
            })
        })
        .collect();
    view["events"] = transfer
        .events
        .iter()
        .map(|event| {
            json!({
                "event_type": event.event_type,
                "message_id": event.body.get("messageId"),
                "s3_key": event.s3_key,
                "at_ms": event.at_ms,
                "deliveries": event.deliveries,
                "body": event.body,
            })
        })
        .collect();
    view
}

// --- raw requests and tokens ---

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    site: String,
    #[serde(default)]
    product: Product,
    #[serde(default)]
    app_key: Option<String>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    raw_body_base64: Option<String>,
    #[serde(default)]
    token: TokenWish,
}

async fn raw_event(State(shared): State<Arc<Shared>>, body: Body<RawEvent>) -> Answer {
    let Json(wish) = body?;
    let tenant = Tenant {
        site: wish.site,
        product: wish.product,
        app_key: wish.app_key,
        token: TokenWish::default(),
    };
    let installation = known(&shared, &tenant)?;
    let path = wish.path.as_deref().unwrap_or(&installation.webhook_path);
    let url = format!("{}{path}", installation.app_base_url);
    let method = wish.method.as_deref().unwrap_or("POST");
    let payload = match (&wish.raw_body_base64, &wish.body) {
        (Some(encoded), _) => base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|_| Failure::BadRequest("raw_body_base64 is not base64".into()))?,
        (None, Some(body)) => body.to_string().into_bytes(),
        (None, None) => Vec::new(),
    };
    let now_s = {
        let platform = shared.platform();
        platform.token_now_s(platform.switches.token_clock)
    };
    let signatory = Signatory {
        installation: &installation,
        install_key: shared.install_key(),
        now_s,
    };
    let request: SignedRequest = signed(&signatory, method, &url, Algorithm::Hs256, &wish.token)
        .map_err(Failure::BadRequest)?;
    let answer = send(&shared.http, method, &request, payload, APP_TIMEOUT).await;
    let mut view = json!({});
    merge(&mut view, &answer);
    Ok(Json(view))
}

pub(crate) fn merge(view: &mut Value, more: &impl Serialize) {
    if let Ok(Value::Object(more)) = serde_json::to_value(more) {
        for (name, value) in more {
            view[name.as_str()] = value;
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mint {
    site: String,
    #[serde(default)]
    product: Product,
    #[serde(default)]
    app_key: Option<String>,
    #[serde(default)]
    method: Option<String>,
    url: String,
}

async fn mint(State(shared): State<Arc<Shared>>, body: Body<Mint>) -> Answer {
    let Json(wish) = body?;
    let tenant = Tenant {
        site: wish.site,
        product: wish.product,
        app_key: wish.app_key,
        token: TokenWish::default(),
    };
    let installation = known(&shared, &tenant)?;
    let (base_url, now_s) = {
        let platform = shared.platform();
        (
            platform.base_url(&installation.site, installation.product),
            platform.token_now_s(platform.switches.request_token_clock),
        )
    };
    let base =
        url::Url::parse(&base_url).map_err(|error| Failure::BadRequest(error.to_string()))?;
    let target = if wish.url.starts_with('/') {
        url::Url::parse(&format!("{base_url}{}", wish.url))
    } else {
        url::Url::parse(&wish.url)
    }
    .map_err(|error| Failure::BadRequest(format!("url: {error}")))?;
    let canonical = canonical_request(
        wish.method.as_deref().unwrap_or("GET"),
        target.path(),
        target.query().unwrap_or(""),
        base.path(),
    );
    let qsh = query_string_hash(&canonical);
    let claims = claims(&installation.app_key, now_s, 180, &qsh);
    let token = sign(&Signer::Hs256(&installation.secret), None, &claims).unwrap_or_default();
    Ok(Json(json!({
        "token": token,
        "authorization": format!("JWT {token}"),
        "url": target.as_str(),
        "qsh": qsh,
        "canonical_request": canonical,
    })))
}

// --- clock, switches, faults, mappings, statistics ---

fn clock_view(platform: &Platform) -> Value {
    json!({
        "now_ms": platform.clock.now_ms(),
        "rate": platform.clock.rate(),
        "offset_ms": platform.clock.offset_ms(),
    })
}

async fn clock(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(clock_view(&shared.platform()))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Advance {
    milliseconds: u32,
    seconds: u32,
    minutes: u32,
    hours: u32,
    days: u32,
}

async fn advance_clock(State(shared): State<Arc<Shared>>, body: Body<Advance>) -> Answer {
    let Json(by) = body?;
    let seconds = i64::from(by.days) * 86_400
        + i64::from(by.hours) * 3_600
        + i64::from(by.minutes) * 60
        + i64::from(by.seconds);
    let mut platform = shared.platform();
    platform.clock.advance(
        seconds
            .saturating_mul(1_000)
            .saturating_add(i64::from(by.milliseconds)),
    );
    platform.tick();
    Ok(Json(clock_view(&platform)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetClock {
    #[serde(default)]
    now_ms: Option<i64>,
    #[serde(default)]
    rate: Option<f64>,
}

async fn set_clock(State(shared): State<Arc<Shared>>, body: Body<SetClock>) -> Answer {
    let Json(wish) = body?;
    let mut platform = shared.platform();
    if wish
        .rate
        .is_some_and(|rate| !(0.0..=1_000_000.0).contains(&rate))
    {
        return Err(Failure::BadRequest(
            "rate must be between 0 and 1000000".into(),
        ));
    }
    if let Some(now_ms) = wish.now_ms
        && !platform.clock.set(now_ms)
    {
        return Err(Failure::BadRequest("the clock never runs backwards".into()));
    }
    if let Some(rate) = wish.rate {
        platform.clock.set_rate(rate);
    }
    platform.tick();
    Ok(Json(clock_view(&platform)))
}

fn switches_view(platform: &Platform) -> Json<Value> {
    Json(serde_json::to_value(&platform.switches).unwrap_or_default())
}

async fn switches(State(shared): State<Arc<Shared>>) -> Json<Value> {
    switches_view(&shared.platform())
}

async fn patch_switches(
    State(shared): State<Arc<Shared>>,
    body: Body<Map<String, Value>>,
) -> Answer {
    let Json(changes) = body?;
    let mut platform = shared.platform();
    platform.switches = platform
        .switches
        .patched(&changes)
        .map_err(Failure::BadRequest)?;
    Ok(switches_view(&platform))
}

async fn default_switches(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let mut platform = shared.platform();
    platform.switches = crate::switches::Switches::default();
    switches_view(&platform)
}

fn faults_view(platform: &Platform) -> Json<Value> {
    Json(serde_json::to_value(platform.faults.rules()).unwrap_or_default())
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Value> {
    faults_view(&shared.platform())
}

async fn add_fault(
    State(shared): State<Arc<Shared>>,
    body: Body<Rule>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let Json(rule) = body?;
    let mut platform = shared.platform();
    let added = platform.faults.add(rule).map_err(Failure::BadRequest)?;
    let view = serde_json::to_value(added).unwrap_or_default();
    Ok((StatusCode::CREATED, Json(view)))
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let mut platform = shared.platform();
    platform.faults.clear();
    faults_view(&platform)
}

async fn remove_fault(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Answer {
    let mut platform = shared.platform();
    if platform.faults.remove(id) {
        Ok(faults_view(&platform))
    } else {
        Err(Failure::NotFound("fault".into()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    #[serde(default)]
    from_ms: Option<i64>,
    #[serde(default)]
    until_ms: Option<i64>,
}

async fn quotas(State(shared): State<Arc<Shared>>, Query(span): Query<Span>) -> Json<Value> {
    let platform = shared.platform();
    Json(platform.quotas.figures(span.from_ms, span.until_ms))
}

async fn set_quota(State(shared): State<Arc<Shared>>, body: Body<Quota>) -> Answer {
    let Json(quota) = body?;
    let mut platform = shared.platform();
    platform.quotas.set(quota).map_err(Failure::BadRequest)?;
    Ok(Json(platform.quotas.figures(None, None)))
}

async fn clear_quotas(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let mut platform = shared.platform();
    platform.quotas.clear();
    Json(platform.quotas.figures(None, None))
}

async fn quota_calls(State(shared): State<Arc<Shared>>, Path(site): Path<String>) -> Answer {
    let calls = shared.platform().quotas.calls(&site);
    calls
        .map(Json)
        .ok_or_else(|| Failure::NotFound("quota".into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declare {
    namespace: String,
    #[serde(default)]
    values: BTreeMap<String, String>,
    #[serde(default)]
    holes: BTreeSet<String>,
}

async fn mappings(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.platform().mappings.declared())
}

async fn declare_mappings(State(shared): State<Arc<Shared>>, body: Body<Declare>) -> Answer {
    let Json(wish) = body?;
    let mut platform = shared.platform();
    platform
        .mappings
        .declare(&wish.namespace, wish.values, wish.holes);
    Ok(Json(platform.mappings.declared()))
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let platform = shared.platform();
    let active = platform
        .transfers
        .iter()
        .filter(|transfer| !transfer.state.settled())
        .count();
    Json(json!({
        "transfers": platform.transfers.len(),
        "transfers_active": active,
        "counters": platform.stats,
    }))
}

async fn reset(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.platform().reset();
    shared.compressed.forget();
    Json(json!({}))
}
