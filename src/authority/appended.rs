//! Authorities of others in a trust domain's bundle: X.509 roots that somebody appended, and the JWT
//! keys of servers that are chained below ours. They come by the SPIRE API and are of no use but to
//! verifiers; who may bring them is decided there.
//!
//! Everything is bounded: a bundle goes to every agent, and the Secret that keeps it holds a
//! megabyte. What has no end would stay for ever, and is refused.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;

use super::rotation::is_to_be_pruned;
use crate::spiffe::{
    Bundle, CaCertificate, CaCertificateError, JwtKey, TrustDomainName, is_trust_anchor,
};

/// Most roots of others.
pub const MAX_APPENDED_ROOTS: usize = 64;
/// Most JWT keys of others.
pub const MAX_APPENDED_JWT_KEYS: usize = 256;
/// Longest certificate, in bytes.
const MAX_ROOT_LENGTH: usize = 4096;
/// How long a JWT key of others may live, so that its place is free again one day. Those of servers
/// below live as long as their CAs.
const MAX_JWT_KEY_LIFE: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Longest key ID, in bytes; SPIRE's have 32.
const MAX_KEY_ID_LENGTH: usize = 128;

/// A root of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedRoot {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Whether what verifies to it is to be replaced.
    pub tainted: bool,
}

/// The authorities of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    roots: Vec<(AppendedRoot, Timestamp)>,
    jwt_keys: Vec<JwtKey>,
    changes: u64,
}

impl Appended {
    /// What was read from a journal.
    ///
    /// # Errors
    /// When a root is none.
    pub(super) fn read(
        roots: impl IntoIterator<Item = AppendedRoot>,
        jwt_keys: Vec<JwtKey>,
    ) -> Result<Self, CaCertificateError> {
        let with_end = |root: AppendedRoot| {
            let not_after = CaCertificate::parse(root.certificate.clone())?.not_after();
            Ok((root, not_after))
        };
        Ok(Self {
            roots: roots.into_iter().map(with_end).collect::<Result<_, _>>()?,
            jwt_keys,
            changes: 0,
        })
    }

    /// The roots, oldest first.
    pub fn roots(&self) -> impl Iterator<Item = &AppendedRoot> {
        self.roots.iter().map(|(root, _)| root)
    }

    /// The JWT keys, oldest first.
    #[must_use]
    pub fn jwt_keys(&self) -> &[JwtKey] {
        &self.jwt_keys
    }

    /// How often they have changed since they were read.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// With these, too; those that `bundle`, which is the whole one, has already are passed over.
    ///
    /// # Errors
    /// When one cannot be in the bundle. Then none is taken.
    pub(super) fn with(
        mut self,
        roots: &[AppendedRoot],
        jwt_keys: &[JwtKey],
        bundle: &Bundle,
        now: Timestamp,
    ) -> Result<Self, AppendError> {
        let before = (self.roots.len(), self.jwt_keys.len());
        for root in roots {
            let not_after = check_root(root, bundle.trust_domain(), now)?;
            let is_known = bundle.roots().any(|known| *known == root.certificate)
                || self
                    .roots()
                    .any(|known| known.certificate == root.certificate);
            if !is_known {
                self.roots.push((root.clone(), not_after));
            }
        }
        for key in jwt_keys {
            check_jwt_key(key, now)?;
            let mut appended = self.jwt_keys.iter();
            let of_same_id = appended.find(|known| known.key_id == key.key_id);
            match of_same_id.or_else(|| bundle.jwt_key(&key.key_id)) {
                None => self.jwt_keys.push(key.clone()),
                Some(known) if known == key => {}
                Some(_) => {
                    let key_id = key.key_id.clone();
                    return Err(AppendError::KeyIdTaken { key_id });
                }
            }
        }
        if self.roots.len() > MAX_APPENDED_ROOTS || self.jwt_keys.len() > MAX_APPENDED_JWT_KEYS {
            return Err(AppendError::TooMany);
        }
        if before != (self.roots.len(), self.jwt_keys.len()) {
            self.changes += 1;
        }
        Ok(self)
    }

    /// Without those that ended a day ago, and how many those were.
    pub(super) fn pruned(mut self, now: Timestamp) -> (Self, usize) {
        let count = |it: &Self| it.roots.len() + it.jwt_keys.len();
        let before = count(&self);
        self.roots
            .retain(|(_, not_after)| !is_to_be_pruned(*not_after, now));
        self.jwt_keys.retain(|key| {
            let expires_at = key.expires_at;
            !expires_at.is_some_and(|end| is_to_be_pruned(end, now))
        });
        let gone = before - count(&self);
        if gone > 0 {
            self.changes += 1;
        }
        (self, gone)
    }
}

