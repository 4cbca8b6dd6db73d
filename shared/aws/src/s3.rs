use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use landfall_import::sink::s3::{Bucket, BucketError, StoredObject};
use landfall_runtime::Patience;

/// One S3 bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    bucket: String,
}

impl S3 {
    /// Connects to the bucket with the credentials and the endpoint of the process's environment. A call with all its attempts takes at
    /// most `timeout`.
    pub async fn connect(bucket: &str, timeout: Duration) -> Self {
        let patience = Patience::BACKGROUND;
        // Half of it for one attempt: by default a piece of 8 MB still comes through 7 Mbit/s.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(patience.connect)
            .operation_attempt_timeout(timeout / 2)
            .operation_timeout(timeout)
            .build();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(patience.attempts))
            .load()
            .await;
        // Behind another endpoint than AWS's own a bucket has no host name of its own.
        let other_endpoint = shared.endpoint_url().is_some();
        let settings = Builder::from(&shared)
            .force_path_style(other_endpoint)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            client: Client::from_conf(settings),
            bucket: bucket.to_owned(),
        }
    }

    /// An object, or the range of it; none if there is no such object or range.
    async fn fetch(&self, name: &str, range: Option<String>) -> Result<Option<Bytes>, BucketError> {
        let outcome = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(name)
            .set_range(range)
            .send()
            .await;
        match outcome {
            Ok(object) => {
                let content = object.body.collect().await;
                let content = content.map_err(|_| unavailable("an object broke off"))?;
                Ok(Some(content.into_bytes()))
            }
            Err(error) if matches!(error.code(), Some("NoSuchKey" | "InvalidRange")) => Ok(None),
            Err(error) => Err(sort(&error)),
        }
    }

    /// The first `parts` parts of an upload, which S3 wants to be told by their tags.
    async fn parts(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
    ) -> Result<Vec<CompletedPart>, BucketError> {
        let mut pages = self
            .client
            .list_parts()
            .bucket(&self.bucket)
            .key(name)
            .upload_id(upload)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for part in page
                .map_err(|error| sort(&error))?
                .parts
                .unwrap_or_default()
            {
                let number = part.part_number.unwrap_or_default();
                if u64::try_from(number).is_ok_and(|number| (1..=parts).contains(&number)) {
                    found.push(
                        CompletedPart::builder()
                            .part_number(number)
                            .set_e_tag(part.e_tag)
                            .build(),
                    );
                }
            }
        }
        if found.len() as u64 == parts {
            Ok(found)
        } else {
            Err(BucketError::Unavailable {
                reason: format!("{} of {parts} parts of an upload are there", found.len()),
            })
        }
    }
}

impl Bucket for S3 {
    async fn put(
        &self,
        name: &str,
        content: Bytes,
        content_type: &'static str,
    ) -> Result<(), BucketError> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(name)
            .content_type(content_type)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(())
    }

    async fn read(&self, name: &str, from: u64, bytes: u64) -> Result<Option<Bytes>, BucketError> {
        let last = from.saturating_add(bytes).saturating_sub(1);
        self.fetch(name, Some(format!("bytes={from}-{last}"))).await
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, BucketError> {
        self.fetch(name, None).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, BucketError> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let objects = page.map_err(|error| sort(&error))?.contents;
            found.extend(
                objects
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|object| {
                        Some(StoredObject {
                            name: object.key?,
                            bytes: u64::try_from(object.size?).ok()?,
                            written_at_ms: object.last_modified?.to_millis().ok()?,
                        })
                    }),
            );
        }
        Ok(found)
    }

    async fn begin_upload(&self, name: &str) -> Result<String, BucketError> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(name)
            .content_type("application/octet-stream")
            .send()
            .await
            .map_err(|error| sort(&error))?;
        begun
            .upload_id
            .ok_or_else(|| unavailable("an upload has no id"))
    }

    async fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: u64,
        content: Bytes,
    ) -> Result<(), BucketError> {
        let number = i32::try_from(number).map_err(|_| unavailable("a part has no number"))?;
        self.client
            .upload_part()
            .bucket(&self.bucket)
            .key(name)
            .upload_id(upload)
            .part_number(number)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(())
    }

    async fn complete_upload(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
    ) -> Result<(), BucketError> {
        let parts = self.parts(name, upload, parts).await?;
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        self.client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(name)
            .upload_id(upload)
            .multipart_upload(parts)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(())
    }
}

fn unavailable(reason: &str) -> BucketError {
    BucketError::Unavailable {
        reason: reason.to_owned(),
    }
}

/// Every call may be made again, so only an upload that is over is told apart.
fn sort<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> BucketError {
    match error.code() {
        Some("NoSuchUpload") => BucketError::UploadGone,
        Some(code) => unavailable(&format!("the bucket answered {code}")),
        None => unavailable("no answer of the bucket"),
    }
}
