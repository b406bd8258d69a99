//! Reads a template against Go's types without running it: which fields it uses, and whether one of
//! them does not exist.
//!
//! Where a type cannot be told (a variable that is assigned again, a named template), the check
//! lets everything pass and counts whole structs as used; running the template then decides.
//! Syntax is not checked here: `gtmpl-ng` has parsed the template before.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    go_model::{self, Section, Type},
    template::TemplateError,
    template_cursor::{Cursor, declarations, reassigned_variables},
    template_syntax::{Lexeme, Part, Token, parts, position},
    template_types::{Known, is_pair_of_equals},
};

/// What a template uses.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// JSON names of the fields it reads.
    pub(super) uses: BTreeMap<Section, BTreeSet<&'static str>>,
    /// Where actions start that print a pointer.
    pub(super) printed_pointers: Vec<usize>,
}

/// Checks `template`; `with_pod` is false for a parent ID, which must not depend on the pod.
pub(super) fn check(template: &str, with_pod: bool) -> Result<Findings, TemplateError> {
    let parts = parts(template);
    let actions: Vec<&[Lexeme<'_>]> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Action(lexemes) => Some(lexemes.as_slice()),
            Part::Text(_) => None,
        })
        .collect();
    let mut check = Check {
        template,
        with_pod,
        findings: Findings::default(),
        reassigned: reassigned_variables(&actions),
        variables: vec![("", Known::Root)],
        frames: vec![Frame {
            dot: Known::Root,
            outer_dot: Known::Root,
            variables: 1,
            hidden: None,
        }],
    };
    for action in actions {
        check.action(action)?;
    }
    Ok(check.findings)
}

/// A block that an `end` closes.
struct Frame<'a> {
    dot: Known,
    /// The dot of its `else`.
    outer_dot: Known,
    /// How many variables to keep when it ends.
    variables: usize,
    /// Variables that its body does not see.
    hidden: Option<Vec<(&'a str, Known)>>,
}

struct Check<'a> {
    template: &'a str,
    with_pod: bool,
    findings: Findings,
    reassigned: BTreeSet<&'a str>,
    variables: Vec<(&'a str, Known)>,
    frames: Vec<Frame<'a>>,
}

