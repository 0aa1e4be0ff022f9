//! Exchanges with providers over Pingora's connector: connect, send, read the answer, whatever the
//! version of HTTP. Which version it is decides the connection; nobody else has to know.

mod dial;
mod http1;
mod http2;
mod links;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::ALPN;
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::Failure;

pub(crate) use self::dial::Peers;
use self::links::{Links, Seat};
use crate::open::retry_after;
use crate::reply::Rejection;
use crate::snapshot::Provider;

/// Idle HTTP/1.1 connections kept to all providers together.
const POOL_MAX: usize = 4096;
/// Longest wait for a provider to take bytes.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Longest error body that is read, and how long that may take.
const ERROR_BODY_MAX: usize = 64 * 1024;
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);
/// How long a provider may take to close an answer that is over, for the sake of the connection.
const TRAILING_MAX: Duration = Duration::from_secs(1);

/// Connects to providers and keeps connections for other exchanges.
pub(crate) struct Connector {
    transport: TransportConnector,
    /// HTTP/2 connections by the host's number, and whether they are over TLS.
    links: Mutex<HashMap<(usize, bool), Arc<Links>>>,
    /// Whether a connection serves more than one exchange.
    keeps: bool,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Keeps idle connections.
    pub(crate) fn new() -> Self {
        Self::keeping(true)
    }

    /// Makes a connection for each exchange, and closes it after that.
    pub(crate) fn unpooled() -> Self {
        Self::keeping(false)
    }

    fn keeping(keeps: bool) -> Self {
        let transport = TransportConnector::new(Some(ConnectorOptions::new(POOL_MAX)));
        Self { transport, links: Mutex::default(), keeps }
    }

    /// A connection to the provider: one that there is if `pooled`, else a new one.
    pub(crate) async fn connect(
        &self,
        provider: &Arc<Provider>,
        pooled: bool,
        within: Duration,
    ) -> Result<Connection, Failure> {
        let now = Instant::now();
        let until = now.checked_add(within).unwrap_or(now);
        let mut late = Failure::Resolve;
        let connecting = async {
            let addresses = provider.host.addresses().await.map_err(|_| Failure::Resolve)?;
            late = Failure::Connect;
            let peers = provider.peers(addresses);
            if provider.http2 {
                Box::pin(self.share(provider, &peers, (pooled, until))).await
            } else {
                self.own(provider, &peers, (pooled, until)).await
            }
        };
        let connected = timeout(within, connecting).await;
        connected.unwrap_or(Err(late))
    }

    /// A connection for one exchange at a time.
    async fn own(
        &self,
        provider: &Arc<Provider>,
        peers: &Peers,
        (pooled, until): (bool, Instant),
    ) -> Result<Connection, Failure> {
        if pooled && let Some((stream, pool_key)) = peers.idle(&self.transport).await {
            let wire = http1::Connection { stream, reused: true, pool_key };
            return Ok(Connection::over_http1(provider, wire));
        }
        // Rare, and large: a call that finds a connection does not carry the room for it.
        let (stream, peer) = Box::pin(peers.dial(&self.transport, until)).await?;
        let wire = http1::Connection { stream, reused: false, pool_key: peer.pool_key };
        Ok(Connection::over_http1(provider, wire))
    }

    /// Room on a connection that other exchanges use too; one of its own if the provider turns out
    /// to speak HTTP/1.1 only.
    async fn share(
        &self,
        provider: &Arc<Provider>,
        peers: &Peers,
        (pooled, until): (bool, Instant),
    ) -> Result<Connection, Failure> {
        let asked = Instant::now();
        let links = self.links(provider);
        let pooled = pooled && self.keeps;
        if pooled && let Some(seat) = links.take(peers, None) {
            return Ok(Connection::over_http2(provider, seat));
        }
        if links.speaks_http1() {
            // Idle connections of HTTP/1.1 first. A provider that has learned HTTP/2 shows it then.
            if pooled && let Some((stream, pool_key)) = peers.idle(&self.transport).await {
                let wire = http1::Connection { stream, reused: true, pool_key };
                return Ok(Connection::over_http1(provider, wire));
            }
        }
        let _leave = links.leave_to_dial().await;
        // Somebody else may have connected meanwhile, which is as good as new.
        let after = (!pooled).then_some(asked);
        if self.keeps
            && let Some(seat) = links.take(peers, after)
        {
            return Ok(Connection::over_http2(provider, seat));
        }
        let (stream, peer) = Box::pin(peers.dial(&self.transport, until)).await?;
        let http2 = !provider.tls || matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        links.note_version(http2);
        if http2 {
            let idle = provider.deadlines.pool_idle;
            let seat = links.open(stream, (peer.address, idle), self.keeps).await?;
            return Ok(Connection::over_http2(provider, seat));
        }
        let wire = http1::Connection { stream, reused: false, pool_key: peer.pool_key };
        Ok(Connection::over_http1(provider, wire))
    }

