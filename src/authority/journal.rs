//! The authorities of a trust domain, CAs and JWT keys, with all that is needed to go on with them.
//! How they are kept in a Secret is in [`super::journal_secret`].

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{
    Appended, AuthorityOrigin, AuthorityState, CaCertificates, CertificateAuthority, Edition,
    JwtAuthority, Ledger, Record, Step, UpstreamBundle, UpstreamBundleError,
    journal_document::{Times, ca_record, jwt_record},
    slots::{Material, Signing, Slots},
};
use crate::{
    api::AuthorityStatus,
    spiffe::{Bundle, BundleError, Fingerprint, JwtKey, PublicKey, TrustDomainName},
};

/// The authorities of a trust domain.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(super) trust_domain: TrustDomainName,
    pub(super) cas: Slots<CertificateAuthority>,
    pub(super) jwt_keys: Slots<JwtAuthority>,
    pub(super) appended: Appended,
    pub(super) upstream: UpstreamBundle,
}

impl Signing for CertificateAuthority {
    type Public = Box<CaCertificates>;

    fn public(&self) -> Self::Public {
        Box::new(self.certificates().clone())
    }
}

impl Material<CertificateAuthority> {
    pub(super) fn certificates(&self) -> &CaCertificates {
        match self {
            Self::Signing(ca) => ca.certificates(),
            Self::Retired(certificates) => certificates,
        }
    }
}

impl Signing for JwtAuthority {
    type Public = PublicKey;

    fn public(&self) -> Self::Public {
        self.key().public_key().clone()
    }
}

impl Material<JwtAuthority> {
    pub(super) fn public_key(&self) -> &PublicKey {
        match self {
            Self::Signing(authority) => authority.key().public_key(),
            Self::Retired(public_key) => public_key,
        }
    }
}

impl Journal {
    /// A journal without authorities, for a trust domain that never had any.
    #[must_use]
    pub fn new(trust_domain: TrustDomainName) -> Self {
        Self {
            trust_domain,
            cas: Slots::default(),
            jwt_keys: Slots::default(),
            appended: Appended::default(),
            upstream: UpstreamBundle::default(),
        }
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// The states of the CAs, for decisions.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.cas.ledger()
    }

    /// The states of the JWT keys, for decisions.
    #[must_use]
    pub fn jwt_ledger(&self) -> &Ledger {
        self.jwt_keys.ledger()
    }

