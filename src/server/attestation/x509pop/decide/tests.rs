//! Certificates that are agents' and others, and answers to challenges.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use serde_json::{Value, json};

use super::*;
use crate::domains::{AgentPathTemplate, CaBundle};

const NOW: i64 = 1_800_000_000;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let at = |second| time::OffsetDateTime::from_unix_timestamp(second).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = at(NOW - 60);
    params.not_after = at(NOW + 3600);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn root() -> Ca {
    CertifiedIssuer::self_signed(ca_params("root"), KeyPair::generate().unwrap()).unwrap()
}

fn leaf_params() -> CertificateParams {
    let mut params = params("node-1");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Whatever the certificate is for.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.serial_number = Some(SerialNumber::from(vec![0x0a, 0xbc]));
    params
}

fn leaf(issuer: &Ca, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
    params.signed_by(key, issuer).unwrap().der().clone()
}

/// A leaf under `root` with `key`, verified.
fn verified(root: &Ca, key: &KeyPair) -> Leaf {
    let der = leaf(root, &leaf_params(), key);
    Leaf::verify(&[der], &[root.der().clone()], now()).unwrap()
}

fn trust_domain() -> TrustDomainName {
    "example.org".parse().unwrap()
}

fn template(text: &str) -> X509PopSettings {
    X509PopSettings {
        trust: X509PopTrust::Cas(CaBundle::Inline(Vec::new())),
        path: AgentPathTemplate::parse(text).unwrap(),
    }
}

fn challenge_nonce(challenge: &Challenge, kind: &str) -> Vec<u8> {
    let json: Value = serde_json::from_slice(&challenge.to_json()).unwrap();
    let nonce = json[kind]["nonce"].as_str().unwrap();
    BASE64_STANDARD.decode(nonce).unwrap()
}

/// The answer of who holds `key` to `challenge`, with the `nonce` of the answer.
fn ecdsa_answer(challenge: &Challenge, key: &KeyPair, nonce: &[u8]) -> Value {
    let challenged = challenge_nonce(challenge, "ecdsa_signature");
    let pkcs8 = key.serialize_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
    let signature = key
        .sign(&SystemRandom::new(), &[&challenged, nonce].concat())
        .unwrap();
    let (r, s) = signature.as_ref().split_at(32);
    // Go writes big integers without leading zeros.
    let encode = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        BASE64_STANDARD.encode(&number[zeros..])
    };
    json!({
        "rsa_signature": null,
        "ecdsa_signature": { "nonce": BASE64_STANDARD.encode(nonce), "r": encode(r), "s": encode(s) },
    })
}

#[test]
fn who_holds_an_ecdsa_key_proves_it() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let leaf = verified(&root, &key);
    // Often enough that a number has leading zeros, or none.
    for index in 0..200_u8 {
        let challenge = Challenge::new(&leaf).unwrap();
        let answer = ecdsa_answer(&challenge, &key, &[index; NONCE]);
        challenge
            .check(&leaf, answer.to_string().as_bytes())
            .unwrap();
    }
}

#[test]
fn an_answer_to_another_challenge_or_by_another_key_proves_nothing() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let leaf = verified(&root, &key);
    let (challenge, other) = (
        Challenge::new(&leaf).unwrap(),
        Challenge::new(&leaf).unwrap(),
    );
    let nonce = [7; NONCE];
    let good = ecdsa_answer(&challenge, &key, &nonce);
    let replayed = ecdsa_answer(&other, &key, &nonce);
    let by_another = ecdsa_answer(&challenge, &KeyPair::generate().unwrap(), &nonce);
    let with = |field: &str, value: Value| {
        let mut answer = good.clone();
        answer["ecdsa_signature"][field] = value;
        answer
    };
    let long = BASE64_STANDARD.encode(vec![1; MAX_SIGNATURE + 1]);
    for (answer, code, problem) in [
        (
            replayed,
            Code::PermissionDenied,
            "ECDSA signature verify failed",
        ),
        (
            by_another,
            Code::PermissionDenied,
            "ECDSA signature verify failed",
        ),
        (
            with("r", json!("")),
            Code::PermissionDenied,
            "verify failed",
        ),
        (
            with("s", json!(null)),
            Code::PermissionDenied,
            "verify failed",
        ),
        (with("s", json!(long)), Code::PermissionDenied, "too long"),
        (
            with("nonce", json!("AQ==")),
            Code::PermissionDenied,
            "invalid response nonce",
        ),
        (
            with("nonce", json!("%")),
            Code::InvalidArgument,
            "unable to unmarshal",
        ),
        (
            json!({}),
            Code::PermissionDenied,
            "expecting ECDSA response",
        ),
        (json!([1]), Code::InvalidArgument, "unable to unmarshal"),
        (
            json!({ "rsa_signature": {} }),
            Code::PermissionDenied,
            "expecting ECDSA response",
        ),
    ] {
        let refused = challenge
            .check(&leaf, answer.to_string().as_bytes())
            .unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(problem), "{refused:?}");
    }
    let empty = challenge.check(&leaf, b"").unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    challenge.check(&leaf, good.to_string().as_bytes()).unwrap();
}

