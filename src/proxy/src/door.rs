//! Who may connect: a bound on all connections, and one on those from one place. A connection that may
//! not stay is closed before anything is read or a handshake is begun; no answer is owed to it yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::governor::Governor;

/// Bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All at once.
    pub connections_max: usize,
    /// From one IPv4 address or one IPv6 network of 64 bits; 0: no bound, as behind a load balancer.
    pub per_source_max: usize,
}

/// Lets connections in. Clones share everything.
#[derive(Clone, Debug)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    governor: Governor,
    open: AtomicUsize,
    /// Sources that have connections: never more than there are connections.
    sources: Mutex<HashMap<Source, usize>>,
    refused: Refused,
}

/// Connections that were not let in, by the reason.
#[derive(Debug)]
struct Refused {
    total: IntCounter,
    source: IntCounter,
    memory: IntCounter,
}

/// Where a connection comes from: who has one address of an IPv6 network has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Address(std::net::Ipv4Addr),
    Network(u64),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => Self::Network(network(address)),
        }
    }
}

fn network(address: Ipv6Addr) -> u64 {
    u64::try_from(address.to_bits() >> 64).unwrap_or_default()
}

impl Door {
    /// A door that tells `registry` whom it did not let in.
    pub fn new(
        bounds: Bounds,
        governor: Governor,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let refused = IntCounterVec::new(
            Opts::new(
                "tokenroute_connections_refused_total",
                "Connections closed at once, by the reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        let refused = Refused {
            total: refused.with_label_values(&["total"]),
            source: refused.with_label_values(&["source"]),
            memory: refused.with_label_values(&["memory"]),
        };
        let (open, sources) = (AtomicUsize::new(0), Mutex::default());
        Ok(Self(Arc::new(Inner { bounds, governor, open, sources, refused })))
    }

    /// A place for a connection from `address`; `None` if there is none.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let inner = &self.0;
        if inner.governor.refuses_connections() {
            inner.refused.memory.inc();
            return None;
        }
        // Counted first, so that no two take the last place; uncounted by the drop.
        let mut place = Place { door: self.clone(), source: None };
        if inner.open.fetch_add(1, Ordering::AcqRel) >= inner.bounds.connections_max {
            inner.refused.total.inc();
            return None;
        }
        if inner.bounds.per_source_max > 0 {
            let source = Source::of(address);
            if !inner.take(source) {
                inner.refused.source.inc();
                return None;
            }
            place.source = Some(source);
        }
        Some(place)
    }
}

impl Inner {
    fn sources(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, source: Source) -> bool {
        let mut sources = self.sources();
        let open = sources.entry(source).or_default();
        let free = *open < self.bounds.per_source_max;
        *open = open.saturating_add(usize::from(free));
        free
    }

    fn give_back(&self, source: Source) {
        let mut sources = self.sources();
        if let Some(open) = sources.get_mut(&source) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                sources.remove(&source);
            }
        }
    }
}

/// One connection that was let in.
#[derive(Debug)]
#[must_use = "the connection counts as long as this is kept"]
pub(crate) struct Place {
    door: Door,
    source: Option<Source>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            self.door.0.give_back(source);
        }
        self.door.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(connections_max: usize, per_source_max: usize) -> Door {
        let registry = Registry::new();
        let governor = Governor::new(&registry, 10).unwrap();
        Door::new(Bounds { connections_max, per_source_max }, governor, &registry).unwrap()
    }

    fn from(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn no_more_than_there_are_places() {
        let door = door(2, 0);
        let first = door.enter(from("192.0.2.1"));
        let _second = door.enter(from("192.0.2.1")).unwrap();
        assert!(door.enter(from("192.0.2.2")).is_none());
        drop(first);
        assert!(door.enter(from("192.0.2.2")).is_some());
    }

    #[test]
    fn a_source_has_its_own_bound_and_leaves_nothing_behind() {
        let door = door(100, 2);
        let two: Vec<_> = (0..2).map(|_| door.enter(from("192.0.2.1")).unwrap()).collect();
        assert!(door.enter(from("192.0.2.1")).is_none());
        // The same address in its IPv6 form.
        assert!(door.enter(from("::ffff:192.0.2.1")).is_none());
        assert!(door.enter(from("192.0.2.2")).is_some());
        let own: Vec<_> = ["2001:db8::1", "2001:db8::2:1"].map(|one| door.enter(from(one))).into();
        assert!(own.iter().all(Option::is_some));
        assert!(door.enter(from("2001:db8::3:1")).is_none());
        assert!(door.enter(from("2001:db8:0:1::1")).is_some());
        drop((two, own));
        assert!(door.0.sources().is_empty());
        assert_eq!(door.0.open.load(Ordering::Acquire), 0);
    }

    #[test]
    fn without_memory_nobody_comes_in() {
        let door = door(100, 0);
        door.0.governor.set_memory(96, 100);
        assert!(door.enter(from("192.0.2.1")).is_none());
        door.0.governor.set_memory(70, 100);
        assert!(door.enter(from("192.0.2.1")).is_some());
    }
}
