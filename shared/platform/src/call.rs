//! What the REST clients of all flavours share: how a request is put together, what each answer means, and how much of one is read.

use std::error::Error as _;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use url::Url;

pub(crate) mod lookup;

/// Everything but RFC 3986's unreserved characters.
pub(crate) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where the operations for migrating apps begin, below a product's base URL (PROTOCOL 5 and 6).
pub(crate) const PRODUCT_API: &str = "/rest/atlassian-connect/1/migration";

/// The header that names the transfer to the product's own operations (PROTOCOL 6).
pub(crate) const TRANSFER_ID: &str = "Atlassian-Transfer-Id";

/// Containers of a page: the most that the platform gives (PROTOCOL 5 and 7.7).
pub(crate) const CONTAINER_PAGE: &str = "250";

/// Largest answer that is read, in bytes, unless it lists files. 5,000 mappings take less than 1 MB.
pub(crate) const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// Largest list of files that is read, in bytes. 10,000 files with long labels take 12 MB.
pub(crate) const LIST_MAX: usize = 32 * 1024 * 1024;

/// Most of an error's body that is read, in bytes.
const REASON_MAX: usize = 64 * 1024;

/// Longest wait that a `Retry-After` can ask of us.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// How a call to the platform ended when it did not end well. Each variant says what that means for a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request left, no whole answer came: it may or may not have been carried out. Repeat only what may be done twice;
    /// all of the platform's operations may (a settlement with the *same* status).
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What was seen, without a URL.
        reason: String,
    },
    /// The request never left. Nothing was carried out; try again.
    #[error("not sent: {reason}")]
    NotSent {
        /// What was seen, without a URL.
        reason: String,
    },
    /// 429. Not carried out; try again, not before `retry_after` when it is given.
    #[error("throttled")]
    Throttled {
        /// The pause that the platform asks for.
        retry_after: Option<Duration>,
    },
    /// 5xx or 408. Probably not carried out; try again with growing pauses.
    #[error("the platform answered {status}")]
    Server {
        /// The answer's status.
        status: u16,
        /// The pause that the platform asks for.
        retry_after: Option<Duration>,
    },
    /// 401, and on Forge 403: our token is not accepted. Try again only with another one, or with another secret to sign it: the old one
    /// has ended or was replaced, or the app was uninstalled.
    #[error("the platform does not accept our token")]
    Unauthorized,
    /// The platform won't do it, and repeating the same won't help.
    #[error("the platform answered {status}: {kind}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// What is the matter.
        kind: Refusal,
        /// Whether the body says "settled", "expired" or "time limit". For the log, and to tell the readings of a 400 apart.
        says_settled: bool,
    },
    /// 2xx with a body that is not what the operation answers, or is larger than we read. Carried out, if it had an effect; repeating is
    /// unlikely to help.
    #[error("the platform's answer can't be read: {reason}")]
    Malformed {
        /// What is wrong with it; never a part of it.
        reason: String,
    },
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 403, 404, 409 or 410: the transfer or file is unknown, settled or out of time, **or** we have no right. Where the platform lists its
    /// active transfers, look there before believing that one is over (PROTOCOL 2.5).
    Gone,
    /// The status that says of a flavour's operations just this: the transfer is settled (PROTOCOL 7.7).
    Settled,
    /// 400 that speaks of the time limit or a settled transfer: over. Check it likewise.
    Expired,
    /// Any other 400: this request is wrong.
    BadRequest,
    /// 413: this request is too large.
    TooLarge,
    /// A redirect, which is never followed, or a status that no operation is known to answer.
    Unexpected,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Gone => "unknown, settled, expired or forbidden",
            Self::Settled => "settled",
            Self::Expired => "settled or out of time",
            Self::BadRequest => "request not accepted",
            Self::TooLarge => "request too large",
            Self::Unexpected => "unexpected status",
        })
    }
}

