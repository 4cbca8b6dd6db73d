mod api;
mod connect;
mod forge;
mod governor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use landfall_platform::connect::client::{
    ActiveTransfer, CallError, ListedFile, Page, Progress, Recent, Refusal, ServerError,
    Status as Sent,
};
use landfall_platform::downloads::{DownloadError, SignedUrl};
use landfall_platform::hosts::Hosts;
use landfall_runtime::{Clock, Configuration};
use landfall_tracking::{Error as Tracking, Store, SystemToken};
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::{
    Answer, Flavour, Listing, MessageOutcome, Report, Status, TenantId, Timestamp, TransferId,
    Verdict,
};
use url::Url;

use self::connect::Connect;
use self::forge::Forge;
use self::governor::Looked;
use crate::error::Error;

pub use self::api::{Api, NoProductApi, Opened, Tenant};
pub(crate) use self::governor::Governor;

/// The platform as the work on transfers needs it: an [`Api`] for each flavour, and what it takes to speak to a tenant's site through it.
#[derive(Clone, Debug)]
pub struct Platform {
    connect: Arc<dyn Api>,
    /// None where no Forge app is configured.
    forge: Option<OnForge>,
    hosts: Hosts,
}

#[derive(Clone, Debug)]
struct OnForge {
    api: Arc<dyn Api>,
    base_url: Url,
    /// Where the products may be called.
    product_hosts: Hosts,
}

/// One tenant's site, with the secret as it was a moment ago.
///
/// Every call keeps to the pauses that the site asks for, whoever was told. The calls that an import makes by the thousand also wait for their turn, so
/// that everybody's together come no faster than the site bears; what settles, reports or looks never waits behind them.
#[derive(Clone, Debug)]
pub struct Site {
    api: Arc<dyn Api>,
    governor: Arc<Governor>,
    tenant: Tenant,
    installed: bool,
    looked: Looked,
    patient_until: Timestamp,
    pressing: bool,
}

impl Platform {
    /// The REST APIs of both flavours, called as the configured app, and the object store; downloads only from the configured hosts.
    pub fn new(configuration: &Configuration, clock: Clock) -> Result<Self, Error> {
        let connect = Connect::new(configuration, clock.clone())?;
        let mut platform = Self::over(Arc::new(connect), configuration);
        if let Some(forge) = &mut platform.forge {
            let base_url = forge.base_url.clone();
            forge.api = Arc::new(Forge::new(base_url, configuration, clock)?);
        }
        Ok(platform)
    }

    /// Any other platform, such as one in memory, which speaks both flavours.
    pub fn over(api: Arc<dyn Api>, configuration: &Configuration) -> Self {
        let forge = configuration.forge.as_ref();
        Self {
            forge: forge.map(|forge| OnForge {
                api: Arc::clone(&api),
                base_url: forge.api.clone(),
                product_hosts: forge.api_hosts.clone(),
            }),
            connect: api,
            hosts: configuration.connect.tenant_hosts.clone(),
        }
    }

    /// The newest token of an installation on Forge.
    pub(crate) async fn token(
        &self,
        store: &Store,
        id: &TenantId,
    ) -> Result<Option<SystemToken>, Error> {
        match store.token(id).await {
            Err(Tracking::Unreadable { problem, .. }) => {
                tracing::error!(error.code = "LF-NO-SITE", tenant.id = %id, error = %problem, "An installation's token can't be read.");
                Err(Error::NoTenant)
            }
            token => Ok(token?),
        }
    }

    /// A tenant's site. What it is called with is read each time, so that a rotated secret is never used for long, and a token is the newest; one that isn't good until
    /// `good_until` is [`Error::NoToken`].
    pub(crate) async fn site(
        &self,
        store: &Store,
        governor: &Arc<Governor>,
        id: &TenantId,
        good_until: Timestamp,
    ) -> Result<Site, Error> {
        let tenant = async {
            match id.flavour() {
                Flavour::Connect => self.on_connect(store, id).await,
                Flavour::Forge => self.on_forge(store, id, good_until).await,
            }
        };
        let (tenant, looked) = join(tenant, governor.look(id)).await;
        let (api, tenant, installed) = tenant?;
        Ok(Site {
            installed,
            api,
            governor: Arc::clone(governor),
            looked,
            patient_until: Timestamp::default(),
            pressing: false,
            tenant,
        })
    }

    async fn on_forge(
        &self,
        store: &Store,
        id: &TenantId,
        good_until: Timestamp,
    ) -> Result<(Arc<dyn Api>, Tenant, bool), Error> {
        let forge = self.forge.as_ref().ok_or(Error::NotConfigured)?;
        let token = self.token(store, id).await?;
        let token = token
            .filter(|token| good_until < token.good_until)
            .ok_or(Error::NoToken)?;
        let product_api = token.product_api.ok_or(NoProductApi::Unknown);
        let tenant = Tenant {
            id: id.clone(),
            base_url: forge.base_url.clone(),
            // Once more: what was admitted when it came may not be any more, and the token goes there.
            product_api: product_api.and_then(|base| Ok(forge.product_hosts.admit_base(&base)?)),
            credential: token.token,
        };
        // Nobody tells us that the app was uninstalled; its tokens just end.
        Ok((Arc::clone(&forge.api), tenant, true))
    }

