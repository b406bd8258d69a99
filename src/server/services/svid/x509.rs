//! X.509-SVIDs, for entries and for administrators.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use crate::authority::{Authority, SignedSvid, SvidRequest};
use crate::registration::{Entry, dns_name};
use crate::runtime::clock;
use crate::server::context::ServerContext;
use crate::server::proto::svid::{MintX509svidRequest, NewX509svidParams};
use crate::server::proto::types;
use crate::server::services::answer::{internal, invalid};
use crate::server::services::ids;
use crate::server::services::svid::asked_for;
use crate::server::validity::validity;
use crate::server::workers::signs_quickly;
use crate::spiffe::{CertificateRequest, CsrError, SpiffeId, Subject};

/// What somebody asks for, and the entry if they may.
type Wanted = (NewX509svidParams, Option<Arc<Entry>>);

/// An X.509-SVID for each that is wanted, in their order.
pub(super) async fn sign(
    context: &Arc<ServerContext>,
    wanted: Vec<Wanted>,
) -> Result<Vec<Result<types::X509svid, Status>>, Status> {
    let authority = context.authority()?;
    let default_ttl = context.settings().x509_svid_ttl;
    let shared = Arc::clone(context);
    let quick = wanted.len() == 1 && signs_quickly(authority.ca().key().public_key());
    let one = move |wanted| sign_one(&shared, &authority, default_ttl, wanted);
    if quick {
        // Handing it to another thread would take longer than it holds this one up.
        return Ok(wanted.into_iter().map(one).collect());
    }
    context.workers.map(wanted, one).await
}

fn sign_one(
    context: &ServerContext,
    authority: &Authority,
    default_ttl: Duration,
    (param, entry): Wanted,
) -> Result<types::X509svid, Status> {
    if param.entry_id.is_empty() {
        return Err(Status::invalid_argument("missing entry ID"));
    }
    if param.csr.is_empty() {
        return Err(Status::invalid_argument("missing CSR"));
    }
    let entry = entry.ok_or_else(|| Status::not_found("entry not found or not authorized"))?;
    let request = read_request(&param.csr, "invalid CSR signature")?;
    let (not_before, not_after) = validity(clock::now(), entry.x509_ttl.unwrap_or(default_ttl));
    let signed = authority.ca().sign(&SvidRequest {
        id: &entry.spiffe_id,
        dns_names: &entry.dns_names,
        public_key: &request.public_key,
        not_before,
        not_after,
    });
    let signed = signed.map_err(|error| internal("failed to sign X509-SVID", error))?;
    Ok(answer(context, &entry.spiffe_id, signed))
}

/// What an administrator asks for: the ID, the names and the subject are those of the request.
pub(super) async fn mint(
    context: &Arc<ServerContext>,
    MintX509svidRequest { csr, ttl }: MintX509svidRequest,
) -> Result<types::X509svid, Status> {
    let authority = context.authority()?;
    let ttl = asked_for(ttl).unwrap_or(context.settings().x509_svid_ttl);
    let shared = Arc::clone(context);
    let minted = context.workers.run(move || {
        let wish = Wish::read(&csr, &shared)?;
        let (not_before, not_after) = validity(clock::now(), ttl);
        let request = SvidRequest {
            id: &wish.id,
            dns_names: &wish.request.dns_names,
            public_key: &wish.request.public_key,
            not_before,
            not_after,
        };
        let signed = authority.ca().sign_for(&request, Some(&wish.subject));
        let signed = signed.map_err(|error| internal("failed to sign X509-SVID", error))?;
        Ok(answer(&shared, &wish.id, signed))
    });
    minted.await?
}

/// What a request of an administrator asks for.
struct Wish {
    id: SpiffeId,
    subject: Subject,
    request: CertificateRequest,
}

impl Wish {
    fn read(csr: &[u8], context: &ServerContext) -> Result<Self, Status> {
        if csr.is_empty() {
            return Err(Status::invalid_argument("missing CSR"));
        }
        let request = read_request(csr, "failed to verify CSR signature")?;
        let uri = match request.uris.as_slice() {
            [] => return Err(Status::invalid_argument("CSR URI SAN is required")),
            [uri] => uri,
            _ => return Err(Status::invalid_argument("only one URI SAN is expected")),
        };
        let no_id = "CSR URI SAN is invalid";
        let id: SpiffeId = uri.parse().map_err(|error| invalid(no_id, error))?;
        ids::check_workload(&id, &context.trust_domain).map_err(|error| invalid(no_id, error))?;
        for name in &request.dns_names {
            dns_name::check(name).map_err(|error| invalid("CSR DNS name is invalid", error))?;
        }
        if let Some(name) = covered_by_wildcard(&request.dns_names) {
            return Err(invalid(
                "CSR DNS name contains a wildcard that covers another non-wildcard name",
                format_args!(
                    "name {name:?} overlaps with an existing wildcard name in the list: wildcard \
                     overlap"
                ),
            ));
        }
        let subject = request.subject.clone();
        let subject = subject.map_err(|error| invalid("CSR subject cannot be used", error))?;
        Ok(Self {
            id,
            subject,
            request,
        })
    }
}

/// Reads and verifies a request. Names and subject in it are for the caller to judge.
pub(super) fn read_request(csr: &[u8], unsigned: &str) -> Result<CertificateRequest, Status> {
    CertificateRequest::from_der(csr).map_err(|error| match error {
        CsrError::BadSignature => invalid(unsigned, error),
        error => invalid("malformed CSR", error),
    })
}

/// The first name of which another one is the wildcard.
fn covered_by_wildcard(names: &[String]) -> Option<&String> {
    names.iter().find(|name| {
        let Some((label, parent)) = name.split_once('.') else {
            return false;
        };
        let covers = |other: &String| other.strip_prefix("*.") == Some(parent);
        label != "*" && names.iter().any(covers)
    })
}

fn answer(context: &ServerContext, id: &SpiffeId, signed: SignedSvid) -> types::X509svid {
    if signed.capped {
        context.note_cap("X.509-SVID", id.as_str(), signed.not_after);
    }
    types::X509svid {
        cert_chain: signed.chain.into_iter().map(|it| it.to_vec()).collect(),
        id: Some(ids::to_proto(id)),
        expires_at: signed.not_after.as_second(),
        hint: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_beside_what_it_covers_is_found() {
        let covered = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
            covered_by_wildcard(&names).cloned()
        };
        for free in [
            &["a.example.org", "b.example.org"][..],
            &["*.example.org"],
            &["*.example.org", "a.b.example.org", "example.org"],
            &["a", "*.a"],
        ] {
            assert_eq!(covered(free), None, "{free:?}");
        }
        let name = covered(&["*.example.org", "a.example.org"]);
        assert_eq!(name.as_deref(), Some("a.example.org"));
    }
}
