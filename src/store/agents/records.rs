//! The records of one trust domain's agents: reading and writing them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::timeout;

use super::decide::{self, Attestation, PresentedSvid, Verdict};
use super::{AgentCache, AgentDenial, AgentError, AgentFilter};
use crate::api::{AttestedAgent, AttestedAgentSpec};
use crate::clusters::{CallError, call};
use crate::domains::agent_object_name;
use crate::spiffe::{SpiffeId, TrustDomainName};
use crate::store::{is_to_be_owned_otherwise, label_selector};

/// Below which path agents have their SPIFFE IDs.
const AGENTS: &str = "/spire/agent/";
/// How often a write is decided anew because somebody else was faster.
const ATTEMPTS: usize = 8;
/// Records that are asked for at a time.
const PAGE: usize = 500;
/// How long a write waits for the watch to have seen it.
const SETTLE: Duration = Duration::from_secs(2);

/// The records of one trust domain's agents.
#[derive(Clone)]
pub struct AgentStore {
    agents: Api<AttestedAgent>,
    cache: Arc<AgentCache>,
    trust_domain: TrustDomainName,
    labels: BTreeMap<String, String>,
    owner: Option<OwnerReference>,
}

/// Some of the agents that were asked for.
#[derive(Debug)]
pub struct AgentPage {
    /// Their records.
    pub agents: Vec<AttestedAgentSpec>,
    /// What to ask with for those that follow; none when there are no more.
    pub next: Option<String>,
}

impl AgentStore {
    /// The agents of `trust_domain`, whose records have these `labels`, and go with the `owner`
    /// where one is given.
    #[must_use]
    pub fn new(
        client: Client,
        cache: Arc<AgentCache>,
        trust_domain: TrustDomainName,
        labels: BTreeMap<String, String>,
        owner: Option<OwnerReference>,
    ) -> Self {
        Self {
            agents: Api::all(client),
            cache,
            trust_domain,
            labels,
            owner,
        }
    }

    /// Whether the agent `id` may act with `svid`; gives its record.
    ///
    /// # Errors
    /// [`AgentError::Denied`] when it may not; other errors when that cannot be known now.
    pub async fn check(
        &self,
        id: &SpiffeId,
        svid: &PresentedSvid,
        now: Timestamp,
    ) -> Result<Arc<AttestedAgent>, AgentError> {
        if decide::is_expired(svid, now) {
            return Err(AgentDenial::Expired.into());
        }
        if !id.path().starts_with(AGENTS) {
            return Err(AgentDenial::NotAttested.into());
        }
        let name = agent_object_name(id);
        if let Some(known) = self.cache.get("", &name)
            && known.spec.id == id.as_str()
            && decide::is_current(&known.spec, svid)
        {
            return Ok(known);
        }
        for _ in 0..ATTEMPTS {
            let found = self.read(id).await?;
            match (
                decide::judge(found.as_ref().map(|it| &it.spec), svid),
                found,
            ) {
                (Verdict::Denied(reason), _) => return Err(reason.into()),
                (Verdict::Active, Some(found)) => return Ok(Arc::new(found)),
                (Verdict::Promote, Some(mut found)) => {
                    decide::promote(&mut found.spec);
                    if let Some(stored) = self.replace(&found).await? {
                        return Ok(Arc::new(stored));
                    }
                }
                (_, None) => return Err(AgentError::NotFound),
            }
        }
        Err(AgentError::Contended)
    }

    /// Records that an agent attested. From then on it acts with the X.509-SVID of the
    /// `attestation` and no other.
    ///
    /// # Errors
    /// [`AgentDenial::Banned`], [`AgentError::AttestedOtherwise`], or when the record cannot be
    /// written.
    pub async fn attest(&self, attestation: &Attestation) -> Result<AttestedAgent, AgentError> {
        for _ in 0..ATTEMPTS {
            let stored = match self.read(&attestation.id).await? {
                Some(before) if before.spec.banned => return Err(AgentDenial::Banned.into()),
                Some(before) if before.spec.attestation_type != attestation.attestation_type => {
                    let attestation_type = before.spec.attestation_type;
                    return Err(AgentError::AttestedOtherwise { attestation_type });
                }
                Some(mut before) => {
                    let spec = Some(before.spec);
                    before.spec = decide::attested(spec, &self.trust_domain, attestation);
                    before.metadata.labels = Some(self.labels.clone());
                    before.metadata.owner_references = self.owners();
                    self.replace(&before).await?
                }
                None => {
                    let spec = decide::attested(None, &self.trust_domain, attestation);
                    self.create(&attestation.id, spec).await?
                }
            };
            if let Some(stored) = stored {
                return Ok(stored);
            }
        }
        Err(AgentError::Contended)
    }

