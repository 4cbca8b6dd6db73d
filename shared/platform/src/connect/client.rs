//! The Connect REST API, all eleven operations (PROTOCOL 5).
//!
//! Every request has a fresh token, every call an end, no redirect is followed, and no GET has a body.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use percent_encoding::utf8_percent_encode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use super::event::milliseconds;
use super::qsh::{self, RESERVED};
use super::token::{self, Outgoing};
use crate::downloads::SignedUrl;
use crate::event::{bounded_label, is_identity};

mod answer;

pub(crate) use answer::describe;
pub use answer::{CallError, Refusal};

/// Where the API begins, below a tenant's base URL (PROTOCOL 5).
const API: &str = "/rest/atlassian-connect/1/migration";

/// Most keys of one mapping call: the only number ever published (PROTOCOL 5.1).
pub const MAPPING_KEYS_MAX: usize = 100;

/// Keys that the platform may refuse one by one before a lookup is given up as wrong altogether.
const REFUSED_KEYS_MAX: usize = 8;

/// `transfer/recent` lists the latest 100 (PROTOCOL 5): a full list proves nothing about what it lacks.
const RECENT_MAX: usize = 100;

/// Largest list that is read, in bytes. 10,000 files with long labels take 12 MB.
const LIST_MAX: usize = 32 * 1024 * 1024;

/// Largest other answer that is read, in bytes. 5,000 mappings take less than 1 MB.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

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

/// A file of the platform's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Names the file at the platform.
    pub s3_key: String,
    /// The server app's label, bounded as an event's.
    pub label: Option<String>,
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

/// One page of a longer list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<Item> {
    /// The page's items.
    pub items: Vec<Item>,
    /// Pass it back to get the next page; absent on the last one.
    pub next: Option<String>,
}

