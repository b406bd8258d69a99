//! What a NestedCluster asks for, parsed, and which of two that clash must wait. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::api::{
    CredentialSource, DownstreamAttestation, K8sPsatAttestor, NestedBundleConfigMap, NestedCluster,
    NestedClusterMode, NestedClusterSpec, RegistrationSource, TrustDomain, UniqueIds,
};
use crate::clusters::nested::Wish;
use crate::domains::{K8sPsatSettings, NoServiceAccount};
use crate::nested::kubeconfig::{ChildKubeconfig, Impersonation, KubeconfigError, ReadOptions};
use crate::nested::{AllowedNames, PatternError};
use crate::registration::bounds::{ClusterBounds, DeclaredBy, NestedScope};
use crate::registration::{DownstreamServers, ServerPods, SpecError, SvidFetcher};

/// A NestedCluster's wishes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClusterSettings {
    /// Name of the TrustDomain object.
    pub(super) domain: String,
    /// What may be registered.
    pub(super) scope: NestedScope,
    /// Which of its pods are agents.
    pub(super) agents: Option<K8sPsatSettings>,
    /// What is published besides the ClusterTrustBundle.
    pub(super) wish: Wish,
    /// Whom to act as.
    impersonation: Option<Impersonation>,
}

/// Why a NestedCluster cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    /// What of its agents is wrong.
    #[error("spec.agents.serviceAccountAllowList: {source}")]
    Agents {
        /// What.
        #[from]
        source: NoServiceAccount,
    },
    /// What is said of its servers is wrong.
    #[error("spec.downstream: {source}")]
    Downstream {
        /// What.
        #[from]
        source: SpecError,
    },
    /// Nobody can fetch the SVIDs of its servers.
    #[error(
        "spec.agents: with spec.downstream.attestation WorkloadAPI the agents that serve it to the \
         server must be named"
    )]
    NoAgents,
    /// It has servers, and there is no trust domain for them.
    #[error("there is no TrustDomain {name}")]
    NoTrustDomain {
        /// What it is called.
        name: String,
    },
    /// Its limits are none.
    #[error("spec.allowedIDs, spec.allowedDNSNames: {source}")]
    Allowed {
        /// Why.
        #[from]
        source: PatternError,
    },
    /// Nobody whom a call can be made as.
    #[error("spec.kubeConfig.impersonate: a name is empty or cannot be sent in a header")]
    Impersonate,
    /// It asks for what is not there yet.
    #[error("{field} {value} is not supported by this version")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value.
        value: &'static str,
    },
}

/// Who has the better claim to a cluster's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NameTaken {
    /// The TrustDomain calls its own cluster so.
    ByTrustDomain(String),
    /// An older NestedCluster of the same trust domain.
    ByNestedCluster(String),
}

impl ClusterSettings {
    /// Parses `object`, where `domain` is its TrustDomain.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(
        object: &NestedCluster,
        domain: Option<&TrustDomain>,
    ) -> Result<Self, SettingsError> {
        let spec = &object.spec;
        let cluster = name_of(object);
        check_supported(spec)?;
        let allowed = AllowedNames::parse(
            spec.allowed_ids.as_deref(),
            spec.allowed_dns_names.as_deref(),
        )?;
        let bounds = ClusterBounds::new(&cluster, allowed);
        let agents = spec.agents.as_ref();
        let agents = agents.map(|agents| K8sPsatSettings::parse(&cluster, agents));
        let agents = agents.transpose()?;
        let (declared_by, agents) = match spec.mode {
            NestedClusterMode::Remote => (DeclaredBy::Parent, agents),
            NestedClusterMode::Downstream => {
                let (servers, agents) = servers(object, &cluster, domain, agents)?;
                (DeclaredBy::Servers(servers), Some(agents))
            }
        };
        let impersonate = spec.kube_config.impersonate.as_ref();
        let impersonation = impersonate
            .map(|it| Impersonation::of(&it.user, &it.groups).ok_or(SettingsError::Impersonate));
        Ok(Self {
            domain: spec.trust_domain_ref.name.clone(),
            scope: NestedScope {
                bounds,
                declared_by,
            },
            agents,
            wish: wish_of(spec),
            impersonation: impersonation.transpose()?,
        })
    }

    /// Whether it has servers of its own, which alone are registered.
    pub(super) fn has_servers(&self) -> bool {
        matches!(self.scope.declared_by, DeclaredBy::Servers(_))
    }

    /// Reads the kubeconfig of the object with these wishes and this `spec`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn kubeconfig(
        &self,
        spec: &NestedClusterSpec,
        bytes: &[u8],
    ) -> Result<ChildKubeconfig, KubeconfigError> {
        let source = &spec.kube_config;
        let options = ReadOptions {
            context: source.context.as_deref(),
            allow_insecure_tls: source.insecure_skip_tls_verify,
            allow_token_file: false,
            allowed_commands: &[],
        };
        let read = ChildKubeconfig::read(bytes, &options)?;
        Ok(match &self.impersonation {
            Some(impersonation) => read.impersonating(impersonation.clone()),
            None => read,
        })
    }
}

