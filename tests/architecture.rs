//! The invariants of ARCHITECTURE.md that no compiler checks. Each rule is a function from text to
//! what is wrong with it, tried here on text that breaks it, then run over the repository.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "architecture/dependencies.rs"]
mod dependencies;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/source.rs"]
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use source::Source;

/// Folders whose every file is pure.
const PURE_FOLDERS: &[&str] = &[
    "src/authority/",
    "src/spiffe/",
    "src/registration/",
    "src/domains/",
    "src/nested/",
];
/// How the first line of every other pure file ends: decisions, apart from what carries them out.
const CLAIM: &str = " Pure.";
/// What pure code does not name: I/O, clocks, the environment, chance, and collections without an
/// order. Keys, serial numbers and signatures need chance; they get it from the cryptographic library.
const IMPURE: &[&str] = &[
    "tokio",
    "kube::Api",
    "kube::Client",
    "kube::api::Api",
    "kube::client",
    "kube::runtime",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "::rand",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
];
/// What speaks to a Kubernetes API, and who may. Of the command line only what starts the operator
/// what renders a live cluster and what lets it into one makes a client.
const KUBERNETES_CLIENT: &[&str] = &[
    "kube::Api",
    "kube::api::Api",
    "kube::Client",
    "kube::client",
];
const MAY_CALL_KUBERNETES: &[&str] = &[
    "src/cli/crds.rs",
    "src/cli/kubeconfig/",
    "src/cli/render",
    "src/cli/run.rs",
    "src/clusters/",
    "src/controllers/",
    "src/runtime/",
    "src/store/",
];
/// Only the command line writes to the terminal.
const TERMINAL: &[&str] = &["print!", "println!", "eprint!", "eprintln!"];
const MAY_USE_THE_TERMINAL: &[&str] = &["src/cli/", "src/main.rs"];
/// Longest file, not counting its tests.
const MAX_LINES: usize = 450;

#[test]
fn pure_modules_do_no_io() {
    assert_all(|file| {
        let pure = PURE_FOLDERS
            .iter()
            .any(|folder| file.path.starts_with(folder))
            || file
                .text
                .lines()
                .next()
                .is_some_and(|line| line.ends_with(CLAIM));
        if pure { file.named(IMPURE) } else { Vec::new() }
    });
}

#[test]
fn only_effects_call_kubernetes() {
    assert_all(|file| {
        let may = MAY_CALL_KUBERNETES
            .iter()
            .any(|prefix| file.path.starts_with(prefix));
        if may {
            Vec::new()
        } else {
            file.named(KUBERNETES_CLIENT)
        }
    });
}

#[test]
fn only_the_command_line_prints() {
    assert_all(|file| {
        let may = MAY_USE_THE_TERMINAL
            .iter()
            .any(|prefix| file.path.starts_with(prefix));
        if may {
            Vec::new()
        } else {
            file.named(TERMINAL)
        }
    });
}

#[test]
fn every_file_says_what_it_is() {
    assert_all(|file| {
        let missing = !file.text.starts_with("//! ");
        missing
            .then(|| "does not start with //!".to_owned())
            .into_iter()
            .collect()
    });
}

#[test]
fn files_are_short() {
    assert_all(|file| {
        let lines = file.code.lines().count();
        (lines > MAX_LINES)
            .then(|| format!("has {lines} lines before its tests, more than {MAX_LINES}"))
            .into_iter()
            .collect()
    });
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for path in files_under(root(), "md") {
        let text = fs::read_to_string(&path).unwrap();
        for target in documents::relative_links(&text) {
            if !path.parent().unwrap().join(&target).exists() {
                problems.push(format!("{} links to {target}", path.display()));
            }
        }
    }
    assert!(problems.is_empty(), "dead links: {problems:#?}");
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let registered = documents::registered_metrics(&read("src/runtime/metrics.rs"));
    assert!(registered.len() > 10, "{registered:?}");
    let documented = documents::documented_metrics(&read("docs/operations.md"));
    assert_eq!(registered, documented);
}

#[test]
fn every_method_of_the_api_is_documented_and_no_other() {
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    // Of the others we are a client.
    let protos = files_under(&root().join("proto/spire"), "proto");
    let mut methods: Vec<_> = protos
        .iter()
        .flat_map(|path| documents::methods(&read(path)))
        .collect();
    // Its interface comes with a crate.
    methods.extend(["Health/Check", "Health/Watch"].map(str::to_owned));
    methods.sort();
    assert!(methods.len() > 60, "{methods:?}");
    let document = read(&root().join("docs/compatibility.md"));
    assert_eq!(documents::documented_methods(&document), methods);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let unexplained = documents::unexplained_dependencies(&manifest, &architecture());
    assert!(
        unexplained.is_empty(),
        "no line in ARCHITECTURE.md for {unexplained:?}"
    );
}

#[test]
fn every_invariant_names_its_test() {
    let tests: Vec<_> = files_under(&root().join("src"), "rs")
        .into_iter()
        .chain(files_under(&root().join("tests"), "rs"))
        .flat_map(|path| source::test_names(&fs::read_to_string(path).unwrap()))
        .collect();
    let architecture = architecture();
    let invariants = documents::invariants(&architecture);
    assert!(
        !invariants.is_empty(),
        "ARCHITECTURE.md has no list under a heading with Invariants"
    );
    let problems: Vec<_> = invariants
        .iter()
        .filter_map(|text| documents::problem_with_tests(text, &tests))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md can be read")
}

/// Fails with whatever `check` finds in the sources that are not tests.
fn assert_all(check: impl Fn(&Source) -> Vec<String>) {
    let files: Vec<_> = files_under(&root().join("src"), "rs")
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            Source::new(name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(
        files.iter().any(|file| file.path == "src/lib.rs"),
        "no sources found"
    );
    let tests = source::test_only_files(&files);
    let problems: Vec<_> = files
        .iter()
        .filter(|file| !tests.contains(&file.path))
        .flat_map(|file| {
            check(file)
                .into_iter()
                .map(move |problem| format!("{}: {problem}", file.path))
        })
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Files with this extension, sorted; not those of builds, of generated code and of hidden folders.
fn files_under(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "generated" {
            found.extend(files_under(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
