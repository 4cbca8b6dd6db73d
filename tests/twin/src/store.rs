//! The object store on the second port: signed URLs, ranges, expiry.

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Stopwatch, sleep};
use crate::content::Content;
use crate::faults::{Kind, Place};
use crate::platform::Fetch;
use crate::rest::fault_response;
use crate::seed;
use crate::server::cut;
use crate::shared::Shared;

/// One piece of a body: what a download holds in memory.
const PIECE: usize = 128 * 1024;

/// Before a cut: what was sent so far must leave the server's buffer.
const FLUSH: Duration = Duration::from_millis(20);

/// A URL that is good until `expires_ms` of the platform's clock.
pub(crate) fn signed_url(shared: &Shared, s3_key: &str, expires_ms: i64) -> String {
    let signature = hex::encode(hmac::sign(
        &shared.store_key,
        &signed_text(s3_key, expires_ms),
    ));
    format!(
        "{}/app-data/{s3_key}?expires={expires_ms}&signature={signature}",
        shared.store_url
    )
}

fn signed_text(s3_key: &str, expires_ms: i64) -> Vec<u8> {
    format!("GET\n{s3_key}\n{expires_ms}").into_bytes()
}

/// A signature and an expiry that belong to the key; `None` for anything else.
fn verified_expiry(shared: &Shared, s3_key: &str, query: &str) -> Option<i64> {
    let (mut expires, mut signature) = (None, None);
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("expires", value)) => expires = value.parse::<i64>().ok(),
            Some(("signature", value)) => signature = hex::decode(value).ok(),
            _ => {}
        }
    }
    let (expires, signature) = (expires?, signature?);
    hmac::verify(&shared.store_key, &signed_text(s3_key, expires), &signature)
        .ok()
        .map(|()| expires)
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

struct Opened {
    content: Content,
    gzip: bool,
    transfer: String,
    site: String,
    expires_ms: i64,
    etag: String,
}

/// `GET /app-data/{s3Key}`.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Path(s3_key): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET {
        return refusal(
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "the URL is signed for GET only",
        );
    }
    let opened = match open(&shared, &s3_key, &uri, &headers) {
        Ok(opened) => opened,
        Err(response) => {
            note(
                &shared,
                &s3_key,
                response.status().as_u16(),
                None,
                0,
                "refused",
            );
            return *response;
        }
    };
    let struck = shared.platform().faults.strike(
        &Place {
            target: "store",
            event_type: None,
            transfer_id: Some(&opened.transfer),
            site: Some(&opened.site),
        },
        &[Kind::Status, Kind::Slow, Kind::Cut, Kind::Expired],
    );
    for slow in struck.iter().filter(|rule| rule.kind == Kind::Slow) {
        sleep(Duration::from_millis(slow.delay_ms.unwrap_or(3_000))).await;
    }
    if struck.iter().any(|rule| rule.kind == Kind::Expired) {
        note(&shared, &s3_key, 403, None, 0, "fault");
        return refusal(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
    }
    if let Some(rule) = struck.iter().find(|rule| rule.kind == Kind::Status) {
        note(
            &shared,
            &s3_key,
            rule.status.unwrap_or(503),
            None,
            0,
            "fault",
        );
        return fault_response(rule);
    }
    let cut_after = struck
        .iter()
        .filter(|rule| rule.kind == Kind::Cut)
        .map(|rule| rule.after_bytes.unwrap_or(0))
        .min();
    if cut_after == Some(0) {
        note(&shared, &s3_key, 200, None, 0, "cut");
        return cut();
    }
    respond(&shared, s3_key, opened, &headers, cut_after)
}

/// A file's content as the platform itself serves it: whole, and not encoded.
pub(crate) fn payload(shared: &Arc<Shared>, s3_key: &str) -> Response {
    let opened = {
        let platform = shared.platform();
        platform.file(s3_key).map(|(transfer, file)| Opened {
            content: file.content.clone(),
            gzip: false,
            transfer: transfer.id.clone(),
            site: transfer.site.clone(),
            expires_ms: i64::MAX,
            etag: String::new(),
        })
    };
    let Some(opened) = opened else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = respond(shared, s3_key.to_owned(), opened, &HeaderMap::new(), None);
    for absent in [header::ACCEPT_RANGES, header::ETAG] {
        response.headers_mut().remove(absent);
    }
    response
}

