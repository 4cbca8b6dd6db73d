//! The nine operations of the Forge REST API.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::sleep;
use crate::faults::{Kind, Place};
use crate::forge::ledger::{LogLine, Reply, Terms};
use crate::forge::token::verified_system_token;
use crate::plan::Flavour;
use crate::platform::{Caller, MESSAGE_LIMIT, Platform, Refused};
use crate::rest::{
    MOST_BODY_BYTES, check_uploaded, container_page, data_url, decoded, fault_response, find,
    mapping_page, page_size, parameters, parsed, plain, quota_response, refusal_response,
};
use crate::server::cut;
use crate::shared::Shared;
use crate::store;
use crate::switches::LastEntity;

/// Where the operations live, as on the real host.
pub(crate) const BASE_PATH: &str = "/app/migration/forge/v1";

/// The nine operations, as fault targets and in the statistics.
pub(crate) const OPERATIONS: [&str; 9] = [
    "forge.message_status",
    "forge.mapping_find",
    "forge.mapping_page",
    "forge.log",
    "forge.data_url",
    "forge.data_payload",
    "forge.data_all",
    "forge.data_page",
    "forge.container_page",
];

/// PROTOCOL 7.7: pages of mappings and of files.
const MAPPING_PAGE: usize = 1_200;
const DATA_PAGE: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation<'a> {
    MessageStatus(&'a str),
    MappingFind(&'a str),
    MappingPage(&'a str),
    Log(&'a str),
    DataUrl(&'a str),
    DataPayload(&'a str),
    DataAll(&'a str),
    DataPage(&'a str),
    ContainerPage(&'a str),
}

impl Operation<'_> {
    fn target(self) -> &'static str {
        match self {
            Self::MessageStatus(_) => "forge.message_status",
            Self::MappingFind(_) => "forge.mapping_find",
            Self::MappingPage(_) => "forge.mapping_page",
            Self::Log(_) => "forge.log",
            Self::DataUrl(_) => "forge.data_url",
            Self::DataPayload(_) => "forge.data_payload",
            Self::DataAll(_) => "forge.data_all",
            Self::DataPage(_) => "forge.data_page",
            Self::ContainerPage(_) => "forge.container_page",
        }
    }

    fn transfer(self) -> Option<String> {
        match self {
            Self::DataUrl(_) | Self::DataPayload(_) => None,
            Self::MessageStatus(id)
            | Self::MappingFind(id)
            | Self::MappingPage(id)
            | Self::Log(id)
            | Self::DataAll(id)
            | Self::DataPage(id)
            | Self::ContainerPage(id) => Some(decoded(id)),
        }
    }
}

/// What a call that went well is answered with.
enum Done {
    Json(Value),
    Empty,
    /// The content of the file with this key.
    Payload(String),
}

/// Everything below the base path.
pub(crate) async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let path = uri.path().strip_prefix(BASE_PATH).unwrap_or("");
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let operation = match operation(&method, &segments) {
        Ok(operation) => operation,
        Err(status) => return plain(status, "no such operation"),
    };
    let caller = authenticate(&shared, &shared.platform(), &headers);
    let site = caller.as_ref().ok().map(|caller| caller.site.clone());
    let transfer = operation.transfer();
    let struck = {
        let mut platform = shared.platform();
        platform.count(operation.target());
        let place = Place {
            target: operation.target(),
            event_type: None,
            transfer_id: transfer.as_deref(),
            site: site.as_deref(),
        };
        let kinds = [Kind::Status, Kind::Slow, Kind::Cut, Kind::LoseAnswer];
        platform.faults.strike(&place, &kinds)
    };
    for slow in struck.iter().filter(|rule| rule.kind == Kind::Slow) {
        sleep(Duration::from_millis(slow.delay_ms.unwrap_or(3_000))).await;
    }
    if struck.iter().any(|rule| rule.kind == Kind::Cut) {
        return cut();
    }
    // A call without a token belongs to no site, and counts nowhere.
    if let Some(site) = &site
        && let Err(beyond) = shared.platform().call(site, operation.target())
    {
        return quota_response(beyond);
    }
    if let Some(rule) = struck.iter().find(|rule| rule.kind == Kind::Status) {
        return fault_response(rule);
    }
    let Ok(body) = axum::body::to_bytes(body, MOST_BODY_BYTES).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    };
    let response = answer(&shared, operation, caller, uri.query().unwrap_or(""), &body);
    if struck.iter().any(|rule| rule.kind == Kind::LoseAnswer) {
        return cut();
    }
    response
}

fn operation<'a>(method: &Method, segments: &[&'a str]) -> Result<Operation<'a>, StatusCode> {
    let (get, operation) = match *segments {
        ["message", id, "status"] => (false, Operation::MessageStatus(id)),
        ["mapping", id, "find"] => (false, Operation::MappingFind(id)),
        ["mapping", id, "page"] => (true, Operation::MappingPage(id)),
        ["log", id] => (false, Operation::Log(id)),
        ["data", key] => (true, Operation::DataUrl(key)),
        ["data", key, "payload"] => (true, Operation::DataPayload(key)),
        ["data", id, "all"] => (true, Operation::DataAll(id)),
        ["data", id, "page"] => (true, Operation::DataPage(id)),
        ["container", id, "page"] => (true, Operation::ContainerPage(id)),
        _ => return Err(StatusCode::NOT_FOUND),
    };
    let expected = if get { Method::GET } else { Method::POST };
    if *method == expected {
        Ok(operation)
    } else {
        Err(StatusCode::METHOD_NOT_ALLOWED)
    }
}

fn authenticate(
    shared: &Shared,
    platform: &Platform,
    headers: &HeaderMap,
) -> Result<Caller, String> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or("the Authorization header is missing or does not start with \"Bearer \"")?;
    let installation = verified_system_token(shared, platform, token)?;
    Ok(Caller {
        flavour: Flavour::Forge,
        site: installation.site.clone(),
        product: installation.product,
        app_key: installation.app.clone(),
        client_key: installation.id.clone(),
    })
}

