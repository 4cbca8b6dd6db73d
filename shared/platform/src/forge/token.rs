//! The tokens of Forge: the one that proves who invokes us, and the one with which we call back (PROTOCOL 7.5).

use jsonwebtoken::Algorithm;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use super::keys::PublicKey;
use crate::event::is_identity;
use crate::hosts::Hosts;
use crate::keys::KeyId;
use crate::token::{
    Moment, Refusal, audiences, check_times, pin, required_text, seconds, signed_claims, unverified,
};

/// Who issues invocation tokens (PROTOCOL 7.5).
const ISSUER: &str = "forge/invocation-token";

/// What the ARI of every installation begins with (PROTOCOL 7.5).
const INSTALLATION: &str = "ari:cloud:ecosystem::installation/";

/// What the ARI of every site begins with, up to the product's name (PROTOCOL 7.3).
const SITE: &str = "ari:cloud:";

/// Most contexts of an installation that are looked at; an app is installed in a handful of products.
const CONTEXTS_MAX: usize = 32;

/// An `exp` from here on is in milliseconds, or nonsense: as seconds it lies in the year 5138.
const SECONDS_END: i64 = 100_000_000_000;

/// The token of a request: `Authorization: Bearer …` (PROTOCOL 7.4).
pub fn find(authorization: Option<&str>) -> Result<&str, Refusal> {
    authorization
        .and_then(|value| value.trim().split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or(Refusal::Missing)
}

/// The id of the key that an invocation token says it is signed with, once its algorithm is the one pinned.
pub fn key_id(token: &str) -> Result<KeyId, Refusal> {
    pin(token, Algorithm::RS256, "RS256")?
        .key_id
        .as_deref()
        .and_then(KeyId::parse)
        .ok_or(Refusal::KeyId)
}

/// The installation of our app on a site: the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstallationId(String);

impl InstallationId {
    /// Takes an ARI `ari:cloud:ecosystem::installation/<id>` whose id is fit to be a key ([`is_identity`]); anything else is no installation.
    pub fn parse(ari: &str) -> Option<Self> {
        ari.strip_prefix(INSTALLATION)
            .filter(|id| is_identity(id))
            .map(|id| Self(id.to_owned()))
    }

    /// The id alone, the last segment of the ARI: fit to be a key.
    pub fn key(&self) -> &str {
        &self.0
    }

    /// The whole ARI, as the platform has it.
    pub fn ari(&self) -> String {
        format!("{INSTALLATION}{}", self.0)
    }
}

/// What an invocation token must agree with. Both come from our own configuration, never from a token.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The ARI of our app, `ari:cloud:ecosystem::app/<id>`.
    pub app: &'a str,
    /// Where the products may be called.
    pub hosts: &'a Hosts,
}

/// What a verified invocation token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The tenant.
    pub installation: InstallationId,
    /// Where the product's REST API is called; admitted by the list of hosts. Absent when the token names none.
    pub api_base_url: Option<Url>,
    /// `PRODUCTION`, `STAGING` or `DEVELOPMENT`.
    pub environment: Option<String>,
    /// The app's version.
    pub app_version: Option<String>,
    /// The site's id.
    pub cloud_id: Option<String>,
}

/// Verifies an invocation token: signed by the platform with `key`, for our app, good at this moment.
///
/// `key` is the one that [`key_id`] names.
pub fn verify(
    token: &str,
    key: &PublicKey,
    expected: Expected<'_>,
    moment: Moment,
) -> Result<Invocation, Refusal> {
    if key_id(token)? != *key.id() {
        return Err(Refusal::KeyId);
    }
    let claims =
        signed_claims(token, Algorithm::RS256, key.decoding()).ok_or(Refusal::Signature)?;
    if required_text(&claims, "iss")? != ISSUER {
        return Err(Refusal::Issuer);
    }
    check_times(&claims, moment)?;
    if expected.app.is_empty() || !audiences(&claims).contains(&expected.app) {
        return Err(Refusal::Audience);
    }
    let app = claims
        .get("app")
        .and_then(Value::as_object)
        .ok_or(Refusal::MissingClaim { claim: "app" })?;
    if app
        .get("id")
        .is_some_and(|id| !id.is_null() && id.as_str() != Some(expected.app))
    {
        return Err(Refusal::InvalidClaim { claim: "app.id" });
    }
    let context = claims.get("context").unwrap_or(&Value::Null);
    let cloud_id = cloud_id(context);
    let (api_base_url, its_cloud_id) = api_base_url(app, cloud_id.as_deref(), expected.hosts)?;
    Ok(Invocation {
        installation: installation(app)?,
        api_base_url,
        environment: app
            .get("environment")
            .and_then(|environment| environment.get("type"))
            .and_then(word),
        app_version: app.get("version").and_then(word),
        cloud_id: cloud_id.or(its_cloud_id),
    })
}

