//! JWT keys as servers below publish them (`PublishJWTAuthority`): good ones and bad ones.

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData as _};
use spiffe_operator::server::proto::bundle::PublishJwtAuthorityRequest;
use spiffe_operator::server::proto::bundle::bundle_client::BundleClient;
use spiffe_operator::server::proto::types::JwtKey;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::grpc::{Svid, channel};
use crate::support::{SOON, Served, scripts, wait_until};

/// A server below, which may publish.
struct Below(BundleClient<Channel>);

impl Below {
    async fn new(server: &Served) -> Self {
        let (id, folder) = (server.id("below"), server.folder.path());
        server
            .cli
            .entry(&server.id("node"), &id, "-downstream")
            .await;
        let mint = format!("x509 mint -spiffeID {id} -write {}", folder.display());
        server.cli.run(&mint).await.unwrap();
        let svid = Svid::read(folder);
        wait_until("the entry to count", SOON, || async {
            let mut below = Self(BundleClient::new(
                channel(server.endpoint.port, Some(&svid)).await,
            ));
            match below.publish(None).await.unwrap_err() {
                refused if refused.code() == Code::PermissionDenied => Err(refused.to_string()),
                _ => Ok(below),
            }
        })
        .await
    }

    /// The keys that the bundle has then.
    async fn publish(&mut self, jwt_authority: Option<JwtKey>) -> Result<Vec<JwtKey>, Status> {
        let request = PublishJwtAuthorityRequest { jwt_authority };
        let published = self.0.publish_jwt_authority(request).await?;
        Ok(published.into_inner().jwt_authorities)
    }

    /// That a key is refused as `InvalidArgument`, with a message that begins so.
    async fn is_refused(&mut self, key: Option<JwtKey>, beginning: &str) {
        let refused = self.publish(key.clone()).await.expect_err("no refusal");
        let words = (refused.code(), refused.message());
        assert!(
            words.0 == Code::InvalidArgument && words.1.starts_with(beginning),
            "{key:?}: {words:?}"
        );
    }
}

/// A new key that ends in an hour.
fn key(key_id: &str) -> JwtKey {
    JwtKey {
        public_key: KeyPair::generate().unwrap().subject_public_key_info(),
        key_id: key_id.into(),
        expires_at: in_seconds(3600),
        tainted: false,
    }
}

fn in_seconds(seconds: i64) -> i64 {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).as_second()
}

/// The IDs of keys, without that of the server's own.
fn of_others(keys: &[JwtKey]) -> Vec<&str> {
    let ids = keys.iter().map(|key| &*key.key_id);
    ids.filter(|id| id.starts_with("below-")).collect()
}

async fn keys_that_are_none_are_refused(server: &Served) {
    let mut below = Below::new(server).await;
    below.is_refused(None, "missing JWT authority").await;
    let good = key("below-1");
    let invalid = "invalid JWT authority: ";
    let of = |public_key: Vec<u8>| {
        Some(JwtKey {
            public_key,
            ..good.clone()
        })
    };
    below.is_refused(of(Vec::new()), invalid).await;
    below.is_refused(of(b"no PKIX".to_vec()), invalid).await;
    let (cut, extended) = (
        &good.public_key[..40],
        [&good.public_key, &[0][..]].concat(),
    );
    below.is_refused(of(cut.to_vec()), invalid).await;
    below.is_refused(of(extended), invalid).await;
    let mut off_the_curve = good.public_key.clone();
    *off_the_curve.last_mut().unwrap() ^= 1;
    below.is_refused(of(off_the_curve), invalid).await;
    let nameless = JwtKey {
        key_id: String::new(),
        ..good.clone()
    };
    below
        .is_refused(Some(nameless), "invalid JWT authority: missing key ID")
        .await;

    let published = below.publish(Some(good.clone())).await.unwrap();
    assert_eq!(of_others(&published), ["below-1"]);
    assert!(published.contains(&good) && published.len() == 2);
    // Servers publish anew what may not have arrived.
    let again = below.publish(Some(good)).await.unwrap();
    assert_eq!(again, published);
}

/// Keys that would stay for ever, verify nothing, or could be mistaken for another.
fn doubtful() -> Vec<(JwtKey, &'static str)> {
    let with = |key_id: &str, seconds: i64| JwtKey {
        expires_at: in_seconds(seconds),
        ..key(key_id)
    };
    let endless = JwtKey {
        expires_at: 0,
        ..key("below-endless")
    };
    vec![
        (key("below-1"), "the bundle has another JWT key of the ID"),
        (with("below-expired", -3600), "the authority has expired"),
        (with("below-late", 401 * 86400), "the JWT key would expire"),
        (endless, "the JWT key \"below-endless\" has no expires_at"),
    ]
}

#[tokio::test]
async fn ours_takes_no_key_that_is_over_endless_or_confusing() {
    let server = Served::by_operator("1h").await;
    let mut below = Below::new(&server).await;
    let first = below.publish(Some(key("below-1"))).await.unwrap();
    for (key, why) in doubtful() {
        let words = format!("failed to publish JWT key: {why}");
        below.is_refused(Some(key), &words).await;
    }
    let after = below.publish(Some(key("below-2"))).await.unwrap();
    assert_eq!(of_others(&after), ["below-1", "below-2"]);
    assert!(first.iter().all(|key| after.contains(key)));
}

/// What [compatibility](../../docs/compatibility.md) says is different there is.
#[tokio::test]
async fn a_stock_server_takes_them() {
    let server = Served::by_stock("1h").await;
    let mut below = Below::new(&server).await;
    below.publish(Some(key("below-1"))).await.unwrap();
    for (key, _) in doubtful() {
        let published = below.publish(Some(key.clone())).await.unwrap();
        assert!(published.contains(&key), "{published:?}");
    }
}

scripts! {
    keys_that_are_none_are_refused: "1h",
}
