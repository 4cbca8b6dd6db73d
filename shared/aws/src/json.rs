use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::{Access, Answer, CallError, Service, request};

/// A service that speaks AWS's JSON protocol: every operation is a POST, and named in a header.
#[derive(Clone, Debug)]
pub(crate) struct JsonService {
    access: Access,
    service: Service,
    uri: String,
    content_type: HeaderValue,
    /// What the name of an operation begins with.
    prefix: &'static str,
}

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

impl JsonService {
    pub(crate) fn dynamodb(access: Access) -> Self {
        Self::new(access, Service::DynamoDb, "1.0", "DynamoDB_20120810")
    }

    pub(crate) fn kms(access: Access) -> Self {
        Self::new(access, Service::Kms, "1.1", "TrentService")
    }

    pub(crate) fn sqs(access: Access) -> Self {
        Self::new(access, Service::Sqs, "1.0", "AmazonSQS")
    }

    fn new(access: Access, service: Service, version: &str, prefix: &'static str) -> Self {
        let content_type = match version {
            "1.1" => HeaderValue::from_static("application/x-amz-json-1.1"),
            _ => HeaderValue::from_static("application/x-amz-json-1.0"),
        };
        let uri = format!("{}/", access.endpoint(service).0);
        Self {
            access,
            service,
            uri,
            content_type,
            prefix,
        }
    }

    /// Makes a call. An answer that can't be read leaves its outcome unknown.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        operation: &str,
        input: &impl Serialize,
    ) -> Result<A, CallError> {
        let answer = self.answer(operation, input).await?;
        serde_json::from_slice(&answer.body).map_err(|_| CallError::Unknown)
    }

    /// Makes a call that answers with nothing.
    pub(crate) async fn call_for_nothing(
        &self,
        operation: &str,
        input: &impl Serialize,
    ) -> Result<(), CallError> {
        self.answer(operation, input).await.map(drop)
    }

    async fn answer(&self, operation: &str, input: &impl Serialize) -> Result<Answer, CallError> {
        let unbuildable = |error: &dyn std::fmt::Display| CallError::Unbuildable(error.to_string());
        let body = serde_json::to_vec(input).map_err(|error| unbuildable(&error))?;
        let target = format!("{}.{operation}", self.prefix);
        let target = HeaderValue::from_str(&target).map_err(|error| unbuildable(&error))?;
        let headers = [(CONTENT_TYPE, self.content_type.clone()), (TARGET, target)];
        let request = request(Method::POST, &self.uri, headers, Bytes::from(body))?;
        self.access.call(self.service, &request, code).await
    }
}

#[derive(serde::Deserialize)]
struct Problem {
    #[serde(rename = "__type")]
    kind: Option<String>,
}

/// `com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException` means what is behind the `#`.
fn code(answer: &Answer) -> Option<String> {
    let problem: Problem = serde_json::from_slice(&answer.body).ok()?;
    let kind = problem.kind?;
    let name = kind.rsplit('#').next().unwrap_or_default();
    Some(name.split(':').next().unwrap_or_default().to_owned())
}
