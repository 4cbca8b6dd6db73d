//! The Forge REST API, all nine operations (PROTOCOL 7.7).
//!
//! Every call has an end, no redirect is followed, and no GET has a body. The token that a call is made with came from the platform with an
//! invocation and ends by itself: whoever calls keeps the newest one (PROTOCOL 7.5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use landfall_clock::Clock;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION};
use reqwest::{Method, RequestBuilder, Response};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use crate::call::lookup::Lookup;
use crate::call::{self, ANSWER_MAX, LIST_MAX, malformed, scalar, text};
use crate::downloads::{Download, SignedUrl};
use crate::event::{bounded_label, is_identity};

pub use crate::call::{CallError, ListedFile, Page, Refusal};

/// Where the API begins, unless the configuration says otherwise (PROTOCOL 7.7).
pub const BASE_URL: &str = "https://api.atlassian.com/app/migration/forge/v1";

/// Most messages that one call answers (OPEN-QUESTIONS D10).
pub const MESSAGES_MAX: usize = 50;

/// Most mappings of a page (PROTOCOL 7.7).
pub const MAPPING_PAGE_MAX: u16 = 1_200;

/// Most files of a page (PROTOCOL 7.7).
pub const FILE_PAGE_MAX: u16 = 1_000;

/// Most pages of one list of files: a hundred times the number of files that a large export has.
const FILE_PAGES_MAX: usize = 1_000;

/// Most characters of a log message (PROTOCOL 7.7).
const LOG_MAX: usize = 65_536;

/// How the client calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API begins: the configured URL, checked by [`crate::hosts::configured`].
    pub base_url: Url,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time for one call, from connecting to the last byte.
    pub call_timeout: Duration,
    /// Longest time for one call that answers a whole list of files.
    pub list_timeout: Duration,
    /// Longest wait for the head of a file's answer, and for each further chunk.
    pub idle_timeout: Duration,
}

impl Settings {
    /// 3 s to connect, 10 s for a call, 30 s for a list, 20 s for the next bytes of a file.
    pub const fn new(base_url: Url) -> Self {
        Self {
            base_url,
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(10),
            list_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(20),
        }
    }
}

/// By what right a call is made.
#[derive(Clone, Debug)]
pub struct Access {
    /// The newest system token of the installation that the call concerns (`x-forge-oauth-system`).
    pub token: SecretString,
}

/// How a message is answered (PROTOCOL 7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// Its file is done.
    Success,
    /// Its file can't be done. One such answer may end the transfer (OPEN-QUESTIONS D8).
    Failed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answers<'a> {
    status: Outcome,
    message_ids: &'a [String],
}

/// Calls the platform. Cheap to clone; connections are shared.
///
/// Of the errors, [`CallError::Unauthorized`] says that the token is not accepted (401 or 403): the same call may do with a newer one.
/// [`Refusal::Settled`] says that the transfer is settled (409).
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    settings: Arc<Settings>,
    clock: Clock,
}

