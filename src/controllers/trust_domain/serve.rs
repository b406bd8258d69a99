//! Serving a trust domain: its authority, what it publishes, and its signer.
//!
//! The order is what makes it safe: a CA signs here only once its root was seen in the
//! ClusterTrustBundle of the signer, on this replica's own watch.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ApiResource;
use kube::{Client, ResourceExt};

use crate::api::{TrustDomain, TrustDomainStatus};
use crate::authority::{Authority, CertificateAuthority, Edition, Journal};
use crate::clusters::CallError;
use crate::controllers::trust_domain::authority::KeepError;
use crate::controllers::trust_domain::copies::Copies;
use crate::controllers::trust_domain::publish::{
    Outcome, Publication, later_edition, published_roots,
};
use crate::controllers::trust_domain::published::owner_reference;
use crate::controllers::trust_domain::reconcile::{ReconcileError, Reconciliation};
use crate::controllers::trust_domain::status::Seen;
use crate::controllers::trust_domain::upstream::wishes;
use crate::controllers::trust_domain::withdraw::{withdraw_bundle, withdraw_copies};
use crate::controllers::trust_domain::worker::Worker;
use crate::domains::{DomainSettings, cluster_trust_bundle_name};
use crate::runtime::clock;
use crate::spiffe::Fingerprint;
use crate::store::{AuthorityStore, SaveError};

impl Worker {
    /// The authority, what it publishes, and the signer.
    pub(super) async fn serve(
        &mut self,
        object: &TrustDomain,
        settings: &Arc<DomainSettings>,
        seen: &mut Seen,
    ) -> Result<Reconciliation, ReconcileError> {
        let kept = self.keep_authority(object, settings, seen).await;
        let authority = match self.authority.journal() {
            Some(journal) => {
                seen.journal(journal);
                Authority::from_journal(journal)
                    .map_err(|source| ReconcileError::Bundle { source })?
            }
            None => None,
        };
        let authority = authority.and_then(|authority| self.published(settings, authority));
        self.serving.clone_from(&authority);
        seen.signs = authority.is_some();
        let context = &self.context;
        self.server
            .run(context, object, settings, authority.as_ref());
        seen.listening = self.server.listening();
        self.sign_with(settings, authority);
        let outcome = kept?;
        if self.leads() {
            seen.missing_rights = self
                .rights
                .missing(&self.context.client, &settings.signer_name)
                .await
                .map_err(|source| ReconcileError::Rights { source })?;
            self.publish(object, settings, seen).await?;
        }
        Ok(outcome)
    }

    /// `authority`, if its root was published. Until that is seen, the one that served before goes on,
    /// if its root was and stays published.
    fn published(
        &mut self,
        settings: &DomainSettings,
        authority: Authority,
    ) -> Option<Arc<Authority>> {
        if self.is_published(settings, &authority) {
            return Some(Arc::new(authority));
        }
        let (signer_name, root) = self.published.as_ref()?;
        let before = self.serving.as_ref()?;
        let goes_on = *signer_name == settings.signer_name
            && Fingerprint::of(before.ca().certificates().root()) == *root
            && authority.still_trusts(before);
        goes_on.then(|| Arc::clone(before))
    }

    /// Whether the root of `authority` was seen in the ClusterTrustBundle of this signer. What was
    /// seen once counts from then on: a bundle that is spoilt or deleted is put right, and pods need
    /// not wait for that. Where the cluster has no such kind, the journal alone counts.
    fn is_published(&mut self, settings: &DomainSettings, authority: &Authority) -> bool {
        let Some(watched) = &self.cluster_trust_bundle else {
            return true;
        };
        let root = Fingerprint::of(authority.ca().certificates().root());
        let is_there = published_roots(watched, settings).contains(&root);
        let published = Some((settings.signer_name.clone(), root));
        if is_there {
            self.published.clone_from(&published);
        }
        self.published == published
    }