    async fn on_connect(
        &self,
        store: &Store,
        id: &TenantId,
    ) -> Result<(Arc<dyn Api>, Tenant, bool), Error> {
        let tenant = match store.tenant(id, true).await {
            Err(Tracking::Unreadable { problem, .. }) => {
                tracing::error!(error.code = "LF-NO-SITE", tenant.id = %id, error = %problem, "A tenant's row can't be read.");
                return Err(Error::NoTenant);
            }
            tenant => tenant?.ok_or(Error::NoTenant)?,
        };
        let base_url = self.hosts.admit_base(&tenant.base_url)?;
        let site = Tenant {
            id: id.clone(),
            product_api: Ok(base_url.clone()),
            base_url,
            credential: tenant.secret,
        };
        Ok((Arc::clone(&self.connect), site, tenant.installed))
    }
}

impl Site {
    /// The same site for work that has time until then to wait for its turn. Without it a call that would have to wait is not made.
    #[must_use]
    pub fn patient_until(self, until: Timestamp) -> Self {
        Self {
            patient_until: until,
            ..self
        }
    }

    /// The same site for a settlement, which may be so late that it can't keep to a pause that the site asked for.
    #[must_use]
    pub(crate) fn pressing(self, pressing: bool) -> Self {
        Self { pressing, ..self }
    }

    /// The longest that the work on it should wait for the site now, and not be given back.
    pub fn patience(&self) -> Duration {
        self.governor.patience(self.patient_until)
    }

