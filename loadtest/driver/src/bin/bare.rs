//! `bare`: a Pingora proxy that does nothing but pass on to one address: the floor of the stack.
//!
//! It checks no key, reads no body and keeps no record; what a gateway costs beyond it is the gateway's own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use pingora_core::Result;
use pingora_core::modules::http::HttpModules;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Passes on to one address.
#[derive(Debug, Parser)]
#[command(name = "bare", version)]
struct CommandLine {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
    /// Threads of the proxy.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

struct Bare {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let conf = ServerConf {
        threads: usize::from(line.threads),
        // With one thread there is nothing to steal, and looking for it costs.
        work_stealing: line.threads > 1,
        upstream_keepalive_pool_size: 4_096,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut peer = HttpPeer::new(line.upstream, false, String::new());
    if let Some(options) = peer.get_mut_peer_options() {
        options.connection_timeout = Some(Duration::from_secs(3));
        options.total_connection_timeout = Some(Duration::from_secs(5));
        options.read_timeout = Some(Duration::from_mins(2));
        options.write_timeout = Some(Duration::from_mins(1));
        options.idle_timeout = Some(Duration::from_secs(30));
    }
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let mut service = http_proxy_service(&conf, Bare { peer });
    service.add_tcp(&line.listen.to_string());
    server.add_service(service);
    server.run_forever()
}