/// What the server's listener failed with. Obfuscated by the platform, but still the customer's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The exception's class.
    pub exception_type: Option<String>,
    /// Its stack trace.
    pub stack_trace: Option<String>,
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
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.call_timeout)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
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

    /// Operation 4: Looks keys up, [`MAPPING_KEYS_MAX`] a call. A key without an entry has no mapping.
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
        let mut found = HashMap::with_capacity(keys.len());
        let mut refused = 0;
        // An empty key is refused for sure, and has no mapping.
        let keys: Vec<&str> = keys
            .iter()
            .map(String::as_str)
            .filter(|key| !key.is_empty())
            .collect();
        let mut parts: Vec<&[&str]> = keys.chunks(MAPPING_KEYS_MAX).rev().collect();
        while let Some(part) = parts.pop() {
            match self.find_part(tenant, transfer_id, namespace, part).await {
                Ok(Value::Object(entries)) => {
                    found.extend(
                        entries
                            .into_iter()
                            .filter_map(|(key, value)| Some((key, scalar(value)?))),
                    );
                }
                Ok(_) => return Err(malformed("no object of mappings")),
                Err(CallError::Refused {
                    kind: Refusal::BadRequest | Refusal::TooLarge,
                    ..
                }) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(CallError::Refused {
                    kind: Refusal::BadRequest | Refusal::TooLarge,
                    ..
                }) if refused < REFUSED_KEYS_MAX && keys.len() > 1 => {
                    refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if refused == keys.len() && refused > 0 {
            return Err(CallError::Refused {
                status: 400,
                kind: Refusal::BadRequest,
                says_settled: false,
            });
        }
        if refused > 0 {
            tracing::warn!(
                transfer.id = transfer_id,
                mapping.namespace = namespace,
                keys = refused,
                "the platform refused mapping keys"
            );
        }
        Ok(found)
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
        json(&answer::body(response, ANSWER_MAX).await?)
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
        let mut answer = self
            .get(tenant, &["mapping", transfer_id, "page"], &query)
            .await?;
        let next = next_page(&answer)?;
        let Some(Value::Object(items)) = answer.get_mut("items").map(Value::take) else {
            return Err(malformed("no items"));
        };
        let items = items
            .into_iter()
            .filter_map(|(key, value)| Some((key, scalar(value)?)))
            .collect();
        Ok(Page { items, next })
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
        let Value::Array(entries) = json(&answer::body(response, LIST_MAX).await?)? else {
            return Err(malformed("no list of files"));
        };
        let count = entries.len();
        let files: Vec<ListedFile> = entries.iter().filter_map(listed_file).collect();
        if files.len() < count {
            tracing::warn!(
                transfer.id = transfer_id,
                entries = count - files.len(),
                "the platform lists files without a usable key"
            );
        }
        Ok(files)
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

    /// Operation 9: One page of a transfer's containers, each with its id and the rest as the platform has it. `kind` is `ConfluenceSpace`, `JiraProject`
    /// or `Site`; `size` is 1 to 250.
    pub async fn container_page(
        &self,
        tenant: &Tenant,
        transfer_id: &str,
        kind: &str,
        after: Option<&str>,
        size: u8,
    ) -> Result<Page<(String, Value)>, CallError> {
        let size = size.to_string();
        let mut query = vec![("containerType", kind), ("pageSize", size.as_str())];
        query.extend(after.map(|after| ("lastEntity", after)));
        let mut answer = self
            .get(tenant, &["container", transfer_id, "page"], &query)
            .await?;
        let next = next_page(&answer)?;
        let Some(Value::Object(containers)) = answer.get_mut("containers").map(Value::take) else {
            return Err(malformed("no containers"));
        };
        Ok(Page {
            items: containers.into_iter().collect(),
            next,
        })
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
        let body = serde_json::to_vec(body).map_err(|error| CallError::NotSent {
            reason: error.to_string(),
        })?;
        let request = self
            .request(tenant, Method::PUT, operation, &[])?
            .header("Atlassian-Transfer-Id", transfer_id)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        self.send(request).await.map(drop)
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
        json(&answer::body(response, ANSWER_MAX).await?)
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
            let body = serde_json::to_vec(body).map_err(|error| CallError::NotSent {
                reason: error.to_string(),
            })?;
            request = request.header(CONTENT_TYPE, "application/json").body(body);
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
        let mut url = tenant.base_url.clone();
        let base_path = url.path().trim_end_matches('/').to_owned();
        let mut relative = API.to_owned();
        for segment in path {
            // A dot segment would be resolved away and address another operation, however it is encoded.
            if matches!(*segment, "" | "." | "..") {
                return Err(CallError::NotSent {
                    reason: "an identity that can't be part of a path".into(),
                });
            }
            relative.push('/');
            relative.extend(utf8_percent_encode(segment, RESERVED));
        }
        let query = query
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED)))
            .collect::<Vec<_>>()
            .join("&");
        url.set_path(&format!("{base_path}{relative}"));
        url.set_query((!query.is_empty()).then_some(query.as_str()));
        let canonical = qsh::canonical(method.as_str(), &relative, &query);
        let outgoing = Outgoing {
            app_key: &self.settings.app_key,
            audience: Some(&tenant.client_key),
            canonical: &canonical,
        };
        let token = token::mint(outgoing, &tenant.secret, self.clock.now().as_seconds());
        let mut authorization = HeaderValue::from_str(&format!("JWT {}", token.expose_secret()))
            .map_err(|error| CallError::NotSent {
                reason: error.to_string(),
            })?;
        authorization.set_sensitive(true);
        // Confluence bans apps whose calls during a migration lack the mark (PROTOCOL 6).
        Ok(self
            .http
            .request(method, url)
            .header(AUTHORIZATION, authorization)
            .header("Migration-App", "true"))
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, CallError> {
        let response = request.send().await.map_err(answer::transport)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(answer::refused(response, self.clock.now().as_seconds()).await)
    }
}

fn malformed(reason: &str) -> CallError {
    CallError::Malformed {
        reason: reason.to_owned(),
    }
}

fn json(body: &[u8]) -> Result<Value, CallError> {
    serde_json::from_slice(body).map_err(|_| malformed("not JSON"))
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// A mapping's value: text, or a number that we take as its text.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Where the next page begins: `hasNext` alone decides whether there is one (OPEN-QUESTIONS C11).
fn next_page(answer: &Value) -> Result<Option<String>, CallError> {
    let meta = answer.get("meta").ok_or_else(|| malformed("no meta"))?;
    if meta.get("hasNext").and_then(Value::as_bool) != Some(true) {
        return Ok(None);
    }
    let last = meta.get("lastEntity").cloned().and_then(scalar);
    last.map(Some)
        .ok_or_else(|| malformed("more pages without lastEntity"))
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
pub(crate) mod tests;
