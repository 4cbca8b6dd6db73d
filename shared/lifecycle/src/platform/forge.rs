use std::collections::HashMap;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use landfall_platform::connect::client::ServerError;
use landfall_platform::downloads::{DownloadError, Downloads, SignedUrl};
use landfall_platform::forge::client::{
    Access, CallError, Client, ListedFile, MAPPING_PAGE_MAX, Outcome, Page, Settings,
};
use landfall_runtime::{Clock, Configuration};
use landfall_transfer::{MessageOutcome, TransferId};
use serde_json::Value;
use url::Url;

use super::api::{Api, NoProductApi, Opened, Tenant};
use super::connect::{CONNECT, downloads};
use crate::error::Error;

/// The platform's Forge flavour: its REST API, and the object store behind signed URLs.
#[derive(Debug)]
pub(super) struct Forge {
    client: Client,
    downloads: Downloads,
}

impl Forge {
    /// Calls the API at this base; downloads only from the configured hosts.
    pub(super) fn new(
        base_url: Url,
        configuration: &Configuration,
        clock: Clock,
    ) -> Result<Self, Error> {
        let call_timeout = configuration.clocks.call_timeout;
        let settings = Settings {
            call_timeout,
            connect_timeout: CONNECT.min(call_timeout),
            ..Settings::new(base_url)
        };
        Ok(Self {
            client: Client::new(settings, clock.clone())?,
            downloads: downloads(configuration, clock)?,
        })
    }
}

fn access(tenant: &Tenant) -> Access {
    Access {
        token: tenant.credential.clone(),
    }
}

impl Api for Forge {
    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        async move {
            self.client
                .file_list(&access(tenant), transfer.as_str())
                .await
        }
        .boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        async move { self.client.signed_url(&access(tenant), s3_key).await }.boxed()
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
                .find_mappings(&access(tenant), transfer.as_str(), namespace, keys)
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
                    &access(tenant),
                    transfer.as_str(),
                    namespace,
                    after,
                    MAPPING_PAGE_MAX,
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
                .container_page(&access(tenant), transfer.as_str(), container_type, after)
                .await
        }
        .boxed()
    }

    fn answer_messages<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        outcome: MessageOutcome,
        messages: &'call [String],
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let outcome = match outcome {
            MessageOutcome::Success => Outcome::Success,
            MessageOutcome::Failed => Outcome::Failed,
        };
        async move {
            self.client
                .answer_messages(&access(tenant), transfer.as_str(), outcome, messages)
                .await
        }
        .boxed()
    }

    fn add_log<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        line: &'call str,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        async move {
            self.client
                .add_log(&access(tenant), transfer.as_str(), line)
                .await
        }
        .boxed()
    }

    /// Nothing more than its event says of a listener's error (PROTOCOL 7.7 has no such operation).
    fn server_error<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        ready(Ok(None)).boxed()
    }

    fn write_to_jira<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        operation: &'call [&'call str],
        body: &'call Value,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        async move {
            let not_sent = |reason: &NoProductApi| CallError::NotSent {
                reason: reason.to_string(),
            };
            let product_api = tenant.product_api.as_ref().map_err(not_sent)?;
            self.client
                .write_to_jira(
                    &access(tenant),
                    product_api,
                    transfer.as_str(),
                    operation,
                    body,
                )
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
