//! Whose certificate proves an agent, and how it proves that it holds the key. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;
use serde_json::json;
use tonic::{Code, Status};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::payload::Bytes;
use crate::domains::{AgentPathData, X509PopSettings, X509PopTrust};
use crate::server::attestation::{Evidence, join_token, k8s_psat, refusal};
use crate::spiffe::{AnyPurpose, KeyKind, PublicKey, SpiffeId, TrustDomainName, uris};

/// The attestor's name.
pub const NAME: &str = "x509pop";

/// Length of a nonce in bytes.
const NONCE: usize = 32;
/// Longest part of a signature in bytes: an RSA key has 8192 bits at most.
const MAX_SIGNATURE: usize = 1024;

/// A certificate that is trusted.
pub(super) struct Leaf {
    der: CertificateDer<'static>,
    key: PublicKey,
    can_sign: bool,
    common_name: String,
    organization: Vec<String>,
    organizational_unit: Vec<String>,
    dns_names: Vec<String>,
    serial_hex: String,
    uris: Vec<String>,
    /// Those above it, up to the root.
    issuers: Vec<CertificateDer<'static>>,
}

impl Leaf {
    /// The first of `chain`, when a valid path leads from it to one of `roots`.
    pub(super) fn verify(
        chain: &[CertificateDer<'static>],
        roots: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Self, Status> {
        let invalid = |message: String| refusal(NAME, Code::InvalidArgument, message);
        let Some((der, intermediates)) = chain.split_first() else {
            return Err(invalid("no certificate to attest".into()));
        };
        let Ok(([], parsed)) = X509Certificate::from_der(der) else {
            return Err(invalid("unable to parse leaf certificate".into()));
        };
        // Long keys are refused before anything is computed with them.
        let key = PublicKey::from_parsed(parsed.public_key())
            .map_err(|error| invalid(format!("leaf certificate: {error}")))?;
        for (index, intermediate) in intermediates.iter().enumerate() {
            let Ok(([], parsed)) = X509Certificate::from_der(intermediate) else {
                let message = format!("unable to parse intermediate certificate {index}");
                return Err(invalid(message));
            };
            PublicKey::from_parsed(parsed.public_key())
                .map_err(|error| invalid(format!("intermediate certificate {index}: {error}")))?;
        }
        let issuers = path(der, intermediates, roots, now).map_err(|error| {
            let message = format!("certificate verification failed: {error}");
            refusal(NAME, Code::PermissionDenied, message)
        })?;
        let usage = parsed.key_usage().ok().flatten();
        let common_names = parsed.subject().iter_common_name();
        let common_name = common_names.last().and_then(|name| name.as_str().ok());
        Ok(Self {
            key,
            can_sign: usage.is_some_and(|usage| usage.value.digital_signature()),
            common_name: common_name.unwrap_or_default().into(),
            organization: texts(parsed.subject().iter_organization()),
            organizational_unit: texts(parsed.subject().iter_organizational_unit()),
            dns_names: dns_names(&parsed),
            serial_hex: even_hex(&parsed.serial.to_str_radix(16)),
            uris: uris(&parsed).unwrap_or_default(),
            issuers,
            der: der.clone(),
        })
    }

    /// What is known of the agent that holds the key.
    pub(super) fn evidence(
        &self,
        trust_domain: &TrustDomainName,
        settings: &X509PopSettings,
    ) -> Result<Evidence, Status> {
        let internal = |problem: &str| {
            refusal(
                NAME,
                Code::Internal,
                format!("failed to make spiffe id: {problem}"),
            )
        };
        let svid_path_trimmed = match &settings.trust {
            X509PopTrust::Cas(_) => String::new(),
            X509PopTrust::Svids { prefix } => self.svid_path(trust_domain, prefix)?,
        };
        let sans = self.uri_sans(trust_domain);
        let path = settings.path.fill(&AgentPathData {
            plugin_name: NAME.into(),
            trust_domain: trust_domain.to_string(),
            fingerprint: fingerprint(&self.der),
            serial_number_hex: self.serial_hex.clone(),
            svid_path_trimmed,
            common_name: self.common_name.clone(),
            organization: self.organization.clone(),
            organizational_unit: self.organizational_unit.clone(),
            dns_names: self.dns_names.clone(),
            uri_san_selectors: sans.clone(),
        });
        let path = path.map_err(|error| internal(&error.to_string()))?;
        // No certificate may choose the ID of an agent that another attestor attests.
        let first = path.split('/').nth(1).unwrap_or_default();
        if [join_token::NAME, k8s_psat::NAME].contains(&first) {
            return Err(internal("the path is that of another attestor's agents"));
        }
        let id = format!("{}/spire/agent{path}", trust_domain.id());
        let id = id
            .parse()
            .map_err(|error: crate::spiffe::ParseSpiffeIdError| internal(&error.to_string()))?;
        let mut selectors = Vec::new();
        if !self.common_name.is_empty() {
            selectors.push(format!("{NAME}:subject:cn:{}", self.common_name));
        }
        for issuer in &self.issuers {
            selectors.push(format!("{NAME}:ca:fingerprint:{}", fingerprint(issuer)));
        }
        selectors.push(format!("{NAME}:serialnumber:{}", self.serial_hex));
        for (key, value) in &sans {
            selectors.push(format!("{NAME}:san:{key}:{value}"));
        }
        Ok(Evidence {
            id,
            attestation_type: NAME,
            can_reattest: true,
            selectors,
            cluster: None,
            node_name: None,
            alias: None,
        })
    }

    /// What follows `prefix` in the path of the certificate's SPIFFE ID.
    fn svid_path(&self, trust_domain: &TrustDomainName, prefix: &str) -> Result<String, Status> {
        let refused = |problem: &str| refusal(NAME, Code::PermissionDenied, problem);
        let mut ids = self.uris.iter().filter(|uri| uri.starts_with("spiffe://"));
        let id: Option<SpiffeId> = ids.next().and_then(|uri| uri.parse().ok());
        let id = id.filter(|id| id.is_member_of(trust_domain));
        let id = id.ok_or_else(|| refused("valid SVID x509 cert not found"))?;
        let path = id.path().strip_prefix(prefix).map(str::to_owned);
        path.ok_or_else(|| refused("x509 cert doesnt match SVID prefix"))
    }

    /// Keys and values of the URIs that are meant for this attestor,
    /// `x509pop://<trust domain>/<key>/<value>`.
    fn uri_sans(&self, trust_domain: &TrustDomainName) -> BTreeMap<String, String> {
        let prefix = format!("x509pop://{trust_domain}/");
        let ours = self.uris.iter().filter_map(|uri| uri.strip_prefix(&prefix));
        let pairs = ours.filter_map(|path| path.trim_matches('/').split_once('/'));
        pairs
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }
}

/// What the server chose, and the kind of signature that it asks for.
pub(super) struct Challenge {
    nonce: [u8; NONCE],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Rsa,
    Ecdsa,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    rsa_signature: Option<RsaResponse>,
    #[serde(default)]
    ecdsa_signature: Option<EcdsaResponse>,
}

#[derive(Deserialize)]
struct RsaResponse {
    #[serde(default)]
    nonce: Bytes,
    #[serde(default)]
    signature: Bytes,
}

#[derive(Deserialize)]
struct EcdsaResponse {
    #[serde(default)]
    nonce: Bytes,
    #[serde(default)]
    r: Bytes,
    #[serde(default)]
    s: Bytes,
}

impl Challenge {
    /// A new one for whoever holds the key of `leaf`.
    pub(super) fn new(leaf: &Leaf) -> Result<Self, Status> {
        let unable = |problem: &str| {
            refusal(
                NAME,
                Code::Internal,
                format!("unable to generate challenge: {problem}"),
            )
        };
        if !leaf.can_sign {
            return Err(unable("certificate not intended for digital signature use"));
        }
        let kind = match leaf.key.kind() {
            KeyKind::Rsa { .. } => Kind::Rsa,
            KeyKind::EcP256 | KeyKind::EcP384 | KeyKind::EcP521 => Kind::Ecdsa,
            KeyKind::Ed25519 => return Err(unable("unsupported public key type")),
        };
        let mut nonce = [0; NONCE];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| unable("the operating system gave no random numbers"))?;
        Ok(Self { nonce, kind })
    }

    /// As it is sent.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Rsa => "rsa_signature",
            Kind::Ecdsa => "ecdsa_signature",
        };
        let nonce = BASE64_STANDARD.encode(self.nonce);
        json!({ kind: { "nonce": nonce } }).to_string().into_bytes()
    }

    /// Whether `response` proves that its sender holds the key of `leaf`.
    pub(super) fn check(&self, leaf: &Leaf, response: &[u8]) -> Result<(), Status> {
        let response: Response = serde_json::from_slice(response).map_err(|error| {
            let message = format!("unable to unmarshal challenge response: {error}");
            refusal(NAME, Code::InvalidArgument, message)
        })?;
        let is_proof = match self.kind {
            Kind::Rsa => {
                let response = response.rsa_signature;
                let response = response.ok_or_else(|| failed("expecting RSA response"))?;
                let message = self.combined(&response.nonce.0)?;
                bounded(&response.signature)?;
                leaf.key
                    .verifies_possession(&message, &response.signature.0)
            }
            Kind::Ecdsa => {
                let response = response.ecdsa_signature;
                let response = response.ok_or_else(|| failed("expecting ECDSA response"))?;
                let message = self.combined(&response.nonce.0)?;
                bounded(&response.r)?;
                bounded(&response.s)?;
                let signature = ecdsa_signature(&response.r.0, &response.s.0);
                leaf.key.verifies_possession(&message, &signature)
            }
        };
        match (is_proof, self.kind) {
            (true, _) => Ok(()),
            (false, Kind::Rsa) => Err(failed("RSA signature verify failed")),
            (false, Kind::Ecdsa) => Err(failed("ECDSA signature verify failed")),
        }
    }

    fn combined(&self, nonce: &[u8]) -> Result<Vec<u8>, Status> {
        if nonce.len() != NONCE {
            return Err(failed("invalid response nonce"));
        }
        Ok([&self.nonce[..], nonce].concat())
    }
}

