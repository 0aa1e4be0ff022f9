//! Runs the gateway: opens what it needs, wires the layers, serves until told to end, and leaves
//! nothing unwritten.

mod certificates;
mod control;
mod descriptors;
mod frame;
mod http2;
mod log;
mod memory;
mod money;
pub(crate) mod presence;
mod reload;
mod room;
mod rules;
mod settings;
mod signals;
mod sockets;
mod store_metrics;
mod stores;
mod successor;
mod supervisor;
mod welcome;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokenroute_domain::journal::Ended;
use tokenroute_proxy::admin::Admin;
use tokenroute_proxy::gateway::{Gateway, Parts};
use tokenroute_proxy::lifecycle::Lifecycle;
use tokenroute_proxy::limits::Limiter;
use tokenroute_proxy::metrics::Metrics;
use tokenroute_proxy::outbox::Outbox;
use tokenroute_proxy::probe::Prober;
use tokenroute_proxy::resolve::Resolver;
use tokenroute_proxy::snapshot::Snapshot;
use tokenroute_proxy::targets::Targets;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, watch};

use self::certificates::Certificates;
use self::frame::Frame;
use self::presence::Presence;
use self::reload::Reloader;
use self::room::Room;
use self::signals::Signals;
use self::sockets::{Inherited, Predecessor, Sockets};
use self::store_metrics::StoreMetrics;
use self::stores::{KeyDirectory, Stores};
use self::successor::Program;
use self::supervisor::{Edge, Supervisor};
use crate::config::{Kept, Plan, Watch};
use crate::state::{self, State};

pub(crate) use self::sockets::inherit;
pub(crate) use self::successor::READY_WITHIN;

/// What a process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Everything.
    #[default]
    All,
    /// Serves calls. The books are kept in order by others.
    Edge,
    /// Keeps the books in order: posts, sweeps, checks. It serves operators' pages and no calls.
    Control,
}

/// What was there when the process was started.
pub(crate) struct Start<'a> {
    /// What it does.
    pub(crate) role: Role,
    /// The configuration file, watched for changes.
    pub(crate) path: Option<&'a Path>,
    /// The sockets that were handed to it.
    pub(crate) inherited: Inherited,
    /// Who waits for it to serve.
    pub(crate) predecessor: &'a mut Predecessor,
}

/// Does what its role is, as `plan` says, until it is told to end.
pub(crate) fn run(plan: Plan, start: Start<'_>) -> anyhow::Result<()> {
    log::start(&plan.log)?;
    plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match start.role {
        Role::All | Role::Edge => serve(plan, start),
        Role::Control => control(plan, start),
    }
}

/// Keeps the books in order.
fn control(plan: Plan, start: Start<'_>) -> anyhow::Result<()> {
    let watch = start.path.map(Watch::new);
    let background = background()?;
    let mut signals = background.block_on(async { Signals::listen() })?;
    let state = state::open(&plan.state)?;
    let (outbox, ended) = Outbox::new(1);
    let opened = open(plan, (start.path, start.role), (&state, ended));
    let (stores, plan, kept) = background.block_on(opened)?;
    let metrics = metrics(&stores)?;
    let (targets, heard) = Targets::new(&metrics);
    let resolver = Arc::new(Resolver::default());
    let table = Snapshot::new(plan.settings(1, 0), (&resolver, &targets), &metrics);
    let snapshot = Arc::new(ArcSwap::from_pointee(table));
    let (lifecycle, page_outbox) = (Lifecycle::default(), outbox.clone());
    let hosts = plan.admin_hosts.clone();
    let (socket, managing) = Sockets::without_edge(&plan)?;
    let shared = (start.path, Arc::clone(&snapshot));
    let parts = control::parts(&plan, (&managing, start.role), (&state, &stores), shared)?;
    let (table, counted) = (Arc::clone(&snapshot), metrics.clone());
    let pages = Admin { lifecycle, metrics, outbox: page_outbox, snapshot, hosts };
    let changes = stores.watch_settings(background.handle(), &kept.settings);
    let (file, used) = (start.path.map(Path::to_owned), (plan, stores.database.clone()));
    stores.share_targets(background.handle(), &targets, heard);
    let tables = (table, resolver, targets, counted);
    let reloader = Reloader::new((file, kept, changes), used, tables, None, (0, u64::MAX));
    background.spawn(reloader.run(signals.hangup.take(), watch));
    let stop = watch::Sender::new(false);
    background.block_on(invite(Some(&parts)));
    let managing = control::Control::start(parts, &managing, stop.subscribe())?;
    let serving = {
        let _runtime = background.enter();
        frame::serve_pages(&socket, pages, stop.subscribe())?
    };
    background.spawn(serving);
    if !start.predecessor.ready().context("the predecessor cannot be told")? {
        supervisor::notify(&[NotifyState::Ready]);
    }
    tracing::info!("keeping the books");
    background.block_on(async {
        while signals.next().await == signals::Request::Upgrade {
            tracing::warn!("a process that serves no calls is started anew, not upgraded");
        }
    });
    stop.send_replace(true);
    managing.end();
    outbox.close();
    stores.finish(background.handle());
    Ok(())
}

