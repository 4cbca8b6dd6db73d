//! Requests from the platform to the app, well signed or deliberately not.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use crate::canonical::{canonical_request, query_string_hash};
use crate::clock::Stopwatch;
use crate::platform::Installation;
use crate::token::{InstallKey, Signer, claims, sign};

/// Answers of the app are kept up to here.
const MOST_ANSWER_BYTES: usize = 64 * 1024;
/// PROTOCOL 4.3: three minutes are recommended.
const TOKEN_LIFE_S: i64 = 180;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "HS512")]
    Hs512,
    #[serde(rename = "none")]
    Unsigned,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS256_with_secret")]
    Rs256WithSecret,
    #[serde(rename = "HS256_with_public_key")]
    Hs256WithPublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenCarrier {
    #[default]
    Header,
    Query,
    Absent,
}

/// How a request's token shall differ from a good one.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TokenWish {
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) secret: Option<String>,
    pub(crate) qsh: Option<String>,
    pub(crate) issued_in_s: i64,
    pub(crate) expires_in_s: Option<i64>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) place: TokenCarrier,
    pub(crate) key_id: Option<String>,
}

/// Who signs: the tenant as the platform knows it.
pub(crate) struct Signatory<'a> {
    pub(crate) installation: &'a Installation,
    pub(crate) install_key: Option<Arc<InstallKey>>,
    pub(crate) now_s: i64,
}

/// A URL with, if the token travels in the query, the token; and the header otherwise.
#[derive(Clone)]
pub(crate) struct SignedRequest {
    pub(crate) url: String,
    pub(crate) authorization: Option<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Signs `method` and `url` as the wish says. `algorithm` is what a good token of this kind has.
pub(crate) fn signed(
    signatory: &Signatory<'_>,
    method: &str,
    url: &str,
    algorithm: Algorithm,
    wish: &TokenWish,
) -> Result<SignedRequest, String> {
    let parsed = url::Url::parse(url).map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if wish.place == TokenCarrier::Absent {
        return Ok(SignedRequest {
            url: url.to_owned(),
            authorization: None,
            headers: Vec::new(),
        });
    }
    let installation = signatory.installation;
    let canonical = canonical_request(
        method,
        parsed.path(),
        parsed.query().unwrap_or(""),
        &context_path(&installation.app_base_url, &parsed),
    );
    let qsh = match wish.qsh.as_deref() {
        None | Some("right") => Some(query_string_hash(&canonical)),
        Some("wrong") => Some(query_string_hash(&format!("{canonical}x"))),
        Some("absent") => None,
        Some(other) => Some(other.strip_prefix("literal:").unwrap_or(other).to_owned()),
    };
    let algorithm = wish.algorithm.unwrap_or(algorithm);
    let rs256 = algorithm == Algorithm::Rs256;
    let issuer = wish.issuer.as_deref().unwrap_or(&installation.client_key);
    let issued_at = signatory.now_s + wish.issued_in_s;
    let expires = signatory.now_s + wish.expires_in_s.unwrap_or(TOKEN_LIFE_S);
    let mut all = claims(
        issuer,
        issued_at,
        expires - issued_at,
        qsh.as_deref().unwrap_or(""),
    );
    if qsh.is_none() {
        all.remove("qsh");
    }
    if issuer.is_empty() {
        all.remove("iss");
    }
    if let Some(audience) = &wish.audience {
        if !audience.is_empty() {
            all.insert("aud".into(), json!([audience]));
        }
    } else if rs256 || algorithm == Algorithm::Hs256WithPublicKey {
        all.insert("aud".into(), json!([installation.app_base_url]));
    }
    let secret = match wish.secret.as_deref() {
        None | Some("current") => installation.secret.as_str(),
        Some("previous") => installation
            .previous_secret
            .as_deref()
            .ok_or("the tenant has no previous secret")?,
        Some(other) => other.strip_prefix("literal:").unwrap_or(other),
    };
    let key = signatory.install_key.as_deref();
    let missing_key = || "there is no install key".to_owned();
    let signer = match algorithm {
        Algorithm::Hs256 => Signer::Hs256(secret),
        Algorithm::Hs512 => Signer::Hs512(secret),
        Algorithm::Unsigned => Signer::Unsigned,
        Algorithm::Rs256WithSecret => Signer::Rs256WithSecret(secret),
        Algorithm::Rs256 => Signer::Rs256(key.ok_or_else(missing_key)?),
        Algorithm::Hs256WithPublicKey => Signer::Hs256(&key.ok_or_else(missing_key)?.public_pem),
    };
    let lifecycle = matches!(algorithm, Algorithm::Rs256 | Algorithm::Hs256WithPublicKey);
    let key_id = wish
        .key_id
        .as_deref()
        .or_else(|| key.filter(|_| lifecycle).map(|key| key.id.as_str()));
    let token = sign(&signer, key_id, &all).ok_or("the RSA key can't sign")?;
    Ok(match wish.place {
        TokenCarrier::Query => {
            let mut parsed = parsed;
            parsed.query_pairs_mut().append_pair("jwt", &token);
            SignedRequest {
                url: parsed.into(),
                authorization: None,
                headers: Vec::new(),
            }
        }
        _ => SignedRequest {
            url: url.to_owned(),
            authorization: Some(format!("JWT {token}")),
            headers: Vec::new(),
        },
    })
}

/// The base URL's path, if the request goes to that base URL at all.
fn context_path(base_url: &str, target: &url::Url) -> String {
    url::Url::parse(base_url)
        .ok()
        .filter(|base| base.origin() == target.origin())
        .map_or_else(String::new, |base| base.path().to_owned())
}

/// What came of a request to the app.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AppAnswer {
    /// Absent when nothing answered.
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
    pub(crate) elapsed_ms: u64,
    pub(crate) error: Option<String>,
    #[serde(skip)]
    pub(crate) content_type: Option<String>,
}

