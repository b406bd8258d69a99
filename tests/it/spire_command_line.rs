//! The stock `spire-server` command line against our administrators' socket, every subcommand, with
//! its output. The same scripts run against a stock server, so that what they expect is what SPIRE
//! does.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};
use spiffe_operator::spiffe::{Bundle, pem, verify_x509_svid};

use crate::support::{Attestor, SOON, Served, SpireAgent, ca, scripts, wait_until};

async fn entries(server: &Served) {
    let Served { cli, .. } = server;
    let (parent, web, database) = (server.id("parent"), server.id("web"), server.id("database"));
    let create = format!(
        "entry create -parentID {parent} -spiffeID {web} -selector unix:uid:1 -selector unix:gid:2 \
         -x509SVIDTTL 600 -jwtSVIDTTL 60 -dns web.example -dns www.example -hint external"
    );
    let said = cli
        .says(
            &create,
            &[
                "Entry ID",
                &web,
                &parent,
                "600",
                "60",
                "unix:uid:1",
                "unix:gid:2",
            ],
        )
        .await;
    assert!(
        said.contains("web.example") && said.contains("external"),
        "{said}"
    );
    cli.refuses(&create, "similar entry already exists").await;
    let of_web = server
        .entry_ids(&format!("-spiffeID {web}"))
        .await
        .remove(0);
    let node = format!(
        "entry create -node -spiffeID {} -selector k8s_psat:cluster:a",
        server.id("node")
    );
    cli.says(&node, &[&server.id("spire/server")]).await;
    let batch = json!({ "entries": [
        {
            "spiffe_id": database, "parent_id": parent, "entry_id": "database.1",
            "selectors": [{ "type": "unix", "value": "uid:1" }], "downstream": true,
        },
        {
            "spiffe_id": server.id("spire/bad"), "parent_id": parent,
            "selectors": [{ "type": "unix", "value": "uid:1" }],
        },
    ]});
    let file = server.file("entries.json", &batch.to_string());
    // The good one is made, the bad one is named, and the command fails.
    cli.refuses(&format!("entry create -data {file}"), "InvalidArgument")
        .await;

    cli.says("entry count", &["3 registration entries"]).await;
    cli.says(
        &format!("entry count -parentID {parent}"),
        &["2 registration entries"],
    )
    .await;
    cli.says("entry show", &["Found 3 entries"]).await;
    cli.says(
        "entry show -entryID database.1",
        &["Found 1 entry", &database, "Downstream"],
    )
    .await;
    cli.refuses("entry show -entryID database.2", "NotFound")
        .await;
    assert_eq!(server.entry_ids("-downstream").await, ["database.1"]);
    assert_eq!(server.entry_ids("-hint external").await, [of_web.as_str()]);
    let both = "-selector unix:uid:1 -selector unix:gid:2";
    assert_eq!(server.entry_ids(both).await, [of_web.as_str()]);
    assert_eq!(
        server
            .entry_ids(&format!("{both} -matchSelectorsOn exact"))
            .await,
        [of_web.as_str()]
    );
    assert_eq!(
        server
            .entry_ids("-selector unix:uid:1 -matchSelectorsOn exact")
            .await,
        ["database.1"]
    );
    assert_eq!(
        server
            .entry_ids(&format!("{both} -matchSelectorsOn subset"))
            .await
            .len(),
        2
    );
    assert_eq!(
        server
            .entry_ids(&format!("{both} -matchSelectorsOn any"))
            .await
            .len(),
        2
    );
}