/// When a system token ends, in seconds since the Unix epoch.
///
/// We have no key that would verify it, and need none: whoever brought it is proven by the invocation token beside it, and the platform
/// judges it when we call. What is read here only tells which token is the newest.
pub fn system_token_expiry(token: &SecretString) -> Result<i64, Refusal> {
    let claims = unverified::claims(token.expose_secret())?;
    let expires = seconds(&claims, "exp")?.ok_or(Refusal::MissingClaim { claim: "exp" })?;
    if (1..SECONDS_END).contains(&expires) {
        Ok(expires)
    } else {
        Err(Refusal::InvalidClaim { claim: "exp" })
    }
}

/// `app.installationId`, else the id of the newer form; where both are there they are the same.
fn installation(app: &Map<String, Value>) -> Result<InstallationId, Refusal> {
    const CLAIM: &str = "app.installationId";
    let newer = app
        .get("installation")
        .and_then(|installation| installation.get("id"));
    let mut found = None;
    for given in [app.get("installationId"), newer]
        .into_iter()
        .flatten()
        .filter(|given| !given.is_null())
    {
        let id = given
            .as_str()
            .and_then(InstallationId::parse)
            .ok_or(Refusal::InvalidClaim { claim: CLAIM })?;
        if found.as_ref().is_some_and(|found| *found != id) {
            return Err(Refusal::InvalidClaim { claim: CLAIM });
        }
        found = Some(id);
    }
    found.ok_or(Refusal::MissingClaim { claim: CLAIM })
}

