use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;

/// What a call to the table or a queue can end with, by what it means for a retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A condition did not hold: somebody else was faster. Read again and decide again.
    #[error("write what another has changed meanwhile")]
    Conflict,
    /// Other transactions had the same item in hand. Nothing was written; the same call may succeed at once.
    #[error("write while another transaction held the item")]
    Contended,
    /// Sent, and no answer came: it may have happened. Read before deciding.
    #[error("learn whether the call took effect")]
    Unknown,
    /// Throttled, refused for now, or never sent: nothing happened. Trying later can help.
    #[error("reach the service: {0}")]
    Unavailable(String),
    /// The service refuses the call as such; trying again can't help.
    #[error("make a call that the service accepts: {0}")]
    Refused(String),
    /// A row or message that this release can't read. It is left as it is.
    #[error("read {what}: {problem}")]
    Unreadable {
        /// Which row or message, without its content.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Whether the same call may help without reading first.
    pub const fn may_repeat(&self) -> bool {
        matches!(self, Self::Contended | Self::Unavailable(_))
    }

    pub(crate) fn unreadable(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            what: what.into(),
            problem: format!("{problem}"),
        }
    }

    /// Sorts what the SDK returns.
    pub(crate) fn of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Self {
        match error {
            SdkError::ConstructionFailure(_) => {
                Self::Refused("the request could not be built".to_owned())
            }
            // A connection that broke after the request left is reported as an input or output failure, too.
            SdkError::DispatchFailure(failure)
                if failure.is_timeout()
                    || (failure.is_io() && !failure.as_connector_error().is_some_and(refused)) =>
            {
                Self::Unknown
            }
            SdkError::DispatchFailure(_) => Self::Unavailable("no connection".to_owned()),
            SdkError::ServiceError(context) => Self::of_code(context.err().code()),
            // A time-out after the request left, an answer that can't be read, and whatever the SDK adds.
            _ => Self::Unknown,
        }
    }

    fn of_code(code: Option<&str>) -> Self {
        match code {
            Some("ConditionalCheckFailedException") => Self::Conflict,
            Some("TransactionConflictException" | "TransactionInProgressException") => {
                Self::Contended
            }
            Some(
                code @ ("ValidationException"
                | "AccessDeniedException"
                | "ResourceNotFoundException"
                | "ItemCollectionSizeLimitExceededException"
                | "IdempotentParameterMismatchException"
                | "UnrecognizedClientException"
                | "AWS.SimpleQueueService.NonExistentQueue"
                | "QueueDoesNotExist"
                | "InvalidMessageContents"
                | "InvalidParameterValue"),
            ) => Self::Refused(code.to_owned()),
            Some(code) => Self::Unavailable(code.to_owned()),
            None => Self::Unavailable("an answer without a code".to_owned()),
        }
    }

    /// Sorts what a transaction returns: one condition that did not hold outweighs a conflict elsewhere in it.
    pub(crate) fn of_transaction<R>(error: &SdkError<TransactWriteItemsError, R>) -> Self {
        if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        {
            let codes = || {
                cancelled
                    .cancellation_reasons()
                    .iter()
                    .filter_map(|reason| reason.code())
            };
            if codes().any(|code| code == "ConditionalCheckFailed") {
                return Self::Conflict;
            }
            if codes().any(|code| code == "ValidationError") {
                return Self::Refused("ValidationError in a transaction".to_owned());
            }
            if codes().any(|code| code == "TransactionConflict") {
                return Self::Contended;
            }
            return Self::Unavailable(
                codes()
                    .find(|code| *code != "None")
                    .unwrap_or("cancelled")
                    .to_owned(),
            );
        }
        Self::of(error)
    }
}

/// Whether the connection never stood, so that nothing can have been sent.
fn refused(failure: &aws_sdk_dynamodb::error::ConnectorError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(failure);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}
