//! The addresses of a provider as peers to connect to, one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::Stream;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_timeout::timeout;
use tokenroute_domain::routing::Failure;

use crate::resolve::Addresses;
use crate::snapshot::Provider;

/// Into how many shares what is left of the deadline is cut, one for each address that follows.
const SHARES_MAX: usize = 3;

/// What to connect to: one peer for each address.
pub(crate) struct Peers {
    addresses: Arc<Addresses>,
    peers: Vec<Peer>,
}

/// One address of a provider.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What the pool of idle connections knows it by.
    pub(super) pool_key: u64,
    http: HttpPeer,
}

impl Provider {
    /// What to connect to; made once as long as the addresses stay.
    pub(super) fn peers(&self, addresses: Arc<Addresses>) -> Arc<Peers> {
        let known = self.peers.load_full();
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.addresses, &addresses)) {
            return known;
        }
        let peers = addresses.all().iter().map(|address| self.peer(*address)).collect();
        let peers = Arc::new(Peers { addresses, peers });
        self.peers.store(Some(Arc::clone(&peers)));
        peers
    }

    fn peer(&self, address: SocketAddr) -> Peer {
        let mut http = HttpPeer::new(address, self.tls, self.server_name.clone());
        http.options.idle_timeout = Some(self.deadlines.pool_idle);
        if self.http2 {
            http.options.set_http_version(2, 1);
        }
        Peer { address, pool_key: http.reuse_hash(), http }
    }
}

impl Peers {
    /// The peers, first the one whose address worked last.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Peer)> {
        let count = self.peers.len();
        let first = self.addresses.first();
        self.peers.iter().enumerate().cycle().skip(first).take(count)
    }

    /// Whether an address is still one of the provider's.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.peers.iter().any(|peer| peer.address == address)
    }

    /// An idle connection to any of the addresses, and what the pool knows it by.
    pub(super) async fn idle(&self, transport: &TransportConnector) -> Option<(Stream, u64)> {
        for (_, peer) in self.in_turn() {
            if let Some(stream) = transport.reused_stream(&peer.http).await {
                return Some((stream, peer.pool_key));
            }
        }
        None
    }

    /// A new connection. An address that refuses is left at once, one that is silent after its share
    /// of the deadline.
    pub(super) async fn dial(
        &self,
        transport: &TransportConnector,
        until: Instant,
    ) -> Result<(Stream, &Peer), Failure> {
        let mut left = self.peers.len();
        for (place, peer) in self.in_turn() {
            let rest = until.saturating_duration_since(Instant::now());
            let shares = u32::try_from(left.min(SHARES_MAX)).unwrap_or(1);
            let share = rest.checked_div(shares).unwrap_or(rest);
            left = left.saturating_sub(1);
            if let Ok(Ok(stream)) = timeout(share, transport.new_stream(&peer.http)).await {
                self.addresses.worked(place);
                return Ok((stream, peer));
            }
        }
        Err(Failure::Connect)
    }
}
