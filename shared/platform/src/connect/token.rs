//! The tokens of Connect: webhooks (HS256), lifecycle callbacks (RS256) and our own calls (PROTOCOL 4).

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};

use super::qsh::{self, Candidate, Reading};

pub mod unverified;

/// Life of a token of ours, in seconds: the recommended three minutes (PROTOCOL 4.3).
const OUTGOING_LIFE: i64 = 180;

/// Why a token is refused. All of them are 401 to the outside; the text is for the log and holds no secret and no token.
///
/// Sending the same token again can't help, but for [`Refusal::IssuedInFuture`] when a clock is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither the header nor the query has a token.
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
    /// `qsh` fits no reading of the request.
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
            Self::MissingClaim { claim } => claim,
            Self::Expired { .. } => "exp",
            Self::IssuedInFuture { .. } => "iat",
            Self::Issuer => "iss",
            Self::Audience => "aud",
            Self::QueryHash { .. } => "qsh",
        }
    }
}

/// The token of a request: `Authorization: JWT …`, else the query's `jwt` (OPEN-QUESTIONS A4).
pub fn find<'a>(authorization: Option<&'a str>, raw_query: &'a str) -> Result<&'a str, Refusal> {
    let header = authorization
        .and_then(|value| value.trim().split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("JWT"))
        .map(|(_, token)| token.trim());
    let query = || {
        raw_query
            .split('&')
            .find_map(|pair| pair.strip_prefix("jwt="))
    };
    header
        .or_else(query)
        .filter(|token| !token.is_empty())
        .ok_or(Refusal::Missing)
}

/// A verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which reading of the path the sender had hashed.
    pub reading: Reading,
    /// Which of the given secrets fits; 0 is the current one. Always 0 for a lifecycle callback.
    pub secret: usize,
}

/// When a token is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now, in seconds since the Unix epoch.
    pub now_seconds: i64,
    /// How far the clocks may differ.
    pub leeway: Duration,
}

/// Verifies the token of a webhook of `tenant` (PROTOCOL 4.2).
///
/// `secrets` holds the tenant's current secret and those it replaced that are still accepted. `tenant` is whom the unverified token named:
/// its `iss`, or its `aud[0]`.
pub fn verify_webhook(
    token: &str,
    tenant: &str,
    secrets: &[&SecretString],
    requests: &[Candidate],
    moment: Moment,
) -> Result<Verified, Refusal> {
    pin(token, Algorithm::HS256, "HS256")?;
    let mut signed = None;
    for (secret, candidate) in secrets.iter().enumerate() {
        // Anybody can sign with an empty secret.
        if candidate.expose_secret().is_empty() {
            continue;
        }
        let key = DecodingKey::from_secret(candidate.expose_secret().as_bytes());
        if let Some(claims) = signed_claims(token, Algorithm::HS256, &key) {
            signed = Some((secret, claims));
            break;
        }
    }
    let (secret, claims) = signed.ok_or(Refusal::Signature)?;
    let issuer = required_text(&claims, "iss")?;
    check_times(&claims, moment)?;
    if issuer != tenant && audiences(&claims).first() != Some(&tenant) {
        return Err(Refusal::Issuer);
    }
    let reading = check_query_hash(&claims, requests)?;
    Ok(Verified { reading, secret })
}

/// What the token of a lifecycle callback must agree with (PROTOCOL 4.1).
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle<'a> {
    /// `clientKey` of the body.
    pub client_key: &'a str,
    /// Our base URL.
    pub base_url: &'a str,
    /// PEM of the public key that the token's `kid` names.
    pub public_key: &'a [u8],
}

