//! What we sign, judged by others: OpenSSL's command line and go-spiffe. And what OpenSSL makes
//! (CAs, requests), taken by us.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use spiffe_operator::{
    api::{CaKeyType, CaSubject, JwtKeyType},
    authority::{
        CertificateAuthority, DownstreamCaRequest, ImportError, JwtAuthority, JwtSvidRequest,
        PrivateKey, SignedSvid, SvidRequest,
    },
    spiffe::{
        Bundle, JwtKey, RequestedKey, SpiffeId, TrustDomainName, pem, verify_jwt_svid,
        verify_x509_svid,
    },
};
use tempfile::TempDir;

const ID: &str = "spiffe://example.org/ns/default/sa/web";
const KEY_TYPES: [CaKeyType; 4] = [
    CaKeyType::EcP256,
    CaKeyType::EcP384,
    CaKeyType::Rsa2048,
    CaKeyType::Rsa4096,
];

/// A folder with the files that a verifier reads.
struct Case {
    folder: TempDir,
    ca: CertificateAuthority,
    signed: SignedSvid,
}

impl Case {
    fn new(ca: CertificateAuthority) -> Result<Self> {
        let signed = sign(&ca, PrivateKey::generate(CaKeyType::EcP256)?.public_key())?;
        let folder = tempfile::tempdir()?;
        let write = |name, text| fs::write(folder.path().join(name), text);
        write("bundle.pem", bundle(&ca)?.to_pem())?;
        write("chain.pem", signed.to_pem())?;
        let (leaf, intermediates) = signed.chain.split_first().context("an empty chain")?;
        write("leaf.pem", pem::encode("CERTIFICATE", leaf))?;
        write("intermediates.pem", pem::encode_certificates(intermediates))?;
        Ok(Self { folder, ca, signed })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, file: &str) -> Result<String> {
        openssl(self.folder.path(), &format!("x509 -in {file} -noout -text"))
    }

    /// For both purposes, and by the letter of RFC 5280.
    fn assert_openssl_verifies(&self) -> Result<()> {
        let untrusted = match self.signed.chain.len() {
            1 => "",
            _ => "-untrusted intermediates.pem",
        };
        for purpose in ["sslserver", "sslclient"] {
            let verified = openssl(
                self.folder.path(),
                &format!(
                    "verify -x509_strict -purpose {purpose} -CAfile bundle.pem {untrusted} leaf.pem"
                ),
            )?;
            ensure!(verified.trim() == "leaf.pem: OK", "{verified}");
        }
        Ok(())
    }

    fn assert_we_verify(&self) -> Result<()> {
        let id = verify_x509_svid(&self.signed.chain, &bundle(&self.ca)?, Timestamp::now())?;
        ensure!(id.as_str() == ID);
        Ok(())
    }
}

fn trust_domain() -> Result<TrustDomainName> {
    Ok("example.org".parse()?)
}

fn bundle(ca: &CertificateAuthority) -> Result<Bundle> {
    let root = ca.certificates().root().clone();
    Ok(Bundle::new(trust_domain()?, [root], 1)?)
}

fn sign(
    ca: &CertificateAuthority,
    public_key: &spiffe_operator::spiffe::PublicKey,
) -> Result<SignedSvid> {
    let id: SpiffeId = ID.parse()?;
    let now = Timestamp::now();
    Ok(ca.sign(&SvidRequest {
        id: &id,
        dns_names: &["web.default.svc".to_owned(), "web".to_owned()],
        public_key,
        not_before: now - SignedDuration::from_secs(10),
        not_after: now + SignedDuration::from_hours(1),
    })?)
}

fn self_signed(key_type: CaKeyType, subject: &CaSubject) -> Result<CertificateAuthority> {
    let now = Timestamp::now();
    Ok(CertificateAuthority::self_signed(
        &trust_domain()?,
        subject,
        PrivateKey::generate(key_type)?,
        now - SignedDuration::from_secs(10),
        now + SignedDuration::from_hours(168),
    )?)
}

