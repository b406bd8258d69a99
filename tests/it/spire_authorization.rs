//! Each method of the API of spire-server, called by each kind of caller.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use prost::Message as _;
use serde_json::json;
use spiffe_operator::api::AttestedAgent;
use spiffe_operator::domains::agent_object_name;
use spiffe_operator::server::proto::bundle::{
    BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
};
use spiffe_operator::server::proto::types;
use time::Duration;
use tokio::net::UnixStream;

use crate::support::grpc::{Answer, Connection, Svid, call, message, svid, tls};
use crate::support::{
    Ca, SOON, World, apply, ca, control_plane, free_port, merge_patch, shared_operator, tls_secret,
    unique, unique_trust_domain, wait_until,
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
        "spire.api.server.agent.v1.Agent",
        &[("AttestAgent", INVALID_ARGUMENT)],
        For::Anyone,
    ),
    (
        "spire.api.server.agent.v1.Agent",
        &[("RenewAgent", INVALID_ARGUMENT), ("PostStatus", OK)],
        For::Agent,
    ),
    (
        "spire.api.server.agent.v1.Agent",
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
    (
        "spire.api.server.bundle.v1.Bundle",
        &[("GetBundle", OK)],
        For::Anyone,
    ),
    (
        "spire.api.server.bundle.v1.Bundle",
        &[("GetFederatedBundle", INVALID_ARGUMENT)],
        For::AgentOrAdmin,
    ),
    (
        "spire.api.server.bundle.v1.Bundle",
        &[
            ("PublishJWTAuthority", INVALID_ARGUMENT),
            ("PublishWITAuthority", UNIMPLEMENTED),
        ],
        For::Downstream,
    ),
    (
        "spire.api.server.bundle.v1.Bundle",
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
        "spire.api.server.entry.v1.Entry",
        &[("GetAuthorizedEntries", OK), ("SyncAuthorizedEntries", OK)],
        For::Agent,
    ),
    (
        "spire.api.server.entry.v1.Entry",
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
        "spire.api.server.svid.v1.SVID",
        &[
            ("BatchNewX509SVID", INVALID_ARGUMENT),
            ("NewJWTSVID", NOT_FOUND),
            ("BatchNewWITSVID", INVALID_ARGUMENT),
        ],
        For::Agent,
    ),
    (
        "spire.api.server.svid.v1.SVID",
        &[("NewDownstreamX509CA", INVALID_ARGUMENT)],
        For::Downstream,
    ),
    (
        "spire.api.server.svid.v1.SVID",
        &[
            ("MintX509SVID", INVALID_ARGUMENT),
            ("MintJWTSVID", INVALID_ARGUMENT),
            ("MintWITSVID", UNIMPLEMENTED),
        ],
        For::Admin,
    ),
    (
        "spire.api.server.trustdomain.v1.TrustDomain",
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
        "spire.api.server.localauthority.v1.LocalAuthority",
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
            ("GetWITAuthorityState", UNIMPLEMENTED),
            ("PrepareWITAuthority", UNIMPLEMENTED),
            ("ActivateWITAuthority", UNIMPLEMENTED),
            ("TaintWITAuthority", UNIMPLEMENTED),
            ("RevokeWITAuthority", UNIMPLEMENTED),
        ],
        For::Admin,
    ),
    (
        "spire.api.server.debug.v1.Debug",
        &[("GetInfo", OK)],
        For::Local,
    ),
    (
        "spire.api.server.logger.v1.Logger",
        &[
            ("GetLogger", OK),
            ("SetLogLevel", INVALID_ARGUMENT),
            ("ResetLogLevel", OK),
        ],
        For::Local,
    ),
    (
        "grpc.health.v1.Health",
        &[("Check", OK), ("Watch", UNIMPLEMENTED)],
        For::Local,
    ),
];

const OK: i32 = 0;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const FAILED_PRECONDITION: i32 = 9;
const PERMISSION_DENIED: i32 = 7;
const UNIMPLEMENTED: i32 = 12;