/// Verifies the token of `installed` or `uninstalled`: signed by the platform, for us, by the tenant that the body names.
pub fn verify_lifecycle(
    token: &str,
    expected: Lifecycle<'_>,
    requests: &[Candidate],
    moment: Moment,
) -> Result<Verified, Refusal> {
    pin(token, Algorithm::RS256, "RS256")?;
    let key = DecodingKey::from_rsa_pem(expected.public_key).map_err(|_| Refusal::Signature)?;
    let claims = signed_claims(token, Algorithm::RS256, &key).ok_or(Refusal::Signature)?;
    let issuer = required_text(&claims, "iss")?;
    check_times(&claims, moment)?;
    if issuer != expected.client_key {
        return Err(Refusal::Issuer);
    }
    let base_url = expected.base_url.trim_end_matches('/');
    if !audiences(&claims)
        .iter()
        .any(|audience| audience.trim_end_matches('/') == base_url)
    {
        return Err(Refusal::Audience);
    }
    let reading = check_query_hash(&claims, requests)?;
    Ok(Verified { reading, secret: 0 })
}

/// One request of ours that needs a token.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Our app key.
    pub app_key: &'a str,
    /// The tenant's client key, when the audience is to be named.
    pub audience: Option<&'a str>,
    /// Canonical request ([`qsh::canonical`]), its path relative to the tenant's base path.
    pub canonical: &'a str,
}

#[derive(Serialize)]
struct OutgoingClaims<'a> {
    iss: &'a str,
    iat: i64,
    exp: i64,
    qsh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<[&'a str; 1]>,
}

/// Mints the token of one request of ours. It is good for three minutes and for this request only (PROTOCOL 4.3).
pub fn mint(request: Outgoing<'_>, secret: &SecretString, now_seconds: i64) -> SecretString {
    let claims = OutgoingClaims {
        iss: request.app_key,
        iat: now_seconds,
        exp: now_seconds + OUTGOING_LIFE,
        qsh: qsh::hash(request.canonical),
        aud: request.audience.map(|audience| [audience]),
    };
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .expect("text and numbers always serialise, and HMAC takes every key")
        .into()
}

/// Refuses every algorithm but the one, before anything else of the token counts.
fn pin(token: &str, algorithm: Algorithm, name: &'static str) -> Result<(), Refusal> {
    let found = unverified::read(token)?.algorithm;
    debug_assert_eq!(format!("{algorithm:?}"), name);
    if found == name {
        Ok(())
    } else {
        Err(Refusal::Algorithm { expected: name })
    }
}

