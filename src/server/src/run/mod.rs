//! Runs the gateway: opens what it needs, wires the layers, serves until told to end, and leaves
//! nothing unwritten.

mod certificates;
mod log;
mod reload;
mod signals;
mod store_metrics;
mod stores;
mod welcome;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use pingora_core::apps::HttpServerOptions;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::listening::Service;
use pingora_proxy::http_proxy;
use tokenroute_proxy::admin::Admin;
use tokenroute_proxy::connections::Connections;
use tokenroute_proxy::gateway::{Gateway, Parts};
use tokenroute_proxy::lifecycle::Lifecycle;
use tokenroute_proxy::metrics::Metrics;
use tokenroute_proxy::outbox::Outbox;
use tokenroute_proxy::probe::Prober;
use tokenroute_proxy::resolve::Resolver;
use tokenroute_proxy::snapshot::Snapshot;
use tokenroute_proxy::targets::Targets;
use tokio::net::TcpListener;
use tokio::runtime;

use self::certificates::Certificates;
use self::reload::Reloader;
use self::signals::Signals;
use self::store_metrics::StoreMetrics;
use self::stores::{KeyDirectory, Stores};
use crate::config::{Plan, Watch};
use crate::state;

/// HTTP/2 receive windows: Pingora's default of 64 KiB makes long prompts wait for round trips.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Streams at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;
/// Seconds that the edge's runtime may take to drop what is left after the end of all calls.
const RUNTIME_END_SECONDS: u64 = 2;

/// Serves calls as `plan` says until it is told to end; `path` is watched for changes.
pub(crate) fn run(plan: Plan, path: Option<&Path>) -> anyhow::Result<()> {
    log::start(&plan.log)?;
    plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let watch = path.map(Watch::new);
    check_addresses(&plan)?;
    let state = state::open(&plan.state)?;
    // Outlives the edge's runtime, so that what is behind it can finish its work.
    let background = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()?;

    let (outbox, records) = Outbox::new(plan.sizes.records_max);
    let stores = background.block_on(Stores::open(&plan, &state, records))?;
    let demo_port = background.block_on(start_demo(&plan))?;
    let (metrics, lifecycle) = (Metrics::new()?, Lifecycle::default());
    let counted = StoreMetrics::new(stores.directory.clone(), Arc::clone(&stores.gauges))?;
    metrics.registry().register(Box::new(counted))?;
    let resolver = Arc::new(Resolver::default());
    let (targets, _changes) = Targets::new(&metrics);
    let first = Snapshot::new(plan.settings(1, demo_port), (&resolver, &targets), &metrics);
    let snapshot = Arc::new(ArcSwap::from_pointee(first));
    let gateway = Gateway::new(Parts {
        keys: Arc::new(KeyDirectory(stores.directory.clone())),
        peppers: vec![state.pepper.clone()],
        snapshot: Arc::clone(&snapshot),
        targets: targets.clone(),
        outbox: outbox.clone(),
        metrics: metrics.clone(),
        lifecycle: lifecycle.clone(),
    })?;
    let admin = Admin {
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
        outbox: outbox.clone(),
        snapshot: Arc::clone(&snapshot),
    };
    background.spawn(Prober::new(Arc::clone(&snapshot), metrics.clone()).run());
    let certificates = plan.listen.tls.as_ref().map(Certificates::load).transpose()?;
    let server = edge(&plan, gateway, admin, certificates.as_ref())?;
    let key = background.block_on(welcome::first_key(&stores.database, &state))?;
    welcome::print(&plan, key.as_ref(), &mut std::io::stdout())?;
    let signals = Signals { lifecycle, shutdown: plan.shutdown.clone() };
    let path = path.map(Path::to_owned);
    let reloader =
        Reloader { path, snapshot, resolver, targets, metrics, certificates, demo_port, plan };
    background.spawn(reloader.run(watch));

    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    outbox.close();
    let lost = stores.finish();
    anyhow::ensure!(lost == 0, "{lost} records could not be written to the database");
    Ok(())
}

/// Fails if somebody else listens already. Pingora would try again for half a minute without a word.
fn check_addresses(plan: &Plan) -> anyhow::Result<()> {
    for (setting, address) in
        [("listen.address", plan.listen.address), ("admin.address", plan.admin)]
    {
        std::net::TcpListener::bind(address)
            .with_context(|| format!("{setting}: cannot listen on {address}"))?;
    }
    Ok(())
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

/// Pingora's server with the gateway and the admin pages.
fn edge(
    plan: &Plan,
    gateway: Gateway,
    admin: Admin,
    certificates: Option<&Arc<Certificates>>,
) -> anyhow::Result<Server> {
    let conf = ServerConf {
        threads: plan.listen.threads,
        // One thread has nobody to steal from, and does with a seventh less work.
        work_stealing: plan.listen.threads > 1,
        // `Signals` has done the waiting when Pingora begins to go down.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_END_SECONDS),
        upgrade_sock: plan.state.dir.join("upgrade.sock").display().to_string(),
        pid_file: plan.state.dir.join("tokenrouted.pid").display().to_string(),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let mut proxy = http_proxy(&server.configuration, gateway);
    let mut options = HttpServerOptions::default();
    options.h2c = plan.listen.h2c;
    options.keepalive_request_limit = Some(plan.sizes.requests_per_connection_max);
    options.h2_idle_timeout = Some(plan.limits.keepalive);
    proxy.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_concurrent_streams(H2_STREAMS_MAX);
    proxy.h2_options = Some(h2);

    let address = plan.listen.address.to_string();
    let app = Connections::new(proxy, plan.sizes.connections_max);
    let mut edge = Service::new("edge".to_owned(), app);
    match certificates {
        Some(certificates) => {
            edge.add_tls_with_settings(&address, None, certificates.settings()?);
        }
        None => edge.add_tcp(&address),
    }
    let mut pages = Service::new("admin".to_owned(), HttpServer::new_app(admin));
    pages.add_tcp(&plan.admin.to_string());
    pages.threads = Some(1);
    server.add_service(edge);
    server.add_service(pages);
    Ok(server)
}