impl Client {
    /// A client that takes the time from `clock`.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: call::http(settings.connect_timeout)?,
            settings: Arc::new(settings),
            clock,
        })
    }

    /// Operation 1: Answers messages, all alike: those of files that are done, or of files that can't be. With no message nothing is sent.
    ///
    /// More than [`MESSAGES_MAX`] are refused before they are sent, as too large. The same answer may be given again; another one may not
    /// count (OPEN-QUESTIONS D9).
    pub async fn answer_messages(
        &self,
        access: &Access,
        transfer_id: &str,
        outcome: Outcome,
        message_ids: &[String],
    ) -> Result<(), CallError> {
        if message_ids.is_empty() {
            return Ok(());
        }
        if message_ids.len() > MESSAGES_MAX {
            return Err(CallError::Refused {
                status: 413,
                kind: Refusal::TooLarge,
                says_settled: false,
            });
        }
        let answers = Answers {
            status: outcome,
            message_ids,
        };
        self.post(access, &["message", transfer_id, "status"], &[], &answers)
            .await
            .map(drop)
    }

    /// Operation 2: Looks keys up, a hundred a call. A key without an entry has no mapping.
    ///
    /// A call that the platform finds wrong or too large is halved (OPEN-QUESTIONS C1), down to single keys: one that is refused alone counts
    /// as unmapped, so that a strange key in the customer's data doesn't stop a file. More than a few of these are an error.
    pub async fn find_mappings(
        &self,
        access: &Access,
        transfer_id: &str,
        namespace: &str,
        keys: &[String],
    ) -> Result<HashMap<String, String>, CallError> {
        let mut lookup = Lookup::of(keys);
        while let Some(part) = lookup.next_part() {
            let answer = self
                .find_part(access, transfer_id, namespace, lookup.keys(&part))
                .await;
            lookup.take(part, answer)?;
        }
        lookup.finish(transfer_id, namespace)
    }

    async fn find_part(
        &self,
        access: &Access,
        transfer_id: &str,
        namespace: &str,
        keys: &[&str],
    ) -> Result<Value, CallError> {
        let path = ["mapping", transfer_id, "find"];
        let response = self
            .post(access, &path, &[("namespace", namespace)], keys)
            .await?;
        call::json(&call::body(response, ANSWER_MAX).await?)
    }

    /// Operation 3: One page of all mappings of a namespace, as pairs of server key and cloud value. `size` is 1 to [`MAPPING_PAGE_MAX`].
    pub async fn mapping_page(
        &self,
        access: &Access,
        transfer_id: &str,
        namespace: &str,
        after: Option<&str>,
        size: u16,
    ) -> Result<Page<(String, String)>, CallError> {
        let size = size.to_string();
        let mut query = vec![("namespace", namespace), ("pageSize", size.as_str())];
        query.extend(after.map(|after| ("lastEntity", after)));
        call::mapping_page(
            self.get(access, &["mapping", transfer_id, "page"], &query)
                .await?,
        )
    }

    /// Operation 4: Adds a message to the transfer's log, which the customer reads. A message that is too long is cut.
    ///
    /// Nothing says that the platform notices a repetition: after [`CallError::Unknown`] the message may be there twice.
    pub async fn add_log(
        &self,
        access: &Access,
        transfer_id: &str,
        message: &str,
    ) -> Result<(), CallError> {
        let body = json!({ "message": cut(message) });
        self.post(access, &["log", transfer_id], &[], &body)
            .await
            .map(drop)
    }

    /// Operation 5: A URL from which a file can be fetched for an hour, without a token. Check it with the list of download hosts: [`crate::downloads`] does.
    pub async fn signed_url(&self, access: &Access, key: &str) -> Result<SignedUrl, CallError> {
        let answer = self.get(access, &["data", key], &[]).await?;
        text(&answer, "url")
            .map(SignedUrl::new)
            .ok_or_else(|| malformed("no url"))
    }

    /// Operation 6: Opens a file through the platform itself, always from its beginning. Chunk by chunk, since it may be larger than any
    /// memory: only the wait for each has an end.
    pub async fn payload(&self, access: &Access, key: &str) -> Result<Download, CallError> {
        // The bytes as they are stored: a checkpoint counts them, so nothing may be encoded on the way.
        let request = self
            .request(access, Method::GET, &["data", key, "payload"], &[])?
            .header(ACCEPT_ENCODING, "identity");
        let idle_timeout = self.settings.idle_timeout;
        let response = self
            .clock
            .timeout(idle_timeout, self.send(request))
            .await
            .map_err(|_| CallError::Unknown {
                reason: "no answer in time".into(),
            })??;
        Ok(Download::whole(response, idle_timeout, self.clock.clone()))
    }

    /// Operations 8 and 7: All files that the server app has uploaded for a transfer, page by page.
    ///
    /// Where the platform has no pages yet it answers 404 to the first (PROTOCOL 7.7), and is asked for everything at once. The next list
    /// begins with pages again.
    pub async fn file_list(
        &self,
        access: &Access,
        transfer_id: &str,
    ) -> Result<Vec<ListedFile>, CallError> {
        let mut files = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..FILE_PAGES_MAX {
            let page = self
                .file_page(access, transfer_id, after.as_deref(), FILE_PAGE_MAX)
                .await;
            let page = match page {
                Err(CallError::Refused { status: 404, .. }) if after.is_none() => {
                    return self.all_files(access, transfer_id).await;
                }
                page => page?,
            };
            files.extend(page.items);
            if page.next.is_none() {
                return Ok(files);
            }
            if page.next == after {
                return Err(malformed("a page that follows itself"));
            }
            after = page.next;
        }
        Err(malformed("a list of files without an end"))
    }

    /// Operation 7: All files at once. The platform calls it deprecated, since it takes much memory.
    pub async fn all_files(
        &self,
        access: &Access,
        transfer_id: &str,
    ) -> Result<Vec<ListedFile>, CallError> {
        let request = self
            .request(access, Method::GET, &["data", transfer_id, "all"], &[])?
            .timeout(self.settings.list_timeout);
        let response = self.send(request).await?;
        let Value::Array(entries) = call::json(&call::body(response, LIST_MAX).await?)? else {
            return Err(malformed("no list of files"));
        };
        Ok(call::listed_files(transfer_id, &entries, listed_file))
    }

    /// Operation 8: One page of a transfer's files. `size` is 1 to [`FILE_PAGE_MAX`]. A 404 to the first page may mean that the platform
    /// has no pages yet: [`Self::file_list`] knows what to do then.
    pub async fn file_page(
        &self,
        access: &Access,
        transfer_id: &str,
        after: Option<&str>,
        size: u16,
    ) -> Result<Page<ListedFile>, CallError> {
        let size = size.to_string();
        let mut query = vec![("pageSize", size.as_str())];
        query.extend(after.map(|after| ("lastEvaluatedKey", after)));
        let mut answer = self
            .get(access, &["data", transfer_id, "page"], &query)
            .await?;
        let next = answer
            .get_mut("lastEvaluatedKey")
            .map(Value::take)
            .and_then(scalar)
            .filter(|next| !next.is_empty());
        let entries = answer
            .get("items")
            .and_then(Value::as_array)
            .ok_or_else(|| malformed("no items"))?;
        Ok(Page {
            items: call::listed_files(transfer_id, entries, listed_file),
            next,
        })
    }

    /// Operation 9: One page of the server's ids (`sourceId`) of a transfer's containers. `container_type` is `ConfluenceSpace` or `JiraProject`; those of a
    /// `Site` have none. That entries have that field here, too, is assumed (OPEN-QUESTIONS C12).
    pub async fn container_page(
        &self,
        access: &Access,
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
        let answer = self.get(access, &path, &query).await?;
        call::container_page(transfer_id, container_type, answer)
    }

    /// Jira's operations for migrating apps (PROTOCOL 6), as [`crate::connect::client::Client::write_to_jira`] has them, below `product_api`: the installation's
    /// `app.apiBaseUrl`, admitted by the list of hosts.
    ///
    /// They are documented for Connect apps only. That they are below that base as all of the product's REST API is, and take the system token, is assumed; where Jira doesn't
    /// take it, it answers 401 or 403. As on Connect, and unlike in the migration API, 403 may also mean that it doesn't know the transfer.
    pub async fn write_to_jira(
        &self,
        access: &Access,
        product_api: &Url,
        transfer_id: &str,
        operation: &[&str],
        body: &Value,
    ) -> Result<(), CallError> {
        let path = format!("{}{}", call::PRODUCT_API, call::path(operation)?);
        let request = self
            .http
            .request(Method::PUT, call::below(product_api, &path, ""))
            .timeout(self.settings.call_timeout)
            .header(AUTHORIZATION, call::authorization("Bearer", &access.token)?)
            .header(call::TRANSFER_ID, transfer_id);
        let now = || self.clock.now().as_seconds();
        call::send(call::with_json(request, body)?, now)
            .await
            .map(drop)
    }

    async fn get(
        &self,
        access: &Access,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, CallError> {
        let request = self
            .request(access, Method::GET, path, query)?
            .timeout(self.settings.call_timeout);
        let response = self.send(request).await?;
        call::json(&call::body(response, ANSWER_MAX).await?)
    }

    async fn post<Body: Serialize + ?Sized>(
        &self,
        access: &Access,
        path: &[&str],
        query: &[(&str, &str)],
        body: &Body,
    ) -> Result<Response, CallError> {
        let request = self
            .request(access, Method::POST, path, query)?
            .timeout(self.settings.call_timeout);
        self.send(call::with_json(request, body)?).await
    }

    /// A request that has yet to be given its time-out.
    fn request(
        &self,
        access: &Access,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, CallError> {
        let url = call::below(
            &self.settings.base_url,
            &call::path(path)?,
            &call::query(query),
        );
        let authorization = call::authorization("Bearer", &access.token)?;
        Ok(self
            .http
            .request(method, url)
            .header(AUTHORIZATION, authorization))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        call::send(request, || self.clock.now().as_seconds())
            .await
            .map_err(of_forge)
    }
}

/// What two statuses mean here and not elsewhere: 403 that the token is not accepted, 409 that the transfer is settled (PROTOCOL 7.7).
fn of_forge(error: CallError) -> CallError {
    match error {
        CallError::Refused { status: 403, .. } => CallError::Unauthorized,
        CallError::Refused {
            status: 409,
            says_settled,
            ..
        } => CallError::Refused {
            status: 409,
            kind: Refusal::Settled,
            says_settled,
        },
        error => error,
    }
}

/// The beginning of a message, as much as the platform takes. It may count as Java does, where a character beyond the first 65,536 counts
/// twice.
fn cut(message: &str) -> &str {
    let mut length = 0;
    let end = message.char_indices().find_map(|(start, character)| {
        length += character.len_utf16();
        (length > LOG_MAX).then_some(start)
    });
    &message[..end.unwrap_or(message.len())]
}

/// A file of a list: `key` is its name there, and an older list may say `s3Key` (PROTOCOL 7.8).
fn listed_file(entry: &Value) -> Option<ListedFile> {
    let key = text(entry, "key").or_else(|| text(entry, "s3Key"));
    Some(ListedFile {
        s3_key: key.filter(|key| is_identity(key))?.to_owned(),
        label: text(entry, "label").map(|label| bounded_label(label).into_owned()),
    })
}

#[cfg(test)]
mod tests;