fn check_supported(spec: &NestedClusterSpec) -> Result<(), SettingsError> {
    let unsupported = |field, value| Err(SettingsError::Unsupported { field, value });
    match spec {
        NestedClusterSpec {
            credentials: CredentialSource::Managed,
            ..
        } => unsupported("spec.credentials", "Managed"),
        NestedClusterSpec {
            unique_ids: UniqueIds::Deny,
            ..
        } => unsupported("spec.uniqueIDs", "Deny"),
        spec => match spec.registration.source {
            RegistrationSource::Parent => Ok(()),
            RegistrationSource::Child => unsupported("spec.registration.source", "Child"),
            RegistrationSource::Both => unsupported("spec.registration.source", "Both"),
        },
    }
}

/// The servers of the cluster of `object`, and who may attest there, where `agents` are its agents.
fn servers(
    object: &NestedCluster,
    cluster: &str,
    domain: Option<&TrustDomain>,
    agents: Option<K8sPsatSettings>,
) -> Result<(DownstreamServers, K8sPsatSettings), SettingsError> {
    let wanted = object.spec.downstream.clone().unwrap_or_default();
    let name = || object.spec.trust_domain_ref.name.clone();
    let trust_domain = domain.and_then(|domain| domain.spec.trust_domain.parse().ok());
    let trust_domain = trust_domain.ok_or_else(|| SettingsError::NoTrustDomain { name: name() })?;
    let accounts: BTreeSet<_> = wanted.service_account_allow_list.iter().cloned().collect();
    let (fetched_by, agents) = match (wanted.attestation, agents) {
        (DownstreamAttestation::K8sPsat, agents) => {
            let themselves = K8sPsatAttestor::of(&wanted.service_account_allow_list);
            let themselves = K8sPsatSettings::parse(cluster, &themselves)?;
            let agents = agents.unwrap_or(themselves).with_servers(&accounts);
            (SvidFetcher::Server, agents)
        }
        (DownstreamAttestation::WorkloadApi, Some(agents)) => (SvidFetcher::NodeAgent, agents),
        (DownstreamAttestation::WorkloadApi, None) => return Err(SettingsError::NoAgents),
    };
    let pods = ServerPods {
        service_accounts: accounts,
        fetched_by,
    };
    let created = object.creation_timestamp();
    let created = created.map_or(0, |created| created.0.as_second());
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let ttl = wanted.ttl.as_deref();
    let servers = DownstreamServers::new((&name, &uid, created), pods, ttl, &trust_domain)?;
    Ok((servers, agents))
}

/// What is published in the cluster besides its ClusterTrustBundle.
pub(super) fn wish_of(spec: &NestedClusterSpec) -> Wish {
    let wish = spec.bundle.config_map.clone();
    wish.or_else(|| match spec.mode {
        NestedClusterMode::Remote => None,
        NestedClusterMode::Downstream => {
            let servers = spec.downstream.clone().unwrap_or_default();
            let account = servers.service_account_allow_list.into_iter().next()?;
            let (namespace, _) = account.split_once(':')?;
            Some(NestedBundleConfigMap::of_servers(namespace))
        }
    })
}

/// What templates and agents call the cluster of `object`.
pub(super) fn name_of(object: &NestedCluster) -> String {
    let name = object.spec.cluster_name.clone();
    name.unwrap_or_else(|| object.name_any())
}

