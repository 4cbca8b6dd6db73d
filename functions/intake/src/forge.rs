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
        let sender = match self.invoker(forge, call).await {
            Ok(sender) => sender,
            Err(answer) => return answer,
        };
        let keep = async {
            if let Some(token) = &call.request.system_token {
                let longest = self.clocks.write_within;
                self.keep_token(forge, call, &sender.tenant, token, longest)
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
        let sender = match self.invoker(forge, call).await {
            Ok(sender) => sender,
            Err(answer) => return answer,
        };
        let Some(token) = &call.request.system_token else {
            tracing::error!(tenant.id = %sender.tenant, metric = "token_missing", "a call that is to bring an installation's token brought none; see appSystemToken in the manifest");
            return Answer::of(422, "the call has no x-forge-oauth-system");
        };
        self.keep_token(forge, call, &sender.tenant, token, Duration::MAX)
            .await
            .map_or_else(|answer| answer, |()| Answer::ok())
    }

    /// The installation that invokes us, proven (PROTOCOL 7.5).
    async fn invoker(&self, forge: &Forge, call: Call<'_>) -> Result<Sender, Answer> {
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
        Ok(Sender {
            tenant: TenantId::new(invocation.installation.ari()),
            reading: None,
        })
    }

    /// Keeps a token that came with a proven call, unless one is known that is good for as long. A failure is logged; the answer is for
    /// who called for nothing else.
    async fn keep_token(
        &self,
        forge: &Forge,
        call: Call<'_>,
        tenant: &TenantId,
        token: &SecretString,
        longest: Duration,
    ) -> Result<(), Answer> {
        let good_until = match system_token_expiry(token) {
            Ok(seconds) => Timestamp::from_millis(seconds * 1_000),
            Err(refusal) => {
                tracing::error!(tenant.id = %tenant, auth.claim = refusal.claim(), error = %refusal, metric = "token_rejected", "an installation's token can't be read");
                return Err(Answer::of(422, "x-forge-oauth-system can't be read"));
            }
        };
        if forge.kept.has(tenant, good_until) {
            return Ok(());
        }
        let token = SystemToken {
            token: token.clone(),
            good_until,
        };
        let keep = self.store.keep_token(tenant, &token);
        match call.deadline.within(longest, keep).await {
            Ok(is_newest) => {
                forge.kept.remember(tenant, good_until);
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

/// Until when the tokens are good that the table is known to have, so that not every event reads it for nothing.
#[derive(Debug, Default)]
struct Kept(Mutex<HashMap<TenantId, Timestamp>>);

impl Kept {
    /// Whether the table has a token that is good for as long.
    fn has(&self, tenant: &TenantId, good_until: Timestamp) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(tenant).is_some_and(|known| *known >= good_until)
    }

    fn remember(&self, tenant: &TenantId, good_until: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= REMEMBERED_MAX && !kept.contains_key(tenant) {
            let first_to_end = kept
                .iter()
                .min_by_key(|(_, good_until)| **good_until)
                .map(|(tenant, _)| tenant.clone());
            first_to_end.map(|tenant| kept.remove(&tenant));
        }
        kept.insert(tenant.clone(), good_until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_tokens_is_bounded_and_forgets_what_ends_first() {
        let kept = Kept::default();
        let tenant = |number: usize| TenantId::new(format!("tenant-{number}"));
        let until = |number: usize| Timestamp::from_millis(i64::try_from(number).unwrap());
        for number in 0..=REMEMBERED_MAX {
            kept.remember(&tenant(number), until(number));
        }
        assert_eq!(kept.0.lock().unwrap().len(), REMEMBERED_MAX);
        assert!(!kept.has(&tenant(0), until(0)));
        assert!(kept.has(&tenant(1), until(1)) && kept.has(&tenant(1), until(0)));
        assert!(!kept.has(&tenant(1), until(2)), "another one is newer");
    }
}
