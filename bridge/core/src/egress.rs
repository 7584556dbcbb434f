//! Which addresses the bridge may call: the pure half of the egress guard.
//!
//! The default refuses everything that is not plainly a public address on port 443. An operator's
//! list opens exactly the combinations of host, port and network that it names; the development
//! flag opens loopback, private ranges, any port and plain http. Link-local addresses and those of
//! cloud metadata stay shut under every setting. The shell must check each resolved address right
//! before it connects, connect to no other, and never follow a redirect or a proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

pub use crate::network::{Cidr, InvalidCidr};
use crate::network::{Range, range_of};

const HTTPS_PORT: u16 = 443;

/// Names that only mean something inside somebody's network.
const LOCAL_SUFFIXES: [&str; 9] = ["localhost", "local", "internal", "intranet", "lan", "corp", "home", "home.arpa", "localdomain"];

/// What is open beyond public addresses, and what is shut beyond the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    /// Opens loopback and private ranges, any port and plain http. For development and demonstrations.
    pub development: bool,
    /// Exceptions that an operator has approved.
    pub allow: Vec<Allowance>,
    /// Networks that are shut whatever the exceptions say: the cluster's own.
    pub deny: Vec<Cidr>,
    /// Addresses of the bridge itself and of its Kafka.
    pub own: Vec<SocketAddr>,
}

/// One exception: a host, on a port, in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// The host's name, or `*.` and the end of names.
    pub host: HostPattern,
    /// The port.
    #[serde(default = "https_port")]
    pub port: u16,
    /// Where the host's addresses must lie; may be a private network. Without it they must be public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    /// File (PEM) with the authorities that the host's certificate must come from, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

const fn https_port() -> u16 {
    HTTPS_PORT
}

impl Allowance {
    fn is_for(&self, host: &str, port: u16) -> bool {
        self.port == port && self.host.matches(host)
    }
}

/// A host name, or `*.suffix` for all names below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// Why a text is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host is a name like mottak.helse.example, *. in front of one, or an IP address; without scheme, port or final full stop")]
pub struct InvalidHost;

impl TryFrom<String> for HostPattern {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
            && name.split('.').all(|label| !label.is_empty());
        // All names of a top-level domain are no exception, they are the rule's end.
        let is_wide = name.len() != text.len() && !name.contains('.');
        if let Ok(address) = text.parse::<IpAddr>() {
            // In the one way that a URL shows it.
            return Ok(Self(address.to_string()));
        }
        if is_name && !is_wide { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidHost) }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

impl HostPattern {
    /// Whether a host is meant. Names come in lower case, as `Url` gives them.
    fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => self.0 == host,
        }
    }
}

/// Why an endpoint is refused. Texts name the rule and the way to an exception, never an internal address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an absolute URL.
    #[error("it is no absolute URL like https://mottak.example.org/hendelser, in plain characters")]
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
    /// A name without a domain, a local one, or one that ends in a full stop.
    #[error(
        "the host is no public name: a name within one network, or one that ends in a full stop; the operator can add the host to bridge.egress_allow"
    )]
    HostName,
    /// Another port than 443.
    #[error("the port is not allowed: only 443 is; the operator can add host and port to bridge.egress_allow")]
    Port,
    /// The address lies in a range that is shut.
    #[error(
        "the address lies in a range that is not allowed (loopback, private, link-local, metadata, documentation, multicast or reserved); \
         for a host on a private network the operator can add host, port and network to bridge.egress_allow"
    )]
    Range,
    /// The allow-list names networks for this host, and the address lies in none of them.
    #[error("the address lies outside the network that bridge.egress_allow names for this host")]
    Outside,
    /// The bridge, its Kafka, or a network that the operator has shut.
    #[error("the address belongs to this installation, or lies in a network that bridge.egress_deny shuts")]
    Own,
}

/// A host as it is compared: without the brackets of an IPv6 address.
pub fn bare_host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The exception for a host and port that names authorities of its own.
pub fn ca_file<'p>(policy: &'p EgressPolicy, host: &str, port: u16) -> Option<&'p PathBuf> {
    policy.allow.iter().filter(|allowance| allowance.is_for(host, port)).find_map(|allowance| allowance.ca_file.as_ref())
}

