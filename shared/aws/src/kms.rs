use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{DataKey, DataKeys, Error};
use secrecy::SecretSlice;
use serde::{Deserialize, Serialize};

use crate::access::{Access, CallError};
use crate::json::JsonService;

/// One symmetric KMS key.
#[derive(Clone, Debug)]
pub struct Kms {
    service: JsonService,
    key: String,
}

/// What each data key is sealed for: it opens for nothing else, and the trail of KMS's calls shows it.
#[derive(Serialize)]
struct Context {
    landfall: &'static str,
}

const CONTEXT: Context = Context { landfall: "vault" };

/// Most bytes that KMS takes for a sealed data key.
const SEALED_MAX: usize = 6_144;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Generate<'a> {
    key_id: &'a str,
    key_spec: &'static str,
    encryption_context: Context,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt<'a> {
    key_id: &'a str,
    ciphertext_blob: String,
    encryption_context: Context,
}

/// What either answers, as base64.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    plaintext: Option<String>,
    ciphertext_blob: Option<String>,
}

impl Kms {
    /// Works with the key of this ARN.
    pub fn new(access: Access, key: impl Into<String>) -> Self {
        Self {
            service: JsonService::kms(access),
            key: key.into(),
        }
    }

    async fn generate(&self) -> Result<DataKey, Error> {
        let input = Generate {
            key_id: &self.key,
            key_spec: "AES_256",
            encryption_context: CONTEXT,
        };
        let answer: Keys = self
            .service
            .call("GenerateDataKey", &input)
            .await
            .map_err(sort)?;
        match (bytes(answer.plaintext), bytes(answer.ciphertext_blob)) {
            (Some(plain), Some(sealed)) => Ok(DataKey {
                plain: SecretSlice::from(plain),
                sealed,
            }),
            _ => Err(Error::Unavailable("KMS gave no data key".to_owned())),
        }
    }

    async fn decrypt(&self, sealed: &[u8]) -> Result<Option<SecretSlice<u8>>, Error> {
        // KMS would call it an invalid request, which it isn't.
        if !(1..=SEALED_MAX).contains(&sealed.len()) {
            return Ok(None);
        }
        let input = Decrypt {
            key_id: &self.key,
            ciphertext_blob: STANDARD.encode(sealed),
            encryption_context: CONTEXT,
        };
        match self.service.call::<Keys>("Decrypt", &input).await {
            Ok(answer) => match bytes(answer.plaintext) {
                Some(plain) => Ok(Some(SecretSlice::from(plain))),
                None => Err(Error::Unavailable("KMS gave no data key".to_owned())),
            },
            Err(CallError::Answered(Some(code), _))
                if matches!(
                    code.as_str(),
                    "InvalidCiphertextException" | "IncorrectKeyException"
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(sort(error)),
        }
    }
}

fn bytes(base64: Option<String>) -> Option<Vec<u8>> {
    STANDARD.decode(base64?).ok()
}

impl DataKeys for Kms {
    fn generate(&self) -> BoxFuture<'_, Result<DataKey, Error>> {
        self.generate().boxed()
    }

    fn decrypt<'a>(
        &'a self,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<Option<SecretSlice<u8>>, Error>> {
        self.decrypt(sealed).boxed()
    }
}

/// Both calls change nothing, so one whose outcome nobody knows has simply to be made again. What only a person can mend is told apart; everything
/// else passes, also what this release doesn't know.
fn sort(error: CallError) -> Error {
    let (CallError::Answered(Some(code), _) | CallError::Broken(Some(code))) = error else {
        return Error::Unavailable("no answer of KMS".to_owned());
    };
    let wrong = match code.as_str() {
        "AccessDeniedException" => "the function's role or the key's policy does not allow it",
        "DisabledException" => "the KMS key is disabled",
        "KMSInvalidStateException" => "the KMS key is disabled or waits to be deleted",
        "NotFoundException" => "there is no such KMS key in this region",
        "InvalidArnException" | "ValidationException" => "LANDFALL_KMS_KEY names no KMS key",
        "InvalidKeyUsageException" | "UnsupportedOperationException" => {
            "the KMS key is not a symmetric one"
        }
        "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "UnrecognizedClientException" => "the function's credentials are not accepted",
        _ => return Error::Unavailable(format!("KMS answered {code}")),
    };
    Error::Vault(format!("{wrong} ({code})"))
}
