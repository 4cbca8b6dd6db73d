//! JSON Web Tokens, made and checked by hand: three base64url parts, an HMAC or an RSA signature.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::{hmac, rand, signature};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::seed;

/// A key that signs lifecycle callbacks, or invocations of Forge remotes, and its name on the key server.
pub(crate) struct InstallKey {
    pub(crate) id: String,
    pub(crate) public_pem: String,
    pair: KeyPair,
}

impl InstallKey {
    /// A new 2048-bit RSA key. Its id comes from the public key: an app that caches keys by id never meets a stale one.
    pub(crate) fn generate() -> Option<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).ok()?;
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        let encoded = STANDARD.encode(der.as_ref());
        let mut public_pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in encoded.as_bytes().chunks(64) {
            public_pem.push_str(&String::from_utf8_lossy(line));
            public_pem.push('\n');
        }
        public_pem.push_str("-----END PUBLIC KEY-----\n");
        let id = seed::uuid(0, &[&public_pem]);
        drop(der);
        Some(Self {
            id,
            public_pem,
            pair,
        })
    }

    /// The public key as a member of a JSON Web Key Set.
    pub(crate) fn jwk(&self) -> Option<Value> {
        let (modulus, exponent) = rsa_numbers(self.pair.public_key().as_ref())?;
        Some(json!({
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(modulus),
            "e": URL_SAFE_NO_PAD.encode(exponent),
        }))
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &rand::SystemRandom::new(),
                input,
                &mut signature,
            )
            .ok()?;
        Some(signature)
    }
}

/// Modulus and exponent of RFC 8017's `RSAPublicKey`: a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = element(der, 0x30)?;
    let (modulus, rest) = element(sequence, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    // A leading zero keeps a DER integer positive; a JWK has none.
    let unsigned = |number: &'_ [u8]| number.iter().take_while(|byte| **byte == 0).count();
    Some((
        &modulus[unsigned(modulus)..],
        &exponent[unsigned(exponent)..],
    ))
}

/// The content of the first DER element, which must have that tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = bytes
            .iter()
            .fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
        (length, rest)
    };
    rest.split_at_checked(length)
}

