//! Pingora's listening services on runtimes of ours. Its own server would bind the sockets, wait for
//! signals and sleep through a grace period that nobody can shorten; of all that it does nothing.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::ServerApp;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::server::{Fds, ListenFds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_runtime::{Runtime, RuntimeBuilder};
use tokenroute_control::Parts;
use tokenroute_proxy::admin::Admin;
use tokenroute_proxy::connections::Connections;
use tokenroute_proxy::door::Door;
use tokenroute_proxy::frame;
use tokenroute_proxy::gateway::Gateway;
use tokenroute_proxy::lifecycle::Lifecycle;
use tokenroute_proxy::listener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::certificates::Certificates;
use super::control::Control;
use super::http2;
use super::sockets::{Socket, Sockets};
use crate::config::Plan;

/// For a listener that cannot be built to say so. What goes wrong there goes wrong at once.
const PROOF: Duration = Duration::from_millis(50);
/// For the edge's runtime to drop what is left after the end of all calls.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// The services that listen, running.
pub(super) struct Frame {
    edge: Runtime,
    admin: tokio::runtime::Runtime,
    /// None where no management is served.
    control: Option<Control>,
    /// Kept for a successor; `None` once nothing is accepted here.
    sockets: Option<Sockets>,
    /// Turns true when the edge accepts no more.
    stop: watch::Sender<bool>,
    /// The same for the admin pages, which stay as long as there is something to see.
    stop_pages: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Frame {
    /// Accepts on `sockets` from now on.
    pub(super) fn start(
        plan: &Plan,
        sockets: Sockets,
        (gateway, door, pages, managing): (Gateway, Door, Admin, Option<Parts>),
        lifecycle: &Lifecycle,
        certificates: Option<&Arc<Certificates>>,
    ) -> anyhow::Result<Self> {
        // One thread has nobody to steal from, and does with a seventh less work.
        let steal = plan.listen.threads > 1;
        let edge = RuntimeBuilder::new(plan.listen.threads, "edge").work_steal(steal).build();
        let admin = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("admin")
            .enable_all()
            .build()?;

        let app = Arc::new(edge_app(plan, gateway, lifecycle));
        let tls = certificates.map(Certificates::settings).transpose()?;
        let tls = tls.map(|settings| Arc::<Acceptor>::new(settings.build()));
        let stop = watch::Sender::new(false);
        let listener = {
            let _runtime = edge.get_handle().enter();
            tokio::net::TcpListener::from_std(sockets.edge.listener.try_clone()?)?
        };
        let serving = listener::serve(listener, (door, tls), app, stop.subscribe());
        let accepting = edge.get_handle().spawn(serving);

        let stop_pages = watch::Sender::new(false);
        admin.spawn(serve_pages(&sockets.admin, pages, stop_pages.subscribe())?);
        let control = match (managing, &sockets.control) {
            (Some(parts), Some(socket)) => {
                Some(Control::start(parts, socket, stop_pages.subscribe())?)
            }
            (_, _) => None,
        };
        Ok(Self { edge, admin, control, sockets: Some(sockets), stop, stop_pages, accepting })
    }

    /// The threads of the calls.
    pub(super) fn runtime(&self) -> &Handle {
        self.edge.get_handle()
    }

    /// Copies of the sockets for a successor; none if nothing is accepted here any more.
    pub(super) fn sockets(&self) -> Option<&Sockets> {
        self.sockets.as_ref()
    }

    /// Accepts no more connections of clients. Those that are open go on.
    pub(super) fn stop_accepting(&mut self) {
        self.sockets = None;
        self.stop.send_replace(true);
    }

    /// Leaves the admin pages to the successor, but for what was asked here already.
    pub(super) fn yield_pages(&self) {
        self.stop_pages.send_replace(true);
    }

    /// Fails if the edge does not accept. To be asked before anybody relies on it.
    pub(super) async fn prove(&mut self) -> anyhow::Result<()> {
        let broken = timeout(PROOF, self.broken()).await.is_ok();
        anyhow::ensure!(!broken, "the edge does not accept");
        Ok(())
    }

    /// Returns if the edge has stopped to accept without being told to, which nothing but a defect
    /// can bring about.
    pub(super) async fn broken(&mut self) {
        // Its result says no more than that it is over.
        drop((&mut self.accepting).await);
    }

    /// Drops whatever is left. A call that is still there leaves its record by that.
    pub(super) fn end(self) {
        self.stop_pages.send_replace(true);
        if let Some(control) = self.control {
            control.end();
        }
        self.edge.shutdown_timeout(RUNTIME_END);
        self.admin.shutdown_timeout(RUNTIME_END);
    }
}

/// The gateway and its connections.
fn edge_app(plan: &Plan, gateway: Gateway, lifecycle: &Lifecycle) -> Connections<frame::Frame> {
    let settings = frame::Settings {
        h2c: plan.listen.h2c,
        requests_max: plan.sizes.requests_per_connection_max,
        http2: http2::options(),
        http2_idle: plan.limits.keepalive,
    };
    let app = frame::Frame::new(gateway, settings);
    Connections::new(app, lifecycle.clone())
}

/// The operators' pages on a copy of `socket`, until `stop`.
pub(super) fn serve_pages(
    socket: &Socket,
    pages: Admin,
    stop: ShutdownWatch,
) -> std::io::Result<impl Future<Output = ()> + use<>> {
    let mut service = Service::new("admin".to_owned(), HttpServer::new_app(pages));
    service.add_tcp(&socket.address.to_string());
    serve(service, socket, stop)
}

/// A service on a copy of `socket`, until `stop`.
fn serve<A: ServerApp + Send + Sync + 'static>(
    mut service: Service<A>,
    socket: &Socket,
    stop: ShutdownWatch,
) -> std::io::Result<impl Future<Output = ()> + use<A>> {
    // The frame finds a socket by its address, and owns what it finds.
    let copy: TcpListener = socket.listener.try_clone()?;
    let sockets: ListenFds = Arc::new(Fds::new().into());
    sockets.lock().add(socket.address.to_string(), copy.into_raw_fd());
    Ok(async move { service.start_service(Some(sockets), stop, 1).await })
}
