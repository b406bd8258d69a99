//! JWT-SVIDs, for entries and for administrators.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tonic::Status;

use crate::authority::JwtSvidRequest;
use crate::registration::Entry;
use crate::runtime::clock;
use crate::server::context::ServerContext;
use crate::server::proto::svid::MintJwtsvidRequest;
use crate::server::proto::types;
use crate::server::services::answer::{internal, invalid};
use crate::server::services::ids;
use crate::server::services::svid::asked_for;
use crate::spiffe::SpiffeId;

const FAILED: &str = "failed to sign JWT-SVID";

/// What to sign.
struct Wanted {
    id: SpiffeId,
    audience: Vec<String>,
    ttl: Option<Duration>,
    with_jti: bool,
}

/// A token of `entry`.
pub(super) async fn for_entry(
    context: &Arc<ServerContext>,
    entry: &Entry,
    audience: Vec<String>,
) -> Result<types::Jwtsvid, Status> {
    let registered = entry.registered.as_ref();
    let attributes = registered.and_then(|it| it.attributes);
    let wanted = Wanted {
        id: entry.spiffe_id.clone(),
        audience,
        ttl: entry.jwt_ttl,
        with_jti: attributes.is_some_and(|it| it.jwt_svid_include_jti),
    };
    sign(context, wanted).await
}

/// A token that an administrator asks for.
pub(super) async fn mint(
    context: &Arc<ServerContext>,
    MintJwtsvidRequest { id, audience, ttl }: MintJwtsvidRequest,
) -> Result<types::Jwtsvid, Status> {
    let id = ids::from_proto(id.as_ref())
        .and_then(|id| ids::check_workload(&id, &context.trust_domain).map(|()| id))
        .map_err(|error| invalid("invalid SPIFFE ID", error))?;
    let wanted = Wanted {
        id,
        audience,
        ttl: asked_for(ttl),
        with_jti: false,
    };
    sign(context, wanted).await
}

async fn sign(context: &Arc<ServerContext>, wanted: Wanted) -> Result<types::Jwtsvid, Status> {
    if wanted.audience.is_empty() {
        return Err(Status::invalid_argument(
            "at least one audience is required",
        ));
    }
    let authority = context.authority()?;
    let no_key = || internal(FAILED, "JWT key is not available for signing");
    let key = authority.jwt().map(|jwt| jwt.key().public_key().clone());
    let key = key.ok_or_else(no_key)?;
    let shared = Arc::clone(context);
    let sign = move || {
        let jwt = authority.jwt().ok_or_else(no_key)?;
        let settings = shared.settings();
        let ttl = wanted.ttl.unwrap_or(settings.jwt_svid_ttl);
        let signed = jwt.sign(&JwtSvidRequest {
            id: &wanted.id,
            audience: &wanted.audience,
            issuer: settings.jwt_issuer.as_deref(),
            issued_at: clock::now(),
            ttl: SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX),
            with_jti: wanted.with_jti,
        });
        let signed = signed.map_err(|error| internal(FAILED, error))?;
        if signed.capped {
            shared.note_cap("JWT-SVID", wanted.id.as_str(), signed.expires_at);
        }
        Ok(types::Jwtsvid {
            token: signed.token,
            id: Some(ids::to_proto(&wanted.id)),
            expires_at: signed.expires_at.as_second(),
            issued_at: signed.issued_at.as_second(),
            hint: String::new(),
        })
    };
    context.workers.sign(&key, sign).await?
}
