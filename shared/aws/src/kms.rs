use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{DataKey, DataKeys, Error};
use secrecy::SecretSlice;

/// One symmetric KMS key.
#[derive(Clone, Debug)]
pub struct Kms {
    client: Client,
    key: String,
}

/// What each data key is sealed for: it opens for nothing else, and the trail of KMS's calls shows it.
const CONTEXT: (&str, &str) = ("landfall", "vault");

/// Most bytes that KMS takes for a sealed data key.
const SEALED_MAX: usize = 6_144;

impl Kms {
    /// Works with the key of this ARN. The client brings time-outs and retries.
    pub fn new(client: Client, key: impl Into<String>) -> Self {
        Self {
            client,
            key: key.into(),
        }
    }

    async fn generate(&self) -> Result<DataKey, Error> {
        let (name, value) = CONTEXT;
        let answer = self
            .client
            .generate_data_key()
            .key_id(&self.key)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(name, value)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        match (answer.plaintext, answer.ciphertext_blob) {
            (Some(plain), Some(sealed)) => Ok(DataKey {
                plain: SecretSlice::from(plain.into_inner()),
                sealed: sealed.into_inner(),
            }),
            _ => Err(Error::Unavailable("KMS gave no data key".to_owned())),
        }
    }

    async fn decrypt(&self, sealed: &[u8]) -> Result<Option<SecretSlice<u8>>, Error> {
        // KMS would call it an invalid request, which it isn't.
        if !(1..=SEALED_MAX).contains(&sealed.len()) {
            return Ok(None);
        }
        let (name, value) = CONTEXT;
        let answer = self
            .client
            .decrypt()
            .key_id(&self.key)
            .ciphertext_blob(Blob::new(sealed))
            .encryption_context(name, value)
            .send()
            .await;
        match answer {
            Ok(answer) => match answer.plaintext {
                Some(plain) => Ok(Some(SecretSlice::from(plain.into_inner()))),
                None => Err(Error::Unavailable("KMS gave no data key".to_owned())),
            },
            Err(error) => match error.code() {
                Some("InvalidCiphertextException" | "IncorrectKeyException") => Ok(None),
                _ => Err(sort(&error)),
            },
        }
    }
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
fn sort<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Error {
    let Some(code) = error.code() else {
        return Error::Unavailable("no answer of KMS".to_owned());
    };
    let wrong = match code {
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