/// Who else has the name of the cluster of `object`, where `others` are all NestedClusters and
/// `domain` is its TrustDomain. Of two NestedClusters the older one counts.
pub(super) fn name_taken<'a>(
    object: &NestedCluster,
    domain: Option<&TrustDomain>,
    mut others: impl Iterator<Item = &'a NestedCluster>,
) -> Option<NameTaken> {
    let cluster = name_of(object);
    if let Some(domain) = domain.filter(|domain| domain.spec.cluster_name == cluster) {
        return Some(NameTaken::ByTrustDomain(domain.name_any()));
    }
    let age = |it: &NestedCluster| (it.creation_timestamp(), it.name_any());
    let clashes = |other: &&NestedCluster| {
        other.spec.trust_domain_ref == object.spec.trust_domain_ref
            && name_of(other) == cluster
            && age(other) < age(object)
    };
    let other = others.find(clashes)?;
    Some(NameTaken::ByNestedCluster(other.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, created: &str, spec: &Value) -> NestedCluster {
        let mut all = json!({
            "trustDomainRef": {"name": "example"},
            "kubeConfig": {"secretRef": {"name": "child"}},
        });
        let more = spec.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "NestedCluster",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": all,
        }))
        .unwrap()
    }

    fn problem(spec: &Value) -> String {
        let parsed = ClusterSettings::parse(&object("child01", "2026-01-01T00:00:00Z", spec), None);
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (spec, expected) in [
            (
                json!({"credentials": "Managed"}),
                "spec.credentials Managed is not",
            ),
            (json!({"uniqueIDs": "Deny"}), "spec.uniqueIDs Deny is not"),
            (
                json!({"registration": {"source": "Both"}}),
                "spec.registration.source Both is not",
            ),
            (
                json!({"allowedIDs": ["ns"]}),
                "spec.allowedIDs, spec.allowedDNSNames: \"ns\"",
            ),
            (
                json!({"agents": {"serviceAccountAllowList": []}}),
                "spec.agents.serviceAccountAllowList: give",
            ),
        ] {
            let problem = problem(&spec);
            assert!(problem.starts_with(expected), "{problem}");
        }
        let secret = json!({
            "secretRef": {"name": "child"}, "impersonate": {"user": "a\nb"},
        });
        let problem = problem(&json!({"kubeConfig": secret}));
        assert!(problem.contains("impersonate"), "{problem}");
    }

    #[test]
    fn servers_attest_by_themselves_or_have_their_svids_from_agents() {
        let domain: TrustDomain = serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "example"},
            "spec": {"trustDomain": "e.org", "authority": {"selfSigned": {}}},
        }))
        .unwrap();
        let parse = |changes: &Value| {
            let mut spec = json!({"mode": "Downstream"});
            let changes = changes.as_object().unwrap().clone();
            spec.as_object_mut().unwrap().extend(changes);
            let object = object("child01", "2026-01-01T00:00:00Z", &spec);
            ClusterSettings::parse(&object, Some(&domain))
        };
        let usual = parse(&json!({})).unwrap();
        let agents = usual.agents.clone().unwrap();
        assert!(usual.has_servers() && agents.tells_by_pod("spiffe-system:spiffe-operator"));
        assert_eq!(agents.service_accounts.len(), 1);
        let wish = usual.wish.unwrap();
        assert_eq!(
            (wish.namespace.as_str(), wish.name.as_str()),
            ("spiffe-system", "spire-bundle-upstream")
        );

        let stock = json!({
            "downstream": {
                "serviceAccountAllowList": ["spire-server:spire-server"],
                "attestation": "WorkloadAPI",
            },
            "agents": {"serviceAccountAllowList": ["spire-system:spire-agent"]},
        });
        let settings = parse(&stock).unwrap();
        let agents = settings.agents.unwrap();
        assert!(!agents.tells_by_pod("spire-system:spire-agent"));
        assert!(
            !agents
                .service_accounts
                .contains("spire-server:spire-server")
        );

        let problem = |changes: &Value| parse(changes).unwrap_err().to_string();
        let nobody = json!({"downstream": {"attestation": "WorkloadAPI"}});
        assert!(problem(&nobody).starts_with("spec.agents: "));
        let endless = json!({"downstream": {"ttl": "1d"}});
        assert!(
            problem(&endless).starts_with("spec.downstream: ttl"),
            "{}",
            problem(&endless)
        );
        let orphan = object(
            "child01",
            "2026-01-01T00:00:00Z",
            &json!({"mode": "Downstream"}),
        );
        let orphan = ClusterSettings::parse(&orphan, None).unwrap_err();
        assert_eq!(orphan.to_string(), "there is no TrustDomain example");
    }

    #[test]
    fn of_two_with_one_name_the_older_one_counts() {
        let first = object(
            "a",
            "2026-01-01T00:00:00Z",
            &json!({"clusterName": "child01"}),
        );
        let second = object("child01", "2026-01-02T00:00:00Z", &json!({}));
        let elsewhere = json!({"clusterName": "child01", "trustDomainRef": {"name": "other"}});
        let third = object("c", "2026-01-01T00:00:00Z", &elsewhere);
        let all = [&first, &second, &third];
        let taken = |object| name_taken(object, None, all.into_iter());
        assert_eq!(taken(&first), None);
        assert_eq!(taken(&second), Some(NameTaken::ByNestedCluster("a".into())));
        assert_eq!(taken(&third), None);
        let domain: TrustDomain = serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "example"},
            "spec": {
                "trustDomain": "e.org", "clusterName": "child01", "authority": {"selfSigned": {}},
            },
        }))
        .unwrap();
        assert_eq!(
            name_taken(&first, Some(&domain), all.into_iter()),
            Some(NameTaken::ByTrustDomain("example".into()))
        );
    }
}
