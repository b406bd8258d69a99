//! Trust domains whose CAs a server above signs: a stock spire-server, or one of ours.

use std::io::Write as _;
use std::process::{Command, Stdio};

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spiffe_operator::spiffe::{Bundle, pem, verify_jwt_svid, verify_x509_svid};
use tempfile::TempDir;

use crate::support::{
    Operator, SOON, SpireServer, SpireServerCli, World, apply, control_plane, free_port,
    shared_operator, unique, wait_until,
};

/// A trust domain of ours under a stock server.
struct Chain {
    world: World,
    parent: SpireServer,
    /// Name of the ConfigMap with the parent's bundle.
    bundle: String,
}

impl Chain {
    /// A stock server and the world that is to be under it; `server` and `plugins` are put into those
    /// parts of its configuration.
    async fn begin(server: &str, plugins: &str) -> Self {
        let world = World::without_trust_domain(control_plane().await).await;
        let parent = SpireServer::start(&world.trust_domain, server, plugins).await;
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
        Self {
            world,
            parent,
            bundle,
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
async fn a_stock_server_above_signs_the_cas() {
    let chain = Chain::begin("", "").await;
    let (agent, attestor) = chain.join_token().await;
    chain.world.apply_cluster_spiffe_id("web", json!({})).await;
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
