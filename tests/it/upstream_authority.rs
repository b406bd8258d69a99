//! Trust domains whose CAs a server above signs: a stock spire-server, or one of ours.

use std::io::Write as _;
use std::process::{Command, Stdio};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spiffe_operator::spiffe::{Bundle, pem, verify_jwt_svid, verify_x509_svid};
use tempfile::TempDir;

use crate::support::{
    AGENT_ACCOUNT, Attestor, Ca, Operator, SOON, SpireAgent, SpireServer, SpireServerCli, World,
    apply, ca, control_plane, free_port, pod, pod_token, service_account, shared_operator, unique,
    wait_until,
};

/// Name of the child's cluster at the parent.
const CHILD: &str = "child01";

/// A trust domain of ours under a stock server.
struct Chain {
    world: World,
    parent: SpireServer,
    /// Name of the ConfigMap with the parent's bundle.
    bundle: String,
    /// Who signs certificates that agents of the parent attest with.
    nodes: Ca,
    folder: TempDir,
}

impl Chain {
    /// A stock server, and the world that is to be under it; `server` is put into that part of its
    /// configuration.
    async fn begin(server: &str) -> Self {
        let control_plane = control_plane().await;
        let world = World::without_trust_domain(control_plane).await;
        let folder = tempfile::tempdir().unwrap();
        let nodes = ca("nodes");
        let nodes_file = folder.path().join("nodes.pem");
        std::fs::write(&nodes_file, nodes.pem()).unwrap();
        let plugins = format!(
            r#"NodeAttestor "x509pop" {{ plugin_data {{ ca_bundle_path = "{}" }} }}
  NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "{CHILD}" = {{
    service_account_allow_list = ["{}:{AGENT_ACCOUNT}"]
    kube_config_file = "{}"
    use_pod_uid_for_agent_id = true
  }} }} }} }}"#,
            nodes_file.display(),
            world.namespace,
            control_plane.kubeconfig().display()
        );
        let server = format!("ratelimit {{ attestation = false }}\n  {server}");
        let parent = SpireServer::start(&world.trust_domain, &server, &plugins).await;
        let bundle = unique("upstream-bundle");
        let shown = parent
            .cli()
            .run("bundle show -format spiffe")
            .await
            .unwrap();
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": bundle, "namespace": "spiffe-system" },
            "data": { "bundle.spiffe": shown },
        });
        shared_operator().await;
        apply(&world.client, &object).await.unwrap();
        world.apply_cluster_spiffe_id("web", json!({})).await;
        Self {
            world,
            parent,
            bundle,
            nodes,
            folder,
        }
    }

    /// Has the operator chain the trust domain under the parent, showing who it is by `attestor`.
    async fn chain(&self, attestor: (&str, Value), changes: Value) {
        let port = self.parent.endpoint().await.port;
        let mut spire = json!({
            "address": format!("127.0.0.1:{port}"),
            "bundle": { "name": self.bundle },
        });
        spire[attestor.0] = attestor.1;
        let mut spec = json!({
            "authority": { "upstream": { "spire": spire } },
            "server": { "port": free_port() },
        });
        for (key, value) in changes.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.world.apply_trust_domain(spec).await;
    }

    fn id(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.world.trust_domain)
    }

    /// Registers the agent `agent` as a server below at the parent.
    async fn downstream_entry(&self, agent: &str, name: &str) {
        let id = self.id(name);
        let selector = "spiffe_id:any";
        let further = "-downstream -x509SVIDTTL 3600";
        let cli = self.parent.cli();
        cli.entry_of(agent, &id, selector, further).await;
    }

    /// A Secret with a join token, and what shows it.
    async fn join_token(&self) -> (String, (&'static str, Value)) {
        let token = self.parent.cli().join_token().await;
        let name = unique("join-token");
        let object = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "namespace": "spiffe-system" },
            "data": { "token": ByteString(token.clone().into_bytes()) },
        });
        apply(&self.world.client, &object).await.unwrap();
        let agent = self.id(&format!("spire/agent/join_token/{token}"));
        (
            agent,
            ("joinToken", json!({ "secretRef": { "name": name } })),
        )
    }

    /// A Secret with a certificate that the parent takes, and what shows it.
    async fn x509pop(&self) -> (&'static str, Value) {
        let name = unique("node");
        let Attestor::X509Pop { certificates, key } =
            Attestor::x509pop(&self.nodes, &name, self.folder.path())
        else {
            panic!("by a certificate");
        };
        let bytes = |path| ByteString(std::fs::read(path).unwrap());
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": name, "namespace": "spiffe-system" },
            "data": { "tls.crt": bytes(certificates), "tls.key": bytes(key) },
        });
        apply(&self.world.client, &object).await.unwrap();
        ("x509pop", json!({ "secretRef": { "name": name } }))
    }

    /// A pod with a token for the parent, and what shows that.
    async fn k8s_psat(&self, operator: &Operator) -> (Pod, (&'static str, Value)) {
        let World {
            client,
            namespace,
            node,
            ..
        } = &self.world;
        service_account(client, namespace, AGENT_ACCOUNT).await;
        let spec = json!({
            "serviceAccountName": AGENT_ACCOUNT,
            "containers": [{ "name": "operator", "image": "none" }],
        });
        let pod = pod(client, namespace, "operator", &node.name_any(), &[], spec).await;
        let file = unique("token");
        let token = pod_token(client, &pod, "spire-server").await;
        std::fs::write(operator.token_folder().join(&file), token).unwrap();
        let psat = json!({ "cluster": CHILD, "tokenFile": file });
        (pod, ("k8sPSAT", psat))
    }

    /// The ID of the agent that the parent knows.
    async fn agent(&self) -> String {
        let cli = self.parent.cli();
        wait_until("an agent at the parent", SOON, || async {
            let listed = cli.json("agent list").await;
            let path = listed["agents"][0]["id"]["path"].as_str();
            let path = path.ok_or_else(|| listed.to_string())?;
            Ok(self.id(path.trim_start_matches('/')))
        })
        .await
    }

    async fn child(&self, operator: &Operator) -> SpireServerCli {
        SpireServerCli::new(operator.admin_socket(&self.world.class)).await
    }

    /// The child signs what verifies to the parent's root, and each verifies the other's tokens.
    async fn holds(&self) {
        let parent_roots = self.parent.cli().bundle(&self.world.trust_domain).await;
        let chain = self.world.issue().await;
        assert_eq!(chain.len(), 2, "the leaf and the child's CA");
        verify_x509_svid(&chain, &parent_roots, Timestamp::now()).unwrap();
        openssl_verifies(&chain, &parent_roots);
        let child = self.child(shared_operator().await).await;
        tokens_flow(&self.world.trust_domain, &child, self.parent.cli()).await;
        tokens_flow(&self.world.trust_domain, self.parent.cli(), &child).await;
    }
}

