use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use landfall_clock::Clock;
use landfall_runtime::{Aws, Patience};
use secrecy::ExposeSecret as _;

/// With less time than this left no attempt is begun: its answer couldn't come any more, and all that would be known is less than before.
const LEAST: Duration = Duration::from_millis(20);

/// Longer than this no connection waits unused. DynamoDB closes its own side after about a minute; a sandbox that was frozen meanwhile sees so when it is thawed.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// How AWS's services are reached: credentials, endpoints, connections, and the patience that every call has.
#[derive(Clone, Debug)]
pub struct Access {
    environment: Aws,
    credentials: Credentials,
    http: reqwest::Client,
    patience: Patience,
    clock: Clock,
}

/// A service of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    DynamoDb,
    Kms,
    S3,
    Sqs,
}

impl Service {
    /// Its name in endpoints and signatures.
    const fn name(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Kms => "kms",
            Self::S3 => "s3",
            Self::Sqs => "sqs",
        }
    }
}

/// What a service answered; it may be a key.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why a call has no good answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The service answered with an error, after which nothing has changed. The code, if the answer has one that can be read.
    Answered(Option<String>, Bytes),
    /// No attempt ever left: there is no connection.
    NotSent,
    /// The service failed (5xx), with this code if it gave one: it may have done its work.
    Broken(Option<String>),
    /// An attempt left, and nobody knows what became of it.
    Unknown,
    /// The request can't be put together, which is a mistake of ours.
    Unbuildable(String),
}

impl CallError {
    /// Whether another attempt of the same call might have ended otherwise, for all that its answer says.
    fn is_of_the_moment(&self) -> bool {
        match self {
            Self::Answered(Some(code), _) => matches!(
                code.as_str(),
                "ExpiredToken" | "ExpiredTokenException" | "TransactionConflictException"
            ),
            Self::Answered(None, _) => true,
            _ => false,
        }
    }
}

/// How an attempt ended that did not bring what was asked for.
struct Failed {
    error: CallError,
    /// Whether another one may end better.
    passing: bool,
}

impl Access {
    /// With the credentials and endpoints of a process's environment.
    ///
    /// # Errors
    ///
    /// Only if TLS can't be set up, which no repetition mends.
    pub fn new(environment: Aws, patience: Patience, clock: Clock) -> Result<Self, AccessError> {
        let token = &environment.session_token;
        let credentials = Credentials::new(
            &environment.access_key_id,
            environment.secret_access_key.expose_secret(),
            token.as_ref().map(|token| token.expose_secret().to_owned()),
            None,
            "environment",
        );
        let http = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(patience.connect)
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(|_| AccessError)?;
        Ok(Self {
            environment,
            credentials,
            http,
            patience,
            clock,
        })
    }

    /// The same connections and credentials, but calls have this much patience.
    pub(crate) fn with(&self, patience: Patience) -> Self {
        Self {
            patience,
            ..self.clone()
        }
    }

    /// Where a service is, without a slash at its end; and whether that is AWS's own address of it.
    pub(crate) fn endpoint(&self, service: Service) -> (String, bool) {
        let own = match service {
            Service::DynamoDb => &self.environment.dynamodb_endpoint,
            Service::Kms => &self.environment.kms_endpoint,
            Service::S3 => &self.environment.s3_endpoint,
            Service::Sqs => &self.environment.sqs_endpoint,
        };
        if let Some(other) = own.as_ref().or(self.environment.endpoint.as_ref()) {
            return (other.trim_end_matches('/').to_owned(), false);
        }
        let region = &self.environment.region;
        let domain = match region.split('-').next() {
            Some("cn") => "amazonaws.com.cn",
            Some("eusc") => "amazonaws.eu",
            _ => "amazonaws.com",
        };
        (
            format!("https://{}.{region}.{domain}", service.name()),
            true,
        )
    }