async fn changed_entries(server: &Served) {
    let Served { cli, .. } = server;
    let (parent, web) = (server.id("parent"), server.id("web"));
    let create = format!("entry create -parentID {parent} -spiffeID {web} -selector unix:uid:1");
    cli.run(&format!("{create} -dns web.example -hint external"))
        .await
        .unwrap();
    let of_web = server.entry_ids("").await.remove(0);
    cli.run(&format!("{create} -selector unix:gid:2 -entryID second"))
        .await
        .unwrap();

    let update = |id: &str, further: &str| {
        format!("entry update -entryID {id} -parentID {parent} -spiffeID {web} {further}")
    };
    cli.says(
        &update(&of_web, "-selector unix:uid:3 -x509SVIDTTL 900 -admin"),
        &[&of_web, "900", "Admin"],
    )
    .await;
    let shown = cli.json(&format!("entry show -entryID {of_web}")).await;
    let entry = &shown["entries"][0];
    assert_eq!(
        entry["selectors"],
        json!([{ "type": "unix", "value": "uid:3" }])
    );
    assert_eq!(
        (&entry["x509_svid_ttl"], &entry["admin"]),
        (&json!(900), &json!(true))
    );
    assert_eq!(
        (&entry["hint"], &entry["dns_names"]),
        (&json!(""), &json!([]))
    );
    cli.refuses(&update("nobody", "-selector a:b"), "NotFound")
        .await;

    cli.says(
        &format!("entry delete -entryID {of_web}"),
        &["Deleted entry with ID", &of_web],
    )
    .await;
    cli.refuses(
        &format!("entry delete -entryID {of_web}"),
        "entry not found",
    )
    .await;
    let file = server.file("ids.json", r#"{"ids": ["second", "nobody"]}"#);
    cli.refuses(&format!("entry delete -file {file}"), "nobody")
        .await;
    cli.says("entry count", &["0 registration entries"]).await;
}

async fn bundles(server: &Served) {
    let Served {
        cli, trust_domain, ..
    } = server;
    cli.says("bundle count", &["1 bundle"]).await;
    assert!(cli.bundle(trust_domain).await.roots().next().is_some());
    let document = cli
        .says("bundle show -format spiffe", &["x509-svid", "jwt-svid"])
        .await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["keys"][0]["kty"], "EC", "{document}");

    let (first, second) = (ca("first").pem(), ca("second").pem());
    let (first_file, second_file) = (server.file("1.pem", &first), server.file("2.pem", &second));
    let foreign = "spiffe://foreign.test";
    cli.says(
        &format!("bundle set -id {foreign} -path {first_file}"),
        &["bundle set."],
    )
    .await;
    let shown = cli.says(&format!("bundle list -id {foreign}"), &[]).await;
    assert_eq!(lines(&shown), lines(&first));
    cli.says(
        &format!("bundle set -id {foreign} -path {second_file}"),
        &["bundle set."],
    )
    .await;
    let shown = cli.says("bundle list", &["* foreign.test"]).await;
    assert!(lines(&shown).ends_with(&lines(&second)), "{shown}");
    cli.says("bundle count", &["2 bundles"]).await;

    let document = cli
        .says(
            &format!("bundle list -id {foreign} -format spiffe"),
            &["x5c"],
        )
        .await;
    let file = server.file("bundle.json", &document);
    let other = "spiffe://other.test";
    cli.says(
        &format!("bundle set -id {other} -path {file} -format spiffe"),
        &["bundle set."],
    )
    .await;
    cli.refuses("bundle list -id spiffe://nobody.test", "NotFound")
        .await;
    cli.refuses(
        &format!(
            "bundle set -id {} -path {file} -format spiffe",
            own(trust_domain)
        ),
        "own trust domain",
    )
    .await;

    // An entry that federates with a trust domain holds its bundle.
    cli.refuses(
        &format!(
            "entry create -parentID {} -spiffeID {} -selector a:b -federatesWith spiffe://nobody.test",
            server.id("parent"), server.id("web"),
        ),
        "unable to find federated bundle",
    )
    .await;
    let federating = format!(
        "entry create -parentID {} -spiffeID {} -selector a:b -federatesWith {foreign}",
        server.id("parent"),
        server.id("web"),
    );
    cli.says(&federating, &["FederatesWith", "foreign.test"])
        .await;
    let delete = format!("bundle delete -id {foreign}");
    cli.refuses(&delete, "cannot delete bundle").await;
    cli.says(&format!("{delete} -mode dissociate"), &["bundle deleted."])
        .await;
    let entries = cli.json("entry show").await;
    assert_eq!(
        entries["entries"][0]["federates_with"],
        json!([]),
        "{entries}"
    );
    cli.refuses(&delete, "not found").await;
    cli.says(
        &format!("bundle delete -id {other} -mode delete"),
        &["bundle deleted."],
    )
    .await;
    cli.says("bundle count", &["1 bundle"]).await;
}

