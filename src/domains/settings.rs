//! A TrustDomain's spec, parsed.

use std::time::Duration;

use jiff::SignedDuration;

use crate::api::duration::{self, ParseDurationError};
use crate::api::{
    AuthoritySource, BundleConfigMapSettings, CaKeyType, CaSubject, DeletionPolicy, JwtKeyType,
    TrustDomainSpec,
};
use crate::authority::{AuthorityOrigin, AuthoritySettings, PROPAGATION, RotationPolicy};
use crate::domains::names::{default_signer_name, signer_name_error};
use crate::domains::{ServerSettings, UpstreamSettings};
use crate::registration;
use crate::spiffe::{ParseSpiffeIdError, ParseTrustDomainError, TrustDomainName};

/// Shortest lifetime of a pod certificate (`certificates.k8s.io`).
const MIN_POD_CERTIFICATE_TTL: Duration = Duration::from_hours(1);

/// A TrustDomain that can be served.
#[derive(Clone, Debug)]
pub struct DomainSettings {
    /// The trust domain.
    pub trust_domain: TrustDomainName,
    /// Who signs.
    pub authority: AuthoritySource,
    /// The server that signs our CAs, if one does.
    pub upstream: Option<UpstreamSettings>,
    /// Key type of the CA.
    pub key_type: CaKeyType,
    /// Lifetime of the CA.
    pub ca_ttl: Duration,
    /// Subject of the CA.
    pub subject: CaSubject,
    /// Key type of the keys that sign JWT-SVIDs.
    pub jwt_key_type: JwtKeyType,
    /// Signer name of pod certificates.
    pub signer_name: String,
    /// Lifetime of pod certificates.
    pub pod_certificate_ttl: Duration,
    /// Where copies of the bundle go.
    pub bundle_config_maps: Option<BundleConfigMapSettings>,
    /// How it is served to SPIRE agents, servers and tools, if it is.
    pub server: Option<ServerSettings>,
    /// What becomes of the keys.
    pub deletion_policy: DeletionPolicy,
}

/// Why a TrustDomain cannot be served as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// An administrator who has no SPIFFE ID.
    #[error("spec.server.adminIDs: {id:?}: {source}")]
    AdminId {
        /// What stands in its place.
        id: String,
        /// What is wrong with it.
        source: ParseSpiffeIdError,
    },
    /// Not exactly one authority.
    #[error("spec.authority: give exactly one of selfSigned, secretRef and upstream")]
    Authority,
    /// A malformed duration.
    #[error("spec.{field}: {source}")]
    Duration {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        source: ParseDurationError,
    },
    /// An attestor that cannot work.
    #[error("spec.server.nodeAttestors.{field}: {problem}")]
    NodeAttestor {
        /// Path of the field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A pod certificate cannot live that short.
    #[error("spec.podCertificates.ttl: at least 1h")]
    PodCertificateTtl,
    /// What the registry refuses.
    #[error(transparent)]
    Registration {
        /// What is wrong.
        #[from]
        source: registration::SettingsError,
    },
    /// No TCP port.
    #[error("spec.server.port: {port} is no port; choose one from 1 to 65535")]
    ServerPort {
        /// What stands in its place.
        port: i32,
    },
    /// An illegal signer name.
    #[error("spec.podCertificates.signerName: {problem}")]
    SignerName {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A leaf could outlive its CA.
    #[error("spec.caTTL: must be at least 6 times podCertificates.ttl and x509SVID.ttl")]
    TooShortCa,
    /// A token could outlive its key.
    #[error("spec.caTTL: must be at least 6 times jwtSVID.ttl")]
    TooShortJwtKey,
    /// No trust domain name.
    #[error("spec.trustDomain: {source}")]
    TrustDomain {
        /// What is wrong with it.
        source: ParseTrustDomainError,
    },
    /// A server above that cannot be one.
    #[error("spec.authority.upstream.spire: {problem}")]
    Upstream {
        /// What is wrong.
        problem: String,
    },
}

impl DomainSettings {
    /// What its authorities are to be.
    #[must_use]
    pub fn authority_settings(&self) -> AuthoritySettings {
        let origin = match (&self.authority.secret_ref, &self.upstream) {
            (Some(_), _) => AuthorityOrigin::Imported,
            (None, Some(_)) => AuthorityOrigin::Upstream,
            (None, None) => AuthorityOrigin::SelfSigned,
        };
        AuthoritySettings {
            policy: RotationPolicy {
                origin,
                propagation: PROPAGATION,
            },
            key_type: self.key_type,
            ca_ttl: SignedDuration::try_from(self.ca_ttl).unwrap_or(SignedDuration::MAX),
            subject: self.subject.clone(),
            jwt_key_type: self.jwt_key_type,
        }
    }

    /// Whether the keys go when the TrustDomain is deleted.
    #[must_use]
    pub fn goes_with_object(&self) -> bool {
        self.deletion_policy == DeletionPolicy::Delete
    }

    /// Parses `spec`.
    ///
    /// # Errors
    /// Whatever admission could not refuse: the first thing that is wrong.
    pub fn parse(spec: &TrustDomainSpec) -> Result<Self, SettingsError> {
        let trust_domain: TrustDomainName = spec
            .trust_domain
            .parse()
            .map_err(|source| SettingsError::TrustDomain { source })?;
        let AuthoritySource {
            self_signed,
            secret_ref,
            upstream,
        } = &spec.authority;
        let sources = [
            self_signed.is_some(),
            secret_ref.is_some(),
            upstream.is_some(),
        ];
        if sources.into_iter().filter(|given| *given).count() != 1 {
            return Err(SettingsError::Authority);
        }
        let upstream = upstream.as_ref();
        let upstream = upstream.map(|it| UpstreamSettings::parse(&it.spire, &trust_domain));
        let parse = |field, value: &str| {
            duration::parse(value).map_err(|source| SettingsError::Duration { field, source })
        };
        let ca_ttl = parse("caTTL", &spec.ca_ttl)?;
        let x509_svid_ttl = parse("x509SVID.ttl", &spec.x509_svid.ttl)?;
        let pod_certificate_ttl = parse("podCertificates.ttl", &spec.pod_certificates.ttl)?;
        if pod_certificate_ttl < MIN_POD_CERTIFICATE_TTL {
            return Err(SettingsError::PodCertificateTtl);
        }
        let longest_leaf = pod_certificate_ttl.max(x509_svid_ttl);
        if self_signed.is_some() && ca_ttl < longest_leaf.saturating_mul(6) {
            return Err(SettingsError::TooShortCa);
        }
        let jwt_svid_ttl = parse("jwtSVID.ttl", &spec.jwt_svid.ttl)?;
        if ca_ttl < jwt_svid_ttl.saturating_mul(6) {
            return Err(SettingsError::TooShortJwtKey);
        }
        let signer_name = match &spec.pod_certificates.signer_name {
            Some(name) => match signer_name_error(name) {
                Some(problem) => return Err(SettingsError::SignerName { problem }),
                None => name.clone(),
            },
            None => default_signer_name(&trust_domain),
        };
        registration::Settings::parse(spec)?;
        Ok(Self {
            trust_domain,
            authority: spec.authority.clone(),
            upstream: upstream.transpose()?,
            key_type: spec.key_type,
            ca_ttl,
            subject: spec.subject.clone(),
            jwt_key_type: spec.jwt_svid.key_type,
            signer_name,
            pod_certificate_ttl,
            bundle_config_maps: spec.bundle_config_maps.clone(),
            server: ServerSettings::parse(spec)?,
            deletion_policy: spec.deletion_policy,
        })
    }
}
