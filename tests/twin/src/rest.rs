//! The eleven operations of the Connect REST API.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::canonical::{canonical_request, form_decoded};
use crate::clock::sleep;
use crate::content::Product;
use crate::faults::{Kind, Place, Rule};
use crate::plan::Flavour;
use crate::platform::{Caller, Platform, Refused};
use crate::quota::Beyond;
use crate::server::cut;
use crate::shared::Shared;
use crate::store;
use crate::switches::{ErrorBodies, LastEntity};
use crate::token::{Refusal, Unverified};

/// Bodies are read up to here.
pub(crate) const MOST_BODY_BYTES: usize = 8 * 1024 * 1024;
/// PROTOCOL 3.1: at most five webhooks.
const MOST_WEBHOOKS: usize = 5;
/// PROTOCOL 5: pages of mappings and of containers.
const MAPPING_PAGE: usize = 5_000;
const CONTAINER_PAGE: usize = 250;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation<'a> {
    WebhookGet,
    WebhookPut,
    Progress(&'a str),
    MappingFind(&'a str),
    MappingPage(&'a str),
    DataAll(&'a str),
    DataUrl(&'a str),
    TransferRecent,
    ContainerPage(&'a str),
    Feedback(&'a str),
    Error(&'a str),
}

impl Operation<'_> {
    fn target(self) -> &'static str {
        match self {
            Self::WebhookGet => "rest.webhook_get",
            Self::WebhookPut => "rest.webhook_put",
            Self::Progress(_) => "rest.progress",
            Self::MappingFind(_) => "rest.mapping_find",
            Self::MappingPage(_) => "rest.mapping_page",
            Self::DataAll(_) => "rest.data_all",
            Self::DataUrl(_) => "rest.data_url",
            Self::TransferRecent => "rest.transfer_recent",
            Self::ContainerPage(_) => "rest.container_page",
            Self::Feedback(_) => "rest.feedback",
            Self::Error(_) => "rest.error",
        }
    }

    fn transfer(self) -> Option<String> {
        match self {
            Self::Progress(id)
            | Self::MappingFind(id)
            | Self::MappingPage(id)
            | Self::DataAll(id)
            | Self::ContainerPage(id)
            | Self::Feedback(id)
            | Self::Error(id) => Some(id.to_owned()),
            _ => None,
        }
    }
}

struct Target<'a> {
    site: String,
    product: Product,
    context_path: String,
    segments: Vec<&'a str>,
}

/// Everything below `/sites/`.
pub(crate) async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(target) = target(&uri) else {
        return plain(StatusCode::NOT_FOUND, "no such site or resource");
    };
    let operation = match operation(&method, &target.segments) {
        Ok(operation) => operation,
        Err(status) => return plain(status, "no such operation"),
    };
    let transfer = operation.transfer();
    let struck = shared.platform().faults.strike(
        &Place {
            target: operation.target(),
            event_type: None,
            transfer_id: transfer.as_deref(),
            site: Some(&target.site),
        },
        &[Kind::Status, Kind::Slow, Kind::Cut, Kind::LoseAnswer],
    );
    shared.platform().count(operation.target());
    for slow in struck.iter().filter(|rule| rule.kind == Kind::Slow) {
        sleep(Duration::from_millis(slow.delay_ms.unwrap_or(3_000))).await;
    }
    if struck.iter().any(|rule| rule.kind == Kind::Cut) {
        return cut();
    }
    if let Err(beyond) = shared.platform().call(&target.site, operation.target()) {
        return quota_response(beyond);
    }
    if let Some(rule) = struck.iter().find(|rule| rule.kind == Kind::Status) {
        return fault_response(rule);
    }
    let Ok(body) = axum::body::to_bytes(body, MOST_BODY_BYTES).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    };
    let response = answer(&shared, &method, &uri, &headers, &body, &target, operation);
    if struck.iter().any(|rule| rule.kind == Kind::LoseAnswer) {
        return cut();
    }
    response
}

pub(crate) fn fault_response(rule: &Rule) -> Response {
    let status = rule
        .status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = plain(status, "fault injected by a rule");
    if let Some(seconds) = rule.retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(crate) fn quota_response(Beyond(retry_after_s): Beyond) -> Response {
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded.");
    if let Some(seconds) = retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

/// Splits `/sites/{site}[/wiki]/rest/atlassian-connect/1/migration/...`.
fn target(uri: &Uri) -> Option<Target<'_>> {
    const API: [&str; 4] = ["rest", "atlassian-connect", "1", "migration"];

    let rest = uri.path().strip_prefix("/sites/")?;
    let mut segments: Vec<&str> = rest.split('/').collect();
    if segments.last() == Some(&"") {
        segments.pop();
    }
    if segments.is_empty() {
        return None;
    }
    let site = decoded(segments.remove(0));
    let product = if segments.first() == Some(&"wiki") {
        segments.remove(0);
        Product::Confluence
    } else {
        Product::Jira
    };
    if segments.len() < API.len() || segments[..API.len()] != API {
        return None;
    }
    let mut context_path = format!("/sites/{site}");
    if product == Product::Confluence {
        context_path.push_str("/wiki");
    }
    Some(Target {
        site,
        product,
        context_path,
        segments: segments.split_off(API.len()),
    })
}

fn operation<'a>(method: &Method, segments: &[&'a str]) -> Result<Operation<'a>, StatusCode> {
    let (get, operation) = match *segments {
        ["webhook"] if method == Method::PUT => return Ok(Operation::WebhookPut),
        ["webhook"] => (true, Operation::WebhookGet),
        ["progress", id] => (false, Operation::Progress(id)),
        ["mapping", id, "find"] => (false, Operation::MappingFind(id)),
        ["mapping", id, "page"] => (true, Operation::MappingPage(id)),
        ["data", id, "all"] => (true, Operation::DataAll(id)),
        ["data", key] => (true, Operation::DataUrl(key)),
        ["transfer", "recent"] => (true, Operation::TransferRecent),
        ["container", id, "page"] => (true, Operation::ContainerPage(id)),
        ["feedback", id] => (false, Operation::Feedback(id)),
        ["error", id] => (true, Operation::Error(id)),
        _ => return Err(StatusCode::NOT_FOUND),
    };
    let expected = if get { Method::GET } else { Method::POST };
    if *method == expected {
        Ok(operation)
    } else {
        Err(StatusCode::METHOD_NOT_ALLOWED)
    }
}

