//! Everything in `examples/` is accepted by an API server with our kinds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{apply, control_plane, documents};

/// Kinds of other projects, which the API server of the tests does not have.
const FOREIGN_GROUPS: &[&str] = &["cert-manager.io/"];

#[tokio::test]
async fn every_example_is_accepted() {
    let control_plane = control_plane().await;
    let client = control_plane.install_crds().await;
    control_plane.ensure_namespace("spiffe-demo").await;
    control_plane.ensure_namespace("spiffe-system").await;
    let mut kinds = BTreeSet::new();
    for file in examples() {
        for object in documents::<Value>(&file) {
            let group = object["apiVersion"].as_str().unwrap();
            if FOREIGN_GROUPS
                .iter()
                .any(|foreign| group.starts_with(foreign))
            {
                continue;
            }
            kinds.insert(object["kind"].as_str().unwrap().to_owned());
            let applied = apply(&client, &object).await;
            assert!(applied.is_ok(), "{file}: {object}: {applied:?}");
        }
    }
    for kind in ["TrustDomain", "ClusterSPIFFEID", "Deployment", "Pod"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
}

#[test]
fn every_example_is_listed_and_says_what_to_expect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("examples/README.md")).unwrap();
    for file in examples() {
        let name = file.trim_start_matches("examples/");
        assert!(
            list.contains(&format!("[{name}]({name})")),
            "{file} is not in the list"
        );
        let text = fs::read_to_string(root.join(&file)).unwrap();
        let first = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .count();
        assert!(first > 2, "{file} does not start with what to expect");
        assert!(
            text.contains(&format!("kubectl apply -f {file}")),
            "{file} does not say how"
        );
    }
}

fn examples() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["examples", "examples/nested"];
    let entries = folders.map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let paths = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|it| it == "yaml"));
    let within = |path: PathBuf| {
        path.strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let mut files: Vec<_> = yaml.map(within).collect();
    files.sort();
    files
}
