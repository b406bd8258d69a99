//! The Entry service, as tools see it on the administration socket: one replica, and two.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kube::Api;
use serde_json::json;
use spiffe_operator::api::{ClusterStaticEntry, RegistrationEntry};
use spiffe_operator::registration::{EntryId, registration_entry_name};
use spiffe_operator::server::proto::entry::entry_client::EntryClient;
use spiffe_operator::server::proto::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, CountEntriesRequest,
    GetEntryRequest, ListEntriesRequest, list_entries_request,
};
use spiffe_operator::server::proto::types;
use spiffe_operator::server::proto::types::{EntryMask, Selector, Spiffeid};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    ControlPlane, Operator, Options, SOON, World, apply, condition, free_port, merge_patch,
    shared_operator, unique, wait_until,
};

/// What the tests do to entries, on the administration socket of one replica.
#[derive(Clone)]
pub(crate) struct Entries {
    client: EntryClient<Channel>,
    trust_domain: String,
}

impl Entries {
    pub(crate) async fn connect(world: &World, socket: PathBuf) -> Self {
        let channel = wait_until("the administration socket", SOON, || async {
            let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
            endpoint.connect().await.map_err(|error| error.to_string())
        })
        .await;
        let entries = Self {
            client: EntryClient::new(channel),
            trust_domain: world.trust_domain.clone(),
        };
        wait_until("the replica to know the cluster", SOON, || async {
            let mut client = entries.client.clone();
            let count = client.count_entries(CountEntriesRequest::default());
            count.await.map_err(|status| status.to_string())
        })
        .await;
        entries
    }

    fn id(&self, path: &str) -> Spiffeid {
        Spiffeid {
            trust_domain: self.trust_domain.clone(),
            path: path.into(),
        }
    }

    /// An entry as a tool asks for it.
    pub(crate) fn entry(&self, path: &str) -> types::Entry {
        types::Entry {
            spiffe_id: Some(self.id(path)),
            parent_id: Some(self.id("/spire/agent/x509pop/a")),
            selectors: vec![Selector {
                r#type: "unix".into(),
                value: "uid:1000".into(),
            }],
            ..types::Entry::default()
        }
    }

    /// Code and message of each item, and its entry.
    pub(crate) async fn create(
        &self,
        entries: Vec<types::Entry>,
    ) -> Vec<(Code, String, Option<types::Entry>)> {
        let request = BatchCreateEntryRequest {
            entries,
            output_mask: None,
        };
        let response = self.clone().client.batch_create_entry(request).await;
        let results = response.unwrap().into_inner().results;
        let item = results.into_iter().map(|result| {
            let status = result.status.unwrap();
            (Code::from(status.code), status.message, result.entry)
        });
        item.collect()
    }

    pub(crate) async fn create_one(&self, entry: types::Entry) -> types::Entry {
        let mut results = self.create(vec![entry]).await;
        let (code, message, entry) = results.remove(0);
        assert_eq!((code, &*message), (Code::Ok, "OK"));
        entry.unwrap()
    }

    pub(crate) async fn update(
        &self,
        entry: types::Entry,
        mask: EntryMask,
    ) -> (Code, String, Option<types::Entry>) {
        let request = BatchUpdateEntryRequest {
            entries: vec![entry],
            input_mask: Some(mask),
            output_mask: None,
        };
        let response = self.clone().client.batch_update_entry(request).await;
        let result = response.unwrap().into_inner().results.remove(0);
        let status = result.status.unwrap();
        (Code::from(status.code), status.message, result.entry)
    }

    pub(crate) async fn delete(&self, id: &str) -> (Code, String) {
        let request = BatchDeleteEntryRequest {
            ids: vec![id.into()],
        };
        let response = self.clone().client.batch_delete_entry(request).await;
        let result = response.unwrap().into_inner().results.remove(0);
        assert_eq!(result.id, id);
        let status = result.status.unwrap();
        (Code::from(status.code), status.message)
    }

    pub(crate) async fn get(&self, id: &str) -> Result<types::Entry, tonic::Status> {
        let request = GetEntryRequest {
            id: id.into(),
            output_mask: None,
        };
        let response = self.clone().client.get_entry(request).await?;
        Ok(response.into_inner())
    }