    /// Makes a call, again where it may help, as patience has it. `code` reads an error's code from its answer.
    pub(crate) async fn call(
        &self,
        service: Service,
        request: &Request<Bytes>,
        code: impl Fn(&Answer) -> Option<String>,
    ) -> Result<Answer, CallError> {
        let ends_at = self.clock.monotonic() + self.patience.operation;
        let mut unknown = false;
        for attempt in 1_u32.. {
            let left = ends_at.saturating_sub(self.clock.monotonic());
            let Failed { error, passing } = match self.attempt(service, request, left, &code).await
            {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            unknown |= matches!(error, CallError::Unknown | CallError::Broken(_));
            let pause = self.pause(attempt);
            let left = ends_at.saturating_sub(self.clock.monotonic());
            if !passing || attempt >= self.patience.attempts || pause + LEAST >= left {
                let earlier = unknown && (passing || error.is_of_the_moment());
                return Err(match error {
                    // It says nothing of an earlier attempt, which may have done its work.
                    CallError::Answered(..) | CallError::NotSent if earlier => CallError::Unknown,
                    error => error,
                });
            }
            self.clock.sleep(pause).await;
        }
        unreachable!("attempts are counted")
    }

    async fn attempt(
        &self,
        service: Service,
        request: &Request<Bytes>,
        left: Duration,
        code: impl Fn(&Answer) -> Option<String>,
    ) -> Result<Answer, Failed> {
        let unbuildable = |problem: String| Failed {
            error: CallError::Unbuildable(problem),
            passing: false,
        };
        let signed = self.signed(service, request.clone()).map_err(unbuildable)?;
        let mut signed = reqwest::Request::try_from(signed)
            .map_err(|error| unbuildable(error.without_url().to_string()))?;
        *signed.timeout_mut() = Some(self.patience.attempt.min(left.max(LEAST)));
        let sent = async {
            let response = self.http.execute(signed).await?;
            let status = response.status();
            let body = response.bytes().await?;
            Ok::<_, reqwest::Error>(Answer { status, body })
        };
        let answer = sent.await.map_err(|error| Failed {
            error: if error.is_connect() {
                CallError::NotSent
            } else {
                CallError::Unknown
            },
            passing: true,
        })?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let code = code(&answer);
        Err(if answer.status.is_server_error() {
            Failed {
                error: CallError::Broken(code),
                passing: true,
            }
        } else {
            Failed {
                passing: answer.status == StatusCode::TOO_MANY_REQUESTS
                    || code.as_deref().is_some_and(passes),
                error: CallError::Answered(code, answer.body),
            }
        })
    }

    /// The pause after so many attempts: those that failed together don't come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let longest = self
            .patience
            .pause
            .saturating_mul(1 << (attempt - 1).min(10));
        let mut random = [0; 1];
        // Without randomness the pause is the longest there is.
        let share = match aws_lc_rs::rand::fill(&mut random) {
            Ok(()) => u32::from(random[0]),
            Err(_) => u32::from(u8::MAX),
        };
        longest * share / u32::from(u8::MAX)
    }

    /// The request with its date and its signature (AWS Signature Version 4).
    fn signed(
        &self,
        service: Service,
        mut request: Request<Bytes>,
    ) -> Result<Request<Bytes>, String> {
        let mut settings = SigningSettings::default();
        if service == Service::S3 {
            // Names of objects are taken as they are, and their content is signed by a header.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.environment.region)
            .name(service.name())
            .time(self.clock.system_time())
            .settings(settings)
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let headers = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let uri = request.uri().to_string();
        let signable = SignableRequest::new(
            request.method().as_str(),
            uri,
            headers,
            SignableBody::Bytes(request.body()),
        )
        .map_err(|error| error.to_string())?;
        let (instructions, _) = sign(signable, &parameters)
            .map_err(|error| error.to_string())?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// TLS could not be set up.
#[derive(Clone, Copy, Debug)]
pub struct AccessError;

impl std::fmt::Display for AccessError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("set up TLS for calls of AWS")
    }
}

impl std::error::Error for AccessError {}

/// Codes after which the same call may go well, whatever the status that they come with.
fn passes(code: &str) -> bool {
    matches!(
        code,
        "InternalError"
            | "LimitExceededException"
            | "PriorRequestNotComplete"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestTimeout"
            | "RequestTimeoutException"
            | "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "TransactionInProgressException"
    )
}

/// A request of this method and these headers.
pub(crate) fn request(
    method: Method,
    uri: &str,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: Bytes,
) -> Result<Request<Bytes>, CallError> {
    let uri: Uri = uri
        .parse()
        .map_err(|_| CallError::Unbuildable("an address that is none".to_owned()))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.headers_mut().extend(headers);
    Ok(request)
}
