//! How many calls are taken from one address, as spire-server limits them.
//!
//! A call that comes too fast waits for its turn; only one that could never have it, or would wait
//! too long, is refused. Callers on the administration socket are never limited.
//!
//! Whoever attests is a stranger and counts by origin ([`super::origin`]): of IPv6 a whole subnet.
//! Others have shown who they are, and count by address, so that nodes of a subnet share nothing.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tonic::Status;

use crate::api::ServerRateLimit;
use crate::server::caller::Caller;
use crate::server::origin::Origin;

/// Longest time that a call waits for its turn; stock agents give up after 30 s.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// Attestations a second from one address.
const ATTESTATION: u32 = 1;
/// Attestations a second of one cluster, whose agents may all come from one address.
const CLUSTER_ATTESTATION: u32 = 50;
/// Attestations a second of one cluster from all addresses, by tokens that the cluster knows: whoever
/// has none uses up nothing that others need.
const WHOLE_CLUSTER_ATTESTATION: u32 = 200;
/// Signatures a second from one address; of each kind.
const SIGNING: u32 = 500;
/// Reports of agents a second from one address.
const STATUS: u32 = 10;
/// After so many calls addresses that have been quiet are forgotten.
const FORGET_EVERY: u32 = 1024;

/// What is limited together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<'a> {
    /// Attestation of an agent.
    Attestation,
    /// Attestation of an agent of a cluster that is known.
    ClusterAttestation(&'a str),
    /// Attestation of an agent whose token its cluster knows.
    WholeClusterAttestation(&'a str),
    /// X.509 signatures.
    X509Signing,
    /// JWT signatures.
    JwtSigning,
    /// WIT signatures.
    WitSigning,
    /// Authorities that downstream servers publish.
    Publishing,
    /// Reports of agents.
    Status,
}

type Limiter<K> = DefaultKeyedRateLimiter<K>;

/// The limits of one server.
#[derive(Debug)]
pub struct RateLimits {
    attestation: Limiter<Origin>,
    cluster_attestation: Limiter<(Origin, String)>,
    whole_cluster_attestation: Limiter<String>,
    x509_signing: Limiter<IpAddr>,
    jwt_signing: Limiter<IpAddr>,
    wit_signing: Limiter<IpAddr>,
    publishing: Limiter<IpAddr>,
    status: Limiter<IpAddr>,
    calls: std::sync::atomic::AtomicU32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            attestation: limiter(ATTESTATION),
            cluster_attestation: limiter(CLUSTER_ATTESTATION),
            whole_cluster_attestation: limiter(WHOLE_CLUSTER_ATTESTATION),
            x509_signing: limiter(SIGNING),
            jwt_signing: limiter(SIGNING),
            wit_signing: limiter(SIGNING),
            publishing: limiter(SIGNING),
            status: limiter(STATUS),
            calls: std::sync::atomic::AtomicU32::new(0),
        }
    }
}

fn limiter<K: Clone + std::hash::Hash + Eq>(per_second: u32) -> Limiter<K> {
    let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    RateLimiter::keyed(Quota::per_second(per_second))
}

