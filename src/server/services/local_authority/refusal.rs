//! The rules of authorities in the words of spire-server. Pure.

use tonic::Status;

use crate::authority::{AuthorityError, AuthorityKind};
use crate::server::services::answer::{internal, invalid};

/// What is done to an authority that its ID names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Activate,
    Taint,
    Revoke,
}

/// The kind for people.
pub(super) fn name_of(kind: AuthorityKind) -> &'static str {
    match kind {
        AuthorityKind::X509 => "X.509",
        AuthorityKind::Jwt => "JWT",
    }
}

/// What failed, for people.
pub(super) fn failed(act: Act, kind: AuthorityKind) -> String {
    let act = match act {
        Act::Activate => "activate",
        Act::Taint => "taint",
        Act::Revoke => "revoke",
    };
    format!("failed to {act} {} authority", name_of(kind))
}

/// A rule of authorities in SPIRE's words.
pub(super) fn refusal(act: Act, kind: AuthorityKind, rule: AuthorityError) -> Status {
    let status_of = |state: &str| format!("unsupported local authority status: {state}");
    let is_jwt = kind == AuthorityKind::Jwt;
    let wrong = |why: &str| invalid("invalid authority ID", why);
    match (act, rule) {
        (Act::Activate, AuthorityError::NotPrepared) => internal(
            "only Prepared authorities can be activated",
            status_of("OLD"),
        ),
        (Act::Activate | Act::Taint, AuthorityError::Unknown) => {
            Status::invalid_argument("unexpected authority ID")
        }
        (Act::Taint, AuthorityError::Active) => {
            Status::invalid_argument("unable to taint current local authority")
        }
        (Act::Taint, AuthorityError::Prepared) => invalid(
            "only Old local authorities can be tainted",
            status_of("PREPARED"),
        ),
        (Act::Taint, AuthorityError::AlreadyTainted) => {
            let what = if is_jwt { "key" } else { "root CA" };
            internal(
                &failed(act, kind),
                format_args!("{what} is already tainted"),
            )
        }
        (Act::Revoke, AuthorityError::Active) => wrong("unable to use current authority"),
        (Act::Revoke, AuthorityError::Prepared) if is_jwt => wrong("unable to use a prepared key"),
        (Act::Revoke, AuthorityError::Unknown) if is_jwt => {
            wrong("no JWT authority found with provided authority ID")
        }
        (Act::Revoke, AuthorityError::Prepared | AuthorityError::Unknown) => {
            wrong("only Old local authority can be revoked")
        }
        (Act::Revoke, AuthorityError::NotTainted) => {
            let what = if is_jwt { "key" } else { "root CA" };
            let why = format_args!("it is not possible to revoke an untainted {what}");
            internal(&failed(act, kind), why)
        }
        (act, rule) => Status::failed_precondition(format!("{}: {rule}", failed(act, kind))),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn refusals_are_in_the_words_of_spire() {
        use AuthorityError as Rule;
        use AuthorityKind::{Jwt, X509};
        for (act, kind, rule, code, message) in [
            (
                Act::Activate,
                X509,
                Rule::Unknown,
                Code::InvalidArgument,
                "unexpected authority ID",
            ),
            (
                Act::Activate,
                X509,
                Rule::NotPrepared,
                Code::Internal,
                "only Prepared authorities can be activated: unsupported local authority status: OLD",
            ),
            (
                Act::Taint,
                Jwt,
                Rule::Active,
                Code::InvalidArgument,
                "unable to taint current local authority",
            ),
            (
                Act::Taint,
                X509,
                Rule::Prepared,
                Code::InvalidArgument,
                "only Old local authorities can be tainted: unsupported local authority status: \
                 PREPARED",
            ),
            (
                Act::Taint,
                X509,
                Rule::AlreadyTainted,
                Code::Internal,
                "failed to taint X.509 authority: root CA is already tainted",
            ),
            (
                Act::Taint,
                Jwt,
                Rule::AlreadyTainted,
                Code::Internal,
                "failed to taint JWT authority: key is already tainted",
            ),
            (
                Act::Revoke,
                X509,
                Rule::Active,
                Code::InvalidArgument,
                "invalid authority ID: unable to use current authority",
            ),
            (
                Act::Revoke,
                X509,
                Rule::Prepared,
                Code::InvalidArgument,
                "invalid authority ID: only Old local authority can be revoked",
            ),
            (
                Act::Revoke,
                Jwt,
                Rule::Prepared,
                Code::InvalidArgument,
                "invalid authority ID: unable to use a prepared key",
            ),
            (
                Act::Revoke,
                Jwt,
                Rule::Unknown,
                Code::InvalidArgument,
                "invalid authority ID: no JWT authority found with provided authority ID",
            ),
            (
                Act::Revoke,
                X509,
                Rule::NotTainted,
                Code::Internal,
                "failed to revoke X.509 authority: it is not possible to revoke an untainted root \
                 CA",
            ),
            (
                Act::Activate,
                Jwt,
                Rule::NotPublished,
                Code::FailedPrecondition,
                "failed to activate JWT authority: the authority is not seen in the published \
                 bundle yet; try again in some seconds",
            ),
        ] {
            let status = refusal(act, kind, rule);
            assert_eq!((status.code(), status.message()), (code, message));
        }
    }
}
