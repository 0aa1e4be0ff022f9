//! The listening sockets: bound here, or inherited from a service manager or a predecessor.
//!
//! Both hand them over by systemd's protocol (`sd_listen_fds(3)`): numbers from 3 on, `LISTEN_FDS` of
//! them, named by `LISTEN_FDNAMES`. A predecessor leaves `LISTEN_PID` away, because nobody knows a
//! child's number before it runs, and adds one end of a socket pair on which it waits for a word.

use std::fmt::Display;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::Context;
use listenfd::ListenFd;

use super::Role;
use crate::config::{Environment, Plan};

/// Names the inherited descriptors, in their order, divided by colons.
pub(super) const NAMES: &str = "LISTEN_FDNAMES";
/// What the clients' socket is called in [`NAMES`].
pub(super) const EDGE: &str = "edge";
/// What the socket of the admin pages is called.
pub(super) const ADMIN: &str = "admin";
/// What the socket of the management plane is called.
pub(super) const CONTROL: &str = "control";
/// What the connection to a predecessor is called.
pub(super) const PREDECESSOR: &str = "predecessor";
/// What systemd calls a socket that its unit does not name; it is known by its address.
const NAMELESS: &str = "unknown";
/// Descriptors that are looked at; there are four at most that anybody means for us.
const INHERITED_MAX: usize = 16;
/// What a process says when it serves.
pub(super) const READY: &str = "ready";

/// What this process was started with.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    listeners: Vec<(String, TcpListener)>,
}

/// Takes what was inherited: sockets, and whoever started this process to take its place. To be called
/// once, before anything else opens a file.
pub(crate) fn inherit(environment: Environment<'_>) -> (Inherited, Predecessor) {
    let mut descriptors = ListenFd::from_env();
    let names = environment(NAMES).unwrap_or_default();
    let mut names = names.split(':');
    let (mut inherited, mut predecessor) = (Inherited::default(), Predecessor::default());
    for index in 0..descriptors.len().min(INHERITED_MAX) {
        let name = names.next().unwrap_or(NAMELESS);
        if name == PREDECESSOR {
            // To `listenfd`, which has no other word for it, a stream is a listener.
            let taken = descriptors.take_unix_listener(index).ok().flatten();
            predecessor = Predecessor(taken.map(|taken| OwnedFd::from(taken).into()));
        } else if let Ok(Some(listener)) = descriptors.take_tcp_listener(index) {
            inherited.listeners.push((name.to_owned(), listener));
        }
    }
    (inherited, predecessor)
}

impl Inherited {
    /// Takes the listener that has this name, or else this address and no name that we know.
    fn find(&mut self, name: &str, address: SocketAddr) -> Option<(bool, TcpListener)> {
        let named = self.listeners.iter().position(|(found, _)| found == name);
        let place = named.or_else(|| {
            self.listeners.iter().position(|(found, listener)| {
                ![EDGE, ADMIN, CONTROL].contains(&&**found)
                    && listener.local_addr().ok() == Some(address)
            })
        })?;
        Some((named.is_some(), self.listeners.swap_remove(place).1))
    }
}

/// The process whose place this one takes, as long as it waits for a word.
#[derive(Debug, Default)]
pub(crate) struct Predecessor(Option<UnixStream>);

impl Predecessor {
    /// Says that this process serves, so that the other can go; `false` if there is none.
    pub(super) fn ready(&mut self) -> std::io::Result<bool> {
        let Some(mut stream) = self.0.take() else { return Ok(false) };
        stream.write_all(READY.as_bytes()).map(|()| true)
    }

    /// Says why this process will not serve. Does nothing once it does.
    pub(crate) fn failed(&mut self, why: impl Display) {
        if let Some(mut stream) = self.0.take() {
            // If it does not listen any more, it knows already.
            write!(stream, "{why}").unwrap_or_default();
        }
    }
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: TcpListener,
    /// The address that the configuration names, which is how the frame knows it.
    pub(super) address: SocketAddr,
    /// Whether the service manager named it. Else it is known by its address.
    pub(super) named: bool,
}

