//! The clusters that are nested in this one, which is the local one: each has identities of its own,
//! behind a lock of its own, so that none waits for another.
//!
//! Their pods are registered by the ClusterSPIFFEIDs of this cluster: what is taken in here of those,
//! of trust domains and of foreign bundles is handed on. Invariants: a lock of a nested cluster is
//! taken after those of this one, never before, and what is handed on is noted here first; one that has not been seen keeps nobody waiting but
//! its own agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::clusters::identities::objects::Objects;
use crate::clusters::identities::start::List;
use crate::clusters::identities::{Identities, ObjectName, State};
use crate::registration::bounds::{DeclaredBy, NestedScope, agents_cluster};
use crate::registration::{ClusterSpiffeIdReport, Settings, SettingsError, SourceKind};
use crate::spiffe::SpiffeId;

/// The nested clusters.
pub(super) type Members = RwLock<BTreeMap<MemberName, Member>>;

/// A nested cluster.
#[derive(Debug)]
pub(super) struct Member {
    /// UID of the object that nests it.
    owner: Arc<str>,
    /// Whether what registers pods in this cluster does so there, too.
    takes_parents: bool,
    identities: Arc<Identities>,
}

/// What a nested cluster is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberName {
    /// Name of the TrustDomain object that it belongs to.
    domain: Arc<str>,
    /// What its agents call it.
    cluster: Arc<str>,
}

impl MemberName {
    fn new(domain: &str, cluster: &str) -> Self {
        Self {
            domain: domain.into(),
            cluster: cluster.into(),
        }
    }
}

impl Identities {
    /// Takes in that the object with the UID `owner` nests a cluster in this one, for the TrustDomain
    /// object `domain`; gives its identities. What registers pods there, `scope` says. What another
    /// object nested under the same name, or this one with another say in what is declared there, is
    /// forgotten.
    ///
    /// # Errors
    /// When the trust domain cannot be served there; what was served before goes on.
    pub fn nest(
        &self,
        domain: &str,
        owner: &str,
        scope: &NestedScope,
    ) -> Result<Arc<Self>, SettingsError> {
        let name = MemberName::new(domain, scope.bounds.cluster_name());
        // Nobody else waits while the cluster is busy.
        if let Some(known) = self.member_of(&name, owner, &scope.declared_by) {
            known.set_scope(scope)?;
            return Ok(known);
        }
        let mut members = self.members_mut();
        let identities = Arc::new(self.member(scope));
        let spec = {
            let state = self.lock();
            let served = state.domains.get(domain);
            served.map(|served| served.spec.clone())
        };
        if let Some(spec) = spec {
            identities.set_domain(domain, &spec)?;
        }
        let member = Member {
            owner: owner.into(),
            takes_parents: scope.declared_by.parent(),
            identities: Arc::clone(&identities),
        };
        members.insert(name, member);
        self.reports.notify_one();
        Ok(identities)
    }

    /// The object with the UID `owner` nests its cluster in this one no more.
    pub fn unnest(&self, domain: &str, cluster: &str, owner: &str) {
        let name = MemberName::new(domain, cluster);
        let member = {
            let mut members = self.members_mut();
            let is_owner = members.get(&name).is_some_and(|it| *it.owner == *owner);
            is_owner.then(|| members.remove(&name)).flatten()
        };
        let Some(Member { identities, .. }) = member else {
            return;
        };
        // Their counts are others now.
        let mut state = self.lock();
        let objects = identities.lock().objects.names();
        state.unreported.extend(objects);
        self.reports.notify_one();
    }

    /// All NestedClusters there are have been given to [`Self::nest`].
    pub fn nested_clusters_listed(&self) {
        self.listed(List::NestedClusters);
    }

    /// Identities of a nested cluster that has not been seen, with the registering objects of this
    /// one.
    fn member(&self, scope: &NestedScope) -> Self {
        let state = self.lock();
        let mut unlisted: BTreeSet<_> = List::OF_PODS.into();
        unlisted.extend(state.unlisted.intersection(&List::HANDED_ON.into()));
        let objects = if scope.declared_by.parent() {
            state.objects.handed_on()
        } else {
            Objects::default()
        };
        let member = Self::new(Arc::clone(&self.metrics));
        *member.lock() = State {
            objects,
            unlisted,
            scope: Some(scope.clone()),
            ..State::default()
        };
        let foreign = self.foreign_bundles.borrow().clone();
        member.foreign_bundles.send_replace(foreign);
        Self {
            reports: Arc::clone(&self.reports),
            wanting: Arc::clone(&self.wanting),
            ..member
        }
    }

