//! How agents may prove where they run, parsed.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;

use crate::api::{CaBundleRef, K8sPsatAttestor, NodeAttestors, TrustDomainSpec, X509PopAttestor};
use crate::domains::SettingsError;
use crate::domains::agent_path::AgentPathTemplate;
use crate::spiffe::pem;

/// The attestors that a TrustDomain asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttestorSettings {
    /// By the token of a pod's service account.
    pub k8s_psat: Option<K8sPsatSettings>,
    /// By a certificate.
    pub x509pop: Option<X509PopSettings>,
    /// Whether by a token that an administrator made.
    pub join_token: bool,
}

/// Which pods of a cluster are agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K8sPsatSettings {
    /// Name of the cluster, a segment of SPIFFE IDs.
    pub cluster: String,
    /// Service accounts, each `namespace:name`.
    pub service_accounts: BTreeSet<String>,
    /// Audiences; none for the API server's.
    pub audiences: Vec<String>,
    /// Keys of the node's labels that become selectors.
    pub node_label_keys: BTreeSet<String>,
    /// Keys of the pod's labels that become selectors.
    pub pod_label_keys: BTreeSet<String>,
    /// Whether an agent is told apart by its pod rather than its node.
    pub id_by_pod: bool,
    /// Service accounts that are told apart by their pods in any case.
    pub by_pod: BTreeSet<String>,
}

/// No service account of agents is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give at least one service account")]
pub struct NoServiceAccount;

/// Which certificates are agents'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509PopSettings {
    /// Whose certificates.
    pub trust: X509PopTrust,
    /// The agent's path.
    pub path: AgentPathTemplate,
}

/// Whose certificates are agents'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum X509PopTrust {
    /// Those under these CAs.
    Cas(CaBundle),
    /// X.509-SVIDs of the trust domain whose paths begin so, with a slash at the end.
    Svids {
        /// The beginning.
        prefix: String,
    },
}

/// Certificates of CAs, or where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaBundle {
    /// The certificates.
    Inline(Vec<CertificateDer<'static>>),
    /// Where they lie in the operator's namespace.
    Stored(CaBundleRef),
}

impl AttestorSettings {
    /// Parses the attestors of `spec`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(
        spec: &TrustDomainSpec,
        attestors: &NodeAttestors,
    ) -> Result<Self, SettingsError> {
        let psat = attestors.k8s_psat.as_ref();
        let x509pop = attestors.x509pop.as_ref();
        Ok(Self {
            k8s_psat: psat
                .map(|it| K8sPsatSettings::parse(&spec.cluster_name, it))
                .transpose()
                .map_err(|problem| wrong("k8sPSAT.serviceAccountAllowList", problem.to_string()))?,
            x509pop: x509pop.map(x509pop_settings).transpose()?,
            join_token: attestors.join_token.is_some(),
        })
    }
}

impl K8sPsatSettings {
    /// Which pods of `cluster` are agents by `attestor`.
    ///
    /// # Errors
    /// When none can be.
    pub fn parse(cluster: &str, attestor: &K8sPsatAttestor) -> Result<Self, NoServiceAccount> {
        if attestor.service_account_allow_list.is_empty() {
            return Err(NoServiceAccount);
        }
        let set = |list: &[String]| list.iter().cloned().collect();
        Ok(Self {
            cluster: cluster.to_owned(),
            service_accounts: set(&attestor.service_account_allow_list),
            audiences: attestor.audience.clone(),
            node_label_keys: set(&attestor.allowed_node_label_keys),
            pod_label_keys: set(&attestor.allowed_pod_label_keys),
            id_by_pod: attestor.use_pod_uid_for_agent_id,
            by_pod: BTreeSet::new(),
        })
    }

    /// The same, with `servers`, of which each is told apart by its pod.
    #[must_use]
    pub fn with_servers(mut self, servers: &BTreeSet<String>) -> Self {
        self.service_accounts.extend(servers.iter().cloned());
        self.by_pod.clone_from(servers);
        self
    }

    /// Whether an agent with this service account, `namespace:name`, is told apart by its pod.
    #[must_use]
    pub fn tells_by_pod(&self, service_account: &str) -> bool {
        self.id_by_pod || self.by_pod.contains(service_account)
    }
}

