//! What the tokens of all flavours share: why one is refused, when it is looked at, and how its claims are read.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::hosts::Refused;
use unverified::Unverified;

pub mod unverified;

/// Why a token is refused. All of them are 401 to the outside; the text is for the log and holds no secret and no token.
///
/// Sending the same token again can't help, but for [`Refusal::IssuedInFuture`] when a clock is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has no token.
    #[error("no token")]
    Missing,
    /// Not a token at all.
    #[error("not a token of three readable parts")]
    Malformed,
    /// Another algorithm than the one that this kind of request is signed with.
    #[error("signed with another algorithm than {expected}")]
    Algorithm {
        /// The one pinned.
        expected: &'static str,
    },
    /// The header's key id is missing or has an impossible form.
    #[error("key id missing or not of the allowed form")]
    KeyId,
    /// No key fits the signature.
    #[error("signature not made with a key that is valid now")]
    Signature,
    /// A claim that must be there is not, or has the wrong type.
    #[error("claim missing or of the wrong type")]
    MissingClaim {
        /// The claim.
        claim: &'static str,
    },
    /// Past its `exp`.
    #[error("expired")]
    Expired {
        /// By how many seconds, before the leeway.
        seconds: i64,
    },
    /// `iat` or `nbf` lies in the future.
    #[error("issued in the future")]
    IssuedInFuture {
        /// By how many seconds, before the leeway.
        seconds: i64,
    },
    /// `iss` is not who it has to be.
    #[error("issued by somebody else")]
    Issuer,
    /// `aud` is not for us.
    #[error("meant for somebody else")]
    Audience,
    /// A claim has a value that it can't have here.
    #[error("claim with a value that it can't have here")]
    InvalidClaim {
        /// The claim.
        claim: &'static str,
    },
    /// The address at which the product is to be called is not one of those that we call.
    #[error("base URL not admitted: {0}")]
    BaseUrl(#[from] Refused),
    /// Connect's `qsh` fits no reading of the request.
    #[error("query hash of another request")]
    QueryHash {
        /// The hash that the token has.
        theirs: String,
        /// The canonical requests that we compared it with.
        tried: Vec<String>,
    },
}

impl Refusal {
    /// The claim or part of the token that failed, for the log.
    pub const fn claim(&self) -> &'static str {
        match self {
            Self::Missing | Self::Malformed => "token",
            Self::Algorithm { .. } => "alg",
            Self::KeyId => "kid",
            Self::Signature => "signature",
            Self::MissingClaim { claim } | Self::InvalidClaim { claim } => claim,
            Self::BaseUrl(_) => "apiBaseUrl",
            Self::Expired { .. } => "exp",
            Self::IssuedInFuture { .. } => "iat",
            Self::Issuer => "iss",
            Self::Audience => "aud",
            Self::QueryHash { .. } => "qsh",
        }
    }
}

/// When a token is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now, in seconds since the Unix epoch.
    pub now_seconds: i64,
    /// How far the clocks may differ.
    pub leeway: Duration,
}

/// Refuses every algorithm but the one, before anything else of the token counts. What else it says of itself is returned, so that nobody reads it twice.
pub(crate) fn pin(
    token: &str,
    algorithm: Algorithm,
    name: &'static str,
) -> Result<Unverified, Refusal> {
    let claimed = unverified::read(token)?;
    debug_assert_eq!(format!("{algorithm:?}"), name);
    if claimed.algorithm == name {
        Ok(claimed)
    } else {
        Err(Refusal::Algorithm { expected: name })
    }
}

/// The claims, if the signature is right. The library's own checks of times and audience are off: ours take the time as an argument.
pub(crate) fn signed_claims(
    token: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode(token, key, &validation)
        .ok()
        .map(|token| token.claims)
}

pub(crate) fn check_times(claims: &Map<String, Value>, moment: Moment) -> Result<(), Refusal> {
    let leeway = i64::try_from(moment.leeway.as_secs()).unwrap_or(i64::MAX);
    let expires = seconds(claims, "exp")?.ok_or(Refusal::MissingClaim { claim: "exp" })?;
    let late = moment.now_seconds.saturating_sub(expires);
    if late > leeway {
        return Err(Refusal::Expired { seconds: late });
    }
    for claim in ["iat", "nbf"] {
        let early =
            seconds(claims, claim)?.map_or(0, |start| start.saturating_sub(moment.now_seconds));
        if early > leeway {
            return Err(Refusal::IssuedInFuture { seconds: early });
        }
    }
    Ok(())
}

pub(crate) fn required_text<'a>(
    claims: &'a Map<String, Value>,
    claim: &'static str,
) -> Result<&'a str, Refusal> {
    claims
        .get(claim)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .ok_or(Refusal::MissingClaim { claim })
}

/// A claim in whole seconds; absent is fine, another type is not.
pub(crate) fn seconds(
    claims: &Map<String, Value>,
    claim: &'static str,
) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    value
        .as_i64()
        .or_else(|| value.as_f64().and_then(whole_seconds))
        .map(Some)
        .ok_or(Refusal::MissingClaim { claim })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked and a fraction of a second doesn't matter"
)]
fn whole_seconds(number: f64) -> Option<i64> {
    (0.0..1e15).contains(&number).then_some(number as i64)
}

pub(crate) fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
