//! What `deny.toml` says of dependencies, without cargo-deny, which takes minutes to build: no
//! banned crate is compiled into the program, every licence is listed, all come from crates.io.

use std::{fs, process::Command};

use super::root;

/// A package that is compiled into the program, as `cargo tree` names it.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    licence: String,
}

#[test]
fn dependencies_are_allowed() {
    let rules = fs::read_to_string(root().join("deny.toml")).unwrap();
    let banned = quoted_after(&rules, "deny = [");
    let licences = quoted_after(&rules, "allow = [");
    let targets = quoted_after(&rules, "targets = [");
    assert!(!banned.is_empty() && !licences.is_empty() && !targets.is_empty());
    for target in targets {
        let packages = compiled(&target);
        let named = |name: &str| packages.iter().any(|package| package.name == name);
        assert!(named("aws-lc-rs") && named("kube"), "{packages:?}");
        assert!(
            !named("proptest"),
            "dependencies of tests are not compiled in"
        );
        let problems = problems(&packages, &banned, &licences);
        assert!(problems.is_empty(), "{target}: {problems:#?}");
    }
}

#[test]
fn packages_come_from_the_public_registry() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let elsewhere: Vec<_> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("source = "))
        .filter(|source| *source != "\"registry+https://github.com/rust-lang/crates.io-index\"")
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// What is compiled into the program for `target`, build scripts included.
fn compiled(target: &str) -> Vec<Package> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args([
            "--edges",
            "normal,build",
            "--format",
            "{p}|{l}",
            "--target",
            target,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(package).collect()
}

fn package(line: &str) -> Option<Package> {
    let (package, licence) = line.split_once('|')?;
    Some(Package {
        name: package.split(' ').next()?.into(),
        licence: licence.trim_end_matches(" (*)").into(),
    })
}

fn problems(packages: &[Package], banned: &[String], licences: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    for Package { name, licence } in packages {
        if banned.contains(name) {
            problems.push(format!("{name} is banned"));
        }
        if !may_be_used(licence, licences) {
            problems.push(format!("{name} has the licence {licence:?}"));
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// Whether a licence expression (SPDX, or with slashes as in old manifests) can be met by `allowed`.
fn may_be_used(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    alternatives(&mut words, allowed) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn alternatives(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut any = conjunction(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        any |= conjunction(words, allowed);
    }
    any
}

fn conjunction(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut all = licence(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        all &= licence(words, allowed);
    }
    all
}

fn licence(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let Some(name) = words.next() else {
        return false;
    };
    if name == "(" {
        return alternatives(words, allowed) && words.next() == Some(")");
    }
    let mut name = name.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&name)
}

/// The quoted words of the list that starts with `start`, comments left out.
fn quoted_after(text: &str, start: &str) -> Vec<String> {
    let mut words = Vec::new();
    let list = text
        .split_once(&format!("\n{start}"))
        .map_or("", |(_, list)| list);
    for line in list.lines().take_while(|line| !line.starts_with(']')) {
        let code = line.split('#').next().unwrap_or_default();
        words.extend(code.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    words
}

#[test]
fn a_banned_crate_or_a_strange_licence_is_found() {
    let lines = [
        "ring v0.17.14|ISC",
        "odd v1.0.0 (proc-macro)|GPL-3.0-only (*)",
        "fine v2.0.0|MIT",
    ];
    let packages: Vec<_> = lines.iter().filter_map(|line| package(line)).collect();
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let found = problems(&packages, &words(&["ring"]), &words(&["ISC", "MIT"]));
    assert_eq!(
        found,
        ["odd has the licence \"GPL-3.0-only\"", "ring is banned"]
    );
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR (MIT AND ISC)", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR Apache-2.0) AND ISC", false),
        ("", false),
    ] {
        assert_eq!(may_be_used(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn lists_of_the_rules_are_read() {
    let text = "[bans]\ndeny = [\n    # \"no\"\n    { crate = \"ring\" }, # why\n    { crate = \"b\" },\n]\n\"x\"\n";
    assert_eq!(quoted_after(text, "deny = ["), ["ring", "b"]);
    assert!(quoted_after(text, "allow = [").is_empty());
}