    async fn count(&self) -> i32 {
        let request = CountEntriesRequest::default();
        let response = self.clone().client.count_entries(request).await;
        response.unwrap().into_inner().count
    }

    async fn list(&self, request: ListEntriesRequest) -> (Vec<types::Entry>, String) {
        let response = self.clone().client.list_entries(request).await;
        let page = response.unwrap().into_inner();
        (page.entries, page.next_page_token)
    }

    /// The entries with this SPIFFE ID.
    pub(crate) async fn with_id(&self, path: &str) -> Vec<types::Entry> {
        let filter = list_entries_request::Filter {
            by_spiffe_id: Some(self.id(path)),
            ..list_entries_request::Filter::default()
        };
        let request = ListEntriesRequest {
            filter: Some(filter),
            ..ListEntriesRequest::default()
        };
        self.list(request).await.0
    }
}

/// A trust domain with a server on the shared operator.
async fn served() -> (World, Entries) {
    let world = World::new().await;
    let server = json!({ "server": { "port": free_port() } });
    world.apply_trust_domain(server).await;
    let socket = shared_operator().await.admin_socket(&world.class);
    let entries = Entries::connect(&world, socket).await;
    (world, entries)
}

/// An entry with an ID of the caller's, and all fields set that can be.
fn full(entries: &Entries) -> types::Entry {
    types::Entry {
        id: "chosen-1".into(),
        x509_svid_ttl: 600,
        jwt_svid_ttl: 60,
        federates_with: vec![entries.trust_domain.clone()],
        dns_names: vec!["a.test".into(), "b.test".into()],
        hint: "main".into(),
        expires_at: 4_000_000_000,
        additional_attributes: Some(types::entry::AdditionalAttributes {
            jwt_svid_include_jti: true,
            ..types::entry::AdditionalAttributes::default()
        }),
        ..entries.entry("/full")
    }
}

#[tokio::test]
async fn every_item_of_a_batch_has_its_status() {
    let (_world, entries) = served().await;
    let full = full(&entries);
    let mut results = entries
        .create(vec![
            full.clone(),
            entries.entry("/plain"),
            types::Entry {
                id: "other".into(),
                ..full.clone()
            },
            types::Entry {
                spiffe_id: None,
                ..full.clone()
            },
            types::Entry {
                id: "chosen-1".into(),
                ..entries.entry("/somebody-else")
            },
            types::Entry {
                federates_with: vec!["unknown.test".into()],
                ..entries.entry("/federated")
            },
        ])
        .await
        .into_iter();
    let (code, _, created) = results.next().unwrap();
    let created = created.unwrap();
    assert_eq!(code, Code::Ok);
    assert!(created.created_at > 1_700_000_000);
    let expected = types::Entry {
        created_at: created.created_at,
        ..full.clone()
    };
    assert_eq!(created, expected, "it comes back as it was sent");
    let (code, _, plain) = results.next().unwrap();
    let plain = plain.unwrap();
    assert_eq!((code, plain.id.len()), (Code::Ok, 36));
    let existing = (
        Code::AlreadyExists,
        "similar entry already exists".to_owned(),
        Some(created.clone()),
    );
    assert_eq!(results.next().unwrap(), existing);
    let (code, message, _) = results.next().unwrap();
    let words = "failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID";
    assert_eq!((code, &*message), (Code::InvalidArgument, words));
    let (code, message, entry) = results.next().unwrap();
    assert_eq!((code, entry), (Code::AlreadyExists, None), "{message}");
    let (code, message, _) = results.next().unwrap();
    let words = "failed to create entry: unable to find federated bundle \"spiffe://unknown.test\"";
    assert_eq!((code, &*message), (Code::Internal, words));
    assert_eq!(entries.count().await, 2);
}