    /// Reads the authority's Secret; as the leader, also takes the authority forward.
    async fn keep_authority(
        &mut self,
        object: &TrustDomain,
        settings: &DomainSettings,
        seen: &mut Seen,
    ) -> Result<Reconciliation, ReconcileError> {
        let keep = |source| ReconcileError::Keep { source };
        let leads = self.leads();
        if leads && !self.led {
            // The watch may lag behind what the leader before wrote.
            self.authority.forget_version();
        }
        self.led = leads;
        let secret = AuthorityStore::secret_name(&self.name);
        let version = self
            .shared
            .secrets
            .get(&self.context.namespace, &secret)
            .and_then(|metadata| metadata.resource_version());
        seen.problem = self
            .authority
            .refresh(settings, version.as_deref())
            .await
            .map_err(keep)?;
        if !leads {
            self.upstream.stop();
            return Ok(Reconciliation::Settled);
        }
        if seen.problem.is_some() {
            return Ok(Reconciliation::Settled);
        }
        let now = clock::now();
        let candidate = match self
            .authority
            .candidate(settings, now)
            .await
            .map_err(keep)?
        {
            Ok(candidate) => candidate,
            Err(problem) => {
                seen.problem = Some(problem);
                None
            }
        };
        // Under the server above nothing is replaced that verifiers trust.
        if settings.upstream.is_none()
            && let Some(lost) = self.authority.lost(object, candidate.as_deref())
        {
            seen.problem.get_or_insert(lost);
            return Ok(Reconciliation::Settled);
        }
        let owner = owner_reference(object);
        if self.later_published(settings, &owner).is_some() {
            // By the lag of a watch, perhaps.
            self.authority.forget_version();
            seen.problem = self.authority.refresh(settings, None).await.map_err(keep)?;
            if seen.problem.is_some() {
                return Ok(Reconciliation::Settled);
            }
        }
        if let Some(later) = self.later_published(settings, &owner) {
            seen.problem = Some(self.authority.outdated(&later));
            return Ok(Reconciliation::Settled);
        }
        let published = self.confirmed_roots(settings);
        let (journal, signed) = self.ask_upstream(object, settings, &published, seen);
        let candidate = signed.or(candidate);
        let done = self
            .authority
            .take_forward(
                settings,
                journal,
                &published,
                candidate.as_ref(),
                &owner,
                now,
            )
            .await;
        match done {
            Ok(done) if done.is_empty() => Ok(Reconciliation::Settled),
            Ok(done) => {
                self.tell_steps(object, &done);
                Ok(Reconciliation::Again)
            }
            // Somebody else took it forward: read what they wrote.
            Err(KeepError::Save {
                source: SaveError::Conflict { .. },
            }) => {
                self.authority.forget_version();
                Ok(Reconciliation::Again)
            }
            Err(error) => Err(keep(error)),
        }
    }

    /// Asks the server above, where there is one, and gives the journal as it is with what that has
    /// told, and the CA that it has signed.
    fn ask_upstream(
        &mut self,
        object: &TrustDomain,
        settings: &DomainSettings,
        published: &BTreeSet<Fingerprint>,
        seen: &mut Seen,
    ) -> (Journal, Option<Arc<CertificateAuthority>>) {
        let now = clock::now();
        let journal = self.authority.journal_or_new(settings);
        let wishes = wishes(&journal, settings, published, now);
        let told = self.upstream.ask(&self.context, object, settings, wishes);
        let Some(told) = told else {
            return (journal, None);
        };
        let followed = told.bundle.as_ref().map(|it| journal.following(it, now));
        let (journal, refused) = match followed.transpose() {
            Ok(followed) => (followed.flatten().unwrap_or(journal), None),
            Err(refused) => (journal, Some(refused)),
        };
        seen.upstream(told.outcome, refused, journal.active().is_some());
        (journal, told.ca)
    }

    /// The edition in the ClusterTrustBundle, where that is later than the journal's.
    fn later_published(
        &self,
        settings: &DomainSettings,
        owner: &OwnerReference,
    ) -> Option<Edition> {
        let name = cluster_trust_bundle_name(&settings.signer_name);
        let published = self.cluster_trust_bundle.as_ref()?.cache.get("", &name)?;
        let journal = self.authority.journal()?;
        later_edition(
            &published,
            owner,
            &journal.edition()?,
            &journal.bundle().ok()?,
        )
    }

    /// The roots that verifiers are known to have. Where the cluster has no ClusterTrustBundles,
    /// what is in the journal counts as published; copies are not waited for, since whoever owns a
    /// namespace could then hold up the trust domain.
    fn confirmed_roots(&self, settings: &DomainSettings) -> BTreeSet<Fingerprint> {
        match &self.cluster_trust_bundle {
            Some(watched) => published_roots(watched, settings),
            None => {
                let bundle = self
                    .authority
                    .journal()
                    .and_then(|journal| journal.bundle().ok());
                bundle
                    .map(|bundle| bundle.fingerprints().collect())
                    .unwrap_or_default()
            }
        }
    }

