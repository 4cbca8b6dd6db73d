//! Fetching an exported file from its signed URL (PROTOCOL 5.1 and 9).
//!
//! A client of its own: no token of ours ever reaches the object store, no redirect is followed, only listed hosts are asked, and no URL
//! appears in an error or a log. Nothing is held in memory but the chunk that is read.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use landfall_clock::Clock;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};

use crate::call::describe;
use crate::hosts::{Hosts, Refused};

/// A URL that is itself the right to read a file, for an hour. It never prints itself.
#[derive(Clone)]
pub struct SignedUrl(SecretString);

impl SignedUrl {
    /// Takes the URL that the platform gave.
    pub fn new(url: &str) -> Self {
        Self(url.to_owned().into())
    }

    /// The URL itself, for whoever fetches what it names. It must reach no log, no error and no store.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SignedUrl(…)")
    }
}

/// Why a file, or its next part, can't be had. No text holds a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// The URL leads where we don't go. Another one won't differ, until the configuration does.
    #[error("signed URL not admitted: {0}")]
    NotAdmitted(#[from] Refused),
    /// 401, 403 or 400: the URL has probably expired. Ask the platform for a new one.
    #[error("the object store answered {status}: the URL has probably expired")]
    Expired {
        /// The answer's status.
        status: u16,
    },
    /// 404 or 410: the file is not there. A new URL may help once; then it is gone.
    #[error("the object store has no such file")]
    Gone,
    /// Could not connect, no answer in time, 408, 429 or 5xx. Try again later.
    #[error("object store unavailable: {reason}")]
    Unavailable {
        /// What was seen.
        reason: String,
    },
    /// The connection broke or fell silent in mid-file. Open again at `offset`.
    #[error("cut at byte {offset}: {reason}")]
    Cut {
        /// How far the file was read, from its beginning.
        offset: u64,
        /// What was seen.
        reason: String,
    },
    /// The offset asked for lies behind the file's end: it is another file than before.
    #[error("byte {offset} is behind the end of the file")]
    BehindTheEnd {
        /// The offset asked for.
        offset: u64,
    },
    /// An answer that makes no sense here: a redirect, or a range that wasn't asked for. Trying again is unlikely to help.
    #[error("unexpected answer of the object store: {reason}")]
    Unexpected {
        /// What was seen.
        reason: String,
    },
}

/// Opens files.
#[derive(Clone, Debug)]
pub struct Downloads {
    http: reqwest::Client,
    hosts: Hosts,
    idle_timeout: Duration,
    clock: Clock,
}

