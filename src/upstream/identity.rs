//! Who we are to the server above, kept valid: an agent there, and by an entry of that agent's a
//! server below. With a Workload API an agent beside us does all of that.
//!
//! Everything is renewed at half of its life, and what is valid still is used when that fails.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::api::CaKeyType;
use crate::authority::PrivateKey;
use crate::domains::{UpstreamAttestor, UpstreamIdentity};
use crate::runtime::clock;
use crate::server::proto::entry::GetAuthorizedEntriesRequest;
use crate::server::proto::entry::entry_client::EntryClient;
use crate::server::proto::svid::svid_client::SvidClient;
use crate::server::proto::svid::{BatchNewX509svidRequest, NewX509svidParams};
use crate::server::proto::types::{Entry, EntryMask, Spiffeid};
use crate::spiffe::{Bundle, SpiffeId};
use crate::upstream::Upstream;
use crate::upstream::attest::{Evidence, attest, renew, svid_of};
use crate::upstream::channel::Connection;
use crate::upstream::problem::UpstreamProblem;
use crate::upstream::svid::Svid;
use crate::upstream::workload_api::fetch;

/// Most bytes of an answer with entries. An agent that shares its ID with a node's may have many.
const MAX_ENTRIES_SIZE: usize = 16 * 1024 * 1024;
/// Entries that are named in a message.
const NAMED: usize = 5;

/// Who we are.
pub(super) struct Identity {
    pub(super) upstream: Upstream,
    agent: Option<Svid>,
    server: Option<Svid>,
    /// As a server below, and whom it trusts.
    connection: Option<(Option<Arc<Bundle>>, Connection)>,
}

