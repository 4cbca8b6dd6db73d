//! The tokens of Connect: webhooks (HS256), lifecycle callbacks (RS256) and our own calls (PROTOCOL 4).

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};

use super::qsh::{self, Candidate, Reading};
use crate::token::{audiences, check_times, pin, required_text, signed_claims};

pub use crate::token::{Moment, Refusal, unverified};

/// Life of a token of ours, in seconds: the recommended three minutes (PROTOCOL 4.3).
const OUTGOING_LIFE: i64 = 180;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;
    use url::Url;

    use super::*;
    use crate::stub::key_pair;

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
