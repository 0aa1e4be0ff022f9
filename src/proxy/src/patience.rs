//! A client's connection whose patience has an end: how long it may take to begin, and how long a request's
//! head may take from its first byte to its last. Pingora bounds each read alone, so a byte now and
//! then keeps a connection for ever.
//!
//! A timer runs only while a read waits for the rest of a head; a head that comes in one piece costs none.
//! The chunks of a body are held against the standard on their way, because Pingora's parser is kind to
//! line ends that others read otherwise.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use memchr::memmem;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokenroute_wire::head::{Chunks, Flaw};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::floods::Watch;
use crate::gather::Gathered;

/// What an HTTP/2 connection without TLS begins with (RFC 9113, section 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take, and how much it may send, before a request's head is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// For the first byte of a connection.
    pub(crate) first: Duration,
    /// From a head's first byte to its last.
    pub(crate) head: Duration,
    /// Bytes after which no more are read of a head.
    pub(crate) head_bytes_max: usize,
}

/// Where a connection is in its request; shared with who serves it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    came: Mutex<Came>,
    chunks: Mutex<Chunks>,
}

/// What has come with a head that may announce chunks: the head, and what is behind it.
#[derive(Debug, Default)]
struct Came {
    /// Bytes before those that are kept.
    skipped: usize,
    bytes: Vec<u8>,
}

/// Nothing has come yet.
const FRESH: u8 = 0;
/// A head has begun.
const BEGUN: u8 = 1;
/// A head is complete: what comes now has other bounds.
const SERVING: u8 = 2;
/// A request is over, and another may follow.
const KEPT: u8 = 3;
/// A head has taken too long.
const LATE: u8 = 4;
/// A head is too long.
const LONG: u8 = 5;
/// A head is complete and announces chunks.
const CHUNKED: u8 = 6;
/// What came was no chunk.
const BROKEN: u8 = 7;
/// An HTTP/2 client has asked for too much beside its requests.
const FLOODED: u8 = 8;

/// Why a head was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It took too long.
    Late,
    /// It is too long.
    Long,
}

impl Progress {
    /// The head is complete.
    pub(crate) fn serving(&self) {
        self.set(SERVING);
    }

    /// The head is complete, in so many bytes, and announces chunks. `Err` if what has come of them is
    /// none.
    pub(crate) fn chunked(&self, head_bytes: usize) -> Result<(), Flaw> {
        let came = std::mem::take(&mut *lock(&self.0.came));
        let behind = head_bytes.saturating_sub(came.skipped);
        let mut chunks = Chunks::default();
        chunks.feed(came.bytes.get(behind..).unwrap_or_default())?;
        *lock(&self.0.chunks) = chunks;
        self.set(CHUNKED);
        Ok(())
    }

    /// The request is over.
    pub(crate) fn kept(&self) {
        self.set(KEPT);
    }

    /// Why the head was given up, if it was.
    pub(crate) fn tried(&self) -> Option<Tried> {
        match self.phase() {
            LATE => Some(Tried::Late),
            LONG => Some(Tried::Long),
            _ => None,
        }
    }

    /// Whether it was given up for what it asks for beside its requests.
    pub(crate) fn is_flooded(&self) -> bool {
        self.phase() == FLOODED
    }

    fn phase(&self) -> u8 {
        self.0.phase.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        self.0.phase.store(phase, Ordering::Relaxed);
    }

    fn give_up(&self, phase: u8) -> io::Error {
        self.set(phase);
        io::ErrorKind::TimedOut.into()
    }
}

/// One task has both sides: nobody is waited for.
fn lock<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's connection. It is what it wraps in all but the patience of its reads.
#[derive(Debug)]
pub(crate) struct Patient {
    inner: Stream,
    waits: Waits,
    progress: Progress,
    /// Runs while a read waits in a head.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes of the head so far.
    head_bytes: usize,
    /// Read already, to find out what is spoken, and how much of it has been handed on.
    peeked: Vec<u8>,
    handed: usize,
    /// Whether what has come of the head is kept.
    keeps: bool,
    /// The preface of an HTTP/2 connection is its only head.
    is_http2: bool,
    /// Looks at what goes to and fro in HTTP/2.
    watch: Option<Box<Watch>>,
    /// What goes out with the next flush. HTTP/2 gathers by itself.
    gathered: Gathered,
}

impl Patient {
    pub(crate) fn new(inner: Stream, waits: Waits, progress: Progress) -> Self {
        Self {
            inner,
            waits,
            progress,
            timer: None,
            head_bytes: 0,
            peeked: Vec::new(),
            handed: 0,
            keeps: false,
            is_http2: false,
            watch: None,
            gathered: Gathered::default(),
        }
    }

    /// Whether HTTP/2 is spoken: agreed on with TLS or, if `unasked`, begun without asking. Reads no more
    /// than it takes to know.
    pub(crate) async fn speaks_http2(&mut self, unasked: bool) -> io::Result<bool> {
        if self.inner.get_ssl_digest().is_some() {
            self.is_http2 = matches!(self.inner.selected_alpn_proto(), Some(ALPN::H2));
        } else if unasked {
            let mut bytes = [0; PREFACE.len()];
            while self.peeked.len() < PREFACE.len() && PREFACE.starts_with(&self.peeked) {
                let room = bytes.get_mut(self.peeked.len()..).unwrap_or_default();
                let mut room = ReadBuf::new(room);
                std::future::poll_fn(|cx| self.poll_patiently(cx, &mut room)).await?;
                if room.filled().is_empty() {
                    break;
                }
                self.peeked.extend_from_slice(room.filled());
            }
            self.is_http2 = self.peeked == PREFACE;
        }
        Ok(self.is_http2)
    }