    /// Records that the agent `id`, which showed `presented`, got `svid` by renewal. It counts from
    /// its first use on.
    ///
    /// # Errors
    /// [`AgentError::NotFound`], [`AgentError::Denied`], or when the record cannot be written.
    pub async fn renew(
        &self,
        id: &SpiffeId,
        presented: &PresentedSvid,
        svid: &PresentedSvid,
    ) -> Result<(), AgentError> {
        let renew = |agent: &mut AttestedAgentSpec| {
            decide::may_renew(agent, presented)?;
            decide::renew(agent, svid);
            Ok(())
        };
        self.change(id, renew).await.map(|_| ())
    }

    /// Records the version that the agent `id` says it has.
    ///
    /// # Errors
    /// [`AgentError::NotFound`], or when the record cannot be written.
    pub async fn post_status(&self, id: &SpiffeId, version: &str) -> Result<(), AgentError> {
        let post = |agent: &mut AttestedAgentSpec| {
            agent.agent_version = Some(version.into());
            Ok(())
        };
        self.change(id, post).await.map(|_| ())
    }

    /// Bans the agent `id`.
    ///
    /// # Errors
    /// [`AgentError::NotFound`], or when the record cannot be written.
    pub async fn ban(&self, id: &SpiffeId) -> Result<(), AgentError> {
        let ban = |agent: &mut AttestedAgentSpec| {
            decide::ban(agent);
            Ok(())
        };
        let banned = self.change(id, ban).await?;
        let is_seen = |known: Option<&AttestedAgent>| {
            known.is_none_or(|known| known.uid() != banned.uid() || known.spec.banned)
        };
        self.settle(id, is_seen).await;
        Ok(())
    }

    /// Evicts the agent `id`: it must attest again. That lifts a ban, too.
    ///
    /// # Errors
    /// [`AgentError::NotFound`], or when the record cannot be deleted.
    pub async fn evict(&self, id: &SpiffeId) -> Result<(), AgentError> {
        let agent = self.read(id).await?.ok_or(AgentError::NotFound)?;
        let preconditions = Preconditions {
            uid: agent.uid(),
            resource_version: None,
        };
        if !self.delete(&agent.name_any(), preconditions).await? {
            return Err(AgentError::NotFound);
        }
        let is_seen =
            |known: Option<&AttestedAgent>| known.is_none_or(|known| known.uid() != agent.uid());
        self.settle(id, is_seen).await;
        Ok(())
    }