/// Runs openssl with `arguments`, parted at blanks, in `folder`.
fn openssl(folder: &Path, arguments: &str) -> Result<String> {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .context("openssl does not run; install it (Debian: apt-get install openssl)")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "openssl {arguments}: {stdout}{stderr}"
    );
    Ok(stdout)
}

/// A root and an intermediate CA named `subject` by OpenSSL, as the data of a Secret.
fn openssl_ca(key: &str, subject: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    fs::write(
        path.join("ca.cnf"),
        "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n\
         [dn]\n[req]\ndistinguished_name=dn\n",
    )?;
    let request = format!("req -config ca.cnf -newkey {key} -nodes");
    let extensions = "-extensions ca";
    for command in [
        format!(
            "{request} -x509 {extensions} -days 30 -subj /O=Root -keyout root.key -out root.pem"
        ),
        format!("{request} -subj {subject} -keyout ca.key -out ca.csr"),
        format!(
            "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 \
             -extfile ca.cnf {extensions} -out ca.pem"
        ),
    ] {
        openssl(path, &command)?;
    }
    [
        ("tls.crt", "ca.pem"),
        ("tls.key", "ca.key"),
        ("ca.crt", "root.pem"),
    ]
    .into_iter()
    .map(|(entry, file)| Ok((entry.to_owned(), fs::read(path.join(file))?)))
    .collect()
}

fn import(key: &str, subject: &str) -> Result<Result<CertificateAuthority, ImportError>> {
    let data = openssl_ca(key, subject)?;
    let now = Timestamp::now();
    Ok(CertificateAuthority::import(&data, &trust_domain()?, now))
}

fn imported(key: &str) -> Result<CertificateAuthority> {
    Ok(import(
        key,
        "/C=CH/O=Zürich_1/OU=Unit/CN=CA/serialNumber=1/DC=org",
    )??)
}

#[test]
fn openssl_verifies_svids_of_every_key_type() -> Result<()> {
    for key_type in KEY_TYPES {
        let case = Case::new(self_signed(key_type, &CaSubject::default())?)?;
        case.assert_openssl_verifies()?;
        case.assert_we_verify()?;
    }
    Ok(())
}

#[test]
fn openssl_verifies_svids_under_its_own_cas() -> Result<()> {
    for key in [
        "rsa:2048",
        "ec -pkeyopt ec_paramgen_curve:P-256",
        "ec -pkeyopt ec_paramgen_curve:P-384",
        "ec -pkeyopt ec_paramgen_curve:P-521",
    ] {
        let case = Case::new(imported(key).context(key)?)?;
        ensure!(case.signed.chain.len() == 2, "leaf and intermediate");
        case.assert_openssl_verifies().context(key)?;
        case.assert_we_verify().context(key)?;
    }
    Ok(())
}

