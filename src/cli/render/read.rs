//! Objects from YAML and JSON: files, folders, standard input.
//!
//! A document that is malformed is an error that names it, and the others are read all the same.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod},
    discovery::v1::EndpointSlice,
};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::api::{ClusterSPIFFEID, ClusterStaticEntry, TrustDomain};

/// Endings of the files that are read from folders.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// Text and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, as it was named.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Everything that takes part in registration.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Each TrustDomain.
    pub trust_domains: Vec<TrustDomain>,
    /// ClusterSPIFFEIDs.
    pub cluster_spiffe_ids: Vec<ClusterSPIFFEID>,
    /// ClusterStaticEntries.
    pub cluster_static_entries: Vec<ClusterStaticEntry>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// EndpointSlices.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// What was left out, and why that is no failure.
    pub notes: Vec<String>,
    /// What could not be read.
    pub errors: Vec<String>,
}

/// Reads what `paths` name; `-` is `stdin`.
///
/// # Errors
/// When a path cannot be read.
pub fn sources(paths: &[PathBuf], mut stdin: impl io::Read) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = io::read_to_string(&mut stdin)
                .map_err(|error| format!("cannot read standard input: {error}"))?;
            sources.push(Source {
                name: "standard input".into(),
                text,
            });
            continue;
        }
        for file in files(path)? {
            let text = fs::read_to_string(&file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            sources.push(Source {
                name: file.display().to_string(),
                text,
            });
        }
    }
    Ok(sources)
}

/// `path` itself, or the files in it that can hold objects, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let problem = |error| format!("cannot read {}: {error}", path.display());
    if !fs::metadata(path).map_err(problem)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(problem)? {
        let file = entry.map_err(problem)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if file.is_file() && extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// The objects in `sources`, in their order. Of several with the same name each is there.
#[must_use]
pub fn objects(sources: &[Source]) -> Objects {
    let mut objects = Objects::default();
    for source in sources {
        for (number, document) in documents(&source.text).into_iter().enumerate() {
            let place = format!("{}, document {}", source.name, number + 1);
            match document {
                Ok(Json::Null) => {}
                Ok(document) => objects.add(document, &place),
                Err(problem) => objects.errors.push(format!("{place}: {problem}")),
            }
        }
    }
    objects
}

/// The documents of a text. JSON is told from YAML by its first character.
fn documents(text: &str) -> Vec<Result<Json, String>> {
    if text.trim_start().starts_with('{') {
        return serde_json::Deserializer::from_str(text)
            .into_iter()
            .map(|document| document.map_err(|error| error.to_string()))
            .collect();
    }
    yaml_documents(text)
        .iter()
        .map(|text| parse_yaml(text))
        .collect()
}

/// Cuts YAML at its document markers, so that one malformed document does not hide the others.
fn yaml_documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("---");
        let is_marker =
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker {
            documents.push(rest.unwrap_or_default().into());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
        }
    }
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if documents
        .first()
        .is_some_and(|first| first.lines().all(is_blank))
        && documents.len() > 1
    {
        documents.remove(0);
    }
    documents
}

fn parse_yaml(text: &str) -> Result<Json, String> {
    // The default budget is made for small untrusted documents; a list of all pods is large.
    let options = serde_saphyr::options! { budget: None };
    let first_line = |error: serde_saphyr::Error| {
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let parsed: Option<Json> =
        serde_saphyr::from_str_with_options(text, options).map_err(first_line)?;
    Ok(parsed.unwrap_or_default())
}

impl Objects {
    fn add(&mut self, document: Json, place: &str) {
        let text = |field: &str| {
            document
                .get(field)
                .and_then(Json::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        if version.is_empty() || kind.is_empty() {
            self.errors.push(format!(
                "{place}: no Kubernetes object (apiVersion or kind is missing)"
            ));
            return;
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let errors = &mut self.errors;
        match (group, kind.as_str()) {
            ("", "List") => {
                let items = document.get("items").and_then(Json::as_array).cloned();
                for (number, item) in items.into_iter().flatten().enumerate() {
                    self.add(item, &format!("{place}, item {}", number + 1));
                }
            }
            ("", "Namespace") => push(&mut self.namespaces, document, place, errors),
            ("", "Node") => push(&mut self.nodes, document, place, errors),
            ("", "Pod") => push(&mut self.pods, document, place, errors),
            ("discovery.k8s.io", "EndpointSlice") => {
                push(&mut self.endpoint_slices, document, place, errors);
            }
            ("spiffe-operator.io", "TrustDomain") => {
                push(&mut self.trust_domains, document, place, errors);
            }
            ("spire.spiffe.io", "ClusterSPIFFEID") => {
                push(&mut self.cluster_spiffe_ids, document, place, errors);
            }
            ("spire.spiffe.io", "ClusterStaticEntry") => {
                push(&mut self.cluster_static_entries, document, place, errors);
            }
            _ => self.notes.push(format!(
                "{place}: {kind} ({version}) plays no part; left out"
            )),
        }
    }
}

fn push<T: DeserializeOwned>(
    objects: &mut Vec<T>,
    document: Json,
    place: &str,
    errors: &mut Vec<String>,
) {
    let name = document
        .pointer("/metadata/name")
        .and_then(Json::as_str)
        .map(str::to_owned);
    let kind = document
        .get("kind")
        .and_then(Json::as_str)
        .map(str::to_owned);
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        errors.push(format!("{place}: metadata.name is missing"));
        return;
    };
    match serde_json::from_value(document) {
        Ok(object) => objects.push(object),
        Err(error) => {
            errors.push(format!(
                "{place}: {} {name}: {error}",
                kind.unwrap_or_default()
            ));
        }
    }
}
