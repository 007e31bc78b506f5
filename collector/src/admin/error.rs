//! Failures as the callers of the admin API see them: one clear sentence, the field when there is one, and never
//! anything of the inside. Logs what the caller cannot mend, once.

use sonde_proto::model::InvalidField;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::auth::Caller;
use crate::store::StoreError;

/// `INVALID_ARGUMENT` with the message `field: reason`, and the same as `google.rpc.BadRequest`.
pub fn invalid(error: InvalidField) -> Status {
    let message = error.to_string();
    let details = ErrorDetails::with_bad_request_violation(error.field, error.reason);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The answer to a caller whose change the store did not make.
pub fn store(caller: &Caller, error: StoreError) -> Status {
    refusal(caller, error, "nothing was changed as far as is known, try again in a few seconds")
}

/// The answer to a caller whose question the store did not answer: there was nothing to change.
pub fn read(caller: &Caller, error: StoreError) -> Status {
    refusal(caller, error, "try again in a few seconds")
}

fn refusal(caller: &Caller, error: StoreError, when_away: &str) -> Status {
    let message = error.to_string();
    match error {
        StoreError::Unavailable(source) => {
            tracing::warn!(request.id = %caller.request_id, error = %source, "the configuration store is away");
            Status::unavailable(format!("{message}; {when_away}"))
        }
        StoreError::NotFound { .. } => Status::not_found(message),
        StoreError::Conflict { .. } => Status::already_exists(message),
        StoreError::Precondition(_) => Status::failed_precondition(message),
        StoreError::Limit { .. } => Status::resource_exhausted(message),
        StoreError::Invalid(error) => invalid(error),
        inner @ (StoreError::Corrupt { .. } | StoreError::Migration(_) | StoreError::Database(_)) => {
            let chain = chain(&inner);
            tracing::error!(request.id = %caller.request_id, error = chain, "a request failed inside the store");
            Status::internal(format!(
                "{message}; the operator finds the cause in the collector's log under request {}",
                caller.request_id
            ))
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_field_is_named_in_message_and_details() {
        let status = invalid(InvalidField::new("regions", "`mars` is not a region of this mesh"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "regions: `mars` is not a region of this mesh");
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(
            (violation.field.as_str(), violation.description.as_str()),
            ("regions", "`mars` is not a region of this mesh")
        );
    }
}
