//! The `LocalAuthority` service: preparing, activating, tainting and revoking authorities by hand.
//!
//! What may be done is decided by [`crate::authority::Command`]; here its refusals get SPIRE's codes
//! and words. SPIRE has two slots, the current authority and another one, which is prepared or old.
//! Here there may be both, and several old ones, of which the newest is shown.

mod refusal;

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use crate::authority::{
    AuthorityId, AuthorityKind, AuthorityState, Command, CommandError, Journal, Ledger, Record,
};
use crate::server::context::ServerContext;
use crate::server::proto::localauthority as proto;
use crate::server::proto::localauthority::local_authority_server::LocalAuthority;
use crate::server::services::answer::{internal, invalid, unavailable};
use crate::spiffe::{CaCertificate, Fingerprint};
use crate::store::AuthorityCommandError;

use self::refusal::{Act, failed, name_of, refusal};

const NO_WIT: &str = "WIT-SVID functionality is not yet implemented";
const NO_UPSTREAM: &str = "upstream authority is not configured";
const INITIALIZING: &str = "server is initializing";

/// See above.
pub(super) struct LocalAuthorityService {
    context: Arc<ServerContext>,
}

/// The authorities of one kind, as SPIRE shows them.
struct Shown {
    active: Option<proto::AuthorityState>,
    prepared: Option<proto::AuthorityState>,
    old: Option<proto::AuthorityState>,
}

impl LocalAuthorityService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }

    async fn show(&self, kind: AuthorityKind) -> Result<Shown, Status> {
        let journal = self.context.authority_commands.journal().await;
        let journal = journal.map_err(|error| unavailable(INITIALIZING, error_chain(&error)))?;
        let ledger = journal.ledger_of(kind);
        let active = ledger.active().map(|record| state(&journal, record));
        if active.is_none() {
            return Err(Status::unavailable(INITIALIZING));
        }
        let is_old = |record: &&Record| {
            matches!(record.state, AuthorityState::Old | AuthorityState::Tainted)
        };
        let prepared = prepared(ledger);
        let old = ledger.records().iter().rev().find(is_old);
        Ok(Shown {
            active,
            prepared: prepared.map(|record| state(&journal, record)),
            old: old.map(|record| state(&journal, record)),
        })
    }

    async fn prepare(&self, kind: AuthorityKind) -> Result<proto::AuthorityState, Status> {
        let command = Command::Prepare(kind);
        let done = self.context.authority_commands.execute(command).await;
        let failed = format!("failed to prepare {} authority", name_of(kind));
        let journal = done.map_err(|error| match error {
            AuthorityCommandError::NotInitialized
            | AuthorityCommandError::Refused {
                source: CommandError::NotActive,
            } => Status::unavailable(INITIALIZING),
            error => failure(&failed, &error),
        })?;
        let prepared = prepared(journal.ledger_of(kind));
        let prepared = prepared.map(|record| state(&journal, record));
        prepared.ok_or_else(|| internal(&failed, "it is gone already"))
    }

    /// Does it, and gives what the authority was or is.
    async fn act(
        &self,
        act: Act,
        kind: AuthorityKind,
        id: String,
    ) -> Result<proto::AuthorityState, Status> {
        if id.is_empty() {
            return Err(match act {
                Act::Revoke => invalid("invalid authority ID", "no authority ID provided"),
                Act::Activate | Act::Taint => Status::invalid_argument("no authority ID provided"),
            });
        }
        let authority = AuthorityId::from(id.as_str());
        let command = match act {
            Act::Activate => Command::Activate(kind, authority.clone()),
            Act::Taint => Command::Taint(kind, authority.clone()),
            Act::Revoke => Command::Revoke(kind, authority.clone()),
        };
        let done = self.context.authority_commands.execute(command).await;
        let journal = done.map_err(|error| match error {
            AuthorityCommandError::Refused {
                source: CommandError::Authority { source },
            } => refusal(act, kind, source),
            error => failure(&failed(act, kind), &error),
        })?;
        let mut records = journal.ledger_of(kind).records().iter();
        let record = records.find(|record| record.id == authority);
        Ok(record.map_or_else(
            || proto::AuthorityState {
                authority_id: id,
                ..proto::AuthorityState::default()
            },
            |record| state(&journal, record),
        ))
    }
}

