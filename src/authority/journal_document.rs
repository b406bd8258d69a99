//! The JSON document in a journal's Secret, and what the ledgers say of the certificates and keys in
//! it.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{AppendedRoot, AuthorityOrigin, AuthorityState, CaCertificates, JournalError, Record};
use crate::spiffe::{
    CaCertificate, Fingerprint, JwtKey, PemError, PublicKey, TrustDomainName, pem,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) version: u32,
    pub(super) trust_domain: TrustDomainName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lineage: Option<String>,
    pub(super) sequence: u64,
    pub(super) authorities: Vec<CaEntry>,
    #[serde(default)]
    pub(super) jwt_authorities: Vec<JwtEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) appended_roots: Vec<AppendedRootEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) appended_jwt_keys: Vec<AppendedJwtKeyEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) upstream_roots: Vec<AppendedRootEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) upstream_jwt_keys: Vec<AppendedJwtKeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CaEntry {
    /// For people; the certificate tells.
    id: String,
    state: AuthorityState,
    origin: AuthorityOrigin,
    prepared_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated_at: Option<Timestamp>,
    /// The CA's, those above it, the root.
    certificates: String,
}

impl CaEntry {
    pub(super) fn of(record: &Record, certificates: &CaCertificates) -> Self {
        Self {
            id: record.id.to_string(),
            state: record.state,
            origin: record.origin,
            prepared_at: record.prepared_at,
            published_at: record.published_at,
            activated_at: record.activated_at,
            certificates: pem::encode_certificates(certificates.all()),
        }
    }

    pub(super) fn certificates(&self) -> Result<CaCertificates, JournalError> {
        let chain = pem::certificates(self.certificates.as_bytes())
            .map_err(|source| JournalError::Pem { source })?;
        let parse = |der: &CertificateDer<'static>| {
            CaCertificate::parse(der.clone()).map_err(|source| JournalError::Certificate { source })
        };
        let Some((own, above)) = chain.split_first() else {
            return Err(JournalError::Pem {
                source: PemError::NoCertificate,
            });
        };
        let above: Vec<_> = above.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(CaCertificates::new(parse(own)?, &above))
    }

    pub(super) fn record(&self, certificates: &CaCertificates) -> Record {
        ca_record(
            certificates,
            self.origin,
            self.state,
            Times {
                prepared: self.prepared_at,
                published: self.published_at,
                activated: self.activated_at,
            },
        )
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JwtEntry {
    id: String,
    state: AuthorityState,
    prepared_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated_at: Option<Timestamp>,
    expires_at: Timestamp,
    /// `SubjectPublicKeyInfo` in base64.
    public_key: String,
}

impl JwtEntry {
    pub(super) fn of(record: &Record, public_key: &PublicKey) -> Self {
        Self {
            id: record.id.to_string(),
            state: record.state,
            prepared_at: record.prepared_at,
            published_at: record.published_at,
            activated_at: record.activated_at,
            expires_at: record.not_after,
            public_key: BASE64_STANDARD.encode(public_key.spki()),
        }
    }

    pub(super) fn public_key(&self) -> Result<PublicKey, JournalError> {
        let id = &self.id;
        // It is part of a Secret's key.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(JournalError::JwtKey { id: id.clone() });
        }
        public_key(id, &self.public_key)
    }

    pub(super) fn record(&self) -> Record {
        let times = Times {
            prepared: self.prepared_at,
            published: self.published_at,
            activated: self.activated_at,
        };
        jwt_record(&self.id, self.expires_at, self.state, times)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppendedRootEntry {
    certificate: String,
    tainted: bool,
}

impl From<&AppendedRoot> for AppendedRootEntry {
    fn from(root: &AppendedRoot) -> Self {
        Self {
            certificate: pem::encode_certificates([&root.certificate]),
            tainted: root.tainted,
        }
    }
}

impl AppendedRootEntry {
    pub(super) fn root(&self) -> Result<AppendedRoot, JournalError> {
        let certificates = pem::certificates(self.certificate.as_bytes())
            .map_err(|source| JournalError::Pem { source })?;
        let certificate = certificates.into_iter().next();
        let source = PemError::NoCertificate;
        Ok(AppendedRoot {
            certificate: certificate.ok_or(JournalError::Pem { source })?,
            tainted: self.tainted,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppendedJwtKeyEntry {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    public_key: String,
    tainted: bool,
}

impl From<&JwtKey> for AppendedJwtKeyEntry {
    fn from(key: &JwtKey) -> Self {
        Self {
            id: key.key_id.clone(),
            expires_at: key.expires_at,
            public_key: BASE64_STANDARD.encode(key.public_key.spki()),
            tainted: key.tainted,
        }
    }
}

impl AppendedJwtKeyEntry {
    pub(super) fn key(&self) -> Result<JwtKey, JournalError> {
        Ok(JwtKey {
            key_id: self.id.clone(),
            public_key: public_key(&self.id, &self.public_key)?,
            expires_at: self.expires_at,
            tainted: self.tainted,
        })
    }
}

fn public_key(id: &str, base64: &str) -> Result<PublicKey, JournalError> {
    let der = BASE64_STANDARD.decode(base64).ok();
    let key = der.and_then(|der| PublicKey::from_spki(&der).ok());
    key.ok_or_else(|| JournalError::JwtKey { id: id.to_owned() })
}

#[derive(Clone, Copy)]
pub(super) struct Times {
    prepared: Timestamp,
    published: Option<Timestamp>,
    activated: Option<Timestamp>,
}

impl Times {
    pub(super) fn prepared(prepared: Timestamp) -> Self {
        Self {
            prepared,
            published: None,
            activated: None,
        }
    }
}

pub(super) fn ca_record(
    certificates: &CaCertificates,
    origin: AuthorityOrigin,
    state: AuthorityState,
    times: Times,
) -> Record {
    let certificate = certificates.certificate();
    Record {
        fingerprint: certificates.fingerprint().clone(),
        root: Fingerprint::of(certificates.root()),
        id: certificate.key_id().into(),
        origin,
        state,
        not_before: certificate.not_before(),
        not_after: certificates.not_after(),
        prepared_at: times.prepared,
        published_at: times.published,
        activated_at: times.activated,
    }
}

/// We alone make JWT keys, and they count from when they are made.
pub(super) fn jwt_record(
    key_id: &str,
    expires_at: Timestamp,
    state: AuthorityState,
    times: Times,
) -> Record {
    let fingerprint = Fingerprint::of(key_id.as_bytes());
    Record {
        root: fingerprint.clone(),
        fingerprint,
        id: key_id.into(),
        origin: AuthorityOrigin::SelfSigned,
        state,
        not_before: times.prepared,
        not_after: expires_at,
        prepared_at: times.prepared,
        published_at: times.published,
        activated_at: times.activated,
    }
}
