//! Stock agents: how they attest, what their workloads get, and what becomes of both.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::support::{
    AGENT_ACCOUNT, Attestor, CLUSTER, SOON, Served, SpireAgent, X509Svid, ca, pod, scripts,
    service_account, unique,
};

/// An agent that has attested with a join token, its ID, and the ID of a workload for which it has
/// an entry.
async fn join_token_agent(server: &Served) -> (SpireAgent, String, String) {
    let token = server.cli.join_token().await;
    let id = server.join_token_agent(&token);
    let agent = SpireAgent::start(&server.endpoint, &Attestor::JoinToken(token)).await;
    let web = server.id("web");
    server.cli.entry(&id, &web, "").await;
    (agent, id, web)
}

/// The same with a certificate.
async fn x509pop_agent(server: &Served) -> (SpireAgent, String, String) {
    let attestor = Attestor::x509pop(&server.x509pop_ca, &unique("node"), server.folder.path());
    let agent = SpireAgent::start(&server.endpoint, &attestor).await;
    let id = server.agents("-attestationType x509pop").await.remove(0);
    let web = server.id("web");
    server.cli.entry(&id, &web, "").await;
    (agent, id, web)
}

fn serial(svid: &X509Svid) -> Vec<u8> {
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap();
    leaf.raw_serial().to_vec()
}