/// Serves calls.
fn serve(plan: Plan, start: Start<'_>) -> anyhow::Result<()> {
    let program = Program::of_process()?;
    let watch = start.path.map(Watch::new);
    // Outlives the edge's runtime, so that what is behind it can finish its work.
    let background = background()?;
    let mut signals = background.block_on(async { Signals::listen() })?;
    let sockets = Sockets::open(&plan, start.role, start.inherited)?;
    let state = state::open(&plan.state)?;

    let (outbox, ended) = Outbox::new(plan.sizes.records_max);
    let opened = open(plan, (start.path, start.role), (&state, ended));
    let (stores, mut plan, kept) = background.block_on(opened)?;
    let demo_port = background.block_on(start_demo(&plan))?;
    let (metrics, lifecycle) = (metrics(&stores)?, Lifecycle::default());
    let room = Room::find(&mut plan, &metrics)?;
    let resolver = Arc::new(Resolver::allowing(&plan.egress));
    let (targets, changes) = Targets::new(&metrics);
    let first = Snapshot::new(plan.settings(1, demo_port), (&resolver, &targets), &metrics);
    let snapshot = Arc::new(ArcSwap::from_pointee(first));
    let limiter = Limiter::default();
    stores.share_limits(background.handle(), &limiter);
    let gateway = Gateway::new(Parts {
        keys: Arc::new(KeyDirectory(stores.directory.clone())),
        peppers: vec![state.pepper.clone()],
        snapshot: Arc::clone(&snapshot),
        targets: targets.clone(),
        outbox: outbox.clone(),
        metrics: metrics.clone(),
        lifecycle: lifecycle.clone(),
        books: stores.books.clone(),
        limiter: limiter.clone(),
        governor: room.governor.clone(),
    })?;
    let admin = Admin {
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
        outbox: outbox.clone(),
        snapshot: Arc::clone(&snapshot),
        hosts: plan.admin_hosts.clone(),
    };
    background.spawn(Prober::new(Arc::clone(&snapshot), metrics.clone()).run());
    let certificates = plan.listen.tls.as_ref().map(Certificates::load).transpose()?;
    let shared = (start.path, Arc::clone(&snapshot));
    let socket = sockets.control.as_ref().map(|socket| (socket, start.role));
    let managing =
        socket.map(|of| control::parts(&plan, of, (&state, &stores), shared)).transpose()?;
    background.block_on(greet(&plan, (&stores, &state), managing.as_ref()))?;
    // Before anybody can see that it serves, so that who sees that finds it.
    let presence = enter(&plan);
    let services = (gateway, room.door.clone(), admin, managing);
    let mut frame = Frame::start(&plan, sockets, services, &lifecycle, certificates.as_ref())?;
    background.block_on(frame.prove())?;
    let found = (demo_port, room.memory.limit);
    room.watch(&plan, frame.runtime(), background.handle());
    let edge = Edge { frame, lifecycle, shutdown: plan.shutdown.clone() };
    // The predecessor tells the service manager, which does not know this process yet.
    if !start.predecessor.ready().context("the predecessor cannot be told")? {
        supervisor::notify(&[NotifyState::Ready]);
    }
    let settings = stores.watch_settings(background.handle(), &kept.settings);
    let (path, used) = (start.path.map(Path::to_owned), (plan, stores.database.clone()));
    let tables = (snapshot, resolver, targets, metrics);
    let reloader = Reloader::new((path, kept, settings), used, tables, certificates, found);
    reloader.note_prices(background.handle());
    stores.share_targets(background.handle(), &reloader.targets, changes);
    background.spawn(reloader.run(signals.hangup.take(), watch));

    let mut supervisor = Supervisor { edge, signals, program, presence };
    let supervised = background.block_on(supervisor.run());
    supervisor.edge.frame.end();
    outbox.close();
    let lost = stores.finish(background.handle());
    supervised?;
    all_told(lost)
}

