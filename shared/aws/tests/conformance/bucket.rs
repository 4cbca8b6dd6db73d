//! What S3 is asked, and what its answers mean. It is a server of the test's own, which answers as AWS documents it, and reads each signature anew.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use landfall_aws::{DynamoDb, S3};
use landfall_embedded::{RECORDS_TABLE, TABLE, access, serve};
use landfall_import::sink::s3::{Bucket as _, BucketError};
use landfall_tracking::{Key, Table};

/// One request: its line, and what else a test looks at.
#[derive(Clone, Debug)]
struct Asked {
    /// `PUT /bucket/name?query`.
    line: String,
    content_length: Option<String>,
    range: Option<String>,
    body: String,
}

#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn handle(State(server): State<Server>, request: Request<axum::body::Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
    assert_eq!(parts.headers["authorization"], authorization(&parts, &body));
    let header = |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    server.asked.lock().unwrap().push(Asked {
        line: format!("{} {}", parts.method, parts.uri),
        content_length: header("content-length"),
        range: header("range"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let (status, answer) = server.answers.lock().unwrap().pop_front().unwrap();
    (StatusCode::from_u16(status).unwrap(), answer).into_response()
}

/// What the request's signature has to be: AWS Signature Version 4 by its documentation, for the credentials of [`access`].
fn authorization(parts: &Parts, body: &Bytes) -> String {
    let given = parts.headers["authorization"].to_str().unwrap();
    let between = |from: &str, to: &str| {
        let rest = &given[given.find(from).unwrap() + from.len()..];
        &rest[..rest.find(to).unwrap_or(rest.len())]
    };
    let (scope, signed) = (
        between("Credential=test/", ","),
        between("SignedHeaders=", ","),
    );
    let digest = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes));
    let mut headers = String::new();
    for name in signed.split(';') {
        let value = parts.headers[name].to_str().unwrap().trim();
        writeln!(headers, "{name}:{value}").unwrap();
    }
    for needed in ["host", "x-amz-date"] {
        assert!(signed.split(';').any(|name| name == needed), "{signed}");
    }
    let mut query: Vec<_> = parts.uri.query().unwrap_or_default().split('&').collect();
    query.sort_unstable();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{signed}\n{}",
        parts.method,
        parts.uri.path(),
        query.join("&"),
        digest(body)
    );
    let date = parts.headers["x-amz-date"].to_str().unwrap();
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        digest(canonical.as_bytes())
    );
    let key = scope.split('/').fold(b"AWS4test".to_vec(), |key, part| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        hmac::sign(&key, part.as_bytes()).as_ref().to_vec()
    });
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
    format!(
        "AWS4-HMAC-SHA256 Credential=test/{scope}, SignedHeaders={signed}, Signature={}",
        hex::encode(signature)
    )
}

