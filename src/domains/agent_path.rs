//! The part of an agent's SPIFFE ID below `/spire/agent`, made of its certificate.

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
    /// When it does not begin with a slash, or has a placeholder that is not known.
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
        Ok(Self(parts))
    }

    /// The path with values; none where one is missing or empty.
    pub fn fill(&self, value: impl Fn(&AgentPathValue) -> Option<String>) -> Option<String> {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Value(what) => value(what).filter(|value| !value.is_empty()),
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
        ] {
            assert_eq!(fill(&format!("/{missing}")), None, "{missing}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        use AgentPathError::{NoSlash, Open, Unknown};
        let unknown = |placeholder: &str| Unknown {
            placeholder: placeholder.into(),
        };
        for (template, expected) in [
            ("", NoSlash),
            ("x/{{ .Fingerprint }}", NoSlash),
            ("/{{ .Fingerprint", Open),
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