    /// Grows with every change of the bundle.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        let own = self.ledger().sequence + self.jwt_ledger().sequence;
        own + self.appended.changes() + self.upstream.changes()
    }

    /// What the bundle is an edition of; none while there is no CA.
    #[must_use]
    pub fn edition(&self) -> Option<Edition> {
        Some(Edition {
            lineage: self.ledger().lineage.clone()?,
            sequence: self.sequence(),
        })
    }

    /// The CA that signs.
    #[must_use]
    pub fn active(&self) -> Option<&Arc<CertificateAuthority>> {
        self.cas.active()
    }

    /// The JWT key that signs.
    #[must_use]
    pub fn active_jwt(&self) -> Option<&Arc<JwtAuthority>> {
        self.jwt_keys.active()
    }

    /// The authorities of others.
    #[must_use]
    pub fn appended(&self) -> &Appended {
        &self.appended
    }

    /// The bundle of the server above; nothing where there is none.
    #[must_use]
    pub fn upstream(&self) -> &UpstreamBundle {
        &self.upstream
    }

    /// The bundle to publish: the roots of all CAs and all JWT keys, oldest first, then those of the
    /// server above, and those of others after them. A root of the server above is tainted when that
    /// says so, any other one when every CA under it is.
    ///
    /// # Errors
    /// When a root cannot be in a bundle, which import and creation rule out.
    pub fn bundle(&self) -> Result<Bundle, BundleError> {
        // Of a root of the server above that server decides.
        let cas = self.cas.entries();
        let own = cas.filter(|(record, _)| record.origin != AuthorityOrigin::Upstream);
        let roots = own.map(|(_, material)| material.certificates().root());
        let upstream = self.upstream.roots().map(|root| &root.certificate);
        let appended = self.appended.roots().map(|root| &root.certificate);
        let roots = roots.chain(upstream).chain(appended).cloned();
        let bundle = Bundle::new(self.trust_domain.clone(), roots, self.sequence())?;
        Ok(bundle
            .with_jwt_keys(self.jwt_keys())
            .with_tainted(|root| self.is_tainted(root)))
    }

    /// The JWT keys of the bundle, which may be there twice: our own that the server above knows.
    fn jwt_keys(&self) -> impl Iterator<Item = JwtKey> {
        let own = self.own_jwt_keys();
        let upstream = self.upstream.jwt_keys().iter().cloned();
        let appended = self.appended.jwt_keys().iter().cloned();
        own.chain(upstream).chain(appended)
    }

    fn own_jwt_keys(&self) -> impl Iterator<Item = JwtKey> {
        self.jwt_keys.entries().map(|(record, material)| JwtKey {
            key_id: record.id.as_str().to_owned(),
            public_key: material.public_key().clone(),
            expires_at: Some(record.not_after),
            tainted: record.state == AuthorityState::Tainted,
        })
    }

    /// How many JWT keys are in the bundle.
    #[must_use]
    pub fn jwt_key_count(&self) -> usize {
        let ids: BTreeSet<_> = self.jwt_keys().map(|key| key.key_id).collect();
        ids.len()
    }

    /// The JWT keys that the server above is to be told at `now`: our own, and those of servers below.
    #[must_use]
    pub fn jwt_keys_for_upstream(&self, now: Timestamp) -> Vec<JwtKey> {
        let known = self.upstream.jwt_keys();
        let appended = self.appended.jwt_keys().iter().cloned();
        let candidates = self.own_jwt_keys().chain(appended);
        candidates
            .filter(|key| {
                let lives = key.expires_at.is_some_and(|end| now < end);
                lives && !key.tainted && known.iter().all(|it| it.key_id != key.key_id)
            })
            .collect()
    }

    /// The roots of CAs that the server above has signed and does not vouch for any more.
    #[must_use]
    pub fn distrusted_roots(&self) -> BTreeSet<Fingerprint> {
        let records = self.ledger().records.iter();
        let signed_above = records.filter(|it| it.origin == AuthorityOrigin::Upstream);
        let distrusted = signed_above.filter(|it| !self.upstream.trusts(&it.root));
        distrusted.map(|it| it.root.clone()).collect()
    }

    /// The journal once the server above has `bundle`; none if that is no news.
    ///
    /// # Errors
    /// When that bundle cannot be followed.
    pub fn following(
        &self,
        bundle: &Bundle,
        now: Timestamp,
    ) -> Result<Option<Self>, UpstreamBundleError> {
        let upstream = self.upstream.clone().following(bundle, now)?;
        let is_news = upstream != self.upstream;
        Ok(is_news.then(|| Self {
            upstream,
            ..self.clone()
        }))
    }

    /// The journal without what a server above said of which no CA is left, and how much that was.
    #[must_use]
    pub fn without_upstream(self) -> (Self, usize) {
        let mut records = self.ledger().records.iter();
        if records.any(|record| record.origin == AuthorityOrigin::Upstream) {
            return (self, 0);
        }
        let (upstream, gone) = self.upstream.forgotten();
        (Self { upstream, ..self }, gone)
    }

    fn is_tainted(&self, root: &CertificateDer<'_>) -> bool {
        let of_upstream = self.upstream.roots().find(|it| it.certificate == *root);
        if let Some(known) = of_upstream {
            return known.tainted;
        }
        let fingerprint = Fingerprint::of(root);
        let records = self.ledger().records.iter();
        let mut under = records.filter(|it| it.root == fingerprint).peekable();
        if under.peek().is_none() {
            let mut appended = self.appended.roots();
            return appended.any(|it| it.certificate == *root && it.tainted);
        }
        under.all(|record| record.state == AuthorityState::Tainted)
    }

    /// The CAs for the TrustDomain's status, newest first.
    #[must_use]
    pub fn status(&self) -> Vec<AuthorityStatus> {
        status(self.ledger())
    }

    /// The JWT keys for the TrustDomain's status, newest first.
    #[must_use]
    pub fn jwt_status(&self) -> Vec<AuthorityStatus> {
        status(self.jwt_ledger())
    }

    /// The journal with `ca` to publish.
    #[must_use]
    pub fn with_prepared(
        self,
        ca: Arc<CertificateAuthority>,
        origin: AuthorityOrigin,
        now: Timestamp,
    ) -> Self {
        let state = AuthorityState::Prepared;
        let record = ca_record(ca.certificates(), origin, state, Times::prepared(now));
        Self {
            cas: self.cas.with_prepared(record, ca),
            ..self
        }
    }

    /// The journal with a JWT key to publish.
    #[must_use]
    pub fn with_prepared_jwt(self, authority: Arc<JwtAuthority>, now: Timestamp) -> Self {
        let (id, expires_at) = (authority.key_id(), authority.expires_at());
        let state = AuthorityState::Prepared;
        let record = jwt_record(id, expires_at, state, Times::prepared(now));
        Self {
            jwt_keys: self.jwt_keys.with_prepared(record, authority),
            ..self
        }
    }

    /// The journal after a step of its CAs that needs no new one, as [`Ledger::after`] has it.
    #[must_use]
    pub fn after(self, step: &Step, now: Timestamp) -> Self {
        let ledger = self.ledger().clone().after(step, now);
        self.with_ledger(ledger)
    }

    /// The journal after a step of its JWT keys that needs no new one.
    #[must_use]
    pub fn after_jwt(self, step: &Step, now: Timestamp) -> Self {
        let ledger = self.jwt_ledger().clone().after(step, now);
        self.with_jwt_ledger(ledger)
    }

    /// The journal without authorities of others that ended long ago, and how many those were.
    #[must_use]
    pub fn pruned(self, now: Timestamp) -> (Self, usize) {
        let (appended, gone) = self.appended.pruned(now);
        let (upstream, gone_above) = self.upstream.pruned(now);
        let journal = Self {
            appended,
            upstream,
            ..self
        };
        (journal, gone + gone_above)
    }

    pub(super) fn with_ledger(self, ledger: Ledger) -> Self {
        Self {
            cas: self.cas.with_ledger(ledger),
            ..self
        }
    }

    pub(super) fn with_jwt_ledger(self, ledger: Ledger) -> Self {
        Self {
            jwt_keys: self.jwt_keys.with_ledger(ledger),
            ..self
        }
    }
}