fn answer(
    shared: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    target: &Target<'_>,
    operation: Operation<'_>,
) -> Response {
    let mut platform = shared.platform();
    // PROTOCOL 4.3: the gateway refuses a GET with a body.
    let outcome = if *method == Method::GET && !body.is_empty() {
        Err(Refused::new(
            403,
            "Forbidden.",
            "a GET must not have a body",
        ))
    } else {
        authenticate(&platform, method, uri, headers, target)
            .map_err(|refusal| Refused::new(401, "Unauthorized.", &refusal.to_string()))
            .and_then(|caller| {
                perform(
                    shared,
                    &mut platform,
                    operation,
                    &caller,
                    uri.query().unwrap_or(""),
                    body,
                )
            })
    };
    match outcome {
        Ok(value) => {
            platform.count(format!("{}.200", operation.target()));
            axum::Json(value).into_response()
        }
        Err(refused) => {
            tracing::info!(
                operation = operation.target(),
                status = refused.status,
                reason = refused.reason,
                "refused"
            );
            platform.count(format!("{}.{}", operation.target(), refused.status));
            refusal_response(platform.switches.error_bodies, &refused)
        }
    }
}

pub(crate) fn refusal_response(bodies: ErrorBodies, refused: &Refused) -> Response {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = match bodies {
        ErrorBodies::Text => (status, refused.message.clone()).into_response(),
        ErrorBodies::Json => {
            let body = json!({ "statusCode": refused.status, "message": refused.message });
            (status, axum::Json(body)).into_response()
        }
        ErrorBodies::JsonWithHint => {
            let body = json!({
                "statusCode": refused.status,
                "message": refused.message,
                "twinHint": refused.reason,
            });
            (status, axum::Json(body)).into_response()
        }
    };
    if let Some(seconds) = refused.retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn authenticate(
    platform: &Platform,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    target: &Target<'_>,
) -> Result<Caller, Refusal> {
    let query = uri.query().unwrap_or("");
    let in_query = parameters(query).remove("jwt");
    let in_header = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("JWT "));
    let token = in_header.or(in_query.as_deref()).ok_or(Refusal::Missing)?;
    let token = Unverified::parse(token)?;
    let app_key = token.issuer()?;
    let installation = platform
        .installation(&target.site, target.product, app_key)
        .filter(|installation| installation.active)
        .ok_or(Refusal::UnknownIssuer)?;
    let mut secrets = vec![installation.secret.as_str()];
    secrets.extend(installation.pending_secret.as_deref());
    if platform.switches.previous_secret_accepted {
        secrets.extend(installation.previous_secret.as_deref());
    }
    let canonical = canonical_request(method.as_str(), uri.path(), query, &target.context_path);
    token.verify(
        &secrets,
        platform.token_now_s(platform.switches.request_token_clock),
        platform.switches.request_token_leeway_s,
        &canonical,
    )?;
    Ok(Caller {
        flavour: Flavour::Connect,
        site: target.site.clone(),
        product: target.product,
        app_key: app_key.to_owned(),
        client_key: installation.client_key.clone(),
    })
}

