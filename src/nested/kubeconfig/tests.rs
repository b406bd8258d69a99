//! Kubeconfigs as tools write them, and one refusal for each rule.

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;

const TOKEN: &str = "s3cr3t-T0ken";

/// A CA and a client certificate under it, all in PEM.
struct Pki {
    ca: String,
    certificate: String,
    key: String,
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let mut params = CertificateParams::default();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            ca,
            certificate,
            key: key.serialize_pem(),
        }
    }
}

fn base64(text: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(text)
}

fn token_document() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": "https://child01.example.org:6443" } }],
        "users": [{ "name": "u", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    })
}

fn certificate_document(pki: &Pki) -> Value {
    let mut document = token_document();
    document["clusters"][0]["cluster"]["certificate-authority-data"] = json!(base64(&pki.ca));
    document["users"][0]["user"] = json!({
        "client-certificate-data": base64(&pki.certificate),
        "client-key-data": base64(&pki.key),
    });
    document
}

fn exec_document(exec: &Value) -> Value {
    let mut document = token_document();
    document["users"][0]["user"] = json!({ "exec": exec });
    document
}

/// `document` with `value` at `pointer`, of which all but the last part must be there.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    parent.as_object_mut().unwrap().insert(key.into(), value);
    document
}

fn read(document: &Value) -> Result<ChildKubeconfig, KubeconfigError> {
    read_with(document, &ReadOptions::default())
}

fn read_with(
    document: &Value,
    options: &ReadOptions<'_>,
) -> Result<ChildKubeconfig, KubeconfigError> {
    ChildKubeconfig::read(document.to_string().as_bytes(), options)
}

/// What is said of `document`, which is refused.
fn refusal(document: &Value) -> String {
    read(document).unwrap_err().to_string()
}

fn token_of(child: &ChildKubeconfig) -> &str {
    match &child.credential {
        Credential::Token(token) => token.text.expose_secret(),
        other => panic!("{other:?}"),
    }
}

/// That the client is made of it without complaint.
fn client_config(child: &ChildKubeconfig) -> kube::Config {
    kube::Config::try_from(child.to_client_kubeconfig()).unwrap()
}

#[test]
fn reads_what_kubeadm_writes() {
    let pki = Pki::new();
    let text = format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {}
    server: https://10.0.0.1:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: spire-root
  name: spire-root@kubernetes
current-context: spire-root@kubernetes
kind: Config
preferences: {{}}
users:
- name: spire-root
  user:
    client-certificate-data: {}
    client-key-data: {}
",
        base64(&pki.ca),
        base64(&pki.certificate),
        base64(&pki.key)
    );
    let child = ChildKubeconfig::read(text.as_bytes(), &ReadOptions::default()).unwrap();
    assert_eq!(child.server.url.as_str(), "https://10.0.0.1:6443");
    assert!(matches!(&child.server.trust, ServerTrust::Authorities(it) if it.len() == 1));
    let end = Timestamp::from_second(1_900_000_000).unwrap();
    assert_eq!(child.credential_expires_at(), Some(end));
    let config = client_config(&child);
    assert_eq!(config.root_cert.unwrap().len(), 1);
    assert!(config.auth_info.client_key_data.is_some());
}

#[test]
fn reads_what_eks_writes() {
    let pki = Pki::new();
    let arn = "arn:aws:eks:eu-central-1:111122223333:cluster/child01";
    let text = format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {}
    server: https://0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com
  name: {arn}
contexts:
- context:
    cluster: {arn}
    user: {arn}
  name: {arn}
current-context: {arn}
kind: Config
preferences: {{}}
users:
- name: {arn}
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      args:
      - --region
      - eu-central-1
      - eks
      - get-token
      - --cluster-name
      - child01
      - --output
      - json
      - --role
      - arn:aws:iam::111122223333:role/path/spire
      command: aws
",
        base64(&pki.ca)
    );
    let child = ChildKubeconfig::read(text.as_bytes(), &ReadOptions::default()).unwrap();
    let Credential::EksToken(cluster) = &child.credential else {
        panic!("{child:?}")
    };
    let expected = EksCluster {
        name: "child01".into(),
        region: "eu-central-1".into(),
        role_arn: Some("arn:aws:iam::111122223333:role/path/spire".into()),
    };
    assert_eq!(cluster, &expected);
    assert!(
        child.to_client_kubeconfig().auth_infos[0]
            .auth_info
            .as_ref()
            .unwrap()
            .exec
            .is_none()
    );
    let again = serde_json::to_value(child.to_kubeconfig()).unwrap();
    let again = read(&again).unwrap();
    assert!(matches!(again.credential, Credential::EksToken(it) if it == expected));
}

