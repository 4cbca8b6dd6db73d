use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_platform::connect::client::{
    self as connect, CallError, Client, ListedFile, Page, Progress, Recent, ServerError, Settings,
};
use landfall_platform::downloads::{DownloadError, Downloads, SignedUrl};
use landfall_runtime::{Clock, Configuration};
use landfall_transfer::TransferId;
use serde_json::Value;

use super::api::{Api, Opened, Tenant};
use crate::error::Error;

/// Time to connect to a site.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

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
            downloads: downloads(configuration, clock)?,
        })
    }
}

/// The object store, as both flavours use it.
pub(super) fn downloads(configuration: &Configuration, clock: Clock) -> Result<Downloads, Error> {
    let hosts = configuration.download_hosts.clone();
    Ok(Downloads::new(
        hosts,
        DOWNLOAD_CONNECT,
        DOWNLOAD_IDLE,
        clock,
    )?)
}

/// The tenant as Connect's client knows it.
fn of(tenant: &Tenant) -> connect::Tenant {
    connect::Tenant {
        client_key: tenant.id.as_str().to_owned(),
        base_url: tenant.base_url.clone(),
        secret: tenant.credential.clone(),
    }
}

impl Api for Connect {
    fn send_progress<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        async move {
            self.client
                .send_progress(&of(tenant), transfer.as_str(), progress)
                .await
        }
        .boxed()
    }

    fn recent<'call>(
        &'call self,
        tenant: &'call Tenant,
    ) -> BoxFuture<'call, Result<Recent, CallError>> {
        async move { self.client.recent(&of(tenant)).await }.boxed()
    }

    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        async move { self.client.file_list(&of(tenant), transfer.as_str()).await }.boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        async move { self.client.signed_url(&of(tenant), s3_key).await }.boxed()
    }

    fn find_mappings<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        keys: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>> {
        async move {
            self.client
                .find_mappings(&of(tenant), transfer.as_str(), namespace, keys)
                .await
        }
        .boxed()
    }

    fn mapping_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<(String, String)>, CallError>> {
        async move {
            self.client
                .mapping_page(
                    &of(tenant),
                    transfer.as_str(),
                    namespace,
                    after,
                    MAPPING_PAGE,
                )
                .await
        }
        .boxed()
    }

    fn container_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        container_type: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<String>, CallError>> {
        async move {
            self.client
                .container_page(&of(tenant), transfer.as_str(), container_type, after)
                .await
        }
        .boxed()
    }

    fn server_error<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        async move {
            self.client
                .server_error(&of(tenant), transfer.as_str())
                .await
        }
        .boxed()
    }

    fn write_to_jira<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        operation: &'call [&'call str],
        body: &'call Value,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        async move {
            self.client
                .write_to_jira(&of(tenant), transfer.as_str(), operation, body)
                .await
        }
        .boxed()
    }

    fn open<'call>(
        &'call self,
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        async move { Ok(self.downloads.open(url, from).await?.into()) }.boxed()
    }
}
