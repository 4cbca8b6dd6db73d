//! The Connect REST API, all eleven operations (PROTOCOL 5).
//!
//! Every request has a fresh token, every call an end, no redirect is followed, and no GET has a body.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use super::qsh;
use super::token::{self, Outgoing};
use crate::call::lookup::Lookup;
use crate::call::{self, ANSWER_MAX, LIST_MAX, json, malformed, text};
use crate::downloads::SignedUrl;
use crate::event::fields::milliseconds;
use crate::event::{bounded_label, is_identity};

pub use crate::call::{CallError, ListedFile, Page, Refusal};
pub use crate::event::ServerError;

/// `transfer/recent` lists the latest 100 (PROTOCOL 5): a full list proves nothing about what it lacks.
const RECENT_MAX: usize = 100;

/// Most characters of a progress message; the platform cuts longer ones itself (PROTOCOL 2.6).
const MESSAGE_MAX: usize = 65_536;

/// How the client calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our app key: the issuer of our tokens.
    pub app_key: String,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time for one call, from connecting to the last byte.
    pub call_timeout: Duration,
    /// Longest time for one call that answers a whole list of files.
    pub list_timeout: Duration,
}

impl Settings {
    /// 3 s to connect, 10 s for a call, 30 s for a list.
    pub fn new(app_key: impl Into<String>) -> Self {
        Self {
            app_key: app_key.into(),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(10),
            list_timeout: Duration::from_secs(30),
        }
    }
}

/// The tenant whom a call concerns.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its client key: the audience of our tokens.
    pub client_key: String,
    /// Prefix of its REST endpoints, admitted by [`crate::hosts::Hosts::admit_base`]. Confluence's ends in `/wiki`.
    pub base_url: Url,
    /// The current shared secret.
    pub secret: SecretString,
}

/// The states that an app may report (PROTOCOL 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Work goes on.
    InProgress,
    /// Settles: everything arrived.
    Success,
    /// Settles: something is missing.
    Incomplete,
    /// Settles: it did not work.
    Failed,
}

/// A progress update or a settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The state.
    pub status: Status,
    /// 0 to 100; a lower one than before is ignored by the platform although answered 200 (PROTOCOL 2.6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// What the admin reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A transfer that the platform still calls active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveTransfer {
    /// Its id.
    pub transfer_id: String,
    /// The platform's word: `IN_PROGRESS` or `CANCELLATION_REQUESTED`.
    pub status: String,
    /// The first transfer of the chain, should the platform name it.
    pub original_transfer_id: Option<String>,
    /// When the migration was created, in milliseconds since the Unix epoch.
    pub created_at_ms: Option<i64>,
    /// One run of a plan.
    pub migration_id: Option<String>,
    /// The tenants it belongs to, where the list names them: a list may cover all products of a site (OPEN-QUESTIONS B15).
    pub client_keys: Vec<String>,
}

/// What `transfer/recent` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// The active transfers of this app on this site.
    pub transfers: Vec<ActiveTransfer>,
    /// Whether a transfer that is not listed is not active. False when the list is full (OPEN-QUESTIONS B15) or has entries that we can't read.
    pub conclusive: bool,
}

/// Calls the platform. Cheap to clone; connections are shared.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    settings: Arc<Settings>,
    clock: Clock,
}

