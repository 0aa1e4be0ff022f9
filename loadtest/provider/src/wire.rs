//! One connection's socket: reads into an inbox, writes, and waits while it watches for the client's leaving.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Room made for one read.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that a client may send ahead while an answer is being written; beyond it they stay in the kernel.
const AHEAD_BYTES_MAX: usize = 256 * 1024;
/// Time for written bytes to arrive on the same host before a reset.
const ARRIVAL: Duration = Duration::from_millis(30);
/// Longest that a fault holds a connection open.
pub(crate) const HANG_MAX: Duration = Duration::from_hours(1);

/// The client closed or reset the connection (a half-close counts as one).
#[derive(Debug)]
pub(crate) struct Gone;

/// A socket and what has arrived on it and was not used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    pub(crate) inbox: BytesMut,
    /// All bytes written, heads and framing included.
    pub(crate) sent_bytes: u64,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, inbox: BytesMut::with_capacity(READ_BYTES), sent_bytes: 0 }
    }

    /// Waits for more bytes; `Gone` at their end.
    pub(crate) async fn fill(&mut self) -> Result<usize, Gone> {
        if self.inbox.capacity().saturating_sub(self.inbox.len()) < READ_BYTES / 4 {
            self.inbox.reserve(READ_BYTES);
        }
        match self.stream.read_buf(&mut self.inbox).await {
            Ok(0) | Err(_) => Err(Gone),
            Ok(count) => Ok(count),
        }
    }

    /// Writes all of `bytes` with as few writes as the socket takes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(bytes).await.map_err(gone)?;
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.sent_bytes = self.sent_bytes.saturating_add(count);
        Ok(())
    }

    /// Waits for `duration`, or shorter when the client leaves.
    pub(crate) async fn pause(&mut self, duration: Duration) -> Result<(), Gone> {
        if duration.is_zero() { Ok(()) } else { self.pause_until(Instant::now() + duration).await }
    }

    /// Waits until `deadline`, or shorter when the client leaves.
    pub(crate) async fn pause_until(&mut self, deadline: Instant) -> Result<(), Gone> {
        let sleep = tokio::time::sleep_until(deadline);
        tokio::pin!(sleep);
        loop {
            let watching = self.inbox.len() < AHEAD_BYTES_MAX;
            tokio::select! {
                biased;
                () = &mut sleep => return Ok(()),
                filled = self.fill(), if watching => { filled?; }
            }
        }
    }

    /// Stays silent until the client leaves or an hour is over.
    pub(crate) async fn hang(&mut self) -> Gone {
        match self.pause(HANG_MAX).await {
            Ok(()) | Err(Gone) => Gone,
        }
    }

    /// Reads and forgets what the client still sends, for at most `duration`, so that closing sends a FIN
    /// and not a reset that would tear the answer from the client's hands.
    pub(crate) async fn drain(&mut self, duration: Duration) {
        let all = async {
            while self.fill().await.is_ok() {
                self.inbox.clear();
            }
        };
        drop(tokio::time::timeout(duration, all).await);
    }

    /// Sends a FIN; the client may still send.
    pub(crate) async fn finish(&mut self) -> Result<(), Gone> {
        self.stream.shutdown().await.map_err(gone)
    }

    /// Makes the coming close a reset. What was written has time to arrive before: a reset forgets what
    /// is still on its way, and a test could not tell what the other side was given.
    pub(crate) async fn arm_reset(&self) -> Result<(), Gone> {
        tokio::time::sleep(ARRIVAL).await;
        self.stream.set_zero_linger().map_err(gone)
    }
}

fn gone(_: io::Error) -> Gone {
    Gone
}