/// Reasons in the details of a refusal, as `spire.api.types.PermissionDeniedDetails` numbers them.
const EXPIRED: u8 = 1;
pub(crate) const NOT_ATTESTED: u8 = 2;
pub(crate) const NOT_ACTIVE: u8 = 3;
const BANNED: u8 = 4;

/// A column of the table: who calls.
struct Caller {
    name: &'static str,
    access: Outcome,
}

/// What becomes of a caller's calls.
enum Outcome {
    /// No connection is made: the handshake with this X.509-SVID is refused.
    NoConnection(Svid),
    /// Over this connection methods of some kinds may be called. Where agents may call, the refusal
    /// has a reason.
    Decided {
        connection: Connection,
        may: &'static [For],
        reason: Option<u8>,
    },
}

/// A world whose CA the test holds, and its port.
pub(crate) async fn world_of(ca: &Ca, server: serde_json::Value) -> (World, u16) {
    let world = World::without_trust_domain(control_plane().await).await;
    shared_operator().await;
    let port = serve_under(&world, ca, server).await;
    (world, port)
}

/// Has the world's trust domain served with the settings `server`, under `ca`, and gives the port.
pub(crate) async fn serve_under(world: &World, ca: &Ca, server: serde_json::Value) -> u16 {
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
    port
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

/// Checks that a peer that shows `svid` is not let in when it would call `method`.
async fn is_not_let_in(port: u16, svid: &Svid, method: &str) {
    let refusal = match tls(port, Some(svid)).await {
        Err(error) => error.to_string(),
        Ok(stream) => call(stream, method, &message(&[]))
            .await
            .unwrap_err()
            .to_string(),
    };
    let words = ["alert", "close", "reset", "broken pipe"];
    let is_refused = words
        .iter()
        .any(|word| refusal.to_lowercase().contains(word));
    assert!(is_refused, "{method}: {refusal}");
}

/// The reason in the details of a refusal: field 1 of the message that is packed into them.
pub(crate) fn reason(answer: &Answer) -> Option<u8> {
    let [.., 0x08, reason] = answer.details.as_slice() else {
        return None;
    };
    Some(*reason)
}

/// The trust domain of the table with all that its callers need.
struct Table {
    world: World,
    port: u16,
    ca: Ca,
    /// The CA of another trust domain, whose bundle is known, and its name.
    foreign: (Ca, String),
}

impl Table {
    async fn new() -> Self {
        let foreign = (ca("foreign"), unique_trust_domain());
        let ca = ca("authorization");
        let admins = [format!("spiffe://{}/operations", foreign.1)];
        let (world, port) = world_of(&ca, json!({ "adminIDs": admins })).await;
        let table = Self {
            world,
            port,
            ca,
            foreign,
        };
        declare(&table.world, &table.id("admin"), "admin").await;
        declare(&table.world, &table.id("downstream"), "downstream").await;
        table.know_foreign_bundle().await;
        table
    }

    fn id(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.world.trust_domain)
    }

    fn agent_id(&self, name: &str) -> String {
        self.id(&format!("spire/agent/join_token/{name}"))
    }

    /// An X.509-SVID of this trust domain.
    fn svid(&self, id: &str) -> Svid {
        svid(&self.ca, id, Duration::hours(1))
    }

    /// One of the other trust domain.
    fn foreign_svid(&self, path: &str) -> Svid {
        let (ca, trust_domain) = &self.foreign;
        svid(
            ca,
            &format!("spiffe://{trust_domain}/{path}"),
            Duration::hours(1),
        )
    }

    async fn know_foreign_bundle(&self) {
        let (ca, trust_domain) = &self.foreign;
        let request = BatchSetFederatedBundleRequest {
            bundle: vec![types::Bundle {
                trust_domain: trust_domain.clone(),
                x509_authorities: vec![types::X509Certificate {
                    asn1: ca.der().to_vec(),
                    ..types::X509Certificate::default()
                }],
                ..types::Bundle::default()
            }],
            output_mask: None,
        };
        let method = "/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle";
        let body = message(&request.encode_to_vec());
        let set = self.on_socket().await.call(method, &body).await.unwrap();
        assert_eq!(set.code, OK, "{set:?}");
        let set = BatchSetFederatedBundleResponse::decode(&set.body[5..]).unwrap();
        assert_eq!(set.results[0].status.as_ref().unwrap().code, OK, "{set:?}");
    }

    async fn on_socket(&self) -> Connection {
        let socket = shared_operator().await.admin_socket(&self.world.class);
        let stream = UnixStream::connect(socket).await.unwrap();
        Connection::over(stream).await.unwrap()
    }

    /// A connection that shows `svid`, once that may do `method`.
    async fn allowed(&self, svid: &Svid, method: &str) -> Connection {
        wait_until(&format!("{method} to be allowed"), SOON, || async {
            let connection = self.connect(Some(svid)).await?;
            let answer = connection.call(method, &message(&[])).await;
            match answer.map_err(|error| error.to_string())? {
                answer if answer.code == PERMISSION_DENIED => Err(format!("{answer:?}")),
                _ => Ok(connection),
            }
        })
        .await
    }

    async fn connect(&self, svid: Option<&Svid>) -> Result<Connection, String> {
        let stream = tls(self.port, svid).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let connection = Connection::over(stream).await;
        connection.map_err(|error| error.to_string())
    }

    /// Who calls over a connection of theirs.
    async fn caller(
        &self,
        name: &'static str,
        svid: Option<&Svid>,
        may: &'static [For],
        reason: Option<u8>,
    ) -> Caller {
        let connection = self.connect(svid).await.unwrap();
        Caller::new(name, connection, may, reason)
    }

    /// The columns of those who are let in and whose X.509-SVIDs are valid.
    async fn callers(&self) -> Vec<Caller> {
        let (agent_id, banned_id) = (self.agent_id("good"), self.agent_id("banned"));
        let (agent, banned) = (self.svid(&agent_id), self.svid(&banned_id));
        record(&self.world, &agent_id, &agent, false).await;
        record(&self.world, &banned_id, &banned, true).await;
        let (stale, evicted) = (self.svid(&agent_id), self.svid(&self.agent_id("evicted")));
        let workload = self.svid(&self.id("workload"));
        let (admin, downstream) = (
            self.svid(&self.id("admin")),
            self.svid(&self.id("downstream")),
        );
        let foreign_admin = self.foreign_svid("operations");
        vec![
            self.caller("anonymous", None, &[], None).await,
            self.caller("agent", Some(&agent), AN_AGENT, None).await,
            self.caller("stale", Some(&stale), &[], Some(NOT_ACTIVE))
                .await,
            self.caller("banned", Some(&banned), &[], Some(BANNED))
                .await,
            self.caller("evicted", Some(&evicted), &[], Some(NOT_ATTESTED))
                .await,
            self.caller("workload", Some(&workload), &[], Some(NOT_ATTESTED))
                .await,
            Caller::new(
                "downstream",
                self.allowed(&downstream, NEW_DOWNSTREAM_CA).await,
                &[For::Downstream],
                Some(NOT_ATTESTED),
            ),
            Caller::new(
                "admin",
                self.allowed(&admin, COUNT_AGENTS).await,
                AN_ADMIN,
                Some(NOT_ATTESTED),
            ),
            Caller::new(
                "admin of a trust domain whose bundle is known",
                self.allowed(&foreign_admin, COUNT_AGENTS).await,
                AN_ADMIN,
                Some(NOT_ATTESTED),
            ),
        ]
    }

    /// The columns of those whose X.509-SVIDs end while their connections are open: agents may do
    /// nothing then, administrators what they might before, as in SPIRE.
    async fn callers_whose_svids_end(&self) -> Vec<Caller> {
        let lifetime = Duration::seconds(15);
        let agent_id = self.agent_id("ending");
        let agent = svid(&self.ca, &agent_id, lifetime);
        let admin = svid(&self.ca, &self.id("admin"), lifetime);
        record(&self.world, &agent_id, &agent, false).await;
        let over = self.allowed(&agent, SYNC).await;
        let callers = vec![
            Caller::new("agent whose SVID ends", over, &[], Some(EXPIRED)),
            self.caller(
                "admin whose SVID ends",
                Some(&admin),
                AN_ADMIN,
                Some(EXPIRED),
            )
            .await,
        ];
        let Outcome::Decided { connection, .. } = &callers[0].access else {
            panic!("the agent is connected")
        };
        wait_until("the SVID to end", SOON, || async {
            let answer = connection.call(SYNC, &message(&[])).await.unwrap();
            (answer.code != OK)
                .then_some(())
                .ok_or_else(|| "it is valid".to_owned())
        })
        .await;
        callers
    }

    /// The columns of those who are not let in.
    fn refused(&self) -> Vec<Caller> {
        let hour = Duration::hours(1);
        let (unknown_ca, id) = (ca("unknown"), self.agent_id("good"));
        let expired = svid(&self.ca, &id, Duration::minutes(-1));
        [
            ("agent whose SVID has ended", expired),
            ("agent by another CA", svid(&unknown_ca, &id, hour)),
            (
                "the trust domain itself",
                self.svid(&format!("spiffe://{}", self.world.trust_domain)),
            ),
            (
                "another trust domain",
                svid(&unknown_ca, "spiffe://elsewhere.test/operations", hour),
            ),
            (
                "another trust domain by our CA",
                self.svid("spiffe://elsewhere.test/operations"),
            ),
            (
                "agent of a trust domain whose bundle is known",
                self.foreign_svid("spire/agent/join_token/good"),
            ),
            (
                "workload of a trust domain whose bundle is known",
                self.foreign_svid("workload"),
            ),
        ]
        .map(|(name, svid)| Caller {
            name,
            access: Outcome::NoConnection(svid),
        })
        .into()
    }
}