/// The sockets of a process.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) edge: Socket,
    pub(super) admin: Socket,
    /// None where no management is served.
    pub(super) control: Option<Socket>,
}

impl Sockets {
    /// Takes the sockets that `role` needs from what was inherited, and binds those that are not there.
    pub(super) fn open(plan: &Plan, role: Role, mut inherited: Inherited) -> anyhow::Result<Self> {
        let mut open = |setting: &str, name, address| {
            let (named, listener) = match inherited.find(name, address) {
                Some(found) => found,
                None => (
                    false,
                    TcpListener::bind(address)
                        .with_context(|| format!("{setting}: cannot listen on {address}"))?,
                ),
            };
            listener.set_nonblocking(true)?;
            anyhow::Ok(Socket { listener, address, named })
        };
        let edge = open("listen.address", EDGE, plan.listen.address)?;
        let admin = open("admin.address", ADMIN, plan.admin)?;
        let managing = (role != Role::Edge).then_some(plan.control.address);
        let control =
            managing.map(|address| open("control.address", CONTROL, address)).transpose()?;
        for (name, listener) in inherited.listeners {
            let address = listener.local_addr().map_or_else(|_| String::new(), |at| at.to_string());
            tracing::warn!(
                name,
                address,
                "an inherited socket is not used: it has no known name or address"
            );
        }
        Ok(Self { edge, admin, control })
    }

    /// The sockets of a process that serves no calls: the operators' pages and the management plane.
    pub(super) fn without_edge(plan: &Plan) -> anyhow::Result<(Socket, Socket)> {
        let bind = |setting: &str, address| {
            let listener = TcpListener::bind(address)
                .with_context(|| format!("{setting}: cannot listen on {address}"))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(Socket { listener, address, named: false })
        };
        Ok((bind("admin.address", plan.admin)?, bind("control.address", plan.control.address)?))
    }

    /// Copies for a successor, each with the name that it is to know it by.
    pub(super) fn copies(&self) -> std::io::Result<Vec<(&'static str, OwnedFd)>> {
        let control = self.control.as_ref().map(|socket| (CONTROL, socket));
        let sockets = [(EDGE, &self.edge), (ADMIN, &self.admin)].into_iter().chain(control);
        let copy = |(name, socket): (&'static str, &Socket)| {
            let name = if socket.named { name } else { NAMELESS };
            Ok((name, OwnedFd::from(socket.listener.try_clone()?)))
        };
        sockets.map(copy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[test]
    fn a_name_goes_before_an_address() {
        let ((first, one), (second, two)) = (listener(), listener());
        let listeners = vec![(NAMELESS.to_owned(), one), (EDGE.to_owned(), two)];
        let mut inherited = Inherited { listeners };
        let (named, found) = inherited.find(EDGE, first).unwrap();
        assert!(named && found.local_addr().unwrap() == second);
        let (named, found) = inherited.find(ADMIN, first).unwrap();
        assert!(!named && found.local_addr().unwrap() == first);
        assert!(inherited.find(EDGE, first).is_none());
    }

    #[test]
    fn what_is_named_for_something_else_is_not_taken() {
        let (address, one) = listener();
        let mut inherited = Inherited { listeners: vec![(ADMIN.to_owned(), one)] };
        assert!(inherited.find(EDGE, address).is_none());
        assert!(inherited.find(ADMIN, address).is_some());
    }

    #[test]
    fn a_predecessor_hears_one_word() {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let mut predecessor = Predecessor(Some(theirs));
        assert!(predecessor.ready().unwrap());
        predecessor.failed("too late");
        assert_eq!(std::io::read_to_string(mine).unwrap(), READY);
        assert!(!predecessor.ready().unwrap());
    }
}
