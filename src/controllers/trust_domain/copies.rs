//! Copies of the bundle in ConfigMaps: one in every wanted namespace, none elsewhere.
//!
//! Namespaces hold up nobody but themselves: each has its own outcome. Nothing is written or taken
//! away on an incomplete view of the cluster; that is for the caller to see to.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::api::BundleConfigMapSettings;
use crate::clusters::{CallError, call};
use crate::controllers::trust_domain::publish::{Outcome, Publication, remove};
use crate::controllers::trust_domain::published::{
    MANAGED_BY, Ownership, adopt, config_map, ownership,
};
use crate::controllers::trust_domain::worker::Watched;
use crate::runtime::leader::Leadership;

/// Namespaces that are worked on at the same time: some may answer late.
const CONCURRENCY: usize = 16;

/// The copies of one bundle.
#[derive(Clone, Copy)]
pub(super) struct Copies<'a> {
    pub(super) publication: Publication<'a>,
    pub(super) settings: &'a BundleConfigMapSettings,
    pub(super) watched: &'a Watched<ConfigMap>,
}

impl Copies<'_> {
    /// Whether RBAC keeps the copies from being seen at all.
    ///
    /// # Errors
    /// With what it says, or why it could not be asked.
    pub(super) async fn can_be_seen(&self) -> Result<(), Outcome> {
        let all = Api::<ConfigMap>::all(self.publication.client.clone());
        let named = format!("metadata.name={}", self.settings.name);
        let parameters = ListParams::default().fields(&named).limit(1);
        call(all.list(&parameters))
            .await
            .map(|_| ())
            .map_err(Outcome::from)
    }

    /// Brings about the copy in every namespace of `wanted`, and takes away ours elsewhere, for as
    /// long as this process leads. Gives what became of those that are not as they should be, by
    /// namespace.
    pub(super) async fn publish(
        &self,
        wanted: &BTreeSet<String>,
        leadership: &Leadership,
    ) -> Vec<(String, Outcome)> {
        let stale = self.watched.cache.all().into_iter().filter(|copy| {
            let namespace = copy.metadata.namespace.as_deref().unwrap_or_default();
            !wanted.contains(namespace)
                && ownership(&copy.metadata, self.publication.owner) == Ownership::Ours
        });
        let mut work: Vec<BoxFuture<'_, (String, Outcome)>> = Vec::new();
        work.extend(wanted.iter().map(|it| self.write(it.clone()).boxed()));
        work.extend(stale.map(|copy| self.take_away(copy).boxed()));
        let mut outcomes = Vec::new();
        let mut under_way = FuturesUnordered::new();
        for task in work {
            if !*leadership.borrow() {
                break;
            }
            if under_way.len() >= CONCURRENCY {
                outcomes.extend(under_way.next().await);
            }
            under_way.push(task);
        }
        while let Some(outcome) = under_way.next().await {
            outcomes.push(outcome);
        }
        let mut troubled: Vec<_> = outcomes
            .into_iter()
            .filter(|(_, outcome)| *outcome != Outcome::Published)
            .collect();
        troubled.sort_by(|a, b| a.0.cmp(&b.0));
        troubled
    }

    async fn write(&self, namespace: String) -> (String, Outcome) {
        let written = match self.bring_about(&namespace).await {
            // Somebody else wrote at the same time: what is there now decides.
            Err(error) if error.is_conflict() => self.bring_about(&namespace).await,
            outcome => outcome,
        };
        (namespace, written.unwrap_or_else(Outcome::from))
    }

    async fn take_away(&self, copy: Arc<ConfigMap>) -> (String, Outcome) {
        let namespace = copy.metadata.namespace.clone().unwrap_or_default();
        let removed = remove(&self.in_namespace(&namespace), &*copy).await;
        let outcome = removed.map_or_else(Outcome::from, |()| Outcome::Published);
        (namespace, outcome)
    }

    async fn bring_about(&self, namespace: &str) -> Result<Outcome, CallError> {
        let Publication {
            owner,
            bundle,
            edition,
            ..
        } = self.publication;
        let desired = config_map(self.settings, namespace, owner, bundle, edition);
        let known = self.watched.cache.get(namespace, &self.settings.name);
        if known.is_some_and(|known| {
            known.data == desired.data && adopt(&known.metadata, &desired.metadata).is_none()
        }) {
            return Ok(Outcome::Published);
        }
        let copies = self.in_namespace(namespace);
        let Some(existing) = call(copies.get_opt(&self.settings.name)).await? else {
            return self.create(&copies, &desired).await;
        };
        self.publication
            .correct(&copies, existing, &desired, |existing| {
                let drifted = existing.data != desired.data || existing.binary_data.is_some();
                existing.data.clone_from(&desired.data);
                existing.binary_data = None;
                drifted
            })
            .await
    }

    /// By server-side apply: RBAC knows the name of what is applied, but not of what is posted. That
    /// merges into an object that came in the meantime; what it added to somebody else's is taken
    /// back.
    async fn create(
        &self,
        copies: &Api<ConfigMap>,
        desired: &ConfigMap,
    ) -> Result<Outcome, CallError> {
        let name = &self.settings.name;
        let parameters = PatchParams::apply(MANAGED_BY);
        let applied = call(copies.patch(name, &parameters, &Patch::Apply(desired))).await?;
        if is_ours_alone(&applied.metadata) {
            return Ok(Outcome::Published);
        }
        let nothing = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        });
        call(copies.patch(name, &parameters, &Patch::Apply(&nothing))).await?;
        Ok(Outcome::NotOurs)
    }

    fn in_namespace(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.publication.client.clone(), namespace)
    }
}

/// Whether nobody but us has written an object, going by its managed fields.
fn is_ours_alone(metadata: &ObjectMeta) -> bool {
    let mut managers = metadata.managed_fields.iter().flatten();
    managers.all(|entry| entry.manager.as_deref() == Some(MANAGED_BY))
}