const AN_AGENT: &[For] = &[For::Agent, For::AgentOrAdmin];
const AN_ADMIN: &[For] = &[For::Admin, For::AgentOrAdmin];
const COUNT_AGENTS: &str = "/spire.api.server.agent.v1.Agent/CountAgents";
const NEW_DOWNSTREAM_CA: &str = "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA";
const SYNC: &str = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries";

impl Caller {
    fn new(
        name: &'static str,
        connection: Connection,
        may: &'static [For],
        reason: Option<u8>,
    ) -> Self {
        Self {
            name,
            access: Outcome::Decided {
                connection,
                may,
                reason,
            },
        }
    }

    /// Makes a call, whose `code` is expected where it may be made.
    async fn check(&self, port: u16, path: &str, access: For, code: i32) {
        let (connection, may, reason_given) = match &self.access {
            Outcome::NoConnection(svid) => {
                is_not_let_in(port, svid, path).await;
                return;
            }
            Outcome::Decided {
                connection,
                may,
                reason,
            } => (connection, may, reason),
        };
        let answer = connection.call(path, &message(&[])).await;
        let answer = answer.unwrap_or_else(|error| panic!("{path} by {}: {error}", self.name));
        let what = format!("{path} by {}: {answer:?}", self.name);
        if access == For::Local {
            assert_eq!(answer.code, UNIMPLEMENTED, "{what}");
        } else if access == For::Anyone || may.contains(&access) {
            // A banned agent may ask to attest, and is refused then.
            assert_eq!(answer.code, code, "{what}");
        } else {
            assert_eq!(answer.code, PERMISSION_DENIED, "{what}");
            let text = format!("authorization denied for method {path}");
            assert_eq!(answer.message, text);
            let is_for_agents = AN_AGENT.contains(&access);
            let expected = reason_given.filter(|_| is_for_agents);
            assert_eq!(reason(&answer), expected, "{what}");
        }
    }
}

