//! What the services that are about foreign trust domains share. Pure.

use tonic::{Code, Status};

use crate::server::services::answer::invalid;
use crate::server::services::ids;
use crate::spiffe::TrustDomainName;
use crate::store::federation::FederationError;

/// Why a change of what is known of a foreign trust domain was not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may not be made.
    Refused(Status),
    /// It could not be read or written.
    Store(FederationError),
}

impl From<FederationError> for Failure {
    fn from(error: FederationError) -> Self {
        Self::Store(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl Failure {
    /// What the caller is told; `what` failed where it was not refused.
    pub(super) fn status(self, what: &str) -> Status {
        match self {
            Self::Refused(status) => status,
            Self::Store(error) => stored(what, &error),
        }
    }
}

/// What a caller is told when the store fails.
pub(super) fn stored(what: &str, error: &FederationError) -> Status {
    let code = match error {
        FederationError::TooLarge { .. } => Code::InvalidArgument,
        FederationError::Bundle { .. } | FederationError::Damaged { .. } => Code::Internal,
        _ => Code::Unavailable,
    };
    Status::new(code, format!("{what}: {}", crate::error_chain(error)))
}

/// The foreign trust domain that a message names.
pub(super) fn foreign(
    name: &str,
    own: &TrustDomainName,
    malformed: &str,
    is_own: &str,
) -> Result<TrustDomainName, Status> {
    let foreign = ids::trust_domain(name).map_err(|error| invalid(malformed, error))?;
    if foreign == *own {
        return Err(Status::invalid_argument(is_own));
    }
    Ok(foreign)
}

/// The page of `all`, which are in the order of their names, that follows the one whose token is
/// `token`, and the token of the page; that is empty where there is nothing more. All is one page if
/// `size` is none.
///
/// # Errors
/// When `token` is none of ours.
pub(super) fn page<T>(
    all: Vec<T>,
    name_of: fn(&T) -> &TrustDomainName,
    size: i32,
    token: &str,
) -> Result<(Vec<T>, String), String> {
    let Some(size) = usize::try_from(size).ok().filter(|size| *size > 0) else {
        return Ok((all, String::new()));
    };
    let after = match token {
        "" => None,
        token => {
            let name = token.parse::<TrustDomainName>();
            Some(name.map_err(|_| format!("could not parse token '{token}'"))?)
        }
    };
    let follows = |item: &T| after.as_ref().is_none_or(|after| name_of(item) > after);
    let mut rest = all.into_iter().filter(follows);
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let last = page.last().filter(|_| rest.next().is_some());
    let token = last.map(|last| name_of(last).to_string());
    Ok((page, token.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Vec<TrustDomainName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn pages_join_to_the_whole() {
        let all = names(&["a", "b", "c", "d", "e"]);
        for size in [1, 2, 3, 5, 6, i32::MAX] {
            let (mut token, mut found, mut pages) = (String::new(), Vec::new(), 0);
            loop {
                let (page, next) = page(all.clone(), |it| it, size, &token).unwrap();
                assert!(!page.is_empty());
                found.extend(page);
                pages += 1;
                token = next;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(found, all);
            let size = usize::try_from(size).unwrap();
            assert_eq!(pages, all.len().div_ceil(size));
        }
        for size in [0, -1] {
            let whole = page(all.clone(), |it| it, size, "c").unwrap();
            assert_eq!(whole, (all.clone(), String::new()));
        }
    }

    proptest! {
        /// Whatever the token, a page is a part of the whole that begins after it.
        #[test]
        fn any_token_gives_a_part_of_what_follows(size in any::<i32>(), token in ".{0,12}|[a-e]{1,2}") {
            let all = names(&["a", "b", "c", "d", "e"]);
            if let Ok((page, next)) = page(all.clone(), |it| it, size, &token) {
                if size > 0 {
                    prop_assert!(page.iter().all(|name| name.as_str() > &token[..]));
                    prop_assert!(page.len() <= usize::try_from(size).unwrap());
                    prop_assert!(next.is_empty() || page.last().unwrap().as_str() == next);
                } else {
                    prop_assert_eq!(page, all);
                }
            }
        }
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let refused = page(names(&["a"]), |it| it, 1, "no token!").unwrap_err();
        assert_eq!(refused, "could not parse token 'no token!'");
        let gone = page(names(&["a", "c"]), |it| it, 1, "b").unwrap();
        assert_eq!(gone, (names(&["c"]), String::new()));
    }

    #[test]
    fn the_own_trust_domain_is_not_foreign() {
        let own = "example.org".parse().unwrap();
        let foreign = |name: &str| {
            let refused = foreign(name, &own, "malformed", "it is ours");
            refused.map_err(|status| status.message().to_owned())
        };
        assert_eq!(foreign("other.org"), Ok("other.org".parse().unwrap()));
        assert_eq!(foreign("spiffe://example.org"), Err("it is ours".into()));
        assert_eq!(
            foreign("").unwrap_err(),
            "malformed: trust domain is missing"
        );
    }
}
