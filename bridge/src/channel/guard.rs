//! From a host to the addresses that may be connected to.
//!
//! Runs before every new connection, so that a name whose addresses change under us (rebinding)
//! opens nothing. Must never give an address that the policy has not passed, nor connect to a name.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use ryggrad_bridge_core::egress::{EgressPolicy, check_address};

use super::fault;

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The addresses of a name, when they are there.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Finds the addresses of a name.
pub trait Resolve: Send + Sync {
    /// All of them, asked anew.
    fn resolve(&self, host: &str) -> Resolving;
}

/// As the system finds them.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// As a function says.
impl<F: Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync> Resolve for F {
    fn resolve(&self, host: &str) -> Resolving {
        Box::pin(std::future::ready(self(host)))
    }
}

/// The addresses of a host that the policy opens, at least one.
pub async fn open_addresses(resolver: &dyn Resolve, policy: &EgressPolicy, host: &str, port: u16) -> Result<Vec<SocketAddr>, &'static str> {
    // A literal needs no look-up, and is checked all the same.
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => resolver.resolve(host).await.map_err(|_| fault::RESOLVE)?,
    };
    if found.is_empty() {
        return Err(fault::RESOLVE);
    }
    let open = found.into_iter().filter(|address| check_address(*address, port, host, policy).is_ok());
    let open: Vec<SocketAddr> = open.take(ADDRESSES_MAX).map(|address| SocketAddr::new(address, port)).collect();
    if open.is_empty() { Err(fault::EGRESS_REFUSED) } else { Ok(open) }
}