    fn member_of(
        &self,
        name: &MemberName,
        owner: &str,
        declared_by: &DeclaredBy,
    ) -> Option<Arc<Self>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let is_it = |it: &&Member| *it.owner == *owner && it.takes_parents == declared_by.parent();
        let member = members.get(name).filter(is_it)?;
        Some(Arc::clone(&member.identities))
    }

    /// Hands something on to the nested clusters.
    pub(super) fn hand_on(&self, mut each: impl FnMut(&Self)) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.values().for_each(|member| each(&member.identities));
    }

    /// Hands something that registers pods on to the nested clusters where it does.
    pub(super) fn hand_registration_on(&self, mut each: impl FnMut(&Self)) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let members = members.values().filter(|member| member.takes_parents);
        members.for_each(|member| each(&member.identities));
    }

    /// The nested clusters of a TrustDomain object.
    pub(super) fn members_of(&self, domain: &str) -> Vec<Arc<Self>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let members = members.iter();
        members
            .filter(|(name, _)| *name.domain == *domain)
            .map(|(_, member)| Arc::clone(&member.identities))
            .collect()
    }

    /// The nested cluster that an agent is in.
    pub(super) fn cluster_of(&self, domain: &str, agent: &SpiffeId) -> Option<Arc<Self>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let member = members.get(&MemberName::new(domain, agents_cluster(agent)?))?;
        Some(Arc::clone(&member.identities))
    }

    /// What was made of a ClusterSPIFFEID in nested clusters that are settled: TrustDomain object,
    /// name of the cluster, and report.
    pub(super) fn reports_of_members(
        &self,
        object: &ObjectName,
    ) -> Vec<(Arc<str>, Arc<str>, ClusterSpiffeIdReport)> {
        if object.kind != SourceKind::ClusterSpiffeId {
            return Vec::new();
        }
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let reports = members.iter().filter_map(|(name, member)| {
            let state = member.identities.lock();
            let served = state.domains.get(&name.domain).filter(|it| it.is_settled)?;
            let report = served.registry.report_of_cluster_spiffe_id(&object.name)?;
            Some((Arc::clone(&name.domain), Arc::clone(&name.cluster), report))
        });
        reports.collect()
    }

    fn members_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<MemberName, Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another scope holds from now on.
    fn set_scope(&self, scope: &NestedScope) -> Result<(), SettingsError> {
        let mut state = self.lock();
        if state.scope.as_ref() == Some(scope) {
            return Ok(());
        }
        state.scope = Some(scope.clone());
        for (name, domain) in &mut state.domains {
            let settings = Settings::parse(&domain.spec)?.within(scope);
            let changes = domain.registry.set_settings(settings);
            self.publish(name, domain, changes);
        }
        self.settle(&mut state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::clusters::identities::ObjectReport;
    use crate::nested::AllowedNames;
    use crate::registration::bounds::ClusterBounds;
    use crate::registration::{DownstreamServers, Right, ServerPods, SvidFetcher};
    use crate::runtime::metrics::Metrics;

    fn object<T: DeserializeOwned>(json: Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    fn spec(json: &Value) -> crate::api::TrustDomainSpec {
        let mut spec = json!({
            "trustDomain": "e.org", "clusterName": "root", "authority": {"selfSigned": {}},
        });
        let more = json.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        object(spec)
    }

    /// A cluster that was seen, without pods, which serves the TrustDomain `e`.
    fn root() -> Identities {
        let identities = Identities::new(Arc::new(Metrics::new()));
        identities.set_domain("e", &spec(&json!({}))).unwrap();
        for list in List::ALL {
            identities.listed(list);
        }
        identities
    }

    fn bounds(cluster: &str, ids: &[&str]) -> NestedScope {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        let allowed = AllowedNames::parse((!ids.is_empty()).then_some(&ids), None).unwrap();
        NestedScope {
            bounds: ClusterBounds::new(cluster, allowed),
            declared_by: DeclaredBy::Parent,
        }
    }

    /// A ClusterSPIFFEID for all pods, with its name as its UID.
    fn register(identities: &Identities, name: &str, template: &str) {
        let object = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterSPIFFEID",
            "metadata": {
                "name": name, "uid": name, "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"spiffeIDTemplate": template},
        });
        identities.apply_cluster_spiffe_id(&Arc::new(self::object(object)));
    }

    /// The watches of the cluster show the pod `p` on the node `node`.
    fn see(identities: &Identities) {
        let namespace: Namespace = object(json!({"metadata": {"name": "shop"}}));
        identities.apply_namespace(&namespace);
        let node: Node = object(json!({"metadata": {"name": "node", "uid": "node-uid"}}));
        identities.apply_node(&node);
        let pod: Pod = object(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "p"},
            "spec": {"containers": [], "nodeName": "node", "serviceAccountName": "sa"},
        }));
        identities.apply_pod(&pod);
        List::OF_PODS
            .into_iter()
            .for_each(|list| identities.listed(list));
        while identities.process_slice() {}
    }

    fn agent(cluster: &str) -> SpiffeId {
        let id = format!("spiffe://e.org/spire/agent/k8s_psat/{cluster}/node-uid");
        id.parse().unwrap()
    }

    fn entries_of(identities: &Identities, cluster: &str) -> Result<Vec<String>, String> {
        let entries = identities.authorized_entries("e", &agent(cluster), &BTreeSet::new());
        let entries = entries.map_err(|error| error.to_string())?;
        Ok(entries
            .iter()
            .map(|it| it.spiffe_id.path().to_owned())
            .collect())
    }

    const TEMPLATE: &str = "spiffe://{{ .TrustDomain }}/{{ .ClusterName }}/{{ .PodMeta.Name }}";

    #[test]
    fn pods_of_a_nested_cluster_are_registered_under_its_name() {
        let root = root();
        register(&root, "before", TEMPLATE);
        let child = root.nest("e", "uid", &bounds("child01", &[])).unwrap();
        see(&child);
        register(&root, "later", "spiffe://e.org/later/{{ .ClusterName }}");
        while child.process_slice() {}
        let mut found = entries_of(&root, "child01").unwrap();
        found.sort_unstable();
        assert_eq!(found, ["/child01/p", "/later/child01"]);
        assert_eq!(entries_of(&root, "root").unwrap(), [""; 0]);
        assert_eq!(entries_of(&root, "child02").unwrap(), [""; 0]);
        assert_eq!(root.entry_count("e"), 2);
        assert_eq!(child.pod("e", "p").entries.len(), 2, "for pod certificates");
        let all = root.entries_after("e", None, 1).unwrap();
        let rest = root.entries_after("e", Some(&all[0].id), 9).unwrap();
        assert_eq!((all.len(), rest.len()), (1, 1));
        let found = root.entry("e", &rest[0].id).unwrap().unwrap();
        assert_eq!(root.same_entry("e", &found).unwrap(), Some(found));
        root.delete_cluster_spiffe_id("later");
        while child.process_slice() {}
        assert_eq!(entries_of(&root, "child01").unwrap(), ["/child01/p"]);
        root.unnest("e", "child01", "uid");
        assert_eq!(entries_of(&root, "child01").unwrap(), [""; 0]);
    }

    #[test]
    fn of_a_cluster_with_servers_nothing_but_those_is_registered() {
        for (fetched_by, agent) in [
            (SvidFetcher::Server, "child01/pod/p"),
            (SvidFetcher::NodeAgent, "child01/node-uid"),
        ] {
            let root = root();
            register(&root, "all", TEMPLATE);
            let servers = |account: &str| NestedScope {
                declared_by: servers(account, fetched_by),
                ..bounds("child01", &[])
            };
            let child = root.nest("e", "uid", &servers("shop:other")).unwrap();
            see(&child);
            register(&root, "later", TEMPLATE);
            while child.process_slice() {}
            assert_eq!(root.entry_count("e"), 0);
            let again = root.nest("e", "uid", &servers("shop:sa")).unwrap();
            assert!(Arc::ptr_eq(&again, &child));
            while child.process_slice() {}
            let agent = format!("spiffe://e.org/spire/agent/k8s_psat/{agent}");
            let agent = agent.parse().unwrap();
            let found = root.authorized_entries("e", &agent, &BTreeSet::new());
            let found = found.unwrap().remove(0);
            assert_eq!(found.spiffe_id.path(), "/nested/child01");
            assert!(found.downstream && !found.admin);
            let selectors: Vec<_> = found.selectors.iter().map(ToString::to_string).collect();
            assert_eq!(selectors, ["k8s:pod-uid:p", "k8s:ns:shop", "k8s:sa:sa"]);
            assert_eq!(
                root.has_entry("e", &found.spiffe_id, Right::Downstream),
                Ok(true)
            );
            root.set_domain("e", &spec(&json!({"className": "another"})))
                .unwrap();
            while child.process_slice() {}
            assert_eq!(root.entry_count("e"), 1, "it has no class");
            let all = root.nest("e", "uid", &bounds("child01", &[])).unwrap();
            assert!(!Arc::ptr_eq(&all, &child), "it begins anew");
        }
    }

    fn servers(account: &str, fetched_by: SvidFetcher) -> DeclaredBy {
        let pods = ServerPods {
            service_accounts: BTreeSet::from([account.to_owned()]),
            fetched_by,
        };
        let source = ("child01", "uid", 0);
        let trust_domain = "e.org".parse().unwrap();
        let servers = DownstreamServers::new(source, pods, Some("2h"), &trust_domain);
        DeclaredBy::Servers(servers.unwrap())
    }

    #[test]
    fn a_cluster_that_was_not_seen_keeps_its_own_agents_waiting_and_nobody_else() {
        let root = root();
        register(&root, "all", TEMPLATE);
        let child = root.nest("e", "uid", &bounds("child01", &[])).unwrap();
        let unseen = entries_of(&root, "child01").unwrap_err();
        assert!(unseen.contains("not listed yet"), "{unseen}");
        assert_eq!(entries_of(&root, "root"), Ok(Vec::new()));
        assert_eq!(entries_of(&root, "child02"), Ok(Vec::new()));
        assert!(root.entries_after("e", None, 9).is_ok());
        let id = "spiffe://e.org/admin".parse().unwrap();
        assert!(
            root.has_entry("e", &id, Right::Admin).is_err(),
            "it may be there"
        );
        see(&child);
        assert_eq!(entries_of(&root, "child01").unwrap(), ["/child01/p"]);
        assert_eq!(root.has_entry("e", &id, Right::Admin), Ok(false));
    }

    #[test]
    fn the_lists_that_count_everywhere_count_in_nested_clusters() {
        let root = Identities::new(Arc::new(Metrics::new()));
        root.set_domain("e", &spec(&json!({}))).unwrap();
        let child = root.nest("e", "uid", &bounds("child01", &[])).unwrap();
        see(&child);
        let is_told = || child.pod("e", "p").why_none.contains("no ClusterSPIFFEID");
        root.retain_cluster_spiffe_ids(&BTreeSet::new());
        assert!(!is_told(), "foreign bundles are missing");
        root.set_foreign_bundles(crate::clusters::identities::ForeignBundles::new());
        assert!(is_told());
    }

    #[test]
    fn what_an_object_makes_is_counted_over_all_clusters() {
        let root = root();
        register(&root, "all", TEMPLATE);
        see(&root);
        let child = root.nest("e", "uid", &bounds("child01", &[])).unwrap();
        see(&child);
        let name = root.take_changed_objects().pop_first().unwrap();
        let count = || match root.report(&name).unwrap() {
            ObjectReport::ClusterSpiffeId(it) => it.report.unwrap().stats.entries_to_set,
            ObjectReport::ClusterStaticEntry(_) => 0,
        };
        assert_eq!(count(), 2);
        assert!(root.take_changed_objects().is_empty());
        root.unnest("e", "child01", "uid");
        assert!(
            root.take_changed_objects().contains(&name),
            "its count is another"
        );
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_cluster_stays_within_its_bounds_and_those_may_change() {
        let root = root();
        register(&root, "all", TEMPLATE);
        let child = root
            .nest("e", "uid", &bounds("child01", &["/shop/**"]))
            .unwrap();
        see(&child);
        assert_eq!(entries_of(&root, "child01").unwrap(), [""; 0]);
        let why = child.pod("e", "p").why_none;
        assert!(why.contains("not allowed in cluster \"child01\""), "{why}");
        let again = root
            .nest("e", "uid", &bounds("child01", &["/child01/*"]))
            .unwrap();
        assert!(Arc::ptr_eq(&again, &child));
        while child.process_slice() {}
        assert_eq!(entries_of(&root, "child01").unwrap(), ["/child01/p"]);
        let parents = "spiffe://e.org/spire/agent/k8s_psat/root/{{ .NodeMeta.UID }}";
        root.set_domain("e", &spec(&json!({"parentIDTemplate": parents})))
            .unwrap();
        while child.process_slice() {}
        assert_eq!(
            entries_of(&root, "child01").unwrap(),
            [""; 0],
            "its agents are not the root's"
        );
        assert_eq!(entries_of(&root, "root").unwrap(), [""; 0]);
    }

    #[test]
    fn a_cluster_may_be_nested_in_two_trust_domains_and_each_has_its_own() {
        let root = root();
        register(&root, "all", TEMPLATE);
        let child = root.nest("other", "uid", &bounds("child01", &[])).unwrap();
        see(&child);
        assert_eq!(entries_of(&root, "child01").unwrap(), [""; 0]);
        let second = root.nest("e", "uid", &bounds("child01", &[])).unwrap();
        assert!(!Arc::ptr_eq(&second, &child), "it is seen on its own");
        assert!(entries_of(&root, "child01").is_err());
        root.unnest("other", "child01", "uid");
        see(&second);
        assert_eq!(entries_of(&root, "child01").unwrap(), ["/child01/p"]);
    }

    #[test]
    fn an_object_that_came_too_late_takes_nothing_away() {
        let root = root();
        register(&root, "all", TEMPLATE);
        see(&root.nest("e", "uid", &bounds("child01", &[])).unwrap());
        root.unnest("e", "child01", "another");
        assert_eq!(entries_of(&root, "child01").unwrap(), ["/child01/p"]);
        root.nest("e", "another", &bounds("child01", &[])).unwrap();
        assert!(
            entries_of(&root, "child01").is_err(),
            "it is another cluster"
        );
        root.unnest("e", "child01", "uid");
        assert!(entries_of(&root, "child01").is_err());
    }
}