/// A token by one server verifies to the bundle of the other.
async fn tokens_flow(trust_domain: &str, from: &SpireServerCli, to: &SpireServerCli) {
    let id = format!("spiffe://{trust_domain}/someone");
    let mint = format!("jwt mint -spiffeID {id} -audience them");
    let token = wait_until("a token", SOON, || from.run(&mint)).await;
    wait_until("a token from the other side to be valid", SOON, || async {
        let bundle = to.run("bundle show -format spiffe").await?;
        let bundle = Bundle::from_document(trust_domain.parse().unwrap(), bundle.as_bytes());
        let bundle = bundle.map_err(|error| error.to_string())?;
        verify_jwt_svid(token.trim(), &bundle, "them", Timestamp::now())
            .map_err(|error| error.to_string())
    })
    .await;
}

/// OpenSSL finds a valid path from the first of `chain` to a root of `bundle`.
fn openssl_verifies(chain: &[CertificateDer<'static>], bundle: &Bundle) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = TempDir::path(&folder).join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let roots = file("roots.pem", bundle.to_pem());
    let above = file("above.pem", pem::encode_certificates(&chain[1..]));
    let mut openssl = Command::new("openssl")
        .args(["verify", "-CAfile", roots.to_str().unwrap()])
        .args(["-untrusted", above.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let leaf = pem::encode_certificates(&chain[..1]);
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(leaf.as_bytes()).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_server_above_signs_the_cas_of_who_joined_with_a_token() {
    let chain = Chain::begin("").await;
    let (agent, attestor) = chain.join_token().await;
    chain.chain(attestor, json!({})).await;
    let world = &chain.world;
    let missing = world
        .trust_domain_reason("UpstreamReachable", "NoDownstreamEntry")
        .await;
    assert!(missing.message.contains(&agent), "{}", missing.message);
    world
        .trust_domain_reason("AuthorityReady", "NoDownstreamEntry")
        .await;
    chain.downstream_entry(&agent, "child").await;
    world
        .trust_domain_reason("UpstreamReachable", "Reachable")
        .await;
    world.trust_domain_condition("Ready", "True").await;
    chain.holds().await;
}

#[tokio::test]
async fn a_server_above_signs_the_cas_of_who_shows_a_certificate() {
    let chain = Chain::begin("").await;
    let attestor = chain.x509pop().await;
    chain
        .chain(attestor, json!({ "keyType": "rsa-2048" }))
        .await;
    let agent = chain.agent().await;
    chain.downstream_entry(&agent, "child").await;
    chain.world.trust_domain_condition("Ready", "True").await;
    chain.holds().await;
}

#[tokio::test]
async fn a_server_above_signs_the_cas_of_who_shows_a_token_of_its_service_account() {
    let chain = Chain::begin("").await;
    let (pod, attestor) = chain.k8s_psat(shared_operator().await).await;
    chain.chain(attestor, json!({})).await;
    let agent = chain.agent().await;
    let uid = pod.uid().unwrap();
    let expected = chain.id(&format!("spire/agent/k8s_psat/{CHILD}/pod/{uid}"));
    assert_eq!(agent, expected);
    chain.downstream_entry(&agent, "child").await;
    chain.world.trust_domain_condition("Ready", "True").await;
    chain.holds().await;
}

#[tokio::test]
async fn an_agent_beside_it_shows_the_server_above_who_it_is() {
    let chain = Chain::begin("").await;
    let attestor = Attestor::x509pop(&chain.nodes, "beside", chain.folder.path());
    let agent = SpireAgent::start(&chain.parent.endpoint().await, &attestor).await;
    let socket = json!({ "socketPath": agent.socket() });
    chain.chain(("workloadAPI", socket), json!({})).await;
    chain
        .world
        .trust_domain_reason("UpstreamReachable", "WorkloadAPI")
        .await;
    let cli = chain.parent.cli();
    let agent = chain.agent().await;
    cli.entry(&agent, &chain.id("child"), "-downstream").await;
    chain.world.trust_domain_condition("Ready", "True").await;
    chain.holds().await;
}