async fn federation(server: &Served) {
    let Served { cli, .. } = server;
    let create = "federation create -trustDomain foreign.test \
                  -bundleEndpointURL https://127.0.0.1:1/bundle -bundleEndpointProfile https_web";
    cli.says(
        create,
        &["foreign.test", "https://127.0.0.1:1/bundle", "https_web"],
    )
    .await;
    cli.refuses(create, "foreign.test").await;
    cli.refuses(&create.replace("https://", "http://"), "scheme")
        .await;
    cli.says("federation list", &["Found 1 federation relationship"])
        .await;
    let bundle = server.file("foreign.pem", &ca("foreign").pem());
    let update = format!(
        "federation update -trustDomain foreign.test -bundleEndpointURL https://127.0.0.1:2/ \
         -bundleEndpointProfile https_spiffe -endpointSpiffeID spiffe://foreign.test/endpoint \
         -trustDomainBundlePath {bundle}"
    );
    cli.says(&update, &["https_spiffe", "spiffe://foreign.test/endpoint"])
        .await;
    let shown = "federation show -trustDomain foreign.test";
    cli.says(
        shown,
        &["https://127.0.0.1:2/", "spiffe://foreign.test/endpoint"],
    )
    .await;
    cli.says("bundle count", &["2 bundles"]).await;
    cli.refuses("federation show -trustDomain nobody.test", "NotFound")
        .await;
    cli.refuses(
        "federation refresh -id nobody.test",
        "there is no federation relationship",
    )
    .await;
    // Nobody listens there.
    cli.refuses(
        "federation refresh -id foreign.test",
        "failed to refresh bundle: rpc error: code = ",
    )
    .await;
    cli.says(
        "federation delete -id foreign.test",
        &["federation relationship deleted."],
    )
    .await;
    cli.refuses("federation delete -id foreign.test", "not found")
        .await;
    cli.says("federation list", &["Found 0 federation relationships"])
        .await;
}

async fn agents(server: &Served) {
    let Served { cli, endpoint, .. } = server;
    cli.says("agent list", &["No attested agents found"]).await;
    cli.refuses("token generate -ttl 0", "ttl").await;
    let alias = server.id("host");
    let said = cli
        .says(
            &format!("token generate -ttl 60 -spiffeID {alias}"),
            &["Token: "],
        )
        .await;
    let token = said.trim().strip_prefix("Token: ").unwrap();
    let id = server.join_token_agent(token);
    let agent = SpireAgent::start(endpoint, &Attestor::JoinToken(token.to_owned())).await;
    // The token's alias is an entry, by which entries of the alias reach the agent.
    let web = server.id("web");
    cli.entry(&alias, &web, "").await;
    agent.x509_svid(&web).await;

    cli.says(
        "agent list",
        &[
            "Found 1 attested agent",
            &id,
            "join_token",
            "Can re-attest     : false",
        ],
    )
    .await;
    let shown = cli
        .says(
            &format!("agent show -spiffeID {id}"),
            &["Serial number", "Agent version"],
        )
        .await;
    assert!(shown.contains(": 1.15.3"), "{shown}");
    cli.refuses(&format!("agent show -spiffeID {id}x"), "NotFound")
        .await;
    cli.refuses(&format!("agent show -spiffeID {web}"), "InvalidArgument")
        .await;
    for (filter, count) in [
        ("", 1),
        ("-attestationType join_token", 1),
        ("-attestationType x509pop", 0),
        ("-canReattest true", 0),
        ("-canReattest false", 1),
        ("-banned true", 0),
        ("-selector x509pop:a", 0),
    ] {
        let listed = cli.json(&format!("agent list {filter}")).await;
        assert_eq!(
            listed["agents"].as_array().map_or(0, Vec::len),
            count,
            "{filter}"
        );
        let counted = cli.json(&format!("agent count {filter}")).await;
        assert_eq!(counted["count"], json!(count), "{filter}");
    }
    cli.says("agent purge", &["No agents to purge."]).await;

    cli.says(
        &format!("agent ban -spiffeID {id}"),
        &["Agent banned successfully"],
    )
    .await;
    cli.says(
        "agent list -banned true",
        &[&id, "Banned            : true"],
    )
    .await;
    cli.says(
        &format!("agent evict -spiffeID {id}"),
        &["Agent evicted successfully"],
    )
    .await;
    cli.refuses(&format!("agent evict -spiffeID {id}"), "NotFound")
        .await;
    cli.refuses(&format!("agent ban -spiffeID {id}"), "NotFound")
        .await;
    cli.says("agent count", &["0 attested agents"]).await;
}