/// What was not done for another reason than a rule of authorities.
fn failure(failed: &str, error: &AuthorityCommandError) -> Status {
    let why = error_chain(error);
    match error {
        AuthorityCommandError::Refused {
            source: CommandError::Imported | CommandError::Upstream,
        } => Status::failed_precondition(format!("{failed}: {why}")),
        AuthorityCommandError::Refused { .. } | AuthorityCommandError::Aborted { .. } => {
            internal(failed, why)
        }
        _ => unavailable(failed, why),
    }
}

fn error_chain(error: &AuthorityCommandError) -> String {
    crate::error_chain(error)
}

fn prepared(ledger: &Ledger) -> Option<&Record> {
    let mut records = ledger.records().iter();
    records.find(|record| record.state == AuthorityState::Prepared)
}

fn state(journal: &Journal, record: &Record) -> proto::AuthorityState {
    proto::AuthorityState {
        authority_id: record.id.to_string(),
        expires_at: record.not_after.as_second(),
        upstream_authority_subject_key_id: root_above(journal, record).unwrap_or_default(),
    }
}

/// The key identifier of the root above a CA that is none itself.
fn root_above(journal: &Journal, record: &Record) -> Option<String> {
    let bundle = journal.bundle().ok()?;
    let root = bundle
        .roots()
        .find(|root| Fingerprint::of(root) == record.root)?;
    let root = CaCertificate::parse(root.clone()).ok()?;
    let id = root.key_id().to_string();
    (id != record.id.as_str()).then_some(id)
}

/// Of a JWT key that was tainted, and of what was revoked, SPIRE says the ID alone.
fn bare(state: proto::AuthorityState) -> proto::AuthorityState {
    proto::AuthorityState {
        authority_id: state.authority_id,
        ..proto::AuthorityState::default()
    }
}

#[async_trait]
impl LocalAuthority for LocalAuthorityService {
    async fn get_x509_authority_state(
        &self,
        _: Request<proto::GetX509AuthorityStateRequest>,
    ) -> Result<Response<proto::GetX509AuthorityStateResponse>, Status> {
        let Shown {
            active,
            prepared,
            old,
        } = self.show(AuthorityKind::X509).await?;
        Ok(Response::new(proto::GetX509AuthorityStateResponse {
            active,
            prepared,
            old,
        }))
    }

