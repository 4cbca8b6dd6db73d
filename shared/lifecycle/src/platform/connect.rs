use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use landfall_platform::connect::client::{
    CallError, Client, ListedFile, Page, Progress, Recent, ServerError, Settings, Tenant,
};
use landfall_platform::downloads::{Download, DownloadError, Downloads, SignedUrl};
use landfall_runtime::{Clock, Configuration};
use landfall_transfer::TransferId;
use serde_json::Value;

use super::api::{Api, Opened};
use crate::error::Error;

/// Time to connect to a site.
const CONNECT: Duration = Duration::from_secs(3);

/// Time to connect to the object store.
const DOWNLOAD_CONNECT: Duration = Duration::from_secs(5);

/// Longest silence within a download, after which it counts as cut.
const DOWNLOAD_IDLE: Duration = Duration::from_secs(15);

/// Mappings of a page: the most that the platform gives (PROTOCOL 5).
const MAPPING_PAGE: u16 = 5_000;

/// The platform's Connect flavour: its REST API, and the object store behind signed URLs.
#[derive(Debug)]
pub(super) struct Connect {
    client: Client,
    downloads: Downloads,
}

impl Connect {
    /// Calls as the configured app; downloads only from the configured hosts.
    pub(super) fn new(configuration: &Configuration, clock: Clock) -> Result<Self, Error> {
        let call_timeout = configuration.clocks.call_timeout;
        let settings = Settings {
            call_timeout,
            connect_timeout: CONNECT.min(call_timeout),
            ..Settings::new(&configuration.app.key)
        };
        Ok(Self {
            client: Client::new(settings, clock.clone())?,
            downloads: Downloads::new(
                configuration.download_hosts.clone(),
                DOWNLOAD_CONNECT,
                DOWNLOAD_IDLE,
                clock,
            )?,
        })
    }
}

impl Api for Connect {
    fn send_progress<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        self.client
            .send_progress(tenant, transfer.as_str(), progress)
            .boxed()
    }

    fn recent<'call>(
        &'call self,
        tenant: &'call Tenant,
    ) -> BoxFuture<'call, Result<Recent, CallError>> {
        self.client.recent(tenant).boxed()
    }

    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        self.client.file_list(tenant, transfer.as_str()).boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        self.client.signed_url(tenant, s3_key).boxed()
    }

    fn find_mappings<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        keys: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>> {
        self.client
            .find_mappings(tenant, transfer.as_str(), namespace, keys)
            .boxed()
    }

    fn mapping_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<(String, String)>, CallError>> {
        self.client
            .mapping_page(tenant, transfer.as_str(), namespace, after, MAPPING_PAGE)
            .boxed()
    }

    fn server_error<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        self.client.server_error(tenant, transfer.as_str()).boxed()
    }

    fn write_to_jira<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        operation: &'call [&'call str],
        body: &'call Value,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        self.client
            .write_to_jira(tenant, transfer.as_str(), operation, body)
            .boxed()
    }

    fn open<'call>(
        &'call self,
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        async move { Ok(opened(self.downloads.open(url, from).await?)) }.boxed()
    }
}

fn opened(download: Download) -> Opened {
    Opened {
        starts_at: download.starts_at(),
        size: download.size(),
        content: stream::unfold(Some(download), async |download| {
            let mut download = download?;
            match download.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(download))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed(),
    }
}
