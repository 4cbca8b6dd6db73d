//! Delivers batches to the partner's own service, signed as Standard Webhooks (<https://www.standardwebhooks.com>). The README holds the
//! contract for the partner.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_clock::Clock;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::declaration::Sink as Declared;
use crate::identity::{ContentHash, bounded_reason};
use crate::ports::{Delivery, FileIdentity, Piece, PieceTaken, Sink, SinkError, SinkOutcome};

/// The version of the body that is sent.
const VERSION: u32 = 1;

/// The header that says which piece of which file a body is.
const PIECE_HEADER: &str = "landfall-piece";

/// The largest answer that is read: 99 results with long reasons are a fraction of it.
const ANSWER_BYTES: usize = 1_048_576;

/// The longest wait that a `Retry-After` can ask for; a slice is tried again after it at the latest.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Standard Webhooks asks for secrets of 24 to 64 bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What the header of a Standard Webhooks secret looks like.
const SECRET_PREFIX: &str = "whsec_";

/// The partner's service.
pub struct HttpSink {
    client: Client,
    url: Url,
    secret: hmac::Key,
    clock: Clock,
}

/// Why the sink can't be set up; a person must change the configuration.
#[derive(Debug, thiserror::Error)]
pub enum HttpSinkError {
    /// The declaration doesn't pass its own validation.
    #[error("sink.url must be a URL")]
    Url,
    /// The secret can't be used.
    #[error("the sink's secret must be \"whsec_\" and the base64 of 24 to 64 bytes")]
    Secret,
    /// TLS can't be set up on this machine.
    #[error("the HTTP client can't be set up")]
    Client(#[from] reqwest::Error),
}

impl fmt::Debug for HttpSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpSink").finish_non_exhaustive()
    }
}

impl HttpSink {
    /// A sink as declared. `secret` is `whsec_<base64>`; `clock` gives the time that is signed.
    pub fn new(
        declared: &Declared,
        secret: &SecretString,
        clock: Clock,
    ) -> Result<Self, HttpSinkError> {
        let url = declared
            .url
            .as_deref()
            .and_then(|url| url.parse().ok())
            .ok_or(HttpSinkError::Url)?;
        let secret = secret
            .expose_secret()
            .strip_prefix(SECRET_PREFIX)
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .filter(|bytes| SECRET_BYTES.contains(&bytes.len()))
            .ok_or(HttpSinkError::Secret)?;
        let client = Client::builder()
            // A redirect would carry customers' records to a host that nobody allowed.
            .redirect(redirect::Policy::none())
            // Neither may a proxy that happens to be in the environment.
            .no_proxy()
            .timeout(declared.timeout())
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            client,
            url,
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            clock,
        })
    }

    /// A signed request, to which the body is still to be given.
    fn post(&self, identity: &str, body: &[u8]) -> RequestBuilder {
        let timestamp = self.clock.now().as_seconds();
        self.client
            .post(self.url.clone())
            .header("webhook-id", identity)
            .header("webhook-timestamp", timestamp)
            .header(
                "webhook-signature",
                signature(&self.secret, identity, timestamp, body),
            )
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>, SinkError> {
        let response = request.send().await.map_err(|error| lost(&error))?;
        self.accepted(response).await
    }

    /// The body of an answer, unless its status already decides.
    async fn accepted(&self, mut response: Response) -> Result<Vec<u8>, SinkError> {
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(
                status,
                response.headers(),
                self.clock.system_time(),
            ));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(malformed(format!("it is larger than {ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Sink for HttpSink {
    fn hears_the_end(&self) -> bool {
        false
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        let body = body(delivery)?;
        let request = self
            .post(&delivery.idempotency_key, &body)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = self.answer(request).await?;
        outcomes(delivery.records.iter().map(|record| &*record.key), &answer)
    }

    async fn deliver_piece(&self, piece: &Piece<'_>) -> Result<PieceTaken, SinkError> {
        let header = piece_header(piece)?;
        // The id is what is signed beside the body, so through it the header is signed, too.
        let identity = ContentHash::of(header.as_bytes()).to_string();
        let request = self
            .post(&identity, &piece.bytes)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(PIECE_HEADER, header)
            .body(piece.bytes.clone());
        let answer = self.answer(request).await?;
        let outcome = outcomes([piece.file.id].into_iter(), &answer)?.swap_remove(0);
        Ok(PieceTaken {
            outcome,
            upload: None,
        })
    }
}

/// What a piece is, as the header [`PIECE_HEADER`] says it.
#[derive(Serialize)]
struct PieceFields<'a> {
    version: u32,
    file: &'a str,
    tenant: &'a str,
    transfer: &'a str,
    chain: &'a str,
    label: &'a str,
    offset: u64,
    length: usize,
    content_hash: String,
    last: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hash: Option<String>,
}

/// JSON in the characters that a header may have.
fn piece_header(piece: &Piece<'_>) -> Result<String, SinkError> {
    let FileIdentity {
        tenant,
        transfer,
        chain,
        label,
        id,
    } = piece.file;
    let fields = PieceFields {
        version: VERSION,
        file: id,
        tenant,
        transfer,
        chain,
        label,
        offset: piece.offset,
        length: piece.bytes.len(),
        content_hash: ContentHash::of(&piece.bytes).to_string(),
        last: piece.last.is_some(),
        file_hash: piece.last.map(|hash| hash.to_string()),
    };
    let json = serde_json::to_string(&fields).map_err(|error| SinkError::Refused {
        reason: format!("the piece can't be described as JSON: {error}"),
    })?;
    let mut header = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            header.push(character);
        } else {
            // Only inside strings, where JSON writes it so.
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(header, "\\u{unit:04x}");
            }
        }
    }
    Ok(header)
}

