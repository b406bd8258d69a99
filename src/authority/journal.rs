//! The durable form of a trust domain's CAs: the data of one Secret.
//!
//! `journal.json` is a versioned document with the ledger and the certificates; beside it stands
//! one entry `<fingerprint>.key` for each CA that signs or will. Old CAs keep no key: they never
//! sign again. Data that cannot be read is an error, never an empty journal, for out of an empty
//! one a new root would grow.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{
    AuthorityError, AuthorityOrigin, AuthorityState, CaCertificates, CertificateAuthority, Edition,
    KeyError, Ledger, PrivateKey, Record, Step, SubjectError,
    journal_document::{Document, Entry, Times, record},
};
use crate::{
    api::AuthorityStatus,
    spiffe::{
        Bundle, BundleError, CaCertificateError, Fingerprint, KeyId, PemError, TrustDomainName,
    },
};

/// Key of the Secret with the document.
pub const DOCUMENT: &str = "journal.json";
const KEY_SUFFIX: &str = ".key";
const VERSION: u32 = 1;

/// The CAs of a trust domain with all that is needed to go on with them.
#[derive(Clone, Debug)]
pub struct Journal {
    trust_domain: TrustDomainName,
    ledger: Ledger,
    material: BTreeMap<Fingerprint, Material>,
}

/// What stands behind a record.
#[derive(Clone, Debug)]
enum Material {
    /// A CA that signs or will.
    Signing(Arc<CertificateAuthority>),
    /// A CA that signs no more.
    Retired(Box<CaCertificates>),
}

impl Material {
    fn certificates(&self) -> &CaCertificates {
        match self {
            Self::Signing(ca) => ca.certificates(),
            Self::Retired(certificates) => certificates,
        }
    }
}

impl Journal {
    /// A journal without CAs, for a trust domain that never had any.
    #[must_use]
    pub fn new(trust_domain: TrustDomainName) -> Self {
        Self {
            trust_domain,
            ledger: Ledger::default(),
            material: BTreeMap::new(),
        }
    }

    /// Reads the data of a Secret.
    ///
    /// # Errors
    /// When anything in it is missing, malformed, of another trust domain or of a newer version.
    pub fn from_secret_data(
        trust_domain: &TrustDomainName,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, JournalError> {
        let document = data.get(DOCUMENT).ok_or(JournalError::Missing)?;
        let document: Document =
            serde_json::from_slice(document).map_err(|error| JournalError::Malformed {
                message: error.to_string(),
            })?;
        if document.version != VERSION {
            return Err(JournalError::Version {
                version: document.version,
            });
        }
        if document.trust_domain != *trust_domain {
            return Err(JournalError::OtherTrustDomain {
                found: document.trust_domain,
            });
        }
        let mut journal = Self::new(document.trust_domain);
        for entry in document.authorities {
            let certificates = entry.certificates()?;
            let record = entry.record(&certificates);
            let material = read_material(&record, certificates, data)?;
            if journal
                .material
                .insert(record.fingerprint.clone(), material)
                .is_some()
            {
                return Err(JournalError::Repeated { id: record.key_id });
            }
            journal.ledger.records.push(record);
        }
        journal.ledger.sequence = document.sequence;
        journal.ledger.lineage = document.lineage;
        journal.check_states()?;
        Ok(journal)
    }

    /// The data of the Secret. It holds private keys: write it there and nowhere else.
    #[must_use]
    pub fn to_secret_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data = BTreeMap::new();
        let mut authorities = Vec::new();
        for (record, material) in self.entries() {
            if let Material::Signing(ca) = material {
                data.insert(key_entry(record), ca.key().to_pem().as_bytes().to_vec());
            }
            authorities.push(Entry::of(record, material.certificates()));
        }
        let document = Document {
            version: VERSION,
            trust_domain: self.trust_domain.clone(),
            lineage: self.ledger.lineage.clone(),
            sequence: self.ledger.sequence,
            authorities,
        };
        // Strings and numbers only: this cannot fail.
        let document = serde_json::to_vec_pretty(&document).unwrap_or_default();
        data.insert(DOCUMENT.to_owned(), document);
        data
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// The states of the CAs, for decisions.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Grows with every change of the bundle.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.ledger.sequence
    }

