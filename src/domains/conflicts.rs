//! Which TrustDomains must wait because an older one has their name, signer or class.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What a TrustDomain object claims for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the object.
    pub object: String,
    /// UID of the object, the last tie-breaker.
    pub uid: String,
    /// When the object was created, to the second.
    pub created: Option<Timestamp>,
    /// Whether an operator serves the object already.
    pub is_served: bool,
    /// The trust domain.
    pub trust_domain: String,
    /// The signer name.
    pub signer_name: String,
    /// The class whose objects it serves; empty is the class of objects without one.
    pub class_name: String,
    /// Whether it serves objects without a class, too.
    pub watch_classless: bool,
    /// The port of its server, if it has one.
    pub server_port: Option<i32>,
}

/// Why a TrustDomain must wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// An older object serves the same class.
    #[error(
        "TrustDomain {holder} is older and serves {class} already; \
         give this one another className, or delete one of the two"
    )]
    Class {
        /// The older object.
        holder: String,
        /// The class both claim, in words.
        class: String,
    },
    /// An older object's server has the same port.
    #[error(
        "TrustDomain {holder} is older and is served on port {port} already; \
         give this one another server.port"
    )]
    ServerPort {
        /// The older object.
        holder: String,
        /// The port of both.
        port: i32,
    },
    /// An older object has the same signer name.
    #[error(
        "TrustDomain {holder} is older and has the signer name already; \
         give this one another podCertificates.signerName, or delete one of the two"
    )]
    SignerName {
        /// The older object.
        holder: String,
    },
    /// An older object is the same trust domain.
    #[error(
        "TrustDomain {holder} is older and serves the same trust domain; delete one of the two"
    )]
    TrustDomain {
        /// The older object.
        holder: String,
    },
}

/// The objects that must wait, by name, each with the reason. Of two that clash the older one is
/// served (of the same second the one that is served already, then the smaller UID); one that waits
/// holds nothing.
#[must_use]
pub fn conflicts(claims: impl IntoIterator<Item = Claim>) -> BTreeMap<String, Conflict> {
    let mut claims: Vec<Claim> = claims.into_iter().collect();
    claims.sort_by(|a, b| {
        let rank = |it: &Claim| (it.created, !it.is_served);
        (rank(a), &a.uid, &a.object).cmp(&(rank(b), &b.uid, &b.object))
    });
    let mut served: Vec<Claim> = Vec::new();
    let mut waiting = BTreeMap::new();
    for claim in claims {
        match served.iter().find_map(|holder| clash(holder, &claim)) {
            Some(conflict) => {
                waiting.insert(claim.object, conflict);
            }
            None => served.push(claim),
        }
    }
    waiting
}

fn clash(holder: &Claim, claim: &Claim) -> Option<Conflict> {
    let name = || holder.object.clone();
    if holder.trust_domain == claim.trust_domain {
        return Some(Conflict::TrustDomain { holder: name() });
    }
    if holder.signer_name == claim.signer_name {
        return Some(Conflict::SignerName { holder: name() });
    }
    if holder.class_name == claim.class_name {
        let class = match claim.class_name.as_str() {
            "" => "objects without a class".to_owned(),
            class => format!("class {class:?}"),
        };
        return Some(Conflict::Class {
            holder: name(),
            class,
        });
    }
    if let Some(port) = holder
        .server_port
        .filter(|_| holder.server_port == claim.server_port)
    {
        return Some(Conflict::ServerPort {
            holder: name(),
            port,
        });
    }
    let classless = |claim: &Claim| claim.watch_classless || claim.class_name.is_empty();
    (classless(holder) && classless(claim)).then(|| Conflict::Class {
        holder: name(),
        class: "objects without a class".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(object: &str, seconds: i64, trust_domain: &str, class: &str) -> Claim {
        Claim {
            object: object.into(),
            uid: object.into(),
            created: Timestamp::from_second(seconds).ok(),
            is_served: false,
            trust_domain: trust_domain.into(),
            signer_name: format!("spiffe-operator.io/{trust_domain}"),
            class_name: class.into(),
            watch_classless: false,
            server_port: None,
        }
    }

    #[test]
    fn the_younger_of_two_waits() {
        let waiting = conflicts([claim("b", 2, "x", "c1"), claim("a", 1, "x", "c2")]);
        assert_eq!(
            waiting.into_iter().collect::<Vec<_>>(),
            [("b".into(), Conflict::TrustDomain { holder: "a".into() })]
        );
    }

    #[test]
    fn of_the_same_second_the_one_that_is_served_stays() {
        let served = Claim {
            is_served: true,
            ..claim("b", 1, "x", "c1")
        };
        let waiting = conflicts([claim("a", 1, "x", "c2"), served]);
        assert_eq!(
            waiting.into_iter().collect::<Vec<_>>(),
            [("a".into(), Conflict::TrustDomain { holder: "b".into() })]
        );
    }

    #[test]
    fn signer_and_class_count_too() {
        let mut same_signer = claim("b", 2, "y", "c2");
        same_signer.signer_name = "spiffe-operator.io/x".into();
        let waiting = conflicts([claim("a", 1, "x", "c1"), same_signer]);
        assert!(matches!(
            waiting.get("b"),
            Some(Conflict::SignerName { .. })
        ));
        let waiting = conflicts([claim("a", 1, "x", "c"), claim("b", 1, "y", "c")]);
        assert!(matches!(waiting.get("b"), Some(Conflict::Class { .. })));
        let mut both = [claim("a", 1, "x", "c1"), claim("b", 2, "y", "c2")];
        assert!(conflicts(both.clone()).is_empty());
        both[0].watch_classless = true;
        both[1].watch_classless = true;
        assert!(conflicts(both).contains_key("b"));
    }

    #[test]
    fn no_two_have_the_same_port() {
        let on = |object: &str, port| Claim {
            server_port: port,
            ..claim(object, 1, object, object)
        };
        assert!(conflicts([on("a", None), on("b", None), on("c", Some(1))]).is_empty());
        let waiting = conflicts([on("a", Some(1)), on("b", Some(1)), on("c", Some(2))]);
        let holder = "a".into();
        assert_eq!(
            waiting.into_iter().collect::<Vec<_>>(),
            [("b".into(), Conflict::ServerPort { holder, port: 1 })]
        );
    }

    #[test]
    fn one_that_waits_blocks_nobody() {
        let waiting = conflicts([
            claim("a", 1, "x", "c1"),
            claim("b", 2, "x", "c2"),
            claim("c", 3, "z", "c2"),
        ]);
        assert_eq!(waiting.keys().collect::<Vec<_>>(), ["b"]);
    }
}
