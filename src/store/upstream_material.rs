//! What a server above is known by and shown, in the operator's namespace: bundles, certificates and
//! join tokens that users bring, and the X.509-SVID that a join token was good for, which nothing
//! else brings back.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::api::{CaBundleKind, UpstreamBundleRef};
use crate::authority::{PrivateKey, import};
use crate::clusters::{CallError, call};
use crate::domains::object_name;
use crate::spiffe::{Bundle, TrustDomainName, pem};
use crate::store::wipe;

/// Suffix of the name of the Secret with what a join token was good for.
const SUFFIX: &str = ".upstream-agent";
/// Type of that Secret.
const SECRET_TYPE: &str = "spiffe-operator.io/upstream-agent";
/// Its key with a hash of the token.
const TOKEN_HASH: &str = "join-token.sha256";
/// Key of a user's Secret with a join token.
const TOKEN: &str = "token";
/// Longest join token, in bytes.
const MAX_TOKEN: usize = 1024;

/// What one TrustDomain shows a server above. All errors are words for a condition.
#[derive(Clone)]
pub struct UpstreamMaterial {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    object: String,
    trust_domain: TrustDomainName,
    labels: BTreeMap<String, String>,
    owner: Option<OwnerReference>,
}

impl UpstreamMaterial {
    /// That of the TrustDomain object `object`. What is kept has `labels`, and goes with the `owner`
    /// where one is given.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        object: &str,
        trust_domain: TrustDomainName,
        labels: BTreeMap<String, String>,
        owner: Option<OwnerReference>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            object: object.to_owned(),
            trust_domain,
            labels,
            owner,
        }
    }

    /// The bundle that `reference` leads to: a SPIFFE bundle document, or PEM.
    ///
    /// # Errors
    /// When there is none.
    pub async fn bundle(&self, reference: &UpstreamBundleRef) -> Result<Bundle, String> {
        let UpstreamBundleRef { kind, name, key } = reference;
        let found = match kind {
            CaBundleKind::ConfigMap => {
                let object = self.config_maps.get_opt(name);
                let object = call(object).await.map_err(|error| error.message())?;
                object.map(|object| {
                    let data = object.data.and_then(|mut data| data.remove(key));
                    data.map(String::into_bytes)
                })
            }
            CaBundleKind::Secret => {
                let object = self.secrets.get_opt(name);
                let object = call(object).await.map_err(|error| error.message())?;
                object.map(|object| {
                    let data = object.data.and_then(|mut data| data.remove(key));
                    data.map(|value| value.0)
                })
            }
        };
        let missing = |what: &str| format!("{kind:?} {name} {what}");
        let text = found.ok_or_else(|| missing("does not exist in the operator's namespace"))?;
        let text = text.ok_or_else(|| missing(&format!("has no key {key}")))?;
        let trust_domain = self.trust_domain.clone();
        let bundle = if text.trim_ascii_start().starts_with(b"{") {
            Bundle::from_document(trust_domain, &text)
        } else {
            Bundle::from_pem(trust_domain, &text)
        };
        let bundle = bundle.map_err(|error| missing(&format!("key {key}: {error}")))?;
        if bundle.roots().next().is_none() {
            return Err(missing(&format!("key {key}: the bundle has no roots")));
        }
        Ok(bundle)
    }

    /// The certificate in the Secret `name` and those above it, and its key.
    ///
    /// # Errors
    /// When there is none.
    pub async fn certificate(
        &self,
        name: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKey), String> {
        let data = self.data(name).await?;
        let data = data.ok_or_else(|| missing(name))?;
        let entry = |key: &str| {
            let value = data.get(key);
            value.ok_or_else(|| format!("Secret {name} has no key {key}"))
        };
        certificate_and_key(entry(import::CERTIFICATE)?, entry(import::PRIVATE_KEY)?)
            .map_err(|error| format!("Secret {name}: {error}"))
    }

    /// The join token in the Secret `name`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn join_token(&self, name: &str) -> Result<Zeroizing<String>, String> {
        let data = self.data(name).await?;
        let data = data.ok_or_else(|| missing(name))?;
        let token = data.get(TOKEN);
        let token = token.ok_or_else(|| format!("Secret {name} has no key {TOKEN}"))?;
        match std::str::from_utf8(token).map(str::trim) {
            Ok(token) if !token.is_empty() && token.len() <= MAX_TOKEN => {
                Ok(Zeroizing::new(token.to_owned()))
            }
            _ => Err(format!("Secret {name}, key {TOKEN}: this is no join token")),
        }
    }

    /// The X.509-SVID that a join token was good for, with its key; none when nothing is kept, or that
    /// is of another token than `token`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn agent(
        &self,
        token: Option<&String>,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKey)>, String> {
        let name = object_name(&self.object, SUFFIX);
        let Some(data) = self.data(&name).await? else {
            return Ok(None);
        };
        let is_of_token = |token: &String| {
            let hash = data.get(TOKEN_HASH);
            hash.is_some_and(|known| ***known == *hash_of(token).as_bytes())
        };
        if !token.is_none_or(is_of_token) {
            return Ok(None);
        }
        let entries = (data.get(import::CERTIFICATE), data.get(import::PRIVATE_KEY));
        let (Some(certificate), Some(key)) = entries else {
            return Ok(None);
        };
        Ok(certificate_and_key(certificate, key).ok())
    }

    /// Keeps the X.509-SVID that `token` was good for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn keep_agent(
        &self,
        token: Option<&String>,
        chain: &[CertificateDer<'static>],
        key: &PrivateKey,
    ) -> Result<(), String> {
        let name = object_name(&self.object, SUFFIX);
        let failed = |error: CallError| format!("cannot write Secret {name}: {}", error.message());
        let existing = call(self.secrets.get_opt(&name)).await.map_err(failed)?;
        let before = existing.as_ref().and_then(|it| {
            let data = it.data.as_ref()?;
            data.get(TOKEN_HASH).cloned()
        });
        let hash = token.map(|token| ByteString(hash_of(token).into_bytes()));
        let mut data = BTreeMap::from([
            (
                import::CERTIFICATE.to_owned(),
                ByteString(pem::encode_certificates(chain).into_bytes()),
            ),
            (
                import::PRIVATE_KEY.to_owned(),
                ByteString(key.to_pem().as_bytes().to_vec()),
            ),
        ]);
        data.extend(hash.or(before).map(|hash| (TOKEN_HASH.to_owned(), hash)));
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(self.labels.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                resource_version: existing.as_ref().and_then(ResourceExt::resource_version),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let parameters = PostParams::default();
        let written = if existing.is_some() {
            call(self.secrets.replace(&name, &parameters, &secret)).await
        } else {
            call(self.secrets.create(&parameters, &secret)).await
        };
        wipe(&mut secret);
        let mut written = written.map_err(failed)?;
        wipe(&mut written);
        Ok(())
    }

    /// The data of the Secret `name`, if there is one.
    async fn data(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Zeroizing<Vec<u8>>>>, String> {
        let secret = call(self.secrets.get_opt(name)).await;
        let secret =
            secret.map_err(|error| format!("cannot read Secret {name}: {}", error.message()))?;
        let data = secret.map(|secret| secret.data.unwrap_or_default());
        Ok(data.map(|data| {
            let entries = data.into_iter();
            entries
                .map(|(key, value)| (key, Zeroizing::new(value.0)))
                .collect()
        }))
    }
}

fn missing(name: &str) -> String {
    format!("Secret {name} does not exist in the operator's namespace")
}

fn certificate_and_key(
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKey), String> {
    let chain = pem::certificates(certificate).map_err(|error| format!("tls.crt: {error}"))?;
    let key = PrivateKey::from_pem(key).map_err(|error| format!("tls.key: {error}"))?;
    Ok((chain, key))
}

fn hash_of(token: &str) -> String {
    BASE64_STANDARD.encode(digest(&SHA256, token.as_bytes()))
}