    /// What the bundle is an edition of; none while there is no CA.
    #[must_use]
    pub fn edition(&self) -> Option<Edition> {
        self.ledger.edition()
    }

    /// The CA that signs.
    #[must_use]
    pub fn active(&self) -> Option<&Arc<CertificateAuthority>> {
        match self.material.get(&self.ledger.active()?.fingerprint)? {
            Material::Signing(ca) => Some(ca),
            Material::Retired(_) => None,
        }
    }

    /// The bundle to publish: the roots of all CAs, oldest first.
    ///
    /// # Errors
    /// When a root cannot be in a bundle, which import and creation rule out.
    pub fn bundle(&self) -> Result<Bundle, BundleError> {
        let roots = self
            .entries()
            .map(|(_, material)| material.certificates().root().clone());
        Bundle::new(self.trust_domain.clone(), roots, self.sequence())
    }

    /// The CAs for the TrustDomain's status, newest first.
    #[must_use]
    pub fn status(&self) -> Vec<AuthorityStatus> {
        self.ledger
            .records
            .iter()
            .rev()
            .map(|record| AuthorityStatus {
                id: record.key_id.to_string(),
                state: record.state.as_str().to_owned(),
                not_after: record.not_after.to_string(),
            })
            .collect()
    }

    /// The journal with `ca` to publish.
    #[must_use]
    pub fn with_prepared(
        mut self,
        ca: Arc<CertificateAuthority>,
        origin: AuthorityOrigin,
        now: Timestamp,
    ) -> Self {
        let record = record(
            ca.certificates(),
            origin,
            AuthorityState::Prepared,
            Times {
                prepared: now,
                published: None,
                activated: None,
            },
        );
        self.material
            .insert(record.fingerprint.clone(), Material::Signing(ca));
        self.with_ledger(|ledger| ledger.with_prepared(record))
    }

    /// The journal after a step that needs no new CA, as [`Ledger::after`] has it.
    #[must_use]
    pub fn after(self, step: &Step, now: Timestamp) -> Self {
        self.with_ledger(|ledger| ledger.after(step, now))
    }

    /// The journal with an authority tainted, as [`Ledger::taint`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn taint(self, key_id: &KeyId) -> Result<Self, AuthorityError> {
        let ledger = self.ledger.clone().taint(key_id)?;
        Ok(self.with_ledger(|_| ledger))
    }

    /// The journal with an authority revoked, as [`Ledger::revoke`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn revoke(self, key_id: &KeyId) -> Result<Self, AuthorityError> {
        let ledger = self.ledger.clone().revoke(key_id)?;
        Ok(self.with_ledger(|_| ledger))
    }

    /// Changes the ledger, and drops the keys and certificates that are no longer needed.
    fn with_ledger(self, change: impl FnOnce(Ledger) -> Ledger) -> Self {
        let ledger = change(self.ledger);
        let mut known = self.material;
        let material = ledger
            .records
            .iter()
            .filter_map(|record| {
                let material = match known.remove(&record.fingerprint)? {
                    Material::Signing(ca) if !needs_key(record.state) => {
                        Material::Retired(Box::new(ca.certificates().clone()))
                    }
                    kept => kept,
                };
                Some((record.fingerprint.clone(), material))
            })
            .collect();
        Self {
            trust_domain: self.trust_domain,
            ledger,
            material,
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&Record, &Material)> {
        self.ledger
            .records
            .iter()
            .filter_map(|record| Some((record, self.material.get(&record.fingerprint)?)))
    }

    fn check_states(&self) -> Result<(), JournalError> {
        for state in [AuthorityState::Active, AuthorityState::Prepared] {
            let records = self.ledger.records.iter();
            if records.filter(|record| record.state == state).count() > 1 {
                return Err(JournalError::Several { state });
            }
        }
        Ok(())
    }
}