#[derive(Serialize)]
struct Body<'a> {
    version: u32,
    batch: &'a str,
    tenant: &'a str,
    transfer: &'a str,
    chain: &'a str,
    label: &'a str,
    records: Vec<BodyRecord<'a>>,
}

#[derive(Serialize)]
struct BodyRecord<'a> {
    key: &'a str,
    content_hash: String,
    record: &'a RawValue,
}

fn body(delivery: &Delivery<'_>) -> Result<Vec<u8>, SinkError> {
    let records = delivery
        .records
        .iter()
        .map(|landed| {
            Ok(BodyRecord {
                key: &landed.key,
                content_hash: landed.content_hash.to_string(),
                record: serde_json::from_slice(&landed.record)?,
            })
        })
        .collect::<Result<_, serde_json::Error>>();
    let FileIdentity {
        tenant,
        transfer,
        chain,
        label,
        ..
    } = delivery.file;
    let batch = &delivery.idempotency_key;
    records
        .and_then(|records| {
            serde_json::to_vec(&Body {
                version: VERSION,
                batch,
                tenant,
                transfer,
                chain,
                label,
                records,
            })
        })
        .map_err(|error| SinkError::Refused {
            reason: format!("the batch can't be written as JSON: {error}"),
        })
}

/// `v1,<base64 of HMAC-SHA256(id.timestamp.body)>`.
fn signature(secret: &hmac::Key, identity: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(secret);
    context.update(format!("{identity}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// A request without an answer: nobody knows whether the batch was applied; its idempotency key makes a repetition safe.
fn lost(error: &reqwest::Error) -> SinkError {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    SinkError::Unavailable {
        reason: what.to_owned(),
        retry_after: None,
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> SinkError {
    let reason = format!("it answered {}", status.as_u16());
    let transient = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
        );
    if transient {
        SinkError::Unavailable {
            reason,
            retry_after: retry_after(headers, now),
        }
    } else if status.is_redirection() {
        SinkError::Refused {
            reason: format!("{reason}, and redirects are not followed"),
        }
    } else {
        SinkError::Refused { reason }
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = OffsetDateTime::parse(value, &Rfc2822).ok()?;
        (until - OffsetDateTime::from(now))
            .try_into()
            .unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<AnswerResult>,
}

#[derive(Deserialize)]
struct AnswerResult {
    key: String,
    outcome: AnswerOutcome,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AnswerOutcome {
    Applied,
    Unchanged,
    Held,
    Rejected,
}

impl AnswerResult {
    fn into_outcome(self) -> SinkOutcome {
        let reason = self.reason.filter(|reason| !reason.trim().is_empty());
        let reason = bounded_reason(reason.unwrap_or_else(|| "the sink gave no reason".to_owned()));
        match self.outcome {
            AnswerOutcome::Applied => SinkOutcome::Applied,
            AnswerOutcome::Unchanged => SinkOutcome::Unchanged,
            AnswerOutcome::Held => SinkOutcome::Held { reason },
            AnswerOutcome::Rejected => SinkOutcome::Rejected { reason },
        }
    }
}

/// Exactly one outcome for each key, in the keys' order.
pub(crate) fn outcomes<'a>(
    keys: impl ExactSizeIterator<Item = &'a str>,
    answer: &[u8],
) -> Result<Vec<SinkOutcome>, SinkError> {
    // The text of serde's error could quote the body, its place can't.
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
        malformed(format!(
            "it is not {{\"results\": [...]}} as agreed, at line {} column {}",
            error.line(),
            error.column()
        ))
    })?;
    let given = answer.results.len();
    let mut by_key: HashMap<String, SinkOutcome> = HashMap::with_capacity(given);
    for result in answer.results {
        by_key.insert(result.key.clone(), result.into_outcome());
    }
    if by_key.len() != given {
        return Err(malformed("a record has more than one result".to_owned()));
    }
    if given != keys.len() {
        return Err(malformed(format!(
            "{given} results came for {} records",
            keys.len()
        )));
    }
    keys.map(|key| {
        by_key
            .remove(key)
            .ok_or_else(|| malformed("a record has no result".to_owned()))
    })
    .collect()
}

fn malformed(reason: String) -> SinkError {
    SinkError::MalformedAnswer { reason }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use reqwest::header::HeaderValue;

    use super::*;

    fn reason_of(answer: &str) -> String {
        match outcomes(["a", "b"].into_iter(), answer.as_bytes()) {
            Err(SinkError::MalformedAnswer { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        // From the specification's reference libraries: secret, id, timestamp and body with a known signature.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        assert_eq!(
            signature(
                &secret,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_piece_is_described_in_characters_that_a_header_may_have() {
        let piece = Piece {
            file: FileIdentity {
                tenant: "t",
                transfer: "u",
                chain: "c",
                label: "f\u{fc}r \"alle\"\n\u{1f600}\u{7f}.png",
                id: "f1",
            },
            offset: 0,
            bytes: Bytes::from_static(b"abc"),
            last: Some(ContentHash::of(b"abc")),
            upload: None,
        };
        let header = piece_header(&piece).unwrap();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            header,
            format!(
                r#"{{"version":1,"file":"f1","tenant":"t","transfer":"u","chain":"c","label":"f\u00fcr \"alle\"\n\ud83d\ude00\u007f.png","offset":0,"length":3,"content_hash":"{hash}","last":true,"file_hash":"{hash}"}}"#
            )
        );
        let read: serde_json::Value = serde_json::from_str(&header).unwrap();
        assert_eq!(read["label"], piece.file.label);
        assert!(HeaderValue::from_str(&header).is_ok());
    }

    #[test]
    fn outcomes_come_in_the_records_order() {
        let answer = br#"{"results":[{"key":"b","outcome":"held","reason":"later"},{"key":"a","outcome":"rejected","more":1}],"x":1}"#;
        assert_eq!(
            outcomes(["a", "b"].into_iter(), answer).unwrap(),
            [
                SinkOutcome::Rejected {
                    reason: "the sink gave no reason".to_owned()
                },
                SinkOutcome::Held {
                    reason: "later".to_owned()
                },
            ]
        );
    }

    #[test]
    fn an_answer_that_does_not_account_for_each_record_once_is_malformed() {
        let a = r#"{"key":"a","outcome":"applied"}"#;
        let b = r#"{"key":"b","outcome":"applied"}"#;
        let c = r#"{"key":"c","outcome":"applied"}"#;
        assert_eq!(
            reason_of(&format!(r#"{{"results":[{a}]}}"#)),
            "1 results came for 2 records"
        );
        assert_eq!(
            reason_of(&format!(r#"{{"results":[{a},{b},{c}]}}"#)),
            "3 results came for 2 records"
        );
        assert_eq!(
            reason_of(&format!(r#"{{"results":[{a},{b},{a}]}}"#)),
            "a record has more than one result"
        );
        assert_eq!(
            reason_of(&format!(r#"{{"results":[{a},{c}]}}"#)),
            "a record has no result"
        );
        for text in [
            "",
            "{}",
            "[]",
            r#"{"results":[{"key":"a","outcome":"stored"}]}"#,
        ] {
            assert!(
                reason_of(text).starts_with("it is not {\"results\": [...]} as agreed"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_status_says_whether_trying_again_can_help() {
        let class = |status: u16| {
            refusal(
                StatusCode::from_u16(status).unwrap(),
                &HeaderMap::new(),
                UNIX_EPOCH,
            )
        };
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(
                matches!(class(status), SinkError::Unavailable { .. }),
                "{status}"
            );
        }
        for status in [301, 307, 400, 401, 403, 404, 409, 413, 422] {
            assert!(
                matches!(class(status), SinkError::Refused { .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn retry_after_is_read_in_both_its_forms_and_bounded() {
        let after = |value: &str| {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            retry_after(&headers, UNIX_EPOCH + Duration::from_secs(784_111_777))
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:50:07 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), UNIX_EPOCH), None);
    }

    #[test]
    fn nothing_is_said_when_a_file_ends_so_nobody_looks_at_its_token_first() {
        let declared = Declared {
            url: Some("https://a.example/".to_owned()),
            ..Declared::default()
        };
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let sink = HttpSink::new(&declared, &secret, Clock::system()).unwrap();
        assert!(!sink.hears_the_end());
    }

    #[test]
    fn a_secret_of_another_form_is_refused_without_being_shown() {
        let declared = Declared {
            url: Some("https://a.example/".to_owned()),
            ..Declared::default()
        };
        for secret in [
            "",
            "whsec_",
            "whsec_!!!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
        ] {
            let error =
                HttpSink::new(&declared, &SecretString::from(secret), Clock::system()).unwrap_err();
            assert!(matches!(error, HttpSinkError::Secret), "{secret}");
        }
    }
}
