//! What the services of the API of spire-server answer, asked by the administration socket: SVIDs are
//! judged by OpenSSL, tokens by their bundle.

use std::process::Command;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use serde_json::json;
use spiffe_operator::api::TrustDomain;
use spiffe_operator::server::proto::bundle::bundle_client::BundleClient;
use spiffe_operator::server::proto::bundle::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchDeleteFederatedBundleRequest,
    BatchSetFederatedBundleRequest, BatchUpdateFederatedBundleRequest, CountBundlesRequest,
    GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
};
use spiffe_operator::server::proto::debug::GetInfoRequest;
use spiffe_operator::server::proto::debug::debug_client::DebugClient;
use spiffe_operator::server::proto::localauthority::local_authority_client::LocalAuthorityClient;
use spiffe_operator::server::proto::localauthority::{
    ActivateX509AuthorityRequest, GetX509AuthorityStateRequest, PrepareX509AuthorityRequest,
    RevokeX509AuthorityRequest, TaintX509AuthorityRequest, TaintX509UpstreamAuthorityRequest,
};
use spiffe_operator::server::proto::logger::logger_client::LoggerClient;
use spiffe_operator::server::proto::logger::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};
use spiffe_operator::server::proto::svid::svid_client::SvidClient;
use spiffe_operator::server::proto::svid::{
    MintJwtsvidRequest, MintWitsvidRequest, MintX509svidRequest, NewJwtsvidRequest,
};
use spiffe_operator::server::proto::trustdomain::trust_domain_client::TrustDomainClient;
use spiffe_operator::server::proto::trustdomain::{
    BatchCreateFederationRelationshipRequest, BatchDeleteFederationRelationshipRequest,
    GetFederationRelationshipRequest, ListFederationRelationshipsRequest, RefreshBundleRequest,
};
use spiffe_operator::server::proto::types;
use spiffe_operator::server::proto::types::federation_relationship::BundleEndpointProfile;
use spiffe_operator::spiffe::{Bundle, JwtKey, PublicKey, pem, verify_jwt_svid};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::spire_entries::Entries;
use crate::support::{SOON, World, ca, free_port, shared_operator, wait_until};

/// A world whose trust domain is served, and its administration socket.
async fn served() -> (World, Channel) {
    let world = World::new().await;
    world
        .apply_trust_domain(json!({ "server": { "port": free_port() } }))
        .await;
    let socket = shared_operator().await.admin_socket(&world.class);
    let channel = wait_until("the socket", SOON, || async {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let mut bundles = BundleClient::new(channel.clone());
        let bundle = bundles.get_bundle(GetBundleRequest::default()).await;
        let bundle = bundle.map_err(|status| status.to_string())?.into_inner();
        // The JWT key comes a moment after the CA.
        let is_ready = !bundle.jwt_authorities.is_empty();
        is_ready.then_some(channel).ok_or(format!("{bundle:?}"))
    })
    .await;
    (world, channel)
}

fn request(key: &KeyPair, names: &[SanType], subject: &[(DnType, &str)]) -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        parameters.distinguished_name.push(kind.clone(), *value);
    }
    parameters.subject_alt_names = names.to_vec();
    parameters.serialize_request(key).unwrap().der().to_vec()
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn openssl(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{:?}", output.stderr);
    text
}

