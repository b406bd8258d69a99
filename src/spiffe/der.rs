//! Writing DER (X.690), as much of it as certificates need. Reading is `x509-parser`'s work.
//!
//! Certificates are written here, not by a library, so that an issuer's name goes into a leaf byte
//! for byte as the issuer's certificate has it (several attributes in one RDN and any string type
//! included), and so that the bytes to be signed exist apart from the key that signs them.

use jiff::{Timestamp, tz};

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Years that RFC 5280 §4.1.2.5 wants as `UTCTime`.
const UTC_TIME_YEARS: std::ops::Range<i16> = 1950..2050;

/// A buffer that grows by one DER element after another.
#[derive(Default)]
pub(crate) struct Der(Vec<u8>);

impl Der {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// An element whose content is what `content` writes.
    pub(crate) fn nested(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.0.push(tag);
        let start = self.0.len();
        content(self);
        let length = Length::of(self.0.len() - start);
        self.0
            .splice(start..start, length.as_bytes().iter().copied());
    }

    pub(crate) fn primitive(&mut self, tag: u8, content: &[u8]) {
        self.0.push(tag);
        self.0
            .extend_from_slice(Length::of(content.len()).as_bytes());
        self.0.extend_from_slice(content);
    }

    /// Bytes that are DER already, or the raw content of a primitive element.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.0.extend_from_slice(der);
    }

    /// A non-negative integer from its big-endian bytes.
    pub(crate) fn unsigned_integer(&mut self, big_endian: &[u8]) {
        let significant = match big_endian.iter().position(|byte| *byte != 0) {
            Some(first) => big_endian.get(first..).unwrap_or_default(),
            None => &[0],
        };
        self.nested(INTEGER, |der| {
            if significant.first().is_some_and(|byte| byte & 0x80 != 0) {
                der.raw(&[0]);
            }
            der.raw(significant);
        });
    }

    /// A bit string of whole bytes.
    pub(crate) fn bit_string(&mut self, bytes: &[u8]) {
        self.nested(BIT_STRING, |der| {
            der.raw(&[0]);
            der.raw(bytes);
        });
    }

    /// A `DirectoryString`, printable where it can be, as Go writes it.
    pub(crate) fn directory_string(&mut self, value: &str) {
        let printable = value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b' ' | b'\''
                        | b'('
                        | b')'
                        | b'+'
                        | b','
                        | b'-'
                        | b'.'
                        | b'/'
                        | b':'
                        | b'='
                        | b'?'
                )
        });
        let tag = if printable {
            PRINTABLE_STRING
        } else {
            UTF8_STRING
        };
        self.primitive(tag, value.as_bytes());
    }

    /// A time in whole seconds (RFC 5280 §4.1.2.5).
    pub(crate) fn time(&mut self, time: Timestamp) {
        let utc = tz::Offset::UTC.to_datetime(time);
        let (tag, format) = if UTC_TIME_YEARS.contains(&utc.year()) {
            (UTC_TIME, "%y%m%d%H%M%SZ")
        } else {
            (GENERALIZED_TIME, "%Y%m%d%H%M%SZ")
        };
        self.primitive(tag, utc.strftime(format).to_string().as_bytes());
    }
}

/// The bytes of a length: the short form, or the long form of up to eight bytes.
struct Length {
    bytes: [u8; 9],
    start: usize,
}

impl Length {
    fn of(content: usize) -> Self {
        let mut bytes = [0; 9];
        if let (Ok(short @ 0..0x80), [.., last]) = (u8::try_from(content), &mut bytes) {
            *last = short;
            return Self { bytes, start: 8 };
        }
        let big_endian = u64::try_from(content).unwrap_or(u64::MAX).to_be_bytes();
        let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
        for (to, from) in bytes.iter_mut().skip(1).zip(big_endian) {
            *to = from;
        }
        if let Some(first) = bytes.get_mut(zeros) {
            *first = 0x80 | u8::try_from(8 - zeros).unwrap_or(0);
        }
        Self {
            bytes,
            start: zeros,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Der)) -> Vec<u8> {
        let mut der = Der::default();
        write(&mut der);
        der.into_bytes()
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, header) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (70_000, vec![4, 0x83, 1, 0x11, 0x70]),
        ] {
            let content = vec![7; length];
            let primitive = written(|der| der.primitive(OCTET_STRING, &content));
            assert_eq!(primitive[..header.len()], header);
            assert_eq!(primitive.len(), header.len() + length);
            assert_eq!(
                primitive,
                written(|der| der.nested(OCTET_STRING, |der| der.raw(&content)))
            );
        }
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        for (bytes, expected) in [
            (&[][..], vec![2, 1, 0]),
            (&[0, 0], vec![2, 1, 0]),
            (&[0, 5], vec![2, 1, 5]),
            (&[0x80], vec![2, 2, 0, 0x80]),
        ] {
            assert_eq!(written(|der| der.unsigned_integer(bytes)), expected);
        }
    }

    #[test]
    fn times_change_their_form_in_2050() {
        let time = |text: &str| written(|der| der.time(text.parse().unwrap()));
        assert_eq!(&time("2049-12-31T23:59:59Z")[2..], b"491231235959Z");
        assert_eq!(time("2049-12-31T23:59:59Z")[0], UTC_TIME);
        assert_eq!(&time("2050-01-01T00:00:00Z")[2..], b"20500101000000Z");
        assert_eq!(time("2050-01-01T00:00:00Z")[0], GENERALIZED_TIME);
    }

    #[test]
    fn strings_are_printable_where_they_can_be() {
        assert_eq!(
            written(|der| der.directory_string("US"))[0],
            PRINTABLE_STRING
        );
        for text in ["a_b", "*.example.org", "Zürich"] {
            assert_eq!(written(|der| der.directory_string(text))[0], UTF8_STRING);
        }
    }
}