    async fn prepare_x509_authority(
        &self,
        _: Request<proto::PrepareX509AuthorityRequest>,
    ) -> Result<Response<proto::PrepareX509AuthorityResponse>, Status> {
        let prepared_authority = Some(self.prepare(AuthorityKind::X509).await?);
        Ok(Response::new(proto::PrepareX509AuthorityResponse {
            prepared_authority,
        }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<proto::ActivateX509AuthorityRequest>,
    ) -> Result<Response<proto::ActivateX509AuthorityResponse>, Status> {
        let id = request.into_inner().authority_id;
        let activated_authority = Some(self.act(Act::Activate, AuthorityKind::X509, id).await?);
        Ok(Response::new(proto::ActivateX509AuthorityResponse {
            activated_authority,
        }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<proto::TaintX509AuthorityRequest>,
    ) -> Result<Response<proto::TaintX509AuthorityResponse>, Status> {
        let id = request.into_inner().authority_id;
        let tainted_authority = Some(self.act(Act::Taint, AuthorityKind::X509, id).await?);
        Ok(Response::new(proto::TaintX509AuthorityResponse {
            tainted_authority,
        }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<proto::RevokeX509AuthorityRequest>,
    ) -> Result<Response<proto::RevokeX509AuthorityResponse>, Status> {
        let id = request.into_inner().authority_id;
        let state = self.act(Act::Revoke, AuthorityKind::X509, id).await?;
        Ok(Response::new(proto::RevokeX509AuthorityResponse {
            revoked_authority: Some(bare(state)),
        }))
    }

    async fn get_jwt_authority_state(
        &self,
        _: Request<proto::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<proto::GetJwtAuthorityStateResponse>, Status> {
        let Shown {
            active,
            prepared,
            old,
        } = self.show(AuthorityKind::Jwt).await?;
        Ok(Response::new(proto::GetJwtAuthorityStateResponse {
            active,
            prepared,
            old,
        }))
    }

    async fn prepare_jwt_authority(
        &self,
        _: Request<proto::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<proto::PrepareJwtAuthorityResponse>, Status> {
        let prepared_authority = Some(self.prepare(AuthorityKind::Jwt).await?);
        Ok(Response::new(proto::PrepareJwtAuthorityResponse {
            prepared_authority,
        }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<proto::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<proto::ActivateJwtAuthorityResponse>, Status> {
        let id = request.into_inner().authority_id;
        let activated_authority = Some(self.act(Act::Activate, AuthorityKind::Jwt, id).await?);
        Ok(Response::new(proto::ActivateJwtAuthorityResponse {
            activated_authority,
        }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<proto::TaintJwtAuthorityRequest>,
    ) -> Result<Response<proto::TaintJwtAuthorityResponse>, Status> {
        let id = request.into_inner().authority_id;
        let state = self.act(Act::Taint, AuthorityKind::Jwt, id).await?;
        Ok(Response::new(proto::TaintJwtAuthorityResponse {
            tainted_authority: Some(bare(state)),
        }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<proto::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<proto::RevokeJwtAuthorityResponse>, Status> {
        let id = request.into_inner().authority_id;
        let state = self.act(Act::Revoke, AuthorityKind::Jwt, id).await?;
        Ok(Response::new(proto::RevokeJwtAuthorityResponse {
            revoked_authority: Some(bare(state)),
        }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        _: Request<proto::TaintX509UpstreamAuthorityRequest>,
    ) -> Result<Response<proto::TaintX509UpstreamAuthorityResponse>, Status> {
        Err(Status::failed_precondition(NO_UPSTREAM))
    }

    async fn revoke_x509_upstream_authority(
        &self,
        _: Request<proto::RevokeX509UpstreamAuthorityRequest>,
    ) -> Result<Response<proto::RevokeX509UpstreamAuthorityResponse>, Status> {
        Err(Status::failed_precondition(NO_UPSTREAM))
    }

    async fn get_wit_authority_state(
        &self,
        _: Request<proto::GetWitAuthorityStateRequest>,
    ) -> Result<Response<proto::GetWitAuthorityStateResponse>, Status> {
        Err(Status::unimplemented(NO_WIT))
    }

    async fn prepare_wit_authority(
        &self,
        _: Request<proto::PrepareWitAuthorityRequest>,
    ) -> Result<Response<proto::PrepareWitAuthorityResponse>, Status> {
        Err(Status::unimplemented(NO_WIT))
    }

    async fn activate_wit_authority(
        &self,
        _: Request<proto::ActivateWitAuthorityRequest>,
    ) -> Result<Response<proto::ActivateWitAuthorityResponse>, Status> {
        Err(Status::unimplemented(NO_WIT))
    }

    async fn taint_wit_authority(
        &self,
        _: Request<proto::TaintWitAuthorityRequest>,
    ) -> Result<Response<proto::TaintWitAuthorityResponse>, Status> {
        Err(Status::unimplemented(NO_WIT))
    }

    async fn revoke_wit_authority(
        &self,
        _: Request<proto::RevokeWitAuthorityRequest>,
    ) -> Result<Response<proto::RevokeWitAuthorityResponse>, Status> {
        Err(Status::unimplemented(NO_WIT))
    }
}
