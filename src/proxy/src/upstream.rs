//! One exchange with a provider over Pingora's connector: connect, one write, read the head.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{StatusCode, header};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession as ClientSession;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::Failure;
use tokio::io::AsyncWriteExt;

use crate::open::retry_after;
use crate::reply::Rejection;
use crate::snapshot::Provider;

/// Idle connections kept to all providers together.
const POOL_MAX: usize = 4096;
/// Longest wait for a provider to take bytes.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Informational heads (1xx) that are skipped before the answer's.
const INFORMATIONAL_MAX: usize = 8;
/// Longest error body that is read, and how long that may take.
const ERROR_BODY_MAX: usize = 64 * 1024;
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);
/// How long a provider may take to close an answer that is over, for the sake of the connection.
const TRAILING_MAX: Duration = Duration::from_secs(1);

/// Connects to providers and keeps idle connections.
pub(crate) struct Connector(TransportConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub(crate) fn new() -> Self {
        Self(TransportConnector::new(Some(ConnectorOptions::new(POOL_MAX))))
    }

    /// A connection to the provider: an idle one if `pooled`, else a new one.
    pub(crate) async fn connect(
        &self,
        provider: &Arc<Provider>,
        pooled: bool,
        within: Duration,
    ) -> Result<Connection, Failure> {
        let address = provider.host.address().await.map_err(|_| Failure::Resolve)?;
        let peer = provider.peer(address);
        let found = async {
            if pooled {
                self.0.get_stream(&*peer).await
            } else {
                self.0.new_stream(&*peer).await.map(|stream| (stream, false))
            }
        };
        let found = timeout(within, found).await.map_err(|_| Failure::Connect)?;
        let (stream, reused) = found.map_err(|_| Failure::Connect)?;
        Ok(Connection {
            stream,
            reused,
            pool_key: peer.reuse_hash(),
            provider: Arc::clone(provider),
        })
    }

    /// Keeps the connection of a finished exchange for another one, if it is fit for that.
    pub(crate) async fn release(&self, mut exchange: Exchange) {
        exchange.session.respect_keepalive();
        if let Some(stream) = exchange.session.reuse().await {
            let idle = exchange.provider.deadlines.pool_idle;
            self.0.release_stream(stream, exchange.pool_key, Some(idle));
        }
    }

    /// Waits a little for the end of an answer that is over for the client, then releases.
    pub(crate) async fn release_at_end(&self, mut exchange: Exchange) {
        let end = async { while let Ok(Some(_)) = exchange.session.read_body_ref().await {} };
        if timeout(TRAILING_MAX, end).await.is_ok() {
            self.release(exchange).await;
        }
    }
}

impl Provider {
    /// What to connect to for an address; made once as long as the address stays.
    fn peer(&self, address: std::net::SocketAddr) -> Arc<HttpPeer> {
        let known = self.peer.load_full().filter(|known| known.0 == address);
        if let Some(known) = known {
            return Arc::clone(&known.1);
        }
        let mut peer = HttpPeer::new(address, self.tls, self.server_name.clone());
        peer.options.idle_timeout = Some(self.deadlines.pool_idle);
        let peer = Arc::new(peer);
        self.peer.store(Some(Arc::new((address, Arc::clone(&peer)))));
        peer
    }
}

/// A connection on which nothing has been said yet.
pub(crate) struct Connection {
    stream: Stream,
    pub(crate) reused: bool,
    pool_key: u64,
    provider: Arc<Provider>,
}

impl Connection {
    /// Sends a whole request in one go. A provider may answer and close before it has read all of
    /// it, so a failed write is judged by whether an answer can be read.
    pub(crate) async fn send(
        mut self,
        endpoint: Endpoint,
        mut pieces: Vec<Bytes>,
    ) -> Result<Exchange, Failure> {
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        let head = self.provider.head(endpoint).cloned().unwrap_or_default();
        let framing = Bytes::from(format!("Content-Length: {length}\r\n\r\n"));
        pieces.splice(..0, [head, framing]);
        let mut pieces = Pieces(pieces.into());
        let write = async {
            self.stream.write_all_buf(&mut pieces).await?;
            self.stream.flush().await
        };
        let written = matches!(timeout(WRITE_MAX, write).await, Ok(Ok(())));
        Ok(self.into_exchange(written))
    }