#[tokio::test]
async fn entries_are_made_changed_and_deleted_as_in_spire_server() {
    let (world, entries) = served().await;
    let created = entries.create_one(full(&entries)).await;
    let objects = Api::<RegistrationEntry>::all(world.client.clone());
    let trust_domain = world.trust_domain.parse().unwrap();
    let name = registration_entry_name(&trust_domain, &EntryId::from_text("chosen-1"));
    let object = objects.get(&name).await.unwrap();
    assert_eq!(object.spec.entry_id, "chosen-1");
    assert_eq!(object.spec.x509_svid_ttl.as_deref(), Some("600s"));

    assert_eq!(entries.get("chosen-1").await.unwrap(), created);
    assert_eq!(
        entries.with_id("/full").await,
        std::slice::from_ref(&created)
    );
    assert_eq!(entries.count().await, 1);

    let only_hint = EntryMask {
        hint: true,
        ..EntryMask::default()
    };
    let change = types::Entry {
        id: "chosen-1".into(),
        hint: "other".into(),
        admin: true,
        ..types::Entry::default()
    };
    let (code, _, updated) = entries.update(change, only_hint).await;
    let expected = types::Entry {
        hint: "other".into(),
        revision_number: 1,
        ..created
    };
    assert_eq!((code, updated), (Code::Ok, Some(expected.clone())));
    assert_eq!(entries.with_id("/full").await, [expected]);
    let unknown = types::Entry {
        id: "unknown".into(),
        ..types::Entry::default()
    };
    let (code, message, _) = entries.update(unknown, only_hint).await;
    assert_eq!(
        (code, &*message),
        (Code::NotFound, "failed to update entry")
    );

    // What somebody does with kubectl is seen, too.
    merge_patch(&objects, &name, json!({ "spec": { "hint": "by hand" } })).await;
    assert_eq!(entries.with_id("/full").await[0].hint, "by hand");

    assert_eq!(entries.delete("chosen-1").await, (Code::Ok, "OK".into()));
    assert!(objects.get_opt(&name).await.unwrap().is_none());
    let gone = (Code::NotFound, "entry not found".to_owned());
    assert_eq!(entries.delete("chosen-1").await, gone);
    let status = entries.get("chosen-1").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (gone.0, &*gone.1));
    assert_eq!(entries.with_id("/full").await, []);
    assert_eq!(entries.count().await, 0);
    let missing = (Code::InvalidArgument, "missing entry ID".to_owned());
    assert_eq!(entries.delete("").await, missing);
}

