//! The stores of a server on a real API server, by two replicas with a watch each.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use spiffe_operator::api::AttestedAgent;
use spiffe_operator::controllers::trust_domain::labels;
use spiffe_operator::domains::agent_object_name;
use spiffe_operator::runtime::metrics::Metrics;
use spiffe_operator::spiffe::{Bundle, SpiffeId};
use spiffe_operator::store::agents::{
    AgentDenial, AgentError, AgentFilter, Attestation, PresentedSvid, SelectorMatch,
};
use spiffe_operator::store::federation::{
    EndpointProfile, FederationError, FederationRelationship, ForeignTrustDomain,
};
use spiffe_operator::store::join_tokens::{JoinTokenError, UsedToken};
use spiffe_operator::store::{Caches, DomainStores};

use crate::support::{
    SOON, ca, control_plane, merge_patch, namespace, unique, unique_trust_domain, wait_until,
};

/// Two replicas that serve one trust domain of their own.
struct Replicas {
    client: Client,
    namespace: String,
    trust_domain: String,
    a: DomainStores,
    b: DomainStores,
}

impl Replicas {
    async fn new() -> Self {
        let client = control_plane().await.install_crds().await;
        let namespace = namespace(&client, &[]).await;
        let (object, trust_domain) = (unique("object"), unique_trust_domain());
        let replica = || {
            let caches = Caches::start(&client, &namespace, &Arc::new(Metrics::new()));
            let name = trust_domain.parse().unwrap();
            let stores = DomainStores::new(
                &client,
                &namespace,
                &caches,
                &object,
                &name,
                &labels(&object),
                None,
            );
            (stores, caches)
        };
        let ((a, watched_by_a), (b, watched_by_b)) = (replica(), replica());
        for caches in [watched_by_a, watched_by_b] {
            wait_until("the watches", SOON, || async {
                let complete = caches.agents.is_complete() && caches.federation.is_complete();
                complete.then_some(()).ok_or_else(String::new)
            })
            .await;
        }
        Self {
            client,
            namespace,
            trust_domain,
            a,
            b,
        }
    }

    fn id(&self, path: &str) -> SpiffeId {
        let id = format!("spiffe://{}/spire/agent/{path}", self.trust_domain);
        id.parse().unwrap()
    }

    fn attestation(&self, name: &str, serial: &str) -> Attestation {
        Attestation {
            id: self.id(&format!("join_token/{name}")),
            attestation_type: "join_token",
            can_reattest: false,
            selectors: vec![format!("test:{name}"), "test:all".into()],
            cluster: None,
            node_name: Some(name.into()),
            alias: None,
            svid: svid(serial),
        }
    }

    /// The agent `name` has attested on replica A, and replica B has seen it.
    async fn attested(&self, name: &str, serial: &str) -> SpiffeId {
        let attestation = self.attestation(name, serial);
        self.a.agents.attest(&attestation).await.unwrap();
        self.known_to_b().await;
        attestation.id
    }

    async fn known_to_b(&self) {
        wait_until("the agent to be known", SOON, || async {
            let known = self.b.agents.known();
            (known > 0).then_some(()).ok_or_else(String::new)
        })
        .await;
    }

    fn records(&self) -> Api<AttestedAgent> {
        Api::all(self.client.clone())
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn svid(serial: &str) -> PresentedSvid {
    PresentedSvid {
        serial: serial.into(),
        not_after: now() + SignedDuration::from_hours(1),
    }
}

fn denial<T: std::fmt::Debug>(outcome: Result<T, AgentError>) -> AgentDenial {
    match outcome {
        Err(AgentError::Denied { reason }) => reason,
        outcome => panic!("not denied: {outcome:?}"),
    }
}

#[tokio::test]
async fn an_agent_acts_on_one_replica_at_once_after_it_attested_on_another() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.agents, &replicas.b.agents);
    let attestation = replicas.attestation("node-1", "1");
    let id = &attestation.id;
    let unknown = denial(b.check(id, &svid("1"), now()).await);
    assert_eq!(unknown, AgentDenial::NotAttested);
    a.attest(&attestation).await.unwrap();
    let record = b.check(id, &svid("1"), now()).await.unwrap();
    assert_eq!(record.spec.selectors, ["test:all", "test:node-1"]);

