//! A kubeconfig in words. Pure.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::ResourceRule;

use crate::nested::kubeconfig::{ChildKubeconfig, Credential, ServerTrust};
use crate::nested::rights::Missing;

/// What a kubeconfig is, without its secrets.
pub(super) fn kubeconfig(kubeconfig: &ChildKubeconfig, now: Timestamp) -> String {
    let server = &kubeconfig.server;
    let trust = match &server.trust {
        ServerTrust::Authorities(certificates) => format!("{} given CAs", certificates.len()),
        ServerTrust::System => "the CAs that the operator's image trusts".into(),
        ServerTrust::Unchecked => "NOT CHECKED".into(),
    };
    let credential = match &kubeconfig.credential {
        Credential::Token(_) => "a bearer token".into(),
        Credential::TokenFile(path) => format!("a bearer token in the file {path}"),
        Credential::ClientCertificate(_) => "a client certificate".into(),
        Credential::EksToken(cluster) => {
            format!(
                "a token for the EKS cluster {} in {}",
                cluster.name, cluster.region
            )
        }
        Credential::Plugin(plugin) => format!("what {} prints", plugin.command),
    };
    let ends = match kubeconfig.credential_expires_at() {
        None => "not known".into(),
        Some(end) if end <= now => format!("{end}: IT HAS ENDED"),
        Some(end) => format!("{end}, in {}", length(end.duration_since(now))),
    };
    let mut text = format!("server:       {}\n", server.url);
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<14}{value}", format!("{name}:"));
    };
    line("trusted by", &trust);
    if let Some(name) = &server.tls_server_name {
        line("known as", &name.to_str());
    }
    if server.proxy.is_some() {
        line("proxy", "yes");
    }
    line("credential", &credential);
    line("ends", &ends);
    if let Some(who) = &kubeconfig.impersonation {
        line("acts as", who.user());
        if !who.groups().is_empty() {
            line("in groups", &who.groups().join(", "));
        }
    }
    text
}

/// What may be done, one rule a line; `namespace` is where, without one the whole cluster.
pub(super) fn rules(namespace: Option<&str>, rules: &[ResourceRule]) -> String {
    let place = namespace.unwrap_or("the whole cluster");
    let mut text = format!("may do in {place}:\n");
    let join = |list: Option<&[String]>| list.unwrap_or_default().join(", ");
    for rule in rules {
        let groups = rule.api_groups.iter().flatten();
        let groups: Vec<_> = groups
            .map(|group| if group.is_empty() { "core" } else { group })
            .collect();
        let names = match rule.resource_names.as_deref() {
            None | Some([]) => String::new(),
            names => format!(" named {}", join(names)),
        };
        let _ = writeln!(
            text,
            "  {} {} ({}){names}",
            rule.verbs.join(", "),
            join(rule.resources.as_deref()),
            groups.join(", "),
        );
    }
    text
}

/// What is missing, with the rules that grant it.
pub(super) fn missing(missing: &[Missing]) -> String {
    if missing.is_empty() {
        return "missing:      nothing\n".into();
    }
    let mut text = String::from("missing:\n");
    for missing in missing {
        let role = match &missing.on.namespace {
            Some(namespace) => format!("a Role in {namespace}"),
            None => "a ClusterRole".into(),
        };
        let _ = writeln!(text, "  {missing}, granted by this rule of {role}:");
        for line in missing.yaml().lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// A length of time as people say it, in its largest unit that leaves two digits.
pub(super) fn length(length: SignedDuration) -> String {
    let seconds = length.as_secs();
    // What was granted a moment ago is a little shorter than what was asked for.
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", (seconds + 30) / 60),
        7200..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} d", (seconds + 43_200) / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nested::kubeconfig::ReadOptions;
    use crate::nested::rights::Needs;

    fn read(user: &str) -> ChildKubeconfig {
        let document = format!(
            "{{\"clusters\": [{{\"name\": \"c\", \"cluster\": {{\"server\": \"https://c:6443\"}}}}],
              \"users\": [{{\"name\": \"u\", \"user\": {user}}}],
              \"contexts\": [{{\"name\": \"x\", \"context\": {{\"cluster\": \"c\", \"user\": \"u\"}}}}]}}"
        );
        ChildKubeconfig::read(document.as_bytes(), &ReadOptions::default()).unwrap()
    }

    #[test]
    fn a_kubeconfig_is_told_without_its_secrets() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        // {"exp":1767312000}
        let token = "e30.eyJleHAiOjE3NjczMTIwMDB9.c2ln";
        let user =
            format!("{{\"token\": \"{token}\", \"as\": \"root\", \"as-groups\": [\"a\", \"b\"]}}");
        let text = kubeconfig(&read(&user), now);
        insta::assert_snapshot!(text, @r"
        server:       https://c:6443
        trusted by:   the CAs that the operator's image trusts
        credential:   a bearer token
        ends:         2026-01-02T00:00:00Z, in 24 h
        acts as:      root
        in groups:    a, b
        ");
        let later = "2027-01-01T00:00:00Z".parse().unwrap();
        let text = kubeconfig(&read(&user), later);
        assert!(
            text.contains("2026-01-02T00:00:00Z: IT HAS ENDED"),
            "{text}"
        );
        assert!(!text.contains(token));
    }

    #[test]
    fn what_is_missing_is_told_with_what_grants_it() {
        assert_eq!(missing(&[]), "missing:      nothing\n");
        let text = missing(&Missing::of(&Needs::default().rights()[..2]));
        insta::assert_snapshot!(text, @r#"
        missing:
          get, list pods, granted by this rule of a ClusterRole:
            - apiGroups: [""]
              resources: ["pods"]
              verbs: ["get", "list"]
        "#);
    }

    #[test]
    fn lengths_have_units() {
        let of = |seconds| length(SignedDuration::from_secs(seconds));
        assert_eq!(of(59), "59 s");
        assert_eq!(of(3599), "60 min");
        assert_eq!(of(86_399), "24 h");
        assert_eq!(of(30 * 86_400 - 1), "30 d");
    }
}
