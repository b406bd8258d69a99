//! The command line as users type it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use spiffe_operator::api::custom_resource_definitions;
use tempfile::TempDir;

use crate::support::{ControlPlane, Options, install};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spiffe-operator"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = run(arguments, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs what must fail at once, and gives the one line that says why.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let problems: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
    let [line] = problems.as_slice() else {
        panic!("not one line: {text}")
    };
    assert!(line.starts_with("spiffe-operator: "), "{line}");
    (*line).to_owned()
}

#[test]
fn version_and_completion_are_printed() {
    let version = format!("spiffe-operator {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed(&["version"]), version);
    assert_eq!(printed(&["--version"]), version);
    let script = printed(&["completion", "bash"]);
    assert!(script.contains("complete -F "), "{script}");
    assert!(script.contains("--http-address"), "{script}");
}

#[tokio::test]
async fn the_printed_kinds_can_be_installed() {
    let text = printed(&["crds"]);
    let definitions: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(definitions, custom_resource_definitions());
    let own = ControlPlane::start(Options::default()).await;
    install(&own.client().await, &definitions).await;
}

#[test]
fn a_bad_kubeconfig_is_named() {
    for line in [
        refused(&["run", "--kubeconfig", "/nowhere/kubeconfig"], &[]),
        refused(
            &["run"],
            &[("SPIFFE_OPERATOR_KUBECONFIG", "/nowhere/kubeconfig")],
        ),
    ] {
        assert!(line.contains("/nowhere/kubeconfig"), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, "clusters: 7\n").unwrap();
    let line = refused(&["run", "--kubeconfig", file.to_str().unwrap()], &[]);
    assert!(line.contains("kubeconfig"), "{line}");
    let line = refused(&["run"], &[]);
    assert!(line.contains("--kubeconfig"), "{line}");
}

#[test]
fn a_bad_log_filter_is_named() {
    for line in [
        refused(&["run", "--log", "verbose"], &[]),
        refused(&["run"], &[("SPIFFE_OPERATOR_LOG", "verbose")]),
    ] {
        assert!(line.contains("verbose") && line.contains("debug"), "{line}");
    }
    let line = refused(&["run", "--log", "kube=loud"], &[]);
    assert!(line.contains("kube=loud"), "{line}");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_folder, file) = kubeconfig();
    for line in [
        refused(
            &["run", "--kubeconfig", &file, "--http-address", &address],
            &[],
        ),
        refused(
            &["run", "--kubeconfig", &file],
            &[("SPIFFE_OPERATOR_HTTP_ADDRESS", &address)],
        ),
    ] {
        assert!(
            line.contains(&address) && line.contains("--http-address"),
            "{line}"
        );
    }
}

#[test]
fn a_context_that_is_not_there_is_named() {
    let (_folder, file) = kubeconfig();
    for line in [
        refused(&["run", "--kubeconfig", &file, "--context", "absent"], &[]),
        refused(
            &["run", "--kubeconfig", &file],
            &[("SPIFFE_OPERATOR_CONTEXT", "absent")],
        ),
    ] {
        assert!(line.contains("absent"), "{line}");
    }
}

#[test]
fn the_environment_alone_may_say_how_to_run() {
    let (_folder, file) = kubeconfig();
    let mut operator = Command::new(env!("CARGO_BIN_EXE_spiffe-operator"))
        .arg("run")
        .env_clear()
        .env("SPIFFE_OPERATOR_KUBECONFIG", file)
        .env("SPIFFE_OPERATOR_NAMESPACE", "of-the-environment")
        .env("SPIFFE_OPERATOR_IDENTITY", "replica-7")
        .env("SPIFFE_OPERATOR_HTTP_ADDRESS", "127.0.0.1:0")
        .env("SPIFFE_OPERATOR_LOG_FORMAT", "text")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(operator.stderr.take().unwrap());
    let mut lines = log.lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("listening"));
    operator.kill().unwrap();
    operator.wait().unwrap();
    let line = line.expect("it listens");
    for word in ["of-the-environment", "replica-7", "127.0.0.1:"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert!(!line.starts_with('{'), "{line}");
}

/// A kubeconfig of a cluster that is not there; the folder keeps it.
fn kubeconfig() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        contexts: [{name: c, context: {cluster: c, user: u}}]\n\
        clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
        users: [{name: u, user: {token: t}}]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

#[test]
fn a_mistake_in_usage_is_one_line_and_has_a_status_of_its_own() {
    for arguments in [
        &["run", "--nonsense"][..],
        &["run", "--http-address", "nowhere"],
        &["run", "--log-format", "xml"],
        &["render"],
        &["nonsense"],
        &[],
    ] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
        assert!(text.starts_with("spiffe-operator: "), "{text}");
        assert!(text.contains("--help'"), "{text}");
    }
    let output = run(&["run"], &[("SPIFFE_OPERATOR_LOG_FORMAT", "xml")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