/// Why the data of a Secret is no journal. The Secret wants repair, or restoring from a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A certificate that is none of a CA.
    #[error("a certificate in {DOCUMENT} cannot be used: {source}")]
    Certificate {
        /// What is wrong with it.
        source: CaCertificateError,
    },
    /// A private key that cannot be used.
    #[error("the private key of the authority {id} cannot be used: {source}")]
    Key {
        /// The authority.
        id: KeyId,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A private key that is not the certificate's.
    #[error("the private key beside the authority {id} is not its own")]
    KeyMismatch {
        /// The authority.
        id: KeyId,
    },
    /// No JSON of the expected form.
    #[error("{DOCUMENT} is malformed: {message}")]
    Malformed {
        /// What is wrong with it.
        message: String,
    },
    /// No document.
    #[error("the Secret has no {DOCUMENT}")]
    Missing,
    /// No private key where there must be one.
    #[error("the Secret lacks the private key of the authority {id}")]
    MissingKey {
        /// The authority.
        id: KeyId,
    },
    /// The journal of another trust domain.
    #[error("the Secret is that of the trust domain {found}")]
    OtherTrustDomain {
        /// The other one.
        found: TrustDomainName,
    },
    /// Certificates that cannot be read.
    #[error("certificates in {DOCUMENT}: {source}")]
    Pem {
        /// What is wrong with them.
        source: PemError,
    },
    /// The same certificate twice.
    #[error("the authority {id} is in {DOCUMENT} twice")]
    Repeated {
        /// The authority.
        id: KeyId,
    },
    /// Several CAs in a state that only one can have.
    #[error("more than one authority is {}", state.as_str())]
    Several {
        /// The state.
        state: AuthorityState,
    },
    /// A CA that cannot sign because of its subject.
    #[error("the authority {id} cannot sign: {source}")]
    Subject {
        /// The authority.
        id: KeyId,
        /// Why.
        source: SubjectError,
    },
    /// Written by a newer operator.
    #[error("{DOCUMENT} has version {version}; this operator knows version {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
}