impl Identity {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            agent: None,
            server: None,
            connection: None,
        }
    }

    /// Takes note of a call that failed: the next one begins anew, as far as it takes.
    pub(super) fn failed(&mut self, problem: &UpstreamProblem) {
        self.connection = None;
        if matches!(problem, UpstreamProblem::Refused { .. }) {
            self.server = None;
            self.agent = None;
        }
    }

    /// A connection as a server below. `known` is the bundle that the server above had, if there is
    /// one.
    pub(super) async fn connection(
        &mut self,
        known: Option<&Arc<Bundle>>,
    ) -> Result<Connection, UpstreamProblem> {
        let now = clock::now();
        let is_current = self.server.as_ref().is_some_and(|it| !it.is_half_over(now));
        if let Some((trusted, connection)) = &self.connection
            && is_current
            && trusted.as_ref() == known
        {
            return Ok(connection.clone());
        }
        let (bundle, server) = match self.upstream.settings.identity.clone() {
            UpstreamIdentity::Agent {
                bundle,
                attestor,
                entry,
            } => {
                let given = self.upstream.material.bundle(&bundle).await;
                let trusted = trusted(given, known)?;
                let server = self.server(&trusted, &attestor, entry.as_ref()).await?;
                (trusted, server)
            }
            UpstreamIdentity::Workload { socket } => {
                let (server, bundle) = fetch(&socket, &self.upstream.trust_domain).await?;
                (trusted(Ok(bundle), known)?, server)
            }
        };
        // The agent beside us renews at a time of its own.
        let is_same = self
            .server
            .as_ref()
            .is_some_and(|it| it.chain == server.chain);
        if let Some((trusted, connection)) = &self.connection
            && is_same
            && trusted.as_ref() == known
        {
            return Ok(connection.clone());
        }
        let address = &self.upstream.settings.address;
        let connection = Connection::open(address, bundle, Some(&server)).await?;
        self.server = Some(server);
        self.connection = Some((known.cloned(), connection.clone()));
        Ok(connection)
    }

    /// Our X.509-SVID as a server below.
    async fn server(
        &mut self,
        trusted: &Arc<Bundle>,
        attestor: &UpstreamAttestor,
        wanted: Option<&SpiffeId>,
    ) -> Result<Svid, UpstreamProblem> {
        let now = clock::now();
        if let Some(server) = self.server.as_ref().filter(|it| !it.is_half_over(now)) {
            return Ok(server.clone());
        }
        let renewed = self.new_server(trusted, attestor, wanted).await;
        match (renewed, &self.server) {
            (Err(problem), Some(server)) if server.is_valid(now) => {
                tracing::warn!(%problem, "the identity at the server above is not renewed");
                Ok(server.clone())
            }
            (renewed, _) => renewed,
        }
    }

    async fn new_server(
        &mut self,
        trusted: &Arc<Bundle>,
        attestor: &UpstreamAttestor,
        wanted: Option<&SpiffeId>,
    ) -> Result<Svid, UpstreamProblem> {
        let agent = self.agent(trusted, attestor).await?;
        let address = &self.upstream.settings.address;
        let connection = Connection::open(address, Arc::clone(trusted), Some(&agent)).await?;
        let mut entries = EntryClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_ENTRIES_SIZE);
        let request = GetAuthorizedEntriesRequest {
            output_mask: Some(EntryMask {
                spiffe_id: true,
                downstream: true,
                ..EntryMask::default()
            }),
        };
        let listed = entries.get_authorized_entries(request);
        let listed = connection.call("GetAuthorizedEntries", listed).await?;
        let entry = choose(listed.entries, &agent.id, wanted)?;
        let key = spawn_blocking(|| PrivateKey::generate(CaKeyType::EcP256)).await;
        let key = key.map_err(|error| UpstreamProblem::Malformed {
            message: error.to_string(),
        })??;
        let key = Arc::new(key);
        let request = BatchNewX509svidRequest {
            params: vec![NewX509svidParams {
                entry_id: entry,
                csr: key.certificate_request(None)?,
            }],
        };
        let mut svids = SvidClient::new(connection.channel.clone());
        let signed = svids.batch_new_x509svid(request);
        let signed = connection.call("BatchNewX509SVID", signed).await?;
        let result = signed.results.into_iter().next().unwrap_or_default();
        let status = result.status.unwrap_or_default();
        if status.code != 0 {
            return Err(UpstreamProblem::Refused {
                call: "BatchNewX509SVID",
                message: status.message,
            });
        }
        svid_of(result.svid, key)
    }

    /// Our X.509-SVID as an agent.
    async fn agent(
        &mut self,
        trusted: &Arc<Bundle>,
        attestor: &UpstreamAttestor,
    ) -> Result<Svid, UpstreamProblem> {
        let now = clock::now();
        if let UpstreamAttestor::JoinToken { secret } = attestor {
            return self.joined(trusted, attestor, secret).await;
        }
        if let Some(agent) = self.agent.as_ref().filter(|it| !it.is_half_over(now)) {
            return Ok(agent.clone());
        }
        let agent = self.attest(trusted, attestor).await?;
        self.agent = Some(agent.clone());
        Ok(agent)
    }

    async fn attest(
        &self,
        trusted: &Arc<Bundle>,
        attestor: &UpstreamAttestor,
    ) -> Result<Svid, UpstreamProblem> {
        let Upstream {
            settings,
            material,
            token_folder,
            ..
        } = &self.upstream;
        let evidence = Evidence::gather(attestor, material, token_folder).await?;
        let connection = Connection::open(&settings.address, Arc::clone(trusted), None).await?;
        attest(&connection, evidence).await
    }

    /// A join token is good for once. What came of it is kept, and renewed at half of its life.
    async fn joined(
        &mut self,
        trusted: &Arc<Bundle>,
        attestor: &UpstreamAttestor,
        secret: &str,
    ) -> Result<Svid, UpstreamProblem> {
        let now = clock::now();
        let material = &self.upstream.material;
        let unkept = |message: String| UpstreamProblem::Credential { message };
        let token = material.join_token(secret).await;
        let kept = material
            .agent(token.as_deref().ok())
            .await
            .map_err(unkept)?;
        let kept = kept.and_then(|(chain, key)| Svid::new(chain, Arc::new(key)).ok());
        let agent = match kept.filter(|it| it.is_valid(now)) {
            Some(agent) if !agent.is_half_over(now) => return Ok(agent),
            Some(agent) => {
                let address = &self.upstream.settings.address;
                let connection =
                    Connection::open(address, Arc::clone(trusted), Some(&agent)).await?;
                renew(&connection).await?
            }
            None => self.attest(trusted, attestor).await?,
        };
        // Before it is used: by that the one before it ends.
        material
            .keep_agent(token.as_deref().ok(), &agent.chain, &agent.key)
            .await
            .map_err(unkept)?;
        Ok(agent)
    }
}

