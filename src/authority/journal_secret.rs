//! The durable form of a trust domain's authorities: the data of one Secret.
//!
//! `journal.json` is a versioned document with the ledgers, certificates and public keys; beside it
//! stands one entry `<fingerprint>.key` for each CA, and `jwt-<key ID>.key` for each JWT key, that
//! signs or will. Old ones keep no key: they never sign again. Data that cannot be read is an error,
//! never an empty journal, for out of an empty one a new root would grow. A document of before there
//! were JWT keys has none, and gets one.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Appended, AppendedRoot, AuthorityId, AuthorityState, CertificateAuthority, Journal,
    JwtAuthority, KeyError, PrivateKey, Record, SubjectError, UpstreamBundle,
    journal_document::{AppendedJwtKeyEntry, AppendedRootEntry, CaEntry, Document, JwtEntry},
    slots::{Material, Slots, needs_key},
};
use crate::spiffe::{CaCertificateError, JwtKey, PemError, PublicKey, TrustDomainName};

/// Key of the Secret with the document.
pub const DOCUMENT: &str = "journal.json";
const KEY_SUFFIX: &str = ".key";
const VERSION: u32 = 1;

impl Journal {
    /// Reads the data of a Secret.
    ///
    /// # Errors
    /// When anything in it is missing, malformed, of another trust domain or of a newer version.
    pub fn from_secret_data(
        trust_domain: &TrustDomainName,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, JournalError> {
        let document = data.get(DOCUMENT).ok_or(JournalError::Missing)?;
        let document: Document =
            serde_json::from_slice(document).map_err(|error| JournalError::Malformed {
                message: error.to_string(),
            })?;
        if document.version != VERSION {
            return Err(JournalError::Version {
                version: document.version,
            });
        }
        if document.trust_domain != *trust_domain {
            return Err(JournalError::OtherTrustDomain {
                found: document.trust_domain,
            });
        }
        let cas = document.authorities.iter().map(|entry| {
            let certificates = entry.certificates()?;
            let record = entry.record(&certificates);
            if !needs_key(record.state) {
                return Ok((record, Material::Retired(Box::new(certificates))));
            }
            let public_key = certificates.certificate().public_key();
            let key = read_key(data, &ca_key(&record), &record.id, public_key)?;
            let ca = CertificateAuthority::new(certificates, key);
            let ca = ca.map_err(|source| JournalError::Subject {
                id: record.id.clone(),
                source,
            })?;
            Ok((record, Material::Signing(Arc::new(ca))))
        });
        let cas = cas.collect::<Result<_, _>>()?;
        let jwt_keys = document.jwt_authorities.iter().map(|entry| {
            let public_key = entry.public_key()?;
            let record = entry.record();
            if !needs_key(record.state) {
                return Ok((record, Material::Retired(public_key)));
            }
            let key = read_key(data, &jwt_key(&record), &record.id, &public_key)?;
            let key_id = record.id.as_str().to_owned();
            let authority = JwtAuthority::new(key_id, key, record.not_after);
            let authority = authority.map_err(|source| JournalError::Key {
                id: record.id.clone(),
                source,
            })?;
            Ok((record, Material::Signing(Arc::new(authority))))
        });
        let jwt_keys = jwt_keys.collect::<Result<_, _>>()?;
        let damaged = |source| JournalError::Certificate { source };
        let appended = Appended::read(
            roots(&document.appended_roots)?,
            keys(&document.appended_jwt_keys)?,
        )
        .map_err(damaged)?;
        let upstream = UpstreamBundle::read(
            roots(&document.upstream_roots)?,
            keys(&document.upstream_jwt_keys)?,
        )
        .map_err(damaged)?;
        Ok(Self {
            trust_domain: document.trust_domain,
            // The number is that of the journal as a whole, of which the parts are summands.
            cas: Slots::read(cas, document.sequence, document.lineage)?,
            jwt_keys: Slots::read(jwt_keys, 0, None)?,
            appended,
            upstream,
        })
    }

    /// The data of the Secret. It holds private keys: write it there and nowhere else.
    ///
    /// # Errors
    /// [`JournalError::Unwritable`].
    pub fn to_secret_data(&self) -> Result<BTreeMap<String, Vec<u8>>, JournalError> {
        let pem = |key: &PrivateKey| key.to_pem().as_bytes().to_vec();
        let mut data = BTreeMap::new();
        let mut authorities = Vec::new();
        for (record, material) in self.cas.entries() {
            if let Material::Signing(ca) = material {
                data.insert(ca_key(record), pem(ca.key()));
            }
            authorities.push(CaEntry::of(record, material.certificates()));
        }
        let mut jwt_authorities = Vec::new();
        for (record, material) in self.jwt_keys.entries() {
            if let Material::Signing(authority) = material {
                data.insert(jwt_key(record), pem(authority.key()));
            }
            jwt_authorities.push(JwtEntry::of(record, material.public_key()));
        }
        let document = Document {
            version: VERSION,
            trust_domain: self.trust_domain.clone(),
            lineage: self.ledger().lineage.clone(),
            sequence: self.sequence(),
            authorities,
            jwt_authorities,
            appended_roots: self.appended.roots().map(Into::into).collect(),
            appended_jwt_keys: self.appended.jwt_keys().iter().map(Into::into).collect(),
            upstream_roots: self.upstream.roots().map(Into::into).collect(),
            upstream_jwt_keys: self.upstream.jwt_keys().iter().map(Into::into).collect(),
        };
        let document = serde_json::to_vec_pretty(&document);
        let document = document.map_err(|error| JournalError::Unwritable {
            message: error.to_string(),
        })?;
        data.insert(DOCUMENT.to_owned(), document);
        Ok(data)
    }
}

/// Why the data of a Secret is no journal. The Secret wants repair, or restoring from a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A certificate that is none of a CA.
    #[error("a certificate in {DOCUMENT} cannot be used: {source}")]
    Certificate {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// A private key that cannot be used.
    #[error("the private key of the authority {id} cannot be used: {source}")]
    Key {
        /// The authority.
        id: AuthorityId,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A private key that is not that of the certificate or public key.
    #[error("the private key beside the authority {id} is not its own")]
    KeyMismatch {
        /// The authority.
        id: AuthorityId,
    },
    /// A JWT key whose ID or public half cannot be used.
    #[error("the JWT key {id:?} in {DOCUMENT} is malformed")]
    JwtKey {
        /// Its ID.
        id: String,
    },
    /// No JSON of the expected form.
    #[error("{DOCUMENT} is malformed: {message}")]
    Malformed {
        /// What is wrong with it.
        message: String,
    },
    /// No document.
    #[error("the Secret has no {DOCUMENT}")]
    Missing,
    /// No private key where there must be one.
    #[error("the Secret lacks the private key of the authority {id}")]
    MissingKey {
        /// The authority.
        id: AuthorityId,
    },
    /// The journal of another trust domain.
    #[error("the Secret is that of the trust domain {found}")]
    OtherTrustDomain {
        /// The other one.
        found: TrustDomainName,
    },
    /// Certificates that cannot be read.
    #[error("certificates in {DOCUMENT}: {source}")]
    Pem {
        /// What is wrong with them.
        source: PemError,
    },
    /// The same authority twice.
    #[error("the authority {id} is in {DOCUMENT} twice")]
    Repeated {
        /// The authority.
        id: AuthorityId,
    },
    /// Several authorities of a kind in a state that only one can have.
    #[error("more than one authority is {}", state.as_str())]
    Several {
        /// The state.
        state: AuthorityState,
    },
    /// A CA that cannot sign because of its subject.
    #[error("the authority {id} cannot sign: {source}")]
    Subject {
        /// The authority.
        id: AuthorityId,
        /// Why.
        source: SubjectError,
    },
    /// No JSON can be made of it. Nothing is better than an empty document in its place.
    #[error("{DOCUMENT} cannot be written: {message}")]
    Unwritable {
        /// Why.
        message: String,
    },
    /// Written by a newer operator.
    #[error("{DOCUMENT} has version {version}; this operator knows version {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
}

fn roots(entries: &[AppendedRootEntry]) -> Result<Vec<AppendedRoot>, JournalError> {
    entries.iter().map(AppendedRootEntry::root).collect()
}

fn keys(entries: &[AppendedJwtKeyEntry]) -> Result<Vec<JwtKey>, JournalError> {
    entries.iter().map(AppendedJwtKeyEntry::key).collect()
}

fn read_key(
    data: &BTreeMap<String, Vec<u8>>,
    entry: &str,
    id: &AuthorityId,
    public_key: &PublicKey,
) -> Result<PrivateKey, JournalError> {
    let id = || id.clone();
    let Some(pem) = data.get(entry) else {
        return Err(JournalError::MissingKey { id: id() });
    };
    let key = PrivateKey::from_pem(pem).map_err(|source| JournalError::Key { id: id(), source })?;
    if key.public_key() != public_key {
        return Err(JournalError::KeyMismatch { id: id() });
    }
    Ok(key)
}

fn ca_key(record: &Record) -> String {
    format!("{}{KEY_SUFFIX}", record.fingerprint)
}

fn jwt_key(record: &Record) -> String {
    format!("jwt-{}{KEY_SUFFIX}", record.id)
}