fn answer(
    shared: &Arc<Shared>,
    operation: Operation<'_>,
    caller: Result<Caller, String>,
    query: &str,
    body: &[u8],
) -> Response {
    let mut platform = shared.platform();
    let outcome = caller
        .map_err(|reason| Refused::new(401, "Unauthorized.", &reason))
        .and_then(|caller| {
            let query = parameters(query);
            perform(shared, &mut platform, operation, &caller, &query, body)
        });
    let status = outcome
        .as_ref()
        .map_or_else(|refused| refused.status, |_| 200);
    platform.count(format!("{}.{status}", operation.target()));
    match outcome {
        Ok(Done::Json(value)) => axum::Json(value).into_response(),
        Ok(Done::Empty) => StatusCode::OK.into_response(),
        Ok(Done::Payload(key)) => {
            drop(platform);
            store::payload(shared, &key)
        }
        Err(refused) => {
            tracing::info!(
                operation = operation.target(),
                status = refused.status,
                reason = refused.reason,
                "refused"
            );
            refusal_response(platform.switches.error_bodies, &refused)
        }
    }
}

fn perform(
    shared: &Shared,
    platform: &mut Platform,
    operation: Operation<'_>,
    caller: &Caller,
    query: &HashMap<String, String>,
    body: &[u8],
) -> Result<Done, Refused> {
    match operation {
        Operation::MessageStatus(id) => {
            answer_messages(platform, caller, &decoded(id), &parsed(body)?).map(|()| Done::Empty)
        }
        Operation::MappingFind(id) => {
            let keys = parsed(body)?;
            distinct(&keys, "keys")?;
            find(platform, caller, &decoded(id), query, &keys).map(Done::Json)
        }
        Operation::MappingPage(id) => {
            mapping_page(platform, caller, &decoded(id), query, MAPPING_PAGE).map(Done::Json)
        }
        Operation::Log(id) => {
            log(platform, caller, &decoded(id), &parsed(body)?).map(|()| Done::Empty)
        }
        Operation::DataUrl(key) => {
            data_url(shared, platform, caller, &decoded(key)).map(Done::Json)
        }
        Operation::DataPayload(key) => {
            let key = decoded(key);
            check_uploaded(platform, caller, &key).map(|()| Done::Payload(key))
        }
        Operation::DataAll(id) => data_all(platform, caller, &decoded(id)).map(Done::Json),
        Operation::DataPage(id) => data_page(platform, caller, &decoded(id), query).map(Done::Json),
        Operation::ContainerPage(id) => {
            let mut page = container_page(platform, caller, &decoded(id), query)?;
            // PROTOCOL 7.7: an array, where Connect has a map.
            let containers: Vec<Value> = match page["containers"].take() {
                Value::Object(entries) => entries.into_iter().map(|(_, entry)| entry).collect(),
                _ => Vec::new(),
            };
            page["containers"] = containers.into();
            Ok(Done::Json(page))
        }
    }
}

/// PROTOCOL 7.7 calls them sets: an element that comes twice is refused.
fn distinct(array: &Value, name: &str) -> Result<(), Refused> {
    let mut seen = HashSet::new();
    let twice = array
        .as_array()
        .is_some_and(|array| !array.iter().all(|element| seen.insert(element.to_string())));
    if twice {
        return Err(Refused::bad_request(&format!("The {name} must be unique.")));
    }
    Ok(())
}