/// X.509-SVIDs of agents end soon here.
async fn purging(server: &Served) {
    let Served { cli, endpoint, .. } = server;
    let certificate = Attestor::x509pop(&server.x509pop_ca, "gone", server.folder.path());
    drop(SpireAgent::start(endpoint, &certificate).await);
    let gone = server.agents("").await.remove(0);
    let token = cli.join_token().await;
    let once = server.join_token_agent(&token);
    drop(SpireAgent::start(endpoint, &Attestor::JoinToken(token)).await);

    // A month by default.
    cli.says("agent purge", &["No agents to purge."]).await;
    wait_until("both to have expired", SOON, || async {
        let listed = cli.json("agent list").await;
        let agents = listed["agents"].as_array().unwrap().iter();
        let ends = agents.map(|agent| agent["x509svid_expires_at"].as_str().unwrap().to_owned());
        let ends: Vec<i64> = ends.map(|seconds| seconds.parse().unwrap()).collect();
        let now = Timestamp::now().as_second();
        let all = ends.len() == 2 && ends.iter().all(|end| *end < now);
        all.then_some(()).ok_or(format!("{ends:?}"))
    })
    .await;
    cli.says("agent purge -expiredFor 24h", &["No agents to purge."])
        .await;
    let said = cli
        .says(
            "agent purge -expiredFor 0s -dryRun",
            &["Found 1 expired agent", "can be purged", &gone],
        )
        .await;
    assert!(!said.contains(&once), "it cannot attest again: {said}");
    assert_eq!(server.agents("").await.len(), 2, "nothing was done");

    cli.says(
        "agent purge -expiredFor 0s",
        &["Found 1 expired agent", "Agents purged:", &gone],
    )
    .await;
    assert_eq!(server.agents("").await, [once.as_str()]);
    cli.says("agent purge -expiredFor 0s", &["No agents to purge."])
        .await;
    cli.refuses(&format!("agent show -spiffeID {gone}"), "NotFound")
        .await;
    SpireAgent::start(endpoint, &certificate).await;
    assert_eq!(server.agents("-canReattest true").await, [gone]);
}

async fn minting(server: &Served) {
    let Served {
        cli,
        trust_domain,
        folder,
        ..
    } = server;
    let id = server.id("minted");
    let path = folder.path().display();
    let mint = format!("x509 mint -spiffeID {id} -ttl 30m -dns minted.example -write {path}");
    cli.says(&mint, &["svid.pem", "key.pem", "bundle.pem"])
        .await;
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let chain = pem::certificates(&read("svid.pem")).unwrap();
    let bundle = Bundle::from_pem(trust_domain.parse().unwrap(), &read("bundle.pem")).unwrap();
    assert_eq!(
        verify_x509_svid(&chain, &bundle, Timestamp::now())
            .unwrap()
            .as_str(),
        id
    );
    cli.refuses(
        "x509 mint -spiffeID spiffe://foreign.test/web",
        "InvalidArgument",
    )
    .await;
    cli.refuses(
        &format!("x509 mint -spiffeID {}", server.id("spire/server")),
        "InvalidArgument",
    )
    .await;

    let token = cli
        .says(
            &format!("jwt mint -spiffeID {id} -audience a -audience b -ttl 1m"),
            &["."],
        )
        .await;
    let parts: Vec<_> = token.trim().split('.').collect();
    let [header, claims, _signature] = parts[..] else {
        panic!("{token}")
    };
    let (header, claims) = (json_of(header), json_of(claims));
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!(id), &json!(["a", "b"]))
    );
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 60);
    let document = cli.says("bundle show -format spiffe", &[]).await;
    assert!(
        document.contains(header["kid"].as_str().unwrap()),
        "{document}"
    );
    cli.refuses(&format!("jwt mint -spiffeID {id}"), "audience")
        .await;
    cli.refuses(
        "jwt mint -spiffeID spiffe://foreign.test/web -audience a",
        "InvalidArgument",
    )
    .await;
}

async fn x509_authorities(server: &Served) {
    authorities(server, "x509").await;
}

