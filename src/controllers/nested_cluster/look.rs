//! What a reconcile of a NestedCluster sees, for its status.

use std::sync::Arc;

use kube::ResourceExt;

use crate::api::AttestedAgent;
use crate::clusters::identities::Identities;
use crate::controllers::nested_cluster::settings::ClusterSettings;
use crate::controllers::nested_cluster::status::{Problem, Seen};
use crate::controllers::nested_cluster::worker::Worker;
use crate::controllers::trust_domain::TRUST_DOMAIN_LABEL;
use crate::domains::label_value;
use crate::nested::kubeconfig::ChildKubeconfig;
use crate::registration::bounds::agents_cluster;

impl Worker {
    /// What was seen in a reconcile.
    pub(super) fn look(
        &self,
        settings: &ClusterSettings,
        identities: &Identities,
        kubeconfig_problem: Option<Problem>,
    ) -> Seen {
        let connected = self.connection.as_ref();
        let kubeconfig = connected.map(|connected| &connected.kubeconfig);
        let contact = connected.map(|it| it.connection.contact.borrow().clone());
        let agents = self.agents(&settings.domain, settings.scope.bounds.cluster_name());
        let uid = contact.as_ref().and_then(|contact| contact.uid.as_ref());
        let all = self.objects.all();
        let twin = all.iter().find(|other| {
            let found = other.status.as_ref().and_then(|it| it.cluster_uid.as_ref());
            other.spec.trust_domain_ref.name == settings.domain
                && other.name_any() != self.name
                && uid.is_some_and(|uid| found == Some(uid))
        });
        Seen {
            spec_problem: None,
            wired: None,
            twin: twin.map(|twin| twin.name_any()),
            kubeconfig_problem,
            is_connected: connected.is_some(),
            is_managed: settings.is_managed,
            server: kubeconfig.map(|it| it.server.url.as_str().to_owned()),
            expires_at: kubeconfig.and_then(ChildKubeconfig::credential_expires_at),
            contact: contact.unwrap_or_default(),
            published: connected.map(|it| it.connection.published.borrow().clone()),
            missing_rights: connected.and_then(|it| it.connection.missing.borrow().clone()),
            unseen: identities.missing(&settings.domain),
            is_open: settings.scope.bounds.is_open(),
            has_servers: settings.has_servers(),
            pods: identities.pod_count(&settings.domain),
            entries: identities.entry_count(&settings.domain),
            agents: agents.len(),
        }
    }

    /// The records of the cluster's agents.
    pub(super) fn agents(&self, domain: &str, cluster: &str) -> Vec<Arc<AttestedAgent>> {
        let domain = label_value(domain);
        let mut agents = self.context.caches.agents.all();
        agents.retain(|agent| {
            let id = agent.spec.id.parse().ok();
            agent.labels().get(TRUST_DOMAIN_LABEL) == Some(&domain)
                && id.is_some_and(|id| agents_cluster(&id) == Some(cluster))
        });
        agents
    }
}