/// `app.apiBaseUrl`, else the one of the newer form's contexts that belongs to the site, and to which site it belongs.
///
/// Of several contexts those that the list of hosts doesn't admit are passed over: an app may be installed in products that we never call. Of those that are left Jira's comes
/// first, the only product whose own API we call.
fn api_base_url(
    app: &Map<String, Value>,
    cloud_id: Option<&str>,
    hosts: &Hosts,
) -> Result<(Option<Url>, Option<String>), Refusal> {
    if let Some(given) = app.get("apiBaseUrl").filter(|given| !given.is_null()) {
        let url = given.as_str().ok_or(Refusal::InvalidClaim {
            claim: "app.apiBaseUrl",
        })?;
        return Ok((Some(hosts.admit_base(url)?), None));
    }
    let contexts = app
        .get("installation")
        .and_then(|installation| installation.get("contexts"))
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut admitted = Vec::new();
    let mut refused = None;
    for context in contexts.iter().take(CONTEXTS_MAX) {
        let Some(url) = context.get("apiBaseUrl").and_then(Value::as_str) else {
            continue;
        };
        match hosts.admit_base(url) {
            Ok(url) => {
                let is_jira = context.get("name").and_then(Value::as_str) == Some("jira");
                admitted.push((url, context.get("cloudId").and_then(word), is_jira));
            }
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    let best = admitted.into_iter().rev().max_by_key(|(_, its, is_jira)| {
        (cloud_id.is_some() && its.as_deref() == cloud_id, *is_jira)
    });
    match (best, refused) {
        (Some((url, its, _)), _) => Ok((Some(url), its)),
        (None, Some(reason)) => Err(reason.into()),
        (None, None) => Ok((None, None)),
    }
}

/// The site's id: a field of the context, or the last segment of a context that is an ARI (PROTOCOL 7.3).
fn cloud_id(context: &Value) -> Option<String> {
    match context {
        Value::String(ari) => {
            let (kind, id) = ari.strip_prefix(SITE)?.split_once('/')?;
            (kind.ends_with(":site") && is_identity(id)).then(|| id.to_owned())
        }
        context => context.get("cloudId").and_then(word),
    }
}

/// A text or number that is as plain as an identity; nothing else is worth keeping.
fn word(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    is_identity(&text).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::forge::signer::{private_key, public_key, signed};
    use crate::hosts::Refused;
    use crate::stub::key_pair;

    const NOW: i64 = 1_800_000_000;
    const APP: &str = "ari:cloud:ecosystem::app/0c8f1d3e-0000-4000-8000-000000000001";
    const TENANT: &str = "ari:cloud:ecosystem::installation/5d1f9a60-2c1f-4f0a-9a51-0d5d3a4b0001";

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "aud": APP, "iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 60, "jti": "j",
            "app": {
                "id": APP, "installationId": TENANT, "version": "2.14.0",
                "apiBaseUrl": "https://api.atlassian.com/ex/confluence/site-1",
                "environment": {"type": "PRODUCTION", "id": "e"},
                "module": {"type": "core:trigger", "key": "k"}
            },
            "context": {"cloudId": "site-1", "siteUrl": "https://example-site.atlassian.net"}
        })
    }

    /// The claims with one of them, named by its path, replaced; null takes it away.
    fn with(path: &str, value: Value) -> Value {
        let mut claims = claims();
        let (parent, name) = path.rsplit_once('/').unwrap();
        let object = claims.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.to_owned(), value);
        }
        claims
    }

    fn hosts() -> Hosts {
        Hosts::parse(["api.atlassian.com"]).unwrap()
    }

    fn verified(token: &str) -> Result<Invocation, Refusal> {
        let expected = Expected {
            app: APP,
            hosts: &hosts(),
        };
        let moment = Moment {
            now_seconds: NOW,
            leeway: Duration::from_secs(30),
        };
        verify(token, public_key(), expected, moment)
    }

    #[test]
    fn a_token_of_the_platform_says_which_installation_invokes_us() {
        let invocation = verified(&signed(&claims())).unwrap();
        assert_eq!(invocation.installation.ari(), TENANT);
        assert_eq!(
            invocation.installation.key(),
            "5d1f9a60-2c1f-4f0a-9a51-0d5d3a4b0001"
        );
        assert_eq!(
            invocation.api_base_url.unwrap().as_str(),
            "https://api.atlassian.com/ex/confluence/site-1"
        );
        assert_eq!(invocation.environment.as_deref(), Some("PRODUCTION"));
        assert_eq!(invocation.app_version.as_deref(), Some("2.14.0"));
        assert_eq!(invocation.cloud_id.as_deref(), Some("site-1"));
    }

    #[test]
    fn another_algorithm_is_refused_before_anything_else_counts() {
        let refusal = Refusal::Algorithm { expected: "RS256" };
        let (_, public) = key_pair();
        let header = Header {
            kid: Some("key-1".into()),
            ..Header::new(Algorithm::HS256)
        };
        let confused =
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(verified(&confused), Err(refusal.clone()));
        for algorithm in ["none", "rs256", "RS512", "PS256"] {
            let header =
                URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "kid": "key-1"}).to_string());
            let token = format!("{header}.{}.", URL_SAFE_NO_PAD.encode("{}"));
            assert_eq!(verified(&token), Err(refusal.clone()), "{algorithm}");
        }
    }

    #[test]
    fn the_key_is_named_and_is_the_one_that_signed() {
        let sign = |kid: Option<&str>, key: &EncodingKey| {
            let header = Header {
                kid: kid.map(str::to_owned),
                ..Header::new(Algorithm::RS256)
            };
            jsonwebtoken::encode(&header, &claims(), key).unwrap()
        };
        let right = private_key();
        for kid in [None, Some(""), Some("../key"), Some("key-2")] {
            assert_eq!(verified(&sign(kid, right)), Err(Refusal::KeyId), "{kid:?}");
        }
        assert_eq!(
            verified(&sign(Some("key-1"), &key_pair().0)),
            Err(Refusal::Signature)
        );
        assert_eq!(
            key_id(&sign(Some("key-2"), right)).unwrap().to_string(),
            "key-2"
        );
    }

    #[test]
    fn a_token_of_another_issuer_for_another_app_or_another_time_is_refused() {
        for (path, value, refusal) in [
            ("/iss", json!("forge/other"), Refusal::Issuer),
            ("/iss", json!(null), Refusal::MissingClaim { claim: "iss" }),
            ("/aud", json!(null), Refusal::Audience),
            ("/aud", json!(format!("{APP}1")), Refusal::Audience),
            ("/aud", json!([]), Refusal::Audience),
            ("/exp", json!(null), Refusal::MissingClaim { claim: "exp" }),
            ("/exp", json!(NOW - 31), Refusal::Expired { seconds: 31 }),
            (
                "/iat",
                json!(NOW + 31),
                Refusal::IssuedInFuture { seconds: 31 },
            ),
            (
                "/nbf",
                json!(NOW + 31),
                Refusal::IssuedInFuture { seconds: 31 },
            ),
            ("/app", json!(null), Refusal::MissingClaim { claim: "app" }),
            (
                "/app/id",
                json!("ari:cloud:ecosystem::app/other"),
                Refusal::InvalidClaim { claim: "app.id" },
            ),
        ] {
            assert_eq!(
                verified(&signed(&with(path, value.clone()))),
                Err(refusal),
                "{path} {value}"
            );
        }
        for (path, value) in [
            ("/aud", json!(["other", APP])),
            ("/exp", json!(NOW - 30)),
            ("/iat", json!(null)),
            ("/nbf", json!(null)),
            ("/app/id", json!(null)),
        ] {
            assert!(verified(&signed(&with(path, value))).is_ok(), "{path}");
        }
    }

    #[test]
    fn no_app_in_the_configuration_fits_no_token() {
        let expected = Expected {
            app: "",
            hosts: &hosts(),
        };
        let moment = Moment {
            now_seconds: NOW,
            leeway: Duration::ZERO,
        };
        let token = signed(&with("/aud", json!("")));
        assert_eq!(
            verify(&token, public_key(), expected, moment),
            Err(Refusal::Audience)
        );
    }

    #[test]
    fn an_installation_that_can_be_no_key_is_refused() {
        let invalid = Refusal::InvalidClaim {
            claim: "app.installationId",
        };
        for id in [
            json!("5d1f9a60"),
            json!(INSTALLATION),
            json!(format!("{INSTALLATION}a/b")),
            json!(format!("{INSTALLATION}..")),
            json!("ari:cloud:ecosystem::app/x"),
            json!(5),
        ] {
            assert_eq!(
                verified(&signed(&with("/app/installationId", id))),
                Err(invalid.clone())
            );
        }
        assert_eq!(
            verified(&signed(&with("/app/installationId", json!(null)))),
            Err(Refusal::MissingClaim {
                claim: "app.installationId"
            })
        );
        let another = json!({"id": format!("{INSTALLATION}another")});
        assert_eq!(
            verified(&signed(&with("/app/installation", another))),
            Err(invalid)
        );
    }

    #[test]
    fn the_newer_form_of_an_installation_is_read_too() {
        let mut claims = with("/app/apiBaseUrl", json!(null));
        claims["app"]
            .as_object_mut()
            .unwrap()
            .remove("installationId");
        claims["app"]["installation"] = json!({"id": TENANT, "contexts": [
            {"name": "bitbucket", "apiBaseUrl": "https://bitbucket.example.com/x", "cloudId": "site-1"},
            {"name": "jira", "apiBaseUrl": "https://api.atlassian.com/ex/jira/site-0", "cloudId": "site-0"},
            {"name": "confluence", "apiBaseUrl": "https://api.atlassian.com/ex/confluence/site-1", "cloudId": "site-1"},
            5
        ]});
        let url = |claims: &Value| {
            let invocation = verified(&signed(claims)).unwrap();
            let url = invocation.api_base_url.map(String::from);
            (url.unwrap_or_default(), invocation.cloud_id)
        };
        let of = |product: &str, site: &str| {
            (
                format!("https://api.atlassian.com/ex/{product}/{site}"),
                Some(site.to_owned()),
            )
        };
        assert_eq!(url(&claims), of("confluence", "site-1"));
        claims["context"] = json!("ari:cloud:confluence::site/site-1");
        assert_eq!(url(&claims), of("confluence", "site-1"));
        claims["context"] = json!("ari:cloud:jira::project/5");
        assert_eq!(url(&claims), of("jira", "site-0"));
        claims["app"]["installation"]["contexts"] = json!([
            {"name": "confluence", "apiBaseUrl": "https://api.atlassian.com/ex/confluence/site-1", "cloudId": "site-1"},
            {"name": "jira", "apiBaseUrl": "https://api.atlassian.com/ex/jira/site-1", "cloudId": "site-1"},
        ]);
        assert_eq!(url(&claims), of("jira", "site-1"));
        claims["app"]["installation"]["contexts"] = json!([]);
        assert_eq!(url(&claims), (String::new(), None));
    }

    #[test]
    fn a_base_url_that_we_do_not_call_is_refused() {
        for (url, reason) in [
            ("http://api.atlassian.com/ex/jira/1", Refused::Scheme),
            (
                "https://evil.example.com/ex/jira/1",
                Refused::Host {
                    host: "evil.example.com".into(),
                },
            ),
            ("https://api.atlassian.com/ex?x", Refused::NotABase),
            ("/ex/jira", Refused::NotAUrl),
        ] {
            let refusal = Refusal::BaseUrl(reason);
            assert_eq!(
                verified(&signed(&with("/app/apiBaseUrl", json!(url)))),
                Err(refusal.clone())
            );
            let mut newer = with("/app/apiBaseUrl", json!(null));
            newer["app"]["installation"] = json!({"contexts": [{"apiBaseUrl": url}]});
            assert_eq!(verified(&signed(&newer)), Err(refusal));
        }
    }

    #[test]
    fn the_token_is_a_bearers() {
        assert_eq!(find(Some("Bearer abc")), Ok("abc"));
        assert_eq!(find(Some(" bearer  abc ")), Ok("abc"));
        for header in [None, Some("Bearer"), Some("Bearer "), Some("JWT abc")] {
            assert_eq!(find(header), Err(Refusal::Missing));
        }
    }

    #[test]
    fn a_refusals_text_holds_no_token() {
        for token in ["x.y.z", &signed(&with("/exp", json!(null)))] {
            let refusal = verified(token).unwrap_err();
            assert!(!format!("{refusal:?} {refusal}").contains("eyJ"));
        }
    }

    #[test]
    fn the_end_of_a_system_token_is_read_and_nothing_else_is_one() {
        let token = |claims: &str| {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
            SecretString::from(format!("{header}.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
        };
        assert_eq!(
            system_token_expiry(&token(r#"{"exp":1800000060}"#)),
            Ok(1_800_000_060)
        );
        assert_eq!(
            system_token_expiry(&token(r#"{"exp":1.8e9}"#)),
            Ok(1_800_000_000)
        );
        for (text, claim) in [
            ("{}", "exp"),
            (r#"{"exp":"soon"}"#, "exp"),
            (r#"{"exp":0}"#, "exp"),
            (r#"{"exp":-1}"#, "exp"),
            (r#"{"exp":1800000060000}"#, "exp"),
            ("[]", "token"),
        ] {
            assert_eq!(
                system_token_expiry(&token(text)).unwrap_err().claim(),
                claim
            );
        }
        for text in ["", "opaque", "a.b.c"] {
            let token = SecretString::from(text);
            assert_eq!(system_token_expiry(&token), Err(Refusal::Malformed));
        }
    }
}