async fn jwt_authorities(server: &Served) {
    authorities(server, "jwt").await;
}

/// Of one kind, `x509` or `jwt`: prepared, activated, the old one tainted and revoked.
async fn authorities(server: &Served, kind: &str) {
    let Served { cli, .. } = server;
    let name = if kind == "x509" { "X.509" } else { "JWT" };
    let first = server.authority(kind, "active").await.unwrap();
    cli.says(
        &format!("localauthority {kind} show"),
        &[
            &format!("Active {name} authority:"),
            &first,
            &format!("No prepared {name} authority found"),
        ],
    )
    .await;
    let said = cli
        .says(
            &format!("localauthority {kind} prepare"),
            &[&format!("Prepared {name} authority:")],
        )
        .await;
    let second = server.authority(kind, "prepared").await.unwrap();
    assert!(said.contains(&second) && second != first, "{said}");
    let command = |verb: &str, id: &str| format!("localauthority {kind} {verb} -authorityID {id}");
    cli.refuses(&command("activate", "nobody"), "nvalid").await;
    cli.refuses(&command("taint", &first), "nvalid").await;
    cli.says(
        &command("activate", &second),
        &[&format!("Activated {name} authority:"), &second],
    )
    .await;
    assert_eq!(
        server.authority(kind, "active").await.as_ref(),
        Some(&second)
    );
    assert_eq!(server.authority(kind, "old").await.as_ref(), Some(&first));
    cli.refuses(&command("revoke", &first), "untainted").await;
    cli.says(
        &command("taint", &first),
        &[&format!("Tainted {name} authority:"), &first],
    )
    .await;
    cli.refuses(&command("taint", &first), "already tainted")
        .await;
    cli.says(
        &command("revoke", &first),
        &[&format!("Revoked {name} authority:"), &first],
    )
    .await;
    if kind == "jwt" {
        let document = cli.says("bundle show -format spiffe", &[&second]).await;
        assert!(!document.contains(&first), "{document}");
    } else {
        let roots = cli.json("bundle show").await["x509_authorities"].clone();
        assert_eq!(roots.as_array().unwrap().len(), 1, "{roots}");
        cli.refuses(
            "upstreamauthority taint -subjectKeyID aa",
            "FailedPrecondition",
        )
        .await;
        cli.refuses(
            "upstreamauthority revoke -subjectKeyID aa",
            "FailedPrecondition",
        )
        .await;
    }
}

/// The reason why ours fetches no bundle is told.
#[tokio::test]
async fn no_bundle_is_fetched_and_the_reason_is_told() {
    let server = Served::by_operator("1h").await;
    let create = "federation create -trustDomain foreign.test \
                  -bundleEndpointURL https://127.0.0.1:1/bundle -bundleEndpointProfile https_web";
    server.cli.says(create, &["foreign.test"]).await;
    let refresh = "federation refresh -id foreign.test";
    let reason = "code = Unimplemented desc = bundles are not fetched from bundle endpoints yet";
    server.cli.refuses(refresh, reason).await;
}

async fn operations(server: &Served) {
    let Served { cli, .. } = server;
    cli.says("healthcheck", &["Server is healthy."]).await;
    let info = cli.json("debug getinfo").await;
    let id = &info["svid_chain"][0]["id"];
    assert_eq!(
        (&id["trust_domain"], &id["path"]),
        (&json!(server.trust_domain), &json!("/spire/server"))
    );
    let level = cli.json("logger get").await;
    let launched = level["launch_level"].as_str().unwrap().to_owned();
    cli.says("logger set -level debug", &["Logger Level : debug"])
        .await;
    let level = cli.json("logger get").await;
    assert_eq!(
        (&level["current_level"], &level["launch_level"]),
        (&json!("DEBUG"), &json!(launched))
    );
    cli.says("logger reset", &[&launched.to_lowercase()]).await;
}

fn own(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}")
}

fn lines(text: &str) -> Vec<&str> {
    text.trim().lines().collect()
}

fn json_of(part: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

scripts! {
    entries: "1h",
    changed_entries: "1h",
    bundles: "1h",
    federation: "1h",
    agents: "1h",
    purging: "10s",
    minting: "1h",
    x509_authorities: "1h",
    jwt_authorities: "1h",
    operations: "1h",
}
