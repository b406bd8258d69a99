//! Workloads of somebody else's making, on go-spiffe, with a stock agent.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Attestor, Process, SOON, Served, SpireAgent, run_program, scripts};

/// A copy of the test workload, which the agent tells from other copies by its path.
async fn workload(server: &Served, agent: &str, name: &str) -> (PathBuf, String) {
    #[expect(
        clippy::disallowed_methods,
        reason = "make test says where it built the workload"
    )]
    let original = std::env::var("SPIFFE_WORKLOAD").expect("run the tests by `make test`");
    let copy = server.folder.path().join(name);
    fs::copy(original, &copy).unwrap();
    let copy = copy.canonicalize().unwrap();
    let id = server.id(name);
    let selector = format!("unix:path:{}", copy.display());
    server.cli.entry_of(agent, &id, &selector, "").await;
    (copy, id)
}

async fn two_workloads_trust_each_other(server: &Served) {
    let token = server.cli.join_token().await;
    let parent = server.join_token_agent(&token);
    let agent = SpireAgent::start(&server.endpoint, &Attestor::JoinToken(token)).await;
    let (serving, serving_id) = workload(server, &parent, "serving").await;
    let (dialling, dialling_id) = workload(server, &parent, "dialling").await;
    let socket = agent.socket();
    let socket = socket.to_str().unwrap();

    let listen = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--socket",
        socket,
        "--id",
        &dialling_id,
    ];
    let process = serve(server, &serving, &listen, &agent).await;
    let address = process
        .wait_until("the workload to serve", SOON, || async {
            let log = process.log();
            let address = log.lines().find_map(|line| line.split_once("serving on "));
            address.map(|(_, address)| address.to_owned()).ok_or(log)
        })
        .await;
    let dial = |peer: &str| {
        let arguments = ["dial", &address, "--socket", socket, "--id", peer].map(str::to_owned);
        let dialling = &dialling;
        async move { run_program(dialling, arguments).await }
    };
    // The agent has the second entry a sync later.
    let said = agent
        .process()
        .wait_until("an answer over mutual TLS", SOON, || dial(&serving_id))
        .await;
    assert_eq!(
        said.trim(),
        format!("{serving_id} answered: hello {dialling_id}")
    );
    let refused = dial(&dialling_id).await.unwrap_err();
    assert!(refused.contains("unexpected ID"), "{refused}");

    let jwt = ["jwt", "--audience", "them", "--socket", socket];
    let token = run_program(&dialling, jwt).await.unwrap();
    let verify = |audience: &str| {
        let verify = [
            "verify-jwt",
            token.trim(),
            "--audience",
            audience,
            "--socket",
            socket,
        ];
        let (verify, serving) = (verify.map(str::to_owned), &serving);
        async move { run_program(serving, verify).await }
    };
    assert_eq!(verify("them").await.unwrap().trim(), dialling_id);
    let refused = verify("others").await.unwrap_err();
    assert!(refused.contains("audience"), "{refused}");
}

/// Starts a workload as soon as the agent has an SVID for it.
async fn serve(server: &Served, program: &Path, arguments: &[&str], agent: &SpireAgent) -> Process {
    let socket = agent.socket();
    let show = [
        "jwt",
        "--audience",
        "a",
        "--socket",
        socket.to_str().unwrap(),
    ];
    agent
        .process()
        .wait_until("an SVID for the workload", SOON, || {
            run_program(program, show)
        })
        .await;
    let log = server.folder.path().join("serving.log");
    Process::start("the serving workload", program, arguments, log)
}

scripts! {
    two_workloads_trust_each_other: "1h",
}
