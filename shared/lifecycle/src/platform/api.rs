use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use landfall_platform::connect::client::{
    CallError, ListedFile, Page, Progress, Recent, ServerError,
};
use landfall_platform::downloads::{Download, DownloadError, SignedUrl};
use landfall_platform::hosts::Refused;
use landfall_transfer::{MessageOutcome, TenantId, TransferId};
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

/// The tenant whom a call concerns, and by what right it is made.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Who.
    pub id: TenantId,
    /// Where the platform is called for it; of an admitted host.
    pub base_url: Url,
    /// Where the product's own REST API is called for it: its site's base URL on Connect. On Forge none as long as no call of the platform's has named it.
    pub product_api: Result<Url, NoProductApi>,
    /// The shared secret on Connect, the newest system token on Forge. Never printed.
    pub credential: SecretString,
}

/// Why a product's own REST API can't be called for a tenant on Forge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProductApi {
    /// No call of the platform's has named it yet.
    #[error("no call of the platform's has said where it is")]
    Unknown,
    /// `forge.api_hosts` doesn't admit it any more.
    #[error("forge.api_hosts does not admit where it is: {0}")]
    NotAdmitted(#[from] Refused),
}

/// What the work on transfers asks of the platform, and nothing more: the calls of its REST API, each for a tenant, and the store
/// of exported files. What only one flavour has, the other need not implement: asked for it, it says so, and sends nothing. Object-safe, so that the platform is chosen where the function is wired.
///
/// The errors say what a retry can do. A dropped call has an unknown outcome.
pub trait Api: fmt::Debug + Send + Sync {
    /// Reports progress, or settles. `Ok` says that the platform answered well, not that it took the percentage (PROTOCOL 2.6).
    fn send_progress<'call>(
        &'call self,
        _tenant: &'call Tenant,
        _transfer: &'call TransferId,
        _progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        no_such("progress of the app's")
    }

    /// The transfers of this app that the platform calls active.
    fn recent<'call>(
        &'call self,
        _tenant: &'call Tenant,
    ) -> BoxFuture<'call, Result<Recent, CallError>> {
        no_such("list of active transfers")
    }

    /// All files that the server app has uploaded for a transfer.
    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>>;

    /// Where a file can be fetched for an hour; only [`Api::open`] is given it.
    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>>;

    /// The cloud's values for the server's keys of a namespace. A key without a mapping is absent.
    fn find_mappings<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        keys: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>>;

    /// A page of all mappings of a namespace, pairs of the server's key and the cloud's value; `after` is what the page before named.
    fn mapping_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<(String, String)>, CallError>>;

    /// A page of the server's ids of a transfer's containers of a type, in the platform's words `JiraProject` or `ConfluenceSpace`; `after` is what the
    /// page before named.
    fn container_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        container_type: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<String>, CallError>>;

    /// Answers messages of a transfer's files, all alike; at most [`MESSAGES_MAX`](landfall_platform::forge::client::MESSAGES_MAX). The same answer may be given again. A platform on which
    /// the app settles transfers itself has no messages, and says so.
    fn answer_messages<'call>(
        &'call self,
        _tenant: &'call Tenant,
        _transfer: &'call TransferId,
        _outcome: MessageOutcome,
        _messages: &'call [String],
    ) -> BoxFuture<'call, Result<(), CallError>> {
        no_such("messages")
    }

    /// Writes a line into the log that the admin can read. Where progress updates carry messages there is none.
    fn add_log<'call>(
        &'call self,
        _tenant: &'call Tenant,
        _transfer: &'call TransferId,
        _line: &'call str,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        no_such("log")
    }

    /// What the server's listener failed with, where the platform knows it.
    fn server_error<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>>;

    /// Writes values of fields or properties in Jira: an operation for migrating apps, by its path, and its body (PROTOCOL 6). A platform
    /// without such operations says so.
    fn write_to_jira<'call>(
        &'call self,
        _tenant: &'call Tenant,
        _transfer: &'call TransferId,
        _operation: &'call [&'call str],
        _body: &'call Value,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        no_such("operations of Jira's")
    }

    /// Opens an exported file, from byte `from` on where the store can do that.
    fn open<'call>(
        &'call self,
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>>;
}

/// The answer of a platform that has no such thing; nothing was sent.
fn no_such<'call, T: Send + 'call>(what: &str) -> BoxFuture<'call, Result<T, CallError>> {
    let reason = format!("this platform has no {what}");
    std::future::ready(Err(CallError::NotSent { reason })).boxed()
}

/// An open file.
pub struct Opened {
    /// Where the content begins: at the byte asked for, or at 0 when the store knows no ranges. Then skip up to that byte.
    pub starts_at: u64,
    /// The whole file's size in bytes, when the store told it.
    pub size: Option<u64>,
    /// The bytes as they are stored. An error is the last item.
    pub content: BoxStream<'static, Result<Bytes, DownloadError>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Opened")
            .field("starts_at", &self.starts_at)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl From<Download> for Opened {
    fn from(download: Download) -> Self {
        Self {
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
}
