//! Ports that stop before every call until the search lets it through, and that keep what their task has seen.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_lifecycle::{Api, Opened, Tenant};
use landfall_models::{QueueModel, TableModel};
use landfall_platform::connect::client::{
    CallError, ListedFile, Page as PageOf, Progress, Recent, ServerError,
};
use landfall_platform::downloads::{DownloadError, SignedUrl};
use landfall_tracking::{
    DueEntries, DueEntry, Error, Item, Key, Messages, Page, Received, Returning, Table, Which,
    Write, WriteError,
};
use landfall_transfer::{MessageOutcome, TransferId};

use crate::platform::PlatformModel;

/// Where one task's calls wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    made: u64,
    waiting: Vec<(u64, String, Waker)>,
    seen: u64,
    broken: Option<String>,
}

impl Gate {
    /// The call that goes on next, in words; none when the task waits for nothing.
    pub(crate) fn next(&self) -> Option<String> {
        self.lock().waiting.first().map(|(_, call, _)| call.clone())
    }

    /// A row of a tenant that the task changed, which breaks what the search takes for granted.
    pub(crate) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Lets the next call through.
    pub(crate) fn open(&self) {
        let waker = {
            let mut calls = self.lock();
            (!calls.waiting.is_empty()).then(|| calls.waiting.remove(0).2)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What the task has seen so far, and what it waits for: its own state follows from nothing else.
    pub(crate) fn fingerprint(&self, hasher: &mut impl Hasher) {
        let calls = self.lock();
        calls.seen.hash(hasher);
        for (_, call, _) in &calls.waiting {
            call.hash(hasher);
        }
    }

    fn pass(&self, call: String) -> Pass {
        Pass {
            gate: self.clone(),
            call: Some(call),
            ticket: 0,
        }
    }

    fn see<T: Debug>(&self, result: T) -> T {
        let mut hasher = DefaultHasher::new();
        let mut calls = self.lock();
        (calls.seen, format!("{result:?}")).hash(&mut hasher);
        calls.seen = hasher.finish();
        drop(calls);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits at the gate.
struct Pass {
    gate: Gate,
    call: Option<String>,
    ticket: u64,
}

impl Future for Pass {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let call = self.call.take();
        let gate = self.gate.clone();
        let mut calls = gate.lock();
        if let Some(call) = call {
            calls.made += 1;
            self.ticket = calls.made;
            calls
                .waiting
                .push((self.ticket, call, context.waker().clone()));
            return Poll::Pending;
        }
        let ticket = self.ticket;
        match calls
            .waiting
            .iter_mut()
            .find(|(other, ..)| *other == ticket)
        {
            Some((_, _, waker)) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

/// A model behind a task's gate.
#[derive(Debug)]
pub(crate) struct Gated<Model> {
    pub(crate) model: Model,
    pub(crate) gate: Gate,
}

impl<Model> Gated<Model> {
    /// Carries a call out once it is let through. A call that commutes with every other is carried out at once: nobody could
    /// tell when it was.
    async fn call<T: Debug>(
        &self,
        operation: &str,
        subject: &str,
        commutes: bool,
        call: impl Future<Output = T>,
    ) -> T {
        if !commutes {
            self.gate.pass(format!("{operation} {subject}")).await;
        }
        self.gate.see(call.await)
    }
}

/// The timeline, which nobody reads, and the mappings that were used, of which none is ever lost here.
fn is_aside(key: &Key) -> bool {
    ["LOG#", "MAPPINGS#"]
        .iter()
        .any(|aside| key.sort.starts_with(aside))
}

/// A tenant, whom nothing changes while the tasks run, and whose secret is sealed with chance.
fn is_tenant(key: &Key) -> bool {
    key.partition.starts_with("TENANT#")
}

/// The pace of a site decides when a call is made and never what comes of it; here nobody refuses one.
fn is_pace(key: &Key) -> bool {
    is_tenant(key) && key.sort == "PACE"
}

impl Table for Gated<TableModel> {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        consistent: bool,
    ) -> BoxFuture<'a, Result<Option<Item>, Error>> {
        let call = self.model.get(key, consistent);
        let about = format!("{} {}", key.partition, key.sort);
        async move {
            if is_tenant(key) {
                return call.await;
            }
            self.call("get", &about, false, call).await
        }
        .boxed()
    }

    fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> BoxFuture<'_, Result<(Vec<(Key, Item)>, Vec<Key>), Error>> {
        let call = self.model.get_many(which, keys, attributes);
        async move { self.call("get_many", "records", false, call).await }.boxed()
    }

    fn query<'a>(
        &'a self,
        partition: &'a str,
        prefix: &'a str,
        after: Option<Key>,
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let call = self.model.query(partition, prefix, after, limit);
        async move { self.call("query", prefix, false, call).await }.boxed()
    }

    fn due<'a>(
        &'a self,
        shard: &'a str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> BoxFuture<'a, Result<DueEntries, Error>> {
        let call = self.model.due(shard, until, limit, after);
        async move { self.call("due", shard, false, call).await }.boxed()
    }

    fn write(&self, write: Write, returning: Returning) -> BoxFuture<'_, Result<Item, WriteError>> {
        if is_pace(&write.key) {
            return self.model.write(write, returning);
        }
        if is_tenant(&write.key) {
            // The search takes it for something that never changes.
            self.gate
                .lock()
                .broken
                .get_or_insert(write.key.sort.clone());
        }
        let commutes = is_aside(&write.key);
        let about = format!("{} {}", write.key.partition, write.key.sort);
        let call = self.model.write(write, returning);
        async move { self.call("write", &about, commutes, call).await }.boxed()
    }

    fn transact(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        let about: Vec<&str> = writes
            .iter()
            .take(3)
            .map(|write| write.key.sort.as_str())
            .collect();
        let about = about.join(" + ");
        let call = self.model.transact(writes);
        async move { self.call("transact", &about, false, call).await }.boxed()
    }
}

impl Messages for Gated<QueueModel> {
    fn send(
        &self,
        body: String,
        group: String,
        delay: Duration,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let call = self.model.send(body, group, delay);
        // Messages are only ever added here, and handed out when all tasks have ended.
        async move { self.call("send", "", true, call).await }.boxed()
    }

