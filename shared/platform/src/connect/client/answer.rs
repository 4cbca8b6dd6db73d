use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

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
    /// 401: our token is not accepted. Try again only with another secret: the tenant may have rotated it, or uninstalled.
    #[error("the platform answered 401: token not accepted")]
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
    /// 403, 404, 409 or 410: the transfer or file is unknown, settled or out of time, **or** we have no right. Check with
    /// [`Client::recent`](super::Client::recent) before believing that a transfer is over (PROTOCOL 2.5).
    Gone,
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
                kind: Refusal::Gone | Refusal::Expired,
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
pub(super) fn transport(error: reqwest::Error) -> CallError {
    let never_left = error.is_connect() || error.is_builder();
    let reason = describe(error);
    if never_left {
        CallError::NotSent { reason }
    } else {
        CallError::Unknown { reason }
    }
}

/// Sorts an answer that is not 2xx.
pub(super) async fn refused(response: Response, now_seconds: i64) -> CallError {
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
pub(super) async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, CallError> {
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
