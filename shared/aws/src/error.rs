use landfall_tracking::Error;
use serde::Deserialize;

use crate::access::CallError;

/// Sorts by what an error means for a retry.
pub(crate) fn sort(error: CallError) -> Error {
    match error {
        CallError::Answered(Some(code), _) => sort_code(code),
        CallError::Answered(None, _) => Error::Unavailable("an answer without a code".to_owned()),
        CallError::NotSent => Error::Unavailable("no connection".to_owned()),
        CallError::Unknown | CallError::Broken(_) => Error::Unknown,
        CallError::Unbuildable(problem) => {
            Error::Refused(format!("the request could not be built: {problem}"))
        }
    }
}

fn sort_code(code: String) -> Error {
    match code.as_str() {
        "ConditionalCheckFailedException" => Error::Conflict,
        "TransactionConflictException" | "TransactionInProgressException" => Error::Contended,
        "ValidationException"
        | "AccessDeniedException"
        | "ResourceNotFoundException"
        | "ItemCollectionSizeLimitExceededException"
        | "IdempotentParameterMismatchException"
        | "UnrecognizedClientException"
        | "AWS.SimpleQueueService.NonExistentQueue"
        | "QueueDoesNotExist"
        | "InvalidMessageContents"
        | "InvalidParameterValue"
        | "InvalidParameterValueException"
        | "MissingParameter"
        | "MissingRequiredParameterException"
        | "ReceiptHandleIsInvalid" => Error::Refused(code),
        _ => Error::Unavailable(code),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Cancelled {
    #[serde(default)]
    cancellation_reasons: Vec<Reason>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reason {
    code: Option<String>,
}

/// Sorts what a transaction returns: one condition that did not hold outweighs a conflict elsewhere in it.
pub(crate) fn sort_transaction(error: CallError) -> Error {
    let body = match &error {
        CallError::Answered(Some(code), body) if code == "TransactionCanceledException" => body,
        _ => return sort(error),
    };
    let reasons = serde_json::from_slice::<Cancelled>(body)
        .map(|cancelled| cancelled.cancellation_reasons)
        .unwrap_or_default();
    let codes = || reasons.iter().filter_map(|reason| reason.code.as_deref());
    if codes().any(|code| code == "ConditionalCheckFailed") {
        return Error::Conflict;
    }
    if codes().any(|code| code == "ValidationError") {
        return Error::Refused("ValidationError in a transaction".to_owned());
    }
    if codes().any(|code| code == "TransactionConflict") {
        return Error::Contended;
    }
    let code = codes().find(|code| *code != "None");
    Error::Unavailable(code.unwrap_or("cancelled").to_owned())
}
