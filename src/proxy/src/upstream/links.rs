//! HTTP/2 connections to one provider, each shared by many exchanges.
//!
//! **Isolation:** an exchange whose reader stalls holds back its own stream and no other. Every stream
//! may fill its window at once and still leave room in the connection's, and a window opens again only
//! as far as its reader has read.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use pingora_core::protocols::Stream;
use tokenroute_domain::routing::Failure;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Peers;

/// Exchanges at once on a connection; fewer if the provider says so.
const STREAMS_MAX: u32 = 100;
/// Exchanges at once on a connection until the provider has said what it allows.
const STREAMS_FIRST: usize = 32;
/// What a provider may send of one answer before it is read: a few hundred events, and large bodies
/// still come with more than a megabyte a second from another continent.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Room for every stream's window: no reader can take another one's.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// What unread frames may cost beside their bytes, until the connection is given up: enough for
/// every stream's window full of frames of 32 bytes, at 256 bytes each.
const FRAMES_BUDGET: usize = 100 * 1024 * 1024;
/// Fields of an answer's head, in bytes.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Cancelled streams whose late frames are ignored, and for how long.
const CANCELLED_MAX: usize = 4096;
const CANCELLED_FOR: Duration = Duration::from_secs(5);
/// Streams that a provider's own faults may cost, until the connection is given up.
const FAULTY_MAX: usize = 16 * 1024;
/// How often a connection in use is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_MAX: Duration = Duration::from_secs(10);
/// Connections that are being made at once. Those who wait mostly find room on what the first made.
const DIALS_MAX: usize = 4;
/// Connections kept; those beyond serve one exchange each.
const LINKS_MAX: usize = 1024;

/// The connections to one provider.
pub(super) struct Links {
    open: Mutex<Vec<Arc<Link>>>,
    dials: Semaphore,
    /// Whether the provider chose HTTP/1.1 when it was asked last.
    http1: AtomicBool,
}

impl Default for Links {
    fn default() -> Self {
        let dials = Semaphore::new(DIALS_MAX);
        Self { open: Mutex::default(), dials, http1: AtomicBool::new(false) }
    }
}

/// One connection.
struct Link {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
    born: Instant,
    usage: Mutex<Usage>,
}

/// How a connection is used.
struct Usage {
    /// Exchanges on it now.
    seats: usize,
    /// When that number last changed.
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Room on a connection to one of the provider's addresses; only on one that is younger than
    /// `after`, if that is given. Connections that take nothing more are forgotten.
    pub(super) fn take(&self, peers: &Peers, after: Option<Instant>) -> Option<Seat> {
        let mut open = lock(&self.open);
        // One to an address that is no longer the provider's ends with its last exchange.
        open.retain(|link| peers.contains(link.address));
        let mut place = 0;
        while let Some(link) = open.get(place) {
            if after.is_some_and(|after| link.born < after) || !link.sit() {
                place = place.saturating_add(1);
                continue;
            }
            let link = Arc::clone(link);
            // Ready at once, or closed or closing.
            if let Some(Ok(sender)) = link.sender.clone().ready().now_or_never() {
                return Some(Seat { sender, reused: after.is_none(), link });
            }
            link.leave();
            open.remove(place);
        }
        None
    }

    /// Whether the provider is known to speak HTTP/1.1 only.
    pub(super) fn speaks_http1(&self) -> bool {
        self.http1.load(Ordering::Relaxed)
    }

    /// Takes note of the version that the provider chose.
    pub(super) fn note_version(&self, http2: bool) {
        self.http1.store(!http2, Ordering::Relaxed);
    }

    /// Waits until one more connection may be made; at once if it will be none to share.
    pub(super) async fn leave_to_dial(&self) -> Option<SemaphorePermit<'_>> {
        if self.speaks_http1() { None } else { self.dials.acquire().await.ok() }
    }

    /// Makes a connection of a stream and takes the first seat on it.
    pub(super) async fn open(
        self: &Arc<Self>,
        stream: Stream,
        (address, idle): (SocketAddr, Duration),
        shared: bool,
    ) -> Result<Seat, Failure> {
        let opened = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(STREAMS_FIRST)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(FRAMES_BUDGET)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_reset_streams(CANCELLED_MAX)
            .reset_stream_duration(CANCELLED_FOR)
            .max_local_error_reset_streams(Some(FAULTY_MAX))
            .handshake(stream)
            .await;
        let (sender, connection) = opened.map_err(|_| Failure::Connect)?;
        let now = Instant::now();
        let usage = Mutex::new(Usage { seats: 1, since: now });
        let link = Arc::new(Link { sender: sender.clone(), address, born: now, usage });
        if shared {
            let mut open = lock(&self.open);
            if open.len() < LINKS_MAX {
                open.push(Arc::clone(&link));
            }
        }
        let driven = Driven { link: Arc::downgrade(&link), links: Arc::downgrade(self), idle };
        tokio::spawn(driven.drive(connection));
        Ok(Seat { sender, reused: false, link })
    }

    fn forget(&self, link: &Weak<Link>) {
        lock(&self.open).retain(|one| !std::ptr::eq(Arc::as_ptr(one), link.as_ptr()));
    }
}