async fn workloads_get_svids_and_bundles(server: &Served) {
    let (agent, _, web) = join_token_agent(server).await;
    let watch = agent.watch();
    let svid = agent.x509_svid(&web).await;
    let roots = server.cli.bundle(&server.trust_domain).await;
    assert!(svid.bundle.roots().eq(roots.roots()));
    watch
        .wait_until("the SVID to be seen by a watch", SOON, || async {
            let log = watch.log();
            log.contains(&web).then_some(()).ok_or(log)
        })
        .await;

    let token = agent.fetch_jwt("them").await.unwrap();
    let validate = |audience: &str, token: &str| {
        let command = format!("api validate jwt -audience {audience} -svid {token}");
        let agent = &agent;
        async move { agent.command(&command).await }
    };
    let valid = validate("them", &token).await.unwrap();
    assert!(
        valid.contains("SVID is valid.") && valid.contains(&web),
        "{valid}"
    );
    let invalid = validate("others", &token).await.unwrap_err();
    assert!(invalid.contains("SVID is not valid"), "{invalid}");
    let minted = format!("jwt mint -spiffeID {} -audience them", server.id("minted"));
    let minted = server.cli.run(&minted).await.unwrap();
    let valid = validate("them", minted.trim()).await.unwrap();
    assert!(valid.contains("/minted"), "{valid}");
    let healthy = agent.command("healthcheck").await.unwrap();
    assert_eq!(healthy.trim(), "Agent is healthy.");

    // What is registered no more is served no more.
    let shown = server.cli.json("entry show").await;
    for entry in shown["entries"].as_array().unwrap() {
        let id = entry["id"].as_str().unwrap();
        server
            .cli
            .run(&format!("entry delete -entryID {id}"))
            .await
            .unwrap();
    }
    agent
        .process()
        .wait_until("no identity to be left", SOON, || async {
            match agent.fetch_x509().await {
                Err(error) if error.contains("no identity issued") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
}

async fn a_join_token_counts_once(server: &Served) {
    let token = server.cli.join_token().await;
    let attestor = Attestor::JoinToken(token.clone());
    let mut first = SpireAgent::start(&server.endpoint, &attestor).await;
    let second = SpireAgent::launch(&server.endpoint, &attestor).await;
    second
        .says("join token does not exist or has already been used")
        .await;
    assert_eq!(server.agents("").await, [server.join_token_agent(&token)]);
    // With its data an agent is what it was; without, it has but a token that is used up.
    first.restart().await;
    first.relaunch_without_data().await;
    first
        .says("join token does not exist or has already been used")
        .await;
}

async fn a_certificate_attests_as_often_as_needed(server: &Served) {
    let name = unique("node");
    let attestor = Attestor::x509pop(&server.x509pop_ca, &name, server.folder.path());
    let mut agent = SpireAgent::start(&server.endpoint, &attestor).await;
    let id = server.agents("-attestationType x509pop").await.remove(0);
    let shown = server
        .cli
        .says(
            &format!("agent show -spiffeID {id}"),
            &["x509pop", "Can re-attest     : true"],
        )
        .await;
    let fingerprint = id.rsplit('/').next().unwrap();
    assert_eq!(fingerprint.len(), 40, "{id}");
    assert!(
        shown.contains(&format!("x509pop:subject:cn:{name}")),
        "{shown}"
    );
    assert!(shown.contains("x509pop:ca:fingerprint:"), "{shown}");

    // By an alias: what all nodes with a selector have in common.
    let fleet = server.id("fleet");
    let alias = format!("entry create -node -spiffeID {fleet} -selector x509pop:subject:cn:{name}");
    server.cli.run(&alias).await.unwrap();
    let web = server.id("web");
    server.cli.entry(&fleet, &web, "").await;
    agent.x509_svid(&web).await;
    agent.restart().await;
    agent.x509_svid(&web).await;
    agent.relaunch_without_data().await;
    agent.healthy().await;
    agent.x509_svid(&web).await;
    assert_eq!(server.agents("").await, [id]);

    let other = ca("somebody else");
    let attestor = Attestor::x509pop(&other, "foreign", server.folder.path());
    let foreign = SpireAgent::launch(&server.endpoint, &attestor).await;
    foreign.says("certificate verification failed").await;
}

async fn a_pods_token_attests_its_node(server: &Served) {
    let world = &server.world;
    let client = &world.client;
    service_account(client, &world.namespace, AGENT_ACCOUNT).await;
    let node = world.node.name_any();
    let pod = async |name: &str, account: &str| {
        let spec = json!({ "serviceAccountName": account });
        pod(
            client,
            &world.namespace,
            name,
            &node,
            &[("app", "agent")],
            spec,
        )
        .await
    };
    let folder = server.folder.path();
    let agents = pod("agent", AGENT_ACCOUNT).await;
    let attestor = Attestor::k8s_psat(client, CLUSTER, &agents, "spire-server", folder).await;
    let mut agent = SpireAgent::start(&server.endpoint, &attestor).await;
    let id = server.id(&format!(
        "spire/agent/k8s_psat/{CLUSTER}/{}",
        world.node.uid().unwrap()
    ));
    assert_eq!(server.agents("").await, [id.as_str()]);
    let selectors = [
        format!("k8s_psat:cluster:{CLUSTER}"),
        format!("k8s_psat:agent_ns:{}", world.namespace),
        format!("k8s_psat:agent_sa:{AGENT_ACCOUNT}"),
        "k8s_psat:agent_pod_name:agent".to_owned(),
        format!("k8s_psat:agent_pod_uid:{}", agents.uid().unwrap()),
        format!("k8s_psat:agent_node_name:{node}"),
        format!("k8s_psat:agent_node_uid:{}", world.node.uid().unwrap()),
    ];
    let selectors: Vec<_> = selectors.iter().map(String::as_str).collect();
    server
        .cli
        .says(&format!("agent show -spiffeID {id}"), &selectors)
        .await;
    let web = server.id("web");
    server.cli.entry(&id, &web, "").await;
    agent.x509_svid(&web).await;
    agent.relaunch_without_data().await;
    agent.healthy().await;
    agent.x509_svid(&web).await;

    // Who may not: another account, a token for somebody else, an unknown cluster, a pod that is gone.
    let stranger = pod("stranger", "workload").await;
    let refused = [
        (
            CLUSTER,
            &stranger,
            "spire-server",
            "is not an allowed service account",
        ),
        (CLUSTER, &agents, "somebody", "code = Internal"),
        (
            "elsewhere",
            &agents,
            "spire-server",
            "not configured for cluster",
        ),
    ];
    for (cluster, of, audience, said) in refused {
        let attestor = Attestor::k8s_psat(client, cluster, of, audience, folder).await;
        let agent = SpireAgent::launch(&server.endpoint, &attestor).await;
        agent.says(said).await;
    }
    let attestor = Attestor::k8s_psat(client, CLUSTER, &agents, "spire-server", folder).await;
    let pods = Api::<Pod>::namespaced(client.clone(), &world.namespace);
    let now = DeleteParams::default().grace_period(0);
    pods.delete("agent", &now).await.unwrap();
    let agent = SpireAgent::launch(&server.endpoint, &attestor).await;
    agent.says("code = Internal").await;
}

async fn svids_are_rotated_before_they_end(server: &Served) {
    let (agent, _, _) = join_token_agent(server).await;
    let short = server.id("short");
    server
        .cli
        .entry(&server.agents("").await[0], &short, "-x509SVIDTTL 6")
        .await;
    let mut serials = vec![serial(&agent.x509_svid(&short).await)];
    while serials.len() < 4 {
        let fetched = agent.fetch_x509().await.unwrap();
        let svid = fetched
            .iter()
            .find(|svid| svid.id.as_str() == short)
            .unwrap();
        let serial = serial(svid);
        if serials.last() != Some(&serial) {
            serials.push(serial);
        }
    }
}

async fn an_agent_renews_itself(server: &Served) {
    for agent in [join_token_agent(server).await, x509pop_agent(server).await] {
        let (agent, id, web) = agent;
        let serial = |shown: &Value| shown["x509svid_serial_number"].as_str().unwrap().to_owned();
        let shown = server.cli.json(&format!("agent show -spiffeID {id}")).await;
        let first = serial(&shown);
        agent.x509_svid(&web).await;
        agent
            .process()
            .wait_until("another SVID of the agent", SOON, || async {
                // It may end at no time.
                agent.fetch_x509().await.unwrap();
                let shown = server.cli.json(&format!("agent show -spiffeID {id}")).await;
                (serial(&shown) != first).then_some(()).ok_or(first.clone())
            })
            .await;
        agent.x509_svid(&web).await;
        server
            .cli
            .run(&format!("agent evict -spiffeID {id}"))
            .await
            .unwrap();
    }
}

async fn an_agent_that_is_evicted_attests_again_if_it_can(server: &Served) {
    let (agent, id, web) = x509pop_agent(server).await;
    agent.x509_svid(&web).await;
    server
        .cli
        .says(&format!("agent evict -spiffeID {id}"), &["evicted"])
        .await;
    agent
        .process()
        .wait_until("the agent to attest again", SOON, || async {
            let agents = server.agents("").await;
            (agents == [id.clone()])
                .then_some(())
                .ok_or(format!("{agents:?}"))
        })
        .await;
    agent.x509_svid(&web).await;

    let (agent, id, _) = join_token_agent(server).await;
    server
        .cli
        .says(&format!("agent evict -spiffeID {id}"), &["evicted"])
        .await;
    agent.process().ended(SOON).await;
    agent.says("attestation method is not re-attestable").await;
}

async fn an_agent_that_is_banned_is_refused(server: &Served) {
    let (mut agent, id, web) = x509pop_agent(server).await;
    agent.x509_svid(&web).await;
    server
        .cli
        .says(&format!("agent ban -spiffeID {id}"), &["banned"])
        .await;
    agent.process().ended(SOON).await;
    agent.relaunch_without_data().await;
    agent.says("failed to attest: agent is banned").await;
    // Eviction lifts the ban.
    server
        .cli
        .says(&format!("agent evict -spiffeID {id}"), &["evicted"])
        .await;
    agent.relaunch_without_data().await;
    agent.healthy().await;
    agent.x509_svid(&web).await;
}

async fn authorities_change_under_a_running_agent(server: &Served) {
    let (agent, _, web) = x509pop_agent(server).await;
    let Served { cli, .. } = server;
    let before = agent.x509_svid(&web).await;
    let [old] = &before.bundle.roots().cloned().collect::<Vec<_>>()[..] else {
        panic!("one root")
    };
    let (old_x509, old_jwt) = (
        server.authority("x509", "active").await.unwrap(),
        server.authority("jwt", "active").await.unwrap(),
    );
    let token = agent.fetch_jwt("them").await.unwrap();
    for kind in ["x509", "jwt"] {
        cli.run(&format!("localauthority {kind} prepare"))
            .await
            .unwrap();
    }
    let both = |svids: &[X509Svid]| svids[0].bundle.roots().count() == 2;
    let svids = agent.x509_svids_at_every_time("two roots", both).await;
    assert_eq!(
        serial(&svids[0]),
        serial(&before),
        "nothing else has changed"
    );
    for kind in ["x509", "jwt"] {
        let next = server.authority(kind, "prepared").await.unwrap();
        cli.run(&format!(
            "localauthority {kind} activate -authorityID {next}"
        ))
        .await
        .unwrap();
    }
    agent.fetch_x509().await.unwrap();
    let tainted = format!("localauthority x509 taint -authorityID {old_x509}");
    cli.run(&tainted).await.unwrap();
    cli.run(&format!("localauthority jwt taint -authorityID {old_jwt}"))
        .await
        .unwrap();
    let rotated = |svids: &[X509Svid]| serial(&svids[0]) != serial(&before);
    agent
        .x509_svids_at_every_time("an SVID by the new authority", rotated)
        .await;
    agent
        .process()
        .wait_until("a token by the new key", SOON, || async {
            let said = agent.fetch_jwt("them").await.unwrap();
            (said != token).then_some(()).ok_or(said)
        })
        .await;
    cli.run(&format!(
        "localauthority x509 revoke -authorityID {old_x509}"
    ))
    .await
    .unwrap();
    cli.run(&format!("localauthority jwt revoke -authorityID {old_jwt}"))
        .await
        .unwrap();
    let gone = |svids: &[X509Svid]| !svids[0].bundle.roots().any(|root| root == old);
    agent
        .x509_svids_at_every_time("the old root to be gone", gone)
        .await;
    agent
        .process()
        .wait_until("the old key to be gone", SOON, || async {
            let validate = format!("api validate jwt -audience them -svid {token}");
            match agent.command(&validate).await {
                Err(said) if said.contains("SVID is not valid") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    agent.healthy().await;
}

/// Under the usual limits, with agents that come from one address all at once.
#[tokio::test]
async fn agents_that_attest_at_once_all_succeed() {
    let server = &Served::by_operator_with_usual_limits().await;
    let token = server.cli.join_token().await;
    let by_token = Attestor::JoinToken(token);
    let folder = server.folder.path();
    let [first, second] =
        [(); 2].map(|()| Attestor::x509pop(&server.x509pop_ca, &unique("node"), folder));
    let (mut one, other, third) = tokio::join!(
        SpireAgent::start(&server.endpoint, &first),
        SpireAgent::start(&server.endpoint, &second),
        SpireAgent::start(&server.endpoint, &by_token),
    );
    let web = server.id("web");
    for agent in server.agents("").await {
        server.cli.entry(&agent, &web, "").await;
    }
    one.relaunch_without_data().await;
    one.healthy().await;
    for agent in [&one, &other, &third] {
        agent.x509_svid(&web).await;
        assert!(!agent.process().log().contains("rate limit"));
    }
    assert_eq!(server.agents("").await.len(), 3);
}

scripts! {
    workloads_get_svids_and_bundles: "1h",
    a_join_token_counts_once: "1h",
    a_certificate_attests_as_often_as_needed: "1h",
    a_pods_token_attests_its_node: "1h",
    svids_are_rotated_before_they_end: "1h",
    an_agent_renews_itself: "10s",
    an_agent_that_is_evicted_attests_again_if_it_can: "1h",
    an_agent_that_is_banned_is_refused: "1h",
    authorities_change_under_a_running_agent: "1h",
}