fn failed(problem: &str) -> Status {
    let message = format!("challenge response verification failed: {problem}");
    refusal(NAME, Code::PermissionDenied, message)
}

fn bounded(part: &Bytes) -> Result<(), Status> {
    if part.0.len() > MAX_SIGNATURE {
        return Err(failed("signature is too long"));
    }
    Ok(())
}

/// `r` and `s`, big-endian, as one signature in DER (RFC 3279 §2.2.3).
fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let digits = number.get(zeros..).unwrap_or_default();
        let sign = digits.first().is_none_or(|first| *first >= 0x80);
        tagged(
            0x02,
            &[vec![0; usize::from(sign)], digits.to_vec()].concat(),
        )
    };
    tagged(0x30, &[integer(r), integer(s)].concat())
}

/// `content` with its tag and length in DER.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let digits = length.get(zeros..).unwrap_or_default();
    let head = match digits {
        [] => vec![tag, 0],
        [short] if *short < 0x80 => vec![tag, *short],
        long => {
            let count = u8::try_from(long.len()).unwrap_or(0);
            [&[tag, 0x80 | count], long].concat()
        }
    };
    [head, content.to_vec()].concat()
}

/// The certificates above `leaf` up to a root, where a valid path leads there.
fn path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Vec<CertificateDer<'static>>, webpki::Error> {
    let anchors = roots
        .iter()
        .map(|root| webpki::anchor_from_trusted_cert(root))
        .collect::<Result<Vec<_>, _>>()?;
    let since_1970 = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let leaf = EndEntityCert::try_from(leaf)?;
    let path = leaf.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        &anchors,
        intermediates,
        UnixTime::since_unix_epoch(since_1970),
        AnyPurpose,
        None,
        None,
    )?;
    let between = path.intermediate_certificates();
    let mut issuers: Vec<_> = between.map(|it| it.der().into_owned()).collect();
    let ends = roots.iter().zip(&anchors);
    let own = ends.filter(|(_, anchor)| *anchor == path.anchor());
    issuers.extend(own.map(|(root, _)| root.clone()));
    Ok(issuers)
}

fn texts<'a>(values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Vec<String> {
    let texts = values.filter_map(|value| value.as_str().ok());
    texts.map(str::to_owned).collect()
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|it| &it.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    names.collect()
}

/// SHA-1 in hexadecimal digits, as SPIRE names certificates.
fn fingerprint(certificate: &[u8]) -> String {
    let mut text = String::new();
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn even_hex(digits: &str) -> String {
    let zero = if digits.len().is_multiple_of(2) {
        ""
    } else {
        "0"
    };
    format!("{zero}{digits}")
}

#[cfg(test)]
mod tests;