/// The claims, if the signature is right. The library's own checks of times and audience are off: ours take the time as an argument.
fn signed_claims(
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

fn check_times(claims: &Map<String, Value>, moment: Moment) -> Result<(), Refusal> {
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

fn check_query_hash(
    claims: &Map<String, Value>,
    requests: &[Candidate],
) -> Result<Reading, Refusal> {
    let theirs = required_text(claims, "qsh")?;
    requests
        .iter()
        .find(|request| qsh::hash(&request.canonical) == theirs)
        .map(|request| request.reading)
        .ok_or_else(|| Refusal::QueryHash {
            theirs: theirs.chars().take(64).collect(),
            tried: requests
                .iter()
                .map(|request| request.canonical.clone())
                .collect(),
        })
}

fn required_text<'a>(
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
fn seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<i64>, Refusal> {
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

fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::json;
    use url::Url;

    use super::*;

    const NOW: i64 = 1_600_000_030;
    const TENANT: &str = "unique-client-key-0001";
    const VECTOR_A: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJteS1jbG91ZC1hcHAta2V5IiwiaWF0IjoxNjAwMDAwMDAwLCJleHAiOjE2MDAwMDAxODAsInFzaCI6ImQ0MjQ3NWQzYWY4MDBkZjNlYjgzMWQwYzk2MTJlMjNmNWYzMWUyNDY2YWM0OGRlMzdlODY5MzIwYWFmYTc4OTUifQ.DIWj7ZctVl8PLmkCLej97NZa_zKggf43KRXDgaYFrCM";
    const VECTOR_B: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ1bmlxdWUtY2xpZW50LWtleS0wMDAxIiwiaWF0IjoxNjAwMDAwMDAwLCJleHAiOjE2MDAwMDAxODAsInFzaCI6ImYxY2FjMGI2MDYxYWQwNjE2NzVlOTc2YzJjMjgyN2MzNjc1YTE4ZjQ4YmY4ZjYyNThjN2FjNjE1ZDc2YjM2NTMifQ.Y90cNgV2AT_ZycFy9DrszGHP0qbZRSql0LSxLOru40k";

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn moment(now_seconds: i64) -> Moment {
        Moment {
            now_seconds,
            leeway: Duration::from_mins(1),
        }
    }

    fn requests() -> Vec<Candidate> {
        qsh::candidates(
            "POST",
            "/app/migration/webhook",
            "",
            &Url::parse("https://example.com/app").unwrap(),
        )
    }

    fn good_claims() -> Value {
        json!({"iss": TENANT, "iat": NOW - 30, "exp": NOW + 150, "qsh": qsh::hash("POST&/migration/webhook&")})
    }

    fn signed(claims: &Value) -> String {
        signed_as(
            Algorithm::HS256,
            claims,
            &EncodingKey::from_secret(b"example-shared-secret"),
        )
    }

    fn signed_as(algorithm: Algorithm, claims: &Value, key: &EncodingKey) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
    }

    fn verify(token: &str) -> Result<Verified, Refusal> {
        verify_webhook(
            token,
            TENANT,
            &[&secret("example-shared-secret")],
            &requests(),
            moment(NOW),
        )
    }

    fn with(claim: &str, value: Value) -> Value {
        let mut claims = good_claims();
        claims[claim] = value;
        claims
    }

    fn without(claim: &str) -> Value {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().remove(claim);
        claims
    }

    #[test]
    fn vector_a_is_minted_byte_for_byte() {
        let request = Outgoing {
            app_key: "my-cloud-app-key",
            audience: None,
            canonical: "GET&/rest/atlassian-connect/1/migration/transfer/recent&",
        };
        let token = mint(request, &secret("example-shared-secret"), 1_600_000_000);
        assert_eq!(token.expose_secret(), VECTOR_A);
    }

    #[test]
    fn an_audience_is_the_last_claim_and_an_array() {
        let request = Outgoing {
            app_key: "app",
            audience: Some("tenant"),
            canonical: "GET&/&",
        };
        let token = mint(request, &secret("s"), 1);
        let claims = token.expose_secret().split('.').nth(1).unwrap();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert!(claims.ends_with(r#""aud":["tenant"]}"#));
    }

    #[test]
    fn vector_b_is_accepted() {
        assert_eq!(
            verify(VECTOR_B),
            Ok(Verified {
                reading: Reading::BelowBase,
                secret: 0
            })
        );
    }

    #[test]
    fn a_secret_that_was_just_replaced_still_verifies() {
        let secrets = [secret("new"), secret("example-shared-secret")];
        let verified = verify_webhook(
            VECTOR_B,
            TENANT,
            &secrets.iter().collect::<Vec<_>>(),
            &requests(),
            moment(NOW),
        )
        .unwrap();
        assert_eq!(verified.secret, 1);
    }

    #[test]
    fn a_tenant_named_by_the_audience_is_accepted_and_a_third_one_is_not() {
        let mut claims = with("iss", json!("somebody"));
        claims["aud"] = json!([TENANT, "other"]);
        assert!(verify(&signed(&claims)).is_ok());
        claims["aud"] = json!(["other", TENANT]);
        assert_eq!(verify(&signed(&claims)), Err(Refusal::Issuer));
        assert_eq!(
            verify(&signed(&with("iss", json!("somebody")))),
            Err(Refusal::Issuer)
        );
    }

    #[test]
    fn another_algorithm_is_refused_before_the_signature_counts() {
        let unsigned = |algorithm: &str| {
            let header =
                URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": algorithm}).to_string());
            let claims = URL_SAFE_NO_PAD.encode(good_claims().to_string());
            format!("{header}.{claims}.")
        };
        for algorithm in [
            "none", "None", "RS256", "hs256", "HS512", "EdDSA", "made-up",
        ] {
            assert_eq!(
                verify(&unsigned(algorithm)),
                Err(Refusal::Algorithm { expected: "HS256" }),
                "{algorithm}"
            );
        }
        let key = EncodingKey::from_secret(b"example-shared-secret");
        let stronger = signed_as(Algorithm::HS512, &good_claims(), &key);
        assert_eq!(
            verify(&stronger),
            Err(Refusal::Algorithm { expected: "HS256" })
        );
    }

    #[test]
    fn a_token_signed_with_the_public_key_as_secret_is_refused() {
        let (_, public) = key_pair();
        let confused = signed_as(
            Algorithm::HS256,
            &lifecycle_claims(),
            &EncodingKey::from_secret(&public),
        );
        assert_eq!(
            lifecycle(&confused, &public),
            Err(Refusal::Algorithm { expected: "RS256" })
        );
    }

    #[test]
    fn a_wrong_an_empty_or_no_secret_is_a_wrong_signature() {
        for secrets in [vec![secret("wrong")], vec![secret("")], vec![]] {
            let refused = verify_webhook(
                VECTOR_B,
                TENANT,
                &secrets.iter().collect::<Vec<_>>(),
                &requests(),
                moment(NOW),
            );
            assert_eq!(refused, Err(Refusal::Signature));
        }
        let empty = signed_as(
            Algorithm::HS256,
            &good_claims(),
            &EncodingKey::from_secret(b""),
        );
        let refused = verify_webhook(&empty, TENANT, &[&secret("")], &requests(), moment(NOW));
        assert_eq!(refused, Err(Refusal::Signature));
        let changed = format!("{}A", &VECTOR_B[..VECTOR_B.len() - 1]);
        assert_eq!(verify(&changed), Err(Refusal::Signature));
        assert_eq!(
            verify(VECTOR_B.rsplit_once('.').unwrap().0),
            Err(Refusal::Malformed)
        );
    }

    #[test]
    fn a_token_is_good_from_a_leeway_before_its_issue_to_a_leeway_after_its_end() {
        let at = |now| {
            verify_webhook(
                VECTOR_B,
                TENANT,
                &[&secret("example-shared-secret")],
                &requests(),
                moment(now),
            )
        };
        assert!(at(1_600_000_180 + 60).is_ok());
        assert_eq!(
            at(1_600_000_180 + 61),
            Err(Refusal::Expired { seconds: 61 })
        );
        assert!(at(1_600_000_000 - 60).is_ok());
        assert_eq!(
            at(1_600_000_000 - 61),
            Err(Refusal::IssuedInFuture { seconds: 61 })
        );
        let not_yet = signed(&with("nbf", json!(NOW + 100)));
        assert_eq!(
            verify(&not_yet),
            Err(Refusal::IssuedInFuture { seconds: 100 })
        );
    }

    #[test]
    fn a_required_claim_that_is_missing_or_of_another_type_is_named() {
        for claim in ["iss", "exp", "qsh"] {
            assert_eq!(verify(&signed(&without(claim))).unwrap_err().claim(), claim);
        }
        for (claim, value) in [
            ("iss", json!(5)),
            ("exp", json!("soon")),
            ("iat", json!("now")),
            ("qsh", json!(null)),
        ] {
            assert_eq!(
                verify(&signed(&with(claim, value))).unwrap_err().claim(),
                claim
            );
        }
        assert!(verify(&signed(&without("iat"))).is_ok());
    }

    #[test]
    fn the_hash_of_another_request_is_refused_with_what_was_compared() {
        let theirs = qsh::hash("POST&/other&");
        let refused = verify(&signed(&with("qsh", json!(theirs))));
        assert_eq!(
            refused,
            Err(Refusal::QueryHash {
                theirs,
                tried: vec![
                    "POST&/migration/webhook&".into(),
                    "POST&/app/migration/webhook&".into()
                ],
            })
        );
        // The value that front-end tokens have is for no request of the server.
        assert!(verify(&signed(&with("qsh", json!("context-qsh")))).is_err());
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        for text in [
            "",
            "a",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "é.é.é",
            &"a".repeat(10_000),
        ] {
            assert_eq!(verify(text), Err(Refusal::Malformed), "{text}");
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["exp"]}"#);
        assert_eq!(verify(&format!("{header}.e30.AA")), Err(Refusal::Malformed));
    }

    #[test]
    fn the_token_is_in_the_header_or_in_the_query() {
        assert_eq!(find(Some("JWT abc"), "jwt=def"), Ok("abc"));
        assert_eq!(find(Some("jwt  abc "), ""), Ok("abc"));
        assert_eq!(find(Some("Bearer abc"), "a=1&jwt=def"), Ok("def"));
        assert_eq!(find(None, "jwt=def&x"), Ok("def"));
        assert_eq!(find(Some("JWT "), "jwt="), Err(Refusal::Missing));
        assert_eq!(find(None, "xjwt=1"), Err(Refusal::Missing));
    }

    fn key_pair() -> (EncodingKey, Vec<u8>) {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = |tag: &str, der: &[u8]| {
            format!(
                "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
                STANDARD.encode(der)
            )
        };
        let private = pem("PRIVATE KEY", private.as_ref());
        (
            EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
            pem("PUBLIC KEY", public.as_ref()).into_bytes(),
        )
    }

    fn lifecycle_claims() -> Value {
        with("aud", json!(["https://example.com/app/"]))
    }

    fn lifecycle(token: &str, public_key: &[u8]) -> Result<Verified, Refusal> {
        let expected = Lifecycle {
            client_key: TENANT,
            base_url: "https://example.com/app",
            public_key,
        };
        verify_lifecycle(token, expected, &requests(), moment(NOW))
    }

    #[test]
    fn a_lifecycle_token_needs_the_platforms_signature_and_our_address_and_the_bodys_tenant() {
        let (private, public) = key_pair();
        let (_, another) = key_pair();
        let sign = |claims: &Value| signed_as(Algorithm::RS256, claims, &private);
        let good = sign(&lifecycle_claims());
        assert!(lifecycle(&good, &public).is_ok());
        assert_eq!(lifecycle(&good, &another), Err(Refusal::Signature));
        assert_eq!(lifecycle(&good, b"no key"), Err(Refusal::Signature));
        assert_eq!(
            lifecycle(&sign(&good_claims()), &public),
            Err(Refusal::Audience)
        );
        assert_eq!(
            lifecycle(&sign(&with("aud", json!("https://example.com"))), &public),
            Err(Refusal::Audience)
        );
        assert!(
            lifecycle(
                &sign(&with("aud", json!("https://example.com/app"))),
                &public
            )
            .is_ok()
        );
        let mut claims = lifecycle_claims();
        claims["iss"] = json!("another");
        assert_eq!(lifecycle(&sign(&claims), &public), Err(Refusal::Issuer));
        let mut claims = lifecycle_claims();
        claims["exp"] = json!(NOW - 100);
        assert_eq!(
            lifecycle(&sign(&claims), &public),
            Err(Refusal::Expired { seconds: 100 })
        );
        let mut claims = lifecycle_claims();
        claims["qsh"] = json!("x");
        assert_eq!(
            lifecycle(&sign(&claims), &public).unwrap_err().claim(),
            "qsh"
        );
        assert_eq!(
            lifecycle(VECTOR_B, &public),
            Err(Refusal::Algorithm { expected: "RS256" })
        );
    }

    #[test]
    fn a_refusals_text_holds_neither_token_nor_secret() {
        for refusal in [
            verify(VECTOR_A),
            verify(&signed(&without("exp"))),
            verify("x.y.z"),
        ] {
            let text = format!("{:?}", refusal.unwrap_err());
            assert!(
                !text.contains("example-shared-secret") && !text.contains("eyJ"),
                "{text}"
            );
        }
    }
}