fn status(ledger: &Ledger) -> Vec<AuthorityStatus> {
    let of = |record: &Record| AuthorityStatus {
        id: record.id.to_string(),
        state: record.state.as_str().to_owned(),
        not_after: record.not_after.to_string(),
    };
    ledger.records.iter().rev().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::{CaKeyType, CaSubject, JwtKeyType},
        authority::{
            Authority, AuthoritySettings, DOCUMENT, JournalError, JwtSvidRequest, PROPAGATION,
            PrivateKey, RotationPolicy, SvidRequest, advance,
            fixtures::{ca_params, issued_by, now, root, secret, trust_domain},
        },
        spiffe::{CaCertificateError, PemError, verify_jwt_svid, verify_x509_svid},
    };

    const KEY_SUFFIX: &str = ".key";

    fn settings(origin: AuthorityOrigin) -> AuthoritySettings {
        AuthoritySettings {
            policy: RotationPolicy {
                origin,
                propagation: PROPAGATION,
            },
            key_type: CaKeyType::EcP256,
            ca_ttl: SignedDuration::from_hours(168),
            subject: CaSubject::default(),
            jwt_key_type: JwtKeyType::default(),
        }
    }

    fn later(hours: i64) -> Timestamp {
        now() + SignedDuration::from_hours(hours)
    }

    /// Written, and read again by another process.
    fn restarted(journal: &Journal) -> Journal {
        Journal::from_secret_data(&trust_domain(), &journal.to_secret_data().unwrap()).unwrap()
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
            let data = journal.to_secret_data().unwrap();
            let keys = data.into_keys().filter(|key| key.ends_with(KEY_SUFFIX));
            let (jwt, ca): (Vec<_>, Vec<_>) = keys.partition(|key| key.starts_with("jwt-"));
            (ca.len(), jwt.len())
        };
        let journal = own(&own(&active(), later(85)), later(85));
        assert_eq!(keys(&journal), (2, 2));
        let journal = own(&journal, later(141));
        assert_eq!(states(&journal), ["old", "active"]);
        assert_eq!(jwt_states(&journal), ["old", "active"]);
        assert_eq!(keys(&journal), (1, 1));
    }

    fn jwt_states(journal: &Journal) -> Vec<&'static str> {
        let records = journal.jwt_ledger().records().iter();
        records.map(|record| record.state.as_str()).collect()
    }

    /// Gives the `kid`.
    fn assert_signs_tokens(journal: &Journal, at: Timestamp) -> String {
        let authority = Authority::from_journal(journal).unwrap().unwrap();
        let id = "spiffe://example.org/ns/a/sa/b".parse().unwrap();
        let signed = authority.jwt().unwrap().sign(&JwtSvidRequest {
            id: &id,
            audience: &["db".to_owned()],
            issuer: None,
            issued_at: at,
            ttl: SignedDuration::from_mins(5),
            with_jti: false,
        });
        let token = signed.unwrap().token;
        let verified = verify_jwt_svid(&token, authority.bundle(), "db", at).unwrap();
        assert_eq!(verified.id, id);
        verified.key_id
    }

    #[test]
    fn jwt_keys_are_rotated_as_the_cas_are() {
        let journal = own(&Journal::new(trust_domain()), now());
        assert_eq!(jwt_states(&journal), ["prepared"]);
        assert!(journal.active_jwt().is_none());
        let journal = own(&journal, now());
        let first = assert_signs_tokens(&journal, now());
        let journal = own(&journal, later(85));
        assert_eq!(jwt_states(&journal), ["active", "prepared"]);
        let ids: Vec<_> = journal.jwt_status().into_iter().map(|key| key.id).collect();
        let bundle = journal.bundle().unwrap();
        assert!(ids.iter().all(|id| bundle.jwt_key(id).is_some()));
        assert_eq!(ids[1], first);
        assert_eq!(assert_signs_tokens(&journal, later(85)), first);
        // Stored, but not for long enough.
        let waits = own(&journal, later(141));
        assert_eq!(jwt_states(&waits), ["active", "prepared"]);
        let at = later(141) + PROPAGATION;
        let journal = own(&waits, at);
        assert_eq!(jwt_states(&journal), ["old", "active"]);
        assert_eq!(assert_signs_tokens(&journal, at), ids[0]);
        let sequence = journal.sequence();
        let journal = own(&journal, later(168 + 25));
        assert!(journal.bundle().unwrap().jwt_key(&first).is_none());
        assert!(journal.sequence() > sequence);
    }

    #[test]
    fn a_secret_of_before_there_were_jwt_keys_gets_one() {
        let mut data = active().to_secret_data().unwrap();
        data.retain(|key, _| !key.starts_with("jwt-"));
        let mut document: serde_json::Value = serde_json::from_slice(&data[DOCUMENT]).unwrap();
        assert!(
            document
                .as_object_mut()
                .unwrap()
                .remove("jwtAuthorities")
                .is_some()
        );
        data.insert(DOCUMENT.to_owned(), document.to_string().into_bytes());
        let journal = Journal::from_secret_data(&trust_domain(), &data).unwrap();
        let sequence = journal.sequence();
        let authority = Authority::from_journal(&journal).unwrap().unwrap();
        assert!(authority.jwt().is_none());
        let journal = own(&journal, later(1));
        assert_eq!(
            (jwt_states(&journal), states(&journal)),
            (vec!["prepared"], vec!["active"])
        );
        assert!(journal.sequence() > sequence);
        let journal = own(&journal, later(1));
        assert_signs_tokens(&journal, later(1));
        assert_signs(&journal, later(1));
    }

    #[test]
    fn where_a_secret_holds_the_ca_the_jwt_keys_are_our_own() {
        let top = root(ca_params("root"));
        let data = secret(&[&top], top.key(), &[&top]);
        let ca = Arc::new(CertificateAuthority::import(&data, &trust_domain(), now()).unwrap());
        let origin = AuthorityOrigin::Imported;
        let none = pass(&Journal::new(trust_domain()), origin, None, now());
        assert!(
            none.jwt_ledger().records().is_empty(),
            "before there is a CA"
        );
        let journal = pass(&none, origin, Some(&ca), now());
        let journal = pass(&journal, origin, Some(&ca), now());
        assert_signs_tokens(&journal, now());
        let lasts = journal.jwt_ledger().active().unwrap().not_after;
        assert_eq!(lasts, later(168));
        // The CA lives for a year, and the Secret may be away for a while.
        let journal = pass(&journal, origin, None, later(85));
        assert_eq!(states(&journal), ["active"]);
        assert_eq!(jwt_states(&journal), ["active", "prepared"]);
    }

    #[test]
    fn another_key_is_another_authority_although_the_bundle_is_the_same() {
        let authority = |journal: &Journal| Authority::from_journal(journal).unwrap().unwrap();
        let waits = own(&own(&active(), later(85)), later(85));
        let activated = own(&waits, later(141));
        assert_eq!(activated.sequence(), waits.sequence());
        let (before, after) = (authority(&waits), authority(&activated));
        assert!(before.is_same(&authority(&waits)) && !before.is_same(&after));
        assert!(!before.is_as_late_as(&activated) && after.is_as_late_as(&activated));
        let ledger = activated.jwt_ledger().clone();
        let old = ledger.records()[0].id.clone();
        let tainted = activated
            .clone()
            .with_jwt_ledger(ledger.taint(&old).unwrap());
        assert!(!authority(&tainted).is_same(&after));
        assert!(authority(&tainted).is_as_late_as(&activated));
    }

    #[test]
    fn a_root_is_tainted_with_all_that_is_under_it() {
        let top = root(ca_params("root"));
        let import = |name| {
            let ca = issued_by(&top, ca_params(name));
            let data = secret(&[&ca], ca.key(), &[&top]);
            Arc::new(CertificateAuthority::import(&data, &trust_domain(), now()).unwrap())
        };
        let pass = |journal: &Journal, ca, minutes| {
            let at = now() + SignedDuration::from_mins(minutes);
            pass(journal, AuthorityOrigin::Imported, Some(ca), at)
        };
        let mut journal = Journal::new(trust_domain());
        for (ca, at) in ["a", "b", "c"].map(import).iter().zip([0, 10, 20]) {
            journal = pass(&pass(&pass(&journal, ca, at), ca, at), ca, at + 6);
        }
        assert_eq!(states(&journal), ["old", "old", "active"]);
        let taint = |journal: Journal, index: usize| {
            let id = journal.ledger().records()[index].id.clone();
            let ledger = journal.ledger().clone().taint(&id).unwrap();
            journal.with_ledger(ledger)
        };
        let is_tainted = |journal: &Journal| {
            let bundle = journal.bundle().unwrap();
            let [root] = bundle.x509_authorities() else {
                panic!("one root");
            };
            root.is_tainted()
        };
        journal = taint(taint(journal, 0), 1);
        assert!(!is_tainted(&journal), "what lives verifies to it");
        let mut ledger = journal.ledger().clone();
        ledger.records[2].state = AuthorityState::Tainted;
        assert!(is_tainted(&journal.with_ledger(ledger)));
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
        let mut data = active().to_secret_data().unwrap();
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
        let mut data = own(&active(), later(85)).to_secret_data().unwrap();
        let document = String::from_utf8(data[DOCUMENT].clone()).unwrap();
        let document = document.replace("\"prepared\"", "\"active\"");
        data.insert(DOCUMENT.to_owned(), document.into_bytes());
        let state = AuthorityState::Active;
        assert_eq!(read(&data), JournalError::Several { state });
    }

    #[test]
    fn refuses_missing_and_wrong_keys() {
        let data = active().to_secret_data().unwrap();
        let entries: Vec<_> = data
            .keys()
            .filter(|key| key.ends_with(KEY_SUFFIX))
            .collect();
        assert_eq!(entries.len(), 2, "of the CA and of the JWT key");
        for entry in entries {
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
    }

    #[test]
    fn refuses_damaged_jwt_keys() {
        for (member, value) in [
            ("id", "../x"),
            ("id", ""),
            ("publicKey", "%"),
            ("publicKey", "AA=="),
        ] {
            let data =
                with_document(|document| document["jwtAuthorities"][0][member] = value.into());
            assert!(
                matches!(read(&data), JournalError::JwtKey { .. }),
                "{member} {value}"
            );
        }
        let data = with_document(|document| {
            let keys = document["jwtAuthorities"].as_array_mut().unwrap();
            keys.push(keys[0].clone());
        });
        assert!(matches!(read(&data), JournalError::Repeated { .. }));
    }

    #[test]
    fn debug_shows_no_key() {
        let journal = active();
        let ca = journal.active().unwrap().key().to_pem();
        let jwt_key = journal.active_jwt().unwrap().key().to_pem();
        for pem in [ca, jwt_key] {
            let secret = pem.lines().nth(1).unwrap();
            assert!(!format!("{journal:?}").contains(secret));
            let document = &journal.to_secret_data().unwrap()[DOCUMENT];
            assert!(!String::from_utf8_lossy(document).contains(secret));
        }
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
