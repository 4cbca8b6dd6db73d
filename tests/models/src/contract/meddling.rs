use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{
    DueEntries, DueEntry, Error, Item, Key, Many, Page, Returning, Table, Which, Write, WriteError,
};

/// A table on which somebody else acts right before one write.
pub(super) struct Meddled {
    table: Arc<dyn Table>,
    /// How many writes come before that one, and what is done then.
    meddling: Mutex<(usize, Option<BoxFuture<'static, ()>>)>,
}

impl Meddled {
    pub(super) fn new(
        table: Arc<dyn Table>,
        writes_before: usize,
        meddling: BoxFuture<'static, ()>,
    ) -> Self {
        Self {
            table,
            meddling: Mutex::new((writes_before, Some(meddling))),
        }
    }

    /// What is to be done before the next write.
    fn next(&self) -> Option<BoxFuture<'static, ()>> {
        let mut meddling = self.meddling.lock().unwrap_or_else(PoisonError::into_inner);
        if meddling.0 == 0 {
            return meddling.1.take();
        }
        meddling.0 -= 1;
        None
    }

    async fn meddle(&self) {
        if let Some(meddling) = self.next() {
            meddling.await;
        }
    }
}

impl fmt::Debug for Meddled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Meddled").finish_non_exhaustive()
    }
}

impl Table for Meddled {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        consistent: bool,
    ) -> BoxFuture<'a, Result<Option<Item>, Error>> {
        self.table.get(key, consistent)
    }

    fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> BoxFuture<'_, Result<Many, Error>> {
        self.table.get_many(which, keys, attributes)
    }

    fn query<'a>(
        &'a self,
        partition: &'a str,
        prefix: &'a str,
        after: Option<Key>,
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        self.table.query(partition, prefix, after, limit)
    }

    fn due<'a>(
        &'a self,
        shard: &'a str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> BoxFuture<'a, Result<DueEntries, Error>> {
        self.table.due(shard, until, limit, after)
    }

    fn write(&self, write: Write, returning: Returning) -> BoxFuture<'_, Result<Item, WriteError>> {
        async move {
            self.meddle().await;
            self.table.write(write, returning).await
        }
        .boxed()
    }

    fn transact(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            self.meddle().await;
            self.table.transact(writes).await
        }
        .boxed()
    }
}
