//! Each method of the API of spire-server, called by each kind of caller.

use jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use spiffe_operator::api::AttestedAgent;
use spiffe_operator::domains::agent_object_name;
use time::Duration;
use tokio::net::UnixStream;

use crate::support::grpc::{Answer, Svid, call, message, svid, tls};
use crate::support::{
    Ca, SOON, World, apply, ca, control_plane, free_port, shared_operator, tls_secret, unique,
    wait_until,
};

/// Who may call a method, in the words of the stock policy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum For {
    Anyone,
    Agent,
    AgentOrAdmin,
    Downstream,
    Local,
    Admin,
}

/// Methods of a service, each with a code, and who may call them.
type Methods = (&'static str, &'static [(&'static str, i32)], For);

/// Every method, with the code for an empty message of those that may call it.
const METHODS: &[Methods] = &[
    (
        "agent.v1.Agent",
        &[("AttestAgent", INVALID_ARGUMENT)],
        For::Anyone,
    ),
    (
        "agent.v1.Agent",
        &[("RenewAgent", INVALID_ARGUMENT), ("PostStatus", OK)],
        For::Agent,
    ),
    (
        "agent.v1.Agent",
        &[
            ("CountAgents", OK),
            ("ListAgents", OK),
            ("GetAgent", INVALID_ARGUMENT),
            ("DeleteAgent", INVALID_ARGUMENT),
            ("BanAgent", INVALID_ARGUMENT),
            ("CreateJoinToken", INVALID_ARGUMENT),
        ],
        For::Admin,
    ),
    ("bundle.v1.Bundle", &[("GetBundle", OK)], For::Anyone),
    (
        "bundle.v1.Bundle",
        &[("GetFederatedBundle", INVALID_ARGUMENT)],
        For::AgentOrAdmin,
    ),
    (
        "bundle.v1.Bundle",
        &[
            ("PublishJWTAuthority", INVALID_ARGUMENT),
            ("PublishWITAuthority", UNIMPLEMENTED),
        ],
        For::Downstream,
    ),
    (
        "bundle.v1.Bundle",
        &[
            ("CountBundles", OK),
            ("AppendBundle", INVALID_ARGUMENT),
            ("ListFederatedBundles", OK),
            ("BatchCreateFederatedBundle", OK),
            ("BatchUpdateFederatedBundle", OK),
            ("BatchSetFederatedBundle", OK),
            ("BatchDeleteFederatedBundle", OK),
        ],
        For::Admin,
    ),
    (
        "entry.v1.Entry",
        &[("GetAuthorizedEntries", OK), ("SyncAuthorizedEntries", OK)],
        For::Agent,
    ),
    (
        "entry.v1.Entry",
        &[
            ("CountEntries", OK),
            ("ListEntries", OK),
            ("GetEntry", INVALID_ARGUMENT),
            ("BatchCreateEntry", OK),
            ("BatchUpdateEntry", OK),
            ("BatchDeleteEntry", OK),
        ],
        For::Admin,
    ),
    (
        "svid.v1.SVID",
        &[
            ("BatchNewX509SVID", INVALID_ARGUMENT),
            ("NewJWTSVID", NOT_FOUND),
            ("BatchNewWITSVID", INVALID_ARGUMENT),
        ],
        For::Agent,
    ),
    (
        "svid.v1.SVID",
        &[("NewDownstreamX509CA", INVALID_ARGUMENT)],
        For::Downstream,
    ),
    (
        "svid.v1.SVID",
        &[
            ("MintX509SVID", INVALID_ARGUMENT),
            ("MintJWTSVID", INVALID_ARGUMENT),
            ("MintWITSVID", UNIMPLEMENTED),
        ],
        For::Admin,
    ),
    (
        "trustdomain.v1.TrustDomain",
        &[
            ("ListFederationRelationships", OK),
            ("GetFederationRelationship", INVALID_ARGUMENT),
            ("BatchCreateFederationRelationship", OK),
            ("BatchUpdateFederationRelationship", OK),
            ("BatchDeleteFederationRelationship", OK),
            ("RefreshBundle", INVALID_ARGUMENT),
        ],
        For::Admin,
    ),
    (
        "localauthority.v1.LocalAuthority",
        &[
            ("GetJWTAuthorityState", OK),
            ("PrepareJWTAuthority", OK),
            ("ActivateJWTAuthority", INVALID_ARGUMENT),
            ("TaintJWTAuthority", INVALID_ARGUMENT),
            ("RevokeJWTAuthority", INVALID_ARGUMENT),
            ("GetX509AuthorityState", OK),
            ("PrepareX509Authority", FAILED_PRECONDITION),
            ("ActivateX509Authority", INVALID_ARGUMENT),
            ("TaintX509Authority", INVALID_ARGUMENT),
            ("TaintX509UpstreamAuthority", FAILED_PRECONDITION),
            ("RevokeX509Authority", INVALID_ARGUMENT),
            ("RevokeX509UpstreamAuthority", FAILED_PRECONDITION),
        ],
        For::Admin,
    ),
    ("debug.v1.Debug", &[("GetInfo", OK)], For::Local),
    (
        "logger.v1.Logger",
        &[
            ("GetLogger", OK),
            ("SetLogLevel", INVALID_ARGUMENT),
            ("ResetLogLevel", OK),
        ],
        For::Local,
    ),
];

const OK: i32 = 0;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const FAILED_PRECONDITION: i32 = 9;
const PERMISSION_DENIED: i32 = 7;
const UNIMPLEMENTED: i32 = 12;

/// Who calls, with what, what they may call, and the reason that agents are given.
type Caller<'a> = (&'a str, Option<&'a Svid>, &'a [For], Option<u8>);

/// A world whose CA the test holds, and its port.
pub(crate) async fn world_of(ca: &Ca, server: serde_json::Value) -> (World, u16) {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let secret = unique("ca");
    let object = tls_secret(&secret, &ca.pem(), ca.key(), "");
    apply(&world.client, &object).await.unwrap();
    let port = free_port();
    let mut server = server;
    server["port"] = port.into();
    let spec = json!({
        "authority": { "secretRef": { "name": secret } },
        "server": server,
    });
    world.apply_trust_domain(spec).await;
    world.trust_domain_condition("Ready", "True").await;
    (world, port)
}

/// Records an agent that acts with `svid`.
pub(crate) async fn record(world: &World, id: &str, svid: &Svid, banned: bool) {
    let name = agent_object_name(&id.parse().unwrap());
    let object = json!({
        "apiVersion": "spiffe-operator.io/v1alpha1",
        "kind": "AttestedAgent",
        "metadata": { "name": name },
        "spec": {
            "trustDomain": world.trust_domain,
            "id": id,
            "attestationType": "join_token",
            "banned": banned,
            "x509SVIDSerialNumber": svid.serial,
            "x509SVIDExpiresAt": Timestamp::now().to_string(),
        },
    });
    let agents = Api::<AttestedAgent>::all(world.client.clone());
    let object = serde_json::from_value(object).unwrap();
    agents
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

/// Declares an identity with `admin` or `downstream`.
async fn declare(world: &World, id: &str, right: &str) {
    let object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": format!("{}-{right}", world.class) },
        "spec": {
            "className": world.class,
            "spiffeID": id,
            "parentID": format!("spiffe://{}/spire/agent/join_token/none", world.trust_domain),
            "selectors": ["unix:uid:0"],
            right: true,
        },
    });
    apply(&world.client, &object).await.unwrap();
}

/// Calls a method with an empty message.
async fn ask(port: u16, svid: Option<&Svid>, method: &str) -> Answer {
    let stream = tls(port, svid).await.unwrap();
    call(stream, method, &message(&[])).await.unwrap()
}

/// Why a peer that shows `svid` is not let in.
async fn refusal(port: u16, svid: &Svid) -> String {
    let method = "/spire.api.server.bundle.v1.Bundle/GetBundle";
    match tls(port, Some(svid)).await {
        Err(error) => error.to_string(),
        Ok(stream) => call(stream, method, &message(&[]))
            .await
            .unwrap_err()
            .to_string(),
    }
}

/// The reason in the details of a refusal: field 1 of the message that is packed into them.
fn reason(answer: &Answer) -> Option<u8> {
    let [.., 0x08, reason] = answer.details.as_slice() else {
        return None;
    };
    Some(*reason)
}

#[tokio::test]
async fn every_method_is_for_those_that_the_stock_policy_names() {
    let ca = ca("authorization");
    let (world, port) = world_of(&ca, json!({})).await;
    let td = &world.trust_domain;
    let lifetime = Duration::hours(1);
    let agent_id = format!("spiffe://{td}/spire/agent/join_token/good");
    let banned_id = format!("spiffe://{td}/spire/agent/join_token/banned");
    let evicted_id = format!("spiffe://{td}/spire/agent/join_token/evicted");
    let (admin_id, downstream_id) = (
        format!("spiffe://{td}/admin"),
        format!("spiffe://{td}/downstream"),
    );
    let [agent, banned, evicted, admin, downstream, workload] = [
        &agent_id,
        &banned_id,
        &evicted_id,
        &admin_id,
        &downstream_id,
        &format!("spiffe://{td}/workload"),
    ]
    .map(|id| svid(&ca, id, lifetime));
    let stale = svid(&ca, &agent_id, lifetime);
    record(&world, &agent_id, &agent, false).await;
    record(&world, &banned_id, &banned, true).await;
    declare(&world, &admin_id, "admin").await;
    declare(&world, &downstream_id, "downstream").await;
    wait_until("the administrator to be known", SOON, || async {
        let method = "/spire.api.server.agent.v1.Agent/CountAgents";
        let answer = ask(port, Some(&admin), method).await;
        (answer.code != PERMISSION_DENIED)
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    })
    .await;
    wait_until("the downstream server to be known", SOON, || async {
        let method = "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA";
        let answer = ask(port, Some(&downstream), method).await;
        (answer.code != PERMISSION_DENIED)
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    })
    .await;

    // Who calls, what they may call, and the reason that agents are given: 2 not attested, 3 not
    // active, 4 banned.
    let callers: [Caller<'_>; 8] = [
        ("anonymous", None, &[], None),
        (
            "agent",
            Some(&agent),
            &[For::Agent, For::AgentOrAdmin],
            None,
        ),
        ("stale", Some(&stale), &[], Some(3)),
        ("banned", Some(&banned), &[], Some(4)),
        ("evicted", Some(&evicted), &[], Some(2)),
        ("downstream", Some(&downstream), &[For::Downstream], Some(2)),
        (
            "admin",
            Some(&admin),
            &[For::Admin, For::AgentOrAdmin],
            Some(2),
        ),
        ("workload", Some(&workload), &[], Some(2)),
    ];
    for (service, methods, access) in METHODS {
        for (method, expected) in *methods {
            let path = format!("/spire.api.server.{service}/{method}");
            for (caller, svid, may, why) in &callers {
                // A banned agent may ask to attest, and is refused then.
                let answer = ask(port, *svid, &path).await;
                let what = format!("{method} by {caller}: {answer:?}");
                if *access == For::Local {
                    assert_eq!(answer.code, UNIMPLEMENTED, "{what}");
                } else if *access == For::Anyone || may.contains(access) {
                    assert_eq!(answer.code, *expected, "{what}");
                } else {
                    assert_eq!(answer.code, PERMISSION_DENIED, "{what}");
                    let text = format!("authorization denied for method {path}");
                    assert_eq!(answer.message, text);
                    let asks_agents = matches!(access, For::Agent | For::AgentOrAdmin);
                    let reason_given = why.filter(|_| asks_agents);
                    assert_eq!(reason(&answer), reason_given, "{what}");
                }
            }
            let socket = shared_operator().await.admin_socket(&world.class);
            let stream = UnixStream::connect(socket).await.unwrap();
            let answer = call(stream, &path, &message(&[])).await.unwrap();
            let what = format!("{method} on the socket: {answer:?}");
            let may = !matches!(access, For::Agent | For::Downstream);
            let expected = if may { *expected } else { PERMISSION_DENIED };
            assert_eq!(answer.code, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_ends_the_handshake() {
    let (ca, other) = (ca("handshake"), ca("other"));
    let (world, port) = world_of(&ca, json!({})).await;
    let td = &world.trust_domain;
    let agent = format!("spiffe://{td}/spire/agent/join_token/a");
    let (hour, foreign) = (Duration::hours(1), "spiffe://elsewhere.test/admin");
    for (what, svid) in [
        ("expired", svid(&ca, &agent, Duration::minutes(-1))),
        ("of another CA", svid(&other, &agent, hour)),
        ("of another trust domain", svid(&ca, foreign, hour)),
        (
            "of the trust domain itself",
            svid(&ca, &format!("spiffe://{td}"), hour),
        ),
    ] {
        let refusal = refusal(port, &svid).await;
        let words = ["alert", "close", "reset", "broken pipe"];
        let is_refused = words
            .iter()
            .any(|word| refusal.to_lowercase().contains(word));
        assert!(is_refused, "{what}: {refusal}");
    }
    let good = svid(&ca, &agent, hour);
    let answer = ask(
        port,
        Some(&good),
        "/spire.api.server.bundle.v1.Bundle/GetBundle",
    )
    .await;
    assert_eq!(answer.code, OK, "{answer:?}");
}

#[tokio::test]
async fn an_administrator_is_also_who_the_trust_domain_names() {
    let ca = ca("admins");
    let world = World::without_trust_domain(control_plane().await).await;
    let id = format!("spiffe://{}/operations", world.trust_domain);
    let secret = unique("ca");
    shared_operator().await;
    apply(&world.client, &tls_secret(&secret, &ca.pem(), ca.key(), ""))
        .await
        .unwrap();
    let port = free_port();
    let spec = |admins: &[&str]| {
        json!({
            "authority": { "secretRef": { "name": secret } },
            "server": { "port": port, "adminIDs": admins },
        })
    };
    world.apply_trust_domain(spec(&[&id])).await;
    world.trust_domain_condition("Ready", "True").await;
    let admin = svid(&ca, &id, Duration::hours(1));
    let method = "/spire.api.server.agent.v1.Agent/CountAgents";
    assert_eq!(ask(port, Some(&admin), method).await.code, OK);
    world.apply_trust_domain(spec(&[])).await;
    wait_until("the administrator to be none any more", SOON, || async {
        let answer = ask(port, Some(&admin), method).await;
        (answer.code == PERMISSION_DENIED)
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    })
    .await;
}