fn perform(
    shared: &Shared,
    platform: &mut Platform,
    operation: Operation<'_>,
    caller: &Caller,
    query: &str,
    body: &[u8],
) -> Result<Value, Refused> {
    let query = parameters(query);
    match operation {
        Operation::WebhookGet => webhooks(platform, caller),
        Operation::WebhookPut => put_webhooks(platform, caller, &parsed(body)?),
        Operation::Progress(id) => platform.report(&decoded(id), caller, &parsed(body)?),
        Operation::MappingFind(id) => find(platform, caller, &decoded(id), &query, &parsed(body)?),
        Operation::MappingPage(id) => {
            mapping_page(platform, caller, &decoded(id), &query, MAPPING_PAGE)
        }
        Operation::DataAll(id) => data_list(platform, caller, &decoded(id)),
        Operation::DataUrl(key) => data_url(shared, platform, caller, &decoded(key)),
        Operation::TransferRecent => Ok(platform.recent(caller)),
        Operation::ContainerPage(id) => container_page(platform, caller, &decoded(id), &query),
        Operation::Feedback(id) => feedback(platform, caller, &decoded(id), &parsed(body)?),
        Operation::Error(id) => {
            let transfer = platform.open(&decoded(id), caller)?;
            match &transfer.error {
                Some((exception, trace)) => {
                    Ok(json!({ "exceptionType": exception, "safeStackTrace": trace }))
                }
                None => Err(Refused::new(
                    404,
                    "Not found.",
                    "no error is stored for this transfer",
                )),
            }
        }
    }
}

fn webhooks(platform: &Platform, caller: &Caller) -> Result<Value, Refused> {
    platform
        .installation(&caller.site, caller.product, &caller.app_key)
        .map(|installation| json!({ "endpoints": installation.webhooks }))
        .ok_or_else(|| Refused::new(404, "Not found.", "the installation is gone"))
}

fn put_webhooks(
    platform: &mut Platform,
    caller: &Caller,
    request: &Value,
) -> Result<Value, Refused> {
    let endpoints = request
        .get("endpoints")
        .and_then(Value::as_array)
        .filter(|endpoints| !endpoints.is_empty())
        .ok_or_else(|| Refused::bad_request("The endpoints must be a non-empty array."))?;
    if endpoints.len() > MOST_WEBHOOKS {
        return Err(Refused::bad_request("At most 5 endpoints are allowed."));
    }
    let mut urls = Vec::new();
    for endpoint in endpoints {
        let url = endpoint
            .as_str()
            .filter(|text| {
                url::Url::parse(text)
                    .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            })
            .ok_or_else(|| Refused::bad_request("An endpoint is not a valid URL."))?;
        if !urls.iter().any(|known| known == url) {
            urls.push(url.to_owned());
        }
    }
    if let Some(installation) =
        platform.installation_mut(&caller.site, caller.product, &caller.app_key)
    {
        installation.webhooks = urls;
    }
    webhooks(platform, caller)
}