impl RateLimits {
    /// Waits until `count` of `limit` may be done for `caller`.
    ///
    /// # Errors
    /// `ResourceExhausted` when that is more than may be done at once, or would take too long.
    pub async fn wait(
        &self,
        settings: &ServerRateLimit,
        limit: Limit<'_>,
        caller: &Caller,
        count: usize,
    ) -> Result<(), Status> {
        let Some(address) = caller.address() else {
            return Ok(());
        };
        let is_on = match limit {
            Limit::Attestation
            | Limit::ClusterAttestation(_)
            | Limit::WholeClusterAttestation(_) => settings.attestation,
            Limit::X509Signing | Limit::JwtSigning | Limit::WitSigning => settings.signing,
            Limit::Publishing | Limit::Status => true,
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let (true, Some(count)) = (is_on, NonZeroU32::new(count)) else {
            return Ok(());
        };
        self.forget_quiet_addresses();
        match limit {
            Limit::Attestation => turn(&self.attestation, &address.into(), count).await,
            Limit::ClusterAttestation(cluster) => {
                let key = (address.into(), cluster.to_owned());
                turn(&self.cluster_attestation, &key, count).await
            }
            Limit::WholeClusterAttestation(cluster) => {
                let key = cluster.to_owned();
                turn(&self.whole_cluster_attestation, &key, count).await
            }
            Limit::X509Signing => turn(&self.x509_signing, &address, count).await,
            Limit::JwtSigning => turn(&self.jwt_signing, &address, count).await,
            Limit::WitSigning => turn(&self.wit_signing, &address, count).await,
            Limit::Publishing => turn(&self.publishing, &address, count).await,
            Limit::Status => turn(&self.status, &address, count).await,
        }
    }

    fn forget_quiet_addresses(&self) {
        let calls = self
            .calls
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !calls.is_multiple_of(FORGET_EVERY) {
            return;
        }
        self.attestation.retain_recent();
        self.cluster_attestation.retain_recent();
        for limiter in [
            &self.x509_signing,
            &self.jwt_signing,
            &self.wit_signing,
            &self.publishing,
            &self.status,
        ] {
            limiter.retain_recent();
        }
    }
}

async fn turn<K: Clone + std::hash::Hash + Eq>(
    limiter: &Limiter<K>,
    key: &K,
    count: NonZeroU32,
) -> Result<(), Status> {
    let waiting = limiter.until_key_n_ready(key, count);
    match tokio::time::timeout(MAX_WAIT, waiting).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(most)) => {
            let message = format!("rate ({count}) exceeds burst size ({})", most.0);
            Err(Status::resource_exhausted(message))
        }
        Err(_) => Err(Status::resource_exhausted(
            "rate limit: too many calls from this address",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(address: &str) -> Caller {
        Caller::Anonymous {
            address: address.parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn what_could_never_be_done_at_once_is_refused() {
        let limits = RateLimits::default();
        let settings = ServerRateLimit::default();
        let caller = anonymous("127.0.0.1");
        let wait = |limit, count| limits.wait(&settings, limit, &caller, count);
        wait(Limit::X509Signing, 500).await.unwrap();
        let refused = wait(Limit::X509Signing, 501).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.message(), "rate (501) exceeds burst size (500)");
        // Each kind counts for itself.
        wait(Limit::JwtSigning, 500).await.unwrap();
    }

    #[tokio::test]
    async fn addresses_wait_for_themselves_only() {
        let limits = RateLimits::default();
        let settings = ServerRateLimit::default();
        let (one, other) = (anonymous("127.0.0.1"), anonymous("127.0.0.2"));
        let wait = |caller| limits.wait(&settings, Limit::Attestation, caller, 1);
        wait(&one).await.unwrap();
        let second = std::pin::pin!(wait(&one));
        assert!(futures::poll!(second).is_pending());
        wait(&other).await.unwrap();
        wait(&Caller::Local).await.unwrap();
        wait(&Caller::Local).await.unwrap();
    }

    #[tokio::test]
    async fn strangers_of_one_ipv6_subnet_wait_for_each_other_and_agents_do_not() {
        let limits = RateLimits::default();
        let settings = ServerRateLimit::default();
        let [one, other] = ["2001:db8::1", "2001:db8::2"].map(anonymous);
        let wait = |limit, caller, count| {
            let turn = limits.wait(&settings, limit, caller, count);
            futures::FutureExt::now_or_never(turn).is_some_and(|turn| turn.is_ok())
        };
        for (limit, count) in [
            (Limit::Attestation, 1),
            (Limit::ClusterAttestation("one"), 50),
        ] {
            assert!(wait(limit, &one, count));
            assert!(!wait(limit, &other, count), "{limit:?}");
        }
        for limit in [Limit::X509Signing, Limit::JwtSigning, Limit::Publishing] {
            assert!(wait(limit, &one, 500) && wait(limit, &other, 500));
        }
    }

    #[tokio::test]
    async fn addresses_without_a_token_of_the_cluster_use_up_nothing_of_others() {
        let limits = RateLimits::default();
        let settings = ServerRateLimit::default();
        let one = Limit::ClusterAttestation("one");
        let whole = Limit::WholeClusterAttestation("one");
        for last in 1..=8 {
            let stranger = anonymous(&format!("127.0.0.{last}"));
            limits.wait(&settings, one, &stranger, 50).await.unwrap();
        }
        let agent = anonymous("127.0.0.9");
        let agents = usize::try_from(WHOLE_CLUSTER_ATTESTATION).unwrap();
        let at_once = limits.wait(&settings, whole, &agent, agents);
        futures::FutureExt::now_or_never(at_once).unwrap().unwrap();
        let next = limits.wait(&settings, whole, &agent, agents);
        assert!(futures::FutureExt::now_or_never(next).is_none());
    }

    #[tokio::test]
    async fn a_limit_can_be_switched_off() {
        let limits = RateLimits::default();
        let settings = ServerRateLimit {
            attestation: false,
            signing: false,
        };
        let caller = anonymous("127.0.0.1");
        for limit in [Limit::Attestation, Limit::X509Signing, Limit::JwtSigning] {
            limits
                .wait(&settings, limit, &caller, 10_000)
                .await
                .unwrap();
        }
        let always = limits.wait(&settings, Limit::Status, &caller, 10_000).await;
        assert!(always.is_err());
    }
}