impl Link {
    /// Takes a seat, if one is free.
    fn sit(&self) -> bool {
        let most = self.sender.current_max_send_streams();
        let most = most.min(usize::try_from(STREAMS_MAX).unwrap_or(most));
        let mut usage = lock(&self.usage);
        let free = usage.seats < most;
        if free {
            *usage = Usage { seats: usage.seats.saturating_add(1), since: Instant::now() };
        }
        free
    }

    fn leave(&self) {
        let mut usage = lock(&self.usage);
        *usage = Usage { seats: usage.seats.saturating_sub(1), since: Instant::now() };
    }
}

/// Room for one exchange on a connection, until it is dropped.
pub(super) struct Seat {
    pub(super) sender: SendRequest<Bytes>,
    /// Whether the connection was there before it was asked for.
    pub(super) reused: bool,
    link: Arc<Link>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.link.leave();
    }
}

/// What carries a connection's frames. It holds the connection open for nobody.
struct Driven {
    link: Weak<Link>,
    links: Weak<Links>,
    /// How long it is kept without an exchange.
    idle: Duration,
}

impl Driven {
    /// Carries frames until the connection is over: because the provider closes it, because nobody
    /// uses it, or because it is dead.
    async fn drive(self, mut connection: Connection<Stream, Bytes>) {
        let mut heart = connection.ping_pong().map(Heart::new);
        let mut look =
            tokio::time::interval((self.idle / 4).clamp(Duration::from_millis(10), PING_EVERY / 4));
        loop {
            tokio::select! {
                biased;
                _over = &mut connection => break,
                alive = beat(&mut heart) => if !alive { break },
                _ = look.tick() => {
                    let used = self.link.upgrade().is_some_and(|link| self.is_used(&link));
                    if !used {
                        self.forget();
                    } else if let Some(heart) = &mut heart && !heart.look(Instant::now()) {
                        break;
                    }
                }
            }
        }
        self.forget();
    }

    /// Whether it carries exchanges, or did so lately.
    fn is_used(&self, link: &Link) -> bool {
        let usage = lock(&link.usage);
        usage.seats > 0 || usage.since.elapsed() < self.idle
    }

    fn forget(&self) {
        if let Some(links) = self.links.upgrade() {
            links.forget(&self.link);
        }
    }
}

/// Finds out whether the other side is still there: a network that has gone says nothing.
struct Heart {
    pings: PingPong,
    asked: Option<Instant>,
    heard: Instant,
}

impl Heart {
    fn new(pings: PingPong) -> Self {
        Self { pings, asked: None, heard: Instant::now() }
    }

    /// Asks when it is time. False: there was no answer in time.
    fn look(&mut self, now: Instant) -> bool {
        match self.asked {
            Some(asked) => now.saturating_duration_since(asked) < PONG_MAX,
            None if now.saturating_duration_since(self.heard) < PING_EVERY => true,
            None => {
                self.asked = Some(now);
                self.pings.send_ping(Ping::opaque()).is_ok()
            }
        }
    }
}

/// Waits for the answer to a ping. False: there will be none.
async fn beat(heart: &mut Option<Heart>) -> bool {
    match heart {
        Some(heart) if heart.asked.is_some() => {
            let pong = poll_fn(|context| heart.pings.poll_pong(context)).await;
            (heart.asked, heart.heard) = (None, Instant::now());
            pong.is_ok()
        }
        Some(_) | None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_does_not_answer_is_dead() {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let (_sender, mut connection) = Builder::new().handshake::<_, Bytes>(here).await.unwrap();
        let mut heart = Some(Heart::new(connection.ping_pong().unwrap()));
        let driven = tokio::spawn(connection);
        let start = Instant::now();
        let look = |heart: &mut Option<Heart>, seconds| {
            heart.as_mut().unwrap().look(start + Duration::from_secs(seconds))
        };
        // Asked after ten seconds, dead after ten more.
        assert!(look(&mut heart, 9) && heart.as_ref().unwrap().asked.is_none());
        assert!(look(&mut heart, 11) && heart.as_ref().unwrap().asked.is_some());
        assert!(look(&mut heart, 20));
        assert!(!look(&mut heart, 21));
        // One that answers after all is asked again later.
        let served = tokio::spawn(async move {
            let mut connection = h2::server::handshake(there).await.unwrap();
            while let Some(Ok(_)) = connection.accept().await {}
        });
        assert!(beat(&mut heart).await);
        assert!(heart.as_ref().unwrap().asked.is_none() && look(&mut heart, 9));
        served.abort();
        driven.abort();
    }
}