#[test]
fn cas_whose_subject_cannot_be_copied_are_refused() -> Result<()> {
    let key = "ec -pkeyopt ec_paramgen_curve:P-256";
    for (subject, shown) in [
        ("/O=One+O=Two/CN=CA", "O=One + O=Two, CN=CA"),
        ("/OU=Unit+CN=CA", "CN=CA + OU=Unit"),
        ("/DC=org/DC=example/CN=CA", "DC=org, DC=example, CN=CA"),
        ("/OU=One/OU=Two/CN=CA", "OU=One, OU=Two, CN=CA"),
    ] {
        match import(key, subject)? {
            Err(error @ ImportError::Subject { .. }) => {
                let message = error.to_string();
                ensure!(
                    message.contains(shown) && message.contains("reissue the CA"),
                    "{message}"
                );
            }
            other => anyhow::bail!("{subject}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn openssl_reads_the_profile_of_a_leaf() -> Result<()> {
    let case = Case::new(self_signed(CaKeyType::EcP256, &CaSubject::default())?)?;
    let text = case.text("leaf.pem")?;
    for expected in [
        "Version: 3",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Subject: C = US, O = SPIRE, CN = web.default.svc",
        "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment, Key Agreement\n",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Alternative Name: \n                DNS:web.default.svc, DNS:web, URI:spiffe://example.org/ns/default/sa/web\n",
    ] {
        ensure!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn openssl_reads_the_profile_of_a_root() -> Result<()> {
    let subject = CaSubject {
        country: vec!["CH".into()],
        organization: vec!["SPIFFE".into()],
        common_name: None,
    };
    let case = Case::new(self_signed(CaKeyType::EcP384, &subject)?)?;
    let text = case.text("bundle.pem")?;
    for expected in [
        "Signature Algorithm: ecdsa-with-SHA384",
        "Subject: C = CH, O = SPIFFE, serialNumber = ",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
        "X509v3 Subject Key Identifier",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://example.org\n",
    ] {
        ensure!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    for unexpected in ["Authority Key Identifier", "Extended Key Usage", "pathlen"] {
        ensure!(!text.contains(unexpected), "{unexpected:?} is in\n{text}");
    }
    case.assert_openssl_verifies()
}

#[test]
fn requests_made_by_openssl_are_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    fs::write(
        path.join("empty.cnf"),
        "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\n",
    )?;
    let ca = self_signed(CaKeyType::EcP256, &CaSubject::default())?;
    for key in [
        "rsa:3072",
        "rsa:4096",
        "ec -pkeyopt ec_paramgen_curve:P-256",
        "ec -pkeyopt ec_paramgen_curve:P-384",
        "ec -pkeyopt ec_paramgen_curve:P-521",
        "ed25519",
    ] {
        let new = format!("req -config empty.cnf -subj / -newkey {key} -nodes -keyout pod.key");
        openssl(path, &format!("{new} -outform DER -out pod.csr"))?;
        let requested = RequestedKey::from_pkcs10(&fs::read(path.join("pod.csr"))?).context(key)?;
        let signed = sign(&ca, requested.public_key())?;
        fs::write(path.join("chain.pem"), signed.to_pem())?;
        let public = openssl(path, "pkey -in pod.key -pubout")?;
        let certified = openssl(path, "x509 -in chain.pem -noout -pubkey")?;
        ensure!(public == certified, "{key}");
    }
    Ok(())
}

#[test]
fn openssl_refuses_svids_of_another_authority() -> Result<()> {
    let case = Case::new(self_signed(CaKeyType::EcP256, &CaSubject::default())?)?;
    let other = self_signed(CaKeyType::EcP256, &CaSubject::default())?;
    fs::write(case.file("bundle.pem"), bundle(&other)?.to_pem())?;
    ensure!(case.assert_openssl_verifies().is_err());
    let roots = CertificateDer::pem_slice_iter(&fs::read(case.file("bundle.pem"))?).count();
    ensure!(roots == 1);
    Ok(())
}

/// The path of the test workload, which is built on go-spiffe.
fn workload() -> Result<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "make test says where it built the workload"
    )]
    std::env::var("SPIFFE_WORKLOAD")
        .context("SPIFFE_WORKLOAD is not set; run the tests by `make test`")
}

#[test]
fn go_spiffe_verifies_svids() -> Result<()> {
    for key_type in KEY_TYPES {
        let case = Case::new(self_signed(key_type, &CaSubject::default())?)?;
        assert_go_spiffe_verifies(&case)?;
    }
    for key in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-384"] {
        assert_go_spiffe_verifies(&Case::new(imported(key)?)?)?;
    }
    Ok(())
}

/// `bundle` is a SPIFFE bundle document.
fn go_spiffe_judges_token(bundle: &Path, audience: &str, token: &str) -> Result<(bool, String)> {
    let output = Command::new(workload()?)
        .args(["verify-jwt", "--trust-domain", trust_domain()?.as_str()])
        .args(["--audience", audience])
        .arg(bundle)
        .arg(token)
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

#[test]
fn go_spiffe_verifies_jwt_svids() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bundle.json");
    let now = Timestamp::now();
    let root = bundle(&self_signed(CaKeyType::EcP256, &CaSubject::default())?)?;
    let key_types = [JwtKeyType::EcP256, JwtKeyType::EcP384, JwtKeyType::Rsa2048];
    let expires_at = now + SignedDuration::from_hours(1);
    let authorities = key_types
        .into_iter()
        .map(|key_type| JwtAuthority::generate(key_type, expires_at))
        .collect::<Result<Vec<_>, _>>()?;
    let keys = authorities.iter().map(|authority| JwtKey {
        key_id: authority.key_id().to_owned(),
        public_key: authority.key().public_key().clone(),
        expires_at: Some(expires_at),
        tainted: false,
    });
    let bundle = root.with_jwt_keys(keys);
    fs::write(&path, bundle.to_document())?;
    let id: SpiffeId = ID.parse()?;
    for authority in &authorities {
        let signed = authority.sign(&JwtSvidRequest {
            id: &id,
            audience: &["db".to_owned(), "cache".to_owned()],
            issuer: Some("https://id.example.org"),
            issued_at: now,
            ttl: SignedDuration::from_mins(5),
            with_jti: true,
        })?;
        let (verified, said) = go_spiffe_judges_token(&path, "cache", &signed.token)?;
        ensure!(
            verified && said.contains(ID),
            "{:?}: {said}",
            authority.algorithm()
        );
        let (verified, said) = go_spiffe_judges_token(&path, "other", &signed.token)?;
        ensure!(!verified && said.contains("audience"), "{said}");
        let ours = verify_jwt_svid(&signed.token, &bundle, "cache", now)?;
        ensure!(ours.id == id);
    }
    Ok(())
}

/// A CA of a server below `above`.
fn downstream(above: &CertificateAuthority) -> Result<CertificateAuthority> {
    let key = PrivateKey::generate(CaKeyType::EcP256)?;
    let now = Timestamp::now();
    let signed = above.sign_downstream_ca(&DownstreamCaRequest {
        trust_domain: &trust_domain()?,
        public_key: key.public_key(),
        not_before: now - SignedDuration::from_secs(10),
        not_after: now + SignedDuration::from_hours(24),
    })?;
    let data = [
        ("tls.crt", pem::encode_certificates(&signed.chain)),
        ("tls.key", key.to_pem().to_string()),
        (
            "ca.crt",
            pem::encode("CERTIFICATE", above.certificates().root()),
        ),
    ];
    let data = data.map(|(entry, text)| (entry.to_owned(), text.into_bytes()));
    Ok(CertificateAuthority::import(
        &data.into(),
        &trust_domain()?,
        now,
    )?)
}

#[test]
fn others_verify_what_servers_below_sign() -> Result<()> {
    let top = self_signed(CaKeyType::EcP384, &CaSubject::default())?;
    let (first, imported) = (downstream(&top)?, imported("rsa:2048")?);
    let (second, under_imported) = (downstream(&first)?, downstream(&imported)?);
    for (ca, length) in [(first, 2), (second, 3), (under_imported, 3)] {
        let case = Case::new(ca)?;
        ensure!(case.signed.chain.len() == length);
        case.assert_openssl_verifies()?;
        case.assert_we_verify()?;
        assert_go_spiffe_verifies(&case)?;
    }
    Ok(())
}

fn assert_go_spiffe_verifies(case: &Case) -> Result<()> {
    let output = Command::new(workload()?)
        .args(["verify", "--trust-domain", trust_domain()?.as_str()])
        .args([case.file("bundle.pem"), case.file("chain.pem")])
        .output()
        .context("what SPIFFE_WORKLOAD names does not run")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go-spiffe: {stdout}{stderr}");
    ensure!(
        stdout.contains(ID),
        "go-spiffe read another identity: {stdout}"
    );
    Ok(())
}
