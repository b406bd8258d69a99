//! The server above a trust domain, parsed.

use crate::api::{SpireUpstream, UpstreamBundleRef};
use crate::domains::SettingsError;
use crate::spiffe::{SpiffeId, TrustDomainName};

/// A server above, and how it is shown who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Where it listens.
    pub address: UpstreamAddress,
    /// How it is shown who we are.
    pub identity: UpstreamIdentity,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How a server above is shown who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamIdentity {
    /// As an agent of that server with an entry that makes it a server below.
    Agent {
        /// Where the bundle lies by which the server is known.
        bundle: UpstreamBundleRef,
        /// How the agent attests.
        attestor: UpstreamAttestor,
        /// ID of the entry; none: the only one.
        entry: Option<SpiffeId>,
    },
    /// As a workload of an agent beside us, whose socket has this path.
    Workload {
        /// The path.
        socket: String,
    },
}

/// How we attest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAttestor {
    /// By a token of our service account.
    K8sPsat {
        /// By which name the server knows the cluster.
        cluster: String,
        /// Name of the file with the token.
        token_file: String,
    },
    /// By a certificate.
    X509Pop {
        /// Name of the Secret with it and its key.
        secret: String,
    },
    /// By a join token.
    JoinToken {
        /// Name of the Secret with it.
        secret: String,
    },
}

impl UpstreamSettings {
    /// Parses what a TrustDomain of `trust_domain` says.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(
        upstream: &SpireUpstream,
        trust_domain: &TrustDomainName,
    ) -> Result<Self, SettingsError> {
        let k8s_psat = upstream.k8s_psat.as_ref();
        let k8s_psat = k8s_psat.map(|it| UpstreamAttestor::K8sPsat {
            cluster: it.cluster.clone(),
            token_file: it.token_file.clone(),
        });
        let x509pop = upstream.x509pop.as_ref();
        let x509pop = x509pop.map(|it| UpstreamAttestor::X509Pop {
            secret: it.secret_ref.name.clone(),
        });
        let join_token = upstream.join_token.as_ref();
        let join_token = join_token.map(|it| UpstreamAttestor::JoinToken {
            secret: it.secret_ref.name.clone(),
        });
        let mut attestors = [k8s_psat, x509pop, join_token].into_iter().flatten();
        let identity = match (attestors.next(), attestors.next(), &upstream.workload_api) {
            (Some(attestor), None, None) => UpstreamIdentity::Agent {
                bundle: upstream.bundle.clone(),
                attestor,
                entry: entry(upstream, trust_domain)?,
            },
            (None, None, Some(workload_api)) => UpstreamIdentity::Workload {
                socket: workload_api.socket_path.clone(),
            },
            _ => {
                let problem = "give exactly one of k8sPSAT, x509pop, joinToken and workloadAPI";
                return Err(wrong(problem));
            }
        };
        Ok(Self {
            address: address(&upstream.address)?,
            identity,
        })
    }
}

fn address(text: &str) -> Result<UpstreamAddress, SettingsError> {
    let refused = || {
        wrong(format_args!(
            "address: {text:?} is not of the form host:port"
        ))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    match port.parse() {
        Ok(port) if port > 0 && !host.is_empty() && (bare.is_some() || !host.contains(':')) => {
            Ok(UpstreamAddress {
                host: host.to_owned(),
                port,
            })
        }
        _ => Err(refused()),
    }
}

fn entry(
    upstream: &SpireUpstream,
    trust_domain: &TrustDomainName,
) -> Result<Option<SpiffeId>, SettingsError> {
    let Some(text) = &upstream.spiffe_id else {
        return Ok(None);
    };
    let id: SpiffeId = text
        .parse()
        .map_err(|error| wrong(format_args!("spiffeID: {text:?}: {error}")))?;
    if !id.is_member_of(trust_domain) {
        return Err(wrong(format_args!(
            "spiffeID: {id} is not of the trust domain"
        )));
    }
    Ok(Some(id))
}

fn wrong(problem: impl std::fmt::Display) -> SettingsError {
    SettingsError::Upstream {
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(changes: &Value) -> Result<UpstreamSettings, String> {
        let mut upstream = json!({ "address": "spire.example.org:8081" });
        for (key, value) in changes.as_object().unwrap() {
            upstream[key] = value.clone();
        }
        let upstream = serde_json::from_value(upstream).unwrap();
        let parsed = UpstreamSettings::parse(&upstream, &"example.org".parse().unwrap());
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn an_agent_needs_little() {
        let parsed = parse(&json!({ "k8sPSAT": { "cluster": "child01" } })).unwrap();
        let attestor = UpstreamAttestor::K8sPsat {
            cluster: "child01".into(),
            token_file: "spire-server".into(),
        };
        assert_eq!(
            parsed.identity,
            UpstreamIdentity::Agent {
                bundle: UpstreamBundleRef::default(),
                attestor,
                entry: None
            }
        );
        assert_eq!(
            (parsed.address.host.as_str(), parsed.address.port),
            ("spire.example.org", 8081)
        );
        let parsed = parse(&json!({
            "address": "[::1]:443", "workloadAPI": { "socketPath": "/run/agent.sock" },
        }))
        .unwrap();
        assert_eq!(parsed.address.host, "::1");
        let socket = "/run/agent.sock".into();
        assert_eq!(parsed.identity, UpstreamIdentity::Workload { socket });
    }

    #[test]
    fn says_what_is_wrong() {
        let join_token = json!({ "secretRef": { "name": "token" } });
        let with = |key: &str, value: Value| {
            let mut changes = json!({ "joinToken": join_token });
            changes[key] = value;
            parse(&changes).unwrap_err()
        };
        for (error, words) in [
            (parse(&json!({})).unwrap_err(), "exactly one of"),
            (
                with("workloadAPI", json!({ "socketPath": "/a" })),
                "exactly one of",
            ),
            (with("x509pop", join_token.clone()), "exactly one of"),
            (with("address", json!("example.org")), "address"),
            (with("address", json!("example.org:0")), "address"),
            (with("address", json!("example.org:65536")), "address"),
            (with("address", json!("::1:443")), "address"),
            (with("spiffeID", json!("spiffe://other.org/a")), "spiffeID"),
            (with("spiffeID", json!("example.org/a")), "spiffeID"),
        ] {
            assert!(
                error.starts_with("spec.authority.upstream.spire") && error.contains(words),
                "{error}"
            );
        }
    }
}