    /// Has what goes to and fro looked at from here on.
    pub(crate) fn watch(&mut self, watch: Watch) {
        self.watch = Some(Box::new(watch));
    }

    /// Sends what was gathered.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered.poll_send(&mut self.inner, cx)
    }

    /// What was read already to find out what is spoken, else what comes.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(rest) = self.peeked.get(self.handed..).filter(|rest| !rest.is_empty()) {
            let count = rest.len().min(buf.remaining());
            buf.put_slice(rest.get(..count).unwrap_or_default());
            self.handed = self.handed.saturating_add(count);
            return Poll::Ready(Ok(()));
        }
        self.poll_patiently(cx, buf)
    }

    /// Gives up a client that asks for too much beside its requests, and tells it if it listens.
    fn end_flood(&mut self, cx: &mut Context<'_>) -> io::Error {
        if let Some(frame) = self.watch.as_deref().and_then(Watch::farewell) {
            let _told = Pin::new(&mut self.inner).poll_write(cx, &frame);
            let _told = Pin::new(&mut self.inner).poll_flush(cx);
        }
        self.progress.set(FLOODED);
        io::Error::other("too many frames beside requests")
    }

    /// Reads from the connection, within its patience.
    fn poll_patiently(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.progress.phase();
        match phase {
            SERVING => {
                self.forget();
                return Pin::new(&mut self.inner).poll_read(cx, buf);
            }
            CHUNKED => {
                self.forget();
                return self.poll_chunks(cx, buf);
            }
            KEPT => self.forget(),
            LATE | LONG | FLOODED => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            BROKEN => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            // A read that comes after so many bytes says that the head does not end in them.
            _ if self.head_bytes > self.waits.head_bytes_max => {
                return Poll::Ready(Err(self.progress.give_up(LONG)));
            }
            _ => {}
        }
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            self.took(buf.filled().get(before..).unwrap_or_default(), phase);
            return Poll::Ready(read);
        }
        let Some(wait) = self.wait(phase) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(self.progress.give_up(LATE)))
    }

    /// How long this phase lasts at most. Between two requests it is the server's to say.
    fn wait(&self, phase: u8) -> Option<Duration> {
        match phase {
            FRESH => Some(self.waits.first),
            BEGUN => Some(self.waits.head),
            _ => None,
        }
    }

    /// Takes note of bytes that have come while a head is incomplete.
    fn took(&mut self, bytes: &[u8], phase: u8) {
        if bytes.is_empty() {
            return;
        }
        // Chunks may come with the head that announces them, and with a piece of it.
        if phase == BEGUN || memmem::find(bytes, b"chunked").is_some() {
            let mut came = lock(&self.progress.0.came);
            if !self.keeps {
                *came = Came { skipped: self.head_bytes, bytes: Vec::new() };
            }
            came.bytes.extend_from_slice(bytes);
            self.keeps = true;
        }
        self.head_bytes = self.head_bytes.saturating_add(bytes.len());
        if self.is_http2 && self.head_bytes >= PREFACE.len() {
            self.progress.serving();
        } else if phase != BEGUN {
            // The time for the first byte is over, and that for the head begins.
            self.timer = None;
            self.progress.set(BEGUN);
        }
    }

    /// Forgets a head that is complete.
    fn forget(&mut self) {
        self.timer = None;
        self.head_bytes = 0;
        if self.keeps {
            *lock(&self.progress.0.came) = Came::default();
            self.keeps = false;
        }
    }

    /// Reads on in a body that comes in chunks.
    fn poll_chunks(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        let sound = lock(&self.progress.0.chunks).feed(came);
        Poll::Ready(sound.map_err(|_| {
            self.progress.set(BROKEN);
            io::ErrorKind::InvalidData.into()
        }))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.poll_next(cx, buf);
        let came = buf.filled().get(before..).unwrap_or_default();
        let flooded = self.watch.as_mut().is_some_and(|watch| watch.received(came).is_err());
        if flooded { Poll::Ready(Err(self.end_flood(cx))) } else { read }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_http2 {
            if self.gathered.take(buf) {
                return Poll::Ready(Ok(buf.len()));
            }
            ready!(self.poll_gathered(cx))?;
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let (Some(watch), Poll::Ready(Ok(count))) = (&mut self.watch, &written) {
            watch.sent(&[io::IoSlice::new(buf)], *count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_http2 {
            if let Some(count) = self.gathered.take_all(bufs) {
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_gathered(cx))?;
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let (Some(watch), Poll::Ready(Ok(count))) = (&mut self.watch, &written) {
            watch.sent(bufs, *count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Patient {
    async fn shutdown(&mut self) {
        // Nobody is waited for: who does not take it now has had its time.
        let _sent = std::future::poll_fn(|cx| Poll::Ready(self.poll_gathered(cx))).await;
        self.inner.shutdown().await;
    }
}

impl UniqueID for Patient {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Patient {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Patient {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Patient {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Patient {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

/// What is spoken has been found out before anybody could ask.
impl Peek for Patient {}
