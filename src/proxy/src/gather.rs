//! What goes out, gathered into one write: an answer's head, a chunk's size, the chunk and its end are written
//! one by one, and each would be a system call and a packet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Bytes that are gathered. What is longer goes out as it is.
const GATHERED_MAX: usize = 16 * 1024;
/// Room that is kept for the next write: enough for a few events.
const KEPT_MAX: usize = 2 * 1024;

/// Bytes that were taken and not sent.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    sent: usize,
}

impl Gathered {
    /// Takes these bytes, if there is room for all of them.
    pub(crate) fn take(&mut self, buf: &[u8]) -> bool {
        self.take_all(&[IoSlice::new(buf)]).is_some()
    }

    /// Takes all of these, if there is room for them. How many bytes they are.
    pub(crate) fn take_all(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        let count = bufs.iter().map(|buf| buf.len()).fold(0, usize::saturating_add);
        if self.bytes.len().saturating_add(count) > GATHERED_MAX {
            return None;
        }
        for buf in bufs {
            self.bytes.extend_from_slice(buf);
        }
        Some(count)
    }

    /// Sends what was taken.
    pub(crate) fn poll_send<W: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(count);
        }
        self.sent = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn send(gathered: &mut Gathered, to: &mut Vec<u8>) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(gathered.poll_send(to, &mut cx), Poll::Ready(Ok(()))));
    }

    #[test]
    fn what_was_taken_goes_out_once_and_in_order() {
        let (mut gathered, mut to) = (Gathered::default(), Vec::new());
        assert!(gathered.take(b"head ") && gathered.take(b"5\r\n") && gathered.take(b"event"));
        send(&mut gathered, &mut to);
        send(&mut gathered, &mut to);
        assert_eq!(to, b"head 5\r\nevent");
    }

    #[test]
    fn there_is_a_bound_and_little_is_kept() {
        let (mut gathered, mut to) = (Gathered::default(), Vec::new());
        let most = vec![b'x'; GATHERED_MAX];
        assert!(gathered.take(&most) && !gathered.take(b"y"));
        send(&mut gathered, &mut to);
        assert!(to == most && gathered.bytes.capacity() <= KEPT_MAX);
    }
}