#[test]
fn who_holds_an_rsa_key_proves_it() {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let leaf = verified(&root(), &key);
    let challenge = Challenge::new(&leaf).unwrap();
    let challenged = challenge_nonce(&challenge, "rsa_signature");
    let key = RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap();
    let mut signature = vec![0; key.public_modulus_len()];
    let message = [&challenged[..], &[9; NONCE]].concat();
    key.sign(
        &RSA_PSS_SHA256,
        &SystemRandom::new(),
        &message,
        &mut signature,
    )
    .unwrap();
    let answer = |signature: &[u8]| {
        let nonce = BASE64_STANDARD.encode([9; NONCE]);
        let signature = BASE64_STANDARD.encode(signature);
        json!({ "rsa_signature": { "nonce": nonce, "signature": signature } }).to_string()
    };
    challenge
        .check(&leaf, answer(&signature).as_bytes())
        .unwrap();
    signature[0] ^= 1;
    let refused = challenge
        .check(&leaf, answer(&signature).as_bytes())
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[test]
fn the_path_must_lead_to_a_trusted_root() {
    let (root, other) = (root(), root());
    let key = KeyPair::generate().unwrap();
    let below = CertifiedIssuer::signed_by(ca_params("below"), KeyPair::generate().unwrap(), &root);
    let below = below.unwrap();
    let der = leaf(&below, &leaf_params(), &key);
    let chain = [der.clone(), below.der().clone()];
    let roots = [other.der().clone(), root.der().clone()];
    let verified = Leaf::verify(&chain, &roots, now()).unwrap();
    assert_eq!(verified.issuers, [below.der().clone(), root.der().clone()]);

    let late = Timestamp::from_second(NOW + 4000).unwrap();
    let denied = Code::PermissionDenied;
    for (chain, roots, at, code) in [
        (&chain[..1], &roots[..], now(), denied),
        (&chain[..], &roots[..1], now(), denied),
        (&chain[..], &[][..], now(), denied),
        (&chain[..], &roots[..], late, denied),
        (&[][..], &roots[..], now(), Code::InvalidArgument),
        (
            &[vec![1, 2].into()][..],
            &roots[..],
            now(),
            Code::InvalidArgument,
        ),
        (
            &[der, vec![1].into()][..],
            &roots[..],
            now(),
            Code::InvalidArgument,
        ),
    ] {
        let refused = Leaf::verify(chain, roots, at).err().unwrap();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}

#[test]
fn the_certificate_must_be_for_signatures() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let mut params = leaf_params();
    params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    let der = leaf(&root, &params, &key);
    let verified = Leaf::verify(&[der], &[root.der().clone()], now()).unwrap();
    let refused = Challenge::new(&verified).err().unwrap();
    assert_eq!(refused.code(), Code::Internal);
    let expected = "certificate not intended for digital signature use";
    assert!(refused.message().contains(expected), "{refused:?}");
}

#[test]
fn an_agent_is_told_apart_by_its_certificate() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let mut params = leaf_params();
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    params.subject_alt_names = vec![
        uri("x509pop://example.org/rack/7/b"),
        uri("x509pop://example.org/alone"),
        uri("x509pop://other.org/rack/8"),
        uri("https://example.org/rack/9"),
        SanType::DnsName("node-1.example.org".try_into().unwrap()),
    ];
    let organization = DnType::OrganizationName;
    params.distinguished_name.push(organization, "O");
    let der = leaf(&root, &params, &key);
    let verified = Leaf::verify(std::slice::from_ref(&der), &[root.der().clone()], now()).unwrap();
    let default = verified.evidence(&trust_domain(), &template(AgentPathTemplate::DEFAULT));
    let default = default.unwrap();
    let path = format!("/spire/agent/x509pop/{}", fingerprint(&der));
    assert_eq!(default.id.path(), path);
    assert!(default.can_reattest);
    assert_eq!(
        default.selectors,
        [
            "x509pop:subject:cn:node-1".to_owned(),
            format!("x509pop:ca:fingerprint:{}", fingerprint(root.der())),
            "x509pop:serialnumber:0abc".into(),
            "x509pop:san:rack:7/b".into(),
        ]
    );
    let by = |text| verified.evidence(&trust_domain(), &template(text));
    let names = by("/{{ index .DNSNames 0 }}/{{ .Subject.Organization | first | lower }}").unwrap();
    assert_eq!(names.id.path(), "/spire/agent/node-1.example.org/o");
    let path = by("/x/{{ .Subject.CommonName }}/{{ .SerialNumberHex }}").unwrap();
    assert_eq!(path.id.path(), "/spire/agent/x/node-1/0abc");
    let path = by("/{{ .TrustDomain }}/{{ .URISanSelectors.rack }}").unwrap();
    assert_eq!(path.id.path(), "/spire/agent/example.org/7/b");
    let missing = by("/{{ .URISanSelectors.none }}").unwrap_err();
    assert_eq!(missing.code(), Code::Internal);
}

