//! What a server below asks of the one above: its bundle, a CA, and to take JWT keys.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::task::spawn_blocking;

use crate::authority::{CertificateAuthority, PrivateKey};
use crate::runtime::clock;
use crate::server::proto::bundle::bundle_client::BundleClient;
use crate::server::proto::bundle::{GetBundleRequest, PublishJwtAuthorityRequest};
use crate::server::proto::svid::NewDownstreamX509caRequest;
use crate::server::proto::svid::svid_client::SvidClient;
use crate::spiffe::{Bundle, JwtKey, TrustDomainName};
use crate::upstream::channel::Connection;
use crate::upstream::identity::Identity;
use crate::upstream::problem::UpstreamProblem;
use crate::upstream::{CaWish, Wishes, message};

/// What came of asking.
pub(super) struct Answer {
    /// The bundle.
    pub(super) bundle: Arc<Bundle>,
    /// The CA, if one was asked for.
    pub(super) ca: Option<Arc<CertificateAuthority>>,
    /// The first thing that failed after the bundle was got.
    pub(super) problem: Option<UpstreamProblem>,
}

/// Asks for the bundle, for `ca`, and to take the JWT keys that are wished for. One does not wait for
/// the other to go well.
pub(super) async fn ask(
    identity: &mut Identity,
    wishes: &Wishes,
    ca: Option<CaWish>,
) -> Result<Answer, UpstreamProblem> {
    let asked = ask_once(identity, wishes, ca).await;
    let problem = match &asked {
        Ok(answer) => answer.problem.as_ref(),
        Err(problem) => Some(problem),
    };
    if let Some(problem) = problem {
        identity.failed(problem);
    }
    asked
}

async fn ask_once(
    identity: &mut Identity,
    wishes: &Wishes,
    ca: Option<CaWish>,
) -> Result<Answer, UpstreamProblem> {
    let connection = identity.connection(wishes.known.as_ref()).await?;
    let trust_domain = identity.upstream.trust_domain.clone();
    let mut bundles = BundleClient::new(connection.channel.clone());
    let got = bundles.get_bundle(GetBundleRequest::default());
    let got = connection.call("GetBundle", got).await?;
    let mut bundle = message::bundle(&got, &trust_domain)
        .map_err(|message| UpstreamProblem::Malformed { message })?;
    let signed = match ca {
        Some(wish) => sign(&connection, wish, &bundle, &trust_domain)
            .await
            .map(Some),
        None => Ok(None),
    };
    let (ca, mut problem) = match signed {
        Ok(ca) => (ca, None),
        Err(problem) => (None, Some(problem)),
    };
    for key in &wishes.jwt_keys {
        if bundle.jwt_key(&key.key_id).is_some() {
            continue;
        }
        match publish(&connection, key).await {
            Ok(keys) => bundle = bundle.with_jwt_keys(keys),
            Err(failed) => {
                problem.get_or_insert(failed);
                break;
            }
        }
    }
    Ok(Answer {
        bundle: Arc::new(bundle),
        ca: ca.map(Arc::new),
        problem,
    })
}

/// Has a new CA signed.
async fn sign(
    connection: &Connection,
    wish: CaWish,
    bundle: &Bundle,
    trust_domain: &TrustDomainName,
) -> Result<CertificateAuthority, UpstreamProblem> {
    // Making an RSA key takes seconds.
    let key = spawn_blocking(move || PrivateKey::generate(wish.key_type)).await;
    let key = key.map_err(|error| UpstreamProblem::Malformed {
        message: error.to_string(),
    })??;
    let request = NewDownstreamX509caRequest {
        csr: key.certificate_request(Some(&trust_domain.id()))?,
        preferred_ttl: i32::try_from(wish.ttl.as_secs()).unwrap_or(i32::MAX),
    };
    let mut svids = SvidClient::new(connection.channel.clone());
    let signed = svids.new_downstream_x509ca(request);
    let signed = connection.call("NewDownstreamX509CA", signed).await?;
    let der = |bytes: Vec<u8>| CertificateDer::from(bytes);
    let chain: Vec<_> = signed.ca_cert_chain.into_iter().map(der).collect();
    let roots: Vec<_> = bundle.roots().cloned().collect();
    CertificateAuthority::of_upstream(key, &chain, &roots, trust_domain, clock::now())
        .map_err(|source| UpstreamProblem::Ca { source })
}

/// Has a JWT key taken into the bundle, and gives all that are in it.
async fn publish(connection: &Connection, key: &JwtKey) -> Result<Vec<JwtKey>, UpstreamProblem> {
    let mut bundles = BundleClient::new(connection.channel.clone());
    let request = PublishJwtAuthorityRequest {
        jwt_authority: Some(message::jwt_key_to_proto(key)),
    };
    let published = bundles.publish_jwt_authority(request);
    let published = connection.call("PublishJWTAuthority", published).await?;
    let keys = published.jwt_authorities.iter().map(message::jwt_key);
    keys.collect::<Result<_, _>>()
        .map_err(|message| UpstreamProblem::Malformed { message })
}