fn read_material(
    record: &Record,
    certificates: CaCertificates,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<Material, JournalError> {
    if !needs_key(record.state) {
        return Ok(Material::Retired(Box::new(certificates)));
    }
    let id = || record.key_id.clone();
    let Some(pem) = data.get(&key_entry(record)) else {
        return Err(JournalError::MissingKey { id: id() });
    };
    let key = PrivateKey::from_pem(pem).map_err(|source| JournalError::Key { id: id(), source })?;
    if key.public_key() != certificates.certificate().public_key() {
        return Err(JournalError::KeyMismatch { id: id() });
    }
    let ca = CertificateAuthority::new(certificates, key)
        .map_err(|source| JournalError::Subject { id: id(), source })?;
    Ok(Material::Signing(Arc::new(ca)))
}

fn needs_key(state: AuthorityState) -> bool {
    matches!(state, AuthorityState::Prepared | AuthorityState::Active)
}

fn key_entry(record: &Record) -> String {
    format!("{}{KEY_SUFFIX}", record.fingerprint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::{CaKeyType, CaSubject},
        authority::{
            Authority, AuthoritySettings, PROPAGATION, RotationPolicy, SvidRequest, advance,
            fixtures::{ca_params, issued_by, now, root, secret, trust_domain},
        },
        spiffe::verify_x509_svid,
    };

    fn settings(origin: AuthorityOrigin) -> AuthoritySettings {
        AuthoritySettings {
            policy: RotationPolicy {
                origin,
                propagation: PROPAGATION,
            },
            key_type: CaKeyType::EcP256,
            ca_ttl: SignedDuration::from_hours(168),
            subject: CaSubject::default(),
        }
    }

    fn later(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    /// Written, and read again by another process.
    fn restarted(journal: &Journal) -> Journal {
        Journal::from_secret_data(&trust_domain(), &journal.to_secret_data()).unwrap()
    }

    fn published(journal: &Journal) -> BTreeSet<Fingerprint> {
        journal.bundle().unwrap().fingerprints().collect()
    }

    /// One pass of a controller that then publishes.
    fn pass(
        journal: &Journal,
        origin: AuthorityOrigin,
        candidate: Option<&Arc<CertificateAuthority>>,
        at: Timestamp,
    ) -> Journal {
        let done = advance(
            journal,
            &settings(origin),
            &published(journal),
            candidate,
            at,
        );
        done.unwrap()
            .map_or_else(|| journal.clone(), |advance| restarted(&advance.journal))
    }

    fn own(journal: &Journal, at: Timestamp) -> Journal {
        pass(journal, AuthorityOrigin::SelfSigned, None, at)
    }

    fn states(journal: &Journal) -> Vec<&'static str> {
        let records = journal.ledger().records().iter();
        records.map(|record| record.state.as_str()).collect()
    }

    fn active() -> Journal {
        own(&own(&Journal::new(trust_domain()), now()), now())
    }

    fn assert_signs(journal: &Journal, at: Timestamp) {
        let authority = Authority::from_journal(journal).unwrap().unwrap();
        let id = "spiffe://example.org/ns/a/sa/b".parse().unwrap();
        let signed = authority.ca().sign(&SvidRequest {
            id: &id,
            dns_names: &[],
            public_key: authority.ca().key().public_key(),
            not_before: at,
            not_after: at + SignedDuration::from_hours(1),
        });
        let chain = signed.unwrap().chain;
        assert_eq!(verify_x509_svid(&chain, authority.bundle(), at), Ok(id));
    }

    #[test]
    fn survives_a_restart_at_every_step_of_its_life() {
        let journal = Journal::new(trust_domain());
        assert!(Authority::from_journal(&journal).unwrap().is_none());
        let journal = own(&journal, now());
        assert_eq!(states(&journal), ["prepared"]);
        assert!(journal.active().is_none());
        let journal = own(&journal, now());
        assert_eq!(states(&journal), ["active"]);
        assert_signs(&journal, now());
        let journal = own(&journal, later(85));
        assert_eq!(states(&journal), ["active", "prepared"]);
        let journal = own(&own(&journal, later(85)), later(141));
        assert_eq!(states(&journal), ["old", "active"]);
        assert_signs(&journal, later(141));
        let sequence = journal.sequence();
        let journal = own(&journal, later(168 + 25));
        assert_eq!(states(&journal), ["active", "prepared"]);
        assert!(journal.sequence() > sequence);
    }

    #[test]
    fn old_authorities_keep_no_key() {
        let keys = |journal: &Journal| {
            let data = journal.to_secret_data();
            data.keys().filter(|key| key.ends_with(KEY_SUFFIX)).count()
        };
        let journal = own(&own(&active(), later(85)), later(85));
        assert_eq!(keys(&journal), 2);
        let journal = own(&journal, later(141));
        assert_eq!(states(&journal), ["old", "active"]);
        assert_eq!(keys(&journal), 1);
    }

    #[test]
    fn a_changed_secret_takes_over_and_back_again() {
        let import = |name| {
            let top = root(ca_params(name));
            let ca = issued_by(&top, ca_params("ca"));
            let data = secret(&[&ca], ca.key(), &[&top]);
            Arc::new(CertificateAuthority::import(&data, &trust_domain(), now()).unwrap())
        };
        let [first, second] = ["first", "second"].map(import);
        let pass = |journal: &Journal, ca, minutes| {
            let at = now() + SignedDuration::from_mins(minutes);
            pass(journal, AuthorityOrigin::Imported, Some(ca), at)
        };
        let signer = |journal: &Journal| {
            let active = journal.active().unwrap();
            active.certificates().fingerprint().clone()
        };
        let fingerprint = |ca: &CertificateAuthority| ca.certificates().fingerprint().clone();
        let journal = pass(&Journal::new(trust_domain()), &first, 0);
        let journal = pass(&journal, &first, 0);
        assert_eq!(signer(&journal), fingerprint(&first));
        assert_signs(&journal, now());
        let journal = pass(&pass(&journal, &second, 1), &second, 1);
        assert_eq!(signer(&journal), fingerprint(&first));
        let journal = pass(&journal, &second, 6);
        assert_eq!(signer(&journal), fingerprint(&second));
        assert_eq!(journal.bundle().unwrap().roots().count(), 2);
        assert_signs(&journal, now());
        let journal = pass(&pass(&journal, &first, 7), &first, 7);
        let journal = pass(&journal, &first, 12);
        assert_eq!(signer(&journal), fingerprint(&first));
        assert_eq!(states(&journal), ["old", "active"]);
        assert_signs(&journal, now());
    }

    #[test]
    fn status_lists_the_newest_first() {
        let journal = own(&active(), later(85));
        let status = journal.status();
        let words: Vec<_> = status.iter().map(|a| a.state.as_str()).collect();
        assert_eq!(words, ["prepared", "active"]);
        assert_eq!(status[1].not_after, later(168).to_string());
        assert_eq!(status[1].id.len(), 40);
    }

    #[test]
    fn taints_and_revokes_old_authorities_only() {
        let journal = own(&own(&own(&active(), later(85)), later(85)), later(141));
        let ids: Vec<_> = journal
            .ledger()
            .records()
            .iter()
            .map(|r| r.key_id.clone())
            .collect();
        let refused = journal.clone().taint(&ids[1]).unwrap_err();
        assert_eq!(refused, AuthorityError::StillSigns);
        let journal = restarted(&journal.taint(&ids[0]).unwrap());
        assert_eq!(states(&journal), ["tainted", "active"]);
        let journal = restarted(&journal.revoke(&ids[0]).unwrap());
        assert_eq!(journal.bundle().unwrap().roots().count(), 1);
    }

    #[test]
    fn nothing_is_due_twice() {
        let journal = active();
        let settings = settings(AuthorityOrigin::SelfSigned);
        let again = advance(&journal, &settings, &published(&journal), None, now());
        assert!(again.unwrap().is_none());
    }

    fn read(data: &BTreeMap<String, Vec<u8>>) -> JournalError {
        Journal::from_secret_data(&trust_domain(), data).unwrap_err()
    }

    /// The data of a journal with its document changed.
    fn with_document(change: impl FnOnce(&mut serde_json::Value)) -> BTreeMap<String, Vec<u8>> {
        let mut data = active().to_secret_data();
        let mut document = serde_json::from_slice(&data[DOCUMENT]).unwrap();
        change(&mut document);
        data.insert(DOCUMENT.to_owned(), document.to_string().into_bytes());
        data
    }

    #[test]
    fn refuses_a_damaged_document() {
        assert_eq!(read(&BTreeMap::new()), JournalError::Missing);
        for text in ["", "{}", "[1]", "{\"version\":1}"] {
            let data = BTreeMap::from([(DOCUMENT.to_owned(), text.as_bytes().to_vec())]);
            assert!(
                matches!(read(&data), JournalError::Malformed { .. }),
                "{text}"
            );
        }
        let data = with_document(|document| document["version"] = 2.into());
        assert_eq!(read(&data), JournalError::Version { version: 2 });
        let data = with_document(|document| document["trustDomain"] = "other.org".into());
        let found = "other.org".parse().unwrap();
        assert_eq!(read(&data), JournalError::OtherTrustDomain { found });
        let data = with_document(|document| {
            document["authorities"][0]["certificates"] = "none".into();
        });
        let source = PemError::NoCertificate;
        assert_eq!(read(&data), JournalError::Pem { source });
        let data = with_document(|document| {
            let der = crate::spiffe::pem::encode("CERTIFICATE", &[1, 2, 3]);
            document["authorities"][0]["certificates"] = der.into();
        });
        let source = CaCertificateError::Malformed;
        assert_eq!(read(&data), JournalError::Certificate { source });
        let data = with_document(|document| {
            let authorities = document["authorities"].as_array_mut().unwrap();
            authorities.push(authorities[0].clone());
        });
        assert!(matches!(read(&data), JournalError::Repeated { .. }));
    }

    #[test]
    fn refuses_two_active_authorities() {
        let mut data = own(&active(), later(85)).to_secret_data();
        let document = String::from_utf8(data[DOCUMENT].clone()).unwrap();
        let document = document.replace("\"prepared\"", "\"active\"");
        data.insert(DOCUMENT.to_owned(), document.into_bytes());
        let state = AuthorityState::Active;
        assert_eq!(read(&data), JournalError::Several { state });
    }

    #[test]
    fn refuses_missing_and_wrong_keys() {
        let data = active().to_secret_data();
        let entry = data.keys().find(|key| key.ends_with(KEY_SUFFIX)).unwrap();
        let mut missing = data.clone();
        missing.remove(entry);
        assert!(matches!(read(&missing), JournalError::MissingKey { .. }));
        let other = PrivateKey::generate(CaKeyType::EcP256).unwrap();
        for (key, wrong) in [
            (b"garbage".to_vec(), false),
            (other.to_pem().as_bytes().to_vec(), true),
        ] {
            let mut data = data.clone();
            data.insert(entry.clone(), key);
            let error = read(&data);
            assert_eq!(matches!(error, JournalError::KeyMismatch { .. }), wrong);
            assert_eq!(matches!(error, JournalError::Key { .. }), !wrong);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let journal = active();
        let pem = journal.active().unwrap().key().to_pem();
        let secret = pem.lines().nth(1).unwrap();
        assert!(!format!("{journal:?}").contains(secret));
        let document = &journal.to_secret_data()[DOCUMENT];
        assert!(!String::from_utf8_lossy(document).contains(secret));
    }

    #[test]
    fn a_ca_ends_with_the_first_certificate_above_it_also_after_a_restart() {
        let mut params = ca_params("root");
        let end = later(3);
        params.not_after = time::OffsetDateTime::from_unix_timestamp(end.as_second()).unwrap();
        let top = root(params);
        let ca = issued_by(&top, ca_params("ca"));
        let data = secret(&[&ca], ca.key(), &[&top]);
        let ca = Arc::new(CertificateAuthority::import(&data, &trust_domain(), now()).unwrap());
        let origin = AuthorityOrigin::Imported;
        let journal = pass(&Journal::new(trust_domain()), origin, Some(&ca), now());
        let journal = pass(&journal, origin, Some(&ca), now());
        assert_eq!(journal.ledger().active().unwrap().not_after, end);
        assert_eq!(journal.active().unwrap().not_after(), end);
        assert_eq!(journal.status()[0].not_after, end.to_string());
    }

    #[test]
    fn the_same_ca_under_another_root_is_a_rotation() {
        let top = root(ca_params("root"));
        let again = rcgen::KeyPair::from_pem(&top.key().serialize_pem()).unwrap();
        let mut params = ca_params("root");
        params.not_after += time::Duration::days(365);
        let renewed = rcgen::CertifiedIssuer::self_signed(params, again).unwrap();
        let ca = issued_by(&top, ca_params("ca"));
        let import = |root| {
            let data = secret(&[&ca], ca.key(), &[root]);
            Arc::new(CertificateAuthority::import(&data, &trust_domain(), now()).unwrap())
        };
        let (first, second) = (import(&top), import(&renewed));
        let pass = |journal: &Journal, ca, minutes| {
            let at = now() + SignedDuration::from_mins(minutes);
            pass(journal, AuthorityOrigin::Imported, Some(ca), at)
        };
        let journal = pass(&pass(&Journal::new(trust_domain()), &first, 0), &first, 0);
        let journal = pass(&pass(&journal, &second, 1), &second, 1);
        assert_eq!(states(&journal), ["active", "prepared"]);
        let journal = pass(&journal, &second, 6);
        assert_eq!(states(&journal), ["old", "active"]);
        assert_eq!(
            journal.active().unwrap().certificates().root(),
            renewed.der()
        );
        assert_eq!(journal.bundle().unwrap().roots().count(), 2);
        assert_signs(&journal, now());
    }

    #[test]
    fn a_bundle_is_never_replaced_by_an_earlier_one_of_its_lineage() {
        let first = active();
        let second = own(&first, later(85));
        let (earlier, later) = (first.edition().unwrap(), second.edition().unwrap());
        assert_eq!(earlier.lineage, later.lineage);
        assert!(later.may_replace(&earlier) && later.may_replace(&later));
        assert!(!earlier.may_replace(&later));
        // Who lost everything begins anew.
        assert!(active().edition().unwrap().may_replace(&later));
        assert_eq!(restarted(&second).edition().unwrap(), later);
        assert_eq!(Journal::new(trust_domain()).edition(), None);
    }
}
