//! Subjects of certificates that somebody else names: in a request, or in the CA above. They are
//! taken as text, attribute by attribute, and written anew.

use rcgen::{DistinguishedName, DnType, DnValue, string::PrintableString};
use x509_parser::x509::X509Name;

/// `serialNumber` (X.520 §6.2.9).
pub(super) const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];

/// A subject that can be written: of one attribute in each RDN, none twice, and plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject(DistinguishedName);

/// A subject that cannot be written into a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the subject has an attribute twice, several in one RDN, or something else than plain text"
)]
pub struct UnsupportedSubject;

impl Subject {
    /// Reads a subject.
    pub(crate) fn read(name: &X509Name<'_>) -> Result<Self, UnsupportedSubject> {
        let mut subject = DistinguishedName::new();
        for rdn in name.iter_rdn() {
            let mut attributes = rdn.iter();
            let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
                return Err(UnsupportedSubject);
            };
            let text = attribute.as_str().map_err(|_| UnsupportedSubject)?;
            // rcgen panics when it writes an OID of which the first two arcs take more than a byte.
            let oid = attribute.attr_type();
            let arcs: Option<Vec<u64>> = oid.iter().map(Iterator::collect);
            let arcs = arcs.filter(|arcs| matches!(arcs.as_slice(), [0..=2, 0..=39, ..]));
            let kind = DnType::from_oid(&arcs.ok_or(UnsupportedSubject)?);
            if subject.get(&kind).is_some() {
                return Err(UnsupportedSubject);
            }
            subject.push(kind, value(text));
        }
        Ok(Self(subject))
    }

    /// A subject of these attributes, of which those without a value are left out.
    pub(crate) fn of<const N: usize>(attributes: [(DnType, Option<&str>); N]) -> Self {
        let mut subject = DistinguishedName::new();
        for (attribute, text) in attributes {
            if let Some(text) = text {
                subject.push(attribute, value(text));
            }
        }
        Self(subject)
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().next().is_none()
    }

    /// With `text` as the value of `attribute`, in place of another or as the last one.
    pub(crate) fn with(mut self, attribute: DnType, text: &str) -> Self {
        self.0.push(attribute, value(text));
        self
    }

    /// The same of a CA below, in the order in which Go writes subjects: organization, unit, the
    /// rest, serial number.
    pub(super) fn downstream(self, unit: &str, serial: &str) -> Self {
        let serial_number = DnType::from_oid(SERIAL_NUMBER);
        let is_first =
            |kind: &DnType| matches!(kind, DnType::CountryName | DnType::OrganizationName);
        let is_replaced = |kind: &DnType| {
            matches!(kind, DnType::OrganizationalUnitName) || *kind == serial_number
        };
        let kept = || self.0.iter().filter(|(kind, _)| !is_replaced(kind));
        let mut subject = DistinguishedName::new();
        for (kind, text) in kept().filter(|(kind, _)| is_first(kind)) {
            subject.push(kind.clone(), text.clone());
        }
        subject.push(DnType::OrganizationalUnitName, value(unit));
        for (kind, text) in kept().filter(|(kind, _)| !is_first(kind)) {
            subject.push(kind.clone(), text.clone());
        }
        subject.push(serial_number.clone(), value(serial));
        Self(subject)
    }

    pub(crate) fn into_name(self) -> DistinguishedName {
        self.0
    }
}

/// Printable strings where they can be, as Go writes them.
fn value(text: &str) -> DnValue {
    PrintableString::try_from(text).map_or_else(
        |_| DnValue::Utf8String(text.to_owned()),
        DnValue::PrintableString,
    )
}
