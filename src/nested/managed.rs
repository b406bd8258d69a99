//! The credential that the operator makes for itself in a nested cluster: when it is made, renewed
//! and made anew. Pure.
//!
//! The kubeconfig of a NestedCluster with `credentials: Managed` is a bootstrap: with it the operator
//! makes a service account, the rights that it needs and a token. From then on it renews the token by
//! the token itself, and the bootstrap is needed only as the way back.

use jiff::Timestamp;

/// A credential that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When its token was made.
    pub issued_at: Timestamp,
    /// When its token ends.
    pub ends_at: Timestamp,
    /// Digest of the bootstrap that it was made with.
    pub bootstrap: String,
    /// Digest of the manifests that were applied with that.
    pub access: String,
}

/// What is there to make a credential with.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// Digest of the bootstrap; none: there is none.
    pub bootstrap: Option<&'a str>,
    /// Digest of the manifests that are needed now.
    pub access: &'a str,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Keep(Timestamp),
    /// Ask for a new token with the one that is there.
    Renew,
    /// Apply the manifests and ask for a token, with the bootstrap.
    Bootstrap,
    /// Nothing can be done without a bootstrap.
    Stuck,
}

/// The next step at `now`. `is_refused`: the cluster takes the token no more, so it was revoked.
#[must_use]
pub fn next_step(
    held: Option<&Held>,
    offered: Offered<'_>,
    is_refused: bool,
    now: Timestamp,
) -> Step {
    let anew = offered.bootstrap.map_or(Step::Stuck, |_| Step::Bootstrap);
    let Some(held) = held.filter(|held| now < held.ends_at && !is_refused) else {
        return anew;
    };
    let is_another = offered.bootstrap.is_some_and(|it| it != held.bootstrap);
    let is_outdated = offered.bootstrap.is_some() && held.access != offered.access;
    if is_another || is_outdated {
        return Step::Bootstrap;
    }
    let half_life = half_life(held);
    if now < half_life {
        return Step::Keep(half_life);
    }
    Step::Renew
}

/// When the token is renewed.
fn half_life(held: &Held) -> Timestamp {
    let half = held.ends_at.duration_since(held.issued_at) / 2;
    held.issued_at.saturating_add(half).unwrap_or(held.ends_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held() -> Held {
        Held {
            issued_at: at(100),
            ends_at: at(200),
            bootstrap: "b".into(),
            access: "a".into(),
        }
    }

    fn offered<'a>(bootstrap: Option<&'a str>, access: &'a str) -> Offered<'a> {
        Offered { bootstrap, access }
    }

    #[test]
    fn a_token_is_renewed_by_itself_from_half_of_its_life() {
        for bootstrap in [Some("b"), None] {
            let step = |now| next_step(Some(&held()), offered(bootstrap, "a"), false, at(now));
            assert_eq!(step(100), Step::Keep(at(150)));
            assert_eq!(step(149), Step::Keep(at(150)));
            assert_eq!(step(150), Step::Renew);
            assert_eq!(step(199), Step::Renew);
        }
    }

    #[test]
    fn what_the_token_cannot_do_takes_the_bootstrap() {
        let step = |held: Option<&Held>, bootstrap, access, is_refused, now| {
            next_step(held, offered(bootstrap, access), is_refused, at(now))
        };
        let known = held();
        let known = Some(&known);
        for (held, new_bootstrap, access, is_refused, now) in [
            (None, "b", "a", false, 100),
            (known, "b", "a", false, 200),
            (known, "b", "a", true, 100),
            (known, "another", "a", false, 100),
            (known, "b", "more", false, 100),
        ] {
            let with = step(held, Some(new_bootstrap), access, is_refused, now);
            assert_eq!(with, Step::Bootstrap, "{new_bootstrap} {access} {now}");
        }
        assert_eq!(step(None, None, "a", false, 100), Step::Stuck);
        assert_eq!(step(known, None, "a", false, 200), Step::Stuck);
        assert_eq!(step(known, None, "a", true, 100), Step::Stuck);
        // What it may do is told elsewhere; the token is no worse for it.
        assert_eq!(step(known, None, "more", false, 100), Step::Keep(at(150)));
    }
}
