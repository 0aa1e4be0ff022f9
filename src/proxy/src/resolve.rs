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

use crate::egress::Egress;

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

/// Asks for the addresses of a name. An argument, so that tests can answer.
pub(crate) type Lookup =
    dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Every name that a snapshot uses. Outlives snapshots, so a reload forgets no address.
pub struct Resolver {
    hosts: Mutex<Hosts>,
    lookup: Arc<Lookup>,
}

#[derive(Debug, Default)]
struct Hosts {
    by_name: HashMap<(String, u16), Arc<Host>>,
    /// How many were made, those included that are forgotten.
    made: usize,
    egress: Arc<Egress>,
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
    pub(crate) fn new(lookup: Arc<Lookup>) -> Self {
        Self { hosts: Mutex::default(), lookup }
    }

    /// Asks the system, and lets names lead to where `egress` permits.
    pub fn allowing(egress: &Egress) -> Self {
        let resolver = Self::default();
        resolver.allow(egress);
        resolver
    }

    /// From the next snapshot on names may lead to where `egress` permits. What was found under other
    /// rules is forgotten.
    pub fn allow(&self, egress: &Egress) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if *hosts.egress != *egress {
            hosts.egress = Arc::new(egress.clone());
            hosts.by_name.clear();
        }
    }

    /// The entry of a name or a literal address.
    pub fn host(&self, name: &str, port: u16) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let Hosts { by_name, made, egress } = &mut *hosts;
        let host = by_name.entry((name.to_owned(), port)).or_insert_with(|| {
            let number = *made;
            *made = made.saturating_add(1);
            let rules = (Arc::clone(egress), Arc::clone(&self.lookup));
            Arc::new(Host::new((name.to_owned(), port), number, rules))
        });
        Arc::clone(host)
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
    /// Where it may lead.
    egress: Arc<Egress>,
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
    /// Whether the last look-up found addresses that may not be dialled.
    refused: bool,
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
    fn new(
        (name, port): (String, u16),
        number: usize,
        (egress, lookup): (Arc<Egress>, Arc<Lookup>),
    ) -> Self {
        let known = name.parse::<IpAddr>().map_or_else(
            |_| Known::default(),
            |address| {
                let permitted = egress.permits(&name, address).then_some(address);
                let all = permitted.map(|address| SocketAddr::new(address, port));
                let addresses = Arc::new(Addresses::new(all.into_iter().collect()));
                Known { addresses, forever: true, ..Known::default() }
            },
        );
        let known = ArcSwap::from_pointee(known);
        let asking = tokio::sync::Mutex::default();
        Self { name, port, number, known, lookup, egress, asking, asked: watch::Sender::new(()) }
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
        tokio::spawn(async move { host.ask_now().await });
    }

    /// Looks the name up, unless somebody else does.
    pub(crate) async fn ask_now(&self) {
        let Ok(one) = self.asking.try_lock() else { return };
        let lookup = (self.lookup)(self.name.clone(), self.port);
        let found = tokio::time::timeout(LOOKUP_MAX, lookup).await;
        self.note(found.ok().and_then(Result::ok).unwrap_or_default(), Instant::now());
        // Who has found it locked until here is told.
        drop(one);
        self.asked.send_replace(());
    }

    /// Keeps what a look-up found. One that found nothing, or an address that may not be dialled, leaves
    /// the last good addresses in place: those were permitted, and they are what is dialled.
    fn note(&self, found: Vec<SocketAddr>, now: Instant) {
        let before = self.known.load();
        let refused = !found.iter().all(|one| self.egress.permits(&self.name, one.ip()));
        if refused && !before.refused {
            tracing::warn!(
                host = self.name,
                "a provider's name leads to an address that [egress] does not allow"
            );
        }
        let known = if refused || found.is_empty() {
            let addresses = Arc::clone(&before.addresses);
            Known { addresses, found: before.found, failed: Some(now), forever: false, refused }
        } else {
            let addresses = before.addresses.renewed(found);
            Known { addresses, found: Some(now), failed: None, forever: false, refused }
        };
        self.known.store(Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Network;

    /// A resolver whose look-ups give these addresses of 127.0.0.0/8, and how many there were.
    fn resolver(last_bytes: &'static [u8]) -> (Resolver, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let lookup = move |_, port| -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(loopback(last_bytes, port))
            })
        };
        let resolver = Resolver::new(Arc::new(lookup));
        resolver.allow(&loopback_allowed());
        (resolver, count)
    }

    fn loopback_allowed() -> Egress {
        Egress::new(vec![Network::parse("127.0.0.0/8").unwrap()])
    }

    fn loopback(last_bytes: &[u8], port: u16) -> Vec<SocketAddr> {
        last_bytes.iter().map(|last| SocketAddr::from(([127, 0, 0, *last], port))).collect()
    }

    #[tokio::test]
    async fn literal_addresses_need_no_lookup() {
        let (resolver, lookups) = resolver(&[]);
        for (name, expected) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
            let addresses = resolver.host(name, 80).addresses().await.unwrap();
            assert_eq!(addresses.all(), [expected.parse().unwrap()]);
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_name_without_address_is_an_error_and_no_panic() {
        let host = Resolver::default().host("no-such-host.invalid", 80);
        assert_eq!(host.addresses().await.err(), Some(NoAddress));
    }

    #[tokio::test]
    async fn a_name_without_address_is_not_asked_for_each_call() {
        let (resolver, lookups) = resolver(&[]);
        for _ in 0..3 {
            assert_eq!(resolver.host("a", 1).addresses().await.err(), Some(NoAddress));
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn one_lookup_serves_all_who_wait() {
        let (resolver, lookups) = resolver(&[1, 2]);
        let host = resolver.host("a", 1);
        let all = futures_util::future::join_all((0..20).map(|_| host.addresses())).await;
        assert!(all.iter().all(|one| one.as_ref().unwrap().all() == loopback(&[1, 2], 1)));
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn entries_are_shared() {
        let (resolver, _) = resolver(&[]);
        assert!(Arc::ptr_eq(&resolver.host("a", 1), &resolver.host("a", 1)));
        assert_ne!(resolver.host("a", 1).number(), resolver.host("a", 2).number());
    }

    #[test]
    fn addresses_are_renewed_in_time_and_the_last_good_ones_last_five_minutes() {
        let (resolver, _) = resolver(&[]);
        let (host, start) = (resolver.host("a", 1), Instant::now());
        let plan = |seconds| host.known.load().plan(start + Duration::from_secs(seconds));
        let good = |seconds| host.known.load().good(start + Duration::from_secs(seconds)).is_ok();
        assert_eq!(plan(0), Plan::Wait(LOOKUP_MAX));
        host.note(loopback(&[1], 1), start);
        assert_eq!([plan(0), plan(29)], [Plan::Use; 2]);
        assert_eq!([plan(30), plan(34)], [Plan::Renew; 2]);
        // Nobody called for a while: the name is asked first, as the addresses may be others now.
        assert_eq!([plan(35), plan(299)], [Plan::Wait(PATIENCE); 2]);
        assert_eq!(plan(300), Plan::Wait(LOOKUP_MAX));
        host.note(Vec::new(), start + Duration::from_secs(100));
        assert_eq!([plan(100), plan(104)], [Plan::Use; 2]);
        assert_eq!(plan(105), Plan::Wait(PATIENCE));
        host.note(Vec::new(), start + Duration::from_secs(299));
        assert_eq!([plan(300), plan(303)], [Plan::Fail; 2]);
        assert_eq!(plan(304), Plan::Wait(LOOKUP_MAX));
        assert!(good(299) && !good(300));
        host.note(loopback(&[2], 1), start + Duration::from_secs(305));
        assert_eq!(plan(306), Plan::Use);
    }

    #[test]
    fn what_worked_is_remembered_while_it_is_there() {
        let before = Arc::new(Addresses::new(loopback(&[1, 2, 3], 1)));
        before.worked(1);
        assert!(Arc::ptr_eq(&before.renewed(loopback(&[3, 2, 1], 1)), &before));
        let fewer = before.renewed(loopback(&[4, 3, 2], 1));
        assert_eq!((fewer.first(), fewer.all()), (2, &*loopback(&[4, 3, 2], 1)));
        assert_eq!(fewer.renewed(loopback(&[5, 6], 1)).first(), 0);
    }

    #[tokio::test]
    async fn a_name_that_turns_private_is_not_followed_there() {
        let public = SocketAddr::from(([1, 2, 3, 4], 443));
        let answers = Arc::new(Mutex::new(vec![public]));
        let told = Arc::clone(&answers);
        let resolver = Resolver::new(Arc::new(move |_, _| {
            let found = told.lock().unwrap().clone();
            Box::pin(async move { Ok(found) })
        }));
        let host = resolver.host("rebinding.example", 443);
        assert_eq!(host.addresses().await.unwrap().all(), [public]);
        for private in ["127.0.0.1:443", "169.254.169.254:443", "[::1]:443", "10.0.0.1:443"] {
            // One that may not be dialled spoils the public one beside it.
            *answers.lock().unwrap() = vec![public, private.parse().unwrap()];
            host.ask_now().await;
            assert!(host.known.load().refused);
            assert_eq!(host.addresses().await.unwrap().all(), [public], "the vetted one stays");
            *answers.lock().unwrap() = vec![private.parse().unwrap()];
            let fresh = Resolver::new(Arc::clone(&resolver.lookup)).host("a.example", 443);
            assert_eq!(fresh.addresses().await.err(), Some(NoAddress), "{private}");
        }
        *answers.lock().unwrap() = vec![public];
        host.ask_now().await;
        assert!(!host.known.load().refused);
    }

    #[tokio::test]
    async fn other_rules_forget_what_was_found_under_the_old_ones() {
        let (resolver, lookups) = resolver(&[1]);
        let before = resolver.host("a", 1);
        assert!(before.addresses().await.is_ok());
        resolver.allow(&loopback_allowed());
        assert!(Arc::ptr_eq(&resolver.host("a", 1), &before));
        resolver.allow(&Egress::default());
        let after = resolver.host("a", 1);
        assert_ne!(after.number(), before.number());
        assert_eq!(after.addresses().await.err(), Some(NoAddress));
        assert_eq!(lookups.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_address_where_no_provider_can_be_is_not_dialled_though_it_was_typed() {
        let address = Resolver::default().host("169.254.169.254", 80).addresses().await;
        assert!(address.unwrap().all().is_empty());
    }
}
