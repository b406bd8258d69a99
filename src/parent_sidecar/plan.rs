//! Which files a server is to find, from those that are mounted and those that are there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::nested::parent::{
    ENTRY, KUBE_CONFIG_FILE, KUBECONFIG, PLUGIN_DATA_FILE, TOKEN, plugin_data, read_entry,
};

/// Files of a folder by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Credentials to write.
    pub(super) credentials: Files,
    /// The plugin data to write, if it is to change.
    pub(super) plugin_data: Option<String>,
    /// Credentials of clusters that are no more, to remove last.
    pub(super) remove: BTreeSet<String>,
    /// What was left out, in words.
    pub(super) problems: Vec<String>,
}

/// What to do to bring `present`, the files of the folder `target`, to what `config` and `secret` say.
///
/// An entry whose kubeconfig is not there waits: the kubelet renews the two mounts one after the other. The
/// credentials of a cluster stay for as long as there is an entry of it.
pub(super) fn plan(config: &Files, secret: &Files, present: &Files, target: &str) -> Plan {
    let mut plan = Plan::default();
    let mut entries = BTreeMap::new();
    for (file, bytes) in config {
        let Some(cluster) = file.strip_suffix(ENTRY) else {
            continue;
        };
        let kubeconfig = format!("{cluster}{KUBECONFIG}");
        let is_there = secret.contains_key(&kubeconfig) || present.contains_key(&kubeconfig);
        match read_entry(bytes) {
            Ok(entry) if is_there || entry.contains_key(KUBE_CONFIG_FILE) => {
                entries.insert(cluster.to_owned(), entry);
            }
            Ok(_) => plan.problems.push(format!("{file} waits for {kubeconfig}")),
            Err(error) => plan.problems.push(format!("{file} is left out: {error}")),
        }
    }
    let has_entry = |file: &str| {
        cluster_of(file).is_some_and(|cluster| config.contains_key(&format!("{cluster}{ENTRY}")))
    };
    let news = secret
        .iter()
        .filter(|(file, bytes)| has_entry(file) && present.get(*file) != Some(*bytes));
    plan.credentials = news
        .map(|(file, bytes)| (file.clone(), bytes.clone()))
        .collect();
    let text = plugin_data(entries, target.trim_end_matches('/'));
    if present.get(PLUGIN_DATA_FILE).map(Vec::as_slice) != Some(text.as_bytes()) {
        plan.plugin_data = Some(text);
    }
    let gone = present
        .keys()
        .filter(|file| cluster_of(file).is_some() && !has_entry(file));
    plan.remove = gone.cloned().collect();
    plan
}

/// The cluster whose credential a file is.
fn cluster_of(file: &str) -> Option<&str> {
    file.strip_suffix(KUBECONFIG)
        .or_else(|| file.strip_suffix(TOKEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> Files {
        let files = all.iter();
        files
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    /// What is there once a plan was carried out.
    fn carried_out(plan: &Plan, present: &Files) -> Files {
        let mut present = present.clone();
        present.extend(plan.credentials.clone());
        if let Some(text) = &plan.plugin_data {
            present.insert(PLUGIN_DATA_FILE.into(), text.clone().into_bytes());
        }
        present.retain(|file, _| !plan.remove.contains(file));
        present
    }

    const ENTRY_TEXT: &str = r#"{"service_account_allow_list":["spire:agent"]}"#;

    #[test]
    fn clusters_come_and_go_and_nothing_is_done_twice() {
        let nothing = plan(&Files::new(), &Files::new(), &Files::new(), "/t");
        assert_eq!(
            nothing.plugin_data.as_deref(),
            Some("{\n  \"clusters\": {}\n}\n")
        );
        let empty = carried_out(&nothing, &Files::new());

        let config = files(&[("a.json", ENTRY_TEXT)]);
        let secret = files(&[
            ("a.kubeconfig", "{}"),
            ("a.token", "1"),
            ("b.token", "stray"),
        ]);
        let added = plan(&config, &secret, &empty, "/t/");
        let names: Vec<_> = added.credentials.keys().collect();
        assert_eq!(names, ["a.kubeconfig", "a.token"]);
        let text = added.plugin_data.as_deref().unwrap();
        assert!(
            text.contains("\"kube_config_file\": \"/t/a.kubeconfig\""),
            "{text}"
        );
        let one = carried_out(&added, &empty);
        assert_eq!(plan(&config, &secret, &one, "/t"), Plan::default());

        let removed = plan(&Files::new(), &Files::new(), &one, "/t");
        let names: Vec<_> = removed.remove.iter().collect();
        assert_eq!(names, ["a.kubeconfig", "a.token"]);
        assert_eq!(carried_out(&removed, &one), empty);
    }

    #[test]
    fn a_renewed_token_changes_no_plugin_data() {
        let config = files(&[("a.json", ENTRY_TEXT)]);
        let secret = |token| files(&[("a.kubeconfig", "{}"), ("a.token", token)]);
        let first = plan(&config, &secret("1"), &Files::new(), "/t");
        let present = carried_out(&first, &Files::new());
        let renewed = plan(&config, &secret("2"), &present, "/t");
        assert_eq!(renewed.plugin_data, None);
        assert_eq!(renewed.credentials, files(&[("a.token", "2")]));
    }

    #[test]
    fn what_is_incomplete_or_broken_waits_and_disturbs_nobody() {
        let config = files(&[
            ("a.json", ENTRY_TEXT),
            ("b.json", ENTRY_TEXT),
            ("c.json", "["),
            // The server's own cluster, of which nobody brings a kubeconfig.
            ("own.json", r#"{"kube_config_file":""}"#),
        ]);
        let secret = files(&[("a.kubeconfig", "{}"), ("c.kubeconfig", "{}")]);
        let added = plan(&config, &secret, &Files::new(), "/t");
        let text = added.plugin_data.clone().unwrap();
        let has = |cluster: &str| text.contains(&format!("\"{cluster}\": {{"));
        assert_eq!(
            ["a", "b", "c", "own"].map(has),
            [true, false, false, true],
            "{text}"
        );
        assert_eq!(added.problems.len(), 2, "{:?}", added.problems);
        // A Secret that goes before the entry does not take the entry with it.
        let present = carried_out(&added, &Files::new());
        let without = plan(&config, &Files::new(), &present, "/t");
        assert_eq!(without.plugin_data, None);
        assert!(without.remove.is_empty());
    }
}