/// Whether the database knows of every call.
fn all_told(lost: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        lost == 0,
        "{lost} calls could not be told to the database; the journal has those with money in them"
    );
    Ok(())
}

/// Opens the stores, and puts the settings that they keep into the plan.
async fn open(
    plan: Plan,
    (path, role): (Option<&Path>, Role),
    (state, ended): (&State, mpsc::Receiver<Ended>),
) -> anyhow::Result<(Stores, Plan, Kept)> {
    let stores = Stores::open(&plan, (state, role), ended).await?;
    let (plan, kept) = settings::merge(plan, path, (&stores.database, &state.vault)).await?;
    Ok((stores, plan, kept))
}

/// Says where it serves, and shows the first key to who has none, and a link to the first administrator.
async fn greet(
    plan: &Plan,
    (stores, state): (&Stores, &State),
    managing: Option<&tokenroute_control::Parts>,
) -> anyhow::Result<()> {
    let key = welcome::first_key(&stores.database, state).await?;
    match welcome::print(plan, key.as_ref(), &mut std::io::stdout()) {
        Err(error) if key.is_some() => return Err(error).context("the first key cannot be shown"),
        // Whoever read what the predecessor printed may have left since.
        Err(_) | Ok(()) => {}
    }
    invite(managing).await;
    Ok(())
}

/// Shows a link to who is to be the first administrator, where there is none.
async fn invite(managing: Option<&tokenroute_control::Parts>) {
    let Some(parts) = managing else { return };
    match tokenroute_control::first_setup_link(parts).await {
        // Whoever misses it has `tokenrouted setup-link`.
        Ok(Some(link)) => welcome::print_link(&link, &mut std::io::stdout()).unwrap_or_default(),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "no link to set up the first administrator can be made");
        }
    }
}

/// What is counted, by the stores too.
fn metrics(stores: &Stores) -> anyhow::Result<Metrics> {
    let metrics = Metrics::new()?;
    let counted = StoreMetrics::new(stores)?;
    metrics.registry().register(Box::new(counted))?;
    Ok(metrics)
}

fn background() -> std::io::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
}

/// Lets this process be found, if the state folder permits it.
fn enter(plan: &Plan) -> Option<Presence> {
    let entered = Presence::enter(&plan.state.dir);
    if let Err(error) = &entered {
        tracing::warn!(%error, "the process ID cannot be written: upgrade will not find this process");
    }
    entered.ok()
}

/// Starts the demo provider on a loopback port of its own, if it is wanted.
async fn start_demo(plan: &Plan) -> anyhow::Result<u16> {
    if !plan.demo {
        return Ok(0);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the demo provider")?;
    let port = listener.local_addr()?.port();
    let options = tokenroute_provider::Options::default();
    tokio::spawn(tokenroute_provider::serve(listener, options, std::future::pending()));
    Ok(port)
}