#[test]
fn a_name_in_a_certificate_cannot_lead_to_another_id() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    for name in ["../server", "a b", "..", "", "join_token/a", "k8s_psat/c/n"] {
        let mut params = leaf_params();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let der = leaf(&root, &params, &key);
        let verified = Leaf::verify(&[der], &[root.der().clone()], now()).unwrap();
        let path = template("/{{ .Subject.CommonName }}");
        let refused = verified.evidence(&trust_domain(), &path).unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{name}");
    }
}

#[test]
fn an_svid_with_the_right_path_is_exchanged() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let exchanged = |uris: &[&str], prefix: &str| {
        let mut params = leaf_params();
        let uris = uris.iter();
        let uris = uris.map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names = uris.collect();
        let der = leaf(&root, &params, &key);
        let verified = Leaf::verify(&[der], &[root.der().clone()], now()).unwrap();
        let settings = X509PopSettings {
            trust: X509PopTrust::Svids {
                prefix: prefix.into(),
            },
            path: AgentPathTemplate::parse(AgentPathTemplate::DEFAULT_OF_SVIDS).unwrap(),
        };
        let evidence = verified.evidence(&trust_domain(), &settings);
        let path = evidence.map(|it| it.id.path().to_owned());
        path.map_err(|status| (status.code(), status.message().to_owned()))
    };
    let refused = |problem: &str| {
        let message = format!("nodeattestor(x509pop): {problem}");
        Err((Code::PermissionDenied, message))
    };
    let host = ["spiffe://example.org/spire-exchange/rack/7"];
    let path = |path: &str| Ok(path.to_owned());
    let prefix = "/spire-exchange/";
    assert_eq!(
        exchanged(&host, prefix),
        path("/spire/agent/x509pop/rack/7")
    );
    let everything = path("/spire/agent/x509pop/spire-exchange/rack/7");
    assert_eq!(exchanged(&host, "/"), everything);
    let other = refused("x509 cert doesnt match SVID prefix");
    assert_eq!(exchanged(&host, "/nodes/"), other);
    assert_eq!(
        exchanged(&["spiffe://example.org/spire-exchange"], prefix),
        other
    );
    assert_eq!(
        exchanged(&["spiffe://example.org/spire-exchanged/x"], prefix),
        other
    );
    for uris in [
        &[][..],
        &["https://example.org/spire-exchange/x"],
        &["spiffe://other.org/spire-exchange/x"],
        &["spiffe://example.org/spire-exchange/../x"],
    ] {
        let no_svid = refused("valid SVID x509 cert not found");
        assert_eq!(exchanged(uris, prefix), no_svid, "{uris:?}");
    }
}

#[test]
fn lengths_are_written_as_der_has_them() {
    assert_eq!(tagged(4, &[]), [4, 0]);
    assert_eq!(tagged(4, &[1; 127])[..2], [4, 127]);
    assert_eq!(tagged(4, &[1; 200])[..3], [4, 0x81, 200]);
    assert_eq!(tagged(4, &[1; 300])[..4], [4, 0x82, 1, 44]);
    assert_eq!(
        ecdsa_signature(&[0, 0x80], &[]),
        [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0]
    );
}

proptest! {
    /// No answer but the right one proves anything, and none breaks the server.
    #[test]
    fn no_other_answer_proves_anything(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        nonce in proptest::collection::vec(any::<u8>(), 0..40),
        number in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let key = KeyPair::generate().unwrap();
        let leaf = verified(&root(), &key);
        let challenge = Challenge::new(&leaf).unwrap();
        prop_assert!(challenge.check(&leaf, &bytes).is_err());
        let [nonce, number] = [nonce, number].map(|it| BASE64_STANDARD.encode(it));
        for kind in ["ecdsa_signature", "rsa_signature"] {
            let answer = json!({ kind: {
                "nonce": nonce, "r": number, "s": number, "signature": number,
            } });
            prop_assert!(challenge.check(&leaf, answer.to_string().as_bytes()).is_err());
        }
    }
}