    fn receive(&self, hidden_for: Duration) -> BoxFuture<'_, Result<Vec<Received>, Error>> {
        // Nothing becomes a dead letter while the tasks run.
        let call = self.model.receive(hidden_for);
        async move { self.call("receive", "", true, call).await }.boxed()
    }

    fn delete<'a>(&'a self, receipt: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let call = self.model.delete(receipt);
        async move { self.call("delete", "", true, call).await }.boxed()
    }
}

impl Api for Gated<PlatformModel> {
    fn send_progress<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let about = format!("{} {:?}", transfer.as_str(), progress.status);
        let call = self.model.send_progress(tenant, transfer, progress);
        async move { self.call("progress", &about, false, call).await }.boxed()
    }

    fn recent<'call>(
        &'call self,
        tenant: &'call Tenant,
    ) -> BoxFuture<'call, Result<Recent, CallError>> {
        let call = self.model.recent(tenant);
        async move { self.call("recent", "", false, call).await }.boxed()
    }

    fn file_list<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        let call = self.model.file_list(tenant, transfer);
        async move { self.call("file_list", transfer.as_str(), false, call).await }.boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        let call = self.model.signed_url(tenant, s3_key);
        async move { self.call("signed_url", s3_key, false, call).await }.boxed()
    }

    fn find_mappings<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        keys: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>> {
        let call = self.model.find_mappings(tenant, transfer, namespace, keys);
        async move {
            // Whether they were found is all that can differ; a map's order is chance.
            self.gate.pass(format!("mappings {namespace}")).await;
            let found = call.await;
            self.gate.see(found.as_ref().map(HashMap::len)).ok();
            found
        }
        .boxed()
    }

    fn mapping_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        namespace: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<PageOf<(String, String)>, CallError>> {
        let call = self.model.mapping_page(tenant, transfer, namespace, after);
        async move { self.call("mapping_page", namespace, false, call).await }.boxed()
    }

    fn container_page<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        container_type: &'call str,
        after: Option<&'call str>,
    ) -> BoxFuture<'call, Result<PageOf<String>, CallError>> {
        let call = self
            .model
            .container_page(tenant, transfer, container_type, after);
        async move {
            self.call("container_page", container_type, false, call)
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
        let about = format!("{outcome:?} {messages:?}");
        let call = self
            .model
            .answer_messages(tenant, transfer, outcome, messages);
        async move { self.call("answer", &about, false, call).await }.boxed()
    }

    fn add_log<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
        line: &'call str,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        let call = self.model.add_log(tenant, transfer, line);
        async move { self.call("log", transfer.as_str(), false, call).await }.boxed()
    }

    fn server_error<'call>(
        &'call self,
        tenant: &'call Tenant,
        transfer: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        let call = self.model.server_error(tenant, transfer);
        async move {
            self.call("server_error", transfer.as_str(), false, call)
                .await
        }
        .boxed()
    }

    fn open<'call>(
        &'call self,
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        let call = self.model.open(url, from);
        async move {
            self.gate.pass(format!("open {from}")).await;
            let opened = call.await;
            let seen = opened.as_ref().map(|opened| opened.starts_at);
            self.gate.see(seen).ok();
            opened
        }
        .boxed()
    }
}
