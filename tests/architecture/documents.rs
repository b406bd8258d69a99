//! What the repository's documents must say.

/// Targets of links to files, without the part after `#`; nothing in code is a link.
pub(crate) fn relative_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect();
        for part in prose.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

/// Direct dependencies in `manifest` that no list item or table row of `architecture` names first.
pub(crate) fn unexplained_dependencies(manifest: &str, architecture: &str) -> Vec<String> {
    dependencies(manifest)
        .into_iter()
        .filter(|name| {
            let quoted = format!("`{name}`");
            !architecture.lines().any(|line| {
                line.starts_with(['-', '*', '|'])
                    && line
                        .split_once(&quoted)
                        .is_some_and(|(_, reason)| reason.trim().len() > 10)
            })
        })
        .collect()
}

fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_dependency = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependency = matches!(line, "[dependencies]" | "[dev-dependencies]");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| is_dependency) {
            names.push(name.trim().to_owned());
        }
    }
    names.sort();
    names.dedup();
    names
}

/// The list items under headings that speak of invariants, each with its continuation lines.
pub(crate) fn invariants(architecture: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut within = false;
    for line in architecture.lines() {
        if line.starts_with('#') {
            within = line.to_lowercase().contains("invariants");
        } else if within && (line.starts_with("- ") || line.starts_with("* ")) {
            items.push(line.to_owned());
        } else if let Some(item) = items.last_mut().filter(|_| within && line.starts_with(' ')) {
            item.push('\n');
            item.push_str(line);
        }
    }
    items
}

/// Names of the metrics that `source` registers, without prefix and without the `_total` of counters.
pub(crate) fn registered_metrics(source: &str) -> Vec<String> {
    let mut names: Vec<_> = source
        .split(".register(")
        .skip(1)
        .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next())
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// Names of the metrics that have a row of their own in `document`, in the same form.
pub(crate) fn documented_metrics(document: &str) -> Vec<String> {
    let mut names: Vec<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `spiffe_operator_")?.split('`').next())
        .map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned())
        .collect();
    names.sort();
    names
}

/// The methods of the services in the text of a `.proto` file, each `Service/Method`, sorted.
pub(crate) fn methods(proto: &str) -> Vec<String> {
    let mut service = "";
    let mut methods = Vec::new();
    for line in proto.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            let method = rest.split('(').next().unwrap_or_default();
            methods.push(format!("{service}/{method}"));
        }
    }
    methods.sort();
    methods
}

/// The methods in the rows of the table under `| service | method | state |` whose state is told, in
/// the same form and as often as they are there.
pub(crate) fn documented_methods(document: &str) -> Vec<String> {
    let lines = document.lines();
    let table = lines.skip_while(|line| *line != "| service | method | state |");
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let mut methods = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, service, names, state, _] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let service = service.split(' ').next().unwrap_or_default();
        let names = names.split('`').skip(1).step_by(2);
        methods.extend(
            names
                .filter(|_| !state.is_empty())
                .map(|name| format!("{service}/{name}")),
        );
    }
    methods.sort();
    methods
}

/// What is wrong with the tests that an invariant names in backticks, alone or at the end of a path:
/// it names none, or some that are not among `tests`. Like a test's looks a name of several words.
pub(crate) fn problem_with_tests(invariant: &str, tests: &[String]) -> Option<String> {
    let quoted = invariant.split('`').skip(1).step_by(2);
    let names = quoted.map(|quoted| quoted.rsplit("::").next().unwrap_or_default());
    let (known, others): (Vec<_>, Vec<_>) =
        names.partition(|name| tests.iter().any(|test| test == name));
    let unknown: Vec<_> = others
        .into_iter()
        .filter(|name| is_like_a_test(name))
        .collect();
    if !unknown.is_empty() {
        return Some(format!("no test is called {unknown:?}: {invariant}"));
    }
    known
        .is_empty()
        .then(|| format!("names no test: {invariant}"))
}

fn is_like_a_test(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.contains('_') && name.chars().all(is_word)
}

#[test]
fn finds_relative_links_only() {
    let text =
        "[a](b.md#c) [d](https://e) [f](#g) [h](mailto:i)\n```\n[j](k)\n```\n`[n](o)` ![l](m.png)";
    assert_eq!(relative_links(text), ["b.md", "m.png"]);
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nkube = \"5\"\nserde = { version = \
                    \"1\" }\nrand = \"1\"\n[lints.rust]\nmissing_docs = \"warn\"\n";
    let text = "- `kube`: the client of the Kubernetes API\n| `rand` | |\nserde is `serde` here\n";
    assert_eq!(unexplained_dependencies(manifest, text), ["rand", "serde"]);
}

#[test]
fn metrics_are_found() {
    let source = "r.register(\n  \"b_errors\",\n \"Help\",\n x);\nr.register(\"a\", \"Help\", y);\nself.register();";
    assert_eq!(registered_metrics(source), ["a", "b_errors"]);
    let document = "| `spiffe_operator_b_errors_total` | counter |\n| `spiffe_operator_a` | |\nas `spiffe_operator_c`\n";
    assert_eq!(documented_metrics(document), ["a", "b_errors"]);
}

#[test]
fn methods_are_found() {
    let proto = "service A {\n  rpc Two(X) returns (Y);\n  rpc One(stream X) returns (Y);\n}\n";
    assert_eq!(methods(proto), ["A/One", "A/Two"]);
    let document = "| `No` | `X` | |\n\n| service | method | state |\n|---|---|---|\n\
                    | A | `Two`, `One` | as there |\n| B (`b.v1`) | `Three` | |\n\n| A | `No` | x |\n";
    assert_eq!(documented_methods(document), ["A/One", "A/Two"]);
}

#[test]
fn an_invariant_without_a_test_is_found() {
    let text = "# A\n- no\n## Invariants\n- One: `tests/architecture.rs::pure`\n- Two: `decide.rs`,\n  \
                see `is_pure`\n- Three `plan.rs`\n- Four `pure`, `was_renamed`\n# B\n- no `pure`\n";
    let tests = ["pure".to_owned(), "is_pure".to_owned()];
    let problems: Vec<_> = invariants(text)
        .iter()
        .map(|text| problem_with_tests(text, &tests))
        .collect();
    let problem = |text: &str| Some(text.to_owned());
    assert_eq!(
        problems,
        [
            None,
            None,
            problem("names no test: - Three `plan.rs`"),
            problem("no test is called [\"was_renamed\"]: - Four `pure`, `was_renamed`"),
        ]
    );
}
