use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use http::{HeaderName, HeaderValue, Method};
use landfall_import::sink::s3::{Bucket, BucketError, StoredObject};
use landfall_runtime::Patience;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::{Access, Answer, CallError, Service, request};

/// What stands for itself in a query string (AWS Signature Version 4).
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What stands for itself in an object's name: the same, and the slash.
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// One S3 bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    access: Access,
    /// Up to the slash before an object's name.
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Objects {
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
    next_continuation_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    size: u64,
    last_modified: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parts {
    #[serde(rename = "Part", default)]
    listed: Vec<Part>,
    #[serde(default)]
    is_truncated: bool,
    next_part_number_marker: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    part_number: u64,
    #[serde(rename = "ETag")]
    tag: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

/// What says that an upload has become an object.
#[derive(Deserialize)]
struct Completed {
    #[serde(rename = "ETag")]
    _tag: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Problem {
    code: String,
}

impl S3 {
    /// The bucket of this name. A call with all its attempts takes at most `timeout`.
    pub fn new(access: &Access, bucket: &str, timeout: Duration) -> Self {
        let patience = Patience {
            // Half of it for one attempt: by default a piece of 8 MB still comes through 7 Mbit/s.
            attempt: timeout / 2,
            operation: timeout,
            ..Patience::BACKGROUND
        };
        let (endpoint, is_own) = access.endpoint(Service::S3);
        // Behind another endpoint than AWS's own a bucket has no host name of its own, and where its name has dots, AWS's certificate doesn't fit.
        let address = match endpoint.strip_prefix("https://") {
            Some(host) if is_own && !bucket.contains('.') => format!("https://{bucket}.{host}/"),
            _ => format!("{endpoint}/{bucket}/"),
        };
        Self {
            access: access.with(patience),
            address,
        }
    }

    async fn call(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        mut headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Bytes, BucketError> {
        // An empty object has a length, too, which no HTTP client says by itself.
        if method == Method::PUT {
            headers.push((CONTENT_LENGTH, HeaderValue::from(body.len())));
        }
        let mut uri = self.address.clone();
        uri.extend(utf8_percent_encode(name, IN_PATH));
        for (number, (key, value)) in query.iter().enumerate() {
            uri.push(if number == 0 { '?' } else { '&' });
            uri.push_str(key);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, IN_QUERY));
        }
        let request = request(method, &uri, headers, body).map_err(sort)?;
        let answer = self.access.call(Service::S3, &request, code).await;
        Ok(answer.map_err(sort)?.body)
    }

    /// An object, or the range of it; none if there is no such object or range.
    async fn fetch(&self, name: &str, range: Option<String>) -> Result<Option<Bytes>, BucketError> {
        let headers = match range {
            Some(range) => vec![(RANGE, header(&range)?)],
            None => Vec::new(),
        };
        match self
            .call(Method::GET, name, &[], headers, Bytes::new())
            .await
        {
            Ok(content) => Ok(Some(content)),
            Err(BucketError::Unavailable { reason })
                if reason == answered("NoSuchKey") || reason == answered("InvalidRange") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The first `parts` parts of an upload with their tags, which S3 wants to be told.
    async fn parts(&self, name: &str, upload: &str, parts: u64) -> Result<Vec<Part>, BucketError> {
        let mut found = Vec::new();
        let mut after = 0;
        loop {
            let marker = after.to_string();
            let query = [
                ("part-number-marker", marker.as_str()),
                ("uploadId", upload),
            ];
            let page = self
                .call(Method::GET, name, &query, Vec::new(), Bytes::new())
                .await?;
            let page: Parts = read(&page)?;
            let wanted = page.listed.into_iter();
            found.extend(wanted.filter(|part| (1..=parts).contains(&part.part_number)));
            match page.next_part_number_marker {
                Some(next) if page.is_truncated && next > after => after = next,
                _ => break,
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
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        self.call(Method::PUT, name, &[], headers, content).await?;
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
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            // In the order of their names, as a signature wants them. Names come encoded, because XML can't hold all of them.
            let mut query = Vec::from([
                ("encoding-type", "url"),
                ("list-type", "2"),
                ("prefix", prefix),
            ]);
            if let Some(token) = &token {
                query.insert(0, ("continuation-token", token));
            }
            let page = self
                .call(Method::GET, "", &query, Vec::new(), Bytes::new())
                .await?;
            let page: Objects = read(&page)?;
            let encoded = page.encoding_type.as_deref() == Some("url");
            let objects = page.contents.iter();
            found.extend(objects.filter_map(|object| stored(object, encoded)));
            let next = page.next_continuation_token.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(found);
            }
            if next == token {
                return Err(unavailable("the bucket's list doesn't go on"));
            }
            token = next;
        }
    }

    async fn begin_upload(&self, name: &str) -> Result<String, BucketError> {
        let content_type = HeaderValue::from_static("application/octet-stream");
        let headers = vec![(CONTENT_TYPE, content_type)];
        let begun = self
            .call(
                Method::POST,
                name,
                &[("uploads", "")],
                headers,
                Bytes::new(),
            )
            .await?;
        Ok(read::<Begun>(&begun)?.upload_id)
    }

    async fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: u64,
        content: Bytes,
    ) -> Result<(), BucketError> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", upload)];
        self.call(Method::PUT, name, &query, Vec::new(), content)
            .await?;
        Ok(())
    }

    async fn complete_upload(
        &self,
        name: &str,
        upload: &str,
        parts: u64,
    ) -> Result<(), BucketError> {
        let mut list = String::from("<CompleteMultipartUpload>");
        for Part { part_number, tag } in self.parts(name, upload, parts).await? {
            let tag = quick_xml::escape::escape(&tag);
            let part = write!(
                list,
                "<Part><PartNumber>{part_number}</PartNumber><ETag>{tag}</ETag></Part>"
            );
            part.map_err(|_| unavailable("a part can't be named"))?;
        }
        list.push_str("</CompleteMultipartUpload>");
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/xml"))];
        let answer = self
            .call(
                Method::POST,
                name,
                &[("uploadId", upload)],
                headers,
                list.into(),
            )
            .await?;
        // S3 begins to answer 200 before it knows how this ends.
        if read::<Completed>(&answer).is_ok() {
            return Ok(());
        }
        Err(by_code(&read::<Problem>(&answer)?.code))
    }
}

fn stored(object: &Object, encoded: bool) -> Option<StoredObject> {
    let written = OffsetDateTime::parse(&object.last_modified, &Rfc3339).ok()?;
    let name = if encoded {
        // A space may come as a plus, as in a form.
        let name = object.key.replace('+', " ");
        percent_decode_str(&name).decode_utf8().ok()?.into_owned()
    } else {
        object.key.clone()
    };
    Some(StoredObject {
        name,
        bytes: object.size,
        written_at_ms: i64::try_from(written.unix_timestamp_nanos() / 1_000_000).ok()?,
    })
}

fn header(value: &str) -> Result<HeaderValue, BucketError> {
    HeaderValue::from_str(value).map_err(|_| unavailable("a request can't be built"))
}

fn read<A: DeserializeOwned>(answer: &Bytes) -> Result<A, BucketError> {
    quick_xml::de::from_reader(answer.as_ref())
        .map_err(|_| unavailable("an answer of the bucket can't be read"))
}

fn code(answer: &Answer) -> Option<String> {
    let problem: Problem = quick_xml::de::from_reader(answer.body.as_ref()).ok()?;
    Some(problem.code)
}

fn unavailable(reason: &str) -> BucketError {
    BucketError::Unavailable {
        reason: reason.to_owned(),
    }
}

/// Every call may be made again, so only an upload that is over is told apart.
fn sort(error: CallError) -> BucketError {
    match error {
        CallError::Answered(Some(code), _) | CallError::Broken(Some(code)) => by_code(&code),
        CallError::Unbuildable(_) => unavailable("a request can't be built"),
        _ => unavailable("no answer of the bucket"),
    }
}

fn by_code(code: &str) -> BucketError {
    match code {
        "NoSuchUpload" => BucketError::UploadGone,
        code => unavailable(&answered(code)),
    }
}

fn answered(code: &str) -> String {
    format!("the bucket answered {code}")
}
