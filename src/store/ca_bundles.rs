//! Certificates of CAs that users keep in the operator's namespace.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;

use crate::api::{CaBundleKind, CaBundleRef};
use crate::clusters::{CallError, call};
use crate::spiffe::{PemError, pem};

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaBundleError {
    /// The API server did not give the object.
    #[error("cannot read {kind:?} {name}")]
    Call {
        /// Its kind.
        kind: CaBundleKind,
        /// Its name.
        name: String,
        /// Why.
        source: CallError,
    },
    /// The object lacks the key.
    #[error("{kind:?} {name} has no key {key}")]
    Missing {
        /// Its kind.
        kind: CaBundleKind,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// What is there are no certificates.
    #[error("{kind:?} {name}, key {key}: {source}")]
    Pem {
        /// Its kind.
        kind: CaBundleKind,
        /// Its name.
        name: String,
        /// The key.
        key: String,
        /// What is wrong.
        source: PemError,
    },
}

/// The certificates that `reference` leads to in `namespace`, as they are now.
///
/// # Errors
/// When there are none.
pub async fn ca_bundle(
    client: Client,
    namespace: &str,
    reference: &CaBundleRef,
) -> Result<Vec<CertificateDer<'static>>, CaBundleError> {
    let CaBundleRef { kind, name, key } = reference.clone();
    let failed = |source| CaBundleError::Call {
        kind,
        name: name.clone(),
        source,
    };
    let found = match kind {
        CaBundleKind::ConfigMap => {
            let objects = Api::<ConfigMap>::namespaced(client, namespace);
            let data = call(objects.get(&name)).await.map_err(failed)?.data;
            data.and_then(|mut data| data.remove(&key))
                .map(String::into_bytes)
        }
        CaBundleKind::Secret => {
            let objects = Api::<Secret>::namespaced(client, namespace);
            let data = call(objects.get(&name)).await.map_err(failed)?.data;
            data.and_then(|mut data| data.remove(&key))
                .map(|value| value.0)
        }
    };
    let Some(text) = found else {
        return Err(CaBundleError::Missing { kind, name, key });
    };
    pem::certificates(&text).map_err(|source| CaBundleError::Pem {
        kind,
        name,
        key,
        source,
    })
}
