//! Templates that only join texts and plain fields, which are nearly all of them, without the
//! interpreter: `spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}`.
//!
//! Invariant: gives what the interpreter gives (a property test in [`super::template`] holds both
//! against each other); what it does not understand it leaves to the interpreter.

use super::{
    template::TemplateData,
    template_syntax::{Lexeme, Part, Token, parts},
};

/// Prints in place of a map's missing key that was asked for like a field.
const NO_VALUE: &str = "<no value>";

/// A template as pieces to join.
#[derive(Debug)]
pub(super) struct FastTemplate(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    ClusterDomain,
    ClusterName,
    Label {
        of: Labelled,
        key: Box<str>,
        missing: &'static str,
    },
    NodeName,
    NodeUid,
    PodName,
    PodNamespace,
    PodUid,
    Scheduled,
    ServiceAccount,
    Text(Box<str>),
    TrustDomain,
}

#[derive(Clone, Copy, Debug)]
enum Labelled {
    Node,
    Pod,
}

impl FastTemplate {
    /// The pieces of `template`, unless it needs the interpreter.
    pub(super) fn new(template: &str) -> Option<Self> {
        parts(template)
            .iter()
            .filter(|part| !matches!(part, Part::Action(lexemes) if lexemes.is_empty()))
            .map(|part| match part {
                Part::Text(text) => Some(Piece::Text((*text).into())),
                Part::Action(lexemes) => piece(lexemes),
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// The text for `data`; none when it needs a pod and there is none.
    pub(super) fn render(&self, data: &TemplateData<'_>) -> Option<String> {
        let mut out = String::with_capacity(96);
        for piece in &self.0 {
            out.push_str(piece.text(data)?);
        }
        Some(out)
    }
}

impl Piece {
    fn text<'a>(&'a self, data: &TemplateData<'a>) -> Option<&'a str> {
        Some(match self {
            Self::ClusterDomain => data.cluster.cluster_domain.as_str(),
            Self::ClusterName => data.cluster.cluster_name.as_str(),
            Self::Label { of, key, missing } => {
                let labels = match of {
                    Labelled::Node => &data.node.labels,
                    Labelled::Pod => &data.pod?.labels,
                };
                labels.get(key).unwrap_or(missing)
            }
            Self::NodeName => &data.node.name,
            Self::NodeUid => &data.node.uid,
            Self::PodName => &data.pod?.name,
            Self::PodNamespace => &data.pod?.namespace,
            Self::PodUid => &data.pod?.uid,
            Self::Scheduled => &data.pod?.node,
            Self::ServiceAccount => &data.pod?.service_account,
            Self::Text(text) => text,
            Self::TrustDomain => data.cluster.trust_domain.as_str(),
        })
    }
}

fn piece(lexemes: &[Lexeme<'_>]) -> Option<Piece> {
    match lexemes {
        [
            Lexeme {
                token: Token::Identifier("index"),
                ..
            },
            chain @ ..,
            last,
        ] => {
            let Token::PlainString(key) = last.token else {
                return None;
            };
            match field_chain(chain)?.as_slice() {
                [section, "Labels"] => labelled(section).map(|of| Piece::Label {
                    of,
                    key: key.into(),
                    missing: "",
                }),
                _ => None,
            }
        }
        chain => match field_chain(chain)?.as_slice() {
            ["ClusterDomain"] => Some(Piece::ClusterDomain),
            ["ClusterName"] => Some(Piece::ClusterName),
            ["NodeMeta", "Name"] => Some(Piece::NodeName),
            ["NodeMeta", "UID"] => Some(Piece::NodeUid),
            ["PodMeta", "Name"] => Some(Piece::PodName),
            ["PodMeta", "Namespace"] => Some(Piece::PodNamespace),
            ["PodMeta", "UID"] => Some(Piece::PodUid),
            ["PodSpec", "NodeName"] => Some(Piece::Scheduled),
            ["PodSpec", "ServiceAccountName"] => Some(Piece::ServiceAccount),
            ["TrustDomain"] => Some(Piece::TrustDomain),
            [section, "Labels", key] => labelled(section).map(|of| Piece::Label {
                of,
                key: (*key).into(),
                missing: NO_VALUE,
            }),
            _ => None,
        },
    }
}

fn labelled(section: &str) -> Option<Labelled> {
    match section {
        "NodeMeta" => Some(Labelled::Node),
        "PodMeta" => Some(Labelled::Pod),
        _ => None,
    }
}

/// Whether an action prints `.TrustDomain` and nothing else.
pub(super) fn is_trust_domain(lexemes: &[Lexeme<'_>]) -> bool {
    matches!(piece(lexemes), Some(Piece::TrustDomain))
}

/// The names of `.A.B.C`, if that is all there is.
fn field_chain<'a>(lexemes: &[Lexeme<'a>]) -> Option<Vec<&'a str>> {
    lexemes
        .iter()
        .enumerate()
        .map(|(at, lexeme)| match lexeme.token {
            Token::Field(name) if at == 0 || lexeme.glued => Some(name),
            _ => None,
        })
        .collect()
}
