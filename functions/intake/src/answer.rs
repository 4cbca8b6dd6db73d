use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// What the caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// One line for whoever debugs the caller; empty for a 200.
    pub reason: String,
    allow: Option<&'static str>,
}

impl Answer {
    /// 200: the platform takes nothing else for an acknowledgement (PROTOCOL 3.2).
    pub(crate) fn ok() -> Self {
        Self::of(200, "")
    }

    /// 401, the same for every reason: it tells a forger nothing.
    pub(crate) fn unauthorized() -> Self {
        Self::of(401, "unauthorized")
    }

    /// 405 with the one method that the path has.
    pub(crate) fn wrong_method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::of(405, "method not allowed")
        }
    }

    /// 503: not stored, send it again.
    pub(crate) fn unavailable() -> Self {
        Self::of(503, "not stored, send it again")
    }

    pub(crate) fn of(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            allow: None,
        }
    }
}

impl From<Answer> for LambdaFunctionUrlResponse {
    fn from(answer: Answer) -> Self {
        let body = if answer.reason.is_empty() {
            "{}".to_owned()
        } else {
            serde_json::json!({ "message": answer.reason }).to_string()
        };
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(allow) = answer.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        let mut response = Self::default();
        response.status_code = i64::from(answer.status);
        response.headers = headers;
        response.body = Some(body);
        response
    }
}
