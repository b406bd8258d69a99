//! The part of an agent's SPIFFE ID below `/spire/agent`, made of its certificate.

/// Name of the attestor.
const OWN: &str = "x509pop";
/// Names of others, below which their agents are.
const OTHERS: [&str; 2] = ["join_token", "k8s_psat"];
/// Stands for a value that somebody else chooses.
const ANYTHING: &str = "*";

/// A path with placeholders. What SPIRE's templates can do besides putting values in is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPathTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(AgentPathValue),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentPathValue {
    /// SHA-1 of the certificate in hexadecimal digits.
    Fingerprint,
    /// Serial number of the certificate in hexadecimal digits.
    SerialNumberHex,
    /// Common name of the certificate's subject.
    CommonName,
    /// Name of the attestor.
    PluginName,
    /// Name of the trust domain.
    TrustDomain,
    /// Value of the selector `x509pop:san:<key>:`.
    UriSanSelector(String),
}

/// Why a path is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentPathError {
    /// It does not begin with a slash.
    #[error("must begin with a slash")]
    NoSlash,
    /// Its first segment is not this attestor's own.
    #[error(
        "the first segment must be {{{{ .PluginName }}}}, or a text that is no other attestor's name"
    )]
    FirstSegment,
    /// A placeholder that does not end.
    #[error("{{{{ without }}}}")]
    Open,
    /// A placeholder for something else.
    #[error("{{{{ {placeholder} }}}} is not known")]
    Unknown {
        /// What is between the braces.
        placeholder: String,
    },
}

impl AgentPathTemplate {
    /// SPIRE's default for `x509pop`.
    pub const DEFAULT: &str = "/{{ .PluginName }}/{{ .Fingerprint }}";

    /// Reads a path.
    ///
    /// # Errors
    /// When it does not begin with a slash and a segment that no certificate and no other attestor
    /// has a say in, or has a placeholder that is not known.
    pub fn parse(text: &str) -> Result<Self, AgentPathError> {
        if !text.starts_with('/') {
            return Err(AgentPathError::NoSlash);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (placeholder, after) = after.split_once("}}").ok_or(AgentPathError::Open)?;
            parts.push(Part::Text(before.into()));
            parts.push(Part::Value(value(placeholder.trim())?));
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        let template = Self(parts);
        if !template.has_own_segment() {
            return Err(AgentPathError::FirstSegment);
        }
        Ok(template)
    }

    fn has_own_segment(&self) -> bool {
        let path = self.fill(|value| match value {
            AgentPathValue::PluginName => Some(OWN.into()),
            _ => Some(ANYTHING.into()),
        });
        let path = path.unwrap_or_default();
        let first = path.split('/').nth(1).unwrap_or_default();
        !first.contains(ANYTHING) && !OTHERS.contains(&first)
    }

    /// The path with values; none where one is missing or empty, or holds a slash: a value is part
    /// of one segment.
    pub fn fill(&self, value: impl Fn(&AgentPathValue) -> Option<String>) -> Option<String> {
        let fits = |value: &String| !value.is_empty() && !value.contains('/');
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Value(what) => value(what).filter(fits),
        });
        parts.collect()
    }
}

fn value(placeholder: &str) -> Result<AgentPathValue, AgentPathError> {
    match placeholder {
        ".Fingerprint" => Ok(AgentPathValue::Fingerprint),
        ".SerialNumberHex" => Ok(AgentPathValue::SerialNumberHex),
        ".Subject.CommonName" => Ok(AgentPathValue::CommonName),
        ".PluginName" => Ok(AgentPathValue::PluginName),
        ".TrustDomain" => Ok(AgentPathValue::TrustDomain),
        other => match other.strip_prefix(".URISanSelectors.") {
            Some(key) if !key.is_empty() => Ok(AgentPathValue::UriSanSelector(key.into())),
            _ => Err(AgentPathError::Unknown {
                placeholder: other.into(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str) -> Option<String> {
        AgentPathTemplate::parse(template)
            .unwrap()
            .fill(|value| match value {
                AgentPathValue::Fingerprint => Some("f00".into()),
                AgentPathValue::UriSanSelector(key) if key == "rack" => Some("7".into()),
                AgentPathValue::CommonName => Some(String::new()),
                AgentPathValue::UriSanSelector(key) if key == "up" => Some("a/b".into()),
                _ => None,
            })
    }

    #[test]
    fn values_are_put_in() {
        assert_eq!(fill("/fixed").as_deref(), Some("/fixed"));
        let path = fill("/a/{{ .Fingerprint }}/{{.URISanSelectors.rack}}-x");
        assert_eq!(path.as_deref(), Some("/a/f00/7-x"));
        for missing in [
            "{{ .SerialNumberHex }}",
            "{{ .Subject.CommonName }}",
            "{{ .URISanSelectors.no }}",
            "{{ .URISanSelectors.up }}",
        ] {
            assert_eq!(fill(&format!("/a/{missing}")), None, "{missing}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        use AgentPathError::{FirstSegment, NoSlash, Open, Unknown};
        let unknown = |placeholder: &str| Unknown {
            placeholder: placeholder.into(),
        };
        for (template, expected) in [
            ("", NoSlash),
            ("x/{{ .Fingerprint }}", NoSlash),
            ("/{{ .Fingerprint", Open),
            ("/{{ .Fingerprint }}", FirstSegment),
            ("/x-{{ .Subject.CommonName }}/a", FirstSegment),
            ("/k8s_psat/{{ .Fingerprint }}", FirstSegment),
            ("/join_token", FirstSegment),
            ("/{{ .Other }}", unknown(".Other")),
            (
                "/{{ .Fingerprint | upper }}",
                unknown(".Fingerprint | upper"),
            ),
            ("/{{ .URISanSelectors. }}", unknown(".URISanSelectors.")),
        ] {
            assert_eq!(
                AgentPathTemplate::parse(template),
                Err(expected),
                "{template}"
            );
        }
    }
}
