use std::time::Duration;

use landfall_platform::connect::install_keys::{KeyError, KeyId};
use landfall_platform::connect::lifecycle::{Callback, CallbackError};
use landfall_platform::connect::token::{self, Lifecycle, Refusal};
use landfall_tracking::{Error, Installed};
use landfall_transfer::TenantId;

use crate::answer::Answer;
use crate::authentication::{KEY_WITHIN, read, refused};
use crate::deadline::Failure;
use crate::intake::{Call, Intake};

/// Times that a tenant's row is written when another write was faster. Two installations at once are rare, three unheard of.
const RACES_MAX: u32 = 3;

impl Intake {
    /// `installed`: stores the tenant and its secret.
    pub(crate) async fn installed(&self, call: Call<'_>) -> Answer {
        let callback = match self.callback(call, Callback::installed).await {
            Ok(callback) => callback,
            Err(answer) => return answer,
        };
        let (Some(secret), Some(base_url)) = (callback.shared_secret, callback.base_url) else {
            return Answer::of(422, "the callback has no secret or no base URL");
        };
        let tenant = TenantId::new(callback.client_key);
        let base_url = match self.tenant_hosts.admit_base(&base_url) {
            Ok(url) => url.as_str().trim_end_matches('/').to_owned(),
            Err(error) => {
                tracing::error!(tenant.id = %tenant, error = %error, metric = "install_refused", "refused an installation whose base URL is not admitted; see connect.tenant_hosts");
                return Answer::of(422, "baseUrl is not admitted");
            }
        };
        let installed = Installed {
            tenant: tenant.clone(),
            base_url,
            product: callback.product_type,
            secret,
        };
        let mut races = 0;
        let stored = loop {
            let install = self
                .store
                .install(&installed, self.clocks.secret_overlap, call.now);
            match call.deadline.within(Duration::MAX, install).await {
                // Another write was faster: the row is read anew, so that its secret is the one that overlaps.
                Err(Failure::Ended(Error::Conflict)) if races < RACES_MAX => races += 1,
                ended => break ended,
            }
        };
        self.tenants.forget(&tenant);
        stored.map_or_else(
            |failure| not_stored(&tenant, &failure),
            |()| {
                tracing::info!(tenant.id = %tenant, tenant.product = installed.product, metric = "installed", "stored an installation");
                Answer::ok()
            },
        )
    }

    /// `uninstalled`: from now on nothing of the tenant verifies.
    pub(crate) async fn uninstalled(&self, call: Call<'_>) -> Answer {
        let callback = match self.callback(call, Callback::uninstalled).await {
            Ok(callback) => callback,
            Err(answer) => return answer,
        };
        let tenant = TenantId::new(callback.client_key);
        let uninstall = self.store.uninstall(&tenant, call.now);
        let stored = call.deadline.within(Duration::MAX, uninstall).await;
        self.tenants.forget(&tenant);
        stored.map_or_else(
            |failure| not_stored(&tenant, &failure),
            |()| {
                tracing::info!(tenant.id = %tenant, metric = "uninstalled", "stored an uninstallation");
                Answer::ok()
            },
        )
    }

    /// The callback, once the platform is proven to have sent it for the tenant that it names (PROTOCOL 4.1).
    async fn callback(
        &self,
        call: Call<'_>,
        decode: fn(&[u8]) -> Result<Callback, CallbackError>,
    ) -> Result<Callback, Answer> {
        let requests = self.candidates(call.request);
        let refuse =
            |refusal: Refusal, tenant: Option<&TenantId>| refused(&refusal, tenant, &requests);
        let (token, claimed) = read(call, "RS256", &requests)?;
        let Some(key_id) = claimed.key_id.as_deref().and_then(KeyId::parse) else {
            return Err(refuse(Refusal::KeyId, None));
        };
        let too_large = call.request.body.len() > self.body_bytes;
        let decoded = if too_large {
            Err(CallbackError::NotJson)
        } else {
            decode(&call.request.body)
        };
        // A body that can't be read is said so to the platform only, so its token has to hold by what it says of itself.
        let client_key = match &decoded {
            Ok(callback) => callback.client_key.clone(),
            Err(_) => claimed.issuer.unwrap_or_default(),
        };
        let timeout = call.deadline.left(KEY_WITHIN);
        let public_key = match self
            .install_keys
            .key(&key_id, call.now.as_seconds(), timeout)
            .await
        {
            Ok(key) => key,
            Err(KeyError::NotFound) => return Err(refuse(Refusal::KeyId, None)),
            Err(error @ KeyError::Unavailable { .. }) => {
                tracing::error!(error = %error, metric = "install_keys_unavailable", "could not fetch the key of a lifecycle callback");
                return Err(Answer::unavailable());
            }
        };
        let expected = Lifecycle {
            client_key: &client_key,
            base_url: self.base_url.as_str(),
            public_key: &public_key,
        };
        let tenant = TenantId::new(client_key.as_str());
        token::verify_lifecycle(token, expected, &requests, self.moment(call.now))
            .map_err(|refusal| refuse(refusal, Some(&tenant)))?;
        if too_large {
            return Err(Answer::of(
                413,
                format!("the body is larger than {} bytes", self.body_bytes),
            ));
        }
        let callback = decoded.map_err(|error| {
            tracing::error!(tenant.id = %tenant, error = %error, metric = "callback_rejected", "rejected a lifecycle callback");
            let status = if error == CallbackError::NotJson { 400 } else { 422 };
            Answer::of(status, error.to_string())
        })?;
        if callback
            .app_key
            .as_ref()
            .is_some_and(|key| *key != self.app_key)
        {
            tracing::error!(tenant.id = %tenant, metric = "callback_rejected", "rejected a lifecycle callback of another app; see app.key");
            return Err(Answer::of(422, "the callback is for another app"));
        }
        Ok(callback)
    }
}

fn not_stored(tenant: &TenantId, failure: &Failure) -> Answer {
    tracing::error!(tenant.id = %tenant, error = %failure, metric = "callback_not_stored", "could not store a lifecycle callback");
    Answer::unavailable()
}
