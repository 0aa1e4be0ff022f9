//! HTTP/1.1: one exchange at a time on a connection, the request in one write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use http::{StatusCode, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession as ClientSession;
use pingora_core::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;
use tokenroute_domain::routing::Failure;
use tokio::io::AsyncWriteExt;

use super::WRITE_MAX;

/// Informational heads (1xx) that are skipped before the answer's.
const INFORMATIONAL_MAX: usize = 8;
/// How Pingora ends what it says of a connection that closed before the first byte of a head. Held
/// by a test against real connections.
const NOTHING_READ: &str = "bytes already read: 0";

/// A connection on which nothing has been said yet.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) reused: bool,
    pub(super) pool_key: u64,
}

impl Connection {
    /// Sends a whole request in one go.
    pub(super) async fn send(mut self, head: Option<&Bytes>, mut pieces: Vec<Bytes>) -> Exchange {
        let head = head.cloned().unwrap_or_default();
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        let framing = if length == 0 {
            Bytes::from_static(b"\r\n")
        } else {
            Bytes::from(format!("Content-Length: {length}\r\n\r\n"))
        };
        pieces.splice(..0, [head, framing]);
        let mut pieces = Pieces(pieces.into());
        let write = async {
            self.stream.write_all_buf(&mut pieces).await?;
            self.stream.flush().await
        };
        let written = matches!(timeout(WRITE_MAX, write).await, Ok(Ok(())));
        self.into_exchange(written)
    }

    /// Sends the head of a request whose body follows.
    pub(super) async fn begin(
        self,
        head: Option<&Bytes>,
        length: Option<u64>,
    ) -> Result<Exchange, Failure> {
        let mut head = head.and_then(|head| parse(head)).ok_or(Failure::Protocol)?;
        let framed = match length {
            Some(length) => head.insert_header(header::CONTENT_LENGTH, length),
            None => head.insert_header(header::TRANSFER_ENCODING, "chunked"),
        };
        framed.map_err(|_| Failure::Protocol)?;
        let mut exchange = self.into_exchange(true);
        exchange.session.write_timeout = Some(WRITE_MAX);
        let sent = exchange.session.write_request_header(Box::new(head)).await;
        exchange.written = sent.is_ok();
        Ok(exchange)
    }

    fn into_exchange(self, written: bool) -> Exchange {
        Exchange {
            session: ClientSession::new(self.stream),
            reused: self.reused,
            written,
            pool_key: self.pool_key,
        }
    }
}

/// A request, from the bytes that `send` writes.
fn parse(head: &[u8]) -> Option<RequestHeader> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let mut line = lines.next()?.split(' ');
    let (method, path) = (line.next()?, line.next()?);
    let mut head = RequestHeader::build(method, path.as_bytes(), Some(8)).ok()?;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        head.append_header(name.to_owned(), value).ok()?;
    }
    Some(head)
}

/// A request that was sent, or is being sent, and its answer.
pub(super) struct Exchange {
    session: ClientSession,
    reused: bool,
    written: bool,
    pool_key: u64,
}

impl Exchange {
    pub(super) async fn write(&mut self, part: &[u8]) {
        if self.written && !part.is_empty() {
            self.written = matches!(self.session.write_body(part).await, Ok(Some(_)));
        }
    }

    pub(super) async fn finish(&mut self) {
        if self.written {
            self.written = self.session.finish_body().await.is_ok();
        }
    }

    pub(super) const fn is_writable(&self) -> bool {
        self.written
    }

    pub(super) async fn head(&mut self) -> Result<ResponseHeader, Failure> {
        for informational in 0..INFORMATIONAL_MAX {
            if let Err(error) = self.session.read_response().await {
                return Err(self.broken(&error, informational > 0));
            }
            let head = self.session.resp_header().ok_or(Failure::Protocol)?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Failure::Protocol);
            }
            if !head.status.is_informational() {
                return Ok(head.clone());
            }
        }
        Err(Failure::Protocol)
    }

    /// What an error before the head means. A provider that has begun to answer has seen the request:
    /// that is no stale connection, however old.
    fn broken(&self, error: &Error, informed: bool) -> Failure {
        let silent =
            error.context.as_ref().is_some_and(|text| text.as_str().ends_with(NOTHING_READ));
        let kind = error.etype();
        if matches!(kind, ErrorType::ConnectionClosed | ErrorType::ReadError) {
            let stale = self.reused && silent && !informed;
            if stale { Failure::Stale } else { Failure::Reset }
        } else if *kind == ErrorType::ReadTimedout {
            Failure::HeadTimeout
        } else {
            Failure::Protocol
        }
    }

    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        self.session.read_body_bytes().await.map_err(|_| Failure::Cut)
    }

    pub(super) fn is_done(&mut self) -> bool {
        self.session.is_body_done()
    }

    /// The connection for another exchange, if it is fit for that.
    pub(super) async fn into_idle(mut self) -> Option<(Stream, u64)> {
        self.session.respect_keepalive();
        Some((self.session.reuse().await?, self.pool_key))
    }
}

/// Pieces of a request as one vectored write.
struct Pieces(VecDeque<Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.0.iter().filter(|piece| !piece.is_empty());
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.0.front_mut() {
            if first.len() > count {
                first.advance(count);
                return;
            }
            count = count.saturating_sub(first.len());
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_sequence() {
        let mut pieces = Pieces([&b"ab"[..], b"", b"cde", b"f"].map(Bytes::from_static).into());
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!((pieces.remaining(), pieces.chunks_vectored(&mut slices)), (6, 3));
        pieces.advance(3);
        assert_eq!(pieces.chunk(), b"de");
        pieces.advance(3);
        assert_eq!((pieces.remaining(), pieces.chunk()), (0, &b""[..]));
    }
}