/// PROTOCOL 7.6: SUCCESS or FAILED for one or several messages, all of them or none.
fn answer_messages(
    platform: &mut Platform,
    caller: &Caller,
    id: &str,
    request: &Value,
) -> Result<(), Refused> {
    platform.open(id, caller)?;
    let reply = match request.get("status").and_then(Value::as_str) {
        Some("SUCCESS") => Reply::Success,
        Some("FAILED") => Reply::Failed,
        _ => {
            return Err(Refused::bad_request(
                "The status must be SUCCESS or FAILED.",
            ));
        }
    };
    let given = request.get("messageIds").unwrap_or(&Value::Null);
    let malformed = || Refused::bad_request("The messageIds must be a non-empty array of ids.");
    let message_ids: Vec<&str> = given
        .as_array()
        .filter(|given| !given.is_empty())
        .and_then(|given| given.iter().map(Value::as_str).collect())
        .ok_or_else(malformed)?;
    if !message_ids.iter().all(|id| uuid_like(id)) {
        return Err(malformed());
    }
    distinct(given, "messageIds")?;
    if message_ids.len() > platform.switches.forge_most_message_ids {
        return Err(Refused::bad_request("Too many messageIds."));
    }
    let now = platform.clock.now_ms();
    let terms = Terms::of(&platform.switches);
    let unknown_answer = platform.switches.forge_unknown_message_answer;
    let Some(ledger) = platform
        .transfer_mut(id)
        .and_then(|found| found.forge.as_mut())
    else {
        return Err(Refused::new(404, "Not found.", "the transfer is gone"));
    };
    if let Some(unknown) = message_ids.iter().find(|id| !ledger.knows(id)) {
        let reason = format!("the transfer has no message {unknown:?}");
        return Err(Refused::new(unknown_answer, "Unknown message.", &reason));
    }
    for message_id in message_ids {
        ledger.answer(message_id, reply, now, &terms);
    }
    platform.show_progress(id);
    platform.conclude(id);
    Ok(())
}

fn uuid_like(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A line for the customer.
fn log(platform: &mut Platform, caller: &Caller, id: &str, request: &Value) -> Result<(), Refused> {
    platform.open(id, caller)?;
    let message = request
        .get("message")
        .and_then(Value::as_str)
        .ok_or_else(|| Refused::bad_request("The message must be a string."))?;
    if message.chars().nth(MESSAGE_LIMIT).is_some() {
        return Err(Refused::bad_request(
            "The message must have 65536 characters at most.",
        ));
    }
    let line = LogLine {
        at_ms: platform.clock.now_ms(),
        message: message.to_owned(),
    };
    if let Some(ledger) = platform
        .transfer_mut(id)
        .and_then(|found| found.forge.as_mut())
    {
        ledger.log(line);
    }
    Ok(())
}

fn data_all(platform: &Platform, caller: &Caller, id: &str) -> Result<Value, Refused> {
    let transfer = platform.open(id, caller)?;
    Ok(transfer
        .files
        .iter()
        .filter(|file| file.listed)
        .map(|file| {
            let mut item = json!({ "key": file.s3_key });
            if let Some(label) = &file.label {
                item["label"] = label.clone().into();
            }
            item
        })
        .collect())
}

fn data_page(
    platform: &Platform,
    caller: &Caller,
    id: &str,
    query: &HashMap<String, String>,
) -> Result<Value, Refused> {
    let transfer = platform.open(id, caller)?;
    if !platform.switches.forge_data_page {
        return Err(Refused::new(
            404,
            "Not found.",
            "the feature gate is closed, see the switch forge_data_page",
        ));
    }
    let size = page_size(query, DATA_PAGE)?;
    let listed: Vec<_> = transfer.files.iter().filter(|file| file.listed).collect();
    let start = match query.get("lastEvaluatedKey").filter(|key| !key.is_empty()) {
        None => 0,
        Some(last) => listed
            .iter()
            .position(|file| file.s3_key == *last)
            .map(|position| position + 1)
            .ok_or_else(|| Refused::bad_request("The lastEvaluatedKey is unknown."))?,
    };
    let page = &listed[start..listed.len().min(start + size)];
    let items: Vec<Value> = page
        .iter()
        .map(|file| {
            let mut item = json!({ "key": file.s3_key, "fileSize": file.content.size() });
            if let Some(label) = &file.label {
                item["label"] = label.clone().into();
            }
            item
        })
        .collect();
    let mut answer = Map::new();
    answer.insert("items".into(), items.into());
    let more = start + page.len() < listed.len();
    match page.last().filter(|_| more) {
        Some(last) => {
            answer.insert("lastEvaluatedKey".into(), last.s3_key.clone().into());
        }
        None if platform.switches.last_entity == LastEntity::Null => {
            answer.insert("lastEvaluatedKey".into(), Value::Null);
        }
        None => {}
    }
    Ok(answer.into())
}
