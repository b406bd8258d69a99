//! Statuses as spire-server words them: what failed, then a colon and why. Pure.

use std::fmt::Display;

use tonic::{Code, Status};

use crate::server::proto::types;
use crate::store::WriteError;

/// `InvalidArgument`.
pub(super) fn invalid(what: &str, why: impl Display) -> Status {
    Status::invalid_argument(format!("{what}: {why}"))
}

/// `Internal`.
pub(super) fn internal(what: &str, why: impl Display) -> Status {
    Status::internal(format!("{what}: {why}"))
}

/// `Unavailable`: what may well succeed a moment later.
pub(super) fn unavailable(what: &str, why: impl Display) -> Status {
    Status::unavailable(format!("{what}: {why}"))
}

/// What a caller is told when an entry could not be written.
pub(super) fn not_written(what: &str, error: &WriteError) -> Status {
    let why = crate::error_chain(error);
    match error {
        WriteError::Call(error) if !error.is_answer() => unavailable(what, why),
        WriteError::Conflict => unavailable(what, why),
        _ => internal(what, why),
    }
}

/// The same status with what failed before its message.
pub(super) fn within(what: &str, status: &Status) -> Status {
    Status::new(status.code(), format!("{what}: {}", status.message()))
}

/// What one item of a batch comes to: its status, and what it has if that is good.
pub(super) fn item<T>(outcome: Result<T, Status>) -> (Option<types::Status>, Option<T>) {
    let (code, message, item) = match outcome {
        Ok(item) => (Code::Ok, "OK".to_owned(), Some(item)),
        Err(status) => (status.code(), status.message().to_owned(), None),
    };
    let code = code.into();
    (Some(types::Status { code, message }), item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_a_status() {
        let (status, found) = item(Ok(1));
        let status = status.unwrap();
        assert_eq!(
            (status.code, status.message.as_str(), found),
            (0, "OK", Some(1))
        );
        let (status, found) = item::<()>(Err(invalid("malformed CSR", "no DER")));
        let status = status.unwrap();
        assert_eq!(
            (status.code, status.message.as_str(), found),
            (3, "malformed CSR: no DER", None)
        );
    }

    #[test]
    fn a_status_keeps_its_code() {
        let limited = Status::resource_exhausted("rate limit exceeded");
        let status = within("rejecting request", &limited);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "rejecting request: rate limit exceeded");
    }
}
