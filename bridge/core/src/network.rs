//! What kind of network an address lies in, and networks as operators write them.
//!
//! Sources: the IANA registries of special-purpose addresses, and the metadata addresses that the
//! large clouds document. IPv6 addresses that carry an IPv4 address are judged by what a
//! translator would make of them, or shut. Must never call an address public by default.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of network an address lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Plainly public.
    Public,
    /// This machine.
    Loopback,
    /// A private network.
    Private,
    /// Between a carrier and its customers (100.64.0.0/10).
    Shared,
    /// Nobody's endpoint: link-local, metadata, documentation, multicast, reserved, transition.
    Never,
}

/// Addresses of cloud metadata and platform services outside link-local ranges.
const METADATA_V4: [Ipv4Addr; 3] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// The kind of network that an address lies in.
pub fn range_of(address: IpAddr) -> Range {
    match address {
        IpAddr::V4(address) => range_of_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => range_of_v4(inner),
            None => range_of_v6(address),
        },
    }
}

fn range_of_v4(address: Ipv4Addr) -> Range {
    if METADATA_V4.contains(&address) {
        return Range::Never;
    }
    match address.octets() {
        [127, ..] => Range::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Range::Private,
        [100, 64..=127, ..] => Range::Shared,
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 31, 196, _]
        | [192, 52, 193, _]
        | [192, 88, 99, _]
        | [192, 175, 48, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Range::Never,
        _ => Range::Public,
    }
}

fn range_of_v6(address: Ipv6Addr) -> Range {
    if METADATA_V6.contains(&address) {
        return Range::Never;
    }
    let segments = address.segments();
    // ISATAP: whatever the prefix, the packet ends up at the IPv4 address in the last 32 bits.
    let [.., e, f, g, h] = segments;
    if e & 0xfdff == 0 && f == 0x5efe {
        let [a, b, c, d] = [g >> 8, g & 0xff, h >> 8, h & 0xff].map(|octet| octet as u8);
        if range_of_v4(Ipv4Addr::new(a, b, c, d)) != Range::Public {
            return Range::Never;
        }
    }
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Range::Loopback,
        [0xfc00..=0xfdff, ..] => Range::Private,
        // Protocol assignments with Teredo; documentation (two); 6to4. What is global lies in 2000::/3.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2002, ..] => Range::Never,
        [0x2000..=0x3fff, ..] => Range::Public,
        _ => Range::Never,
    }
}

/// IPv4-mapped and the deprecated IPv4-compatible form mean the IPv4 address within.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let compatible = address.segments()[..6].iter().all(|segment| *segment == 0) && !address.is_loopback() && !address.is_unspecified();
    compatible.then(|| address.to_ipv4()).flatten()
}

/// A network: an address, and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address, a slash and the number of its leading bits that count, the others being zero: 10.20.0.0/16, fd12::/48")]
pub struct InvalidCidr;

impl Cidr {
    /// Whether an address lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        // Of the other family nothing is ever equal.
        kept(address, self.bits) == Some(self.network)
    }
}

/// An address with all but its leading bits set to zero.
fn kept(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let cleared = 32_u32.checked_sub(bits)?;
            Some(IpAddr::V4(Ipv4Addr::from(address.to_bits() & u32::MAX.checked_shl(cleared).unwrap_or(0))))
        }
        IpAddr::V6(address) => {
            let cleared = 128_u32.checked_sub(bits)?;
            Some(IpAddr::V6(Ipv6Addr::from(address.to_bits() & u128::MAX.checked_shl(cleared).unwrap_or(0))))
        }
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (network, bits) = text.split_once('/').ok_or(InvalidCidr)?;
        let (network, bits) = (network.parse().map_err(|_| InvalidCidr)?, bits.parse().map_err(|_| InvalidCidr)?);
        if kept(network, bits) == Some(network) { Ok(Self { network, bits }) } else { Err(InvalidCidr) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = InvalidCidr;

    fn try_from(text: String) -> Result<Self, InvalidCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (cidr, inside, outside) in [
            ("10.20.0.0/16", "10.20.255.1", "10.21.0.1"),
            ("10.20.1.5/32", "10.20.1.5", "10.20.1.4"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd12::/48", "fd12::ffff", "fd12:0:1::1"),
            ("::/0", "2606::1", "1.2.3.4"),
            ("2606:2800::/32", "2606:2800:ffff::1", "2606:2801::1"),
        ] {
            let network: Cidr = cidr.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()) && !network.contains(outside.parse().unwrap()), "{cidr}");
            assert_eq!(network.to_string(), cidr);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "fd12::1/48", "::/129", "a/8", "10.0.0.0/-1", "10.0.0.0/"] {
            assert_eq!(text.parse::<Cidr>(), Err(InvalidCidr), "{text}");
        }
    }
}
