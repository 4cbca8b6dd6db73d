//! What the first event needs of the program, gone through with an event that is nobody's: its code is in memory then, and the first caller doesn't wait for that.

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlRequest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_platform::connect::token::{self, Moment, Refusal, unverified};
use landfall_platform::connect::{self, qsh};
use landfall_platform::event::Event;
use secrecy::SecretString;
use url::Url;

use crate::request::Request;

/// Whom the token names, and with whose secret it is signed.
const NOBODY: &str = "rehearsal";

/// A token's two parts, and their HMAC-SHA256 by [`NOBODY`]'s secret. It ran out in 1970.
const HEADER: &[u8] = br#"{"typ":"JWT","alg":"HS256"}"#;
const CLAIMS: &[u8] = br#"{"iss":"rehearsal","iat":1,"exp":2,"qsh":"none"}"#;
const SIGNATURE: &str = "uJ0Pk7WGzz8i8Mp1BJgehMQ2Gbf0tZlz0crD9CxaORY";

/// A call of a function URL (payload format 2.0 of the AWS Lambda manual), but for its token and its body.
const CALL: &str = r#"{"version":"2.0","routeKey":"$default","rawPath":"/connect/events","rawQueryString":"","headers":{"authorization":"JWT @","content-type":"application/json"},
    "requestContext":{"accountId":"anonymous","apiId":"","domainName":"","domainPrefix":"","http":{"method":"POST","path":"/connect/events","protocol":"HTTP/1.1","sourceIp":"192.0.2.1","userAgent":""},
    "requestId":"","routeKey":"$default","stage":"$default","time":"","timeEpoch":1},"body":"{\"eventType\":\"app-data-uploaded\",\"transferId\":\"rehearsal\",\"messageId\":\"rehearsal\",\"s3Key\":\"rehearsal\",\"label\":\"rehearsal\",\"migrationDetails\":{\"migrationId\":\"rehearsal\",\"name\":\"rehearsal\",\"createdAt\":1}}","isBase64Encoded":false}"#;

/// Takes a call apart as if it were one, as far as that goes without the table: nothing is asked, stored or logged, and nobody is believed.
pub(crate) fn rehearse(base_url: &Url, moment: Moment) -> Option<(Refusal, Event)> {
    let [header, claims] = [HEADER, CLAIMS].map(|part| URL_SAFE_NO_PAD.encode(part));
    let call = CALL.replacen('@', &format!("{header}.{claims}.{SIGNATURE}"), 1);
    let call: LambdaFunctionUrlRequest = serde_json::from_str(&call).ok()?;
    let request = Request::from(call);
    let requests = qsh::candidates(&request.method, &request.path, &request.query, base_url);
    let token = token::find(request.authorization.as_deref(), &request.query).ok()?;
    unverified::read(token).ok()?;
    let secret = SecretString::from(NOBODY);
    let refusal = token::verify_webhook(token, NOBODY, &[&secret], &requests, moment).err()?;
    let event = connect::event::decode(&request.body).ok()?;
    Some((refusal, event))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use landfall_platform::event::Kind;

    use super::*;

    #[test]
    fn the_rehearsal_goes_as_far_as_the_tokens_time_and_through_the_whole_event() {
        let moment = Moment {
            now_seconds: 1_763_769_600,
            leeway: Duration::from_secs(30),
        };
        let url = Url::parse("https://landfall.example.com/base").unwrap();
        let (refusal, event) = rehearse(&url, moment).unwrap();
        assert_eq!(refusal.claim(), "exp", "its signature holds");
        assert!(matches!(event.kind, Kind::AppDataUploaded { .. }));
    }
}