fn open(
    shared: &Shared,
    s3_key: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Opened, Box<Response>> {
    let refuse = |status, code, message| Err(Box::new(refusal(status, code, message)));
    if headers.contains_key(header::AUTHORIZATION) {
        // PROTOCOL 5.1: the signed URL is fetched without the JWT header.
        return refuse(
            StatusCode::BAD_REQUEST,
            "InvalidArgument",
            "Only one auth mechanism allowed: fetch the signed URL without an Authorization header",
        );
    }
    let Some(expires_ms) = verified_expiry(shared, s3_key, uri.query().unwrap_or("")) else {
        return refuse(
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "The signature does not match",
        );
    };
    let platform = shared.platform();
    if platform.clock.now_ms() >= expires_ms {
        return refuse(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
    }
    let Some((transfer, file)) = platform.file(s3_key) else {
        return refuse(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");
    };
    if transfer.state.settled() || file.uploaded_at_ms.is_none() {
        return refuse(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");
    }
    Ok(Opened {
        content: file.content.clone(),
        gzip: file.gzip,
        transfer: transfer.id.clone(),
        site: transfer.site.clone(),
        expires_ms,
        etag: format!("\"{}\"", &hex::encode(seed::hash(0, &[s3_key]))[..32]),
    })
}

fn respond(
    shared: &Arc<Shared>,
    s3_key: String,
    opened: Opened,
    headers: &HeaderMap,
    cut_after: Option<u64>,
) -> Response {
    let size = opened.content.size();
    let switches = shared.platform().switches.clone();
    let wanted = headers
        .get(header::RANGE)
        .filter(|_| switches.store_ranges)
        .filter(|_| same_object(headers, &opened.etag))
        .and_then(|value| value.to_str().ok());
    let range = match wanted.map(|wanted| parse_range(wanted, size)) {
        Some(Asked::Part(first, last)) => Some((first, last)),
        Some(Asked::Unsatisfiable) => {
            note(shared, &s3_key, 416, None, 0, "refused");
            let mut response = refusal(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "InvalidRange",
                "The requested range is not satisfiable",
            );
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return response;
        }
        Some(Asked::Everything) | None => None,
    };
    let (first, end) = range.map_or((0, size), |(first, last)| (first, last + 1));
    let status = if range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let mut response = http::Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, end - first)
        .header(header::ETAG, &opened.etag);
    if switches.store_ranges {
        response = response.header(header::ACCEPT_RANGES, "bytes");
    }
    if let Some((first, last)) = range {
        response = response.header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{last}/{size}"),
        );
    }
    if switches.store_content_encoding && opened.gzip {
        response = response.header(header::CONTENT_ENCODING, "gzip");
    }
    let download = Download {
        log: FetchLog {
            shared: Arc::clone(shared),
            s3_key,
            status: status.as_u16(),
            range,
            sent: 0,
            ended: "client left",
        },
        content: opened.content,
        at: first,
        end,
        cut_at: cut_after.map(|bytes| first.saturating_add(bytes)),
        expires_ms: switches.store_cut_at_expiry.then_some(opened.expires_ms),
        bytes_per_second: switches.store_bytes_per_second,
        started: Stopwatch::start(),
    };
    response
        .body(Body::from_stream(stream::unfold(
            Some(download),
            Download::next,
        )))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn same_object(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|value| value.as_bytes() == etag.as_bytes())
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Part(u64, u64),
    Unsatisfiable,
    /// Malformed or several ranges: such a header is ignored.
    Everything,
}

fn parse_range(value: &str, size: u64) -> Asked {
    let Some((first, last)) = value
        .trim()
        .strip_prefix("bytes=")
        .and_then(|spec| spec.split_once('-'))
    else {
        return Asked::Everything;
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => Asked::Unsatisfiable,
            Ok(_) if size == 0 => Asked::Unsatisfiable,
            Ok(length) => Asked::Part(size.saturating_sub(length), size - 1),
            Err(_) => Asked::Everything,
        },
        (first, last) => {
            let Ok(first) = first.parse::<u64>() else {
                return Asked::Everything;
            };
            let last = if last.is_empty() {
                u64::MAX
            } else {
                match last.parse::<u64>() {
                    Ok(last) if last >= first => last,
                    _ => return Asked::Everything,
                }
            };
            if first >= size {
                Asked::Unsatisfiable
            } else {
                Asked::Part(first, last.min(size - 1))
            }
        }
    }
}

/// Tells the platform what was served, whichever way the download ends.
struct FetchLog {
    shared: Arc<Shared>,
    s3_key: String,
    status: u16,
    range: Option<(u64, u64)>,
    sent: u64,
    ended: &'static str,
}

impl Drop for FetchLog {
    fn drop(&mut self) {
        note(
            &self.shared,
            &self.s3_key,
            self.status,
            self.range,
            self.sent,
            self.ended,
        );
    }
}

fn note(
    shared: &Shared,
    s3_key: &str,
    status: u16,
    range: Option<(u64, u64)>,
    bytes_sent: u64,
    ended: &'static str,
) {
    let mut platform = shared.platform();
    let at_ms = platform.clock.now_ms();
    platform.record_fetch(
        s3_key,
        Fetch {
            at_ms,
            status,
            range,
            bytes_sent,
            ended,
        },
    );
}

struct Download {
    log: FetchLog,
    content: Content,
    at: u64,
    end: u64,
    cut_at: Option<u64>,
    expires_ms: Option<i64>,
    bytes_per_second: Option<u64>,
    started: Stopwatch,
}

impl Download {
    /// The next piece; an error closes the connection in the middle of the body.
    async fn next(download: Option<Self>) -> Option<(std::io::Result<Bytes>, Option<Self>)> {
        let mut download = download?;
        if download.at >= download.end {
            download.log.ended = "complete";
            return None;
        }
        let expired = download
            .expires_ms
            .is_some_and(|expires| download.log.shared.platform().clock.now_ms() >= expires);
        if expired {
            download.log.ended = "cut at expiry";
            sleep(FLUSH).await;
            return Some((Err(std::io::Error::other("the URL expired")), None));
        }
        if download.cut_at.is_some_and(|cut_at| download.at >= cut_at) {
            download.log.ended = "cut";
            sleep(FLUSH).await;
            return Some((Err(std::io::Error::other("cut by a fault")), None));
        }
        let limit = download.cut_at.unwrap_or(u64::MAX).min(download.end);
        let piece = match download.bytes_per_second {
            Some(rate) => PIECE.min(usize::try_from(rate / 10).unwrap_or(PIECE).max(1)),
            None => PIECE,
        };
        let most = usize::try_from(limit - download.at)
            .unwrap_or(piece)
            .min(piece);
        let bytes = download.content.read(download.at, most);
        download.at += bytes.len() as u64;
        download.log.sent += bytes.len() as u64;
        if download.at >= download.end {
            // The server doesn't ask for a piece after the last byte that it announced.
            download.log.ended = "complete";
        }
        if let Some(rate) = download.bytes_per_second {
            #[expect(clippy::cast_precision_loss, reason = "a pace, not a sum")]
            let due = Duration::from_secs_f64(download.log.sent as f64 / rate.max(1) as f64);
            sleep(due.saturating_sub(download.started.elapsed())).await;
        }
        Some((Ok(bytes), Some(download)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (value, expected) in [
            ("bytes=0-", Asked::Part(0, 99)),
            ("bytes=10-19", Asked::Part(10, 19)),
            ("bytes=90-500", Asked::Part(90, 99)),
            ("bytes=-5", Asked::Part(95, 99)),
            ("bytes=-500", Asked::Part(0, 99)),
            ("bytes=100-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=5-2", Asked::Everything),
            ("bytes=1-2,4-5", Asked::Everything),
            ("items=1-2", Asked::Everything),
        ] {
            assert_eq!(parse_range(value, 100), expected, "{value}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Unsatisfiable);
    }
}
