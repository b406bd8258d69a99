//! Where calls and connections come from, as far as they are counted.

use std::net::{IpAddr, Ipv6Addr};

/// How many leading bits of an IPv6 address count: a subnet has 64 (RFC 4291 §2.5.1), and one host
/// may have as many addresses in it as it likes (RFC 8981).
const IPV6_PREFIX: u32 = 64;

/// An IPv4 address, or all IPv6 addresses that may be those of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - IPV6_PREFIX);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn ipv6_addresses_of_one_subnet_are_one_origin() {
        let host = origin("2001:db8:0:1::1");
        assert_eq!(host, origin("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(host, origin("2001:db8:0:2::1"));
        assert_ne!(host, origin("2001:db8::1"));
    }

    #[test]
    fn ipv4_addresses_count_for_themselves_also_where_they_are_mapped() {
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("::ffff:192.0.2.1"), origin("::ffff:192.0.2.2"));
    }
}
