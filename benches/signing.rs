//! How fast X.509-SVIDs are signed, verification of the pod's request included. The target is
//! 10,000 a second and core under a P-256 CA. Times are CPU times.

#![expect(
    clippy::expect_used,
    reason = "a benchmark without its inputs is of no use"
)]

#[path = "support/cpu_time.rs"]
mod cpu_time;

use cpu_time::CpuTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use spiffe_operator::{
    api::{CaKeyType, CaSubject},
    authority::{CertificateAuthority, PrivateKey, SvidRequest},
    spiffe::{RequestedKey, SpiffeId},
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time in range")
}

fn authority(key_type: CaKeyType) -> CertificateAuthority {
    let key = PrivateKey::generate(key_type).expect("a key");
    CertificateAuthority::self_signed(
        &"example.org".parse().expect("a trust domain"),
        &CaSubject::default(),
        key,
        now(),
        now() + SignedDuration::from_hours(168),
    )
    .expect("a CA")
}

/// The request of a kubelet for a P-256 key: empty but for the key.
fn request() -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = params.serialize_request(&key).expect("a request");
    request.der().to_vec()
}

fn sign(ca: &CertificateAuthority, id: &SpiffeId, request: &[u8]) -> usize {
    let key = RequestedKey::from_pkcs10(request).expect("a request");
    let signed = ca
        .sign(&SvidRequest {
            id,
            dns_names: &[],
            public_key: key.public_key(),
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(6),
        })
        .expect("an SVID");
    signed.to_pem().len()
}

fn bench(criterion: &mut Criterion<CpuTime>) {
    let id: SpiffeId = "spiffe://example.org/ns/default/sa/web"
        .parse()
        .expect("an ID");
    let request = request();
    let mut group = criterion.benchmark_group("signing");
    group.throughput(Throughput::Elements(1));
    group.bench_function("verify request", |bencher| {
        bencher.iter(|| RequestedKey::from_pkcs10(&request));
    });
    for (name, key_type) in [
        ("ec-p256", CaKeyType::EcP256),
        ("ec-p384", CaKeyType::EcP384),
        ("rsa-2048", CaKeyType::Rsa2048),
    ] {
        let ca = authority(key_type);
        group.bench_function(format!("verify request and sign, {name}"), |bencher| {
            bencher.iter(|| sign(&ca, &id, &request));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = cpu_time::criterion();
    targets = bench
}
criterion_main!(benches);
