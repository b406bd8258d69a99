//! The part of an agent's SPIFFE ID below `/spire/agent`, made of its certificate by a Go template, as
//! in SPIRE.
//!
//! Interpreting is `gtmpl-ng`'s work; what a template may cost is bounded. Whether the result is a path
//! is found out by whoever makes an ID of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gtmpl_ng::{Context, Limits, Template, Value};

use super::agent_path_functions::FUNCTIONS;

/// Longest output in bytes: that of the longest SPIFFE ID.
const MAX_OUTPUT: usize = 2048;
/// Most loop iterations of one run.
const MAX_ITERATIONS: usize = 1000;
/// Longest error message in bytes: the interpreter may quote a whole value.
const MAX_MESSAGE: usize = 256;

/// A parsed template.
#[derive(Clone)]
pub struct AgentPathTemplate {
    source: String,
    template: Arc<Template>,
}

/// What a template sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPathData {
    /// `.PluginName`: name of the attestor.
    pub plugin_name: String,
    /// `.TrustDomain`.
    pub trust_domain: String,
    /// `.Fingerprint`: SHA-1 of the certificate in hexadecimal digits.
    pub fingerprint: String,
    /// `.SerialNumberHex`: serial number of the certificate in hexadecimal digits.
    pub serial_number_hex: String,
    /// `.SVIDPathTrimmed`: path of the X.509-SVID that is exchanged, without the prefix.
    pub svid_path_trimmed: String,
    /// `.Subject.CommonName`.
    pub common_name: String,
    /// `.Subject.Organization`.
    pub organization: Vec<String>,
    /// `.Subject.OrganizationalUnit`.
    pub organizational_unit: Vec<String>,
    /// `.DNSNames`.
    pub dns_names: Vec<String>,
    /// `.URISanSelectors`: values of the selectors `x509pop:san:<key>:`, by key.
    pub uri_san_selectors: BTreeMap<String, String>,
}

/// Why a template is none, or gives no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentPathError {
    /// It does not begin with a slash.
    #[error("must begin with a slash")]
    NoSlash,
    /// It fails for this certificate.
    #[error("{message}")]
    Run {
        /// Position and reason.
        message: String,
    },
    /// It does not parse.
    #[error("{message}")]
    Syntax {
        /// Position and reason.
        message: String,
    },
    /// It uses something that no certificate has.
    #[error(
        "{field} is not known; known are .PluginName, .TrustDomain, .Fingerprint, .SerialNumberHex, \
         .SVIDPathTrimmed, .Subject.CommonName, .Subject.Organization, .Subject.OrganizationalUnit, \
         .DNSNames and .URISanSelectors.<key>"
    )]
    UnknownField {
        /// The field.
        field: String,
    },
}

impl AgentPathTemplate {
    /// SPIRE's default for `x509pop`.
    pub const DEFAULT: &str = "/{{ .PluginName }}/{{ .Fingerprint }}";
    /// SPIRE's default for `x509pop` where X.509-SVIDs are exchanged.
    pub const DEFAULT_OF_SVIDS: &str = "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}";

    /// Reads a template.
    ///
    /// # Errors
    /// When it does not begin with a slash, does not parse, or uses an unknown field; one in a branch
    /// that not every certificate takes may be found only when it is run.
    pub fn parse(source: &str) -> Result<Self, AgentPathError> {
        if !source.starts_with('/') {
            return Err(AgentPathError::NoSlash);
        }
        let limits = Limits::default()
            .with_output_bytes(MAX_OUTPUT)
            .with_function_output(MAX_OUTPUT)
            .with_iterations(MAX_ITERATIONS)
            .with_total_iterations(MAX_ITERATIONS);
        let mut template = Template::with_limits(limits);
        template.add_funcs(&FUNCTIONS);
        let parsed = template.parse(source);
        parsed.map_err(|error| AgentPathError::Syntax {
            message: shortened(&error.to_string()),
        })?;
        let parsed = Self {
            source: source.into(),
            template: Arc::new(template),
        };
        match parsed.fill(&AgentPathData::sample()) {
            // Whatever else is wrong with the sample may be right for a certificate.
            Err(error @ AgentPathError::UnknownField { .. }) => Err(error),
            _ => Ok(parsed),
        }
    }

    /// The path of the agent with a certificate.
    ///
    /// # Errors
    /// When Go would refuse to go on, or a limit is exceeded.
    pub fn fill(&self, data: &AgentPathData) -> Result<String, AgentPathError> {
        let rendered = self.template.render(&Context::from(data.values()));
        rendered.map_err(|error| {
            let message = error.to_string();
            match unknown_field(&message) {
                Some(field) => AgentPathError::UnknownField { field },
                None => AgentPathError::Run {
                    message: shortened(&message),
                },
            }
        })
    }
}

impl std::fmt::Debug for AgentPathTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AgentPathTemplate")
            .field(&self.source)
            .finish()
    }
}

impl PartialEq for AgentPathTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for AgentPathTemplate {}

impl AgentPathData {
    /// A certificate that has everything.
    fn sample() -> Self {
        let text = || "x".to_owned();
        Self {
            plugin_name: text(),
            trust_domain: text(),
            fingerprint: text(),
            serial_number_hex: text(),
            svid_path_trimmed: text(),
            common_name: text(),
            organization: vec![text()],
            organizational_unit: vec![text()],
            dns_names: vec![text()],
            uri_san_selectors: BTreeMap::new(),
        }
    }