impl CallError {
    /// Whether the same request may succeed later without anybody doing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::NotSent { .. }
                | Self::Throttled { .. }
                | Self::Server { .. }
        )
    }

    /// Whether the answer may mean that the transfer is over: settled, expired or never known.
    pub const fn may_be_over(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                kind: Refusal::Gone | Refusal::Settled | Refusal::Expired,
                ..
            }
        )
    }

    /// Whether the answer says that the transfer is settled, and nothing else: Forge's does (PROTOCOL 7.7).
    pub const fn says_settled(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                kind: Refusal::Settled,
                ..
            }
        )
    }

    /// The pause that the platform asked for.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// One page of a longer list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<Item> {
    /// The page's items.
    pub items: Vec<Item>,
    /// Pass it back to get the next page; absent on the last one.
    pub next: Option<String>,
}

/// A file of the platform's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Names the file at the platform.
    pub s3_key: String,
    /// The server app's label, bounded as an event's.
    pub label: Option<String>,
}

/// What calls the platform. A request that sets no time-out of its own has none, and no redirect is followed.
pub(crate) fn http(connect_timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_timeout)
        .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The segments as the end of a path, each with a slash before it.
pub(crate) fn path(segments: &[&str]) -> Result<String, CallError> {
    let mut path = String::new();
    for segment in segments {
        // A dot segment would be resolved away and address another operation, however it is encoded.
        if matches!(*segment, "" | "." | "..") {
            return Err(CallError::NotSent {
                reason: "an identity that can't be part of a path".into(),
            });
        }
        path.push('/');
        path.extend(utf8_percent_encode(segment, RESERVED));
    }
    Ok(path)
}

/// The parameters as a query, in the order given.
pub(crate) fn query(parameters: &[(&str, &str)]) -> String {
    parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED)))
        .collect::<Vec<_>>()
        .join("&")
}

/// A base URL with a path appended to its own, and with a query unless it is empty.
pub(crate) fn below(base: &Url, path: &str, query: &str) -> Url {
    let mut url = base.clone();
    let base_path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base_path}{path}"));
    url.set_query((!query.is_empty()).then_some(query));
    url
}

/// The value of an `Authorization` header, marked so that it is never printed.
pub(crate) fn authorization(scheme: &str, token: &SecretString) -> Result<HeaderValue, CallError> {
    let mut value =
        HeaderValue::from_str(&format!("{scheme} {}", token.expose_secret())).map_err(|error| {
            CallError::NotSent {
                reason: error.to_string(),
            }
        })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request with a body in JSON.
pub(crate) fn with_json<Body: Serialize + ?Sized>(
    request: RequestBuilder,
    body: &Body,
) -> Result<RequestBuilder, CallError> {
    let body = serde_json::to_vec(body).map_err(|error| CallError::NotSent {
        reason: error.to_string(),
    })?;
    Ok(request.header(CONTENT_TYPE, "application/json").body(body))
}

/// Sends a request; only a 2xx is an answer. `now_seconds` says what the time is when another one has come.
pub(crate) async fn send(
    request: RequestBuilder,
    now_seconds: impl FnOnce() -> i64,
) -> Result<Response, CallError> {
    let response = request.send().await.map_err(transport)?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refused(response, now_seconds()).await)
}

pub(crate) fn malformed(reason: &str) -> CallError {
    CallError::Malformed {
        reason: reason.to_owned(),
    }
}