    /// Sends the head of a request whose body follows by [`Exchange::write`].
    pub(crate) async fn begin(
        self,
        endpoint: Endpoint,
        length: Option<u64>,
    ) -> Result<Exchange, Failure> {
        let mut head = self.provider.request(endpoint).ok_or(Failure::Protocol)?;
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
            provider: self.provider,
        }
    }
}

/// A request that was sent, or is being sent, and its answer.
pub(crate) struct Exchange {
    session: ClientSession,
    reused: bool,
    written: bool,
    pool_key: u64,
    provider: Arc<Provider>,
}

impl Exchange {
    /// Who answers.
    pub(crate) const fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Sends a part of the body. A failure shows when the head is read.
    pub(crate) async fn write(&mut self, part: &[u8]) {
        if self.written && !part.is_empty() {
            self.written = matches!(self.session.write_body(part).await, Ok(Some(_)));
        }
    }

    /// Ends the body.
    pub(crate) async fn finish(&mut self) {
        if self.written {
            self.written = self.session.finish_body().await.is_ok();
        }
    }

    /// Whether the provider still takes the body.
    pub(crate) const fn is_writable(&self) -> bool {
        self.written
    }

    /// Reads the head of the answer.
    pub(crate) async fn head(&mut self) -> Result<ResponseHeader, Failure> {
        for _ in 0..INFORMATIONAL_MAX {
            match self.session.read_response().await {
                Ok(_) => {}
                Err(error) => return Err(self.broken(&error)),
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

    /// What an error before the head means. `read_response` marks closed connections.
    fn broken(&self, error: &Error) -> Failure {
        let kind = error.etype();
        let closed = matches!(kind, ErrorType::ConnectionClosed | ErrorType::ReadError);
        if closed && self.reused {
            Failure::Stale
        } else if closed {
            Failure::Reset
        } else if *kind == ErrorType::ReadTimedout {
            Failure::HeadTimeout
        } else {
            Failure::Protocol
        }
    }

    /// Reads on in the body; `None` at its end. An early end of a framed body is an error.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        self.session.read_body_bytes().await.map_err(|_| Failure::Cut)
    }

    /// Whether the body has been read to its end.
    pub(crate) fn is_done(&mut self) -> bool {
        self.session.is_body_done()
    }

    /// Reads an error answer within bounds and keeps of it what a client may see.
    pub(crate) async fn rejection(
        mut self,
        head: &ResponseHeader,
        connector: &Connector,
    ) -> Rejection {
        let mut body = Vec::new();
        let whole = async {
            while let Ok(Some(part)) = self.session.read_body_ref().await {
                if body.len().saturating_add(part.len()) > ERROR_BODY_MAX {
                    return false;
                }
                body.extend_from_slice(part);
            }
            self.session.is_body_done()
        };
        let whole = timeout(ERROR_BODY_WAIT, whole).await.unwrap_or(false);
        let leaks = self.provider.leaks_credential(&body);
        if whole {
            connector.release(self).await;
        }
        let shown = whole && !leaks && tokenroute_wire::envelope::read_error(&body).is_some();
        Rejection {
            status: head.status.as_u16(),
            body: shown.then(|| Bytes::from(body)),
            retry_after: retry_after(head),
        }
    }
}

impl Provider {
    /// The head of a request for [`Connection::begin`], from the bytes that `send` writes.
    fn request(&self, endpoint: Endpoint) -> Option<RequestHeader> {
        let text = std::str::from_utf8(self.head(endpoint)?).ok()?;
        let mut lines = text.lines();
        let path = lines.next()?.split(' ').nth(1)?;
        let mut head = RequestHeader::build("POST", path.as_bytes(), Some(8)).ok()?;
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            head.append_header(name.to_owned(), value).ok()?;
        }
        Some(head)
    }
}

/// Pieces of a request as one vectored write.
struct Pieces(std::collections::VecDeque<Bytes>);

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
