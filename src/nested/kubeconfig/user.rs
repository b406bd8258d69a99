//! `users[].user`: the one credential.

use jiff::Timestamp;
use rustls::{crypto::aws_lc_rs::default_provider, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use secrecy::SecretString;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    BearerToken, ClientCertificate, Credential, FieldProblem, KubeconfigError, ReadOptions, exec,
    field::Field,
    jwt,
    server::{certificates, decode, refuse_file},
};
use crate::spiffe::pem;

const CERTIFICATE: &str = "client-certificate-data";
const KEY: &str = "client-key-data";

pub(super) fn read(
    user: &Field<'_>,
    options: &ReadOptions<'_>,
) -> Result<Credential, KubeconfigError> {
    refuse_what_cannot_be(user, options)?;
    let token = user.field("token")?;
    let token_file = user.field("tokenFile")?;
    let certificate = user.field(CERTIFICATE)?;
    let key = user.field(KEY)?;
    let exec = user.field("exec")?;
    let given: Vec<&str> = [
        ("token", !token.is_absent()),
        ("tokenFile", !token_file.is_absent()),
        (CERTIFICATE, !certificate.is_absent() || !key.is_absent()),
        ("exec", !exec.is_absent()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    match given.as_slice() {
        [] => Err(user.refuse(FieldProblem::NoCredential)),
        ["token"] => bearer_token(&token).map(Credential::Token),
        ["tokenFile"] => Ok(Credential::TokenFile(token_file.required_text()?.into())),
        [CERTIFICATE] => client_certificate(&certificate, &key).map(Credential::ClientCertificate),
        ["exec"] => exec::read(&exec, options),
        several => Err(user.refuse(FieldProblem::SeveralCredentials {
            fields: several.join(", "),
        })),
    }
}

fn refuse_what_cannot_be(
    user: &Field<'_>,
    options: &ReadOptions<'_>,
) -> Result<(), KubeconfigError> {
    refuse_file(&user.field("client-certificate")?, CERTIFICATE)?;
    refuse_file(&user.field("client-key")?, KEY)?;
    if !options.allow_token_file {
        refuse_file(&user.field("tokenFile")?, "token")?;
    }
    let auth_provider = user.field("auth-provider")?;
    if !auth_provider.is_absent() {
        return Err(auth_provider.refuse(FieldProblem::AuthProvider));
    }
    for key in ["username", "password"] {
        let field = user.field(key)?;
        if !field.is_absent() {
            return Err(field.refuse(FieldProblem::BasicAuth));
        }
    }
    Ok(())
}

fn bearer_token(field: &Field<'_>) -> Result<BearerToken, KubeconfigError> {
    let token = field.required_text()?.trim();
    if token.is_empty() {
        return Err(field.refuse(FieldProblem::Missing));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(field.refuse(FieldProblem::NotHeaderText));
    }
    Ok(BearerToken {
        text: SecretString::from(token),
        expires_at: jwt::expiry(token),
    })
}

fn client_certificate(
    certificate: &Field<'_>,
    key: &Field<'_>,
) -> Result<ClientCertificate, KubeconfigError> {
    let chain = certificates(certificate, certificate.required_text()?)?;
    let unusable = |index: usize| {
        certificate.refuse(FieldProblem::UnusableCertificate {
            position: index + 1,
        })
    };
    let mut not_after = Timestamp::MAX;
    for (index, certificate) in chain.iter().enumerate() {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unusable(index))?;
        let end = Timestamp::from_second(parsed.validity().not_after.timestamp());
        not_after = not_after.min(end.map_err(|_| unusable(index))?);
    }
    let private_key = private_key(key)?;
    let pem = SecretString::from(encoded(&private_key));
    match CertifiedKey::from_der(chain.clone(), private_key, &default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(key.refuse(FieldProblem::KeyMismatch));
        }
        Err(_) => return Err(key.refuse(FieldProblem::UnusableKey)),
    }
    Ok(ClientCertificate {
        chain,
        key: pem,
        not_after,
    })
}

fn private_key(field: &Field<'_>) -> Result<PrivateKeyDer<'static>, KubeconfigError> {
    let pem = decode(field, field.required_text()?)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let text = String::from_utf8_lossy(&pem);
        let is_encrypted =
            text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
        field.refuse(if is_encrypted {
            FieldProblem::EncryptedKey
        } else {
            FieldProblem::NoKey
        })
    })
}

/// The key alone: without what people and tools write around it.
fn encoded(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    pem::encode(label, key.secret_der())
}
