//! Cuts a Go template into texts and actions, and actions into lexemes.
//!
//! Only as strict as its users need: `gtmpl-ng` has refused what does not parse before anything
//! here runs. Meaning is [`super::template_check`] and [`super::template_fast`].

/// The words that open what `end` closes.
const BLOCK_WORDS: [&str; 5] = ["block", "define", "if", "range", "with"];

/// A piece of a template's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text that is copied, trim markers already applied.
    Text(&'a str),
    /// What stands between the braces; a comment has no lexemes.
    Action(Vec<Lexeme<'a>>),
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lexeme<'a> {
    pub(super) token: Token<'a>,
    /// Where it starts in the template, in bytes.
    pub(super) offset: usize,
    /// Whether it follows the token before it without a space.
    pub(super) glued: bool,
}

impl Lexeme<'_> {
    fn is_word(&self, word: &str) -> bool {
        matches!(self.token, Token::Identifier(name) if name == word)
    }
}

/// What stands in an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Assign,
    CloseParenthesis,
    Comma,
    Declare,
    Dot,
    /// `.Name`, without the dot.
    Field(&'a str),
    /// A function or keyword.
    Identifier(&'a str),
    OpenParenthesis,
    Other,
    Pipe,
    /// A string constant without escapes, so that its text is its value.
    PlainString(&'a str),
    /// `$name`, without the dollar sign.
    Variable(&'a str),
}

/// The parts of `template`.
pub(super) fn parts(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    let mut trim_next = false;
    while let Some((text, action)) = rest.split_once("{{") {
        let trims_before = action.starts_with('-')
            && action
                .get(1..)
                .is_some_and(|after| after.starts_with(is_space));
        push_text(&mut parts, text, trim_next, trims_before);
        let body = if trims_before {
            action.get(1..).unwrap_or_default()
        } else {
            action
        };
        let (inner, after, trims_after) = split_action(body);
        parts.push(Part::Action(lexemes(inner, offset_in(template, inner))));
        trim_next = trims_after;
        rest = after;
    }
    push_text(&mut parts, rest, trim_next, false);
    parts
}

/// What to insert where so that `template` parses: the interpreter does not know `else with`, which
/// is short for an `else` that holds a `with`.
pub(super) fn expand_else_with(template: &str) -> Vec<(usize, &'static str)> {
    let mut insertions = Vec::new();
    let mut ends_missing: Vec<usize> = Vec::new();
    for part in parts(template) {
        let Part::Action(lexemes) = part else {
            continue;
        };
        match lexemes.as_slice() {
            [first, second, ..] if first.is_word("else") && second.is_word("with") => {
                insertions.push((second.offset, "}}{{"));
                if let Some(missing) = ends_missing.last_mut() {
                    *missing += 1;
                }
            }
            [first, ..] if BLOCK_WORDS.iter().any(|word| first.is_word(word)) => {
                ends_missing.push(0);
            }
            [first, ..] if first.is_word("end") => {
                for _ in 0..ends_missing.pop().unwrap_or_default() {
                    insertions.push((first.offset + "end".len(), "}}{{end"));
                }
            }
            _ => {}
        }
    }
    insertions
}

/// The line and column of `offset`, both counted from 1.
pub(super) fn position(template: &str, offset: usize) -> (usize, usize) {
    let before = template.get(..offset).unwrap_or(template);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    (line, column)
}

fn push_text<'a>(parts: &mut Vec<Part<'a>>, text: &'a str, trim_start: bool, trim_end: bool) {
    let text = if trim_start {
        text.trim_start_matches(is_space)
    } else {
        text
    };
    let text = if trim_end {
        text.trim_end_matches(is_space)
    } else {
        text
    };
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// Splits behind the braces that close an action: what is in it, what follows, and whether white
/// space that follows is trimmed.
fn split_action(body: &str) -> (&str, &str, bool) {
    let end = if body.trim_start_matches(is_space).starts_with("/*") {
        body.find("*/").map_or(body.len(), |end| end + 2)
    } else {
        0
    };
    let close = end + closing_braces(body.get(end..).unwrap_or_default());
    let (inner, after) = body.split_at(close);
    let after = after.get(2..).unwrap_or_default();
    match inner.strip_suffix('-') {
        Some(shorter) if shorter.ends_with(is_space) => (shorter, after, true),
        _ => (inner, after, false),
    }
}

/// Where `}}` stands outside of constants.
fn closing_braces(body: &str) -> usize {
    let mut at = 0;
    while let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("}}") {
            return at;
        }
        at += constant_length(rest).unwrap_or_else(|| first_char_length(rest));
    }
    body.len()
}

/// The length of the string, raw string or character constant at the start of `rest`.
fn constant_length(rest: &str) -> Option<usize> {
    let quote = rest
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote != '`' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    Some(rest.len())
}

fn lexemes(action: &str, base: usize) -> Vec<Lexeme<'_>> {
    let mut found = Vec::new();
    if action.trim_start_matches(is_space).starts_with("/*") {
        return found;
    }
    let mut at = 0;
    let mut glued = false;
    while let Some(rest) = action.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(is_space) {
            at += 1;
            glued = false;
            continue;
        }
        let (token, length) = lex(rest);
        found.push(Lexeme {
            token,
            offset: base + at,
            glued,
        });
        at += length;
        glued = true;
    }
    found
}

