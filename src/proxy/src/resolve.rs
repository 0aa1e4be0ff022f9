//! Addresses of providers: looked up without blocking, kept while they are good.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// How long addresses are used before the name is asked again (system resolvers hide the TTL).
const FRESH: Duration = Duration::from_secs(30);
/// How much longer they are used while the name is being asked again.
const RENEWING: Duration = Duration::from_secs(5);
/// How long the last good addresses are used while the name has none.
const LAST_GOOD: Duration = Duration::from_mins(5);
/// How long after a look-up that failed there is another one.
const RETRY: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const LOOKUP_MAX: Duration = Duration::from_secs(3);
/// How long a call waits for a look-up when it could use the last good addresses.
const PATIENCE: Duration = Duration::from_millis(500);
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 16;

/// Asks for the addresses of a name.
type Lookup =
    dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Every name that a snapshot uses. Outlives snapshots, so a reload forgets no address.
pub struct Resolver {
    hosts: Mutex<HashMap<(String, u16), Arc<Host>>>,
    lookup: Arc<Lookup>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Default for Resolver {
    /// Asks the system.
    fn default() -> Self {
        Self::new(Arc::new(|name, port| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name.as_str(), port)).await?;
                Ok(found.take(ADDRESSES_MAX).collect())
            })
        }))
    }
}

impl Resolver {
    fn new(lookup: Arc<Lookup>) -> Self {
        Self { hosts: Mutex::default(), lookup }
    }

    /// The entry of a name or a literal address.
    pub fn host(&self, name: &str, port: u16) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let number = hosts.len();
        Arc::clone(hosts.entry((name.to_owned(), port)).or_insert_with(|| {
            Arc::new(Host::new((name.to_owned(), port), number, Arc::clone(&self.lookup)))
        }))
    }
}

/// Addresses of one name.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    all: Vec<SocketAddr>,
    /// The place of the one that is tried first.
    first: AtomicUsize,
}

impl Addresses {
    fn new(all: Vec<SocketAddr>) -> Self {
        Self { all, first: AtomicUsize::new(0) }
    }

    /// In the order in which they were found.
    pub(crate) fn all(&self) -> &[SocketAddr] {
        &self.all
    }

    /// The place of the one that worked last.
    pub(crate) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    /// The address at a place took a connection.
    pub(crate) fn worked(&self, place: usize) {
        self.first.store(place, Ordering::Relaxed);
    }

    /// These, with what is known of them, or others that were found. The same ones in another order
    /// are nothing new.
    fn renewed(self: &Arc<Self>, mut found: Vec<SocketAddr>) -> Arc<Self> {
        found.truncate(ADDRESSES_MAX);
        let same = found.len() == self.all.len() && found.iter().all(|one| self.all.contains(one));
        if same {
            return Arc::clone(self);
        }
        let worked = self.all.get(self.first());
        let first = found.iter().position(|one| Some(one) == worked).unwrap_or_default();
        Arc::new(Self { all: found, first: AtomicUsize::new(first) })
    }
}

/// A name and what is known of its addresses.
pub struct Host {
    name: String,
    port: u16,
    number: usize,
    known: ArcSwap<Known>,
    lookup: Arc<Lookup>,
    /// Held by the one task that asks.
    asking: tokio::sync::Mutex<()>,
    /// Tells that a look-up is over.
    asked: watch::Sender<()>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    addresses: Arc<Addresses>,
    /// When they were found; `None`: never, so there are none.
    found: Option<Instant>,
    /// When the last look-up was over that found none.
    failed: Option<Instant>,
    /// A literal address never changes.
    forever: bool,
}

/// What is done for a call that wants addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It uses what is known.
    Use,
    /// It uses what is known, and the name is asked meanwhile.
    Renew,
    /// It waits for a look-up, so long at most, and uses what is known then.
    Wait(Duration),
    /// There are none.
    Fail,
}

impl Known {
    fn plan(&self, now: Instant) -> Plan {
        let age = |since: Instant| now.saturating_duration_since(since);
        let failed_lately = self.failed.is_some_and(|failed| age(failed) < RETRY);
        match self.found.map(age) {
            _ if self.forever => Plan::Use,
            Some(found) if found < FRESH => Plan::Use,
            Some(found) if found < LAST_GOOD && failed_lately => Plan::Use,
            Some(found) if found < FRESH.saturating_add(RENEWING) => Plan::Renew,
            Some(found) if found < LAST_GOOD => Plan::Wait(PATIENCE),
            Some(_) | None if failed_lately => Plan::Fail,
            Some(_) | None => Plan::Wait(LOOKUP_MAX),
        }
    }

    /// The addresses, if they may be used.
    fn good(&self, now: Instant) -> Result<Arc<Addresses>, NoAddress> {
        let found = self.found.map(|found| now.saturating_duration_since(found));
        let good = self.forever || found.is_some_and(|found| found < LAST_GOOD);
        if good { Ok(Arc::clone(&self.addresses)) } else { Err(NoAddress) }
    }
}

/// The name has no address that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress;

impl Host {
    fn new((name, port): (String, u16), number: usize, lookup: Arc<Lookup>) -> Self {
        let known = name.parse::<IpAddr>().map_or_else(
            |_| Known::default(),
            |address| Known {
                addresses: Arc::new(Addresses::new(vec![SocketAddr::new(address, port)])),
                forever: true,
                ..Known::default()
            },
        );
        let known = ArcSwap::from_pointee(known);
        let asking = tokio::sync::Mutex::default();
        Self { name, port, number, known, lookup, asking, asked: watch::Sender::new(()) }
    }

    /// Which of the resolver's entries it is.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }

    /// Addresses to connect to: the known ones, or after one look-up shared by all who wait.
    pub(crate) async fn addresses(self: &Arc<Self>) -> Result<Arc<Addresses>, NoAddress> {
        let known = self.known.load();
        let wait = match known.plan(Instant::now()) {
            Plan::Use => return Ok(Arc::clone(&known.addresses)),
            Plan::Renew => {
                self.ask();
                return Ok(Arc::clone(&known.addresses));
            }
            Plan::Wait(wait) => wait,
            Plan::Fail => return Err(NoAddress),
        };
        drop(known);
        let mut asked = self.asked.subscribe();
        self.ask();
        // Out of time, what is known has to do.
        let _in_time = tokio::time::timeout(wait, asked.changed()).await;
        self.known.load().good(Instant::now())
    }

    /// Starts a look-up, if there is none under way. It goes on whoever leaves meanwhile.
    fn ask(self: &Arc<Self>) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(one) = host.asking.try_lock() else { return };
            let lookup = (host.lookup)(host.name.clone(), host.port);
            let found = tokio::time::timeout(LOOKUP_MAX, lookup).await;
            host.note(found.ok().and_then(Result::ok).unwrap_or_default(), Instant::now());
            // Who finds it locked until here is told.
            drop(one);
            host.asked.send_replace(());
        });
    }

    /// Keeps what a look-up found. One that found nothing leaves the last good addresses in place.
    fn note(&self, found: Vec<SocketAddr>, now: Instant) {
        let before = self.known.load();
        let known = if found.is_empty() {
            let addresses = Arc::clone(&before.addresses);
            Known { addresses, found: before.found, failed: Some(now), forever: false }
        } else {
            let addresses = before.addresses.renewed(found);
            Known { addresses, found: Some(now), failed: None, forever: false }
        };
        self.known.store(Arc::new(known));
    }
}
