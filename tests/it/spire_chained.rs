//! A stock spire-server chained under a trust domain by its plugin for that (`UpstreamAuthority`
//! `spire`), with an agent and a workload of its own.

use std::path::Path;

use crate::support::{
    Attestor, SOON, Served, SpireAgent, SpireServer, X509Svid, scripts, spire_program,
};

/// A server under `root`, and an agent of each.
struct Chain {
    root_agent: SpireAgent,
    child: SpireServer,
    child_agent: SpireAgent,
    upper: String,
    lower: String,
}

impl Chain {
    async fn under(root: &Served) -> Self {
        let attestor = Attestor::x509pop(&root.x509pop_ca, "upper", root.folder.path());
        let root_agent = SpireAgent::start(&root.endpoint, &attestor).await;
        let root_agent_id = root.agents("").await.remove(0);
        let by_path = |program: &Path| format!("unix:path:{}", program.display());
        let server = by_path(&spire_program("spire-server").await.canonicalize().unwrap());
        let workload = by_path(&spire_program("spire-agent").await.canonicalize().unwrap());
        let child_id = root.id("child");
        root.cli
            .entry_of(&root_agent_id, &child_id, &server, "-downstream")
            .await;
        let upper = root.id("upper");
        root.cli
            .entry_of(&root_agent_id, &upper, &workload, "")
            .await;
        root_agent.x509_svid(&upper).await;

        let upstream = format!(
            r#"UpstreamAuthority "spire" {{ plugin_data {{
    server_address = "127.0.0.1"
    server_port = {}
    workload_api_socket = "{}"
  }} }}"#,
            root.endpoint.port,
            root_agent.socket().display()
        );
        let child = SpireServer::start(&root.trust_domain, "ca_ttl = \"1h\"", &upstream).await;
        let token = child.cli().join_token().await;
        let parent = root.join_token_agent(&token);
        let endpoint = child.endpoint().await;
        let child_agent = SpireAgent::start(&endpoint, &Attestor::JoinToken(token)).await;
        let lower = root.id("lower");
        child.cli().entry(&parent, &lower, "").await;
        Self {
            root_agent,
            child,
            child_agent,
            upper,
            lower,
        }
    }

    /// The SVID of the lower workload verifies to the root's bundle, tokens of each side on the
    /// other.
    async fn holds(&self) -> X509Svid {
        let svid = self.child_agent.x509_svid(&self.lower).await;
        assert_eq!(svid.chain.len(), 2, "the leaf and the child's CA");
        let upper = self.root_agent.x509_svid(&self.upper).await;
        assert!(svid.bundle.roots().eq(upper.bundle.roots()));
        self.tokens_flow().await;
        svid
    }

    /// A key reaches the other side within the syncs on its way.
    async fn tokens_flow(&self) {
        let sides = [
            (&self.child_agent, &self.root_agent),
            (&self.root_agent, &self.child_agent),
        ];
        for (from, to) in sides {
            let token = from.fetch_jwt("them").await.unwrap();
            let validate = format!("api validate jwt -audience them -svid {token}");
            to.process()
                .wait_until("a token from the other side to be valid", SOON, || {
                    to.command(&validate)
                })
                .await;
        }
    }
}

async fn a_server_is_chained(root: &Served) {
    let chain = Chain::under(root).await;
    let before = chain.holds().await;
    assert!(
        root.cli
            .bundle(&root.trust_domain)
            .await
            .roots()
            .eq(before.bundle.roots())
    );

    // A new authority at the root, and the old one tainted: the child takes a new CA by itself.
    let old = root.authority("x509", "active").await.unwrap();
    root.cli.run("localauthority x509 prepare").await.unwrap();
    let next = root.authority("x509", "prepared").await.unwrap();
    root.cli
        .run(&format!("localauthority x509 activate -authorityID {next}"))
        .await
        .unwrap();
    root.cli
        .run(&format!("localauthority x509 taint -authorityID {old}"))
        .await
        .unwrap();
    let renewed = |svids: &[X509Svid]| svids[0].chain[1] != before.chain[1];
    chain
        .child_agent
        .x509_svids("an SVID under the new CA", renewed)
        .await;
    root.cli
        .run(&format!("localauthority x509 revoke -authorityID {old}"))
        .await
        .unwrap();
    let one = |svids: &[X509Svid]| svids[0].bundle.roots().count() == 1;
    chain
        .child_agent
        .x509_svids("the old root to be gone", one)
        .await;
    chain
        .root_agent
        .x509_svids("the old root to be gone", one)
        .await;
    chain.holds().await;
    assert!(chain.child.process().status().is_none());
}

scripts! {
    a_server_is_chained: "1h",
}
