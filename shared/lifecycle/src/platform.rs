use std::sync::Arc;
use std::time::Duration;

use landfall_platform::connect::client::{
    ActiveTransfer, CallError, Client, ListedFile, Progress, Recent, Refusal, Settings,
    Status as Sent, Tenant,
};
use landfall_platform::downloads::Downloads;
use landfall_platform::hosts::Hosts;
use landfall_runtime::{Clock, Configuration};
use landfall_tracking::{Error as Tracking, SecretKey, Store};
use landfall_transfer::{Answer, Listing, Report, Status, TenantId, TransferId, Verdict};

use crate::error::Error;

/// The platform as the work on transfers needs it: Connect's REST API, and the object store behind signed URLs.
#[derive(Clone, Debug)]
pub struct Platform {
    client: Client,
    downloads: Downloads,
    hosts: Hosts,
    secret_key: Arc<SecretKey>,
}

/// One tenant's site, with the secret as it was a moment ago.
#[derive(Clone, Debug)]
pub struct Site {
    client: Client,
    downloads: Downloads,
    tenant: Tenant,
    installed: bool,
}

/// Time to connect to a site.
const CONNECT: Duration = Duration::from_secs(3);

/// Time to connect to the object store.
const DOWNLOAD_CONNECT: Duration = Duration::from_secs(5);

/// Longest silence within a download, after which it counts as cut.
const DOWNLOAD_IDLE: Duration = Duration::from_secs(15);

impl Platform {
    /// Calls as the configured app; downloads only from the configured hosts.
    pub fn new(configuration: &Configuration, clock: Clock) -> Result<Self, Error> {
        let call_timeout = configuration.clocks.call_timeout;
        let settings = Settings {
            call_timeout,
            connect_timeout: CONNECT.min(call_timeout),
            ..Settings::new(&configuration.app.key)
        };
        Ok(Self {
            client: Client::new(settings, Arc::new(move || clock.now().as_seconds()))?,
            downloads: Downloads::new(
                configuration.download_hosts.clone(),
                DOWNLOAD_CONNECT,
                DOWNLOAD_IDLE,
            )?,
            hosts: configuration.connect.tenant_hosts.clone(),
            secret_key: Arc::clone(&configuration.secret_key),
        })
    }

    /// A tenant's site. The tenant is read each time, so that a rotated secret is never used for long.
    pub async fn site(&self, store: &Store, id: &TenantId) -> Result<Site, Error> {
        let tenant = match store.tenant(id, &self.secret_key, true).await {
            Err(Tracking::Unreadable { problem, .. }) => {
                tracing::error!(error.code = "LF-NO-SITE", tenant.id = %id, error = %problem, "A tenant's row can't be read.");
                return Err(Error::NoTenant);
            }
            tenant => tenant?.ok_or(Error::NoTenant)?,
        };
        Ok(Site {
            installed: tenant.installed,
            client: self.client.clone(),
            downloads: self.downloads.clone(),
            tenant: Tenant {
                client_key: id.as_str().to_owned(),
                base_url: self.hosts.admit_base(&tenant.base_url)?,
                secret: tenant.secret,
            },
        })
    }
}

impl Site {
    /// The REST client, for what only the import asks.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The object store.
    pub const fn downloads(&self) -> &Downloads {
        &self.downloads
    }

    /// The tenant in the REST client's terms.
    pub const fn tenant(&self) -> &Tenant {
        &self.tenant
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
        let outcome = self
            .client
            .send_progress(&self.tenant, id.as_str(), &progress)
            .await;
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

    /// Sends a progress update. Lost updates are not repeated; the next one says more.
    pub(crate) async fn report(&self, id: &TransferId, report: &Report) -> Result<(), CallError> {
        let progress = Progress {
            status: Sent::InProgress,
            percent: Some(report.percent),
            message: Some(report.message.clone()),
        };
        self.client
            .send_progress(&self.tenant, id.as_str(), &progress)
            .await
    }

    /// The active transfers of the app on this site.
    pub(crate) async fn recent(&self) -> Result<Recent, CallError> {
        self.client.recent(&self.tenant).await
    }

    /// The files of a transfer as the platform lists them.
    pub(crate) async fn files(&self, id: &TransferId) -> Result<Vec<ListedFile>, CallError> {
        self.client.file_list(&self.tenant, id.as_str()).await
    }

    /// The class of the exception that the server's listener ended with, if the platform knows it.
    pub(crate) async fn listener_exception(&self, id: &TransferId) -> Option<String> {
        match self.client.server_error(&self.tenant, id.as_str()).await {
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