/// Checks the text of an endpoint. A host name passes here; its addresses are checked when it
/// is resolved.
pub fn check_url(text: &str, policy: &EgressPolicy) -> Result<Url, Refusal> {
    // A parser for browsers mends all of these, each time into something else than a reader sees.
    let odd = |letter: char| letter.is_control() || letter.is_whitespace() || letter == '\\';
    let authority = text.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
    if text.chars().any(odd) || authority.is_none_or(|rest| rest.starts_with('/')) {
        return Err(Refusal::NoUrl);
    }
    let url = Url::parse(text).map_err(|_| Refusal::NoUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if policy.development => {}
        _ => return Err(Refusal::Scheme),
    }
    let user_info = authority.and_then(|rest| rest.split(['/', '?', '#']).next()).is_some_and(|authority| authority.contains('@'));
    if user_info || !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(Refusal::Fragment);
    }
    let (host, port) = (bare_host(&url), url.port_or_known_default().ok_or(Refusal::Port)?);
    // `Url` has already turned decimal, octal, hexadecimal and short IPv4 forms into addresses.
    match url.host() {
        None => return Err(Refusal::NoHost),
        Some(Host::Ipv4(address)) => check_address(address.into(), port, host, policy)?,
        Some(Host::Ipv6(address)) => check_address(address.into(), port, host, policy)?,
        Some(Host::Domain(name)) => {
            let named = policy.allow.iter().any(|allowance| allowance.is_for(name, port));
            if name.ends_with('.') || name.starts_with('.') || name.contains("..") || (is_local(name) && !named && !policy.development) {
                return Err(Refusal::HostName);
            }
            if port != HTTPS_PORT && !named && !policy.development {
                return Err(Refusal::Port);
            }
        }
    }
    Ok(url)
}

fn is_local(name: &str) -> bool {
    let below = |suffix: &str| name.strip_suffix(suffix).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    !name.contains('.') || LOCAL_SUFFIXES.into_iter().any(below)
}

