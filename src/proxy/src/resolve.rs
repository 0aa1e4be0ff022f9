//! Addresses of providers: resolved without blocking, kept while they are good.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

/// How long an address is used before the name is asked again (system resolvers hide the TTL).
const FRESH: Duration = Duration::from_secs(30);
/// How long the last good address is used while the name has none.
const LAST_GOOD: Duration = Duration::from_mins(5);
/// How long one look-up may take.
const LOOKUP_MAX: Duration = Duration::from_secs(3);
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 16;

/// Every name that a snapshot uses. Outlives snapshots, so a reload forgets no address.
#[derive(Debug, Default)]
pub struct Resolver {
    hosts: Mutex<HashMap<(String, u16), Arc<Host>>>,
}

impl Resolver {
    /// The entry of a name or a literal address.
    pub fn host(&self, name: &str, port: u16) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            hosts
                .entry((name.to_owned(), port))
                .or_insert_with(|| Arc::new(Host::new(name.to_owned(), port))),
        )
    }
}

/// A name and what is known of its addresses.
#[derive(Debug)]
pub struct Host {
    name: String,
    port: u16,
    known: ArcSwapOption<Known>,
    /// Held by the one task that asks.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<SocketAddr>,
    since: Instant,
    /// A literal address never changes.
    forever: bool,
}

/// The name has no address that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress;

impl Host {
    fn new(name: String, port: u16) -> Self {
        let known = name.parse::<IpAddr>().ok().map(|address| {
            let addresses = vec![SocketAddr::new(address, port)];
            Arc::new(Known { addresses, since: Instant::now(), forever: true })
        });
        Self { name, port, known: ArcSwapOption::new(known), asking: tokio::sync::Mutex::new(()) }
    }

    /// An address to connect to: the cached one, or after one look-up shared by all who wait.
    pub(crate) async fn address(self: &Arc<Self>) -> Result<SocketAddr, NoAddress> {
        let known = self.known.load_full();
        if let Some(known) = &known {
            if known.forever || known.since.elapsed() < FRESH {
                return known.first();
            }
            if known.since.elapsed() < LAST_GOOD {
                self.ask_in_background();
                return known.first();
            }
        }
        let _one = self.asking.lock().await;
        let meanwhile = self.known.load_full();
        if let Some(known) = meanwhile.filter(|known| known.since.elapsed() < FRESH) {
            return known.first();
        }
        self.ask().await
    }

    fn ask_in_background(self: &Arc<Self>) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(_one) = host.asking.try_lock() {
                // A failure leaves the last good address in place until `LAST_GOOD` is over.
                let _still_good = host.ask().await;
            }
        });
    }

    async fn ask(&self) -> Result<SocketAddr, NoAddress> {
        let lookup = tokio::net::lookup_host((self.name.as_str(), self.port));
        let found = tokio::time::timeout(LOOKUP_MAX, lookup).await;
        let Ok(Ok(found)) = found else { return Err(NoAddress) };
        let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        let first = addresses.first().copied().ok_or(NoAddress)?;
        let known = Known { addresses, since: Instant::now(), forever: false };
        self.known.store(Some(Arc::new(known)));
        Ok(first)
    }
}

impl Known {
    fn first(&self) -> Result<SocketAddr, NoAddress> {
        self.addresses.first().copied().ok_or(NoAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literal_addresses_need_no_lookup() {
        let resolver = Resolver::default();
        for (name, expected) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
            let address = resolver.host(name, 80).address().await;
            assert_eq!(address, Ok(expected.parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn a_name_without_address_is_an_error_and_no_panic() {
        let host = Resolver::default().host("no-such-host.invalid", 80);
        assert_eq!(host.address().await, Err(NoAddress));
    }

    #[test]
    fn entries_are_shared() {
        let resolver = Resolver::default();
        assert!(Arc::ptr_eq(&resolver.host("a", 1), &resolver.host("a", 1)));
    }
}
