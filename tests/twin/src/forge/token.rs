//! The two tokens of Forge: the invocation token (FIT) that proves where an invocation comes from, and the system token that the
//! app calls back with.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::wall_ms;
use crate::forge::Installation;
use crate::forge::switches::FitClaims;
use crate::outbound::{Algorithm, SignedRequest};
use crate::platform::Platform;
use crate::seed::{hash, uuid};
use crate::shared::Shared;
use crate::switches::{Switches, TokenClock};
use crate::token::{InstallKey, Signer, Unverified, sign};

/// PROTOCOL 7.5.
const ISSUER: &str = "forge/invocation-token";
/// Whom a system token is for.
const SYSTEM_AUDIENCE: &str = "api.atlassian.com";
const APP_VERSION: &str = "3.1.0";

/// The module of the app's manifest that is invoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    Trigger,
    ScheduledTrigger,
}

impl Module {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Trigger => ("trigger", "migration-trigger"),
            Self::ScheduledTrigger => ("scheduledTrigger", "token-refresh"),
        }
    }
}

/// Whose key signs an invocation token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SignedBy {
    #[default]
    Current,
    /// A key that the key set does not have; the header names the current one.
    Unpublished,
}

/// How an invocation token shall differ from a good one.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FitWish {
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) signed_by: SignedBy,
    pub(crate) key_id: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) issued_in_s: i64,
    pub(crate) not_before_in_s: Option<i64>,
    pub(crate) expires_in_s: Option<i64>,
    /// Merged over the claims, object by object; null removes one.
    pub(crate) claims: Map<String, Value>,
}

/// How a system token shall differ from a good one.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SystemWish {
    pub(crate) expires_in_s: Option<i64>,
    /// Signed by nobody whom the platform knows.
    pub(crate) unknown: bool,
}

/// One invocation: who is invoked, and which of all invocations it is.
pub(crate) struct Invocation<'a> {
    pub(crate) installation: &'a Installation,
    pub(crate) module: Module,
    /// Makes `jti` and the trace: the same words, the same ids.
    pub(crate) words: &'a [&'a str],
}

/// Epoch seconds on the clock that Forge's tokens live by.
pub(crate) fn now_s(platform: &Platform) -> i64 {
    match platform.switches.forge_token_clock {
        TokenClock::Wall => wall_ms() / 1000,
        TokenClock::Virtual => platform.clock.now_ms() / 1000,
    }
}

/// The claims of a good invocation token.
fn fit_claims(platform: &Platform, invocation: &Invocation<'_>) -> Map<String, Value> {
    let Switches {
        forge_fit_claims,
        forge_fit_life_s,
        ..
    } = platform.switches;
    let installation = invocation.installation;
    let (module_type, module_key) = invocation.module.names();
    let now_s = now_s(platform);
    let mut app = json!({
        "id": installation.app,
        "version": APP_VERSION,
        "environment": { "type": installation.environment, "id": installation.environment_id },
        "module": { "type": module_type, "key": module_key },
    });
    if forge_fit_claims != FitClaims::Contexts {
        app["installationId"] = installation.id.clone().into();
        app["apiBaseUrl"] = installation.api_base_url.clone().into();
    }
    if forge_fit_claims != FitClaims::InstallationId {
        app["installation"] = json!({
            "id": installation.id,
            "contexts": [{
                "name": installation.product.name(),
                "apiBaseUrl": installation.api_base_url,
                "cloudId": installation.cloud_id,
            }],
        });
    }
    let claims = json!({
        "iss": ISSUER,
        "aud": installation.app,
        "iat": now_s,
        "nbf": now_s,
        "exp": now_s + forge_fit_life_s,
        "jti": uuid(platform.seed, &[&["jti"], invocation.words].concat()),
        "app": app,
        "context": {
            "cloudId": installation.cloud_id,
            "siteUrl": installation.site_url,
            "moduleKey": module_key,
        },
    });
    match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    }
}