    fn values(&self) -> Value {
        let text = |text: &str| Value::String(text.into());
        let list = |list: &[String]| Value::Array(list.iter().map(|it| text(it)).collect());
        let object = |fields: Vec<(&str, Value)>| {
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            )
        };
        let selectors = self.uri_san_selectors.iter();
        let selectors = selectors.map(|(key, value)| (key.clone(), text(value)));
        let subject = vec![
            ("CommonName", text(&self.common_name)),
            ("Organization", list(&self.organization)),
            ("OrganizationalUnit", list(&self.organizational_unit)),
        ];
        object(vec![
            ("PluginName", text(&self.plugin_name)),
            ("TrustDomain", text(&self.trust_domain)),
            ("Fingerprint", text(&self.fingerprint)),
            ("SerialNumberHex", text(&self.serial_number_hex)),
            ("SVIDPathTrimmed", text(&self.svid_path_trimmed)),
            ("Subject", object(subject)),
            ("DNSNames", list(&self.dns_names)),
            ("URISanSelectors", Value::Map(selectors.collect())),
        ])
    }
}

/// The field that a message of the interpreter says is not there.
fn unknown_field(message: &str) -> Option<String> {
    if message.contains("only maps and objects have fields") {
        return Some("a field of a text or list".into());
    }
    let (_, after) = message.split_once("no field `")?;
    let (field, _) = after.split_once('`')?;
    Some(format!(".{field}"))
}

fn shortened(message: &str) -> String {
    crate::truncate(message, MAX_MESSAGE).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> AgentPathData {
        AgentPathData {
            plugin_name: "x509pop".into(),
            trust_domain: "e.org".into(),
            fingerprint: "f00".into(),
            serial_number_hex: "0abc".into(),
            svid_path_trimmed: "host/1".into(),
            common_name: "Node-7.E.org".into(),
            organization: vec!["A".into(), "B".into()],
            organizational_unit: Vec::new(),
            dns_names: vec!["n7.e.org".into()],
            uri_san_selectors: BTreeMap::from([("rack".into(), "7".into())]),
        }
    }

    fn fill(template: &str) -> Result<String, AgentPathError> {
        AgentPathTemplate::parse(template)?.fill(&data())
    }

    #[test]
    fn a_path_is_made_as_in_go() {
        for (template, path) in [
            ("/fixed", "/fixed"),
            (AgentPathTemplate::DEFAULT, "/x509pop/f00"),
            (AgentPathTemplate::DEFAULT_OF_SVIDS, "/x509pop/host/1"),
            (
                "/a/{{.SerialNumberHex}}/{{ .URISanSelectors.rack }}-x",
                "/a/0abc/7-x",
            ),
            (
                "/{{ .TrustDomain }}/{{ .Subject.CommonName | lower }}",
                "/e.org/node-7.e.org",
            ),
            (
                "/{{ if .URISanSelectors.row }}row{{ else }}{{ index .DNSNames 0 }}{{ end }}",
                "/n7.e.org",
            ),
            (
                "/{{ range .Subject.Organization }}{{ . }}{{ end }}{{ len .Subject.OrganizationalUnit }}",
                "/AB0",
            ),
            (
                "/{{ trimSuffix \".E.org\" .Subject.CommonName | lower | replace \"-\" \"_\" }}",
                "/node_7",
            ),
            (
                "/{{ printf \"%s-%s\" .Fingerprint (.SerialNumberHex | trunc 2) }}",
                "/f00-0a",
            ),
            // Which no SPIFFE ID has.
            ("/{{ .URISanSelectors.none }}", "/<no value>"),
        ] {
            assert_eq!(fill(template).as_deref(), Ok(path), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_when_it_is_read() {
        let unknown = |field: &str| AgentPathError::UnknownField {
            field: field.into(),
        };
        for (template, expected) in [
            ("", AgentPathError::NoSlash),
            ("x/{{ .Fingerprint }}", AgentPathError::NoSlash),
            ("/{{ .Other }}", unknown(".Other")),
            ("/{{ .Subject.Other }}", unknown(".Other")),
            (
                "/{{ .Fingerprint.Other }}",
                unknown("a field of a text or list"),
            ),
        ] {
            let parsed = AgentPathTemplate::parse(template);
            assert_eq!(parsed, Err(expected), "{template}");
        }
        for template in [
            "/{{ .Fingerprint",
            "/{{ end }}",
            "/{{ .Fingerprint | shout }}",
        ] {
            let parsed = AgentPathTemplate::parse(template);
            assert!(
                matches!(parsed, Err(AgentPathError::Syntax { .. })),
                "{template}: {parsed:?}"
            );
        }
    }

    #[test]
    fn what_a_run_costs_is_bounded() {
        let endless = "/{{ range 2000 }}a{{ end }}";
        assert!(matches!(fill(endless), Err(AgentPathError::Run { .. })));
        let long = format!("/{}", "{{ .Subject.CommonName }}".repeat(300));
        assert!(matches!(fill(&long), Err(AgentPathError::Run { .. })));
    }
}