/// All of [`METHODS`]: path, who may call it, and the code for them.
fn methods() -> impl Iterator<Item = (String, For, i32)> {
    METHODS.iter().flat_map(|(service, methods, access)| {
        methods
            .iter()
            .map(move |(method, code)| (format!("/{service}/{method}"), *access, *code))
    })
}

#[tokio::test]
async fn every_method_is_for_those_that_the_stock_policy_names() {
    let table = Table::new().await;
    let mut callers = table.callers().await;
    callers.extend(table.refused());
    callers.extend(table.callers_whose_svids_end().await);
    for caller in &callers {
        for (path, access, code) in methods() {
            caller.check(table.port, &path, access, code).await;
        }
    }
    let socket = table.on_socket().await;
    for (path, access, code) in methods() {
        let answer = socket.call(&path, &message(&[])).await.unwrap();
        let may = !matches!(access, For::Agent | For::Downstream);
        let expected = if may { code } else { PERMISSION_DENIED };
        assert_eq!(answer.code, expected, "{path} on the socket: {answer:?}");
    }
}

/// So that no method is left out of the table.
#[test]
fn the_table_has_every_method_of_the_interface() {
    let listed: BTreeSet<_> = methods().map(|(path, ..)| path).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/spire/api/server");
    let mut declared = BTreeSet::new();
    for service in fs::read_dir(folder).unwrap() {
        let folder = service.unwrap().path().join("v1");
        for file in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let after = |word: &'static str| {
                let lines = text.lines().map(str::trim);
                lines.filter_map(move |line| line.strip_prefix(word))
            };
            let name = |rest: &str| {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                rest.chars().take_while(|c| is_name(*c)).collect::<String>()
            };
            let package = name(after("package ").next().unwrap());
            let service = name(after("service ").next().unwrap());
            declared
                .extend(after("rpc ").map(|rest| format!("/{package}.{service}/{}", name(rest))));
        }
    }
    let is_spires = |path: &&String| path.starts_with("/spire.");
    let listed: BTreeSet<_> = listed.iter().filter(is_spires).cloned().collect();
    assert_eq!(listed, declared);
}

