//! Accepts connections of clients and hands them to Pingora's application. The frame's own loop begins a
//! handshake with whoever comes, and sleeps when descriptors run out.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::ServerApp;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::l4::stream::Stream as Socket;
use pingora_core::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_core::services::listening::Service;
use pingora_timeout::timeout;
use tokio::net::{TcpListener, TcpStream};

use crate::door::{Door, Place};

/// For a whole TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a failed accept. Without descriptors each would fail at once, over and over.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Serves who comes in through `door` to `listener`, until `stop`. Returns when what was idle is closed.
pub async fn serve<A: ServerApp + Send + Sync + 'static>(
    listener: TcpListener,
    (door, tls): (Door, Option<Arc<Acceptor>>),
    app: Arc<A>,
    mut stop: ShutdownWatch,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Nobody is left to tell it, or it was told.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((socket, address)) => {
                let Some(place) = door.enter(address.ip()) else { continue };
                let connection = (socket, address, place);
                tokio::spawn(connect(connection, tls.clone(), Arc::clone(&app), stop.clone()));
            }
            Err(error) => {
                if !is_of_client(&error) {
                    tracing::error!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    app.cleanup().await;
}

/// Whether it was the client that left before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// One connection, from its handshake to its end.
async fn connect<A: ServerApp + Send + Sync + 'static>(
    (socket, address, _place): (TcpStream, SocketAddr, Place),
    tls: Option<Arc<Acceptor>>,
    app: Arc<A>,
    stop: ShutdownWatch,
) {
    let Some(socket) = prepare(socket, address) else { return };
    let stream: Stream = match tls {
        None => Box::new(socket),
        // Who fails has told why to nobody but itself, and an address is never logged.
        // On the heap for its own time only: a connection does not hold its room.
        Some(tls) => match Box::pin(timeout(HANDSHAKE, tls.tls_handshake(socket))).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(_)) | Err(_) => return,
        },
    };
    Service::<A>::handle_event(stream, app, stop).await;
}

/// The socket in the frame's form. `None` if it is closed already.
fn prepare(socket: TcpStream, address: SocketAddr) -> Option<Socket> {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    // It is new: nobody has set it before.
    let _set = digest.peer_addr.set(Some(address.into()));
    let mut socket = Socket::from(socket);
    socket.set_nodelay().ok()?;
    socket.set_socket_digest(digest);
    Some(socket)
}