#[tokio::test]
async fn entries_of_other_objects_are_shown_and_not_changed() {
    let (world, entries) = served().await;
    let name = unique("static");
    let message = entries.entry("/db");
    let object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": { "name": name },
        "spec": {
            "className": world.class,
            "spiffeID": format!("spiffe://{}/db", world.trust_domain),
            "parentID": format!("spiffe://{}/spire/agent/x509pop/a", world.trust_domain),
            "selectors": ["unix:uid:1000"],
            "hint": "static",
        },
    });
    apply(&world.client, &object).await.unwrap();
    condition::<ClusterStaticEntry>(&world.client, &name, "Ready", "True").await;
    let shown = entries.with_id("/db").await.remove(0);
    assert!(shown.revision_number > 0 && shown.created_at > 0);
    assert_eq!(shown.hint, "static");
    assert_eq!(entries.get(&shown.id).await.unwrap(), shown);

    for entry in [
        message.clone(),
        types::Entry {
            id: shown.id.clone(),
            ..message
        },
    ] {
        let (code, _, existing) = entries.create(vec![entry]).await.remove(0);
        assert_eq!((code, existing), (Code::AlreadyExists, Some(shown.clone())));
    }
    let mask = EntryMask {
        hint: true,
        ..EntryMask::default()
    };
    let (code, update, _) = entries.update(shown.clone(), mask).await;
    assert_eq!(code, Code::FailedPrecondition);
    let (code, delete) = entries.delete(&shown.id).await;
    assert_eq!(code, Code::FailedPrecondition);
    for message in [update, delete] {
        let object = format!("ClusterStaticEntry {name}");
        assert!(message.contains(&object), "{message}");
    }
    assert_eq!(entries.with_id("/db").await, [shown]);
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let (_world, entries) = served().await;
    let many: Vec<_> = (0..70)
        .map(|number| entries.entry(&format!("/many/{number}")))
        .collect();
    let created = entries.create(many).await;
    assert!(created.iter().all(|(code, _, _)| *code == Code::Ok));
    let ids: BTreeSet<_> = created
        .into_iter()
        .map(|(_, _, entry)| entry.unwrap().id)
        .collect();
    let mut listed = Vec::new();
    let mut request = ListEntriesRequest {
        output_mask: Some(EntryMask::default()),
        page_size: 32,
        ..ListEntriesRequest::default()
    };
    for expected in [32, 32, 6] {
        let (page, next) = entries.list(request.clone()).await;
        assert_eq!(page.len(), expected);
        assert!(page.iter().all(|entry| entry.spiffe_id.is_none()));
        listed.extend(page.into_iter().map(|entry| entry.id));
        // What goes in between shifts nothing.
        let gone = listed.last().unwrap();
        assert_eq!(entries.delete(gone).await.0, Code::Ok);
        request.page_token = next;
    }
    assert_eq!(request.page_token, "");
    assert_eq!(listed.len(), 70);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), ids);
    assert_eq!(entries.count().await, 67);
    request.page_token = "nonsense".into();
    let refused = entries.clone().client.list_entries(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn what_one_replica_wrote_the_other_knows() {
    let own = ControlPlane::start(Options::default()).await;
    let world = World::without_trust_domain(&own).await;
    own.ensure_namespace("spiffe-system").await;
    let replicas = [
        Operator::start(&own, "spiffe-system", &[]).await,
        Operator::start(&own, "spiffe-system", &[]).await,
    ];
    // Both want the same port; their administration sockets are apart.
    let server = json!({ "server": { "port": free_port() } });
    world.apply_trust_domain(server).await;
    let sockets = replicas.each_ref().map(|it| it.admin_socket(&world.class));
    let [one, other] = sockets.map(|socket| Entries::connect(&world, socket));
    let (one, other) = (one.await, other.await);

    for round in 0..20 {
        let path = format!("/round/{round}");
        let created = one.create_one(one.entry(&path)).await;
        assert_eq!(other.count().await, 1);
        assert_eq!(other.with_id(&path).await, std::slice::from_ref(&created));
        assert_eq!(other.get(&created.id).await.unwrap(), created);
        let again = other.create(vec![other.entry(&path)]).await.remove(0);
        let existing = (Code::AlreadyExists, Some(created.clone()));
        assert_eq!((again.0, again.2), existing);

        let mask = EntryMask {
            hint: true,
            ..EntryMask::default()
        };
        let change = types::Entry {
            hint: "new".into(),
            ..created.clone()
        };
        let (_, _, updated) = other.update(change, mask).await;
        assert_eq!(one.with_id(&path).await, [updated.unwrap()]);
        assert_eq!(one.delete(&created.id).await.0, Code::Ok);
        // What is deleted is in nobody's way, at once.
        let anew = other.create_one(other.entry(&path)).await;
        assert!(other.get(&created.id).await.is_err());
        assert_eq!(one.delete(&anew.id).await.0, Code::Ok);
        assert_eq!(other.count().await, 0);
    }

    // Of two that are made at once, both replicas mean the same.
    for round in 0..20 {
        let entry = one.entry(&format!("/race/{round}"));
        let (first, second) =
            tokio::join!(one.create(vec![entry.clone()]), other.create(vec![entry]));
        let mut codes = [first[0].0, second[0].0];
        codes.sort_by_key(|code| i32::from(*code));
        assert_eq!(codes, [Code::Ok, Code::AlreadyExists]);
        let ids = [first, second].map(|mut results| results.remove(0).2.unwrap().id);
        assert_eq!(ids[0], ids[1]);
        assert_eq!(one.count().await, round + 1);
        assert_eq!(other.count().await, round + 1);
    }
}

#[tokio::test]
async fn an_entry_that_expires_is_gone_by_itself() {
    let (world, entries) = served().await;
    let created = entries
        .create_one(types::Entry {
            expires_at: 1,
            ..entries.entry("/short")
        })
        .await;
    assert_eq!(entries.with_id("/short").await, [], "it never counts");
    let objects = Api::<RegistrationEntry>::all(world.client.clone());
    let trust_domain = world.trust_domain.parse().unwrap();
    let name = registration_entry_name(&trust_domain, &EntryId::from_text(&created.id));
    wait_until("the object to be deleted", SOON, || async {
        let found = objects.get_opt(&name).await;
        let found = found.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}