#[tokio::test]
async fn administrators_mint_what_their_request_asks_for() {
    let (world, channel) = served().await;
    let mut svids = SvidClient::new(channel.clone());
    let key = KeyPair::generate().unwrap();
    let id = format!("spiffe://{}/minted", world.trust_domain);
    let csr = request(
        &key,
        &[uri(&id), dns("a.example.org"), dns("b.example.org")],
        &[(DnType::OrganizationName, "Minters")],
    );
    let minted = svids.mint_x509svid(MintX509svidRequest { csr, ttl: 60 });
    let minted = minted.await.unwrap().into_inner().svid.unwrap();
    assert_eq!(minted.id.unwrap().path, "/minted");
    let life = minted.expires_at - Timestamp::now().as_second();
    assert!((30..=60).contains(&life), "{life}");
    let bundle = world.published_bundle().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    file("bundle.pem", bundle.to_pem());
    file(
        "leaf.pem",
        pem::encode("CERTIFICATE", &minted.cert_chain[0]),
    );
    let verify = [
        "verify",
        "-x509_strict",
        "-CAfile",
        "bundle.pem",
        "leaf.pem",
    ];
    assert_eq!(openssl(folder.path(), &verify).trim(), "leaf.pem: OK");
    let shown = openssl(
        folder.path(),
        &["x509", "-in", "leaf.pem", "-noout", "-text"],
    );
    for expected in [
        "Subject: O = Minters, CN = a.example.org",
        "DNS:a.example.org, DNS:b.example.org",
        id.as_str(),
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
}

#[tokio::test]
async fn what_cannot_be_minted_is_refused_in_the_words_of_spire() {
    let (world, channel) = served().await;
    let mut svids = SvidClient::new(channel.clone());
    let key = KeyPair::generate().unwrap();
    let td = &world.trust_domain;
    let good = uri(&format!("spiffe://{td}/a"));
    let mut forged = request(&key, std::slice::from_ref(&good), &[]);
    *forged.last_mut().unwrap() ^= 1;
    for (csr, expected) in [
        (Vec::new(), "missing CSR"),
        (b"no DER".to_vec(), "malformed CSR: "),
        (vec![0x30; 20_000], "malformed CSR: "),
        (forged, "failed to verify CSR signature: "),
        (request(&key, &[], &[]), "CSR URI SAN is required"),
        (
            request(&key, &[good.clone(), uri("spiffe://other.org/a")], &[]),
            "only one URI SAN is expected",
        ),
        (
            request(&key, &[uri("https://example.org/a")], &[]),
            "CSR URI SAN is invalid: ",
        ),
        (
            request(&key, &[uri("spiffe://other.org/a")], &[]),
            "CSR URI SAN is invalid: \"spiffe://other.org/a\" is not a member of trust domain",
        ),
        (
            request(&key, &[uri(&format!("spiffe://{td}/spire/server"))], &[]),
            "CSR URI SAN is invalid: ",
        ),
        (
            request(&key, &[good.clone(), dns("a..b")], &[]),
            "CSR DNS name is invalid: ",
        ),
        (
            request(
                &key,
                &[good, dns("*.example.org"), dns("a.example.org")],
                &[],
            ),
            "CSR DNS name contains a wildcard that covers another non-wildcard name: ",
        ),
    ] {
        let refused = svids.mint_x509svid(MintX509svidRequest { csr, ttl: 0 });
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{expected}");
        let message = refused.message();
        assert!(message.starts_with(expected), "{message} for {expected}");
    }
    let denied = svids.new_jwtsvid(NewJwtsvidRequest::default()).await;
    let denied = denied.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let wit = svids.mint_witsvid(MintWitsvidRequest::default()).await;
    assert_eq!(wit.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn administrators_mint_tokens_that_the_bundle_verifies() {
    let (world, channel) = served().await;
    let mut svids = SvidClient::new(channel.clone());
    let id = |path: &str| {
        Some(types::Spiffeid {
            trust_domain: world.trust_domain.clone(),
            path: path.into(),
        })
    };
    let minted = svids.mint_jwtsvid(MintJwtsvidRequest {
        id: id("/minted"),
        audience: vec!["them".into()],
        ttl: 60,
    });
    let minted = minted.await.unwrap().into_inner().svid.unwrap();
    assert_eq!(minted.expires_at - minted.issued_at, 60);
    let mut bundles = BundleClient::new(channel);
    let bundle = bundles.get_bundle(GetBundleRequest::default()).await;
    let keys = bundle.unwrap().into_inner().jwt_authorities.into_iter();
    let keys = keys.map(|key| JwtKey {
        key_id: key.key_id,
        public_key: PublicKey::from_spki(&key.public_key).unwrap(),
        expires_at: None,
        tainted: false,
    });
    let trust_domain = world.trust_domain.parse().unwrap();
    let bundle = Bundle::new(trust_domain, [], 1)
        .unwrap()
        .with_jwt_keys(keys);
    let read = verify_jwt_svid(&minted.token, &bundle, "them", Timestamp::now()).unwrap();
    assert_eq!(read.id.path(), "/minted");
    for (id, audience, expected) in [
        (
            None,
            vec!["them".into()],
            "invalid SPIFFE ID: request must specify SPIFFE ID",
        ),
        (
            id("/spire/server"),
            vec!["them".into()],
            "invalid SPIFFE ID: ",
        ),
        (id("/a"), Vec::new(), "at least one audience is required"),
    ] {
        let ttl = 0;
        let refused = svids.mint_jwtsvid(MintJwtsvidRequest { id, audience, ttl });
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{expected}");
        assert!(refused.message().starts_with(expected), "{refused}");
    }
}

fn code(status: Option<&types::Status>) -> i32 {
    status.unwrap().code
}

fn foreign_bundle(trust_domain: &str, sequence_number: u64) -> types::Bundle {
    types::Bundle {
        trust_domain: trust_domain.into(),
        x509_authorities: vec![types::X509Certificate {
            asn1: ca("foreign").der().to_vec(),
            tainted: false,
        }],
        refresh_hint: 60,
        sequence_number,
        ..types::Bundle::default()
    }
}

#[tokio::test]
async fn foreign_bundles_are_kept() {
    let (world, channel) = served().await;
    let mut bundles = BundleClient::new(channel);
    let [first, second] = ["a.org", "b.org"].map(|name| foreign_bundle(name, 1));
    let own = foreign_bundle(&world.trust_domain, 1);
    let bundle = vec![first.clone(), own, second.clone()];
    let create = BatchCreateFederatedBundleRequest {
        bundle,
        output_mask: None,
    };
    let created = bundles.batch_create_federated_bundle(create.clone()).await;
    let created = created.unwrap().into_inner().results;
    let codes: Vec<_> = created.iter().map(|it| code(it.status.as_ref())).collect();
    assert_eq!(codes, [0, 3, 0]);
    assert_eq!(created[0].bundle.as_ref(), Some(&first));
    let again = bundles.batch_create_federated_bundle(create).await.unwrap();
    assert_eq!(code(again.into_inner().results[2].status.as_ref()), 6);
    let count = bundles.count_bundles(CountBundlesRequest::default()).await;
    assert_eq!(count.unwrap().into_inner().count, 3);
    let mut list = ListFederatedBundlesRequest {
        page_size: 1,
        ..ListFederatedBundlesRequest::default()
    };
    let page = bundles.list_federated_bundles(list.clone()).await.unwrap();
    let page = page.into_inner();
    assert_eq!(page.bundles, std::slice::from_ref(&first));
    list.page_token = page.next_page_token;
    let page = bundles.list_federated_bundles(list).await.unwrap();
    let page = page.into_inner();
    assert_eq!(
        (page.bundles, page.next_page_token),
        (vec![second], String::new())
    );
    let update = BatchUpdateFederatedBundleRequest {
        bundle: vec![foreign_bundle("a.org", 2), foreign_bundle("c.org", 1)],
        input_mask: Some(types::BundleMask {
            sequence_number: true,
            ..types::BundleMask::default()
        }),
        output_mask: None,
    };
    let updated = bundles.batch_update_federated_bundle(update).await.unwrap();
    let updated = updated.into_inner().results;
    let expected = types::Bundle {
        sequence_number: 2,
        ..first
    };
    assert_eq!(updated[0].bundle.as_ref(), Some(&expected));
    assert_eq!(code(updated[1].status.as_ref()), 5);
    let set = bundles.batch_set_federated_bundle(BatchSetFederatedBundleRequest {
        bundle: vec![foreign_bundle("a.org", 3), foreign_bundle("c.org", 3)],
        output_mask: None,
    });
    let set = set.await.unwrap().into_inner().results;
    assert!(
        set.iter().all(|it| code(it.status.as_ref()) == 0),
        "{set:?}"
    );
    let delete = bundles.batch_delete_federated_bundle(BatchDeleteFederatedBundleRequest {
        trust_domains: ["a.org", "b.org", "d.org"].map(str::to_owned).to_vec(),
        mode: 0,
    });
    let deleted = delete.await.unwrap().into_inner().results;
    let codes: Vec<_> = deleted.iter().map(|it| code(it.status.as_ref())).collect();
    assert_eq!(codes, [0, 0, 5]);
    let get = |trust_domain: &str| {
        let request = GetFederatedBundleRequest {
            trust_domain: trust_domain.into(),
            output_mask: None,
        };
        let mut bundles = bundles.clone();
        async move { bundles.get_federated_bundle(request).await }
    };
    assert_eq!(get("a.org").await.unwrap_err().code(), Code::NotFound);
    let kept = get("c.org").await.unwrap().into_inner();
    assert_eq!((kept.sequence_number, kept.refresh_hint), (3, 60));
    let own = get(&world.trust_domain).await.unwrap_err();
    assert_eq!(own.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_foreign_bundle_goes_only_when_no_entry_names_it() {
    let (world, channel) = served().await;
    let mut bundles = BundleClient::new(channel);
    let socket = shared_operator().await.admin_socket(&world.class);
    let entries = Entries::connect(&world, socket).await;
    let set = BatchSetFederatedBundleRequest {
        bundle: vec![foreign_bundle("a.org", 1)],
        output_mask: None,
    };
    let mut made = Vec::new();
    // RESTRICT, DISSOCIATE, DELETE.
    for (mode, expected) in [(0, 9), (2, 0), (1, 0)] {
        let put = bundles.batch_set_federated_bundle(set.clone()).await;
        assert_eq!(
            code(put.unwrap().into_inner().results[0].status.as_ref()),
            0
        );
        if mode != 2 {
            let entry = entries.entry(&format!("/federated-{mode}"));
            let federates_with = vec!["a.org".into()];
            let create = entries.create(vec![types::Entry {
                federates_with,
                ..entry
            }]);
            let (_, _, entry) = create.await.remove(0);
            made.push(entry.unwrap());
        }
        let trust_domains = vec!["a.org".to_owned()];
        let delete = BatchDeleteFederatedBundleRequest {
            trust_domains,
            mode,
        };
        let deleted = bundles.batch_delete_federated_bundle(delete).await;
        let status = deleted.unwrap().into_inner().results.remove(0).status;
        let status = status.unwrap();
        assert_eq!(status.code, expected, "{mode}: {}", status.message);
    }
    let dissociated = entries.get(&made[0].id).await.unwrap();
    assert!(dissociated.federates_with.is_empty(), "{dissociated:?}");
    let gone = entries.get(&made[1].id).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn roots_of_others_are_appended() {
    let (_world, channel) = served().await;
    let mut bundles = BundleClient::new(channel);
    let before = bundles.get_bundle(GetBundleRequest::default()).await;
    let before = before.unwrap().into_inner();
    let append = AppendBundleRequest {
        x509_authorities: foreign_bundle("a.org", 1).x509_authorities,
        ..AppendBundleRequest::default()
    };
    let appended = bundles.append_bundle(append.clone()).await.unwrap();
    let appended = appended.into_inner();
    assert_eq!(
        appended.x509_authorities.len(),
        before.x509_authorities.len() + 1
    );
    assert!(appended.sequence_number > before.sequence_number);
    let read = bundles.get_bundle(GetBundleRequest::default()).await;
    assert_eq!(read.unwrap().into_inner(), appended);
    let again = bundles.append_bundle(append).await.unwrap().into_inner();
    assert_eq!(again, appended);
    let nothing = bundles.append_bundle(AppendBundleRequest::default()).await;
    assert_eq!(nothing.unwrap_err().message(), "no authorities to append");
    let garbage = bundles.append_bundle(AppendBundleRequest {
        x509_authorities: vec![types::X509Certificate::default()],
        ..AppendBundleRequest::default()
    });
    assert_eq!(garbage.await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn jwt_keys_of_others_are_bounded_and_warned_of() {
    let (world, channel) = served().await;
    let mut bundles = BundleClient::new(channel);
    let key = KeyPair::generate().unwrap().subject_public_key_info();
    let in_days = |days: i64| Timestamp::now().as_second() + days * 24 * 3600;
    let keys = |ids: std::ops::Range<i32>, expires_at: i64| AppendBundleRequest {
        jwt_authorities: ids
            .map(|id| types::JwtKey {
                public_key: key.clone(),
                key_id: format!("other-{id}"),
                expires_at,
                tainted: false,
            })
            .collect(),
        ..AppendBundleRequest::default()
    };
    for (request, expected) in [
        (keys(0..1, in_days(500)), Code::InvalidArgument),
        (keys(0..257, in_days(1)), Code::ResourceExhausted),
    ] {
        let refused = bundles.append_bundle(request).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{}", refused.message());
    }
    // One is the trust domain's own.
    let appended = bundles.append_bundle(keys(0..79, in_days(1))).await;
    assert_eq!(appended.unwrap().into_inner().jwt_authorities.len(), 80);
    let objects = Api::<TrustDomain>::all(world.client.clone());
    let uid = objects.get(&world.class).await.unwrap().uid().unwrap();
    let note = world.event("default", &uid, "ManyJWTKeys").await;
    assert!(note.starts_with("the bundle has 80 JWT keys"), "{note}");
}

#[tokio::test]
async fn relationships_are_kept() {
    let (world, channel) = served().await;
    let mut domains = TrustDomainClient::new(channel);
    let relationship = |trust_domain: &str| types::FederationRelationship {
        trust_domain: trust_domain.into(),
        bundle_endpoint_url: format!("https://{trust_domain}/bundle"),
        trust_domain_bundle: Some(foreign_bundle(trust_domain, 1)),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
    };
    let first = relationship("a.org");
    let create = BatchCreateFederationRelationshipRequest {
        federation_relationships: vec![first.clone(), relationship(&world.trust_domain)],
        output_mask: None,
    };
    let created = domains.batch_create_federation_relationship(create.clone());
    let created = created.await.unwrap().into_inner().results;
    assert_eq!(created[0].federation_relationship.as_ref(), Some(&first));
    assert_eq!(code(created[1].status.as_ref()), 3);
    let again = domains.batch_create_federation_relationship(create).await;
    let again = again.unwrap().into_inner().results;
    assert_eq!(code(again[0].status.as_ref()), 6);
    let list = ListFederationRelationshipsRequest::default();
    let listed = domains.list_federation_relationships(list).await.unwrap();
    assert_eq!(listed.into_inner().federation_relationships, [first]);
    for (name, expected) in [("a.org", Code::Unimplemented), ("b.org", Code::NotFound)] {
        let trust_domain = name.to_owned();
        let refresh = domains.refresh_bundle(RefreshBundleRequest { trust_domain });
        assert_eq!(refresh.await.unwrap_err().code(), expected);
    }
    let trust_domains = vec!["a.org".into(), "a.org".into(), String::new()];
    let delete = BatchDeleteFederationRelationshipRequest { trust_domains };
    let deleted = domains.batch_delete_federation_relationship(delete).await;
    let deleted = deleted.unwrap().into_inner().results;
    let codes: Vec<_> = deleted.iter().map(|it| code(it.status.as_ref())).collect();
    assert_eq!(codes, [0, 5, 3]);
    let get = GetFederationRelationshipRequest {
        trust_domain: "a.org".into(),
        output_mask: None,
    };
    let gone = domains.get_federation_relationship(get).await;
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_ca_is_forced_out_by_the_api() {
    let (_world, channel) = served().await;
    let mut authorities = LocalAuthorityClient::new(channel);
    let show = GetX509AuthorityStateRequest::default();
    let shown = authorities.get_x509_authority_state(show).await.unwrap();
    let shown = shown.into_inner();
    let old = shown.active.unwrap();
    assert_eq!((shown.prepared, shown.old), (None, None));
    assert!(old.upstream_authority_subject_key_id.is_empty());
    let authority_id = old.authority_id.clone();
    let taint = TaintX509AuthorityRequest { authority_id };
    let active = authorities.taint_x509_authority(taint.clone()).await;
    let active = active.unwrap_err();
    assert_eq!(active.message(), "unable to taint current local authority");
    let prepare = PrepareX509AuthorityRequest::default();
    let new = authorities.prepare_x509_authority(prepare).await.unwrap();
    let new = new.into_inner().prepared_authority.unwrap();
    let authority_id = new.authority_id.clone();
    let activate = ActivateX509AuthorityRequest { authority_id };
    let activated = authorities.activate_x509_authority(activate).await.unwrap();
    assert_eq!(
        activated.into_inner().activated_authority,
        Some(new.clone())
    );
    let shown = authorities.get_x509_authority_state(show).await.unwrap();
    let shown = shown.into_inner();
    assert_eq!((shown.active, shown.old), (Some(new), Some(old.clone())));
    let authority_id = old.authority_id.clone();
    let revoke = RevokeX509AuthorityRequest { authority_id };
    let untainted = authorities.revoke_x509_authority(revoke.clone()).await;
    assert_eq!(untainted.unwrap_err().code(), Code::Internal);
    let tainted = authorities.taint_x509_authority(taint).await.unwrap();
    assert_eq!(tainted.into_inner().tainted_authority, Some(old));
    authorities
        .revoke_x509_authority(revoke.clone())
        .await
        .unwrap();
    let gone = authorities.revoke_x509_authority(revoke).await.unwrap_err();
    assert_eq!(
        gone.message(),
        "invalid authority ID: only Old local authority can be revoked"
    );
    let upstream = TaintX509UpstreamAuthorityRequest::default();
    let upstream = authorities.taint_x509_upstream_authority(upstream).await;
    assert_eq!(upstream.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn the_server_tells_about_itself() {
    let (world, channel) = served().await;
    let mut debug = DebugClient::new(channel.clone());
    let info = debug.get_info(GetInfoRequest::default()).await;
    let info = info.unwrap().into_inner();
    let ids = info.svid_chain.iter().map(|it| it.id.clone().unwrap().path);
    assert_eq!(ids.collect::<Vec<_>>(), ["/spire/server", ""]);
    assert_eq!(info.svid_chain[0].subject, "O=SPIRE,C=US");
    assert_eq!(info.federated_bundles_count, 1);
    assert_eq!((info.agents_count, info.entries_count), (0, 0));
    assert!(info.svid_chain[0].expires_at > Timestamp::now().as_second());
    let _ = world;
    // The level itself is that of all tests' operator, and so is set to what it is.
    let mut logger = LoggerClient::new(channel);
    let levels = logger.get_logger(GetLoggerRequest::default()).await;
    let levels = levels.unwrap().into_inner();
    let new_level = levels.launch_level;
    let set = logger.set_log_level(SetLogLevelRequest { new_level }).await;
    assert_eq!(set.unwrap().into_inner(), levels);
    let reset = logger
        .reset_log_level(ResetLogLevelRequest::default())
        .await;
    assert_eq!(reset.unwrap().into_inner(), levels);
    for (new_level, expected) in [
        (0, "newLevel value cannot be LogLevel_UNSPECIFIED"),
        (99, "unsupported log level"),
    ] {
        let refused = logger.set_log_level(SetLogLevelRequest { new_level });
        assert_eq!(refused.await.unwrap_err().message(), expected);
    }
}
