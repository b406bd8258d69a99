//! A stock spire-server chained under a trust domain by its plugin for that (`UpstreamAuthority`
//! `spire`), with an agent and a workload of its own.

use crate::support::{
    Attestor, ControlPlane, Options, SOON, Served, SpireAgent, SpireServer, SpireServerCli, World,
    X509Svid, release_lease, scripts, spire_program, wait_until,
};

/// A server under `root`, and an agent of each.
struct Chain {
    root_agent: SpireAgent,
    root_agent_id: String,
    child: SpireServer,
    child_agent: SpireAgent,
    child_agent_id: String,
    upper: String,
    lower: String,
}

impl Chain {
    async fn under(root: &Served) -> Self {
        let attestor = Attestor::x509pop(&root.x509pop_ca, "upper", root.folder.path());
        let root_agent = SpireAgent::start(&root.endpoint, &attestor).await;
        let root_agent_id = root.agents("").await.remove(0);
        let server = program_selector("spire-server").await;
        let workload = program_selector("spire-agent").await;
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
        let child_agent_id = root.join_token_agent(&token);
        let endpoint = child.endpoint().await;
        let child_agent = SpireAgent::start(&endpoint, &Attestor::JoinToken(token)).await;
        let lower = root.id("lower");
        child.cli().entry(&child_agent_id, &lower, "").await;
        Self {
            root_agent,
            root_agent_id,
            child,
            child_agent,
            child_agent_id,
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

#[tokio::test]
async fn agents_and_chained_servers_survive_a_killed_operator() {
    let control_plane = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&control_plane).await;
    let operator = World::operator(&control_plane).await;
    let mut root = Served::of(world, &operator, "1h").await;
    let chain = Chain::under(&root).await;
    chain.holds().await;

    operator.signal("KILL");
    operator.ended(SOON).await;
    // What agents hold they serve, and a server below signs.
    chain.root_agent.fetch_x509().await.unwrap();
    let new = root.id("new-below");
    let below = chain.child_agent_id.as_str();
    chain.child.cli().entry(below, &new, "").await;
    chain.child_agent.x509_svid(&new).await;

    release_lease(&root.world.client).await;
    let operator = World::operator(&control_plane).await;
    let socket = operator.admin_socket(&root.world.class);
    root.cli = SpireServerCli::new(socket).await;
    wait_until("the server to serve again", SOON, || {
        root.cli.run("bundle show")
    })
    .await;
    let new = root.id("new-above");
    let workload = program_selector("spire-agent").await;
    root.cli
        .entry_of(&chain.root_agent_id, &new, &workload, "")
        .await;
    chain.root_agent.x509_svid(&new).await;
    chain.holds().await;
    for agent in [&chain.root_agent, &chain.child_agent] {
        let log = agent.process().log();
        let attested = log.matches("Node attestation was successful").count();
        assert_eq!(attested, 1, "{log}");
    }
}

/// By what an agent knows one of SPIRE's programs.
async fn program_selector(name: &'static str) -> String {
    let program = spire_program(name).await.canonicalize().unwrap();
    format!("unix:path:{}", program.display())
}

scripts! {
    a_server_is_chained: "1h",
}