#[test]
fn refuses_what_gke_writes_and_says_what_to_do() {
    let document = exec_document(&json!({
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        "installHint": "Install gke-gcloud-auth-plugin",
        "provideClusterInfo": true,
    }));
    let said = refusal(&document);
    assert!(
        said.starts_with(
            "users[0] \"u\".user.exec.command: \"gke-gcloud-auth-plugin\" would be run"
        ),
        "{said}"
    );
    assert!(said.contains("a service account of the cluster"), "{said}");
    assert_eq!(read(&document).unwrap_err().reason(), "ExecRefused");
}

#[test]
fn reads_what_kubectl_config_view_writes() {
    let yaml = format!(
        "apiVersion: v1
clusters:
- cluster:
    insecure-skip-tls-verify: true
    server: http://127.0.0.1:8080
  name: broken
- cluster:
    extensions:
    - extension:
        provider: minikube.sigs.k8s.io
      name: cluster_info
    server: https://rancher.example.org/k8s/clusters/c-m-abc
    tls-server-name: rancher.internal
    proxy-url: socks5://proxy.example.org:1080
  name: child01
contexts:
- context:
    cluster: broken
    user: broken
  name: broken
- context:
    cluster: child01
    namespace: spire-system
    user: admin
  name: child01
current-context: child01
kind: Config
users:
- name: broken
  user:
    auth-provider:
      config: null
      name: gcp
- name: admin
  user:
    as: spire-root
    as-groups:
    - spiffe
    as-uid: \"7\"
    as-user-extra:
      reason:
      - wiring
    token: {TOKEN}
"
    );
    let child = ChildKubeconfig::read(yaml.as_bytes(), &ReadOptions::default()).unwrap();
    assert_eq!(token_of(&child), TOKEN);
    let who = child.impersonation.as_ref().unwrap();
    assert_eq!((who.user(), who.uid()), ("spire-root", Some("7")));
    assert_eq!(who.groups(), ["spiffe"]);
    let config = client_config(&child);
    assert_eq!(config.cluster_url.path(), "/k8s/clusters/c-m-abc");
    assert_eq!(config.tls_server_name.as_deref(), Some("rancher.internal"));
    assert_eq!(config.proxy_url.unwrap().scheme_str(), Some("socks5"));
    assert_eq!(config.auth_info.impersonate_uid.as_deref(), Some("7"));
    let json: Value = serde_saphyr::from_str(&yaml).unwrap();
    let indented = serde_json::to_string_pretty(&json)
        .unwrap()
        .replace("  ", "\t");
    for text in [json.to_string(), indented] {
        let again = ChildKubeconfig::read(text.as_bytes(), &ReadOptions::default()).unwrap();
        assert_eq!(again.server, child.server);
    }
    let options = ReadOptions {
        context: Some("broken"),
        ..ReadOptions::default()
    };
    let said = ChildKubeconfig::read(yaml.as_bytes(), &options)
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("clusters[0] \"broken\".cluster."),
        "{said}"
    );
}

#[test]
fn base64_is_taken_off_twice() {
    let plain = serde_saphyr::to_string(&token_document()).unwrap();
    let once = base64(&plain);
    let lines: Vec<&str> = once
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let url_safe = once.replace('+', "-").replace('/', "_");
    for text in [
        plain.clone(),
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        once.clone(),
        format!("{once}\n"),
        lines.join("\n"),
        lines.join("\r\n"),
        once.trim_end_matches('=').to_owned(),
        url_safe,
        base64(&once),
        base64(lines.join("\n")),
        base64(format!("\u{feff}{plain}")),
    ] {
        let child = ChildKubeconfig::read(text.as_bytes(), &ReadOptions::default()).unwrap();
        assert_eq!(token_of(&child), TOKEN, "{text}");
    }
    let thrice = base64(base64(&once));
    assert_eq!(
        ChildKubeconfig::read(thrice.as_bytes(), &ReadOptions::default()).unwrap_err(),
        KubeconfigError::TooManyLayers
    );
}