pub(crate) fn find(
    platform: &mut Platform,
    caller: &Caller,
    id: &str,
    query: &HashMap<String, String>,
    request: &Value,
) -> Result<Value, Refused> {
    platform.open(id, caller)?;
    let namespace = namespace(query)?;
    let keys = request
        .as_array()
        .ok_or_else(|| Refused::bad_request("The body must be an array of strings."))?;
    if platform
        .switches
        .mapping_find_max_keys
        .is_some_and(|most| keys.len() > most)
    {
        return Err(Refused::bad_request("Too many keys."));
    }
    let mut found = serde_json::Map::new();
    let mut missed = Vec::new();
    for key in keys {
        let key = key
            .as_str()
            .filter(|key| !key.is_empty())
            .ok_or_else(|| Refused::bad_request("The keys must not be null or empty."))?;
        match platform
            .mappings
            .find(namespace, key, platform.switches.mapping_holes)
        {
            Some(value) => {
                found.insert(key.to_owned(), value.into());
            }
            None => missed.push(format!("{namespace} {key}")),
        }
    }
    if let Some(transfer) = platform.transfer_mut(id) {
        transfer.mapping_calls += 1;
        for key in missed {
            if transfer.not_found.len() < 10_000 || transfer.not_found.contains_key(&key) {
                *transfer.not_found.entry(key).or_default() += 1;
            }
        }
    }
    Ok(Value::Object(found))
}

pub(crate) fn mapping_page(
    platform: &Platform,
    caller: &Caller,
    id: &str,
    query: &HashMap<String, String>,
    most: usize,
) -> Result<Value, Refused> {
    let transfer = platform.open(id, caller)?;
    let namespace = namespace(query)?;
    let size = page_size(query, most)?;
    let all =
        platform
            .mappings
            .listed(namespace, transfer.product, platform.switches.mapping_holes);
    let after = query.get("lastEntity").filter(|after| !after.is_empty());
    let rest = all
        .iter()
        .filter(|(key, _)| after.is_none_or(|after| key > after));
    let (page, has_next) = taken(rest, size);
    let items: serde_json::Map<String, Value> = page
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let last = page.last().map(|(key, _)| key.as_str());
    let meta = meta(platform, size, has_next, last);
    Ok(json!({ "items": items, "meta": meta }))
}

fn taken<T>(items: impl Iterator<Item = T>, size: usize) -> (Vec<T>, bool) {
    let mut page: Vec<T> = items.take(size + 1).collect();
    let has_next = page.len() > size;
    page.truncate(size);
    (page, has_next)
}

fn meta(platform: &Platform, size: usize, has_next: bool, last: Option<&str>) -> Value {
    let mut meta = json!({ "hasNext": has_next, "pageSize": size });
    match (has_next, platform.switches.last_entity) {
        (true, _) | (false, LastEntity::Value) => meta["lastEntity"] = last.into(),
        (false, LastEntity::Null) => meta["lastEntity"] = Value::Null,
        (false, LastEntity::Absent) => {}
    }
    meta
}

fn data_list(platform: &Platform, caller: &Caller, id: &str) -> Result<Value, Refused> {
    let transfer = platform.open(id, caller)?;
    Ok(transfer
        .files
        .iter()
        .filter(|file| file.listed)
        .map(|file| match &file.label {
            Some(label) => json!({ "s3Key": file.s3_key, "label": label }),
            None => json!({ "s3Key": file.s3_key }),
        })
        .collect())
}

