use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use landfall_tracking::Error;

/// Sorts what the SDK returns.
pub(crate) fn sort<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Error {
    match error {
        SdkError::ConstructionFailure(_) => {
            Error::Refused("the request could not be built".to_owned())
        }
        // A connection that broke after the request left is reported as an input or output failure, too.
        SdkError::DispatchFailure(failure)
            if failure.is_timeout()
                || (failure.is_io() && !failure.as_connector_error().is_some_and(refused)) =>
        {
            Error::Unknown
        }
        SdkError::DispatchFailure(_) => Error::Unavailable("no connection".to_owned()),
        SdkError::ServiceError(context) => sort_code(context.err().code()),
        // A time-out after the request left, an answer that can't be read, and whatever the SDK adds.
        _ => Error::Unknown,
    }
}

fn sort_code(code: Option<&str>) -> Error {
    match code {
        Some("ConditionalCheckFailedException") => Error::Conflict,
        Some("TransactionConflictException" | "TransactionInProgressException") => Error::Contended,
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
            | "InvalidParameterValue"
            | "MissingParameter"
            | "ReceiptHandleIsInvalid"),
        ) => Error::Refused(code.to_owned()),
        Some(code) => Error::Unavailable(code.to_owned()),
        None => Error::Unavailable("an answer without a code".to_owned()),
    }
}

/// Sorts what a transaction returns: one condition that did not hold outweighs a conflict elsewhere in it.
pub(crate) fn sort_transaction<R>(error: &SdkError<TransactWriteItemsError, R>) -> Error {
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
            return Error::Conflict;
        }
        if codes().any(|code| code == "ValidationError") {
            return Error::Refused("ValidationError in a transaction".to_owned());
        }
        if codes().any(|code| code == "TransactionConflict") {
            return Error::Contended;
        }
        return Error::Unavailable(
            codes()
                .find(|code| *code != "None")
                .unwrap_or("cancelled")
                .to_owned(),
        );
    }
    sort(error)
}

/// A request that could not be put together, which is a mistake of ours.
pub(crate) fn unbuildable(error: impl std::fmt::Display) -> Error {
    Error::Refused(error.to_string())
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
