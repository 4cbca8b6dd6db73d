use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use landfall_transfer::Timestamp;
use secrecy::SecretString;

/// Where Forge puts the token with which it can be called back (PROTOCOL 7.4).
const SYSTEM_TOKEN: &str = "x-forge-oauth-system";

/// A call, as the function URL delivered it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// The path as it arrived.
    pub path: String,
    /// The query as it arrived, without its `?`.
    pub query: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `x-forge-oauth-system`. Never printed.
    pub system_token: Option<SecretString>,
    /// The body.
    pub body: Vec<u8>,
    /// When the request reached AWS, by AWS's clock.
    pub accepted_at: Option<Timestamp>,
}

impl From<LambdaFunctionUrlRequest> for Request {
    fn from(given: LambdaFunctionUrlRequest) -> Self {
        let text = given.body.unwrap_or_default();
        let body = if given.is_base64_encoded {
            // What is no base64 stays as it is, and will be refused as no JSON.
            STANDARD.decode(&text).unwrap_or(text.into_bytes())
        } else {
            text.into_bytes()
        };
        let header = |name: &str| {
            given
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let authorization = header(AUTHORIZATION.as_str());
        let system_token = header(SYSTEM_TOKEN).map(SecretString::from);
        Self {
            method: given
                .request_context
                .http
                .method
                .unwrap_or_default()
                .to_ascii_uppercase(),
            path: given.raw_path.unwrap_or_default(),
            query: given.raw_query_string.unwrap_or_default(),
            authorization,
            system_token,
            body,
            accepted_at: Some(given.request_context.time_epoch)
                .filter(|millis| *millis > 0)
                .map(Timestamp::from_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    /// The example of a payload of format 2.0 in the AWS Lambda manual, shortened.
    const PAYLOAD: &str = r#"{
        "version": "2.0", "routeKey": "$default", "rawPath": "/connect/events", "rawQueryString": "version=1&a=%20",
        "headers": { "Authorization": "JWT a.b.c", "X-Forge-OAuth-System": "d.e.f", "x-forwarded-proto": "https" },
        "requestContext": {
            "accountId": "123456789012", "apiId": "<urlid>", "authentication": null,
            "domainName": "<url-id>.lambda-url.us-west-2.on.aws", "domainPrefix": "<url-id>",
            "http": { "method": "POST", "path": "/connect/events", "protocol": "HTTP/1.1", "sourceIp": "123.123.123.123", "userAgent": "agent" },
            "requestId": "id", "routeKey": "$default", "stage": "$default", "time": "12/Mar/2020:19:03:58 +0000", "timeEpoch": 1583348638390
        },
        "body": "eyJhIjoxfQ==", "isBase64Encoded": true
    }"#;

    #[test]
    fn a_payload_of_the_function_url_is_read_as_it_arrived() {
        let request =
            Request::from(serde_json::from_str::<LambdaFunctionUrlRequest>(PAYLOAD).unwrap());
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/connect/events")
        );
        assert_eq!(request.query, "version=1&a=%20");
        assert_eq!(request.authorization.as_deref(), Some("JWT a.b.c"));
        let system_token = request.system_token.as_ref().unwrap();
        assert_eq!(system_token.expose_secret(), "d.e.f");
        assert!(!format!("{request:?}").contains("d.e.f"));
        assert_eq!(request.body, br#"{"a":1}"#);
        assert_eq!(
            request.accepted_at,
            Some(Timestamp::from_millis(1_583_348_638_390))
        );
    }

    #[test]
    fn a_body_that_is_no_base64_is_left_to_be_refused() {
        let payload = PAYLOAD.replace("eyJhIjoxfQ==", "%%%");
        let request =
            Request::from(serde_json::from_str::<LambdaFunctionUrlRequest>(&payload).unwrap());
        assert_eq!(request.body, b"%%%");
    }
}
