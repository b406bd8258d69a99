//! How a trust domain is served to SPIRE agents, servers and tools, parsed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::{ServerRateLimit, ServerSpec, TrustDomainSpec, duration};
use crate::domains::{AttestorSettings, SettingsError};
use crate::spiffe::SpiffeId;

/// The API of spire-server as a TrustDomain asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// TCP port.
    pub port: u16,
    /// Who is an administrator by configuration.
    pub admin_ids: BTreeSet<SpiffeId>,
    /// Lifetime of agents' X.509-SVIDs.
    pub agent_ttl: Duration,
    /// Lifetime of other X.509-SVIDs where the entry has none.
    pub x509_svid_ttl: Duration,
    /// Lifetime of JWT-SVIDs where the entry has none.
    pub jwt_svid_ttl: Duration,
    /// The issuer that JWT-SVIDs name, if any.
    pub jwt_issuer: Option<String>,
    /// Lifetime of CAs of servers below that ask for none.
    pub ca_ttl: Duration,
    /// How agents may prove where they run.
    pub node_attestors: AttestorSettings,
    /// How long records of agents stay after they have expired; none: for good.
    pub prune_agents_expired_for: Option<Duration>,
    /// Which calls are limited.
    pub rate_limit: ServerRateLimit,
}

impl ServerSettings {
    /// Parses the `server` of `spec`, which is not served without.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(spec: &TrustDomainSpec) -> Result<Option<Self>, SettingsError> {
        let Some(server) = &spec.server else {
            return Ok(None);
        };
        let parse = |field, value: &str| {
            duration::parse(value).map_err(|source| SettingsError::Duration { field, source })
        };
        let x509_svid_ttl = parse("x509SVID.ttl", &spec.x509_svid.ttl)?;
        let agent_ttl = server.agent_ttl.as_deref();
        let agent_ttl = agent_ttl.map(|ttl| parse("server.agentTTL", ttl));
        let prune = &server.prune_agents_expired_for;
        let prune = parse("server.pruneAgentsExpiredFor", prune)?;
        Ok(Some(Self {
            port: port(server)?,
            admin_ids: admin_ids(server)?,
            agent_ttl: agent_ttl.transpose()?.unwrap_or(x509_svid_ttl),
            x509_svid_ttl,
            jwt_svid_ttl: parse("jwtSVID.ttl", &spec.jwt_svid.ttl)?,
            jwt_issuer: spec.jwt_svid.issuer.clone(),
            ca_ttl: parse("caTTL", &spec.ca_ttl)?,
            node_attestors: AttestorSettings::parse(spec, &server.node_attestors)?,
            prune_agents_expired_for: Some(prune).filter(|age| !age.is_zero()),
            rate_limit: server.rate_limit.clone(),
        }))
    }
}

fn port(server: &ServerSpec) -> Result<u16, SettingsError> {
    let port = u16::try_from(server.port).ok().filter(|port| *port > 0);
    port.ok_or(SettingsError::ServerPort { port: server.port })
}

fn admin_ids(server: &ServerSpec) -> Result<BTreeSet<SpiffeId>, SettingsError> {
    let ids = server.admin_ids.iter().map(|id| {
        id.parse().map_err(|source| SettingsError::AdminId {
            id: id.clone(),
            source,
        })
    });
    ids.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(server: &serde_json::Value) -> Result<Option<ServerSettings>, SettingsError> {
        let spec = json!({
            "trustDomain": "example.org",
            "authority": { "selfSigned": {} },
            "x509SVID": { "ttl": "2h" },
            "server": server,
        });
        ServerSettings::parse(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn agents_live_as_long_as_others_unless_it_is_said() {
        let settings = parse(&json!({})).unwrap().unwrap();
        assert_eq!(settings.port, 8081);
        assert_eq!(settings.agent_ttl, Duration::from_hours(2));
        let settings = parse(&json!({ "agentTTL": "30m" })).unwrap().unwrap();
        assert_eq!(settings.agent_ttl, Duration::from_mins(30));
        assert_eq!(parse(&json!(null)), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (server, expected) in [
            (json!({ "port": 0 }), "spec.server.port: 0 is no port"),
            (
                json!({ "port": 70000 }),
                "spec.server.port: 70000 is no port",
            ),
            (
                json!({ "adminIDs": ["example.org/x"] }),
                "spec.server.adminIDs: \"example.org/x\"",
            ),
            (json!({ "agentTTL": "1d" }), "spec.server.agentTTL: "),
        ] {
            let problem = parse(&server).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
