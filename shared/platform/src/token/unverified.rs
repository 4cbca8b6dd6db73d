//! Reading a token **before** anything about it is proven.
//!
//! Only what is needed to find the key may be read here: the algorithm, the key's id, and whom the token claims to come from.
//! Nothing read here may be stored, shown or decided upon.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Refusal;

/// Longest token that is looked at, in bytes. A genuine one has a few hundred.
pub const TOKEN_MAX: usize = 8 * 1024;

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// `alg` of the header.
    pub algorithm: String,
    /// `kid` of the header.
    pub key_id: Option<String>,
    /// `iss`: who says to have made it.
    pub issuer: Option<String>,
    /// `aud`, or its first element.
    pub audience: Option<String>,
}

/// Takes a token apart without verifying it.
pub fn read(token: &str) -> Result<Unverified, Refusal> {
    let [header, claims] = parts(token)?;
    Ok(Unverified {
        algorithm: text(header.get("alg")).ok_or(Refusal::Malformed)?,
        key_id: text(header.get("kid")),
        issuer: text(claims.get("iss")),
        audience: text(
            claims
                .get("aud")
                .map(|audience| audience.get(0).unwrap_or(audience)),
        ),
    })
}

/// The claims of a token that we have no key for.
pub(crate) fn claims(token: &str) -> Result<Map<String, Value>, Refusal> {
    parts(token).map(|[_, claims]| claims)
}

/// Header and claims.
fn parts(token: &str) -> Result<[Map<String, Value>; 2], Refusal> {
    if token.len() > TOKEN_MAX {
        return Err(Refusal::Malformed);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    let header = object(header)?;
    // An extension that the sender calls critical must not be ignored (RFC 7515, 4.1.11), and we know none.
    if header.contains_key("crit") {
        return Err(Refusal::Malformed);
    }
    Ok([header, object(claims)?])
}

fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::Malformed)
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}