    /// Makes a call when it is its turn. [`CallError::Throttled`] also when that is too far away; nothing was sent then.
    async fn in_turn<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        self.governor
            .turn(&self.tenant.id, self.patient_until)
            .await?;
        self.heard(call).await
    }

    /// Makes a call at once, unless the site asked for a pause and nothing presses: then it is [`CallError::Throttled`] for the rest of it, and nothing
    /// was sent.
    async fn at_once<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if !self.pressing {
            self.governor.admit(&self.tenant.id, self.looked).await?;
        }
        self.heard(call).await
    }

    async fn heard<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let called_at = self.governor.now();
        let mut outcome = call.await;
        if let Err(error) = &mut outcome {
            self.governor.heard(&self.tenant.id, called_at, error).await;
        }
        outcome
    }

    /// Where a file can be fetched for an hour.
    pub async fn signed_url(&self, s3_key: &str) -> Result<SignedUrl, CallError> {
        self.in_turn(self.api.signed_url(&self.tenant, s3_key))
            .await
    }

    /// Opens an exported file, from byte `from` on where the store can do that.
    pub async fn open(&self, url: &SignedUrl, from: u64) -> Result<Opened, DownloadError> {
        self.api.open(url, from).await
    }

    /// The cloud's values for the server's keys of a namespace. A key without a mapping is absent.
    pub async fn find_mappings(
        &self,
        id: &TransferId,
        namespace: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, CallError> {
        self.in_turn(self.api.find_mappings(&self.tenant, id, namespace, keys))
            .await
    }

    /// A page of all mappings of a namespace; `after` is what the page before named.
    pub async fn mapping_page(
        &self,
        id: &TransferId,
        namespace: &str,
        after: Option<&str>,
    ) -> Result<Page<(String, String)>, CallError> {
        let page = self.api.mapping_page(&self.tenant, id, namespace, after);
        self.in_turn(page).await
    }

    /// A page of the server's ids of the transfer's containers of a type; `after` is what the page before named.
    pub async fn container_page(
        &self,
        id: &TransferId,
        container_type: &str,
        after: Option<&str>,
    ) -> Result<Page<String>, CallError> {
        let page = self
            .api
            .container_page(&self.tenant, id, container_type, after);
        self.in_turn(page).await
    }

    /// Whether the product's own API can be called; [`Error::NoProductApi`] if not.
    pub fn has_product_api(&self) -> Result<(), Error> {
        match &self.tenant.product_api {
            Ok(_) => Ok(()),
            Err(reason) => Err(reason.clone().into()),
        }
    }

    /// Writes values of fields or properties in Jira (PROTOCOL 6); may be repeated. Only where [`Self::has_product_api`].
    pub async fn write_to_jira(
        &self,
        id: &TransferId,
        operation: &[&str],
        body: &serde_json::Value,
    ) -> Result<(), CallError> {
        let written = self.api.write_to_jira(&self.tenant, id, operation, body);
        self.in_turn(written).await
    }

    /// Whether an answer means that nobody will ever speak to this site again: it accepts no token and the app is not
    /// installed there any more.
    pub(crate) fn is_lost(&self, error: &CallError) -> bool {
        !self.installed && *error == CallError::Unauthorized
    }

    /// Sends a verdict.
    pub(crate) async fn settle(
        &self,
        id: &TransferId,
        verdict: &Verdict,
        percent: Option<u8>,
    ) -> Result<Answer, CallError> {
        let status = match verdict.status {
            Status::Success => Sent::Success,
            Status::Incomplete => Sent::Incomplete,
            Status::Failed => Sent::Failed,
        };
        let progress = Progress {
            status,
            percent,
            message: Some(verdict.message.clone()),
        };
        let sent = self.api.send_progress(&self.tenant, id, &progress);
        let outcome = self.at_once(sent).await;
        if let Err(error) = &outcome {
            tracing::warn!(transfer.id = %id, error = %error, "The platform did not simply take the settlement.");
        }
        if let Err(error) = &outcome
            && self.is_lost(error)
        {
            return Err(error.clone());
        }
        Ok(match outcome {
            Ok(()) | Err(CallError::Malformed { .. }) => Answer::Accepted,
            Err(CallError::Unknown { .. }) if is_planted(SeededBug::LostAnswerIsFailure) => {
                Answer::NotTaken { retry_after: None }
            }
            Err(CallError::Unknown { .. }) => Answer::Unknown { retry_after: None },
            // A gateway's 5xx says nothing about what stands behind it.
            Err(CallError::Server { retry_after, .. }) => Answer::Unknown { retry_after },
            Err(CallError::Throttled { retry_after }) => Answer::NotTaken { retry_after },
            Err(CallError::Refused {
                kind: Refusal::Gone,
                ..
            }) => Answer::SuspectGone,
            Err(CallError::Refused {
                kind: Refusal::Expired,
                ..
            }) => Answer::SuspectExpired,
            Err(CallError::Refused {
                kind: Refusal::BadRequest | Refusal::TooLarge,
                ..
            }) => Answer::FormRefused,
            Err(
                CallError::Refused { .. } | CallError::NotSent { .. } | CallError::Unauthorized,
            ) => Answer::NotTaken { retry_after: None },
        })
    }

    /// Answers messages, all alike; the same answer may be given again.
    pub(crate) async fn answer(
        &self,
        id: &TransferId,
        outcome: MessageOutcome,
        messages: &[String],
    ) -> Result<(), CallError> {
        self.at_once(
            self.api
                .answer_messages(&self.tenant, id, outcome, messages),
        )
        .await
    }

    /// Writes a line into the admin's log.
    pub(crate) async fn add_log(&self, id: &TransferId, line: &str) -> Result<(), CallError> {
        self.at_once(self.api.add_log(&self.tenant, id, line)).await
    }

    /// Sends a progress update. Lost updates are not repeated; the next one says more.
    pub(crate) async fn report(&self, id: &TransferId, report: &Report) -> Result<(), CallError> {
        let progress = Progress {
            status: Sent::InProgress,
            percent: Some(report.percent),
            message: Some(report.message.clone()),
        };
        self.at_once(self.api.send_progress(&self.tenant, id, &progress))
            .await
    }

    /// The active transfers of the app on this site.
    pub(crate) async fn recent(&self) -> Result<Recent, CallError> {
        self.at_once(self.api.recent(&self.tenant)).await
    }

    /// The files of a transfer as the platform lists them.
    pub(crate) async fn files(&self, id: &TransferId) -> Result<Vec<ListedFile>, CallError> {
        self.at_once(self.api.file_list(&self.tenant, id)).await
    }

    /// What the server's listener ended with, if the platform knows of an error.
    pub(crate) async fn listener_error(
        &self,
        id: &TransferId,
    ) -> Result<Option<ServerError>, CallError> {
        self.at_once(self.api.server_error(&self.tenant, id)).await
    }

    /// The class of the exception that the server's listener ended with. An answer that can't be had costs only the name.
    pub(crate) async fn listener_exception(&self, id: &TransferId) -> Option<String> {
        match self.listener_error(id).await {
            Ok(error) => error.and_then(|error| error.exception_type),
            Err(error) => {
                tracing::warn!(transfer.id = %id, error = %error, "The listener's error could not be fetched; it is settled without its name.");
                None
            }
        }
    }
}

/// What a list of active transfers says about one of them.
pub(crate) fn listing<'list>(
    recent: &'list Recent,
    id: &TransferId,
) -> (Listing, Option<&'list ActiveTransfer>) {
    match recent
        .transfers
        .iter()
        .find(|active| active.transfer_id == id.as_str())
    {
        Some(active) => (Listing::Active, Some(active)),
        None if recent.conclusive => (Listing::Absent, None),
        None => (Listing::Full, None),
    }
}

#[cfg(test)]
mod tests;
