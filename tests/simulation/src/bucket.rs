//! The partner's bucket in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use landfall_clock::Clock;
use landfall_import::sink::s3::{Bucket, BucketError, StoredObject};
use landfall_models::{Call, Fate, Weather};
use serde_json::Value;

/// A bucket in memory. Clones share its objects.
#[derive(Clone)]
pub struct BucketModel {
    stored: Arc<Mutex<Stored>>,
    weather: Arc<dyn Weather>,
    clock: Clock,
}

impl fmt::Debug for BucketModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BucketModel")
            .field("objects", &self.lock().objects.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Stored {
    objects: BTreeMap<String, (Bytes, i64)>,
    uploads: BTreeMap<String, Upload>,
    begun: u64,
}

#[derive(Debug)]
struct Upload {
    name: String,
    parts: BTreeMap<u64, Bytes>,
}

/// A file that is staged whole.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedFile {
    /// Whether all of the file was read.
    pub complete: bool,
    /// Its records, by key.
    pub records: BTreeMap<String, Value>,
}

impl BucketModel {
    /// An empty bucket; `clock` is the true one.
    pub fn new(weather: Arc<dyn Weather>, clock: Clock) -> Self {
        Self {
            stored: Arc::default(),
            weather,
            clock,
        }
    }

    /// The same objects under other weather, as another machine reaches them.
    #[must_use]
    pub fn seen_by(&self, weather: Arc<dyn Weather>) -> Self {
        Self {
            weather,
            ..self.clone()
        }
    }

    /// What the index of a transfer's file of this label names; none before the index is written. Of several files with the label it is one.
    pub fn staged(&self, transfer: &str, label: &str) -> Option<StagedFile> {
        let stored = self.lock();
        let folder = format!("/{transfer}/{label}/{transfer}/");
        let mut objects = stored.objects.iter();
        let (_, (index, _)) =
            objects.find(|(name, _)| name.contains(&folder) && name.ends_with("/index.json"))?;
        let index: Value = serde_json::from_slice(index).ok()?;
        let mut records = BTreeMap::new();
        for object in index["objects"].as_array()? {
            let (content, _) = stored.objects.get(object["name"].as_str()?)?;
            for line in std::str::from_utf8(content).ok()?.lines() {
                let line: Value = serde_json::from_str(line).ok()?;
                records.insert(line["key"].as_str()?.to_owned(), line["record"].clone());
            }
        }
        Some(StagedFile {
            complete: index["complete"] == true,
            records,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass<T: Send>(
        &self,
        operation: &'static str,
        name: &str,
        writes: bool,
        effect: impl Fn(&mut Stored) -> Result<T, BucketError> + Send,
    ) -> Result<T, BucketError> {
        let call = Call {
            operation,
            subject: name.to_owned(),
            writes,
            transaction: false,
        };
        let failed = |reason: &str| {
            Err(BucketError::Unavailable {
                reason: reason.to_owned(),
            })
        };
        let fate = self.weather.before(&call).await;
        let outcome = match fate {
            Fate::Works | Fate::Contended => effect(&mut self.lock()),
            Fate::Throttled => failed("SlowDown"),
            Fate::LostBefore => failed("no answer"),
            Fate::LostAfter => {
                drop(effect(&mut self.lock()));
                failed("no answer")
            }
            Fate::Repeated => {
                drop(effect(&mut self.lock()));
                effect(&mut self.lock())
            }
        };
        self.weather.after(&call).await;
        outcome
    }
}

impl Bucket for BucketModel {
    async fn put(
        &self,
        name: &str,
        content: Bytes,
        _content_type: &'static str,
    ) -> Result<(), BucketError> {
        let now = self.clock.now().as_millis();
        let effect = |stored: &mut Stored| {
            let object = (content.clone(), now);
            stored.objects.insert(name.to_owned(), object);
            Ok(())
        };
        self.pass("put_object", name, true, effect).await
    }

    async fn read(&self, name: &str, from: u64, bytes: u64) -> Result<Option<Bytes>, BucketError> {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let effect = |stored: &mut Stored| {
            let content = stored.objects.get(name).map(|(content, _)| content);
            let (from, to) = (place(from), place(from.saturating_add(bytes)));
            Ok(content
                .filter(|content| from < content.len())
                .map(|content| content.slice(from..to.min(content.len()))))
        };
        self.pass("read_object", name, false, effect).await
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, BucketError> {
        let effect = |stored: &mut Stored| {
            let object = stored.objects.get(name);
            Ok(object.map(|(content, _)| content.clone()))
        };
        self.pass("get_object", name, false, effect).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, BucketError> {
        let effect = |stored: &mut Stored| {
            let objects = stored.objects.iter();
            Ok(objects
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(name, (content, written_at_ms))| StoredObject {
                    name: name.clone(),
                    bytes: content.len() as u64,
                    written_at_ms: *written_at_ms,
                })
                .collect())
        };
        self.pass("list_objects", prefix, false, effect).await
    }

    async fn begin_upload(&self, name: &str) -> Result<String, BucketError> {
        let effect = |stored: &mut Stored| {
            stored.begun += 1;
            let id = format!("upload-{}", stored.begun);
            let upload = Upload {
                name: name.to_owned(),
                parts: BTreeMap::new(),
            };
            stored.uploads.insert(id.clone(), upload);
            Ok(id)
        };
        self.pass("begin_upload", name, true, effect).await
    }

    async fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: u64,
        content: Bytes,
    ) -> Result<(), BucketError> {
        let effect = |stored: &mut Stored| {
            let begun = stored.uploads.get_mut(upload);
            let begun = begun.filter(|begun| begun.name == name);
            let begun = begun.ok_or(BucketError::UploadGone)?;
            begun.parts.insert(number, content.clone());
            Ok(())
        };
        self.pass("put_part", name, true, effect).await
    }

    async fn complete_upload(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
    ) -> Result<(), BucketError> {
        let now = self.clock.now().as_millis();
        let effect = |stored: &mut Stored| {
            let begun = stored.uploads.remove(upload);
            let begun = begun.ok_or(BucketError::UploadGone)?;
            let some = begun.parts.range(..=parts);
            let content = some.flat_map(|(_, part)| part.iter().copied()).collect();
            stored.objects.insert(begun.name, (content, now));
            Ok(())
        };
        self.pass("complete_upload", name, true, effect).await
    }
}
