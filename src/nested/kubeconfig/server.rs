//! `clusters[].cluster`: which API server, how its certificate is checked, and by which way.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Uri;
use rustls_pki_types::{CertificateDer, ServerName};

use super::{
    ApiServer, FieldProblem, KubeconfigError, ProxyUrl, ReadOptions, ServerTrust, ServerUrl,
    field::Field,
};
use crate::spiffe::{is_trust_anchor, pem};

pub(super) fn read(
    cluster: &Field<'_>,
    options: &ReadOptions<'_>,
) -> Result<ApiServer, KubeconfigError> {
    Ok(ApiServer {
        url: url(&cluster.field("server")?)?,
        trust: trust(cluster, options)?,
        tls_server_name: tls_server_name(&cluster.field("tls-server-name")?)?,
        proxy: proxy(&cluster.field("proxy-url")?)?,
    })
}

fn url(field: &Field<'_>) -> Result<ServerUrl, KubeconfigError> {
    let text = field.required_text()?;
    let is_good = |uri: &Uri| uri.scheme_str() == Some("https") && uri.query().is_none();
    let has_fragment = text.contains('#');
    let uri = text.parse().ok().filter(is_good).filter(has_host);
    match uri {
        Some(_) if !has_fragment => Ok(ServerUrl(text.into())),
        _ => Err(field.refuse(FieldProblem::ServerUrl)),
    }
}

/// Whether there is a host, and besides it at most a port.
fn has_host(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else {
        return false;
    };
    let host = authority.host();
    let after = authority.as_str().strip_prefix(host);
    let good_port = match after {
        Some("") => true,
        Some(_) => authority.port_u16().is_some_and(|port| port > 0),
        None => false,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    good_port && ServerName::try_from(address).is_ok()
}

fn trust(cluster: &Field<'_>, options: &ReadOptions<'_>) -> Result<ServerTrust, KubeconfigError> {
    refuse_file(
        &cluster.field("certificate-authority")?,
        "certificate-authority-data",
    )?;
    let insecure = cluster.field("insecure-skip-tls-verify")?;
    let authorities = cluster.field("certificate-authority-data")?;
    match (insecure.flag()?, authorities.is_absent()) {
        (true, _) if !options.allow_insecure_tls => Err(insecure.refuse(FieldProblem::Insecure)),
        (true, false) => Err(insecure.refuse(FieldProblem::InsecureWithAuthorities)),
        (true, true) => Ok(ServerTrust::Unchecked),
        (false, true) => Ok(ServerTrust::System),
        (false, false) => authorities_in(&authorities).map(ServerTrust::Authorities),
    }
}

fn authorities_in(field: &Field<'_>) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let certificates = certificates(field, field.required_text()?)?;
    match certificates.iter().position(|it| !is_trust_anchor(it)) {
        Some(index) => Err(field.refuse(FieldProblem::UnusableCertificate {
            position: index + 1,
        })),
        None => Ok(certificates),
    }
}

/// The certificates in `text`, which is PEM in base64.
pub(super) fn certificates(
    field: &Field<'_>,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let pem = decode(field, text)?;
    pem::certificates(&pem).map_err(|_| field.refuse(FieldProblem::NoCertificate))
}

/// Takes off the base64 that certificates and keys have in a kubeconfig; line ends in it are passed
/// over.
pub(super) fn decode(
    field: &Field<'_>,
    text: &str,
) -> Result<zeroize::Zeroizing<Vec<u8>>, KubeconfigError> {
    let compact: zeroize::Zeroizing<Vec<u8>> = zeroize::Zeroizing::new(
        text.bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect(),
    );
    let decoded = BASE64_STANDARD.decode(&compact);
    let decoded = decoded.map_err(|_| field.refuse(FieldProblem::Base64))?;
    Ok(zeroize::Zeroizing::new(decoded))
}

/// Refuses a file of the machine that the kubeconfig was made on.
pub(super) fn refuse_file(field: &Field<'_>, inline: &'static str) -> Result<(), KubeconfigError> {
    if field.is_absent() {
        return Ok(());
    }
    Err(field.refuse(FieldProblem::FileReference { inline }))
}

fn tls_server_name(field: &Field<'_>) -> Result<Option<ServerName<'static>>, KubeconfigError> {
    let name = field
        .text()?
        .map(|name| ServerName::try_from(name.to_owned()));
    name.transpose()
        .map_err(|_| field.refuse(FieldProblem::TlsServerName))
}

fn proxy(field: &Field<'_>) -> Result<Option<ProxyUrl>, KubeconfigError> {
    let Some(text) = field.text()? else {
        return Ok(None);
    };
    let is_good = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https" | "socks5"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    };
    match text.parse().ok().filter(is_good) {
        Some(_) => Ok(Some(ProxyUrl(text.into()))),
        None => Err(field.refuse(FieldProblem::ProxyUrl)),
    }
}
