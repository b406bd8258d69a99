//! Reads the lexemes of a template's action one by one, and finds the variables it declares.

use std::collections::BTreeSet;

use super::template_syntax::{Lexeme, Token};

/// The lexemes of an action that are still to be read.
pub(super) struct Cursor<'a, 'b> {
    pub(super) rest: &'b [Lexeme<'a>],
}

impl<'a> Cursor<'a, '_> {
    pub(super) fn peek(&self) -> Option<&Token<'a>> {
        self.rest.first().map(|lexeme| &lexeme.token)
    }

    pub(super) fn next(&mut self) -> Option<Lexeme<'a>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.clone())
    }

    pub(super) fn skip(&mut self, token: &Token<'a>) -> bool {
        let found = self.peek() == Some(token);
        if found {
            self.next();
        }
        found
    }
}

/// The variables that a pipeline declares or assigns, if it does.
pub(super) fn declarations<'a>(cursor: &mut Cursor<'a, '_>) -> Vec<&'a str> {
    let (names, length) = match cursor.rest {
        [one, declare, ..] if is_declaration(declare) => (vec![&one.token], 2),
        [one, comma, two, declare, ..]
            if comma.token == Token::Comma && is_declaration(declare) =>
        {
            (vec![&one.token, &two.token], 4)
        }
        _ => return Vec::new(),
    };
    let names = names
        .into_iter()
        .filter_map(|token| match token {
            Token::Variable(name) => Some(*name),
            _ => None,
        })
        .collect();
    cursor.rest = cursor.rest.get(length..).unwrap_or_default();
    names
}

fn is_declaration(lexeme: &Lexeme<'_>) -> bool {
    matches!(lexeme.token, Token::Declare | Token::Assign)
}

/// The variables that some action assigns anew.
pub(super) fn reassigned_variables<'a>(actions: &[&[Lexeme<'a>]]) -> BTreeSet<&'a str> {
    let assigns =
        |action: &&[Lexeme<'a>]| action.iter().any(|lexeme| lexeme.token == Token::Assign);
    actions
        .iter()
        .filter(|action| assigns(action))
        .flat_map(|action| action.iter())
        .filter_map(|lexeme| match lexeme.token {
            Token::Variable(name) => Some(name),
            _ => None,
        })
        .collect()
}