#[test]
fn what_is_no_kubeconfig_is_refused() {
    let deep = "[".repeat(100_000);
    let wide = format!("a: {}", "x".repeat(MAX_KUBECONFIG_LENGTH));
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                  e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for (bytes, expected) in [
        (b"".as_slice(), "the kubeconfig is empty"),
        (b" \n\t\r\n", "the kubeconfig is empty"),
        (b"\xef\xbb\xbf\n", "the kubeconfig is empty"),
        (b"\xff\xfea\0p\0i\0", "no text in UTF-8"),
        (b"\x1f\x8b\x08\0\0\0", "no text in UTF-8"),
        (b"hello", "this is no kubeconfig"),
        (b"hello there", "this is no kubeconfig"),
        (b"deadbeef", "this is no kubeconfig"),
        (b"- a\n- b\n", "this is no kubeconfig"),
        (b"a: [\n", "no YAML and no JSON from line"),
        (b"{\"a\": 1,}}", "no YAML and no JSON from line 1"),
        (b"a: 1\na: 2\n", "no YAML and no JSON from line 2"),
        (deep.as_bytes(), "no YAML and no JSON"),
        (laughs.as_bytes(), "no YAML and no JSON"),
        (wide.as_bytes(), "1048579 bytes, more than the 1048576"),
        (b"{}", "current-context: names no context; there are none"),
        (b"kind: Secret\n", "kind: is \"Secret\", must be Config"),
        (b"apiVersion: v2\n", "apiVersion: is \"v2\", must be v1"),
    ] {
        let said = ChildKubeconfig::read(bytes, &ReadOptions::default());
        let said = said.unwrap_err().to_string();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_refusal_names_its_field_and_no_secret() {
    let pki = Pki::new();
    let other = Pki::new();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let not_x509 = pem_of("CERTIFICATE", b"garbage");
    let cluster = "clusters[0] \"c\".cluster";
    let user = "users[0] \"u\".user";
    let table: Vec<(&str, Value, String)> = vec![
        (
            "/current-context",
            json!("y"),
            "current-context: \"y\" is not in contexts; there are \"x\"".into(),
        ),
        (
            "/current-context",
            json!(7),
            "current-context: must be a text".into(),
        ),
        ("/contexts", json!({}), "contexts: must be a list".into()),
        (
            "/contexts/0/context",
            json!(null),
            "contexts[0] \"x\".context.user: is missing".into(),
        ),
        (
            "/contexts/0/context",
            json!([]),
            "contexts[0] \"x\".context: must be a mapping".into(),
        ),
        (
            "/contexts/0/context/user",
            json!("v"),
            "contexts[0] \"x\".context.user: \"v\" is not in users; there are \"u\"".into(),
        ),
        (
            "/contexts/0/context/cluster",
            json!("d"),
            "contexts[0] \"x\".context.cluster: \"d\" is not in clusters".into(),
        ),
        (
            "/clusters/0/cluster/server",
            json!(null),
            format!("{cluster}.server: is missing"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("http://a"),
            format!("{cluster}.server: must be an https URL"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("a:6443"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://:6443"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://u:p@a"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://a:0"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://a:99999"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://a?b"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://a#b"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://a b"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/server",
            json!("https://ä"),
            format!("{cluster}.server: must be"),
        ),
        (
            "/clusters/0/cluster/certificate-authority",
            json!("/pki/ca.crt"),
            format!("{cluster}.certificate-authority: names a file"),
        ),
        (
            "/clusters/0/cluster/certificate-authority-data",
            json!("%"),
            format!("{cluster}.certificate-authority-data: is not in base64"),
        ),
        (
            "/clusters/0/cluster/certificate-authority-data",
            json!(base64("x")),
            format!("{cluster}.certificate-authority-data: there is no PEM block"),
        ),
        (
            "/clusters/0/cluster/certificate-authority-data",
            json!(base64(format!("{}{not_x509}", pki.ca))),
            format!("{cluster}.certificate-authority-data: certificate 2 is no usable"),
        ),
        (
            "/clusters/0/cluster/insecure-skip-tls-verify",
            json!(true),
            format!(
                "{cluster}.insecure-skip-tls-verify: the API server's certificate would not be checked"
            ),
        ),
        (
            "/clusters/0/cluster/insecure-skip-tls-verify",
            json!("true"),
            format!("{cluster}.insecure-skip-tls-verify: must be true or false"),
        ),
        (
            "/clusters/0/cluster/tls-server-name",
            json!("a b"),
            format!("{cluster}.tls-server-name: is neither"),
        ),
        (
            "/clusters/0/cluster/proxy-url",
            json!("ftp://a"),
            format!("{cluster}.proxy-url: must be a URL"),
        ),
        (
            "/clusters/0/cluster/proxy-url",
            json!("proxy:3128"),
            format!("{cluster}.proxy-url: must be a URL"),
        ),
        (
            "/users/0/user",
            json!({}),
            format!("{user}: has no credential"),
        ),
        (
            "/users/0/user",
            json!(null),
            format!("{user}: has no credential"),
        ),
        (
            "/users/0/user/token",
            json!(12345),
            format!("{user}.token: must be a text"),
        ),
        (
            "/users/0/user/token",
            json!("a b"),
            format!("{user}.token: has a character"),
        ),
        (
            "/users/0/user/token",
            json!(" "),
            format!("{user}.token: is missing"),
        ),
        (
            "/users/0/user/tokenFile",
            json!("/t"),
            format!(
                "{user}.tokenFile: names a file, which this program cannot read; put what is in it into token"
            ),
        ),
        (
            "/users/0/user/client-certificate",
            json!("/c"),
            format!("{user}.client-certificate: names a file"),
        ),
        (
            "/users/0/user/client-key",
            json!("/k"),
            format!("{user}.client-key: names a file"),
        ),
        (
            "/users/0/user/client-key-data",
            json!(base64(&pki.key)),
            format!("{user}: has more than one credential (token, client-certificate-data)"),
        ),
        (
            "/users/0/user/auth-provider",
            json!({ "name": "oidc" }),
            format!("{user}.auth-provider: Kubernetes has no such plugins"),
        ),
        (
            "/users/0/user/username",
            json!("admin"),
            format!("{user}.username: Kubernetes takes no passwords"),
        ),
        (
            "/users/0/user/password",
            json!(TOKEN),
            format!("{user}.password: Kubernetes takes no passwords"),
        ),
        (
            "/users/0/user/as-groups",
            json!(["g"]),
            format!("{user}.as-groups: needs `as`"),
        ),
        (
            "/users/0/user/as-uid",
            json!("1"),
            format!("{user}.as-uid: needs `as`"),
        ),
        (
            "/users/0/user/as-user-extra",
            json!({ "a": [] }),
            format!("{user}.as-user-extra: needs `as`"),
        ),
        (
            "/users/0/user/as-user-extra",
            json!([]),
            format!("{user}.as-user-extra: must be a mapping"),
        ),
        (
            "/users/0/user/as",
            json!("ä"),
            format!("{user}.as: has a character"),
        ),
        (
            "/users/0/user/as-groups",
            json!(["g", ""]),
            format!("{user}.as-groups[1]: is missing"),
        ),
    ];
    for (pointer, value, expected) in table {
        let said = refusal(&with(token_document(), pointer, value));
        assert!(said.starts_with(&expected), "{expected}\n{said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
    let key = format!("{user}.client-key-data");
    let certificate = format!("{user}.client-certificate-data");
    for (name, value, expected) in [
        ("client-key-data", json!(null), format!("{key}: is missing")),
        (
            "client-key-data",
            json!(base64(&other.key)),
            format!("{key}: is not the key of"),
        ),
        (
            "client-key-data",
            json!(base64(encrypted)),
            format!("{key}: the key is encrypted"),
        ),
        (
            "client-key-data",
            json!(base64(&pki.ca)),
            format!("{key}: there is no private key"),
        ),
        (
            "client-key-data",
            json!(pki.key),
            format!("{key}: is not in base64"),
        ),
        (
            "client-key-data",
            json!(base64(pem_of("PRIVATE KEY", b"x"))),
            format!("{key}: the key is of a kind"),
        ),
        (
            "client-certificate-data",
            json!(null),
            format!("{certificate}: is missing"),
        ),
        (
            "client-certificate-data",
            json!(base64(&pki.key)),
            format!("{certificate}: there is no PEM block"),
        ),
        (
            "client-certificate-data",
            json!(base64(&not_x509)),
            format!("{certificate}: certificate 1 is no usable"),
        ),
    ] {
        let document = certificate_document(&pki);
        let said = refusal(&with(document, &format!("/users/0/user/{name}"), value));
        assert!(said.starts_with(&expected), "{expected}\n{said}");
    }
}

fn pem_of(label: &str, der: &[u8]) -> String {
    crate::spiffe::pem::encode(label, der)
}

#[test]
fn names_must_be_unique_and_one_context_is_chosen() {
    let mut document = token_document();
    let another = document["users"][0].clone();
    document["users"].as_array_mut().unwrap().push(another);
    assert_eq!(
        refusal(&document),
        "users[1] \"u\": there are several with this name"
    );
    let without = with(token_document(), "/current-context", json!(null));
    assert_eq!(token_of(&read(&without).unwrap()), TOKEN);
    let contexts: Vec<Value> = (0..50)
        .map(|n| json!({ "name": format!("x{n}"), "context": { "cluster": "c", "user": "u" } }))
        .collect();
    let many = with(without, "/contexts", json!(contexts));
    assert_eq!(
        refusal(&many),
        "current-context: names no context; there are \"x0\", \"x1\", \"x2\", \"x3\", \"x4\" and 45 more"
    );
    let options = ReadOptions {
        context: Some("x49"),
        ..ReadOptions::default()
    };
    assert_eq!(token_of(&read_with(&many, &options).unwrap()), TOKEN);
    let options = ReadOptions {
        context: Some("y"),
        ..ReadOptions::default()
    };
    let said = read_with(&many, &options).unwrap_err().to_string();
    assert!(
        said.starts_with("contexts: the kubeconfig has no context \"y\"; there are \"x0\","),
        "{said}"
    );
}

#[test]
fn what_the_caller_allows_is_taken() {
    let insecure = "/clusters/0/cluster/insecure-skip-tls-verify";
    let insecure = with(token_document(), insecure, json!(true));
    let allowed = ReadOptions {
        allow_insecure_tls: true,
        allow_token_file: true,
        ..ReadOptions::default()
    };
    let child = read_with(&insecure, &allowed).unwrap();
    assert_eq!(child.server.trust, ServerTrust::Unchecked);
    assert!(client_config(&child).accept_invalid_certs);
    let plain = read_with(&token_document(), &allowed).unwrap();
    assert_eq!(
        plain.server.trust,
        ServerTrust::System,
        "allowed is not asked for"
    );
    let pki = Pki::new();
    let both = "/clusters/0/cluster/certificate-authority-data";
    let both = with(insecure, both, json!(base64(&pki.ca)));
    let said = read_with(&both, &allowed).unwrap_err().to_string();
    assert!(said.contains("leave one of them out"), "{said}");
    let file = with(
        token_document(),
        "/users/0/user",
        json!({ "tokenFile": "/t" }),
    );
    let child = read_with(&file, &allowed).unwrap();
    assert!(matches!(child.credential, Credential::TokenFile(path) if path == "/t"));
}

#[test]
fn servers_and_tokens_are_taken_as_people_write_them() {
    for server in [
        "https://a",
        "https://A.example.org/",
        "https://10.0.0.1:6443",
        "https://[fd00::1]:6443",
        "https://[fd00::1]",
        "HTTPS://a",
        "https://a/k8s/clusters/c-1",
    ] {
        let document = with(
            token_document(),
            "/clusters/0/cluster/server",
            json!(server),
        );
        client_config(&read(&document).unwrap());
    }
    let padded = format!("{TOKEN}\n");
    let document = with(token_document(), "/users/0/user/token", json!(padded));
    assert_eq!(token_of(&read(&document).unwrap()), TOKEN);
}

#[test]
fn keys_of_every_kind_and_with_things_around_them_are_taken() {
    let pki = Pki::new();
    let around = format!(
        "Bag Attributes\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
        pki.key
    );
    let document = certificate_document(&pki);
    let document = with(
        document,
        "/users/0/user/client-key-data",
        json!(base64(around)),
    );
    client_config(&read(&document).unwrap());
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let pki = Pki {
            ca: pki.ca.clone(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        read(&certificate_document(&pki)).unwrap();
    }
}

#[test]
fn a_certificate_ends_with_the_first_of_its_chain() {
    let pki = Pki::new();
    let mut params = CertificateParams::default();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(1_850_000_000).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = params.self_signed(&key).unwrap().pem();
    let chain = base64(format!("{}{intermediate}", pki.certificate));
    let document = certificate_document(&pki);
    let document = with(
        document,
        "/users/0/user/client-certificate-data",
        json!(chain),
    );
    let end = read(&document).unwrap().credential_expires_at();
    assert_eq!(end, Timestamp::from_second(1_850_000_000).ok());
}

#[test]
fn of_aws_only_get_token_is_understood() {
    let args = |args: &[&str]| json!({ "command": "/usr/local/bin/aws", "args": args });
    let good = ["--region", "r-1", "eks", "get-token", "--cluster-name", "c"];
    let with_env = |name: &str, value: &str| {
        let mut exec = args(&good);
        exec["env"] = json!([{ "name": name, "value": value }]);
        exec
    };
    let accepted = [
        args(&good),
        args(&[
            "eks",
            "get-token",
            "--output",
            "json",
            "--cluster-name",
            "c",
            "--region",
            "r-1",
        ]),
        args(&["eks", "get-token", "--cluster-name=c", "--region=r-1"]),
        args(&["--region", "r-1", "eks", "get-token", "--cluster-id", "c"]),
        with_env("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        with_env("AWS_REGION", "r-2"),
    ];
    for exec in accepted {
        let child = read(&exec_document(&exec)).unwrap();
        let expected = EksCluster {
            name: "c".into(),
            region: "r-1".into(),
            role_arn: None,
        };
        assert!(
            matches!(child.credential, Credential::EksToken(it) if it == expected),
            "{exec}"
        );
    }
    let exec = "users[0] \"u\".user.exec";
    let and = |more: &[&'static str]| args(&[&good, more].concat());
    let refused = [
        (args(&[]), "args: of the commands of `aws`"),
        (args(&["s3", "ls"]), "args: of the commands of `aws`"),
        (
            args(&["eks", "get-token", "--region", "r"]),
            "args: `aws eks get-token` has no --cluster-name",
        ),
        (
            args(&["eks", "get-token", "--cluster-name", "c"]),
            "args: `aws eks get-token` has no --region",
        ),
        (and(&["--profile", "p"]), "args[6]: profiles of the AWS CLI"),
        (and(&["--profile=p"]), "args[6]: profiles of the AWS CLI"),
        (
            and(&["--endpoint-url", "https://evil"]),
            "args[6]: --endpoint-url is not understood",
        ),
        (
            and(&["--role-arn", "spire"]),
            "args[7]: the value of --role-arn",
        ),
        (and(&["--role-arn"]), "args[6]: the value of --role-arn"),
        (
            and(&["--role", "arn:aws:iam::1:role/x"]),
            "args[7]: the value of --role-arn",
        ),
        (
            and(&["--region", "evil.example.org/"]),
            "args[7]: the value of --region",
        ),
        (
            and(&["--cluster-name", "a\r\nb: c"]),
            "args[7]: the value of --cluster-name",
        ),
        (
            with_env("AWS_PROFILE", "p"),
            "env[0]: profiles of the AWS CLI",
        ),
        (
            with_env("AWS_ACCESS_KEY_ID", "p"),
            "env[0]: AWS_ACCESS_KEY_ID is not understood",
        ),
        (
            with_env("AWS_REGION", "a/b"),
            "env[0]: the value of AWS_REGION",
        ),
    ];
    for (call, expected) in refused {
        let said = refusal(&exec_document(&call));
        assert!(
            said.starts_with(&format!("{exec}.{expected}")),
            "{expected}\n{said}"
        );
    }
}

#[test]
fn programs_run_only_where_they_are_allowed() {
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/plugins/jwt-svid-exec",
        "args": ["--audience", TOKEN],
        "env": [{ "name": "SPIFFE_JWT_SOURCE", "value": TOKEN }],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": true,
    });
    let said = refusal(&exec_document(&exec));
    assert!(said.contains("\"/plugins/jwt-svid-exec\" would be run for a credential, and may not"));
    let commands = ["/plugins/jwt-svid-exec".to_owned(), "aws".to_owned()];
    let options = ReadOptions {
        allowed_commands: &commands,
        ..ReadOptions::default()
    };
    let child = read_with(&exec_document(&exec), &options).unwrap();
    let Credential::Plugin(plugin) = &child.credential else {
        panic!("{child:?}")
    };
    assert_eq!(
        plugin.env,
        [("SPIFFE_JWT_SOURCE".to_owned(), TOKEN.to_owned())]
    );
    assert!(plugin.provide_cluster_info);
    let other_aws = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "aws",
        "args": ["--profile", "p", "eks", "get-token"],
    });
    let child = read_with(&exec_document(&other_aws), &options).unwrap();
    assert!(matches!(child.credential, Credential::Plugin(_)));
    for (key, value, expected) in [
        (
            "command",
            json!("jwt-svid-exec"),
            "exec.command: \"jwt-svid-exec\" would be run",
        ),
        ("command", json!(null), "exec.command: is missing"),
        ("apiVersion", json!(null), "exec.apiVersion: is missing"),
        (
            "apiVersion",
            json!("v1"),
            "exec.apiVersion: is \"v1\", must be client.authentication",
        ),
        (
            "interactiveMode",
            json!("Always"),
            "exec.interactiveMode: \"Always\" is not possible",
        ),
        ("args", json!("a"), "exec.args: must be a list"),
        (
            "env",
            json!([{ "value": "a" }]),
            "exec.env[0].name: is missing",
        ),
    ] {
        let mut exec = exec.clone();
        exec[key] = value;
        let said = read_with(&exec_document(&exec), &options)
            .unwrap_err()
            .to_string();
        assert!(said.contains(expected), "{expected}\n{said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let pki = Pki::new();
    let exec = exec_document(&json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "p",
        "args": [TOKEN],
        "env": [{ "name": "A", "value": TOKEN }],
    }));
    let proxied = "/clusters/0/cluster/proxy-url";
    let proxied = with(
        token_document(),
        proxied,
        json!(format!("http://u:{TOKEN}@p:3128")),
    );
    let commands = ["p".to_owned()];
    let options = ReadOptions {
        allowed_commands: &commands,
        ..ReadOptions::default()
    };
    let key_line = pki.key.lines().nth(1).unwrap().to_owned();
    for document in [token_document(), certificate_document(&pki), exec, proxied] {
        let child = read_with(&document, &options).unwrap();
        let shown = format!("{child:?} {:?}", child.to_kubeconfig());
        let child_shown = format!("{child:?}");
        assert!(
            !child_shown.contains(TOKEN) && !child_shown.contains(&key_line),
            "{child_shown}"
        );
        assert!(!shown.contains(&base64(&pki.key)), "{shown}");
    }
}

#[test]
fn the_objects_impersonation_replaces_the_kubeconfigs() {
    let document = with(token_document(), "/users/0/user/as", json!("somebody"));
    let document = with(document, "/users/0/user/as-uid", json!("7"));
    let child = read(&document).unwrap();
    let who = Impersonation::of("spire-root", &["g".to_owned()]).unwrap();
    let auth_info = client_config(&child.impersonating(who)).auth_info;
    assert_eq!(auth_info.impersonate.as_deref(), Some("spire-root"));
    assert_eq!(auth_info.impersonate_uid, None);
    assert_eq!(auth_info.impersonate_groups, Some(vec!["g".to_owned()]));
    for (user, group) in [("", "g"), ("a\nb", "g"), ("a", ""), ("a", "ä")] {
        assert_eq!(Impersonation::of(user, &[group.to_owned()]), None);
    }
}

/// A value as it could stand anywhere in a kubeconfig.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("https://a")),
        Just(json!("aws")),
        Just(json!(["eks", "get-token", "--cluster-name"])),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("(name|value|command|args|env|token)", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_child() -> impl Strategy<Value = Value> {
    let text = "[!-~]([ -~]{0,10}[!-~])?";
    let credential = prop_oneof![
        "[!-~]{1,40}".prop_map(|token| json!({ "token": token })),
        Just(json!({ "exec": {
            "command": "aws",
            "args": ["eks", "get-token", "--region", "eu-west-1", "--cluster-name", "c"],
        }})),
        (text, text).prop_map(|(a, b)| json!({ "exec": {
            "command": "p",
            "apiVersion": "client.authentication.k8s.io/v1",
            "args": [a],
            "env": [{ "name": b, "value": a }],
        }})),
        "/[a-z]{1,8}".prop_map(|path| json!({ "tokenFile": path })),
    ];
    let who = prop::option::of((
        text,
        prop::collection::vec(text, 0..3),
        prop::option::of(text),
    ));
    let server = "https://[a-z]{1,8}(:[1-9][0-9]{0,3})?(/[a-z]{0,4})?";
    let proxy = prop::option::of("(http|https|socks5)://([a-z]{1,4}:[a-z]{1,4}@)?[a-z]{1,8}:3128");
    (server, credential, who, proxy, any::<bool>()).prop_map(
        |(server, user, who, proxy, insecure)| {
            let mut document = token_document();
            document["clusters"][0]["cluster"] = json!({
                "server": server,
                "proxy-url": proxy,
                "insecure-skip-tls-verify": insecure,
            });
            document["users"][0]["user"] = user;
            let user = document["users"][0]["user"].as_object_mut().unwrap();
            if let Some((name, groups, uid)) = who {
                user.insert("as".into(), json!(name));
                user.insert("as-groups".into(), json!(groups));
                user.insert("as-uid".into(), json!(uid));
                user.insert("as-user-extra".into(), json!({ "reason": groups }));
            }
            document
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChildKubeconfig::read(&bytes, &ReadOptions::default());
    }

    #[test]
    fn no_text_is_too_strange(text in "[a-z:\\-\\[\\]{}&*!|>'\"%@` \n\t#?,0-9]{0,80}") {
        let _ = ChildKubeconfig::read(text.as_bytes(), &ReadOptions::default());
    }

    #[test]
    fn no_value_is_too_strange(
        value in any_value(),
        pointer in prop::sample::select(vec![
            "/clusters", "/users", "/contexts", "/current-context", "/kind",
            "/clusters/0/cluster", "/clusters/0/cluster/server", "/clusters/0/name",
            "/clusters/0/cluster/certificate-authority-data", "/clusters/0/cluster/proxy-url",
            "/users/0/user", "/users/0/user/token", "/users/0/user/exec", "/users/0/name",
            "/users/0/user/as", "/users/0/user/as-groups", "/users/0/user/as-user-extra",
            "/users/0/user/client-key-data", "/contexts/0/context", "/contexts/0/context/user",
        ]),
    ) {
        let document = with(token_document(), pointer, value);
        if let Ok(child) = read(&document) {
            client_config(&child);
        }
    }

    #[test]
    fn what_is_written_reads_the_same(document in any_child()) {
        let commands = ["p".to_owned()];
        let options = ReadOptions {
            allow_insecure_tls: true,
            allow_token_file: true,
            allowed_commands: &commands,
            context: None,
        };
        let child = read_with(&document, &options).unwrap();
        let written = serde_json::to_value(child.to_kubeconfig()).unwrap();
        let yaml = serde_saphyr::to_string(&written).unwrap();
        let again = ChildKubeconfig::read(yaml.as_bytes(), &options).unwrap();
        prop_assert_eq!(serde_json::to_value(again.to_kubeconfig()).unwrap(), written);
        prop_assert_eq!(again.server, child.server);
        prop_assert_eq!(again.impersonation, child.impersonation);
    }
}