impl Downloads {
    /// `connect_timeout` bounds connecting; `idle_timeout` the wait for the answer's head and for each further chunk.
    pub fn new(
        hosts: Hosts,
        connect_timeout: Duration,
        idle_timeout: Duration,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect_timeout)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            hosts,
            idle_timeout,
            clock,
        })
    }

    /// Opens a file, from `offset` on if the object store can do that: see [`Download::starts_at`].
    pub async fn open(&self, url: &SignedUrl, offset: u64) -> Result<Download, DownloadError> {
        let url = self.hosts.admit(url.expose())?;
        // The bytes as they are stored: a checkpoint counts them, so nothing may be encoded on the way.
        let mut request = self.http.get(url).header(ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = self
            .clock
            .timeout(self.idle_timeout, request.send())
            .await
            .map_err(|_| DownloadError::Unavailable {
                reason: "no answer in time".into(),
            })?
            .map_err(|error| DownloadError::Unavailable {
                reason: describe(error),
            })?;
        self.accept(response, offset)
    }

    fn accept(&self, response: Response, offset: u64) -> Result<Download, DownloadError> {
        let status = response.status();
        let download = |response, starts_at, size| Download {
            response,
            starts_at,
            position: starts_at,
            size,
            idle_timeout: self.idle_timeout,
            clock: self.clock.clone(),
        };
        match status {
            StatusCode::OK => {
                let size = number(response.headers(), CONTENT_LENGTH.as_str());
                Ok(download(Some(response), 0, size))
            }
            StatusCode::PARTIAL_CONTENT => {
                let Some((start, size)) = content_range(response.headers()) else {
                    return Err(DownloadError::Unexpected {
                        reason: "a part without a readable range".into(),
                    });
                };
                if start != offset {
                    return Err(DownloadError::Unexpected {
                        reason: format!("a part from byte {start} instead of {offset}"),
                    });
                }
                Ok(download(Some(response), start, size))
            }
            // Nothing is left behind the last byte: that is the end, not an error.
            StatusCode::RANGE_NOT_SATISFIABLE
                if unsatisfied_size(response.headers()) == Some(offset) =>
            {
                Ok(download(None, offset, Some(offset)))
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(DownloadError::BehindTheEnd { offset }),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(DownloadError::Expired {
                    status: status.as_u16(),
                })
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(DownloadError::Gone),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(DownloadError::Unavailable {
                    reason: status.to_string(),
                })
            }
            _ if status.is_server_error() => Err(DownloadError::Unavailable {
                reason: status.to_string(),
            }),
            _ => Err(DownloadError::Unexpected {
                reason: status.to_string(),
            }),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub struct Download {
    response: Option<Response>,
    starts_at: u64,
    position: u64,
    size: Option<u64>,
    idle_timeout: Duration,
    clock: Clock,
}

impl Download {
    /// The file that a response holds whole.
    pub(crate) fn whole(response: Response, idle_timeout: Duration, clock: Clock) -> Self {
        let size = number(response.headers(), CONTENT_LENGTH.as_str());
        Self {
            response: Some(response),
            starts_at: 0,
            position: 0,
            size,
            idle_timeout,
            clock,
        }
    }

    /// Where the first chunk begins: at the offset asked for, or at 0 when the object store knows no ranges. Then skip up to the offset.
    pub const fn starts_at(&self) -> u64 {
        self.starts_at
    }

    /// The whole file's size in bytes, when the object store told it.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// How far the file is read, in bytes from its beginning.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, never empty; nothing at the file's end. Safe to cancel between chunks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DownloadError> {
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        loop {
            let chunk = self
                .clock
                .timeout(self.idle_timeout, response.chunk())
                .await;
            let cut = |reason: String| DownloadError::Cut {
                offset: self.position,
                reason,
            };
            match chunk {
                Err(_) => return Err(cut("no byte in time".into())),
                Ok(Err(error)) => return Err(cut(describe(error))),
                Ok(Ok(Some(bytes))) if bytes.is_empty() => {}
                Ok(Ok(Some(bytes))) => {
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(Ok(None)) if self.size.is_some_and(|size| self.position < size) => {
                    return Err(cut("ended before its size".into()));
                }
                Ok(Ok(None)) => {
                    self.response = None;
                    return Ok(None);
                }
            }
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and whole size of `bytes 5-9/100` or `bytes 5-9/*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, size) = headers
        .get(CONTENT_RANGE)?
        .to_str()
        .ok()?
        .trim()
        .strip_prefix("bytes ")?
        .split_once('/')?;
    Some((
        range.split_once('-')?.0.trim().parse().ok()?,
        size.trim().parse().ok(),
    ))
}

/// The size in `bytes */100`.
fn unsatisfied_size(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(CONTENT_RANGE)?
        .to_str()
        .ok()?
        .trim()
        .strip_prefix("bytes */")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Body;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::stub::serve;

    const FILE: &[u8] = b"0123456789";

    fn downloads() -> Downloads {
        let hosts = Hosts::parse(["127.0.0.1"]).unwrap();
        Downloads::new(
            hosts,
            Duration::from_millis(500),
            Duration::from_millis(500),
            Clock::system(),
        )
        .unwrap()
    }

    type Seen = Arc<Mutex<Vec<HeaderMap>>>;

    /// An object store with ranges at `/ranges`, without at `/plain`, and an answer of every status at `/status/…`.
    async fn store() -> (String, Seen) {
        let seen = Seen::default();
        let router = Router::new()
            .route(
                "/ranges",
                get(async |State(seen): State<Seen>, headers: HeaderMap| {
                    seen.lock().unwrap().push(headers.clone());
                    let Some(range) = headers.get("range") else {
                        return FILE.into_response();
                    };
                    let start: usize = range.to_str().unwrap()["bytes=".len()..]
                        .trim_end_matches('-')
                        .parse()
                        .unwrap();
                    if start >= FILE.len() {
                        let unsatisfied = [("content-range", format!("bytes */{}", FILE.len()))];
                        return (StatusCode::RANGE_NOT_SATISFIABLE, unsatisfied).into_response();
                    }
                    let range = [("content-range", format!("bytes {start}-9/10"))];
                    (StatusCode::PARTIAL_CONTENT, range, &FILE[start..]).into_response()
                }),
            )
            .route("/plain", get(async || Body::from(FILE)))
            .route(
                "/status/{status}",
                get(
                    async |axum::extract::Path(status): axum::extract::Path<u16>| {
                        StatusCode::from_u16(status).unwrap()
                    },
                ),
            )
            .with_state(Arc::clone(&seen));
        (serve(router).await.to_string(), seen)
    }

    async fn read(download: &mut Download) -> Result<Vec<u8>, DownloadError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = download.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_file_is_read_from_its_beginning_and_from_an_offset() {
        let (store, seen) = store().await;
        let url = SignedUrl::new(&format!("{store}ranges?signature=s"));
        let mut whole = downloads().open(&url, 0).await.unwrap();
        assert_eq!((whole.starts_at(), whole.size()), (0, Some(10)));
        assert_eq!(read(&mut whole).await.unwrap(), FILE);
        let mut rest = downloads().open(&url, 4).await.unwrap();
        assert_eq!((rest.starts_at(), rest.size()), (4, Some(10)));
        assert_eq!(read(&mut rest).await.unwrap(), b"456789");
        assert_eq!(rest.position(), 10);
        assert_eq!(rest.chunk().await, Ok(None));
        for headers in &*seen.lock().unwrap() {
            assert!(!headers.contains_key("authorization"));
            assert_eq!(headers["accept-encoding"], "identity");
        }
    }

    #[tokio::test]
    async fn a_store_without_ranges_starts_at_the_beginning_and_says_so() {
        let (store, _) = store().await;
        let mut download = downloads()
            .open(&SignedUrl::new(&format!("{store}plain")), 4)
            .await
            .unwrap();
        assert_eq!(download.starts_at(), 0);
        assert_eq!(read(&mut download).await.unwrap(), FILE);
    }

    #[tokio::test]
    async fn behind_the_last_byte_is_the_end_and_further_is_another_file() {
        let (store, _) = store().await;
        let url = SignedUrl::new(&format!("{store}ranges"));
        let mut end = downloads().open(&url, 10).await.unwrap();
        assert_eq!(end.starts_at(), 10);
        assert_eq!(read(&mut end).await.unwrap(), b"");
        assert_eq!(
            downloads().open(&url, 11).await.unwrap_err(),
            DownloadError::BehindTheEnd { offset: 11 }
        );
    }

    #[tokio::test]
    async fn each_answer_has_its_meaning() {
        let (store, _) = store().await;
        for (status, check) in [
            (
                400,
                (|error| matches!(error, DownloadError::Expired { .. }))
                    as fn(&DownloadError) -> bool,
            ),
            (401, |error| matches!(error, DownloadError::Expired { .. })),
            (403, |error| {
                matches!(error, DownloadError::Expired { status: 403 })
            }),
            (404, |error| matches!(error, DownloadError::Gone)),
            (429, |error| {
                matches!(error, DownloadError::Unavailable { .. })
            }),
            (503, |error| {
                matches!(error, DownloadError::Unavailable { .. })
            }),
            (206, |error| {
                matches!(error, DownloadError::Unexpected { .. })
            }),
            (302, |error| {
                matches!(error, DownloadError::Unexpected { .. })
            }),
        ] {
            let error = downloads()
                .open(&SignedUrl::new(&format!("{store}status/{status}")), 0)
                .await
                .unwrap_err();
            assert!(check(&error), "{status}: {error:?}");
        }
    }

    #[tokio::test]
    async fn another_host_is_not_asked() {
        for url in [
            "https://evil.example.com/x?signature=s",
            "http://localhost:1/x",
            "http://169.254.169.254/",
        ] {
            let error = downloads().open(&SignedUrl::new(url), 0).await.unwrap_err();
            assert!(matches!(error, DownloadError::NotAdmitted(_)));
            assert!(!error.to_string().contains("signature"));
        }
    }

    async fn raw_store(answer: &'static [u8], hang: bool) -> SignedUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/file?signature=secret",
            listener.local_addr().unwrap()
        );
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer).await;
            if hang {
                std::future::pending::<()>().await;
            }
        });
        SignedUrl::new(&url)
    }

    #[tokio::test]
    async fn a_cut_or_silent_download_says_where_to_go_on() {
        for hang in [false, true] {
            let url = raw_store(b"HTTP/1.1 206 Partial Content\r\ncontent-length: 6\r\ncontent-range: bytes 4-9/10\r\n\r\n45", hang).await;
            let mut download = downloads().open(&url, 4).await.unwrap();
            let error = read(&mut download).await.unwrap_err();
            assert!(
                matches!(error, DownloadError::Cut { offset: 6, .. }),
                "{error:?}"
            );
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[tokio::test]
    async fn a_store_that_hangs_or_is_down_is_unavailable_and_its_url_is_not_named() {
        for url in [
            raw_store(b"", true).await,
            SignedUrl::new("http://127.0.0.1:9/file?signature=secret"),
        ] {
            let error = downloads().open(&url, 0).await.unwrap_err();
            assert!(
                matches!(error, DownloadError::Unavailable { .. }),
                "{error:?}"
            );
            assert!(
                !error.to_string().contains("secret") && !format!("{url:?}").contains("secret")
            );
        }
    }
}