/// How a token is signed. The odd ones are attacks that an app must refuse.
pub(crate) enum Signer<'a> {
    Hs256(&'a str),
    Hs512(&'a str),
    Rs256(&'a InstallKey),
    /// The header says RS256, the signature is an HMAC with this secret.
    Rs256WithSecret(&'a str),
    Unsigned,
}

/// Joins header, claims and signature. `None` only when the RSA key can't sign.
pub(crate) fn sign(
    signer: &Signer<'_>,
    key_id: Option<&str>,
    claims: &Map<String, Value>,
) -> Option<String> {
    let algorithm = match signer {
        Signer::Hs256(_) => "HS256",
        Signer::Hs512(_) => "HS512",
        Signer::Rs256(_) | Signer::Rs256WithSecret(_) => "RS256",
        Signer::Unsigned => "none",
    };
    let mut header = json!({ "typ": "JWT", "alg": algorithm });
    if let Some(key_id) = key_id {
        header["kid"] = Value::from(key_id);
    }
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(Value::Object(claims.clone()).to_string())
    );
    let signature = match signer {
        Signer::Hs256(secret) | Signer::Rs256WithSecret(secret) => {
            mac(hmac::HMAC_SHA256, secret, &input)
        }
        Signer::Hs512(secret) => mac(hmac::HMAC_SHA512, secret, &input),
        Signer::Rs256(key) => key.sign(input.as_bytes())?,
        Signer::Unsigned => Vec::new(),
    };
    Some(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The usual claims in the usual order.
pub(crate) fn claims(issuer: &str, issued_at_s: i64, life_s: i64, qsh: &str) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("iss".into(), issuer.into());
    claims.insert("iat".into(), issued_at_s.into());
    claims.insert("exp".into(), (issued_at_s + life_s).into());
    claims.insert("qsh".into(), qsh.into());
    claims
}

fn mac(algorithm: hmac::Algorithm, secret: &str, input: &str) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    hmac::sign(&key, input.as_bytes()).as_ref().to_vec()
}

/// Why a token was refused, in words for the person who debugs the app.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("the Authorization header is missing or does not start with \"JWT \"")]
    Missing,
    #[error("the token does not have three base64url parts with JSON in the first two")]
    Malformed,
    #[error("the token's algorithm is {0:?}, only HS256 is accepted")]
    Algorithm(String),
    #[error("the token's claim {0:?} is missing or of the wrong type")]
    Claim(&'static str),
    #[error("no installation of the app key in \"iss\" on this site")]
    UnknownIssuer,
    #[error("the signature does not match the tenant's shared secret")]
    Signature,
    #[error("the token expired {0} s ago")]
    Expired(i64),
    #[error("the token is issued {0} s in the future")]
    Future(i64),
    #[error("qsh does not match; the canonical request is {0:?}")]
    QueryStringHash(String),
}

/// A token taken apart, nothing verified yet.
pub(crate) struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    pub(crate) algorithm: String,
    claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let header = object(header)?;
        let claims = object(payload)?;
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(Refusal::Malformed)?
            .to_owned();
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Refusal::Malformed)?;
        Ok(Self {
            signed,
            signature,
            algorithm,
            claims,
        })
    }

    /// Whether an HMAC with this secret made the token's signature.
    pub(crate) fn signed_with(&self, secret: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        self.algorithm == "HS256"
            && hmac::verify(&key, self.signed.as_bytes(), &self.signature).is_ok()
    }

    pub(crate) fn issuer(&self) -> Result<&str, Refusal> {
        self.text("iss")
    }

    /// The checks that need the tenant: algorithm, signature, times, request.
    pub(crate) fn verify(
        &self,
        secrets: &[&str],
        now_s: i64,
        leeway_s: i64,
        canonical_request: &str,
    ) -> Result<(), Refusal> {
        if self.algorithm != "HS256" {
            return Err(Refusal::Algorithm(self.algorithm.clone()));
        }
        let signed_by_tenant = secrets.iter().any(|secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            hmac::verify(&key, self.signed.as_bytes(), &self.signature).is_ok()
        });
        if !signed_by_tenant {
            return Err(Refusal::Signature);
        }
        let expires = self.number("exp")?;
        if expires + leeway_s < now_s {
            return Err(Refusal::Expired(now_s - expires));
        }
        let issued = self.number("iat")?;
        if issued - leeway_s > now_s {
            return Err(Refusal::Future(issued - now_s));
        }
        let expected = crate::canonical::query_string_hash(canonical_request);
        if self.text("qsh")? != expected {
            return Err(Refusal::QueryStringHash(canonical_request.to_owned()));
        }
        Ok(())
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<&str, Refusal> {
        self.claims
            .get(name)
            .and_then(Value::as_str)
            .ok_or(Refusal::Claim(name))
    }

    pub(crate) fn number(&self, name: &'static str) -> Result<i64, Refusal> {
        self.claims
            .get(name)
            .and_then(Value::as_i64)
            .ok_or(Refusal::Claim(name))
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::query_string_hash;

    const SECRET: &str = "example-shared-secret";
    const VECTOR_A: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJteS1jbG91ZC1hcHAta2V5IiwiaWF0IjoxNjAwMDAwMDAwLCJleHAiOjE2MDAwMDAxODAsInFzaCI6ImQ0MjQ3NWQzYWY4MDBkZjNlYjgzMWQwYzk2MTJlMjNmNWYzMWUyNDY2YWM0OGRlMzdlODY5MzIwYWFmYTc4OTUifQ.DIWj7ZctVl8PLmkCLej97NZa_zKggf43KRXDgaYFrCM";
    const VECTOR_B: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ1bmlxdWUtY2xpZW50LWtleS0wMDAxIiwiaWF0IjoxNjAwMDAwMDAwLCJleHAiOjE2MDAwMDAxODAsInFzaCI6ImYxY2FjMGI2MDYxYWQwNjE2NzVlOTc2YzJjMjgyN2MzNjc1YTE4ZjQ4YmY4ZjYyNThjN2FjNjE1ZDc2YjM2NTMifQ.Y90cNgV2AT_ZycFy9DrszGHP0qbZRSql0LSxLOru40k";
    const REQUEST_A: &str = "GET&/rest/atlassian-connect/1/migration/transfer/recent&";
    const REQUEST_B: &str = "POST&/migration/webhook&";

    fn minted(issuer: &str, request: &str) -> String {
        let claims = claims(issuer, 1_600_000_000, 180, &query_string_hash(request));
        sign(&Signer::Hs256(SECRET), None, &claims).expect("an HMAC always signs")
    }

    /// PROTOCOL 4.4, token vectors.
    #[test]
    fn both_token_vectors_are_minted_byte_for_byte() {
        assert_eq!(minted("my-cloud-app-key", REQUEST_A), VECTOR_A);
        assert_eq!(minted("unique-client-key-0001", REQUEST_B), VECTOR_B);
    }

    #[test]
    fn both_token_vectors_verify() {
        for (vector, issuer, request) in [
            (VECTOR_A, "my-cloud-app-key", REQUEST_A),
            (VECTOR_B, "unique-client-key-0001", REQUEST_B),
        ] {
            let token = Unverified::parse(vector).expect("well formed");
            assert_eq!(token.issuer(), Ok(issuer));
            assert_eq!(
                token.verify(&["other", SECRET], 1_600_000_100, 0, request),
                Ok(())
            );
        }
    }

    #[test]
    fn a_token_is_refused_for_each_thing_that_is_wrong_with_it() {
        let token = Unverified::parse(VECTOR_A).expect("well formed");
        let at = 1_600_000_100;
        assert_eq!(
            token.verify(&["other"], at, 0, REQUEST_A),
            Err(Refusal::Signature)
        );
        assert_eq!(
            token.verify(&[SECRET], at + 1000, 0, REQUEST_A),
            Err(Refusal::Expired(920))
        );
        assert_eq!(
            token.verify(&[SECRET], at - 1000, 60, REQUEST_A),
            Err(Refusal::Future(900))
        );
        assert!(matches!(
            token.verify(&[SECRET], at, 0, REQUEST_B),
            Err(Refusal::QueryStringHash(_))
        ));
        let unsigned = sign(&Signer::Unsigned, None, &claims("a", at, 180, "x")).expect("no key");
        assert_eq!(
            Unverified::parse(&unsigned)
                .expect("well formed")
                .verify(&[SECRET], at, 0, REQUEST_A),
            Err(Refusal::Algorithm("none".into()))
        );
        assert!(matches!(Unverified::parse("a.b"), Err(Refusal::Malformed)));
    }

    #[test]
    fn an_install_token_verifies_with_the_published_key() {
        let key = InstallKey::generate().expect("RSA");
        let token = sign(
            &Signer::Rs256(&key),
            Some(&key.id),
            &claims("tenant", 1, 180, "x"),
        )
        .expect("RSA signs");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let encoded: String = key
            .public_pem
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let public = signature::UnparsedPublicKey::new(
            &signature::RSA_PKCS1_2048_8192_SHA256,
            STANDARD.decode(encoded).expect("base64"),
        );
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        assert!(public.verify(signed.as_bytes(), &signature).is_ok());
        let jwk = key.jwk().expect("an RSA key");
        let number = |name: &str| {
            let text = jwk[name].as_str().expect("text");
            URL_SAFE_NO_PAD.decode(text).expect("base64url")
        };
        let components = signature::RsaPublicKeyComponents {
            n: number("n"),
            e: number("e"),
        };
        assert_eq!((components.n.len(), &components.e), (256, &vec![1, 0, 1]));
        let verified = components.verify(
            &signature::RSA_PKCS1_2048_8192_SHA256,
            signed.as_bytes(),
            &signature,
        );
        assert!(verified.is_ok());
    }
}