/// A bucket whose server gives these answers, one after the other.
async fn bucket(answers: &[(u16, &'static str)]) -> (S3, Server) {
    let (server, url) = start(answers).await;
    (
        S3::new(&access(&url), "bucket", Duration::from_secs(5)),
        server,
    )
}

async fn start(answers: &[(u16, &'static str)]) -> (Server, String) {
    let server = Server {
        answers: Arc::new(Mutex::new(answers.iter().copied().collect())),
        asked: Arc::default(),
    };
    let url = serve(Router::new().fallback(handle).with_state(server.clone())).await;
    (server, url)
}

impl Server {
    fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|asked| asked.line.clone()).collect()
    }

    fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn problem(code: &'static str) -> &'static str {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>text</Message></Error>")
        .leak()
}

#[tokio::test]
async fn a_call_of_the_table_is_signed_as_documented() {
    let (server, url) = start(&[(200, "{}")]).await;
    let table = DynamoDb::new(access(&url), TABLE, RECORDS_TABLE);
    let found = Table::get(&table, &Key::new("P", "S"), true).await.unwrap();
    assert_eq!((found, server.lines()), (None, vec!["POST /".to_owned()]));
}

#[tokio::test]
async fn an_objects_name_is_sent_as_it_is_whatever_it_is_made_of() {
    let (bucket, server) = bucket(&[(200, "")]).await;
    let name = "a b+c/%41/ü~=&?.json";
    bucket
        .put(name, Bytes::from("{}"), "application/json")
        .await
        .unwrap();
    let line = "PUT /bucket/a%20b%2Bc/%2541/%C3%BC~%3D%26%3F.json";
    assert_eq!(server.lines(), [line]);
}

#[tokio::test]
async fn an_empty_object_is_sent_with_its_length() {
    let (bucket, server) = bucket(&[(200, ""), (200, "")]).await;
    bucket
        .put("empty", Bytes::new(), "text/plain")
        .await
        .unwrap();
    assert_eq!(server.last().content_length.as_deref(), Some("0"));
    bucket
        .put_part("empty", "upload", 1, Bytes::new())
        .await
        .unwrap();
    assert_eq!(server.last().content_length.as_deref(), Some("0"));
}

#[tokio::test]
async fn an_object_or_a_range_that_is_not_there_is_none_and_other_answers_are_errors() {
    let answers = [
        (206, "content"),
        (404, problem("NoSuchKey")),
        (416, problem("InvalidRange")),
        (403, problem("AccessDenied")),
    ];
    let (bucket, server) = bucket(&answers).await;
    let content = bucket.read("name", 10, 7).await.unwrap().unwrap();
    assert_eq!(content, "content");
    assert_eq!(server.last().range.as_deref(), Some("bytes=10-16"));
    assert_eq!(bucket.get("name").await.unwrap(), None);
    assert_eq!(bucket.read("name", 10, 7).await.unwrap(), None);
    let refused = bucket.get("name").await.unwrap_err();
    let reason = "the bucket answered AccessDenied".to_owned();
    assert_eq!(refused, BucketError::Unavailable { reason });
}

#[tokio::test]
async fn all_pages_of_a_list_are_read_and_names_mean_what_they_say() {
    let first = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><EncodingType>url</EncodingType>\
        <Contents><Key>p/a+b%2Bc%25</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><Size>7</Size></Contents>\
        <NextContinuationToken>more+/=</NextContinuationToken></ListBucketResult>";
    let second = "<ListBucketResult>\
        <Contents><Key>p/d+%41</Key><LastModified>2026-01-02T03:04:06Z</LastModified><Size>0</Size></Contents>\
        <NextContinuationToken/></ListBucketResult>";
    let (bucket, server) = bucket(&[(200, first), (200, second)]).await;
    let found = bucket.list("p/").await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|object| (object.name.as_str(), object.bytes, object.written_at_ms))
        .collect();
    assert_eq!(
        found,
        [
            ("p/a b+c%", 7, 1_767_323_045_678),
            // The server did not say that it encodes names.
            ("p/d+%41", 0, 1_767_323_046_000),
        ]
    );
    assert_eq!(
        server.lines(),
        [
            "GET /bucket/?encoding-type=url&list-type=2&prefix=p%2F",
            "GET /bucket/?continuation-token=more%2B%2F%3D&encoding-type=url&list-type=2&prefix=p%2F",
        ]
    );
}

#[tokio::test]
async fn a_list_that_does_not_go_on_ends_with_an_error() {
    let page =
        "<ListBucketResult><NextContinuationToken>same</NextContinuationToken></ListBucketResult>";
    let (bucket, _) = bucket(&[(200, page), (200, page)]).await;
    assert!(bucket.list("p/").await.is_err());
}

/// An upload of two parts whose completion is answered like this.
async fn completed(status: u16, answer: &'static str) -> (Result<(), BucketError>, Server) {
    let first = "<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>&quot;one&quot;</ETag></Part>\
        <IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker></ListPartsResult>";
    let second = "<ListPartsResult><Part><PartNumber>2</PartNumber><ETag>&quot;two&quot;</ETag></Part>\
        <Part><PartNumber>3</PartNumber><ETag>&quot;beyond&quot;</ETag></Part><IsTruncated>false</IsTruncated></ListPartsResult>";
    let (bucket, server) = bucket(&[(200, first), (200, second), (status, answer)]).await;
    (bucket.complete_upload("name", "upload", 2).await, server)
}

#[tokio::test]
async fn an_upload_is_completed_with_the_tags_of_its_parts_and_only_by_an_answer_that_says_so() {
    let done = "\n\n<?xml version=\"1.0\"?>\n<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>name</Key><ETag>&quot;all&quot;</ETag></CompleteMultipartUploadResult>";
    let (outcome, server) = completed(200, done).await;
    assert_eq!(outcome, Ok(()));
    assert_eq!(
        server.lines(),
        [
            "GET /bucket/name?part-number-marker=0&uploadId=upload",
            "GET /bucket/name?part-number-marker=1&uploadId=upload",
            "POST /bucket/name?uploadId=upload",
        ]
    );
    assert_eq!(
        server.last().body,
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;one&quot;</ETag></Part>\
         <Part><PartNumber>2</PartNumber><ETag>&quot;two&quot;</ETag></Part></CompleteMultipartUpload>"
    );
    for (status, answer) in [
        (200, problem("InternalError")),
        (200, ""),
        (200, "<html>proxy</html>"),
    ] {
        let (outcome, _) = completed(status, answer).await;
        assert!(
            matches!(outcome, Err(BucketError::Unavailable { .. })),
            "{answer}: {outcome:?}"
        );
    }
    let (outcome, _) = completed(404, problem("NoSuchUpload")).await;
    assert_eq!(outcome, Err(BucketError::UploadGone));
}
