//! What a template's output starts with, as far as it is the same for every pod: what can be known to
//! be wrong without running the template is found by it.

use super::{
    entry_error::{EntryError, parse_member_id},
    template_fast::is_trust_domain,
    template_syntax::{Part, parts},
};
use crate::spiffe::{SpiffeId, TrustDomainName};

/// How every output of a template starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    text: String,
    /// Whether that is all of it.
    is_whole: bool,
}

impl Beginning {
    /// The beginning of what `template` gives in `trust_domain`.
    pub(super) fn of(template: &str, trust_domain: &TrustDomainName) -> Self {
        let mut text = String::new();
        for part in parts(template) {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Action(lexemes) if lexemes.is_empty() => {}
                Part::Action(lexemes) if is_trust_domain(&lexemes) => {
                    text.push_str(trust_domain.as_str());
                }
                Part::Action(_) => {
                    return Self {
                        text,
                        is_whole: false,
                    };
                }
            }
        }
        Self {
            text,
            is_whole: true,
        }
    }

    /// The output, if it is the same for every pod.
    pub(super) fn constant(&self) -> Option<&str> {
        self.is_whole.then_some(&self.text)
    }

    /// Checks that an output can be an ID of `trust_domain` that `check` accepts; `what` names it in
    /// errors. What `check` refuses it must refuse for every ID under the same path, too.
    ///
    /// # Errors
    /// When no output can be.
    pub(super) fn check_id(
        &self,
        what: &'static str,
        trust_domain: &TrustDomainName,
        check: impl Fn(&SpiffeId) -> Result<(), EntryError>,
    ) -> Result<(), EntryError> {
        let Self { text, is_whole } = self;
        if *is_whole {
            return check(&parse_member_id(what, text, trust_domain)?);
        }
        if format!("spiffe://{trust_domain}/").starts_with(text) {
            return Ok(());
        }
        // Any further letter will do: what is wrong is in front of it.
        parse_member_id(what, &format!("{text}x"), trust_domain)
            .and_then(|id| check(&id))
            .map_err(|error| error.about(format!("{text}…")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::entry_error::check_workload_id;

    #[test]
    fn what_is_wrong_for_every_pod_is_found_and_nothing_else() {
        let trust_domain: TrustDomainName = "e.org".parse().unwrap();
        for (template, reason) in [
            (
                "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}",
                None,
            ),
            ("spiffe://e.org/{{ .PodMeta.Name }}", None),
            ("spiffe://e.org{{ if .PodSpec }}/x{{ end }}", None),
            ("spiffe://{{ .PodMeta.Labels.td }}/x", None),
            ("spiffe://e.{{ .PodMeta.Labels.td }}", None),
            ("{{ if .PodMeta.Name }}spiffe://e.org/x{{ end }}", None),
            ("{{ .TrustDomain | printf \"spiffe://%s/x\" }}", None),
            ("{{/* ours */}} {{- print \"spiffe://e.org/a\" }}", None),
            ("spiffe://e.org/..{{ .PodMeta.Name }}", None),
            ("spiffe://e.org/spire{{ .PodMeta.Name }}", None),
            ("spiffe://e.org/a", None),
            ("ns/{{ .PodMeta.Namespace }}", Some("InvalidSPIFFEID")),
            (
                "{{ .TrustDomain }}/{{ .PodMeta.Name }}",
                Some("InvalidSPIFFEID"),
            ),
            ("https://e.org/{{ .PodMeta.Name }}", Some("InvalidSPIFFEID")),
            (
                "spiffe://f.org/{{ .PodMeta.Name }}",
                Some("ForeignTrustDomain"),
            ),
            (
                "spiffe://e.orgs{{ .PodMeta.Name }}",
                Some("ForeignTrustDomain"),
            ),
            (
                "spiffe://e.org/a b/{{ .PodMeta.Name }}",
                Some("InvalidSPIFFEID"),
            ),
            (
                "spiffe://e.org//{{ .PodMeta.Name }}",
                Some("InvalidSPIFFEID"),
            ),
            (
                "spiffe://e.org/spire/{{ .PodMeta.Name }}",
                Some("ReservedSPIFFEID"),
            ),
            ("spiffe://e.org", Some("InvalidSPIFFEID")),
            ("spiffe://f.org/a", Some("ForeignTrustDomain")),
        ] {
            let beginning = Beginning::of(template, &trust_domain);
            let found = beginning.check_id("SPIFFE ID", &trust_domain, check_workload_id);
            let found = found.as_ref().err().map(EntryError::reason);
            assert_eq!(found, reason, "{template}");
        }
    }

    #[test]
    fn an_error_shows_what_is_in_the_template() {
        let trust_domain: TrustDomainName = "e.org".parse().unwrap();
        let error = Beginning::of("spiffe://f.org/ns/{{ .PodMeta.Name }}", &trust_domain)
            .check_id("SPIFFE ID", &trust_domain, check_workload_id)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "SPIFFE ID \"spiffe://f.org/ns/…\" is not in the trust domain e.org"
        );
    }
}
