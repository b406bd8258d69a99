//! The server's own X.509-SVID, `spiffe://<trust domain>/spire/server`, and the TLS configuration
//! made of it. Its key lives in this process only.
//!
//! It is signed anew at half of its life, and whenever the authority changes: a new connection shows
//! the new one, and those that are open stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api::CaKeyType;
use crate::authority::{Authority, KeyError, PrivateKey, SignError, SvidRequest};
use crate::runtime::clock;
use crate::server::context::ServerContext;
use crate::server::tls::{Trust, server_config};
use crate::server::validity::validity;
use crate::spiffe::{Bundle, SpiffeId, TrustDomainName};

/// How soon a failure is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why the server has no identity.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error("the server's key cannot be made: {source}")]
    Key { source: KeyError },
    #[error("the server's key cannot be read back: {source}")]
    KeyForm {
        source: rustls_pki_types::pem::Error,
    },
    #[error("the server's X.509-SVID cannot be signed: {source}")]
    Sign { source: SignError },
    #[error("TLS cannot be configured: {source}")]
    Tls { source: rustls::Error },
}

/// Keeps `tls` current for ever; it is none while nobody signs.
pub(super) async fn keep(
    context: Arc<ServerContext>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
) {
    let mut authorities = context.authority.clone();
    let mut settings = context.settings.clone();
    let mut federation = context.process.caches.federation.changes();
    let mut key = None;
    loop {
        let authority = authorities.borrow_and_update().clone();
        settings.mark_unchanged();
        federation.mark_unchanged();
        let pause = match authority {
            None => {
                tls.send_replace(None);
                None
            }
            Some(authority) => match identity(&context, &authority, &mut key) {
                Ok((config, pause)) => {
                    tls.send_replace(Some(Arc::new(config)));
                    Some(pause)
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    let trust_domain = context.trust_domain.as_str();
                    tracing::error!(trust_domain, error, "the server has no identity");
                    Some(RETRY)
                }
            },
        };
        let due = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = authorities.changed() => if changed.is_err() { return },
            changed = settings.changed() => if changed.is_err() { return },
            changed = federation.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

/// A TLS configuration with a new X.509-SVID, and how long until the next is due.
fn identity(
    context: &ServerContext,
    authority: &Authority,
    key: &mut Option<PrivateKey>,
) -> Result<(ServerConfig, Duration), IdentityError> {
    let key = match key {
        Some(key) => key,
        None => key.insert(
            PrivateKey::generate(CaKeyType::EcP256)
                .map_err(|source| IdentityError::Key { source })?,
        ),
    };
    let settings = context.settings.borrow().clone();
    let now = clock::now();
    let (not_before, not_after) = validity(now, settings.x509_svid_ttl);
    let request = SvidRequest {
        id: &SpiffeId::of_server(&context.trust_domain),
        dns_names: &[],
        public_key: key.public_key(),
        not_before,
        not_after,
    };
    let signed = authority
        .ca()
        .sign(&request)
        .map_err(|source| IdentityError::Sign { source })?;
    let half = signed.not_after.duration_since(now).as_secs() / 2;
    let pause = Duration::from_secs(u64::try_from(half).unwrap_or(0)).max(Duration::from_secs(1));
    let pem = key.to_pem();
    let private = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| IdentityError::KeyForm { source })?;
    let trust = Trust {
        bundle: Arc::clone(authority.bundle()),
        admin_ids: settings.admin_ids.clone(),
        foreign: foreign_bundles(context, &settings.admin_ids),
    };
    context.own_chain.send_replace(signed.chain.clone());
    let config = server_config(signed.chain, private, trust)
        .map_err(|source| IdentityError::Tls { source })?;
    Ok((config, pause))
}

/// The bundles of administrators from elsewhere, as far as they are known.
fn foreign_bundles(
    context: &ServerContext,
    admin_ids: &BTreeSet<SpiffeId>,
) -> BTreeMap<TrustDomainName, Arc<Bundle>> {
    let foreign = admin_ids
        .iter()
        .filter(|id| !id.is_member_of(&context.trust_domain));
    let names = foreign.filter_map(|id| id.trust_domain().parse::<TrustDomainName>().ok());
    names
        .filter_map(|name| {
            let bundle = context.stores.federation.known_bundle(&name).ok()??;
            Some((name, bundle))
        })
        .collect()
}