    /// The record of the agent `id`, as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get(&self, id: &SpiffeId) -> Result<Option<AttestedAgentSpec>, AgentError> {
        Ok(self.read(id).await?.map(|agent| agent.spec))
    }

    /// The agents that `filter` allows, as they are now: at most `size` of them where one is given,
    /// from where an earlier page ended.
    ///
    /// # Errors
    /// When they cannot be read, or `start` is of no page, or of one too long ago.
    pub async fn list(
        &self,
        filter: &AgentFilter,
        size: Option<NonZeroUsize>,
        start: Option<&str>,
    ) -> Result<AgentPage, CallError> {
        let size = size.map(NonZeroUsize::get);
        let mut agents = Vec::new();
        let mut next = start.map(str::to_owned);
        loop {
            let room = size.map_or(PAGE, |size| size.saturating_sub(agents.len()).min(PAGE));
            let parameters = ListParams {
                label_selector: Some(label_selector(&self.labels)),
                limit: u32::try_from(room).ok(),
                continue_token: next,
                ..ListParams::default()
            };
            let page = call(self.agents.list(&parameters)).await?;
            next = page.metadata.continue_.filter(|token| !token.is_empty());
            let of_domain = page.items.into_iter().filter(|it| self.is_record(it));
            let specs = of_domain.map(|agent| agent.spec);
            agents.extend(specs.filter(|agent| filter.allows(agent)));
            if next.is_none() || size.is_some_and(|size| agents.len() >= size) {
                return Ok(AgentPage { agents, next });
            }
        }
    }

    /// How many agents `filter` allows, as they are now.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn count(&self, filter: &AgentFilter) -> Result<usize, CallError> {
        Ok(self.list(filter, None, None).await?.agents.len())
    }

    /// How many agents are known, as far as the watch has seen.
    #[must_use]
    pub fn known(&self) -> usize {
        let known = self.cache.all();
        known.iter().filter(|agent| self.is_record(agent)).count()
    }

    /// The agents whose records say that an entry is pending, as far as the watch has seen.
    pub(super) fn pending_aliases(&self) -> Vec<SpiffeId> {
        let known = self.cache.all();
        let pending = known
            .iter()
            .filter(|agent| agent.spec.pending_alias.is_some() && self.is_record(agent));
        pending
            .filter_map(|agent| agent.spec.id.parse().ok())
            .collect()
    }

    pub(super) fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// Takes from banned agents what they acted by, so that it stays dead when the ban is lifted:
    /// whoever bans by `kubectl` sets a flag only.
    ///
    /// # Errors
    /// When a record cannot be written; that is left for the next time, and no other.
    pub async fn disarm_banned(&self) -> Result<(), CallError> {
        let mut outcome = Ok(());
        for agent in self.cache.all() {
            if !decide::is_to_disarm(&agent.spec) || !self.is_record(&agent) {
                continue;
            }
            let mut disarmed = AttestedAgent::clone(&agent);
            decide::ban(&mut disarmed.spec);
            outcome = outcome.and(self.replace(&disarmed).await.map(drop));
        }
        outcome
    }

    /// Has the records go with the owner, or stay without it, as is wished by now.
    ///
    /// # Errors
    /// When a record cannot be written; that is left for the next time, and no other.
    pub async fn correct_owners(&self) -> Result<(), CallError> {
        let mut outcome = Ok(());
        for agent in self.cache.all() {
            if !is_to_be_owned_otherwise(agent.meta(), &self.labels, self.owner.as_ref()) {
                continue;
            }
            let mut corrected = AttestedAgent::clone(&agent);
            corrected.metadata.owner_references = self.owners();
            outcome = outcome.and(self.replace(&corrected).await.map(drop));
        }
        outcome
    }

    /// Deletes the records of agents whose last X.509-SVID ended before `moment`, and says how many.
    /// Banned ones stay.
    ///
    /// # Errors
    /// When one cannot be deleted; the others are left for the next time.
    pub async fn prune(&self, moment: Timestamp) -> Result<usize, CallError> {
        let mut pruned = 0;
        for agent in self.cache.all() {
            if !decide::is_to_prune(&agent.spec, moment) || !self.is_record(&agent) {
                continue;
            }
            let preconditions = Preconditions {
                uid: agent.uid(),
                resource_version: agent.resource_version(),
            };
            let name = agent.name_any();
            pruned += usize::from(self.delete(&name, preconditions).await?);
        }
        Ok(pruned)
    }

    /// Changes the record of the agent `id` and gives what is stored then.
    pub(super) async fn change(
        &self,
        id: &SpiffeId,
        change: impl Fn(&mut AttestedAgentSpec) -> Result<(), AgentDenial>,
    ) -> Result<AttestedAgent, AgentError> {
        for _ in 0..ATTEMPTS {
            let mut agent = self.read(id).await?.ok_or(AgentError::NotFound)?;
            let before = agent.spec.clone();
            change(&mut agent.spec)?;
            if agent.spec == before {
                return Ok(agent);
            }
            if let Some(stored) = self.replace(&agent).await? {
                return Ok(stored);
            }
        }
        Err(AgentError::Contended)
    }

    /// The record as the API server has it.
    pub(super) async fn read(&self, id: &SpiffeId) -> Result<Option<AttestedAgent>, AgentError> {
        let name = agent_object_name(id);
        let Some(agent) = call(self.agents.get_opt(&name)).await? else {
            return Ok(None);
        };
        if agent.spec.id != id.as_str() {
            let id = id.to_string();
            return Err(AgentError::Misnamed { name, id });
        }
        Ok(Some(agent))
    }

    /// None when somebody else was faster.
    async fn create(
        &self,
        id: &SpiffeId,
        spec: AttestedAgentSpec,
    ) -> Result<Option<AttestedAgent>, CallError> {
        let agent = AttestedAgent {
            metadata: ObjectMeta {
                name: Some(agent_object_name(id)),
                labels: Some(self.labels.clone()),
                owner_references: self.owners(),
                ..ObjectMeta::default()
            },
            spec,
        };
        match call(self.agents.create(&PostParams::default(), &agent)).await {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// None when somebody else was faster.
    async fn replace(&self, agent: &AttestedAgent) -> Result<Option<AttestedAgent>, CallError> {
        let parameters = PostParams::default();
        let name = agent.name_any();
        unless_outrun(call(self.agents.replace(&name, &parameters, agent)).await)
    }

    /// Whether there was something to delete.
    async fn delete(&self, name: &str, preconditions: Preconditions) -> Result<bool, CallError> {
        let parameters = DeleteParams::default().preconditions(preconditions);
        let outcome = unless_outrun(call(self.agents.delete(name, &parameters)).await)?;
        Ok(outcome.is_some())
    }

    /// Waits until the watch has seen what was written, so that this replica refuses the agent from
    /// then on. Where the watch lags, other replicas would say the same for as long.
    async fn settle(&self, id: &SpiffeId, is_seen: impl Fn(Option<&AttestedAgent>) -> bool) {
        let name = agent_object_name(id);
        let mut changes = self.cache.changes();
        let seen = async {
            while !is_seen(self.cache.get("", &name).as_deref()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(SETTLE, seen).await.is_err() {
            tracing::warn!(%id, "the watch of AttestedAgents lags behind");
        }
    }

    fn owners(&self) -> Option<Vec<OwnerReference>> {
        self.owner.clone().map(|owner| vec![owner])
    }

    /// Whether `agent` is the record of an agent of this trust domain, under its right name.
    fn is_record(&self, agent: &AttestedAgent) -> bool {
        let id = agent.spec.id.parse::<SpiffeId>();
        id.is_ok_and(|id| {
            id.is_member_of(&self.trust_domain)
                && agent.meta().name.as_deref() == Some(&agent_object_name(&id))
        })
    }
}

/// None for the answers that say that somebody else wrote or deleted first.
fn unless_outrun<T>(outcome: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match outcome {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