fn x509pop_settings(attestor: &X509PopAttestor) -> Result<X509PopSettings, SettingsError> {
    let X509PopAttestor {
        ca_bundle,
        ca_bundle_ref,
        spiffe,
        agent_path_template,
    } = attestor;
    let (trust, default) = match (ca_bundle, ca_bundle_ref, spiffe) {
        (Some(inline), None, None) => {
            let roots = pem::certificates(inline.as_bytes());
            let roots = roots.map_err(|error| wrong("x509pop.caBundle", error.to_string()))?;
            let trust = X509PopTrust::Cas(CaBundle::Inline(roots));
            (trust, AgentPathTemplate::DEFAULT)
        }
        (None, Some(stored), None) => {
            let trust = X509PopTrust::Cas(CaBundle::Stored(stored.clone()));
            (trust, AgentPathTemplate::DEFAULT)
        }
        (None, None, Some(spiffe)) => {
            let prefix = format!("{}/", spiffe.svid_prefix.trim_end_matches('/'));
            let trust = X509PopTrust::Svids { prefix };
            (trust, AgentPathTemplate::DEFAULT_OF_SVIDS)
        }
        _ => {
            let problem = "give exactly one of caBundle, caBundleRef and spiffe".into();
            return Err(wrong("x509pop", problem));
        }
    };
    let path = AgentPathTemplate::parse(agent_path_template.as_deref().unwrap_or(default));
    let path = path.map_err(|error| wrong("x509pop.agentPathTemplate", error.to_string()))?;
    Ok(X509PopSettings { trust, path })
}

fn wrong(field: &'static str, problem: String) -> SettingsError {
    SettingsError::NodeAttestor { field, problem }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domains::ServerSettings;

    fn parse(attestors: &Value) -> Result<AttestorSettings, SettingsError> {
        let spec = json!({
            "trustDomain": "example.org",
            "clusterName": "prod",
            "authority": { "selfSigned": {} },
            "server": { "nodeAttestors": attestors },
        });
        let settings = ServerSettings::parse(&serde_json::from_value(spec).unwrap());
        Ok(settings?.unwrap().node_attestors)
    }

    #[test]
    fn what_is_not_asked_for_is_not_there() {
        assert_eq!(parse(&json!({})), Ok(AttestorSettings::default()));
        let settings = parse(&json!({ "joinToken": {} })).unwrap();
        assert!(settings.join_token && settings.k8s_psat.is_none());
    }

    #[test]
    fn tokens_of_service_accounts_are_for_spire_server_unless_it_is_said() {
        let psat = |more: &Value| {
            let mut psat = json!({ "serviceAccountAllowList": ["spire:spire-agent"] });
            psat.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            parse(&json!({ "k8sPSAT": psat }))
                .unwrap()
                .k8s_psat
                .unwrap()
        };
        let settings = psat(&json!({}));
        assert_eq!(settings.cluster, "prod");
        assert_eq!(settings.audiences, ["spire-server"]);
        assert!(psat(&json!({ "audience": [] })).audiences.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let reference = json!({ "kind": "Secret", "name": "roots" });
        for (attestors, expected) in [
            (
                json!({ "k8sPSAT": { "serviceAccountAllowList": [] } }),
                "spec.server.nodeAttestors.k8sPSAT.serviceAccountAllowList: give",
            ),
            (
                json!({ "x509pop": {} }),
                "spec.server.nodeAttestors.x509pop: give exactly one",
            ),
            (
                json!({ "x509pop": { "caBundle": "junk" } }),
                "spec.server.nodeAttestors.x509pop.caBundle: ",
            ),
            (
                json!({ "x509pop": { "caBundleRef": reference, "agentPathTemplate": "/{{ .No }}" } }),
                "spec.server.nodeAttestors.x509pop.agentPathTemplate: ",
            ),
        ] {
            let problem = parse(&attestors).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
        }
        let stored = parse(&json!({ "x509pop": { "caBundleRef": reference } })).unwrap();
        let X509PopTrust::Cas(CaBundle::Stored(stored)) = stored.x509pop.unwrap().trust else {
            panic!("not stored")
        };
        assert_eq!(stored.key, "ca.crt");
    }

    #[test]
    fn svids_are_exchanged_by_the_beginning_of_their_paths() {
        for (spiffe, expected) in [
            (json!({}), "/spire-exchange/"),
            (json!({ "svidPrefix": "/nodes" }), "/nodes/"),
            (json!({ "svidPrefix": "/nodes/" }), "/nodes/"),
            (json!({ "svidPrefix": "" }), "/"),
        ] {
            let settings = parse(&json!({ "x509pop": { "spiffe": spiffe } })).unwrap();
            let X509PopSettings { trust, path } = settings.x509pop.unwrap();
            let prefix = expected.to_owned();
            assert_eq!(trust, X509PopTrust::Svids { prefix });
            let default = AgentPathTemplate::parse(AgentPathTemplate::DEFAULT_OF_SVIDS);
            assert_eq!(Ok(path), default);
        }
    }
}
