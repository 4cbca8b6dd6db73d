use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use landfall_platform::forge::keys::{KeySetServer, Keys};
use landfall_platform::forge::token::{self, Expected, system_token_expiry};
use landfall_platform::hosts::Hosts;
use landfall_platform::keys::KeyError;
use landfall_platform::token::Refusal;
use landfall_runtime::Clock;
use landfall_tracking::SystemToken;
use landfall_transfer::clocks::own::FORGE_HEARD_EVERY;
use landfall_transfer::clocks::platform::FORGE_TOKEN_LIFE;
use landfall_transfer::{TenantId, Timestamp};
use secrecy::SecretString;

use crate::answer::Answer;
use crate::authentication::{KEY_WITHIN, Sender, refused};
use crate::intake::{Call, Intake};

/// Most installations whose last token is remembered, each some hundred bytes.
const REMEMBERED_MAX: usize = 1_000;

/// The app on Forge.
#[derive(Debug)]
pub(crate) struct Forge {
    app: String,
    api_hosts: Hosts,
    keys: Keys,
    kept: Kept,
}

impl Forge {
    pub(crate) fn new(configuration: &landfall_runtime::Forge, clock: Clock) -> Self {
        Self {
            app: configuration.app.clone(),
            api_hosts: configuration.api_hosts.clone(),
            keys: Keys::new(configuration.key_set.clone(), clock),
            kept: Kept::default(),
        }
    }

    /// Fetches the keys of invocation tokens from this server.
    pub(crate) fn trust(&mut self, server: Arc<dyn KeySetServer>, clock: Clock) {
        self.keys = Keys::of(server, clock);
    }
}

impl Intake {
    /// A migration event: 200 once it is durable, whatever becomes of the token that came with it.
    pub(crate) async fn forge_event(&self, forge: &Forge, call: Call<'_>) -> Answer {
        let (sender, product_api) = match self.invoker(forge, call).await {
            Ok(invoker) => invoker,
            Err(answer) => return answer,
        };
        let keep = async {
            if let Some(token) = &call.request.system_token {
                let longest = self.clocks.write_within;
                self.keep_token(forge, call, &sender.tenant, token, product_api, longest)
                    .await
                    // It is logged, and the next call brings another one.
                    .ok();
            }
        };
        let (answer, ()) = tokio::join!(self.event(call, &sender), Box::pin(keep));
        answer
    }

    /// The scheduled trigger: 200 once the token is kept that it was set up to bring.
    pub(crate) async fn forge_token(&self, forge: &Forge, call: Call<'_>) -> Answer {
        let (sender, product_api) = match self.invoker(forge, call).await {
            Ok(invoker) => invoker,
            Err(answer) => return answer,
        };
        let Some(token) = &call.request.system_token else {
            tracing::error!(tenant.id = %sender.tenant, metric = "token_missing", "a call that is to bring an installation's token brought none; see appSystemToken in the manifest");
            return Answer::of(422, "the call has no x-forge-oauth-system");
        };
        let longest = Duration::MAX;
        self.keep_token(forge, call, &sender.tenant, token, product_api, longest)
            .await
            .map_or_else(|answer| answer, |()| Answer::ok())
    }

    /// The installation that invokes us, proven, and where the product's API is called for it (PROTOCOL 7.5).
    async fn invoker(
        &self,
        forge: &Forge,
        call: Call<'_>,
    ) -> Result<(Sender, Option<String>), Answer> {
        let refuse = |refusal: Refusal| refused(&refusal, None, &[]);
        let token = token::find(call.request.authorization.as_deref()).map_err(refuse)?;
        let key_id = token::key_id(token).map_err(refuse)?;
        let timeout = call.deadline.left(KEY_WITHIN);
        let key = match forge
            .keys
            .key(&key_id, call.now.as_seconds(), timeout)
            .await
        {
            Ok(key) => key,
            Err(KeyError::NotFound) => return Err(refuse(Refusal::KeyId)),
            Err(error @ KeyError::Unavailable { .. }) => {
                tracing::error!(error = %error, metric = "forge_keys_unavailable", "could not fetch the keys of invocation tokens");
                return Err(Answer::unavailable());
            }
        };
        let expected = Expected {
            app: &forge.app,
            hosts: &forge.api_hosts,
        };
        let invocation =
            token::verify(token, &key, expected, self.moment(call.now)).map_err(refuse)?;
        let sender = Sender {
            tenant: TenantId::new(invocation.installation.ari()),
            reading: None,
        };
        Ok((sender, invocation.api_base_url.map(String::from)))
    }