/// The token at the start of `rest`, which is neither empty nor white space, and its length.
fn lex(rest: &str) -> (Token<'_>, usize) {
    if let Some(length) = constant_length(rest) {
        let inner = rest.get(1..length - 1).unwrap_or_default();
        let plain = rest.starts_with('`') || (rest.starts_with('"') && !inner.contains('\\'));
        let token = if plain {
            Token::PlainString(inner)
        } else {
            Token::Other
        };
        return (token, length);
    }
    for (text, token) in [
        (":=", Token::Declare),
        ("=", Token::Assign),
        ("|", Token::Pipe),
        (",", Token::Comma),
        ("(", Token::OpenParenthesis),
        (")", Token::CloseParenthesis),
    ] {
        if rest.starts_with(text) {
            return (token, text.len());
        }
    }
    if let Some(after) = rest.strip_prefix('$') {
        let name = word(after);
        return (Token::Variable(name), 1 + name.len());
    }
    if let Some(after) = rest.strip_prefix('.') {
        let name = word(after);
        let token = match name.chars().next() {
            None => Token::Dot,
            Some(first) if first.is_ascii_digit() => Token::Other,
            Some(_) => Token::Field(name),
        };
        return (token, 1 + name.len());
    }
    let name = word(rest);
    match name.chars().next() {
        Some(first) if first.is_ascii_digit() => (Token::Other, name.len()),
        Some(_) => (Token::Identifier(name), name.len()),
        None => (Token::Other, first_char_length(rest)),
    }
}

fn word(rest: &str) -> &str {
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

fn first_char_length(rest: &str) -> usize {
    rest.chars().next().map_or(1, char::len_utf8)
}

/// White space as Go's template lexer knows it.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Where `inner`, a slice of `outer`, starts in it.
fn offset_in(outer: &str, inner: &str) -> usize {
    inner.as_ptr().addr().saturating_sub(outer.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(action: &str) -> Vec<Token<'_>> {
        lexemes(action, 0)
            .into_iter()
            .map(|lexeme| lexeme.token)
            .collect()
    }

    #[test]
    fn trim_markers_trim_the_text_beside_them() {
        let texts: Vec<_> = parts("a  {{- .X -}}  b {{/* c }} */}} d{{- /* e */ -}} \n f")
            .into_iter()
            .filter_map(|part| match part {
                Part::Text(text) => Some(text),
                Part::Action(_) => None,
            })
            .collect();
        assert_eq!(texts, ["a", "b ", " d", "f"]);
    }

    #[test]
    fn braces_in_constants_do_not_close_an_action() {
        let all = parts(r#"{{ "}}" }}{{ `}}` }}{{ "\"}}" }}x"#);
        assert_eq!(all.len(), 4);
        assert_eq!(all[3], Part::Text("x"));
    }

    #[test]
    fn tells_chains_from_arguments() {
        let glued: Vec<_> = lexemes("$x.A .B", 0)
            .iter()
            .map(|lexeme| lexeme.glued)
            .collect();
        assert_eq!(glued, [false, true, false]);
        assert_eq!(
            tokens(r#"$x := index .A "b" 0 | print"#),
            [
                Token::Variable("x"),
                Token::Declare,
                Token::Identifier("index"),
                Token::Field("A"),
                Token::PlainString("b"),
                Token::Other,
                Token::Pipe,
                Token::Identifier("print"),
            ]
        );
    }

    #[test]
    fn positions_count_from_one() {
        assert_eq!(position("ab\ncd", 4), (2, 2));
        assert_eq!(position("ab", 0), (1, 1));
    }
}