    /// Publishes the bundle. Its news comes back by the watch and lets the authority go forward.
    async fn publish(
        &mut self,
        object: &TrustDomain,
        settings: &DomainSettings,
        seen: &mut Seen,
    ) -> Result<(), ReconcileError> {
        let api = self
            .context
            .certificates_api
            .borrow()
            .clone()
            .unwrap_or_default();
        seen.serves_pod_certificate_requests = api.pod_certificate_requests.is_some();
        let Some(journal) = self.authority.journal() else {
            return Ok(());
        };
        let bundle = journal
            .bundle()
            .map_err(|source| ReconcileError::Bundle { source })?;
        let Some(edition) = journal.edition() else {
            return Ok(());
        };
        if bundle.roots().next().is_none() {
            return Ok(());
        }
        self.tell_many_jwt_keys(object, bundle.jwt_keys().len());
        let client = self.context.client.clone();
        let owner = owner_reference(object);
        let before = object.status.clone().unwrap_or_default();
        let resource = api.cluster_trust_bundles.as_ref();
        let publication = Publication {
            client: &client,
            owner: &owner,
            bundle: &bundle,
            edition: &edition,
        };
        if let Some(resource) = resource {
            let watched = self.cluster_trust_bundle.as_ref();
            let outcome = publication
                .cluster_trust_bundle(resource, watched, settings)
                .await;
            let is_ahead = matches!(outcome, Outcome::Ahead(_));
            seen.cluster_trust_bundle = Some(outcome);
            if is_ahead {
                // Somebody wrote a later journal, or the Secret was restored from an old backup.
                return Ok(());
            }
        }
        self.publish_copies(publication, settings, seen).await;
        seen.withdrawn = withdraw(&client, resource, &before, settings, &owner, seen)
            .await
            .map_err(|error| error.message())
            .transpose();
        Ok(())
    }

    /// Publishes the copies once the cluster's namespaces, and the copies that there are, are known
    /// completely: one that was not seen yet is not one that is gone.
    async fn publish_copies(
        &mut self,
        publication: Publication<'_>,
        settings: &DomainSettings,
        seen: &mut Seen,
    ) {
        let (Some(wishes), Some(watched)) = (&settings.bundle_config_maps, &self.config_maps)
        else {
            return;
        };
        let selector = wishes.namespace_selector.as_ref();
        let wanted = match self.context.identities.namespaces_matching(selector) {
            Ok(wanted) => wanted,
            Err(problem) => {
                seen.config_map_problem = Some(problem);
                return;
            }
        };
        let Some(wanted) = wanted else {
            return;
        };
        let copies = Copies {
            publication,
            settings: wishes,
            watched,
        };
        if !watched.cache.is_complete() {
            match copies.can_be_seen().await {
                Ok(()) if self.copies_are_hidden => {
                    // The right was given: a new watch need not wait out the pause of this one.
                    self.copies_are_hidden = false;
                    self.config_maps = None;
                    self.watch_published(settings);
                }
                Ok(()) => {}
                Err(outcome) => {
                    self.copies_are_hidden = true;
                    let troubled = wanted.into_iter().map(|it| (it, outcome.clone()));
                    seen.troubled_config_maps = troubled.collect();
                }
            }
            return;
        }
        seen.troubled_config_maps = copies.publish(&wanted, &self.context.leadership).await;
        seen.config_maps = Some(wanted.len());
    }
}

/// Takes away what is published under earlier names, where what takes its place was published as
/// `seen`. Says nothing while something must stay.
async fn withdraw(
    client: &Client,
    resource: Option<&ApiResource>,
    before: &TrustDomainStatus,
    settings: &DomainSettings,
    owner: &OwnerReference,
    seen: &Seen,
) -> Result<Option<()>, CallError> {
    if let Some(resource) = resource {
        if seen.cluster_trust_bundle != Some(Outcome::Published) {
            return Ok(None);
        }
        withdraw_bundle(client, resource, before, settings, owner).await?;
    }
    if settings.bundle_config_maps.is_some() && seen.config_maps.is_none() {
        return Ok(None);
    }
    let troubled = seen.troubled_config_maps.iter();
    let keep = troubled.map(|(namespace, _)| &**namespace).collect();
    let is_done = withdraw_copies(client, before, settings, owner, &keep).await?;
    Ok(is_done.then_some(()))
}
