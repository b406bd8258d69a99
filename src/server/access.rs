//! Who may call what, as spire-server's default policy has it. Pure.

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, also without a certificate.
    Anyone,
    /// Everybody, to show who they are.
    Attestation,
    /// Attested agents.
    Agent,
    /// Attested agents, administrators and callers on the administration socket.
    AgentOrAdmin,
    /// Workloads with a `downstream` entry.
    Downstream,
    /// Callers on the administration socket.
    Local,
    /// Administrators and callers on the administration socket.
    Admin,
}

impl Access {
    /// Who may call the method with the full name `method`, such as
    /// `/spire.api.server.bundle.v1.Bundle/GetBundle`; none if there is no such method.
    #[must_use]
    pub fn to(method: &str) -> Option<Self> {
        let (service, method) = method.strip_prefix('/')?.split_once('/')?;
        let access = match (service, method) {
            ("spire.api.server.agent.v1.Agent", "AttestAgent") => Self::Attestation,
            ("spire.api.server.bundle.v1.Bundle", "GetBundle") => Self::Anyone,
            ("spire.api.server.agent.v1.Agent", "RenewAgent" | "PostStatus")
            | (
                "spire.api.server.entry.v1.Entry",
                "GetAuthorizedEntries" | "SyncAuthorizedEntries",
            )
            | (
                "spire.api.server.svid.v1.SVID",
                "BatchNewX509SVID" | "NewJWTSVID" | "BatchNewWITSVID",
            ) => Self::Agent,
            ("spire.api.server.bundle.v1.Bundle", "GetFederatedBundle") => Self::AgentOrAdmin,
            ("spire.api.server.svid.v1.SVID", "NewDownstreamX509CA")
            | (
                "spire.api.server.bundle.v1.Bundle",
                "PublishJWTAuthority" | "PublishWITAuthority",
            ) => Self::Downstream,
            (
                "spire.api.server.debug.v1.Debug"
                | "spire.api.server.logger.v1.Logger"
                | "grpc.health.v1.Health",
                _,
            ) => Self::Local,
            (
                "spire.api.server.agent.v1.Agent"
                | "spire.api.server.bundle.v1.Bundle"
                | "spire.api.server.entry.v1.Entry"
                | "spire.api.server.localauthority.v1.LocalAuthority"
                | "spire.api.server.svid.v1.SVID"
                | "spire.api.server.trustdomain.v1.TrustDomain",
                _,
            ) => Self::Admin,
            _ => return None,
        };
        Some(access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_that_of_the_stock_policy() {
        let access = |service: &str, method| {
            let package = service.to_lowercase();
            Access::to(&format!(
                "/spire.api.server.{package}.v1.{service}/{method}"
            ))
        };
        for (service, method, expected) in [
            ("Agent", "AttestAgent", Access::Attestation),
            ("Agent", "RenewAgent", Access::Agent),
            ("Agent", "PostStatus", Access::Agent),
            ("Agent", "ListAgents", Access::Admin),
            ("Agent", "CreateJoinToken", Access::Admin),
            ("Bundle", "GetBundle", Access::Anyone),
            ("Bundle", "GetFederatedBundle", Access::AgentOrAdmin),
            ("Bundle", "PublishJWTAuthority", Access::Downstream),
            ("Bundle", "PublishWITAuthority", Access::Downstream),
            ("Bundle", "AppendBundle", Access::Admin),
            ("Entry", "SyncAuthorizedEntries", Access::Agent),
            ("Entry", "GetAuthorizedEntries", Access::Agent),
            ("Entry", "ListEntries", Access::Admin),
            ("SVID", "BatchNewX509SVID", Access::Agent),
            ("SVID", "NewJWTSVID", Access::Agent),
            ("SVID", "BatchNewWITSVID", Access::Agent),
            ("SVID", "NewDownstreamX509CA", Access::Downstream),
            ("SVID", "MintX509SVID", Access::Admin),
            ("TrustDomain", "RefreshBundle", Access::Admin),
            ("LocalAuthority", "RevokeX509Authority", Access::Admin),
            ("Debug", "GetInfo", Access::Local),
            ("Logger", "SetLogLevel", Access::Local),
        ] {
            assert_eq!(
                access(service, method),
                Some(expected),
                "{service}.{method}"
            );
        }
        let health = Access::to("/grpc.health.v1.Health/Check");
        assert_eq!(health, Some(Access::Local));
        for unknown in [
            "",
            "/",
            "/a/b",
            "spire.api.server.agent.v1.Agent/AttestAgent",
        ] {
            assert_eq!(Access::to(unknown), None, "{unknown}");
        }
    }
}
