//! A bucket in memory whose calls fail on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use landfall_import::sink::s3::{Bucket, BucketError, StoredObject};
use serde_json::Value;

/// What goes wrong at one call of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NotDone,
    DoneUnheard,
}

#[derive(Debug, Default)]
struct Stored {
    objects: BTreeMap<String, (Bytes, i64)>,
    uploads: BTreeMap<String, (String, BTreeMap<u64, Bytes>)>,
    begun: usize,
    /// Calls so far, which are its clock.
    calls: i64,
    /// By call, from the next one on; `None` lets one pass.
    faults: VecDeque<Option<Fault>>,
}

/// A bucket in memory. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryBucket(Arc<Mutex<Stored>>);

impl MemoryBucket {
    fn call<T>(
        &self,
        act: impl FnOnce(&mut Stored) -> Result<T, BucketError>,
    ) -> Result<T, BucketError> {
        let mut stored = self.0.lock().unwrap();
        stored.calls += 1;
        let fault = stored.faults.pop_front().flatten();
        let lost = || BucketError::Unavailable {
            reason: "a test wants it".to_owned(),
        };
        if fault == Some(Fault::NotDone) {
            return Err(lost());
        }
        let done = act(&mut stored)?;
        if fault == Some(Fault::DoneUnheard) {
            return Err(lost());
        }
        Ok(done)
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> usize {
        usize::try_from(self.0.lock().unwrap().calls).unwrap()
    }

    /// This goes wrong once so many calls, from the next one on, have passed.
    pub(crate) fn fails_at(&self, call: usize, fault: Fault) {
        let faults = (0..call).map(|_| None).chain([Some(fault)]);
        self.0.lock().unwrap().faults = faults.collect();
    }

    /// Somebody aborts every upload from outside.
    pub(crate) fn abort_uploads(&self) {
        self.0.lock().unwrap().uploads.clear();
    }

    /// Somebody deletes an object.
    pub(crate) fn delete(&self, name: &str) {
        self.0.lock().unwrap().objects.remove(name).unwrap();
    }

    /// Somebody writes an object that is none of ours, or cuts one short.
    pub(crate) fn tamper(&self, name: &str, content: impl Into<Bytes>) {
        let mut stored = self.0.lock().unwrap();
        let now = stored.calls;
        stored
            .objects
            .insert(name.to_owned(), (content.into(), now));
    }

    /// Names and contents.
    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        let stored = self.0.lock().unwrap();
        let entry =
            |(name, (content, _)): (&String, &(Bytes, i64))| (name.clone(), content.clone());
        stored.objects.iter().map(entry).collect()
    }

    /// The indexes of an attempt.
    pub(crate) fn indexes(&self, transfer: &str) -> Vec<Value> {
        self.objects()
            .iter()
            .filter(|(name, _)| {
                name.contains(&format!("/{transfer}/")) && name.ends_with("/index.json")
            })
            .map(|(_, content)| serde_json::from_slice(content).unwrap())
            .collect()
    }

    /// The objects that a list of an index names, each as long as it says.
    pub(crate) fn named(&self, list: &Value) -> Vec<Bytes> {
        let objects = self.objects();
        let named = list.as_array().unwrap().iter();
        named
            .map(|object| {
                let content = objects[object["name"].as_str().unwrap()].clone();
                assert_eq!(object["bytes"], content.len());
                content
            })
            .collect()
    }

    /// The records of a label as a consumer has them after an attempt: `earlier` of every index first, and of a key the last line counts.
    pub(crate) fn records(&self, transfer: &str) -> BTreeMap<String, String> {
        let indexes = self.indexes(transfer);
        let mut records = BTreeMap::new();
        for list in ["earlier", "objects"] {
            for content in indexes.iter().flat_map(|index| self.named(&index[list])) {
                for line in std::str::from_utf8(&content).unwrap().lines() {
                    let line: Value = serde_json::from_str(line).unwrap();
                    let key = line["key"].as_str().unwrap().to_owned();
                    records.insert(key, line["record"].to_string());
                }
            }
        }
        records
    }
}

impl Bucket for MemoryBucket {
    async fn put(
        &self,
        name: &str,
        content: Bytes,
        _content_type: &'static str,
    ) -> Result<(), BucketError> {
        assert!(name.len() <= 1024);
        self.call(|stored| {
            let now = stored.calls;
            stored.objects.insert(name.to_owned(), (content, now));
            Ok(())
        })
    }

    async fn read(&self, name: &str, from: u64, bytes: u64) -> Result<Option<Bytes>, BucketError> {
        self.call(|stored| {
            let content = stored.objects.get(name).map(|(content, _)| content);
            let [from, bytes] = [from, bytes].map(|count| usize::try_from(count).unwrap());
            Ok(content
                .filter(|content| from < content.len())
                .map(|content| content.slice(from..content.len().min(from + bytes))))
        })
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, BucketError> {
        self.call(|stored| Ok(stored.objects.get(name).map(|(content, _)| content.clone())))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, BucketError> {
        self.call(|stored| {
            let begins = |(name, _): &(&String, _)| name.starts_with(prefix);
            let objects = stored.objects.iter().filter(begins);
            Ok(objects
                .map(|(name, (content, written_at_ms))| StoredObject {
                    name: name.clone(),
                    bytes: content.len() as u64,
                    written_at_ms: *written_at_ms,
                })
                .collect())
        })
    }

    async fn begin_upload(&self, name: &str) -> Result<String, BucketError> {
        self.call(|stored| {
            stored.begun += 1;
            let upload = format!("upload-{}", stored.begun);
            let begun = (name.to_owned(), BTreeMap::new());
            stored.uploads.insert(upload.clone(), begun);
            Ok(upload)
        })
    }

    async fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: u64,
        content: Bytes,
    ) -> Result<(), BucketError> {
        self.call(|stored| {
            let begun = stored.uploads.get_mut(upload);
            let (begun, parts) = begun.ok_or(BucketError::UploadGone)?;
            assert_eq!(begun, name);
            parts.insert(number, content);
            Ok(())
        })
    }

    async fn complete_upload(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
    ) -> Result<(), BucketError> {
        self.call(|stored| {
            let begun = stored.uploads.remove(upload);
            let (begun, uploaded) = begun.ok_or(BucketError::UploadGone)?;
            assert_eq!(begun, name);
            let numbers: Vec<u64> = uploaded.keys().copied().collect();
            assert_eq!(numbers, (1..=parts).collect::<Vec<_>>());
            let (last, others) = numbers.split_last().unwrap();
            let long_enough = |number: &u64| uploaded[number].len() >= 5 * 1024 * 1024;
            assert!(others.iter().all(long_enough), "before part {last}");
            let content = uploaded.into_values().collect::<Vec<Bytes>>().concat();
            let now = stored.calls;
            stored
                .objects
                .insert(name.to_owned(), (content.into(), now));
            Ok(())
        })
    }
}