/// An invocation token and its claims. The error says which wish can't be had.
pub(crate) fn fit(
    shared: &Shared,
    platform: &Platform,
    invocation: &Invocation<'_>,
    wish: &FitWish,
) -> Result<(String, Map<String, Value>), String> {
    let mut claims = fit_claims(platform, invocation);
    let now_s = now_s(platform);
    let issued = now_s + wish.issued_in_s;
    claims.insert("iat".into(), issued.into());
    let not_before = wish.not_before_in_s.map_or(issued, |by| now_s + by);
    claims.insert("nbf".into(), not_before.into());
    if let Some(by) = wish.expires_in_s {
        claims.insert("exp".into(), (now_s + by).into());
    }
    for (name, value) in [("iss", &wish.issuer), ("aud", &wish.audience)] {
        match value.as_deref() {
            None => {}
            Some("") => {
                claims.remove(name);
            }
            Some(value) => {
                claims.insert(name.into(), value.into());
            }
        }
    }
    overlay(&mut claims, &wish.claims);
    let current = shared.forge_key().ok_or("there is no key")?;
    let key = match wish.signed_by {
        SignedBy::Current => std::sync::Arc::clone(&current),
        // The key server of lifecycle callbacks is another one.
        SignedBy::Unpublished => shared.install_key().ok_or("there is no key")?,
    };
    let signer = signer(wish.algorithm, &key);
    let key_id = match wish.key_id.as_deref() {
        None => Some(current.id.as_str()),
        Some("") => None,
        Some(other) => Some(other),
    };
    let token = sign(&signer, key_id, &claims).ok_or("the RSA key can't sign")?;
    Ok((token, claims))
}

/// Anything but RS256 is an attack.
fn signer(algorithm: Option<Algorithm>, key: &InstallKey) -> Signer<'_> {
    const GUESSED: &str = "a secret that somebody made up";

    match algorithm.unwrap_or(Algorithm::Rs256) {
        Algorithm::Rs256 => Signer::Rs256(key),
        Algorithm::Rs256WithSecret => Signer::Rs256WithSecret(GUESSED),
        Algorithm::Hs256 => Signer::Hs256(GUESSED),
        Algorithm::Hs512 => Signer::Hs512(GUESSED),
        Algorithm::Hs256WithPublicKey => Signer::Hs256(&key.public_pem),
        Algorithm::Unsigned => Signer::Unsigned,
    }
}

fn overlay(claims: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (name, value) in over {
        match (claims.get_mut(name), value) {
            (_, Value::Null) => {
                claims.remove(name);
            }
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            _ => {
                claims.insert(name.clone(), value.clone());
            }
        }
    }
}

/// A system token and when it expires, in epoch seconds. The app is to read nothing but `exp`.
pub(crate) fn system_token(
    shared: &Shared,
    platform: &Platform,
    installation: &Installation,
    wish: &SystemWish,
) -> (String, i64) {
    let now_s = now_s(platform);
    let life_s = platform.switches.forge_system_token_life_s;
    let expires_s = now_s + wish.expires_in_s.unwrap_or(life_s);
    let claims = json!({
        "aud": SYSTEM_AUDIENCE,
        "sub": installation.app,
        "installation": installation.id,
        "iat": now_s,
        "exp": expires_s,
    });
    let secret = if wish.unknown {
        "a secret that somebody made up"
    } else {
        &shared.system_token_secret
    };
    let claims = claims.as_object().cloned().unwrap_or_default();
    // An HMAC always signs.
    let token = sign(&Signer::Hs256(secret), None, &claims).unwrap_or_default();
    (token, expires_s)
}

/// The request that carries an invocation: PROTOCOL 7.4's headers.
pub(crate) fn invocation_request(
    shared: &Shared,
    platform: &Platform,
    invocation: &Invocation<'_>,
    url: &str,
    with_system_token: bool,
) -> Result<SignedRequest, String> {
    let (fit, _) = fit(shared, platform, invocation, &FitWish::default())?;
    let trace = hex::encode(hash(
        platform.seed,
        &[&["trace"], invocation.words].concat(),
    ));
    let mut headers = vec![
        ("x-b3-traceid", trace[..32].to_owned()),
        ("x-b3-spanid", trace[32..48].to_owned()),
    ];
    if with_system_token {
        let wish = SystemWish::default();
        let (token, _) = system_token(shared, platform, invocation.installation, &wish);
        headers.push(("x-forge-oauth-system", token));
    }
    Ok(SignedRequest {
        url: url.to_owned(),
        authorization: Some(format!("Bearer {fit}")),
        headers,
    })
}

/// The installation that a call's system token belongs to; the error is why there is none.
pub(crate) fn verified_system_token<'a>(
    shared: &Shared,
    platform: &'a Platform,
    token: &str,
) -> Result<&'a Installation, String> {
    let token = Unverified::parse(token).map_err(|refusal| refusal.to_string())?;
    if !token.signed_with(&shared.system_token_secret) {
        return Err("no system token: this platform did not sign it".into());
    }
    let expires = token.number("exp").map_err(|refusal| refusal.to_string())?;
    let late_s = now_s(platform) - expires;
    if late_s >= 0 {
        return Err(format!("the system token expired {late_s} s ago"));
    }
    let id = token
        .text("installation")
        .map_err(|refusal| refusal.to_string())?;
    platform
        .forge_tenant(id)
        .ok_or_else(|| "the app was uninstalled since the token was made".into())
}
