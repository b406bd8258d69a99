//! Commands on authorities, given to another process than the one that leads.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, Config};
use serde_json::json;
use spiffe_operator::api::{AuthorityStatus, JwtKeyType};
use spiffe_operator::authority::{
    AuthorityError, AuthorityId, AuthorityKind, AuthorityState, Command, CommandError, JwtAuthority,
};
use spiffe_operator::domains::DomainSettings;
use spiffe_operator::spiffe::{Bundle, JwtKey, verify_x509_svid};
use spiffe_operator::store::{AuthorityCommandError, AuthorityCommands, AuthorityStore};
use tokio::sync::watch;

use crate::support::{SOON, World, wait_until};

const NAMESPACE: &str = "spiffe-system";

/// Commands as a replica gives them that serves nobody.
async fn commands(world: &World, client: Client) -> AuthorityCommands {
    let spec = world.read_trust_domain().await.spec;
    let settings = DomainSettings::parse(&spec).unwrap();
    // The senders are gone: nothing is waited for.
    let (_, authority) = watch::channel(None);
    let (_, of_authority) = watch::channel(settings.authority_settings());
    let store = AuthorityStore::new(client, NAMESPACE);
    AuthorityCommands::new(
        store,
        &world.class,
        settings.trust_domain,
        of_authority,
        authority,
    )
}

async fn ready_world() -> (World, AuthorityCommands) {
    let world = World::new().await;
    world.trust_domain_condition("AuthorityReady", "True").await;
    let commands = commands(&world, world.client.clone()).await;
    wait_until("a JWT key to be active", SOON, || async {
        let journal = commands
            .journal()
            .await
            .map_err(|error| error.to_string())?;
        let active = journal.active_jwt().map(|_| ());
        active.ok_or_else(|| format!("{:?}", journal.jwt_status()))
    })
    .await;
    (world, commands)
}

/// Waits until the status says that the authorities have these states, the newest first.
async fn states_are(world: &World, kind: AuthorityKind, wanted: &[&str]) {
    wait_until(&format!("{kind:?} {wanted:?}"), SOON, || async {
        let status = world.read_trust_domain().await.status.unwrap_or_default();
        let authorities: Vec<AuthorityStatus> = match kind {
            AuthorityKind::X509 => status.authorities,
            AuthorityKind::Jwt => status.jwt_authorities,
        };
        let found: Vec<_> = authorities.iter().map(|it| it.state.as_str()).collect();
        (found == wanted).then_some(()).ok_or(format!("{found:?}"))
    })
    .await;
}

async fn prepare(commands: &AuthorityCommands, kind: AuthorityKind) -> AuthorityId {
    let journal = commands.execute(Command::Prepare(kind)).await.unwrap();
    let records = journal.ledger_of(kind).records();
    let newest = records.last().unwrap();
    assert_eq!(newest.state, AuthorityState::Prepared);
    newest.id.clone()
}

#[tokio::test]
async fn authorities_are_replaced_by_command() {
    let (world, commands) = ready_world().await;
    world.apply_cluster_spiffe_id("web", json!({})).await;
    for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
        let first = commands.journal().await.unwrap();
        let old = first.ledger_of(kind).active().unwrap().id.clone();
        let new = prepare(&commands, kind).await;
        states_are(&world, kind, &["prepared", "active"]).await;
        let activated = commands.execute(Command::Activate(kind, new.clone())).await;
        let activated = activated.unwrap();
        assert_eq!(activated.ledger_of(kind).active().unwrap().id, new);
        states_are(&world, kind, &["active", "old"]).await;
        let verify = Command::Revoke(kind, old.clone());
        let refused = commands.execute(verify.clone()).await.unwrap_err();
        let source = CommandError::Authority {
            source: AuthorityError::NotTainted,
        };
        assert!(
            matches!(&refused, AuthorityCommandError::Refused { source: found } if *found == source),
            "{refused:?}"
        );
        commands.execute(Command::Taint(kind, old)).await.unwrap();
        states_are(&world, kind, &["active", "tainted"]).await;
        commands.execute(verify).await.unwrap();
        states_are(&world, kind, &["active"]).await;
    }
    let journal = commands.journal().await.unwrap();
    let root = journal.active().unwrap().certificates().root().clone();
    let bundles = Api::<ClusterTrustBundle>::all(world.client.clone());
    wait_until("the revoked root to go", SOON, || async {
        let found = bundles.get_opt(&world.bundle_name()).await.unwrap();
        let pem = found.map(|it| it.spec.trust_bundle).unwrap_or_default();
        (pem.matches("BEGIN CERTIFICATE").count() == 1)
            .then_some(())
            .ok_or(pem)
    })
    .await;
    let chain = world.issue().await;
    let alone = Bundle::new(world.trust_domain.parse().unwrap(), [root], 1).unwrap();
    verify_x509_svid(&chain, &alone, Timestamp::now()).unwrap();
}

#[tokio::test]
async fn of_commands_at_the_same_time_none_is_lost() {
    let (world, commands) = ready_world().await;
    let before = commands.journal().await.unwrap();
    let expires_at = Timestamp::now() + SignedDuration::from_hours(1);
    let append = |number: usize| {
        let commands = commands.clone();
        let authority = JwtAuthority::generate(JwtKeyType::EcP256, expires_at).unwrap();
        let key = JwtKey {
            key_id: format!("below-{number}"),
            public_key: authority.key().public_key().clone(),
            expires_at: Some(expires_at),
            tainted: false,
        };
        async move {
            let roots = Vec::new();
            let jwt_keys = vec![key];
            commands.execute(Command::Append { roots, jwt_keys }).await
        }
    };
    let done = futures::future::join_all((0..8).map(append)).await;
    let mut sequences = BTreeSet::new();
    for journal in done {
        sequences.insert(journal.unwrap().sequence());
    }
    assert_eq!(sequences.len(), 8, "{sequences:?}");
    let journal = commands.journal().await.unwrap();
    let bundle = journal.bundle().unwrap();
    assert!((0..8).all(|number| bundle.jwt_key(&format!("below-{number}")).is_some()));
    assert!(journal.sequence() >= before.sequence() + 8);
    wait_until("the status to count the keys", SOON, || async {
        let status = world.read_trust_domain().await.status.unwrap_or_default();
        let count = status.jwt_keys;
        (count == 9).then_some(()).ok_or(count.to_string())
    })
    .await;
}

#[tokio::test]
async fn without_an_api_server_or_an_authority_the_reason_is_told() {
    let (world, _) = ready_world().await;
    let nowhere = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let away = commands(&world, nowhere).await;
    let prepare = Command::Prepare(AuthorityKind::Jwt);
    let refused = away.execute(prepare.clone()).await.unwrap_err();
    assert!(
        matches!(refused, AuthorityCommandError::Load { .. }),
        "{refused:?}"
    );
    let settings = DomainSettings::parse(&world.read_trust_domain().await.spec).unwrap();
    let (_, authority) = watch::channel(None);
    let (_, of_authority) = watch::channel(settings.authority_settings());
    let store = AuthorityStore::new(world.client.clone(), NAMESPACE);
    let object = format!("{}-other", world.class);
    let trust_domain = settings.trust_domain;
    let other = AuthorityCommands::new(store, &object, trust_domain, of_authority, authority);
    let refused = other.execute(prepare).await.unwrap_err();
    assert!(
        matches!(refused, AuthorityCommandError::NotInitialized),
        "{refused:?}"
    );
}