/// Why authorities of others are not taken into the bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// It has ended.
    #[error("the authority has expired at {expires_at}")]
    Expired {
        /// When it did.
        expires_at: Timestamp,
    },
    /// It would take up room for too long.
    #[error(
        "the JWT key would expire at {expires_at}; {} days ahead are allowed",
        MAX_JWT_KEY_LIFE.as_hours() / 24
    )]
    ExpiresTooLate {
        /// When it would.
        expires_at: Timestamp,
    },
    /// No name that a token could carry.
    #[error("a JWT key has an ID of 1 to {MAX_KEY_ID_LENGTH} bytes")]
    KeyId,
    /// Another key has that name.
    #[error(
        "the bundle has another JWT key of the ID {key_id:?}, or the same with other properties"
    )]
    KeyIdTaken {
        /// The name.
        key_id: String,
    },
    /// It would stay for ever.
    #[error("the JWT key {key_id:?} has no expires_at")]
    NoExpiry {
        /// The key.
        key_id: String,
    },
    /// No CA certificate of this trust domain.
    #[error("the root cannot be used: {source}")]
    Root {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// A root that no verifier here could take.
    #[error("the root cannot be a trust anchor")]
    RootForm,
    /// A root of too many bytes.
    #[error("the root has {length} bytes; {MAX_ROOT_LENGTH} are allowed")]
    RootTooLarge {
        /// How many it has.
        length: usize,
    },
    /// There are too many already.
    #[error(
        "the bundle has room for {MAX_APPENDED_ROOTS} roots and {MAX_APPENDED_JWT_KEYS} JWT keys \
         of others; those that are in it must expire first"
    )]
    TooMany,
}

fn check_root(
    root: &AppendedRoot,
    trust_domain: &TrustDomainName,
    now: Timestamp,
) -> Result<Timestamp, AppendError> {
    let length = root.certificate.len();
    if length > MAX_ROOT_LENGTH {
        return Err(AppendError::RootTooLarge { length });
    }
    let parsed = CaCertificate::parse(root.certificate.clone())
        .map_err(|source| AppendError::Root { source })?;
    // One that begins later is good by then.
    let within = now.max(parsed.not_before());
    parsed
        .check(trust_domain, within)
        .map_err(|source| AppendError::Root { source })?;
    if !is_trust_anchor(&root.certificate) {
        return Err(AppendError::RootForm);
    }
    Ok(parsed.not_after())
}