/// Whom to trust: what users bring, and what the server above has told since.
fn trusted(
    given: Result<Bundle, String>,
    known: Option<&Arc<Bundle>>,
) -> Result<Arc<Bundle>, UpstreamProblem> {
    let told = known.map(AsRef::as_ref);
    let Some(told) = told.filter(|it| it.x509_authorities().iter().any(|it| !it.is_tainted()))
    else {
        return given
            .map(Arc::new)
            .map_err(|message| UpstreamProblem::Bundle { message });
    };
    let is_tainted = |root: &&_| {
        let mut roots = told.x509_authorities().iter();
        roots.any(|it| it.is_tainted() && it.certificate() == *root)
    };
    let given = given.ok();
    let roots = told.roots().chain(given.iter().flat_map(Bundle::roots));
    let roots = roots.filter(|root| !is_tainted(root)).cloned();
    Bundle::new(told.trust_domain().clone(), roots, 0)
        .map(Arc::new)
        .map_err(|error| UpstreamProblem::Bundle {
            message: error.to_string(),
        })
}

/// The ID of the entry that makes the agent a server below.
fn choose(
    entries: Vec<Entry>,
    agent: &SpiffeId,
    wanted: Option<&SpiffeId>,
) -> Result<String, UpstreamProblem> {
    let id_of = |id: &Option<Spiffeid>| {
        let id = id.clone().unwrap_or_default();
        format!("spiffe://{}{}", id.trust_domain, id.path)
    };
    let mut found: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.downstream)
        .map(|entry| (id_of(&entry.spiffe_id), entry.id))
        .filter(|(id, _)| wanted.is_none_or(|wanted| id == wanted.as_str()))
        .collect();
    found.sort();
    // Two of one ID are as good as each other.
    found.dedup_by(|a, b| a.0 == b.0);
    if found.len() > 1 {
        let ids = found.iter().take(NAMED).map(|(id, _)| id.as_str());
        return Err(UpstreamProblem::SeveralDownstreamEntries {
            agent: agent.clone(),
            found: ids.collect::<Vec<_>>().join(", "),
        });
    }
    match found.pop() {
        Some((_, entry)) => Ok(entry),
        None => Err(UpstreamProblem::NoDownstreamEntry {
            agent: agent.clone(),
            wanted: wanted.map_or_else(String::new, |id| format!(" and the ID {id}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, downstream: bool) -> Entry {
        Entry {
            id: format!("entry-of-{path}"),
            spiffe_id: Some(Spiffeid {
                trust_domain: "example.org".into(),
                path: format!("/{path}"),
            }),
            downstream,
            ..Entry::default()
        }
    }

    #[test]
    fn of_several_entries_one_must_be_chosen() {
        let agent: SpiffeId = "spiffe://example.org/spire/agent/a".parse().unwrap();
        let other: SpiffeId = "spiffe://example.org/b".parse().unwrap();
        let reason = |entries: &[Entry], wanted| {
            let chosen = choose(entries.to_vec(), &agent, wanted);
            chosen.map_err(|problem| problem.reason())
        };
        let workload = entry("w", false);
        assert_eq!(reason(&[], None), Err("NoDownstreamEntry"));
        assert_eq!(
            reason(std::slice::from_ref(&workload), None),
            Err("NoDownstreamEntry")
        );
        let one = [workload, entry("a", true)];
        assert_eq!(reason(&one, None), Ok("entry-of-a".into()));
        assert_eq!(reason(&one, Some(&other)), Err("NoDownstreamEntry"));
        let two = [entry("a", true), entry("b", true)];
        assert_eq!(reason(&two, None), Err("SeveralDownstreamEntries"));
        assert_eq!(reason(&two, Some(&other)), Ok("entry-of-b".into()));
    }
}
