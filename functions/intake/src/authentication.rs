use std::sync::Arc;
use std::time::Duration;

use landfall_platform::connect::qsh::{Candidate, Reading};
use landfall_platform::connect::token::{self, Refusal, unverified};
use landfall_platform::event::is_identity;
use landfall_tracking::Tenant;
use landfall_transfer::{Flavour, TenantId};

use crate::answer::Answer;
use crate::intake::{Call, Intake};

/// How long a key server is waited for: about a second, as PROTOCOL 14 has it, and one for the TLS handshake.
pub(crate) const KEY_WITHIN: Duration = Duration::from_secs(2);

/// Who sent an event, proven.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) tenant: TenantId,
    /// As what the request was signed; Forge's tokens are not bound to one.
    pub(crate) reading: Option<Reading>,
}

/// Why nobody is proven.
enum Doubt {
    /// The token doesn't hold.
    Refused(Refusal),
    /// The token names no tenant that has the app installed.
    NoTenant(&'static str),
}

impl Intake {
    /// Finds the tenant whom the token names and verifies the token with its secrets (PROTOCOL 4.2).
    pub(crate) async fn sender(&self, call: Call<'_>) -> Result<Sender, Answer> {
        let requests = self.candidates(call.request);
        let (token, claimed) = read(call, "HS256", &requests)?;
        let mut named = None;
        // By `iss`, else by the first audience (OPEN-QUESTIONS A4).
        for id in [claimed.issuer, claimed.audience]
            .into_iter()
            .flatten()
            .filter(|id| is_identity(id))
        {
            let id = TenantId::new(id);
            let found = self.tenants.find(&id, call.now, call.deadline).await.map_err(|failure| {
                tracing::error!(tenant.claimed = %id, error = %failure, metric = "tenant_unavailable", "could not read the tenant of a call");
                Answer::unavailable()
            })?;
            named = named.or(found.map(|found| (id, found)));
            if named.is_some() {
                break;
            }
        }
        let Some((id, found)) = named else {
            return Err(doubted(
                &Doubt::NoTenant("the token names no known tenant"),
                None,
                &requests,
            ));
        };
        let verify = |tenant: &Tenant| verify(token, &id, tenant, &requests, self, call);
        let mut proven = verify(&found.tenant);
        // The app may have been installed again, or another secret been set, since the row was read.
        if matches!(
            proven,
            Err(Doubt::Refused(Refusal::Signature) | Doubt::NoTenant(_))
        ) && !found.just_read
        {
            let again = self.tenants.read(&id, call.now, call.deadline).await.map_err(|failure| {
                tracing::error!(tenant.claimed = %id, error = %failure, metric = "tenant_unavailable", "could not read a tenant again whose secret does not fit");
                Answer::unavailable()
            })?;
            proven = match again.map(|again| Arc::clone(&again.tenant)) {
                Some(tenant) => verify(&tenant),
                None => Err(Doubt::NoTenant("the tenant is gone")),
            };
        }
        match proven {
            Ok(reading) => Ok(Sender {
                tenant: id,
                reading: Some(reading),
            }),
            Err(doubt) => Err(doubted(&doubt, Some(&id), &requests)),
        }
    }
}

/// The token of a Connect call and what it says of itself, if it can be one that is signed like this. Neither table nor key server has been asked.
pub(crate) fn read<'call>(
    call: Call<'call>,
    algorithm: &'static str,
    requests: &[Candidate],
) -> Result<(&'call str, unverified::Unverified), Answer> {
    let refuse = |refusal: Refusal| refused(&refusal, None, requests);
    let token =
        token::find(call.request.authorization.as_deref(), &call.request.query).map_err(refuse)?;
    let claimed = unverified::read(token).map_err(refuse)?;
    if claimed.algorithm != algorithm {
        return Err(refuse(Refusal::Algorithm {
            expected: algorithm,
        }));
    }
    // A tenant's id says its flavour, so no `clientKey` may say the other one.
    let issuer = claimed.issuer.as_deref().map(TenantId::new);
    if issuer.is_some_and(|issuer| issuer.flavour() == Flavour::Forge) {
        let doubt = Doubt::NoTenant("the token names an installation on Forge as its client key");
        return Err(doubted(&doubt, None, requests));
    }
    Ok((token, claimed))
}

fn verify(
    token: &str,
    id: &TenantId,
    tenant: &Tenant,
    requests: &[Candidate],
    intake: &Intake,
    call: Call<'_>,
) -> Result<Reading, Doubt> {
    if !tenant.installed {
        return Err(Doubt::NoTenant("the tenant has uninstalled the app"));
    }
    token::verify_webhook(
        token,
        id.as_str(),
        &tenant.secrets(call.now),
        requests,
        intake.moment(call.now),
    )
    .map(|verified| verified.reading)
    .map_err(Doubt::Refused)
}

fn doubted(doubt: &Doubt, claimed: Option<&TenantId>, requests: &[Candidate]) -> Answer {
    match doubt {
        Doubt::Refused(refusal) => refused(refusal, claimed, requests),
        Doubt::NoTenant(reason) => {
            log_refused("iss", reason, claimed, None, requests);
            Answer::unauthorized()
        }
    }
}

/// Logs why a token is refused, and answers what tells nothing of it.
pub(crate) fn refused(
    refusal: &Refusal,
    claimed: Option<&TenantId>,
    requests: &[Candidate],
) -> Answer {
    let theirs = match refusal {
        Refusal::QueryHash { theirs, .. } => Some(theirs.as_str()),
        _ => None,
    };
    log_refused(
        refusal.claim(),
        &refusal.to_string(),
        claimed,
        theirs,
        requests,
    );
    Answer::unauthorized()
}

fn log_refused(
    claim: &str,
    reason: &str,
    claimed: Option<&TenantId>,
    theirs: Option<&str>,
    requests: &[Candidate],
) {
    let ours: Vec<&str> = requests
        .iter()
        .map(|request| request.canonical.as_str())
        .collect();
    tracing::warn!(
        auth.claim = claim,
        auth.reason = reason,
        // Unproven: who the token says it is from.
        tenant.claimed = claimed.map(TenantId::as_str),
        // The sender's canonical request is only known by its hash; ours are all that we tried.
        qsh.theirs = theirs,
        qsh.canonical = (!ours.is_empty()).then(|| ours.join(" | ")),
        metric = "call_unauthorized",
        "refused a call whose token does not hold"
    );
}