fn check_jwt_key(key: &JwtKey, now: Timestamp) -> Result<(), AppendError> {
    if key.key_id.is_empty() || key.key_id.len() > MAX_KEY_ID_LENGTH {
        return Err(AppendError::KeyId);
    }
    match key.expires_at {
        None => Err(AppendError::NoExpiry {
            key_id: key.key_id.clone(),
        }),
        Some(expires_at) if expires_at <= now => Err(AppendError::Expired { expires_at }),
        Some(expires_at) if expires_at.duration_since(now) > MAX_JWT_KEY_LIFE => {
            Err(AppendError::ExpiresTooLate { expires_at })
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::JwtKeyType,
        authority::{
            JwtAuthority,
            fixtures::{ca_params, now, root, trust_domain, with_uri},
        },
    };

    fn later(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    fn empty() -> Bundle {
        Bundle::new(trust_domain(), [], 0).unwrap()
    }

    fn foreign_root(name: &str) -> AppendedRoot {
        AppendedRoot {
            certificate: root(ca_params(name)).der().clone(),
            tainted: false,
        }
    }

    fn foreign_key(key_id: &str) -> JwtKey {
        let authority = JwtAuthority::generate(JwtKeyType::EcP256, later(1)).unwrap();
        JwtKey {
            key_id: key_id.to_owned(),
            public_key: authority.key().public_key().clone(),
            expires_at: Some(later(1)),
            tainted: false,
        }
    }

    fn append(
        to: &Appended,
        roots: &[AppendedRoot],
        jwt_keys: &[JwtKey],
    ) -> Result<Appended, AppendError> {
        to.clone().with(roots, jwt_keys, &empty(), now())
    }

    #[test]
    fn takes_each_once() {
        let (root, key) = (foreign_root("a"), foreign_key("a"));
        let (roots, keys) = ([root.clone(), root.clone()], [key.clone(), key.clone()]);
        let appended = append(&Appended::default(), &roots, &keys).unwrap();
        assert_eq!(
            (appended.roots().count(), appended.jwt_keys().len()),
            (1, 1)
        );
        assert_eq!(appended.changes(), 1);
        assert_eq!(append(&appended, &roots, &keys), Ok(appended.clone()));
        let bundle = Bundle::new(trust_domain(), [root.certificate.clone()], 0).unwrap();
        let bundle = bundle.with_jwt_keys([key]);
        let none = Appended::default().with(&roots, &keys, &bundle, now());
        assert_eq!(none, Ok(Appended::default()), "what is our own already");
    }

    #[test]
    fn a_name_stays_with_its_key() {
        let appended = append(&Appended::default(), &[], &[foreign_key("a")]).unwrap();
        let key_id = "a".to_owned();
        let taken = Err(AppendError::KeyIdTaken { key_id });
        assert_eq!(append(&appended, &[], &[foreign_key("a")]), taken);
        let prolonged = JwtKey {
            expires_at: Some(later(2)),
            ..appended.jwt_keys()[0].clone()
        };
        assert_eq!(append(&appended, &[], &[prolonged]), taken);
        let bundle = empty().with_jwt_keys([foreign_key("a")]);
        let own = Appended::default().with(&[], &[foreign_key("a")], &bundle, now());
        assert_eq!(own, taken);
    }

    #[test]
    fn says_what_is_wrong_with_a_root() {
        let refused = |root: &[u8]| {
            let certificate = CertificateDer::from(root.to_vec());
            let tainted = false;
            let root = AppendedRoot {
                certificate,
                tainted,
            };
            append(&Appended::default(), &[root], &[]).unwrap_err()
        };
        let source = CaCertificateError::Malformed;
        assert_eq!(refused(b"none"), AppendError::Root { source });
        let length = MAX_ROOT_LENGTH + 1;
        assert_eq!(
            refused(&vec![0; length]),
            AppendError::RootTooLarge { length }
        );
        let mut leaf = ca_params("leaf");
        leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
        let source = CaCertificateError::NotCa;
        assert_eq!(refused(root(leaf).der()), AppendError::Root { source });
        let other = with_uri(ca_params("other"), "spiffe://other.org");
        let other = refused(root(other).der());
        assert!(matches!(
            other,
            AppendError::Root {
                source: CaCertificateError::OtherTrustDomain { .. }
            }
        ));
        let mut old = ca_params("old");
        old.not_after = old.not_before + time::Duration::minutes(1);
        let old = refused(root(old).der());
        assert!(matches!(
            old,
            AppendError::Root {
                source: CaCertificateError::Expired { .. }
            }
        ));
    }

    #[test]
    fn says_what_is_wrong_with_a_key() {
        let refused = |change: fn(&mut JwtKey)| {
            let mut key = foreign_key("a");
            change(&mut key);
            append(&Appended::default(), &[], &[key]).unwrap_err()
        };
        assert_eq!(refused(|key| key.key_id.clear()), AppendError::KeyId);
        assert_eq!(
            refused(|key| key.key_id = "a".repeat(129)),
            AppendError::KeyId
        );
        let key_id = "a".to_owned();
        assert_eq!(
            refused(|key| key.expires_at = None),
            AppendError::NoExpiry { key_id }
        );
        let expires_at = now();
        assert_eq!(
            refused(|key| key.expires_at = Some(now())),
            AppendError::Expired { expires_at }
        );
        let expires_at = later(400 * 24) + SignedDuration::from_secs(1);
        assert_eq!(
            refused(|key| key.expires_at = Some(later(400 * 24) + SignedDuration::from_secs(1))),
            AppendError::ExpiresTooLate { expires_at }
        );
        let mut longest = foreign_key("a");
        longest.expires_at = Some(later(400 * 24));
        append(&Appended::default(), &[], &[longest]).unwrap();
    }

    #[test]
    fn there_is_room_for_so_many() {
        let key = foreign_key("a");
        let keys = |count: usize| -> Vec<JwtKey> {
            let named = (0..count).map(|number| JwtKey {
                key_id: number.to_string(),
                ..key.clone()
            });
            named.collect()
        };
        let full = append(&Appended::default(), &[], &keys(MAX_APPENDED_JWT_KEYS)).unwrap();
        append(&full, &[], &keys(MAX_APPENDED_JWT_KEYS)).unwrap();
        assert_eq!(
            append(&full, &[], std::slice::from_ref(&key)),
            Err(AppendError::TooMany)
        );
        let roots: Vec<_> = (0..=MAX_APPENDED_ROOTS)
            .map(|_| foreign_root("a"))
            .collect();
        assert_eq!(append(&full, &roots, &[]), Err(AppendError::TooMany));
        let (emptied, gone) = full.pruned(later(26));
        assert_eq!(gone, MAX_APPENDED_JWT_KEYS);
        append(&emptied, &roots[1..], &[key]).unwrap();
    }

    #[test]
    fn go_a_day_after_their_end() {
        let appended = append(
            &Appended::default(),
            &[foreign_root("a")],
            &[foreign_key("a")],
        );
        let appended = appended.unwrap();
        assert_eq!(appended.clone().pruned(later(25)), (appended.clone(), 0));
        let (pruned, gone) = appended.pruned(later(26));
        assert_eq!((gone, pruned.jwt_keys().len(), pruned.changes()), (1, 0, 2));
        let (pruned, gone) = pruned.pruned(later(367 * 24));
        assert_eq!((gone, pruned.roots().count()), (1, 0));
    }
}