impl Client {
    /// A client that signs as `settings.app_key` and takes the time from `clock`.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: call::http(settings.connect_timeout)?,
            settings: Arc::new(settings),
            clock,
        })
    }

    /// Operation 1: The addresses registered for webhooks.
    pub async fn webhooks(&self, tenant: &Tenant) -> Result<Vec<String>, CallError> {
        let answer = self.get(tenant, &["webhook"], &[]).await?;
        let endpoints = answer.get("endpoints").unwrap_or(&answer);
        let endpoints = endpoints
            .as_array()
            .ok_or_else(|| malformed("no list of endpoints"))?;
        Ok(endpoints
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    /// Operation 2: Replaces the addresses registered for webhooks: 1 to 5 absolute URLs.
    pub async fn replace_webhooks(
        &self,
        tenant: &Tenant,
        endpoints: &[String],
    ) -> Result<(), CallError> {
        let body = serde_json::json!({ "endpoints": endpoints });
        self.exchange(tenant, Method::PUT, &["webhook"], &[], Some(&body))
            .await
            .map(drop)
    }

    /// Operation 3: Reports progress, or settles. `Ok` says that the platform answered 2xx, not that it took the percentage (PROTOCOL 2.6).
    pub async fn send_progress(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        progress: &Progress,
    ) -> Result<(), CallError> {
        let message = progress
            .message
            .as_ref()
            .map(|message| message.chars().take(MESSAGE_MAX).collect());
        let body = Progress {
            message,
            ..progress.clone()
        };
        // The echo in the answer says nothing new, so an answer cut after its head still counts.
        self.exchange(
            tenant,
            Method::POST,
            &["progress", transfer_id],
            &[],
            Some(&body),
        )
        .await
        .map(drop)
    }

    /// Operation 4: Looks keys up, a hundred a call. A key without an entry has no mapping.
    ///
    /// A call that the platform finds wrong or too large is halved (OPEN-QUESTIONS C1), down to single keys: one that is refused alone counts
    /// as unmapped, so that a strange key in the customer's data doesn't stop a file. More than a few of these are an error.
    pub async fn find_mappings(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        namespace: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, CallError> {
        let mut lookup = Lookup::of(keys);
        while let Some(part) = lookup.next_part() {
            let answer = self
                .find_part(tenant, transfer_id, namespace, lookup.keys(&part))
                .await;
            lookup.take(part, answer)?;
        }
        lookup.finish(transfer_id, namespace)
    }

    async fn find_part(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        namespace: &str,
        keys: &[&str],
    ) -> Result<Value, CallError> {
        let path = ["mapping", transfer_id, "find"];
        let response = self
            .exchange(
                tenant,
                Method::POST,
                &path,
                &[("namespace", namespace)],
                Some(keys),
            )
            .await?;
        json(&call::body(response, ANSWER_MAX).await?)
    }

    /// Operation 5: One page of all mappings of a namespace, as pairs of server key and cloud value. `size` is 1 to 5,000.
    pub async fn mapping_page(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        namespace: &str,
        after: Option<&str>,
        size: u16,
    ) -> Result<Page<(String, String)>, CallError> {
        let size = size.to_string();
        let mut query = vec![("namespace", namespace), ("pageSize", size.as_str())];
        query.extend(after.map(|after| ("lastEntity", after)));
        call::mapping_page(
            self.get(tenant, &["mapping", transfer_id, "page"], &query)
                .await?,
        )
    }

    /// Operation 6: All files that the server app has uploaded for a transfer.
    pub async fn file_list(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
    ) -> Result<Vec<ListedFile>, CallError> {
        let request = self
            .request(tenant, Method::GET, &["data", transfer_id, "all"], &[])?
            .timeout(self.settings.list_timeout);
        let response = self.send(request).await?;
        let Value::Array(entries) = json(&call::body(response, LIST_MAX).await?)? else {
            return Err(malformed("no list of files"));
        };
        Ok(call::listed_files(transfer_id, &entries, listed_file))
    }

    /// Operation 7: A URL from which a file can be fetched for an hour, without a token. Check it with the list of download hosts: [`crate::downloads`] does.
    pub async fn signed_url(&self, tenant: &Tenant, s3_key: &str) -> Result<SignedUrl, CallError> {
        let answer = self.get(tenant, &["data", s3_key], &[]).await?;
        text(&answer, "url")
            .map(SignedUrl::new)
            .ok_or_else(|| malformed("no url"))
    }

    /// Operation 8: The transfers of this app that the platform calls active.
    pub async fn recent(&self, tenant: &Tenant) -> Result<Recent, CallError> {
        let answer = self.get(tenant, &["transfer", "recent"], &[]).await?;
        let entries = answer
            .as_array()
            .ok_or_else(|| malformed("no list of transfers"))?;
        let transfers: Vec<ActiveTransfer> = entries.iter().filter_map(active_transfer).collect();
        let conclusive = entries.len() < RECENT_MAX && transfers.len() == entries.len();
        Ok(Recent {
            transfers,
            conclusive,
        })
    }

    /// Operation 9: One page of the server's ids (`sourceId`) of a transfer's containers. `container_type` is `ConfluenceSpace` or `JiraProject`; those of a
    /// `Site` have none.
    pub async fn container_page(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        container_type: &str,
        after: Option<&str>,
    ) -> Result<Page<String>, CallError> {
        let mut query = vec![
            ("containerType", container_type),
            ("pageSize", call::CONTAINER_PAGE),
        ];
        query.extend(after.map(|after| ("lastEntity", after)));
        let path = ["container", transfer_id, "page"];
        let answer = self.get(tenant, &path, &query).await?;
        call::container_page(transfer_id, container_type, answer)
    }

    /// Operation 10: Leaves a message for the server app; a new one replaces the last.
    pub async fn send_feedback(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        details: &Map<String, Value>,
    ) -> Result<(), CallError> {
        let body = serde_json::json!({ "details": details });
        self.exchange(
            tenant,
            Method::POST,
            &["feedback", transfer_id],
            &[],
            Some(&body),
        )
        .await
        .map(drop)
    }

    /// Operation 11: What the server's listener failed with; nothing when the platform has stored nothing (404).
    pub async fn server_error(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
    ) -> Result<Option<ServerError>, CallError> {
        match self.get(tenant, &["error", transfer_id], &[]).await {
            Ok(answer) => Ok(Some(ServerError {
                exception_type: text(&answer, "exceptionType").map(str::to_owned),
                stack_trace: text(&answer, "safeStackTrace").map(str::to_owned),
            })),
            Err(CallError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Jira's operations for migrating apps (PROTOCOL 6): `["field"]` sets values of custom fields, `["properties", entity type]` sets
    /// properties. Both set what is said, so both may be repeated.
    pub async fn write_to_jira(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        operation: &[&str],
        body: &Value,
    ) -> Result<(), CallError> {
        let request = self
            .request(tenant, Method::PUT, operation, &[])?
            .header(call::TRANSFER_ID, transfer_id);
        self.send(call::with_json(request, body)?).await.map(drop)
    }

    async fn get(
        &self,
        tenant: &Tenant,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, CallError> {
        let response = self
            .send(self.request(tenant, Method::GET, path, query)?)
            .await?;
        json(&call::body(response, ANSWER_MAX).await?)
    }

    async fn exchange<Body: Serialize + ?Sized>(
        &self,
        tenant: &Tenant,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Body>,
    ) -> Result<reqwest::Response, CallError> {
        let mut request = self.request(tenant, method, path, query)?;
        if let Some(body) = body {
            request = call::with_json(request, body)?;
        }
        self.send(request).await
    }

    fn request(
        &self,
        tenant: &Tenant,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, CallError> {
        let relative = format!("{}{}", call::PRODUCT_API, call::path(path)?);
        let query = call::query(query);
        let url = call::below(&tenant.base_url, &relative, &query);
        let canonical = qsh::canonical(method.as_str(), &relative, &query);
        let outgoing = Outgoing {
            app_key: &self.settings.app_key,
            audience: Some(&tenant.client_key),
            canonical: &canonical,
        };
        let token = token::mint(outgoing, &tenant.secret, self.clock.now().as_seconds());
        let authorization = call::authorization("JWT", &token)?;
        // Confluence bans apps whose calls during a migration lack the mark (PROTOCOL 6).
        Ok(self
            .http
            .request(method, url)
            .timeout(self.settings.call_timeout)
            .header(AUTHORIZATION, authorization)
            .header("Migration-App", "true"))
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, CallError> {
        call::send(request, || self.clock.now().as_seconds()).await
    }
}

fn listed_file(entry: &Value) -> Option<ListedFile> {
    Some(ListedFile {
        s3_key: text(entry, "s3Key")
            .filter(|key| is_identity(key))?
            .to_owned(),
        label: text(entry, "label").map(|label| bounded_label(label).into_owned()),
    })
}

fn active_transfer(entry: &Value) -> Option<ActiveTransfer> {
    let identity = |value: &Value, field: &str| {
        text(value, field)
            .filter(|id| is_identity(id))
            .map(str::to_owned)
    };
    let details = entry.get("migrationDetails").unwrap_or(&Value::Null);
    Some(ActiveTransfer {
        transfer_id: identity(entry, "transferId")?,
        status: text(entry, "status")
            .unwrap_or_default()
            .chars()
            .take(64)
            .collect(),
        original_transfer_id: identity(entry, "originalTransferId"),
        created_at_ms: details.get("createdAt").and_then(milliseconds),
        migration_id: identity(details, "migrationId"),
        client_keys: details
            .as_object()
            .map(super::event::client_keys)
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