    /// Keeps a token that came with a proven call, and what the call says beside it, unless all that is known. A failure is logged; the answer is for who called for
    /// nothing else.
    async fn keep_token(
        &self,
        forge: &Forge,
        call: Call<'_>,
        tenant: &TenantId,
        token: &SecretString,
        product_api: Option<String>,
        longest: Duration,
    ) -> Result<(), Answer> {
        let good_until = match system_token_expiry(token) {
            // One that says it lives longer than any does would stand before all that come after it.
            Ok(seconds) => Timestamp::from_millis(seconds * 1_000).min(call.now + FORGE_TOKEN_LIFE),
            Err(refusal) => {
                tracing::error!(tenant.id = %tenant, auth.claim = refusal.claim(), error = %refusal, metric = "token_rejected", "an installation's token can't be read");
                return Err(Answer::of(422, "x-forge-oauth-system can't be read"));
            }
        };
        let token = SystemToken {
            token: token.clone(),
            good_until,
            heard_at: Some(call.now),
            product_api,
        };
        if forge.kept.has(tenant, &token) {
            return Ok(());
        }
        let keep = self.store.keep_token(tenant, &token);
        match call.deadline.within(longest, keep).await {
            Ok(is_newest) => {
                forge.kept.remember(tenant, &token);
                if is_newest {
                    tracing::info!(tenant.id = %tenant, token.good_until = good_until.as_seconds(), metric = "token_kept", "kept an installation's token");
                }
                Ok(())
            }
            Err(failure) => {
                tracing::error!(tenant.id = %tenant, error = %failure, metric = "token_not_kept", "could not keep an installation's token");
                Err(Answer::unavailable())
            }
        }
    }
}

/// What the table is known to have of installations' tokens, so that not every event reads it for nothing.
#[derive(Debug, Default)]
struct Kept(Mutex<HashMap<TenantId, Remembered>>);

/// What the last call said that was taken to the table.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    good_until: Timestamp,
    heard_at: Option<Timestamp>,
    names_product_api: bool,
}

impl Kept {
    /// Whether the table has all that a call says: a token that is good for as long, where the product's API is, and that the installation was heard a little while ago.
    fn has(&self, tenant: &TenantId, token: &SystemToken) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(tenant).is_some_and(|known| {
            known.good_until >= token.good_until
                && (known.names_product_api || token.product_api.is_none())
                && token.heard_at < known.heard_at.map(|at| at + FORGE_HEARD_EVERY)
        })
    }

    fn remember(&self, tenant: &TenantId, token: &SystemToken) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= REMEMBERED_MAX && !kept.contains_key(tenant) {
            let first_to_end = kept
                .iter()
                .min_by_key(|(_, known)| known.good_until)
                .map(|(tenant, _)| tenant.clone());
            first_to_end.map(|tenant| kept.remove(&tenant));
        }
        let remembered = Remembered {
            good_until: token.good_until,
            heard_at: token.heard_at,
            names_product_api: token.product_api.is_some(),
        };
        kept.insert(tenant.clone(), remembered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: usize) -> TenantId {
        TenantId::new(format!("tenant-{number}"))
    }

    fn at(seconds: usize) -> Timestamp {
        Timestamp::from_millis(i64::try_from(seconds).unwrap() * 1_000)
    }

    fn good_until(seconds: usize) -> SystemToken {
        SystemToken {
            token: "token".into(),
            good_until: at(seconds),
            heard_at: Some(at(0)),
            product_api: None,
        }
    }

    #[test]
    fn what_is_remembered_of_tokens_is_bounded_and_forgets_what_ends_first() {
        let kept = Kept::default();
        for number in 0..=REMEMBERED_MAX {
            kept.remember(&tenant(number), &good_until(number));
        }
        assert_eq!(kept.0.lock().unwrap().len(), REMEMBERED_MAX);
        assert!(!kept.has(&tenant(0), &good_until(0)));
        assert!(kept.has(&tenant(1), &good_until(1)) && kept.has(&tenant(1), &good_until(0)));
        assert!(
            !kept.has(&tenant(1), &good_until(2)),
            "another one is newer"
        );
    }

    #[test]
    fn a_call_that_says_more_than_its_token_goes_to_the_table() {
        let (kept, tenant) = (Kept::default(), tenant(0));
        let plain = good_until(60);
        let naming = SystemToken {
            product_api: Some("https://api.atlassian.com/ex/jira/site-1".into()),
            ..plain.clone()
        };
        kept.remember(&tenant, &plain);
        assert!(kept.has(&tenant, &plain) && !kept.has(&tenant, &naming));
        kept.remember(&tenant, &naming);
        assert!(kept.has(&tenant, &plain) && kept.has(&tenant, &naming));
        let heard = |later: Duration| SystemToken {
            heard_at: Some(at(0) + later),
            ..plain.clone()
        };
        assert!(kept.has(&tenant, &heard(FORGE_HEARD_EVERY / 2)));
        assert!(!kept.has(&tenant, &heard(FORGE_HEARD_EVERY)));
    }
}