    fn links(&self, provider: &Provider) -> Arc<Links> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(links.entry((provider.host.number(), provider.tls)).or_default())
    }

    /// Keeps the connection of a finished exchange for another one, if it is fit for that.
    pub(crate) async fn release(&self, exchange: Exchange) {
        let Exchange { wire, provider } = exchange;
        match wire {
            Wire::Http1(exchange) if self.keeps => {
                if let Some((stream, pool_key)) = exchange.into_idle().await {
                    let idle = provider.deadlines.pool_idle;
                    self.transport.release_stream(stream, pool_key, Some(idle));
                }
            }
            // Leaving its place on the connection is all there is to do.
            Wire::Http1(_) | Wire::Http2(_) => {}
        }
    }

    /// Waits a little for the end of an answer that is over for the client, then releases.
    pub(crate) async fn release_at_end(&self, mut exchange: Exchange) {
        let end = async { while let Ok(Some(_)) = exchange.read().await {} };
        if timeout(TRAILING_MAX, end).await.is_ok() {
            self.release(exchange).await;
        }
    }
}

/// A connection, or room on one, on which nothing has been said yet.
pub(crate) struct Connection {
    wire: Unused,
    provider: Arc<Provider>,
}

enum Unused {
    Http1(http1::Connection),
    Http2(Seat),
}

impl Connection {
    fn over_http1(provider: &Arc<Provider>, connection: http1::Connection) -> Self {
        Self { wire: Unused::Http1(connection), provider: Arc::clone(provider) }
    }

    fn over_http2(provider: &Arc<Provider>, seat: Seat) -> Self {
        Self { wire: Unused::Http2(seat), provider: Arc::clone(provider) }
    }

    /// Sends a whole request in one go. A provider may answer and close before it has read all of
    /// it, so a failed write is judged by whether an answer can be read.
    pub(crate) async fn send(
        self,
        endpoint: Endpoint,
        pieces: Vec<Bytes>,
    ) -> Result<Exchange, Failure> {
        let Self { wire, provider } = self;
        let wire = match wire {
            Unused::Http1(connection) => {
                Wire::Http1(connection.send(provider.head(endpoint), pieces).await)
            }
            Unused::Http2(seat) => {
                Wire::Http2(http2::Exchange::send(seat, (&provider, endpoint), pieces).await?)
            }
        };
        Ok(Exchange { wire, provider })
    }

    /// Sends the head of a request whose body follows by [`Exchange::write`].
    pub(crate) async fn begin(
        self,
        endpoint: Endpoint,
        length: Option<u64>,
    ) -> Result<Exchange, Failure> {
        let Self { wire, provider } = self;
        let wire = match wire {
            Unused::Http1(connection) => {
                Wire::Http1(connection.begin(provider.head(endpoint), length).await?)
            }
            Unused::Http2(seat) => {
                Wire::Http2(http2::Exchange::begin(seat, (&provider, endpoint), length)?)
            }
        };
        Ok(Exchange { wire, provider })
    }
}

/// A request that was sent, or is being sent, and its answer. Dropped before the end of its answer, it
/// tells the provider at once: its connection closes, or its stream is cancelled.
pub(crate) struct Exchange {
    wire: Wire,
    provider: Arc<Provider>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "HTTP/1.1 is the rule, and does without an allocation"
)]
enum Wire {
    Http1(http1::Exchange),
    Http2(http2::Exchange),
}

impl Exchange {
    /// Who answers.
    pub(crate) const fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Sends a part of the body. A failure shows when the head is read.
    pub(crate) async fn write(&mut self, part: &Bytes) {
        match &mut self.wire {
            Wire::Http1(exchange) => exchange.write(part).await,
            Wire::Http2(exchange) => exchange.write(part).await,
        }
    }

    /// Ends the body.
    pub(crate) async fn finish(&mut self) {
        match &mut self.wire {
            Wire::Http1(exchange) => exchange.finish().await,
            Wire::Http2(exchange) => exchange.finish(),
        }
    }

    /// Whether the provider still takes the body.
    pub(crate) const fn is_writable(&self) -> bool {
        match &self.wire {
            Wire::Http1(exchange) => exchange.is_writable(),
            Wire::Http2(exchange) => exchange.is_writable(),
        }
    }

    /// Reads the head of the answer.
    pub(crate) async fn head(&mut self) -> Result<ResponseHeader, Failure> {
        match &mut self.wire {
            Wire::Http1(exchange) => exchange.head().await,
            Wire::Http2(exchange) => exchange.head().await,
        }
    }

    /// Reads on in the body; `None` at its end. An early end of a framed body is an error.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        match &mut self.wire {
            Wire::Http1(exchange) => exchange.read().await,
            Wire::Http2(exchange) => exchange.read().await,
        }
    }

    /// Whether the body has been read to its end.
    pub(crate) fn is_done(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1(exchange) => exchange.is_done(),
            Wire::Http2(exchange) => exchange.is_done(),
        }
    }

    /// Reads an error answer within bounds and keeps of it what a client may see.
    pub(crate) async fn rejection(
        mut self,
        head: &ResponseHeader,
        connector: &Connector,
    ) -> Rejection {
        let mut body = Vec::new();
        let whole = async {
            while let Ok(Some(part)) = self.read().await {
                if body.len().saturating_add(part.len()) > ERROR_BODY_MAX {
                    return false;
                }
                body.extend_from_slice(&part);
            }
            self.is_done()
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
