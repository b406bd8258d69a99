//! Mistakes in the command line, in one line each.

use clap::Error;

/// What `error` says, and where to read on, without the line breaks of clap.
pub(super) fn one_line(error: &Error) -> String {
    let text = error.to_string();
    let (problem, usage) = text.split_once("\n\nUsage: ").unwrap_or((&text, ""));
    let (problem, _) = problem
        .split_once("\n\nFor more information")
        .unwrap_or((problem, ""));
    let problem = problem.trim_start_matches("error: ");
    let words: Vec<_> = problem.split_whitespace().collect();
    format!(
        "{}; see '{} --help'",
        words.join(" "),
        command_of(usage).unwrap_or_else(|| "spiffe-operator".into())
    )
}

/// The program and its subcommand, with which a line of usage begins.
fn command_of(usage: &str) -> Option<String> {
    let is_name = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
    let words: Vec<_> = usage.split_whitespace().take_while(is_name).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::CommandLine;

    #[test]
    fn a_mistake_is_told_in_one_line_with_what_to_do() {
        for (arguments, words, hint) in [
            (
                &["run", "--nonsense"][..],
                "'--nonsense'",
                "spiffe-operator run --help",
            ),
            (
                &["run", "--log-format", "xml"],
                "[possible values: json, text]",
                "spiffe-operator --help",
            ),
            (
                &["render"],
                "required arguments were not provided: <PATH>...",
                "spiffe-operator render --help",
            ),
            (
                &["rendder", "x"],
                "similar subcommand exists: 'render'",
                "spiffe-operator --help",
            ),
            (&[], "subcommand", "spiffe-operator --help"),
        ] {
            let arguments = [&["spiffe-operator"], arguments].concat();
            let line = one_line(&CommandLine::try_parse_from(arguments).unwrap_err());
            assert!(line.contains(words), "{line}");
            assert!(line.ends_with(&format!("; see '{hint}'")), "{line}");
            assert!(!line.contains(['\n', '\u{1b}']), "{line}");
        }
    }
}