/// Sends one request and waits at most `timeout` for the whole answer.
pub(crate) async fn send(
    http: &reqwest::Client,
    method: &str,
    request: &SignedRequest,
    body: Vec<u8>,
    timeout: Duration,
) -> AppAnswer {
    let started = Stopwatch::start();
    let elapsed_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::POST);
    let mut builder = http
        .request(method, &request.url)
        .timeout(timeout)
        .header("Content-Type", "application/json")
        .body(body);
    if let Some(authorization) = &request.authorization {
        builder = builder.header("Authorization", authorization);
    }
    for (name, value) in &request.headers {
        builder = builder.header(*name, value);
    }
    let answered = async {
        let mut response = builder.send().await?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > MOST_ANSWER_BYTES {
                body.truncate(MOST_ANSWER_BYTES);
                break;
            }
        }
        Ok::<_, reqwest::Error>((status, content_type, body))
    };
    match answered.await {
        Ok((status, content_type, body)) => AppAnswer {
            status: Some(status),
            body: String::from_utf8_lossy(&body).into_owned(),
            elapsed_ms: elapsed_ms(),
            error: None,
            content_type,
        },
        Err(error) => AppAnswer {
            status: None,
            body: String::new(),
            elapsed_ms: elapsed_ms(),
            error: Some(describe(&error)),
            content_type: None,
        },
    }
}

/// The chain of causes, without the URL: it may carry a token.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".into();
    }
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&found.to_string());
        cause = found.source();
    }
    if text.is_empty() {
        "failed".into()
    } else {
        text
    }
}

/// PROTOCOL 4.1: the body of a lifecycle callback.
pub(crate) fn lifecycle_body(
    event_type: &str,
    installation: &Installation,
    base_url: &str,
    secret: Option<&str>,
) -> Value {
    let product = installation.product.name();
    let mut body = json!({
        "key": installation.app_key,
        "clientKey": installation.client_key,
        "publicKey": "",
        "serverVersion": "100296",
        "pluginsVersion": "1001.0.0-SNAPSHOT",
        "baseUrl": base_url,
        "displayUrl": base_url,
        "productType": product,
        "description": format!("Atlassian {product} at {}", installation.site),
        "eventType": event_type,
    });
    if let Some(secret) = secret {
        body["sharedSecret"] = secret.into();
    }
    body
}
