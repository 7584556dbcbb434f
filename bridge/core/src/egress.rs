//! Which addresses the bridge may call: the pure half of the egress guard.
//!
//! The default refuses everything that is not plainly a public address. The development flag
//! opens loopback and private ranges; link-local (cloud metadata) and the rest stay shut under
//! every setting. The shell must check each resolved address right before it connects, and must
//! never follow a redirect or a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// What is open beyond public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    /// Opens loopback and private ranges, and plain http. For development and demonstrations.
    pub development: bool,
}

/// Why an endpoint is refused. Texts name the rule, never an internal address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an absolute URL.
    #[error("it is no absolute URL")]
    NoUrl,
    /// Not https.
    #[error("only https is allowed")]
    Scheme,
    /// User name or password in the URL.
    #[error("a URL with user name or password is not allowed")]
    UserInfo,
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// A fragment, which no server ever sees.
    #[error("a URL with a fragment is not allowed")]
    Fragment,
    /// The address lies in a range that is shut.
    #[error("the address lies in a range that is not allowed (loopback, private, link-local, documentation, multicast or reserved)")]
    Range,
}

/// Checks the text of an endpoint. A host name passes here; its addresses are checked when it
/// is resolved.
pub fn check_url(text: &str, policy: EgressPolicy) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|_| Refusal::NoUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if policy.development => {}
        _ => return Err(Refusal::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(Refusal::Fragment);
    }
    // `Url` has already turned decimal, octal and short IPv4 forms into addresses.
    match url.host() {
        None => Err(Refusal::NoHost),
        Some(Host::Ipv4(address)) => check_address(address.into(), policy).map(|()| url),
        Some(Host::Ipv6(address)) => check_address(address.into(), policy).map(|()| url),
        Some(Host::Domain(_)) => Ok(url),
    }
}

/// Checks an address right before a connection is made to it.
pub fn check_address(address: IpAddr, policy: EgressPolicy) -> Result<(), Refusal> {
    let open = match address {
        IpAddr::V4(address) => v4_is_open(address, policy),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => v4_is_open(inner, policy),
            None => v6_is_open(address, policy),
        },
    };
    if open { Ok(()) } else { Err(Refusal::Range) }
}

fn v4_is_open(address: Ipv4Addr, policy: EgressPolicy) -> bool {
    let [a, b, c, _] = address.octets();
    let shut = a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    let inside = a == 127 || a == 10 || (a == 172 && (16..32).contains(&b)) || (a == 192 && b == 168);
    !shut && (!inside || policy.development)
}

fn v6_is_open(address: Ipv6Addr, policy: EgressPolicy) -> bool {
    let [first, second, third, fourth, ..] = address.segments();
    let shut = address.is_unspecified()
        || first & 0xffc0 == 0xfe80
        || first & 0xff00 == 0xff00
        || (first == 0x100 && second == 0 && third == 0 && fourth == 0)
        || (first == 0x2001 && second == 0xdb8)
        || (first & 0xfff0 == 0x3ff0 && first == 0x3fff && second & 0xf000 == 0)
        || first == 0x5f00
        // Transition ranges hide an IPv4 address that a translator elsewhere would follow.
        || first == 0x2002
        || (first == 0x2001 && second == 0)
        || (first == 0x64 && second == 0xff9b);
    let inside = address.is_loopback() || first & 0xfe00 == 0xfc00;
    !shut && (!inside || policy.development)
}

/// IPv4-mapped and the deprecated IPv4-compatible form mean the IPv4 address within.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let compatible = address.segments()[..6].iter().all(|segment| *segment == 0) && !address.is_loopback() && !address.is_unspecified();
    compatible.then(|| address.to_ipv4()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: EgressPolicy = EgressPolicy { development: false };
    const DEVELOPMENT: EgressPolicy = EgressPolicy { development: true };

    #[test]
    fn endpoints() {
        use Refusal::*;
        for (url, strict, development) in [
            ("https://mottak.example.org/hendelser", Ok(()), Ok(())),
            ("https://93.184.215.14/", Ok(()), Ok(())),
            ("https://[2606:2800:21f::1]/", Ok(()), Ok(())),
            ("http://mottak.example.org/", Err(Scheme), Ok(())),
            ("ftp://mottak.example.org/", Err(Scheme), Err(Scheme)),
            ("mottak.example.org/hendelser", Err(NoUrl), Err(NoUrl)),
            ("", Err(NoUrl), Err(NoUrl)),
            ("https://user@mottak.example.org/", Err(UserInfo), Err(UserInfo)),
            ("https://127.0.0.1@evil.example/", Err(UserInfo), Err(UserInfo)),
            ("https://mottak.example.org/#x", Err(Fragment), Err(Fragment)),
            ("https://127.0.0.1/", Err(Range), Ok(())),
            ("https://2130706433/", Err(Range), Ok(())),
            ("https://0177.0.0.1/", Err(Range), Ok(())),
            ("https://127.1/", Err(Range), Ok(())),
            ("https://0x7f.1/", Err(Range), Ok(())),
            ("https://10.1.2.3/", Err(Range), Ok(())),
            ("https://172.31.255.255/", Err(Range), Ok(())),
            ("https://172.32.0.1/", Ok(()), Ok(())),
            ("https://192.168.0.1/", Err(Range), Ok(())),
            ("https://169.254.169.254/latest", Err(Range), Err(Range)),
            ("https://[fe80::1]/", Err(Range), Err(Range)),
            ("https://[::ffff:169.254.169.254]/", Err(Range), Err(Range)),
            ("https://[::ffff:10.0.0.1]/", Err(Range), Ok(())),
            ("https://[::a9fe:a9fe]/", Err(Range), Err(Range)),
            ("https://[64:ff9b::a9fe:a9fe]/", Err(Range), Err(Range)),
            ("https://[2002:a9fe:a9fe::]/", Err(Range), Err(Range)),
            ("https://[2001:0:1::1]/", Err(Range), Err(Range)),
            ("https://[::1]/", Err(Range), Ok(())),
            ("https://[fd00::1]/", Err(Range), Ok(())),
            ("https://[::]/", Err(Range), Err(Range)),
            ("https://[ff02::1]/", Err(Range), Err(Range)),
            ("https://0.0.0.0/", Err(Range), Err(Range)),
            ("https://100.64.0.1/", Err(Range), Err(Range)),
            ("https://100.128.0.1/", Ok(()), Ok(())),
            ("https://192.0.2.1/", Err(Range), Err(Range)),
            ("https://198.19.255.255/", Err(Range), Err(Range)),
            ("https://224.0.0.1/", Err(Range), Err(Range)),
            ("https://255.255.255.255/", Err(Range), Err(Range)),
            ("https://[2001:db8::1]/", Err(Range), Err(Range)),
            ("https://[3fff::1]/", Err(Range), Err(Range)),
            ("https://[5f00::1]/", Err(Range), Err(Range)),
            ("https://[100::1]/", Err(Range), Err(Range)),
        ] {
            assert_eq!(check_url(url, STRICT).map(|_| ()), strict, "strict {url}");
            assert_eq!(check_url(url, DEVELOPMENT).map(|_| ()), development, "development {url}");
        }
    }
}
