//! `spiffe-operator rbac`: the manifests that let the operator into another cluster.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::print;
use crate::nested::kubeconfig::Impersonation;
use crate::nested::rights::{ConfigMapName, Needs};
use crate::nested::{ChildAccess, ChildAccount};

/// Of whom.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print what lets the operator into a nested cluster, for GitOps or review.
    Child(Arguments),
}

/// Flags of `rbac child`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: AccessArguments,
}

/// Who serves a nested cluster.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// The operator in the parent.
    Remote,
    /// A server in the cluster, under a CA of the parent.
    Downstream,
}

/// What the operator does in a nested cluster, and as whom.
#[derive(Debug, Args)]
pub(super) struct AccessArguments {
    /// Who serves the nested cluster, as `spec.mode` of the NestedCluster.
    #[arg(long, env = "SPIFFE_OPERATOR_MODE", default_value = "remote")]
    mode: Mode,
    /// User who has the rights. The service account may then do nothing but impersonate that user.
    /// Default: the service account has the rights itself.
    #[arg(long, env = "SPIFFE_OPERATOR_IMPERSONATE", value_name = "USER")]
    impersonate: Option<String>,
    /// Group to impersonate besides; may be repeated.
    #[arg(
        long = "impersonate-group",
        env = "SPIFFE_OPERATOR_IMPERSONATE_GROUPS",
        value_delimiter = ',',
        requires = "impersonate",
        value_name = "GROUP"
    )]
    impersonate_groups: Vec<String>,
    /// ConfigMap that spec.bundle.configMap of the NestedCluster names, as NAMESPACE/NAME, or none.
    #[arg(
        long,
        env = "SPIFFE_OPERATOR_BUNDLE_CONFIG_MAP",
        default_value = "spire-system/spire-bundle-upstream",
        value_name = "NAMESPACE/NAME"
    )]
    bundle_config_map: String,
}

impl AccessArguments {
    /// Who is let in, and for what.
    pub(super) fn access(&self) -> Result<ChildAccess, String> {
        Ok(ChildAccess {
            account: ChildAccount::Provided,
            needs: match self.mode {
                Mode::Remote => Needs::remote(self.bundle()?),
                Mode::Downstream => Needs::downstream(self.bundle()?),
            },
            impersonation: self.impersonation()?,
        })
    }

    /// Whom to act as.
    pub(super) fn impersonation(&self) -> Result<Option<Impersonation>, String> {
        let user = self.impersonate.as_ref();
        let who = user.map(|user| {
            let who = Impersonation::of(user, &self.impersonate_groups);
            who.ok_or("--impersonate: a name is empty or cannot be sent in a header")
        });
        Ok(who.transpose()?)
    }

    fn bundle(&self) -> Result<Option<ConfigMapName>, String> {
        if self.bundle_config_map == "none" {
            return Ok(None);
        }
        let parts = self.bundle_config_map.split_once('/');
        let parts = parts.filter(|(namespace, name)| is_name(namespace) && is_name(name));
        let (namespace, name) = parts.ok_or_else(|| {
            let given = &self.bundle_config_map;
            format!("--bundle-config-map {given:?}: must be NAMESPACE/NAME, or none")
        })?;
        Ok(Some(ConfigMapName {
            namespace: namespace.into(),
            name: name.into(),
        }))
    }
}

/// Whether an object can be called so: a DNS subdomain (RFC 1123).
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |label: &str| {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty()
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_word)
}

/// Prints.
pub(super) fn execute(command: &Command) -> Result<ExitCode, String> {
    let Command::Child(Arguments { access }) = command;
    print(&access.access()?.manifests())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_are_known() {
        for name in ["a", "child01", "a-b.c"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "-a", "a-", "a..b", "a/b", "a b", &"a".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