/// Whatever happens to an agent counts at its next call, also on a connection that it has.
#[tokio::test]
async fn what_becomes_of_an_agent_counts_on_connections_that_are_open() {
    let table = Table::new().await;
    let agents = Api::<AttestedAgent>::all(table.world.client.clone());
    for (name, change, expected) in [
        ("evicted", None, NOT_ATTESTED),
        ("banned", Some(json!({ "banned": true })), BANNED),
        (
            "attested anew",
            Some(json!({ "x509SVIDSerialNumber": "1" })),
            NOT_ACTIVE,
        ),
    ] {
        let id = table.agent_id(&name.replace(' ', "-"));
        let svid = table.svid(&id);
        record(&table.world, &id, &svid, false).await;
        let connection = table.allowed(&svid, SYNC).await;
        let object = agent_object_name(&id.parse().unwrap());
        match change {
            None => drop(
                agents
                    .delete(&object, &DeleteParams::default())
                    .await
                    .unwrap(),
            ),
            Some(change) => {
                merge_patch(&agents, &object, json!({ "spec": change })).await;
            }
        }
        let answer = wait_until(
            &format!("the agent that is {name} to be refused"),
            SOON,
            || async {
                let answer = connection.call(SYNC, &message(&[])).await.unwrap();
                (answer.code != OK)
                    .then_some(answer)
                    .ok_or_else(String::new)
            },
        )
        .await;
        assert_eq!(answer.code, PERMISSION_DENIED, "{name}: {answer:?}");
        assert_eq!(reason(&answer), Some(expected), "{name}: {answer:?}");
    }
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