/// Checks an address right before a connection is made to it. `host` is the name that it was
/// found for, or the address itself as the URL has it.
pub fn check_address(address: IpAddr, port: u16, host: &str, policy: &EgressPolicy) -> Result<(), Refusal> {
    let range = range_of(address);
    if range == Range::Never {
        return Err(Refusal::Range);
    }
    // What is mapped into IPv6 is reached as IPv4, and is compared as that.
    let address = address.to_canonical();
    let is_own = |own: &SocketAddr| own.port() == port && (own.ip() == address || (own.ip().is_unspecified() && address.is_loopback()));
    if policy.own.iter().any(is_own) || policy.deny.iter().any(|cidr| cidr.contains(address)) {
        return Err(Refusal::Own);
    }
    let mut named = policy.allow.iter().filter(|allowance| allowance.is_for(host, port)).peekable();
    let is_named = named.peek().is_some();
    let mut bound = false;
    for allowance in named {
        match &allowance.cidr {
            // The own machine is nobody's network.
            Some(cidr) if cidr.contains(address) && range != Range::Loopback => return Ok(()),
            Some(_) => bound = true,
            None if range == Range::Public => return Ok(()),
            None => {}
        }
    }
    match range {
        _ if bound => Err(Refusal::Outside),
        Range::Public if port == HTTPS_PORT || is_named || policy.development => Ok(()),
        Range::Public => Err(Refusal::Port),
        Range::Loopback | Range::Private if policy.development => Ok(()),
        Range::Loopback | Range::Private | Range::Shared | Range::Never => Err(Refusal::Range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The long table of hostile endpoints is in `tests/tests/egress.rs`; here is what it leaves out.

    fn allowance(host: &str, port: u16, cidr: Option<&str>) -> Allowance {
        let host = HostPattern::try_from(host.to_owned()).unwrap();
        Allowance { host, port, cidr: cidr.map(|cidr| cidr.parse().unwrap()), ca_file: None }
    }

    #[test]
    fn an_exception_opens_its_combination_and_nothing_else() {
        use Refusal::*;
        let policy = EgressPolicy {
            allow: vec![
                allowance("mottak.helse.example", 8443, Some("10.20.0.0/16")),
                allowance("*.sykehus.example", 443, Some("fd12::/48")),
                allowance("aapen.example", 9443, None),
                allowance("alt.example", 443, Some("0.0.0.0/0")),
                allowance("10.30.0.1", 443, Some("10.30.0.1/32")),
                allowance("FD12:0::7", 443, Some("fd12::7/128")),
            ],
            deny: vec!["10.20.7.0/24".parse().unwrap()],
            own: vec!["93.184.215.14:443".parse().unwrap(), "0.0.0.0:8443".parse().unwrap()],
            ..EgressPolicy::default()
        };
        for (address, port, host, expected) in [
            ("10.20.1.1", 8443, "mottak.helse.example", Ok(())),
            ("::ffff:10.20.1.1", 8443, "mottak.helse.example", Ok(())),
            ("10.21.1.1", 8443, "mottak.helse.example", Err(Outside)),
            ("93.184.215.15", 8443, "mottak.helse.example", Err(Outside)),
            ("10.20.1.1", 443, "mottak.helse.example", Err(Range)),
            ("10.20.1.1", 8443, "annet.helse.example", Err(Range)),
            ("10.20.7.1", 8443, "mottak.helse.example", Err(Own)),
            ("fd12::1", 443, "a.sykehus.example", Ok(())),
            ("fd12::1", 443, "a.b.sykehus.example", Ok(())),
            ("fd12::1", 443, "sykehus.example", Err(Range)),
            ("fd12::1", 443, "evilsykehus.example", Err(Range)),
            ("93.184.215.15", 9443, "aapen.example", Ok(())),
            ("93.184.215.15", 443, "aapen.example", Ok(())),
            ("93.184.215.15", 9444, "aapen.example", Err(Port)),
            ("10.0.0.1", 9443, "aapen.example", Err(Range)),
            ("10.0.0.1", 443, "alt.example", Ok(())),
            ("100.64.0.1", 443, "alt.example", Ok(())),
            ("127.0.0.1", 443, "alt.example", Err(Outside)),
            ("169.254.169.254", 443, "alt.example", Err(Range)),
            ("100.100.100.200", 443, "alt.example", Err(Range)),
            ("93.184.215.14", 443, "hvem.example", Err(Own)),
            ("10.30.0.1", 443, "10.30.0.1", Ok(())),
        ] {
            assert_eq!(check_address(address.parse().unwrap(), port, host, &policy), expected, "{address} {port} {host}");
        }
        for (url, expected) in [
            ("https://mottak.helse.example:8443/", Ok(())),
            ("https://MOTTAK.helse.example:8443/", Ok(())),
            ("https://mottak.helse.example:8444/", Err(Port)),
            ("https://10.30.0.1/", Ok(())),
            ("https://10.30.0.2/", Err(Range)),
            ("https://[fd12::7]/", Ok(())),
            ("https://[fd12::8]/", Err(Range)),
            ("https:/10.30.0.1/x://y", Err(NoUrl)),
        ] {
            assert_eq!(check_url(url, &policy).map(|_| ()), expected, "{url}");
        }
    }

    #[test]
    fn an_exception_is_read_strictly() {
        for host in
            ["", "*", "*.", "*.example", "a..b", "a.example.", ".a", "https://a.example", "a.example:443", "a b", "å.example", "10.0.0.0/8"]
        {
            assert_eq!(HostPattern::try_from(host.to_owned()), Err(InvalidHost), "{host}");
        }
        let read: Allowance = serde_json::from_str(r#"{"host":"*.Helse.example","cidr":"10.20.0.0/16"}"#).unwrap();
        assert_eq!(read, allowance("*.helse.example", 443, Some("10.20.0.0/16")));
        for text in [r#"{"host":"a.example","prot":1}"#, r#"{"host":"a.example","cidr":"10.20.0.1/16"}"#, r#"{"port":1}"#] {
            assert!(serde_json::from_str::<Allowance>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_refusal_names_an_address() {
        use Refusal::*;
        for refusal in [NoUrl, Scheme, UserInfo, NoHost, Fragment, HostName, Port, Range, Outside, Own] {
            let text = refusal.to_string();
            assert!(!text.contains("10.") && !text.contains("127") && !text.contains("::"), "{text}");
        }
    }
}
