//! A kubeconfig in the forms in which it goes to the parent cluster. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;
use serde_json::{Value, json};

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputForm {
    /// The kubeconfig itself.
    File,
    /// A Secret for the parent cluster.
    Secret,
    /// Values for the Helm chart.
    Values,
}

/// The kubeconfig in this form, for the nested cluster `name`; a Secret is for `namespace`.
pub(super) fn written(
    form: OutputForm,
    kubeconfig: &str,
    [name, namespace]: [&str; 2],
) -> Result<String, String> {
    match form {
        OutputForm::File => Ok(kubeconfig.into()),
        OutputForm::Secret => yaml(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "namespace": namespace },
            "stringData": { "kubeconfig": kubeconfig },
        })),
        OutputForm::Values => yaml(&json!({
            "external-spire-server": { "kubeConfigs": { name: {
                "kubeConfigBase64": BASE64_STANDARD.encode(kubeconfig),
            } } },
        })),
    }
}

pub(super) fn yaml(value: &impl serde::Serialize) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| format!("cannot be written as YAML: {error}"))
}

/// The document of a kubeconfig for an API server, with CAs in PEM.
pub(super) fn document(
    server: &str,
    authorities: Option<&str>,
    tls_server_name: Option<&str>,
    token: &str,
) -> Value {
    let authorities = authorities.map(|pem| BASE64_STANDARD.encode(pem));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "child", "cluster": {
            "server": server,
            "certificate-authority-data": authorities,
            "tls-server-name": tls_server_name,
        } }],
        "users": [{ "name": "child", "user": { "token": token } }],
        "contexts": [{ "name": "child", "context": { "cluster": "child", "user": "child" } }],
        "current-context": "child",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "a: \"b\"\nc: |\n  d\n";

    fn read(form: OutputForm) -> Value {
        let text = written(form, KUBECONFIG, ["child01", "spiffe-system"]).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn a_secret_has_it_where_the_operator_looks() {
        let secret = read(OutputForm::Secret);
        assert_eq!(secret["stringData"]["kubeconfig"], KUBECONFIG);
        assert_eq!(secret["metadata"]["namespace"], "spiffe-system");
    }

    #[test]
    fn values_have_it_in_base64() {
        let values = read(OutputForm::Values);
        let encoded =
            &values["external-spire-server"]["kubeConfigs"]["child01"]["kubeConfigBase64"];
        let decoded = BASE64_STANDARD.decode(encoded.as_str().unwrap()).unwrap();
        assert_eq!(decoded, KUBECONFIG.as_bytes());
    }
}