/// Refuses the key of a file that isn't there, or is no longer for the caller.
pub(crate) fn check_uploaded(
    platform: &Platform,
    caller: &Caller,
    s3_key: &str,
) -> Result<(), Refused> {
    let unknown = || Refused::new(404, "Not found.", "no uploaded file has this key");
    let (transfer, file) = platform.file(s3_key).ok_or_else(unknown)?;
    if file.uploaded_at_ms.is_none() {
        return Err(unknown());
    }
    platform.open(&transfer.id, caller).map(|_| ())
}

pub(crate) fn data_url(
    shared: &Shared,
    platform: &mut Platform,
    caller: &Caller,
    s3_key: &str,
) -> Result<Value, Refused> {
    check_uploaded(platform, caller, s3_key)?;
    let expires_ms = platform.clock.now_ms() + platform.switches.url_life_ms;
    if let Some(file) = platform.file_mut(s3_key) {
        file.urls_issued += 1;
    }
    Ok(json!({ "url": store::signed_url(shared, s3_key, expires_ms) }))
}

pub(crate) fn container_page(
    platform: &Platform,
    caller: &Caller,
    id: &str,
    query: &HashMap<String, String>,
) -> Result<Value, Refused> {
    let transfer = platform.open(id, caller)?;
    let size = page_size(query, CONTAINER_PAGE)?;
    let kind = query.get("containerType").map(String::as_str);
    let count = match (kind, transfer.product) {
        (Some("ConfluenceSpace"), Product::Confluence) | (Some("JiraProject"), Product::Jira) => {
            transfer.plan.containers
        }
        (Some("Site"), _) => 1,
        (Some("ConfluenceSpace" | "JiraProject"), _) => 0,
        _ => {
            return Err(Refused::bad_request(
                "The containerType must be ConfluenceSpace, JiraProject or Site.",
            ));
        }
    };
    let kind = kind.unwrap_or_default();
    let mut all: Vec<(String, Value)> = (0..count)
        .map(|number| {
            let words = ["container", &transfer.scope_id, kind, &number.to_string()];
            let entry = if kind == "Site" {
                json!({ "type": kind, "selectedUsers": "ALL_USERS" })
            } else {
                json!({
                    "type": kind,
                    "key": format!("KEY{number}"),
                    "sourceId": (10_000 + number).to_string(),
                })
            };
            (crate::seed::uuid(platform.seed, &words), entry)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let after = query.get("lastEntity").filter(|after| !after.is_empty());
    let rest = all
        .into_iter()
        .filter(|(key, _)| after.is_none_or(|after| key > after));
    let (page, has_next) = taken(rest, size);
    let meta = meta(
        platform,
        size,
        has_next,
        page.last().map(|(key, _)| key.as_str()),
    );
    let containers: serde_json::Map<String, Value> = page.into_iter().collect();
    Ok(json!({ "containers": containers, "meta": meta }))
}

fn feedback(
    platform: &mut Platform,
    caller: &Caller,
    id: &str,
    request: &Value,
) -> Result<Value, Refused> {
    platform.open(id, caller)?;
    let details = request
        .get("details")
        .filter(|details| details.is_object())
        .ok_or_else(|| Refused::bad_request("The details must be an object."))?;
    if let Some(transfer) = platform.transfer_mut(id) {
        transfer.feedback = Some(details.clone());
    }
    Ok(json!({}))
}

fn namespace(query: &HashMap<String, String>) -> Result<&str, Refused> {
    query
        .get("namespace")
        .map(String::as_str)
        .filter(|namespace| !namespace.is_empty())
        .ok_or_else(|| Refused::bad_request("The namespace must be given."))
}

pub(crate) fn page_size(query: &HashMap<String, String>, most: usize) -> Result<usize, Refused> {
    match query.get("pageSize") {
        None => Ok(most),
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|size| (1..=most).contains(size))
            .ok_or_else(|| {
                Refused::bad_request(&format!("The pageSize must be between 1 and {most}."))
            }),
    }
}

pub(crate) fn parsed(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|_| Refused::bad_request("The body is not JSON."))
}

/// The first value of each parameter.
pub(crate) fn parameters(query: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        found
            .entry(form_decoded(name))
            .or_insert_with(|| form_decoded(value));
    }
    found
}

pub(crate) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