    let expired = PresentedSvid {
        not_after: now() - SignedDuration::from_secs(1),
        ..svid("1")
    };
    assert_eq!(
        denial(b.check(id, &expired, now()).await),
        AgentDenial::Expired
    );
    assert_eq!(
        denial(b.check(id, &svid("2"), now()).await),
        AgentDenial::NotActive
    );

    b.attest(&replicas.attestation("node-1", "2"))
        .await
        .unwrap();
    a.check(id, &svid("2"), now()).await.unwrap();
    assert_eq!(
        denial(b.check(id, &svid("3"), now()).await),
        AgentDenial::NotActive
    );
}

#[tokio::test]
async fn a_renewed_svid_counts_from_its_first_use_on_any_replica() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.agents, &replicas.b.agents);
    let id = &replicas.attested("node-1", "1").await;
    let unknown = b.renew(id, &svid("0"), &svid("2")).await;
    assert_eq!(denial(unknown), AgentDenial::NotActive);
    b.renew(id, &svid("1"), &svid("2")).await.unwrap();
    a.check(id, &svid("1"), now()).await.unwrap();
    let promoted = join_all([a, b, a, b].map(|store| async {
        let promoted = store.check(id, &svid("2"), now()).await;
        promoted.unwrap().spec.x509_svid_serial_number.clone()
    }))
    .await;
    assert!(promoted.iter().all(|serial| serial.as_deref() == Some("2")));
    let stored = a.get(id).await.unwrap().unwrap();
    assert_eq!(stored.new_x509_svid_serial_number, None);
    assert!(stored.x509_svid_expires_at.is_some());
    for store in [a, b] {
        wait_until("the old SVID to be dead", SOON, || async {
            match store.check(id, &svid("1"), now()).await {
                Err(AgentError::Denied {
                    reason: AgentDenial::NotActive,
                }) => Ok(()),
                outcome => Err(format!("{outcome:?}")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_eviction_is_seen_by_the_other_replica_before_it_renews() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.agents, &replicas.b.agents);
    let id = &replicas.attested("node-1", "1").await;
    a.evict(id).await.unwrap();
    let renewed = b.renew(id, &svid("1"), &svid("2")).await;
    assert!(matches!(renewed, Err(AgentError::NotFound)), "{renewed:?}");
    let here = denial(a.check(id, &svid("1"), now()).await);
    assert_eq!(
        here,
        AgentDenial::NotAttested,
        "on the replica itself at once"
    );
    let again = a.evict(id).await;
    assert!(matches!(again, Err(AgentError::NotFound)), "{again:?}");
    let version = b.post_status(id, "1.15.3").await;
    assert!(matches!(version, Err(AgentError::NotFound)), "{version:?}");
}

#[tokio::test]
async fn a_banned_agent_can_do_nothing_until_the_ban_is_lifted() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.agents, &replicas.b.agents);
    let id = &replicas.attested("node-1", "1").await;
    a.ban(id).await.unwrap();
    assert_eq!(
        denial(a.check(id, &svid("1"), now()).await),
        AgentDenial::Banned
    );
    assert_eq!(
        denial(b.renew(id, &svid("1"), &svid("2")).await),
        AgentDenial::Banned
    );
    let again = b.attest(&replicas.attestation("node-1", "2")).await;
    assert_eq!(denial(again), AgentDenial::Banned);
    let pruned = a
        .prune(now() + SignedDuration::from_hours(24))
        .await
        .unwrap();
    assert_eq!(pruned, 0, "a banned agent stays");

    let unban = json!({ "spec": { "banned": false } });
    let name = agent_object_name(id);
    merge_patch(&replicas.records(), &name, unban).await;
    assert_eq!(
        denial(a.check(id, &svid("1"), now()).await),
        AgentDenial::NotActive
    );
    a.attest(&replicas.attestation("node-1", "3"))
        .await
        .unwrap();
    b.check(id, &svid("3"), now()).await.unwrap();
}

#[tokio::test]
async fn people_ban_and_evict_with_kubectl() {
    let replicas = Replicas::new().await;
    let (a, records) = (&replicas.a.agents, replicas.records());
    let id = &replicas.attested("node-1", "1").await;
    let name = agent_object_name(id);
    assert!(name.starts_with("join-token.node-1."), "{name}");
    let refused_as = |reason| async move {
        wait_until("the agent to be refused", SOON, || async {
            match a.check(id, &svid("1"), now()).await {
                Err(AgentError::Denied { reason: found }) if found == reason => Ok(()),
                outcome => Err(format!("{outcome:?}")),
            }
        })
        .await;
    };
    merge_patch(&records, &name, json!({ "spec": { "banned": true } })).await;
    refused_as(AgentDenial::Banned).await;
    records
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    refused_as(AgentDenial::NotAttested).await;
}

#[tokio::test]
async fn writes_at_the_same_time_lose_nothing() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.agents, &replicas.b.agents);
    let id = &replicas.attested("node-1", "1").await;
    let (first, second) = (svid("1"), svid("2"));
    let (renewed, posted, again) = tokio::join!(
        a.renew(id, &first, &second),
        b.post_status(id, "1.15.3"),
        b.post_status(id, "1.15.3"),
    );
    renewed.unwrap();
    posted.unwrap();
    again.unwrap();
    let stored = a.get(id).await.unwrap().unwrap();
    assert_eq!(stored.new_x509_svid_serial_number.as_deref(), Some("2"));
    assert_eq!(stored.agent_version.as_deref(), Some("1.15.3"));

    let attestations =
        (10..14).map(|serial: u32| replicas.attestation("node-2", &serial.to_string()));
    let attestations: Vec<_> = attestations.collect();
    let outcomes = join_all(attestations.iter().map(|it| a.attest(it))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn agents_are_listed_by_filter_and_page() {
    let replicas = Replicas::new().await;
    let agents = &replicas.a.agents;
    for name in ["a", "b", "c", "d", "e"] {
        agents
            .attest(&replicas.attestation(name, "1"))
            .await
            .unwrap();
    }
    agents.ban(&replicas.id("join_token/c")).await.unwrap();
    let any = AgentFilter::default();
    assert_eq!(agents.count(&any).await.unwrap(), 5);
    let banned = AgentFilter {
        banned: Some(true),
        ..AgentFilter::default()
    };
    let page = agents.list(&banned, None, None).await.unwrap();
    assert_eq!(page.agents.len(), 1);
    assert_eq!(page.next, None);
    let by_selector = AgentFilter {
        selectors: Some((SelectorMatch::Superset, vec!["test:d".into()])),
        ..AgentFilter::default()
    };
    assert_eq!(agents.count(&by_selector).await.unwrap(), 1);

    let mut seen = Vec::new();
    let mut next = None;
    loop {
        let size = NonZeroUsize::new(2);
        let page = agents.list(&any, size, next.as_deref()).await.unwrap();
        assert!(page.agents.len() <= 2);
        seen.extend(page.agents.into_iter().map(|agent| agent.id));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    assert!(agents.list(&any, None, Some("junk")).await.is_err());
}

#[tokio::test]
async fn only_agents_that_expired_before_are_pruned() {
    let replicas = Replicas::new().await;
    let agents = &replicas.b.agents;
    replicas.attested("node-1", "1").await;
    assert_eq!(agents.prune(now()).await.unwrap(), 0);
    let later = now() + SignedDuration::from_hours(2);
    assert_eq!(agents.prune(later).await.unwrap(), 1);
    assert_eq!(agents.count(&AgentFilter::default()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_join_token_is_used_once_however_many_try() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.join_tokens, &replicas.b.join_tokens);
    let alias: SpiffeId = format!("spiffe://{}/node", replicas.trust_domain)
        .parse()
        .unwrap();
    let later = now() + SignedDuration::from_hours(1);
    a.create("token-1", later, Some(&alias)).await.unwrap();
    let twice = b.create("token-1", later, None).await;
    assert!(matches!(twice, Err(JoinTokenError::Exists)), "{twice:?}");

    // Whoever finds it takes nothing away.
    let found = a.find("token-1", now()).await.unwrap();
    assert_eq!(b.find("token-1", now()).await.unwrap(), found);
    let everybody = [a, b, a, b, a, b, a, b].map(|store| async {
        let token = store.find("token-1", now()).await?;
        store.consume(token).await
    });
    let (used, refused): (Vec<_>, Vec<_>) = join_all(everybody)
        .await
        .into_iter()
        .partition(Result::is_ok);
    let used: Vec<_> = used.into_iter().map(Result::unwrap).collect();
    let agent_id = replicas.id("join_token/token-1");
    let expected = UsedToken {
        agent_id,
        alias: Some(alias),
    };
    assert_eq!(used, [expected]);
    for refused in refused {
        assert!(
            matches!(refused, Err(JoinTokenError::Unknown)),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_join_token_is_stored_nowhere() {
    let replicas = Replicas::new().await;
    let later = now() + SignedDuration::from_hours(1);
    let token = unique("very-secret");
    replicas
        .a
        .join_tokens
        .create(&token, later, None)
        .await
        .unwrap();
    let secrets = Api::<Secret>::namespaced(replicas.client.clone(), &replicas.namespace);
    let stored = secrets.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(stored.len(), 1);
    let text = serde_json::to_string(&stored).unwrap();
    assert!(!text.contains(&token), "{text}");
}

#[tokio::test]
async fn a_join_token_that_is_used_too_late_is_used_up() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.join_tokens, &replicas.b.join_tokens);
    let before = now() - SignedDuration::from_secs(1);
    a.create("late", before, None).await.unwrap();
    let late = b.find("late", now()).await;
    assert!(matches!(late, Err(JoinTokenError::Expired)), "{late:?}");
    for token in ["late", "never-made", "", "..", "a/b", "a b"] {
        let unknown = a.find(token, now()).await;
        assert!(
            matches!(unknown, Err(JoinTokenError::Unknown)),
            "{token:?}: {unknown:?}"
        );
    }
    for token in ["", ".", "..", "a/b", "a b", &"a".repeat(2048)] {
        let refused = a.create(token, now(), None).await;
        assert!(
            matches!(refused, Err(JoinTokenError::NoSegment { .. })),
            "{token:?}"
        );
    }
}

#[tokio::test]
async fn expired_join_tokens_are_removed_and_nothing_else() {
    let replicas = Replicas::new().await;
    let tokens = &replicas.a.join_tokens;
    let hour = SignedDuration::from_hours(1);
    tokens.create("past", now() - hour, None).await.unwrap();
    tokens.create("future", now() + hour, None).await.unwrap();
    let secrets = Api::<Secret>::namespaced(replicas.client.clone(), &replicas.namespace);
    let stored = secrets.list(&ListParams::default()).await.unwrap().items;
    let metadata = stored.iter().map(|secret| &secret.metadata);
    assert_eq!(
        tokens
            .remove_expired(metadata.clone(), now())
            .await
            .unwrap(),
        1
    );
    assert_eq!(tokens.remove_expired(metadata, now()).await.unwrap(), 0);
    tokens.find("future", now()).await.unwrap();
}

#[tokio::test]
async fn foreign_bundles_and_relationships_are_kept_and_seen_by_all() {
    let replicas = Replicas::new().await;
    let (a, b) = (&replicas.a.federation, &replicas.b.federation);
    let foreign = "foreign.test".parse().unwrap();
    let root = ca("a root");
    let bundle = Bundle::new(foreign, [root.der().clone()], 7).unwrap();
    let foreign = bundle.trust_domain();
    let relationship = FederationRelationship {
        bundle_endpoint_url: "https://foreign.test/bundle".into(),
        profile: EndpointProfile::HttpsSpiffe {
            endpoint_spiffe_id: "spiffe://foreign.test/endpoint".parse().unwrap(),
        },
    };
    assert_eq!(a.get(foreign).await.unwrap(), None);
    let set_bundle = |known: &mut ForeignTrustDomain| {
        known.bundle = Some(bundle.clone());
        Ok::<_, FederationError>(())
    };
    let relate = |known: &mut ForeignTrustDomain| {
        known.relationship = Some(relationship.clone());
        Ok::<_, FederationError>(())
    };
    let (one, other) = tokio::join!(a.change(foreign, set_bundle), b.change(foreign, relate));
    one.unwrap();
    other.unwrap();
    let known = ForeignTrustDomain {
        trust_domain: foreign.clone(),
        bundle: Some(bundle.clone()),
        relationship: Some(relationship.clone()),
    };
    assert_eq!(a.get(foreign).await.unwrap().as_ref(), Some(&known));
    assert_eq!(b.list().await.unwrap(), [known]);
    wait_until("the bundle to be known", SOON, || async {
        let known = b.known_bundle(foreign).unwrap();
        (known.as_deref() == Some(&bundle))
            .then_some(())
            .ok_or(format!("{known:?}"))
    })
    .await;
    assert_eq!(b.known_bundles(), 1);

    let forget = |known: &mut ForeignTrustDomain| {
        (known.bundle, known.relationship) = (None, None);
        Ok::<_, FederationError>(())
    };
    b.change(foreign, forget).await.unwrap();
    assert!(a.list().await.unwrap().is_empty());
    wait_until("the bundle to be gone", SOON, || async {
        let known = a.known_bundle(foreign).unwrap();
        known.map_or(Ok(()), |known| Err(format!("{known:?}")))
    })
    .await;
}

#[tokio::test]
async fn a_foreign_bundle_that_is_damaged_is_reported() {
    let replicas = Replicas::new().await;
    let store = &replicas.a.federation;
    let foreign = "foreign.test".parse().unwrap();
    let set = |known: &mut ForeignTrustDomain| {
        let trust_domain = known.trust_domain.clone();
        known.bundle = Some(Bundle::new(trust_domain, [], 1).unwrap());
        Ok::<_, FederationError>(())
    };
    store.change(&foreign, set).await.unwrap();
    let config_maps = Api::<ConfigMap>::namespaced(replicas.client.clone(), &replicas.namespace);
    let stored = config_maps
        .list(&ListParams::default().labels("spiffe-operator.io/federation"))
        .await;
    let name = stored.unwrap().items[0].name_any();
    merge_patch(&config_maps, &name, json!({ "data": { "bundle": "junk" } })).await;
    let read = store.get(&foreign).await;
    assert!(
        matches!(&read, Err(FederationError::Bundle { name: found, .. }) if *found == name),
        "{read:?}"
    );
    // The others are listed all the same.
    let other = "other.test".parse().unwrap();
    store.change(&other, set).await.unwrap();
    let listed = store.list().await.unwrap();
    let names: Vec<_> = listed.iter().map(|known| &known.trust_domain).collect();
    assert_eq!(names, [&other]);
}

#[tokio::test]
async fn an_attestor_takes_no_agent_of_another_one() {
    let replicas = Replicas::new().await;
    let id = replicas.attested("node-1", "1").await;
    let other = Attestation {
        attestation_type: "x509pop",
        ..replicas.attestation("node-1", "2")
    };
    let agents = &replicas.a.agents;
    let refused = agents.attest(&other).await;
    assert!(
        matches!(refused, Err(AgentError::AttestedOtherwise { .. })),
        "{refused:?}"
    );
    agents.check(&id, &svid("1"), now()).await.unwrap();
    agents.evict(&id).await.unwrap();
    agents.attest(&other).await.unwrap();
}
