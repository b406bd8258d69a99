//! What a source file names, apart from comments and tests.

use std::collections::BTreeSet;

/// A source file.
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// What comes before its tests.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
            .to_owned();
        Self { path, text, code }
    }

    /// Those of `words` that the code uses. A word is a path or its end (`std::env`, `Instant`), the
    /// name of a crate (`::rand`, which `other::rand` is not), or of a macro with its `!`.
    pub(crate) fn named(&self, words: &[&str]) -> Vec<String> {
        let code: String = self
            .code
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
        let (used, rest) = used_paths(&code);
        let spelled = |code: &str| -> Vec<String> {
            let words = code.split(|c: char| !is_path_character(c));
            words.map(str::to_owned).collect()
        };
        // Within a declaration a path may lack its beginning.
        let whole = [used, spelled(&rest)].concat();
        let any = [&whole[..], &spelled(&code)].concat();
        words
            .iter()
            .filter(|word| {
                let paths = if word.starts_with("::") { &whole } else { &any };
                paths.iter().any(|path| contains_path(path, word))
            })
            .map(|word| format!("names {word}"))
            .collect()
    }
}

fn is_path_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':' | '!')
}

/// Whether the segments of `word` occur in `path`, one after the other; with a leading `::` at its
/// beginning.
fn contains_path(path: &str, word: &str) -> bool {
    if let Some(name) = word.strip_prefix("::") {
        return path.split("::").next() == Some(name);
    }
    let path: Vec<_> = path.split("::").collect();
    let word: Vec<_> = word.split("::").collect();
    path.windows(word.len()).any(|window| window == word)
}

/// The full paths of all `use` declarations in `code`, and what is left without them.
fn used_paths(code: &str) -> (Vec<String>, String) {
    let mut paths = Vec::new();
    let mut left = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let Some((before, after)) = rest.split_at_checked(start + 4) else {
            break;
        };
        let Some((tree, tail)) = after.split_once(';') else {
            break;
        };
        let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        expand("", &tree, &mut paths);
        left.push_str(before);
        rest = tail;
    }
    left.push_str(rest);
    (paths, left)
}

/// Writes `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        paths.push(format!("{prefix}{name}"));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let mut depth = 0;
    let mut item = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &std::mem::take(&mut item), paths);
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    expand(&prefix, &item, paths);
}

/// Paths of files that are compiled for tests only: `#[cfg(test)] mod name;`.
pub(crate) fn test_only_files(files: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files {
        let folder = match file
            .path
            .strip_suffix("/mod.rs")
            .or(file.path.strip_suffix("/lib.rs"))
        {
            Some(folder) => folder,
            None => file.path.trim_end_matches(".rs"),
        };
        for part in file.text.split("#[cfg(test)]\nmod ").skip(1) {
            if let Some((name, _)) = part.split_once(';').filter(|(name, _)| !name.contains('{')) {
                found.insert(format!("{folder}/{name}.rs"));
            }
        }
        // `#[path = "name.rs"]` stands between the two, and means the file's own folder.
        let beside = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for part in file.text.split("#[cfg(test)]\n#[path = \"").skip(1) {
            if let Some((name, _)) = part.split_once('"') {
                found.insert(format!("{beside}/{name}"));
            }
        }
    }
    found
}

/// Names of the test functions in `text`.
pub(crate) fn test_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}

#[test]
fn finds_what_a_file_names() {
    let file = Source::new(
        "src/registration/a.rs".into(),
        "//! A.\nuse kube::{api::{ListParams, Api}, Client as K};\nuse std::{env, fmt};\n\
         // tokio is only a comment\nfn f() { println!(); let t = jiff::Timestamp::now(); }\n\
         #[cfg(test)]\nmod tests {\n use tokio::time; }\n"
            .into(),
    );
    let words = [
        "kube::api::Api",
        "kube::Client",
        "std::env",
        "Timestamp::now",
        "println!",
    ];
    assert_eq!(file.named(&words).len(), words.len());
    let words = ["::kube", "::jiff"];
    assert_eq!(file.named(&words).len(), words.len());
    assert!(file.named(&["::api", "::Timestamp"]).is_empty());
    assert!(
        file.named(&["tokio", "kube::runtime", "std::fs", "print!", "Instant"])
            .is_empty()
    );
}

#[test]
fn a_path_is_compared_by_whole_segments() {
    assert!(contains_path("tokio::time::Instant", "Instant"));
    assert!(!contains_path("InstantaneousSpeed", "Instant"));
    assert!(!contains_path("my_tokio::x", "tokio"));
    assert!(contains_path("rand::random", "::rand"));
    assert!(!contains_path("crypto::rand::SystemRandom", "::rand"));
}

#[test]
fn files_for_tests_only_are_left_out() {
    let files = [
        ("src/a/mod.rs", "#[cfg(test)]\nmod simulation;\nmod real;"),
        (
            "src/b/c.rs",
            "#[cfg(test)]\n#[path = \"c_tests.rs\"]\nmod tests;",
        ),
        ("src/b/d.rs", "#[cfg(test)]\nmod tests {}"),
    ]
    .map(|(path, text)| Source::new(path.into(), text.into()));
    let expected = ["src/a/simulation.rs", "src/b/c_tests.rs"].map(str::to_owned);
    assert_eq!(test_only_files(&files), expected.into());
}

#[test]
fn finds_the_names_of_tests() {
    let text = "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test]\nasync fn c() {}\n";
    assert_eq!(test_names(text), ["a", "c"]);
}