impl<'a> Check<'a> {
    fn action(&mut self, lexemes: &[Lexeme<'a>]) -> Result<(), TemplateError> {
        let Some((first, rest)) = lexemes.split_first() else {
            return Ok(());
        };
        let mut cursor = Cursor { rest };
        let Token::Identifier(keyword) = first.token else {
            return self.print(lexemes);
        };
        match keyword {
            "if" | "with" | "range" => self.open(keyword, &mut cursor),
            "else" => self.otherwise(&mut cursor),
            "end" => {
                self.close();
                Ok(())
            }
            "define" | "block" => self.open_named(&mut cursor),
            "template" => {
                cursor.next();
                self.consume(&mut cursor)
            }
            "break" | "continue" => Ok(()),
            _ => self.print(lexemes),
        }
    }

    fn print(&mut self, lexemes: &[Lexeme<'a>]) -> Result<(), TemplateError> {
        let mut cursor = Cursor { rest: lexemes };
        let (known, declares) = self.pipeline(&mut cursor)?;
        if !declares {
            self.escape(known);
        }
        let is_chain = !lexemes.iter().any(|lexeme| lexeme.token == Token::Pipe)
            && !matches!(
                lexemes.first().map(|first| &first.token),
                Some(Token::Identifier(_))
            );
        if let (Known::Typed(Type::Pointer(_)), true, false, Some(first)) =
            (known, is_chain, declares, lexemes.first())
        {
            self.findings.printed_pointers.push(first.offset);
        }
        Ok(())
    }

    fn open(&mut self, keyword: &str, cursor: &mut Cursor<'a, '_>) -> Result<(), TemplateError> {
        let outer_dot = self.dot();
        let variables = self.variables.len();
        let dot = self.branch(keyword, cursor)?;
        self.frames.push(Frame {
            dot,
            outer_dot,
            variables,
            hidden: None,
        });
        Ok(())
    }

    /// Reads the pipeline of an `if`, `with` or `range` and says what the dot is in its body.
    fn branch(
        &mut self,
        keyword: &str,
        cursor: &mut Cursor<'a, '_>,
    ) -> Result<Known, TemplateError> {
        let outer_dot = self.dot();
        match keyword {
            "range" => self.range(cursor),
            "with" => Ok(self.pipeline(cursor)?.0),
            _ => {
                self.pipeline(cursor)?;
                Ok(outer_dot)
            }
        }
    }

    fn range(&mut self, cursor: &mut Cursor<'a, '_>) -> Result<Known, TemplateError> {
        let names = declarations(cursor);
        let (known, _) = self.pipeline(cursor)?;
        let item = match known.dereference() {
            Known::Typed(Type::List(item) | Type::Map(item)) => Known::Typed(item),
            Known::Simple => Known::Simple,
            other => {
                self.escape(other);
                Known::Anything
            }
        };
        match names.as_slice() {
            [value] => self.declare(value, item),
            [key, value] => {
                self.declare(key, Known::Simple);
                self.declare(value, item);
            }
            _ => {}
        }
        Ok(item)
    }

    fn otherwise(&mut self, cursor: &mut Cursor<'a, '_>) -> Result<(), TemplateError> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        frame.dot = frame.outer_dot;
        if let Some(Lexeme {
            token: Token::Identifier(keyword),
            ..
        }) = cursor.next()
        {
            let dot = self.branch(keyword, cursor)?;
            if let Some(frame) = self.frames.last_mut() {
                frame.dot = dot;
            }
        }
        Ok(())
    }

    /// `define` and `block`: what their body is given cannot be told here.
    fn open_named(&mut self, cursor: &mut Cursor<'a, '_>) -> Result<(), TemplateError> {
        cursor.next();
        self.consume(cursor)?;
        let outer_dot = self.dot();
        let hidden = std::mem::replace(&mut self.variables, vec![("", Known::Anything)]);
        self.frames.push(Frame {
            dot: Known::Anything,
            outer_dot,
            variables: 1,
            hidden: Some(hidden),
        });
        Ok(())
    }

    fn close(&mut self) {
        if self.frames.len() < 2 {
            return;
        }
        if let Some(frame) = self.frames.pop() {
            match frame.hidden {
                Some(variables) => self.variables = variables,
                None => self.variables.truncate(frame.variables),
            }
        }
    }

    fn consume(&mut self, cursor: &mut Cursor<'a, '_>) -> Result<(), TemplateError> {
        let (known, _) = self.pipeline(cursor)?;
        self.escape(known);
        Ok(())
    }

    /// Reads a pipeline: the type of its value, and whether it goes to a variable.
    fn pipeline(&mut self, cursor: &mut Cursor<'a, '_>) -> Result<(Known, bool), TemplateError> {
        let names = declarations(cursor);
        let mut known = self.command(cursor, None)?;
        while cursor.skip(&Token::Pipe) {
            known = self.command(cursor, Some(known))?;
        }
        for name in &names {
            self.declare(name, known);
        }
        Ok((known, !names.is_empty()))
    }

    fn command(
        &mut self,
        cursor: &mut Cursor<'a, '_>,
        piped: Option<Known>,
    ) -> Result<Known, TemplateError> {
        let function = match cursor.peek() {
            Some(Token::Identifier(name)) => Some(*name),
            _ => None,
        };
        if function.is_some() {
            cursor.next();
        }
        let mut arguments = Vec::new();
        while !matches!(
            cursor.peek(),
            None | Some(Token::Pipe | Token::CloseParenthesis)
        ) {
            arguments.push(self.operand(cursor)?);
        }
        arguments.extend(piped);
        let Some(function) = function else {
            return Ok(arguments.first().copied().unwrap_or(Known::Anything));
        };
        if matches!(function, "and" | "or") && arguments.windows(2).all(is_pair_of_equals) {
            return Ok(arguments.first().copied().unwrap_or(Known::Anything));
        }
        for argument in &arguments {
            self.escape(*argument);
        }
        Ok(Known::result_of(function, &arguments))
    }

    fn operand(&mut self, cursor: &mut Cursor<'a, '_>) -> Result<Known, TemplateError> {
        let Some(lexeme) = cursor.next() else {
            return Ok(Known::Anything);
        };
        let mut known = match lexeme.token {
            Token::Dot => self.dot(),
            Token::Field(name) => self.field(self.dot(), name, lexeme.offset)?,
            Token::Variable(name) => self.variable(name),
            Token::OpenParenthesis => {
                let (known, _) = self.pipeline(cursor)?;
                cursor.skip(&Token::CloseParenthesis);
                known
            }
            Token::Identifier(name) => Known::result_of(name, &[]),
            _ => Known::Simple,
        };
        while let Some(Lexeme {
            token: Token::Field(name),
            offset,
            glued: true,
        }) = cursor.rest.first()
        {
            known = self.field(known, name, *offset)?;
            cursor.next();
        }
        Ok(known)
    }

    fn field(&mut self, of: Known, name: &str, offset: usize) -> Result<Known, TemplateError> {
        match of.dereference() {
            // A missing key of a map has any field.
            Known::Anything | Known::Typed(Type::Map(_)) => Ok(Known::Anything),
            Known::Root => self.root_field(name, offset),
            Known::Section(section) => {
                let field = go_model::field(section.struct_name(), name)
                    .ok_or_else(|| self.unknown_field(name, section.struct_name(), offset))?;
                self.findings
                    .uses
                    .entry(section)
                    .or_default()
                    .extend(field.json);
                Ok(Known::Typed(&field.kind))
            }
            Known::Typed(Type::Struct(of)) => go_model::field(of, name)
                .map(|field| Known::Typed(&field.kind))
                .ok_or_else(|| self.unknown_field(name, of, offset)),
            Known::Typed(Type::List(_)) => Err(self.unknown_field(name, "a list", offset)),
            Known::Typed(_) | Known::Simple => {
                Err(self.unknown_field(name, "a plain value", offset))
            }
        }
    }

    fn root_field(&self, name: &str, offset: usize) -> Result<Known, TemplateError> {
        if matches!(name, "TrustDomain" | "ClusterName" | "ClusterDomain") {
            return Ok(Known::Simple);
        }
        let section = Section::named(name)
            .ok_or_else(|| self.unknown_field(name, "the template's data", offset))?;
        if section.is_of_pod() && !self.with_pod {
            let (line, column) = position(self.template, offset);
            return Err(TemplateError::PodInParent {
                field: section.name(),
                line,
                column,
            });
        }
        Ok(Known::Section(section))
    }

    /// Counts everything that can be reached from a value as used.
    fn escape(&mut self, known: Known) {
        match known {
            Known::Root => {
                for section in Section::ALL {
                    if self.with_pod || !section.is_of_pod() {
                        self.escape(Known::Section(section));
                    }
                }
            }
            Known::Section(section) => {
                let all = go_model::fields(section.struct_name()).iter();
                let names = all.filter_map(|field| field.json);
                self.findings.uses.entry(section).or_default().extend(names);
            }
            Known::Anything | Known::Simple | Known::Typed(_) => {}
        }
    }

    fn declare(&mut self, name: &'a str, known: Known) {
        if self.reassigned.contains(name) {
            self.escape(known);
            self.variables.push((name, Known::Anything));
        } else {
            self.variables.push((name, known));
        }
    }

    fn variable(&self, name: &str) -> Known {
        let found = self
            .variables
            .iter()
            .rev()
            .find(|(other, _)| *other == name);
        found.map_or(Known::Anything, |(_, known)| *known)
    }

    fn dot(&self) -> Known {
        self.frames
            .last()
            .map_or(Known::Anything, |frame| frame.dot)
    }

    fn unknown_field(&self, field: &str, of: &'static str, offset: usize) -> TemplateError {
        let (line, column) = position(self.template, offset);
        TemplateError::UnknownField {
            field: field.into(),
            of,
            line,
            column,
        }
    }
}
