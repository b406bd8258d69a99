//! The JSON document in a journal's Secret, and what a ledger says of the certificates in it.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{AuthorityOrigin, AuthorityState, CaCertificates, JournalError, Record};
use crate::spiffe::{CaCertificate, Fingerprint, PemError, TrustDomainName, pem};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) version: u32,
    pub(super) trust_domain: TrustDomainName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lineage: Option<String>,
    pub(super) sequence: u64,
    pub(super) authorities: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
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

impl Entry {
    pub(super) fn of(record: &Record, certificates: &CaCertificates) -> Self {
        Self {
            id: record.key_id.to_string(),
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
        record(
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

#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) prepared: Timestamp,
    pub(super) published: Option<Timestamp>,
    pub(super) activated: Option<Timestamp>,
}

pub(super) fn record(
    certificates: &CaCertificates,
    origin: AuthorityOrigin,
    state: AuthorityState,
    times: Times,
) -> Record {
    let certificate = certificates.certificate();
    Record {
        fingerprint: certificates.fingerprint().clone(),
        root: Fingerprint::of(certificates.root()),
        key_id: certificate.key_id().clone(),
        origin,
        state,
        not_before: certificate.not_before(),
        not_after: certificates.not_after(),
        prepared_at: times.prepared,
        published_at: times.published,
        activated_at: times.activated,
    }
}