pub(crate) fn json(body: &[u8]) -> Result<Value, CallError> {
    serde_json::from_slice(body).map_err(|_| malformed("not JSON"))
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// A mapping's value: text, or a number that we take as its text.
pub(crate) fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Where the next page begins: `hasNext` alone decides whether there is one (OPEN-QUESTIONS C11).
pub(crate) fn next_page(answer: &Value) -> Result<Option<String>, CallError> {
    let meta = answer.get("meta").ok_or_else(|| malformed("no meta"))?;
    if meta.get("hasNext").and_then(Value::as_bool) != Some(true) {
        return Ok(None);
    }
    let last = meta.get("lastEntity").cloned().and_then(scalar);
    last.map(Some)
        .ok_or_else(|| malformed("more pages without lastEntity"))
}

/// A page of mappings, as pairs of server key and cloud value.
pub(crate) fn mapping_page(mut answer: Value) -> Result<Page<(String, String)>, CallError> {
    let next = next_page(&answer)?;
    let Some(Value::Object(items)) = answer.get_mut("items").map(Value::take) else {
        return Err(malformed("no items"));
    };
    let items = items
        .into_iter()
        .filter_map(|(key, value)| Some((key, scalar(value)?)))
        .collect();
    Ok(Page { items, next })
}

/// A page of the server's ids of containers. They come as a map on Connect and as an array on Forge, whose entries nobody documents (OPEN-QUESTIONS
/// C12), so both forms are read on both; a warning tells of the entries without a `sourceId`.
pub(crate) fn container_page(
    transfer_id: &str,
    container_type: &str,
    mut answer: Value,
) -> Result<Page<String>, CallError> {
    let next = next_page(&answer)?;
    let entries: Vec<Value> = match answer.get_mut("containers").map(Value::take) {
        Some(Value::Object(entries)) => entries.into_iter().map(|(_, entry)| entry).collect(),
        Some(Value::Array(entries)) => entries,
        _ => return Err(malformed("no containers")),
    };
    let listed = entries.len();
    let source_id = |mut entry: Value| scalar(entry.get_mut("sourceId")?.take());
    let items: Vec<String> = entries.into_iter().filter_map(source_id).collect();
    if items.len() < listed {
        tracing::warn!(
            transfer.id = transfer_id,
            container.kind = container_type,
            entries = listed - items.len(),
            "the platform lists containers without a sourceId"
        );
    }
    Ok(Page { items, next })
}

/// The files of a list, read by `file`; a warning tells of the entries that it can't read.
pub(crate) fn listed_files(
    transfer_id: &str,
    entries: &[Value],
    file: fn(&Value) -> Option<ListedFile>,
) -> Vec<ListedFile> {
    let files: Vec<ListedFile> = entries.iter().filter_map(file).collect();
    if files.len() < entries.len() {
        tracing::warn!(
            transfer.id = transfer_id,
            entries = entries.len() - files.len(),
            "the platform lists files without a usable key"
        );
    }
    files
}

/// What a transport error says, with its causes, without any URL.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What a failed exchange means: only an error while connecting is sure not to have reached the platform.
fn transport(error: reqwest::Error) -> CallError {
    let never_left = error.is_connect() || error.is_builder();
    let reason = describe(error);
    if never_left {
        CallError::NotSent { reason }
    } else {
        CallError::Unknown { reason }
    }
}

/// Sorts an answer that is not 2xx.
async fn refused(response: Response, now_seconds: i64) -> CallError {
    let status = response.status();
    let retry_after = retry_after(response.headers(), now_seconds);
    match status {
        StatusCode::UNAUTHORIZED => return CallError::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => return CallError::Throttled { retry_after },
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            return CallError::Server {
                status: status.as_u16(),
                retry_after,
            };
        }
        _ => {}
    }
    let says_settled = says_settled(&beginning(response).await);
    let kind = match status {
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE => {
            Refusal::Gone
        }
        StatusCode::BAD_REQUEST if says_settled => Refusal::Expired,
        StatusCode::BAD_REQUEST => Refusal::BadRequest,
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        _ => Refusal::Unexpected,
    };
    CallError::Refused {
        status: status.as_u16(),
        kind,
        says_settled,
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, CallError> {
    let announced = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(0);
    let too_large = || CallError::Malformed {
        reason: format!("larger than {limit} bytes"),
    };
    if announced > limit {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.min(1024 * 1024));
    while let Some(chunk) = response.chunk().await.map_err(|error| CallError::Unknown {
        reason: describe(error),
    })? {
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of an error's body, as far as it can be had: JSON or text, cut or not (OPEN-QUESTIONS B11).
async fn beginning(mut response: Response) -> String {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = REASON_MAX - text.len();
        text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if text.len() >= REASON_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn says_settled(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["settled", "expired", "time limit"]
        .iter()
        .any(|phrase| text.contains(phrase))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), at most [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap, now_seconds: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = if let Ok(seconds) = text.parse::<u64>() {
        seconds
    } else {
        let instant = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        u64::try_from(instant.unix_timestamp() - now_seconds).unwrap_or(0)
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_read_in_seconds_and_as_a_date() {
        let pause = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, 1_445_412_400)
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            pause("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::from_secs(80))
        );
        assert_eq!(pause("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(pause("soon"), None);
    }
}
