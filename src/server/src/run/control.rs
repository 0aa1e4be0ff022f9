//! The management plane behind its socket: what it is made of, and the calls' plane as it sees it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokenroute_control::{Change, Edges, Identity, Later, Parts, Settings};
use tokenroute_domain::catalog::Catalog;
use tokenroute_domain::key::ApiKey;
use tokenroute_domain::limit::Limits;
use tokenroute_proxy::clock;
use tokenroute_proxy::snapshot::Snapshot;
use tokenroute_store::RedisCache;
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

use super::sockets::Socket;
use super::stores::Stores;
use crate::config::Plan;
use crate::state::{self, State};

/// For requests that are under way when the process ends.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// The calls' plane: the table that is in use here, and the messenger to all edges.
#[derive(Debug)]
struct Here {
    snapshot: Arc<ArcSwap<Snapshot>>,
    redis: Option<RedisCache>,
}

impl Edges for Here {
    fn tell(&self, change: Change) -> Later<'_, ()> {
        Box::pin(async move {
            let Some(redis) = &self.redis else { return };
            let told = match change {
                Change::Revoked(hash) => redis.announce_revocation(&hash).await,
                Change::Changed(hash) => redis.drop_cached(&[hash]).await,
            };
            if let Err(failure) = told {
                tracing::warn!(%failure, "edges were not told of a key; they see it within a second");
            }
        })
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.snapshot.load().catalog()
    }

    fn limits(&self, key: &ApiKey) -> Limits {
        Limits::of_key(key, self.snapshot.load().tiers())
    }
}

/// What the management plane is made of.
pub(super) fn parts(
    plan: &Plan,
    socket: &Socket,
    (state, stores): (&State, &Stores),
    snapshot: Arc<ArcSwap<Snapshot>>,
) -> anyhow::Result<Parts> {
    let redis = plan.state.redis().ok().flatten();
    let scheme = if plan.listen.tls.is_some() { "https" } else { "http" };
    let address = socket.listener.local_addr()?;
    let control = &plan.control;
    let settings = Settings {
        public_url: control.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
        inference_base_url: control
            .inference_base_url
            .clone()
            .unwrap_or_else(|| format!("{scheme}://{}/v1", plan.listen.address)),
        oidc: control.oidc.clone(),
        admins: control.admins.clone(),
        internal_secrets: control.internal_secrets.clone(),
    };
    Ok(Parts {
        database: stores.database.clone(),
        redis: redis.clone(),
        pepper: state.pepper.clone(),
        vault: Arc::clone(&state.vault),
        identity: Identity::new(&settings),
        edges: Arc::new(Here { snapshot, redis }),
        settings: Arc::new(settings),
        now: clock::now,
        chance: state::chance_bytes,
    })
}

/// The management plane, serving on a thread of its own.
pub(super) struct Control(Runtime);

impl Control {
    /// Serves on `socket` until `stop`; requests that are under way then are answered.
    pub(super) fn start(
        parts: Parts,
        socket: &Socket,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let listener = {
            let _runtime = runtime.enter();
            tokio::net::TcpListener::from_std(socket.listener.try_clone()?)?
        };
        runtime.spawn(async move {
            let stopped = async move {
                // Who no longer holds the other end has stopped too.
                let _gone = stop.wait_for(|stop| *stop).await;
            };
            tokenroute_control::serve(listener, parts, stopped).await;
        });
        Ok(Self(runtime))
    }

    /// Drops whatever is left.
    pub(super) fn end(self) {
        self.0.shutdown_timeout(RUNTIME_END);
    }
}
